//! Components in other languages in topologies: what they may do, and what they must not and do all the same.

mod faults;
mod kills;
mod languages;
mod parts;
mod pystorm;
mod served;
mod spouts;
mod support;
mod wire;
