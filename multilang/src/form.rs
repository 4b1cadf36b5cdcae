//! The form of tuples outside of the process: a list of named fields, in order.
//!
//! A struct is the list of its fields, a tuple (also a struct of that kind) that of its elements, and anything else one field.

use std::sync::Arc;

use serde::de::value::Error as ProbeError;
use serde::de::{self, DeserializeOwned, Deserializer, Visitor};
use serde_json::Value;

/// The names of the fields of a stream, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fields {
    names: Arc<[Arc<str>]>,
    shape: Shape,
}

/// How a type and a list of values correspond.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    /// Value by value.
    List,
    /// The type is the only value.
    Single,
    /// There are no values.
    Unit,
}

impl Fields {
    /// Those of a type: the names of a struct's fields, `field0`, `field1` and so on of a tuple's elements, and `value` of anything else.
    pub fn of<T: DeserializeOwned>() -> Self {
        let mut found = None;
        // It always fails: it is asked only what it expects.
        let _ = T::deserialize(Probe { found: &mut found });
        match found {
            Some(Found::Struct(names)) => {
                Self { names: names.iter().map(|name| Arc::from(*name)).collect(), shape: Shape::List }
            }
            Some(Found::Tuple(len)) => {
                Self { names: (0..len).map(|at| format!("field{at}").into()).collect(), shape: Shape::List }
            }
            Some(Found::Unit) => Self { names: Arc::new([]), shape: Shape::Unit },
            None => Self { names: Arc::new(["value".into()]), shape: Shape::Single },
        }
    }

    /// With these names, for a stream that only leaves the process.
    pub(crate) fn with_names<N: Into<Arc<str>>>(names: impl IntoIterator<Item = N>) -> Self {
        Self { names: names.into_iter().map(Into::into).collect(), shape: Shape::List }
    }

    /// The names.
    pub fn names(&self) -> &[Arc<str>] {
        &self.names
    }

    /// Makes a tuple of a list of values.
    ///
    /// # Errors
    /// What is wrong with which value, in words.
    pub fn read<T: DeserializeOwned>(&self, mut values: Vec<Value>) -> Result<T, FormError> {
        if values.len() != self.names.len() {
            return Err(FormError::Count { expected: self.list(), found: values.len() });
        }
        let value = match self.shape {
            Shape::List => Value::Array(values),
            Shape::Single => values.pop().unwrap_or_default(),
            Shape::Unit => Value::Null,
        };
        T::deserialize(value).map_err(|error| FormError::Values(error.to_string()))
    }

    fn list(&self) -> String {
        self.names.join(", ")
    }
}

/// Why values and a tuple's type do not correspond.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FormError {
    /// There are more or fewer than fields.
    #[error("it has {found} values, and the fields of the stream are `{expected}`")]
    Count {
        /// The names of the fields.
        expected: String,
        /// How many values there are.
        found: usize,
    },
    /// A value is not of its field's type.
    #[error("its values are not those of the stream's type: {0}")]
    Values(String),
    /// A tuple holds what has no form in JSON.
    #[error("it has no form outside of the process: {0}")]
    NoForm(String),
}

/// What a type says it is.
enum Found {
    Struct(&'static [&'static str]),
    Tuple(usize),
    Unit,
}

/// Learns what a type expects.
struct Probe<'a> {
    found: &'a mut Option<Found>,
}

fn asked() -> ProbeError {
    de::Error::custom("only asked")
}

impl<'de> Deserializer<'de> for Probe<'_> {
    type Error = ProbeError;

    fn deserialize_any<V: Visitor<'de>>(self, _visitor: V) -> Result<V::Value, ProbeError> {
        Err(asked())
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        _visitor: V,
    ) -> Result<V::Value, ProbeError> {
        *self.found = Some(Found::Struct(fields));
        Err(asked())
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, len: usize, _visitor: V) -> Result<V::Value, ProbeError> {
        *self.found = Some(Found::Tuple(len));
        Err(asked())
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        len: usize,
        _visitor: V,
    ) -> Result<V::Value, ProbeError> {
        *self.found = Some(Found::Tuple(len));
        Err(asked())
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, ProbeError> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_unit<V: Visitor<'de>>(self, _visitor: V) -> Result<V::Value, ProbeError> {
        *self.found = Some(Found::Unit);
        Err(asked())
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, ProbeError> {
        self.deserialize_unit(visitor)
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option seq map enum
        identifier ignored_any
    }
}
