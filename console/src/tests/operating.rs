//! What operators do with many things at once, and what they see of them.

use super::*;

impl World {
    async fn publish(&self, bodies: &[&str]) {
        let message = |body: &&str| Message {
            body: (*body).to_owned().into(),
            content_type: "application/json".into(),
            id: format!("id-{body}"),
        };
        let window = bodies.iter().map(|body| (queue("D00001"), message(body))).collect();
        self.parts.broker.publish(window).await.unwrap();
    }

    async fn bury_in(&self, of: &str, source: &str, reason: &str) {
        let letter = NewDeadLetter {
            message: Message {
                body: format!(r#"{{"source":"{source}","readings":[{{"did":"12a"}}]}}"#).into(),
                content_type: "application/json".into(),
                id: "m".into(),
            },
            failure: Failure { reason: reason.to_owned(), component: "validate".into() },
            replays: 0,
        };
        self.parts.broker.declare(&queue(of)).await.unwrap();
        self.parts.broker.dead_letter(&queue(of), vec![letter]).await.unwrap();
    }

    async fn answered(&self, path: &str, body: &Value) -> (u16, Value) {
        let answer = self.call(path, body).send().await.unwrap();
        (answer.status().as_u16(), answer.json().await.unwrap())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_queues_are_paused_after_one_question_and_unpaused_by_what_matches() {
    let world = World::open().await;
    let token = csrf(&world.text("/queues").await);
    let ticked =
        [("csrf", token.as_str()), ("queues[]", "D00000"), ("queues[]", "D00002"), ("back", "/queues")];
    let asked = world.form("/queues/pause", &ticked).send().await.unwrap();
    assert_eq!(asked.status(), StatusCode::OK);
    let asked = asked.text().await.unwrap();
    assert!(asked.contains("Pause 2 queues?") && asked.contains("D00000, D00002"), "{asked}");
    assert_eq!(world.state("D00000").await, "idle");
    let confirmed = [&ticked[..], &[("confirmed", "yes"), ("reason", "works")]].concat();
    let done = world.form("/queues/pause", &confirmed).send().await.unwrap();
    assert_eq!(done.status(), StatusCode::SEE_OTHER);
    let states = [world.state("D00000").await, world.state("D00001").await, world.state("D00002").await];
    assert_eq!(states, ["pause", "idle", "pause"]);
    let entry = &world.audit().await[0];
    assert_eq!((entry.target.as_str(), entry.why.as_deref()), ("D00000, D00002", Some("works")));
    assert_eq!(entry.outcome, "2 queues paused");

    let matching = json!({"matching": {"state": "pause", "search": "d000"}});
    let (status, answer) = world.answered("/api/queues/unpause", &matching).await;
    assert_eq!((status, &answer["queues"]), (200, &json!(2)), "{answer}");
    assert_eq!([world.state("D00000").await, world.state("D00002").await], ["idle", "idle"]);
    // One that is not there does not keep the others from it.
    let (status, answer) =
        world.answered("/api/queues/pause", &json!({"queues": ["D00001", "Nobody"]})).await;
    assert_eq!((status, answer["failed"].as_array().unwrap().len()), (200, 1), "{answer}");
    assert_eq!(world.state("D00001").await, "pause");
    for wrong in [json!({"queue": "D00001", "queues": ["D00002"]}), json!({"queues": []})] {
        assert_eq!(world.answered("/api/queues/pause", &wrong).await.0, 422, "{wrong}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_of_all_queues_are_grouped_searched_and_replayed_and_each_replay_counts() {
    let world = World::open().await;
    world.bury_in("D00000", "s1", "values[0].p: 999, an unknown parameter").await;
    world.bury_in("D00001", "s2", "values[3].p: 998, an unknown parameter").await;
    world.bury_in("D00001", "s2", "ts: is in the future").await;
    let page = world.text("/dead-letters").await;
    for shown in ["3</span> in all queues", "By reason", "values[3].p: 998", "never"] {
        let shown = shown.replace("</span>", "");
        assert!(page.contains(&shown), "no {shown} in {page}");
    }
    let rows = |page: &str| page.matches(r#"name="letters[]""#).count();
    assert_eq!(rows(&page), 3);
    let kind = "validate: values[#].p: #, an unknown parameter";
    let of_kind = format!("/dead-letters?kind={}", layout::encoded(kind));
    assert_eq!(rows(&world.text(&of_kind).await), 2);
    assert_eq!(rows(&world.text("/dead-letters?source=S2").await), 2);
    assert_eq!(rows(&world.text("/dead-letters?text=future").await), 1);
    assert_eq!(rows(&world.text("/dead-letters?queue=D00000&text=future").await), 0);

    // Of one kind, over both queues, after one question.
    let token = csrf(&page);
    let fields = [("csrf", token.as_str()), ("matching", "true"), ("matching.kind", kind), ("all", "true")];
    let asked = world.form("/dead-letters/replay", &fields).send().await.unwrap().text().await.unwrap();
    assert!(asked.contains("Replay all dead letters that match reason `validate: values"), "{asked}");
    let confirmed = [&fields[..], &[("confirmed", "yes")]].concat();
    let done = world.form("/dead-letters/replay", &confirmed).send().await.unwrap();
    assert_eq!(done.status(), StatusCode::SEE_OTHER);
    assert_eq!(world.audit().await[0].outcome, "2 dead letters of 2 queues replayed");
    let left = world.parts.broker.dead_letters(&queue("D00001"), 0, 10).await.unwrap();
    assert_eq!((left.len(), left[0].failure.reason.as_str()), (1, "ts: is in the future"));

    let letters = json!({"letters": [{"queue": "D00001", "id": left[0].id}], "reason": "test data"});
    let (status, answer) = world.answered("/api/dead-letters/discard", &letters).await;
    assert_eq!((status, &answer["discarded"]), (200, &json!(1)), "{answer}");
    assert_eq!(world.dead().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_is_shown_and_stays() {
    let world = World::open().await;
    world.publish(&[r#"{"source":"s1","n":1}"#, r#"{"source":"s1","n":2}"#]).await;
    for _ in 0..2 {
        let page = world.text("/queues/D00001/messages").await;
        let (first, second) = (page.find("&quot;n&quot;: 1"), page.find("&quot;n&quot;: 2"));
        assert!(first.is_some() && first < second && page.contains("2 ready"), "{page}");
    }
    assert_eq!(world.parts.broker.depth(&queue("D00001")).await.unwrap().ready, 2);
    assert_eq!(world.get("/queues/Nobody/messages").send().await.unwrap().status(), 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_dispatcher_is_a_banner_on_every_page() {
    let world = World::open().await;
    some_readings(&world).await;
    let hidden = r#"data-is="stopped" hidden>"#;
    assert!(world.text("/about").await.contains(hidden));
    assert_eq!(world.answered("/api/dispatcher/stop", &json!({})).await.0, 200);
    for path in PAGES {
        let page = world.text(path).await;
        assert!(page.contains("Dispatching is stopped.") && !page.contains(hidden), "{path}: {page}");
    }
    assert_eq!(world.answered("/api/dispatcher/start", &json!({})).await.0, 200);
    assert!(world.text("/rules").await.contains(hidden));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queues_page_tells_who_did_what_to_it() {
    let world = World::open().await;
    assert!(world.text("/queues/D00001").await.contains("has written none since it started"));
    let pause = json!({"queue": "D00001", "reason": "meter exchange"});
    assert_eq!(world.answered("/api/queues/pause", &pause).await.0, 200);
    let page = world.text("/queues/D00001").await;
    assert!(page.contains("Last transitions") && page.contains("idle</span> → "), "{page}");
    assert!(page.contains("/queues/D00001/messages") && page.contains("/sources?search=acme"), "{page}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_quick_search_finds_by_a_part_of_the_name_and_goes_to_the_only_one() {
    let world = World::open().await;
    some_readings(&world).await;
    let page = world.text("/search?q=d0000").await;
    assert!(page.contains("/queues/D00000") && page.contains("/queues/D00002"), "{page}");
    let to = |answer: Response| answer.headers()["location"].to_str().unwrap().to_owned();
    assert_eq!(to(world.get("/search?q=D00001").send().await.unwrap()), "/queues/D00001");
    assert_eq!(to(world.get("/search?q=s1").send().await.unwrap()), "/sources/s1");
    assert_eq!(to(world.get("/search?q=").send().await.unwrap()), "/");
    let page = world.text("/search?q=%3Cscript%3E").await;
    assert!(page.contains("No queue, source") && page.contains("/trace/%3Cscript%3E"), "{page}");
}

#[tokio::test(flavor = "multi_thread")]
async fn charts_show_the_range_that_is_asked_for() {
    let world = World::open().await;
    let now = world.parts.clock.now().as_millis();
    // Two hours ago, and ten days ago as it is kept for long.
    let long_ago = now - 10 * 86_400_000;
    for (at, name) in [(now - 7_200_000, "done"), (long_ago - long_ago % 300_000, "done.max")] {
        let values = [(name.to_owned(), 5.0)].into_iter().collect();
        world.parts.store.history.put(&galerna_storage::Sample { at: Timestamp(at), values }).await.unwrap();
    }
    let lines =
        async |range: &str| world.text(&format!("/?range={range}")).await.matches("<polyline").count();
    assert_eq!([lines("15m").await, lines("1h").await, lines("6h").await], [0, 0, 1]);
    assert_eq!([lines("7d").await, lines("30d").await], [0, 1]);
    let page = world.text("/?range=30d").await;
    assert!(page.contains("The last 30 days") && page.contains("highest of each 2h"), "{page}");
}

/// One worker in one process.
struct OneWorker;

#[async_trait]
impl WorkersView for OneWorker {
    async fn reports(&self) -> WorkerReports {
        let component = json!({"id": "store", "kind": "async bolt", "busy": 0.43, "restarts": 2});
        let told = json!({"process": {"host": "node-1", "pid": 77, "version": "1.2.3", "memory_bytes": 52_000_000.0,
                "cpu_seconds": 1.0, "threads": 9.0, "open_files": 900.0, "most_files": 1024.0, "started_seconds": 0.0},
            "workers": [{"topology": "ingestion", "consumer": "w1", "uptime_ms": 60_000, "components": [component]}]});
        WorkerReports::of_one(told).unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_tell_their_version_memory_load_and_leases() {
    let folder = tempfile::tempdir().unwrap();
    let mut parts = parts(&folder, 2).await;
    parts.workers = Arc::new(OneWorker);
    let world = World::with(folder, parts, Access::default()).await;
    let page = world.text("/workers").await;
    for shown in ["node-1 (77)", "1.2.3", "52 MB", "43 %", "ingestion", ">w1<"] {
        assert!(page.contains(shown), "no {shown} in {page}");
    }
    assert!(page.contains(r#"<b data-tone="warn">900</b> of 1024"#), "{page}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_is_added_rotated_and_removed_and_its_token_is_shown_once_and_written_nowhere() {
    let world = World::open().await;
    let page = world.text("/sources").await;
    let fields =
        [("csrf", &*csrf(&page)), ("source", "gateway-7"), ("account", "Beta"), ("back", "/sources")];
    let done = world.form("/sources/add", &fields).send().await.unwrap();
    let back = done.headers()["location"].to_str().unwrap().to_owned();
    let shown = world.text(&back).await;
    let (_, rest) = shown.split_once("shown this once: ").expect("the token");
    let token = rest.split('<').next().unwrap().to_owned();
    assert_eq!(token.len(), 64);
    assert!(shown.contains("/sources/gateway-7") && shown.contains("its queue Beta are made"), "{shown}");
    assert!(!world.text(&back).await.contains(&token));

    let rotate = json!({"source": "gateway-7", "reason": "lost"});
    let (status, answer) = world.answered("/api/sources/rotate", &rotate).await;
    assert_eq!((status, answer["replaced"].as_bool()), (200, Some(true)), "{answer}");
    assert_ne!(answer["token"].as_str().unwrap(), token);
    assert_eq!(world.answered("/api/sources/remove", &json!({"source": "gateway-7"})).await.0, 200);
    let stored = world.parts.store.sources.list().await.unwrap();
    assert!(!stored[0].active && stored[0].token_hash.is_empty());
    for (path, body, status) in [
        ("/api/sources/rotate", json!({"source": "gateway-7"}), 404),
        ("/api/sources/add", json!({"source": "..", "account": "Beta"}), 422),
        ("/api/sources/add", json!({"source": "s", "account": "Beta", "token": "a b"}), 422),
    ] {
        assert_eq!(world.answered(path, &body).await.0, status, "{path} {body}");
    }
    let audit = world.audit().await;
    let done: Vec<&str> = audit.iter().filter(|e| e.done).map(|e| e.action.as_str()).collect();
    assert_eq!(done, ["source.remove", "source.rotate", "source.add"]);
    assert!(!format!("{audit:?}").contains(&token));
}

#[tokio::test(flavor = "multi_thread")]
async fn where_sources_are_kept_elsewhere_the_page_says_so_and_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let mut parts = parts(&folder, 1).await;
    parts.sources = None;
    let world = World::with(folder, parts, Access::default()).await;
    assert!(world.text("/sources").await.contains("Who may post is kept elsewhere"));
    let (status, answer) = world.answered("/api/sources/add", &json!({"source": "s", "account": "A"})).await;
    assert_eq!((status, &answer["error"]["code"]), (409, &json!("conflict")), "{answer}");
}
