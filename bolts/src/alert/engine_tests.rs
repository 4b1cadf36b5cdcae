use galerna_model::{Comparison, Measurement, ParameterCode, QueueName, Rule};
use galerna_storage::StoredReading;
use proptest::prelude::*;

use super::super::rules::tests::{rule, threshold};
use super::*;

const HOUR: i64 = 3_600_000;
/// Readings are of the past.
const NOW: Timestamp = Timestamp(1_000 * HOUR);

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
        received: NOW,
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

fn engine(rules: Vec<Rule>) -> AlertEngine {
    let (rules, errors) = RuleSet::compile(rules);
    assert!(errors.is_empty(), "{errors:?}");
    AlertEngine::new(rules)
}

fn above_10(clear: Option<f64>, for_ms: u64, cooldown_ms: u64) -> Rule {
    Rule { cooldown_ms, ..rule("high", "*", threshold(Comparison::Above, 10.0, clear, for_ms)) }
}

fn silent(after_ms: u64) -> Rule {
    rule("silent", "*", Condition::Silent { after_ms })
}

fn at(running: Duration) -> Moment {
    Moment { running, wall: NOW.plus_millis(running.as_millis() as i64) }
}

fn evaluate(engine: &mut AlertEngine, readings: Vec<StoredReading>) -> Changes {
    let mut changes = Changes::default();
    engine.evaluate(&batch(1, readings), at(Duration::ZERO), &mut changes);
    changes
}

fn told(changes: &Changes) -> Vec<(AlertEventKind, i64)> {
    changes.events.iter().map(|e| (e.kind, e.ts.0)).collect()
}

#[test]
fn an_event_says_what_happened_and_has_the_same_id_whenever_it_is_made() {
    let readings = || vec![reading("meter/1", 1_000, 12.5), reading("meter/1", 2_000, 7.0)];
    let changes = evaluate(&mut engine(vec![above_10(Some(8.0), 0, 0)]), readings());
    let ids: Vec<_> = changes.events.iter().map(|e| e.id.as_str()).collect();
    assert_eq!(ids, ["high/s/meter/1/raised/1000", "high/s/meter/1/resolved/2000"]);
    assert_eq!(changes.events[0].message, "401 of meter/1 is 12.5, above 10");
    assert_eq!(changes.events[1].message, "401 of meter/1 is 7, no longer above 10 (clear at 8)");
    assert_eq!(evaluate(&mut engine(vec![above_10(Some(8.0), 0, 0)]), readings()).events, changes.events);
}

#[test]
fn each_device_and_each_rule_stands_by_itself() {
    let panther = rule("panther", "Panther_*", threshold(Comparison::Above, 10.0, None, 0));
    let other = Rule { account: Some("B".parse().unwrap()), ..above_10(None, 0, 0) };
    let low = rule("low", "*", threshold(Comparison::Below, 1.0, None, 0));
    let mut engine = engine(vec![panther, other, low]);
    let changes = evaluate(
        &mut engine,
        vec![reading("Panther_x", 1, 20.0), reading("Bear_x", 1, 20.0), reading("Panther_y", 1, 0.5)],
    );
    let told: Vec<_> = changes.events.iter().map(|e| (e.rule.as_str(), e.device.as_str())).collect();
    assert_eq!(told, [("panther", "Panther_x"), ("low", "Panther_y")]);
}

#[test]
fn an_account_that_no_rule_watches_is_neither_loaded_nor_remembered() {
    let mut engine = engine(vec![Rule { account: Some("B".parse().unwrap()), ..above_10(None, 0, 0) }]);
    assert!(!engine.must_load(&batch(1, vec![reading("a", 1, 20.0)])));
    assert!(evaluate(&mut engine, vec![reading("a", 1, 20.0)]).is_empty());
    assert_eq!(engine.devices(), 0);
}

#[test]
fn states_that_were_loaded_for_silence_are_loaded_again_with_the_first_batch() {
    let mut engine = engine(vec![above_10(None, 0, 0)]);
    engine.load(&account(), Vec::new(), at(Duration::ZERO));
    // Hours may have gone by, and another worker had the queue.
    assert!(engine.must_load(&batch(20, vec![reading("a", 1, 1.0)])));
}

#[test]
fn states_are_loaded_again_when_somebody_else_had_the_queue() {
    let mut engine = engine(vec![above_10(None, 0, 0)]);
    let cases = [
        (7, true, "the first batch"),
        (7, false, "the same lease"),
        (8, false, "the next lease: nobody was in between"),
        (10, true, "somebody had epoch 9"),
        (4, true, "an epoch from before"),
    ];
    for (epoch, must, why) in cases {
        let batch = batch(epoch, vec![reading("a", 1, 1.0)]);
        assert_eq!(engine.must_load(&batch), must, "{why}");
        if must {
            engine.load(&account(), Vec::new(), at(Duration::ZERO));
        }
        engine.evaluate(&batch, at(Duration::ZERO), &mut Changes::default());
    }
}

#[test]
fn an_alert_that_fired_before_a_restart_resolves_after_it() {
    let fired = evaluate(&mut engine(vec![above_10(None, 0, 0)]), vec![reading("a", 10, 20.0)]);
    let mut restarted = engine(vec![above_10(None, 0, 0)]);
    restarted.load(&account(), fired.states, at(Duration::ZERO));
    let changes = evaluate(
        &mut restarted,
        vec![reading("a", 10, 20.0), reading("a", 5, 1.0), reading("a", 20, 30.0), reading("a", 30, 1.0)],
    );
    assert_eq!(told(&changes), [(AlertEventKind::Resolved, 30)]);
}

#[test]
fn a_device_falls_silent_by_its_sources_time_and_by_the_clock_when_the_source_stops() {
    let minute = Duration::from_secs(60);
    let after = 2 * HOUR as u64;
    let mut engine = engine(vec![silent(after)]);
    let mut changes = evaluate(&mut engine, vec![reading("a", 0, 1.0), reading("b", 0, 1.0)]);
    assert_eq!(changes.states.len(), 2, "new devices are remembered");

    // The source goes on for three hours in no time; `b` does not.
    changes = evaluate(&mut engine, (1..=3).map(|h| reading("a", h * HOUR, 1.0)).collect());
    assert_eq!(told(&changes), []);
    assert_eq!(engine.silent_accounts(at(Duration::ZERO)), [account()]);
    let mut raised = Changes::default();
    engine.silences(&account(), at(Duration::ZERO), &mut raised);
    assert_eq!(told(&raised), [(AlertEventKind::Raised, 2 * HOUR)]);
    assert_eq!(raised.events[0].device, "b");
    assert_eq!(raised.states[0].phase, Phase::Firing);
    engine.load(&account(), raised.states, at(Duration::ZERO));
    assert!(engine.silent_accounts(at(Duration::ZERO)).is_empty(), "it is raised once");

    // The whole source stops; the clock goes on.
    assert!(engine.silent_accounts(at(minute * 119)).is_empty());
    assert_eq!(engine.silent_accounts(at(minute * 121)), [account()]);
    let mut raised = Changes::default();
    engine.silences(&account(), at(minute * 121), &mut raised);
    assert_eq!(told(&raised), [(AlertEventKind::Raised, 5 * HOUR)]);
    assert_eq!(raised.events[0].device, "a");
    engine.load(&account(), raised.states, at(minute * 121));

    let back = evaluate(&mut engine, vec![reading("a", 9 * HOUR, 1.0), reading("b", 9 * HOUR, 1.0)]);
    assert_eq!(told(&back), [(AlertEventKind::Resolved, 9 * HOUR); 2]);
}

#[test]
fn a_silence_that_another_worker_saw_end_is_not_raised() {
    let mut engine = engine(vec![silent(100)]);
    let states = evaluate(&mut engine, vec![reading("a", 0, 1.0)]).states;
    let later = at(Duration::from_millis(500));
    assert!(!engine.silent_accounts(later).is_empty());
    let seen_elsewhere = states
        .into_iter()
        .map(|s| AlertState {
            last_seen: Timestamp(450),
            heard_at: Some(Timestamp(450)),
            received: Some(NOW.plus_millis(450)),
            ..s
        })
        .collect();
    engine.load(&account(), seen_elsewhere, later);
    assert!(engine.silent_accounts(later).is_empty());
}

#[test]
fn the_latest_readings_of_watched_devices_are_handed_out_once_to_be_stored() {
    let mut engine = engine(vec![silent(100), above_10(None, 0, 0)]);
    evaluate(&mut engine, vec![reading("a", 0, 1.0)]);
    assert!(engine.unsaved().is_empty(), "the first reading was among the changes");
    evaluate(&mut engine, vec![reading("a", 10, 1.0), reading("a", 20, 1.0)]);
    let unsaved = engine.unsaved();
    assert_eq!(
        unsaved.iter().map(|s| (s.rule.as_str(), s.last_seen.0)).collect::<Vec<_>>(),
        [("silent", 20)]
    );
    assert!(engine.unsaved().is_empty());
    engine.mark_unsaved(&unsaved);
    assert_eq!(engine.unsaved(), unsaved, "storing failed: they are handed out again");
}

#[test]
fn memory_is_bounded_by_forgetting_what_is_unused() {
    let mut engine = engine(vec![rule("some", "keep*", threshold(Comparison::Above, 10.0, None, 0))]);
    let readings: Vec<_> =
        (0..500).map(|n| reading(&format!("d{n}"), 1, 1.0)).chain([reading("keep1", 1, 99.0)]).collect();
    evaluate(&mut engine, readings);
    assert_eq!(engine.devices(), 501);
    engine.evict(1_000);
    assert_eq!(engine.devices(), 501);
    engine.evict(100);
    assert_eq!(engine.devices(), 1);
    engine.evict(0);
    assert_eq!(engine.devices(), 0);
}

fn posted(device: &str, ts: i64, value: f64, received: i64) -> StoredReading {
    StoredReading { received: Timestamp(received), ..reading(device, ts, value) }
}

/// A message that comes at this wall time, in milliseconds.
fn post(engine: &mut AlertEngine, readings: Vec<StoredReading>, wall: i64) -> Changes {
    let mut changes = Changes::default();
    let now = Moment { running: Duration::from_millis(wall as u64), wall: Timestamp(wall) };
    engine.evaluate(&batch(1, readings), now, &mut changes);
    engine.silences(&account(), now, &mut changes);
    let silences = changes.states.iter().filter(|s| s.rule == "silent").cloned().collect();
    engine.load(&account(), silences, now);
    changes
}

#[test]
fn a_reading_from_the_future_makes_no_neighbour_silent() {
    let mut engine = engine(vec![silent(60_000)]);
    post(&mut engine, vec![posted("fast", 12 * HOUR, 20.0, 1_000)], 1_000);
    for n in 1..=6 {
        let now = n * 3_000;
        let changes = post(&mut engine, vec![posted("a", now, 1.0, now), posted("b", now, 1.0, now)], now);
        assert_eq!(told(&changes), []);
    }
    // And its own next reading is none that comes late.
    let changes = post(&mut engine, vec![posted("fast", 21_000, 1.0, 21_000)], 21_000);
    assert_eq!(told(&changes), []);
    let all = post(&mut engine, Vec::new(), 90_000);
    let devices: Vec<_> = all.events.iter().map(|e| (e.device.as_str(), e.ts.0)).collect();
    assert_eq!(devices.len(), 3, "{devices:?}");
    assert!(devices.contains(&("fast", 81_000)) && devices.contains(&("a", 78_000)), "{devices:?}");
}

#[test]
fn a_device_whose_clock_is_slow_is_not_silent_while_it_sends() {
    let mut engine = engine(vec![silent(60_000)]);
    for n in 1..=6 {
        let now = HOUR + n * 20_000;
        let changes =
            post(&mut engine, vec![posted("slow", now - HOUR, 1.0, now), posted("b", now, 1.0, now)], now);
        assert_eq!(told(&changes), []);
    }
    let end = HOUR + 120_000;
    assert_eq!(
        told(&post(&mut engine, vec![posted("b", end + 59_000, 1.0, end + 59_000)], end + 59_000)),
        []
    );
    let raised = post(&mut engine, vec![posted("b", end + 61_000, 1.0, end + 61_000)], end + 61_000);
    assert_eq!(told(&raised), [(AlertEventKind::Raised, 180_000)], "in its own time");
}

#[test]
fn a_reading_from_the_future_hides_none_that_follows_it() {
    let mut engine = engine(vec![above_10(None, 0, 0)]);
    assert_eq!(
        told(&post(&mut engine, vec![posted("a", 12 * HOUR, 20.0, 1_000)], 1_000)),
        [(AlertEventKind::Raised, 1_000)]
    );
    assert_eq!(
        told(&post(&mut engine, vec![posted("a", 4_000, 5.0, 4_000)], 4_000)),
        [(AlertEventKind::Resolved, 4_000)]
    );
    // Several at once are evaluated in their order, and again changes nothing.
    let far = vec![posted("a", 12 * HOUR + 2, 5.0, 5_000), posted("a", 12 * HOUR + 1, 20.0, 5_000)];
    let both = [(AlertEventKind::Raised, 5_000), (AlertEventKind::Resolved, 5_001)];
    assert_eq!(told(&post(&mut engine, far.clone(), 5_000)), both);
    assert_eq!(told(&post(&mut engine, far, 6_000)), []);
    // Clocks are ahead by a little everywhere.
    assert_eq!(
        told(&post(&mut engine, vec![posted("a", 37_000, 20.0, 7_000)], 7_000)),
        [(AlertEventKind::Raised, 37_000)]
    );
}

#[test]
fn late_readings_are_evaluated_in_their_place_within_the_limit_and_not_at_all_beyond() {
    let limit = Duration::from_secs(10);
    type Case = (&'static str, u64, &'static [(i64, f64)], &'static [(AlertEventKind, i64)]);
    let cases: [Case; 7] = [
        (
            "a late breach was one",
            0,
            &[(1_000, 1.0), (5_000, 1.0), (3_000, 20.0)],
            &[(AlertEventKind::Raised, 3_000), (AlertEventKind::Resolved, 5_000)],
        ),
        ("too late", 0, &[(1_000, 1.0), (20_000, 1.0), (9_000, 20.0)], &[]),
        (
            "a late good reading ends nothing",
            0,
            &[(1_000, 1.0), (5_000, 20.0), (3_000, 1.0)],
            &[(AlertEventKind::Raised, 5_000)],
        ),
        (
            "a late breach before the alert",
            0,
            &[(1_000, 1.0), (5_000, 20.0), (3_000, 20.0)],
            &[(AlertEventKind::Raised, 5_000)],
        ),
        (
            "twice is once",
            0,
            &[(1_000, 1.0), (5_000, 1.0), (3_000, 20.0), (3_000, 20.0)],
            &[(AlertEventKind::Raised, 3_000), (AlertEventKind::Resolved, 5_000)],
        ),
        (
            "a late breach makes it long enough",
            3_000,
            &[(1_000, 1.0), (5_000, 20.0), (3_000, 20.0), (6_000, 20.0)],
            &[(AlertEventKind::Raised, 6_000)],
        ),
        (
            "a late good reading shows that it was not long enough",
            3_000,
            &[(1_000, 20.0), (5_000, 20.0), (3_000, 1.0), (6_000, 20.0), (8_000, 20.0)],
            &[
                (AlertEventKind::Raised, 5_000),
                (AlertEventKind::Resolved, 5_001),
                (AlertEventKind::Raised, 8_000),
            ],
        ),
    ];
    for (what, for_ms, readings, expected) in cases {
        let mut engine = engine(vec![above_10(None, for_ms, 0)]).with_lateness(limit);
        let mut events = Vec::new();
        for &(ts, value) in readings {
            events.extend(told(&evaluate(&mut engine, vec![reading("a", ts, value)])));
        }
        assert_eq!(events, expected, "{what}");
    }
}

#[test]
fn silence_counts_from_the_stored_reading_over_restarts() {
    let minute = 60_000;
    let mut states = post(&mut engine(vec![silent(60_000)]), vec![posted("a", 0, 1.0, 0)], 0).states;
    assert_eq!(states.len(), 1);
    for (start, due) in [(39_000, 61_000), (200_000, 200_001)] {
        // The topology's clock begins anew with the process.
        let at = |wall: i64| Moment {
            running: Duration::from_millis((wall - start) as u64),
            wall: Timestamp(wall),
        };
        let mut engine = engine(vec![silent(60_000)]);
        engine.load(&account(), states.clone(), at(start));
        if due > start + 1 {
            assert!(engine.silent_accounts(at(60_000)).is_empty());
        }
        let mut raised = Changes::default();
        engine.silences(&account(), at(due), &mut raised);
        assert_eq!(told(&raised), [(AlertEventKind::Raised, minute)]);
    }
    // Raised once, whoever starts when.
    states[0].phase = Phase::Firing;
    let mut engine = engine(vec![silent(60_000)]);
    engine.load(&account(), states, Moment { running: Duration::ZERO, wall: Timestamp(300_000) });
    assert!(engine.silent_accounts(Moment { running: Duration::ZERO, wall: Timestamp(300_000) }).is_empty());
}

#[test]
fn a_reading_that_is_stored_keeps_a_device_from_being_silent() {
    let mut engine = engine(vec![silent(60_000)]);
    let states = post(&mut engine, vec![posted("a", 0, 1.0, 0)], 0).states;
    let now = Moment { running: Duration::ZERO, wall: Timestamp(70_000) };
    let mut restarted = self::engine(vec![silent(60_000)]);
    restarted.load(&account(), states, now);
    assert_eq!(restarted.silent_devices(&account(), now), [(SourceId::new("s").unwrap(), "a".to_owned())]);
    let source = SourceId::new("s").unwrap();
    restarted.note_stored(&account(), (&source, "a"), (Timestamp(50_000), Timestamp(50_100)), now);
    assert!(restarted.silent_accounts(now).is_empty());
    let later = Moment { running: Duration::from_millis(40_200), wall: Timestamp(110_200) };
    let mut raised = Changes::default();
    restarted.silences(&account(), later, &mut raised);
    assert_eq!(told(&raised), [(AlertEventKind::Raised, 110_000)]);
}

#[test]
fn an_alert_that_was_closed_meanwhile_does_not_resolve_twice_and_fires_again_after_it_cleared() {
    let mut engine = engine(vec![above_10(None, 0, 0)]);
    let stored = evaluate(&mut engine, vec![reading("a", 10, 20.0)]).states;
    let closed: Vec<_> = stored.iter().map(super::super::event::closed).collect();
    let mut changes =
        evaluate(&mut engine, vec![reading("a", 20, 30.0), reading("a", 30, 1.0), reading("a", 40, 20.0)]);
    assert_eq!(changes.ending(), [account()]);
    changes.leave_out_closed(&closed);
    assert_eq!(told(&changes), [(AlertEventKind::Raised, 40)]);

    // What is remembered learns of it, though it has seen later readings.
    let mut other = self::engine(vec![above_10(None, 0, 0)]);
    evaluate(&mut other, vec![reading("a", 10, 20.0), reading("a", 15, 20.0)]);
    other.load(&account(), closed, at(Duration::ZERO));
    let after =
        evaluate(&mut other, vec![reading("a", 20, 30.0), reading("a", 30, 1.0), reading("a", 40, 20.0)]);
    assert_eq!(told(&after), [(AlertEventKind::Raised, 40)]);
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
        let changes = evaluate(&mut engine(vec![rule.clone()]), ordered(&values));
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
        prop_assert_eq!(evaluate(&mut engine(rules.clone()), once).events, evaluate(&mut engine(rules), repeated).events);
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
        let mut shuffled = engine(vec![rule.clone()]);
        let events: Vec<_> =
            readings.iter().flat_map(|r| evaluate(&mut shuffled, vec![r.clone()]).events).collect();
        prop_assert_eq!(events, evaluate(&mut engine(vec![rule.clone()]), rising).events);
    }

    #[test]
    fn the_readings_of_one_message_give_the_same_events_in_whatever_order(
        rule in any_rule(),
        after_h in 1..4_u64,
        readings in any_values().prop_map(|v| ordered(&v)).prop_shuffle(),
    ) {
        let rules = vec![rule, silent(after_h * HOUR as u64)];
        let mut sorted = readings.clone();
        sorted.sort_by_key(|r| r.ts);
        let shuffled = evaluate(&mut engine(rules.clone()), readings).events;
        prop_assert_eq!(shuffled, evaluate(&mut engine(rules), sorted).events);
    }

    #[test]
    fn readings_that_are_late_within_the_limit_leave_the_state_that_they_would_leave_in_order(
        rule in any_rule(),
        readings in any_values().prop_map(|v| ordered(&v)).prop_shuffle(),
    ) {
        let mut sorted = readings.clone();
        sorted.sort_by_key(|r| r.ts);
        let in_order = evaluate(&mut engine(vec![rule.clone()]), sorted);
        // The first one is what lateness is measured from: nothing is remembered of before it.
        let first = readings.iter().map(|r| r.ts).min().unwrap();
        let mut engine = engine(vec![rule]).with_lateness(Duration::from_secs(100 * 3600));
        evaluate(&mut engine, vec![StoredReading { ts: first.plus_millis(-1), ..reading("a", 0, 10.0) }]);
        let mut changes = Changes::default();
        for r in &readings {
            engine.evaluate(&batch(1, vec![r.clone()]), at(Duration::ZERO), &mut changes);
        }
        let is_firing = |changes: &Changes| changes.states.last().is_some_and(|s| s.phase == Phase::Firing);
        prop_assert_eq!(is_firing(&changes), is_firing(&in_order));
        let mut kinds = changes.events.clone();
        kinds.sort_by_key(|e| e.ts);
        // What was told in the end is what is so.
        let raised = changes.events.iter().filter(|e| e.kind == AlertEventKind::Raised).count();
        let resolved = changes.events.len() - raised;
        prop_assert_eq!(raised, resolved + usize::from(is_firing(&in_order)));
        let mut ids: Vec<_> = changes.events.iter().map(|e| e.id.as_str()).collect();
        ids.sort_unstable();
        ids.dedup();
        prop_assert_eq!(ids.len(), changes.events.len(), "nothing is told twice");
    }

    #[test]
    fn crashes_between_any_two_steps_change_no_event(
        rule in any_rule(),
        values in any_values(),
        crashes in prop::collection::vec((1..12_usize, any::<bool>(), 0..20_usize), 0..8),
    ) {
        let all = ordered(&values);
        let mut expected = evaluate(&mut engine(vec![rule.clone()]), all.clone()).events;
        let (mut stored, mut recorded) = (Vec::new(), Vec::<AlertEvent>::new());
        let (mut done, mut crashes) = (0, crashes.into_iter());
        while done < all.len() {
            // A process starts, loads, evaluates `take` readings of which it makes durable all or only the events, and dies;
            // those not acked, and some that were, are delivered again.
            let (take, saved, back) = crashes.next().unwrap_or((all.len(), true, 0));
            let mut engine = engine(vec![rule.clone()]);
            engine.load(&account(), stored.clone(), at(Duration::ZERO));
            let until = (done + take).min(all.len());
            let changes = evaluate(&mut engine, all[done..until].to_vec());
            for event in changes.events {
                if recorded.iter().all(|known| known.id != event.id) {
                    recorded.push(event);
                }
            }
            if saved {
                save(&mut stored, changes.states);
                done = if until == all.len() { until } else { until.saturating_sub(back) };
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
        let unlooked = evaluate(&mut engine(vec![silent(3 * HOUR as u64)]), readings.clone()).events;
        let mut engine = engine(vec![silent(3 * HOUR as u64)]);
        let mut events = Vec::new();
        for (r, look) in readings.into_iter().zip(looks) {
            if look {
                // Another device of the source shows how late it is.
                let mut changes = evaluate(&mut engine, vec![reading("other", r.ts.0 - 1, 1.0)]);
                changes.events.clear();
                engine.silences(&account(), at(Duration::ZERO), &mut changes);
                changes.states.retain(|s| s.device == "a");
                changes.events.retain(|e| e.device == "a");
                engine.load(&account(), changes.states, at(Duration::ZERO));
                events.append(&mut changes.events);
            }
            events.append(&mut evaluate(&mut engine, vec![r]).events);
        }
        events.retain(|e| e.device == "a");
        prop_assert_eq!(events, unlooked);
    }
}
