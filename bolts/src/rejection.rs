//! Why a reading is refused, and what becomes of it.

use galerna_broker::NewDeadLetter;
use galerna_model::{AccountId, BadReading, Message, QueueName, SourceId, Timestamp};
use galerna_storage::RejectedReading;
use serde::{Deserialize, Serialize};

/// A refused reading, or a whole message that could not be read: what is recorded, and what can be replayed.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Rejection {
    /// For the store of rejected readings.
    pub record: RejectedReading,
    /// For the dead letters of its queue.
    pub letter: NewDeadLetter,
}

/// What one message held that was refused.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RejectedBatch {
    /// The queue it came from.
    pub queue: QueueName,
    /// The id of the message.
    pub message: String,
    /// At least one rejection.
    pub rejections: Vec<Rejection>,
}

/// The most characters of a refused text that are kept for showing; the dead letter has the whole.
const RAW_CHARS: usize = 500;
const DEVICE_CHARS: usize = 200;

/// What is known of a refused reading beside its fault.
pub(crate) struct Refused<'a> {
    pub(crate) queue: &'a QueueName,
    pub(crate) account: &'a AccountId,
    pub(crate) source: Option<&'a SourceId>,
    pub(crate) device: Option<&'a str>,
    pub(crate) ts: Option<Timestamp>,
    /// The message's id and the reading's index in it; no index for a whole message.
    pub(crate) message: (&'a str, Option<usize>),
    pub(crate) raw: &'a [u8],
    pub(crate) now: Timestamp,
    pub(crate) component: &'a str,
    /// How often the message was replayed.
    pub(crate) replays: u32,
}

impl Refused<'_> {
    pub(crate) fn because(&self, error: BadReading, replay: Message) -> Rejection {
        let record = RejectedReading {
            id: self.id(),
            account: self.account.clone(),
            source: self.source.cloned(),
            device: self.device.map(|did| shorten(did, DEVICE_CHARS)),
            ts: self.ts,
            code: error.code.as_str().to_owned(),
            field: Some(error.field),
            reason: error.reason.clone(),
            // Only the start is made text: a bad message may be large.
            raw: shorten(&String::from_utf8_lossy(&self.raw[..self.raw.len().min(4 * RAW_CHARS)]), RAW_CHARS),
            at: self.now,
        };
        let failure = galerna_broker::Failure { reason: error.reason, component: self.component.to_owned() };
        Rejection { record, letter: NewDeadLetter { message: replay, failure, replays: self.replays } }
    }

    /// The same for every delivery of the same message. The hash tells apart messages whose publisher gives all of them
    /// one id, or none.
    fn id(&self) -> String {
        let (id, index) = self.message;
        let hash = fnv1a(self.raw);
        match index {
            Some(index) => format!("{}/{}#{index}-{hash:016x}", self.queue, shorten(id, DEVICE_CHARS)),
            None => format!("{}/{}-{hash:016x}", self.queue, shorten(id, DEVICE_CHARS)),
        }
    }
}

/// At most `chars` characters, control characters shown as spaces, with an ellipsis when something was cut.
fn shorten(text: &str, chars: usize) -> String {
    let mut shown: String = text.chars().take(chars).map(|c| if c.is_control() { ' ' } else { c }).collect();
    if text.chars().nth(chars).is_some() {
        shown.push('…');
    }
    shown
}

/// FNV-1a, 64 bits (Fowler, Noll, Vo): stable across builds and machines, which the standard hasher is not.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_and_odd_text_is_shortened_on_a_character() {
        assert_eq!(shorten("ab\ncé", 4), "ab c…");
        assert_eq!(shorten("ab", 2), "ab");
        assert_eq!(shorten("", 2), "");
    }
}
