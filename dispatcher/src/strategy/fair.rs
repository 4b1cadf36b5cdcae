//! `fair`: weighted deficit round robin over accounts, those that wait longest first within a round.
//!
//! Deficit round robin (Shreedhar and Varghese, 1995) gives each account a quantum per round and serves it while its
//! deficit lasts. Turning the wheel past accounts that are deep in debt costs a step per account and round; here an
//! account instead carries the point at which its debt will have been paid, and the accounts stand in the order of that
//! round: the same turns, found in logarithmic time, and no empty rounds are walked.
//!
//! A lease costs one quantum when it is given, and, once it is known how long it was held, the time held beyond it.
//! An account pays its debt `weight` times as fast. No credit is saved while an account has nothing to lease, and a debt
//! is bounded, so every account's turn comes after a bounded number of rounds.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use super::{Candidate, Strategy};

/// Time held that one turn pays for.
const QUANTUM: Duration = Duration::from_secs(1);
/// A round, in the units of [`Account::due`]: fine enough for weights up to 1,000.
const ROUND: u64 = 1_000;
/// The longest an account has to sit out after one lease, in rounds of weight 1.
const MAX_DEBT: u64 = 32;

struct Account {
    weight: u64,
    /// The point, in fractions of rounds, from which it may be served.
    due: u64,
    /// Its queues that can be leased, the longest waiting first.
    queues: BTreeSet<(u64, u32)>,
    /// Its key in the ring while it has queues.
    key: Option<(u64, u64)>,
}

#[derive(Default)]
pub(super) struct Fair {
    accounts: HashMap<u32, Account>,
    /// (round, waiting since, account): the first is served next.
    ring: BTreeSet<(u64, u64, u32)>,
    /// By queue: its account and since when it waits.
    places: HashMap<u32, (u32, u64)>,
    round: u64,
}

impl Fair {
    /// Puts the account where it belongs in the ring, or takes it out when it has no queue.
    fn settle(&mut self, id: u32) {
        let Some(account) = self.accounts.get_mut(&id) else { return };
        if let Some((round, since)) = account.key.take() {
            self.ring.remove(&(round, since, id));
        }
        if let Some(&(since, _)) = account.queues.first() {
            account.due = account.due.max(self.round * ROUND);
            let key = (account.due / ROUND, since);
            account.key = Some(key);
            self.ring.insert((key.0, key.1, id));
        }
    }
}

impl Strategy for Fair {
    fn insert(&mut self, c: Candidate) {
        self.remove(c.queue);
        self.places.insert(c.queue, (c.account, c.waiting));
        let account = self.accounts.entry(c.account).or_insert_with(|| Account {
            weight: 1,
            due: 0,
            queues: BTreeSet::new(),
            key: None,
        });
        account.weight = u64::from(c.weight).clamp(1, ROUND);
        account.queues.insert((c.waiting, c.queue));
        self.settle(c.account);
    }

    fn remove(&mut self, queue: u32) {
        if let Some((id, waiting)) = self.places.remove(&queue) {
            if let Some(account) = self.accounts.get_mut(&id) {
                account.queues.remove(&(waiting, queue));
            }
            self.settle(id);
        }
    }

    fn take(&mut self, spread: usize) -> Option<u32> {
        let nth = fastrand::usize(..spread.clamp(1, self.ring.len().max(1)));
        let &(round, _, id) = self.ring.iter().nth(nth)?;
        if nth == 0 {
            self.round = self.round.max(round);
        }
        let account = self.accounts.get_mut(&id)?;
        let (_, queue) = account.queues.pop_first()?;
        account.due += ROUND / account.weight;
        self.places.remove(&queue);
        self.settle(id);
        Some(queue)
    }

    fn charge(&mut self, id: u32, held: Duration) {
        let beyond = held.saturating_sub(QUANTUM).as_millis();
        let rounds = u64::try_from(beyond).unwrap_or(u64::MAX).saturating_mul(ROUND) / 1_000;
        if let Some(account) = self.accounts.get_mut(&id) {
            let latest = (self.round + MAX_DEBT) * ROUND;
            let due = account.due.max(self.round * ROUND);
            account.due = due.saturating_add(rounds / account.weight).min(latest.max(due));
            self.settle(id);
        }
    }

    fn len(&self) -> usize {
        self.places.len()
    }
}
