//! From a body to readings: what can be taken, and why the rest cannot.
//!
//! The usual body, in which every reading is right, is read in one typed pass. When anything in it is not of its type,
//! a second pass takes the readings one by one, and the broker's own decoder says what is wrong with each, so that a reading that
//! is taken here is taken by those who consume it. Neither pass keeps more than a small multiple of the body in memory: the
//! count is checked while reading, and a reading that is checked may not be longer than its limit.

use std::borrow::Cow;
use std::cell::Cell;
use std::fmt;
use std::marker::PhantomData;

use galerna_model::envelope::{check, decode_reading, isolate_bad_values, may_be_in_seconds};
use galerna_model::{DecodeLimits, Reading};
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, SeqAccess, Visitor};
use serde::{Deserialize, de};
use serde_json::value::RawValue;

use crate::answer::Rejected;
use crate::call_error::CallError;
use crate::options::Limits;

/// A body read.
#[derive(Debug, Default)]
pub(crate) struct Parsed {
    /// What can be taken.
    pub(crate) readings: Vec<Reading>,
    /// What cannot, in the order of the body.
    pub(crate) rejected: Vec<Rejected>,
    /// How many entries of the body are in `readings`. The legacy form spreads a reading over several.
    pub(crate) entries: usize,
}

impl Parsed {
    /// Refuses a body in which entries are, and none can be taken.
    pub(crate) fn with_anything(self) -> Result<Self, CallError> {
        if self.entries == 0 && !self.rejected.is_empty() {
            return Err(CallError::NothingValid { rejected: self.rejected });
        }
        Ok(self)
    }
}

/// Reads one reading or an array of readings.
pub(crate) fn readings(body: &[u8], limits: &Limits) -> Result<Parsed, CallError> {
    let body = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
    if let Some(found) = other_form(body) {
        return Err(CallError::Malformed(found.to_owned()));
    }
    let parsed = match body.trim_ascii_start().first() {
        None => return Err(CallError::Empty),
        Some(b'[') => match bounded::<Reading>(body, limits.readings) {
            Ok(list) if list.iter().all(plain) => {
                Parsed { entries: list.len(), readings: list, rejected: Vec::new() }
            }
            Err(Unreadable::TooMany) => return Err(too_many(limits)),
            _ => list(body, limits)?,
        },
        Some(b'{') => single(body, limits)?,
        Some(_) => {
            serde_json::from_slice::<IgnoredAny>(body).map_err(|e| malformed(&e))?;
            let message = "the body is neither an object nor an array at line 1 column 1; send one reading or an array of readings";
            return Err(CallError::Malformed(message.to_owned()));
        }
    };
    parsed.with_anything()
}

/// What a body is that is no JSON in UTF-8, where its beginning tells.
fn other_form(body: &[u8]) -> Option<&'static str> {
    match body {
        [0x1f, 0x8b, ..] => Some("the body is gzip; say so by `content-encoding: gzip`"),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Some("the body is zstd; say so by `content-encoding: zstd`"),
        [0xff, 0xfe, ..]
        | [0xfe, 0xff, ..]
        | [0, b'{' | b'[' | b' ' | b'\t' | b'\r' | b'\n', ..]
        | [b'{' | b'[' | b' ' | b'\t' | b'\r' | b'\n', 0, ..] => Some("the body is UTF-16; send UTF-8"),
        _ => None,
    }
}

/// Whether one object is followed by another, as in NDJSON.
fn is_several(body: &[u8]) -> bool {
    let mut values = serde_json::Deserializer::from_slice(body).into_iter::<IgnoredAny>();
    matches!(values.next(), Some(Ok(_)))
        && matches!(body[values.byte_offset()..].trim_ascii_start(), [b'{', ..] | [b',', ..])
}

/// Reads an array of readings one by one. One value that is no JSON (`NaN`, `.5`) costs its reading alone.
fn list(body: &[u8], limits: &Limits) -> Result<Parsed, CallError> {
    match list_of_raw(body, limits) {
        Ok(list) => Ok(one_by_one(&list, limits)),
        Err(CallError::Malformed(cause)) => match isolate_bad_values(body) {
            Cow::Owned(isolated) => match list_of_raw(&isolated, limits) {
                // Where the syntax is wrong is told of what was sent.
                Err(CallError::Malformed(_)) => Err(CallError::Malformed(cause)),
                list => Ok(one_by_one(&list?, limits)),
            },
            Cow::Borrowed(_) => Err(CallError::Malformed(cause)),
        },
        Err(error) => Err(error),
    }
}

/// Reads one reading, likewise.
fn single(body: &[u8], limits: &Limits) -> Result<Parsed, CallError> {
    let error = match serde_json::from_slice::<&RawValue>(body) {
        Ok(raw) => return Ok(one_by_one(&[raw], limits)),
        Err(error) if is_several(body) => {
            let message =
                format!("the body holds several readings ({error}); send them as an array: [{{…}}, {{…}}]");
            return Err(CallError::Malformed(message));
        }
        Err(error) => malformed(&error),
    };
    match isolate_bad_values(body) {
        Cow::Owned(isolated) => {
            let raw: &RawValue = serde_json::from_slice(&isolated).map_err(|_| error)?;
            Ok(one_by_one(&[raw], limits))
        }
        Cow::Borrowed(_) => Err(error),
    }
}

/// The elements of an array, unread.
pub(crate) fn list_of_raw<'a>(body: &'a [u8], limits: &Limits) -> Result<Vec<&'a RawValue>, CallError> {
    bounded::<&RawValue>(body, limits.readings).map_err(|e| match e {
        Unreadable::TooMany => too_many(limits),
        Unreadable::Json(e) => malformed(&e),
    })
}

/// The parser's words, which end with line and column.
pub(crate) fn malformed(error: &serde_json::Error) -> CallError {
    CallError::Malformed(format!("the body is not what it should be: {error}"))
}

fn too_many(limits: &Limits) -> CallError {
    CallError::TooLarge(format!("the call holds more than {} readings; send it in parts", limits.readings))
}

fn one_by_one(list: &[&RawValue], limits: &Limits) -> Parsed {
    let mut parsed = Parsed::default();
    for (index, raw) in list.iter().enumerate() {
        match element(raw.get(), limits) {
            Ok(reading) => parsed.readings.push(reading),
            Err(reason) => parsed.rejected.push(Rejected { index, reason }),
        }
    }
    parsed.entries = parsed.readings.len();
    parsed
}

fn element(text: &str, limits: &Limits) -> Result<Reading, String> {
    too_long(text, limits)?;
    match serde_json::from_str::<Reading>(text) {
        Ok(reading) if plain(&reading) => Ok(reading),
        _ => decode_reading(text.as_bytes(), &DecodeLimits::default()).map_err(|bad| bad.reason),
    }
}

/// A long entry is not looked into: taking it apart may take many times its length in memory.
pub(crate) fn too_long(text: &str, limits: &Limits) -> Result<(), String> {
    if text.len() > limits.reading_bytes {
        return Err(format!(
            "reading has {} bytes, at most {} are allowed",
            text.len(),
            limits.reading_bytes
        ));
    }
    Ok(())
}

/// Whether a reading breaks none of the decoder's rules for sure. Whatever this is not sure of is read by itself.
fn plain(reading: &Reading) -> bool {
    !may_be_in_seconds(reading.ts) && check(reading, &DecodeLimits::default()).is_ok()
}

enum Unreadable {
    TooMany,
    Json(serde_json::Error),
}

/// Reads an array of at most `limit` elements; nothing is read beyond that.
fn bounded<'de, T: Deserialize<'de>>(body: &'de [u8], limit: usize) -> Result<Vec<T>, Unreadable> {
    let over = Cell::new(false);
    let mut deserializer = serde_json::Deserializer::from_slice(body);
    let list = Bounded { limit, over: &over, of: PhantomData }
        .deserialize(&mut deserializer)
        .and_then(|list| deserializer.end().map(|()| list));
    list.map_err(|e| if over.get() { Unreadable::TooMany } else { Unreadable::Json(e) })
}

struct Bounded<'a, T> {
    limit: usize,
    over: &'a Cell<bool>,
    of: PhantomData<T>,
}

impl<'de, T: Deserialize<'de>> DeserializeSeed<'de> for Bounded<'_, T> {
    type Value = Vec<T>;
    fn deserialize<D: Deserializer<'de>>(self, d: D) -> Result<Vec<T>, D::Error> {
        d.deserialize_seq(self)
    }
}

impl<'de, T: Deserialize<'de>> Visitor<'de> for Bounded<'_, T> {
    type Value = Vec<T>;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of readings")
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Vec<T>, A::Error> {
        let mut list = Vec::new();
        while let Some(element) = seq.next_element()? {
            if list.len() == self.limit {
                self.over.set(true);
                return Err(de::Error::custom("too many"));
            }
            list.push(element);
        }
        Ok(list)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str =
        r#"{"did":"12a","values":[{"p":401,"v":4900.0}],"sqn":2152,"ts":"2015-04-21T23:15:00+00:00"}"#;

    fn limits() -> Limits {
        Limits { readings: 5, reading_bytes: 1_000, ..Limits::default() }
    }

    #[test]
    fn good_readings_are_taken_beside_bad_ones_which_are_told_by_index_and_field() {
        let cases = [
            (r#"{"did":"a"}"#, "values is missing"),
            (r#"{"did":7,"values":[],"sqn":1,"ts":0}"#, "did is a number"),
            (r#"{"did":"","values":[],"sqn":1,"ts":0}"#, "did is empty"),
            (r#"{"did":"a\u0000","values":[],"sqn":1,"ts":0}"#, "control character"),
            (r#"{"did":"a","values":[{"p":401,"v":"x"}],"sqn":1,"ts":0}"#, "values[0].v is text"),
            (r#"{"did":"a","values":[{"p":-1,"v":1}],"sqn":1,"ts":0}"#, "values[0].p is -1"),
            (
                r#"{"did":"a","values":[{"p":1,"v":1e999}],"sqn":1,"ts":0}"#,
                "values[0].v is 1e999, a number out of range",
            ),
            (r#"{"did":"a","values":[{"p":1,"v":1}],"sqn":1e999,"ts":0}"#, "sqn is 1e999"),
            (r#"{"did":"a","values":{},"sqn":1,"ts":0}"#, "values is an object"),
            (r#"{"did":"a","values":[],"sqn":-1,"ts":0}"#, "sqn is -1"),
            (r#"{"did":"a","values":[],"sqn":1,"ts":"yesterday"}"#, "not RFC 3339"),
            (r#"{"did":"a","values":[],"sqn":1,"ts":"2015-04-21T23:15:00"}"#, "has no zone"),
            (r#"{"source_key":"other","body":[]}"#, "did is missing"),
            (r#"{"did":"a","values":[{"p":1,"v":NaN}],"sqn":1,"ts":0}"#, "values[0].v is NaN"),
            (r#"{"did":"a","values":[{"p":1,"v":-nan}],"sqn":1,"ts":0}"#, "values[0].v is NaN"),
            (r#"{"did":"a","values":[{"p":1,"v":.5}],"sqn":1,"ts":0}"#, "values[0].v is `.5`, not a number"),
            (
                r#"{"did":"a","values":[{"p":1,"v":None}],"sqn":1,"ts":0}"#,
                "values[0].v is `None`, not a number",
            ),
            (r#"{"did":"a","values":[{"p":1,"v":}],"sqn":1,"ts":0}"#, "values[0].v is null"),
            (r#"{"did":"a\d","values":[],"sqn":1,"ts":0}"#, "did holds U+FFFD"),
            (r#"{"did":"a","values":[{"p":1,"v":-inf}],"sqn":1,"ts":0}"#, "values[0].v is infinite"),
            (
                r#"{"did":"a","values":[],"sqn":9223372036854775808,"ts":0}"#,
                "sqn is 9223372036854775808, more than",
            ),
            (
                r#"{"did":"a","values":[],"sqn":1,"ts":1764410400}"#,
                "seconds since 1970; send milliseconds (1764410400000)",
            ),
            ("null", "reading is null"),
            ("[]", "reading is an array"),
            ("7", "reading is a number"),
        ];
        for (bad, expected) in cases {
            let parsed = readings(format!("[{GOOD},{bad},{GOOD}]").as_bytes(), &limits()).unwrap();
            assert_eq!((parsed.readings.len(), parsed.entries), (2, 2), "{bad}");
            assert_eq!(parsed.rejected.len(), 1, "{bad}");
            assert_eq!(parsed.rejected[0].index, 1, "{bad}");
            assert!(parsed.rejected[0].reason.contains(expected), "{bad}: {}", parsed.rejected[0].reason);
            // And none beside it: an error that says the same.
            match readings(bad.as_bytes(), &limits()) {
                Err(CallError::NothingValid { rejected }) => {
                    assert!(rejected[0].reason.contains(expected), "{bad}")
                }
                Err(CallError::Malformed(_)) => assert!(matches!(bad, "null" | "7"), "{bad}"),
                Ok(parsed) => assert!(bad == "[]" && parsed.entries == 0, "{bad}"),
                other => panic!("{bad}: {other:?}"),
            }
        }
    }

    #[test]
    fn a_reading_that_is_too_long_is_not_looked_into() {
        let long = format!(r#"{{"did":"a","values":[{}]}}"#, "0,".repeat(1_000) + "0");
        let parsed = readings(format!("[{long},{GOOD}]").as_bytes(), &limits()).unwrap();
        assert_eq!(parsed.entries, 1);
        assert!(parsed.rejected[0].reason.contains("bytes, at most 1000"), "{}", parsed.rejected[0].reason);
    }

    #[test]
    fn what_a_body_is_instead_of_json_is_told() {
        let utf_16 = |little: bool| -> Vec<u8> {
            let units = GOOD.encode_utf16();
            units.flat_map(|unit| if little { unit.to_le_bytes() } else { unit.to_be_bytes() }).collect()
        };
        let several = [format!("{GOOD}{GOOD}"), format!("{GOOD}\n{GOOD}\n"), format!("{GOOD},\r\n{GOOD}")];
        let cases = [
            (b"\x1f\x8b\x08rest".to_vec(), "content-encoding: gzip"),
            (b"\x28\xb5\x2f\xfdrest".to_vec(), "content-encoding: zstd"),
            (utf_16(true), "send UTF-8"),
            (utf_16(false), "send UTF-8"),
            ([&[0xff, 0xfe], &*utf_16(true)].concat(), "send UTF-8"),
        ];
        let several = several.into_iter().map(|body| (body.into_bytes(), "as an array"));
        for (body, part) in cases.into_iter().chain(several) {
            let refused = readings(&body, &limits()).unwrap_err().to_string();
            assert!(refused.contains(part), "{refused}");
        }
    }

    #[test]
    fn malformed_json_is_told_with_line_and_column() {
        for (body, place) in [
            ("{", "line 1 column 1"),
            ("[{]", "line 1 column 3"),
            ("[\n{\"did\":\n oops}]", "line 3 column 2"),
            ("[1,]", "line 1 column 4"),
            ("[] []", "line 1 column 4"),
            ("nope", "line 1 column 2"),
            ("7", "line 1 column 1"),
            ("\"\x01\"", "line 1 column 1"),
        ] {
            match readings(body.as_bytes(), &limits()) {
                Err(CallError::Malformed(text)) => assert!(text.contains(place), "{body:?}: {text}"),
                other => panic!("{body:?}: {other:?}"),
            }
        }
        let cut = &GOOD[..30];
        assert!(matches!(
            readings(format!("[{GOOD},{cut}").as_bytes(), &limits()),
            Err(CallError::Malformed(_))
        ));
        // Bytes that are no text cost the entry that they are in.
        let damaged = readings(b"[\"\xff\xfe\"]", &limits());
        assert!(
            matches!(damaged, Err(CallError::NothingValid { rejected }) if rejected[0].reason == "reading is text, not an object")
        );
    }

    #[test]
    fn empty_bodies_and_too_many_readings_are_refused_and_empty_arrays_are_not() {
        for body in ["", " ", "\r\n\t", "\u{feff}"] {
            assert_eq!(readings(body.as_bytes(), &limits()).unwrap_err(), CallError::Empty, "{body:?}");
        }
        assert_eq!(readings(b"[]", &limits()).unwrap().entries, 0);
        let five = format!("[{}]", [GOOD; 5].join(","));
        assert_eq!(readings(five.as_bytes(), &limits()).unwrap().entries, 5);
        let six = format!("[{}]", [GOOD; 6].join(","));
        assert!(
            matches!(readings(six.as_bytes(), &limits()), Err(CallError::TooLarge(t)) if t.contains("5 readings"))
        );
        let six_bad = format!("[{}]", ["0"; 6].join(","));
        assert!(matches!(readings(six_bad.as_bytes(), &limits()), Err(CallError::TooLarge(_))));
    }

    #[test]
    fn deep_nesting_is_a_bad_reading_or_bad_json_and_no_overflow() {
        let limits = Limits { reading_bytes: 1 << 20, ..Limits::default() };
        let deep = 200_000;
        for body in [
            "[".repeat(deep),
            format!("{}{}", "[".repeat(deep), "]".repeat(deep)),
            format!("{}1{}", r#"{"a":"#.repeat(deep), "}".repeat(deep)),
            format!(r#"[{{"did":"a","values":{}{}}},{GOOD}]"#, "[".repeat(deep), "]".repeat(deep)),
        ] {
            match readings(body.as_bytes(), &limits) {
                Ok(parsed) => assert_eq!((parsed.entries, parsed.rejected.len()), (1, 1)),
                Err(CallError::NothingValid { .. } | CallError::Malformed(_)) => {}
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn what_is_plain_is_taken_by_the_decoder() {
        let body = include_bytes!("../../examples/data/thesis_messages.json");
        let parsed = readings(body, &Limits::default()).unwrap();
        assert_eq!((parsed.entries, parsed.rejected.len()), (28, 0));
        assert_eq!(parsed.readings.iter().map(|r| r.values.len()).sum::<usize>(), 126);
        for reading in parsed.readings {
            assert!(plain(&reading));
            let text = serde_json::to_string(&reading).unwrap();
            assert_eq!(decode_reading(text.as_bytes(), &DecodeLimits::default()).unwrap(), reading);
        }
    }
}
