//! What operators see of queues, and how they page through them.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use galerna_lease::{QueueRecord, QueueState};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use utoipa::{IntoParams, ToSchema};

use crate::queue_table::{QueueEntry, QueueTable};
use galerna_lease::StrategyName;

/// One queue, as operators see it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct QueueView {
    /// The queue.
    pub queue: String,
    /// Its account.
    pub account: String,
    /// `idle`, `worker`, `empty`, `pause` or `delete`.
    pub state: String,
    /// Who holds it, if anybody.
    pub holder: Option<String>,
    /// Epoch of its last lease.
    pub epoch: u64,
    /// Milliseconds left of the lease, by this dispatcher's own clock.
    pub expires_in_ms: Option<u64>,
    /// Messages ready when last counted.
    pub ready: u64,
    /// Messages delivered and not settled when last counted.
    pub unacked: u64,
    /// When they were last counted and had changed. Of counts that stay the same, the time is renewed about every five
    /// minutes.
    pub counted_at: Option<String>,
    /// When it was last leased.
    pub last_delivered: Option<String>,
    /// How many leases in a row ended by expiry: their holders crashed.
    pub re_leases: u32,
    /// Not leased before this time, after crashes.
    pub not_before: Option<String>,
    /// Why it is in its state, when somebody said so.
    pub reason: Option<String>,
    /// Since when it is in its state.
    pub since: String,
}

impl QueueView {
    pub(crate) fn of(entry: &QueueEntry, now: Instant) -> Self {
        let r = &entry.record;
        let text = |t: &galerna_model::Timestamp| t.to_string();
        Self {
            queue: r.queue.to_string(),
            account: r.account.to_string(),
            state: r.state.as_str().to_owned(),
            holder: r.lease.as_ref().map(|l| l.consumer.clone()),
            epoch: r.epoch,
            expires_in_ms: entry.watch.map(|w| u64::try_from(w.left(now).as_millis()).unwrap_or(u64::MAX)),
            ready: r.ready,
            unacked: r.unacked,
            counted_at: r.counted_at.as_ref().map(text),
            last_delivered: r.last_delivered.as_ref().map(text),
            re_leases: r.crashes,
            not_before: r.not_before.as_ref().map(text),
            reason: reason(r),
            since: text(&r.since),
        }
    }
}

/// Why a queue is in its state, for people; it says so when the deletion is under way.
fn reason(record: &QueueRecord) -> Option<String> {
    match (record.deletion_claimed, &record.reason) {
        (false, reason) => reason.clone(),
        (true, reason) => Some(format!("deleting: {}", reason.as_deref().unwrap_or("its account is gone"))),
    }
}

/// How the dispatcher itself is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DispatcherView {
    /// Whether leases are given.
    pub running: bool,
    /// The strategy in force.
    pub strategy: StrategyName,
    /// The strategy asked for; it differs from the one in force while the maintainer does not answer.
    pub configured: StrategyName,
    /// `answers`, `silent`, or `none` when there is none to ping.
    pub maintainer: String,
    /// The name of the dispatcher that answered.
    pub name: String,
    /// Leases that it has given since it started.
    pub leases: u64,
}

/// Messages of the queues in one state, as last counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Backlog {
    /// Ready.
    pub ready: u64,
    /// Delivered and not settled.
    pub unacked: u64,
}

/// A page of queues.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct StatusPage {
    /// The dispatcher.
    pub dispatcher: DispatcherView,
    /// Queues that match the filter, on all pages.
    pub total: usize,
    /// All queues by state, whatever the filter.
    pub counts: BTreeMap<String, usize>,
    /// Messages by the state of their queue, as last counted, whatever the filter.
    #[serde(default)]
    pub backlog: BTreeMap<String, Backlog>,
    /// The queues of the page.
    pub queues: Vec<QueueView>,
}

/// Which queues to show.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct StatusQuery {
    /// Only queues in this state: `idle`, `worker`, `empty`, `pause` or `delete`; several separated by commas.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[param(pattern = r"^((idle|worker|empty|pause|delete)(,(idle|worker|empty|pause|delete))*)?$")]
    pub state: Option<String>,
    /// Only queues whose name, account or holder contains this, upper and lower case alike.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub search: Option<String>,
    /// `queue` (the default), `account`, `state`, `ready`, `unacked`, `epoch`, `last_delivered`, `since` or `re_leases`;
    /// with `-` in front, descending.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[param(pattern = r"^(-?(queue|account|state|ready|unacked|epoch|last_delivered|since|re_leases))?$")]
    pub sort: Option<String>,
    /// Page, from 1 to 1,000,000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[param(minimum = 1, maximum = 1_000_000)]
    pub page: Option<usize>,
    /// Queues on a page: 100 by default, at most 1,000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[param(minimum = 1, maximum = 1_000)]
    pub limit: Option<usize>,
}

/// A query that asks for something that does not exist.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{key}` is `{value}`; use {allowed}")]
pub struct QueryError {
    key: &'static str,
    value: String,
    allowed: &'static str,
}

/// The last page that may be asked for.
const MAX_PAGE: usize = 1_000_000;
/// The longest page.
const MAX_LIMIT: usize = 1_000;

type Compare = fn(&QueueEntry, &QueueEntry) -> Ordering;

/// A query, checked.
pub(crate) struct Selection {
    states: Option<Vec<QueueState>>,
    search: Option<String>,
    compare: Compare,
    descending: bool,
    skip: usize,
    limit: usize,
}

impl StatusQuery {
    pub(crate) fn check(&self) -> Result<Selection, QueryError> {
        let wrong =
            |key, value: &str, allowed| QueryError { key, value: value.chars().take(60).collect(), allowed };
        let states = match self.state.as_deref() {
            None | Some("") => None,
            Some(text) => Some(
                text.split(',')
                    .map(|name| {
                        QueueState::ALL.into_iter().find(|s| s.as_str() == name).ok_or_else(|| {
                            wrong("state", name, "idle, worker, empty, pause or delete, separated by commas")
                        })
                    })
                    .collect::<Result<Vec<_>, _>>()?,
            ),
        };
        let sort = self.sort.as_deref().filter(|s| !s.is_empty()).unwrap_or("queue");
        let (key, descending) = sort.strip_prefix('-').map_or((sort, false), |key| (key, true));
        let compare: Compare = match key {
            "queue" => |a, b| a.record.queue.cmp(&b.record.queue),
            "account" => |a, b| a.record.account.cmp(&b.record.account),
            "state" => |a, b| a.record.state.as_str().cmp(b.record.state.as_str()),
            "ready" => |a, b| a.record.ready.cmp(&b.record.ready),
            "unacked" => |a, b| a.record.unacked.cmp(&b.record.unacked),
            "epoch" => |a, b| a.record.epoch.cmp(&b.record.epoch),
            "last_delivered" => |a, b| a.record.last_delivered.cmp(&b.record.last_delivered),
            "since" => |a, b| a.record.since.cmp(&b.record.since),
            "re_leases" => |a, b| a.record.crashes.cmp(&b.record.crashes),
            _ => {
                return Err(wrong(
                    "sort",
                    sort,
                    "queue, account, state, ready, unacked, epoch, last_delivered, since or re_leases, with - in front to descend",
                ));
            }
        };
        let page = self.page.unwrap_or(1);
        let limit = self.limit.unwrap_or(100);
        if page == 0 || page > MAX_PAGE {
            return Err(wrong("page", &page.to_string(), "a number from 1 to 1000000"));
        }
        if limit == 0 || limit > MAX_LIMIT {
            return Err(wrong("limit", &limit.to_string(), "a number from 1 to 1000"));
        }
        Ok(Selection {
            states,
            search: self.search.as_deref().filter(|s| !s.is_empty()).map(str::to_lowercase),
            compare,
            descending,
            skip: (page - 1).saturating_mul(limit),
            limit,
        })
    }
}

impl Selection {
    fn matches(&self, entry: &QueueEntry) -> bool {
        let r = &entry.record;
        self.states.as_ref().is_none_or(|states| states.contains(&r.state))
            && self.search.as_ref().is_none_or(|text| {
                let has = |name: &str| name.to_lowercase().contains(text);
                has(r.queue.as_str())
                    || has(r.account.as_str())
                    || r.lease.as_ref().is_some_and(|l| has(&l.consumer))
            })
    }

    /// The page, and how many queues match on all pages.
    pub(crate) fn page(&self, table: &QueueTable, now: Instant) -> (usize, Vec<QueueView>) {
        let mut found: Vec<&QueueEntry> = table.entries().filter(|e| self.matches(e)).collect();
        let total = found.len();
        let order = |a: &&QueueEntry, b: &&QueueEntry| {
            let by_key = (self.compare)(a, b);
            // The name decides among equals, so that pages neither overlap nor leave gaps.
            (if self.descending { by_key.reverse() } else { by_key })
                .then_with(|| a.record.queue.cmp(&b.record.queue))
        };
        let end = self.skip.saturating_add(self.limit).min(total);
        if end < total && end > 0 {
            found.select_nth_unstable_by(end - 1, order);
            found.truncate(end);
        }
        found.sort_unstable_by(order);
        let views = found.into_iter().skip(self.skip).map(|e| QueueView::of(e, now)).collect();
        (total, views)
    }
}

/// Messages by the state of their queue, by name.
pub(crate) fn backlog(table: &QueueTable) -> BTreeMap<String, Backlog> {
    let mut sums = BTreeMap::<_, Backlog>::new();
    for entry in table.entries() {
        let sum = sums.entry(entry.record.state.as_str()).or_default();
        sum.ready += entry.record.ready;
        sum.unacked += entry.record.unacked;
    }
    sums.into_iter().map(|(state, sum)| (state.to_owned(), sum)).collect()
}

/// Queues by state, by name.
pub(crate) fn counts(table: &QueueTable) -> BTreeMap<String, usize> {
    QueueState::ALL.into_iter().map(|s| s.as_str().to_owned()).zip(table.counts()).collect()
}
