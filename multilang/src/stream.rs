//! Streams whose tuples may leave the process.

use std::fmt;
use std::sync::Arc;

use galerna_topology::Stream;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::form::Fields;

/// A stream with the names of its tuples' fields: what a component in another language can subscribe to.
pub struct Serialized<T> {
    pub(crate) stream: Stream<T>,
    pub(crate) fields: Fields,
}

impl<T> Serialized<T> {
    /// The names of the fields.
    pub fn fields(&self) -> &Fields {
        &self.fields
    }
}

impl<T> Clone for Serialized<T> {
    fn clone(&self) -> Self {
        Self { stream: self.stream.clone(), fields: self.fields.clone() }
    }
}

impl<T> fmt::Debug for Serialized<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Serialized").field(&self.stream).field(&self.fields).finish()
    }
}

/// Gives streams a form outside of the process.
pub trait SerializedStream<T> {
    /// The stream with a form: each tuple is a list of fields, named as those of the type (see [`Fields::of`]). That takes a type that
    /// is `Serialize` and `Deserialize`.
    fn serialized(&self) -> Serialized<T>
    where
        T: Serialize + DeserializeOwned;

    /// As [`serialized`](Self::serialized), with names of one's own. There are as many as values of a tuple.
    fn serialized_as<N: Into<Arc<str>>>(&self, names: impl IntoIterator<Item = N>) -> Serialized<T>
    where
        T: Serialize;
}

impl<T> SerializedStream<T> for Stream<T> {
    fn serialized(&self) -> Serialized<T>
    where
        T: Serialize + DeserializeOwned,
    {
        Serialized { stream: self.clone(), fields: Fields::of::<T>() }
    }

    fn serialized_as<N: Into<Arc<str>>>(&self, names: impl IntoIterator<Item = N>) -> Serialized<T>
    where
        T: Serialize,
    {
        Serialized { stream: self.clone(), fields: Fields::with_names(names) }
    }
}

/// What a component in another language can subscribe to.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot leave the process: its tuples have no form there",
    label = "not a stream with a form",
    note = "say `.serialized()` of the stream; its tuples' type derives `Serialize` and `Deserialize` then"
)]
pub trait IntoSerialized<T> {
    /// The stream with its form.
    fn into_serialized(self) -> Serialized<T>;
}

impl<T> IntoSerialized<T> for Serialized<T> {
    fn into_serialized(self) -> Self {
        self
    }
}

impl<T> IntoSerialized<T> for &Serialized<T> {
    fn into_serialized(self) -> Serialized<T> {
        self.clone()
    }
}
