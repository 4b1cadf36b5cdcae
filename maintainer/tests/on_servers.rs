//! What the maintainer does, on RabbitMQ and MongoDB.

mod interrupted;
mod racing;
mod sentences;
mod world;

use std::sync::Arc;

use galerna_broker::rabbitmq::{RabbitMqBroker, RabbitMqOptions};
use galerna_storage::Store;
use galerna_test_servers::{Mongo, RabbitMq, unique};
use world::World;

async fn servers() -> World {
    servers_and_store().await.0
}

async fn servers_and_store() -> (World, Store) {
    let (rabbit, mongo) = tokio::join!(RabbitMq::shared(), Mongo::shared());
    let store =
        galerna_storage::open(&format!("{}/{}", mongo.uri().trim_end_matches('/'), unique("maintainer")))
            .await
            .expect("MongoDB answers");
    let options = RabbitMqOptions {
        management_uri: Some(rabbit.management_uri()),
        ..RabbitMqOptions::new(rabbit.vhost().await)
    };
    let broker = RabbitMqBroker::connect(options).await.expect("RabbitMQ answers");
    (World::new(Arc::clone(&store.queues), Arc::new(broker)), store)
}

on!(servers);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_maintainers_and_two_dispatchers_never_give_a_queue_to_two() {
    let (world, store) = servers_and_store().await;
    racing::two_maintainers_and_two_dispatchers_never_give_a_queue_to_two(world, store).await;
}
