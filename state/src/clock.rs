//! The clock that times to live are counted by.

/// Tells the time, in milliseconds since some fixed moment that is the same over restarts: 1970 for the time of day, or
/// what events say. Functions `Fn() -> i64` are clocks.
pub trait Clock: Send + Sync {
    /// Milliseconds.
    fn now(&self) -> i64;
}

impl<F: Fn() -> i64 + Send + Sync> Clock for F {
    fn now(&self) -> i64 {
        self()
    }
}
