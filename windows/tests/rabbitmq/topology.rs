//! The topology that is killed: windows, sessions, a join, counts by key and deduplication, all in state, behind leased queues.

use std::sync::Arc;
use std::time::Duration;

use galerna_broker::Broker;
use galerna_lease::Leases;
use galerna_model::Incoming;
use galerna_spouts::{LeasedOptions, LeasedQueues};
use galerna_state::prelude::*;
use galerna_topology::prelude::*;
use galerna_windows::{
    Deduplicate, EventTime, Fold, Join, Joined, Late, Side, Window, WindowBounds, WindowResult,
    WindowTopology,
};

use crate::events::{Event, GAP, LAG, REACH, SIZE, is_left, is_right};
use crate::place::TOPOLOGY;

const DAY: Duration = Duration::from_secs(86_400);

/// Counts how often a text came.
#[derive(Default)]
struct Count(Option<ValueState<u64>>);

impl Bolt for Count {
    type Input = String;
    type Outputs = ();

    fn prepare(&mut self, context: &TaskContext) -> Result<(), Fault> {
        self.0 = Some(context.state()?.value("count")?);
        Ok(())
    }

    fn execute(&mut self, key: String, _: &mut Emitter<()>) -> Result<(), Fault> {
        let count = self.0.as_mut().ok_or_else(|| Fault::permanent("it was not prepared"))?;
        count.update(&key, |n| n.unwrap_or(0) + 1)?;
        Ok(())
    }
}

/// Keeps the results of windows by key and beginning, each as often as it came.
#[derive(Default)]
struct Results(Option<MapState<i64, Vec<u64>>>);

impl Bolt for Results {
    type Input = WindowResult<String, u64>;
    type Outputs = ();

    fn prepare(&mut self, context: &TaskContext) -> Result<(), Fault> {
        self.0 = Some(context.state()?.map("results")?);
        Ok(())
    }

    fn execute(&mut self, result: Self::Input, _: &mut Emitter<()>) -> Result<(), Fault> {
        let results = self.0.as_mut().ok_or_else(|| Fault::permanent("it was not prepared"))?;
        let WindowBounds::Time { start, .. } = result.bounds else { return Err(Fault::permanent("no time")) };
        let mut values = results.get(&result.key, &start.millis())?.unwrap_or_default();
        values.push(result.value);
        Ok(results.insert(&result.key, &start.millis(), &values)?)
    }
}

/// The numbers of a pair's events.
type Numbers = (Option<u64>, Option<u64>);

/// Counts pairs by key and the numbers of their events.
#[derive(Default)]
struct Pairs(Option<MapState<Numbers, u64>>);

impl Bolt for Pairs {
    type Input = Joined<String, Event, Event>;
    type Outputs = ();

    fn prepare(&mut self, context: &TaskContext) -> Result<(), Fault> {
        self.0 = Some(context.state()?.map("pairs")?);
        Ok(())
    }

    fn execute(&mut self, pair: Self::Input, _: &mut Emitter<()>) -> Result<(), Fault> {
        let pairs = self.0.as_mut().ok_or_else(|| Fault::permanent("it was not prepared"))?;
        let numbers = (pair.left.map(|left| left.number), pair.right.map(|right| right.number));
        let n = pairs.get(&pair.key, &numbers)?.unwrap_or(0);
        Ok(pairs.insert(&pair.key, &numbers, &(n + 1))?)
    }
}

fn id(event: &Side<Event, Event>) -> String {
    match event {
        Side::Left(event) | Side::Right(event) => event.id.clone(),
    }
}

/// Adds a window that adds up values, and what keeps its results; what was late for it.
fn window(
    topology: &mut TopologyBuilder,
    id: &'static str,
    of: Window<Event>,
    stream: &Stream<Event>,
) -> Stream<Late<String, Event>> {
    let sum = Fold::new(
        0,
        |sum: &mut u64, event: Event| *sum += event.value,
        |sum: &mut u64, later: &u64| *sum += later,
    );
    let of = of.event_time(|event: &Event| event.at).by(|event: &Event| event.key.clone()).aggregate(sum);
    let results = topology.window_in_state(id, of, stream).parallelism(3).outputs();
    let by_key = |result: &WindowResult<String, u64>| result.key.clone();
    topology.bolt(format!("{id}-results"), Results::default).keyed_by(results.results, by_key).parallelism(2);
    results.late
}

/// The topology, on these queues.
pub(crate) fn topology(broker: Arc<dyn Broker>, leases: Arc<dyn Leases>) -> Topology {
    let mut topology = TopologyBuilder::new(TOPOLOGY);
    let leasing = LeasedOptions { leases: 4, wait: Duration::from_millis(100), ..LeasedOptions::default() };
    let queues =
        move || LeasedQueues::new(broker.clone(), leases.clone(), "killed").with_options(leasing.clone());
    let messages = topology.spout("queues", queues).outputs();
    let events = topology
        .flat_map("read", |incoming: Incoming| serde_json::from_slice::<Event>(&incoming.message.body).ok())
        .shuffle(messages)
        .outputs();
    let clock = EventTime::of(|event: &Event| event.at).lag(Duration::from_millis(LAG));
    let events = topology.event_time("clock", clock, events).outputs();
    topology
        .bolt("ids", Count::default)
        .keyed_by_as(&events, |event: &Event| event.id.clone(), |event| event.id)
        .parallelism(2);
    let once = Deduplicate::by(|event: &Event| event.number, DAY);
    let unique = topology.deduplicate_in_state("once", once, &events).parallelism(2).outputs().unique;
    topology
        .bolt("counts", Count::default)
        .keyed_by_as(&unique, |event: &Event| event.key.clone(), |event| event.key)
        .parallelism(2);
    let windows = Window::tumbling(Duration::from_millis(SIZE as u64));
    let late = window(&mut topology, "sum", windows, &unique);
    let sessions = Window::session(Duration::from_millis(GAP as u64));
    let late_for_sessions = window(&mut topology, "session", sessions, &unique);
    let left = topology.filter("left", |event: &Event| is_left(event.number)).shuffle(&unique).outputs();
    let right = topology.filter("right", |event: &Event| is_right(event.number)).shuffle(&unique).outputs();
    let reach = Duration::from_millis(REACH as u64);
    let join = Join::full(|left: &Event| left.key.clone(), |right: &Event| right.key.clone())
        .event_time(|left: &Event| left.at, |right: &Event| right.at)
        .between(reach, reach);
    let join = topology.join_in_state("join", join, left, right).parallelism(3).outputs();
    topology
        .bolt("pairs", Pairs::default)
        .keyed_by(join.joined, |pair: &Joined<String, Event, Event>| pair.key.clone())
        .parallelism(2);
    topology
        .bolt("late", Count::default)
        .keyed_by_as(join.late, |late| id(&late.tuple), |late| id(&late.tuple))
        .keyed_by_as(late, |late| late.tuple.id.clone(), |late| late.tuple.id)
        .keyed_by_as(late_for_sessions, |late| late.tuple.id.clone(), |late| late.tuple.id);
    topology.build().expect("built")
}
