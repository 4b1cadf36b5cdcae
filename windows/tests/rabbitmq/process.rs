//! The process that is killed, and how it is told what to do.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use galerna_broker::RetryPolicy;
use galerna_broker::rabbitmq::{RabbitMqBroker, RabbitMqOptions};
use galerna_dispatcher::{Dispatcher, DispatcherOptions};
use galerna_engine::{CheckpointOptions, Engine, EngineOptions};
use galerna_model::{AccountId, QueueName, Timestamp};
use galerna_storage::QueueRecord;

use crate::place::Place;
use crate::topology::topology;

const PLACE: &str = "GALERNA_KILLS_PLACE";
const BROKER: &str = "GALERNA_KILLS_BROKER";
const QUEUES: &str = "GALERNA_KILLS_QUEUES";

/// How long a test waits for a process, in real time.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// Whether this process is one that is killed.
pub(crate) fn is_child() -> bool {
    std::env::var(PLACE).is_ok()
}

pub(crate) async fn broker(amqp_uri: &str) -> RabbitMqBroker {
    // Whoever is killed returns what it had: here that is nobody's fault.
    let retry = RetryPolicy { max_returns: u32::MAX, ..RetryPolicy::default() };
    let options = RabbitMqOptions { retry, ..RabbitMqOptions::new(amqp_uri) };
    RabbitMqBroker::connect(options).await.expect("RabbitMQ")
}

/// Runs the topology until it is told to drain, or is killed.
pub(crate) async fn run() {
    let of = |name: &str| std::env::var(name).expect("it is told");
    let drain = Arc::new(AtomicBool::new(false));
    let told = drain.clone();
    std::thread::spawn(move || {
        // The end of its input, too: nobody is there any more.
        let _ = std::io::stdin().read_line(&mut String::new());
        told.store(true, Ordering::SeqCst);
    });
    let broker = Arc::new(broker(&of(BROKER)).await);
    // Whoever had the queues before is dead.
    let store = galerna_storage::sqlite::in_memory().expect("a store");
    let queues = of(QUEUES);
    let records = queues.split(' ').map(|name| {
        let (queue, account) = (QueueName::new(name).expect("a name"), AccountId::new(name).expect("a name"));
        QueueRecord::new(queue, account, Timestamp(0))
    });
    store.queues.create(&records.collect::<Vec<_>>()).await.expect("created");
    let dispatcher = Dispatcher::open(&store, DispatcherOptions::default()).await.expect("a dispatcher");
    let place = Place::from_text(&of(PLACE));
    let checkpoints = CheckpointOptions {
        // Acks are lost that are as old as that on a slow machine.
        redelivery: Duration::from_secs(600),
        ..CheckpointOptions::shared(place.open().await).every(Duration::from_millis(15))
    };
    let options = EngineOptions { checkpoints: Some(checkpoints), ..EngineOptions::default() };
    let running = Engine::submit(topology(broker, Arc::new(dispatcher)), options).await.expect("submitted");
    while !drain.load(Ordering::SeqCst) {
        let metrics = running.metrics();
        let committed = metrics.checkpoints.as_ref().map_or(0, |checkpoints| checkpoints.committed);
        let executed = metrics.component("ids").map_or(0, |ids| ids.executed);
        let watermark = |id: &str| metrics.component(id).and_then(|window| window.watermark.clone()?.at_ms);
        let watermark = watermark("sum").min(watermark("session")).unwrap_or(i64::MIN);
        println!("\nstatus {committed} {executed} {watermark}");
        tokio::time::sleep(Duration::from_millis(3)).await;
    }
    let report = running.drain(Duration::from_secs(60)).await;
    assert!(report.drained, "{report:#?}");
    // Nobody reads its output any more, which would be an error of the test's.
    std::process::exit(0);
}

/// How far a process is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Status {
    /// Checkpoints that it has committed.
    pub(crate) committed: u64,
    /// Messages that it has worked on.
    pub(crate) executed: u64,
    /// The least of its windows'.
    pub(crate) watermark: i64,
}

/// A process, which ends however the test does.
pub(crate) struct Process {
    child: Child,
    stdin: Option<ChildStdin>,
    status: Receiver<Status>,
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

impl Process {
    pub(crate) fn start(test: &str, place: &Place, amqp_uri: &str, queues: &[QueueName]) -> Self {
        let queues: Vec<&str> = queues.iter().map(QueueName::as_str).collect();
        let mut child = Command::new(std::env::current_exe().expect("this program"))
            .args([test, "--exact", "--nocapture"])
            .env(PLACE, place.to_text())
            .env(BROKER, amqp_uri)
            .env(QUEUES, queues.join(" "))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("started");
        let (sender, status) = channel();
        let lines = BufReader::new(child.stdout.take().expect("its output")).lines();
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let numbers: Vec<i64> = match line.strip_prefix("status ") {
                    Some(numbers) => numbers.split(' ').filter_map(|number| number.parse().ok()).collect(),
                    None => continue,
                };
                if let [committed, executed, watermark] = numbers[..] {
                    let (committed, executed) = (committed as u64, executed as u64);
                    // It is read to its end, whoever still listens.
                    let _ = sender.send(Status { committed, executed, watermark });
                }
            }
        });
        Self { stdin: child.stdin.take(), child, status }
    }

    /// Waits until it has come so far.
    pub(crate) fn until(&self, what: &str, reached: impl Fn(Status) -> bool) {
        let begun = Instant::now();
        let mut last = None;
        loop {
            let left = PATIENCE.saturating_sub(begun.elapsed());
            match self.status.recv_timeout(left) {
                Ok(status) if reached(status) => return,
                Ok(status) => last = Some(status),
                Err(RecvTimeoutError::Timeout) => panic!("waited in vain until {what}: {last:?}"),
                Err(RecvTimeoutError::Disconnected) => panic!("it ended before {what}: {last:?}"),
            }
        }
    }

    /// Has it drain, and waits for its end.
    pub(crate) fn drain(mut self) {
        let mut stdin = self.stdin.take().expect("its input");
        stdin.write_all(b"drain\n").expect("told");
        let ended = self.child.wait().expect("it ends");
        assert!(ended.success(), "{ended}");
    }
}
