//! The memory of calls under way: of all together, and of each source or address alone, so that one that is slow, or means ill,
//! keeps nobody else out.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use galerna_http::network;
use galerna_model::SourceId;
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::refusal::Refusal;

/// What one permit of the budget stands for, in bytes.
const UNIT: usize = 1 << 10;

/// Who has a call under way.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Holder {
    /// A source that has proved who it is.
    Source(SourceId),
    /// An address of callers who have not.
    Address(IpAddr),
}

impl Holder {
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

/// What a holder may have at once.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Most {
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
    holdings: Mutex<HashMap<Holder, Holding>>,
}

#[derive(Debug, Default)]
struct Holding {
    units: usize,
    calls: usize,
}

impl Budget {
    pub(crate) fn new(bytes: usize, each: Most) -> Self {
        let all = bytes.div_ceil(UNIT).min(Semaphore::MAX_PERMITS);
        let each = Each { units: each.bytes.div_ceil(UNIT), calls: each.calls, holdings: Mutex::default() };
        Self { units: Arc::new(Semaphore::new(all)), all, each: Arc::new(each) }
    }

    /// Bytes held now.
    pub(crate) fn held(&self) -> usize {
        (self.all - self.units.available_permits()) * UNIT
    }

    /// Begins a call, which holds nothing yet.
    pub(crate) fn call(&self, holder: Holder) -> Result<Share, Refusal> {
        let mut holdings = self.each.holdings.lock();
        let holding = holdings.entry(holder.clone()).or_default();
        if holding.calls >= self.each.calls {
            return Err(Refusal::TooMuchAtOnce(holder.word()));
        }
        holding.calls += 1;
        drop(holdings);
        Ok(Share { budget: self.clone(), holder, permit: None })
    }
}

/// What a call holds of the budget, given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Share {
    budget: Budget,
    holder: Holder,
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
    pub(crate) fn hold(&mut self, bytes: usize) -> Result<(), Refusal> {
        let missing = bytes.div_ceil(UNIT).saturating_sub(self.units());
        if missing == 0 {
            return Ok(());
        }
        let more = Arc::clone(&self.budget.units)
            .try_acquire_many_owned(u32::try_from(missing).unwrap_or(u32::MAX))
            .map_err(|_| Refusal::Overloaded)?;
        let each = &self.budget.each;
        let mut holdings = each.holdings.lock();
        let holding = holdings.entry(self.holder.clone()).or_default();
        if holding.units + missing > each.units {
            return Err(Refusal::TooMuchAtOnce(self.holder.word()));
        }
        holding.units += missing;
        drop(holdings);
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
        if let Entry::Occupied(mut entry) = self.budget.each.holdings.lock().entry(self.holder.clone()) {
            let holding = entry.get_mut();
            holding.units -= units;
            holding.calls -= 1;
            if holding.calls == 0 {
                entry.remove();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(id: &str) -> Holder {
        Holder::Source(SourceId::new(id).unwrap())
    }

    #[test]
    fn who_holds_its_share_is_told_so_and_others_go_on() {
        let budget = Budget::new(1 << 20, Most { bytes: 256 << 10, calls: 3 });
        let (mut first, mut second) = (budget.call(source("a")).unwrap(), budget.call(source("a")).unwrap());
        assert_eq!(first.hold(200 << 10), Ok(()));
        assert_eq!(second.hold(56 << 10), Ok(()));
        assert_eq!(second.hold(57 << 10), Err(Refusal::TooMuchAtOnce("source")));
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
        assert!(budget.each.holdings.lock().is_empty(), "who has no call under way is forgotten");
    }

    #[test]
    fn all_together_hold_no_more_than_there_is_and_one_has_so_many_calls_under_way() {
        let budget = Budget::new(1 << 20, Most { bytes: 512 << 10, calls: 2 });
        let mut shares: Vec<_> = ["a", "b"].map(|id| budget.call(source(id)).unwrap()).into();
        assert!(shares.iter_mut().all(|share| share.hold(512 << 10).is_ok()));
        let mut third = budget.call(source("c")).unwrap();
        assert_eq!(third.hold(1), Err(Refusal::Overloaded));
        shares.push(budget.call(source("a")).unwrap());
        assert_eq!(budget.call(source("a")).unwrap_err(), Refusal::TooMuchAtOnce("source"));
        shares.clear();
        assert_eq!(third.hold(1), Ok(()));
        assert!(budget.call(source("a")).is_ok());
    }

    #[test]
    fn addresses_of_one_network_are_one_holder() {
        let of = |ip: &str| Holder::address(Some(ip.parse().unwrap()));
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:2"));
        assert_ne!(of("10.0.0.1"), of("10.0.0.2"));
        assert_eq!(Holder::address(None), Holder::address(None));
    }
}
