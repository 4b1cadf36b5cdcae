//! What operators and programs do with schedules.

use std::sync::Arc;

use galerna_model::{Clock, Timestamp};

use crate::scheduler::{DECIDED_AT_ONCE, TRIES};
use crate::transition::{self, Change};
use crate::{
    Definition, Ended, FiringId, Occurrences, Outcome, Overlap, Record, ScheduleError, ScheduleId,
    ScheduleStore, StoreError, invariants,
};

/// The schedules of a store: add, edit, pause, resume, trigger, backfill, remove, look at. All of it may be done while any number of
/// processes fire them.
///
/// Whatever is done, the occurrences that have become due before are decided first, by what the schedule was until then.
#[derive(Clone)]
pub struct Schedules {
    store: Arc<dyn ScheduleStore>,
    clock: Arc<dyn Clock>,
}

impl std::fmt::Debug for Schedules {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Schedules").finish_non_exhaustive()
    }
}

impl Schedules {
    /// The schedules of a store.
    pub fn new(store: Arc<dyn ScheduleStore>, clock: Arc<dyn Clock>) -> Self {
        Self { store, clock }
    }

    /// The time by which they go.
    #[cfg(feature = "api")]
    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Adds a schedule; its first occurrence is after now.
    ///
    /// # Errors
    /// [`ScheduleError::Exists`] when the name is taken, [`ScheduleError::Bad`] when the definition makes no sense.
    pub async fn add(&self, id: ScheduleId, definition: Definition) -> Result<Record, ScheduleError> {
        let occurrences = definition.compile()?;
        let record = transition::create(id, definition, &occurrences, self.clock.now());
        if self.store.insert(&record).await? { Ok(record) } else { Err(ScheduleError::Exists(record.id)) }
    }

    /// A schedule.
    ///
    /// # Errors
    /// [`ScheduleError::NotFound`].
    pub async fn get(&self, id: &ScheduleId) -> Result<Record, ScheduleError> {
        self.store.get(id).await?.ok_or_else(|| ScheduleError::NotFound(id.clone()))
    }

    /// Schedules in the order of their names, after one, `limit` at most.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn list(&self, after: Option<&ScheduleId>, limit: usize) -> Result<Vec<Record>, StoreError> {
        self.store.list(after, limit).await
    }

    /// The next `most` nominal times of a schedule, if it is not paused by then.
    ///
    /// # Errors
    /// [`ScheduleError::NotFound`], or [`ScheduleError::Bad`] when this version does not understand the definition.
    pub async fn upcoming(&self, id: &ScheduleId, most: usize) -> Result<Vec<Timestamp>, ScheduleError> {
        let record = self.get(id).await?;
        let Some(next) = record.next else { return Ok(Vec::new()) };
        let left = record.remaining.map_or(most, |left| most.min(usize::try_from(left).unwrap_or(most)));
        let occurrences = record.definition.compile()?;
        Ok(occurrences.after(next.nominal.plus_millis(-1)).take(left).collect())
    }

    /// What ended of a schedule, the latest nominal time first, `limit` at most; with `before`, earlier nominal times only. That of a
    /// schedule that was removed is there, too.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn history(
        &self,
        id: &ScheduleId,
        before: Option<Timestamp>,
        limit: usize,
    ) -> Result<Vec<Ended>, StoreError> {
        self.store.history(id, before, limit).await
    }

    /// Replaces the definition. What is open goes on; new occurrences are after now. With `revision`, only if the schedule is still
    /// at that.
    ///
    /// # Errors
    /// [`ScheduleError::Edited`] when somebody else has edited it since.
    pub async fn edit(
        &self,
        id: &ScheduleId,
        definition: Definition,
        revision: Option<u64>,
    ) -> Result<Record, ScheduleError> {
        let new = definition.compile()?;
        self.change(id, |change, _| {
            let current = change.record.revision;
            if let Some(expected) = revision.filter(|expected| *expected != current) {
                return Err(ScheduleError::Edited { id: id.clone(), expected, current });
            }
            change.edit(definition.clone(), &new);
            Ok(())
        })
        .await
        .map(|(record, ())| record)
    }

    /// Pauses a schedule: its occurrences are recorded as skipped until it is resumed. What is open goes on, and it can be triggered.
    ///
    /// # Errors
    /// [`ScheduleError::NotFound`].
    pub async fn pause(&self, id: &ScheduleId, note: &str) -> Result<Record, ScheduleError> {
        self.change(id, |change, _| {
            change.pause(note.to_owned());
            Ok(())
        })
        .await
        .map(|(record, ())| record)
    }

    /// Ends a pause.
    ///
    /// # Errors
    /// [`ScheduleError::NotFound`].
    pub async fn resume(&self, id: &ScheduleId) -> Result<Record, ScheduleError> {
        self.change(id, |change, _| {
            change.resume();
            Ok(())
        })
        .await
        .map(|(record, ())| record)
    }

    /// Fires a schedule now, by its overlap policy or another; what became of it at once, if it was not let wait.
    ///
    /// # Errors
    /// [`ScheduleError::NotFound`].
    pub async fn trigger(
        &self,
        id: &ScheduleId,
        overlap: Option<Overlap>,
    ) -> Result<(FiringId, Option<Outcome>), ScheduleError> {
        let apply = |change: &mut Change<'_>, _: &Occurrences| {
            let overlap = overlap.unwrap_or(change.record.definition.policy.overlap);
            Ok(change.trigger(overlap))
        };
        self.change(id, apply).await.map(|(_, triggered)| triggered)
    }

    /// Fires the occurrences from `from` on and before `to`, as far as they are past, whether they were fired or not;
    /// one after the other unless `overlap` says otherwise. How many were let wait.
    ///
    /// # Errors
    /// [`ScheduleError::Bad`] when they are more than may be open at once.
    pub async fn backfill(
        &self,
        id: &ScheduleId,
        from: Timestamp,
        to: Timestamp,
        overlap: Option<Overlap>,
    ) -> Result<usize, ScheduleError> {
        let apply = |change: &mut Change<'_>, occurrences: &Occurrences| {
            Ok(change.backfill(occurrences, from, to, overlap.unwrap_or(Overlap::BufferAll))?)
        };
        self.change(id, apply).await.map(|(_, admitted)| admitted)
    }

    /// Removes a schedule. What is open is cancelled; what ended stays.
    ///
    /// # Errors
    /// [`ScheduleError::NotFound`].
    pub async fn remove(&self, id: &ScheduleId) -> Result<(), ScheduleError> {
        for _ in 0..TRIES {
            let mut record = self.decided(id).await?;
            let expected = record.version;
            let mut change = Change::new(&mut record, self.clock.now());
            change.remove();
            let ended = std::mem::take(&mut change.ended);
            if self.store.remove(id, expected, &ended).await? {
                return Ok(());
            }
        }
        Err(ScheduleError::Busy(id.clone()))
    }

    /// The record, with what has become due decided.
    async fn decided(&self, id: &ScheduleId) -> Result<Record, ScheduleError> {
        let mut tries = 0;
        while tries < TRIES {
            let mut record = self.get(id).await?;
            let Ok(occurrences) = record.definition.compile() else { return Ok(record) };
            let expected = record.version;
            let mut change = Change::new(&mut record, self.clock.now());
            if change.record.next.is_none_or(|next| next.due > self.clock.now()) {
                return Ok(record);
            }
            change.advance(&occurrences, DECIDED_AT_ONCE);
            let ended = std::mem::take(&mut change.ended);
            record.version = fastrand::i64(..);
            tries += usize::from(!self.store.swap(&record, expected, &ended).await?);
        }
        Err(ScheduleError::Busy(id.clone()))
    }

    async fn change<T>(
        &self,
        id: &ScheduleId,
        apply: impl Fn(&mut Change<'_>, &Occurrences) -> Result<T, ScheduleError>,
    ) -> Result<(Record, T), ScheduleError> {
        for _ in 0..TRIES {
            let mut record = self.decided(id).await?;
            // An edit must be possible also when the definition is not understood.
            let occurrences = match record.definition.compile() {
                Ok(occurrences) => occurrences,
                Err(_) => Definition::at(Timestamp(0)).compile()?,
            };
            let expected = record.version;
            let mut change = Change::new(&mut record, self.clock.now());
            let answer = apply(&mut change, &occurrences)?;
            let ended = std::mem::take(&mut change.ended);
            debug_assert_eq!(invariants::check(&record), Ok(()));
            record.version = fastrand::i64(..);
            if self.store.swap(&record, expected, &ended).await? {
                return Ok((record, answer));
            }
        }
        Err(ScheduleError::Busy(id.clone()))
    }
}
