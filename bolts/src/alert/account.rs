//! What is known of an account's sources and devices.

use std::collections::HashMap;
use std::time::Duration;

use galerna_model::{AccountId, AlertState, Condition, Phase, QueueName, SourceId, Timestamp};
use galerna_storage::StoredReading;

use super::engine::Moment;
use super::instance::{Evaluated, RuleInstance};
use super::rules::RuleSet;
use super::state::{Limit, Observed, RuleState, Transition};

/// An account's sources.
#[derive(Debug)]
pub(super) struct AccountState {
    pub(super) watched: bool,
    /// The lease under which its readings came last.
    pub(super) lease: Option<(QueueName, u64)>,
    pub(super) sources: HashMap<SourceId, SourceState>,
    pub(super) used_at: Duration,
    /// When a message of it was evaluated last; `None`: none since it was loaded.
    pub(super) heard_at: Option<Duration>,
    /// Its silences are not looked at before.
    pub(super) silences_after: Duration,
}

/// A source's clock and devices.
#[derive(Debug)]
pub(super) struct SourceState {
    /// The newest reading of the source, never past the wall clock.
    newest: Timestamp,
    /// When that came, in milliseconds of the topology's clock; negative when it came before the topology started.
    newest_at: i64,
    devices: HashMap<Box<str>, Vec<RuleInstance>>,
}

fn clock_millis(running: Duration) -> i64 {
    i64::try_from(running.as_millis()).unwrap_or(i64::MAX)
}

impl AccountState {
    pub(super) fn new(watched: bool, now: Moment) -> Self {
        Self {
            watched,
            lease: None,
            sources: HashMap::new(),
            used_at: now.running,
            heard_at: None,
            silences_after: Duration::ZERO,
        }
    }

    pub(super) fn source(&mut self, source: &SourceId) -> &mut SourceState {
        if !self.sources.contains_key(source) {
            self.sources.insert(source.clone(), SourceState::new());
        }
        self.sources.get_mut(source).expect("it was found or inserted above")
    }

    pub(super) fn devices(&self) -> usize {
        self.sources.values().map(|source| source.devices.len()).sum()
    }

    /// Forgets the devices that no rule watches.
    pub(super) fn forget_unwatched(&mut self) {
        for source in self.sources.values_mut() {
            source.devices.retain(|_, instances| !instances.is_empty());
        }
    }

    /// The devices that have been silent for too long, and what becomes of their states.
    pub(super) fn silences(
        &self,
        now: Moment,
    ) -> impl Iterator<Item = (&SourceId, &str, &RuleInstance, RuleState, Transition)> {
        self.sources.iter().flat_map(move |(source, state)| {
            let source_now = state.time(now);
            state.instances().filter_map(move |(device, instance)| {
                let (next, transition) = instance.state.silent(instance.after_ms()?, source_now)?;
                Some((source, device, instance, next, transition))
            })
        })
    }
}

impl SourceState {
    fn new() -> Self {
        Self { newest: Timestamp(i64::MIN), newest_at: 0, devices: HashMap::new() }
    }

    /// The source's own time: that of its newest reading, going on from there as the topology's clock does.
    pub(super) fn time(&self, now: Moment) -> Timestamp {
        self.newest.plus_millis(clock_millis(now.running).saturating_sub(self.newest_at).max(0))
    }

    /// Moves the source's time on to that of a reading.
    pub(super) fn observe(&mut self, ts: Timestamp, now: Moment) {
        if ts > self.newest {
            (self.newest, self.newest_at) = (ts, clock_millis(now.running));
        }
    }

    /// Takes the stored state of a device. Of what is stored and what is known here, the later one counts.
    pub(super) fn load(&mut self, rules: &RuleSet, account: &AccountId, stored: &AlertState, now: Moment) {
        let state = RuleState::stored(stored, now.wall);
        let last_seen = state.last_seen.unwrap_or(state.since);
        // Time went on for the source while nobody was here to see it. Records of before that was known begin now.
        let since = state.received.map_or(0, |received| now.wall.millis_since(received).max(0));
        let newest = last_seen.min(now.wall);
        if newest.plus_millis(since) > self.time(now) {
            (self.newest, self.newest_at) = (newest, clock_millis(now.running).saturating_sub(since));
        }
        let instances = self.instances_of(rules, account, &stored.device);
        let Some(known) = instances.iter_mut().find(|known| known.rule.rule().id == stored.rule) else {
            return;
        };
        if known.state.last_seen.is_none_or(|seen| last_seen >= seen) {
            known.restore(state);
        } else if state.phase == Phase::Closed && known.state.phase == Phase::Firing {
            known.close();
        }
    }

    /// The rules that watch a device, which are looked up once.
    pub(super) fn instances_of(
        &mut self,
        rules: &RuleSet,
        account: &AccountId,
        device: &str,
    ) -> &mut [RuleInstance] {
        if !self.devices.contains_key(device) {
            let instances =
                rules.of_device(account, device).map(|rule| RuleInstance::new(rule.clone())).collect();
            self.devices.insert(device.into(), instances);
        }
        self.devices.get_mut(device).expect("it was found or inserted above")
    }

    /// What is known of a device, if it is known.
    pub(super) fn known(&mut self, device: &str) -> &mut [RuleInstance] {
        self.devices.get_mut(device).map_or(&mut [], Vec::as_mut_slice)
    }

    fn instances(&self) -> impl Iterator<Item = (&str, &RuleInstance)> {
        self.devices
            .iter()
            .flat_map(|(device, instances)| instances.iter().map(move |instance| (&**device, instance)))
    }

    pub(super) fn instances_mut(&mut self) -> impl Iterator<Item = (&str, &mut RuleInstance)> {
        self.devices
            .iter_mut()
            .flat_map(|(device, instances)| instances.iter_mut().map(|instance| (&**device, instance)))
    }

    /// When a reading that is stored by now came, by the source's time.
    pub(super) fn observed(&self, ts: Timestamp, received: Timestamp, now: Moment) -> Observed {
        let ago = now.wall.millis_since(received).max(0);
        Observed { ts, at: self.time(now).plus_millis(-ago).max(ts.min(now.wall)), received }
    }
}

/// Evaluates a reading by one rule.
pub(super) fn evaluate(
    instance: &mut RuleInstance,
    reading: &StoredReading,
    observed: Observed,
    lateness_ms: i64,
) -> Evaluated {
    let rule = instance.rule.clone();
    match &rule.rule().condition {
        Condition::Threshold { parameter, comparison, limit, clear, for_ms } => {
            let Some(m) = reading.values.iter().find(|m| m.p == *parameter) else {
                return Evaluated::default();
            };
            let limit = Limit {
                comparison: *comparison,
                limit: *limit,
                clear: clear.unwrap_or(*limit),
                for_ms: *for_ms,
            };
            instance.evaluate(&limit, observed.ts, reading.ts, m.v, lateness_ms)
        }
        Condition::Silent { after_ms } => instance.observe(*after_ms, observed, reading.ts),
    }
}
