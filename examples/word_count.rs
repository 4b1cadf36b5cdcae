//! Counts words: a spout of sentences, a bolt that splits them, two tasks that count, one that prints.
//!
//! `cargo run --example word_count`

use std::collections::HashMap;
use std::time::Duration;

use galerna::prelude::*;

const SENTENCES: [&str; 4] = [
    "the cow jumped over the moon",
    "an apple a day keeps the doctor away",
    "four score and seven years ago",
    "snow white and the seven dwarfs",
];

/// Counts each word it is given, and emits the count so far.
#[derive(Default)]
struct Count(HashMap<&'static str, u64>);

impl Bolt for Count {
    type Input = &'static str;
    type Outputs = Output<(&'static str, u64)>;

    fn execute(&mut self, word: &'static str, out: &mut Emitter<Self::Outputs>) -> Result<(), Fault> {
        let count = self.0.entry(word).or_default();
        *count += 1;
        out.emit((word, *count));
        Ok(())
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut topology = TopologyBuilder::new("word-count");
    let sentences = topology.spout("sentences", || IteratorSpout::new(SENTENCES)).outputs();
    let words = topology.flat_map("split", |text: &'static str| text.split(' ')).shuffle(sentences).outputs();
    let counts = topology.bolt("count", Count::default).fields(words, |word| word).parallelism(2).outputs();
    topology.for_each("print", |(word, count)| println!("{word:>8} {count}")).global(counts);

    let topology = topology.build()?;
    println!("{}", topology.table());

    let running = Engine::submit(topology, EngineOptions::default()).await?;
    running.finished().await;
    let report = running.drain(Duration::from_secs(5)).await;

    for component in &report.metrics.components {
        println!("{:>10}: {} emitted, {} acked", component.id, component.emitted, component.acked);
    }
    Ok(())
}
