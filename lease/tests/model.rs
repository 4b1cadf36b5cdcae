//! The lease protocol in a model checker: two dispatchers, three consumers, one queue, one store.
//!
//! The model drives the real [`transition`]; only time and transport are the model's own. Messages (calls, answers, and
//! the guarded writes on their way to the store) may be lost, and may be late by any time; a release may arrive twice.
//! A consumer that got no answer may ask again, with the same request; the answer to its first try may come all the same,
//! and a dispatcher that finds the caller gone takes the lease back.
//! Dispatchers work from caches that are as stale as can be; they and the consumers crash. A message that is lost is one
//! that stays under way for ever; a dispatcher gives up waiting for a write that may yet land.
//!
//! **Clocks.** Wall clocks show times that are years apart: `transition` is called with another `now` by each
//! dispatcher. Monotonic clocks run at different rates, of which only the worst case is modelled: the holders' are the
//! slowest and the dispatchers' the fastest that the margins allow, so that in true time a holder stops as late as a
//! dispatcher expires early, [`LIFE`] ticks. Milder cases are within it, since a dispatcher may expire later than it
//! could, and a holder may stop sooner than it must. That the worst case is safe only just is shown by a second model in
//! which holders go on for one tick more: there the checker finds two of them.

use std::collections::BTreeSet;

use galerna_lease::{
    Lease, QueueEvent, QueueRecord, QueueState, Timing, Transition, TransitionError, invariants, transition,
};
use galerna_model::{AccountId, QueueName, Timestamp};
use stateright::{Checker, Model, Property};

/// Ticks of true time after which a dispatcher may expire what it watches.
const LIFE: u8 = 2;
/// Messages under way at once, those that are lost and could still bear on anything included.
const WIRE: usize = 3;
/// Calls are numbered below this, from 1.
const MAX_CALLS: usize = 8;

/// A stored record, less what does not bear on the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Row {
    version: u8,
    state: QueueState,
    epoch: u8,
    lease: Option<RowLease>,
}

/// A stored lease. Who holds it bears on nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct RowLease {
    renewal: u8,
    /// The call that it was granted to: its holder's name for the request.
    call: u8,
}

impl Row {
    fn record(self) -> QueueRecord {
        let mut r =
            QueueRecord::new(QueueName::new("D1").unwrap(), AccountId::new("1").unwrap(), Timestamp(0));
        r.version = self.version.into();
        r.state = self.state;
        r.epoch = self.epoch.into();
        r.lease = self.lease.map(|lease| Lease {
            consumer: "a consumer".to_owned(),
            granted_at: Timestamp(0),
            expires_at: Timestamp(0),
            lease_ms: 60_000,
            renewal: lease.renewal.into(),
            request: Some(lease.call.to_string()),
        });
        r
    }

    fn of(r: &QueueRecord) -> Self {
        let small = |n: u64| u8::try_from(n).expect("a small model");
        Self {
            version: small(r.version),
            state: r.state,
            epoch: small(r.epoch),
            lease: r.lease.as_ref().map(|l| RowLease {
                renewal: small(l.renewal),
                call: l.request.as_ref().and_then(|call| call.parse().ok()).expect("a call"),
            }),
        }
    }
}

/// What a consumer gets when a write has landed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Reply {
    None,
    Granted { call: u8, retry: bool },
    Renewed { call: u8 },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Message {
    Next { to: usize, call: u8, retry: bool },
    Renew { to: usize, epoch: u8, call: u8 },
    Release { to: usize, epoch: u8, empty: bool },
    Write { by: usize, expected: u8, row: Row, reply: Reply },
    Granted { by: usize, call: u8, retry: bool, epoch: u8, renewal: u8 },
    Renewed { call: u8, revoked: bool },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Dispatcher {
    cache: Row,
    /// Ticks until what is seen may be expired.
    watch: u8,
    /// A guarded write is under way.
    write_in_flight: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Consumer {
    Resting,
    /// Asked, and would hold a lease for so many ticks yet.
    Asked {
        call: u8,
        /// Whether it asked for the second time: an answer to the first is not taken, since it counts from the second.
        retry: bool,
        left: u8,
    },
    /// Consumes; a renewal that is answered would make it so many ticks.
    Holding {
        epoch: u8,
        left: u8,
        renewing: Option<(u8, u8)>,
    },
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct World {
    stored: Row,
    highest: u8,
    dispatchers: [Dispatcher; 2],
    consumers: [Consumer; 3],
    wire: BTreeSet<Message>,
    calls: u8,
    crashes: u8,
    pauses: u8,
    retries: u8,
}

impl World {
    /// Whether it makes a difference that a lease was granted to this call.
    fn call_matters(&self, call: u8) -> bool {
        let asks = |retried: bool| {
            self.consumers.iter().any(
                |c| matches!(c, Consumer::Asked { call: mine, retry, .. } if *mine == call && *retry == retried),
            )
        };
        let comes = |again: bool| {
            self.wire.iter().any(
                |m| matches!(m, Message::Next { call: its, retry, .. } if *its == call && *retry == again),
            )
        };
        asks(true) || comes(true) || (asks(false) && self.retries > 0) || (comes(false) && !asks(false))
    }

    /// Makes one state of those that can only go on alike: consumers are alike, and so are dispatchers; what can no
    /// longer change anything is forgotten.
    fn reduce(&mut self, take_back: bool) {
        for c in &mut self.consumers {
            match c {
                Consumer::Asked { left: 0, .. } => *c = Consumer::Resting, // An answer would come too late.
                Consumer::Holding { renewing, .. } if renewing.is_some_and(|(_, new)| new == 0) => {
                    *renewing = None;
                }
                _ => {}
            }
        }
        for d in &mut self.dispatchers {
            if d.cache.lease.is_none() {
                d.watch = 0;
            }
        }
        let oldest = self.dispatchers.iter().map(|d| d.cache.epoch).min().unwrap_or(0);
        let (consumers, dispatchers, stored) = (self.consumers, self.dispatchers, self.stored);
        self.wire.retain(|message| match *message {
            Message::Next { .. } => true,
            // Every dispatcher refuses it.
            Message::Renew { epoch, .. } | Message::Release { epoch, .. } => epoch >= oldest,
            // The store refuses it, and nobody waits for that.
            Message::Write { by, expected, .. } => expected >= stored.version || dispatchers[by].write_in_flight,
            // Nobody waits for it, nor can it be taken back.
            Message::Granted { call, retry, epoch, renewal, .. } => {
                let waits = |c: &Consumer| {
                    matches!(c, Consumer::Asked { call: mine, retry: again, .. } if *mine == call && *again == retry)
                };
                let lives = renewal == 0 && stored.epoch == epoch && stored.lease.is_some_and(|l| l.renewal == 0);
                consumers.iter().any(waits) || (take_back && lives)
            }
            Message::Renewed { call, .. } => consumers
                .iter()
                .any(|c| matches!(c, Consumer::Holding { renewing: Some((mine, _)), .. } if *mine == call)),
        });
        let matters: [bool; MAX_CALLS] = std::array::from_fn(|call| self.call_matters(call as u8));
        let forget = |row: &mut Row| {
            if let Some(lease) = &mut row.lease
                && !matters[usize::from(lease.call)]
            {
                lease.call = 0;
            }
        };
        forget(&mut self.stored);
        self.dispatchers.iter_mut().for_each(|d| forget(&mut d.cache));
        let forget_in = |mut message: Message| {
            if let Message::Write { row, .. } = &mut message {
                forget(row);
            }
            message
        };
        self.wire = self.wire.iter().copied().map(forget_in).collect();
        self.consumers.sort_unstable();
        let mut mirrored = self.clone();
        mirrored.dispatchers.swap(0, 1);
        mirrored.wire = self.wire.iter().map(|m| m.mirrored()).collect();
        if mirrored < *self {
            *self = mirrored;
        }
    }
}

impl Message {
    /// The same with the dispatchers' numbers exchanged.
    fn mirrored(mut self) -> Self {
        if let Self::Next { to: n, .. }
        | Self::Renew { to: n, .. }
        | Self::Release { to: n, .. }
        | Self::Write { by: n, .. }
        | Self::Granted { by: n, .. } = &mut self
        {
            *n = 1 - *n;
        }
        self
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Action {
    Tick,
    Ask {
        consumer: usize,
        dispatcher: usize,
    },
    AskRenewal {
        consumer: usize,
        dispatcher: usize,
    },
    GiveBack {
        consumer: usize,
        dispatcher: usize,
        empty: bool,
    },
    Deliver(Message),
    /// Delivered, and will be once more.
    DeliverTwice(Message),
    /// An answer whose caller is gone: the dispatcher takes the lease back.
    TakeBack(Message),
    /// A consumer that got no answer asks again.
    AskAgain {
        consumer: usize,
        dispatcher: usize,
    },
    GiveUp(usize),
    Refresh(usize),
    Expire(usize),
    Pause(usize),
    Unpause(usize),
    CrashDispatcher(usize),
    CrashConsumer(usize),
}

struct Protocol {
    /// Ticks of true time for which a holder may go on, from its request.
    hold: u8,
    calls: u8,
    crashes: u8,
    pauses: u8,
    /// Requests made for the second time.
    retries: u8,
    /// Whether dispatchers take leases back whose answer reached nobody.
    take_back: bool,
}

impl Protocol {
    /// A dispatcher applies an event to what it knows and sends the write off.
    fn submit(
        &self,
        world: &mut World,
        by: usize,
        event: &QueueEvent,
        reply: Reply,
    ) -> Result<(), TransitionError> {
        // Wall clocks are years apart, on either side of the stamps in the record.
        let wall = Timestamp(if by == 0 { -1_000_000_000_000 } else { 4_000_000_000_000 });
        let cache = world.dispatchers[by].cache;
        if let Transition::To(next) = transition(&cache.record(), event, wall, &Timing::default())? {
            world.dispatchers[by].write_in_flight = true;
            world.wire.insert(Message::Write { by, expected: cache.version, row: Row::of(&next), reply });
        }
        Ok(())
    }

    fn see(world: &mut World, by: usize) {
        let seen = world.stored;
        let d = &mut world.dispatchers[by];
        if seen.version > d.cache.version {
            let renewal = |row: Row| row.lease.map(|lease| lease.renewal);
            let same = seen.epoch == d.cache.epoch && renewal(seen) == renewal(d.cache);
            if !same {
                d.watch = LIFE;
            }
            d.cache = seen;
        }
    }

    fn deliver(&self, world: &mut World, message: Message) {
        match message {
            Message::Next { to, call, retry } => {
                let cache = world.dispatchers[to].cache;
                let event = if cache.lease.is_some_and(|lease| lease.call == call) {
                    QueueEvent::Renew { epoch: cache.epoch.into() }
                } else {
                    let request = Some(call.to_string());
                    QueueEvent::Lease { consumer: "a consumer".to_owned(), request }
                };
                self.submit(world, to, &event, Reply::Granted { call, retry }).ok(); // Refused: nothing happens.
            }
            Message::Renew { to, epoch, call } => {
                if epoch > world.dispatchers[to].cache.epoch {
                    Self::see(world, to);
                }
                let event = QueueEvent::Renew { epoch: epoch.into() };
                self.submit(world, to, &event, Reply::Renewed { call }).ok(); // Refused: nothing happens.
            }
            Message::Release { to, epoch, empty } => {
                if epoch > world.dispatchers[to].cache.epoch {
                    Self::see(world, to);
                }
                let event = QueueEvent::Release { epoch: epoch.into(), empty };
                self.submit(world, to, &event, Reply::None).ok(); // Refused: nothing happens.
            }
            Message::Write { by, expected, row, reply } => {
                world.dispatchers[by].write_in_flight = false;
                if world.stored.version == expected {
                    world.stored = row;
                    world.highest = world.highest.max(row.epoch);
                    match reply {
                        Reply::None => {}
                        Reply::Granted { call, retry } => {
                            let renewal = row.lease.map_or(0, |lease| lease.renewal);
                            world.wire.insert(Message::Granted {
                                by,
                                call,
                                retry,
                                epoch: row.epoch,
                                renewal,
                            });
                        }
                        Reply::Renewed { call } => {
                            let revoked = row.state != QueueState::Leased;
                            world.wire.insert(Message::Renewed { call, revoked });
                        }
                    }
                }
                Self::see(world, by);
            }
            Message::Granted { call: answered, retry: second, epoch, .. } => {
                for consumer in &mut world.consumers {
                    if let Consumer::Asked { call, retry, left } = *consumer
                        && (call, retry) == (answered, second)
                    {
                        *consumer = if left > 0 {
                            Consumer::Holding { epoch, left, renewing: None }
                        } else {
                            Consumer::Resting
                        };
                    }
                }
            }
            Message::Renewed { call: answered, revoked } => {
                for consumer in &mut world.consumers {
                    if let Consumer::Holding { epoch, left, renewing: Some((call, new)) } = *consumer
                        && call == answered
                    {
                        *consumer = if revoked {
                            Consumer::Resting
                        } else {
                            Consumer::Holding { epoch, left: left.max(new), renewing: None }
                        };
                    }
                }
            }
        }
    }
}

impl Model for Protocol {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        let stored = Row { version: 0, state: QueueState::Idle, epoch: 0, lease: None };
        vec![World {
            stored,
            highest: 0,
            dispatchers: [Dispatcher { cache: stored, watch: LIFE, write_in_flight: false }; 2],
            consumers: [Consumer::Resting; 3],
            wire: BTreeSet::new(),
            calls: self.calls,
            crashes: self.crashes,
            pauses: self.pauses,
            retries: self.retries,
        }]
    }

    fn actions(&self, world: &World, actions: &mut Vec<Action>) {
        actions.push(Action::Tick);
        let room = world.wire.len() < WIRE;
        for (consumer, state) in world.consumers.iter().enumerate() {
            match state {
                Consumer::Resting if room && world.calls > 0 => {
                    // Consumers are alike: the first one at rest asks for all of them.
                    if world.consumers[..consumer].contains(&Consumer::Resting) {
                        continue;
                    }
                    actions.extend((0..2).map(|dispatcher| Action::Ask { consumer, dispatcher }));
                }
                Consumer::Resting => {}
                Consumer::Asked { retry, .. } => {
                    actions.push(Action::CrashConsumer(consumer));
                    if !retry && room && world.retries > 0 {
                        actions.extend((0..2).map(|dispatcher| Action::AskAgain { consumer, dispatcher }));
                    }
                }
                Consumer::Holding { renewing, .. } => {
                    if room {
                        for dispatcher in 0..2 {
                            actions.push(Action::GiveBack { consumer, dispatcher, empty: dispatcher == 1 });
                            if renewing.is_none() && world.calls > 0 {
                                actions.push(Action::AskRenewal { consumer, dispatcher });
                            }
                        }
                    }
                    actions.push(Action::CrashConsumer(consumer));
                }
            }
        }
        for message in &world.wire {
            let busy = match message {
                Message::Next { to, .. } | Message::Renew { to, .. } | Message::Release { to, .. } => {
                    world.dispatchers[*to].write_in_flight
                }
                _ => false,
            };
            if !busy {
                actions.push(Action::Deliver(*message));
                if matches!(message, Message::Release { .. }) && room {
                    actions.push(Action::DeliverTwice(*message));
                }
                if let Message::Granted { by, renewal: 0, .. } = message
                    && self.take_back
                    && !world.dispatchers[*by].write_in_flight
                {
                    actions.push(Action::TakeBack(*message));
                }
            }
        }
        for (n, d) in world.dispatchers.iter().enumerate() {
            if d.cache.version < world.stored.version {
                actions.push(Action::Refresh(n));
            }
            if !d.write_in_flight && room {
                if d.watch == 0 && d.cache.lease.is_some() {
                    actions.push(Action::Expire(n));
                }
                if world.pauses > 0 {
                    actions.push(Action::Pause(n));
                }
                if d.cache.state == QueueState::Paused {
                    actions.push(Action::Unpause(n));
                }
            }
            if d.write_in_flight {
                actions.push(Action::GiveUp(n));
            }
            if world.crashes > 0 {
                actions.push(Action::CrashDispatcher(n));
            }
        }
    }

    fn next_state(&self, world: &World, action: Action) -> Option<World> {
        let mut next = world.clone();
        match action {
            Action::Tick => {
                for d in &mut next.dispatchers {
                    d.watch = d.watch.saturating_sub(1);
                }
                for consumer in &mut next.consumers {
                    match consumer {
                        Consumer::Resting => {}
                        Consumer::Asked { left, .. } => *left = left.saturating_sub(1),
                        Consumer::Holding { left, renewing, .. } => {
                            *left = left.saturating_sub(1);
                            if let Some((_, new)) = renewing {
                                *new = new.saturating_sub(1);
                            }
                        }
                    }
                }
            }
            Action::Ask { consumer, dispatcher } => {
                let call = next.calls;
                next.calls -= 1;
                next.consumers[consumer] = Consumer::Asked { call, retry: false, left: self.hold };
                next.wire.insert(Message::Next { to: dispatcher, call, retry: false });
            }
            Action::AskAgain { consumer, dispatcher } => {
                let Consumer::Asked { call, .. } = next.consumers[consumer] else { return None };
                next.retries -= 1;
                next.consumers[consumer] = Consumer::Asked { call, retry: true, left: self.hold };
                next.wire.insert(Message::Next { to: dispatcher, call, retry: true });
            }
            Action::TakeBack(message) => {
                let Message::Granted { by, epoch, .. } = message else { return None };
                next.wire.remove(&message);
                let event = QueueEvent::TakeBack { epoch: epoch.into() };
                self.submit(&mut next, by, &event, Reply::None).ok(); // Refused: it ended or was renewed.
            }
            Action::AskRenewal { consumer, dispatcher } => {
                let Consumer::Holding { epoch, renewing, .. } = &mut next.consumers[consumer] else {
                    return None;
                };
                let call = next.calls;
                *renewing = Some((call, self.hold));
                next.wire.insert(Message::Renew { to: dispatcher, epoch: *epoch, call });
                next.calls -= 1;
            }
            Action::GiveBack { consumer, dispatcher, empty } => {
                let Consumer::Holding { epoch, .. } = next.consumers[consumer] else { return None };
                next.consumers[consumer] = Consumer::Resting;
                next.wire.insert(Message::Release { to: dispatcher, epoch, empty });
            }
            Action::Deliver(message) => {
                next.wire.remove(&message);
                self.deliver(&mut next, message);
            }
            Action::DeliverTwice(message) => self.deliver(&mut next, message),
            Action::GiveUp(n) => next.dispatchers[n].write_in_flight = false,
            Action::Refresh(n) => Self::see(&mut next, n),
            Action::Expire(n) => {
                let cache = next.dispatchers[n].cache;
                let renewal = cache.lease?.renewal;
                let event = QueueEvent::Expire { epoch: cache.epoch.into(), renewal: renewal.into() };
                self.submit(&mut next, n, &event, Reply::None).ok()?;
            }
            Action::Pause(n) => {
                next.pauses -= 1;
                self.submit(&mut next, n, &QueueEvent::Pause { reason: None }, Reply::None).ok()?;
            }
            Action::Unpause(n) => self.submit(&mut next, n, &QueueEvent::Unpause, Reply::None).ok()?,
            Action::CrashDispatcher(n) => {
                // Its write under way may land all the same. Started again, it reads the store and watches anew.
                next.crashes -= 1;
                next.dispatchers[n] = Dispatcher { cache: next.stored, watch: LIFE, write_in_flight: false };
            }
            Action::CrashConsumer(n) => next.consumers[n] = Consumer::Resting,
        }
        next.reduce(self.take_back);
        (next != *world).then_some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let mut properties = vec![
            Property::always("at most one consumer consumes", |_, w: &World| {
                let holds = |c: &&Consumer| matches!(c, Consumer::Holding { left, .. } if *left > 0);
                w.consumers.iter().filter(holds).count() <= 1
            }),
            Property::always("the epoch never goes back", |_, w: &World| w.stored.epoch == w.highest),
            Property::always("who consumes has the newest epoch", |_, w: &World| {
                w.consumers.iter().all(|c| match c {
                    Consumer::Holding { epoch, left, .. } if *left > 0 => *epoch == w.stored.epoch,
                    _ => true,
                })
            }),
            Property::always("what is stored is sound", |_, w: &World| {
                invariants::record(&w.stored.record()).is_ok()
            }),
            Property::sometimes("a queue is leased twice", |_, w: &World| w.stored.epoch >= 2),
            Property::sometimes("a lease is renewed", |_, w: &World| {
                w.stored.lease.is_some_and(|lease| lease.renewal > 0)
            }),
        ];
        if self.retries > 0 {
            properties.push(Property::sometimes(
                "who asks again is given the lease that it holds",
                |_, w: &World| {
                    let given = |m: &Message| matches!(m, Message::Granted { retry: true, renewal: 1.., .. });
                    w.wire.iter().any(given)
                },
            ));
        }
        if self.pauses > 0 {
            properties.push(Property::sometimes("a paused queue still has its holder", |_, w: &World| {
                w.stored.state == QueueState::Paused && w.stored.lease.is_some()
            }));
        }
        properties
    }
}

/// Visits every state that is reachable with so many calls of consumers, crashes of dispatchers, pauses and requests made
/// twice; consumers crash at will.
fn check(protocol: Protocol) {
    let checker = protocol.checker().threads(2).spawn_bfs().join();
    println!("{} states, {} of them different", checker.state_count(), checker.unique_state_count());
    assert!(checker.unique_state_count() > 10_000, "the model moves");
    checker.assert_properties();
}

const PLAIN: Protocol =
    Protocol { hold: LIFE, calls: 2, crashes: 0, pauses: 0, retries: 0, take_back: false };

#[test]
fn one_holder_and_a_growing_epoch_in_every_state_with_a_dispatcher_that_crashes_and_a_pause() {
    check(Protocol { crashes: 1, pauses: 1, ..PLAIN });
}

#[test]
fn one_holder_and_a_growing_epoch_in_every_state_with_three_calls_under_way() {
    check(Protocol { calls: 3, ..PLAIN });
}

#[test]
fn one_holder_and_a_growing_epoch_in_every_state_with_requests_made_twice_and_leases_taken_back() {
    check(Protocol { retries: 1, take_back: true, ..PLAIN });
}

#[test]
fn a_holder_that_overstays_by_one_tick_is_caught() {
    let checker = Protocol { hold: LIFE + 1, ..PLAIN }.checker().threads(2).spawn_bfs().join();
    checker.assert_any_discovery("at most one consumer consumes");
}
