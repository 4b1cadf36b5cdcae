//! Whether endpoints and silences can be used, told when they are stored.

use galerna_model::{AccountId, SourceId, Timestamp, first_invisible};
use galerna_model::{AlertEvent, AlertEventKind, Severity};
use galerna_storage::{Delivery, DeliveryStatus, Endpoint, EndpointKind, REDACTED, Silence};
use lettre::message::Mailbox;
use reqwest::Method;
use reqwest::header::{HeaderName, HeaderValue};
use url::Url;

use crate::error::FieldError;
use crate::signature;
use crate::template::{self, Form};

/// Most bytes of a template.
const LONGEST_TEMPLATE: usize = 64 << 10;
/// Longest grouping window, a day, and longest cooldown, a year, in milliseconds.
const LONGEST_GROUP: u64 = 24 * 3_600_000;
const LONGEST_COOLDOWN: u64 = 365 * LONGEST_GROUP;
/// Headers that the notifier or HTTP itself sets.
const RESERVED: [&str; 9] = [
    "connection",
    "content-length",
    "host",
    "keep-alive",
    "proxy-authorization",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// Checks an endpoint: to be called before it is stored, as nothing is known of a bad one at delivery but that it
/// fails. Templates are tried on sample events. Whether the host of a webhook may be called is seen when it is called.
///
/// # Errors
/// The first field that cannot be used, and why.
pub fn validate(endpoint: &Endpoint) -> Result<(), FieldError> {
    check_id("id", &endpoint.id)?;
    if endpoint.group_ms > LONGEST_GROUP {
        return Err(FieldError::new("group_ms", format!("is above {LONGEST_GROUP}, a day")));
    }
    if endpoint.cooldown_ms > LONGEST_COOLDOWN {
        return Err(FieldError::new("cooldown_ms", format!("is above {LONGEST_COOLDOWN}, a year")));
    }
    match &endpoint.kind {
        EndpointKind::Webhook { url, method, headers, body, secret } => {
            check_written_out("url", parse_url(url)?.query(), "has the query", "address")?;
            parse_method(method)?;
            for (name, value) in headers {
                check_written_out(&format!("headers.{name}"), Some(value), "is", "host")?;
                parse_header(name, value)?;
            }
            if let Some(secret) = secret {
                check_written_out("secret", Some(secret), "is", "host")?;
                signature::key(secret).map_err(|problem| FieldError::new("secret", problem))?;
            }
            let form = Form::of(content_type(endpoint));
            check_template("body", body.as_deref(), |template, sample| {
                template::body(template, form, endpoint, sample)
            })
        }
        EndpointKind::Email { to, subject, text, html } => {
            if to.is_empty() {
                return Err(FieldError::new("to", "is empty; give at least one address"));
            }
            for (i, address) in to.iter().enumerate() {
                address.parse::<Mailbox>().map_err(|e| {
                    FieldError::new(format!("to[{i}]"), format!("`{address}` is no mail address: {e}"))
                })?;
            }
            check_template("subject", subject.as_deref(), |t, sample| {
                template::subject(t, endpoint, sample)
            })?;
            check_template("text", text.as_deref(), |t, sample| template::text(t, endpoint, sample))?;
            check_template("html", html.as_deref(), |t, sample| template::html(t, endpoint, sample))
        }
        EndpointKind::Log {} => Ok(()),
    }
}

/// Checks a silence.
///
/// # Errors
/// The first field that cannot be used, and why.
pub fn validate_silence(silence: &Silence) -> Result<(), FieldError> {
    check_id("id", &silence.id)?;
    if let Some(device) = &silence.device {
        globset::Glob::new(device)
            .map_err(|e| FieldError::new("device", format!("`{device}` is no pattern: {}", e.kind())))?;
    }
    Ok(())
}

fn check_id(field: &str, id: &str) -> Result<(), FieldError> {
    let problem = if id.is_empty() {
        "is empty"
    } else if id.len() > 200 {
        "is longer than 200 bytes"
    } else if id == "." || id == ".." {
        "means a folder"
    } else if id.contains('/') || first_invisible(id).is_some() {
        "holds a space, a slash, or a character that nobody sees"
    } else {
        return Ok(());
    };
    Err(FieldError::new(field, problem))
}

/// The address of a webhook.
pub(crate) fn parse_url(url: &str) -> Result<Url, FieldError> {
    let wrong = |problem: String| FieldError::new("url", problem);
    let url: Url = url.parse().map_err(|e| wrong(format!("`{}` is no URL: {e}", shown(url))))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(wrong(format!("begins with `{}:`; it must be http or https", url.scheme())));
    }
    if url.host_str().is_none_or(str::is_empty) {
        return Err(wrong("names no host".to_owned()));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(wrong("holds a name or password; send them in a header".to_owned()));
    }
    Ok(url)
}

/// The method of a webhook.
pub(crate) fn parse_method(method: &str) -> Result<Method, FieldError> {
    match method {
        "POST" => Ok(Method::POST),
        "PUT" => Ok(Method::PUT),
        "PATCH" => Ok(Method::PATCH),
        "GET" => Ok(Method::GET),
        "DELETE" => Ok(Method::DELETE),
        other => Err(FieldError::new(
            "method",
            format!("`{}` is none of POST, PUT, PATCH, GET, DELETE", shown(other)),
        )),
    }
}

/// A header of a webhook.
pub(crate) fn parse_header(name: &str, value: &str) -> Result<(HeaderName, HeaderValue), FieldError> {
    let field = || format!("headers.{}", shown(name));
    let parsed = HeaderName::from_bytes(name.as_bytes())
        .ok()
        // MongoDB reads a `$` at the beginning as an operator.
        .filter(|name| !name.as_str().starts_with('$'))
        .ok_or_else(|| FieldError::new(field(), "is no name of a header"))?;
    if RESERVED.contains(&parsed.as_str()) || parsed.as_str().starts_with("webhook-") {
        return Err(FieldError::new(field(), "is set by the notifier itself"));
    }
    // The value is not repeated: it may be a password.
    let value = HeaderValue::from_str(value)
        .map_err(|_| FieldError::new(field(), "has a value that no header can have"))?;
    Ok((parsed, value))
}

/// The content type of a webhook's body.
pub(crate) fn content_type(endpoint: &Endpoint) -> &str {
    let EndpointKind::Webhook { headers, .. } = &endpoint.kind else { return "text/plain" };
    headers
        .iter()
        .find(|(name, _)| name.eq_ignore_ascii_case("content-type"))
        .map_or("application/json", |(_, value)| value)
}

fn shown(text: &str) -> String {
    text.chars().take(100).collect()
}

/// What still stands for a stored secret was not put back, since the endpoint goes elsewhere now.
fn check_written_out(field: &str, secret: Option<&str>, what: &str, other: &str) -> Result<(), FieldError> {
    if secret != Some(REDACTED) {
        return Ok(());
    }
    let problem =
        format!("{what} `{REDACTED}`, which stands for one that is stored; write it out for another {other}");
    Err(FieldError::new(field, problem))
}

fn check_template(
    field: &str,
    template: Option<&str>,
    render: impl Fn(Option<&str>, &Delivery) -> Result<String, String>,
) -> Result<(), FieldError> {
    if template.is_some_and(|template| template.len() > LONGEST_TEMPLATE) {
        return Err(FieldError::new(field, format!("is longer than {LONGEST_TEMPLATE} bytes")));
    }
    for sample in samples() {
        render(template, &sample).map_err(|e| FieldError::new(field, format!("the template fails: {e}")))?;
    }
    Ok(())
}

/// Deliveries of each shape that templates meet.
pub(crate) fn samples() -> Vec<Delivery> {
    let (Ok(account), Ok(source)) = (AccountId::new("acme"), SourceId::new("BC:6A:29:D0:F5:C8")) else {
        return Vec::new();
    };
    let at = Timestamp(1_429_658_100_000);
    let raised = AlertEvent {
        id: "sample/raised".to_owned(),
        kind: AlertEventKind::Raised,
        rule: "power".to_owned(),
        rule_name: "Too much \"power\" & <heat>".to_owned(),
        severity: Severity::Critical,
        account,
        source,
        device: "12a".to_owned(),
        value: Some(4900.5),
        ts: at,
        message: "401 is 4900.5 W,\nabove 4000 \\ ü".to_owned(),
        origin: None,
        at: None,
    };
    let resolved = AlertEvent {
        id: "sample/resolved".to_owned(),
        kind: AlertEventKind::Resolved,
        value: None,
        ts: at.plus_millis(60_000),
        ..raised.clone()
    };
    let delivery = |events: Vec<AlertEvent>, test| Delivery {
        id: "dlv_sample".to_owned(),
        endpoint: "sample".to_owned(),
        events,
        status: DeliveryStatus::Pending,
        reason: None,
        test,
        attempts: Vec::new(),
        tries: 0,
        next_try: at,
        open_until: None,
        held_until: None,
        after: Vec::new(),
        created: at,
        since: at,
        ended: None,
        version: 0,
        claimed_by: None,
        claimed_until: None,
    };
    vec![
        delivery(vec![raised.clone()], false),
        delivery(vec![resolved.clone()], false),
        delivery(vec![raised.clone(), resolved], false),
        delivery(vec![raised], true),
    ]
}

#[cfg(test)]
#[path = "check_tests.rs"]
mod tests;
