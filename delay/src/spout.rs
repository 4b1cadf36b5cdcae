//! Delayed work as the roots of a topology.

use std::sync::Arc;
use std::time::Duration;

use galerna_model::{Clock, SystemClock};
use galerna_topology::{Failed, Fault, Next, OrFault, Output, Roots, Spout, TaskContext};
use tokio::time::Instant;

use crate::store::ItemStore;
use crate::{DelayOptions, DelayStore, Taken};

/// Emits items that are due, each when it is claimed. When its root is acked, the item is done; when it fails, it is settled by the
/// kind of the fault: tried again, or parked.
///
/// Several tasks, and several processes, may have the same file. Keep the message timeout of the spout longer than an attempt may take,
/// or off: an attempt that timed out is made again, whatever it still does.
///
/// ```
/// # #[cfg(feature = "embedded")] {
/// use galerna_delay::DelaySpout;
/// use galerna_topology::TopologyBuilder;
///
/// let mut topology = TopologyBuilder::new("mails");
/// let due = topology.spout("due", || DelaySpout::new("mails.db")).message_timeout(None).outputs();
/// topology.for_each("send", |taken: galerna_delay::Taken| println!("{}", taken.item.payload)).shuffle(due);
/// topology.build().unwrap();
/// # }
/// ```
pub struct DelaySpout {
    place: Place,
    clock: Arc<dyn Clock>,
    options: DelayOptions,
    every: Duration,
    in_flight: usize,
    store: Option<DelayStore>,
    unsettled: usize,
    /// Ended, and not recorded yet.
    ended: Vec<(Taken, Result<(), Fault>)>,
    next_look: Option<Instant>,
}

/// Where its items are.
#[derive(Clone)]
enum Place {
    /// In a file that is opened with the spout.
    #[cfg(feature = "embedded")]
    File(std::path::PathBuf),
    Store(Arc<dyn ItemStore>),
}

impl std::fmt::Debug for DelaySpout {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DelaySpout").field("unsettled", &self.unsettled).finish_non_exhaustive()
    }
}

impl DelaySpout {
    /// The items of this file, which is created when missing: at most 1,000 at once, looked for every 100 ms.
    #[cfg(feature = "embedded")]
    pub fn new(path: impl Into<std::path::PathBuf>) -> Self {
        Self::at(Place::File(path.into()))
    }

    /// The items of a store, which may be in MongoDB; otherwise as those of a file.
    pub fn of(store: Arc<dyn ItemStore>) -> Self {
        Self::at(Place::Store(store))
    }

    fn at(place: Place) -> Self {
        Self {
            place,
            clock: Arc::new(SystemClock),
            options: DelayOptions::default(),
            every: Duration::from_millis(100),
            in_flight: 1_000,
            store: None,
            unsettled: 0,
            ended: Vec::new(),
            next_look: None,
        }
    }

    /// The same by another clock.
    #[must_use]
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// The same with other options; each task needs a holder of its own.
    #[must_use]
    pub fn options(mut self, options: DelayOptions) -> Self {
        self.options = options;
        self
    }

    /// The same, with another time between two looks at the file; a third of the lease at most.
    #[must_use]
    pub fn every(mut self, every: Duration) -> Self {
        self.every = every;
        self
    }

    /// The same with another number of items claimed at once.
    #[must_use]
    pub fn in_flight(mut self, most: usize) -> Self {
        self.in_flight = most.max(1);
        self
    }

    /// Records what has ended; what the store does not take is kept for the next time.
    async fn settle(&mut self) -> Result<(), Fault> {
        let Some(store) = self.store.as_mut().filter(|_| !self.ended.is_empty()) else { return Ok(()) };
        store.settle_all(&self.ended).await.or_unavailable()?;
        self.unsettled = self.unsettled.saturating_sub(self.ended.len());
        self.ended.clear();
        Ok(())
    }

    async fn settle_or_keep(&mut self) {
        // What is kept is told by `next`, which tries again.
        drop(self.settle().await);
    }
}

impl Spout for DelaySpout {
    type MessageId = Taken;
    type Outputs = Output<Taken>;

    async fn open(&mut self, _context: &TaskContext) -> Result<(), Fault> {
        let (clock, options) = (Arc::clone(&self.clock), self.options.clone());
        self.store = Some(match self.place.clone() {
            #[cfg(feature = "embedded")]
            Place::File(path) => {
                tokio::task::spawn_blocking(move || DelayStore::open(&path, clock, options)).await??
            }
            Place::Store(store) => DelayStore::new(store, clock, options),
        });
        Ok(())
    }

    async fn next(&mut self, out: &mut Roots<'_, Self>) -> Result<Next, Fault> {
        self.settle().await?;
        let now = Instant::now();
        if let Some(next) = self.next_look.filter(|next| *next > now) {
            return Ok(Next::After(next - now));
        }
        let room = self.in_flight.saturating_sub(self.unsettled).min(out.room().max(1));
        let Some(store) = &mut self.store else { return Ok(Next::Done) };
        // Also without room: it renews what is claimed.
        let taken = store.claim(room).await.or_unavailable()?;
        let full = taken.len() == room && room > 0;
        self.unsettled += taken.len();
        for taken in taken {
            let id = taken.item.id.clone();
            out.root_with_stable_id(taken.clone(), id).emit(taken);
        }
        if full {
            return Ok(Next::Ready);
        }
        self.next_look = Some(now + self.every);
        Ok(Next::After(self.every))
    }

    fn is_full(&self) -> bool {
        self.unsettled >= self.in_flight
    }

    async fn acked(&mut self, ids: &mut Vec<Taken>) {
        self.ended.extend(ids.drain(..).map(|taken| (taken, Ok(()))));
        // What waits behind it, of its key, may be due.
        self.next_look = None;
        self.settle_or_keep().await;
    }

    async fn failed(&mut self, failed: &mut Vec<Failed<Taken>>) {
        let fault = |failed: &Failed<Taken>| Fault::new(failed.failure.fault.kind(), failed.failure.reason());
        self.ended.extend(failed.drain(..).map(|one| {
            let fault = fault(&one);
            (one.id, Err(fault))
        }));
        self.settle_or_keep().await;
    }

    async fn close(&mut self) {
        self.settle_or_keep().await;
        // Closing folds the log back into the file, which blocks.
        if let Some(store) = self.store.take() {
            drop(tokio::task::spawn_blocking(move || drop(store)).await);
        }
    }
}
