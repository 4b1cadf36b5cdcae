//! Silences: alerts that nobody is told of for a while.

use async_trait::async_trait;
use axum::Extension;
use axum::extract::State;
use axum::response::Response;
use galerna_audit::random;
use galerna_model::{AccountId, Timestamp};
use galerna_storage::Silence;
use maud::{Markup, html};
use serde::Deserialize;
use serde_json::json;
use utoipa::ToSchema;

use super::access::Visitor;
use super::act::{Act, ActOn, ById, Done, Question};
use super::fields::Fields;
use super::layout::{button, form_start};
use super::observer::within_timeout;
use super::openapi::Time;
use super::problem::Problem;
use super::table::{Column, list as cards};
use super::{Page, Params, fields, format, layout, param};

/// `GET /silences`
pub(super) async fn list(
    State(page): State<Page>,
    Extension(visitor): Extension<Visitor>,
    axum::extract::Query(params): Params,
) -> Response {
    let mut notices = Vec::new();
    let mut silences =
        within_timeout("the store", page.parts.store.notifications.silences()).await.unwrap_or_else(|e| {
            notices.push(e);
            Vec::new()
        });
    silences.sort_by_key(|s| std::cmp::Reverse(s.until));
    let now = page.now();
    let refused = page.refused_fields(&params).unwrap_or_default();
    let held = |name: &str| {
        if refused.is_empty() { param(&params, name).to_owned() } else { refused.text(name).to_owned() }
    };
    let (active, ended): (Vec<_>, Vec<_>) = silences.into_iter().partition(|s| s.until > now);
    let content = html! {
        div.title { h1 { "Silences" } p.dim { "alerts that nobody is told of for a while; they are raised and kept all the same, and those that fire still at its end are told then" } }
        section.card aria-labelledby="new-title" {
            h2 #new-title { "New silence" }
            p.hint { "What is left empty matches all." }
            form.grid method="post" action="/silences/create" {
                (form_start(&visitor, "/silences"))
                label { "Account" input type="text" name="account" value=(held("account")) maxlength="120"; }
                label { "Device " small { "a pattern such as Panther_*" } input type="text" name="device" value=(held("device")) maxlength="200"; }
                label { "Rule " small { "its id" } input type="text" name="rule" value=(held("rule")) maxlength="120"; }
                label { "Lasts " small { "such as 90m, 3h, 2d" } input type="text" name="lasts" maxlength="40" placeholder="3h" value=(held("lasts")); }
                label { "Or ends, UTC" input type="datetime-local" name="until" value=(held("until")); }
                label { "Reason" input type="text" name="reason" maxlength="200" required value=(held("reason")); }
                div.buttons { button.primary type="submit" disabled[!visitor.may_act()] { "Silence" } }
            }
        }
        section #rows data-refresh="10" {
            h2 { "In force " span.count { (active.len()) } }
            @if active.is_empty() { (layout::nothing("Nothing is silenced.")) } @else { (table(&visitor, "Silences in force", &active, now)) }
            @if !ended.is_empty() {
                h2 { "Ended" }
                (table(&visitor, "Silences that have ended", &ended, now))
            }
        }
    };
    page.frame(&visitor, "/silences", "Silences", &params, notices, &content).await
}

fn table(visitor: &Visitor, name: &str, silences: &[Silence], now: Timestamp) -> Markup {
    let columns = [
        Column::text("Account"),
        Column::wrapped("Device"),
        Column::text("Rule"),
        Column::text("Ends"),
        Column::wrapped("Reason"),
        Column::text("By"),
        Column::text("Made"),
        Column::actions(),
    ];
    let or_all =
        |text: Option<&str>| html! { @match text { Some(text) => (text), None => span.dim { "all" } } };
    let rows = silences.iter().map(|s| {
        let verb = if s.until > now { "End" } else { "Delete" };
        [
            or_all(s.account.as_ref().map(AccountId::as_str)),
            or_all(s.device.as_deref()),
            or_all(s.rule.as_deref()),
            layout::when(s.until, now),
            html! { (s.reason) },
            html! { (s.by) },
            layout::when(s.created, now),
            button(visitor, "/silences/end", &[("id", &s.id)], verb, "small", "/silences"),
        ]
    });
    cards(name, &columns, rows)
}

/// Makes a silence.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Create {
    #[schema(value_type = Option<String>)]
    account: Option<AccountId>,
    device: Option<String>,
    rule: Option<String>,
    #[schema(value_type = Option<Time>)]
    until: Option<Timestamp>,
    minutes: Option<f64>,
    /// As people write it: `3h`.
    lasts: Option<String>,
    #[serde(default)]
    reason: String,
}

/// No silence ends later: beyond the year 9999 no time can be written as text, and so none be read again from the store.
const LATEST_MS: i64 = 253_370_764_800_000;

/// What a field for date and time holds, taken as UTC.
fn utc(text: &str) -> Result<Timestamp, Problem> {
    let full = match text.len() {
        16 => format!("{text}:00Z"),
        19 => format!("{text}Z"),
        _ => text.to_owned(),
    };
    Timestamp::parse(&full).map_err(|e| Problem::Invalid(format!("`until`: {e}")))
}

#[async_trait]
impl Act for Create {
    const NAME: &'static str = "silence.create";

    fn from_form(fields: &Fields) -> Result<Self, Problem> {
        let account = fields.given("account").map(AccountId::new).transpose();
        Ok(Self {
            account: account.map_err(|e| Problem::Invalid(format!("`account`: {e}")))?,
            device: fields.given("device").map(str::to_owned),
            rule: fields.given("rule").map(str::to_owned),
            until: fields.given("until").map(utc).transpose()?,
            minutes: fields.maybe_number("minutes")?,
            lasts: fields.given("lasts").map(str::to_owned),
            reason: fields.text("reason").trim().to_owned(),
        })
    }

    fn target(&self) -> String {
        let part = |name: &str, value: Option<&str>| value.map(|v| format!("{name} {v}"));
        let parts = [
            part("account", self.account.as_ref().map(AccountId::as_str)),
            part("device", self.device.as_deref()),
            part("rule", self.rule.as_deref()),
        ];
        let parts: Vec<String> = parts.into_iter().flatten().collect();
        if parts.is_empty() { "all alerts".to_owned() } else { parts.join(", ") }
    }

    fn why(&self) -> Option<&str> {
        Some(self.reason.as_str())
    }

    fn back(&self) -> String {
        "/silences".to_owned()
    }

    async fn run(&self, page: &Page, visitor: &Visitor) -> Result<Done, Problem> {
        let now = page.now();
        let lasts = self.lasts.as_deref().map(|text| fields::length("lasts", text)).transpose()?;
        let lasts = lasts.map(|ms| ms as f64 / 60_000.0);
        let minutes = match (self.minutes, lasts) {
            (Some(_), Some(_)) => {
                return Err(Problem::Invalid("give either `minutes` or `lasts`, not both".to_owned()));
            }
            (minutes, lasts) => minutes.or(lasts),
        };
        let until = match (self.until, minutes) {
            (Some(until), None) => until,
            #[allow(clippy::cast_possible_truncation)] // the range was checked
            (None, Some(minutes)) if (0.0..=525_600.0).contains(&minutes) => {
                now.plus_millis((minutes * 60_000.0) as i64)
            }
            (None, Some(minutes)) => {
                return Err(Problem::Invalid(format!(
                    "it would last {minutes} minutes; make it a year, 525600, at most"
                )));
            }
            (Some(_), Some(_)) => {
                return Err(Problem::Invalid("give either an end or how long it lasts, not both".to_owned()));
            }
            (None, None) => {
                return Err(Problem::Invalid(
                    "say how long it lasts, such as 3h, or when it ends".to_owned(),
                ));
            }
        };
        if until.0 > LATEST_MS {
            return Err(Problem::Invalid("`until`: choose an end before the year 9999".to_owned()));
        }
        if until <= now {
            return Err(Problem::Invalid("it would have ended already; choose a later end".to_owned()));
        }
        let mut id = random();
        id.truncate(16);
        let by = if visitor.name.is_empty() { visitor.role.as_str() } else { &visitor.name };
        let silence = Silence {
            id: id.clone(),
            account: self.account.clone(),
            device: self.device.clone(),
            rule: self.rule.clone(),
            until,
            reason: self.reason.clone(),
            by: by.to_owned(),
            created: now,
        };
        galerna_notifier::put_silence(&page.parts.store, &silence).await?;
        let message = format!("{} silenced until {} UTC", self.target(), format::time(until));
        Ok(Done::with(message, json!({ "id": id })))
    }
}

/// Ends a silence.
pub(super) struct End;

#[async_trait]
impl ActOn for End {
    const NAME: &'static str = "silence.end";
    type Request = ById;

    fn question(_: &ById) -> Option<Question> {
        Some(Question {
            title: "End this silence?".to_owned(),
            text: "It is deleted; what it held back and fires still is told now, and what comes from now on."
                .to_owned(),
            verb: "End it",
        })
    }

    fn back(_: &ById) -> String {
        "/silences".to_owned()
    }

    async fn run(request: &ById, page: &Page, _: &Visitor) -> Result<Done, Problem> {
        let parts = &page.parts;
        if galerna_notifier::end_silence(&parts.store, &*parts.clock, &request.id).await? {
            Ok(Done::new("the silence has ended"))
        } else {
            Err(Problem::Unknown(format!("there is no silence `{}`", request.id)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_without_a_zone_is_taken_as_utc() {
        for text in ["2017-01-01T00:00", "2017-01-01T00:00:00", "2017-01-01T01:00:00+01:00"] {
            assert_eq!(utc(text).unwrap(), Timestamp(1_483_228_800_000), "{text}");
        }
        assert!(utc("tomorrow").is_err());
    }
}
