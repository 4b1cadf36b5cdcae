//! Whichever way the rows of a real file come, what is stored is the same.

use std::collections::BTreeMap;

use crate::store::{Store, options};
use galerna_model::Reading;
use proptest::prelude::*;

const SAMPLE: &str = include_str!("../../../examples/data/sample_tiny.csv");
const MESSAGES: &str = include_str!("../../../examples/data/sample_messages.ndjson");

fn lines() -> (&'static str, Vec<&'static str>) {
    let mut lines = SAMPLE.lines();
    (lines.next().unwrap(), lines.collect())
}

fn publish(store: &mut Store, rows: &[&str]) {
    let text = format!("{}\n{}\n", lines().0, rows.join("\n"));
    let published = store.publish(text.into_bytes(), &options()).unwrap();
    assert!(published.errors().is_empty(), "{:?}", published.errors());
}

/// The samples of the same hours in both forms. The messages are a selection, so not every reading is among them; they have
/// flows of water to a millionth, where the readings keep all digits.
#[test]
fn the_sample_rows_become_the_sample_messages() {
    #[derive(serde::Deserialize)]
    struct Line {
        source_key: String,
        body: Vec<Reading>,
    }
    let mut store = Store::default();
    publish(&mut store, &lines().1);
    let mut compared = 0;
    for line in MESSAGES.lines() {
        let line: Line = serde_json::from_str(line).unwrap();
        for message in line.body {
            let made = &store.readings[&(line.source_key.clone(), message.did.clone(), message.ts)];
            let expected: BTreeMap<u32, f64> = message.values.iter().map(|m| (m.p.0, m.v)).collect();
            for (parameter, value) in &expected {
                let made = made[parameter];
                let water = *parameter == 902 && (made - value).abs() <= 5e-7;
                assert!(made == *value || water, "{} {parameter}: {made}, not {value}", message.did);
                compared += 1;
            }
            assert_eq!(made.len(), expected.len());
        }
    }
    assert_eq!(compared, 2_070);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, ..ProptestConfig::default() })]

    #[test]
    fn permutations_splits_and_overlaps_of_a_file_store_what_the_file_stores(
        order in Just((0..lines().1.len()).collect::<Vec<_>>()).prop_shuffle(),
        cuts in proptest::collection::vec(0_usize..1640, 0..5),
        overlap in 0_usize..300,
    ) {
        let (_, rows) = lines();
        let mut whole = Store::default();
        publish(&mut whole, &rows);
        let shuffled: Vec<&str> = order.iter().map(|at| rows[*at]).collect();
        let mut cuts = cuts;
        cuts.extend([0, rows.len()]);
        cuts.sort_unstable();
        let mut parts = Store::default();
        for pair in cuts.windows(2) {
            let until = (pair[1] + overlap).min(rows.len());
            publish(&mut parts, &shuffled[pair[0]..until]);
        }
        prop_assert_eq!(&parts.readings, &whole.readings);
    }

    #[test]
    fn splits_in_time_store_what_the_file_stores(cut in 1_usize..1639, overlap in 0_usize..100, later_first: bool) {
        let (_, rows) = lines();
        let mut whole = Store::default();
        publish(&mut whole, &rows);
        let mut files = [&rows[..(cut + overlap).min(rows.len())], &rows[cut..]];
        if later_first {
            files.reverse();
        }
        let mut parts = Store::default();
        files.iter().for_each(|file| publish(&mut parts, file));
        prop_assert_eq!(&parts.readings, &whole.readings);
    }
}
