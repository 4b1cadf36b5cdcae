//! Declaring joins of two streams, and the bolt that runs them.

use std::fmt;
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use galerna_topology::{
    AllAnchors, Anchors, Batch, BatchBolt, Data, Emitter, Fault, Gauge, TaskContext, Timestamp, outputs,
};

use crate::join_store::{IntervalJoin, JoinSink, JoinStore, Joined, Rejected, Side, Unmatched, WindowJoin};
use crate::late::LateCounts;
use crate::result::Late;
use crate::source_clock::EventTimeSettings;
use crate::sources::{KeyOf, Sources, TimeOf, read_time};
use crate::store::{Hold, caught};
use crate::time_windows::Slices;
use crate::window::{MOST_PANES, WindowError, millis};

/// So many tuples a task of a join keeps at most, unless it is told otherwise.
const LIMIT: usize = 1_000_000;

outputs! {
    /// What joins emit.
    pub struct JoinOutputs<K, L, R> {
        /// Pairs, and tuples without a partner.
        joined: Joined<K, L, R>,
        /// Tuples that came when their partners may have been let go of.
        late: Late<K, Side<L, R>>,
    }
}

/// Which tuples find each other.
#[derive(Debug, Clone, Copy)]
enum Within {
    Window { size: Duration, slide: Duration },
    Interval { before: Duration, after: Duration },
}

/// A join of two streams by key: which tuples find each other, and what becomes of those that find none.
///
/// It works by event time, so that its results do not depend on which stream is faster.
///
/// ```
/// use std::time::Duration;
/// use galerna_windows::Join;
///
/// # #[derive(Clone)] struct Order { id: u64, at: i64 }
/// # #[derive(Clone)] struct Payment { order: u64, at: i64 }
/// let paid = Join::left(|order: &Order| order.id, |payment: &Payment| payment.order)
///     .event_time(|order| order.at, |payment| payment.at)
///     .lag(Duration::from_secs(60))
///     .between(Duration::ZERO, Duration::from_secs(3_600));
/// ```
///
/// A topology runs it with [`WindowTopology::join`](crate::WindowTopology::join).
pub struct Join<L, R, K> {
    pub(crate) key_of: (KeyOf<L, K>, KeyOf<R, K>),
    pub(crate) time_of: Option<(TimeOf<L>, TimeOf<R>)>,
    pub(crate) makes_watermarks: bool,
    pub(crate) sources: EventTimeSettings,
    unmatched: Unmatched,
    within: Option<Within>,
    limit: usize,
}

impl<L, R, K> Clone for Join<L, R, K> {
    fn clone(&self) -> Self {
        Self { key_of: self.key_of.clone(), time_of: self.time_of.clone(), ..*self }
    }
}

impl<L, R, K> fmt::Debug for Join<L, R, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Join")
            .field("within", &self.within)
            .field("limit", &self.limit)
            .finish_non_exhaustive()
    }
}

/// What a join is not, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum JoinError {
    /// Nothing says which tuples find each other.
    #[error("it does not say which tuples find each other: call `tumbling`, `sliding` or `between`")]
    NotWithin,
    /// It has no times.
    #[error("it does not say when tuples are: call `event_time` with a closure for each stream")]
    NoTime,
    /// It may keep nothing.
    #[error("its limit is 0, so that it could keep nothing: make it at least 1")]
    NoRoom,
    /// Its windows cannot be.
    #[error(transparent)]
    Window(#[from] WindowError),
}

impl<L: Data, R: Data, K> Join<L, R, K> {
    fn new(
        unmatched: Unmatched,
        left: impl Fn(&L) -> K + Send + Sync + 'static,
        right: impl Fn(&R) -> K + Send + Sync + 'static,
    ) -> Self {
        Self {
            key_of: (Arc::new(left), Arc::new(right)),
            time_of: None,
            makes_watermarks: false,
            sources: EventTimeSettings::default(),
            unmatched,
            within: None,
            limit: LIMIT,
        }
    }

    /// Only pairs come out.
    pub fn inner(
        left: impl Fn(&L) -> K + Send + Sync + 'static,
        right: impl Fn(&R) -> K + Send + Sync + 'static,
    ) -> Self {
        Self::new(Unmatched::None, left, right)
    }

    /// Pairs, and tuples of the first stream that have no partner.
    pub fn left(
        left: impl Fn(&L) -> K + Send + Sync + 'static,
        right: impl Fn(&R) -> K + Send + Sync + 'static,
    ) -> Self {
        Self::new(Unmatched::Left, left, right)
    }

    /// Pairs, and tuples of both streams that have no partner.
    pub fn full(
        left: impl Fn(&L) -> K + Send + Sync + 'static,
        right: impl Fn(&R) -> K + Send + Sync + 'static,
    ) -> Self {
        Self::new(Unmatched::Both, left, right)
    }

    /// When tuples of the first and of the second stream are, in milliseconds since 1970 where that is a number.
    #[must_use]
    pub fn event_time<A: Into<Timestamp>, B: Into<Timestamp>>(
        mut self,
        left: impl Fn(&L) -> A + Send + Sync + 'static,
        right: impl Fn(&R) -> B + Send + Sync + 'static,
    ) -> Self {
        self.time_of =
            Some((Arc::new(move |tuple| left(tuple).into()), Arc::new(move |tuple| right(tuple).into())));
        self
    }

    /// Reads off the tuples how far their senders are, and waits so long for those that are behind; see
    /// [`Window::lag`](crate::Window::lag).
    #[must_use]
    pub fn lag(mut self, lag: Duration) -> Self {
        self.makes_watermarks = true;
        self.sources.lag = lag;
        self
    }

    /// With [`lag`](Self::lag): how long a sender may be silent until nobody waits for it; `None` means for ever. 60 s unless set.
    #[must_use]
    pub fn idle_after(mut self, silence: impl Into<Option<Duration>>) -> Self {
        self.sources.idle_after = silence.into();
        self
    }

    /// Tuples in the same window of this length find each other. They come out when the window is complete.
    #[must_use]
    pub fn tumbling(mut self, size: Duration) -> Self {
        self.within = Some(Within::Window { size, slide: size });
        self
    }

    /// Tuples in the same window find each other, once for each window that both are in. They come out when the window is complete.
    #[must_use]
    pub fn sliding(mut self, size: Duration, slide: Duration) -> Self {
        self.within = Some(Within::Window { size, slide });
        self
    }

    /// A tuple of the second stream finds those of the first that are at most `before` later or at most `after` earlier than itself.
    /// Pairs come out as soon as both are there, others when no partner can come any more.
    #[must_use]
    pub fn between(mut self, before: Duration, after: Duration) -> Self {
        self.within = Some(Within::Interval { before, after });
        self
    }

    /// How many tuples each of its tasks may keep. Beyond it tuples fail, so that they come again when others have gone. 1,000,000
    /// unless set.
    #[must_use]
    pub fn limit(mut self, tuples: usize) -> Self {
        self.limit = tuples;
        self
    }

    /// What is wrong with it, if anything is.
    ///
    /// # Errors
    /// Nothing said about times or about which tuples find each other; windows that cannot be.
    pub fn check(&self) -> Result<(), JoinError> {
        match self.within {
            None => return Err(JoinError::NotWithin),
            Some(Within::Window { size, slide }) => crate::window::check_time(size, slide, MOST_PANES)?,
            Some(Within::Interval { .. }) => {}
        }
        if self.time_of.is_none() {
            return Err(JoinError::NoTime);
        }
        if self.limit == 0 {
            return Err(JoinError::NoRoom);
        }
        Ok(())
    }

    /// How often it is to look for senders that are idle.
    pub(crate) fn tick(&self) -> Option<Duration> {
        let idle = self.sources.idle_after.filter(|_| self.makes_watermarks)?;
        Some((idle / 10).clamp(Duration::from_millis(10), Duration::from_secs(1)))
    }

    /// For how long it keeps a tuple at least.
    pub(crate) fn holds_for(&self) -> Duration {
        let stretch = match self.within {
            Some(Within::Window { size, .. }) => size,
            Some(Within::Interval { before, after }) => before.max(after),
            None => Duration::ZERO,
        };
        stretch.saturating_add(self.sources.lag)
    }
}

/// One task of a join.
pub(crate) struct JoinBolt<L, R, K> {
    join: Join<L, R, K>,
    // What it keeps is in here and nowhere else.
    store: Box<dyn JoinStore<K, L, R, Anchors>>,
    sources: Option<Sources>,
    late: Option<LateCounts<K>>,
    kept: Gauge,
}

/// Emits pairs anchored to their two tuples.
struct Sink<'a, K: Data, L: Data, R: Data>(&'a mut Emitter<JoinOutputs<K, L, R>>);

impl<K: Data, L: Data, R: Data> JoinSink<K, L, R, Anchors> for Sink<'_, K, L, R> {
    fn joined(&mut self, joined: Joined<K, L, R>, held: &[&Anchors]) {
        self.0.joined.emit_anchored(joined, AllAnchors(held));
    }

    fn release(&mut self, _: &K, held: Anchors) {
        held.ack();
    }
}

impl<L: Data, R: Data, K: Data + Eq + Hash> Join<L, R, K> {
    /// What one task keeps, of whatever its tuples hold.
    pub(crate) fn open<H: Hold + 'static>(&self) -> Box<dyn JoinStore<K, L, R, H>> {
        match self.within {
            Some(Within::Window { size, slide }) => {
                let slices = Slices::new(millis(size), millis(slide), 0);
                Box::new(WindowJoin::new(slices, self.unmatched, self.limit))
            }
            Some(Within::Interval { before, after }) => {
                Box::new(IntervalJoin::new(millis(before), millis(after), self.unmatched, self.limit))
            }
            // It is refused before it runs.
            None => Box::new(IntervalJoin::new(0, 0, self.unmatched, self.limit)),
        }
    }

    /// Whether what comes out depends on which of the tuples that are kept have found a partner.
    pub(crate) fn remembers_matches(&self) -> bool {
        self.unmatched != Unmatched::None && matches!(self.within, Some(Within::Interval { .. }))
    }

    /// What a tuple fails with for which there is no room.
    pub(crate) fn no_room(&self) -> Fault {
        Fault::transient(format!(
            "the join keeps {} tuples, as many as it may: raise its `limit`, give it more tasks, or let tuples find each \
             other within less",
            self.limit
        ))
    }

    /// When a tuple is, and its key.
    pub(crate) fn read(&self, tuple: &Side<L, R>) -> Result<(Timestamp, K), Fault> {
        let Some((left_time, right_time)) = &self.time_of else {
            return Err(Fault::permanent("the join has no times"));
        };
        let at = match tuple {
            Side::Left(tuple) => read_time(left_time, tuple),
            Side::Right(tuple) => read_time(right_time, tuple),
        }?;
        let key = caught(|| match tuple {
            Side::Left(tuple) => (self.key_of.0)(tuple),
            Side::Right(tuple) => (self.key_of.1)(tuple),
        });
        let key = key.map_err(|fault| Fault::permanent(format!("the key closure {}", fault.reason())))?;
        Ok((at, key))
    }
}

impl<L: Data, R: Data, K: Data + Eq + Hash> JoinBolt<L, R, K> {
    pub(crate) fn new(join: Join<L, R, K>) -> Self {
        let store = join.open();
        Self { join, store, sources: None, late: None, kept: Gauge::default() }
    }
}

impl<L: Data, R: Data, K: Data + Eq + Hash> BatchBolt for JoinBolt<L, R, K> {
    type Input = Side<L, R>;
    type Outputs = JoinOutputs<K, L, R>;

    fn prepare(&mut self, context: &TaskContext) -> Result<(), Fault> {
        self.sources = self.join.makes_watermarks.then(|| Sources::new(self.join.sources, context.now()));
        self.late = Some(LateCounts::new(context, None));
        self.kept = context.gauge("join_state");
        Ok(())
    }

    fn execute(&mut self, batch: Batch<Side<L, R>>, out: &mut Emitter<Self::Outputs>) {
        let (tuples, anchors) = batch.into_parts();
        let (sender, now) = (out.sender(), out.context().now());
        for (tuple, anchor) in tuples.into_iter().zip(anchors.into_each()) {
            let read = self.join.read(&tuple).and_then(|(at, key)| {
                if let (Some(sources), Some(sender)) = (&mut self.sources, sender) {
                    sources.batch(sender, now)(at)?;
                }
                Ok((at, key))
            });
            let (at, key) = match read {
                Ok(read) => read,
                Err(fault) => {
                    anchor.fail(fault);
                    continue;
                }
            };
            let held = Anchors::from_iter([anchor]);
            match self.store.add(key.clone(), tuple, at, held, &mut Sink(out)) {
                Ok(()) => {}
                Err(Rejected::Full(held)) => held.fail(self.join.no_room()),
                Err(Rejected::TooLate(tuple, held)) => {
                    let late_by = out.watermark().unwrap_or(at).saturating_since(at);
                    if let Some(late) = &mut self.late {
                        late.count(&key, late_by);
                    }
                    out.late.emit_anchored(Late { key, tuple, at, late_by }, &held);
                    held.ack();
                }
            }
        }
        self.kept.set(self.store.len() as f64);
        if let (Some(sources), Some(sender)) = (&mut self.sources, sender) {
            sources.tell(sender, now, out);
        }
    }

    fn watermark(&mut self, watermark: Timestamp, out: &mut Emitter<Self::Outputs>) -> Result<(), Fault> {
        self.store.advance(watermark, &mut Sink(out));
        self.kept.set(self.store.len() as f64);
        Ok(())
    }

    fn tick(&mut self, out: &mut Emitter<Self::Outputs>) -> Result<(), Fault> {
        if let Some(sources) = &mut self.sources {
            sources.tell_all(out.context().now(), out);
        }
        Ok(())
    }

    fn drain(&mut self, _out: &mut Emitter<Self::Outputs>) {
        for held in self.store.take_all() {
            held.fail(Fault::transient("the topology ends before all partners of the tuple can have come"));
        }
    }
}
