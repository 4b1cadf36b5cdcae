//! A schedule as people and programs are shown it.

use std::collections::BTreeMap;

use galerna_model::Timestamp;
use jiff::tz::TimeZone;
use serde::Serialize;

use crate::calendar::{tzdata_version, zone};
use crate::{
    Definition, Ended, OpenFiring, Paused, Record, ScheduleError, ScheduleId, Schedules, StoreError, Timing,
};

/// So many occurrences to come, and so many ends, are shown.
pub const SHOWN: usize = 10;

/// A time, and what the clocks of the schedule's zone show then.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Occurrence {
    /// In UTC: the nominal time.
    pub at: Timestamp,
    /// In the zone of the schedule: `2026-03-29T03:00:00+02:00[Europe/Berlin]`.
    pub local: String,
}

/// A schedule with what it will do next and has done last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ScheduleView {
    /// The name.
    pub id: ScheduleId,
    /// When it occurs, in words.
    pub occurs: String,
    /// What it is told to be.
    pub definition: Definition,
    /// How often the definition was edited; who edits it next names this.
    pub revision: u64,
    /// When it was added.
    pub created: Timestamp,
    /// Set while it is paused.
    pub paused: Option<Paused>,
    /// How many more occurrences are fired, if that is limited.
    pub remaining: Option<u64>,
    /// How many ended, by outcome and reason: `skipped.overlap`.
    pub counts: BTreeMap<String, u64>,
    /// Firings that have not ended.
    pub open: Vec<OpenFiring>,
    /// The next occurrences.
    pub upcoming: Vec<Occurrence>,
    /// What ended last, the latest nominal time first.
    pub last: Vec<Ended>,
    /// Why this version of the program does not run it.
    pub problem: Option<String>,
    /// The version of the time zone rules.
    pub tzdata: &'static str,
}

impl ScheduleView {
    fn new(record: Record, most: usize) -> Self {
        let (upcoming, problem) = match record.definition.compile() {
            Err(bad) => (Vec::new(), Some(bad.to_string())),
            Ok(occurrences) => {
                let left =
                    record.remaining.map_or(most, |left| most.min(usize::try_from(left).unwrap_or(most)));
                let from = record.next.map(|next| next.nominal.plus_millis(-1));
                let zone = record.definition.timing.zone();
                let next = from.into_iter().flat_map(|from| occurrences.after(from).take(left));
                (next.map(|at| occurrence(at, &zone)).collect(), None)
            }
        };
        let Record { id, definition, revision, created, paused, remaining, counts, open, .. } = record;
        let (occurs, last) = (definition.timing.to_string(), Vec::new());
        let tzdata = tzdata_version();
        Self {
            id,
            occurs,
            definition,
            revision,
            created,
            paused,
            remaining,
            counts,
            open,
            upcoming,
            last,
            problem,
            tzdata,
        }
    }

    /// How many ended with such an outcome, whatever the reason.
    pub fn count(&self, outcome: &str) -> u64 {
        let of = |name: &String| name.split('.').next() == Some(outcome);
        self.counts.iter().filter(|(name, _)| of(name)).map(|(_, count)| count).sum()
    }
}

impl Timing {
    /// The zone by whose clocks it occurs; UTC where it names none.
    fn zone(&self) -> TimeZone {
        match self {
            Self::Cron(cron) => zone(&cron.timezone).unwrap_or(TimeZone::UTC),
            Self::Every(_) | Self::At(_) => TimeZone::UTC,
        }
    }
}

fn occurrence(at: Timestamp, zone: &TimeZone) -> Occurrence {
    let local = jiff::Timestamp::from_millisecond(at.as_millis())
        .map_or_else(|_| at.to_string(), |time| time.to_zoned(zone.clone()).to_string());
    Occurrence { at, local }
}

impl Definition {
    /// When it would occur next after a time, `most` times.
    ///
    /// # Errors
    /// [`BadSchedule`](crate::BadSchedule) names the first field that is wrong.
    pub fn preview(&self, after: Timestamp, most: usize) -> Result<Vec<Occurrence>, crate::BadSchedule> {
        let occurrences = self.compile()?;
        let zone = self.timing.zone();
        let most = self.remaining.map_or(most, |left| most.min(usize::try_from(left).unwrap_or(most)));
        Ok(occurrences.after(after).take(most).map(|at| occurrence(at, &zone)).collect())
    }
}

impl Schedules {
    /// A schedule as it is shown, with its next ten occurrences and its last ten ends.
    ///
    /// # Errors
    /// [`ScheduleError::NotFound`].
    pub async fn view(&self, id: &ScheduleId) -> Result<ScheduleView, ScheduleError> {
        let record = self.get(id).await?;
        Ok(ScheduleView { last: self.history(id, None, SHOWN).await?, ..ScheduleView::new(record, SHOWN) })
    }

    /// Schedules in the order of their names, after one, `limit` at most, each with its next occurrence.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn views(
        &self,
        after: Option<&ScheduleId>,
        limit: usize,
    ) -> Result<Vec<ScheduleView>, StoreError> {
        let records = self.list(after, limit).await?;
        Ok(records.into_iter().map(|record| ScheduleView::new(record, 1)).collect())
    }
}
