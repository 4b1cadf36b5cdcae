//! When schedules occur: every minute of a year in three zones, and random expressions, against a model that looks at each minute;
//! the changes of the clocks case by case.

mod model;

use std::collections::BTreeSet;
use std::time::Duration;

use galerna_model::Timestamp;
use galerna_schedules::{CronTiming, Definition, DstGap, DstOverlap, Interval, Timing};
use proptest::prelude::*;

use model::{DAY, Fields, HOUR, MINUTE, START, ZONES, naive, shown, zone};

fn cron(expression: &str, zone: &str, gap: DstGap, overlap: DstOverlap) -> Definition {
    Definition::new(Timing::Cron(CronTiming {
        expression: expression.to_owned(),
        timezone: zone.to_owned(),
        dst_gap: gap,
        dst_overlap: overlap,
    }))
}

fn found(definition: &Definition, (from, to): (i64, i64)) -> Vec<i64> {
    let occurrences = definition.compile().expect("the definition is sound");
    occurrences.after(Timestamp(from - 1)).map(Timestamp::as_millis).take_while(|time| *time < to).collect()
}

#[test]
fn every_minute_of_a_year_occurs_once_in_each_zone() {
    for zone in ZONES {
        let definition = cron("* * * * *", zone, DstGap::Shift, DstOverlap::First);
        let times = found(&definition, (START, START + 365 * DAY));
        assert_eq!(times.len(), 365 * 24 * 60, "{zone}");
        assert!(times.iter().zip(0..).all(|(time, n)| *time == START + n * MINUTE), "{zone}");
    }
}

#[test]
fn fixed_times_of_a_year_are_those_of_the_model_under_every_policy() {
    let half_hours = Fields {
        minutes: BTreeSet::from([0, 15, 30]),
        hours: BTreeSet::from([1, 2, 3]),
        weekdays: (0..7).collect(),
        wildcard: false,
    };
    let year = (START, START + 365 * DAY);
    for name in ZONES {
        let shown = shown(&zone(name), year);
        for gap in DstGap::ALL {
            for overlap in DstOverlap::ALL {
                let definition = cron("0,15,30 1,2,3 * * *", name, *gap, *overlap);
                let expected = naive(&half_hours, &shown, year, *gap, *overlap);
                assert_eq!(found(&definition, year), expected, "{name}, {gap}, {overlap}");
            }
        }
    }
}

#[test]
fn changes_of_the_clocks_case_by_case() {
    use DstGap::{Shift, Skip};
    use DstOverlap::{Both, First, Last};
    // Expression, zone, gap, overlap, a day in UTC, and what occurs in the 24 hours from there.
    type Case = (&'static str, &'static str, DstGap, DstOverlap, &'static str, &'static [&'static str]);
    let cases: &[Case] = &[
        ("30 2 * * *", "Europe/Berlin", Shift, First, "2026-03-28T12:00:00Z", &["2026-03-29T01:00:00Z"]),
        ("30 2 * * *", "Europe/Berlin", Skip, First, "2026-03-28T12:00:00Z", &[]),
        ("30 2 * * *", "Europe/Berlin", Shift, First, "2026-10-24T12:00:00Z", &["2026-10-25T00:30:00Z"]),
        ("30 2 * * *", "Europe/Berlin", Shift, Last, "2026-10-24T12:00:00Z", &["2026-10-25T01:30:00Z"]),
        (
            "30 2 * * *",
            "Europe/Berlin",
            Shift,
            Both,
            "2026-10-24T12:00:00Z",
            &["2026-10-25T00:30:00Z", "2026-10-25T01:30:00Z"],
        ),
        // Several times in one gap are one occurrence, also when its end is one by itself.
        (
            "0,30 2,3 * * *",
            "Europe/Berlin",
            Shift,
            First,
            "2026-03-28T12:00:00Z",
            &["2026-03-29T01:00:00Z", "2026-03-29T01:30:00Z"],
        ),
        // The end of the overlap is no part of it.
        ("0 3 * * *", "Europe/Berlin", Shift, Last, "2026-10-24T12:00:00Z", &["2026-10-25T02:00:00Z"]),
        // With a wildcard the policies say nothing.
        (
            "30 */2 * * *",
            "Europe/Berlin",
            Shift,
            Last,
            "2026-03-28T23:00:00Z",
            &[
                "2026-03-28T23:30:00Z",
                "2026-03-29T02:30:00Z",
                "2026-03-29T04:30:00Z",
                "2026-03-29T06:30:00Z",
                "2026-03-29T08:30:00Z",
                "2026-03-29T10:30:00Z",
                "2026-03-29T12:30:00Z",
                "2026-03-29T14:30:00Z",
                "2026-03-29T16:30:00Z",
                "2026-03-29T18:30:00Z",
                "2026-03-29T20:30:00Z",
                "2026-03-29T22:30:00Z",
            ],
        ),
        // A day that a whole country left out.
        (
            "0 12 * * *",
            "Pacific/Apia",
            Shift,
            First,
            "2011-12-30T00:00:00Z",
            &["2011-12-30T10:00:00Z", "2011-12-30T22:00:00Z"],
        ),
        ("0 12 * * *", "Pacific/Apia", Skip, First, "2011-12-30T00:00:00Z", &["2011-12-30T22:00:00Z"]),
        // Half an hour.
        (
            "15 2 * * *",
            "Australia/Lord_Howe",
            Shift,
            First,
            "2026-10-03T03:00:00Z",
            &["2026-10-03T15:30:00Z"],
        ),
        // Midnight that is not there.
        ("0 0 * * *", "Africa/Cairo", Shift, First, "2026-04-23T12:00:00Z", &["2026-04-23T22:00:00Z"]),
        // Seconds.
        ("59 59 23 31 12 *", "UTC", Shift, First, "2026-12-31T00:00:00Z", &["2026-12-31T23:59:59Z"]),
    ];
    for (expression, zone, gap, overlap, day, expected) in cases {
        let from = Timestamp::parse(day).expect("a time").as_millis();
        let times = found(&cron(expression, zone, *gap, *overlap), (from, from + DAY));
        let texts: Vec<String> = times.iter().map(|time| Timestamp(*time).to_string()).collect();
        assert_eq!(texts, *expected, "{expression} in {zone}, {gap}, {overlap}");
    }
}

#[test]
fn a_search_that_begins_right_before_the_end_of_a_gap_finds_what_was_shifted_there() {
    let definition = cron("30 2 * * *", "Europe/Berlin", DstGap::Shift, DstOverlap::First);
    let end = Timestamp::parse("2026-03-29T01:00:00Z").expect("a time").as_millis();
    for from in [end - 1_000, end - 999, end] {
        assert_eq!(found(&definition, (from, end + HOUR)), [end], "from {} ms before", end - from);
    }
    assert_eq!(found(&definition, (end + 1, end + HOUR)), [0; 0]);
}

#[test]
fn what_is_far_ahead_is_found_and_what_never_is_is_refused() {
    let leap = cron("0 0 29 2 *", "Europe/Berlin", DstGap::Shift, DstOverlap::First);
    let times = found(&leap, (START, START + 4_000 * DAY));
    let texts: Vec<String> = times.iter().map(|time| Timestamp(*time).to_string()).collect();
    assert_eq!(texts, ["2028-02-28T23:00:00Z", "2032-02-28T23:00:00Z", "2036-02-28T23:00:00Z"]);
    let error = cron("0 0 30 2 *", "Europe/Berlin", DstGap::Shift, DstOverlap::First).compile().unwrap_err();
    assert_eq!((error.field, error.reason.as_str()), ("cron.expression", "it never occurs"));
}

#[test]
fn intervals_go_by_elapsed_time_from_their_anchor() {
    let every = Definition::new(Timing::Every(Interval {
        interval: Duration::from_secs(90),
        anchor: Timestamp(START + 7),
    }));
    assert_eq!(found(&every, (START, START + 270_000)), [START + 7, START + 90_007, START + 180_007]);
    // Before the anchor, too.
    assert_eq!(found(&every, (START - 90_000, START)), [START - 89_993]);
}

#[test]
fn bounds_and_excluded_dates_are_no_occurrences() {
    let mut daily = Definition::cron("0 0 * * *", "America/New_York");
    daily.start_at = Some(Timestamp(START + DAY));
    daily.end_at = Some(Timestamp(START + 5 * DAY));
    daily.exclude = vec!["2026-01-03".to_owned()];
    let texts: Vec<String> =
        found(&daily, (START, START + 30 * DAY)).iter().map(|t| Timestamp(*t).to_string()).collect();
    assert_eq!(texts, ["2026-01-02T05:00:00Z", "2026-01-04T05:00:00Z", "2026-01-05T05:00:00Z"]);
    // A second that falls on an excluded date is skipped with all of that date.
    let mut often = Definition::every(Duration::from_secs(3600));
    often.exclude = vec!["2026-01-01".to_owned()];
    assert_eq!(found(&often, (START, START + DAY + HOUR)), [START + DAY]);
}

#[test]
fn bad_definitions_name_the_field() {
    let with = |change: fn(&mut Definition)| {
        let mut definition = Definition::cron("0 0 * * *", "UTC");
        change(&mut definition);
        definition
    };
    let cases = [
        (Definition::cron("0 0 * *", "UTC"), "cron.expression"),
        (Definition::cron("61 0 * * *", "UTC"), "cron.expression"),
        (Definition::cron("", "UTC"), "cron.expression"),
        (Definition::cron("0 0 * * *", "Europe/Nowhere"), "cron.timezone"),
        (Definition::every(Duration::from_millis(999)), "every.interval"),
        (Definition::every(Duration::from_nanos(1_500_000_001)), "every.interval"),
        (Definition::every(Duration::MAX), "every.interval"),
        (Definition::at(Timestamp(i64::MAX)), "timing"),
        (with(|d| d.start_at = Some(Timestamp(i64::MIN))), "start_at"),
        (with(|d| d.policy.jitter = Duration::MAX), "policy.jitter"),
        (with(|d| d.remaining = Some(0)), "remaining"),
        (with(|d| d.exclude = vec!["Christmas".to_owned()]), "exclude"),
        (with(|d| d.policy.catchup_window = Duration::from_secs(4)), "policy.catchup_window"),
        (with(|d| d.policy.retry.attempts = 0), "retry.attempts"),
        (with(|d| d.policy.retry.first = Duration::ZERO), "retry.first"),
        (
            with(|d| {
                d.start_at = Some(Timestamp(START));
                d.end_at = Some(Timestamp(START));
            }),
            "end_at",
        ),
    ];
    for (definition, field) in cases {
        match definition.compile() {
            Err(error) => assert_eq!(error.field, field, "{error}"),
            Ok(_) => panic!("{definition:?} was taken"),
        }
    }
}

/// A field as a list, and as it is written.
fn list(least: i8, most: i8) -> impl Strategy<Value = (BTreeSet<i8>, String)> {
    proptest::collection::btree_set(least..=most, 1..4).prop_map(|set| {
        let text: Vec<String> = set.iter().map(i8::to_string).collect();
        (set, text.join(","))
    })
}

fn all_or_list(least: i8, most: i8) -> impl Strategy<Value = (BTreeSet<i8>, String)> {
    prop_oneof![Just(((least..=most).collect(), "*".to_owned())), list(least, most)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn random_expressions_occur_as_the_model_says(
        minutes in all_or_list(0, 59),
        hours in all_or_list(0, 23),
        weekdays in all_or_list(0, 6),
        zone_index in 0..ZONES.len(),
        change in 0..2_usize,
        gap in proptest::sample::select(DstGap::ALL),
        overlap in proptest::sample::select(DstOverlap::ALL),
        offset in 0..DAY / MINUTE,
    ) {
        let expression = format!("{} {} * * {}", minutes.1, hours.1, weekdays.1);
        let wildcard = minutes.1 == "*" || hours.1 == "*";
        let fields = Fields { minutes: minutes.0, hours: hours.0, weekdays: weekdays.0, wildcard };
        let name = ZONES[zone_index];
        let days = [["2026-03-29", "2026-10-25"], ["2026-03-08", "2026-11-01"], ["2026-04-05", "2026-10-04"]];
        let day = Timestamp::parse(&format!("{}T00:00:00Z", days[zone_index][change])).expect("a time").as_millis();
        let from = day - 2 * DAY + offset * MINUTE;
        let span = (from, from + 4 * DAY);
        let expected = naive(&fields, &shown(&zone(name), span), span, gap, overlap);
        prop_assert_eq!(found(&cron(&expression, name, gap, overlap), span), expected, "{} in {}", expression, name);
    }
}
