use std::time::{Duration, Instant};

use galerna_broker::{BrokerError, DeleteWhen, DeliveryTag, Outcome};
use galerna_model::Message;

use crate::world::*;

pub(crate) async fn an_empty_queue_gives_nothing_after_the_wait(world: &World) {
    let queue = world.queue("dry").await;
    let mut consumer = world.consume(&queue, 10).await;
    let start = Instant::now();
    expect_nothing(&mut *consumer).await;
    assert!(start.elapsed() >= MOMENT);
    assert_eq!(consumer.receive(10, Duration::ZERO).await.unwrap().len(), 0);
}

pub(crate) async fn a_message_that_arrives_wakes_a_waiting_consumer(world: &World) {
    let queue = world.queue("wake").await;
    let mut consumer = world.consume(&queue, 10).await;
    let (got, ()) = tokio::join!(expect(&mut *consumer, "hello"), async {
        tokio::time::sleep(MOMENT).await;
        world.publish(&queue, ["hello"]).await;
    });
    ack(&mut *consumer, &[got]).await;
}

pub(crate) async fn no_more_than_prefetch_messages_are_unsettled(world: &World) {
    let queue = world.queue("prefetch").await;
    world.publish(&queue, (0..10).map(|n| n.to_string())).await;
    let mut consumer = world.consume(&queue, 4).await;
    let mut taken = receive(&mut *consumer, 4).await;
    expect_nothing(&mut *consumer).await;
    ack(&mut *consumer, &taken.split_off(2)).await;
    let more = receive(&mut *consumer, 2).await;
    assert_eq!(bodies(&more), ["4", "5"]);
    expect_nothing(&mut *consumer).await;
}

pub(crate) async fn two_consumers_share_a_queue(world: &World) {
    let queue = world.queue("share").await;
    let mut one = world.consume(&queue, 3).await;
    let mut two = world.consume(&queue, 3).await;
    world.publish(&queue, (0..6).map(|n| n.to_string())).await;
    let mut all = bodies(&receive(&mut *one, 3).await);
    all.extend(bodies(&receive(&mut *two, 3).await));
    all.sort();
    assert_eq!(all, ["0", "1", "2", "3", "4", "5"]);
}

pub(crate) async fn acked_messages_never_come_again_in_whatever_order_they_are_acked(world: &World) {
    let queue = world.queue("acks").await;
    world.publish(&queue, (0..100).map(|n| n.to_string())).await;
    let mut consumer = world.consume(&queue, 100).await;
    let taken = receive(&mut *consumer, 100).await;
    // All but 30, 60 and 90, the later ones first, in pieces that leave gaps.
    let keep = |n: usize| n != 0 && n.is_multiple_of(30);
    for part in [50..100, 0..20, 20..50] {
        let outcomes = part.rev().filter(|n| !keep(*n)).map(|n| (taken[n].tag, Outcome::Ack)).collect();
        consumer.settle(outcomes).await.unwrap();
    }
    world.depth_becomes(&queue, 0, 3).await;
    drop(consumer);
    let mut consumer = world.consume(&queue, 100).await;
    let again = receive(&mut *consumer, 3).await;
    let mut left = bodies(&again);
    left.sort();
    assert_eq!(left, ["30", "60", "90"]);
    expect_nothing(&mut *consumer).await;
    ack(&mut *consumer, &again).await;
    world.depth_becomes(&queue, 0, 0).await;
}

pub(crate) async fn what_was_acked_before_a_consumer_was_dropped_or_closed_stays_so(world: &World) {
    let queue = world.queue("drops").await;
    for close in [false, true] {
        world.publish(&queue, (0..20).map(|n| n.to_string())).await;
        let mut consumer = world.consume(&queue, 100).await;
        let taken = receive(&mut *consumer, 20).await;
        // The first stays unsettled, so that none of the others is part of a prefix.
        for delivery in taken[1..].iter().rev() {
            consumer.settle(vec![(delivery.tag, Outcome::Ack)]).await.unwrap();
        }
        if close {
            consumer.close().await.unwrap();
        } else {
            drop(consumer);
        }
        let mut consumer = world.consume(&queue, 100).await;
        let again = receive(&mut *consumer, 1).await;
        assert_eq!(bodies(&again), ["0"]);
        expect_nothing(&mut *consumer).await;
        ack(&mut *consumer, &again).await;
        world.depth_becomes(&queue, 0, 0).await;
    }
}

pub(crate) async fn a_small_prefetch_is_not_taken_up_by_acks_that_wait(world: &World) {
    let queue = world.queue("small").await;
    world.publish(&queue, (0..200).map(|n| n.to_string())).await;
    let mut consumer = world.consume(&queue, 2).await;
    let first = receive(&mut *consumer, 1).await;
    // One message stays in work while all others pass beside it.
    for _ in 1..200 {
        let next = receive(&mut *consumer, 1).await;
        ack(&mut *consumer, &next).await;
    }
    world.depth_becomes(&queue, 0, 1).await;
    ack(&mut *consumer, &first).await;
    world.depth_becomes(&queue, 0, 0).await;
}

pub(crate) async fn released_messages_come_again_at_once(world: &World) {
    let queue = world.queue("release").await;
    world.publish(&queue, ["a", "b", "c"]).await;
    let mut consumer = world.consume(&queue, 2).await;
    let taken = receive(&mut *consumer, 2).await;
    consumer.settle(taken.iter().map(|d| (d.tag, Outcome::Release)).collect()).await.unwrap();
    let mut again = Vec::new();
    while again.len() < 3 {
        let some = receive(&mut *consumer, 1).await;
        ack(&mut *consumer, &some).await;
        again.extend(bodies(&some));
    }
    // One that was waiting may come before them.
    again.sort();
    assert_eq!(again, ["a", "b", "c"]);
    world.depth_becomes(&queue, 0, 0).await;

    // However often it is released, a message never becomes a dead letter.
    let patient = world.queue("patient").await;
    world.publish(&patient, ["p"]).await;
    let mut consumer = world.consume(&patient, 1).await;
    for _ in 0..30 {
        let taken = expect(&mut *consumer, "p").await;
        settle(&mut *consumer, taken.tag, Outcome::Release).await;
    }
    expect(&mut *consumer, "p").await;
    assert_eq!(world.broker.dead_letters(&patient, 0, 10).await.unwrap().len(), 0);
}

pub(crate) async fn a_consumer_that_is_dropped_gives_its_messages_back_counted(world: &World) {
    let queue = world.queue("dropped").await;
    world.publish(&queue, ["a", "b", "c"]).await;
    let mut consumer = world.consume(&queue, 2).await;
    receive(&mut *consumer, 2).await;
    drop(consumer);
    let mut consumer = world.consume(&queue, 5).await;
    let again = receive(&mut *consumer, 3).await;
    // A broker may give the new consumer one that was waiting before it has the others back.
    let mut counted: Vec<_> = again.iter().map(|d| (body(d), d.deliveries)).collect();
    counted.sort();
    assert_eq!(counted, [("a".to_owned(), 2), ("b".to_owned(), 2), ("c".to_owned(), 1)]);
}

pub(crate) async fn a_consumer_that_is_closed_gives_its_messages_back(world: &World) {
    let queue = world.queue("closed").await;
    world.publish(&queue, ["a", "b", "c"]).await;
    let mut consumer = world.consume(&queue, 2).await;
    receive(&mut *consumer, 2).await;
    consumer.close().await.unwrap();
    let mut again = bodies(&receive(&mut *world.consume(&queue, 5).await, 3).await);
    again.sort();
    assert_eq!(again, ["a", "b", "c"]);
}

pub(crate) async fn a_failed_message_comes_again_after_a_delay_and_counts(world: &World) {
    let queue = world.queue("retry").await;
    world.publish(&queue, ["a"]).await;
    let mut consumer = world.consume(&queue, 5).await;
    for deliveries in 1..=3 {
        let taken = expect(&mut *consumer, "a").await;
        assert_eq!(taken.deliveries, deliveries);
        assert_eq!(taken.message, text("a"));
        if deliveries < 3 {
            let start = Instant::now();
            settle(&mut *consumer, taken.tag, Outcome::Retry(failure("busy"))).await;
            // It is not there at once.
            let early = consumer.receive(1, Duration::ZERO).await.unwrap();
            assert!(early.is_empty() || start.elapsed() >= retry().delays[0], "it came before its delay");
            assert!(early.is_empty());
        } else {
            ack(&mut *consumer, &[taken]).await;
        }
    }
    world.depth_becomes(&queue, 0, 0).await;
}

pub(crate) async fn after_the_last_permitted_delivery_a_message_is_a_dead_letter(world: &World) {
    let queue = world.queue("last").await;
    world.publish(&queue, ["a"]).await;
    let mut consumer = world.consume(&queue, 5).await;
    for attempt in 1..=3 {
        let taken = expect(&mut *consumer, "a").await;
        settle(&mut *consumer, taken.tag, Outcome::Retry(failure(&format!("attempt {attempt}")))).await;
    }
    let dead = world.broker.dead_letters(&queue, 0, 10).await.unwrap();
    assert_eq!(dead.len(), 1);
    assert_eq!(dead[0].failure, failure("attempt 3"));
    assert_eq!(dead[0].deliveries, 3);
    world.depth_becomes(&queue, 0, 0).await;
}

pub(crate) async fn poison_does_not_block_its_neighbours(world: &World) {
    let queue = world.queue("poison").await;
    world
        .publish(&queue, (0..50).map(|n| if n % 10 == 0 { "poison".to_owned() } else { n.to_string() }))
        .await;
    let mut consumer = world.consume(&queue, 8).await;
    let mut good = Vec::new();
    while good.len() < 45 {
        for delivery in receive(&mut *consumer, 1).await {
            let outcome = if body(&delivery) == "poison" {
                Outcome::Retry(failure("poison"))
            } else {
                good.push(body(&delivery));
                Outcome::Ack
            };
            settle(&mut *consumer, delivery.tag, outcome).await;
        }
    }
    let wanted: Vec<String> = (0..50).filter(|n| n % 10 != 0).map(|n| n.to_string()).collect();
    assert_eq!(good, wanted);
    let mut dead = 0;
    until(
        || "not all poison became dead letters".to_owned(),
        async || {
            for delivery in consumer.receive(10, MOMENT).await.unwrap() {
                settle(&mut *consumer, delivery.tag, Outcome::Retry(failure("poison"))).await;
            }
            dead = world.broker.dead_letters(&queue, 0, 100).await.unwrap().len();
            dead == 5
        },
    )
    .await;
    assert_eq!(dead, 5);
}

pub(crate) async fn a_delivery_of_another_consumer_cannot_be_settled(world: &World) {
    let queue = world.queue("foreign").await;
    world.publish(&queue, ["a", "b"]).await;
    let mut one = world.consume(&queue, 1).await;
    let a = expect(&mut *one, "a").await;
    let mut two = world.consume(&queue, 1).await;
    let b = expect(&mut *two, "b").await;
    let lost = two.settle(vec![(a.tag, Outcome::Ack)]).await;
    assert!(matches!(&lost, Err(BrokerError::ConsumerLost(name)) if *name == queue), "{lost:?}");
    // Neither was touched; a tag that is settled twice, or was never given, is harmless to others.
    for _ in 0..2 {
        ack(&mut *two, std::slice::from_ref(&b)).await;
    }
    two.settle(vec![(DeliveryTag(b.tag.0 + 77), Outcome::Ack)]).await.unwrap();
    world.depth_becomes(&queue, 0, 1).await;
    ack(&mut *one, &[a]).await;
    world.depth_becomes(&queue, 0, 0).await;
}

pub(crate) async fn a_consumer_of_a_deleted_queue_is_lost(world: &World) {
    let queue = world.queue("deleted").await;
    world.publish(&queue, ["a"]).await;
    let mut consumer = world.consume(&queue, 1).await;
    let taken = expect(&mut *consumer, "a").await;
    let (lost, deleted) =
        tokio::join!(consumer.receive(1, WAIT), world.broker.delete(&queue, DeleteWhen::Always));
    deleted.unwrap();
    assert!(matches!(&lost, Err(BrokerError::ConsumerLost(name)) if *name == queue), "{lost:?}");
    assert!(consumer.settle(vec![(taken.tag, Outcome::Ack)]).await.is_err());
}

pub(crate) async fn a_receive_that_is_cancelled_loses_nothing(world: &World) {
    let queue = world.queue("cancel").await;
    let mut consumer = world.consume(&queue, 500).await;
    let publishing = async {
        for n in 0..100 {
            world.publish(&queue, [n.to_string()]).await;
        }
    };
    let consuming = async {
        let mut got = Vec::new();
        while got.len() < 100 {
            // Dropped at whatever point it has reached.
            if let Ok(some) =
                tokio::time::timeout(Duration::from_micros(300), consumer.receive(7, WAIT)).await
            {
                got.extend(bodies(&some.unwrap()));
            }
        }
        got
    };
    let ((), got) =
        tokio::time::timeout(DEADLINE, async { tokio::join!(publishing, consuming) }).await.unwrap();
    assert_eq!(got, (0..100).map(|n| n.to_string()).collect::<Vec<_>>());
}

pub(crate) async fn a_large_message_on_its_way_is_here_behind_the_fence(world: &World) {
    let queue = world.queue("fence").await;
    let large = Message { body: vec![7; 10_000_000].into(), ..text("large") };
    for _ in 0..5 {
        world.broker.publish(vec![(queue.clone(), large.clone())]).await.unwrap();
        let mut consumer = world.consume(&queue, 10).await;
        let start = Instant::now();
        // Most likely it is neither in the queue nor here, for a while.
        let got = loop {
            let left = consumer.fence().await.unwrap();
            match consumer.receive(1, MOMENT).await.unwrap().pop() {
                Some(got) => break got,
                None => assert_ne!(left, Some(0), "the queue is not dry"),
            }
            assert!(start.elapsed() < DEADLINE, "it never came");
        };
        assert!(got.message == large, "the message changed on its way");
        ack(&mut *consumer, &[got]).await;
        consumer.close().await.unwrap();
    }
    let mut consumer = world.consume(&queue, 10).await;
    assert_eq!(consumer.fence().await.unwrap(), Some(0));
    expect_nothing(&mut *consumer).await;
}
