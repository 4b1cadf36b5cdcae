//! Crawls in real processes: killed at random, of a site that answers slowly.

use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use galerna_model::SystemClock;
use galerna_schedules::sqlite::SqliteSchedules;
use galerna_schedules::{ScheduleId, Schedules};
use galerna_test_servers::Postgres;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::net::TcpListener;
use tokio::process::{Child, Command};
use tokio::time::{sleep, timeout};
use watchlist::demo::{Expected, Receiver, expected_alerts, expected_targets, groups};
use watchlist::{PostgresStore, Site, SqliteStore, Store};

/// On a machine that compiles meanwhile.
const PATIENCE: Duration = Duration::from_secs(240);

fn command() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_watchlist"));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::inherit()).kill_on_drop(true);
    command.env("RUST_LOG", "error");
    command
}

/// Starts a process that counts every second, and waits until its page is there.
async fn serve(folder: &Path, config: &Path, more: &[&str]) -> Child {
    let mut command = command();
    command.arg("serve").arg("--config").arg(config).arg("--folder").arg(folder).args(more);
    command.args(["--listen", "127.0.0.1:0", "--lease", "1s", "--look-back", "36500"]);
    command.args(["--hourly", "* * * * * *", "--daily", "*/3 * * * * *"]);
    let mut child = command.spawn().expect("watchlist can be run");
    let mut lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
    let line = timeout(PATIENCE, lines.next_line()).await.expect("it starts in time").expect("it prints");
    assert!(line.is_some_and(|line| line.starts_with("the page is at ")));
    child
}

/// What is counted.
async fn targets(store: &dyn Store) -> Expected {
    let targets = store.targets("").await.expect("it answers");
    targets.into_iter().map(|target| ((target.keyword, target.group, target.day), target.count)).collect()
}

#[tokio::test]
async fn killed_twenty_times_at_random_no_post_is_lost_or_doubled_and_no_alert_comes_twice() {
    killed(20, None).await;
}

#[tokio::test]
async fn on_postgresql_neither_when_the_database_is_killed_too() {
    killed(6, Some(&Postgres::start().await)).await;
}

async fn killed(rounds: u32, postgres: Option<&Postgres>) {
    let url = match postgres {
        Some(server) => Some(server.database().await),
        None => None,
    };
    let more = url.as_deref().map_or_else(Vec::new, |url| vec!["--postgres", url]);
    let posts = recorded_posts::posts().expect("the file is whole");
    let groups = groups(&posts);
    let site = Arc::new(Site::new(posts).delay(Duration::from_millis(50)));
    let receiver = Receiver::default();
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
    let address = format!("http://{}/", listener.local_addr().expect("it listens"));
    let router = Arc::clone(&site).router().merge(receiver.router());
    tokio::spawn(axum::serve(listener, router).into_future());
    let folder = tempfile::tempdir().expect("a folder");
    let config = folder.path().join("watchlist.toml");
    let mut text = format!("webhook = \"{address}alerts\"\nper_minute = 60000\n");
    for group in &groups {
        text += &format!(
            "[[sources]]\nname = \"{group}\"\nkind = \"html\"\ngroup = \"{group}\"\nurl = \"{address}groups/{group}\"\nevery = \"10s\"\n"
        );
    }
    // Growth is judged of weeks that are all there: what is missing of one makes the next look grown.
    text += include_str!("../src/demo.toml").split("[[alerts]]\nname = \"twice").next().expect("a part");
    std::fs::write(&config, text).expect("it can be written");

    for round in 0..rounds {
        let mut child = serve(folder.path(), &config, &more).await;
        sleep(Duration::from_millis(fastrand::u64(500..4_000))).await;
        if let Some(server) = postgres.filter(|_| round % 2 == 1) {
            server.kill().await;
            sleep(Duration::from_millis(fastrand::u64(100..1_000))).await;
            server.restart().await;
            sleep(Duration::from_millis(fastrand::u64(100..1_000))).await;
        }
        child.kill().await.expect("it is killed");
        if round == rounds / 2 {
            site.edit(3, "Edited: a security vulnerability, CVE-0000-0000.");
        }
    }
    let mut child = serve(folder.path(), &config, &more).await;
    let posts = site.posts();
    let expected = expected_targets(&posts);
    let mut alerts = expected_alerts(&expected).expect("days are days");
    alerts.retain(|id| id.starts_with("many-in-a-day/"));
    let store: Box<dyn Store> = match &url {
        Some(url) => Box::new(PostgresStore::open(url).await.expect("it is watchlist's")),
        None => Box::new(SqliteStore::open(&folder.path().join("posts.sqlite")).expect("it is Galerna's")),
    };
    let all_there = async {
        loop {
            let counts = store.counts().await.expect("it answers");
            if counts.posts == posts.len() as u64
                && counts.unmapped == 0
                && counts.undelivered == 0
                && alerts.iter().all(|id| receiver.came().contains_key(id))
                && targets(&*store).await == expected
            {
                return;
            }
            sleep(Duration::from_millis(100)).await;
        }
    };
    timeout(PATIENCE, all_there).await.expect("all posts are stored, counted and told of");

    let counts = store.counts().await.expect("it answers");
    let edited = counts.versions - counts.posts;
    // A post that was crawled for the first time after its edit has one version.
    assert!(edited <= groups.len() as u64, "{edited} edits are stored, and {} were made", groups.len());
    let came = receiver.came();
    assert_eq!(came.keys().cloned().collect::<Vec<_>>(), alerts);
    // A process that dies between telling and noting that it has told tells again, with the same key: by that it is one alert.
    assert_eq!(counts.alerts, alerts.len() as u64);
    let store = Arc::new(SqliteSchedules::open(&folder.path().join("schedules.sqlite")).expect("Galerna's"));
    let schedules = Schedules::new(store, Arc::new(SystemClock));
    for group in &groups {
        let id = ScheduleId::new(format!("watchlist/crawl/{group}")).expect("a name");
        let counts = schedules.get(&id).await.expect("it is there").counts;
        let failed: Vec<_> = counts.keys().filter(|outcome| outcome.starts_with("failed")).collect();
        assert_eq!(failed, Vec::<&String>::new(), "{group}");
    }
    child.kill().await.expect("it is killed");
}

#[tokio::test]
async fn on_postgresql_the_demo_counts_the_same() {
    let url = Postgres::shared().await.database().await;
    demo(&["--postgres", &url]).await;
}

#[tokio::test]
async fn the_demo_counts_what_came_out_and_ends_with_success() {
    demo(&[]).await;
}

async fn demo(more: &[&str]) {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("r.json");
    let mut command = command();
    command.args(["demo", "--exit", "--listen", "127.0.0.1:0", "--report"]).arg(&file).args(more);
    let output = timeout(PATIENCE, command.output()).await.expect("it ends").expect("it runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    let report: serde_json::Value =
        serde_json::from_slice(&std::fs::read(file).expect("it is written")).expect("JSON");
    assert_eq!((&report["in"], &report["out"]), (&2_091.into(), &2_091.into()), "{report}");
    assert_eq!((&report["lost"], &report["doubled"]), (&0.into(), &0.into()), "{report}");
    assert!(report["alerts"].as_u64() > Some(0) && report["seconds"].is_number(), "{report}");
    assert!(
        report["not_modified"].as_u64() > Some(0),
        "a page that has not changed is not sent again: {report}"
    );
}
