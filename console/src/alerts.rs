//! Alerts: what fires now, and what has.

use std::collections::BTreeMap;

use async_trait::async_trait;
use axum::Extension;
use axum::extract::State;
use axum::response::Response;
use galerna_bolts::{AlertKey, CloseError};
use galerna_model::{AccountId, AlertEvent, AlertEventKind, AlertState, Rule, Severity, SourceId, Timestamp};
use galerna_storage::AlertStates;
use maud::{Markup, html};
use serde::Deserialize;
use serde_json::json;
use utoipa::ToSchema;

use super::access::Visitor;
use super::act::{Act, Done, Question};
use super::layout::{Query, button, open_pager};
use super::observer::{MAX_FIRING, within_timeout};
use super::problem::Problem;
use super::table::{Column, list as cards};
use super::{Page, Params, format, layout, notices, page_number, param};

/// Events on a page.
const LIMIT: usize = 50;
/// So many of the newest events are searched for a text or a severity, and so many of them are read at once.
const SEARCHED: usize = 10_000;
const SEARCHED_AT_ONCE: usize = 1_000;

/// A severity in a word, and its tone.
fn word(severity: Severity) -> (&'static str, &'static str) {
    match severity {
        Severity::Info => ("info", "plain"),
        Severity::Warning => ("warning", "warn"),
        Severity::Critical => ("critical", "bad"),
    }
}

/// A severity as a pill.
pub(super) fn severity(severity: Severity) -> Markup {
    let (word, tone) = word(severity);
    html! { span.pill data-tone=(tone) { (word) } }
}

/// What of the alerts is asked for; what is empty matches all.
struct Filter<'a> {
    account: &'a str,
    severity: &'a str,
    text: &'a str,
}

impl Filter<'_> {
    fn matches(&self, account: &AccountId, severity: Option<Severity>, texts: &[&str]) -> bool {
        let wanted = self.text.to_lowercase();
        (self.account.is_empty() || account.as_str() == self.account)
            && (self.severity.is_empty() || severity.is_some_and(|s| word(s).0 == self.severity))
            && texts.iter().any(|text| text.to_lowercase().contains(&wanted))
    }

    fn query(&self) -> Query<'static> {
        let (account, severity, text) =
            (self.account.to_owned(), self.severity.to_owned(), self.text.to_owned());
        Query(vec![("account", account), ("severity", severity), ("text", text)])
    }

    /// A page of the events that match.
    ///
    /// The store knows accounts; by the rest the events are chosen here, from the newest on, as many as are needed.
    async fn history(
        &self,
        store: &dyn AlertStates,
        only: Option<&AccountId>,
        number: usize,
    ) -> galerna_storage::Result<History> {
        let mut skip = (number - 1) * LIMIT;
        if self.severity.is_empty() && self.text.is_empty() && (self.account.is_empty() || only.is_some()) {
            return Ok(History { events: store.events(only, skip, LIMIT).await?, cut: false });
        }
        let mut found = History::default();
        for offset in (0..SEARCHED).step_by(SEARCHED_AT_ONCE) {
            let some = store.events(only, offset, SEARCHED_AT_ONCE).await?;
            let all_seen = some.len() < SEARCHED_AT_ONCE;
            for event in some.into_iter().filter(|e| self.matches_event(e)) {
                if skip > 0 {
                    skip -= 1;
                } else {
                    found.events.push(event);
                }
                if found.events.len() == LIMIT {
                    return Ok(found);
                }
            }
            if all_seen {
                return Ok(found);
            }
        }
        found.cut = true;
        Ok(found)
    }

    fn matches_event(&self, e: &AlertEvent) -> bool {
        let texts = [e.rule_name.as_str(), &e.rule, &e.device, e.source.as_str(), &e.message];
        self.matches(&e.account, Some(e.severity), &texts)
    }

    fn form(&self) -> Markup {
        html! {
            form.search method="get" action="/alerts" role="search" {
                label.inline { span.sr { "Only of this account" } input type="search" name="account" value=(self.account) placeholder="Account" maxlength="120"; }
                label.inline { span.sr { "Rule, device, source or message contains" } input type="search" name="text" value=(self.text) placeholder="Rule, device or message" maxlength="200"; }
                label.inline { span.sr { "Severity" } select name="severity" {
                    option value="" { "any severity" }
                    @for severity in [Severity::Critical, Severity::Warning, Severity::Info] {
                        option value=(word(severity).0) selected[word(severity).0 == self.severity] { (word(severity).0) }
                    }
                } }
                button type="submit" { "Show" }
            }
        }
    }
}

/// A page of past alerts.
#[derive(Default)]
struct History {
    events: Vec<AlertEvent>,
    /// There may be more that match, further back than was searched.
    cut: bool,
}

/// What the lists look things up in.
struct Shown<'a> {
    rules: &'a [Rule],
    events: &'a [AlertEvent],
    now: Timestamp,
}

impl Shown<'_> {
    fn rule(&self, id: &str) -> Option<&Rule> {
        self.rules.iter().find(|rule| rule.id == id)
    }

    /// When an alert that fires was raised, by the clock, as far as its event is among the latest.
    fn raised(&self, state: &AlertState) -> Option<Timestamp> {
        let is_of = |e: &&AlertEvent| {
            e.kind == AlertEventKind::Raised
                && (&e.rule, &e.source, &e.device) == (&state.rule, &state.source, &state.device)
        };
        self.events.iter().find(is_of).and_then(|e| e.at)
    }
}

/// `GET /alerts`
pub(super) async fn show(
    State(page): State<Page>,
    Extension(visitor): Extension<Visitor>,
    axum::extract::Query(params): Params,
) -> Response {
    let snapshot = page.snapshot().await;
    let mut notices = notices(&snapshot);
    let filter = Filter {
        account: param(&params, "account"),
        severity: param(&params, "severity"),
        text: param(&params, "text"),
    };
    let only = match filter.account {
        "" => None,
        text => AccountId::new(text).map_err(|e| notices.push(e.to_string())).ok(),
    };
    let number = page_number(&params);
    let store = &*page.parts.store.alert_states;
    let past = async {
        let asked = filter.history(store, only.as_ref(), number).await?;
        // Those that fire were raised by one of the latest events, most of them.
        let latest = store.events(only.as_ref(), 0, MAX_FIRING).await?;
        Ok::<_, galerna_storage::StorageError>((asked, latest))
    };
    let (past, latest) = within_timeout("the store", past).await.unwrap_or_else(|e| {
        if !notices.contains(&e) {
            notices.push(e);
        }
        (History::default(), Vec::new())
    });
    if past.cut {
        notices.push(format!(
            "only the newest {SEARCHED} alerts were searched; narrow the search to an account"
        ));
    }
    let all = snapshot.firing.as_deref().map_or(&[][..], |f| f.as_slice());
    let lookup = Shown { rules: &snapshot.rules, events: &latest, now: page.now() };
    let fires = |s: &&AlertState| {
        let rule = lookup.rule(&s.rule);
        let name = rule.map_or(s.rule.as_str(), |r| r.name.as_str());
        filter.matches(&s.account, rule.map(|r| r.severity), &[name, &s.rule, &s.device, s.source.as_str()])
    };
    let firing: Vec<&AlertState> = all.iter().filter(fires).collect();
    let query = filter.query().with("page", if number == 1 { String::new() } else { number.to_string() });
    let content = html! {
        div.title { h1 { "Alerts" } p.dim { a href="/rules" { "rules" } " · " a href="/silences" { "silences" } " · " a href="/deliveries" { "deliveries" } } }
        (filter.form())
        section #firing data-refresh="5" aria-labelledby="firing-title" {
            h2 #firing-title { "Firing now " span.count { (firing.len()) @if all.len() >= MAX_FIRING { "+" } } }
            @if firing.is_empty() { (layout::nothing(if all.is_empty() { "Nothing fires." } else { "Nothing that fires matches." })) }
            @else { (firing_by_rule(&visitor, &firing, &lookup, &query.link("/alerts"))) }
        }
        section #history data-refresh="10" aria-labelledby="history-title" {
            h2 #history-title { "History" }
            @if past.events.is_empty() { (layout::nothing(if latest.is_empty() { "No alert has been raised." } else { "None matches." })) }
            @else { (history(&past.events, lookup.now)) }
            @if !past.events.is_empty() || number > 1 { (open_pager("/alerts", &query, number, LIMIT, past.events.len())) }
        }
    };
    page.frame(&visitor, "/alerts", "Alerts", &params, notices, &content).await
}

/// What fires, by rule.
fn firing_by_rule(visitor: &Visitor, firing: &[&AlertState], shown: &Shown<'_>, back: &str) -> Markup {
    let columns = [
        Column::name("Device"),
        Column::text("Account"),
        Column::text("Source"),
        Column::number("Last value"),
        Column::number("Raised").explained("by the clock"),
        Column::text("Since").explained("readings' time"),
        Column::actions(),
    ];
    let mut by_rule: BTreeMap<&str, Vec<&AlertState>> = BTreeMap::new();
    for state in firing {
        by_rule.entry(&state.rule).or_default().push(state);
    }
    let mut groups: Vec<_> = by_rule.into_iter().collect();
    // The most severe first, and among these what most devices have.
    groups.sort_by_key(|(rule, states)| {
        std::cmp::Reverse((shown.rule(rule).map(|r| r.severity), states.len()))
    });
    let row = |s: &&AlertState| {
        let silence = Query(vec![
            ("rule", s.rule.clone()),
            ("account", s.account.to_string()),
            ("device", s.device.clone()),
        ]);
        let close = [("rule", s.rule.as_str()), ("source", s.source.as_str()), ("device", s.device.as_str())];
        [
            html! { (s.device) },
            html! { (s.account) },
            html! { a href={ "/sources/" (layout::encoded(s.source.as_str())) } { (s.source) } },
            html! { (s.last_value.map_or("–".to_owned(), format::value)) },
            html! { @if let Some(at) = shown.raised(s) { (layout::when(at, shown.now)) } @else { span.dim { "–" } } },
            html! { time datetime=(s.since.to_string()) { (format::time(s.since)) } },
            html! {
                a.button.small href=(silence.link("/silences")) { "Silence" }
                (button(visitor, "/alerts/close", &close, "Close", "small", back))
            },
        ]
    };
    html! {
        @for (id, states) in groups {
            @let rule = shown.rule(id);
            h3 { (rule.map_or(id, |r| r.name.as_str())) " " @if let Some(rule) = rule { (severity(rule.severity)) } " " span.count { (states.len()) } }
            (cards(&format!("Firing of rule {id}"), &columns, states.iter().map(row)))
        }
    }
}

/// Closes a firing alert by hand.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Close {
    rule: String,
    #[schema(value_type = String)]
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

fn history(events: &[AlertEvent], now: Timestamp) -> Markup {
    let columns = [
        Column::text("When").explained("by the clock"),
        Column::text("Readings' time"),
        Column::text("What"),
        Column::text("Severity"),
        Column::name("Rule"),
        Column::text("Account"),
        Column::wrapped("Device"),
        Column::wrapped("Message"),
        Column::actions(),
    ];
    let rows = events.iter().map(|e| {
        [
            html! { @if let Some(at) = e.at { (layout::when(at, now)) } @else { span.dim { "not kept" } } },
            html! { time datetime=(e.ts.to_string()) { (format::time(e.ts)) } },
            html! { @match e.kind {
                AlertEventKind::Raised => span.pill data-tone="bad" { "raised" },
                AlertEventKind::Resolved => span.pill data-tone="good" { "resolved" },
            } },
            severity(e.severity),
            html! { (e.rule_name) },
            html! { (e.account) },
            html! { (e.device) },
            html! { (e.message) },
            html! {
                a.button.small href=(Query(vec![("text", e.device.clone())]).link("/deliveries")) { "Deliveries" }
                @if let Some(origin) = &e.origin { a.button.small href={ "/trace/" (layout::encoded(origin)) } { "Trace" } }
            },
        ]
    });
    cards("Past alerts", &columns, rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn past_alerts_are_searched_beyond_the_page_that_is_shown() {
        let store = galerna_storage::sqlite::in_memory().unwrap().alert_states;
        let event = |n: i64| AlertEvent {
            id: format!("e{n:05}"),
            kind: AlertEventKind::Raised,
            rule: "r".into(),
            rule_name: "Too much".into(),
            severity: if n % 40 == 0 { Severity::Critical } else { Severity::Info },
            account: AccountId::new("Acme").unwrap(),
            source: SourceId::new("s").unwrap(),
            device: format!("d{n}"),
            value: None,
            ts: Timestamp(n),
            message: "m".into(),
            origin: None,
            at: None,
        };
        let all: Vec<AlertEvent> = (0..12_000).map(event).collect();
        store.record(&all).await.unwrap();
        let filter = |severity, text| Filter { account: "", severity, text };

        // 250 of the newest 10,000 are critical: five pages.
        let critical = filter("critical", "");
        for number in 1..=5 {
            let page = critical.history(&*store, None, number).await.unwrap();
            let newest = 12_000 - 40 - (number as i64 - 1) * 50 * 40;
            let ids: Vec<i64> = page.events.iter().map(|e| e.ts.0).collect();
            let wanted: Vec<i64> = (0..50).map(|n| newest - 40 * n).collect();
            assert_eq!((ids, page.cut), (wanted, false), "page {number}");
        }
        let beyond = critical.history(&*store, None, 6).await.unwrap();
        assert!(beyond.events.is_empty() && beyond.cut);
        let one = filter("", "D11960").history(&*store, None, 1).await.unwrap();
        assert_eq!(one.events.len(), 1);
        // What asks for nothing is read as it is.
        let last = filter("", "").history(&*store, None, 240).await.unwrap();
        assert_eq!((last.events.len(), last.events[49].ts.0, last.cut), (50, 0, false));
    }
}
