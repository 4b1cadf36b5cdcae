//! Bolts: what computes on tuples, and what waits for something with them.

use std::future::{Future, pending};

use crate::batch::Batch;
use crate::context::TaskContext;
use crate::emitter::Emitter;
use crate::failure::Fault;
use crate::outputs::Outputs;
use crate::watermark::Timestamp;

/// A bolt that computes: it never waits. For those that do, see [`AsyncBolt`]; for those whose work is cheaper by the
/// batch, [`BatchBolt`].
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

    /// Called at the component's tick interval, if it has one.
    ///
    /// # Errors
    /// An error is reported in the metrics; the bolt carries on.
    fn tick(&mut self, out: &mut Emitter<Self::Outputs>) -> Result<(), Fault> {
        let _ = out;
        Ok(())
    }

    /// Called when the task's own watermark has risen: nothing earlier than `watermark` is to be expected from any of its inputs that
    /// is not idle (see [`Emitter::watermark`]). When it returns, those behind it are told. What is kept and would still be emitted
    /// must be emitted here: so it finishes with it, as in [`drain`](Self::drain), unless overridden.
    ///
    /// # Errors
    /// An error is reported in the metrics; the bolt carries on.
    fn watermark(&mut self, watermark: Timestamp, out: &mut Emitter<Self::Outputs>) -> Result<(), Fault> {
        let _ = watermark;
        self.drain(out);
        Ok(())
    }

    /// Called when a checkpoint is about to take the task's state: what belongs to it and is kept elsewhere goes into the state here.
    /// Never called in a topology without checkpoints.
    ///
    /// # Errors
    /// An error is reported, and there is no such checkpoint; the bolt carries on.
    fn checkpoint(&mut self, out: &mut Emitter<Self::Outputs>) -> Result<(), Fault> {
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

/// A bolt that computes on whole batches.
///
/// What is emitted is anchored to all tuples of the batch, since the bolt alone knows which of them it came from. It must
/// settle or keep the batch: what is dropped fails.
///
/// ```
/// use galerna_topology::prelude::*;
///
/// /// The sum of each batch; all its tuples wait for that.
/// #[derive(Clone)]
/// struct Sum;
///
/// impl BatchBolt for Sum {
///     type Input = u64;
///     type Outputs = Output<u64>;
///
///     fn execute(&mut self, batch: Batch<u64>, out: &mut Emitter<Output<u64>>) {
///         out.emit(batch.values().iter().sum());
///         batch.ack();
///     }
/// }
/// ```
pub trait BatchBolt: Send + 'static {
    /// What it takes. A bolt with several inputs takes an enum that each of them converts `Into`.
    type Input: Send + 'static;
    /// What it emits on.
    type Outputs: Outputs;

    /// Called once before the first batch.
    ///
    /// # Errors
    /// An error keeps the topology from starting.
    fn prepare(&mut self, context: &TaskContext) -> Result<(), Fault> {
        let _ = context;
        Ok(())
    }

    /// Takes a batch of at least one tuple. If it panics, all of the batch that is not settled fails.
    fn execute(&mut self, batch: Batch<Self::Input>, out: &mut Emitter<Self::Outputs>);

    /// Called at the component's tick interval, if it has one.
    ///
    /// # Errors
    /// An error is reported in the metrics; the bolt carries on.
    fn tick(&mut self, out: &mut Emitter<Self::Outputs>) -> Result<(), Fault> {
        let _ = out;
        Ok(())
    }

    /// Called when the task's own watermark has risen: nothing earlier than `watermark` is to be expected from any of its inputs that
    /// is not idle (see [`Emitter::watermark`]). When it returns, those behind it are told. What is kept and would still be emitted
    /// must be emitted here: so it finishes with it, as in [`drain`](Self::drain), unless overridden.
    ///
    /// # Errors
    /// An error is reported in the metrics; the bolt carries on.
    fn watermark(&mut self, watermark: Timestamp, out: &mut Emitter<Self::Outputs>) -> Result<(), Fault> {
        let _ = watermark;
        self.drain(out);
        Ok(())
    }

    /// Called when a checkpoint is about to take the task's state: what belongs to it and is kept elsewhere goes into the state here.
    /// Never called in a topology without checkpoints.
    ///
    /// # Errors
    /// An error is reported, and there is no such checkpoint; the bolt carries on.
    fn checkpoint(&mut self, out: &mut Emitter<Self::Outputs>) -> Result<(), Fault> {
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
/// The futures are the task's own, monomorphised; a tuple costs no boxed future. A bolt that only makes a call about each
/// tuple need not be written: [`map_async`](crate::TopologyBuilder::map_async) makes many at once. To do so in a bolt, keep
/// the tuples ([`Emitter::keep`]) with their futures in it and drive these in [`progress`](Self::progress). A bolt that
/// writes or asks in bulk is an [`AsyncBatchBolt`].
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

    /// Called while a topology drains, whenever the input has run dry, before a watermark or a checkpoint passes, and before `close`: finish with
    /// the tuples that are kept (send the half-full bulk, await what is in flight), so that the spouts' roots
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

/// A bolt that waits, and takes whole batches: a bulk write to a store, many questions in one request.
///
/// What is emitted is anchored to all tuples of the batch, since the bolt alone knows which of them it came from. It must
/// settle or keep the batch: what is dropped fails. To keep several writes going at once, keep the batches
/// ([`Batch::into_parts`]) with their futures in the bolt and drive these in [`progress`](Self::progress).
pub trait AsyncBatchBolt: Send + 'static {
    /// What it takes. A bolt with several inputs takes an enum that each of them converts `Into`.
    type Input: Send + 'static;
    /// What it emits on.
    type Outputs: Outputs;

    /// Called once before the first batch.
    ///
    /// # Errors
    /// An error keeps the topology from starting.
    fn prepare(&mut self, context: &TaskContext) -> impl Future<Output = Result<(), Fault>> + Send {
        let _ = context;
        async { Ok(()) }
    }

    /// Takes a batch of at least one tuple. It runs to its end; it is dropped in mid-way only when a stop runs out of
    /// time. Then, or if it panics, all of the batch that is not settled fails.
    fn execute(
        &mut self,
        batch: Batch<Self::Input>,
        out: &mut Emitter<Self::Outputs>,
    ) -> impl Future<Output = ()> + Send;

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

    /// Called while a topology drains, whenever the input has run dry, before a watermark or a checkpoint passes, and before `close`: finish with
    /// the tuples that are kept (send the half-full bulk, await what is in flight), so that the spouts' roots
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
