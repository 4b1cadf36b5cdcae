//! The way from a worker to the dispatchers: calls and answers are lost, late, or made twice.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use galerna_dispatcher::Dispatcher;
use galerna_lease::{GrantedLease, LeaseError, Leases, NextRequest, Release, Renewed, Timing};
use galerna_lock::Mutex;
use galerna_model::QueueName;
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep, timeout};

use crate::world::World;

/// A dispatcher's process. With it end the calls that it works on.
#[derive(Default)]
pub(crate) struct Process {
    dispatcher: Option<Dispatcher>,
    calls: Vec<AbortHandle>,
}

impl Process {
    pub(crate) fn start(&mut self, dispatcher: Dispatcher) {
        self.dispatcher = Some(dispatcher);
    }

    pub(crate) fn kill(&mut self) {
        self.calls.drain(..).for_each(|call| call.abort());
        self.dispatcher = None;
    }

    pub(crate) fn dispatcher(&self) -> Option<&Dispatcher> {
        self.dispatcher.as_ref()
    }
}

pub(crate) type Processes = Arc<Vec<Mutex<Process>>>;

type Call<T> =
    Arc<dyn Fn(Dispatcher) -> Pin<Box<dyn Future<Output = Result<T, LeaseError>> + Send>> + Send + Sync>;

/// One worker's way to the dispatchers, any of which may answer a call.
#[derive(Clone)]
pub(crate) struct Network {
    pub(crate) world: Arc<World>,
    pub(crate) processes: Processes,
    pub(crate) timing: Timing,
    /// Until when nothing gets through.
    pub(crate) cut_until: Arc<Mutex<Option<Instant>>>,
}

impl Network {
    pub(crate) fn cut(&self) {
        let pause = self.world.between(Duration::from_millis(100), Duration::from_secs(30));
        self.world.step(format_args!("network: a worker is cut off for {pause:?}"));
        *self.cut_until.lock() = Some(Instant::now() + pause);
    }

    fn is_cut(&self) -> bool {
        self.cut_until.lock().is_some_and(|until| Instant::now() < until)
    }

    async fn call<T: Send + 'static>(&self, wait: Duration, call: Call<T>) -> Result<T, LeaseError> {
        let unavailable = |cause: &str| LeaseError::Unavailable(cause.to_owned());
        let limit = self.timing.request_timeout + wait;
        timeout(limit, self.send(call)).await.unwrap_or_else(|_| Err(unavailable("no answer in time")))
    }

    async fn send<T: Send + 'static>(&self, call: Call<T>) -> Result<T, LeaseError> {
        let world = &self.world;
        world.count();
        sleep(world.latency()).await;
        if self.is_cut() || world.fails(0.02) {
            return std::future::pending().await; // The request is lost.
        }
        let process = world.below(self.processes.len());
        if world.fails(0.02) {
            // It comes a second time, much later.
            let (network, call) = (self.clone(), call.clone());
            let pause = world.between(Duration::from_millis(1), Duration::from_secs(20));
            tokio::spawn(async move {
                sleep(pause).await;
                network.world.step(format_args!("network: a call comes a second time"));
                drop(network.work(process, call).await);
            });
        }
        let answer = self.work(process, call).await;
        sleep(world.latency()).await;
        if self.is_cut() || world.fails(0.02) {
            world.step(format_args!("network: an answer is lost"));
            return std::future::pending().await;
        }
        answer
    }

    /// What a dispatcher does for a call; it does so to its end, whether or not anybody waits for it.
    async fn work<T: Send + 'static>(&self, process: usize, call: Call<T>) -> Result<T, LeaseError> {
        let refused = || LeaseError::Unavailable("connection refused".to_owned());
        let working = {
            let mut process = self.processes[process].lock();
            let Some(dispatcher) = process.dispatcher.clone() else { return Err(refused()) };
            let working = tokio::spawn(call(dispatcher));
            process.calls.retain(|call| !call.is_finished());
            process.calls.push(working.abort_handle());
            working
        };
        working.await.unwrap_or_else(|_| Err(refused()))
    }
}

#[async_trait]
impl Leases for Network {
    async fn next(&self, request: NextRequest) -> Result<Vec<GrantedLease>, LeaseError> {
        let wait = request.wait;
        let call: Call<_> = Arc::new(move |dispatcher| {
            let request = request.clone();
            Box::pin(async move { dispatcher.next(request).await })
        });
        self.call(wait, call).await
    }

    async fn renew(&self, queue: &QueueName, epoch: u64) -> Result<Renewed, LeaseError> {
        let queue = queue.clone();
        let call: Call<_> = Arc::new(move |dispatcher| {
            let queue = queue.clone();
            Box::pin(async move { dispatcher.renew(&queue, epoch).await })
        });
        self.call(Duration::ZERO, call).await
    }

    async fn release(&self, release: &Release) -> Result<(), LeaseError> {
        let release = release.clone();
        let call: Call<_> = Arc::new(move |dispatcher| {
            let release = release.clone();
            Box::pin(async move { dispatcher.release(&release).await })
        });
        self.call(Duration::ZERO, call).await
    }
}
