//! Sharing of threads by the clock.

use std::future::poll_fn;
use std::task::Poll;
use std::time::Duration;

use galerna_topology::Clock;
use tokio::runtime::{Handle, RuntimeFlavor};

/// How long a task works before others get a turn.
pub(crate) const TURN: Duration = Duration::from_millis(1);
/// How long it may do so without the runtime looking for timers and sockets.
const DRIVER: Duration = Duration::from_millis(4);

/// The turn of a task that computes.
pub(crate) struct Turn {
    began: Duration,
    driver: Duration,
    /// Whether there are other threads that could take this task while one that it woke runs here.
    threads: bool,
}

impl Turn {
    pub(crate) fn new(clock: &dyn Clock) -> Self {
        let threads =
            Handle::try_current().is_ok_and(|handle| handle.runtime_flavor() == RuntimeFlavor::MultiThread);
        Self { began: clock.now(), driver: clock.now(), threads }
    }

    /// A turn begins: the task was idle.
    pub(crate) fn begin(&mut self, now: Duration) {
        self.began = now;
        self.driver = now;
    }

    /// When this turn began.
    pub(crate) fn began(&self) -> Duration {
        self.began
    }

    /// Whether it is time for others.
    pub(crate) fn is_over(&self, now: Duration) -> bool {
        now.saturating_sub(self.began) >= TURN
    }

    /// Lets others run.
    ///
    /// `yield_now` puts a task aside until its thread has nothing else to do. On several threads that would keep a task and the
    /// one that it has just sent something to on one thread, taking turns, while another thread is idle; so there a task mostly
    /// goes to the end of the thread's queue, from which idle threads take.
    pub(crate) async fn pass(&mut self, clock: &dyn Clock) {
        if self.threads && clock.now().saturating_sub(self.driver) < DRIVER {
            let mut passed = false;
            poll_fn(|context| {
                if std::mem::replace(&mut passed, true) {
                    return Poll::Ready(());
                }
                context.waker().wake_by_ref();
                Poll::Pending
            })
            .await;
        } else {
            tokio::task::yield_now().await;
            self.driver = clock.now();
        }
        self.began = clock.now();
    }
}
