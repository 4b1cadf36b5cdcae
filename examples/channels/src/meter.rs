//! Rates.

use tokio::time::Instant;

const SECONDS: usize = 60;

/// Counts events by the second, for the last minute.
#[derive(Debug)]
pub struct Meter {
    start: Instant,
    /// The second that was counted last, and the counts of the 60 seconds up to it.
    second: u64,
    counts: [u32; SECONDS],
}

impl Default for Meter {
    fn default() -> Self {
        Self { start: Instant::now(), second: 0, counts: [0; SECONDS] }
    }
}

impl Meter {
    /// Counts events that happen now.
    pub fn add(&mut self, events: u32) {
        self.turn();
        let count = &mut self.counts[self.second as usize % SECONDS];
        *count = count.saturating_add(events);
    }

    /// Events in the last 60 seconds.
    pub fn last_minute(&mut self) -> u64 {
        self.turn();
        self.counts.iter().map(|count| u64::from(*count)).sum()
    }

    fn turn(&mut self) {
        let now = self.start.elapsed().as_secs();
        for second in (self.second + 1..=now).take(SECONDS) {
            self.counts[second as usize % SECONDS] = 0;
        }
        if now - self.second > SECONDS as u64 {
            self.counts = [0; SECONDS];
        }
        self.second = now;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_minute_is_counted_and_what_is_older_is_not() {
        let mut meter = Meter::default();
        for _ in 0..90 {
            meter.add(2);
            tokio::time::advance(Duration::from_secs(1)).await;
        }
        assert_eq!(meter.last_minute(), 118, "59 whole seconds, and one that has begun");
        tokio::time::advance(Duration::from_secs(30)).await;
        assert_eq!(meter.last_minute(), 58);
        tokio::time::advance(Duration::from_secs(100_000)).await;
        assert_eq!(meter.last_minute(), 0);
    }
}
