//! What the embedded broker keeps when its process is killed, reopened, or out of disk.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use galerna_broker::embedded::{EmbeddedBroker, EmbeddedOptions};
use galerna_broker::{
    Broker, BrokerError, BrokerHealth, Consumer, Delivery, Depth, Failure, NewDeadLetter, Outcome,
    RetryPolicy,
};
use galerna_model::{Message, QueueName};

const WAIT: Duration = Duration::from_secs(20);

/// Names the store in the environment of the process that is to be killed.
const STORE: &str = "GALERNA_TEST_STORE";

fn queue(name: &str) -> QueueName {
    QueueName::new(name).unwrap()
}

fn message(id: &str) -> Message {
    Message { body: vec![b'x'; 200].into(), content_type: "text/plain".into(), id: id.to_owned() }
}

fn failure() -> Failure {
    Failure { reason: "busy".into(), component: "store".into() }
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

/// Everything that is ready, by id.
async fn drain(broker: &EmbeddedBroker, name: &QueueName) -> Vec<(String, u32)> {
    let mut consumer = broker.consume(name, u16::MAX).await.unwrap();
    let mut all = Vec::new();
    loop {
        let depth = broker.depth(name).await.unwrap();
        if depth == Depth::default() {
            return all;
        }
        let some = consumer.receive(1000, WAIT).await.unwrap();
        consumer.settle(some.iter().map(|d| (d.tag, Outcome::Ack)).collect()).await.unwrap();
        all.extend(some.into_iter().map(|d| (d.message.id, d.deliveries)));
    }
}

/// Runs [`the_process_that_is_killed`] in a process of its own.
fn start_victim(store: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "the_process_that_is_killed", "--nocapture"])
        .env(STORE, store)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Does nothing unless [`start_victim`] runs it: it publishes and consumes as fast as it can and tells what it has seen.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_process_that_is_killed() {
    let Ok(store) = std::env::var(STORE) else { return };
    let broker = EmbeddedBroker::open(store).unwrap();
    let tell = |line: String| {
        let mut out = std::io::stdout().lock();
        writeln!(out, "{line}").unwrap();
        out.flush().unwrap();
    };
    for name in ["held", "work"] {
        broker.declare(&queue(name)).await.unwrap();
    }
    let window = (0..10).map(|n| (queue("held"), message(&format!("held-{n}")))).collect();
    broker.publish(window).await.unwrap();
    let mut holding = broker.consume(&queue("held"), 7).await.unwrap();
    let held = receive(&mut *holding, 7).await;
    tell(format!("\nheld {}", held.len()));
    for publisher in 0..4 {
        let broker = broker.clone();
        tokio::spawn(async move {
            for window in 0.. {
                let ids: Vec<String> = (0..25).map(|n| format!("{publisher}-{window}-{n}")).collect();
                let messages = ids.iter().map(|id| (queue("work"), message(id))).collect();
                broker.publish(messages).await.unwrap();
                tell(format!("confirmed {}", ids.join(" ")));
            }
        });
    }
    let mut consumer = broker.consume(&queue("work"), 500).await.unwrap();
    loop {
        let some = consumer.receive(20, WAIT).await.unwrap();
        let ids: Vec<&str> = some.iter().map(|d| d.message.id.as_str()).collect();
        tell(format!("taken {}", ids.join(" ")));
        consumer.settle(some.iter().map(|d| (d.tag, Outcome::Ack)).collect()).await.unwrap();
        // Slower than the publishers, so that there is a backlog.
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_confirmed_survives_kill_9_under_load() {
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("queues.db");
    let mut confirmed = BTreeSet::new();
    let mut taken = BTreeSet::new();
    for round in 1..=3 {
        let mut victim = start_victim(&store);
        let mut lines = BufReader::new(victim.stdout.take().unwrap()).lines();
        let before = confirmed.len();
        let mut killed = false;
        while let Some(Ok(line)) = lines.next() {
            let mut words = line.split(' ').map(str::to_owned);
            // A line that the kill has cut short ends with an id that may be cut as well.
            let whole = !killed;
            match words.next().as_deref() {
                Some("confirmed") if whole => confirmed.extend(words.map(|id| format!("{round}-{id}"))),
                Some("taken") => taken.extend(words.map(|id| format!("{round}-{id}"))),
                _ => {}
            }
            if !killed && confirmed.len() >= before + 3000 {
                victim.kill().unwrap();
                killed = true;
            }
        }
        assert!(killed, "the process ended by itself");
        victim.wait().unwrap();
        let broker = EmbeddedBroker::open(&store).unwrap();
        for (id, deliveries) in drain(&broker, &queue("work")).await {
            assert!(deliveries <= 2, "{id} was delivered {deliveries} times");
            taken.insert(format!("{round}-{id}"));
        }
        let lost: Vec<_> = confirmed.difference(&taken).collect();
        assert!(lost.is_empty(), "round {round}: {} confirmed messages were lost: {lost:?}", lost.len());
        // Seven were delivered when the process died, three were not.
        let held: Vec<u32> =
            drain(&broker, &queue("held")).await.into_iter().map(|(_, deliveries)| deliveries).collect();
        assert_eq!(held, [2, 2, 2, 2, 2, 2, 2, 1, 1, 1]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_process_is_told_to_use_rabbitmq() {
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("queues.db");
    let mut victim = start_victim(&store);
    let mut lines = BufReader::new(victim.stdout.take().unwrap()).lines();
    while !lines.next().unwrap().unwrap().starts_with("held") {}
    let error = EmbeddedBroker::open(&store).unwrap_err().to_string();
    victim.kill().unwrap();
    victim.wait().unwrap();
    assert!(error.contains("another process has it open") && error.contains("RabbitMQ"), "{error}");
    EmbeddedBroker::open(&store).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn handles_of_one_process_share_the_store() {
    let folder = tempfile::tempdir().unwrap();
    let one = EmbeddedBroker::open(folder.path().join("queues.db")).unwrap();
    let two = EmbeddedBroker::open(folder.path().join("./queues.db")).unwrap();
    one.declare(&queue("q")).await.unwrap();
    let mut consumer = two.consume(&queue("q"), 1).await.unwrap();
    one.publish(vec![(queue("q"), message("a"))]).await.unwrap();
    assert_eq!(receive(&mut *consumer, 1).await[0].message, message("a"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_is_closed_and_opened_again_is_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("queues.db");
    let name = queue("q");
    let options = || EmbeddedOptions {
        retry: RetryPolicy { delays: vec![Duration::from_millis(300)], ..RetryPolicy::default() },
        ..EmbeddedOptions::default()
    };
    let broker = EmbeddedBroker::open_with(&store, options()).unwrap();
    broker.declare(&name).await.unwrap();
    broker.declare(&queue("empty")).await.unwrap();
    let ids = ["acked", "released", "failed", "dead", "dropped", "untouched"];
    broker.publish(ids.iter().map(|id| (name.clone(), message(id))).collect()).await.unwrap();
    let mut consumer = broker.consume(&name, 5).await.unwrap();
    let taken = receive(&mut *consumer, 5).await;
    let outcomes =
        [Outcome::Ack, Outcome::Release, Outcome::Retry(failure()), Outcome::DeadLetter(failure())];
    consumer.settle(taken.iter().map(|d| d.tag).zip(outcomes).collect()).await.unwrap();
    let letter = NewDeadLetter { message: message("added"), failure: failure(), replays: 0 };
    broker.dead_letter(&name, vec![letter]).await.unwrap();
    drop(consumer);
    drop(broker);

    let broker = EmbeddedBroker::open_with(&store, options()).unwrap();
    // The failed one may still wait for its time.
    let depth = broker.depth(&name).await.unwrap();
    assert_eq!((depth.ready, depth.unacked), (4, 0));
    assert_eq!(broker.depth(&queue("empty")).await.unwrap(), Depth::default());
    assert_eq!(broker.dead_letter_counts().await.unwrap(), [(name.clone(), 2)]);
    // The release does not count, the lost consumer does, and so does the failure.
    let mut found = drain(&broker, &name).await;
    found.sort();
    let wanted = [("dropped", 2), ("failed", 2), ("released", 1), ("untouched", 1)];
    assert_eq!(found, wanted.map(|(id, deliveries)| (id.to_owned(), deliveries)));
    let dead = broker.dead_letters(&name, 0, 10).await.unwrap();
    assert_eq!(dead.iter().map(|l| l.deliveries).collect::<Vec<_>>(), [1, 1]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_that_ends_every_consumer_becomes_a_dead_letter() {
    let folder = tempfile::tempdir().unwrap();
    let name = queue("q");
    let retry = RetryPolicy { max_returns: 4, ..RetryPolicy::default() };
    let options = EmbeddedOptions { retry, ..EmbeddedOptions::default() };
    let broker = EmbeddedBroker::open_with(folder.path().join("queues.db"), options).unwrap();
    broker.declare(&name).await.unwrap();
    broker.publish(vec![(name.clone(), message("poison")), (name.clone(), message("good"))]).await.unwrap();
    for deliveries in 1..=4 {
        let mut consumer = broker.consume(&name, 1).await.unwrap();
        let taken = receive(&mut *consumer, 1).await.remove(0);
        assert_eq!((taken.message.id.as_str(), taken.deliveries), ("poison", deliveries));
    }
    let mut consumer = broker.consume(&name, 1).await.unwrap();
    assert_eq!(receive(&mut *consumer, 1).await[0].message.id, "good");
    let dead = broker.dead_letters(&name, 0, 10).await.unwrap();
    assert_eq!(dead[0].deliveries, 4);
    assert!(dead[0].failure.reason.contains("without being settled"), "{:?}", dead[0].failure);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_refuses_messages_and_loses_none_that_were_confirmed() {
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("queues.db");
    let options = || EmbeddedOptions { max_bytes: Some(1 << 20), ..EmbeddedOptions::default() };
    let broker = EmbeddedBroker::open_with(&store, options()).unwrap();
    let name = queue("q");
    broker.declare(&name).await.unwrap();
    let mut confirmed = Vec::new();
    let error = loop {
        let ids: Vec<String> = (0..100).map(|n| (confirmed.len() + n).to_string()).collect();
        match broker.publish(ids.iter().map(|id| (name.clone(), message(id))).collect()).await {
            Ok(()) => confirmed.extend(ids),
            Err(error) => break error,
        }
        assert!(confirmed.len() < 100_000, "the disk never filled");
    };
    assert!(matches!(&error, BrokerError::Embedded { cause, .. } if cause.contains("full")), "{error}");
    assert_eq!(broker.depth(&name).await.unwrap().ready, confirmed.len() as u64);
    drop(broker);
    let broker = EmbeddedBroker::open_with(&store, options()).unwrap();
    let found: Vec<String> = drain(&broker, &name).await.into_iter().map(|(id, _)| id).collect();
    assert_eq!(found, confirmed);
    broker.ping().await.unwrap();
    // What was consumed has made room.
    broker.publish(vec![(name.clone(), message("again"))]).await.unwrap();
}

/// The paths of a store's files.
fn file(store: &Path, suffix: &str) -> std::path::PathBuf {
    std::path::PathBuf::from(format!("{}{suffix}", store.display()))
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to.parent().unwrap()).unwrap();
    for suffix in ["", "-wal", "-lock", "-marks"] {
        std::fs::copy(file(from, suffix), file(to, suffix)).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_store_is_an_error_that_names_the_file_and_never_an_empty_store() {
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("queues.db");
    let name = queue("q");
    let broker = EmbeddedBroker::open(&store).unwrap();
    broker.declare(&name).await.unwrap();
    broker.publish((0..20).map(|n| (name.clone(), message(&n.to_string()))).collect()).await.unwrap();
    // As `kill -9` would leave it: all is in the log.
    let killed = folder.path().join("killed/queues.db");
    copy(&store, &killed);
    let other = EmbeddedBroker::open(folder.path().join("other/queues.db")).unwrap();
    other.declare(&name).await.unwrap();
    let log = std::fs::read(file(&killed, "-wal")).unwrap();
    type Damage<'a> = &'a dyn Fn(&Path);
    let cases: [(&str, &str, Damage<'_>); 8] = [
        ("the log is missing", "-wal", &|s| std::fs::remove_file(file(s, "-wal")).unwrap()),
        ("the log is empty", "-wal", &|s| std::fs::write(file(s, "-wal"), b"").unwrap()),
        ("the log is cut", "-wal", &|s| std::fs::write(file(s, "-wal"), &log[..log.len() - 100]).unwrap()),
        ("the file is missing", "", &|s| std::fs::remove_file(s).unwrap()),
        ("the file is empty", "", &|s| std::fs::write(s, b"").unwrap()),
        ("the file is garbage", "", &|s| std::fs::write(s, [0x5a; 20_000]).unwrap()),
        ("the lock file is another store's", "-lock", &|s| {
            std::fs::copy(folder.path().join("other/queues.db-lock"), file(s, "-lock")).unwrap();
        }),
        ("the marks are another store's", "-marks", &|s| {
            std::fs::copy(folder.path().join("other/queues.db-marks"), file(s, "-marks")).unwrap();
        }),
    ];
    for (n, (case, suffix, damage)) in cases.into_iter().enumerate() {
        let damaged = folder.path().join(format!("damaged{n}/queues.db"));
        copy(&killed, &damaged);
        damage(&damaged);
        for _ in 0..2 {
            let error = EmbeddedBroker::open(&damaged).unwrap_err().to_string();
            let named = format!("{}: ", file(&damaged, suffix).display());
            assert!(error.contains(&named), "{case}: {error}");
        }
        // Put back, nothing is lost.
        for suffix in ["-shm", "-wal"] {
            drop(std::fs::remove_file(file(&damaged, suffix)));
        }
        copy(&killed, &damaged);
        let broker = EmbeddedBroker::open(&damaged).unwrap();
        assert_eq!(broker.depth(&name).await.unwrap().ready, 20, "{case}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_was_closed_has_all_in_its_file_and_takes_no_more() {
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("queues.db");
    let name = queue("q");
    let broker = EmbeddedBroker::open(&store).unwrap();
    broker.declare(&name).await.unwrap();
    broker.publish(vec![(name.clone(), message("a"))]).await.unwrap();
    broker.close().await.unwrap();
    let error = broker.publish(vec![(name.clone(), message("b"))]).await.unwrap_err();
    assert!(error.to_string().contains("closed"), "{error}");
    assert_eq!(std::fs::metadata(file(&store, "-wal")).map_or(0, |log| log.len()), 0);
    // Another handle can open it, while the first is still there.
    let again = EmbeddedBroker::open(&store).unwrap();
    assert_eq!(again.depth(&name).await.unwrap().ready, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_is_told_until_there_is_room_again() {
    let folder = tempfile::tempdir().unwrap();
    let options = EmbeddedOptions { max_bytes: Some(1 << 20), ..EmbeddedOptions::default() };
    let broker = EmbeddedBroker::open_with(folder.path().join("queues.db"), options).unwrap();
    let name = queue("q");
    broker.declare(&name).await.unwrap();
    assert_eq!(broker.health().await, BrokerHealth::Ready);
    let window = || (0..100).map(|n| (name.clone(), message(&n.to_string()))).collect();
    while broker.publish(window()).await.is_ok() {}
    let health = broker.health().await;
    assert!(matches!(&health, BrokerHealth::Blocked { reason } if reason.contains("full")), "{health}");
    // What is consumed makes room, which is found without anybody publishing.
    drain(&broker, &name).await;
    let deadline = std::time::Instant::now() + WAIT;
    while broker.health().await != BrokerHealth::Ready {
        assert!(std::time::Instant::now() < deadline, "{}", broker.health().await);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    broker.publish(vec![(name.clone(), message("again"))]).await.unwrap();
}
