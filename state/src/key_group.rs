//! Key groups: the unit in which state is owned by tasks, written and moved.

use std::cell::Cell;
use std::fmt;
use std::ops::Range;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use xxhash_rust::xxh3::xxh3_64;

use crate::StateError;

/// Key groups of a component.
pub const KEY_GROUPS: usize = 4096;

thread_local! {
    /// Where keys are encoded to be hashed.
    static ENCODED: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// One of the [`KEY_GROUPS`] groups that the keys of a component fall into.
///
/// The group of a key never changes: it is the first 12 bits of the XXH3-64 hash (seed 0, Yann Collet's specification) of
/// the key's MessagePack form, structs as arrays. So `7_u8` and `7_u64`, `"a"` and `String::from("a")` are one key. Not for
/// keys that somebody chooses in order to do harm.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyGroup(u16);

impl KeyGroup {
    /// The group with this number; `None` from 4,096 on.
    pub const fn new(number: u16) -> Option<Self> {
        if (number as usize) < KEY_GROUPS { Some(Self(number)) } else { None }
    }

    /// The group of a key.
    ///
    /// # Errors
    /// [`StateError::Encode`] when the key has no serialised form.
    pub fn of<K: Serialize + ?Sized>(key: &K) -> Result<Self, StateError> {
        // Asked for each tuple, so without an allocation each time.
        let mut bytes = ENCODED.take();
        bytes.clear();
        let encoded = rmp_serde::encode::write(&mut bytes, key);
        let group = Self::of_hash(hash_key(&bytes));
        ENCODED.set(bytes);
        encoded.map(|()| group).map_err(|cause| StateError::encode("key", &cause))
    }

    /// The group of a key with this hash.
    pub(crate) const fn of_hash(hash: u64) -> Self {
        Self((hash >> 52) as u16)
    }

    /// From 0 to 4,095.
    pub const fn number(self) -> u16 {
        self.0
    }

    /// As an index.
    pub const fn index(self) -> usize {
        self.0 as usize
    }

    /// The task that owns it when `tasks` tasks share the groups evenly; 0 when there is none.
    pub const fn task(self, tasks: usize) -> usize {
        self.0 as usize * tasks / KEY_GROUPS
    }

    /// All groups in order.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..KEY_GROUPS as u16).map(Self)
    }
}

impl fmt::Display for KeyGroup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Serialize for KeyGroup {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for KeyGroup {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let number = u16::deserialize(deserializer)?;
        Self::new(number).ok_or_else(|| de::Error::custom(format!("there is no key group {number}")))
    }
}

/// The hash of an encoded key.
pub(crate) fn hash_key(encoded: &[u8]) -> u64 {
    xxh3_64(encoded)
}

const WORDS: usize = KEY_GROUPS / 64;

/// A set of key groups.
#[derive(Clone, PartialEq, Eq)]
pub struct KeyGroups(Box<[u64; WORDS]>);

impl KeyGroups {
    /// No group.
    pub fn none() -> Self {
        Self(Box::new([0; WORDS]))
    }

    /// Every group.
    pub fn all() -> Self {
        Self(Box::new([u64::MAX; WORDS]))
    }

    /// The even shares of `tasks` tasks, by task: contiguous ranges, so that a change of the number moves few groups.
    ///
    /// # Errors
    /// [`StateError::Tasks`] when there is no task, or more than there are groups.
    pub fn shares(tasks: usize) -> Result<Vec<Self>, StateError> {
        if tasks == 0 || tasks > KEY_GROUPS {
            return Err(StateError::Tasks { tasks });
        }
        let mut shares = vec![Self::none(); tasks];
        for group in KeyGroup::all() {
            shares[group.task(tasks)].insert(group);
        }
        Ok(shares)
    }

    /// Whether it has this group.
    pub fn contains(&self, group: KeyGroup) -> bool {
        self.0[group.index() / 64] & (1 << (group.index() % 64)) != 0
    }

    /// Adds a group.
    pub fn insert(&mut self, group: KeyGroup) {
        self.0[group.index() / 64] |= 1 << (group.index() % 64);
    }

    /// Takes a group out.
    pub fn remove(&mut self, group: KeyGroup) {
        self.0[group.index() / 64] &= !(1 << (group.index() % 64));
    }

    /// How many groups it has.
    pub fn len(&self) -> usize {
        self.0.iter().map(|word| word.count_ones() as usize).sum()
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(|word| *word == 0)
    }

    /// Its groups in order.
    pub fn iter(&self) -> impl Iterator<Item = KeyGroup> + '_ {
        KeyGroup::all().filter(|group| self.contains(*group))
    }

    /// The groups in either.
    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        self.combine(other, |a, b| a | b)
    }

    /// The groups in both.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Self {
        self.combine(other, |a, b| a & b)
    }

    /// The groups in this one that are not in `other`.
    #[must_use]
    pub fn difference(&self, other: &Self) -> Self {
        self.combine(other, |a, b| a & !b)
    }

    fn combine(&self, other: &Self, with: impl Fn(u64, u64) -> u64) -> Self {
        let mut words = self.0.clone();
        words.iter_mut().zip(other.0.iter()).for_each(|(word, other)| *word = with(*word, *other));
        Self(words)
    }

    /// Its runs, each with the number after its last group.
    pub fn ranges(&self) -> Vec<Range<u16>> {
        let mut ranges: Vec<Range<u16>> = Vec::new();
        for group in self.iter() {
            match ranges.last_mut() {
                Some(range) if range.end == group.number() => range.end += 1,
                _ => ranges.push(group.number()..group.number() + 1),
            }
        }
        ranges
    }
}

impl FromIterator<KeyGroup> for KeyGroups {
    fn from_iter<I: IntoIterator<Item = KeyGroup>>(groups: I) -> Self {
        let mut set = Self::none();
        groups.into_iter().for_each(|group| set.insert(group));
        set
    }
}

impl fmt::Display for KeyGroups {
    /// `0-1023, 2048`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, range) in self.ranges().into_iter().enumerate() {
            let (separator, last) = (if n == 0 { "" } else { ", " }, range.end - 1);
            match last == range.start {
                true => write!(f, "{separator}{last}")?,
                false => write!(f, "{separator}{}-{last}", range.start)?,
            }
        }
        if self.is_empty() { f.write_str("none") } else { Ok(()) }
    }
}

impl fmt::Debug for KeyGroups {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyGroups({self})")
    }
}

impl Serialize for KeyGroups {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let pairs: Vec<(u16, u16)> = self.ranges().into_iter().map(|r| (r.start, r.end)).collect();
        pairs.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for KeyGroups {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut set = Self::none();
        for (start, end) in Vec::<(u16, u16)>::deserialize(deserializer)? {
            for number in start..end {
                set.insert(
                    KeyGroup::new(number)
                        .ok_or_else(|| de::Error::custom(format!("there is no key group {number}")))?,
                );
            }
        }
        Ok(set)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of<K: Serialize + ?Sized>(key: &K) -> u16 {
        KeyGroup::of(key).expect("the key is encoded").number()
    }

    #[test]
    fn a_key_has_the_same_group_everywhere_and_always() {
        // XXH3-64 of nothing, as its specification has it.
        assert_eq!(hash_key(b""), 0x2d06_8005_38d3_94c2);
        let numbers = [of(&0_u64), of(&1_u64), of(&u64::MAX)];
        let texts = ["", "a", "meter-1", "ünïcode"].map(of);
        assert_eq!((numbers, texts, of(&("account", 7))), ([3140, 3602, 185], [697, 2990, 3879, 674], 4024));
    }

    #[test]
    fn forms_of_one_key_have_one_group() {
        assert_eq!(of("meter"), of(&"meter".to_owned()));
        assert_eq!(of(&7_u8), of(&7_i64));
        assert_eq!(of(&("a", 7_u8)), of(&("a".to_owned(), 7_u64)));
    }

    #[test]
    fn keys_spread_evenly_over_the_groups() {
        for key in [|n: u32| format!("meter-{n}"), |n: u32| n.to_string()] {
            let mut keys = [0_u32; KEY_GROUPS];
            (0..400_000).for_each(|n| keys[of(&key(n)) as usize] += 1);
            // About 98 each, with a deviation of 10.
            assert!(keys.iter().all(|n| (40..170).contains(n)), "{:?}", keys.iter().minmax());
        }
    }

    trait MinMax<'a> {
        fn minmax(self) -> (Option<&'a u32>, Option<&'a u32>);
    }

    impl<'a, I: Iterator<Item = &'a u32> + Clone> MinMax<'a> for I {
        fn minmax(self) -> (Option<&'a u32>, Option<&'a u32>) {
            (self.clone().min(), self.max())
        }
    }

    #[test]
    fn shares_cover_every_group_once_and_evenly() {
        for tasks in [1, 2, 3, 4, 7, 100, 4095, 4096] {
            let shares = KeyGroups::shares(tasks).expect("a share each");
            let (least, most) = (KEY_GROUPS / tasks, KEY_GROUPS.div_ceil(tasks));
            assert!(shares.iter().all(|share| (least..=most).contains(&share.len())), "{tasks}");
            assert_eq!(shares.iter().map(KeyGroups::len).sum::<usize>(), KEY_GROUPS);
            let all = shares.iter().fold(KeyGroups::none(), |all, share| all.union(share));
            assert_eq!(all, KeyGroups::all());
        }
    }

    #[test]
    fn a_share_of_nothing_is_refused() {
        for tasks in [0, 4097] {
            let error = KeyGroups::shares(tasks).expect_err("refused").to_string();
            assert!(error.contains(&tasks.to_string()) && error.contains("4096"), "{error}");
        }
    }

    #[test]
    fn a_set_comes_back_from_its_bytes_and_reads_as_ranges() {
        let set: KeyGroups = (0..10).chain(20..21).chain(4095..4096).filter_map(KeyGroup::new).collect();
        assert_eq!(set.to_string(), "0-9, 20, 4095");
        let bytes = rmp_serde::to_vec(&set).expect("encoded");
        assert_eq!(rmp_serde::from_slice::<KeyGroups>(&bytes).expect("decoded"), set);
        assert_eq!(KeyGroups::none().to_string(), "none");
        assert!(
            rmp_serde::from_slice::<KeyGroups>(&rmp_serde::to_vec(&[(0, 5000)]).expect("bytes")).is_err()
        );
    }
}
