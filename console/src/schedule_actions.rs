//! What operators do with schedules.

use async_trait::async_trait;
use galerna_audit::Action;
use galerna_model::Timestamp;
use galerna_schedules::{Definition, Overlap, ScheduleView};
use serde::Deserialize;
use serde_json::json;
use utoipa::ToSchema;

use super::Page;
use super::access::Visitor;
use super::act::{Act, ActOn, ById, Done, Question};
use super::fields::Fields;
use super::openapi::Time;
use super::problem::Problem;
use super::schedules::{fields_of, named, of};

fn back(id: &str) -> String {
    galerna_schedules::page::path_of(id)
}

fn done(action: Action, view: &ScheduleView) -> Done {
    let more = json!({ "schedule": view });
    Done::with(action.outcome(view.id.as_str(), &more["schedule"]), more)
}

/// As [`done`], with the next ten occurrences, so that nobody is surprised by what an expression means.
fn saved(action: Action, view: &ScheduleView) -> Done {
    let mut done = done(action, view);
    let then: Vec<&str> = view.upcoming.iter().skip(1).map(|next| next.local.as_str()).collect();
    if !then.is_empty() {
        done.message.push_str(&format!("; then: {}", then.join(", ")));
    }
    done
}

/// Makes a schedule, or replaces its definition.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Save {
    id: String,
    #[schema(value_type = Object)]
    definition: Definition,
    /// That of the schedule that was edited.
    revision: Option<u64>,
    /// There is to be none of this name.
    #[serde(default)]
    new: bool,
    reason: Option<String>,
}

#[async_trait]
impl Act for Save {
    const NAME: &'static str = "schedule.save";

    fn from_form(fields: &Fields) -> Result<Self, Problem> {
        let form = fields_of(fields);
        let definition = form.definition().map_err(|bad| Problem::Invalid(bad.to_string()))?;
        let revision = form.given("revision").and_then(|revision| revision.parse().ok());
        let (id, new) = (form.text("id").to_owned(), form.given("known").is_none());
        Ok(Self { id, definition, revision, new, reason: form.given("reason").map(str::to_owned) })
    }

    fn target(&self) -> String {
        galerna_audit::short(&self.id)
    }

    fn why(&self) -> Option<&str> {
        self.reason.as_deref()
    }

    fn back(&self) -> String {
        back(&self.id)
    }

    async fn run(&self, page: &Page, _: &Visitor) -> Result<Done, Problem> {
        let (api, id) = (of(page)?, named(&self.id)?);
        if !self.new {
            match api.edit(&id, self.definition.clone(), self.revision).await {
                Err(galerna_schedules::ScheduleError::NotFound(_)) if self.revision.is_none() => {}
                edited => return Ok(saved(Action::EditSchedule, &edited?)),
            }
        }
        Ok(saved(Action::AddSchedule, &api.add(id, self.definition.clone()).await?))
    }
}

/// Skips a schedule's occurrences until it is resumed.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Pause {
    id: String,
    #[serde(default)]
    note: String,
}

#[async_trait]
impl Act for Pause {
    const NAME: &'static str = Action::PauseSchedule.name();

    fn target(&self) -> String {
        self.id.clone()
    }

    fn why(&self) -> Option<&str> {
        Some(&self.note)
    }

    fn back(&self) -> String {
        back(&self.id)
    }

    async fn run(&self, page: &Page, _: &Visitor) -> Result<Done, Problem> {
        Ok(done(Action::PauseSchedule, &of(page)?.pause(&named(&self.id)?, &self.note).await?))
    }
}

/// Ends a pause.
pub(super) struct Resume;

#[async_trait]
impl ActOn for Resume {
    const NAME: &'static str = Action::ResumeSchedule.name();
    type Request = ById;

    fn back(request: &ById) -> String {
        back(&request.id)
    }

    async fn run(request: &ById, page: &Page, _: &Visitor) -> Result<Done, Problem> {
        Ok(done(Action::ResumeSchedule, &of(page)?.resume(&named(&request.id)?).await?))
    }
}

/// Fires a schedule now.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Trigger {
    id: String,
    #[schema(value_type = Option<String>)]
    overlap: Option<Overlap>,
    reason: Option<String>,
}

#[async_trait]
impl Act for Trigger {
    const NAME: &'static str = Action::TriggerSchedule.name();

    fn target(&self) -> String {
        self.id.clone()
    }

    fn why(&self) -> Option<&str> {
        self.reason.as_deref()
    }

    fn back(&self) -> String {
        back(&self.id)
    }

    async fn run(&self, page: &Page, _: &Visitor) -> Result<Done, Problem> {
        let (firing, outcome) = of(page)?.trigger(&named(&self.id)?, self.overlap).await?;
        let outcome = outcome.map(|outcome| outcome.to_string());
        let more = json!({ "firing": firing.to_string(), "outcome": outcome });
        Ok(Done::with(Action::TriggerSchedule.outcome(&self.id, &more), more))
    }
}

/// Fires what a schedule had in a time that is past.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Backfill {
    id: String,
    #[schema(value_type = Time)]
    from: Timestamp,
    #[schema(value_type = Time)]
    to: Timestamp,
    #[schema(value_type = Option<String>)]
    overlap: Option<Overlap>,
    reason: Option<String>,
}

#[async_trait]
impl Act for Backfill {
    const NAME: &'static str = Action::BackfillSchedule.name();

    fn target(&self) -> String {
        self.id.clone()
    }

    fn why(&self) -> Option<&str> {
        self.reason.as_deref()
    }

    fn back(&self) -> String {
        back(&self.id)
    }

    async fn run(&self, page: &Page, _: &Visitor) -> Result<Done, Problem> {
        let Self { id, from, to, overlap, .. } = self;
        let admitted = of(page)?.backfill(&named(id)?, *from, *to, *overlap).await?;
        let more = json!({ "admitted": admitted });
        Ok(Done::with(Action::BackfillSchedule.outcome(id, &more), more))
    }
}

/// Keeps a schedule no more.
pub(super) struct Remove;

#[async_trait]
impl ActOn for Remove {
    const NAME: &'static str = Action::RemoveSchedule.name();
    type Request = ById;

    fn question(request: &ById) -> Option<Question> {
        Some(Question {
            title: format!("Remove schedule {}?", request.id),
            text: "It fires no more. What is open is cancelled; what ended stays in its history.".to_owned(),
            verb: "Remove",
        })
    }

    fn back(_: &ById) -> String {
        "/schedules".to_owned()
    }

    async fn run(request: &ById, page: &Page, _: &Visitor) -> Result<Done, Problem> {
        let id = named(&request.id)?;
        of(page)?.remove(&id).await?;
        Ok(Done::with(Action::RemoveSchedule.outcome(&request.id, &json!({})), json!({ "id": id })))
    }
}
