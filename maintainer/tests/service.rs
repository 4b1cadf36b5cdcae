//! The maintainer as it runs: its intervals, its ping, its service.

mod interrupted;
mod world;

use std::sync::Arc;
use std::time::Duration;

use galerna_broker::embedded::{EmbeddedBroker, EmbeddedOptions};
use galerna_maintainer::{Maintainer, Run, Schedule, Task, TaskError};
use galerna_storage::QueueState;
use serde_json::Value;
use tokio_util::sync::CancellationToken;
use world::World;

fn world() -> World {
    let store = galerna_storage::sqlite::in_memory().expect("a store in memory");
    let broker = EmbeddedBroker::in_memory(EmbeddedOptions::default()).expect("a broker in memory");
    let mut world = World::new(store.queues, Arc::new(broker));
    let often = Schedule { every: Duration::from_millis(20), timeout: Duration::from_secs(10) };
    world.options.accounts = often;
    world.options.empties = often;
    world.options.timeouts = often;
    world.options.deletions = often;
    world
}

/// Serves it; gives the base address.
async fn serve(maintainer: &Maintainer, token: Option<&'static str>, shutdown: CancellationToken) -> String {
    galerna_tls::install_default_provider();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    let maintainer = maintainer.clone();
    tokio::spawn(async move { maintainer.serve(listener, token, shutdown.cancelled_owned()).await });
    base
}

async fn get(address: &str) -> (u16, Value) {
    let response = reqwest::get(address).await.unwrap();
    let status = response.status().as_u16();
    let text = response.text().await.unwrap();
    (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
}

#[tokio::test]
async fn it_keeps_the_world_in_order_by_itself_and_answers_pings_while_it_does() {
    let world = world();
    let maintainer = world.maintainer();
    let shutdown = CancellationToken::new();
    let base = serve(&maintainer, None, shutdown.clone()).await;
    let (status, body) = get(&format!("{base}/ping")).await;
    assert_eq!((status, &body["on_time"]), (503, &Value::Bool(false)), "it does not run yet");
    assert_eq!(get(&format!("{base}/readyz")).await.0, 503);
    assert_eq!(get(&format!("{base}/healthz")).await.0, 200);
    assert!(maintainer.check_on_time().is_err());

    world.list.says("a:Qa b:Qb");
    let tasks = maintainer.spawn(shutdown.clone());
    world.until("it is on time", async || get(&format!("{base}/ping")).await.0 == 200).await;
    world.until("accounts have queues", async || world.state("Qb").await == Some(QueueState::Empty)).await;
    world.publish("Qa", 1).await;
    world.until("messages are counted", async || world.record("Qa").await.unwrap().ready == 1).await;
    world.list.says("a:Qa");
    world.until("what is gone is deleted", async || world.record("Qb").await.is_none()).await;
    world.lease("Qa").await;
    world.until("leases return", async || world.record("Qa").await.unwrap().crashes == 1).await;
    assert_eq!(maintainer.check_on_time(), Ok(()));
    assert_eq!(get(&format!("{base}/readyz")).await.0, 200);
    let (_, ping) = get(&format!("{base}/ping")).await;
    for task in Task::ALL {
        assert!(ping["tasks"][task.as_str()]["last_success"].is_string(), "{ping}");
    }
    shutdown.cancel();
    tasks.await.unwrap();
}

#[tokio::test]
async fn the_ping_tells_when_counting_hangs_and_when_it_goes_on() {
    let mut world = world();
    world.list.says("a:Qa");
    world.options.empties.timeout = Duration::from_millis(50);
    let broker = Arc::clone(&world.broker);
    world.broker = Arc::new(interrupted::Interrupted::depths(Arc::clone(&broker)));
    let maintainer = world.maintainer();
    let shutdown = CancellationToken::new();
    let tasks = maintainer.spawn(shutdown.clone());
    world
        .until("the hanging task was stopped and tried again", async || {
            maintainer
                .status()
                .tasks
                .iter()
                .any(|task| task.task == Task::ReconcileEmpty && task.failures_in_a_row > 1)
        })
        .await;
    let told = maintainer.check_on_time().unwrap_err().to_string();
    assert!(told.contains("empties") && told.contains("stopped after"), "{told}");
    shutdown.cancel();
    tasks.await.unwrap();

    world.broker = broker;
    let maintainer = world.maintainer();
    let shutdown = CancellationToken::new();
    let tasks = maintainer.spawn(shutdown.clone());
    world.until("it is on time", async || maintainer.check_on_time().is_ok()).await;
    shutdown.cancel();
    tasks.await.unwrap();
}

#[tokio::test]
async fn an_accounts_api_that_fails_shows_but_does_not_stop_the_counting() {
    let world = world();
    world.with_accounts("a:Qa").await;
    world.list.fails();
    let maintainer = world.maintainer();
    let shutdown = CancellationToken::new();
    let base = serve(&maintainer, None, shutdown.clone()).await;
    let tasks = maintainer.spawn(shutdown.clone());
    world.until("it is on time", async || get(&format!("{base}/ping")).await.0 == 200).await;
    let (status, body) = get(&format!("{base}/readyz")).await;
    assert_eq!(status, 503);
    assert!(body["error"]["message"].as_str().unwrap().contains("status 500"), "{body}");
    let (_, status) = get(&format!("{base}/status")).await;
    assert_eq!(status["tasks"][0]["task"], "accounts");
    assert!(status["tasks"][0]["failures"].as_u64().unwrap() > 0, "{status}");
    let metrics = get(&format!("{base}/metrics")).await.1;
    let metrics = metrics.as_str().unwrap();
    assert!(
        metrics.contains(r#"galerna_maintainer_runs_total{result="accounts_unreadable",task="accounts"}"#)
    );
    shutdown.cancel();
    tasks.await.unwrap();
}

#[tokio::test]
async fn a_task_runs_once_at_a_time() {
    let mut world = world();
    world.list.hangs();
    world.options.accounts.timeout = Duration::from_millis(300);
    let maintainer = world.maintainer();
    let (first, second) = tokio::join!(
        maintainer.run_once(Task::Accounts, Run::default()),
        maintainer.run_once(Task::Accounts, Run::default())
    );
    assert!(matches!(first.unwrap_err().error, TaskError::TimedOut(_)));
    assert!(matches!(second.unwrap_err().error, TaskError::Busy));
    world.list.says("a:Qa");
    let third = maintainer.run_once(Task::Accounts, Run::default()).await;
    assert_eq!(third.expect("the turn comes back after a run that was stopped").created, 1);
}

#[tokio::test]
async fn a_run_is_asked_for_over_http() {
    let world = world();
    let maintainer = world.maintainer();
    let base = serve(&maintainer, Some("secret"), CancellationToken::new()).await;
    let client = reqwest::Client::new();
    let post = async |path: &str, token: &str| {
        let response = client.post(format!("{base}{path}")).bearer_auth(token).send().await.unwrap();
        let status = response.status().as_u16();
        (status, response.json::<Value>().await.unwrap())
    };
    world.list.says(&world::numbered(0..20));
    let (status, body) = post("/tasks/accounts/run", "secret").await;
    assert_eq!((status, &body["report"]["created"]), (200, &Value::from(20)), "{body}");
    world.list.says(&world::numbered(0..5));
    // path, token -> status, code
    let cases = [
        ("/tasks/accounts/run", "wrong", 401, "unauthorized"),
        ("/tasks/all/run", "secret", 404, "unknown_task"),
        ("/tasks/accounts/run?force=perhaps", "secret", 400, "bad_query"),
        ("/tasks/accounts/run?confirm=true", "secret", 400, "bad_query"),
        ("/tasks/timeouts/run?watch_ms=-1", "secret", 400, "bad_query"),
        ("/tasks/accounts/run", "secret", 409, "accounts_suspicious"),
    ];
    for (path, token, status, code) in cases {
        let (got, body) = post(path, token).await;
        assert_eq!((got, body["error"]["code"].as_str()), (status, Some(code)), "{path}: {body}");
        assert!(body["error"]["message"].is_string(), "{path}: {body}");
    }
    let (status, body) = post("/tasks/accounts/run?force=true", "secret").await;
    assert_eq!((status, &body["report"]["flagged"]), (200, &Value::from(15)), "{body}");
    assert_eq!(get(&format!("{base}/status")).await.0, 401);
    assert_eq!(get(&format!("{base}/ping")).await.0, 503, "a ping needs no token");
}

#[tokio::test]
async fn it_does_not_serve_other_machines_without_a_token() {
    let listener = tokio::net::TcpListener::bind("0.0.0.0:0").await.unwrap();
    let served = world().maintainer().serve(listener, None, std::future::ready(())).await;
    assert!(served.unwrap_err().to_string().contains("set a token"));
}
