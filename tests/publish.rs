//! Publishing, dead letters and sources from the command line: what they say when something is not as it should be.

mod system;

use std::io::{Read, Write};
use std::path::Path;
use std::process::{ChildStdin, Output, Stdio};

use galerna_frontend::TokenHash;
use galerna_lock::Mutex;
use galerna_test_servers::{Mongo, RabbitMq};
use serde_json::{Value, json};
use system::{DEADLINE, Service, call, command, database, end_of, errors, output_of, run, run_well, until};

/// Free ports for all that listens.
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

/// `galerna up` on embedded broker and store, and the address of its API.
async fn up(folder: &Path, more: &[&str]) -> (Service, String) {
    let mut args = FREE.to_vec();
    args.extend_from_slice(more);
    args.push("up");
    let service = Service::start(folder, &args);
    let api = service.api().await;
    (service, api)
}

fn reading(did: &str, p: u32) -> Value {
    json!({"did": did, "values": [{"p": p, "v": 1.0}], "sqn": 1, "ts": "2017-01-01T00:00:00Z"})
}

/// Publishes readings of a parameter that there is not, and waits until they are dead letters; their ids.
async fn dead_letters(folder: &Path, api: &str, account: &str, count: usize) -> Vec<String> {
    let bad: Vec<String> = (0..count).map(|n| reading(&format!("d{n}"), 999).to_string()).collect();
    std::fs::write(folder.join("bad.ndjson"), bad.join("\n")).unwrap();
    run_well(folder, &["--dispatcher", api, "publish", "--account", account, "bad.ndjson"]);
    let url = format!("{api}/queue/{account}/dead");
    let letters =
        || async { call("GET", &url, None).await.1["dead"].as_array().cloned().unwrap_or_default() };
    until("the bad readings are dead letters", || async { letters().await.len() == count }).await;
    letters().await.iter().map(|letter| letter["id"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_not_published_is_counted_and_the_rest_is_not_called_all() {
    let folder = tempfile::tempdir().unwrap();
    let (mut service, api) = up(folder.path(), &[]).await;
    let rows = "source,account,building,meter_id,utility,ts,value,unit\n\
        s,A,b,m1,electricity,2017-01-01T00:00:00+00:00,1.5,kWh\n\
        s,A,b,m2,electricity,2017-01-01T00:00:00+00:00,,kWh\n\
        s,A,b,m1,electricity,2017-01-01T01:00:00+00:00,,kWh\n\
        s,A,b,m1,steam,2017-01-01T02:00:00+00:00,1,kWh\n\
        s,A,b,m1,electricity,2017-01-01T03:00:00+00:00,2,kWh\n";
    std::fs::write(folder.path().join("rows.csv"), rows).unwrap();
    let output = run(folder.path(), &["--dispatcher", &api, "publish", "rows.csv"]);
    assert_eq!(output.status.code(), Some(1));
    let (printed, said) = (String::from_utf8_lossy(&output.stdout).into_owned(), errors(&output));
    assert!(printed.contains("2 rows have an empty value"), "{printed}");
    assert!(said.contains("1 lines or readings were not published, 2 readings were"), "{said}");
    assert!(said.contains("line 5") && said.contains("steam"), "{said}");
    assert!(!said.contains("all else"), "{said}");
    let output = run(folder.path(), &["--dispatcher", &api, "publish", "--json", "rows.csv"]);
    let summary: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&summary["without_value"], &summary["refused"]), (&json!(2), &json!(1)));
    assert_eq!(summary["accounts"]["A"]["readings"], 2);

    // Each reading that has no account is counted, not each group of them.
    std::fs::write(
        folder.path().join("bare.json"),
        json!([reading("a", 401), reading("b", 401)]).to_string(),
    )
    .unwrap();
    let output = run(folder.path(), &["--dispatcher", &api, "publish", "bare.json"]);
    let said = errors(&output);
    assert!(said.contains("2 lines or readings were not published, 0 readings were"), "{said}");
    assert!(said.contains("--account"), "{said}");
    assert!(service.stop().await.success());
}

/// About 1.5 MB of NDJSON: more than goes into one call.
fn many_lines(account: &str) -> Vec<u8> {
    let mut text = Vec::new();
    for line in 0..100 {
        let readings: Vec<Value> = (0..150).map(|n| reading(&format!("device-{line}-{n}"), 401)).collect();
        text.extend_from_slice(json!({"account": account, "readings": readings}).to_string().as_bytes());
        text.push(b'\n');
    }
    text
}

#[tokio::test(flavor = "multi_thread")]
async fn when_the_dispatcher_dies_midway_what_was_published_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let (mut service, api) = up(folder.path(), &[]).await;
    let mut publish =
        command(folder.path(), &["--dispatcher", &api, "publish", "--form", "ndjson", "--json", "-"]);
    let mut publish =
        publish.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut input = publish.stdin.take().unwrap();
    let write = |mut input: ChildStdin, account: &'static str| {
        tokio::task::spawn_blocking(move || {
            // The reader may be gone by then.
            drop(input.write_all(&many_lines(account)));
            input
        })
    };
    input = write(input, "A").await.unwrap();
    input = write(input, "B").await.unwrap();
    // What goes to B is sent when the call before, with readings of A alone, was answered.
    let b = || async { call("GET", &format!("{api}/queue/B/dead"), None).await.0 == 200 };
    until("the queue of B is there", b).await;
    service.kill();
    drop(write(input, "A").await.unwrap());
    let output = || output_of(publish, "publish", DEADLINE);
    let output = tokio::task::spawn_blocking(output).await.unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", errors(&output));
    let summary: Value = serde_json::from_slice(&output.stdout).unwrap();
    let readings = summary["accounts"]["A"]["readings"].as_u64().unwrap();
    assert!(readings > 0 && readings < 30_000, "{summary}");
    let said = errors(&output);
    assert!(said.contains("not all of it was published") && said.contains("no dispatcher answers"), "{said}");

    // Nothing at all is published this time: there is no summary to mislead anybody.
    std::fs::write(folder.path().join("one.json"), reading("d", 401).to_string()).unwrap();
    let output = run(folder.path(), &["--dispatcher", &api, "publish", "--account", "A", "one.json"]);
    assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 0), "{}", errors(&output));
}

#[test]
fn a_reader_that_goes_away_is_no_panic() {
    let folder = tempfile::tempdir().unwrap();
    let cases: [&[&str]; 8] = [
        &["config"],
        &["config", "--json"],
        &["topology"],
        &["--help"],
        &["--log", "trace", "queues", "list", "--dispatcher", "http://127.0.0.1:1"],
        &["--log", "no=such=filter", "config"],
        &["--set", "worker.leases=many", "config"],
        &["publish", "absent.csv"],
    ];
    for args in cases {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut command = command(folder.path(), args);
        command.stdout(writer.try_clone().unwrap()).stderr(writer);
        let status = command.status().unwrap();
        assert!(matches!(status.code(), Some(0..=2)), "{args:?}: {status}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_nobody_reads_any_more_does_not_end_the_service() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = command(folder.path(), &FREE);
    let mut child = command
        .args(["--log-format", "json", "--log", "debug", "up"])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut log = child.stderr.take().unwrap();
    let api = tokio::task::spawn_blocking(move || {
        let mut text = Vec::new();
        let mut byte = [0];
        loop {
            assert_eq!(log.read(&mut byte).unwrap(), 1, "{}", String::from_utf8_lossy(&text));
            text.push(byte[0]);
            if byte[0] == b'\n' {
                let entry: Value = serde_json::from_slice(&text).unwrap();
                text.clear();
                if entry["fields"]["message"] == "the dispatcher API listens" {
                    // The reader is dropped here.
                    return entry["fields"]["address"].as_str().unwrap().to_owned();
                }
            }
        }
    })
    .await
    .unwrap();
    let id = child.id().to_string();
    let child = Mutex::new(child);
    // It logs while it works: a queue is made, paused, let go.
    std::fs::write(folder.path().join("one.json"), reading("d", 401).to_string()).unwrap();
    let api = format!("http://{api}");
    run_well(folder.path(), &["--dispatcher", &api, "publish", "--account", "A", "one.json"]);
    until("the queue is known", || async {
        call("POST", &format!("{api}/queue/A/pause"), None).await.0 == 200
    })
    .await;
    run_well(folder.path(), &["--dispatcher", &api, "queues", "unpause", "A"]);
    assert!(child.lock().try_wait().unwrap().is_none(), "it ended");
    assert!(std::process::Command::new("kill").args(["-TERM", &id]).status().unwrap().success());
    until("it ends", || async { child.lock().try_wait().unwrap().is_some_and(|status| status.success()) })
        .await;
}

/// Arguments, exit code, and what must be said.
type Case<'a> = (&'a [&'a str], i32, &'a [&'a str]);

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &errors(output)
}

fn check(folder: &Path, cases: &[Case<'_>]) {
    for (args, code, parts) in cases {
        let output = run(folder, args);
        assert_eq!(output.status.code(), Some(*code), "{args:?}: {}", said(&output));
        for part in *parts {
            assert!(said(&output).contains(part), "{args:?}: {} lacks {part}", said(&output));
        }
    }
}

#[test]
fn wrong_arguments_are_told_once_and_with_the_remedy() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("file"), "").unwrap();
    check(
        folder.path(),
        &[
            (&["--data", "file", "up"], 2, &["`data` is `file`", "name a folder"]),
            (&["queues", "dead", "replay", "Q"], 2, &["<QUEUE> <IDS>...", "<QUEUE> --all"]),
            (&["queues", "dead", "discard", "Q", "1", "--all"], 2, &["cannot be used with"]),
            (&["--log", "a=b=c", "config"], 2, &["`log.level` is `a=b=c`", "debug"]),
        ],
    );
    let output = run(folder.path(), &["--log", "galerna=loud", "config"]);
    let text = errors(&output);
    assert_eq!(text.matches("error, warn, info").count(), 1, "{text}");
    assert!(!text.contains("parsing level filter"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_that_are_not_there_are_told_and_fail() {
    let folder = tempfile::tempdir().unwrap();
    let (mut service, api) = up(folder.path(), &[]).await;
    let ids = dead_letters(folder.path(), &api, "A", 3).await;
    let dead = |args: &[&str]| {
        let all = [&["--dispatcher", &api, "queues", "dead"], args].concat();
        run(folder.path(), &all)
    };
    let none = dead(&["discard", "A", "no-such", "nor-this"]);
    assert_eq!(none.status.code(), Some(1), "{}", said(&none));
    assert!(said(&none).contains("none of the 2 ids named is a dead letter of A"), "{}", said(&none));
    assert!(said(&none).contains("galerna queues dead list A"), "{}", said(&none));
    let some = dead(&["discard", "A", &ids[0], "no-such"]);
    assert_eq!(some.status.code(), Some(0), "{}", said(&some));
    assert!(said(&some).contains("1 dead letters of A are gone"), "{}", said(&some));
    assert!(said(&some).contains("1 of the 2 ids named were found"), "{}", said(&some));
    let replayed = dead(&["--json", "replay", "A", &ids[0]]);
    assert_eq!(replayed.status.code(), Some(1), "{}", said(&replayed));
    assert_eq!(serde_json::from_slice::<Value>(&replayed.stdout).unwrap(), json!({"replayed": 0}));
    assert_eq!(dead(&["discard", "A", &ids[1], &ids[1]]).status.code(), Some(0));
    assert_eq!(dead(&["discard", "A", "--all"]).status.code(), Some(0));
    assert_eq!(
        dead(&["discard", "A", "--all"]).status.code(),
        Some(0),
        "nothing is left, and nothing was named"
    );
    for args in [&["list", "absent"][..], &["replay", "absent", "--all"], &["discard", "absent", "1"]] {
        let output = dead(args);
        assert_eq!(output.status.code(), Some(1), "{args:?}: {}", said(&output));
        assert!(said(&output).contains("queue `absent` does not exist"), "{args:?}: {}", said(&output));
        assert!(said(&output).contains("galerna queues list"), "{args:?}: {}", said(&output));
        assert!(!said(&output).contains("declare"), "{args:?}: {}", said(&output));
    }
    assert!(service.stop().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_that_rabbitmq_does_not_have_is_told_in_the_same_words() {
    let rabbit = RabbitMq::shared().await;
    let amqp = rabbit.vhost().await;
    let folder = tempfile::tempdir().unwrap();
    let management = format!("broker.management_url={}", rabbit.management_uri());
    for args in [&["list", "absent"][..], &["replay", "absent", "--all"], &["discard", "absent", "1"]] {
        let all = [&["--broker", &amqp, "--set", &management, "queues", "dead"], args].concat();
        let output = run(folder.path(), &all);
        assert_eq!(output.status.code(), Some(1), "{args:?}: {}", said(&output));
        assert!(said(&output).contains("queue `absent` does not exist"), "{args:?}: {}", said(&output));
        assert!(said(&output).contains("galerna queues list"), "{args:?}: {}", said(&output));
        assert!(!said(&output).contains("declare"), "{args:?}: {}", said(&output));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_description_of_the_api_has_every_route_and_a_token_is_taken_in_any_case() {
    const TOKEN: &str = "0123456789abcdef-token";
    let folder = tempfile::tempdir().unwrap();
    let (mut service, api) = up(folder.path(), &["--set", &format!("api.token={TOKEN}")]).await;
    let client = reqwest::Client::new();
    let get = async |path: &str, authorization: &str| {
        let request = client.get(format!("{api}{path}")).header("authorization", authorization);
        let answer = request.send().await.unwrap();
        (answer.status().as_u16(), answer.json::<Value>().await.unwrap_or_default())
    };
    for scheme in ["Bearer", "bearer", "BEARER"] {
        for path in ["/dead", "/workers", "/queue/status", "/openapi.json"] {
            assert_eq!(get(path, &format!("{scheme} {TOKEN}")).await.0, 200, "{scheme} {path}");
        }
    }
    for wrong in ["", "Bearer", "Bearer x", &format!("Basic {TOKEN}"), TOKEN] {
        for path in ["/dead", "/openapi.json"] {
            let (status, body) = get(path, wrong).await;
            assert_eq!(
                (status, body["error"]["code"].as_str()),
                (401, Some("unauthorized")),
                "{wrong} {path}"
            );
        }
    }
    let (_, document) = get("/openapi.json", &format!("Bearer {TOKEN}")).await;
    for (method, path) in [
        ("get", "/dead"),
        ("get", "/queue/{id}/dead"),
        ("post", "/queue/{id}/dead/replay"),
        ("post", "/queue/{id}/dead/discard"),
        ("get", "/workers"),
        ("post", "/publish"),
        // The dispatcher's own are still there.
        ("post", "/queue/next"),
        ("get", "/queue/{id}"),
    ] {
        assert!(
            document["paths"][path][method]["responses"]["200"].is_object(),
            "{method} {path}: {document}"
        );
    }
    // What is referred to is there.
    let text = document.to_string();
    for reference in text.split("\"$ref\":\"#/").skip(1).filter_map(|rest| rest.split('"').next()) {
        assert!(document.pointer(&format!("/{reference}")).is_some(), "{reference}");
    }
    assert!(service.stop().await.success());
}

/// A token as `sources add` prints it.
fn is_random(token: &str) -> bool {
    token.len() == 64 && token.bytes().all(|b| b.is_ascii_hexdigit())
}

async fn sources_are_kept(store_url: &str, folder: &Path, flags: &[&str]) {
    let sources = |args: &[&str]| {
        let all = [flags, &["sources"], args].concat();
        run(folder, &all)
    };
    let json = |args: &[&str]| -> Value {
        let output = sources(&[&["--json"], args].concat());
        assert!(output.status.success(), "{args:?}: {}", said(&output));
        serde_json::from_slice(&output.stdout).unwrap()
    };
    let added = json(&["add", "s1", "--account", "A"]);
    let token = added["token"].as_str().unwrap().to_owned();
    assert!(is_random(&token), "{added}");
    assert_eq!(
        (&added["queue"], &added["new_account"], &added["replaced"]),
        (&json!("A"), &json!(true), &json!(false))
    );
    let chosen = json(&["add", "s2", "--account", "A", "--token", "a-token-before"]);
    assert_eq!((&chosen["token"], &chosen["new_account"]), (&Value::Null, &json!(false)));
    // Where nobody else sees it.
    let mut add = command(folder, &[flags, &["sources", "add", "s2", "--account", "A"]].concat());
    let unseen = end_of(add.env("GALERNA_SOURCE_TOKEN", "a-token-of-my-own"), DEADLINE);
    assert!(unseen.status.success() && !said(&unseen).contains("token: "), "{}", said(&unseen));
    let again = json(&["add", "s1", "--account", "A"]);
    assert_eq!(again["replaced"], true);
    let again = again["token"].as_str().unwrap();
    assert!(is_random(again) && again != token);

    let store = galerna::storage::open(store_url).await.unwrap();
    let kept = store.sources.list().await.unwrap();
    let accounts = store.accounts.list().await.unwrap();
    drop(store);
    let hashes: Vec<&str> = kept.iter().map(|s| s.token_hash.as_str()).collect();
    assert_eq!(hashes, [TokenHash::of(again).to_string(), TokenHash::of("a-token-of-my-own").to_string()]);
    assert_eq!(
        accounts.iter().map(|a| (a.id.as_str(), a.queue.as_str(), a.active)).collect::<Vec<_>>(),
        [("A", "A", true)]
    );

    let shown = said(&sources(&["list"]));
    assert!(
        shown.contains("s1") && shown.contains("s2") && !shown.contains("sha256") && !shown.contains(again),
        "{shown}"
    );
    for (args, part) in [
        (&["add", "s1", "--account", "B"][..], "posts for account `A`"),
        (&["add", "s3", "--account", "A", "--token", "with space"], "visible ASCII"),
        (&["add", "s 3", "--account", "A"], "space"),
        (&["remove", "absent"], "no source `absent`"),
    ] {
        let output = sources(args);
        assert_eq!(output.status.code(), Some(1), "{args:?}: {}", said(&output));
        assert!(said(&output).contains(part), "{args:?}: {} lacks {part}", said(&output));
    }
    json(&["remove", "s1"]);
    let list = json(&["list", "--account", "A"]);
    let active: Vec<(&str, bool)> = list
        .as_array()
        .unwrap()
        .iter()
        .map(|s| (s["source"].as_str().unwrap(), s["active"].as_bool().unwrap()))
        .collect();
    assert_eq!(active, [("s1", false), ("s2", true)]);
    // One that was removed may be given to another account.
    assert_eq!(json(&["add", "s1", "--account", "B"])["new_account"], true);
    assert_eq!(json(&["list", "--account", "B"]).as_array().unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn sources_of_an_embedded_store_are_changed_while_nothing_else_has_it_open() {
    let folder = tempfile::tempdir().unwrap();
    let output = run(folder.path(), &["sources", "list"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).contains("there is no store in the folder .galerna"), "{}", said(&output));
    assert!(!folder.path().join(".galerna").exists(), "it was only asked");
    let url = format!("embedded:{}", folder.path().join(".galerna/store.db").display());
    sources_are_kept(&url, folder.path(), &[]).await;

    let (mut service, _) = up(folder.path(), &[]).await;
    for args in [&["sources", "list"][..], &["sources", "add", "s9", "--account", "A"]] {
        let output = run(folder.path(), args);
        assert_eq!(output.status.code(), Some(1), "{args:?}: {}", said(&output));
        assert!(
            said(&output).contains("galerna up") && said(&output).contains("open already"),
            "{}",
            said(&output)
        );
        assert!(!said(&output).contains("token:"), "{args:?}: {}", said(&output));
    }
    assert!(service.stop().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn sources_of_mongodb_are_changed_at_any_time() {
    let mongo = Mongo::shared().await;
    let url = database(&mongo.uri(), &mongo.unique("sources"));
    let folder = tempfile::tempdir().unwrap();
    sources_are_kept(&url, folder.path(), &["--store", &url]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_was_added_may_post() {
    let folder = tempfile::tempdir().unwrap();
    let added = run_well(folder.path(), &["sources", "--json", "add", "concentrator-1", "--account", "A"]);
    let added: Value = serde_json::from_str(&added).unwrap();
    let (mut service, _) = up(folder.path(), &[]).await;
    let entry = service.said("all modules are up").await;
    let url = format!("http://{}", entry["fields"]["frontend"].as_str().unwrap());
    let token = added["token"].as_str().unwrap();
    let args = ["load", "--url", &url, "--source", "concentrator-1", "--token", token];
    let load = run_well(folder.path(), &[&args[..], &["--sweep", "20", "--calls", "3", "--json"]].concat());
    let load: Value = serde_json::from_str(&load).unwrap();
    assert_eq!(load["sizes"][0]["accepted_readings"], 60);
    assert!(service.stop().await.success());
}

/// The status of a post of one reading.
async fn posted(frontend: &str, source: &str, token: &str) -> u16 {
    let body = r#"{"did":"m1","values":[{"p":401,"v":1.0}],"sqn":1,"ts":"2017-01-01T00:00:00Z"}"#;
    let url = format!("{frontend}/readings?source_key={source}&x-dexcell-source-token={token}");
    call("POST", &url, Some(body)).await.0
}

#[tokio::test(flavor = "multi_thread")]
async fn sources_are_added_listed_rotated_and_removed_while_all_modules_run() {
    let folder = tempfile::tempdir().unwrap();
    let (mut service, api) = up(folder.path(), &[]).await;
    let entry = service.said("all modules are up").await;
    let frontend = format!("http://{}", entry["fields"]["frontend"].as_str().unwrap());
    let sources = |args: &[&str]| -> Value {
        let said = run_well(folder.path(), &[&["--dispatcher", &api, "sources", "--json"], args].concat());
        serde_json::from_str(&said).unwrap()
    };
    let added = sources(&["add", "s1", "--account", "A", "--reason", "new"]);
    let first = added["token"].as_str().unwrap();
    assert!(is_random(first) && added["new_account"] == true, "{added}");
    assert_eq!(posted(&frontend, "s1", first).await, 202);

    let rotated = sources(&["rotate", "s1", "--reason", "lost"]);
    let second = rotated["token"].as_str().unwrap();
    assert!(is_random(second) && second != first && rotated["account"] == "A", "{rotated}");
    assert_eq!((posted(&frontend, "s1", first).await, posted(&frontend, "s1", second).await), (401, 202));
    assert_eq!(sources(&["list"])[0]["active"], true);

    // The last one of all.
    sources(&["remove", "s1", "--yes"]);
    assert_eq!(posted(&frontend, "s1", second).await, 401);
    assert_eq!(sources(&["list", "--account", "A"])[0]["active"], false);

    for (args, part) in [
        (&["rotate", "s1"][..], "there is no source `s1`"),
        (&["remove", "nobody"], "there is no source `nobody`"),
        (&["add", "s1", "--account", "x.dead"], "reserved"),
        (&["add", "AMQ.s1", "--account", "A"], "reserved"),
        (&["add", "s1\u{200b}", "--account", "A"], "nobody sees"),
        (&["add", "s 1", "--account", "A"], "space"),
    ] {
        let output = run(folder.path(), &[&["--dispatcher", &api, "sources"], args].concat());
        assert_eq!(output.status.code(), Some(1), "{args:?}: {}", said(&output));
        assert!(said(&output).contains(part), "{args:?}: {} lacks {part}", said(&output));
    }
    // Over HTTP: a page of the list, and who did what.
    let (status, page) = call("GET", &format!("{api}/sources?limit=1&search=S"), None).await;
    assert_eq!((status, &page["total"], &page["sources"][0]["source"]), (200, &json!(1), &json!("s1")));
    let (status, _) = call("GET", &format!("{api}/sources?limit=0"), None).await;
    assert_eq!(status, 422);
    assert!(service.stop().await.success());
    let url = format!("embedded:{}", folder.path().join(".galerna/store.db").display());
    let store = galerna::storage::open(&url).await.unwrap();
    let log: Vec<_> = store.audit.list(None, 0, 20).await.unwrap();
    let done: Vec<(&str, &str, bool)> =
        log.iter().rev().map(|e| (e.action.as_str(), e.target.as_str(), e.done)).collect();
    assert_eq!(
        done[..3],
        [("source.add", "s1", true), ("source.rotate", "s1", true), ("source.remove", "s1", true)]
    );
    assert!(done[3..].iter().all(|(.., done)| !done), "{done:?}");
    assert!(!format!("{log:?}").contains(second), "no token is in the log");
}
