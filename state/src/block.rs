//! The bytes of one state in one key group, as snapshots hold them.
//!
//! A block is, little-endian: the magic `GKB1`; the XXH3-64 (seed 0) of all that follows; the length of all that follows
//! (u64); the kind (u8: 1 value, 2 map, 3 list), the version (u32), the key group (u16), the component and the state (u16
//! length and UTF-8 each), the number of cells (u32), and of each cell the key and the body (u32 length and bytes each).

use xxhash_rust::xxh3::xxh3_64;

use crate::cell::Reader;
use crate::spec::StateKind;
use crate::{KeyGroup, StateError};

const MAGIC: [u8; 4] = *b"GKB1";
const HEAD: usize = 20;

/// Of which state and key group a block is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BlockHeader {
    pub(crate) component: String,
    pub(crate) state: String,
    pub(crate) kind: StateKind,
    pub(crate) version: u32,
    pub(crate) group: KeyGroup,
}

impl BlockHeader {
    pub(crate) fn corrupt(&self, file: &str, problem: impl std::fmt::Display) -> StateError {
        StateError::Corrupt {
            component: self.component.clone(),
            state: self.state.clone(),
            group: self.group,
            file: file.to_owned(),
            problem: format!(
                "{problem}; put the file back from a copy, or restore an older checkpoint, from which messages that were acked \
                 since are missing"
            ),
        }
    }
}

/// Writes one block at the end of a buffer.
pub(crate) struct BlockWriter<'a> {
    into: &'a mut Vec<u8>,
    start: usize,
    count_at: usize,
    cells: u32,
}

impl<'a> BlockWriter<'a> {
    pub(crate) fn new(header: &BlockHeader, into: &'a mut Vec<u8>) -> Self {
        let start = into.len();
        into.extend_from_slice(&MAGIC);
        into.extend_from_slice(&[0; 16]);
        into.push(header.kind.code());
        into.extend_from_slice(&header.version.to_le_bytes());
        into.extend_from_slice(&header.group.number().to_le_bytes());
        for name in [&header.component, &header.state] {
            // Longer names are refused where they are declared.
            into.extend_from_slice(&u16::try_from(name.len()).unwrap_or(u16::MAX).to_le_bytes());
            into.extend_from_slice(name.as_bytes());
        }
        let count_at = into.len();
        into.extend_from_slice(&[0; 4]);
        Self { into, start, count_at, cells: 0 }
    }

    /// Adds a cell, whose body `encode` appends.
    pub(crate) fn cell(&mut self, key: &[u8], encode: impl FnOnce(&mut Vec<u8>)) {
        self.into.extend_from_slice(&(key.len() as u32).to_le_bytes());
        self.into.extend_from_slice(key);
        let len_at = self.into.len();
        self.into.extend_from_slice(&[0; 4]);
        encode(self.into);
        let len = (self.into.len() - len_at - 4) as u32;
        self.into[len_at..len_at + 4].copy_from_slice(&len.to_le_bytes());
        self.cells += 1;
    }

    /// Ends it; a block without cells leaves no bytes. The length.
    pub(crate) fn finish(self) -> u64 {
        if self.cells == 0 {
            self.into.truncate(self.start);
            return 0;
        }
        self.into[self.count_at..self.count_at + 4].copy_from_slice(&self.cells.to_le_bytes());
        let len = (self.into.len() - self.start - HEAD) as u64;
        self.into[self.start + 12..self.start + HEAD].copy_from_slice(&len.to_le_bytes());
        let checksum = xxh3_64(&self.into[self.start + 12..]);
        self.into[self.start + 4..self.start + 12].copy_from_slice(&checksum.to_le_bytes());
        (self.into.len() - self.start) as u64
    }
}

/// The cells of a block, as pairs of key and body.
pub(crate) type Cells<'a> = Vec<(&'a [u8], &'a [u8])>;

/// Reads a block that is to be exactly these bytes; `Err` says what is wrong.
pub(crate) fn read_block(bytes: &[u8]) -> Result<(BlockHeader, Cells<'_>), String> {
    let mut reader = Reader(bytes);
    if reader.array()? != MAGIC {
        return Err("it does not begin as a block of state".to_owned());
    }
    let checksum = reader.u64()?;
    if xxh3_64(reader.0) != checksum {
        return Err("its checksum is wrong: bytes of it were changed or cut off".to_owned());
    }
    if reader.u64()? != reader.0.len() as u64 {
        return Err("its length is wrong".to_owned());
    }
    let [kind] = reader.array()?;
    let kind = StateKind::from_code(kind).ok_or_else(|| format!("its kind {kind} is not known"))?;
    let version = reader.u32()?;
    let group = reader.u16()?;
    let group = KeyGroup::new(group).ok_or_else(|| format!("there is no key group {group}"))?;
    let mut text = || {
        let len = reader.u16()?;
        let bytes = reader.take(usize::from(len))?.to_vec();
        String::from_utf8(bytes).map_err(|_| "a name in it is no text".to_owned())
    };
    let (component, state) = (text()?, text()?);
    let count = reader.u32()?;
    // At least eight bytes each, whatever the count says.
    let mut cells = Vec::with_capacity((count as usize).min(reader.0.len() / 8));
    for _ in 0..count {
        cells.push((reader.sized()?, reader.sized()?));
    }
    if !reader.0.is_empty() {
        return Err("it has bytes too many".to_owned());
    }
    Ok((BlockHeader { component, state, kind, version, group }, cells))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::cell::{Cell, NEVER};

    fn header() -> BlockHeader {
        BlockHeader {
            component: "count".to_owned(),
            state: "by hour".to_owned(),
            kind: StateKind::Map,
            version: 3,
            group: KeyGroup::of_hash(1 << 60),
        }
    }

    proptest! {
        #[test]
        fn a_block_comes_back_as_it_was_written(
            cells in prop::collection::vec((any::<Vec<u8>>(), any::<Vec<u8>>()), 1..20),
        ) {
            let mut bytes = b"before".to_vec();
            let mut writer = BlockWriter::new(&header(), &mut bytes);
            cells.iter().for_each(|(key, body)| writer.cell(key, |into| into.extend_from_slice(body)));
            let length = writer.finish();
            prop_assert_eq!(length as usize, bytes.len() - 6);
            let (read, found) = read_block(&bytes[6..]).expect("whole");
            prop_assert_eq!(read, header());
            let expected: Vec<_> = cells.iter().map(|(key, body)| (key.as_slice(), body.as_slice())).collect();
            prop_assert_eq!(found, expected);
        }

        #[test]
        fn any_bytes_are_read_or_refused(mut bytes in any::<Vec<u8>>(), sealed in any::<bool>(), kind in 1_u8..4) {
            if sealed {
                // With a checksum that fits, so that what follows it is read.
                let rest = xxh3_64(&bytes).to_le_bytes();
                bytes = [&MAGIC[..], &rest, &bytes].concat();
            }
            drop(read_block(&bytes));
            let kind = StateKind::from_code(kind).expect("a kind");
            if let Ok(cell) = Cell::decode(kind, &bytes) {
                let mut again = Vec::new();
                cell.encode(i64::MIN, &mut again);
                prop_assert!(Cell::decode(kind, &again).is_ok());
            }
        }
    }

    #[test]
    fn a_cell_of_each_kind_comes_back_without_what_is_gone() {
        use crate::cell::Item;
        let item = |n: u8, expires| Item { bytes: vec![n], expires };
        let all = [
            (StateKind::Value, Cell::Value(item(1, NEVER)), Cell::Value(item(1, NEVER))),
            (
                StateKind::Map,
                Cell::Map([(Box::from(&b"a"[..]), item(1, 5)), (Box::from(&b"b"[..]), item(2, 6))].into()),
                Cell::Map([(Box::from(&b"b"[..]), item(2, 6))].into()),
            ),
            (
                StateKind::List,
                Cell::List([item(1, 6), item(2, 5), item(3, NEVER)].into()),
                Cell::List([item(1, 6), item(3, NEVER)].into()),
            ),
        ];
        for (kind, before, after) in all {
            let mut bytes = Vec::new();
            before.encode(5, &mut bytes);
            assert_eq!(Cell::decode(kind, &bytes).as_ref(), Ok(&after));
        }
    }
}
