//! Samples for the charts, kept over restarts.

use std::time::Duration;

use galerna_storage::Sample;
use tokio_util::sync::CancellationToken;

use super::Parts;
use super::observer::{Observer, Snapshot, within_timeout};

/// Time between samples, in milliseconds.
pub(super) const EVERY_MS: i64 = 10_000;
/// How long each sample is kept.
pub(super) const KEPT_FINE_MS: i64 = 24 * 3_600_000;
/// Of older ones only those at multiples of this time are, in milliseconds.
pub(super) const COARSE_MS: i64 = 300_000;
/// And for so long.
const KEPT_MS: i64 = 31 * KEPT_FINE_MS;
/// Samples between two prunings.
const PRUNE_EVERY: u32 = 60;

/// What of a look is kept.
pub(super) fn sample(snapshot: &Snapshot) -> Sample {
    let mut values = std::collections::BTreeMap::new();
    let mut keep = |name: &str, value: Option<f64>| {
        if let Some(value) = value.filter(|v| v.is_finite()) {
            values.insert(name.to_owned(), value);
        }
    };
    keep("accepted", snapshot.accepted_rate);
    keep("emitted", snapshot.spouts(|c| c.rate));
    keep("done", snapshot.spouts(|c| c.acked_rate));
    keep("failed", snapshot.spouts(|c| c.failed_rate));
    keep("ready", snapshot.backlog().map(|(ready, _)| ready as f64));
    keep("unacked", snapshot.backlog().map(|(_, unacked)| unacked as f64));
    keep("dead", snapshot.dead_total().map(|n| n as f64));
    keep("firing", snapshot.firing.as_ref().ok().map(|firing| firing.len() as f64));
    let spouts = snapshot.components.iter().filter(|c| c.is_spout());
    keep("p50", spouts.clone().map(|c| c.latency.p50_ms).reduce(f64::max));
    keep("p99", spouts.map(|c| c.latency.p99_ms).reduce(f64::max));
    let at = snapshot.at.as_millis();
    Sample { at: galerna_model::Timestamp(at - at.rem_euclid(EVERY_MS)), values }
}

/// The name of the highest value of a number in the five minutes before.
pub(super) fn highest(name: &str) -> String {
    format!("{name}.max")
}

/// What was the highest since the last sample of those that are kept long.
#[derive(Default)]
struct Highest {
    of: Option<i64>,
    values: std::collections::BTreeMap<String, f64>,
}

impl Highest {
    /// The samples to keep: the one taken, and where it is the first of its five minutes the one that is kept long, with what was
    /// highest before.
    fn take(&mut self, sample: Sample) -> Vec<Sample> {
        let at = sample.at.as_millis();
        let of = at - at.rem_euclid(COARSE_MS);
        let mut kept = Vec::new();
        if self.of.is_some_and(|before| before != of) {
            let mut long = Sample { at: galerna_model::Timestamp(of), values: sample.values.clone() };
            long.values
                .extend(std::mem::take(&mut self.values).into_iter().map(|(name, v)| (highest(&name), v)));
            kept.push(long);
        }
        self.of = Some(of);
        for (name, value) in &sample.values {
            let highest = self.values.entry(name.clone()).or_insert(*value);
            *highest = highest.max(*value);
        }
        if kept.first().is_none_or(|long| long.at != sample.at) {
            kept.push(sample);
        }
        kept
    }
}

/// Samples until `stop`. A store that does not answer costs the sample, no more.
pub(super) async fn keep(parts: Parts, stop: CancellationToken) {
    let observer = Observer::new(parts.clock.clone());
    let mut ticks = tokio::time::interval(Duration::from_millis(EVERY_MS.unsigned_abs()));
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    let (mut until_pruning, mut highest) = (0_u32, Highest::default());
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = stop.cancelled() => return,
        }
        let snapshot = observer.snapshot(&parts).await;
        parts.depths.sample(&parts, snapshot.at).await;
        let mut failed = None;
        for sample in highest.take(sample(&snapshot)) {
            failed = failed.or(within_timeout("the store", parts.store.history.put(&sample)).await.err());
        }
        if let Some(e) = failed {
            tracing::warn!(error = e, "a sample for the charts was not kept");
            continue;
        }
        if until_pruning == 0 {
            let history = &parts.store.history;
            let (fine, all) = (snapshot.at.plus_millis(-KEPT_FINE_MS), snapshot.at.plus_millis(-KEPT_MS));
            let pruned = async {
                history.thin(fine, COARSE_MS).await?;
                history.prune(all).await
            };
            if let Err(e) = within_timeout("the store", pruned).await {
                tracing::warn!(error = e, "old samples of the charts were not removed");
                continue;
            }
            until_pruning = PRUNE_EVERY;
        }
        until_pruning -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sample_that_is_kept_long_has_the_highest_of_its_five_minutes() {
        let sample = |at: i64, v: f64| Sample {
            at: galerna_model::Timestamp(at),
            values: [("done".to_owned(), v)].into_iter().collect(),
        };
        let mut highest = Highest::default();
        assert_eq!(highest.take(sample(280_000, 1.0)), [sample(280_000, 1.0)]);
        assert_eq!(highest.take(sample(290_000, 900.0)), [sample(290_000, 900.0)]);
        let first = highest.take(sample(300_000, 2.0));
        assert_eq!(first.len(), 1);
        assert_eq!(
            (first[0].at.as_millis(), first[0].values["done"], first[0].values["done.max"]),
            (300_000, 2.0, 900.0)
        );
        // One that comes late makes the other beside it.
        let late = highest.take(sample(610_000, 3.0));
        assert_eq!(late.iter().map(|s| s.at.as_millis()).collect::<Vec<_>>(), [600_000, 610_000]);
        assert!((late[0].values["done.max"] - 2.0).abs() < f64::EPSILON);
    }
}
