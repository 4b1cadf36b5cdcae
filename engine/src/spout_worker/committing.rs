//! The part of a spout in checkpoints: barriers that it sends, and acks that it holds until a commit.

use std::panic::AssertUnwindSafe;
use std::sync::atomic::Ordering;

use futures_util::FutureExt;
use galerna_topology::Fault;
use tokio::sync::mpsc;

use super::SpoutWorker;
use crate::checkpoints::{Checkpoints, SpoutCommand};
use crate::metrics::add;

impl SpoutWorker {
    /// Does what the coordinator of checkpoints has said.
    pub(super) async fn obey_all(&mut self) {
        while let Some(Ok(command)) = self.commands.as_mut().map(mpsc::Receiver::try_recv) {
            self.obey(command).await;
        }
        if let Some(number) = self.run.barrier.take() {
            self.shared.in_flight.begin(1);
            self.flush(true);
            self.spout.barrier(number);
            self.take_staged();
            self.send().await;
            self.run.sent_barrier = number;
            self.shared.passed(self.plan, number, Ok(()));
            self.shared.in_flight.end(1);
        }
    }

    pub(super) async fn obey(&mut self, command: SpoutCommand) {
        match command {
            // It is sent between two fills.
            SpoutCommand::Barrier(number) => self.run.barrier = Some(number),
            SpoutCommand::Settle(answer) => {
                self.drain_acks().await;
                // The coordinator may be gone.
                let _ = answer.send(());
            }
            SpoutCommand::Committed(number) => {
                self.run.committed = number;
                self.deliver().await;
            }
        }
    }

    /// Keeps the acks of roots that are done back until the checkpoint is committed that has their effects.
    pub(super) fn hold_done(&mut self, checkpoints: &Checkpoints) {
        let (done, with_ids) = self.ledger.take_done();
        let mut roots = 0;
        for done in done {
            roots += done.slots.len as usize;
            self.spout.hold(done.slots, done.checkpoint);
        }
        if roots > with_ids {
            checkpoints.status.without_ids(self.id());
        }
        self.state.held.store(self.spout.held(), Ordering::Relaxed);
    }

    /// The acks whose checkpoint is committed go to the spout.
    pub(super) async fn release_held(&mut self) {
        match AssertUnwindSafe(self.spout.release(self.run.committed)).catch_unwind().await {
            Ok(acked) => add(&self.stats.acked, acked),
            Err(panic) => self.panicked(Fault::panicked(&*panic)).await,
        }
        self.state.held.store(self.spout.held(), Ordering::Relaxed);
    }
}
