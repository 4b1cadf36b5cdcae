//! What a bolt subscribes to, and how tuples of a stream become its input.

use std::any::{Any, TypeId};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use crate::grouping::Grouping;
use crate::lineage::Lineage;
use crate::runtime::{AnyBatch, EdgeBatch, LostTuples, RouteSetup, Staged};
use crate::stream::EdgeForm;

/// Says that tuples of a stream can be a bolt's input: the same type, or one that converts `Into`
/// it. Implemented by itself wherever `Into` is.
#[diagnostic::on_unimplemented(
    message = "a stream of `{Self}` cannot be wired to a bolt that takes `{I}`",
    label = "this stream carries `{Self}`, the bolt takes `{I}`",
    note = "give the bolt a stream of `{I}`, or implement `From<{Self}> for {I}`; a bolt with several inputs takes an enum with one `From` for each"
)]
pub trait IntoInput<I>: Sized {
    #[doc(hidden)]
    fn into_input(self) -> I;
}

#[diagnostic::do_not_recommend]
impl<T: Into<I>, I> IntoInput<I> for T {
    #[inline]
    fn into_input(self) -> I {
        self.into()
    }
}

/// A subscription of a bolt to a stream.
#[derive(Clone)]
pub struct Input {
    /// The id of the component that emits the stream.
    pub component: Arc<str>,
    /// The name of its output.
    pub stream: Arc<str>,
    /// How tuples are distributed.
    pub grouping: Grouping,
    /// Whether it is marked as the feedback edge of a cycle.
    pub feedback: bool,
    /// How its tuples leave the process, if the stream's handle said.
    pub form: Option<EdgeForm>,
    pub(crate) type_id: TypeId,
    pub(crate) type_name: &'static str,
    pub(crate) direct_type: bool,
    pub(crate) convert: Arc<dyn Fn(AnyBatch) -> (AnyBatch, Vec<LostTuples>) + Send + Sync>,
    pub(crate) split: fn(AnyBatch, usize) -> (AnyBatch, Option<AnyBatch>),
    pub(crate) discard: fn(AnyBatch) -> Lineage,
    pub(crate) route: Arc<dyn Fn(RouteSetup) -> Box<dyn Any + Send> + Send + Sync>,
}

impl Input {
    /// Makes a batch of the stream's type one of the bolt's input type. Tuples whose conversion panicked
    /// are left out and returned beside it.
    pub fn convert(&self, tuples: AnyBatch) -> (AnyBatch, Vec<LostTuples>) {
        if self.direct_type { (tuples, Vec::new()) } else { (self.convert)(tuples) }
    }

    /// Cuts a batch of the stream's type after so many tuples, if it has more.
    pub fn split(&self, tuples: AnyBatch, rows: usize) -> (AnyBatch, Option<AnyBatch>) {
        (self.split)(tuples, rows.max(1))
    }

    /// Drops the tuples of a batch of the stream's type, and returns what they hold.
    pub fn discard(&self, tuples: AnyBatch) -> Lineage {
        (self.discard)(tuples)
    }

    /// Whether the stream's type is the bolt's input type, so that emptied batches can go back.
    pub fn is_same_type(&self) -> bool {
        self.direct_type
    }

    /// Makes the route of one emitting task to this subscription.
    pub fn route(&self, setup: RouteSetup) -> Box<dyn Any + Send> {
        (self.route)(setup)
    }
}

pub(crate) fn split<T: Send + 'static>(tuples: AnyBatch, rows: usize) -> (AnyBatch, Option<AnyBatch>) {
    let mut tuples = match tuples.downcast::<EdgeBatch<T>>() {
        Ok(tuples) => tuples,
        Err(other) => return (other, None),
    };
    if tuples.values.len() <= rows {
        return (tuples, None);
    }
    let values = tuples.values.split_off(rows);
    let (mut first, mut tokens) = (Lineage::new(), tuples.lineage.drain());
    tokens.by_ref().take(rows).for_each(|token| first.push(token));
    let lineage = tokens.into_rest();
    tuples.lineage = first;
    (tuples, Some(Box::new(EdgeBatch { values, lineage })))
}

pub(crate) fn discard<T: Send + 'static>(tuples: AnyBatch) -> Lineage {
    let Ok(mut tuples) = tuples.downcast::<EdgeBatch<T>>() else { return Lineage::new() };
    let lineage = std::mem::take(&mut tuples.lineage);
    // A tuple that panics when it is dropped must not keep the others from failing.
    let _ = catch_unwind(AssertUnwindSafe(move || drop(tuples)));
    lineage
}

pub(crate) fn convert<T: Send + 'static, I: Send + 'static>(
    tuples: AnyBatch,
    into_input: impl Fn(T) -> I,
) -> (AnyBatch, Vec<LostTuples>) {
    let mut tuples = match tuples.downcast::<EdgeBatch<T>>() {
        Ok(tuples) => tuples,
        Err(other) => return (other, Vec::new()),
    };
    let mut converted =
        EdgeBatch { values: Vec::with_capacity(tuples.values.len()), lineage: Lineage::new() };
    let mut rows = tuples.values.drain(..);
    let mut convert = || converted.values.extend(rows.by_ref().map(&into_input));
    let Err(mut panic) = catch_unwind(AssertUnwindSafe(&mut convert)) else {
        converted.lineage = std::mem::take(&mut tuples.lineage);
        return (Box::new(converted), Vec::new());
    };
    // The row that panicked is the one after those converted: it is left out, and the others go on.
    let (mut tokens, mut lost) = (tuples.lineage.drain(), Staged::default());
    let mut paired = 0;
    loop {
        let done = converted.values.len();
        tokens.by_ref().take(done - paired).for_each(|token| converted.lineage.push(token));
        paired = done;
        lost.lose(tokens.next().unwrap_or_default(), &*panic);
        let go_on = || converted.values.extend(rows.by_ref().map(&into_input));
        match catch_unwind(AssertUnwindSafe(go_on)) {
            Ok(()) => break,
            Err(next) => panic = next,
        }
    }
    tokens.for_each(|token| converted.lineage.push(token));
    (Box::new(converted), lost.lost)
}
