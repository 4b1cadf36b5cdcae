//! Keyed state in one task and between tasks.

mod budget;
mod handles;
mod model;
mod moves;
mod versions;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use galerna_state::{KeyGroup, KeyGroups, Spill, SpillError, SpilledCell, StateOptions, TaskState};

/// A clock that stands still until it is told to move.
#[derive(Clone, Default)]
pub(crate) struct Hand(Arc<AtomicI64>);

impl Hand {
    pub(crate) fn advance(&self, millis: i64) {
        self.0.fetch_add(millis, Ordering::SeqCst);
    }

    fn options(&self, budget_bytes: usize, spill: Option<Box<dyn Spill>>) -> StateOptions {
        let now = Arc::clone(&self.0);
        StateOptions { budget_bytes, spill, clock: Arc::new(move || now.load(Ordering::SeqCst)) }
    }
}

/// The state of the only task of a component, in memory.
pub(crate) fn alone() -> TaskState {
    task(0, KeyGroups::all())
}

/// The state of a task, in memory.
pub(crate) fn task(task: u32, groups: KeyGroups) -> TaskState {
    TaskState::new("count", task, groups, Hand::default().options(1 << 30, None)).expect("a state")
}

type Cells = BTreeMap<(KeyGroup, u16, Vec<u8>), (Vec<u8>, i64)>;

/// Spills into memory, and fails when it is told to.
#[derive(Default)]
pub(crate) struct Disk {
    cells: Cells,
    full: Arc<AtomicBool>,
}

impl Disk {
    pub(crate) fn that_may_be_full(full: &Arc<AtomicBool>) -> Box<dyn Spill> {
        Box::new(Self { full: Arc::clone(full), ..Self::default() })
    }

    fn check(&self) -> Result<(), SpillError> {
        if !self.full.load(Ordering::SeqCst) {
            return Ok(());
        }
        Err(SpillError::DiskFull { place: "a test".to_owned(), cause: "no space left".to_owned() })
    }
}

impl Spill for Disk {
    fn put(&mut self, cells: &[SpilledCell<'_>]) -> Result<(), SpillError> {
        self.check()?;
        for cell in cells {
            let place = (cell.group, cell.state, cell.key.to_vec());
            self.cells.insert(place, (cell.body.to_vec(), cell.expires));
        }
        Ok(())
    }

    fn get(&mut self, state: u16, group: KeyGroup, key: &[u8]) -> Result<Option<Vec<u8>>, SpillError> {
        Ok(self.cells.get(&(group, state, key.to_vec())).map(|(body, _)| body.clone()))
    }

    fn remove(&mut self, state: u16, group: KeyGroup, key: &[u8]) -> Result<(), SpillError> {
        self.check()?;
        self.cells.remove(&(group, state, key.to_vec()));
        Ok(())
    }

    fn visit(
        &mut self,
        state: u16,
        group: KeyGroup,
        visit: &mut dyn FnMut(&[u8], &[u8]),
    ) -> Result<(), SpillError> {
        let found = self.cells.iter().filter(|((g, s, _), _)| (*g, *s) == (group, state));
        found.for_each(|((_, _, key), (body, _))| visit(key, body));
        Ok(())
    }

    fn remove_group(&mut self, group: KeyGroup) -> Result<(), SpillError> {
        self.check()?;
        self.cells.retain(|(g, _, _), _| *g != group);
        Ok(())
    }

    fn remove_expired(&mut self, now: i64) -> Result<Vec<(u16, KeyGroup)>, SpillError> {
        self.check()?;
        let gone: Vec<_> = self
            .cells
            .iter()
            .filter(|(_, (_, expires))| *expires <= now)
            .map(|(place, _)| place.clone())
            .collect();
        for place in &gone {
            self.cells.remove(place);
        }
        Ok(gone.into_iter().map(|(group, state, _)| (state, group)).collect())
    }
}
