//! The lease protocol on the real stores.

mod stage;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use galerna_dispatcher::{
    Dispatcher, DispatcherOptions, LeaseError, Leases, MaintainerLink, NextRequest, Ping, PingError, Release,
    StatusQuery, StrategyName, Timing,
};
use galerna_model::{Clock, ManualClock, SystemClock};
use galerna_storage::{QueueState, Settings};
use stage::{Stage, lease, options, queue, short_leases, until};
use tokio::sync::Semaphore;

fn asking(consumer: &str) -> NextRequest {
    NextRequest { consumer: consumer.to_owned(), count: 1, ..NextRequest::default() }
}

fn release(name: &str, epoch: u64, empty: bool) -> Release {
    Release { queue: queue(name), epoch, empty }
}

fn is_stale(answer: Result<(), LeaseError>) -> bool {
    matches!(answer, Err(LeaseError::StaleEpoch { .. }))
}

#[tokio::test]
async fn a_queue_is_leased_to_one_consumer_renewed_and_given_back() {
    for stage in Stage::all().await {
        stage.queues(&[("D1", 5)]).await;
        let d = stage.dispatcher().await;
        let got = lease(&d, "w1").await.expect("a lease");
        assert_eq!((got.queue, got.epoch, got.expires_in_ms), (queue("D1"), 1, 60_000), "{}", stage.kind);
        assert_eq!(got.strategy, "lru");
        assert!(lease(&d, "w2").await.is_none(), "one lease at a time: {}", stage.kind);

        let stored = stage.record("D1").await;
        assert_eq!((stored.state, stored.epoch), (QueueState::Leased, 1), "durable before the answer");
        let renewed = d.renew(&queue("D1"), 1).await.expect("renewed");
        assert_eq!((renewed.expires_in_ms, renewed.revoked), (60_000, false));
        d.release(&release("D1", 1, false)).await.expect("released");
        assert_eq!(stage.record("D1").await.state, QueueState::Idle);
        assert_eq!(lease(&d, "w2").await.expect("leased again").epoch, 2, "the epoch grows");
    }
}

#[tokio::test]
async fn an_old_epoch_is_refused_and_changes_nothing() {
    for stage in Stage::all().await {
        stage.queues(&[("D1", 5)]).await;
        let d = stage.dispatcher().await;
        lease(&d, "w1").await.expect("a lease");
        d.release(&release("D1", 1, false)).await.expect("released");
        lease(&d, "w2").await.expect("a second lease");
        let before = stage.record("D1").await;
        for epoch in [0, 1, 3, u64::MAX] {
            assert!(is_stale(d.renew(&queue("D1"), epoch).await.map(drop)), "{epoch}");
            assert!(is_stale(d.release(&release("D1", epoch, true)).await), "{epoch}");
        }
        assert_eq!(stage.record("D1").await, before, "{}", stage.kind);
        let unknown = d.renew(&queue("D9"), 1).await;
        assert!(matches!(unknown, Err(LeaseError::UnknownQueue(_))));
    }
}

#[tokio::test]
async fn a_release_and_the_next_lease_of_the_same_queue_are_one_call() {
    let stage = Stage::embedded().await;
    stage.queues(&[("D1", 5)]).await;
    let d = stage.dispatcher().await;
    lease(&d, "w1").await.expect("a lease");
    let request = NextRequest { release: vec![release("D1", 1, false)], ..asking("w1") };
    let again = d.next(request).await.expect("next");
    assert_eq!((again[0].queue.as_str(), again[0].epoch), ("D1", 2));
    let stale = NextRequest { release: vec![release("D1", 1, true)], ..asking("w1") };
    assert_eq!(d.next(stale).await.expect("a stale release is ignored"), []);
    assert_eq!(stage.record("D1").await.epoch, 2);
}

#[tokio::test]
async fn count_asks_for_several_leases_and_gets_what_there_is() {
    let stage = Stage::embedded().await;
    stage.queues(&[("D1", 1), ("D2", 1), ("D3", 1), ("D4", 0)]).await;
    let d = stage.dispatcher().await;
    let got = d.next(NextRequest { count: 10, ..asking("w1") }).await.expect("next");
    let mut names: Vec<&str> = got.iter().map(|l| l.queue.as_str()).collect();
    names.sort_unstable();
    assert_eq!(names, ["D1", "D2", "D3"], "lru gives those with messages");
}

#[tokio::test]
async fn epochs_grow_across_restarts_of_the_dispatcher() {
    for stage in Stage::all().await {
        stage.queues(&[("D1", 5)]).await;
        for epoch in 1..=3 {
            let d = stage.dispatcher().await;
            assert_eq!(lease(&d, "w1").await.expect("a lease").epoch, epoch, "{}", stage.kind);
            d.release(&release("D1", epoch, false)).await.expect("released");
            d.shutdown().await;
        }
    }
}

#[tokio::test]
async fn a_pause_is_sticky_beats_release_and_survives_a_restart() {
    for stage in Stage::all().await {
        stage.queues(&[("D1", 5)]).await;
        let d = stage.dispatcher().await;
        lease(&d, "w1").await.expect("a lease");
        let view = d.pause(&queue("D1"), Some("meter swap".into()), "ana").await.expect("paused");
        assert_eq!((view.state.as_str(), view.holder.as_deref()), ("pause", Some("w1")));
        d.pause(&queue("D1"), None, "ana").await.expect("idempotent");
        assert!(d.renew(&queue("D1"), 1).await.expect("the holder is told").revoked);
        d.release(&release("D1", 1, false)).await.expect("released");
        assert_eq!(stage.record("D1").await.state, QueueState::Paused, "{}", stage.kind);
        drop(d);

        let d = stage.dispatcher().await;
        assert!(lease(&d, "w2").await.is_none(), "{}", stage.kind);
        assert_eq!(d.queue(&queue("D1")).await.expect("known").reason.as_deref(), Some("meter swap"));
        d.unpause(&queue("D1"), "ana").await.expect("unpaused");
        d.unpause(&queue("D1"), "ana").await.expect("idempotent");
        assert_eq!(lease(&d, "w2").await.expect("a lease").epoch, 2);
    }
}

#[tokio::test]
async fn unpausing_a_queue_that_is_still_held_gives_no_second_lease() {
    let stage = Stage::embedded().await;
    stage.queues(&[("D1", 5)]).await;
    let d = stage.dispatcher().await;
    lease(&d, "w1").await.expect("a lease");
    d.pause(&queue("D1"), None, "ana").await.expect("paused");
    d.unpause(&queue("D1"), "ana").await.expect("unpaused");
    assert!(lease(&d, "w2").await.is_none());
    assert!(!d.renew(&queue("D1"), 1).await.expect("still held").revoked);
}

#[tokio::test]
async fn a_queue_flagged_for_deletion_is_not_leased_and_its_holder_is_told() {
    let stage = Stage::embedded().await;
    stage.queues(&[("D1", 5), ("D2", 5)]).await;
    let d = stage.dispatcher().await;
    assert_eq!(lease(&d, "w1").await.expect("a lease").queue, queue("D1"));
    for name in ["D1", "D2"] {
        d.flag_deleted(&queue(name), Some("account gone".into()), "maintainer").await.expect("flagged");
    }
    assert!(lease(&d, "w2").await.is_none());
    assert!(d.renew(&queue("D1"), 1).await.expect("renewed").revoked);
    d.undelete(&queue("D2"), "maintainer").await.expect("taken back");
    assert_eq!(lease(&d, "w2").await.expect("a lease").queue, queue("D2"));
}

#[tokio::test]
async fn a_dead_holders_queue_is_leased_again_and_its_late_calls_are_refused() {
    for stage in Stage::all().await {
        stage.queues(&[("D1", 5)]).await;
        let d = stage.dispatcher_with(short_leases(300)).await;
        lease(&d, "w1").await.expect("a lease");
        let waiting = NextRequest { wait: Duration::from_secs(10), ..asking("w2") };
        let got = d.next(waiting).await.expect("next");
        assert_eq!(got[0].epoch, 2, "a dead holder's queue is leased again: {}", stage.kind);
        assert!(is_stale(d.release(&release("D1", 1, true)).await), "{}", stage.kind);
        assert_eq!(stage.record("D1").await.crashes, 1);
    }
}

#[tokio::test]
async fn another_dispatcher_expires_the_lease_of_one_that_died() {
    for stage in Stage::all().await {
        stage.queues(&[("D1", 5)]).await;
        let first = stage.dispatcher_with(short_leases(300)).await;
        let second = stage.dispatcher_with(short_leases(300)).await;
        lease(&first, "w1").await.expect("a lease");
        drop(first);
        let waiting = NextRequest { wait: Duration::from_secs(10), ..asking("w2") };
        assert_eq!(second.next(waiting).await.expect("next")[0].epoch, 2, "{}", stage.kind);
    }
}

#[tokio::test]
async fn jumping_wall_clocks_neither_expire_nor_prolong_a_lease() {
    let stage = Stage::embedded().await;
    stage.queues(&[("D1", 5)]).await;
    let clock = Arc::new(ManualClock::at(SystemClock.now()));
    let d = stage
        .dispatcher_with(DispatcherOptions { clock: Arc::clone(&clock) as Arc<dyn Clock>, ..options() })
        .await;
    let hasty = stage
        .dispatcher_with(DispatcherOptions {
            clock: Arc::new(ManualClock::at(SystemClock.now().plus_millis(86_400_000))),
            ..options()
        })
        .await;
    lease(&d, "w1").await.expect("a lease");
    clock.advance(7 * 86_400_000);
    until("the other dispatcher has seen the lease", || async {
        hasty.queue(&queue("D1")).await.is_ok_and(|v| v.holder.is_some())
    })
    .await;
    for dispatcher in [&d, &hasty] {
        assert!(lease(dispatcher, "w2").await.is_none());
    }
    assert!(d.renew(&queue("D1"), 1).await.is_ok(), "the holder keeps it");
}

#[tokio::test]
async fn a_queue_whose_holders_keep_crashing_waits_longer_each_time() {
    let stage = Stage::embedded().await;
    stage.queues(&[("D1", 5)]).await;
    let d = stage.dispatcher_with(short_leases(120)).await;
    for crashes in 1..=2 {
        let waiting = NextRequest { wait: Duration::from_secs(10), ..asking("w1") };
        assert_eq!(d.next(waiting).await.expect("next").len(), 1);
        until("the lease has expired", || async { stage.record("D1").await.crashes == crashes }).await;
    }
    let record = stage.record("D1").await;
    let delay = record.not_before.expect("a delay after crashes").millis_since(record.since);
    assert_eq!(delay, 1_000);
    assert!(lease(&d, "w1").await.is_none());
    let view = d.queue(&queue("D1")).await.expect("known");
    assert_eq!(view.re_leases, 2);
}

#[tokio::test]
async fn stop_keeps_releases_and_renewals_working_and_survives_a_restart() {
    for stage in Stage::all().await {
        stage.queues(&[("D1", 5), ("D2", 5)]).await;
        let d = stage.dispatcher().await;
        let other = stage.dispatcher().await;
        let held = lease(&d, "w1").await.expect("a lease");
        d.stop().await.expect("stopped");
        assert!(matches!(d.next(asking("w2")).await, Err(LeaseError::Stopped)));
        until("the other dispatcher has stopped", || async { !other.view().running }).await;
        assert!(matches!(other.next(asking("w2")).await, Err(LeaseError::Stopped)), "{}", stage.kind);
        d.renew(&held.queue, held.epoch).await.expect("renewed");
        d.release(&release(held.queue.as_str(), held.epoch, false)).await.expect("released");
        drop((d, other));

        let d = stage.dispatcher().await;
        assert!(matches!(d.next(asking("w2")).await, Err(LeaseError::Stopped)), "{}", stage.kind);
        d.start().await.expect("started");
        assert!(lease(&d, "w2").await.is_some());
    }
}

/// Settings that are read slowly: a read has its value, and gives it when it is let.
struct SlowReads {
    inner: Arc<dyn Settings>,
    slow: AtomicBool,
    reads: AtomicUsize,
    let_go: Semaphore,
}

#[async_trait]
impl Settings for SlowReads {
    async fn get(&self, key: &str) -> galerna_storage::Result<Option<serde_json::Value>> {
        let value = self.inner.get(key).await;
        if self.slow.load(Ordering::SeqCst) {
            self.reads.fetch_add(1, Ordering::SeqCst);
            self.let_go.acquire().await.expect("never closed").forget();
        }
        value
    }

    async fn put(&self, key: &str, value: &serde_json::Value) -> galerna_storage::Result<()> {
        self.inner.put(key, value).await
    }
}

#[tokio::test]
async fn what_was_read_before_a_setting_was_changed_does_not_undo_it() {
    let mut stage = Stage::embedded().await;
    let inner = Arc::clone(&stage.store.settings);
    let settings = Arc::new(SlowReads {
        inner,
        slow: AtomicBool::new(false),
        reads: AtomicUsize::new(0),
        let_go: Semaphore::new(0),
    });
    stage.store.settings = settings.clone();
    let d = stage.dispatcher().await;
    d.start().await.expect("started");
    d.set_strategy(StrategyName::Lru).await.expect("set");
    settings.slow.store(true, Ordering::SeqCst);
    // The first setting of a look is waited for, and from then on each read has its value from before the change.
    until("a look has begun", || async { settings.reads.load(Ordering::SeqCst) == 1 }).await;
    d.stop().await.expect("stopped");
    settings.let_go.add_permits(1);
    until("the second is read", || async { settings.reads.load(Ordering::SeqCst) == 2 }).await;
    d.set_strategy(StrategyName::Fair).await.expect("set");
    settings.let_go.add_permits(1);
    until("the next look has begun", || async { settings.reads.load(Ordering::SeqCst) == 3 }).await;
    let view = d.view();
    assert_eq!((view.running, view.configured), (false, StrategyName::Fair));
    settings.let_go.add_permits(1_000);
}

#[tokio::test]
async fn those_who_wait_are_sent_home_when_the_dispatcher_stops() {
    let stage = Stage::embedded().await;
    let d = stage.dispatcher().await;
    let waiting = tokio::spawn({
        let d = d.clone();
        async move { d.next(NextRequest { wait: Duration::from_secs(60), ..asking("w1") }).await }
    });
    until("the call waits", || async { d.metrics_text().contains("waiting_callers 1") }).await;
    d.stop().await.expect("stopped");
    assert!(matches!(waiting.await.expect("joined"), Err(LeaseError::Stopped)));
}

#[tokio::test]
async fn a_waiting_consumer_wakes_at_a_hint_a_count_or_a_release() {
    for stage in Stage::all().await {
        stage.queues(&[("D1", 0)]).await;
        let d = stage.dispatcher().await;
        let wait = |consumer: &'static str| {
            let d = d.clone();
            tokio::spawn(async move {
                d.next(NextRequest { wait: Duration::from_secs(60), ..asking(consumer) }).await
            })
        };
        let waits = || async { d.metrics_text().contains("waiting_callers 1") };

        until("an empty queue is filed as empty", || async {
            stage.record("D1").await.state == QueueState::Empty
        })
        .await;
        let hinted = wait("hinted");
        until("it waits", waits).await;
        assert_eq!(d.hint(&[queue("D1"), queue("D9")]), 1);
        assert_eq!(hinted.await.expect("joined").expect("next")[0].epoch, 1, "{}", stage.kind);

        let released = wait("released");
        until("it waits", waits).await;
        d.release(&release("D1", 1, false)).await.expect("released");
        assert_eq!(released.await.expect("joined").expect("next")[0].epoch, 2, "{}", stage.kind);

        d.release(&release("D1", 2, true)).await.expect("released");
        let counted = wait("counted");
        until("it waits", waits).await;
        stage.count("D1", 7, SystemClock.now().plus_millis(1_000)).await;
        assert_eq!(counted.await.expect("joined").expect("next")[0].epoch, 3, "{}", stage.kind);
    }
}

#[tokio::test]
async fn an_empty_queue_becomes_idle_with_its_messages_and_empty_again_without() {
    for stage in Stage::all().await {
        stage.queues(&[("D1", 3)]).await;
        let d = stage.dispatcher().await;
        lease(&d, "w1").await.expect("a lease");
        d.release(&release("D1", 1, true)).await.expect("released");
        assert_eq!(stage.record("D1").await.state, QueueState::Empty);
        assert!(lease(&d, "w1").await.is_none(), "the old count is void: {}", stage.kind);
        until("the void count is written", || async { stage.record("D1").await.ready == 0 }).await;

        let now = SystemClock.now().plus_millis(1_000);
        stage.count("D1", 3, now).await;
        until("it is idle", || async { stage.record("D1").await.state == QueueState::Idle }).await;
        stage.count("D1", 0, now.plus_millis(1)).await;
        drop(d);
        // A dispatcher that has only the counts to go by files it again.
        let d = stage.dispatcher().await;
        if let Some(l) = lease(&d, "w1").await {
            d.release(&release("D1", l.epoch, true)).await.expect("released");
        }
        until("it is empty", || async { stage.record("D1").await.state == QueueState::Empty }).await;
    }
}

#[tokio::test]
async fn fifo_gives_the_longest_undelivered_queue_whether_or_not_it_has_messages() {
    let stage = Stage::embedded().await;
    stage.queues(&[("D1", 0), ("D2", 9), ("D3", 0)]).await;
    let d = stage.dispatcher_with(DispatcherOptions { strategy: StrategyName::Fifo, ..options() }).await;
    let mut order = Vec::new();
    for _ in 0..6 {
        let got = lease(&d, "w1").await.expect("a lease");
        d.release(&Release { queue: got.queue.clone(), epoch: got.epoch, empty: true })
            .await
            .expect("released");
        order.push(got.queue.to_string());
    }
    let (first, second) = order.split_at(3);
    assert_eq!(first, second, "in turn");
    let mut names = first.to_vec();
    names.sort_unstable();
    assert_eq!(names, ["D1", "D2", "D3"]);
}

#[tokio::test]
async fn a_change_of_strategy_touches_no_lease_and_reaches_every_dispatcher() {
    for stage in Stage::all().await {
        stage.queues(&[("D1", 5), ("D2", 5)]).await;
        let d = stage.dispatcher().await;
        let other = stage.dispatcher().await;
        let held = lease(&d, "w1").await.expect("a lease");
        let before = stage.record(held.queue.as_str()).await;
        d.set_strategy(StrategyName::Fair).await.expect("set");
        assert_eq!(stage.record(held.queue.as_str()).await, before, "no lease is touched: {}", stage.kind);
        assert_eq!(lease(&d, "w2").await.expect("a lease").strategy, "fair");
        until("the other has it too", || async { other.view().strategy == StrategyName::Fair }).await;
        drop((d, other));
        assert_eq!(stage.dispatcher().await.view().configured, StrategyName::Fair, "{}", stage.kind);
    }
}

struct Switch(AtomicBool);

#[async_trait]
impl Ping for Switch {
    async fn ping(&self) -> Result<(), PingError> {
        if self.0.load(Ordering::SeqCst) {
            Ok(())
        } else {
            Err(PingError::NotWorking("switched off".to_owned()))
        }
    }
}

#[tokio::test]
async fn without_its_maintainer_the_dispatcher_falls_back_to_fifo_and_returns() {
    let stage = Stage::embedded().await;
    stage.queues(&[("D1", 5)]).await;
    let maintainer = Arc::new(Switch(AtomicBool::new(true)));
    let mut opts = options();
    opts.timing.ping_every = Duration::from_millis(20);
    opts.maintainer = MaintainerLink::Local(Arc::clone(&maintainer) as Arc<dyn Ping>);
    opts.strategy = StrategyName::Fair;
    let d = stage.dispatcher_with(opts).await;
    let shows = |strategy, state: &'static str| {
        let d = d.clone();
        move || {
            let view = d.view();
            async move { view.strategy == strategy && view.maintainer == state }
        }
    };
    until("fair is in force", shows(StrategyName::Fair, "answers")).await;
    maintainer.0.store(false, Ordering::SeqCst);
    until("fifo is in force", shows(StrategyName::Fifo, "silent")).await;
    assert_eq!(d.view().configured, StrategyName::Fair);
    assert_eq!(lease(&d, "w1").await.expect("a lease").strategy, "fifo");
    maintainer.0.store(true, Ordering::SeqCst);
    until("fair is back", shows(StrategyName::Fair, "answers")).await;

    let alone = stage
        .dispatcher_with(DispatcherOptions { maintainer: MaintainerLink::None, ..options() })
        .await
        .view();
    assert_eq!((alone.strategy, alone.configured), (StrategyName::Fifo, StrategyName::Lru));
}

#[tokio::test]
async fn two_dispatchers_and_many_consumers_never_share_a_queue() {
    for stage in Stage::all().await {
        let names: Vec<String> = (0..40).map(|n| format!("D{n}")).collect();
        let queues: Vec<(&str, u64)> = names.iter().map(|n| (n.as_str(), 9)).collect();
        stage.queues(&queues).await;
        let dispatchers = [stage.dispatcher().await, stage.dispatcher().await];
        let mut consumers = tokio::task::JoinSet::new();
        for n in 0..60 {
            let d = dispatchers[n % 2].clone();
            consumers.spawn(async move { lease(&d, &format!("w{n}")).await });
        }
        let mut got: Vec<String> =
            consumers.join_all().await.into_iter().flatten().map(|l| l.queue.to_string()).collect();
        got.sort_unstable();
        let given = got.len();
        got.dedup();
        assert_eq!(got.len(), given, "one lease at a time: {}", stage.kind);
        assert_eq!(given, 40, "all of them were given: {}", stage.kind);
    }
}

#[tokio::test]
async fn an_operator_is_answered_by_the_store_and_not_by_what_a_dispatcher_last_saw() {
    for stage in Stage::all().await {
        stage.queues(&[("D1", 1)]).await;
        let slow = || {
            let timing = Timing { refresh: Duration::from_millis(800), ..Timing::default() };
            DispatcherOptions { timing, ..options() }
        };
        let (d1, d2) = (stage.dispatcher_with(slow()).await, stage.dispatcher_with(slow()).await);
        for _ in 0..3 {
            d1.pause(&queue("D1"), None, "ann").await.expect("pause");
            assert_eq!(stage.record("D1").await.state, QueueState::Paused, "{}", stage.kind);
            d2.unpause(&queue("D1"), "bob").await.expect("unpause");
            assert_ne!(stage.record("D1").await.state, QueueState::Paused, "{}", stage.kind);
        }
    }
}

#[tokio::test]
async fn a_lease_whose_caller_hung_up_is_given_back() {
    let stage = Stage::embedded().await;
    stage.queues(&[("D1", 0)]).await;
    let d = stage.dispatcher().await;
    until("it is filed as empty", || async { stage.record("D1").await.state == QueueState::Empty }).await;
    let call = tokio::spawn({
        let d = d.clone();
        async move { d.next(NextRequest { wait: Duration::from_secs(60), ..asking("gone") }).await }
    });
    until("it waits", || async { d.metrics_text().contains("waiting_callers 1") }).await;
    call.abort();
    drop(call.await);
    d.hint(&[queue("D1")]);
    let got = d.next(NextRequest { wait: Duration::from_secs(10), ..asking("w2") }).await.expect("next");
    assert_eq!(got[0].queue, queue("D1"));
}

#[tokio::test]
async fn a_queue_created_or_removed_behind_the_dispatchers_back_is_noticed() {
    for stage in Stage::all().await {
        let d = stage.dispatcher().await;
        stage.queues(&[("D7", 1)]).await;
        d.pause(&queue("D7"), None, "ana").await.expect("known at once");
        let record = stage.record("D7").await;
        assert!(stage.store.queues.remove(&queue("D7"), record.version).await.expect("removed"));
        until("it is gone", || async {
            // Not every store tells of removals before all of it is looked at.
            d.refresh().await.expect("the store answers");
            d.status(&StatusQuery::default()).is_ok_and(|page| page.total == 0)
        })
        .await;
        assert!(d.unpause(&queue("D7"), "ana").await.is_err(), "{}", stage.kind);
    }
}

#[tokio::test]
async fn thousands_of_queues_are_paged_filtered_and_sorted() {
    let stage = Stage::embedded().await;
    let names: Vec<String> = (0..12_000).map(|n| format!("D{n:05}")).collect();
    let queues: Vec<(&str, u64)> = names.iter().map(|n| (n.as_str(), 1)).collect();
    stage.queues(&queues).await;
    let d: Dispatcher = stage.dispatcher().await;
    d.pause(&queue("D00042"), None, "ana").await.expect("paused");
    let page = |q: StatusQuery| d.status(&q).expect("a page");
    let all = page(StatusQuery { page: Some(120), ..StatusQuery::default() });
    assert_eq!((all.total, all.queues.len(), all.queues[99].queue.as_str()), (12_000, 100, "D11999"));
    assert_eq!((all.counts["idle"], all.counts["pause"]), (11_999, 1));
    let paused = page(StatusQuery { state: Some("pause,delete".into()), ..StatusQuery::default() });
    assert_eq!((paused.total, paused.queues[0].queue.as_str()), (1, "D00042"));
    let found = page(StatusQuery {
        search: Some("d0004".into()),
        sort: Some("-queue".into()),
        ..StatusQuery::default()
    });
    assert_eq!((found.total, found.queues[0].queue.as_str()), (10, "D00049"));
    for wrong in [
        StatusQuery { sort: Some("color".into()), ..StatusQuery::default() },
        StatusQuery { state: Some("busy".into()), ..StatusQuery::default() },
        StatusQuery { page: Some(0), ..StatusQuery::default() },
        StatusQuery { limit: Some(1_001), ..StatusQuery::default() },
    ] {
        let said = d.status(&wrong).expect_err("refused").to_string();
        assert!(said.contains("use "), "{said}");
    }
}
