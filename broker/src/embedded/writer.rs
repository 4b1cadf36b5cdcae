//! The one thread that touches the store, and the group commit.
//!
//! Whatever is waiting when the thread is free goes into one transaction: while one commit syncs, the next group gathers.
//! When a group fails, each of its works is tried alone, so that only the guilty one fails.

use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError};
use std::time::{Duration, Instant};

use super::store::Store;
use super::works::MoveDue;
use super::{Shared, works};

/// Most works of one transaction.
const GROUP: usize = 512;
/// About how many messages of one transaction.
const GROUP_WEIGHT: usize = 20_000;
/// Pause before a work that must not be given up is tried again.
const AGAIN: Duration = Duration::from_millis(200);

/// Something to do in a transaction.
pub(super) trait Work: Send {
    /// Changes the store. May be called again after a roll-back, so that it starts from its own input each time.
    fn run(&mut self, store: &Store) -> rusqlite::Result<()>;

    /// Tells everybody, after the commit or the failure. What is handed back is run again a little later.
    fn done(self: Box<Self>, result: Result<(), String>) -> Option<Box<dyn Work>>;

    /// About how many messages it touches.
    fn weight(&self) -> usize {
        1
    }

    /// Whether it has a transaction to itself, because what follows depends on its outcome.
    fn alone(&self) -> bool {
        false
    }
}

/// Runs until every sender is gone and what they sent is done.
pub(super) fn run(store: Store, works: &Receiver<Box<dyn Work>>, shared: &std::sync::Arc<Shared>) {
    let mut again: Vec<Box<dyn Work>> = Vec::new();
    let mut held: Option<Box<dyn Work>> = None;
    let mut open = true;
    let mut due_failed = None;
    while open || held.is_some() {
        let mut group: Vec<Box<dyn Work>> = held.take().into_iter().collect();
        if group.is_empty() {
            let wait = pause(&store, shared, !again.is_empty(), due_failed);
            match works.recv_timeout(wait) {
                Ok(work) => group.push(work),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => open = false,
            }
        }
        let mut weight: usize = group.iter().map(|w| w.weight()).sum();
        let mut alone = group.iter().any(|w| w.alone());
        while !alone && group.len() < GROUP && weight < GROUP_WEIGHT {
            match works.try_recv() {
                Ok(work) if work.alone() && !group.is_empty() => {
                    held = Some(work);
                    break;
                }
                Ok(work) => {
                    alone = work.alone();
                    weight += work.weight();
                    group.push(work);
                }
                Err(TryRecvError::Empty | TryRecvError::Disconnected) => break,
            }
        }
        if !alone {
            group.append(&mut again);
        }
        again.extend(transact(&store, group));
        // Disk errors come again at once; they must not become a busy loop.
        if due_failed.is_none_or(|at: Instant| at.elapsed() >= AGAIN) {
            due_failed = release_due(&store, shared).err().map(|()| Instant::now());
        }
    }
    // A last attempt: these are acks that a full disk kept from being written.
    drop(transact(&store, again));
}

/// How long the thread may sleep when nobody sends.
fn pause(store: &Store, shared: &Shared, again: bool, due_failed: Option<Instant>) -> Duration {
    let longest = if again || due_failed.is_some() { AGAIN } else { Duration::from_secs(3600) };
    match store.next_due() {
        Ok(Some(due)) if due_failed.is_none() => {
            let millis = due.saturating_sub(shared.now().as_millis());
            Duration::from_millis(u64::try_from(millis).unwrap_or(0)).min(longest)
        }
        _ => longest,
    }
}

fn release_due(store: &Store, shared: &std::sync::Arc<Shared>) -> Result<(), ()> {
    let now = shared.now().as_millis();
    if store.next_due().ok().flatten().is_none_or(|due| due > now) {
        return Ok(());
    }
    let succeeded = works::flag();
    let work = MoveDue::new(std::sync::Arc::clone(shared), std::sync::Arc::clone(&succeeded));
    drop(transact(store, vec![Box::new(work)]));
    if succeeded.load(std::sync::atomic::Ordering::Relaxed) { Ok(()) } else { Err(()) }
}

/// One transaction for the group, or one for each when that fails. Hands back what has to be run again.
fn transact(store: &Store, mut group: Vec<Box<dyn Work>>) -> Vec<Box<dyn Work>> {
    if group.is_empty() {
        return group;
    }
    match attempt(store, &mut group) {
        Ok(()) => group.into_iter().filter_map(|work| work.done(Ok(()))).collect(),
        Err(cause) if group.len() == 1 => {
            group.into_iter().filter_map(|work| work.done(Err(cause.clone()))).collect()
        }
        Err(_) => group
            .into_iter()
            .filter_map(|work| {
                let mut one = [work];
                let result = attempt(store, &mut one);
                let [work] = one;
                work.done(result)
            })
            .collect(),
    }
}

fn attempt(store: &Store, group: &mut [Box<dyn Work>]) -> Result<(), String> {
    let result = store
        .begin()
        .and_then(|()| group.iter_mut().try_for_each(|work| work.run(store)))
        .and_then(|()| store.commit());
    result.map_err(|e| {
        store.roll_back();
        e.to_string()
    })
}
