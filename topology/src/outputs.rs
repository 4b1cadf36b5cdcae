//! The outputs of a component: named, each with its own type.

use std::any::Any;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::anchor::AnchorSet;
use crate::lineage::{AckToken, Lineage, RootId, ShareRng};
use crate::runtime::{DirectRow, Route, Signal, Staged};
use crate::stream::{Stream, StreamSource, StreamSpec};

/// What a tuple must be: cloned when a stream has several subscribers, and sent between tasks.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be a tuple: it is not `Clone + Send + 'static`",
    label = "not `Clone + Send + 'static`",
    note = "derive `Clone`, and own what it borrows; what cannot be cloned or is costly to clone goes into an `Arc`"
)]
pub trait Data: Clone + Send + 'static {}
#[diagnostic::do_not_recommend]
impl<T: Clone + Send + 'static> Data for T {}

/// One output of a running component: what is emitted here goes to all subscribers of the stream.
///
/// While a bolt executes a tuple, [`emit`](Self::emit) anchors to that tuple; while it has a batch as a whole, to all tuples of the
/// batch. In `tick`, `progress` and `close` there is nothing to anchor to and `emit` is unanchored.
pub struct Output<T> {
    values: Vec<T>,
    lineage: Lineage,
    // How many of `values` have their token in `lineage`.
    sealed: usize,
    // Rows beyond `sealed` that bring their own token: (row, token).
    own_tokens: Vec<(usize, AckToken)>,
    direct: Vec<DirectRow>,
    shares: ShareRng,
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
        self.own_tokens.push((self.values.len(), AckToken::Untracked));
        self.values.push(value);
    }

    /// Emits a tuple anchored to these kept tuples and to nothing else: their trees are joined, and each
    /// root waits for it. The same anchor twice is legal and means once. Takes [`Anchors`](crate::Anchors), or whatever iterates over
    /// [`Anchor`](crate::Anchor)s.
    pub fn emit_anchored(&mut self, value: T, anchors: impl AnchorSet) {
        let token = anchors.split_tokens(&mut self.shares);
        self.own_tokens.push((self.values.len(), token));
        self.values.push(value);
    }

    /// Emits a tuple to one task, by its index, of each bolt that subscribed to this stream by direct
    /// grouping; others do not see it. Anchored to the tuple being executed.
    pub fn emit_direct(&mut self, task: usize, value: T) {
        self.direct.push(DirectRow { row: self.values.len(), task });
        self.values.push(value);
    }

    /// As [`emit_direct`](Self::emit_direct), anchored as by [`emit_anchored`](Self::emit_anchored).
    pub fn emit_direct_anchored(&mut self, task: usize, value: T, anchors: impl AnchorSet) {
        self.direct.push(DirectRow { row: self.values.len(), task });
        self.emit_anchored(value, anchors);
    }

    /// Rows staged here. Used by the batch operations.
    pub(crate) fn len(&self) -> usize {
        self.values.len()
    }

    pub(crate) fn extend(&mut self, values: impl Iterator<Item = T>) {
        self.values.extend(values);
    }

    pub(crate) fn adopt(&mut self, token: AckToken) {
        self.lineage.push(token);
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
const MIN_ROUTED: usize = 64;

/// Gives the emitted tuples of one input their parts of its token.
pub struct TokenSplitter<'a> {
    rest: AckToken,
    left: usize,
    shares: &'a mut ShareRng,
}

impl<'a> TokenSplitter<'a> {
    pub(crate) fn new(rest: AckToken, parts: usize, shares: &'a mut ShareRng) -> Self {
        Self { rest, left: parts, shares }
    }

    #[inline]
    fn part(&mut self) -> AckToken {
        self.parts(1)
    }

    /// What so many tuples hold together.
    #[inline]
    fn parts(&mut self, count: usize) -> AckToken {
        self.left = self.left.saturating_sub(count);
        if self.left == 0 { std::mem::take(&mut self.rest) } else { self.rest.split(self.shares) }
    }

    /// Appends the parts of so many tuples.
    #[inline]
    fn append_to(&mut self, count: usize, into: &mut Lineage) {
        if let AckToken::Multi(_) = self.rest {
            (0..count).for_each(|_| into.push(self.part()));
            return;
        }
        match self.parts(count) {
            AckToken::Untracked => into.push_untracked(count as u32),
            AckToken::Whole(root) if count == 1 => into.push_whole(root, 1),
            AckToken::Whole(root) => into.push_share(root, root.secret(), count as u32),
            AckToken::Share(root, share) => into.push_share(root, share, count as u32),
            multi @ AckToken::Multi(_) => into.push(multi),
        }
    }
}

/// The outputs of a component, as one type.
///
/// A component with one output uses [`Output<T>`], one without any `()`, one with several a struct made
/// by the [`outputs!`](crate::outputs!) macro. It cannot be implemented otherwise.
pub trait Outputs: OutputSet {}

#[diagnostic::do_not_recommend]
impl<O: OutputSet> Outputs for O {}

/// What a task does with its outputs.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be the outputs of a component",
    label = "not a set of outputs",
    note = "one output of a type `T` is `Output<T>`, none is `()`, several are declared with `outputs!`"
)]
pub trait OutputSet: Send + Sized + 'static {
    /// What wiring sees of them: [`Stream`] handles.
    type Streams;

    /// The handles of the outputs of this component.
    fn streams(source: &StreamSource) -> Self::Streams;
    /// Says what outputs there are.
    fn describe(into: &mut Vec<StreamSpec>);
    /// The outputs of one task.
    fn open(seed: u64) -> Self;
    /// Adds a `Box<Box<dyn Route<T>>>` to one of the outputs.
    fn attach(&mut self, stream: usize, route: Box<dyn Any + Send>);
    /// Rows emitted anchored to the current tuple, not sealed yet.
    fn unsealed(&self) -> usize;
    /// Whether rows not sealed yet bring a token of their own.
    fn has_own_tokens(&self) -> bool;
    /// Gives the rows not sealed yet their tokens.
    fn seal(&mut self, splitter: &mut TokenSplitter<'_>);
    /// Seals the one row emitted for a root.
    #[inline]
    fn seal_whole(&mut self, root: RootId, shares: &mut ShareRng) {
        self.seal(&mut TokenSplitter::new(AckToken::Whole(root), 1, shares));
    }
    /// Takes back the rows not sealed yet.
    fn discard(&mut self);
    /// Moves the rows, all of them sealed, behind those of `to`, which distributes them.
    fn hand_over(&mut self, to: &mut Self);
    /// Distributes the rows.
    fn route(&mut self, flush: bool, into: &mut Staged);
    /// Sends a signal to all subscribers that are to have it. All rows have been distributed.
    fn signal(&mut self, signal: Signal, into: &mut Staged);
}

#[diagnostic::do_not_recommend]
impl<T: Data> OutputSet for Output<T> {
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
            own_tokens: Vec::new(),
            direct: Vec::new(),
            shares: ShareRng::new(seed),
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
        self.values.len() - self.sealed - self.own_tokens.len()
    }

    #[inline]
    fn has_own_tokens(&self) -> bool {
        !self.own_tokens.is_empty()
    }

    #[inline]
    fn seal(&mut self, splitter: &mut TokenSplitter<'_>) {
        if self.own_tokens.is_empty() {
            let rows = self.values.len() - self.sealed;
            if rows > 0 {
                splitter.append_to(rows, &mut self.lineage);
                self.sealed += rows;
            }
        } else {
            let mut own_tokens = self.own_tokens.drain(..).peekable();
            while self.sealed < self.values.len() {
                match own_tokens.next_if(|(row, _)| *row == self.sealed) {
                    Some((_, token)) => self.lineage.push(token),
                    None => self.lineage.push(splitter.part()),
                }
                self.sealed += 1;
            }
        }
    }

    #[inline]
    fn seal_whole(&mut self, root: RootId, shares: &mut ShareRng) {
        if self.own_tokens.is_empty() {
            self.lineage.push_whole(root, 1);
            self.sealed += 1;
        } else {
            self.seal(&mut TokenSplitter::new(AckToken::Whole(root), 1, shares));
        }
    }

    fn discard(&mut self) {
        if self.own_tokens.is_empty() {
            drop_each(self.values.drain(self.sealed..));
            self.direct.retain(|direct| direct.row < self.sealed);
            return;
        }
        // Rows with tokens of their own do not depend on the failed tuple: they stay.
        let tail: Vec<T> = self.values.drain(self.sealed..).collect();
        let first = self.sealed;
        self.direct.retain(|direct| direct.row < first);
        let mut own_tokens = std::mem::take(&mut self.own_tokens).into_iter().peekable();
        for (at, value) in tail.into_iter().enumerate() {
            if let Some((_, token)) = own_tokens.next_if(|(row, _)| *row == first + at) {
                self.values.push(value);
                self.lineage.push(token);
                self.sealed += 1;
            } else {
                drop_each(std::iter::once(value));
            }
        }
    }

    fn hand_over(&mut self, to: &mut Self) {
        debug_assert_eq!(self.sealed, self.values.len(), "handing over rows without a token");
        let before = to.values.len();
        let moved = self.direct.drain(..).map(|direct| DirectRow { row: direct.row + before, ..direct });
        to.direct.extend(moved);
        if before == 0 {
            std::mem::swap(&mut self.values, &mut to.values);
            std::mem::swap(&mut self.lineage, &mut to.lineage);
        } else {
            to.values.append(&mut self.values);
            to.lineage.append(&mut self.lineage);
        }
        to.sealed += std::mem::take(&mut self.sealed);
    }

    fn route(&mut self, flush: bool, into: &mut Staged) {
        debug_assert_eq!(self.sealed, self.values.len(), "routing rows without a token");
        if !self.values.is_empty() && (flush || self.values.len() >= MIN_ROUTED || self.routes.is_empty()) {
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

    fn signal(&mut self, signal: Signal, into: &mut Staged) {
        for route in &mut self.routes {
            route.signal(signal, into);
        }
    }
}

impl<T: Data> Output<T> {
    /// Direct rows go to the direct subscribers only, all others to the other subscribers only.
    fn route_direct(&mut self, into: &mut Staged) {
        let direct = std::mem::take(&mut self.direct);
        let (mut plain, mut plain_lineage) = (Vec::new(), Lineage::new());
        let (mut chosen, mut chosen_lineage, mut tasks) = (Vec::new(), Lineage::new(), Vec::new());
        let mut next = direct.iter().peekable();
        let rows = self.values.drain(..).zip(self.lineage.drain());
        for (row, (value, token)) in rows.enumerate() {
            if let Some(direct) = next.next_if(|direct| direct.row == row) {
                chosen.push(value);
                chosen_lineage.push(token);
                tasks.push(direct.task);
            } else {
                plain.push(value);
                plain_lineage.push(token);
            }
        }
        let Self { routes, shares, .. } = self;
        deliver(routes, false, &mut plain, &mut plain_lineage, &mut Vec::new(), shares, into);
        deliver(routes, true, &mut chosen, &mut chosen_lineage, &mut tasks, shares, into);
    }
}

/// Drops tuples that are taken back: one that panics at that costs nothing else.
fn drop_each<T>(values: impl Iterator<Item = T>) {
    for value in values {
        let _ = catch_unwind(AssertUnwindSafe(move || drop(value)));
    }
}

/// Hands rows to every route of the wanted kind: copies with split tokens to all but the last.
fn deliver<T: Data>(
    routes: &mut [Box<dyn Route<T>>],
    direct: bool,
    values: &mut Vec<T>,
    lineage: &mut Lineage,
    tasks: &mut Vec<usize>,
    shares: &mut ShareRng,
    into: &mut Staged,
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
        let mut copy = lineage.split(shares);
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
    into: &mut Staged,
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
    into: &mut Staged,
) -> Vec<T> {
    let mut copied = Vec::with_capacity(values.len());
    let (mut sound, mut sound_lineage, mut sound_tasks) = (Vec::new(), Lineage::new(), Vec::new());
    for (row, (value, token)) in std::mem::take(values).into_iter().zip(lineage.drain()).enumerate() {
        match catch_unwind(AssertUnwindSafe(|| value.clone())) {
            Ok(copy) => {
                copied.push(copy);
                sound.push(value);
                sound_lineage.push(token);
                sound_tasks.extend(tasks.get(row));
            }
            Err(panic) => {
                into.lose(token, &*panic);
                if let Err(panic) = catch_unwind(AssertUnwindSafe(move || drop(value))) {
                    into.note(&*panic);
                }
            }
        }
    }
    (*values, *lineage, *tasks) = (sound, sound_lineage, sound_tasks);
    copied
}

#[diagnostic::do_not_recommend]
impl OutputSet for () {
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
    fn has_own_tokens(&self) -> bool {
        false
    }
    #[inline]
    fn seal(&mut self, _splitter: &mut TokenSplitter<'_>) {}
    fn discard(&mut self) {}
    fn hand_over(&mut self, _to: &mut Self) {}
    fn route(&mut self, _flush: bool, _into: &mut Staged) {}
    fn signal(&mut self, _signal: Signal, _into: &mut Staged) {}
}
