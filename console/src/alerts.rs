//! Alerts: what fires now, and what has.

use async_trait::async_trait;
use axum::Extension;
use axum::extract::State;
use axum::response::Response;
use galerna_bolts::{AlertKey, CloseError};
use galerna_model::{AccountId, AlertEvent, AlertEventKind, AlertState, Rule, Severity, SourceId};
use maud::{Markup, html};
use serde::Deserialize;
use serde_json::json;

use super::access::Visitor;
use super::act::{Act, Done, Question};
use super::layout::{Query, button, open_pager, scrolling};
use super::observer::{MAX_FIRING, within_timeout};
use super::problem::Problem;
use super::{Page, Params, format, layout, notices, page_number, param};

/// Events on a page.
const LIMIT: usize = 50;

/// A severity as a pill.
pub(super) fn severity(severity: Severity) -> Markup {
    let (word, tone) = match severity {
        Severity::Info => ("info", "plain"),
        Severity::Warning => ("warning", "warn"),
        Severity::Critical => ("critical", "bad"),
    };
    html! { span.pill data-tone=(tone) { (word) } }
}

/// `GET /alerts`
pub(super) async fn show(
    State(page): State<Page>,
    Extension(visitor): Extension<Visitor>,
    axum::extract::Query(params): Params,
) -> Response {
    let snapshot = page.snapshot().await;
    let mut notices = notices(&snapshot);
    let account = param(&params, "account");
    let only = match account {
        "" => None,
        text => AccountId::new(text).map_err(|e| notices.push(e.to_string())).ok(),
    };
    let number = page_number(&params);
    let events = page.parts.store.alert_states.events(only.as_ref(), (number - 1) * LIMIT, LIMIT);
    let events = within_timeout("the store", events).await.unwrap_or_else(|e| {
        if !notices.contains(&e) {
            notices.push(e);
        }
        Vec::new()
    });
    let all = snapshot.firing.as_deref().map_or(&[][..], |f| f.as_slice());
    let firing: Vec<&AlertState> =
        all.iter().filter(|s| only.as_ref().is_none_or(|a| *a == s.account)).collect();
    let query = Query(vec![("account", account.to_owned()), ("page", number.to_string())]);
    let content = html! {
        div.title { h1 { "Alerts" } p.dim { a href="/rules" { "rules" } " · " a href="/silences" { "silences" } " · " a href="/deliveries" { "deliveries" } } }
        form.search method="get" action="/alerts" role="search" {
            label.inline { span.sr { "Only of this account" } input type="search" name="account" value=(account) placeholder="Account" maxlength="120"; }
            button type="submit" { "Show" }
        }
        section #firing data-refresh="5" aria-labelledby="firing-title" {
            h2 #firing-title { "Firing now " span.count { (firing.len()) @if all.len() >= MAX_FIRING { "+" } } }
            @if firing.is_empty() { (layout::nothing("Nothing fires.")) }
            @else { (scrolling("Firing alerts", &firing_table(&visitor, &firing, &snapshot.rules))) }
        }
        section #history data-refresh="10" aria-labelledby="history-title" {
            h2 #history-title { "History" }
            @if events.is_empty() { (layout::nothing("No alert has been raised.")) }
            @else {
                (scrolling("Past alerts", &history(&events)))
                (open_pager("/alerts", &query, number, LIMIT, events.len()))
            }
        }
    };
    page.frame(&visitor, "/alerts", "Alerts", &params, notices, &content)
}

fn firing_table(visitor: &Visitor, firing: &[&AlertState], rules: &[Rule]) -> Markup {
    html! {
        table {
            thead { tr { th scope="col" { "Rule" } th scope="col" { "Severity" } th scope="col" { "Account" } th scope="col" { "Source" } th scope="col" { "Device" }
                th.num scope="col" { "Last value" } th scope="col" { "Since " small { "readings' time" } } th scope="col" { span.sr { "Action" } } } }
            tbody {
                @for s in firing {
                    @let rule = rules.iter().find(|r| r.id == s.rule);
                    @let silence = Query(vec![("rule", s.rule.clone()), ("account", s.account.to_string()), ("device", s.device.clone())]);
                    tr {
                        th scope="row" { (rule.map_or(s.rule.as_str(), |r| r.name.as_str())) }
                        td { @if let Some(rule) = rule { (severity(rule.severity)) } }
                        td { (s.account) }
                        td { a href={ "/sources/" (layout::encoded(s.source.as_str())) } { (s.source) } }
                        td.wrap { (s.device) }
                        td.num { (s.last_value.map_or("–".to_owned(), format::value)) }
                        td { (format::time(s.since)) }
                        td.act {
                            a.button.small href=(silence.link("/silences")) { "Silence" }
                            (button(visitor, "/alerts/close", &[("rule", &s.rule), ("source", s.source.as_str()), ("device", &s.device)], "Close", "small", "/alerts"))
                        }
                    }
                }
            }
        }
    }
}

/// Closes a firing alert by hand.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Close {
    rule: String,
    source: SourceId,
    device: String,
    reason: Option<String>,
}

#[async_trait]
impl Act for Close {
    const NAME: &'static str = "alert.close";

    fn target(&self) -> String {
        format!("rule {}, source {}, device {}", self.rule, self.source, self.device)
    }

    fn why(&self) -> Option<&str> {
        self.reason.as_deref()
    }

    fn question(&self) -> Option<Question> {
        Some(Question {
            title: format!("Close the alert of {}?", self.device),
            text: format!(
                "Rule {} is resolved for it with your reason, whoever was told of the alert is told of that, and it does not fire again \
                 before its condition has cleared once.",
                self.rule
            ),
            verb: "Close it",
        })
    }

    fn back(&self) -> String {
        "/alerts".to_owned()
    }

    async fn run(&self, page: &Page, visitor: &Visitor) -> Result<Done, Problem> {
        let alert =
            AlertKey { rule: self.rule.clone(), source: self.source.clone(), device: self.device.clone() };
        let by = if visitor.name.is_empty() { visitor.role.as_str() } else { &visitor.name };
        let reason = self.reason.as_deref().unwrap_or_default();
        let parts = &page.parts;
        let closed = galerna_bolts::close_alert(&parts.store, &*parts.broker, &alert, by, reason).await;
        let event = closed.map_err(|error| match error {
            CloseError::Store(error) => error.into(),
            CloseError::Broker(error) => error.into(),
            other => Problem::Unknown(other.to_string()),
        })?;
        Ok(Done::with(format!("the alert of {} is closed", self.device), json!({ "event": event.id })))
    }
}

fn history(events: &[AlertEvent]) -> Markup {
    html! {
        table {
            thead { tr { th scope="col" { "When " small { "readings' time" } } th scope="col" { "What" } th scope="col" { "Severity" } th scope="col" { "Rule" }
                th scope="col" { "Account" } th scope="col" { "Device" } th scope="col" { "Message" } th scope="col" { span.sr { "Deliveries" } } } }
            tbody {
                @for e in events {
                    tr {
                        td { time datetime=(e.ts.to_string()) { (format::time(e.ts)) } }
                        td { @match e.kind {
                            AlertEventKind::Raised => span.pill data-tone="bad" { "raised" },
                            AlertEventKind::Resolved => span.pill data-tone="good" { "resolved" },
                        } }
                        td { (severity(e.severity)) }
                        td.wrap { (e.rule_name) }
                        td { (e.account) }
                        td.wrap { (e.device) }
                        td.wrap.long { (e.message) }
                        td { a href=(Query(vec![("text", e.device.clone())]).link("/deliveries")) { "deliveries" } }
                    }
                }
            }
        }
    }
}
