//! What RabbitMQ going away, being killed, or blocking publishers does to a broker.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use galerna_broker::rabbitmq::{QueueType, RabbitMqBroker, RabbitMqOptions, Timeouts};
use galerna_broker::{
    Broker, BrokerError, BrokerHealth, Consumer, Delivery, Failure, Outcome, Resource, Result, RetryPolicy,
};
use galerna_model::{Message, QueueName};
use galerna_test_servers::RabbitMq;

const WAIT: Duration = Duration::from_secs(20);
const DEADLINE: Duration = Duration::from_secs(60);

fn queue(name: &str) -> QueueName {
    QueueName::new(name).unwrap()
}

fn message(id: &str) -> Message {
    Message { body: vec![b'x'; 200].into(), content_type: "text/plain".into(), id: id.to_owned() }
}

fn failure() -> Failure {
    Failure { reason: "busy".into(), component: "store".into() }
}

fn options(server: &RabbitMq) -> RabbitMqOptions {
    RabbitMqOptions {
        management_uri: Some(server.management_uri()),
        retry: RetryPolicy { delays: vec![Duration::from_secs(2)], ..RetryPolicy::default() },
        timeouts: Timeouts {
            confirm: Duration::from_secs(10),
            reconnect: Duration::from_secs(2),
            ..Timeouts::default()
        },
        ..RabbitMqOptions::new(server.amqp_uri())
    }
}

/// Calls until it succeeds: the broker is coming back.
async fn eventually<T>(mut call: impl AsyncFnMut() -> Result<T>) -> T {
    let start = Instant::now();
    loop {
        match call().await {
            Ok(value) => return value,
            Err(error) if start.elapsed() > DEADLINE => panic!("still after {DEADLINE:?}: {error}"),
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

async fn until_health(broker: &RabbitMqBroker, wanted: impl Fn(&BrokerHealth) -> bool) {
    let start = Instant::now();
    loop {
        let health = broker.health().await;
        if wanted(&health) {
            return;
        }
        assert!(start.elapsed() < DEADLINE, "{health}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn receive(consumer: &mut dyn Consumer, count: usize) -> Vec<Delivery> {
    let mut all = Vec::new();
    while all.len() < count {
        let some = consumer.receive(count - all.len(), WAIT).await.unwrap();
        assert!(!some.is_empty(), "only {} of {count} messages came", all.len());
        all.extend(some);
    }
    all
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_of_the_broker_keeps_backlog_unsettled_and_delayed_messages() {
    let server = RabbitMq::start().await;
    let broker = RabbitMqBroker::connect(options(&server)).await.unwrap();
    let name = queue("D0000591");
    broker.declare(&name).await.unwrap();
    let ids: Vec<String> = (0..500).map(|n| format!("{n:03}")).collect();
    broker.publish(ids.iter().map(|id| (name.clone(), message(id))).collect()).await.unwrap();
    let mut consumer = broker.consume(&name, 20).await.unwrap();
    let taken = receive(&mut *consumer, 20).await;
    let outcomes = taken[..10].iter().map(|d| (d.tag, Outcome::Ack));
    consumer.settle(outcomes.chain([(taken[10].tag, Outcome::Retry(failure()))]).collect()).await.unwrap();
    server.restart().await;

    // What came on the old channel cannot be settled on any other.
    let lost = consumer.settle(vec![(taken[11].tag, Outcome::Ack)]).await;
    assert!(matches!(&lost, Err(BrokerError::ConsumerLost(q)) if *q == name), "{lost:?}");
    loop {
        match consumer.receive(100, WAIT).await {
            // Prefetched before the restart.
            Ok(some) => assert!(!some.is_empty(), "the loss of the consumer never showed"),
            Err(error) => {
                assert!(matches!(&error, BrokerError::ConsumerLost(q) if *q == name), "{error}");
                break;
            }
        }
    }
    let mut again = eventually(async || broker.consume(&name, 600).await).await;
    let lost = again.settle(vec![(taken[11].tag, Outcome::Ack)]).await;
    assert!(matches!(&lost, Err(BrokerError::ConsumerLost(q)) if *q == name), "{lost:?}");
    let rest = receive(&mut *again, 490).await;
    let found: BTreeSet<String> = rest.iter().map(|d| d.message.id.clone()).collect();
    assert_eq!(found, ids[10..].iter().cloned().collect());
    assert!(rest.iter().filter(|d| d.deliveries > 1).count() >= 10);
    eventually(async || broker.publish(vec![(name.clone(), message("after"))]).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kill_9_of_the_broker_loses_nothing_that_was_confirmed() {
    let server = RabbitMq::start().await;
    let broker = Arc::new(RabbitMqBroker::connect(options(&server)).await.unwrap());
    let name = queue("D0000591");
    broker.declare(&name).await.unwrap();
    let mut publishers = tokio::task::JoinSet::new();
    for publisher in 0..4 {
        let (broker, name) = (Arc::clone(&broker), name.clone());
        publishers.spawn(async move {
            let mut confirmed = Vec::new();
            for window in 0.. {
                let ids: Vec<String> = (0..200).map(|n| format!("{publisher}-{window}-{n}")).collect();
                match broker.publish(ids.iter().map(|id| (name.clone(), message(id))).collect()).await {
                    Ok(()) => confirmed.extend(ids),
                    Err(BrokerError::Unconfirmed { unconfirmed, total, .. }) => {
                        assert_eq!(total, 200);
                        let safe = ids.into_iter().enumerate().filter(|(i, _)| !unconfirmed.contains(i));
                        confirmed.extend(safe.map(|(_, id)| id));
                        return confirmed;
                    }
                    Err(BrokerError::Unavailable { .. } | BrokerError::Timeout { .. }) => return confirmed,
                    Err(other) => panic!("{other}"),
                }
            }
            confirmed
        });
    }
    while broker.counts().confirmed < 5000 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    server.kill().await;
    let confirmed: BTreeSet<String> = publishers.join_all().await.into_iter().flatten().collect();
    assert!(confirmed.len() >= 5000);
    server.restart().await;
    let mut found = BTreeSet::new();
    let mut consumer = eventually(async || broker.consume(&name, 1000).await).await;
    while !confirmed.is_subset(&found) {
        let some = consumer.receive(1000, WAIT).await.unwrap();
        let lost = confirmed.difference(&found).count();
        assert!(!some.is_empty(), "{lost} of {} confirmed messages were lost", confirmed.len());
        consumer.settle(some.iter().map(|d| (d.tag, Outcome::Ack)).collect()).await.unwrap();
        found.extend(some.into_iter().map(|d| d.message.id));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_memory_alarm_is_told_as_blocked_and_consuming_goes_on() {
    let server = RabbitMq::start().await;
    let broker = RabbitMqBroker::connect(options(&server)).await.unwrap();
    let name = queue("D0000591");
    broker.declare(&name).await.unwrap();
    broker.publish((0..10).map(|n| (name.clone(), message(&n.to_string()))).collect()).await.unwrap();
    assert_eq!(broker.health().await, BrokerHealth::Ready);
    // A node that has just started does not tell all of it at once.
    let start = Instant::now();
    for resource in [Resource::Files, Resource::Memory, Resource::Disk, Resource::Processes] {
        while !broker.limits().await.unwrap().iter().any(|l| l.resource == resource && l.limit < u64::MAX) {
            assert!(start.elapsed() < DEADLINE, "{resource:?}: {:?}", broker.limits().await);
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
    server.block_publishers().await;
    // Before anybody has published.
    until_health(
        &broker,
        |health| matches!(health, BrokerHealth::Blocked { reason } if reason.contains("memory")),
    )
    .await;
    // The first one may be under way when the alarm is noticed; each is told the reason.
    for _ in 0..3 {
        let error = broker.publish(vec![(name.clone(), message("blocked"))]).await.unwrap_err();
        assert!(matches!(&error, BrokerError::Blocked(_)), "{error}");
    }
    let mut consumer = broker.consume(&name, 20).await.unwrap();
    let taken = receive(&mut *consumer, 10).await;
    // Its copy could not be published: it stays unsettled, and so can be settled later.
    let error = consumer.settle(vec![(taken[0].tag, Outcome::Retry(failure()))]).await.unwrap_err();
    assert!(matches!(&error, BrokerError::Blocked(_)), "{error}");
    consumer.settle(taken[1..].iter().map(|d| (d.tag, Outcome::Ack)).collect()).await.unwrap();
    server.unblock_publishers().await;
    until_health(&broker, |health| *health == BrokerHealth::Ready).await;
    eventually(async || consumer.settle(vec![(taken[0].tag, Outcome::Retry(failure()))]).await).await;
    eventually(async || broker.publish(vec![(name.clone(), message("after"))]).await).await;
    let mut found = BTreeSet::new();
    while !(found.contains("after") && found.contains("0")) {
        found.extend(receive(&mut *consumer, 1).await.into_iter().map(|d| d.message.id));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_broker_is_a_timeout_and_not_a_wait_for_ever() {
    let server = RabbitMq::start().await;
    let quick = Duration::from_secs(1);
    let timeouts = Timeouts { connect: quick, reconnect: quick, rpc: quick, confirm: quick };
    let broker = RabbitMqBroker::connect(RabbitMqOptions { timeouts, ..options(&server) }).await.unwrap();
    let name = queue("D0000591");
    broker.declare(&name).await.unwrap();
    broker.publish(vec![(name.clone(), message("before"))]).await.unwrap();
    server.freeze().await;
    let late =
        |error: &BrokerError| matches!(error, BrokerError::Timeout { .. } | BrokerError::Unavailable { .. });
    let errors = [
        broker.publish(vec![(name.clone(), message("lost?"))]).await.err(),
        broker.declare(&name).await.err(),
        broker.consume(&name, 1).await.err(),
        broker.depths().await.err(),
        broker.ping().await.err(),
    ];
    server.thaw().await;
    for error in errors {
        assert!(error.as_ref().is_some_and(late), "{error:?}");
    }
    eventually(async || broker.publish(vec![(name.clone(), message("after"))]).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_consumer_that_is_given_up_while_it_starts_holds_no_messages() {
    let server = RabbitMq::start().await;
    // Messages that come back so often are no poison here.
    let retry = RetryPolicy { max_returns: 1_000, ..RetryPolicy::default() };
    let broker = RabbitMqBroker::connect(RabbitMqOptions { retry, ..options(&server) }).await.unwrap();
    let name = queue("D0000591");
    broker.declare(&name).await.unwrap();
    let ids: Vec<String> = (0..50).map(|n| format!("{n:02}")).collect();
    broker.publish(ids.iter().map(|id| (name.clone(), message(id))).collect()).await.unwrap();
    // At whatever step of its starting: each has a channel of its own, which the server would deliver to.
    for step in 0..60 {
        let limit = Duration::from_micros(100 * step);
        if let Ok(Ok(consumer)) = tokio::time::timeout(limit, broker.consume(&name, 100)).await {
            consumer.close().await.unwrap();
        }
    }
    let mut consumer = broker.consume(&name, 100).await.unwrap();
    let found: BTreeSet<String> =
        receive(&mut *consumer, ids.len()).await.iter().map(|d| d.message.id.clone()).collect();
    assert_eq!(found, ids.into_iter().collect());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_not_there_is_told_within_the_timeout() {
    let timeouts = Timeouts { reconnect: Duration::from_millis(300), ..Timeouts::default() };
    // Port 1 is reserved; nothing listens there.
    let options = RabbitMqOptions { timeouts, ..RabbitMqOptions::new("amqp://guest:guest@127.0.0.1:1") };
    let error = RabbitMqBroker::connect(options).await.unwrap_err();
    assert!(matches!(&error, BrokerError::Unavailable { .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn poison_that_ends_every_consumer_becomes_a_dead_letter() {
    let server = RabbitMq::shared().await;
    let retry = RetryPolicy { max_returns: 4, ..RetryPolicy::default() };
    let options = RabbitMqOptions { retry, amqp_uri: server.vhost().await, ..options(server) };
    let broker = RabbitMqBroker::connect(options).await.unwrap();
    let name = queue("D0000591");
    broker.declare(&name).await.unwrap();
    broker.publish(vec![(name.clone(), message("poison"))]).await.unwrap();
    for deliveries in 1..=4 {
        let mut consumer = broker.consume(&name, 1).await.unwrap();
        assert_eq!(receive(&mut *consumer, 1).await[0].deliveries, deliveries);
    }
    broker.publish(vec![(name.clone(), message("good"))]).await.unwrap();
    // Room for both: the last consumer's channel may still be closing, so that the good one comes first.
    let mut consumer = broker.consume(&name, 2).await.unwrap();
    assert_eq!(receive(&mut *consumer, 1).await[0].message.id, "good");
    let dead = eventually(async || {
        let more = consumer.receive(1, Duration::from_millis(50)).await.unwrap();
        assert!(more.is_empty(), "{more:?}");
        let dead = broker.dead_letters(&name, 0, 10).await?;
        let none =
            || BrokerError::Unavailable { attempted: "burying".into(), cause: "no dead letter".into() };
        if dead.is_empty() { Err(none()) } else { Ok(dead) }
    })
    .await;
    assert_eq!(dead[0].deliveries, 4);
    assert!(dead[0].failure.reason.contains("without being settled"), "{:?}", dead[0].failure);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_message_whose_queue_was_deleted_is_kept_aside_and_blocks_no_other() {
    let server = RabbitMq::shared().await;
    let retry = RetryPolicy { delays: vec![Duration::from_millis(200)], ..RetryPolicy::default() };
    let options = RabbitMqOptions { retry, amqp_uri: server.vhost().await, ..options(server) };
    let broker = RabbitMqBroker::connect(options).await.unwrap();
    let (gone, stays) = (queue("gone"), queue("stays"));
    for name in [&gone, &stays] {
        broker.declare(name).await.unwrap();
    }
    // More than a delay queue hands over at once.
    let count = 50;
    broker.publish((0..count).map(|n| (gone.clone(), message(&n.to_string()))).collect()).await.unwrap();
    broker.publish(vec![(stays.clone(), message("stays"))]).await.unwrap();
    let mut consumer = broker.consume(&gone, count).await.unwrap();
    let taken = receive(&mut *consumer, count.into()).await;
    consumer.settle(taken.iter().map(|d| (d.tag, Outcome::Retry(failure()))).collect()).await.unwrap();
    drop(consumer);
    broker.delete(&gone, galerna_broker::DeleteWhen::Always).await.unwrap();
    let mut consumer = broker.consume(&stays, 1).await.unwrap();
    let taken = receive(&mut *consumer, 1).await.remove(0);
    consumer.settle(vec![(taken.tag, Outcome::Retry(failure()))]).await.unwrap();
    assert_eq!(receive(&mut *consumer, 1).await[0].deliveries, 2);
    let aside = queue("galerna.undeliverable");
    let mut kept = 0;
    let start = Instant::now();
    while kept < u64::from(count) {
        assert!(start.elapsed() < DEADLINE, "only {kept} of {count} were kept");
        tokio::time::sleep(Duration::from_millis(20)).await;
        kept = broker.depth(&aside).await.unwrap().ready;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn queues_of_other_publishers_are_used_as_they_are() {
    let server = RabbitMq::shared().await;
    let at = server.vhost().await;
    let classic = RabbitMqOptions { queue_type: QueueType::Classic, amqp_uri: at.clone(), ..options(server) };
    let theirs = RabbitMqBroker::connect(classic).await.unwrap();
    let name = queue("D0000591");
    theirs.declare(&name).await.unwrap();
    theirs.publish(vec![(name.clone(), message("a"))]).await.unwrap();
    let ours =
        RabbitMqBroker::connect(RabbitMqOptions { amqp_uri: at, management_uri: None, ..options(server) });
    let ours = ours.await.unwrap();
    ours.declare(&name).await.unwrap();
    let mut consumer = ours.consume(&name, 1).await.unwrap();
    let taken = receive(&mut *consumer, 1).await.remove(0);
    consumer.settle(vec![(taken.tag, Outcome::DeadLetter(failure()))]).await.unwrap();
    // Without the management API, what this process has used is known.
    assert_eq!(ours.depths().await.unwrap().len(), 1);
    assert_eq!(ours.dead_letter_counts().await.unwrap(), [(name, 1)]);
}

/// How many channels were opened on this server.
async fn opened(server: &RabbitMq) -> u64 {
    let said = server.ctl(&["eval", "element(4, hd(ets:tab2list(connection_churn_metrics)))."]).await;
    said.trim().parse().unwrap_or_else(|e| panic!("{said}: {e}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_queue_that_is_not_there_costs_a_channel_and_not_one_each_time() {
    let server = RabbitMq::start().await;
    let alone = RabbitMqOptions { management_uri: None, ..options(&server) };
    let broker = RabbitMqBroker::connect(alone).await.unwrap();
    let names: Vec<QueueName> = (0..20).map(|n| queue(&format!("D{n}"))).collect();
    for name in &names {
        broker.declare(name).await.unwrap();
    }
    let (before, begun) = (opened(&server).await, Instant::now());
    for _ in 0..20 {
        // None of them has had a dead letter, so no queue for those is there.
        assert_eq!(broker.dead_letter_counts().await.unwrap(), []);
        assert_eq!(broker.depths().await.unwrap().len(), names.len());
    }
    let now = opened(&server).await;
    // Each is asked for again after half a minute.
    let most = 20 * (1 + begun.elapsed().as_secs() / 30) + 2;
    assert!((20..=most).contains(&(now - before)), "{} channels for 20 queues", now - before);

    broker.publish(vec![(names[0].clone(), message("a"))]).await.unwrap();
    let mut consumer = broker.consume(&names[0], 1).await.unwrap();
    let taken = receive(&mut *consumer, 1).await.remove(0);
    consumer.settle(vec![(taken.tag, Outcome::DeadLetter(failure()))]).await.unwrap();
    assert_eq!(
        broker.dead_letter_counts().await.unwrap(),
        [(names[0].clone(), 1)],
        "made here, so known here"
    );

    server.restart().await;
    let depth = eventually(async || broker.depth(&names[1]).await).await;
    assert_eq!(depth.ready, 0, "kept channels of the connection that was lost are not used");
}

/// Declares a durable quorum queue by hand; whether the server took it.
async fn declare_by_hand(at: &str, name: &str, limit: Option<i32>) -> bool {
    let connection = lapin::Connection::connect(at, lapin::ConnectionProperties::default()).await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    let mut arguments = lapin::types::FieldTable::default();
    arguments.insert("x-queue-type".into(), lapin::types::AMQPValue::LongString("quorum".into()));
    if let Some(limit) = limit {
        arguments.insert("x-delivery-limit".into(), lapin::types::AMQPValue::LongInt(limit));
    }
    let durable = lapin::options::QueueDeclareOptions {
        durable: true,
        ..lapin::options::QueueDeclareOptions::default()
    };
    channel.queue_declare(name.into(), durable, arguments).await.is_ok()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_servers_own_limit_drops_what_is_looked_at_or_returned_often() {
    let server = RabbitMq::shared().await;
    let at = server.vhost().await;
    let broker = RabbitMqBroker::connect(RabbitMqOptions { amqp_uri: at.clone(), ..options(server) });
    let broker = broker.await.unwrap();
    let name = queue("D0000591");
    broker.declare(&name).await.unwrap();
    let letter = galerna_broker::NewDeadLetter { message: message("dead"), failure: failure(), replays: 0 };
    broker.dead_letter(&name, vec![letter]).await.unwrap();
    for made in ["D0000591", "D0000591.dead"] {
        // The server takes an existing queue's declaration only with the arguments that the queue has.
        assert!(!declare_by_hand(&at, made, None).await, "{made} has a limit of its own");
        assert!(
            declare_by_hand(&at, made, Some(1_000_000_000)).await,
            "{made} has one that is never reached"
        );
    }
    for _ in 0..25 {
        assert_eq!(broker.dead_letters(&name, 0, 10).await.unwrap().len(), 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn queues_made_before_they_had_a_limit_are_used_as_they_are() {
    let server = RabbitMq::shared().await;
    let at = server.vhost().await;
    for made in ["D0000591", "D0000591.dead"] {
        assert!(declare_by_hand(&at, made, None).await);
    }
    let broker = RabbitMqBroker::connect(RabbitMqOptions { amqp_uri: at, ..options(server) }).await.unwrap();
    let name = queue("D0000591");
    broker.declare(&name).await.unwrap();
    broker.publish(vec![(name.clone(), message("a"))]).await.unwrap();
    let mut consumer = broker.consume(&name, 1).await.unwrap();
    let taken = receive(&mut *consumer, 1).await.remove(0);
    consumer.settle(vec![(taken.tag, Outcome::DeadLetter(failure()))]).await.unwrap();
    assert_eq!(broker.dead_letters(&name, 0, 10).await.unwrap().len(), 1);
}
