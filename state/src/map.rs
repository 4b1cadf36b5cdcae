//! Values by field under each key.

use std::fmt;
use std::marker::PhantomData;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::cell::{Cell, ITEM_OVERHEAD, Item};
use crate::encoding::{encode_field, encode_value};
use crate::{StateError, TaskState};

/// Fields with their values.
type Entries<F, V> = Vec<(F, V)>;

/// Keys with their fields and values.
type Keyed<K, F, V> = Vec<(K, Entries<F, V>)>;

/// A state with values by field under each key. Made by [`TaskState::map`]. All fields of a key are in memory, or on disk,
/// together. Each field has a time to live of its own.
///
/// Errors: a read may fail with [`StateError::NotOwned`] (the key is another task's), [`StateError::Encode`],
/// [`StateError::Decode`], [`StateError::Spill`] (it is on disk and cannot be read) and [`StateError::Budget`] (it cannot be
/// brought into memory); a change also with the last two because there is no room for it, and changes nothing then.
pub struct MapState<F, V> {
    task: TaskState,
    state: u16,
    types: PhantomData<fn() -> (F, V)>,
}

impl<F, V> fmt::Debug for MapState<F, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MapState").field("task", &self.task).field("state", &self.state).finish()
    }
}

impl<F, V> MapState<F, V>
where
    F: Serialize + DeserializeOwned,
    V: Serialize + DeserializeOwned,
{
    pub(crate) fn new(task: TaskState, state: u16) -> Self {
        Self { task, state, types: PhantomData }
    }

    /// The value of a field under a key.
    ///
    /// # Errors
    /// Those of a read, see [`MapState`].
    pub fn get<K: Serialize + ?Sized>(&self, key: &K, field: &F) -> Result<Option<V>, StateError> {
        let field = encode_field(field)?;
        self.task.cells.lock().at(self.state, key, |cells, place| {
            let Some(index) = cells.load(place)? else { return Ok(None) };
            let now = cells.now();
            let Some(Cell::Map(fields)) = cells.slots.get(index).map(|slot| &slot.cell) else {
                return Err(cells.wrong_kind(self.state, place.group));
            };
            match fields.get(&*field).filter(|item| item.lives(now)) {
                Some(item) => cells.decode(self.state, place.group, "value", &item.bytes).map(Some),
                None => Ok(None),
            }
        })
    }

    /// Sets the value of a field under a key; its time to live begins now.
    ///
    /// # Errors
    /// Those of a change, see [`MapState`].
    pub fn insert<K: Serialize + ?Sized>(&mut self, key: &K, field: &F, value: &V) -> Result<(), StateError> {
        let field = encode_field(field)?.into_boxed_slice();
        let bytes = encode_value("value", value)?;
        self.task.cells.lock().at(self.state, key, |cells, place| {
            let expires = cells.expiry(self.state);
            let new = field.len() + bytes.len() + ITEM_OVERHEAD;
            let field_len = field.len();
            cells.change(
                place,
                new,
                || Cell::Map(Default::default()),
                |cell, _| {
                    let Cell::Map(fields) = cell else { return ((), 0) };
                    let old = fields.insert(field, Item { bytes, expires });
                    let old = old.map_or(0, |item| field_len + item.bytes.len() + ITEM_OVERHEAD);
                    ((), new as isize - old as isize)
                },
            )
        })
    }

    /// Removes a field under a key.
    ///
    /// # Errors
    /// Those of a change, see [`MapState`].
    pub fn remove<K: Serialize + ?Sized>(&mut self, key: &K, field: &F) -> Result<(), StateError> {
        let field = encode_field(field)?;
        self.task.cells.lock().at(self.state, key, |cells, place| {
            let Some(index) = cells.load(place)? else { return Ok(()) };
            let has = match cells.slots.get(index).map(|slot| &slot.cell) {
                Some(Cell::Map(fields)) => fields.contains_key(&*field),
                _ => return Err(cells.wrong_kind(self.state, place.group)),
            };
            if !has {
                return Ok(());
            }
            cells.change(
                place,
                0,
                || Cell::Map(Default::default()),
                |cell, _| {
                    let Cell::Map(fields) = cell else { return ((), 0) };
                    let old = fields.remove(&*field);
                    ((), -(old.map_or(0, |item| field.len() + item.bytes.len() + ITEM_OVERHEAD) as isize))
                },
            )
        })
    }

    /// The fields under a key with their values, ordered by the fields' bytes: of numbers below 128 and of texts of one
    /// length that is their order.
    ///
    /// # Errors
    /// Those of a read, see [`MapState`].
    pub fn entries<K: Serialize + ?Sized>(&self, key: &K) -> Result<Entries<F, V>, StateError> {
        self.task.cells.lock().at(self.state, key, |cells, place| {
            let Some(index) = cells.load(place)? else { return Ok(Vec::new()) };
            let now = cells.now();
            let Some(Cell::Map(fields)) = cells.slots.get(index).map(|slot| &slot.cell) else {
                return Err(cells.wrong_kind(self.state, place.group));
            };
            let living = fields.iter().filter(|(_, item)| item.lives(now));
            living
                .map(|(field, item)| {
                    Ok((
                        cells.decode(self.state, place.group, "field", field)?,
                        cells.decode(self.state, place.group, "value", &item.bytes)?,
                    ))
                })
                .collect()
        })
    }

    /// How many fields are under a key.
    ///
    /// # Errors
    /// Those of a read, see [`MapState`].
    pub fn len<K: Serialize + ?Sized>(&self, key: &K) -> Result<usize, StateError> {
        self.task.cells.lock().at(self.state, key, |cells, place| {
            let Some(index) = cells.load(place)? else { return Ok(0) };
            let now = cells.now();
            match cells.slots.get(index).map(|slot| &slot.cell) {
                Some(Cell::Map(fields)) => Ok(fields.values().filter(|item| item.lives(now)).count()),
                _ => Err(cells.wrong_kind(self.state, place.group)),
            }
        })
    }

    /// Whether no field is under a key.
    ///
    /// # Errors
    /// Those of a read, see [`MapState`].
    pub fn is_empty<K: Serialize + ?Sized>(&self, key: &K) -> Result<bool, StateError> {
        Ok(self.len(key)? == 0)
    }

    /// Removes all fields under a key.
    ///
    /// # Errors
    /// Those of a change, see [`MapState`].
    pub fn clear<K: Serialize + ?Sized>(&mut self, key: &K) -> Result<(), StateError> {
        self.task.cells.lock().at(self.state, key, |cells, place| cells.remove(place))
    }

    /// Every key of this task with its fields and values, the keys in no order; those on disk are not brought into memory
    /// to stay.
    ///
    /// # Errors
    /// [`StateError::Decode`], [`StateError::Spill`].
    pub fn collect<K: DeserializeOwned>(&self) -> Result<Keyed<K, F, V>, StateError> {
        let cells = &mut *self.task.cells.lock();
        let mut all = Vec::new();
        for group in cells.owned.clone().iter() {
            let now = cells.now();
            let mut encoded = Vec::new();
            cells.visit(self.state, group, |key, cell| {
                if let Cell::Map(fields) = cell {
                    encoded.push((key.to_vec(), fields.clone()));
                }
                Ok(())
            })?;
            for (key, fields) in encoded {
                let key = cells.decode(self.state, group, "key", &key)?;
                let entries = fields.iter().filter(|(_, item)| item.lives(now)).map(|(field, item)| {
                    Ok((
                        cells.decode(self.state, group, "field", field)?,
                        cells.decode(self.state, group, "value", &item.bytes)?,
                    ))
                });
                all.push((key, entries.collect::<Result<_, StateError>>()?));
            }
        }
        Ok(all)
    }
}
