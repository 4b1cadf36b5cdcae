//! What the page tells of itself and of others: updates, notices, samples, metrics.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn the_stream_of_updates_sends_numbers_and_takes_a_bounded_number_of_listeners() {
    let world = World::open().await;
    let listen = || world.get("/events?queue=D00001").send();
    let mut first = listen().await.unwrap();
    assert_eq!(first.headers()["content-type"], "text/event-stream");
    let mut heard = String::new();
    while !heard.contains("q-ready") {
        heard.push_str(&String::from_utf8_lossy(&first.chunk().await.unwrap().expect("an update")));
    }
    assert!(
        heard.starts_with("event: cells\ndata: {") && heard.contains(r#""o-running":["running","good"]"#),
        "{heard}"
    );
    let mut others = Vec::new();
    for _ in 1..MAX_VIEWERS {
        let answer = listen().await.unwrap();
        assert_eq!(answer.status(), 200);
        others.push(answer);
    }
    assert_eq!(listen().await.unwrap().status(), 503);
    world.parts.stop.cancel();
    while first.chunk().await.unwrap().is_some() {}
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dispatcher_that_is_away_is_a_notice_and_no_blank_page() {
    let folder = tempfile::tempdir().unwrap();
    let mut parts = parts(&folder, 1).await;
    // Nobody listens on the port of a listener that is gone.
    let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let options = ClientOptions { attempts: 1, ..ClientOptions::default() };
    parts.dispatcher = Arc::new(DispatcherClient::new(&format!("http://{gone}"), options).unwrap());
    parts.workers = Arc::new(RemoteWorkers::new(vec![format!("http://{gone}")], None).unwrap());
    parts.statistics = None;
    let world = World::with(folder, parts, Access::default()).await;
    for path in ["/", "/topology", "/queues"] {
        let page = world.text(path).await;
        assert!(page.contains("No answer") && page.contains("dispatcher is unavailable"), "{path}: {page}");
    }
    assert!(!world.text("/").await.contains("No workers known"));
    assert!(world.text("/sources").await.contains("not counted here"));
    assert_eq!(world.get("/queues/D00000").send().await.unwrap().status(), 503);
    let (status, audit) =
        (world.call("/api/dispatcher/stop", &json!({})).send().await.unwrap().status(), world.audit().await);
    assert_eq!((status.as_u16(), audit[0].done), (503, false));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_button_of_a_list_leads_to_a_page_that_takes_a_reason() {
    let world = World::open().await;
    let page = world.text("/queues").await;
    assert!(page.contains(r#"name="ask" value="Pause""#), "{page}");
    let token = csrf(&page);
    let fields = [("csrf", token.as_str()), ("queue", "D00001"), ("ask", "Pause"), ("back", "/queues")];
    let asked = world.form("/queues/pause", &fields).send().await.unwrap();
    assert_eq!(asked.status(), StatusCode::OK);
    let asked = asked.text().await.unwrap();
    assert!(asked.contains("Pause: D00001") && asked.contains(r#"name="reason""#), "{asked}");
    assert!(world.audit().await.is_empty());
    let answer = [&fields[..], &[("confirmed", "yes"), ("reason", "meter exchange")]].concat();
    let done = world.form("/queues/pause", &answer).send().await.unwrap();
    assert_eq!(done.status(), StatusCode::SEE_OTHER);
    assert_eq!(world.audit().await[0].why.as_deref(), Some("meter exchange"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_that_was_told_of_no_workers_says_where_to_name_them() {
    let folder = tempfile::tempdir().unwrap();
    let mut parts = parts(&folder, 1).await;
    parts.workers = Arc::new(RemoteWorkers::new(Vec::new(), None).unwrap());
    let world = World::with(folder, parts, Access::default()).await;
    for path in ["/", "/topology"] {
        let page = world.text(path).await;
        assert!(page.contains("No workers known") && page.contains("page.workers"), "{path}: {page}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn samples_are_taken_and_kept() {
    let folder = tempfile::tempdir().unwrap();
    let parts = parts(&folder, 5).await;
    let stop = CancellationToken::new();
    let keeping = spawn_samples(parts.clone(), stop.clone());
    let taken = loop {
        let samples = parts.store.history.since(Timestamp(0)).await.unwrap();
        if let Some(sample) = samples.into_iter().next() {
            break sample;
        }
        tokio::task::yield_now().await;
    };
    stop.cancel();
    keeping.await.unwrap();
    assert_eq!(
        (taken.values["ready"], taken.values["dead"], taken.at.as_millis() % samples::EVERY_MS),
        (0.0, 0.0, 0)
    );
    let world = World::with(folder, parts, Access::default()).await;
    assert!(world.text("/").await.contains("<polyline"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metrics_tell_of_calls_actions_and_dead_letters_and_need_their_token() {
    let world = World::guarded().await;
    let letter = NewDeadLetter {
        message: Message { body: "x".into(), content_type: "text/plain".into(), id: "m1".into() },
        failure: Failure { reason: "unreadable".into(), component: "validate".into() },
        replays: 0,
    };
    world.parts.broker.dead_letter(&queue("D00001"), vec![letter]).await.unwrap();
    let pause = world.call("/api/queues/pause", &json!({"queue": "D00001"})).bearer_auth(OPERATOR);
    assert_eq!(pause.send().await.unwrap().status(), StatusCode::OK);
    let unknown = world.call("/api/queues/pause", &json!({"queue": "D99999"})).bearer_auth(OPERATOR);
    assert_eq!(unknown.send().await.unwrap().status(), StatusCode::NOT_FOUND);
    for path in ["/no-such-page", "/nor-this-one"] {
        assert_eq!(world.get(path).bearer_auth(VIEWER).send().await.unwrap().status(), StatusCode::NOT_FOUND);
    }
    for token in ["wrong", VIEWER] {
        let refused = world.get("/metrics").bearer_auth(token).send().await.unwrap();
        assert_eq!(refused.status(), StatusCode::UNAUTHORIZED);
    }
    // And the token of the metrics opens nothing else.
    let refused = world.get("/api/status").bearer_auth(METRICS).send().await.unwrap();
    assert_eq!(refused.status(), StatusCode::UNAUTHORIZED);
    let text = world.get("/metrics").bearer_auth(METRICS).send().await.unwrap().text().await.unwrap();
    for line in [
        "galerna_page_dead_letters 1",
        r#"galerna_page_requests_total{route="/api/queues/pause",status="200"} 1"#,
        r#"galerna_page_requests_total{route="/api/queues/pause",status="404"} 1"#,
        r#"galerna_page_requests_total{route="unknown",status="404"} 2"#,
        r#"outcome="done"} 1"#,
        r#"outcome="refused"} 1"#,
    ] {
        assert!(text.contains(line), "no {line} in {text}");
    }
}
