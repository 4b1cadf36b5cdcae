//! A message is followed by its id: from the call over HTTP through the broker, the topology and the store to the delivery of
//! the alert that it raised.

mod system;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use axum::{Json, Router};
use galerna::model::{Account, Comparison, Condition, Rule, Severity};
use galerna::storage::{Endpoint, EndpointKind, Store};
use galerna_lock::Mutex;
use galerna_test_servers::{Mongo, RabbitMq};
use serde_json::{Value, json};
use system::{Service, errors, run, run_well, until};

const TOKEN: &str = "a-token-of-a-concentrator";
/// A reading that is too much for the rule, and one of a parameter that nobody knows.
const READINGS: &str = r#"[
    {"did":"12a","values":[{"p":401,"v":4900.0}],"sqn":1,"ts":"2015-04-21T23:15:00+00:00"},
    {"did":"12a","values":[{"p":60000,"v":1.0}],"sqn":2,"ts":"2015-04-21T23:15:00+00:00"}]"#;
/// Where a message comes along, in the order in which it does; stored, evaluated and refused it is at the same time.
const WAY: [(&str, &str); 9] = [
    ("frontend", "call received"),
    ("queues", "delivered from queue A1"),
    ("validate", "1 readings valid, 1 refused"),
    ("store", "1 readings stored"),
    ("reject", "1 recorded and put into the dead letters"),
    ("alert", "alert raised by rule power for 12a"),
    ("queues", "acked"),
    ("notifier", "queued: pending"),
    ("notifier", "delivered to endpoint log"),
];
/// Steps of [`WAY`] that come after others of it.
const AFTER: [(usize, usize); 8] = [(0, 1), (1, 2), (2, 3), (2, 4), (2, 5), (3, 6), (5, 7), (7, 8)];

/// The account `A1`, and the alert rule `power` that tells the endpoint `log`.
async fn prepare(store: &Store) {
    let account = Account {
        id: "A1".parse().unwrap(),
        name: "A1".to_owned(),
        queue: "A1".parse().unwrap(),
        active: true,
    };
    store.accounts.put(&[account]).await.unwrap();
    let rule = Rule {
        id: "power".to_owned(),
        name: "Too much power".to_owned(),
        account: None,
        devices: "*".to_owned(),
        condition: Condition::Threshold {
            parameter: galerna::model::ParameterCode(401),
            comparison: Comparison::Above,
            limit: 4000.0,
            clear: None,
            for_ms: 0,
        },
        severity: Severity::Warning,
        endpoints: vec!["log".to_owned()],
        cooldown_ms: 0,
        enabled: true,
    };
    store.rules.put(&rule).await.unwrap();
    let endpoint = Endpoint {
        id: "log".to_owned(),
        name: "The log".to_owned(),
        account: None,
        kind: EndpointKind::Log {},
        enabled: true,
        disabled_reason: None,
        group_ms: 0,
        cooldown_ms: 0,
    };
    store.notifications.put_endpoint(&endpoint).await.unwrap();
}

/// Posts the readings until they are taken, and returns the id of the call that was.
async fn posted(frontend: &str) -> String {
    galerna_tls::install_default_provider();
    let client = reqwest::Client::new();
    let url = format!("{frontend}/readings?source_key=S1&x-dexcell-source-token={TOKEN}");
    let id = Mutex::new(None);
    until("the readings are accepted", || async {
        let request = client.post(&url).header("content-type", "application/json").body(READINGS);
        let answer = request.send().await.unwrap();
        if answer.status() != StatusCode::ACCEPTED {
            return false;
        }
        *id.lock() = Some(answer.headers()["x-request-id"].to_str().unwrap().to_owned());
        true
    })
    .await;
    id.into_inner().unwrap()
}

fn steps(output: &str) -> Vec<(String, String)> {
    let told: Value = serde_json::from_str(output).unwrap();
    let text = |step: &Value, name: &str| step[name].as_str().unwrap().to_owned();
    told["steps"].as_array().unwrap().iter().map(|step| (text(step, "where"), text(step, "what"))).collect()
}

fn place_of((place, what): (&str, &str), steps: &[(String, String)]) -> Option<usize> {
    steps.iter().position(|step| step.0 == place && step.1.contains(what))
}

/// Follows a message with `galerna trace` until it has come all its way.
async fn followed(folder: &Path, settings: &[&str], id: &str) -> Vec<(String, String)> {
    let mut args = vec!["trace", id, "--json"];
    args.extend_from_slice(settings);
    let told = || {
        let output = run(folder, &args);
        // Exit code 1 says that nothing is known of it.
        let well = output.status.success();
        if well { steps(&String::from_utf8(output.stdout).unwrap()) } else { Vec::new() }
    };
    until("the message comes all its way", || async {
        let steps = told();
        let whole = WAY.iter().all(|step| place_of(*step, &steps).is_some());
        if !whole {
            eprintln!("so far: {steps:#?}");
        }
        whole
    })
    .await;
    let steps = told();
    for (before, after) in AFTER {
        let at = |step: usize| place_of(WAY[step], &steps).unwrap();
        assert!(at(before) < at(after), "{:?} before {:?}: {steps:#?}", WAY[before], WAY[after]);
    }
    steps
}

/// A collector: what was posted to it.
#[derive(Clone, Default)]
struct Collector {
    requests: Arc<Mutex<Vec<Value>>>,
    /// Answers 503 this often.
    unavailable: Arc<Mutex<usize>>,
}

impl Collector {
    async fn start(&self) -> String {
        let take = |State(this): State<Self>, headers: HeaderMap, Json(body): Json<Value>| async move {
            assert_eq!(headers["content-type"], "application/json");
            let mut unavailable = this.unavailable.lock();
            if *unavailable > 0 {
                *unavailable -= 1;
                return (StatusCode::SERVICE_UNAVAILABLE, Json(json!({})));
            }
            this.requests.lock().push(body);
            (StatusCode::OK, Json(json!({ "partialSuccess": {} })))
        };
        let app = Router::new().route("/v1/traces", post(take)).with_state(self.clone());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move { axum::serve(listener, app).await });
        format!("http://{address}")
    }

    fn spans(&self) -> Vec<Value> {
        let requests = self.requests.lock();
        let of = |request: &Value| request["resourceSpans"][0]["scopeSpans"][0]["spans"].clone();
        requests.iter().flat_map(|request| of(request).as_array().unwrap().clone()).collect()
    }
}

fn is_hex(value: &Value, digits: usize) -> bool {
    value.as_str().is_some_and(|text| text.len() == digits && text.bytes().all(|b| b.is_ascii_hexdigit()))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_is_followed_to_the_delivery_of_its_alert_and_its_way_sent_to_a_collector() {
    let folder = tempfile::tempdir().unwrap();
    let collector = Collector::default();
    *collector.unavailable.lock() = 1;
    let otlp = format!("trace.otlp={}", collector.start().await);
    run_well(folder.path(), &["sources", "add", "S1", "--account", "A1", "--token", TOKEN]);
    let url = format!("embedded:{}", folder.path().join(".galerna/store.db").display());
    let store = galerna::storage::open(&url).await.unwrap();
    prepare(&store).await;
    drop(store);

    let mut args = vec!["up", "--listen", "127.0.0.1:0", "--set", &otlp];
    let others =
        ["frontend.listen", "page.listen", "worker.listen"].map(|name| format!("{name}=127.0.0.1:0"));
    args.extend(others.iter().flat_map(|setting| ["--set", setting]));
    let mut service = Service::start(folder.path(), &args);
    let api = service.api().await;
    let address = |entry: Value| format!("http://{}", entry["fields"]["address"].as_str().unwrap());
    let page = address(service.said("the page listens").await);
    let frontend = address(service.said("frontend listens").await);
    let call = posted(&frontend).await;
    let id = format!("{call}.0");
    let settings = ["--dispatcher", &api];
    followed(folder.path(), &settings, &call).await;
    let way = followed(folder.path(), &settings, &id).await;

    // For people, and on the page.
    let shown = run_well(folder.path(), &["trace", &id, "--dispatcher", &api]);
    let html = reqwest::get(format!("{page}/trace/{id}")).await.unwrap().text().await.unwrap();
    for text in [&shown, &html] {
        for (place, what) in WAY {
            assert!(text.contains(place) && text.contains(what), "{what} is not in {text}");
        }
    }
    let unknown = run(folder.path(), &["trace", "nobody/knows it", "--dispatcher", &api]);
    assert_eq!(unknown.status.code(), Some(1));
    assert!(errors(&unknown).contains("nothing is known of `nobody/knows it`"), "{}", errors(&unknown));
    let (status, answer) = system::call("GET", &format!("{api}/trace/nobody"), None).await;
    assert_eq!((status, &answer["error"]["code"]), (404, &json!("unknown_message")));

    // The end sends what is left. The collector was unavailable at first, and nothing is lost by that.
    assert!(service.stop().await.success(), "{}", service.log());
    let spans = collector.spans();
    let resource = collector.requests.lock()[0]["resourceSpans"][0]["resource"].clone();
    let service_name = json!({ "key": "service.name", "value": { "stringValue": "galerna" } });
    assert!(resource["attributes"].as_array().unwrap().contains(&service_name), "{resource}");
    let ids: BTreeSet<&str> = spans.iter().map(|span| span["spanId"].as_str().unwrap()).collect();
    let traces: BTreeSet<&str> = spans.iter().map(|span| span["traceId"].as_str().unwrap()).collect();
    assert_eq!((ids.len(), traces.len()), (spans.len(), 1), "{spans:#?}");
    for span in &spans {
        assert!(is_hex(&span["traceId"], 32) && is_hex(&span["spanId"], 16), "{span}");
        let nanos = |name: &str| span[name].as_str().unwrap().parse::<u64>().unwrap();
        assert!(nanos("startTimeUnixNano") <= nanos("endTimeUnixNano"), "{span}");
        assert!(span["name"].is_string() && (1..=5).contains(&span["kind"].as_u64().unwrap()), "{span}");
        // All but the call's own hang on another.
        match span["parentSpanId"].as_str() {
            Some(parent) => assert!(ids.contains(parent), "{span}"),
            None => assert_eq!(span["name"], "call"),
        }
    }
    let exported: BTreeSet<String> = spans
        .iter()
        .filter_map(|span| span["attributes"].as_array()?.iter().find(|a| a["key"] == "galerna.step"))
        .map(|attribute| attribute["value"]["stringValue"].as_str().unwrap().to_owned())
        .collect();
    for (_, what) in &way {
        assert!(exported.contains(what), "{what} is not among {exported:#?}");
    }

    // What was kept in memory is gone; what lasts has the id.
    let store = galerna::storage::open(&url).await.unwrap();
    let events = store.alert_states.events(None, 0, 10).await.unwrap();
    assert_eq!((events.len(), events[0].origin.as_deref()), (1, Some(&*id)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_is_followed_through_processes_of_their_own() {
    let (rabbit, mongo) = (RabbitMq::shared().await, Mongo::shared().await);
    let folder = tempfile::tempdir().unwrap();
    let (amqp, url) = (rabbit.vhost().await, system::database(&mongo.uri(), &mongo.unique("trace")));
    let management = format!("broker.management_url={}", rabbit.management_uri());
    let servers = ["--broker", &amqp, "--store", &url, "--set", &management];
    let start = |module: &'static str, more: &[&str]| {
        let mut args = servers.to_vec();
        args.extend_from_slice(more);
        args.push(module);
        Service::start(folder.path(), &args)
    };
    let mut add = servers.to_vec();
    add.extend(["sources", "add", "S1", "--account", "A1", "--token", TOKEN]);
    run_well(folder.path(), &add);
    prepare(&galerna::storage::open(&url).await.unwrap()).await;

    let address = |entry: Value| format!("http://{}", entry["fields"]["address"].as_str().unwrap());
    let quick = ["--set", "maintainer.listen=127.0.0.1:0", "--set", "maintainer.accounts_every=200ms"];
    let maintainer = start("maintainer", &quick);
    let pinged = format!("maintainer.url={}", address(maintainer.said("the maintainer works").await));
    let dispatcher = start("dispatcher", &["--set", &pinged, "--listen", "127.0.0.1:0"]);
    let api = dispatcher.api().await;
    let worker = start("worker", &["--dispatcher", &api, "--set", "worker.listen=127.0.0.1:0"]);
    let notifier = start("notifier", &["--set", "notifier.listen=127.0.0.1:0"]);
    let quick = ["--dispatcher", &api, "--set", "frontend.listen=127.0.0.1:0"];
    let frontend = start("frontend", &[&quick[..], &["--set", "frontend.sources_every=200ms"]].concat());
    let frontend = address(frontend.said("frontend listens").await);
    let others = [
        address(worker.said("the worker works").await),
        address(notifier.said("the notifier works").await),
        frontend.clone(),
    ];
    let others = format!("page.workers={}", others.join(","));
    let call = posted(&frontend).await;
    let way = followed(folder.path(), &["--dispatcher", &api, "--set", &others], &format!("{call}.0")).await;
    assert!(way.iter().any(|(place, what)| place == "frontend" && what.starts_with("accepted")), "{way:#?}");

    let page = start("page", &["--dispatcher", &api, "--set", &others, "--set", "page.listen=127.0.0.1:0"]);
    let page = address(page.said("the page is served").await);
    let html = reqwest::get(format!("{page}/trace/{call}")).await.unwrap().text().await.unwrap();
    assert!(html.contains("delivered to endpoint log"), "{html}");
}
