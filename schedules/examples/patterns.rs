//! Galerna's side of `benches/peers/celery`: what goes wrong elsewhere, and how much goes through, with the queues on RabbitMQ and the
//! stores in files.
//!
//! `patterns <case> <amqp url> <number>` prints a line `RESULT <case> <value>`.

use std::collections::HashMap;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use galerna_broker::rabbitmq::{QueueType, RabbitMqBroker, RabbitMqOptions};
use galerna_broker::{Broker, Outcome};
use galerna_delay::{DelayOptions, DelayStore, Item, Limit, Permit, RateLimits};
use galerna_fan_in::sqlite::SqliteFanIns;
use galerna_fan_in::{FanIn, FanInOptions, Part, Plan, Policy};
use galerna_model::{Clock, Message, QueueName, SystemClock};
use galerna_schedules::sqlite::SqliteSchedules;
use galerna_schedules::{
    Definition, QueuePublisher, Runner, RunnerOptions, ScheduleId, ScheduleStore, Schedules,
};
use serde_json::json;
use tokio_util::sync::CancellationToken;

const PARTS: usize = 100;

/// What came of a part.
type Told = (String, Result<serde_json::Value, String>);

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [case, amqp, number] = arguments.as_slice() else { bail!("patterns <case> <amqp url> <number>") };
    let number: u64 = number.parse().context("the number is no number")?;
    let folder = tempfile::tempdir()?;
    match case.as_str() {
        "fan-in" => fan_in(amqp, folder.path(), number).await,
        "firing" => firing(amqp, folder.path(), number).await,
        "rate" => rate(amqp, folder.path(), number).await,
        "cut" => cut(amqp, folder.path()).await,
        "cut-begin" => cut_begin(amqp, Path::new(&std::env::var("FOLDER")?)).await,
        "eta" => eta(folder.path(), number).await,
        "twice" => twice(folder.path(), number).await,
        "limit" => limit(folder.path(), number).await,
        other => bail!("there is no case `{other}`"),
    }
}

async fn queue(amqp: &str, name: &str) -> anyhow::Result<(Arc<dyn Broker>, QueueName)> {
    let mut options = RabbitMqOptions::new(amqp);
    options.queue_type = QueueType::Classic;
    let broker: Arc<dyn Broker> = Arc::new(RabbitMqBroker::connect(options).await?);
    let queue = QueueName::new(name)?;
    broker.declare(&queue).await?;
    Ok((broker, queue))
}

fn plan(id: String, deadline: Duration) -> Plan {
    Plan {
        id,
        parts: (0..PARTS).map(|n| n.to_string()).collect(),
        policy: Policy::All,
        deadline: SystemClock.now().plus_millis(i64::try_from(deadline.as_millis()).unwrap_or(i64::MAX)),
        payload: json!(null),
    }
}

fn opened(folder: &Path) -> anyhow::Result<FanIn> {
    let store = Arc::new(SqliteFanIns::open(&folder.join("fan_ins.db"))?);
    Ok(FanIn::new(store, Arc::new(SystemClock), FanInOptions::default()))
}

fn part(of: &str, n: usize) -> Message {
    Message {
        body: format!("{of} {n}").into(),
        content_type: "text/plain".to_owned(),
        id: format!("{of}/{n}"),
    }
}

/// Takes what is in a queue, reports it, and acks it then.
async fn work(broker: &dyn Broker, queue: &QueueName, fan_in: &FanIn, parts: usize) -> anyhow::Result<()> {
    let mut consumer = broker.consume(queue, 1_000).await?;
    let mut left = parts;
    while left > 0 {
        let deliveries = consumer.receive(1_000, Duration::from_secs(30)).await?;
        ensure!(!deliveries.is_empty(), "{left} parts did not come");
        let mut by_fan_in: HashMap<String, Vec<Told>> = HashMap::new();
        for delivery in &deliveries {
            let text = std::str::from_utf8(&delivery.message.body)?;
            let (of, n) = text.split_once(' ').context("two words")?;
            by_fan_in.entry(of.to_owned()).or_default().push((n.to_owned(), Ok(json!(1))));
        }
        let reports: Vec<_> = by_fan_in.iter().map(|(of, parts)| fan_in.report_all(of, parts)).collect();
        for report in futures_util::future::join_all(reports).await {
            report?;
        }
        left -= deliveries.len();
        consumer
            .settle(deliveries.into_iter().map(|delivery| (delivery.tag, Outcome::Ack)).collect())
            .await?;
    }
    consumer.close().await?;
    Ok(())
}

/// Parts a second of so many fan-ins, from their begin to the end that is acted on.
async fn fan_in(amqp: &str, folder: &Path, number: u64) -> anyhow::Result<()> {
    let (broker, queue) = queue(amqp, "patterns-fan-in").await?;
    let fan_in = opened(folder)?;
    let mut ends = opened(folder)?;
    let began = Instant::now();
    let publishing = async {
        for n in 0..number {
            let id = format!("f{n}");
            fan_in.begin(plan(id.clone(), Duration::from_secs(600))).await?;
            broker.publish((0..PARTS).map(|part_n| (queue.clone(), part(&id, part_n))).collect()).await?;
        }
        anyhow::Ok(())
    };
    let parts = usize::try_from(number)? * PARTS;
    let ending = async {
        let mut acted = 0;
        while acted < number {
            for ended in ends.ended(100).await? {
                ensure!(ended.record.counts().0 == PARTS, "{} ended with {:?}", ended.record.id, ended.end);
                ends.settle(&ended).await?;
                acted += 1;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        anyhow::Ok(())
    };
    let working = work(&*broker, &queue, &fan_in, parts);
    tokio::try_join!(publishing, working, ending)?;
    println!("RESULT fan-in {:.0}", f64::from(u32::try_from(parts)?) / began.elapsed().as_secs_f64());
    Ok(())
}

/// Firings a second that come to the queue, of so many schedules that fire each second.
async fn firing(amqp: &str, folder: &Path, number: u64) -> anyhow::Result<()> {
    let (broker, queue) = queue(amqp, "patterns-firing").await?;
    let store: Arc<dyn ScheduleStore> = Arc::new(SqliteSchedules::open(&folder.join("schedules.db"))?);
    let schedules = Schedules::new(Arc::clone(&store), Arc::new(SystemClock));
    for n in 0..number {
        let every = Definition::every(Duration::from_secs(1)).payload(json!({ "queue": queue, "body": n }));
        schedules.add(ScheduleId::new(format!("s{n}"))?, every).await?;
    }
    let publisher = QueuePublisher::new(Arc::clone(&broker));
    let stop = CancellationToken::new();
    let runner = Runner::new(
        store,
        Arc::new(SystemClock),
        RunnerOptions { concurrency: 1_000, ..RunnerOptions::default() },
    );
    let running = runner.run(stop.clone(), move |firing, _| {
        let publisher = publisher.clone();
        async move { publisher.publish(&firing).await }
    });
    let counting = async {
        let mut consumer = broker.consume(&queue, 1_000).await?;
        let seconds = 10;
        let until = Instant::now() + Duration::from_secs(seconds);
        let mut came = 0_u32;
        while let Some(left) = until.checked_duration_since(Instant::now()) {
            let deliveries = consumer.receive(1_000, left.min(Duration::from_millis(200))).await?;
            came += u32::try_from(deliveries.len())?;
            consumer
                .settle(deliveries.into_iter().map(|delivery| (delivery.tag, Outcome::Ack)).collect())
                .await?;
        }
        stop.cancel();
        println!("RESULT firing {:.0}", f64::from(came) / f64::from(u32::try_from(seconds)?));
        anyhow::Ok(())
    };
    tokio::join!(running, counting).1
}

/// Calls a second under a limit that lets all through: each a message of a queue, which asks and is acked when it has made its call.
async fn rate(amqp: &str, folder: &Path, number: u64) -> anyhow::Result<()> {
    let (broker, queue) = queue(amqp, "patterns-rate").await?;
    let limits = RateLimits::open(&folder.join("limits.db"), Arc::new(SystemClock))?;
    let limit = [Limit::new("calls", "host", 900_000, Duration::from_secs(1))];
    let calls = usize::try_from(number)?;
    let began = Instant::now();
    let publishing = async {
        for from in (0..calls).step_by(1_000) {
            let messages = (from..calls.min(from + 1_000)).map(|n| (queue.clone(), part("call", n)));
            broker.publish(messages.collect()).await?;
        }
        anyhow::Ok(())
    };
    let calling = async {
        let mut consumer = broker.consume(&queue, 1_000).await?;
        let mut left = calls;
        while left > 0 {
            let deliveries = consumer.receive(1_000, Duration::from_secs(30)).await?;
            ensure!(!deliveries.is_empty(), "{left} calls did not come");
            let asked = deliveries.iter().map(|_| async {
                while let Permit::After(wait) = limits.ask(&limit).await? {
                    tokio::time::sleep(wait).await;
                }
                anyhow::Ok(())
            });
            futures_util::future::try_join_all(asked).await?;
            left -= deliveries.len();
            consumer
                .settle(deliveries.into_iter().map(|delivery| (delivery.tag, Outcome::Ack)).collect())
                .await?;
        }
        consumer.close().await?;
        anyhow::Ok(())
    };
    tokio::try_join!(publishing, calling)?;
    println!("RESULT rate {:.0}", f64::from(u32::try_from(number)?) / began.elapsed().as_secs_f64());
    Ok(())
}

/// Begins a fan-in, sends 40 of its 100 parts, and is gone.
async fn cut_begin(amqp: &str, folder: &Path) -> anyhow::Result<()> {
    let (broker, queue) = queue(amqp, "patterns-cut").await?;
    opened(folder)?.begin(plan("cut".to_owned(), Duration::from_secs(10))).await?;
    broker.publish((0..40).map(|n| (queue.clone(), part("cut", n))).collect()).await?;
    std::process::abort();
}

/// Ends of a fan-in whose creation was cut short.
async fn cut(amqp: &str, folder: &Path) -> anyhow::Result<()> {
    let begin = Command::new(std::env::current_exe()?)
        .args(["cut-begin", amqp, "0"])
        .env("FOLDER", folder)
        .status()?;
    ensure!(!begin.success(), "it was to be killed");
    let (broker, queue) = queue(amqp, "patterns-cut").await?;
    let mut fan_in = opened(folder)?;
    work(&*broker, &queue, &fan_in, 40).await?;
    let began = Instant::now();
    let mut ends = 0;
    while began.elapsed() < Duration::from_secs(20) {
        for ended in fan_in.ended(10).await? {
            let waiting = ended.record.parts.values().filter(|part| **part == Part::Waiting).count();
            eprintln!(
                "it ended as {:?}: {} parts done, {waiting} never came",
                ended.end,
                ended.record.counts().0
            );
            fan_in.settle(&ended).await?;
            ends += 1;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    println!("RESULT cut {ends}");
    Ok(())
}

/// How often each of 20 items is claimed that two processes wait for, for so many seconds.
async fn eta(folder: &Path, seconds: u64) -> anyhow::Result<()> {
    let open = || {
        // A lease of 3 s, and items that are due after four times that.
        let options = DelayOptions { lease: Duration::from_secs(3), ..DelayOptions::default() };
        DelayStore::open(&folder.join("delayed.db"), Arc::new(SystemClock), options)
    };
    let (mut one, mut two) = (open()?, open()?);
    let due = SystemClock.now().plus_millis(12_000);
    one.put((0..20).map(|n| Item::new(n.to_string(), due, json!(n))).collect()).await?;
    let (began, mut claims) = (Instant::now(), 0_u32);
    while began.elapsed() < Duration::from_secs(seconds) {
        for store in [&mut one, &mut two] {
            for taken in store.claim(10).await? {
                claims += 1;
                store.settle(&taken, &Ok(())).await?;
            }
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    println!("RESULT eta {:.2}", f64::from(claims) / 20.0);
    Ok(())
}

/// Firings of each second, with two processes that fire the same schedule for so many seconds.
async fn twice(folder: &Path, seconds: u64) -> anyhow::Result<()> {
    let open = || SqliteSchedules::open(&folder.join("schedules.db"));
    let schedules = Schedules::new(Arc::new(open()?), Arc::new(SystemClock));
    schedules.add(ScheduleId::new("secondly")?, Definition::every(Duration::from_secs(1))).await?;
    let (stop, fired) = (CancellationToken::new(), Arc::new(AtomicU64::new(0)));
    let process = |store: SqliteSchedules| {
        let (stop, fired) = (stop.clone(), Arc::clone(&fired));
        let runner = Runner::new(Arc::new(store), Arc::new(SystemClock), RunnerOptions::default());
        runner.run(stop, move |_, _| {
            fired.fetch_add(1, Ordering::Relaxed);
            async { Ok(()) }
        })
    };
    let ending = async {
        tokio::time::sleep(Duration::from_secs(seconds)).await;
        stop.cancel();
    };
    tokio::join!(process(open()?), process(open()?), ending);
    let fired = u32::try_from(fired.load(Ordering::Relaxed))?;
    println!("RESULT twice {:.2}", f64::from(fired) / f64::from(u32::try_from(seconds)?));
    Ok(())
}

/// Calls a second under a limit of 5 a second, by one and then by two that share it, for so many seconds each.
async fn limit(folder: &Path, seconds: u64) -> anyhow::Result<()> {
    let open = || RateLimits::open(&folder.join("limits.db"), Arc::new(SystemClock));
    let caller = |limits: RateLimits, until: Instant| async move {
        let limit = [Limit::new("calls", "host", 5, Duration::from_secs(1)).burst(1)];
        let mut calls = 0_u32;
        while Instant::now() < until {
            match limits.ask(&limit).await? {
                Permit::Granted => calls += 1,
                Permit::After(wait) => tokio::time::sleep(wait).await,
            }
        }
        anyhow::Ok(calls)
    };
    let until = || Instant::now() + Duration::from_secs(seconds);
    let alone = caller(open()?, until()).await?;
    let (one, two) = tokio::try_join!(caller(open()?, until()), caller(open()?, until()))?;
    let rate = |calls: u32| anyhow::Ok(f64::from(calls) / f64::from(u32::try_from(seconds)?));
    println!("RESULT limit {:.1} / {:.1}", rate(alone)?, rate(one + two)?);
    Ok(())
}
