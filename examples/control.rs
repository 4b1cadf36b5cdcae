//! Several topologies in one process, seen and changed on a page and over HTTP.
//!
//! `cargo run --example control`, then open <http://127.0.0.1:8099>; with `EXIT=1` it ends at once.
//!
//! ```text
//! curl http://127.0.0.1:8099/api/v1/topologies/words
//! curl -X POST http://127.0.0.1:8099/api/v1/topologies/words/deactivate
//! ```

use std::collections::HashMap;
use std::time::Duration;

use galerna::control::{ControlOptions, Topologies, serve};
use galerna::prelude::*;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

const SENTENCES: [&str; 3] = [
    "the cow jumped over the moon",
    "an apple a day keeps the doctor away",
    "four score and seven years ago",
];

/// Counts each word that it is given.
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

/// Sentences for ever.
fn words() -> Result<Topology, BuildError> {
    let mut topology = TopologyBuilder::new("words");
    let endless = || IteratorSpout::new(SENTENCES.into_iter().cycle());
    let sentences = topology.spout("sentences", endless).max_pending(1_000).outputs();
    let words = topology.flat_map("split", |text: &'static str| text.split(' ')).shuffle(sentences).outputs();
    let counts = topology.bolt("count", Count::default).fields(words, |word| word).parallelism(2).outputs();
    topology.for_each("sink", |_: (&'static str, u64)| ()).shuffle(counts);
    topology.build()
}

/// Ten times a second.
fn clock() -> Result<Topology, BuildError> {
    let mut topology = TopologyBuilder::new("clock");
    let ticks = topology.spout("ticks", || IntervalSpout::every(Duration::from_millis(100))).outputs();
    topology.for_each("sink", |_: galerna::spouts::Firing| ()).shuffle(ticks);
    topology.build()
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let exits = std::env::var_os("EXIT").is_some();
    let topologies = Topologies::new();
    topologies.submit("words", words()?, EngineOptions::default()).await?;
    topologies.submit("clock", clock()?, EngineOptions::default()).await?;

    let listener = TcpListener::bind(if exits { "127.0.0.1:0" } else { "127.0.0.1:8099" }).await?;
    let address = listener.local_addr()?;
    println!("see http://{address}/topologies");
    let shutdown = CancellationToken::new();
    let options = ControlOptions { shutdown: shutdown.clone(), ..ControlOptions::default() };
    let served = tokio::spawn(serve(listener, topologies.clone(), options));

    if exits {
        topologies.deactivate("clock")?;
        for topology in topologies.list() {
            println!("{} is {}", topology.name, topology.status.as_str());
        }
    } else {
        tokio::signal::ctrl_c().await?;
    }
    topologies.drain(Duration::from_secs(10)).await;
    shutdown.cancel();
    served.await??;
    Ok(())
}
