//! The outputs of a component: named, each with its own type.

use std::any::Any;
use std::fmt;
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::anchor::Anchor;
use crate::lineage::{Holding, Lineage, RootId, Shares};
use crate::runtime::{Direct, Route, Shipments};
use crate::stream::{Stream, StreamSource, StreamSpec};

/// What a tuple must be: cloned when a stream has several subscribers, and sent between tasks.
pub trait Data: Clone + Send + 'static {}
impl<T: Clone + Send + 'static> Data for T {}

/// One output of a running component: what is emitted here goes to all subscribers of the stream.
///
/// While a bolt executes a tuple, [`emit`](Self::emit) anchors to that tuple. In `tick`, `progress` and
/// `close` there is no such tuple and `emit` is unanchored.
pub struct Output<T> {
    values: Vec<T>,
    lineage: Lineage,
    // How many of `values` have their holding in `lineage`.
    sealed: usize,
    // Rows beyond `sealed` that bring their own holding: (row, holding).
    special: Vec<(usize, Holding)>,
    direct: Vec<Direct>,
    shares: Shares,
    routes: Vec<Box<dyn Route<T>>>,
}

impl<T: Data> Output<T> {
    /// Emits a tuple, anchored to the tuple being executed.
    #[inline]
    pub fn emit(&mut self, value: T) {
        self.values.push(value);
    }

    /// Emits a tuple that no root waits for.
    pub fn emit_unanchored(&mut self, value: T) {
        self.special.push((self.values.len(), Holding::Untracked));
        self.values.push(value);
    }

    /// Emits a tuple anchored to these kept tuples and to nothing else: their trees are joined, and each
    /// root waits for it. The same anchor twice is legal and means once.
    pub fn emit_anchored<'a>(&mut self, value: T, anchors: impl IntoIterator<Item = &'a Anchor>) {
        let mut holding = Holding::Untracked;
        for anchor in anchors {
            holding = holding.join(anchor.divide(&mut self.shares));
        }
        self.special.push((self.values.len(), holding));
        self.values.push(value);
    }

    /// Emits a tuple to one task, by its index, of each bolt that subscribed to this stream by direct
    /// grouping; others do not see it. Anchored to the tuple being executed.
    pub fn emit_direct(&mut self, task: usize, value: T) {
        self.direct.push(Direct { row: self.values.len(), task });
        self.values.push(value);
    }

    /// Rows staged here. Used by the batch operations.
    pub(crate) fn len(&self) -> usize {
        self.values.len()
    }

    pub(crate) fn extend(&mut self, values: impl Iterator<Item = T>) {
        self.values.extend(values);
    }

    pub(crate) fn adopt(&mut self, holding: Holding) {
        self.lineage.push(holding);
        self.sealed += 1;
    }

    pub(crate) fn adopt_all(&mut self, lineage: &mut Lineage, rows: usize) {
        self.lineage.append(lineage);
        self.sealed += rows;
    }
}

impl<T> fmt::Debug for Output<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Output").field("staged", &self.values.len()).finish_non_exhaustive()
    }
}

/// So few rows are not worth a batch while there is more input: they wait until it runs dry.
const HOLD: usize = 64;

/// Gives the emitted tuples of one input their parts of its holding.
#[doc(hidden)]
pub struct Division<'a> {
    rest: Holding,
    left: usize,
    shares: &'a mut Shares,
}

impl<'a> Division<'a> {
    pub(crate) fn new(rest: Holding, parts: usize, shares: &'a mut Shares) -> Self {
        Self { rest, left: parts, shares }
    }

    #[inline]
    fn part(&mut self) -> Holding {
        self.parts(1)
    }

    /// What so many tuples hold together.
    #[inline]
    fn parts(&mut self, count: usize) -> Holding {
        self.left = self.left.saturating_sub(count);
        if self.left == 0 { std::mem::take(&mut self.rest) } else { self.rest.divide(self.shares) }
    }

    /// Appends the parts of so many tuples.
    #[inline]
    fn deal(&mut self, count: usize, into: &mut Lineage) {
        if let Holding::Joined(_) = self.rest {
            (0..count).for_each(|_| into.push(self.part()));
            return;
        }
        match self.parts(count) {
            Holding::Untracked => into.push_untracked(count as u32),
            Holding::Whole(root) if count == 1 => into.push_whole(root, 1),
            Holding::Whole(root) => into.push_share(root, root.secret(), count as u32),
            Holding::Share(root, share) => into.push_share(root, share, count as u32),
            joined @ Holding::Joined(_) => into.push(joined),
        }
    }
}

/// The outputs of a component, as one type.
///
/// A component with one output uses [`Output<T>`], one without any `()`, one with several a struct made
/// by the [`outputs!`](crate::outputs!) macro. The trait is not meant to be implemented by hand.
pub trait Outputs: Send + Sized + 'static {
    /// What wiring sees of them: [`Stream`] handles.
    type Streams;

    #[doc(hidden)]
    fn streams(source: &StreamSource) -> Self::Streams;
    #[doc(hidden)]
    fn describe(into: &mut Vec<StreamSpec>);
    #[doc(hidden)]
    fn open(seed: u64) -> Self;
    #[doc(hidden)]
    fn attach(&mut self, stream: usize, route: Box<dyn Any + Send>);
    /// Rows emitted anchored to the current tuple, not sealed yet.
    #[doc(hidden)]
    fn unsealed(&self) -> usize;
    /// Whether rows not sealed yet bring a holding of their own.
    #[doc(hidden)]
    fn has_special(&self) -> bool;
    #[doc(hidden)]
    fn seal(&mut self, division: &mut Division<'_>);
    /// Seals the one row emitted for a root.
    #[doc(hidden)]
    #[inline]
    fn seal_whole(&mut self, root: RootId, shares: &mut Shares) {
        self.seal(&mut Division::new(Holding::Whole(root), 1, shares));
    }
    #[doc(hidden)]
    fn discard(&mut self);
    #[doc(hidden)]
    fn route(&mut self, flush: bool, into: &mut Shipments);
}

impl<T: Data> Outputs for Output<T> {
    type Streams = Stream<T>;

    fn streams(source: &StreamSource) -> Stream<T> {
        source.stream("default")
    }

    fn describe(into: &mut Vec<StreamSpec>) {
        into.push(StreamSpec::of::<T>("default"));
    }

    fn open(seed: u64) -> Self {
        Self {
            values: Vec::new(),
            lineage: Lineage::new(),
            sealed: 0,
            special: Vec::new(),
            direct: Vec::new(),
            shares: Shares::new(seed),
            routes: Vec::new(),
        }
    }

    fn attach(&mut self, _stream: usize, route: Box<dyn Any + Send>) {
        // The builder pairs routes with streams by type, so another type cannot arrive here.
        if let Ok(route) = route.downcast::<Box<dyn Route<T>>>() {
            self.routes.push(*route);
        }
    }

    #[inline]
    fn unsealed(&self) -> usize {
        self.values.len() - self.sealed - self.special.len()
    }

    #[inline]
    fn has_special(&self) -> bool {
        !self.special.is_empty()
    }

    #[inline]
    fn seal(&mut self, division: &mut Division<'_>) {
        if self.special.is_empty() {
            let rows = self.values.len() - self.sealed;
            if rows > 0 {
                division.deal(rows, &mut self.lineage);
                self.sealed += rows;
            }
        } else {
            let mut special = self.special.drain(..).peekable();
            while self.sealed < self.values.len() {
                match special.next_if(|(row, _)| *row == self.sealed) {
                    Some((_, holding)) => self.lineage.push(holding),
                    None => self.lineage.push(division.part()),
                }
                self.sealed += 1;
            }
        }
    }

    #[inline]
    fn seal_whole(&mut self, root: RootId, shares: &mut Shares) {
        if self.special.is_empty() {
            self.lineage.push_whole(root, 1);
            self.sealed += 1;
        } else {
            self.seal(&mut Division::new(Holding::Whole(root), 1, shares));
        }
    }

    fn discard(&mut self) {
        if self.special.is_empty() {
            self.values.truncate(self.sealed);
            self.direct.retain(|direct| direct.row < self.sealed);
            return;
        }
        // Rows with holdings of their own do not depend on the failed tuple: they stay.
        let tail: Vec<T> = self.values.drain(self.sealed..).collect();
        let first = self.sealed;
        self.direct.retain(|direct| direct.row < first);
        let mut special = std::mem::take(&mut self.special).into_iter().peekable();
        for (at, value) in tail.into_iter().enumerate() {
            if let Some((_, holding)) = special.next_if(|(row, _)| *row == first + at) {
                self.values.push(value);
                self.lineage.push(holding);
                self.sealed += 1;
            }
        }
    }

    fn route(&mut self, flush: bool, into: &mut Shipments) {
        debug_assert_eq!(self.sealed, self.values.len(), "routing rows without a holding");
        if !self.values.is_empty() && (flush || self.values.len() >= HOLD || self.routes.is_empty()) {
            into.emitted += self.values.len() as u64;
            self.sealed = 0;
            if self.direct.is_empty() {
                deliver(
                    &mut self.routes,
                    false,
                    &mut self.values,
                    &mut self.lineage,
                    &mut Vec::new(),
                    &mut self.shares,
                    into,
                );
            } else {
                self.route_direct(into);
            }
        }
        if flush {
            for route in &mut self.routes {
                route.flush(into);
            }
        }
    }
}

impl<T: Data> Output<T> {
    /// Direct rows go to the direct subscribers only, all others to the other subscribers only.
    fn route_direct(&mut self, into: &mut Shipments) {
        let direct = std::mem::take(&mut self.direct);
        let (mut plain, mut plain_lineage) = (Vec::new(), Lineage::new());
        let (mut chosen, mut chosen_lineage, mut tasks) = (Vec::new(), Lineage::new(), Vec::new());
        let mut next = direct.iter().peekable();
        let rows = self.values.drain(..).zip(self.lineage.drain());
        for (row, (value, holding)) in rows.enumerate() {
            if let Some(direct) = next.next_if(|direct| direct.row == row) {
                chosen.push(value);
                chosen_lineage.push(holding);
                tasks.push(direct.task);
            } else {
                plain.push(value);
                plain_lineage.push(holding);
            }
        }
        let Self { routes, shares, .. } = self;
        deliver(routes, false, &mut plain, &mut plain_lineage, &mut Vec::new(), shares, into);
        deliver(routes, true, &mut chosen, &mut chosen_lineage, &mut tasks, shares, into);
    }
}

/// Hands rows to every route of the wanted kind: copies with divided holdings to all but the last.
fn deliver<T: Data>(
    routes: &mut [Box<dyn Route<T>>],
    direct: bool,
    values: &mut Vec<T>,
    lineage: &mut Lineage,
    tasks: &mut Vec<usize>,
    shares: &mut Shares,
    into: &mut Shipments,
) {
    if values.is_empty() {
        return;
    }
    let Some(last) = routes.iter().rposition(|route| route.is_direct() == direct) else {
        // Nobody subscribed: the tuples are done as soon as they are emitted.
        into.acked.settle_all(lineage);
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| values.clear())) {
            into.note(&*panic);
        }
        return;
    };
    for route in routes[..last].iter_mut().filter(|route| route.is_direct() == direct) {
        let mut copied = copies(values, lineage, tasks, into);
        if values.is_empty() {
            return;
        }
        let mut copy = lineage.divide(shares);
        route.route(&mut copied, &mut copy, tasks, shares, into);
    }
    routes[last].route(values, lineage, tasks, shares, into);
    values.clear();
    lineage.clear();
}

/// Copies the values of a batch. Rows whose `Clone` panics are lost, and leave the batch; `tasks` has an
/// entry for each row, or none at all.
pub(crate) fn copies<T: Clone>(
    values: &mut Vec<T>,
    lineage: &mut Lineage,
    tasks: &mut Vec<usize>,
    into: &mut Shipments,
) -> Vec<T> {
    // One catch for the batch; only when it caught something are the rows copied one by one.
    let copied = catch_unwind(AssertUnwindSafe(|| values.clone()));
    copied.unwrap_or_else(|_| sound_copies(values, lineage, tasks, into))
}

#[cold]
fn sound_copies<T: Clone>(
    values: &mut Vec<T>,
    lineage: &mut Lineage,
    tasks: &mut Vec<usize>,
    into: &mut Shipments,
) -> Vec<T> {
    let mut copied = Vec::with_capacity(values.len());
    let (mut sound, mut sound_lineage, mut sound_tasks) = (Vec::new(), Lineage::new(), Vec::new());
    for (row, (value, holding)) in std::mem::take(values).into_iter().zip(lineage.drain()).enumerate() {
        match catch_unwind(AssertUnwindSafe(|| value.clone())) {
            Ok(copy) => {
                copied.push(copy);
                sound.push(value);
                sound_lineage.push(holding);
                sound_tasks.extend(tasks.get(row));
            }
            Err(panic) => {
                into.lose(holding, &*panic);
                if let Err(panic) = catch_unwind(AssertUnwindSafe(move || drop(value))) {
                    into.note(&*panic);
                }
            }
        }
    }
    (*values, *lineage, *tasks) = (sound, sound_lineage, sound_tasks);
    copied
}

impl Outputs for () {
    type Streams = ();

    fn streams(_source: &StreamSource) {}
    fn describe(_into: &mut Vec<StreamSpec>) {}
    fn open(_seed: u64) {}
    fn attach(&mut self, _stream: usize, _route: Box<dyn Any + Send>) {}
    #[inline]
    fn unsealed(&self) -> usize {
        0
    }
    #[inline]
    fn has_special(&self) -> bool {
        false
    }
    #[inline]
    fn seal(&mut self, _division: &mut Division<'_>) {}
    fn discard(&mut self) {}
    fn route(&mut self, _flush: bool, _into: &mut Shipments) {}
}

/// The two sides of a set of outputs: what a running component emits on, and what wiring subscribes to.
pub trait Side: 'static {
    /// What an output of type `T` is on this side.
    type Of<T: Data>;
}

/// The running side: [`Output<T>`].
#[derive(Debug, Clone, Copy)]
pub struct Emitting(PhantomData<()>);

/// The wiring side: [`Stream<T>`].
#[derive(Debug, Clone, Copy)]
pub struct Wiring(PhantomData<()>);

impl Side for Emitting {
    type Of<T: Data> = Output<T>;
}

impl Side for Wiring {
    type Of<T: Data> = Stream<T>;
}

/// Declares several named outputs, each with its own type.
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
        $vis:vis struct $name:ident {
            $( $(#[$field_meta:meta])* $field:ident : $type:ty ),+ $(,)?
        }
    ) => {
        $(#[$meta])*
        $vis struct $name<S: $crate::Side = $crate::Emitting> {
            $( $(#[$field_meta])* $vis $field: S::Of<$type>, )+
        }

        impl $crate::Outputs for $name {
            type Streams = $name<$crate::Wiring>;

            fn streams(source: &$crate::StreamSource) -> Self::Streams {
                $name { $( $field: source.stream(::core::stringify!($field)), )+ }
            }
            fn describe(into: &mut ::std::vec::Vec<$crate::StreamSpec>) {
                $( into.push($crate::StreamSpec::of::<$type>(::core::stringify!($field))); )+
            }
            fn open(seed: u64) -> Self {
                let mut at = 0u64;
                $name { $( $field: {
                    at += 1;
                    <$crate::Output<$type> as $crate::Outputs>::open(seed.wrapping_add(at << 56))
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
                        $crate::Outputs::attach(&mut self.$field, 0, route);
                    }
                    at += 1;
                )+
                let _ = at;
            }
            #[inline]
            fn unsealed(&self) -> usize {
                0 $( + $crate::Outputs::unsealed(&self.$field) )+
            }
            #[inline]
            fn has_special(&self) -> bool {
                false $( || $crate::Outputs::has_special(&self.$field) )+
            }
            #[inline]
            fn seal(&mut self, division: &mut $crate::Division<'_>) {
                $( $crate::Outputs::seal(&mut self.$field, division); )+
            }
            fn discard(&mut self) {
                $( $crate::Outputs::discard(&mut self.$field); )+
            }
            fn route(&mut self, flush: bool, into: &mut $crate::Shipments) {
                $( $crate::Outputs::route(&mut self.$field, flush, into); )+
            }
        }
    };
}
