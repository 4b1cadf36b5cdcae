//! Each store behaves as the traits say, for several processes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use galerna_delay::mongo::{MongoItems, MongoLimits};
use galerna_delay::sqlite::{SqliteItems, SqliteLimits};
use galerna_delay::store::{ItemStore, LimitStore};
use galerna_delay::{DelayOptions, DelayStore, Item, Limit, Permit, RateLimits, Retry, Settled, Taken};
use galerna_model::{ManualClock, Timestamp};
use galerna_retry::Pauses;
use galerna_test_servers::{Mongo, unique};
use galerna_topology::Fault;
use tokio::time::Instant;

const START: i64 = 1_767_225_600_000;
/// Far beyond what anything takes on a busy machine.
const DEADLINE: Duration = Duration::from_secs(120);

struct Stores {
    items: Arc<dyn ItemStore>,
    limits: Arc<dyn LimitStore>,
    clock: ManualClock,
    _kept: Option<tempfile::TempDir>,
}

async fn in_a_file() -> Stores {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("delayed.db");
    Stores {
        items: Arc::new(SqliteItems::open(&path).expect("the file opens")),
        limits: Arc::new(SqliteLimits::open(&path).expect("the file opens")),
        clock: ManualClock::at(Timestamp(START)),
        _kept: Some(folder),
    }
}

async fn on_mongo() -> Stores {
    let client =
        mongodb::Client::with_uri_str(Mongo::shared().await.uri()).await.expect("the address is right");
    let database = client.database(&unique("delay"));
    Stores {
        items: Arc::new(MongoItems::open(&database).await.expect("MongoDB answers")),
        limits: Arc::new(MongoLimits::open(&database).await.expect("MongoDB answers")),
        clock: ManualClock::at(Timestamp(START)),
        _kept: None,
    }
}

impl Stores {
    /// A process whose claims are others' after so long.
    fn process(&self, lease: Duration, attempts: u32) -> DelayStore {
        let pauses = Pauses::new(Duration::from_secs(10), Duration::from_secs(10));
        let options = DelayOptions { lease, retry: Retry { attempts, pauses }, ..DelayOptions::default() };
        DelayStore::new(self.items.clone(), Arc::new(self.clock.clone()), options)
    }

    /// One that is never lost.
    fn steady(&self) -> DelayStore {
        self.process(Duration::from_secs(3_600), 2)
    }

    fn rates(&self) -> RateLimits {
        RateLimits::new(self.limits.clone(), Arc::new(self.clock.clone()))
    }
}

fn item(id: &str, due: i64) -> Item {
    Item::new(id, Timestamp(START + due), serde_json::json!({ "of": id }))
}

async fn ids(store: &mut DelayStore, room: usize) -> Vec<String> {
    store.claim(room).await.unwrap().into_iter().map(|taken| taken.item.id).collect()
}

async fn what_is_due_is_claimed_in_order_by_one_and_never_multiplied(stores: Stores) {
    let (mut one, mut two) = (stores.steady(), stores.steady());
    assert_eq!(one.put(vec![item("late", 2_000), item("early", 1_000), item("far", 9_000)]).await, Ok(3));
    assert_eq!(two.put(vec![item("early", 0), item("new", 20_000), item("far", 0)]).await, Ok(1));
    assert_eq!(ids(&mut one, 9).await, [""; 0]);
    stores.clock.advance(2_000);
    let taken = one.claim(1).await.unwrap().remove(0);
    assert_eq!((&taken.item, taken.attempt, taken.epoch), (&item("early", 1_000), 1, 1));
    assert_eq!(ids(&mut two, 9).await, ["late"]);
    assert_eq!(ids(&mut one, 9).await, [""; 0]);
    assert_eq!(one.settle(&taken, &Ok(())).await, Ok(Settled::Done));
    assert_eq!(one.settle(&taken, &Ok(())).await, Ok(Settled::Gone));
    assert_eq!(one.len().await, Ok(3));
}

async fn a_lost_process_is_replaced_after_its_lease_and_cannot_settle_any_more(stores: Stores) {
    let (mut lost, mut other) = (stores.process(Duration::from_millis(300), 3), stores.steady());
    lost.put(vec![item("a", 0).key("k"), item("b", 0).key("k")]).await.unwrap();
    let first = lost.claim(9).await.unwrap();
    assert_eq!(first.len(), 1, "of a key the first only");
    let begun = Instant::now();
    let second = loop {
        assert!(begun.elapsed() < DEADLINE, "nobody takes it over");
        if let Some(taken) = other.claim(9).await.unwrap().pop() {
            break taken;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert!(begun.elapsed() >= Duration::from_millis(300), "within its lease");
    assert_eq!((second.item.id.as_str(), second.attempt, second.epoch), ("a", 2, 2));
    assert_eq!(lost.settle(&first[0], &Ok(())).await, Ok(Settled::Gone));
    assert_eq!(ids(&mut lost, 9).await, [""; 0]);
    assert_eq!(other.settle(&second, &Ok(())).await, Ok(Settled::Done));
    assert_eq!(ids(&mut lost, 9).await, ["b"]);
}

async fn faults_are_tried_again_by_their_kind_and_poison_is_parked(stores: Stores) {
    let mut store = stores.steady();
    store.put(vec![item("a", 0)]).await.unwrap();
    for (fault, parked) in [
        (Fault::unavailable("x"), None),
        (Fault::unavailable("x"), None),
        (Fault::transient("y"), None),
        (Fault::transient("z"), Some(("z", 2))),
    ] {
        let taken = store.claim(1).await.unwrap().remove(0);
        store.settle(&taken, &Err(fault)).await.unwrap();
        assert_eq!(ids(&mut store, 1).await, [""; 0], "there is a pause");
        stores.clock.advance(10_000);
        let found = store.parked(10).await.unwrap();
        assert_eq!(found.first().map(|parked| (parked.reason.as_str(), parked.attempts)), parked);
    }
    assert_eq!((store.resume("a").await, store.resume("a").await), (Ok(true), Ok(false)));
    let taken = store.claim(1).await.unwrap().remove(0);
    assert_eq!(taken.attempt, 1);
    assert_eq!(store.settle(&taken, &Err(Fault::permanent("never"))).await, Ok(Settled::Parked));
    assert_eq!((store.discard("a").await, store.discard("a").await), (Ok(true), Ok(false)));
    assert_eq!(store.is_empty().await, Ok(true));
}

async fn a_parked_key_waits_in_order_while_other_keys_flow(stores: Stores) {
    let mut store = stores.steady();
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
            let result = if poison { Err(Fault::permanent("poison")) } else { Ok(()) };
            store.settle(&taken, &result).await.unwrap();
            order.push(taken.item.id);
        }
    }
    assert_eq!(order, ["a1", "b1", "c", "b2"]);
    let parked = store.parked(10).await.unwrap();
    assert_eq!((parked.len(), parked[0].id.as_str(), parked[0].waiting), (1, "a1", 2));
    assert_eq!(store.discard("a1").await, Ok(true));
    for expected in ["a2", "a3"] {
        let taken = store.claim(10).await.unwrap().remove(0);
        assert_eq!(taken.item.id, expected);
        store.settle(&taken, &Ok(())).await.unwrap();
    }
    assert_eq!(store.is_empty().await, Ok(true));
}

async fn processes_that_are_killed_at_random_do_each_item_once_and_each_key_in_order(stores: Stores) {
    let mut rng = fastrand::Rng::with_seed(7);
    let process = || stores.process(Duration::from_millis(500), 1_000);
    let mut processes: Vec<(DelayStore, Vec<Taken>)> = (0..3).map(|_| (process(), Vec::new())).collect();
    let mut put: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for n in 0..80 {
        let (key, id) = (format!("key-{}", rng.u32(..6)), format!("item-{n}"));
        processes[n % 3].0.put(vec![item(&id, 0).key(&key)]).await.unwrap();
        put.entry(key).or_default().push(id);
    }
    let mut done: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let begun = Instant::now();
    let mut kills = 40;
    while !processes[0].0.is_empty().await.unwrap() {
        assert!(begun.elapsed() < DEADLINE, "it comes to an end: {done:?}");
        stores.clock.advance(20_000);
        for (store, running) in &mut processes {
            // So many times: a lease ends only for who lives as long as it, and how many rounds a second has depends on the machine.
            if kills > 0 && rng.u32(..15) == 0 {
                kills -= 1;
                // Killed, and what it had with it.
                (*store, *running) = (process(), Vec::new());
            }
            for taken in std::mem::take(running) {
                let result = if rng.u32(..4) == 0 { Err(Fault::transient("not now")) } else { Ok(()) };
                if store.settle(&taken, &result).await.unwrap() == Settled::Done {
                    done.entry(taken.item.key.clone().expect("all have a key"))
                        .or_default()
                        .push(taken.item.id);
                }
            }
            running.extend(store.claim(rng.usize(..6)).await.unwrap());
        }
    }
    assert_eq!(done, put);
}

async fn two_who_claim_at_once_never_have_the_same(stores: Stores) {
    let items = (0..300).map(|n| item(&format!("{n}"), 0)).collect();
    stores.steady().put(items).await.unwrap();
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..3 {
        let mut store = stores.steady();
        tasks.spawn(async move {
            let mut had = Vec::new();
            // One that finds others quicker looks again.
            while store.len().await.unwrap() > 0 {
                for taken in store.claim(20).await.unwrap() {
                    assert_eq!(store.settle(&taken, &Ok(())).await, Ok(Settled::Done));
                    had.push(taken.item.id);
                }
            }
            had
        });
    }
    let mut all = Vec::new();
    while let Some(had) = tasks.join_next().await {
        all.extend(had.expect("it ended"));
    }
    let distinct: BTreeSet<&String> = all.iter().collect();
    assert_eq!((all.len(), distinct.len()), (300, 300));
}

async fn a_limit_holds_over_all_who_ask_and_a_key_holds_up_no_other(stores: Stores) {
    let (one, two, clock) = (stores.rates(), stores.rates(), &stores.clock);
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
    // Whoever asks forgets what is idle, every ten minutes.
    assert_eq!(one.ask(&of("a")).await, Ok(Permit::Granted));
    clock.advance(700_000);
    assert_eq!(two.ask(&of("b")).await, Ok(Permit::Granted));
    clock.advance(60_000);
    assert_eq!(two.forget_idle().await, Ok(1), "`a` was forgotten before");
}

async fn several_limits_count_together_or_not_at_all(stores: Stores) {
    let (store, clock) = (stores.rates(), &stores.clock);
    let second = Limit::new("a second", "k", 5, Duration::from_secs(1)).burst(1);
    let both = [second.clone(), Limit::new("a minute", "k", 2, Duration::from_secs(60)).burst(2)];
    assert_eq!(store.ask(&both).await, Ok(Permit::Granted));
    assert_eq!(store.ask(&both).await, Ok(Permit::After(Duration::from_millis(200))));
    clock.advance(200);
    assert_eq!(store.ask(&both).await, Ok(Permit::Granted));
    clock.advance(200);
    assert_eq!(store.ask(&both).await, Ok(Permit::After(Duration::from_millis(29_600))));
    // That did not count for the other.
    assert_eq!(store.ask(std::slice::from_ref(&second)).await, Ok(Permit::Granted));
}

async fn of_many_who_ask_at_once_as_many_are_let_through_as_may(stores: Stores) {
    let mut tasks = tokio::task::JoinSet::new();
    for task in 0..6 {
        let rates = stores.rates();
        tasks.spawn(async move {
            let all = Limit::new("all", "", 17, Duration::from_secs(60));
            let mut granted = 0;
            for n in 0..20 {
                let own = Limit::new("own", format!("{task}"), 1_000, Duration::from_secs(1));
                let limits = if n % 2 == 0 { vec![all.clone(), own] } else { vec![own, all.clone()] };
                granted += u32::from(rates.ask(&limits).await.unwrap() == Permit::Granted);
            }
            granted
        });
    }
    let mut granted = 0;
    while let Some(of_one) = tasks.join_next().await {
        granted += of_one.expect("it ended");
    }
    assert_eq!(granted, 17);
}

macro_rules! stores {
    ($cases:tt: $($store:ident),*) => { $(stores!(@one $store $cases);)* };
    (@one $store:ident { $($sentence:ident)* }) => {
        mod $store {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $sentence() {
                    super::$sentence(super::$store().await).await;
                }
            )*
        }
    };
}

stores!({
    what_is_due_is_claimed_in_order_by_one_and_never_multiplied
    a_lost_process_is_replaced_after_its_lease_and_cannot_settle_any_more
    faults_are_tried_again_by_their_kind_and_poison_is_parked
    a_parked_key_waits_in_order_while_other_keys_flow
    processes_that_are_killed_at_random_do_each_item_once_and_each_key_in_order
    two_who_claim_at_once_never_have_the_same
    a_limit_holds_over_all_who_ask_and_a_key_holds_up_no_other
    several_limits_count_together_or_not_at_all
    of_many_who_ask_at_once_as_many_are_let_through_as_may
}: in_a_file, on_mongo);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_lost_process_left_in_mongodb_is_brought_to_its_end() {
    let client =
        mongodb::Client::with_uri_str(Mongo::shared().await.uri()).await.expect("the address is right");
    let database = client.database(&unique("delay"));
    let clock = ManualClock::at(Timestamp(START));
    let items = Arc::new(MongoItems::open(&database).await.expect("MongoDB answers"));
    let mut store = DelayStore::new(items, Arc::new(clock), DelayOptions::default());
    store.put(vec![item("a", 0).key("k"), item("b", 0).key("k"), item("c", 0).key("k")]).await.unwrap();
    let documents = database.collection::<bson::Document>("delayed_items");
    // As it is when a process is killed after it marked an item as done, and another between putting one and looking at its key.
    let done = bson::doc! { "$set": { "done": true }, "$unset": { "due": "" } };
    documents.update_one(bson::doc! { "_id": "a" }, done).await.unwrap();
    let fresh = bson::doc! { "_id": "x", "seq": 99_i64, "first": false, "due": START, "attempts": 0_i64, "epoch": 0_i64,
    "renewal": 0_i64, "lease": 0_i64, "payload": "null", "key": "alone", "fresh": true };
    documents.insert_one(fresh).await.unwrap();
    let mut order = Vec::new();
    loop {
        let taken = store.claim(10).await.unwrap();
        if taken.is_empty() {
            break;
        }
        for taken in taken {
            assert_eq!(store.settle(&taken, &Ok(())).await, Ok(Settled::Done));
            order.push(taken.item.id);
        }
    }
    order[..2].sort();
    assert_eq!(order, ["b", "x", "c"]);
    for collection in ["delayed_items", "delayed_keys"] {
        let left = database.collection::<bson::Document>(collection).count_documents(bson::doc! {}).await;
        assert_eq!(left.unwrap(), 0, "{collection} does not grow");
    }
}
