//! Publishes, kills, and looks at what is committed.

use std::time::Duration;

use galerna_broker::Broker;
use galerna_broker::rabbitmq::RabbitMqBroker;
use galerna_model::QueueName;
use galerna_test_servers::{RabbitMq, unique};

use crate::events::{AHEAD, end, expected, far, of};
use crate::found::Found;
use crate::place::Place;
use crate::process::{Process, broker};

/// Queues, checkpoints, and what has been published.
pub(crate) struct World {
    test: &'static str,
    seed: u64,
    place: Place,
    amqp_uri: String,
    broker: RabbitMqBroker,
    queues: Vec<QueueName>,
    random: fastrand::Rng,
    /// Events that were published.
    events: u64,
    /// The first event that no checkpoint has.
    first_missing: u64,
    /// Kills after which a checkpoint had messages in doubt.
    in_doubt: usize,
}

impl Drop for World {
    fn drop(&mut self) {
        self.place.remove();
    }
}

impl World {
    pub(crate) async fn new(place: Place, test: &'static str, seed: u64) -> Self {
        Self::with_queues(place, test, seed, 3).await
    }

    async fn with_queues(place: Place, test: &'static str, seed: u64, queues: usize) -> Self {
        let amqp_uri = RabbitMq::shared().await.vhost().await;
        let broker = broker(&amqp_uri).await;
        let queues: Vec<_> = (0..queues).map(|_| QueueName::new(unique("killed")).expect("a name")).collect();
        for queue in &queues {
            broker.declare(queue).await.expect("declared");
        }
        let random = fastrand::Rng::with_seed(seed);
        Self { test, seed, place, amqp_uri, broker, queues, random, events: 0, first_missing: 0, in_doubt: 0 }
    }

    /// Events that were published.
    pub(crate) fn events(&self) -> u64 {
        self.events
    }

    /// Kills after which a checkpoint had messages in doubt.
    pub(crate) fn in_doubt(&self) -> usize {
        self.in_doubt
    }

    async fn publish_until(&mut self, events: u64) {
        let messages = (self.events..events).flat_map(of).map(|event| {
            let queue = event.number as usize % self.queues.len();
            (self.queues[queue].clone(), event.message())
        });
        self.broker.publish(messages.collect()).await.expect("published");
        self.events = self.events.max(events);
    }

    fn start(&self) -> Process {
        Process::start(self.test, &self.place, &self.amqp_uri, &self.queues)
    }

    /// Starts a process, publishes meanwhile, and kills it at some moment.
    pub(crate) async fn kill_once(&mut self) {
        // None may be so far behind another that it is late.
        let until = self.first_missing + self.random.u64(AHEAD / 5..=AHEAD);
        let before = self.events + (until.saturating_sub(self.events)) / 2;
        self.publish_until(before).await;
        let process = self.start();
        self.publish_until(until).await;
        if self.random.u8(0..5) == 0 {
            // While it starts, restores, and takes its first messages.
            tokio::time::sleep(Duration::from_millis(self.random.u64(0..500))).await;
        } else {
            let commits = self.random.u64(1..6);
            process.until("it commits", |status| status.committed >= commits);
            tokio::time::sleep(Duration::from_millis(self.random.u64(0..60))).await;
        }
        drop(process);
        let (found, in_doubt) = self.look().await;
        self.in_doubt += usize::from(in_doubt > 0);
        found.check_part_of(&expected(self.events), self.seed);
    }

    /// What the last checkpoint has, and how many messages it has in doubt.
    async fn look(&mut self) -> (Found, usize) {
        let store = self.place.open().await;
        let (found, in_doubt) = Found::read(&*store).await;
        let counted = |number: u64| of(number).iter().all(|event| found.ids.contains_key(&event.id));
        while self.first_missing < self.events && counted(self.first_missing) {
            self.first_missing += 1;
        }
        (found, in_doubt)
    }

    /// Has all that was published worked on, and all windows completed; what state has then.
    pub(crate) async fn finish(&mut self) -> Found {
        let messages: u64 = (0..self.events).map(|number| of(number).len() as u64).sum();
        let missing = messages - self.look().await.0.ids.len() as u64;
        if missing > 0 {
            let process = self.start();
            process.until("all messages are worked on", |status| status.executed >= missing);
            process.drain();
        }
        assert_eq!(self.look().await.0.ids.len() as u64, messages, "seed {}", self.seed);
        let end = end(self.events);
        let complete = far(self.events) / 2;
        self.broker.publish(vec![(self.queues[0].clone(), end.message())]).await.expect("published");
        let process = self.start();
        process.until("all windows are complete", |status| status.watermark > complete);
        process.drain();
        self.look().await.0
    }

    /// The same events in one queue, for a process that nothing happens to.
    pub(crate) async fn without_faults(&self) -> Self {
        let mut world = Self::with_queues(self.place.another(), self.test, self.seed, 1).await;
        world.publish_until(self.events).await;
        world
    }
}
