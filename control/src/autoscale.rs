//! Executors that follow the load, between bounds.

use std::ops::RangeInclusive;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

/// How the executors of a component follow its load. That it grows at another share than it shrinks at, and only when the share
/// has been so for a while, keeps it from going up and down.
#[derive(Debug, Clone, PartialEq)]
pub struct Autoscale {
    /// The fewest and the most executors.
    pub executors: RangeInclusive<usize>,
    /// From this busy share on there are to be more; 0.8 unless set.
    pub grow_at: f64,
    /// Up to this busy share there are to be fewer, unless those that are left would be too busy then; 0.3 unless set.
    pub shrink_at: f64,
    /// For how long the share must have been so without a break; 10 s unless set.
    pub hold: Duration,
}

impl Autoscale {
    /// Between these bounds.
    pub fn between(executors: RangeInclusive<usize>) -> Self {
        Self { executors, grow_at: 0.8, shrink_at: 0.3, hold: Duration::from_secs(10) }
    }
}

/// A component whose executors follow its load.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AutoscaleView {
    /// The component.
    pub component: String,
    /// The fewest executors.
    pub min: usize,
    /// The most.
    pub max: usize,
    /// From this busy share on there are to be more.
    pub grow_at: f64,
    /// Up to this busy share there are to be fewer.
    pub shrink_at: f64,
    /// For how long the share must have been so.
    pub hold_ms: u64,
}

/// Which way it is to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Grow,
    Shrink,
}

/// Decides for one component.
#[derive(Debug)]
pub(crate) struct Autoscaler {
    pub(crate) component: String,
    options: Autoscale,
    /// Which way, and since when.
    tends: Option<(Way, Instant)>,
}

impl Autoscaler {
    pub(crate) fn new(component: String, options: Autoscale) -> Self {
        Self { component, options, tends: None }
    }

    pub(crate) fn view(&self) -> AutoscaleView {
        AutoscaleView {
            component: self.component.clone(),
            min: *self.options.executors.start(),
            max: *self.options.executors.end(),
            grow_at: self.options.grow_at,
            shrink_at: self.options.shrink_at,
            hold_ms: u64::try_from(self.options.hold.as_millis()).unwrap_or(u64::MAX),
        }
    }

    /// How many executors there are to be, if not as many as there are; `busy` is their busy share since it was asked last.
    pub(crate) fn decide(&mut self, now: Instant, executors: usize, busy: f64) -> Option<usize> {
        let (least, most) = (*self.options.executors.start(), *self.options.executors.end());
        if !(least..=most).contains(&executors) {
            self.tends = None;
            return Some(executors.clamp(least, most));
        }
        // What each would be busy if there was one fewer.
        let fewer = busy * executors as f64 / executors.saturating_sub(1).max(1) as f64;
        let way = match () {
            () if busy >= self.options.grow_at && executors < most => Way::Grow,
            () if busy <= self.options.shrink_at && executors > least && fewer < self.options.grow_at => {
                Way::Shrink
            }
            () => {
                self.tends = None;
                return None;
            }
        };
        let since = match self.tends {
            Some((before, since)) if before == way => since,
            _ => now,
        };
        self.tends = Some((way, since));
        if now - since < self.options.hold {
            return None;
        }
        self.tends = None;
        Some(match way {
            // Half as many again, so that it is there soon.
            Way::Grow => (executors + executors.div_ceil(2)).min(most),
            Way::Shrink => executors - 1,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goes through busy shares, a second each, and tells the executors after each.
    fn scaled(options: Autoscale, mut executors: usize, shares: &[f64]) -> Vec<usize> {
        let mut scaler = Autoscaler::new("count".to_owned(), options);
        let began = Instant::now();
        let step = |(second, busy): (u64, &f64)| {
            let now = began + Duration::from_secs(second);
            executors = scaler.decide(now, executors, *busy).unwrap_or(executors);
            executors
        };
        (0..).zip(shares).map(step).collect()
    }

    #[test]
    fn executors_follow_the_load_after_a_while_and_do_not_swing() {
        let options = || Autoscale { hold: Duration::from_secs(2), ..Autoscale::between(1..=6) };
        let cases: [(&str, usize, &[f64], &[usize]); 7] = [
            ("grows while it is busy, up to the most", 1, &[0.9; 10], &[1, 1, 2, 2, 2, 3, 3, 3, 5, 5]),
            ("never beyond the most", 6, &[1.0; 4], &[6, 6, 6, 6]),
            ("shrinks one by one", 4, &[0.1; 7], &[4, 4, 3, 3, 3, 2, 2]),
            ("never below the least", 1, &[0.0; 4], &[1, 1, 1, 1]),
            ("stays between the shares", 3, &[0.5; 5], &[3; 5]),
            ("a short peak is none", 2, &[0.9, 0.9, 0.5, 0.9, 0.9, 0.1, 0.1, 0.5], &[2; 8]),
            ("comes back between the bounds at once", 9, &[0.5, 0.5], &[6, 6]),
        ];
        for (what, executors, shares, expected) in cases {
            assert_eq!(scaled(options(), executors, shares), expected, "{what}");
        }
        // With one fewer those that are left would be busy enough to grow again.
        let close = Autoscale { shrink_at: 0.7, ..options() };
        assert_eq!(scaled(close, 2, &[0.5; 5]), [2; 5]);
    }
}
