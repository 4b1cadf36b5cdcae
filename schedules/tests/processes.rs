//! Three processes on one store, killed, frozen and cut off from it at random by seed, over a year: each occurrence is fired once or
//! recorded with its reason, and has exactly one end.

mod model;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use galerna_model::{Clock, ManualClock, Timestamp};
use galerna_schedules::{
    CronTiming, Definition, DstGap, DstOverlap, Ended, Firing, FiringId, Miss, Missed, ON_TIME, Origin,
    Outcome, Overlap, Policy, Record, Retry, ScheduleId, ScheduleStore, Scheduler, SchedulerOptions,
    Schedules, Skip, StoreError, Timing, invariants,
};
use galerna_topology::Fault;

use model::{DAY, Fields, HOUR, MINUTE, START, ZONES, naive, shown, zone};

const SECOND: i64 = 1_000;

/// Long, so that steps may be: a process looks three times a lease.
const LEASE: i64 = 15 * MINUTE;

/// A store that loses answers: before the write, or after it.
#[derive(Default)]
struct Memory {
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    records: BTreeMap<ScheduleId, Record>,
    ended: HashMap<FiringId, Ended>,
    rng: fastrand::Rng,
    /// Of so many writes one loses its answer; 0: none.
    lossy: u32,
}

impl Kept {
    fn loses(&mut self) -> bool {
        self.lossy > 0 && self.rng.u32(..self.lossy) == 0
    }

    fn swap(&mut self, record: &Record, expected: i64, ended: &[Ended]) -> bool {
        let Some(current) = self.records.get_mut(&record.id).filter(|current| current.version == expected)
        else {
            return false;
        };
        *current = record.clone();
        assert_eq!(invariants::check(record), Ok(()));
        for ended in ended {
            let before = self.ended.insert(ended.id.clone(), ended.clone());
            assert_eq!(before, None, "{} ended twice, the second time so: {ended:?}", ended.id);
        }
        true
    }
}

fn lost() -> StoreError {
    StoreError::Unavailable { attempted: "writing".to_owned(), cause: "the answer was lost".to_owned() }
}

#[async_trait]
impl ScheduleStore for Memory {
    async fn insert(&self, record: &Record) -> Result<bool, StoreError> {
        Ok(self.kept.lock().unwrap().records.insert(record.id.clone(), record.clone()).is_none())
    }

    async fn get(&self, id: &ScheduleId) -> Result<Option<Record>, StoreError> {
        Ok(self.kept.lock().unwrap().records.get(id).cloned())
    }

    async fn list(&self, _after: Option<&ScheduleId>, _limit: usize) -> Result<Vec<Record>, StoreError> {
        Ok(self.kept.lock().unwrap().records.values().cloned().collect())
    }

    async fn pending(&self, now: Timestamp, _limit: usize) -> Result<Vec<Record>, StoreError> {
        let kept = self.kept.lock().unwrap();
        let pending =
            |record: &&Record| record.running() > 0 || record.wake().is_some_and(|wake| wake <= now);
        Ok(kept.records.values().filter(pending).cloned().collect())
    }

    async fn next_wake(&self) -> Result<Option<Timestamp>, StoreError> {
        Ok(self.kept.lock().unwrap().records.values().filter_map(Record::wake).min())
    }

    async fn swap(&self, record: &Record, expected: i64, ended: &[Ended]) -> Result<bool, StoreError> {
        let mut kept = self.kept.lock().unwrap();
        if kept.loses() {
            return Err(lost());
        }
        let swapped = kept.swap(record, expected, ended);
        if kept.loses() { Err(lost()) } else { Ok(swapped) }
    }

    async fn remove(&self, id: &ScheduleId, _expected: i64, _ended: &[Ended]) -> Result<bool, StoreError> {
        Ok(self.kept.lock().unwrap().records.remove(id).is_some())
    }

    async fn history(
        &self,
        id: &ScheduleId,
        _: Option<Timestamp>,
        _: usize,
    ) -> Result<Vec<Ended>, StoreError> {
        let kept = self.kept.lock().unwrap();
        Ok(kept.ended.values().filter(|ended| ended.id.schedule == *id).cloned().collect())
    }

    async fn forget(&self, _before: Timestamp) -> Result<u64, StoreError> {
        Ok(0)
    }
}

/// A firing that runs in a process.
struct Run {
    firing: Firing,
    ends: i64,
    result: Result<(), Fault>,
    /// It has run; only the answer that this is recorded is missing.
    over: bool,
    effected: bool,
    lost: bool,
}

struct Process {
    scheduler: Scheduler,
    runs: Vec<Run>,
    /// Not heard of until then.
    away_until: i64,
    /// Then it comes back as another.
    killed: bool,
}

/// What was begun and what was effected of a firing.
#[derive(Default, Clone, Copy)]
struct Seen {
    begun: u32,
    effects: u32,
}

struct World {
    rng: fastrand::Rng,
    clock: ManualClock,
    store: Arc<Memory>,
    processes: Vec<Process>,
    seen: HashMap<FiringId, Seen>,
    started: u32,
    kills: u32,
    freezes: u32,
}

impl World {
    fn new(seed: u64, from: i64) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed);
        let kept = Kept { rng: rng.fork(), lossy: 200, ..Kept::default() };
        let mut world = Self {
            rng,
            clock: ManualClock::at(Timestamp(from)),
            store: Arc::new(Memory { kept: Mutex::new(kept) }),
            processes: Vec::new(),
            seen: HashMap::new(),
            started: 0,
            kills: 0,
            freezes: 0,
        };
        for _ in 0..3 {
            let process = world.process();
            world.processes.push(process);
        }
        world
    }

    fn process(&mut self) -> Process {
        self.started += 1;
        let options = SchedulerOptions {
            holder: format!("process-{}", self.started),
            lease: Duration::from_millis(LEASE as u64),
            expiry_margin: Duration::from_secs(5),
            keep: None,
        };
        let scheduler = Scheduler::new(self.store.clone(), Arc::new(self.clock.clone()), options);
        Process { scheduler, runs: Vec::new(), away_until: 0, killed: false }
    }

    fn now(&self) -> i64 {
        self.clock.now().as_millis()
    }

    async fn pass(&mut self, millis: i64) {
        self.clock.advance(millis);
        tokio::time::advance(Duration::from_millis(millis as u64)).await;
    }

    /// Until when nothing happens.
    async fn next_event(&mut self, longest: i64) -> i64 {
        let now = self.now();
        let mut next = now + longest;
        let somebody_looks = self.processes.iter().any(|process| process.away_until <= now);
        if somebody_looks && let Some(wake) = self.store.next_wake().await.unwrap() {
            next = next.min(wake.as_millis());
        }
        for process in &self.processes {
            if process.away_until > now {
                next = next.min(process.away_until);
            } else if !process.runs.is_empty() {
                next = next.min(now + LEASE / 3);
                next = process.runs.iter().map(|run| run.ends).chain([next]).min().unwrap_or(next);
            }
        }
        next.max(now)
    }

    async fn step(&mut self, longest_run: i64) {
        let next = self.next_event(6 * HOUR).await;
        let delay = self.rng.i64(1..2 * SECOND);
        self.pass(next - self.now() + delay).await;
        if self.rng.u32(..400) == 0 {
            self.disturb();
        }
        let mut order = [0, 1, 2];
        self.rng.shuffle(&mut order);
        for index in order {
            self.look(index, longest_run).await;
        }
    }

    /// A process is killed or frozen; now and then all are, so that occurrences are missed.
    fn disturb(&mut self) {
        let (now, all) = (self.now(), self.rng.u32(..4) == 0);
        let one = self.rng.usize(..3);
        let away = if all { self.rng.i64(3 * SECOND..6 * HOUR) } else { self.rng.i64(SECOND..2 * LEASE) };
        for index in 0..3 {
            if (all || index == one) && self.processes[index].away_until <= now {
                self.processes[index].away_until = now + away;
                self.processes[index].killed = self.rng.bool();
                *(if self.processes[index].killed { &mut self.kills } else { &mut self.freezes }) += 1;
            }
        }
    }

    async fn look(&mut self, index: usize, longest_run: i64) {
        let now = self.now();
        if self.processes[index].away_until > now {
            return;
        }
        if std::mem::take(&mut self.processes[index].killed) {
            self.processes[index] = self.process();
        }
        for (id, epoch) in self.processes[index].scheduler.lapsed() {
            self.processes[index].lose(&id, epoch);
        }
        self.end_runs(index, now).await;
        let room = self.rng.usize(..6);
        let Ok(tick) = self.processes[index].scheduler.tick(room).await else { return };
        for (id, epoch) in tick.lost {
            self.processes[index].lose(&id, epoch);
        }
        for (id, epoch) in tick.stop {
            for run in &mut self.processes[index].runs {
                if run.firing.id == id && run.firing.epoch == epoch {
                    run.ends = now;
                    run.result = Err(Fault::transient("told to stop"));
                }
            }
        }
        for firing in tick.claimed {
            self.begin(index, firing, longest_run).await;
        }
    }

    async fn begin(&mut self, index: usize, firing: Firing, longest_run: i64) {
        let record = self.store.get(&firing.id.schedule).await.unwrap().expect("schedules stay");
        let alone = record.definition.policy.overlap != Overlap::AllowAll;
        for (other, process) in self.processes.iter().enumerate() {
            for run in &process.runs {
                let same =
                    run.firing.id == firing.id || (alone && run.firing.id.schedule == firing.id.schedule);
                let live = !run.lost && !run.over && !process.killed && process.scheduler.holds(&run.firing);
                assert!(
                    !(same && live),
                    "{} begins in {index} while {} runs in {other}",
                    firing.id,
                    run.firing.id
                );
            }
        }
        let seen = self.seen.entry(firing.id.clone()).or_default();
        seen.begun += 1;
        if record.definition.policy.retry.attempts == 1 {
            assert_eq!(seen.begun, 1, "{} was begun twice, and has one attempt", firing.id);
        }
        let result = match self.rng.u32(..40) {
            0 => Err(Fault::permanent("it never will")),
            1..4 => Err(Fault::transient("not now")),
            _ => Ok(()),
        };
        let ends = self.now() + self.rng.i64(SECOND..longest_run);
        self.processes[index].runs.push(Run {
            firing,
            ends,
            result,
            over: false,
            effected: false,
            lost: false,
        });
    }

    async fn end_runs(&mut self, index: usize, now: i64) {
        let process = &mut self.processes[index];
        for mut run in std::mem::take(&mut process.runs) {
            if run.lost {
                continue;
            }
            if run.ends > now {
                process.runs.push(run);
                continue;
            }
            run.over = true;
            if !run.effected && run.result.is_ok() && process.scheduler.holds(&run.firing) {
                run.effected = true;
                self.seen.entry(run.firing.id.clone()).or_default().effects += 1;
            }
            if process.scheduler.finish(&run.firing, &run.result).await.is_err() {
                process.runs.push(run);
            }
        }
    }

    /// Nothing fails any more, until nothing is open but what is to come.
    async fn settle(&mut self) {
        self.store.kept.lock().unwrap().lossy = 0;
        for process in &mut self.processes {
            process.away_until = 0;
        }
        let open =
            |world: &Self| world.store.kept.lock().unwrap().records.values().any(|r| !r.open.is_empty());
        loop {
            self.pass(7 * SECOND).await;
            for index in 0..3 {
                self.look(index, 2 * SECOND).await;
            }
            if !open(self) {
                break;
            }
        }
    }

    /// Holds what was recorded against what should have occurred.
    fn check(&self, id: &ScheduleId, expected: impl Iterator<Item = Timestamp>) -> Tally {
        let kept = self.store.kept.lock().unwrap();
        let record = &kept.records[id];
        let policy = &record.definition.policy;
        let mut tally = Tally::default();
        let mut counts: BTreeMap<String, u64> = BTreeMap::new();
        for nominal in expected.take_while(|time| *time <= record.decided) {
            let firing = FiringId { schedule: id.clone(), nominal, origin: Origin::Planned };
            let ended = kept.ended.get(&firing).unwrap_or_else(|| panic!("{firing} is lost"));
            let seen = self.seen.get(&firing).copied().unwrap_or_default();
            let late = ended.at.millis_since(nominal);
            *counts.entry(ended.outcome.to_string()).or_default() += 1;
            tally.occurrences += 1;
            match ended.outcome {
                Outcome::Done => {
                    assert!(seen.effects >= 1, "{firing} is done without effect");
                    tally.doubled += u64::from(seen.effects - 1);
                    tally.done += 1;
                }
                Outcome::Failed(_) | Outcome::Cancelled(_) => tally.other += 1,
                Outcome::Skipped(skip) => {
                    let allowed: &[Overlap] = match skip {
                        Skip::Overlap => &[Overlap::Skip],
                        Skip::BufferFull => &[Overlap::BufferOne, Overlap::BufferAll, Overlap::AllowAll],
                        Skip::Paused => &[],
                    };
                    assert!(allowed.contains(&policy.overlap), "{firing}: {}", ended.outcome);
                    assert_eq!((seen.begun, ended.attempts), (0, 0), "{firing} was begun and skipped");
                    tally.other += 1;
                }
                Outcome::Missed(miss) => {
                    assert_eq!((seen.begun, ended.attempts), (0, 0), "{firing} was begun and missed");
                    let window = policy.catchup_window.as_millis() as i64;
                    match miss {
                        Miss::CatchupWindow => assert!(late > window, "{firing} was {late} ms late"),
                        Miss::Late => {
                            assert!(policy.missed == Missed::Skip && late > ON_TIME.as_millis() as i64)
                        }
                        Miss::LaterOne => {
                            assert!(policy.missed == Missed::RunLatest && late > ON_TIME.as_millis() as i64);
                        }
                    }
                    tally.other += 1;
                }
            }
        }
        let recorded = kept.ended.keys().filter(|firing| firing.schedule == *id).count() as u64;
        assert_eq!(recorded, tally.occurrences, "what is recorded of {id} never occurred");
        assert_eq!(counts, record.counts, "the counts of {id}");
        tally
    }
}

impl Process {
    fn lose(&mut self, id: &FiringId, epoch: u64) {
        for run in &mut self.runs {
            run.lost |= run.firing.id == *id && run.firing.epoch == epoch;
        }
    }
}

#[derive(Debug, Default)]
struct Tally {
    occurrences: u64,
    done: u64,
    doubled: u64,
    other: u64,
}

/// Minutes in UTC: an expression of wildcards occurs at each, whatever the clocks do.
fn minutes(from: i64) -> impl Iterator<Item = Timestamp> {
    (1..).map(move |minute| Timestamp(from + minute * MINUTE))
}

async fn add(world: &World, name: &str, definition: Definition) -> ScheduleId {
    let id = ScheduleId::new(name).expect("a valid name");
    let schedules = Schedules::new(world.store.clone(), Arc::new(world.clock.clone()));
    schedules.add(id.clone(), definition).await.expect("it is added");
    id
}

async fn year_of_minutes(zone: &str, changes: [i64; 2], seed: u64, policy: Policy) {
    println!("seed {seed}");
    let mut world = World::new(seed, START);
    let id = add(&world, "minutes", Definition::cron("* * * * *", zone).policy(policy)).await;
    let fixed = add_fixed(&world, zone).await;
    let mut quiet_until = START;
    while world.now() < START + 365 * DAY {
        world.step(90 * SECOND).await;
        // Half an hour of every day, and the days of the changes, are lived through; else nobody is there.
        let day = (world.now() - START) / DAY;
        if world.now() > quiet_until + HOUR / 2 && !changes.contains(&day) {
            quiet_until = world.now() + 23 * HOUR + HOUR / 2;
            for process in &mut world.processes {
                process.away_until = quiet_until;
            }
        }
    }
    world.settle().await;
    let tally = world.check(&id, minutes(START));
    assert!(tally.occurrences >= 365 * 24 * 60, "{tally:?}");
    assert!(tally.done > 5_000 && world.kills > 10 && world.freezes > 10, "{tally:?}");
    let mut doubled = tally.doubled;
    for (id, expected) in fixed {
        // A time that the clocks jump over, and one that they show twice, are of some days of the year.
        let tally = world.check(&id, expected.into_iter().map(Timestamp));
        assert!(tally.occurrences >= 365 * 9 - 9, "{id}: {tally:?}");
        doubled += tally.doubled;
    }
    assert!(doubled <= u64::from(world.kills + world.freezes), "{doubled} effects too many");
}

/// Schedules at fixed times of the day, those that the clocks jump over and show twice among them: one for each way to treat these, with
/// the policies in turn. Each with its occurrences, from a model that looks at every minute.
async fn add_fixed(world: &World, zone_name: &str) -> Vec<(ScheduleId, Vec<i64>)> {
    let fields = Fields {
        minutes: BTreeSet::from([0, 15, 30]),
        hours: BTreeSet::from([1, 2, 3]),
        weekdays: (0..7).collect(),
        wildcard: false,
    };
    // What goes on until all has settled is in it.
    let span = (START, START + 370 * DAY);
    let shown = shown(&zone(zone_name), span);
    let mut added = Vec::new();
    for gap in DstGap::ALL {
        for overlap in DstOverlap::ALL {
            let turn = added.len();
            let policy = Policy {
                overlap: Overlap::ALL[turn % Overlap::ALL.len()],
                missed: Missed::ALL[turn % Missed::ALL.len()],
                catchup_window: Duration::from_secs([60, 3_600][turn % 2]),
                ..Policy::default()
            };
            let timing = CronTiming {
                expression: "0,15,30 1,2,3 * * *".to_owned(),
                timezone: zone_name.to_owned(),
                dst_gap: *gap,
                dst_overlap: *overlap,
            };
            let definition = Definition::new(Timing::Cron(timing)).policy(policy);
            let id = add(world, &format!("{gap}/{overlap}"), definition).await;
            let mut expected = naive(&fields, &shown, span, *gap, *overlap);
            // A schedule begins after the time at which it was added.
            expected.retain(|time| *time > START);
            added.push((id, expected));
        }
    }
    added
}

#[tokio::test(start_paused = true)]
async fn a_year_of_minutes_in_berlin_is_fired_once_or_recorded() {
    year_of_minutes("Europe/Berlin", [87, 297], 1, Policy::default()).await;
}

#[tokio::test(start_paused = true)]
async fn a_year_of_minutes_in_new_york_is_fired_once_or_recorded() {
    let retry = Retry { attempts: 1, ..Retry::default() };
    let policy = Policy { overlap: Overlap::BufferOne, missed: Missed::RunAll, retry, ..Policy::default() };
    year_of_minutes("America/New_York", [66, 304], 2, policy).await;
}

#[tokio::test(start_paused = true)]
async fn a_year_of_minutes_on_lord_howe_island_is_fired_once_or_recorded() {
    let policy = Policy {
        overlap: Overlap::AllowAll,
        missed: Missed::Skip,
        jitter: Duration::from_secs(20),
        ..Policy::default()
    };
    year_of_minutes("Australia/Lord_Howe", [94, 276], 3, policy).await;
}

#[tokio::test(start_paused = true)]
async fn every_policy_over_both_changes_of_the_clocks_in_three_zones() {
    // The days before the changes of 2026, in days of the year.
    let zones = ZONES.into_iter().zip([[87, 297], [66, 304], [94, 276]]);
    let mut seed = 100;
    let mut outcomes: BTreeMap<String, u64> = BTreeMap::new();
    for (zone, days) in zones {
        for day in days {
            seed += 1;
            println!("seed {seed}");
            let from = START + day * DAY;
            let mut world = World::new(seed, from);
            let mut ids = Vec::new();
            for (index, overlap) in Overlap::ALL.iter().enumerate() {
                for missed in Missed::ALL {
                    let retry = Retry { attempts: 1 + (index as u32 % 3), ..Retry::default() };
                    let window = Duration::from_secs(600);
                    let policy = Policy {
                        overlap: *overlap,
                        missed: *missed,
                        catchup_window: window,
                        retry,
                        ..Policy::default()
                    };
                    let definition = Definition::cron("*/5 * * * *", zone).policy(policy);
                    ids.push(add(&world, &format!("{overlap}/{missed}"), definition).await);
                }
            }
            while world.now() < from + 2 * DAY {
                world.step(8 * MINUTE).await;
            }
            world.settle().await;
            for id in ids {
                let tally =
                    world.check(&id, minutes(from).filter(|minute| minute.as_millis() % (5 * MINUTE) == 0));
                assert!(tally.occurrences >= 2 * 288, "{id}: {tally:?}");
            }
            for record in world.store.kept.lock().unwrap().records.values() {
                for (outcome, count) in &record.counts {
                    *outcomes.entry(outcome.clone()).or_default() += count;
                }
            }
        }
    }
    // The run met them all, but for what needs an operator.
    let met: Vec<&str> = outcomes.keys().map(String::as_str).collect();
    let all = [
        "cancelled.replaced",
        "done",
        "failed.attempts",
        "failed.lost",
        "failed.permanent",
        "missed.catchup_window",
        "missed.late",
        "missed.later_one",
        "skipped.buffer_full",
        "skipped.overlap",
    ];
    assert_eq!(met, all);
}
