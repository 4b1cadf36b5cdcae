//! What is done to dead letters, in transactions of the writer.

use std::sync::Arc;

use galerna_sqlite::{Job, SqliteError};

use super::jobs::{Again, Open, Reply, answer, deleted_meanwhile};
use super::queue::Queue;
use super::tables::{StoredMessage, Tables};
use super::{EmbeddedSession, Shared};
use crate::{DeadLetter, DeadLetterSelection, NewDeadLetter, WaitingMessage};

/// A look at waiting messages reads about so many bytes at most.
const PEEK_BYTES: usize = 16 << 20;

/// Adds dead letters.
pub(super) struct AddDead {
    pub(super) shared: Arc<Shared>,
    pub(super) queue: Arc<Queue>,
    pub(super) letters: Vec<NewDeadLetter>,
    pub(super) reply: Reply<()>,
}

impl Job<EmbeddedSession> for AddDead {
    fn run(&mut self, stored: &mut Open) -> rusqlite::Result<()> {
        let tables = Tables(stored.connection());
        if self.queue.state.lock().gone {
            return Ok(());
        }
        let now = self.shared.now();
        self.letters.iter().try_for_each(|l| tables.add_dead(self.queue.qid, now, l))
    }

    fn done(self: Box<Self>, mut result: Result<(), SqliteError>) -> Again {
        if result.is_ok() {
            let mut state = self.queue.state.lock();
            if state.gone {
                result = Err(deleted_meanwhile());
            } else {
                state.dead += self.letters.len() as u64;
                self.shared.counters.dead_lettered.add(self.letters.len());
            }
        }
        answer(self.reply, result);
        None
    }

    fn weight(&self) -> usize {
        self.letters.len()
    }
}

/// Lists dead letters.
pub(super) struct ListDead {
    pub(super) queue: Arc<Queue>,
    pub(super) offset: usize,
    pub(super) limit: usize,
    pub(super) found: Vec<DeadLetter>,
    pub(super) reply: Reply<Vec<DeadLetter>>,
}

impl Job<EmbeddedSession> for ListDead {
    fn run(&mut self, stored: &mut Open) -> rusqlite::Result<()> {
        let tables = Tables(stored.connection());
        self.found = tables.dead(self.queue.qid, self.offset, self.limit)?;
        Ok(())
    }

    fn done(self: Box<Self>, result: Result<(), SqliteError>) -> Again {
        let Self { found, reply, .. } = *self;
        answer(reply, result.map(|()| found));
        None
    }
}

/// Shows messages that wait, without taking them.
pub(super) struct Peek {
    pub(super) queue: Arc<Queue>,
    pub(super) limit: usize,
    pub(super) found: Vec<WaitingMessage>,
    pub(super) reply: Reply<Vec<WaitingMessage>>,
}

impl Job<EmbeddedSession> for Peek {
    fn run(&mut self, stored: &mut Open) -> rusqlite::Result<()> {
        let tables = Tables(stored.connection());
        self.found.clear();
        let (at_hand, unread_from, last, mark) = {
            let state = self.queue.state.lock();
            (state.at_hand(self.limit), state.unread_from, state.last_seq, state.mark)
        };
        for seq in at_hand {
            self.found.extend(
                tables.read(self.queue.qid, seq..=seq, mark, 1, usize::MAX)?.into_iter().map(waiting),
            );
        }
        let left = self.limit.saturating_sub(self.found.len());
        if left > 0 && unread_from <= last {
            let more = tables.read(self.queue.qid, unread_from..=last, mark, left, PEEK_BYTES)?;
            self.found.extend(more.into_iter().map(waiting));
        }
        Ok(())
    }

    fn done(self: Box<Self>, result: Result<(), SqliteError>) -> Again {
        let Self { found, reply, .. } = *self;
        answer(reply, result.map(|()| found));
        None
    }
}

fn waiting(stored: StoredMessage) -> WaitingMessage {
    WaitingMessage { deliveries: stored.deliveries() - 1, replays: stored.replays, message: stored.message }
}

/// What to do with the dead letters selected.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum DeadLetterAction {
    Replay,
    Discard,
}

/// Replays or discards dead letters.
pub(super) struct EndDead {
    pub(super) queue: Arc<Queue>,
    pub(super) which: DeadLetterSelection,
    pub(super) action: DeadLetterAction,
    pub(super) ended: usize,
    pub(super) seqs: Vec<u64>,
    pub(super) reply: Reply<usize>,
}

impl Job<EmbeddedSession> for EndDead {
    fn run(&mut self, stored: &mut Open) -> rusqlite::Result<()> {
        let tables = Tables(stored.connection());
        (self.ended, self.seqs) = (0, Vec::new());
        if self.queue.state.lock().gone {
            return Ok(());
        }
        let ids = tables.select_dead(self.queue.qid, &self.which)?;
        self.ended = ids.len();
        for id in ids {
            match self.action {
                DeadLetterAction::Discard => tables.delete_dead(id)?,
                DeadLetterAction::Replay => {
                    let seq = self.queue.state.lock().give_seq();
                    tables.replay_dead(id, self.queue.qid, seq)?;
                    self.seqs.push(seq);
                }
            }
        }
        Ok(())
    }

    fn done(self: Box<Self>, result: Result<(), SqliteError>) -> Again {
        if result.is_ok() {
            let mut state = self.queue.state.lock();
            if !state.gone {
                state.dead -= self.ended as u64;
                for seq in self.seqs {
                    state.committed_unread(seq);
                }
            }
            drop(state);
            self.queue.arrived.notify_waiters();
        }
        answer(self.reply, result.map(|()| self.ended));
        None
    }

    fn weight(&self) -> usize {
        1000
    }
}
