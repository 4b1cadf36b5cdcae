//! Validation: what of a message may be stored.

use std::sync::Arc;
use std::time::Duration;

use galerna_model::envelope::decode_within;
use galerna_model::{
    BadReading, Clock, DecodeLimits, Decoded, Incoming, Reading, SourceId, SystemClock, Timestamp,
};
use galerna_storage::StoredReading;
use galerna_topology::{Bolt, Emitter, Fault, TaskContext};

use crate::batch::ReadingBatch;
use crate::counters::{CounterMemory, DEFAULT_REMEMBERED_DEVICES};
use crate::registry::ParameterRegistry;
use crate::rejection::{Refused, RejectCode, RejectedBatch, Rejection};

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
    /// How many devices' counters are remembered.
    pub remembered_devices: usize,
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
            remembered_devices: DEFAULT_REMEMBERED_DEVICES,
        }
    }
}

/// Judges single readings: a pure function of the reading, the registry, the limits and the time.
///
/// ```
/// use galerna_bolts::{RejectCode, ValidationLimits, Validator};
/// use galerna_model::{Measurement, ParameterCode, Reading, Timestamp};
///
/// let validator = Validator::default();
/// let ts = Timestamp::parse("2015-04-21T23:15:00+00:00").unwrap();
/// let mut reading =
///     Reading { did: "12a".into(), values: vec![Measurement { p: ParameterCode(412), v: 0.82 }], sqn: 2152, ts };
/// assert!(validator.judge(&reading, ts).is_ok());
///
/// reading.values[0].v = 8.2;
/// let rejection = validator.judge(&reading, ts).unwrap_err();
/// assert_eq!(rejection.code, RejectCode::OutOfRange);
/// assert_eq!(rejection.reason, "values[0].v is 8.2 -1..1, power_factor (412) is from -1 to 1");
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

    /// Judges a reading at the time `now`.
    ///
    /// # Errors
    /// The first rule that it breaks, naming the field.
    pub fn judge(&self, reading: &Reading, now: Timestamp) -> Result<(), Rejection> {
        self.device(&reading.did)?;
        self.time(reading.ts, now)?;
        self.values(reading)
    }

    fn device(&self, did: &str) -> Result<(), Rejection> {
        let limit = self.limits.device_id_chars;
        let problem = if did.is_empty() {
            "did is empty".to_owned()
        } else if did.len() > limit && did.chars().count() > limit {
            format!("did has {} characters, at most {limit} are allowed", did.chars().count())
        } else if did.chars().any(char::is_control) {
            "did holds a control character".to_owned()
        } else {
            return Ok(());
        };
        Err(Rejection { code: RejectCode::Device, reason: problem })
    }

    fn time(&self, ts: Timestamp, now: Timestamp) -> Result<(), Rejection> {
        let ahead = ts.millis_since(now);
        let allowed = i64::try_from(self.limits.max_ahead.as_millis()).unwrap_or(i64::MAX);
        if ahead > allowed {
            return Err(Rejection {
                code: RejectCode::TimeInFuture,
                reason: format!(
                    "ts is {ts}, {} s ahead of now; at most {} s are allowed: set the sender's clock",
                    ahead / 1000,
                    allowed / 1000
                ),
            });
        }
        if ts < self.limits.not_before {
            return Err(Rejection {
                code: RejectCode::TimeTooOld,
                reason: format!("ts is {ts}, before {}: set the sender's clock", self.limits.not_before),
            });
        }
        Ok(())
    }

    fn values(&self, reading: &Reading) -> Result<(), Rejection> {
        let values = &reading.values;
        let reject = |code, reason| Err(Rejection { code, reason });
        if values.is_empty() {
            return reject(RejectCode::NoValues, "values is empty".to_owned());
        }
        if values.len() > self.limits.values {
            let limit = self.limits.values;
            let reason = format!("values has {} entries, at most {limit} are allowed", values.len());
            return reject(RejectCode::TooManyValues, reason);
        }
        for (i, m) in values.iter().enumerate() {
            let Some(parameter) = self.registry.get(m.p) else {
                return reject(
                    RejectCode::UnknownParameter,
                    format!("values[{i}].p is {}, an unknown parameter", m.p),
                );
            };
            if !m.v.is_finite() {
                let what = if m.v.is_nan() { "NaN" } else { "infinite" };
                return reject(RejectCode::NotANumber, format!("values[{i}].v is {what}"));
            }
            if m.v < parameter.min || m.v > parameter.max {
                let reason = format!(
                    "values[{i}].v is {} {}, {} ({}) is from {} to {}",
                    m.v, parameter.unit, parameter.quantity, m.p, parameter.min, parameter.max
                );
                return reject(RejectCode::OutOfRange, reason);
            }
            // The number of values is bounded and usually below ten: comparing beats a set.
            if let Some(first) = values[..i].iter().position(|before| before.p == m.p) {
                let reason =
                    format!("values[{i}].p is {}, as is values[{first}].p; send each parameter once", m.p);
                return reject(RejectCode::DuplicateParameter, reason);
            }
        }
        Ok(())
    }
}

galerna_topology::outputs! {
    /// What validation emits.
    pub struct Validated {
        /// The readings of one message that may be stored.
        valid: Arc<ReadingBatch>,
        /// What of one message was refused, or the message itself.
        rejected: Arc<RejectedBatch>,
    }
}

/// Reads messages, judges their readings, and emits the good ones on `valid` and the others on `rejected`.
///
/// A message makes at most one tuple on each output, so that an envelope of a hundred readings costs two hops, not two
/// hundred. A message that cannot be read at all is emitted on `rejected` as a whole; nothing fails.
///
/// Counters that run backwards are flagged ([`StoredReading::flags`], `402:counter_backwards`) and stored: see
/// [`CounterMemory`]. For that each device's readings must meet at one task: subscribe by fields, with the queue as the key.
///
/// The account of a reading is the one that the message names, or else that of its queue; the source is the one that the
/// message names, or else the account's own name: plain JSON messages need name neither.
pub struct ValidateBolt {
    validator: Validator,
    decode: DecodeLimits,
    counters: CounterMemory,
    clock: Arc<dyn Clock>,
    component: String,
}

impl ValidateBolt {
    /// Validation by this registry and these limits, on the machine's clock.
    pub fn new(registry: Arc<ParameterRegistry>, limits: ValidationLimits) -> Self {
        let decode = DecodeLimits {
            message_bytes: limits.message_bytes,
            device_id_chars: limits.device_id_chars,
            ..DecodeLimits::default()
        };
        let counters = CounterMemory::with_capacity(limits.remembered_devices);
        let validator = Validator::new(registry, limits);
        Self { validator, decode, counters, clock: Arc::new(SystemClock), component: "validate".to_owned() }
    }

    /// Judges times by another clock.
    #[must_use]
    pub fn with_clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// Takes a message apart: the readings to store, and what is refused. This is the whole bolt but for the emitting.
    pub fn examine(&mut self, incoming: &Incoming) -> (Option<ReadingBatch>, Option<RejectedBatch>) {
        let now = self.clock.now();
        let mut decoded = match decode_within(&incoming.message, &self.decode) {
            Ok(decoded) => decoded,
            Err(error) => return (None, Some(self.undecodable(incoming, &error.to_string(), now))),
        };
        let account = decoded.account.clone().unwrap_or_else(|| incoming.account.clone());
        // An account id is always a source id: both have the same rule.
        let Some(source) = decoded.source.clone().or_else(|| SourceId::new(account.as_str()).ok()) else {
            return (None, Some(self.undecodable(incoming, "source is missing", now)));
        };
        let received = decoded.received.unwrap_or(now);
        let mut refusals = Vec::new();
        let mut readings = Vec::with_capacity(decoded.readings.len());
        let refused =
            |index, device: Option<&str>, ts, raw: &str, rejection, bad: &BadReading, decoded: &Decoded| {
                Refused {
                    queue: &incoming.queue,
                    account: &account,
                    source: Some(&source),
                    device,
                    ts,
                    message: (&decoded.id, Some(index)),
                    raw: raw.as_bytes(),
                    now,
                    component: &self.component,
                }
                .because(rejection, decoded.bad_message(bad))
            };
        for bad in std::mem::take(&mut decoded.bad) {
            let rejection =
                Rejection { code: RejectCode::of_codec_reason(&bad.reason), reason: bad.reason.clone() };
            let device = bad.raw.get("did").and_then(|did| did.as_str());
            let ts = bad.raw.get("ts").and_then(|ts| ts.as_str()).and_then(|ts| Timestamp::parse(ts).ok());
            refusals.push(refused(bad.index, device, ts, &bad.raw.to_string(), rejection, &bad, &decoded));
        }
        for (index, reading) in std::mem::take(&mut decoded.readings) {
            if let Err(rejection) = self.validator.judge(&reading, now) {
                // A reading of finite numbers always has a JSON form.
                let raw = serde_json::to_value(&reading).unwrap_or_default();
                let text = raw.to_string();
                let bad = BadReading { index, reason: rejection.reason.clone(), raw };
                refusals.push(refused(
                    index,
                    Some(&reading.did),
                    Some(reading.ts),
                    &text,
                    rejection,
                    &bad,
                    &decoded,
                ));
                continue;
            }
            let mut flags = Vec::new();
            self.counters.judge(
                &self.validator.registry,
                &source,
                &reading.did,
                reading.ts,
                &reading.values,
                |code| flags.push(format!("{code}:counter_backwards")),
            );
            readings.push(StoredReading {
                account: account.clone(),
                source: source.clone(),
                device: reading.did,
                ts: reading.ts,
                sqn: reading.sqn,
                values: reading.values,
                flags,
                received,
            });
        }
        let valid = (!readings.is_empty()).then(|| ReadingBatch {
            queue: incoming.queue.clone(),
            epoch: incoming.epoch,
            account: account.clone(),
            message: incoming.message.id.clone(),
            readings: Arc::new(readings),
        });
        let rejected = (!refusals.is_empty()).then(|| RejectedBatch {
            queue: incoming.queue.clone(),
            message: incoming.message.id.clone(),
            refusals,
        });
        (valid, rejected)
    }

    fn undecodable(&self, incoming: &Incoming, reason: &str, now: Timestamp) -> RejectedBatch {
        let refusal = Refused {
            queue: &incoming.queue,
            account: &incoming.account,
            source: None,
            device: None,
            ts: None,
            message: (&incoming.message.id, None),
            raw: &incoming.message.body,
            now,
            component: &self.component,
        }
        .because(
            Rejection { code: RejectCode::Undecodable, reason: reason.to_owned() },
            incoming.message.clone(),
        );
        RejectedBatch {
            queue: incoming.queue.clone(),
            message: incoming.message.id.clone(),
            refusals: vec![refusal],
        }
    }
}

impl Bolt for ValidateBolt {
    type Input = Incoming;
    type Outputs = Validated;

    fn prepare(&mut self, context: &TaskContext) -> Result<(), Fault> {
        context.component().clone_into(&mut self.component);
        Ok(())
    }

    fn execute(&mut self, input: Incoming, out: &mut Emitter<Validated>) -> Result<(), Fault> {
        let (valid, rejected) = self.examine(&input);
        let readings = valid.as_ref().map_or(0, |batch| batch.readings.len());
        let refused = rejected.as_ref().map_or(0, |batch| batch.refusals.len());
        tracing::trace!(
            target: "galerna::trace::validate",
            id = input.message.id.as_str(),
            received = valid.as_ref().map(|batch| batch.readings[0].received.as_millis()),
            "{readings} readings valid, {refused} refused",
        );
        if let Some(valid) = valid {
            out.valid.emit(Arc::new(valid));
        }
        if let Some(rejected) = rejected {
            out.rejected.emit(Arc::new(rejected));
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "validate_tests.rs"]
mod tests;
