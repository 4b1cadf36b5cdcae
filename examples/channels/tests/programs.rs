//! The program itself, with a real server beside it: killed at random, and its demo.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use channels::channel::{Account, Channel};
use channels::demo;
use channels::local::{Faults, Received};
use channels::status::StatusId;
use serde::Serialize;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::{Instant, sleep};

const PROGRAM: &str = env!("CARGO_BIN_EXE_channels");

/// On a machine that compiles meanwhile.
const PATIENCE: Duration = Duration::from_secs(240);

struct Program {
    child: Child,
    /// Where it said that it is.
    url: String,
    _output: Lines<BufReader<ChildStdout>>,
}

impl Program {
    async fn start(arguments: &[&str]) -> Self {
        let mut child = Command::new(PROGRAM)
            .args(arguments)
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("the program starts");
        let mut output = BufReader::new(child.stdout.take().expect("it has an output")).lines();
        let line = tokio::time::timeout(PATIENCE, output.next_line()).await.expect("it says where it is");
        let line = line.expect("its output is text").expect("it says where it is before it ends");
        let url = line.split_whitespace().find(|word| word.starts_with("http://")).expect("a URL").to_owned();
        Self { child, url, _output: output }
    }

    /// SIGKILL.
    async fn kill(mut self) {
        self.child.kill().await.expect("it is killed");
    }
}

/// The local server, asked for what is not of Mastodon's API.
struct Local {
    program: Program,
    http: reqwest::Client,
}

impl Local {
    async fn start() -> Self {
        galerna_tls::install_default_provider();
        let program = Program::start(&["local", "--listen", "127.0.0.1:0"]).await;
        Self { program, http: reqwest::Client::new() }
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.program.url)
    }

    async fn replay(&self, numbers: &[usize]) -> Vec<StatusId> {
        let request = self.http.post(self.url("/local/replay")).json(&json!({ "numbers": numbers }));
        request.send().await.unwrap().json().await.unwrap()
    }

    async fn break_down(&self, faults: Faults) {
        let request = self.http.post(self.url("/local/faults")).json(&faults);
        assert!(request.send().await.unwrap().status().is_success());
    }

    async fn received(&self) -> Vec<Received> {
        self.http.get(self.url("/local/received")).send().await.unwrap().json().await.unwrap()
    }
}

#[derive(Serialize)]
struct Config {
    accounts: Vec<Account>,
    channels: Vec<Channel>,
}

fn write_config(path: &Path, channels: usize, server: &str) {
    let config = Config {
        accounts: (0..channels).map(|number| demo::account(number, server)).collect(),
        channels: (0..channels).map(demo::channel).collect(),
    };
    std::fs::write(path, toml::to_string(&config).unwrap()).unwrap();
}

#[tokio::test]
async fn killed_twenty_times_at_random_nothing_is_lost_and_nothing_posted_twice() {
    const CHANNELS: usize = 12;
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let folder = tempfile::tempdir().unwrap();
    let local = Local::start().await;
    let config = folder.path().join("channels.toml");
    write_config(&config, CHANNELS, &local.program.url);
    let data = folder.path().join("data");
    let arguments = [
        "serve",
        "--folder",
        data.to_str().unwrap(),
        "--listen",
        "127.0.0.1:0",
        "--config",
        config.to_str().unwrap(),
        "--poll",
        "1",
        "--recheck",
        "2",
    ];
    let mut replayed = Vec::new();
    let mut number = 0;
    for round in 0..20 {
        let program = Program::start(&arguments).await;
        let lost = if round % 3 == 0 { 5 } else { 0 };
        local
            .break_down(Faults { lose_answers: lost, cut_streams: round % 4 == 1, ..Faults::default() })
            .await;
        for _ in 0..random.usize(1..5) {
            let numbers: Vec<usize> = (0..random.usize(1..4)).map(|at| number + at).collect();
            number += numbers.len();
            replayed.extend(numbers.iter().copied().zip(local.replay(&numbers).await));
            sleep(Duration::from_millis(random.u64(0..250))).await;
        }
        program.kill().await;
        // Also what comes while it is not there.
        replayed.push((number, local.replay(&[number]).await.remove(0)));
        number += 1;
    }
    let last = Program::start(&arguments).await;
    let expected = demo::expected(CHANNELS, &replayed).unwrap();
    let deadline = Instant::now() + PATIENCE;
    while local.received().await.len() < expected.len() && Instant::now() < deadline {
        sleep(Duration::from_millis(200)).await;
    }
    // What would come twice comes after the leases of those that were killed, and when streams are looked after.
    sleep(Duration::from_secs(15)).await;
    let received = local.received().await;
    let (lost, doubled, unexpected) = demo::compare(&expected, &demo::repeated(&received, &replayed));
    assert_eq!((lost, doubled, unexpected), (0, 0, 0), "of {} with seed {seed}", expected.len());
    assert_eq!(received.len(), expected.len());
    last.kill().await;
}

#[tokio::test]
async fn the_demo_ends_with_0_and_writes_its_report() {
    let folder = tempfile::tempdir().unwrap();
    let report = folder.path().join("r.json");
    let ended = Command::new(PROGRAM)
        .args([
            "demo",
            "--exit",
            "--channels",
            "18",
            "--statuses",
            "24",
            "--listen",
            "127.0.0.1:0",
            "--report",
        ])
        .arg(&report)
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(PATIENCE, ended).await.expect("it ends").unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}");
    let report: Value = serde_json::from_slice(&std::fs::read(report).unwrap()).unwrap();
    assert_eq!(
        (&report["in"], &report["lost"], &report["doubled"]),
        (&json!(18 * 24), &json!(0), &json!(0)),
        "{text}"
    );
    // 2 rounds of the 12 recorded ones; 3 channels of each filter: 12, 9, 2, 4, 7 and 1 of 12 pass; and the scheduled post.
    assert_eq!(report["out"], json!(2 * 3 * (12 + 9 + 2 + 4 + 7 + 1) + 1));
    assert!(report["cuts"].as_u64().unwrap() > 0 && report["seconds"].as_f64().unwrap() > 0.0);
}

#[tokio::test]
async fn the_api_changes_channels_while_they_run_and_says_what_is_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let local = Local::start().await;
    let data = folder.path().join("data");
    let arguments = ["serve", "--folder", data.to_str().unwrap(), "--listen", "127.0.0.1:0"];
    let program = Program::start(&arguments).await;
    let base = program.url.trim_end_matches("/channels").to_owned();
    let http = reqwest::Client::new();
    let call = async |method: &str, path: &str, body: Value| {
        let method = method.parse::<reqwest::Method>().unwrap();
        let answer = http.request(method, format!("{base}{path}")).json(&body).send().await.unwrap();
        let status = answer.status().as_u16();
        (status, answer.json::<Value>().await.unwrap_or(Value::Null))
    };
    let account = json!({ "server": local.program.url, "token": "token-7" });
    assert_eq!(call("PUT", "/api/accounts/main", account).await.0, 200);
    let (status, error) =
        call("PUT", "/api/accounts/main", json!({ "server": "mastodon", "token": "x" })).await;
    assert_eq!((status, &error["error"]["code"]), (422, &json!("bad_definition")), "{error}");
    let channel = json!({
        "account": "main", "source": { "stream": "home" }, "begin": "oldest",
        "repost": { "account": "main", "form": "copy", "hashtags": ["a"] },
    });
    for (path, body, expected) in [
        ("/api/channels/one", json!({ "account": "other", "source": { "stream": "home" } }), 404),
        ("/api/channels/one", json!({ "account": "main", "source": { "stream": "radio" } }), 422),
        ("/api/channels/one", json!({ "account": "main", "source": { "stream": "home" }, "colour": 1 }), 422),
        ("/api/channels/o%20ne", channel.clone(), 422),
        ("/api/channels/one", channel, 200),
    ] {
        let (status, answer) = call("PUT", path, body).await;
        assert_eq!(status, expected, "{path}: {answer}");
    }
    assert_eq!(call("POST", "/api/channels/two/start", json!({})).await.0, 404);
    assert_eq!(call("POST", "/api/channels/one/start", json!({})).await.0, 200);
    let deadline = Instant::now() + PATIENCE;
    while call("GET", "/api/channels?phase=streaming", json!({})).await.1["channels"] == json!([]) {
        assert!(Instant::now() < deadline, "it follows its stream");
        sleep(Duration::from_millis(50)).await;
    }
    local.replay(&[0, 4]).await;
    while local.received().await.len() < 2 {
        assert!(Instant::now() < deadline, "both are posted");
        sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(call("POST", "/api/channels/one/stop", json!({})).await.0, 200);
    let (_, list) = call("GET", "/api/channels", json!({})).await;
    assert_eq!(list["channels"][0]["progress"]["phase"], "off", "{list}");
    let (_, log) = call("GET", "/api/log?text=editor", json!({})).await;
    assert_eq!(log.as_array().unwrap().len(), 1, "{log}");
    let schedule = |account: &str, text: &str| {
        let definition =
            json!({ "timing": {"every": {"interval": "1h"}}, "payload": {"account": account, "text": text} });
        json!({ "id": "hourly", "definition": definition })
    };
    for (body, expected) in [
        (schedule("nobody", "hello"), 422),
        (schedule("main", " "), 422),
        (schedule("main", "hello"), 200),
        (schedule("main", "hello"), 409),
    ] {
        let (status, answer) = call("POST", "/api/schedules", body).await;
        assert_eq!(status, expected, "{answer}");
    }
    // Its pages, and those of its topology with the metrics of both.
    for (path, has) in [
        ("/channels", "one"),
        ("/channels/one/one", "Definition"),
        ("/channels/log?text=editor", "Advanced Text Editor"),
        ("/channels/posts", "Servers have refused nothing"),
        ("/schedules", "href=\"/channels/notices\""),
        ("/schedules/edit", "Add a schedule"),
        ("/topologies", "href=\"/channels/notices\""),
        ("/channels/accounts", "main"),
        ("/channels/notices", "Nothing to tell"),
        ("/topologies/channels", "record"),
        ("/metrics", "channels_statuses_total{outcome=\"passed\"} 2"),
        ("/api/v1/topologies", "channels"),
    ] {
        let answer = http.get(format!("{base}{path}")).send().await.unwrap();
        assert!(answer.status().is_success(), "{path}: {}", answer.status());
        let text = answer.text().await.unwrap();
        assert!(text.contains(has), "{path} has no `{has}`: {text}");
    }
    // A page of another site changes nothing.
    let foreign =
        http.post(format!("{base}/api/channels/one/start")).header("origin", "https://other.example");
    assert_eq!(foreign.send().await.unwrap().status().as_u16(), 403);
    program.kill().await;
}
