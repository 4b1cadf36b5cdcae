//! Items under each key, in order.

use std::fmt;
use std::marker::PhantomData;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::cell::{Cell, ITEM_OVERHEAD, Item};
use crate::encoding::encode_value;
use crate::{StateError, TaskState};

/// A state with items under each key, in the order in which they were pushed. Made by [`TaskState::list`]. All items of a key
/// are in memory, or on disk, together. Each item has a time to live of its own.
///
/// Errors: a read may fail with [`StateError::NotOwned`] (the key is another task's), [`StateError::Encode`],
/// [`StateError::Decode`], [`StateError::Spill`] (it is on disk and cannot be read) and [`StateError::Budget`] (it cannot be
/// brought into memory); a change also with the last two because there is no room for it, and changes nothing then.
pub struct ListState<T> {
    task: TaskState,
    state: u16,
    item: PhantomData<fn() -> T>,
}

impl<T> fmt::Debug for ListState<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ListState").field("task", &self.task).field("state", &self.state).finish()
    }
}

impl<T: Serialize + DeserializeOwned> ListState<T> {
    pub(crate) fn new(task: TaskState, state: u16) -> Self {
        Self { task, state, item: PhantomData }
    }

    /// Adds an item at the end of the list under a key; its time to live begins now.
    ///
    /// # Errors
    /// Those of a change, see [`ListState`].
    pub fn push<K: Serialize + ?Sized>(&mut self, key: &K, item: &T) -> Result<(), StateError> {
        let bytes = encode_value("item", item)?;
        self.task.cells.lock().at(self.state, key, |cells, place| {
            let expires = cells.expiry(self.state);
            let new = bytes.len() + ITEM_OVERHEAD;
            cells.change(
                place,
                new,
                || Cell::List(Default::default()),
                |cell, _| {
                    let Cell::List(items) = cell else { return ((), 0) };
                    items.push_back(Item { bytes, expires });
                    ((), new as isize)
                },
            )
        })
    }

    /// The items under a key.
    ///
    /// # Errors
    /// Those of a read, see [`ListState`].
    pub fn get<K: Serialize + ?Sized>(&self, key: &K) -> Result<Vec<T>, StateError> {
        self.task.cells.lock().at(self.state, key, |cells, place| {
            let Some(index) = cells.load(place)? else { return Ok(Vec::new()) };
            let now = cells.now();
            let Some(Cell::List(items)) = cells.slots.get(index).map(|slot| &slot.cell) else {
                return Err(cells.wrong_kind(self.state, place.group));
            };
            let living = items.iter().filter(|item| item.lives(now));
            living.map(|item| cells.decode(self.state, place.group, "item", &item.bytes)).collect()
        })
    }

    /// How many items are under a key.
    ///
    /// # Errors
    /// Those of a read, see [`ListState`].
    pub fn len<K: Serialize + ?Sized>(&self, key: &K) -> Result<usize, StateError> {
        self.task.cells.lock().at(self.state, key, |cells, place| {
            let Some(index) = cells.load(place)? else { return Ok(0) };
            let now = cells.now();
            match cells.slots.get(index).map(|slot| &slot.cell) {
                Some(Cell::List(items)) => Ok(items.iter().filter(|item| item.lives(now)).count()),
                _ => Err(cells.wrong_kind(self.state, place.group)),
            }
        })
    }

    /// Whether no item is under a key.
    ///
    /// # Errors
    /// Those of a read, see [`ListState`].
    pub fn is_empty<K: Serialize + ?Sized>(&self, key: &K) -> Result<bool, StateError> {
        Ok(self.len(key)? == 0)
    }

    /// Takes the first item off the list under a key.
    ///
    /// # Errors
    /// Those of a change, see [`ListState`]. If the item does not decode it stays.
    pub fn pop_front<K: Serialize + ?Sized>(&mut self, key: &K) -> Result<Option<T>, StateError> {
        self.task.cells.lock().at(self.state, key, |cells, place| {
            let Some(index) = cells.load(place)? else { return Ok(None) };
            let now = cells.now();
            let first = match cells.slots.get(index).map(|slot| &slot.cell) {
                Some(Cell::List(items)) => {
                    items.iter().position(|item| item.lives(now)).map(|at| (at, items))
                }
                _ => return Err(cells.wrong_kind(self.state, place.group)),
            };
            let Some((at, items)) = first else { return Ok(None) };
            let item = cells.decode(self.state, place.group, "item", &items[at].bytes)?;
            cells.change(
                place,
                0,
                || Cell::List(Default::default()),
                |cell, _| {
                    let Cell::List(items) = cell else { return ((), 0) };
                    // Those before it are gone too.
                    let taken = items.drain(..=at);
                    ((), -(taken.map(|item| item.bytes.len() + ITEM_OVERHEAD).sum::<usize>() as isize))
                },
            )?;
            Ok(Some(item))
        })
    }

    /// Replaces the list under a key; the time to live of all of it begins now.
    ///
    /// # Errors
    /// Those of a change, see [`ListState`].
    pub fn replace<'a, K: Serialize + ?Sized>(
        &mut self,
        key: &K,
        items: impl IntoIterator<Item = &'a T>,
    ) -> Result<(), StateError>
    where
        T: 'a,
    {
        let encoded: Vec<_> =
            items.into_iter().map(|item| encode_value("item", item)).collect::<Result<_, _>>()?;
        self.task.cells.lock().at(self.state, key, |cells, place| {
            if encoded.is_empty() {
                return cells.remove(place);
            }
            let expires = cells.expiry(self.state);
            let new: usize = encoded.iter().map(|bytes| bytes.len() + ITEM_OVERHEAD).sum();
            cells.change(
                place,
                new,
                || Cell::List(Default::default()),
                |cell, _| {
                    let before = cell.bytes();
                    let items = encoded.into_iter().map(|bytes| Item { bytes, expires });
                    *cell = Cell::List(items.collect());
                    ((), new as isize - before as isize)
                },
            )
        })
    }

    /// Removes all items under a key.
    ///
    /// # Errors
    /// Those of a change, see [`ListState`].
    pub fn clear<K: Serialize + ?Sized>(&mut self, key: &K) -> Result<(), StateError> {
        self.task.cells.lock().at(self.state, key, |cells, place| cells.remove(place))
    }

    /// Every key of this task with its items, the keys in no order; those on disk are not brought into memory to stay.
    ///
    /// # Errors
    /// [`StateError::Decode`], [`StateError::Spill`].
    pub fn collect<K: DeserializeOwned>(&self) -> Result<Vec<(K, Vec<T>)>, StateError> {
        let cells = &mut *self.task.cells.lock();
        let mut all = Vec::new();
        for group in cells.owned.clone().iter() {
            let now = cells.now();
            let mut encoded = Vec::new();
            cells.visit(self.state, group, |key, cell| {
                if let Cell::List(items) = cell {
                    encoded.push((key.to_vec(), items.clone()));
                }
                Ok(())
            })?;
            for (key, items) in encoded {
                let key = cells.decode(self.state, group, "key", &key)?;
                let items = items.iter().filter(|item| item.lives(now));
                let items = items.map(|item| cells.decode(self.state, group, "item", &item.bytes));
                all.push((key, items.collect::<Result<_, StateError>>()?));
            }
        }
        Ok(all)
    }
}
