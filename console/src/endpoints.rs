//! Endpoints: who is told of alerts, and how.

use std::collections::{BTreeMap, HashMap};

use async_trait::async_trait;
use axum::Extension;
use axum::extract::State;
use axum::response::Response;
use galerna_model::AccountId;
use galerna_storage::{Endpoint, EndpointKind};
use maud::{Markup, html};
use serde::Deserialize;
use serde_json::json;
use utoipa::ToSchema;

use super::access::Visitor;
use super::act::{Act, ActOn, ById, Done, Question};
use super::fields::Fields;
use super::layout::{Query, button, form_start};
use super::observer::within_timeout;
use super::problem::Problem;
use super::rules::written;
use super::table::{Column, list as cards};
use super::{Page, Params, layout, param, shown};

/// `GET /endpoints`
pub(super) async fn list(
    State(page): State<Page>,
    Extension(visitor): Extension<Visitor>,
    axum::extract::Query(params): Params,
) -> Response {
    let mut notices = Vec::new();
    let endpoints =
        within_timeout("the store", page.parts.store.notifications.endpoints()).await.unwrap_or_else(|e| {
            notices.push(e);
            Vec::new()
        });
    let content = html! {
        div.title { h1 { "Endpoints" } @if visitor.may_act() { a.button.primary href="/endpoints/edit" { "New endpoint" } } }
        p.hint { "Who is told of alerts. Rules name them by their ids." }
        @if endpoints.is_empty() { (layout::nothing("There is no endpoint.")) }
        @else { (table(&visitor, &endpoints)) }
    };
    page.frame(&visitor, "/endpoints", "Endpoints", &params, notices, &content).await
}

fn how(endpoint: &Endpoint) -> String {
    match &endpoint.kind {
        EndpointKind::Webhook { url, method, secret, .. } => {
            // A token may stand in the query of a webhook's URL.
            let shown = url.split('?').next().unwrap_or_default();
            format!("{method} {shown}{}", if secret.is_some() { ", signed" } else { ", unsigned" })
        }
        EndpointKind::Email { to, .. } => to.join(", "),
        EndpointKind::Log {} => "a line in the notifier's log".to_owned(),
    }
}

fn table(visitor: &Visitor, endpoints: &[Endpoint]) -> Markup {
    let columns = [
        Column::name("Endpoint"),
        Column::text("Kind"),
        Column::wrapped("Tells"),
        Column::text("Account"),
        Column::wrapped("State"),
        Column::actions(),
    ];
    let rows = endpoints.iter().map(|e| {
        [
            html! { a href=(Query(vec![("id", e.id.clone())]).link("/endpoints/edit")) { (e.name) } div.dim { (e.id) } },
            html! { (e.kind.name()) },
            html! { (how(e)) },
            html! { @match &e.account { Some(a) => (a), None => span.dim { "all" } } },
            html! {
                @if e.enabled { span.pill data-tone="good" { "enabled" } } @else { span.pill data-tone="warn" { "disabled" } }
                @if let Some(reason) = &e.disabled_reason { " " span.dim { (reason) } }
            },
            html! {
                (layout::asking_button(visitor, "/endpoints/test", &[("id", &e.id)], "Test-fire", "small", "/endpoints"))
                (button(visitor, "/endpoints/delete", &[("id", &e.id)], "Delete", "small danger", "/endpoints"))
            },
        ]
    });
    cards("Endpoints", &columns, rows)
}

/// `GET /endpoints/edit`
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
    let endpoint = match id {
        "" => None,
        id => Some(
            page.parts
                .store
                .notifications
                .endpoint(id)
                .await?
                .ok_or_else(|| Problem::Unknown(format!("there is no endpoint `{id}`")))?
                .redacted(),
        ),
    };
    let blank = || Fields::of([("kind", "webhook".to_owned()), ("enabled", "true".to_owned())]);
    let held = page.refused_fields(params).unwrap_or_else(|| endpoint.as_ref().map_or_else(blank, fields_of));
    let title = if endpoint.is_some() { "Change endpoint" } else { "New endpoint" };
    let content = html! {
        p.crumbs { a href="/endpoints" { "Endpoints" } " / " (title) }
        h1 { (title) }
        (form(visitor, endpoint.as_ref(), &held))
    };
    Ok(page.frame(visitor, "/endpoints", title, params, Vec::new(), &content).await)
}

/// What the form of an endpoint holds.
fn fields_of(endpoint: &Endpoint) -> Fields {
    let some = |text: &Option<String>| text.clone().unwrap_or_default();
    let mut fields = vec![
        ("id", endpoint.id.clone()),
        ("name", endpoint.name.clone()),
        ("account", endpoint.account.as_ref().map_or(String::new(), ToString::to_string)),
        ("group_s", written(endpoint.group_ms)),
        ("cooldown_s", written(endpoint.cooldown_ms)),
        ("enabled", endpoint.enabled.to_string()),
        ("kind", endpoint.kind.name().to_owned()),
    ];
    match &endpoint.kind {
        EndpointKind::Webhook { url, method, headers, body, secret } => fields.extend([
            ("url", url.clone()),
            ("method", method.clone()),
            ("headers", headers.iter().map(|(n, v)| format!("{n}: {v}\n")).collect()),
            ("body", some(body)),
            ("secret", some(secret)),
        ]),
        EndpointKind::Email { to, subject, text, html } => {
            fields.extend([
                ("to", to.join(", ")),
                ("subject", some(subject)),
                ("text", some(text)),
                ("html", some(html)),
            ]);
        }
        EndpointKind::Log {} => {}
    }
    Fields::of(fields)
}

fn form(visitor: &Visitor, known: Option<&Endpoint>, held: &Fields) -> Markup {
    let back = known
        .map_or("/endpoints/edit".to_owned(), |e| Query(vec![("id", e.id.clone())]).link("/endpoints/edit"));
    let kind = |value: &str, name: &str| {
        html! { legend { label.check { input type="radio" name="kind" value=(value) checked[held.text("kind") == value]; " " (name) } } }
    };
    html! {
        form.sheet method="post" action="/endpoints/save" {
            (form_start(visitor, &back))
            input type="hidden" name="next" value="/endpoints";
            fieldset {
                legend { "Endpoint" }
                div.grid {
                    label { "Id " small { "its key; cannot be changed later" } input type="text" name="id" required maxlength="120" pattern="[A-Za-z0-9._\\-]+" value=(held.text("id")) readonly[known.is_some()]; }
                    label { "Name" input type="text" name="name" required maxlength="200" value=(held.text("name")); }
                    label { "Account " small { "empty: any" } input type="text" name="account" maxlength="120" value=(held.text("account")); }
                    label { "Group " small { "such as 5m: sent together" } input type="text" placeholder="5m" name="group_s" maxlength="20" value=(held.text("group_s")); }
                    label { "Cooldown " small { "such as 1h, of one rule and device" } input type="text" placeholder="1h" name="cooldown_s" maxlength="20" value=(held.text("cooldown_s")); }
                    label.check { input type="checkbox" name="enabled" value="true" checked[held.is_on("enabled")]; " Enabled" }
                }
                @if let Some(reason) = known.and_then(|e| e.disabled_reason.as_ref()) { p.hint { "Disabled: " (reason) } }
            }
            fieldset {
                (kind("webhook", "Webhook"))
                div.grid {
                    label.wide { "URL" input type="url" name="url" maxlength="2000" value=(held.text("url")); }
                    label { "Method" select name="method" { @for m in ["POST", "PUT", "PATCH", "GET", "DELETE"] { option selected[held.text("method") == m] { (m) } } } }
                    label { "Signing secret " small { "whsec_…; empty: unsigned" } input type="text" name="secret" maxlength="200" autocomplete="off" value=(held.text("secret")); }
                    label.wide { "Headers " small { "a line each, name: value" } textarea name="headers" rows="2" { (held.text("headers")) } }
                    label.wide { "Body " small { "template; empty: the default" } textarea name="body" rows="3" { (held.text("body")) } }
                }
            }
            fieldset {
                (kind("email", "E-mail"))
                div.grid {
                    label.wide { "To " small { "addresses, by commas" } input type="text" name="to" maxlength="1000" value=(held.text("to")); }
                    label.wide { "Subject " small { "template; empty: the default" } input type="text" name="subject" maxlength="500" value=(held.text("subject")); }
                    label.wide { "Text " small { "template; empty: the default" } textarea name="text" rows="2" { (held.text("text")) } }
                    label.wide { "HTML " small { "template; empty: the default" } textarea name="html" rows="2" { (held.text("html")) } }
                }
            }
            fieldset { (kind("log", "A line in the notifier's log")) p.hint { "For trying things out." } }
            div.row {
                label.grow { "Reason of the change " small { "optional" } input type="text" name="reason" maxlength="200" value=(held.text("reason")); }
                button.primary type="submit" disabled[!visitor.may_act()] { "Save" }
                a.button href="/endpoints" { "Cancel" }
            }
        }
    }
}

/// Makes or replaces an endpoint.
#[derive(Deserialize, ToSchema)]
pub(super) struct Save {
    #[serde(flatten)]
    endpoint: Endpoint,
    #[serde(default)]
    reason: Option<String>,
}

fn headers(text: &str) -> Result<BTreeMap<String, String>, Problem> {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    lines
        .map(|line| {
            let (name, value) = line.split_once(':').ok_or_else(|| {
                Problem::Invalid(format!(
                    "`headers`: `{}` has no colon; write name: value",
                    line.chars().take(40).collect::<String>()
                ))
            })?;
            Ok((name.trim().to_owned(), value.trim().to_owned()))
        })
        .collect()
}

#[async_trait]
impl Act for Save {
    const NAME: &'static str = "endpoint.save";

    fn from_form(fields: &Fields) -> Result<Self, Problem> {
        let some = |name: &str| fields.given(name).map(|text| text.replace("\r\n", "\n"));
        let kind = match fields.text("kind") {
            "webhook" => EndpointKind::Webhook {
                url: fields.text("url").trim().to_owned(),
                method: fields.given("method").unwrap_or("POST").to_owned(),
                headers: headers(fields.text("headers"))?,
                body: some("body"),
                secret: some("secret"),
            },
            "email" => EndpointKind::Email {
                to: fields
                    .text("to")
                    .split(',')
                    .map(|a| a.trim().to_owned())
                    .filter(|a| !a.is_empty())
                    .collect(),
                subject: some("subject"),
                text: some("text"),
                html: some("html"),
            },
            "log" => EndpointKind::Log {},
            _ => return Err(Problem::Invalid("say of what kind the endpoint is".to_owned())),
        };
        let account = fields.given("account").map(AccountId::new).transpose();
        let endpoint = Endpoint {
            id: fields.text("id").trim().to_owned(),
            name: fields.text("name").trim().to_owned(),
            account: account.map_err(|e| Problem::Invalid(format!("`account`: {e}")))?,
            kind,
            enabled: fields.is_on("enabled"),
            disabled_reason: None,
            group_ms: fields.millis("group_s")?,
            cooldown_ms: fields.millis("cooldown_s")?,
        };
        Ok(Self { endpoint, reason: fields.given("reason").map(str::to_owned) })
    }

    fn target(&self) -> String {
        self.endpoint.id.clone()
    }

    fn why(&self) -> Option<&str> {
        self.reason.as_deref()
    }

    fn back(&self) -> String {
        "/endpoints".to_owned()
    }

    async fn run(&self, page: &Page, _: &Visitor) -> Result<Done, Problem> {
        let store = &page.parts.store;
        let mut endpoint = self.endpoint.clone();
        if let Some(stored) = store.notifications.endpoint(&endpoint.id).await? {
            endpoint = endpoint.with_secrets_of(&stored);
        }
        galerna_notifier::put_endpoint(store, &endpoint).await?;
        Ok(Done::new(format!("endpoint {} is saved", endpoint.id)))
    }
}

/// Deletes an endpoint.
pub(super) struct Delete;

#[async_trait]
impl ActOn for Delete {
    const NAME: &'static str = "endpoint.delete";
    type Request = ById;

    fn question(request: &ById) -> Option<Question> {
        Some(Question {
            title: format!("Delete endpoint {}?", request.id),
            text: "Nobody is told there any more, by no rule that names it. Its secret is gone; its past deliveries stay.".to_owned(),
            verb: "Delete the endpoint",
        })
    }

    fn back(_: &ById) -> String {
        "/endpoints".to_owned()
    }

    async fn run(request: &ById, page: &Page, _: &Visitor) -> Result<Done, Problem> {
        if page.parts.store.notifications.delete_endpoint(&request.id).await? {
            let mut message = format!("endpoint {} is deleted", request.id);
            let rules = page.parts.store.rules.list().await?;
            let naming: Vec<&str> =
                rules.iter().filter(|r| r.endpoints.contains(&request.id)).map(|r| r.id.as_str()).collect();
            if !naming.is_empty() {
                message.push_str(&format!(
                    ". Warning: named still by {}, which tell nobody there",
                    naming.join(", ")
                ));
            }
            Ok(Done::new(message))
        } else {
            Err(Problem::Unknown(format!("there is no endpoint `{}`", request.id)))
        }
    }
}

/// Tells an endpoint of a test alert.
pub(super) struct Test;

#[async_trait]
impl ActOn for Test {
    const NAME: &'static str = "endpoint.test";
    type Request = ById;

    fn back(_: &ById) -> String {
        "/endpoints".to_owned()
    }

    async fn run(request: &ById, page: &Page, _: &Visitor) -> Result<Done, Problem> {
        let parts = &page.parts;
        let id = galerna_notifier::test_fire(&parts.store, &*parts.clock, &request.id).await?;
        let message = format!("a test alert is on its way to {}; see the deliveries", request.id);
        Ok(Done::with(message, json!({ "delivery": id })))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_becomes_the_endpoint_that_it_shows() {
        let form = "id=hook&name=Hook&kind=webhook&url=https%3A%2F%2Fexample.org%2Fx&method=PUT&headers=X-A%3A+1%0D%0AX-B%3A%3A2&body=&secret=***\
                    &enabled=true&group_s=2&cooldown_s=";
        let saved = Save::from_form(&Fields::parse(form.as_bytes())).unwrap().endpoint;
        let headers = [("X-A".to_owned(), "1".to_owned()), ("X-B".to_owned(), ":2".to_owned())];
        let kind = EndpointKind::Webhook {
            url: "https://example.org/x".into(),
            method: "PUT".into(),
            headers: headers.into_iter().collect(),
            body: None,
            secret: Some("***".into()),
        };
        assert_eq!(Save::from_form(&fields_of(&saved)).unwrap().endpoint, saved);
        assert_eq!((saved.kind, saved.group_ms, saved.cooldown_ms, saved.enabled), (kind, 2_000, 0, true));
    }

    #[test]
    fn a_query_of_a_webhook_is_not_shown_in_the_list() {
        let form = "id=h&name=h&kind=webhook&url=https%3A%2F%2Fexample.org%2Fx%3Ftoken%3Dabc";
        let saved = Save::from_form(&Fields::parse(form.as_bytes())).unwrap().endpoint;
        assert_eq!(how(&saved), "POST https://example.org/x, unsigned");
    }
}
