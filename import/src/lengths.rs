//! How long intervals are, by their times alone.

use std::collections::BTreeMap;

const DAY_MS: i64 = 86_400_000;
/// So many equal distances on end are no gaps: the meter measured more rarely there.
const RUN: usize = 4;

/// The length of the interval that ends at each of these times, which are in order.
///
/// Where all distances are multiples of the most frequent one, that is the length, and longer distances are gaps. Else each
/// distance is its own (months have 28 to 31 days), unless it is so long that it may hold a gap. `None` where nothing tells.
pub(crate) fn lengths(times: &[i64]) -> Vec<Option<i64>> {
    let distances: Vec<i64> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
    let mut counts: BTreeMap<i64, usize> = BTreeMap::new();
    for distance in &distances {
        *counts.entry(*distance).or_default() += 1;
    }
    // Of those that are equally frequent the shortest.
    let usual = counts.iter().rev().max_by_key(|(_, count)| **count).map(|(distance, _)| *distance);
    let Some(usual) = usual else { return vec![None; times.len()] };
    if distances.iter().all(|distance| distance % usual == 0) {
        let first = (usual <= DAY_MS).then_some(usual);
        let mut lengths = vec![first; times.len().min(1)];
        lengths.extend(std::iter::repeat_n(Some(usual), distances.len()));
        for run in runs(&distances).filter(|run| run.len() >= RUN && distances[run.start] > usual) {
            lengths[run.start + 1..=run.end].fill(None);
        }
        return lengths;
    }
    let mut sorted = distances.clone();
    sorted.sort_unstable();
    let longest = sorted[sorted.len() / 2].saturating_mul(3) / 2;
    let own = distances.iter().map(|distance| (*distance <= longest).then_some(*distance));
    std::iter::once(None).chain(own).collect()
}

/// Ranges of equal distances.
fn runs(distances: &[i64]) -> impl Iterator<Item = std::ops::Range<usize>> {
    let mut at = 0;
    distances.chunk_by(|a, b| a == b).map(move |run| {
        let range = at..at + run.len();
        at = range.end;
        range
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_times_tell_the_interval() {
        const H: i64 = 3_600_000;
        for (times, expected) in [
            (vec![], vec![]),
            (vec![0], vec![None]),
            (vec![0, H], vec![Some(H); 2]),
            (vec![0, H / 2, H, 3 * H / 2], vec![Some(H / 2); 4]),
            // A gap of two hours.
            (vec![0, H, 4 * H, 5 * H], vec![Some(H); 4]),
            (vec![0, H, 3 * H], vec![Some(H); 3]),
            // A month's days.
            (
                vec![0, 31 * 24 * H, 59 * 24 * H, 90 * 24 * H],
                vec![None, Some(31 * 24 * H), Some(28 * 24 * H), Some(31 * 24 * H)],
            ),
            (vec![0, 31 * 24 * H], vec![None, Some(31 * 24 * H)]),
            // From hours to half hours: what was measured by the hour has no known length.
            (
                [0, 2, 4, 6, 8, 9, 10, 11, 12, 13].map(|n| n * H / 2).to_vec(),
                [vec![Some(H / 2)], vec![None; 4], vec![Some(H / 2); 5]].concat(),
            ),
        ] {
            assert_eq!(lengths(&times), expected, "{times:?}");
        }
    }
}
