//! A drill from its start to its report.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bson::{Document, doc};
use serde_json::Value;

use crate::cluster::{Cluster, DATABASE, DEADLINE, until};
use crate::faults::{Fault, Plan};
use crate::leases::Leases;
use crate::load::Load;
use crate::report::{Report, Row};
use crate::stored::{Growth, Stored, estimate};

/// How a drill is run.
#[derive(Clone, Debug)]
pub struct Options {
    /// The program `galerna`.
    pub galerna: PathBuf,
    /// Where the nodes have their folders; it is kept.
    pub folder: PathBuf,
    /// What goes wrong.
    pub plan: Plan,
    /// Accounts, each with a queue and with a client that posts.
    pub accounts: usize,
    /// Between two calls of a client, each of ten readings.
    pub pause: Duration,
    /// Length of a lease.
    pub lease: Duration,
}

impl Options {
    /// The default load, for a plan.
    #[must_use]
    pub fn new(galerna: PathBuf, folder: PathBuf, plan: Plan) -> Self {
        let (pause, lease) = (Duration::from_millis(400), Duration::from_secs(10));
        Self { galerna, folder, plan, accounts: 10, pause, lease }
    }
}

/// Runs a drill, which has to be in [`crate::namespace`].
///
/// # Errors
/// When the cluster does not start, does not recover in time after a fault, or refuses good readings.
pub async fn run(options: &Options) -> Result<Report> {
    ensure!(crate::namespace::is_inside(), "a drill runs in namespaces of its own: see `namespace::enter`");
    // Of the two that HTTP and MongoDB clients bring along.
    rustls::crypto::ring::default_provider().install_default().ok();
    let began = Instant::now();
    let mut cluster =
        Cluster::start(&options.folder, &options.galerna, options.accounts, options.lease).await?;
    eprintln!("three nodes run after {:.0?}", began.elapsed());
    let mut leases = Leases::watch(cluster.mongo.clone());
    leases.start_clients(cluster.alive(), options.lease)?;
    let growth = Growth::watch(cluster.mongo.clone());
    let began = Instant::now();
    let mut load = Load::start(options.accounts, cluster.alive(), options.pause)?;
    until("the first readings are stored", || async { Ok(estimate(&cluster.mongo).await? > 0) }).await?;
    let mut report = Report::default();
    for (turn, (fault, lasting)) in options.plan.0.iter().enumerate() {
        let row = phase(*fault, *lasting, turn, began, &mut cluster, &mut load, &leases, &growth).await;
        let row = row
            .with_context(|| format!("{fault} ({} s after the first reading)", began.elapsed().as_secs()))?;
        eprintln!("{fault}: {row:?}");
        report.rows.push(row);
    }
    leases.end_clients().await;
    load.end().await?;
    until("everything accepted is stored", || async { Ok(missing(&cluster, &load).await? == 0) }).await?;
    until("no message is left in any queue", || async { Ok(left_over(&cluster).await?.is_empty()) })
        .await
        .ok();
    report.violations.extend(left_over(&cluster).await?);
    seen_all(&cluster, &leases).await?;
    report.violations.extend(leases.violations());
    let counted = leases.count();
    (report.leases, report.expired, report.compared) = (counted.granted, counted.expired, counted.held);
    report.repeated = load.tally().repeated;
    Ok(report)
}

#[expect(clippy::too_many_arguments, reason = "the parts of one run")]
async fn phase(
    fault: Fault,
    lasting: Duration,
    turn: usize,
    start: Instant,
    cluster: &mut Cluster,
    load: &mut Load,
    leases: &Leases,
    growth: &Growth,
) -> Result<Row> {
    load.tally().take_gap();
    growth.take_gap();
    let before = load.tally().accepted.clone();
    let began = Instant::now();
    if fault == Fault::NodeLost {
        let left: Vec<usize> = cluster.alive().into_iter().filter(|n| *n != turn % 3 + 1).collect();
        load.set_frontends(left.clone());
        leases.set_dispatchers(left);
    }
    let place = fault.happen(cluster, lasting, turn).await?;
    let lasted = began.elapsed();
    cluster.is_ready().await?;
    let more = load.tally().accepted.len() + 10;
    until("readings are accepted again", || async { Ok(load.tally().accepted.len() >= more) }).await?;
    let accepted = load.tally().accepted.clone();
    until("everything accepted is stored", || async {
        // Before all of them are read.
        Ok(estimate(&cluster.mongo).await? >= accepted.len() as u64
            && Stored::read(&cluster.mongo).await?.count(&accepted) == accepted.len() as u64)
    })
    .await
    // What is lost is in the table.
    .ok();
    let recovered = began.elapsed() - lasted;
    load.check().await?;
    let stored = Stored::read(&cluster.mongo).await?;
    let in_fault = accepted.difference(&before).cloned().collect();
    let mut tally = load.tally();
    Ok(Row {
        fault: fault.to_string(),
        place,
        began: began - start,
        lasted,
        recovered,
        accepted: accepted.len() as u64 - before.len() as u64,
        stored: stored.count(&in_fault),
        lost: accepted.len() as u64 - stored.count(&accepted),
        doubled: stored.doubled() + stored.unknown(&tally.posted),
        longest_without_accepted: tally.take_gap(),
        longest_without_stored: growth.take_gap(),
    })
}

async fn missing(cluster: &Cluster, load: &Load) -> Result<u64> {
    let stored = Stored::read(&cluster.mongo).await?;
    let tally = load.tally();
    Ok(tally.accepted.len() as u64 - stored.count(&tally.accepted))
}

/// Queues that still have messages, dead letters among them.
async fn left_over(cluster: &Cluster) -> Result<Vec<String>> {
    let node = *cluster.alive().first().context("no node is left")?;
    // After a fault it may take long to answer, and longer beside other programs.
    let began = Instant::now();
    let queues = loop {
        match cluster.rabbitmq(node, "/api/queues?columns=name,messages").await {
            Ok(queues) => break queues,
            Err(error) if began.elapsed() > DEADLINE => return Err(error),
            Err(_) => tokio::time::sleep(Duration::from_secs(1)).await,
        }
    };
    let left = |queue: &Value| {
        let messages = queue["messages"].as_u64().unwrap_or(0);
        (messages > 0).then(|| format!("queue {} has {messages} messages left", queue["name"]))
    };
    Ok(queues.as_array().into_iter().flatten().filter_map(left).collect())
}

/// Waits until the change stream has come to what the store has now.
async fn seen_all(cluster: &Cluster, leases: &Leases) -> Result<()> {
    let queues = cluster.mongo.database(DATABASE).collection::<Document>("queue_states");
    let mut found = queues.find(doc! {}).await?;
    let mut now = Vec::new();
    while found.advance().await? {
        let queue: Document = found.deserialize_current()?;
        let epoch = queue.get_document("record").ok().and_then(|record| record.get_i64("epoch").ok());
        now.push((queue.get_str("_id")?.to_owned(), epoch.unwrap_or(0)));
    }
    until("the change stream has come to its end", || async {
        let seen = leases.epochs();
        Ok(now.iter().all(|(queue, epoch)| *epoch == 0 || seen.get(queue).is_some_and(|seen| seen >= epoch)))
    })
    .await
}
