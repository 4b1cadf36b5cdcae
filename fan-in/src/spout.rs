//! Ends as the roots of a topology.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use galerna_model::{Clock, SystemClock};
use galerna_topology::{Failed, Fault, Next, Output, Roots, Spout, TaskContext};
use tokio::time::Instant;

use crate::{Ended, FanIn, FanInOptions, FanInStore};

/// How often ends are looked for.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Emits the ends that this process claims, each as one root. Acked, an end is settled; failed or timed out, it is given back, and
/// claimed again after a second, here or in another process. So what a topology makes of an end is made at least once, and again only
/// after a failure, or when a process was lost: by the fan-in's name its receiver can tell.
///
/// Its roots should time out before the lease of the claims ([`FanInOptions::lease`]) has passed.
///
/// ```
/// # #[cfg(feature = "embedded")] {
/// use std::sync::Arc;
///
/// use galerna_fan_in::{Ended, FanInSpout, sqlite::SqliteFanIns};
/// use galerna_topology::TopologyBuilder;
///
/// let store = Arc::new(SqliteFanIns::in_memory().unwrap());
/// let mut topology = TopologyBuilder::new("charts");
/// let ends = topology.spout("ends", move || FanInSpout::new(store.clone())).outputs();
/// topology.for_each("print", |ended: Ended| println!("{}: {:?}", ended.record.id, ended.end)).shuffle(ends);
/// topology.build().unwrap();
/// # }
/// ```
pub struct FanInSpout {
    store: Arc<dyn FanInStore>,
    clock: Arc<dyn Clock>,
    options: FanInOptions,
    in_flight: usize,
    fan_in: Option<FanIn>,
    unsettled: usize,
    /// Ends whose roots have ended, acked or not, and of which the store has not been told.
    untold: Vec<(Ended, bool)>,
    look_at: Option<Instant>,
}

impl fmt::Debug for FanInSpout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FanInSpout")
            .field("options", &self.options)
            .field("unsettled", &self.unsettled)
            .finish_non_exhaustive()
    }
}

impl FanInSpout {
    /// The fan-ins of a store, by the machine's clock; up to 16 ends a task are on their way at once.
    pub fn new(store: Arc<dyn FanInStore>) -> Self {
        Self {
            store,
            clock: Arc::new(SystemClock),
            options: FanInOptions::default(),
            in_flight: 16,
            fan_in: None,
            unsettled: 0,
            untold: Vec::new(),
            look_at: None,
        }
    }

    /// The same by another clock.
    #[must_use]
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// The same with another lease; each task takes a holder's name of its own.
    #[must_use]
    pub fn lease(mut self, lease: Duration) -> Self {
        self.options.lease = lease;
        self
    }

    /// The same with another number of ends on their way at once.
    #[must_use]
    pub fn in_flight(mut self, most: usize) -> Self {
        self.in_flight = most.max(1);
        self
    }

    /// Tells the store what became of ends; what it does not take is told again.
    async fn tell(&mut self) {
        let Some(fan_in) = &mut self.fan_in else { return };
        for (ended, acked) in std::mem::take(&mut self.untold) {
            let told = match acked {
                true => fan_in.settle(&ended).await.map(drop),
                false => fan_in.release(&ended).await,
            };
            match told {
                Ok(()) => self.unsettled = self.unsettled.saturating_sub(1),
                Err(error) => {
                    tracing::warn!(fan_in = ended.record.id, %error, "what became of its end is told again");
                    self.untold.push((ended, acked));
                }
            }
        }
    }
}

impl Spout for FanInSpout {
    type MessageId = Ended;
    type Outputs = Output<Ended>;

    const STABLE_IDS: bool = true;

    async fn open(&mut self, _context: &TaskContext) -> Result<(), Fault> {
        self.fan_in =
            Some(FanIn::new(Arc::clone(&self.store), Arc::clone(&self.clock), self.options.clone()));
        Ok(())
    }

    async fn next(&mut self, out: &mut Roots<'_, Self>) -> Result<Next, Fault> {
        self.tell().await;
        let room = self.in_flight.saturating_sub(self.unsettled);
        if self.look_at.is_some_and(|at| Instant::now() < at) {
            return Ok(Next::Idle);
        }
        self.look_at = Some(Instant::now() + LOOK_EVERY);
        let Some(fan_in) = &mut self.fan_in else { return Ok(Next::Done) };
        // Without room, deadlines that have passed are still to end what waits for them.
        let ended = fan_in.ended(room).await.map_err(|error| Fault::unavailable(error.to_string()))?;
        for ended in ended {
            self.unsettled += 1;
            out.root_with_stable_id(ended.clone(), ended.record.id.clone()).emit(ended);
        }
        Ok(Next::Idle)
    }

    async fn ready(&mut self) {
        match self.look_at {
            Some(at) => tokio::time::sleep_until(at).await,
            None => std::future::ready(()).await,
        }
    }

    fn is_full(&self) -> bool {
        self.unsettled >= self.in_flight
    }

    async fn acked(&mut self, ids: &mut Vec<Ended>) {
        self.untold.extend(ids.drain(..).map(|ended| (ended, true)));
        self.tell().await;
    }

    async fn failed(&mut self, failed: &mut Vec<Failed<Ended>>) {
        for Failed { id, failure } in failed.drain(..) {
            tracing::warn!(fan_in = id.record.id, %failure, "its end was not acted on and is given back");
            self.untold.push((id, false));
        }
        // What fails at once is not to be tried at once, for ever.
        self.look_at = Some(Instant::now() + Duration::from_secs(1));
        self.tell().await;
    }

    async fn close(&mut self) {
        self.tell().await;
    }
}
