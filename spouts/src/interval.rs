//! A spout that fires at regular times.

use std::time::Duration;

use galerna_topology::{Fault, Next, Output, Roots, Spout, TaskContext};

/// One firing of an interval.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct Firing {
    /// How many intervals have passed since the start, this one included. Numbers are left out when the topology was held up
    /// or inactive.
    pub number: u64,
    /// When it was due, since the start.
    pub due: Duration,
}

/// Emits a [`Firing`] at the end of each interval, by the topology's clock. A firing that fails is not repeated: the next one
/// comes. Firings that were missed are not made up for, so that a topology that was held up is not flooded.
///
/// ```
/// use std::time::Duration;
///
/// use galerna_spouts::{Firing, IntervalSpout};
/// use galerna_topology::TopologyBuilder;
///
/// let mut topology = TopologyBuilder::new("clock");
/// let firings = topology.spout("minutes", || IntervalSpout::every(Duration::from_secs(60))).outputs();
/// topology.for_each("print", |firing: Firing| println!("minute {}", firing.number)).shuffle(&firings);
/// topology.build().unwrap();
/// ```
#[derive(Debug)]
pub struct IntervalSpout {
    every: Duration,
    context: Option<TaskContext>,
    started: Duration,
    fired: u64,
}

impl IntervalSpout {
    /// Fires every so often, at least a millisecond apart.
    pub fn every(interval: Duration) -> Self {
        let every = interval.max(Duration::from_millis(1));
        Self { every, context: None, started: Duration::ZERO, fired: 0 }
    }
}

impl Spout for IntervalSpout {
    type MessageId = u64;
    type Outputs = Output<Firing>;

    async fn open(&mut self, context: &TaskContext) -> Result<(), Fault> {
        self.started = context.now();
        self.context = Some(context.clone());
        Ok(())
    }

    async fn next(&mut self, out: &mut Roots<'_, Self>) -> Result<Next, Fault> {
        let Some(context) = &self.context else { return Ok(Next::Done) };
        let passed = context.now().saturating_sub(self.started);
        let number = u64::try_from(passed.as_nanos() / self.every.as_nanos()).unwrap_or(u64::MAX);
        if number > self.fired {
            self.fired = number;
            let due = Duration::from_nanos_u128(self.every.as_nanos() * u128::from(number));
            out.root(number).emit(Firing { number, due });
        }
        let next = Duration::from_nanos_u128(self.every.as_nanos() * (u128::from(self.fired) + 1));
        Ok(Next::After(next.saturating_sub(passed)))
    }
}
