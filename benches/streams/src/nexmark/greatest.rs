//! The tuples of a window with the greatest score.

use std::marker::PhantomData;

use galerna_topology::Data;
use galerna_windows::Aggregate;

/// All tuples with the greatest score that there is, in the order in which they came.
pub(crate) struct Greatest<T, F> {
    score: F,
    of: PhantomData<fn(&T)>,
}

impl<T, S: Ord, F: Fn(&T) -> S> Greatest<T, F> {
    /// By the score that the closure gives.
    pub(crate) fn new(score: F) -> Self {
        Self { score, of: PhantomData }
    }

    fn take(&self, greatest: &mut Vec<T>, tuple: T) {
        match greatest.first().map(|first| (self.score)(first).cmp(&(self.score)(&tuple))) {
            Some(std::cmp::Ordering::Greater) => {}
            Some(std::cmp::Ordering::Equal) => greatest.push(tuple),
            _ => {
                greatest.clear();
                greatest.push(tuple);
            }
        }
    }
}

impl<T, S, F> Aggregate<T> for Greatest<T, F>
where
    T: Data + Sync,
    S: Ord,
    F: Fn(&T) -> S + Send + Sync + 'static,
{
    type Accumulator = Vec<T>;
    type Output = Vec<T>;

    fn create(&self) -> Vec<T> {
        Vec::new()
    }

    fn add(&self, greatest: &mut Vec<T>, tuple: T) {
        self.take(greatest, tuple);
    }

    fn merge(&self, greatest: &mut Vec<T>, later: &Vec<T>) {
        later.iter().for_each(|tuple| self.take(greatest, tuple.clone()));
    }

    fn result(&self, greatest: &Vec<T>) -> Vec<T> {
        greatest.clone()
    }
}
