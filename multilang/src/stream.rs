//! Streams whose tuples may leave the process.

use std::fmt;
use std::sync::Arc;

use galerna_topology::{Data, Stream};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::edge::Edge;
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

    /// Says which fields make the key of a subscription by fields, for where the topology runs in parts of Storm's, which knows keys
    /// by their names: `.fields(words.serialized().keyed_by(["word"]), |word| &word.word)`.
    #[must_use]
    pub fn keyed_by<N: Into<Arc<str>>>(mut self, names: impl IntoIterator<Item = N>) -> Self {
        let edge = self.stream.form().and_then(Edge::from_form).cloned();
        if let Some(mut edge) = edge {
            edge.keys = names.into_iter().map(Into::into).collect();
            self.stream = self.stream.with_form(Arc::new(edge));
        }
        self
    }
}

/// Any bolt can subscribe to it as to the stream itself; the subscription can leave the process then.
impl<T> From<Serialized<T>> for Stream<T> {
    fn from(serialized: Serialized<T>) -> Self {
        serialized.stream
    }
}

impl<T> From<&Serialized<T>> for Stream<T> {
    fn from(serialized: &Serialized<T>) -> Self {
        serialized.stream.clone()
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
        T: Data + Serialize + DeserializeOwned;

    /// As [`serialized`](Self::serialized), with names of one's own, for components in other languages. There are as many as values of
    /// a tuple.
    fn serialized_as<N: Into<Arc<str>>>(&self, names: impl IntoIterator<Item = N>) -> Serialized<T>
    where
        T: Serialize;
}

impl<T> SerializedStream<T> for Stream<T> {
    fn serialized(&self) -> Serialized<T>
    where
        T: Data + Serialize + DeserializeOwned,
    {
        let fields = Fields::of::<T>();
        let edge = Edge::of::<T>(fields.clone());
        Serialized { stream: self.clone().with_form(Arc::new(edge)), fields }
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
