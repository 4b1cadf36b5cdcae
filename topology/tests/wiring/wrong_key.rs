#[path = "numbers.rs"]
mod numbers;

use galerna_topology::prelude::*;
use numbers::Numbers;

#[derive(Clone)]
pub struct Word {
    text: String,
}

fn main() {
    let mut topology = TopologyBuilder::new("wrong");
    let numbers = topology.spout("numbers", || Numbers).outputs();
    let words = topology.map("words", |n: u64| Word { text: n.to_string() }).shuffle(numbers).outputs();
    topology.for_each("print", |_: Word| ()).fields(words, |word| &word.device);
}
