use proptest::prelude::*;
use serde::Serialize;
use serde_json::json;

use super::*;
use crate::{Measurement, ParameterCode, RejectCode};

fn reading(did: &str) -> Reading {
    Reading {
        did: did.to_owned(),
        values: vec![
            Measurement { p: ParameterCode(401), v: 4900.0 },
            Measurement { p: ParameterCode(412), v: 0.82 },
        ],
        sqn: 2152,
        ts: Timestamp::parse("2015-04-21T23:15:00+00:00").unwrap(),
    }
}

fn envelope(readings: Vec<Reading>) -> Envelope {
    Envelope {
        id: "e1".to_owned(),
        account: AccountId::new("D0000591").unwrap(),
        source: SourceId::new("c1").unwrap(),
        received: Timestamp(1_429_658_100_000),
        readings,
    }
}

fn json_message(body: impl Into<Vec<u8>>) -> Message {
    Message {
        body: Bytes::from(body.into()),
        content_type: "application/json; charset=utf-8".into(),
        id: "m1".into(),
    }
}

/// An envelope whose readings are any MessagePack at all.
fn packed<T: Serialize>(readings: T) -> Message {
    #[derive(Serialize)]
    struct Loose<T> {
        id: &'static str,
        account: &'static str,
        source: &'static str,
        received: i64,
        readings: T,
    }
    let loose = Loose { id: "e1", account: "D0000591", source: "c1", received: 5, readings };
    let mut body = vec![VERSION];
    body.extend(rmp_serde::to_vec_named(&loose).unwrap());
    Message { body: body.into(), content_type: CONTENT_TYPE.into(), id: "e1".into() }
}

#[test]
fn a_field_that_is_there_twice_costs_its_reading() {
    let good = r#"{"did":"a","values":[{"p":401,"v":1}],"sqn":1,"ts":1429658100000,"x":1,"x":2}"#;
    for (field, bad) in [
        ("did", r#"{"did":"a","\u0064id":"b","values":[{"p":401,"v":1}],"sqn":1,"ts":1429658100000}"#),
        ("values", r#"{"did":"a","values":[],"values":[{"p":401,"v":1}],"sqn":1,"ts":1429658100000}"#),
        ("ts", r#"{"did":"a","values":[{"p":401,"v":1}],"sqn":1,"ts":1,"ts":1429658100000}"#),
        (
            "values[1].v",
            r#"{"did":"a","values":[{"p":401,"v":1},{"p":402,"v":1,"v":2}],"sqn":1,"ts":1429658100000}"#,
        ),
    ] {
        let decoded = decode(&json_message(format!("[{good},{bad}]"))).unwrap();
        assert_eq!(decoded.readings.len(), 1, "{bad}");
        let [BadEntry { index: 1, error, raw }] = &decoded.bad[..] else { panic!("{:?}", decoded.bad) };
        assert_eq!((error.code, &*error.field), (RejectCode::Malformed, field), "{error:?}");
        assert_eq!(raw.as_str(), Some(bad));
    }
}

#[test]
fn an_envelope_comes_back_as_it_was_sent() {
    let sent = envelope(vec![reading("a"), reading("b")]);
    let decoded = decode(&sent.encode()).unwrap();
    assert_eq!(decoded.id, sent.id);
    assert_eq!(decoded.account.as_ref(), Some(&sent.account));
    assert_eq!(decoded.source.as_ref(), Some(&sent.source));
    assert_eq!(decoded.received, Some(sent.received));
    assert_eq!(decoded.readings, sent.readings.into_iter().enumerate().collect::<Vec<_>>());
    assert_eq!(decoded.bad, []);
}

#[test]
fn every_json_form_is_read() {
    let one = r#"{"did":"12a","values":[{"p":401,"v":4900.0},{"p":412,"v":0.82}],"sqn":2152,"ts":"2015-04-21T23:15:00+00:00"}"#;
    let forms = [
        (one.to_owned(), 1, None),
        (format!("\u{feff} {one}"), 1, None),
        (format!("[{one},{one}]"), 2, None),
        ("[]".to_owned(), 0, None),
        (format!(r#"{{"source_key":"c9","body":[{one}]}}"#), 1, Some("c9")),
        (format!(r#"{{"source":"c9","readings":{one}}}"#), 1, Some("c9")),
        (
            format!(
                r#"{{"account":"A","id":"x","received":"2015-04-21T23:15:00Z","source":"c9","readings":[{one}]}}"#
            ),
            1,
            Some("c9"),
        ),
    ];
    for content_type in ["application/json", "", "text/plain"] {
        for (form, count, source) in &forms {
            let message = Message { content_type: content_type.into(), ..json_message(form.as_bytes()) };
            let decoded = decode(&message).unwrap_or_else(|e| panic!("{form}: {e}"));
            assert_eq!(decoded.bad, [], "{form}");
            assert_eq!(decoded.readings.len(), *count, "{form}");
            assert!(decoded.readings.iter().all(|(_, r)| *r == reading("12a")), "{form}");
            assert_eq!(decoded.source.as_ref().map(SourceId::as_str), *source, "{form}");
        }
    }
}

#[test]
fn a_bad_json_reading_is_named_by_its_field_and_its_neighbours_are_kept() {
    let good = serde_json::to_string(&reading("good")).unwrap();
    let deep = format!(r#"{{"did":{}1{}}}"#, "[".repeat(10_000), "]".repeat(10_000));
    let long =
        format!(r#"{{"did":"{}","values":[],"sqn":1,"ts":"2015-04-21T23:15:00Z"}}"#, "x".repeat(10_000));
    let with = |did: &str, values: &str, sqn: &str, ts: &str| {
        format!(r#"{{"did":{did},"values":{values},"sqn":{sqn},"ts":{ts}}}"#)
    };
    let ts = r#""2015-04-21T23:15:00Z""#;
    let cases = [
        (deep, "recursion limit exceeded"),
        (long, "did has 10000 characters, at most 200 are allowed"),
        (with("\"\"", "[]", "1", ts), "did is empty"),
        (with(r#""a\u0000""#, "[]", "1", ts), "did holds a control character"),
        (with("12", "[]", "1", ts), "did is a number, not text"),
        (with("\"a\"", "{}", "1", ts), "values is an object, not an array"),
        (with("\"a\"", "[7]", "1", ts), "values[0] is a number, not an object"),
        (with("\"a\"", r#"[{"p":401,"v":1},{"p":401,"v":NaN}]"#, "1", ts), "values[1].v is NaN"),
        (with("\"a\"", r#"[{"p":401,"v":-Infinity}]"#, "1", ts), "values[0].v is infinite"),
        (with("\"a\"", r#"[{"p":401,"v":1e999}]"#, "1", ts), "number out of range"),
        (with("\"a\"", r#"[{"p":401,"v":.5}]"#, "1", ts), "values[0].v is `.5`, not a number"),
        (with("\"a\"", r#"[{"p":401,"v":5.}]"#, "1", ts), "values[0].v is `5.`, not"),
        (with("\"a\"", r#"[{"p":401,"v":01}]"#, "1", ts), "values[0].v is `01`, not"),
        (with("\"a\"", r#"[{"p":401,"v":+1}]"#, "1", ts), "values[0].v is `+1`, not"),
        (with("\"a\"", r#"[{"p":401,"v":-}]"#, "1", ts), "values[0].v is `-`, not"),
        (with("\"a\"", r#"[{"p":401,"v":1.#QNAN}]"#, "1", ts), "values[0].v is `1.#QNAN`, not"),
        (with("\"a\"", r#"[{"p":401,"v":0x1F}]"#, "1", ts), "values[0].v is `0x1F`, not"),
        (with("\"a\"", r#"[{"p":401,"v":None}]"#, "1", ts), "values[0].v is `None`, not"),
        (with("\"a\"", r#"[{"p":401,"v":NULL}]"#, "1", ts), "values[0].v is `NULL`, not"),
        (with("\"a\"", r#"[{"p":401,"v":undefined}]"#, "1", ts), "values[0].v is `undefined`, not"),
        (with("\"a\"", r#"[{"p":401,"v":}]"#, "1", ts), "values[0].v is null, not a number"),
        (with("\"a\"", r#"[{"p":401,"v":4.9e}]"#, "1", ts), "values[0].v is `4.9e`, not"),
        (with("\"a\"", r#"[{"p":401,"v":True}]"#, "1", ts), "values[0].v is `True`, not"),
        (with("\"a\"", r#"[{"p":0401,"v":1}]"#, "1", ts), "values[0].p is `0401`, not a parameter code"),
        (with("\"a\"", r#"[{"v":,"p":401}]"#, "1", ts), "values[0].v is null, not a number"),
        (with("\"a\"", "[]", "01", ts), "sqn is `01`, not a whole number from 0"),
        (with("\"a\"", "[]", "", ts), "sqn is null, not a whole number from 0"),
        (with("\"a\"", "[]", "1", ".5"), "time `.5` is not RFC 3339"),
        (with(r#""a\x41""#, "[]", "1", ts), "did holds U+FFFD"),
        (with(r#""a\u12g4""#, "[]", "1", ts), "did holds U+FFFD"),
        (with("\"a\u{1}\tb\"", "[]", "1", ts), "did holds a control character"),
        (
            with("\"a\"", r#"[{"p":401,"v":1},{"p":401,"v":-1e999}]"#, "1", ts),
            "values[1].v is -1e999, a number out of range",
        ),
        (
            with("\"a\"", &format!(r#"[{{"p":401,"v":1{}}}]"#, "0".repeat(400)), "1", ts),
            "0…, a number out of",
        ),
        (with("\"a\"", r#"[{"p":1e999,"v":1}]"#, "1", ts), "values[0].p is 1e999, not a parameter code"),
        (with("\"a\"", "[1e999]", "1", ts), "values[0] is a number, not an object"),
        (with("\"a\"", "1e999", "1", ts), "values is a number, not an array"),
        (with("1e999", "[]", "1", ts), "number out of range"),
        (with("\"a\"", "[]", "1e999", ts), "sqn is 1e999, not a whole number from 0"),
        (with("\"a\"", "[]", "1", "1e999"), "ts: time `1e999`"),
        (with("\"a\"", r#"[{"p":401,"v":"4900"}]"#, "1", ts), "values[0].v is text, not a number"),
        (with("\"a\"", r#"[{"p":401}]"#, "1", ts), "values[0].v is missing"),
        (with("\"a\"", r#"[{"p":-1,"v":1}]"#, "1", ts), "values[0].p is -1, not a parameter code"),
        (with("\"a\"", "[]", "-3", ts), "sqn is -3, not a whole number from 0"),
        (with("\"a\"", "[]", "9223372036854775808", ts), "sqn is 9223372036854775808, more than"),
        (with("\"a\"", "[]", "1", r#""2015-04-21T23:15:00""#), "has no zone"),
        (with("\"a\"", "[]", "1", r#""yesterday""#), "ts: time `yesterday` is not RFC 3339"),
        (with("\"a\"", "[]", "1", r#""2016-12-31T23:59:60Z""#), "has second 60"),
        (with("\"a\"", "[]", "1", "9223372036854775807"), "which no calendar reaches"),
        (r#"{"values":[],"sqn":1,"ts":0}"#.to_owned(), "did is missing"),
        ("null".to_owned(), "reading is null, not an object"),
        ("[]".to_owned(), "reading is an array, not an object"),
    ];
    for (bad, reason) in &cases {
        let decoded = decode(&json_message(format!("[{good},{bad},{good}]")))
            .unwrap_or_else(|e| panic!("{bad:.80}: {e}"));
        assert_eq!(decoded.readings, [(0, reading("good")), (2, reading("good"))], "{bad:.80}");
        let [found] = &decoded.bad[..] else { panic!("{bad:.80}: {:?}", decoded.bad) };
        assert_eq!(found.index, 1);
        assert!(found.error.reason.contains(reason), "{bad:.80}: {}", found.error.reason);
    }
}

#[test]
fn bytes_that_are_no_text_cost_the_reading_whose_id_they_are_in_and_harm_no_other() {
    let good = serde_json::to_string(&reading("good")).unwrap();
    let decoded_with = |bad: &[u8]| {
        let body = [format!("[{good},").as_bytes(), bad, format!(",{good}]").as_bytes()].concat();
        decode(&json_message(body)).unwrap()
    };
    // In a field that nobody reads they do no harm.
    let decoded = decoded_with(b"{\"did\":\"a\",\"values\":[],\"sqn\":1,\"ts\":0,\"town\":\"K\xf6ln\"}");
    assert_eq!((decoded.readings.len(), decoded.bad), (3, Vec::new()));
    for (bad, reason) in [
        (&b"{\"did\":\"K\xf6ln\",\"values\":[],\"sqn\":1,\"ts\":0}"[..], "did holds U+FFFD"),
        (b"{\"did\":\"a\",\"values\":[{\"p\":401,\"v\":\xff}],\"sqn\":1,\"ts\":0}", "values[0].v is text"),
        (b"{\"did\":\"a\",\"values\":[],\"sqn\":1,\"ts\":\"2015-04-21T23:15:00\xa0Z\"}", "ts: time"),
    ] {
        let decoded = decoded_with(bad);
        assert_eq!(decoded.readings, [(0, reading("good")), (2, reading("good"))], "{reason}");
        assert!(decoded.bad[0].error.reason.starts_with(reason), "{}", decoded.bad[0].error.reason);
    }
}

#[test]
fn broken_syntax_is_told_of_what_was_sent() {
    for broken in
        [r#"{"did":oops}"#, r#"[{"did":007,"values":[],"sqn":1,"ts":0}]"#, r#"[{"v":.5,]"#, r#"{"v":.5"#]
    {
        let parser = serde_json::from_str::<serde_json::Value>(broken).unwrap_err().to_string();
        let told = decode(&json_message(broken)).unwrap_err().to_string();
        assert!(told.contains("line 1 column"), "{broken}: {told}, {parser}");
    }
}

#[test]
fn a_number_out_of_range_is_kept_as_its_text_and_harms_no_reading_that_does_not_use_it() {
    let of = |text: &str| decode(&json_message(text)).unwrap();
    let decoded = of(
        r#"{"source_key":"c9","body":[{"did":"a","values":[{"p":401,"v":1e999}],"sqn":7,"ts":0,"x":{"y":[]}}]}"#,
    );
    let kept = json!({"did": "a", "values": [{"p": 401, "v": "1e999"}], "sqn": 7, "ts": 0, "x": {"y": []}});
    assert_eq!(decoded.bad[0].raw, kept);
    let again = decode(&decoded.bad_message(&decoded.bad[0])).unwrap();
    assert_eq!((&again.bad[0].error.reason, &again.source), (&decoded.bad[0].error.reason, &decoded.source));
    // Fields that nobody knows are ignored, whatever is beside.
    let decoded = of(r#"[{"did":"a","values":[],"sqn":7,"ts":0,"x":1e999},{"did":"b"}]"#);
    assert_eq!((decoded.readings.len(), decoded.bad.len()), (1, 1), "{decoded:?}");
}

#[test]
fn a_bad_reading_in_an_envelope_is_named_by_its_field_and_its_neighbours_are_kept() {
    let good = json!(reading("good"));
    let mut not_a_number = reading("nan");
    not_a_number.values[1].v = f64::NAN;
    let decoded = decode(&envelope(vec![reading("good"), not_a_number]).encode()).unwrap();
    assert_eq!(decoded.readings, [(0, reading("good"))]);
    assert_eq!(decoded.bad[0].error.reason, "values[1].v is NaN");
    assert_eq!(decoded.bad[0].raw["values"][1]["v"], "NaN");

    for (bad, reason) in [
        (json!({"did": "x", "values": [], "sqn": 1, "ts": "2015-04-21T23:15:00"}), "has no zone"),
        (json!({"did": "", "values": [], "sqn": 1, "ts": "2015-04-21T23:15:00Z"}), "did is empty"),
        (json!({"did": "x", "values": [{"p": "a", "v": 1.0}], "sqn": 1, "ts": 0}), "values[0].p is text"),
        (
            json!({"did": "x".repeat(201), "values": [], "sqn": 1, "ts": "2015-04-21T23:15:00Z"}),
            "did has 201 characters",
        ),
        (json!([1, 2]), "reading is an array"),
    ] {
        let decoded = decode(&packed(json!([good, bad, good]))).unwrap_or_else(|e| panic!("{bad}: {e}"));
        assert_eq!(decoded.readings, [(0, reading("good")), (2, reading("good"))], "{bad}");
        assert!(decoded.bad[0].error.reason.contains(reason), "{bad}: {}", decoded.bad[0].error.reason);
        assert_eq!(decoded.bad[0].raw, bad);
    }
}

#[test]
fn a_message_that_cannot_be_read_says_why() {
    let envelope_of = |body: &[u8]| Message {
        body: Bytes::copy_from_slice(body),
        content_type: CONTENT_TYPE.into(),
        id: String::new(),
    };
    let unknown = |body: &[u8]| Message { content_type: "text/plain".into(), ..envelope_of(body) };
    let mut truncated = envelope(vec![reading("a")]).encode();
    truncated.body = truncated.body.slice(..truncated.body.len() - 3);
    let mut long = envelope(vec![reading("a")]).encode();
    long.body = [&long.body[..], b"xyz"].concat().into();
    let nested = [&[VERSION][..], &[0x91; 100_000]].concat();
    let cases = [
        (unknown(b"hello"), "neither MessagePack nor JSON"),
        (unknown(b""), "neither MessagePack nor JSON"),
        (envelope_of(b""), "it is empty"),
        (envelope_of(&[2, 0x80]), "envelope has version 2"),
        (unknown(&[3, 0x85]), "envelope has version 3"),
        (truncated, "envelope is not MessagePack"),
        (long, "3 bytes follow its end"),
        (envelope_of(&nested), "depth limit exceeded"),
        (envelope_of(&[1, 0xc0]), "it holds null, not a map"),
        (envelope_of(&[1, 0x80]), "field `id` of the envelope is missing"),
        (packed(json!({"a": 1})), "field `readings` of the envelope is an object, not an array"),
        (packed(vec![0; 10_001]), "holds 10001 readings, at most 10000"),
        (json_message("{\"did\":"), "message is not JSON: EOF"),
        (json_message("7"), "it is a number, not a reading"),
        (json_message("\u{1}"), "message is not JSON"),
        (json_message(vec![b'[', b'"', 0xff, b'"']), "message is not JSON"),
        (json_message(format!("[{}1]", "1,".repeat(10_000))), "holds 10001 readings, at most 10000"),
        (json_message(r#"{"account":"a b","readings":[]}"#), "field `account` of the envelope is wrong"),
        (json_message(r#"{"source_key":7,"body":[]}"#), "field `source_key` of the envelope is wrong"),
        (json_message(vec![b' '; 10_000_000]), "message has 10000000 bytes, at most 8388608"),
    ];
    for (message, reason) in cases {
        let error = decode(&message).expect_err(reason).to_string();
        assert!(error.contains(reason), "{error} does not say {reason}");
    }
}

#[test]
fn a_bad_reading_travels_alone_and_is_bad_for_the_same_reason_again() {
    let mut not_a_number = reading("nan");
    not_a_number.values[0].v = f64::NEG_INFINITY;
    let decoded = decode(&envelope(vec![reading("a"), not_a_number]).encode()).unwrap();
    let again = decode(&decoded.bad_message(&decoded.bad[0])).unwrap();
    assert_eq!(again.bad[0].error.reason, decoded.bad[0].error.reason);
    assert_eq!((again.id, again.account, again.source), (decoded.id, decoded.account, decoded.source));
}

fn any_reading() -> impl Strategy<Value = Reading> {
    let value = (any::<u32>(), any::<f64>()).prop_map(|(p, v)| Measurement { p: ParameterCode(p), v });
    (".{0,40}", prop::collection::vec(value, 0..6), any::<u64>(), any::<i64>())
        .prop_map(|(did, values, sqn, ts)| Reading { did, values, sqn, ts: Timestamp(ts) })
}

proptest! {
    #[test]
    fn values_are_read_to_the_last_bit(bits in prop::collection::vec(any::<u64>(), 1..50)) {
        let values: Vec<Measurement> = bits
            .into_iter()
            .map(f64::from_bits)
            .filter(|v| v.is_finite())
            .map(|v| Measurement { p: ParameterCode(401), v })
            .collect();
        let bits = |values: &[Measurement]| values.iter().map(|m| m.v.to_bits()).collect::<Vec<_>>();
        let sent = Reading { values, ..reading("a") };
        let texts = [
            serde_json::to_string(&sent).unwrap(),
            // As other programs write numbers: with an exponent.
            format!(
                r#"{{"did":"a","values":[{}],"sqn":2152,"ts":"2015-04-21T23:15:00Z"}}"#,
                sent.values.iter().map(|m| format!(r#"{{"p":401,"v":{:e}}}"#, m.v)).collect::<Vec<_>>().join(",")
            ),
        ];
        let mut messages: Vec<Message> = texts.into_iter().map(json_message).collect();
        messages.push(envelope(vec![sent.clone()]).encode());
        for message in messages {
            let decoded = decode(&message).unwrap();
            prop_assert_eq!(decoded.readings.len(), 1, "{:?}", decoded.bad);
            prop_assert_eq!(bits(&decoded.readings[0].1.values), bits(&sent.values));
        }
    }

    #[test]
    fn whatever_is_encoded_is_decoded_each_reading_either_good_and_equal_or_bad(
        readings in prop::collection::vec(any_reading(), 0..20), id in ".{0,20}",
    ) {
        let sent = Envelope { id, ..envelope(readings) };
        let decoded = decode(&sent.encode()).unwrap();
        prop_assert_eq!(&decoded.id, &sent.id);
        prop_assert_eq!(decoded.readings.len() + decoded.bad.len(), sent.readings.len());
        for (index, got) in &decoded.readings {
            prop_assert_eq!(got, &sent.readings[*index]);
        }
        for bad in &decoded.bad {
            let r = &sent.readings[bad.index];
            let keeps_rules = r.values.iter().all(|m| m.v.is_finite())
                && fields::device_id(&r.did, &DecodeLimits::default()).is_ok()
                && fields::sequence_number(r.sqn).is_ok()
                && fields::time(r.ts).is_ok();
            prop_assert!(!keeps_rules, "{}", bad.error.reason);
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic(body in prop::collection::vec(any::<u8>(), 0..300), kind in 0..3) {
        let content_type = ["", CONTENT_TYPE, JSON_CONTENT_TYPE][kind as usize].to_owned();
        let _ = decode(&Message { body: body.clone().into(), content_type: content_type.clone(), id: String::new() });
        let _ = decode(&Message { body: [&[VERSION][..], &body].concat().into(), content_type, id: String::new() });
    }

    #[test]
    fn an_envelope_with_a_byte_changed_never_panics(at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut message = envelope(vec![reading("a"), reading("b")]).encode();
        let mut body = message.body.to_vec();
        let at = at.index(body.len());
        body[at] = byte;
        message.body = body.into();
        let _ = decode(&message);
    }
}
