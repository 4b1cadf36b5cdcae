//! Whatever is done to the tokens of a batch, what they hold of each root stays the same.

use std::collections::{BTreeMap, HashSet};

use galerna_topology::lineage::{AckToken, Lineage, RootId, ShareRng};
use proptest::prelude::*;

#[derive(Debug, Clone)]
enum Rows {
    Untracked(u32),
    Whole(u8, u32),
    Share(u8, u64, u32),
    Multi(Vec<(u8, u64)>),
}

fn rows() -> impl Strategy<Value = Rows> {
    prop_oneof![
        (1u32..4).prop_map(Rows::Untracked),
        (any::<u8>(), 1u32..6).prop_map(|(root, rows)| Rows::Whole(root, rows)),
        // Few roots, so that neighbours are often of one.
        (0u8..3, any::<u64>(), 1u32..9).prop_map(|(root, share, rows)| Rows::Share(root, share, rows)),
        proptest::collection::vec((0u8..3, any::<u64>()), 1..3).prop_map(Rows::Multi),
    ]
}

fn root(n: u8) -> RootId {
    RootId::new(1, 1_000 + u64::from(n))
}

fn lineage(all: &[Rows]) -> (Lineage, usize) {
    let (mut lineage, mut count) = (Lineage::new(), 0);
    for rows in all {
        count += match rows {
            Rows::Untracked(rows) => {
                lineage.push_untracked(*rows);
                *rows
            }
            Rows::Whole(first, rows) => {
                lineage.push_whole(root(*first), *rows);
                *rows
            }
            Rows::Share(of, share, rows) => {
                lineage.push_share(root(*of), *share, *rows);
                *rows
            }
            Rows::Multi(list) => {
                let list: Vec<_> = list.iter().map(|(of, share)| (root(*of), *share)).collect();
                lineage.push(AckToken::Multi(list.into()));
                1
            }
        };
    }
    (lineage, count as usize)
}

/// What these hold of each root, together.
fn sums(tokens: impl IntoIterator<Item = AckToken>) -> BTreeMap<RootId, u64> {
    let mut sums = BTreeMap::new();
    let mut add = |root: RootId, share: u64| *sums.entry(root).or_default() ^= share;
    for token in tokens {
        match token {
            AckToken::Untracked => {}
            AckToken::Whole(root) => add(root, root.secret()),
            AckToken::Share(root, share) => add(root, share),
            AckToken::Multi(list) => list.iter().for_each(|&(root, share)| add(root, share)),
        }
    }
    sums.retain(|_, sum| *sum != 0);
    sums
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn dividing_joining_and_taking_apart_keep_what_is_held(
        first in proptest::collection::vec(rows(), 0..12),
        second in proptest::collection::vec(rows(), 0..12),
        seed in any::<u64>(),
        at in any::<prop::sample::Index>(),
    ) {
        let (mut all, count) = lineage(&first);
        let (mut more, others) = lineage(&second);
        let held = sums(all.clone().drain().chain(more.clone().drain()));
        all.append(&mut more);
        prop_assert!(more.is_empty());
        prop_assert_eq!(all.rows(), count + others);
        let each: Vec<AckToken> = all.clone().drain().collect();
        prop_assert_eq!(each.len(), count + others);
        prop_assert_eq!(&sums(each.clone()), &held);

        // Put together again one by one.
        let mut again = Lineage::new();
        each.iter().cloned().for_each(|token| again.push(token));
        prop_assert_eq!((again.rows(), &sums(again.drain())), (count + others, &held));

        // Handed back.
        let mut settled = Lineage::new();
        each.iter().cloned().for_each(|token| settled.push_settled(token));
        let mut whole = Lineage::new();
        whole.settle_all(&mut all.clone());
        prop_assert_eq!((&sums(settled.drain()), &sums(whole.drain())), (&held, &held));

        // Copied.
        let mut rest = all.clone();
        let mut copy = rest.split(&mut ShareRng::new(seed));
        prop_assert_eq!((copy.rows(), rest.rows()), (count + others, count + others));
        prop_assert_eq!(&sums(copy.drain().chain(rest.drain())), &held);

        if !each.is_empty() {
            // Without one of them.
            let mut rest = all.clone();
            let taken = rest.remove(at.index(each.len()));
            prop_assert_eq!(rest.rows(), each.len() - 1);
            prop_assert_eq!(&sums(rest.drain().chain([taken])), &held);

            // Up to one of them.
            let mut taken = Vec::new();
            let mut rows = all.drain();
            taken.extend(rows.by_ref().take(at.index(each.len())));
            let mut rest = rows.into_rest();
            prop_assert_eq!(rest.rows(), each.len() - taken.len());
            prop_assert_eq!(&sums(rest.drain().chain(taken)), &held);
        }
    }

    #[test]
    fn tuples_that_part_all_hold_something_else(share in any::<u64>(), rows in 2u32..200) {
        let mut lineage = Lineage::new();
        lineage.push_share(root(0), share, rows);
        let shares: HashSet<u64> = lineage
            .drain()
            .map(|token| match token {
                AckToken::Share(_, share) => share,
                other => panic!("{other:?} is no share"),
            })
            .collect();
        prop_assert_eq!(shares.len(), rows as usize);
        prop_assert!(!shares.contains(&0));
    }
}
