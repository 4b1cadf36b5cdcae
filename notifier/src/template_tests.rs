use galerna_storage::EndpointKind;
use serde_json::Value;

use super::*;
use crate::check::samples;

fn endpoint() -> Endpoint {
    Endpoint {
        id: "ops".into(),
        name: "Ops & <friends>".into(),
        account: None,
        kind: EndpointKind::Log {},
        enabled: true,
        disabled_reason: None,
        group_ms: 0,
        cooldown_ms: 0,
    }
}

#[test]
fn the_default_body_is_json_with_all_that_is_known_of_the_events() {
    let [raised, _, group, test]: [Delivery; 4] = samples().try_into().unwrap();
    let render = |delivery: &Delivery| -> Value {
        serde_json::from_str(&body(None, Form::Json, &endpoint(), delivery).unwrap()).unwrap()
    };
    assert_eq!(
        render(&raised),
        serde_json::json!({
            "type": "alert.raised",
            "timestamp": "2015-04-21T23:15:00Z",
            "data": {
                "delivery": "dlv_sample",
                "endpoint": "ops",
                "test": false,
                "events": [{
                    "id": "sample/raised",
                    "kind": "raised",
                    "raised": true,
                    "rule": "power",
                    "rule_name": "Too much \"power\" & <heat>",
                    "severity": "critical",
                    "account": "acme",
                    "source": "BC:6A:29:D0:F5:C8",
                    "device": "12a",
                    "value": 4900.5,
                    "ts": "2015-04-21T23:15:00Z",
                    "message": "401 is 4900.5 W,\nabove 4000 \\ ü",
                }],
            },
        })
    );
    let group = render(&group);
    assert_eq!(group["type"], "alert.group");
    assert_eq!(group["data"]["events"][1]["kind"], "resolved");
    assert_eq!(group["data"]["events"][1]["value"], Value::Null);
    let test = render(&test);
    assert_eq!((&test["type"], &test["data"]["test"]), (&"alert.test".into(), &true.into()));
}

#[test]
fn the_default_subject_says_what_happened_in_one_line() {
    let subjects: Vec<_> = samples().iter().map(|d| subject(None, &endpoint(), d).unwrap()).collect();
    assert_eq!(
        subjects,
        [
            "CRITICAL: Too much \"power\" & <heat> (12a)",
            "Recovered: Too much \"power\" & <heat> (12a)",
            "1 raised, 1 recovered: Too much \"power\" & <heat> (12a) and 1 more",
            "[TEST] CRITICAL: Too much \"power\" & <heat> (12a)",
        ]
    );
}

#[test]
fn the_default_text_says_what_when_and_where() {
    let [raised, _, group, test]: [Delivery; 4] = samples().try_into().unwrap();
    assert_eq!(
        text(None, &endpoint(), &raised).unwrap(),
        "RAISED (critical): Too much \"power\" & <heat>\n  401 is 4900.5 W,\nabove 4000 \\ ü\n  account acme, source \
         BC:6A:29:D0:F5:C8, device 12a\n  at 2015-04-21T23:15:00Z, value 4900.5\n\nDelivery dlv_sample to Ops & <friends>"
    );
    let group = text(None, &endpoint(), &group).unwrap();
    assert!(group.contains("RAISED (critical)") && group.contains("RECOVERED: "), "{group}");
    assert!(text(None, &endpoint(), &test).unwrap().starts_with("This is a test: nothing happened.\n"));
}

#[test]
fn the_default_html_escapes_what_it_shows() {
    for delivery in samples() {
        let html = html(None, &endpoint(), &delivery).unwrap();
        assert!(html.contains("Too much &quot;power&quot; &amp; &lt;heat&gt;"), "{html}");
        assert!(html.contains("Ops &amp; &lt;friends&gt;") && !html.contains("<heat>"), "{html}");
    }
}

#[test]
fn the_form_follows_the_content_type() {
    for (content_type, form) in [
        ("application/json", Form::Json),
        ("Application/JSON; charset=utf-8", Form::Json),
        ("application/cloudevents+json", Form::Json),
        ("text/html; charset=utf-8", Form::Html),
        ("application/xml", Form::Html),
        ("text/plain", Form::Text),
        ("", Form::Text),
    ] {
        assert_eq!(Form::of(content_type), form, "{content_type}");
    }
    let delivery = &samples()[0];
    let shown = |form| body(Some("{{ events[0].rule_name }}"), form, &endpoint(), delivery).unwrap();
    assert_eq!(serde_json::from_str::<String>(&shown(Form::Json)).unwrap(), delivery.events[0].rule_name);
    assert_eq!(shown(Form::Html), "Too much &quot;power&quot; &amp; &lt;heat&gt;");
    assert_eq!(shown(Form::Text), delivery.events[0].rule_name);
}

#[test]
fn templates_that_run_or_write_without_end_are_stopped() {
    let delivery = &samples()[0];
    for template in [
        "{% for a in range(9999) %}{% for b in range(9999) %}{% endfor %}{% endfor %}",
        "{% for a in range(9999) %}{{ 'x' * 9999 }}{% endfor %}",
        "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
    ] {
        let error = body(Some(template), Form::Text, &endpoint(), delivery).unwrap_err();
        assert!(!error.is_empty(), "{template}");
    }
}
