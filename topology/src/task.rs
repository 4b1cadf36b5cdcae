//! The typed halves of bolts' tasks: a bolt with its outputs, behind the traits of [`crate::runtime`].

use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Arc;

use galerna_lock::Mutex;

use crate::adapt::{ComputingBolt, WaitingBolt};
use crate::batch::Batch;
use crate::context::TaskContext;
use crate::emitter::Emitter;
use crate::factory::Factory;
use crate::failure::{FailureKind, Fault};
use crate::outputs::{OutputSet, Outputs};
use crate::router::{Router, SharedRouter};
use crate::runtime::{
    AnyBatch, AsyncBoltTask, BoltTask, BoxFuture, Delivery, EdgeBatch, LostTuples, Outbox, Processed, Staged,
    TaskSetup,
};
use crate::watermark::{Sender, Watermark};

pub(crate) fn open_outputs<O: Outputs>(setup: &mut TaskSetup) -> O {
    let mut outputs = O::open(setup.seed.wrapping_mul(0x2545_f491_4f6c_dd1d));
    for (stream, route) in setup.routes.drain(..) {
        outputs.attach(stream, route);
    }
    outputs
}

/// The task of a bolt that computes.
pub(crate) struct TypedBoltTask<B: ComputingBolt> {
    factory: Factory<B>,
    bolt: Option<B>,
    out: Emitter<B::Outputs>,
    context: TaskContext,
}

impl<B: ComputingBolt> TypedBoltTask<B> {
    pub(crate) fn new(factory: Factory<B>, mut setup: TaskSetup) -> Self {
        let outputs = open_outputs(&mut setup);
        let out = Emitter::new(
            outputs,
            setup.seed,
            setup.acks,
            setup.context.clone(),
            setup.subscriptions,
            setup.destinations,
        );
        Self { factory, bolt: None, out, context: setup.context }
    }

    fn make(&mut self) -> Result<(), Fault> {
        let made = catch_unwind(AssertUnwindSafe(|| {
            let mut bolt = (self.factory)();
            bolt.prepare(&self.context).map(|()| bolt)
        }));
        self.bolt = Some(made.map_err(|panic| Fault::panicked(&*panic))??);
        Ok(())
    }

    /// After a panic: a new instance is made when one is needed.
    fn discard_instance(&mut self) {
        self.out.staged().restarts += 1;
        drop_panicked(&mut self.bolt);
    }

    /// If somebody has said how far it is: the bolt hears of it if this task's own watermark has risen, and then those behind it.
    #[inline]
    fn advance(&mut self) -> Result<(), Fault> {
        if self.out.take_watermark_came() { self.tell_watermark() } else { Ok(()) }
    }

    fn tell_watermark(&mut self) -> Result<(), Fault> {
        let outcome = match self.out.risen() {
            Some(at) => {
                if self.bolt.is_none() {
                    self.make()?;
                }
                self.hook(|bolt, out| bolt.watermark(at, out)).and_then(|outcome| outcome.unwrap_or(Ok(())))
            }
            None => Ok(()),
        };
        self.out.tell_watermark();
        self.out.show_watermark();
        outcome
    }

    /// Runs a hook if there is a bolt. What it emitted is unanchored.
    fn hook<R>(
        &mut self,
        hook: impl FnOnce(&mut B, &mut Emitter<B::Outputs>) -> R,
    ) -> Result<Option<R>, Fault> {
        let Self { bolt: Some(bolt), out, .. } = self else { return Ok(None) };
        let outcome = catch_unwind(AssertUnwindSafe(|| hook(bolt, out)));
        self.out.seal_unanchored();
        outcome.map(Some).map_err(|panic| {
            self.discard_instance();
            Fault::panicked(&*panic)
        })
    }
}

/// Dropping a bolt or spout that panicked may panic again.
pub(crate) fn drop_panicked<B>(instance: &mut Option<B>) {
    let instance = instance.take();
    let _ = catch_unwind(AssertUnwindSafe(move || drop(instance)));
}

impl<B: ComputingBolt> BoltTask for TypedBoltTask<B> {
    fn prepare(&mut self) -> Result<(), Fault> {
        self.make()
    }

    fn process(&mut self, tuples: AnyBatch, delivery: &Delivery) -> Processed {
        let mut processed = Processed::default();
        let Ok(mut boxed) = tuples.downcast::<EdgeBatch<B::Input>>() else {
            processed.faults.push(Fault::permanent("a batch of another type arrived"));
            return processed;
        };
        let mut tuples = std::mem::take(&mut *boxed);
        self.out.set_spare(boxed);
        self.out.set_delivery(Some(*delivery));
        loop {
            self.out.begin_batch(&mut tuples.lineage);
            let batch = Batch::new(tuples, self.out.acks().clone());
            if self.bolt.is_none()
                && let Err(error) = self.make()
            {
                batch.fail(error.clone());
                processed.faults.push(error);
                break;
            }
            let Self { bolt: Some(bolt), out, .. } = self else { break };
            let executed = catch_unwind(AssertUnwindSafe(|| bolt.run(batch, out)));
            let rest = self.out.take_unreached().and_then(|rest| rest.downcast::<EdgeBatch<B::Input>>().ok());
            let Err(panic) = executed else {
                self.out.finish_batch();
                processed.rest = rest.map(|rest| {
                    let rows = rest.values.len() as u32;
                    (rest as AnyBatch, rows)
                });
                break;
            };
            let fault = Fault::panicked(&*panic);
            self.out.fail_tuple(FailureKind::Panic, fault.clone());
            self.out.finish_batch();
            processed.faults.push(fault);
            self.discard_instance();
            match rest {
                Some(rest) => tuples = *rest,
                None => break,
            }
        }
        self.out.set_delivery(None);
        // A batch override may have emitted without a tuple at hand.
        self.out.seal_unanchored();
        self.out.flush(false);
        if let Err(fault) = self.advance() {
            processed.faults.push(fault);
        }
        processed.spare = self.out.take_spare();
        processed
    }

    fn watermark(&mut self, watermark: Watermark, delivery: &Delivery) -> Result<(), Fault> {
        let sender = Sender { input: delivery.input, task: delivery.sender as usize };
        self.out.set_watermark(sender, watermark);
        self.advance()
    }

    fn checkpoint(&mut self) -> Result<(), Fault> {
        self.hook(|bolt, out| bolt.checkpoint(out)).and_then(|outcome| outcome.unwrap_or(Ok(())))
    }

    fn barrier(&mut self, checkpoint: u64) {
        self.out.send_barrier(checkpoint);
    }

    fn lose(&mut self, lost: Vec<LostTuples>) {
        self.out.staged().panics += lost.len() as u64;
        self.out.lose(lost);
    }

    fn tick(&mut self) -> Result<(), Fault> {
        if self.bolt.is_none() {
            self.make()?;
        }
        let ticked = self.hook(|bolt, out| bolt.tick(out))?.unwrap_or(Ok(()));
        ticked.and(self.advance())
    }

    fn drain(&mut self) -> Result<(), Fault> {
        self.hook(|bolt, out| bolt.drain(out)).map(drop)
    }

    fn close(&mut self) -> Result<(), Fault> {
        let closed = self.hook(|bolt, out| bolt.close(out)).map(drop);
        let bolt = self.bolt.take();
        let dropped = catch_unwind(AssertUnwindSafe(move || drop(bolt)));
        closed.and(dropped.map_err(|panic| Fault::panicked(&*panic)))
    }

    fn flush(&mut self, all: bool) {
        self.out.flush(all);
    }

    fn staged(&mut self) -> &mut Staged {
        self.out.staged()
    }
}

/// The task of a bolt that waits.
pub(crate) struct TypedAsyncBoltTask<B: WaitingBolt> {
    factory: Factory<B>,
    bolt: Option<B>,
    out: Emitter<B::Outputs>,
    router: SharedRouter<B::Outputs>,
    outbox: Arc<Outbox>,
    context: TaskContext,
}

impl<B: WaitingBolt> TypedAsyncBoltTask<B> {
    pub(crate) fn new(factory: Factory<B>, mut setup: TaskSetup) -> Self {
        let router = Router::new(open_outputs(&mut setup), setup.acks.clone());
        let (outbox, router) = (router.outbox().clone(), Arc::new(Mutex::new(router)));
        // The other half has no routes: it hands over what it has.
        let outputs = B::Outputs::open(setup.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let out = Emitter::new(
            outputs,
            setup.seed,
            setup.acks,
            setup.context.clone(),
            setup.subscriptions,
            setup.destinations,
        )
        .with_router(router.clone());
        Self { factory, bolt: None, out, router, outbox, context: setup.context }
    }
}

impl<B: WaitingBolt> AsyncBoltTask for TypedAsyncBoltTask<B> {
    fn prepare(&mut self) -> BoxFuture<'_, Result<(), Fault>> {
        Box::pin(async move {
            let made = catch_unwind(AssertUnwindSafe(|| (self.factory)()));
            let mut bolt = made.map_err(|panic| Fault::panicked(&*panic))?;
            bolt.prepare(&self.context).await?;
            self.bolt = Some(bolt);
            Ok(())
        })
    }

    fn process(&mut self, tuples: AnyBatch, delivery: Delivery) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            let Ok(mut tuples) = tuples.downcast::<EdgeBatch<B::Input>>() else { return };
            if self.bolt.is_some() {
                self.out.begin_batch(&mut tuples.lineage);
            }
            let batch = Batch::new(*tuples, self.out.acks().clone());
            let Self { bolt: Some(bolt), out, router, .. } = self else {
                batch.fail(Fault::transient("the bolt could not be rebuilt after a panic"));
                return;
            };
            out.set_delivery(Some(delivery));
            {
                let mut executing = pin!(bolt.run(batch, out));
                poll_fn(|context| {
                    let polled = executing.as_mut().poll(context);
                    if polled.is_pending() {
                        router.lock().flush_fresh();
                    }
                    polled
                })
                .await;
            }
            self.out.finish_batch();
            self.out.set_delivery(None);
            self.out.seal_unanchored();
            self.out.flush(false);
        })
    }

    fn watermark(&mut self, watermark: Watermark, delivery: Delivery) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            let sender = Sender { input: delivery.input, task: delivery.sender as usize };
            self.out.set_watermark(sender, watermark);
            if self.out.risen().is_some()
                && let Some(bolt) = &mut self.bolt
            {
                bolt.drain(&mut self.out).await;
                self.out.seal_unanchored();
            }
            self.out.tell_watermark();
            self.out.show_watermark();
        })
    }

    fn checkpoint(&mut self) -> BoxFuture<'_, Result<(), Fault>> {
        Box::pin(async move {
            if let Some(bolt) = &mut self.bolt {
                bolt.drain(&mut self.out).await;
                self.out.seal_unanchored();
            }
            Ok(())
        })
    }

    fn barrier(&mut self, checkpoint: u64) {
        self.out.seal_unanchored();
        self.out.send_barrier(checkpoint);
    }

    fn is_by_row(&self) -> bool {
        self.out.is_by_row()
    }

    fn outbox(&self) -> &Arc<Outbox> {
        &self.outbox
    }

    fn recover(&mut self, fault: &Fault) -> Option<AnyBatch> {
        self.out.fail_tuple(FailureKind::Panic, fault.clone());
        self.out.finish_batch();
        self.out.set_delivery(None);
        self.out.seal_unanchored();
        self.out.flush(false);
        drop_panicked(&mut self.bolt);
        self.out.take_unreached()
    }

    fn lose(&mut self, lost: Vec<LostTuples>) {
        self.outbox.lock().panics += lost.len() as u64;
        self.out.lose(lost);
    }

    fn refuse(&mut self, tuples: AnyBatch, fault: &Fault) {
        if let Ok(tuples) = tuples.downcast::<EdgeBatch<B::Input>>() {
            Batch::new(*tuples, self.out.acks().clone()).fail(fault.clone());
        }
    }

    fn progress(&mut self) -> BoxFuture<'_, Result<(), Fault>> {
        Box::pin(async move {
            let Some(bolt) = &mut self.bolt else { return std::future::pending().await };
            let outcome = bolt.progress(&mut self.out).await;
            self.out.seal_unanchored();
            outcome
        })
    }

    fn tick(&mut self) -> BoxFuture<'_, Result<(), Fault>> {
        Box::pin(async move {
            let Some(bolt) = &mut self.bolt else { return Ok(()) };
            let outcome = bolt.tick(&mut self.out).await;
            self.out.seal_unanchored();
            outcome
        })
    }

    fn drain(&mut self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            if let Some(bolt) = &mut self.bolt {
                bolt.drain(&mut self.out).await;
                self.out.seal_unanchored();
            }
        })
    }

    fn close(&mut self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            if let Some(mut bolt) = self.bolt.take() {
                bolt.close(&mut self.out).await;
                self.out.seal_unanchored();
            }
        })
    }

    fn flush(&mut self, all: bool) {
        // A progress call that was dropped half-way may have left rows without a token.
        self.out.seal_unanchored();
        self.out.flush(all);
    }
}
