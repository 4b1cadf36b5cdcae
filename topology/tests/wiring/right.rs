#[path = "numbers.rs"]
mod numbers;

use galerna_topology::prelude::*;
use numbers::{Numbers, Words};

#[derive(Clone)]
struct Prototype;

impl Bolt for Prototype {
    type Input = String;
    type Outputs = ();

    fn execute(&mut self, _word: String, _out: &mut Emitter<()>) -> Result<(), Fault> {
        Ok(())
    }
}

fn main() {
    let mut topology = TopologyBuilder::new("right");
    let numbers = topology.spout("numbers", || Numbers).outputs();
    let words = topology.map("words", |n: u64| n.to_string()).shuffle(numbers).outputs();
    topology.bolt("print", || Words).fields(&words, |word| word.as_str());
    topology.bolt("clones", Prototype).key_by(words, |word| word.len());
    topology.build().unwrap();
}
