//! Whatever way an operator goes – command line, API or page –, it is written to the audit log once: who, what, why and what came of it.

mod system;

use std::path::Path;

use galerna::ingest::prelude::*;
use galerna_test_servers::{Mongo, RabbitMq};
use serde_json::{Value, json};
use system::{DEADLINE, Service, command, database, end_of, errors, run_well, until};

/// Action, target, who, why, done.
type Line = (String, String, String, String, bool);

fn line(action: &str, target: &str, who: &str, why: &str, done: bool) -> Line {
    (action.to_owned(), target.to_owned(), who.to_owned(), why.to_owned(), done)
}

/// Runs a command as Amaia and returns its exit code.
fn amaia(folder: &Path, args: &[&str]) -> Option<i32> {
    let output = end_of(command(folder, args).env("USER", "amaia"), DEADLINE);
    eprintln!("{args:?}: {}", errors(&output));
    output.status.code()
}

/// A call of the API as Iker makes it.
async fn iker(method: &str, url: &str, body: &str, audited: bool) -> u16 {
    galerna_tls::install_default_provider();
    let request = reqwest::Client::new().request(method.parse().unwrap(), url);
    let request = request.header("content-type", "application/json").header("x-actor", "iker");
    let request = if audited { request.header("x-audited", "yes") } else { request };
    request.body(body.to_owned()).send().await.unwrap().status().as_u16()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_done_by_command_line_and_api_is_in_the_audit_log() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let mut service = Service::start(folder, &["up", "--listen", "127.0.0.1:0"]);
    let api = service.api().await;
    let page = service.said("the page listens").await;
    let page = format!("page.url=http://{}", page["fields"]["address"].as_str().unwrap());
    service.said("all modules are up").await;

    // Dead letters, so that there is something to discard.
    let reading = |p: u32| {
        format!(r#"{{"did":"m{p}","values":[{{"p":{p},"v":1.0}}],"sqn":1,"ts":"2017-01-01T00:00:00Z"}}"#)
    };
    std::fs::write(folder.join("unknown.ndjson"), [reading(998), reading(999)].join("\n")).unwrap();
    run_well(folder, &["--dispatcher", &api, "publish", "unknown.ndjson", "--account", "A+1"]);
    let dead = || {
        let listed = run_well(folder, &["--dispatcher", &api, "queues", "dead", "list", "A+1", "--json"]);
        serde_json::from_str::<Value>(&listed).unwrap()["dead"].as_array().cloned().unwrap_or_default()
    };
    until("two dead letters", || async { dead().len() == 2 }).await;
    let id = dead()[0]["id"].as_str().unwrap().to_owned();

    let me = |args: &[&str]| amaia(folder, &[&["--dispatcher", &api, "queues"], args].concat());
    assert_eq!(me(&["pause", "A+1", "--reason", "meter exchange"]), Some(0));
    assert_eq!(me(&["unpause", "A+1"]), Some(0));
    assert_eq!(me(&["pause", "Nobody", "--reason", "a slip"]), Some(1));
    assert_eq!(me(&["dead", "discard", "A+1", &id, "--reason", "wrong meter", "--yes"]), Some(0));
    // No terminal, nobody to ask.
    assert_eq!(me(&["dead", "discard", "A+1", "--all", "--reason", "both wrong"]), Some(0));
    assert_eq!(me(&["stop", "--reason", "maintenance"]), Some(0));
    assert_eq!(me(&["start", "--reason", "over"]), Some(0));
    assert_eq!(me(&["strategy", "fair", "--reason", "a big one"]), Some(0));
    // To look is no action.
    assert_eq!(me(&["strategy"]), Some(0));
    assert_eq!(me(&["list"]), Some(0));
    assert_eq!(me(&["strategy", "--reason", "none named"]), Some(2));

    for (method, path, body, status) in [
        ("POST", "/queue/A%2B1/pause", r#"{"reason":"by API"}"#, 200),
        ("POST", "/queue/A+1/unpause", r#"{"reason":"by API"}"#, 200),
        ("POST", "/queue/A+1/dead/replay", r#"{"ids":["1","2"],"reason":"by API"}"#, 200),
        ("POST", "/queue/A+1/dead/discard", r#"{"reason":"nothing named"}"#, 422),
        ("POST", "/stop", "", 200),
        ("POST", "/start", "not JSON", 400),
        ("POST", "/start", "", 200),
        ("PUT", "/strategy", r#"{"strategy":"fifo","reason":"by API"}"#, 200),
        ("POST", "/queue/hint", r#"{"queues":["A+1"]}"#, 200),
        ("GET", "/queue/A+1/pause", "", 405),
    ] {
        assert_eq!(iker(method, &format!("{api}{path}"), body, false).await, status, "{method} {path}");
    }
    // Whoever keeps the log itself is not written down twice.
    assert_eq!(iker("POST", &format!("{api}/start"), "", true).await, 200);

    let listed = run_well(folder, &["--set", &page, "audit", "list", "--json"]);
    let listed: Value = serde_json::from_str(&listed).unwrap();
    let text = |entry: &Value, name: &str| entry[name].as_str().unwrap_or_default().to_owned();
    let lines: Vec<Line> = listed["entries"]
        .as_array()
        .unwrap()
        .iter()
        .rev()
        .map(|e| {
            assert_eq!((&e["role"], e["at"].is_string()), (&json!("operator"), true), "{e}");
            let done = e["done"].as_bool().unwrap();
            (text(e, "action"), text(e, "target"), text(e, "who"), text(e, "why"), done)
        })
        .collect();
    let expected = [
        line("queue.pause", "A+1", "amaia", "meter exchange", true),
        line("queue.unpause", "A+1", "amaia", "", true),
        line("queue.pause", "Nobody", "amaia", "a slip", false),
        line("dead_letters.discard", &format!("A+1: {id}"), "amaia", "wrong meter", true),
        line("dead_letters.discard", "A+1: all", "amaia", "both wrong", true),
        line("dispatcher.stop", "dispatcher", "amaia", "maintenance", true),
        line("dispatcher.start", "dispatcher", "amaia", "over", true),
        line("dispatcher.strategy", "fair", "amaia", "a big one", true),
        line("queue.pause", "A+1", "iker", "by API", true),
        line("queue.unpause", "A+1", "iker", "by API", true),
        line("dead_letters.replay", "A+1: 2 letters", "iker", "by API", true),
        line("dead_letters.discard", "A+1", "iker", "nothing named", false),
        line("dispatcher.stop", "dispatcher", "iker", "", true),
        line("dispatcher.start", "dispatcher", "iker", "", false),
        line("dispatcher.start", "dispatcher", "iker", "", true),
        line("dispatcher.strategy", "fifo", "iker", "by API", true),
    ];
    assert_eq!(lines, expected);
    let outcomes: Vec<String> =
        listed["entries"].as_array().unwrap().iter().rev().map(|e| text(e, "outcome")).collect();
    assert_eq!(outcomes[0], "queue A+1 is paused");
    assert!(outcomes[2].contains("Nobody"), "{outcomes:?}");
    assert_eq!(outcomes[4], "dead letters of A+1 discarded: 1");
    assert!(service.stop().await.success(), "{}", service.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_token_nothing_is_done_and_nothing_written() {
    let folder = tempfile::tempdir().unwrap();
    let token = "api.token=0123456789abcdef";
    let mut service = Service::start(folder.path(), &["--set", token, "up", "--listen", "127.0.0.1:0"]);
    let api = service.api().await;
    let page = service.said("the page listens").await;
    let page = format!("page.url=http://{}", page["fields"]["address"].as_str().unwrap());
    for path in ["/stop", "/queue/A/pause", "/queue/A/dead/discard"] {
        assert_eq!(iker("POST", &format!("{api}{path}"), "{}", false).await, 401, "{path}");
    }
    let me = |args: &[&str]| amaia(folder.path(), &[&["--dispatcher", &api], args].concat());
    assert_eq!(me(&["queues", "stop"]), Some(1));
    assert_eq!(me(&["--set", token, "queues", "start"]), Some(0));
    let listed = run_well(folder.path(), &["--set", &page, "audit", "list", "--json"]);
    let listed: Value = serde_json::from_str(&listed).unwrap();
    let actions: Vec<&Value> = listed["entries"].as_array().unwrap().iter().map(|e| &e["action"]).collect();
    assert_eq!(actions, [&json!("dispatcher.start")]);
    assert!(service.stop().await.success(), "{}", service.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn modules_of_their_own_write_once_and_so_does_a_command_that_goes_to_the_broker() {
    let (rabbit, mongo) = (RabbitMq::shared().await, Mongo::shared().await);
    let amqp = rabbit.vhost().await;
    let management = format!("broker.management_url={}", rabbit.management_uri());
    let store_url = database(&mongo.uri(), &mongo.unique("audit"));
    let folder = tempfile::tempdir().unwrap();
    let both = ["--broker", &amqp, "--set", &management, "--store", &store_url];
    let start = |args: &[&str]| Service::start(folder.path(), &[&both, args].concat());

    let mut dispatcher = start(&["dispatcher", "--listen", "127.0.0.1:0"]);
    let api = dispatcher.api().await;
    let mut page = start(&["--dispatcher", &api, "page"]);
    let url = page.said("the page listens").await;
    let url = format!("http://{}", url["fields"]["address"].as_str().unwrap());
    assert_eq!(
        iker("POST", &format!("{url}/api/dispatcher/stop"), r#"{"reason":"on the page"}"#, false).await,
        200
    );
    let me = |args: &[&str]| amaia(folder.path(), &[&both, &["--dispatcher", &api][..], args].concat());
    assert_eq!(me(&["queues", "start", "--reason", "on the command line"]), Some(0));

    let broker = galerna::broker::open(&amqp).await.unwrap();
    broker.declare(&QueueName::new("Q").unwrap()).await.unwrap();
    let discard = ["queues", "dead", "discard", "Q", "--all", "--reason", "at the broker"];
    assert_eq!(me(&discard), Some(0));
    assert_eq!(me(&["queues", "dead", "replay", "absent", "1"]), Some(1));
    assert_eq!(me(&["queues", "dead", "list"]), Some(0));

    let store = galerna::storage::open(&store_url).await.unwrap();
    let entries = store.audit.list(None, 0, 100).await.unwrap();
    let lines: Vec<Line> = entries
        .into_iter()
        .rev()
        .map(|e| (e.action, e.target, e.who, e.why.unwrap_or_default(), e.done))
        .collect();
    let expected = [
        line("dispatcher.stop", "dispatcher", "iker", "on the page", true),
        line("dispatcher.start", "dispatcher", "amaia", "on the command line", true),
        line("dead_letters.discard", "Q: all", "amaia", "at the broker", true),
        line("dead_letters.replay", "absent: 1", "amaia", "", false),
    ];
    assert_eq!(lines, expected);
    assert!(page.stop().await.success(), "{}", page.log());
    assert!(dispatcher.stop().await.success(), "{}", dispatcher.log());
}
