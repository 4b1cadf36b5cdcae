//! Bodies of messages as people read them.

use galerna_model::{Message, SourceId, decode};
use maud::{Markup, html};
use serde_json::Value;

use super::{format, layout};

/// Of a body, at most so much is shown.
const SHOWN: usize = 4_000;

/// A body as text: JSON and MessagePack are written out.
pub(super) fn text(body: &[u8]) -> String {
    let whole = |value: &Value| value.is_object() || value.is_array();
    let parsed: Option<Value> = serde_json::from_slice(body)
        .ok()
        .filter(whole)
        .or_else(|| rmp_serde::from_slice(body).ok().filter(whole))
        // An envelope begins with its version.
        .or_else(|| rmp_serde::from_slice(body.get(1..)?).ok().filter(whole));
    let text = parsed
        .and_then(|value| serde_json::to_string_pretty(&value).ok())
        .unwrap_or_else(|| String::from_utf8_lossy(body).into_owned());
    format::shortened(&text, SHOWN)
}

/// The source that a message names.
pub(super) fn source(message: &Message) -> Option<SourceId> {
    decode(message).ok()?.source
}

/// The message, folded up.
pub(super) fn folded(body: &[u8], content_type: &str, id: &str) -> Markup {
    html! {
        details {
            summary { (format::count(body.len() as u64)) " bytes " span.dim { (content_type) } }
            pre tabindex="0" { (text(body)) }
            p.dim { "id " code { (id) } }
        }
    }
}

/// A source, as a link.
pub(super) fn source_link(source: Option<&SourceId>) -> Markup {
    html! {
        @if let Some(source) = source { a href={ "/sources/" (layout::encoded(source.as_str())) } { (source) } }
        @else { span.dim { "–" } }
    }
}

#[cfg(test)]
mod tests {
    use galerna_model::{AccountId, Envelope, Reading, Timestamp};

    use super::*;

    #[test]
    fn envelopes_json_and_plain_text_are_shown_as_such() {
        let envelope = Envelope {
            id: "batch-1".into(),
            account: AccountId::new("acme").unwrap(),
            source: SourceId::new("s1").unwrap(),
            received: Timestamp(0),
            readings: vec![Reading { did: "12a".into(), values: vec![], sqn: 7, ts: Timestamp(0) }],
        };
        let message = envelope.encode();
        let shown = text(&message.body);
        assert!(shown.contains(r#""did": "12a""#) && shown.contains(r#""source": "s1""#), "{shown}");
        assert_eq!(source(&message), Some(SourceId::new("s1").unwrap()));
        assert_eq!(text(br#"{"a":1}"#), "{\n  \"a\": 1\n}");
        assert_eq!(text(b"12"), "12");
        assert_eq!(text(&[0xff, b'x']), "\u{fffd}x");
    }
}
