//! The spout of calls and the bolt that returns results.

use std::fmt;
use std::sync::Arc;

use galerna_topology::prelude::*;

use crate::error::DrpcError;
use crate::functions::{Drpc, Function};

/// Whom a result is for. It goes with the tuples of a call, from the [`DrpcSpout`] to [`ReturnResults`].
#[derive(Clone)]
pub struct ReturnInfo {
    function: Arc<Function>,
    id: u64,
}

impl ReturnInfo {
    /// Whether nobody waits for the result any more: it was given, its time is over, or the caller has gone. Then what is
    /// costly need not be done.
    pub fn is_cancelled(&self) -> bool {
        !self.function.is_pending(self.id)
    }

    /// The number of the call, of its function.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Gives the result to the caller, as [`ReturnResults`] does; of several the first counts.
    pub fn answer(&self, result: impl Into<String>) {
        self.function.answer(self.id, Ok(result.into()));
    }
}

impl fmt::Debug for ReturnInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ReturnInfo({} {})", self.function.name, self.id)
    }
}

/// Emits the calls of a function: the argument, and whom the result is for.
pub struct DrpcSpout {
    function: Arc<Function>,
    active: bool,
}

impl DrpcSpout {
    /// Adds the function to those that can be called, and emits its calls; several topologies may share them.
    pub fn new(drpc: &Drpc, function: &str) -> Self {
        Self { function: drpc.function(function), active: false }
    }

    fn set_active(&mut self, active: bool) {
        if std::mem::replace(&mut self.active, active) == active {
            return;
        }
        if active {
            self.function.activate();
        } else {
            self.function.deactivate();
        }
    }
}

impl Clone for DrpcSpout {
    fn clone(&self) -> Self {
        Self { function: self.function.clone(), active: false }
    }
}

impl Drop for DrpcSpout {
    fn drop(&mut self) {
        self.set_active(false);
    }
}

impl Spout for DrpcSpout {
    type MessageId = u64;
    type Outputs = Output<(String, ReturnInfo)>;

    /// From now on calls are taken: they wait until the spout may emit.
    async fn open(&mut self, _: &TaskContext) -> Result<(), Fault> {
        self.set_active(true);
        Ok(())
    }

    async fn next(&mut self, out: &mut Roots<'_, Self>) -> Result<Next, Fault> {
        while out.room() > 0 {
            let Some((id, argument)) = self.function.take() else { return Ok(Next::Idle) };
            let caller = ReturnInfo { function: self.function.clone(), id };
            out.root(id).emit((argument, caller));
        }
        Ok(Next::Ready)
    }

    async fn ready(&mut self) {
        self.function.arrived.notified().await;
    }

    async fn acked(&mut self, ids: &mut Vec<u64>) {
        for id in ids.drain(..) {
            self.function.answer(id, Err(DrpcError::NoResult(self.function.name.clone())));
        }
    }

    async fn failed(&mut self, failed: &mut Vec<Failed<u64>>) {
        for Failed { id, failure } in failed.drain(..) {
            let reason = failure.reason().to_owned();
            let kind = failure.fault.kind();
            self.function.answer(id, Err(DrpcError::Failed { component: failure.component, reason, kind }));
        }
    }

    async fn activate(&mut self) {
        self.set_active(true);
    }

    async fn deactivate(&mut self) {
        self.set_active(false);
    }

    async fn close(&mut self) {
        self.set_active(false);
    }
}

impl fmt::Debug for DrpcSpout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DrpcSpout({})", self.function.name)
    }
}

/// Gives results to their callers: takes the result, and whom it is for.
#[derive(Debug, Clone, Copy, Default)]
pub struct ReturnResults;

impl Bolt for ReturnResults {
    type Input = (String, ReturnInfo);
    type Outputs = ();

    fn execute(&mut self, (result, caller): (String, ReturnInfo), _: &mut Emitter<()>) -> Result<(), Fault> {
        caller.answer(result);
        Ok(())
    }
}
