//! What the spout has emitted and not heard the end of.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use super::Claim;

/// Messages in work, by lease: at most as many leases as there are lease tasks, and those that ended a short while ago.
///
/// The spout counts for itself, since the tasks hear of outcomes later: what it says of why it does not emit is true when it
/// says it.
#[derive(Default)]
pub(super) struct InWork {
    /// By the lease's address, which it keeps while it stands here.
    of: HashMap<usize, (Arc<Claim>, usize)>,
}

impl InWork {
    /// So many messages of this lease are in work from now on.
    pub(super) fn begin(&mut self, claim: &Arc<Claim>, messages: usize) {
        self.of.entry(address(claim)).or_insert_with(|| (claim.clone(), 0)).1 += messages;
    }

    /// So many of them have an outcome.
    pub(super) fn end(&mut self, claim: &Arc<Claim>, messages: usize) {
        if let Some((_, in_work)) = self.of.get_mut(&address(claim)) {
            *in_work = in_work.saturating_sub(messages);
            if *in_work == 0 {
                self.of.remove(&address(claim));
            }
        }
    }

    /// Whether a lease receives nothing more until messages in work have their outcome: all that it may have unsettled is
    /// in work, or it has had its share and ends when they are done. Its queue may hold any number of messages.
    pub(super) fn is_full(&self) -> bool {
        self.of.values().any(|(claim, in_work)| {
            claim.open.load(Relaxed) && (*in_work >= claim.prefetch || claim.shared_out.load(Relaxed))
        })
    }
}

fn address(claim: &Arc<Claim>) -> usize {
    Arc::as_ptr(claim) as usize
}

#[cfg(test)]
mod tests {
    use galerna_lock::Mutex;
    use std::sync::atomic::AtomicBool;

    use galerna_model::{AccountId, QueueName};
    use tokio::sync::mpsc;
    use tokio::time::Instant;

    use super::*;

    fn claim() -> Arc<Claim> {
        Arc::new(Claim {
            queue: QueueName::new("D1").unwrap(),
            account: AccountId::new("D1").unwrap(),
            epoch: 1,
            prefetch: 10,
            open: AtomicBool::new(true),
            shared_out: AtomicBool::new(false),
            stop_at: Mutex::new(Instant::now()),
            settle: mpsc::channel(1).0,
        })
    }

    #[test]
    fn a_lease_whose_prefetch_is_in_work_makes_the_spout_full() {
        let (busy, calm) = (claim(), claim());
        let mut in_work = InWork::default();
        assert!(!in_work.is_full(), "nothing is leased");
        in_work.begin(&calm, 3);
        in_work.begin(&busy, 6);
        assert!(!in_work.is_full(), "more may be received under both");
        in_work.begin(&busy, 4);
        assert!(in_work.is_full(), "the busy queue may have more");
        in_work.end(&busy, 1);
        assert!(!in_work.is_full(), "there is room for one");
    }

    #[test]
    fn a_lease_that_has_had_its_share_is_full_until_it_is_done_or_over() {
        let claim = claim();
        let mut in_work = InWork::default();
        in_work.begin(&claim, 2);
        claim.shared_out.store(true, Relaxed);
        assert!(in_work.is_full());
        in_work.end(&claim, 1);
        assert!(in_work.is_full());
        claim.open.store(false, Relaxed);
        assert!(!in_work.is_full(), "it ended for another reason: what is in work holds nothing back");
        claim.open.store(true, Relaxed);
        in_work.end(&claim, 1);
        assert!(!in_work.is_full());
        assert!(in_work.of.is_empty());
    }
}
