//! Routes by which programs see and steer schedules.
//!
//! | call | body | answer |
//! |---|---|---|
//! | `GET /schedules` | `?after=&limit=` | `{"schedules":[…],"next":…,"tzdata":…}` |
//! | `POST /schedules` | `{"id":…,"definition":{…}}` | the schedule, with its next ten occurrences |
//! | `GET /schedules/<id>` | | the schedule, with the next ten and the last ten |
//! | `PUT /schedules/<id>` | `{"definition":{…},"revision":n}`, the revision if nobody may have edited it meanwhile | as `POST` |
//! | `GET /schedules/<id>/history` | `?before=&limit=` | `{"ended":[…]}` |
//! | `POST /schedules/<id>/pause` | `{"note":…}` | the schedule |
//! | `POST /schedules/<id>/resume` | | the schedule |
//! | `POST /schedules/<id>/trigger` | `{"overlap":…}`, optional | `{"firing":…,"outcome":…}` |
//! | `POST /schedules/<id>/backfill` | `{"from":…,"to":…,"overlap":…}` | `{"admitted":n}` |
//! | `POST /schedules/<id>/remove` | | `{"id":…}` |
//! | `POST /upcoming` | `{"definition":{…}}` | `{"upcoming":[…],"tzdata":…}`: nothing is kept |
//!
//! A name has its `/` written as `%2F`. Errors are those of `galerna_http::ApiError`. Each body may hold `reason`, which whoever logs
//! calls finds there.

mod routes;

use std::sync::Arc;

use async_trait::async_trait;
use galerna_html::frame::Menu;
use galerna_model::Timestamp;
use serde_json::Value;

pub use self::routes::routes;
use crate::{
    BadSchedule, Definition, FiringId, Occurrence, Outcome, Overlap, Record, SHOWN, ScheduleError,
    ScheduleId, ScheduleView, Schedules, StoreError,
};

/// Says which payloads a program can run.
#[async_trait]
pub trait PayloadCheck: Send + Sync {
    /// Looks at the payload of a schedule that is added or edited.
    ///
    /// # Errors
    /// Why no firing with it could be run.
    async fn check(&self, payload: &Value) -> Result<(), BadSchedule>;
}

/// What routes and pages work on.
#[derive(Clone)]
pub struct SchedulesApi {
    schedules: Schedules,
    payloads: Option<Arc<dyn PayloadCheck>>,
    menu: Arc<Menu>,
}

impl std::fmt::Debug for SchedulesApi {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SchedulesApi")
            .field("checks_payloads", &self.payloads.is_some())
            .finish_non_exhaustive()
    }
}

impl From<Schedules> for SchedulesApi {
    /// Takes any payload.
    fn from(schedules: Schedules) -> Self {
        let menu = Arc::new(Menu::new("Galerna").entry("Schedules", "/schedules"));
        Self { schedules, payloads: None, menu }
    }
}

impl SchedulesApi {
    /// The same, which refuses payloads that the program cannot run.
    #[must_use]
    pub fn checking(mut self, payloads: Arc<dyn PayloadCheck>) -> Self {
        self.payloads = Some(payloads);
        self
    }

    /// The same, whose pages have the program's menu; their own path there is `/schedules`.
    #[must_use]
    pub fn beside(mut self, menu: Menu) -> Self {
        self.menu = Arc::new(menu);
        self
    }

    /// What the pages have as menu.
    pub(crate) fn menu(&self) -> &Menu {
        &self.menu
    }

    async fn check(&self, definition: &Definition) -> Result<(), ScheduleError> {
        definition.compile()?;
        match &self.payloads {
            Some(payloads) => Ok(payloads.check(&definition.payload).await?),
            None => Ok(()),
        }
    }

    /// As [`Schedules::views`].
    ///
    /// # Errors
    /// When the store fails.
    pub async fn list(
        &self,
        after: Option<&ScheduleId>,
        limit: usize,
    ) -> Result<Vec<ScheduleView>, StoreError> {
        self.schedules.views(after, limit).await
    }

    /// As [`Schedules::view`].
    ///
    /// # Errors
    /// [`ScheduleError::NotFound`].
    pub async fn show(&self, id: &ScheduleId) -> Result<ScheduleView, ScheduleError> {
        self.schedules.view(id).await
    }

    /// Adds a schedule.
    ///
    /// # Errors
    /// As [`Schedules::add`], and when the payload is refused.
    pub async fn add(&self, id: ScheduleId, definition: Definition) -> Result<ScheduleView, ScheduleError> {
        self.check(&definition).await?;
        let record = self.schedules.add(id, definition).await?;
        self.show(&record.id).await
    }

    /// Replaces the definition of a schedule.
    ///
    /// # Errors
    /// As [`Schedules::edit`], and when the payload is refused.
    pub async fn edit(
        &self,
        id: &ScheduleId,
        definition: Definition,
        revision: Option<u64>,
    ) -> Result<ScheduleView, ScheduleError> {
        self.check(&definition).await?;
        self.schedules.edit(id, definition, revision).await?;
        self.show(id).await
    }

    /// As [`Schedules::pause`].
    ///
    /// # Errors
    /// [`ScheduleError::NotFound`].
    pub async fn pause(&self, id: &ScheduleId, note: &str) -> Result<ScheduleView, ScheduleError> {
        let _: Record = self.schedules.pause(id, note).await?;
        self.show(id).await
    }

    /// As [`Schedules::resume`].
    ///
    /// # Errors
    /// [`ScheduleError::NotFound`].
    pub async fn resume(&self, id: &ScheduleId) -> Result<ScheduleView, ScheduleError> {
        let _: Record = self.schedules.resume(id).await?;
        self.show(id).await
    }

    /// As [`Schedules::trigger`].
    ///
    /// # Errors
    /// [`ScheduleError::NotFound`].
    pub async fn trigger(
        &self,
        id: &ScheduleId,
        overlap: Option<Overlap>,
    ) -> Result<(FiringId, Option<Outcome>), ScheduleError> {
        self.schedules.trigger(id, overlap).await
    }

    /// As [`Schedules::backfill`].
    ///
    /// # Errors
    /// [`ScheduleError::Bad`] when that are too many, or the times are in the wrong order.
    pub async fn backfill(
        &self,
        id: &ScheduleId,
        from: Timestamp,
        to: Timestamp,
        overlap: Option<Overlap>,
    ) -> Result<usize, ScheduleError> {
        if to <= from {
            return Err(BadSchedule::new(
                "to",
                format!("{to} is not after {from}; name a time after `from`"),
            )
            .into());
        }
        self.schedules.backfill(id, from, to, overlap).await
    }

    /// As [`Schedules::remove`].
    ///
    /// # Errors
    /// [`ScheduleError::NotFound`].
    pub async fn remove(&self, id: &ScheduleId) -> Result<(), ScheduleError> {
        self.schedules.remove(id).await
    }

    /// As [`Schedules::history`].
    ///
    /// # Errors
    /// When the store fails.
    pub async fn history(
        &self,
        id: &ScheduleId,
        before: Option<Timestamp>,
        limit: usize,
    ) -> Result<Vec<crate::Ended>, StoreError> {
        self.schedules.history(id, before, limit).await
    }

    /// When a definition would occur next.
    ///
    /// # Errors
    /// [`BadSchedule`] names the first field that is wrong.
    pub fn upcoming(&self, definition: &Definition) -> Result<Vec<Occurrence>, BadSchedule> {
        definition.preview(self.schedules.now(), SHOWN)
    }
}
