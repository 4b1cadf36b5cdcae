//! Acks of one consumer, written by a task of its own.
//!
//! One frame acks all messages up to one. Outcomes come out of order though, and an ack beyond the first message that is still
//! unsettled would be a frame of its own. So it waits there for up to [`WAIT`] to become part of a longer prefix, unless so
//! many wait that they take up the prefetch. They are written by one task, in order: the server takes no ack of a message that
//! an earlier frame acked along. The task outlives its consumer for as long as it takes to write what waits.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use lapin::Channel;
use lapin::options::BasicAckOptions;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until};

use super::fault::within;
use super::link::Link;

/// The longest that an ack waits.
const WAIT: Duration = Duration::from_millis(200);
/// Acks of this part of the prefetch may wait: with the half of it, several bulk writes that end in another order than they began
/// still make one prefix, and enough is left for messages to go on coming.
const PART: usize = 2;

/// Messages to ack.
struct Settled {
    tags: BTreeSet<u64>,
    /// The first message that is unsettled.
    floor: u64,
    at_once: bool,
    written: oneshot::Sender<bool>,
}

/// What writes the acks of a consumer.
pub(super) struct Acks(mpsc::Sender<Settled>);

impl Acks {
    /// For a channel on this connection, which is kept up meanwhile; a write ends within `limit`.
    pub(super) fn start(channel: Channel, link: Arc<Link>, limit: Duration, prefetch: u16) -> Self {
        // Its consumer waits for each answer; there is room for one call that was given up.
        let (settled, to_write) = mpsc::channel(2);
        let most = usize::from(prefetch) / PART;
        let writer = Writer {
            channel,
            _link: link,
            limit,
            most,
            waiting: BTreeSet::new(),
            since: None,
            failed: false,
        };
        tokio::spawn(writer.run(to_write));
        Self(settled)
    }

    /// Acks messages, each of which once: now, or those beyond `floor` (the first message that is unsettled) a moment later.
    /// False when the channel is gone.
    pub(super) async fn ack(&self, tags: BTreeSet<u64>, floor: u64, at_once: bool) -> bool {
        let (written, done) = oneshot::channel();
        let settled = Settled { tags, floor, at_once, written };
        self.0.send(settled).await.is_ok() && done.await.unwrap_or(false)
    }
}

struct Writer {
    channel: Channel,
    _link: Arc<Link>,
    limit: Duration,
    most: usize,
    waiting: BTreeSet<u64>,
    /// Since when the oldest of those that wait does so, or longer.
    since: Option<Instant>,
    failed: bool,
}

impl Writer {
    async fn run(mut self, mut to_write: mpsc::Receiver<Settled>) {
        loop {
            let due = self.since.map(|since| since + WAIT);
            let settled = tokio::select! {
                biased;
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                    // The consumer is told at its next call.
                    self.failed |= !self.write(0, true).await;
                    continue;
                }
                settled = to_write.recv() => settled,
            };
            let Some(Settled { tags, floor, at_once, written }) = settled else { break };
            self.waiting.extend(tags);
            let done = self.write(floor, at_once).await;
            self.failed |= !done;
            // Nobody waits when the call was given up.
            let _ = written.send(!self.failed);
        }
        self.write(0, true).await;
    }

    /// Acks what is below `floor` in one frame, and what is beyond it as well when `all` is wanted or too much of it waits.
    async fn write(&mut self, floor: u64, all: bool) -> bool {
        let beyond = self.waiting.split_off(&floor);
        let below = std::mem::replace(&mut self.waiting, beyond);
        let prefix = below.last().map(|tag| self.channel.basic_ack(*tag, BasicAckOptions { multiple: true }));
        let single = if all || self.waiting.len() > self.most {
            std::mem::take(&mut self.waiting)
        } else {
            BTreeSet::new()
        };
        self.since = if self.waiting.is_empty() { None } else { self.since.or_else(|| Some(Instant::now())) };
        let single = single.iter().map(|tag| self.channel.basic_ack(*tag, BasicAckOptions::default()));
        let frames = futures_util::future::try_join_all(prefix.into_iter().chain(single));
        within(self.limit, frames).await.is_ok()
    }
}
