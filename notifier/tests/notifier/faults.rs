//! Crashes and outages.

use std::sync::Arc;
use std::time::Duration;

use galerna_broker::rabbitmq::{RabbitMqBroker, RabbitMqOptions};

use galerna_model::AlertEventKind::{Raised, Resolved};
use galerna_notifier::{Notifier, Options};
use galerna_storage::DeliveryStatus::{Delivered, Pending};
use galerna_storage::mongo::{self, MongoOptions};
use galerna_storage::sqlite;
use galerna_test_servers::{Mongo, RabbitMq};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::receiver::{Answer, Receiver};
use crate::world::{DEADLINE, World, options, raised, resolved, seen, until};

pub(crate) async fn what_was_sent_and_not_recorded_is_sent_again_with_the_same_id(mut world: World) {
    let receiver =
        Receiver::answering(|_, before| if before == 0 { Answer::Hang } else { Answer::Status(204) }).await;
    world.hook(&receiver.url()).await;
    world.start(Options { name: "first".into(), ..options() }).await;
    world.raise(&[raised("d", 0), resolved("d", 10)]).await;
    receiver.called(1).await;
    world.crash().await;

    world.start(Options { name: "second".into(), ..options() }).await;
    // As long as the claim lasts, the first one might still be at it.
    world.raise(&[raised("other", 20)]).await;
    receiver.took(1).await;
    assert_eq!(world.delivery(Raised, "d", Pending).await.claimed_by.as_deref(), Some("first"));
    assert_eq!(receiver.events(), [seen("raised", "other")]);
    world.clock.advance(options().lease);
    receiver.took(3).await;
    world.quiet(3).await;
    assert_eq!(receiver.events(), [seen("raised", "other"), seen("raised", "d"), seen("resolved", "d")]);
    let calls = receiver.calls();
    assert_eq!(calls[0].id(), calls[2].id());
    assert_eq!(calls[0].body, calls[2].body);
}

pub(crate) async fn what_was_held_back_then_sent_and_not_recorded_is_sent_again_before_its_recovery(
    mut world: World,
) {
    let receiver =
        Receiver::answering(|_, before| if before == 2 { Answer::Hang } else { Answer::Status(204) }).await;
    world.cooling(&receiver).await;
    world.raise(&[raised("d", 20)]).await;
    world.delivery(Raised, "d", Pending).await;
    world.clock.advance(Duration::from_secs(3601));
    receiver.called(3).await;
    world.crash().await;

    // It may have been told: so it is not dropped, and its recovery follows it.
    world.start(options()).await;
    world.raise(&[resolved("d", 30)]).await;
    world.delivery(Resolved, "d", Pending).await;
    world.clock.advance(options().lease);
    receiver.took(4).await;
    world.quiet(4).await;
    assert_eq!(receiver.events()[2..], [seen("raised", "d"), seen("resolved", "d")]);
    let calls = receiver.calls();
    assert_eq!((calls[2].id(), &calls[2].body), (calls[3].id(), &calls[3].body));
}

pub(crate) async fn what_was_taken_and_not_acked_is_told_once(mut world: World) {
    let receiver = Receiver::start().await;
    world.hook(&receiver.url()).await;
    // Crashes at many points of taking and delivering; a crash gives unacked messages back to the queue.
    let alerts: Vec<_> = (0..20).map(|i| raised(&format!("d{i:02}"), i)).collect();
    let recoveries: Vec<_> = (0..20).map(|i| resolved(&format!("d{i:02}"), 100 + i)).collect();
    world.raise(&alerts).await;
    world.raise(&recoveries).await;
    for round in 0..8_u64 {
        world.start(Options { name: format!("n{round}"), prefetch: 6, ..options() }).await;
        // No condition: the point is to crash at points that nobody chose.
        tokio::time::sleep(Duration::from_millis(7 * round)).await;
        world.crash().await;
        world.clock.advance(options().lease);
    }
    world.start(options()).await;
    world.quiet(40).await;
    let deliveries = world.deliveries().await;
    assert_eq!(deliveries.len(), 40, "each event once");
    assert!(deliveries.iter().all(|d| d.status == Delivered));
    // Each at least once, and no recovery before its alert.
    let events = receiver.events();
    for i in 0..20 {
        let device = format!("d{i:02}");
        let first = |kind: &str| events.iter().position(|event| *event == seen(kind, &device));
        let last_alert = events.iter().rposition(|event| *event == seen("raised", &device));
        assert!(first("raised").is_some() && first("resolved") > last_alert, "{device}: {events:?}");
    }
}

pub(crate) async fn an_orderly_end_waits_for_attempts_under_way(world: World) {
    let release = Arc::new(Semaphore::new(0));
    let permits = Arc::clone(&release);
    let receiver = Receiver::answering(move |_, _| Answer::When(Arc::clone(&permits))).await;
    world.hook(&receiver.url()).await;
    let notifier = Notifier::open(world.parts(), options()).await.unwrap();
    let stop = CancellationToken::new();
    let running = notifier.spawn(stop.clone());
    world.raise(&[raised("d", 0)]).await;
    receiver.called(1).await;
    stop.cancel();
    world.raise(&[raised("later", 10)]).await;
    release.add_permits(1);
    timeout(DEADLINE, running).await.expect("it ends").expect("it does not panic");
    let deliveries = world.deliveries().await;
    assert!(deliveries.iter().any(|d| d.events[0].device == "d" && d.status == Delivered), "{deliveries:?}");
    // What came after is there for the next one.
    release.add_permits(1);
    let mut world = world;
    world.start(options()).await;
    receiver.took(2).await;
    world.quiet(2).await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_outbox_survives_the_process() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.db");
    let receiver = Receiver::answering(|_, _| Answer::Status(503)).await;
    let broker = galerna_broker::open("embedded::memory:").await.unwrap();
    let mut world = World::of(broker, sqlite::open(&path).await.unwrap());
    world.hook(&receiver.url()).await;
    world.start(options()).await;
    world.raise(&[raised("d", 0), resolved("d", 10)]).await;
    receiver.called(2).await;
    world.crash().await;
    let id = world.delivery(Raised, "d", Pending).await.id;
    drop(world);
    // A file that another process has open is refused: the last handle is gone once it opens.
    let store = async {
        loop {
            match sqlite::open(&path).await {
                Ok(store) => break store,
                Err(_) => tokio::task::yield_now().await,
            }
        }
    };
    let store = timeout(DEADLINE, store).await.expect("the store opens again");
    receiver.answer(|_, _| Answer::Status(200));
    let broker = galerna_broker::open("embedded::memory:").await.unwrap();
    let mut world = World::of(broker, store);
    world.clock.advance(options().lease);
    world.start(options()).await;
    assert_eq!(receiver.took(2).await, [seen("raised", "d"), seen("resolved", "d")]);
    assert_eq!(receiver.taken()[0].id(), id);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn outages_of_broker_and_store_are_waited_out() {
    let (rabbit, mongod) = tokio::join!(RabbitMq::start(), Mongo::start());
    let broker = RabbitMqBroker::connect(RabbitMqOptions::new(rabbit.amqp_uri())).await.unwrap();
    let database = MongoOptions { timeout: Duration::from_secs(6), ..MongoOptions::new(mongod.uri()) };
    let store = mongo::connect(database).await.unwrap();
    let mut world = World::of(Arc::new(broker), store);
    let receiver = Receiver::start().await;
    world.hook(&receiver.url()).await;
    let notifier = world.start(options()).await;
    world.raise(&[raised("before", 0)]).await;
    receiver.took(1).await;

    // The store is unavailable while events wait on the broker.
    world.store.alert_states.record(&[raised("d", 10), resolved("d", 20)]).await.unwrap();
    mongod.kill().await;
    world.publish(&[raised("d", 10), resolved("d", 20)]).await;
    until("the outage to be noticed", || async {
        !notifier.metrics_text().contains("galerna_notifier_errors_total{of=\"store\"} 0\n")
    })
    .await;
    mongod.restart().await;
    receiver.took(3).await;
    assert_eq!(receiver.events()[1..], [seen("raised", "d"), seen("resolved", "d")]);

    rabbit.kill().await;
    until("the outage to be noticed", || async {
        !notifier.metrics_text().contains("galerna_notifier_errors_total{of=\"broker\"} 0\n")
    })
    .await;
    rabbit.restart().await;
    let event = raised("after", 30);
    world.store.alert_states.record(std::slice::from_ref(&event)).await.unwrap();
    let message = galerna_model::Message {
        body: serde_json::to_vec(&event).unwrap().into(),
        content_type: "application/json".into(),
        id: event.id.clone(),
    };
    let queue = galerna_model::QueueName::new(galerna_notifier::ALERTS_QUEUE).unwrap();
    until("the broker to take it", || async {
        world.broker.publish(vec![(queue.clone(), message.clone())]).await.is_ok()
    })
    .await;
    receiver.took(4).await;
    world.quiet(4).await;
    assert_eq!(receiver.events().len(), 4);
}
