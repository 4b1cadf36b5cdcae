//! The alert engine: rules applied to readings, without any I/O.

use std::collections::HashMap;
use std::time::Duration;

use galerna_model::{
    AccountId, AlertEvent, AlertEventKind, AlertState, Condition, Phase, SourceId, Timestamp,
};

use super::account::{AccountState, evaluate};
use super::event::DeviceKey;
use super::rules::RuleSet;
use super::state::Observed;
use crate::batch::ReadingBatch;

/// What evaluating changed: to be made durable before the readings are acked.
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

    /// The accounts of the alerts that end here.
    pub(super) fn ending(&self) -> Vec<AccountId> {
        let mut accounts: Vec<AccountId> = Vec::new();
        for event in self.events.iter().filter(|event| event.kind == AlertEventKind::Resolved) {
            if !accounts.contains(&event.account) {
                accounts.push(event.account.clone());
            }
        }
        accounts
    }

    /// Leaves out, of each alert that an operator has closed meanwhile, as the stored states tell, its first end.
    pub(super) fn leave_out_closed(&mut self, stored: &[AlertState]) {
        for closed in stored.iter().filter(|state| state.phase == Phase::Closed) {
            let end = self.events.iter().position(|event| {
                event.rule == closed.rule && event.source == closed.source && event.device == closed.device
            });
            // When the first thing to tell of it is that it was raised, that is another alert.
            if let Some(end) = end
                && self.events[end].kind == AlertEventKind::Resolved
            {
                self.events.remove(end);
            }
        }
    }
}

/// How far the clocks of devices may be ahead before their readings count as from the future.
pub const CLOCK_SKEW: Duration = Duration::from_millis(CLOCK_SKEW_MS as u64);
pub(super) const CLOCK_SKEW_MS: i64 = 60_000;

/// Now, by both clocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    /// The topology's clock, which only goes forward.
    pub running: Duration,
    /// The wall clock.
    pub wall: Timestamp,
}

/// The state of every rule for every device seen.
///
/// Pure: it takes readings and gives [`Changes`]; [`AlertBolt`](super::AlertBolt) does the waiting. The rules that watch a
/// device are looked up once per device, so that a reading of a device that no rule watches costs one look-up.
///
/// *Order.* The readings of a batch are evaluated in the order of their times. One that comes in a later batch, and is older than what
/// was evaluated already, is put in its place when it is late by no more than the engine's lateness, and is not evaluated else.
///
/// *The future.* No reading moves the time of its source, by which silences are noticed, past the wall clock. One whose time is
/// further than [`CLOCK_SKEW`] past the wall clock is evaluated as of the moment at which it was received, so that the readings that
/// follow it are not late.
#[derive(Debug, Default)]
pub struct AlertEngine {
    rules: RuleSet,
    lateness_ms: i64,
    accounts: HashMap<AccountId, AccountState>,
}

impl AlertEngine {
    /// An engine under these rules, which knows no device. Late readings are not evaluated.
    pub fn new(rules: RuleSet) -> Self {
        Self { rules, lateness_ms: 0, accounts: HashMap::new() }
    }

    /// Evaluates readings that are late by so much in their place among the others.
    #[must_use]
    pub fn with_lateness(mut self, lateness: Duration) -> Self {
        self.lateness_ms = i64::try_from(lateness.as_millis()).unwrap_or(i64::MAX);
        self
    }

    /// The rules in force.
    pub fn rules(&self) -> &RuleSet {
        &self.rules
    }

    /// Takes other rules and forgets everything, to be loaded again. Store [`unsaved`](Self::unsaved) first.
    pub fn set_rules(&mut self, rules: RuleSet) {
        *self = Self { lateness_ms: self.lateness_ms, ..Self::new(rules) };
    }

    /// Whether the states of the batch's account are to be loaded before [`evaluate`](Self::evaluate): it is new here, or somebody
    /// else may have had its queue since it was loaded or evaluated last, which a gap between the epochs tells.
    pub fn must_load(&self, batch: &ReadingBatch) -> bool {
        match self.accounts.get(&batch.account) {
            None => self.rules.watch_account(&batch.account),
            Some(account) => {
                account.watched
                    && batch.epoch > 0
                    && account.lease.as_ref().is_none_or(|(queue, epoch)| {
                        *queue != batch.queue || !(*epoch..=epoch + 1).contains(&batch.epoch)
                    })
            }
        }
    }

    /// Takes the stored states of an account. Those that are newer than what is here replace it.
    pub fn load(&mut self, account: &AccountId, states: Vec<AlertState>, now: Moment) {
        let watched = self.rules.watch_account(account);
        let known = self.accounts.entry(account.clone()).or_insert_with(|| AccountState::new(watched, now));
        known.lease = None;
        for state in &states {
            known.source(&state.source).load(&self.rules, account, state, now);
        }
    }

    /// Forgets an account: the store knows what counts.
    pub fn forget(&mut self, account: &AccountId) {
        self.accounts.remove(account);
    }

    /// Evaluates the readings of a batch, whose account must have been [loaded](Self::must_load).
    pub fn evaluate(&mut self, batch: &ReadingBatch, now: Moment, changes: &mut Changes) {
        let Self { rules, accounts, lateness_ms } = self;
        if !accounts.contains_key(&batch.account) {
            let account = AccountState::new(rules.watch_account(&batch.account), now);
            accounts.insert(batch.account.clone(), account);
        }
        let Some(account) = accounts.get_mut(&batch.account) else { return };
        account.used_at = now.running;
        if !account.watched {
            return;
        }
        account.heard_at = Some(now.running);
        if account.lease.as_ref().is_none_or(|(queue, epoch)| *epoch != batch.epoch || *queue != batch.queue)
        {
            account.lease = Some((batch.queue.clone(), batch.epoch));
        }
        let order = in_order(batch, now);
        // A device is heard when its message comes, whatever its own clock says.
        for (at, index) in &order {
            account.source(&batch.readings[*index].source).observe((*at).min(now.wall), now);
        }
        for (at, index) in order {
            let reading = &batch.readings[index];
            let source = account.source(&reading.source);
            let observed = Observed { ts: at, at: source.time(now), received: now.wall };
            for instance in source.instances_of(rules, &batch.account, &reading.device) {
                let evaluated = evaluate(instance, reading, observed, *lateness_ms);
                if !evaluated.changed {
                    continue;
                }
                let rule = instance.rule.rule();
                let key =
                    DeviceKey { account: &reading.account, source: &reading.source, device: &reading.device };
                for event in &evaluated.events {
                    // What raises a silence is the lack of readings, also when the next one is what makes it known.
                    let is_lack = matches!(rule.condition, Condition::Silent { .. })
                        && event.kind == AlertEventKind::Raised;
                    let origin = (!is_lack).then_some(batch.message.as_str());
                    changes.events.push(key.event(rule, event, origin, now.wall));
                }
                changes.states.push(key.state(rule, &instance.state));
            }
        }
    }

    /// The accounts with a device that has been silent for too long at `now`, as far as this engine knows.
    pub fn silent_accounts(&self, now: Moment) -> Vec<AccountId> {
        let is_silent = |account: &AccountState| {
            account.silences_after <= now.running && account.silences(now).next().is_some()
        };
        self.accounts.iter().filter(|(_, account)| is_silent(account)).map(|(id, _)| id.clone()).collect()
    }

    /// The devices of an account that have been silent for too long at `now`, each once.
    pub fn silent_devices(&self, account: &AccountId, now: Moment) -> Vec<(SourceId, String)> {
        let Some(known) = self.accounts.get(account) else { return Vec::new() };
        let mut devices: Vec<(SourceId, String)> =
            known.silences(now).map(|(source, device, ..)| (source.clone(), device.to_owned())).collect();
        devices.sort();
        devices.dedup();
        devices
    }

    /// How long ago a message of the account was evaluated; `None` when none was since it was loaded.
    pub fn heard_ago(&self, account: &AccountId, now: Moment) -> Option<Duration> {
        self.accounts.get(account)?.heard_at.map(|at| now.running.saturating_sub(at))
    }

    /// Does not look at the silences of an account for so long.
    pub fn postpone_silences(&mut self, account: &AccountId, now: Moment, by: Duration) {
        if let Some(known) = self.accounts.get_mut(account) {
            known.silences_after = now.running + by;
        }
    }

    /// Takes note of a device's reading that is stored, and that another task or process may have evaluated: so the device is not
    /// silent since before.
    pub fn note_stored(
        &mut self,
        account: &AccountId,
        (source, device): (&SourceId, &str),
        (ts, received): (Timestamp, Timestamp),
        now: Moment,
    ) {
        let Some(known) = self.accounts.get_mut(account) else { return };
        let source = known.source(source);
        let received = received.min(now.wall);
        let observed = source.observed(evaluation_time(ts, received, now), received, now);
        for instance in source.known(device).iter_mut().filter(|instance| instance.after_ms().is_some()) {
            instance.note(observed);
        }
    }

    /// The silences of an account at `now`. Nothing changes in the engine: give the states back to [`load`](Self::load) once
    /// they are stored.
    pub fn silences(&self, account: &AccountId, now: Moment, changes: &mut Changes) {
        let Some(known) = self.accounts.get(account) else { return };
        for (source, device, instance, next, transition) in known.silences(now) {
            let key = DeviceKey { account, source, device };
            changes.events.push(key.event(instance.rule.rule(), &transition, None, now.wall));
            changes.states.push(key.state(instance.rule.rule(), &next));
        }
    }

    /// States of silence rules whose latest reading moved since they were stored; they count as stored from now on.
    pub fn unsaved(&mut self) -> Vec<AlertState> {
        let mut states = Vec::new();
        for (account, known) in &mut self.accounts {
            for (source, devices) in &mut known.sources {
                for (device, instance) in devices.instances_mut().filter(|(_, instance)| instance.unsaved) {
                    instance.unsaved = false;
                    let key = DeviceKey { account, source, device };
                    states.push(key.state(instance.rule.rule(), &instance.state));
                }
            }
        }
        states
    }

    /// Marks states as not stored after all.
    pub fn mark_unsaved(&mut self, states: &[AlertState]) {
        for state in states {
            let Some(known) = self.accounts.get_mut(&state.account) else { continue };
            let instances = known.source(&state.source).known(&state.device);
            if let Some(instance) = instances.iter_mut().find(|known| known.rule.rule().id == state.rule) {
                instance.unsaved = true;
            }
        }
    }

    /// How many devices are remembered.
    pub fn devices(&self) -> usize {
        self.accounts.values().map(AccountState::devices).sum()
    }

    /// Forgets until at most `devices` are remembered: first those that no rule watches, then whole accounts, those unused the
    /// longest first. Store [`unsaved`](Self::unsaved) before.
    pub fn evict(&mut self, devices: usize) {
        if self.devices() <= devices {
            return;
        }
        self.accounts.values_mut().for_each(AccountState::forget_unwatched);
        let mut left = self.devices();
        let mut by_use: Vec<_> =
            self.accounts.iter().map(|(id, known)| (known.used_at, id.clone())).collect();
        by_use.sort();
        for (_, account) in by_use {
            if left <= devices {
                break;
            }
            left -= self.accounts.remove(&account).map_or(0, |known| known.devices());
        }
    }
}

/// The time at which a reading is evaluated: its own, unless that is from the future; then that at which it was received.
fn evaluation_time(ts: Timestamp, received: Timestamp, now: Moment) -> Timestamp {
    if ts.millis_since(now.wall) > CLOCK_SKEW_MS { received.min(now.wall) } else { ts }
}

/// The readings of a batch by the times at which they are evaluated, then by their own.
fn in_order(batch: &ReadingBatch, now: Moment) -> Vec<(Timestamp, usize)> {
    let at = |index: usize| {
        let reading = &batch.readings[index];
        evaluation_time(reading.ts, reading.received, now)
    };
    let mut order: Vec<(Timestamp, usize)> =
        (0..batch.readings.len()).map(|index| (at(index), index)).collect();
    let own = |&(at, index): &(Timestamp, usize)| (at, batch.readings[index].ts);
    // They nearly always are.
    if !order.is_sorted_by_key(own) {
        order.sort_by_key(own);
    }
    order
}

#[cfg(test)]
#[path = "engine_tests.rs"]
mod tests;
