//! A bolt with several outputs, each a stream of its own type: what parses goes one way, what does not another.
//!
//! `cargo run --example several_outputs`

use std::time::Duration;

use galerna::prelude::*;

const LINES: [&str; 5] = ["21.5", "warm", "-3", "", "40e1"];

outputs! {
    /// What comes out of [`Parse`].
    struct Parsed {
        /// Degrees.
        degrees: f64,
        /// Lines that are no number, and why.
        rejected: (String, String),
    }
}

#[derive(Clone)]
struct Parse;

impl Bolt for Parse {
    type Input = &'static str;
    type Outputs = Parsed;

    fn execute(&mut self, line: &'static str, out: &mut Emitter<Parsed>) -> Result<(), Fault> {
        match line.parse() {
            Ok(degrees) => out.degrees.emit(degrees),
            Err(error) => out.rejected.emit((line.to_owned(), error.to_string())),
        }
        Ok(())
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut topology = TopologyBuilder::new("several-outputs");
    let lines = topology.spout("lines", || IteratorSpout::new(LINES)).outputs();
    // `parsed` has a field for each output; subscribing to one with a bolt of another type does not compile.
    let parsed = topology.bolt("parse", || Parse).shuffle(lines).outputs();
    topology.for_each("print", |degrees: f64| println!("{degrees} °C")).shuffle(parsed.degrees);
    topology
        .for_each("complain", |(line, why): (String, String)| println!("{line:?} is no temperature: {why}"))
        .shuffle(parsed.rejected);

    let running = Engine::submit(topology.build()?, EngineOptions::default()).await?;
    running.finished().await;
    running.drain(Duration::from_secs(5)).await;
    Ok(())
}
