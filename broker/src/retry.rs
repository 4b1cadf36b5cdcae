//! When a failed message is tried again, and when no more.

use std::time::Duration;

/// How often a message is delivered, and how far apart.
///
/// Two counts are kept apart. A **failure** is an [`Outcome::Retry`](crate::Outcome::Retry): somebody looked at the message and could not
/// use it now. A **return** is a delivery that ended with its consumer (a crash, a lost channel): one message may have
/// caused it, but all that were unsettled then came back. So failures are few, and returns are allowed many more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RetryPolicy {
    /// The failure with this number makes it a dead letter; 5 by default.
    pub max_deliveries: u32,
    /// A message that was returned this often becomes a dead letter instead of being delivered once more: it seems to kill
    /// its consumers. 20 by default.
    pub max_returns: u32,
    /// The delay after the first failure, the second, and so on; the last one repeats. By default 1 s, 5 s, 30 s, 2 min.
    /// RabbitMQ keeps one queue per distinct delay.
    pub delays: Vec<Duration>,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self { max_deliveries: 5, max_returns: 20, delays: [1, 5, 30, 120].map(Duration::from_secs).to_vec() }
    }
}

impl RetryPolicy {
    /// How long to wait after the failure with this number (1 is the first); `None` when it was the last permitted one.
    pub fn delay_after(&self, failures: u32) -> Option<Duration> {
        if failures >= self.max_deliveries {
            return None;
        }
        let at = usize::try_from(failures).unwrap_or(usize::MAX).saturating_sub(1);
        Some(self.delays.get(at).or(self.delays.last()).copied().unwrap_or_default())
    }

    /// Why a message that was returned `returns` times may not be delivered again; `None` while it may.
    #[cfg(any(feature = "rabbitmq", feature = "embedded"))]
    pub(crate) fn refuse_after(&self, returns: u32) -> Option<crate::Failure> {
        (returns >= self.max_returns).then(|| crate::Failure {
            reason: format!(
                "delivered {returns} times without being settled: it seems to stop its consumers"
            ),
            component: "broker".to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_delay_grows_with_the_failures_and_ends_with_the_last_permitted_one() {
        let policy = RetryPolicy { max_deliveries: 7, ..RetryPolicy::default() };
        let seconds: Vec<_> = (1..=7).map(|n| policy.delay_after(n).map(|d| d.as_secs())).collect();
        assert_eq!(seconds, [Some(1), Some(5), Some(30), Some(120), Some(120), Some(120), None]);
        assert_eq!(RetryPolicy { delays: vec![], ..policy }.delay_after(1), Some(Duration::ZERO));
    }
}
