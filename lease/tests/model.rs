//! The lease protocol in a model checker: two dispatchers, three consumers, one queue, one store.
//!
//! The model drives the real [`transition`]; only time and transport are the model's own. Messages (calls, answers, and
//! the guarded writes on their way to the store) may be lost, and may be late by any time; a release may arrive twice.
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

/// A stored record, less what does not bear on the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Row {
    version: u8,
    state: QueueState,
    epoch: u8,
    /// Renewal of the lease. Who holds it bears on nothing.
    lease: Option<u8>,
}

impl Row {
    fn record(self) -> QueueRecord {
        let mut r =
            QueueRecord::new(QueueName::new("D1").unwrap(), AccountId::new("1").unwrap(), Timestamp(0));
        r.version = self.version.into();
        r.state = self.state;
        r.epoch = self.epoch.into();
        r.lease = self.lease.map(|renewal| Lease {
            consumer: "a consumer".to_owned(),
            granted_at: Timestamp(0),
            expires_at: Timestamp(0),
            lease_ms: 60_000,
            renewal: renewal.into(),
        });
        r
    }

    fn of(r: &QueueRecord) -> Self {
        let small = |n: u64| u8::try_from(n).expect("a small model");
        Self {
            version: small(r.version),
            state: r.state,
            epoch: small(r.epoch),
            lease: r.lease.as_ref().map(|l| small(l.renewal)),
        }
    }
}

/// What a consumer gets when a write has landed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Reply {
    None,
    Granted { call: u8 },
    Renewed { call: u8 },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Message {
    Next { to: usize, call: u8 },
    Renew { to: usize, epoch: u8, call: u8 },
    Release { to: usize, epoch: u8, empty: bool },
    Write { by: usize, expected: u8, row: Row, reply: Reply },
    Granted { call: u8, epoch: u8 },
    Renewed { call: u8, revoked: bool },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Dispatcher {
    cache: Row,
    /// Ticks until what is seen may be expired.
    watch: u8,
    /// A guarded write is under way.
    flying: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Consumer {
    Resting,
    /// Asked, and would hold a lease for so many ticks yet.
    Asked {
        call: u8,
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
}

impl World {
    /// Makes one state of those that can only go on alike: consumers are alike, and so are dispatchers; what can no
    /// longer change anything is forgotten.
    fn reduce(&mut self) {
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
            Message::Write { by, expected, .. } => expected >= stored.version || dispatchers[by].flying,
            // Nobody waits for it.
            Message::Granted { call, .. } => {
                consumers.iter().any(|c| matches!(c, Consumer::Asked { call: mine, .. } if *mine == call))
            }
            Message::Renewed { call, .. } => consumers
                .iter()
                .any(|c| matches!(c, Consumer::Holding { renewing: Some((mine, _)), .. } if *mine == call)),
        });
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
        | Self::Write { by: n, .. } = &mut self
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
            world.dispatchers[by].flying = true;
            world.wire.insert(Message::Write { by, expected: cache.version, row: Row::of(&next), reply });
        }
        Ok(())
    }

    fn see(world: &mut World, by: usize) {
        let seen = world.stored;
        let d = &mut world.dispatchers[by];
        if seen.version > d.cache.version {
            let same = seen.epoch == d.cache.epoch && seen.lease == d.cache.lease;
            if !same {
                d.watch = LIFE;
            }
            d.cache = seen;
        }
    }

    fn deliver(&self, world: &mut World, message: Message) {
        match message {
            Message::Next { to, call } => {
                let event = QueueEvent::Lease { consumer: "a consumer".to_owned() };
                self.submit(world, to, &event, Reply::Granted { call }).ok(); // Refused: nothing happens.
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
                world.dispatchers[by].flying = false;
                if world.stored.version == expected {
                    world.stored = row;
                    world.highest = world.highest.max(row.epoch);
                    match reply {
                        Reply::None => {}
                        Reply::Granted { call } => {
                            world.wire.insert(Message::Granted { call, epoch: row.epoch });
                        }
                        Reply::Renewed { call } => {
                            let revoked = row.state != QueueState::Leased;
                            world.wire.insert(Message::Renewed { call, revoked });
                        }
                    }
                }
                Self::see(world, by);
            }
            Message::Granted { call: answered, epoch } => {
                for consumer in &mut world.consumers {
                    if let Consumer::Asked { call, left } = *consumer
                        && call == answered
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
            dispatchers: [Dispatcher { cache: stored, watch: LIFE, flying: false }; 2],
            consumers: [Consumer::Resting; 3],
            wire: BTreeSet::new(),
            calls: self.calls,
            crashes: self.crashes,
            pauses: self.pauses,
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
                Consumer::Asked { .. } => actions.push(Action::CrashConsumer(consumer)),
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
                    world.dispatchers[*to].flying
                }
                _ => false,
            };
            if !busy {
                actions.push(Action::Deliver(*message));
                if matches!(message, Message::Release { .. }) && room {
                    actions.push(Action::DeliverTwice(*message));
                }
            }
        }
        for (n, d) in world.dispatchers.iter().enumerate() {
            if d.cache.version < world.stored.version {
                actions.push(Action::Refresh(n));
            }
            if !d.flying && room {
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
            if d.flying {
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
                next.consumers[consumer] = Consumer::Asked { call, left: self.hold };
                next.wire.insert(Message::Next { to: dispatcher, call });
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
            Action::GiveUp(n) => next.dispatchers[n].flying = false,
            Action::Refresh(n) => Self::see(&mut next, n),
            Action::Expire(n) => {
                let cache = next.dispatchers[n].cache;
                let renewal = cache.lease?;
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
                next.dispatchers[n] = Dispatcher { cache: next.stored, watch: LIFE, flying: false };
            }
            Action::CrashConsumer(n) => next.consumers[n] = Consumer::Resting,
        }
        next.reduce();
        (next != *world).then_some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let mut properties = vec![
            Property::always("P1: at most one consumer consumes", |_, w: &World| {
                let holds = |c: &&Consumer| matches!(c, Consumer::Holding { left, .. } if *left > 0);
                w.consumers.iter().filter(holds).count() <= 1
            }),
            Property::always("P2: the epoch never goes back", |_, w: &World| w.stored.epoch == w.highest),
            Property::always("P2: who consumes has the newest epoch", |_, w: &World| {
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
                w.stored.lease.is_some_and(|renewal| renewal > 0)
            }),
        ];
        if self.pauses > 0 {
            properties.push(Property::sometimes("a paused queue still has its holder", |_, w: &World| {
                w.stored.state == QueueState::Paused && w.stored.lease.is_some()
            }));
        }
        properties
    }
}

/// Visits every state that is reachable with so many calls of consumers, crashes of dispatchers and pauses; consumers
/// crash at will.
fn check(calls: u8, crashes: u8, pauses: u8) {
    let checker = Protocol { hold: LIFE, calls, crashes, pauses }.checker().threads(2).spawn_bfs().join();
    println!("{} states, {} of them different", checker.state_count(), checker.unique_state_count());
    assert!(checker.unique_state_count() > 10_000, "the model moves");
    checker.assert_properties();
}

#[test]
fn p1_and_p2_hold_in_every_state_with_a_dispatcher_that_crashes_and_a_pause() {
    check(2, 1, 1);
}

#[test]
fn p1_and_p2_hold_in_every_state_with_three_calls_under_way() {
    check(3, 0, 0);
}

#[test]
fn a_holder_that_overstays_by_one_tick_is_caught() {
    let checker =
        Protocol { hold: LIFE + 1, calls: 2, crashes: 0, pauses: 0 }.checker().threads(2).spawn_bfs().join();
    checker.assert_any_discovery("P1: at most one consumer consumes");
}
