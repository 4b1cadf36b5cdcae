//! What fires by the clock: each schedule publishes a message to a queue.

use std::sync::Arc;

use anyhow::Context;
use async_trait::async_trait;
use galerna_broker::Broker;
use galerna_model::SystemClock;
use galerna_schedules::api::{PayloadCheck, SchedulesApi};
use galerna_schedules::mongo::MongoSchedules;
use galerna_schedules::sqlite::SqliteSchedules;
use galerna_schedules::{
    BadSchedule, QueueMessage, QueuePublisher, Runner, RunnerOptions, ScheduleStore, SchedulerOptions,
    Schedules,
};
use galerna_settings::{Settings, without_password};
use galerna_telemetry::process_name;
use serde_json::Value;

use crate::backends::data_file;
use crate::module::{Module, Task};

/// Opens the store of schedules: a file of its own beside the embedded store, or the same database of MongoDB.
///
/// # Errors
/// Why it cannot be opened.
pub async fn open(settings: &Settings) -> anyhow::Result<Arc<dyn ScheduleStore>> {
    if settings.store.is_embedded() {
        let file = data_file(settings, "schedules.db");
        let opened = tokio::task::spawn_blocking(move || SqliteSchedules::open(&file)).await?;
        return Ok(Arc::new(opened.context("cannot open the store of schedules")?));
    }
    let url = &settings.store.url;
    let opened = MongoSchedules::connect(url).await;
    Ok(Arc::new(
        opened.with_context(|| format!("cannot open the store of schedules at {}", without_password(url)))?,
    ))
}

/// What the API and the page work on. Without a broker it is not looked whether the queues are there.
pub(crate) fn api(store: Arc<dyn ScheduleStore>, broker: Option<Arc<dyn Broker>>) -> SchedulesApi {
    let check = QueueIsThere(broker.map(QueuePublisher::new));
    SchedulesApi::from(Schedules::new(store, Arc::new(SystemClock))).checking(Arc::new(check))
}

/// Takes payloads that name a message and a queue that is there.
struct QueueIsThere(Option<QueuePublisher>);

#[async_trait]
impl PayloadCheck for QueueIsThere {
    async fn check(&self, payload: &Value) -> Result<(), BadSchedule> {
        let QueueMessage { queue, .. } = QueueMessage::of(payload)?;
        let Some(publisher) = &self.0 else { return Ok(()) };
        match publisher.knows(&queue).await {
            Ok(true) => Ok(()),
            Ok(false) => Err(BadSchedule {
                field: "payload",
                reason: format!(
                    "queue `{queue}` does not exist; `galerna queues list` (GET /queue/status) shows those that do"
                ),
            }),
            // Then it is seen when it fires.
            Err(error) => {
                tracing::warn!(%error, %queue, "it is not known whether the queue of a schedule is there");
                Ok(())
            }
        }
    }
}

/// What firing takes.
struct Parts {
    store: Arc<dyn ScheduleStore>,
    broker: Arc<dyn Broker>,
    options: RunnerOptions,
}

/// The firing of schedules, by this process among others.
pub(crate) struct ScheduleRunner {
    parts: Option<Parts>,
    task: Task,
    ended: anyhow::Result<()>,
}

impl ScheduleRunner {
    pub(crate) fn new(settings: &Settings, store: Arc<dyn ScheduleStore>, broker: Arc<dyn Broker>) -> Self {
        // The name says for people which process it is; what it adds makes it unlike any other.
        let holder = format!("{}-{:016x}", process_name("schedules"), fastrand::u64(..));
        let scheduler =
            SchedulerOptions { holder, keep: Some(settings.schedules.keep), ..SchedulerOptions::default() };
        let options = RunnerOptions { scheduler, ..RunnerOptions::default() };
        Self { parts: Some(Parts { store, broker, options }), task: Task::default(), ended: Ok(()) }
    }
}

#[async_trait]
impl Module for ScheduleRunner {
    fn name(&self) -> &'static str {
        "schedules"
    }

    async fn start(&mut self) -> anyhow::Result<()> {
        if let Some(Parts { store, broker, options }) = self.parts.take() {
            let (publisher, stopped) = (QueuePublisher::new(broker), self.task.stopped());
            let runner = Runner::new(store, Arc::new(SystemClock), options);
            self.task.spawn(async move {
                runner
                    .run(stopped, move |firing, _| {
                        let publisher = publisher.clone();
                        async move {
                            let published = publisher.publish(&firing).await;
                            match &published {
                                Ok(()) => tracing::info!(firing = %firing.id, attempt = firing.attempt, "a schedule fired"),
                                Err(fault) => {
                                    tracing::warn!(firing = %firing.id, attempt = firing.attempt, cause = fault.reason(), "a schedule could not fire");
                                }
                            }
                            published
                        }
                    })
                    .await;
                Ok(())
            });
        }
        Ok(())
    }

    fn ready(&self) -> bool {
        self.task.runs()
    }

    /// Claims nothing more, and ends what is being published.
    async fn drain(&mut self) {
        self.ended = self.task.end().await;
    }

    async fn stop(&mut self) -> anyhow::Result<()> {
        std::mem::replace(&mut self.ended, Ok(()))
    }
}
