//! All modules in one process: `galerna up`, its API, and the commands that talk to it.

mod system;

use std::path::Path;

use serde_json::{Value, json};
use system::{Service, call, errors, run, run_well, until};

const SAMPLES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/data/sample_messages.ndjson");
/// Readings in the samples, and accounts that sent them.
const READINGS: u64 = 1_201;
const ACCOUNTS: u64 = 13;

async fn up(folder: &Path) -> (Service, String) {
    let service = Service::start(folder, &["up", "--listen", "127.0.0.1:0"]);
    let api = service.api().await;
    (service, api)
}

/// Whether the one worker has settled so many messages.
async fn settled(api: &str, messages: u64) -> bool {
    let (status, answer) = call("GET", &format!("{api}/workers"), None).await;
    assert_eq!(status, 200, "{answer}");
    let components = answer["workers"][0]["components"].as_array().unwrap();
    components.iter().find(|c| c["id"] == "readings").unwrap()["acked"].as_u64().unwrap() >= messages
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_published_is_stored_and_kept_over_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let (mut service, api) = up(folder.path()).await;
    let published = run_well(folder.path(), &["--dispatcher", &api, "publish", SAMPLES, "--json"]);
    let published: Value = serde_json::from_str(&published).unwrap();
    let accounts = published["accounts"].as_object().unwrap();
    assert_eq!(accounts.len() as u64, ACCOUNTS, "{published:#}");
    assert_eq!(accounts.values().filter_map(|a| a["readings"].as_u64()).sum::<u64>(), READINGS);
    let messages = accounts.values().filter_map(|a| a["messages"].as_u64()).sum();
    until("all consumed", || settled(&api, messages)).await;
    assert!(service.stop().await.success(), "{}", service.log());

    let store = format!("embedded:{}", folder.path().join(".galerna/store.db").display());
    let stored = galerna::storage::open(&store).await.unwrap();
    assert_eq!(stored.readings.count(None).await.unwrap(), READINGS);
    drop(stored);

    // The same once more: known already, nothing is stored twice.
    let (mut service, api) = up(folder.path()).await;
    run_well(folder.path(), &["--dispatcher", &api, "publish", SAMPLES]);
    until("all consumed again", || settled(&api, messages)).await;
    assert!(service.stop().await.success(), "{}", service.log());
    let stored = galerna::storage::open(&store).await.unwrap();
    assert_eq!(stored.readings.count(None).await.unwrap(), READINGS);
}

#[tokio::test(flavor = "multi_thread")]
async fn queues_are_seen_and_steered_from_the_command_line_and_the_api() {
    let folder = tempfile::tempdir().unwrap();
    let (mut service, api) = up(folder.path()).await;
    let galerna = |args: &[&str]| {
        let mut all = vec!["--dispatcher", &api];
        all.extend_from_slice(args);
        run(folder.path(), &all)
    };
    let well = |args: &[&str]| {
        let output = galerna(args);
        assert!(output.status.success(), "{args:?}: {}", errors(&output));
        String::from_utf8(output.stdout).unwrap()
    };
    well(&["publish", SAMPLES]);

    well(&["queues", "pause", "Panther", "--reason", "meter exchange"]);
    let (status, queue) = call("GET", &format!("{api}/queue/Panther"), None).await;
    assert_eq!((status, &queue["state"], &queue["reason"]), (200, &json!("pause"), &json!("meter exchange")));
    let shown: Value = serde_json::from_str(&well(&["queues", "show", "Panther", "--json"])).unwrap();
    assert_eq!(shown["state"], "pause");
    let listed = well(&["queues", "list", "--state", "pause"]);
    assert!(listed.contains("Panther") && !listed.contains("Cockatoo"), "{listed}");
    let (status, _) = call("POST", &format!("{api}/queue/Panther/unpause"), None).await;
    assert_eq!(status, 200);

    well(&["queues", "stop"]);
    let (status, answer) = call("POST", &format!("{api}/queue/next"), Some("{}")).await;
    assert_eq!((status, &answer["error"]["code"]), (503, &json!("stopped")));
    well(&["queues", "start"]);
    well(&["queues", "strategy", "fair"]);
    let (_, strategy) = call("GET", &format!("{api}/strategy"), None).await;
    assert_eq!(strategy["configured"], "fair");

    let output = galerna(&["queues", "pause", "Nobody"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        errors(&output).contains("Nobody") && errors(&output).contains("unknown_queue"),
        "{}",
        errors(&output)
    );
    assert!(service.stop().await.success(), "{}", service.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_calls_get_errors_in_the_form_of_the_api() {
    let folder = tempfile::tempdir().unwrap();
    let (mut service, api) = up(folder.path()).await;
    run_well(folder.path(), &["--dispatcher", &api, "publish", SAMPLES]);
    for (method, path, body, status) in [
        ("GET", "/queue/Nobody", None, 404),
        ("POST", "/queue/Nobody/pause", None, 404),
        ("POST", "/queue/Bear/release", Some(r#"{"epoch":999999}"#), 409),
        ("POST", "/queue/Bear/renew", Some(r#"{"epoch":999999}"#), 409),
        ("POST", "/queue/Bear/release", Some(r#"{"epoch":"seven"}"#), 422),
        ("POST", "/queue/Bear/release", Some(r#"{"epoch""#), 400),
        ("POST", "/queue/next", Some(r#"[1,2]"#), 422),
        ("PUT", "/strategy", Some(r#"{"strategy":"best"}"#), 422),
        ("GET", "/queue/status?page=many", None, 422),
        ("GET", "/queue/Nobody/dead", None, 404),
        ("GET", "/queue/Bear/dead?limit=many", None, 422),
        ("POST", "/queue/Bear/dead/replay", Some("{}"), 422),
        ("POST", "/queue/Bear/dead/replay", Some("{"), 400),
        ("POST", "/queue/Bear/dead/discard", Some(r#"{"ids":"all"}"#), 422),
        ("DELETE", "/queue/Bear", None, 405),
        ("GET", "/nothing", None, 404),
    ] {
        let (got, answer) = call(method, &format!("{api}{path}"), body).await;
        assert_eq!(got, status, "{method} {path} {body:?}: {answer}");
        let error = &answer["error"];
        assert!(
            error["code"].is_string() && error["message"].is_string(),
            "{method} {path} {body:?}: {answer}"
        );
    }
    for path in ["/healthz", "/readyz", "/metrics", "/openapi.json"] {
        let (got, _) = call("GET", &format!("{api}{path}"), None).await;
        assert_eq!(got, 200, "{path}");
    }
    assert!(service.stop().await.success(), "{}", service.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_are_listed_replayed_and_discarded() {
    let folder = tempfile::tempdir().unwrap();
    let (mut service, api) = up(folder.path()).await;
    let file = folder.path().join("unknown.ndjson");
    let reading = |p: u32| {
        format!(r#"{{"did":"m{p}","values":[{{"p":{p},"v":1.0}}],"sqn":1,"ts":"2017-01-01T00:00:00Z"}}"#)
    };
    std::fs::write(&file, [reading(998), reading(401), reading(999)].join("\n")).unwrap();
    let file = file.to_str().unwrap();
    run_well(folder.path(), &["--dispatcher", &api, "publish", file, "--account", "A1"]);
    let listed = || async {
        let (_, answer) = call("GET", &format!("{api}/queue/A1/dead"), None).await;
        answer["dead"].as_array().cloned().unwrap_or_default()
    };
    until("two dead letters", || async { listed().await.len() == 2 }).await;
    for letter in listed().await {
        assert!(letter["reason"].as_str().unwrap().contains("99"), "{letter}");
        assert_eq!(letter["component"], "validate");
    }
    let galerna = |args: &[&str]| {
        let mut all = vec!["--dispatcher", &api, "queues", "dead"];
        all.extend_from_slice(args);
        run_well(folder.path(), &all)
    };
    assert!(galerna(&["list"]).contains("A1"));
    assert!(galerna(&["list", "A1", "--bodies"]).contains("m998"));
    // Still wrong: they come back to where they were.
    galerna(&["replay", "A1", "--all"]);
    until("two dead letters again", || async { listed().await.len() == 2 }).await;
    let id = listed().await[0]["id"].as_str().unwrap().to_owned();
    galerna(&["discard", "A1", &id]);
    assert_eq!(listed().await.len(), 1);
    galerna(&["discard", "A1", "--all"]);
    assert_eq!(listed().await.len(), 0);
    assert!(service.stop().await.success(), "{}", service.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_wrong_in_parts_is_published_in_the_others() {
    let folder = tempfile::tempdir().unwrap();
    let (mut service, api) = up(folder.path()).await;
    let file = folder.path().join("mixed.ndjson");
    let lines = [
        r#"{"did":"a","values":[{"p":401,"v":1.0}],"sqn":1,"ts":"2017-01-01T00:00:00Z"}"#,
        r#"{"did":"b","values":[{"p":401,"v":1.0}],"sqn":1,"ts":"2017-01-01T00:00:00"}"#,
        r#"{"did":"c""#,
    ];
    std::fs::write(&file, lines.join("\n")).unwrap();
    let args = ["--dispatcher", &api, "publish", file.to_str().unwrap(), "--account", "A1", "--json"];
    let output = run(folder.path(), &args);
    assert_eq!(output.status.code(), Some(1), "{}", errors(&output));
    let said: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&said["accounts"]["A1"]["readings"], &said["refused"]), (&json!(1), &json!(2)), "{said:#}");
    assert!(errors(&output).contains("line 2") && errors(&output).contains("line 3"), "{}", errors(&output));
    assert!(service.stop().await.success(), "{}", service.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_process_cannot_have_the_same_data_and_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let (mut service, _) = up(folder.path()).await;
    // The ports are free: it is the data that it cannot have.
    let free = ["api", "frontend", "page", "worker"].map(|module| format!("{module}.listen=127.0.0.1:0"));
    let args: Vec<&str> = free.iter().flat_map(|listen| ["--set", listen]).chain(["up"]).collect();
    let output = run(folder.path(), &args);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        errors(&output).contains("another process") || errors(&output).contains("open already"),
        "{}",
        errors(&output)
    );
    assert!(service.stop().await.success(), "{}", service.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_token_every_call_must_bring_it() {
    let folder = tempfile::tempdir().unwrap();
    let token = "0123456789abcdef";
    let set = format!("api.token={token}");
    let mut service = Service::start(folder.path(), &["--set", &set, "up", "--listen", "127.0.0.1:0"]);
    let api = service.api().await;
    for path in ["/queue/status", "/dead", "/queue/A/dead"] {
        let (status, answer) = call("GET", &format!("{api}{path}"), None).await;
        assert_eq!((status, &answer["error"]["code"]), (401, &json!("unauthorized")), "{path}");
    }
    let output = run(folder.path(), &["--dispatcher", &api, "queues", "list"]);
    assert!(errors(&output).contains("unauthorized"), "{}", errors(&output));
    run_well(folder.path(), &["--set", &set, "--dispatcher", &api, "queues", "list"]);
    assert!(service.stop().await.success(), "{}", service.log());
}
