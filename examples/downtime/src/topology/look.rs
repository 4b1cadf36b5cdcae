//! Looking, when a schedule fires: at the status API, and for lines that have fallen silent.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use futures_util::TryStreamExt;
use galerna_model::{Clock, Timestamp};
use galerna_schedules::Firing;
use galerna_topology::prelude::*;
use serde::{Deserialize, Serialize};

use super::Arrival;
use crate::event::{Event, EventKind, LineState, Source, check_line, check_time};
use crate::store::DowntimeStore;

/// Longest answer of a status API, in bytes.
const LONGEST_ANSWER: usize = 4 << 20;

/// What a firing carries: what is to be looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Task {
    /// A status API, by its URL.
    Status(String),
    /// Lines that send no heartbeats any more.
    Silence,
}

/// How to look.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LookSettings {
    /// For an answer of the status API.
    pub timeout: Duration,
    /// A line that has sent heartbeats and was not heard of for so long counts as down.
    pub silence: Duration,
}

/// One line in the answer of a status API, which is an array of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LineStatus {
    /// The line.
    pub line: String,
    /// What it is.
    pub status: LineState,
    /// Since when, RFC 3339; without it, the line was seen so when it was asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
}

/// Turns firings into events.
#[derive(Clone)]
pub(super) struct Look {
    client: reqwest::Client,
    settings: LookSettings,
    store: Arc<dyn DowntimeStore>,
    clock: Arc<dyn Clock>,
}

impl Look {
    pub(super) fn new(
        settings: LookSettings,
        store: Arc<dyn DowntimeStore>,
        clock: Arc<dyn Clock>,
    ) -> anyhow::Result<Self> {
        galerna_tls::install_default_provider();
        let client = reqwest::Client::builder()
            .timeout(settings.timeout)
            .user_agent(concat!("downtime/", env!("CARGO_PKG_VERSION")))
            .build()
            .context("making the HTTP client for the status API")?;
        Ok(Self { client, settings, store, clock })
    }

    async fn statuses(&self, url: &str) -> Result<Vec<LineStatus>, Fault> {
        let answer = self.client.get(url).send().await?;
        if !answer.status().is_success() {
            return Err(Fault::transient(format!("the status API answered {}", answer.status())));
        }
        let mut body = Vec::new();
        let mut answer = std::pin::pin!(futures_util::stream::try_unfold(answer, |mut answer| async move {
            Ok::<_, reqwest::Error>(answer.chunk().await?.map(|chunk| (chunk, answer)))
        }));
        while let Some(chunk) = answer.try_next().await? {
            body.extend_from_slice(&chunk);
            if body.len() > LONGEST_ANSWER {
                return Err(Fault::permanent(format!(
                    "the status API's answer is longer than {LONGEST_ANSWER} bytes"
                )));
            }
        }
        serde_json::from_slice(&body).map_err(|error| {
            Fault::permanent(format!("the status API's answer is no array of lines' states: {error}"))
        })
    }

    fn event(&self, status: LineStatus, now: Timestamp) -> Result<Event, String> {
        check_line(&status.line).map_err(|bad| bad.to_string())?;
        let kind = match status.status {
            LineState::Up => EventKind::Up,
            LineState::Down => EventKind::Down,
        };
        let (at, source) = match status.since {
            Some(since) => (Timestamp::parse(&since).map_err(|why| why.to_string())?, Source::Reported),
            None => (now, Source::Seen),
        };
        check_time(at, now).map_err(|bad| bad.to_string())?;
        Ok(Event { line: status.line, at, kind, source })
    }
}

impl AsyncBolt for Look {
    type Input = Firing;
    type Outputs = Output<Arrival>;

    async fn execute(&mut self, firing: Firing, out: &mut Emitter<Output<Arrival>>) -> Result<(), Fault> {
        let task: Task = serde_json::from_value(firing.payload.clone()).map_err(|error| {
            Fault::permanent(format!("the schedule's payload says nothing to look at: {error}"))
        })?;
        match task {
            Task::Status(url) => {
                let now = self.clock.now();
                for status in self.statuses(&url).await? {
                    let line = status.line.clone();
                    match self.event(status, now) {
                        Ok(event) => out.emit(Arrival::new(event)),
                        // One bad entry costs itself.
                        Err(reason) => tracing::warn!(line, reason, "an entry of the status API is left out"),
                    }
                }
            }
            Task::Silence => {
                let limit = i64::try_from(self.settings.silence.as_millis()).unwrap_or(i64::MAX);
                let silent = self.store.silent(self.clock.now().plus_millis(-limit)).await;
                for (line, heard) in silent.map_err(crate::store::StoreError::into_fault)? {
                    let (at, source) = (heard.plus_millis(limit), Source::Silence { heard });
                    out.emit(Arrival::new(Event { line, at, kind: EventKind::Down, source }));
                }
            }
        }
        Ok(())
    }
}
