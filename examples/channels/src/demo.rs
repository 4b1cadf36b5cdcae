//! The demo: a local server replays recorded statuses to many channels while things go wrong, and what came out is compared with what
//! should have.
//!
//! What should have come out is not asked of the filters: `data/passes.json` says, read by eye, which of the recorded statuses each filter
//! lets through, and the local server says what it replayed and what it received.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use galerna_http::ProcessUsage;
use galerna_model::{Clock, SystemClock};
use galerna_schedules::{Definition, ScheduleId};
use serde::Serialize;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::channel::{Account, Begin, Channel, Form, Repost, Source};
use crate::filter::Filters;
use crate::follow::Asking;
use crate::local::{Faults, LocalServer, Received, World, token};
use crate::mastodon::Mastodon;
use crate::progress::Phase;
use crate::service::{Channels, Options};
use crate::status::{StatusId, Visibility};
use crate::web;

/// What the demo is to do.
#[derive(Debug, Clone)]
pub struct DemoOptions {
    /// Channels.
    pub channels: usize,
    /// Statuses that are replayed to each.
    pub statuses: usize,
    /// Where the page is.
    pub listen: SocketAddr,
    /// Ends when all is compared, rather than go on replaying.
    pub exit: bool,
    /// Where the files are; a new folder if not named.
    pub folder: PathBuf,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// Statuses that reached channels: each replayed status once for each channel.
    #[serde(rename = "in")]
    pub received: u64,
    /// Posts and boosts that should have come out.
    pub expected: u64,
    /// Posts and boosts that the server received, that of the schedule among them.
    pub out: u64,
    /// Of those expected, not received.
    pub lost: u64,
    /// Received more than once.
    pub doubled: u64,
    /// Received and not expected.
    pub unexpected: u64,
    /// From the first status to the last post.
    pub seconds: f64,
    /// Channels.
    pub channels: u64,
    /// Statuses that filters blocked.
    pub blocked: u64,
    /// Statuses that came again and were left out.
    pub duplicates: u64,
    /// Streams that were cut.
    pub cuts: u64,
    /// Attempts to post that failed and were made again.
    pub failed_attempts: u64,
    /// CPU time of the process, the local server's included.
    pub cpu_seconds: f64,
    /// Memory of the process at the end, the local server's included.
    pub resident_mib: f64,
}

impl Report {
    /// Whether what came out is what should have.
    pub fn is_right(&self) -> bool {
        self.lost == 0 && self.doubled == 0 && self.unexpected == 0 && self.out == self.expected
    }
}

/// The filters of the demo, by the names of `data/passes.json`.
fn filters() -> [(&'static str, Filters); 6] {
    let list = |entries: &[&str]| entries.iter().map(|entry| (*entry).to_owned()).collect();
    let none = Filters::default;
    [
        ("all", Filters { replies: true, ..none() }),
        ("no_ham", Filters { words_blocked: list(&["ham"]), ..none() }),
        ("editor_or_plane", Filters { words_wanted: list(&["editor", "plane"]), ..none() }),
        ("test_user_only", Filters { users_wanted: list(&["mastodonpy_test_2"]), ..none() }),
        ("not_test_user", Filters { users_blocked: list(&["mastodonpy_test_2"]), ..none() }),
        ("hoot", Filters { words_wanted: list(&["#hoot"]), ..none() }),
    ]
}

/// The channel of this number: its filter goes by its number, and every second one copies.
pub fn channel(number: usize) -> Channel {
    let (kind, filters) = filters()[number % 6].clone();
    let form = if number.is_multiple_of(2) { Form::Copy } else { Form::Boost };
    let account = format!("account-{number}");
    Channel {
        name: format!("{kind}-{number}"),
        account: account.clone(),
        source: if number.is_multiple_of(3) { Source::Public } else { Source::Home },
        filters,
        repost: Some(Repost {
            account,
            form,
            hashtags: vec!["Galerna".to_owned(), "Recorded".to_owned()],
            visibility: Visibility::Unlisted,
        }),
        begin: Begin::Oldest,
    }
}

/// The account of this number on a local server.
pub fn account(number: usize, server: &str) -> Account {
    Account { name: format!("account-{number}"), server: server.to_owned(), token: token(number) }
}

/// What an independent count says: how often each account should have repeated each status.
pub fn expected(
    channels: usize,
    replayed: &[(usize, StatusId)],
) -> anyhow::Result<HashMap<(usize, StatusId), u64>> {
    let passes: BTreeMap<String, Vec<usize>> = serde_json::from_str(include_str!("../data/passes.json"))?;
    let mut expected = HashMap::new();
    for number in 0..channels {
        let kind = filters()[number % 6].0;
        let passes = passes.get(kind).with_context(|| format!("data/passes.json has no {kind}"))?;
        for (recorded, id) in replayed {
            if passes.contains(&(recorded % 12)) {
                expected.insert((number, id.clone()), 1);
            }
        }
    }
    Ok(expected)
}

/// What was received, by account and the status that it repeats; what repeats none is by its text.
pub fn repeated(received: &[Received], replayed: &[(usize, StatusId)]) -> HashMap<(usize, StatusId), u64> {
    let ids: HashMap<&str, &StatusId> = replayed.iter().map(|(_, id)| (id.as_str(), id)).collect();
    let mut counts = HashMap::new();
    for one in received {
        let id = match (&one.boosts, &one.text) {
            (Some(id), _) => id.clone(),
            (None, Some(text)) => {
                let linked = text.split_whitespace().filter_map(|word| word.rsplit('/').next());
                let linked = linked.filter_map(|id| ids.get(id)).next();
                linked.map_or_else(|| StatusId::new(text.clone()), |id| (*id).clone())
            }
            (None, None) => one.id.clone(),
        };
        *counts.entry((one.account, id)).or_insert(0) += 1;
    }
    counts
}

/// Lost, doubled and unexpected ones.
pub fn compare(
    expected: &HashMap<(usize, StatusId), u64>,
    received: &HashMap<(usize, StatusId), u64>,
) -> (u64, u64, u64) {
    let lost = expected.keys().filter(|key| !received.contains_key(*key)).count() as u64;
    let doubled = received.values().map(|count| count - 1).sum();
    let unexpected = received.keys().filter(|key| !expected.contains_key(*key)).count() as u64;
    (lost, doubled, unexpected)
}

/// How the demo asks: what streams leave out is found soon.
const ASKING: Asking = Asking { poll: Duration::from_secs(2), recheck: Duration::from_secs(5) };

/// How long nothing may come out before the demo gives up.
const PATIENCE: Duration = Duration::from_secs(90);

/// Runs the demo. Without `exit` it returns when `stop` is cancelled.
///
/// # Errors
/// When something cannot be started.
pub async fn run(options: DemoOptions, stop: CancellationToken) -> anyhow::Result<Option<Report>> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let server = LocalServer::start(SocketAddr::from(([127, 0, 0, 1], 0)), Arc::clone(&clock)).await?;
    let settings = Options { asking: ASKING, ..Options::new(&options.folder) };
    let network = Arc::new(Mastodon::new(Arc::clone(&clock))?);
    let channels = Channels::start(settings, network, clock).await?;

    let listener = TcpListener::bind(options.listen).await;
    let listener = listener.with_context(|| format!("listening on {}", options.listen))?;
    let page = listener.local_addr()?;
    let serving = CancellationToken::new();
    let (shown, until) = (Arc::clone(&channels), serving.clone());
    let web = tokio::spawn(async move { web::serve(&shown, listener, None, until).await });
    println!("the page is at http://{page}/channels, the local server at {}", server.url());

    let report = tokio::select! {
        report = replay_and_compare(&options, &server, &channels) => Some(report?),
        () = stop.cancelled() => None,
    };
    if !options.exit && report.is_some() {
        println!("a status is replayed every two seconds; end with Ctrl-C");
        let mut number = options.statuses;
        while tokio::time::timeout(Duration::from_secs(2), stop.cancelled()).await.is_err() {
            server.world().replay(number);
            number += 1;
        }
    }
    serving.cancel();
    drop(web.await);
    channels.stop(Duration::from_secs(10)).await;
    server.stop().await;
    Ok(report)
}

async fn replay_and_compare(
    options: &DemoOptions,
    server: &LocalServer,
    channels: &Arc<Channels>,
) -> anyhow::Result<Report> {
    let world = server.world();
    for number in 0..options.channels {
        channels.put_account(account(number, &server.url())).await?;
        let channel = channel(number);
        let name = channel.name.clone();
        channels.put(channel).await?;
        channels.switch(&name, true).await?;
    }
    let streaming = || channels.view().iter().filter(|view| view.progress.phase == Phase::Streaming).count();
    wait_until("all channels follow", || streaming() == options.channels).await?;
    println!("{} channels follow", options.channels);

    let started = Instant::now();
    let replayed = replay(options, world, channels).await?;
    let mut expected = expected(options.channels, &replayed)?;
    // That of the schedule, by its text.
    expected.insert((0, StatusId::new(format!("{SCHEDULED}\n\n#Galerna"))), 1);
    let total = expected.len();
    wait_until("all is posted", || world.received_count() >= total).await?;
    let seconds = started.elapsed().as_secs_f64();
    // What is doubled may come later: until nothing is on its way, and once more after all streams were looked after.
    wait_until_idle(channels).await?;
    tokio::time::sleep(ASKING.recheck + Duration::from_secs(1)).await;
    wait_until_idle(channels).await?;

    let received = world.received();
    let (lost, doubled, unexpected) = compare(&expected, &repeated(&received, &replayed));
    let views = channels.view();
    let usage = ProcessUsage::read();
    let sum =
        |of: fn(&crate::progress::ProgressView) -> u64| views.iter().map(|view| of(&view.progress)).sum();
    let report = Report {
        received: sum(|progress| progress.passed + progress.blocked),
        expected: total as u64,
        out: received.len() as u64,
        lost,
        doubled,
        unexpected,
        seconds,
        channels: options.channels as u64,
        blocked: sum(|progress| progress.blocked),
        duplicates: sum(|progress| progress.duplicates),
        cuts: sum(|progress| progress.cuts),
        failed_attempts: channels.accounts().iter().map(|account| account.failures).sum(),
        cpu_seconds: usage.cpu_seconds,
        resident_mib: usage.resident_bytes / f64::from(1 << 20),
    };
    println!(
        "in {}, out {} of {}, lost {}, doubled {}, in {:.1} s; {} blocked, {} came again, {} streams cut, {} attempts repeated",
        report.received,
        report.out,
        report.expected,
        report.lost,
        report.doubled,
        report.seconds,
        report.blocked,
        report.duplicates,
        report.cuts,
        report.failed_attempts
    );
    Ok(report)
}

/// What the schedule of the demo posts, after it was edited.
const SCHEDULED: &str = "Edited before it was due";

/// Replays the statuses, while things go wrong.
async fn replay(
    options: &DemoOptions,
    world: &Arc<World>,
    channels: &Arc<Channels>,
) -> anyhow::Result<Vec<(usize, StatusId)>> {
    let mut replayed = Vec::new();
    let names: Vec<String> = channels.view().into_iter().map(|view| view.channel.name).collect();
    let third = (options.statuses / 3).max(1);
    let schedule = ScheduleId::new("demo/greeting")?;
    for number in 0..options.statuses {
        if number == 0 {
            // Written for a time to come, and edited before it.
            let due = SystemClock.now().plus_millis(3_000);
            let post = |text: &str| json!({ "account": "account-0", "text": text, "hashtags": ["Galerna"] });
            let written = Definition::at(due).payload(post("Written first"));
            channels.put_schedule(schedule.clone(), written, None).await?;
            channels
                .put_schedule(schedule.clone(), Definition::at(due).payload(post(SCHEDULED)), None)
                .await?;
        }
        if number == third {
            let lost = options.channels as u64 / 4 + 1;
            world.break_down(Faults { cut_streams: true, lose_answers: lost, ..Faults::default() });
            for name in names.iter().step_by(3) {
                channels.switch(name, false).await?;
            }
        }
        if number == 2 * third {
            for name in names.iter().step_by(3) {
                channels.switch(name, true).await?;
            }
            let limit = Some((1, 2));
            let faults = Faults {
                fail_calls: 20,
                limit_writes: limit,
                tell_twice: Some(true),
                leave_out: Some(5),
                ..Faults::default()
            };
            world.break_down(faults);
        }
        replayed.push((number, world.replay(number)));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(replayed)
}

async fn wait_until(what: &str, is: impl Fn() -> bool) -> anyhow::Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while !is() {
        if Instant::now() > deadline {
            println!("gave up after {PATIENCE:?} before {what}");
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

async fn wait_until_idle(channels: &Arc<Channels>) -> anyhow::Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while channels.posts_under_way().await?.0 > 0 && Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}
