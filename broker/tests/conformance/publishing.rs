use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use galerna_broker::BrokerError;
use galerna_model::{Message, QueueName};

use crate::world::*;

pub(crate) async fn a_confirmed_message_is_delivered_as_it_was_sent(world: &World) {
    let queue = world.queue("whole").await;
    let cases = [
        Message { body: Bytes::new(), content_type: "application/json".into(), id: String::new() },
        Message {
            body: Bytes::from_static(&[0, 255, 1]),
            content_type: "application/octet-stream".into(),
            id: "é".into(),
        },
        Message {
            body: "x".into(),
            content_type: galerna_model::envelope::CONTENT_TYPE.into(),
            id: "a b".into(),
        },
        Message { body: "y".into(), content_type: String::new(), id: "z".repeat(255) },
    ];
    let mut consumer = world.consume(&queue, 10).await;
    for sent in cases {
        world.broker.publish(vec![(queue.clone(), sent.clone())]).await.unwrap();
        let got = receive(&mut *consumer, 1).await.remove(0);
        assert_eq!(got.message, sent);
        assert_eq!(got.deliveries, 1);
    }
}

pub(crate) async fn messages_of_one_publisher_come_in_order(world: &World) {
    let queue = world.queue("order").await;
    let sent: Vec<String> = (0..3000).map(|n| n.to_string()).collect();
    let mut consumer = world.consume(&queue, 5000).await;
    for window in sent.chunks(700) {
        world.publish(&queue, window).await;
    }
    assert_eq!(bodies(&receive(&mut *consumer, sent.len()).await), sent);
}

pub(crate) async fn a_window_goes_to_many_queues(world: &World) {
    let mut queues = Vec::new();
    for n in 0..5 {
        queues.push(world.queue(&format!("many{n}")).await);
    }
    let window = (0..50).map(|n| (queues[n % 5].clone(), text(&n.to_string()))).collect();
    world.broker.publish(window).await.unwrap();
    for (n, queue) in queues.iter().enumerate() {
        let got = receive(&mut *world.consume(queue, 20).await, 10).await;
        let wanted: Vec<String> = (0..10).map(|i| (i * 5 + n).to_string()).collect();
        assert_eq!(bodies(&got), wanted);
    }
}

pub(crate) async fn an_unknown_queue_in_a_window_is_named_and_the_rest_is_confirmed(world: &World) {
    let queue = world.queue("known").await;
    let unknown = QueueName::new(galerna_test_servers::unique("unknown")).unwrap();
    let mut window: Vec<_> = (0..100).map(|n| (queue.clone(), text(&n.to_string()))).collect();
    window[7].0 = unknown.clone();
    window[93].0 = unknown.clone();
    match world.broker.publish(window).await {
        Err(BrokerError::Unconfirmed { unconfirmed, total, cause }) => {
            assert_eq!((unconfirmed, total), (vec![7, 93], 100));
            assert!(cause.contains(unknown.as_str()), "{cause}");
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(receive(&mut *world.consume(&queue, 200).await, 98).await.len(), 98);
}

pub(crate) async fn an_empty_window_is_confirmed(world: &World) {
    world.broker.publish(Vec::new()).await.unwrap();
}

pub(crate) async fn many_publishers_at_once_lose_nothing(world: &World) {
    let queue = world.queue("crowd").await;
    let mut publishers = tokio::task::JoinSet::new();
    for publisher in 0..20 {
        let (broker, queue) = (Arc::clone(&world.broker), queue.clone());
        publishers.spawn(async move {
            for window in 0..5 {
                let messages = (0..20).map(|n| (queue.clone(), text(&format!("{publisher}/{window}/{n}"))));
                broker.publish(messages.collect()).await.unwrap();
            }
        });
    }
    publishers.join_all().await;
    let got = receive(&mut *world.consume(&queue, 5000).await, 2000).await;
    assert_eq!(bodies(&got).into_iter().collect::<BTreeSet<_>>().len(), 2000);
}

pub(crate) async fn a_message_of_ten_megabytes_is_carried(world: &World) {
    let queue = world.queue("large").await;
    let message = Message { body: vec![b' '; 10_000_000].into(), ..text("large") };
    world.broker.publish(vec![(queue.clone(), message.clone())]).await.unwrap();
    let got = receive(&mut *world.consume(&queue, 1).await, 1).await.remove(0);
    assert!(got.message == message, "the message changed on its way");
    assert!(galerna_model::decode(&got.message).is_err());
}
