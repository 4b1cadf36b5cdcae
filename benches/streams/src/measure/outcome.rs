//! What results are compared by.

use galerna_windows::{Summary, WindowResult};

use crate::nexmark::{Bid, Event, HighestBid, HotItem, LocalItem, NewSeller, window_end};
use crate::random::{mix, text_hash};
use crate::theodolite::{GroupPower, HourOfDay};

/// A result of a query: the sums over all of a run are the same on every system.
pub trait Outcome {
    /// A number that nearly only this result has.
    fn checksum(&self) -> u64;

    /// Whether it counts: what comes before a window is complete depends on how fast a system is.
    fn counts(&self) -> bool {
        true
    }

    /// Where its window ends, in milliseconds since 1970, if it has one.
    fn window_end(&self) -> Option<i64> {
        None
    }
}

/// JSON, by its length.
impl Outcome for String {
    fn checksum(&self) -> u64 {
        self.len() as u64
    }
}

/// UC2.
impl Outcome for WindowResult<String, Summary> {
    fn checksum(&self) -> u64 {
        let of = mix(window_end(self) as u64 ^ text_hash(&self.key));
        of.wrapping_mul(self.value.count).wrapping_add(self.value.sum().round() as u64)
    }

    fn window_end(&self) -> Option<i64> {
        Some(window_end(self))
    }
}

/// UC3.
impl Outcome for HourOfDay {
    fn checksum(&self) -> u64 {
        let of = mix(self.end as u64 ^ text_hash(&self.identifier) ^ self.hour as u64);
        of.wrapping_mul(self.drawn.count).wrapping_add(self.drawn.sum().round() as u64)
    }

    fn counts(&self) -> bool {
        self.complete
    }
}

/// UC4.
impl Outcome for GroupPower {
    fn checksum(&self) -> u64 {
        let of = mix(self.end as u64 ^ text_hash(&self.group));
        of.wrapping_mul(self.count).wrapping_add(self.sum_in_w.round() as u64)
    }

    fn window_end(&self) -> Option<i64> {
        Some(self.end)
    }
}

/// q0.
impl Outcome for Event {
    fn checksum(&self) -> u64 {
        match self {
            Self::Person(person) => person.id,
            Self::Auction(auction) => auction.id,
            Self::Bid(bid) => bid.price as u64,
        }
    }
}

/// q1.
impl Outcome for Bid {
    fn checksum(&self) -> u64 {
        self.price as u64
    }
}

/// q2.
impl Outcome for (u64, i64) {
    fn checksum(&self) -> u64 {
        self.0.wrapping_mul(31).wrapping_add(self.1 as u64)
    }
}

/// q5.
impl Outcome for HotItem {
    fn checksum(&self) -> u64 {
        mix(self.end as u64).wrapping_mul(self.auction.wrapping_mul(31).wrapping_add(self.bids))
    }

    fn window_end(&self) -> Option<i64> {
        Some(self.end)
    }
}

/// q3.
impl Outcome for LocalItem {
    fn checksum(&self) -> u64 {
        mix(text_hash(&self.name) ^ self.auction).wrapping_add(text_hash(&self.city) ^ text_hash(&self.state))
    }
}

/// q7.
impl Outcome for HighestBid {
    fn checksum(&self) -> u64 {
        mix(self.at as u64 ^ self.auction).wrapping_mul(self.price as u64).wrapping_add(self.bidder)
    }

    fn window_end(&self) -> Option<i64> {
        Some((self.at / 10_000 + 1) * 10_000)
    }
}

/// q8.
impl Outcome for NewSeller {
    fn checksum(&self) -> u64 {
        mix(self.end as u64 ^ self.person).wrapping_add(text_hash(&self.name))
    }

    fn window_end(&self) -> Option<i64> {
        Some(self.end)
    }
}
