//! Real processes on one store, killed with `kill -9` and frozen at random: each occurrence has one end, and its work is done again only
//! where a process was lost.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use galerna_model::{SystemClock, Timestamp};
use galerna_schedules::mongo::MongoSchedules;
use galerna_schedules::sqlite::SqliteSchedules;
use galerna_schedules::{
    Definition, Missed, Outcome, Overlap, Policy, Retry, Runner, RunnerOptions, ScheduleId, ScheduleStore,
    SchedulerOptions, Schedules,
};
use galerna_test_servers::{Mongo, unique};
use tokio_util::sync::CancellationToken;

/// Tells a test that it is a process of another: the store and the file to which it writes what it does.
const STORE: &str = "SCHEDULES_TEST_STORE";
const WORK: &str = "SCHEDULES_TEST_WORK";
/// Far beyond what it takes on a busy machine.
const DEADLINE: Duration = Duration::from_secs(240);
const SECOND: i64 = 1_000;

async fn open(address: &str) -> Arc<dyn ScheduleStore> {
    match address.strip_prefix("mongodb:") {
        Some(_) => Arc::new(MongoSchedules::connect(address).await.expect("MongoDB answers")),
        None => Arc::new(SqliteSchedules::open(Path::new(address)).expect("the file opens")),
    }
}

/// What a process does until it is killed: a line for each firing that it runs.
async fn take_part(address: &str, work: &str) {
    let scheduler = SchedulerOptions {
        lease: Duration::from_secs(2),
        expiry_margin: Duration::from_millis(200),
        ..SchedulerOptions::default()
    };
    let options = RunnerOptions { scheduler, ..RunnerOptions::default() };
    let runner = Runner::new(open(address).await, Arc::new(SystemClock), options);
    let work = work.to_owned();
    runner
        .run(CancellationToken::new(), move |firing, _| {
            let work = work.clone();
            async move {
                let line = format!("{}\t{}\n", firing.id, firing.epoch);
                let mut file =
                    std::fs::OpenOptions::new().create(true).append(true).open(work).expect("it opens");
                file.write_all(line.as_bytes()).expect("it is written");
                tokio::time::sleep(Duration::from_millis(fastrand::u64(..100))).await;
                Ok(())
            }
        })
        .await;
}

/// A process of its own, killed with the test.
struct Process(Child);

impl Process {
    fn start(test: &str, address: &str, work: &Path) -> Self {
        let program = std::env::current_exe().expect("a test knows its own program");
        let child = Command::new(program)
            .args([test, "--exact", "--nocapture"])
            .env(STORE, address)
            .env(WORK, work)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        Self(child.expect("it starts"))
    }

    fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([name, &self.0.id().to_string()]).status();
        assert!(sent.expect("kill runs").success(), "{name}");
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

async fn each_occurrence_has_one_end(test: &str, address: &str) {
    if let Ok(work) = std::env::var(WORK) {
        return take_part(&std::env::var(STORE).expect("both are set"), &work).await;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let address = match address {
        "" => folder.path().join("schedules.db").to_str().expect("it is text").to_owned(),
        uri => uri.to_owned(),
    };
    let work = folder.path().join("work");
    let schedules = Schedules::new(open(&address).await, Arc::new(SystemClock));
    let id = ScheduleId::new("secondly").unwrap();
    let policy = Policy {
        overlap: Overlap::BufferAll,
        missed: Missed::RunAll,
        catchup_window: Duration::from_secs(600),
        retry: Retry {
            attempts: 1_000,
            first: Duration::from_millis(10),
            longest: Duration::from_millis(20),
        },
        ..Policy::default()
    };
    let every = Definition::every(Duration::from_secs(1)).policy(policy);
    let created = schedules.add(id.clone(), every).await.unwrap().created;
    let mut processes: Vec<Process> = (0..3).map(|_| Process::start(test, &address, &work)).collect();
    let mut lost = 0;
    for round in 0..20 {
        tokio::time::sleep(Duration::from_millis(fastrand::u64(300..900))).await;
        let one = fastrand::usize(..3);
        lost += 1;
        if round % 5 == 4 {
            // Frozen for longer than its lease; then it goes on as if nothing had been.
            processes[one].signal("-STOP");
            tokio::time::sleep(Duration::from_millis(3_000)).await;
            processes[one].signal("-CONT");
        } else {
            processes[one] = Process::start(test, &address, &work);
        }
    }
    // What is open ends; what is due meanwhile is recorded as skipped.
    let paused = schedules.pause(&id, "the test ends").await.unwrap().paused.unwrap().since;
    let begun = Instant::now();
    while !schedules.get(&id).await.unwrap().open.is_empty() {
        assert!(begun.elapsed() < DEADLINE, "what is open does not end");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let mut outcomes: BTreeMap<Timestamp, Outcome> = BTreeMap::new();
    for ended in schedules.history(&id, Some(paused.plus_millis(1)), 100_000).await.unwrap() {
        assert_eq!(outcomes.insert(ended.id.nominal, ended.outcome), None, "{} has two ends", ended.id);
    }
    let first = created.as_millis().div_euclid(SECOND) + 1;
    let last = paused.as_millis().div_euclid(SECOND);
    let expected: Vec<Timestamp> = (first..=last).map(|second| Timestamp(second * SECOND)).collect();
    assert_eq!(outcomes.keys().copied().collect::<Vec<_>>(), expected, "every second is there, and no other");
    assert!(outcomes.values().all(|outcome| *outcome == Outcome::Done), "{outcomes:?}");

    let mut done: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for line in std::fs::read_to_string(&work).expect("something was done").lines() {
        let (firing, epoch) = line.split_once('\t').expect("two fields");
        done.entry(firing.to_owned()).or_default().push(epoch.parse().expect("a number"));
    }
    assert_eq!(done.len(), expected.len(), "each was done");
    let again: usize = done.values().map(|epochs| epochs.len() - 1).sum();
    assert!(again <= lost, "{again} were done again, and only {lost} times a process was lost");
    for (firing, epochs) in &mut done {
        epochs.sort_unstable();
        let claims = epochs.len();
        epochs.dedup();
        assert_eq!(epochs.len(), claims, "{firing}: two did it by one claim");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_a_file_each_occurrence_has_one_end() {
    each_occurrence_has_one_end("on_a_file_each_occurrence_has_one_end", "").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_mongodb_each_occurrence_has_one_end() {
    if std::env::var_os(WORK).is_some() {
        return each_occurrence_has_one_end("", "").await;
    }
    let uri = Mongo::shared().await.uri();
    let (server, options) = uri
        .split_once('?')
        .map_or((uri.as_str(), String::new()), |(server, options)| (server, format!("?{options}")));
    let address = format!("{}/{}{options}", server.trim_end_matches('/'), unique("schedules"));
    each_occurrence_has_one_end("on_mongodb_each_occurrence_has_one_end", &address).await;
}
