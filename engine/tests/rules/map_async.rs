//! `map_async`: how many calls at once, in which order, for how long, how often again, and how fast.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use galerna_engine::testing::{Feed, Harness, Seen};
use galerna_engine::{Engine, EngineOptions, Metrics};
use galerna_topology::Calls;
use galerna_topology::prelude::*;
use tokio::time::Instant;

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// What is called: takes its time for each number, and fails as often as it is told to.
#[derive(Clone)]
struct Service(Arc<Script>);

struct Script {
    takes: fn(u64) -> Duration,
    /// What the tries of a number end with: the n-th, or the last for all further ones.
    says: fn(u64, usize) -> Result<(), Fault>,
    start: Instant,
    at_once: AtomicUsize,
    most: AtomicUsize,
    began: Mutex<Vec<(u64, Duration)>>,
}

impl Service {
    fn new(takes: fn(u64) -> Duration, says: fn(u64, usize) -> Result<(), Fault>) -> Self {
        Self(Arc::new(Script {
            takes,
            says,
            start: Instant::now(),
            at_once: AtomicUsize::new(0),
            most: AtomicUsize::new(0),
            began: Mutex::default(),
        }))
    }

    async fn ask(self, n: u64) -> Result<u64, Fault> {
        let script = &*self.0;
        script.most.fetch_max(script.at_once.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        // Counts down also when the call is dropped.
        let _call = Call(&script.at_once);
        let attempt = {
            let mut began = script.began.lock().unwrap();
            began.push((n, script.start.elapsed()));
            began.iter().filter(|(of, _)| *of == n).count()
        };
        tokio::time::sleep((script.takes)(n)).await;
        (script.says)(n, attempt).map(|()| n)
    }

    fn tries(&self) -> HashMap<u64, usize> {
        let mut tries = HashMap::new();
        self.0.began.lock().unwrap().iter().for_each(|(n, _)| *tries.entry(*n).or_default() += 1);
        tries
    }
}

struct Call<'a>(&'a AtomicUsize);

impl Drop for Call<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// What became of the numbers from 0 on.
struct Outcome {
    took: Duration,
    seen: Vec<u64>,
    acked: Vec<u64>,
    failed: Vec<(u64, FailureKind, Fault)>,
    metrics: Metrics,
}

async fn ask_about(numbers: u64, calls: Calls, service: &Service) -> Outcome {
    let harness = Harness::new();
    let (feed, seen): (Feed<u64>, Seen<u64>) = (harness.feed(), harness.seen());
    let mut topology = TopologyBuilder::new("calls");
    topology.message_timeout(Duration::from_secs(5));
    let fed = topology.spout("feed", feed.spout()).outputs();
    let asking = service.clone();
    let answers = topology.map_async("ask", calls, move |n| asking.clone().ask(n)).shuffle(fed).outputs();
    topology.bolt("seen", seen.bolt()).shuffle(answers);
    (0..numbers).for_each(|n| feed.emit(n, n));
    feed.done();
    let start = Instant::now();
    let running = Engine::submit(topology.build().unwrap(), EngineOptions::default()).await.unwrap();
    running.finished().await;
    let took = start.elapsed();
    let mut acked = feed.acked();
    acked.sort_unstable();
    let of = |failed: Failed<u64>| (failed.id, failed.failure.kind, failed.failure.fault);
    let mut failed: Vec<_> = feed.failed().into_iter().map(of).collect();
    failed.sort_unstable_by_key(|(id, _, _)| *id);
    Outcome { took, seen: seen.values(), acked, failed, metrics: running.drain(ms(0)).await.metrics }
}

const FINE: fn(u64, usize) -> Result<(), Fault> = |_, _| Ok(());

#[tokio::test(start_paused = true)]
async fn so_many_calls_are_under_way_at_once_and_no_more() {
    for (numbers, at_once, took) in [(64, 64, 100), (640, 64, 1_000), (10, 4, 300), (3, 1, 300), (2, 0, 200)]
    {
        for ordered in [false, true] {
            let calls = Calls::at_once(at_once);
            let calls = if ordered { calls.ordered() } else { calls };
            let service = Service::new(|_| ms(100), FINE);
            let outcome = ask_about(numbers, calls, &service).await;
            assert_eq!(outcome.acked, (0..numbers).collect::<Vec<_>>());
            let most = at_once.max(1).min(numbers as usize);
            assert_eq!(service.0.most.load(Ordering::SeqCst), most, "{numbers} at {at_once}");
            // Timers of paused time are of a millisecond, and each round may be late by one.
            let late = outcome.took.saturating_sub(ms(took));
            assert!(
                outcome.took >= ms(took) && late <= ms(took / 100),
                "{numbers} at {at_once}: {late:?} late"
            );
        }
    }
}

#[tokio::test(start_paused = true)]
async fn answers_come_as_the_calls_end_or_in_order() {
    for (calls, expected) in [(Calls::at_once(4), [3, 2, 1, 0]), (Calls::at_once(4).ordered(), [0, 1, 2, 3])]
    {
        let service = Service::new(|n| ms(100 * (4 - n)), FINE);
        let outcome = ask_about(4, calls.clone(), &service).await;
        assert_eq!(outcome.seen, expected, "{calls:?}");
        assert_eq!(outcome.acked, [0, 1, 2, 3]);
    }
}

#[tokio::test(start_paused = true)]
async fn the_kind_of_a_fault_decides_whether_a_call_is_made_again() {
    type Says = fn(u64, usize) -> Result<(), Fault>;
    let cases: [(&str, Says, usize, Option<Fault>); 6] = [
        ("fine at once", FINE, 1, None),
        ("fine at the third", |_, n| if n < 3 { Err(Fault::transient("busy")) } else { Ok(()) }, 3, None),
        ("fine at the last", |_, n| if n < 4 { Err(Fault::unavailable("gone")) } else { Ok(()) }, 4, None),
        ("never, transient", |_, _| Err(Fault::transient("busy")), 4, Some(Fault::transient("busy"))),
        ("never, unavailable", |_, _| Err(Fault::unavailable("gone")), 4, Some(Fault::unavailable("gone"))),
        (
            "permanent",
            |_, _| Err(Fault::permanent("no such meter")),
            1,
            Some(Fault::permanent("no such meter")),
        ),
    ];
    for (what, says, tries, fault) in cases {
        let service = Service::new(|_| ms(10), says);
        let calls = Calls::at_once(2).retries(3, ms(100), ms(200));
        let outcome = ask_about(1, calls, &service).await;
        assert_eq!(service.tries()[&0], tries, "{what}");
        let failed: Vec<_> = fault.iter().map(|fault| (0, FailureKind::Error, fault.clone())).collect();
        assert_eq!(outcome.failed, failed, "{what}");
        assert_eq!(outcome.acked.len(), usize::from(fault.is_none()), "{what}");
        // Pauses of 100, 200 and 200 ms, each cut by up to a half.
        let pauses: u64 = [100, 200, 200][..tries - 1].iter().sum();
        let (least, longest) = (ms(pauses / 2), ms(pauses + 12 * tries as u64));
        assert!((least..=longest).contains(&outcome.took), "{what} took {:?}", outcome.took);
    }
}

#[tokio::test(start_paused = true)]
async fn a_try_that_takes_too_long_is_dropped_and_may_be_made_again() {
    for (retries, tries) in [(0, 1), (2, 3)] {
        let service = Service::new(|n| if n == 0 { Duration::MAX } else { ms(10) }, FINE);
        let calls = Calls::at_once(2).timeout(ms(100)).retries(retries, ms(0), ms(0));
        let outcome = ask_about(3, calls, &service).await;
        let fault = Fault::transient("no answer within 100ms");
        assert_eq!(outcome.failed, [(0, FailureKind::Error, fault)]);
        assert_eq!(outcome.acked, [1, 2]);
        assert_eq!((service.tries()[&0], service.tries()[&1]), (tries, 1));
        assert_eq!(service.0.at_once.load(Ordering::SeqCst), 0, "no call is left");
    }
}

#[tokio::test(start_paused = true)]
async fn tries_are_spaced_by_the_rate_over_all_tasks() {
    let service = Service::new(|_| ms(1_000), FINE);
    let outcome = ask_about(5, Calls::at_once(8).per_second(10.0), &service).await;
    assert_eq!(outcome.acked.len(), 5);
    let began: Vec<Duration> = service.0.began.lock().unwrap().iter().map(|(_, at)| *at).collect();
    assert!(began.windows(2).all(|two| two[1] - two[0] >= ms(99)), "{began:?}");
    assert!(began[4] - began[0] <= ms(410), "{began:?}");
    for unlimited in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        let service = Service::new(|_| ms(100), FINE);
        let outcome = ask_about(5, Calls::at_once(8).per_second(unlimited), &service).await;
        assert!(outcome.took < ms(110), "{unlimited}: {:?}", outcome.took);
    }
    assert_ne!(Calls::at_once(1).per_second(1e-300), Calls::at_once(1), "seldom is not unlimited");
}

#[tokio::test(start_paused = true)]
async fn a_call_that_panics_costs_its_own_tuple() {
    let service = Service::new(|_| ms(10), |n, _| if n == 1 { panic!("boom") } else { Ok(()) });
    let outcome = ask_about(3, Calls::at_once(3).retries(3, ms(10), ms(10)), &service).await;
    assert_eq!(outcome.acked, [0, 2]);
    assert_eq!(outcome.failed, [(1, FailureKind::Panic, Fault::transient("panicked: boom"))]);
    assert_eq!(service.tries()[&1], 1, "a defect is not tried again");
    let ask = outcome.metrics.component("ask").unwrap();
    assert_eq!((ask.failed["panic"], ask.restarts), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_tuple_that_is_tried_again_does_not_time_out() {
    // Seven tries of a second with pauses of at least one, and a message timeout of five.
    let service = Service::new(
        |_| ms(1_000),
        |_, n| if n < 7 { Err(Fault::unavailable("restarting")) } else { Ok(()) },
    );
    let outcome = ask_about(1, Calls::at_once(1).retries(10, ms(2_000), ms(2_000)), &service).await;
    assert_eq!((outcome.acked, outcome.failed), (vec![0], vec![]));
    assert!(outcome.took > ms(12_000), "{:?}", outcome.took);
}

/// Panics where it is told to.
#[derive(Debug)]
struct Brittle(u64, &'static str);

impl Brittle {
    fn breaks(&self, at: &str) {
        assert!(self.0 != 1 || self.1 != at || std::thread::panicking(), "boom");
    }
}

impl Clone for Brittle {
    fn clone(&self) -> Self {
        self.breaks("clone");
        Self(self.0, self.1)
    }
}

impl Drop for Brittle {
    fn drop(&mut self) {
        self.breaks("drop");
    }
}

impl std::fmt::Display for Brittle {
    fn fmt(&self, _: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.breaks("display");
        Ok(())
    }
}

impl std::error::Error for Brittle {}

#[tokio::test(start_paused = true)]
async fn a_tuple_or_an_error_that_panics_costs_no_call_beside_it() {
    for at in ["clone", "drop", "display", "drop of a call out of time"] {
        let harness = Harness::new();
        let (feed, seen) = (harness.feed::<u64>(), harness.seen::<u64>());
        let mut topology = TopologyBuilder::new("brittle");
        let numbers = topology.spout("feed", feed.spout()).outputs();
        let brittle = topology.map("brittle", move |n| Brittle(n, at)).shuffle(numbers).outputs();
        let ask = move |brittle: Brittle| async move {
            tokio::time::sleep(ms(10)).await;
            let n = brittle.0;
            if at == "drop of a call out of time" && n == 1 {
                let _dropped = Brittle(1, "drop");
                tokio::time::sleep(ms(10_000)).await;
            }
            if at == "display" && n == 1 { Err(brittle) } else { Ok(n) }
        };
        let asked =
            topology.map_async("ask", Calls::at_once(3).timeout(ms(500)), ask).shuffle(brittle).outputs();
        topology.bolt("seen", seen.bolt()).shuffle(asked);
        let run = harness.start(topology.build().unwrap()).await.unwrap();
        (0..3).for_each(|n| feed.emit(n, n));
        for _ in 0..100 {
            run.advance(ms(10)).await;
            tokio::time::sleep(ms(10)).await;
        }
        run.until("all have ended", || feed.acked().len() + feed.failed().len() == 3).await;
        let failed: Vec<_> = feed.failed().iter().map(|failed| (failed.id, failed.failure.kind)).collect();
        assert_eq!((feed.acked(), failed), (vec![0, 2], vec![(1, FailureKind::Panic)]), "{at}");
        assert_eq!(run.metrics().component("ask").unwrap().restarts, 0, "{at}");
    }
}
