//! Running the `galerna` command from tests: each run in a folder of its own, with no settings of whoever runs the tests.

#![allow(dead_code, reason = "each test file uses its part of it")]

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use galerna_lock::Mutex;
use serde_json::Value;

/// The longest that any condition is waited for: far beyond what it takes on a busy machine.
pub(crate) const DEADLINE: Duration = Duration::from_secs(120);

/// The command, to be run in this folder.
pub(crate) fn command(folder: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_galerna"));
    command.current_dir(folder).args(args).stdin(Stdio::null());
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy();
        if name.starts_with("GALERNA_") || name == "RUST_LOG" {
            command.env_remove(&*name);
        }
    }
    command
}

/// Runs the command to its end.
pub(crate) fn run(folder: &Path, args: &[&str]) -> Output {
    end_of(&mut command(folder, args), DEADLINE)
}

/// Runs a command to its end, and what it said; one that does not come to it is killed and fails the test.
pub(crate) fn end_of(command: &mut Command, limit: Duration) -> Output {
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    output_of(child, &format!("{command:?}"), limit)
}

/// The same of a command that runs already.
pub(crate) fn output_of(child: Child, name: &str, limit: Duration) -> Output {
    let id = child.id();
    let (sender, output) = std::sync::mpsc::sync_channel(1);
    std::thread::spawn(move || sender.send(child.wait_with_output()));
    if let Ok(output) = output.recv_timeout(limit) {
        return output.unwrap();
    }
    drop(Command::new("kill").args(["-KILL", &id.to_string()]).status());
    let said = output.recv_timeout(limit).ok().and_then(Result::ok).map(|output| errors(&output));
    panic!("{name} did not end within {limit:?}: {}", said.unwrap_or_default());
}

/// Runs the command, which must do, and returns its standard output.
pub(crate) fn run_well(folder: &Path, args: &[&str]) -> String {
    let output = run(folder, args);
    assert!(output.status.success(), "{args:?}: {}", errors(&output));
    String::from_utf8(output.stdout).unwrap()
}

/// What it said on standard error.
pub(crate) fn errors(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A service that runs until it is stopped; killed with the test.
pub(crate) struct Service {
    child: Child,
    lines: Arc<Mutex<Vec<String>>>,
    ended: Arc<AtomicBool>,
    pub(crate) name: String,
}

impl Service {
    /// Starts it, with its log as JSON. It listens on free ports and ends without notice, unless `args` say otherwise.
    pub(crate) fn start(folder: &Path, args: &[&str]) -> Self {
        let mut all = vec!["--log-format", "json"];
        all.extend_from_slice(args);
        let ports =
            ["FRONTEND", "PAGE", "WORKER", "NOTIFIER"].map(|module| format!("GALERNA_{module}_LISTEN"));
        let mut child = command(folder, &all)
            .envs(ports.iter().map(|variable| (variable.as_str(), "127.0.0.1:0")))
            .env("GALERNA_FRONTEND_NOTICE", "0ms")
            .stderr(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let lines = Arc::new(Mutex::new(Vec::new()));
        let ended = Arc::new(AtomicBool::new(false));
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let (kept, end) = (lines.clone(), ended.clone());
        std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                kept.lock().push(line);
            }
            end.store(true, Ordering::SeqCst);
        });
        Self { child, lines, ended, name: args.join(" ") }
    }

    /// The log so far.
    pub(crate) fn log(&self) -> String {
        self.lines.lock().join("\n")
    }

    /// Waits for a log entry with this message and returns it.
    pub(crate) async fn said(&self, message: &str) -> Value {
        let found = || {
            let lines = self.lines.lock();
            let entries = lines.iter().filter_map(|line| serde_json::from_str::<Value>(line).ok());
            entries
                .into_iter()
                .find(|entry| entry["fields"]["message"].as_str().is_some_and(|said| said.contains(message)))
        };
        let begun = Instant::now();
        loop {
            if let Some(entry) = found() {
                return entry;
            }
            assert!(!self.ended.load(Ordering::SeqCst), "`{}` ended: {}", self.name, self.log());
            assert!(begun.elapsed() < DEADLINE, "`{}` did not say `{message}`: {}", self.name, self.log());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// The address of its API, once it listens.
    pub(crate) async fn api(&self) -> String {
        let entry = self.said("the dispatcher API listens").await;
        format!("http://{}", entry["fields"]["address"].as_str().unwrap())
    }

    /// Sends a signal by its name, for instance `STOP`.
    pub(crate) fn signal(&self, name: &str) {
        let status = Command::new("kill").args([&format!("-{name}"), &self.child.id().to_string()]).status();
        assert!(status.unwrap().success(), "kill -{name} of `{}`", self.name);
    }

    /// `kill -9`, and waits until it is gone.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// SIGTERM; waits until it has drained and returns how it ended.
    pub(crate) async fn stop(&mut self) -> ExitStatus {
        self.signal("TERM");
        self.end().await
    }

    /// Waits until it ends.
    pub(crate) async fn end(&mut self) -> ExitStatus {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(begun.elapsed() < DEADLINE, "`{}` did not end: {}", self.name, self.log());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
        if std::thread::panicking() {
            let lines = self.lines.lock();
            let last = lines.len().saturating_sub(60);
            eprintln!("--- `{}` said at last:\n{}", self.name, lines[last..].join("\n"));
        }
    }
}

/// Waits until a condition holds.
pub(crate) async fn until<F: Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> F) {
    let begun = Instant::now();
    while !holds().await {
        assert!(begun.elapsed() < DEADLINE, "{what}: not within {DEADLINE:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Calls an API: status and JSON body.
pub(crate) async fn call(method: &str, url: &str, body: Option<&str>) -> (u16, Value) {
    galerna_tls::install_default_provider();
    let client = reqwest::Client::builder().timeout(Duration::from_secs(30)).build().unwrap();
    let mut request = client.request(method.parse().unwrap(), url);
    if let Some(body) = body {
        request = request.header("content-type", "application/json").body(body.to_owned());
    }
    let answer = request.send().await.unwrap();
    let status = answer.status().as_u16();
    let text = answer.text().await.unwrap();
    (status, serde_json::from_str(&text).unwrap_or(Value::Null))
}

/// The address of a database of this server.
pub(crate) fn database(server: &str, name: &str) -> String {
    let (server, options) =
        server.split_once('?').map_or((server, String::new()), |(s, o)| (s, format!("?{o}")));
    format!("{}/{name}{options}", server.trim_end_matches('/'))
}
