//! How long intervals are, by their times alone.

use std::collections::BTreeMap;

const DAY_MS: i64 = 86_400_000;
/// So many equal distances on end are no gaps: that is how often the meter measured there.
const RUN: usize = 4;

/// The length of the interval that ends at each of these times, which are in order. Beside a time may stand another: where that
/// is the time before, something between the two is not known, and their distance tells nothing.
///
/// Times at equal distances settle a length. A longer distance among them is a gap when it holds that length a whole number of
/// times and stands alone; two such distances on end, one at the beginning, and one between times of two lengths may be either, and
/// then nothing tells. Where no length is settled, that is the most frequent distance if all are multiples of it; else each
/// distance is its own (months have 28 to 31 days), unless it is so long that it may hold a gap.
pub(crate) fn lengths(times: &[(i64, Option<i64>)]) -> Vec<Option<i64>> {
    // `None` where a distance tells nothing.
    let distances: Vec<Option<i64>> =
        times.windows(2).map(|pair| (pair[1].1 != Some(pair[0].0)).then(|| pair[1].0 - pair[0].0)).collect();
    let whole: Vec<i64> = times.windows(2).map(|pair| pair[1].0 - pair[0].0).collect();
    let mut lengths = if runs(&distances).any(|(at, run)| is_settled(&distances, at, run)) {
        by_runs(&distances, &whole)
    } else {
        by_most(&distances, &whole)
    };
    // The first interval is as long as the one after it, where that is one and no gap.
    let first = lengths
        .first()
        .copied()
        .flatten()
        .filter(|length| distances.first() == Some(&Some(*length)) && *length <= DAY_MS);
    lengths.insert(0, first);
    lengths.truncate(times.len());
    lengths
}

/// Where runs of equal distances begin, and how many there are.
fn runs(distances: &[Option<i64>]) -> impl Iterator<Item = (usize, usize)> {
    let mut at = 0;
    distances.chunk_by(|a, b| a == b).map(move |run| {
        let from = at;
        at += run.len();
        (from, run.len())
    })
}

fn is_settled(distances: &[Option<i64>], at: usize, run: usize) -> bool {
    run >= RUN && distances[at].is_some()
}

/// By the lengths that are settled before and after each distance.
fn by_runs(distances: &[Option<i64>], whole: &[i64]) -> Vec<Option<i64>> {
    let mut lengths = vec![None; distances.len()];
    let mut before = None;
    let mut from = 0;
    for (at, run) in runs(distances) {
        if is_settled(distances, at, run) {
            between(from..at, before, distances[at], distances, whole, &mut lengths);
            lengths[at..at + run].fill(distances[at]);
            (before, from) = (distances[at], at + run);
        }
    }
    between(from..distances.len(), before, None, distances, whole, &mut lengths);
    lengths
}

/// The lengths of a stretch between two that are settled.
fn between(
    stretch: std::ops::Range<usize>,
    before: Option<i64>,
    after: Option<i64>,
    distances: &[Option<i64>],
    whole: &[i64],
    lengths: &mut [Option<i64>],
) {
    let around = match (before, after) {
        (Some(a), Some(b)) if a != b => None,
        (a, b) => a.or(b),
    };
    let Some(around) = around else {
        // From one length to another: the shorter of them is no gap of either, and nothing shorter is.
        let shorter = before.min(after);
        for at in stretch {
            lengths[at] = distances[at].filter(|distance| Some(*distance) <= shorter);
        }
        return;
    };
    let shortest = distances[stretch.clone()].iter().flatten().copied().min().unwrap_or(around);
    for at in stretch {
        lengths[at] = match distances[at] {
            // Something was refused there; what it left is a gap, or nothing was lost.
            None => (whole[at] % around == 0).then_some(around),
            Some(distance) if distance == around => Some(around),
            Some(distance) if distance > around => {
                gap(at, around, distances).or_else(|| as_it_is(distance, around))
            }
            Some(distance) => (distance == shortest || distance % shortest != 0).then_some(distance),
        };
    }
}

/// The length where a longer distance is a gap for certain.
fn gap(at: usize, length: i64, distances: &[Option<i64>]) -> Option<i64> {
    let twin = distances[at];
    let alone = distances.get(at + 1) != Some(&twin) && at > 0 && distances[at - 1] != twin;
    (twin? % length == 0 && alone).then_some(length)
}

/// A distance that no other measures, when it is too short to hold a gap: the day on which clocks go back has 25 hours.
fn as_it_is(distance: i64, length: i64) -> Option<i64> {
    (distance % length != 0 && distance < length.saturating_mul(3) / 2).then_some(distance)
}

/// By the distance that is most frequent, of those that are equally frequent the shortest.
fn by_most(distances: &[Option<i64>], whole: &[i64]) -> Vec<Option<i64>> {
    let mut counts: BTreeMap<i64, usize> = BTreeMap::new();
    for distance in distances.iter().flatten() {
        *counts.entry(*distance).or_default() += 1;
    }
    let usual = counts.iter().rev().max_by_key(|(_, count)| **count).map(|(distance, _)| *distance);
    let Some(usual) = usual else { return vec![None; distances.len()] };
    if counts.keys().all(|distance| distance % usual == 0) {
        let length = |(at, distance): (usize, &Option<i64>)| match distance {
            None => (whole[at] % usual == 0).then_some(usual),
            Some(distance) if *distance == usual => Some(usual),
            Some(_) => gap(at, usual, distances),
        };
        return distances.iter().enumerate().map(length).collect();
    }
    let mut sorted: Vec<i64> = distances.iter().flatten().copied().collect();
    sorted.sort_unstable();
    let longest = sorted[sorted.len() / 2].saturating_mul(3) / 2;
    // What holds a shorter one beside it a whole number of times may be a gap among those.
    let holds = |at: usize, distance: i64| {
        let beside = [at.checked_sub(1), at.checked_add(1)].into_iter().flatten();
        beside.filter_map(|at| *distances.get(at)?).any(|other| other < distance && distance % other == 0)
    };
    let own = |(at, distance): (usize, &Option<i64>)| {
        distance.filter(|distance| *distance == usual || *distance <= longest && !holds(at, *distance))
    };
    distances.iter().enumerate().map(own).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const H: i64 = 3_600_000;
    const Q: i64 = H / 4;

    /// Times by their distances, and those of the distances between which something was refused.
    fn of(distances: &[i64], refused: &[usize]) -> Vec<Option<i64>> {
        let mut times = vec![(0, None)];
        for (at, distance) in distances.iter().enumerate() {
            let before = times[at].0;
            times.push((before + distance, refused.contains(&at).then_some(before)));
        }
        lengths(&times)
    }

    #[test]
    fn the_times_tell_the_interval() {
        assert_eq!(lengths(&[]), []);
        assert_eq!(lengths(&[(0, None)]), [None]);
        for (distances, expected) in [
            (vec![H], vec![Some(H); 2]),
            (vec![H / 2; 3], vec![Some(H / 2); 4]),
            // A gap of two hours.
            (vec![H, 3 * H, H], vec![Some(H); 4]),
            (vec![H, 2 * H], vec![Some(H); 3]),
            // A month's days.
            (
                vec![31 * 24 * H, 28 * 24 * H, 31 * 24 * H],
                vec![None, Some(31 * 24 * H), Some(28 * 24 * H), Some(31 * 24 * H)],
            ),
            (vec![31 * 24 * H], vec![None, Some(31 * 24 * H)]),
            // The day on which clocks go back, and one that is missing.
            (
                vec![24 * H, 24 * H, 24 * H, 24 * H, 25 * H, 24 * H, 48 * H],
                [vec![Some(24 * H); 5], vec![Some(25 * H), Some(24 * H), Some(24 * H)]].concat(),
            ),
        ] {
            assert_eq!(of(&distances, &[]), expected, "{distances:?}");
        }
    }

    #[test]
    fn where_the_length_changes_each_interval_has_its_own_or_none() {
        for (distances, expected) in [
            // From hours to half hours.
            ([vec![H; 4], vec![H / 2; 5]].concat(), [vec![Some(H); 5], vec![Some(H / 2); 5]].concat()),
            ([vec![Q; 5], vec![H; 5]].concat(), [vec![Some(Q); 6], vec![Some(H); 5]].concat()),
            // Two hours, or two gaps.
            ([vec![H; 2], vec![Q; 4]].concat(), [vec![None; 3], vec![Some(Q); 4]].concat()),
            (
                [vec![Q; 4], vec![H; 2], vec![Q; 4]].concat(),
                [vec![Some(Q); 5], vec![None; 2], vec![Some(Q); 4]].concat(),
            ),
            (vec![H, Q, Q, Q, Q], [vec![None; 2], vec![Some(Q); 4]].concat()),
            // One gap.
            ([vec![Q; 4], vec![H], vec![Q; 4]].concat(), vec![Some(Q); 10]),
            ([vec![H; 5], vec![Q; 2]].concat(), [vec![Some(H); 6], vec![Some(Q); 2]].concat()),
            // A gap among quarters that have only begun.
            (
                [vec![H; 5], vec![Q, Q, 2 * Q]].concat(),
                [vec![Some(H); 6], vec![Some(Q), Some(Q), None]].concat(),
            ),
            // Which of the two the gap is in is not known.
            (
                [vec![H; 4], vec![2 * H], vec![Q; 4]].concat(),
                [vec![Some(H); 5], vec![None], vec![Some(Q); 4]].concat(),
            ),
            (vec![H, H, Q, Q], vec![None, None, None, Some(Q), Some(Q)]),
        ] {
            assert_eq!(of(&distances, &[]), expected, "{distances:?}");
        }
    }

    #[test]
    fn a_distance_over_what_was_refused_is_no_length() {
        for (distances, refused, expected) in [
            (vec![2 * H], vec![0], vec![None, None]),
            (vec![H, 2 * H, H], vec![1], vec![Some(H); 4]),
            // Without what was refused two hours were the most frequent.
            (vec![2 * H, 2 * H, H], vec![0, 1], vec![None, Some(H), Some(H), Some(H)]),
            ([vec![Q; 4], vec![2 * Q, 2 * Q]].concat(), vec![4, 5], vec![Some(Q); 7]),
            // 31 days, and two months with one refused between them.
            (vec![31 * 24 * H, 59 * 24 * H], vec![1], vec![None, Some(31 * 24 * H), None]),
        ] {
            assert_eq!(of(&distances, &refused), expected, "{distances:?} {refused:?}");
        }
    }
}
