//! Spouts that need no server: files, iterators, intervals.

use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use galerna_engine::{Engine, EngineOptions, ManualClock};
use galerna_spouts::{BadRow, FileSpout, FileTally, Firing, IntervalSpout, IteratorSpout};
use galerna_topology::{Bolt, Data, Emitter, Fault, Output, Spout, TopologyBuilder};

/// Collects what it gets; fails each value the first `fails` times.
struct Collect<T> {
    seen: Arc<Mutex<Vec<T>>>,
    fails: usize,
}

impl<T: Data + PartialEq> Bolt for Collect<T> {
    type Input = T;
    type Outputs = ();

    fn execute(&mut self, value: T, _: &mut Emitter<()>) -> Result<(), Fault> {
        let mut seen = self.seen.lock().unwrap();
        let before = seen.iter().filter(|s| **s == value).count();
        seen.push(value);
        if before < self.fails { Err(Fault::transient("not yet")) } else { Ok(()) }
    }
}

/// Runs a spout to its end; gives what was seen, and how many roots were acked and failed.
async fn run<S, T>(spout: impl Fn() -> S + Send + Sync + 'static, fails: usize) -> (Vec<T>, u64, u64)
where
    S: Spout<Outputs = Output<T>>,
    T: Data + PartialEq + Sync,
{
    let seen: Arc<Mutex<Vec<T>>> = Arc::default();
    let mut topology = TopologyBuilder::new("local");
    let stream = topology.spout("spout", spout).outputs();
    let into = seen.clone();
    topology.bolt("collect", move || Collect { seen: into.clone(), fails }).shuffle(&stream);
    let running = Engine::submit(topology.build().unwrap(), EngineOptions::default()).await.unwrap();
    tokio::time::timeout(Duration::from_secs(60), running.finished()).await.expect("the spout is done");
    let report = running.drain(Duration::from_secs(10)).await;
    let spout = report.metrics.component("spout").unwrap();
    let (acked, failed) = (spout.acked, spout.failures());
    let seen = std::mem::take(&mut *seen.lock().unwrap());
    (seen, acked, failed)
}

#[tokio::test]
async fn an_iterators_items_are_emitted_once_each() {
    let (seen, acked, failed) = run(|| IteratorSpout::new(0..10_000_u64), 0).await;
    assert_eq!(seen, (0..10_000).collect::<Vec<_>>());
    assert_eq!((acked, failed), (10_000, 0));
}

#[tokio::test]
async fn what_failed_is_emitted_again_and_given_up_after_its_attempts() {
    let (seen, acked, failed) = run(|| IteratorSpout::new(0..10_u64), 2).await;
    assert_eq!((seen.len(), acked, failed), (30, 10, 20));
    let (seen, acked, failed) = run(|| IteratorSpout::new(0..10_u64).with_attempts(3), 9).await;
    assert_eq!((seen.len(), acked, failed), (30, 0, 30));
}

#[derive(Debug, Clone, PartialEq, serde::Deserialize)]
struct Meter {
    meter: String,
    value: Option<f64>,
}

#[tokio::test]
async fn a_files_rows_are_emitted_failed_ones_again_and_bad_ones_told() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("meters.csv.gz");
    let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gz.write_all(b"meter,value\n").unwrap();
    for n in 0..3_000 {
        writeln!(gz, "m{n},{}", if n == 1_500 { "much".to_owned() } else { n.to_string() }).unwrap();
    }
    std::fs::write(&path, gz.finish().unwrap()).unwrap();

    let (bad, tally) = (Arc::new(Mutex::new(Vec::<BadRow>::new())), Arc::new(FileTally::default()));
    let (told, counted) = (bad.clone(), tally.clone());
    let spout = move || {
        let told = told.clone();
        FileSpout::<Meter>::new(&path)
            .with_bad_rows(move |bad| told.lock().unwrap().push(bad.clone()))
            .with_tally(counted.clone())
    };
    let (seen, acked, failed) = run(spout, 1).await;
    assert_eq!((seen.len(), acked, failed), (2 * 2_999, 2_999, 2_999));
    assert_eq!((tally.bad(), tally.given_up()), (1, 0));
    let bad = bad.lock().unwrap();
    assert_eq!((bad[0].line, bad[0].column), (1_502, Some(2)));
}

#[tokio::test]
async fn a_file_that_is_not_there_keeps_the_topology_from_starting_and_says_so() {
    for (path, says) in
        [("/nowhere/x.csv", "cannot be opened"), ("x.xlsx", "the form of `x.xlsx` is not known")]
    {
        let mut topology = TopologyBuilder::new("missing");
        let rows = topology.spout("rows", move || FileSpout::<Meter>::new(path)).outputs();
        topology.for_each("drop", |_: Meter| ()).shuffle(&rows);
        let error = Engine::submit(topology.build().unwrap(), EngineOptions::default()).await.err().unwrap();
        assert!(error.to_string().contains(says), "{error}");
    }
}

#[tokio::test]
async fn an_interval_fires_by_the_topologys_clock_and_skips_what_it_missed() {
    let seen: Arc<Mutex<Vec<Firing>>> = Arc::default();
    let clock = ManualClock::new();
    let mut topology = TopologyBuilder::new("clock");
    let firings = topology.spout("minutes", || IntervalSpout::every(Duration::from_secs(60))).outputs();
    let into = seen.clone();
    topology.bolt("collect", move || Collect { seen: into.clone(), fails: 0 }).shuffle(&firings);
    let options = EngineOptions { clock: Some(Arc::new(clock.clone())), ..EngineOptions::default() };
    let running = Engine::submit(topology.build().unwrap(), options).await.unwrap();
    let numbers =
        |seen: &Arc<Mutex<Vec<Firing>>>| seen.lock().unwrap().iter().map(|f| f.number).collect::<Vec<_>>();
    for (seconds, expected) in [(59, vec![]), (1, vec![1]), (60, vec![1, 2]), (185, vec![1, 2, 5])] {
        clock.advance(Duration::from_secs(seconds));
        let waiting = async {
            while numbers(&seen).len() < expected.len() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), waiting).await.expect("it fires");
        assert_eq!(numbers(&seen), expected);
    }
    assert_eq!(seen.lock().unwrap()[2].due, Duration::from_secs(300));
    running.stop().await;
}
