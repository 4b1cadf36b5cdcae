//! Waiting messages, looked at without taking them.
//!
//! They are taken out and put back, as dead letters are (see `dead.rs`). A quorum queue delivers what it took back before all
//! else, in the order in which it came back: so a look has to take out at least all that was given back before, or those behind
//! it would go before it. [`OUT`] is more than consumers hold. Each look counts as a return of the message; one that has been
//! returned often is not looked at again, since too many returns tell of a message that stops its consumers.

use std::time::Duration;

use lapin::types::ShortString;
use tokio::time::Instant;

use super::Shared;
use super::headers::{self, Past};
use super::topology::key;
use crate::{BrokerError, Result, WaitingMessage};
use galerna_model::QueueName;

/// Messages taken out at once.
const OUT: u32 = 5_000;
/// For so long a queue whose messages came back often is not looked at again.
const REST: Duration = Duration::from_secs(600);

impl Shared {
    pub(super) async fn peek(&self, queue: &QueueName, limit: usize) -> Result<Vec<WaitingMessage>> {
        let attempted = format!("looking at the messages of queue `{queue}`");
        {
            let mut not_looked_at = self.not_looked_at.lock();
            not_looked_at.retain(|_, since| since.elapsed() < REST);
            if not_looked_at.contains_key(queue) {
                return Err(BrokerError::LookedAtTooOften(queue.clone()));
            }
        }
        let name: ShortString = key(queue);
        let (count, consumers) = self
            .topology
            .inspect(name.clone())
            .await
            .map_err(|fault| fault.into_error(&attempted, Some(queue)))?;
        if consumers > 0 {
            return Err(BrokerError::Consumed(queue.clone()));
        }
        if count == 0 || limit == 0 {
            return Ok(Vec::new());
        }
        let _turn = self.turn(&attempted).await?;
        let Some(mut scan) = self.scan(name, OUT, &attempted).await? else { return Ok(Vec::new()) };
        let mut found = Vec::new();
        let mut worn = false;
        while let Some(letter) = scan.next().await {
            let past = Past::of(&letter.properties, letter.redelivered);
            // Most of what makes it poison is left to its consumers.
            worn |= past.returns.saturating_add(1) > self.options.retry.max_returns / 4;
            if found.len() < limit {
                found.push(WaitingMessage {
                    deliveries: past.deliveries() - 1,
                    replays: headers::replays(&letter.properties),
                    message: headers::message(&letter.properties, letter.body),
                });
            }
        }
        self.put_back(scan, &attempted).await?;
        if worn {
            self.not_looked_at.lock().insert(queue.clone(), Instant::now());
        }
        Ok(found)
    }
}
