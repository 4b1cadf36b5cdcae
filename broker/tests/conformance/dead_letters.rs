use galerna_broker::{DeadLetter, DeadLetterSelection, NewDeadLetter, Outcome};
use galerna_model::{Clock, Message, QueueName, SystemClock};

use crate::world::*;

/// A queue with these dead letters, in this order.
async fn with_dead(world: &World, name: &str, bodies: &[&str]) -> QueueName {
    let queue = world.queue(name).await;
    world.publish(&queue, bodies).await;
    let mut consumer = world.consume(&queue, 100).await;
    for body in bodies {
        let taken = expect(&mut *consumer, body).await;
        settle(&mut *consumer, taken.tag, Outcome::DeadLetter(failure(&format!("{body} is broken")))).await;
    }
    consumer.close().await.unwrap();
    queue
}

fn texts(letters: &[DeadLetter]) -> Vec<String> {
    letters.iter().map(|l| String::from_utf8(l.body.to_vec()).unwrap()).collect()
}

pub(crate) async fn a_dead_letter_tells_why_when_and_where_it_died(world: &World) {
    let before = SystemClock.now();
    let queue = world.queue("why").await;
    let reason = "values[1].v is NaN, \"π\"\n".repeat(20);
    let message = Message { content_type: "application/json; charset=utf-8".into(), ..text("{}") };
    world.broker.publish(vec![(queue.clone(), message)]).await.unwrap();
    let mut consumer = world.consume(&queue, 1).await;
    let taken = expect(&mut *consumer, "{}").await;
    settle(&mut *consumer, taken.tag, Outcome::DeadLetter(failure(&reason))).await;
    let letter = world.broker.dead_letters(&queue, 0, 10).await.unwrap().remove(0);
    assert_eq!(letter.failure, failure(&reason));
    assert_eq!(letter.content_type, "application/json; charset=utf-8");
    assert_eq!(&letter.body[..], b"{}");
    assert_eq!(letter.deliveries, 1);
    assert!(letter.at.millis_since(before) >= -1000 && SystemClock.now().millis_since(letter.at) >= -1000);
    assert!(!letter.id.is_empty());
    world.depth_becomes(&queue, 0, 0).await;
}

pub(crate) async fn dead_letters_are_listed_oldest_first_by_pages(world: &World) {
    let queue = with_dead(world, "pages", &["a", "b", "c", "d", "e"]).await;
    // Twice, since looking must not change the order.
    for _ in 0..2 {
        for (offset, limit, wanted) in [
            (0, 2, &["a", "b"][..]),
            (2, 2, &["c", "d"]),
            (4, 2, &["e"]),
            (5, 2, &[]),
            (0, 100, &["a", "b", "c", "d", "e"]),
        ] {
            let page = world.broker.dead_letters(&queue, offset, limit).await.unwrap();
            assert_eq!(texts(&page), wanted, "from {offset}, {limit}");
        }
    }
}

pub(crate) async fn listing_changes_nothing(world: &World) {
    let queue = with_dead(world, "listing", &["a", "b", "c"]).await;
    let first = world.broker.dead_letters(&queue, 0, 10).await.unwrap();
    for _ in 0..25 {
        let again = world.broker.dead_letters(&queue, 0, 10).await.unwrap();
        assert_eq!(format!("{again:?}"), format!("{first:?}"));
    }
}

pub(crate) async fn replayed_dead_letters_are_delivered_as_new(world: &World) {
    let queue = with_dead(world, "replay", &["a", "b", "c"]).await;
    let letters = world.broker.dead_letters(&queue, 0, 10).await.unwrap();
    let second = DeadLetterSelection::Ids(vec![letters[1].id.clone(), "no such id".to_owned()]);
    assert_eq!(world.broker.replay(&queue, second.clone()).await.unwrap(), 1);
    assert_eq!(world.broker.replay(&queue, second).await.unwrap(), 0);
    let mut consumer = world.consume(&queue, 10).await;
    let b = expect(&mut *consumer, "b").await;
    assert_eq!((b.deliveries, &b.message), (1, &text("b")));
    ack(&mut *consumer, &[b]).await;
    assert_eq!(texts(&world.broker.dead_letters(&queue, 0, 10).await.unwrap()), ["a", "c"]);
    assert_eq!(world.broker.replay(&queue, DeadLetterSelection::All).await.unwrap(), 2);
    assert_eq!(bodies(&receive(&mut *consumer, 2).await), ["a", "c"]);
    assert_eq!(world.broker.dead_letters(&queue, 0, 10).await.unwrap().len(), 0);
}

pub(crate) async fn discarded_dead_letters_are_gone(world: &World) {
    let queue = with_dead(world, "discard", &["a", "b", "c"]).await;
    let letters = world.broker.dead_letters(&queue, 0, 10).await.unwrap();
    let first = DeadLetterSelection::Ids(vec![letters[0].id.clone()]);
    assert_eq!(world.broker.discard(&queue, first).await.unwrap(), 1);
    assert_eq!(texts(&world.broker.dead_letters(&queue, 0, 10).await.unwrap()), ["b", "c"]);
    let last = DeadLetterSelection::Ids(vec![letters[2].id.clone()]);
    assert_eq!(world.broker.discard(&queue, last).await.unwrap(), 1);
    assert_eq!(texts(&world.broker.dead_letters(&queue, 0, 10).await.unwrap()), ["b"]);
    assert_eq!(world.broker.discard(&queue, DeadLetterSelection::All).await.unwrap(), 1);
    assert_eq!(world.broker.dead_letters(&queue, 0, 10).await.unwrap().len(), 0);
    world.depth_becomes(&queue, 0, 0).await;
}

pub(crate) async fn dead_letters_are_counted_by_queue(world: &World) {
    let two = with_dead(world, "two", &["a", "b"]).await;
    let none = world.queue("none").await;
    until(
        || "the counts never came right".to_owned(),
        async || {
            let counts = world.broker.dead_letter_counts().await.unwrap();
            assert!(!counts.iter().any(|(name, _)| *name == none));
            counts.contains(&(two.clone(), 2))
        },
    )
    .await;
}

pub(crate) async fn dead_letters_can_be_added_directly(world: &World) {
    let queue = world.queue("added").await;
    let letters =
        ["x", "y"].map(|body| NewDeadLetter { message: text(body), failure: failure(body), replays: 0 });
    world.broker.dead_letter(&queue, letters.to_vec()).await.unwrap();
    let found = world.broker.dead_letters(&queue, 0, 10).await.unwrap();
    assert_eq!(texts(&found), ["x", "y"]);
    assert_eq!(found[1].failure, failure("y"));
    assert_eq!(world.broker.replay(&queue, DeadLetterSelection::All).await.unwrap(), 2);
    assert_eq!(bodies(&receive(&mut *world.consume(&queue, 10).await, 2).await), ["x", "y"]);
}
