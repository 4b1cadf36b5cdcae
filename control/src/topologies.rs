//! The topologies that run in a process, by name.

use std::collections::HashSet;
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures_util::FutureExt;
use galerna_engine::{
    CheckpointReport, DrainReport, Engine, EngineOptions, Metrics, Rebalanced, Running, TopologyHandle,
};
use galerna_lock::Mutex;
use galerna_state::DeclaredState;
use galerna_topology::Topology;
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::{Instant, MissedTickBehavior};

use crate::autoscale::{Autoscale, AutoscaleView, Autoscaler};
use crate::error::ControlError;
use crate::recent::Recent;
use crate::upgrade::{BegunUpgrade, Upgrade, UpgradeView};
use crate::view::{Details, Summary};

/// How often a topology is looked at for its rates.
const LOOK: Duration = Duration::from_secs(1);
/// How long what has ended stays listed.
const KEPT: Duration = Duration::from_secs(600);
/// How long a topology that has finished may take to close.
const CLOSE: Duration = Duration::from_secs(30);
/// The longest name.
const NAME_CHARS: usize = 100;

/// What a topology does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Its spouts emit.
    Active,
    /// Its spouts may not emit; what is on its way goes on.
    Inactive,
    /// It ends: nothing is emitted any more, and what is pending is waited for.
    Ending,
    /// Its spouts had nothing more, and all that they emitted is done.
    Finished,
    /// It was ended by somebody.
    Killed,
}

impl Status {
    /// In a word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Inactive => "inactive",
            Self::Ending => "ending",
            Self::Finished => "finished",
            Self::Killed => "killed",
        }
    }

    /// Whether it has ended.
    pub fn is_over(self) -> bool {
        matches!(self, Self::Finished | Self::Killed)
    }
}

/// The topologies that run in this process, by name; clones are of the same. Dropping the last one aborts them: call
/// [`drain`](Self::drain) to end them in order.
///
/// What has ended stays listed for ten minutes, with what it had done.
///
/// ```
/// use galerna_control::Topologies;
/// use galerna_engine::EngineOptions;
/// use galerna_topology::prelude::*;
/// use std::time::Duration;
///
/// # struct Numbers(u64);
/// # impl Spout for Numbers {
/// #     type MessageId = u64;
/// #     type Outputs = Output<u64>;
/// #     async fn next(&mut self, out: &mut Roots<'_, Self>) -> Result<Next, Fault> {
/// #         if self.0 == 10 { return Ok(Next::Idle); }
/// #         self.0 += 1;
/// #         out.root(self.0).emit(self.0);
/// #         Ok(Next::Ready)
/// #     }
/// # }
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let mut topology = TopologyBuilder::new("numbers");
/// let numbers = topology.spout("numbers", || Numbers(0)).outputs();
/// topology.for_each("sink", |_: u64| ()).shuffle(numbers);
///
/// let topologies = Topologies::new();
/// topologies.submit("numbers", topology.build()?, EngineOptions::default()).await?;
/// topologies.deactivate("numbers")?;
/// assert_eq!(topologies.list()[0].status, galerna_control::Status::Inactive);
/// let report = topologies.kill("numbers", Some(Duration::from_secs(5))).await?;
/// assert!(report.drained);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Default)]
pub struct Topologies(Arc<Registry>);

#[derive(Default)]
struct Registry {
    entries: Mutex<Vec<Arc<Entry>>>,
    /// Names of what is being started.
    starting: Mutex<HashSet<Arc<str>>>,
}

impl Drop for Registry {
    fn drop(&mut self) {
        for entry in self.entries.lock().iter() {
            if let Some(owner) = entry.owner.lock().take() {
                owner.abort();
            }
        }
    }
}

/// One topology.
pub(crate) struct Entry {
    pub(crate) name: Arc<str>,
    /// As it was declared, in JSON.
    pub(crate) declared: String,
    pub(crate) message_timeout: Option<Duration>,
    pub(crate) state: Mutex<State>,
    pub(crate) recent: Mutex<Recent>,
    scalers: Mutex<Vec<Autoscaler>>,
    end: watch::Sender<Option<Duration>>,
    report: watch::Sender<Option<DrainReport>>,
    /// The task that owns it.
    owner: Mutex<Option<AbortHandle>>,
}

/// What there is of a topology.
pub(crate) enum State {
    /// It runs, and perhaps ends.
    Runs {
        handle: TopologyHandle,
        ending: bool,
    },
    Over {
        status: Status,
        metrics: Metrics,
    },
}

impl Entry {
    pub(crate) fn status(&self) -> Status {
        match &*self.state.lock() {
            State::Runs { ending: true, .. } => Status::Ending,
            State::Runs { handle, .. } if handle.is_active() => Status::Active,
            State::Runs { .. } => Status::Inactive,
            State::Over { status, .. } => *status,
        }
    }

    /// Its metrics: now, or when it had ended.
    pub(crate) fn metrics(&self) -> Metrics {
        let handle = match &*self.state.lock() {
            State::Runs { handle, .. } => handle.clone(),
            State::Over { metrics, .. } => return metrics.clone(),
        };
        handle.metrics()
    }

    /// The states that its components declare, of one that runs.
    pub(crate) fn states(&self) -> Vec<DeclaredState> {
        match &*self.state.lock() {
            State::Runs { handle, .. } => handle.declared_states(),
            State::Over { .. } => Vec::new(),
        }
    }

    /// Components whose executors follow their load.
    pub(crate) fn autoscaled(&self) -> Vec<AutoscaleView> {
        self.scalers.lock().iter().map(Autoscaler::view).collect()
    }

    pub(crate) fn report(&self) -> Option<DrainReport> {
        self.report.borrow().clone()
    }

    /// The handle by which it can be changed, unless it ends or has ended.
    fn handle(&self) -> Result<TopologyHandle, ControlError> {
        match &*self.state.lock() {
            State::Runs { handle, ending: false } => Ok(handle.clone()),
            State::Runs { .. } => Err(self.ending(Status::Ending)),
            State::Over { status, .. } => Err(self.ending(*status)),
        }
    }

    fn ending(&self, status: Status) -> ControlError {
        ControlError::Ending { name: self.name.clone(), status: status.as_str() }
    }

    fn begin_to_end(&self) {
        if let State::Runs { ending, .. } = &mut *self.state.lock() {
            *ending = true;
        }
    }

    fn look(&self) {
        let metrics = self.metrics();
        self.recent.lock().look(Instant::now(), metrics);
    }

    /// What autoscaling would change now.
    fn to_scale(&self) -> Vec<(String, usize)> {
        let recent = self.recent.lock();
        let mut scalers = self.scalers.lock();
        let decided = scalers.iter_mut().filter_map(|scaler| {
            let executors = recent.latest()?.component(&scaler.component)?.executors;
            let busy = recent.last_busy(&scaler.component)?;
            let to = scaler.decide(Instant::now(), executors, busy)?;
            Some((scaler.component.clone(), to))
        });
        decided.collect()
    }

    fn scale(&self, handle: &TopologyHandle) {
        for (component, to) in self.to_scale() {
            // What is changed is changed at once; nobody needs to wait here until tasks have stopped.
            if let Some(Err(error)) = handle.rebalance(&component, to).now_or_never() {
                tracing::warn!(topology = &*self.name, component, %error, "it is not scaled any more");
                self.scalers.lock().retain(|scaler| scaler.component != component);
            }
        }
    }
}

/// The name is free again when this is dropped.
struct Starting<'a> {
    registry: &'a Registry,
    name: Arc<str>,
}

impl Drop for Starting<'_> {
    fn drop(&mut self) {
        self.registry.starting.lock().remove(&self.name);
    }
}

fn checked(name: Arc<str>) -> Result<Arc<str>, ControlError> {
    let reason = match &*name {
        "" => "it is empty",
        "." | ".." => "it means a place in a path",
        name if name.chars().count() > NAME_CHARS => "it has more than 100 characters",
        name if name.chars().any(|c| c.is_control() || c == '/') => "it has a slash or a control character",
        _ => return Ok(name),
    };
    Err(ControlError::Name { name: name.chars().take(NAME_CHARS).collect(), reason })
}

impl Topologies {
    /// None yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Starts a topology under this name, as [`Engine::submit`] does.
    ///
    /// # Errors
    /// If the name is that of a topology that runs or cannot be one, or the topology does not start.
    pub async fn submit(
        &self,
        name: impl Into<Arc<str>>,
        topology: Topology,
        options: EngineOptions,
    ) -> Result<(), ControlError> {
        let name = checked(name.into())?;
        let starting = self.reserve(name.clone())?;
        let declared = topology.json();
        let spouts = topology.components().iter().filter(|c| c.factory.is_spout());
        let message_timeout = spouts.filter_map(|spout| topology.message_timeout(spout)).max();
        let running = Engine::submit(topology, options).await;
        let running = running.map_err(|cause| ControlError::Start { name: name.clone(), cause })?;
        let entry = Arc::new(Entry {
            name: name.clone(),
            declared,
            message_timeout,
            state: Mutex::new(State::Runs { handle: running.handle(), ending: false }),
            recent: Mutex::default(),
            scalers: Mutex::default(),
            end: watch::Sender::new(None),
            report: watch::Sender::new(None),
            owner: Mutex::default(),
        });
        let owner = tokio::spawn(own(running, entry.clone(), Arc::downgrade(&self.0)));
        *entry.owner.lock() = Some(owner.abort_handle());
        let mut entries = self.0.entries.lock();
        // What has ended under this name gives way.
        entries.retain(|other| other.name != name);
        entries.push(entry);
        drop(entries);
        drop(starting);
        Ok(())
    }

    fn reserve(&self, name: Arc<str>) -> Result<Starting<'_>, ControlError> {
        let mut starting = self.0.starting.lock();
        let runs = self.0.entries.lock().iter().any(|e| e.name == name && !e.status().is_over());
        if runs || !starting.insert(name.clone()) {
            return Err(ControlError::Taken(name));
        }
        Ok(Starting { registry: &self.0, name })
    }

    pub(crate) fn entries(&self) -> Vec<Arc<Entry>> {
        self.0.entries.lock().clone()
    }

    fn entry(&self, name: &str) -> Result<Arc<Entry>, ControlError> {
        let entries = self.0.entries.lock();
        let entry = entries.iter().find(|entry| &*entry.name == name).cloned();
        entry.ok_or_else(|| ControlError::Unknown(name.chars().take(NAME_CHARS).collect::<String>().into()))
    }

    /// All of them in the order in which they were submitted, those that have ended for a while too.
    pub fn list(&self) -> Vec<Summary> {
        self.entries().iter().map(|entry| Summary::of(entry)).collect()
    }

    /// What there is to know of one.
    ///
    /// # Errors
    /// If there is none of this name.
    pub fn get(&self, name: &str) -> Result<Details, ControlError> {
        Ok(Details::of(&*self.entry(name)?))
    }

    /// What can be seen and switched of one that runs.
    ///
    /// # Errors
    /// If there is none of this name, or it ends or has ended.
    pub fn handle(&self, name: &str) -> Result<TopologyHandle, ControlError> {
        self.entry(name)?.handle()
    }

    /// The metrics of each that has not ended, with its name.
    pub fn metrics(&self) -> Vec<(Arc<str>, Metrics)> {
        let entries = self.entries().into_iter().filter(|entry| !entry.status().is_over());
        entries.map(|entry| (entry.name.clone(), entry.metrics())).collect()
    }

    /// Lets the spouts of one emit.
    ///
    /// # Errors
    /// If there is none of this name, or it ends or has ended.
    pub fn activate(&self, name: &str) -> Result<(), ControlError> {
        self.handle(name)?.activate();
        Ok(())
    }

    /// Has the spouts of one stop emitting. What is on its way goes on.
    ///
    /// # Errors
    /// If there is none of this name, or it ends or has ended.
    pub fn deactivate(&self, name: &str) -> Result<(), ControlError> {
        self.handle(name)?.deactivate();
        Ok(())
    }

    /// Changes the executors of a component of one; see [`TopologyHandle::rebalance`].
    ///
    /// # Errors
    /// If there is none of this name, it ends or has ended, or cannot have so many.
    pub async fn rebalance(
        &self,
        name: &str,
        component: &str,
        executors: usize,
    ) -> Result<Rebalanced, ControlError> {
        let entry = self.entry(name)?;
        let rebalanced = entry.handle()?.rebalance(component, executors).await;
        rebalanced.map_err(|cause| ControlError::Rebalance { name: entry.name.clone(), cause })
    }

    /// Takes a checkpoint of one now, and waits until it is committed.
    ///
    /// # Errors
    /// If there is none of this name, it ends or has ended, takes no checkpoints, or this one came to nothing.
    pub async fn checkpoint(&self, name: &str) -> Result<CheckpointReport, ControlError> {
        let entry = self.entry(name)?;
        let taken = entry.handle()?.checkpoint().await;
        taken.map_err(|cause| ControlError::Checkpoint { name: entry.name.clone(), cause })
    }

    /// What a program that declares these states would make of the last checkpoint of one.
    ///
    /// # Errors
    /// If there is none of this name, it ends or has ended, takes no checkpoints, or has none yet.
    pub async fn plan_upgrade(
        &self,
        name: &str,
        declares: &[DeclaredState],
    ) -> Result<UpgradeView, ControlError> {
        let entry = self.entry(name)?;
        let planned = entry.handle()?.plan_upgrade(declares).await;
        let (checkpoint, plan) =
            planned.map_err(|cause| ControlError::Checkpoint { name: entry.name.clone(), cause })?;
        Ok(UpgradeView::new(&entry.name, checkpoint, &plan))
    }

    /// Has one end so that another program goes on where it was: takes a checkpoint, looks whether the new program would start from it, and
    /// begins to end the topology, as [`begin_kill`](Self::begin_kill) does. When it has ended, its last checkpoint has all that it did.
    ///
    /// # Errors
    /// If there is none of this name, it ends or has ended, or the checkpoint came to nothing; [`ControlError::Upgrade`] if the new program
    /// would not start from it. The topology runs on then.
    pub async fn upgrade(&self, name: &str, upgrade: Upgrade) -> Result<BegunUpgrade, ControlError> {
        let checkpoint = self.checkpoint(name).await?;
        let plan = match &upgrade.declares {
            Some(declares) => Some(self.plan_upgrade(name, declares).await?),
            None => None,
        };
        if let Some(plan) = &plan
            && !plan.starts
            && !(upgrade.drop_orphaned && plan.starts_dropping_orphaned())
        {
            let advice = plan.advice.join(" ");
            return Err(ControlError::Upgrade { name: self.entry(name)?.name.clone(), advice });
        }
        self.begin_kill(name, upgrade.wait)?;
        Ok(BegunUpgrade { checkpoint, plan })
    }

    /// Has the executors of a component stay as they are from now on, unless somebody changes them.
    ///
    /// # Errors
    /// If there is none of this name, it ends or has ended; [`ControlError::Autoscale`] if they do not follow its load.
    pub fn stop_autoscale(&self, name: &str, component: &str) -> Result<(), ControlError> {
        let entry = self.entry(name)?;
        entry.handle()?;
        let mut scalers = entry.scalers.lock();
        let before = scalers.len();
        scalers.retain(|scaler| scaler.component != component);
        if scalers.len() == before {
            let reason = "its executors do not follow its load";
            return Err(ControlError::Autoscale { component: component.to_owned(), reason });
        }
        Ok(())
    }

    /// Has the executors of a component follow its load from now on, looked at once a second; instead of how they did before.
    ///
    /// # Errors
    /// If there is none of this name, it ends or has ended, or it cannot have that many or few.
    pub async fn autoscale(
        &self,
        name: &str,
        component: &str,
        options: Autoscale,
    ) -> Result<(), ControlError> {
        let refused = |reason| Err(ControlError::Autoscale { component: component.to_owned(), reason });
        if options.executors.is_empty() {
            return refused("the fewest executors are more than the most");
        }
        let shares = 0.0..=1.0;
        if !shares.contains(&options.shrink_at) || !shares.contains(&options.grow_at) {
            return refused("busy shares are from 0 to 1");
        }
        if options.shrink_at >= options.grow_at {
            return refused("it would shrink at a share at which it grows");
        }
        let entry = self.entry(name)?;
        let handle = entry.handle()?;
        let now = handle.metrics().component(component).map_or(1, |component| component.executors);
        let (least, most) = (*options.executors.start(), *options.executors.end());
        // Whether it can have the fewest and the most is asked of the engine, which ends at what it is to have now.
        for executors in [least, most, now.clamp(least, most)] {
            self.rebalance(name, component, executors).await?;
        }
        let mut scalers = entry.scalers.lock();
        scalers.retain(|scaler| scaler.component != component);
        scalers.push(Autoscaler::new(component.to_owned(), options));
        Ok(())
    }

    /// Has one end: nothing is emitted any more, what is pending is waited for, for this long at most, and then all is closed.
    /// Without a time it is the longest message timeout of its spouts, or 30 s where that is off. This returns at once;
    /// [`kill`](Self::kill) waits.
    ///
    /// # Errors
    /// If there is none of this name, or it ends or has ended.
    pub fn begin_kill(&self, name: &str, wait: Option<Duration>) -> Result<(), ControlError> {
        let entry = self.entry(name)?;
        entry.handle()?;
        let wait = wait.or(entry.message_timeout).unwrap_or(CLOSE);
        entry.begin_to_end();
        entry.end.send_if_modified(|end| {
            let first = end.is_none();
            *end = end.or(Some(wait));
            first
        });
        Ok(())
    }

    /// As [`begin_kill`](Self::begin_kill), and waits for the end. Dropping the future does not keep the topology running.
    ///
    /// # Errors
    /// If there is none of this name, or it ends or has ended.
    pub async fn kill(&self, name: &str, wait: Option<Duration>) -> Result<DrainReport, ControlError> {
        let entry = self.entry(name)?;
        let mut report = entry.report.subscribe();
        self.begin_kill(name, wait)?;
        let ended = report.wait_for(Option::is_some).await.ok().and_then(|report| report.clone());
        ended.ok_or_else(|| entry.ending(Status::Killed))
    }

    /// Ends all at the same time, each within this time; those that end already are waited for. Returns what became of each.
    pub async fn drain(&self, deadline: Duration) -> Vec<(Arc<str>, DrainReport)> {
        let mut reports = Vec::new();
        let entries: Vec<_> = self.entries().into_iter().filter(|entry| !entry.status().is_over()).collect();
        for entry in &entries {
            // One that ends already does so by its own deadline.
            let _ = self.begin_kill(&entry.name, Some(deadline));
        }
        for entry in entries {
            let mut report = entry.report.subscribe();
            if let Ok(report) = report.wait_for(Option::is_some).await
                && let Some(report) = report.clone()
            {
                reports.push((entry.name.clone(), report));
            }
        }
        reports
    }
}

impl std::fmt::Debug for Topologies {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.entries().iter().map(|entry| (&entry.name, entry.status()))).finish()
    }
}

/// Owns a topology until it has ended, and keeps it listed for a while after that.
async fn own(running: Running, entry: Arc<Entry>, registry: Weak<Registry>) {
    let mut end = entry.end.subscribe();
    let mut looks = tokio::time::interval(LOOK);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (status, wait) = loop {
        tokio::select! {
            () = running.finished() => break (Status::Finished, CLOSE),
            Ok(wait) = end.wait_for(Option::is_some) => break (Status::Killed, wait.unwrap_or(CLOSE)),
            _ = looks.tick() => {
                entry.look();
                entry.scale(&running.handle());
            }
        }
    };
    entry.begin_to_end();
    tracing::info!(topology = &*entry.name, "the topology ends");
    let drained = running.drain(wait);
    tokio::pin!(drained);
    let report = loop {
        tokio::select! {
            report = &mut drained => break report,
            _ = looks.tick() => entry.look(),
        }
    };
    if !report.drained {
        tracing::warn!(
            topology = &*entry.name,
            unfinished = report.unfinished,
            "roots were still pending after {wait:?}"
        );
    }
    entry.recent.lock().look(Instant::now(), report.metrics.clone());
    *entry.state.lock() = State::Over { status, metrics: report.metrics.clone() };
    entry.report.send_replace(Some(report));
    tracing::info!(topology = &*entry.name, "the topology is {}", status.as_str());
    tokio::time::sleep(KEPT).await;
    if let Some(registry) = registry.upgrade() {
        registry.entries.lock().retain(|other| !Arc::ptr_eq(other, &entry));
    }
}
