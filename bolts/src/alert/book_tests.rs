use galerna_model::{Measurement, ParameterCode};
use galerna_model::{Phase, Rule};
use proptest::prelude::*;

use super::super::rules::tests::{rule, threshold};
use super::*;

const HOUR: i64 = 3_600_000;

fn account() -> AccountId {
    AccountId::new("A").unwrap()
}

fn reading(device: &str, ts: i64, value: f64) -> StoredReading {
    StoredReading {
        account: account(),
        source: SourceId::new("s").unwrap(),
        device: device.to_owned(),
        ts: Timestamp(ts),
        sqn: 1,
        values: vec![Measurement { p: ParameterCode(401), v: value }],
        flags: Vec::new(),
        received: Timestamp(ts),
    }
}

fn batch(epoch: u64, readings: Vec<StoredReading>) -> ReadingBatch {
    ReadingBatch {
        queue: QueueName::new("D1").unwrap(),
        epoch,
        account: account(),
        message: "m.0".into(),
        readings: readings.into(),
    }
}

fn book(rules: Vec<Rule>) -> AlertBook {
    let (rules, errors) = RuleSet::compile(rules);
    assert!(errors.is_empty(), "{errors:?}");
    AlertBook::new(rules)
}

fn above_10(clear: Option<f64>, for_ms: u64, cooldown_ms: u64) -> Rule {
    Rule { cooldown_ms, ..rule("high", "*", threshold(Comparison::Above, 10.0, clear, for_ms)) }
}

fn silent(after_ms: u64) -> Rule {
    rule("silent", "*", Condition::Silent { after_ms })
}

fn judge(book: &mut AlertBook, readings: Vec<StoredReading>) -> Changes {
    let mut changes = Changes::default();
    book.judge(&batch(1, readings), Duration::ZERO, &mut changes);
    changes
}

fn told(changes: &Changes) -> Vec<(AlertEventKind, i64)> {
    changes.events.iter().map(|e| (e.kind, e.ts.0)).collect()
}

#[test]
fn an_event_says_what_happened_and_has_the_same_id_whenever_it_is_made() {
    let readings = || vec![reading("meter/1", 1_000, 12.5), reading("meter/1", 2_000, 7.0)];
    let changes = judge(&mut book(vec![above_10(Some(8.0), 0, 0)]), readings());
    let ids: Vec<_> = changes.events.iter().map(|e| e.id.as_str()).collect();
    assert_eq!(ids, ["high/s/meter/1/raised/1000", "high/s/meter/1/resolved/2000"]);
    assert_eq!(changes.events[0].message, "401 of meter/1 is 12.5, above 10");
    assert_eq!(changes.events[1].message, "401 of meter/1 is 7, no longer above 10 (clear at 8)");
    assert_eq!(judge(&mut book(vec![above_10(Some(8.0), 0, 0)]), readings()).events, changes.events);
}

#[test]
fn each_device_and_each_rule_stands_by_itself() {
    let panther = rule("panther", "Panther_*", threshold(Comparison::Above, 10.0, None, 0));
    let other = Rule { account: Some("B".parse().unwrap()), ..above_10(None, 0, 0) };
    let low = rule("low", "*", threshold(Comparison::Below, 1.0, None, 0));
    let mut book = book(vec![panther, other, low]);
    let changes = judge(
        &mut book,
        vec![reading("Panther_x", 1, 20.0), reading("Bear_x", 1, 20.0), reading("Panther_y", 1, 0.5)],
    );
    let told: Vec<_> = changes.events.iter().map(|e| (e.rule.as_str(), e.device.as_str())).collect();
    assert_eq!(told, [("panther", "Panther_x"), ("low", "Panther_y")]);
}

#[test]
fn an_account_that_no_rule_watches_is_neither_loaded_nor_remembered() {
    let mut book = book(vec![Rule { account: Some("B".parse().unwrap()), ..above_10(None, 0, 0) }]);
    assert!(!book.must_load(&batch(1, vec![reading("a", 1, 20.0)])));
    assert!(judge(&mut book, vec![reading("a", 1, 20.0)]).is_empty());
    assert_eq!(book.devices(), 0);
}

#[test]
fn states_that_were_loaded_for_silence_are_loaded_again_with_the_first_batch() {
    let mut book = book(vec![above_10(None, 0, 0)]);
    book.load(&account(), Vec::new(), Duration::ZERO);
    // Hours may have gone by, and another worker had the queue.
    assert!(book.must_load(&batch(20, vec![reading("a", 1, 1.0)])));
}

#[test]
fn states_are_loaded_again_when_somebody_else_had_the_queue() {
    let mut book = book(vec![above_10(None, 0, 0)]);
    let cases = [
        (7, true, "the first batch"),
        (7, false, "the same lease"),
        (8, false, "the next lease: nobody was in between"),
        (10, true, "somebody had epoch 9"),
        (4, true, "an epoch from before"),
    ];
    for (epoch, must, why) in cases {
        let batch = batch(epoch, vec![reading("a", 1, 1.0)]);
        assert_eq!(book.must_load(&batch), must, "{why}");
        if must {
            book.load(&account(), Vec::new(), Duration::ZERO);
        }
        book.judge(&batch, Duration::ZERO, &mut Changes::default());
    }
}

#[test]
fn an_alert_that_fired_before_a_restart_resolves_after_it() {
    let fired = judge(&mut book(vec![above_10(None, 0, 0)]), vec![reading("a", 10, 20.0)]);
    let mut restarted = book(vec![above_10(None, 0, 0)]);
    restarted.load(&account(), fired.states, Duration::ZERO);
    let changes = judge(
        &mut restarted,
        vec![reading("a", 10, 20.0), reading("a", 5, 1.0), reading("a", 20, 30.0), reading("a", 30, 1.0)],
    );
    assert_eq!(told(&changes), [(AlertEventKind::Resolved, 30)]);
}

#[test]
fn a_device_falls_silent_by_its_sources_time_and_by_the_clock_when_the_source_stops() {
    let minute = Duration::from_secs(60);
    let after = 2 * HOUR as u64;
    let mut book = book(vec![silent(after)]);
    let mut changes = judge(&mut book, vec![reading("a", 0, 1.0), reading("b", 0, 1.0)]);
    assert_eq!(changes.states.len(), 2, "new devices are remembered");

    // The source goes on for three hours in no time; `b` does not.
    changes = judge(&mut book, (1..=3).map(|h| reading("a", h * HOUR, 1.0)).collect());
    assert_eq!(told(&changes), []);
    assert_eq!(book.silent_accounts(Duration::ZERO), [account()]);
    let mut raised = Changes::default();
    book.silences(&account(), Duration::ZERO, &mut raised);
    assert_eq!(told(&raised), [(AlertEventKind::Raised, 2 * HOUR)]);
    assert_eq!(raised.events[0].device, "b");
    assert_eq!(raised.states[0].phase, Phase::Firing);
    book.load(&account(), raised.states, Duration::ZERO);
    assert!(book.silent_accounts(Duration::ZERO).is_empty(), "it is raised once");

    // The whole source stops; the clock goes on.
    assert!(book.silent_accounts(minute * 119).is_empty());
    assert_eq!(book.silent_accounts(minute * 121), [account()]);
    let mut raised = Changes::default();
    book.silences(&account(), minute * 121, &mut raised);
    assert_eq!(told(&raised), [(AlertEventKind::Raised, 5 * HOUR)]);
    assert_eq!(raised.events[0].device, "a");
    book.load(&account(), raised.states, minute * 121);

    let back = judge(&mut book, vec![reading("a", 9 * HOUR, 1.0), reading("b", 9 * HOUR, 1.0)]);
    assert_eq!(told(&back), [(AlertEventKind::Resolved, 9 * HOUR); 2]);
}

#[test]
fn a_silence_that_another_worker_saw_end_is_not_raised() {
    let mut book = book(vec![silent(100)]);
    let states = judge(&mut book, vec![reading("a", 0, 1.0)]).states;
    let later = Duration::from_millis(500);
    assert!(!book.silent_accounts(later).is_empty());
    let seen_elsewhere = states.into_iter().map(|s| AlertState { last_seen: Timestamp(450), ..s }).collect();
    book.load(&account(), seen_elsewhere, later);
    assert!(book.silent_accounts(later).is_empty());
}

#[test]
fn the_latest_readings_of_watched_devices_are_handed_out_once_to_be_stored() {
    let mut book = book(vec![silent(100), above_10(None, 0, 0)]);
    judge(&mut book, vec![reading("a", 0, 1.0)]);
    assert!(book.moved().is_empty(), "the first reading was among the changes");
    judge(&mut book, vec![reading("a", 10, 1.0), reading("a", 20, 1.0)]);
    let moved = book.moved();
    assert_eq!(moved.iter().map(|s| (s.rule.as_str(), s.last_seen.0)).collect::<Vec<_>>(), [("silent", 20)]);
    assert!(book.moved().is_empty());
    book.unmoved(&moved);
    assert_eq!(book.moved(), moved, "storing failed: they are handed out again");
}

#[test]
fn memory_is_bounded_by_forgetting_what_is_unused() {
    let mut book = book(vec![rule("some", "keep*", threshold(Comparison::Above, 10.0, None, 0))]);
    let readings: Vec<_> =
        (0..500).map(|n| reading(&format!("d{n}"), 1, 1.0)).chain([reading("keep1", 1, 99.0)]).collect();
    judge(&mut book, readings);
    assert_eq!(book.devices(), 501);
    book.trim(1_000);
    assert_eq!(book.devices(), 501);
    book.trim(100);
    assert_eq!(book.devices(), 1);
    book.trim(0);
    assert_eq!(book.devices(), 0);
}

/// What a store would have after these states were saved one after the other.
fn save(stored: &mut Vec<AlertState>, states: Vec<AlertState>) {
    for state in states {
        let same =
            |s: &AlertState| s.rule == state.rule && s.source == state.source && s.device == state.device;
        match stored.iter_mut().find(|s| same(s)) {
            Some(known) if known.last_seen > state.last_seen => {}
            Some(known) => *known = state,
            None => stored.push(state),
        }
    }
}

fn any_rule() -> impl Strategy<Value = Rule> {
    let above = any::<bool>();
    (above, 0.0..5.0_f64, 0..4_u64, 0..6_u64).prop_map(|(above, band, for_h, cooldown_h)| {
        let (comparison, clear) =
            if above { (Comparison::Above, 10.0 - band) } else { (Comparison::Below, 10.0 + band) };
        let condition = threshold(comparison, 10.0, Some(clear), for_h * HOUR as u64);
        Rule { cooldown_ms: cooldown_h * HOUR as u64, ..rule("r", "*", condition) }
    })
}

fn any_values() -> impl Strategy<Value = Vec<f64>> {
    prop::collection::vec(0.0..20.0_f64, 1..60)
}

fn ordered(values: &[f64]) -> Vec<StoredReading> {
    values.iter().enumerate().map(|(h, v)| reading("a", (h as i64 + 1) * HOUR, *v)).collect()
}

proptest! {
    #[test]
    fn raised_and_resolved_alternate_and_nothing_flaps_within_the_band(rule in any_rule(), values in any_values()) {
        let changes = judge(&mut book(vec![rule.clone()]), ordered(&values));
        let kinds: Vec<_> = changes.events.iter().map(|e| e.kind).collect();
        for (i, kind) in kinds.iter().enumerate() {
            let expected = if i % 2 == 0 { AlertEventKind::Raised } else { AlertEventKind::Resolved };
            prop_assert_eq!(*kind, expected);
        }
        let Condition::Threshold { comparison, limit, clear: Some(clear), .. } = rule.condition else { unreachable!() };
        for event in &changes.events {
            let v = event.value.unwrap();
            // A value strictly inside the band never causes an event of either kind.
            let inside = match comparison {
                Comparison::Above => v > clear && v <= limit,
                Comparison::Below => v < clear && v >= limit,
            };
            prop_assert!(!inside, "{v} is in the band");
        }
        for pair in changes.events.windows(2) {
            if pair[0].kind == AlertEventKind::Resolved {
                prop_assert!(pair[1].ts.millis_since(pair[0].ts) >= rule.cooldown_ms as i64, "cooldown");
            }
        }
    }

    #[test]
    fn duplicates_change_nothing(
        rule in any_rule(),
        after_h in 1..4_u64,
        values in any_values(),
        again in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>()), 0..40),
    ) {
        let rules = vec![rule, silent(after_h * HOUR as u64)];
        let once = ordered(&values);
        let mut repeated = once.clone();
        for (which, place) in again {
            let copy = once[which.index(once.len())].clone();
            // A duplicate comes after its original.
            let original = repeated.iter().position(|r| r.ts == copy.ts).unwrap();
            let at = original + 1 + place.index(repeated.len() - original);
            repeated.insert(at.min(repeated.len()), copy);
        }
        prop_assert_eq!(judge(&mut book(rules.clone()), once).events, judge(&mut book(rules), repeated).events);
    }

    #[test]
    fn a_shuffled_sequence_gives_the_events_of_its_rising_part(
        rule in any_rule(),
        readings in any_values().prop_map(|v| ordered(&v)).prop_shuffle(),
    ) {
        let mut newest = Timestamp(0);
        let rising: Vec<_> = readings
            .iter()
            .filter(|r| {
                let rises = r.ts > newest;
                newest = newest.max(r.ts);
                rises
            })
            .cloned()
            .collect();
        let shuffled = judge(&mut book(vec![rule.clone()]), readings);
        prop_assert_eq!(shuffled.events, judge(&mut book(vec![rule]), rising).events);
    }

    #[test]
    fn crashes_between_any_two_steps_change_no_event(
        rule in any_rule(),
        values in any_values(),
        crashes in prop::collection::vec((1..12_usize, any::<bool>(), 0..20_usize), 0..8),
    ) {
        let all = ordered(&values);
        let mut expected = judge(&mut book(vec![rule.clone()]), all.clone()).events;
        let (mut stored, mut recorded) = (Vec::new(), Vec::<AlertEvent>::new());
        let (mut at, mut crashes) = (0, crashes.into_iter());
        while at < all.len() {
            // A process starts, loads, judges `take` readings of which it makes durable all or only the events, and dies;
            // those not acked, and some that were, are delivered again.
            let (take, saved, back) = crashes.next().unwrap_or((all.len(), true, 0));
            let mut book = book(vec![rule.clone()]);
            book.load(&account(), stored.clone(), Duration::ZERO);
            let until = (at + take).min(all.len());
            let changes = judge(&mut book, all[at..until].to_vec());
            for event in changes.events {
                if recorded.iter().all(|known| known.id != event.id) {
                    recorded.push(event);
                }
            }
            if saved {
                save(&mut stored, changes.states);
                at = if until == all.len() { until } else { until.saturating_sub(back) };
            }
        }
        expected.sort_by_key(|e| e.ts);
        recorded.sort_by_key(|e| e.ts);
        prop_assert_eq!(expected, recorded);
    }

    #[test]
    fn silence_gives_the_same_events_however_often_one_looks(
        gaps in prop::collection::vec(1..6_i64, 1..40),
        looks in prop::collection::vec(any::<bool>(), 40),
    ) {
        let mut ts = 0;
        let readings: Vec<_> = gaps.iter().map(|h| { ts += h * HOUR; reading("a", ts, 1.0) }).collect();
        let unlooked = judge(&mut book(vec![silent(3 * HOUR as u64)]), readings.clone()).events;
        let mut book = book(vec![silent(3 * HOUR as u64)]);
        let mut events = Vec::new();
        for (r, look) in readings.into_iter().zip(looks) {
            if look {
                // Another device of the source shows how late it is.
                let mut changes = judge(&mut book, vec![reading("other", r.ts.0 - 1, 1.0)]);
                changes.events.clear();
                book.silences(&account(), Duration::ZERO, &mut changes);
                changes.states.retain(|s| s.device == "a");
                changes.events.retain(|e| e.device == "a");
                book.load(&account(), changes.states, Duration::ZERO);
                events.append(&mut changes.events);
            }
            events.append(&mut judge(&mut book, vec![r]).events);
        }
        events.retain(|e| e.device == "a");
        prop_assert_eq!(events, unlooked);
    }
}
