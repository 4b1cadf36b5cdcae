//! Rounds in real processes: killed at random, too long, with accounts and stores that fail.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use galerna_model::{SystemClock, Timestamp};
use galerna_schedules::sqlite::SqliteSchedules;
use galerna_schedules::{Ended, ScheduleId, Schedules};
use galerna_test_servers::S3;
use pulse::demo::expected;
use pulse::{Objects, Recorded, Round, Row};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::net::TcpListener;
use tokio::process::{Child, Command};
use tokio::time::{sleep, timeout};

/// On a machine that compiles meanwhile.
const PATIENCE: Duration = Duration::from_secs(180);

fn command() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pulse"));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::inherit()).kill_on_drop(true);
    command.env("RUST_LOG", "error");
    command
}

/// A process that serves: rounds every second, those of a lost process taken over after one.
struct Serving<'a> {
    folder: &'a Path,
    network: &'a str,
    accounts: &'a str,
    more: &'a [&'a str],
    environment: &'a [(&'a str, &'a str)],
}

impl Serving<'_> {
    /// Starts it, and waits until its page is there.
    async fn start(&self) -> (Child, String) {
        let mut command = command();
        command.args(["serve", "--every", "1s", "--lease", "1s", "--listen", "127.0.0.1:0"]);
        command
            .args(["--server", self.network, "--accounts", self.accounts])
            .arg("--folder")
            .arg(self.folder);
        command.args(self.more).envs(self.environment.iter().copied());
        let mut child = command.spawn().expect("pulse can be run");
        let mut lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
        let line = timeout(PATIENCE, lines.next_line()).await.expect("it starts in time").expect("it prints");
        let line = line.expect("it starts, and says where its page is");
        let page = line.split_whitespace().last().expect("an address").to_owned();
        (child, page)
    }
}

async fn network(server: Recorded) -> (String, Arc<Recorded>) {
    let server = Arc::new(server);
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
    let address = format!("http://{}/", listener.local_addr().expect("it listens"));
    tokio::spawn(axum::serve(listener, Arc::clone(&server).router()).into_future());
    (address, server)
}

fn schedules(folder: &Path) -> (Schedules, ScheduleId) {
    let store = SqliteSchedules::open(&folder.join("schedules.sqlite")).expect("it is Galerna's");
    (Schedules::new(Arc::new(store), Arc::new(SystemClock)), ScheduleId::new("pulse/rounds").expect("a name"))
}

/// Lets no further round begin, waits for those that have begun, and gives what became of all.
async fn all_ended(schedules: &Schedules, id: &ScheduleId) -> Vec<Ended> {
    schedules.pause(id, "the test counts").await.expect("it can be paused");
    let quiet = async {
        while !schedules.get(id).await.expect("it is there").open.is_empty() {
            sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(PATIENCE, quiet).await.expect("what has begun ends");
    schedules.history(id, None, 100_000).await.expect("it is kept")
}

async fn rows(objects: &Objects, round: &Round) -> BTreeMap<(String, Timestamp), u64> {
    let csv = objects.read(&round.chart("csv")).await.expect("the store answers");
    let csv = csv.unwrap_or_else(|| panic!("{round} has no CSV"));
    let mut found = BTreeMap::new();
    for row in csv::Reader::from_reader(&csv[..]).deserialize::<Row>() {
        let row = row.expect("the CSV can be read");
        *found.entry((row.account, row.at)).or_default() += 1;
    }
    found
}

async fn terminate(mut child: Child) {
    let id = child.id().expect("it runs").to_string();
    let sent = Command::new("kill").args(["-TERM", &id]).status().await.expect("kill runs");
    assert!(sent.success());
    let status = timeout(PATIENCE, child.wait()).await.expect("it stops").expect("it can be waited for");
    assert!(status.success(), "{status}");
}

#[tokio::test]
async fn killed_twenty_times_at_random_each_round_has_one_chart_or_a_reason() {
    let posts = recorded_posts::posts().expect("the file is whole");
    // A round takes about as long as there is between two, so that most kills are in the middle of one.
    let (network, _) = network(Recorded::new(posts.clone()).delay(Duration::from_millis(150))).await;
    let folder = tempfile::tempdir().expect("a folder");
    let names = ["curl", "expat", "gone", "libxml2", "nginx", "nodejs", "openssh", "openssl", "tiff", "zlib"];
    let accounts = names.join(",");
    let serving = Serving {
        folder: folder.path(),
        network: &network,
        accounts: &accounts,
        more: &["--deadline", "10m"],
        environment: &[],
    };
    for _ in 0..20 {
        let (mut child, _) = serving.start().await;
        sleep(Duration::from_millis(fastrand::u64(500..5_000))).await;
        child.kill().await.expect("it is killed");
    }
    let (child, _) = serving.start().await;
    let (schedules, id) = schedules(folder.path());
    let ended = all_ended(&schedules, &id).await;
    terminate(child).await;

    let objects = folder.path().join("objects");
    let objects = Objects::open(objects.to_str().expect("text")).expect("it is a folder");
    let expected = expected(&posts, 100);
    let mut charts = objects.list("charts").await.expect("it can be listed");
    let (mut done, mut attempts) = (0, 0);
    let mut nominal: Vec<i64> = Vec::new();
    for ended in &ended {
        nominal.push(ended.id.nominal.as_millis());
        match ended.outcome.name() {
            "done" => {}
            "skipped" | "missed" => continue,
            _ => panic!("{}: {} ({:?})", ended.id, ended.outcome, ended.fault),
        }
        done += 1;
        attempts += ended.attempts;
        let round = Round::of(&ended.id);
        assert_eq!(rows(&objects, &round).await, expected, "{round}");
        let svg = objects.read(&round.chart("svg")).await.expect("the store answers").expect("it is there");
        assert!(String::from_utf8_lossy(&svg).contains("gone: no such account"), "{round}");
        for form in ["csv", "png", "svg"] {
            let path = round.chart(form).to_string();
            let before = charts.len();
            charts.retain(|chart| *chart != path);
            assert_eq!(charts.len() + 1, before, "{path} is there once");
        }
    }
    assert_eq!(charts, Vec::<String>::new(), "no chart is of a round that was not done");
    assert!(done > 0 && attempts > done, "some of {done} rounds were tried again: {attempts} attempts");
    nominal.sort_unstable();
    let gaps: Vec<_> = nominal.windows(2).filter(|pair| pair[1] - pair[0] != 1_000).collect();
    assert_eq!(gaps, Vec::<&[i64]>::new(), "each occurrence is recorded, once");
}

#[tokio::test]
async fn on_s3_no_object_is_written_twice_though_the_process_is_killed_in_mid_round() {
    let s3 = S3::start().await;
    let endpoint = s3.endpoint();
    let http = {
        galerna_tls::install_default_provider();
        reqwest::Client::new()
    };
    let bucket = format!("{endpoint}/charts");
    let versioning = r#"<VersioningConfiguration xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Status>Enabled</Status></VersioningConfiguration>"#;
    for (url, body) in [(bucket.clone(), ""), (format!("{bucket}?versioning="), versioning)] {
        let call = http.put(url).header("content-type", "application/xml").body(body);
        let answer = call.send().await.expect("it answers");
        assert!(answer.status().is_success(), "{}", answer.status());
    }
    let posts = recorded_posts::posts().expect("the file is whole");
    let (network, _) = network(Recorded::new(posts).delay(Duration::from_millis(100))).await;
    let folder = tempfile::tempdir().expect("a folder");
    let serving = Serving {
        folder: folder.path(),
        network: &network,
        accounts: "curl,expat,zlib",
        more: &["--objects", "s3://charts", "--deadline", "10m"],
        environment: &[
            ("AWS_ENDPOINT", &endpoint),
            ("AWS_REGION", "us-east-1"),
            ("AWS_ACCESS_KEY_ID", "test"),
            ("AWS_SECRET_ACCESS_KEY", "test"),
        ],
    };
    for _ in 0..3 {
        let (mut child, _) = serving.start().await;
        sleep(Duration::from_millis(fastrand::u64(500..2_500))).await;
        child.kill().await.expect("it is killed");
    }
    let (child, page) = serving.start().await;
    let (schedules, id) = schedules(folder.path());
    // At least one round after the last kill, so that there is something to count.
    let done = async {
        while !schedules.get(&id).await.expect("it is there").counts.contains_key("done") {
            sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(PATIENCE, done).await.expect("a round is done");
    let ended = all_ended(&schedules, &id).await;
    let versions = http.get(format!("{bucket}?versions&max-keys=1000")).send().await.expect("it answers");
    let versions = versions.text().await.expect("it is text");
    let mut keys: Vec<&str> =
        versions.split("<Key>").skip(1).filter_map(|rest| rest.split('<').next()).collect();
    let all = keys.len();
    keys.sort_unstable();
    keys.dedup();
    assert_eq!(keys.len(), all, "each object has one version");
    let done = ended.iter().filter(|ended| ended.outcome.name() == "done").count();
    let charts: Vec<&&str> = keys.iter().filter(|key| key.starts_with("charts/")).collect();
    assert_eq!(charts.len(), 3 * done, "{charts:?}");
    // The page shows what is in the bucket.
    let last = ended.iter().find(|ended| ended.outcome.name() == "done").expect("one is done");
    let shown =
        http.get(format!("{page}/charts/{}.svg", Round::of(&last.id))).send().await.expect("it answers");
    assert!(shown.status().is_success(), "{}", shown.status());
    terminate(child).await;
}

#[tokio::test]
async fn a_round_that_takes_longer_than_the_interval_meets_the_overlap_policy_and_names_who_was_silent() {
    let posts = recorded_posts::posts().expect("the file is whole");
    let (network, _) = network(Recorded::new(posts).silent("silent")).await;
    let folder = tempfile::tempdir().expect("a folder");
    let serving = Serving {
        folder: folder.path(),
        network: &network,
        accounts: "zlib,silent",
        more: &["--deadline", "3s", "--overlap", "skip"],
        environment: &[],
    };
    let (child, page) = serving.start().await;
    let (schedules, id) = schedules(folder.path());
    let done = async {
        loop {
            let counts = schedules.get(&id).await.expect("it is there").counts;
            if counts.contains_key("done") && counts.contains_key("skipped.overlap") {
                return;
            }
            sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(PATIENCE, done).await.expect("a round is done, and others were skipped meanwhile");
    let ended = all_ended(&schedules, &id).await;
    let last = ended.iter().find(|ended| ended.outcome.name() == "done").expect("one is done");
    galerna_tls::install_default_provider();
    let svg = reqwest::get(format!("{page}/charts/{}.svg", Round::of(&last.id))).await.expect("it answers");
    let svg = svg.text().await.expect("it is text");
    assert!(svg.contains("silent: no answer by the deadline"), "{svg}");
    let text = reqwest::get(page).await.expect("it answers").text().await.expect("it is text");
    assert!(text.contains("skipped.overlap"), "{text}");
    terminate(child).await;
}

#[tokio::test]
async fn the_demo_counts_what_came_out_and_ends_with_success() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("r.json");
    let mut command = command();
    command.args(["demo", "--exit", "--rounds", "2", "--every", "2s", "--deadline", "30s"]);
    // What never answers takes until the deadline: so long is enough for the others on any machine.
    command.args(["--listen", "127.0.0.1:0", "--report"]).arg(&file);
    let output = timeout(PATIENCE, command.output()).await.expect("it ends").expect("it runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    let report: serde_json::Value =
        serde_json::from_slice(&std::fs::read(file).expect("it is written")).expect("JSON");
    // Nine accounts with 100 posts each, in two rounds.
    assert_eq!((&report["in"], &report["out"]), (&1_800.into(), &1_800.into()), "{report}");
    assert_eq!((&report["lost"], &report["doubled"]), (&0.into(), &0.into()), "{report}");
    assert!(report["seconds"].is_number(), "{report}");
}
