//! What is sent, made of templates.
//!
//! A template sees:
//!
//! | name | what it is |
//! |---|---|
//! | `type` | `alert.raised`, `alert.resolved`, `alert.group` (several events) or `alert.test` |
//! | `events` | list of `id`, `kind` (`raised` or `resolved`), `raised` (true or false), `rule`, `rule_name`, `severity`, `account`, `source`, `device`, `value` (may be none), `ts` (RFC 3339), `message` |
//! | `raised`, `resolved` | how many events of each kind |
//! | `delivery` | `id`, `created` (RFC 3339), `test` |
//! | `endpoint` | `id`, `name` |
//!
//! A name that does not exist is an error, so that a slip is found when the endpoint is stored. Values are written as JSON in
//! templates of JSON bodies, escaped in HTML ones, and as they are in plain text. A template may neither run for long nor
//! write more than a megabyte.

use std::io;
use std::sync::LazyLock;

use galerna_model::{AlertEvent, AlertEventKind, Severity};
use galerna_storage::{Delivery, Endpoint};
use minijinja::{AutoEscape, Environment, UndefinedBehavior};
use serde::Serialize;

/// Template of a webhook's body.
const BODY: &str = include_str!("templates/body.json");
/// Template of a mail's subject.
const SUBJECT: &str = include_str!("templates/subject.txt");
/// Template of plain text.
const TEXT: &str = include_str!("templates/text.txt");
/// Template of a mail's HTML.
const HTML: &str = include_str!("templates/mail.html");

/// Most steps that a template may take.
const FUEL: u64 = 500_000;
/// Most bytes that a template may write.
const LONGEST: usize = 1 << 20;
/// Most characters of a subject.
const LONGEST_SUBJECT: usize = 200;

/// How values are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    Json,
    Html,
    Text,
}

impl Form {
    /// The form of a body with this content type.
    pub(crate) fn of(content_type: &str) -> Self {
        let kind = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        if kind.ends_with("/json") || kind.ends_with("+json") {
            Self::Json
        } else if ["/html", "/xml", "+xml"].iter().any(|end| kind.ends_with(end)) {
            Self::Html
        } else {
            Self::Text
        }
    }
}

#[derive(Serialize)]
struct Context<'a> {
    r#type: &'static str,
    events: Vec<EventContext<'a>>,
    raised: usize,
    resolved: usize,
    delivery: DeliveryContext<'a>,
    endpoint: EndpointContext<'a>,
}

#[derive(Serialize)]
struct EventContext<'a> {
    id: &'a str,
    kind: AlertEventKind,
    raised: bool,
    rule: &'a str,
    rule_name: &'a str,
    severity: Severity,
    account: &'a str,
    source: &'a str,
    device: &'a str,
    value: Option<f64>,
    ts: String,
    message: &'a str,
}

#[derive(Serialize)]
struct DeliveryContext<'a> {
    id: &'a str,
    created: String,
    test: bool,
}

#[derive(Serialize)]
struct EndpointContext<'a> {
    id: &'a str,
    name: &'a str,
}

impl<'a> Context<'a> {
    fn new(endpoint: &'a Endpoint, delivery: &'a Delivery) -> Self {
        let raised = delivery.events.iter().filter(|e| e.kind == AlertEventKind::Raised).count();
        let resolved = delivery.events.len() - raised;
        Self {
            r#type: match (delivery.test, delivery.events.as_slice()) {
                (true, _) => "alert.test",
                (false, [only]) if only.kind == AlertEventKind::Raised => "alert.raised",
                (false, [_]) => "alert.resolved",
                (false, _) => "alert.group",
            },
            events: delivery.events.iter().map(EventContext::from).collect(),
            raised,
            resolved,
            delivery: DeliveryContext {
                id: &delivery.id,
                created: delivery.created.to_string(),
                test: delivery.test,
            },
            endpoint: EndpointContext { id: &endpoint.id, name: &endpoint.name },
        }
    }
}

impl<'a> From<&'a AlertEvent> for EventContext<'a> {
    fn from(event: &'a AlertEvent) -> Self {
        Self {
            id: &event.id,
            kind: event.kind,
            raised: event.kind == AlertEventKind::Raised,
            rule: &event.rule,
            rule_name: &event.rule_name,
            severity: event.severity,
            account: event.account.as_str(),
            source: event.source.as_str(),
            device: &event.device,
            value: event.value,
            ts: event.ts.to_string(),
            message: &event.message,
        }
    }
}

fn environment() -> Environment<'static> {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_fuel(Some(FUEL));
    environment.set_auto_escape_callback(|name| match name {
        "json" => AutoEscape::Json,
        "html" => AutoEscape::Html,
        _ => AutoEscape::None,
    });
    environment
}

static ENVIRONMENT: LazyLock<Environment<'static>> = LazyLock::new(environment);

/// Refuses to become longer than [`LONGEST`].
struct Bounded(Vec<u8>);

impl io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.len() + bytes.len() > LONGEST {
            return Err(io::Error::other(format!("it writes more than {LONGEST} bytes")));
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn render(template: &str, form: Form, context: &Context<'_>) -> Result<String, String> {
    let name = match form {
        Form::Json => "json",
        Form::Html => "html",
        Form::Text => "text",
    };
    let said = |error: minijinja::Error| {
        let line = error.line().map(|line| format!(" in line {line}")).unwrap_or_default();
        let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}")).unwrap_or_default();
        let detail = error.detail().map(|detail| format!(": {detail}")).unwrap_or_default();
        format!("{}{line}{detail}{cause}", error.kind())
    };
    let template = ENVIRONMENT.template_from_named_str(name, template).map_err(said)?;
    let mut written = Bounded(Vec::new());
    template.render_captured_to(minijinja::value::Serde(context), &mut written).map_err(said)?;
    String::from_utf8(written.0).map_err(|e| e.to_string())
}

/// The body of a webhook. JSON is checked.
pub(crate) fn body(
    template: Option<&str>,
    form: Form,
    endpoint: &Endpoint,
    delivery: &Delivery,
) -> Result<String, String> {
    let (template, form) = match (template, form) {
        (Some(template), form) => (template, form),
        (None, Form::Json) => (BODY, form),
        (None, Form::Html) => (HTML, form),
        (None, Form::Text) => (TEXT, form),
    };
    let body = render(template, form, &Context::new(endpoint, delivery))?;
    if form == Form::Json
        && let Err(error) = serde_json::from_str::<serde::de::IgnoredAny>(&body)
    {
        return Err(format!("what it writes is no JSON: {error}"));
    }
    Ok(body)
}

/// The subject of a mail: one line.
pub(crate) fn subject(
    template: Option<&str>,
    endpoint: &Endpoint,
    delivery: &Delivery,
) -> Result<String, String> {
    let subject = render(template.unwrap_or(SUBJECT), Form::Text, &Context::new(endpoint, delivery))?;
    let words: Vec<&str> = subject.split(|c: char| c.is_whitespace() || c.is_control()).collect();
    let line = words.into_iter().filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ");
    Ok(line.chars().take(LONGEST_SUBJECT).collect())
}

/// Plain text.
pub(crate) fn text(
    template: Option<&str>,
    endpoint: &Endpoint,
    delivery: &Delivery,
) -> Result<String, String> {
    render(template.unwrap_or(TEXT), Form::Text, &Context::new(endpoint, delivery))
}

/// The HTML of a mail.
pub(crate) fn html(
    template: Option<&str>,
    endpoint: &Endpoint,
    delivery: &Delivery,
) -> Result<String, String> {
    render(template.unwrap_or(HTML), Form::Html, &Context::new(endpoint, delivery))
}

#[cfg(test)]
#[path = "template_tests.rs"]
mod tests;
