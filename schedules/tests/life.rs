//! What operators do with schedules, and what runs their firings.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use galerna_engine::{Engine, EngineOptions};
use galerna_model::{ManualClock, SystemClock, Timestamp};
use galerna_schedules::sqlite::SqliteSchedules;
use galerna_schedules::{
    Definition, Finished, Firing, Overlap, Policy, Retry, Runner, RunnerOptions, ScheduleError, ScheduleId,
    ScheduleSpout, ScheduleStore, Scheduler, SchedulerOptions, Schedules,
};
use galerna_topology::{Fault, TopologyBuilder};
use tokio_util::sync::CancellationToken;

/// 2026-01-01T00:00:00Z.
const START: i64 = 1_767_225_600_000;

fn id(name: &str) -> ScheduleId {
    ScheduleId::new(name).expect("a valid name")
}

struct World {
    clock: ManualClock,
    schedules: Schedules,
    process: Scheduler,
}

impl World {
    fn new() -> Self {
        let store: Arc<dyn ScheduleStore> =
            Arc::new(SqliteSchedules::in_memory().expect("SQLite opens in memory"));
        let clock = ManualClock::at(Timestamp(START));
        let schedules = Schedules::new(Arc::clone(&store), Arc::new(clock.clone()));
        let process =
            Scheduler::new(Arc::clone(&store), Arc::new(clock.clone()), SchedulerOptions::default());
        Self { clock, schedules, process }
    }

    async fn claim(&mut self) -> Vec<Firing> {
        self.process.tick(100).await.expect("the store works").claimed
    }

    async fn finish(&mut self, firing: &Firing, result: Result<(), Fault>) {
        assert_eq!(self.process.finish(firing, &result).await, Ok(Finished::Recorded));
    }

    async fn outcomes(&self, name: &str) -> Vec<String> {
        let mut ended = self.schedules.history(&id(name), None, 1_000).await.expect("the store works");
        ended.reverse();
        ended
            .iter()
            .map(|ended| format!("{} {}", (ended.id.nominal.as_millis() - START) / 60_000, ended.outcome))
            .collect()
    }
}

fn minutely(overlap: Overlap) -> Definition {
    Definition::every(Duration::from_secs(60)).policy(Policy { overlap, ..Policy::default() })
}

#[tokio::test]
async fn an_occurrence_that_meets_a_running_firing_goes_by_the_overlap_policy() {
    for (overlap, running_at_once, expected) in [
        (Overlap::Skip, 1, vec!["1 done", "2 skipped.overlap", "3 skipped.overlap"]),
        (Overlap::BufferOne, 1, vec!["1 done", "2 done", "3 skipped.buffer_full"]),
        (Overlap::BufferAll, 1, vec!["1 done", "2 done", "3 done"]),
        (Overlap::CancelOther, 1, vec!["1 cancelled.replaced", "2 cancelled.replaced", "3 done"]),
        (Overlap::AllowAll, 3, vec!["1 done", "2 done", "3 done"]),
    ] {
        let mut world = World::new();
        world.schedules.add(id("s"), minutely(overlap)).await.unwrap();
        let mut running = Vec::new();
        for _ in 0..3 {
            world.clock.advance(60_000);
            running.extend(world.claim().await);
        }
        assert_eq!(running.len(), running_at_once, "{overlap}");
        while let Some(firing) = running.pop() {
            let result = match overlap {
                Overlap::CancelOther if firing.id.nominal.as_millis() == START + 60_000 => {
                    Err(Fault::transient("stopped"))
                }
                _ => Ok(()),
            };
            world.finish(&firing, result).await;
            running.extend(world.claim().await);
        }
        assert_eq!(world.outcomes("s").await, expected, "{overlap}");
    }
}

#[tokio::test]
async fn a_firing_that_is_to_stop_is_told_once() {
    let mut world = World::new();
    world.schedules.add(id("s"), minutely(Overlap::CancelOther)).await.unwrap();
    world.clock.advance(60_000);
    let first = world.claim().await.remove(0);
    world.clock.advance(60_000);
    let tick = world.process.tick(9).await.unwrap();
    assert_eq!(tick.stop, [], "it is told when its schedule is looked at next");
    let tick = world.process.tick(9).await.unwrap();
    assert_eq!(tick.stop, [(first.id.clone(), first.epoch)]);
    assert_eq!(world.process.tick(9).await.unwrap().stop, []);
}

#[tokio::test]
async fn faults_are_tried_again_by_their_kind() {
    let retry = Retry { attempts: 2, first: Duration::from_secs(10), longest: Duration::from_secs(15) };
    let policy = Policy { retry, ..Policy::default() };
    for (faults, expected) in [
        (vec![Fault::permanent("never")], "0 failed.permanent"),
        (vec![Fault::transient("a"), Fault::transient("b")], "0 failed.attempts"),
        (
            vec![
                Fault::unavailable("a"),
                Fault::unavailable("b"),
                Fault::transient("c"),
                Fault::transient("d"),
            ],
            "0 failed.attempts",
        ),
        (vec![Fault::transient("a")], "0 done"),
    ] {
        let mut world = World::new();
        world
            .schedules
            .add(id("s"), Definition::at(Timestamp(START + 1)).policy(policy.clone()))
            .await
            .unwrap();
        world.clock.advance(1);
        for fault in faults {
            let firing = world.claim().await.remove(0);
            world.finish(&firing, Err(fault)).await;
            assert_eq!(world.claim().await, [], "there is a pause");
            world.clock.advance(15_000);
        }
        if let Some(firing) = world.claim().await.pop() {
            world.finish(&firing, Ok(())).await;
        }
        assert_eq!(world.outcomes("s").await, [expected]);
    }
}

#[tokio::test]
async fn a_paused_schedule_skips_and_can_be_triggered_and_an_edit_begins_now() {
    let mut world = World::new();
    let schedules = world.schedules.clone();
    schedules.add(id("s"), minutely(Overlap::Skip)).await.unwrap();
    schedules.pause(&id("s"), "the meters are exchanged").await.unwrap();
    world.clock.advance(150_000);
    let (triggered, outcome) = schedules.trigger(&id("s"), None).await.unwrap();
    assert_eq!((triggered.to_string().as_str(), outcome), ("s@2026-01-01T00:02:30Z#triggered-1", None));
    let firing = world.claim().await.remove(0);
    assert_eq!(firing.id, triggered);
    world.finish(&firing, Ok(())).await;
    schedules.resume(&id("s")).await.unwrap();
    let record = schedules.get(&id("s")).await.unwrap();
    let every_half = Definition::every(Duration::from_secs(30));
    let error = schedules.edit(&id("s"), every_half.clone(), Some(record.revision + 1)).await.unwrap_err();
    assert!(matches!(error, ScheduleError::Edited { current: 1, expected: 2, .. }), "{error}");
    schedules.edit(&id("s"), every_half, Some(record.revision)).await.unwrap();
    let next: Vec<i64> =
        schedules.upcoming(&id("s"), 2).await.unwrap().iter().map(|t| t.as_millis() - START).collect();
    assert_eq!(next, [180_000, 210_000]);
    assert_eq!(world.outcomes("s").await, ["1 skipped.paused", "2 skipped.paused", "2 done"]);
}

#[tokio::test]
async fn a_backfill_runs_what_is_past_one_by_one_and_is_bounded() {
    let mut world = World::new();
    let schedules = world.schedules.clone();
    schedules.add(id("s"), minutely(Overlap::Skip)).await.unwrap();
    let error = schedules.backfill(&id("s"), Timestamp(0), Timestamp(START), None).await.unwrap_err();
    assert!(matches!(&error, ScheduleError::Bad(bad) if bad.field == "backfill"), "{error}");
    let admitted = schedules
        .backfill(&id("s"), Timestamp(START - 180_000), Timestamp(START + 600_000), None)
        .await
        .unwrap();
    assert_eq!(admitted, 4, "three before the start, and the start");
    for minute in -3..=0 {
        let claimed = world.claim().await;
        assert_eq!(claimed.len(), 1);
        assert_eq!(claimed[0].id.nominal, Timestamp(START + minute * 60_000));
        world.finish(&claimed[0], Ok(())).await;
    }
    assert_eq!(world.claim().await, []);
}

#[tokio::test]
async fn a_schedule_ends_when_nothing_remains_and_pauses_when_it_failed() {
    let mut world = World::new();
    let schedules = world.schedules.clone();
    let mut definition = minutely(Overlap::Skip);
    definition.remaining = Some(2);
    schedules.add(id("two"), definition).await.unwrap();
    let mut definition = minutely(Overlap::Skip);
    definition.policy.pause_on_failure = true;
    schedules.add(id("fails"), definition).await.unwrap();
    for _ in 0..4 {
        world.clock.advance(60_000);
        for firing in world.claim().await {
            let fails = firing.id.schedule == id("fails");
            world.finish(&firing, if fails { Err(Fault::permanent("no")) } else { Ok(()) }).await;
        }
    }
    assert_eq!(world.outcomes("two").await, ["1 done", "2 done"]);
    assert_eq!(schedules.upcoming(&id("two"), 10).await.unwrap(), []);
    assert_eq!(
        world.outcomes("fails").await,
        ["1 failed.permanent", "2 skipped.paused", "3 skipped.paused", "4 skipped.paused"]
    );
    assert_eq!(
        schedules.get(&id("fails")).await.unwrap().paused.unwrap().note,
        "fails@2026-01-01T00:01:00Z failed"
    );
}

#[tokio::test]
async fn what_arrived_and_waits_for_its_jitter_survives_an_edit_and_is_told_of_at_a_removal() {
    for edited in [true, false] {
        let mut world = World::new();
        let schedules = world.schedules.clone();
        let mut definition = minutely(Overlap::Skip);
        definition.policy.jitter = Duration::from_secs(50);
        let record = schedules.add(id("s"), definition).await.unwrap();
        let next = record.next.unwrap();
        assert!(next.due > next.nominal, "this name has some jitter");
        world.clock.advance(60_000);
        assert_eq!(world.claim().await, []);
        if edited {
            schedules.edit(&id("s"), Definition::at(Timestamp(START + 999_999)), None).await.unwrap();
            world.clock.advance(50_000);
            let firing = world.claim().await.remove(0);
            assert_eq!(firing.id.nominal, next.nominal);
            world.finish(&firing, Ok(())).await;
            assert_eq!(world.outcomes("s").await, ["1 done"]);
        } else {
            schedules.remove(&id("s")).await.unwrap();
            assert_eq!(world.outcomes("s").await, ["1 cancelled.removed"]);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_runner_runs_retries_catches_panics_and_drains() {
    let store: Arc<dyn ScheduleStore> = Arc::new(SqliteSchedules::in_memory().unwrap());
    let schedules = Schedules::new(Arc::clone(&store), Arc::new(SystemClock));
    let retry = Retry { attempts: 2, first: Duration::from_millis(1), longest: Duration::from_millis(1) };
    for name in ["works", "panics", "hangs"] {
        let far = Definition::at(Timestamp(4 * START));
        schedules
            .add(id(name), far.policy(Policy { retry: retry.clone(), ..Policy::default() }))
            .await
            .unwrap();
        schedules.trigger(&id(name), None).await.unwrap();
    }
    let stop = CancellationToken::new();
    let begun = Arc::new(AtomicU32::new(0));
    let options = RunnerOptions { timeout: Some(Duration::from_secs(5)), ..RunnerOptions::default() };
    let runner = Runner::new(Arc::clone(&store), Arc::new(SystemClock), options);
    let counted = Arc::clone(&begun);
    let running = tokio::spawn(runner.run(stop.clone(), move |firing, _cancelled| {
        counted.fetch_add(1, Ordering::Relaxed);
        async move {
            match firing.id.schedule.as_str() {
                "works" => Ok(()),
                "panics" => panic!("as it does"),
                _ => std::future::pending().await,
            }
        }
    }));
    let ended = |name: &'static str| {
        let schedules = schedules.clone();
        async move {
            loop {
                if let Some(ended) = schedules.history(&id(name), None, 1).await.unwrap().pop() {
                    return (ended.outcome.to_string(), ended.attempts, ended.fault);
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
    };
    assert_eq!(ended("works").await, ("done".to_owned(), 1, None));
    assert_eq!(
        ended("panics").await,
        ("failed.attempts".to_owned(), 2, Some("panicked: as it does".to_owned()))
    );
    assert_eq!(
        ended("hangs").await,
        ("failed.attempts".to_owned(), 2, Some("took longer than 5s".to_owned()))
    );
    stop.cancel();
    running.await.unwrap();
    assert_eq!(begun.load(Ordering::Relaxed), 5);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_spout_emits_firings_and_their_records_say_what_became_of_them() {
    let store: Arc<dyn ScheduleStore> = Arc::new(SqliteSchedules::in_memory().unwrap());
    let schedules = Schedules::new(Arc::clone(&store), Arc::new(SystemClock));
    let retry = Retry { attempts: 2, first: Duration::from_millis(1), longest: Duration::from_millis(1) };
    for name in ["works", "fails"] {
        let far = Definition::at(Timestamp(4 * START));
        schedules
            .add(id(name), far.policy(Policy { retry: retry.clone(), ..Policy::default() }))
            .await
            .unwrap();
        schedules.trigger(&id(name), None).await.unwrap();
    }
    let mut topology = TopologyBuilder::new("scheduled");
    let of_spout = Arc::clone(&store);
    let firings = topology.spout("schedules", move || ScheduleSpout::new(Arc::clone(&of_spout))).outputs();
    topology
        .for_each("work", |firing: Firing| match firing.id.schedule.as_str() {
            "works" => Ok(()),
            _ => Err(Fault::transient("not today")),
        })
        .shuffle(&firings);
    let running = Engine::submit(topology.build().unwrap(), EngineOptions::default()).await.unwrap();
    let mut outcomes = Vec::new();
    for name in ["works", "fails"] {
        loop {
            if let Some(ended) = schedules.history(&id(name), None, 1).await.unwrap().pop() {
                outcomes.push((ended.outcome.to_string(), ended.attempts, ended.fault));
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
    running.stop().await;
    assert_eq!(
        outcomes,
        [
            ("done".to_owned(), 1, None),
            ("failed.attempts".to_owned(), 2, Some("error in work: not today".to_owned())),
        ]
    );
}
