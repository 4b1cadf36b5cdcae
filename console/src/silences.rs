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

use super::access::Visitor;
use super::act::{Act, Done, Question};
use super::fields::Fields;
use super::layout::{button, form_start, scrolling};
use super::observer::within_timeout;
use super::problem::Problem;
use super::{Page, Params, format, layout, param};

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
                label { "Ends, UTC " small { "or in so many minutes" } input type="datetime-local" name="until" value=(held("until")); }
                label { "Minutes" input type="number" name="minutes" min="1" max="525600" placeholder="60" value=(held("minutes")); }
                label { "Reason" input type="text" name="reason" maxlength="200" required value=(held("reason")); }
                div.buttons { button.primary type="submit" disabled[!visitor.may_act()] { "Silence" } }
            }
        }
        section #rows data-refresh="10" {
            h2 { "In force " span.count { (active.len()) } }
            @if active.is_empty() { (layout::nothing("Nothing is silenced.")) } @else { (scrolling("Silences in force", &table(&visitor, &active, now))) }
            @if !ended.is_empty() {
                h2 { "Ended" }
                (scrolling("Silences that have ended", &table(&visitor, &ended, now)))
            }
        }
    };
    page.frame(&visitor, "/silences", "Silences", &params, notices, &content)
}

fn table(visitor: &Visitor, silences: &[Silence], now: Timestamp) -> Markup {
    let all = || html! { span.dim { "all" } };
    html! {
        table {
            thead { tr { th scope="col" { "Account" } th scope="col" { "Device" } th scope="col" { "Rule" } th scope="col" { "Ends" } th scope="col" { "Reason" }
                th scope="col" { "By" } th scope="col" { "Made" } th scope="col" { span.sr { "Action" } } } }
            tbody {
                @for s in silences {
                    tr {
                        td { @match &s.account { Some(a) => (a), None => (all()) } }
                        td.wrap { @match &s.device { Some(d) => (d), None => (all()) } }
                        td { @match &s.rule { Some(r) => (r), None => (all()) } }
                        td { (layout::when(s.until, now)) }
                        td.wrap { (s.reason) }
                        td { (s.by) }
                        td { (layout::when(s.created, now)) }
                        td.act { (button(visitor, "/silences/end", &[("id", &s.id)], if s.until > now { "End" } else { "Delete" }, "small", "/silences")) }
                    }
                }
            }
        }
    }
}

/// Makes a silence.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Create {
    account: Option<AccountId>,
    device: Option<String>,
    rule: Option<String>,
    until: Option<Timestamp>,
    minutes: Option<f64>,
    #[serde(default)]
    reason: String,
}

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
        let until = match (self.until, self.minutes) {
            (Some(until), None) => until,
            #[allow(clippy::cast_possible_truncation)] // the range was checked
            (None, Some(minutes)) if (0.0..=525_600.0).contains(&minutes) => {
                now.plus_millis((minutes * 60_000.0) as i64)
            }
            (None, Some(minutes)) => {
                return Err(Problem::Invalid(format!(
                    "`minutes` is {minutes}; write a number up to 525600, a year"
                )));
            }
            (Some(_), Some(_)) => {
                return Err(Problem::Invalid("give either an end or minutes, not both".to_owned()));
            }
            (None, None) => return Err(Problem::Invalid("say when it ends: a time or minutes".to_owned())),
        };
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
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct End {
    id: String,
    reason: Option<String>,
}

#[async_trait]
impl Act for End {
    const NAME: &'static str = "silence.end";

    fn target(&self) -> String {
        self.id.clone()
    }

    fn why(&self) -> Option<&str> {
        self.reason.as_deref()
    }

    fn question(&self) -> Option<Question> {
        Some(Question {
            title: "End this silence?".to_owned(),
            text: "It is deleted; what it held back and fires still is told now, and what comes from now on."
                .to_owned(),
            verb: "End it",
        })
    }

    fn back(&self) -> String {
        "/silences".to_owned()
    }

    async fn run(&self, page: &Page, _: &Visitor) -> Result<Done, Problem> {
        let parts = &page.parts;
        if galerna_notifier::end_silence(&parts.store, &*parts.clock, &self.id).await? {
            Ok(Done::new("the silence has ended"))
        } else {
            Err(Problem::Unknown(format!("there is no silence `{}`", self.id)))
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
