//! How readings are written on a queue, and how they are read from one.
//!
//! Galerna writes an [`Envelope`] as one version byte and a MessagePack map with named fields. Other publishers may write
//! JSON. [`decode`] takes all of these; the content type decides, and without one that it knows, the first byte:
//!
//! | form | content type | body |
//! |---|---|---|
//! | envelope | [`CONTENT_TYPE`] | byte `1`, then the MessagePack of [`Envelope`] |
//! | one reading | `application/json` | `{"did":"12a","values":[{"p":401,"v":4900.0}],"sqn":2152,"ts":"2015-04-21T23:15:00+00:00"}` |
//! | readings | `application/json` | `[{"did":…},…]` |
//! | a post | `application/json` | `{"source_key":"c1","body":[{"did":…},…]}` |
//!
//! A post has its readings under `readings` or `body` (an array or a single reading) and may name `source` (or
//! `source_key`), `account`, `id` and `received`. Unknown fields are ignored everywhere.
//!
//! A reading that breaks a rule is handed back as a [`BadEntry`] with a reason that names its field; it never spoils the
//! readings beside it. Only when the message as a whole cannot be read is there a [`DecodeError`].

mod fields;
mod json;
mod msgpack;
mod repair;
mod tolerant;

pub(crate) use fields::{device_id, finite};
pub use repair::isolate_bad_values;

use bytes::Bytes;
use serde::Serialize;
use serde_json::Value;

use crate::{AccountId, BadReading, Envelope, Message, Reading, SourceId, Timestamp};

/// Content type of an encoded [`Envelope`].
pub const CONTENT_TYPE: &str = "application/vnd.galerna.envelope+msgpack";

/// Content type of the JSON forms.
pub const JSON_CONTENT_TYPE: &str = "application/json";

/// The version byte that this build writes, and the only one that it reads.
pub const VERSION: u8 = 1;

/// What a message may cost before it is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DecodeLimits {
    /// Longest body in bytes.
    pub message_bytes: usize,
    /// Most readings in one message.
    pub readings: usize,
    /// Most values in one reading.
    pub values: usize,
    /// Longest device id in characters.
    pub device_id_chars: usize,
    /// Deepest nesting of a MessagePack body. JSON is limited to 128 by its parser.
    pub depth: usize,
}

impl Default for DecodeLimits {
    fn default() -> Self {
        Self { message_bytes: 8 << 20, readings: 10_000, values: 1_000, device_id_chars: 200, depth: 128 }
    }
}

/// A message read: the readings that can be used, and those that cannot.
#[derive(Debug, Clone, PartialEq)]
pub struct Decoded {
    /// The envelope's id; for JSON without one, the message's.
    pub id: String,
    /// The account, when the message names it.
    pub account: Option<AccountId>,
    /// The source, when the message names it.
    pub source: Option<SourceId>,
    /// When the publisher took the readings, when the message says so.
    pub received: Option<Timestamp>,
    /// The good readings, each with its index in the message.
    pub readings: Vec<(usize, Reading)>,
    /// The bad ones, in the order of the message.
    pub bad: Vec<BadEntry>,
}

impl Decoded {
    /// A message that holds the one bad reading alone, as a JSON post with this message's account and source. In the dead
    /// letters it can be looked at, and replayed once whatever refused it has changed.
    pub fn bad_message(&self, bad: &BadEntry) -> Message {
        let post = Post {
            id: &self.id,
            account: self.account.as_ref(),
            source: self.source.as_ref(),
            received: self.received.map(|t| t.to_string()),
            readings: [&bad.raw],
        };
        Message {
            // A struct of strings and a JSON value always serializes.
            body: serde_json::to_vec(&post).map_or_else(|_| Bytes::new(), Bytes::from),
            content_type: JSON_CONTENT_TYPE.to_owned(),
            id: format!("{}#{}", self.id, bad.index),
        }
    }
}

#[derive(Serialize)]
struct Post<'a> {
    id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    account: Option<&'a AccountId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    source: Option<&'a SourceId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    received: Option<String>,
    readings: [&'a Value; 1],
}

/// A reading of a message that breaks a rule.
#[derive(Debug, Clone, PartialEq)]
pub struct BadEntry {
    /// Its index in the message.
    pub index: usize,
    /// What is wrong with it.
    pub error: BadReading,
    /// The reading as it came. Numbers that JSON cannot hold are the strings `NaN`, `Infinity` and `-Infinity`, those out of
    /// range are their text; a reading that cannot be taken apart is its text.
    pub raw: Value,
}

/// Why a message as a whole cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// Longer than [`DecodeLimits::message_bytes`].
    #[error("message has {bytes} bytes, at most {limit} are allowed; send smaller batches")]
    TooLarge {
        /// Its length.
        bytes: usize,
        /// What is allowed.
        limit: usize,
    },
    /// Neither of the formats.
    #[error("message is neither MessagePack nor JSON (content type `{content_type}`, first bytes {start})")]
    UnknownFormat {
        /// As the publisher gave it, shortened.
        content_type: String,
        /// The first bytes in hexadecimal.
        start: String,
    },
    /// An envelope of another version.
    #[error("envelope has version {0}, this build reads version {VERSION}; upgrade the older side")]
    Version(u8),
    /// Broken MessagePack.
    #[error("envelope is not MessagePack: {0}")]
    MessagePack(String),
    /// Broken JSON.
    #[error("message is not JSON: {0}")]
    Json(String),
    /// A field of the envelope itself is missing or wrong.
    #[error("field `{field}` of the envelope {problem}")]
    Field {
        /// Its name.
        field: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// More readings than [`DecodeLimits::readings`].
    #[error("message holds {count} readings, at most {limit} are allowed; send smaller batches")]
    TooManyReadings {
        /// How many.
        count: usize,
        /// What is allowed.
        limit: usize,
    },
}

impl DecodeError {
    /// The field that is wrong; `message` for the whole.
    pub fn field(&self) -> &str {
        match self {
            Self::Field { field, .. } => field,
            Self::TooManyReadings { .. } => "readings",
            _ => "message",
        }
    }
}

impl Envelope {
    /// The message that carries this envelope.
    pub fn encode(&self) -> Message {
        let mut body = Vec::with_capacity(96 + self.readings.len() * 96);
        body.push(VERSION);
        // Writing plain data to memory cannot fail: no map of unknown length, no I/O.
        if let Err(e) = rmp_serde::encode::write_named(&mut body, self) {
            tracing::error!(error = %e, "an envelope could not be written");
        }
        Message { body: body.into(), content_type: CONTENT_TYPE.to_owned(), id: self.id.clone() }
    }
}

/// Reads a message within the default [`DecodeLimits`].
///
/// # Errors
/// [`DecodeError`] when no reading of it can be reached; the message belongs into the dead letters with that reason.
pub fn decode(message: &Message) -> Result<Decoded, DecodeError> {
    decode_within(message, &DecodeLimits::default())
}

/// Reads a message within `limits`.
///
/// # Errors
/// As [`decode`].
pub fn decode_within(message: &Message, limits: &DecodeLimits) -> Result<Decoded, DecodeError> {
    let body = &message.body[..];
    if body.len() > limits.message_bytes {
        return Err(DecodeError::TooLarge { bytes: body.len(), limit: limits.message_bytes });
    }
    match format_of(&message.content_type, body) {
        Some(Format::Json) => json::decode(without_byte_order_mark(body), &message.id, limits),
        Some(Format::Envelope) => match body {
            [VERSION, rest @ ..] => msgpack::decode(rest, limits),
            [other, ..] => Err(DecodeError::Version(*other)),
            [] => Err(DecodeError::MessagePack("it is empty".to_owned())),
        },
        None => Err(DecodeError::UnknownFormat {
            content_type: message.content_type.chars().take(60).collect(),
            start: body.iter().take(8).map(|b| format!("{b:02x}")).collect::<Vec<_>>().join(" "),
        }),
    }
}

enum Format {
    Envelope,
    Json,
}

fn format_of(content_type: &str, body: &[u8]) -> Option<Format> {
    let essence = content_type.split(';').next().unwrap_or_default().trim();
    if essence.eq_ignore_ascii_case(CONTENT_TYPE) {
        return Some(Format::Envelope);
    }
    if essence.eq_ignore_ascii_case(JSON_CONTENT_TYPE) {
        return Some(Format::Json);
    }
    match without_byte_order_mark(body).trim_ascii_start() {
        [b'{' | b'[', ..] => Some(Format::Json),
        // A small version number, then the marker of a MessagePack map.
        [1..=8, 0x80..=0x8f | 0xde | 0xdf, ..] => Some(Format::Envelope),
        _ => None,
    }
}

fn without_byte_order_mark(body: &[u8]) -> &[u8] {
    body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body)
}

/// Reads the JSON of one reading, as other publishers write it.
///
/// # Errors
/// The first rule that it breaks, with its field.
pub fn decode_reading(json: &[u8], limits: &DecodeLimits) -> Result<Reading, BadReading> {
    match serde_json::from_slice::<Reading>(json) {
        Ok(reading) if !fields::is_in_seconds(reading.ts.as_millis()) => {
            check(&reading, limits).map(|()| reading)
        }
        _ => json::single(json, limits).map_err(|(error, _)| error),
    }
}

/// Whether a time may have been written as a number of seconds: which it was, [`decode_reading`] tells by its text.
pub fn may_be_in_seconds(ts: Timestamp) -> bool {
    fields::is_in_seconds(ts.as_millis())
}

/// Checks what a reading must keep beyond its types.
///
/// # Errors
/// The first rule that it breaks, with its field.
pub fn check(reading: &Reading, limits: &DecodeLimits) -> Result<(), BadReading> {
    fields::device_id(&reading.did, limits)?;
    fields::value_count(reading.values.len(), limits)?;
    for (i, m) in reading.values.iter().enumerate() {
        fields::finite(i, m.v)?;
    }
    fields::sequence_number(reading.sqn)?;
    fields::time(reading.ts)
}

/// Sorts readings whose types are right into good and bad.
fn sort(readings: Vec<Reading>, limits: &DecodeLimits, into: &mut Decoded) -> Result<(), DecodeError> {
    count(readings.len(), limits)?;
    into.readings.reserve_exact(readings.len());
    for (index, reading) in readings.into_iter().enumerate() {
        match check(&reading, limits) {
            Ok(()) => into.readings.push((index, reading)),
            Err(error) => into.bad.push(BadEntry { index, error, raw: tolerant::from_reading(&reading) }),
        }
    }
    Ok(())
}

fn count(count: usize, limits: &DecodeLimits) -> Result<(), DecodeError> {
    let limit = limits.readings;
    if count > limit { Err(DecodeError::TooManyReadings { count, limit }) } else { Ok(()) }
}

#[cfg(test)]
mod tests;
