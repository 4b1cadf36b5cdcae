//! Validation: what of a message may be stored.

use std::sync::Arc;

use galerna_model::envelope::decode_within;
use galerna_model::{
    BadEntry, BadReading, BadValue, Clock, DecodeLimits, Decoded, Incoming, ParameterRegistry, Reading,
    RejectCode, SourceId, SystemClock, Timestamp, ValidationLimits, Validator,
};
use galerna_storage::StoredReading;
use galerna_topology::{Bolt, Emitter, Fault, TaskContext};

use crate::batch::ReadingBatch;
use crate::counters::CounterMemory;
use crate::rejection::{Refused, RejectedBatch};

galerna_topology::outputs! {
    /// What validation emits.
    pub struct Validated {
        /// The readings of one message that may be stored.
        valid: Arc<ReadingBatch>,
        /// What of one message was refused, or the message itself.
        rejected: Arc<RejectedBatch>,
    }
}

/// Reads messages, validates their readings, and emits the good ones on `valid` and the others on `rejected`.
///
/// A message makes at most one tuple on each output, so that an envelope of a hundred readings costs two hops, not two
/// hundred. A message that cannot be read at all is emitted on `rejected` as a whole; nothing fails.
///
/// Counters that run backwards are flagged ([`StoredReading::flags`], `402:counter_backwards`) and stored: see
/// [`CounterMemory`]. For that each device's readings must meet at one task: subscribe by fields, with the queue as the key.
///
/// A value that is not possible for its parameter is put aside: it is refused with its reason, as a reading with that value alone,
/// and the rest of its reading is good.
///
/// The account of a reading is that of its queue. A message that names another is refused as a whole: it is in the wrong queue, or was
/// changed on its way. The source is the one that the
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
        let validator = Validator::new(registry, limits);
        let counters = CounterMemory::default();
        Self { validator, decode, counters, clock: Arc::new(SystemClock), component: "validate".to_owned() }
    }

    /// Tells the time by another clock.
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
            Err(error) => {
                return (
                    None,
                    Some(self.refused_whole(incoming, undecodable(error.field(), &error.to_string()), now)),
                );
            }
        };
        if let Some(named) = decoded.account.as_ref().filter(|named| **named != incoming.account) {
            let error = BadReading::new(
                RejectCode::ForeignAccount,
                "account",
                format!("is `{named}`, and queue {} is that of `{}`", incoming.queue, incoming.account),
            );
            return (None, Some(self.refused_whole(incoming, error, now)));
        }
        let account = incoming.account.clone();
        // An account id is always a source id: both have the same rule.
        let Some(source) = decoded.source.clone().or_else(|| SourceId::new(account.as_str()).ok()) else {
            return (
                None,
                Some(self.refused_whole(incoming, undecodable("source", "source is missing"), now)),
            );
        };
        let received = decoded.received.unwrap_or(now);
        let mut rejections = Vec::new();
        let mut readings = Vec::with_capacity(decoded.readings.len());
        let refused = |device: Option<&str>, ts, bad: &BadEntry, decoded: &Decoded| {
            Refused {
                queue: &incoming.queue,
                account: &account,
                source: Some(&source),
                device,
                ts,
                message: (&decoded.id, Some(bad.index)),
                raw: bad.raw.to_string().as_bytes(),
                now,
                component: &self.component,
                replays: incoming.replays,
            }
            .because(bad.error.clone(), decoded.bad_message(bad))
        };
        for bad in std::mem::take(&mut decoded.bad) {
            let device = bad.raw.get("did").and_then(|did| did.as_str());
            let ts = bad.raw.get("ts").and_then(|ts| ts.as_str()).and_then(|ts| Timestamp::parse(ts).ok());
            rejections.push(refused(device, ts, &bad, &decoded));
        }
        for (index, mut reading) in std::mem::take(&mut decoded.readings) {
            let mut refuse = |reading: &Reading, error: BadReading| {
                // A reading of finite numbers always has a JSON form.
                let raw = serde_json::to_value(reading).unwrap_or_default();
                let bad = BadEntry { index, error, raw };
                rejections.push(refused(Some(&reading.did), Some(reading.ts), &bad, &decoded));
            };
            match self.validator.validate(&reading, now) {
                Ok(aside) if aside.is_empty() => {}
                Ok(aside) => {
                    for BadValue { index, mut error } in aside.into_iter().rev() {
                        let values = vec![reading.values.remove(index)];
                        error.reason.push_str("; the other values of the reading are stored");
                        refuse(&Reading { did: reading.did.clone(), values, ..reading }, error);
                    }
                }
                Err(error) => {
                    refuse(&reading, error);
                    continue;
                }
            }
            let mut flags = Vec::new();
            self.counters.check(
                self.validator.registry(),
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
        let rejected = (!rejections.is_empty()).then(|| RejectedBatch {
            queue: incoming.queue.clone(),
            message: incoming.message.id.clone(),
            rejections,
        });
        (valid, rejected)
    }

    fn refused_whole(&self, incoming: &Incoming, error: BadReading, now: Timestamp) -> RejectedBatch {
        let rejection = Refused {
            queue: &incoming.queue,
            account: &incoming.account,
            source: None,
            device: None,
            ts: None,
            message: (&incoming.message.id, None),
            raw: &incoming.message.body,
            now,
            component: &self.component,
            replays: incoming.replays,
        }
        .because(error, incoming.message.clone());
        RejectedBatch {
            queue: incoming.queue.clone(),
            message: incoming.message.id.clone(),
            rejections: vec![rejection],
        }
    }
}

fn undecodable(field: &str, reason: &str) -> BadReading {
    BadReading { code: RejectCode::Undecodable, field: field.to_owned(), reason: reason.to_owned() }
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
        let refused = rejected.as_ref().map_or(0, |batch| batch.rejections.len());
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
