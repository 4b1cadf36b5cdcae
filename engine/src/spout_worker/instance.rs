//! The instance of a spout, made anew after a panic.

use std::panic::AssertUnwindSafe;

use futures_util::FutureExt;
use galerna_topology::Fault;

use super::{PollState, SpoutWorker};
use crate::metrics::add;

impl SpoutWorker {
    pub(super) async fn panicked(&mut self, fault: Fault) {
        self.faults.report(&fault);
        self.restart().await;
        // The new instance is asked for what it has, whatever the other one said last; not at once, or one that always panics
        // would keep a core busy.
        if self.run.poll != PollState::Done {
            self.run.poll = self.pause();
        }
    }

    /// After a panic: a new instance takes over.
    pub(super) async fn restart(&mut self) {
        add(&self.stats.restarts, 1);
        self.spout.recover();
        self.run.open = false;
        self.open_again().await;
    }

    /// Opens a new instance. If it cannot be opened, that is tried again after a pause.
    pub(super) async fn open_again(&mut self) {
        let opened = AssertUnwindSafe(self.spout.open()).catch_unwind().await;
        let Err(fault) = opened.unwrap_or_else(|panic| Err(Fault::panicked(&*panic))) else {
            self.run.open = true;
            self.run.opening.reset();
            if self.run.active {
                // It has not heard of that.
                let activated = AssertUnwindSafe(self.spout.activate()).catch_unwind().await;
                if let Err(panic) = activated {
                    self.cannot_open(Fault::panicked(&*panic));
                }
            }
            return;
        };
        self.cannot_open(fault);
    }

    fn cannot_open(&mut self, fault: Fault) {
        self.faults.report(&fault);
        self.spout.recover();
        self.run.open = false;
        let pause = self.run.opening.pause();
        self.run.open_at = self.shared.clock.now().saturating_add(pause);
    }
}
