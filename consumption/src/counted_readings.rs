//! Storing readings together with what their counters have counted.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use async_trait::async_trait;
use futures_util::{StreamExt, TryStreamExt, stream};
use galerna_model::{AccountId, ParameterCode, ParameterKind, ParameterRegistry, SourceId};
use galerna_storage::{
    ConsumptionDay, ConsumptionDays, ConsumptionKey, CounterValue, DayCounts, ReadingKey, Readings,
    ReadingsQuery, Result, SharedReadings, StorageError, StoreOutcome, StoredReading,
};

use crate::calendar::{Calendar, Span};
use crate::day;

/// Rounds until other writers of the same days are blamed. In each round at least one of those who write over each other is through.
const ROUNDS: usize = 200;
/// Days whose readings are read at the same time.
const READS: usize = 8;
/// Readings that are read at once when all is counted anew.
const PAGE: usize = 5_000;

/// A store of readings that also keeps what their counters have counted, by day. When storing returns, both are durable; when it fails,
/// storing the same again is right.
///
/// A reading later than all others of its day costs no look at readings; for others, and for the first of a day, those of the day are read.
#[derive(Clone)]
pub struct CountedReadings {
    readings: Arc<dyn Readings>,
    days: Arc<dyn ConsumptionDays>,
    parameters: Arc<ParameterRegistry>,
    calendar: Calendar,
}

impl std::fmt::Debug for CountedReadings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CountedReadings").field("calendar", &self.calendar).finish_non_exhaustive()
    }
}

/// A day that readings have come for, with their values.
struct Open {
    key: ConsumptionKey,
    span: Span,
    values: Vec<CounterValue>,
}

impl CountedReadings {
    /// Readings in this store, whose counters are those of `parameters`, by the days of `calendar`.
    pub fn new(
        readings: Arc<dyn Readings>,
        days: Arc<dyn ConsumptionDays>,
        parameters: Arc<ParameterRegistry>,
        calendar: Calendar,
    ) -> Self {
        Self { readings, days, parameters, calendar }
    }

    fn is_counter(&self, parameter: ParameterCode) -> bool {
        self.parameters.get(parameter).is_some_and(|known| known.kind == ParameterKind::Counter)
    }

    /// The days of some readings, each with its values by time.
    fn open<'a>(&self, readings: impl Iterator<Item = &'a StoredReading>) -> Vec<Open> {
        let mut open: HashMap<ConsumptionKey, Open> = HashMap::new();
        // Readings come mostly of one day.
        let mut last: Option<Span> = None;
        for reading in readings {
            let counters = || reading.values.iter().filter(|value| self.is_counter(value.p));
            if counters().next().is_none() {
                continue;
            }
            let known = last.filter(|span| span.contains(reading.ts));
            let Some(span) = known.or_else(|| self.calendar.day(reading.ts)) else { continue };
            last = Some(span);
            for value in counters() {
                let key = ConsumptionKey {
                    source: reading.source.clone(),
                    device: reading.device.clone(),
                    parameter: value.p,
                    zone: self.calendar.zone().to_owned(),
                    day: span.from,
                };
                let day = open.entry(key.clone()).or_insert_with(|| Open { key, span, values: Vec::new() });
                day.values.push(CounterValue { at: reading.ts, value: value.v });
            }
        }
        let mut open: Vec<Open> = open.into_values().collect();
        open.iter_mut().for_each(|day| day.values.sort_by_key(|value| value.at));
        open
    }

    /// What the stored readings of a day say.
    async fn count(&self, key: &ConsumptionKey, span: Span) -> Result<Option<DayCounts>> {
        let query = ReadingsQuery {
            source: Some(key.source.clone()),
            device: Some(key.device.clone()),
            from: Some(span.from),
            until: Some(span.until),
            limit: usize::MAX >> 1,
            ..ReadingsQuery::default()
        };
        let found = self.readings.find(&query).await?;
        let value = |reading: &StoredReading| {
            let measured = reading.values.iter().find(|value| value.p == key.parameter)?;
            Some(CounterValue { at: reading.ts, value: measured.v })
        };
        Ok(day::count(span, found.iter().rev().filter_map(value)))
    }

    /// The day as it is to be kept, if that is another than the one that is kept.
    async fn changed(
        &self,
        open: &Open,
        kept: Option<ConsumptionDay>,
        anew: bool,
    ) -> Result<Option<ConsumptionDay>> {
        let in_order = |kept: &ConsumptionDay| {
            let times = std::iter::once(kept.counts.last.at).chain(open.values.iter().map(|value| value.at));
            times.is_sorted_by(|one, next| one < next)
        };
        match kept {
            Some(mut kept) if !anew && in_order(&kept) => {
                open.values.iter().for_each(|value| day::advance(&mut kept.counts, open.span, *value));
                Ok(Some(kept))
            }
            kept => {
                let Some(mut counts) = self.count(&open.key, open.span).await? else { return Ok(None) };
                let revision = match kept {
                    None => 0,
                    Some(kept) => {
                        counts.corrections = kept.counts.corrections;
                        if counts == kept.counts {
                            return Ok(None);
                        }
                        if open.values.first().is_some_and(|value| value.at <= kept.counts.last.at) {
                            counts.corrections = counts.corrections.saturating_add(1);
                        }
                        kept.revision
                    }
                };
                Ok(Some(ConsumptionDay { key: open.key.clone(), revision, counts }))
            }
        }
    }

    /// Brings days up to date with the readings that are stored, which have these values among others. Returns how many changed.
    async fn bring_up(&self, mut open: Vec<Open>, anew: bool) -> Result<u64> {
        let mut changed = 0;
        for _ in 0..ROUNDS {
            if open.is_empty() {
                return Ok(changed);
            }
            let keys: Vec<ConsumptionKey> = open.iter().map(|day| day.key.clone()).collect();
            // Before the readings: so whoever keeps a day first has seen no readings that the second has not.
            let kept = self.days.get(&keys).await?;
            let wanted = open.into_iter().zip(kept).map(|(open, kept)| async move {
                let day = self.changed(&open, kept, anew).await?;
                Ok::<_, StorageError>(day.map(|day| (open, day)))
            });
            let wanted: Vec<(Open, ConsumptionDay)> = stream::iter(wanted)
                .buffer_unordered(READS)
                .try_filter_map(|day| async { Ok(day) })
                .try_collect()
                .await?;
            let (still_open, days): (Vec<Open>, Vec<ConsumptionDay>) = wanted.into_iter().unzip();
            let kept = self.days.keep(&days).await?;
            changed += kept.iter().filter(|kept| **kept).count() as u64;
            open = still_open.into_iter().zip(kept).filter(|(_, kept)| !kept).map(|(open, _)| open).collect();
        }
        if open.is_empty() {
            return Ok(changed);
        }
        Err(StorageError::Unavailable {
            attempted: "keeping consumption".to_owned(),
            cause: format!("other processes keep the same {} days at the same time", open.len()),
        })
    }

    /// Counts all stored readings of a source anew, by the days of this calendar: what was stored before consumption was kept, or with
    /// another time zone, or is doubted. Returns how many days changed. It may run while readings are stored.
    ///
    /// # Errors
    /// Those of the store; done so far is done.
    pub async fn recount(&self, source: &SourceId) -> Result<u64> {
        let mut changed = 0;
        for latest in self.readings.latest(source).await? {
            let mut until = Some(latest.ts.plus_millis(1));
            let mut days: BTreeMap<ConsumptionKey, Open> = BTreeMap::new();
            while let Some(before) = until {
                let query = ReadingsQuery {
                    source: Some(source.clone()),
                    device: Some(latest.device.clone()),
                    until: Some(before),
                    limit: PAGE,
                    ..ReadingsQuery::default()
                };
                let found = self.readings.find(&query).await?;
                until = found.last().map(|oldest| oldest.ts);
                days.extend(self.open(found.iter()).into_iter().map(|day| (day.key.clone(), day)));
                if days.len() >= PAGE {
                    changed += self.bring_up(std::mem::take(&mut days).into_values().collect(), true).await?;
                }
            }
            changed += self.bring_up(days.into_values().collect(), true).await?;
        }
        tracing::debug!(%source, changed, "consumption was counted anew");
        Ok(changed)
    }
}

#[async_trait]
impl Readings for CountedReadings {
    async fn store_shared(&self, messages: &[SharedReadings]) -> Result<StoreOutcome> {
        let outcome = self.readings.store_shared(messages).await?;
        // Of duplicates too: an earlier attempt may have stored them and failed here.
        let open = self.open(messages.iter().flat_map(|readings| readings.iter()));
        self.bring_up(open, false).await?;
        Ok(outcome)
    }

    async fn find(&self, query: &ReadingsQuery) -> Result<Vec<StoredReading>> {
        self.readings.find(query).await
    }

    async fn count(&self, account: Option<&AccountId>) -> Result<u64> {
        self.readings.count(account).await
    }

    async fn keys(
        &self,
        account: &AccountId,
        after: Option<&ReadingKey>,
        limit: usize,
    ) -> Result<Vec<ReadingKey>> {
        self.readings.keys(account, after, limit).await
    }

    async fn latest(&self, source: &SourceId) -> Result<Vec<StoredReading>> {
        self.readings.latest(source).await
    }
}
