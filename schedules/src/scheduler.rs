//! The part of one process: it decides occurrences, claims firings, keeps its claims, and takes over those of processes that were
//! lost.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use galerna_model::{Clock, Timestamp};
use galerna_topology::Fault;
use tokio::time::Instant;

use crate::firing::{Firing, FiringId};
use crate::transition::Change;
use crate::{Occurrences, Record, ScheduleId, ScheduleStore, StoreError, invariants};

/// Occurrences that are decided in one write.
pub(crate) const DECIDED_AT_ONCE: usize = 1_000;

/// Records that are looked at in one tick, beside those with claims.
const RECORDS: usize = 1_000;

/// How often a change is tried when others change the same record.
pub(crate) const TRIES: usize = 20;

/// What ended long ago is forgotten so often.
const FORGET_EVERY: Duration = Duration::from_secs(3_600);

/// How a process takes part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SchedulerOptions {
    /// Its name among the holders of claims, unlike that of any other process now or before; a random one by default.
    pub holder: String,
    /// So long after this process was last heard of, others take its firings over.
    pub lease: Duration,
    /// How much longer than the lease others wait, so that a holder whose clock runs slower has stopped.
    pub expiry_margin: Duration,
    /// What ended is kept so long, and then forgotten by whoever takes part; without end if there is none.
    pub keep: Option<Duration>,
}

impl Default for SchedulerOptions {
    /// A lease of 30 s, taken over 1 s later; what ended is kept for 90 days.
    fn default() -> Self {
        let holder = format!("{}-{:016x}", std::process::id(), fastrand::u64(..));
        Self {
            holder,
            lease: Duration::from_secs(30),
            expiry_margin: Duration::from_secs(1),
            keep: Some(Duration::from_secs(90 * 86_400)),
        }
    }
}

/// What [`Scheduler::finish`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finished {
    /// It is recorded.
    Recorded,
    /// The claim is not there any more: it was lost to another process, the schedule was removed, or an earlier call whose outcome
    /// was not known has recorded it.
    Gone,
}

/// What a process is to do after [`Scheduler::tick`].
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Tick {
    /// Run these.
    pub claimed: Vec<Firing>,
    /// These are to stop, for a later one: then [`Scheduler::finish`] them, with an error.
    pub stop: Vec<(FiringId, u64)>,
    /// The claims of these, with their epochs, are lost: what runs of them is to have no effect any more.
    pub lost: Vec<(FiringId, u64)>,
}

/// A claim: epochs are numbered within a schedule.
type ClaimKey = (ScheduleId, u64);

/// A claim of this process.
#[derive(Debug, Clone)]
struct Held {
    id: FiringId,
    /// When the claim, or its last renewal, was asked for.
    since: Instant,
    told_to_stop: bool,
    /// It was not renewed in time, and whoever runs the firing has been told.
    lapsed: bool,
}

/// Since when another's claim has been seen unchanged.
#[derive(Debug, Clone, Copy)]
struct Watch {
    renewal: u64,
    since: Instant,
}

/// What finds the occurrences of a revision of a schedule; none if its definition cannot be read by this version.
struct Compiled {
    created: Timestamp,
    revision: u64,
    occurrences: Option<Arc<Occurrences>>,
}

/// The part of one process. Time is read from a [`Clock`] (due times) and from `tokio::time` (leases), so that tests can set
/// both.
///
/// A claim is timed as a lease of a queue is: its holder counts from before it asked, others from when they first saw it, each
/// by a clock that never jumps; the time of day decides only when something is due.
pub struct Scheduler {
    store: Arc<dyn ScheduleStore>,
    clock: Arc<dyn Clock>,
    options: SchedulerOptions,
    held: HashMap<ClaimKey, Held>,
    watched: HashMap<ClaimKey, Watch>,
    compiled: HashMap<ScheduleId, Compiled>,
    /// When this process last had the store forget what ended long ago.
    forgot: Option<Instant>,
}

impl std::fmt::Debug for Scheduler {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Scheduler").field("options", &self.options).field("held", &self.held.len()).finish()
    }
}

impl Scheduler {
    /// Takes part in the schedules of a store.
    pub fn new(store: Arc<dyn ScheduleStore>, clock: Arc<dyn Clock>, options: SchedulerOptions) -> Self {
        Self {
            store,
            clock,
            options,
            held: HashMap::new(),
            watched: HashMap::new(),
            compiled: HashMap::new(),
            forgot: None,
        }
    }

    /// The name of this process among the holders of claims.
    pub fn holder(&self) -> &str {
        &self.options.holder
    }

    /// How many claims this process has.
    pub fn held(&self) -> usize {
        self.held.len()
    }

    /// Whether a claim of this process is within its lease, by its own clock. To be asked right before an effect that must not
    /// be had by two.
    pub fn holds(&self, firing: &Firing) -> bool {
        let key = (firing.id.schedule.clone(), firing.epoch);
        self.held.get(&key).is_some_and(|held| held.since.elapsed() < self.options.lease)
    }

    /// Claims that were not renewed within their lease, by the clock of this process: what runs of them is to have no effect any
    /// more. Each is told once. To be asked before [`Self::tick`], also while the store cannot be reached.
    pub fn lapsed(&mut self) -> Vec<(FiringId, u64)> {
        let lease = self.options.lease;
        let late = self.held.iter_mut().filter(|(_, held)| !held.lapsed && held.since.elapsed() >= lease);
        late.map(|((_, epoch), held)| {
            held.lapsed = true;
            (held.id.clone(), *epoch)
        })
        .collect()
    }

    /// Has the store forget what ended long ago, once an hour.
    async fn forget(&mut self) {
        let Some(keep) = self.options.keep else { return };
        if self.forgot.is_some_and(|at| at.elapsed() < FORGET_EVERY) {
            return;
        }
        // Also when it fails: another does it, or this one in an hour.
        self.forgot = Some(Instant::now());
        let before = self.clock.now().plus_millis(-crate::definition::millis(keep));
        match self.store.forget(before).await {
            Ok(0) => {}
            Ok(forgotten) => tracing::debug!(forgotten, "what ended long ago is forgotten"),
            Err(error) => tracing::warn!(%error, "what ended long ago is not forgotten"),
        }
    }

    /// Decides what has become due, claims up to `room` firings, renews the claims that this process has, and lets claims of
    /// processes that were lost expire. To be called about once a second, and at least three times a lease.
    ///
    /// # Errors
    /// When the store fails before anything was claimed.
    pub async fn tick(&mut self, room: usize) -> Result<Tick, StoreError> {
        let asked = Instant::now();
        let records = self.store.pending(self.clock.now(), RECORDS).await?;
        let mut tick = Tick::default();
        let mut seen = HashSet::new();
        for record in records {
            let claims = record.open.iter().filter_map(|firing| firing.claim.as_ref());
            seen.extend(claims.map(|claim| (record.id.clone(), claim.epoch)));
            if let Err(error) = self.advance(record, room, &mut tick).await {
                if tick == Tick::default() {
                    return Err(error);
                }
                tracing::warn!(%error, "some schedules were not looked at and are in the next round");
                return Ok(tick);
            }
        }
        self.forget().await;
        self.watched.retain(|key, _| seen.contains(key));
        // Whatever has a claim was among the records.
        self.held.retain(|key, held| {
            let kept = held.since >= asked || (seen.contains(key) && !held.lapsed);
            if !kept && !held.lapsed {
                tick.lost.push((held.id.clone(), key.1));
            }
            kept
        });
        Ok(tick)
    }

    async fn advance(&mut self, mut record: Record, room: usize, tick: &mut Tick) -> Result<(), StoreError> {
        for _ in 0..TRIES {
            let Some(occurrences) = self.compile(&record) else { return Ok(()) };
            let expected = record.version;
            let before = record.clone();
            let (asked, now) = (Instant::now(), self.clock.now());
            let mut change = Change::new(&mut record, now);
            let renewed = self.look_at_claims(&mut change, asked, tick);
            let more = change.advance(&occurrences, DECIDED_AT_ONCE);
            let left = room.saturating_sub(tick.claimed.len());
            let lease_ms = u64::try_from(self.options.lease.as_millis()).unwrap_or(u64::MAX);
            let claimed = change.claim(&self.options.holder, lease_ms, left);
            let ended = std::mem::take(&mut change.ended);
            if *change.record == before {
                return Ok(());
            }
            debug_assert_eq!(invariants::check(&record), Ok(()));
            record.version = fastrand::i64(..);
            if !self.store.swap(&record, expected, &ended).await? {
                match self.store.get(&record.id).await? {
                    Some(current) => record = current,
                    None => return Ok(()),
                }
                continue;
            }
            for epoch in renewed {
                if let Some(held) = self.held.get_mut(&(record.id.clone(), epoch)) {
                    held.since = asked;
                }
            }
            for firing in claimed {
                let held = Held { id: firing.id.clone(), since: asked, told_to_stop: false, lapsed: false };
                self.held.insert((record.id.clone(), firing.epoch), held);
                tell(&firing.id, false, format_args!("claimed, attempt {}", firing.attempt));
                tick.claimed.push(firing);
            }
            if !more {
                return Ok(());
            }
        }
        // Others are at it, or there is much to decide: the next round goes on.
        Ok(())
    }

    /// Renews what this process holds, gives back what it does not know to hold, expires what others lost. The epochs that were
    /// renewed.
    fn look_at_claims(&mut self, change: &mut Change<'_>, now: Instant, tick: &mut Tick) -> Vec<u64> {
        let mut renewed = Vec::new();
        let claims: Vec<_> = change
            .record
            .open
            .iter()
            .filter_map(|firing| Some((firing.claim.clone()?, firing.cancelled)))
            .collect();
        for (claim, cancelled) in claims {
            let key = (change.record.id.clone(), claim.epoch);
            if claim.holder != self.options.holder {
                let watch = match self.watched.get(&key) {
                    Some(watch) if watch.renewal == claim.renewal => *watch,
                    _ => Watch { renewal: claim.renewal, since: now },
                };
                self.watched.insert(key, watch);
                let lease = Duration::from_millis(claim.lease_ms) + self.options.expiry_margin;
                if now.saturating_duration_since(watch.since) >= lease {
                    change.expire(claim.epoch, claim.renewal);
                }
                continue;
            }
            let Some(held) = self.held.get_mut(&key) else {
                // A write that was not known to be done: what it claimed was never begun.
                change.release(claim.epoch);
                continue;
            };
            if held.lapsed {
                // Nobody has taken it over, and here it was stopped: as if it had been lost.
                change.expire(claim.epoch, claim.renewal);
                continue;
            }
            if cancelled && !held.told_to_stop {
                held.told_to_stop = true;
                tick.stop.push((held.id.clone(), claim.epoch));
            }
            if now.saturating_duration_since(held.since) >= self.options.lease / 3 {
                change.renew(claim.epoch);
                renewed.push(claim.epoch);
            }
        }
        renewed
    }

    /// Records how an attempt at a firing ended. After an error the same call may be made again.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn finish(
        &mut self,
        firing: &Firing,
        result: &Result<(), Fault>,
    ) -> Result<Finished, StoreError> {
        let finished = self.settle(firing, |change| change.finish(firing.epoch, result)).await?;
        match result {
            Ok(()) => tell(&firing.id, false, format_args!("done")),
            Err(fault) => tell(&firing.id, true, format_args!("failed: {fault}")),
        }
        Ok(finished)
    }

    /// Gives a firing back that was not begun; it does not count as an attempt.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn release(&mut self, firing: &Firing) -> Result<Finished, StoreError> {
        self.settle(firing, |change| change.release(firing.epoch)).await
    }

    async fn settle(
        &mut self,
        firing: &Firing,
        apply: impl Fn(&mut Change<'_>) -> bool,
    ) -> Result<Finished, StoreError> {
        let id = &firing.id.schedule;
        let key = (id.clone(), firing.epoch);
        for _ in 0..TRIES {
            let mut done = Finished::Gone;
            if let Some(mut record) = self.store.get(id).await? {
                let expected = record.version;
                let mut change = Change::new(&mut record, self.clock.now());
                if apply(&mut change) {
                    let ended = std::mem::take(&mut change.ended);
                    debug_assert_eq!(invariants::check(&record), Ok(()));
                    record.version = fastrand::i64(..);
                    if !self.store.swap(&record, expected, &ended).await? {
                        continue;
                    }
                    done = Finished::Recorded;
                }
            }
            self.held.remove(&key);
            return Ok(done);
        }
        Err(StoreError::Unavailable {
            attempted: format!("recording how {} ended", firing.id),
            cause: "others change the schedule again and again".to_owned(),
        })
    }

    /// How long until something is due, `longest` at most.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn until_next(&self, longest: Duration) -> Result<Duration, StoreError> {
        let Some(wake) = self.store.next_wake().await? else { return Ok(longest) };
        let left = u64::try_from(wake.millis_since(self.clock.now())).unwrap_or(0);
        Ok(Duration::from_millis(left).min(longest))
    }

    fn compile(&mut self, record: &Record) -> Option<Arc<Occurrences>> {
        let known = self.compiled.get(&record.id);
        if let Some(known) = known
            && known.created == record.created
            && known.revision == record.revision
        {
            return known.occurrences.clone();
        }
        let occurrences = match record.definition.compile() {
            Ok(occurrences) => Some(Arc::new(occurrences)),
            Err(error) => {
                tracing::error!(schedule = %record.id, %error, "a schedule is not understood and does not run; edit it");
                None
            }
        };
        let (created, revision) = (record.created, record.revision);
        let compiled = Compiled { created, revision, occurrences: occurrences.clone() };
        self.compiled.insert(record.id.clone(), compiled);
        occurrences
    }
}

/// A step in the history of a firing.
fn tell(id: &FiringId, failed: bool, what: std::fmt::Arguments<'_>) {
    if tracing::enabled!(target: "galerna::trace::schedules", tracing::Level::TRACE) {
        let id = id.to_string();
        tracing::trace!(target: "galerna::trace::schedules", id = id.as_str(), failed, "{what}");
    }
}
