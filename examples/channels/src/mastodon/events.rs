//! Server-sent events, as far as Mastodon's streams use them: an event's name, its data, and comments to show that it is alive.

use std::time::Duration;

use async_trait::async_trait;
use reqwest::Response;

use super::answer;
use crate::network::{Event, EventStream, NetworkError};

/// Servers send a comment every 15 s at least; one that is silent for longer than this is gone.
const SILENCE: Duration = Duration::from_secs(60);

/// The longest event.
const LONGEST: usize = 4 << 20;

/// An open stream.
pub(super) struct Events {
    answer: Response,
    lines: Lines,
}

impl Events {
    pub(super) fn new(answer: Response) -> Self {
        Self { answer, lines: Lines::default() }
    }
}

#[async_trait]
impl EventStream for Events {
    async fn next(&mut self) -> Result<Event, NetworkError> {
        loop {
            if let Some(event) = self.lines.next()? {
                return Ok(event);
            }
            let chunk = tokio::time::timeout(SILENCE, self.answer.chunk()).await;
            let chunk = chunk
                .map_err(|_| NetworkError::Unavailable(format!("the stream was silent for {SILENCE:?}")))?;
            match chunk.map_err(|error| answer::unavailable(&error))? {
                Some(bytes) => self.lines.push(&bytes)?,
                None => return Err(NetworkError::Unavailable("the stream was cut".to_owned())),
            }
        }
    }
}

/// Bytes that become events.
#[derive(Debug, Default)]
struct Lines {
    bytes: Vec<u8>,
    /// So many of the bytes were looked at.
    taken: usize,
    name: String,
    data: String,
}

impl Lines {
    fn push(&mut self, bytes: &[u8]) -> Result<(), NetworkError> {
        self.bytes.drain(..self.taken);
        self.taken = 0;
        if self.bytes.len() + bytes.len() > LONGEST {
            return Err(NetworkError::Unavailable(format!("an event is longer than {LONGEST} bytes")));
        }
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }

    fn next(&mut self) -> Result<Option<Event>, NetworkError> {
        while let Some(end) = self.bytes[self.taken..].iter().position(|byte| *byte == b'\n') {
            let line = &self.bytes[self.taken..self.taken + end];
            let line = String::from_utf8_lossy(line.strip_suffix(b"\r").unwrap_or(line)).into_owned();
            self.taken += end + 1;
            if let Some(event) = self.line(&line)? {
                return Ok(Some(event));
            }
        }
        Ok(None)
    }

    fn line(&mut self, line: &str) -> Result<Option<Event>, NetworkError> {
        if line.starts_with(':') {
            return Ok(Some(Event::Other));
        }
        if line.is_empty() {
            let (name, data) = (std::mem::take(&mut self.name), std::mem::take(&mut self.data));
            return Ok(match name.as_str() {
                "" => None,
                "update" => Some(Event::Status(serde_json::from_str(&data).map_err(|error| {
                    NetworkError::Unavailable(format!("the stream has a status that is none: {error}"))
                })?)),
                _ => Some(Event::Other),
            });
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => value.clone_into(&mut self.name),
            "data" => {
                if !self.data.is_empty() {
                    self.data.push('\n');
                }
                if self.data.len() + value.len() > LONGEST {
                    return Err(NetworkError::Unavailable(format!(
                        "an event is longer than {LONGEST} bytes"
                    )));
                }
                self.data.push_str(value);
            }
            _ => {}
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::Status;

    fn recorded() -> Status {
        serde_json::from_str::<Vec<Status>>(include_str!("../../data/statuses.json")).unwrap().swap_remove(6)
    }

    #[test]
    fn events_are_the_same_however_their_bytes_arrive() {
        let status = recorded();
        let json = serde_json::to_string(&status).unwrap();
        let text = format!(
            ":)\n\nevent: update\r\ndata: {json}\r\n\r\n:thump\nevent: delete\ndata: 1\n\nid: 7\nevent:update\ndata:{json}\n\nevent: upd"
        );
        let expected = [
            Event::Other,
            Event::Status(Box::new(status.clone())),
            Event::Other,
            Event::Other,
            Event::Status(Box::new(status)),
        ];
        for size in [1, 2, 3, 7, 64, text.len()] {
            let mut lines = Lines::default();
            let mut events = Vec::new();
            for chunk in text.as_bytes().chunks(size) {
                lines.push(chunk).unwrap();
                while let Some(event) = lines.next().unwrap() {
                    events.push(event);
                }
            }
            assert_eq!(events, expected, "in pieces of {size}");
        }
    }

    #[test]
    fn an_event_without_an_end_and_one_that_is_no_status_are_errors() {
        let mut lines = Lines::default();
        lines.push(b"event: update\ndata: {\n\n").unwrap();
        assert!(matches!(lines.next(), Err(NetworkError::Unavailable(_))));
        let mut lines = Lines::default();
        let pushed = (0..5).map(|_| lines.push(&vec![b'x'; 1 << 20])).find(Result::is_err);
        assert!(pushed.is_some());
    }
}
