//! What each source, each account and all together have sent: by hour, day, week and month, and the last messages.
//!
//! A *message* is an accepted call, a *reading* what one device measured at one time, a *value* one number of it; what was
//! refused is not counted. Counts are kept in memory and added to the store in bulk. They are exact over restarts in good
//! order and over failures of the store, since a batch is added once, however often it is tried; a crash loses what was counted
//! since the last flush, five seconds by default. It never loses a reading: those are confirmed by the broker before they
//! are counted. Any number of frontends may add to one store.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use galerna_lock::Mutex;
use galerna_model::{AccountId, Clock, SourceId, Timestamp};
use galerna_storage::{Batch, LAST_MESSAGES, LastMessage, Period, Result, Scope, StatisticsStore, Tally};
use serde::Serialize;
use utoipa::ToSchema;

use crate::options::StatisticsOptions;

/// Counts of the current period, the last and the last but one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, ToSchema)]
pub struct ThreePeriods {
    /// Of the current one, until now.
    pub now: Tally,
    /// Of the one before.
    pub last: Tally,
    /// Of the one before that.
    pub last_but_one: Tally,
}

/// What somebody has sent. Periods are those of UTC; weeks begin on Monday.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, ToSchema)]
pub struct Traffic {
    /// By hour.
    pub hour: ThreePeriods,
    /// By day.
    pub day: ThreePeriods,
    /// By week.
    pub week: ThreePeriods,
    /// By month.
    pub month: ThreePeriods,
}

impl Traffic {
    fn of(tallies: &[Tally; 12]) -> Self {
        let three = |at: usize| ThreePeriods {
            now: tallies[at],
            last: tallies[at + 1],
            last_but_one: tallies[at + 2],
        };
        Self { hour: three(0), day: three(3), week: three(6), month: three(9) }
    }
}

/// Counts not in the store yet.
#[derive(Debug, Default)]
struct Counted {
    /// By source and hour: every longer period begins with an hour.
    tallies: HashMap<(SourceId, Timestamp), (AccountId, Tally)>,
    messages: HashMap<SourceId, VecDeque<LastMessage>>,
    bytes: usize,
}

impl Counted {
    fn is_empty(&self) -> bool {
        self.tallies.is_empty() && self.messages.is_empty()
    }

    fn add_to(&self, scope: &Scope, periods: &[(Period, Timestamp)], sums: &mut [Tally]) {
        for ((source, hour), (account, tally)) in &self.tallies {
            if scope.covers(source, account) {
                for (sum, (period, start)) in sums.iter_mut().zip(periods) {
                    if period.start(*hour) == *start {
                        *sum += *tally;
                    }
                }
            }
        }
    }

    fn batch(&self, writer: &str, number: u64, at: Timestamp) -> Batch {
        let mut sums: HashMap<(Scope, Period, Timestamp), Tally> = HashMap::new();
        for ((source, hour), (account, tally)) in &self.tallies {
            for scope in [Scope::All, Scope::Account(account.clone()), Scope::Source(source.clone())] {
                for period in Period::ALL {
                    *sums.entry((scope.clone(), period, period.start(*hour))).or_default() += *tally;
                }
            }
        }
        Batch {
            writer: writer.to_owned(),
            number,
            tallies: sums
                .into_iter()
                .map(|((scope, period, start), tally)| (scope, period, start, tally))
                .collect(),
            messages: self
                .messages
                .iter()
                .flat_map(|(s, list)| list.iter().map(|m| (s.clone(), m.clone())))
                .collect(),
            at,
        }
    }
}

/// What is on its way into the store.
struct Sending {
    counted: Counted,
    batch: Arc<Batch>,
}

#[derive(Default)]
struct State {
    counting: Counted,
    /// Kept until the store has taken it, however often that is tried.
    sending: Option<Sending>,
    last_number: u64,
}

/// Counts what is accepted.
pub struct Statistics {
    store: Arc<dyn StatisticsStore>,
    clock: Arc<dyn Clock>,
    options: StatisticsOptions,
    writer: String,
    state: Mutex<State>,
    flushing: tokio::sync::Mutex<()>,
}

impl Statistics {
    pub(crate) fn new(
        store: Arc<dyn StatisticsStore>,
        clock: Arc<dyn Clock>,
        options: StatisticsOptions,
        writer: String,
    ) -> Self {
        Self {
            store,
            clock,
            options,
            writer,
            state: Mutex::default(),
            flushing: tokio::sync::Mutex::default(),
        }
    }

    /// Counts a call whose readings are safe.
    pub(crate) fn count(&self, source: &SourceId, account: &AccountId, tally: Tally, message: LastMessage) {
        let hour = Period::Hour.start(message.received);
        let mut message = message;
        let mut state = self.state.lock();
        let counting = &mut state.counting;
        let entry = counting
            .tallies
            .entry((source.clone(), hour))
            .or_insert_with(|| (account.clone(), Tally::default()));
        entry.1 += tally;
        let last = counting.messages.entry(source.clone()).or_default();
        if last.len() == LAST_MESSAGES
            && let Some(oldest) = last.pop_front()
        {
            counting.bytes -= oldest.text.len();
        }
        if counting.bytes + message.text.len() > self.options.waiting_bytes {
            message.cut |= !message.text.is_empty();
            message.text = String::new();
        }
        counting.bytes += message.text.len();
        last.push_back(message);
    }

    /// The beginning of a body, as it is kept.
    pub(crate) fn excerpt(&self, body: &[u8]) -> (String, bool) {
        let most = self.options.message_bytes;
        let cut = body.len() > most;
        let mut text = String::from_utf8_lossy(&body[..body.len().min(most)]).into_owned();
        if cut {
            // The cut may have gone through a character.
            while text.ends_with('\u{fffd}') {
                text.pop();
            }
        }
        (text, cut)
    }

    /// Adds what was counted to the store. What cannot be added is kept and tried again with the next flush.
    ///
    /// # Errors
    /// What the store said.
    pub async fn flush(&self) -> Result<()> {
        let _turn = self.flushing.lock().await;
        // What was left of a failed flush first, then what was counted since.
        for _ in 0..2 {
            let Some(batch) = self.next_batch() else { return Ok(()) };
            self.store.add(batch).await?;
            self.state.lock().sending = None;
        }
        Ok(())
    }

    fn next_batch(&self) -> Option<Arc<Batch>> {
        let mut state = self.state.lock();
        if let Some(sending) = &state.sending {
            return Some(Arc::clone(&sending.batch));
        }
        if state.counting.is_empty() {
            return None;
        }
        state.last_number += 1;
        let counted = std::mem::take(&mut state.counting);
        let batch = Arc::new(counted.batch(&self.writer, state.last_number, self.clock.now()));
        state.sending = Some(Sending { counted, batch: Arc::clone(&batch) });
        Some(batch)
    }

    /// What these have sent, this process's last calls included.
    ///
    /// # Errors
    /// What the store said.
    pub async fn traffic(&self, scopes: &[Scope]) -> Result<Vec<Traffic>> {
        let now = self.clock.now();
        let periods: Vec<(Period, Timestamp)> = Period::ALL
            .into_iter()
            .flat_map(|period| {
                let current = period.start(now);
                let last = period.before(current);
                [(period, current), (period, last), (period, period.before(last))]
            })
            .collect();
        let held = self.held();
        let (stored, number) = self.store.tallies(scopes, &periods, &self.writer).await?;
        let mut traffic = Vec::with_capacity(scopes.len());
        for (scope, stored) in scopes.iter().zip(stored) {
            let mut sums = [Tally::default(); 12];
            for (sum, stored) in sums.iter_mut().zip(stored) {
                *sum += stored;
            }
            held.add_to(scope, &periods, number, &mut sums);
            traffic.push(Traffic::of(&sums));
        }
        Ok(traffic)
    }

    /// The last messages of a source, newest first.
    ///
    /// # Errors
    /// What the store said.
    pub async fn last_messages(&self, source: &SourceId) -> Result<Vec<LastMessage>> {
        let held = self.held();
        let (stored, number) = self.store.last_messages(source, &self.writer).await?;
        let mut all: Vec<LastMessage> = held.messages(source, number);
        all.extend(stored);
        // Other frontends may have taken some of them in between, and a batch under way may show already.
        all.sort_by_key(|message| std::cmp::Reverse(message.received));
        let mut seen = HashSet::new();
        all.retain(|message| seen.insert(message.id.clone()));
        all.truncate(LAST_MESSAGES);
        Ok(all)
    }

    /// A copy of what is not known to be in the store, made before the store is asked: what is flushed in between is then told by
    /// the number that the store answers with.
    fn held(&self) -> HeldBack {
        let state = self.state.lock();
        let copy = |counted: &Counted| Counted {
            tallies: counted.tallies.clone(),
            messages: counted.messages.clone(),
            bytes: counted.bytes,
        };
        HeldBack {
            next: state.last_number + 1,
            counting: copy(&state.counting),
            sending: state.sending.as_ref().map(|s| copy(&s.counted)),
        }
    }
}

struct HeldBack {
    /// The number that `counting` will be sent with; `sending` has the one before.
    next: u64,
    counting: Counted,
    sending: Option<Counted>,
}

impl HeldBack {
    /// What a store that has batches up to `number` does not have.
    fn missing(&self, number: u64) -> impl Iterator<Item = &Counted> {
        let counting = (number < self.next).then_some(&self.counting);
        let sending = self.sending.as_ref().filter(|_| number + 1 < self.next);
        counting.into_iter().chain(sending)
    }

    fn add_to(&self, scope: &Scope, periods: &[(Period, Timestamp)], number: u64, sums: &mut [Tally]) {
        self.missing(number).for_each(|counted| counted.add_to(scope, periods, sums));
    }

    fn messages(&self, source: &SourceId, number: u64) -> Vec<LastMessage> {
        let lists = self.missing(number).filter_map(|counted| counted.messages.get(source));
        lists.flat_map(|list| list.iter().rev().cloned()).collect()
    }
}

#[cfg(test)]
mod tests;
