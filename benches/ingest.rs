//! RabbitMQ to MongoDB: Galerna's ingestion beside the bare loop that only consumes, inserts and acks.
//!
//! Each round fills one queue with the same messages for each side, then times how long it takes until the last is acked.
//! The sides take turns within one run, so that the machine's mood strikes both. The bare loop checks nothing; Galerna
//! leases the queue, validates, finds out which readings are new, evaluates alert rules and tracks every message.
//!
//! ```text
//! cargo bench --bench ingest -- --readings 300000 --rounds 5
//! ```
//!
//! It has a `main` of its own instead of criterion's: a sample takes seconds and must not be repeated a hundred times.

#[path = "peers/bare_loop.rs"]
mod bare_loop;

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use galerna::bolts::{AlertOptions, StoreOptions};
use galerna::broker::Depth;
use galerna::dispatcher::{Dispatcher, DispatcherOptions, StrategyName};
use galerna::ingest::prelude::*;
use galerna::ingest::{self, Ingestion};
use galerna::model::SystemClock;
use galerna::model::{Comparison, Condition, Rule, Severity};
use galerna::model::{ParameterRegistry, ValidationLimits};
use galerna::prelude::*;
use galerna::storage::QueueRecord;
use galerna_test_servers::{Mongo, RabbitMq, unique};

/// What a message holds.
#[derive(Clone, Copy)]
enum Form {
    /// One reading, as JSON.
    Json,
    /// An envelope of so many readings.
    Envelope(usize),
}

impl Form {
    fn name(self) -> String {
        match self {
            Self::Json => "one JSON reading a message".to_owned(),
            Self::Envelope(n) => format!("envelopes of {n}"),
        }
    }

    fn messages(self, readings: usize) -> Result<Vec<Message>> {
        let per = match self {
            Self::Json => 1,
            Self::Envelope(n) => n,
        };
        (0..readings.div_ceil(per))
            .map(|m| {
                let of_message: Vec<Reading> =
                    (m * per..((m + 1) * per).min(readings)).map(reading).collect();
                Ok(match self {
                    Self::Json => Message {
                        body: serde_json::to_vec(&of_message[0])?.into(),
                        content_type: "application/json".to_owned(),
                        id: format!("m{m}"),
                    },
                    Self::Envelope(_) => Envelope {
                        id: format!("m{m}"),
                        account: AccountId::new("bench")?,
                        source: SourceId::new("bench")?,
                        received: Timestamp(1_486_000_000_000),
                        readings: of_message,
                    }
                    .encode(),
                })
            })
            .collect()
    }
}

/// The n-th reading: a hundred devices, a minute apart, a counter and a power each.
fn reading(n: usize) -> Reading {
    let (device, minute) = (n % 100, n / 100);
    Reading {
        did: format!("meter_{device:03}.elec"),
        values: vec![
            Measurement { p: ParameterCode(402), v: 1_000.0 + minute as f64 * 0.25 },
            Measurement { p: ParameterCode(401), v: 15_000.0 + (n % 977) as f64 },
        ],
        sqn: minute as u64 + 1,
        ts: Timestamp(1_480_000_000_000 + minute as i64 * 60_000),
    }
}

/// Rules that match every device and mostly stay quiet, as rules do.
fn rules() -> Vec<Rule> {
    let rule = |id: &str, condition| Rule {
        id: id.to_owned(),
        name: id.to_owned(),
        account: None,
        devices: "*".to_owned(),
        condition,
        severity: Severity::Warning,
        endpoints: Vec::new(),
        cooldown_ms: 0,
        enabled: true,
    };
    let threshold = |limit, clear| Condition::Threshold {
        parameter: ParameterCode(401),
        comparison: Comparison::Above,
        limit,
        clear: Some(clear),
        for_ms: 0,
    };
    vec![rule("high", threshold(40_000.0, 35_000.0)), rule("very-high", threshold(80_000.0, 70_000.0))]
}

async fn fill(broker: &dyn Broker, queue: &QueueName, form: Form, readings: usize) -> Result<usize> {
    broker.declare(queue).await?;
    let messages = form.messages(readings)?;
    let count = messages.len();
    for window in messages.chunks(2_000) {
        broker.publish(window.iter().map(|m| (queue.clone(), m.clone())).collect()).await?;
    }
    let deadline = Instant::now() + Duration::from_secs(30);
    while broker.depth(queue).await? != (Depth { ready: count as u64, ..Depth::default() })
        && Instant::now() < deadline
    {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Ok(count)
}

async fn galerna(
    mongo: &str,
    broker: Arc<dyn Broker>,
    queue: &QueueName,
    messages: usize,
) -> Result<Duration> {
    let database = unique("ingest");
    let store = galerna::storage::open(&format!("{}/{database}", mongo.trim_end_matches('/'))).await?;
    for rule in rules() {
        store.rules.put(&rule).await?;
    }
    let account = AccountId::new("bench")?;
    store.queues.create(&[QueueRecord::new(queue.clone(), account.clone(), SystemClock.now())]).await?;
    let options = DispatcherOptions { strategy: StrategyName::Fifo, ..DispatcherOptions::default() };
    let dispatcher = Dispatcher::open(&store, options).await?;
    let ingestion = Ingestion {
        consumer: "bench".to_owned(),
        broker,
        leases: Arc::new(dispatcher.clone()),
        store: store.clone(),
        account_of: Arc::new(move |_| Some(account.clone())),
        parameters: Arc::new(ParameterRegistry::built_in()),
        limits: ValidationLimits::default(),
        leasing: LeasedOptions {
            messages_per_lease: usize::MAX,
            prefetch: 5_000,
            ..LeasedOptions::default()
        },
        storing: StoreOptions::default(),
        alerting: AlertOptions::default(),
        parallelism: 1,
        max_pending: 10_000,
        message_timeout: Duration::from_secs(60),
    };
    let started = Instant::now();
    let running = Engine::submit(ingest::topology(&ingestion)?, EngineOptions::default()).await?;
    loop {
        let metrics = running.metrics();
        let spout = metrics.component("readings").context("the spout's metrics")?;
        anyhow::ensure!(spout.failures() == 0, "a message failed: {:?}", metrics.component("store"));
        if spout.acked as usize >= messages {
            break;
        }
        anyhow::ensure!(
            started.elapsed() < Duration::from_secs(300),
            "only {} of {messages} messages",
            spout.acked
        );
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let took = started.elapsed();
    running.drain(Duration::from_secs(20)).await;
    dispatcher.shutdown().await;
    Ok(took)
}

/// Processor seconds used so far by this process, by RabbitMQ and by MongoDB: what a rate costs, however busy the machine is
/// with other things. Read from Linux's `/proc`; zeros elsewhere.
#[derive(Clone, Copy, Default)]
struct Cpu([f64; 3]);

impl Cpu {
    fn now() -> Self {
        let own = std::process::id().to_string();
        let mut seconds = [0.0; 3];
        let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
        for name in processes.filter_map(|entry| entry.file_name().into_string().ok()) {
            let Ok(stat) = std::fs::read_to_string(format!("/proc/{name}/stat")) else { continue };
            let Some((command, fields)) = stat.rsplit_once(") ") else { continue };
            let at = match command {
                _ if name == own => 0,
                _ if command.ends_with("(beam.smp") => 1,
                _ if command.ends_with("(mongod") => 2,
                _ => continue,
            };
            // Fields 14 and 15: ticks of a hundredth of a second in user and in system mode.
            let ticks: f64 = fields.split(' ').skip(11).take(2).filter_map(|t| t.parse::<f64>().ok()).sum();
            seconds[at] += ticks / 100.0;
        }
        Self(seconds)
    }

    /// Microseconds a reading since `self`: this process, RabbitMQ, MongoDB.
    fn since(self, readings: usize) -> String {
        let now = Self::now();
        let each = std::array::from_fn::<_, 3, _>(|i| (now.0[i] - self.0[i]) * 1e6 / readings as f64);
        format!("{:.1} + {:.1} + {:.1} us", each[0], each[1], each[2])
    }
}

fn argument(name: &str, default: usize) -> usize {
    let mut arguments = std::env::args().skip_while(|a| a != name).skip(1);
    arguments.next().and_then(|value| value.parse().ok()).unwrap_or(default)
}

#[tokio::main]
async fn main() -> Result<()> {
    galerna_tls::install_default_provider();
    let (readings, rounds) = (argument("--readings", 200_000), argument("--rounds", 3));
    let (rabbit, mongo) = (RabbitMq::shared().await, Mongo::shared().await);
    let amqp = rabbit.vhost().await;
    let broker = galerna::broker::open(&amqp).await?;
    let client = mongodb::Client::with_uri_str(mongo.uri()).await?;
    let bare = client.database(&unique("bare"));

    println!("{readings} readings a round, {rounds} rounds, sides in turn");
    println!("in brackets: processor time a reading of the client, of RabbitMQ and of MongoDB");
    for form in [Form::Envelope(100), Form::Json] {
        let (mut ratios, mut rates) = (Vec::new(), Vec::new());
        for round in 0..=rounds {
            let queue = QueueName::new(unique("bare"))?;
            fill(&*broker, &queue, form, readings).await?;
            let before = Cpu::now();
            let floor = bare_loop::run(&amqp, queue.as_str(), &bare.collection(&unique("r")), readings).await;
            let floor_cpu = before.since(readings);
            broker.delete(&queue, galerna::broker::DeleteWhen::Always).await?;

            let queue = QueueName::new(unique("galerna"))?;
            let messages = fill(&*broker, &queue, form, readings).await?;
            let before = Cpu::now();
            let ours = galerna(&mongo.uri(), broker.clone(), &queue, messages).await?;
            let our_cpu = before.since(readings);
            broker.delete(&queue, galerna::broker::DeleteWhen::Always).await?;

            let rate = |took: Duration| readings as f64 / took.as_secs_f64();
            let (floor, ours) = (rate(floor), rate(ours));
            let what = if round == 0 { "warm-up" } else { "round" };
            println!(
                "{} {what} {round}: bare loop {floor:.0}/s ({floor_cpu}), galerna {ours:.0}/s ({our_cpu}), ratio {:.2}",
                form.name(),
                ours / floor
            );
            if round > 0 {
                ratios.push(ours / floor);
                rates.push((floor, ours));
            }
        }
        ratios.sort_by(f64::total_cmp);
        let middle = ratios.len() / 2;
        println!("{}: median ratio {:.2} of {} rounds", form.name(), ratios[middle], rates.len());
    }
    Ok(())
}
