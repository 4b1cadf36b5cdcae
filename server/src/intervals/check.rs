//! What the workers would say of readings.

use galerna_import::Check;
use galerna_model::{BadReading, Clock, Measurement, Reading, RejectCode, SystemClock, Timestamp, Validator};

/// Validates readings as the worker will.
pub struct WorkerCheck {
    validator: Validator,
    now: Timestamp,
}

impl WorkerCheck {
    /// By this validator, at the time of the machine.
    pub fn new(validator: Validator) -> Self {
        Self { validator, now: SystemClock.now() }
    }
}

impl Check for WorkerCheck {
    fn time(&self, ts: Timestamp) -> Result<(), BadReading> {
        let reading = Reading { did: "meter".to_owned(), values: Vec::new(), sqn: 1, ts };
        match self.validator.validate(&reading, self.now) {
            Err(rejection) if matches!(rejection.code, RejectCode::TimeInFuture | RejectCode::TimeTooOld) => {
                Err(rejection)
            }
            _ => Ok(()),
        }
    }

    fn values(&self, values: &[Measurement]) -> Result<(), BadReading> {
        let reading = Reading { did: "meter".to_owned(), values: values.to_vec(), sqn: 1, ts: self.now };
        // A value of a file that would be put aside is refused here: its line can still be mended.
        match self.validator.validate(&reading, self.now) {
            Ok(aside) => aside.into_iter().next().map_or(Ok(()), |bad| Err(bad.error)),
            Err(error) => Err(error),
        }
    }
}
