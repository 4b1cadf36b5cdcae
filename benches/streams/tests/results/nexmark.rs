//! q0 to q8.

use std::collections::BTreeMap;

use galerna_streams::nexmark::{
    Auction, Bid, Event, HighestBid, HotItem, LocalItem, NewSeller, Person, event, q0, q1, q2, q3, q5, q7, q8,
};

use crate::results;

const EVENTS: u64 = 60_000;

fn bids() -> impl Iterator<Item = Bid> {
    (0..EVENTS).map(event).filter_map(Event::bid)
}

fn persons() -> impl Iterator<Item = Person> {
    (0..EVENTS).map(event).filter_map(Event::person)
}

fn auctions() -> impl Iterator<Item = Auction> {
    (0..EVENTS).map(event).filter_map(Event::auction)
}

#[test]
fn the_auction_house_has_its_proportions() {
    let events: Vec<Event> = (0..EVENTS).map(event).collect();
    let of = |kind: fn(&Event) -> bool| events.iter().filter(|event| kind(event)).count() as u64;
    assert_eq!(of(|event| matches!(event, Event::Person(_))), EVENTS / 50);
    assert_eq!(of(|event| matches!(event, Event::Auction(_))), EVENTS / 50 * 3);
    let mut hot = 0;
    let (mut last_auction, mut last_person) = (0, 0);
    for event in &events {
        match event {
            Event::Person(person) => last_person = person.id,
            Event::Auction(auction) => {
                last_auction = auction.id;
                assert!(auction.seller <= last_person && auction.expires > auction.at);
            }
            Event::Bid(bid) => {
                assert!(bid.auction <= last_auction && bid.bidder <= last_person, "they are known");
                hot += u64::from(bid.auction == last_auction / 100 * 100);
            }
        }
    }
    let bids = EVENTS / 50 * 46;
    assert!((bids / 2 - bids / 50..bids / 2 + bids / 50).contains(&hot), "half of the bids: {hot}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn q0_passes_all_events_on() {
    let mut passed = results(EVENTS, event, q0).await;
    let mut expected: Vec<Event> = (0..EVENTS).map(event).collect();
    let order = |one: &Event, other: &Event| format!("{one:?}").cmp(&format!("{other:?}"));
    passed.sort_by(order);
    expected.sort_by(order);
    assert!(passed == expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn q1_gives_prices_in_euros() {
    let of = |bid: Bid| (bid.at, bid.auction, bid.bidder, bid.price, bid.channel, bid.url, bid.extra);
    let mut converted: Vec<_> = results(EVENTS, event, q1).await.into_iter().map(of).collect();
    let euros = |bid: Bid| Bid { price: bid.price * 908 / 1_000, ..bid };
    let mut expected: Vec<_> = bids().map(euros).map(of).collect();
    converted.sort_unstable();
    expected.sort_unstable();
    assert!(converted == expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn q2_selects_the_bids_for_some_auctions() {
    let mut selected = results(EVENTS, event, q2).await;
    let some = bids().filter(|bid| bid.auction % 123 == 0);
    let mut expected: Vec<_> = some.map(|bid| (bid.auction, bid.price)).collect();
    selected.sort_unstable();
    expected.sort_unstable();
    assert!(!expected.is_empty());
    assert_eq!(selected, expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn q5_finds_the_auctions_with_the_most_bids() {
    let mut windows: BTreeMap<i64, BTreeMap<u64, u64>> = BTreeMap::new();
    for bid in bids() {
        let first = (bid.at / 2_000 + 1) * 2_000;
        for end in (0..5).map(|step| first + step * 2_000) {
            *windows.entry(end).or_default().entry(bid.auction).or_default() += 1;
        }
    }
    let mut expected = Vec::new();
    for (end, auctions) in windows {
        let most = auctions.values().copied().max().unwrap_or(0);
        let hot = auctions.into_iter().filter(|(_, bids)| *bids == most);
        expected.extend(hot.map(|(auction, bids)| HotItem { end, auction, bids }));
    }
    let mut found = results(EVENTS, event, q5).await;
    found.sort_unstable();
    assert_eq!(found, expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn q3_finds_who_of_some_states_sells_something_of_a_category() {
    let local = persons().filter(|person| matches!(person.state.as_str(), "OR" | "ID" | "CA"));
    let local: BTreeMap<u64, Person> = local.map(|person| (person.id, person)).collect();
    let mut expected = Vec::new();
    for auction in auctions().filter(|auction| auction.category == 10) {
        if let Some(Person { name, city, state, .. }) = local.get(&auction.seller).cloned() {
            expected.push(LocalItem { name, city, state, auction: auction.id });
        }
    }
    let mut found = results(EVENTS, event, q3).await;
    found.sort_unstable();
    expected.sort_unstable();
    assert!(!expected.is_empty());
    assert_eq!(found, expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn q7_finds_the_highest_bids_of_each_window() {
    let mut windows: BTreeMap<i64, Vec<Bid>> = BTreeMap::new();
    bids().for_each(|bid| windows.entry(bid.at / 10_000).or_default().push(bid));
    let mut expected = Vec::new();
    for bids in windows.into_values() {
        let highest = bids.iter().map(|bid| bid.price).max();
        let those = bids.into_iter().filter(|bid| Some(bid.price) == highest);
        expected.extend(those.map(|Bid { price, auction, bidder, at, .. }| HighestBid {
            price,
            auction,
            bidder,
            at,
        }));
    }
    let mut found = results(EVENTS, event, q7).await;
    found.sort_unstable();
    expected.sort_unstable();
    assert_eq!(found, expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn q8_finds_who_registers_and_sells_in_the_same_window() {
    let auctions: Vec<Auction> = auctions().collect();
    let mut expected = Vec::new();
    for Person { id, name, at, .. } in persons() {
        let sold =
            auctions.iter().filter(|auction| auction.seller == id && auction.at / 10_000 == at / 10_000);
        expected.extend(sold.map(|_| NewSeller {
            person: id,
            name: name.clone(),
            end: (at / 10_000 + 1) * 10_000,
        }));
    }
    let mut found = results(EVENTS, event, q8).await;
    found.sort_unstable();
    expected.sort_unstable();
    assert!(!expected.is_empty());
    assert_eq!(found, expected);
}
