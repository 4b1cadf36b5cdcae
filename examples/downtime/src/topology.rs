//! The topology: from events to stored downtimes, and from notices to whoever is told.

mod look;
mod notices;
mod record;
mod send;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use galerna_model::Clock;
use galerna_schedules::{Firing, ScheduleSpout, ScheduleStore};
use galerna_topology::prelude::*;
use tokio::sync::Notify;

pub use self::look::{LineStatus, LookSettings, Task};
pub(crate) use self::send::duration;
pub use self::send::{Senders, Smtp, WebhookBody};

use self::look::Look;
use self::notices::{Address, Notices};
use self::record::Record;
use self::send::Sent;
use crate::event::Event;
use crate::lists::Lists;
use crate::store::{Delivery, DowntimeStore, Recorded};

/// An event on its way, and where whoever handed it in reads what became of it.
#[derive(Debug, Clone)]
pub struct Arrival {
    /// The event.
    pub event: Event,
    /// What became of it, once it is stored.
    pub outcome: Arc<OnceLock<Recorded>>,
}

impl Arrival {
    /// An event that arrives now.
    pub fn new(event: Event) -> Self {
        Self { event, outcome: Arc::default() }
    }
}

/// How notices are told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TellSettings {
    /// The name of this process, unlike that of any other.
    pub holder: String,
    /// So long a state must have lasted.
    pub hold: Duration,
    /// So long another process leaves alone what this one tells.
    pub lease: Duration,
    /// How often it is looked for what is to be told.
    pub every: Duration,
    /// After so many attempts a notice is given up; its deliveries are dead then, with the reason.
    pub attempts: u32,
}

/// What the topology works with.
#[derive(Clone)]
pub struct Parts {
    /// Lines, downtimes and notices.
    pub store: Arc<dyn DowntimeStore>,
    /// Whom to tell.
    pub lists: Arc<dyn Lists>,
    /// When to look at the status API, and for silent lines.
    pub schedules: Arc<dyn ScheduleStore>,
    /// By which states last.
    pub clock: Arc<dyn Clock>,
    /// By which schedules fire.
    pub wall: Arc<dyn Clock>,
    /// What comes by HTTP.
    pub intake: galerna_spouts::IntakeSpout<Vec<Arrival>>,
    /// How to look.
    pub look: LookSettings,
    /// How to tell.
    pub tell: TellSettings,
    /// By what to tell.
    pub senders: Arc<Senders>,
}

/// Declares the topology.
///
/// # Errors
/// [`BuildError`]; and when the HTTP client cannot be made.
pub fn declare(parts: Parts) -> anyhow::Result<Topology> {
    let Parts { store, lists, schedules, clock, wall, intake, look, tell, senders } = parts;
    let hold_ms = i64::try_from(tell.hold.as_millis()).unwrap_or(i64::MAX);
    let changed = Arc::new(Notify::new());
    let mut topology = TopologyBuilder::new("downtime");
    topology.message_timeout(Duration::from_secs(60));

    let posted = topology.spout("intake", intake).outputs();
    let posted = topology.flat_map("events", |arrivals: Vec<Arrival>| arrivals).shuffle(posted).outputs();
    let firings = {
        let wall = wall.clone();
        topology
            .spout("schedules", move || ScheduleSpout::new(schedules.clone()).clock(wall.clone()))
            .outputs()
    };
    let look = Look::new(look, store.clone(), clock.clone())?;
    let looked = topology.async_bolt("look", move || look.clone()).shuffle::<Firing>(firings).outputs();
    {
        let record = Record::new(store.clone(), hold_ms, changed.clone());
        // One line's events stay in order.
        topology
            .async_batch_bolt("record", move || record.clone())
            .key_by(posted, |arrival: &Arrival| arrival.event.line.clone())
            .key_by(looked, |arrival: &Arrival| arrival.event.line.clone())
            .parallelism(2);
    }

    let notices = {
        let (store, clock, tell) = (store.clone(), clock.clone(), tell.clone());
        topology
            .spout("notices", move || {
                Notices::new(store.clone(), clock.clone(), wall.clone(), tell.clone(), changed.clone())
            })
            .message_timeout(tell_timeout(&senders))
            .outputs()
    };
    let address = Address::new(store.clone(), lists, senders.clone(), tell.attempts);
    let deliveries = topology.async_bolt("address", move || address.clone()).shuffle(notices).outputs();
    let calls = Calls::at_once(16).timeout(senders.timeout()).retries(
        2,
        Duration::from_millis(200),
        Duration::from_secs(2),
    );
    let sent = topology
        .map_async("send", calls, move |delivery: Delivery| {
            let senders = senders.clone();
            async move { senders.send(delivery).await }
        })
        .shuffle(deliveries)
        .outputs();
    topology
        .map_async("settle", 16, move |sent: Sent| {
            let store = store.clone();
            async move { sent.settle(store.as_ref()).await }
        })
        .shuffle(sent);
    Ok(topology.build()?)
}

/// A notice may wait for three attempts at each of its deliveries.
fn tell_timeout(senders: &Senders) -> Duration {
    senders.timeout() * 4 + Duration::from_secs(60)
}
