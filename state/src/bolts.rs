//! State in a topology: declaring the bolts that keep it, and handing it to their tasks.

use galerna_topology::{BoltDeclarer, Data, IntoInput, Outputs, Stream, TaskContext};
use serde::Serialize;

use crate::{KeyGroup, StateError, TaskState};

/// The state of a task, by its context.
pub trait StateContext {
    /// The state of this task: what was kept under its keys before, after a panic and after a restart from a checkpoint too.
    ///
    /// # Errors
    /// [`StateError::NotKept`] if its bolt was not declared with [`keyed_by`](KeyedBolt::keyed_by).
    fn state(&self) -> Result<&TaskState, StateError>;
}

impl StateContext for TaskContext {
    fn state(&self) -> Result<&TaskState, StateError> {
        self.state_as().ok_or_else(|| StateError::NotKept { component: self.component().to_owned() })
    }
}

/// Bolts that keep state by key.
pub trait KeyedBolt<I> {
    /// Subscribes a bolt that keeps state: each tuple comes to the task that has the state of its key. Ask for the state in
    /// `prepare`, with [`StateContext::state`], and use the same key in its handles.
    ///
    /// A tuple whose key has no serialised form comes to the first task, where the state says so.
    fn keyed_by<T: Data + IntoInput<I>, K: Serialize>(
        self,
        stream: impl Into<Stream<T>>,
        key: impl Fn(&T) -> K + Clone + Send + Sync + 'static,
    ) -> Self;

    /// As [`keyed_by`](Self::keyed_by), for a stream of another type than the bolt takes, with what makes the bolt's input of it.
    fn keyed_by_as<T: Data, K: Serialize>(
        self,
        stream: impl Into<Stream<T>>,
        key: impl Fn(&T) -> K + Clone + Send + Sync + 'static,
        into_input: impl Fn(T) -> I + Send + Sync + 'static,
    ) -> Self;
}

fn group<K: Serialize>(key: &K) -> u16 {
    KeyGroup::of(key).map_or(0, KeyGroup::number)
}

impl<I: Send + 'static, O: Outputs> KeyedBolt<I> for BoltDeclarer<'_, I, O> {
    fn keyed_by<T: Data + IntoInput<I>, K: Serialize>(
        self,
        stream: impl Into<Stream<T>>,
        key: impl Fn(&T) -> K + Clone + Send + Sync + 'static,
    ) -> Self {
        self.keeps_state().by_key_group(stream, move |tuple: &T| group(&key(tuple)))
    }

    fn keyed_by_as<T: Data, K: Serialize>(
        self,
        stream: impl Into<Stream<T>>,
        key: impl Fn(&T) -> K + Clone + Send + Sync + 'static,
        into_input: impl Fn(T) -> I + Send + Sync + 'static,
    ) -> Self {
        self.keeps_state().by_key_group_as(stream, move |tuple: &T| group(&key(tuple)), into_input)
    }
}

const _: () = assert!(crate::KEY_GROUPS == galerna_topology::KEY_GROUPS, "both share out the same groups");
