//! What was counted, for people and for programs.

use std::collections::BTreeMap;
use std::time::Duration;

use galerna_model::Timestamp;
use hdrhistogram::Histogram;
use serde::Serialize;

use super::calls::CallResult;
use galerna_terminal::{print, table, thousands};

/// Counts of calls, and the latencies of those that were taken.
#[derive(Debug)]
pub(super) struct Tally {
    /// Of calls taken, in microseconds: from when they were due.
    pub(super) from_due: Histogram<u64>,
    /// Of calls taken, in microseconds: from when they were sent.
    pub(super) from_sending: Histogram<u64>,
    pub(super) calls: Calls,
}

/// Counts of calls.
#[derive(Debug, Default, Clone, Serialize)]
pub(super) struct Calls {
    /// Calls sent.
    pub(super) sent: u64,
    /// Calls answered, by status.
    pub(super) statuses: BTreeMap<u16, u64>,
    /// Calls not answered, by what happened.
    pub(super) errors: BTreeMap<String, u64>,
    /// The first answer that was no 202, or the first error.
    pub(super) first_problem: Option<String>,
    /// Readings that the frontend counts as accepted, and so safe.
    pub(super) accepted_readings: u64,
    /// Readings that it refused in calls that it took.
    pub(super) rejected_readings: u64,
    /// Bytes of the bodies as sent.
    pub(super) bytes: u64,
    /// Bytes of the bodies before compression.
    pub(super) bytes_unpacked: u64,
    /// Times that a 429 or 503 was waited for, and how long in all.
    pub(super) waits: u64,
    pub(super) waited_ms: u64,
}

impl Calls {
    /// Calls answered 202.
    pub(super) fn taken(&self) -> u64 {
        self.statuses.get(&202).copied().unwrap_or_default()
    }
}

/// When a call was due and sent, and what it carried.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sent {
    pub(super) from_due: Duration,
    pub(super) from_sending: Duration,
    pub(super) bytes: usize,
    pub(super) unpacked: usize,
}

impl Tally {
    pub(super) fn new() -> Self {
        Self { from_due: histogram(), from_sending: histogram(), calls: Calls::default() }
    }

    pub(super) fn add(&mut self, sent: Sent, ended: &CallResult) {
        let calls = &mut self.calls;
        calls.sent += 1;
        calls.bytes += sent.bytes as u64;
        calls.bytes_unpacked += sent.unpacked as u64;
        let problem = match ended {
            CallResult::Taken { accepted, rejected } => {
                *calls.statuses.entry(202).or_default() += 1;
                calls.accepted_readings += accepted;
                calls.rejected_readings += rejected;
                self.from_due.saturating_record(micros(sent.from_due));
                self.from_sending.saturating_record(micros(sent.from_sending));
                return;
            }
            CallResult::Refused { status, text, .. } => {
                *calls.statuses.entry(*status).or_default() += 1;
                format!("HTTP {status}: {text}")
            }
            CallResult::Failed { kind, text } => {
                *calls.errors.entry((*kind).to_owned()).or_default() += 1;
                format!("{kind}: {text}")
            }
        };
        calls.first_problem.get_or_insert(problem);
    }

    /// A call was due so long before the end and was never sent: it would have taken longer.
    pub(super) fn never_sent(&mut self, for_so_long: Duration) {
        self.from_due.saturating_record(micros(for_so_long));
    }

    pub(super) fn waited(&mut self, wait: Duration) {
        self.calls.waits += 1;
        self.calls.waited_ms += u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

fn histogram() -> Histogram<u64> {
    // A microsecond to an hour, each value within a thousandth of itself.
    Histogram::new_with_bounds(1, 3_600_000_000, 3).expect("bounds are valid")
}

/// A distribution of latencies, in milliseconds.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct Distribution {
    pub(super) mean: f64,
    pub(super) p50: f64,
    pub(super) p90: f64,
    pub(super) p99: f64,
    #[serde(rename = "p99.9")]
    pub(super) p999: f64,
    pub(super) max: f64,
}

impl From<&Histogram<u64>> for Distribution {
    fn from(h: &Histogram<u64>) -> Self {
        let at = |q| h.value_at_quantile(q) as f64 / 1_000.0;
        Self {
            mean: (h.mean()).round() / 1_000.0,
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p999: at(0.999),
            max: h.max() as f64 / 1_000.0,
        }
    }
}

/// What was asked for.
#[derive(Debug, Clone, Serialize)]
pub(super) struct LoadPlan {
    pub(super) url: String,
    pub(super) sources: usize,
    pub(super) devices: usize,
    pub(super) connections: usize,
    pub(super) gzip: bool,
    pub(super) repeat: bool,
}

/// A run at one rate, or as fast as answers come.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Run {
    pub(super) began: Timestamp,
    #[serde(flatten)]
    pub(super) asked: LoadPlan,
    pub(super) readings_per_call: usize,
    /// `open`: calls are due at the asked rate, whatever the answers do; `closed`: each connection sends when it is answered.
    #[serde(rename = "loop")]
    pub(super) kind: &'static str,
    /// Calls a second asked for.
    pub(super) asked_rate: Option<f64>,
    /// Calls a second that were taken.
    pub(super) rate: f64,
    pub(super) readings_per_second: f64,
    /// From the first call due to the last answer.
    pub(super) seconds: f64,
    /// Calls that were due and never sent, since all connections waited for answers when the time was over, and those under
    /// way when the run was interrupted. `latency_ms` has them with the time that they had waited by the end.
    pub(super) not_sent: u64,
    #[serde(flatten)]
    pub(super) calls: Calls,
    /// From when a call was due to its answer; of calls taken.
    pub(super) latency_ms: Distribution,
    /// From when a call was sent to its answer; of calls taken.
    pub(super) from_sending_ms: Distribution,
}

impl Run {
    /// Prints it for people.
    pub(super) fn print(&self) -> anyhow::Result<()> {
        let asked = self
            .asked_rate
            .map_or("as fast as answers come".to_owned(), |r| format!("{r} calls/s asked for"));
        print(format!(
            "{} sources, {} readings a call, {} connections, {asked}: {:.1} calls/s, {} readings/s taken in {:.1} s",
            thousands(self.asked.sources as u64),
            thousands(self.readings_per_call as u64),
            self.asked.connections,
            self.rate,
            whole(self.readings_per_second),
            self.seconds,
        ))?;
        let mut shown = table(&["latency", "#mean ms", "#p50", "#p90", "#p99", "#p99.9", "#max"]);
        let from = if self.kind == "open" { "from when it was due" } else { "from sending" };
        shown.add_row(cells(from, &self.latency_ms));
        if self.kind == "open" {
            shown.add_row(cells("from sending", &self.from_sending_ms));
        }
        // Without a call that was taken there is no latency to tell.
        if self.calls.taken() > 0 {
            print(shown)?;
        }
        let mut shown = table(&["calls", "#"]);
        for (status, n) in &self.calls.statuses {
            shown.add_row([format!("answered {status}"), thousands(*n)]);
        }
        for (kind, n) in &self.calls.errors {
            shown.add_row([kind.clone(), thousands(*n)]);
        }
        for (what, n) in [
            ("due and not sent", self.not_sent),
            ("waits for Retry-After", self.calls.waits),
            ("readings accepted", self.calls.accepted_readings),
            ("readings rejected", self.calls.rejected_readings),
            ("bytes of bodies", self.calls.bytes),
        ] {
            shown.add_row([what.to_owned(), thousands(n)]);
        }
        print(shown)?;
        if self.not_sent > 0 {
            print(
                "The frontend, or this machine, did not keep up with the rate: the calls that were not sent are in the \
                 latencies with what they had waited until the end, and would have taken longer.",
            )?;
        }
        problem(&self.calls)
    }
}

/// The calls of one size, one after another.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Size {
    pub(super) readings_per_call: usize,
    #[serde(flatten)]
    pub(super) calls: Calls,
    pub(super) latency_ms: Distribution,
}

/// A run through several sizes.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Sweep {
    pub(super) began: Timestamp,
    #[serde(flatten)]
    pub(super) asked: LoadPlan,
    pub(super) calls_per_size: u32,
    pub(super) sizes: Vec<Size>,
}

impl Sweep {
    /// Prints it for people.
    pub(super) fn print(&self) -> anyhow::Result<()> {
        let mut shown = table(&[
            "#readings",
            "#calls taken",
            "#not taken",
            "#mean ms",
            "#p50 ms",
            "#p99 ms",
            "#max ms",
            "#readings/s",
        ]);
        for size in &self.sizes {
            let ms = |v: f64| format!("{v:.2}");
            let Distribution { mean, p50, p99, max, .. } = size.latency_ms;
            let rate = if mean > 0.0 {
                whole(size.readings_per_call as f64 * 1_000.0 / mean)
            } else {
                String::new()
            };
            let taken = size.calls.taken();
            shown.add_row([
                thousands(size.readings_per_call as u64),
                thousands(taken),
                thousands(size.calls.sent - taken),
                ms(mean),
                ms(p50),
                ms(p99),
                ms(max),
                rate,
            ]);
        }
        print(shown)?;
        self.sizes.iter().find(|s| s.calls.first_problem.is_some()).map_or(Ok(()), |s| problem(&s.calls))
    }
}

fn problem(calls: &Calls) -> anyhow::Result<()> {
    match &calls.first_problem {
        // When none was taken, the error says it.
        Some(problem) if calls.taken() > 0 => print(format!("The first call that was not taken: {problem}")),
        _ => Ok(()),
    }
}

fn cells(name: &str, s: &Distribution) -> Vec<String> {
    let ms = [s.mean, s.p50, s.p90, s.p99, s.p999, s.max].map(|v| format!("{v:.2}"));
    [name.to_owned()].into_iter().chain(ms).collect()
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a rate: positive, far below 2^52"
)]
fn whole(rate: f64) -> String {
    thousands(rate.round() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refused_and_failed_calls_are_counted_and_are_in_no_percentile() {
        let mut tally = Tally::new();
        let sent = |ms| Sent {
            from_due: Duration::from_millis(ms),
            from_sending: Duration::from_millis(ms / 2),
            bytes: 10,
            unpacked: 100,
        };
        tally.add(sent(100), &CallResult::Taken { accepted: 299, rejected: 1 });
        tally
            .add(sent(9_000), &CallResult::Refused { status: 429, text: "slow down".to_owned(), wait: None });
        tally.add(sent(9_000), &CallResult::Failed { kind: "timeout", text: String::new() });
        let calls = &tally.calls;
        assert_eq!((calls.sent, calls.taken(), calls.bytes, calls.bytes_unpacked), (3, 1, 30, 300));
        assert_eq!((calls.accepted_readings, calls.rejected_readings), (299, 1));
        assert_eq!(calls.statuses, BTreeMap::from([(202, 1), (429, 1)]));
        assert_eq!(calls.errors, BTreeMap::from([("timeout".to_owned(), 1)]));
        assert_eq!(calls.first_problem.as_deref(), Some("HTTP 429: slow down"));
        let (due, sending) = (Distribution::from(&tally.from_due), Distribution::from(&tally.from_sending));
        assert!((due.max - 100.0).abs() < 0.2 && (sending.max - 50.0).abs() < 0.2, "{due:?} {sending:?}");
        // Nor can a server look fast that kept others from being sent.
        tally.never_sent(Duration::from_secs(4));
        let due = Distribution::from(&tally.from_due);
        assert!((due.max - 4_000.0).abs() < 8.0 && tally.calls.sent == 3, "{due:?}");
    }
}
