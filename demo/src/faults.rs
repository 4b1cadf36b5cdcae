//! What goes wrong at real sites, put into the demo's load on purpose, so that refusals, repetitions and corrections
//! are seen at work: each message here says what must become of it.

use bytes::Bytes;
use galerna_model::{AccountId, Envelope, Measurement, Message, ParameterCode, Reading, SourceId, Timestamp};
use serde_json::json;

/// A part of the body of a dead letter that must be found in the queue, and that no other dead letter has.
pub(crate) type Marker = Bytes;

/// A message with something wrong in it.
#[derive(Debug, Clone)]
pub(crate) struct Faulty {
    pub(crate) message: Message,
    /// Readings in the message, good and bad; 0 when it cannot be read at all.
    pub(crate) readings: u64,
    /// The good readings beside the bad ones: they must be stored.
    pub(crate) good: Vec<Reading>,
    /// What the dead letters must hold.
    pub(crate) dead: Vec<Marker>,
}

/// Longer than any device id may be.
const LONG: usize = 10_000;

/// The faulty messages of one account, stamped at `ts`.
pub(crate) fn messages(
    account: &AccountId,
    source: &SourceId,
    ts: Timestamp,
    received: Timestamp,
) -> Vec<Faulty> {
    let reading = |did: &str, p: u32, v: f64| Reading {
        did: did.to_owned(),
        values: vec![Measurement { p: ParameterCode(p), v }],
        sqn: 1,
        ts,
    };
    let envelope = |id: &str, readings: Vec<Reading>| Envelope {
        id: format!("{account}-{id}"),
        account: account.clone(),
        source: source.clone(),
        received,
        readings,
    };
    let whole =
        |message: Message| Faulty { readings: 0, good: vec![], dead: vec![message.body.clone()], message };

    let good = reading("neighbour-of-wrong-values", 401, 1_200.0);
    let mixed = envelope(
        "bad-values",
        vec![
            reading("bad-parameter", 999, 1.0),
            good.clone(),
            reading("bad-number", 401, f64::NAN),
            reading(&"d".repeat(LONG), 401, 1.0),
        ],
    );
    let mixed = Faulty {
        readings: mixed.readings.len() as u64,
        message: mixed.encode(),
        good: vec![good],
        dead: vec!["bad-parameter".into(), "bad-number".into(), "d".repeat(LONG).into()],
    };

    let good = reading("neighbour-of-wrong-time", 401, 800.0);
    let post = json!({
        "account": account, "source_key": source, "received": received,
        "body": [
            {"did": "bad-time", "values": [{"p": 401, "v": 1.0}], "sqn": 1, "ts": "2017-01-02T00:00:00"},
            good,
            {"did": "bad-type", "values": [{"p": 401, "v": "many"}], "sqn": 1, "ts": ts},
        ],
    });
    let json_post = Faulty {
        readings: 3,
        message: Message {
            body: Bytes::from(post.to_string()),
            content_type: galerna_model::envelope::JSON_CONTENT_TYPE.to_owned(),
            id: format!("{account}-bad-json"),
        },
        good: vec![good],
        dead: vec!["bad-time".into(), "bad-type".into()],
    };

    let mut version = envelope("bad-version", vec![reading("any", 401, 1.0)]).encode();
    let mut body = version.body.to_vec();
    body[0] = 9;
    version.body = body.into();
    let noise = Message {
        body: Bytes::from_static(b"\xff\xfe\x00 neither MessagePack nor JSON"),
        content_type: "application/octet-stream".to_owned(),
        id: format!("{account}-bad-noise"),
    };
    let cut = Message {
        body: Bytes::from_static(b"[{\"did\":\"cut\",\"values\":[{\"p\":401,"),
        content_type: galerna_model::envelope::JSON_CONTENT_TYPE.to_owned(),
        id: format!("{account}-bad-cut"),
    };
    vec![mixed, json_post, whole(version), whole(noise), whole(cut)]
}
