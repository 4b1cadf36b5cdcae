//! `galerna load`: the load generator. It posts readings to a frontend as many concentrators would, and tells how long the
//! calls took.
//!
//! With `--rate` it is an **open loop**: call *n* is due at *n* / rate, whatever became of the calls before, and its latency counts
//! from when it was due, not from when a connection was free to send it. A generator that waits for each answer before it sends on
//! spares a server that stalls the very calls that would have suffered: Gil Tene calls this coordinated omission, and
//! his `wrk2` and HdrHistogram are the model here. The latency from sending is told beside it. Calls are sent when a timer of one
//! millisecond fires, so that up to one millisecond of the first latency is the generator's.
//!
//! Without `--rate` it is a **closed loop**: each connection sends when its last call is answered, and waits for `Retry-After` when
//! the frontend asks it to. With `--sweep` it sends so many calls of each size one after another, over one connection.
//!
//! Bodies are made before their call is due. Of the calls that were sent only those taken (202) are in the percentiles; all are
//! counted. A call that was due and found no connection until the end is in the first latency with the time that it had
//! waited by then, so that a server which answers nobody cannot look fast.

mod calls;
mod concentrators;
mod report;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use clap::Args;
use galerna_lock::Mutex;
use galerna_model::{Clock, SystemClock};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use self::calls::{CallResult, Caller};
use self::concentrators::{BodyShape, Concentrator, listed, named};
use self::report::{Distribution, LoadPlan, Run, Sent, Size, Sweep, Tally};
use galerna_settings::Settings;
use galerna_terminal::print_json;

/// Of a sweep's size, calls sent for each that is to be taken, at most.
const TRIES: u32 = 5;

/// What load to make.
#[derive(Debug, Clone, Args)]
#[command(group = clap::ArgGroup::new("who").required(true).args(["sources", "source"]))]
pub struct LoadArgs {
    /// The frontend, for instance http://127.0.0.1:8080 [default: the one of this machine, at `frontend.listen`]
    #[arg(long)]
    url: Option<String>,
    /// Sources and their tokens: a CSV with the columns source and token
    #[arg(long, value_name = "FILE")]
    sources: Option<PathBuf>,
    /// One source; with --sources-count the beginning of the names of several
    #[arg(long, value_name = "SOURCE", requires = "token")]
    source: Option<String>,
    /// Its token, which other users of the machine may see on the command line, and not in the file of --sources; `{source}`
    /// in it stands for the source's name
    #[arg(long, conflicts_with = "sources")]
    token: Option<String>,
    /// So many sources, called SOURCE1, SOURCE2 and so on
    #[arg(long, value_name = "N", requires = "source", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    sources_count: Option<u32>,
    /// Readings in a call
    #[arg(long, value_name = "N", default_value_t = 300, value_parser = at_least_one)]
    readings: usize,
    /// Devices of each source
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = at_least_one)]
    devices: usize,
    /// Calls a second, of all sources together [default: each connection as fast as it is answered]
    #[arg(long, value_name = "N", value_parser = rate)]
    rate: Option<f64>,
    /// How long
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=604_800))]
    seconds: u64,
    /// Connections
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = at_least_one)]
    connections: usize,
    /// Each source sends the same readings again and again
    #[arg(long)]
    repeat: bool,
    /// Compress the bodies
    #[arg(long)]
    gzip: bool,
    /// Instead: calls of these sizes, one after another, and how long they take
    #[arg(long, value_name = "N,N,…", value_delimiter = ',', value_parser = at_least_one, conflicts_with_all = ["rate"])]
    sweep: Vec<usize>,
    /// With --sweep, calls of each size
    #[arg(long, value_name = "N", default_value_t = 100, requires = "sweep", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    calls: u32,
    /// Write what was counted to this file, as JSON
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

fn at_least_one(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(n @ 1..=1_000_000) => Ok(n),
        _ => Err("use a whole number from 1 to 1000000".to_owned()),
    }
}

fn rate(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(rate) if (0.001..=1e6).contains(&rate) => Ok(rate),
        _ => Err("use a number from 0.001 to 1000000".to_owned()),
    }
}

/// Where a frontend of this machine with these settings is.
fn frontend(settings: &Settings) -> anyhow::Result<String> {
    let address = settings.frontend.listen;
    ensure!(
        address.port() != 0,
        "`frontend.listen` is {address}, any free port; name the frontend with --url"
    );
    // One that listens at all addresses of the machine is reached at its loopback address.
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    Ok(format!("http://{}", SocketAddr::new(ip, address.port())))
}

/// Runs the command; a stop ends it early, and what was counted until then is told.
///
/// # Errors
/// When no call at all was taken.
pub async fn run(args: &LoadArgs, settings: &Settings, stop: &CancellationToken) -> anyhow::Result<()> {
    let credentials = match (&args.sources, &args.source) {
        (Some(path), _) => listed(path)?,
        (None, Some(source)) => named(source, args.token.as_deref().unwrap_or_default(), args.sources_count)?,
        (None, None) => bail!("name who posts: --sources FILE, or --source SOURCE --token TOKEN"),
    };
    if let Some(path) = &args.report {
        // Not after the run.
        std::fs::File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
    }
    let url = args.url.clone().map_or_else(|| frontend(settings), Ok)?;
    let load = Load {
        caller: Caller::new(&url, args.connections)?,
        concentrators: credentials.into_iter().map(Concentrator::new).collect(),
        tally: Mutex::new(Tally::new()),
        next: AtomicU64::new(0),
        shape: BodyShape {
            readings: args.readings,
            devices: args.devices,
            repeat: args.repeat,
            gzip: args.gzip,
        },
    };
    let asked = LoadPlan {
        url: url.clone(),
        sources: load.concentrators.len(),
        devices: args.devices,
        connections: if args.sweep.is_empty() { args.connections } else { 1 },
        gzip: args.gzip,
        repeat: args.repeat,
    };
    let (value, taken, problem) = if args.sweep.is_empty() {
        let run = steady(load, args, asked, stop).await?;
        if !args.json {
            run.print()?;
        }
        (serde_json::to_value(&run)?, run.calls.taken(), run.calls.first_problem)
    } else {
        let sweep = sizes(load, args, asked, stop).await?;
        if !args.json {
            sweep.print()?;
        }
        let taken = sweep.sizes.iter().map(|s| s.calls.taken()).sum();
        let problem = sweep.sizes.iter().find_map(|s| s.calls.first_problem.clone());
        (serde_json::to_value(&sweep)?, taken, problem)
    };
    if args.json {
        print_json(&value)?;
    }
    if let Some(path) = &args.report {
        std::fs::write(path, serde_json::to_string_pretty(&value)? + "\n")
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    match (taken, problem) {
        (0, Some(problem)) => bail!("{url} took no call: {problem}"),
        _ => Ok(()),
    }
}

/// What the connections share.
struct Load {
    caller: Caller,
    concentrators: Vec<Concentrator>,
    tally: Mutex<Tally>,
    /// Calls begun.
    next: AtomicU64,
    shape: BodyShape,
}

impl Load {
    fn who(&self, call: u64) -> &Concentrator {
        // The remainder is below a length.
        &self.concentrators[usize::try_from(call % self.concentrators.len() as u64).unwrap_or_default()]
    }

    /// Makes a call, at `due` when that is to come, and counts it.
    async fn call(&self, number: u64, shape: BodyShape, due: Option<Instant>) -> anyhow::Result<CallResult> {
        let who = self.who(number);
        let body = who.body(shape)?;
        if let Some(due) = due {
            tokio::time::sleep_until(due.into()).await;
        }
        let (bytes, unpacked) = (body.bytes.len(), body.unpacked);
        let sending = Instant::now();
        let ended = self.caller.call(who, body, shape.gzip).await;
        let from_sending = sending.elapsed();
        let from_due = due.map_or(from_sending, |due| due.elapsed());
        self.tally.lock().add(Sent { from_due, from_sending, bytes, unpacked }, &ended);
        Ok(ended)
    }

    /// Waits as the frontend asks, but not beyond `end`.
    async fn wait(&self, ended: &CallResult, end: Option<Instant>) {
        let wait = match ended {
            CallResult::Refused { wait: Some(wait), .. } => *wait,
            // Without an answer there is nothing that would slow the loop down.
            CallResult::Failed { .. } => Duration::from_millis(100),
            _ => return,
        };
        let wait = end.map_or(wait, |end| wait.min(end.saturating_duration_since(Instant::now())));
        if matches!(ended, CallResult::Refused { .. }) {
            self.tally.lock().waited(wait);
        }
        tokio::time::sleep(wait).await;
    }
}

/// Calls at a rate, or as fast as answers come, over all connections.
async fn steady(
    load: Load,
    args: &LoadArgs,
    asked: LoadPlan,
    stop: &CancellationToken,
) -> anyhow::Result<Run> {
    let (began, start) = (SystemClock.now(), Instant::now());
    let end = start + Duration::from_secs(args.seconds);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "at most 10^6 times 604,800")]
    let total = args.rate.map(|rate| ((rate * args.seconds as f64).floor() as u64).max(1));
    let load = Arc::new(load);
    let mut connections = JoinSet::new();
    for _ in 0..args.connections {
        let (load, stop, rate) = (load.clone(), stop.clone(), args.rate);
        connections.spawn(async move {
            // Late calls are still due until the time is over; then those that were never sent are counted.
            while Instant::now() < end && !stop.is_cancelled() {
                let number = load.next.fetch_add(1, Ordering::Relaxed);
                if total.is_some_and(|total| number >= total) {
                    break;
                }
                let due = rate.map(|rate| start + Duration::from_secs_f64(number as f64 / rate));
                let call = async {
                    let ended = load.call(number, load.shape, due).await?;
                    if rate.is_none() {
                        load.wait(&ended, Some(end)).await;
                    }
                    anyhow::Ok(())
                };
                tokio::select! {
                    called = call => called?,
                    () = stop.cancelled() => break,
                }
            }
            anyhow::Ok(())
        });
    }
    while let Some(ended) = connections.join_next().await {
        ended.context("a connection's task ended")??;
    }
    let seconds = start.elapsed().as_secs_f64();
    // Of an interrupted run those that were due by then.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "at most the total")]
    let due = match (args.rate, total) {
        (Some(rate), Some(total)) if stop.is_cancelled() => total.min((seconds * rate) as u64 + 1),
        (_, total) => total.unwrap_or_default(),
    };
    let mut tally = load.tally.lock();
    let calls = tally.calls.clone();
    let not_sent = due.saturating_sub(calls.sent);
    if let Some(rate) = args.rate {
        // The last of them: connections take the calls in order.
        for number in due - not_sent..due {
            let waited = seconds - number as f64 / rate;
            tally.never_sent(Duration::from_secs_f64(waited.max(0.0)));
        }
    }
    Ok(Run {
        began,
        asked,
        readings_per_call: args.readings,
        kind: if args.rate.is_some() { "open" } else { "closed" },
        asked_rate: args.rate,
        rate: calls.taken() as f64 / seconds,
        readings_per_second: calls.accepted_readings as f64 / seconds,
        seconds,
        not_sent,
        latency_ms: Distribution::from(&tally.from_due),
        from_sending_ms: Distribution::from(&tally.from_sending),
        calls,
    })
}

/// Calls of each size, one after another.
async fn sizes(
    load: Load,
    args: &LoadArgs,
    asked: LoadPlan,
    stop: &CancellationToken,
) -> anyhow::Result<Sweep> {
    let began = SystemClock.now();
    // The connection is made before anything is measured. What becomes of this call is told by the next.
    drop(load.call(0, BodyShape { readings: 1, ..load.shape }, None).await?);
    let mut sizes = Vec::new();
    for readings in &args.sweep {
        *load.tally.lock() = Tally::new();
        let shape = BodyShape { readings: *readings, ..load.shape };
        let tries = u64::from(args.calls) * u64::from(TRIES);
        for number in 0..tries {
            let taken = load.tally.lock().calls.taken();
            if taken >= u64::from(args.calls) || stop.is_cancelled() {
                break;
            }
            let ended = load.call(number, shape, None).await?;
            let hopeless =
                matches!(&ended, CallResult::Refused { wait: None, .. } | CallResult::Failed { .. });
            if hopeless && taken == 0 {
                break;
            }
            tokio::select! {
                () = load.wait(&ended, None) => {}
                () = stop.cancelled() => {}
            }
        }
        let tally = load.tally.lock();
        sizes.push(Size {
            readings_per_call: *readings,
            calls: tally.calls.clone(),
            latency_ms: Distribution::from(&tally.from_due),
        });
    }
    Ok(Sweep { began, asked, calls_per_size: args.calls, sizes })
}
