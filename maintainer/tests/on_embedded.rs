//! What the maintainer does, on the embedded broker and store.

mod interrupted;
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
