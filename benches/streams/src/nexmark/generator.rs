//! The n-th event.

use super::event::{Auction, Bid, Event, Person};
use crate::random::below;

/// When the first event happens, in milliseconds since 1970.
pub const FIRST: i64 = 1_600_000_000_000;

/// Persons and auctions have numbers from here on.
const FIRST_ID: u64 = 1_000;
/// Of so many events one is a person, and three are auctions.
const EPOCH: u64 = 50;
const AUCTIONS: u64 = 3;
/// Bids that do not go to the hot auction go to one of so many latest.
const OPEN_AUCTIONS: u64 = 100;
/// Who is not hot is one of so many latest persons.
const ACTIVE_PERSONS: u64 = 1_000;
/// The hot one stays for so many.
const HOT: u64 = 100;

const FIRST_NAMES: [&str; 11] =
    ["Peter", "Paul", "Luke", "John", "Saul", "Vicky", "Kate", "Julie", "Sarah", "Deiter", "Walter"];
const LAST_NAMES: [&str; 9] =
    ["Shultz", "Abrams", "Spencer", "White", "Bartels", "Walton", "Smith", "Jones", "Noris"];
const CITIES: [&str; 10] = [
    "Phoenix",
    "Los Angeles",
    "San Francisco",
    "Boise",
    "Portland",
    "Bend",
    "Redmond",
    "Seattle",
    "Kent",
    "Cheyenne",
];
const STATES: [&str; 6] = ["AZ", "CA", "ID", "OR", "WA", "WY"];
const CHANNELS: [&str; 4] = ["Google", "Facebook", "Baidu", "Apple"];
/// What texts without a meaning are cut from.
const FILLER: &str = "etaoinshrdlcumwfgypbvkjxqzetaoinshrdlcumwfgypbvkjxqzetaoinshrdlcumwfgypbvkjxqzetaoinshrdlcumwfgypbvkjxqz\
                      etaoinshrdlcumwfgypbvkjxqzetaoinshrdlcumwfgypbvkjxqzetaoinshrdlcumwfgypbvkjxqzetaoinshrdlcumwfgypbvkjxqz\
                      etaoinshrdlcumwfgypbvkjxqzetaoinshrdlcumwfgypbvkjxqzetaoinshrdlcumwfgypbvkjxqzetaoinshrdlcumwfgypbvkjxqz";

fn one_of<'a>(n: u64, field: u64, texts: &[&'a str]) -> &'a str {
    texts[below(n, field, texts.len() as u64) as usize]
}

/// A text of `least` letters or up to `more` more.
fn filler(n: u64, field: u64, least: u64, more: u64) -> String {
    FILLER[..(least + below(n, field, more)) as usize].to_owned()
}

/// One of the latest of `count` with numbers from [`FIRST_ID`] on, or the hot one in `hot - 1` of `hot` cases.
fn hot_or_recent(n: u64, field: u64, count: u64, hot: u64, recent: u64) -> u64 {
    let last = FIRST_ID + count - 1;
    if below(n, field, hot) > 0 { last / HOT * HOT } else { last - below(n, field + 1, count.min(recent)) }
}

/// From 1 to 10,000,000, in cents: as many cheap as dear ones.
fn price(n: u64, field: u64) -> i64 {
    let digits = [1, 10, 100, 1_000, 10_000, 100_000][below(n, field, 6) as usize];
    (100 + below(n, field + 1, 900) as i64) * digits
}

/// Event number `n`.
pub fn event(n: u64) -> Event {
    let (epoch, place) = (n / EPOCH, n % EPOCH);
    // 10,000 a second.
    let at = FIRST + (n / 10) as i64;
    let persons = epoch + 1;
    let auctions = epoch * AUCTIONS + place.min(AUCTIONS);
    match place {
        0 => Event::Person(Box::new(Person {
            id: FIRST_ID + epoch,
            name: format!("{} {}", one_of(n, 0, &FIRST_NAMES), one_of(n, 1, &LAST_NAMES)),
            email: format!("{}@example.com", filler(n, 2, 5, 10)),
            credit_card: format!("{:016}", below(n, 3, 10_000_000_000_000_000)),
            city: one_of(n, 4, &CITIES).to_owned(),
            state: one_of(n, 5, &STATES).to_owned(),
            at,
            extra: filler(n, 6, 80, 40),
        })),
        1..=AUCTIONS => {
            let initial_bid = price(n, 0);
            Event::Auction(Box::new(Auction {
                id: FIRST_ID + auctions - 1,
                item: filler(n, 2, 10, 20),
                description: filler(n, 3, 50, 100),
                initial_bid,
                reserve: initial_bid + price(n, 4),
                at,
                expires: at + 1 + below(n, 6, 333) as i64,
                seller: hot_or_recent(n, 7, persons, 4, ACTIVE_PERSONS),
                category: 10 + below(n, 9, 5),
                extra: filler(n, 10, 150, 100),
            }))
        }
        _ => {
            let channel = one_of(n, 4, &CHANNELS);
            Event::Bid(Bid {
                auction: hot_or_recent(n, 0, auctions, 2, OPEN_AUCTIONS),
                bidder: hot_or_recent(n, 2, persons, 4, ACTIVE_PERSONS),
                price: price(n, 5),
                channel: channel.to_owned(),
                url: format!("https://www.example.com/{channel}/item.htm?query=1"),
                at,
                extra: filler(n, 7, 20, 20),
            })
        }
    }
}
