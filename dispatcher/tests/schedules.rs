//! Random schedules on the real stores: consumers that crash, late and repeated calls, dispatchers that come and go; the
//! invariants of the model checker hold of what happened and of what is stored.
//!
//! Leases are short and time is real. A consumer's tenure is taken as the invariants want it: from its answer to the
//! instant at which [`HeldLease`] tells it to stop, or at which it released, whichever came first.

mod stage;

use std::collections::HashMap;
use std::future::Future;

use galerna_dispatcher::{Dispatcher, HeldLease, Leases, NextRequest, Release};
use galerna_lease::invariants::{self, Tenure};
use galerna_storage::QueueRecord;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use stage::{Stage, queue, short_leases};
use tokio::time::{Duration, Instant};

const QUEUES: [(&str, u64); 3] = [("D1", 9), ("D2", 9), ("D3", 9)];
const LEASE_MS: u64 = 150;

/// One step of a schedule. Consumers and dispatchers are named by small numbers.
#[derive(Debug, Clone)]
enum Step {
    Next {
        consumer: usize,
        dispatcher: usize,
    },
    /// The consumer asks, and the answer is lost on the way. When it asks next, it asks again.
    Unanswered {
        consumer: usize,
        dispatcher: usize,
    },
    Renew {
        consumer: usize,
        dispatcher: usize,
    },
    Release {
        consumer: usize,
        dispatcher: usize,
        empty: bool,
    },
    /// The consumer forgets its lease without a word.
    Crash {
        consumer: usize,
    },
    /// An earlier release comes again.
    Repeat {
        which: usize,
        dispatcher: usize,
    },
    Pause {
        queue: usize,
        dispatcher: usize,
    },
    Unpause {
        queue: usize,
        dispatcher: usize,
    },
    Restart {
        dispatcher: usize,
    },
    /// Time passes: up to a lease and a half.
    Wait {
        ms: u64,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let (c, d, q) = (0..4_usize, 0..2_usize, 0..3_usize);
    prop_oneof![
        6 => (c.clone(), d.clone()).prop_map(|(consumer, dispatcher)| Step::Next { consumer, dispatcher }),
        3 => (c.clone(), d.clone()).prop_map(|(consumer, dispatcher)| Step::Unanswered { consumer, dispatcher }),
        3 => (c.clone(), d.clone()).prop_map(|(consumer, dispatcher)| Step::Renew { consumer, dispatcher }),
        3 => (c.clone(), d.clone(), any::<bool>())
            .prop_map(|(consumer, dispatcher, empty)| Step::Release { consumer, dispatcher, empty }),
        2 => c.prop_map(|consumer| Step::Crash { consumer }),
        2 => (any::<usize>(), d.clone()).prop_map(|(which, dispatcher)| Step::Repeat { which, dispatcher }),
        1 => (q.clone(), d.clone()).prop_map(|(queue, dispatcher)| Step::Pause { queue, dispatcher }),
        2 => (q, d.clone()).prop_map(|(queue, dispatcher)| Step::Unpause { queue, dispatcher }),
        1 => d.prop_map(|dispatcher| Step::Restart { dispatcher }),
        3 => (1..LEASE_MS * 3 / 2).prop_map(|ms| Step::Wait { ms }),
    ]
}

/// What has happened in one schedule.
struct Run {
    stage: Stage,
    dispatchers: Vec<Dispatcher>,
    /// The lease of each consumer, and since when it consumes.
    held: HashMap<usize, (HeldLease, Instant)>,
    /// The id of each consumer's request that had no answer.
    unanswered: HashMap<usize, String>,
    requests: usize,
    released: Vec<Release>,
    tenures: HashMap<String, Vec<Tenure>>,
    began: Instant,
    last: HashMap<String, QueueRecord>,
}

impl Run {
    async fn new(stage: Stage) -> Self {
        stage.queues(&QUEUES).await;
        let dispatchers = vec![
            stage.dispatcher_with(short_leases(LEASE_MS)).await,
            stage.dispatcher_with(short_leases(LEASE_MS)).await,
        ];
        Self {
            stage,
            dispatchers,
            held: HashMap::new(),
            unanswered: HashMap::new(),
            requests: 0,
            released: Vec::new(),
            tenures: HashMap::new(),
            began: Instant::now(),
            last: HashMap::new(),
        }
    }

    /// A new request of this consumer's, or the one again that had no answer.
    fn request(&mut self, consumer: usize) -> NextRequest {
        let before = self.unanswered.get(&consumer).cloned();
        self.requests += 1;
        NextRequest {
            consumer: consumer.to_string(),
            count: 1,
            retry: before.is_some(),
            request: Some(before.unwrap_or_else(|| format!("r{}", self.requests))),
            ..NextRequest::default()
        }
    }

    /// Notes that the consumer's tenure ended now, or when its lease told it to.
    fn end(&mut self, consumer: usize) -> Option<HeldLease> {
        let (held, since) = self.held.remove(&consumer)?;
        let micros = |t: Instant| u64::try_from((t - self.began).as_micros()).unwrap_or(u64::MAX);
        let tenure = Tenure {
            epoch: held.leased().epoch,
            consumer: consumer.to_string(),
            from: micros(since),
            until: micros(Instant::now().min(held.stop_at()).max(since)),
        };
        self.tenures.entry(held.leased().queue.to_string()).or_default().push(tenure);
        Some(held)
    }

    async fn step(&mut self, step: &Step) {
        match *step {
            Step::Next { consumer, dispatcher } => {
                self.end(consumer);
                let asked = Instant::now();
                let request = self.request(consumer);
                self.unanswered.remove(&consumer);
                let id = request.request.clone();
                if let Some(leased) = self.dispatchers[dispatcher].next(request).await.expect("next").pop() {
                    self.held.insert(consumer, (HeldLease::new(leased, asked), Instant::now()));
                }
                let records = self.stage.store.queues.all().await.expect("the store answers");
                let granted = |r: &&QueueRecord| r.lease.as_ref().is_some_and(|lease| lease.request == id);
                assert!(
                    records.iter().filter(granted).count() <= 1,
                    "one lease a request, however often made"
                );
            }
            Step::Unanswered { consumer, dispatcher } => {
                self.end(consumer);
                let request = self.request(consumer);
                self.unanswered.extend(request.request.clone().map(|id| (consumer, id)));
                drop(self.dispatchers[dispatcher].next(request).await.expect("next"));
            }
            Step::Renew { consumer, dispatcher } => {
                let Some((held, _)) = self.held.get_mut(&consumer) else { return };
                if held.must_stop() {
                    return; // Too late to go on: what it held is over.
                }
                let asked = Instant::now();
                let (queue, epoch) = (held.leased().queue.clone(), held.leased().epoch);
                let answer = self.dispatchers[dispatcher].renew(&queue, epoch).await;
                match answer {
                    Ok(renewed) if !held.must_stop() => held.renewed(renewed, asked),
                    _ => drop(self.end(consumer)),
                }
            }
            Step::Release { consumer, dispatcher, empty } => {
                let Some(held) = self.end(consumer) else { return };
                let leased = held.leased();
                let release = Release { queue: leased.queue.clone(), epoch: leased.epoch, empty };
                self.dispatchers[dispatcher].release(&release).await.ok(); // It may have expired.
                self.released.push(release);
            }
            Step::Crash { consumer } => drop(self.end(consumer)),
            Step::Repeat { which, dispatcher } => {
                if self.released.is_empty() {
                    return;
                }
                let release = &self.released[which % self.released.len()];
                let before = self.stage.record(release.queue.as_str()).await;
                let live = before.lease.is_some() && before.epoch == release.epoch;
                let answer = self.dispatchers[dispatcher].release(release).await;
                assert!(answer.is_err() || live, "a release by an old epoch is refused");
            }
            Step::Pause { queue: n, dispatcher } => {
                let name = queue(QUEUES[n].0);
                self.dispatchers[dispatcher].pause(&name, None, "test").await.expect("paused");
            }
            Step::Unpause { queue: n, dispatcher } => {
                let name = queue(QUEUES[n].0);
                self.dispatchers[dispatcher].unpause(&name, "test").await.expect("unpaused");
            }
            Step::Restart { dispatcher } => {
                // Dropped, not shut down: as good as killed.
                self.dispatchers[dispatcher] = self.stage.dispatcher_with(short_leases(LEASE_MS)).await;
            }
            Step::Wait { ms } => tokio::time::sleep(Duration::from_millis(ms)).await,
        }
    }

    /// What is stored is sound, and neither version nor epoch ever goes back.
    async fn look(&mut self) {
        for record in self.stage.store.queues.all().await.expect("the store answers") {
            assert_eq!(invariants::record(&record), Ok(()));
            if let Some(before) = self.last.insert(record.queue.to_string(), record.clone()) {
                assert!(record.version >= before.version && record.epoch >= before.epoch, "{record:?}");
            }
        }
    }

    fn check_history(mut self) {
        for consumer in 0..4 {
            self.end(consumer);
        }
        for (queue, tenures) in &self.tenures {
            assert_eq!(invariants::history(tenures), Ok(()), "{queue}: {tenures:?}");
        }
    }
}

fn check<F: Future<Output = Stage>>(cases: u32, stage: impl Fn() -> F) {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let config = Config { cases, max_shrink_iters: 50, ..Config::default() };
    let schedules = proptest::collection::vec(step(), 10..60);
    TestRunner::new(config)
        .run(&schedules, |schedule| {
            runtime.block_on(async {
                let mut run = Run::new(stage().await).await;
                for step in &schedule {
                    run.step(step).await;
                    run.look().await;
                }
                run.check_history();
            });
            Ok(())
        })
        .expect("the invariants hold");
}

#[test]
fn the_invariants_hold_under_random_schedules_on_the_embedded_store() {
    check(12, Stage::embedded);
}

#[test]
fn the_invariants_hold_under_random_schedules_on_mongodb() {
    check(12, Stage::mongo);
}
