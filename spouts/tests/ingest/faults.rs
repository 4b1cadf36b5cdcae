//! What is unavailable comes back, and nothing is lost.

use crate::on_both;

on_both! {
    while_the_store_is_away_nothing_is_lost_and_nothing_becomes_a_dead_letter(10_000),
    part_of_a_bulk_that_the_store_refuses_does_not_take_its_neighbours_with_it(10_000),
}

mod scenarios {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

    use std::time::Duration;

    use async_trait::async_trait;
    use galerna_bolts::{StoreBolt, StoreOptions, ValidateBolt};
    use galerna_engine::{Engine, EngineOptions};
    use galerna_model::AccountId;
    use galerna_model::{ParameterRegistry, ValidationLimits};
    use galerna_storage::mongo::{self, MongoOptions};
    use galerna_storage::{
        ReadingKey, Readings, ReadingsQuery, Result, SharedReadings, StorageError, StoreOutcome,
        StoredReading,
    };
    use galerna_test_servers::{Mongo, unique};
    use galerna_topology::TopologyBuilder;

    use crate::world::{DEADLINE, World, envelope, envelopes, eventually, quick, reading};

    /// A store that is unavailable, or that refuses a device.
    struct Faulty {
        inner: Arc<dyn Readings>,
        unavailable: AtomicBool,
        calls: AtomicU32,
        refused: &'static str,
    }

    impl Faulty {
        fn over(inner: &Arc<dyn Readings>, unavailable: bool, refused: &'static str) -> Arc<Self> {
            Arc::new(Self {
                inner: inner.clone(),
                unavailable: AtomicBool::new(unavailable),
                calls: AtomicU32::new(0),
                refused,
            })
        }
    }

    #[async_trait]
    impl Readings for Faulty {
        async fn store_shared(&self, messages: &[SharedReadings]) -> Result<StoreOutcome> {
            self.calls.fetch_add(1, Ordering::SeqCst);
            let attempted = "storing readings".to_owned();
            if self.unavailable.load(Ordering::SeqCst) {
                return Err(StorageError::Unavailable { attempted, cause: "cut off".to_owned() });
            }
            if messages.iter().flat_map(|readings| readings.iter()).any(|r| r.device == self.refused) {
                return Err(StorageError::Failed { attempted, cause: "it is cursed".to_owned() });
            }
            self.inner.store_shared(messages).await
        }

        async fn find(&self, query: &ReadingsQuery) -> Result<Vec<StoredReading>> {
            self.inner.find(query).await
        }

        async fn count(&self, account: Option<&AccountId>) -> Result<u64> {
            self.inner.count(account).await
        }

        async fn keys(
            &self,
            account: &AccountId,
            after: Option<&ReadingKey>,
            limit: usize,
        ) -> Result<Vec<ReadingKey>> {
            self.inner.keys(account, after, limit).await
        }

        async fn latest(&self, source: &galerna_model::SourceId) -> Result<Vec<StoredReading>> {
            self.inner.latest(source).await
        }
    }

    pub(super) async fn while_the_store_is_away_nothing_is_lost_and_nothing_becomes_a_dead_letter(
        world: World,
    ) {
        let queue = world.queue("D1").await;
        world.publish(&queue, envelopes("D1", 30, 10)).await;
        let store = Faulty::over(&world.store.readings, true, "");
        let running = world.ingest(store.clone()).await;
        // Longer than the bolt's retry budget, several times: more rounds than a message may be delivered.
        eventually("messages were given back again and again", || async {
            world.tally.given_back() > 30 * 4
        })
        .await;
        assert_eq!(world.stored().await, 0);
        store.unavailable.store(false, Ordering::SeqCst);
        eventually("all is acked", || async { world.tally.acked() == 30 }).await;
        assert_eq!(world.stored().await, 300);
        assert!(running.drain(DEADLINE).await.drained);
        assert!(world.broker.dead_letters(&queue, 0, 10).await.unwrap().is_empty());
        assert!(world.is_empty(&queue).await);
        assert_eq!(world.tally.retried(), 0);
    }

    pub(super) async fn part_of_a_bulk_that_the_store_refuses_does_not_take_its_neighbours_with_it(
        world: World,
    ) {
        let queue = world.queue("D1").await;
        world.publish(&queue, envelopes("D1", 20, 10)).await;
        world.publish(&queue, [envelope("D1", "cursed", vec![reading("cursed", 1, 1.0)]).encode()]).await;
        world.publish(&queue, envelopes("D1", 40, 10).split_off(20)).await;
        let running = world.ingest(Faulty::over(&world.store.readings, false, "cursed")).await;
        let letters = || async { world.broker.dead_letters(&queue, 0, 10).await.unwrap() };
        eventually("the cursed one is dead and all others are acked", || async {
            world.tally.acked() == 40 && letters().await.len() == 1
        })
        .await;
        assert!(running.drain(DEADLINE).await.drained);
        assert_eq!(world.stored().await, 400);
        let letter = &letters().await[0];
        assert_eq!(letter.failure.component, "store");
        // Deliveries that ended with their lease count, too.
        assert!(letter.deliveries >= 3, "{}", letter.deliveries);
        assert!(letter.failure.reason.contains("it is cursed"), "{}", letter.failure.reason);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn messages_outlast_a_store_that_hangs_for_longer_than_their_timeout() {
        let server = Mongo::start().await;
        let options = MongoOptions {
            database: Some(unique("hangs")),
            // An attempt alone takes longer than a message may.
            timeout: Duration::from_secs(6),
            ..MongoOptions::new(server.uri())
        };
        let hanging = mongo::connect(options).await.expect("MongoDB answers");
        let world = World::embedded(Duration::from_secs(10)).await;
        let queue = world.queue("D1").await;
        let mut topology = TopologyBuilder::new("store");
        topology.message_timeout(Duration::from_secs(5));
        let messages = topology.spout("queues", world.spout(world.leases(), quick())).outputs();
        let registry = Arc::new(ParameterRegistry::built_in());
        let checked = topology
            .bolt("validate", move || ValidateBolt::new(registry.clone(), ValidationLimits::default()))
            .shuffle(&messages)
            .outputs();
        let readings = hanging.readings.clone();
        topology
            .async_batch_bolt("store", move || {
                // More than one bulk's worth is waiting at a time.
                let budget = Duration::from_secs(10);
                let options =
                    StoreOptions { rows: 50, in_flight: 1, retry_budget: budget, ..StoreOptions::default() };
                StoreBolt::new(readings.clone(), options)
            })
            .shuffle(&checked.valid);
        let running =
            Engine::submit(topology.build().expect("a topology"), EngineOptions::default()).await.unwrap();
        world.publish(&queue, envelopes("D1", 1, 1)).await;
        eventually("the first is stored", || async { world.tally.acked() == 1 }).await;

        server.freeze().await;
        for message in envelopes("D1", 60, 10) {
            world.publish(&queue, [message]).await;
        }
        eventually("the bolt's retry budget is over", || async { world.tally.given_back() >= 60 }).await;
        assert_eq!(world.tally.retried(), 0, "none timed out");
        server.thaw().await;
        eventually("all is stored", || async { world.is_empty(&queue).await }).await;
        assert_eq!((world.tally.retried(), world.tally.dead_lettered()), (0, 0));
        assert!(running.drain(DEADLINE).await.drained);
        assert!(world.broker.dead_letters(&queue, 0, 10).await.unwrap().is_empty());
    }
}
