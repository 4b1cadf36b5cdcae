//! One look at the whole system, shared by everybody who wants one: however many viewers there are, the other modules are
//! asked once a second, and not at all while nobody looks (but for the samples of the history).

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use galerna_dispatcher::{QueueView, StatusPage, StatusQuery};
use galerna_model::{AlertState, Clock, QueueName, Rule, Timestamp};
use galerna_storage::{Period, Scope, Tally};
use tokio::time::{Instant, timeout};

use super::Parts;
use super::backends::{ErrorReport, LatencyReport, WorkerReport, WorkerReports};

/// How long a look may wait for any module.
pub(super) const TIMEOUT: Duration = Duration::from_secs(3);
/// A look is shared as long as it is younger than this.
const SHARED_FOR: Duration = Duration::from_millis(900);
/// Rates are taken over about this time: less than the time between two samples, of which each so has what came since the last.
const RATE_WINDOW: Duration = Duration::from_secs(8);
/// What was seen longer ago says nothing of now.
const RATE_MAX_AGE: Duration = Duration::from_secs(60);
/// What changes slowly or costs more is asked for this often.
const SLOW_INTERVAL: Duration = Duration::from_secs(5);
/// Alerts that are looked at.
pub(super) const MAX_FIRING: usize = 500;

/// A component, summed over all topologies that have it.
#[derive(Debug, Clone, Default)]
pub(super) struct Component {
    pub(super) id: String,
    pub(super) kind: String,
    pub(super) executors: usize,
    pub(super) fused_with: Option<String>,
    pub(super) emitted: u64,
    pub(super) executed: u64,
    pub(super) acked: u64,
    pub(super) failed: BTreeMap<String, u64>,
    /// Of the worst topology.
    pub(super) latency: LatencyReport,
    /// What `latency` is of: `complete` of a spout, else `process` or `execute`.
    pub(super) latency_of: &'static str,
    pub(super) queued: u64,
    pub(super) pending: u64,
    /// Busy and available time of its executors, in milliseconds.
    busy_ms: f64,
    available_ms: f64,
    /// Of the oldest topology that has it.
    uptime_ms: u64,
    /// How many tasks of a spout are in which state.
    pub(super) states: BTreeMap<String, u64>,
    pub(super) errors: u64,
    pub(super) restarts: u64,
    pub(super) last_error: Option<(ErrorReport, Timestamp)>,
    /// Tuples a second lately: emitted by a spout, executed by a bolt. `None` when it cannot be told yet.
    pub(super) rate: Option<f64>,
    /// Acked a second lately.
    pub(super) acked_rate: Option<f64>,
    /// Failed a second lately.
    pub(super) failed_rate: Option<f64>,
    /// Busy share lately, 0 to 1.
    pub(super) capacity: Option<f64>,
}

impl Component {
    pub(super) fn is_spout(&self) -> bool {
        self.kind == "spout"
    }

    pub(super) fn failures(&self) -> u64 {
        self.failed.values().sum()
    }

    fn done(&self) -> u64 {
        if self.is_spout() { self.emitted } else { self.executed }
    }

    fn counters(&self) -> Counters {
        Counters {
            done: self.done(),
            acked: self.acked,
            failed: self.failures(),
            busy_ms: self.busy_ms,
            available_ms: self.available_ms,
        }
    }
}

#[derive(Debug, Clone, Copy, Default)]
struct Counters {
    done: u64,
    acked: u64,
    failed: u64,
    busy_ms: f64,
    available_ms: f64,
}

/// What was seen at one moment. What could not be asked says why.
#[derive(Debug, Clone)]
pub(super) struct Snapshot {
    pub(super) at: Timestamp,
    pub(super) dispatcher: Result<StatusPage, String>,
    /// The queue with messages that waits the longest for a consumer.
    pub(super) waiting: Option<QueueView>,
    /// Topologies that run and tell what they do.
    pub(super) workers: usize,
    /// What each tells.
    pub(super) reports: Arc<Vec<WorkerReport>>,
    /// CPUs that each process kept busy lately, by its name.
    pub(super) busy_cpus: BTreeMap<String, f64>,
    /// Workers that do not answer, and why.
    pub(super) unresponsive: Vec<String>,
    /// No worker is known that could be asked.
    pub(super) none_configured: bool,
    pub(super) components: Vec<Component>,
    pub(super) dead: Result<Arc<Vec<(QueueName, u64)>>, String>,
    pub(super) firing: Result<Arc<Vec<AlertState>>, String>,
    pub(super) rules: Arc<Vec<Rule>>,
    /// Readings accepted a second lately.
    pub(super) accepted_rate: Option<f64>,
}

impl Snapshot {
    pub(super) fn component(&self, id: &str) -> Option<&Component> {
        self.components.iter().find(|c| c.id == id)
    }

    pub(super) fn dead_total(&self) -> Option<u64> {
        self.dead.as_ref().ok().map(|dead| dead.iter().map(|(_, n)| n).sum())
    }

    /// Messages ready and unacked over all queues.
    pub(super) fn backlog(&self) -> Option<(u64, u64)> {
        let page = self.dispatcher.as_ref().ok()?;
        Some(page.backlog.values().fold((0, 0), |sum, b| (sum.0 + b.ready, sum.1 + b.unacked)))
    }

    /// Sums a rate over the spouts.
    pub(super) fn spouts(&self, of: impl Fn(&Component) -> Option<f64>) -> Option<f64> {
        let rates: Vec<f64> = self.components.iter().filter(|c| c.is_spout()).filter_map(of).collect();
        (!rates.is_empty()).then(|| rates.iter().sum())
    }
}

/// Something that is asked for now and then.
struct Cached<T> {
    asked: Option<Instant>,
    last: Result<T, String>,
}

impl<T> Default for Cached<T> {
    fn default() -> Self {
        Self { asked: None, last: Err("not asked yet".to_owned()) }
    }
}

impl<T> Cached<T> {
    fn is_due(&self) -> bool {
        self.asked.is_none_or(|at| at.elapsed() >= SLOW_INTERVAL)
    }

    fn set(&mut self, answer: Option<Result<T, String>>) {
        if let Some(answer) = answer {
            self.asked = Some(Instant::now());
            self.last = answer;
        }
    }
}

/// Counters of a past look.
struct PastCounters {
    at: Instant,
    components: BTreeMap<String, Counters>,
    accepted: Option<(Timestamp, u64)>,
    /// Seconds of CPU time, by process.
    cpu_seconds: BTreeMap<String, f64>,
}

#[derive(Default)]
struct State {
    last: Option<(Instant, Arc<Snapshot>)>,
    past: VecDeque<PastCounters>,
    dead: Cached<Arc<Vec<(QueueName, u64)>>>,
    firing: Cached<Arc<Vec<AlertState>>>,
    rules: Cached<Arc<Vec<Rule>>>,
    accepted: Cached<Option<(Timestamp, Tally)>>,
    /// Until when a dispatcher that did not answer is not asked again.
    dispatcher_unavailable: Option<(Instant, String)>,
}

/// Looks, one at a time.
pub(super) struct Observer {
    state: tokio::sync::Mutex<State>,
    clock: Arc<dyn Clock>,
}

/// Asks with a timeout.
pub(super) async fn within_timeout<T, E: std::fmt::Display>(
    who: &str,
    call: impl Future<Output = Result<T, E>>,
) -> Result<T, String> {
    match timeout(TIMEOUT, call).await {
        Ok(answer) => answer.map_err(|e| e.to_string()),
        Err(_) => Err(format!("{who} did not answer within {} s", TIMEOUT.as_secs())),
    }
}

impl Observer {
    pub(super) fn new(clock: Arc<dyn Clock>) -> Self {
        Self { state: tokio::sync::Mutex::default(), clock }
    }

    /// What is seen now, or was less than a second ago.
    pub(super) async fn snapshot(&self, parts: &Parts) -> Arc<Snapshot> {
        let mut state = self.state.lock().await;
        if let Some((at, snapshot)) = &state.last
            && at.elapsed() < SHARED_FOR
        {
            return Arc::clone(snapshot);
        }
        let snapshot = Arc::new(self.take(&mut state, parts).await);
        state.last = Some((Instant::now(), Arc::clone(&snapshot)));
        snapshot
    }

    /// Forgets what was seen, after something was changed.
    pub(super) async fn forget(&self) {
        let mut state = self.state.lock().await;
        state.last = None;
        (state.dead.asked, state.firing.asked, state.rules.asked) = (None, None, None);
    }

    async fn take(&self, state: &mut State, parts: &Parts) -> Snapshot {
        let now = Instant::now();
        let at = self.clock.now();
        let unavailable = |known: &Option<(Instant, String)>| {
            known.as_ref().filter(|(until, _)| *until > now).map(|(_, why)| why.clone())
        };
        let dispatcher_unavailable = unavailable(&state.dispatcher_unavailable);
        let hour = Period::Hour.start(at);
        let (dispatcher, workers, dead, firing, rules, accepted) = tokio::join!(
            async {
                match dispatcher_unavailable {
                    Some(why) => Err(why),
                    None => {
                        let query = StatusQuery {
                            state: Some("idle".to_owned()),
                            sort: Some("since".to_owned()),
                            limit: Some(100),
                            ..StatusQuery::default()
                        };
                        within_timeout("the dispatcher", parts.dispatcher.status(&query)).await
                    }
                }
            },
            async {
                timeout(TIMEOUT, parts.workers.reports()).await.unwrap_or_else(|_| WorkerReports {
                    unresponsive: vec![format!("no worker answered within {} s", TIMEOUT.as_secs())],
                    ..WorkerReports::default()
                })
            },
            async {
                if !state.dead.is_due() {
                    return None;
                }
                let mut counts = within_timeout("the broker", parts.broker.dead_letter_counts()).await;
                if let Ok(counts) = &mut counts {
                    counts.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
                }
                Some(counts.map(Arc::new))
            },
            async {
                if !state.firing.is_due() {
                    return None;
                }
                Some(
                    within_timeout("the store", parts.store.alert_states.firing(MAX_FIRING))
                        .await
                        .map(Arc::new),
                )
            },
            async {
                if !state.rules.is_due() {
                    return None;
                }
                Some(within_timeout("the store", parts.store.rules.list()).await.map(Arc::new))
            },
            async {
                if !state.accepted.is_due() {
                    return None;
                }
                let Some(statistics) = &parts.statistics else { return Some(Ok(None)) };
                let periods = [(Period::Hour, hour)];
                let tallies = statistics.tallies(&[Scope::All], &periods, "");
                let tallies = within_timeout("the store of statistics", tallies).await;
                Some(tallies.map(|(found, _)| found.first().and_then(|t| t.first()).map(|t| (hour, *t))))
            },
        );
        let later = |why: &String| Some((Instant::now() + TIMEOUT, why.clone()));
        state.dispatcher_unavailable = dispatcher.as_ref().err().and_then(later);
        let accepted_is_new = accepted.is_some();
        state.dead.set(dead);
        state.firing.set(firing);
        state.rules.set(rules);
        state.accepted.set(accepted);

        let mut components = merge(&workers.reports, at);
        let accepted = state.accepted.last.clone().unwrap_or_default();
        let counted = accepted.map(|(hour, tally)| (hour, tally.readings));
        // Nobody looked for a while: an average over that would tell nothing of now.
        state.past.retain(|past| past.at.elapsed() < RATE_MAX_AGE);
        while state.past.get(1).is_some_and(|next| next.at.elapsed() >= RATE_WINDOW) {
            state.past.pop_front();
        }
        let cpu_seconds: BTreeMap<String, f64> = workers
            .reports
            .iter()
            .filter_map(|r| r.process.as_ref())
            .map(|p| (p.name(), p.cpu_seconds))
            .collect();
        let (mut accepted_rate, mut busy_cpus) = (None, BTreeMap::new());
        if let Some(past) = state.past.front() {
            let seconds = past.at.elapsed().as_secs_f64();
            for component in &mut components {
                let before = past.components.get(&component.id).copied();
                if let Some(before) = before.or_else(|| component.none_before(seconds)) {
                    component.compare(before, seconds);
                }
            }
            for (process, taken) in &cpu_seconds {
                if let Some(before) = past.cpu_seconds.get(process).filter(|before| *before <= taken) {
                    busy_cpus.insert(process.clone(), (taken - before) / seconds);
                }
            }
            accepted_rate = match (past.accepted, counted) {
                (Some((then, before)), Some((hour, now))) if then == hour => {
                    Some(now.saturating_sub(before) as f64 / seconds)
                }
                // A new hour began: what it has counted is the least that came.
                (Some(_), Some((_, now))) => Some(now as f64 / seconds),
                _ => None,
            };
        }
        // Frontends add to the statistics every few seconds: a look in between would tell nothing of their rate.
        if state.past.back().is_none_or(|last| last.at.elapsed() >= SHARED_FOR)
            && (accepted_is_new || counted.is_none())
        {
            state.past.push_back(PastCounters {
                at: Instant::now(),
                components: components.iter().map(|c| (c.id.clone(), c.counters())).collect(),
                accepted: counted,
                cpu_seconds,
            });
        }
        let waiting =
            dispatcher.as_ref().ok().and_then(|page| page.queues.iter().find(|q| q.ready > 0)).cloned();
        Snapshot {
            at,
            dispatcher,
            waiting,
            workers: workers.reports.len(),
            reports: Arc::new(workers.reports),
            busy_cpus,
            unresponsive: workers.unresponsive,
            none_configured: workers.none_configured,
            components,
            dead: state.dead.last.clone(),
            firing: state.firing.last.clone(),
            rules: state.rules.last.clone().unwrap_or_default(),
            accepted_rate,
        }
    }
}

impl Component {
    /// Its counters so many seconds ago, when it began since.
    fn none_before(&self, seconds: f64) -> Option<Counters> {
        (self.uptime_ms as f64 <= seconds * 1e3).then(Counters::default)
    }

    fn compare(&mut self, before: Counters, seconds: f64) {
        let now = self.counters();
        // Counters that went back are those of workers that started anew.
        let started_anew = now.done < before.done || now.acked < before.acked || now.failed < before.failed;
        if started_anew || seconds <= 0.0 {
            return;
        }
        let rate = |now: u64, before: u64| Some((now - before) as f64 / seconds);
        self.rate = rate(now.done, before.done);
        self.acked_rate = rate(now.acked, before.acked);
        self.failed_rate = rate(now.failed, before.failed);
        let available = now.available_ms - before.available_ms;
        if available > 0.0 {
            self.capacity = Some(((now.busy_ms - before.busy_ms) / available).clamp(0.0, 1.0));
        }
    }
}

/// Components with the same id in one.
fn merge(reports: &[WorkerReport], now: Timestamp) -> Vec<Component> {
    let mut merged: Vec<Component> = Vec::new();
    for report in reports {
        for c in &report.components {
            let at = merged.iter().position(|m| m.id == c.id).unwrap_or_else(|| {
                merged.push(Component { id: c.id.clone(), kind: c.kind.clone(), ..Component::default() });
                merged.len() - 1
            });
            let m = &mut merged[at];
            m.executors += c.executors;
            m.fused_with.clone_from(&c.fused_with);
            m.emitted += c.emitted;
            m.executed += c.executed;
            m.acked += c.acked;
            for (kind, n) in &c.failed {
                *m.failed.entry(kind.clone()).or_default() += n;
            }
            let (latency, of) = match () {
                () if m.is_spout() => (c.complete, "complete"),
                () if c.process.count > 0 => (c.process, "process"),
                () => (c.execute, "execute"),
            };
            m.latency_of = of;
            m.latency.count += latency.count;
            m.latency.p50_ms = m.latency.p50_ms.max(latency.p50_ms);
            m.latency.p99_ms = m.latency.p99_ms.max(latency.p99_ms);
            m.latency.max_ms = m.latency.max_ms.max(latency.max_ms);
            m.queued += c.queued as u64;
            m.pending += c.pending;
            let available = report.uptime_ms as f64 * c.executors as f64;
            m.busy_ms += c.busy * available;
            m.available_ms += available;
            m.uptime_ms = m.uptime_ms.max(report.uptime_ms);
            for state in &c.states {
                *m.states.entry(state_text(state)).or_default() += 1;
            }
            m.errors += c.errors;
            m.restarts += c.restarts;
            if let Some(error) = &c.last_error {
                let age = report.uptime_ms.saturating_sub(error.at_ms);
                let at = now.plus_millis(-i64::try_from(age).unwrap_or(i64::MAX));
                if m.last_error.as_ref().is_none_or(|(_, known)| *known < at) {
                    m.last_error = Some((error.clone(), at));
                }
            }
        }
    }
    merged
}

/// `"no_data"` or `{"downstream_full":"store"}` in words.
fn state_text(state: &serde_json::Value) -> String {
    match state {
        serde_json::Value::String(word) => word.replace('_', " "),
        serde_json::Value::Object(of) => of.iter().next().map_or_else(String::new, |(word, whom)| {
            format!("{}: {}", word.replace('_', " "), whom.as_str().unwrap_or_default())
        }),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::backends::ComponentReport;
    use super::*;

    fn report(uptime_ms: u64, executed: u64, busy: f64) -> WorkerReport {
        let component = ComponentReport {
            id: "store".into(),
            kind: "async bolt".into(),
            executors: 2,
            executed,
            acked: executed,
            busy,
            states: vec![serde_json::json!({"downstream_full": "store"}), serde_json::json!("no_data")],
            ..ComponentReport::default()
        };
        WorkerReport {
            topology: "ingest".into(),
            uptime_ms,
            components: vec![component],
            ..WorkerReport::default()
        }
    }

    #[test]
    fn components_of_several_workers_are_summed_and_their_rates_are_of_lately() {
        let before = merge(&[report(10_000, 100, 0.1), report(10_000, 50, 0.3)], Timestamp(0));
        assert_eq!((before.len(), before[0].executed, before[0].executors), (1, 150, 4));
        assert_eq!(before[0].states["downstream full: store"], 2);
        let mut now = merge(&[report(20_000, 300, 0.2), report(20_000, 50, 0.15)], Timestamp(0));
        now[0].compare(before[0].counters(), 10.0);
        assert_eq!(now[0].rate, Some(20.0));
        // 3 s of the first and none of the second, of the 2 x 10 s of each, for two executors each.
        let capacity = now[0].capacity.unwrap();
        assert!((capacity - 0.15).abs() < 1e-9, "{capacity}");
    }

    #[test]
    fn a_worker_that_started_anew_has_no_rate_yet() {
        let before = merge(&[report(10_000, 100, 0.1)], Timestamp(0));
        let mut now = merge(&[report(1_000, 5, 0.1)], Timestamp(0));
        now[0].compare(before[0].counters(), 10.0);
        assert_eq!(now[0].rate, None);
    }

    #[test]
    fn what_a_worker_did_since_it_began_is_seen_though_it_was_not_there_before() {
        let mut now = merge(&[report(9_000, 5_000, 0.1)], Timestamp(0));
        let before = now[0].none_before(10.0).unwrap();
        now[0].compare(before, 10.0);
        assert_eq!(now[0].rate, Some(500.0));
        // One that is older was only not seen.
        assert!(merge(&[report(11_000, 5_000, 0.1)], Timestamp(0))[0].none_before(10.0).is_none());
    }
}
