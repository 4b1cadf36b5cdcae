//! Handles of streams, as wiring uses them.

use std::any::{Any, TypeId, type_name};
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use crate::grouping::Weigh;

/// How the tuples of a subscription leave the process and come into another. What it is, only those know who make and use it.
pub type EdgeForm = Arc<dyn Any + Send + Sync>;

/// The handle of a stream of tuples of type `T`: one named output of one component.
///
/// Handles come from `outputs()` of a declared component. They are cheap to clone; grouping methods take
/// them by value or by reference.
pub struct Stream<T> {
    pub(crate) source: StreamSource,
    pub(crate) name: Arc<str>,
    pub(crate) feedback: bool,
    pub(crate) weigh: Option<Weigh<T>>,
    pub(crate) form: Option<EdgeForm>,
    marker: PhantomData<fn() -> T>,
}

impl<T> Stream<T> {
    /// A stream by the names of its component and output, for subscribing to a component that is declared
    /// later (cycles need it). That it exists and has this type is checked when the topology is built. The
    /// only output of a component that has one is called `default`.
    pub fn named(component: impl Into<Arc<str>>, output: impl Into<Arc<str>>) -> Self {
        Self {
            source: StreamSource { component: component.into() },
            name: output.into(),
            feedback: false,
            weigh: None,
            form: None,
            marker: PhantomData,
        }
    }

    /// Marks the subscription made with this handle as the feedback edge of a cycle. Feedback edges are
    /// not bounded by a queue, since the spouts' pending limits bound what circulates.
    #[must_use]
    pub fn feedback(&self) -> Self {
        let mut marked = self.clone();
        marked.feedback = true;
        marked
    }

    /// Says what a tuple weighs in bytes, for the subscription made with this handle: by that, batches and what is queued are
    /// bounded. Without it a tuple counts as what its type has in itself, whatever it has on the heap.
    #[must_use]
    pub fn weigh(&self, weigh: impl Fn(&T) -> usize + Send + Sync + 'static) -> Self {
        let mut weighed = self.clone();
        weighed.weigh = Some(Arc::new(weigh));
        weighed
    }

    /// Says how tuples leave the process, for the subscription made with this handle: it is in [`Input::form`](crate::Input::form)
    /// of the component that is subscribed. For crates that carry tuples between processes.
    #[must_use]
    pub fn with_form(mut self, form: EdgeForm) -> Self {
        self.form = Some(form);
        self
    }

    /// What [`with_form`](Self::with_form) said.
    pub fn form(&self) -> Option<&EdgeForm> {
        self.form.as_ref()
    }

    /// The id of the component that emits it.
    pub fn component(&self) -> &str {
        &self.source.component
    }

    /// The name of the output.
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl<T> Clone for Stream<T> {
    fn clone(&self) -> Self {
        Self {
            source: self.source.clone(),
            name: self.name.clone(),
            feedback: self.feedback,
            weigh: self.weigh.clone(),
            form: self.form.clone(),
            marker: PhantomData,
        }
    }
}

impl<T> From<&Stream<T>> for Stream<T> {
    fn from(stream: &Stream<T>) -> Self {
        stream.clone()
    }
}

impl<T> fmt::Debug for Stream<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Stream<{}>({}.{})", type_name::<T>(), self.component(), self.name)
    }
}

/// The component that a set of streams comes from. Used by [`outputs!`](crate::outputs!).
#[derive(Debug, Clone)]
pub struct StreamSource {
    pub(crate) component: Arc<str>,
}

impl StreamSource {
    /// The handle of one of its outputs.
    pub fn stream<T>(&self, name: &'static str) -> Stream<T> {
        Stream::named(self.component.clone(), name)
    }
}

/// A declared output: its name and type. Used by [`outputs!`](crate::outputs!).
#[derive(Debug, Clone)]
pub struct StreamSpec {
    /// The output's name.
    pub name: &'static str,
    /// The tuple type's name, for printing.
    pub type_name: &'static str,
    pub(crate) type_id: TypeId,
}

impl StreamSpec {
    /// An output of tuples of type `T`.
    pub fn of<T: 'static>(name: &'static str) -> Self {
        Self { name, type_name: type_name::<T>(), type_id: TypeId::of::<T>() }
    }
}
