//! Bolts: what computes on tuples, and what waits for something with them.

use std::any::Any;
use std::future::{Future, pending};
use std::sync::PoisonError;

use crate::anchor::Batch;
use crate::context::TaskContext;
use crate::emitter::{Emitter, UnreachedSlot};
use crate::failure::{FailureKind, Fault};
use crate::outputs::Outputs;
use crate::runtime::EdgeBatch;

/// A bolt that computes: it never waits. For those that do, see [`AsyncBolt`].
///
/// One instance runs per task, made by the factory given to
/// [`TopologyBuilder::bolt`](crate::TopologyBuilder::bolt). After a panic the instance is replaced by a
/// new one from the factory (and prepared); the tuple at hand fails and no other.
pub trait Bolt: Send + 'static {
    /// What it takes. A bolt with several inputs takes an enum that each of them converts `Into`.
    type Input: Send + 'static;
    /// What it emits on: [`Output<T>`](crate::Output), `()`, or a struct made by
    /// [`outputs!`](crate::outputs!).
    type Outputs: Outputs;

    /// Called once before the first tuple.
    ///
    /// # Errors
    /// An error keeps the topology from starting.
    fn prepare(&mut self, context: &TaskContext) -> Result<(), Fault> {
        let _ = context;
        Ok(())
    }

    /// Takes one tuple. `Ok` acks it unless it was [kept](Emitter::keep).
    ///
    /// # Errors
    /// An error fails the tuple's root with that reason, and takes back what this call emitted anchored
    /// to it.
    fn execute(&mut self, input: Self::Input, out: &mut Emitter<Self::Outputs>) -> Result<(), Fault>;

    /// Takes a batch. Override it where work is cheaper by the batch; by default it executes each tuple.
    fn execute_batch(&mut self, batch: Batch<Self::Input>, out: &mut Emitter<Self::Outputs>) {
        batch.each_in_turn(out, |input, out| self.execute(input, out));
    }

    /// Called at the component's tick interval, if it has one.
    ///
    /// # Errors
    /// An error is reported in the metrics; the bolt carries on.
    fn tick(&mut self, out: &mut Emitter<Self::Outputs>) -> Result<(), Fault> {
        let _ = out;
        Ok(())
    }

    /// Called while a topology drains, whenever the input has run dry, and before `close`: finish with the
    /// tuples that are kept, so that the spouts' roots can end.
    fn drain(&mut self, out: &mut Emitter<Self::Outputs>) {
        let _ = out;
    }

    /// Called once after the last tuple. What it emits still goes downstream.
    fn close(&mut self, out: &mut Emitter<Self::Outputs>) {
        let _ = out;
    }
}

/// A bolt that waits: for a store, a broker, an HTTP answer.
///
/// The futures are the task's own, monomorphised; a tuple costs no boxed future. To keep several
/// requests going at once, keep the batches ([`Batch::into_parts`]) with their futures in the bolt and
/// drive these in [`progress`](Self::progress).
pub trait AsyncBolt: Send + 'static {
    /// What it takes. A bolt with several inputs takes an enum that each of them converts `Into`.
    type Input: Send + 'static;
    /// What it emits on.
    type Outputs: Outputs;

    /// Called once before the first tuple.
    ///
    /// # Errors
    /// An error keeps the topology from starting.
    fn prepare(&mut self, context: &TaskContext) -> impl Future<Output = Result<(), Fault>> + Send {
        let _ = context;
        async { Ok(()) }
    }

    /// Takes one tuple. `Ok` acks it unless it was [kept](Emitter::keep). It runs to its end; it is
    /// dropped in mid-way only when a stop runs out of time, and then the tuple fails.
    ///
    /// # Errors
    /// An error fails the tuple's root with that reason, and takes back what this call emitted anchored
    /// to it.
    fn execute(
        &mut self,
        input: Self::Input,
        out: &mut Emitter<Self::Outputs>,
    ) -> impl Future<Output = Result<(), Fault>> + Send;

    /// Takes a batch: sinks override this. By default it executes each tuple, one after the other. A
    /// bolt that overrides it never sees [`execute`](Self::execute).
    fn execute_batch(
        &mut self,
        batch: Batch<Self::Input>,
        out: &mut Emitter<Self::Outputs>,
    ) -> impl Future<Output = ()> + Send {
        async move {
            out.set_by_row();
            let mut rows = RemainingRows::new(batch, out.unreached());
            while let Some(value) = rows.next(out) {
                match self.execute(value, out).await {
                    Ok(()) => out.finish_tuple(),
                    Err(fault) => out.fail_tuple(FailureKind::Error, fault),
                }
            }
        }
    }

    /// Runs while the bolt waits for input: drive work in flight here, and start what was put off until
    /// the input ran dry. After it resolves, what it emitted is sent and it is called again; the default
    /// never resolves.
    ///
    /// **Must be cancel-safe**: it is dropped when input arrives, and called anew afterwards. Emit only
    /// after the last `await` of a call.
    ///
    /// # Errors
    /// An error is reported in the metrics; the bolt carries on.
    fn progress(
        &mut self,
        out: &mut Emitter<Self::Outputs>,
    ) -> impl Future<Output = Result<(), Fault>> + Send {
        let _ = out;
        pending()
    }

    /// Called at the component's tick interval, if it has one.
    ///
    /// # Errors
    /// An error is reported in the metrics; the bolt carries on.
    fn tick(&mut self, out: &mut Emitter<Self::Outputs>) -> impl Future<Output = Result<(), Fault>> + Send {
        let _ = out;
        async { Ok(()) }
    }

    /// Called while a topology drains, whenever the input has run dry, and before `close`: finish with the
    /// tuples that are kept (send the half-full bulk, await what is in flight), so that the spouts' roots
    /// can end.
    fn drain(&mut self, out: &mut Emitter<Self::Outputs>) -> impl Future<Output = ()> + Send {
        let _ = out;
        async {}
    }

    /// Called once after the last tuple. What it emits still goes downstream.
    fn close(&mut self, out: &mut Emitter<Self::Outputs>) -> impl Future<Output = ()> + Send {
        let _ = out;
        async {}
    }
}

/// The tuples of a batch that an async bolt has not reached. When the bolt panics, they are stored.
struct RemainingRows<T: Send + 'static> {
    values: std::vec::IntoIter<T>,
    tokens: Vec<crate::lineage::AckToken>,
    at: usize,
    unreached: UnreachedSlot,
    acks: Option<std::sync::Arc<dyn crate::runtime::AckSender>>,
}

impl<T: Send + 'static> RemainingRows<T> {
    fn new(mut batch: Batch<T>, unreached: UnreachedSlot) -> Self {
        let acks = batch.acks.take();
        let values = std::mem::take(&mut batch.tuples.values).into_iter();
        let tokens = batch.tuples.lineage.drain().collect();
        Self { values, tokens, at: 0, unreached, acks }
    }

    fn next<O: Outputs>(&mut self, out: &mut Emitter<O>) -> Option<T> {
        // What is done by now does not wait for the next one.
        out.hand_over();
        let value = self.values.next();
        out.set_at_hand(value.is_some());
        let value = value?;
        out.begin_tuple(std::mem::take(&mut self.tokens[self.at]));
        self.at += 1;
        Some(value)
    }
}

impl<T: Send + 'static> Drop for RemainingRows<T> {
    fn drop(&mut self) {
        let mut rest = EdgeBatch::default();
        rest.values.extend(self.values.by_ref());
        if rest.values.is_empty() {
            return;
        }
        for token in self.tokens.drain(self.at..) {
            rest.lineage.push(token);
        }
        if std::thread::panicking() {
            *self.unreached.lock().unwrap_or_else(PoisonError::into_inner) =
                Some(Box::new(rest) as Box<dyn Any + Send>);
        } else if let Some(acks) = self.acks.take() {
            // The call was cancelled: the tuples fail as those of any dropped batch.
            drop(Batch::new(rest, acks));
        }
    }
}
