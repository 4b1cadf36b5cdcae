//! Messages on a queue, and on their way through a topology.

use std::fmt;

use bytes::Bytes;
use serde::de::{self, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{AccountId, QueueName};

/// A message to publish.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Message {
    /// The body.
    #[serde(serialize_with = "write_body", deserialize_with = "read_body")]
    pub body: Bytes,
    /// MIME type, for instance `application/json`.
    pub content_type: String,
    /// Id for tracing; carried as the AMQP message id.
    pub id: String,
}

/// A message that was consumed from an account's queue, with what is known of how it came: the tuple that the leased-queue
/// spout emits and validation takes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Incoming {
    /// The queue it came from.
    pub queue: QueueName,
    /// The account that owns the queue.
    pub account: AccountId,
    /// Epoch of the lease under which it was consumed; 0 when no lease was needed. A gap between two epochs of one queue
    /// tells that somebody else consumed it in between.
    pub epoch: u64,
    /// How many times it has been delivered, this one included.
    pub deliveries: u32,
    /// How many times it was put back from the dead letters.
    pub replays: u32,
    /// The message.
    pub message: Message,
}

/// A body that is text is a text: in JSON bytes are a list of numbers, four times as long.
fn write_body<S: Serializer>(body: &Bytes, serializer: S) -> Result<S::Ok, S::Error> {
    match std::str::from_utf8(body) {
        Ok(text) => serializer.serialize_str(text),
        Err(_) => serializer.serialize_bytes(body),
    }
}

fn read_body<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Bytes, D::Error> {
    struct Body;
    impl<'de> Visitor<'de> for Body {
        type Value = Bytes;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a body: a text, or bytes")
        }

        fn visit_str<E: de::Error>(self, text: &str) -> Result<Bytes, E> {
            Ok(Bytes::copy_from_slice(text.as_bytes()))
        }

        fn visit_string<E: de::Error>(self, text: String) -> Result<Bytes, E> {
            Ok(text.into())
        }

        fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<Bytes, E> {
            Ok(Bytes::copy_from_slice(bytes))
        }

        fn visit_byte_buf<E: de::Error>(self, bytes: Vec<u8>) -> Result<Bytes, E> {
            Ok(bytes.into())
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut numbers: A) -> Result<Bytes, A::Error> {
            let mut bytes = Vec::new();
            while let Some(byte) = numbers.next_element::<u8>()? {
                bytes.push(byte);
            }
            Ok(bytes.into())
        }
    }
    deserializer.deserialize_any(Body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_of_text_and_of_bytes_come_through_json_and_message_pack_as_they_were() {
        for body in [&b"{\"a\": 1}"[..], &[0xff, 0, 1], b"", "\u{e9}".as_bytes()] {
            let message = Message {
                body: Bytes::copy_from_slice(body),
                content_type: "application/json".to_owned(),
                id: "7".to_owned(),
            };
            let json = serde_json::to_string(&message).expect("it has a form");
            assert_eq!(serde_json::from_str::<Message>(&json).expect("it is what was written"), message);
            let packed = rmp_serde::to_vec_named(&message).expect("it has a form");
            assert_eq!(rmp_serde::from_slice::<Message>(&packed).expect("it is what was written"), message);
        }
    }
}
