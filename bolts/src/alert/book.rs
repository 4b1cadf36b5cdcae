//! What the alerts remember, account by account: rules applied to readings, without any I/O.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use galerna_model::{AccountId, QueueName, SourceId, Timestamp};
use galerna_model::{AlertEvent, AlertEventKind, AlertState, Comparison, Condition};
use galerna_storage::StoredReading;

use super::rules::{CompiledRule, RuleSet};
use super::standing::{Limit, Standing, Turn};
use crate::batch::ReadingBatch;

/// What judging changed: to be made durable before the readings are acked.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct Changes {
    /// Events, in the order in which they happened.
    pub events: Vec<AlertEvent>,
    /// States to store; of one (rule, source, device) only the last counts.
    pub states: Vec<AlertState>,
}

impl Changes {
    /// Whether there is nothing to store.
    pub fn is_empty(&self) -> bool {
        self.events.is_empty() && self.states.is_empty()
    }

    /// Keeps, of each (rule, source, device), the last state only.
    pub(super) fn deduplicate(&mut self) {
        if self.states.len() > 1 {
            let mut last = HashMap::with_capacity(self.states.len());
            for (i, s) in self.states.iter().enumerate() {
                last.insert((s.rule.clone(), s.source.clone(), s.device.clone()), i);
            }
            let mut i = 0;
            self.states.retain(|s| {
                let keep = last[&(s.rule.clone(), s.source.clone(), s.device.clone())] == i;
                i += 1;
                keep
            });
        }
    }
}

/// The standing of every rule for every device seen.
///
/// Pure: it takes readings and gives [`Changes`]; [`AlertBolt`](super::AlertBolt) does the waiting. The rules that watch a
/// device are looked up once per device, so that a reading of a device that no rule watches costs one look-up.
#[derive(Debug, Default)]
pub struct AlertBook {
    rules: RuleSet,
    accounts: HashMap<AccountId, AccountPage>,
}

#[derive(Debug)]
struct AccountPage {
    watched: bool,
    /// The lease under which its readings came last.
    lease: Option<(QueueName, u64)>,
    sources: HashMap<SourceId, SourcePage>,
    used_at: Duration,
}

#[derive(Debug)]
struct SourcePage {
    /// The newest reading of the source.
    newest: Timestamp,
    /// When that came, by the topology's clock.
    newest_at: Duration,
    devices: HashMap<Box<str>, Vec<Slot>>,
}

/// One rule for one device.
#[derive(Debug)]
struct Slot {
    rule: Arc<CompiledRule>,
    standing: Standing,
    /// Loaded from the store and no reading since: `last_seen` may lag behind what really was seen.
    stale: bool,
    /// `last_seen` moved since it was stored (silence rules only).
    moved: bool,
}

impl AlertBook {
    /// An empty book under these rules.
    pub fn new(rules: RuleSet) -> Self {
        Self { rules, accounts: HashMap::new() }
    }

    /// The rules in force.
    pub fn rules(&self) -> &RuleSet {
        &self.rules
    }

    /// Takes other rules and forgets everything, to be loaded again. Store [`moved`](Self::moved) first.
    pub fn set_rules(&mut self, rules: RuleSet) {
        *self = Self::new(rules);
    }

    /// Whether the states of the batch's account are to be loaded before [`judge`](Self::judge): it is new here, or somebody
    /// else may have had its queue since it was loaded or judged last, which a gap between the epochs tells.
    pub fn must_load(&self, batch: &ReadingBatch) -> bool {
        match self.accounts.get(&batch.account) {
            None => self.rules.watch_account(&batch.account),
            Some(page) => {
                page.watched
                    && batch.epoch > 0
                    && page.lease.as_ref().is_none_or(|(queue, epoch)| {
                        *queue != batch.queue || !(*epoch..=epoch + 1).contains(&batch.epoch)
                    })
            }
        }
    }

    /// Takes the stored states of an account. Those that are newer than what is here replace it.
    pub fn load(&mut self, account: &AccountId, states: Vec<AlertState>, now: Duration) {
        let watched = self.rules.watch_account(account);
        let page = self.accounts.entry(account.clone()).or_insert_with(|| AccountPage::new(watched, now));
        page.lease = None;
        for state in states {
            let source = page.source(&state.source, now);
            if state.last_seen > source.newest {
                source.newest = state.last_seen;
                source.newest_at = now;
            }
            let slots = source.slots(&self.rules, account, &state.device);
            let Some(slot) = slots.iter_mut().find(|slot| slot.rule.rule().id == state.rule) else {
                continue;
            };
            if slot.standing.last_seen.is_none_or(|seen| state.last_seen >= seen) {
                slot.standing = Standing {
                    phase: state.phase,
                    since: state.since,
                    last_seen: Some(state.last_seen),
                    last_value: state.last_value,
                    not_before: state.not_before,
                };
                slot.stale = true;
                slot.moved = false;
            }
        }
    }

    /// Forgets an account: the store knows what counts.
    pub fn forget(&mut self, account: &AccountId) {
        self.accounts.remove(account);
    }

    /// Judges the readings of a batch, whose account must have been [loaded](Self::must_load).
    pub fn judge(&mut self, batch: &ReadingBatch, now: Duration, changes: &mut Changes) {
        let Self { rules, accounts } = self;
        if !accounts.contains_key(&batch.account) {
            let page = AccountPage::new(rules.watch_account(&batch.account), now);
            accounts.insert(batch.account.clone(), page);
        }
        let Some(page) = accounts.get_mut(&batch.account) else { return };
        page.used_at = now;
        if !page.watched {
            return;
        }
        if page.lease.as_ref().is_none_or(|(queue, epoch)| *epoch != batch.epoch || *queue != batch.queue) {
            page.lease = Some((batch.queue.clone(), batch.epoch));
        }
        for reading in batch.readings.iter() {
            let source = page.source(&reading.source, now);
            if reading.ts > source.newest {
                source.newest = reading.ts;
                source.newest_at = now;
            }
            for slot in source.slots(rules, &batch.account, &reading.device) {
                slot.judge(reading, &batch.message, changes);
            }
        }
    }

    /// The accounts with a device that has been silent for too long at `now`, as far as this book knows.
    pub fn silent_accounts(&self, now: Duration) -> Vec<AccountId> {
        let silent = |page: &AccountPage| page.silences(now).next().is_some();
        self.accounts.iter().filter(|(_, page)| silent(page)).map(|(a, _)| a.clone()).collect()
    }

    /// The silences of an account at `now`. Nothing changes in the book: give the states back to [`load`](Self::load) once
    /// they are stored.
    pub fn silences(&self, account: &AccountId, now: Duration, changes: &mut Changes) {
        let Some(page) = self.accounts.get(account) else { return };
        for (source, device, slot, next, turn) in page.silences(now) {
            let place = Place { account, source, device };
            changes.events.push(place.event(slot.rule.as_ref(), turn, None, None));
            changes.states.push(place.state(slot.rule.as_ref(), &next));
        }
    }

    /// States of silence rules whose latest reading moved since they were stored; they count as stored from now on.
    pub fn moved(&mut self) -> Vec<AlertState> {
        let mut states = Vec::new();
        for (account, page) in &mut self.accounts {
            for (source, source_page) in &mut page.sources {
                for (device, slots) in &mut source_page.devices {
                    let place = Place { account, source, device };
                    for slot in slots.iter_mut().filter(|slot| slot.moved) {
                        slot.moved = false;
                        states.push(place.state(&slot.rule, &slot.standing));
                    }
                }
            }
        }
        states
    }

    /// Marks states as not stored after all.
    pub fn unmoved(&mut self, states: &[AlertState]) {
        for state in states {
            let slots = self
                .accounts
                .get_mut(&state.account)
                .and_then(|page| page.sources.get_mut(&state.source))
                .and_then(|source| source.devices.get_mut(state.device.as_str()));
            if let Some(slot) =
                slots.and_then(|slots| slots.iter_mut().find(|s| s.rule.rule().id == state.rule))
            {
                slot.moved = true;
            }
        }
    }

    /// How many devices are remembered.
    pub fn devices(&self) -> usize {
        self.accounts.values().map(AccountPage::devices).sum()
    }

    /// Forgets until at most `devices` are remembered: first those that no rule watches, then whole accounts, those unused the
    /// longest first. Store [`moved`](Self::moved) before.
    pub fn trim(&mut self, devices: usize) {
        if self.devices() <= devices {
            return;
        }
        for source in self.accounts.values_mut().flat_map(|page| page.sources.values_mut()) {
            source.devices.retain(|_, slots| !slots.is_empty());
        }
        let mut left = self.devices();
        let mut by_use: Vec<_> = self.accounts.iter().map(|(a, p)| (p.used_at, a.clone())).collect();
        by_use.sort();
        for (_, account) in by_use {
            if left <= devices {
                break;
            }
            left -= self.accounts.remove(&account).map_or(0, |page| page.devices());
        }
    }
}

impl AccountPage {
    fn new(watched: bool, now: Duration) -> Self {
        Self { watched, lease: None, sources: HashMap::new(), used_at: now }
    }

    fn source(&mut self, source: &SourceId, now: Duration) -> &mut SourcePage {
        if !self.sources.contains_key(source) {
            let page = SourcePage { newest: Timestamp(i64::MIN), newest_at: now, devices: HashMap::new() };
            self.sources.insert(source.clone(), page);
        }
        self.sources.get_mut(source).expect("it was found or inserted above")
    }

    fn devices(&self) -> usize {
        self.sources.values().map(|source| source.devices.len()).sum()
    }

    fn silences(&self, now: Duration) -> impl Iterator<Item = (&SourceId, &str, &Slot, Standing, Turn)> {
        self.sources.iter().flat_map(move |(source, page)| {
            // The source's own time goes on from its newest reading as the topology's clock does.
            let since = i64::try_from(now.saturating_sub(page.newest_at).as_millis()).unwrap_or(i64::MAX);
            let source_now = page.newest.plus_millis(since);
            page.devices.iter().flat_map(move |(device, slots)| {
                slots.iter().filter_map(move |slot| match slot.rule.rule().condition {
                    Condition::Silent { after_ms } => {
                        let (next, turn) = slot.standing.silent(after_ms, source_now)?;
                        Some((source, &**device, slot, next, turn))
                    }
                    Condition::Threshold { .. } => None,
                })
            })
        })
    }
}

impl SourcePage {
    fn slots(&mut self, rules: &RuleSet, account: &AccountId, device: &str) -> &mut [Slot] {
        if !self.devices.contains_key(device) {
            let slots = rules.of_device(account, device).map(|rule| Slot::new(rule.clone())).collect();
            self.devices.insert(device.into(), slots);
        }
        self.devices.get_mut(device).expect("it was found or inserted above")
    }
}

impl Slot {
    fn new(rule: Arc<CompiledRule>) -> Self {
        Self { rule, standing: Standing::default(), stale: false, moved: false }
    }

    fn judge(&mut self, reading: &StoredReading, message: &str, changes: &mut Changes) {
        let rule = self.rule.rule();
        let (changed, turns, value) = match &rule.condition {
            Condition::Threshold { parameter, comparison, limit, clear, for_ms } => {
                let Some(m) = reading.values.iter().find(|m| m.p == *parameter) else { return };
                let limit = Limit {
                    comparison: *comparison,
                    limit: *limit,
                    clear: clear.unwrap_or(*limit),
                    for_ms: *for_ms,
                };
                let (changed, turn) = self.standing.judge(&limit, rule.cooldown_ms, reading.ts, m.v);
                (changed, [turn, None], Some(m.v))
            }
            Condition::Silent { after_ms } => {
                let before = self.standing.last_seen;
                let (changed, turns) =
                    self.standing.heard(*after_ms, rule.cooldown_ms, reading.ts, !self.stale);
                if self.standing.last_seen != before {
                    self.stale = false;
                    self.moved = !changed;
                }
                (changed, turns, None)
            }
        };
        if changed {
            let place = Place { account: &reading.account, source: &reading.source, device: &reading.device };
            for turn in turns.into_iter().flatten() {
                // What raises a silence is the lack of readings, also when the next one is what makes it known.
                let silence =
                    matches!((&rule.condition, turn.0), (Condition::Silent { .. }, AlertEventKind::Raised));
                let origin = (!silence).then_some(message);
                changes.events.push(place.event(&self.rule, turn, value, origin));
            }
            changes.states.push(place.state(&self.rule, &self.standing));
        }
    }
}

struct Place<'a> {
    account: &'a AccountId,
    source: &'a SourceId,
    device: &'a str,
}

impl Place<'_> {
    fn state(&self, rule: &CompiledRule, standing: &Standing) -> AlertState {
        AlertState {
            rule: rule.rule().id.clone(),
            source: self.source.clone(),
            device: self.device.to_owned(),
            account: self.account.clone(),
            phase: standing.phase,
            since: standing.since,
            last_seen: standing.last_seen.unwrap_or(standing.since),
            last_value: standing.last_value,
            not_before: standing.not_before,
        }
    }

    fn event(
        &self,
        rule: &CompiledRule,
        (kind, ts): Turn,
        value: Option<f64>,
        origin: Option<&str>,
    ) -> AlertEvent {
        let rule = rule.rule();
        let kind_name = match kind {
            AlertEventKind::Raised => "raised",
            AlertEventKind::Resolved => "resolved",
        };
        AlertEvent {
            id: format!("{}/{}/{}/{kind_name}/{}", rule.id, self.source, self.device, ts.as_millis()),
            kind,
            rule: rule.id.clone(),
            rule_name: rule.name.clone(),
            severity: rule.severity,
            account: self.account.clone(),
            source: self.source.clone(),
            device: self.device.to_owned(),
            value,
            ts,
            message: message(&rule.condition, kind, self.device, value),
            origin: origin.map(str::to_owned),
        }
    }
}

fn message(condition: &Condition, kind: AlertEventKind, device: &str, value: Option<f64>) -> String {
    match condition {
        Condition::Threshold { parameter, comparison, limit, clear, .. } => {
            let side = match comparison {
                Comparison::Above => "above",
                Comparison::Below => "below",
            };
            let value = value.unwrap_or(f64::NAN);
            match (kind, clear) {
                (AlertEventKind::Raised, _) => {
                    format!("{parameter} of {device} is {value}, {side} {limit}")
                }
                (AlertEventKind::Resolved, Some(clear)) => {
                    format!("{parameter} of {device} is {value}, no longer {side} {limit} (clear at {clear})")
                }
                (AlertEventKind::Resolved, None) => {
                    format!("{parameter} of {device} is {value}, no longer {side} {limit}")
                }
            }
        }
        Condition::Silent { after_ms } => match kind {
            AlertEventKind::Raised => format!("no reading of {device} for more than {} s", after_ms / 1000),
            AlertEventKind::Resolved => format!("readings of {device} come again"),
        },
    }
}

#[cfg(test)]
#[path = "book_tests.rs"]
mod tests;
