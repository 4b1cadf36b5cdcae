//! Histories as spans, for a collector.
//!
//! OTLP/HTTP with JSON bodies: `POST <url>/v1/traces`, names in lowerCamelCase, trace and span ids in hexadecimal, times as
//! decimal text of Unix nanoseconds, enums as numbers (OpenTelemetry Protocol specification, sections "OTLP/HTTP Request" and
//! "JSON Protobuf Encoding"; which answers to try again after: "Failures"). The few fields that a span needs are written by hand
//! here: the usual libraries would bring a tree of dependencies and a second way of telling what happens.
//!
//! All messages of a call are one trace, whose id is made of the call's, so that all processes agree on it without asking each
//! other. What a process knows of a call becomes one span when nothing more of it has happened for a while, with a child for
//! each step, from the message's step before to it. The frontend's span is the root, and its id is made of the call's, too:
//! the other processes' spans name it as their parent. A caller that sends a `traceparent` finds all of it in its own trace: the
//! frontend's span has the caller's as its parent, and the call's id begins with both.
//!
//! Nothing waits for the collector: what is too much is dropped, counted, and told once.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use galerna_model::Timestamp;
use reqwest::StatusCode;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::ring::{RecordedStep, caller_of, is_call, message_id};
use crate::{TelemetryError, process_name};

/// Steps on their way to the exporter.
const STEPS: usize = 65_536;
/// Histories that are not over yet, and most steps of one.
const OPEN: usize = 50_000;
const STEPS_OF_ONE: usize = 1_024;
/// Histories that wait for the collector.
const READY: usize = 8_192;
/// Histories in one request.
const BATCH: usize = 512;
/// A way is over when nothing has happened for so long.
const QUIET: Duration = Duration::from_secs(2);
const EVERY: Duration = Duration::from_secs(1);
/// How long the collector may take.
const TIMEOUT: Duration = Duration::from_secs(5);
/// How long the end waits for the collector, and between attempts.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(3);
const SHUTDOWN_RETRY: Duration = Duration::from_millis(200);

/// Numbers of the enums of `trace.proto`.
const KIND_INTERNAL: u8 = 1;
const KIND_SERVER: u8 = 2;
const KIND_CONSUMER: u8 = 5;
const STATUS_ERROR: u8 = 2;

/// Hands steps to the exporter.
pub(super) struct Sender {
    steps: mpsc::Sender<(String, RecordedStep)>,
    drops: Arc<Drops>,
}

impl Sender {
    /// Never waits.
    pub(super) fn send(&self, call: &str, step: &RecordedStep) {
        if self.steps.try_send((call.to_owned(), step.clone())).is_err() {
            self.drops.count.fetch_add(1, Relaxed);
        }
    }
}

#[derive(Default)]
struct Drops {
    /// Steps that were not exported.
    count: AtomicU64,
    told: AtomicBool,
}

impl Drops {
    fn add(&self, steps: usize) {
        self.count.fetch_add(steps as u64, Relaxed);
    }

    /// Said by the exporter, not where it happens: the log may be what is slow.
    fn warn_once(&self) {
        let steps = self.count.load(Relaxed);
        if steps > 0 && !self.told.swap(true, Relaxed) {
            tracing::warn!(
                steps,
                "steps of messages are not exported: the collector is unavailable or too slow"
            );
        }
    }
}

/// Sends ways to a collector.
pub struct Exporter {
    url: String,
    /// What the collector knows the program by.
    service: &'static str,
    steps: mpsc::Receiver<(String, RecordedStep)>,
    drops: Arc<Drops>,
    instance: String,
    /// Makes span ids differ.
    spans: u64,
    open: HashMap<String, Unfinished>,
    ready: VecDeque<(String, Vec<RecordedStep>)>,
}

struct Unfinished {
    steps: Vec<RecordedStep>,
    last: Instant,
}

/// The exporter at work.
pub struct RunningExporter {
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl RunningExporter {
    /// Sends what there is, as long as the collector does not take too long, and ends.
    pub async fn finish(self) {
        self.stop.cancel();
        drop(self.task.await);
    }
}

impl Exporter {
    /// For the collector at this base URL; it sends nothing before it is [started](Self::start).
    pub(super) fn new(url: &str, service: &'static str) -> (Sender, Self) {
        let (sender, steps) = mpsc::channel(STEPS);
        let drops = Arc::new(Drops::default());
        let exporter = Self {
            url: format!("{}/v1/traces", url.trim_end_matches('/')),
            service,
            steps,
            drops: drops.clone(),
            instance: process_name(service),
            spans: 0,
            open: HashMap::new(),
            ready: VecDeque::new(),
        };
        (Sender { steps: sender, drops }, exporter)
    }

    /// Starts to send.
    ///
    /// # Errors
    /// When no HTTP client can be made.
    pub fn start(self) -> Result<RunningExporter, TelemetryError> {
        galerna_tls::install_default_provider();
        let client = reqwest::Client::builder().timeout(TIMEOUT).build()?;
        let stop = CancellationToken::new();
        let task = tokio::spawn(self.run(client, stop.clone()));
        Ok(RunningExporter { stop, task })
    }

    async fn run(mut self, client: reqwest::Client, stop: CancellationToken) {
        let mut ticks = interval(EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut taken = Vec::new();
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                _ = ticks.tick() => {
                    self.close(Some(QUIET));
                    self.send(&client).await;
                    self.drops.warn_once();
                }
                _ = self.steps.recv_many(&mut taken, 1_024) => self.take(&mut taken),
            }
        }
        while let Ok(step) = self.steps.try_recv() {
            taken.push(step);
        }
        self.take(&mut taken);
        self.close(None);
        let rest = async {
            self.send(&client).await;
            while !self.ready.is_empty() {
                sleep(SHUTDOWN_RETRY).await;
                self.send(&client).await;
            }
        };
        if timeout(SHUTDOWN_TIMEOUT, rest).await.is_err() {
            self.drops.add(self.ready.iter().map(|(_, steps)| steps.len()).sum());
        }
        let steps = self.drops.count.load(Relaxed);
        if steps > 0 {
            tracing::warn!(steps, "steps of messages were not exported");
        }
    }

    fn take(&mut self, taken: &mut Vec<(String, RecordedStep)>) {
        let now = Instant::now();
        for (call, step) in taken.drain(..) {
            if self.open.len() >= OPEN && !self.open.contains_key(&call) {
                self.drops.add(1);
                continue;
            }
            let open = self.open.entry(call).or_insert(Unfinished { steps: Vec::new(), last: now });
            open.last = now;
            if open.steps.len() < STEPS_OF_ONE {
                open.steps.push(step);
            } else {
                self.drops.add(1);
            }
        }
    }

    /// Readies the ways that have been quiet for so long; all when `None`.
    fn close(&mut self, quiet: Option<Duration>) {
        let over = |open: &Unfinished| quiet.is_none_or(|quiet| open.last.elapsed() >= quiet);
        self.ready.extend(self.open.extract_if(|_, open| over(open)).map(|(call, open)| (call, open.steps)));
        while self.ready.len() > READY {
            let dropped = self.ready.pop_front();
            self.drops.add(dropped.map_or(0, |(_, steps)| steps.len()));
        }
    }

    async fn send(&mut self, client: &reqwest::Client) {
        while !self.ready.is_empty() {
            let batch: Vec<_> = self.ready.iter().take(BATCH).cloned().collect();
            let steps = batch.iter().map(|(_, steps)| steps.len()).sum();
            let mut spans = Vec::with_capacity(steps + batch.len());
            for (call, steps) in &batch {
                self.spans_of(call, steps, &mut spans);
            }
            let answer = client.post(&self.url).json(&self.request(spans)).send().await;
            match answer.map(|answer| answer.status()) {
                Ok(status) if status.is_success() => {}
                // "Failures": these, and no answer, are worth another try; all others are not.
                Ok(
                    StatusCode::TOO_MANY_REQUESTS
                    | StatusCode::BAD_GATEWAY
                    | StatusCode::SERVICE_UNAVAILABLE
                    | StatusCode::GATEWAY_TIMEOUT,
                )
                | Err(_) => return,
                Ok(status) => {
                    tracing::debug!(%status, steps, "the collector refused spans");
                    self.drops.add(steps);
                }
            }
            self.ready.drain(..batch.len());
        }
    }

    /// `ExportTraceServiceRequest`
    fn request(&self, spans: Vec<Value>) -> Value {
        let resource = [
            attribute("service.name", self.service),
            attribute("service.version", env!("CARGO_PKG_VERSION")),
            attribute("service.instance.id", &self.instance),
        ];
        let scope = json!({ "name": "galerna", "version": env!("CARGO_PKG_VERSION") });
        json!({ "resourceSpans": [{
            "resource": { "attributes": resource },
            "scopeSpans": [{ "scope": scope, "spans": spans }],
        }] })
    }

    fn span_id(&mut self) -> String {
        self.spans += 1;
        let of = Sha256::new().chain_update(&self.instance).chain_update(self.spans.to_be_bytes());
        hex(&of.finalize()[..8])
    }

    /// The spans of a way: one for all of it, and its steps.
    fn spans_of(&mut self, call: &str, steps: &[RecordedStep], spans: &mut Vec<Value>) {
        let mut steps: Vec<&RecordedStep> = steps.iter().collect();
        steps.sort_by_key(|step| step.at);
        let (Some(first), Some(last)) = (steps.first(), steps.last()) else { return };
        let hash = Sha256::digest(call);
        let caller = caller_of(call);
        let trace = caller.map_or_else(|| hex(&hash[..16]), |(trace, _)| trace.to_owned());
        let root = hex(&hash[16..24]);
        let is_root = steps.iter().any(|step| step.place == "frontend");
        let id = if is_root { root.clone() } else { self.span_id() };
        let mut span = json!({
            "traceId": trace,
            "spanId": id,
            "name": if is_root { "call" } else { "messages" },
            "kind": if is_root { KIND_SERVER } else { KIND_CONSUMER },
            "startTimeUnixNano": nanos(first.at),
            "endTimeUnixNano": nanos(last.at),
            "attributes": [attribute("galerna.call", call)],
        });
        // Messages that no frontend made have no root.
        if !is_root && is_call(call) {
            span["parentSpanId"] = json!(root);
        }
        if let (true, Some((_, span_of_caller))) = (is_root, caller) {
            span["parentSpanId"] = json!(span_of_caller);
        }
        spans.push(span);
        let mut before: HashMap<Option<u32>, Timestamp> = HashMap::new();
        for step in &steps {
            let began = before.insert(step.part, step.at).unwrap_or(first.at);
            let mut child = json!({
                "traceId": trace,
                "spanId": self.span_id(),
                "parentSpanId": id,
                "name": step.place,
                "kind": KIND_INTERNAL,
                "startTimeUnixNano": nanos(began),
                "endTimeUnixNano": nanos(step.at),
                "attributes": [
                    attribute("galerna.message", &message_id(call, step.part)),
                    attribute("galerna.step", &step.what),
                ],
            });
            if step.failed {
                child["status"] = json!({ "code": STATUS_ERROR, "message": step.what });
            }
            spans.push(child);
        }
    }
}

fn attribute(key: &str, value: &str) -> Value {
    json!({ "key": key, "value": { "stringValue": value } })
}

fn nanos(at: Timestamp) -> String {
    (i128::from(at.as_millis()) * 1_000_000).max(0).to_string()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const CALL: &str = "015f3b2f4c00a1b2c3d4e5f60718";

    fn step(part: Option<u32>, at: i64, place: &'static str, what: &str) -> RecordedStep {
        RecordedStep { at: Timestamp(at), place: place.into(), what: what.into(), failed: false, part }
    }

    fn spans(call: &str, steps: &[RecordedStep]) -> Vec<Value> {
        let mut spans = Vec::new();
        Exporter::new("http://localhost:4318", "galerna").1.spans_of(call, steps, &mut spans);
        spans
    }

    #[test]
    fn the_spans_of_two_processes_make_one_trace_under_the_frontends() {
        let front = spans(CALL, &[step(None, 5, "frontend", "accepted")]);
        let worker = spans(
            CALL,
            &[
                step(Some(0), 6, "queues", "delivered"),
                step(Some(1), 7, "queues", "delivered"),
                step(Some(0), 9, "store", "stored"),
                RecordedStep { failed: true, ..step(Some(1), 10, "queues", "failed: error in store: no") },
            ],
        );
        assert_eq!((front.len(), worker.len()), (2, 5));
        for span in front.iter().chain(&worker) {
            assert_eq!(span["traceId"], front[0]["traceId"]);
            assert_eq!(span["traceId"].as_str().unwrap().len(), 32);
            assert_eq!(span["spanId"].as_str().unwrap().len(), 16);
        }
        assert_eq!(front[0].get("parentSpanId"), None);
        assert_eq!(worker[0]["parentSpanId"], front[0]["spanId"]);
        assert!(worker[1..].iter().all(|child| child["parentSpanId"] == worker[0]["spanId"]));
        let times = |span: &Value| {
            ["startTimeUnixNano", "endTimeUnixNano"].map(|name| span[name].as_str().unwrap().to_owned())
        };
        assert_eq!(times(&worker[0]), ["6000000", "10000000"]);
        assert_eq!(times(&worker[3]), ["6000000", "9000000"], "from the same message's step before");
        assert_eq!(worker[4]["status"]["code"], STATUS_ERROR);
        assert!(worker[..4].iter().all(|span| span.get("status").is_none()));
        let mut ids: Vec<_> = worker.iter().map(|span| span["spanId"].to_string()).collect();
        ids.sort();
        ids.dedup();
        assert_eq!(ids.len(), worker.len());
    }

    #[test]
    fn a_call_with_a_traceparent_is_a_part_of_its_callers_trace() {
        let (trace, caller) = ("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7");
        let call = format!("{trace}{caller}0123456789ab");
        let front = spans(&call, &[step(None, 5, "frontend", "accepted")]);
        let worker = spans(&call, &[step(Some(0), 6, "queues", "delivered")]);
        assert!(front.iter().chain(&worker).all(|span| span["traceId"] == trace), "{front:?}");
        assert_eq!(front[0]["parentSpanId"], caller);
        assert_eq!(worker[0]["parentSpanId"], front[0]["spanId"]);
        assert_ne!(front[0]["spanId"], caller);
    }

    #[test]
    fn messages_that_no_frontend_made_have_no_parent() {
        assert_eq!(spans("mine", &[step(None, 1, "queues", "delivered")])[0].get("parentSpanId"), None);
    }

    #[test]
    fn what_is_too_much_is_dropped_and_counted() {
        let (sender, mut exporter) = Exporter::new("http://localhost:4318", "galerna");
        for n in 0..STEPS + 7 {
            sender.send("m", &step(None, n as i64, "queues", "delivered"));
        }
        assert_eq!(exporter.drops.count.load(Relaxed), 7);
        let mut taken = Vec::new();
        while let Ok(step) = exporter.steps.try_recv() {
            taken.push(step);
        }
        exporter.take(&mut taken);
        assert_eq!(exporter.open["m"].steps.len(), STEPS_OF_ONE);
        assert_eq!(exporter.drops.count.load(Relaxed), (7 + STEPS - STEPS_OF_ONE) as u64);
    }
}
