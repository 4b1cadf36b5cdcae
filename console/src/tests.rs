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

mod consumption;
mod operating;
mod schedules;
mod sign_in;
mod telling;

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
        consumption: Some(galerna_consumption::Calendar::of("Europe/Berlin").unwrap()),
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
        ("/api/silences/create", json!({"reason": "x", "until": i64::MAX - 1}), 422, "invalid"),
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
