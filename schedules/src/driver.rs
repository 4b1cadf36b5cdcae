//! A task that keeps a scheduler going: claims are renewed whatever those who run the firings are doing.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use galerna_retry::{Outage, Pauses};
use galerna_topology::Fault;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::{Firing, FiringId, Scheduler};

/// A scheduler looks at least so often, to hear of schedules that were added and of claims that were lost.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// And not more often than so.
const LOOK_AT_MOST: Duration = Duration::from_millis(20);

/// What to do.
#[derive(Debug)]
pub(crate) enum Order {
    /// Run it.
    Run(Firing),
    /// Let it stop, and finish it.
    Stop(FiringId, u64),
    /// It is another's by now.
    Lost(FiringId, u64),
}

/// What became of a firing.
#[derive(Debug)]
pub(crate) enum Report {
    /// An attempt ended.
    Finished(Firing, Result<(), Fault>),
    /// It was not begun.
    Returned(Firing),
}

/// The handle of the task.
#[derive(Debug)]
pub(crate) struct Driver {
    pub(crate) orders: mpsc::Receiver<Order>,
    reports: mpsc::Sender<Report>,
    room: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Driver {
    /// Starts the task. It claims nothing until it is given room.
    pub(crate) fn start(scheduler: Scheduler, most: usize) -> Self {
        // Each claim gives three orders at most.
        let (order, orders) = mpsc::channel(most.saturating_mul(3).clamp(16, 100_000));
        let (reports, reported) = mpsc::channel(most.clamp(16, 100_000));
        let room = Arc::new(AtomicUsize::new(0));
        let pauses = Pauses::new(Duration::from_millis(100), Duration::from_secs(5));
        let work = Work {
            scheduler,
            order,
            reported,
            room: Arc::clone(&room),
            unrecorded: Vec::new(),
            outage: Outage::new("keeping schedules", pauses),
        };
        Self { orders, reports, room, task: tokio::spawn(work.run()) }
    }

    /// How many firings may be claimed at once from now on.
    pub(crate) fn set_room(&self, most: usize) {
        self.room.store(most, Ordering::Relaxed);
    }

    /// Tells what became of a firing; waits while the store is behind.
    pub(crate) async fn report(&self, report: Report) {
        // The task ends only when this handle does.
        drop(self.reports.send(report).await);
    }

    /// Records what was reported, gives back what was not begun, and ends; for `at_most`.
    pub(crate) async fn end(self, at_most: Duration) {
        let Self { mut orders, reports, mut task, room } = self;
        room.store(0, Ordering::Relaxed);
        orders.close();
        while let Some(order) = orders.recv().await {
            if let Order::Run(firing) = order {
                drop(reports.send(Report::Returned(firing)).await);
            }
        }
        drop(reports);
        if tokio::time::timeout(at_most, &mut task).await.is_err() {
            task.abort();
        }
    }
}

struct Work {
    scheduler: Scheduler,
    order: mpsc::Sender<Order>,
    reported: mpsc::Receiver<Report>,
    room: Arc<AtomicUsize>,
    /// What the store has not taken yet.
    unrecorded: Vec<Report>,
    outage: Outage,
}

impl Work {
    async fn run(mut self) {
        let mut pause = Duration::ZERO;
        let mut open = true;
        while open || !self.unrecorded.is_empty() {
            tokio::select! {
                biased;
                report = self.reported.recv(), if open && self.unrecorded.is_empty() => match report {
                    Some(report) => {
                        self.unrecorded.push(report);
                        while self.unrecorded.len() < 64 && let Ok(report) = self.reported.try_recv() {
                            self.unrecorded.push(report);
                        }
                    }
                    None => open = false,
                },
                () = tokio::time::sleep(pause) => {}
            }
            pause = match self.look().await {
                Ok(pause) => {
                    self.outage.succeeded();
                    pause
                }
                Err(error) => self.outage.failed(&error),
            };
        }
    }

    async fn look(&mut self) -> Result<Duration, crate::StoreError> {
        for (id, epoch) in self.scheduler.lapsed() {
            self.send(Order::Lost(id, epoch));
        }
        while let Some(report) = self.unrecorded.last() {
            match report {
                Report::Finished(firing, result) => self.scheduler.finish(firing, result).await?,
                Report::Returned(firing) => self.scheduler.release(firing).await?,
            };
            self.unrecorded.pop();
        }
        let room = self.room.load(Ordering::Relaxed).saturating_sub(self.scheduler.held());
        let tick = self.scheduler.tick(room).await?;
        for (id, epoch) in tick.lost {
            self.send(Order::Lost(id, epoch));
        }
        for (id, epoch) in tick.stop {
            self.send(Order::Stop(id, epoch));
        }
        for firing in tick.claimed {
            if let Some(Order::Run(firing)) = self.send(Order::Run(firing)) {
                self.unrecorded.push(Report::Returned(firing));
            }
        }
        let pause = self.scheduler.until_next(LOOK_EVERY).await?;
        Ok(if self.scheduler.held() >= self.room.load(Ordering::Relaxed) {
            LOOK_EVERY
        } else {
            pause.max(LOOK_AT_MOST)
        })
    }

    /// The order, when nobody takes it.
    fn send(&self, order: Order) -> Option<Order> {
        self.order.try_send(order).err().map(|error| match error {
            mpsc::error::TrySendError::Full(order) | mpsc::error::TrySendError::Closed(order) => order,
        })
    }
}
