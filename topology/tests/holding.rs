//! Bolts that say what they hold.

use std::time::Duration;

use galerna_topology::prelude::*;

struct Numbers;

impl Spout for Numbers {
    type MessageId = u64;
    type Outputs = Output<u64>;

    async fn next(&mut self, _: &mut Roots<'_, Self>) -> Result<Next, Fault> {
        Ok(Next::Done)
    }
}

/// Builds a topology whose window is two bolts behind the spout.
fn build(
    holds: usize,
    holds_for: Duration,
    pending: usize,
    timeout: impl Into<Option<Duration>>,
    tracking: bool,
) -> Result<Topology, BuildError> {
    let mut topology = TopologyBuilder::new("holding");
    topology.message_timeout(timeout).tracking(tracking);
    let numbers = topology.spout("numbers", || Numbers).max_pending(pending).parallelism(2).outputs();
    let passed = topology.map("pass", |n: u64| n).shuffle(numbers).outputs();
    topology.for_each("window", |_: u64| ()).shuffle(passed).parallelism(3).holds(holds).holds_for(holds_for);
    topology.build()
}

#[test]
fn a_bolt_that_holds_more_than_can_be_pending_is_refused_with_the_remedy() {
    let (second, minute) = (Duration::from_secs(1), Duration::from_secs(60));
    assert!(build(100, second, 150, minute, true).is_ok());
    let error = build(100, second, 149, minute, true).unwrap_err();
    assert_eq!(
        error.to_string(),
        "bolt `window` holds 100 tuples in 3 tasks, but spout `numbers` has at most 298 roots pending, so they would never come: \
         raise `max_pending` of `numbers` to at least 150 a task, or have `window` hold fewer"
    );
    assert!(build(100, second, 1, minute, false).is_ok(), "nothing is pending without tracking");
}

#[test]
fn a_bolt_that_holds_for_longer_than_the_timeout_is_refused_with_the_remedy() {
    let minute = Duration::from_secs(60);
    assert!(build(1, minute - Duration::from_secs(1), 10, minute, true).is_ok());
    assert!(build(1, minute, 10, None, true).is_ok());
    assert_eq!(
        build(1, minute, 10, minute, true).unwrap_err().to_string(),
        "bolt `window` holds tuples for 60s, but roots of spout `numbers` time out after 60s: raise the message timeout above that, \
         switch it off, or have `window` hold them for less"
    );
}

#[test]
fn a_message_timeout_of_nothing_is_refused() {
    let error = build(1, Duration::ZERO, 10, Duration::ZERO, true).unwrap_err();
    assert!(error.to_string().starts_with("topology `holding` has a message timeout of 0"), "{error}");
}
