//! What the list of accounts asks of the queues: pure, no I/O.

use std::collections::{BTreeMap, BTreeSet};

use galerna_model::Account;
use galerna_model::QueueName;
use galerna_storage::{QueueRecord, QueueState};

use galerna_directory::{Issue, Listing};

/// When a list is too short to be believed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Guard {
    /// So many queues may go at once whatever their share, save by an empty list.
    pub may_lose: usize,
    /// The share of the known queues, 0 to 1, that must still be wanted.
    pub keep_ratio: f64,
}

impl Default for Guard {
    fn default() -> Self {
        Self { may_lose: 2, keep_ratio: 0.8 }
    }
}

/// A list that lost too much at once.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the accounts list keeps only {kept} of {known} known queues: nothing is flagged or deleted; \
     if the list is right, confirm it: `galerna maintainer run-once accounts --force`, or \
     `POST /tasks/accounts/run?force=true` to the process that runs the maintainer"
)]
pub struct Suspicion {
    /// Queues known and not flagged before.
    pub known: usize,
    /// How many of them the list keeps.
    pub kept: usize,
}

/// What is to be done to make the queues fit the list.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Plan {
    /// Active accounts with a queue of their own, whether or not it exists: their queues must be on the broker.
    pub(crate) wanted: BTreeMap<QueueName, Account>,
    /// Of those, queues without a record.
    pub(crate) create: Vec<QueueName>,
    /// Queues flagged before whose account is back.
    pub(crate) restore: Vec<QueueName>,
    /// Queues that no active account wants, with the reason, flagged before or not.
    pub(crate) gone: BTreeMap<QueueName, String>,
    /// Of those, the ones to be flagged now.
    pub(crate) flag: Vec<QueueName>,
    /// Entries that were not taken, by account. What they name is left as it is.
    pub(crate) issues: Vec<Issue>,
    /// Records that were not flagged before.
    pub(crate) known: usize,
    /// Whether the list had any entry, right or wrong.
    pub(crate) listed: bool,
}

impl Plan {
    /// Why the losses of this plan are not believed, if they are not.
    pub(crate) fn suspicion(&self, guard: &Guard) -> Option<Suspicion> {
        let kept = self.known - self.flag.len();
        // An empty list is not believed even when all that is known has been flagged before: flags wait, too.
        let empty = !self.listed && (self.known > 0 || !self.gone.is_empty());
        let short = self.flag.len() > guard.may_lose && (kept as f64) < guard.keep_ratio * self.known as f64;
        (empty || short).then_some(Suspicion { known: self.known, kept })
    }
}

/// Compares the list with the records.
///
/// Entries that are wrong, or contradict each other, are reported and *hold* what they name: the queues of such an
/// account are neither flagged nor created, since the list does not say what is to become of them.
pub(crate) fn plan(list: &Listing<Account>, records: &[QueueRecord]) -> Plan {
    let owners: BTreeMap<&QueueName, &QueueRecord> = records.iter().map(|r| (&r.queue, r)).collect();
    let mut plan = Plan {
        issues: list.issues.clone(),
        listed: !(list.entries.is_empty() && list.issues.is_empty()),
        ..Plan::default()
    };
    let mut unclear = Unclear::default();
    for issue in &list.issues {
        unclear.ids.extend(issue.id.as_deref().map(|id| id.trim().to_owned()));
        unclear.queues.extend(issue.queue.as_deref().map(|queue| queue.trim().to_owned()));
    }

    let mut by_id: BTreeMap<&str, Vec<&Account>> = BTreeMap::new();
    for account in &list.entries {
        let same = by_id.entry(account.id.as_str()).or_default();
        // The same entry twice says nothing new.
        if !same.contains(&account) {
            same.push(account);
        }
    }
    let mut by_queue: BTreeMap<&QueueName, Vec<&Account>> = BTreeMap::new();
    for entries in by_id.values() {
        if let [account] = entries[..] {
            match reserved(&account.queue) {
                Some(problem) if account.active => unclear.entry(account, problem, &mut plan.issues),
                _ if account.active => by_queue.entry(&account.queue).or_default().push(account),
                _ => {}
            }
        } else {
            for account in entries {
                let problem = "the list has this account more than once, with differing entries".to_owned();
                unclear.entry(account, problem, &mut plan.issues);
            }
        }
    }

    for (queue, claimants) in by_queue {
        let record = owners.get(queue);
        for account in &claimants {
            let owns = record.is_some_and(|r| r.account == account.id);
            if owns || (claimants.len() == 1 && record.is_none()) {
                plan.wanted.insert(queue.clone(), (*account).clone());
            } else if let Some(record) = record {
                // The record keeps its fate: it is not held for the sake of an account that does not own it.
                unclear.ids.insert(account.id.to_string());
                let problem =
                    format!("its queue `{queue}` belongs to account `{}` until that is gone", record.account);
                plan.issues.push(issue(account, problem));
            } else {
                let problem = format!("{} active accounts name the queue `{queue}`", claimants.len());
                unclear.entry(account, problem, &mut plan.issues);
            }
        }
    }
    plan.create = plan.wanted.keys().filter(|queue| !owners.contains_key(queue)).cloned().collect();

    for record in records {
        let flagged = record.state == QueueState::Deleting;
        plan.known += usize::from(!flagged);
        if plan.wanted.contains_key(&record.queue) {
            if flagged {
                plan.restore.push(record.queue.clone());
            }
        } else if !unclear.names(record) {
            let reason = match by_id.get(record.account.as_str()).map(|entries| entries[0]) {
                None => format!("account `{}` is no longer listed", record.account),
                Some(account) if !account.active => format!("account `{}` is deactivated", record.account),
                Some(account) => format!("account `{}` now uses queue `{}`", record.account, account.queue),
            };
            plan.gone.insert(record.queue.clone(), reason);
            if !flagged {
                plan.flag.push(record.queue.clone());
            }
        }
    }
    plan
}

/// What wrong entries name: the list does not say what is to become of it.
#[derive(Default)]
struct Unclear {
    ids: BTreeSet<String>,
    queues: BTreeSet<String>,
}

impl Unclear {
    fn entry(&mut self, account: &Account, problem: String, issues: &mut Vec<Issue>) {
        self.ids.insert(account.id.to_string());
        self.queues.insert(account.queue.to_string());
        issues.push(issue(account, problem));
    }

    fn names(&self, record: &QueueRecord) -> bool {
        self.ids.contains(record.account.as_str()) || self.queues.contains(record.queue.as_str())
    }
}

fn issue(account: &Account, problem: String) -> Issue {
    Issue { id: Some(account.id.to_string()), queue: Some(account.queue.to_string()), problem }
}

/// Names that the broker keeps for itself.
fn reserved(queue: &QueueName) -> Option<String> {
    let queue = queue.as_str();
    if queue.starts_with("amq.") {
        Some(format!("queue name `{queue}` starts with `amq.`, which the broker keeps for itself"))
    } else if queue.ends_with(".dead") {
        Some(format!("queue name `{queue}` ends with `.dead`, which is for dead letters"))
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use galerna_model::{AccountId, Timestamp};

    use super::*;

    fn account(id: &str, queue: &str, active: bool) -> Account {
        Account {
            id: AccountId::new(id).unwrap(),
            name: id.to_owned(),
            queue: QueueName::new(queue).unwrap(),
            active,
        }
    }

    fn record(queue: &str, account: &str, state: QueueState) -> QueueRecord {
        QueueRecord {
            state,
            ..QueueRecord::new(
                QueueName::new(queue).unwrap(),
                AccountId::new(account).unwrap(),
                Timestamp::default(),
            )
        }
    }

    /// `a:Qa` active, `a:Qa-` not, `!a:Qa` wrong.
    fn listing(text: &str) -> Listing<Account> {
        let mut list = Listing::default();
        for entry in text.split_whitespace() {
            let (id, queue) = entry.split_once(':').unwrap();
            if let Some(id) = id.strip_prefix('!') {
                let (id, queue) = (Some(id.to_owned()), Some(queue.to_owned()));
                list.issues.push(Issue { id, queue, problem: "wrong".to_owned() });
            } else {
                list.entries.push(account(id, queue.trim_end_matches('-'), !queue.ends_with('-')));
            }
        }
        list
    }

    /// `Qa=a` idle, `Qa=a!` flagged, `Qa=a|` paused.
    fn records(text: &str) -> Vec<QueueRecord> {
        text.split_whitespace()
            .map(|r| {
                let (queue, owner) = r.split_once('=').unwrap();
                let state = match owner.chars().last() {
                    Some('!') => QueueState::Deleting,
                    Some('|') => QueueState::Paused,
                    _ => QueueState::Idle,
                };
                record(queue, owner.trim_end_matches(['!', '|']), state)
            })
            .collect()
    }

    fn names(queues: &[QueueName]) -> String {
        queues.iter().map(QueueName::as_str).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn the_plan_makes_the_queues_fit_the_list() {
        // list, records -> create, restore, flag, accounts with issues
        let cases = [
            ("a new account gets a queue", "a:Qa", "", "Qa", "", "", ""),
            ("a known account keeps its queue", "a:Qa", "Qa=a", "", "", "", ""),
            ("an inactive account gets none", "a:Qa-", "", "", "", "", ""),
            ("a deactivated account's queue is flagged", "a:Qa- b:Qb", "Qa=a Qb=b", "", "", "Qa", ""),
            ("so is that of one no longer listed", "b:Qb", "Qa=a Qb=b", "", "", "Qa", ""),
            ("a paused queue is flagged, too", "b:Qb", "Qa=a| Qb=b", "", "", "Qa", ""),
            ("a queue is flagged once", "b:Qb", "Qa=a! Qb=b", "", "", "", ""),
            ("an account that comes back is un-flagged", "a:Qa", "Qa=a!", "", "Qa", "", ""),
            ("an account may move to another queue", "a:Q2", "Q1=a", "Q2", "", "Q1", ""),
            ("a wrong entry holds its queue by account", "!a:x b:Qb", "Qa=a Qb=b", "", "", "", "a"),
            ("a wrong entry holds its queue by name", "!x:Qa b:Qb", "Qa=a Qb=b", "", "", "", "x"),
            ("the same entry twice is one", "a:Qa a:Qa", "", "Qa", "", "", ""),
            ("an account twice with two queues is held", "a:Q1 a:Q2 b:Qb", "Q1=a", "Qb", "", "", "a a"),
            ("an account both active and not is held", "a:Q1 a:Q1-", "Q1=a", "", "", "", "a a"),
            ("a queue named by two is created for none", "a:Q b:Q c:Qc", "", "Qc", "", "", "a b"),
            ("a queue named by two stays its owner's", "a:Q b:Q", "Q=a", "", "", "", "b"),
            ("an inactive namesake does no harm", "a:Q b:Q-", "", "Q", "", "", ""),
            ("a queue handed over is freed first", "a:Q- b:Q", "Q=a", "", "", "Q", "b"),
            ("and waits while it is flagged", "b:Q", "Q=a!", "", "", "", "b"),
            ("an account that waits keeps its old queue", "b:Q", "Q=a! Q0=b", "", "", "", "b"),
            ("names of the broker are refused", "a:amq.x b:Qb.dead c:Qc", "", "Qc", "", "", "a b"),
        ];
        for (sentence, list, have, create, restore, flag, issues) in cases {
            let plan = plan(&listing(list), &records(have));
            assert_eq!(names(&plan.create), create, "{sentence}: create");
            assert_eq!(names(&plan.restore), restore, "{sentence}: restore");
            assert_eq!(names(&plan.flag), flag, "{sentence}: flag");
            let mut found: Vec<_> = plan.issues.iter().filter_map(|i| i.id.as_deref()).collect();
            found.sort_unstable();
            assert_eq!(found.join(" "), issues, "{sentence}: issues");
        }
    }

    #[test]
    fn the_reason_says_why_a_queue_is_gone() {
        let plan = plan(&listing("a:Qa- b:Q2"), &records("Qa=a Q1=b Qc=c"));
        let reasons: Vec<_> = plan.gone.iter().map(|(q, r)| (q.as_str(), r.as_str())).collect();
        assert_eq!(
            reasons,
            [
                ("Q1", "account `b` now uses queue `Q2`"),
                ("Qa", "account `a` is deactivated"),
                ("Qc", "account `c` is no longer listed"),
            ]
        );
    }

    #[test]
    fn a_list_that_lost_too_much_is_not_believed() {
        let guard = Guard::default();
        let many = |n: usize| (0..n).map(|i| format!("a{i}:Q{i} ")).collect::<String>();
        let have = |n: usize| (0..n).map(|i| format!("Q{i}=a{i} ")).collect::<String>();
        // listed, known -> believed
        let cases = [
            (100, 100, true),
            (80, 100, true),
            (79, 100, false),
            (50, 100, false),
            (0, 100, false),
            (1, 10, false),
            (8, 10, true),
            (7, 10, false),
            (1, 3, true),
            (1, 4, false),
            (0, 10, false),
            (0, 1, false),
            (8, 11, false),
            (9, 11, true),
            (0, 0, true),
        ];
        for (listed, known, believed) in cases {
            let plan = plan(&listing(&many(listed)), &records(&have(known)));
            assert_eq!(plan.suspicion(&guard).is_none(), believed, "{listed} listed of {known}");
        }
        // Deactivated is lost as much as missing; held by a wrong entry is not lost.
        let inactive =
            (0..100).map(|i| format!("a{i}:Q{i}{} ", if i < 50 { "-" } else { "" })).collect::<String>();
        assert!(plan(&listing(&inactive), &records(&have(100))).suspicion(&guard).is_some());
        let wrong =
            (0..100).map(|i| format!("{}a{i}:Q{i} ", if i < 50 { "!" } else { "" })).collect::<String>();
        assert!(plan(&listing(&wrong), &records(&have(100))).suspicion(&guard).is_none());
        // An empty list deletes not even what was flagged before.
        assert!(plan(&listing(""), &records("Q=a!")).suspicion(&guard).is_some());
    }
}
