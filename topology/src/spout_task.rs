//! The typed half of a spout's task: a spout with its outputs, behind [`SpoutTask`].

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::context::TaskContext;
use crate::factory::Factory;
use crate::failure::{Failed, Failure, Fault};
use crate::held_acks::HeldAcks;
use crate::lineage::ShareRng;
use crate::outputs::OutputSet;
use crate::runtime::{
    BoxFuture, Destinations, RootAllocator, Signal, SlotRange, SpoutTask, Staged, TaskSetup,
};
use crate::spout::{Fill, Next, Roots, Spout};
use crate::task::{drop_panicked, open_outputs};
use crate::watermark::Watermark;

/// The task of a [`Spout`].
pub(crate) struct TypedSpoutTask<S: Spout> {
    factory: Factory<S>,
    /// Made when it is opened; none after a panic.
    spout: Option<S>,
    outputs: S::Outputs,
    context: TaskContext,
    ids: Vec<Option<S::MessageId>>,
    held: HeldAcks<S::MessageId>,
    acked: Vec<S::MessageId>,
    failed: Vec<Failed<S::MessageId>>,
    staged: Staged,
    shares: ShareRng,
    destinations: Destinations,
    tracking: bool,
}

impl<S: Spout> TypedSpoutTask<S> {
    pub(crate) fn new(factory: Factory<S>, mut setup: TaskSetup) -> Self {
        Self {
            factory,
            spout: None,
            outputs: open_outputs(&mut setup),
            context: setup.context,
            ids: Vec::new(),
            held: HeldAcks::default(),
            acked: Vec::new(),
            failed: Vec::new(),
            staged: Staged::default(),
            shares: ShareRng::new(setup.seed),
            destinations: setup.destinations,
            tracking: setup.tracking,
        }
    }
}

impl<S: Spout> SpoutTask for TypedSpoutTask<S> {
    fn open(&mut self) -> BoxFuture<'_, Result<(), Fault>> {
        Box::pin(async move {
            let made = catch_unwind(AssertUnwindSafe(|| (self.factory)()));
            let spout = self.spout.insert(made.map_err(|panic| Fault::panicked(&*panic))?);
            let opened = spout.open(&self.context).await;
            if opened.is_err() {
                drop_panicked(&mut self.spout);
            }
            opened
        })
    }

    fn fill<'a>(
        &'a mut self,
        roots: &'a mut (dyn RootAllocator + Send),
        room: usize,
    ) -> BoxFuture<'a, Result<Next, Fault>> {
        Box::pin(async move {
            let Some(spout) = &mut self.spout else { return Err(Fault::transient("the spout is not open")) };
            let mut out = Roots::new(
                &mut self.outputs,
                &mut self.ids,
                roots,
                &mut self.staged,
                &mut self.shares,
                Fill {
                    destinations: &self.destinations,
                    held: &mut self.held,
                    room,
                    tracking: self.tracking,
                },
            );
            let outcome = loop {
                let before = out.emitted();
                match spout.next(&mut out).await {
                    // A spout that is ready but emitted nothing gives others a turn.
                    Ok(Next::Ready) if out.emitted() < room && out.emitted() > before => {}
                    other => break other,
                }
            };
            drop(out);
            self.outputs.route(false, &mut self.staged);
            outcome
        })
    }

    fn recover(&mut self) {
        drop_panicked(&mut self.spout);
    }

    fn shrink(&mut self, capacity: usize) {
        for slot in capacity..self.ids.len() {
            if let Some(id) = self.ids[slot].take() {
                self.ids[slot % capacity] = Some(id);
            }
        }
        self.ids.truncate(capacity);
        self.ids.shrink_to_fit();
        self.acked.shrink_to_fit();
        self.failed.shrink_to_fit();
    }

    fn ready(&mut self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            match &mut self.spout {
                Some(spout) => spout.ready().await,
                None => std::future::pending().await,
            }
        })
    }

    fn is_full(&self) -> bool {
        self.spout.as_ref().is_some_and(Spout::is_full)
    }

    fn acked<'a>(&'a mut self, slots: &'a mut Vec<SlotRange>) -> BoxFuture<'a, ()> {
        for run in slots.drain(..) {
            let run = run.first as usize..(run.first + run.len) as usize;
            self.acked.extend(self.ids[run].iter_mut().filter_map(Option::take));
        }
        Box::pin(async move {
            // Taken out first: if the spout panics at them, they are not told again.
            let mut ids = std::mem::take(&mut self.acked);
            if !ids.is_empty()
                && let Some(spout) = &mut self.spout
            {
                spout.acked(&mut ids).await;
            }
            ids.clear();
            self.acked = ids;
        })
    }

    fn failed<'a>(&'a mut self, slots: &'a mut Vec<(u32, Failure)>) -> BoxFuture<'a, ()> {
        for (slot, failure) in slots.drain(..) {
            if let Some(id) = self.ids.get_mut(slot as usize).and_then(Option::take) {
                self.failed.push(Failed { id, failure });
            }
        }
        Box::pin(async move {
            let mut failed = std::mem::take(&mut self.failed);
            if !failed.is_empty()
                && let Some(spout) = &mut self.spout
            {
                spout.failed(&mut failed).await;
            }
            failed.clear();
            self.failed = failed;
        })
    }

    fn hold(&mut self, slots: SlotRange, until: u64) {
        let run = slots.first as usize..(slots.first + slots.len) as usize;
        self.held.hold(until, self.ids[run].iter_mut().filter_map(Option::take));
    }

    fn held(&self) -> usize {
        self.held.len()
    }

    fn release(&mut self, committed: u64) -> BoxFuture<'_, u64> {
        Box::pin(async move {
            let Some(spout) = &mut self.spout else { return 0 };
            let mut ids = self.held.release(committed);
            let count = ids.len() as u64;
            if count > 0 {
                spout.acked(&mut ids).await;
            }
            count
        })
    }

    fn barrier(&mut self, checkpoint: u64) {
        self.outputs.route(true, &mut self.staged);
        self.outputs.signal(Signal::Barrier(checkpoint), &mut self.staged);
    }

    fn activate(&mut self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            if let Some(spout) = &mut self.spout {
                spout.activate().await;
            }
        })
    }

    fn deactivate(&mut self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            if let Some(spout) = &mut self.spout {
                spout.deactivate().await;
            }
        })
    }

    fn close(&mut self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            if let Some(mut spout) = self.spout.take() {
                spout.close().await;
            }
        })
    }

    fn end(&mut self) {
        self.outputs.route(true, &mut self.staged);
        self.outputs.signal(Signal::Watermark(Watermark::END), &mut self.staged);
    }

    fn flush(&mut self, all: bool) {
        self.outputs.route(all, &mut self.staged);
    }

    fn staged(&mut self) -> &mut Staged {
        &mut self.staged
    }
}
