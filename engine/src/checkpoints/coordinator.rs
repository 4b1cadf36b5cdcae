//! Taking checkpoints, one after the other.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use galerna_state::{CheckpointId, Manifest, StoredPart, TaskState};
use tokio::sync::{mpsc, oneshot};

use super::status::{CheckpointFailure, CheckpointReport};
use super::{CheckpointOptions, Checkpoints, Current, Part, PartError, Passed, SpoutCommand};
use crate::clock::nanos;
use crate::plan::TaskPlan;
use crate::shared::Shared;
use crate::worker::sleep_until;

/// Somebody wants a checkpoint, of all that is done by now.
pub(super) type Request = oneshot::Sender<Result<CheckpointReport, CheckpointFailure>>;

/// How many more may wait for one: the next one serves all of them.
const REQUESTS: usize = 64;
/// The shortest time between two that are taken early.
const SHORTEST: Duration = Duration::from_millis(20);

/// What comes to the coordinator.
pub(crate) struct Incoming {
    passed: mpsc::Receiver<Passed>,
    requests: mpsc::Receiver<Request>,
}

/// Takes the checkpoints of a topology.
pub(crate) struct Coordinator {
    shared: Arc<Shared>,
    options: CheckpointOptions,
    incoming: Incoming,
    spouts: Vec<mpsc::Sender<SpoutCommand>>,
    states: Vec<TaskState>,
    /// The last one that was committed.
    previous: Option<Manifest>,
    /// How many barriers have been sent.
    number: u64,
}

impl Checkpoints {
    /// What the tasks share, and the way back from them. `tasks` is how many there are.
    pub(crate) fn new(
        tasks: usize,
        known: Vec<super::KnownIds>,
        options: &CheckpointOptions,
        status: Arc<super::Status>,
    ) -> (Self, Incoming) {
        let (sender, passed) = mpsc::channel(tasks.max(1));
        let (requests, requested) = mpsc::channel(REQUESTS);
        let checkpoints = Self {
            current: galerna_lock::Mutex::new(None),
            passed: sender,
            requests,
            wanted: tokio::sync::Notify::new(),
            known,
            store: options.store.clone(),
            most_held: options.held_acks.max(1),
            status,
        };
        (checkpoints, Incoming { passed, requests: requested })
    }
}

impl Coordinator {
    /// Of a topology that has checkpoints. `previous` is the one that was restored.
    pub(crate) fn new(
        shared: Arc<Shared>,
        options: CheckpointOptions,
        incoming: Incoming,
        spouts: Vec<mpsc::Sender<SpoutCommand>>,
        previous: Option<Manifest>,
    ) -> Self {
        let states = shared.states.values().cloned().collect();
        Self { shared, options, incoming, spouts, states, previous, number: 0 }
    }

    pub(crate) async fn run(mut self) {
        let shared = self.shared.clone();
        let Some(checkpoints) = &shared.checkpoints else { return };
        let clock = &shared.clock;
        let mut next = clock.now().saturating_add(self.options.interval);
        let mut early = clock.now().saturating_add(SHORTEST);
        loop {
            let mut asked = Vec::new();
            tokio::select! {
                () = sleep_until(clock, next) => {}
                request = self.incoming.requests.recv() => match request {
                    Some(request) => asked.push(request),
                    None => return,
                },
                () = async { checkpoints.wanted.notified().await; sleep_until(clock, early).await } => {}
            }
            while let Ok(request) = self.incoming.requests.try_recv() {
                asked.push(request);
            }
            let begun = clock.now();
            let outcome = self.take(checkpoints).await;
            match &outcome {
                Ok(report) => checkpoints.status.committed(report.clone(), clock.now()),
                Err(failure) => checkpoints.status.failed(failure),
            }
            for request in asked {
                // Who asked may be gone.
                let _ = request.send(outcome.clone());
            }
            next = begun.saturating_add(self.options.interval).max(clock.now());
            // A store that fails is not asked again and again.
            early = match outcome {
                Ok(_) => clock.now().saturating_add(SHORTEST),
                Err(_) => next,
            };
        }
    }

    /// Takes one.
    async fn take(&mut self, checkpoints: &Checkpoints) -> Result<CheckpointReport, CheckpointFailure> {
        let clock = self.shared.clock.clone();
        let begun = clock.now();
        let id = self.options.store.begin().await?;
        let base = self.previous.as_ref().map(|previous| previous.id);
        *checkpoints.current.lock() = Some(Current { id, base });
        self.number += 1;
        self.shared.lanes.expect_barrier(self.number);
        for spout in &self.spouts {
            let sent = spout.send(SpoutCommand::Barrier(self.number)).await;
            sent.map_err(|_| CheckpointFailure::Ended)?;
        }
        let parts = self.parts(id).await?;
        let written_bytes = parts.iter().map(|part| part.1).sum();
        let parts: Vec<StoredPart> = parts.into_iter().map(|part| part.0).collect();
        // All that was told to a ledger before the last task passed the barrier counts.
        self.settle().await?;
        let in_doubt = self.in_doubt(checkpoints, nanos(clock.now()));
        let doubtful = in_doubt.values().map(BTreeSet::len).sum();
        let topology = self.shared.topology.name().to_string();
        let taken_at = self.shared.state_clock.now();
        let manifest = Manifest::assemble(id, topology, taken_at, self.previous.as_ref(), &parts, in_doubt)?;
        self.options.store.commit(&manifest).await?;
        for state in &self.states {
            state.committed(id);
        }
        let now = nanos(clock.now());
        checkpoints.known.iter().for_each(|known| known.committed(self.number, now));
        for spout in &self.spouts {
            let sent = spout.send(SpoutCommand::Committed(self.number)).await;
            sent.map_err(|_| CheckpointFailure::Ended)?;
        }
        let state_bytes = manifest.bytes();
        self.previous = Some(manifest);
        if let Err(error) = self.options.store.collect(self.options.keep).await {
            tracing::warn!(%error, "old checkpoints could not be removed");
        }
        let took = clock.now().saturating_sub(begun);
        Ok(CheckpointReport { id, took, written_bytes, state_bytes, in_doubt: doubtful })
    }

    /// Waits until all tasks have passed the barrier and what they wrote is stored, each with how many bytes that are.
    async fn parts(&mut self, id: CheckpointId) -> Result<Vec<(StoredPart, u64)>, CheckpointFailure> {
        let store = self.options.store.clone();
        let put = |part: Part| {
            let store = store.clone();
            async move {
                let bytes = part.bytes.len() as u64;
                store.put(id, part).await.map(|stored| (stored, bytes))
            }
        };
        let mut missing: BTreeSet<(usize, usize)> = self.tasks();
        let (mut putting, mut parts, mut failure) = (FuturesUnordered::new(), Vec::new(), None);
        let clock = self.shared.clock.clone();
        let mut slow_at = clock.now().saturating_add(self.options.slow_after);
        while !missing.is_empty() || !putting.is_empty() {
            tokio::select! {
                passed = self.incoming.passed.recv(), if !missing.is_empty() => {
                    let Some(Passed { task, part }) = passed else { return Err(CheckpointFailure::Ended) };
                    missing.remove(&(task.component, task.task));
                    match part {
                        None => {}
                        Some(Ok(part)) => putting.push(put(part)),
                        Some(Err(error)) => failure = failure.or(Some(self.no_part(task, error))),
                    }
                }
                Some(stored) = putting.next() => match stored {
                    Ok(stored) => parts.push(stored),
                    Err(error) => failure = failure.or(Some(error.into())),
                },
                () = sleep_until(&clock, slow_at) => {
                    slow_at = Duration::MAX;
                    self.tell_missing(&missing);
                }
            }
        }
        match failure {
            Some(failure) => Err(failure),
            None => Ok(parts),
        }
    }

    /// All tasks, by component and index.
    fn tasks(&self) -> BTreeSet<(usize, usize)> {
        let plan = &self.shared.plan;
        let bolts = plan.workers.iter().flat_map(|worker| &worker.members);
        bolts.chain(&plan.spouts).map(|task| (task.component, task.task)).collect()
    }

    fn no_part(&self, task: TaskPlan, error: PartError) -> CheckpointFailure {
        CheckpointFailure::Task {
            component: self.shared.topology.components()[task.component].id.clone(),
            task: task.task,
            reason: match error {
                PartError::State(error) => error.to_string(),
                PartError::Bolt(fault) => fault.reason().to_owned(),
            },
        }
    }

    #[cold]
    fn tell_missing(&self, missing: &BTreeSet<(usize, usize)>) {
        let name = |&(component, task): &(usize, usize)| {
            format!("{}/{task}", self.shared.topology.components()[component].id)
        };
        let tasks: Vec<String> = missing.iter().take(10).map(name).collect();
        match missing.len() {
            0 => tracing::warn!("the store of checkpoints is slow"),
            count => tracing::warn!(count, tasks = tasks.join(", "), "tasks keep a checkpoint waiting"),
        }
    }

    /// Has all spouts' ledgers take in what they were told.
    async fn settle(&self) -> Result<(), CheckpointFailure> {
        let mut answers = Vec::new();
        for spout in &self.spouts {
            let (sender, answer) = oneshot::channel();
            let sent = spout.send(SpoutCommand::Settle(sender)).await;
            sent.map_err(|_| CheckpointFailure::Ended)?;
            answers.push(answer);
        }
        for answer in answers {
            answer.await.map_err(|_| CheckpointFailure::Ended)?;
        }
        Ok(())
    }

    fn in_doubt(&self, checkpoints: &Checkpoints, now: u64) -> BTreeMap<String, BTreeSet<Vec<u8>>> {
        let components = self.shared.topology.components().iter().zip(&checkpoints.known);
        let spouts = components.filter(|(component, _)| component.factory.is_spout());
        spouts
            .map(|(component, known)| {
                known.forget(now);
                (component.id.to_string(), known.in_doubt(self.number))
            })
            .filter(|(_, ids)| !ids.is_empty())
            .collect()
    }
}
