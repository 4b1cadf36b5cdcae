//! Whoever takes part is killed before, or right after, any of its operations on the store: a fan-in ends exactly once, and the end is
//! acted on.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use galerna_fan_in::sqlite::SqliteFanIns;
use galerna_fan_in::{
    End, FanIn, FanInError, FanInOptions, FanInStore, Part, Plan, Policy, Record, Reported,
};
use galerna_model::{ManualClock, Timestamp};
use proptest::prelude::*;

const START: i64 = 1_767_225_600_000;
const DEADLINE: i64 = START + 60_000;

/// A store at which one operation of a process is its last: it is done or not, and either way nobody hears of it.
struct Crashing {
    store: Arc<dyn FanInStore>,
    operations: AtomicUsize,
    last: usize,
    done: bool,
}

impl Crashing {
    fn crashed() -> FanInError {
        FanInError::Unavailable { attempted: "anything".to_owned(), cause: "the process is dead".to_owned() }
    }

    /// Whether this operation is done, and whether its answer arrives.
    fn next(&self) -> (bool, bool) {
        let number = self.operations.fetch_add(1, Ordering::Relaxed);
        (number < self.last || (number == self.last && self.done), number < self.last)
    }
}

macro_rules! crashing {
    ($self:ident, $call:expr) => {{
        let (done, answered) = $self.next();
        if !done {
            return Err(Crashing::crashed());
        }
        let answer = $call.await;
        if answered { answer } else { Err(Crashing::crashed()) }
    }};
}

#[async_trait]
impl FanInStore for Crashing {
    async fn insert(&self, record: &Record) -> Result<bool, FanInError> {
        crashing!(self, self.store.insert(record))
    }

    async fn get(&self, id: &str) -> Result<Option<Record>, FanInError> {
        crashing!(self, self.store.get(id))
    }

    async fn swap(&self, record: &Record, expected: i64) -> Result<bool, FanInError> {
        crashing!(self, self.store.swap(record, expected))
    }

    async fn pending(&self, now: Timestamp, limit: usize) -> Result<Vec<Record>, FanInError> {
        crashing!(self, self.store.pending(now, limit))
    }

    async fn forget(&self, before: Timestamp) -> Result<u64, FanInError> {
        crashing!(self, self.store.forget(before))
    }
}

fn plan(policy: Policy) -> Plan {
    Plan {
        id: "f".to_owned(),
        parts: ["a", "b", "c"].map(str::to_owned).to_vec(),
        policy,
        deadline: Timestamp(DEADLINE),
        payload: serde_json::Value::Null,
    }
}

/// What a process does of it, from whatever is there: begins, has the parts that are missing done, acts on the end. Whom it told.
async fn work(fan_in: &mut FanIn, policy: Policy, told: &mut Vec<End>) -> Result<(), FanInError> {
    let record = fan_in.begin(plan(policy)).await?;
    for (name, part) in record.parts {
        if part == Part::Waiting {
            let result = if name == "b" { Err("b fails".to_owned()) } else { Ok(name.clone().into()) };
            fan_in.report("f", &name, result).await?;
        }
    }
    for ended in fan_in.ended(10).await? {
        told.push(ended.end);
        assert!(fan_in.settle(&ended).await?, "nobody else was there");
    }
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_crash_between_any_two_operations_leaves_one_end_that_is_acted_on() {
    for (policy, expected) in [
        (Policy::All, End::Failed),
        (Policy::Quorum(2), End::Partial),
        (Policy::Quorum(3), End::Failed),
        (Policy::BestEffort, End::Partial),
    ] {
        let mut crashes = 0;
        for last in 0.. {
            let mut completed = true;
            for done in [false, true] {
                let store: Arc<dyn FanInStore> = Arc::new(SqliteFanIns::in_memory().unwrap());
                let clock = ManualClock::at(Timestamp(START));
                let mut told = Vec::new();
                let crashing = Crashing { store: store.clone(), operations: AtomicUsize::new(0), last, done };
                let mut first =
                    FanIn::new(Arc::new(crashing), Arc::new(clock.clone()), FanInOptions::default());
                completed &= work(&mut first, policy, &mut told).await.is_ok();
                let before = store.get("f").await.unwrap().and_then(|record| record.end);
                drop(first);
                // Another process, and as much time as a lease takes.
                let mut second = FanIn::new(store.clone(), Arc::new(clock.clone()), FanInOptions::default());
                work(&mut second, policy, &mut told).await.unwrap();
                tokio::time::advance(Duration::from_secs(61)).await;
                work(&mut second, policy, &mut told).await.unwrap();
                let record = store.get("f").await.unwrap().expect("it was begun");
                assert!(record.settled, "{policy:?}, operation {last}, done: {done}");
                assert_eq!(record.check(), Ok(()));
                assert!(before.is_none_or(|before| record.end == Some(before)), "the end has changed");
                // Acted on again only if the process was lost between acting and saying so.
                assert!((1..=2).contains(&told.len()), "{told:?}");
                assert!(told.iter().all(|end| *end == expected), "{told:?}");
            }
            crashes += 1;
            if completed {
                break;
            }
        }
        assert!(crashes >= 8, "each operation was the last once: {crashes}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_deadline_ends_what_is_not_there_and_late_parts_are_counted() {
    for (policy, reported, expected) in [
        (Policy::All, vec!["a"], End::TimedOut),
        (Policy::Quorum(2), vec!["a"], End::TimedOut),
        (Policy::BestEffort, vec!["a"], End::Partial),
        (Policy::BestEffort, vec![], End::TimedOut),
    ] {
        let store: Arc<dyn FanInStore> = Arc::new(SqliteFanIns::in_memory().unwrap());
        let clock = ManualClock::at(Timestamp(START));
        let mut fan_in = FanIn::new(store, Arc::new(clock.clone()), FanInOptions::default());
        fan_in.begin(plan(policy)).await.unwrap();
        for name in &reported {
            assert_eq!(fan_in.report("f", name, Ok(1.into())).await, Ok(Reported::Counted(None)));
        }
        clock.advance(DEADLINE - START - 1);
        assert_eq!(fan_in.ended(10).await.unwrap(), []);
        clock.advance(1);
        // Whoever looks first: a part at the deadline is late.
        assert_eq!(fan_in.report("f", "c", Ok(1.into())).await, Ok(Reported::Late));
        let ended = fan_in.ended(10).await.unwrap();
        assert_eq!((ended.len(), ended[0].end, ended[0].record.late), (1, expected, 1), "{policy:?}");
        assert_eq!(ended[0].record.parts["c"], Part::Waiting);
        assert_eq!(fan_in.ended(10).await.unwrap(), [], "it is claimed");
        assert!(fan_in.settle(&ended[0]).await.unwrap());
        assert_eq!(fan_in.ended(10).await.unwrap(), [], "it is settled");
    }
}

#[tokio::test(start_paused = true)]
async fn an_end_is_anothers_after_the_lease_and_the_first_is_told() {
    let store: Arc<dyn FanInStore> = Arc::new(SqliteFanIns::in_memory().unwrap());
    let clock = ManualClock::at(Timestamp(START));
    let process = || FanIn::new(store.clone(), Arc::new(clock.clone()), FanInOptions::default());
    let (mut one, mut two) = (process(), process());
    one.begin(plan(Policy::Quorum(1))).await.unwrap();
    one.report("f", "a", Ok(1.into())).await.unwrap();
    let first = one.ended(10).await.unwrap().remove(0);
    assert_eq!(two.ended(10).await.unwrap(), []);
    tokio::time::advance(Duration::from_secs(59)).await;
    assert_eq!(two.ended(10).await.unwrap(), []);
    tokio::time::advance(Duration::from_secs(1)).await;
    let second = two.ended(10).await.unwrap().remove(0);
    assert!(second.epoch > first.epoch);
    assert!(!one.settle(&first).await.unwrap(), "its claim is lost");
    assert!(two.settle(&second).await.unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_parts_told_at_once_and_twice_are_one_complete_end() {
    let store: Arc<dyn FanInStore> = Arc::new(SqliteFanIns::in_memory().unwrap());
    let clock = ManualClock::at(Timestamp(START));
    let fan_in = Arc::new(FanIn::new(store.clone(), Arc::new(clock), FanInOptions::default()));
    let parts: Vec<String> = (0..100).map(|n| n.to_string()).collect();
    fan_in.begin(Plan { parts: parts.clone(), ..plan(Policy::All) }).await.unwrap();
    let mut tasks = tokio::task::JoinSet::new();
    for name in parts.iter().chain(&parts) {
        let name = name.clone();
        let fan_in = Arc::clone(&fan_in);
        tasks.spawn(async move {
            loop {
                match fan_in.report("f", &name, Ok(name.clone().into())).await {
                    Ok(reported) => return reported,
                    Err(FanInError::Unavailable { .. }) => tokio::task::yield_now().await,
                    Err(error) => panic!("{error}"),
                }
            }
        });
    }
    let mut ends = 0;
    while let Some(reported) = tasks.join_next().await {
        ends += usize::from(reported.unwrap() == Reported::Counted(Some(End::Complete)));
    }
    let record = store.get("f").await.unwrap().unwrap();
    assert_eq!((ends, record.duplicates, record.late), (1, 100, 0));
    assert_eq!(record.end.unwrap().0, End::Complete);
}

#[tokio::test]
async fn many_parts_are_told_in_one_write_or_none_is() {
    let store: Arc<dyn FanInStore> = Arc::new(SqliteFanIns::in_memory().unwrap());
    let clock = ManualClock::at(Timestamp(START));
    let fan_in = FanIn::new(store, Arc::new(clock), FanInOptions::default());
    fan_in.begin(plan(Policy::Quorum(2))).await.unwrap();
    let told =
        |names: &[&str]| names.iter().map(|name| ((*name).to_owned(), Ok(1.into()))).collect::<Vec<_>>();
    let unknown = fan_in.report_all("f", &told(&["a", "z"])).await;
    assert!(matches!(unknown, Err(FanInError::UnknownPart { .. })), "{unknown:?}");
    let reported = fan_in.report_all("f", &told(&["a", "a", "b", "c"])).await.unwrap();
    let expected =
        [Reported::Counted(None), Reported::Duplicate, Reported::Counted(Some(End::Partial)), Reported::Late];
    assert_eq!(reported, expected);
}

#[tokio::test]
async fn plans_that_cannot_be_are_refused() {
    let store: Arc<dyn FanInStore> = Arc::new(SqliteFanIns::in_memory().unwrap());
    let fan_in = FanIn::new(store, Arc::new(ManualClock::at(Timestamp(START))), FanInOptions::default());
    let with = |change: fn(&mut Plan)| {
        let mut plan = plan(Policy::All);
        change(&mut plan);
        plan
    };
    for (bad, reason) in [
        (with(|p| p.id.clear()), "a name has 1 to 512 bytes"),
        (with(|p| p.parts.clear()), "it has 0 parts; 1 to 10000 are possible"),
        (with(|p| p.parts.push("a".to_owned())), "two parts have one name"),
        (with(|p| p.policy = Policy::Quorum(0)), "a quorum of 0 of 3 parts cannot be; take 1 to 3"),
        (with(|p| p.policy = Policy::Quorum(4)), "a quorum of 4 of 3 parts cannot be; take 1 to 3"),
    ] {
        match fan_in.begin(bad).await {
            Err(FanInError::Bad { reason: found, .. }) => assert_eq!(found, reason),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(fan_in.report("f", "a", Ok(1.into())).await, Err(FanInError::NotFound("f".to_owned())));
    fan_in.begin(plan(Policy::All)).await.unwrap();
    let unknown = FanInError::UnknownPart { id: "f".to_owned(), part: "z".to_owned() };
    assert_eq!(fan_in.report("f", "z", Ok(1.into())).await, Err(unknown));
}

/// The end by the policy's words alone: from all that came, in order.
fn model(policy: Policy, parts: usize, came: &[(usize, bool)]) -> (Option<End>, u64, u64) {
    let mut known: BTreeMap<usize, bool> = BTreeMap::new();
    let (mut end, mut duplicates, mut late) = (None, 0, 0);
    for (part, good) in came {
        if known.contains_key(part) {
            duplicates += 1;
        } else if end.is_some() {
            late += 1;
        } else {
            known.insert(*part, *good);
            let done = known.values().filter(|good| **good).count();
            let bad = known.len() - done;
            end = match policy {
                _ if done == parts => Some(End::Complete),
                Policy::All if bad > 0 => Some(End::Failed),
                Policy::Quorum(needed) if done == needed => Some(End::Partial),
                Policy::Quorum(needed) if bad > parts - needed => Some(End::Failed),
                Policy::BestEffort if known.len() == parts && done == 0 => Some(End::Failed),
                Policy::BestEffort if known.len() == parts => Some(End::Partial),
                _ => None,
            };
        }
    }
    (end, duplicates, late)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn whatever_comes_in_whatever_order_ends_as_the_model_says(
        parts in 1..6_usize,
        needed in 1..6_usize,
        kind in 0..3,
        came in proptest::collection::vec((0..6_usize, any::<bool>()), 0..20),
    ) {
        let policy = match kind {
            0 => Policy::All,
            1 => Policy::Quorum(needed.min(parts)),
            _ => Policy::BestEffort,
        };
        let came: Vec<(usize, bool)> = came.into_iter().filter(|(part, _)| *part < parts).collect();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let record = runtime.block_on(async {
            let store: Arc<dyn FanInStore> = Arc::new(SqliteFanIns::in_memory().unwrap());
            let fan_in = FanIn::new(store, Arc::new(ManualClock::at(Timestamp(START))), FanInOptions::default());
            let parts = (0..parts).map(|n| n.to_string()).collect();
            fan_in.begin(Plan { parts, ..plan(policy) }).await.unwrap();
            for (part, good) in &came {
                let result = if *good { Ok(1.into()) } else { Err("no".to_owned()) };
                fan_in.report("f", &part.to_string(), result).await.unwrap();
            }
            fan_in.get("f").await.unwrap()
        });
        prop_assert_eq!((record.end.map(|(end, _)| end), record.duplicates, record.late), model(policy, parts, &came));
    }
}
