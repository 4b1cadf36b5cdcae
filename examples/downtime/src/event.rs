//! What is heard of a line.

use galerna_model::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Most characters of a line's name.
const LONGEST_NAME: usize = 200;
/// Events before 2000-01-01 come from clocks that were never set.
const EARLIEST: Timestamp = Timestamp(946_684_800_000);
/// So far may a clock be ahead, in milliseconds.
const AHEAD_MS: i64 = 5 * 60_000;

/// What an event says of its line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum EventKind {
    /// It produces.
    Up,
    /// It stands still.
    Down,
    /// Its controller is alive. A line that has sent heartbeats and falls silent counts as down.
    Heartbeat,
}

macro_rules! word {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $text:literal,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
        #[serde(rename_all = "snake_case")]
        pub enum $name { $($(#[$variant_doc])* $variant,)* }

        impl $name {
            /// As it is stored, and written in JSON.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }

            /// What [`Self::as_str`] wrote.
            pub fn parse(text: &str) -> Option<Self> {
                match text { $($text => Some(Self::$variant),)* _ => None }
            }
        }
    };
}
pub(crate) use word;

word! {
    /// Whether a line produces.
    LineState {
        /// It produces.
        Up = "up",
        /// It stands still.
        Down = "down",
    }
}

word! {
    /// How it is known that a line is down.
    Cause {
        /// An event said so.
        Reported = "reported",
        /// Its heartbeats stopped.
        Silence = "silence",
    }
}

/// Where an event comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// Somebody said at which time it happened. Line and time name the event: the same again changes nothing.
    Reported,
    /// Somebody saw the line in this state at this time; it may have been so for long. It counts only if the state is another than the
    /// known one.
    Seen,
    /// Nothing was heard of the line since this time. It counts only if that is still so.
    Silence {
        /// When it was last heard of.
        heard: Timestamp,
    },
}

/// Something that was heard of a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// The line.
    pub line: String,
    /// When it happened.
    pub at: Timestamp,
    /// What.
    pub kind: EventKind,
    /// How it is known.
    pub source: Source,
}

/// An event as it is posted.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PostedEvent {
    /// The line: up to 200 characters.
    pub line: String,
    /// When it happened, RFC 3339 with an offset; the time of its arrival if it is left out. Give it, so that the event is known again
    /// when it is posted twice.
    #[serde(default)]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub at: Option<String>,
    /// What happened.
    pub kind: EventKind,
}

/// What is wrong with an event.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {reason}")]
pub struct BadEvent {
    /// The field.
    pub field: &'static str,
    /// Why, and what would be right.
    pub reason: String,
}

impl PostedEvent {
    /// Checks it. `now` is the wall time.
    ///
    /// # Errors
    /// The first field that is wrong.
    pub fn check(self, now: Timestamp) -> Result<Event, BadEvent> {
        check_line(&self.line)?;
        let at = match self.at {
            None => now,
            Some(text) => {
                Timestamp::parse(&text).map_err(|why| BadEvent { field: "at", reason: why.to_string() })?
            }
        };
        check_time(at, now)?;
        Ok(Event { line: self.line, at, kind: self.kind, source: Source::Reported })
    }
}

/// Checks the name of a line.
///
/// # Errors
/// When it is empty, too long, or has control characters or space around it.
pub fn check_line(line: &str) -> Result<(), BadEvent> {
    let reason = if line.is_empty() {
        "it is empty; write the line's name"
    } else if line.chars().count() > LONGEST_NAME {
        "it is longer than 200 characters"
    } else if line.chars().any(char::is_control) {
        "it has control characters"
    } else if line.trim() != line {
        "it begins or ends with a space"
    } else {
        return Ok(());
    };
    Err(BadEvent { field: "line", reason: reason.to_owned() })
}

/// Checks the time of an event.
///
/// # Errors
/// When no clock that is set right can have said it.
pub fn check_time(at: Timestamp, now: Timestamp) -> Result<(), BadEvent> {
    let reason = if at < EARLIEST {
        format!("{at} is before the year 2000; is the clock set?")
    } else if at.millis_since(now) > AHEAD_MS {
        format!("{at} is more than 5 minutes ahead; is the clock set?")
    } else {
        return Ok(());
    };
    Err(BadEvent { field: "at", reason })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_with_an_event_is_told_by_its_field() {
        let now = Timestamp::parse("2026-01-01T00:00:00Z").unwrap();
        let long = "x".repeat(201);
        for (line, at, field) in [
            ("press 1", Some("2025-12-31T23:59:59Z"), None),
            ("press 1", None, None),
            ("press 1", Some("2026-01-01T00:05:00Z"), None),
            ("", None, Some("line")),
            (" press", None, Some("line")),
            ("pre\nss", None, Some("line")),
            (&long, None, Some("line")),
            ("press 1", Some("2025-12-31T23:59:59"), Some("at")),
            ("press 1", Some("yesterday"), Some("at")),
            ("press 1", Some("1970-01-01T00:00:00Z"), Some("at")),
            ("press 1", Some("2026-01-01T00:05:01Z"), Some("at")),
        ] {
            let posted =
                PostedEvent { line: line.to_owned(), at: at.map(str::to_owned), kind: EventKind::Up };
            assert_eq!(posted.check(now).err().map(|bad| bad.field), field, "{line} {at:?}");
        }
    }
}
