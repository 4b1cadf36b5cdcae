//! The page: what the system does now, and what operators do about it. Rendered here, live by server-sent events, with one
//! small script; it needs no build step and no network, and everything but the live numbers works without script too.
//!
//! Every action exists twice: as a form of the page, and as a JSON call for programs. Both need an operator (see `access.rs`),
//! both are written to the audit log; forms ask before they destroy, who calls the API is taken to have asked.
//!
//! | `POST` | body |
//! |---|---|
//! | `/api/queues/pause`, `/api/queues/unpause` | `{"queue":"D1"}`, `{"queues":["D1","D2"]}` or `{"matching":{"state":"idle","search":"D"}}`; `reason` is optional here and below |
//! | `/api/dispatcher/stop`, `/api/dispatcher/start` | `{"reason":"…"}` |
//! | `/api/dispatcher/strategy` | `{"strategy":"fair","reason":"…"}` |
//! | `/api/dead-letters/replay`, `/api/dead-letters/discard` | `{"queue":"D1","ids":["…"]}`, `{"queue":"D1","all":true}`, `{"letters":[{"queue":"D1","id":"…"}]}` or `{"matching":{"queue","source","text","kind"}}`, `reason` |
//! | `/api/rules/save` | a rule as the store has it: `{"id","name","account","devices","condition":{"kind":"threshold",…},"severity","endpoints","cooldown_ms","enabled"}`, `reason` |
//! | `/api/rules/delete`, `/api/rules/test` | `{"id":"…","reason":"…"}` |
//! | `/api/endpoints/save` | an endpoint as the store has it: `{"id","name","account","kind":"webhook","url",…,"enabled"}`, `reason`; a secret sent as `***` stays |
//! | `/api/endpoints/delete`, `/api/endpoints/test` | `{"id":"…","reason":"…"}` |
//! | `/api/deliveries/resend` | `{"id":"…","reason":"…"}` |
//! | `/api/silences/create` | `{"account","device","rule","until":"2030-01-01T00:00:00Z"` or `"minutes":60` or `"lasts":"3h","reason"}` |
//! | `/api/silences/end` | `{"id":"…","reason":"…"}` |
//! | `/api/sources/add` | `{"source":"…","account":"…","token":"…","reason":"…"}`; without a token a random one is made and answered, this once |
//! | `/api/sources/rotate`, `/api/sources/remove` | `{"source":"…","reason":"…"}`; a new `token` may be named |
//! | `/api/schedules/save` | `{"id":"…","definition":{…},"reason":"…"}` as `galerna_schedules::Definition` has it; with `"revision"` only a schedule that is still at that |
//! | `/api/schedules/pause` | `{"id":"…","note":"…"}` |
//! | `/api/schedules/resume`, `/api/schedules/remove` | `{"id":"…","reason":"…"}` |
//! | `/api/schedules/trigger` | `{"id":"…","overlap":"…","reason":"…"}` |
//! | `/api/schedules/backfill` | `{"id":"…","from":"…","to":"…","overlap":"…","reason":"…"}` |
//! | `/api/alerts/close` | `{"rule":"…","source":"…","device":"…","reason":"…"}` |
//!
//! What the pages show can be read as JSON too, by viewers as well:
//!
//! | `GET` | query, all of it optional | answer |
//! |---|---|---|
//! | `/api/status` | | the dispatcher, queues by state, messages, workers, dead letters, what fires; `away`: what does not answer |
//! | `/api/rules` | `id` | `{"rules":[…]}` |
//! | `/api/endpoints` | `id` | `{"endpoints":[…]}`, secrets as `***` |
//! | `/api/silences` | | `{"silences":[{…,"in_force"}]}`, those that end last first |
//! | `/api/deliveries` | `id`, or `status`, `endpoint`, `account`, `search`, `page`, `limit` | `{"deliveries":[…],"counts","total","page","limit"}` |
//! | `/api/alerts` | `firing=true`, `account`, `page`, `limit` | `{"firing":[…],"total",…}`, else `{"events":[…],"page","limit"}` |
//! | `/api/audit` | `search`, `page`, `limit` | `{"entries":[…],"page","limit"}` |
//!
//! Pages begin with 1 and have 50 entries unless `limit` (up to 500) says otherwise; the newest entry is first.
//!
//! The answer is 200 `{"done":"what was done",…}` or `{"error":{"code","message"}}` with 401, 403, 404, 409, 413, 422, 429 or 503. The
//! header `x-actor` names who is behind a call with a bearer token. `GET /openapi.json` describes all of it.

mod about;
mod access;
mod act;
mod alerts;
mod audit;
mod backends;
mod body;
mod cells;
mod chart;
mod consumption;
mod dead_letter_actions;
mod dead_letters;
mod deliveries;
mod depths;
mod dispatching;
mod endpoints;
mod fields;
mod format;
mod layout;
mod letters;
mod live;
mod menu;
mod message_history;
mod message_text;
mod metrics;
mod observer;
mod openapi;
mod overview;
mod problem;
mod queue;
mod queue_actions;
mod queues;
mod read;
mod rules;
mod samples;
mod schedule_actions;
mod schedules;
mod search;
mod silences;
mod source_actions;
mod sources;
mod topologies;
mod topology;
mod waiting;
mod workers;

use std::collections::{HashMap, VecDeque};
use std::ops::Deref;
use std::sync::Arc;

use axum::extract::DefaultBodyLimit;
use axum::http::header;
use axum::middleware;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Router};
use galerna_broker::Broker;
use galerna_consumption::Calendar;
use galerna_html::{assets, graph, table};
use galerna_http::Guard;
use galerna_lock::Mutex;
use galerna_model::Clock;
use galerna_model::ParameterRegistry;
use galerna_schedules::api::SchedulesApi;
use galerna_storage::StatisticsStore;
use galerna_storage::Store;
use maud::{Markup, html};
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

pub use self::access::Access;
use self::access::{AccessControl, SharedAccess, Visitor};
pub use self::backends::{
    ComponentReport, DispatcherAdmin, ErrorReport, HistoryError, HistoryStep, LatencyReport, LocalHistory,
    MessageHistory, ProcessReport, RemoteWorkers, SourceChanges, TakenElsewhere, WorkerReport, WorkerReports,
    WorkersView,
};
pub use self::depths::QueueDepths;
use self::layout::{Flash, Frame};
use self::metrics::Metrics;
use self::observer::{Observer, Snapshot};
use self::problem::Problem;
pub use self::topologies::{RemoteTopologies, TopologiesView};

/// Streams of updates at once; more are refused and try again later.
const MAX_VIEWERS: usize = 64;
/// Messages kept for those who just did something, and for how long.
const MAX_FEEDBACK: usize = 256;
const FEEDBACK_TTL: std::time::Duration = std::time::Duration::from_secs(600);
/// So long a page waits for what its menu counts.
const MENU_WAIT: std::time::Duration = std::time::Duration::from_millis(500);
/// Longest form or JSON body.
const BODY_LIMIT: usize = 1 << 20;

/// A setting as the page shows it, without secrets.
#[derive(Debug, Clone)]
pub struct Setting {
    /// Its dotted name.
    pub key: String,
    /// Its value.
    pub value: String,
    /// Where the value came from.
    pub origin: String,
}

/// What the page shows and acts on.
#[derive(Clone)]
pub struct Parts {
    /// The dispatcher, here or elsewhere.
    pub dispatcher: Arc<dyn DispatcherAdmin>,
    /// The broker: dead letters are there.
    pub broker: Arc<dyn Broker>,
    /// The store.
    pub store: Store,
    /// What sources have sent, if a frontend counts it.
    pub statistics: Option<Arc<dyn StatisticsStore>>,
    /// By the days of which time zone consumption is kept, if it is.
    pub consumption: Option<Calendar>,
    /// Has changes of sources take effect; none where sources are not kept in the store, and so are not changed here.
    pub sources: Option<Arc<dyn SourceChanges>>,
    /// What fires by the clock; none where nothing does.
    pub schedules: Option<SchedulesApi>,
    /// The topologies that run.
    pub workers: Arc<dyn WorkersView>,
    /// The topologies that run, to be seen and changed.
    pub topologies: Arc<dyn TopologiesView>,
    /// The ingestion topology as `galerna_topology::Topology::json` tells it.
    pub topology: serde_json::Value,
    /// The parameters that readings may have.
    pub parameters: Arc<ParameterRegistry>,
    /// The configuration, secrets hidden.
    pub config: Vec<Setting>,
    /// Version of the program.
    pub version: &'static str,
    /// Finds the history of a message.
    pub traces: Option<Arc<dyn MessageHistory>>,
    /// How much waited in each queue lately; filled by [`spawn_samples`].
    pub depths: Arc<QueueDepths>,
    /// The wall clock.
    pub clock: Arc<dyn Clock>,
    /// Where the page's metrics are registered: that of the process.
    pub registry: prometheus::Registry,
    /// Ends the streams of updates, so that they do not hold up the end of the process.
    pub stop: CancellationToken,
}

/// What to tell who just did something.
#[derive(Debug, Clone)]
struct Feedback {
    /// Whether it was done.
    well: bool,
    text: String,
    /// Shown once.
    secret: Option<String>,
    /// What the form held that was not taken, so that it need not be written again.
    fields: fields::Fields,
}

struct Shared {
    parts: Parts,
    access_control: SharedAccess,
    observer: Observer,
    metrics: Metrics,
    /// What to tell who just did something, by a random key.
    told: Mutex<VecDeque<(String, Instant, Feedback)>>,
    viewers: Arc<Semaphore>,
    topology: graph::Graph,
    letters: letters::Letters,
    started: Instant,
}

/// All that handlers share.
#[derive(Clone)]
struct Page(Arc<Shared>);

impl Deref for Page {
    type Target = Shared;
    fn deref(&self) -> &Shared {
        &self.0
    }
}

/// The values of a query by key; a key that comes twice has its last value.
type Params = axum::extract::Query<HashMap<String, String>>;

impl Page {
    async fn snapshot(&self) -> Arc<Snapshot> {
        let snapshot = self.observer.snapshot(&self.parts).await;
        self.metrics.set(&snapshot, MAX_VIEWERS - self.viewers.available_permits());
        snapshot
    }

    fn now(&self) -> galerna_model::Timestamp {
        self.parts.clock.now()
    }

    fn keep_feedback(&self, told: Feedback) -> String {
        let key = galerna_audit::random();
        let now = Instant::now();
        let mut all = self.told.lock();
        all.retain(|(_, at, _)| now - *at < FEEDBACK_TTL);
        if all.len() >= MAX_FEEDBACK {
            all.pop_front();
        }
        all.push_back((key.clone(), now, told));
        key
    }

    fn told(&self, params: &HashMap<String, String>) -> Option<Feedback> {
        let key = params.get("told")?;
        self.told.lock().iter().find(|(k, ..)| k == key).map(|(.., told)| told.clone())
    }

    /// What a page says of what was just done.
    fn flash(&self, params: &HashMap<String, String>) -> Option<Flash> {
        let told = self.told(params)?;
        if told.secret.is_some()
            && let Some((.., kept)) =
                self.told.lock().iter_mut().find(|(key, ..)| Some(key) == params.get("told"))
        {
            kept.secret = None;
        }
        Some(Flash { well: told.well, text: told.text, secret: told.secret })
    }

    /// What a form that was not taken held.
    fn refused_fields(&self, params: &HashMap<String, String>) -> Option<fields::Fields> {
        self.told(params).map(|told| told.fields).filter(|fields| !fields.is_empty())
    }

    /// What the menu counts; a module that does not answer holds up no page for it.
    async fn look(&self) -> Option<Arc<Snapshot>> {
        tokio::time::timeout(MENU_WAIT, self.snapshot()).await.ok()
    }

    /// A page with what does not answer.
    async fn frame(
        &self,
        visitor: &Visitor,
        here: &str,
        title: &str,
        params: &HashMap<String, String>,
        notices: Vec<String>,
        content: &Markup,
    ) -> Response {
        let look = self.look().await;
        Frame { visitor, here, title, flash: self.flash(params), notices, queue: None, look, searched: "" }
            .page(content)
            .into_response()
    }
}

/// What a look could not learn, in words.
fn notices(snapshot: &Snapshot) -> Vec<String> {
    let mut notices: Vec<String> = Vec::new();
    let mut add = |text: Option<&String>| {
        if let Some(text) = text
            && !notices.contains(text)
        {
            notices.push(text.clone());
        }
    };
    add(snapshot.dispatcher.as_ref().err());
    snapshot.unresponsive.iter().for_each(|why| add(Some(why)));
    add(snapshot.dead.as_ref().err());
    add(snapshot.firing.as_ref().err());
    notices
}

/// Why nothing is told of workers that may well run.
fn none_configured(snapshot: &Snapshot) -> Markup {
    html! {
        @if snapshot.none_configured {
            div.notice data-tone="warn" {
                strong { "No workers known" }
                " This page runs apart from them and none are named: set " code { "page.workers" }
                " to the URLs of workers, notifiers and frontends, such as "
                code { "http://127.0.0.1:8092,http://127.0.0.1:8093,http://127.0.0.1:8080" } "."
            }
        }
    }
}

/// A number of a query, at least 1.
fn page_number(params: &HashMap<String, String>) -> usize {
    params.get("page").and_then(|p| p.parse().ok()).unwrap_or(1).clamp(1, 1_000_000)
}

/// A text of a query, empty when it is missing.
fn param<'a>(params: &'a HashMap<String, String>, name: &str) -> &'a str {
    params.get(name).map_or("", |value| value.trim())
}

/// Shows the result of a page, or what was wrong.
fn shown(result: Result<Response, Problem>) -> Response {
    result.unwrap_or_else(|problem| problem.answer(false))
}

/// The routes of the page.
///
/// # Errors
/// When a metric cannot be registered, which does not happen.
pub fn router(parts: Parts, access: Access) -> Result<Router, prometheus::Error> {
    let readers = Guard::new(access.metrics_token.as_deref());
    let topology = serde_json::from_value(parts.topology.clone()).unwrap_or_default();
    let page = Page(Arc::new(Shared {
        access_control: Arc::new(AccessControl::new(&access)),
        observer: Observer::new(parts.clock.clone()),
        metrics: Metrics::new(&parts.registry)?,
        told: Mutex::default(),
        viewers: Arc::new(Semaphore::new(MAX_VIEWERS)),
        topology,
        letters: letters::Letters::default(),
        started: Instant::now(),
        parts,
    }));
    let pages = Router::new()
        .route("/", get(overview::show))
        .route("/topology", get(topology::show))
        .route("/topologies", get(topologies::show))
        .route("/topologies/{name}", get(topologies::show_one))
        .route("/workers", get(workers::show))
        .route("/search", get(search::show))
        .route("/queues", get(queues::list))
        .route("/queues/{queue}", get(queue::one))
        .route("/queues/{queue}/messages", get(waiting::show))
        .route("/sources", get(sources::list))
        .route("/sources/{source}", get(sources::one))
        .route("/dead-letters", get(dead_letters::all))
        .route("/dead-letters/{queue}", get(dead_letters::of_queue))
        .route("/alerts", get(alerts::show))
        .route("/rules", get(rules::list))
        .route("/rules/edit", get(rules::edit))
        .route("/endpoints", get(endpoints::list))
        .route("/endpoints/edit", get(endpoints::edit))
        .route("/deliveries", get(deliveries::list))
        .route("/silences", get(silences::list))
        .route("/schedules", get(schedules::list))
        .route("/schedules/show", get(schedules::show))
        .route("/schedules/edit", get(schedules::edit))
        .route("/trace", get(message_history::ask))
        .route("/trace/{message}", get(message_history::show))
        .route("/audit", get(audit::show))
        .route("/about", get(about::show))
        .route("/events", get(live::events))
        .route("/logout", post(access::logout))
        .fallback(unknown);
    let (reads, mut description) = read::routes().split_for_parts();
    let pages = act::routes(pages.merge(reads), &mut description);
    let description = openapi::complete(description, page.parts.version);
    let guarded = pages
        .route(openapi::PATH, get(openapi::show).layer(Extension(openapi::Served::new(&description))))
        .layer(DefaultBodyLimit::max(BODY_LIMIT))
        .layer(middleware::from_fn_with_state(page.clone(), access::guard));
    let metrics = readers.protect(Router::new().route("/metrics", get(metrics::show)), &[]);
    Ok(Router::new()
        .route("/login", get(access::login_form).post(access::login))
        .route("/assets/{file}", get(asset))
        .merge(guarded)
        .layer(middleware::from_fn_with_state(page.clone(), metrics::count))
        .merge(metrics)
        .layer(middleware::from_fn(galerna_http::browser::headers))
        .with_state(page))
}

/// Takes a sample for the charts once in ten seconds and keeps a day of them, until `stop`.
pub fn spawn_samples(parts: Parts, stop: CancellationToken) -> tokio::task::JoinHandle<()> {
    tokio::spawn(samples::keep(parts, stop))
}

async fn unknown() -> Response {
    Problem::Unknown("this page does not exist".to_owned()).answer(false)
}

async fn asset(axum::extract::Path(file): axum::extract::Path<String>) -> Response {
    let Some((kind, text)) = assets::file(&file) else { return unknown().await };
    ([(header::CONTENT_TYPE, kind)], text).into_response()
}

#[cfg(test)]
mod tests;
