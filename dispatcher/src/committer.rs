//! Writes what the planner plans.

use std::sync::Arc;

use tokio::time::{Instant, timeout, timeout_at};

use crate::dispatcher::Shared;
use crate::planner::{Batch, Moment};

/// What a committer does next.
enum Step {
    /// Write this batch; whether there is more to plan for another committer.
    Write(Batch, bool),
    /// Plan again then, or when calls come.
    WaitUntil(Instant),
    /// Plan again when calls come.
    Wait,
    /// Plan again at once: the calls planned needed no write, and there are more.
    PlanAgain,
}

/// Plans and writes, for ever. Several run at once.
pub(crate) async fn run(shared: Arc<Shared>) {
    let mut returned = false;
    loop {
        match next_step(&shared, std::mem::take(&mut returned)) {
            Step::PlanAgain => {}
            Step::Wait => shared.work.notified().await,
            Step::WaitUntil(until) => drop(timeout_at(until, shared.work.notified()).await),
            Step::Write(batch, more) => {
                if more {
                    shared.work.notify_one(); // Another committer may take what did not fit.
                }
                write(&shared, batch).await;
                // Those who were answered may run before this goes on: what they ask for next then goes into one write.
                tokio::task::yield_now().await;
                returned = true;
            }
        }
    }
}

fn next_step(shared: &Shared, returned: bool) -> Step {
    let at = shared.moment();
    let mut planner = shared.planner.lock();
    if returned {
        planner.committer_returned();
    }
    if let Some(until) = planner.delay_plan_until(at.now) {
        return Step::WaitUntil(until);
    }
    match planner.plan(at) {
        Some(batch) => Step::Write(batch, planner.has_work()),
        None if planner.has_work() => Step::PlanAgain,
        None => Step::Wait,
    }
}

async fn write(shared: &Shared, batch: Batch) {
    let began = Instant::now();
    let limit = shared.timing.store_timeout;
    let outcome = match timeout(limit, shared.queues.swap(&batch.swaps)).await {
        Ok(Ok(outcomes)) => Ok(outcomes),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("the store did not answer within {limit:?}")),
    };
    shared.metrics.commit_seconds.observe(began.elapsed().as_secs_f64());
    shared.metrics.commit_writes.observe(batch.swaps.len() as f64);
    let at: Moment = shared.moment();
    shared.planner.lock().finish(batch, outcome, at);
    shared.timers.notify_one();
}
