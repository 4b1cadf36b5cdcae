//! Intervals of meters on their way to the queues, as readings whose counters go on from what was imported before.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use anyhow::{Context, anyhow, bail};
use galerna_import::{Added, Check, Correction, History, MeterReading, MeterValue, StoredValue};
use galerna_model::{AccountId, BadReading, Clock, Measurement, Reading, SourceId, SystemClock, Timestamp};
use galerna_model::{RejectCode, Validator};
use galerna_storage::{ImportChunk, ReadingsQuery, Store};
use serde::{Deserialize, Serialize};

use crate::publish::{Outgoing, SHOWN, Summary, Target};

/// How often what others wrote in between is read anew.
const ATTEMPTS: usize = 5;
/// Readings of a meter that are looked at for its last counters.
const LOOKED_AT: usize = 50;
/// The most readings of a meter that are looked at where intervals are added.
const MOST_STORED: usize = 2_000_000;

/// Values of one meter.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct MeterValues {
    /// Whose.
    pub account: AccountId,
    /// The source that they are published as; the account's name when it is not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<SourceId>,
    /// The meter.
    pub meter: String,
    /// Its values, in the order of their times.
    pub values: Vec<MeterValue>,
}

/// What importing did, beside what was published.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Imported {
    /// Values that were imported before.
    pub known: u64,
    /// Values at whose time others stored the counter already.
    pub stored: u64,
    /// Readings published before whose counters moved.
    pub revised: u64,
    /// Values that differ from those imported before; the new ones are taken.
    pub corrected: u64,
    /// The first of them.
    pub corrections: Vec<MeterCorrection>,
    /// Values without a mean power, because nothing tells how long their intervals are.
    pub without_length: u64,
    /// Rows that say again what another row says.
    pub duplicates: u64,
    /// Rows of kinds that the mapping leaves out.
    pub skipped: u64,
    /// The first readings, as they would be stored: of a dry run.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub first: Vec<Shown>,
    /// Readings that would be published: of a dry run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub would_publish: Option<u64>,
}

/// A correction and its meter.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct MeterCorrection {
    /// The account.
    pub account: AccountId,
    /// The meter.
    pub meter: String,
    /// What was corrected.
    #[serde(flatten)]
    pub correction: Correction,
}

/// A reading of a dry run.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Shown {
    /// The account.
    pub account: AccountId,
    /// The source.
    pub source: SourceId,
    /// The reading.
    pub reading: Reading,
}

impl Imported {
    /// Adds what another call did.
    pub fn add(&mut self, part: Self) {
        self.known += part.known;
        self.stored += part.stored;
        self.revised += part.revised;
        self.corrected += part.corrected;
        let room = SHOWN.saturating_sub(self.corrections.len());
        self.corrections.extend(part.corrections.into_iter().take(room));
        self.without_length += part.without_length;
        self.duplicates += part.duplicates;
        self.skipped += part.skipped;
        let room = SHOWN.saturating_sub(self.first.len());
        self.first.extend(part.first.into_iter().take(room));
        self.would_publish = match (self.would_publish, part.would_publish) {
            (None, None) => None,
            (a, b) => Some(a.unwrap_or(0) + b.unwrap_or(0)),
        };
    }

    fn count(&mut self, account: &AccountId, meter: &str, added: &Added) {
        self.known += added.known;
        self.stored += added.stored;
        self.revised += added.revised;
        self.corrected += added.corrections.len() as u64;
        let room = SHOWN.saturating_sub(self.corrections.len());
        self.corrections.extend(added.corrections.iter().take(room).map(|correction| MeterCorrection {
            account: account.clone(),
            meter: meter.to_owned(),
            correction: correction.clone(),
        }));
        self.without_length += added.without_length;
    }
}

/// Validates readings as the worker will.
pub struct WorkerCheck {
    validator: Validator,
    now: Timestamp,
}

impl WorkerCheck {
    /// By this validator, at the time of the machine.
    pub fn new(validator: Validator) -> Self {
        Self { validator, now: SystemClock.now() }
    }
}

impl Check for WorkerCheck {
    fn time(&self, ts: Timestamp) -> Result<(), BadReading> {
        let reading = Reading { did: "meter".to_owned(), values: Vec::new(), sqn: 1, ts };
        match self.validator.validate(&reading, self.now) {
            Err(rejection) if matches!(rejection.code, RejectCode::TimeInFuture | RejectCode::TimeTooOld) => {
                Err(rejection)
            }
            _ => Ok(()),
        }
    }

    fn values(&self, values: &[Measurement]) -> Result<(), BadReading> {
        let reading = Reading { did: "meter".to_owned(), values: values.to_vec(), sqn: 1, ts: self.now };
        // A value of a file that would be put aside is refused here: its line can still be mended.
        match self.validator.validate(&reading, self.now) {
            Ok(aside) => aside.into_iter().next().map_or(Ok(()), |bad| Err(bad.error)),
            Err(error) => Err(error),
        }
    }
}

/// What becomes of the values of one call.
struct Plan {
    readings: BTreeMap<AccountId, Vec<(String, MeterReading)>>,
    chunks: Vec<ImportChunk>,
    imported: Imported,
    refused: Vec<(u64, String)>,
}

/// Reads values of meters, a meter a line.
///
/// # Errors
/// Says which line is none.
pub fn read_lines(text: &[u8]) -> anyhow::Result<Vec<MeterValues>> {
    let lines = text.split(|b| *b == b'\n').enumerate().filter(|(_, line)| !line.trim_ascii().is_empty());
    lines.map(|(at, line)| serde_json::from_slice(line).with_context(|| format!("line {}", at + 1))).collect()
}

/// Publishes the readings that follow from these values and from what was imported before.
///
/// What was imported is kept only when the broker has confirmed the readings: after a failure all of it is published again
/// by the next call, with higher sequence numbers.
///
/// # Errors
/// When the store or the broker does not answer.
pub async fn publish_values(
    meters: &[MeterValues],
    store: &Store,
    check: &WorkerCheck,
    queues: &mut Outgoing<'_>,
) -> anyhow::Result<()> {
    let mut accepted = Vec::with_capacity(meters.len());
    for meter in meters {
        match queues.accepts(&meter.account).await? {
            Ok(()) => accepted.push(meter),
            Err(problem) => {
                let problem = format!("{} values of meter `{}`: {problem}", meter.values.len(), meter.meter);
                queues.summary().refuse(meter.values.len(), problem);
            }
        }
    }
    for _ in 0..ATTEMPTS {
        let plan = plan(&accepted, store, check).await?;
        for (account, readings) in plan.readings {
            send(&account, readings, store, queues).await?;
        }
        queues.flush().await?;
        if store.imports.keep(&plan.chunks).await.context("cannot keep what was imported")? {
            tell(queues.summary(), plan.imported, plan.refused);
            return Ok(());
        }
        // Another publisher was quicker with the same meter: what it added counts too.
    }
    bail!("other publishers keep changing the same meters; publish the file again when they are done")
}

/// What publishing would do: nothing is published or kept.
///
/// # Errors
/// When the store does not answer.
pub async fn rehearse_values(
    meters: &[MeterValues],
    store: &Store,
    check: &WorkerCheck,
) -> anyhow::Result<Summary> {
    let all: Vec<&MeterValues> = meters.iter().collect();
    let mut plan = plan(&all, store, check).await?;
    for (account, readings) in plan.readings {
        plan.imported.would_publish = Some(plan.imported.would_publish.unwrap_or(0) + readings.len() as u64);
        for (sqn, (meter, reading)) in numbered(readings, 1).take(SHOWN) {
            let source = reading.source.clone();
            plan.imported.first.push(Shown {
                account: account.clone(),
                source,
                reading: made(meter, reading, sqn),
            });
        }
    }
    plan.imported.would_publish.get_or_insert(0);
    plan.imported.first.truncate(SHOWN);
    let mut summary = Summary::default();
    tell(&mut summary, plan.imported, plan.refused);
    Ok(summary)
}

fn tell(summary: &mut Summary, imported: Imported, mut refused: Vec<(u64, String)>) {
    refused.sort();
    for (_, problem) in refused {
        summary.refuse(1, problem);
    }
    summary.imported.add(imported);
}

async fn plan(meters: &[&MeterValues], store: &Store, check: &WorkerCheck) -> anyhow::Result<Plan> {
    let mut plan = Plan {
        readings: BTreeMap::new(),
        chunks: Vec::new(),
        imported: Imported::default(),
        refused: Vec::new(),
    };
    for MeterValues { account, source, meter, values } in meters {
        let source = match source {
            Some(source) => source.clone(),
            // Account ids and source ids have the same rule.
            None => SourceId::new(account.as_str())?,
        };
        let kept = store.imports.chunks(account, meter).await.context("cannot read what was imported")?;
        let mut history = History::from_chunks(kept.iter().map(|chunk| chunk.data.as_slice()))
            .with_context(|| format!("what was imported of meter `{meter}` of `{account}` cannot be read"))?;
        history.know_stored(stored(store, account, meter, &history, values).await?);
        let added = history.add(&source, values, check);
        plan.imported.count(account, meter, &added);
        plan.refused.extend(added.errors.iter().map(|error| (error.line, error.to_string())));
        plan.chunks.extend(changed(account, meter, &kept, &history));
        if !added.readings.is_empty() {
            let readings = plan.readings.entry(account.clone()).or_default();
            readings.extend(added.readings.into_iter().map(|reading| (meter.clone(), reading)));
        }
    }
    Ok(plan)
}

/// Chunks that differ from those kept.
fn changed<'c>(
    account: &'c AccountId,
    meter: &'c str,
    kept: &'c [ImportChunk],
    history: &History,
) -> impl Iterator<Item = ImportChunk> + use<'c> {
    let kept: HashMap<i64, &ImportChunk> = kept.iter().map(|chunk| (chunk.number, chunk)).collect();
    history.chunks().into_iter().filter_map(move |(number, data)| {
        let before = kept.get(&number);
        let revision = before.map_or(0, |chunk| chunk.revision);
        let same = before.is_some_and(|chunk| chunk.data == data);
        (!same).then(|| ImportChunk {
            account: account.clone(),
            meter: meter.to_owned(),
            number,
            revision,
            data,
        })
    })
}

/// The meter's counters in the store: those where values are new, and the last ones before.
async fn stored(
    store: &Store,
    account: &AccountId,
    meter: &str,
    history: &History,
    values: &[MeterValue],
) -> anyhow::Result<Vec<StoredValue>> {
    let counters = History::counters(values);
    let Some((first, last)) = history.new_times(values).filter(|_| !counters.is_empty()) else {
        return Ok(Vec::new());
    };
    let of_meter = ReadingsQuery {
        account: Some(account.clone()),
        device: Some(meter.to_owned()),
        ..ReadingsQuery::default()
    };
    let among = ReadingsQuery {
        from: Some(first),
        until: Some(last.plus_millis(1)),
        limit: MOST_STORED,
        ..of_meter.clone()
    };
    let before = ReadingsQuery { until: Some(first), limit: LOOKED_AT, ..of_meter };
    let find =
        async |query| store.readings.find(&query).await.context("cannot read the meter's last counters");
    let mut found: Vec<StoredValue> = Vec::new();
    let counters_of = |reading: &galerna_storage::StoredReading| -> Vec<StoredValue> {
        let of_counter = reading.values.iter().filter(|m| counters.contains(&m.p));
        of_counter.map(|m| StoredValue { ts: reading.ts, parameter: m.p, value: m.v }).collect()
    };
    for reading in find(among).await? {
        found.extend(counters_of(&reading));
    }
    let mut seen = BTreeSet::new();
    for reading in find(before).await? {
        found.extend(counters_of(&reading).into_iter().filter(|value| seen.insert(value.parameter)));
    }
    Ok(found)
}

/// Readings in the order of their times, each with its sequence number: those of one time have the same, counted from
/// `first`.
fn numbered(
    mut readings: Vec<(String, MeterReading)>,
    first: u64,
) -> impl Iterator<Item = (u64, (String, MeterReading))> {
    readings.sort_by(|(a_meter, a), (b_meter, b)| (a.ts, a_meter).cmp(&(b.ts, b_meter)));
    let mut sqn = first;
    let mut before = readings.first().map(|(_, reading)| reading.ts);
    readings.into_iter().map(move |(meter, reading)| {
        if before != Some(reading.ts) {
            before = Some(reading.ts);
            sqn += 1;
        }
        (sqn, (meter, reading))
    })
}

fn made(meter: String, reading: MeterReading, sqn: u64) -> Reading {
    Reading { did: meter, values: reading.values, sqn, ts: reading.ts }
}

async fn send(
    account: &AccountId,
    readings: Vec<(String, MeterReading)>,
    store: &Store,
    queues: &mut Outgoing<'_>,
) -> anyhow::Result<()> {
    let times: BTreeSet<Timestamp> = readings.iter().map(|(_, reading)| reading.ts).collect();
    let first = store
        .imports
        .reserve_sequence(account, times.len() as u64)
        .await
        .context("cannot reserve sequence numbers")?;
    let mut by_source: Vec<(SourceId, Vec<Reading>)> = Vec::new();
    for (sqn, (meter, reading)) in numbered(readings, first) {
        let source = reading.source.clone();
        let at = by_source.iter().position(|(known, _)| *known == source).unwrap_or_else(|| {
            by_source.push((source, Vec::new()));
            by_source.len() - 1
        });
        by_source[at].1.push(made(meter, reading, sqn));
    }
    for (source, readings) in by_source {
        queues.send(Some(account.clone()), Some(source), readings).await.map_err(|e| anyhow!("{e:#}"))?;
    }
    Ok(())
}
