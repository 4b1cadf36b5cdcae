//! Counts readings by device and quarter of an hour, in event time: some readings come out of order, one comes too late.
//!
//! `cargo run --example windows`

use std::time::Duration;

use galerna::prelude::*;

/// A device, the minute of its reading, and what it measured.
type Reading = (&'static str, i64, f64);

const READINGS: [Reading; 9] = [
    ("attic", 1, 20.0),
    ("cellar", 3, 9.0),
    ("attic", 14, 22.0),
    // Out of order, by less than the lag.
    ("attic", 9, 24.0),
    ("cellar", 16, 11.0),
    ("attic", 21, 30.0),
    // In its window's allowed lateness: that emits anew.
    ("cellar", 5, 7.0),
    ("attic", 58, 28.0),
    // Too late.
    ("cellar", 2, 8.0),
];

const MINUTE: Duration = Duration::from_secs(60);

fn at(reading: &Reading) -> i64 {
    reading.1 * 60_000
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut topology = TopologyBuilder::new("quarters");
    // Windows hold the roots of their tuples until they have fired.
    topology.message_timeout(60 * MINUTE);
    let readings = topology.spout("readings", || IteratorSpout::new(READINGS)).batch(1).outputs();
    let quarters = Window::tumbling(15 * MINUTE)
        .event_time(at)
        .lag(5 * MINUTE)
        .allowed_lateness(20 * MINUTE)
        .by(|reading: &Reading| reading.0)
        .aggregate(Summarise::new(|reading: &Reading| reading.2));
    let quarters = topology.window("quarters", quarters, readings).outputs();
    topology
        .for_each("print", |result: WindowResult<&'static str, Summary>| {
            if let WindowBounds::Time { start, end } = result.bounds {
                let (start, end) = (start.millis() / 60_000, end.millis() / 60_000);
                let Summary { count, mean, .. } = result.value;
                println!(
                    "{:>6} {start:>2} to {end} min: {count} readings, mean {mean} ({:?})",
                    result.key, result.firing
                );
            }
        })
        .global(quarters.results);
    topology
        .for_each("late", |late: Late<&'static str, Reading>| {
            println!(
                "{:>6} of minute {} is {} min late",
                late.key,
                late.tuple.1,
                late.late_by.as_secs() / 60
            );
        })
        .global(quarters.late);

    let running = Engine::submit(topology.build()?, EngineOptions::default()).await?;
    // The end of the readings completes the windows that are open.
    running.finished().await;
    running.drain(Duration::from_secs(5)).await;
    Ok(())
}
