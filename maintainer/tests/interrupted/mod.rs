//! A real broker of which one kind of call never comes back: as if the process died there.
#![allow(dead_code)] // each test binary uses a part of it

use std::sync::Arc;

use async_trait::async_trait;
use galerna_broker::{
    Broker, Consumer, DeadLetter, DeadLetterSelection, DeleteWhen, Deleted, Depth, NewDeadLetter, Result,
    WaitingMessage,
};
use galerna_model::{Message, QueueName};

/// Where the call is cut off.
#[derive(Debug, Clone, Copy)]
pub(crate) enum When {
    /// Before it took effect.
    Before,
    /// After it took effect.
    After,
}

pub(crate) struct Interrupted {
    broker: Arc<dyn Broker>,
    deletions: Option<When>,
    depths: bool,
}

impl Interrupted {
    /// Deletions do not come back.
    pub(crate) fn deletions(broker: Arc<dyn Broker>, when: When) -> Self {
        Self { broker, deletions: Some(when), depths: false }
    }

    /// The list of queues does not come.
    pub(crate) fn depths(broker: Arc<dyn Broker>) -> Self {
        Self { broker, deletions: None, depths: true }
    }
}

#[async_trait]
impl Broker for Interrupted {
    fn kind(&self) -> &'static str {
        self.broker.kind()
    }

    async fn declare(&self, queue: &QueueName) -> Result<()> {
        self.broker.declare(queue).await
    }

    async fn delete(&self, queue: &QueueName, when: DeleteWhen) -> Result<Deleted> {
        match self.deletions {
            None => return self.broker.delete(queue, when).await,
            Some(When::Before) => {}
            Some(When::After) => drop(self.broker.delete(queue, when).await?),
        }
        std::future::pending().await
    }

    async fn publish(&self, window: Vec<(QueueName, Message)>) -> Result<()> {
        self.broker.publish(window).await
    }

    async fn consume(&self, queue: &QueueName, prefetch: u16) -> Result<Box<dyn Consumer>> {
        self.broker.consume(queue, prefetch).await
    }

    async fn depth(&self, queue: &QueueName) -> Result<Depth> {
        self.broker.depth(queue).await
    }

    async fn depths(&self) -> Result<Vec<(QueueName, Depth)>> {
        if self.depths { std::future::pending().await } else { self.broker.depths().await }
    }

    async fn dead_letter(&self, queue: &QueueName, letters: Vec<NewDeadLetter>) -> Result<()> {
        self.broker.dead_letter(queue, letters).await
    }

    async fn dead_letters(&self, queue: &QueueName, offset: usize, limit: usize) -> Result<Vec<DeadLetter>> {
        self.broker.dead_letters(queue, offset, limit).await
    }

    async fn peek(&self, queue: &QueueName, limit: usize) -> Result<Vec<WaitingMessage>> {
        self.broker.peek(queue, limit).await
    }

    async fn dead_letter_counts(&self) -> Result<Vec<(QueueName, u64)>> {
        self.broker.dead_letter_counts().await
    }

    async fn replay(&self, queue: &QueueName, which: DeadLetterSelection) -> Result<usize> {
        self.broker.replay(queue, which).await
    }

    async fn discard(&self, queue: &QueueName, which: DeadLetterSelection) -> Result<usize> {
        self.broker.discard(queue, which).await
    }

    async fn ping(&self) -> Result<()> {
        self.broker.ping().await
    }
}
