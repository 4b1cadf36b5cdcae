//! Delayed work over processes that are lost; limits over processes.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use galerna_delay::{DelayError, DelayOptions, DelayStore, Item, Limit, Permit, RateLimits, Retry, Settled};
use galerna_model::{Clock, ManualClock, Timestamp};
use galerna_retry::Pauses;
use galerna_topology::Fault;

const START: i64 = 1_767_225_600_000;

fn options(attempts: u32) -> DelayOptions {
    let pauses = Pauses::new(Duration::from_secs(10), Duration::from_secs(10));
    DelayOptions { retry: Retry { attempts, pauses }, ..DelayOptions::default() }
}

fn item(id: &str, due: i64) -> Item {
    Item::new(id, Timestamp(START + due), id.into())
}

struct World {
    clock: ManualClock,
    folder: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        Self { clock: ManualClock::at(Timestamp(START)), folder: tempfile::tempdir().expect("a folder") }
    }

    fn process(&self, attempts: u32) -> DelayStore {
        let path = self.folder.path().join("delayed.db");
        DelayStore::open(&path, Arc::new(self.clock.clone()), options(attempts)).expect("the file opens")
    }

    async fn pass(&self, millis: i64) {
        self.clock.advance(millis);
        tokio::time::advance(Duration::from_millis(millis as u64)).await;
    }
}

async fn ids(store: &mut DelayStore, room: usize) -> Vec<String> {
    store.claim(room).await.unwrap().into_iter().map(|taken| taken.item.id).collect()
}

#[tokio::test(start_paused = true)]
async fn what_is_due_is_claimed_in_order_by_one_and_never_multiplied() {
    let world = World::new();
    let (mut one, mut two) = (world.process(3), world.process(3));
    assert_eq!(one.put(vec![item("late", 2_000), item("early", 1_000), item("far", 9_000)]).await, Ok(3));
    assert_eq!(two.put(vec![item("early", 0), item("far", 0)]).await, Ok(0), "they are there");
    assert_eq!(ids(&mut one, 9).await, [""; 0]);
    world.pass(2_000).await;
    assert_eq!(ids(&mut one, 1).await, ["early"]);
    assert_eq!(ids(&mut two, 9).await, ["late"]);
    assert_eq!(ids(&mut one, 9).await, [""; 0]);
    assert_eq!(one.len().await, Ok(3));
}

#[tokio::test(start_paused = true)]
async fn a_lost_process_is_replaced_after_its_lease_and_cannot_settle_any_more() {
    let world = World::new();
    let (mut lost, mut other) = (world.process(3), world.process(3));
    lost.put(vec![item("a", 0)]).await.unwrap();
    let first = lost.claim(1).await.unwrap().remove(0);
    assert_eq!(ids(&mut other, 1).await, [""; 0]);
    // It is heard of, and keeps its claim.
    for _ in 0..6 {
        world.pass(10_000).await;
        assert_eq!(ids(&mut lost, 1).await, [""; 0]);
        assert_eq!(ids(&mut other, 1).await, [""; 0]);
    }
    world.pass(29_000).await;
    assert_eq!(ids(&mut other, 1).await, [""; 0]);
    world.pass(3_000).await;
    let second = other.claim(1).await.unwrap().remove(0);
    assert_eq!((second.attempt, second.epoch), (first.attempt + 1, first.epoch + 1));
    assert_eq!(lost.settle(&first, &Ok(())).await, Ok(Settled::Gone));
    assert_eq!(other.settle(&second, &Ok(())).await, Ok(Settled::Done));
    assert_eq!(other.is_empty().await, Ok(true));
}

#[tokio::test(start_paused = true)]
async fn faults_are_tried_again_by_their_kind_and_poison_is_parked() {
    let world = World::new();
    let mut store = world.process(2);
    for (id, faults, parked) in [
        ("permanent", vec![Fault::permanent("never")], Some(("never", 1))),
        ("transient", vec![Fault::transient("a"), Fault::transient("b")], Some(("b", 2))),
        (
            "unavailable",
            vec![Fault::unavailable("x"), Fault::unavailable("x"), Fault::unavailable("x")],
            None,
        ),
    ] {
        store.put(vec![item(id, 0)]).await.unwrap();
        for fault in faults {
            let taken = store.claim(1).await.unwrap().remove(0);
            store.settle(&taken, &Err(fault)).await.unwrap();
            assert_eq!(ids(&mut store, 1).await, [""; 0], "{id}: there is a pause");
            world.pass(10_000).await;
        }
        let found = store.parked(10).await.unwrap();
        assert_eq!(found.first().map(|parked| (parked.reason.as_str(), parked.attempts)), parked, "{id}");
        if parked.is_some() {
            assert_eq!(ids(&mut store, 1).await, [""; 0]);
            assert_eq!((store.resume(id).await, store.resume(id).await), (Ok(true), Ok(false)));
        }
        let taken = store.claim(1).await.unwrap().remove(0);
        assert_eq!(store.settle(&taken, &Ok(())).await, Ok(Settled::Done));
    }
}

#[tokio::test(start_paused = true)]
async fn a_parked_key_waits_in_order_while_other_keys_flow() {
    let world = World::new();
    let mut store = world.process(1);
    let of = |key: &str, n: i64| item(&format!("{key}{n}"), 0).key(key);
    store.put(vec![of("a", 1), of("a", 2), of("b", 1), of("a", 3), of("b", 2), item("c", 0)]).await.unwrap();
    let mut order = Vec::new();
    loop {
        let taken = store.claim(10).await.unwrap();
        if taken.is_empty() {
            break;
        }
        for taken in taken {
            let poison = taken.item.id == "a1";
            store
                .settle(&taken, &if poison { Err(Fault::permanent("poison")) } else { Ok(()) })
                .await
                .unwrap();
            order.push(taken.item.id);
        }
    }
    assert_eq!(order, ["a1", "b1", "c", "b2"]);
    let parked = store.parked(10).await.unwrap();
    assert_eq!((parked.len(), parked[0].id.as_str(), parked[0].waiting), (1, "a1", 2));
    assert_eq!((store.discard("a1").await, store.discard("a1").await), (Ok(true), Ok(false)));
    for expected in ["a2", "a3"] {
        let taken = store.claim(10).await.unwrap().remove(0);
        assert_eq!(taken.item.id, expected);
        store.settle(&taken, &Ok(())).await.unwrap();
    }
    assert_eq!(store.is_empty().await, Ok(true));
}

#[tokio::test(start_paused = true)]
async fn processes_that_are_killed_and_frozen_at_random_do_each_item_once_and_each_key_in_order() {
    for seed in 1..=5 {
        println!("seed {seed}");
        let mut rng = fastrand::Rng::with_seed(seed);
        let world = World::new();
        let mut processes: Vec<(DelayStore, Vec<galerna_delay::Taken>, i64)> =
            (0..3).map(|_| (world.process(1_000), Vec::new(), 0)).collect();
        let mut put: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for n in 0..120 {
            let key = format!("key-{}", rng.u32(..8));
            let id = format!("item-{n}");
            let due = rng.i64(0..600_000);
            processes[0].0.put(vec![item(&id, due).key(&key)]).await.unwrap();
            put.entry(key).or_default().push(id);
        }
        let mut done: BTreeMap<String, Vec<String>> = BTreeMap::new();
        let mut live: HashMap<String, u64> = HashMap::new();
        let end = START + 20 * 3_600_000;
        while !processes[0].0.is_empty().await.unwrap() {
            world.pass(rng.i64(1_000..9_000)).await;
            let now = world.clock.now().as_millis();
            assert!(now < end, "it comes to an end");
            for process in &mut processes {
                if process.2 > now {
                    continue;
                }
                match rng.u32(..30) {
                    0 => *process = (world.process(1_000), Vec::new(), now + rng.i64(0..60_000)),
                    1 => process.2 = now + rng.i64(0..90_000),
                    _ => {}
                }
                let (store, running, _) = process;
                for taken in std::mem::take(running) {
                    let result = if rng.u32(..4) == 0 { Err(Fault::transient("not now")) } else { Ok(()) };
                    if store.settle(&taken, &result).await.unwrap() == Settled::Done {
                        let key = taken.item.key.clone().expect("all have a key");
                        done.entry(key).or_default().push(taken.item.id.clone());
                    }
                }
                for taken in store.claim(rng.usize(..6)).await.unwrap() {
                    let before = live.insert(taken.item.id.clone(), taken.epoch);
                    assert!(before.is_none_or(|epoch| epoch < taken.epoch), "epochs grow");
                    running.push(taken);
                }
            }
        }
        assert_eq!(done, put);
    }
}

#[tokio::test]
async fn a_million_wait_on_disk_and_those_that_are_due_are_claimed_once() {
    const MILLION: i64 = 1_000_000;
    let clock = ManualClock::at(Timestamp(START));
    let folder = tempfile::tempdir().unwrap();
    let open =
        || DelayStore::open(&folder.path().join("delayed.db"), Arc::new(clock.clone()), options(1)).unwrap();
    let (mut one, mut two) = (open(), open());
    for chunk in 0..MILLION / 20_000 {
        // The last that are put are the first that are due.
        let numbers = chunk * 20_000..(chunk + 1) * 20_000;
        let items = numbers.map(|n| item(&n.to_string(), 10_000_000 - 10 * n)).collect();
        assert_eq!(one.put(items).await, Ok(20_000));
    }
    assert_eq!(one.len().await, Ok(MILLION.unsigned_abs()));
    assert_eq!(ids(&mut one, 100).await, [""; 0]);
    // A hundred thousand become due.
    clock.advance(10 * 100_000);
    let mut had = BTreeSet::new();
    loop {
        let mut both = one.claim(4_000).await.unwrap();
        both.extend(two.claim(4_000).await.unwrap());
        if both.is_empty() {
            break;
        }
        for taken in both {
            assert!(had.insert(taken.item.id.clone()), "{} was claimed twice", taken.item.id);
        }
        // What is claimed and not done is looked at in each round: a tenth of it is enough to see here.
        if had.len() >= 16_000 {
            break;
        }
    }
    let first: BTreeSet<String> = (MILLION - 16_000..MILLION).map(|n| n.to_string()).collect();
    assert_eq!(had, first, "those that were due first");
}

fn limits(path: &Path, clock: &ManualClock) -> RateLimits {
    RateLimits::open(path, Arc::new(clock.clone())).expect("the file opens")
}

#[tokio::test]
async fn a_limit_holds_over_all_who_ask_and_a_key_holds_up_no_other() {
    let (clock, folder) = (ManualClock::at(Timestamp(START)), tempfile::tempdir().unwrap());
    let path = folder.path().join("limits.db");
    let (one, two) = (limits(&path, &clock), limits(&path, &clock));
    let of = |key: &str| [Limit::new("posts", key, 10, Duration::from_secs(60)).burst(3)];
    for store in [&one, &two, &one] {
        assert_eq!(store.ask(&of("a")).await, Ok(Permit::Granted));
    }
    assert_eq!(two.ask(&of("a")).await, Ok(Permit::After(Duration::from_secs(6))));
    assert_eq!(two.ask(&of("b")).await, Ok(Permit::Granted));
    clock.advance(5_999);
    assert_eq!(one.ask(&of("a")).await, Ok(Permit::After(Duration::from_millis(1))));
    clock.advance(1);
    assert_eq!(one.ask(&of("a")).await, Ok(Permit::Granted));
    assert_eq!(two.ask(&of("a")).await, Ok(Permit::After(Duration::from_secs(6))));
    clock.advance(60_000);
    assert_eq!(one.forget_idle().await, Ok(2));
}

#[tokio::test]
async fn several_limits_count_together_or_not_at_all() {
    let clock = ManualClock::at(Timestamp(START));
    let store = RateLimits::in_memory(Arc::new(clock.clone())).unwrap();
    let second = Limit::new("a second", "k", 5, Duration::from_secs(1)).burst(1);
    let minute = Limit::new("a minute", "k", 2, Duration::from_secs(60)).burst(2);
    let both = [second.clone(), minute];
    assert_eq!(store.ask(&both).await, Ok(Permit::Granted));
    assert_eq!(store.ask(&both).await, Ok(Permit::After(Duration::from_millis(200))));
    clock.advance(200);
    assert_eq!(store.ask(&both).await, Ok(Permit::Granted));
    clock.advance(200);
    assert_eq!(store.ask(&both).await, Ok(Permit::After(Duration::from_millis(29_600))));
    // That did not count for the other.
    assert_eq!(store.ask(std::slice::from_ref(&second)).await, Ok(Permit::Granted));
}

#[tokio::test]
async fn in_no_time_is_more_let_through_than_burst_and_rate_and_nothing_less_to_who_waits() {
    for seed in 1..=5 {
        println!("seed {seed}");
        let mut rng = fastrand::Rng::with_seed(seed);
        let clock = ManualClock::at(Timestamp(START));
        let store = RateLimits::in_memory(Arc::new(clock.clone())).unwrap();
        let (rate, burst) = (rng.u32(1..50), rng.u32(1..20));
        let limit = [Limit::new("l", "k", rate, Duration::from_secs(60)).burst(burst)];
        let mut granted: Vec<i64> = Vec::new();
        for _ in 0..1_500 {
            clock.advance(rng.i64(0..2_000));
            if store.ask(&limit).await.unwrap() == Permit::Granted {
                granted.push(clock.now().as_millis());
            }
        }
        for (first, from) in granted.iter().enumerate() {
            for (more, to) in granted[first..].iter().enumerate() {
                let allowed = f64::from(burst) + (to - from) as f64 * f64::from(rate) / 60_000.0;
                assert!((more + 1) as f64 <= allowed, "{} in {} ms", more + 1, to - from);
            }
        }
        // Who asks again as told is let through.
        for _ in 0..100 {
            let Permit::After(wait) = store.ask(&limit).await.unwrap() else { continue };
            clock.advance(i64::try_from(wait.as_micros().div_ceil(1000)).unwrap());
            assert_eq!(store.ask(&limit).await, Ok(Permit::Granted));
        }
    }
}

#[tokio::test]
async fn limits_that_let_nothing_through_are_refused() {
    let store = RateLimits::in_memory(Arc::new(ManualClock::at(Timestamp(START)))).unwrap();
    for limit in [
        Limit::new("l", "k", 0, Duration::from_secs(1)),
        Limit::new("l", "k", 1, Duration::from_secs(1)).burst(0),
        Limit::new("l", "k", 2_000_000, Duration::from_secs(1)),
        Limit::new("l", "k", 1, Duration::MAX).burst(2),
    ] {
        assert!(matches!(store.ask(&[limit]).await, Err(DelayError::Bad { .. })));
    }
}
