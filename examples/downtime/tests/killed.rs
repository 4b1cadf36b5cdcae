//! A process that is killed at random moments loses nothing that it answered for, and tells nothing under a second id.

use std::collections::{BTreeMap, BTreeSet};
use std::net::TcpListener;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::post;
use axum::{Json, Router};
use downtime::topology::WebhookBody;
use galerna_lock::Mutex;
use galerna_model::{Clock, SystemClock, Timestamp};
use galerna_test_servers::Postgres;
use serde_json::{Value, json};
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};

const LINES: usize = 6;
/// Changes of each line.
const CHANGES: usize = 60;
const KILLS: usize = 20;
/// For everything together, on a machine that does other things too.
const DEADLINE: Duration = Duration::from_secs(300);

type Calls = Arc<Mutex<Vec<WebhookBody>>>;

async fn take(State(calls): State<Calls>, Json(body): Json<WebhookBody>) -> StatusCode {
    calls.lock().push(body);
    StatusCode::NO_CONTENT
}

fn start(port: u16, data: &Path, webhook: &str, database: Option<&str>) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_downtime"));
    command.args(["serve", "--hold", "1s", "--lease", "1s", "--webhook", webhook]);
    command.arg("--listen").arg(format!("127.0.0.1:{port}")).arg("--data").arg(data);
    if let Some(database) = database {
        command.args(["--database", database]);
    }
    command.env("RUST_LOG", "warn").stdout(Stdio::null()).kill_on_drop(true).spawn().expect("it can be run")
}

/// Posts the changes of a line, each until it is answered.
async fn post_all(client: reqwest::Client, base: String, line: String, first: Timestamp) {
    for change in 0..CHANGES {
        let at = first.plus_millis(i64::try_from(change).unwrap() * 5_000);
        let kind = if change % 2 == 0 { "down" } else { "up" };
        let body = json!({ "events": [{ "line": line, "at": at, "kind": kind }] });
        loop {
            let answer = client.post(format!("{base}/api/v1/events")).json(&body).send().await;
            match answer.map(|answer| answer.status().as_u16()) {
                Ok(200 | 201) => break,
                // Nobody there, or not known whether it is stored.
                Ok(503) | Err(_) => sleep(Duration::from_millis(20)).await,
                Ok(other) => panic!("{line} at {at}: {other}"),
            }
        }
        sleep(Duration::from_millis(fastrand::u64(..30))).await;
    }
}

/// What is there, from a process that may just have been started.
async fn get(client: &reqwest::Client, url: &str) -> reqwest::Response {
    let answer = async {
        loop {
            match client.get(url).send().await {
                Ok(answer) => return answer,
                Err(_) => sleep(Duration::from_millis(50)).await,
            }
        }
    };
    let answer = timeout(DEADLINE, answer).await.expect("it is up in time");
    assert_eq!(answer.status(), 200, "{url}");
    answer
}

async fn killed_at_random(database: Option<String>) {
    let calls = Calls::default();
    let receiver = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
    let webhook = format!("http://{}/", receiver.local_addr().expect("it has an address"));
    let router = Router::new().route("/", post(take)).with_state(calls.clone());
    tokio::spawn(async move { axum::serve(receiver, router).await });
    let port = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a port is free").port();
    let (folder, base) =
        (tempfile::tempdir().expect("a folder can be made"), format!("http://127.0.0.1:{port}"));
    let start = || start(port, folder.path(), &webhook, database.as_deref());
    let mut process = start();

    galerna_tls::install_default_provider();
    let client =
        reqwest::Client::builder().timeout(Duration::from_secs(10)).build().expect("a client can be made");
    let first = Timestamp(SystemClock.now().as_millis() / 1_000 * 1_000 - 3_600_000);
    let posting =
        (0..LINES).map(|n| tokio::spawn(post_all(client.clone(), base.clone(), format!("line {n}"), first)));
    let posting: Vec<_> = posting.collect();
    for _ in 0..KILLS {
        sleep(Duration::from_millis(fastrand::u64(100..900))).await;
        process.kill().await.expect("it is killed");
        process = start();
    }
    for task in posting {
        task.await.expect("all events were answered");
    }

    let expected: BTreeSet<(String, i64)> = (0..LINES)
        .flat_map(|n| {
            (0..CHANGES).map(move |change| (format!("line {n}"), i64::try_from(change).unwrap() * 5_000))
        })
        .map(|(line, after)| (line, first.plus_millis(after).as_millis()))
        .collect();
    let deadline = Instant::now() + DEADLINE;
    loop {
        let told: BTreeSet<_> =
            calls.lock().iter().map(|call| (call.line.clone(), call.at.as_millis())).collect();
        if told == expected {
            break;
        }
        assert!(told.is_subset(&expected), "told and not so: {:?}", told.difference(&expected));
        assert!(Instant::now() < deadline, "never told: {:?}", expected.difference(&told));
        sleep(Duration::from_millis(50)).await;
    }
    // What came more than once came under one id; of a line the first calls came in order.
    let mut ids: BTreeMap<(String, i64), BTreeSet<String>> = BTreeMap::new();
    let mut latest: BTreeMap<String, i64> = BTreeMap::new();
    for call in calls.lock().iter() {
        let change = (call.line.clone(), call.at.as_millis());
        if !ids.contains_key(&change) {
            let before = latest.insert(change.0.clone(), change.1);
            assert!(before.is_none_or(|before| before < change.1), "{call:?} came before what was before it");
        }
        ids.entry(change).or_default().insert(call.id.clone());
    }
    assert!(ids.values().all(|ids| ids.len() == 1), "a change was told under two ids");
    let distinct: BTreeSet<_> = ids.into_values().flatten().collect();
    assert_eq!(distinct.len(), LINES * CHANGES);

    let answer = get(&client, &format!("{base}/api/v1/downtimes?limit=1000")).await;
    let answer = answer.json::<Value>().await.expect("it is JSON");
    let downtimes = answer["downtimes"].as_array().expect("there are downtimes");
    assert_eq!(downtimes.len(), LINES * CHANGES / 2);
    assert!(downtimes.iter().all(|downtime| downtime["duration_ms"] == 5_000), "{downtimes:?}");

    let page = get(&client, &format!("{base}/lines?hours=24&q=line%201")).await;
    let page = page.text().await.expect("it is text");
    assert!(page.contains("line 1") && page.contains("q=line%201"), "{page}");

    // Told to end, it ends in order.
    let id = process.id().expect("it runs").to_string();
    assert!(Command::new("kill").args(["-TERM", &id]).status().await.expect("kill runs").success());
    let ended = timeout(DEADLINE, process.wait()).await.expect("it ends").expect("it can be waited for");
    assert!(ended.success(), "{ended}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_or_told_twice_under_kills_with_sqlite() {
    killed_at_random(None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_or_told_twice_under_kills_with_postgresql() {
    killed_at_random(Some(Postgres::shared().await.database().await)).await;
}
