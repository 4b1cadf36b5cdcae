//! Samples for the charts, kept over restarts.

use std::time::Duration;

use galerna_storage::Sample;
use tokio_util::sync::CancellationToken;

use super::Parts;
use super::observer::{Observer, Snapshot, within_timeout};

/// Time between samples, in milliseconds.
pub(super) const EVERY_MS: i64 = 10_000;
/// How long samples are kept.
const KEPT_MS: i64 = 24 * 3_600_000;
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

/// Samples until `stop`. A store that does not answer costs the sample, no more.
pub(super) async fn keep(parts: Parts, stop: CancellationToken) {
    let observer = Observer::new(parts.clock.clone());
    let mut ticks = tokio::time::interval(Duration::from_millis(EVERY_MS.unsigned_abs()));
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    let mut until_pruning = 0_u32;
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = stop.cancelled() => return,
        }
        let snapshot = observer.snapshot(&parts).await;
        if let Err(e) = within_timeout("the store", parts.store.history.put(&sample(&snapshot))).await {
            tracing::warn!(error = e, "a sample for the charts was not kept");
            continue;
        }
        if until_pruning == 0 {
            let before = snapshot.at.plus_millis(-KEPT_MS);
            if let Err(e) = within_timeout("the store", parts.store.history.prune(before)).await {
                tracing::warn!(error = e, "old samples of the charts were not removed");
                continue;
            }
            until_pruning = PRUNE_EVERY;
        }
        until_pruning -= 1;
    }
}
