//! The demo: nine recorded days of 125 lines in some seconds, with everything that comes out counted against everything that went in.
//!
//! The recorded lines are web services (`data/README.md`), which go up and down as machines do. Half of those whose states all last
//! are looked at by polling a status API of this process, all others are posted by HTTP, some events twice. Notices go by SMTP and to a
//! webhook, both served here; the webhook is out of order now and then. Time is that of the recording: it goes on when what happened
//! until then has been answered with 2xx.

mod count;
mod receivers;
mod recording;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use clap::Args;
use galerna_model::{Clock, ManualClock};
use serde::Serialize;
use tokio::net::TcpListener;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use self::count::{Expected, expected};
use self::receivers::{Mailbox, StatusApi, WebhookReceiver};
use self::recording::{Recorded, recording};
use crate::app::{App, Options};
use crate::line::{Downtime, NoticeKind};
use crate::store::{DowntimeQuery, DowntimeStore};
use crate::topology::Smtp;

/// A change is told when it has lasted for so long.
const HOLD: Duration = Duration::from_secs(600);
/// Slices of recorded time, in milliseconds: what happened in one is posted at once.
const SLICE_MS: i64 = 60 * 60_000;
/// Callers that post at the same time, each the lines that are its own.
const CALLERS: usize = 4;
/// How long the rest may take after the recording, on a machine that does other things too.
const PATIENCE: Duration = Duration::from_secs(180);
/// The lists, with their contacts.
const LISTS: [(&str, &[&str]); 2] =
    [("maintenance", &["ada@example.com", "grace@example.com"]), ("shift leaders", &["alan@example.com"])];

/// What the demo takes.
#[derive(Debug, Args)]
pub struct DemoArgs {
    /// End when everything is counted: with 0 if all of it is right.
    #[arg(long)]
    exit: bool,
    /// Write the counts to this file, as JSON.
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// Where the page is served; 127.0.0.1:8480 unless the demo exits.
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<String>,
    /// Keep lines and downtimes in this empty PostgreSQL database.
    #[arg(long, value_name = "URL")]
    database: Option<String>,
    /// Keep notification lists in this empty MongoDB database.
    #[arg(long, value_name = "URL")]
    lists: Option<String>,
}

/// What went in and what came out.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// Distinct events that were handed in.
    r#in: u64,
    /// Events that are stored.
    out: u64,
    /// Events, downtimes, mails and calls of the webhook that should be there and are not.
    lost: u64,
    /// Downtimes, mails and calls of the webhook that should not be there; of mails and calls, those that came again under the same id
    /// too.
    doubled: u64,
    /// From the first event to the last delivery.
    seconds: f64,
    /// Events that were posted, those that were posted twice included.
    posted: u64,
    /// Distinct events that the status API told.
    polled: u64,
    /// Downtimes that are stored.
    downtimes: usize,
    /// Changes that did not last, of which nobody was told.
    held: u64,
    /// Mails that came.
    mails: usize,
    /// Calls of the webhook that it took.
    calls: usize,
    /// Calls of the webhook that it refused, to be tried again.
    refused: usize,
}

impl Report {
    fn is_right(&self) -> bool {
        self.lost == 0 && self.doubled == 0 && self.r#in == self.out
    }
}

/// Runs the demo.
///
/// # Errors
/// When it cannot be run; that the counts differ is the exit code 1.
pub async fn run(args: DemoArgs) -> anyhow::Result<ExitCode> {
    let folder = tempfile::tempdir().context("making a folder for the demo's files")?;
    let usual = if args.exit { "127.0.0.1:0" } else { "127.0.0.1:8480" };
    let listen = args.listen.as_deref().unwrap_or(usual);
    let listener = TcpListener::bind(listen).await.with_context(|| format!("listening on {listen}"))?;
    let base = format!("http://{}", listener.local_addr()?);
    let recorded = recording()?;
    let first = recorded.first().context("the recording is empty")?.at;
    let clock = ManualClock::at(first);
    let polled = polled_lines(&recorded);
    let status = StatusApi::start(&recorded, &polled, clock.clone()).await?;
    let (mailbox, webhook) = (Mailbox::start().await?, WebhookReceiver::start().await?);
    let options = Options {
        database: args.database.clone(),
        lists: args.lists.clone(),
        poll: Some(status.url()?),
        poll_every: Duration::from_secs(1),
        hold: HOLD,
        smtp: Some(Smtp { url: mailbox.url(), from: "Downtime <downtime@example.com>".to_owned() }),
        webhook: Some(webhook.url()?),
        ..Options::new(folder.path().to_owned())
    };
    let app = App::start(&options, Arc::new(clock.clone()), Arc::new(galerna_model::SystemClock)).await?;
    let store = app.store().clone();
    ensure!(store.events().await? == 0, "the database is not empty; the demo counts what is in it");
    println!("page: {base}/lines?hours=240");
    let stop = CancellationToken::new();
    let stopping = stop.clone();
    let serving = tokio::spawn(async move { app.serve(listener, stopping.cancelled_owned()).await });

    let client = Client { http: reqwest::Client::new(), base };
    client.make_lists().await?;
    let began = Instant::now();
    let posted = client.play(&recorded, &polled, &clock).await?;
    // All that will last has lasted then.
    clock.advance(24 * 3_600_000);
    let given: Vec<Recorded> =
        recorded.iter().filter(|event| !polled.contains(&event.line)).cloned().collect();
    let expected = settled(store.as_ref(), &status, &given).await?;
    let seconds = began.elapsed().as_secs_f64();

    let report = compare(store.as_ref(), &expected, &mailbox, &webhook, posted, &status, seconds).await?;
    println!("{}", serde_json::to_string_pretty(&report)?);
    if let Some(path) = &args.report {
        write(path, &report)?;
    }
    println!(
        "{}",
        if report.is_right() { "everything that went in came out, once" } else { "the counts differ" }
    );
    if !args.exit {
        println!("the page stays until Ctrl-C");
        tokio::signal::ctrl_c().await?;
    }
    stop.cancel();
    serving.await??;
    Ok(if report.is_right() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn write(path: &Path, report: &Report) -> anyhow::Result<()> {
    let text = serde_json::to_string_pretty(report)?;
    std::fs::write(path, text).with_context(|| format!("writing the report to {}", path.display()))
}

/// Every second of the lines whose states all last long enough to be told: when the status API is asked, seldom in recorded time, it
/// tells of each of them truly what it is, and nothing of what it was between.
fn polled_lines(recorded: &[Recorded]) -> BTreeSet<String> {
    let hold = i64::try_from(HOLD.as_millis()).unwrap_or(i64::MAX);
    let mut by_line: BTreeMap<&str, Vec<&Recorded>> = BTreeMap::new();
    for event in recorded {
        by_line.entry(&event.line).or_default().push(event);
    }
    let lasting = by_line.into_iter().filter(|(_, events)| {
        let changes: Vec<_> = events.chunk_by(|a, b| a.state == b.state).map(|run| run[0].at).collect();
        changes.windows(2).all(|pair| pair[1].millis_since(pair[0]) >= hold)
    });
    lasting.step_by(2).map(|(line, _)| line.to_owned()).collect()
}

/// Somebody who posts events.
#[derive(Clone)]
struct Client {
    http: reqwest::Client,
    base: String,
}

impl Client {
    async fn make_lists(&self) -> anyhow::Result<()> {
        for (name, contacts) in LISTS {
            let lists = format!("{}/api/v1/lists", self.base);
            let made = self.http.post(&lists).json(&serde_json::json!({ "name": name })).send().await?;
            ensure!(made.status() == 201, "making the list `{name}`: {}", made.text().await?);
            for address in contacts {
                let url = format!("{lists}/{name}/contacts");
                let added =
                    self.http.post(url).json(&serde_json::json!({ "address": address })).send().await?;
                ensure!(added.status() == 201, "adding {address}: {}", added.text().await?);
            }
        }
        Ok(())
    }

    /// Posts what is not polled, slice by slice, and lets time go on after each. How many were posted.
    async fn play(
        &self,
        recorded: &[Recorded],
        polled: &BTreeSet<String>,
        clock: &ManualClock,
    ) -> anyhow::Result<u64> {
        let mut posted = 0;
        for slice in recorded.chunk_by(|a, b| a.at.as_millis() / SLICE_MS == b.at.as_millis() / SLICE_MS) {
            let mut callers: Vec<Vec<Recorded>> = vec![Vec::new(); CALLERS];
            for event in slice.iter().filter(|event| !polled.contains(&event.line)) {
                let own = event.line.bytes().map(usize::from).sum::<usize>() % CALLERS;
                callers[own].push(event.clone());
            }
            let calls = callers.into_iter().filter(|events| !events.is_empty()).map(|events| {
                let client = self.clone();
                tokio::spawn(async move { client.post(&events).await })
            });
            for call in calls.collect::<Vec<_>>() {
                posted += call.await??;
            }
            let end = (slice[0].at.as_millis() / SLICE_MS + 1) * SLICE_MS;
            clock.advance(end - clock.now().as_millis());
            // Leaves the status API time to be asked: it is asked each second.
            sleep(Duration::from_millis(20)).await;
        }
        Ok(posted)
    }

    /// Posts events, and every fifth time once more, as somebody does whose answer was lost.
    async fn post(&self, events: &[Recorded]) -> anyhow::Result<u64> {
        let body: Vec<_> = events
            .iter()
            .map(|event| serde_json::json!({ "line": event.line, "at": event.at, "kind": event.state }))
            .collect();
        let body = serde_json::json!({ "events": body });
        let times = if events[0].at.as_millis() / 1_000 % 5 == 0 { 2 } else { 1 };
        for time in 0..times {
            let answer = self.http.post(format!("{}/api/v1/events", self.base)).json(&body).send().await?;
            let wanted = if time == 0 { 201 } else { 200 };
            ensure!(
                answer.status() == wanted,
                "posting events: {} {}",
                answer.status(),
                answer.text().await?
            );
        }
        Ok(times * u64::try_from(events.len()).unwrap_or(0))
    }
}

/// Waits until everything is stored and told, and counts what should be.
async fn settled(
    store: &dyn DowntimeStore,
    status: &StatusApi,
    given: &[Recorded],
) -> anyhow::Result<Expected> {
    let deadline = Instant::now() + PATIENCE;
    let hold = i64::try_from(HOLD.as_millis()).unwrap_or(i64::MAX);
    loop {
        let lines = store.lines().await?;
        if status.told_last()
            && lines.iter().all(|line| line.told == line.state)
            && store.untold().await? == 0
        {
            let mut events: Vec<Recorded> = given.to_vec();
            events.extend(status.told());
            let expected = expected(events, hold);
            // What the last answer of the status API told may be on its way to the store.
            if store.events().await? >= expected.events {
                return Ok(expected);
            }
        }
        ensure!(Instant::now() < deadline, "not everything was stored and told within {PATIENCE:?}");
        sleep(Duration::from_millis(50)).await;
    }
}

async fn compare(
    store: &dyn DowntimeStore,
    expected: &Expected,
    mailbox: &Mailbox,
    webhook: &WebhookReceiver,
    posted: u64,
    status: &StatusApi,
    seconds: f64,
) -> anyhow::Result<Report> {
    let query = DowntimeQuery { limit: usize::MAX, ..DowntimeQuery::default() };
    let found: Vec<Downtime> = store.downtimes(&query).await?;
    let downtimes: Vec<_> = found.iter().map(|d| (d.line.clone(), d.start, d.end)).collect();
    let (mut lost, mut doubled) = differences(&expected.downtimes, &downtimes);
    // A list is told once of each change, by a mail to all of its contacts.
    let to_lists: Vec<_> = expected
        .notices
        .iter()
        .flat_map(|notice| {
            LISTS.iter().map(move |(_, contacts)| (contacts.len(), subject(notice.0.as_str(), notice.1)))
        })
        .collect();
    let calls: Vec<_> =
        webhook.taken().into_iter().map(|call| (call.line, call.kind, call.at, call.duration_ms)).collect();
    let mails: Vec<_> = mailbox.taken().into_iter().map(|mail| (mail.recipients, mail.subject)).collect();
    for (less, more) in [differences(&expected.notices, &calls), differences(&to_lists, &mails)] {
        lost += less;
        doubled += more;
    }
    let ids: Vec<String> = webhook.taken().into_iter().map(|call| call.id).collect();
    ensure!(ids.iter().all(|id| !id.is_empty()), "a call of the webhook has no id");
    let stored = store.events().await?;
    lost += expected.events.saturating_sub(stored);
    let held = store.lines().await?.iter().map(|line| line.held.unsigned_abs()).sum();
    ensure!(held == expected.held, "{held} changes were held, and {} should be", expected.held);
    Ok(Report {
        r#in: expected.events,
        out: stored,
        lost,
        doubled,
        seconds,
        posted,
        polled: u64::try_from(status.told().len()).unwrap_or(0),
        downtimes: found.len(),
        held,
        mails: mails.len(),
        calls: calls.len(),
        refused: webhook.refused(),
    })
}

fn subject(line: &str, kind: NoticeKind) -> String {
    match kind {
        NoticeKind::Down => format!("{line} is down"),
        NoticeKind::Restored => format!("{line} is restored"),
    }
}

/// How many of what should be there are not, and how many are there that should not be, or once too often.
fn differences<T: Ord + std::fmt::Debug>(wanted: &[T], found: &[T]) -> (u64, u64) {
    let mut counts: BTreeMap<&T, i64> = BTreeMap::new();
    wanted.iter().for_each(|one| *counts.entry(one).or_default() += 1);
    found.iter().for_each(|one| *counts.entry(one).or_default() -= 1);
    for (one, count) in counts.iter().filter(|(_, count)| **count != 0).take(10) {
        tracing::error!("{} of {one:?}", if *count > 0 { "too few" } else { "too many" });
    }
    let sum = |sign: i64| counts.values().map(|count| (count * sign).max(0).unsigned_abs()).sum();
    (sum(1), sum(-1))
}
