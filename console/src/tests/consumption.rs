//! What counters say was used, on the page of a source and by the API.

use galerna_consumption::CountedReadings;
use galerna_model::{Measurement, ParameterCode, SourceId};
use galerna_storage::{Readings, StoredReading};

use super::*;

fn reading(ts: &str, kwh: f64) -> StoredReading {
    StoredReading {
        account: AccountId::new("acme").unwrap(),
        source: SourceId::new("s1").unwrap(),
        device: format!("meter {SCRIPT}"),
        ts: Timestamp::parse(ts).unwrap(),
        sqn: 1,
        values: vec![Measurement { p: ParameterCode(402), v: kwh }],
        flags: Vec::new(),
        received: Timestamp(0),
    }
}

const READINGS: [(&str, f64); 4] = [
    ("2017-01-30T00:00:00+01:00", 100.0),
    ("2017-01-31T00:00:00+01:00", 112.0),
    ("2017-02-01T12:00:00+01:00", 148.0),
    ("2017-02-01T13:00:00+01:00", 2.0),
];

#[tokio::test(flavor = "multi_thread")]
async fn consumption_is_shown_by_hour_day_and_month() {
    let world = World::open().await;
    let parts = &world.parts;
    let counted = CountedReadings::new(
        parts.store.readings.clone(),
        parts.store.consumption.clone(),
        parts.parameters.clone(),
        parts.consumption.clone().unwrap(),
    );
    let readings: Vec<StoredReading> = READINGS.into_iter().rev().map(|(ts, kwh)| reading(ts, kwh)).collect();
    counted.store(&readings).await.unwrap();

    let ask = async |query: &str| {
        let answer = world.get(&format!("/api/consumption?source=s1&{query}")).send().await.unwrap();
        (answer.status().as_u16(), answer.json::<Value>().await.unwrap())
    };
    let answer = world.get("/api/consumption?source=nobody").send().await.unwrap();
    assert_eq!(answer.status(), 404, "{}", answer.text().await.unwrap());
    let (status, days) = ask("from=2017-01-30&until=2017-02-02").await;
    assert_eq!((status, &days["time_zone"], &days["by"]), (200, &json!("Europe/Berlin"), &json!("day")));
    let counter = &days["counters"][0];
    assert_eq!((&counter["quantity"], &counter["unit"]), (&json!("active_energy"), &json!("kWh")));
    let bars: Vec<(&str, f64, bool, u64)> = counter["bars"]
        .as_array()
        .unwrap()
        .iter()
        .map(|bar| {
            let (local, used) = (bar["local"].as_str().unwrap(), bar["used"].as_f64().unwrap());
            (local, used, bar["estimated"].as_bool().unwrap(), bar["resets"].as_u64().unwrap())
        })
        .collect();
    assert_eq!(
        bars,
        [("2017-01-30", 12.0, false, 0), ("2017-01-31", 24.0, true, 0), ("2017-02-01", 14.0, true, 1)]
    );
    let (_, months) = ask("by=month&from=2017-01-01&until=2017-03-01").await;
    assert_eq!(
        (&months["counters"][0]["bars"][0]["used"], &months["counters"][0]["bars"][1]["used"]),
        (&json!(36.0), &json!(14.0))
    );
    let (_, hours) = ask("by=hour&from=2017-02-01T12:00:00Z&until=2017-02-01T13:00:00Z").await;
    assert_eq!(hours["counters"], json!([]), "nothing is known of the time after the last reading");
    for (query, told) in [
        ("by=week", "write hour, day or month"),
        ("from=30.1.2017", "`from` is no date of Europe/Berlin such as"),
        ("by=hour&from=2000-01-01&until=2017-01-01", "more than 1000 bars of an hour"),
        ("from=2017-02-01&until=2017-02-01", "or none"),
        ("colour=red", "colour"),
    ] {
        let (status, answer) = ask(query).await;
        let message = answer["error"]["message"].as_str().unwrap();
        assert!((400..=422).contains(&status) && message.contains(told), "{query}: {status} {message}");
    }

    for (path, part) in
        [("/sources/s1", "2017-02-01"), ("/sources/s1?by=month", "2017-02"), ("/sources/s1?by=hour", "12:00")]
    {
        let page = world.text(path).await;
        for part in [part, "<svg", "active energy", "kWh in all", "Europe/Berlin"] {
            assert!(page.contains(part), "{path}: {part}: {page}");
        }
        assert!(!page.contains(SCRIPT), "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_is_counted_anew_when_asked_for_and_what_is_not_kept_is_said() {
    let world = World::open().await;
    let readings: Vec<StoredReading> = READINGS.into_iter().map(|(ts, kwh)| reading(ts, kwh)).collect();
    world.parts.store.readings.store(&readings).await.unwrap();
    let recount = async || {
        let answer = world
            .call("/api/sources/recount", &json!({ "source": "s1", "reason": "new" }))
            .send()
            .await
            .unwrap();
        (answer.status().as_u16(), answer.json::<Value>().await.unwrap()["changed"].clone())
    };
    assert_eq!(recount().await, (200, json!(3)));
    assert_eq!(recount().await, (200, json!(0)));
    let audit = world.audit().await;
    assert_eq!((audit[0].action.as_str(), audit[0].target.as_str()), ("source.recount", "s1"));

    let folder = tempfile::tempdir().unwrap();
    let mut parts = parts(&folder, 1).await;
    parts.consumption = None;
    parts.store.readings.store(&readings).await.unwrap();
    let world = World::with(folder, parts, Access::default()).await;
    assert!(world.text("/sources/s1").await.contains("`ingest.consumption_zone` says"));
    let answer = world.get("/api/consumption?source=s1").send().await.unwrap();
    assert_eq!(answer.status(), 409);
}
