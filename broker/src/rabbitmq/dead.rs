//! Dead letters: `<queue>.dead`, looked through without changing it.
//!
//! AMQP has no way to look into a queue. So everything that is ready is taken on a channel of its own, and what is not
//! to go is put back; a queue takes messages back in the order in which they were, as long as all of them were out.
//! At most 65,535 can be out, which bounds what a look reaches.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use lapin::options::{BasicAckOptions, BasicConsumeOptions, BasicNackOptions, BasicQosOptions};
use lapin::types::{FieldTable, ShortString};
use lapin::{BasicProperties, Channel};
use tokio::time::{Instant, timeout};

use super::Shared;
use super::fault::{Fault, within};
use super::headers;
use super::publisher::Outgoing;
use super::topology::{InspectError, dead_queue, key};
use crate::{DeadLetter, DeadLetterSelection, Result};
use galerna_model::QueueName;

/// How long the next dead letter is waited for; another process may have it out.
const NEXT: Duration = Duration::from_secs(2);
/// How often dead letters that are there and cannot be taken out are tried for, and the pause, which grows.
const TRIES: u32 = 8;
const PAUSE: Duration = Duration::from_millis(10);
/// Dead letters replayed in one confirmed window.
const WINDOW: usize = 500;

/// Messages out of their queue.
pub(super) struct Scan {
    queue: ShortString,
    channel: Channel,
    letters: lapin::Consumer,
    left: u32,
    count: u32,
    last: u64,
    removed: u32,
}

pub(super) struct Letter {
    tag: u64,
    pub(super) properties: BasicProperties,
    pub(super) body: Bytes,
    pub(super) redelivered: bool,
}

impl Shared {
    /// Takes up to `most` messages of a queue out; none when it holds none.
    pub(super) async fn scan(&self, queue: ShortString, most: u32, attempted: &str) -> Result<Option<Scan>> {
        let mut tries = 1;
        loop {
            match self.take_out(&queue, most, attempted).await {
                // The queue has just been seen: this is the late answer to a look from before it was made.
                Err(InspectError::Fault(fault)) if fault.not_found() && tries < TRIES => {
                    tokio::time::sleep(PAUSE * tries).await;
                    tries += 1;
                }
                taken => return taken.map_err(|fault| fault.into_error(attempted, None)),
            }
        }
    }

    async fn take_out(
        &self,
        queue: &ShortString,
        most: u32,
        attempted: &str,
    ) -> Result<Option<Scan>, InspectError> {
        let (count, _) = match self.topology.inspect(queue.clone()).await {
            Ok(found) => found,
            Err(fault) if fault.not_found() => return Ok(None),
            Err(fault) => return Err(fault),
        };
        if count == 0 {
            return Ok(None);
        }
        let out = u16::try_from(count.min(most)).unwrap_or(u16::MAX);
        let channel = self.topology.link.channel(attempted).await.map_err(InspectError::Unavailable)?;
        let calls = async {
            channel.basic_qos(out, BasicQosOptions::default()).await?;
            let options = BasicConsumeOptions::default();
            channel.basic_consume(queue.clone(), "".into(), options, FieldTable::default()).await
        };
        let letters = within(self.options.timeouts.rpc, calls).await.map_err(InspectError::Fault)?;
        Ok(Some(Scan {
            queue: queue.clone(),
            channel,
            letters,
            left: out.into(),
            count,
            last: 0,
            removed: 0,
        }))
    }

    /// Puts back what has not been removed, and waits until the queue has it.
    pub(super) async fn put_back(&self, scan: Scan, attempted: &str) -> Result<()> {
        let limit = self.options.timeouts.rpc;
        let back = BasicNackOptions { multiple: true, requeue: true };
        let calls = async {
            // 0 means all that are out, and is no error when there are none.
            scan.channel.basic_nack(0, back).await?;
            scan.channel.close(200, "done".into()).await
        };
        within(limit, calls).await.map_err(|fault| fault.into_error(attempted, None))?;
        // The queue takes them back in its own time, and the next look must find them.
        let deadline = Instant::now() + NEXT;
        while Instant::now() < deadline {
            match self.topology.inspect(scan.queue.clone()).await {
                Ok((count, _)) if count < scan.count - scan.removed => {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                _ => break,
            }
        }
        Ok(())
    }

    pub(super) async fn list_dead(
        &self,
        queue: &QueueName,
        offset: usize,
        limit: usize,
    ) -> Result<Vec<DeadLetter>> {
        let attempted = format!("listing the dead letters of queue `{queue}`");
        let _turn = self.turn(&attempted).await?;
        let Some(mut scan) = self.scan(dead_queue(queue), u32::MAX, &attempted).await? else {
            return Ok(Vec::new());
        };
        // The oldest ones that the page needs, by id, which begins with the time.
        let wanted = offset.saturating_add(limit);
        let mut oldest = BTreeMap::new();
        while let Some(letter) = scan.next().await {
            let letter = headers::dead_letter(&letter.properties, letter.body);
            oldest.insert((letter.at, letter.id.clone(), scan.last), letter);
            if oldest.len() > wanted {
                oldest.pop_last();
            }
        }
        self.put_back(scan, &attempted).await?;
        Ok(oldest.into_values().skip(offset).collect())
    }

    /// Replays or discards; returns how many.
    pub(super) async fn end_dead(
        &self,
        queue: &QueueName,
        which: &DeadLetterSelection,
        replay: bool,
    ) -> Result<usize> {
        let verb = if replay { "replaying" } else { "discarding" };
        let attempted = format!("{verb} dead letters of queue `{queue}`");
        let _turn = self.turn(&attempted).await?;
        let Some(mut scan) = self.scan(dead_queue(queue), u32::MAX, &attempted).await? else { return Ok(0) };
        let ids: Option<HashSet<&str>> = match which {
            DeadLetterSelection::All => None,
            DeadLetterSelection::Ids(ids) => Some(ids.iter().map(String::as_str).collect()),
        };
        let mut ended = 0;
        let mut window = Vec::new();
        let mut result = Ok(());
        loop {
            let next = scan.next().await;
            let dry = next.is_none();
            if let Some(letter) = next
                && ids
                    .as_ref()
                    .is_none_or(|ids| ids.contains(&*headers::dead_id(&letter.properties, &letter.body)))
            {
                window.push(letter);
            }
            if window.len() >= WINDOW || (dry && !window.is_empty()) {
                match self
                    .end_window(queue, &scan.channel, std::mem::take(&mut window), replay, &attempted)
                    .await
                {
                    Ok(count) => {
                        ended += count;
                        scan.removed += u32::try_from(count).unwrap_or(u32::MAX);
                    }
                    Err(e) => {
                        result = Err(e);
                        break;
                    }
                }
            }
            if dry {
                break;
            }
        }
        self.put_back(scan, &attempted).await?;
        result.map(|()| ended)
    }

    async fn end_window(
        &self,
        queue: &QueueName,
        channel: &Channel,
        letters: Vec<Letter>,
        replay: bool,
        attempted: &str,
    ) -> Result<usize> {
        if replay {
            let window: Vec<Outgoing> = letters
                .iter()
                .map(|letter| Outgoing {
                    exchange: ShortString::default(),
                    key: key(queue),
                    body: letter.body.clone(),
                    properties: headers::of_replay(&letter.properties),
                })
                .collect();
            self.publisher.publish(window).await.into_result()?;
        }
        // Only now that the copies are safe.
        let acks = letters.iter().map(|letter| channel.basic_ack(letter.tag, BasicAckOptions::default()));
        within(self.options.timeouts.rpc, futures_util::future::try_join_all(acks))
            .await
            .map_err(|fault| fault.into_error(attempted, None))?;
        Ok(letters.len())
    }

    /// Two looks at once would each see a part.
    pub(super) async fn turn(&self, attempted: &str) -> Result<tokio::sync::SemaphorePermit<'_>> {
        let limit = self.options.timeouts.confirm;
        match timeout(limit, self.scanning.acquire()).await {
            Ok(Ok(turn)) => Ok(turn),
            _ => Err(Fault::Late(limit).into_error(attempted, None)),
        }
    }
}

impl Scan {
    pub(super) async fn next(&mut self) -> Option<Letter> {
        if self.left == 0 {
            return None;
        }
        let delivery = timeout(NEXT, self.letters.next()).await.ok()??.ok()?;
        self.left -= 1;
        self.last = delivery.delivery_tag;
        Some(Letter {
            tag: delivery.delivery_tag,
            redelivered: delivery.redelivered,
            properties: delivery.properties,
            body: delivery.data.into(),
        })
    }
}
