#[path = "numbers.rs"]
mod numbers;

use galerna_topology::prelude::*;
use numbers::Numbers;

struct Forgotten;

fn main() {
    let mut topology = TopologyBuilder::new("wrong");
    let numbers = topology.spout("numbers", || Numbers).outputs();
    topology.bolt("forgotten", Forgotten).shuffle(numbers);
}
