//! Nexmark: an auction house, of which persons, auctions and bids are known.
//!
//! After the definition of Tucker, Tufte, Papadimos and Maier (2002) with the proportions of Apache Beam's generator: of each 50 events one
//! is a person, 3 are auctions and 46 are bids, 10,000 events a second in event time; half of the bids go to the hot auction, three quarters
//! come from the hot bidder, three quarters of the auctions from the hot seller. The arithmetic is our own, over whole numbers, so that
//! Rust and Java agree to the last bit.

mod event;
mod generator;
mod greatest;
mod queries;
mod sales;

pub use event::{Auction, Bid, Event, Person};
pub use generator::{FIRST, event};
pub use queries::window_end;
pub use queries::{HighestBid, HotItem, q0, q1, q2, q5, q7};
pub use sales::{LocalItem, NewSeller, q3, q8};
