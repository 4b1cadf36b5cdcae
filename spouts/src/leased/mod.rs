//! The spout that consumes leased queues.

mod circuit_breaker;
mod in_work;
mod pool;
mod renewer;
mod session;
mod tally;
mod task;

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use galerna_broker::{Broker, Delivery, DeliveryTag, Outcome};
use galerna_lease::{GroupedLeases, Leases};
use galerna_lock::Mutex;
use galerna_model::{AccountId, Incoming, QueueName};
use galerna_topology::{Failed, Failure, Fault, FaultKind, Next, Output, Roots, Spout, TaskContext};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, timeout_at};

use circuit_breaker::CircuitBreaker;
use in_work::InWork;
use pool::LeasePool;
pub use tally::LeaseTally;
use tally::add;

/// A message whose way took so long is told of in the log.
const SLOW: Duration = Duration::from_secs(5);

/// Arrivals that wait for the spout, at most; more wait in their lease tasks.
const ARRIVALS: usize = 64;

/// Finds the account that owns a queue.
pub type AccountOf = Arc<dyn Fn(&QueueName) -> Option<AccountId> + Send + Sync>;

/// How a leased-queue spout works.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeasedOptions {
    /// Most leases held at the same time, per task. At most 16 of them are of queues that have not given a message yet; the others
    /// are had one by one, for as long as there are queues with messages.
    pub leases: usize,
    /// Unsettled messages per lease. Of more than 16 leases those without a backlog get less, down to 16.
    pub prefetch: u16,
    /// A lease is given back after so many messages, so that other queues get their turn.
    pub messages_per_lease: usize,
    /// A lease whose queue has not been empty meanwhile is given back after so long.
    pub hold: Duration,
    /// How long the lease of a queue that gave its last message is kept, while fewer than [`leases`](Self::leases) are held: a
    /// message that comes meanwhile is received at once. When no place is left it is given back within a second. 0: not at all.
    pub linger: Duration,
    /// How long the dispatcher is asked to wait when there is nothing to lease. It is taken off the lease, since a holder
    /// counts from before its request: keep it well below a lease's length.
    pub wait: Duration,
    /// How long nothing must come before the queue is asked whether it is empty.
    pub dry_after: Duration,
    /// How long, after a pause or a stop, to wait for messages in work before they are given back.
    pub grace: Duration,
}

impl Default for LeasedOptions {
    /// 4,096 leases, 1,000 unsettled, 10,000 messages or 10 s a lease, 2 s of linger, 1 s of wait, dry after 20 ms, 30 s of grace.
    fn default() -> Self {
        Self {
            leases: 4_096,
            prefetch: 1_000,
            messages_per_lease: 10_000,
            hold: Duration::from_secs(10),
            linger: Duration::from_secs(2),
            wait: Duration::from_secs(1),
            dry_after: Duration::from_millis(20),
            grace: Duration::from_secs(30),
        }
    }
}

/// Leases queues from the dispatcher and emits their messages, one tuple a message, each a root.
///
/// What becomes of a message:
///
/// | its root | the message |
/// |---|---|
/// | acked | acked |
/// | failed as [unavailable](FaultKind::Unavailable), or the topology stopped | given back unharmed; the lease ends and a pause that grows begins |
/// | failed as [permanent](FaultKind::Permanent) | moved to the dead letters |
/// | failed otherwise, timed out, panicked | delivered again later; dead after its last delivery |
///
/// Each of the leases lives in a task of its own: lease, consume until dry, [`LeasedOptions::messages_per_lease`] or
/// [`LeasedOptions::hold`], wait for what is in work, release and ask for the next in one request. So leases are renewed however long the topology holds the spout back.
/// A few tasks look for queues with messages; while one has found one another is started in its place. So where there are places for it,
/// each queue that messages come for keeps its lease and its consumer, for as long as no more than [`LeasedOptions::linger`] passes
/// between two messages, up to a minute or [`LeasedOptions::messages_per_lease`]: then it goes to whoever has waited longest. A lease that was revoked is no longer
/// consumed and is given back when what is in work is done. **Nothing is consumed or settled past the lease**, as its holder
/// counts it ([`HeldLease`](galerna_lease::HeldLease)): a process that was stopped for too long finds its lease over
/// when it goes on, drops what it had, and its release is refused without harm. While the dispatcher is unavailable, leases in
/// hand are worked on until their end.
///
/// A message's own id is its [stable id](galerna_topology::Emitter::stable_id), if it has one: the same at each delivery, and
/// as unique as its publisher makes it.
///
/// While all that a lease may have unsettled is in work, or it has had its share and waits for what is in work, the spout says
/// that it is [full](Spout::is_full) when it has nothing to emit: that queue may hold any number of messages.
///
/// ```
/// # use std::sync::Arc;
/// use galerna_broker::Broker;
/// use galerna_lease::Leases;
/// use galerna_spouts::{LeasedOptions, LeasedQueues};
/// use galerna_topology::TopologyBuilder;
///
/// fn wire(topology: &mut TopologyBuilder, broker: Arc<dyn Broker>, leases: Arc<dyn Leases>) {
///     let messages = topology
///         .spout("queues", move || {
///             LeasedQueues::new(broker.clone(), leases.clone(), "worker-1")
///                 .with_options(LeasedOptions { leases: 4, ..LeasedOptions::default() })
///         })
///         .outputs();
///     topology.for_each("print", |message: galerna_model::Incoming| println!("{}", message.queue)).shuffle(&messages);
/// }
/// ```
pub struct LeasedQueues {
    parts: Parts,
    running: Option<Running>,
}

/// What spout and lease tasks share.
#[derive(Clone)]
struct Parts {
    broker: Arc<dyn Broker>,
    leases: Arc<dyn Leases>,
    consumer: String,
    options: LeasedOptions,
    accounts: Option<AccountOf>,
    tally: Arc<LeaseTally>,
    breaker: Arc<CircuitBreaker>,
}

impl Parts {
    fn account_of(&self, queue: &QueueName) -> Option<AccountId> {
        match &self.accounts {
            Some(accounts) => accounts(queue),
            None => AccountId::new(queue.as_str()).ok(),
        }
    }
}

struct Running {
    activity: watch::Sender<Activity>,
    arrivals: mpsc::Receiver<Arrival>,
    current: Option<(Arc<Claim>, VecDeque<Delivery>)>,
    in_work: InWork,
    pool: Arc<LeasePool>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Activity {
    Inactive,
    Active,
    Closing,
}

/// What becomes of messages of one lease.
type Settlement = Vec<(DeliveryTag, Outcome)>;

/// Messages of one lease on their way to the spout.
struct Arrival {
    claim: Arc<Claim>,
    deliveries: Vec<Delivery>,
}

/// The lease that a message was consumed under, as the spout knows it.
struct Claim {
    queue: QueueName,
    account: AccountId,
    epoch: u64,
    /// How many messages may be unsettled.
    prefetch: usize,
    /// Whether what arrived may still be emitted.
    open: AtomicBool,
    /// Whether it has had its share of messages or of time, and ends when what is in work is done.
    shared_out: AtomicBool,
    stop_at: Mutex<Instant>,
    settle: mpsc::Sender<Settlement>,
}

impl Claim {
    fn may_emit(&self) -> bool {
        self.open.load(Relaxed) && Instant::now() < *self.stop_at.lock()
    }

    fn renewed(&self, stop_at: Instant) {
        *self.stop_at.lock() = stop_at;
    }
}

/// What the spout calls a message by.
pub struct Receipt {
    claim: Arc<Claim>,
    tag: DeliveryTag,
    /// The message's id, and which delivery it is.
    message: Arc<str>,
    deliveries: u32,
    emitted: Instant,
}

impl LeasedQueues {
    /// Consumes the queues that `leases` gives, as `consumer` (its task's number is added to it).
    pub fn new(broker: Arc<dyn Broker>, leases: Arc<dyn Leases>, consumer: impl Into<String>) -> Self {
        let parts = Parts {
            broker,
            leases,
            consumer: consumer.into(),
            options: LeasedOptions::default(),
            accounts: None,
            tally: Arc::default(),
            breaker: Arc::default(),
        };
        Self { parts, running: None }
    }

    /// Works in this way.
    #[must_use]
    pub fn with_options(mut self, options: LeasedOptions) -> Self {
        self.parts.options = options;
        self
    }

    /// Asks `accounts` for the account of a queue; a queue of which it knows none is not consumed. Without it, accounts have
    /// the names of their queues.
    #[must_use]
    pub fn with_accounts(mut self, accounts: AccountOf) -> Self {
        self.parts.accounts = Some(accounts);
        self
    }

    /// Counts in this tally.
    #[must_use]
    pub fn with_tally(mut self, tally: Arc<LeaseTally>) -> Self {
        self.parts.tally = tally;
        self
    }

    /// Says what became of messages in work.
    fn ended(&mut self, outcomes: Outcomes) {
        if let Some(running) = &mut self.running {
            outcomes.of.iter().for_each(|(claim, settlement)| running.in_work.end(claim, settlement.len()));
        }
        outcomes.send(&self.parts.tally);
    }

    /// Gives back what arrived and was not emitted.
    fn give_back_arrivals(&mut self) {
        let Some(running) = &mut self.running else { return };
        let mut outcomes = Outcomes::default();
        if let Some((claim, deliveries)) = running.current.take() {
            deliveries.into_iter().for_each(|d| outcomes.add(&claim, d.tag, Outcome::Release));
        }
        while let Ok(arrival) = running.arrivals.try_recv() {
            arrival.deliveries.iter().for_each(|d| outcomes.add(&arrival.claim, d.tag, Outcome::Release));
        }
        outcomes.send(&self.parts.tally);
    }
}

/// Outcomes by lease.
#[derive(Default)]
struct Outcomes {
    of: Vec<(Arc<Claim>, Settlement)>,
    /// Where the outcomes of each lease are, by the lease's address: many leases end messages in one turn.
    places: HashMap<usize, usize>,
}

impl Outcomes {
    fn add(&mut self, claim: &Arc<Claim>, tag: DeliveryTag, outcome: Outcome) {
        // Roots end mostly in the order in which they began, so the last one used is often the right one.
        if let Some((last, outcomes)) = self.of.last_mut()
            && Arc::ptr_eq(last, claim)
        {
            outcomes.push((tag, outcome));
            return;
        }
        match self.places.entry(Arc::as_ptr(claim) as usize) {
            Entry::Occupied(place) => self.of[*place.get()].1.push((tag, outcome)),
            Entry::Vacant(place) => {
                place.insert(self.of.len());
                self.of.push((claim.clone(), vec![(tag, outcome)]));
            }
        }
    }

    fn send(self, tally: &LeaseTally) {
        for (claim, outcomes) in self.of {
            // The channel has room for as many as there can be unsettled messages, so it is never full; it is closed when
            // the lease is over, and then its messages are delivered to somebody else.
            if let Err(error) = claim.settle.try_send(outcomes) {
                add(&tally.too_late, error.into_inner().len());
            }
        }
    }
}

fn outcome_of(failure: &Failure) -> Outcome {
    let because = || galerna_broker::Failure {
        reason: failure.reason().to_owned(),
        component: failure.component.as_ref().to_owned(),
    };
    match failure.fault.kind() {
        FaultKind::Unavailable => Outcome::Release,
        FaultKind::Permanent => Outcome::DeadLetter(because()),
        FaultKind::Transient => Outcome::Retry(because()),
    }
}

impl Spout for LeasedQueues {
    type MessageId = Receipt;
    type Outputs = Output<Incoming>;

    const STABLE_IDS: bool = true;

    async fn open(&mut self, context: &TaskContext) -> Result<(), Fault> {
        let (activity, watching) = watch::channel(Activity::Inactive);
        let (arrived, arrivals) = mpsc::channel(ARRIVALS);
        let mut parts = self.parts.clone();
        parts.consumer = format!("{}/{}", parts.consumer, context.task());
        // Its tasks ask for leases together.
        parts.leases = Arc::new(GroupedLeases::new(parts.leases));
        let pool = LeasePool::start(parts, watching, arrived);
        self.running = Some(Running { activity, arrivals, current: None, in_work: InWork::default(), pool });
        Ok(())
    }

    async fn next(&mut self, out: &mut Roots<'_, Self>) -> Result<Next, Fault> {
        let Some(running) = &mut self.running else { return Ok(Next::Done) };
        while out.room() > 0 {
            let Some((claim, deliveries)) = &mut running.current else {
                match running.arrivals.try_recv() {
                    Ok(arrival) => {
                        running.current = Some((arrival.claim, arrival.deliveries.into()));
                        continue;
                    }
                    Err(_) => return Ok(Next::Idle),
                }
            };
            if claim.may_emit() {
                let n = out.room().min(deliveries.len());
                running.in_work.begin(claim, n);
                let emitted = Instant::now();
                for delivery in deliveries.drain(..n) {
                    let incoming = Incoming {
                        queue: claim.queue.clone(),
                        account: claim.account.clone(),
                        epoch: claim.epoch,
                        deliveries: delivery.deliveries,
                        replays: delivery.replays,
                        message: delivery.message,
                    };
                    tracing::trace!(
                        target: "galerna::trace::queues",
                        id = incoming.message.id.as_str(),
                        "delivered from queue {} under epoch {}, delivery {}",
                        incoming.queue,
                        incoming.epoch,
                        incoming.deliveries,
                    );
                    let receipt = Receipt {
                        claim: claim.clone(),
                        tag: delivery.tag,
                        message: incoming.message.id.as_str().into(),
                        deliveries: incoming.deliveries,
                        emitted,
                    };
                    // Those of other publishers may have no id.
                    let root = match &*receipt.message {
                        "" => out.root(receipt),
                        _ => {
                            let message = receipt.message.clone();
                            out.root_with_stable_id(receipt, message)
                        }
                    };
                    root.emit(incoming);
                }
            } else {
                let mut outcomes = Outcomes::default();
                deliveries.drain(..).for_each(|d| outcomes.add(claim, d.tag, Outcome::Release));
                outcomes.send(&self.parts.tally);
            }
            if deliveries.is_empty() {
                running.current = None;
            }
        }
        Ok(Next::Ready)
    }

    async fn ready(&mut self) {
        match &mut self.running {
            Some(running) if running.current.is_none() => match running.arrivals.recv().await {
                Some(arrival) => running.current = Some((arrival.claim, arrival.deliveries.into())),
                None => std::future::pending().await,
            },
            Some(_) => {}
            None => std::future::pending().await,
        }
    }

    fn is_full(&self) -> bool {
        self.running.as_ref().is_some_and(|running| running.in_work.is_full())
    }

    async fn acked(&mut self, ids: &mut Vec<Receipt>) {
        let mut outcomes = Outcomes::default();
        let now = Instant::now();
        for id in ids.drain(..) {
            let message = &*id.message;
            tracing::trace!(target: "galerna::trace::queues", id = message, "acked");
            let took = now.saturating_duration_since(id.emitted);
            if took >= SLOW {
                tracing::info!(id = message, queue = %id.claim.queue, ?took, "a message was slow");
            }
            outcomes.add(&id.claim, id.tag, Outcome::Ack);
        }
        self.ended(outcomes);
    }

    async fn failed(&mut self, failed: &mut Vec<Failed<Receipt>>) {
        let mut outcomes = Outcomes::default();
        for Failed { id, failure } in failed.drain(..) {
            let (message, queue) = (&*id.message, &id.claim.queue);
            tracing::trace!(target: "galerna::trace::queues", id = message, failed = true, "failed: {failure}");
            let outcome = outcome_of(&failure);
            match &outcome {
                // An outage fails all messages alike, and is told of by who notices it.
                Outcome::Release => {
                    tracing::debug!(id = message, %queue, %failure, "a message is given back")
                }
                Outcome::DeadLetter(_) => {
                    tracing::info!(id = message, %queue, %failure, "a message goes to the dead letters");
                }
                _ => {
                    let delivery = id.deliveries;
                    tracing::info!(id = message, %queue, delivery, %failure, "a message failed");
                }
            }
            outcomes.add(&id.claim, id.tag, outcome);
        }
        self.ended(outcomes);
    }

    async fn activate(&mut self) {
        if let Some(running) = &self.running {
            running.activity.send_replace(Activity::Active);
        }
    }

    async fn deactivate(&mut self) {
        if let Some(running) = &self.running {
            running.activity.send_replace(Activity::Inactive);
        }
        self.give_back_arrivals();
    }

    async fn close(&mut self) {
        if let Some(running) = &self.running {
            running.activity.send_replace(Activity::Closing);
        }
        self.give_back_arrivals();
        let Some(running) = self.running.take() else { return };
        let mut tasks = running.pool.close();
        // The tasks release their leases; one that cannot, because the dispatcher is unavailable, lets its lease expire.
        let deadline = Instant::now() + task::CLOSE_TIMEOUT;
        while let Ok(Some(ended)) = timeout_at(deadline, tasks.join_next()).await {
            pool::log_end(ended);
        }
        tasks.shutdown().await;
    }
}

#[cfg(test)]
mod tests {
    use galerna_topology::FailureKind;

    use super::*;

    #[test]
    fn a_failure_decides_what_becomes_of_its_message() {
        let because =
            |reason: &str| galerna_broker::Failure { reason: reason.into(), component: "store".into() };
        let by = |fault: Fault| Failure::error(fault, "store");
        let cases = [
            (by(Fault::transient("values[0].p is 9")), Outcome::Retry(because("values[0].p is 9"))),
            (Failure::new(FailureKind::Timeout, "timeout", "store"), Outcome::Retry(because("timeout"))),
            (Failure::new(FailureKind::Panic, "boom", "store"), Outcome::Retry(because("boom"))),
            (Failure::new(FailureKind::Dropped, "dropped", "store"), Outcome::Retry(because("dropped"))),
            (Failure::new(FailureKind::Stopped, "stopped", "store"), Outcome::Release),
            (by(Fault::unavailable("no answer")), Outcome::Release),
            (by(Fault::permanent("no such meter")), Outcome::DeadLetter(because("no such meter"))),
            // What a text says changes nothing.
            (by(Fault::transient("permanent: no")), Outcome::Retry(because("permanent: no"))),
            (by(Fault::transient("away: no")), Outcome::Retry(because("away: no"))),
        ];
        for (failure, expected) in cases {
            assert_eq!(outcome_of(&failure), expected, "{failure}");
        }
    }
}
