//! Pages to fetch: jobs on disk, done by as many workers as the backlog asks for.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use galerna_delay::{DelayStore, Taken};
use galerna_sqlite::OpenError;
use galerna_topology::prelude::*;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::Scale;

/// How often jobs are looked for while there is room. The claims are renewed as often.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// A page to fetch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Job {
    /// The source's name.
    pub(crate) source: String,
    /// Which crawl it is of: its firing.
    pub(crate) crawl: String,
    /// The page's address.
    #[serde(with = "crate::config::address")]
    pub(crate) url: url::Url,
    /// The how many-th page of the crawl.
    pub(crate) page: u32,
}

impl Job {
    /// Its name, the same whoever puts it.
    pub(crate) fn id(&self) -> String {
        format!("{}#{}", self.crawl, self.page)
    }
}

/// How much there is to do, for whoever looks.
#[derive(Debug, Default)]
pub(crate) struct Load {
    pub(crate) workers: AtomicUsize,
    pub(crate) busy: AtomicUsize,
    pub(crate) backlog: AtomicUsize,
    /// The most workers there have been.
    pub(crate) most: AtomicUsize,
}

/// Opens the store of jobs: each of those who use it has its own.
pub(crate) type OpenJobs = Arc<dyn Fn() -> Result<DelayStore, OpenError> + Send + Sync>;

/// Emits the jobs that this process claims, each as one root, as many at once as there are workers.
pub(crate) struct JobSpout {
    open: OpenJobs,
    store: Option<DelayStore>,
    scale: Scale,
    load: Arc<Load>,
    unsettled: usize,
    untold: Vec<(Taken, Result<(), Fault>)>,
    look_at: Instant,
}

impl JobSpout {
    pub(crate) fn new(open: OpenJobs, scale: Scale, load: Arc<Load>) -> Self {
        Self { open, store: None, scale, load, unsettled: 0, untold: Vec::new(), look_at: Instant::now() }
    }

    /// Tells the store how attempts ended; what it does not take is told again.
    async fn tell(&mut self) {
        let Some(store) = &mut self.store else { return };
        for (taken, result) in std::mem::take(&mut self.untold) {
            match store.settle(&taken, &result).await {
                Ok(_) => self.unsettled = self.unsettled.saturating_sub(1),
                Err(error) => {
                    tracing::warn!(job = taken.item.id, %error, "how it ended is told again");
                    self.untold.push((taken, result));
                }
            }
        }
        self.load.busy.store(self.unsettled, Ordering::Relaxed);
    }
}

impl Spout for JobSpout {
    type MessageId = Taken;
    type Outputs = Output<Job>;

    const STABLE_IDS: bool = true;

    async fn open(&mut self, _context: &TaskContext) -> Result<(), Fault> {
        self.store = Some((self.open)().or_unavailable()?);
        Ok(())
    }

    async fn next(&mut self, out: &mut Roots<'_, Self>) -> Result<Next, Fault> {
        self.tell().await;
        if Instant::now() < self.look_at {
            return Ok(Next::Idle);
        }
        self.look_at = Instant::now() + LOOK_EVERY;
        let Some(store) = &mut self.store else { return Ok(Next::Done) };
        let parked = store.parked(1_000).await.or_unavailable()?.len();
        let items = store.len().await.or_unavailable()?;
        let backlog = usize::try_from(items).unwrap_or(usize::MAX).saturating_sub(parked);
        let workers = self.scale.look(backlog);
        self.load.backlog.store(backlog, Ordering::Relaxed);
        self.load.workers.store(workers, Ordering::Relaxed);
        self.load.most.fetch_max(workers, Ordering::Relaxed);
        let claimed = store.claim(workers.saturating_sub(self.unsettled)).await.or_unavailable()?;
        for taken in claimed {
            self.unsettled += 1;
            match serde_json::from_value::<Job>(taken.item.payload.clone()) {
                Ok(job) => out.root_with_stable_id(taken.clone(), taken.item.id.clone()).emit(job),
                Err(error) => {
                    let fault = Fault::permanent(format!("it is no job of this version: {error}"));
                    self.untold.push((taken, Err(fault)));
                }
            }
        }
        self.load.busy.store(self.unsettled, Ordering::Relaxed);
        Ok(Next::Idle)
    }

    async fn ready(&mut self) {
        tokio::time::sleep_until(self.look_at).await;
    }

    fn is_full(&self) -> bool {
        self.unsettled >= self.scale.workers()
    }

    async fn acked(&mut self, ids: &mut Vec<Taken>) {
        self.untold.extend(ids.drain(..).map(|taken| (taken, Ok(()))));
        // Another job may begin at once.
        self.look_at = Instant::now();
        self.tell().await;
    }

    async fn failed(&mut self, failed: &mut Vec<Failed<Taken>>) {
        for Failed { id, failure } in failed.drain(..) {
            let fault = Fault::new(failure.fault.kind(), failure.to_string());
            self.untold.push((id, Err(fault)));
        }
        self.tell().await;
    }

    async fn close(&mut self) {
        self.tell().await;
    }
}
