//! Expires leases, and ends delays after crashes.

use std::sync::Arc;
use std::time::Duration;

use galerna_lease::QueueEvent;
use tokio::time::Instant;

use crate::dispatcher::Shared;
use crate::planner::{PendingCall, QueueCall, WaitFor};

/// Leases expired in one go.
const MAX_EXPIRED: usize = 1_000;
/// How often timers are looked at when there are none; whoever sets one wakes this task.
const IDLE: Duration = Duration::from_secs(60);

/// Runs the table's timers, for ever: expires leases that this dispatcher has watched for long enough.
pub(crate) async fn run(shared: Arc<Shared>) {
    loop {
        let (next, has_work) = {
            let mut planner = shared.planner.lock();
            for lease in planner.table.expired(Instant::now(), MAX_EXPIRED) {
                let event = QueueEvent::Expire { epoch: lease.epoch, renewal: lease.renewal };
                let call = QueueCall::own(lease.queue, event, shared.name.clone());
                planner.calls.wait(PendingCall::OnQueue(call), WaitFor::NextPlan);
            }
            planner.wake_waiters();
            (planner.table.next_timer(), planner.has_work())
        };
        if has_work {
            shared.work.notify_one();
        }
        tokio::select! {
            () = tokio::time::sleep_until(next.unwrap_or_else(|| Instant::now() + IDLE)) => {}
            () = shared.timers.notified() => {}
        }
    }
}
