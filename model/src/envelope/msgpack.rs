//! The MessagePack form.

use rmp_serde::Deserializer;
use serde::Deserialize;
use serde_json::Value;

use super::tolerant::Tolerant;
use super::{BadEntry, DecodeError, DecodeLimits, Decoded, count, fields, sort};
use crate::{Envelope, Timestamp};

/// Reads what follows the version byte.
pub(super) fn decode(body: &[u8], limits: &DecodeLimits) -> Result<Decoded, DecodeError> {
    match whole::<Envelope>(body, limits) {
        Ok(envelope) => {
            let mut decoded = Decoded {
                id: envelope.id,
                account: Some(envelope.account),
                source: Some(envelope.source),
                received: Some(envelope.received),
                readings: Vec::new(),
                bad: Vec::new(),
            };
            sort(envelope.readings, limits, &mut decoded)?;
            Ok(decoded)
        }
        Err(_) => one_by_one(body, limits),
    }
}

/// Reads one value that fills the whole of `body`.
fn whole<'de, T: Deserialize<'de>>(body: &'de [u8], limits: &DecodeLimits) -> Result<T, String> {
    let mut deserializer = Deserializer::new(std::io::Cursor::new(body));
    deserializer.set_max_depth(limits.depth);
    let value = T::deserialize(&mut deserializer).map_err(|e| e.to_string())?;
    match body.len().saturating_sub(usize::try_from(deserializer.position()).unwrap_or(usize::MAX)) {
        0 => Ok(value),
        rest => Err(format!("{rest} bytes follow its end")),
    }
}

/// Reads each reading alone, after something in the envelope was not of its type.
fn one_by_one(body: &[u8], limits: &DecodeLimits) -> Result<Decoded, DecodeError> {
    let Tolerant(value) = whole(body, limits).map_err(DecodeError::MessagePack)?;
    let Value::Object(mut map) = value else {
        return Err(DecodeError::MessagePack(format!("it holds {}, not a map", fields::kind(&value))));
    };
    let mut take = |field: &'static str| {
        map.remove(field).ok_or(DecodeError::Field { field, problem: "is missing".to_owned() })
    };
    let text = |field: &'static str, value: Value| match value {
        Value::String(text) => Ok(text),
        other => Err(DecodeError::Field { field, problem: format!("is {}, not text", fields::kind(&other)) }),
    };
    let id = text("id", take("id")?)?;
    let account = text("account", take("account")?)?.try_into().map_err(|e: crate::NameError| {
        DecodeError::Field { field: "account", problem: format!("is wrong: {e}") }
    })?;
    let source = text("source", take("source")?)?.try_into().map_err(|e: crate::NameError| {
        DecodeError::Field { field: "source", problem: format!("is wrong: {e}") }
    })?;
    let received = serde_json::from_value::<Timestamp>(take("received")?)
        .map_err(|e| DecodeError::Field { field: "received", problem: format!("is wrong: {e}") })?;
    let list = match take("readings")? {
        Value::Array(list) => list,
        other => {
            let problem = format!("is {}, not an array", fields::kind(&other));
            return Err(DecodeError::Field { field: "readings", problem });
        }
    };
    count(list.len(), limits)?;
    let mut decoded = Decoded {
        id,
        account: Some(account),
        source: Some(source),
        received: Some(received),
        readings: Vec::with_capacity(list.len()),
        bad: Vec::new(),
    };
    for (index, raw) in list.into_iter().enumerate() {
        match fields::reading(&raw, limits, fields::Numbers::Own) {
            Ok(reading) => decoded.readings.push((index, reading)),
            Err(error) => decoded.bad.push(BadEntry { index, error, raw }),
        }
    }
    Ok(decoded)
}
