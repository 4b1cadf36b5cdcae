//! Each store behaves as the trait says.

use std::sync::Arc;

use galerna_fan_in::mongo::MongoFanIns;
use galerna_fan_in::sqlite::SqliteFanIns;
use galerna_fan_in::{
    End, FanIn, FanInError, FanInOptions, FanInStore, Part, Plan, Policy, Record, Reported,
};
use galerna_model::{ManualClock, Timestamp};
use galerna_test_servers::{Mongo, unique};

const START: i64 = 1_767_225_600_000;
const DAY: i64 = 86_400_000;

type Kept = Box<dyn std::any::Any>;

async fn in_memory() -> (Arc<dyn FanInStore>, Kept) {
    (Arc::new(SqliteFanIns::in_memory().unwrap()), Box::new(()))
}

async fn in_a_file() -> (Arc<dyn FanInStore>, Kept) {
    let folder = tempfile::tempdir().expect("a folder");
    let store = SqliteFanIns::open(&folder.path().join("fan_ins.db")).expect("the file opens");
    (Arc::new(store), Box::new(folder))
}

async fn on_mongo() -> (Arc<dyn FanInStore>, Kept) {
    let client =
        mongodb::Client::with_uri_str(Mongo::shared().await.uri()).await.expect("the address is right");
    let store = MongoFanIns::open(&client.database(&unique("fan-ins"))).await.expect("MongoDB answers");
    (Arc::new(store), Box::new(client))
}

fn plan(id: &str, deadline: i64) -> Plan {
    Plan {
        id: id.to_owned(),
        parts: ["a", "b.c$d"].map(str::to_owned).to_vec(),
        policy: Policy::All,
        deadline: Timestamp(START + deadline),
        payload: serde_json::json!({ "n": [1.5, null, "\u{1f4a1}"] }),
    }
}

fn process(store: &Arc<dyn FanInStore>, clock: &ManualClock) -> FanIn {
    FanIn::new(store.clone(), Arc::new(clock.clone()), FanInOptions::default())
}

async fn a_record_comes_back_as_it_was_written_and_is_there_once(store: Arc<dyn FanInStore>) {
    let clock = ManualClock::at(Timestamp(START));
    let fan_in = process(&store, &clock);
    assert_eq!(store.get("f").await, Ok(None));
    let begun = fan_in.begin(plan("f", 1_000)).await.unwrap();
    assert_eq!(store.get("f").await, Ok(Some(begun.clone())));
    assert_eq!(fan_in.begin(plan("f", 9_000)).await, Ok(begun.clone()), "the first stands");
    fan_in.report("f", "b.c$d", Ok(serde_json::json!({"v": 17}))).await.unwrap();
    let found = store.get("f").await.unwrap().unwrap();
    assert_eq!(found.parts["b.c$d"], Part::Done(serde_json::json!({"v": 17})));
    assert_ne!(found.version, begun.version);
}

async fn a_swap_of_another_version_changes_nothing(store: Arc<dyn FanInStore>) {
    let clock = ManualClock::at(Timestamp(START));
    let begun = process(&store, &clock).begin(plan("f", 1_000)).await.unwrap();
    let changed = Record { late: 7, version: begun.version.wrapping_add(1), ..begun.clone() };
    assert_eq!(store.swap(&changed, begun.version.wrapping_add(9)).await, Ok(false));
    assert_eq!(store.get("f").await, Ok(Some(begun.clone())));
    assert_eq!(store.swap(&changed, begun.version).await, Ok(true));
    assert_eq!(store.get("f").await, Ok(Some(changed.clone())));
    let nobody = Record { id: "nobody".to_owned(), ..changed };
    assert_eq!(store.swap(&nobody, 1).await, Ok(false));
}

async fn those_whose_deadline_passed_and_those_that_ended_are_pending_and_the_longest_first(
    store: Arc<dyn FanInStore>,
) {
    let clock = ManualClock::at(Timestamp(START));
    let mut fan_in = process(&store, &clock);
    for (id, deadline) in [("later", 9_000), ("second", 2_000), ("first", 1_000)] {
        fan_in.begin(plan(id, deadline)).await.unwrap();
    }
    let pending = async |at: i64, limit| {
        let found = store.pending(Timestamp(START + at), limit).await.unwrap();
        found.into_iter().map(|record| record.id).collect::<Vec<_>>()
    };
    assert_eq!(pending(999, 10).await, [""; 0]);
    assert_eq!(pending(2_000, 10).await, ["first", "second"]);
    assert_eq!(pending(2_000, 1).await, ["first"]);
    clock.advance(500);
    let told = fan_in.report("later", "a", Err("no".to_owned())).await;
    assert_eq!(told, Ok(Reported::Counted(Some(End::Failed))));
    assert_eq!(pending(500, 10).await, ["later"], "it ended");
    let ended = fan_in.ended(10).await.unwrap();
    assert_eq!((ended.len(), ended[0].end), (1, End::Failed));
    fan_in.settle(&ended[0]).await.unwrap();
    assert_eq!(pending(2_000, 10).await, ["first", "second"], "it was acted on");
}

async fn what_was_acted_on_is_forgotten_by_age_and_by_whoever_takes_part(store: Arc<dyn FanInStore>) {
    let clock = ManualClock::at(Timestamp(START));
    let mut fan_in = process(&store, &clock);
    for id in ["acted on", "not acted on"] {
        fan_in.begin(plan(id, 100 * DAY)).await.unwrap();
        fan_in.report(id, "a", Err("no".to_owned())).await.unwrap();
        if id == "acted on" {
            let ended = fan_in.ended(1).await.unwrap();
            fan_in.settle(&ended[0]).await.unwrap();
        }
    }
    fan_in.begin(plan("open", 100 * DAY)).await.unwrap();
    assert_eq!(store.forget(Timestamp(START)).await, Ok(0));
    clock.advance(8 * DAY);
    // Another process begins, looks, and forgets.
    process(&store, &clock).ended(0).await.unwrap();
    assert_eq!(store.get("acted on").await, Ok(None));
    for id in ["not acted on", "open"] {
        assert!(store.get(id).await.unwrap().is_some(), "{id}");
    }
}

async fn a_hundred_parts_told_at_once_by_two_processes_are_one_end(store: Arc<dyn FanInStore>) {
    let clock = ManualClock::at(Timestamp(START));
    let parts: Vec<String> = (0..100).map(|n| n.to_string()).collect();
    let begun = process(&store, &clock).begin(Plan { parts: parts.clone(), ..plan("f", DAY) }).await;
    begun.unwrap();
    let mut tasks = tokio::task::JoinSet::new();
    for half in 0..2 {
        let (store, clock, parts) = (store.clone(), clock.clone(), parts.clone());
        tasks.spawn(async move {
            let fan_in = process(&store, &clock);
            let mut ends = 0;
            for name in parts.iter().skip(half).step_by(2).chain(&parts) {
                let reported = loop {
                    match fan_in.report("f", name, Ok(1.into())).await {
                        Ok(reported) => break reported,
                        Err(FanInError::Unavailable { .. }) => tokio::task::yield_now().await,
                        Err(error) => panic!("{error}"),
                    }
                };
                ends += u32::from(matches!(reported, Reported::Counted(Some(End::Complete))));
            }
            ends
        });
    }
    let mut ends = 0;
    while let Some(ended) = tasks.join_next().await {
        ends += ended.expect("it ended");
    }
    let record = store.get("f").await.unwrap().unwrap();
    assert_eq!((ends, record.duplicates, record.end.unwrap().0), (1, 200, End::Complete));
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
    a_record_comes_back_as_it_was_written_and_is_there_once
    a_swap_of_another_version_changes_nothing
    those_whose_deadline_passed_and_those_that_ended_are_pending_and_the_longest_first
    what_was_acted_on_is_forgotten_by_age_and_by_whoever_takes_part
    a_hundred_parts_told_at_once_by_two_processes_are_one_end
}: in_memory, in_a_file, on_mongo);
