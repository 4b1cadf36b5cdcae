//! What a task runs: bolts of every kind as ones that take batches.

use std::any::Any;
use std::future::Future;
use std::sync::Arc;
use std::vec::IntoIter;

use galerna_lock::Mutex;

use crate::batch::Batch;
use crate::bolt::{AsyncBatchBolt, AsyncBolt, BatchBolt, Bolt};
use crate::context::TaskContext;
use crate::emitter::{Emitter, UnreachedSlot};
use crate::failure::{FailureKind, Fault};
use crate::lineage::AckToken;
use crate::outputs::Outputs;
use crate::runtime::{AckSender, AnyBatch, EdgeBatch, RemainingTuples};
use crate::watermark::Timestamp;

/// A bolt that computes, as its task sees it. The hooks are those of [`Bolt`].
pub(crate) trait ComputingBolt: Send + 'static {
    type Input: Send + 'static;
    type Outputs: Outputs;

    fn prepare(&mut self, context: &TaskContext) -> Result<(), Fault>;
    fn run(&mut self, batch: Batch<Self::Input>, out: &mut Emitter<Self::Outputs>);
    fn tick(&mut self, out: &mut Emitter<Self::Outputs>) -> Result<(), Fault>;
    fn watermark(&mut self, at: Timestamp, out: &mut Emitter<Self::Outputs>) -> Result<(), Fault>;
    fn checkpoint(&mut self, out: &mut Emitter<Self::Outputs>) -> Result<(), Fault>;
    fn drain(&mut self, out: &mut Emitter<Self::Outputs>);
    fn close(&mut self, out: &mut Emitter<Self::Outputs>);
}

/// A bolt that waits, as its task sees it. The hooks are those of [`AsyncBolt`].
pub(crate) trait WaitingBolt: Send + 'static {
    type Input: Send + 'static;
    type Outputs: Outputs;

    fn prepare(&mut self, context: &TaskContext) -> impl Future<Output = Result<(), Fault>> + Send;
    fn run(
        &mut self,
        batch: Batch<Self::Input>,
        out: &mut Emitter<Self::Outputs>,
    ) -> impl Future<Output = ()> + Send;
    fn progress(
        &mut self,
        out: &mut Emitter<Self::Outputs>,
    ) -> impl Future<Output = Result<(), Fault>> + Send;
    fn tick(&mut self, out: &mut Emitter<Self::Outputs>) -> impl Future<Output = Result<(), Fault>> + Send;
    fn drain(&mut self, out: &mut Emitter<Self::Outputs>) -> impl Future<Output = ()> + Send;
    fn close(&mut self, out: &mut Emitter<Self::Outputs>) -> impl Future<Output = ()> + Send;
}

/// A bolt that takes tuple by tuple.
pub(crate) struct ByTuple<B>(pub(crate) B);

/// A bolt that takes batches.
pub(crate) struct ByBatch<B>(pub(crate) B);

macro_rules! computing_hooks {
    ($trait:ident) => {
        type Input = B::Input;
        type Outputs = B::Outputs;

        fn prepare(&mut self, context: &TaskContext) -> Result<(), Fault> {
            $trait::prepare(&mut self.0, context)
        }
        fn tick(&mut self, out: &mut Emitter<B::Outputs>) -> Result<(), Fault> {
            $trait::tick(&mut self.0, out)
        }
        fn watermark(&mut self, at: Timestamp, out: &mut Emitter<B::Outputs>) -> Result<(), Fault> {
            $trait::watermark(&mut self.0, at, out)
        }
        fn checkpoint(&mut self, out: &mut Emitter<B::Outputs>) -> Result<(), Fault> {
            $trait::checkpoint(&mut self.0, out)
        }
        fn drain(&mut self, out: &mut Emitter<B::Outputs>) {
            $trait::drain(&mut self.0, out);
        }
        fn close(&mut self, out: &mut Emitter<B::Outputs>) {
            $trait::close(&mut self.0, out);
        }
    };
}

impl<B: Bolt> ComputingBolt for ByTuple<B> {
    computing_hooks!(Bolt);

    fn run(&mut self, batch: Batch<B::Input>, out: &mut Emitter<B::Outputs>) {
        batch.each_in_turn(out, |input, out| self.0.execute(input, out));
    }
}

impl<B: BatchBolt> ComputingBolt for ByBatch<B> {
    computing_hooks!(BatchBolt);

    fn run(&mut self, batch: Batch<B::Input>, out: &mut Emitter<B::Outputs>) {
        self.0.execute(batch, out);
    }
}

macro_rules! waiting_hooks {
    ($trait:ident) => {
        type Input = B::Input;
        type Outputs = B::Outputs;

        fn prepare(&mut self, context: &TaskContext) -> impl Future<Output = Result<(), Fault>> + Send {
            $trait::prepare(&mut self.0, context)
        }
        fn progress(
            &mut self,
            out: &mut Emitter<B::Outputs>,
        ) -> impl Future<Output = Result<(), Fault>> + Send {
            $trait::progress(&mut self.0, out)
        }
        fn tick(&mut self, out: &mut Emitter<B::Outputs>) -> impl Future<Output = Result<(), Fault>> + Send {
            $trait::tick(&mut self.0, out)
        }
        fn drain(&mut self, out: &mut Emitter<B::Outputs>) -> impl Future<Output = ()> + Send {
            $trait::drain(&mut self.0, out)
        }
        fn close(&mut self, out: &mut Emitter<B::Outputs>) -> impl Future<Output = ()> + Send {
            $trait::close(&mut self.0, out)
        }
    };
}

impl<B: AsyncBolt> WaitingBolt for ByTuple<B> {
    waiting_hooks!(AsyncBolt);

    async fn run(&mut self, batch: Batch<B::Input>, out: &mut Emitter<B::Outputs>) {
        out.set_by_row();
        let mut rows = RowsAtHand::new(batch, out.unreached());
        out.set_remaining(Some(rows.remaining.clone()));
        while let Some(value) = rows.next(out) {
            match self.0.execute(value, out).await {
                Ok(()) => out.finish_tuple(),
                Err(fault) => out.fail_tuple(FailureKind::Error, fault),
            }
        }
        out.set_remaining(None);
    }
}

impl<B: AsyncBatchBolt> WaitingBolt for ByBatch<B> {
    waiting_hooks!(AsyncBatchBolt);

    async fn run(&mut self, batch: Batch<B::Input>, out: &mut Emitter<B::Outputs>) {
        self.0.execute(batch, out).await;
    }
}

/// The tuples of a batch that an async bolt has not reached. When the bolt panics, they are stored.
struct RowsAtHand<T: Send + 'static> {
    remaining: Arc<Remaining<T>>,
    unreached: UnreachedSlot,
    acks: Option<Arc<dyn AckSender>>,
}

impl<T: Send + 'static> RowsAtHand<T> {
    fn new(mut batch: Batch<T>, unreached: UnreachedSlot) -> Self {
        let acks = batch.acks.take();
        let values = std::mem::take(&mut batch.tuples.values).into_iter();
        let tokens = batch.tuples.lineage.drain().collect::<Vec<_>>().into_iter();
        Self { remaining: Arc::new(Remaining(Mutex::new((values, tokens)))), unreached, acks }
    }

    fn next<O: Outputs>(&mut self, out: &mut Emitter<O>) -> Option<T> {
        // What is done by now does not wait for the next one.
        out.hand_over();
        let (value, token) = self.remaining.next();
        out.set_at_hand(value.is_some());
        let value = value?;
        out.begin_tuple(token);
        Some(value)
    }
}

impl<T: Send + 'static> Drop for RowsAtHand<T> {
    fn drop(&mut self) {
        let Some(rest) = self.remaining.take_rows() else { return };
        if std::thread::panicking() {
            *self.unreached.lock() = Some(Box::new(rest) as Box<dyn Any + Send>);
        } else if let Some(acks) = self.acks.take() {
            // The call was cancelled: the tuples fail as those of any dropped batch.
            drop(Batch::new(rest, acks));
        }
    }
}

/// Tuples and their tokens.
// Never contended: who runs the task looks at it between polling it.
struct Remaining<T>(Mutex<(IntoIter<T>, IntoIter<AckToken>)>);

impl<T: Send + 'static> Remaining<T> {
    fn next(&self) -> (Option<T>, AckToken) {
        let (values, tokens) = &mut *self.0.lock();
        (values.next(), tokens.next().unwrap_or_default())
    }

    fn take_rows(&self) -> Option<EdgeBatch<T>> {
        let (values, tokens) = &mut *self.0.lock();
        let mut rest = EdgeBatch::default();
        rest.values.extend(values);
        tokens.for_each(|token| rest.lineage.push(token));
        (!rest.values.is_empty()).then_some(rest)
    }
}

impl<T: Send + 'static> RemainingTuples for Remaining<T> {
    fn take(&self) -> Option<(AnyBatch, u32)> {
        let rest = self.take_rows()?;
        let rows = rest.values.len() as u32;
        Some((Box::new(rest), rows))
    }
}
