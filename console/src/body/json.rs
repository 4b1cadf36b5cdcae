//! JSON values read with an error that tells by its kind whether it names the field that is wrong, as `serde_json`'s does not.

use std::fmt::Display;

use serde::de::value::{MapAccessDeserializer, MapDeserializer, SeqDeserializer};
use serde::de::{self, Deserializer, IntoDeserializer, Visitor};
use serde::forward_to_deserialize_any;
use serde_json::Value;

/// Why a value cannot be read as what it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum ReadError {
    /// A field is missing.
    #[error("missing field `{0}`")]
    Missing(&'static str),
    /// There is a field that is not known, or a second time.
    #[error("{0}")]
    Field(String),
    /// A value is of another kind or out of range.
    #[error("{0}")]
    Value(String),
}

impl ReadError {
    /// Whether it says itself which field is wrong.
    pub(super) fn names_field(&self) -> bool {
        !matches!(self, Self::Value(_))
    }
}

impl de::Error for ReadError {
    fn custom<T: Display>(message: T) -> Self {
        Self::Value(message.to_string())
    }

    fn missing_field(field: &'static str) -> Self {
        Self::Missing(field)
    }

    fn unknown_field(field: &str, expected: &'static [&'static str]) -> Self {
        Self::Field(serde::de::value::Error::unknown_field(field, expected).to_string())
    }

    fn duplicate_field(field: &'static str) -> Self {
        Self::Field(format!("duplicate field `{field}`"))
    }
}

/// A value to read from.
#[derive(Debug, Clone, Copy)]
pub(super) struct Json<'a>(pub(super) &'a Value);

impl<'de> IntoDeserializer<'de, ReadError> for Json<'de> {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

impl<'de> Json<'de> {
    fn fields(fields: &'de serde_json::Map<String, Value>) -> impl Iterator<Item = (&'de str, Json<'de>)> {
        fields.iter().map(|(name, value)| (name.as_str(), Json(value)))
    }
}

impl<'de> Deserializer<'de> for Json<'de> {
    type Error = ReadError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        match self.0 {
            Value::Null => visitor.visit_unit(),
            Value::Bool(value) => visitor.visit_bool(*value),
            Value::Number(number) => match (number.as_u64(), number.as_i64()) {
                (Some(value), _) => visitor.visit_u64(value),
                (None, Some(value)) => visitor.visit_i64(value),
                (None, None) => visitor.visit_f64(number.as_f64().unwrap_or(f64::NAN)),
            },
            Value::String(text) => visitor.visit_borrowed_str(text),
            Value::Array(items) => {
                let mut items = SeqDeserializer::new(items.iter().map(Json));
                let value = visitor.visit_seq(&mut items)?;
                items.end()?;
                Ok(value)
            }
            Value::Object(fields) => {
                let mut fields = MapDeserializer::new(Self::fields(fields));
                let value = visitor.visit_map(&mut fields)?;
                fields.end()?;
                Ok(value)
            }
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        match self.0 {
            Value::Null => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, ReadError> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ReadError> {
        match self.0 {
            Value::String(variant) => visitor.visit_enum(variant.as_str().into_deserializer()),
            Value::Object(fields) if fields.len() == 1 => {
                visitor.visit_enum(MapAccessDeserializer::new(MapDeserializer::new(Self::fields(fields))))
            }
            _ => Err(de::Error::custom(
                "expected the name of a variant, or an object of one field named as it",
            )),
        }
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct seq tuple
        tuple_struct map struct identifier ignored_any
    }
}
