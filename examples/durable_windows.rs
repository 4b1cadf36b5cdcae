//! Counts readings by device and hour, in windows whose state is durable. The process is killed three times in the middle and started
//! again: each reading counts once.
//!
//! `cargo run --example durable_windows` does the killing itself. With a folder, `cargo run --example durable_windows -- FOLDER`
//! counts until it is done or you kill it; run again with the same folder, it goes on.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::Duration;

use anyhow::Context;
use galerna::prelude::*;
use galerna::state::FolderCheckpoints;

const DEVICES: [&str; 3] = ["attic", "cellar", "garage"];
/// One a minute of each device, for four hours.
const READINGS: u64 = 4 * 60 * DEVICES.len() as u64;
const MINUTE: Duration = Duration::from_secs(60);
const HOUR_MS: i64 = 60 * 60 * 1_000;

/// A device, and when it was read.
type Reading = (&'static str, i64);

/// A log of readings that remembers in a file up to which of them all are acked, as a broker would. It delivers what comes after.
struct Log {
    offset_file: PathBuf,
    offset: u64,
    /// Acked beyond the offset.
    acked: BTreeSet<u64>,
    next: u64,
}

/// Up to which reading all are acked.
fn offset(file: &Path) -> Result<u64, Fault> {
    match std::fs::read_to_string(file) {
        Ok(text) => text.parse().map_err(|error| Fault::permanent(format!("{}: {error}", file.display()))),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(0),
        Err(error) => Err(Fault::transient(format!("{}: {error}", file.display()))),
    }
}

impl Spout for Log {
    type MessageId = u64;
    type Outputs = Output<Reading>;

    /// The number of a reading is the same at each delivery: so one that comes again is known by it.
    const STABLE_IDS: bool = true;

    async fn open(&mut self, _: &TaskContext) -> Result<(), Fault> {
        self.offset = offset(&self.offset_file)?;
        self.next = self.offset;
        Ok(())
    }

    async fn next(&mut self, out: &mut Roots<'_, Self>) -> Result<Next, Fault> {
        if self.next == READINGS {
            // The end of the log completes the windows that are open.
            return Ok(Next::Done);
        }
        let n = self.next;
        self.next += 1;
        let device = DEVICES[(n % DEVICES.len() as u64) as usize];
        let minute = (n / DEVICES.len() as u64) as i64;
        out.root_with_stable_id(n, n.to_string()).emit((device, minute * 60_000));
        // So that there is something left to kill.
        Ok(Next::After(Duration::from_millis(1)))
    }

    async fn acked(&mut self, ids: &mut Vec<u64>) {
        self.acked.extend(ids.drain(..));
        while self.acked.remove(&self.offset) {
            self.offset += 1;
        }
        // Under its name at once or not at all. When this fails, the readings come again, and count once all the same.
        let written = self.offset_file.with_extension("new");
        if let Err(error) = std::fs::write(&written, self.offset.to_string())
            .and_then(|()| std::fs::rename(&written, &self.offset_file))
        {
            eprintln!("{}: {error}", self.offset_file.display());
        }
    }
}

fn counting(folder: &Path) -> Result<Topology, BuildError> {
    let offset_file = folder.join("offset");
    let mut topology = TopologyBuilder::new("counting");
    let log = move || Log { offset_file: offset_file.clone(), offset: 0, acked: BTreeSet::new(), next: 0 };
    let readings = topology.spout("log", log).outputs();
    let clock = EventTime::of(|reading: &Reading| reading.1).lag(5 * MINUTE);
    let readings = topology.event_time("clock", clock, readings).outputs();
    let hourly = Window::tumbling(60 * MINUTE)
        .event_time(|reading: &Reading| reading.1)
        .by(|reading: &Reading| reading.0.to_owned())
        .aggregate(Count);
    let hourly = topology.window_in_state("hourly", hourly, readings).parallelism(2).outputs();
    let results = folder.join("results");
    topology.bolt("write", move || Write { folder: results.clone() }).shuffle(hourly.results);
    topology.build()
}

/// Writes each count to a file. A window that fired after the last checkpoint before a kill fires again, with the same count: what is
/// written under its key and its time is there once.
struct Write {
    folder: PathBuf,
}

impl Bolt for Write {
    type Input = WindowResult<String, u64>;
    type Outputs = ();

    fn execute(&mut self, hour: Self::Input, _: &mut Emitter<()>) -> Result<(), Fault> {
        let WindowBounds::Time { start, .. } = hour.bounds else {
            return Err(Fault::permanent("a window by time has bounds in time"));
        };
        let file = self.folder.join(format!("{} hour {}", hour.key, start.millis() / HOUR_MS));
        std::fs::write(&file, hour.value.to_string())
            .map_err(|error| Fault::transient(format!("{}: {error}", file.display())))
    }
}

/// Counts what the log has, from the last checkpoint in the folder on, until all is counted.
async fn count(folder: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(folder.join("results"))?;
    let store = FolderCheckpoints::open(folder.join("checkpoints"), "counting").await?;
    let checkpoints = CheckpointOptions::new(store).every(Duration::from_millis(50));
    let options = EngineOptions { checkpoints: Some(checkpoints), ..EngineOptions::default() };
    let running = Engine::submit(counting(folder)?, options).await?;
    running.finished().await;
    running.drain(Duration::from_secs(60)).await;
    Ok(())
}

fn start(folder: &Path) -> anyhow::Result<Child> {
    let program = std::env::current_exe().context("this program has no path")?;
    Command::new(program).arg(folder).spawn().context("this program cannot be started again")
}

/// Starts the counting and kills it, three times; then lets it end.
async fn kill_and_restart(folder: &Path) -> anyhow::Result<()> {
    let acked = || offset(&folder.join("offset")).map_err(|fault| anyhow::anyhow!("{fault:?}"));
    for _ in 0..3 {
        let before = acked()?;
        let mut child = start(folder)?;
        // A commit acks the readings that it has, and the counting goes on behind it.
        while acked()? == before && child.try_wait()?.is_none() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        child.kill()?;
        child.wait()?;
        println!("killed");
    }
    let ended = start(folder)?.wait()?;
    anyhow::ensure!(ended.success(), "the counting ended with {ended}");
    Ok(())
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    if let Some(folder) = std::env::args_os().nth(1) {
        return count(Path::new(&folder)).await;
    }
    let folder = tempfile::tempdir()?;
    kill_and_restart(folder.path()).await?;
    for device in DEVICES {
        for hour in 0..4 {
            let name = format!("{device} hour {hour}");
            let count = std::fs::read_to_string(folder.path().join("results").join(&name))
                .with_context(|| format!("there is no result of {name}"))?;
            println!("{name}: {count} readings");
        }
    }
    Ok(())
}
