//! Slowing down who guesses secrets.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use governor::clock::{Clock, DefaultClock};
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};

use crate::address::network;

/// Wrong secrets that one address may try at once; after them one in so long.
const TRIES: NonZeroU32 = NonZeroU32::new(10).unwrap();
const THEN_ONE_IN: Duration = Duration::from_secs(60);
/// Addresses remembered; when more have just guessed, all who guess wait.
const MAX_ADDRESSES: usize = 10_000;
/// For those who guess while there is no room to remember their address.
const NO_ROOM: Duration = Duration::from_secs(60);

/// Counts wrong secrets by the address that they came from (of IPv6 by its network). Clones count together.
#[derive(Clone)]
pub struct Throttle {
    tries: Arc<DefaultKeyedRateLimiter<IpAddr>>,
    clock: DefaultClock,
}

impl Default for Throttle {
    /// Ten tries at once, then one a minute.
    fn default() -> Self {
        // A period of 0, which this is not, would be none.
        let quota = Quota::with_period(THEN_ONE_IN).unwrap_or(Quota::per_minute(NonZeroU32::MIN));
        let tries = RateLimiter::dashmap(quota.allow_burst(TRIES));
        Self { tries: Arc::new(tries), clock: DefaultClock::default() }
    }
}

impl Throttle {
    /// A wrong secret came from there. Callers whose address is not known count as one.
    ///
    /// # Errors
    /// How long this address is to wait, when it has tried too often to be told more.
    pub fn failed(&self, from: Option<IpAddr>) -> Result<(), Duration> {
        if self.tries.len() >= MAX_ADDRESSES {
            self.tries.retain_recent();
            if self.tries.len() >= MAX_ADDRESSES {
                return Err(NO_ROOM);
            }
        }
        let from = from.map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), network);
        self.tries.check_key(&from).map_err(|until| until.wait_time_from(self.clock.now()))
    }
}

impl fmt::Debug for Throttle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Throttle").field("addresses", &self.tries.len()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_tries_are_told_and_then_the_address_waits_and_others_do_not() {
        let throttle = Throttle::default();
        let ip = |text: &str| Some(text.parse().unwrap());
        for n in 0..10 {
            assert_eq!(throttle.failed(ip("2001:db8::1")), Ok(()), "{n}");
        }
        let wait = throttle.failed(ip("2001:db8::2")).unwrap_err();
        assert!(wait <= Duration::from_secs(60) && !wait.is_zero(), "{wait:?}");
        assert_eq!(throttle.failed(ip("2001:db9::1")), Ok(()));
        assert_eq!(throttle.failed(None), Ok(()));
    }

    #[test]
    fn the_memory_for_addresses_is_bounded() {
        let throttle = Throttle::default();
        let mut refused = 0;
        for n in 0..u32::try_from(MAX_ADDRESSES).unwrap() + 100 {
            let from = IpAddr::V4(Ipv4Addr::from_bits(0x0a00_0000 + n));
            refused += usize::from(throttle.failed(Some(from)).is_err());
        }
        assert_eq!((refused, throttle.tries.len()), (100, MAX_ADDRESSES));
    }
}
