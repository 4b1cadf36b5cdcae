//! How readings of one identity become one stored reading: value by value, by sequence number.
//!
//! Of each parameter the value with the highest sequence number stays; of those with the same one, the first that came. So
//! whatever is stored does not depend on the order in which calls arrive or on how often they are tried, as long as one
//! sequence number always brings the same value.
//!
//! The account and the time of reception are those of the highest sequence number. A flag (`402:counter_backwards`) goes with the
//! value that it is about; one that names no parameter goes with the highest sequence number.

use galerna_model::{AccountId, Measurement, Timestamp};

use crate::{Difference, ReadingOutcome, StoredReading};

/// Sequence numbers as both stores count them: larger ones are the same.
pub(crate) fn sequence(sqn: u64) -> i64 {
    i64::try_from(sqn).unwrap_or(i64::MAX)
}

/// What is stored under one identity.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct United {
    pub(crate) account: AccountId,
    /// The highest of all that were stored.
    pub(crate) sqn: i64,
    pub(crate) values: Vec<Measurement>,
    /// Of each value, its sequence number.
    pub(crate) sqns: Vec<i64>,
    pub(crate) flags: Vec<String>,
    pub(crate) received: Timestamp,
}

impl From<&StoredReading> for United {
    fn from(reading: &StoredReading) -> Self {
        let sqn = sequence(reading.sqn);
        Self {
            account: reading.account.clone(),
            sqn,
            values: reading.values.clone(),
            sqns: vec![sqn; reading.values.len()],
            flags: reading.flags.clone(),
            received: reading.received,
        }
    }
}

impl United {
    /// The sequence numbers of the values, unless all are that of the whole.
    pub(crate) fn own_sqns(&self) -> Option<&[i64]> {
        self.sqns.iter().any(|sqn| *sqn != self.sqn).then_some(&self.sqns)
    }

    /// Takes in what another reading of the same identity has; `differs` is called for each value that was not taken and is
    /// another one than the stored.
    pub(crate) fn unite(
        &mut self,
        reading: &StoredReading,
        mut differs: impl FnMut(Difference),
    ) -> ReadingOutcome {
        let sqn = sequence(reading.sqn);
        let (mut replaced, mut added) = (sqn > self.sqn, false);
        let mut taken: Vec<u32> = Vec::new();
        // Values of one reading do not compete with each other.
        let before = self.values.len();
        for offered in &reading.values {
            match self.values[..before].iter().position(|value| value.p == offered.p) {
                None => {
                    self.values.push(*offered);
                    self.sqns.push(sqn);
                    added = true;
                    taken.push(offered.p.0);
                }
                Some(at) if self.sqns[at] < sqn => {
                    self.values[at].v = offered.v;
                    self.sqns[at] = sqn;
                    replaced = true;
                    taken.push(offered.p.0);
                }
                Some(at) => {
                    let stored = self.values[at].v;
                    if stored.to_bits() != offered.v.to_bits() {
                        differs(Difference { parameter: offered.p, stored, offered: offered.v });
                    }
                }
            }
        }
        let newest = sqn > self.sqn;
        if !taken.is_empty() || newest {
            self.flags.retain(|flag| match about(flag) {
                Some(parameter) => !taken.contains(&parameter),
                None => !newest,
            });
            let new = reading.flags.iter().filter(|flag| match about(flag) {
                Some(parameter) => taken.contains(&parameter),
                None => newest,
            });
            self.flags.extend(new.cloned());
        }
        if newest {
            self.sqn = sqn;
            self.account = reading.account.clone();
            self.received = reading.received;
        }
        match (replaced, added) {
            (true, _) => ReadingOutcome::Replaced,
            (false, true) => ReadingOutcome::Added,
            (false, false) => ReadingOutcome::Duplicate,
        }
    }
}

/// The parameter that a flag is about.
fn about(flag: &str) -> Option<u32> {
    flag.split_once(':').and_then(|(code, _)| code.parse().ok())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use galerna_model::{ParameterCode, SourceId};
    use proptest::prelude::*;

    use super::*;

    fn reading(sqn: u64, values: &[(u32, f64)], flags: &[&str]) -> StoredReading {
        StoredReading {
            account: AccountId::new(format!("a{sqn}")).unwrap(),
            source: SourceId::new("s").unwrap(),
            device: "d".into(),
            ts: Timestamp(0),
            sqn,
            values: values.iter().map(|(p, v)| Measurement { p: ParameterCode(*p), v: *v }).collect(),
            flags: flags.iter().map(|flag| (*flag).to_owned()).collect(),
            received: Timestamp(i64::try_from(sqn).unwrap()),
        }
    }

    fn unite(readings: &[StoredReading]) -> (United, Vec<ReadingOutcome>, Vec<Difference>) {
        let mut united = United::from(&readings[0]);
        let mut differences = Vec::new();
        let outcomes = readings[1..]
            .iter()
            .map(|r| united.unite(r, |difference| differences.push(difference)))
            .collect();
        (united, outcomes, differences)
    }

    fn values(united: &United) -> Vec<(u32, f64, i64)> {
        united.values.iter().zip(&united.sqns).map(|(m, sqn)| (m.p.0, m.v, *sqn)).collect()
    }

    #[test]
    fn a_higher_number_replaces_a_value_and_a_lower_one_adds_what_is_missing() {
        let (united, outcomes, differences) = unite(&[
            reading(5, &[(401, 1.0), (402, 2.0)], &["402:counter_backwards", "late"]),
            reading(3, &[(402, 9.0), (405, 230.0)], &["402:odd", "405:odd", "later"]),
            reading(5, &[(401, 1.0)], &[]),
            reading(7, &[(402, 3.0)], &[]),
            reading(4, &[(405, 231.0)], &[]),
        ]);
        use ReadingOutcome::{Added, Duplicate, Replaced};
        assert_eq!(outcomes, [Added, Duplicate, Replaced, Replaced]);
        assert_eq!(values(&united), [(401, 1.0, 5), (402, 3.0, 7), (405, 231.0, 4)]);
        assert_eq!(united.flags, Vec::<String>::new());
        assert_eq!((united.sqn, united.account.as_str(), united.received), (7, "a7", Timestamp(7)));
        let different = Difference { parameter: ParameterCode(402), stored: 2.0, offered: 9.0 };
        assert_eq!(differences, [different]);
        assert_eq!(united.own_sqns(), Some(&[5, 7, 4][..]));
    }

    #[test]
    fn a_flag_stays_with_the_value_that_it_is_about() {
        let (united, ..) = unite(&[
            reading(5, &[(401, 1.0), (402, 2.0)], &["401:odd", "402:counter_backwards"]),
            reading(6, &[(402, 3.0)], &["402:again", "whole"]),
        ]);
        assert_eq!(united.flags, ["401:odd", "402:again", "whole"]);
    }

    fn readings() -> impl Strategy<Value = Vec<StoredReading>> {
        // One number always brings the same value of a parameter.
        let one = (0..6_u64, prop::collection::btree_set(400..404_u32, 0..4));
        prop::collection::vec(one, 1..8).prop_map(|all| {
            all.into_iter()
                .map(|(sqn, codes)| {
                    let values: Vec<(u32, f64)> =
                        codes.into_iter().map(|p| (p, f64::from(p) + sqn as f64 / 10.0)).collect();
                    reading(sqn, &values, &[])
                })
                .collect()
        })
    }

    proptest! {
        #[test]
        fn what_is_left_does_not_depend_on_the_order_or_on_repetitions(
            readings in readings(), seed in any::<u64>(),
        ) {
            let expected: BTreeMap<u32, (i64, u64)> = readings
                .iter()
                .flat_map(|r| r.values.iter().map(|m| (m.p.0, (sequence(r.sqn), m.v.to_bits()))))
                .fold(BTreeMap::new(), |mut best, (p, value)| {
                    let kept = best.entry(p).or_insert(value);
                    *kept = value.max(*kept);
                    best
                });
            let mut shuffled = readings.clone();
            shuffled.extend(readings.iter().cloned());
            let mut random = seed;
            for at in (1..shuffled.len()).rev() {
                random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                shuffled.swap(at, (random >> 33) as usize % (at + 1));
            }
            for order in [readings, shuffled] {
                let (united, _, differences) = unite(&order);
                let left: BTreeMap<u32, (i64, u64)> =
                    values(&united).into_iter().map(|(p, v, sqn)| (p, (sqn, v.to_bits()))).collect();
                prop_assert_eq!(&left, &expected);
                prop_assert_eq!(united.values.len(), expected.len());
                prop_assert!(differences.iter().all(|d| d.stored.to_bits() != d.offered.to_bits()));
            }
        }
    }
}
