//! What the maintainer does, on the embedded broker and store.

mod interrupted;
mod racing;
mod sentences;
mod world;

use std::sync::Arc;

use galerna_broker::embedded::{EmbeddedBroker, EmbeddedOptions};
use world::World;

async fn embedded() -> World {
    let store = galerna_storage::sqlite::in_memory().expect("a store in memory");
    let broker = EmbeddedBroker::in_memory(EmbeddedOptions::default()).expect("a broker in memory");
    World::new(store.queues, Arc::new(broker))
}

on!(embedded);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_maintainers_and_two_dispatchers_never_give_a_queue_to_two() {
    let store = galerna_storage::sqlite::in_memory().expect("a store in memory");
    let broker = EmbeddedBroker::in_memory(EmbeddedOptions::default()).expect("a broker in memory");
    let world = World::new(Arc::clone(&store.queues), Arc::new(broker));
    racing::two_maintainers_and_two_dispatchers_never_give_a_queue_to_two(world, store).await;
}
