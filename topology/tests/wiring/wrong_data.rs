#[path = "numbers.rs"]
mod numbers;

use galerna_topology::prelude::*;
use numbers::Numbers;

pub struct Ticket(u64);

fn main() {
    let mut topology = TopologyBuilder::new("wrong");
    let numbers = topology.spout("numbers", || Numbers).outputs();
    topology.map("tickets", |n: u64| Ticket(n)).shuffle(numbers);
}
