//! The accounts of this process: their tokens, and whether servers take them.

use std::collections::BTreeMap;
use std::time::Duration;

use galerna_lock::Mutex;
use galerna_model::Timestamp;
use serde::Serialize;
use tokio::sync::watch;

use crate::channel::Account;
use crate::length::LengthLimits;
use crate::meter::Meter;
use crate::network::{Network, NetworkError};

/// What an account is known by on its server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    /// Its id there.
    pub id: String,
    /// How long its statuses may be.
    pub limits: LengthLimits,
}

#[derive(Debug)]
struct Entry {
    account: Account,
    /// Grows when the token is replaced.
    version: u64,
    /// Why the server refuses the token.
    revoked: Option<String>,
    limited_until: Option<Timestamp>,
    known: Option<Known>,
    sent: u64,
    refused: u64,
    failures: u64,
    rate: Meter,
    last_error: Option<String>,
}

/// How an account does, for people.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct AccountView {
    /// Its name here.
    pub name: String,
    /// Its server.
    pub server: String,
    /// `ok`, `limited` or `revoked`.
    pub state: &'static str,
    /// Until when the server wants no further post.
    pub limited_until: Option<Timestamp>,
    /// What went wrong last.
    pub last_error: Option<String>,
    /// Posts since the start.
    pub sent: u64,
    /// Posts that the server refused since the start.
    pub refused: u64,
    /// Attempts that failed since the start, and were made again.
    pub failures: u64,
    /// Posts in the last minute.
    pub per_minute: u64,
}

/// All accounts.
#[derive(Debug)]
pub struct Accounts {
    entries: Mutex<BTreeMap<String, Entry>>,
    changes: watch::Sender<u64>,
}

impl Accounts {
    /// These accounts.
    pub fn new(accounts: Vec<Account>) -> Self {
        let all = Self { entries: Mutex::default(), changes: watch::Sender::new(0) };
        accounts.into_iter().for_each(|account| all.put(account));
        all
    }

    /// Adds an account, or replaces its token: whoever waits for one goes on.
    pub fn put(&self, account: Account) {
        let mut entries = self.entries.lock();
        match entries.get_mut(&account.name) {
            Some(entry) => {
                entry.account = account;
                entry.version += 1;
                entry.revoked = None;
                entry.limited_until = None;
                entry.known = None;
            }
            None => {
                let entry = Entry {
                    account,
                    version: 0,
                    revoked: None,
                    limited_until: None,
                    known: None,
                    sent: 0,
                    refused: 0,
                    failures: 0,
                    rate: Meter::default(),
                    last_error: None,
                };
                entries.insert(entry.account.name.clone(), entry);
            }
        }
        drop(entries);
        self.changes.send_modify(|changes| *changes += 1);
    }

    /// The account by this name.
    pub fn get(&self, name: &str) -> Option<Account> {
        self.entries.lock().get(name).map(|entry| entry.account.clone())
    }

    /// The account with the version of its token, once the server does not refuse it: waits for another token if it does. None if
    /// there is no such account.
    pub async fn usable(&self, name: &str) -> Option<(Account, u64)> {
        let mut changes = self.changes.subscribe();
        loop {
            changes.mark_unchanged();
            {
                let entries = self.entries.lock();
                let entry = entries.get(name)?;
                if entry.revoked.is_none() {
                    return Some((entry.account.clone(), entry.version));
                }
            }
            changes.changed().await.ok()?;
        }
    }

    /// The server refuses the token of this version. Whether that is news.
    pub fn revoke(&self, name: &str, version: u64, message: &str) -> bool {
        let mut entries = self.entries.lock();
        let Some(entry) = entries.get_mut(name).filter(|entry| entry.version == version) else {
            return false;
        };
        entry.last_error = Some(message.to_owned());
        entry.revoked.replace(message.to_owned()).is_none()
    }

    /// The server wants no further post until then. Whether that is news.
    pub fn limit(&self, name: &str, until: Option<Timestamp>) -> bool {
        let mut entries = self.entries.lock();
        entries
            .get_mut(name)
            .is_some_and(|entry| std::mem::replace(&mut entry.limited_until, until).is_none())
    }

    /// Counts a post.
    pub fn count_sent(&self, name: &str) {
        if let Some(entry) = self.entries.lock().get_mut(name) {
            entry.sent += 1;
            entry.rate.add(1);
        }
    }

    /// Counts a post that was refused.
    pub fn count_refused(&self, name: &str, reason: &str) {
        if let Some(entry) = self.entries.lock().get_mut(name) {
            entry.refused += 1;
            entry.last_error = Some(reason.to_owned());
        }
    }

    /// Counts an attempt that failed and is made again.
    pub fn count_failure(&self, name: &str, reason: &str) {
        if let Some(entry) = self.entries.lock().get_mut(name) {
            entry.failures += 1;
            entry.last_error = Some(reason.to_owned());
        }
    }

    /// What the account is known by on its server, which is asked once.
    ///
    /// # Errors
    /// What the server says.
    pub async fn known(&self, network: &dyn Network, account: &Account) -> Result<Known, NetworkError> {
        let known = self.entries.lock().get(&account.name).and_then(|entry| entry.known.clone());
        if let Some(known) = known {
            return Ok(known);
        }
        let known =
            Known { id: network.whoami(account).await?.id, limits: network.length_limits(account).await? };
        if let Some(entry) =
            self.entries.lock().get_mut(&account.name).filter(|entry| entry.account == *account)
        {
            entry.known = Some(known.clone());
        }
        Ok(known)
    }

    /// All accounts, by their names.
    pub fn view(&self) -> Vec<AccountView> {
        let view = |entry: &mut Entry| AccountView {
            name: entry.account.name.clone(),
            server: entry.account.server.clone(),
            state: match (&entry.revoked, entry.limited_until) {
                (Some(_), _) => "revoked",
                (None, Some(_)) => "limited",
                (None, None) => "ok",
            },
            limited_until: entry.limited_until,
            last_error: entry.last_error.clone(),
            sent: entry.sent,
            refused: entry.refused,
            failures: entry.failures,
            per_minute: entry.rate.last_minute(),
        };
        self.entries.lock().values_mut().map(view).collect()
    }
}

/// A limit that is worth telling people.
pub const LONG_LIMIT: Duration = Duration::from_secs(600);
