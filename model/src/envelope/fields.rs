//! The rules of a reading's fields, and how a reading is taken field by field when its types are in doubt.

use serde_json::{Map, Value};

use super::DecodeLimits;
use crate::{
    BadReading, Measurement, ParameterCode, Reading, RejectCode, Timestamp, first_invisible_but_spaces,
};

type Checked<T = ()> = Result<T, BadReading>;

fn malformed(field: impl Into<String>, problem: impl std::fmt::Display) -> BadReading {
    BadReading::new(RejectCode::Malformed, field, problem)
}

pub(crate) fn device_id(did: &str, limits: &DecodeLimits) -> Checked {
    let bad = |problem: &str| Err(BadReading::new(RejectCode::Device, "did", problem));
    if did.is_empty() {
        return bad("is empty");
    }
    // Bytes bound characters from above, so that the usual short id costs no count.
    if did.len() > limits.device_id_chars {
        let chars = did.chars().count();
        if chars > limits.device_id_chars {
            return bad(&format!("has {chars} characters, at most {} are allowed", limits.device_id_chars));
        }
    }
    if did == "." || did == ".." {
        return bad("means a folder");
    }
    match first_invisible_but_spaces(did) {
        None if did.bytes().all(|byte| byte == b' ') => bad("is blank"),
        None => Ok(()),
        // What stands where bytes were that are no text: two damaged ids could be one.
        Some(char::REPLACEMENT_CHARACTER) => {
            bad("holds U+FFFD, which stands for bytes or escapes that could not be read; send UTF-8")
        }
        Some(c) if c.is_control() => bad("holds a control character"),
        Some(c) => bad(&format!("holds U+{:04X}, which nobody sees", u32::from(c))),
    }
}

pub(super) fn value_count(count: usize, limits: &DecodeLimits) -> Checked {
    if count > limits.values {
        let problem = format!("has {count} entries, at most {} are allowed", limits.values);
        return Err(BadReading::new(RejectCode::TooManyValues, "values", problem));
    }
    Ok(())
}

pub(crate) fn finite(index: usize, v: f64) -> Checked {
    if v.is_finite() {
        return Ok(());
    }
    let problem = if v.is_nan() { "is NaN" } else { "is infinite" };
    Err(BadReading::new(RejectCode::NotANumber, format!("values[{index}].v"), problem))
}

/// Stores keep signed numbers; above them the order of two could not be told any more.
pub(super) fn sequence_number(sqn: u64) -> Checked {
    match i64::try_from(sqn) {
        Ok(_) => Ok(()),
        Err(_) => Err(malformed("sqn", format!("is {sqn}, more than {}", i64::MAX))),
    }
}

pub(super) fn time(ts: Timestamp) -> Checked {
    jiff::Timestamp::from_millisecond(ts.as_millis()).map(drop).map_err(|_| {
        BadReading::new(
            RejectCode::BadTime,
            "ts",
            format!("is {} ms, which no calendar reaches", ts.as_millis()),
        )
    })
}

/// Whether a number of a time is one of seconds: as milliseconds it would be of 1970 to 1973, as seconds it is of later.
pub(super) fn is_in_seconds(number: i64) -> bool {
    (100_000_000..100_000_000_000).contains(&number)
}

/// Takes a reading field by field; the error is the first fault found, with its field.
pub(super) fn reading(raw: &Value, limits: &DecodeLimits, numbers: Numbers) -> Checked<Reading> {
    let Value::Object(map) = raw else {
        return Err(malformed("reading", format!("is {}, not an object", kind(raw))));
    };
    let did = match field(map, "did")? {
        Value::String(did) => did,
        other => return Err(malformed("did", format!("is {}, not text", kind(other)))),
    };
    device_id(did, limits)?;
    let list = match field(map, "values")? {
        Value::Array(list) => list,
        other => return Err(malformed("values", format!("is {}, not an array", kind(other)))),
    };
    value_count(list.len(), limits)?;
    let values = list.iter().enumerate().map(|(i, m)| measurement(i, m)).collect::<Result<_, _>>()?;
    let sqn = field(map, "sqn")?;
    let sqn = sqn
        .as_u64()
        .ok_or_else(|| malformed("sqn", format!("is {}, not a whole number from 0", shown(sqn))))?;
    sequence_number(sqn)?;
    let bad_time = |problem: String| BadReading::new(RejectCode::BadTime, "ts", problem);
    let ts = match field(map, "ts")? {
        Value::String(text) => Timestamp::parse(text).map_err(|problem| bad_time(format!(": {problem}")))?,
        number => {
            let millis = number.as_i64().ok_or_else(|| {
                bad_time(format!("is {}, not RFC 3339 text nor milliseconds", shown(number)))
            })?;
            if numbers == Numbers::OfOthers && is_in_seconds(millis) {
                return Err(bad_time(format!(
                    "is {millis}, which is seconds since 1970; send milliseconds ({millis}000) or RFC 3339 text"
                )));
            }
            Timestamp(millis)
        }
    };
    time(ts)?;
    Ok(Reading { did: did.clone(), values, sqn, ts })
}

/// Whose numbers of times are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Numbers {
    /// Those that this program wrote: milliseconds.
    Own,
    /// Those of other publishers, who may mean seconds.
    OfOthers,
}

fn measurement(i: usize, raw: &Value) -> Checked<Measurement> {
    let Value::Object(map) = raw else {
        return Err(malformed(format!("values[{i}]"), format!("is {}, not an object", kind(raw))));
    };
    let at = |name: &str| map.get(name).ok_or_else(|| malformed(format!("values[{i}].{name}"), "is missing"));
    let p = at("p")?;
    let p = p.as_u64().and_then(|p| u32::try_from(p).ok()).ok_or_else(|| {
        malformed(format!("values[{i}].p"), format!("is {}, not a parameter code", shown(p)))
    })?;
    let name = || format!("values[{i}].v");
    let too_large = |shown: &str| {
        BadReading::new(RejectCode::OutOfRange, name(), format!("is {shown}, a number out of range"))
    };
    let v = match at("v")? {
        Value::Number(n) => n.as_f64().ok_or_else(|| too_large(&n.to_string()))?,
        Value::String(s) if s == "NaN" => f64::NAN,
        Value::String(s) if s == "Infinity" || s == "-Infinity" => f64::INFINITY,
        Value::String(s) if is_out_of_range(s) => return Err(too_large(&number(s))),
        other => return Err(malformed(name(), format!("is {}, not a number", shown(other)))),
    };
    finite(i, v)?;
    Ok(Measurement { p: ParameterCode(p), v })
}

fn field<'a>(map: &'a Map<String, Value>, name: &str) -> Checked<&'a Value> {
    map.get(name).ok_or_else(|| malformed(name, "is missing"))
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

/// Whether a text was written for a number, and is none that JSON has.
fn is_like_a_number(text: &str) -> bool {
    let unknown = ["none", "null", "nil", "undefined", "na", "n/a", "true", "false"];
    (text.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '-' | '+' | '.'))
        || unknown.iter().any(|word| text.eq_ignore_ascii_case(word)))
        && serde_json::from_str::<Value>(text).is_err()
}

/// Numbers, and what was written for one, as they are, anything else by its kind: reasons stay short.
fn shown(value: &Value) -> String {
    match value {
        Value::Number(n) => n.to_string(),
        Value::String(text) if is_out_of_range(text) => number(text),
        Value::String(text) if is_like_a_number(text) => format!("`{}`", number(text)),
        other => kind(other).to_owned(),
    }
}
