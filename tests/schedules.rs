//! What fires by the clock: `galerna up` serves it, `galerna schedules` and the page steer it, and each firing is a message of a queue.

mod system;

use std::path::Path;

use serde_json::{Value, json};
use system::{Service, call, errors, run, run_well, until};

const SAMPLES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/data/sample_messages.ndjson");

async fn up(folder: &Path) -> (Service, String) {
    let service = Service::start(folder, &["up", "--listen", "127.0.0.1:0"]);
    let api = service.api().await;
    service.said("all modules are up").await;
    (service, api)
}

async fn counted(api: &str, schedule: &str, outcome: &str) -> u64 {
    let (_, shown) = call("GET", &format!("{api}/schedules/{schedule}"), None).await;
    shown["counts"][outcome].as_u64().unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn schedules_are_steered_from_the_command_line_and_publish_to_their_queues() {
    let folder = tempfile::tempdir().unwrap();
    let (mut service, api) = up(folder.path()).await;
    let galerna = |args: &[&str]| run(folder.path(), &[&["--dispatcher", &api], args].concat());
    let well = |args: &[&str]| run_well(folder.path(), &[&["--dispatcher", &api], args].concat());
    let parsed = |text: String| serde_json::from_str::<Value>(&text).unwrap();
    well(&["publish", SAMPLES]);

    // What goes wrong is said with its field and its code.
    for (args, said) in [
        (
            &[
                "schedules",
                "add",
                "s",
                "--cron",
                "0 6 * * *",
                "--timezone",
                "Europe/Atlantis",
                "--queue",
                "Panther",
            ][..],
            "cron.timezone",
        ),
        (&["schedules", "add", "s", "--every", "1h", "--queue", "Nobody"], "queue `Nobody` does not exist"),
        (&["schedules", "add", "s", "--every", "1h"], "it names no message"),
        (&["schedules", "add", "s", "--queue", "Panther"], "--cron"),
        (&["schedules", "show", "nobody"], "unknown_schedule"),
        (&["schedules", "backfill", "s", "--from", "yesterday", "--to", "now"], "yesterday"),
    ] {
        let refused = galerna(args);
        assert_eq!(refused.status.code(), Some(1), "{args:?}");
        assert!(errors(&refused).contains(said), "{said}: {}", errors(&refused));
    }
    let refused = errors(&galerna(&["schedules", "show", "nobody", "--json"]));
    let line = refused.lines().find(|line| line.starts_with('{')).unwrap();
    assert_eq!(parsed(line.to_owned())["error"]["code"], "unknown_schedule");

    let night = [
        "--cron",
        "30 2 * * *",
        "--timezone",
        "Europe/Berlin",
        "--queue",
        "Panther",
        "--body",
        r#"{"report":"usage"}"#,
    ];
    let added = well(&[&["schedules", "add", "reports/nightly"], &night[..]].concat());
    assert!(
        added.contains("is added: 30 2 * * * in Europe/Berlin") && added.contains("time zones of 20"),
        "{added}"
    );
    assert_eq!(added.matches("[Europe/Berlin]").count(), 10, "{added}");
    let edited =
        well(&["schedules", "edit", "reports/nightly", "--cron", "0 3 * * *", "--overlap", "allow_all"]);
    assert_eq!(edited.matches("T03:00:00").count(), 10, "{edited}");
    let paused = well(&["schedules", "pause", "reports/nightly", "--note", "moving house"]);
    assert!(paused.contains("is paused"), "{paused}");
    assert!(well(&["schedules", "show", "reports/nightly"]).contains("moving house"));
    well(&["schedules", "resume", "reports/nightly"]);

    let list = parsed(well(&["schedules", "list", "-o", "json"]));
    assert_eq!((&list["total"], &list["items"][0]["id"]), (&json!(1), &json!("reports/nightly")));
    assert_eq!(well(&["schedules", "list", "-o", "name"]).trim_end(), "reports/nightly");
    let csv = well(&["schedules", "list", "-o", "csv"]);
    assert!(
        csv.starts_with("schedule,occurs,state,next,done,failed,skipped,missed\nreports/nightly,"),
        "{csv}"
    );

    // It fires: a message that is no reading becomes a dead letter of its queue, which shows that it came there.
    let fired = well(&["schedules", "trigger", "reports/nightly"]);
    assert!(fired.contains("#triggered-1 is on its way"), "{fired}");
    until("it is published", || async { counted(&api, "reports%2Fnightly", "done").await == 1 }).await;
    let letters = format!("{api}/queue/Panther/dead?bodies=true");
    until("the message was consumed", || async {
        let (_, dead) = call("GET", &letters, None).await;
        dead["dead"].as_array().is_some_and(|dead| {
            dead.iter().any(|letter| {
                letter["body"].as_str().is_some_and(|body| body.contains(r#"[{"report":"usage"}]"#))
            })
        })
    })
    .await;
    let filled = well(&[
        "schedules",
        "backfill",
        "reports/nightly",
        "--from",
        "2026-03-27T00:00:00Z",
        "--to",
        "2026-03-30T00:00:00Z",
    ]);
    assert!(filled.contains(": 3") || filled.contains(": 2"), "{filled}");
    // By the clock, and over a restart.
    well(&["schedules", "add", "often", "--every", "1s", "--queue", "Panther"]);
    until("it fires by the clock", || async { counted(&api, "often", "done").await >= 2 }).await;
    assert!(service.stop().await.success(), "{}", service.log());
    let (mut service, api) = up(folder.path()).await;
    let before = counted(&api, "often", "done").await;
    until("it goes on", || async { counted(&api, "often", "done").await > before }).await;
    let well = |args: &[&str]| run_well(folder.path(), &[&["--dispatcher", &api], args].concat());
    well(&["schedules", "remove", "often"]);
    let audited = well(&["schedules", "list", "-o", "name"]);
    assert_eq!(audited.trim_end(), "reports/nightly");
    assert!(service.stop().await.success(), "{}", service.log());
    // Who did what stands in the audit log.
    let store = format!("embedded:{}", folder.path().join(".galerna/store.db").display());
    let store = galerna::storage::open(&store).await.unwrap();
    let actions: Vec<String> =
        store.audit.list(None, 0, 100).await.unwrap().into_iter().map(|entry| entry.action).collect();
    for action in ["add", "edit", "pause", "resume", "trigger", "backfill", "remove"] {
        assert!(actions.contains(&format!("schedule.{action}")), "{action}: {actions:?}");
    }
}
