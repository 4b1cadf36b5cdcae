//! On the real RabbitMQ: what is acknowledged is safe, whatever the server does.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use galerna_broker::rabbitmq::{RabbitMqBroker, RabbitMqOptions, Timeouts as BrokerTimeouts};
use galerna_frontend::{Limits, Options, Timeouts};
use galerna_test_servers::RabbitMq;
use serde_json::{Value, json};
use tokio::time::{Instant, timeout};

use crate::world::{DEADLINE, GOOD, World, queue};

async fn world(server: &RabbitMq, options: Options) -> World {
    let timeouts = BrokerTimeouts {
        reconnect: Duration::from_secs(1),
        rpc: Duration::from_secs(10),
        confirm: Duration::from_secs(10),
        ..BrokerTimeouts::default()
    };
    let options_of_broker = RabbitMqOptions { timeouts, ..RabbitMqOptions::new(server.amqp_uri()) };
    // A server that has just started may need more than one attempt.
    let connected = async {
        loop {
            match RabbitMqBroker::connect(options_of_broker.clone()).await {
                Ok(broker) => return broker,
                Err(e) => eprintln!("not connected yet: {e}"),
            }
        }
    };
    let broker = timeout(DEADLINE, connected).await.unwrap();
    World::on(Arc::new(broker), options, &[("c1", "a"), ("c2", "b")]).await
}

fn patient() -> Options {
    Options {
        timeouts: Timeouts { publish: Duration::from_secs(10), ..Timeouts::default() },
        ..Options::default()
    }
}

fn unique_reading(n: u64) -> Value {
    json!({"did": format!("d{n}"), "values": [{"p": 401, "v": 1.5}], "sqn": 1, "ts": "2015-04-21T23:15:00Z"})
}

/// Posts until it is taken; gives the answers before.
async fn post_until_taken(world: &World, source: &str) -> Vec<(u16, Value)> {
    let deadline = Instant::now() + DEADLINE;
    let mut before = Vec::new();
    loop {
        let answer = world.post(source, GOOD).await;
        if answer.0 == 202 {
            return before;
        }
        assert!(Instant::now() < deadline, "{before:?}");
        before.push(answer);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_stops_under_load_costs_nothing_that_was_acknowledged() {
    let server = RabbitMq::start().await;
    let world = Arc::new(world(&server, patient()).await);
    let (next, refused, taken) =
        (Arc::new(AtomicU64::new(0)), Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let stop = tokio_util::sync::CancellationToken::new();
    let clients: Vec<_> = (0..8)
        .map(|_| {
            let (world, next, refused, taken, stop) = (
                Arc::clone(&world),
                Arc::clone(&next),
                Arc::clone(&refused),
                Arc::clone(&taken),
                stop.clone(),
            );
            tokio::spawn(async move {
                let mut acknowledged = Vec::new();
                while !stop.is_cancelled() {
                    let from = next.fetch_add(10, Ordering::SeqCst);
                    let list: Vec<Value> = (from..from + 10).map(unique_reading).collect();
                    let answer = world.http.post(world.readings_of("c1")).json(&list).send().await.unwrap();
                    match answer.status().as_u16() {
                        202 => {
                            let answer: Value = answer.json().await.unwrap();
                            assert_eq!(answer["accepted"], 10);
                            acknowledged.extend((from..from + 10).map(|n| format!("d{n}")));
                            taken.fetch_add(1, Ordering::SeqCst);
                        }
                        503 => {
                            assert!(answer.headers().contains_key("retry-after"));
                            refused.fetch_add(1, Ordering::SeqCst);
                        }
                        other => panic!("status {other}"),
                    }
                }
                acknowledged
            })
        })
        .collect();
    let until = async |counter: &AtomicUsize, more: usize| {
        let goal = counter.load(Ordering::SeqCst) + more;
        let reached = async {
            while counter.load(Ordering::SeqCst) < goal {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(DEADLINE, reached).await.unwrap();
    };
    until(&taken, 50).await;
    server.stop().await;
    until(&refused, 20).await;
    server.restart().await;
    until(&taken, 50).await;
    server.kill().await;
    until(&refused, 20).await;
    server.restart().await;
    until(&taken, 50).await;
    stop.cancel();
    let mut acknowledged = HashSet::new();
    for client in clients {
        acknowledged.extend(client.await.unwrap());
    }
    assert!(acknowledged.len() >= 1_500);
    let arrived: HashSet<String> = world.take_all("a").await.into_iter().map(|r| r.did).collect();
    let lost: Vec<&String> = acknowledged.difference(&arrived).collect();
    assert!(lost.is_empty(), "{} of {} lost: {lost:?}", lost.len(), acknowledged.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_blocks_freezes_or_lacks_the_queue_gets_503_and_then_flows_again() {
    let server = RabbitMq::start().await;
    let limits = Limits {
        readings: 10,
        readings_in_flight: 20,
        body_bytes: 64 << 10,
        bytes_in_flight: 128 << 10,
        source_readings: galerna_frontend::Rate::new(100_000, 100_000),
        ..Limits::default()
    };
    let options = Options {
        limits,
        timeouts: Timeouts { publish: Duration::from_secs(5), ..Timeouts::default() },
        ..Options::default()
    };
    let world = world(&server, options).await;
    assert_eq!(world.post("c1", GOOD).await.0, 202);

    server.block_publishers().await;
    // The alarm may take a moment to be raised.
    let raised = async { while world.post("c1", GOOD).await.0 == 202 {} };
    timeout(DEADLINE, raised).await.unwrap();
    // The server tells of it with the first publish after the alarm, so that this one may still wait for its confirm.
    let mut blocked = false;
    for _ in 0..5 {
        let (status, answer) = world.post("c1", GOOD).await;
        assert_eq!(status, 503, "{answer}");
        blocked |= answer["error"]["code"] == "broker_blocked";
    }
    assert!(blocked);
    let ready = async || {
        let answer = world.http.get(world.url("/readyz")).send().await.unwrap();
        (answer.status().as_u16(), answer.json::<Value>().await.unwrap())
    };
    let (status, body) = ready().await;
    assert_eq!((status, &body["error"]["code"]), (503, &"broker_blocked".into()), "{body}");
    let reason = body["broker_problem"].as_str().unwrap();
    assert!(!reason.is_empty() && body["error"]["message"].as_str().unwrap().contains(reason), "{body}");
    let (_, answer) = world.post("c1", GOOD).await;
    assert!(
        answer["error"]["message"].as_str().unwrap().contains(reason),
        "the caller is told why: {answer}"
    );
    server.unblock_publishers().await;
    // It is ready again without anybody posting: nobody does while it says that it is not.
    let again = async {
        while ready().await.0 != 200 {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    timeout(DEADLINE, again).await.unwrap();
    assert_eq!(world.post("c1", GOOD).await.0, 202);

    server.freeze().await;
    let calls: Vec<_> = (0..10).map(|_| world.post("c1", format!("[{}]", [GOOD; 10].join(",")))).collect();
    let answers = timeout(DEADLINE, futures_util::future::join_all(calls)).await.unwrap();
    assert!(answers.iter().all(|(status, _)| *status == 503), "{answers:?}");
    let overloaded = answers.iter().filter(|(_, answer)| answer["error"]["code"] == "overloaded").count();
    assert_eq!(overloaded, 8, "two calls of ten fill what may be under way: {answers:?}");
    let long = format!("{GOOD}{}", " ".repeat(60 << 10));
    let calls: Vec<_> = (0..4).map(|_| world.post("c1", long.clone())).collect();
    let answers = timeout(DEADLINE, futures_util::future::join_all(calls)).await.unwrap();
    assert!(answers.iter().all(|(status, _)| *status == 503), "{answers:?}");
    let overloaded = answers.iter().filter(|(_, answer)| answer["error"]["code"] == "overloaded").count();
    assert_eq!(overloaded, 2, "the memory of two such calls is taken until they are confirmed: {answers:?}");
    server.thaw().await;
    post_until_taken(&world, "c1").await;

    world.delete_queue("b").await;
    let (status, answer) = world.post("c2", GOOD).await;
    assert_eq!((status, &answer["error"]["code"]), (503, &"queue_missing".into()), "{answer}");
    world.broker.declare(&queue("b")).await.unwrap();
    assert_eq!(world.post("c2", GOOD).await.0, 202);
    assert_eq!(world.take_all("b").await.len(), 1);
    world.stopped().await;
}
