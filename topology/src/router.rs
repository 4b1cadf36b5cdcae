//! Distributing what a bolt has emitted, and telling the ledger of what is done.

use std::sync::Arc;

use galerna_lock::Mutex;

use crate::failure::Failure;
use crate::lineage::Lineage;
use crate::outputs::Outputs;
use crate::runtime::{AckSender, LostTuples, Outbox, Signal, Staged};

/// The half of an async bolt's emitter that distributes what is done while the bolt has the other half.
pub(crate) struct Router<O> {
    outputs: O,
    outbox: Arc<Outbox>,
    acks: Arc<dyn AckSender>,
    settled: Lineage,
    acked: u64,
    /// Whether anything was handed over since the last flush of all.
    fresh: bool,
}

// Never contended: who polls the bolt takes it between polls.
pub(crate) type SharedRouter<O> = Arc<Mutex<Router<O>>>;

impl<O: Outputs> Router<O> {
    pub(crate) fn new(outputs: O, acks: Arc<dyn AckSender>) -> Self {
        let (outbox, settled) = (Arc::default(), Lineage::new());
        Self { outputs, outbox, acks, settled, acked: 0, fresh: false }
    }

    pub(crate) fn outbox(&self) -> &Arc<Outbox> {
        &self.outbox
    }

    /// Takes the rows over that a bolt has emitted.
    pub(crate) fn take_rows(&mut self, from: &mut O) {
        from.hand_over(&mut self.outputs);
    }

    /// Takes over what is done: rows, and tuples that are acked.
    pub(crate) fn take_over(&mut self, rows: &mut O, settled: &mut Lineage, acked: &mut u64) {
        self.take_rows(rows);
        self.settled.settle_all(settled);
        self.acked += std::mem::take(acked);
        self.fresh = true;
    }

    /// Tells those behind the task.
    pub(crate) fn signal(&mut self, signal: Signal) {
        self.outputs.signal(signal, &mut self.outbox.lock());
    }

    /// Distributes what was handed over, and tells the ledger of what is done.
    pub(crate) fn flush(&mut self, all: bool) {
        let outbox = self.outbox.clone();
        let mut staged = outbox.lock();
        self.outputs.route(all, &mut staged);
        staged.acked.settle_all(&mut self.settled);
        settle(&mut staged, &mut self.acked, &*self.acks);
        if all {
            self.fresh = false;
        }
    }

    /// The bolt waits: what is done need not.
    pub(crate) fn flush_fresh(&mut self) {
        if self.fresh {
            self.flush(true);
        }
    }
}

/// Fails what was lost, and tells the ledger of what is done.
pub(crate) fn settle(staged: &mut Staged, acked: &mut u64, acks: &dyn AckSender) {
    if !staged.lost.is_empty() {
        fail_lost(std::mem::take(&mut staged.lost), acks);
    }
    if *acked > 0 || !staged.acked.is_empty() {
        acks.settle(&mut staged.acked, *acked, None);
        staged.acked.clear();
        staged.returned += std::mem::take(acked);
    }
}

/// These tuples reach nobody: their roots fail here.
#[cold]
pub(crate) fn fail_lost(lost: Vec<LostTuples>, acks: &dyn AckSender) {
    for LostTuples { mut lineage, rows, kind, fault } in lost {
        let failure = Failure { kind, fault, component: acks.component().clone() };
        acks.fail(&mut lineage, rows, &failure);
    }
}
