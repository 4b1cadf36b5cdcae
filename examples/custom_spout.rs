//! A spout of one's own: it emits what arrives on a channel, and again what failed, until it succeeds or cannot.
//!
//! `cargo run --example custom_spout`

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use galerna::prelude::*;
use tokio::sync::{Mutex, mpsc};

/// Orders by number. One that failed is emitted again, unless it is its own fault.
struct Orders {
    arriving: Arc<Mutex<mpsc::Receiver<String>>>,
    next: Option<String>,
    closed: bool,
    number: u64,
    /// Emitted and not ended, by the id of the root.
    pending: HashMap<u64, String>,
    again: VecDeque<String>,
}

impl Orders {
    fn new(arriving: Arc<Mutex<mpsc::Receiver<String>>>) -> Self {
        Self {
            arriving,
            next: None,
            closed: false,
            number: 0,
            pending: HashMap::new(),
            again: VecDeque::new(),
        }
    }
}

impl Spout for Orders {
    // Comes back in `acked` and `failed`.
    type MessageId = u64;
    type Outputs = Output<String>;

    // Emits what there is and never waits for more: while it waited, no ack and no failure would be heard.
    async fn next(&mut self, out: &mut Roots<'_, Self>) -> Result<Next, Fault> {
        let Some(order) = self.again.pop_front().or_else(|| self.next.take()) else {
            return Ok(if self.closed && self.pending.is_empty() { Next::Done } else { Next::Idle });
        };
        self.number += 1;
        self.pending.insert(self.number, order.clone());
        out.root(self.number).emit(order);
        Ok(Next::Ready)
    }

    // Waiting belongs here. It is dropped when acks arrive, and called again after them: what it took must already be in `self`,
    // and what they changed may end the wait.
    async fn ready(&mut self) {
        if !self.again.is_empty() || (self.closed && self.pending.is_empty()) {
            return;
        }
        if self.closed {
            std::future::pending::<()>().await;
        }
        self.next = self.arriving.lock().await.recv().await;
        self.closed = self.next.is_none();
    }

    async fn acked(&mut self, ids: &mut Vec<u64>) {
        for id in ids.drain(..) {
            self.pending.remove(&id);
        }
    }

    async fn failed(&mut self, failed: &mut Vec<Failed<u64>>) {
        for Failed { id, failure } in failed.drain(..) {
            let Some(order) = self.pending.remove(&id) else { continue };
            match failure.fault.kind() {
                FaultKind::Permanent => println!("{order} is given up: {}", failure.reason()),
                FaultKind::Transient | FaultKind::Unavailable => self.again.push_back(order),
            }
        }
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let (send, arriving) = mpsc::channel(16);
    let arriving = Arc::new(Mutex::new(arriving));

    let mut topology = TopologyBuilder::new("custom-spout");
    let orders = topology.spout("orders", move || Orders::new(arriving.clone())).outputs();
    let mut tries = 0;
    topology
        .for_each("ship", move |order: String| {
            tries += 1;
            match (order.as_str(), tries) {
                ("lead balloon", _) => Err(Fault::permanent("nobody ships that")),
                (_, 1) => Err(Fault::transient("the lorry is late")),
                _ => {
                    println!("{order} is shipped");
                    Ok(())
                }
            }
        })
        .shuffle(orders);

    let running = Engine::submit(topology.build()?, EngineOptions::default()).await?;
    for order in ["coffee", "lead balloon", "tea"] {
        send.send(order.to_owned()).await?;
    }
    drop(send);
    running.finished().await;
    running.drain(Duration::from_secs(5)).await;
    Ok(())
}
