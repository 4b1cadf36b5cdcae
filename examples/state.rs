//! Counts words in state, with checkpoints. The process "crashes" in the middle: what was not acked comes again, and each word counts once.
//!
//! `cargo run --example state`

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use galerna::engine::Running;
use galerna::prelude::*;
use galerna::state::{CheckpointError, FolderCheckpoints};

const WORDS: [&str; 8] = ["the", "cow", "jumped", "over", "the", "moon", "the", "moon"];

/// What a broker would remember: which messages were acked.
type Acked = Arc<Mutex<BTreeSet<usize>>>;

/// Delivers what was not acked. The place of a word is its id, the same at each delivery.
struct Words {
    acked: Acked,
    next: usize,
}

impl Spout for Words {
    type MessageId = usize;
    type Outputs = Output<&'static str>;

    const STABLE_IDS: bool = true;

    async fn next(&mut self, out: &mut Roots<'_, Self>) -> Result<Next, Fault> {
        while self.acked.lock().unwrap_or_else(PoisonError::into_inner).contains(&self.next) {
            self.next += 1;
        }
        let Some(word) = WORDS.get(self.next) else { return Ok(Next::Done) };
        out.root_with_stable_id(self.next, self.next.to_string()).emit(word);
        self.next += 1;
        Ok(Next::Ready)
    }

    async fn acked(&mut self, ids: &mut Vec<usize>) {
        self.acked.lock().unwrap_or_else(PoisonError::into_inner).extend(ids.drain(..));
    }
}

/// Counts each word. The count is in the task's state.
#[derive(Default)]
struct Count {
    count: Option<ValueState<u64>>,
}

impl Bolt for Count {
    type Input = &'static str;
    type Outputs = Output<(&'static str, u64)>;

    fn prepare(&mut self, context: &TaskContext) -> Result<(), Fault> {
        self.count = Some(context.state()?.value("count")?);
        Ok(())
    }

    fn execute(&mut self, word: &'static str, out: &mut Emitter<Self::Outputs>) -> Result<(), Fault> {
        let count = self.count.as_mut().ok_or_else(|| Fault::permanent("it was not prepared"))?;
        out.emit((word, count.update(word, |n| n.unwrap_or(0) + 1)?));
        Ok(())
    }
}

fn words(acked: &Acked) -> Result<Topology, BuildError> {
    let acked = acked.clone();
    let mut topology = TopologyBuilder::new("words");
    let words = topology.spout("words", move || Words { acked: acked.clone(), next: 0 }).outputs();
    // Each word comes to the task that has its state.
    let counts =
        topology.bolt("count", Count::default).keyed_by(words, |word| *word).parallelism(2).outputs();
    topology.for_each("print", |(word, count): (&str, u64)| println!("{word} {count}")).global(counts);
    topology.build()
}

async fn submit(folder: &std::path::Path, acked: &Acked) -> anyhow::Result<Running> {
    let store = FolderCheckpoints::open(folder, "words").await?;
    let options = EngineOptions {
        checkpoints: Some(CheckpointOptions::new(store).every(Duration::from_secs(60))),
        ..EngineOptions::default()
    };
    Ok(Engine::submit(words(acked)?, options).await?)
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let (folder, acked) = (tempfile::tempdir()?, Acked::default());
    let running = submit(folder.path(), &acked).await?;
    running.finished().await;
    // All is counted, and nothing acked: that waits for a checkpoint.
    println!("acked before the checkpoint: {}", acked.lock().unwrap_or_else(PoisonError::into_inner).len());
    let report = running.checkpoint().await?;
    println!("checkpoint {}: {} messages in doubt", report.id, report.in_doubt);
    // Not drained: as if the process had died, and with it the acks.
    drop(running);
    acked.lock().unwrap_or_else(PoisonError::into_inner).clear();
    println!("again, from the checkpoint");
    let running = loop {
        match submit(folder.path(), &acked).await {
            Ok(running) => break running,
            // The tasks of the other one are still being given up.
            Err(error) if matches!(error.downcast_ref(), Some(CheckpointError::InUse { .. })) => {
                tokio::task::yield_now().await;
            }
            Err(error) => return Err(error),
        }
    };
    running.finished().await;
    let report = running.drain(Duration::from_secs(5)).await;
    let count = report.metrics.component("count").map_or(0, |count| count.executed);
    println!("counted again: {count}, acked: {}", acked.lock().unwrap_or_else(PoisonError::into_inner).len());
    Ok(())
}
