//! What the process knows of a queue: its counts, and the messages that are about to be delivered.

use std::collections::BTreeMap;

use galerna_lock::Mutex;
use tokio::sync::Notify;

use super::tables::StoredMessage;
use crate::Depth;
use galerna_model::QueueName;

/// Most messages of a queue held in memory ahead of its consumers.
pub(super) const WINDOW: usize = 4096;
/// About how many bytes of them.
pub(super) const WINDOW_BYTES: usize = 8 << 20;

/// One queue.
#[derive(Debug)]
pub(super) struct Queue {
    pub(super) name: QueueName,
    pub(super) qid: i64,
    pub(super) state: Mutex<State>,
    /// Told whenever there may be something to receive.
    pub(super) arrived: Notify,
}

/// Where its messages are. In the store they lie in the order of their sequence numbers:
/// those settled are gone; then, mixed, those unacked, returned and in the window; from `unread_from` on those unread.
#[derive(Debug, Default)]
pub(super) struct State {
    /// Read ahead, in order.
    pub(super) window: BTreeMap<u64, StoredMessage>,
    pub(super) window_bytes: usize,
    /// Delivered and given back: sequence number and how often it counts as returned. To be read again.
    pub(super) returned: BTreeMap<u64, u32>,
    /// Messages from here on are in the store alone.
    pub(super) unread_from: u64,
    /// How many they are.
    pub(super) unread: u64,
    /// The highest sequence number committed.
    pub(super) last_seq: u64,
    /// The next one to give; only the writer thread moves it.
    pub(super) next_seq: u64,
    /// The highest one handed out.
    pub(super) mark: u64,
    pub(super) unacked: u64,
    pub(super) delayed: u64,
    pub(super) dead: u64,
    pub(super) consumers: usize,
    /// A refill is on its way.
    pub(super) refilling: bool,
    /// Why the last refill failed, for the next one who asks.
    pub(super) failed: Option<String>,
    /// Deleted.
    pub(super) gone: bool,
}

impl State {
    pub(super) fn depth(&self) -> Depth {
        let ready = self.window.len() as u64 + self.returned.len() as u64 + self.unread + self.delayed;
        Depth { ready, unacked: self.unacked, delayed: self.delayed }
    }

    /// A sequence number for a new message. Those of a transaction that fails are skipped.
    pub(super) fn give_seq(&mut self) -> u64 {
        self.next_seq += 1;
        self.next_seq
    }

    /// A new message is in the store.
    pub(super) fn committed(&mut self, stored: StoredMessage) {
        self.last_seq = stored.seq;
        if self.unread == 0 && self.consumers > 0 && self.has_room() {
            self.unread_from = stored.seq + 1;
            self.keep(stored);
        } else {
            self.unread += 1;
        }
    }

    /// A new message is in the store, and not at hand.
    pub(super) fn committed_unread(&mut self, seq: u64) {
        self.last_seq = seq;
        self.unread += 1;
    }

    pub(super) fn keep(&mut self, stored: StoredMessage) {
        self.window_bytes += stored.message.body.len();
        self.window.insert(stored.seq, stored);
    }

    fn has_room(&self) -> bool {
        self.window.len() < WINDOW && self.window_bytes < WINDOW_BYTES
    }

    /// The next message in order, unless an earlier one has to be read again first.
    pub(super) fn take(&mut self) -> Option<StoredMessage> {
        if !self.returned.is_empty() {
            return None;
        }
        let (_, stored) = self.window.pop_first()?;
        self.window_bytes -= stored.message.body.len();
        self.unacked += 1;
        Some(stored)
    }

    /// The first `limit` waiting messages, by sequence number, of those that were read or given back: all others wait behind them.
    pub(super) fn at_hand(&self, limit: usize) -> Vec<u64> {
        let mut seqs: Vec<u64> = self.window.keys().chain(self.returned.keys()).copied().collect();
        seqs.sort_unstable();
        seqs.truncate(limit);
        seqs
    }

    /// Whether reading from the store would help the next receiver; then a refill counts as on its way.
    pub(super) fn wants_refill(&mut self) -> bool {
        let low = self.window.len() < WINDOW / 4 && self.window_bytes < WINDOW_BYTES / 2;
        let wanted = !self.refilling && (!self.returned.is_empty() || (self.unread > 0 && low));
        self.refilling |= wanted;
        wanted
    }

    /// An unacked message goes back; `returns` is what counts at its next delivery.
    pub(super) fn give_back(&mut self, seq: u64, returns: u32) {
        self.unacked -= 1;
        self.returned.insert(seq, returns);
    }
}
