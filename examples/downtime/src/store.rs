//! What is kept of lines, downtimes and notices: in SQLite ([`sqlite`]) or in PostgreSQL ([`postgres`]).

pub mod postgres;
pub mod sqlite;

use async_trait::async_trait;
use galerna_model::Timestamp;
use galerna_topology::prelude::Fault;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::event::{Cause, Event, EventKind, LineState, Source, word};
use crate::line::{Downtime, Effects, Line, NewNotice, NoticeKind, Observation, derive};

/// Why a store did not do what was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{attempted}: {cause}")]
pub struct StoreError {
    /// What was tried.
    pub attempted: &'static str,
    /// Whether the same may succeed later.
    pub passes: bool,
    /// What the store said.
    pub cause: String,
}

impl StoreError {
    /// As what a bolt fails with.
    pub fn into_fault(self) -> Fault {
        let text = self.to_string();
        if self.passes { Fault::unavailable(text) } else { Fault::transient(text) }
    }
}

/// What became of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recorded {
    /// It is kept.
    New,
    /// It was known before, or says nothing new.
    Known,
    /// Another event of its line and time says the opposite; that one stays.
    Conflict,
}

/// A change of which lists are told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// Its number, in the order in which notices were made.
    pub seq: i64,
    /// What is told.
    pub what: NewNotice,
    /// Attempts to tell, this one included.
    pub tries: u32,
}

/// Whom a notice goes to, by what.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "by", rename_all = "snake_case")]
pub enum Recipient {
    /// A mail to the addresses that a list had then.
    Mail {
        /// The list.
        list: String,
        /// The addresses.
        addresses: Vec<String>,
    },
    /// A line in the log, for a list when there is no mail server.
    Log {
        /// The list.
        list: String,
        /// The addresses.
        addresses: Vec<String>,
    },
    /// The webhook.
    Webhook {},
}

word! {
    /// Where a delivery stands.
    DeliveryStatus {
        /// To be sent, or to be sent again.
        Pending = "pending",
        /// Its receiver has taken it.
        Delivered = "delivered",
        /// Given up, with the reason.
        Dead = "dead",
    }
}

/// A notice to one recipient.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// The same over all attempts: what its receiver knows it by.
    pub id: String,
    /// What is told.
    pub what: NewNotice,
    /// To whom.
    pub recipient: Recipient,
    /// Where it stands.
    pub status: DeliveryStatus,
    /// Why it is dead.
    pub reason: Option<String>,
}

/// Which notices a process takes to tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// The process.
    pub holder: String,
    /// The time now.
    pub now: Timestamp,
    /// So long, in milliseconds, no other process takes them.
    pub lease_ms: i64,
    /// At most so many.
    pub limit: usize,
}

/// Which downtimes to list; what is `None` matches all.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DowntimeQuery {
    /// Of this line.
    pub line: Option<String>,
    /// That had not ended by then.
    pub from: Option<Timestamp>,
    /// That began before.
    pub to: Option<Timestamp>,
    /// After this one (start and line), in the order of the list.
    pub after: Option<(Timestamp, String)>,
    /// At most so many.
    pub limit: usize,
}

/// Lines, downtimes, and the notices that came of them, with their deliveries.
#[async_trait]
pub trait DowntimeStore: Send + Sync + 'static {
    /// Keeps events, all or none, with the downtimes and notices that come of them; durable when it returns. What became of each.
    async fn record(&self, events: &[Event], hold_ms: i64) -> Result<Vec<Recorded>, StoreError>;
    /// Makes notices of the states that have lasted by now. How many.
    async fn settle(&self, now: Timestamp, hold_ms: i64) -> Result<usize, StoreError>;
    /// Lines that send heartbeats, are up, and were last heard of at this time or before: with that time.
    async fn silent(&self, before: Timestamp) -> Result<Vec<(String, Timestamp)>, StoreError>;

    /// All lines, by name.
    async fn lines(&self) -> Result<Vec<Line>, StoreError>;
    /// A line.
    async fn line(&self, name: &str) -> Result<Option<Line>, StoreError>;
    /// Downtimes in the order of their starts.
    async fn downtimes(&self, query: &DowntimeQuery) -> Result<Vec<Downtime>, StoreError>;

    /// Takes notices that are to be told now, of each line the oldest only. Each is taken by one process until its lease is over.
    async fn claim(&self, claim: &Claim) -> Result<Vec<Notice>, StoreError>;
    /// Writes down to whom a notice goes, unless that is written down already, and gives the deliveries that are pending.
    async fn plan(&self, notice: &Notice, recipients: &[Recipient]) -> Result<Vec<Delivery>, StoreError>;
    /// Writes down how a delivery ended.
    async fn ended(&self, id: &str, status: DeliveryStatus, reason: Option<&str>) -> Result<(), StoreError>;
    /// A notice has been told.
    async fn told(&self, seq: i64) -> Result<(), StoreError>;
    /// A notice could not be told now; it is taken again from then on.
    async fn again(&self, seq: i64, from: Timestamp) -> Result<(), StoreError>;
    /// Notices that are to be told still.
    async fn untold(&self) -> Result<usize, StoreError>;
    /// Deliveries, the newest first, with this status or all.
    async fn deliveries(
        &self,
        status: Option<DeliveryStatus>,
        limit: usize,
    ) -> Result<Vec<Delivery>, StoreError>;
    /// Has a dead delivery sent again; whether there is one with this id that is dead.
    async fn resend(&self, id: &str) -> Result<bool, StoreError>;
    /// How many events are kept.
    async fn events(&self) -> Result<u64, StoreError>;
    /// Lets go of everything; later calls fail.
    async fn close(&self);
}

/// The id of a delivery: made of what it tells and whom, so that it is the same however often it is made.
fn delivery_id(what: &NewNotice, recipient: &Recipient) -> String {
    let to = match recipient {
        Recipient::Mail { list, .. } => ("mail", list.as_str()),
        Recipient::Log { list, .. } => ("log", list.as_str()),
        Recipient::Webhook {} => ("webhook", ""),
    };
    let named = serde_json::json!([what.line, what.kind.as_str(), what.at.as_millis(), to.0, to.1]);
    format!("{:032x}", xxhash_rust::xxh3::xxh3_128(named.to_string().as_bytes()))
}

/// What a store has to do with one event.
enum Step {
    /// Nothing.
    Nothing,
    /// Write the line.
    Heard(Line),
    /// Write the event; if it is new, the line and the effects too.
    InOrder(Observation, Line, Effects),
    /// Write the event; if it is new, derive what follows from all events since the last `up` before it ([`after_late`]).
    Late(Observation, Line),
}

/// What an event is to a store that knows this of its line.
fn step(known: Option<&Line>, event: &Event, hold_ms: i64) -> Step {
    let at = event.at;
    let mut cause = Cause::Reported;
    let state = match (event.kind, event.source, known) {
        (EventKind::Up, ..) => LineState::Up,
        (EventKind::Down, Source::Silence { heard }, Some(line))
            if line.heard == heard && line.state == LineState::Up =>
        {
            cause = Cause::Silence;
            LineState::Down
        }
        (EventKind::Down, Source::Silence { .. }, _) => return Step::Nothing,
        (EventKind::Down, ..) => LineState::Down,
        (EventKind::Heartbeat, _, None) => LineState::Up,
        // A heartbeat tells that the line is there, which is news only of one that was silent.
        (EventKind::Heartbeat, _, Some(line))
            if line.state == LineState::Down && line.cause == Cause::Silence && at > line.seen =>
        {
            LineState::Up
        }
        (EventKind::Heartbeat, _, Some(line)) => {
            return Step::Heard(Line { heard: line.heard.max(at), beats: true, ..line.clone() });
        }
    };
    let observation = Observation { at, state, cause };
    let (mut line, effects) = match known {
        None => Line::first(&event.line, at, state, cause),
        Some(line) if event.source == Source::Seen && line.state == state => {
            return Step::Heard(Line { heard: line.heard.max(at), ..line.clone() });
        }
        Some(line) if at <= line.seen => return Step::Late(observation, line.clone()),
        Some(line) => {
            let (mut line, heard) = (line.clone(), line.heard);
            let effects = line.apply(at, state, cause, hold_ms);
            if cause == Cause::Silence {
                // Nothing was heard: that is the point.
                line.heard = heard;
            }
            (line, effects)
        }
    };
    line.beats |= event.kind == EventKind::Heartbeat;
    Step::InOrder(observation, line, effects)
}

/// What a line is after a late event: the line itself, and its downtimes that began after the last `up` before the event, from the
/// events since that `up`, or all of them (`from_first`).
fn after_late(line: Line, events: &[Observation], from_first: bool, at: Timestamp) -> (Line, Vec<Downtime>) {
    let (downtimes, current) = derive(&line.name, events, from_first);
    let mut line = Line { heard: line.heard.max(at), ..line };
    if let Some(current) = current {
        line.state = current.state;
        line.since = current.at;
        line.cause = current.cause;
        line.began_before = downtimes.last().is_some_and(|last| last.end.is_none() && last.began_before);
    }
    (line, downtimes)
}

/// What was stored and cannot be: another program wrote it.
fn unreadable(what: &str, text: &str) -> String {
    format!("`{text}` is no {what}; another version of this program may have written it")
}

fn kind_of(text: &str) -> Result<NoticeKind, String> {
    NoticeKind::parse(text).ok_or_else(|| unreadable("kind of notice", text))
}

fn state_of(text: &str) -> Result<LineState, String> {
    LineState::parse(text).ok_or_else(|| unreadable("state of a line", text))
}

fn cause_of(text: &str) -> Result<Cause, String> {
    Cause::parse(text).ok_or_else(|| unreadable("cause of a downtime", text))
}

fn status_of(text: &str) -> Result<DeliveryStatus, String> {
    DeliveryStatus::parse(text).ok_or_else(|| unreadable("status of a delivery", text))
}

fn recipient_of(text: &str) -> Result<Recipient, String> {
    serde_json::from_str(text).map_err(|_| unreadable("recipient", text))
}

fn recipient_text(recipient: &Recipient) -> String {
    serde_json::to_string(recipient).unwrap_or_default()
}
