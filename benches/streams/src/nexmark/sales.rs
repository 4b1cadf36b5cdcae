//! The queries over persons and auctions.

use std::time::Duration;

use galerna_state::prelude::*;
use galerna_topology::prelude::*;
use galerna_windows::{EventTime, Join, WindowBounds, WindowTopology};

use super::event::{Auction, Event, Person};

/// Somebody of some states who sells something of a kind.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct LocalItem {
    /// Who sells.
    pub name: String,
    /// Where.
    pub city: String,
    /// In which state.
    pub state: String,
    /// What is sold.
    pub auction: u64,
}

/// Somebody who registered, and who put something up for sale in the same window.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct NewSeller {
    /// Who.
    pub person: u64,
    /// By name.
    pub name: String,
    /// Where the window ends, in milliseconds since 1970.
    pub end: i64,
}

outputs! {
    /// Persons and auctions apart.
    struct Sides {
        persons: Person,
        auctions: Auction,
    }
}

/// Takes persons and auctions apart. Bids go nowhere.
#[derive(Clone)]
struct Split;

impl Bolt for Split {
    type Input = Event;
    type Outputs = Sides;

    fn execute(&mut self, event: Event, out: &mut Emitter<Sides>) -> Result<(), Fault> {
        match event {
            Event::Person(person) => out.persons.emit(*person),
            Event::Auction(auction) => out.auctions.emit(*auction),
            Event::Bid(_) => {}
        }
        Ok(())
    }
}

/// Who sells: name, city and state.
type Seller = (String, String, String);

#[derive(Debug, Clone)]
enum Known {
    Seller(u64, Seller),
    Item { seller: u64, auction: u64 },
}

/// Pairs sellers with what they sell, whichever comes first, for ever.
#[derive(Default)]
struct LocalItems {
    kept: Option<(ValueState<Seller>, ListState<u64>)>,
}

fn local_item((name, city, state): Seller, auction: u64) -> LocalItem {
    LocalItem { name, city, state, auction }
}

impl Bolt for LocalItems {
    type Input = Known;
    type Outputs = Output<LocalItem>;

    fn prepare(&mut self, context: &TaskContext) -> Result<(), Fault> {
        let state = context.state()?;
        self.kept = Some((state.value("seller")?, state.list("waiting items")?));
        Ok(())
    }

    fn execute(&mut self, known: Known, out: &mut Emitter<Self::Outputs>) -> Result<(), Fault> {
        let (sellers, waiting) = self.kept.as_mut().ok_or_else(|| Fault::permanent("it was not prepared"))?;
        match known {
            Known::Seller(id, seller) => {
                sellers.set(&id, &seller)?;
                for auction in waiting.get(&id)? {
                    out.emit(local_item(seller.clone(), auction));
                }
                waiting.clear(&id)?;
            }
            Known::Item { seller, auction } => match sellers.get(&seller)? {
                Some(known) => out.emit(local_item(known, auction)),
                None => waiting.push(&seller, &auction)?,
            },
        }
        Ok(())
    }
}

/// Who of Oregon, Idaho and California sells something of category 10.
pub fn q3(topology: &mut TopologyBuilder, events: Stream<Event>, tasks: usize) -> Stream<LocalItem> {
    let sides = topology.bolt("split", Split).local_or_shuffle(events).parallelism(tasks).outputs();
    let sellers = topology.flow(sides.persons).parallelism(tasks);
    let sellers =
        sellers.filter(|person| ["OR", "ID", "CA"].contains(&person.state.as_str())).parallelism(tasks);
    let sellers = sellers.map(|person| (person.id, (person.name, person.city, person.state))).stream();
    let items = topology.flow(sides.auctions).parallelism(tasks);
    let items = items.filter(|auction| auction.category == 10).parallelism(tasks);
    let items = items.map(|auction| (auction.seller, auction.id)).stream();
    topology
        .bolt("local-items", LocalItems::default)
        .keyed_by_as(sellers, |(id, _)| *id, |(id, seller)| Known::Seller(id, seller))
        .keyed_by_as(items, |(seller, _)| *seller, |(seller, auction)| Known::Item { seller, auction })
        .parallelism(tasks)
        .outputs()
}

/// Who registered and put something up for sale in the same ten seconds, once for each such auction.
pub fn q8(topology: &mut TopologyBuilder, events: Stream<Event>, tasks: usize) -> Stream<NewSeller> {
    let clocked = topology.event_time("clock", EventTime::of(Event::at), events).parallelism(tasks).outputs();
    let sides = topology.bolt("split", Split).local_or_shuffle(clocked).parallelism(tasks).outputs();
    let persons = topology.flow(sides.persons).parallelism(tasks);
    let persons = persons.map(|person| (person.id, person.name, person.at)).stream();
    let auctions = topology.flow(sides.auctions).parallelism(tasks);
    let auctions = auctions.map(|auction| (auction.seller, auction.at)).stream();
    let join = Join::inner(|person: &(u64, String, i64)| person.0, |auction: &(u64, i64)| auction.0)
        .event_time(|person| person.2, |auction| auction.1)
        .tumbling(Duration::from_secs(10));
    let joined = topology.join("new-sellers", join, persons, auctions).parallelism(tasks).outputs();
    let flow = topology.flow(joined.joined).parallelism(tasks);
    flow.flat_map(|joined| {
        let Some(WindowBounds::Time { end, .. }) = joined.bounds else { return None };
        let (person, name, _) = joined.left?;
        Some(NewSeller { person, name, end: end.millis() })
    })
    .stream()
}
