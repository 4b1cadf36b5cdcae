//! The part of one process.

use std::collections::{HashMap, HashSet};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use galerna_model::Clock;
use serde_json::Value;
use tokio::time::Instant;

use crate::record::{Claim, End, Part, Plan, Record, Reported};
use crate::{FanInError, FanInStore};

/// How often a change is tried when others change the same record.
const TRIES: usize = 200;

/// Records that are looked at in one round.
const RECORDS: usize = 1_000;

/// What was acted on long ago is forgotten so often.
const FORGET_EVERY: Duration = Duration::from_secs(3_600);

/// How a process takes part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FanInOptions {
    /// Its name, unlike that of any other process now or before; a random one by default.
    pub holder: String,
    /// So long after a process has claimed an end others leave that alone: longer than it takes to act on one.
    pub lease: Duration,
    /// A fan-in whose end was acted on is kept so long, so that it is not begun again and late parts are told so; then whoever takes
    /// part forgets it. Without end if there is none.
    pub keep: Option<Duration>,
}

impl Default for FanInOptions {
    /// A lease of 60 s; what was acted on is kept for 7 days.
    fn default() -> Self {
        let holder = format!("{}-{:016x}", std::process::id(), fastrand::u64(..));
        Self { holder, lease: Duration::from_secs(60), keep: Some(Duration::from_secs(7 * 86_400)) }
    }
}

/// An end that this process has claimed: act on it, then [`FanIn::settle`] it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// How it ended.
    pub end: End,
    /// The whole record: the parts, the payload, what was late and duplicate.
    pub record: Record,
    /// The claim's number.
    pub epoch: u64,
}

/// The fan-ins of a store.
pub struct FanIn {
    store: Arc<dyn FanInStore>,
    clock: Arc<dyn Clock>,
    options: FanInOptions,
    /// Since when a claim has been seen.
    watched: HashMap<(String, u64), Instant>,
    /// Claims of this process that it has handed out.
    held: HashSet<(String, u64)>,
    /// When this process last had the store forget what was acted on long ago.
    forgot: Option<Instant>,
}

impl std::fmt::Debug for FanIn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FanIn").field("options", &self.options).finish_non_exhaustive()
    }
}

impl FanIn {
    /// Takes part in the fan-ins of a store.
    pub fn new(store: Arc<dyn FanInStore>, clock: Arc<dyn Clock>, options: FanInOptions) -> Self {
        Self { store, clock, options, watched: HashMap::new(), held: HashSet::new(), forgot: None }
    }

    /// Begins a fan-in; to be called before the first part is sent. When there is one of this name already, because whoever began it
    /// was lost or is asked again, that goes on: send those of its parts that are [`Part::Waiting`].
    ///
    /// # Errors
    /// [`FanInError::Bad`] when the plan makes no sense; otherwise when the store fails.
    pub async fn begin(&self, plan: Plan) -> Result<Record, FanInError> {
        let record = Record::new(plan, self.clock.now())?;
        if self.store.insert(&record).await? {
            return Ok(record);
        }
        self.get(&record.id).await
    }

    /// A fan-in.
    ///
    /// # Errors
    /// [`FanInError::NotFound`].
    pub async fn get(&self, id: &str) -> Result<Record, FanInError> {
        self.store.get(id).await?.ok_or_else(|| FanInError::NotFound(id.to_owned()))
    }

    /// Takes what came of a part: a value, or why there is none. It may be told as often as one likes: the first counts. A part is safe
    /// when this returns `Ok`, whatever it was.
    ///
    /// # Errors
    /// [`FanInError::UnknownPart`], [`FanInError::NotFound`], or when the store fails: then it is to be told again.
    pub async fn report(
        &self,
        id: &str,
        part: &str,
        result: Result<Value, String>,
    ) -> Result<Reported, FanInError> {
        let part_state = match result {
            Ok(value) => Part::Done(value),
            Err(reason) => Part::Failed(reason),
        };
        self.change(id, |record| record.report(part, part_state.clone(), self.clock.now())).await
    }

    /// Has the store forget what was acted on long ago, once an hour.
    async fn forget(&mut self) {
        let Some(keep) = self.options.keep else { return };
        if self.forgot.is_some_and(|at| at.elapsed() < FORGET_EVERY) {
            return;
        }
        // Also when it fails: another does it, or this one in an hour.
        self.forgot = Some(Instant::now());
        let keep = i64::try_from(keep.as_millis()).unwrap_or(i64::MAX);
        match self.store.forget(self.clock.now().plus_millis(-keep)).await {
            Ok(0) => {}
            Ok(forgotten) => tracing::debug!(forgotten, "fan-ins of long ago are forgotten"),
            Err(error) => tracing::warn!(%error, "fan-ins of long ago are not forgotten"),
        }
    }

    /// As [`Self::report`], for many parts of one fan-in in one write: what became of each, in their order.
    ///
    /// # Errors
    /// As of [`Self::report`]; then none is taken.
    pub async fn report_all(
        &self,
        id: &str,
        results: &[(String, Result<Value, String>)],
    ) -> Result<Vec<Reported>, FanInError> {
        let now = self.clock.now();
        self.change(id, |record| {
            let reports = results.iter().map(|(part, result)| {
                let state = match result {
                    Ok(value) => Part::Done(value.clone()),
                    Err(reason) => Part::Failed(reason.clone()),
                };
                record.report(part, state, now)
            });
            reports.collect()
        })
        .await
    }

    /// Ends what its deadline has passed, and claims ends that nobody acts on, `most` at once. To be called about once a second.
    ///
    /// # Errors
    /// When the store fails before anything was claimed.
    pub async fn ended(&mut self, most: usize) -> Result<Vec<Ended>, FanInError> {
        let now = self.clock.now();
        let pending = self.store.pending(now, RECORDS).await?;
        let mut seen = HashSet::new();
        let mut ended = Vec::new();
        for mut record in pending {
            if let Some(claim) = &record.claim {
                let key = (record.id.clone(), claim.epoch);
                seen.insert(key.clone());
                if claim.holder == self.options.holder {
                    if self.held.contains(&key) {
                        continue;
                    }
                    // A write that was not known to be done.
                } else {
                    let since = *self.watched.entry(key).or_insert_with(Instant::now);
                    if since.elapsed() < Duration::from_millis(claim.lease_ms) {
                        continue;
                    }
                }
            }
            let expected = record.version;
            let expired = record.expire(now);
            let Some((end, _)) = record.end else { continue };
            let claims = ended.len() < most;
            if !claims && !expired {
                continue;
            }
            if claims {
                record.epoch += 1;
                let lease_ms = u64::try_from(self.options.lease.as_millis()).unwrap_or(u64::MAX);
                record.claim =
                    Some(Claim { holder: self.options.holder.clone(), epoch: record.epoch, lease_ms });
            }
            debug_assert_eq!(record.check(), Ok(()));
            record.version = fastrand::i64(..);
            match self.store.swap(&record, expected).await {
                Ok(true) if claims => {
                    self.held.insert((record.id.clone(), record.epoch));
                    ended.push(Ended { end, epoch: record.epoch, record });
                }
                Ok(_) => {}
                Err(error) if ended.is_empty() => return Err(error),
                Err(error) => {
                    tracing::warn!(%error, "some fan-ins were not looked at and are in the next round");
                    return Ok(ended);
                }
            }
        }
        self.watched.retain(|key, _| seen.contains(key));
        self.forget().await;
        Ok(ended)
    }

    /// Says that an end was acted on. False when the claim was lost to another process, which acts on it, too: by the name of the fan-in
    /// whoever is told can tell.
    ///
    /// # Errors
    /// When the store fails: then it is to be called again.
    pub async fn settle(&mut self, ended: &Ended) -> Result<bool, FanInError> {
        let settled = self
            .change(&ended.record.id, |record| {
                let ours = record.claim.as_ref().is_some_and(|claim| claim.epoch == ended.epoch);
                record.settled |= ours;
                Ok(ours)
            })
            .await?;
        self.held.remove(&(ended.record.id.clone(), ended.epoch));
        Ok(settled)
    }

    /// Gives an end back that was not acted on.
    ///
    /// # Errors
    /// When the store fails: then it is given to somebody after the lease.
    pub async fn release(&mut self, ended: &Ended) -> Result<(), FanInError> {
        let released = self
            .change(&ended.record.id, |record| {
                if record.claim.as_ref().is_some_and(|claim| claim.epoch == ended.epoch) && !record.settled {
                    record.claim = None;
                }
                Ok(())
            })
            .await;
        self.held.remove(&(ended.record.id.clone(), ended.epoch));
        released
    }

    /// Acts on each end with a function, about once a second, until `stop` resolves. An end whose function fails is given back.
    pub async fn run<F, Fut, E>(mut self, stop: impl Future<Output = ()>, act: F)
    where
        F: Fn(Ended) -> Fut,
        Fut: Future<Output = Result<(), E>>,
        E: std::fmt::Display,
    {
        tokio::pin!(stop);
        loop {
            match self.ended(16).await {
                Ok(ended) => {
                    for ended in ended {
                        let settled = match act(ended.clone()).await {
                            Ok(()) => self.settle(&ended).await.map(drop),
                            Err(cause) => {
                                tracing::warn!(fan_in = ended.record.id, %cause, "its end was not acted on");
                                self.release(&ended).await
                            }
                        };
                        if let Err(error) = settled {
                            tracing::warn!(%error, "an end may be acted on again");
                        }
                    }
                }
                Err(error) => tracing::warn!(%error, "fan-ins are not looked at"),
            }
            tokio::select! {
                () = &mut stop => return,
                () = tokio::time::sleep(Duration::from_secs(1)) => {}
            }
        }
    }

    async fn change<T>(
        &self,
        id: &str,
        apply: impl Fn(&mut Record) -> Result<T, FanInError>,
    ) -> Result<T, FanInError> {
        for tried in 0..TRIES {
            let mut record = self.get(id).await?;
            let before = record.clone();
            let answer = apply(&mut record)?;
            if record == before {
                return Ok(answer);
            }
            debug_assert_eq!(record.check(), Ok(()));
            record.version = fastrand::i64(..);
            if self.store.swap(&record, before.version).await? {
                return Ok(answer);
            }
            let most = 1 + u64::try_from(tried).unwrap_or(u64::MAX).min(20);
            tokio::time::sleep(Duration::from_millis(fastrand::u64(..=most))).await;
        }
        Err(FanInError::Unavailable {
            attempted: format!("changing the fan-in {id}"),
            cause: "others change it again and again".to_owned(),
        })
    }
}
