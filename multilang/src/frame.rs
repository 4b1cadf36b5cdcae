//! How messages follow one another in a pipe.
//!
//! Storm's own form is JSON with a line `end` after each message. The other one is for speed: four bytes of length (big-endian)
//! and a MessagePack array of messages, as many as there are to send. A child gets JSON and answers the handshake in JSON; what it
//! says there about `frames` holds for all that follows, both ways.

use std::fmt;
use std::marker::PhantomData;

use serde::Serialize;
use serde::de::DeserializeOwned;

/// How messages are framed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Frames {
    /// JSON, and a line `end` after each message.
    #[default]
    Json,
    /// A length and a MessagePack array of messages.
    MessagePack,
}

impl Frames {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Json, Self::MessagePack];

    /// The name in the handshake.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::MessagePack => "msgpack",
        }
    }

    pub(crate) fn by_name(name: &str) -> Result<Self, String> {
        let known = Self::ALL.into_iter().find(|frames| frames.name() == name);
        known.ok_or_else(|| format!("there are no frames called `{name}`: ask for `json` or `msgpack`"))
    }

    /// Appends messages to `bytes`. None appends nothing.
    ///
    /// # Errors
    /// A message that has no form in these frames, or more than 4 GiB of them in one frame. Nothing is appended then.
    pub fn encode<M: Serialize>(self, messages: &[M], bytes: &mut Vec<u8>) -> Result<(), WireError> {
        let start = bytes.len();
        let encoded = self.append(messages, bytes);
        if encoded.is_err() {
            bytes.truncate(start);
        }
        encoded
    }

    fn append<M: Serialize>(self, messages: &[M], bytes: &mut Vec<u8>) -> Result<(), WireError> {
        match self {
            Self::Json => {
                for message in messages {
                    serde_json::to_writer(&mut *bytes, message)
                        .map_err(|error| WireError::Encode(error.to_string()))?;
                    bytes.extend_from_slice(b"\nend\n");
                }
            }
            Self::MessagePack if messages.is_empty() => {}
            Self::MessagePack => {
                let start = bytes.len();
                bytes.extend_from_slice(&[0; 4]);
                rmp_serde::encode::write_named(&mut *bytes, messages)
                    .map_err(|error| WireError::Encode(error.to_string()))?;
                let length = u32::try_from(bytes.len() - start - 4)
                    .map_err(|_| WireError::Encode("a frame of more than 4 GiB".to_owned()))?;
                bytes[start..start + 4].copy_from_slice(&length.to_be_bytes());
            }
        }
        Ok(())
    }
}

/// What is wrong with what came through a pipe.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// Text that is no part of a message: something printed.
    #[error(
        "it wrote a line that is no message: `{0}`; standard output is for the protocol alone, print to standard error or send a `log`"
    )]
    NoMessage(String),
    /// A message that cannot be read.
    #[error("it wrote a message that cannot be read ({reason}): `{text}`")]
    Malformed {
        /// What is wrong with it.
        reason: String,
        /// The message, or its beginning.
        text: String,
    },
    /// A message that is too long.
    #[error("it wrote a message of more than {limit} bytes; raise `max_message` if that is meant")]
    TooLong {
        /// The longest that is taken, in bytes.
        limit: usize,
    },
    /// A message that cannot be written.
    #[error("a message has no form in the pipe: {0}")]
    Encode(String),
}

/// The most of a text that errors show.
const SHOWN: usize = 500;

fn shown(bytes: &[u8]) -> String {
    let cut = &bytes[..bytes.len().min(SHOWN)];
    let mut text = String::from_utf8_lossy(cut).trim_end().to_owned();
    if cut.len() < bytes.len() {
        text.push('…');
    }
    text
}

/// Takes messages out of what comes through a pipe, wherever it is cut.
pub struct Decoder<M> {
    frames: Frames,
    limit: usize,
    buffer: Vec<u8>,
    /// Where the unread part of the buffer begins.
    read: usize,
    /// Up to where it was looked through for the end of a line.
    scanned: usize,
    /// Of the message that is being read: where its lines end so far.
    message_end: usize,
    /// Messages of the frame that was read last, in reverse.
    decoded: Vec<M>,
    marker: PhantomData<fn() -> M>,
}

impl<M: DeserializeOwned> Decoder<M> {
    /// A decoder of these frames, for messages of up to so many bytes.
    pub fn new(frames: Frames, limit: usize) -> Self {
        Self {
            frames,
            limit,
            buffer: Vec::new(),
            read: 0,
            scanned: 0,
            message_end: 0,
            decoded: Vec::new(),
            marker: PhantomData,
        }
    }

    /// What is not read yet is in these frames.
    pub fn set_frames(&mut self, frames: Frames) {
        self.frames = frames;
    }

    /// Takes what came.
    pub fn feed(&mut self, bytes: &[u8]) {
        if self.read > 0 && (self.read == self.buffer.len() || self.read >= 1 << 16) {
            self.buffer.drain(..self.read);
            self.scanned -= self.read;
            self.message_end = self.message_end.saturating_sub(self.read);
            self.read = 0;
        }
        self.buffer.extend_from_slice(bytes);
    }

    /// The next message, if it is whole.
    ///
    /// # Errors
    /// What came is no message, or too long for one. What follows cannot be relied on then.
    pub fn next_message(&mut self) -> Result<Option<M>, WireError> {
        if let Some(message) = self.decoded.pop() {
            return Ok(Some(message));
        }
        match self.frames {
            Frames::Json => self.next_json(),
            Frames::MessagePack => self.next_frame(),
        }
    }

    /// What is left when no more comes: text that is no message, or a message cut off.
    ///
    /// # Errors
    /// If there is anything but blank lines.
    pub fn finish(&self) -> Result<(), WireError> {
        let rest = &self.buffer[self.read..];
        if rest.iter().all(u8::is_ascii_whitespace) {
            return Ok(());
        }
        let begins_message =
            matches!(rest.iter().find(|byte| !byte.is_ascii_whitespace()), Some(b'{' | b'['));
        if self.frames == Frames::Json && !begins_message {
            return Err(WireError::NoMessage(shown(rest)));
        }
        Err(WireError::Malformed { reason: "it ends in the middle".to_owned(), text: shown(rest) })
    }

    fn next_json(&mut self) -> Result<Option<M>, WireError> {
        loop {
            let from = self.scanned.max(self.read);
            let Some(at) = self.buffer[from..].iter().position(|byte| *byte == b'\n') else {
                self.scanned = self.buffer.len();
                if self.buffer.len() - self.read > self.limit {
                    return Err(WireError::TooLong { limit: self.limit });
                }
                return Ok(None);
            };
            let end = from + at + 1;
            let start = self.message_end.max(self.read);
            self.scanned = end;
            let line = self.buffer[start..end].trim_ascii_end();
            let begins = start == self.read;
            if line.is_empty() {
                // Blank lines are no part of a message: some write them to keep the pipe alive.
                if begins {
                    self.read = end;
                }
                self.message_end = end;
            } else if line == b"end" {
                let text = &self.buffer[self.read..start];
                let message = if begins {
                    Err(WireError::NoMessage("end".to_owned()))
                } else {
                    serde_json::from_slice(text).map(Some).map_err(|error| WireError::Malformed {
                        reason: error.to_string(),
                        text: shown(text),
                    })
                };
                (self.read, self.message_end) = (end, end);
                return message;
            } else if begins && !matches!(line.trim_ascii_start().first(), Some(b'{' | b'[')) {
                let error = WireError::NoMessage(shown(line));
                (self.read, self.message_end) = (end, end);
                return Err(error);
            } else {
                self.message_end = end;
                if end - self.read > self.limit {
                    return Err(WireError::TooLong { limit: self.limit });
                }
            }
        }
    }

    fn next_frame(&mut self) -> Result<Option<M>, WireError> {
        loop {
            let rest = &self.buffer[self.read..];
            let Some((length, rest)) = rest.split_first_chunk::<4>() else { return Ok(None) };
            let length = u32::from_be_bytes(*length) as usize;
            if length > self.limit {
                return Err(WireError::TooLong { limit: self.limit });
            }
            let Some(frame) = rest.get(..length) else { return Ok(None) };
            let messages: Result<Vec<M>, _> = rmp_serde::from_slice(frame);
            self.decoded = messages.map_err(|error| WireError::Malformed {
                reason: error.to_string(),
                text: format!("MessagePack of {length} bytes"),
            })?;
            self.decoded.reverse();
            self.read += 4 + length;
            self.scanned = self.read;
            self.message_end = self.read;
            if let Some(message) = self.decoded.pop() {
                return Ok(Some(message));
            }
        }
    }
}

impl<M> fmt::Debug for Decoder<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unread = self.buffer.len() - self.read;
        f.debug_struct("Decoder")
            .field("frames", &self.frames)
            .field("unread", &unread)
            .finish_non_exhaustive()
    }
}
