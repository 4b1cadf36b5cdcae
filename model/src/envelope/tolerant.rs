//! Values of any shape, kept in JSON's model however they came, so that a bad reading can be validated and shown.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use crate::Reading;

/// A value of any type. Numbers that JSON cannot hold become the strings `NaN`, `Infinity` and `-Infinity`; bytes become
/// text; keys that are not text become text.
pub(super) struct Tolerant(pub(super) Value);

fn number(v: f64) -> Value {
    Number::from_f64(v).map_or_else(
        || {
            Value::from(if v.is_nan() {
                "NaN"
            } else if v > 0.0 {
                "Infinity"
            } else {
                "-Infinity"
            })
        },
        Value::Number,
    )
}

/// A reading in JSON's model.
pub(super) fn from_reading(reading: &Reading) -> Value {
    let values: Vec<Value> = reading
        .values
        .iter()
        .map(|m| {
            Value::Object(Map::from_iter([("p".to_owned(), m.p.0.into()), ("v".to_owned(), number(m.v))]))
        })
        .collect();
    serde_json::json!({"did": reading.did, "values": values, "sqn": reading.sqn, "ts": time(reading)})
}

fn time(reading: &Reading) -> Value {
    // A time that no calendar reaches has no text; its milliseconds are accepted as well.
    match jiff::Timestamp::from_millisecond(reading.ts.as_millis()) {
        Ok(t) => t.to_string().into(),
        Err(_) => reading.ts.as_millis().into(),
    }
}

impl<'de> Deserialize<'de> for Tolerant {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct Any;
        impl<'de> Visitor<'de> for Any {
            type Value = Value;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("any value")
            }
            fn visit_bool<E>(self, v: bool) -> Result<Value, E> {
                Ok(v.into())
            }
            fn visit_i64<E>(self, v: i64) -> Result<Value, E> {
                Ok(v.into())
            }
            fn visit_u64<E>(self, v: u64) -> Result<Value, E> {
                Ok(v.into())
            }
            fn visit_f64<E>(self, v: f64) -> Result<Value, E> {
                Ok(number(v))
            }
            fn visit_str<E>(self, v: &str) -> Result<Value, E> {
                Ok(v.into())
            }
            fn visit_bytes<E>(self, v: &[u8]) -> Result<Value, E> {
                Ok(String::from_utf8_lossy(v).into())
            }
            fn visit_unit<E>(self) -> Result<Value, E> {
                Ok(Value::Null)
            }
            fn visit_none<E>(self) -> Result<Value, E> {
                Ok(Value::Null)
            }
            fn visit_some<D: Deserializer<'de>>(self, d: D) -> Result<Value, D::Error> {
                d.deserialize_any(self)
            }
            fn visit_newtype_struct<D: Deserializer<'de>>(self, d: D) -> Result<Value, D::Error> {
                d.deserialize_any(self)
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
                let mut list = Vec::new();
                while let Some(Tolerant(v)) = seq.next_element()? {
                    list.push(v);
                }
                Ok(Value::Array(list))
            }
            fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
                let mut map = Map::new();
                while let Some((Tolerant(key), Tolerant(value))) = entries.next_entry()? {
                    let key = match key {
                        Value::String(text) => text,
                        other => other.to_string(),
                    };
                    map.insert(key, value);
                }
                Ok(Value::Object(map))
            }
        }
        d.deserialize_any(Any).map(Tolerant)
    }
}
