//! Messages in AMQP's terms, and what Galerna notes in their headers.

use std::sync::atomic::{AtomicU32, Ordering};

use bytes::Bytes;
use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldTable, ShortString};

use crate::{DeadLetter, Failure};
use galerna_model::{Message, Timestamp};

/// Deliveries before this copy was made.
const DELIVERIES: &str = "x-galerna-deliveries";
/// How many of them ended as failures.
const FAILURES: &str = "x-galerna-failures";
const REASON: &str = "x-galerna-reason";
const COMPONENT: &str = "x-galerna-component";
const AT: &str = "x-galerna-at";
/// How often it was put back from the dead letters.
const REPLAYS: &str = "x-galerna-replays";
const DEAD_ID: &str = "x-galerna-dead-id";
/// How often a quorum queue has taken this copy back.
const RETURNED: &str = "x-delivery-count";

/// All headers of a message must fit in a frame with room to spare.
const LONGEST_REASON: usize = 4096;

/// AMQP's persistent delivery mode.
const PERSISTENT: u8 = 2;

/// How often a message has been delivered before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Past {
    pub(super) failures: u32,
    pub(super) returns: u32,
    /// The part of `returns` that the queue itself counted for this copy.
    pub(super) returned_copy: u32,
}

impl Past {
    pub(super) fn of(properties: &BasicProperties, redelivered: bool) -> Self {
        let failures = number(properties, FAILURES).unwrap_or(0);
        let before = number(properties, DELIVERIES).unwrap_or(0).saturating_sub(failures);
        // A classic queue only says whether.
        let returned_copy = number(properties, RETURNED).unwrap_or(u32::from(redelivered));
        Self { failures, returns: before.saturating_add(returned_copy), returned_copy }
    }

    /// Which delivery this one is.
    pub(super) fn deliveries(self) -> u32 {
        self.failures.saturating_add(self.returns).saturating_add(1)
    }
}

/// As many bytes of text as fit, cut between characters.
fn short(text: &str, longest: usize) -> &str {
    &text[..text.floor_char_boundary(longest)]
}

fn short_string(text: &str) -> ShortString {
    ShortString::try_new(short(text, 255)).unwrap_or_default()
}

/// Properties of a new message.
pub(super) fn of_new(message: &Message) -> BasicProperties {
    let properties =
        BasicProperties::default().with_delivery_mode(PERSISTENT).with_message_id(short_string(&message.id));
    if message.content_type.is_empty() {
        properties
    } else {
        properties.with_content_type(short_string(&message.content_type))
    }
}

/// Properties of a copy that is to be delivered again with this past.
pub(super) fn of_copy(original: &BasicProperties, past: Past) -> BasicProperties {
    let mut headers = foreign(original);
    headers.insert(FAILURES.into(), AMQPValue::LongLongInt(past.failures.into()));
    headers.insert(DELIVERIES.into(), AMQPValue::LongLongInt((past.failures + past.returns).into()));
    original.clone().with_delivery_mode(PERSISTENT).with_headers(headers)
}

/// Properties of a copy that begins anew, but for the count of replays.
pub(super) fn of_replay(original: &BasicProperties) -> BasicProperties {
    let mut headers = foreign(original);
    let replays = replays(original).saturating_add(1);
    headers.insert(REPLAYS.into(), AMQPValue::LongLongInt(replays.into()));
    original.clone().with_delivery_mode(PERSISTENT).with_headers(headers)
}

/// Properties of a message of this many replays.
pub(super) fn with_replays(properties: BasicProperties, replays: u32) -> BasicProperties {
    if replays == 0 {
        return properties;
    }
    let mut headers = properties.headers().clone().unwrap_or_default();
    headers.insert(REPLAYS.into(), AMQPValue::LongLongInt(replays.into()));
    properties.with_headers(headers)
}

/// How often a message was put back from the dead letters.
pub(super) fn replays(properties: &BasicProperties) -> u32 {
    number(properties, REPLAYS).unwrap_or(0)
}

/// Properties of a copy that goes to the dead letters.
pub(super) fn of_dead(
    original: &BasicProperties,
    failure: &Failure,
    at: Timestamp,
    deliveries: u32,
) -> BasicProperties {
    static SERIAL: AtomicU32 = AtomicU32::new(0);
    // In the order of time, and within a millisecond of this process in the order of dying.
    let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
    let id = format!("{:013}-{serial:08x}-{:04x}", at.as_millis(), fastrand::u16(..));
    let mut headers = foreign(original);
    let text = |text: &str| AMQPValue::LongString(text.into());
    headers.insert(REASON.into(), text(short(&failure.reason, LONGEST_REASON)));
    headers.insert(COMPONENT.into(), text(short(&failure.component, 255)));
    headers.insert(AT.into(), AMQPValue::LongLongInt(at.as_millis()));
    headers.insert(DELIVERIES.into(), AMQPValue::LongLongInt(deliveries.into()));
    headers.insert(DEAD_ID.into(), text(&id));
    original.clone().with_delivery_mode(PERSISTENT).with_headers(headers)
}

/// The headers that are neither ours nor the broker's.
fn foreign(properties: &BasicProperties) -> FieldTable {
    let mut kept = FieldTable::default();
    if let Some(headers) = properties.headers() {
        for (name, value) in headers {
            let name_text = name.as_str();
            // How often a message was replayed stays with it through all that happens to it.
            let ours = (name_text.starts_with("x-galerna-") && name_text != REPLAYS) || name_text == RETURNED;
            if !ours && !name_text.starts_with("x-death") && !name_text.starts_with("x-first-death") {
                kept.insert(name.clone(), value.clone());
            }
        }
    }
    kept
}

pub(super) fn message(properties: &BasicProperties, body: Bytes) -> Message {
    let text = |s: &Option<ShortString>| s.as_ref().map_or_else(String::new, |s| s.as_str().to_owned());
    Message { body, content_type: text(properties.content_type()), id: text(properties.message_id()) }
}

/// The id of a message among the dead letters.
pub(super) fn dead_id(properties: &BasicProperties, body: &[u8]) -> String {
    text(properties, DEAD_ID).unwrap_or_else(|| {
        // Put there by somebody else: named by what it is, the same at each look.
        use std::hash::{DefaultHasher, Hash, Hasher};
        let mut hasher = DefaultHasher::new();
        body.hash(&mut hasher);
        properties.message_id().as_ref().map(ShortString::as_str).hash(&mut hasher);
        format!("foreign-{:016x}", hasher.finish())
    })
}

pub(super) fn dead_letter(properties: &BasicProperties, body: Bytes) -> DeadLetter {
    let message = message(properties, body);
    DeadLetter {
        id: dead_id(properties, &message.body),
        failure: Failure {
            reason: text(properties, REASON).unwrap_or_else(|| "put there by another program".to_owned()),
            component: text(properties, COMPONENT).unwrap_or_default(),
        },
        at: Timestamp(header(properties, AT).and_then(integer).unwrap_or(0)),
        deliveries: number(properties, DELIVERIES).unwrap_or(0),
        replays: replays(properties),
        content_type: message.content_type,
        body: message.body,
    }
}

fn header<'a>(properties: &'a BasicProperties, name: &str) -> Option<&'a AMQPValue> {
    properties.headers().as_ref()?.inner().get(name)
}

fn text(properties: &BasicProperties, name: &str) -> Option<String> {
    match header(properties, name)? {
        AMQPValue::LongString(text) => Some(String::from_utf8_lossy(text.as_bytes()).into_owned()),
        AMQPValue::ShortString(text) => Some(text.as_str().to_owned()),
        _ => None,
    }
}

fn number(properties: &BasicProperties, name: &str) -> Option<u32> {
    integer(header(properties, name)?).and_then(|n| u32::try_from(n).ok())
}

fn integer(value: &AMQPValue) -> Option<i64> {
    Some(match value {
        AMQPValue::LongLongInt(n) => *n,
        AMQPValue::LongInt(n) => (*n).into(),
        AMQPValue::LongUInt(n) => (*n).into(),
        AMQPValue::ShortInt(n) => (*n).into(),
        AMQPValue::ShortUInt(n) => (*n).into(),
        AMQPValue::ShortShortInt(n) => (*n).into(),
        AMQPValue::ShortShortUInt(n) => (*n).into(),
        _ => return None,
    })
}
