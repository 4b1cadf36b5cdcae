//! Waiting messages looked at without taking them, and how often each was replayed.

use galerna_broker::{BrokerError, DeadLetterSelection, NewDeadLetter, Outcome, WaitingMessage};

use crate::world::{World, bodies, expect, failure, receive, settle, text};

fn shown(waiting: &[WaitingMessage]) -> Vec<String> {
    waiting.iter().map(|w| String::from_utf8(w.message.body.to_vec()).unwrap()).collect()
}

pub(crate) async fn a_look_shows_what_waits_in_order_and_takes_nothing(world: &World) {
    let queue = world.queue("looked").await;
    assert_eq!(world.broker.peek(&queue, 10).await.unwrap().len(), 0);
    world.publish(&queue, ["a", "b", "c", "d"]).await;
    world.depth_becomes(&queue, 4, 0).await;
    let first = world.broker.peek(&queue, 2).await.unwrap();
    assert_eq!(shown(&first), ["a", "b"]);
    assert_eq!((first[0].message.id.as_str(), first[0].deliveries, first[0].replays), ("id-a", 0, 0));
    world.depth_becomes(&queue, 4, 0).await;
    assert_eq!(shown(&world.broker.peek(&queue, 10).await.unwrap()), ["a", "b", "c", "d"]);
    world.depth_becomes(&queue, 4, 0).await;
    assert_eq!(bodies(&receive(&mut *world.consume(&queue, 10).await, 4).await), ["a", "b", "c", "d"]);
}

pub(crate) async fn a_look_does_not_change_the_order_whatever_was_given_back_before(world: &World) {
    let queue = world.queue("given-back").await;
    world.publish(&queue, ["a", "b", "c", "d", "e"]).await;
    let mut consumer = world.consume(&queue, 3).await;
    receive(&mut *consumer, 3).await;
    consumer.close().await.unwrap();
    world.depth_becomes(&queue, 5, 0).await;
    for limit in [1, 4, 2] {
        assert_eq!(shown(&world.broker.peek(&queue, limit).await.unwrap()), ["a", "b", "c", "d"][..limit]);
        world.depth_becomes(&queue, 5, 0).await;
    }
    assert_eq!(bodies(&receive(&mut *world.consume(&queue, 10).await, 5).await), ["a", "b", "c", "d", "e"]);
}

pub(crate) async fn what_is_consumed_is_not_shown_as_waiting(world: &World) {
    let queue = world.queue("held").await;
    world.publish(&queue, ["a", "b", "c"]).await;
    let mut consumer = world.consume(&queue, 1).await;
    expect(&mut *consumer, "a").await;
    match world.broker.peek(&queue, 10).await {
        Ok(waiting) => assert_eq!(shown(&waiting), ["b", "c"]),
        Err(e) => assert!(matches!(e, BrokerError::Consumed(_)), "{e}"),
    }
}

pub(crate) async fn replays_of_a_message_are_counted(world: &World) {
    let queue = world.queue("replayed").await;
    world.publish(&queue, ["a"]).await;
    for replays in 0..3 {
        let mut consumer = world.consume(&queue, 1).await;
        let delivery = expect(&mut *consumer, "a").await;
        assert_eq!((delivery.deliveries, delivery.replays), (1, replays));
        settle(&mut *consumer, delivery.tag, Outcome::DeadLetter(failure("bad"))).await;
        consumer.close().await.unwrap();
        assert_eq!(world.broker.dead_letters(&queue, 0, 1).await.unwrap()[0].replays, replays);
        assert_eq!(world.broker.replay(&queue, DeadLetterSelection::All).await.unwrap(), 1);
    }
    // And where a part of a message is put there by its consumer, which tells what it knows.
    let other = world.queue("added-again").await;
    let letter = NewDeadLetter { message: text("x"), failure: failure("x"), replays: 4 };
    world.broker.dead_letter(&other, vec![letter]).await.unwrap();
    assert_eq!(world.broker.dead_letters(&other, 0, 1).await.unwrap()[0].replays, 4);
    world.broker.replay(&other, DeadLetterSelection::All).await.unwrap();
    assert_eq!(expect(&mut *world.consume(&other, 1).await, "x").await.replays, 5);
}
