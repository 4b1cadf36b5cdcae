//! The messages and their frames.

use std::sync::Arc;

use galerna_multilang::{
    Decoder, Emit, Fields, FormError, Frames, FromChild, Handshake, Id, LogLevel, SpoutCommand, ToChild,
    TupleMessage, WireError, to_values,
};
use proptest::collection::vec;
use proptest::prelude::*;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

const LIMIT: usize = 1 << 20;

fn any_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_filter("JSON has no others", |number| number.is_finite()).prop_map(Value::from),
        any_text().prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(Value::from),
            vec((any_text(), inner), 0..4).prop_map(|entries| Value::Object(entries.into_iter().collect())),
        ]
    })
}

/// Also with what ends messages.
fn any_text() -> impl Strategy<Value = String> {
    prop_oneof![
        ".{0,12}",
        Just("a\nend\nb".to_owned()),
        Just("end".to_owned()),
        Just("\u{2028}\r\n".to_owned())
    ]
}

fn any_id() -> impl Strategy<Value = Id> {
    prop_oneof![any_text().prop_map(Id::Text), any::<i64>().prop_map(|number| Id::Number(number.into())),]
}

fn any_map() -> impl Strategy<Value = Map<String, Value>> {
    vec((any_text(), any_value()), 0..4).prop_map(|entries| entries.into_iter().collect())
}

fn to_child() -> impl Strategy<Value = ToChild> {
    let tuple =
        (any_id(), proptest::option::of(any_text()), any_text(), any::<i64>(), vec(any_value(), 0..5));
    prop_oneof![
        (any_text(), any_map(), any_map())
            .prop_map(|(pid_dir, conf, context)| ToChild::Handshake(Handshake { pid_dir, conf, context })),
        tuple.prop_map(|(id, component, stream, task, values)| {
            let (component, stream) = (component.map(Arc::from), stream.into());
            ToChild::Tuple(TupleMessage { id, component, stream, task, values })
        }),
        vec(any::<i64>(), 0..5).prop_map(ToChild::TaskIds),
        any_id().prop_map(|id| ToChild::Command(SpoutCommand::Ack(id))),
        any_id().prop_map(|id| ToChild::Command(SpoutCommand::Fail(id))),
        Just(ToChild::Command(SpoutCommand::Next)),
        Just(ToChild::Command(SpoutCommand::Activate)),
        Just(ToChild::Command(SpoutCommand::Deactivate)),
    ]
}

fn from_child() -> impl Strategy<Value = FromChild> {
    let emit = (
        vec(any_value(), 0..5),
        proptest::option::of(any_id()),
        proptest::option::of(any_text()),
        proptest::option::of(1..i64::MAX),
        vec(any_id(), 0..4),
        any::<bool>(),
    );
    let level = proptest::sample::select(vec![
        LogLevel::Trace,
        LogLevel::Debug,
        LogLevel::Info,
        LogLevel::Warn,
        LogLevel::Error,
    ]);
    prop_oneof![
        // The frames that a child asks for come into force with this message, so there is none here that does.
        any::<i64>().prop_map(|pid| FromChild::Pid { pid, frames: None }),
        emit.prop_map(|(values, id, stream, task, anchors, need_task_ids)| {
            FromChild::Emit(Emit { values, id, stream, task, anchors, need_task_ids })
        }),
        any_id().prop_map(FromChild::Ack),
        any_id().prop_map(FromChild::Fail),
        (any_text(), level).prop_map(|(text, level)| FromChild::Log { text, level }),
        any_text().prop_map(FromChild::Error),
        (any_text(), any_value()).prop_map(|(name, value)| FromChild::Metric { name, value }),
        Just(FromChild::Sync),
        Just(FromChild::Unknown("dance".to_owned())),
    ]
}

/// Reads what comes in pieces of these lengths, over and over.
fn read_in_pieces<M: DeserializeOwned>(
    frames: Frames,
    bytes: &[u8],
    pieces: &[usize],
) -> Result<Vec<M>, WireError> {
    let mut decoder = Decoder::new(frames, LIMIT);
    let (mut messages, mut rest, mut lengths) = (Vec::new(), bytes, pieces.iter().cycle());
    while !rest.is_empty() {
        let (piece, after) = rest.split_at(rest.len().min(*lengths.next().unwrap_or(&1)));
        decoder.feed(piece);
        rest = after;
        while let Some(message) = decoder.next_message()? {
            messages.push(message);
        }
    }
    decoder.finish()?;
    Ok(messages)
}

fn goes_through<M>(frames: Frames, groups: &[Vec<M>], pieces: &[usize]) -> Result<(), TestCaseError>
where
    M: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug + Clone,
{
    let mut bytes = Vec::new();
    for group in groups {
        frames.encode(group, &mut bytes).expect("all messages have a form");
    }
    let read: Vec<M> = read_in_pieces(frames, &bytes, pieces).expect("it is what was written");
    prop_assert_eq!(read, groups.concat());
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn messages_to_children_come_out_as_they_went_in(
        groups in vec(vec(to_child(), 0..4), 0..4),
        pieces in vec(1usize..40, 1..5),
    ) {
        goes_through(Frames::Json, &groups, &pieces)?;
        goes_through(Frames::MessagePack, &groups, &pieces)?;
    }

    #[test]
    fn messages_from_children_come_out_as_they_went_in(
        groups in vec(vec(from_child(), 0..4), 0..4),
        pieces in vec(1usize..40, 1..5),
    ) {
        goes_through(Frames::Json, &groups, &pieces)?;
        goes_through(Frames::MessagePack, &groups, &pieces)?;
    }

    #[test]
    fn whatever_comes_is_read_or_refused(bytes in vec(any::<u8>(), 0..200), pieces in vec(1usize..40, 1..5)) {
        for frames in Frames::ALL {
            let _ = read_in_pieces::<FromChild>(frames, &bytes, &pieces);
            let _ = read_in_pieces::<ToChild>(frames, &bytes, &pieces);
        }
    }

    #[test]
    fn a_stream_that_is_cut_off_anywhere_loses_no_message_before(
        messages in vec(from_child(), 1..4),
        cut in any::<prop::sample::Index>(),
    ) {
        for frames in Frames::ALL {
            let (mut bytes, mut ends) = (Vec::new(), Vec::new());
            for message in &messages {
                frames.encode(std::slice::from_ref(message), &mut bytes).expect("all messages have a form");
                ends.push(bytes.len());
            }
            let cut = cut.index(bytes.len());
            let mut decoder = Decoder::<FromChild>::new(frames, LIMIT);
            decoder.feed(&bytes[..cut]);
            let mut read = Vec::new();
            while let Some(message) = decoder.next_message().expect("it is what was written") {
                read.push(message);
            }
            let whole = ends.iter().filter(|end| **end <= cut).count();
            prop_assert_eq!(&read[..], &messages[..whole]);
            let between = cut == 0 || ends.contains(&cut);
            prop_assert_eq!(decoder.finish().is_ok(), between);
        }
    }
}

fn read_json(text: &str) -> Result<Vec<FromChild>, WireError> {
    read_in_pieces(Frames::Json, text.as_bytes(), &[usize::MAX])
}

#[test]
fn what_children_write_in_their_own_ways_is_read() {
    let emit = |emit| vec![FromChild::Emit(emit)];
    let asks = Emit { values: vec![json!(1)], need_task_ids: true, ..Emit::default() };
    for (text, expected) in [
        // Storm's default is to be asked for the tasks.
        (r#"{"command":"emit","tuple":[1]}"#, emit(asks.clone())),
        (r#"{"command":"emit","tuple":[1],"task":0,"stream":null,"id":null}"#, emit(asks.clone())),
        (
            r#"{"command":"emit","tuple":[1],"anchors":"5","need_task_ids":false,"colour":"red"}"#,
            emit(Emit { anchors: vec![Id::from("5")], need_task_ids: false, ..asks.clone() }),
        ),
        (r#"{"command":"emit","tuple":[1],"anchors":[5,"6"],"id":{"no":"id"}}"#, vec![]),
        (r#"{"command":"ack","id":-7}"#, vec![FromChild::Ack(Id::Number((-7).into()))]),
        (
            r#"{"command":"log","msg":"x"}"#,
            vec![FromChild::Log { text: "x".to_owned(), level: LogLevel::Info }],
        ),
        (
            r#"{"command":"log","msg":{"a":1},"level":"WARNING"}"#,
            vec![FromChild::Log { text: r#"{"a":1}"#.to_owned(), level: LogLevel::Warn }],
        ),
        (
            r#"{"command":"log","msg":"x","level":99}"#,
            vec![FromChild::Log { text: "x".to_owned(), level: LogLevel::Info }],
        ),
        ("{\n  \"command\":\n\n\"sync\"\n}", vec![FromChild::Sync]),
        (
            "\n\r\n{\"command\":\"sync\"}\r\nend\r\n\n{\"pid\":7,\"more\":[]}",
            vec![FromChild::Sync, FromChild::Pid { pid: 7, frames: None }],
        ),
        (
            r#"{"pid":7,"frames":"msgpack"}"#,
            vec![FromChild::Pid { pid: 7, frames: Some(Frames::MessagePack) }],
        ),
    ] {
        let read = read_json(&format!("{text}\nend\n"));
        if expected.is_empty() {
            assert!(matches!(read, Err(WireError::Malformed { .. })), "{text}: {read:?}");
        } else {
            assert_eq!(read, Ok(expected), "{text}");
        }
    }
}

#[test]
fn what_is_printed_is_told_as_soon_as_its_line_is_there() {
    let mut decoder = Decoder::<FromChild>::new(Frames::Json, LIMIT);
    decoder.feed(b"{\"command\":\"sync\"}\nend\nDownloading 3 %\r\n");
    assert_eq!(decoder.next_message(), Ok(Some(FromChild::Sync)));
    assert_eq!(decoder.next_message(), Err(WireError::NoMessage("Downloading 3 %".to_owned())));
    assert_eq!(read_json("end\n"), Err(WireError::NoMessage("end".to_owned())));
    assert!(matches!(read_json("no line"), Err(WireError::NoMessage(_))));
}

#[test]
fn messages_that_are_too_long_are_not_kept() {
    for frames in Frames::ALL {
        let mut decoder = Decoder::<FromChild>::new(frames, 1000);
        let mut fed = 0;
        let error = loop {
            let piece: &[u8] = if frames == Frames::Json { b"{\"a\":" } else { &[0x7f; 5] };
            decoder.feed(piece);
            fed += piece.len();
            match decoder.next_message() {
                Ok(None) => assert!(fed < 2000, "{frames:?}"),
                other => break other,
            }
        };
        assert_eq!(error, Err(WireError::TooLong { limit: 1000 }));
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Word {
    word: String,
    #[serde(rename = "n")]
    count: u64,
    inner: Option<Inner>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Inner {
    kind: Kind,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
enum Kind {
    Plain,
    With(f32),
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Wrapped(Word);

fn names<T: DeserializeOwned>() -> String {
    let fields = Fields::of::<T>();
    let names: Vec<&str> = fields.names().iter().map(|name| &**name).collect();
    names.join(" ")
}

/// A tuple, the names of its fields, and its values.
fn has_form<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(
    tuple: T,
    named: &str,
    values: Value,
) {
    assert_eq!(names::<T>(), named);
    let written = to_values(&tuple).expect("it has a form");
    assert_eq!(Value::from(written.clone()), values);
    assert_eq!(Fields::of::<T>().read::<T>(written), Ok(tuple));
}

#[test]
fn tuples_are_lists_of_named_fields() {
    let word = Word { word: "é".to_owned(), count: u64::MAX, inner: Some(Inner { kind: Kind::With(0.1) }) };
    let listed = json!(["é", u64::MAX, { "kind": { "With": 0.1 } }]);
    has_form(Wrapped(word.clone()), "word n inner", listed.clone());
    has_form(word, "word n inner", listed);
    has_form(("a".to_owned(), 1.5, vec![1, 2]), "field0 field1 field2", json!(["a", 1.5, [1, 2]]));
    has_form("alone".to_owned(), "value", json!(["alone"]));
    has_form(vec![1, 2], "value", json!([[1, 2]]));
    has_form(Some(3), "value", json!([3]));
    has_form(None::<u8>, "value", json!([null]));
    has_form(Kind::Plain, "value", json!(["Plain"]));
    has_form((), "", json!([]));
    has_form(std::collections::BTreeMap::from([(7, "x".to_owned())]), "value", json!([{ "7": "x" }]));
}

#[test]
fn what_has_no_form_is_refused_with_the_reason() {
    for (refused, reason) in [
        (to_values(&(1, f64::INFINITY)), "inf is no number"),
        (to_values(&vec![f32::NAN]), "NaN is no number"),
        (to_values(&u128::MAX), "more than 64 bits"),
        (to_values(&std::collections::BTreeMap::from([((1, 2), 3)])), "keys are texts"),
    ] {
        let error = refused.expect_err("it has no form").to_string();
        assert!(error.contains(reason), "{error}");
    }
    let count = Fields::of::<Word>().read::<Word>(vec![json!("a")]);
    assert_eq!(count, Err(FormError::Count { expected: "word, n, inner".to_owned(), found: 1 }));
    let wrong = Fields::of::<Word>().read::<Word>(vec![json!("a"), json!(-1), json!(null)]);
    assert!(matches!(wrong, Err(FormError::Values(_))), "{wrong:?}");
}
