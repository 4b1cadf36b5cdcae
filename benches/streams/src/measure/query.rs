//! The queries by name.

use std::sync::Arc;

use galerna_topology::Data;
use galerna_topology::prelude::*;

use super::outcome::Outcome;
use super::tally::Tally;
use super::{Declared, Size, wall_clock};
use crate::nexmark::{self, event};
use crate::replayable::{Progress, Replayable, Source};
use crate::theodolite::{self, record};

/// What can be measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are those of the benchmarks")]
pub enum Query {
    Uc1,
    Uc2,
    Uc3,
    Uc4,
    Q0,
    Q1,
    Q2,
    Q3,
    Q5,
    Q7,
    Q8,
}

/// There is no such query.
#[derive(Debug, thiserror::Error)]
#[error("there is no query `{name}`; there are {known}")]
pub struct UnknownQuery {
    name: String,
    known: String,
}

impl std::str::FromStr for Query {
    type Err = UnknownQuery;

    fn from_str(name: &str) -> Result<Self, UnknownQuery> {
        Self::ALL.into_iter().find(|query| query.name() == name).ok_or_else(|| UnknownQuery {
            name: name.to_owned(),
            known: Self::ALL.map(Self::name).join(", "),
        })
    }
}

impl Query {
    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::Uc1,
        Self::Uc2,
        Self::Uc3,
        Self::Uc4,
        Self::Q0,
        Self::Q1,
        Self::Q2,
        Self::Q3,
        Self::Q5,
        Self::Q7,
        Self::Q8,
    ];

    /// What it is called.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Uc1 => "uc1",
            Self::Uc2 => "uc2",
            Self::Uc3 => "uc3",
            Self::Uc4 => "uc4",
            Self::Q0 => "q0",
            Self::Q1 => "q1",
            Self::Q2 => "q2",
            Self::Q3 => "q3",
            Self::Q5 => "q5",
            Self::Q7 => "q7",
            Self::Q8 => "q8",
        }
    }

    /// Whether there is anything for checkpoints to keep.
    pub const fn keeps_state(self) -> bool {
        !matches!(self, Self::Uc1 | Self::Q0 | Self::Q1 | Self::Q2)
    }

    /// A topology of it, from a source of this size to a tally.
    ///
    /// # Errors
    /// If the time zone of UC3 is not known.
    pub fn declare(self, size: Size) -> Result<Declared, jiff::Error> {
        let sensors = size.sensors.max(1);
        // At a fixed rate readings are of now.
        let first = size.rate.map_or(theodolite::FIRST, |_| wall_clock().as_millis() as i64);
        let reading = move |n| record(n, sensors, first);
        Ok(match self {
            Self::Uc1 => declare(self, size, reading, theodolite::uc1),
            Self::Uc2 => declare(self, size, reading, theodolite::uc2),
            Self::Uc3 => {
                let zone = jiff::tz::TimeZone::get("Europe/Paris")?;
                declare(self, size, reading, |topology, records, tasks| {
                    theodolite::uc3(topology, records, tasks, zone)
                })
            }
            Self::Uc4 => {
                let levels = theodolite::levels_over(sensors);
                let reading = move |n| record(n, 4_u64.pow(levels), first);
                declare(self, size, reading, |topology, records, tasks| {
                    theodolite::uc4_unrolled(topology, records, tasks, levels)
                })
            }
            Self::Q0 => declare(self, size, event, nexmark::q0),
            Self::Q1 => declare(self, size, event, nexmark::q1),
            Self::Q2 => declare(self, size, event, nexmark::q2),
            Self::Q3 => declare(self, size, event, nexmark::q3),
            Self::Q5 => declare(self, size, event, nexmark::q5),
            Self::Q7 => declare(self, size, event, nexmark::q7),
            Self::Q8 => declare(self, size, event, nexmark::q8),
        })
    }
}

fn declare<T: Data, R: Data + Outcome>(
    query: Query,
    size: Size,
    make: impl Fn(u64) -> T + Send + Sync + 'static,
    topology_of: impl FnOnce(&mut TopologyBuilder, Stream<T>, usize) -> Stream<R>,
) -> Declared {
    let (progress, tally) = (Arc::<Progress>::default(), Tally::default());
    let source =
        Source { events: size.events, rate: size.rate, make: Arc::new(make), progress: progress.clone() };
    let mut topology = TopologyBuilder::new(query.name());
    let events =
        topology.spout("source", move || Replayable::new(source.clone())).parallelism(size.tasks).outputs();
    let results = topology_of(&mut topology, events, size.tasks);
    let (sink, timed) = (tally.clone(), size.rate.is_some());
    topology.bolt("tally", move || sink.of::<R>(timed)).local_or_shuffle(results).parallelism(size.tasks);
    Declared { topology, progress, tally }
}
