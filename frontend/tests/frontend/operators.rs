//! What operators see, and how a frontend ends.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use galerna_frontend::{Options, SourcesOptions, Timeouts};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::world::{DEADLINE, GOOD, World, write_lists};

fn options() -> Options {
    let timeouts = Timeouts { notice: Duration::from_millis(50), ..Timeouts::default() };
    Options { operator_token: Some("operator".to_owned()), timeouts, ..Options::default() }
}

async fn get(world: &World, path: &str, token: &str) -> (u16, Value) {
    let answer = world.http.get(world.url(path)).bearer_auth(token).send().await.unwrap();
    (answer.status().as_u16(), serde_json::from_str(&answer.text().await.unwrap()).unwrap_or(Value::Null))
}

#[tokio::test(flavor = "multi_thread")]
async fn statistics_are_the_operators_and_exact_over_restarts() {
    let world = World::embedded(options()).await;
    world.post("c1", format!("[{GOOD},{GOOD}]")).await;
    world.post("c1", format!("[{GOOD},7]")).await;
    world.post("c2", GOOD).await;
    world.post("c2", "nonsense").await;
    assert_eq!(get(&world, "/statistics", "wrong").await.0, 401);
    for (given, status) in [
        ("Bearer operator", 200),
        ("bearer operator", 200),
        ("BEARER  operator", 200),
        ("Basic operator", 401),
        ("operator", 401),
        ("Bearer", 401),
        ("Bearer ", 401),
        ("Bearer operator x", 401),
    ] {
        let answer =
            world.http.get(world.url("/statistics")).header("authorization", given).send().await.unwrap();
        assert_eq!(answer.status(), status, "{given}");
    }
    let check = async |world: &World| {
        for (query, messages, readings) in [
            ("", 3, 4),
            ("?account=a", 2, 3),
            ("?source=c1", 2, 3),
            ("?source=c2", 1, 1),
            ("?source=nobody", 0, 0),
        ] {
            let (status, answer) = get(world, &format!("/statistics{query}"), "operator").await;
            assert_eq!(status, 200);
            let month = &answer["traffic"]["month"]["now"];
            // A test may run over the end of a month.
            let before = &answer["traffic"]["month"]["last"];
            let sum = |field: &str| month[field].as_u64().unwrap() + before[field].as_u64().unwrap();
            assert_eq!(
                (sum("messages"), sum("readings"), sum("values")),
                (messages, readings, 2 * readings),
                "{query}"
            );
        }
        let (_, answer) = get(world, "/statistics?source=c1", "operator").await;
        let last = answer["last_messages"].as_array().unwrap();
        assert_eq!(last.len(), 2);
        assert_eq!((&last[0]["readings"], &last[0]["rejected"]), (&1.into(), &1.into()));
        assert!(last[0]["text"].as_str().unwrap().starts_with(r#"[{"did":"12a""#));
    };
    check(&world).await;
    let (folder, broker) = world.stopped().await;
    let world = World::in_folder(folder, broker, options()).await;
    check(&world).await;
    world.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_an_operators_token_nothing_of_customers_is_shown() {
    let world = World::embedded(Options::default()).await;
    assert_eq!(get(&world, "/statistics", "").await.0, 404);
    let refresh = world.http.post(world.url("/sources/refresh")).send().await.unwrap();
    assert_eq!(refresh.status(), 404);
    let metrics = world.http.get(world.url("/metrics")).send().await.unwrap().text().await.unwrap();
    assert!(metrics.contains("galerna_frontend_sources 2"), "{metrics}");
    assert!(metrics.contains("galerna_frontend_sources_age_seconds"));
    let document = get(&world, "/openapi.json", "").await.1;
    assert!(document["paths"]["/readings"]["post"].is_object());
    assert_eq!(world.http.get(world.url("/healthz")).send().await.unwrap().text().await.unwrap(), "ok");
    world.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refresh_that_lost_far_too_much_is_refused_shown_and_can_be_forced() {
    let many: Vec<String> = (0..50).map(|n| format!("s{n}")).collect();
    let sources: Vec<(&str, &str)> = many.iter().map(|s| (s.as_str(), "a")).collect();
    let broker = galerna_broker::open("embedded::memory:").await.unwrap();
    // The background is not to refresh in between.
    let slow = SourcesOptions { every: Duration::from_secs(3_600), ..SourcesOptions::default() };
    let world = World::on(broker, Options { sources: slow, ..options() }, &sources).await;
    write_lists(&world.folder.path().join("lists.json"), &sources[..5]);
    let refresh = async |query: &str| {
        let url = world.url(&format!("/sources/refresh{query}"));
        world.http.post(url).bearer_auth("operator").send().await.unwrap().status().as_u16()
    };
    assert_eq!(refresh("").await, 503);
    let (status, readiness) = get(&world, "/readyz", "").await;
    assert_eq!((status, &readiness["sources"]), (200, &50.into()));
    assert!(readiness["sources_problem"].as_str().unwrap().contains("5 of 50"), "{readiness}");
    let metrics = world.http.get(world.url("/metrics")).bearer_auth("operator").send().await.unwrap();
    assert!(metrics.text().await.unwrap().contains("galerna_frontend_sources_suspicious 1"));
    assert_eq!(world.post("s49", GOOD).await.0, 202);
    assert_eq!(refresh("?force=true").await, 200);
    assert_eq!(world.post("s49", GOOD).await.0, 401);
    assert_eq!(get(&world, "/readyz", "").await.1["sources_problem"], Value::Null);
    world.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frontend_that_knows_no_list_sends_nobody_away_for_good() {
    let folder = tempfile::tempdir().unwrap();
    let broker = galerna_broker::open("embedded::memory:").await.unwrap();
    broker.declare(&crate::world::queue("a")).await.unwrap();
    let soon = SourcesOptions { soonest: Duration::from_millis(50), ..SourcesOptions::default() };
    let world = World::in_folder(folder, broker, Options { sources: soon, ..options() }).await;
    let answer = world.http.post(world.readings_of("c1")).body(GOOD).send().await.unwrap();
    assert_eq!(answer.status(), 503);
    assert!(answer.headers().contains_key("retry-after"));
    assert_eq!(get(&world, "/readyz", "").await.0, 503);
    write_lists(&world.folder.path().join("lists.json"), &[("c1", "a")]);
    // It finds the list by itself.
    let found = async {
        while world.post("c1", GOOD).await.0 != 202 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(DEADLINE, found).await.unwrap();
    world.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn at_the_end_it_says_so_first_and_finishes_calls_under_way() {
    let timeouts = Timeouts { notice: Duration::from_secs(3), ..Timeouts::default() };
    let world = World::embedded(Options { timeouts, ..options() }).await;
    let mut call = TcpStream::connect(&world.address).await.unwrap();
    let head = format!(
        "POST /readings?source_key=c1&x-dexcell-source-token=token-c1 HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n",
        GOOD.len()
    );
    call.write_all(head.as_bytes()).await.unwrap();
    call.write_all(&GOOD.as_bytes()[..10]).await.unwrap();
    world.begin_stop();
    let unready = async {
        while get(&world, "/readyz", "").await.0 != 503 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(DEADLINE, unready).await.unwrap();
    // Still served while the load balancer takes notice, and until the last call is answered.
    assert_eq!(world.post("c2", GOOD).await.0, 202);
    let address = world.address.clone();
    let refused = async {
        while TcpStream::connect(&address).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(DEADLINE, refused).await.unwrap();
    call.write_all(&GOOD.as_bytes()[10..]).await.unwrap();
    let mut answer = String::new();
    tokio::time::timeout(DEADLINE, call.read_to_string(&mut answer)).await.unwrap().unwrap();
    assert!(answer.starts_with("HTTP/1.1 202"), "{answer}");
    let readings = world.take_all("a").await.len();
    assert_eq!(readings, 1);
    world.stopped().await;
}

/// What the crate logs, at every level.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Log {
    fn write(&mut self, data: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(data);
        Ok(data.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_tells_of_each_call_and_never_shows_a_token() {
    let log = Log::default();
    let writer = log.clone();
    tracing_subscriber::fmt()
        .with_env_filter("galerna_frontend=trace")
        .with_writer(move || writer.clone())
        .with_ansi(false)
        .init();
    let world = World::embedded(options()).await;
    let taken = world.http.post(world.readings_of("c1")).body(GOOD).send().await.unwrap();
    let id = taken.headers()["x-request-id"].to_str().unwrap().to_owned();
    world.post("c1", "nonsense").await;
    let wrong = world.url("/readings?source_key=c1&x-dexcell-source-token=token-wrong");
    assert_eq!(world.http.post(wrong).body(GOOD).send().await.unwrap().status(), 401);
    world.delete_queue("b").await;
    assert_eq!(world.post("c2", GOOD).await.0, 503);
    world.stopped().await;
    let log = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    let confirmed = log.lines().find(|line| line.contains(&id) && line.contains("confirmed"));
    assert!(confirmed.is_some_and(|line| line.contains("source=c1 queue=Qa envelopes=1")), "{log}");
    assert!(log.lines().any(|line| line.contains(&id) && line.contains("status=202")), "{log}");
    assert!(!log.contains("token-"), "{log}");
}
