//! The memory of calls under way: of all together, and of each source or address alone, so that one that is slow, or means ill,
//! keeps nobody else out.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use galerna_http::network;
use galerna_lock::Mutex;
use galerna_model::SourceId;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::call_error::CallError;

/// What one permit of the budget stands for, in bytes.
const UNIT: usize = 1 << 10;

/// Who has a call under way.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Client {
    /// A source that has proved who it is.
    Source(SourceId),
    /// An address of callers who have not.
    Address(IpAddr),
}

impl Client {
    /// A caller who is not known yet. Callers whose address is not known, for a router served without one, count as one.
    pub(crate) fn address(peer: Option<IpAddr>) -> Self {
        Self::Address(peer.map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), network))
    }

    fn word(&self) -> &'static str {
        match self {
            Self::Source(_) => "source",
            Self::Address(_) => "address",
        }
    }
}

/// What a client may have at once.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Quota {
    pub(crate) bytes: usize,
    pub(crate) calls: usize,
}

/// The bytes that all calls under way may hold together. Clones are the same budget.
#[derive(Debug, Clone)]
pub(crate) struct Budget {
    units: Arc<Semaphore>,
    all: usize,
    each: Arc<Each>,
}

#[derive(Debug)]
struct Each {
    units: usize,
    calls: usize,
    /// Of those with calls under way, so there are never more of them than calls.
    by_client: Mutex<HashMap<Client, Usage>>,
}

#[derive(Debug, Default)]
struct Usage {
    units: usize,
    calls: usize,
}

impl Budget {
    pub(crate) fn new(bytes: usize, each: Quota) -> Self {
        let all = bytes.div_ceil(UNIT).min(Semaphore::MAX_PERMITS);
        let each = Each { units: each.bytes.div_ceil(UNIT), calls: each.calls, by_client: Mutex::default() };
        Self { units: Arc::new(Semaphore::new(all)), all, each: Arc::new(each) }
    }

    /// Bytes held now.
    pub(crate) fn held(&self) -> usize {
        (self.all - self.units.available_permits()) * UNIT
    }

    /// Begins a call, which holds nothing yet.
    pub(crate) fn call(&self, client: Client) -> Result<Share, CallError> {
        let mut by_client = self.each.by_client.lock();
        let usage = by_client.entry(client.clone()).or_default();
        if usage.calls >= self.each.calls {
            return Err(CallError::TooMuchAtOnce(client.word()));
        }
        usage.calls += 1;
        drop(by_client);
        Ok(Share { budget: self.clone(), client, permit: None })
    }
}

/// What a call holds of the budget, given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Share {
    budget: Budget,
    client: Client,
    permit: Option<OwnedSemaphorePermit>,
}

impl Share {
    fn units(&self) -> usize {
        self.permit.as_ref().map_or(0, OwnedSemaphorePermit::num_permits)
    }

    /// Bytes held.
    pub(crate) fn bytes(&self) -> usize {
        self.units() * UNIT
    }

    /// Takes what is missing to hold so many bytes. Never waits: calls that wait for each other's memory would all hold theirs.
    pub(crate) fn hold(&mut self, bytes: usize) -> Result<(), CallError> {
        let missing = bytes.div_ceil(UNIT).saturating_sub(self.units());
        if missing == 0 {
            return Ok(());
        }
        let more = Arc::clone(&self.budget.units)
            .try_acquire_many_owned(u32::try_from(missing).unwrap_or(u32::MAX))
            .map_err(|_| CallError::Overloaded)?;
        let each = &self.budget.each;
        let mut by_client = each.by_client.lock();
        let usage = by_client.entry(self.client.clone()).or_default();
        if usage.units + missing > each.units {
            return Err(CallError::TooMuchAtOnce(self.client.word()));
        }
        usage.units += missing;
        drop(by_client);
        match &mut self.permit {
            Some(permit) => permit.merge(more),
            None => self.permit = Some(more),
        }
        Ok(())
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let units = self.units();
        if let Entry::Occupied(mut entry) = self.budget.each.by_client.lock().entry(self.client.clone()) {
            let usage = entry.get_mut();
            usage.units -= units;
            usage.calls -= 1;
            if usage.calls == 0 {
                entry.remove();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(id: &str) -> Client {
        Client::Source(SourceId::new(id).unwrap())
    }

    #[test]
    fn who_holds_its_share_is_told_so_and_others_go_on() {
        let budget = Budget::new(1 << 20, Quota { bytes: 256 << 10, calls: 3 });
        let (mut first, mut second) = (budget.call(source("a")).unwrap(), budget.call(source("a")).unwrap());
        assert_eq!(first.hold(200 << 10), Ok(()));
        assert_eq!(second.hold(56 << 10), Ok(()));
        assert_eq!(second.hold(57 << 10), Err(CallError::TooMuchAtOnce("source")));
        assert_eq!(budget.held(), 256 << 10, "what was refused is not held");
        for other in ["b", "c", "d"] {
            let mut share = budget.call(source(other)).unwrap();
            assert_eq!(share.hold(256 << 10), Ok(()), "{other}");
        }
        drop(first);
        assert_eq!(second.hold(256 << 10), Ok(()));
        assert_eq!(second.bytes(), 256 << 10);
        drop(second);
        assert_eq!(budget.held(), 0);
        assert!(budget.each.by_client.lock().is_empty(), "who has no call under way is forgotten");
    }

    #[test]
    fn all_together_hold_no_more_than_there_is_and_one_has_so_many_calls_under_way() {
        let budget = Budget::new(1 << 20, Quota { bytes: 512 << 10, calls: 2 });
        let mut shares: Vec<_> = ["a", "b"].map(|id| budget.call(source(id)).unwrap()).into();
        assert!(shares.iter_mut().all(|share| share.hold(512 << 10).is_ok()));
        let mut third = budget.call(source("c")).unwrap();
        assert_eq!(third.hold(1), Err(CallError::Overloaded));
        shares.push(budget.call(source("a")).unwrap());
        assert_eq!(budget.call(source("a")).unwrap_err(), CallError::TooMuchAtOnce("source"));
        shares.clear();
        assert_eq!(third.hold(1), Ok(()));
        assert!(budget.call(source("a")).is_ok());
    }

    #[test]
    fn addresses_of_one_network_are_one_client() {
        let of = |ip: &str| Client::address(Some(ip.parse().unwrap()));
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:2"));
        assert_ne!(of("10.0.0.1"), of("10.0.0.2"));
        assert_eq!(Client::address(None), Client::address(None));
    }
}
