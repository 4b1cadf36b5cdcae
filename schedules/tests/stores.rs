//! What every store keeps to: in memory, in a file that two have open, in MongoDB.

use std::sync::Arc;
use std::time::Duration;

use galerna_model::{ManualClock, Timestamp};
use galerna_schedules::mongo::MongoSchedules;
use galerna_schedules::sqlite::SqliteSchedules;
use galerna_schedules::{
    Cancel, Definition, Ended, FiringId, Origin, Outcome, Overlap, Record, ScheduleError, ScheduleId,
    ScheduleStore, Scheduler, SchedulerOptions, Schedules, Skip,
};
use galerna_test_servers::{Mongo, unique};

/// 2026-01-01T00:00:00Z.
const START: i64 = 1_767_225_600_000;

fn id(name: &str) -> ScheduleId {
    ScheduleId::new(name).expect("a valid name")
}

type Store = Arc<dyn ScheduleStore>;

async fn in_memory() -> (Store, ()) {
    (Arc::new(SqliteSchedules::in_memory().expect("SQLite opens in memory")), ())
}

async fn in_a_file() -> (Store, tempfile::TempDir) {
    let folder = tempfile::tempdir().expect("a folder");
    let store = SqliteSchedules::open(&folder.path().join("schedules.db")).expect("the file opens");
    (Arc::new(store), folder)
}

async fn on_mongo() -> (Store, ()) {
    let client =
        mongodb::Client::with_uri_str(Mongo::shared().await.uri()).await.expect("the address is right");
    let store = MongoSchedules::open(&client.database(&unique("schedules"))).await.expect("MongoDB answers");
    (Arc::new(store), ())
}

struct World {
    store: Store,
    clock: ManualClock,
    schedules: Schedules,
}

impl World {
    fn new(store: Store) -> Self {
        let clock = ManualClock::at(Timestamp(START));
        let schedules = Schedules::new(Arc::clone(&store), Arc::new(clock.clone()));
        Self { store, clock, schedules }
    }

    fn process(&self, name: &str) -> Scheduler {
        let options = SchedulerOptions { holder: name.to_owned(), ..SchedulerOptions::default() };
        Scheduler::new(Arc::clone(&self.store), Arc::new(self.clock.clone()), options)
    }

    async fn add(&self, name: &str, definition: Definition) -> Record {
        self.schedules.add(id(name), definition).await.expect("it is added")
    }
}

async fn a_record_comes_back_as_it_was_written(store: Store) {
    let world = World::new(Arc::clone(&store));
    let mut definition = Definition::cron("30 2 * * MON", "Europe/Berlin")
        .payload(serde_json::json!({ "a.b": [1, 2.5, null] }));
    definition.remaining = Some(5);
    definition.exclude = vec!["2026-12-25".to_owned()];
    let added = world.add("a/weekly", definition).await;
    assert_eq!(store.get(&id("a/weekly")).await.unwrap(), Some(added.clone()));
    assert!(!store.insert(&added).await.unwrap(), "the name is taken");
    let error = world.schedules.add(id("a/weekly"), Definition::at(Timestamp(START))).await.unwrap_err();
    assert_eq!(error, ScheduleError::Exists(id("a/weekly")));
    assert_eq!(world.schedules.get(&id("none")).await.unwrap_err(), ScheduleError::NotFound(id("none")));
}

async fn a_swap_of_another_version_changes_nothing(store: Store) {
    let world = World::new(Arc::clone(&store));
    let record = world.add("s", Definition::every(Duration::from_secs(60))).await;
    let changed = Record { version: 17, number: 9, ..record.clone() };
    let ended = Ended {
        id: FiringId { schedule: id("s"), nominal: Timestamp(START), origin: Origin::Planned },
        outcome: Outcome::Skipped(Skip::Overlap),
        at: Timestamp(START),
        attempts: 0,
        fault: None,
    };
    assert!(
        !store.swap(&changed, record.version.wrapping_add(1), std::slice::from_ref(&ended)).await.unwrap()
    );
    assert_eq!(store.get(&id("s")).await.unwrap(), Some(record.clone()));
    assert_eq!(store.history(&id("s"), None, 10).await.unwrap(), []);
    assert!(store.swap(&changed, record.version, std::slice::from_ref(&ended)).await.unwrap());
    assert_eq!(store.get(&id("s")).await.unwrap(), Some(changed.clone()));
    assert_eq!(store.history(&id("s"), None, 10).await.unwrap(), [ended]);
    assert!(!store.remove(&id("s"), record.version, &[]).await.unwrap());
    assert!(store.remove(&id("s"), changed.version, &[]).await.unwrap());
    assert_eq!(store.get(&id("s")).await.unwrap(), None);
    assert!(!store.swap(&changed, changed.version, &[]).await.unwrap());
}

async fn schedules_are_listed_by_name_and_found_by_due_time(store: Store) {
    let world = World::new(Arc::clone(&store));
    for (name, seconds) in [("c", 30), ("a", 20), ("b", 10)] {
        world.add(name, Definition::every(Duration::from_secs(seconds))).await;
    }
    world.add("past", Definition::at(Timestamp(START - 1))).await;
    let names = |records: Vec<Record>| records.iter().map(|record| record.id.to_string()).collect::<Vec<_>>();
    assert_eq!(names(store.list(None, 10).await.unwrap()), ["a", "b", "c", "past"]);
    assert_eq!(names(store.list(Some(&id("a")), 2).await.unwrap()), ["b", "c"]);
    assert_eq!(store.next_wake().await.unwrap(), Some(Timestamp(START + 10_000)));
    assert_eq!(names(store.pending(Timestamp(START + 9_999), 10).await.unwrap()), [""; 0]);
    assert_eq!(names(store.pending(Timestamp(START + 20_000), 10).await.unwrap()), ["b", "a"]);
    assert_eq!(names(store.pending(Timestamp(START + 60_000), 2).await.unwrap()), ["b", "a"]);
    // One that runs is found whenever somebody looks.
    let mut process = world.process("one");
    world.clock.advance(10_000);
    assert_eq!(process.tick(9).await.unwrap().claimed.len(), 1);
    assert_eq!(names(store.pending(Timestamp(START), 10).await.unwrap()), ["b"]);
    assert_eq!(store.next_wake().await.unwrap(), Some(Timestamp(START + 20_000)));
}

async fn what_ended_is_kept_in_order_after_its_schedule_is_gone_and_forgotten_by_time(store: Store) {
    let world = World::new(Arc::clone(&store));
    world.add("s", Definition::every(Duration::from_secs(60))).await;
    let mut process = world.process("one");
    for _ in 0..3 {
        world.clock.advance(60_000);
        let claimed = process.tick(1).await.unwrap().claimed;
        process.finish(&claimed[0], &Ok(())).await.unwrap();
    }
    world.schedules.trigger(&id("s"), None).await.unwrap();
    world.schedules.remove(&id("s")).await.unwrap();
    let told = |ended: &[Ended]| ended.iter().map(|e| (e.id.to_string(), e.outcome)).collect::<Vec<_>>();
    let done = |minute: i64| (format!("s@2026-01-01T00:0{minute}:00Z"), Outcome::Done);
    let cancelled = ("s@2026-01-01T00:03:00Z#triggered-1".to_owned(), Outcome::Cancelled(Cancel::Removed));
    let history = store.history(&id("s"), None, 10).await.unwrap();
    assert_eq!(told(&history), [cancelled.clone(), done(3), done(2), done(1)]);
    let earlier = store.history(&id("s"), Some(Timestamp(START + 180_000)), 1).await.unwrap();
    assert_eq!(told(&earlier), [done(2)]);
    assert_eq!(store.forget(Timestamp(START + 180_000)).await.unwrap(), 2);
    assert_eq!(told(&store.history(&id("s"), None, 10).await.unwrap()), [cancelled, done(3)]);
    // The name is free again.
    world.add("s", Definition::at(Timestamp(START + 999_999))).await;
}

async fn an_hour_of_missed_seconds_is_recorded_one_by_one(store: Store) {
    let world = World::new(Arc::clone(&store));
    world.add("s", Definition::every(Duration::from_secs(1))).await;
    world.clock.advance(3_600_000);
    let tick = world.process("one").tick(100).await.unwrap();
    // On time are those of the last 5 s; the first of them runs, and the others meet it.
    assert_eq!(tick.claimed.len(), 1);
    let record = world.schedules.get(&id("s")).await.unwrap();
    let counts: Vec<(&str, u64)> =
        record.counts.iter().map(|(name, count)| (name.as_str(), *count)).collect();
    assert_eq!(counts, [("missed.catchup_window", 3539), ("missed.later_one", 55), ("skipped.overlap", 5)]);
    assert_eq!(store.history(&id("s"), None, 10_000).await.unwrap().len(), 3599);
}

async fn many_who_change_one_schedule_lose_no_change(store: Store) {
    let world = World::new(store);
    world.add("s", Definition::every(Duration::from_secs(3600))).await;
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let schedules = world.schedules.clone();
        tasks.spawn(async move {
            for _ in 0..5 {
                loop {
                    match schedules.trigger(&id("s"), Some(Overlap::AllowAll)).await {
                        Ok(_) => break,
                        Err(ScheduleError::Busy(_)) => tokio::task::yield_now().await,
                        Err(error) => panic!("{error}"),
                    }
                }
            }
        });
    }
    while let Some(ended) = tasks.join_next().await {
        ended.expect("it ended");
    }
    let record = world.schedules.get(&id("s")).await.unwrap();
    assert_eq!((record.number, record.open.len()), (40, 40));
}

macro_rules! stores {
    ($cases:tt: $($store:ident),*) => { $(stores!(@one $store $cases);)* };
    (@one $store:ident { $($sentence:ident)* }) => {
        mod $store {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $sentence() {
                    let (store, _kept) = super::$store().await;
                    super::$sentence(store).await;
                }
            )*
        }
    };
}

stores!({
    a_record_comes_back_as_it_was_written
    a_swap_of_another_version_changes_nothing
    schedules_are_listed_by_name_and_found_by_due_time
    what_ended_is_kept_in_order_after_its_schedule_is_gone_and_forgotten_by_time
    an_hour_of_missed_seconds_is_recorded_one_by_one
    many_who_change_one_schedule_lose_no_change
}: in_memory, in_a_file, on_mongo);

#[tokio::test]
async fn two_have_one_file_open_and_see_each_other() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("schedules.db");
    let (one, two) = (SqliteSchedules::open(&path).unwrap(), SqliteSchedules::open(&path).unwrap());
    let world = World::new(Arc::new(one));
    let record = world.add("s", Definition::every(Duration::from_secs(60))).await;
    assert_eq!(two.get(&id("s")).await.unwrap(), Some(record.clone()));
    let changed = Record { version: 3, ..record.clone() };
    assert!(two.swap(&changed, record.version, &[]).await.unwrap());
    assert!(!world.store.swap(&changed, record.version, &[]).await.unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_lost_process_left_in_mongodb_is_found() {
    let client =
        mongodb::Client::with_uri_str(Mongo::shared().await.uri()).await.expect("the address is right");
    let database = client.database(&unique("schedules"));
    let store = MongoSchedules::open(&database).await.expect("MongoDB answers");
    let world = World::new(Arc::new(store));
    world.add("s", Definition::every(Duration::from_secs(60))).await;
    let first = world.schedules.trigger(&id("s"), None).await.unwrap();
    assert_eq!(first.1, None);
    world.schedules.trigger(&id("s"), None).await.unwrap();
    // As it is when its process is killed between the two writes: what ended is still in the schedule.
    let firings = database.collection::<bson::Document>("schedule_firings");
    let filed = firings.find_one_and_delete(bson::doc! {}).await.unwrap().expect("the second was skipped");
    let put_back = bson::doc! { "$set": { "unfiled": true }, "$push": { "ended": filed } };
    let schedules = database.collection::<bson::Document>("schedules");
    schedules.update_one(bson::doc! { "_id": "s" }, put_back).await.unwrap();
    let history = world.store.history(&id("s"), None, 10).await.unwrap();
    assert_eq!(history.len(), 1);
    assert_eq!(history[0].outcome, Outcome::Skipped(Skip::Overlap));
    // And a schedule whose remover was lost keeps nobody from its name.
    let removed = bson::doc! { "$set": { "removed": true, "unfiled": true, "running": 0_i64 }, "$unset": { "wake": "" } };
    schedules.update_one(bson::doc! { "_id": "s" }, removed).await.unwrap();
    assert_eq!(world.store.get(&id("s")).await.unwrap(), None);
    world.add("s", Definition::every(Duration::from_secs(60))).await;
}
