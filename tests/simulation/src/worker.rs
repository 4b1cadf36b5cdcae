//! A worker: takes a lease, consumes its queue while it may, stores what it got, gives the lease back.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use galerna_lease::invariants::Tenure;
use galerna_lease::{GrantedLease, HeldLease, LeaseError, Leases, NextRequest, Release};
use galerna_lock::Mutex;
use galerna_model::QueueName;
use tokio::time::{Instant, sleep, timeout};

use crate::broker::SimulatedBroker;
use crate::network::Network;
use crate::world::World;

/// What all workers leave behind.
#[derive(Default)]
pub(crate) struct Traces {
    pub(crate) tenures: Mutex<BTreeMap<QueueName, Vec<Tenure>>>,
    /// The messages stored. By identity, so storing one twice changes nothing.
    pub(crate) stored: Mutex<BTreeSet<u64>>,
}

pub(crate) struct Worker {
    pub(crate) world: Arc<World>,
    pub(crate) name: String,
    pub(crate) network: Network,
    pub(crate) broker: SimulatedBroker,
    pub(crate) traces: Arc<Traces>,
    /// Goes on when its lease is over: to see that the checks catch it.
    pub(crate) careless: bool,
}

/// The time in which a worker holds a queue, noted also when its process is killed.
struct Holding {
    world: Arc<World>,
    traces: Arc<Traces>,
    consumer: String,
    lease: HeldLease,
    from: Instant,
    careless: bool,
}

impl Drop for Holding {
    fn drop(&mut self) {
        let now = Instant::now();
        let until = if self.careless { now } else { now.min(self.lease.stop_at()).max(self.from) };
        let leased = self.lease.leased();
        let tenure = Tenure {
            epoch: leased.epoch,
            consumer: self.consumer.clone(),
            from: self.world.micros(self.from),
            until: self.world.micros(until),
        };
        self.traces.tenures.lock().entry(leased.queue.clone()).or_default().push(tenure);
    }
}

impl Worker {
    pub(crate) async fn run(self) {
        let mut requests = 0_u64;
        loop {
            requests += 1;
            let request = NextRequest {
                consumer: self.name.clone(),
                // The wait is taken off the lease.
                wait: Duration::from_secs(2).min(self.network.timing.lease / 4),
                count: 1 + self.world.below(3),
                request: Some(format!("{}-{:?}-{requests}", self.name, Instant::now() - self.world.began)),
                ..NextRequest::default()
            };
            let (asked, granted) = self.ask(request).await;
            let mut dry = !granted.is_empty();
            for lease in granted {
                dry &= self.serve(lease, asked).await;
            }
            if dry {
                // Looking at empty queues must not become a busy loop.
                sleep(Duration::from_millis(500)).await;
            }
        }
    }

    /// Asks until there is an answer, each time with the same request. When it was asked for the last time counts.
    async fn ask(&self, mut request: NextRequest) -> (Instant, Vec<GrantedLease>) {
        for _ in 0..5 {
            let asked = Instant::now();
            match self.network.next(request.clone()).await {
                Ok(granted) => return (asked, granted),
                Err(_) => {
                    request.retry = true;
                    sleep(self.world.between(Duration::from_millis(10), Duration::from_secs(1))).await;
                }
            }
        }
        (Instant::now(), Vec::new())
    }

    /// Consumes under a lease. Whether nothing came.
    async fn serve(&self, lease: GrantedLease, asked: Instant) -> bool {
        let lease = HeldLease::new(lease, asked);
        if lease.must_stop() {
            self.release(&lease, false).await; // The answer came too late.
            return false;
        }
        let mut holding = Holding {
            world: Arc::clone(&self.world),
            traces: Arc::clone(&self.traces),
            consumer: self.name.clone(),
            lease,
            from: Instant::now(),
            careless: self.careless,
        };
        let (empty, received) = self.consume(&mut holding).await;
        let lease = holding.lease.clone();
        drop(holding);
        self.release(&lease, empty).await;
        empty && received == 0
    }

    /// Gives a lease back, once more where no answer comes; else it expires.
    async fn release(&self, lease: &HeldLease, empty: bool) {
        let leased = lease.leased();
        let release = Release { queue: leased.queue.clone(), epoch: leased.epoch, empty };
        for _ in 0..2 {
            match self.network.release(&release).await {
                Err(LeaseError::Unavailable(_)) => {}
                _ => return,
            }
        }
    }

    fn must_stop(&self, holding: &Holding) -> bool {
        !self.careless && holding.lease.must_stop()
    }

    /// Consumes until the queue is dry (true), or it has to stop. Says how many messages came.
    async fn consume(&self, holding: &mut Holding) -> (bool, usize) {
        let world = &self.world;
        let queue = holding.lease.leased().queue.clone();
        let left = holding.lease.left();
        let Ok(Ok(mut channel)) = timeout(left, self.broker.open(&queue)).await else { return (false, 0) };
        let mut received = 0;
        loop {
            if world.fails(0.003) {
                // Frozen: for longer than its lease, perhaps.
                let pause = world.between(Duration::from_millis(500), Duration::from_secs(40));
                world.step(format_args!("{}: frozen for {pause:?}", self.name));
                sleep(pause).await;
            }
            if self.must_stop(holding) || holding.lease.revoked() {
                return (false, received);
            }
            if holding.lease.renew_due() {
                let asked = Instant::now();
                let epoch = holding.lease.leased().epoch;
                let renewed = timeout(holding.lease.left(), self.network.renew(&queue, epoch)).await;
                match renewed {
                    Ok(Ok(renewed)) if !holding.lease.must_stop() => holding.lease.renewed(renewed, asked),
                    Ok(Err(LeaseError::Unavailable(_))) | Err(_) => sleep(Duration::from_millis(50)).await,
                    _ if self.careless => {}
                    _ => return (false, received),
                }
                continue;
            }
            let Ok(messages) = channel.take(1 + world.below(4)).await else { return (false, received) };
            if messages.is_empty() {
                return (true, received);
            }
            received += messages.len();
            sleep(world.between(Duration::from_millis(1), Duration::from_millis(400))).await;
            if self.must_stop(holding) {
                return (false, received); // Whoever has the queue next does them.
            }
            self.traces.stored.lock().extend(&messages);
            if channel.ack(&messages).await.is_err() {
                return (false, received);
            }
        }
    }
}
