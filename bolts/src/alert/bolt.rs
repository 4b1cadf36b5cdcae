//! The bolt that evaluates the alert rules.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt, stream};
use galerna_broker::{Broker, BrokerError};
use galerna_model::{
    AccountId, AlertEvent, AlertEventKind, AlertState, Clock, QueueName, Rule, SourceId, SystemClock,
    Timestamp,
};
use galerna_storage::{ReadingsQuery, StorageError, Store};
use galerna_topology::{Anchors, AsyncBatchBolt, Batch, Emitter, Fault, TaskContext};

use super::closing::{messages, resolve_orphans};
use super::engine::{AlertEngine, Changes, Moment};
use super::rules::RuleSet;
use crate::batch::ReadingBatch;
use crate::retry::{DEFAULT_RETRY_BUDGET, retry_within};

/// The queue that alert events are published to, as JSON of [`AlertEvent`](galerna_model::AlertEvent).
pub const ALERTS_QUEUE: &str = "galerna.alerts";

/// After a start, silences wait for so long: what waited in the queues meanwhile comes first.
const SETTLING: Duration = Duration::from_secs(5);
/// An account of which nothing came for so long may have its messages held up: then its queue is asked for them.
const QUIET: Duration = Duration::from_secs(30);
/// How long the silences of an account wait whose messages are held up.
const HELD_UP: Duration = Duration::from_secs(10);
/// How often alerts without a rule in force are looked for, beside after each change of the rules.
const SWEEP_EVERY: Duration = Duration::from_secs(300);
/// Look-ups of the readings of silent devices at once.
const LOOK_UPS: usize = 16;

/// How the alert bolt works.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AlertOptions {
    /// How often the rules are read again.
    pub reload_every: Duration,
    /// How often the latest readings of devices watched for silence are stored.
    pub save_every: Duration,
    /// How many devices are remembered; beyond, accounts unused the longest are forgotten and loaded again when needed.
    pub devices: usize,
    /// How late a reading may be, by the readings' times of its device, and still be evaluated in its place; what is later is not
    /// evaluated by any rule. 0: late readings are not evaluated at all. Readings are kept in memory for so long.
    pub lateness: Duration,
    /// How long to try again by itself while store or broker is unavailable, before the tuples fail.
    pub retry_budget: Duration,
}

impl Default for AlertOptions {
    /// Rules every 10 s, saving every 30 s, 1,000,000 devices, readings up to a minute late, 20 s of retries.
    fn default() -> Self {
        Self {
            reload_every: Duration::from_secs(10),
            save_every: Duration::from_secs(30),
            devices: 1_000_000,
            lateness: Duration::from_secs(60),
            retry_budget: DEFAULT_RETRY_BUDGET,
        }
    }
}

/// Evaluates the alert rules on readings; records events and publishes them to [`ALERTS_QUEUE`].
///
/// *What is promised.* The events of a batch are recorded, then published, then the states stored, then the batch acked; when
/// one of these fails, the batch fails, what is remembered of its accounts is forgotten, and the redelivery starts from
/// the store. So an event is published at least once, always with the same id, and its record is there once. The tables of
/// what raises and resolves are in the source of [`RuleState`](super::RuleState); in which order readings are evaluated,
/// [`AlertEngine`] says.
///
/// *How to wire it.* Subscribe by fields with the account as the key, so that each account is evaluated by one task, and give it
/// a tick interval of a second or a few: rules are reloaded, and silent devices noticed, on ticks.
///
/// *Silent devices.* Time is the source's own: that of its newest reading, going on from there as the clock does, over restarts
/// too. So a backlog or a replay is evaluated by its readings' times, and a source that stops altogether is noticed. A device whose
/// clock is slow is silent when it sends nothing, not when its readings are old. Before a silence is raised the device's readings are
/// looked up in the store, since another task or worker may have had them, and when nothing came of the whole account for a
/// while, its queue is asked whether messages are held up there (it is paused, or nobody ran). A device that never sent anything is not
/// known.
///
/// *Alerts that end without a reading.* When its rule is deleted, disabled, or changed so that it does not watch the device any
/// more, a firing alert is resolved with that reason. [`close_alert`](super::close_alert) closes one by hand.
pub struct AlertBolt {
    store: Store,
    broker: Arc<dyn Broker>,
    options: AlertOptions,
    wall: Arc<dyn Clock>,
    context: Option<TaskContext>,
    queue: Option<QueueName>,
    engine: AlertEngine,
    /// The stored rules, those not in force too.
    rules: Vec<Rule>,
    reloaded_at: Duration,
    saved_at: Duration,
    loaded_at: Option<Duration>,
    swept_at: Duration,
    /// Sweeps to make without waiting for the next: another process may take up a change of rules after this one.
    sweeps: u8,
}

impl AlertBolt {
    /// Evaluates the rules of this store, and publishes to this broker.
    pub fn new(store: &Store, broker: Arc<dyn Broker>, options: AlertOptions) -> Self {
        Self {
            store: store.clone(),
            broker,
            engine: AlertEngine::default().with_lateness(options.lateness),
            options,
            wall: Arc::new(SystemClock),
            context: None,
            queue: None,
            rules: Vec::new(),
            reloaded_at: Duration::ZERO,
            saved_at: Duration::ZERO,
            loaded_at: None,
            swept_at: Duration::ZERO,
            sweeps: 2,
        }
    }

    /// Tells the wall time by another clock.
    #[must_use]
    pub fn with_clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.wall = clock;
        self
    }

    fn context(&self) -> Result<&TaskContext, Fault> {
        self.context.as_ref().ok_or_else(|| Fault::transient("the alert bolt is not prepared"))
    }

    fn now(&self) -> Result<Moment, Fault> {
        Ok(Moment { running: self.context()?.now(), wall: self.wall.now() })
    }

    async fn evaluate(&mut self, batches: &[Arc<ReadingBatch>], anchors: &Anchors) -> Result<(), Fault> {
        let now = self.now()?;
        let mut changes = Changes::default();
        for batch in batches {
            if self.engine.must_load(batch) {
                let states = self.load(&batch.account, || anchors.reset_timeout()).await?;
                self.engine.load(&batch.account, states, now);
            }
            self.engine.evaluate(batch, now, &mut changes);
        }
        if changes.is_empty() {
            return Ok(());
        }
        // Few alerts end; an operator may have closed them.
        for account in changes.ending() {
            let stored = self.load(&account, || anchors.reset_timeout()).await?;
            changes.leave_out_closed(&stored);
        }
        self.make_durable(&mut changes, || anchors.reset_timeout()).await
    }

    async fn load(&self, account: &AccountId, waiting: impl Fn()) -> Result<Vec<AlertState>, Fault> {
        let states = &self.store.alert_states;
        let clock = self.context()?.clock();
        Ok(retry_within(clock, self.options.retry_budget, |_| waiting(), || states.load(account)).await?)
    }

    async fn make_durable(&self, changes: &mut Changes, waiting: impl Fn()) -> Result<(), Fault> {
        let clock = self.context()?.clock();
        let budget = self.options.retry_budget;
        let store = &self.store.alert_states;
        changes.deduplicate();
        let Changes { events, states } = changes;
        if !events.is_empty() {
            retry_within(clock, budget, |_| waiting(), || store.record(events)).await?;
            events.iter().for_each(trace);
            let queue =
                self.queue.as_ref().ok_or_else(|| Fault::transient("the alert bolt is not prepared"))?;
            let window = messages(queue, events)?;
            retry_within(clock, budget, |_| waiting(), || self.broker.publish(window.clone())).await?;
        }
        Ok(retry_within(clock, budget, |_| waiting(), || store.save(states)).await?)
    }

    fn apply_rules(&mut self, rules: Vec<Rule>) {
        let (set, errors) = RuleSet::compile(rules.clone());
        self.rules = rules;
        if set.same_as(self.engine.rules()) {
            return;
        }
        for error in errors {
            tracing::warn!(%error, "an alert rule is not used");
        }
        self.engine.set_rules(set);
        self.loaded_at = None;
        self.sweeps = 2;
    }

    async fn reload_rules(&mut self) -> Result<(), Fault> {
        let rules = self.store.rules.list().await?;
        if rules != self.rules {
            self.save_unsaved().await?;
            self.apply_rules(rules);
        }
        let now = self.context()?.now();
        let is_due = self.sweeps > 0 || now.saturating_sub(self.swept_at) >= SWEEP_EVERY;
        // One task does this; that another process does it too is no matter.
        if self.context()?.task() == 0 && is_due {
            let ended = resolve_orphans(&self.store, &*self.broker, &self.rules, self.engine.rules()).await?;
            if ended > 0 {
                tracing::info!(ended, "alerts that no rule in force watches any more are resolved");
            }
            self.sweeps = self.sweeps.saturating_sub(1);
            self.swept_at = now;
        }
        Ok(())
    }

    async fn save_unsaved(&mut self) -> Result<(), StorageError> {
        let unsaved = self.engine.unsaved();
        if unsaved.is_empty() {
            return Ok(());
        }
        let saved = self.store.alert_states.save(&unsaved).await;
        if saved.is_err() {
            self.engine.mark_unsaved(&unsaved);
        }
        saved
    }

    /// After a start, devices that were watched for silence are watched again even when their account sends nothing. One
    /// task does this, lest each raise the same.
    async fn load_watched(&mut self) -> Result<(), Fault> {
        if self.loaded_at.is_some() || self.context()?.task() != 0 || !self.engine.rules().watch_silence() {
            return Ok(());
        }
        for account in self.store.alert_states.accounts().await? {
            if self.engine.rules().watch_account(&account) {
                let states = self.store.alert_states.load(&account).await?;
                let now = self.now()?;
                self.engine.load(&account, states, now);
                self.engine.postpone_silences(&account, now, SETTLING);
            }
        }
        self.loaded_at = Some(self.context()?.now());
        Ok(())
    }

    async fn raise_silences(&mut self) -> Result<(), Fault> {
        let now = self.now()?;
        let mut queues = None;
        for account in self.engine.silent_accounts(now) {
            if self.is_held_up(&account, now, &mut queues).await? {
                self.engine.postpone_silences(&account, now, HELD_UP);
                continue;
            }
            // Another worker may have heard of them, or an operator closed them.
            let states = self.store.alert_states.load(&account).await?;
            self.engine.load(&account, states, now);
            let devices = self.engine.silent_devices(&account, now);
            let seen: Vec<_> = stream::iter(devices)
                .map(|(source, device)| self.stored_readings(source, device, now.wall))
                .buffer_unordered(LOOK_UPS)
                .try_collect()
                .await?;
            for (source, device, readings) in seen {
                for reading in readings {
                    self.engine.note_stored(&account, (&source, &device), reading, now);
                }
            }
            let mut changes = Changes::default();
            self.engine.silences(&account, now, &mut changes);
            if !changes.is_empty() {
                self.make_durable(&mut changes, || {}).await?;
                self.engine.load(&account, changes.states, now);
            }
        }
        Ok(())
    }

    /// Whether messages of an account that nothing comes of wait in its queue.
    async fn is_held_up(
        &self,
        account: &AccountId,
        now: Moment,
        queues: &mut Option<HashMap<AccountId, QueueName>>,
    ) -> Result<bool, Fault> {
        if self.engine.heard_ago(account, now).is_some_and(|ago| ago < QUIET) {
            return Ok(false);
        }
        if queues.is_none() {
            let accounts = self.store.accounts.list().await?;
            *queues = Some(accounts.into_iter().map(|known| (known.id, known.queue)).collect());
        }
        let queue = match queues.as_ref().and_then(|queues| queues.get(account)) {
            Some(queue) => queue.clone(),
            None => QueueName::new(account.as_str())?,
        };
        match self.broker.depth(&queue).await {
            Ok(depth) => Ok(depth.deliverable() > 0),
            Err(BrokerError::UnknownQueue(_)) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Time and reception of a device's newest stored reading, and of its newest that is not from the future.
    async fn stored_readings(
        &self,
        source: SourceId,
        device: String,
        now: Timestamp,
    ) -> Result<(SourceId, String, Vec<(Timestamp, Timestamp)>), Fault> {
        let newest = ReadingsQuery {
            source: Some(source.clone()),
            device: Some(device.clone()),
            limit: 1,
            ..ReadingsQuery::default()
        };
        let mut found = self.store.readings.find(&newest).await?;
        if found.first().is_some_and(|reading| reading.ts > now) {
            let past = ReadingsQuery { until: Some(now.plus_millis(1)), ..newest };
            found.extend(self.store.readings.find(&past).await?);
        }
        let times = found.iter().map(|reading| (reading.ts, reading.received)).collect();
        Ok((source, device, times))
    }
}

/// Tells those who follow messages.
fn trace(event: &AlertEvent) {
    let Some(origin) = &event.origin else { return };
    let what = match event.kind {
        AlertEventKind::Raised => "raised",
        AlertEventKind::Resolved => "resolved",
    };
    tracing::trace!(
        target: "galerna::trace::alert",
        id = origin.as_str(),
        "alert {what} by rule {} for {}: event {}",
        event.rule,
        event.device,
        event.id,
    );
}

impl AsyncBatchBolt for AlertBolt {
    type Input = Arc<ReadingBatch>;
    type Outputs = ();

    async fn prepare(&mut self, context: &TaskContext) -> Result<(), Fault> {
        self.context = Some(context.clone());
        let queue = QueueName::new(ALERTS_QUEUE)?;
        let (clock, budget) = (context.clock(), self.options.retry_budget);
        retry_within(clock, budget, |_| {}, || self.broker.declare(&queue)).await?;
        self.queue = Some(queue);
        let rules = retry_within(clock, budget, |_| {}, || self.store.rules.list()).await?;
        self.apply_rules(rules);
        self.reloaded_at = context.now();
        self.saved_at = context.now();
        Ok(())
    }

    async fn execute(&mut self, batch: Batch<Arc<ReadingBatch>>, _: &mut Emitter<()>) {
        let (batches, anchors) = batch.into_parts();
        match self.evaluate(&batches, &anchors).await {
            Ok(()) => anchors.ack(),
            Err(fault) => {
                // What was evaluated is not durable: the redelivery must be evaluated from what is.
                batches.iter().for_each(|batch| self.engine.forget(&batch.account));
                anchors.fail(fault);
            }
        }
    }

    async fn tick(&mut self, _: &mut Emitter<()>) -> Result<(), Fault> {
        let now = self.context()?.now();
        if now.saturating_sub(self.reloaded_at) >= self.options.reload_every {
            self.reload_rules().await?;
            self.reloaded_at = now;
        }
        self.load_watched().await?;
        if now.saturating_sub(self.saved_at) >= self.options.save_every {
            self.save_unsaved().await?;
            self.saved_at = now;
            self.engine.evict(self.options.devices);
        }
        self.raise_silences().await
    }

    async fn close(&mut self, _: &mut Emitter<()>) {
        if let Err(error) = self.save_unsaved().await {
            tracing::warn!(%error, "the latest readings of devices watched for silence were not stored");
        }
    }
}
