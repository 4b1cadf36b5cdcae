//! What a round goes through.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use galerna_fan_in::{Ended, FanIn, FanInError, FanInOptions, FanInSpout, FanInStore, Part, Plan};
use galerna_model::{Clock as _, SystemClock, Timestamp};
use galerna_retry::Pauses;
use galerna_schedules::{Firing, ScheduleSpout, ScheduleStore, SchedulerOptions};
use galerna_topology::prelude::*;
use serde_json::json;
use tokio::time::{Instant, sleep, timeout_at};

use crate::{FetchError, Mastodon, Objects, Post, Round, Table, chart};

/// Between attempts to fetch an account.
const PAUSES: Pauses = Pauses::new(Duration::from_millis(200), Duration::from_secs(2));
/// So long is an end claimed at least, by a process that may be lost: a chain that is not done by then is begun again.
const CLAIM: Duration = Duration::from_secs(15);
/// So much earlier does the chain give up, so that two do not work on one chart.
const MARGIN: Duration = Duration::from_secs(2);

/// What the topology works with.
#[derive(Clone)]
pub(crate) struct Parts {
    pub(crate) schedules: Arc<dyn ScheduleStore>,
    pub(crate) fan_ins: Arc<dyn FanInStore>,
    pub(crate) objects: Objects,
    pub(crate) network: Mastodon,
    pub(crate) accounts: Arc<[String]>,
    pub(crate) posts: usize,
    pub(crate) deadline: Duration,
    pub(crate) at_once: usize,
    pub(crate) per_second: f64,
    pub(crate) lease: Duration,
}

/// A round that waits for accounts.
#[derive(Debug, Clone)]
struct Begun {
    round: Round,
    deadline: Timestamp,
    posts: usize,
    waiting: Vec<String>,
}

/// An account to be fetched.
#[derive(Debug, Clone)]
struct Wanted {
    round: Round,
    deadline: Timestamp,
    posts: usize,
    account: String,
}

/// What is uploaded.
#[derive(Debug, Clone)]
struct Files {
    round: Round,
    csv: Bytes,
    svg: Bytes,
    png: Bytes,
}

impl Parts {
    fn fan_in(&self) -> FanIn {
        FanIn::new(Arc::clone(&self.fan_ins), Arc::new(SystemClock), FanInOptions::default())
    }

    /// Declares the topology.
    pub(crate) fn topology(&self) -> Result<Topology, BuildError> {
        let mut topology = TopologyBuilder::new("pulse");

        let parts = self.clone();
        // A round takes as long as it takes: its end is what the fan-in's deadline and the chain's retries see to.
        let rounds = topology.spout("rounds", move || {
            let options = SchedulerOptions { lease: parts.lease, ..SchedulerOptions::default() };
            ScheduleSpout::new(Arc::clone(&parts.schedules)).options(options)
        });
        let rounds = rounds.message_timeout(None).outputs();
        let parts = self.clone();
        let begun = topology.map_async("begin", 16, move |firing: Firing| {
            let parts = parts.clone();
            async move { parts.begin(&firing).await }
        });
        let begun = begun.shuffle(rounds).outputs();
        let accounts = topology.flat_map("accounts", |begun: Begun| {
            let Begun { round, deadline, posts, waiting } = begun;
            waiting.into_iter().map(move |account| Wanted { round: round.clone(), deadline, posts, account })
        });
        let accounts = accounts.shuffle(&begun).outputs();
        let parts = self.clone();
        let calls = Calls::at_once(self.at_once).per_second(self.per_second);
        let fetch = topology.map_async("fetch", calls, move |wanted: Wanted| {
            let parts = parts.clone();
            async move { parts.fetch(wanted).await }
        });
        fetch.shuffle(accounts);
        let parts = self.clone();
        let charted = topology.map_async("charted", 1_000, move |begun: Begun| {
            let parts = parts.clone();
            async move { parts.charted(&begun.round).await }
        });
        charted.shuffle(begun);

        let (fan_ins, claim) = (Arc::clone(&self.fan_ins), CLAIM.max(self.lease));
        let ends = topology.spout("ends", move || FanInSpout::new(Arc::clone(&fan_ins)).lease(claim));
        let ends = ends.message_timeout(claim - MARGIN).outputs();
        let parts = self.clone();
        let tables = topology.map_async("table", 4, move |ended: Ended| {
            let parts = parts.clone();
            async move { parts.table(&ended).await }
        });
        let tables = tables.shuffle(ends).outputs();
        let files = topology.map_async("chart", 2, draw).shuffle(tables).outputs();
        let objects = self.objects.clone();
        let upload = topology.map_async("upload", 4, move |files: Files| {
            let objects = objects.clone();
            async move { upload(&objects, files).await }
        });
        upload.shuffle(files);
        topology.build()
    }

    /// Stores what the round waits for. Begun again, it goes on with what it still waits for.
    async fn begin(&self, firing: &Firing) -> Result<Begun, Fault> {
        let round = Round::of(&firing.id);
        let deadline = i64::try_from(self.deadline.as_millis()).unwrap_or(i64::MAX);
        let plan = Plan {
            id: round.to_string(),
            parts: self.accounts.to_vec(),
            policy: galerna_fan_in::Policy::BestEffort,
            deadline: SystemClock.now().plus_millis(deadline),
            payload: json!({ "posts": self.posts }),
        };
        let record = self.fan_in().begin(plan).await.map_err(fan_in_fault)?;
        let ended = record.end.is_some();
        let waiting = record.parts.into_iter().filter(|(_, part)| !ended && *part == Part::Waiting);
        Ok(Begun {
            round,
            deadline: record.deadline,
            posts: self.posts,
            waiting: waiting.map(|(account, _)| account).collect(),
        })
    }

    /// Fetches an account, by the round's deadline, and tells the fan-in. An account that cannot be had is no failure of the round.
    async fn fetch(&self, wanted: Wanted) -> Result<(), Fault> {
        let left = wanted.deadline.millis_since(SystemClock.now());
        let until = Instant::now() + Duration::from_millis(u64::try_from(left).unwrap_or(0));
        let Ok(result) = timeout_at(until, self.posts_of(&wanted)).await else {
            // The fan-in ends at the deadline by itself, and says of whom nothing was heard.
            return Ok(());
        };
        let result = match result {
            Ok(posts) => {
                let path = wanted.round.posts(&wanted.account);
                let bytes = serde_json::to_vec(&posts)?;
                // If somebody has stored them before and was lost, theirs are as good, and stay.
                self.objects.create(&path, bytes.into()).await.or_unavailable()?;
                Ok(json!(posts.len()))
            }
            Err(error) => Err(error.to_string()),
        };
        match self.fan_in().report(wanted.round.as_str(), &wanted.account, result).await {
            // A round from before the accounts were changed does not wait for this one.
            Ok(_) | Err(FanInError::UnknownPart { .. }) => Ok(()),
            Err(error) => Err(fan_in_fault(error)),
        }
    }

    async fn posts_of(&self, wanted: &Wanted) -> Result<Vec<Post>, FetchError> {
        let mut pauses = PAUSES.begin();
        loop {
            match self.network.last(&wanted.account, wanted.posts).await {
                Err(error) if !error.is_permanent() => {
                    tracing::debug!(account = wanted.account, %error, "it is asked again");
                    let pause = pauses.pause();
                    sleep(match error {
                        FetchError::Limited(Some(wait)) => wait.max(pause),
                        _ => pause,
                    })
                    .await;
                }
                result => return result,
            }
        }
    }

    /// Waits until the round's chart is uploaded: until then the round is open, for the overlap policy and for whoever looks.
    async fn charted(&self, round: &Round) -> Result<(), Fault> {
        let fan_in = self.fan_in();
        loop {
            if fan_in.get(round.as_str()).await.map_err(fan_in_fault)?.settled {
                return Ok(());
            }
            sleep(Duration::from_millis(100)).await;
        }
    }

    /// Gathers what a round compares.
    async fn table(&self, ended: &Ended) -> Result<Table, Fault> {
        let mut table = Table::new(Round::named(&ended.record.id));
        for (account, part) in &ended.record.parts {
            match part {
                Part::Failed(reason) => table.missing.push((account.clone(), reason.clone())),
                Part::Waiting => {
                    table.missing.push((account.clone(), "no answer by the deadline".to_owned()));
                }
                Part::Done(_) => {
                    let path = table.round.posts(account);
                    match self.objects.read(&path).await.or_unavailable()? {
                        Some(bytes) => table.add(account, &serde_json::from_slice::<Vec<Post>>(&bytes)?),
                        None => table.missing.push((account.clone(), format!("{path} was removed"))),
                    }
                }
            }
        }
        Ok(table)
    }
}

fn fan_in_fault(error: FanInError) -> Fault {
    match error {
        FanInError::Bad { .. } => Fault::permanent(error.to_string()),
        error => Fault::unavailable(error.to_string()),
    }
}

/// Writes the CSV and draws the chart, on a thread where that may take its time.
async fn draw(table: Table) -> Result<Files, Fault> {
    tokio::task::spawn_blocking(move || {
        Ok(Files {
            csv: table.csv()?.into(),
            svg: chart::svg(&table)?.into(),
            png: chart::png(&table)?.into(),
            round: table.round,
        })
    })
    .await?
}

/// Uploads what is not there yet. The SVG is the last: where it is, all of the round is.
async fn upload(objects: &Objects, files: Files) -> Result<(), Fault> {
    for (form, bytes) in [("csv", files.csv), ("png", files.png), ("svg", files.svg)] {
        objects.create(&files.round.chart(form), bytes).await.or_unavailable()?;
    }
    Ok(())
}
