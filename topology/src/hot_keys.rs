//! Which key is how much of what a component gets, by sample.

use std::fmt::Write;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use galerna_lock::Mutex;

/// Keys that are remembered.
const KEYS: usize = 16;
/// After so many samples what was seen before counts half, so that it tells of lately.
const FORGETS_AFTER: u64 = 4_096;
/// Fewer samples tell nothing.
const FEWEST: u64 = 64;
/// The longest name of a key, in characters.
const NAME: usize = 60;

/// The most frequent keys of a stream, counted by sample as in Metwally et al., "Efficient Computation of Frequent and Top-k Elements
/// in Data Streams" (2005). Clones are the same.
#[derive(Debug, Clone, Default)]
pub struct HotKeys(Arc<Mutex<Sketch>>);

#[derive(Debug, Default)]
struct Sketch {
    samples: u64,
    keys: Vec<Counted>,
}

#[derive(Debug)]
struct Counted {
    hash: u64,
    name: String,
    count: u64,
    /// What of the count may be another key's, whose place it took.
    other: u64,
}

/// A key that many tuples have.
#[derive(Debug, Clone, PartialEq)]
pub struct HotKey {
    /// The key as text, as far as how it is hashed tells it.
    pub key: String,
    /// Its share of the tuples, 0 to 1, at least.
    pub share: f64,
}

impl HotKeys {
    /// Counts a key.
    pub(crate) fn sample(&self, hash: u64, name: impl FnOnce() -> String) {
        let mut sketch = self.0.lock();
        sketch.samples += 1;
        if let Some(key) = sketch.keys.iter_mut().find(|key| key.hash == hash) {
            key.count += 1;
        } else if sketch.keys.len() < KEYS {
            sketch.keys.push(Counted { hash, name: name(), count: 1, other: 0 });
        } else if let Some(least) = sketch.keys.iter_mut().min_by_key(|key| key.count) {
            *least = Counted { hash, name: name(), count: least.count + 1, other: least.count };
        }
        if sketch.samples >= FORGETS_AFTER {
            sketch.samples /= 2;
            for key in &mut sketch.keys {
                key.count /= 2;
                key.other /= 2;
            }
        }
    }

    /// The key that was seen most lately; nothing before there are enough samples.
    pub fn hottest(&self) -> Option<HotKey> {
        let sketch = self.0.lock();
        let most = sketch.keys.iter().max_by_key(|key| key.count - key.other)?;
        let share = (most.count - most.other) as f64 / sketch.samples as f64;
        (sketch.samples >= FEWEST).then(|| HotKey { key: most.name.clone(), share })
    }
}

/// Writes what it is to hash as text: strings and numbers as they are, one after the other.
#[derive(Default)]
struct Spelled(String);

impl Spelled {
    fn part(&mut self, part: impl std::fmt::Display) {
        let separator = if self.0.is_empty() { "" } else { ", " };
        let _ = write!(self.0, "{separator}{part}");
    }
}

impl Hasher for Spelled {
    fn write(&mut self, bytes: &[u8]) {
        match std::str::from_utf8(bytes) {
            Ok(text) => self.part(text.escape_debug()),
            Err(_) => bytes.iter().for_each(|byte| self.part(byte)),
        }
    }

    fn write_u8(&mut self, n: u8) {
        // The end of a string.
        if n != 0xff {
            self.part(n);
        }
    }

    fn write_u16(&mut self, n: u16) {
        self.part(n);
    }

    fn write_u32(&mut self, n: u32) {
        self.part(n);
    }

    fn write_u64(&mut self, n: u64) {
        self.part(n);
    }

    fn write_u128(&mut self, n: u128) {
        self.part(n);
    }

    fn write_usize(&mut self, n: usize) {
        self.part(n);
    }

    fn write_i8(&mut self, n: i8) {
        self.part(n);
    }

    fn write_i16(&mut self, n: i16) {
        self.part(n);
    }

    fn write_i32(&mut self, n: i32) {
        self.part(n);
    }

    fn write_i64(&mut self, n: i64) {
        self.part(n);
    }

    fn write_i128(&mut self, n: i128) {
        self.part(n);
    }

    fn write_isize(&mut self, n: isize) {
        self.part(n);
    }

    fn finish(&self) -> u64 {
        0
    }
}

/// A key as text.
pub(crate) fn spelled<K: Hash + ?Sized>(key: &K) -> String {
    let mut text = Spelled::default();
    key.hash(&mut text);
    shortened(text.0)
}

/// As much of a text as a key is shown by.
pub(crate) fn shortened(text: String) -> String {
    match text.char_indices().nth(NAME) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_spelled_as_they_are_hashed() {
        let long = "x".repeat(100);
        for (spelled, expected) in [
            (spelled("moon"), "moon"),
            (spelled(&String::from("moon")), "moon"),
            (spelled(&7_u64), "7"),
            (spelled(&-7_i32), "-7"),
            (spelled(&("shop", 3_u32)), "shop, 3"),
            (spelled("a\nb"), "a\\nb"),
            (spelled(long.as_str()), &format!("{}…", "x".repeat(60))),
        ] {
            assert_eq!(spelled, expected);
        }
    }

    #[test]
    fn the_hottest_key_is_found_among_many_and_no_share_is_invented() {
        let hot = HotKeys::default();
        assert_eq!(hot.hottest(), None);
        for n in 0..20_000_u64 {
            let key = if n % 10 < 4 { 1 } else { 1_000 + n };
            hot.sample(key, || spelled(&key));
        }
        let hottest = hot.hottest().unwrap();
        assert_eq!(hottest.key, "1");
        assert!((0.35..=0.41).contains(&hottest.share), "{hottest:?}");
        let even = HotKeys::default();
        for n in 0..20_000_u64 {
            even.sample(n % 1_000, || spelled(&(n % 1_000)));
        }
        assert!(even.hottest().unwrap().share < 0.1, "{:?}", even.hottest());
    }
}
