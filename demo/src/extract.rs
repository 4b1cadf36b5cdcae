//! The data of the demo, and the load that is made from it.
//!
//! The extract is two months of 334 real electricity and gas meters of 11 accounts, hour by hour, with their gaps,
//! outages and spikes. See `examples/data/` for where it comes from and under which licence.

use std::collections::HashMap;
use std::io::Read;

use anyhow::Context;
use galerna_import::{Amount, Import, Options, Series};
use galerna_model::{AccountId, Measurement, Reading, Timestamp};
use rust_decimal::Decimal;
use rust_decimal::prelude::ToPrimitive;

static READINGS: &[u8] = include_bytes!("../../examples/data/energy/readings_2017-01_02.csv.gz");

/// Days from the first to the last hour of the extract, both included: replays are moved by multiples of it.
const DAYS: i64 = 59;

/// The meters of one account, and what they measured.
#[derive(Debug, Default)]
pub(crate) struct Site {
    pub(crate) meters: Vec<(String, Series)>,
    hours: Vec<Hour>,
    /// Values in all hours.
    pub(crate) values: u64,
}

/// The values of one hour: index of the meter, and value.
#[derive(Debug)]
struct Hour {
    ts: Timestamp,
    values: Vec<(u32, f64)>,
}

/// The extract, by account.
#[derive(Debug)]
pub(crate) struct Extract {
    pub(crate) accounts: Vec<(AccountId, Site)>,
}

impl Extract {
    /// Unpacks the extract that is built into the program. Takes a good part of a second of computing.
    pub(crate) fn embedded() -> anyhow::Result<Self> {
        let mut text = Vec::new();
        let unpacked = flate2::read::MultiGzDecoder::new(READINGS).read_to_end(&mut text);
        unpacked
            .map_err(Into::into)
            .and_then(|_| Self::read(text))
            .context("the built-in readings cannot be read")
    }

    fn read(text: Vec<u8>) -> anyhow::Result<Self> {
        let mut accounts: Vec<(AccountId, Site)> = Vec::new();
        let mut account_index: HashMap<AccountId, usize> = HashMap::new();
        let mut meter_index: HashMap<String, u32> = HashMap::new();
        for row in Import::open(text, &Options::default())?.rows() {
            let row = row?;
            let (series, amount) = match row.value.amount {
                Amount::Net(series, amount) => (series, Some(number(amount)?)),
                Amount::Missing(series) => (series, None),
                _ => anyhow::bail!("line {}: not the amount of an hour", row.value.line),
            };
            let at = match account_index.get(&row.account) {
                Some(at) => *at,
                None => {
                    accounts.push((row.account.clone(), Site::default()));
                    account_index.insert(row.account, accounts.len() - 1);
                    accounts.len() - 1
                }
            };
            let site = &mut accounts[at].1;
            let meter = match meter_index.get(&row.meter) {
                Some(meter) => *meter,
                None => {
                    let meter = u32::try_from(site.meters.len())?;
                    site.meters.push((row.meter.clone(), series));
                    meter_index.insert(row.meter, meter);
                    meter
                }
            };
            if let Some(amount) = amount {
                site.push(row.value.ts, meter, amount);
            }
        }
        Ok(Self { accounts })
    }

    /// All meters as one site.
    fn merged(&self) -> Site {
        let mut merged = Site::default();
        let mut hours: Vec<(Timestamp, u32, f64)> = Vec::new();
        for (_, site) in &self.accounts {
            let first = u32::try_from(merged.meters.len()).unwrap_or(u32::MAX);
            merged.meters.extend(site.meters.iter().cloned());
            for hour in &site.hours {
                hours.extend(hour.values.iter().map(|(meter, value)| (hour.ts, first + meter, *value)));
            }
        }
        hours.sort_by_key(|(ts, meter, _)| (*ts, *meter));
        for (ts, meter, value) in hours {
            merged.push(ts, meter, value);
        }
        merged
    }

    /// Each account with what it measured, once.
    pub(crate) fn once(self) -> Load {
        let mut sites = Vec::new();
        let mut tenants = Vec::new();
        for (account, site) in self.accounts {
            tenants.push(Tenant { account, site: sites.len(), readings: site.values });
            sites.push(site);
        }
        Load { sites, tenants }
    }

    /// About `readings` under so many accounts, one of which, the last, has a thousand times the others' backlog.
    ///
    /// Small accounts replay the sites of the extract in turn. The big one replays all its meters. Where a site's two
    /// months do not suffice they come again on later days, with their counters running on.
    pub(crate) fn scaled(self, readings: u64, accounts: u32) -> anyhow::Result<Load> {
        const BIG: u64 = 1_000;
        let small = u64::from(accounts.max(2) - 1);
        let each = (readings / (small + BIG)).max(1);
        let big = readings.saturating_sub(each * small).max(1);
        let merged = self.merged();
        let (names, mut sites): (Vec<_>, Vec<_>) = self.accounts.into_iter().unzip();
        anyhow::ensure!(!sites.is_empty(), "the extract is empty");
        let mut tenants: Vec<Tenant> = Vec::new();
        for i in 0..accounts.max(2) - 1 {
            let site = i as usize % sites.len();
            let account = AccountId::new(format!("{}.{:06}", names[site], i + 1))?;
            tenants.push(Tenant { account, site, readings: each });
        }
        tenants.push(Tenant { account: AccountId::new("Big")?, site: sites.len(), readings: big });
        sites.push(merged);
        Ok(Load { sites, tenants })
    }
}

impl Site {
    fn push(&mut self, ts: Timestamp, meter: u32, value: f64) {
        match self.hours.last_mut() {
            Some(hour) if hour.ts == ts => hour.values.push((meter, value)),
            _ => self.hours.push(Hour { ts, values: vec![(meter, value)] }),
        }
        self.values += 1;
    }
}

/// An account of the load.
#[derive(Debug, Clone)]
pub(crate) struct Tenant {
    pub(crate) account: AccountId,
    /// Index of its site.
    pub(crate) site: usize,
    /// How many readings it sends.
    pub(crate) readings: u64,
}

/// Who sends what.
#[derive(Debug)]
pub(crate) struct Load {
    pub(crate) sites: Vec<Site>,
    pub(crate) tenants: Vec<Tenant>,
}

impl Load {
    /// How many readings there are in all.
    pub(crate) fn readings(&self) -> u64 {
        self.tenants.iter().map(|t| t.readings).sum()
    }

    /// The same without the big account of [`Extract::scaled`].
    pub(crate) fn without_the_big_one(&mut self) {
        self.tenants.pop();
    }

    /// The accounts under other names, each with this at its end.
    pub(crate) fn renamed(&mut self, suffix: &str) -> anyhow::Result<()> {
        for tenant in &mut self.tenants {
            tenant.account = AccountId::new(format!("{}{suffix}", tenant.account))?;
        }
        Ok(())
    }

    /// What a tenant sends, a post at a time.
    pub(crate) fn posts(&self, tenant: &Tenant) -> Replay<'_> {
        let site = &self.sites[tenant.site];
        Replay { site, sums: vec![0.0; site.meters.len()], pass: 0, hour: 0, sqn: 0, left: tenant.readings }
    }
}

/// The posts of a tenant.
#[derive(Debug)]
pub(crate) struct Replay<'a> {
    site: &'a Site,
    sums: Vec<f64>,
    pass: i64,
    hour: usize,
    sqn: u64,
    left: u64,
}

/// A post, and the meter of each of its readings.
#[derive(Debug)]
pub(crate) struct ReplayedPost {
    pub(crate) sqn: u64,
    pub(crate) meters: Vec<u32>,
    pub(crate) readings: Vec<Reading>,
}

impl Iterator for Replay<'_> {
    type Item = ReplayedPost;

    fn next(&mut self) -> Option<ReplayedPost> {
        if self.left == 0 || self.site.hours.is_empty() {
            return None;
        }
        if self.hour == self.site.hours.len() {
            self.hour = 0;
            self.pass += 1;
        }
        let hour = &self.site.hours[self.hour];
        self.hour += 1;
        self.sqn += 1;
        let take = usize::try_from(self.left).unwrap_or(usize::MAX).min(hour.values.len());
        self.left -= take as u64;
        let ts = hour.ts.plus_millis(self.pass * DAYS * 24 * 3_600_000);
        let mut post = ReplayedPost {
            sqn: self.sqn,
            meters: Vec::with_capacity(take),
            readings: Vec::with_capacity(take),
        };
        for (meter, value) in &hour.values[..take] {
            let (did, series) = &self.site.meters[*meter as usize];
            let values = measured(*series, *value, &mut self.sums[*meter as usize]);
            post.meters.push(*meter);
            post.readings.push(Reading { did: did.clone(), values, sqn: self.sqn, ts });
        }
        Some(post)
    }
}

/// What a meter sends when it used `amount` in an hour, and the counter, which goes on by it.
fn measured(series: Series, amount: f64, counter: &mut f64) -> Vec<Measurement> {
    *counter += amount;
    let mut values = vec![Measurement { p: series.counter(), v: rounded(*counter) }];
    if let Some((p, factor)) = series.rate() {
        values.push(Measurement { p, v: rounded(amount * factor.to_f64().unwrap_or(1.0)) });
    }
    values
}

/// To a millionth, so that the noise of binary fractions does not travel.
fn rounded(value: f64) -> f64 {
    (value * 1e6).round() / 1e6
}

fn number(amount: Decimal) -> anyhow::Result<f64> {
    amount.to_f64().with_context(|| format!("{amount} is no number"))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn small() -> Extract {
        let mut text = "source,account,building,meter_id,utility,ts,value,unit\n".to_owned();
        for hour in 0..4 {
            for (account, meter) in [("A", "a1"), ("A", "a2"), ("B", "b1")] {
                let value = if (hour, meter) == (1, "a2") { "" } else { "1.5" };
                text += &format!(
                    "s,{account},b,{meter},electricity,2017-01-01T0{hour}:00:00+00:00,{value},kWh\n"
                );
            }
        }
        Extract::read(text.into_bytes()).unwrap()
    }

    #[test]
    fn the_load_once_has_one_reading_for_each_value() {
        let load = small().once();
        assert_eq!(load.readings(), 11);
        let posts: Vec<_> = load.posts(&load.tenants[0]).collect();
        assert_eq!(posts.iter().map(|p| p.readings.len()).collect::<Vec<_>>(), [2, 1, 2, 2]);
        assert_eq!(posts[3].readings[0].values[0].v, 6.0);
        assert_eq!(posts[3].sqn, 4);
    }

    #[test]
    fn the_scaled_load_has_one_account_with_a_thousand_times_the_others_and_no_identity_twice() {
        let load = small().scaled(10_050, 6).unwrap();
        assert_eq!(load.tenants.len(), 6);
        assert_eq!(load.tenants[..5].iter().map(|t| t.readings).collect::<Vec<_>>(), [10; 5]);
        assert_eq!(load.tenants[5].readings, 10_000);
        for tenant in &load.tenants {
            let mut seen = HashSet::new();
            let mut sums: HashMap<String, f64> = HashMap::new();
            for post in load.posts(tenant) {
                for reading in post.readings {
                    assert!(seen.insert((reading.did.clone(), reading.ts)), "{} twice", reading.did);
                    let sum = sums.entry(reading.did).or_default();
                    assert!(reading.values[0].v > *sum, "a counter went back");
                    *sum = reading.values[0].v;
                }
            }
            assert_eq!(seen.len() as u64, tenant.readings);
        }
    }

    #[test]
    fn energy_is_counted_and_power_is_its_mean() {
        let mut counter = 0.0;
        let mut of = |series: Series, amount| -> Vec<(u32, f64)> {
            measured(series, amount, &mut counter).iter().map(|m| (m.p.0, m.v)).collect()
        };
        assert_eq!(of(Series::ActiveEnergy, 1.5), [(402, 1.5), (401, 1500.0)]);
        assert_eq!(of(Series::ActiveEnergy, 0.1), [(402, 1.6), (401, 100.0)]);
        assert_eq!(of(Series::GasEnergy, 2.0), [(420, 3.6)]);
    }

    #[test]
    fn the_built_in_extract_is_whole() {
        let load = Extract::embedded().unwrap().once();
        assert_eq!(
            (load.tenants.len(), load.sites.iter().map(|site| site.meters.len()).sum::<usize>()),
            (11, 334)
        );
        assert_eq!(load.readings(), 464_325);
    }
}
