//! The rules of a reading's fields, and how a reading is taken field by field when its types are in doubt.

use serde_json::{Map, Value};

use super::DecodeLimits;
use crate::{Measurement, ParameterCode, Reading, Timestamp};

pub(super) fn device_id(did: &str, limits: &DecodeLimits) -> Result<(), String> {
    if did.is_empty() {
        return Err("did is empty".to_owned());
    }
    // Bytes bound characters from above, so that the usual short id costs no count.
    if did.len() > limits.device_id_chars {
        let chars = did.chars().count();
        if chars > limits.device_id_chars {
            return Err(format!(
                "did has {chars} characters, at most {} are allowed",
                limits.device_id_chars
            ));
        }
    }
    if did.chars().any(char::is_control) {
        return Err("did holds a control character".to_owned());
    }
    Ok(())
}

pub(super) fn value_count(count: usize, limits: &DecodeLimits) -> Result<(), String> {
    if count > limits.values {
        return Err(format!("values has {count} entries, at most {} are allowed", limits.values));
    }
    Ok(())
}

pub(super) fn finite(index: usize, v: f64) -> Result<(), String> {
    if v.is_nan() {
        Err(format!("values[{index}].v is NaN"))
    } else if v.is_infinite() {
        Err(format!("values[{index}].v is infinite"))
    } else {
        Ok(())
    }
}

/// Stores keep signed numbers; above them the order of two could not be told any more.
pub(super) fn sequence_number(sqn: u64) -> Result<(), String> {
    match i64::try_from(sqn) {
        Ok(_) => Ok(()),
        Err(_) => Err(format!("sqn is {sqn}, more than {}", i64::MAX)),
    }
}

pub(super) fn time(ts: Timestamp) -> Result<(), String> {
    jiff::Timestamp::from_millisecond(ts.as_millis())
        .map(drop)
        .map_err(|_| format!("ts is {} ms, which no calendar reaches", ts.as_millis()))
}

/// Takes a reading field by field; the error is the first fault found, with its field.
pub(super) fn reading(raw: &Value, limits: &DecodeLimits) -> Result<Reading, String> {
    let Value::Object(map) = raw else {
        return Err(format!("reading is {}, not an object", kind(raw)));
    };
    let did = match field(map, "did")? {
        Value::String(did) => did,
        other => return Err(format!("did is {}, not text", kind(other))),
    };
    device_id(did, limits)?;
    let list = match field(map, "values")? {
        Value::Array(list) => list,
        other => return Err(format!("values is {}, not an array", kind(other))),
    };
    value_count(list.len(), limits)?;
    let values = list.iter().enumerate().map(|(i, m)| measurement(i, m)).collect::<Result<_, _>>()?;
    let sqn = field(map, "sqn")?;
    let sqn = sqn.as_u64().ok_or_else(|| format!("sqn is {}, not a whole number from 0", shown(sqn)))?;
    sequence_number(sqn)?;
    let ts = match field(map, "ts")? {
        Value::String(text) => Timestamp::parse(text).map_err(|problem| format!("ts: {problem}"))?,
        number => Timestamp(
            number
                .as_i64()
                .ok_or_else(|| format!("ts is {}, not RFC 3339 text nor milliseconds", shown(number)))?,
        ),
    };
    time(ts)?;
    Ok(Reading { did: did.clone(), values, sqn, ts })
}

fn measurement(i: usize, raw: &Value) -> Result<Measurement, String> {
    let Value::Object(map) = raw else {
        return Err(format!("values[{i}] is {}, not an object", kind(raw)));
    };
    let at = |name: &str| map.get(name).ok_or_else(|| format!("values[{i}].{name} is missing"));
    let p = at("p")?;
    let p = p
        .as_u64()
        .and_then(|p| u32::try_from(p).ok())
        .ok_or_else(|| format!("values[{i}].p is {}, not a parameter code", shown(p)))?;
    let v = match at("v")? {
        Value::Number(n) => n.as_f64().ok_or_else(|| format!("values[{i}].v is {n}, too large a number"))?,
        Value::String(s) if s == "NaN" => f64::NAN,
        Value::String(s) if s == "Infinity" || s == "-Infinity" => f64::INFINITY,
        Value::String(s) if is_out_of_range(s) => {
            return Err(format!("values[{i}].v is {}, a number out of range", number(s)));
        }
        other => return Err(format!("values[{i}].v is {}, not a number", kind(other))),
    };
    finite(i, v)?;
    Ok(Measurement { p: ParameterCode(p), v })
}

fn field<'a>(map: &'a Map<String, Value>, name: &str) -> Result<&'a Value, String> {
    map.get(name).ok_or_else(|| format!("{name} is missing"))
}

/// What a value is, for people.
pub(super) fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        // One out of range is kept as its text.
        Value::String(text) if is_out_of_range(text) => "a number",
        Value::String(_) => "text",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

/// Whether a text is a number beyond those that 64 bits of floating point have.
pub(super) fn is_out_of_range(text: &str) -> bool {
    text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E'))
        && text.parse::<f64>().is_ok_and(f64::is_infinite)
}

/// A number's text; long ones are cut.
fn number(text: &str) -> String {
    const LONGEST: usize = 30;
    if text.chars().count() <= LONGEST {
        return text.to_owned();
    }
    text.chars().take(LONGEST).chain(['…']).collect()
}

/// Numbers as they are, anything else by its kind: reasons stay short.
fn shown(value: &Value) -> String {
    match value {
        Value::Number(n) => n.to_string(),
        Value::String(text) if is_out_of_range(text) => number(text),
        other => kind(other).to_owned(),
    }
}
