//! The part of one process.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use galerna_model::Clock;
use galerna_topology::{Fault, FaultKind};
use tokio::time::Instant;

use crate::store::{Attempt, AttemptEnd, ItemStore, Round, StoredClaim};
use crate::{DelayError, DelayOptions, Item, Parked, Settled, Taken};

/// Items with due times, which any number of processes share; one value for each process or worker.
pub struct DelayStore {
    store: Arc<dyn ItemStore>,
    clock: Arc<dyn Clock>,
    options: DelayOptions,
    /// Claims of this process that were handed out, by item.
    held: HashMap<String, Held>,
    /// Since when another's claim has been seen unchanged: item, epoch, renewal.
    watched: HashMap<(String, u64, u64), Instant>,
}

impl std::fmt::Debug for DelayStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DelayStore")
            .field("options", &self.options)
            .field("held", &self.held.len())
            .finish_non_exhaustive()
    }
}

/// A claim of this process.
struct Held {
    epoch: u64,
    /// When it, or its last renewal, was asked for.
    since: Instant,
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

impl DelayStore {
    /// Takes part in the items of a store.
    pub fn new(store: Arc<dyn ItemStore>, clock: Arc<dyn Clock>, options: DelayOptions) -> Self {
        Self { store, clock, options, held: HashMap::new(), watched: HashMap::new() }
    }

    /// Takes part in the items of an SQLite file, which is created, with its folder, when missing. Several processes may have it open.
    /// Blocks for as long as that takes.
    ///
    /// # Errors
    /// See [`OpenError`](galerna_sqlite::OpenError).
    #[cfg(feature = "embedded")]
    pub fn open(
        path: &std::path::Path,
        clock: Arc<dyn Clock>,
        options: DelayOptions,
    ) -> Result<Self, galerna_sqlite::OpenError> {
        Ok(Self::new(Arc::new(crate::sqlite::SqliteItems::open(path)?), clock, options))
    }

    /// A store that is gone when it is dropped: for trying and for tests.
    ///
    /// # Errors
    /// When SQLite has no memory.
    #[cfg(feature = "embedded")]
    pub fn in_memory(clock: Arc<dyn Clock>, options: DelayOptions) -> Result<Self, DelayError> {
        Ok(Self::new(Arc::new(crate::sqlite::SqliteItems::in_memory()?), clock, options))
    }

    /// Keeps items; they are on disk when this returns. How many were new.
    ///
    /// # Errors
    /// When the store fails. Then none was kept (SQLite), or some may have been (MongoDB): put them again, which adds none twice.
    pub async fn put(&self, items: Vec<Item>) -> Result<usize, DelayError> {
        self.store.put(&items).await
    }

    /// Claims up to `room` items that are due, the longest due first; renews the claims that this process has, and takes over those of
    /// processes that were lost. To be called about once a second, and at least three times a lease.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn claim(&mut self, room: usize) -> Result<Vec<Taken>, DelayError> {
        let claimed = self.store.claimed().await?;
        let now = Instant::now();
        let (mut renew, mut take_over, mut unknown) = (Vec::new(), Vec::new(), Vec::new());
        let (mut current, mut seen) = (HashSet::new(), HashSet::new());
        for claim in claimed {
            if claim.holder == self.options.holder {
                match self.held.get(&claim.id) {
                    Some(held) if held.epoch == claim.epoch => {
                        if now.saturating_duration_since(held.since) >= self.options.lease / 3 {
                            renew.push((claim.id.clone(), claim.epoch));
                        }
                        current.insert(claim.id);
                    }
                    // A write that was not known to be done: what it claimed was never begun.
                    _ => unknown.push((claim.id, claim.epoch)),
                }
                continue;
            }
            let watched = (claim.id.clone(), claim.epoch, claim.renewal);
            let since = *self.watched.entry(watched.clone()).or_insert(now);
            seen.insert(watched);
            let lease = Duration::from_millis(claim.lease_ms);
            if now.saturating_duration_since(since) >= lease + lease / 30 {
                take_over.push(claim);
            }
        }
        // What is not among them was lost.
        self.held.retain(|id, _| current.contains(id));
        self.watched.retain(|key, _| seen.contains(key));
        self.ask(renew, unknown, take_over, now, room).await
    }

    async fn ask(
        &mut self,
        renew: Vec<(String, u64)>,
        give_back: Vec<(String, u64)>,
        take_over: Vec<StoredClaim>,
        asked: Instant,
        room: usize,
    ) -> Result<Vec<Taken>, DelayError> {
        let round = Round {
            holder: self.options.holder.clone(),
            lease_ms: millis(self.options.lease),
            now: self.clock.now(),
            renew,
            give_back,
            take_over,
            attempts: self.options.retry.attempts,
            room,
        };
        let taken = self.store.claim(&round).await?;
        for (id, _) in &round.renew {
            if let Some(held) = self.held.get_mut(id) {
                held.since = asked;
            }
        }
        for taken in &taken {
            self.held.insert(taken.item.id.clone(), Held { epoch: taken.epoch, since: asked });
            let (id, attempt) = (taken.item.id.as_str(), taken.attempt);
            tracing::trace!(target: "galerna::trace::delayed", id, "claimed, attempt {attempt}");
        }
        Ok(taken)
    }

    /// Records how an attempt ended. After an error the same call may be made again.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn settle(&mut self, taken: &Taken, result: &Result<(), Fault>) -> Result<Settled, DelayError> {
        let settled = self.settle_all(&[(taken.clone(), result.clone())]).await?;
        Ok(settled.first().copied().unwrap_or(Settled::Gone))
    }

    /// As [`Self::settle`], for many attempts at once: what became of each, in their order.
    ///
    /// # Errors
    /// When the store fails. Then nothing is recorded (SQLite), or some of it may be (MongoDB): make the same call again, at which what was
    /// recorded is [`Settled::Gone`].
    pub async fn settle_all(
        &mut self,
        ended: &[(Taken, Result<(), Fault>)],
    ) -> Result<Vec<Settled>, DelayError> {
        let mut attempts = Vec::with_capacity(ended.len());
        let mut outcomes = Vec::with_capacity(ended.len());
        for (taken, result) in ended {
            let (settled, end) = self.end_of(taken, result);
            attempts.push(Attempt { id: taken.item.id.clone(), epoch: taken.epoch, end });
            outcomes.push(settled);
        }
        let ours = self.store.settle(&self.options.holder, &attempts).await?;
        for attempt in attempts {
            if self.held.get(&attempt.id).is_some_and(|held| held.epoch == attempt.epoch) {
                self.held.remove(&attempt.id);
            }
        }
        let gone = outcomes.into_iter().zip(ours);
        let settled: Vec<_> =
            gone.map(|(settled, ours)| if ours { settled } else { Settled::Gone }).collect();
        if tracing::enabled!(target: "galerna::trace::delayed", tracing::Level::TRACE) {
            for ((taken, result), settled) in ended.iter().zip(&settled) {
                tell(&taken.item.id, result, *settled);
            }
        }
        Ok(settled)
    }

    fn end_of(&self, taken: &Taken, result: &Result<(), Fault>) -> (Settled, AttemptEnd) {
        let retry = &self.options.retry;
        let Err(fault) = result else { return (Settled::Done, AttemptEnd::Done) };
        let reason = fault.reason().to_owned();
        let kind = fault.kind();
        let used_up = kind == FaultKind::Transient && taken.attempt >= retry.attempts;
        if kind == FaultKind::Permanent || used_up {
            return (Settled::Parked, AttemptEnd::Parked { reason });
        }
        let mut backoff = retry.pauses.begin();
        let pause = (1..taken.attempt.min(64)).fold(backoff.pause(), |_, _| backoff.pause());
        let due = self.clock.now().plus_millis(i64::try_from(millis(pause)).unwrap_or(i64::MAX));
        let counts = kind != FaultKind::Unavailable;
        (Settled::Again(due), AttemptEnd::Again { due, fault: reason, counts })
    }

    /// Items that are tried no more until [`Self::resume`] or [`Self::discard`], in the order in which they were put.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn parked(&self, limit: usize) -> Result<Vec<Parked>, DelayError> {
        self.store.parked(limit).await
    }

    /// Tries a parked item again, as if for the first time. False when it is not parked.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn resume(&self, id: &str) -> Result<bool, DelayError> {
        self.store.resume(id, self.clock.now()).await
    }

    /// Drops a parked item, so that those of its key go on. False when it is not parked.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn discard(&self, id: &str) -> Result<bool, DelayError> {
        self.store.discard(id).await
    }

    /// How many items there are.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn len(&self) -> Result<u64, DelayError> {
        self.store.count().await
    }

    /// Whether there is none.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn is_empty(&self) -> Result<bool, DelayError> {
        Ok(self.len().await? == 0)
    }
}

/// A step in the history of an item.
fn tell(id: &str, result: &Result<(), Fault>, settled: Settled) {
    let what = match settled {
        Settled::Done => "done".to_owned(),
        Settled::Again(due) => format!("tried again at {due}"),
        Settled::Parked => "parked".to_owned(),
        Settled::Gone => "the claim was lost".to_owned(),
    };
    match result {
        Ok(()) => tracing::trace!(target: "galerna::trace::delayed", id, "{what}"),
        Err(fault) => {
            tracing::trace!(target: "galerna::trace::delayed", id, failed = true, "{what}: {fault}")
        }
    }
}
