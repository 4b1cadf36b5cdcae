//! What components in other languages emit on.

use galerna_topology::{Anchor, Data, Output, Outputs};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::form::{Fields, FormError};
use crate::message::DEFAULT_STREAM;

/// The outputs of a component in another language: [`Output<T>`] for the stream `default`, `()` for none, or a struct made by
/// [`shell_outputs!`](crate::shell_outputs!), whose fields are streams by name. All types of tuples are
/// [`Deserialize`](serde::Deserialize).
pub trait ShellOutputs: Outputs {
    /// The streams, each with its fields.
    fn forms() -> Forms;

    /// Reads a tuple of one of the streams.
    ///
    /// # Errors
    /// There is no such stream, or the values are not those of its type.
    fn parse(forms: &Forms, stream: &str, values: Vec<Value>) -> Result<Parsed<Self>, ParseError>;
}

/// The streams of a component, each with its fields.
pub type Forms = Vec<(&'static str, Fields)>;

/// A tuple that was read and can be emitted.
pub type Parsed<O> = Box<dyn FnOnce(&mut O, EmitWith<'_>) + Send>;

/// Why what a child emits cannot be emitted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// The component is not declared with such a stream.
    #[error("it emitted on the stream `{stream}`, and has {known}")]
    NoStream {
        /// The stream that was named.
        stream: String,
        /// Those that there are, in words.
        known: String,
    },
    /// The values do not make a tuple.
    #[error("it emitted what is no tuple of the stream `{stream}`: {error}")]
    NoTuple {
        /// The stream that was named.
        stream: String,
        /// What is wrong.
        error: FormError,
    },
}

/// Reads a tuple of one of these streams.
///
/// # Errors
/// As [`ShellOutputs::parse`].
pub fn parse_tuple<T: DeserializeOwned>(
    forms: &Forms,
    stream: &str,
    values: Vec<Value>,
) -> Result<T, ParseError> {
    let Some((_, fields)) = forms.iter().find(|(name, _)| *name == stream) else {
        return Err(no_stream(forms, stream));
    };
    fields.read(values).map_err(|error| ParseError::NoTuple { stream: stream.to_owned(), error })
}

/// The error of naming a stream that there is not.
pub fn no_stream(forms: &Forms, stream: &str) -> ParseError {
    let names: Vec<_> = forms.iter().map(|(name, _)| format!("`{name}`")).collect();
    let known = if names.is_empty() { "no streams".to_owned() } else { names.join(", ") };
    ParseError::NoStream { stream: stream.to_owned(), known }
}

/// How a tuple is emitted.
#[derive(Debug, Clone, Copy, Default)]
pub struct EmitWith<'a> {
    /// What it is anchored to instead of the tuple or root at hand, if it is.
    pub anchors: Option<&'a [&'a Anchor]>,
    /// The index of the only task that gets it, if one is named.
    pub task: Option<usize>,
}

impl EmitWith<'_> {
    /// Emits it.
    pub fn emit<T: Data>(self, output: &mut Output<T>, tuple: T) {
        match (self.anchors, self.task) {
            (None, None) => output.emit(tuple),
            (None, Some(task)) => output.emit_direct(task, tuple),
            (Some([]), None) => output.emit_unanchored(tuple),
            (Some(anchors), None) => output.emit_anchored(tuple, anchors.iter().copied()),
            (Some(anchors), Some(task)) => {
                output.emit_direct_anchored(task, tuple, anchors.iter().copied());
            }
        }
    }
}

impl ShellOutputs for () {
    fn forms() -> Forms {
        Vec::new()
    }

    fn parse(forms: &Forms, stream: &str, _values: Vec<Value>) -> Result<Parsed<Self>, ParseError> {
        Err(no_stream(forms, stream))
    }
}

impl<T: Data + DeserializeOwned> ShellOutputs for Output<T> {
    fn forms() -> Forms {
        vec![(DEFAULT_STREAM, Fields::of::<T>())]
    }

    fn parse(forms: &Forms, stream: &str, values: Vec<Value>) -> Result<Parsed<Self>, ParseError> {
        let tuple: T = parse_tuple(forms, stream, values)?;
        Ok(Box::new(move |output, with| with.emit(output, tuple)))
    }
}

/// Declares several streams that a component in another language emits on, each with its own type.
///
/// ```
/// use galerna_multilang::{ShellTopology, shell_outputs};
/// use galerna_topology::prelude::*;
///
/// shell_outputs! {
///     /// What `check.py` emits.
///     pub struct Checked {
///         /// Names with their ages.
///         default: (String, u32),
///         /// What was no age, in words.
///         rejected: String,
///     }
/// }
///
/// let mut topology = TopologyBuilder::new("ages");
/// let ages = topology.shell_spout::<Checked>("ages", ["python3", "ages.py"]).outputs();
/// topology.for_each("store", |(name, age): (String, u32)| println!("{name}: {age}")).shuffle(ages.default);
/// topology.for_each("dead", |reason: String| println!("{reason}")).shuffle(ages.rejected);
/// topology.build()?;
/// # Ok::<(), BuildError>(())
/// ```
#[macro_export]
macro_rules! shell_outputs {
    (
        $(#[$meta:meta])*
        $vis:vis struct $name:ident {
            $( $(#[$field_meta:meta])* $field:ident : $type:ty ),+ $(,)?
        }
    ) => {
        $crate::sealed::outputs! {
            $(#[$meta])*
            $vis struct $name { $( $(#[$field_meta])* $field : $type ),+ }
        }

        impl $crate::ShellOutputs for $name {
            fn forms() -> $crate::Forms {
                ::std::vec![ $( (::core::stringify!($field), $crate::Fields::of::<$type>()) ),+ ]
            }

            fn parse(
                forms: &$crate::Forms,
                stream: &str,
                values: ::std::vec::Vec<$crate::sealed::Value>,
            ) -> ::core::result::Result<$crate::Parsed<Self>, $crate::ParseError> {
                $(
                    if stream == ::core::stringify!($field) {
                        let tuple: $type = $crate::parse_tuple(forms, stream, values)?;
                        return ::core::result::Result::Ok(::std::boxed::Box::new(
                            move |outputs: &mut Self, with: $crate::EmitWith<'_>| {
                                with.emit(&mut outputs.$field, tuple);
                            },
                        ));
                    }
                )+
                ::core::result::Result::Err($crate::no_stream(forms, stream))
            }
        }
    };
}
