//! Tuples as lists of values.

use std::fmt;

use serde::ser::{self, Serialize, Serializer};
use serde_json::{Map, Value};

use crate::form::FormError;

/// A tuple as a list of values. Made of whatever is [`Serialize`], by [`From`].
#[derive(Clone)]
pub struct Row {
    values: Result<Vec<Value>, FormError>,
}

impl Row {
    /// The values.
    ///
    /// # Errors
    /// If the tuple has no such form.
    pub fn into_values(self) -> Result<Vec<Value>, FormError> {
        self.values
    }
}

impl fmt::Debug for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Row").field(&self.values).finish()
    }
}

impl<T: Serialize> From<T> for Row {
    fn from(tuple: T) -> Self {
        Self { values: to_values(&tuple) }
    }
}

/// The values of a tuple.
///
/// # Errors
/// What it holds has no form in JSON: a number that is not finite, an integer of more than 64 bits, a map whose keys are no texts.
pub fn to_values<T: Serialize + ?Sized>(tuple: &T) -> Result<Vec<Value>, FormError> {
    match tuple.serialize(ValueSerializer { is_tuple: true }) {
        Ok(Written::Fields(values)) => Ok(values),
        Ok(Written::Value(value)) => Ok(vec![value]),
        Err(error) => Err(FormError::NoForm(error.0)),
    }
}

/// Why a value cannot be written.
#[derive(Debug)]
struct WriteError(String);

impl fmt::Display for WriteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for WriteError {}

impl ser::Error for WriteError {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self(message.to_string())
    }
}

/// What comes of a tuple or of a value in it.
enum Written {
    Fields(Vec<Value>),
    Value(Value),
}

/// Makes values. Unlike `serde_json`'s, it refuses numbers that are not finite, which would read `null` elsewhere, and makes of a
/// struct or tuple at the top the list of its fields.
struct ValueSerializer {
    is_tuple: bool,
}

fn value<T: Serialize + ?Sized>(of: &T) -> Result<Value, WriteError> {
    Ok(match of.serialize(ValueSerializer { is_tuple: false })? {
        Written::Value(value) => value,
        Written::Fields(values) => Value::Array(values),
    })
}

fn finite(number: f64) -> Result<Written, WriteError> {
    match serde_json::Number::from_f64(number) {
        Some(number) => Ok(Written::Value(Value::Number(number))),
        None => Err(WriteError(format!("{number} is no number in JSON"))),
    }
}

macro_rules! plain {
    ($($method:ident: $type:ty),+ $(,)?) => {
        $(fn $method(self, plain: $type) -> Result<Written, WriteError> {
            Ok(Written::Value(Value::from(plain)))
        })+
    };
}

impl Serializer for ValueSerializer {
    type Ok = Written;
    type Error = WriteError;
    type SerializeSeq = Elements;
    type SerializeTuple = Elements;
    type SerializeTupleStruct = Elements;
    type SerializeTupleVariant = Elements;
    type SerializeMap = Entries;
    type SerializeStruct = Entries;
    type SerializeStructVariant = Entries;

    plain! {
        serialize_bool: bool, serialize_i8: i8, serialize_i16: i16, serialize_i32: i32, serialize_i64: i64,
        serialize_u8: u8, serialize_u16: u16, serialize_u32: u32, serialize_u64: u64, serialize_str: &str,
    }

    fn serialize_i128(self, number: i128) -> Result<Written, WriteError> {
        match i64::try_from(number) {
            Ok(number) => self.serialize_i64(number),
            Err(_) if number > 0 => self.serialize_u128(number.unsigned_abs()),
            Err(_) => Err(WriteError(format!("{number} has more than 64 bits"))),
        }
    }

    fn serialize_u128(self, number: u128) -> Result<Written, WriteError> {
        let small = u64::try_from(number);
        self.serialize_u64(small.map_err(|_| WriteError(format!("{number} has more than 64 bits")))?)
    }

    fn serialize_f32(self, number: f32) -> Result<Written, WriteError> {
        // By its shortest digits: 0.1 stays 0.1.
        let digits = number.to_string().parse().unwrap_or(f64::from(number));
        finite(digits)
    }

    fn serialize_f64(self, number: f64) -> Result<Written, WriteError> {
        finite(number)
    }

    fn serialize_char(self, letter: char) -> Result<Written, WriteError> {
        Ok(Written::Value(Value::String(letter.into())))
    }

    fn serialize_bytes(self, bytes: &[u8]) -> Result<Written, WriteError> {
        Ok(Written::Value(Value::from(bytes)))
    }

    fn serialize_none(self) -> Result<Written, WriteError> {
        Ok(Written::Value(Value::Null))
    }

    fn serialize_some<T: Serialize + ?Sized>(self, some: &T) -> Result<Written, WriteError> {
        value(some).map(Written::Value)
    }

    fn serialize_unit(self) -> Result<Written, WriteError> {
        Ok(if self.is_tuple { Written::Fields(Vec::new()) } else { Written::Value(Value::Null) })
    }

    fn serialize_unit_struct(self, _name: &'static str) -> Result<Written, WriteError> {
        self.serialize_unit()
    }

    fn serialize_unit_variant(
        self,
        _name: &'static str,
        _index: u32,
        variant: &'static str,
    ) -> Result<Written, WriteError> {
        self.serialize_str(variant)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _name: &'static str,
        inner: &T,
    ) -> Result<Written, WriteError> {
        inner.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _name: &'static str,
        _index: u32,
        variant: &'static str,
        inner: &T,
    ) -> Result<Written, WriteError> {
        Ok(wrapped(variant, value(inner)?))
    }

    fn serialize_seq(self, _len: Option<usize>) -> Result<Elements, WriteError> {
        Ok(Elements { values: Vec::new(), end: End::Value })
    }

    fn serialize_tuple(self, len: usize) -> Result<Elements, WriteError> {
        let end = if self.is_tuple { End::Fields } else { End::Value };
        Ok(Elements { values: Vec::with_capacity(len), end })
    }

    fn serialize_tuple_struct(self, _name: &'static str, len: usize) -> Result<Elements, WriteError> {
        self.serialize_tuple(len)
    }

    fn serialize_tuple_variant(
        self,
        _name: &'static str,
        _index: u32,
        variant: &'static str,
        len: usize,
    ) -> Result<Elements, WriteError> {
        Ok(Elements { values: Vec::with_capacity(len), end: End::Variant(variant) })
    }

    fn serialize_map(self, _len: Option<usize>) -> Result<Entries, WriteError> {
        Ok(Entries::Map { map: Map::new(), key: String::new(), end: End::Value })
    }

    fn serialize_struct(self, _name: &'static str, len: usize) -> Result<Entries, WriteError> {
        Ok(if self.is_tuple {
            Entries::Fields(Vec::with_capacity(len))
        } else {
            Entries::Map { map: Map::new(), key: String::new(), end: End::Value }
        })
    }

    fn serialize_struct_variant(
        self,
        _name: &'static str,
        _index: u32,
        variant: &'static str,
        _len: usize,
    ) -> Result<Entries, WriteError> {
        Ok(Entries::Map { map: Map::new(), key: String::new(), end: End::Variant(variant) })
    }
}

fn wrapped(variant: &'static str, inner: Value) -> Written {
    Written::Value(Value::Object(Map::from_iter([(variant.to_owned(), inner)])))
}

/// What a compound is in the end.
enum End {
    Fields,
    Value,
    Variant(&'static str),
}

/// A list that is being made.
struct Elements {
    values: Vec<Value>,
    end: End,
}

impl Elements {
    fn push<T: Serialize + ?Sized>(&mut self, element: &T) -> Result<(), WriteError> {
        self.values.push(value(element)?);
        Ok(())
    }

    fn finish(self) -> Written {
        match self.end {
            End::Fields => Written::Fields(self.values),
            End::Value => Written::Value(Value::Array(self.values)),
            End::Variant(variant) => wrapped(variant, Value::Array(self.values)),
        }
    }
}

macro_rules! elements {
    ($($compound:ident: $push:ident),+ $(,)?) => {
        $(impl ser::$compound for Elements {
            type Ok = Written;
            type Error = WriteError;

            fn $push<T: Serialize + ?Sized>(&mut self, element: &T) -> Result<(), WriteError> {
                self.push(element)
            }

            fn end(self) -> Result<Written, WriteError> {
                Ok(self.finish())
            }
        })+
    };
}

elements! {
    SerializeSeq: serialize_element, SerializeTuple: serialize_element, SerializeTupleStruct: serialize_field,
    SerializeTupleVariant: serialize_field,
}

/// A struct or map that is being made.
enum Entries {
    Fields(Vec<Value>),
    Map { map: Map<String, Value>, key: String, end: End },
}

impl Entries {
    fn finish(self) -> Written {
        match self {
            Self::Fields(values) => Written::Fields(values),
            Self::Map { map, end: End::Variant(variant), .. } => wrapped(variant, Value::Object(map)),
            Self::Map { map, .. } => Written::Value(Value::Object(map)),
        }
    }

    fn field<T: Serialize + ?Sized>(&mut self, name: &'static str, field: &T) -> Result<(), WriteError> {
        let field = value(field)?;
        match self {
            Self::Fields(values) => values.push(field),
            Self::Map { map, .. } => drop(map.insert(name.to_owned(), field)),
        }
        Ok(())
    }
}

impl ser::SerializeMap for Entries {
    type Ok = Written;
    type Error = WriteError;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, of: &T) -> Result<(), WriteError> {
        let text = match value(of)? {
            Value::String(text) => text,
            Value::Number(number) => number.to_string(),
            Value::Bool(flag) => flag.to_string(),
            other => return Err(WriteError(format!("a map with the key {other}: keys are texts in JSON"))),
        };
        if let Self::Map { key, .. } = self {
            *key = text;
        }
        Ok(())
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, of: &T) -> Result<(), WriteError> {
        let entry = value(of)?;
        if let Self::Map { map, key, .. } = self {
            map.insert(std::mem::take(key), entry);
        }
        Ok(())
    }

    fn end(self) -> Result<Written, WriteError> {
        Ok(self.finish())
    }
}

impl ser::SerializeStruct for Entries {
    type Ok = Written;
    type Error = WriteError;

    fn serialize_field<T: Serialize + ?Sized>(
        &mut self,
        name: &'static str,
        field: &T,
    ) -> Result<(), WriteError> {
        self.field(name, field)
    }

    fn end(self) -> Result<Written, WriteError> {
        Ok(self.finish())
    }
}

impl ser::SerializeStructVariant for Entries {
    type Ok = Written;
    type Error = WriteError;

    fn serialize_field<T: Serialize + ?Sized>(
        &mut self,
        name: &'static str,
        field: &T,
    ) -> Result<(), WriteError> {
        self.field(name, field)
    }

    fn end(self) -> Result<Written, WriteError> {
        Ok(self.finish())
    }
}
