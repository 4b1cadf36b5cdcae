//! The bolts of the topology, and how it is wired.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use galerna_delay::{DelayOptions, DelaySpout, Retry, Taken};
use galerna_retry::Pauses;
use galerna_schedules::{Firing, ScheduleSpout, ScheduleStore};
use galerna_topology::prelude::*;
use serde::Deserialize;

use crate::channel::{Draft, Text};
use crate::context::Context;
use crate::pages::{Page, PageSpout};
use crate::post::{Posted, post};
use crate::progress::Progress;
use crate::store::JudgedPage;

/// How posts are sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PostOptions {
    /// Workers.
    pub workers: usize,
    /// Posts that each worker has on their way at once, one for each account.
    pub at_once: usize,
    /// So long after a process was lost the posts that it had on their way are sent again.
    pub lease: Duration,
    /// Pauses after attempts that failed.
    pub pauses: Pauses,
    /// How often they look for posts that are due.
    pub every: Duration,
}

impl Default for PostOptions {
    /// 6 workers of 500; 10 s; 1 s to 5 min; every 100 ms.
    fn default() -> Self {
        Self {
            workers: 6,
            at_once: 500,
            lease: Duration::from_secs(10),
            pauses: Pauses::new(Duration::from_secs(1), Duration::from_secs(300)),
            every: Duration::from_millis(100),
        }
    }
}

impl PostOptions {
    /// How this process takes part in the store of posts on their way.
    pub fn delay(&self) -> DelayOptions {
        // Servers that are not to be had do not count as attempts; what counts is a process that is lost.
        let retry = Retry { attempts: 1_000, pauses: self.pauses };
        DelayOptions { lease: self.lease, retry, ..DelayOptions::default() }
    }
}

/// A page with what the filters say.
#[derive(Debug, Clone)]
struct Judged {
    page: JudgedPage,
    progress: Arc<Progress>,
}

fn judge(page: Page) -> Judged {
    let verdicts = page.statuses.iter().map(|status| {
        let verdict = page.judge.judge(status, page.own.as_deref());
        (status.clone(), verdict.err())
    });
    let statuses = Arc::new(verdicts.collect());
    Judged {
        page: JudgedPage { channel: page.channel, began: page.began, statuses },
        progress: page.progress,
    }
}

/// Records what came in, and has posts sent.
struct Record(Arc<Context>);

impl Record {
    async fn record(&self, judged: &[Judged]) -> Result<(), Fault> {
        let now = self.0.now();
        let pages = judged.iter().map(|judged| judged.page.clone()).collect();
        let recorded = self.0.store.record(pages, now).await.or_unavailable()?;
        let posts: Vec<(String, String)> =
            recorded.iter().flat_map(|page| page.posts.iter().cloned()).collect();
        if !posts.is_empty() {
            self.0.send(posts).await.or_unavailable()?;
        }
        for (judged, recorded) in judged.iter().zip(&recorded) {
            let last = judged.page.statuses.last().map(|(status, _)| &status.id);
            judged.progress.count(recorded, last, now);
        }
        Ok(())
    }
}

impl AsyncBatchBolt for Record {
    type Input = Judged;
    type Outputs = ();

    async fn execute(&mut self, batch: Batch<Judged>, _: &mut Emitter<()>) {
        match self.record(batch.values()).await {
            Ok(()) => batch.ack(),
            Err(fault) => batch.fail(fault),
        }
    }
}

/// Records how posts ended.
struct End(Arc<Context>);

impl AsyncBatchBolt for End {
    type Input = Posted;
    type Outputs = ();

    async fn execute(&mut self, batch: Batch<Posted>, _: &mut Emitter<()>) {
        let ended =
            batch.values().iter().filter_map(|posted| Some((posted.key.clone(), posted.end.clone()?)));
        match self.0.store.end_posts(ended.collect(), self.0.now()).await {
            Ok(()) => batch.ack(),
            Err(error) => batch.fail(Fault::unavailable(error.to_string())),
        }
    }
}

/// What a schedule of posts carries.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct ScheduledPost {
    /// The account that posts it.
    pub account: String,
    /// What is posted.
    #[serde(flatten)]
    pub text: Text,
}

impl ScheduledPost {
    /// Reads what a schedule carries.
    ///
    /// # Errors
    /// A sentence that says what is wrong with it.
    pub fn of(payload: &serde_json::Value) -> Result<Self, String> {
        let scheduled: Self = serde_json::from_value(payload.clone()).map_err(|error| {
            format!("payload: {error}; write for instance {{\"account\": \"name\", \"text\": \"…\"}}")
        })?;
        if scheduled.text.text.trim().is_empty() {
            return Err("payload.text: write what is to be posted".to_owned());
        }
        Ok(scheduled)
    }
}

/// Keeps the post that a firing asks for; the firing's id is its key, so that it is kept once.
async fn plan(context: Arc<Context>, firing: Firing) -> Result<(), Fault> {
    let scheduled = match ScheduledPost::of(&firing.payload) {
        Ok(scheduled) => scheduled,
        Err(reason) => {
            context
                .notify(firing.id.schedule.as_str(), format!("the schedule posts nothing: {reason}"))
                .await;
            return Err(Fault::permanent(reason));
        }
    };
    let (key, account) = (firing.id.to_string(), scheduled.account);
    let draft = Draft::Status(scheduled.text);
    if context.store.keep_post(key.clone(), account.clone(), draft, context.now()).await.or_unavailable()? {
        context.send(vec![(key, account)]).await.or_unavailable()?;
    }
    Ok(())
}

/// The topology: what comes in is filtered and recorded, what schedules ask for is kept, and posts are sent when they are due.
///
/// # Errors
/// When it is not wired well.
pub fn topology(
    context: &Arc<Context>,
    pages: impl Fn() -> PageSpout + Clone + Send + Sync + 'static,
    schedules: Arc<dyn ScheduleStore>,
    posts: &Path,
    options: &PostOptions,
) -> Result<Topology, BuildError> {
    let mut topology = TopologyBuilder::new("channels");

    let pages = topology.spout("pages", pages).message_timeout(Duration::from_secs(60)).outputs();
    let judged = topology.map("filter", judge).shuffle(pages).outputs();
    let shared = Arc::clone(context);
    topology.async_batch_bolt("record", move || Record(Arc::clone(&shared))).shuffle(judged);

    let clock = Arc::clone(&context.clock);
    let firings = move || ScheduleSpout::new(Arc::clone(&schedules)).clock(Arc::clone(&clock));
    let firings = topology.spout("schedules", firings).outputs();
    let shared = Arc::clone(context);
    topology.map_async("plan", 16, move |firing| plan(Arc::clone(&shared), firing)).shuffle(firings);

    let (path, clock, delay) = (posts.to_owned(), Arc::clone(&context.clock), options.clone());
    let at_once = options.workers.max(1) * options.at_once.max(1);
    let due = move || {
        DelaySpout::new(&path)
            .clock(Arc::clone(&clock))
            .options(delay.delay())
            .in_flight(at_once)
            .every(delay.every)
    };
    // A post waits for as long as its server wants it to.
    let due = topology.spout("posts", due).message_timeout(None).max_pending(at_once.max(1_024)).outputs();
    let shared = Arc::clone(context);
    let posted = topology
        .map_async("post", options.at_once.max(1), move |taken: Taken| post(Arc::clone(&shared), taken))
        .shuffle(due)
        .parallelism(options.workers.max(1))
        .outputs();
    let shared = Arc::clone(context);
    topology.async_batch_bolt("posted", move || End(Arc::clone(&shared))).shuffle(posted);
    topology.build()
}
