//! Both stores keep the same of the same events, in whatever order and however often they come.

use std::sync::Arc;

use downtime::event::{Event, EventKind, LineState, Source};
use downtime::line::{Downtime, NoticeKind};
use downtime::store::postgres::PostgresDowntimes;
use downtime::store::sqlite::SqliteDowntimes;
use downtime::store::{Claim, DeliveryStatus, DowntimeQuery, DowntimeStore, Recipient, Recorded};
use galerna_model::Timestamp;
use galerna_test_servers::Postgres;

const HOLD: i64 = 1_000;

/// Runs a test on both.
async fn on_both<F: Future<Output = ()>>(test: impl Fn(Arc<dyn DowntimeStore>) -> F) {
    let folder = tempfile::tempdir().expect("a folder can be made");
    test(Arc::new(SqliteDowntimes::open(&folder.path().join("downtimes.db")).expect("it opens"))).await;
    let url = Postgres::shared().await.database().await;
    test(Arc::new(PostgresDowntimes::open(&url).await.expect("it opens"))).await;
    // The migrations have run, and are not run again.
    PostgresDowntimes::open(&url).await.expect("it opens again");
}

fn event(line: &str, at: i64, kind: EventKind) -> Event {
    Event { line: line.to_owned(), at: Timestamp(at), kind, source: Source::Reported }
}

async fn downtimes(store: &dyn DowntimeStore, line: &str) -> Vec<(i64, Option<i64>)> {
    let query = DowntimeQuery { line: Some(line.to_owned()), limit: 1_000, ..DowntimeQuery::default() };
    let found: Vec<Downtime> = store.downtimes(&query).await.expect("they can be read");
    found.into_iter().map(|d| (d.start.0, d.end.map(|end| end.0))).collect()
}

fn claim(now: i64) -> Claim {
    Claim { holder: "test".into(), now: Timestamp(now), lease_ms: 100, limit: 10 }
}

#[tokio::test]
async fn the_same_events_give_the_same_downtimes_in_any_order() {
    on_both(|store| async move {
        fastrand::seed(11);
        for round in 0..10 {
            let line = format!("press {round}");
            let mut events: Vec<Event> = (1..25)
                .map(|n| event(&line, n * 10, if fastrand::bool() { EventKind::Up } else { EventKind::Down }))
                .collect();
            let in_order = format!("in order {round}");
            let renamed: Vec<Event> =
                events.iter().map(|e| Event { line: in_order.clone(), ..e.clone() }).collect();
            store.record(&renamed, HOLD).await.expect("they are recorded");
            fastrand::shuffle(&mut events);
            for events in events.chunks(7) {
                let first = store.record(events, HOLD).await.expect("they are recorded");
                assert!(first.iter().all(|recorded| *recorded == Recorded::New));
                let again = store.record(events, HOLD).await.expect("they are recorded");
                assert!(again.iter().all(|recorded| *recorded == Recorded::Known));
            }
            assert_eq!(downtimes(&*store, &line).await, downtimes(&*store, &in_order).await, "{round}");
            let line = store.line(&line).await.expect("it can be read").expect("it is known");
            let expected = store.line(&in_order).await.expect("it can be read").expect("it is known");
            assert_eq!((line.state, line.since), (expected.state, expected.since));
        }
        assert_eq!(store.events().await.expect("they are counted"), 10 * 2 * 24);
    })
    .await;
}

#[tokio::test]
async fn an_event_that_contradicts_another_of_its_time_is_not_kept() {
    on_both(|store| async move {
        let up = event("press", 10, EventKind::Up);
        let down = Event { kind: EventKind::Down, ..up.clone() };
        assert_eq!(store.record(&[up], HOLD).await, Ok(vec![Recorded::New]));
        assert_eq!(store.record(&[down], HOLD).await, Ok(vec![Recorded::Conflict]));
        assert_eq!(downtimes(&*store, "press").await, []);
    })
    .await;
}

#[tokio::test]
async fn a_line_whose_heartbeats_stop_is_down_until_the_next() {
    on_both(|store| async move {
        let beat = |at| event("press", at, EventKind::Heartbeat);
        store.record(&[beat(1_000), beat(2_000)], HOLD).await.expect("they are recorded");
        assert_eq!(store.silent(Timestamp(1_999)).await, Ok(vec![]));
        assert_eq!(store.silent(Timestamp(2_000)).await, Ok(vec![("press".to_owned(), Timestamp(2_000))]));
        let silent = |heard| Event {
            at: Timestamp(7_000),
            kind: EventKind::Down,
            source: Source::Silence { heard: Timestamp(heard) },
            ..beat(0)
        };
        // Of a line that was heard of meanwhile it says nothing.
        store.record(&[silent(1_000)], HOLD).await.expect("it is recorded");
        assert_eq!(downtimes(&*store, "press").await, []);
        store.record(&[silent(2_000)], HOLD).await.expect("it is recorded");
        assert_eq!(downtimes(&*store, "press").await, [(7_000, None)]);
        store.record(&[beat(9_000)], HOLD).await.expect("it is recorded");
        assert_eq!(downtimes(&*store, "press").await, [(7_000, Some(9_000))]);
        // A heartbeat says nothing of a line that was reported down.
        store
            .record(&[event("press", 10_000, EventKind::Down), beat(11_000)], HOLD)
            .await
            .expect("they are recorded");
        let line = store.line("press").await.expect("it can be read").expect("it is known");
        assert_eq!((line.state, line.heard), (LineState::Down, Timestamp(11_000)));
    })
    .await;
}

#[tokio::test]
async fn what_lasts_is_told_once_in_order_and_again_when_it_could_not_be() {
    on_both(|store| async move {
        let events = [event("press", 10_000, EventKind::Down), event("lathe", 10_000, EventKind::Up)];
        store.record(&events, HOLD).await.expect("they are recorded");
        assert_eq!(store.settle(Timestamp(10_999), HOLD).await, Ok(0));
        assert_eq!(store.settle(Timestamp(11_000), HOLD).await, Ok(1));
        assert_eq!(store.settle(Timestamp(12_000), HOLD).await, Ok(0));
        store.record(&[event("press", 20_000, EventKind::Up)], HOLD).await.expect("it is recorded");
        assert_eq!(store.settle(Timestamp(30_000), HOLD).await, Ok(1));

        // The restoration waits for what was before it.
        let taken = store.claim(&claim(30_000)).await.expect("notices are taken");
        let [down] = &taken[..] else { panic!("{taken:?}") };
        assert_eq!((down.what.kind, down.what.began_before, down.tries), (NoticeKind::Down, true, 1));
        assert_eq!(store.claim(&claim(30_050)).await, Ok(vec![]), "it is taken");
        let list = |name: &str| Recipient::Log {
            list: name.to_owned(),
            addresses: vec!["a@example.com".to_owned()],
        };
        let planned = store.plan(down, &[list("one"), Recipient::Webhook {}]).await.expect("it is planned");
        assert_eq!(planned.len(), 2);
        store.ended(&planned[0].id, DeliveryStatus::Delivered, None).await.expect("it is written down");
        // Whoever had it is gone; who has it next tells whom it was for, as far as they were not told.
        let taken = store.claim(&claim(30_100)).await.expect("notices are taken");
        assert_eq!((taken.len(), taken[0].seq, taken[0].tries), (1, down.seq, 2));
        let left = store.plan(&taken[0], &[list("two")]).await.expect("it is planned");
        assert_eq!(left, [planned[1].clone()]);
        store.again(down.seq, Timestamp(40_000)).await.expect("it is put off");
        assert_eq!(store.claim(&claim(39_999)).await, Ok(vec![]));
        assert_eq!(store.claim(&claim(40_000)).await.map(|taken| taken.len()), Ok(1));
        store.ended(&left[0].id, DeliveryStatus::Dead, Some("410 Gone")).await.expect("it is written down");
        store.told(down.seq).await.expect("it is written down");

        let restored = store.claim(&claim(41_000)).await.expect("notices are taken");
        assert_eq!(restored[0].what.at.millis_since(restored[0].what.down_since), 10_000);
        assert!(store.plan(&restored[0], &[]).await.expect("it is planned").is_empty());
        store.told(restored[0].seq).await.expect("it is written down");
        assert_eq!(store.untold().await, Ok(0));

        // What is dead can be sent again.
        let dead = store.deliveries(Some(DeliveryStatus::Dead), 10).await.expect("they can be read");
        assert_eq!((dead.len(), dead[0].reason.as_deref()), (1, Some("410 Gone")));
        assert_eq!(store.resend("nobody").await, Ok(false));
        assert_eq!(store.resend(&dead[0].id).await, Ok(true));
        assert_eq!(store.resend(&dead[0].id).await, Ok(false), "it is not dead any more");
        let again = store.claim(&claim(50_000)).await.expect("notices are taken");
        assert_eq!(store.plan(&again[0], &[]).await.map(|left| left.len()), Ok(1));
    })
    .await;
}

#[tokio::test]
async fn downtimes_are_found_by_line_and_time() {
    on_both(|store| async move {
        for (line, start, end) in [("a", 10, Some(20)), ("b", 15, None), ("a", 30, Some(40))] {
            store.record(&[event(line, start, EventKind::Down)], HOLD).await.expect("it is recorded");
            if let Some(end) = end {
                store.record(&[event(line, end, EventKind::Up)], HOLD).await.expect("it is recorded");
            }
        }
        let time = |at: Option<i64>| at.map(Timestamp);
        for (line, from, to, after, limit, expected) in [
            (None, None, None, None, 10, vec![("a", 10), ("b", 15), ("a", 30)]),
            (Some("a"), None, None, None, 10, vec![("a", 10), ("a", 30)]),
            (None, Some(20), None, None, 10, vec![("b", 15), ("a", 30)]),
            (None, None, Some(15), None, 10, vec![("a", 10)]),
            (None, Some(25), Some(30), None, 10, vec![("b", 15)]),
            (None, None, None, None, 2, vec![("a", 10), ("b", 15)]),
            (None, None, None, Some((15, "b")), 10, vec![("a", 30)]),
            (Some("c"), None, None, None, 10, vec![]),
        ] {
            let query = DowntimeQuery {
                line: line.map(str::to_owned),
                from: time(from),
                to: time(to),
                after: after.map(|(at, line)| (Timestamp(at), line.to_owned())),
                limit,
            };
            let found = store.downtimes(&query).await.expect("they can be read");
            let found: Vec<_> = found.iter().map(|d| (d.line.as_str(), d.start.0)).collect();
            assert_eq!(found, expected, "{query:?}");
        }
    })
    .await;
}
