//! Limits that all processes hold to.
//!
//! Each limit and key has one number: the time at which it would be idle again if nothing more came (the generic cell rate algorithm,
//! ATM Forum 1996). A call moves it on by one interval, and is let through if it is then no further ahead than the burst allows.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use galerna_model::Clock;
use galerna_sqlite::{OpenError, Plain, Writer};
use rusqlite::{OptionalExtension, params};

use crate::{DelayError, schema};

/// A limit, and the key that it is applied to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limit {
    /// The name: `posts an hour`. Of one name, all ask with the same rate and burst.
    pub name: String,
    /// Each key has the whole rate: an account, a host.
    pub key: String,
    /// Calls in [`Self::per`].
    pub rate: u32,
    /// The time that the rate is for.
    pub per: Duration,
    /// So many may be at once, after a time without any; at least 1.
    pub burst: u32,
}

impl Limit {
    /// So many calls in a time, and as many at once.
    pub fn new(name: impl Into<String>, key: impl Into<String>, rate: u32, per: Duration) -> Self {
        Self { name: name.into(), key: key.into(), rate, per, burst: rate }
    }

    /// The same with another burst.
    #[must_use]
    pub fn burst(mut self, burst: u32) -> Self {
        self.burst = burst;
        self
    }

    /// Microseconds between two calls, and how far ahead the burst lets them be.
    fn steps(&self) -> Result<(i64, i64), DelayError> {
        let bad = |reason: &str| DelayError::Bad {
            what: format!("limit `{}`", self.name),
            reason: reason.to_owned(),
        };
        if self.rate == 0 || self.burst == 0 {
            return Err(bad("a rate or burst of 0 lets nothing through; take at least 1"));
        }
        // Rounded up: the limit is never exceeded.
        let interval = self.per.as_micros().div_ceil(u128::from(self.rate));
        let interval = i64::try_from(interval).unwrap_or(i64::MAX);
        if self.per.as_micros() < u128::from(self.rate) {
            return Err(bad("more than a million calls a second are not counted"));
        }
        let ahead = interval
            .checked_mul(i64::from(self.burst))
            .ok_or_else(|| bad("its time is longer than is counted"))?;
        Ok((interval, ahead))
    }
}

/// Whether a call may be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Permit {
    /// Now; it counts.
    Granted,
    /// Not before so much time; it does not count. Whoever waits does so without keeping others, of other keys, from asking.
    After(Duration),
}

/// The limits of a file, which the processes of one machine share.
pub struct RateLimits {
    writer: Writer<Plain>,
    clock: Arc<dyn Clock>,
}

impl std::fmt::Debug for RateLimits {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RateLimits").finish_non_exhaustive()
    }
}

impl RateLimits {
    /// Opens the file, which may be that of a [`DelayStore`](crate::DelayStore).
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open(path: &Path, clock: Arc<dyn Clock>) -> Result<Self, OpenError> {
        Ok(Self { writer: schema::open(path)?, clock })
    }

    /// Limits that are gone when this is dropped: for one process, and for tests.
    ///
    /// # Errors
    /// When SQLite has no memory.
    pub fn in_memory(clock: Arc<dyn Clock>) -> Result<Self, DelayError> {
        Ok(Self { writer: schema::in_memory()?, clock })
    }

    /// Asks for one call under several limits: it counts for all of them or, if one lets it not through, for none.
    ///
    /// # Errors
    /// [`DelayError::Bad`] when a limit makes no sense; otherwise when the store fails.
    pub async fn ask(&self, limits: &[Limit]) -> Result<Permit, DelayError> {
        let mut steps = Vec::with_capacity(limits.len());
        for limit in limits {
            let (interval, ahead) = limit.steps()?;
            steps.push((limit.name.clone(), limit.key.clone(), interval, ahead));
        }
        let now = self.clock.now().as_millis().saturating_mul(1000);
        let asked = self.writer.write(move |stored| {
            let connection = stored.connection();
            let mut wait = 0;
            let mut moved = Vec::with_capacity(steps.len());
            for (name, key, interval, ahead) in &steps {
                let sql = "SELECT tat FROM limits WHERE name = ?1 AND key = ?2";
                let tat: Option<i64> =
                    connection.prepare_cached(sql)?.query_row([name, key], |row| row.get(0)).optional()?;
                let next = tat.unwrap_or(now).max(now).saturating_add(*interval);
                wait = wait.max(next.saturating_sub(*ahead).saturating_sub(now));
                moved.push((name, key, next));
            }
            if wait > 0 {
                return Ok(Permit::After(Duration::from_micros(wait.unsigned_abs())));
            }
            for (name, key, next) in moved {
                let sql = "INSERT INTO limits VALUES (?1, ?2, ?3) ON CONFLICT DO UPDATE SET tat = ?3";
                connection.prepare_cached(sql)?.execute(params![name, key, next])?;
            }
            Ok(Permit::Granted)
        });
        asked.await.map_err(|error| DelayError::of("asking for a permit", error))
    }

    /// Forgets keys that have been idle, which are as if they had never been. How many.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn forget_idle(&self) -> Result<u64, DelayError> {
        let now = self.clock.now().as_millis().saturating_mul(1000);
        let gone = self
            .writer
            .write(move |stored| stored.connection().execute("DELETE FROM limits WHERE tat <= ?1", [now]))
            .await;
        let gone = gone.map_err(|error| DelayError::of("forgetting idle limits", error))?;
        Ok(u64::try_from(gone).unwrap_or(u64::MAX))
    }
}
