//! The stores of alert rules, of what each rule knows of each device, and of the events that came of it.

use async_trait::async_trait;
use galerna_model::{AccountId, AlertEvent, AlertEventKind, AlertState, Rule};

use crate::Result;

/// Store of alert rules.
#[async_trait]
pub trait Rules: Send + Sync + 'static {
    /// All rules, by id.
    async fn list(&self) -> Result<Vec<Rule>>;
    /// Creates or replaces a rule.
    async fn put(&self, rule: &Rule) -> Result<()>;
    /// Deletes a rule and its states; false when there was none. States that fire stay, without their rule: whoever
    /// evaluates the rules finds them by [`AlertStates::firing`], tells that they have ended and why, and
    /// [clears](AlertStates::clear) them.
    async fn delete(&self, id: &str) -> Result<bool>;
}

/// Store of alert states and events.
#[async_trait]
pub trait AlertStates: Send + Sync + 'static {
    /// The states of all rules for the devices of one account.
    async fn load(&self, account: &AccountId) -> Result<Vec<AlertState>>;
    /// The states that fire, of all accounts, those that began last first; at most `limit`.
    async fn firing(&self, limit: usize) -> Result<Vec<AlertState>>;
    /// The accounts that there are states of, by id.
    async fn accounts(&self) -> Result<Vec<AccountId>>;
    /// Deletes all states of a rule.
    async fn clear(&self, rule: &str) -> Result<()>;
    /// Stores states, each replacing the one of its (rule, source, device) unless that has a later `last_seen`.
    async fn save(&self, states: &[AlertState]) -> Result<()>;
    /// Records events; those whose id is known are left. Returns how many were new.
    async fn record(&self, events: &[AlertEvent]) -> Result<usize>;
    /// Events, newest first.
    async fn events(
        &self,
        account: Option<&AccountId>,
        offset: usize,
        limit: usize,
    ) -> Result<Vec<AlertEvent>>;
    /// How many events of a kind there are.
    async fn count(&self, kind: AlertEventKind) -> Result<u64>;
}
