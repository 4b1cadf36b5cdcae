//! Firings as the roots of a topology.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use galerna_model::{Clock, SystemClock};
use galerna_topology::{Failed, Fault, Next, Output, Roots, Spout, TaskContext};

use crate::driver::{Driver, Order, Report};
use crate::{Firing, ScheduleStore, Scheduler, SchedulerOptions};

/// Emits the firings that this process claims, each as one root. Acked, a firing is done; failed or timed out, it is tried again by the
/// retry policy of its schedule, here or in another process; and its record says so.
///
/// Under `cancel_other` a tuple on its way is not called back: the later firing starts when the earlier root has ended.
///
/// ```
/// # #[cfg(feature = "embedded")] {
/// use std::sync::Arc;
///
/// use galerna_schedules::{Firing, ScheduleSpout, sqlite::SqliteSchedules};
/// use galerna_topology::TopologyBuilder;
///
/// let store = Arc::new(SqliteSchedules::in_memory().unwrap());
/// let mut topology = TopologyBuilder::new("reports");
/// let firings = topology.spout("schedules", move || ScheduleSpout::new(store.clone())).outputs();
/// topology.for_each("print", |firing: Firing| println!("{}", firing.id)).shuffle(&firings);
/// topology.build().unwrap();
/// # }
/// ```
pub struct ScheduleSpout {
    store: Arc<dyn ScheduleStore>,
    clock: Arc<dyn Clock>,
    options: SchedulerOptions,
    in_flight: usize,
    driver: Option<Driver>,
    /// What [`Spout::ready`] has taken.
    taken: Vec<Order>,
    unsettled: usize,
}

impl fmt::Debug for ScheduleSpout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ScheduleSpout")
            .field("options", &self.options)
            .field("unsettled", &self.unsettled)
            .finish()
    }
}

impl ScheduleSpout {
    /// The schedules of a store, by the machine's clock; up to 16 firings a task are on their way at once.
    pub fn new(store: Arc<dyn ScheduleStore>) -> Self {
        Self {
            store,
            clock: Arc::new(SystemClock),
            options: SchedulerOptions::default(),
            in_flight: 16,
            driver: None,
            taken: Vec::new(),
            unsettled: 0,
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
    pub fn options(mut self, options: SchedulerOptions) -> Self {
        self.options = options;
        self
    }

    /// The same with another number of firings on their way at once.
    #[must_use]
    pub fn in_flight(mut self, most: usize) -> Self {
        self.in_flight = most.max(1);
        self
    }

    async fn report(&mut self, report: Report) {
        self.unsettled = self.unsettled.saturating_sub(1);
        if let Some(driver) = &self.driver {
            driver.report(report).await;
        }
    }

    async fn give_back_taken(&mut self) {
        let Some(driver) = &mut self.driver else { return };
        while let Ok(order) = driver.orders.try_recv() {
            self.taken.push(order);
        }
        for order in self.taken.drain(..) {
            if let Order::Run(firing) = order {
                driver.report(Report::Returned(firing)).await;
            }
        }
    }
}

impl Spout for ScheduleSpout {
    type MessageId = Firing;
    type Outputs = Output<Firing>;

    async fn open(&mut self, _context: &TaskContext) -> Result<(), Fault> {
        let scheduler =
            Scheduler::new(Arc::clone(&self.store), Arc::clone(&self.clock), self.options.clone());
        self.driver = Some(Driver::start(scheduler, self.in_flight));
        Ok(())
    }

    async fn next(&mut self, out: &mut Roots<'_, Self>) -> Result<Next, Fault> {
        let Some(driver) = &mut self.driver else { return Ok(Next::Done) };
        while let Ok(order) = driver.orders.try_recv() {
            self.taken.push(order);
        }
        for order in self.taken.drain(..) {
            if let Order::Run(firing) = order {
                self.unsettled += 1;
                let id = firing.id.to_string();
                out.root_with_stable_id(firing.clone(), id).emit(firing);
            }
        }
        driver.set_room(self.in_flight);
        Ok(Next::Idle)
    }

    async fn ready(&mut self) {
        let Some(driver) = &mut self.driver else { return };
        match driver.orders.recv().await {
            Some(order) => self.taken.push(order),
            None => std::future::pending().await,
        }
    }

    fn is_full(&self) -> bool {
        self.unsettled >= self.in_flight
    }

    async fn acked(&mut self, ids: &mut Vec<Firing>) {
        for firing in ids.drain(..) {
            self.report(Report::Finished(firing, Ok(()))).await;
        }
    }

    async fn failed(&mut self, failed: &mut Vec<Failed<Firing>>) {
        for Failed { id, failure } in failed.drain(..) {
            let fault = Fault::new(failure.fault.kind(), failure.to_string());
            self.report(Report::Finished(id, Err(fault))).await;
        }
    }

    async fn deactivate(&mut self) {
        if let Some(driver) = &self.driver {
            driver.set_room(0);
        }
        self.give_back_taken().await;
    }

    async fn close(&mut self) {
        self.give_back_taken().await;
        if let Some(driver) = self.driver.take() {
            driver.end(Duration::from_secs(10)).await;
        }
    }
}
