//! Functions, and the calls of each.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use galerna_lock::Mutex;
use tokio::sync::{Notify, oneshot};

use crate::error::DrpcError;

/// How calls are bounded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DrpcOptions {
    /// How long a call may wait for its result. 30 s unless set; a caller may ask for less.
    pub timeout: Duration,
    /// Calls of a function that wait or are in its topology at the same time. 1,024 unless set; more are refused.
    pub in_flight: usize,
    /// The longest argument that is taken over HTTP, in bytes. 1 MiB unless set.
    pub argument_bytes: usize,
}

impl Default for DrpcOptions {
    fn default() -> Self {
        Self { timeout: Duration::from_secs(30), in_flight: 1_024, argument_bytes: 1 << 20 }
    }
}

/// The functions that can be called in this process. Clones are of the same.
#[derive(Clone)]
pub struct Drpc(Arc<Shared>);

struct Shared {
    options: DrpcOptions,
    functions: Mutex<HashMap<Arc<str>, Arc<Function>>>,
}

/// The calls of a function.
pub(crate) struct Function {
    pub(crate) name: Arc<str>,
    ids: AtomicU64,
    calls: Mutex<Calls>,
    pub(crate) arrived: Notify,
    /// Tasks of its spouts that are open and have not been deactivated.
    active: AtomicUsize,
}

#[derive(Default)]
struct Calls {
    /// Those that have no answer yet.
    pending: HashMap<u64, oneshot::Sender<Result<String, DrpcError>>>,
    /// Those of them that have not been emitted, in order.
    waiting: VecDeque<(u64, String)>,
}

/// A call is over when this is dropped, whatever became of it.
struct InFlight<'a> {
    function: &'a Function,
    id: u64,
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        let mut calls = self.function.calls.lock();
        if calls.pending.remove(&self.id).is_some() {
            calls.waiting.retain(|(id, _)| *id != self.id);
        }
    }
}

impl Drpc {
    /// None yet: a [`DrpcSpout`](crate::DrpcSpout) adds its function.
    pub fn new(options: DrpcOptions) -> Self {
        Self(Arc::new(Shared { options, functions: Mutex::default() }))
    }

    pub(crate) fn options(&self) -> &DrpcOptions {
        &self.0.options
    }

    pub(crate) fn function(&self, name: &str) -> Arc<Function> {
        let mut functions = self.0.functions.lock();
        if let Some(function) = functions.get(name) {
            return function.clone();
        }
        let function = Arc::new(Function {
            name: name.into(),
            ids: AtomicU64::new(0),
            calls: Mutex::default(),
            arrived: Notify::new(),
            active: AtomicUsize::new(0),
        });
        functions.insert(function.name.clone(), function.clone());
        function
    }

    /// Calls a function and waits for its result, for [`DrpcOptions::timeout`] at most. Dropping the future cancels the call.
    ///
    /// # Errors
    /// [`DrpcError`]: why there is no result.
    pub async fn execute(&self, function: &str, argument: impl Into<String>) -> Result<String, DrpcError> {
        self.execute_within(function, argument, self.0.options.timeout).await
    }

    /// As [`execute`](Self::execute), waiting for this long at most, but no longer than the options say.
    ///
    /// # Errors
    /// [`DrpcError`]: why there is no result.
    pub async fn execute_within(
        &self,
        function: &str,
        argument: impl Into<String>,
        timeout: Duration,
    ) -> Result<String, DrpcError> {
        let known = self.0.functions.lock().get(function).cloned();
        let unknown = || DrpcError::Unknown(function.chars().take(100).collect::<String>().into());
        let function = known.ok_or_else(unknown)?;
        let timeout = timeout.min(self.0.options.timeout);
        let (call, answer) = function.call(argument.into(), self.0.options.in_flight)?;
        let answer = tokio::time::timeout(timeout, answer).await;
        drop(call);
        match answer {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(DrpcError::NoResult(function.name.clone())),
            Err(_) => Err(DrpcError::Deadline { function: function.name.clone(), waited: timeout }),
        }
    }
}

type Answer = oneshot::Receiver<Result<String, DrpcError>>;

impl Function {
    fn call(&self, argument: String, limit: usize) -> Result<(InFlight<'_>, Answer), DrpcError> {
        let mut calls = self.calls.lock();
        // Under the lock: whoever becomes inactive then answers what waits.
        if self.active.load(Ordering::Acquire) == 0 {
            return Err(DrpcError::Inactive(self.name.clone()));
        }
        if calls.pending.len() >= limit {
            return Err(DrpcError::Busy { function: self.name.clone(), limit });
        }
        let id = self.ids.fetch_add(1, Ordering::Relaxed);
        let (caller, answer) = oneshot::channel();
        calls.pending.insert(id, caller);
        calls.waiting.push_back((id, argument));
        drop(calls);
        self.arrived.notify_one();
        Ok((InFlight { function: self, id }, answer))
    }

    /// The call that has waited the longest.
    pub(crate) fn take(&self) -> Option<(u64, String)> {
        let mut calls = self.calls.lock();
        let call = calls.waiting.pop_front();
        let more = !calls.waiting.is_empty();
        drop(calls);
        if more {
            // Other tasks of the spout may help.
            self.arrived.notify_one();
        }
        call
    }

    pub(crate) fn is_pending(&self, id: u64) -> bool {
        self.calls.lock().pending.contains_key(&id)
    }

    /// Answers a call, unless it has been answered or its caller has gone.
    pub(crate) fn answer(&self, id: u64, answer: Result<String, DrpcError>) {
        let caller = self.calls.lock().pending.remove(&id);
        if let Some(caller) = caller {
            let _ = caller.send(answer);
        }
    }

    pub(crate) fn activate(&self) {
        self.active.fetch_add(1, Ordering::AcqRel);
    }

    /// A task of its spouts may emit no more. After the last one what waits is answered.
    pub(crate) fn deactivate(&self) {
        let mut calls = self.calls.lock();
        if self.active.fetch_sub(1, Ordering::AcqRel) > 1 {
            return;
        }
        let waiting = std::mem::take(&mut calls.waiting);
        let callers: Vec<_> = waiting.iter().filter_map(|(id, _)| calls.pending.remove(id)).collect();
        drop(calls);
        for caller in callers {
            let _ = caller.send(Err(DrpcError::Inactive(self.name.clone())));
        }
    }
}

impl std::fmt::Debug for Drpc {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.0.functions.lock().keys()).finish()
    }
}
