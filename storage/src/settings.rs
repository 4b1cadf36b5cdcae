//! Settings that several processes share and that survive restarts.

use async_trait::async_trait;

use crate::Result;

/// Store of small named JSON values (for instance whether the dispatcher runs, and its strategy).
#[async_trait]
pub trait Settings: Send + Sync + 'static {
    /// The value of a key.
    async fn get(&self, key: &str) -> Result<Option<serde_json::Value>>;
    /// Sets the value of a key, durable.
    async fn put(&self, key: &str, value: &serde_json::Value) -> Result<()>;
}
