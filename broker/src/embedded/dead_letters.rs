//! What is done to dead letters, in transactions of the writer.

use std::sync::Arc;

use galerna_sqlite::{Job, SqliteError};

use super::jobs::{Again, Open, Reply, answer, deleted_meanwhile};
use super::queue::Queue;
use super::tables::Tables;
use super::{EmbeddedSession, Shared};
use crate::{DeadLetter, DeadLetterSelection, NewDeadLetter};

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
        self.letters.iter().try_for_each(|l| tables.add_dead(self.queue.qid, now, &l.message, &l.failure))
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
