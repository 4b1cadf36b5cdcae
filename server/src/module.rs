//! What a module is to the process that runs it, and the supervisor that starts and ends all of a process's modules.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;

use anyhow::{Context, anyhow};
use async_trait::async_trait;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Between two looks at whether all modules run.
const CHECK_EVERY: Duration = Duration::from_secs(1);

/// A part of the system that runs in a process: opened, and then started, drained and stopped by a [`Supervisor`].
#[async_trait]
pub trait Module: Send + Sync {
    /// Its name in logs and errors.
    fn name(&self) -> &'static str;

    /// Begins to work; it does when this returns.
    ///
    /// # Errors
    /// Why it cannot work.
    async fn start(&mut self) -> anyhow::Result<()>;

    /// Whether it works. One that does not any more, though nobody ended it, ends the process.
    fn ready(&self) -> bool;

    /// Takes nothing new and finishes what is under way. Modules are drained one after the other, before any is stopped.
    async fn drain(&mut self) {}

    /// Ends it.
    ///
    /// # Errors
    /// What it could not do, or why it had ended before.
    async fn stop(&mut self) -> anyhow::Result<()>;
}

/// Whether the process does its work, for whoever watches it.
#[derive(Debug, Clone, Default)]
pub struct Readiness(Arc<State>);

#[derive(Debug, Default)]
struct State {
    ready: AtomicBool,
    draining: AtomicBool,
}

impl Readiness {
    /// Whether all modules work and none is about to end.
    pub fn is_ready(&self) -> bool {
        self.0.ready.load(SeqCst) && !self.is_draining()
    }

    /// Whether the process is about to end.
    pub fn is_draining(&self) -> bool {
        self.0.draining.load(SeqCst)
    }
}

/// The modules of a process, running.
pub struct Supervisor {
    /// In the order in which they were started.
    modules: Vec<Box<dyn Module>>,
    readiness: Readiness,
}

impl Supervisor {
    /// Starts modules one after the other. When one cannot start, those before it are ended.
    ///
    /// # Errors
    /// Why a module cannot start, with its name.
    pub async fn start(modules: Vec<Box<dyn Module>>, readiness: Readiness) -> anyhow::Result<Self> {
        let mut started = Self { modules: Vec::with_capacity(modules.len()), readiness };
        for mut module in modules {
            if let Err(e) = module.start().await {
                let name = module.name();
                // What cannot be ended then matters less than why it is.
                let _ = started.stop().await;
                return Err(e.context(format!("the {name} cannot start")));
            }
            started.modules.push(module);
        }
        started.readiness.0.ready.store(true, SeqCst);
        Ok(started)
    }

    /// Waits until `stop`, or until a module ends by itself.
    pub async fn until(&self, stop: &CancellationToken) {
        let mut check = tokio::time::interval(CHECK_EVERY);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = check.tick() => {
                    if let Some(ended) = self.modules.iter().find(|module| !module.ready()) {
                        tracing::error!(module = ended.name(), "a module has ended; the process stops");
                        return;
                    }
                }
            }
        }
    }

    /// Ends all: drains them one after the other, the last started first, so that what feeds others ends before them; then stops
    /// them together.
    ///
    /// # Errors
    /// What the first of them says; all of it is logged.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        self.readiness.0.draining.store(true, SeqCst);
        for module in self.modules.iter_mut().rev() {
            module.drain().await;
        }
        let stopping = self.modules.iter_mut().map(|module| async move {
            let ended = module.stop().await;
            ended.map_err(|e| {
                tracing::error!(module = module.name(), error = format!("{e:#}"), "a module ended badly");
                e.context(format!("the {} ended badly", module.name()))
            })
        });
        futures_util::future::join_all(stopping).await.into_iter().collect()
    }
}

/// Runs modules until `stop`, or until one of them ends by itself, which is an error.
///
/// # Errors
/// Why one could not start, or ended.
pub async fn run(
    modules: Vec<Box<dyn Module>>,
    readiness: Readiness,
    stop: &CancellationToken,
) -> anyhow::Result<()> {
    let supervisor = Supervisor::start(modules, readiness).await?;
    supervisor.until(stop).await;
    supervisor.stop().await?;
    anyhow::ensure!(stop.is_cancelled(), "a module has ended; see the log");
    tracing::info!("stopped");
    Ok(())
}

/// A module's work in the background, and how it is told to end.
#[derive(Default)]
pub(crate) struct Task {
    stop: CancellationToken,
    running: Option<JoinHandle<anyhow::Result<()>>>,
}

impl Task {
    /// Cancelled when the work is to end.
    pub(crate) fn stopped(&self) -> CancellationToken {
        self.stop.clone()
    }

    /// Begins the work, which ends soon after [`stopped`](Self::stopped).
    pub(crate) fn spawn(&mut self, work: impl Future<Output = anyhow::Result<()>> + Send + 'static) {
        self.running = Some(tokio::spawn(work));
    }

    /// Whether the work goes on.
    pub(crate) fn runs(&self) -> bool {
        self.running.as_ref().is_some_and(|running| !running.is_finished())
    }

    /// Tells the work to end and waits until it has. Once it has, this does nothing.
    pub(crate) async fn end(&mut self) -> anyhow::Result<()> {
        self.stop.cancel();
        match self.running.take() {
            Some(running) => running.await.map_err(|e| anyhow!("{e}")).and_then(|ended| ended),
            None => Ok(()),
        }
    }
}

/// What a handle of a library's task says, as work.
pub(crate) async fn joined(handle: JoinHandle<()>) -> anyhow::Result<()> {
    handle.await.context("it panicked")
}

#[cfg(test)]
mod tests {
    use galerna_lock::Mutex;

    use super::*;

    type Seen = Arc<Mutex<Vec<String>>>;

    struct Probe {
        name: &'static str,
        seen: Seen,
        starts: bool,
        ready: Arc<AtomicBool>,
        ends: Result<(), &'static str>,
    }

    impl Probe {
        fn boxed(name: &'static str, seen: &Seen) -> Box<Self> {
            let ready = Arc::new(AtomicBool::new(true));
            Box::new(Self { name, seen: seen.clone(), starts: true, ready, ends: Ok(()) })
        }

        fn saw(&self, what: &str) {
            self.seen.lock().push(format!("{what} {}", self.name));
        }
    }

    #[async_trait]
    impl Module for Probe {
        fn name(&self) -> &'static str {
            self.name
        }

        async fn start(&mut self) -> anyhow::Result<()> {
            anyhow::ensure!(self.starts, "no port is free");
            self.saw("start");
            Ok(())
        }

        fn ready(&self) -> bool {
            self.ready.load(SeqCst)
        }

        async fn drain(&mut self) {
            self.saw("drain");
        }

        async fn stop(&mut self) -> anyhow::Result<()> {
            self.saw("stop");
            self.ends.map_err(|e| anyhow!(e))
        }
    }

    #[tokio::test]
    async fn what_was_started_last_is_drained_first_and_nothing_is_stopped_before_all_are_drained() {
        let seen = Seen::default();
        let readiness = Readiness::default();
        let modules: Vec<Box<dyn Module>> =
            vec![Probe::boxed("store", &seen), Probe::boxed("frontend", &seen)];
        assert!(!readiness.is_ready());
        let supervisor = Supervisor::start(modules, readiness.clone()).await.unwrap();
        assert!(readiness.is_ready() && !readiness.is_draining());
        supervisor.stop().await.unwrap();
        assert!(!readiness.is_ready() && readiness.is_draining());
        assert_eq!(
            *seen.lock(),
            ["start store", "start frontend", "drain frontend", "drain store", "stop store", "stop frontend"]
        );
    }

    #[tokio::test]
    async fn when_a_module_cannot_start_those_before_it_are_ended() {
        let seen = Seen::default();
        let mut wrong = Probe::boxed("page", &seen);
        wrong.starts = false;
        let modules: Vec<Box<dyn Module>> =
            vec![Probe::boxed("store", &seen), wrong, Probe::boxed("frontend", &seen)];
        let error = Supervisor::start(modules, Readiness::default()).await.err().unwrap();
        assert_eq!(format!("{error:#}"), "the page cannot start: no port is free");
        assert_eq!(*seen.lock(), ["start store", "drain store", "stop store"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_module_that_ends_by_itself_ends_the_others_and_is_an_error() {
        let seen = Seen::default();
        let mut page = Probe::boxed("page", &seen);
        page.ends = Err("the disk is full");
        let ready = page.ready.clone();
        let modules: Vec<Box<dyn Module>> = vec![Probe::boxed("store", &seen), page];
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_secs(5)).await;
            ready.store(false, SeqCst);
        });
        let ended = run(modules, Readiness::default(), &CancellationToken::new()).await;
        assert_eq!(format!("{:#}", ended.unwrap_err()), "the page ended badly: the disk is full");
        assert!(seen.lock().contains(&"stop store".to_owned()));
    }

    #[tokio::test]
    async fn a_task_that_panics_is_an_error_and_not_ready() {
        let mut task = Task::default();
        task.spawn(async { panic!("on purpose") });
        while task.runs() {
            tokio::task::yield_now().await;
        }
        assert!(task.end().await.unwrap_err().to_string().contains("panicked"));
        assert!(task.end().await.is_ok());
    }
}
