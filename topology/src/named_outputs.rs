//! Several outputs by name: the macro that declares them, and the two sides that it makes.

use std::marker::PhantomData;

use crate::outputs::{Data, Output};
use crate::stream::Stream;

/// The two sides of a set of outputs: what a running component emits on, and what wiring subscribes to.
pub trait FieldKind: 'static {
    /// What an output of type `T` is on this side.
    type Of<T: Data>;
}

/// The running side: [`Output<T>`].
#[derive(Debug, Clone, Copy)]
pub struct AsOutputs(PhantomData<()>);

/// The wiring side: [`Stream<T>`].
#[derive(Debug, Clone, Copy)]
pub struct AsStreams(PhantomData<()>);

impl FieldKind for AsOutputs {
    type Of<T: Data> = Output<T>;
}

impl FieldKind for AsStreams {
    type Of<T: Data> = Stream<T>;
}

/// Declares several named outputs, each with its own type. The struct may have type parameters, which stand for what can be a
/// tuple: `struct Sorted<T> { odd: T, even: T }`.
///
/// ```
/// use galerna_topology::prelude::*;
///
/// outputs! {
///     /// What comes out of the check.
///     pub struct Checked {
///         /// Readings in range.
///         valid: f64,
///         /// The others, in words.
///         rejected: String,
///     }
/// }
///
/// struct Check;
/// impl Bolt for Check {
///     type Input = f64;
///     type Outputs = Checked;
///
///     fn execute(&mut self, value: f64, out: &mut Emitter<Checked>) -> Result<(), Fault> {
///         if value.is_finite() {
///             out.valid.emit(value);
///         } else {
///             out.rejected.emit(format!("{value} is out of range"));
///         }
///         Ok(())
///     }
/// }
///
/// let mut topology = TopologyBuilder::new("checks");
/// let values = topology.spout("values", || Values).outputs();
/// let checked = topology.bolt("check", || Check).shuffle(values).outputs();
/// topology.for_each("store", |value: f64| println!("{value}")).shuffle(checked.valid);
/// topology.for_each("dead", |reason: String| println!("{reason}")).shuffle(checked.rejected);
/// topology.build()?;
/// # struct Values;
/// # impl Spout for Values {
/// #     type MessageId = u64;
/// #     type Outputs = Output<f64>;
/// #     async fn next(&mut self, _out: &mut Roots<'_, Self>) -> Result<Next, Fault> { Ok(Next::Done) }
/// # }
/// # Ok::<(), BuildError>(())
/// ```
#[macro_export]
macro_rules! outputs {
    (
        $(#[$meta:meta])*
        $vis:vis struct $name:ident $(< $($of:ident),+ $(,)? >)? {
            $( $(#[$field_meta:meta])* $field:ident : $type:ty ),+ $(,)?
        }
    ) => {
        $(#[$meta])*
        $vis struct $name<$($($of: $crate::Data,)+)? S: $crate::FieldKind = $crate::AsOutputs> {
            $( $(#[$field_meta])* $vis $field: S::Of<$type>, )+
        }

        impl $(<$($of: $crate::Data),+>)? $crate::sealed::OutputSet for $name $(<$($of),+>)? {
            type Streams = $name<$($($of,)+)? $crate::AsStreams>;

            fn streams(source: &$crate::sealed::StreamSource) -> Self::Streams {
                $name { $( $field: source.stream(::core::stringify!($field)), )+ }
            }
            fn describe(into: &mut ::std::vec::Vec<$crate::sealed::StreamSpec>) {
                $( into.push($crate::sealed::StreamSpec::of::<$type>(::core::stringify!($field))); )+
            }
            fn open(seed: u64) -> Self {
                let mut at = 0u64;
                $name { $( $field: {
                    at += 1;
                    <$crate::Output<$type> as $crate::sealed::OutputSet>::open(seed.wrapping_add(at << 56))
                }, )+ }
            }
            fn attach(
                &mut self,
                stream: usize,
                route: ::std::boxed::Box<dyn ::core::any::Any + ::core::marker::Send>,
            ) {
                let mut at = 0usize;
                let mut route = ::core::option::Option::Some(route);
                $(
                    if at == stream && let ::core::option::Option::Some(route) = route.take() {
                        $crate::sealed::OutputSet::attach(&mut self.$field, 0, route);
                    }
                    at += 1;
                )+
                let _ = at;
            }
            #[inline]
            fn unsealed(&self) -> usize {
                0 $( + $crate::sealed::OutputSet::unsealed(&self.$field) )+
            }
            #[inline]
            fn has_own_tokens(&self) -> bool {
                false $( || $crate::sealed::OutputSet::has_own_tokens(&self.$field) )+
            }
            #[inline]
            fn seal(&mut self, splitter: &mut $crate::sealed::TokenSplitter<'_>) {
                $( $crate::sealed::OutputSet::seal(&mut self.$field, splitter); )+
            }
            fn discard(&mut self) {
                $( $crate::sealed::OutputSet::discard(&mut self.$field); )+
            }
            fn hand_over(&mut self, to: &mut Self) {
                $( $crate::sealed::OutputSet::hand_over(&mut self.$field, &mut to.$field); )+
            }
            fn route(&mut self, flush: bool, into: &mut $crate::sealed::Staged) {
                $( $crate::sealed::OutputSet::route(&mut self.$field, flush, into); )+
            }
            fn signal(&mut self, signal: $crate::sealed::Signal, into: &mut $crate::sealed::Staged) {
                $( $crate::sealed::OutputSet::signal(&mut self.$field, signal, into); )+
            }
        }
    };
}
