//! `galerna demo`: the whole system on real data, with every reading accounted for.

mod extract;
mod faults;
mod ledger;
mod probe;
mod progress;
mod publisher;
mod report;
