//! The demo: a local site with recorded posts is crawled twice, with posts and edits in between, and an independent count of what must
//! come out.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use axum::Router;
use axum::extract::{Json, State};
use axum::routing::post;
use galerna_lock::Mutex;
use galerna_schedules::ScheduleId;
use jiff::ToSpan as _;
use jiff::civil::Date;
use recorded_posts::RecordedPost;
use serde::Serialize;
use tokio::net::TcpListener;
use tokio::time::{Instant, sleep};

use crate::app::crawl_schedule;
use crate::store::Alert;
use crate::{Config, Options, Site, Watchlist};

/// Counts by keyword, group and day.
pub type Expected = BTreeMap<(String, String, String), u64>;

/// How the demo runs.
#[derive(Debug, Clone, clap::Args)]
pub struct DemoOptions {
    /// Ends when the count is made; without it the page goes on until Ctrl-C
    #[arg(long)]
    pub exit: bool,
    /// Writes the count to this file, as JSON
    #[arg(long)]
    pub report: Option<PathBuf>,
    /// The folder for the stores; a temporary one unless named
    #[arg(long)]
    pub folder: Option<PathBuf>,
    /// Keeps posts, counts and alerts in this PostgreSQL database, which must be empty
    #[arg(long, hide_env_values = true)]
    pub postgres: Option<String>,
    /// The page's address
    #[arg(long, default_value = "127.0.0.1:8484")]
    pub listen: SocketAddr,
}

/// What went in and what came out.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Report {
    /// Versions of posts that the site has shown.
    #[serde(rename = "in")]
    pub versions_in: u64,
    /// Versions of posts that are stored.
    #[serde(rename = "out")]
    pub versions_out: u64,
    /// Versions and alerts that are not there.
    pub lost: u64,
    /// Versions that are stored, and alerts that came, more often than once.
    pub doubled: u64,
    /// How long it took.
    pub seconds: f64,
    /// Counts by keyword, group and day.
    pub targets: u64,
    /// Alerts that came to the webhook.
    pub alerts: u64,
    /// Pages that were not sent again, because they had not changed.
    pub not_modified: u64,
    /// The most workers there were.
    pub most_workers: u64,
    /// What else is wrong; empty when all is well.
    pub wrong: Vec<String>,
}

impl Report {
    /// Whether what came out is what must come out.
    pub fn is_right(&self) -> bool {
        self.versions_in == self.versions_out && self.lost == 0 && self.doubled == 0 && self.wrong.is_empty()
    }
}

/// A receiver of alerts, which counts how often each came.
#[derive(Debug, Clone, Default)]
pub struct Receiver(Arc<Mutex<BTreeMap<String, u64>>>);

impl Receiver {
    /// How often each alert came.
    pub fn came(&self) -> BTreeMap<String, u64> {
        self.0.lock().clone()
    }

    /// Its route, `/alerts`.
    pub fn router(&self) -> Router {
        async fn take(State(receiver): State<Receiver>, Json(alert): Json<Alert>) {
            *receiver.0.lock().entry(alert.id).or_default() += 1;
        }
        Router::new().route("/alerts", post(take)).with_state(self.clone())
    }
}

/// What the demo watches: half of the groups as HTML, half by the API, and a page that nobody is to crawl.
///
/// # Errors
/// When the settings that are built in make no sense, which the demo's test rules out.
pub fn config(site: &str, groups: &[String]) -> anyhow::Result<Config> {
    let mut text = format!("webhook = \"{site}alerts\"\nper_minute = 60000\n");
    for (number, group) in groups.iter().enumerate() {
        let (kind, path) = if number % 2 == 0 { ("html", "groups") } else { ("api", "api") };
        text += &format!(
            "[[sources]]\nname = \"{group}\"\nkind = \"{kind}\"\ngroup = \"{group}\"\nurl = \"{site}{path}/{group}\"\nevery = \"1day\"\n"
        );
    }
    text += &format!(
        "[[sources]]\nname = \"private\"\nkind = \"html\"\ngroup = \"private\"\nurl = \"{site}private/x\"\nevery = \"1day\"\n"
    );
    text += include_str!("demo.toml");
    let config: Config = toml::from_str(&text)?;
    config.check()?;
    Ok(config)
}

/// The groups that there are.
pub fn groups(posts: &[RecordedPost]) -> Vec<String> {
    let mut groups: Vec<String> = posts.iter().map(|post| post.account.clone()).collect();
    groups.sort_unstable();
    groups.dedup();
    groups
}

/// Counted without what watchlist counts with: words cut out of the text, one by one.
pub fn expected_targets(posts: &[RecordedPost]) -> Expected {
    let mut expected = Expected::new();
    for post in posts {
        let text = post.text.to_lowercase();
        let words: Vec<&str> = text.split(|c: char| !(c.is_alphanumeric() || c == '_')).collect();
        let count = |of: &[&str]| words.iter().filter(|word| of.contains(word)).count();
        let security = count(&["cve", "security", "vulnerability", "vulnerabilities"]);
        let team = text.matches("security team").count();
        let build = count(&["ftbfs", "build"]);
        let day = post.at.to_string()[..10].to_owned();
        for (keyword, count) in [("security", security.saturating_sub(team)), ("build", build)] {
            if count > 0 {
                let key = (keyword.to_owned(), post.account.clone(), day.clone());
                *expected.entry(key).or_default() += count as u64;
            }
        }
    }
    expected
}

/// The alerts that the demo's rules ask for, counted from the targets that must come out.
pub fn expected_alerts(targets: &Expected) -> anyhow::Result<Vec<String>> {
    let mut alerts = Vec::new();
    for ((keyword, group, day), count) in targets {
        if keyword != "security" {
            continue;
        }
        if *count >= 4 {
            alerts.push(format!("many-in-a-day/{group}/{day}"));
        }
        let end: Date = day.parse()?;
        let week = |from: i64| -> anyhow::Result<u64> {
            let mut sum = 0;
            for days in from..from + 7 {
                let day = end.checked_sub(days.days())?.to_string();
                sum += targets.get(&(keyword.clone(), group.clone(), day)).copied().unwrap_or(0);
            }
            Ok(sum)
        };
        if week(0)? >= 5 && week(0)? >= 2 * week(7)? {
            alerts.push(format!("twice-the-week-before/{group}/{day}"));
        }
    }
    alerts.sort_unstable();
    Ok(alerts)
}

/// Has a schedule fire.
async fn fire(watchlist: &Watchlist, name: &str) -> anyhow::Result<()> {
    watchlist.schedules.trigger(&ScheduleId::new(name)?, None).await?;
    Ok(())
}

/// Waits until what has fired has ended, and no page waits to be fetched.
async fn quiet(watchlist: &Watchlist) -> anyhow::Result<()> {
    loop {
        let schedules = watchlist.schedules.list(None, 1_000).await?;
        if schedules.iter().all(|record| record.open.is_empty()) && watchlist.backlog().await?.0 == 0 {
            return Ok(());
        }
        sleep(Duration::from_millis(50)).await;
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
    let groups = groups(&posts);
    let site = Arc::new(Site::new(posts).delay(Duration::from_millis(20)));
    let receiver = Receiver::default();
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = format!("http://{}/", listener.local_addr()?);
    let router = Arc::clone(&site).router().merge(receiver.router());
    let serving = tokio::spawn(axum::serve(listener, router).into_future());

    let stores = Options {
        folder,
        postgres: options.postgres.clone(),
        listen: options.listen,
        token: None,
        lease: Duration::from_secs(30),
        look_back: 36_500,
        hourly: "5 * * * *".to_owned(),
        // Run when the demo says so: what is missing of a week makes the next one look grown.
        daily: "0 0 29 2 *".to_owned(),
    };
    let watchlist = Watchlist::start(stores, config(&address, &groups)?).await?;
    println!(
        "{} groups of recorded posts; the page is at http://{}/watchlist",
        groups.len(),
        watchlist.address
    );
    // Of some groups there will be new posts; the others' pages will be as they were.
    let growing = &groups[..groups.len() / 2];
    for group in growing {
        site.hide_last(group, 5);
    }
    for round in ["first", "second"] {
        for group in &groups {
            fire(&watchlist, &crawl_schedule(group)).await?;
        }
        fire(&watchlist, &crawl_schedule("private")).await?;
        quiet(&watchlist).await?;
        let counts = watchlist.store.counts().await?;
        println!("{round} crawl: {} posts in {} versions", counts.posts, counts.versions);
        if round == "first" {
            fire(&watchlist, "watchlist/hourly").await?;
            quiet(&watchlist).await?;
            for group in growing {
                site.hide_last(group, 0);
            }
            site.edit(3, "Edited: a security vulnerability, CVE-0000-0000.");
        }
    }
    fire(&watchlist, "watchlist/daily").await?;
    quiet(&watchlist).await?;

    let report = count(&watchlist, &site, &receiver, began).await?;
    println!(
        "{} versions in, {} out, {} lost, {} doubled; {} targets, {} alerts, {} pages not sent again, {} workers at most, in {:.1} s",
        report.versions_in,
        report.versions_out,
        report.lost,
        report.doubled,
        report.targets,
        report.alerts,
        report.not_modified,
        report.most_workers,
        report.seconds
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
    watchlist.stop().await;
    serving.abort();
    Ok(report.is_right())
}

async fn count(
    watchlist: &Watchlist,
    site: &Site,
    receiver: &Receiver,
    began: Instant,
) -> anyhow::Result<Report> {
    let posts = site.posts();
    let counts = watchlist.store.counts().await?;
    // One post of each group was edited once, after it had been crawled.
    let versions_in = (posts.len() + groups(&posts).len()) as u64;
    let mut report = Report {
        versions_in,
        versions_out: counts.versions,
        lost: versions_in.saturating_sub(counts.versions),
        doubled: counts.versions.saturating_sub(versions_in),
        most_workers: watchlist.most_workers() as u64,
        ..Report::default()
    };
    if counts.posts != posts.len() as u64 {
        report.wrong.push(format!("{} posts are stored, and the site has {}", counts.posts, posts.len()));
    }
    let expected = expected_targets(&posts);
    let targets = watchlist.store.targets("").await?;
    report.targets = targets.len() as u64;
    let found: Expected = targets
        .into_iter()
        .map(|target| ((target.keyword, target.group, target.day), target.count))
        .collect();
    for (key, count) in &expected {
        if found.get(key) != Some(count) {
            report.wrong.push(format!("{key:?} is {:?} and must be {count}", found.get(key)));
        }
    }
    report.wrong.extend(
        found
            .keys()
            .filter(|key| !expected.contains_key(*key))
            .map(|key| format!("{key:?} is not in the posts")),
    );
    let came = receiver.came();
    let alerts = expected_alerts(&expected)?;
    report.alerts = came.len() as u64;
    report.lost += alerts.iter().filter(|id| !came.contains_key(*id)).count() as u64;
    report.doubled += came.values().map(|times| times - 1).sum::<u64>();
    report.wrong.extend(
        came.keys().filter(|id| !alerts.contains(id)).map(|id| format!("nobody asked for the alert {id}")),
    );
    let (_, not_modified, disallowed) = site.requests();
    report.not_modified = not_modified;
    if disallowed > 0 {
        report.wrong.push(format!("{disallowed} requests of what robots.txt disallows"));
    }
    let (_, parked) = watchlist.backlog().await?;
    if parked != 2 {
        report.wrong.push(format!("{parked} pages are parked, and the two crawls of `private` must be"));
    }
    report.seconds = began.elapsed().as_secs_f64();
    Ok(report)
}
