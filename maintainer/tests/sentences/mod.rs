//! What the maintainer does, one sentence a function, on whatever store and broker the world has.

use std::sync::Arc;
use std::time::Duration;

use galerna_broker::{DeadLetterSelection, Depth, Failure, NewDeadLetter};
use galerna_lease::QueueEvent;
use galerna_maintainer::{Guard, Options, Run, Task, TaskError};
use galerna_model::{Clock, ManualClock, Message, SystemClock};
use galerna_storage::QueueState;

use crate::interrupted::{Interrupted, When};
use crate::world::{World, name, numbered};

macro_rules! sentences {
    ($($sentence:ident),* $(,)?) => {
        /// Makes each sentence a test; `$world` gives it a world of its own.
        #[macro_export]
        macro_rules! on {
            ($world:path) => {
                $(
                    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                    async fn $sentence() {
                        $crate::sentences::$sentence($world().await).await;
                    }
                )*
            };
        }
    };
}

sentences!(
    each_active_account_gets_a_queue_and_a_state,
    an_account_that_cannot_be_served_stops_no_other,
    a_queue_that_vanished_from_the_broker_is_made_again,
    a_queue_whose_account_is_gone_is_flagged_and_unflagged_when_it_is_back,
    a_pause_outlives_a_deletion_that_is_taken_back,
    a_list_that_is_not_believed_makes_queues_but_flags_none_until_it_is_confirmed,
    accounts_that_name_other_queues_move_and_what_the_old_ones_hold_is_kept_for_the_grace_time,
    a_list_in_which_all_accounts_name_other_queues_is_not_believed_until_it_is_confirmed,
    how_much_a_list_may_lose_is_an_option,
    counts_move_queues_between_idle_and_empty,
    a_message_that_somebody_holds_keeps_a_queue_from_being_empty,
    a_count_leaves_leased_paused_and_flagged_queues_alone,
    a_queue_that_the_broker_does_not_tell_of_keeps_its_state,
    an_empty_flagged_queue_is_deleted_when_it_has_lingered,
    a_flagged_queue_with_messages_is_deleted_after_its_grace_time,
    dead_letters_are_messages_too,
    a_flagged_queue_waits_for_the_end_of_its_lease,
    an_account_that_comes_back_keeps_its_messages,
    nothing_is_deleted_while_the_list_cannot_be_read_or_is_not_believed,
    a_deletion_that_was_cut_off_is_seen_through_by_another,
    an_account_that_comes_back_during_its_deletion_gets_its_queue_anew,
    a_lease_past_its_time_returns_and_a_renewed_one_stays,
    an_expired_lease_of_a_paused_or_flagged_queue_ends_without_waking_it,
    of_two_maintainers_at_once_each_change_is_made_by_one,
);

pub(crate) async fn each_active_account_gets_a_queue_and_a_state(world: World) {
    world.list.says("a:Qa b:Qb- c:Qc");
    let report = world.run_ok(Task::Accounts).await;
    assert_eq!((report.listed, report.created, report.declared), (3, 2, 2));
    assert_eq!(world.states().await, "Qa=idle Qc=idle");
    assert_eq!(world.record("Qa").await.unwrap().account.as_str(), "a");
    world.publish("Qa", 1).await;
    assert_eq!(world.depth("Qb").await, None, "a deactivated account gets no queue");

    let version = world.record("Qa").await.unwrap().version;
    let again = world.run_ok(Task::Accounts).await;
    assert_eq!((again.created, again.flagged, again.restored), (0, 0, 0), "a second run changes nothing");
    assert_eq!(world.record("Qa").await.unwrap().version, version);
}

pub(crate) async fn an_account_that_cannot_be_served_stops_no_other(world: World) {
    world.list.says("a:Qa x:amq.x b:Qsame c:Qsame !d:Qd e:Qe.dead f:Qf");
    let report = world.run_ok(Task::Accounts).await;
    assert_eq!(world.states().await, "Qa=idle Qf=idle");
    let mut named: Vec<_> = report.issues.iter().filter_map(|issue| issue.id.as_deref()).collect();
    named.sort_unstable();
    assert_eq!(named, ["b", "c", "d", "e", "x"]);
    assert_eq!(report.issues_total, 5);
}

pub(crate) async fn a_queue_that_vanished_from_the_broker_is_made_again(world: World) {
    world.with_accounts("a:Qa b:Qb").await;
    world.broker.delete(&name("Qa"), galerna_broker::DeleteWhen::Always).await.unwrap();
    world
        .until("the queue is there again", async || {
            // The broker's list of queues may lag.
            world.run_ok(Task::Accounts).await;
            world.depth("Qa").await.is_some()
        })
        .await;
    assert_eq!(world.states().await, "Qa=idle Qb=idle");
}

pub(crate) async fn a_queue_whose_account_is_gone_is_flagged_and_unflagged_when_it_is_back(world: World) {
    world.with_accounts("a:Qa b:Qb c:Qc").await;
    let epoch = world.lease("Qa").await.epoch;
    world.apply("Qa", QueueEvent::Release { epoch, empty: false }).await;

    world.list.says("a:Qa- c:Qc");
    assert_eq!(world.run_ok(Task::Accounts).await.flagged, 2);
    assert_eq!(world.states().await, "Qa=delete Qb=delete Qc=idle");
    assert_eq!(world.record("Qa").await.unwrap().reason.as_deref(), Some("account `a` is deactivated"));
    assert_eq!(world.record("Qb").await.unwrap().reason.as_deref(), Some("account `b` is no longer listed"));
    let since = world.record("Qa").await.unwrap().since;
    assert_eq!(world.run_ok(Task::Accounts).await.flagged, 0, "a queue is flagged once");
    assert_eq!(world.record("Qa").await.unwrap().since, since, "so its grace time is not begun anew");

    world.list.says("a:Qa b:Qb c:Qc");
    assert_eq!(world.run_ok(Task::Accounts).await.restored, 2);
    assert_eq!(world.states().await, "Qa=idle Qb=idle Qc=idle");
    let back = world.record("Qa").await.unwrap();
    assert_eq!((back.reason, back.epoch), (None, epoch), "the epoch never goes back");
}

pub(crate) async fn a_pause_outlives_a_deletion_that_is_taken_back(world: World) {
    world.with_accounts("a:Qa b:Qb").await;
    world.apply("Qa", QueueEvent::Pause { reason: Some("bad data".to_owned()) }).await;
    world.list.says("b:Qb");
    world.run_ok(Task::Accounts).await;
    assert_eq!(world.state("Qa").await, Some(QueueState::Deleting));
    world.list.says("a:Qa b:Qb");
    world.run_ok(Task::Accounts).await;
    assert_eq!(world.state("Qa").await, Some(QueueState::Paused));
}

pub(crate) async fn a_list_that_is_not_believed_makes_queues_but_flags_none_until_it_is_confirmed(
    world: World,
) {
    world.with_accounts(&numbered(0..20)).await;
    let before = world.states().await;

    for (what, list) in [
        ("an empty list", String::new()),
        ("half a list", numbered(0..10)),
        ("a list of deactivated accounts", numbered(0..20).replace(' ', "- ")),
    ] {
        world.list.says(&list);
        let failure = world.run(Task::Accounts).await.expect_err(what);
        assert!(matches!(failure.error, TaskError::Suspicious(_)), "{what}: {failure}");
        assert!(failure.to_string().contains("force"), "it says what to do: {failure}");
        assert_eq!(world.states().await, before, "{what}");
    }
    world.list.fails();
    let failure = world.run(Task::Accounts).await.expect_err("the API fails");
    assert!(matches!(failure.error, TaskError::Directory(_)), "{failure}");
    assert_eq!(world.states().await, before);

    world.list.says(&(numbered(0..10) + "new:Qnew"));
    let failure = world.run(Task::Accounts).await.expect_err("half a list with a new account");
    assert_eq!(failure.report.created, 1, "a new account does not wait for the old ones");
    assert_eq!(world.state("Qnew").await, Some(QueueState::Idle));

    assert_eq!(world.force(Task::Accounts).await.flagged, 10);
    assert_eq!(world.state("Q10").await, Some(QueueState::Deleting));
    assert_eq!(world.run_ok(Task::Accounts).await.flagged, 0, "once confirmed it is believed");
}

pub(crate) async fn accounts_that_name_other_queues_move_and_what_the_old_ones_hold_is_kept_for_the_grace_time(
    mut world: World,
) {
    world.with_accounts(&numbered(0..20)).await;
    world.publish("Q0", 1).await;
    world.list.says(&numbered(0..20).replace("a0:Q0 ", "a0:R0 ").replace("a1:Q1 ", "a1:R1 "));
    let report = world.run_ok(Task::Accounts).await;
    assert_eq!((report.created, report.flagged), (2, 2));
    assert_eq!(world.state("R0").await, Some(QueueState::Idle));
    let old = world.record("Q0").await.unwrap();
    assert_eq!(
        (old.state, old.reason.as_deref()),
        (QueueState::Deleting, Some("account `a0` now uses queue `R0`"))
    );
    let report = world.run_ok(Task::Deletions).await;
    assert_eq!((report.deleted, report.waiting), (1, 1), "`Q1` is empty, `Q0` is not");
    assert_eq!(world.depth("Q0").await.map(|depth| depth.ready), Some(1));

    // Named again within the grace time, the queue is the account's again, with all that it holds.
    world.list.says(&numbered(0..20));
    let report = world.run_ok(Task::Accounts).await;
    assert_eq!((report.restored, report.created, report.flagged), (1, 1, 2));
    assert_eq!(world.depth("Q0").await.map(|depth| depth.ready), Some(1));
    world.options.grace = Duration::ZERO;
    assert_eq!(world.run_ok(Task::Deletions).await.deleted, 2, "`R0` and `R1`");
}

pub(crate) async fn a_list_in_which_all_accounts_name_other_queues_is_not_believed_until_it_is_confirmed(
    world: World,
) {
    world.with_accounts(&numbered(0..20)).await;
    world.list.says(&numbered(0..20).replace(":Q", ":R"));
    for _ in 0..2 {
        let failure = world.run(Task::Accounts).await.expect_err("all queues would go");
        assert!(matches!(failure.error, TaskError::Suspicious(_)), "{failure}");
        assert_eq!(
            world.state("R7").await,
            Some(QueueState::Idle),
            "nobody waits for the queue it is to use"
        );
        assert_eq!(world.state("Q7").await, Some(QueueState::Idle), "and none is flagged");
    }
    assert_eq!(world.force(Task::Accounts).await.flagged, 20);
    assert_eq!(world.state("Q7").await, Some(QueueState::Deleting));
}

pub(crate) async fn how_much_a_list_may_lose_is_an_option(mut world: World) {
    world.with_accounts(&numbered(0..20)).await;
    world.list.says(&numbered(1..20));
    world.options.guard = Guard { may_lose: 0, keep_ratio: 1.0 };
    let failure = world.run(Task::Accounts).await.expect_err("nothing may be lost");
    assert!(matches!(failure.error, TaskError::Suspicious(_)), "{failure}");
    world.list.says(&numbered(10..20));
    world.options.guard = Guard { may_lose: 0, keep_ratio: 0.5 };
    assert_eq!(world.run_ok(Task::Accounts).await.flagged, 10, "half of it may be");
}

pub(crate) async fn counts_move_queues_between_idle_and_empty(world: World) {
    world.with_accounts("a:Qa b:Qb").await;
    world.publish("Qb", 3).await;
    world.counted_until("Qa", QueueState::Empty).await;
    world
        .until("three messages are counted", async || {
            world.run_ok(Task::ReconcileEmpty).await;
            world.record("Qb").await.unwrap().ready == 3
        })
        .await;
    assert_eq!(world.state("Qb").await, Some(QueueState::Idle));
    world.publish("Qa", 1).await;
    world.counted_until("Qa", QueueState::Idle).await;
    let record = world.record("Qa").await.unwrap();
    assert_eq!((record.ready, record.unacked), (1, 0));
    assert!(record.counted_at.is_some());

    // A count that stays the same is stamped anew after some minutes.
    let before = world.record("Qb").await.unwrap().counted_at.unwrap();
    let later = ManualClock::at(SystemClock.now().plus_millis(6 * 60_000));
    let maintainer = world.maintainer_at(Arc::new(later));
    maintainer
        .run_once(Task::ReconcileEmpty, Run::default())
        .await
        .unwrap_or_else(|failure| panic!("{failure}"));
    let record = world.record("Qb").await.unwrap();
    assert_eq!(record.ready, 3);
    assert!(record.counted_at.unwrap().millis_since(before) >= 5 * 60_000);
}

pub(crate) async fn a_message_that_somebody_holds_keeps_a_queue_from_being_empty(world: World) {
    world.with_accounts("a:Qa b:Qb").await;
    world.publish("Qa", 1).await;
    let mut consumer = world.broker.consume(&name("Qa"), 1).await.unwrap();
    assert_eq!(consumer.receive(1, Duration::from_secs(30)).await.unwrap().len(), 1);
    world
        .until("the message is counted as unacked", async || {
            world.run_ok(Task::ReconcileEmpty).await;
            let record = world.record("Qa").await.unwrap();
            (record.ready, record.unacked) == (0, 1)
        })
        .await;
    assert_ne!(world.state("Qa").await, Some(QueueState::Empty));
    consumer.close().await.unwrap();
}

pub(crate) async fn a_count_leaves_leased_paused_and_flagged_queues_alone(world: World) {
    world.with_accounts("a:Qa b:Qb c:Qc d:Qd").await;
    world.lease("Qa").await;
    world.apply("Qb", QueueEvent::Pause { reason: None }).await;
    world.apply("Qc", QueueEvent::FlagDeleted { reason: None }).await;
    let before = [world.record("Qa").await, world.record("Qb").await, world.record("Qc").await];
    world.counted_until("Qd", QueueState::Empty).await;
    for record in before.into_iter().flatten() {
        let now = world.record(record.queue.as_str()).await.unwrap();
        assert_eq!((now.version, now.state, &now.lease), (record.version, record.state, &record.lease));
    }
}

pub(crate) async fn a_queue_that_the_broker_does_not_tell_of_keeps_its_state(world: World) {
    world.with_accounts("a:Qa b:Qb").await;
    world.counted_until("Qb", QueueState::Empty).await;
    world.publish("Qa", 1).await;
    world.counted_until("Qa", QueueState::Idle).await;
    world.broker.delete(&name("Qa"), galerna_broker::DeleteWhen::Always).await.unwrap();
    world
        .until("the broker tells of one queue only", async || {
            world.run_ok(Task::ReconcileEmpty).await.uncounted == 1
        })
        .await;
    assert_eq!(world.states().await, "Qa=idle Qb=empty");
}

/// Flags `Qa` and leaves the accounts list without it.
async fn flagged(world: &World) {
    world.with_accounts("a:Qa b:Qb").await;
    world.list.says("b:Qb");
}

pub(crate) async fn an_empty_flagged_queue_is_deleted_when_it_has_lingered(mut world: World) {
    flagged(&world).await;
    world.run_ok(Task::Accounts).await;
    world.options.linger = Duration::from_secs(3_600);
    assert_eq!(world.run_ok(Task::Deletions).await.waiting, 1, "a message may yet come back to it");
    world.options.linger = Duration::ZERO;
    assert_eq!(world.run_ok(Task::Deletions).await.deleted, 1);
    assert_eq!(world.states().await, "Qb=idle");
    assert_eq!(world.depth("Qa").await, None);
    assert!(world.depth("Qb").await.is_some());
    assert_eq!(world.run_ok(Task::Deletions).await.deleted, 0, "a second run changes nothing");

    world.list.says("a:Qa b:Qb");
    world.run_ok(Task::Accounts).await;
    assert_eq!(world.states().await, "Qa=idle Qb=idle", "it may come back later");
}

pub(crate) async fn a_flagged_queue_with_messages_is_deleted_after_its_grace_time(mut world: World) {
    flagged(&world).await;
    world.publish("Qa", 2).await;
    world.run_ok(Task::Accounts).await;
    let report = world.run_ok(Task::Deletions).await;
    assert_eq!((report.deleted, report.waiting), (0, 1));
    assert_eq!(world.depth("Qa").await, Some(Depth { ready: 2, ..Depth::default() }));
    assert_eq!(
        world.record("Qa").await.unwrap().reason.as_deref(),
        Some("account `a` is no longer listed"),
        "no claim is left behind"
    );
    world.options.grace = Duration::ZERO;
    assert_eq!(world.run_ok(Task::Deletions).await.deleted, 1);
    assert_eq!((world.depth("Qa").await, world.record("Qa").await), (None, None));
}

pub(crate) async fn dead_letters_are_messages_too(world: World) {
    flagged(&world).await;
    let letter = NewDeadLetter {
        message: Message { body: "poison".into(), content_type: "text/plain".to_owned(), id: "m".to_owned() },
        failure: Failure { reason: "bad".to_owned(), component: "test".to_owned() },
        replays: 0,
    };
    world.broker.dead_letter(&name("Qa"), vec![letter]).await.unwrap();
    world.run_ok(Task::Accounts).await;
    world
        .until("the dead letter is counted", async || {
            world.broker.dead_letter_counts().await.unwrap().iter().any(|(_, letters)| *letters > 0)
        })
        .await;
    assert_eq!(world.run_ok(Task::Deletions).await.deleted, 0);
    assert_eq!(world.broker.dead_letters(&name("Qa"), 0, 10).await.unwrap().len(), 1);

    world.broker.discard(&name("Qa"), DeadLetterSelection::All).await.unwrap();
    world.until("it is deleted", async || world.run_ok(Task::Deletions).await.deleted == 1).await;
}

pub(crate) async fn a_flagged_queue_waits_for_the_end_of_its_lease(mut world: World) {
    flagged(&world).await;
    let epoch = world.lease("Qa").await.epoch;
    world.run_ok(Task::Accounts).await;
    world.options.grace = Duration::ZERO;
    assert_eq!(world.run_ok(Task::Deletions).await.deleted, 0);
    assert!(world.record("Qa").await.unwrap().lease.is_some());
    world.apply("Qa", QueueEvent::Release { epoch, empty: true }).await;
    assert_eq!(world.run_ok(Task::Deletions).await.deleted, 1);
}

pub(crate) async fn an_account_that_comes_back_keeps_its_messages(mut world: World) {
    flagged(&world).await;
    world.publish("Qa", 5).await;
    world.run_ok(Task::Accounts).await;
    world.options.grace = Duration::ZERO;
    // It is back, but no accounts run has noticed: the deletions task looks for itself.
    world.list.says("a:Qa b:Qb");
    let report = world.run_ok(Task::Deletions).await;
    assert_eq!((report.deleted, report.waiting), (0, 1));
    world.run_ok(Task::Accounts).await;
    assert_eq!(world.state("Qa").await, Some(QueueState::Idle));
    assert_eq!(world.depth("Qa").await, Some(Depth { ready: 5, ..Depth::default() }));
}

pub(crate) async fn nothing_is_deleted_while_the_list_cannot_be_read_or_is_not_believed(mut world: World) {
    world.with_accounts(&numbered(0..20)).await;
    world.list.says(&numbered(1..20));
    assert_eq!(world.run_ok(Task::Accounts).await.flagged, 1);
    world.options.grace = Duration::ZERO;

    world.list.fails();
    let failure = world.run(Task::Deletions).await.expect_err("the API fails");
    assert!(matches!(failure.error, TaskError::Directory(_)), "{failure}");
    for list in [String::new(), numbered(1..10)] {
        world.list.says(&list);
        let failure = world.run(Task::Deletions).await.expect_err("the list lost too much");
        assert!(matches!(failure.error, TaskError::Suspicious(_)), "{failure}");
    }
    assert_eq!(world.state("Q0").await, Some(QueueState::Deleting));
    assert!(world.depth("Q0").await.is_some());

    world.list.says(&numbered(1..20));
    assert_eq!(world.run_ok(Task::Deletions).await.deleted, 1);
}

/// A world in which a claim may be taken over soon.
fn hasty(world: &mut World) {
    world.options.deletions.timeout = Duration::from_millis(200);
}

pub(crate) async fn a_deletion_that_was_cut_off_is_seen_through_by_another(mut world: World) {
    for (when, queue_left) in [(When::Before, true), (When::After, false)] {
        world.options = Options { grace: Duration::ZERO, ..crate::world::quick() };
        hasty(&mut world);
        flagged(&world).await;
        world.publish("Qa", 1).await;
        world.run_ok(Task::Accounts).await;

        let broker = Arc::clone(&world.broker);
        world.broker = Arc::new(Interrupted::deletions(Arc::clone(&broker), when));
        let cut_off = world.maintainer().run_once(Task::Deletions, Run::default()).await;
        assert!(matches!(cut_off.unwrap_err().error, TaskError::TimedOut(_)));
        world.broker = broker;
        assert_eq!(world.depth("Qa").await.is_some(), queue_left, "{when:?}");
        assert_eq!(world.state("Qa").await, Some(QueueState::Deleting));

        world.options.deletions.timeout = Duration::from_secs(1);
        let other = world.maintainer();
        let first = other.run_once(Task::Deletions, Run::default()).await.unwrap();
        assert_eq!((first.deleted, first.waiting), (0, 1), "the claim is respected at first");
        world
            .until("the deletion is seen through", async || {
                other.run_once(Task::Deletions, Run::default()).await.unwrap().deleted == 1
            })
            .await;
        assert_eq!((world.depth("Qa").await, world.record("Qa").await), (None, None), "{when:?}");
    }
}

pub(crate) async fn an_account_that_comes_back_during_its_deletion_gets_its_queue_anew(mut world: World) {
    for when in [When::Before, When::After] {
        world.options = Options { grace: Duration::ZERO, ..crate::world::quick() };
        hasty(&mut world);
        flagged(&world).await;
        world.run_ok(Task::Accounts).await;
        let broker = Arc::clone(&world.broker);
        world.broker = Arc::new(Interrupted::deletions(Arc::clone(&broker), when));
        assert!(world.run(Task::Deletions).await.is_err());
        world.broker = broker;
        world.options.deletions.timeout = Duration::from_secs(1);

        world.list.says("a:Qa b:Qb");
        let report = world.run_ok(Task::Accounts).await;
        assert_eq!((report.restored, report.declared), (0, 0), "it waits for the end of the deletion");
        let other = world.maintainer();
        world
            .until("the account has its queue", async || {
                other.run_once(Task::Deletions, Run::default()).await.unwrap();
                other.run_once(Task::Accounts, Run::default()).await.unwrap();
                world.state("Qa").await == Some(QueueState::Idle) && world.depth("Qa").await.is_some()
            })
            .await;
        world.publish("Qa", 1).await;
        other.run_once(Task::Deletions, Run::default()).await.unwrap();
        assert_eq!(world.depth("Qa").await, Some(Depth { ready: 1, ..Depth::default() }), "{when:?}");

        // Clears the table for the next turn.
        world.list.says("b:Qb");
        world.run_ok(Task::Accounts).await;
        world
            .until("it is gone", async || {
                world.run_ok(Task::Deletions).await;
                world.record("Qa").await.is_none()
            })
            .await;
    }
}

pub(crate) async fn a_lease_past_its_time_returns_and_a_renewed_one_stays(world: World) {
    world.with_accounts("a:Qa b:Qb c:Qc").await;
    world.lease("Qa").await;
    let epoch = world.lease("Qb").await.epoch;
    let maintainer = world.maintainer();
    let first = maintainer.run_once(Task::Timeouts, Run::default()).await.unwrap();
    assert_eq!((first.watched, first.expired), (2, 0), "a lease seen for the first time is young");
    world
        .until("the lease returned", async || {
            world.apply("Qb", QueueEvent::Renew { epoch }).await;
            maintainer.run_once(Task::Timeouts, Run::default()).await.unwrap().expired > 0
        })
        .await;
    assert_eq!(world.states().await, "Qa=idle Qb=worker Qc=idle");
    let returned = world.record("Qa").await.unwrap();
    assert_eq!((returned.epoch, returned.crashes, returned.lease), (1, 1, None));

    // A process that runs once watches the leases for a while.
    let run = Run { watch: Some(Duration::from_secs(30)), ..Run::default() };
    let report = world.maintainer().run_once(Task::Timeouts, run).await.unwrap();
    assert_eq!((report.expired, report.watched), (1, 0));
    assert_eq!(world.state("Qb").await, Some(QueueState::Idle));
}

pub(crate) async fn an_expired_lease_of_a_paused_or_flagged_queue_ends_without_waking_it(world: World) {
    world.with_accounts("a:Qa b:Qb c:Qc").await;
    world.lease("Qa").await;
    world.lease("Qb").await;
    world.apply("Qa", QueueEvent::Pause { reason: None }).await;
    world.apply("Qb", QueueEvent::FlagDeleted { reason: None }).await;
    let run = Run { watch: Some(Duration::from_secs(30)), ..Run::default() };
    assert_eq!(world.maintainer().run_once(Task::Timeouts, run).await.unwrap().expired, 2);
    assert_eq!(world.states().await, "Qa=pause Qb=delete Qc=idle");
    assert!(world.record("Qa").await.unwrap().lease.is_none());
}

pub(crate) async fn of_two_maintainers_at_once_each_change_is_made_by_one(world: World) {
    const ACCOUNTS: usize = 30;
    let (one, two) = (world.maintainer(), world.maintainer());
    let both = async |task: Task| {
        let (a, b) = tokio::join!(one.run_once(task, Run::default()), two.run_once(task, Run::default()));
        (a.unwrap(), b.unwrap())
    };
    world.list.says(&numbered(0..ACCOUNTS));
    let (a, b) = both(Task::Accounts).await;
    assert_eq!(a.created + b.created, ACCOUNTS as u64);
    world.list.says(&numbered(5..ACCOUNTS));
    let (a, b) = both(Task::Accounts).await;
    assert_eq!(a.flagged + b.flagged, 5);
    let (a, b) = both(Task::Deletions).await;
    assert_eq!(a.deleted + b.deleted, 5);
    let left = world.queues.all().await.unwrap();
    assert_eq!(left.len(), ACCOUNTS - 5);
    assert!(left.iter().all(|record| record.state == QueueState::Idle));
}
