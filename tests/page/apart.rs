//! The page of a system whose modules are processes of their own, on RabbitMQ and MongoDB.

use std::path::Path;

use galerna::ingest::prelude::*;
use galerna::model::Account;
use galerna_test_servers::{Mongo, RabbitMq};
use serde_json::{Value, json};

use crate::system::{self, Service, call, until};

async fn text(url: &str) -> String {
    let answer = reqwest::get(url).await.unwrap();
    assert_eq!(answer.status(), 200, "{url}");
    answer.text().await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_of_its_own_shows_and_steers_modules_elsewhere() {
    galerna_tls::install_default_provider();
    let (rabbit, mongo) = (RabbitMq::shared().await, Mongo::shared().await);
    let amqp = rabbit.vhost().await;
    let store_url = system::database(&mongo.uri(), &mongo.unique("page"));
    let management = format!("broker.management_url={}", rabbit.management_uri());
    let store = galerna::storage::open(&store_url).await.unwrap();
    let queue = QueueName::new("QA").unwrap();
    let id = AccountId::new("A").unwrap();
    store
        .accounts
        .put(&[Account { name: "A".into(), queue: queue.clone(), id, active: true }])
        .await
        .unwrap();
    let folder = tempfile::tempdir().unwrap();
    let start = |args: &[&str]| {
        let shared = ["--broker", &amqp, "--store", &store_url, "--set", &management];
        let all: Vec<&str> = shared.iter().copied().chain(args.iter().copied()).collect();
        Service::start(Path::new(folder.path()), &all)
    };
    let address = |entry: Value| format!("http://{}", entry["fields"]["address"].as_str().unwrap());

    let maintainer = start(&["--set", "maintainer.listen=127.0.0.1:0", "maintainer"]);
    let maintainer_url = format!("maintainer.url={}", address(maintainer.said("the maintainer works").await));
    let dispatcher = start(&["--set", &maintainer_url, "--listen", "127.0.0.1:0", "dispatcher"]);
    let api = dispatcher.api().await;
    let dispatcher_url = format!("dispatcher.url={api}");
    let worker = start(&["--set", &dispatcher_url, "--set", "worker.listen=127.0.0.1:0", "worker"]);
    // One worker answers, one never did.
    let workers =
        format!("page.workers={},http://127.0.0.1:1", address(worker.said("the worker works").await));
    let serving =
        start(&["--set", &dispatcher_url, "--set", "page.listen=127.0.0.1:0", "--set", &workers, "page"]);
    let page = address(serving.said("the page listens").await);

    until("the queue is known", || async { call("GET", &format!("{api}/queue/QA"), None).await.0 == 200 })
        .await;
    let broker = galerna::broker::open(&amqp).await.unwrap();
    let reading =
        json!({"did": "m", "values": [{"p": 999, "v": 1.0}], "sqn": 1, "ts": "2017-01-01T00:00:00Z"});
    let message = Message {
        body: reading.to_string().into(),
        content_type: "application/json".into(),
        id: "m1".into(),
    };
    broker.publish(vec![(queue, message)]).await.unwrap();

    let letters = format!("{page}/dead-letters/QA");
    until("the dead letter shows", || async { text(&letters).await.contains("999, an unknown parameter") })
        .await;
    let topology = text(&format!("{page}/topology")).await;
    assert!(
        topology.contains("http://127.0.0.1:1") && topology.contains("1, no answer from 1"),
        "{topology}"
    );
    let acked = r#"data-cell="c-readings-acked" data-tone="plain">1<"#;
    until("the worker's counts show", || async { text(&format!("{page}/topology")).await.contains(acked) })
        .await;

    let body = json!({"queue": "QA", "reason": "meter exchange"}).to_string();
    let (status, answer) = call("POST", &format!("{page}/api/queues/pause"), Some(&body)).await;
    assert_eq!(status, 200, "{answer}");
    assert_eq!(call("GET", &format!("{api}/queue/QA"), None).await.1["state"], "pause");
    let body = json!({"queue": "QA", "all": true}).to_string();
    let (status, answer) = call("POST", &format!("{page}/api/dead-letters/discard"), Some(&body)).await;
    assert_eq!((status, &answer["discarded"]), (200, &json!(1)), "{answer}");
    let audit = store.audit.list(None, 0, 10).await.unwrap();
    let done: Vec<&str> = audit.iter().map(|e| e.action.as_str()).collect();
    assert_eq!(done, ["dead_letters.discard", "queue.pause"]);
    until("a sample is kept", || async { !store.history.since(Timestamp(0)).await.unwrap().is_empty() })
        .await;
}
