//! Windows that cannot be: an error that says what, where and what to do.

use std::time::Duration;

use galerna_engine::testing::Harness;
use galerna_topology::prelude::*;
use galerna_windows::{Collect, EventTime, Window, WindowTopology};

use crate::Reading;

const fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

type Windowed = Window<Reading, &'static str, Collect>;

fn build(
    window: Windowed,
    clocked: bool,
    timeout: impl Into<Option<Duration>>,
) -> Result<Topology, BuildError> {
    let feed = Harness::new().feed::<Reading>();
    let mut topology = TopologyBuilder::new("building");
    topology.message_timeout(timeout);
    let mut readings = topology.spout("feed", feed.spout()).max_pending(1_000).outputs();
    if clocked {
        readings = topology.event_time("clocked", EventTime::of(|r: &Reading| r.1), readings).outputs();
    }
    topology.window("hourly", window, readings);
    topology.build()
}

fn keyed(window: Window<Reading>) -> Windowed {
    window.by(|reading: &Reading| reading.0)
}

#[test]
fn a_window_that_cannot_be_is_refused_with_the_remedy() {
    let zero = Duration::ZERO;
    let timed = |window: Window<Reading>| keyed(window).event_time(|r: &Reading| r.1).lag(secs(1));
    let cases: [(Windowed, &str); 12] = [
        (
            timed(Window::tumbling(zero)),
            "its length is 0ns, which no tuple fits in: make it at least a millisecond",
        ),
        (
            timed(Window::tumbling(Duration::from_micros(10))),
            "its length is 10µs, which no tuple fits in: make it at least a millisecond",
        ),
        (
            timed(Window::sliding(secs(10), zero)),
            "its slide is 0ns, which no tuple fits in: make it at least a millisecond",
        ),
        (
            timed(Window::sliding(secs(10), secs(11))),
            "it slides by 11s and is only 10s long, so that tuples between would be in no window: slide by at most its length, or \
             filter before it",
        ),
        (
            timed(Window::sliding(secs(3_600), Duration::from_millis(7))),
            "its length 3600s and its slide 7ms have only 1ms in common, which makes 3600000 panes a window of at most 100000: choose \
             a length that is a multiple of the slide",
        ),
        (
            timed(Window::session(zero)),
            "its gap is 0ns, which no tuple fits in: make it at least a millisecond",
        ),
        (keyed(Window::count(0)), "its count is 0, which no tuple fits in: make it at least 1"),
        (
            keyed(Window::sliding_count(3, 5)),
            "it slides by 5 tuples and is only 3 tuples long, so that tuples between would be in no window: slide by at most its \
             length, or filter before it",
        ),
        (
            timed(Window::tumbling(secs(1))).early_after(0),
            "its `early_after` is 0, which no tuple fits in: make it at least 1",
        ),
        (
            keyed(Window::tumbling(secs(1))).allowed_lateness(secs(1)),
            "`allowed_lateness` means nothing for a window by processing time: leave it out",
        ),
        (keyed(Window::count(3)).lag(secs(1)), "`lag` means nothing for a window by count: leave it out"),
        (
            timed(Window::session(secs(1))).with_expired(),
            "`with_expired` means nothing for a window by session, which has no window before it: leave it out",
        ),
    ];
    for (window, expected) in cases {
        let error = build(window, false, None).unwrap_err();
        assert_eq!(error.to_string(), format!("component `hourly` cannot be run: {expected}"));
    }
}

#[test]
fn a_window_that_holds_tuples_for_longer_than_they_may_take_is_refused_with_the_remedy() {
    let hourly = || keyed(Window::tumbling(secs(3_600))).event_time(|r: &Reading| r.1).lag(secs(60));
    let error = build(hourly(), false, secs(30)).unwrap_err();
    assert_eq!(
        error.to_string(),
        "bolt `hourly` holds tuples for 3660s, but roots of spout `feed` time out after 30s: raise the message timeout above that, \
         switch it off, or have `hourly` hold them for less"
    );
    assert!(build(hourly(), false, secs(3_661)).is_ok());
    assert!(build(hourly(), false, None).is_ok());
    assert!(build(hourly().ack_on_arrival(), false, secs(30)).is_ok(), "nothing is held");
    let error = build(keyed(Window::count(1_001)), false, None).unwrap_err();
    assert!(
        error.to_string().starts_with("bolt `hourly` holds 1001 tuples in 1 tasks, but spout `feed`"),
        "{error}"
    );
}

#[test]
fn a_window_by_event_time_needs_somebody_who_says_what_that_is() {
    let window = || keyed(Window::tumbling(secs(1))).event_time(|r: &Reading| r.1);
    let error = build(window(), false, None).unwrap_err();
    assert_eq!(
        error.to_string(),
        "bolt `hourly` works by event time, but nothing before it says how far that is: give it a `lag`, or put an `EventTime` bolt \
         behind the source"
    );
    assert!(build(window(), true, None).is_ok());
    assert!(build(window().lag(secs(1)), false, None).is_ok());
}
