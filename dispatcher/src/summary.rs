//! A line a minute about the transitions stored: each of them alone is logged at `debug` only.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval_at};

use crate::dispatcher::Shared;

const EVERY: Duration = Duration::from_secs(60);

/// Summarises for ever; says nothing of a minute in which nothing happened.
pub(crate) async fn run(shared: Arc<Shared>) {
    let mut tick = interval_at(Instant::now() + EVERY, EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut before = shared.metrics.transitions();
    loop {
        tick.tick().await;
        let now = shared.metrics.transitions();
        let events: Vec<String> = now
            .iter()
            .map(|(event, count)| (event, count - before.get(event).copied().unwrap_or(0)))
            .filter(|(_, count)| *count > 0)
            .map(|(event, count)| format!("{event} {count}"))
            .collect();
        if !events.is_empty() {
            tracing::info!(
                target: "galerna::lease",
                dispatcher = shared.name,
                "transitions of the last minute: {}",
                events.join(", ")
            );
        }
        before = now;
    }
}
