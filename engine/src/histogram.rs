//! Latencies, all of them counted.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::Serialize;

/// Sub-buckets per power of two: a quantile is off by at most 1/32.
const SUB: u64 = 32;
const SUB_BITS: u32 = 5;
/// Values below 2^42 ns (73 minutes) have their own bucket; what is longer goes to the last.
const BUCKETS: usize = (43 - SUB_BITS as usize) * SUB as usize;

/// A log-linear histogram of nanoseconds, as HdrHistogram's (Tene), with atomic counts so that it can be
/// read while tasks write. Recording a batch of equal values is one addition.
#[derive(Debug)]
pub struct Histogram {
    /// Made when the first value is recorded: most tasks of a large topology record only some kinds.
    buckets: OnceLock<Box<[AtomicU64]>>,
    max: AtomicU64,
}

fn bucket(value: u64) -> usize {
    if value < SUB {
        return value as usize;
    }
    let exponent = 63 - value.leading_zeros() - SUB_BITS;
    let index = u64::from(exponent + 1) * SUB + ((value >> exponent) - SUB);
    (index as usize).min(BUCKETS - 1)
}

/// The largest value of a bucket.
fn upper(index: usize) -> u64 {
    let index = index as u64;
    if index < SUB {
        return index;
    }
    let exponent = index / SUB - 1;
    ((SUB + index % SUB + 1) << exponent) - 1
}

impl Histogram {
    /// An empty histogram.
    pub fn new() -> Self {
        Self { buckets: OnceLock::new(), max: AtomicU64::new(0) }
    }

    fn buckets(&self) -> &[AtomicU64] {
        self.buckets.get_or_init(|| (0..BUCKETS).map(|_| AtomicU64::new(0)).collect())
    }

    /// Counts this value (in nanoseconds) so many times.
    pub fn record(&self, nanos: u64, times: u64) {
        self.buckets()[bucket(nanos)].fetch_add(times, Ordering::Relaxed);
        if nanos > self.max.load(Ordering::Relaxed) {
            self.max.fetch_max(nanos, Ordering::Relaxed);
        }
    }

    /// Adds the counts of another to these.
    pub fn merge(&self, other: &Self) {
        let Some(others) = other.buckets.get() else { return };
        for (to, from) in self.buckets().iter().zip(others) {
            let count = from.load(Ordering::Relaxed);
            if count > 0 {
                to.fetch_add(count, Ordering::Relaxed);
            }
        }
        self.max.fetch_max(other.max.load(Ordering::Relaxed), Ordering::Relaxed);
    }

    /// The quantiles now.
    pub fn latency(&self) -> Latency {
        let counts: Vec<u64> =
            self.buckets.get().into_iter().flatten().map(|bucket| bucket.load(Ordering::Relaxed)).collect();
        let count: u64 = counts.iter().sum();
        let max = self.max.load(Ordering::Relaxed);
        let quantile = |share: f64| {
            let rank = ((count as f64 * share).ceil() as u64).max(1);
            let mut seen = 0;
            for (index, n) in counts.iter().enumerate() {
                seen += n;
                if seen >= rank {
                    return upper(index).min(max) as f64 / 1e6;
                }
            }
            0.0
        };
        let mut within = [0; LATENCY_BOUNDS.len()];
        let mut sum = 0.0;
        for (index, n) in counts.iter().enumerate().filter(|(_, n)| **n > 0) {
            let seconds = upper(index) as f64 / 1e9;
            sum += seconds * *n as f64;
            for (within, _) in within.iter_mut().zip(LATENCY_BOUNDS).filter(|(_, bound)| seconds <= *bound) {
                *within += n;
            }
        }
        Latency {
            count,
            p50_ms: quantile(0.5),
            p99_ms: quantile(0.99),
            max_ms: max as f64 / 1e6,
            sum_ms: sum * 1e3,
            within,
        }
    }
}

impl Default for Histogram {
    fn default() -> Self {
        Self::new()
    }
}

/// Quantiles of a latency, in milliseconds. Off by at most 1/32 of their value, the maximum not at all.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Latency {
    /// How many values were counted.
    pub count: u64,
    /// Half of the values are not above this.
    pub p50_ms: f64,
    /// 99 % of the values are not above this.
    pub p99_ms: f64,
    /// The largest value.
    pub max_ms: f64,
    /// The sum of all values.
    pub sum_ms: f64,
    /// How many values are not above each of [`LATENCY_BOUNDS`].
    #[serde(skip)]
    pub within: [u64; LATENCY_BOUNDS.len()],
}

/// Bounds in seconds by which [`Latency::within`] counts, for metrics: 10 µs to a minute.
pub const LATENCY_BOUNDS: [f64; 16] =
    [1e-5, 5e-5, 1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 1e-2, 2.5e-2, 0.1, 0.5, 1.0, 5.0, 30.0, 60.0];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_holds_its_values_and_is_off_by_a_thirty_second() {
        for value in (0..2000).chain([10_000, 123_456, 1 << 30, (1 << 41) + 12_345]) {
            let top = upper(bucket(value));
            assert!(top >= value && top - value <= value / 32, "{value} is in the bucket up to {top}");
        }
    }

    #[test]
    fn quantiles_are_of_all_values() {
        let histogram = Histogram::new();
        histogram.record(1_000_000, 98);
        histogram.record(5_000_000, 1);
        histogram.record(9_000_000, 1);
        let latency = histogram.latency();
        assert_eq!((latency.count, latency.max_ms), (100, 9.0));
        let sum = 98.0 + 5.0 + 9.0;
        assert!((sum..sum * 33.0 / 32.0).contains(&latency.sum_ms), "{latency:?}");
        let of = |bound: f64| latency.within[LATENCY_BOUNDS.iter().position(|b| *b == bound).unwrap()];
        assert_eq!((of(5e-4), of(2.5e-3), of(1e-2), of(60.0)), (0, 98, 100, 100));
        assert!((1.0..1.04).contains(&latency.p50_ms) && (5.0..5.2).contains(&latency.p99_ms), "{latency:?}");
    }

    #[test]
    fn what_is_longer_than_the_range_counts_in_the_last_bucket() {
        let histogram = Histogram::new();
        histogram.record(u64::MAX, 1);
        assert_eq!(histogram.latency().count, 1);
    }
}
