//! Random account lists over time: nothing that is wanted is lost, and nothing is lost before its time.

mod world;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use galerna_broker::DeleteWhen;
use galerna_broker::embedded::{EmbeddedBroker, EmbeddedOptions};
use galerna_lease::{QueueEvent, invariants};
use galerna_maintainer::{Run, Task, TaskError};
use galerna_model::{Clock, ManualClock, SystemClock, Timestamp};
use galerna_storage::{QueueRecord, QueueState};
use proptest::prelude::*;
use world::{World, listing, name};

const GRACE: Duration = Duration::from_secs(3_600);
/// Accounts `a0`… with queues `Q0`…; few, so that the same ones come and go.
const ACCOUNTS: usize = 16;

#[derive(Debug, Clone)]
enum Step {
    /// The list says this from now on: each account is unavailable, active, deactivated, wrong, or with a queue of another.
    List(Vec<Entry>),
    ListFails,
    Publish(usize),
    /// Minutes pass.
    Wait(i64),
    Run(Task, bool),
    LeaseOrRelease(usize),
    /// Somebody deletes an empty queue on the broker by hand.
    Vanish(usize),
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Entry {
    Away,
    Active,
    Inactive,
    Wrong,
    Usurper,
}

fn entries() -> impl Strategy<Value = Vec<Entry>> {
    let entry = prop_oneof![
        12 => Just(Entry::Active), 2 => Just(Entry::Away), 2 => Just(Entry::Inactive), 1 => Just(Entry::Wrong),
        1 => Just(Entry::Usurper),
    ];
    prop::collection::vec(entry, ACCOUNTS)
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let which = 0..ACCOUNTS;
    let task =
        prop::sample::select(vec![Task::Accounts, Task::Accounts, Task::ReconcileEmpty, Task::Deletions]);
    let step = prop_oneof![
        3 => entries().prop_map(Step::List),
        1 => Just(Step::ListFails),
        5 => which.clone().prop_map(Step::Publish),
        3 => (1_i64..50).prop_map(Step::Wait),
        8 => (task, prop::bool::weighted(0.2)).prop_map(|(task, force)| Step::Run(task, force)),
        3 => which.clone().prop_map(Step::LeaseOrRelease),
        1 => which.prop_map(Step::Vanish),
    ];
    prop::collection::vec(step, 1..60)
}

fn text(entries: &[Entry]) -> String {
    let entry = |(n, entry): (usize, &Entry)| match entry {
        Entry::Away => String::new(),
        Entry::Active => format!("a{n}:Q{n} "),
        Entry::Inactive => format!("a{n}:Q{n}- "),
        Entry::Wrong => format!("!a{n}:Q{n} "),
        Entry::Usurper => format!("a{n}:Q{} ", (n + 1) % ACCOUNTS),
    };
    entries.iter().enumerate().map(entry).collect()
}

/// What the test knows of a queue by itself.
#[derive(Debug, Default, Clone)]
struct Known {
    messages: u64,
    /// When it was last seen not flagged.
    unflagged: Option<Timestamp>,
}

async fn play(steps: Vec<Step>) {
    let store = galerna_storage::sqlite::in_memory().expect("a store in memory");
    let broker = EmbeddedBroker::in_memory(EmbeddedOptions::default()).expect("a broker in memory");
    let mut world = World::new(store.queues, Arc::new(broker));
    world.options.grace = GRACE;
    let clock = ManualClock::at(SystemClock.now());
    let mut said = String::new();
    world.list.says("");
    let mut known: BTreeMap<String, Known> = BTreeMap::new();
    let mut before: BTreeMap<String, QueueRecord> = BTreeMap::new();

    for step in steps {
        let mut failed = false;
        let unflagged = |record: &&QueueRecord| record.state != QueueState::Deleting;
        for record in before.values().filter(unflagged) {
            known.entry(record.queue.to_string()).or_default().unflagged = Some(clock.now());
        }
        match &step {
            Step::List(entries) => {
                said = text(entries);
                world.list.says(&said);
            }
            Step::ListFails => world.list.fails(),
            Step::Publish(n) => {
                let queue = format!("Q{n}");
                if world.depth(&queue).await.is_some() {
                    world.publish(&queue, 1).await;
                    known.entry(queue).or_default().messages += 1;
                }
            }
            Step::Wait(minutes) => clock.advance(minutes * 60_000),
            Step::LeaseOrRelease(n) => {
                let queue = format!("Q{n}");
                if let Some(record) = world.record(&queue).await {
                    if record.lease.is_some() {
                        world.apply(&queue, QueueEvent::Release { epoch: record.epoch, empty: false }).await;
                    } else if matches!(record.state, QueueState::Idle | QueueState::Empty) {
                        world.lease(&queue).await;
                    }
                }
            }
            Step::Vanish(n) => {
                let queue = format!("Q{n}");
                if known.get(&queue).is_none_or(|known| known.messages == 0) {
                    world.broker.delete(&name(&queue), DeleteWhen::Empty).await.expect("deleted");
                }
            }
            Step::Run(task, force) => {
                // A new process each time: nothing may depend on what one remembers.
                let maintainer = world.maintainer_at(Arc::new(clock.clone()));
                let result = maintainer.run_once(*task, Run { force: *force, watch: None }).await;
                match result {
                    Ok(_) if *task == Task::Accounts => served(&world, &said).await,
                    Ok(_) => {}
                    Err(failure) => {
                        failed = true;
                        match failure.error {
                            TaskError::Suspicious(_) => assert!(!force, "forced, it is believed"),
                            TaskError::Directory(_) => {}
                            other => panic!("{task}: {other}"),
                        }
                    }
                }
            }
        }

        for (queue, known) in &mut known {
            let held = world.depth(queue).await.map_or(0, |depth| depth.ready + depth.unacked);
            if held != known.messages {
                assert_eq!(held, 0, "{queue} after {step:?}: part of its messages are gone");
                let flagged = known.unflagged.map(|at| clock.now().millis_since(at));
                assert!(
                    flagged.is_some_and(|ms| ms >= GRACE.as_millis() as i64),
                    "{queue} lost {} messages after {step:?}, {flagged:?} ms after it was flagged",
                    known.messages
                );
                assert!(matches!(step, Step::Run(Task::Deletions, _)), "{queue} lost messages to {step:?}");
                known.messages = 0;
            }
        }
        let believed = !failed;
        let mut now = BTreeMap::new();
        for record in world.queues.all().await.expect("the store answers") {
            invariants::record(&record).expect("a sound record");
            let queue = record.queue.to_string();
            if let Some(earlier) = before.get(&queue) {
                let newly = record.state == QueueState::Deleting && earlier.state != QueueState::Deleting;
                assert!(believed || !newly, "{queue} was flagged by a list that is not believed");
            }
            now.insert(queue, record);
        }
        for (queue, earlier) in &before {
            assert!(
                now.contains_key(queue) || (believed && earlier.lease.is_none()),
                "{queue} was deleted by {step:?}"
            );
        }
        before = now;
    }
}

/// Every active account that the list names without contradiction has a queue and a state that is not flagged.
async fn served(world: &World, said: &str) {
    let list = listing(said);
    let records = world.queues.all().await.expect("the store answers");
    for account in list.entries.iter().filter(|account| account.active) {
        let namesakes = list.entries.iter().filter(|a| a.active && a.queue == account.queue).count();
        let record = records.iter().find(|r| r.queue == account.queue);
        let owner = record.map(|r| &r.account);
        if owner.map_or(namesakes == 1, |owner| *owner == account.id) {
            let record = record.unwrap_or_else(|| panic!("{} has no state", account.queue));
            assert_ne!(record.state, QueueState::Deleting, "{} of {}", account.queue, account.id);
            assert!(world.depth(account.queue.as_str()).await.is_some(), "{} is no queue", account.queue);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, max_shrink_iters: 400, ..ProptestConfig::default() })]

    #[test]
    fn whatever_the_lists_say_nothing_is_lost_before_its_time_and_every_account_is_served(steps in steps()) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        runtime.block_on(play(steps));
    }
}
