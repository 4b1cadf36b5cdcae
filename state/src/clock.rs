//! The clock that times to live are counted by.

/// Tells the time, in milliseconds since some fixed moment that is the same over restarts: 1970 for the time of day, or
/// what events say. Functions `Fn() -> i64` are clocks.
pub trait Clock: Send + Sync {
    /// Milliseconds.
    fn now(&self) -> i64;
}

/// The time of day.
#[derive(Debug, Clone, Copy, Default)]
pub struct WallClock;

impl Clock for WallClock {
    #[expect(clippy::disallowed_methods, reason = "the boundary to the system: tests give another clock")]
    fn now(&self) -> i64 {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        since.map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
    }
}

impl<F: Fn() -> i64 + Send + Sync> Clock for F {
    fn now(&self) -> i64 {
        self()
    }
}
