//! What fires by the clock: the list, one schedule, and its form.

use std::collections::HashMap;

use axum::Extension;
use axum::extract::{RawQuery, State};
use axum::response::Response;
use galerna_schedules::api::SchedulesApi;
use galerna_schedules::page::{self as parts, Edited, Forms};
use galerna_schedules::{ScheduleError, ScheduleId, StoreError};
use maud::html;

use super::access::Visitor;
use super::observer::within_timeout;
use super::problem::Problem;
use super::{Page, Params, fields, param, shown};

/// Schedules on a page.
const ROWS: usize = 100;

impl From<ScheduleError> for Problem {
    fn from(e: ScheduleError) -> Self {
        match e {
            ScheduleError::Bad(_) => Self::Invalid(e.to_string()),
            ScheduleError::NotFound(_) => Self::Unknown(e.to_string()),
            ScheduleError::Exists(_) | ScheduleError::Edited { .. } => Self::Conflict(e.to_string()),
            _ => Self::Unavailable(e.to_string()),
        }
    }
}

/// The schedules, unless there are none here.
pub(super) fn of(page: &Page) -> Result<&SchedulesApi, Problem> {
    let none = || Problem::Conflict("this process knows no schedules".to_owned());
    page.parts.schedules.as_ref().ok_or_else(none)
}

pub(super) fn named(id: &str) -> Result<ScheduleId, Problem> {
    ScheduleId::new(id.trim()).map_err(|e| Problem::Invalid(e.to_string()))
}

fn forms(visitor: &Visitor) -> Forms {
    Forms {
        hidden: html! { input type="hidden" name="csrf" value=(visitor.csrf); },
        may_act: visitor.may_act(),
    }
}

/// `GET /schedules`
pub(super) async fn list(
    State(page): State<Page>,
    Extension(visitor): Extension<Visitor>,
    axum::extract::Query(params): Params,
) -> Response {
    shown(show_list(&page, &visitor, &params).await)
}

async fn show_list(
    page: &Page,
    visitor: &Visitor,
    params: &HashMap<String, String>,
) -> Result<Response, Problem> {
    let api = of(page)?;
    let after = Some(param(params, "after")).filter(|after| !after.is_empty()).map(named).transpose()?;
    let asked = async { api.list(after.as_ref(), ROWS + 1).await };
    let (mut found, mut notices) = match within_timeout("the store of schedules", asked).await {
        Ok(found) => (found, Vec::new()),
        Err(e) => (Vec::new(), vec![e]),
    };
    let more = found.len() > ROWS;
    found.truncate(ROWS);
    let next = found.last().filter(|_| more).map(|last| last.id.to_string());
    notices.dedup();
    let content = parts::list(&found, next.as_deref(), &forms(visitor));
    Ok(page.frame(visitor, "/schedules", "Schedules", params, notices, &content).await)
}

/// `GET /schedules/show`
pub(super) async fn show(
    State(page): State<Page>,
    Extension(visitor): Extension<Visitor>,
    axum::extract::Query(params): Params,
) -> Response {
    shown(show_one(&page, &visitor, &params).await)
}

async fn show_one(
    page: &Page,
    visitor: &Visitor,
    params: &HashMap<String, String>,
) -> Result<Response, Problem> {
    let (api, id) = (of(page)?, named(param(params, "id"))?);
    let view = answered(api.show(&id)).await?;
    let content = parts::one(&view, &forms(visitor));
    let title = format!("Schedule {id}");
    Ok(page.frame(visitor, "/schedules", &title, params, Vec::new(), &content).await)
}

/// `GET /schedules/edit`
pub(super) async fn edit(
    State(page): State<Page>,
    Extension(visitor): Extension<Visitor>,
    RawQuery(query): RawQuery,
    axum::extract::Query(params): Params,
) -> Response {
    shown(show_edit(&page, &visitor, query.unwrap_or_default(), &params).await)
}

async fn show_edit(
    page: &Page,
    visitor: &Visitor,
    query: String,
    params: &HashMap<String, String>,
) -> Result<Response, Problem> {
    let api = of(page)?;
    let asked = match page.refused_fields(params) {
        // What was not taken need not be written again.
        Some(refused) => fields_of(&refused).with("check", "true"),
        None => parts::Fields::parse(query.as_bytes()),
    };
    let edited = answered(Edited::asked(api, asked)).await?;
    let content = edited.page(&forms(visitor));
    Ok(page.frame(visitor, "/schedules", "Edit a schedule", params, Vec::new(), &content).await)
}

/// The fields of a form as the form of a schedule reads them.
pub(super) fn fields_of(fields: &fields::Fields) -> parts::Fields {
    fields.iter().filter(|(name, _)| *name != "csrf").collect()
}

/// The answer of the store in time.
async fn answered<T>(asked: impl Future<Output = Result<T, ScheduleError>>) -> Result<T, Problem> {
    match tokio::time::timeout(super::observer::TIMEOUT, asked).await {
        Ok(answer) => Ok(answer?),
        Err(_) => Err(ScheduleError::Store(StoreError::Unavailable {
            attempted: "asking for schedules".to_owned(),
            cause: "there was no answer in time".to_owned(),
        })
        .into()),
    }
}
