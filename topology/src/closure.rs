//! Bolts made of closures, for the simple cases.

use std::marker::PhantomData;

use crate::adapt::ComputingBolt;
use crate::batch::Batch;
use crate::bolt::Bolt;
use crate::context::TaskContext;
use crate::emitter::Emitter;
use crate::failure::Fault;
use crate::outputs::{Data, Output};
use crate::watermark::Timestamp;

/// What a [`for_each`](crate::TopologyBuilder::for_each) closure may return: nothing, or a `Result` with
/// any error that becomes a [`Fault`].
#[diagnostic::on_unimplemented(
    message = "a `for_each` closure returns nothing or a `Result<(), E>`, not `{Self}`",
    label = "this closure returns `{Self}`",
    note = "end it with `;` to return nothing; a closure that emits goes to `map`, `filter` or `flat_map`"
)]
pub trait IntoTupleResult {
    /// `Ok` acks, `Err` fails.
    ///
    /// # Errors
    /// The reason to fail the tuple with.
    fn into_tuple_result(self) -> Result<(), Fault>;
}

impl IntoTupleResult for () {
    #[inline]
    fn into_tuple_result(self) -> Result<(), Fault> {
        Ok(())
    }
}

impl<E: Into<Fault>> IntoTupleResult for Result<(), E> {
    #[inline]
    fn into_tuple_result(self) -> Result<(), Fault> {
        self.map_err(Into::into)
    }
}

/// One value for each.
pub(crate) struct Map<I, U, F>(pub(crate) F, pub(crate) PhantomData<fn(I) -> U>);

impl<I: Send + 'static, U: Data, F: FnMut(I) -> U + Send + 'static> ComputingBolt for Map<I, U, F> {
    type Input = I;
    type Outputs = Output<U>;

    fn prepare(&mut self, _context: &TaskContext) -> Result<(), Fault> {
        Ok(())
    }
    fn run(&mut self, batch: Batch<I>, out: &mut Emitter<Output<U>>) {
        batch.map_in_turn(out, &mut self.0);
    }
    fn tick(&mut self, _out: &mut Emitter<Output<U>>) -> Result<(), Fault> {
        Ok(())
    }
    fn watermark(&mut self, _at: Timestamp, _out: &mut Emitter<Output<U>>) -> Result<(), Fault> {
        Ok(())
    }
    fn checkpoint(&mut self, _out: &mut Emitter<Output<U>>) -> Result<(), Fault> {
        Ok(())
    }
    fn drain(&mut self, _out: &mut Emitter<Output<U>>) {}
    fn close(&mut self, _out: &mut Emitter<Output<U>>) {}
}

/// Those that pass.
pub(crate) struct Filter<I, F>(pub(crate) F, pub(crate) PhantomData<fn(I)>);

impl<I: Data, F: FnMut(&I) -> bool + Send + 'static> Bolt for Filter<I, F> {
    type Input = I;
    type Outputs = Output<I>;

    fn execute(&mut self, input: I, out: &mut Emitter<Output<I>>) -> Result<(), Fault> {
        if (self.0)(&input) {
            out.emit(input);
        }
        Ok(())
    }
}

/// Any number for each.
pub(crate) struct FlatMap<I, U, F>(pub(crate) F, pub(crate) PhantomData<fn(I) -> U>);

impl<I, U, F> Bolt for FlatMap<I, U, F>
where
    I: Send + 'static,
    U: IntoIterator<Item: Data> + 'static,
    F: FnMut(I) -> U + Send + 'static,
{
    type Input = I;
    type Outputs = Output<U::Item>;

    fn execute(&mut self, input: I, out: &mut Emitter<Output<U::Item>>) -> Result<(), Fault> {
        out.extend((self.0)(input).into_iter());
        Ok(())
    }
}

/// An end.
pub(crate) struct ForEach<I, R, F>(pub(crate) F, pub(crate) PhantomData<fn(I) -> R>);

impl<I, R, F> Bolt for ForEach<I, R, F>
where
    I: Send + 'static,
    R: IntoTupleResult + 'static,
    F: FnMut(I) -> R + Send + 'static,
{
    type Input = I;
    type Outputs = ();

    fn execute(&mut self, input: I, _out: &mut Emitter<()>) -> Result<(), Fault> {
        (self.0)(input).into_tuple_result()
    }
}
