//! Two maintainers beside a dispatcher whose consumers crash, stall and release: no queue has two holders, and its epoch grows.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use galerna_dispatcher::{Dispatcher, DispatcherOptions, MaintainerLink, Ping, PingError};
use galerna_lease::invariants::{Tenure, history};
use galerna_lease::{HeldLease, Leases, NextRequest, Release, Timing};
use galerna_lock::Mutex;
use galerna_maintainer::{Maintainer, Schedule};
use galerna_model::QueueName;
use galerna_storage::Store;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::world::{World, numbered};

const QUEUES: usize = 6;
const CONSUMERS: usize = 8;
/// Leases given before the race ends.
const ENOUGH: usize = 200;

type Tenures = Arc<Mutex<BTreeMap<QueueName, Vec<Tenure>>>>;

struct Local(Maintainer);

#[async_trait]
impl Ping for Local {
    async fn ping(&self) -> Result<(), PingError> {
        self.0.check_on_time().map_err(|late| PingError::NotWorking(late.to_string()))
    }
}

/// One consumer: takes a queue, keeps it for a while, and releases it, forgets it or goes on renewing it.
async fn consume(
    name: String,
    dispatcher: Dispatcher,
    tenures: Tenures,
    start: Instant,
    stop: CancellationToken,
) {
    let micros = |at: Instant| u64::try_from((at - start).as_micros()).unwrap_or(u64::MAX);
    while !stop.is_cancelled() {
        let asked = Instant::now();
        let request = NextRequest {
            consumer: name.clone(),
            wait: Duration::from_millis(20),
            count: 1,
            ..NextRequest::default()
        };
        let Ok(leases) = dispatcher.next(request).await else { continue };
        for leased in leases {
            let from = Instant::now();
            let mut held = HeldLease::new(leased, asked);
            let crashes = fastrand::u8(..) < 50;
            let renews = fastrand::u8(..) < 60;
            let stop_at = from + Duration::from_millis(fastrand::u64(0..30));
            if renews {
                let asked = Instant::now();
                let (queue, epoch) = (held.leased().queue.clone(), held.leased().epoch);
                if let Ok(renewed) = dispatcher.renew(&queue, epoch).await {
                    held.renewed(renewed, asked);
                }
            }
            // A consumer that crashes may work to the last moment that its lease allows.
            let until = if crashes { held.stop_at() } else { stop_at.min(held.stop_at()) };
            tokio::time::sleep_until(until).await;
            tenures.lock().entry(held.leased().queue.clone()).or_default().push(Tenure {
                epoch: held.leased().epoch,
                consumer: name.clone(),
                from: micros(from),
                // What it knows, not when it woke up.
                until: micros(until.max(from)),
            });
            if !crashes {
                let release =
                    Release { queue: held.leased().queue.clone(), epoch: held.leased().epoch, empty: false };
                // A release that comes too late is refused; both are right.
                drop(dispatcher.release(&release).await);
            }
        }
    }
}

pub(crate) async fn two_maintainers_and_two_dispatchers_never_give_a_queue_to_two(
    mut world: World,
    store: Store,
) {
    let timing = Timing::with_lease(Duration::from_millis(300));
    world.options.timing = timing.clone();
    let often = Schedule { every: Duration::from_millis(10), timeout: Duration::from_secs(10) };
    world.options.accounts = often;
    world.options.empties = often;
    world.options.timeouts = often;
    world.options.deletions = often;
    world.with_accounts(&numbered(0..QUEUES)).await;
    for n in 0..QUEUES {
        world.publish(&format!("Q{n}"), 1).await;
    }

    let stop = CancellationToken::new();
    let maintainers = [world.maintainer(), world.maintainer()];
    let mut tasks: Vec<_> = maintainers.iter().map(|m| m.spawn(stop.clone())).collect();
    let tenures = Tenures::default();
    let start = Instant::now();
    for (d, maintainer) in maintainers.iter().enumerate() {
        let options = DispatcherOptions {
            name: format!("d{d}"),
            timing: timing.clone(),
            maintainer: MaintainerLink::Local(Arc::new(Local(maintainer.clone()))),
            ..DispatcherOptions::default()
        };
        let dispatcher = Dispatcher::open(&store, options).await.expect("the dispatcher starts");
        for c in 0..CONSUMERS / 2 {
            let name = format!("d{d}c{c}");
            let (tenures, stop) = (tenures.clone(), stop.clone());
            tasks.push(tokio::spawn(consume(name, dispatcher.clone(), tenures, start, stop)));
        }
    }
    let mut turn = 0;
    world
        .until("enough leases were given", async || {
            // Meanwhile an account goes and comes back.
            turn += 1;
            world.list.says(&numbered(turn % 2..QUEUES));
            tenures.lock().values().map(Vec::len).sum::<usize>() >= ENOUGH
        })
        .await;
    stop.cancel();
    for task in tasks {
        task.await.expect("no panic");
    }
    for (queue, tenures) in tenures.lock().iter() {
        history(tenures).unwrap_or_else(|violation| panic!("{queue}: {violation}: {tenures:?}"));
    }
}
