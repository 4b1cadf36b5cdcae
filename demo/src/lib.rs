//! `galerna demo`: the whole system on real data, with every reading accounted for.

mod accounts;
mod args;
mod extract;
mod faults;
mod ledger;
pub mod load;
mod poster;
mod probe;
mod progress;
mod publisher;
mod report;
mod rules;
mod webhook;

use std::collections::{BTreeMap, HashMap};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use galerna_bolts::ALERTS_QUEUE;
use galerna_directory::{HttpDirectory, HttpOptions};
use galerna_dispatcher::StatusQuery;
use galerna_frontend::Directory;
use galerna_model::{AccountId, AlertEventKind, QueueName, SystemClock};
use galerna_storage::Store;
use tokio_util::sync::CancellationToken;

use self::accounts::{account_of, accounts, serve_accounts, sources, suffix};
pub use self::args::DemoArgs;
use self::extract::{Extract, Load};
use self::ledger::Ledger;
use self::poster::{Poster, token_of};
use self::probe::{Distribution, MeasuredLeases, MeasuredReadings, Measures};
use self::progress::{Progress, Snapshot};
use self::publisher::{Order, PublishOptions, Published};
use self::report::{BigWait, Report, Waits};
use self::webhook::Webhook;
use galerna_server::standalone::{Listeners, Parts, Standalone};
use galerna_server::{backends, modules};
use galerna_settings::Settings;
use galerna_terminal::{eprint, print, thousands};

/// Exit code when a reading is not where it must be.
const LOST: u8 = 3;
/// Exit code of an interrupted run.
const INTERRUPTED: u8 = 130;
/// Between two looks at how far it is.
const POLL_INTERVAL: Duration = Duration::from_millis(200);
/// Between two counts of what waits in the queues, at least.
const COUNT_INTERVAL: Duration = Duration::from_secs(1);
/// Counting takes no more than one in so many moments: with thousands of queues it costs a broker what it is to be measured by.
const COUNT_SHARE: u32 = 50;
/// When all queues are empty and nothing has moved for so long, what is missing will not come: it is counted as lost.
const QUIET_TIMEOUT: Duration = Duration::from_secs(15);
/// How long the dispatcher may take to hear from the maintainer, and a broker to count what it has.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(15);
/// When nothing has moved for so long, the log says where it hangs.
const STALL_WARNING: Duration = Duration::from_secs(10);
/// When nothing at all has moved for so long, the run is given up.
const STALL_TIMEOUT: Duration = Duration::from_secs(120);

/// Everything that a running demo holds.
struct Demo {
    load: Arc<Load>,
    queues: Arc<[QueueName]>,
    all: Standalone,
    before: Baseline,
    measures: Arc<Measures>,
    published: Arc<Published>,
    webhook: Webhook,
    store_kind: &'static str,
}

/// What was in the store before this run: it is not counted.
#[derive(Debug)]
struct Baseline {
    rejected: HashMap<String, u64>,
    raised: u64,
    resolved: u64,
}

impl Baseline {
    async fn of(store: &Store) -> anyhow::Result<Self> {
        Ok(Self {
            rejected: store.rejected.counts().await?.into_iter().collect(),
            raised: store.alert_states.count(AlertEventKind::Raised).await?,
            resolved: store.alert_states.count(AlertEventKind::Resolved).await?,
        })
    }

    /// Refused in this run, by reason.
    async fn rejected_since(&self, store: &Store) -> anyhow::Result<BTreeMap<String, u64>> {
        let counts = store.rejected.counts().await?;
        let since = counts.into_iter().map(|(reason, n)| {
            let before = self.rejected.get(&reason).copied().unwrap_or(0);
            (reason, n.saturating_sub(before))
        });
        Ok(since.filter(|(_, n)| *n > 0).collect())
    }
}

/// Runs the demo.
///
/// # Errors
/// When a module cannot start, or nothing moves any more.
pub async fn run(args: DemoArgs, settings: Settings, stop: CancellationToken) -> anyhow::Result<ExitCode> {
    if let Some(path) = &args.report {
        // Not after minutes of work.
        std::fs::File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
    }
    let (mut settings, folder) = with_data(settings)?;
    // The list of sources that a frontend keeps on disk is of this run alone: accounts of another run, on other servers maybe, would
    // be taken for known, and the guard of a list that loses many would then keep this run's out.
    let private =
        tempfile::Builder::new().prefix("galerna-demo-sources-").tempdir().context("cannot make a folder")?;
    settings.frontend.sources_copy = Some(private.path().join("sources.json"));
    let mut load = tokio::task::spawn_blocking({
        let (readings, accounts, alone) = (args.readings, args.accounts.unwrap_or(2_000), args.alone);
        move || -> anyhow::Result<Load> {
            let extract = Extract::embedded()?;
            let Some(readings) = readings else { return Ok(extract.once()) };
            let mut load = extract.scaled(readings, accounts)?;
            if alone {
                load.without_the_big_one();
            }
            Ok(load)
        }
    })
    .await??;

    let listeners = Listeners::open(&settings).await?;
    let broker = backends::broker(&settings).await?;
    let store = backends::store(&settings).await?;
    // Of an earlier run on the same store: they are left as they are, and this run's have other names.
    let known = store.queues.all().await?;
    if let Some(suffix) = suffix(&load, &known) {
        load.renamed(&suffix)?;
        eprint(format_args!("the store has accounts of these names already: this run's end in `{suffix}`"));
    }
    let load = Arc::new(load);
    eprint(format_args!(
        "{} readings of {} accounts; broker {}, store {}{}",
        thousands(load.readings()),
        thousands(load.tenants.len() as u64),
        galerna_settings::without_password(&settings.broker.url),
        galerna_settings::without_password(&settings.store.url),
        folder.as_ref().map_or(String::new(), |f| format!(", in {}", f.path().display())),
    ));

    // Accounts come the way they come in earnest: from an HTTP API, to the maintainer and to the frontend.
    let services = CancellationToken::new();
    let accounts = accounts(&load)?;
    let queues: Arc<[QueueName]> = accounts.iter().map(|a| a.queue.clone()).collect();
    let sources = sources(&accounts)?;
    store.sources.put(&sources).await?;
    let served = accounts.into_iter().chain(known.into_iter().filter_map(account_of)).collect();
    let accounts_api = serve_accounts(served, store.sources.list().await?, &services).await?;
    let directory = Directory::new(HttpDirectory::new(&accounts_api, HttpOptions::default())?);
    let webhook = Webhook::start(&store, &services).await?;
    modules::put_rules(&store, rules::rules()).await?;
    let before = Baseline::of(&store).await?;
    // The workers are started when there is something to measure.
    let schedules = modules::schedules::open(&settings).await?;
    let parts = Parts { broker, store, schedules, directory, makes_accounts: false, workers: 0 };
    let all = Standalone::start(&settings, listeners, parts).await?;
    let created = all.accounts.as_ref().context("the accounts API of the demo cannot be read")?;
    eprint(format_args!("the maintainer made {} queues for {} accounts", created.created, created.listed));

    // The dispatcher leases by `fifo` until it has heard from the maintainer; what is measured is the chosen strategy.
    let begun = Instant::now();
    while all.dispatcher.view().strategy != all.dispatcher.view().configured
        && begun.elapsed() < SETTLE_TIMEOUT
    {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let measures = Arc::new(Measures::new());
    let published = Arc::new(Published::default());
    let store_kind = if settings.store.is_embedded() { "embedded" } else { "mongodb" };
    let mut demo = Demo { load, queues, all, before, measures, published, webhook, store_kind };
    let ended = demo.replay(&args, &settings, &stop).await;
    let (code, result) = match ended {
        Ok(Some(report)) => {
            print(report.table())?;
            if let Some(path) = &args.report {
                let text = serde_json::to_string_pretty(&report)?;
                std::fs::write(path, text + "\n")
                    .with_context(|| format!("cannot write {}", path.display()))?;
            }
            if !args.exit {
                print(demo.how_to_go_on())?;
                demo.all.until(&stop).await;
            }
            (if report.is_whole() { ExitCode::SUCCESS } else { ExitCode::from(LOST) }, Ok(()))
        }
        Ok(None) => (ExitCode::from(INTERRUPTED), Ok(())),
        Err(e) => (ExitCode::FAILURE, Err(e)),
    };
    let stopped = demo.all.stop().await;
    services.cancel();
    drop((folder, private));
    result.and(stopped).map(|()| code)
}

/// A fresh folder, unless one was named; it goes when the demo ends.
fn with_data(settings: Settings) -> anyhow::Result<(Settings, Option<tempfile::TempDir>)> {
    let embedded = settings.broker.is_embedded() || settings.store.is_embedded();
    if !embedded || settings.data_is_set() {
        return Ok((settings, None));
    }
    let folder =
        tempfile::Builder::new().prefix("galerna-demo-").tempdir().context("cannot make a folder")?;
    Ok((settings.with_data(folder.path()), Some(folder)))
}

impl Demo {
    /// Publishes the load and waits until all of it is settled. `None` when asked to stop before.
    async fn replay(
        &mut self,
        args: &DemoArgs,
        settings: &Settings,
        stop: &CancellationToken,
    ) -> anyhow::Result<Option<Report>> {
        // At a rate of its own the load is consumed while it comes, however much it is.
        let backlog = args.readings.is_some() && args.rate.is_none();
        let order = if backlog { Order::LastFirst } else { Order::ByTime };
        let mut progress = Progress::start(self.load.readings(), args.plain);
        let mut publishing = tokio::spawn(publisher::publish(
            self.load.clone(),
            self.queues.clone(),
            self.all.broker.clone(),
            Poster::new(&format!("http://{}", self.all.frontend_address))?,
            PublishOptions { order, rate: args.rate },
            self.published.clone(),
            self.all.dispatcher.clone(),
        ));
        let mut began_ms = self.measures.elapsed_ms();
        let mut ledger: Option<Ledger> = None;
        if !backlog {
            // The readings are consumed while they come.
            self.start_workers(args, settings).await?;
        }
        let mut observed =
            Observed { waiting: 0, count_at: None, moved: Instant::now(), told: false, last: 0 };
        let ended = loop {
            if ledger.is_none() && publishing.is_finished() {
                ledger = Some((&mut publishing).await.context("publishing panicked")??);
                if backlog {
                    // A backlog: all is there before the first queue is leased.
                    began_ms = self.measures.elapsed_ms();
                    self.start_workers(args, settings).await?;
                    // Nothing could be settled while the backlog was made.
                    observed.moved = Instant::now();
                }
            }
            let snapshot = self.observe(&mut observed).await?;
            progress.show(&snapshot);
            let all_published = ledger.is_some();
            if let Some(ledger) = &ledger
                && self.is_settled(ledger).await?
            {
                break true;
            }
            if all_published && observed.moved.elapsed() > QUIET_TIMEOUT && self.queues_are_empty().await {
                tracing::error!("nothing waits any more, and not all has arrived");
                break true;
            }
            if all_published && observed.moved.elapsed() > STALL_TIMEOUT {
                bail!(
                    "nothing has moved for {STALL_TIMEOUT:?}: {} of {} readings settled",
                    snapshot.settled,
                    snapshot.published
                );
            }
            tokio::select! {
                () = tokio::time::sleep(POLL_INTERVAL) => {}
                () = stop.cancelled() => break false,
            }
        };
        let last = self.observe(&mut observed).await?;
        progress.show(&last);
        progress.finish();
        let Some(ledger) = ledger.filter(|_| ended) else {
            publishing.abort();
            return Ok(None);
        };
        let mut report = self.count(args, began_ms).await?;
        self.told(&mut report).await;
        // Of this run alone, and not some seconds old as RabbitMQ's own counts are.
        report.dead_lettered = self.all.broker.counts().dead_lettered;
        report.compare(ledger.compare(&self.load, &self.all.store, &*self.all.broker).await?);
        Ok(Some(report))
    }

    async fn start_workers(&mut self, args: &DemoArgs, settings: &Settings) -> anyhow::Result<()> {
        for number in 1..=args.workers {
            let leases = Arc::new(MeasuredLeases {
                inner: Arc::new(self.all.dispatcher.clone()),
                measures: self.measures.clone(),
            });
            let mut store = self.all.store.clone();
            store.readings = Arc::new(MeasuredReadings {
                inner: self.all.store.readings.clone(),
                measures: self.measures.clone(),
                clock: SystemClock,
            });
            let name = format!("worker-{number}");
            let ingestion = modules::ingestion(settings, &name, self.all.broker.clone(), leases, store)?;
            self.all.workers.start(&ingestion).await?;
        }
        Ok(())
    }

    async fn observe(&self, observed: &mut Observed) -> anyhow::Result<Snapshot> {
        let refused: u64 = self.before.rejected_since(&self.all.store).await?.values().sum();
        let settled = self.measures.settled() + refused;
        if settled != observed.last {
            (observed.last, observed.moved, observed.told) = (settled, Instant::now(), false);
        } else if observed.moved.elapsed() > STALL_WARNING && !observed.told {
            observed.told = true;
            // Where it hangs: what each component has done and waits for.
            for worker in self.all.workers.metrics() {
                let metrics = serde_json::to_string(&worker).unwrap_or_default();
                tracing::warn!(metrics, "nothing was settled for {STALL_WARNING:?}");
            }
        }
        if observed.count_at.is_none_or(|at| Instant::now() >= at) {
            let began = Instant::now();
            // Only for show: a broker that cannot count now does not end the demo.
            if let Ok(depths) = self.all.broker.depths().await {
                let customers = depths.iter().filter(|(queue, _)| queue.as_str() != ALERTS_QUEUE);
                observed.waiting = customers.map(|(_, depth)| depth.ready + depth.unacked).sum();
            }
            observed.count_at = Some(Instant::now() + COUNT_INTERVAL.max(began.elapsed() * COUNT_SHARE));
        }
        let page = self.all.dispatcher.status(&StatusQuery { limit: Some(1), ..StatusQuery::default() })?;
        Ok(Snapshot {
            published: self.published.readings.load(Ordering::Relaxed),
            settled,
            states: page.counts.into_iter().map(|(state, n)| (state, n as u64)).collect(),
            waiting: observed.waiting,
            alerts: self.all.store.alert_states.count(AlertEventKind::Raised).await? - self.before.raised,
        })
    }

    /// Whether all that was published has come to its end: stored, known, or among the dead letters; and every queue is
    /// empty by the broker's own count.
    async fn is_settled(&self, ledger: &Ledger) -> anyhow::Result<bool> {
        let unreadable = self.published.unreadable.load(Ordering::Relaxed);
        let refused: u64 = self.before.rejected_since(&self.all.store).await?.values().sum();
        let all = self.published.readings.load(Ordering::Relaxed) + unreadable;
        if refused < ledger.expected_dead() || self.measures.settled() + refused < all {
            return Ok(false);
        }
        Ok(self.queues_are_empty().await)
    }

    async fn queues_are_empty(&self) -> bool {
        for queue in self.queues.iter() {
            match self.all.broker.depth(queue).await {
                Ok(depth) if depth.ready + depth.unacked == 0 => {}
                Ok(_) => return false,
                Err(e) => {
                    tracing::warn!(%queue, error = %e, "cannot be counted now");
                    return false;
                }
            }
        }
        true
    }

    /// Waits until the webhook has received every alert, within reason, and counts what it received.
    async fn told(&self, report: &mut Report) {
        let begun = Instant::now();
        let expected = report.alerts_raised + report.alerts_resolved;
        loop {
            let (calls, events, forged) = self.webhook.received();
            (report.webhook_calls, report.alerts_delivered) = (calls, events);
            if forged > 0 {
                tracing::error!(forged, "calls of the webhook were not signed by the notifier");
            }
            if events >= expected || begun.elapsed() > QUIET_TIMEOUT {
                return;
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }

    async fn count(&self, args: &DemoArgs, began_ms: u64) -> anyhow::Result<Report> {
        let store = &self.all.store;
        let rejected = self.before.rejected_since(store).await?;
        let unreadable = rejected.get("undecodable").copied().unwrap_or(0);
        let last_stored = self.measures.last_stored();
        let ended_ms = last_stored.values().copied().max().unwrap_or(began_ms);
        let millis = ended_ms.saturating_sub(began_ms).max(1);
        let stored = self.measures.stored.load(Ordering::Relaxed);
        #[allow(clippy::cast_precision_loss)] // counts far below 2^52
        let (seconds, rate) = (millis as f64 / 1e3, stored as f64 * 1e3 / millis as f64);
        Ok(Report {
            broker: self.all.broker.kind().to_owned(),
            store: self.store_kind.to_owned(),
            accounts: self.load.tenants.len() as u64,
            queues: self.queues.len() as u64,
            workers: u64::from(args.workers),
            calls: self.published.calls.load(Ordering::Relaxed),
            messages: self.published.messages.load(Ordering::Relaxed),
            published: self.published.readings.load(Ordering::Relaxed),
            stored,
            replaced: self.measures.replaced.load(Ordering::Relaxed),
            duplicates: self.measures.duplicates.load(Ordering::Relaxed),
            rejected_readings: rejected.values().sum::<u64>() - unreadable,
            rejected,
            alerts_raised: store.alert_states.count(AlertEventKind::Raised).await? - self.before.raised,
            alerts_resolved: store.alert_states.count(AlertEventKind::Resolved).await? - self.before.resolved,
            seconds,
            readings_per_second: rate,
            latency_ms: self.measures.latency(),
            leases: self.measures.leases.load(Ordering::Relaxed),
            strategy: self.all.dispatcher.view().configured.to_string(),
            asked_per_second: args.rate,
            waits: (args.readings.is_some() && args.rate.is_none())
                .then(|| self.waits(args, began_ms, &last_stored)),
            machine: report::machine(),
            ..Report::default()
        })
    }

    fn how_to_go_on(&self) -> String {
        let (url, queue) = (format!("http://{}", self.all.api_address), &self.queues[0]);
        let page = self.all.page_address;
        let source = self.load.tenants[0].account.as_str();
        let (frontend, token) = (format!("http://{}", self.all.frontend_address), token_of(source));
        format!(
            "The page: http://{page}/\n\
             It stays up until Ctrl-C. Post a reading:\n  \
             curl '{frontend}/readings?source_key={source}&x-dexcell-source-token={token}' \
             -d '{{\"did\":\"12a\",\"values\":[{{\"p\":401,\"v\":4900.0}}],\"sqn\":1,\"ts\":\"2015-04-21T23:15:00+00:00\"}}'\n\
             The dispatcher's API:\n  \
             curl {url}/queue/status?limit=5\n  \
             curl {url}/queue/{queue}\n  \
             curl -X POST {url}/queue/{queue}/pause -d '{{\"reason\":\"trying\"}}' -H 'content-type: application/json'\n  \
             curl -X POST {url}/queue/{queue}/unpause\n  \
             curl {url}/queue/{queue}/dead\n  \
             curl {url}/openapi.json\n\
             or: galerna --dispatcher {url} queues list"
        )
    }

    /// How long the accounts waited, from the start of the workers.
    fn waits(&self, args: &DemoArgs, began_ms: u64, last_stored: &HashMap<AccountId, u64>) -> Waits {
        let first_lease = self.measures.first_leases();
        let since = |at: Option<&u64>| at.copied().unwrap_or(u64::MAX).saturating_sub(began_ms);
        // The big account is the last.
        let others = self.load.tenants.len() - usize::from(!args.alone);
        Waits {
            others_readings: self.load.tenants[0].readings,
            others_first_lease_ms: Distribution::of(
                self.queues[..others].iter().map(|q| since(first_lease.get(q))),
            ),
            others_last_stored_ms: Distribution::of(
                self.load.tenants[..others].iter().map(|t| since(last_stored.get(&t.account))),
            ),
            big: self.load.tenants.get(others).map(|tenant| BigWait {
                readings: tenant.readings,
                first_lease_ms: since(first_lease.get(&self.queues[others])),
                last_stored_ms: since(last_stored.get(&tenant.account)),
            }),
        }
    }
}

/// What is remembered from one look to the next.
struct Observed {
    waiting: u64,
    /// When what waits is counted again.
    count_at: Option<Instant>,
    moved: Instant,
    /// Whether it was told already that nothing moves.
    told: bool,
    last: u64,
}
