//! The hash by which keys are given to tasks.

use std::hash::{Hash, Hasher};

/// A hash that is the same on every machine and in every run, so that a key keeps its task: 16 bytes at a time by one
/// multiplication whose halves are folded, after wyhash (Wang Yi, 2019), with its constants. (Of slices of integers
/// Rust gives the bytes in the machine's own order.) Not for keys that somebody chooses in order to do harm.
#[derive(Debug, Clone, Copy)]
pub struct StableHasher(u64);

/// Odd, with as many ones as zeros in each byte.
const SECRET: [u64; 4] =
    [0xa076_1d64_78bd_642f, 0xe703_7ed1_a0b4_28db, 0x8ebc_6af0_9c88_c6e3, 0x5899_65cc_7537_4cc3];

/// Multiplies, and folds the halves of the product.
#[inline]
const fn fold(a: u64, b: u64) -> u64 {
    let wide = (a as u128) * (b as u128);
    (wide as u64) ^ ((wide >> 64) as u64)
}

/// The first eight bytes.
#[inline]
fn eight(bytes: &[u8]) -> u64 {
    bytes.first_chunk().map_or(0, |word| u64::from_le_bytes(*word))
}

/// The first four bytes.
#[inline]
fn four(bytes: &[u8]) -> u64 {
    bytes.first_chunk().map_or(0, |word| u64::from(u32::from_le_bytes(*word)))
}

impl StableHasher {
    /// A fresh hasher.
    pub const fn new() -> Self {
        Self(SECRET[3])
    }

    /// The hash of a key.
    #[inline]
    pub fn hash<K: Hash + ?Sized>(key: &K) -> u64 {
        let mut hasher = Self::new();
        key.hash(&mut hasher);
        hasher.finish()
    }

    #[inline]
    fn word(&mut self, word: u64) {
        self.0 = fold(self.0 ^ word, SECRET[0]);
    }
}

impl Default for StableHasher {
    fn default() -> Self {
        Self::new()
    }
}

impl Hasher for StableHasher {
    #[inline]
    fn write(&mut self, bytes: &[u8]) {
        let len = bytes.len();
        let mut rest = bytes;
        while rest.len() > 16 {
            self.0 = fold(self.0 ^ eight(rest), SECRET[1] ^ eight(&rest[8..]));
            rest = &rest[16..];
        }
        // The last 16 bytes or fewer, by two reads that may overlap.
        let (first, last) = match rest.len() {
            9.. => (eight(rest), eight(&rest[rest.len() - 8..])),
            8 => (eight(rest), 0),
            4..8 => (four(rest), four(&rest[rest.len() - 4..])),
            0 => (0, 0),
            n => (u64::from(rest[0]) << 16 | u64::from(rest[n / 2]) << 8 | u64::from(rest[n - 1]), 0),
        };
        let last = (SECRET[2] ^ last).wrapping_add((len as u64).wrapping_mul(SECRET[0]));
        self.0 = fold(self.0 ^ first, last);
    }

    #[inline]
    fn write_u8(&mut self, n: u8) {
        // Ends every text: cheaper than a word, and mixed by what follows.
        self.0 = (self.0.rotate_left(5) ^ u64::from(n)).wrapping_mul(SECRET[1]);
    }
    #[inline]
    fn write_u16(&mut self, n: u16) {
        self.word(u64::from(n));
    }
    #[inline]
    fn write_u32(&mut self, n: u32) {
        self.word(u64::from(n));
    }
    #[inline]
    fn write_u64(&mut self, n: u64) {
        self.word(n);
    }
    #[inline]
    fn write_usize(&mut self, n: usize) {
        self.word(n as u64);
    }

    #[inline]
    fn finish(&self) -> u64 {
        fold(self.0 ^ SECRET[0], SECRET[1])
    }
}

/// Maps a hash to one of `n` by multiplication (Lemire 2016), cheaper than a division.
#[inline]
pub(crate) fn reduce(hash: u64, n: usize) -> usize {
    ((u128::from(hash) * n as u128) >> 64) as usize
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    const TEXTS: [u64; 8] = [
        14_873_099_642_416_456_992,
        9_500_761_714_796_777_591,
        4_238_128_292_735_572_476,
        2_440_022_929_512_179_666,
        949_197_338_853_342_175,
        15_460_206_707_749_203_232,
        3_819_185_380_205_683_068,
        3_689_916_281_344_686_830,
    ];
    const NUMBERS: [u64; 3] =
        [1_198_079_128_926_543_079, 12_099_176_454_271_055_388, 8_771_411_123_852_513_653];

    #[test]
    fn a_key_has_the_same_hash_everywhere_and_always() {
        let texts =
            ["", "a", "ab", "moon", "keeps", "sentence", "four score and", "longer than sixteen bytes it is"];
        let hashes: Vec<u64> = texts.iter().map(|text| StableHasher::hash(*text)).collect();
        assert_eq!(hashes, TEXTS);
        assert_eq!([0_u64, 1, u64::MAX].map(|n| StableHasher::hash(&n)), NUMBERS);
    }

    #[test]
    fn different_keys_have_different_hashes() {
        let zeros = (0..300).map(|n| StableHasher::hash(&vec![0_u8; n]));
        let numbers = (0..100_000_u64).map(|n| StableHasher::hash(&n));
        let short = (0..=u16::MAX).map(|n| StableHasher::hash(&n.to_le_bytes()[..]));
        let texts = (0..100_000).map(|n| StableHasher::hash(format!("meter-{n}").as_str()));
        let pairs = (0..100_000_u32).map(|n| StableHasher::hash(&(n % 300, n / 300)));
        let bytes = (0..40_000_u32).map(|n| StableHasher::hash(&((n % 200) as u8, (n / 200) as u8)));
        for hashes in [
            zeros.collect::<Vec<_>>(),
            numbers.collect(),
            short.collect(),
            texts.collect(),
            pairs.collect(),
            bytes.collect(),
        ] {
            assert_eq!(hashes.iter().collect::<HashSet<_>>().len(), hashes.len());
        }
    }

    #[test]
    fn keys_spread_evenly_over_the_tasks() {
        type Key = fn(u64) -> u64;
        let keys: [(&str, Key); 3] = [
            ("numbers", |n| StableHasher::hash(&n)),
            ("multiples", |n| StableHasher::hash(&(n * 4_096))),
            ("texts", |n| StableHasher::hash(format!("meter-{n}").as_str())),
        ];
        for (what, key) in keys {
            for tasks in 2..9 {
                let mut rows = vec![0_usize; tasks];
                (0..100_000).for_each(|n| rows[reduce(key(n), tasks)] += 1);
                let even = 100_000 / tasks;
                assert!(rows.iter().all(|n| n.abs_diff(even) < even / 20), "{what} over {tasks}: {rows:?}");
            }
        }
    }
}
