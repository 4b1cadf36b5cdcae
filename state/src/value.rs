//! One value a key.

use std::fmt;
use std::marker::PhantomData;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::cell::{Cell, Item};
use crate::encoding::encode_value;
use crate::{StateError, TaskState};

/// A state with one value under each key. Made by [`TaskState::value`].
pub struct ValueState<V> {
    task: TaskState,
    state: u16,
    value: PhantomData<fn() -> V>,
}

impl<V> fmt::Debug for ValueState<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ValueState").field("task", &self.task).field("state", &self.state).finish()
    }
}

impl<V: Serialize + DeserializeOwned> ValueState<V> {
    pub(crate) fn new(task: TaskState, state: u16) -> Self {
        Self { task, state, value: PhantomData }
    }

    /// The value under a key.
    ///
    /// # Errors
    /// [`StateError::NotOwned`] when the key is another task's; [`StateError::Decode`], [`StateError::Encode`];
    /// [`StateError::Spill`] when it is on disk and cannot be read; [`StateError::Budget`] when it cannot be brought into
    /// memory.
    pub fn get<K: Serialize + ?Sized>(&self, key: &K) -> Result<Option<V>, StateError> {
        self.task.cells.lock().at(self.state, key, |cells, place| {
            let Some(index) = cells.load(place)? else { return Ok(None) };
            let now = cells.now();
            match cells.slots.get(index).map(|slot| &slot.cell) {
                Some(Cell::Value(item)) if item.lives(now) => {
                    cells.decode(self.state, place.group, "value", &item.bytes).map(Some)
                }
                Some(Cell::Value(_)) | None => Ok(None),
                Some(_) => Err(cells.wrong_kind(self.state, place.group)),
            }
        })
    }

    /// Whether there is a value under a key.
    ///
    /// # Errors
    /// As [`ValueState::get`], without decoding.
    pub fn contains<K: Serialize + ?Sized>(&self, key: &K) -> Result<bool, StateError> {
        self.task.cells.lock().at(self.state, key, |cells, place| {
            let Some(index) = cells.load(place)? else { return Ok(false) };
            let now = cells.now();
            Ok(cells.slots.get(index).is_some_and(|slot| slot.cell.last_expiry() > now))
        })
    }

    /// Sets the value under a key; its time to live begins now.
    ///
    /// # Errors
    /// [`StateError::NotOwned`], [`StateError::Encode`]; [`StateError::Budget`] or [`StateError::Spill`] when there is no
    /// room. The old value stays then.
    pub fn set<K: Serialize + ?Sized>(&mut self, key: &K, value: &V) -> Result<(), StateError> {
        let bytes = encode_value("value", value)?;
        self.task.cells.lock().at(self.state, key, |cells, place| {
            let expires = cells.expiry(self.state);
            cells.set_value(place, Item { bytes, expires })
        })
    }

    /// Sets the value under a key to what `update` makes of the old one, and answers with it. If `update` panics, the old
    /// one stays.
    ///
    /// # Errors
    /// As [`ValueState::get`] and [`ValueState::set`].
    pub fn update<K: Serialize + ?Sized>(
        &mut self,
        key: &K,
        update: impl FnOnce(Option<V>) -> V,
    ) -> Result<V, StateError> {
        let value = update(self.get(key)?);
        self.set(key, &value)?;
        Ok(value)
    }

    /// Removes the value under a key.
    ///
    /// # Errors
    /// [`StateError::NotOwned`], [`StateError::Encode`], [`StateError::Spill`]. The value stays then.
    pub fn remove<K: Serialize + ?Sized>(&mut self, key: &K) -> Result<(), StateError> {
        self.task.cells.lock().at(self.state, key, |cells, place| cells.remove(place))
    }

    /// Every key of this task with its value, in no order; those on disk are not brought into memory to stay.
    ///
    /// # Errors
    /// [`StateError::Decode`], [`StateError::Spill`].
    pub fn collect<K: DeserializeOwned>(&self) -> Result<Vec<(K, V)>, StateError> {
        let cells = &mut *self.task.cells.lock();
        let mut pairs = Vec::new();
        for group in cells.owned.clone().iter() {
            let mut encoded = Vec::new();
            cells.visit(self.state, group, |key, cell| {
                if let Cell::Value(item) = cell {
                    encoded.push((key.to_vec(), item.bytes.clone()));
                }
                Ok(())
            })?;
            for (key, value) in encoded {
                pairs.push((
                    cells.decode(self.state, group, "key", &key)?,
                    cells.decode(self.state, group, "value", &value)?,
                ));
            }
        }
        Ok(pairs)
    }
}
