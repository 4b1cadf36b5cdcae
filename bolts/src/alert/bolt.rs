//! The bolt that judges readings by the alert rules.

use std::sync::Arc;
use std::time::Duration;

use galerna_broker::Broker;
use galerna_model::envelope::JSON_CONTENT_TYPE;
use galerna_model::{AccountId, Message, QueueName};
use galerna_model::{AlertEventKind, AlertState, Rule};
use galerna_storage::{Accounts, AlertStates, Rules, StorageError, Store};
use galerna_topology::{Anchors, AsyncBolt, Batch, Emitter, Fault, TaskContext};

use super::book::{AlertBook, Changes};
use super::rules::RuleSet;
use crate::batch::ReadingBatch;
use crate::patience::{DEFAULT_PATIENCE, patiently};

/// The queue that alert events are published to, as JSON of [`AlertEvent`](galerna_model::AlertEvent).
pub const ALERTS_QUEUE: &str = "galerna.alerts";

/// How the alert bolt works.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AlertOptions {
    /// How often the rules are read again.
    pub reload_every: Duration,
    /// How often the latest readings of devices watched for silence are stored.
    pub save_every: Duration,
    /// How many devices are remembered; beyond, accounts unused the longest are forgotten and loaded again when needed.
    pub devices: usize,
    /// How long to try again by itself while store or broker is away, before the tuples fail.
    pub patience: Duration,
}

impl Default for AlertOptions {
    /// Rules every 10 s, saving every 30 s, 1,000,000 devices, 20 s of patience.
    fn default() -> Self {
        Self {
            reload_every: Duration::from_secs(10),
            save_every: Duration::from_secs(30),
            devices: 1_000_000,
            patience: DEFAULT_PATIENCE,
        }
    }
}

/// Judges readings by the alert rules; records events and publishes them to [`ALERTS_QUEUE`].
///
/// *What is promised.* The events of a batch are recorded, then published, then the states stored, then the batch acked; when
/// one of these fails, the batch fails, what is remembered of its accounts is forgotten, and the redelivery starts from
/// the store. So an event is published at least once, always with the same id, and its record is there once. The tables of
/// what raises and resolves are in the source of [`Standing`](super::Standing).
///
/// *How to wire it.* Subscribe by fields with the account as the key, so that each account is judged by one task, and give it
/// a tick interval of a second or a few: rules are reloaded, and silent devices noticed, on ticks.
///
/// *Silent devices.* Time is the source's own: that of its newest reading, going on from there as the topology's clock does. So
/// a backlog or a replay is judged by its readings' times, and a source that stops altogether is noticed, too. A paused queue
/// looks like silence; a device that never sent anything is not known. The latest reading of each device is stored every
/// [`AlertOptions::save_every`], and before a silence is raised the states are read again, since another worker may have had
/// the queue; `after_ms` should be well above that interval.
pub struct AlertBolt {
    rules: Arc<dyn Rules>,
    states: Arc<dyn AlertStates>,
    accounts: Arc<dyn Accounts>,
    broker: Arc<dyn Broker>,
    options: AlertOptions,
    context: Option<TaskContext>,
    queue: Option<QueueName>,
    book: AlertBook,
    reloaded_at: Duration,
    saved_at: Duration,
    preloaded: bool,
}

impl AlertBolt {
    /// Judges by the rules of this store, and publishes to this broker.
    pub fn new(store: &Store, broker: Arc<dyn Broker>, options: AlertOptions) -> Self {
        Self {
            rules: store.rules.clone(),
            states: store.alert_states.clone(),
            accounts: store.accounts.clone(),
            broker,
            options,
            context: None,
            queue: None,
            book: AlertBook::default(),
            reloaded_at: Duration::ZERO,
            saved_at: Duration::ZERO,
            preloaded: false,
        }
    }

    fn context(&self) -> Result<&TaskContext, Fault> {
        self.context.as_ref().ok_or_else(|| Fault::transient("the alert bolt is not prepared"))
    }

    async fn judge(&mut self, batches: &[Arc<ReadingBatch>], anchors: &Anchors) -> Result<(), Fault> {
        let now = self.context()?.now();
        let mut changes = Changes::default();
        for batch in batches {
            if self.book.must_load(batch) {
                let states = self.load(&batch.account, || anchors.reset_timeout()).await?;
                self.book.load(&batch.account, states, now);
            }
            self.book.judge(batch, now, &mut changes);
        }
        if changes.is_empty() {
            return Ok(());
        }
        self.make_durable(&mut changes, || anchors.reset_timeout()).await
    }

    async fn load(&self, account: &AccountId, waiting: impl Fn()) -> Result<Vec<AlertState>, Fault> {
        let context = self.context()?;
        patiently(context.clock(), self.options.patience, |_| waiting(), || self.states.load(account))
            .await
            .map_err(|given_up| given_up.fault())
    }

    async fn make_durable(&self, changes: &mut Changes, waiting: impl Fn()) -> Result<(), Fault> {
        let clock = self.context()?.clock();
        let patience = self.options.patience;
        changes.deduplicate();
        let Changes { events, states } = changes;
        if !events.is_empty() {
            patiently(clock, patience, |_| waiting(), || self.states.record(events))
                .await
                .map_err(|given_up| given_up.fault())?;
            for event in events.iter() {
                let Some(origin) = &event.origin else { continue };
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
            let queue =
                self.queue.as_ref().ok_or_else(|| Fault::transient("the alert bolt is not prepared"))?;
            let mut window = Vec::with_capacity(events.len());
            for event in events.iter() {
                let body = serde_json::to_vec(event)?.into();
                let content_type = JSON_CONTENT_TYPE.to_owned();
                window.push((queue.clone(), Message { body, content_type, id: event.id.clone() }));
            }
            patiently(clock, patience, |_| waiting(), || self.broker.publish(window.clone()))
                .await
                .map_err(|given_up| given_up.fault())?;
        }
        patiently(clock, patience, |_| waiting(), || self.states.save(states))
            .await
            .map_err(|given_up| given_up.fault())
    }

    fn take_rules(&mut self, rules: Vec<Rule>) {
        let (rules, errors) = RuleSet::compile(rules);
        if rules.same_as(self.book.rules()) {
            return;
        }
        for error in errors {
            tracing::warn!(%error, "an alert rule is not used");
        }
        self.book.set_rules(rules);
        self.preloaded = false;
    }

    async fn reload_rules(&mut self) -> Result<(), StorageError> {
        let rules = self.rules.list().await?;
        if !RuleSet::compile(rules.clone()).0.same_as(self.book.rules()) {
            self.save_moved().await?;
            self.take_rules(rules);
        }
        Ok(())
    }

    async fn save_moved(&mut self) -> Result<(), StorageError> {
        let moved = self.book.moved();
        if moved.is_empty() {
            return Ok(());
        }
        let saved = self.states.save(&moved).await;
        if saved.is_err() {
            self.book.unmoved(&moved);
        }
        saved
    }

    /// After a start, devices that were watched for silence are watched again even when their account sends nothing. One
    /// task does this, lest each raise the same.
    async fn preload(&mut self) -> Result<(), Fault> {
        let context = self.context()?;
        if self.preloaded || context.task() != 0 || !self.book.rules().watch_silence() {
            return Ok(());
        }
        let now = context.now();
        for account in self.accounts.list().await? {
            if self.book.rules().watch_account(&account.id) {
                let states = self.states.load(&account.id).await?;
                self.book.load(&account.id, states, now);
            }
        }
        self.preloaded = true;
        Ok(())
    }

    async fn raise_silences(&mut self) -> Result<(), Fault> {
        let now = self.context()?.now();
        for account in self.book.silent_accounts(now) {
            // Another worker may have heard of them.
            let states = self.states.load(&account).await?;
            self.book.load(&account, states, now);
            let mut changes = Changes::default();
            self.book.silences(&account, now, &mut changes);
            if !changes.is_empty() {
                self.make_durable(&mut changes, || {}).await?;
                self.book.load(&account, changes.states, now);
            }
        }
        Ok(())
    }
}

impl AsyncBolt for AlertBolt {
    type Input = Arc<ReadingBatch>;
    type Outputs = ();

    async fn prepare(&mut self, context: &TaskContext) -> Result<(), Fault> {
        self.context = Some(context.clone());
        let queue = QueueName::new(ALERTS_QUEUE)?;
        let clock = context.clock();
        let patience = self.options.patience;
        patiently(clock, patience, |_| {}, || self.broker.declare(&queue))
            .await
            .map_err(|given_up| given_up.fault())?;
        self.queue = Some(queue);
        let rules = patiently(clock, patience, |_| {}, || self.rules.list())
            .await
            .map_err(|given_up| given_up.fault())?;
        self.take_rules(rules);
        self.reloaded_at = context.now();
        self.saved_at = context.now();
        Ok(())
    }

    async fn execute(&mut self, _: Arc<ReadingBatch>, _: &mut Emitter<()>) -> Result<(), Fault> {
        Ok(())
    }

    async fn execute_batch(&mut self, batch: Batch<Arc<ReadingBatch>>, _: &mut Emitter<()>) {
        let (batches, anchors) = batch.into_parts();
        match self.judge(&batches, &anchors).await {
            Ok(()) => anchors.ack(),
            Err(fault) => {
                // What was judged is not durable: the redelivery must be judged from what is.
                batches.iter().for_each(|batch| self.book.forget(&batch.account));
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
        self.preload().await?;
        if now.saturating_sub(self.saved_at) >= self.options.save_every {
            self.save_moved().await?;
            self.saved_at = now;
            self.book.trim(self.options.devices);
        }
        self.raise_silences().await
    }

    async fn close(&mut self, _: &mut Emitter<()>) {
        if let Err(error) = self.save_moved().await {
            tracing::warn!(%error, "the latest readings of devices watched for silence were not stored");
        }
    }
}
