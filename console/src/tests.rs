//! The page over HTTP, before real modules in this process: who may do what, what is shown, what is written down.

use std::time::Duration;

use async_trait::async_trait;
use galerna_bolts::{AlertOptions, StoreOptions};
use galerna_broker::embedded::EmbeddedBroker;
use galerna_broker::{Failure, NewDeadLetter};
use galerna_dispatcher::{ClientOptions, Dispatcher, DispatcherClient, DispatcherOptions};
use galerna_ingest::Ingestion;
use galerna_model::{
    AccountId, Measurement, Message, ParameterCode, QueueName, Source, SourceId, SystemClock, Timestamp,
};
use galerna_model::{ParameterRegistry, ValidationLimits};
use galerna_spouts::LeasedOptions;
use galerna_storage::{QueueRecord, StoredReading};
use reqwest::{Client, RequestBuilder, Response, StatusCode};
use serde_json::{Value, json};

use super::*;

mod operating;
mod schedules;

const VIEWER: &str = "viewer-token-0123456789";
const OPERATOR: &str = "operator-token-0123456789";
const METRICS: &str = "metrics-token-0123456789";
const SCRIPT: &str = "<script>alert(1)</script>";

/// No topology runs here.
struct NoWorkers;

#[async_trait]
impl WorkersView for NoWorkers {
    async fn reports(&self) -> WorkerReports {
        WorkerReports::default()
    }
}

struct World {
    url: String,
    parts: Parts,
    client: Client,
    _folder: tempfile::TempDir,
}

fn queue(name: &str) -> QueueName {
    QueueName::new(name).unwrap()
}

fn no_schedules() -> SchedulesApi {
    let store = galerna_schedules::sqlite::SqliteSchedules::in_memory().unwrap();
    galerna_schedules::Schedules::new(Arc::new(store), Arc::new(SystemClock)).into()
}

async fn parts(folder: &tempfile::TempDir, queues: usize) -> Parts {
    let store = galerna_storage::sqlite::in_memory().unwrap();
    let broker: Arc<dyn Broker> = Arc::new(EmbeddedBroker::open(folder.path().join("broker.db")).unwrap());
    let account = AccountId::new("acme").unwrap();
    let records: Vec<QueueRecord> = (0..queues)
        .map(|n| QueueRecord::new(queue(&format!("D{n:05}")), account.clone(), Timestamp(1_000)))
        .collect();
    for records in records.chunks(1_000) {
        store.queues.create(records).await.unwrap();
    }
    broker.declare(&queue("D00001")).await.unwrap();
    let dispatcher = Dispatcher::open(&store, DispatcherOptions::default()).await.unwrap();
    let ingestion = Ingestion {
        consumer: "w".to_owned(),
        broker: broker.clone(),
        leases: Arc::new(dispatcher.clone()),
        store: store.clone(),
        account_of: Arc::new(|_| None),
        parameters: Arc::new(ParameterRegistry::built_in()),
        limits: ValidationLimits::default(),
        leasing: LeasedOptions::default(),
        storing: StoreOptions::default(),
        alerting: AlertOptions::default(),
        parallelism: 2,
        max_pending: 256,
        message_timeout: Duration::from_secs(30),
    };
    let topology = galerna_ingest::topology(&ingestion).unwrap().json();
    Parts {
        dispatcher: Arc::new(dispatcher),
        broker,
        store,
        statistics: Some(galerna_storage::sqlite::in_memory().unwrap().statistics),
        workers: Arc::new(NoWorkers),
        topologies: Arc::new(galerna_control::Topologies::new()),
        topology: serde_json::from_str(&topology).unwrap(),
        parameters: Arc::new(ParameterRegistry::built_in()),
        config: vec![Setting { key: "api.token".into(), value: "***".into(), origin: "flag".into() }],
        version: "0",
        traces: None,
        sources: Some(Arc::new(TakenElsewhere)),
        schedules: Some(no_schedules()),
        depths: Arc::default(),
        clock: Arc::new(SystemClock),
        registry: prometheus::Registry::new(),
        stop: CancellationToken::new(),
    }
}

impl World {
    async fn new(access: Access) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let parts = parts(&folder, 3).await;
        Self::with(folder, parts, access).await
    }

    async fn with(folder: tempfile::TempDir, parts: Parts, access: Access) -> Self {
        galerna_tls::install_default_provider();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let app = router(parts.clone(), access).unwrap();
        tokio::spawn(async move { axum::serve(listener, app).await });
        let client = Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .timeout(Duration::from_secs(60))
            .build()
            .unwrap();
        Self { url, parts, client, _folder: folder }
    }

    async fn open() -> Self {
        Self::new(Access::default()).await
    }

    async fn guarded() -> Self {
        let access = Access {
            viewer_token: Some(VIEWER.to_owned()),
            operator_token: Some(OPERATOR.to_owned()),
            metrics_token: Some(METRICS.to_owned()),
        };
        Self::new(access).await
    }

    fn get(&self, path: &str) -> RequestBuilder {
        self.client.get(format!("{}{path}", self.url))
    }

    fn post(&self, path: &str) -> RequestBuilder {
        self.client.post(format!("{}{path}", self.url))
    }

    fn form(&self, path: &str, fields: &[(&str, &str)]) -> RequestBuilder {
        let body = form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
        self.post(path).header("content-type", "application/x-www-form-urlencoded").body(body)
    }

    fn call(&self, path: &str, body: &Value) -> RequestBuilder {
        self.post(path).json(body)
    }

    async fn text(&self, path: &str) -> String {
        let answer = self.get(path).send().await.unwrap();
        assert_eq!(answer.status(), 200, "{path}");
        answer.text().await.unwrap()
    }

    async fn login(&self, token: &str) -> Response {
        self.form("/login", &[("token", token), ("name", "Amaia"), ("next", "/queues")]).send().await.unwrap()
    }

    async fn state(&self, of: &str) -> String {
        self.parts.dispatcher.queue(&queue(of)).await.unwrap().state
    }

    async fn audit(&self) -> Vec<galerna_storage::AuditEntry> {
        self.parts.store.audit.list(None, 0, 100).await.unwrap()
    }

    async fn bury(&self, n: usize) {
        let letter = |i: usize| NewDeadLetter {
            message: Message {
                body: format!(r#"{{"did":"{SCRIPT}","n":{i}}}"#).into(),
                content_type: "application/json".into(),
                id: format!("m{i}"),
            },
            failure: Failure { reason: format!("values[0].p: {SCRIPT}"), component: "validate".into() },
            replays: 0,
        };
        self.parts.broker.dead_letter(&queue("D00001"), (0..n).map(letter).collect()).await.unwrap();
    }

    async fn dead(&self) -> usize {
        self.parts.broker.dead_letters(&queue("D00001"), 0, 100).await.unwrap().len()
    }
}

/// The CSRF token of a page's forms.
fn csrf(page: &str) -> String {
    let (_, rest) = page.split_once(r#"name="csrf" value=""#).expect("a form");
    rest.split('"').next().unwrap().to_owned()
}

fn cookie(answer: &Response) -> String {
    let header = answer.headers()["set-cookie"].to_str().unwrap();
    header.split(';').next().unwrap().to_owned()
}

const PAGES: [&str; 22] = [
    "/",
    "/topology",
    "/queues",
    "/queues?state=idle&search=d0&sort=-ready&page=1&limit=25",
    "/queues/D00001",
    "/sources",
    "/sources/s1",
    "/dead-letters",
    "/dead-letters/D00001",
    "/alerts",
    "/rules",
    "/rules/edit",
    "/endpoints",
    "/endpoints/edit",
    "/deliveries",
    "/silences",
    "/schedules",
    "/schedules/edit",
    "/schedules/edit?check=true&kind=cron&expression=%3Cscript%3E",
    "/trace/m1",
    "/audit",
    "/about",
];

async fn some_readings(world: &World) {
    let (account, source) = (AccountId::new("acme").unwrap(), SourceId::new("s1").unwrap());
    let known = Source { id: source.clone(), account: account.clone(), token_hash: "h".into(), active: true };
    world.parts.store.sources.put(&[known]).await.unwrap();
    let reading = StoredReading {
        account,
        source,
        device: SCRIPT.to_owned(),
        ts: Timestamp(1_483_228_800_000),
        sqn: 1,
        values: vec![Measurement { p: ParameterCode(401), v: 4900.0 }],
        flags: Vec::new(),
        received: Timestamp(1_483_228_800_000),
    };
    world.parts.store.readings.store(&[reading]).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn every_page_loads_has_nothing_inline_and_shows_scripts_as_text() {
    let world = World::open().await;
    some_readings(&world).await;
    world.bury(2).await;
    for path in PAGES {
        let answer = world.get(path).send().await.unwrap();
        assert_eq!(answer.status(), 200, "{path}");
        let policy = answer.headers()["content-security-policy"].to_str().unwrap().to_owned();
        assert!(policy.starts_with("default-src 'none'; style-src 'self'; script-src 'self';"), "{policy}");
        assert_eq!(answer.headers()["x-content-type-options"], "nosniff");
        assert_eq!(answer.headers()["referrer-policy"], "same-origin");
        let page = answer.text().await.unwrap();
        assert!(page.contains("</html>"), "{path}");
        assert!(!page.contains("<script>"), "{path}");
        for inline in [" style=", " onclick=", "javascript:"] {
            assert!(!page.contains(inline), "{path} has `{inline}`");
        }
    }
    for path in ["/sources/s1", "/dead-letters/D00001"] {
        assert!(world.text(path).await.contains("&lt;script&gt;alert(1)&lt;/script&gt;"), "{path}");
    }
    for asset in ["/assets/page.css", "/assets/page.js", "/assets/icon.svg"] {
        assert!(!world.text(asset).await.is_empty());
    }
    for missing in
        ["/nothing", "/assets/nothing", "/queues/Nobody", "/rules/edit?id=nobody", "/sources/nobody"]
    {
        assert_eq!(world.get(missing).send().await.unwrap().status(), 404, "{missing}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_tokens_only_loopback_names_are_served() {
    let world = World::open().await;
    for (host, status) in [
        ("localhost", 200),
        ("127.0.0.1:80", 200),
        ("[::1]:7", 200),
        ("evil.example", 403),
        ("127.0.0.1.evil.example", 403),
    ] {
        let answer = world.get("/").header("host", host).send().await.unwrap();
        assert_eq!(answer.status(), status, "{host}");
    }
    let page = world.text("/").await;
    assert!(page.contains("No login"), "{page}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_gets_in_without_a_token() {
    let world = World::guarded().await;
    for path in PAGES {
        let answer = world.get(path).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::SEE_OTHER, "{path}");
        assert!(answer.headers()["location"].to_str().unwrap().starts_with("/login?next="));
    }
    assert_eq!(world.get("/events").send().await.unwrap().status(), 401);
    for token in ["", "Bearer wrong", "Basic abc"] {
        let call =
            world.call("/api/queues/pause", &json!({"queue": "D00001"})).header("authorization", token);
        assert_eq!(call.send().await.unwrap().status(), 401, "{token}");
    }
    assert_eq!(world.state("D00001").await, "idle");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_viewer_looks_but_does_not_act() {
    let world = World::guarded().await;
    let answer = world.login(VIEWER).await;
    assert_eq!(
        (answer.status(), &answer.headers()["location"]),
        (StatusCode::SEE_OTHER, &"/queues".parse().unwrap())
    );
    let cookie = cookie(&answer);
    let page = world.get("/queues/D00001").header("cookie", &cookie).send().await.unwrap();
    assert_eq!(page.status(), 200);
    let page = page.text().await.unwrap();
    assert!(page.contains("viewer · Amaia") && page.contains("disabled"), "{page}");
    let token = csrf(&page);
    let paused =
        world.form("/queues/pause", &[("csrf", &token), ("queue", "D00001")]).header("cookie", &cookie);
    assert_eq!(paused.send().await.unwrap().status(), 403);
    let call = world.call("/api/queues/pause", &json!({"queue": "D00001"})).bearer_auth(VIEWER);
    let answer = call.send().await.unwrap();
    assert_eq!(answer.status(), 403);
    assert_eq!(answer.json::<Value>().await.unwrap()["error"]["code"], "forbidden");
    assert_eq!(world.state("D00001").await, "idle");
    assert_eq!(world.audit().await, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_is_a_cookie_that_is_not_the_token_and_ends_at_logout() {
    let world = World::guarded().await;
    let answer = world.login(OPERATOR).await;
    let header = answer.headers()["set-cookie"].to_str().unwrap().to_owned();
    for part in ["HttpOnly", "SameSite=Strict", "Path=/"] {
        assert!(header.contains(part), "{header}");
    }
    assert!(!header.contains("Secure") && !header.contains(OPERATOR), "{header}");
    let secure = world
        .form("/login", &[("token", OPERATOR)])
        .header("x-forwarded-proto", "https")
        .send()
        .await
        .unwrap();
    assert!(secure.headers()["set-cookie"].to_str().unwrap().ends_with("; Secure"));

    let session = cookie(&answer);
    let page = world.get("/").header("cookie", &session).send().await.unwrap().text().await.unwrap();
    assert!(page.contains("operator · Amaia"), "{page}");
    let out =
        world.form("/logout", &[("csrf", &csrf(&page))]).header("cookie", &session).send().await.unwrap();
    assert_eq!(out.status(), StatusCode::SEE_OTHER);
    assert_eq!(
        world.get("/").header("cookie", &session).send().await.unwrap().status(),
        StatusCode::SEE_OTHER
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_login_ends_the_older_session_of_that_browser_and_of_no_other() {
    let world = World::guarded().await;
    let (older, other) = (cookie(&world.login(OPERATOR).await), cookie(&world.login(OPERATOR).await));
    let again = world.form("/login", &[("token", VIEWER), ("next", "/\t/evil.example")]);
    let again = again.header("cookie", &older).send().await.unwrap();
    assert_eq!(again.headers()["location"], "/");
    let newer = cookie(&again);
    for (session, status) in
        [(&older, StatusCode::SEE_OTHER), (&other, StatusCode::OK), (&newer, StatusCode::OK)]
    {
        assert_eq!(
            world.get("/").header("cookie", session).send().await.unwrap().status(),
            status,
            "{session}"
        );
    }
    // A token that is wrong ends nothing.
    let wrong = world.form("/login", &[("token", "wrong")]).header("cookie", &other).send().await.unwrap();
    assert_eq!(wrong.status(), 401);
    assert_eq!(world.get("/").header("cookie", &other).send().await.unwrap().status(), StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_tokens_are_soon_refused_unheard_and_a_right_one_passes_all_the_same() {
    let world = World::guarded().await;
    for _ in 0..10 {
        assert_eq!(world.login("wrong").await.status(), 401);
    }
    assert_eq!(world.login("wrong").await.status(), 429);
    // Somebody else behind the same address may have tried them.
    assert_eq!(world.login(OPERATOR).await.status(), StatusCode::SEE_OTHER);
    assert_eq!(world.get("/").bearer_auth(VIEWER).send().await.unwrap().status(), StatusCode::OK);
    // And it forgives nothing.
    assert_eq!(world.login("wrong").await.status(), 429);
    for next in ["//evil.example", "https://evil.example", "/\\evil"] {
        assert_eq!(super::access::local_path(next), "/");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_form_from_elsewhere_does_nothing() {
    let world = World::guarded().await;
    let session = cookie(&world.login(OPERATOR).await);
    let other = cookie(&world.login(OPERATOR).await);
    let page = |of: String| async move { of };
    let mine = world.get("/queues").header("cookie", &session).send().await.unwrap().text().await.unwrap();
    let foreign = world.get("/queues").header("cookie", &other).send().await.unwrap().text().await.unwrap();
    let (mine, foreign) = (csrf(&page(mine).await), csrf(&page(foreign).await));
    assert_ne!(mine, foreign);
    let pause = |token: &str| {
        world.form("/queues/pause", &[("csrf", token), ("queue", "D00001")]).header("cookie", &session)
    };
    for (what, request, status) in [
        ("no token", pause(""), 403),
        ("another session's token", pause(&foreign), 403),
        ("another origin", pause(&mine).header("origin", "https://evil.example"), 403),
        ("a hidden origin", pause(&mine).header("origin", "null"), 403),
        ("another site", pause(&mine).header("sec-fetch-site", "cross-site"), 403),
        ("a sister site", pause(&mine).header("sec-fetch-site", "same-site"), 403),
    ] {
        assert_eq!(request.send().await.unwrap().status(), status, "{what}");
        assert_eq!(world.state("D00001").await, "idle", "{what}");
    }
    let call = || world.call("/api/queues/pause", &json!({"queue": "D00001"})).header("cookie", &session);
    assert_eq!(call().send().await.unwrap().status(), 403);
    let plain = world.post("/api/queues/pause").body(r#"{"queue":"D00001"}"#).bearer_auth(OPERATOR);
    assert_eq!(plain.header("content-type", "text/plain").send().await.unwrap().status(), 422);
    assert_eq!(world.state("D00001").await, "idle");

    let well = pause(&mine)
        .header("origin", &world.url)
        .header("sec-fetch-site", "same-origin")
        .send()
        .await
        .unwrap();
    assert_eq!(well.status(), StatusCode::SEE_OTHER);
    assert_eq!(world.state("D00001").await, "pause");
    assert_eq!(call().header("x-csrf-token", &mine).send().await.unwrap().status(), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_is_paused_by_form_and_by_call_and_both_are_written_down() {
    let world = World::guarded().await;
    let session = cookie(&world.login(OPERATOR).await);
    let page =
        world.get("/queues/D00001").header("cookie", &session).send().await.unwrap().text().await.unwrap();
    let fields = [
        ("csrf", &*csrf(&page)),
        ("queue", "D00001"),
        ("reason", "meter exchange"),
        ("back", "/queues/D00001"),
    ];
    let answer = world.form("/queues/pause", &fields).header("cookie", &session).send().await.unwrap();
    let location = answer.headers()["location"].to_str().unwrap().to_owned();
    assert!(location.starts_with("/queues/D00001?told="), "{location}");
    let page = world.get(&location).header("cookie", &session).send().await.unwrap().text().await.unwrap();
    assert!(page.contains("queue D00001 is paused") && page.contains("meter exchange"), "{page}");

    let call =
        |path: &str, body: Value| world.call(path, &body).bearer_auth(OPERATOR).header("x-actor", "cli/Iker");
    let answer =
        call("/api/queues/unpause", json!({"queue": "D00001", "reason": "done"})).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    assert!(answer.json::<Value>().await.unwrap()["done"].as_str().unwrap().contains("no longer paused"));
    for (path, body, status, code) in [
        ("/api/queues/pause", json!({"queue": "Nobody"}), 404, "unknown"),
        ("/api/queues/pause", json!({"queue": "a b"}), 422, "invalid"),
        ("/api/queues/pause", json!({}), 422, "invalid"),
        ("/api/dispatcher/strategy", json!({"strategy": "best"}), 422, "invalid"),
        ("/api/dead-letters/discard", json!({"queue": "D00001"}), 422, "invalid"),
        ("/api/silences/create", json!({"reason": "x"}), 422, "invalid"),
        ("/api/deliveries/resend", json!({"id": "x"}), 404, "unknown"),
        ("/api/endpoints/test", json!({"id": "x"}), 404, "unknown"),
        ("/api/rules/delete", json!({"id": "x"}), 404, "unknown"),
    ] {
        let answer = call(path, body).send().await.unwrap();
        assert_eq!(answer.status(), status, "{path}");
        assert_eq!(answer.json::<Value>().await.unwrap()["error"]["code"], code, "{path}");
    }
    let audit = world.audit().await;
    let of = |action: &str| audit.iter().rev().find(|e| e.action == action).unwrap();
    let paused = of("queue.pause");
    assert_eq!(
        (
            paused.who.as_str(),
            paused.role.as_str(),
            paused.target.as_str(),
            paused.why.as_deref(),
            paused.done
        ),
        ("Amaia", "operator", "D00001", Some("meter exchange"), true)
    );
    assert_eq!(
        (of("queue.unpause").who.as_str(), of("queue.unpause").why.as_deref()),
        ("cli/Iker", Some("done"))
    );
    assert!(!of("rule.delete").done);
    let page = world
        .get("/audit?search=METER")
        .header("cookie", &session)
        .send()
        .await
        .unwrap()
        .text()
        .await
        .unwrap();
    assert!(page.contains("queue.pause") && !page.contains("queue.unpause"), "{page}");
}

#[tokio::test(flavor = "multi_thread")]
async fn discarding_asks_first_without_script() {
    let world = World::open().await;
    world.bury(3).await;
    let page = world.text("/dead-letters/D00001").await;
    let token = csrf(&page);
    let discard = |more: &[(&'static str, &'static str)]| {
        let mut fields = vec![("csrf", token.as_str()), ("queue", "D00001"), ("all", "true")];
        fields.extend_from_slice(more);
        world.form("/dead-letters/discard", &fields)
    };
    let asked = discard(&[]).send().await.unwrap();
    assert_eq!(asked.status(), 200);
    let asked = asked.text().await.unwrap();
    assert!(
        asked.contains("Discard all dead letters of D00001?") && asked.contains(r#"name="confirmed""#),
        "{asked}"
    );
    assert_eq!(world.dead().await, 3);
    let done = discard(&[("confirmed", "yes"), ("reason", "test data")]).send().await.unwrap();
    assert_eq!(done.status(), StatusCode::SEE_OTHER);
    assert_eq!(world.dead().await, 0);
    let entry = &world.audit().await[0];
    assert_eq!((entry.action.as_str(), entry.why.as_deref()), ("dead_letters.discard", Some("test data")));

    world.bury(2).await;
    let id = world.parts.broker.dead_letters(&queue("D00001"), 0, 1).await.unwrap()[0].id.clone();
    let fields = [("csrf", token.as_str()), ("queue", "D00001"), ("ids[]", &id)];
    assert_eq!(
        world.form("/dead-letters/replay", &fields).send().await.unwrap().status(),
        StatusCode::SEE_OTHER
    );
    assert_eq!(world.dead().await, 1);
    assert_eq!(world.parts.broker.depth(&queue("D00001")).await.unwrap().ready, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn endpoints_rules_and_silences_are_made_tried_and_deleted() {
    let world = World::open().await;
    let call = |path: &'static str, body: Value| {
        let request = world.call(path, &body);
        async move {
            let answer = request.send().await.unwrap();
            (answer.status().as_u16(), answer.json::<Value>().await.unwrap())
        }
    };
    let hook = json!({"id": "hook", "name": "Hook", "kind": "webhook", "url": "https://example.org/x?k=v",
        "headers": {"authorization": "Bearer secret-of-mine"}, "reason": "first"});
    assert_eq!(call("/api/endpoints/save", hook).await.0, 200);
    let page = world.text("/endpoints/edit?id=hook").await;
    assert!(page.contains("authorization: ***") && !page.contains("secret-of-mine"), "{page}");
    // Saved again as shown: what is hidden stays.
    let shown = json!({"id": "hook", "name": "Hook 2", "kind": "webhook", "url": "https://example.org/y",
        "headers": {"authorization": "***"}});
    assert_eq!(call("/api/endpoints/save", shown).await.0, 200);
    let stored = world.parts.store.notifications.endpoint("hook").await.unwrap().unwrap();
    assert!(format!("{stored:?}").contains("secret-of-mine") && stored.name == "Hook 2");
    let (status, answer) =
        call("/api/endpoints/save", json!({"id": "bad", "name": "b", "kind": "webhook", "url": "nowhere"}))
            .await;
    assert_eq!(status, 422);
    assert!(answer["error"]["message"].as_str().unwrap().contains("url"), "{answer}");

    let rule = |limit: f64, clear: f64| {
        json!({"id": "r1", "name": "Too much", "account": null, "devices": "*", "severity": "warning",
        "endpoints": ["hook"], "cooldown_ms": 0, "enabled": true,
        "condition": {"kind": "threshold", "parameter": 401, "comparison": "above", "limit": limit, "clear": clear, "for_ms": 0}})
    };
    let (status, answer) = call("/api/rules/save", rule(10.0, 20.0)).await;
    assert_eq!(status, 422);
    assert!(answer["error"]["message"].as_str().unwrap().contains("clear"), "{answer}");
    assert_eq!(call("/api/rules/save", rule(20.0, 10.0)).await.0, 200);
    assert!(world.text("/rules").await.contains("401 active power above 20 W, clears at 10"));
    let (status, answer) = call("/api/rules/test", json!({"id": "r1"})).await;
    assert_eq!((status, answer["deliveries"].as_array().unwrap().len()), (200, 1), "{answer}");
    let page = world.text("/deliveries?endpoint=hook").await;
    assert!(page.contains("pending") && page.contains("test"), "{page}");

    let (status, answer) =
        call("/api/silences/create", json!({"device": "Panther_*", "minutes": 5, "reason": "works"})).await;
    assert_eq!(status, 200);
    assert!(world.text("/silences").await.contains("Panther_*"));
    assert_eq!(call("/api/silences/end", json!({"id": answer["id"]})).await.0, 200);
    for path in ["/api/rules/delete", "/api/endpoints/delete"] {
        let id = if path.contains("rules") { "r1" } else { "hook" };
        assert_eq!(call(path, json!({"id": id})).await.0, 200);
    }
    assert!(world.text("/rules").await.contains("There is no rule"));
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_queues_are_paged_searched_and_sorted() {
    let folder = tempfile::tempdir().unwrap();
    let parts = parts(&folder, 10_000).await;
    let world = World::with(folder, parts, Access::default()).await;
    let rows = |page: &str| page.matches(r#"<th scope="row"><a href="/queues/D"#).count();
    let first = world.text("/queues").await;
    assert_eq!(rows(&first), 50);
    assert!(first.contains("10\u{202f}000") && first.contains("page 1 of 200"), "{first}");
    let last = world.text("/queues?page=200&sort=queue").await;
    assert!(rows(&last) == 50 && last.contains("D09999"), "{last}");
    let found = world.text("/queues?search=d0777&limit=25").await;
    assert!(rows(&found) == 10 && found.contains("D07770") && !found.contains("D07780"), "{found}");
    let wrong = world.text("/queues?sort=nonsense").await;
    assert!(wrong.contains("`sort` is `nonsense`"), "{wrong}");
}

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
