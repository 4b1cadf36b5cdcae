//! The threads that executors run on.

use futures_util::future::{AbortHandle, Abortable};
use galerna_topology::runtime::BoxFuture;
use galerna_topology::{Component, Threads};
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// Gives out cores, one after the other.
pub(crate) struct Cores {
    ids: Vec<core_affinity::CoreId>,
    given: usize,
}

impl Cores {
    pub(crate) fn new() -> Self {
        Self { ids: Vec::new(), given: 0 }
    }

    fn next(&mut self) -> Option<core_affinity::CoreId> {
        if self.ids.is_empty() {
            self.ids = core_affinity::get_core_ids().unwrap_or_default();
        }
        let id = self.ids.get(self.given % self.ids.len().max(1)).copied();
        self.given += 1;
        id
    }
}

/// Aborts what runs on a thread when the task that stands for it is dropped.
struct AbortOnDrop(AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Runs a task of this component where it says. Aborting the handle ends it at the next point at which it waits.
pub(crate) fn spawn(component: &Component, cores: &mut Cores, run: BoxFuture<'static, ()>) -> JoinHandle<()> {
    let core = match component.settings.threads {
        Threads::Shared => return tokio::spawn(run),
        Threads::Own => None,
        Threads::Pinned => cores.next(),
    };
    let (abort, registration) = AbortHandle::new_pair();
    let run = Abortable::new(run, registration);
    // It is handed over once the thread is there, so that it can run elsewhere if there is none.
    let (hand, handed) = std::sync::mpsc::channel();
    let (ended, end) = oneshot::channel();
    let runtime = Handle::current();
    let started = std::thread::Builder::new().name(component.id.to_string()).spawn(move || {
        if let Some(core) = core {
            core_affinity::set_for_current(core);
        }
        if let Ok(run) = handed.recv() {
            let _ = runtime.block_on(run);
        }
        let _ = ended.send(());
    });
    match started {
        Ok(_) => {
            let _ = hand.send(run);
            tokio::spawn(async move {
                let _abort = AbortOnDrop(abort);
                let _ = end.await;
            })
        }
        Err(error) => {
            let component = &*component.id;
            tracing::error!(%error, component, "no thread for an executor: it runs on the runtime's");
            tokio::spawn(async move {
                let _ = run.await;
            })
        }
    }
}
