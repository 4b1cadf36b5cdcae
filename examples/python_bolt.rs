//! Words counted by a bolt in Rust and split by one in Python (`examples/split.py`), which is made with pystorm:
//! `pip install pystorm`, then `cargo run --example python_bolt`. `PYTHON` names the Python if it is not `python3`.

use std::time::Duration;

use galerna::prelude::*;
use galerna_multilang::{SerializedStream, ShellCommand, ShellTopology};

const SENTENCES: [&str; 4] = [
    "the cow jumped over the moon",
    "the man went to the store and bought some candy",
    "four score and seven years ago",
    "how many apples can you eat",
];

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let python = std::env::var("PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let split =
        ShellCommand::from([&*python, "split.py"]).folder(concat!(env!("CARGO_MANIFEST_DIR"), "/examples"));

    let mut topology = TopologyBuilder::new("words");
    let sentences = SENTENCES.map(str::to_owned);
    let sentences = topology.spout("sentences", move || IteratorSpout::new(sentences.clone())).outputs();
    let words = topology
        .shell_bolt::<Output<String>>("split", split)
        .shuffle(sentences.serialized())
        .parallelism(2)
        .outputs();
    topology.bolt("count", Count::default).fields(words, |word| word);

    let running = Engine::submit(topology.build()?, EngineOptions::default()).await?;
    running.finished().await;
    let report = running.drain(Duration::from_secs(5)).await;
    if let Some(sentences) = report.metrics.component("sentences") {
        println!("sentences: {} emitted, {} acked", sentences.emitted, sentences.acked);
    }
    Ok(())
}

/// Counts words, and prints the counts at the end.
#[derive(Default)]
struct Count {
    counts: std::collections::BTreeMap<String, u64>,
}

impl Bolt for Count {
    type Input = String;
    type Outputs = ();

    fn execute(&mut self, word: String, _out: &mut Emitter<()>) -> Result<(), Fault> {
        *self.counts.entry(word).or_default() += 1;
        Ok(())
    }

    fn close(&mut self, _out: &mut Emitter<()>) {
        for (word, count) in &self.counts {
            println!("{word} {count}");
        }
    }
}
