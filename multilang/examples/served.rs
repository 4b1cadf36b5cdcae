//! A child made with the crate itself: `served bolt` doubles numbers and says which were odd, `served spout` counts to a hundred, and
//! `served batches` sums up numbers ten at a time. Run by the crate's tests and benches.

use std::time::Duration;

use galerna_multilang::{serve_bolt, serve_spout, stdio};
use galerna_topology::prelude::*;

/// Sums up tuples ten at a time: each sum is anchored to its ten.
#[derive(Default)]
struct Sums {
    taken: Vec<(u64, Anchor)>,
}

impl Bolt for Sums {
    type Input = u64;
    type Outputs = Output<u64>;

    fn execute(&mut self, number: u64, out: &mut Emitter<Output<u64>>) -> Result<(), Fault> {
        self.taken.push((number, out.keep()));
        if self.taken.len() == 10 {
            let sum = self.taken.iter().map(|(number, _)| number).sum();
            let anchors: Anchors = self.taken.drain(..).map(|(_, anchor)| anchor).collect();
            out.emit_anchored(sum, &anchors);
            anchors.ack();
        }
        Ok(())
    }
}

/// Counts to a hundred; each number that fails comes again.
struct Numbers {
    left: Vec<u64>,
}

impl Spout for Numbers {
    type MessageId = u64;
    type Outputs = Output<u64>;

    async fn next(&mut self, out: &mut Roots<'_, Self>) -> Result<Next, Fault> {
        let Some(number) = self.left.pop() else { return Ok(Next::After(Duration::from_millis(5))) };
        out.root(number).emit(number);
        Ok(Next::Ready)
    }

    async fn failed(&mut self, failed: &mut Vec<Failed<u64>>) {
        self.left.extend(failed.drain(..).map(|failed| failed.id));
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (input, output) = stdio()?;
    match std::env::args().nth(1).as_deref() {
        Some("spout") => {
            serve_spout(input, output, |served| {
                let numbers = || Numbers { left: (1..=100).rev().collect() };
                let numbers = served.topology().spout("numbers", numbers).outputs();
                served.output("default", numbers);
            })
            .await?;
        }
        Some("batches") => {
            serve_bolt(input, output, |served, numbers: Stream<u64>| {
                let sums = served.topology().bolt("sums", Sums::default).global(numbers).outputs();
                served.output("default", sums);
            })
            .await?;
        }
        _ => {
            serve_bolt(input, output, |served, numbers: Stream<u64>| {
                let refuse = |n: u64| if n == 13 { Err(Fault::permanent("13 is unlucky")) } else { Ok(()) };
                served.topology().for_each("check", refuse).shuffle(&numbers);
                let odd = served.topology().filter("odd", |n: &u64| n % 2 == 1).shuffle(&numbers).outputs();
                let doubled = served.topology().map("double", |n: u64| n * 2).shuffle(numbers).outputs();
                served.output("default", doubled);
                served.output("odd", odd);
            })
            .await?;
        }
    }
    Ok(())
}
