//! What came of roots: acks, failures and timeouts, told to the ledger and to the spout.

use std::panic::AssertUnwindSafe;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::FutureExt;
use galerna_topology::{FailureKind, Fault};

use super::SpoutWorker;
use crate::ack_sender::AckMessage;
use crate::clock::nanos;
use crate::metrics::add;

impl SpoutWorker {
    /// Takes all that bolts have sent, and tells the spout.
    pub(super) async fn drain_acks(&mut self) {
        let mut any = false;
        while let Ok((epoch, message)) = self.acks.try_recv() {
            if !any {
                self.ledger.set_now(nanos(self.shared.clock.now()));
                any = true;
            }
            self.apply_now(epoch, message);
        }
        if self.ledger.check_at().is_some_and(|at| at <= nanos(self.shared.clock.now())) {
            self.expire(self.shared.clock.now());
        }
        self.deliver().await;
    }

    pub(super) fn apply(&mut self, epoch: u64, message: AckMessage) {
        self.ledger.set_now(nanos(self.shared.clock.now()));
        self.apply_now(epoch, message);
    }

    fn apply_now(&mut self, epoch: u64, message: AckMessage) {
        let checkpointed = self.commands.is_some();
        match message {
            AckMessage::AckedRange(first, rows) if checkpointed => {
                self.ledger.settle_whole_in(epoch, first, rows, &self.stats.complete);
            }
            AckMessage::Acked(spans) if checkpointed => {
                self.ledger.settle_in(epoch, spans, &self.stats.complete);
            }
            AckMessage::AckedRange(first, rows) => {
                self.ledger.settle_whole(first, rows, &self.stats.complete)
            }
            AckMessage::Acked(spans) => self.ledger.settle(spans, &self.stats.complete),
            AckMessage::Failed(spans, failure) => self.ledger.fail(spans, &failure),
            AckMessage::ResetTimeout(spans) => self.ledger.restart(spans),
        }
        self.shared.in_flight.end(1);
    }

    pub(super) fn expire(&mut self, now: Duration) {
        let failure = self.failure(FailureKind::Timeout, "timeout");
        self.ledger.expire(nanos(now), &failure);
    }

    /// Hands what is done and failed to the spout. While there is none that is open, it waits: no root is emitted meanwhile
    /// whose slot could be one of these.
    pub(super) async fn deliver(&mut self) {
        if self.commands.is_some() {
            let shared = self.shared.clone();
            shared.checkpoints.iter().for_each(|checkpoints| self.hold_done(checkpoints));
            if self.run.open {
                Box::pin(self.release_held()).await;
            }
        } else if self.run.open {
            let acked: u64 = self.ledger.acked().iter().map(|run| u64::from(run.len)).sum();
            if acked > 0 {
                add(&self.stats.acked, acked);
                let delivered = AssertUnwindSafe(self.spout.acked(self.ledger.acked())).catch_unwind().await;
                if let Err(panic) = delivered {
                    self.panicked(Fault::panicked(&*panic)).await;
                }
            }
        }
        if self.run.open && !self.ledger.failed().is_empty() {
            for (_, failure) in self.ledger.failed().iter() {
                self.stats.add_failed(failure, 1);
            }
            let delivered = AssertUnwindSafe(self.spout.failed(self.ledger.failed())).catch_unwind().await;
            if let Err(panic) = delivered {
                self.panicked(Fault::panicked(&*panic)).await;
            }
        }
        self.publish_pending();
    }

    pub(super) fn publish_pending(&self) {
        let pending = self.ledger.pending();
        self.stats.pending.store(pending as u64, Ordering::Relaxed);
        if self.state.pending.swap(pending, Ordering::AcqRel) != pending && pending == 0 {
            self.shared.in_flight.touch();
        }
    }
}
