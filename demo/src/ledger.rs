//! What was published, reading by reading, to be compared with what became of it.

use std::collections::HashMap;

use anyhow::Context;
use galerna_broker::Broker;
use galerna_model::{QueueName, Reading, Timestamp};
use galerna_storage::Store;

use super::extract::{Load, ReplayedPost};
use super::faults::Marker;

/// Keys read from the store at a time.
const PAGE: usize = 20_000;

/// Everything that the broker confirmed, by tenant.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    tenants: Vec<Entries>,
    /// Dead letters that must be found, by queue.
    dead: HashMap<QueueName, Vec<Marker>>,
}

#[derive(Debug, Default, Clone)]
struct Entries {
    /// Meter, time, sequence number.
    regular: Vec<(u32, i64, u32)>,
    /// Readings of devices that are no meters of the site.
    others: Vec<(String, i64, u64)>,
}

/// How the comparison went.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Comparison {
    /// Distinct readings published that had to be stored.
    pub(crate) expected: u64,
    /// Published, and neither stored nor in the dead letters.
    pub(crate) lost: u64,
    /// Stored with a lower sequence number than was published.
    pub(crate) outdated: u64,
    /// Stored and never published.
    pub(crate) unexpected: u64,
}

impl Ledger {
    pub(crate) fn new(tenants: usize) -> Self {
        Self { tenants: vec![Entries::default(); tenants], dead: HashMap::new() }
    }

    /// Notes a post that was confirmed.
    pub(crate) fn post(&mut self, tenant: usize, post: &ReplayedPost) {
        let sqn = u32::try_from(post.sqn).unwrap_or(u32::MAX);
        let entries =
            post.meters.iter().zip(&post.readings).map(|(meter, r)| (*meter, r.ts.as_millis(), sqn));
        self.tenants[tenant].regular.extend(entries);
    }

    /// Notes a reading of another device, or one sent again with a higher sequence number.
    pub(crate) fn reading(&mut self, tenant: usize, reading: &Reading) {
        self.tenants[tenant].others.push((reading.did.clone(), reading.ts.as_millis(), reading.sqn));
    }

    /// Notes what must be found in the dead letters.
    pub(crate) fn dead(&mut self, queue: &QueueName, expected: &[Marker]) {
        self.dead.entry(queue.clone()).or_default().extend_from_slice(expected);
    }

    /// How many dead letters there must be.
    pub(crate) fn expected_dead(&self) -> u64 {
        self.dead.values().map(|d| d.len() as u64).sum()
    }

    /// Looks for every published reading, one by one, in the store and in the dead letters.
    pub(crate) async fn compare(
        &self,
        load: &Load,
        store: &Store,
        broker: &dyn Broker,
    ) -> anyhow::Result<Comparison> {
        let mut result = Comparison::default();
        for (tenant, entries) in load.tenants.iter().zip(&self.tenants) {
            let meters: HashMap<&str, u32> = load.sites[tenant.site]
                .meters
                .iter()
                .zip(0..)
                .map(|((did, _), index)| (did.as_str(), index))
                .collect();
            let mut regular: HashMap<(u32, i64), u64> = HashMap::with_capacity(entries.regular.len());
            regular.extend(entries.regular.iter().map(|(meter, ts, sqn)| ((*meter, *ts), u64::from(*sqn))));
            let mut others: HashMap<(String, i64), u64> = HashMap::new();
            for (did, ts, sqn) in &entries.others {
                // A correction raises what is expected of the reading that it corrects.
                match meters.get(did.as_str()).and_then(|meter| regular.get_mut(&(*meter, *ts))) {
                    Some(known) => *known = (*known).max(*sqn),
                    None => {
                        let known = others.entry((did.clone(), *ts)).or_default();
                        *known = (*known).max(*sqn);
                    }
                }
            }
            result.expected += (regular.len() + others.len()) as u64;

            let mut after = None;
            loop {
                let page = store
                    .readings
                    .keys(&tenant.account, after.as_ref(), PAGE)
                    .await
                    .context("cannot read back what is stored")?;
                for key in &page {
                    let Timestamp(ts) = key.ts;
                    let own = key.source.as_str() == tenant.account.as_str();
                    let published = match meters.get(key.device.as_str()) {
                        _ if !own => None,
                        Some(meter) => regular.remove(&(*meter, ts)),
                        None => others.remove(&(key.device.clone(), ts)),
                    };
                    match published {
                        None => result.unexpected += 1,
                        Some(sqn) if key.sqn < sqn => result.outdated += 1,
                        Some(_) => {}
                    }
                }
                let more = page.len() == PAGE;
                after = page.into_iter().next_back();
                if !more {
                    break;
                }
            }
            result.lost += (regular.len() + others.len()) as u64;
        }
        for (queue, expected) in &self.dead {
            // Every expected letter has a marker of its own; a few more are read than must be there.
            let letters = broker
                .dead_letters(queue, 0, expected.len() * 2 + 100)
                .await
                .with_context(|| format!("cannot read the dead letters of {queue}"))?;
            for wanted in expected {
                let found = letters.iter().any(|letter| {
                    letter.body.len() >= wanted.len()
                        && letter.body.windows(wanted.len()).any(|part| part == &wanted[..])
                });
                result.lost += u64::from(!found);
            }
        }
        Ok(result)
    }
}
