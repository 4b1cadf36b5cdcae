//! Two topologies that run here or on a Storm cluster (`deploy/storm/README.md`), with the same results.
//!
//! `words` counts words. What it writes is each word with where it stood, so that what comes twice after a failure is known by that.
//! `quarters` counts readings by device and quarter of an hour, in event time.
//!
//! `RESULTS=/tmp/results cargo run --example on_storm -- run words` runs one here, `on_storm topology flux --topology words` writes
//! what Storm runs, and Storm starts its components with `on_storm multilang bolt split --topology words`. Results are files in the folder
//! that the variable `RESULTS` names; `PAUSE_MS` is how long the spouts wait between two roots.

use std::collections::{HashMap, VecDeque};
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use galerna::prelude::*;
use galerna_multilang::SerializedStream;
use serde::{Deserialize, Serialize};

/// How many sentences there are.
const SENTENCES: u64 = 2_000;
const WORDS: [&str; 12] =
    ["the", "cow", "jumped", "over", "moon", "man", "went", "to", "store", "and", "bought", "candy"];
/// How many readings each device sends, a minute apart.
const READINGS: u64 = 600;
const DEVICES: [&str; 4] = ["attic", "cellar", "kitchen", "porch"];
const MINUTE: Duration = Duration::from_secs(60);

/// A sentence by its number.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Sentence {
    number: u64,
    text: String,
}

/// A word, and where it stood.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Word {
    word: String,
    sentence: u64,
    position: u64,
}

/// How often a word has come.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Counted {
    word: String,
    count: u64,
}

/// What a device measured.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Reading {
    device: String,
    /// Minutes since the beginning.
    minute: u64,
}

/// Emits what a function makes of the numbers below a limit, and again what fails.
struct Numbered<T> {
    make: fn(u64) -> T,
    next: u64,
    limit: u64,
    again: VecDeque<u64>,
    pause: Duration,
    /// Whether there is an end, by which windows that are open become complete: on Storm spouts have none.
    ends: bool,
}

impl<T> Numbered<T> {
    fn new(limit: u64, make: fn(u64) -> T) -> Self {
        let pause = std::env::var("PAUSE_MS").ok().and_then(|pause| pause.parse().ok()).unwrap_or_default();
        let ends = std::env::args().nth(1).is_some_and(|command| command == "run");
        let pause = Duration::from_millis(pause);
        Self { make, next: 0, limit, again: VecDeque::new(), pause, ends }
    }
}

impl<T: Clone + Send + 'static> Spout for Numbered<T> {
    type MessageId = u64;
    type Outputs = Output<T>;

    async fn next(&mut self, out: &mut Roots<'_, Self>) -> Result<Next, Fault> {
        let number = match self.again.pop_front() {
            Some(number) => number,
            None if self.next < self.limit => {
                self.next += 1;
                self.next - 1
            }
            None if self.ends => return Ok(Next::Done),
            None => return Ok(Next::After(Duration::from_millis(10))),
        };
        out.root(number).emit((self.make)(number));
        Ok(if self.pause.is_zero() { Next::Ready } else { Next::After(self.pause) })
    }

    async fn failed(&mut self, failed: &mut Vec<Failed<u64>>) {
        self.again.extend(failed.drain(..).map(|failed| failed.id));
    }
}

/// Counts words in memory.
#[derive(Default)]
struct Count {
    counts: HashMap<String, u64>,
}

impl Bolt for Count {
    type Input = Word;
    type Outputs = Output<Counted>;

    fn execute(&mut self, word: Word, out: &mut Emitter<Output<Counted>>) -> Result<(), Fault> {
        let count = self.counts.entry(word.word.clone()).or_default();
        *count += 1;
        out.emit(Counted { word: word.word, count: *count });
        Ok(())
    }
}

/// Appends lines to a file of the results. Each line is one write, so that several processes may do so.
fn append(name: &'static str, line: &str) -> Result<(), Fault> {
    let folder = std::env::var_os("RESULTS").map_or_else(|| PathBuf::from("results"), PathBuf::from);
    let written = std::fs::create_dir_all(&folder).and_then(|()| {
        let mut file = std::fs::OpenOptions::new().create(true).append(true).open(folder.join(name))?;
        file.write_all(format!("{line}\n").as_bytes())
    });
    written.map_err(|error| {
        Fault::unavailable(format!("{name} in {} cannot be written: {error}", folder.display()))
    })
}

fn words() -> Result<Topology, BuildError> {
    let mut topology = TopologyBuilder::new("words");
    let sentence = |number: u64| {
        // The same in each run: a linear congruence picks the words.
        let mut state =
            number.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let words: Vec<&str> = (0..3 + number % 5)
            .map(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                WORDS[(state >> 33) as usize % WORDS.len()]
            })
            .collect();
        Sentence { number, text: words.join(" ") }
    };
    let sentences =
        topology.spout("sentences", move || Numbered::new(SENTENCES, sentence)).max_pending(500).outputs();
    let split = |sentence: Sentence| {
        let words = sentence.text.split(' ').enumerate();
        words
            .map(|(at, word)| Word { word: word.to_owned(), sentence: sentence.number, position: at as u64 })
            .collect::<Vec<_>>()
    };
    let words = topology
        .flat_map("split", split)
        .shuffle(sentences.serialized())
        .parallelism(2)
        .outputs()
        .serialized();
    let counts = topology
        .bolt("count", Count::default)
        .fields(words.clone().keyed_by(["word"]), |word| &word.word)
        .parallelism(2)
        .outputs();
    topology
        .for_each("latest", |counted: Counted| {
            append("counts", &format!("{} {}", counted.word, counted.count))
        })
        .global(counts.serialized());
    topology
        .for_each("record", |word: Word| {
            append("words", &format!("{} {} {}", word.word, word.sentence, word.position))
        })
        .shuffle(words);
    topology.build()
}

fn quarters() -> Result<Topology, BuildError> {
    let mut topology = TopologyBuilder::new("quarters");
    // Windows hold the roots of their tuples until they have fired.
    topology.message_timeout(60 * MINUTE);
    let reading = |number: u64| {
        let devices = DEVICES.len() as u64;
        let device = DEVICES[(number % devices) as usize].to_owned();
        // Out of order by up to four minutes, some left out; the last of each device is much later, so that all before it is complete.
        let at = number / devices;
        let minute = if at + 1 == READINGS { at + 100 } else { at ^ 3 };
        Reading { device, minute: minute - minute % 7 / 6 }
    };
    let all = READINGS * DEVICES.len() as u64;
    let readings =
        topology.spout("readings", move || Numbered::new(all, reading)).max_pending(10_000).outputs();
    let readings = readings.serialized().keyed_by(["device"]);
    let quarter = Window::tumbling(15 * MINUTE)
        .event_time(|reading: &Reading| reading.minute as i64 * 60_000)
        .lag(30 * MINUTE)
        .by(|reading: &Reading| reading.device.clone())
        .aggregate(galerna::windows::Count);
    let results = topology.window("quarters", quarter, readings).outputs();
    topology
        .for_each("results", |result: WindowResult<String, u64>| {
            let WindowBounds::Time { start, .. } = result.bounds else { return Ok(()) };
            let minute = start.millis() / 60_000;
            // What the last readings are in is complete at the end of a run here, and never on Storm.
            if minute >= READINGS as i64 {
                return Ok(());
            }
            append("quarters", &format!("{} {minute} {}", result.key, result.value))
        })
        .shuffle(results.results);
    topology.build()
}

fn topologies() -> Result<Vec<Topology>, BuildError> {
    Ok(vec![words()?, quarters()?])
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [run, name] = &arguments[..] else { return galerna_multilang::main(topologies()) };
    if run != "run" {
        return galerna_multilang::main(topologies());
    }
    match run_here(name) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

#[tokio::main]
async fn run_here(name: &str) -> anyhow::Result<()> {
    let topology = topologies()?.into_iter().find(|topology| &**topology.name() == name);
    let topology = topology.ok_or_else(|| anyhow::anyhow!("there is no topology `{name}`"))?;
    let running = Engine::submit(topology, EngineOptions::default()).await?;
    running.finished().await;
    running.drain(Duration::from_secs(5)).await;
    Ok(())
}
