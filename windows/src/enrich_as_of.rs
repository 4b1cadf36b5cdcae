//! Declaring what gives tuples what a table had for them at their own time.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use galerna_topology::{Data, Fault, Timestamp, outputs};
use serde::{Deserialize, Serialize};

use crate::enrich::Enriched;
use crate::join_store::Side;
use crate::result::Late;
use crate::source_clock::EventTimeSettings;
use crate::sources::{KeyOf, TimeOf, read_time};
use crate::store::caught;

/// So many tuples wait in a task at most, unless it is told otherwise.
const LIMIT: usize = 1_000_000;

/// What a table has for a key from some time on, until the next version of that key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableVersion<K, V> {
    /// The key.
    pub key: K,
    /// From when on, in milliseconds since 1970.
    pub from_ms: i64,
    /// What the table has for it; `None` if it has nothing any more.
    pub value: Option<V>,
}

impl<K, V> TableVersion<K, V> {
    /// The key has this value from that time on.
    pub fn put(key: K, from: impl Into<Timestamp>, value: V) -> Self {
        Self { key, from_ms: from.into().millis(), value: Some(value) }
    }

    /// The key is gone from that time on.
    pub fn remove(key: K, from: impl Into<Timestamp>) -> Self {
        Self { key, from_ms: from.into().millis(), value: None }
    }
}

outputs! {
    /// What comes of tuples and the versions of a table.
    pub struct EnrichAsOfOutputs<K, T, V> {
        /// Tuples with what the table had for them.
        enriched: Enriched<T, V>,
        /// Tuples that came when versions of their time may have been let go of.
        late: Late<K, T>,
    }
}

/// Gives each tuple what a table has for its key at the tuple's own time: the version that begins last of those that begin at that time or
/// before. So the result does not depend on which stream is faster.
///
/// A tuple waits until the watermark has passed its time, since a version of before may come until then; tuples come out in the order of
/// their times. A version that comes when the watermark has passed its beginning counts for tuples that have not come out.
///
/// ```
/// use std::time::Duration;
/// use galerna_windows::EnrichAsOf;
///
/// # #[derive(Clone)] struct Reading { meter: String, at: i64 }
/// let with_tariff = EnrichAsOf::by(|reading: &Reading| reading.meter.clone())
///     .event_time(|reading| reading.at)
///     .lag(Duration::from_secs(60));
/// ```
///
/// A topology runs it with [`WindowTopology::enrich_in_state`](crate::WindowTopology::enrich_in_state).
pub struct EnrichAsOf<T, K> {
    pub(crate) key_of: KeyOf<T, K>,
    time_of: Option<TimeOf<T>>,
    pub(crate) makes_watermarks: bool,
    pub(crate) sources: EventTimeSettings,
    pub(crate) limit: usize,
}

impl<T, K> Clone for EnrichAsOf<T, K> {
    fn clone(&self) -> Self {
        Self { key_of: self.key_of.clone(), time_of: self.time_of.clone(), ..*self }
    }
}

impl<T, K> fmt::Debug for EnrichAsOf<T, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EnrichAsOf").field("limit", &self.limit).finish_non_exhaustive()
    }
}

/// What cannot be done with a table, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EnrichAsOfError {
    /// Tuples have no times.
    #[error("it does not say when tuples are: call `event_time`")]
    NoTime,
    /// No tuple may wait.
    #[error("its limit is 0, so that no tuple could wait: make it at least 1")]
    NoRoom,
}

impl<T: Data, K> EnrichAsOf<T, K> {
    /// By this key.
    pub fn by(key: impl Fn(&T) -> K + Send + Sync + 'static) -> Self {
        Self {
            key_of: Arc::new(key),
            time_of: None,
            makes_watermarks: false,
            sources: EventTimeSettings::default(),
            limit: LIMIT,
        }
    }

    /// When a tuple is, in milliseconds since 1970 where that is a number.
    #[must_use]
    pub fn event_time<A: Into<Timestamp>>(mut self, at: impl Fn(&T) -> A + Send + Sync + 'static) -> Self {
        self.time_of = Some(Arc::new(move |tuple| at(tuple).into()));
        self
    }

    /// Reads off tuples and versions how far their senders are, and waits so long for those that are behind; see
    /// [`Window::lag`](crate::Window::lag).
    #[must_use]
    pub fn lag(mut self, lag: Duration) -> Self {
        self.makes_watermarks = true;
        self.sources.lag = lag;
        self
    }

    /// With [`lag`](Self::lag): how long a sender may be silent until nobody waits for it; `None` means for ever. 60 s unless set.
    #[must_use]
    pub fn idle_after(mut self, silence: impl Into<Option<Duration>>) -> Self {
        self.sources.idle_after = silence.into();
        self
    }

    /// How many tuples may wait in each of its tasks. Beyond it tuples fail, so that they come again when others have come out.
    /// 1,000,000 unless set.
    #[must_use]
    pub fn limit(mut self, tuples: usize) -> Self {
        self.limit = tuples;
        self
    }

    /// What is wrong with it, if anything is.
    ///
    /// # Errors
    /// Nothing said about times; a limit of 0.
    pub fn check(&self) -> Result<(), EnrichAsOfError> {
        match (&self.time_of, self.limit) {
            (None, _) => Err(EnrichAsOfError::NoTime),
            (Some(_), 0) => Err(EnrichAsOfError::NoRoom),
            (Some(_), _) => Ok(()),
        }
    }

    /// How often it is to look for senders that are idle.
    pub(crate) fn tick(&self) -> Option<Duration> {
        let idle = self.sources.idle_after.filter(|_| self.makes_watermarks)?;
        Some((idle / 10).clamp(Duration::from_millis(10), Duration::from_secs(1)))
    }

    /// What a tuple fails with for which there is no room.
    pub(crate) fn no_room(&self) -> Fault {
        Fault::transient(format!(
            "{} tuples wait for the watermark to pass them, as many as may: raise the `limit`, give the bolt more tasks, or look what \
             holds its watermark back",
            self.limit
        ))
    }

    /// When a tuple is, or from when on a version, and the key.
    pub(crate) fn read<V: Clone>(&self, input: &Side<T, TableVersion<K, V>>) -> Result<(Timestamp, K), Fault>
    where
        K: Clone,
    {
        let tuple = match input {
            Side::Right(version) => {
                return Ok((Timestamp::from_millis(version.from_ms), version.key.clone()));
            }
            Side::Left(tuple) => tuple,
        };
        let time_of = self.time_of.as_ref().ok_or_else(|| Fault::permanent("the tuples have no times"))?;
        let at = read_time(time_of, tuple)?;
        let key = caught(|| (self.key_of)(tuple))
            .map_err(|fault| Fault::permanent(format!("the key closure {}", fault.reason())))?;
        Ok((at, key))
    }
}
