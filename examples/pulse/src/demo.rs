//! The demo: some rounds over recorded posts, with an account that does not exist and one that never answers, and an independent count of
//! what must come out.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use galerna_model::Timestamp;
use serde::Serialize;
use tokio::net::TcpListener;
use tokio::time::{Instant, sleep};

use crate::{Options, Pulse, Recorded, Round, Row};

/// An account that the local server does not have.
const GONE: &str = "gone";
/// An account about which it never answers.
const SILENT: &str = "silent";
const POSTS: u16 = 100;

/// How the demo runs.
#[derive(Debug, Clone, clap::Args)]
pub struct DemoOptions {
    /// Ends when the count is made; without it the page goes on until Ctrl-C
    #[arg(long)]
    pub exit: bool,
    /// Writes the count to this file, as JSON
    #[arg(long)]
    pub report: Option<PathBuf>,
    /// Rounds
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..))]
    pub rounds: u64,
    /// How often there is a round
    #[arg(long, default_value = "5s", value_parser = humantime::parse_duration)]
    pub every: Duration,
    /// So long does a round wait for accounts: as long as each takes, because one never answers
    #[arg(long, default_value = "3s", value_parser = humantime::parse_duration)]
    pub deadline: Duration,
    /// The folder for stores and charts; a temporary one unless named
    #[arg(long)]
    pub folder: Option<PathBuf>,
    /// The page's address
    #[arg(long, default_value = "127.0.0.1:8483")]
    pub listen: SocketAddr,
}

/// What went in and what came out. A post of an account counts once a round.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// Posts that the charts should compare, counted from the recorded file.
    #[serde(rename = "in")]
    pub posts_in: u64,
    /// Posts that the CSVs have.
    #[serde(rename = "out")]
    pub posts_out: u64,
    /// Posts that no CSV of their round has.
    pub lost: u64,
    /// Posts that a CSV has more often than they were recorded.
    pub doubled: u64,
    /// How long it took.
    pub seconds: f64,
    /// Rounds whose chart was uploaded.
    pub rounds: u64,
    /// Rounds that were skipped or missed, with the reason recorded.
    pub not_fired: u64,
    /// What else is wrong; empty when all is well.
    pub wrong: Vec<String>,
}

impl Report {
    /// Whether what came out is what must come out.
    pub fn is_right(&self) -> bool {
        self.posts_in == self.posts_out && self.lost == 0 && self.doubled == 0 && self.wrong.is_empty()
    }
}

/// Runs the demo. False when something was lost, doubled or else wrong.
///
/// # Errors
/// When it cannot run.
pub async fn run(options: DemoOptions) -> anyhow::Result<bool> {
    let began = Instant::now();
    let temporary = tempfile::tempdir()?;
    let folder = options.folder.clone().unwrap_or_else(|| temporary.path().to_owned());
    let posts = recorded_posts::posts()?;
    let server = Arc::new(Recorded::new(posts.clone()).silent(SILENT));
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let network = format!("http://{}/", listener.local_addr()?);
    let serving = tokio::spawn(axum::serve(listener, server.router()).into_future());

    let mut accounts: Vec<String> = posts.iter().map(|post| post.account.clone()).collect();
    accounts.extend([GONE.to_owned(), SILENT.to_owned()]);
    let pulse = Pulse::start(Options {
        folder,
        server: network.parse()?,
        accounts,
        objects: None,
        every: Some(options.every),
        overlap: None,
        deadline: options.deadline,
        posts: POSTS,
        at_once: 50,
        per_second: 200.0,
        listen: options.listen,
        token: None,
        lease: Duration::from_secs(30),
        keep: Duration::from_secs(7 * 86_400),
        rounds: Some(options.rounds),
    })
    .await?;
    println!("{} rounds over recorded posts; the page is at http://{}/pulse", options.rounds, pulse.address);
    loop {
        let record = pulse.record().await?;
        if record.next.is_none() && record.open.is_empty() {
            break;
        }
        sleep(Duration::from_millis(100)).await;
    }
    let report = count(&pulse, &posts, began).await?;
    println!(
        "{} posts in, {} out, {} lost, {} doubled, over {} rounds in {:.1} s",
        report.posts_in, report.posts_out, report.lost, report.doubled, report.rounds, report.seconds
    );
    for wrong in &report.wrong {
        println!("wrong: {wrong}");
    }
    if let Some(file) = &options.report {
        let text = serde_json::to_string_pretty(&report)?;
        std::fs::write(file, text + "\n").with_context(|| format!("{} cannot be written", file.display()))?;
    }
    if !options.exit {
        println!("Ctrl-C ends it");
        tokio::signal::ctrl_c().await?;
    }
    pulse.stop().await;
    serving.abort();
    Ok(report.is_right())
}

/// The last posts of each account, counted from the recorded file alone: how many there are of an account and a time.
pub fn expected(posts: &[recorded_posts::RecordedPost], most: usize) -> BTreeMap<(String, Timestamp), u64> {
    let mut times: BTreeMap<&str, Vec<Timestamp>> = BTreeMap::new();
    for post in posts {
        times.entry(&post.account).or_default().push(post.at);
    }
    let mut expected = BTreeMap::new();
    for (account, mut times) in times {
        times.sort_unstable();
        for time in times.into_iter().rev().take(most) {
            *expected.entry((account.to_owned(), time)).or_default() += 1;
        }
    }
    expected
}

async fn count(
    pulse: &Pulse,
    posts: &[recorded_posts::RecordedPost],
    began: Instant,
) -> anyhow::Result<Report> {
    let expected = expected(posts, usize::from(POSTS));
    let mut report = Report {
        posts_in: 0,
        posts_out: 0,
        lost: 0,
        doubled: 0,
        seconds: 0.0,
        rounds: 0,
        not_fired: 0,
        wrong: Vec::new(),
    };
    let mut objects = pulse.objects.list("charts").await?;
    for ended in pulse.schedules.history(pulse.schedule(), None, 10_000).await? {
        match ended.outcome.name() {
            "done" => report.rounds += 1,
            "skipped" | "missed" => {
                report.not_fired += 1;
                continue;
            }
            _ => {
                report.wrong.push(format!("{}: {}", ended.id, ended.outcome));
                continue;
            }
        }
        let round = Round::of(&ended.id);
        for form in ["csv", "svg", "png"] {
            let path = round.chart(form).to_string();
            objects.retain(|object| *object != path);
        }
        report.posts_in += expected.values().sum::<u64>();
        let csv = pulse.objects.read(&round.chart("csv")).await?.unwrap_or_default();
        let mut found: BTreeMap<(String, Timestamp), u64> = BTreeMap::new();
        for row in csv::Reader::from_reader(&csv[..]).deserialize::<Row>() {
            let row = row?;
            report.posts_out += 1;
            *found.entry((row.account, row.at)).or_default() += 1;
        }
        for (post, times) in &expected {
            report.lost += times.saturating_sub(found.get(post).copied().unwrap_or(0));
        }
        for (post, times) in &found {
            report.doubled += times.saturating_sub(expected.get(post).copied().unwrap_or(0));
        }
        let svg = pulse.objects.read(&round.chart("svg")).await?.unwrap_or_default();
        let svg = String::from_utf8_lossy(&svg);
        for missing in [format!("{GONE}: no such account"), format!("{SILENT}: no answer by the deadline")] {
            if !svg.contains(&missing) {
                report.wrong.push(format!("the chart of {round} does not name {missing}"));
            }
        }
        if pulse.objects.read(&round.chart("png")).await?.is_none_or(|png| !png.starts_with(b"\x89PNG\r\n")) {
            report.wrong.push(format!("{round} has no PNG"));
        }
    }
    report.wrong.extend(objects.into_iter().map(|object| format!("{object} is of no round that was done")));
    report.seconds = began.elapsed().as_secs_f64();
    Ok(report)
}
