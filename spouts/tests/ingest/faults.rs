//! What is away comes back, and nothing is lost.

use crate::on_both;

on_both! {
    while_the_store_is_away_nothing_is_lost_and_nothing_becomes_a_dead_letter(10_000),
    part_of_a_bulk_that_the_store_refuses_does_not_take_its_neighbours_with_it(10_000),
}

mod scenarios {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

    use async_trait::async_trait;
    use galerna_broker::AccountId;
    use galerna_storage::{
        ReadingKey, ReadingOutcome, Readings, ReadingsQuery, Result, StorageError, StoredReading,
    };

    use crate::world::{PATIENCE, World, envelope, envelopes, eventually, reading};

    /// A store that is away, or that refuses a device.
    struct Faulty {
        inner: Arc<dyn Readings>,
        away: AtomicBool,
        calls: AtomicU32,
        refused: &'static str,
    }

    impl Faulty {
        fn over(inner: &Arc<dyn Readings>, away: bool, refused: &'static str) -> Arc<Self> {
            Arc::new(Self {
                inner: inner.clone(),
                away: AtomicBool::new(away),
                calls: AtomicU32::new(0),
                refused,
            })
        }
    }

    #[async_trait]
    impl Readings for Faulty {
        async fn store(&self, batch: &[StoredReading]) -> Result<Vec<ReadingOutcome>> {
            self.calls.fetch_add(1, Ordering::SeqCst);
            let attempted = "storing readings".to_owned();
            if self.away.load(Ordering::SeqCst) {
                return Err(StorageError::Unavailable { attempted, cause: "cut off".to_owned() });
            }
            if batch.iter().any(|r| r.device == self.refused) {
                return Err(StorageError::Failed { attempted, cause: "it is cursed".to_owned() });
            }
            self.inner.store(batch).await
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

        async fn latest(&self, source: &galerna_broker::SourceId) -> Result<Vec<StoredReading>> {
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
        // Longer than the bolt's patience, several times: more rounds than a message may be delivered.
        eventually("messages were given back again and again", || async {
            world.tally.given_back() > 30 * 4
        })
        .await;
        assert_eq!(world.stored().await, 0);
        store.away.store(false, Ordering::SeqCst);
        eventually("all is acked", || async { world.tally.acked() == 30 }).await;
        assert_eq!(world.stored().await, 300);
        assert!(running.drain(PATIENCE).await.drained);
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
        assert!(running.drain(PATIENCE).await.drained);
        assert_eq!(world.stored().await, 400);
        let letter = &letters().await[0];
        assert_eq!(letter.failure.component, "store");
        // Deliveries that ended with their lease count, too.
        assert!(letter.deliveries >= 3, "{}", letter.deliveries);
        assert!(letter.failure.reason.contains("it is cursed"), "{}", letter.failure.reason);
    }
}
