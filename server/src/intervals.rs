//! Intervals of meters on their way to the queues, as readings whose counters go on from what was imported before.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use futures_util::future::try_join_all;
use galerna_import::{Added, Correction, History, MeterReading, MeterValue, StoredValue, Utility};
use galerna_model::{AccountId, Reading, SourceId, Timestamp};
use galerna_storage::{ReadingsQuery, Store};
use serde::{Deserialize, Serialize};

use crate::publish::{Outgoing, SHOWN, Summary, Target};

mod check;
mod claims;
#[cfg(test)]
mod tests;

pub use self::check::WorkerCheck;
use self::claims::{Known, settle};

/// How often what others wrote in between is read anew.
const ATTEMPTS: usize = 500;
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

/// Reads values of meters, a meter a line.
///
/// # Errors
/// Says which line is none.
pub fn read_lines(text: &[u8]) -> anyhow::Result<Vec<MeterValues>> {
    let lines = text.split(|b| *b == b'\n').enumerate().filter(|(_, line)| !line.trim_ascii().is_empty());
    lines.map(|(at, line)| serde_json::from_slice(line).with_context(|| format!("line {}", at + 1))).collect()
}

/// Values of one meter on their way.
struct Work {
    account: AccountId,
    source: SourceId,
    meter: String,
    values: Vec<MeterValue>,
    /// Whether the meter stands for one of two utilities already.
    apart: bool,
}

impl Work {
    fn of(values: &MeterValues) -> anyhow::Result<Self> {
        let MeterValues { account, source, meter, values } = values;
        let source = match source {
            Some(source) => source.clone(),
            // Account ids and source ids have the same rule.
            None => SourceId::new(account.as_str())?,
        };
        Ok(Self {
            account: account.clone(),
            source,
            meter: meter.clone(),
            values: values.clone(),
            apart: false,
        })
    }

    /// Leaves the values of the utility whose readings have the meter's own name, and of all that share their parameters with
    /// none; those of the other one are of a meter of their own. `owner` is the utility that has the name.
    fn split(&mut self, owner: Option<Utility>) -> (Option<Utility>, Option<Self>) {
        if self.apart {
            return (None, None);
        }
        let owner = owner.or_else(|| self.values.iter().filter_map(|value| value.utility).min());
        let (other, own): (Vec<_>, Vec<_>) =
            self.values.drain(..).partition(|value| value.utility.is_some() && value.utility != owner);
        self.values = own;
        let utility = other.first().and_then(|value| value.utility);
        let other = utility.map(|utility| Self {
            account: self.account.clone(),
            source: self.source.clone(),
            meter: format!("{}:{}", self.meter, utility.name()),
            values: other,
            apart: true,
        });
        (owner, other)
    }
}

/// What becomes of the values of one meter.
struct Plan {
    account: AccountId,
    meter: String,
    known: Known,
    after: History,
    added: Added,
    readings: Vec<MeterReading>,
    utility: Option<Utility>,
}

/// What follows from the values of a meter and what is known of it; and the values that are of another meter.
async fn plan(work: &mut Work, store: &Store, check: &WorkerCheck) -> anyhow::Result<(Plan, Option<Work>)> {
    let known = Known::read(store, &work.account, &work.meter).await?;
    let (utility, other) = work.split(known.utility());
    let mut after = known.history.clone();
    after.know_stored(stored(store, &work.account, &work.meter, &after, &work.values).await?);
    let added = after.add(&work.source, &work.values, check);
    let mut readings = added.readings.clone();
    let sent: BTreeSet<Timestamp> = readings.iter().map(|reading| reading.ts).collect();
    let unsent = known.unsent();
    // What is made of a time is made of all its sources.
    readings.extend(after.readings_at(&unsent.difference(&sent).copied().collect()));
    let (account, meter) = (work.account.clone(), work.meter.clone());
    Ok((Plan { account, meter, known, after, added, readings, utility }, other))
}

/// Publishes the readings that follow from these values and from what was imported before.
///
/// What was imported is claimed before anything is sent, in an order that the sequence numbers of the readings have too
/// (module `claims`): however a file is cut into calls, one after the other, side by side, or ended midway and made again,
/// the store has in the end what one call makes of all of it.
///
/// # Errors
/// When the store or the broker does not answer.
pub async fn publish_values(
    meters: &[MeterValues],
    store: &Store,
    check: &WorkerCheck,
    queues: &mut Outgoing<'_>,
) -> anyhow::Result<()> {
    let mut waiting: VecDeque<Work> = VecDeque::with_capacity(meters.len());
    for meter in meters {
        match queues.accepts(&meter.account).await? {
            Ok(()) => waiting.push_back(Work::of(meter)?),
            Err(problem) => {
                let problem = format!("{} values of meter `{}`: {problem}", meter.values.len(), meter.meter);
                queues.summary().refuse(meter.values.len(), problem);
            }
        }
    }
    let mut lost = 0;
    while !waiting.is_empty() {
        let round = different_meters(&mut waiting);
        let claimed = claim(round, store, check, queues, &mut waiting).await?;
        if claimed.is_empty() && !waiting.is_empty() {
            // Other publishers were quicker with the same meters: what they added counts too.
            lost += 1;
            if lost > ATTEMPTS {
                bail!(
                    "other publishers keep changing the same meters; publish the file again when they are done"
                );
            }
            tokio::time::sleep(Duration::from_millis(fastrand::u64(1..=20))).await;
            continue;
        }
        lost = 0;
        send(&claimed, queues).await?;
        queues.flush().await?;
        let settled = claimed.iter().map(|claim| settle(store, &claim.account, &claim.meter, claim.id));
        try_join_all(settled).await?;
    }
    Ok(())
}

/// Takes one work of each meter.
fn different_meters(waiting: &mut VecDeque<Work>) -> Vec<Work> {
    let mut seen = HashSet::new();
    let (round, rest) = std::mem::take(waiting)
        .into_iter()
        .partition::<Vec<_>, _>(|work| seen.insert((work.account.clone(), work.meter.clone())));
    waiting.extend(rest);
    round
}

/// Readings that were claimed, and may be sent.
struct Claimed {
    id: u64,
    account: AccountId,
    meter: String,
    readings: Vec<(u64, MeterReading)>,
}

/// Plans and claims; what others were quicker with, and what turns out to be of another meter, waits again.
async fn claim(
    mut round: Vec<Work>,
    store: &Store,
    check: &WorkerCheck,
    queues: &mut Outgoing<'_>,
    waiting: &mut VecDeque<Work>,
) -> anyhow::Result<Vec<Claimed>> {
    let mut plans: BTreeMap<AccountId, Vec<(usize, Plan, Option<Work>)>> = BTreeMap::new();
    for (at, work) in round.iter_mut().enumerate() {
        let given = work.values.clone();
        let (plan, other) = plan(work, store, check).await?;
        work.values = given;
        plans.entry(plan.account.clone()).or_default().push((at, plan, other));
    }
    let mut claims = Vec::new();
    for (account, plans) in plans {
        let times: BTreeSet<Timestamp> =
            plans.iter().flat_map(|(_, plan, _)| plan.readings.iter().map(|reading| reading.ts)).collect();
        // Each claim needs a number, also one of which no reading follows.
        let count = times.len() + plans.len();
        let reserved = store.imports.reserve_sequence(&account, count as u64);
        let first = reserved.await.context("cannot reserve sequence numbers")?;
        let numbers: HashMap<Timestamp, u64> = times.into_iter().zip(first..).collect();
        let ids = first + numbers.len() as u64..;
        for ((at, plan, other), id) in plans.into_iter().zip(ids) {
            let numbered = |reading: MeterReading| Some((*numbers.get(&reading.ts)?, reading));
            let readings = plan.readings.into_iter().filter_map(numbered).collect();
            let claimed = Claimed { id, account: plan.account, meter: plan.meter, readings };
            let nothing = claimed.readings.is_empty() && plan.after == plan.known.history;
            claims.push(async move {
                let unsent = plan.added.changed.clone();
                let kept = nothing || plan.known.claim(store, id, plan.utility, &plan.after, unsent).await?;
                anyhow::Ok((at, kept, plan.added, other, claimed))
            });
        }
    }
    let mut round: Vec<Option<Work>> = round.into_iter().map(Some).collect();
    let mut all = Vec::new();
    for (at, kept, added, other, claimed) in try_join_all(claims).await? {
        if kept {
            tell(queues.summary(), &claimed.account, &claimed.meter, &added);
            waiting.extend(other);
            all.push(claimed);
        } else {
            waiting.extend(round[at].take());
        }
    }
    Ok(all)
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
    let mut waiting: VecDeque<Work> = VecDeque::new();
    for meter in meters {
        let work = Work::of(meter)?;
        let same = |other: &&mut Work| {
            (&other.account, &other.source, &other.meter) == (&work.account, &work.source, &work.meter)
        };
        match waiting.iter_mut().find(same) {
            Some(other) => other.values.extend(work.values),
            None => waiting.push_back(work),
        }
    }
    let mut summary = Summary::default();
    let mut readings: BTreeMap<AccountId, Vec<(String, MeterReading)>> = BTreeMap::new();
    while let Some(mut work) = waiting.pop_front() {
        let (plan, other) = plan(&mut work, store, check).await?;
        tell(&mut summary, &plan.account, &plan.meter, &plan.added);
        waiting.extend(other);
        let made = plan.readings.into_iter().map(|reading| (plan.meter.clone(), reading));
        readings.entry(plan.account).or_default().extend(made);
    }
    let imported = &mut summary.imported;
    imported.would_publish = Some(readings.values().map(|made| made.len() as u64).sum());
    for (account, mut readings) in readings {
        readings.sort_by(|(a_meter, a), (b_meter, b)| (a.ts, a_meter).cmp(&(b.ts, b_meter)));
        let mut sqn = 0;
        let mut before = None;
        for (meter, reading) in readings.into_iter().take(SHOWN) {
            sqn += u64::from(before.replace(reading.ts) != Some(reading.ts));
            let source = reading.source.clone();
            let account = account.clone();
            imported.first.push(Shown { account, source, reading: made(meter, reading, sqn) });
        }
    }
    imported.first.truncate(SHOWN);
    Ok(summary)
}

fn tell(summary: &mut Summary, account: &AccountId, meter: &str, added: &Added) {
    for error in &added.errors {
        summary.refuse(1, error.to_string());
    }
    summary.imported.count(account, meter, added);
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

fn made(meter: String, reading: MeterReading, sqn: u64) -> Reading {
    Reading { did: meter, values: reading.values, sqn, ts: reading.ts }
}

/// A reading of a meter, with its sequence number.
type Numbered<'c> = (&'c str, u64, &'c MeterReading);

/// Sends the readings of each account and source in the order of their times.
async fn send(claimed: &[Claimed], queues: &mut Outgoing<'_>) -> anyhow::Result<()> {
    let mut readings: BTreeMap<(&AccountId, &SourceId), Vec<Numbered<'_>>> = BTreeMap::new();
    for claim in claimed {
        for (sqn, reading) in &claim.readings {
            let of_source = readings.entry((&claim.account, &reading.source)).or_default();
            of_source.push((&claim.meter, *sqn, reading));
        }
    }
    for ((account, source), mut readings) in readings {
        readings.sort_by_key(|(meter, _, reading)| (reading.ts, *meter));
        let readings = readings.into_iter();
        let readings =
            readings.map(|(meter, sqn, reading)| made(meter.to_owned(), reading.clone(), sqn)).collect();
        queues
            .send(Some(account.clone()), Some(source.clone()), readings)
            .await
            .map_err(|e| anyhow!("{e:#}"))?;
    }
    Ok(())
}
