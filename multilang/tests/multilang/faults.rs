//! What children do wrong, and what becomes of their tuples.

use std::collections::BTreeSet;
use std::time::Duration;

use galerna_engine::testing::Harness;
use galerna_multilang::{SerializedStream, ShellCommand, ShellTopology};
use galerna_topology::FaultKind;
use galerna_topology::prelude::*;

use crate::support::{Through, python, through};

const SECOND: Duration = Duration::from_secs(1);

fn faulty(fault: &str) -> ShellCommand {
    python("faulty.py", &[fault])
}

/// Sends numbers that pass, then the one that does not.
async fn through_faulty(bolt: ShellCommand) -> Through {
    let through = through(bolt).await;
    through.numbers.emit(1, 1);
    through.numbers.emit(2, 2);
    through.until_acked(2).await;
    through.numbers.emit(13, 13);
    through
}

/// Lets a little time pass, and some of the test's clock.
async fn step(time: Duration, through: &Through) {
    through.run.clock().advance(time);
    tokio::time::sleep(Duration::from_millis(3)).await;
}

/// A child that was given up is followed by one that works.
async fn works_again(through: Through, restarts: u64, passed: usize) {
    through.run.until("it is given up", || through.count("child_restarts") == restarts).await;
    through.numbers.emit(3, 3);
    let mut steps = 0;
    while through.numbers.acked().last() != Some(&3) {
        // Only the pauses before it is started again are of the test's clock.
        step(Duration::from_millis(10), &through).await;
        steps += 1;
        assert!(steps < 20_000, "{:#?}", through.run.metrics());
    }
    assert_eq!(through.count("child_restarts"), restarts);
    assert_eq!(through.seen.count(), passed);
    through.run.drain(SECOND).await;
}

/// The child is given up, the tuple that it had fails with this reason, and another one takes its place.
async fn costs_the_child(fault: &str, reasons: &[&str]) {
    let through = through_faulty(faulty(fault).max_message(1 << 20)).await;
    through.until_failed(1).await;
    let reason = through.reason();
    for expected in reasons {
        assert!(reason.contains(expected), "`{fault}`: {reason}");
    }
    assert!(reason.contains("python3 faulty.py"), "`{fault}`: {reason}");
    assert_eq!(through.numbers.failed()[0].failure.fault.kind(), FaultKind::Transient);
    works_again(through, 1, 3).await;
}

#[tokio::test]
async fn what_is_printed_is_told_with_its_text() {
    costs_the_child("print", &["no message", "`Hello, I am a library that prints`", "standard error"]).await;
    costs_the_child("print number", &["no message", "`42`"]).await;
}

#[tokio::test]
async fn what_cannot_be_read_is_told_with_its_text() {
    costs_the_child("bad json", &["cannot be read", r#"`{"command": "ack", "id":`"#]).await;
    costs_the_child("nan", &["cannot be read", "NaN"]).await;
    costs_the_child("no command", &["neither `command` nor `pid`"]).await;
    costs_the_child("cut off", &["ends in the middle", r#"{"command": "ack""#]).await;
}

#[tokio::test]
async fn a_message_without_an_end_is_bounded() {
    costs_the_child("long line", &["more than 1048576 bytes", "max_message"]).await;
}

#[tokio::test]
async fn a_child_that_dies_is_told_by_its_status_and_last_errors() {
    costs_the_child("exit", &["exit status: 3", "I have had enough"]).await;
    costs_the_child("kill", &["signal: 9"]).await;
}

#[tokio::test]
async fn a_child_that_closes_its_output_is_over() {
    costs_the_child("close output", &["the child ended"]).await;
}

#[tokio::test]
async fn who_else_holds_the_output_of_a_dead_child_is_not_waited_for() {
    costs_the_child("grandchild", &["exit status: 3"]).await;
}

#[tokio::test]
async fn ids_that_a_child_does_not_have_cost_it() {
    costs_the_child("unknown ack", &["acked the tuple `4711`, which it does not have"]).await;
    costs_the_child("unknown fail", &["failed the tuple `4711`"]).await;
    costs_the_child("unknown anchor", &["anchored to the tuple `4711`"]).await;
    costs_the_child("ack heartbeat", &["acked the tuple `0`"]).await;
}

#[tokio::test]
async fn what_a_child_says_before_it_ends_is_heard() {
    let through = through_faulty(faulty("last words")).await;
    through.until_failed(1).await;
    assert_eq!(through.reason(), "ValueError: 13 is unlucky\n  at line 7");
    works_again(through, 1, 3).await;
}

#[tokio::test]
async fn settled_tuples_are_not_settled_again() {
    for fault in ["ack twice", "anchor after ack"] {
        let through = through_faulty(faulty(fault)).await;
        through.until_acked(3).await;
        through.run.until("the child is given up", || through.count("child_restarts") == 1).await;
        assert!(through.numbers.failed().is_empty());
        works_again(through, 1, 3).await;
    }
}

/// A child that says nothing is given up after the timeout, by the topology's clock, and not before.
async fn hangs(fault: &str) {
    let through = through_faulty(faulty(fault).timeout(Duration::from_secs(10))).await;
    let mut seconds = 0;
    while through.numbers.failed().is_empty() {
        through.run.advance(SECOND).await;
        seconds += 1;
        assert!(seconds < 60, "{:#?}", through.run.metrics());
    }
    assert!(seconds >= 10, "after {seconds} s");
    assert!(through.reason().contains("has said nothing for 10 s"), "{}", through.reason());
    works_again(through, 1, 3).await;
}

#[tokio::test]
async fn a_child_that_hangs_is_replaced() {
    hangs("hang").await;
}

#[tokio::test]
async fn a_child_that_is_stopped_is_replaced() {
    hangs("stop").await;
}

#[tokio::test]
async fn tuples_that_wait_for_a_child_that_hangs_go_to_the_next_one() {
    let bolt = faulty("hang").timeout(Duration::from_secs(10)).max_pending(8);
    let through = through_faulty(bolt).await;
    // More than there is room for on the way to it.
    for number in 1000..31_000 {
        through.numbers.emit(number, number);
    }
    let done = || through.numbers.acked().len() + through.numbers.failed().len();
    let mut steps = 0;
    while done() < 30_003 {
        step(Duration::from_millis(20), &through).await;
        steps += 1;
        assert!(steps < 20_000, "{:#?}", through.run.metrics());
    }
    let mut ids: Vec<u64> = through.numbers.acked();
    ids.extend(through.numbers.failed().iter().map(|failed| failed.id));
    assert_eq!(ids.len(), 30_003);
    assert_eq!(ids.into_iter().collect::<BTreeSet<_>>().len(), 30_003, "each ends once");
    let failed = through.numbers.failed().len();
    assert!((1..15_000).contains(&failed), "{failed} failed");
    through.run.drain(SECOND).await;
}

/// The tuple fails for good, and the child goes on.
async fn costs_the_tuple(fault: &str, reason: &str) {
    let through = through_faulty(faulty(fault)).await;
    through.until_failed(1).await;
    assert!(through.reason().contains(reason), "`{fault}`: {}", through.reason());
    assert_eq!(through.numbers.failed()[0].failure.fault.kind(), FaultKind::Permanent);
    assert_eq!(through.count("child_bad_tuples"), 1);
    works_again(through, 0, 3).await;
}

#[tokio::test]
async fn tuples_that_are_none_of_the_stream_fail_what_they_are_anchored_to() {
    costs_the_tuple("wrong count", "it has 2 values, and the fields of the stream are `value`").await;
    costs_the_tuple("wrong type", "invalid type: string \"thirteen\"").await;
    costs_the_tuple("wrong stream", "it emitted on the stream `luck`, and has `default`").await;
    costs_the_tuple("wrong task", "the task 4711, which there is not").await;
}

#[tokio::test]
async fn an_unknown_command_is_ignored() {
    let through = through_faulty(faulty("unknown command")).await;
    through.until_acked(3).await;
    works_again(through, 0, 4).await;
}

#[tokio::test]
async fn standard_error_is_never_full() {
    let through = through_faulty(faulty("flood errors")).await;
    through.until_acked(3).await;
    works_again(through, 0, 4).await;
}

#[tokio::test]
async fn a_child_that_writes_before_it_reads_is_read_meanwhile() {
    let through = through_faulty(faulty("flood output").max_pending(1)).await;
    for number in 1000..3000 {
        through.numbers.emit(number, number);
    }
    through.until_acked(2003).await;
    works_again(through, 0, 20_000 + 2003).await;
}

#[tokio::test]
async fn a_child_that_asks_before_it_reads_gets_its_answers_before_tuples() {
    let through = through_faulty(faulty("flood questions").max_pending(1)).await;
    for number in 1000..3000 {
        through.numbers.emit(number, number);
    }
    through.until_acked(2003).await;
    works_again(through, 0, 20_000 + 2003).await;
}

#[tokio::test]
async fn a_child_that_says_anything_counts_as_alive() {
    let through = through_faulty(faulty("talk").timeout(Duration::from_secs(10))).await;
    let said = || through.gauge("said").unwrap_or_default();
    for _ in 0..6 {
        let before = said();
        through.run.until("it says more", || said() > before).await;
        through.run.advance(5 * SECOND).await;
    }
    assert_eq!(through.count("child_restarts"), 0);
    assert!(through.numbers.failed().is_empty(), "the tuple is still with it");
    through.run.drain(Duration::ZERO).await;
}

/// JavaScript rounds them, which the guide says; Python does not, nor does anything here.
#[tokio::test]
async fn integers_of_64_bits_come_back_as_they_went() {
    let through = through(faulty("hang")).await;
    let numbers = [(1 << 53) + 1, i64::MAX as u64, u64::MAX];
    for number in numbers {
        through.numbers.emit(number, number);
    }
    through.until_acked(numbers.len()).await;
    through.run.until("all have come back", || through.seen.count() == numbers.len()).await;
    assert_eq!(through.seen.values(), numbers);
    through.run.drain(SECOND).await;
}

#[tokio::test]
async fn what_a_child_may_hold_is_bounded() {
    let through = through_faulty(faulty("never ack").max_unsettled(2)).await;
    through.numbers.emit(14, 13);
    through.numbers.emit(15, 13);
    through.until_failed(1).await;
    assert_eq!(through.numbers.failed()[0].id, 15);
    assert!(through.reason().contains("has 2 tuples that it neither acks nor fails"), "{}", through.reason());
    assert_eq!(through.numbers.failed()[0].failure.fault.kind(), FaultKind::Unavailable);
    let report = through.run.drain(Duration::ZERO).await;
    assert_eq!(report.metrics.component("numbers").expect("it is there").failures(), 3);
}

#[tokio::test]
async fn a_child_that_cannot_start_keeps_the_topology_from_starting() {
    for (command, expected) in [
        (ShellCommand::from(["a-program-that-there-is-not"]), "cannot be started: No such file"),
        (ShellCommand::from(Vec::<String>::new()), "the command has no words"),
        (python("rude.py", &["import"]), "No module named 'a_module_that_there_is_not'"),
        (python("rude.py", &["print"]), "`Loading the model ...`"),
        (python("rude.py", &["frames"]), "no frames called `xml`"),
    ] {
        let harness = Harness::new();
        let numbers = harness.feed::<u64>();
        let mut topology = TopologyBuilder::new("rude");
        let fed = topology.spout("numbers", numbers.spout()).outputs();
        topology.shell_bolt::<()>("rude", command).shuffle(fed.serialized());
        let error = harness.start(topology.build().expect("it is sound")).await.expect_err("it cannot start");
        let error = error.to_string();
        assert!(error.contains(expected) && error.contains("rude"), "{error}");
    }
}
