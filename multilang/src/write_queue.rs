//! What waits to be written to a child.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::sync::Notify;

use crate::frame::Frames;
use crate::message::{Id, ToChild, TupleMessage};

/// How many messages are written at once at most.
const TOGETHER: usize = 64;
/// How many answers may wait: a child that asks and does not read gets no further.
const MOST_ANSWERS: usize = 100_000;

/// Messages that wait: a heartbeat before everything, then answers and commands, then tuples.
#[derive(Debug, Default)]
pub(crate) struct WriteQueue {
    state: Mutex<State>,
    more: Notify,
    room: Notify,
}

#[derive(Debug, Default)]
struct State {
    frames: Frames,
    heartbeat: bool,
    urgent: VecDeque<ToChild>,
    tuples: VecDeque<ToChild>,
    /// Tuples that wait, and those that are being written.
    unwritten: usize,
    closed: bool,
}

/// The child does not read the answers that it asks for.
#[derive(Debug)]
pub(crate) struct Unread;

impl WriteQueue {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is written from now on is in these frames.
    pub(crate) fn set_frames(&self, frames: Frames) {
        self.state().frames = frames;
    }

    pub(crate) fn heartbeat(&self) {
        self.state().heartbeat = true;
        self.more.notify_one();
    }

    pub(crate) fn urgent(&self, message: ToChild) -> Result<(), Unread> {
        let mut state = self.state();
        if state.urgent.len() >= MOST_ANSWERS {
            return Err(Unread);
        }
        state.urgent.push_back(message);
        drop(state);
        self.more.notify_one();
        Ok(())
    }

    pub(crate) fn tuple(&self, tuple: TupleMessage) {
        let mut state = self.state();
        state.tuples.push_back(ToChild::Tuple(tuple));
        state.unwritten += 1;
        drop(state);
        self.more.notify_one();
    }

    /// How many tuples are not written yet.
    pub(crate) fn unwritten(&self) -> usize {
        self.state().unwritten
    }

    /// Resolves when fewer tuples than this are not written yet. Cancel-safe.
    pub(crate) async fn room(&self, max: usize) {
        loop {
            let more = self.room.notified();
            if self.unwritten() < max {
                return;
            }
            more.await;
        }
    }

    /// No more comes: what waits is written, and then the pipe is closed.
    pub(crate) fn close(&self) {
        self.state().closed = true;
        self.more.notify_one();
    }

    /// Takes what is next, and says how many tuples are among it. Nothing is left when the queue is closed.
    async fn take(&self, messages: &mut Vec<ToChild>) -> Option<(Frames, usize)> {
        loop {
            {
                let mut state = self.state();
                if std::mem::take(&mut state.heartbeat) {
                    // No tuple has this id: a heartbeat must not be acked.
                    messages.push(ToChild::Tuple(TupleMessage::heartbeat(Id::from("0"))));
                }
                let urgent = state.urgent.len().min(TOGETHER);
                messages.extend(state.urgent.drain(..urgent));
                let tuples = state.tuples.len().min(TOGETHER.saturating_sub(messages.len()));
                messages.extend(state.tuples.drain(..tuples));
                if !messages.is_empty() {
                    return Some((state.frames, tuples));
                }
                if state.closed {
                    return None;
                }
            }
            self.more.notified().await;
        }
    }

    /// Writes what comes until the queue is closed or the pipe is.
    pub(crate) async fn write_to(&self, mut pipe: impl AsyncWrite + Unpin) {
        let (mut messages, mut bytes) = (Vec::new(), Vec::new());
        while let Some((frames, tuples)) = self.take(&mut messages).await {
            if let Err(error) = frames.encode(&messages, &mut bytes) {
                // All that is sent are values of JSON, which have a form in both.
                tracing::error!(target: "galerna::multilang", %error, "a message to a child was not sent");
            }
            messages.clear();
            // A child that reads no more may still have something to say: it is over when its output ends.
            let written = pipe.write_all(&bytes).await;
            bytes.clear();
            {
                let mut state = self.state();
                state.unwritten = state.unwritten.saturating_sub(tuples);
            }
            self.room.notify_waiters();
            if written.is_err() {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tuple(id: &str) -> TupleMessage {
        let (component, stream) = (Some("words".into()), "default".into());
        TupleMessage { id: Id::from(id), component, stream, task: 1, values: Vec::new() }
    }

    /// A child that waits for an answer or must show that it lives would else wait for what waits for it.
    #[tokio::test]
    async fn heartbeats_go_before_answers_and_these_before_tuples() {
        let queue = WriteQueue::default();
        queue.tuple(tuple("1"));
        queue.urgent(ToChild::TaskIds(vec![7])).expect("there is room");
        queue.tuple(tuple("2"));
        queue.heartbeat();
        let mut messages = Vec::new();
        queue.take(&mut messages).await.expect("it is open");
        let heartbeat = ToChild::Tuple(TupleMessage::heartbeat(Id::from("0")));
        let tuples = ["1", "2"].map(|id| ToChild::Tuple(tuple(id)));
        assert_eq!(messages[..2], [heartbeat, ToChild::TaskIds(vec![7])]);
        assert_eq!(messages[2..], tuples);
        assert_eq!(queue.unwritten(), 2, "answers are not bounded by what waits");
    }
}
