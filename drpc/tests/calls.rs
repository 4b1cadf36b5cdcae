//! Calls through topologies: Storm's own cases, and what can go wrong.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use galerna_drpc::{Drpc, DrpcError, DrpcOptions, DrpcSpout, ReturnInfo, ReturnResults};
use galerna_engine::{Engine, EngineOptions, Running};
use galerna_topology::FaultKind;
use galerna_topology::prelude::*;
use reqwest::Client;
use tokio::net::TcpListener;

type Call = (String, ReturnInfo);

/// A topology that answers the calls of a function by this.
async fn answering<F, E>(drpc: &Drpc, function: &str, answer: F) -> Running
where
    F: Fn(Call) -> E + Clone + Send + Sync + 'static,
    E: Future<Output = Result<Call, Fault>> + Send + 'static,
{
    let mut topology = TopologyBuilder::new(function);
    let calls = topology.spout("calls", DrpcSpout::new(drpc, function)).outputs();
    let results = topology.map_async("answer", 1_000, answer).shuffle(calls).outputs();
    topology.bolt("return", ReturnResults).shuffle(results);
    Engine::submit(topology.build().unwrap(), EngineOptions::default()).await.unwrap()
}

async fn exclaim((text, caller): Call) -> Result<Call, Fault> {
    Ok((format!("{text}!!!"), caller))
}

/// Answers never.
async fn wait(_: Call) -> Result<Call, Fault> {
    std::future::pending().await
}

#[tokio::test]
async fn an_exclaiming_bolt_answers_with_three_marks() {
    let drpc = Drpc::new(DrpcOptions::default());
    let running = answering(&drpc, "exclaim", exclaim).await;
    assert_eq!(drpc.execute("exclaim", "aaa").await, Ok("aaa!!!".to_owned()));
    running.stop().await;
}

#[tokio::test]
async fn each_call_gets_its_own_square() {
    let drpc = Drpc::new(DrpcOptions::default());
    let square = |(text, caller): Call| async move {
        let n: i64 = text.parse().or_fault(FaultKind::Permanent)?;
        Ok((n.pow(2).to_string(), caller))
    };
    let running = answering(&drpc, "square", square).await;
    for (n, squared) in [("2", "4"), ("10", "100"), ("1", "1"), ("0", "0")] {
        assert_eq!(drpc.execute("square", n).await, Ok(squared.to_owned()));
    }
    // At the same time, too.
    let calls = (0..500_i64).map(|n| {
        let drpc = drpc.clone();
        tokio::spawn(async move { (n, drpc.execute("square", n.to_string()).await) })
    });
    for call in calls.collect::<Vec<_>>() {
        let (n, result) = call.await.unwrap();
        assert_eq!(result, Ok(n.pow(2).to_string()));
    }
    let failed = drpc.execute("square", "two").await.unwrap_err();
    let DrpcError::Failed { component, reason, kind } = failed else { panic!("{failed}") };
    assert_eq!((&*component, kind), ("answer", FaultKind::Permanent));
    assert!(reason.contains("invalid digit"), "{reason}");
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_call_ends_at_its_deadline_and_its_place_is_free_again() {
    let drpc = Drpc::new(DrpcOptions { in_flight: 1, ..DrpcOptions::default() });
    let running = answering(&drpc, "wait", wait).await;
    for _ in 0..2 {
        let began = tokio::time::Instant::now();
        let late = drpc.execute_within("wait", "", Duration::from_secs(5)).await.unwrap_err();
        assert_eq!(late, DrpcError::Deadline { function: "wait".into(), waited: Duration::from_secs(5) });
        assert_eq!(began.elapsed().as_secs(), 5);
    }
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn more_calls_than_may_be_in_flight_are_refused_at_once() {
    let drpc = Drpc::new(DrpcOptions { in_flight: 2, ..DrpcOptions::default() });
    let running = answering(&drpc, "wait", wait).await;
    let first: Vec<_> = (0..2)
        .map(|_| {
            let drpc = drpc.clone();
            tokio::spawn(async move { drpc.execute("wait", "").await })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(1)).await;
    let refused = drpc.execute("wait", "").await.unwrap_err();
    assert_eq!(refused, DrpcError::Busy { function: "wait".into(), limit: 2 });
    // A caller that goes makes room.
    first[0].abort();
    tokio::time::sleep(Duration::from_millis(1)).await;
    let late = drpc.execute_within("wait", "", Duration::from_secs(1)).await.unwrap_err();
    assert!(matches!(late, DrpcError::Deadline { .. }), "{late}");
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn who_calls_nobody_is_told_so() {
    let drpc = Drpc::new(DrpcOptions::default());
    assert_eq!(drpc.execute("nobody", "").await, Err(DrpcError::Unknown("nobody".into())));
    let running = answering(&drpc, "exclaim", exclaim).await;
    assert_eq!(drpc.execute("exclaim", "a").await, Ok("a!!!".to_owned()));
    running.deactivate();
    tokio::time::sleep(Duration::from_millis(10)).await;
    assert_eq!(drpc.execute("exclaim", "a").await, Err(DrpcError::Inactive("exclaim".into())));
    running.activate();
    tokio::time::sleep(Duration::from_millis(10)).await;
    assert_eq!(drpc.execute("exclaim", "a").await, Ok("a!!!".to_owned()));
    running.stop().await;
    assert_eq!(drpc.execute("exclaim", "a").await, Err(DrpcError::Inactive("exclaim".into())));
}

#[tokio::test]
async fn a_call_whose_tuples_all_end_without_a_result_says_so() {
    let drpc = Drpc::new(DrpcOptions::default());
    let mut topology = TopologyBuilder::new("silent");
    let calls = topology.spout("calls", DrpcSpout::new(&drpc, "silent")).outputs();
    topology.for_each("drop", |_: Call| ()).shuffle(calls);
    let running = Engine::submit(topology.build().unwrap(), EngineOptions::default()).await.unwrap();
    assert_eq!(drpc.execute("silent", "a").await, Err(DrpcError::NoResult("silent".into())));
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_caller_hears_of_a_message_timeout_of_a_panic_and_of_a_topology_that_is_killed() {
    let drpc = Drpc::new(DrpcOptions::default());
    let mut topology = TopologyBuilder::new("bad");
    topology.message_timeout(Duration::from_secs(3));
    let calls = topology.spout("calls", DrpcSpout::new(&drpc, "bad")).outputs();
    let answered = topology
        .map_async("answer", 8, |(text, caller): Call| async move {
            match &*text {
                "slow" | "killed" => wait((text, caller)).await,
                text => panic!("no {text} please"),
            }
        })
        .shuffle(calls)
        .outputs();
    topology.bolt("return", ReturnResults).shuffle(answered);
    let running = Engine::submit(topology.build().unwrap(), EngineOptions::default()).await.unwrap();
    let began = tokio::time::Instant::now();
    let DrpcError::Failed { reason, kind, .. } = drpc.execute("bad", "slow").await.unwrap_err() else {
        panic!("it failed")
    };
    assert_eq!((&*reason, kind), ("timeout", FaultKind::Transient));
    assert!(began.elapsed() < Duration::from_secs(5), "it does not wait for the deadline of the call");
    let DrpcError::Failed { component, reason, .. } = drpc.execute("bad", "thirteen").await.unwrap_err()
    else {
        panic!("it failed")
    };
    assert_eq!(&*component, "answer");
    assert!(reason.contains("no thirteen please"), "{reason}");
    let caller = drpc.clone();
    let call = tokio::spawn(async move { caller.execute("bad", "killed").await });
    tokio::time::sleep(Duration::from_secs(1)).await;
    running.stop().await;
    let told = call.await.unwrap().unwrap_err();
    assert!(matches!(told, DrpcError::Failed { .. } | DrpcError::Inactive(_)), "{told}");
}

#[tokio::test]
async fn of_several_results_the_first_counts_and_two_topologies_share_a_function() {
    let drpc = Drpc::new(DrpcOptions::default());
    let mut all = Vec::new();
    for name in ["one", "other"] {
        let mut topology = TopologyBuilder::new(name);
        let calls = topology.spout("calls", DrpcSpout::new(&drpc, "twice")).outputs();
        let answered = topology
            .flat_map("answers", |(text, caller): Call| {
                [(format!("{text} once"), caller.clone()), (text, caller)]
            })
            .shuffle(calls)
            .outputs();
        topology.bolt("return", ReturnResults).shuffle(answered);
        all.push(Engine::submit(topology.build().unwrap(), EngineOptions::default()).await.unwrap());
    }
    for n in 0..100 {
        assert_eq!(drpc.execute("twice", n.to_string()).await, Ok(format!("{n} once")));
    }
    // While one of them is there, calls are answered.
    all.remove(0).stop().await;
    for n in 0..10 {
        assert_eq!(drpc.execute("twice", n.to_string()).await, Ok(format!("{n} once")));
    }
    all.remove(0).stop().await;
    assert_eq!(drpc.execute("twice", "a").await, Err(DrpcError::Inactive("twice".into())));
}

/// Serves the calls; returns the base URL.
async fn served(drpc: &Drpc) -> String {
    galerna_tls::install_default_provider();
    let (router, _) = galerna_http::openapi::served(drpc.routes(), |_| {});
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}/drpc", listener.local_addr().unwrap());
    let options = galerna_http::ServeOptions::new("calls");
    tokio::spawn(galerna_http::serve_until(listener, router, options, std::future::pending()));
    base
}

#[tokio::test]
async fn functions_are_called_over_http() {
    let drpc = Drpc::new(DrpcOptions { argument_bytes: 100, ..DrpcOptions::default() });
    let answer = |(text, caller): Call| async move {
        match text.as_str() {
            "bad" => Err(Fault::permanent("it is bad")),
            "slow" => std::future::pending().await,
            _ => Ok((format!("{text}!!!"), caller)),
        }
    };
    let running = answering(&drpc, "exclaim", answer).await;
    let (base, client) = (served(&drpc).await, Client::new());
    let post = |path: &str, body: &str| client.post(format!("{base}/{path}")).body(body.to_owned());
    let long = "x".repeat(101);
    for (call, status, told) in [
        (post("exclaim", "aaa"), 200, "aaa!!!"),
        (client.get(format!("{base}/exclaim/aaa")), 200, "aaa!!!"),
        (post("exclaim", ""), 200, "!!!"),
        (
            post("exclaim", "bad"),
            500,
            r#"{"error":{"code":"failed","message":"`answer` failed: it is bad"},"component":"answer","fault":"permanent"}"#,
        ),
        (post("exclaim?timeout_ms=20", "slow"), 504, r#""code":"deadline""#),
        (post("nobody", "a"), 404, r#""code":"unknown_function""#),
        (post("exclaim?timeout=20", "a"), 422, r#""code":"invalid_query""#),
        (post("exclaim", &long), 413, r#""code":"body_too_large""#),
        (client.post(format!("{base}/exclaim")).body(vec![0xff]), 400, r#""code":"not_text""#),
    ] {
        let answer = call.send().await.unwrap();
        let got = (answer.status().as_u16(), answer.text().await.unwrap());
        assert!(got.0 == status && got.1.contains(told), "{got:?} is not {status} {told}");
    }
    running.deactivate();
    loop {
        let answer = post("exclaim", "a").send().await.unwrap();
        if answer.status() == 503 {
            assert_eq!(answer.headers()["retry-after"], "1");
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    running.stop().await;
}

#[tokio::test]
async fn a_caller_that_hangs_up_cancels_its_call() {
    let drpc = Drpc::new(DrpcOptions::default());
    let (begun, cancelled) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let answer = {
        let (begun, cancelled) = (begun.clone(), cancelled.clone());
        move |(_, caller): Call| {
            let (begun, cancelled) = (begun.clone(), cancelled.clone());
            async move {
                begun.fetch_add(1, Ordering::SeqCst);
                while !caller.is_cancelled() {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                cancelled.fetch_add(1, Ordering::SeqCst);
                Ok((String::new(), caller))
            }
        }
    };
    let running = answering(&drpc, "wait", answer).await;
    let base = served(&drpc).await;
    let call = tokio::spawn(Client::new().post(format!("{base}/wait")).body("a").send());
    let until = async |counter: &AtomicU64| {
        while counter.load(Ordering::SeqCst) == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), until(&begun)).await.unwrap();
    call.abort();
    tokio::time::timeout(Duration::from_secs(20), until(&cancelled)).await.unwrap();
    running.stop().await;
}
