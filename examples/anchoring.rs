//! Several tuples become one, and all their roots wait for it.
//!
//! A bolt keeps readings until it has four of them, and emits their mean anchored to all four. If the mean fails further
//! down, all four roots fail, and the spout emits them again; nobody has to remember what was in which mean.
//!
//! `cargo run --example anchoring`

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use galerna::prelude::*;

#[derive(Default)]
struct Mean {
    sum: f64,
    kept: Vec<Anchor>,
}

impl Bolt for Mean {
    type Input = f64;
    type Outputs = Output<f64>;

    fn execute(&mut self, value: f64, out: &mut Emitter<Output<f64>>) -> Result<(), Fault> {
        self.sum += value;
        // From here on the handle decides about the tuple, not the return of this call.
        self.kept.push(out.keep());
        if self.kept.len() == 4 {
            let mean = std::mem::take(&mut self.sum) / 4.0;
            out.emit_anchored(mean, &self.kept);
            // Done here; their roots now wait for the mean alone.
            self.kept.drain(..).for_each(Anchor::ack);
        }
        Ok(())
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let refused = Arc::new(AtomicBool::new(false));
    let mut topology = TopologyBuilder::new("anchoring");
    let values = topology.spout("values", || IteratorSpout::new((1..=8).map(f64::from))).outputs();
    let means = topology.bolt("mean", Mean::default).global(values).outputs();
    topology
        .for_each("store", move |mean: f64| {
            if !refused.swap(true, Ordering::Relaxed) {
                return Err(Fault::unavailable("the store is being restarted"));
            }
            println!("stored {mean}");
            Ok(())
        })
        .global(means);

    let running = Engine::submit(topology.build()?, EngineOptions::default()).await?;
    running.finished().await;
    let report = running.drain(Duration::from_secs(5)).await;
    let values = report.metrics.component("values").ok_or_else(|| anyhow::anyhow!("no spout"))?;
    println!("{} roots failed, {} are done", values.failures(), values.acked);
    Ok(())
}
