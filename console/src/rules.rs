//! Alert rules: listed, made, changed, deleted and tried out.

use std::collections::HashMap;

use async_trait::async_trait;
use axum::Extension;
use axum::extract::State;
use axum::response::Response;
use galerna_bolts::{RuleSet, RuleWarning};
use galerna_model::ParameterRegistry;
use galerna_model::{AccountId, Comparison, Condition, ParameterCode, Rule, Severity};
use galerna_storage::Endpoint;
use maud::{Markup, html};
use serde::Deserialize;
use serde_json::json;
use utoipa::ToSchema;

use super::access::Visitor;
use super::act::{Act, ActOn, ById, Done, Question};
use super::alerts::severity;
use super::fields::Fields;
use super::layout::{Query, button, form_start};
use super::observer::within_timeout;
use super::problem::Problem;
use super::table::{Column, list as cards};
use super::{Page, Params, format, layout, param, shown};

/// `GET /rules`
pub(super) async fn list(
    State(page): State<Page>,
    Extension(visitor): Extension<Visitor>,
    axum::extract::Query(params): Params,
) -> Response {
    let mut notices = Vec::new();
    let rules = within_timeout("the store", page.parts.store.rules.list()).await.unwrap_or_else(|e| {
        notices.push(e);
        Vec::new()
    });
    let content = html! {
        div.title { h1 { "Alert rules" } @if visitor.may_act() { a.button.primary href="/rules/edit" { "New rule" } } }
        @if rules.is_empty() { (layout::nothing("There is no rule.")) }
        @else { (table(&visitor, &rules, &page.parts.parameters)) }
    };
    page.frame(&visitor, "/rules", "Alert rules", &params, notices, &content).await
}

/// What a rule watches, in words.
fn condition(rule: &Rule, parameters: &ParameterRegistry) -> String {
    let length = format::written;
    match &rule.condition {
        Condition::Threshold { parameter, comparison, limit, clear, for_ms } => {
            let (name, unit) = parameters.get(*parameter).map_or((String::new(), ""), |p| {
                (format!(" {}", p.quantity.replace('_', " ")), p.unit.as_str())
            });
            let side = match comparison {
                Comparison::Above => "above",
                Comparison::Below => "below",
            };
            let held = if *for_ms > 0 { format!(" for {}", length(*for_ms)) } else { String::new() };
            let clear = clear.map_or(String::new(), |c| format!(", clears at {}", format::value(c)));
            format!("{parameter}{name} {side} {} {unit}{held}{clear}", format::value(*limit))
        }
        Condition::Silent { after_ms } => format!("no reading for {}", length(*after_ms)),
    }
}

fn table(visitor: &Visitor, rules: &[Rule], parameters: &ParameterRegistry) -> Markup {
    let columns = [
        Column::name("Rule"),
        Column::wrapped("Watches"),
        Column::text("Account"),
        Column::wrapped("Devices"),
        Column::text("Severity"),
        Column::wrapped("Endpoints"),
        Column::text("State"),
        Column::actions(),
    ];
    let rows = rules.iter().map(|rule| {
        [
            html! { a href=(Query(vec![("id", rule.id.clone())]).link("/rules/edit")) { (rule.name) } div.dim { (rule.id) } },
            html! { (condition(rule, parameters)) },
            html! { @match &rule.account { Some(a) => (a), None => span.dim { "all" } } },
            html! { code { (rule.devices) } },
            severity(rule.severity),
            html! { @if rule.endpoints.is_empty() { span.dim { "nobody" } } @else { (rule.endpoints.join(", ")) } },
            html! { @if rule.enabled { span.pill data-tone="good" { "in force" } } @else { span.pill data-tone="warn" { "off" } } },
            html! {
                @if !rule.endpoints.is_empty() { (layout::asking_button(visitor, "/rules/test", &[("id", &rule.id)], "Test-fire", "small", "/rules")) }
                (button(visitor, "/rules/delete", &[("id", &rule.id)], "Delete", "small danger", "/rules"))
            },
        ]
    });
    cards("Alert rules", &columns, rows)
}

/// `GET /rules/edit`
pub(super) async fn edit(
    State(page): State<Page>,
    Extension(visitor): Extension<Visitor>,
    axum::extract::Query(params): Params,
) -> Response {
    shown(show_form(&page, &visitor, &params).await)
}

async fn show_form(
    page: &Page,
    visitor: &Visitor,
    params: &HashMap<String, String>,
) -> Result<Response, Problem> {
    let id = param(params, "id");
    let (rules, endpoints) =
        tokio::join!(page.parts.store.rules.list(), page.parts.store.notifications.endpoints());
    let rule = rules?.into_iter().find(|r| r.id == id);
    if !id.is_empty() && rule.is_none() {
        return Err(Problem::Unknown(format!("there is no rule `{id}`")));
    }
    let held = page.refused_fields(params).unwrap_or_else(|| rule.as_ref().map_or_else(blank, fields_of));
    let title = if rule.is_some() { "Change rule" } else { "New rule" };
    let content = html! {
        p.crumbs { a href="/rules" { "Alert rules" } " / " (title) }
        h1 { (title) }
        (form(visitor, rule.as_ref(), &held, &endpoints?, &page.parts.parameters))
    };
    Ok(page.frame(visitor, "/rules", title, params, Vec::new(), &content).await)
}

/// A length of time as a field shows it; nothing for 0.
pub(super) fn written(ms: u64) -> String {
    if ms == 0 { String::new() } else { format::written(ms) }
}

/// What the form of a rule holds.
fn fields_of(rule: &Rule) -> Fields {
    let severity = match rule.severity {
        Severity::Info => "info",
        Severity::Warning => "warning",
        Severity::Critical => "critical",
    };
    let mut fields = vec![
        ("id", rule.id.clone()),
        ("name", rule.name.clone()),
        ("account", rule.account.as_ref().map_or(String::new(), ToString::to_string)),
        ("devices", rule.devices.clone()),
        ("severity", severity.to_owned()),
        ("cooldown_s", written(rule.cooldown_ms)),
        ("enabled", rule.enabled.to_string()),
    ];
    match &rule.condition {
        Condition::Threshold { parameter, comparison, limit, clear, for_ms } => fields.extend([
            ("kind", "threshold".to_owned()),
            ("parameter", parameter.to_string()),
            ("comparison", if *comparison == Comparison::Below { "below" } else { "above" }.to_owned()),
            ("limit", limit.to_string()),
            ("clear", clear.map_or(String::new(), |c| c.to_string())),
            ("for_s", written(*for_ms)),
        ]),
        Condition::Silent { after_ms } => {
            fields.extend([("kind", "silent".to_owned()), ("silent_s", written(*after_ms))]);
        }
    }
    fields.extend(rule.endpoints.iter().map(|id| ("endpoints[]", id.clone())));
    Fields::of(fields)
}

/// What the form of a new rule holds.
fn blank() -> Fields {
    let held = [
        ("devices", "*"),
        ("severity", "warning"),
        ("kind", "threshold"),
        ("parameter", "401"),
        ("enabled", "true"),
    ];
    Fields::of(held.map(|(name, value)| (name, value.to_owned())))
}

fn form(
    visitor: &Visitor,
    known: Option<&Rule>,
    held: &Fields,
    endpoints: &[Endpoint],
    registry: &ParameterRegistry,
) -> Markup {
    let back =
        known.map_or("/rules/edit".to_owned(), |r| Query(vec![("id", r.id.clone())]).link("/rules/edit"));
    let mut parameters: Vec<_> = registry.iter().collect();
    parameters.sort_by_key(|p| p.code);
    let parameter = held.text("parameter");
    let is_unknown = !parameter.is_empty() && parameters.iter().all(|p| p.code.to_string() != parameter);
    let is_silent = held.text("kind") == "silent";
    let chosen = held.all("endpoints[]");
    html! {
        form.sheet method="post" action="/rules/save" {
            (form_start(visitor, &back))
            input type="hidden" name="next" value="/rules";
            fieldset {
                legend { "Rule" }
                div.grid {
                    label { "Id " small { "its key; cannot be changed later" } input type="text" name="id" required maxlength="120" pattern="[A-Za-z0-9._\\-]+" value=(held.text("id")) readonly[known.is_some()]; }
                    label { "Name" input type="text" name="name" required maxlength="200" value=(held.text("name")); }
                    label { "Severity" select name="severity" {
                        @for severity in ["info", "warning", "critical"] { option value=(severity) selected[held.text("severity") == severity] { (severity) } }
                    } }
                    label { "Account " small { "empty: all" } input type="text" name="account" maxlength="120" value=(held.text("account")); }
                    label { "Devices " small { "a pattern such as Panther_*" } input type="text" name="devices" maxlength="200" value=(held.text("devices")); }
                    label.check { input type="checkbox" name="enabled" value="true" checked[held.is_on("enabled")]; " In force" }
                }
            }
            fieldset {
                legend { label.check { input type="radio" name="kind" value="threshold" checked[!is_silent]; " A value against a limit" } }
                div.grid {
                    label { "Parameter" select name="parameter" {
                        @if is_unknown { option value=(parameter) selected { (parameter) } }
                        @for p in &parameters { option value=(p.code) selected[p.code.to_string() == parameter] { (p.code) " " (p.quantity.replace('_', " ")) " (" (p.unit) ")" } }
                    } }
                    label { "Comparison" select name="comparison" {
                        @for side in ["above", "below"] { option value=(side) selected[held.text("comparison") == side] { (side) } }
                    } }
                    label { "Limit" input type="text" inputmode="decimal" name="limit" value=(held.text("limit")) maxlength="40"; }
                    label { "Clears at " small { "empty: the limit" } input type="text" inputmode="decimal" name="clear" value=(held.text("clear")) maxlength="40"; }
                    label { "For " small { "such as 15m, of the readings' time; empty: at once" } input type="text" placeholder="15m" name="for_s" value=(held.text("for_s")) maxlength="20"; }
                }
                p.hint { "A hole in the data counts as time beyond the limit when the readings before and after it are beyond: nothing says otherwise. "
                    "Readings are evaluated in the order of their times; one that comes later than others of its device by more than "
                    code { "ingest.alert_lateness" } " is stored and not evaluated." }
            }
            fieldset {
                legend { label.check { input type="radio" name="kind" value="silent" checked[is_silent]; " A device that falls silent" } }
                div.grid { label { "After " small { "such as 3h" } input type="text" placeholder="3h" name="silent_s" value=(held.text("silent_s")) maxlength="20"; } }
                p.hint { "Counted from the last reading stored, over restarts too. A device is not silent while its messages wait in its queue." }
            }
            fieldset {
                legend { "Who is told" }
                @if endpoints.is_empty() { p.hint { "There is no endpoint yet: " a href="/endpoints/edit" { "make one" } ". Without one the alert shows here only." } }
                div.checks {
                    @for e in endpoints {
                        label.check { input type="checkbox" name="endpoints[]" value=(e.id) checked[held.has("endpoints[]", &e.id)]; " " (e.name) " " span.dim { (e.id) ", " (e.kind.name()) } }
                    }
                    @for gone in chosen.iter().filter(|id| endpoints.iter().all(|e| e.id != **id)) {
                        label.check { input type="checkbox" name="endpoints[]" value=(gone) checked; " " (gone) " " span.pill data-tone="bad" { "does not exist" } }
                    }
                }
                div.grid { label { "Cooldown " small { "such as 1h, of the readings' time" } input type="text" placeholder="1h" name="cooldown_s" value=(held.text("cooldown_s")) maxlength="20"; } }
            }
            div.row {
                label.grow { "Reason of the change " small { "optional" } input type="text" name="reason" maxlength="200" value=(held.text("reason")); }
                button.primary type="submit" disabled[!visitor.may_act()] { "Save" }
                a.button href="/rules" { "Cancel" }
            }
        }
    }
}

/// Makes or replaces a rule.
#[derive(Deserialize, ToSchema)]
pub(super) struct Save {
    #[serde(flatten)]
    rule: Rule,
    #[serde(default)]
    reason: Option<String>,
}

#[async_trait]
impl Act for Save {
    const NAME: &'static str = "rule.save";

    fn from_form(fields: &Fields) -> Result<Self, Problem> {
        let wrong = |field: &str, e: &dyn std::fmt::Display| Problem::Invalid(format!("`{field}`: {e}"));
        let condition = match fields.text("kind") {
            "silent" => Condition::Silent { after_ms: fields.millis("silent_s")? },
            "threshold" => Condition::Threshold {
                parameter: ParameterCode(
                    fields.text("parameter").parse().map_err(|e| wrong("parameter", &e))?,
                ),
                comparison: match fields.text("comparison") {
                    "below" => Comparison::Below,
                    _ => Comparison::Above,
                },
                limit: fields.number("limit")?,
                clear: fields.maybe_number("clear")?,
                for_ms: fields.millis("for_s")?,
            },
            _ => return Err(Problem::Invalid("say what the rule watches: a value or a silence".to_owned())),
        };
        let severity = match fields.text("severity") {
            "info" => Severity::Info,
            "warning" => Severity::Warning,
            "critical" => Severity::Critical,
            other => {
                return Err(wrong("severity", &format!("`{other}` is none of info, warning and critical")));
            }
        };
        let rule = Rule {
            id: fields.text("id").trim().to_owned(),
            name: fields.text("name").trim().to_owned(),
            account: fields
                .given("account")
                .map(AccountId::new)
                .transpose()
                .map_err(|e| wrong("account", &e))?,
            devices: fields.given("devices").unwrap_or("*").to_owned(),
            condition,
            severity,
            endpoints: fields.all("endpoints[]"),
            cooldown_ms: fields.millis("cooldown_s")?,
            enabled: fields.is_on("enabled"),
        };
        Ok(Self { rule, reason: fields.given("reason").map(str::to_owned) })
    }

    fn target(&self) -> String {
        self.rule.id.clone()
    }

    fn why(&self) -> Option<&str> {
        self.reason.as_deref()
    }

    fn back(&self) -> String {
        "/rules".to_owned()
    }

    async fn run(&self, page: &Page, _: &Visitor) -> Result<Done, Problem> {
        let (_, wrong) = RuleSet::compile(vec![self.rule.clone()]);
        if let Some(error) = wrong.first() {
            return Err(Problem::Invalid(error.to_string()));
        }
        if self.rule.name.is_empty() {
            return Err(Problem::Invalid("`name` is empty; say what the rule is for".to_owned()));
        }
        let endpoints = page.parts.store.notifications.endpoints().await?;
        let warnings: Vec<String> = RuleWarning::of(&self.rule, &page.parts.parameters, &endpoints)
            .iter()
            .map(ToString::to_string)
            .collect();
        page.parts.store.rules.put(&self.rule).await?;
        let how = if self.rule.enabled { "in force" } else { "kept, but off" };
        let mut message = format!("rule {} is {how}; workers take it up within seconds", self.rule.id);
        for warning in &warnings {
            message.push_str(&format!(". Warning: {warning}"));
        }
        Ok(Done::with(message, json!({ "warnings": warnings })))
    }
}

/// Deletes a rule.
pub(super) struct Delete;

#[async_trait]
impl ActOn for Delete {
    const NAME: &'static str = "rule.delete";
    type Request = ById;

    fn question(request: &ById) -> Option<Question> {
        Some(Question {
            title: format!("Delete rule {}?", request.id),
            text: "The rule and what it knows of each device are deleted. Alerts of it that fire are resolved with that reason; its past alerts stay."
                .to_owned(),
            verb: "Delete the rule",
        })
    }

    fn back(_: &ById) -> String {
        "/rules".to_owned()
    }

    async fn run(request: &ById, page: &Page, _: &Visitor) -> Result<Done, Problem> {
        if page.parts.store.rules.delete(&request.id).await? {
            Ok(Done::new(format!("rule {} is deleted", request.id)))
        } else {
            Err(Problem::Unknown(format!("there is no rule `{}`", request.id)))
        }
    }
}

/// Tells the endpoints of a rule of a test alert.
pub(super) struct Test;

#[async_trait]
impl ActOn for Test {
    const NAME: &'static str = "rule.test";
    type Request = ById;

    fn back(_: &ById) -> String {
        "/rules".to_owned()
    }

    async fn run(request: &ById, page: &Page, _: &Visitor) -> Result<Done, Problem> {
        let parts = &page.parts;
        let fired = galerna_notifier::test_fire_rule(&parts.store, &*parts.clock, &request.id).await?;
        let n = fired.len() as u64;
        let message = format!(
            "a test alert is on its way to {n} {}; see the deliveries",
            format::plural(n, "endpoint", "endpoints")
        );
        Ok(Done::with(message, json!({ "deliveries": fired })))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn save(form: &str) -> Result<Rule, Problem> {
        Save::from_form(&Fields::parse(form.as_bytes())).map(|save| save.rule)
    }

    #[test]
    fn a_form_becomes_the_rule_that_it_shows() {
        let form = "id=r1&name=Too+much&severity=critical&account=&devices=&kind=threshold&parameter=401&comparison=above\
                    &limit=4000.5&clear=3900&for_s=1.5&endpoints%5B%5D=a&endpoints%5B%5D=b&cooldown_s=60&enabled=true";
        let rule = save(form).unwrap();
        let wanted = Rule {
            id: "r1".into(),
            name: "Too much".into(),
            account: None,
            devices: "*".into(),
            condition: Condition::Threshold {
                parameter: ParameterCode(401),
                comparison: Comparison::Above,
                limit: 4000.5,
                clear: Some(3900.0),
                for_ms: 1_500,
            },
            severity: Severity::Critical,
            endpoints: vec!["a".into(), "b".into()],
            cooldown_ms: 60_000,
            enabled: true,
        };
        assert_eq!(rule, wanted);
        assert_eq!(Save::from_form(&fields_of(&wanted)).unwrap().rule, wanted);
        let silence = Rule { condition: Condition::Silent { after_ms: 1_500 }, enabled: false, ..wanted };
        assert_eq!(Save::from_form(&fields_of(&silence)).unwrap().rule, silence);
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (form, field) in [
            ("id=r&name=n&severity=info&kind=threshold&parameter=401&limit=", "limit"),
            ("id=r&name=n&severity=info&kind=threshold&parameter=401&limit=NaN", "limit"),
            ("id=r&name=n&severity=info&kind=threshold&parameter=x&limit=1", "parameter"),
            ("id=r&name=n&severity=grave&kind=silent&silent_s=5", "severity"),
            ("id=r&name=n&severity=info&kind=silent&silent_s=-5", "silent_s"),
            ("id=r&name=n&severity=info&kind=silent&silent_s=5&account=a+b", "account"),
        ] {
            let problem = save(form).unwrap_err().to_string();
            assert!(problem.contains(field), "{form}: {problem}");
        }
    }

    #[test]
    fn the_json_call_takes_a_rule_as_the_store_has_it() {
        let body = serde_json::json!({"id": "r", "name": "n", "account": null, "devices": "*", "severity": "info", "endpoints": [],
            "cooldown_ms": 0, "enabled": true, "condition": {"kind": "silent", "after_ms": 5000}, "reason": "why"});
        let save: Save = serde_json::from_value(body).unwrap();
        assert_eq!(
            (save.rule.condition, save.reason.as_deref()),
            (Condition::Silent { after_ms: 5_000 }, Some("why"))
        );
    }
}
