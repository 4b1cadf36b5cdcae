//! Inputs made from good ones by small changes.

use std::panic::{AssertUnwindSafe, catch_unwind};

/// What parsers stumble over.
const TOKENS: [&[u8]; 20] = [
    b"null",
    b"NaN",
    b"1e999",
    b"-0",
    b"18446744073709551616",
    b"9223372036854775807",
    b"\"",
    b"{",
    b"[",
    b",",
    b";",
    b"\n",
    b"\r",
    b"\0",
    b"\xef\xbb\xbf",
    b"\xff\xfe",
    b"\xff",
    b"\xc1",
    b"\xdf\xff\xff\xff\xff",
    b"1,5",
];

/// Makes inputs from a corpus; the same seed makes the same inputs.
#[derive(Debug)]
pub struct Mutator {
    random: fastrand::Rng,
    corpus: Vec<Vec<u8>>,
}

impl Mutator {
    /// Starts from good inputs.
    ///
    /// # Panics
    /// When there is none.
    pub fn new(seed: u64, corpus: Vec<Vec<u8>>) -> Self {
        assert!(!corpus.is_empty(), "a corpus has at least one input");
        Self { random: fastrand::Rng::with_seed(seed), corpus }
    }

    /// The next input: one of the corpus with up to eight changes.
    pub fn input(&mut self) -> Vec<u8> {
        let mut input = self.corpus[self.random.usize(..self.corpus.len())].clone();
        for _ in 0..self.random.usize(0..=8) {
            self.change(&mut input);
        }
        input
    }

    fn change(&mut self, input: &mut Vec<u8>) {
        let at = self.random.usize(..=input.len());
        match self.random.u8(..6) {
            0 if at < input.len() => input[at] ^= 1 << self.random.u8(..8),
            1 if at < input.len() => input[at] = self.random.u8(..),
            2 => input.truncate(at),
            3 => {
                let end = (at + self.random.usize(..=16)).min(input.len());
                input.drain(at..end);
            }
            4 => {
                let token = TOKENS[self.random.usize(..TOKENS.len())];
                input.splice(at..at, token.iter().copied());
            }
            _ => {
                let other = &self.corpus[self.random.usize(..self.corpus.len())];
                let from = self.random.usize(..=other.len());
                input.truncate(at);
                input.extend_from_slice(&other[from..]);
            }
        }
    }
}

/// Runs a target on `count` inputs made with `seed`.
///
/// # Panics
/// With the input, when the target panics on it.
pub fn run(target: impl Fn(&[u8]), seed: u64, corpus: Vec<Vec<u8>>, count: usize) {
    let mut mutator = Mutator::new(seed, corpus);
    for n in 0..count {
        let input = mutator.input();
        if catch_unwind(AssertUnwindSafe(|| target(&input))).is_err() {
            panic!("input {n} of seed {seed} breaks the target: {:?}", String::from_utf8_lossy(&input));
        }
    }
}
