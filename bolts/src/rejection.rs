//! Why a reading is refused, and what becomes of it.

use std::fmt;

use galerna_broker::NewDeadLetter;
use galerna_model::{AccountId, Message, QueueName, SourceId, Timestamp};
use galerna_storage::RejectedReading;

/// The classes of refusal: a closed set, so that counts by class can be compared over time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RejectCode {
    /// The message as a whole cannot be read.
    Undecodable,
    /// A field is missing or of the wrong type.
    Malformed,
    /// The device id is empty, too long or holds control characters.
    Device,
    /// The reading has no value.
    NoValues,
    /// The reading has too many values.
    TooManyValues,
    /// A parameter occurs twice in the reading.
    DuplicateParameter,
    /// A parameter code is in no registry.
    UnknownParameter,
    /// A value is NaN or infinite.
    NotANumber,
    /// A value is not possible for its parameter.
    OutOfRange,
    /// The time is not an instant: not RFC 3339, or without a zone.
    BadTime,
    /// The time is further in the future than clocks may be wrong.
    TimeInFuture,
    /// The time is before any reading that there can be.
    TimeTooOld,
}

impl RejectCode {
    /// All classes, in the order of this declaration.
    pub const ALL: [Self; 12] = [
        Self::Undecodable,
        Self::Malformed,
        Self::Device,
        Self::NoValues,
        Self::TooManyValues,
        Self::DuplicateParameter,
        Self::UnknownParameter,
        Self::NotANumber,
        Self::OutOfRange,
        Self::BadTime,
        Self::TimeInFuture,
        Self::TimeTooOld,
    ];

    /// Its name in the store, in reports and in metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Undecodable => "undecodable",
            Self::Malformed => "malformed",
            Self::Device => "device",
            Self::NoValues => "no_values",
            Self::TooManyValues => "too_many_values",
            Self::DuplicateParameter => "duplicate_parameter",
            Self::UnknownParameter => "unknown_parameter",
            Self::NotANumber => "not_a_number",
            Self::OutOfRange => "out_of_range",
            Self::BadTime => "bad_time",
            Self::TimeInFuture => "time_in_future",
            Self::TimeTooOld => "time_too_old",
        }
    }

    /// The class of a reason that the codec gave. Its reasons begin with the field (`did is empty`,
    /// `values[1].v is NaN`), which is what the class is told by.
    pub(crate) fn of_codec_reason(reason: &str) -> Self {
        if reason.starts_with("did has")
            || reason.starts_with("did holds")
            || reason.starts_with("did is empty")
        {
            Self::Device
        } else if reason.starts_with("values has") {
            Self::TooManyValues
        } else if reason.starts_with("values[")
            && (reason.ends_with("is NaN") || reason.ends_with("is infinite"))
        {
            Self::NotANumber
        } else if reason.starts_with("values[") && reason.ends_with("a number out of range") {
            Self::OutOfRange
        } else if reason.starts_with("ts") && !reason.ends_with("is missing") {
            Self::BadTime
        } else {
            Self::Malformed
        }
    }
}

impl fmt::Display for RejectCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why a reading is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejection {
    /// Its class.
    pub code: RejectCode,
    /// What is wrong, for people; begins with the field.
    pub reason: String,
}

/// A refused reading, or a whole message that could not be read: what is recorded, and what can be replayed.
#[derive(Debug, Clone)]
pub struct Refusal {
    /// For the store of rejected readings.
    pub record: RejectedReading,
    /// For the dead letters of its queue.
    pub letter: NewDeadLetter,
}

/// What one message held that was refused.
#[derive(Debug, Clone)]
pub struct RejectedBatch {
    /// The queue it came from.
    pub queue: QueueName,
    /// The id of the message.
    pub message: String,
    /// At least one refusal.
    pub refusals: Vec<Refusal>,
}

/// The most characters of a refused text that are kept for showing; the dead letter has the whole.
const RAW_CHARS: usize = 500;
const DEVICE_CHARS: usize = 200;

/// What is known of a refused reading beside its rejection.
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
}

impl Refused<'_> {
    pub(crate) fn because(&self, rejection: Rejection, replay: Message) -> Refusal {
        let record = RejectedReading {
            id: self.id(),
            account: self.account.clone(),
            source: self.source.cloned(),
            device: self.device.map(|did| shorten(did, DEVICE_CHARS)),
            ts: self.ts,
            code: rejection.code.as_str().to_owned(),
            reason: rejection.reason.clone(),
            // Only the start is made text: a bad message may be large.
            raw: shorten(&String::from_utf8_lossy(&self.raw[..self.raw.len().min(4 * RAW_CHARS)]), RAW_CHARS),
            at: self.now,
        };
        let failure =
            galerna_broker::Failure { reason: rejection.reason, component: self.component.to_owned() };
        Refusal { record, letter: NewDeadLetter { message: replay, failure } }
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
    fn the_codecs_reasons_fall_into_classes() {
        let cases = [
            ("did is empty", RejectCode::Device),
            ("did has 10000 characters, at most 200 are allowed", RejectCode::Device),
            ("did holds a control character", RejectCode::Device),
            ("did is null, not text", RejectCode::Malformed),
            ("did is missing", RejectCode::Malformed),
            ("values has 1001 entries, at most 1000 are allowed", RejectCode::TooManyValues),
            ("values[1].v is 1e999, a number out of range", RejectCode::OutOfRange),
            ("values[1].v is NaN", RejectCode::NotANumber),
            ("values[0].v is infinite", RejectCode::NotANumber),
            ("values[0].v is text, not a number", RejectCode::Malformed),
            ("values is null, not an array", RejectCode::Malformed),
            ("ts: time `2015-04-21T23:15:00` has no zone", RejectCode::BadTime),
            ("ts is a boolean, not RFC 3339 text nor milliseconds", RejectCode::BadTime),
            ("ts is missing", RejectCode::Malformed),
            ("reading is a number, not an object", RejectCode::Malformed),
        ];
        for (reason, code) in cases {
            assert_eq!(RejectCode::of_codec_reason(reason), code, "{reason}");
        }
    }

    #[test]
    fn long_and_odd_text_is_shortened_on_a_character() {
        assert_eq!(shorten("ab\ncé", 4), "ab c…");
        assert_eq!(shorten("ab", 2), "ab");
        assert_eq!(shorten("", 2), "");
    }
}
