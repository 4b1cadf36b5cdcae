#[path = "numbers.rs"]
mod numbers;

use galerna_topology::prelude::*;
use numbers::Numbers;

enum Either {
    Number(u64),
    Word(String),
}

impl From<u64> for Either {
    fn from(number: u64) -> Self {
        Self::Number(number)
    }
}

struct Join;

impl Bolt for Join {
    type Input = Either;
    type Outputs = ();

    fn execute(&mut self, _either: Either, _out: &mut Emitter<()>) -> Result<(), Fault> {
        Ok(())
    }
}

fn main() {
    let mut topology = TopologyBuilder::new("wrong");
    let numbers = topology.spout("numbers", || Numbers).outputs();
    let words = topology.map("words", |n: u64| n.to_string()).shuffle(&numbers).outputs();
    topology.bolt("join", || Join).shuffle(numbers).shuffle(words);
}
