//! Exports of meters published into a running system: what the store has of them afterwards.

mod system;

use std::path::{Path, PathBuf};
use std::process::Output;

use galerna::storage::{ReadingsQuery, Store, StoredReading};
use galerna_model::AccountId;
use galerna_test_servers::{Mongo, RabbitMq};
use serde_json::{Value, json};
use system::{Service, call, database, errors, run, run_well, until};

const FREE: [&str; 12] = [
    "--listen",
    "127.0.0.1:0",
    "--set",
    "frontend.listen=127.0.0.1:0",
    "--set",
    "page.listen=127.0.0.1:0",
    "--set",
    "worker.listen=127.0.0.1:0",
    "--set",
    "notifier.listen=127.0.0.1:0",
    "--set",
    "frontend.notice=0ms",
];

fn case(name: &str) -> String {
    let path: PathBuf = [env!("CARGO_MANIFEST_DIR"), "import/tests/data", name].iter().collect();
    path.display().to_string()
}

async fn readings(store: &Store, account: &str) -> Vec<StoredReading> {
    let query = ReadingsQuery {
        account: Some(AccountId::new(account).unwrap()),
        limit: 10_000,
        ..ReadingsQuery::default()
    };
    let mut found = store.readings.find(&query).await.unwrap();
    found.reverse();
    found
}

fn values(readings: &[StoredReading], meter: &str, parameter: u32) -> Vec<f64> {
    let of_meter = readings.iter().filter(|reading| reading.device == meter);
    of_meter.flat_map(|r| r.values.iter().filter(|m| m.p.0 == parameter).map(|m| m.v)).collect()
}

/// What a run printed as JSON, and what it said of errors.
fn told(output: &Output) -> (Value, String) {
    (serde_json::from_slice(&output.stdout).unwrap_or_default(), errors(output))
}

fn messages(summary: &Value) -> u64 {
    let accounts = summary["accounts"].as_object().into_iter().flatten();
    accounts.filter_map(|(_, sent)| sent["messages"].as_u64()).sum()
}

/// Whether the workers have done so many messages.
async fn settled(api: &str, messages: u64) -> bool {
    let (status, answer) = call("GET", &format!("{api}/workers"), None).await;
    assert_eq!(status, 200, "{answer}");
    let components = answer["workers"][0]["components"].as_array().unwrap();
    components.iter().find(|c| c["id"] == "readings").unwrap()["acked"].as_u64().unwrap() >= messages
}

#[tokio::test(flavor = "multi_thread")]
async fn exports_are_stored_as_they_should_be() {
    let folder = tempfile::tempdir().unwrap();
    let mut args = FREE.to_vec();
    args.push("up");
    let mut service = Service::start(folder.path(), &args);
    let api = service.api().await;
    let publish =
        |more: &[&str]| run(folder.path(), &[&["--dispatcher", &api, "publish", "--json"], more].concat());
    let mut sent = 0;
    let mut well = |more: &[&str]| -> Value {
        let output = publish(more);
        let (summary, errors) = told(&output);
        assert_eq!(output.status.code(), Some(0), "{more:?}: {errors}");
        sent += messages(&summary);
        summary
    };

    // The second month is published while the first may still wait in its queue.
    well(&[&case("cases/month1.csv")]);
    well(&[&case("cases/month2.csv")]);
    for file in
        ["multi_account_meter", "newest_first", "half_hourly", "negative_interval", "semicolon_decimal_comma"]
    {
        well(&[&case(&format!("cases/{file}.csv"))]);
    }
    well(&["--account", "Acme", &case("cases/no_account_col.csv")]);
    well(&["--account", "Acme", &case("cases/shape_datadis.ndjson")]);
    well(&["--account", "Acme", "--meter", "gb", "--unit", "Wh", &case("cases/shape_green_button.xml")]);
    well(&["--account", "Acme", "--meter", "home", &case("cases/shape_octopus.csv")]);

    let by_meter = ["--mapping", "meter-columns", "--account", "Wide", "--time-zone", "UTC"];
    well(&[&by_meter[..], &[&case("cases/meter_columns.csv")]].concat());

    for (file, parts) in [
        ("cases/lost_decimal_point.csv", &["1 lines or readings", "line 2: ", "out of range"][..]),
        ("cases/unclosed_quote.csv", &["4 lines or readings", "quote opened on line 2"]),
        ("cases/reserved_name_first.ndjson", &["line 1: ", "reserved"]),
        ("cases/account_is_internal_queue.ndjson", &["line 1: ", "`galerna.`"]),
        ("cases/meter_columns.csv", &["--mapping meter-columns"]),
        ("grids/not_a_csv.csv", &["PNG"]),
    ] {
        let output = publish(&[&case(file)]);
        let (summary, errors) = told(&output);
        assert_eq!(output.status.code(), Some(1), "{file}: {errors}");
        assert!(parts.iter().all(|part| errors.contains(part)), "{file}: {errors}");
        sent += messages(&summary);
    }

    let (_, errors) = told(&publish(&["--account", "CaseA", &case("cases/seconds.ndjson")]));
    for part in ["1 lines or readings", "line 1, reading 1: ", "seconds since 1970", "milliseconds"] {
        assert!(errors.contains(part), "{errors} lacks {part}");
    }

    // A dry run shows how the counter would go on, and changes nothing.
    let next = "account,meter_id,utility,ts,value,unit\nCaseA,c_mon,electricity,2026-11-01T03:00:00Z,4,kWh\n";
    std::fs::write(folder.path().join("next.csv"), next).unwrap();
    let shown = run_well(folder.path(), &["--dispatcher", &api, "publish", "--dry-run", "next.csv"]);
    for part in ["read as `galerna`", "402=10 401=4000", "1 readings would be published; nothing was"] {
        assert!(shown.contains(part), "{shown} lacks {part}");
    }
    let offline =
        run_well(folder.path(), &["--dispatcher", "http://127.0.0.1:1", "publish", "--dry-run", "next.csv"]);
    assert!(offline.contains("402=4"), "{offline}");

    until("all is stored", || settled(&api, sent)).await;
    assert!(service.stop().await.success());
    let url = format!("embedded:{}", folder.path().join(".galerna/store.db").display());
    let store = galerna::storage::open(&url).await.unwrap();
    let a = readings(&store, "CaseA").await;
    assert_eq!(values(&a, "c_mon", 402), [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
    assert_eq!(values(&a, "1", 402), [10.0, 20.0]);
    let wide = readings(&store, "Wide").await;
    assert_eq!(values(&wide, "Panther_office_Hannah", 402), [2.0, 5.0, 9.0]);
    // Nothing is known of it at 01:00.
    assert_eq!(values(&wide, "Panther_lodging_Dean", 402), [1.5, 4.0]);
    assert_eq!(values(&readings(&store, "CaseB").await, "1", 402), [1.0, 2.0]);
    assert_eq!(values(&a, "m_nf", 402), [1.0, 3.0, 7.0, 15.0]);
    assert_eq!(values(&a, "c_hh", 401), [1000.0; 4]);
    assert_eq!(values(&a, "m_neg", 402), [1.0, 1.0, 1.0, 3.0]);
    assert_eq!(values(&a, "m_neg", 452), [0.221, 0.793]);
    assert_eq!(values(&a, "m_semic", 402), [1.0, 2.1, 3.3]);
    assert_eq!(values(&a, "c_huge", 402), [1.5]);
    assert_eq!(values(&a, "mix_ok", 401), [1.0]);
    let flagged: Vec<_> = a.iter().filter(|reading| !reading.flags.is_empty()).collect();
    assert!(flagged.is_empty(), "{flagged:?}");
    let acme = readings(&store, "Acme").await;
    assert_eq!((values(&acme, "no_acc", 402), values(&acme, "no_acc", 401)), (vec![0.5], vec![500.0]));
    assert_eq!(values(&acme, "gb", 401), [500.0]);
    assert_eq!(values(&acme, "home", 402), [0.25, 0.75]);
    let accounts = store.accounts.list().await.unwrap();
    let names: Vec<&str> = accounts.iter().map(|account| account.id.as_str()).collect();
    assert!(!names.contains(&"x.dead") && !names.contains(&"galerna.alerts"), "{names:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_month_that_was_missing_moves_the_counters_after_it() {
    let rabbit = RabbitMq::shared().await;
    let (amqp, mongo) = (rabbit.vhost().await, Mongo::shared().await);
    let store_url = database(&mongo.uri(), &mongo.unique("import"));
    let folder = tempfile::tempdir().unwrap();
    let management = format!("broker.management_url={}", rabbit.management_uri());
    let flags = ["--broker", &amqp, "--store", &store_url, "--set", &management];
    let publish = |more: &[&str]| -> Value {
        let all = [&flags[..], &["publish", "--json"], more].concat();
        serde_json::from_str(&run_well(folder.path(), &all)).unwrap()
    };
    // Nothing but publishing runs: all of it waits in the queue.
    let later = publish(&[&case("cases/month2.csv")]);
    assert_eq!((&later["accounts"]["CaseA"]["readings"], &later["revised"]), (&json!(3), &json!(0)));
    let sooner = publish(&[&case("cases/month1.csv")]);
    assert_eq!((&sooner["accounts"]["CaseA"]["readings"], &sooner["revised"]), (&json!(6), &json!(3)));
    let again = publish(&[&case("cases/month1.csv")]);
    assert_eq!((&again["known"], &again["revised"]), (&json!(3), &json!(0)));
    stored_counters(folder.path(), &flags, &store_url).await;
}

async fn stored_counters(folder: &Path, flags: &[&str], store_url: &str) {
    let all = [&FREE[..], flags, &["up"]].concat();
    let mut service = Service::start(folder, &all);
    service.api().await;
    let store = galerna::storage::open(store_url).await.unwrap();
    let counters = || async { values(&readings(&store, "CaseA").await, "c_mon", 402) };
    until("the counters are those of one file", || async {
        counters().await == [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]
    })
    .await;
    assert!(service.stop().await.success());
}
