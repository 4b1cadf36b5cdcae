//! What happens in the auction house.

/// Somebody who registers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Person {
    /// Who it is.
    pub id: u64,
    /// First and last name.
    pub name: String,
    /// Electronic mail.
    pub email: String,
    /// A card's number.
    pub credit_card: String,
    /// Where.
    pub city: String,
    /// In which state, by two letters.
    pub state: String,
    /// When, in milliseconds since 1970.
    pub at: i64,
    /// What else is known.
    pub extra: String,
}

/// Something for sale.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Auction {
    /// Which one.
    pub id: u64,
    /// What it is.
    pub item: String,
    /// More of that.
    pub description: String,
    /// The first price, in cents.
    pub initial_bid: i64,
    /// The least price it goes for, in cents.
    pub reserve: i64,
    /// When it begins, in milliseconds since 1970.
    pub at: i64,
    /// When it ends.
    pub expires: i64,
    /// The person who sells.
    pub seller: u64,
    /// Of which kind, 10 to 14.
    pub category: u64,
    /// What else is known.
    pub extra: String,
}

/// An offer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bid {
    /// For which auction.
    pub auction: u64,
    /// Of which person.
    pub bidder: u64,
    /// In cents.
    pub price: i64,
    /// By which way it came.
    pub channel: String,
    /// Where that is.
    pub url: String,
    /// When, in milliseconds since 1970.
    pub at: i64,
    /// What else is known.
    pub extra: String,
}

/// What happens. Most of it are bids.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Somebody registers.
    Person(Box<Person>),
    /// Something is put up for sale.
    Auction(Box<Auction>),
    /// Somebody offers a price.
    Bid(Bid),
}

impl Event {
    /// When it happens, in milliseconds since 1970.
    pub fn at(&self) -> i64 {
        match self {
            Self::Person(person) => person.at,
            Self::Auction(auction) => auction.at,
            Self::Bid(bid) => bid.at,
        }
    }

    /// The bid, if it is one.
    pub fn bid(self) -> Option<Bid> {
        match self {
            Self::Bid(bid) => Some(bid),
            _ => None,
        }
    }

    /// The person, if it is one.
    pub fn person(self) -> Option<Person> {
        match self {
            Self::Person(person) => Some(*person),
            _ => None,
        }
    }

    /// The auction, if it is one.
    pub fn auction(self) -> Option<Auction> {
        match self {
            Self::Auction(auction) => Some(*auction),
            _ => None,
        }
    }
}
