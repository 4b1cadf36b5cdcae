//! What the maintainer does, on RabbitMQ and MongoDB.

mod interrupted;
mod racing;
mod sentences;
mod world;

use std::sync::Arc;
use std::time::Duration;

use galerna_broker::rabbitmq::{RabbitMqBroker, RabbitMqOptions};
use galerna_maintainer::{Run, Task, TaskError};
use galerna_storage::{QueueState, Store};
use galerna_test_servers::{Mongo, RabbitMq, unique};
use world::{World, numbered};

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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_dies_in_the_middle_of_a_run_costs_nothing() {
    const ACCOUNTS: usize = 60;
    let (rabbit, mongo) = tokio::join!(RabbitMq::start(), Mongo::shared());
    let address = format!("{}/{}", mongo.uri().trim_end_matches('/'), unique("maintainer"));
    let store = galerna_storage::open(&address).await.expect("MongoDB answers");
    let options = RabbitMqOptions {
        management_uri: Some(rabbit.management_uri()),
        ..RabbitMqOptions::new(rabbit.amqp_uri())
    };
    let broker = RabbitMqBroker::connect(options).await.expect("RabbitMQ answers");
    let mut world = World::new(store.queues, Arc::new(broker));
    world.options.chunk = 8;

    // Dies while queues are made.
    world.list.says(&numbered(0..ACCOUNTS));
    let maintainer = world.maintainer();
    let run = tokio::spawn({
        let maintainer = maintainer.clone();
        async move { maintainer.run_once(Task::Accounts, Run::default()).await }
    });
    world.until("some queues are made", async || !world.queues.all().await.unwrap().is_empty()).await;
    rabbit.kill().await;
    if let Err(failure) = run.await.expect("no panic") {
        assert!(matches!(failure.error, TaskError::Broker(_)), "{failure}");
    }
    let before = world.states().await;
    for task in [Task::Accounts, Task::ReconcileEmpty] {
        let failure = maintainer.run_once(task, Run::default()).await;
        // With every queue made already, the accounts task does not need the broker.
        assert!(failure.is_err() || task == Task::Accounts, "{task} cannot work without the broker");
        assert_eq!(
            world.states().await,
            before,
            "{task} concludes nothing from a broker that is unavailable"
        );
    }
    rabbit.restart().await;
    world
        .until("every account has its queue", async || {
            maintainer.run_once(Task::Accounts, Run::default()).await.is_ok()
        })
        .await;
    for n in 0..ACCOUNTS {
        assert_eq!(world.state(&format!("Q{n}")).await, Some(QueueState::Idle));
        assert!(world.depth(&format!("Q{n}")).await.is_some(), "Q{n}");
    }

    // Dies while queues are deleted.
    world.publish("Q0", 3).await;
    world.list.says(&numbered(15..ACCOUNTS));
    world.force(Task::Accounts).await;
    world.options.deletions.timeout = Duration::from_secs(5);
    let maintainer = world.maintainer();
    let run = tokio::spawn({
        let maintainer = maintainer.clone();
        async move { maintainer.run_once(Task::Deletions, Run::default()).await }
    });
    world.until("a queue is deleted", async || world.queues.all().await.unwrap().len() < ACCOUNTS).await;
    rabbit.kill().await;
    drop(run.await.expect("no panic"));
    rabbit.restart().await;
    world
        .until("what is empty is deleted", async || {
            drop(maintainer.run_once(Task::Deletions, Run::default()).await);
            world.queues.all().await.unwrap().len() == ACCOUNTS - 14
        })
        .await;
    assert_eq!(world.state("Q0").await, Some(QueueState::Deleting));
    assert_eq!(world.depth("Q0").await.map(|depth| depth.ready), Some(3), "its grace time is not over");
}
