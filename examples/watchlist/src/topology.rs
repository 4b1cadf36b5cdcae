//! What crawls and ETL go through.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use galerna_delay::{DelayOptions, DelayStore, Item};
use galerna_model::{Clock as _, SystemClock};
use galerna_schedules::{Firing, ScheduleSpout, ScheduleStore, SchedulerOptions};
use galerna_topology::prelude::*;
use serde::{Deserialize, Serialize};
use url::Url;

use crate::config::{Rule, Source};
use crate::jobs::{Job, JobSpout, Load, OpenJobs};
use crate::keywords::Keywords;
use crate::polite::{Answer, Polite};
use crate::store::{Alert, Page, Store, day_of};
use crate::{Scale, etl, read};

/// Alerts that are delivered in one run; the rest in the next.
const DELIVERIES: u32 = 10_000;

/// What a schedule's firing is for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Task {
    /// A source is crawled.
    Crawl(String),
    /// Keywords are counted, and alerts raised by count.
    Hourly,
    /// The same, and alerts by the change of a week.
    Daily,
}

/// What the topology works with.
#[derive(Clone)]
pub(crate) struct Parts {
    pub(crate) schedules: Arc<dyn ScheduleStore>,
    pub(crate) store: Arc<dyn Store>,
    /// Opens the store of jobs: each user of it has its own.
    pub(crate) jobs: OpenJobs,
    pub(crate) enqueue: Arc<DelayStore>,
    pub(crate) polite: Polite,
    pub(crate) sources: Arc<BTreeMap<String, Source>>,
    pub(crate) keywords: Arc<Keywords>,
    pub(crate) rules: Arc<[Rule]>,
    pub(crate) webhook: Option<Url>,
    pub(crate) http: reqwest::Client,
    pub(crate) load: Arc<Load>,
    pub(crate) lease: Duration,
    /// Alerts are of so many days, the last ones.
    pub(crate) look_back: u32,
}

/// The options with which jobs are claimed.
pub(crate) fn job_options(lease: Duration) -> DelayOptions {
    DelayOptions { lease, ..DelayOptions::default() }
}

/// A page that was fetched, and its job.
#[derive(Debug, Clone)]
struct Fetched {
    job: Job,
    /// None when it is as it was.
    page: Option<Page>,
    next: Option<Url>,
}

impl Parts {
    /// Declares the topology.
    pub(crate) fn topology(&self) -> Result<Topology, BuildError> {
        let mut topology = TopologyBuilder::new("watchlist");
        let parts = self.clone();
        let firings = topology.spout("schedules", move || {
            let options = SchedulerOptions { lease: parts.lease, ..SchedulerOptions::default() };
            ScheduleSpout::new(Arc::clone(&parts.schedules)).options(options)
        });
        let firings = firings.message_timeout(Duration::from_secs(600)).outputs();
        let task = |firing: &Firing| serde_json::from_value::<Task>(firing.payload.clone()).ok();
        let crawls =
            topology.filter("crawls", move |firing: &Firing| matches!(task(firing), Some(Task::Crawl(_))));
        let crawls = crawls.shuffle(&firings).outputs();
        let etls =
            topology.filter("etls", move |firing: &Firing| !matches!(task(firing), Some(Task::Crawl(_))));
        let etls = etls.shuffle(firings).outputs();

        let parts = self.clone();
        let enqueue = topology.map_async("enqueue", 4, move |firing: Firing| {
            let parts = parts.clone();
            async move { parts.enqueue(&firing).await }
        });
        enqueue.shuffle(crawls);
        // One after the other: two at once would count the same.
        let parts = self.clone();
        let raised = topology.map_async("etl", 1, move |firing: Firing| {
            let parts = parts.clone();
            async move { parts.etl(&firing).await }
        });
        let raised = raised.shuffle(etls).outputs();
        let parts = self.clone();
        let deliver = topology.map_async("deliver", 1, move |(): ()| {
            let parts = parts.clone();
            async move { parts.deliver().await }
        });
        deliver.shuffle(raised);

        let parts = self.clone();
        let jobs = topology.spout("jobs", move || {
            JobSpout::new(Arc::clone(&parts.jobs), Scale::new(1, 16, 4), Arc::clone(&parts.load))
        });
        let jobs = jobs.message_timeout(Duration::from_secs(300)).outputs();
        let parts = self.clone();
        let fetched = topology.map_async("fetch", 16, move |job: Job| {
            let parts = parts.clone();
            async move { parts.fetch(job).await }
        });
        let fetched = fetched.shuffle(jobs).outputs();
        let parts = self.clone();
        let store = topology.map_async("store", 4, move |fetched: Fetched| {
            let parts = parts.clone();
            async move { parts.keep(fetched).await }
        });
        store.shuffle(fetched);
        topology.build()
    }

    /// Puts the first page of a crawl.
    async fn enqueue(&self, firing: &Firing) -> Result<(), Fault> {
        let Ok(Task::Crawl(name)) = serde_json::from_value(firing.payload.clone()) else {
            return Err(Fault::permanent("it is no crawl"));
        };
        let source = self.source(&name)?;
        let job = Job { source: name, crawl: firing.id.to_string(), url: source.url.clone(), page: 1 };
        self.put(&job).await
    }

    fn source(&self, name: &str) -> Result<&Source, Fault> {
        self.sources.get(name).ok_or_else(|| Fault::permanent(format!("there is no source {name} any more")))
    }

    async fn put(&self, job: &Job) -> Result<(), Fault> {
        let item = Item::new(job.id(), SystemClock.now(), serde_json::to_value(job)?);
        self.enqueue.put(vec![item]).await.or_unavailable().map(drop)
    }

    async fn fetch(&self, job: Job) -> Result<Fetched, Fault> {
        let source = self.source(&job.source)?;
        let url = job.url.to_string();
        let known = self.store.validators(&url).await.map_err(|error| error.fault())?;
        match self.polite.get(&job.url, &known).await? {
            Answer::NotModified => {
                let next = known.next.as_deref().and_then(|next| Url::parse(next).ok());
                Ok(Fetched { job, page: None, next })
            }
            Answer::Page(body, mut validators) => {
                let listing = read(source.kind, &source.select, &job.url, &body).or_permanent()?;
                validators.next = listing.next.as_ref().map(Url::to_string);
                let (name, group) = (source.name.clone(), source.group.clone());
                let page = Page { source: name, group, url, validators, posts: listing.posts };
                Ok(Fetched { job, page: Some(page), next: listing.next })
            }
        }
    }

    /// Keeps what a page lists, and puts the next page. Both may be done again: they add nothing then.
    async fn keep(&self, fetched: Fetched) -> Result<(), Fault> {
        let Fetched { job, page, next } = fetched;
        let most = self.source(&job.source)?.pages;
        if let Some(page) = page {
            let saved = self.store.save(page).await.map_err(|error| error.fault())?;
            tracing::debug!(url = %job.url, new = saved.new, edited = saved.edited, "a page is stored");
        }
        match next {
            Some(url) if job.page < most => self.put(&Job { url, page: job.page + 1, ..job }).await,
            _ => Ok(()),
        }
    }

    async fn etl(&self, firing: &Firing) -> Result<(), Fault> {
        let task: Task = serde_json::from_value(firing.payload.clone()).or_permanent()?;
        let store = &*self.store;
        let counted = etl::count_new(store, &self.keywords).await.map_err(|error| error.fault())?;
        // A week before the days that are looked at, and the week before that.
        let before = |days: u32| day_of(SystemClock.now().plus_millis(-i64::from(days) * 86_400_000));
        let (from, read_from) = (before(self.look_back), before(self.look_back.saturating_add(14)));
        let targets = store.targets(&read_from).await.map_err(|error| error.fault())?;
        let alerts = etl::alerts(&self.rules, &targets, &from, task == Task::Daily);
        let raised = store.raise(alerts).await.map_err(|error| error.fault())?;
        tracing::info!(firing = %firing.id, counted, raised, "posts are counted");
        Ok(())
    }

    /// Posts the alerts that are not delivered. A receiver tells by the key that it has had one.
    async fn deliver(&self) -> Result<(), Fault> {
        for alert in self.store.undelivered(DELIVERIES).await.map_err(|error| error.fault())? {
            if let Some(webhook) = &self.webhook {
                self.post(webhook, &alert).await?;
            }
            tracing::info!(alert = alert.id, "{}", alert.text);
            self.store.delivered(&alert.id).await.map_err(|error| error.fault())?;
        }
        Ok(())
    }

    async fn post(&self, webhook: &Url, alert: &Alert) -> Result<(), Fault> {
        let call = self.http.post(webhook.clone()).header("idempotency-key", &alert.id).json(alert);
        let answer = call.send().await.or_unavailable()?;
        let status = answer.status();
        if status.is_success() {
            return Ok(());
        }
        Err(Fault::unavailable(format!("the webhook answers {status} to the alert {}", alert.id)))
    }
}
