//! The spout of what channels receive.

use std::collections::HashMap;
use std::sync::Arc;

use galerna_topology::prelude::*;
use tokio::sync::{Mutex, mpsc, oneshot};

use crate::channel::Channel;
use crate::filter::Judge;
use crate::progress::Progress;
use crate::status::{Status, StatusId};

/// Statuses that a channel received together. A channel has one page on its way at a time, so that its cursor moves over no gap.
#[derive(Debug, Clone)]
pub struct Page {
    /// The channel.
    pub channel: Arc<Channel>,
    /// Its filters.
    pub judge: Arc<Judge>,
    /// Where it counts.
    pub progress: Arc<Progress>,
    /// The id of the account that it posts with, if that is on the server that was asked.
    pub own: Option<Arc<str>>,
    /// Statuses up to this one were there before the channel was on.
    pub began: StatusId,
    /// The statuses, the oldest first.
    pub statuses: Arc<Vec<Status>>,
}

/// A page, and who waits for its end.
#[derive(Debug)]
pub struct Submitted {
    page: Page,
    end: oneshot::Sender<Result<(), Fault>>,
}

/// Where channels put what they receive.
#[derive(Debug, Clone)]
pub struct PageSender(mpsc::Sender<Submitted>);

impl PageSender {
    /// Sends a page through the topology, and waits until it is recorded.
    ///
    /// # Errors
    /// Why it was not. Then it is not known whether it was: the same page may be sent again.
    pub async fn submit(&self, page: Page) -> Result<(), Fault> {
        let (end, ended) = oneshot::channel();
        let stopped = || Fault::unavailable("the topology has stopped");
        self.0.send(Submitted { page, end }).await.map_err(|_| stopped())?;
        ended.await.unwrap_or_else(|_| Err(stopped()))
    }
}

/// Pages as they are received; each is a root.
#[derive(Debug)]
pub struct PageSpout {
    receiving: Arc<Mutex<mpsc::Receiver<Submitted>>>,
    arrived: Vec<Submitted>,
    number: u64,
    waiting: HashMap<u64, oneshot::Sender<Result<(), Fault>>>,
}

impl PageSpout {
    /// A way in, and what makes the spout. Pages that find no room wait.
    pub fn channel(room: usize) -> (PageSender, impl Fn() -> Self + Clone) {
        let (send, receive) = mpsc::channel(room);
        let receiving = Arc::new(Mutex::new(receive));
        let make = move || Self {
            receiving: Arc::clone(&receiving),
            arrived: Vec::new(),
            number: 0,
            waiting: HashMap::new(),
        };
        (PageSender(send), make)
    }

    fn end(&mut self, number: u64, result: Result<(), Fault>) {
        if let Some(end) = self.waiting.remove(&number) {
            // The channel may have been switched off meanwhile.
            drop(end.send(result));
        }
    }
}

impl Spout for PageSpout {
    type MessageId = u64;
    type Outputs = Output<Page>;

    async fn next(&mut self, out: &mut Roots<'_, Self>) -> Result<Next, Fault> {
        if let Ok(mut receiving) = self.receiving.try_lock() {
            while self.arrived.len() < out.room()
                && let Ok(submitted) = receiving.try_recv()
            {
                self.arrived.push(submitted);
            }
        }
        for Submitted { page, end } in self.arrived.drain(..) {
            self.number += 1;
            self.waiting.insert(self.number, end);
            out.root(self.number).emit(page);
        }
        Ok(Next::Idle)
    }

    async fn ready(&mut self) {
        let arrived = self.receiving.lock().await.recv().await;
        match arrived {
            Some(arrived) => self.arrived.push(arrived),
            None => std::future::pending().await,
        }
    }

    async fn acked(&mut self, ids: &mut Vec<u64>) {
        for number in ids.drain(..) {
            self.end(number, Ok(()));
        }
    }

    async fn failed(&mut self, failed: &mut Vec<Failed<u64>>) {
        for Failed { id, failure } in failed.drain(..) {
            self.end(id, Err(failure.fault));
        }
    }
}
