//! What is kept under one key of one state.

use std::collections::{BTreeMap, VecDeque};

use crate::spec::StateKind;

/// That it never expires.
pub(crate) const NEVER: i64 = i64::MAX;

/// About what a cell takes in memory beside its bytes: its slot, its place in the table and among those that expire.
pub(crate) const CELL_OVERHEAD: usize = 192;
/// About what a field or an item takes beside its bytes.
pub(crate) const ITEM_OVERHEAD: usize = 64;

/// Encoded, with the time at which it is gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Item {
    pub(crate) bytes: Vec<u8>,
    pub(crate) expires: i64,
}

impl Item {
    pub(crate) fn lives(&self, now: i64) -> bool {
        self.expires > now
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Cell {
    Value(Item),
    Map(BTreeMap<Box<[u8]>, Item>),
    List(VecDeque<Item>),
}

impl Cell {
    /// Bytes of what it holds, with the overhead of items.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::Value(item) => item.bytes.len(),
            Self::Map(fields) => {
                fields.iter().map(|(field, item)| field.len() + item.bytes.len() + ITEM_OVERHEAD).sum()
            }
            Self::List(items) => items.iter().map(|item| item.bytes.len() + ITEM_OVERHEAD).sum(),
        }
    }

    fn items(&self) -> Box<dyn Iterator<Item = &Item> + '_> {
        match self {
            Self::Value(item) => Box::new(std::iter::once(item)),
            Self::Map(fields) => Box::new(fields.values()),
            Self::List(items) => Box::new(items.iter()),
        }
    }

    /// When the first of it is gone.
    pub(crate) fn first_expiry(&self) -> i64 {
        self.items().map(|item| item.expires).min().unwrap_or(NEVER)
    }

    /// When all of it is gone.
    pub(crate) fn last_expiry(&self) -> i64 {
        self.items().map(|item| item.expires).max().unwrap_or(i64::MIN)
    }

    /// Drops what is gone by `now`; whether anything is left.
    pub(crate) fn expire(&mut self, now: i64) -> bool {
        match self {
            Self::Value(item) => item.lives(now),
            Self::Map(fields) => {
                fields.retain(|_, item| item.lives(now));
                !fields.is_empty()
            }
            Self::List(items) => {
                items.retain(|item| item.lives(now));
                !items.is_empty()
            }
        }
    }

    /// Replaces the bytes of every item.
    pub(crate) fn convert(
        &mut self,
        mut convert: impl FnMut(&[u8]) -> Result<Vec<u8>, String>,
    ) -> Result<(), String> {
        let mut each = |item: &mut Item| {
            item.bytes = convert(&item.bytes)?;
            Ok(())
        };
        match self {
            Self::Value(item) => each(item),
            Self::Map(fields) => fields.values_mut().try_for_each(each),
            Self::List(items) => items.iter_mut().try_for_each(each),
        }
    }

    /// Appends its bytes, without what is gone by `now`. Little-endian: of a value the expiry (i64) and the bytes; of a map
    /// and a list the number of items (u32), and of each (field length u32, field,) expiry i64, length u32, bytes.
    pub(crate) fn encode(&self, now: i64, into: &mut Vec<u8>) {
        fn sized(bytes: &[u8], into: &mut Vec<u8>) {
            // Longer ones were refused when they were written.
            into.extend_from_slice(&u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_le_bytes());
            into.extend_from_slice(bytes);
        }
        fn item(item: &Item, into: &mut Vec<u8>) {
            into.extend_from_slice(&item.expires.to_le_bytes());
            sized(&item.bytes, into);
        }
        let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX).to_le_bytes();
        match self {
            Self::Value(value) => {
                into.extend_from_slice(&value.expires.to_le_bytes());
                into.extend_from_slice(&value.bytes);
            }
            Self::Map(fields) => {
                into.extend_from_slice(&count(fields.values().filter(|item| item.lives(now)).count()));
                for (field, value) in fields.iter().filter(|(_, item)| item.lives(now)) {
                    sized(field, into);
                    item(value, into);
                }
            }
            Self::List(items) => {
                into.extend_from_slice(&count(items.iter().filter(|item| item.lives(now)).count()));
                items.iter().filter(|item| item.lives(now)).for_each(|value| item(value, into));
            }
        }
    }

    /// The inverse; `Err` says what is wrong.
    pub(crate) fn decode(kind: StateKind, bytes: &[u8]) -> Result<Self, String> {
        let mut reader = Reader(bytes);
        let cell = match kind {
            StateKind::Value => {
                let expires = reader.i64()?;
                Self::Value(Item { bytes: std::mem::take(&mut reader.0).to_vec(), expires })
            }
            StateKind::Map => {
                let mut fields = BTreeMap::new();
                for _ in 0..reader.u32()? {
                    let field = reader.sized()?.into();
                    let expires = reader.i64()?;
                    fields.insert(field, Item { bytes: reader.sized()?.to_vec(), expires });
                }
                Self::Map(fields)
            }
            StateKind::List => {
                let mut items = VecDeque::new();
                for _ in 0..reader.u32()? {
                    let expires = reader.i64()?;
                    items.push_back(Item { bytes: reader.sized()?.to_vec(), expires });
                }
                Self::List(items)
            }
        };
        if reader.0.is_empty() { Ok(cell) } else { Err("it has bytes too many".to_owned()) }
    }
}

/// Takes bytes from the front.
pub(crate) struct Reader<'a>(pub(crate) &'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) fn take(&mut self, len: usize) -> Result<&'a [u8], String> {
        let (front, rest) = self.0.split_at_checked(len).ok_or_else(|| "it is cut short".to_owned())?;
        self.0 = rest;
        Ok(front)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], String> {
        let (front, rest) = self.0.split_first_chunk().ok_or_else(|| "it is cut short".to_owned())?;
        self.0 = rest;
        Ok(*front)
    }

    pub(crate) fn i64(&mut self) -> Result<i64, String> {
        Ok(i64::from_le_bytes(self.array()?))
    }

    pub(crate) fn u64(&mut self) -> Result<u64, String> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    pub(crate) fn u32(&mut self) -> Result<u32, String> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    pub(crate) fn u16(&mut self) -> Result<u16, String> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    pub(crate) fn sized(&mut self) -> Result<&'a [u8], String> {
        let len = self.u32()?;
        self.take(len as usize)
    }
}
