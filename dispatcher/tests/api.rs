//! The REST API to the letter, over a real socket.

mod stage;

use std::time::Duration;

use galerna_dispatcher::{
    AdminError, ClientOptions, Dispatcher, DispatcherClient, HeldLease, LeaseError, Leases, NextRequest,
    Release, ServeError, ServiceOptions, StatusQuery, StrategyName, serve,
};
use galerna_model::QueueName;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use stage::{Stage, queue, until};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// A service on a free port.
struct Service {
    base: String,
    http: reqwest::Client,
    stop: Option<oneshot::Sender<()>>,
    served: JoinHandle<Result<(), ServeError>>,
}

impl Service {
    async fn of(dispatcher: &Dispatcher, token: Option<&str>) -> Self {
        galerna_tls::install_default_provider();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let base = format!("http://{}", listener.local_addr().expect("an address"));
        let (stop, stopped) = oneshot::channel();
        let options = ServiceOptions { token: token.map(str::to_owned) };
        let served = tokio::spawn(serve(listener, dispatcher.clone(), options, async move {
            drop(stopped.await);
        }));
        Self { base, http: reqwest::Client::new(), stop: Some(stop), served }
    }

    async fn call(&self, method: Method, path: &str, body: impl Into<reqwest::Body>) -> (StatusCode, Value) {
        let answer = self
            .http
            .request(method, format!("{}{path}", self.base))
            .body(body)
            .send()
            .await
            .expect("an answer");
        let status = answer.status();
        let text = answer.text().await.expect("a body");
        (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
    }

    async fn post(&self, path: &str, body: Value) -> (StatusCode, Value) {
        let text = if body.is_null() { String::new() } else { body.to_string() };
        self.call(Method::POST, path, text).await
    }

    async fn get(&self, path: &str) -> (StatusCode, Value) {
        self.call(Method::GET, path, "").await
    }

    fn client(&self) -> DispatcherClient {
        DispatcherClient::new(&self.base, ClientOptions::default()).expect("a client")
    }
}

async fn staged(queues: &[(&str, u64)]) -> (Stage, Dispatcher, Service) {
    let stage = Stage::embedded().await;
    stage.queues(queues).await;
    let d = stage.dispatcher().await;
    let service = Service::of(&d, None).await;
    (stage, d, service)
}

#[tokio::test]
async fn a_lease_goes_through_its_life_over_http() {
    let (_stage, _d, s) = staged(&[("D0000591", 5)]).await;
    let (status, body) = s.post("/queue/next", json!({"consumer": "w1", "wait_ms": 0})).await;
    assert_eq!(status, 200);
    assert_eq!(body, json!({"queue": "D0000591", "epoch": 1, "expires_in_ms": 60000, "strategy": "lru"}));
    assert_eq!(s.post("/queue/next", Value::Null).await.0, 204, "an empty body will do");

    let (status, body) = s.post("/queue/D0000591/renew", json!({"epoch": 1})).await;
    assert_eq!((status.as_u16(), body), (200, json!({"expires_in_ms": 60000, "revoked": false})));
    let (_, body) = s.get("/queue/D0000591").await;
    assert_eq!(
        (&body["state"], &body["holder"], &body["epoch"]),
        (&json!("worker"), &json!("w1"), &json!(1))
    );
    assert!(body["expires_in_ms"].as_u64().is_some_and(|ms| ms > 50_000 && ms <= 60_000));
    assert_eq!((&body["ready"], &body["re_leases"]), (&json!(5), &json!(0)));
    assert!(body["last_delivered"].is_string());

    let (status, body) = s.post("/queue/D0000591/pause", json!({"reason": "meter swap"})).await;
    assert_eq!(
        (status.as_u16(), &body["state"], &body["reason"]),
        (200, &json!("pause"), &json!("meter swap"))
    );
    assert_eq!(s.post("/queue/D0000591/pause", Value::Null).await.0, 200, "idempotent, without a body");
    let (_, body) = s.post("/queue/D0000591/renew", json!({"epoch": 1})).await;
    assert_eq!(body["revoked"], json!(true));
    assert_eq!(s.post("/queue/D0000591/release", json!({"epoch": 1, "empty": false})).await.0, 200);
    assert_eq!(s.post("/queue/D0000591/unpause", Value::Null).await.0, 200);
    assert_eq!(s.post("/queue/D0000591/unpause", Value::Null).await.0, 200);

    let again = json!({"consumer": "w1", "count": 2});
    let (status, body) = s.post("/queue/next", again).await;
    assert_eq!((status.as_u16(), &body["leases"][0]["epoch"]), (200, &json!(2)));
    let release = json!({"queue": "D0000591", "epoch": 2, "empty": true});
    assert_eq!(s.post("/queue/next", json!({"release": release})).await.0, 204);
    let (_, body) = s.get("/queue/D0000591").await;
    assert_eq!(body["state"], json!("empty"));

    let (status, body) = s.post("/queue/hint", json!({"queues": ["D0000591", "D9"]})).await;
    assert_eq!((status.as_u16(), body), (200, json!({"known": 1})));
    assert_eq!(s.post("/queue/next", Value::Null).await.1["epoch"], json!(3));
}

#[tokio::test]
async fn stopping_status_and_strategy_over_http() {
    let (_stage, _d, s) = staged(&[("D1", 5), ("D2", 0)]).await;
    assert_eq!(s.post("/stop", Value::Null).await, (StatusCode::OK, json!({"running": false})));
    let (status, body) = s.post("/queue/next", Value::Null).await;
    assert_eq!((status.as_u16(), &body["error"]["code"]), (503, &json!("stopped")));
    let (_, page) = s.get("/queue/status").await;
    assert_eq!(page["dispatcher"]["running"], json!(false));
    assert_eq!(s.post("/start", Value::Null).await, (StatusCode::OK, json!({"running": true})));

    let (status, body) = s.call(Method::PUT, "/strategy", json!({"strategy": "fifo"}).to_string()).await;
    assert_eq!((status.as_u16(), body), (200, json!({"strategy": "fifo", "configured": "fifo"})));
    assert_eq!(s.get("/strategy").await.1["strategy"], json!("fifo"));

    let (status, page) = s.get("/queue/status?search=d1&sort=-ready&page=1&limit=10").await;
    assert_eq!((status.as_u16(), &page["total"]), (200, &json!(1)));
    assert_eq!(page["queues"][0]["queue"], json!("D1"));
    for key in ["running", "strategy", "configured", "maintainer"] {
        assert!(!page["dispatcher"][key].is_null(), "{key}");
    }
    for state in ["idle", "worker", "empty", "pause", "delete"] {
        assert!(page["counts"][state].is_u64(), "{state}");
    }
}

/// A path as the document has it.
fn template(path: &str) -> String {
    let path = path.split('?').next().unwrap_or_default();
    let parts: Vec<&str> = path.split('/').collect();
    match parts[..] {
        ["", "queue", "next" | "hint" | "status"] => path.to_owned(),
        ["", "queue", _] => "/queue/{id}".to_owned(),
        ["", "queue", _, call] => format!("/queue/{{id}}/{call}"),
        _ => path.to_owned(),
    }
}

#[tokio::test]
async fn wrong_requests_get_the_error_form_and_harm_nothing() {
    let (stage, _d, s) = staged(&[("D1", 5)]).await;
    let before = stage.record("D1").await;
    let (_, document) = s.get("/openapi.json").await;
    let deep = "[".repeat(100_000);
    let long = "x".repeat(2_000_000);
    let cases: Vec<(&str, &str, &str, u16, &str)> = vec![
        ("GET", "/nowhere", "", 404, "no_route"),
        ("POST", "/queue", "", 404, "no_route"),
        ("GET", "/queue/D9", "", 404, "unknown_queue"),
        ("POST", "/queue/D9/pause", "", 404, "unknown_queue"),
        ("POST", "/queue/D9/release", r#"{"epoch":1}"#, 404, "unknown_queue"),
        ("POST", "/queue/a%20b/release", r#"{"epoch":1}"#, 404, "unknown_queue"),
        ("POST", "/queue/%FF/pause", "", 400, "invalid_path"),
        ("GET", "/queue/next", "", 405, "method_not_allowed"),
        ("DELETE", "/queue/D1", "", 405, "method_not_allowed"),
        ("GET", "/stop", "", 405, "method_not_allowed"),
        ("POST", "/queue/D1/renew", r#"{"epoch":1}"#, 409, "stale_epoch"),
        ("POST", "/queue/D1/release", r#"{"epoch":18446744073709551615}"#, 409, "stale_epoch"),
        ("POST", "/queue/next", r#"{"consumer":"#, 400, "malformed_json"),
        ("POST", "/queue/next", "\u{feff}{}", 400, "malformed_json"),
        ("POST", "/queue/next", &deep, 422, "wrong_shape"),
        ("POST", "/queue/next", "[1]", 422, "wrong_shape"),
        ("POST", "/queue/next", r#"["w1",0,1]"#, 422, "wrong_shape"),
        ("POST", "/queue/D1/pause", "[]", 422, "wrong_shape"),
        ("POST", "/queue/D1/release", "[2,true]", 422, "wrong_shape"),
        ("POST", "/queue/next", r#"{"consumer":7}"#, 422, "wrong_shape"),
        ("POST", "/queue/next", r#"{"wait_ms":-1}"#, 422, "wrong_shape"),
        ("POST", "/queue/next", r#"{"wait_ms":1e99}"#, 422, "wrong_shape"),
        ("POST", "/queue/next", r#"{"wait_ms":NaN}"#, 400, "malformed_json"),
        ("POST", "/queue/next", r#"{"count":0}"#, 422, "wrong_shape"),
        ("POST", "/queue/next", r#"{"count":1001}"#, 422, "wrong_shape"),
        ("POST", "/queue/next", r#"{"wait":5}"#, 422, "wrong_shape"),
        ("POST", "/queue/next", r#"{"release":{"queue":"a b","epoch":1}}"#, 422, "wrong_shape"),
        ("POST", "/queue/next", r#"{"release":{"queue":"D1"}}"#, 422, "wrong_shape"),
        ("POST", "/queue/next", r#"{"release":7}"#, 422, "wrong_shape"),
        ("POST", "/queue/next", r#"{"release":[["D1",0,true]]}"#, 422, "wrong_shape"),
        ("POST", "/queue/next", r#"{"release":["D1",0,true]}"#, 422, "wrong_shape"),
        ("POST", "/queue/next", r#"{"release":[{"queue":"D1","epoch":0},["D1",0]]}"#, 422, "wrong_shape"),
        ("POST", "/queue/D1/renew", "", 422, "wrong_shape"),
        ("POST", "/queue/D1/release", r#"{"epoch":-1}"#, 422, "wrong_shape"),
        ("POST", "/queue/D1/release", r#"{"epoch":"1"}"#, 422, "wrong_shape"),
        ("POST", "/queue/hint", r#"{"queues":"D1"}"#, 422, "wrong_shape"),
        ("POST", "/queue/hint", &long, 413, "body_too_large"),
        ("PUT", "/strategy", r#"{"strategy":"random"}"#, 422, "wrong_shape"),
        ("GET", "/queue/status?state=busy", "", 422, "invalid_query"),
        ("GET", "/queue/status?sort=color", "", 422, "invalid_query"),
        ("GET", "/queue/status?page=0", "", 422, "invalid_query"),
        ("GET", "/queue/status?limit=many", "", 422, "invalid_query"),
        ("GET", "/queue/status?color=red", "", 422, "invalid_query"),
    ];
    for (method, path, body, status, code) in cases {
        let (got, answer) = s.call(method.parse().expect("a method"), path, body.to_owned()).await;
        let shown: String = body.chars().take(60).collect();
        assert_eq!(got.as_u16(), status, "{method} {path} {shown}: {answer}");
        assert_eq!(answer["error"]["code"], json!(code), "{method} {path} {shown}");
        if !matches!(code, "no_route" | "method_not_allowed") {
            let documented = &document["paths"][template(path)][method.to_lowercase()]["responses"];
            assert!(documented[status.to_string()].is_object(), "{method} {path} {status}: {documented}");
        }
        let message = answer["error"]["message"].as_str().unwrap_or_default();
        assert!(!message.is_empty(), "{method} {path} {shown}");
        if code == "malformed_json" {
            assert!(message.contains("line 1 column"), "{message}");
        }
    }
    assert_eq!(stage.record("D1").await, before);
}

#[tokio::test]
async fn health_metrics_and_the_document_are_served() {
    let (_stage, _d, s) = staged(&[("D1", 5)]).await;
    s.post("/queue/next", Value::Null).await;
    assert_eq!(s.get("/healthz").await.0, 200);
    assert_eq!(s.get("/readyz").await.0, 200);
    let (_, Value::String(metrics)) = s.get("/metrics").await else { panic!("metrics are text") };
    for line in [
        "galerna_dispatcher_leases_total 1",
        r#"galerna_dispatcher_queues{state="worker"} 1"#,
        r#"galerna_dispatcher_transitions_total{event="lease"} 1"#,
        "galerna_dispatcher_next_seconds_count 1",
    ] {
        assert!(metrics.contains(line), "{line} in {metrics}");
    }
    let (_, document) = s.get("/openapi.json").await;
    assert!(document["paths"]["/queue/{id}/release"]["post"].is_object());
    for (path, methods) in document["paths"].as_object().expect("paths") {
        for (method, operation) in methods.as_object().expect("methods") {
            let open = matches!(path.as_str(), "/healthz" | "/readyz");
            assert_eq!(operation["responses"]["401"].is_null(), open, "{method} {path}");
        }
    }
}

#[tokio::test]
async fn a_token_is_demanded_where_one_is_set_and_needed_off_loopback() {
    let stage = Stage::embedded().await;
    let d = stage.dispatcher().await;
    let s = Service::of(&d, Some("secret")).await;
    for (token, status) in [(None, 401), (Some("wrong"), 401), (Some("secret"), 200)] {
        let mut request = s.http.get(format!("{}/queue/status", s.base));
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        let answer = request.send().await.expect("an answer");
        assert_eq!(answer.status(), status, "{token:?}");
        let body: Value = answer.json().await.expect("JSON");
        assert_eq!(body["error"]["code"] == json!("unauthorized"), status == 401);
    }
    for (given, status) in [
        ("bearer secret", 200),
        ("BEARER  secret", 200),
        ("Basic secret", 401),
        ("secret", 401),
        ("Bearer", 401),
        ("Bearersecret", 401),
        ("bearer Secret", 401),
    ] {
        let request = s.http.get(format!("{}/queue/status", s.base)).header("authorization", given);
        assert_eq!(request.send().await.expect("an answer").status(), status, "{given}");
    }
    assert_eq!(s.get("/healthz").await.0, 200);
    let options = ClientOptions { token: Some("secret".into()), ..ClientOptions::default() };
    let client = DispatcherClient::new(&s.base, options).expect("a client");
    assert_eq!(client.status(&StatusQuery::default()).await.expect("a page").total, 0);

    let open = TcpListener::bind("0.0.0.0:0").await.expect("a port");
    let served = serve(open, d, ServiceOptions::default(), std::future::pending()).await;
    assert!(matches!(served, Err(ServeError::TokenNeeded(_))));
}

#[tokio::test]
async fn the_client_speaks_for_every_route() {
    let (stage, _d, s) = staged(&[("D1", 5), ("D2", 5)]).await;
    let c = s.client();
    let asked = tokio::time::Instant::now();
    let request = NextRequest { consumer: "w1".into(), count: 1, ..NextRequest::default() };
    let lease = c.next(request.clone()).await.expect("next").remove(0);
    let mut held = HeldLease::new(lease.clone(), asked);
    held.renewed(c.renew(&lease.queue, lease.epoch).await.expect("renewed"), asked);
    assert!(!held.must_stop() && !held.revoked());
    let stale = c.renew(&lease.queue, 99).await;
    assert!(matches!(stale, Err(LeaseError::StaleEpoch { epoch: 99, .. })));
    let unknown: QueueName = queue("D9");
    assert!(matches!(c.renew(&unknown, 1).await, Err(LeaseError::UnknownQueue(_))));
    assert!(matches!(c.queue(&unknown).await, Err(AdminError::UnknownQueue(_))));
    let release = Release { queue: lease.queue.clone(), epoch: lease.epoch, empty: false };
    c.release(&release).await.expect("released");

    let leases = c.next(NextRequest { count: 5, ..request.clone() }).await.expect("next");
    assert_eq!(leases.len(), 2);
    let release =
        leases.into_iter().map(|l| Release { queue: l.queue, epoch: l.epoch, empty: true }).collect();
    let none = c.next(NextRequest { release, ..request.clone() }).await.expect("next");
    assert_eq!(none, [], "they were released as empty");
    assert_eq!(c.hint(&[queue("D1")]).await.expect("hinted"), 1);

    assert_eq!(c.pause(&queue("D1"), Some("why".into())).await.expect("paused").state, "pause");
    assert_eq!(c.unpause(&queue("D1")).await.expect("unpaused").state, "idle");
    c.set_strategy(StrategyName::Fair).await.expect("set");
    assert_eq!(c.strategy().await.expect("read"), (StrategyName::Fair, StrategyName::Fair));
    c.stop().await.expect("stopped");
    assert!(matches!(c.next(request).await, Err(LeaseError::Stopped)));
    c.start().await.expect("started");
    let page =
        c.status(&StatusQuery { search: Some("D2".into()), ..StatusQuery::default() }).await.expect("a page");
    assert_eq!((page.total, page.queues[0].queue.as_str()), (1, "D2"));
    assert_eq!(stage.record("D2").await.epoch, 1);
}

#[tokio::test]
async fn a_client_without_a_dispatcher_says_so_after_its_attempts() {
    let port =
        TcpListener::bind("127.0.0.1:0").await.expect("a port").local_addr().expect("an address").port();
    let options =
        ClientOptions { attempts: 3, backoff: Duration::from_millis(1), ..ClientOptions::default() };
    let c = DispatcherClient::new(&format!("http://127.0.0.1:{port}"), options).expect("a client");
    let unavailable = c.next(NextRequest::default()).await;
    assert!(matches!(unavailable, Err(LeaseError::Unavailable(_))), "{unavailable:?}");
    assert!(DispatcherClient::new("ftp://x", ClientOptions::default()).is_err());
}

/// A listener that takes connections and never answers, and one that refuses them.
async fn silent_and_refusing() -> (TcpListener, [String; 2]) {
    let silent = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let gone = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let addresses = [&silent, &gone].map(|l| format!("http://{}", l.local_addr().expect("an address")));
    (silent, addresses)
}

#[tokio::test]
async fn a_client_of_several_dispatchers_goes_on_with_one_that_answers() {
    let (_stage, _d, s) = staged(&[("D1", 5), ("D2", 5)]).await;
    let (_silent, [silent, refusing]) = silent_and_refusing().await;
    let options =
        ClientOptions { timeout: Duration::from_millis(500), attempts: 1, ..ClientOptions::default() };
    let client =
        DispatcherClient::new(&format!("{silent}, {refusing},{}", s.base), options).expect("a client");
    let other = client.clone();
    let request = NextRequest { consumer: "w1".into(), count: 1, ..NextRequest::default() };
    let lease = client.next(request).await.expect("the third is asked within the call").remove(0);
    assert_eq!(client.address().as_str(), format!("{}/", s.base));
    assert_eq!(other.address(), client.address(), "a clone need not find out by itself");
    other.renew(&lease.queue, lease.epoch).await.expect("renewed");
    assert!(client.is_ready().await);
    // When that one is gone, the others are asked again.
    drop(s.stop);
    s.served.await.expect("it does not panic").expect("it served");
    let unavailable = client.renew(&lease.queue, lease.epoch).await;
    assert!(matches!(unavailable, Err(LeaseError::Unavailable(_))), "{unavailable:?}");
    let wrong = DispatcherClient::new(&format!("{silent},ftp://x"), ClientOptions::default());
    assert!(wrong.expect_err("it is no http").to_string().contains("ftp://x"));
    assert!(DispatcherClient::new(" , ", ClientOptions::default()).is_err());
}

#[tokio::test]
async fn a_call_that_its_caller_gives_up_leaves_a_silent_dispatcher() {
    let (_stage, _d, s) = staged(&[("D1", 5)]).await;
    let (_silent, [silent, _]) = silent_and_refusing().await;
    let client =
        DispatcherClient::new(&format!("{silent},{}", s.base), ClientOptions::default()).expect("a client");
    // As a renewal is: it is given up by its caller no later than by the client.
    let given_up = tokio::time::timeout(Duration::from_millis(200), client.queue(&queue("D1"))).await;
    assert!(given_up.is_err());
    assert_eq!(client.queue(&queue("D1")).await.expect("the other answers").queue, "D1");
}

#[tokio::test]
async fn a_shutdown_sends_those_home_who_wait_and_answers_the_others() {
    let (_stage, d, mut s) = staged(&[]).await;
    let client = s.client();
    let waiting = tokio::spawn(async move {
        client.next(NextRequest { wait: Duration::from_secs(30), count: 1, ..NextRequest::default() }).await
    });
    until("the call waits", || async { d.metrics_text().contains("waiting_callers 1") }).await;
    drop(s.stop.take());
    assert_eq!(waiting.await.expect("joined").expect("an answer"), []);
    s.served.await.expect("joined").expect("served to the end");
    assert!(!d.is_ready());
}
