//! Topologies to try things with.
#![allow(dead_code, unreachable_pub)] // each test has its part of it

use galerna_topology::prelude::*;

/// Emits numbers from 1, so many of them.
pub struct Numbers(pub u64, pub u64);

impl Spout for Numbers {
    type MessageId = u64;
    type Outputs = Output<u64>;

    async fn next(&mut self, out: &mut Roots<'_, Self>) -> Result<Next, Fault> {
        if self.0 == self.1 {
            return Ok(Next::Done);
        }
        self.0 += 1;
        out.root(self.0).emit(self.0);
        // So that paused time moves on.
        Ok(if self.0.is_multiple_of(50) {
            Next::After(std::time::Duration::from_millis(10))
        } else {
            Next::Ready
        })
    }
}

pub fn numbers(n: u64) -> Topology {
    let mut topology = TopologyBuilder::new("numbers");
    let numbers = topology.spout("numbers", move || Numbers(0, n)).outputs();
    topology.for_each("sink", |_: u64| ()).shuffle(numbers);
    topology.build().unwrap()
}

pub fn endless() -> Topology {
    numbers(u64::MAX)
}

/// As fast as it goes.
struct Fast(u64);

impl Spout for Fast {
    type MessageId = u64;
    type Outputs = Output<u64>;

    async fn next(&mut self, out: &mut Roots<'_, Self>) -> Result<Next, Fault> {
        self.0 += 1;
        out.root(self.0).emit(self.0);
        Ok(Next::Ready)
    }
}

/// An endless topology whose `count` has one executor for four tasks.
pub fn keyed() -> Topology {
    let mut topology = TopologyBuilder::new("keyed");
    let numbers = topology.spout("numbers", || Fast(0)).max_pending(5_000).outputs();
    topology.for_each("count", |_: u64| ()).key_by(numbers, |n| n % 64).parallelism(1).tasks(4);
    topology.build().unwrap()
}
