#[path = "numbers.rs"]
mod numbers;

use galerna_topology::prelude::*;
use numbers::Numbers;

fn main() {
    let mut topology = TopologyBuilder::new("wrong");
    let numbers = topology.spout("numbers", || Numbers).outputs();
    topology.for_each("print", |_: u64| ()).key_by(numbers, |n| n);
}
