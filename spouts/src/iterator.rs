//! A spout that emits what an iterator gives.

use std::collections::VecDeque;

use galerna_topology::{Data, Failed, Fault, Next, Output, Roots, Spout};

/// How often a tuple is emitted, at most, before it counts as lost.
pub const DEFAULT_ATTEMPTS: u32 = 5;

/// Emits each item of an iterator as a root, again when it failed, and is done when all are.
///
/// An item that failed [`DEFAULT_ATTEMPTS`] times is given up and logged with the reason.
///
/// ```
/// use galerna_spouts::IteratorSpout;
/// use galerna_topology::TopologyBuilder;
///
/// let mut topology = TopologyBuilder::new("count");
/// let numbers = topology.spout("numbers", || IteratorSpout::new(1..=3_u64)).outputs();
/// topology.for_each("print", |n: u64| println!("{n}")).shuffle(&numbers);
/// topology.build().unwrap();
/// ```
#[derive(Debug)]
pub struct IteratorSpout<I: Iterator> {
    items: I,
    again: VecDeque<Attempt<I::Item>>,
    pending: usize,
    exhausted: bool,
    attempts: u32,
}

/// An item and how often it has been emitted.
#[derive(Debug, Clone)]
pub struct Attempt<T> {
    item: T,
    attempts: u32,
}

impl<I: Iterator> IteratorSpout<I> {
    /// Emits the items of this iterator. It is asked on the spout's task and must not block.
    pub fn new(items: impl IntoIterator<IntoIter = I>) -> Self {
        Self {
            items: items.into_iter(),
            again: VecDeque::new(),
            pending: 0,
            exhausted: false,
            attempts: DEFAULT_ATTEMPTS,
        }
    }

    /// Emits an item at most so often (at least once).
    #[must_use]
    pub fn with_attempts(mut self, attempts: u32) -> Self {
        self.attempts = attempts.max(1);
        self
    }

    fn take(&mut self) -> Option<Attempt<I::Item>> {
        if let Some(again) = self.again.pop_front() {
            return Some(again);
        }
        if self.exhausted {
            return None;
        }
        let item = self.items.next();
        self.exhausted = item.is_none();
        item.map(|item| Attempt { item, attempts: 0 })
    }
}

impl<I> Spout for IteratorSpout<I>
where
    I: Iterator + Send + 'static,
    I::Item: Data,
{
    type MessageId = Attempt<I::Item>;
    type Outputs = Output<I::Item>;

    async fn next(&mut self, out: &mut Roots<'_, Self>) -> Result<Next, Fault> {
        while out.room() > 0 {
            let Some(mut attempt) = self.take() else {
                return Ok(if self.pending == 0 { Next::Done } else { Next::Ended });
            };
            attempt.attempts += 1;
            self.pending += 1;
            let item = attempt.item.clone();
            out.root(attempt).emit(item);
        }
        Ok(Next::Ready)
    }

    async fn ready(&mut self) {
        // What changes this is an ack or a failure, after which the engine asks anew.
        if self.again.is_empty() && self.pending > 0 {
            std::future::pending().await
        }
    }

    async fn acked(&mut self, ids: &mut Vec<Self::MessageId>) {
        self.pending -= ids.len();
    }

    async fn failed(&mut self, failed: &mut Vec<Failed<Self::MessageId>>) {
        self.pending -= failed.len();
        for Failed { id, failure } in failed.drain(..) {
            if id.attempts < self.attempts {
                self.again.push_back(id);
            } else {
                tracing::error!(attempts = id.attempts, %failure, "an item is given up");
            }
        }
    }
}
