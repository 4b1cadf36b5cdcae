//! Validation: what of a reading may be stored.

use std::sync::Arc;
use std::time::Duration;

use crate::envelope::{self, DecodeLimits};
use crate::{BadReading, ParameterRegistry, Reading, RejectCode, Timestamp};

/// What a reading must keep beside its registry's ranges.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ValidationLimits {
    /// How far a reading's time may be ahead of this machine's clock.
    pub max_ahead: Duration,
    /// The earliest time of a reading. A meter whose clock was never set says 1970-01-01; raise this to refuse such readings.
    pub not_before: Timestamp,
    /// Most values in one reading.
    pub values: usize,
    /// Longest device id in characters.
    pub device_id_chars: usize,
    /// The largest message in bytes.
    pub message_bytes: usize,
}

impl Default for ValidationLimits {
    /// One hour ahead; nothing before 1970-01-01; 100 values; ids of 200 characters; messages of 8 MiB.
    fn default() -> Self {
        let decode = DecodeLimits::default();
        Self {
            max_ahead: Duration::from_secs(3600),
            not_before: Timestamp(0),
            values: 100,
            device_id_chars: decode.device_id_chars,
            message_bytes: decode.message_bytes,
        }
    }
}

/// Validates single readings: a pure function of the reading, the registry, the limits and the time.
///
/// ```
/// use galerna_model::{Measurement, ParameterCode, Reading, RejectCode, Timestamp, Validator};
///
/// let validator = Validator::default();
/// let ts = Timestamp::parse("2015-04-21T23:15:00+00:00").unwrap();
/// let mut reading =
///     Reading { did: "12a".into(), values: vec![Measurement { p: ParameterCode(412), v: 0.82 }], sqn: 2152, ts };
/// assert!(validator.validate(&reading, ts).unwrap().is_empty());
///
/// reading.values[0].v = 8.2;
/// let error = validator.validate(&reading, ts).unwrap_err();
/// assert_eq!(error.code, RejectCode::OutOfRange);
/// assert_eq!(error.reason, "values[0].v is 8.2 -1..1, power_factor (412) is from -1 to 1");
/// ```
#[derive(Debug, Clone, Default)]
pub struct Validator {
    registry: Arc<ParameterRegistry>,
    limits: ValidationLimits,
}

impl Validator {
    /// A validator by this registry and these limits.
    pub fn new(registry: Arc<ParameterRegistry>, limits: ValidationLimits) -> Self {
        Self { registry, limits }
    }

    /// The parameters it knows.
    pub fn registry(&self) -> &ParameterRegistry {
        &self.registry
    }

    /// Validates a reading at the time `now`. What is returned are the values that are not possible for their parameters, each to be
    /// put aside; the rest of the reading is good.
    ///
    /// # Errors
    /// The first rule that the reading as a whole breaks, naming the field; that of its first value, when none is good.
    pub fn validate(&self, reading: &Reading, now: Timestamp) -> Result<Vec<BadValue>, BadReading> {
        self.device(&reading.did)?;
        self.time(reading.ts, now)?;
        self.values(reading)
    }

    fn device(&self, did: &str) -> Result<(), BadReading> {
        let limits = DecodeLimits { device_id_chars: self.limits.device_id_chars, ..DecodeLimits::default() };
        envelope::device_id(did, &limits)
    }

    fn time(&self, ts: Timestamp, now: Timestamp) -> Result<(), BadReading> {
        let ahead = ts.millis_since(now);
        let allowed = i64::try_from(self.limits.max_ahead.as_millis()).unwrap_or(i64::MAX);
        if ahead > allowed {
            let problem = format!(
                "is {ts}, {} s ahead of now; at most {} s are allowed: set the sender's clock",
                ahead / 1000,
                allowed / 1000
            );
            return Err(BadReading::new(RejectCode::TimeInFuture, "ts", problem));
        }
        if ts < self.limits.not_before {
            let problem = format!("is {ts}, before {}: set the sender's clock", self.limits.not_before);
            return Err(BadReading::new(RejectCode::TimeTooOld, "ts", problem));
        }
        Ok(())
    }

    fn values(&self, reading: &Reading) -> Result<Vec<BadValue>, BadReading> {
        let values = &reading.values;
        let bad = |code, field: String, problem: String| Err(BadReading::new(code, field, problem));
        if values.is_empty() {
            return bad(RejectCode::NoValues, "values".to_owned(), "is empty".to_owned());
        }
        if values.len() > self.limits.values {
            let problem = format!("has {} entries, at most {} are allowed", values.len(), self.limits.values);
            return bad(RejectCode::TooManyValues, "values".to_owned(), problem);
        }
        let mut aside = Vec::new();
        for (i, m) in values.iter().enumerate() {
            let Some(parameter) = self.registry.get(m.p) else {
                let problem = format!("is {}, an unknown parameter", m.p);
                return bad(RejectCode::UnknownParameter, format!("values[{i}].p"), problem);
            };
            envelope::finite(i, m.v)?;
            // The number of values is bounded and usually below ten: comparing beats a set.
            if let Some(first) = values[..i].iter().position(|before| before.p == m.p) {
                let problem = format!("is {}, as is values[{first}].p; send each parameter once", m.p);
                return bad(RejectCode::DuplicateParameter, format!("values[{i}].p"), problem);
            }
            if m.v < parameter.min || m.v > parameter.max {
                let problem = format!(
                    "is {} {}, {} ({}) is from {} to {}",
                    m.v, parameter.unit, parameter.quantity, m.p, parameter.min, parameter.max
                );
                let error = BadReading::new(RejectCode::OutOfRange, format!("values[{i}].v"), problem);
                aside.push(BadValue { index: i, error });
            }
        }
        if aside.len() == values.len() {
            return Err(aside.swap_remove(0).error);
        }
        Ok(aside)
    }
}

/// A value to put aside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadValue {
    /// Its index among the values of its reading.
    pub index: usize,
    /// What is wrong with it.
    pub error: BadReading,
}
