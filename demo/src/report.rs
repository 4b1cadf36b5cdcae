//! What the demo counted.

use std::collections::BTreeMap;

use serde::Serialize;

use super::ledger::Comparison;
use super::probe::Distribution;
use galerna_terminal::{table, thousands};

/// The report: `--report` writes it as JSON, the closing table shows it.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Report {
    /// `embedded` or `rabbitmq`.
    pub(crate) broker: String,
    /// `embedded` or `mongodb`.
    pub(crate) store: String,
    pub(crate) accounts: u64,
    pub(crate) queues: u64,
    pub(crate) workers: u64,
    /// Calls of the frontend, each with some readings of one source.
    pub(crate) calls: u64,
    /// Messages that other publishers put on the queues directly: plain JSON and faulty ones.
    pub(crate) messages: u64,
    /// Readings in all calls and messages, those sent twice, corrected or bad included. It equals
    /// `stored + replaced + duplicates + rejected_readings`; a message that is delivered again adds to `duplicates`.
    pub(crate) published: u64,
    /// Distinct readings stored.
    pub(crate) stored: u64,
    /// Readings whose values were replaced by a higher sequence number.
    pub(crate) replaced: u64,
    /// Readings that were there already: no write.
    pub(crate) duplicates: u64,
    /// Refused, by reason; whole messages that cannot be read are `undecodable`.
    pub(crate) rejected: BTreeMap<String, u64>,
    /// Of these, single readings.
    pub(crate) rejected_readings: u64,
    /// Messages in the dead-letter queues.
    pub(crate) dead_lettered: u64,
    pub(crate) alerts_raised: u64,
    pub(crate) alerts_resolved: u64,
    /// Alert events, raised and resolved, that the webhook has received, each counted once.
    pub(crate) alerts_delivered: u64,
    /// Calls in which it received them.
    pub(crate) webhook_calls: u64,
    /// Published, and neither stored nor among the dead letters; compared one by one.
    pub(crate) lost: u64,
    /// Stored with an older sequence number than was published.
    pub(crate) outdated: u64,
    /// Stored and never published.
    pub(crate) unexpected: u64,
    /// From the first call to the last reading settled; with a backlog (`--readings`) from the start of the workers.
    pub(crate) seconds: f64,
    /// Readings a second that were asked for with `--rate`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) asked_per_second: Option<u32>,
    /// Distinct readings stored a second.
    pub(crate) readings_per_second: f64,
    /// From published to stored; with a backlog it is the time spent waiting in the queue.
    pub(crate) latency_ms: Distribution,
    pub(crate) leases: u64,
    pub(crate) strategy: String,
    /// With `--readings`: how long accounts waited beside one with a thousand times their backlog.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) waits: Option<Waits>,
    /// Version, system and number of processors that the figures are of.
    pub(crate) machine: String,
}

/// Waiting times in milliseconds, from the start of the workers.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Waits {
    /// Readings of each of the others.
    pub(crate) others_readings: u64,
    /// Until an account's queue was leased for the first time: the others.
    pub(crate) others_first_lease_ms: Distribution,
    /// Until the last reading of an account was stored: the others.
    pub(crate) others_last_stored_ms: Distribution,
    /// The big account; none with `--alone`.
    pub(crate) big: Option<BigWait>,
}

/// What the big account waited for.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct BigWait {
    pub(crate) readings: u64,
    pub(crate) first_lease_ms: u64,
    pub(crate) last_stored_ms: u64,
}

impl Report {
    pub(crate) fn compare(&mut self, comparison: Comparison) {
        self.lost = comparison.lost;
        self.outdated = comparison.outdated;
        self.unexpected = comparison.unexpected;
    }

    /// Whether every reading is where it must be.
    pub(crate) fn is_whole(&self) -> bool {
        self.lost == 0 && self.outdated == 0 && self.unexpected == 0
    }

    /// For people.
    pub(crate) fn table(&self) -> comfy_table::Table {
        let mut t = table(&["what", "#how many", "which"]);
        let mut row = |what: &str, n: u64, which: String| {
            t.add_row([what.to_owned(), thousands(n), which]);
        };
        row("accounts", self.accounts, format!("{} queues on {}", thousands(self.queues), self.broker));
        row(
            "published",
            self.published,
            format!("readings in {} calls and {} messages", thousands(self.calls), thousands(self.messages)),
        );
        row("stored", self.stored, format!("distinct readings in {}", self.store));
        row("replaced", self.replaced, "by a higher sequence number".to_owned());
        row("duplicates", self.duplicates, "sent again, not written again".to_owned());
        let reasons: Vec<String> = self.rejected.iter().map(|(code, n)| format!("{n} {code}")).collect();
        row("rejected", self.rejected.values().sum(), reasons.join(", "));
        row("dead letters", self.dead_lettered, "each with its reason".to_owned());
        row("alerts raised", self.alerts_raised, format!("{} resolved", thousands(self.alerts_resolved)));
        row(
            "alerts delivered",
            self.alerts_delivered,
            format!("in {} signed calls of the webhook", thousands(self.webhook_calls)),
        );
        row("leases", self.leases, format!("strategy {}, {} worker(s)", self.strategy, self.workers));
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        // a rate: positive, far below 2^52
        row("readings a second", self.readings_per_second as u64, format!("in {:.1} s", self.seconds));
        let Distribution { p50, p99, max } = self.latency_ms;
        row("latency, ms", p50, format!("median; p99 {}, longest {}", thousands(p99), thousands(max)));
        if let Some(w) = &self.waits {
            let Distribution { p50, p99, max } = w.others_first_lease_ms;
            let which = |p99, max| {
                format!("median of the others; p99 {}, longest {}", thousands(p99), thousands(max))
            };
            row("first lease, ms", p50, which(p99, max));
            let Distribution { p50, p99, max } = w.others_last_stored_ms;
            row("last stored, ms", p50, which(p99, max));
            if let Some(big) = &w.big {
                let (readings, others) = (thousands(big.readings), thousands(w.others_readings));
                let which = format!("the big account: {readings} readings beside {others} of each other");
                row("last stored, ms", big.last_stored_ms, which);
            }
        }
        row("lost", self.lost, "compared one by one with the store and the dead letters".to_owned());
        if self.outdated + self.unexpected > 0 {
            row("outdated", self.outdated, "stored with an older sequence number".to_owned());
            row("unexpected", self.unexpected, "stored and never published".to_owned());
        }
        t
    }
}

/// What the figures are of.
pub(crate) fn machine() -> String {
    let processors = std::thread::available_parallelism().map_or(0, usize::from);
    let build = if cfg!(debug_assertions) { "debug" } else { "release" };
    format!(
        "galerna {} {build} build, {} {}, {processors} processors",
        env!("CARGO_PKG_VERSION"),
        std::env::consts::OS,
        std::env::consts::ARCH
    )
}
