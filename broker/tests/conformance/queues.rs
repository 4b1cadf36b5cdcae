use galerna_broker::{BrokerError, DeadLetterSelection, DeleteWhen, Deleted, Outcome};
use galerna_model::QueueName;

use crate::world::*;

pub(crate) async fn declaring_twice_is_the_same_as_once(world: &World) {
    let queue = world.queue("twice").await;
    world.publish(&queue, ["kept"]).await;
    world.broker.declare(&queue).await.unwrap();
    expect(&mut *world.consume(&queue, 1).await, "kept").await;
}

pub(crate) async fn depth_counts_what_is_ready_and_what_is_unacked(world: &World) {
    let queue = world.queue("depth").await;
    world.depth_becomes(&queue, 0, 0).await;
    world.publish(&queue, ["1", "2", "3", "4", "5"]).await;
    world.depth_becomes(&queue, 5, 0).await;
    let mut consumer = world.consume(&queue, 2).await;
    let taken = receive(&mut *consumer, 2).await;
    world.depth_becomes(&queue, 3, 2).await;
    let all = world.broker.depths().await.unwrap();
    assert_eq!(all.iter().filter(|(name, _)| *name == queue).count(), 1);
    ack(&mut *consumer, &taken).await;
    let taken = receive(&mut *consumer, 2).await;
    world.depth_becomes(&queue, 1, 2).await;
    drop((consumer, taken));
    world.depth_becomes(&queue, 3, 0).await;
    until(
        || "depths() never showed the queue with its messages".to_owned(),
        async || {
            world
                .broker
                .depths()
                .await
                .unwrap()
                .iter()
                .any(|(name, depth)| *name == queue && depth.ready == 3)
        },
    )
    .await;
}

pub(crate) async fn a_queue_that_holds_a_message_is_not_deleted_when_only_an_empty_one_may_be(world: &World) {
    let queue = world.queue("held").await;
    world.publish(&queue, ["ready"]).await;
    assert_eq!(world.broker.delete(&queue, DeleteWhen::Empty).await.unwrap(), Deleted::NotEmpty);
    let mut consumer = world.consume(&queue, 5).await;
    let unacked = expect(&mut *consumer, "ready").await;
    assert_eq!(world.broker.delete(&queue, DeleteWhen::Empty).await.unwrap(), Deleted::NotEmpty);
    ack(&mut *consumer, &[unacked]).await;
    consumer.close().await.unwrap();
    until(
        || "the empty queue was never deleted".to_owned(),
        async || world.broker.delete(&queue, DeleteWhen::Empty).await.unwrap() == Deleted::Yes,
    )
    .await;
    assert!(
        matches!(world.broker.consume(&queue, 1).await, Err(BrokerError::UnknownQueue(name)) if name == queue)
    );
}

pub(crate) async fn deleting_a_queue_takes_its_messages_and_dead_letters_along(world: &World) {
    let queue = world.queue("along").await;
    world.publish(&queue, ["dead", "delayed", "ready"]).await;
    let mut consumer = world.consume(&queue, 2).await;
    let taken = receive(&mut *consumer, 2).await;
    settle(&mut *consumer, taken[0].tag, Outcome::DeadLetter(failure("broken"))).await;
    settle(&mut *consumer, taken[1].tag, Outcome::Retry(failure("busy"))).await;
    drop(consumer);
    assert_eq!(world.broker.delete(&queue, DeleteWhen::Always).await.unwrap(), Deleted::Yes);
    world.broker.declare(&queue).await.unwrap();
    assert_eq!(world.broker.depth(&queue).await.unwrap().unacked, 0);
    assert_eq!(world.broker.dead_letters(&queue, 0, 10).await.unwrap().len(), 0);
    assert_eq!(world.broker.replay(&queue, DeadLetterSelection::All).await.unwrap(), 0);
}

pub(crate) async fn deleting_a_queue_that_is_not_there_succeeds(world: &World) {
    let queue = QueueName::new(galerna_test_servers::unique("never")).unwrap();
    for when in [DeleteWhen::Empty, DeleteWhen::Always] {
        assert_eq!(world.broker.delete(&queue, when).await.unwrap(), Deleted::Yes);
    }
}

pub(crate) async fn what_is_asked_of_an_unknown_queue_is_an_error_that_names_it(world: &World) {
    let queue = QueueName::new(galerna_test_servers::unique("unknown")).unwrap();
    let errors = [world.broker.consume(&queue, 1).await.err(), world.broker.depth(&queue).await.err()];
    for error in errors {
        assert!(matches!(&error, Some(BrokerError::UnknownQueue(name)) if *name == queue), "{error:?}");
    }
}

pub(crate) async fn the_broker_answers_a_ping(world: &World) {
    world.broker.ping().await.unwrap();
}

pub(crate) async fn names_that_belong_to_the_broker_are_refused(world: &World) {
    for name in ["D0000591.dead", "galerna.due", "amq.topic"] {
        let refused = world.broker.declare(&QueueName::new(name).unwrap()).await;
        assert!(
            matches!(&refused, Err(BrokerError::Invalid(text)) if text.contains(name)),
            "{name}: {refused:?}"
        );
    }
}
