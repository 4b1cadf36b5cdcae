#[path = "numbers.rs"]
mod numbers;

use galerna_topology::prelude::*;
use numbers::{Numbers, Words};

fn main() {
    let mut topology = TopologyBuilder::new("wrong");
    let numbers = topology.spout("numbers", || Numbers).outputs();
    let words = topology.map("words", |n: u64| n.to_string()).shuffle(numbers).outputs();
    topology.bolt("print", Words).shuffle(words);
}
