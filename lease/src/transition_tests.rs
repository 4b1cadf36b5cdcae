//! Every state against every event.

use galerna_model::{AccountId, QueueName};

use super::*;

const NOW: Timestamp = Timestamp(1_000_000);

fn timing() -> Timing {
    Timing::default()
}

/// A record in each reachable shape, all at epoch 7 and version 20, a live lease at renewal 3.
fn shapes() -> Vec<(&'static str, QueueRecord)> {
    let shape = |state, leased: bool, marked: bool| {
        let mut r = QueueRecord::new(
            QueueName::new("D0000591").unwrap(),
            AccountId::new("591").unwrap(),
            Timestamp(1),
        );
        r.version = 20;
        r.epoch = 7;
        r.state = state;
        r.crashes = 1;
        r.lease = leased.then(|| Lease {
            consumer: "w1".into(),
            granted_at: Timestamp(2),
            expires_at: Timestamp(60_002),
            lease_ms: 60_000,
            renewal: 3,
            request: Some("r1".into()),
        });
        r.not_before = marked.then_some(UNTIL_UNPAUSED);
        r
    };
    use QueueState::{Deleting, Empty, Idle, Leased, Paused};
    vec![
        ("idle", shape(Idle, false, false)),
        ("empty", shape(Empty, false, false)),
        ("worker", shape(Leased, true, false)),
        ("pause", shape(Paused, false, false)),
        ("pause+lease", shape(Paused, true, false)),
        ("delete", shape(Deleting, false, false)),
        ("delete+lease", shape(Deleting, true, false)),
        ("delete+paused", shape(Deleting, false, true)),
        ("delete+paused+lease", shape(Deleting, true, true)),
    ]
}

fn events() -> Vec<(&'static str, QueueEvent)> {
    vec![
        ("lease", QueueEvent::Lease { consumer: "w2".into(), request: None }),
        ("renew", QueueEvent::Renew { epoch: 7 }),
        ("renew old", QueueEvent::Renew { epoch: 6 }),
        ("renew future", QueueEvent::Renew { epoch: 8 }),
        ("release", QueueEvent::Release { epoch: 7, empty: false }),
        ("release empty", QueueEvent::Release { epoch: 7, empty: true }),
        ("release old", QueueEvent::Release { epoch: 6, empty: false }),
        ("take back renewed", QueueEvent::TakeBack { epoch: 7 }),
        ("take back old", QueueEvent::TakeBack { epoch: 6 }),
        ("expire", QueueEvent::Expire { epoch: 7, renewal: 3 }),
        ("expire renewed", QueueEvent::Expire { epoch: 7, renewal: 2 }),
        ("expire old", QueueEvent::Expire { epoch: 6, renewal: 3 }),
        ("pause", QueueEvent::Pause { reason: None }),
        ("unpause", QueueEvent::Unpause),
        ("flag", QueueEvent::FlagDeleted { reason: None }),
        ("claim", QueueEvent::ClaimDeletion),
        ("give up", QueueEvent::GiveUpDeletion),
        ("undelete", QueueEvent::Undelete),
        ("counted 5", QueueEvent::Counted { messages: 5 }),
        ("counted 0", QueueEvent::Counted { messages: 0 }),
    ]
}

/// The shape of a result in one word: `state[+lease]`, `-` unchanged, `!` refused.
fn word(result: &Result<Transition, TransitionError>) -> String {
    match result {
        Err(TransitionError::StaleEpoch { .. }) => "!stale".into(),
        Err(TransitionError::NotLeasable(_)) => "!state".into(),
        Err(TransitionError::Superseded) => "!superseded".into(),
        Ok(Transition::Unchanged) => "-".into(),
        Ok(Transition::To(r)) => {
            let mut word = r.state.as_str().to_owned();
            if r.not_before == Some(UNTIL_UNPAUSED) {
                word += "+paused";
            }
            if r.lease.is_some() {
                word += "+lease";
            }
            word
        }
    }
}

#[test]
fn every_state_answers_every_event_by_the_table() {
    // Columns in the order of `shapes()`.
    let table: &[(&str, [&str; 9])] = &[
        (
            "lease",
            [
                "worker+lease",
                "worker+lease",
                "!state",
                "!state",
                "!state",
                "!state",
                "!state",
                "!state",
                "!state",
            ],
        ),
        (
            "renew",
            [
                "!stale",
                "!stale",
                "worker+lease",
                "!stale",
                "pause+lease",
                "!stale",
                "delete+lease",
                "!stale",
                "delete+paused+lease",
            ],
        ),
        ("renew old", ["!stale"; 9]),
        ("renew future", ["!stale"; 9]),
        (
            "release",
            ["!stale", "!stale", "idle", "!stale", "pause", "!stale", "delete", "!stale", "delete+paused"],
        ),
        (
            "release empty",
            ["!stale", "!stale", "empty", "!stale", "pause", "!stale", "delete", "!stale", "delete+paused"],
        ),
        ("release old", ["!stale"; 9]),
        ("take back renewed", ["!superseded"; 9]),
        ("take back old", ["!superseded"; 9]),
        (
            "expire",
            [
                "!superseded",
                "!superseded",
                "idle",
                "!superseded",
                "pause",
                "!superseded",
                "delete",
                "!superseded",
                "delete+paused",
            ],
        ),
        ("expire renewed", ["!superseded"; 9]),
        ("expire old", ["!superseded"; 9]),
        (
            "pause",
            ["pause", "pause", "pause+lease", "-", "-", "delete+paused", "delete+paused+lease", "-", "-"],
        ),
        ("unpause", ["-", "-", "-", "idle", "worker+lease", "-", "-", "delete", "delete+lease"]),
        (
            "flag",
            ["delete", "delete", "delete+lease", "delete+paused", "delete+paused+lease", "-", "-", "-", "-"],
        ),
        (
            "claim",
            ["-", "-", "-", "-", "-", "delete", "delete+lease", "delete+paused", "delete+paused+lease"],
        ),
        ("give up", ["-"; 9]),
        ("undelete", ["-", "-", "-", "-", "-", "idle", "worker+lease", "pause", "pause+lease"]),
        ("counted 5", ["-", "idle", "-", "-", "-", "-", "-", "-", "-"]),
        ("counted 0", ["empty", "-", "-", "-", "-", "-", "-", "-", "-"]),
    ];
    let events = events();
    assert_eq!(table.len(), events.len());
    for ((named, expected), (name, event)) in table.iter().zip(&events) {
        assert_eq!(named, name);
        for ((shape, record), expected) in shapes().iter().zip(expected) {
            let result = transition(record, event, NOW, &timing());
            assert_eq!(word(&result), *expected, "{name} on {shape}");
            if let Ok(Transition::To(after)) = result {
                assert_eq!(invariants::step(record, event, &after), Ok(()), "{name} on {shape}");
            }
        }
    }
}

fn to(record: &QueueRecord, event: QueueEvent) -> QueueRecord {
    match transition(record, &event, NOW, &timing()) {
        Ok(Transition::To(r)) => *r,
        other => panic!("{event:?} gave {other:?}"),
    }
}

fn shape(name: &str) -> QueueRecord {
    shapes().into_iter().find(|(n, _)| *n == name).expect(name).1
}

#[test]
fn a_lease_stamps_the_record_and_a_renewal_keeps_its_length() {
    let leased = to(&shape("idle"), QueueEvent::Lease { consumer: "w2".into(), request: None });
    let lease = leased.lease.clone().unwrap();
    assert_eq!((leased.epoch, leased.version, leased.since), (8, 21, NOW));
    assert_eq!(leased.last_delivered, Some(NOW));
    assert_eq!((lease.consumer.as_str(), lease.renewal, lease.lease_ms), ("w2", 0, 60_000));
    assert_eq!(lease.expires_at, Timestamp(1_060_000));

    let shorter = Timing::with_lease(std::time::Duration::from_secs(1));
    let Ok(Transition::To(renewed)) = transition(&leased, &QueueEvent::Renew { epoch: 8 }, NOW, &shorter)
    else {
        panic!("renewal refused")
    };
    assert_eq!(renewed.lease.unwrap().lease_ms, 60_000, "a renewal never shortens");
}

#[test]
fn crashes_grow_the_delay_and_a_release_forgets_them() {
    let first =
        to(&QueueRecord { crashes: 0, ..shape("worker") }, QueueEvent::Expire { epoch: 7, renewal: 3 });
    assert_eq!((first.crashes, first.not_before), (1, None));
    let second = to(&shape("worker"), QueueEvent::Expire { epoch: 7, renewal: 3 });
    assert_eq!((second.crashes, second.not_before), (2, Some(NOW.plus_millis(1_000))));
    let released = to(&shape("worker"), QueueEvent::Release { epoch: 7, empty: false });
    assert_eq!((released.crashes, released.not_before), (0, None));
}

#[test]
fn a_pause_survives_a_deletion_that_is_taken_back() {
    let paused = to(&shape("idle"), QueueEvent::Pause { reason: Some("meter swap".into()) });
    assert_eq!(paused.reason.as_deref(), Some("meter swap"));
    let flagged = to(&paused, QueueEvent::FlagDeleted { reason: Some("account gone".into()) });
    let back = to(&flagged, QueueEvent::Undelete);
    assert_eq!(back.state, QueueState::Paused);
    assert_eq!(to(&back, QueueEvent::Unpause).state, QueueState::Idle);
}

#[test]
fn pausing_again_with_another_reason_only_changes_the_reason() {
    let paused = to(&shape("pause"), QueueEvent::Pause { reason: Some("again".into()) });
    assert_eq!((paused.reason.as_deref(), paused.since), (Some("again"), Timestamp(1)));
}

#[test]
fn the_mark_of_a_remembered_pause_is_a_time_that_every_store_can_write() {
    assert_eq!(UNTIL_UNPAUSED.to_string(), "9999-01-01T00:00:00Z");
}

#[test]
fn a_lease_keeps_the_request_that_it_was_granted_to_until_it_ends() {
    let asked = QueueEvent::Lease { consumer: "w2".into(), request: Some("r9".into()) };
    let leased = to(&shape("idle"), asked);
    let request = |record: &QueueRecord| record.lease.as_ref().and_then(|lease| lease.request.clone());
    assert_eq!(request(&leased).as_deref(), Some("r9"));
    let renewed = to(&leased, QueueEvent::Renew { epoch: 8 });
    assert_eq!(request(&renewed).as_deref(), Some("r9"));
}

#[test]
fn a_lease_is_taken_back_only_while_nobody_renewed_it() {
    let take_back = QueueEvent::TakeBack { epoch: 8 };
    let leased = to(&shape("idle"), QueueEvent::Lease { consumer: "w2".into(), request: None });
    let taken_back = to(&leased, take_back.clone());
    assert_eq!((taken_back.state, taken_back.lease), (QueueState::Idle, None));
    assert_eq!(taken_back.crashes, 1, "nobody crashed, and nothing is forgotten");
    let paused = to(&leased, QueueEvent::Pause { reason: None });
    let taken_back = to(&paused, take_back.clone());
    assert_eq!((taken_back.state, taken_back.lease), (QueueState::Paused, None));
    let renewed = to(&leased, QueueEvent::Renew { epoch: 8 });
    let refused = transition(&renewed, &take_back, NOW, &timing());
    assert_eq!(refused, Err(TransitionError::Superseded), "somebody asked again and holds it");
}

#[test]
fn a_claimed_deletion_ends_by_being_given_up_or_taken_back_only() {
    let claimed = to(&shape("delete+paused"), QueueEvent::ClaimDeletion);
    assert!(claimed.deletion_claimed);
    let again = transition(&claimed, &QueueEvent::ClaimDeletion, NOW, &timing());
    assert_eq!(again, Ok(Transition::Unchanged), "of several maintainers one gets it");
    let told = to(&claimed, QueueEvent::FlagDeleted { reason: Some("account gone".into()) });
    let unpaused = to(&told, QueueEvent::Unpause);
    assert!(unpaused.deletion_claimed && unpaused.reason.as_deref() == Some("account gone"));
    let given_up = to(&unpaused, QueueEvent::GiveUpDeletion);
    assert_eq!((given_up.state, given_up.deletion_claimed), (QueueState::Deleting, false));
    assert_eq!(given_up.reason, unpaused.reason);
    assert!(!to(&claimed, QueueEvent::Undelete).deletion_claimed);
}
