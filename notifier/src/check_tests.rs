use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::*;

fn checked(endpoint: Value) -> Result<(), String> {
    let endpoint: Endpoint = serde_json::from_value(endpoint).map_err(|e| e.to_string())?;
    validate(&endpoint).map_err(|e| e.to_string())
}

fn webhook(changes: Value) -> Value {
    let mut endpoint = json!({
        "id": "hook", "name": "A hook", "kind": "webhook", "url": "https://example.com/hook?a=b",
    });
    merge(&mut endpoint, changes);
    endpoint
}

fn mail(changes: Value) -> Value {
    let mut endpoint = json!({"id": "mail", "name": "A mail", "kind": "email", "to": ["a@example.com", "B <b@example.com>"]});
    merge(&mut endpoint, changes);
    endpoint
}

fn merge(endpoint: &mut Value, changes: Value) {
    if let (Some(endpoint), Value::Object(changes)) = (endpoint.as_object_mut(), changes) {
        endpoint.extend(changes);
    }
}

#[test]
fn sound_endpoints_pass() {
    for sound in [
        webhook(json!({})),
        webhook(
            json!({"method": "PUT", "headers": {"authorization": "Bearer x", "content-type": "text/plain"}, "body": "{{ type }}"}),
        ),
        webhook(
            json!({"secret": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "group_ms": 1000, "cooldown_ms": 5}),
        ),
        webhook(json!({"body": "{\"text\": {{ events[0].message }}, \"n\": {{ raised }}}"})),
        webhook(json!({"url": "http://127.0.0.1:9/"})),
        mail(json!({})),
        mail(json!({"subject": "{{ type }}", "text": "{{ events }}", "html": "<b>{{ endpoint.name }}</b>"})),
        json!({"id": "log", "name": "", "kind": "log"}),
    ] {
        assert_eq!(checked(sound.clone()), Ok(()), "{sound}");
    }
}

#[test]
fn what_cannot_be_used_is_refused_with_the_name_of_the_field() {
    for (wrong, field, part) in [
        (webhook(json!({"id": ""})), "id", "is empty"),
        (webhook(json!({"id": "a/b"})), "id", "slash"),
        (webhook(json!({"url": "example.com"})), "url", "is no URL"),
        (webhook(json!({"url": "ftp://example.com"})), "url", "must be http or https"),
        (webhook(json!({"url": "file:///etc/passwd"})), "url", "must be http or https"),
        (webhook(json!({"url": "http://"})), "url", "is no URL"),
        (webhook(json!({"url": "https://example.com/?***"})), "url", "write it out"),
        (webhook(json!({"headers": {"authorization": "***"}})), "headers.authorization", "write it out"),
        (webhook(json!({"secret": "***"})), "secret", "write it out"),
        (webhook(json!({"url": "https://user:pass@example.com/"})), "url", "name or password"),
        (webhook(json!({"method": "post"})), "method", "is none of"),
        (webhook(json!({"method": "CONNECT"})), "method", "is none of"),
        (webhook(json!({"headers": {"a b": "c"}})), "headers.a b", "no name"),
        (webhook(json!({"headers": {"a": "b\r\nc: d"}})), "headers.a", "no header can have"),
        (webhook(json!({"headers": {"Host": "x"}})), "headers.Host", "set by the notifier"),
        (webhook(json!({"headers": {"webhook-id": "x"}})), "headers.webhook-id", "set by the notifier"),
        (webhook(json!({"headers": {"$set": "x"}})), "headers.$set", "no name"),
        (webhook(json!({"secret": "hunter2"})), "secret", "whsec_"),
        (webhook(json!({"body": "{{ events"})), "body", "syntax error"),
        (webhook(json!({"body": "{{ evnts }}"})), "body", "undefined"),
        (webhook(json!({"body": "{{ events[0].colour }}"})), "body", "undefined"),
        (webhook(json!({"body": "hello"})), "body", "no JSON"),
        (webhook(json!({"body": "{% include 'x' %}"})), "body", "x"),
        (webhook(json!({"body": "x".repeat(70_000)})), "body", "longer"),
        (webhook(json!({"group_ms": 86_400_001_u64})), "group_ms", "a day"),
        (webhook(json!({"cooldown_ms": u64::MAX})), "cooldown_ms", "a year"),
        (mail(json!({"to": []})), "to", "at least one"),
        (mail(json!({"to": ["a@example.com", "nobody"]})), "to[1]", "no mail address"),
        (mail(json!({"to": ["a@example.com\r\nBcc: b@example.com"]})), "to[0]", "no mail address"),
        (mail(json!({"subject": "{{ nothing }}"})), "subject", "undefined"),
        (mail(json!({"text": "{% if %}"})), "text", "syntax error"),
        (mail(json!({"html": "{{ 1 / 0 }}"})), "html", "fails"),
    ] {
        let error = checked(wrong.clone()).expect_err(&wrong.to_string());
        assert!(error.starts_with(&format!("{field}: ")), "{wrong}: {error}");
        assert!(error.contains(part), "{wrong}: {error}");
    }
}

#[test]
fn silences_need_an_id_and_a_pattern_that_is_one() {
    let silence = |changes: Value| {
        let mut silence =
            json!({"id": "s", "until": "2030-01-01T00:00:00Z", "created": "2026-01-01T00:00:00Z"});
        merge(&mut silence, changes);
        validate_silence(&serde_json::from_value(silence).unwrap()).map_err(|e| e.to_string())
    };
    assert_eq!(silence(json!({"device": "Panther_*"})), Ok(()));
    assert!(silence(json!({"device": "a[b"})).unwrap_err().starts_with("device: "));
    assert!(silence(json!({"id": " "})).unwrap_err().starts_with("id: "));
}

#[test]
fn a_redacted_endpoint_shows_no_secret_and_can_be_stored_again() {
    let stored: Endpoint = serde_json::from_value(webhook(json!({
        "secret": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "headers": {"authorization": "Bearer hunter2"},
        "url": "https://example.com/x?key=sesame",
    })))
    .unwrap();
    let shown = stored.redacted();
    let text = serde_json::to_string(&shown).unwrap();
    assert!(!text.contains("hunter2") && !text.contains("MfKQ9r8") && !text.contains("sesame"), "{text}");
    assert!(text.contains("https://example.com/x?***"), "{text}");
    assert_eq!(shown.clone().with_secrets_of(&stored), stored);
    let EndpointKind::Webhook { headers, .. } = &shown.kind else { panic!("a webhook") };
    assert_eq!(*headers, BTreeMap::from([("authorization".to_owned(), "***".to_owned())]));
    // What nobody may see goes to no other address, and to no other host.
    let mut elsewhere = shown.clone();
    let EndpointKind::Webhook { url, .. } = &mut elsewhere.kind else { panic!("a webhook") };
    *url = "https://example.org/x?***".into();
    let elsewhere = elsewhere.with_secrets_of(&stored);
    let sent = serde_json::to_string(&elsewhere).unwrap();
    let hidden = ["sesame", "hunter2", "MfKQ9r8"];
    assert!(hidden.iter().all(|secret| !sent.contains(secret)), "{sent}");
    // Another path of the same host keeps all but the query.
    let mut moved = shown;
    let EndpointKind::Webhook { url, .. } = &mut moved.kind else { panic!("a webhook") };
    *url = "https://example.com/y".into();
    let sent = serde_json::to_string(&moved.with_secrets_of(&stored)).unwrap();
    assert!(sent.contains("hunter2") && sent.contains("MfKQ9r8") && !sent.contains("sesame"), "{sent}");
}
