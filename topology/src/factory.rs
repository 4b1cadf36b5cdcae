//! What tasks are made from: a value that is cloned for each, or a closure that makes one.

use std::sync::Arc;

use galerna_lock::Mutex;

use crate::bolt::{AsyncBatchBolt, AsyncBolt, BatchBolt, Bolt};
use crate::spout::Spout;

/// Makes instances of a component: one per task, and a new one after a panic.
pub(crate) type Factory<B> = Arc<dyn Fn() -> B + Send + Sync>;

/// Marks a source that is a value to clone.
#[derive(Debug, Clone, Copy)]
pub struct Prototype;

/// Marks a source that is a function to call.
#[derive(Debug, Clone, Copy)]
pub struct Constructor;

macro_rules! instances_of {
    ($(#[$meta:meta])* $name:ident, $component:ident) => {
        $(#[$meta])*
        pub trait $name<Kind>: sealed::Source<Kind> {
            /// What a task runs.
            type Instance: $component;
            #[doc(hidden)]
            fn into_factory(self) -> Arc<dyn Fn() -> Self::Instance + Send + Sync>;
        }

        #[diagnostic::do_not_recommend]
        impl<B: $component + Clone> $name<Prototype> for B {
            type Instance = B;

            fn into_factory(self) -> Factory<B> {
                cloning(self)
            }
        }

        #[diagnostic::do_not_recommend]
        impl<B: $component, F: Fn() -> B + Send + Sync + 'static> $name<Constructor> for F {
            type Instance = B;

            fn into_factory(self) -> Factory<B> {
                Arc::new(self)
            }
        }
    };
}

mod sealed {
    /// Anything at all: the traits over it have all the implementations that there can be.
    pub trait Source<Kind> {}
    impl<T, Kind> Source<Kind> for T {}
}

instances_of!(
    /// What the tasks of a spout are made from: a spout that is `Clone`, or a function that makes one.
    #[diagnostic::on_unimplemented(
        message = "`{Self}` is neither a spout nor a function that makes one",
        label = "not a spout",
        note = "give a value whose type implements `Spout` and `Clone`, or a closure that makes a spout: `|| MySpout::new()`"
    )]
    SpoutSource,
    Spout
);

instances_of!(
    /// What the tasks of a bolt that computes are made from: a bolt that is `Clone`, or a function that makes one.
    #[diagnostic::on_unimplemented(
        message = "`{Self}` is neither a bolt nor a function that makes one",
        label = "not a bolt",
        note = "give a value whose type implements `Bolt` and `Clone`, or a closure that makes a bolt: `|| MyBolt::new()`",
        note = "one that waits goes to `async_bolt`, one that takes whole batches to `batch_bolt`"
    )]
    BoltSource,
    Bolt
);

instances_of!(
    /// What the tasks of a bolt that waits are made from: a bolt that is `Clone`, or a function that makes one.
    #[diagnostic::on_unimplemented(
        message = "`{Self}` is neither an async bolt nor a function that makes one",
        label = "not an async bolt",
        note = "give a value whose type implements `AsyncBolt` and `Clone`, or a closure that makes one: `|| MyBolt::new()`",
        note = "one that computes goes to `bolt`, one that takes whole batches to `async_batch_bolt`"
    )]
    AsyncBoltSource,
    AsyncBolt
);

instances_of!(
    /// What the tasks of a bolt that takes batches are made from: a bolt that is `Clone`, or a function that makes one.
    #[diagnostic::on_unimplemented(
        message = "`{Self}` is neither a batch bolt nor a function that makes one",
        label = "not a batch bolt",
        note = "give a value whose type implements `BatchBolt` and `Clone`, or a closure that makes one: `|| MyBolt::new()`",
        note = "one that takes tuple by tuple goes to `bolt`, one that waits to `async_batch_bolt`"
    )]
    BatchBoltSource,
    BatchBolt
);

instances_of!(
    /// What the tasks of a bolt that waits and takes batches are made from: a bolt that is `Clone`, or a function that
    /// makes one.
    #[diagnostic::on_unimplemented(
        message = "`{Self}` is neither an async batch bolt nor a function that makes one",
        label = "not an async batch bolt",
        note = "give a value whose type implements `AsyncBatchBolt` and `Clone`, or a closure that makes one: `|| MyBolt::new()`",
        note = "one that takes tuple by tuple goes to `async_bolt`, one that computes to `batch_bolt`"
    )]
    AsyncBatchBoltSource,
    AsyncBatchBolt
);

/// A factory of clones. The lock makes it one for all threads whatever the value is; it is taken once a task.
fn cloning<B: Clone + Send + 'static>(prototype: B) -> Factory<B> {
    let prototype = Mutex::new(prototype);
    Arc::new(move || prototype.lock().clone())
}
