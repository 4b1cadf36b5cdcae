//! The queries.

use std::time::Duration;

use galerna_topology::prelude::*;
use galerna_windows::{Count, EventTime, Window, WindowBounds, WindowResult, WindowTopology};

use serde::{Deserialize, Serialize};

use super::event::{Bid, Event};
use super::greatest::Greatest;

/// An auction with the most bids of a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct HotItem {
    /// Where the window ends, in milliseconds since 1970.
    pub end: i64,
    /// The auction.
    pub auction: u64,
    /// How many bids it got.
    pub bids: u64,
}

/// A bid with the highest price of a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct HighestBid {
    /// The price, in cents.
    pub price: i64,
    /// For which auction.
    pub auction: u64,
    /// Of which person.
    pub bidder: u64,
    /// When, in milliseconds since 1970.
    pub at: i64,
}

/// What comes out is what came in.
pub fn q0(topology: &mut TopologyBuilder, events: Stream<Event>, tasks: usize) -> Stream<Event> {
    topology.flow(events).parallelism(tasks).map(|event| event).stream()
}

/// Bids in euros.
pub fn q1(topology: &mut TopologyBuilder, events: Stream<Event>, tasks: usize) -> Stream<Bid> {
    let flow = topology.flow(events).parallelism(tasks).flat_map(Event::bid);
    flow.parallelism(tasks).map(|bid| Bid { price: bid.price * 908 / 1_000, ..bid }).stream()
}

/// Auction and price of the bids for some auctions.
pub fn q2(topology: &mut TopologyBuilder, events: Stream<Event>, tasks: usize) -> Stream<(u64, i64)> {
    let flow = topology.flow(events).parallelism(tasks).flat_map(Event::bid);
    let flow = flow.parallelism(tasks).filter(|bid| bid.auction.is_multiple_of(123));
    flow.parallelism(tasks).map(|bid| (bid.auction, bid.price)).stream()
}

/// The auctions with the most bids of the last ten seconds, every two seconds.
pub fn q5(topology: &mut TopologyBuilder, events: Stream<Event>, tasks: usize) -> Stream<HotItem> {
    let slide = Duration::from_secs(2);
    topology
        .flow(events)
        .parallelism(tasks)
        .event_time(EventTime::of(Event::at))
        .parallelism(tasks)
        .flat_map(|event| event.bid().map(|bid| (bid.auction, bid.at)))
        .key_by(|(auction, _)| *auction)
        .parallelism(tasks)
        .window(Window::sliding(5 * slide, slide).event_time(|(_, at): &(u64, i64)| *at))
        .aggregate_in_state(Count)
        .parallelism(tasks)
        .map(|count| HotItem { end: window_end(&count), auction: count.key, bids: count.value })
        .window(Window::tumbling(slide).event_time(|item: &HotItem| item.end - 1))
        .aggregate_in_state(Greatest::new(|item: &HotItem| item.bids))
        .flat_map(|window| window.value)
        .stream()
}

/// The bids with the highest price of each ten seconds.
pub fn q7(topology: &mut TopologyBuilder, events: Stream<Event>, tasks: usize) -> Stream<HighestBid> {
    let highest =
        |bid: Bid| HighestBid { price: bid.price, auction: bid.auction, bidder: bid.bidder, at: bid.at };
    topology
        .flow(events)
        .parallelism(tasks)
        .event_time(EventTime::of(Event::at))
        .parallelism(tasks)
        .flat_map(move |event| event.bid().map(highest))
        .window(Window::tumbling(Duration::from_secs(10)).event_time(|bid: &HighestBid| bid.at))
        .aggregate_in_state(Greatest::new(|bid: &HighestBid| bid.price))
        .flat_map(|window| window.value)
        .stream()
}

/// Where a window by time ends, in milliseconds since 1970.
pub fn window_end<K, R>(result: &WindowResult<K, R>) -> i64 {
    match result.bounds {
        WindowBounds::Time { end, .. } => end.millis(),
        WindowBounds::Count { last, .. } => last as i64,
    }
}
