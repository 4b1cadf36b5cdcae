//! What a window makes of its tuples.

use std::fmt;
use std::marker::PhantomData;

use galerna_topology::Data;
use serde::{Deserialize, Serialize};

/// What a window makes of the tuples of one key, step by step.
///
/// Windows keep accumulators, not tuples: sliding windows that overlap share the accumulators of their panes and
/// [`merge`](Self::merge) them when they fire. So for any tuples, in whatever parts they were added, merging the parts in the order of
/// time must be as adding all in one. [`Collect`] keeps the tuples themselves.
pub trait Aggregate<T>: Send + Sync + 'static {
    /// What is kept.
    type Accumulator: Clone + Send + 'static;
    /// What comes out.
    type Output: Data;

    /// The accumulator of no tuples.
    fn create(&self) -> Self::Accumulator;
    /// One more tuple.
    fn add(&self, accumulator: &mut Self::Accumulator, tuple: T);
    /// Takes in another accumulator, whose tuples come after those here.
    fn merge(&self, accumulator: &mut Self::Accumulator, later: &Self::Accumulator);
    /// What comes of it so far. It may be asked several times, with tuples added between.
    fn result(&self, accumulator: &Self::Accumulator) -> Self::Output;
}

/// How many tuples there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Count;

impl<T> Aggregate<T> for Count {
    type Accumulator = u64;
    type Output = u64;

    fn create(&self) -> u64 {
        0
    }

    fn add(&self, count: &mut u64, _: T) {
        *count += 1;
    }

    fn merge(&self, count: &mut u64, later: &u64) {
        *count += later;
    }

    fn result(&self, count: &u64) -> u64 {
        *count
    }
}

/// All tuples, in the order of their panes and within a pane in the order in which they came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Collect;

impl<T: Data> Aggregate<T> for Collect {
    type Accumulator = Vec<T>;
    type Output = Vec<T>;

    fn create(&self) -> Vec<T> {
        Vec::new()
    }

    fn add(&self, tuples: &mut Vec<T>, tuple: T) {
        tuples.push(tuple);
    }

    fn merge(&self, tuples: &mut Vec<T>, later: &Vec<T>) {
        tuples.extend_from_slice(later);
    }

    fn result(&self, tuples: &Vec<T>) -> Vec<T> {
        tuples.clone()
    }
}

/// An accumulator of the author's own, by three closures.
#[derive(Clone)]
pub struct Fold<A, F, M> {
    start: A,
    add: F,
    merge: M,
}

impl<A, F, M> Fold<A, F, M> {
    /// Starts from `start`; `add` takes a tuple in, `merge` another accumulator, whose tuples come after.
    pub fn new<T>(start: A, add: F, merge: M) -> Self
    where
        F: Fn(&mut A, T),
        M: Fn(&mut A, &A),
    {
        Self { start, add, merge }
    }
}

impl<A: fmt::Debug, F, M> fmt::Debug for Fold<A, F, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fold").field("start", &self.start).finish_non_exhaustive()
    }
}

impl<T, A, F, M> Aggregate<T> for Fold<A, F, M>
where
    A: Data + Sync,
    F: Fn(&mut A, T) + Send + Sync + 'static,
    M: Fn(&mut A, &A) + Send + Sync + 'static,
{
    type Accumulator = A;
    type Output = A;

    fn create(&self) -> A {
        self.start.clone()
    }

    fn add(&self, accumulator: &mut A, tuple: T) {
        (self.add)(accumulator, tuple);
    }

    fn merge(&self, accumulator: &mut A, later: &A) {
        (self.merge)(accumulator, later);
    }

    fn result(&self, accumulator: &A) -> A {
        accumulator.clone()
    }
}

/// Count, sum, least, greatest, mean and variance of numbers.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Summary {
    /// How many numbers.
    pub count: u64,
    /// The least; 0 of no numbers.
    pub min: f64,
    /// The greatest; 0 of no numbers.
    pub max: f64,
    /// The mean; 0 of no numbers.
    pub mean: f64,
    // The sum of the squares of what each is off the mean.
    squares: f64,
}

impl Summary {
    /// The sum.
    pub fn sum(&self) -> f64 {
        self.mean * self.count as f64
    }

    /// The variance of these numbers, not an estimate for others of which they are a sample; 0 of no numbers.
    pub fn variance(&self) -> f64 {
        if self.count == 0 { 0.0 } else { self.squares / self.count as f64 }
    }

    /// One more number (Welford, 1962).
    pub fn add(&mut self, number: f64) {
        let first = self.count == 0;
        self.count += 1;
        self.min = if first { number } else { self.min.min(number) };
        self.max = if first { number } else { self.max.max(number) };
        let off = number - self.mean;
        self.mean += off / self.count as f64;
        self.squares += off * (number - self.mean);
    }

    /// Other numbers too (Chan, Golub and LeVeque, 1979).
    pub fn merge(&mut self, other: &Self) {
        if other.count == 0 {
            return;
        }
        if self.count == 0 {
            *self = *other;
            return;
        }
        let (here, there) = (self.count as f64, other.count as f64);
        let off = other.mean - self.mean;
        self.count += other.count;
        self.min = self.min.min(other.min);
        self.max = self.max.max(other.max);
        self.mean += off * there / (here + there);
        self.squares += other.squares + off * off * here * there / (here + there);
    }
}

/// The [`Summary`] of a number of each tuple.
pub struct Summarise<T, F>(F, PhantomData<fn(&T)>);

impl<T, F: Fn(&T) -> f64> Summarise<T, F> {
    /// Of the number that the closure takes from a tuple.
    pub fn new(number: F) -> Self {
        Self(number, PhantomData)
    }
}

impl<T, F: Clone> Clone for Summarise<T, F> {
    fn clone(&self) -> Self {
        Self(self.0.clone(), PhantomData)
    }
}

impl<T, F> fmt::Debug for Summarise<T, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Summarise")
    }
}

impl<T: 'static, F: Fn(&T) -> f64 + Send + Sync + 'static> Aggregate<T> for Summarise<T, F> {
    type Accumulator = Summary;
    type Output = Summary;

    fn create(&self) -> Summary {
        Summary::default()
    }

    fn add(&self, summary: &mut Summary, tuple: T) {
        summary.add((self.0)(&tuple));
    }

    fn merge(&self, summary: &mut Summary, later: &Summary) {
        summary.merge(later);
    }

    fn result(&self, summary: &Summary) -> Summary {
        *summary
    }
}

/// The `n` tuples with the greatest scores, the greatest first; of equal ones those that came first.
pub struct TopN<T, S, F> {
    n: usize,
    score: F,
    of: PhantomData<fn(&T) -> S>,
}

impl<T, S: Ord, F: Fn(&T) -> S> TopN<T, S, F> {
    /// By the score that the closure gives.
    pub fn new(n: usize, score: F) -> Self {
        Self { n, score, of: PhantomData }
    }

    fn place(&self, top: &mut Vec<T>, tuple: T) {
        let score = (self.score)(&tuple);
        let at = top.partition_point(|other| (self.score)(other) >= score);
        if at < self.n {
            top.insert(at, tuple);
            top.truncate(self.n);
        }
    }
}

impl<T, S, F: Clone> Clone for TopN<T, S, F> {
    fn clone(&self) -> Self {
        Self { n: self.n, score: self.score.clone(), of: PhantomData }
    }
}

impl<T, S, F> fmt::Debug for TopN<T, S, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TopN").field("n", &self.n).finish_non_exhaustive()
    }
}

impl<T: Data, S: Ord + 'static, F: Fn(&T) -> S + Send + Sync + 'static> Aggregate<T> for TopN<T, S, F> {
    type Accumulator = Vec<T>;
    type Output = Vec<T>;

    fn create(&self) -> Vec<T> {
        Vec::new()
    }

    fn add(&self, top: &mut Vec<T>, tuple: T) {
        self.place(top, tuple);
    }

    fn merge(&self, top: &mut Vec<T>, later: &Vec<T>) {
        later.iter().for_each(|tuple| self.place(top, tuple.clone()));
    }

    fn result(&self, top: &Vec<T>) -> Vec<T> {
        top.clone()
    }
}

/// Two aggregates of the same tuples.
impl<T: Clone, A: Aggregate<T>, B: Aggregate<T>> Aggregate<T> for (A, B) {
    type Accumulator = (A::Accumulator, B::Accumulator);
    type Output = (A::Output, B::Output);

    fn create(&self) -> Self::Accumulator {
        (self.0.create(), self.1.create())
    }

    fn add(&self, accumulator: &mut Self::Accumulator, tuple: T) {
        self.0.add(&mut accumulator.0, tuple.clone());
        self.1.add(&mut accumulator.1, tuple);
    }

    fn merge(&self, accumulator: &mut Self::Accumulator, later: &Self::Accumulator) {
        self.0.merge(&mut accumulator.0, &later.0);
        self.1.merge(&mut accumulator.1, &later.1);
    }

    fn result(&self, accumulator: &Self::Accumulator) -> Self::Output {
        (self.0.result(&accumulator.0), self.1.result(&accumulator.1))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_summary_in_parts_is_that_of_the_whole(
            numbers in prop::collection::vec(-1e6..1e6f64, 0..60), cut in 0usize..60,
        ) {
            let of = Summarise::new(|number: &f64| *number);
            let summary = |numbers: &[f64]| {
                let mut summary = of.create();
                numbers.iter().for_each(|number| of.add(&mut summary, *number));
                summary
            };
            let (first, second) = numbers.split_at(cut.min(numbers.len()));
            let mut merged = summary(first);
            of.merge(&mut merged, &summary(second));
            let whole = of.result(&summary(&numbers));
            let mean = numbers.iter().sum::<f64>() / (numbers.len().max(1) as f64);
            let variance =
                numbers.iter().map(|n| (n - mean).powi(2)).sum::<f64>() / (numbers.len().max(1) as f64);
            for summary in [whole, merged] {
                prop_assert_eq!(summary.count as usize, numbers.len());
                prop_assert!((summary.mean - mean).abs() <= 1e-6 * (1.0 + mean.abs()));
                prop_assert!((summary.variance() - variance).abs() <= 1e-6 * (1.0 + variance));
                prop_assert!((summary.sum() - numbers.iter().sum::<f64>()).abs() <= 1e-3);
                prop_assert_eq!(summary.min, numbers.iter().copied().reduce(f64::min).unwrap_or(0.0));
                prop_assert_eq!(summary.max, numbers.iter().copied().reduce(f64::max).unwrap_or(0.0));
            }
        }
    }

    #[test]
    fn two_aggregates_see_the_same_tuples() {
        let both = (Count, Fold::new(0i64, |sum, n: i64| *sum += n, |sum, later| *sum += later));
        let mut accumulator = both.create();
        [3, 4, 5].into_iter().for_each(|n| both.add(&mut accumulator, n));
        let mut later = both.create();
        both.add(&mut later, 10);
        both.merge(&mut accumulator, &later);
        assert_eq!(both.result(&accumulator), (4, 22));
    }
}
