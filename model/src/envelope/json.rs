//! The JSON forms.

use std::borrow::Cow;
use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::de::{DeserializeSeed, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::fields::Numbers;
use super::repair::isolate_bad_values;
use super::{BadEntry, DecodeError, DecodeLimits, Decoded, count, fields, sort};
use crate::{AccountId, BadReading, Reading, RejectCode, SourceId, Timestamp};

/// Reads any of the JSON forms.
pub(super) fn decode(body: &[u8], id: &str, limits: &DecodeLimits) -> Result<Decoded, DecodeError> {
    match document(body, id, limits) {
        // One value that is no JSON must not spoil the whole message.
        Err(DecodeError::Json(cause)) => match isolate_bad_values(body) {
            Cow::Owned(isolated) => document(&isolated, id, limits).map_err(|error| match error {
                // Where the syntax is wrong is told of what was sent.
                DecodeError::Json(_) => DecodeError::Json(cause),
                other => other,
            }),
            Cow::Borrowed(_) => Err(DecodeError::Json(cause)),
        },
        other => other,
    }
}

/// What a post may have around its readings.
#[derive(Deserialize)]
struct Post<'a> {
    #[serde(borrow)]
    readings: Option<&'a RawValue>,
    #[serde(borrow)]
    body: Option<&'a RawValue>,
    #[serde(borrow)]
    id: Option<&'a RawValue>,
    #[serde(borrow)]
    account: Option<&'a RawValue>,
    #[serde(borrow)]
    source: Option<&'a RawValue>,
    #[serde(borrow)]
    source_key: Option<&'a RawValue>,
    #[serde(borrow)]
    received: Option<&'a RawValue>,
}

fn document(body: &[u8], id: &str, limits: &DecodeLimits) -> Result<Decoded, DecodeError> {
    let mut decoded = Decoded {
        id: id.to_owned(),
        account: None,
        source: None,
        received: None,
        readings: Vec::new(),
        bad: Vec::new(),
    };
    let syntax = |e: serde_json::Error| DecodeError::Json(e.to_string());
    match body.trim_ascii_start().first() {
        Some(b'{') => {
            // By far the most common document is one sound reading.
            if let Ok(reading) = serde_json::from_slice::<Reading>(body)
                && !fields::is_in_seconds(reading.ts.as_millis())
            {
                sort(vec![reading], limits, &mut decoded)?;
                return Ok(decoded);
            }
            let post: Post<'_> = serde_json::from_slice(body).map_err(syntax)?;
            match post.readings.or(post.body) {
                Some(readings) => {
                    head(&post, &mut decoded)?;
                    list(readings.get().as_bytes(), limits, &mut decoded)?;
                }
                None => entry(body, 0, limits, &mut decoded),
            }
        }
        Some(b'[') => list(body, limits, &mut decoded)?,
        Some(_) | None => {
            // Whatever else it is, the parser says it best when it is broken.
            let value: Value = serde_json::from_slice(body).map_err(syntax)?;
            return Err(DecodeError::Json(format!(
                "it is {}, not a reading nor an array",
                fields::kind(&value)
            )));
        }
    }
    Ok(decoded)
}

fn head(post: &Post<'_>, decoded: &mut Decoded) -> Result<(), DecodeError> {
    fn take<T: for<'a> Deserialize<'a>>(
        field: &'static str,
        raw: Option<&RawValue>,
    ) -> Result<Option<T>, DecodeError> {
        raw.map(|raw| serde_json::from_str(raw.get()))
            .transpose()
            .map_err(|e| DecodeError::Field { field, problem: format!("is wrong: {e}") })
    }
    if let Some(id) = take::<String>("id", post.id)? {
        decoded.id = id;
    }
    decoded.account = take::<AccountId>("account", post.account)?;
    decoded.source = match take::<SourceId>("source", post.source)? {
        Some(source) => Some(source),
        None => take::<SourceId>("source_key", post.source_key)?,
    };
    decoded.received = take::<Timestamp>("received", post.received)?;
    Ok(())
}

/// Reads an array of readings, or the one reading that stands in its place.
fn list(body: &[u8], limits: &DecodeLimits, decoded: &mut Decoded) -> Result<(), DecodeError> {
    if body.trim_ascii_start().first() != Some(&b'[') {
        entry(body, 0, limits, decoded);
        return Ok(());
    }
    if let Ok(readings) = serde_json::from_slice::<Vec<Reading>>(body)
        && !readings.iter().any(|reading| fields::is_in_seconds(reading.ts.as_millis()))
    {
        return sort(readings, limits, decoded);
    }
    let raw: Vec<&RawValue> = serde_json::from_slice(body).map_err(|e| DecodeError::Json(e.to_string()))?;
    count(raw.len(), limits)?;
    for (index, raw) in raw.into_iter().enumerate() {
        entry(raw.get().as_bytes(), index, limits, decoded);
    }
    Ok(())
}

/// Reads one reading by itself: whatever is wrong in it stays in it.
fn entry(text: &[u8], index: usize, limits: &DecodeLimits, decoded: &mut Decoded) {
    match single(text, limits) {
        Ok(reading) => decoded.readings.push((index, reading)),
        Err((error, raw)) => decoded.bad.push(BadEntry { index, error, raw }),
    }
}

/// Reads one reading field by field; when it is bad, it comes back as it was.
pub(super) fn single(text: &[u8], limits: &DecodeLimits) -> Result<Reading, (BadReading, Value)> {
    if let Some(name) = doubled_field(text) {
        // As text it keeps both.
        let raw = Value::String(String::from_utf8_lossy(text).into_owned());
        return Err((BadReading::new(RejectCode::Malformed, name, "is there twice"), raw));
    }
    // The syntax is right; a number may be out of range, or the nesting too deep.
    let raw = match serde_json::from_slice::<Value>(text).or_else(|e| apart(text).ok_or(e)) {
        Ok(raw) => raw,
        Err(e) => {
            let raw = Value::String(String::from_utf8_lossy(text).into_owned());
            let problem = format!("cannot be read: {e}");
            return Err((BadReading::new(RejectCode::Malformed, "reading", problem), raw));
        }
    };
    fields::reading(&raw, limits, Numbers::OfOthers).map_err(|error| (error, raw))
}

/// A field of a reading or of one of its values that is there twice: whichever is taken, the other one would be lost.
fn doubled_field(text: &[u8]) -> Option<String> {
    let found = Cell::new(None);
    let mut deserializer = serde_json::Deserializer::from_slice(text);
    // What cannot be read is found by what reads it.
    let _ = Doubled { found: &found, at: "" }.deserialize(&mut deserializer);
    found.take()
}

/// Looks for fields that are there twice.
struct Doubled<'a> {
    found: &'a Cell<Option<String>>,
    /// Where it looks.
    at: &'a str,
}

impl<'de> DeserializeSeed<'de> for Doubled<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Doubled<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("anything")
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        let mut index = 0;
        loop {
            let at = format!("{}[{index}].", self.at.trim_end_matches('.'));
            if list.next_element_seed(Doubled { found: self.found, at: &at })?.is_none() {
                return Ok(());
            }
            index += 1;
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<(), A::Error> {
        let mut seen = BTreeSet::new();
        while let Some(name) = fields.next_key::<String>()? {
            let at = format!("{}{name}", self.at);
            fields.next_value_seed(Doubled { found: self.found, at: &format!("{at}.") })?;
            let ours = matches!(&*name, "did" | "values" | "sqn" | "ts" | "p" | "v");
            if ours && !seen.insert(name) {
                self.found.set(Some(at));
            }
        }
        Ok(())
    }
}

/// Reads a reading part by part, so that a number out of range, which the parser refuses without saying where it is, becomes
/// its text in the field that has it. Nothing when it is no such number that keeps the reading from being read.
fn apart(text: &[u8]) -> Option<Value> {
    type Parts<'a> = BTreeMap<String, &'a RawValue>;
    let part = |raw: &RawValue| match serde_json::from_str::<Value>(raw.get()) {
        Ok(value) => Some(value),
        Err(_) => fields::is_out_of_range(raw.get()).then(|| raw.get().into()),
    };
    let object = |parts: Parts<'_>| -> Option<Map<String, Value>> {
        parts.into_iter().map(|(name, raw)| Some((name, part(raw)?))).collect()
    };
    let mut parts: Parts<'_> = serde_json::from_slice(text).ok()?;
    // A device id that is a number must not become text, which is what it should be.
    if parts.get("did").is_some_and(|did| fields::is_out_of_range(did.get())) {
        return None;
    }
    let values = parts.remove("values").map(|values| -> Option<Value> {
        let Ok(list) = serde_json::from_str::<Vec<&RawValue>>(values.get()) else { return part(values) };
        let list = list.into_iter().map(|value| match serde_json::from_str::<Parts<'_>>(value.get()) {
            Ok(measurement) => object(measurement).map(Value::Object),
            Err(_) => part(value),
        });
        list.collect::<Option<Vec<Value>>>().map(Value::Array)
    });
    let mut reading = object(parts)?;
    if let Some(values) = values {
        reading.insert("values".to_owned(), values?);
    }
    Some(Value::Object(reading))
}
