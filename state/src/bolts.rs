//! State in a topology: declaring the bolts that keep it, and handing it to their tasks.

use galerna_topology::{BoltDeclarer, Data, IntoInput, Outputs, Stream, TaskContext};
use serde::Serialize;

use crate::key_group::hash_key;
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

/// Its upper bits are the key group's number.
fn hash<K: Serialize>(key: &K) -> u64 {
    rmp_serde::to_vec(key).map_or(0, |encoded| hash_key(&encoded))
}

/// The key as text.
fn named<K: Serialize>(key: &K) -> String {
    match serde_json::to_value(key) {
        Ok(serde_json::Value::String(text)) => text,
        Ok(other) => other.to_string(),
        Err(_) => format!("a key of group {}", KeyGroup::of_hash(hash(key)).number()),
    }
}

impl<I: Send + 'static, O: Outputs> KeyedBolt<I> for BoltDeclarer<'_, I, O> {
    fn keyed_by<T: Data + IntoInput<I>, K: Serialize>(
        self,
        stream: impl Into<Stream<T>>,
        key: impl Fn(&T) -> K + Clone + Send + Sync + 'static,
    ) -> Self {
        let name = key.clone();
        self.keeps_state().by_key_group(
            stream,
            move |tuple: &T| hash(&key(tuple)),
            move |tuple: &T| named(&name(tuple)),
        )
    }

    fn keyed_by_as<T: Data, K: Serialize>(
        self,
        stream: impl Into<Stream<T>>,
        key: impl Fn(&T) -> K + Clone + Send + Sync + 'static,
        into_input: impl Fn(T) -> I + Send + Sync + 'static,
    ) -> Self {
        let name = key.clone();
        self.keeps_state().by_key_group_as(
            stream,
            move |tuple: &T| hash(&key(tuple)),
            move |tuple: &T| named(&name(tuple)),
            into_input,
        )
    }
}

const _: () = assert!(crate::KEY_GROUPS == galerna_topology::KEY_GROUPS, "both share out the same groups");
