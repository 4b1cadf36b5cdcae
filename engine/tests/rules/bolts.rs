//! Bolts that several tests use, most of them from Storm's own tests.

use std::sync::{Arc, Mutex};

use galerna_topology::prelude::*;

/// Passes on what it takes.
pub(crate) fn identity<T: Clone + Send + 'static>(value: T) -> T {
    value
}

/// Emits as many copies as it was told for each tuple.
pub(crate) struct Branching(pub(crate) usize);

impl Bolt for Branching {
    type Input = u64;
    type Outputs = Output<u64>;

    fn execute(&mut self, input: u64, out: &mut Emitter<Output<u64>>) -> Result<(), Fault> {
        (0..self.0).for_each(|_| out.emit(input));
        Ok(())
    }
}

/// Keeps tuples until it has as many as it was told, then emits one tuple anchored to all and acks them.
pub(crate) struct Aggregating {
    amount: usize,
    kept: Vec<Anchor>,
}

impl Aggregating {
    pub(crate) fn new(amount: usize) -> Self {
        Self { amount, kept: Vec::new() }
    }
}

impl Bolt for Aggregating {
    type Input = u64;
    type Outputs = Output<u64>;

    fn execute(&mut self, input: u64, out: &mut Emitter<Output<u64>>) -> Result<(), Fault> {
        let anchor = out.keep();
        self.kept.push(anchor);
        if self.kept.len() == self.amount {
            out.emit_anchored(input, &self.kept);
            self.kept.drain(..).for_each(Anchor::ack);
        }
        Ok(())
    }
}

/// Emits anchored to the same tuple twice, and acks it.
pub(crate) struct DuplicateAnchor;

impl Bolt for DuplicateAnchor {
    type Input = u64;
    type Outputs = Output<u64>;

    fn execute(&mut self, input: u64, out: &mut Emitter<Output<u64>>) -> Result<(), Fault> {
        let anchor = out.keep();
        out.emit_anchored(input, [&anchor, &anchor]);
        anchor.ack();
        Ok(())
    }
}

/// Kept tuples in the hands of the test.
pub(crate) type Held = Arc<Mutex<Vec<(u64, Anchor)>>>;

/// Keeps every tuple and gives it to the test.
pub(crate) struct Holding(pub(crate) Held);

impl Bolt for Holding {
    type Input = u64;
    type Outputs = ();

    fn execute(&mut self, input: u64, out: &mut Emitter<()>) -> Result<(), Fault> {
        let anchor = out.keep();
        self.0.lock().unwrap().push((input, anchor));
        Ok(())
    }
}

pub(crate) fn take(held: &Held, value: u64) -> Anchor {
    let mut held = held.lock().unwrap();
    let at = held.iter().position(|(kept, _)| *kept == value).expect("the tuple is held");
    held.remove(at).1
}
