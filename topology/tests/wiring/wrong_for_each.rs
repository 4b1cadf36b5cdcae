#[path = "numbers.rs"]
mod numbers;

use galerna_topology::prelude::*;
use numbers::Numbers;

fn main() {
    let mut topology = TopologyBuilder::new("wrong");
    let numbers = topology.spout("numbers", || Numbers).outputs();
    topology.for_each("double", |n: u64| n * 2).shuffle(numbers);
}
