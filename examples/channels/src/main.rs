//! `channels`: follow streams of a social network, filter them, repeat what passes, post on schedules.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use channels::channel::{Account, Channel};
use channels::demo::{self, DemoOptions};
use channels::local::LocalServer;
use channels::mastodon::Mastodon;
use channels::service::{Channels, Options};
use channels::web;
use clap::{Args, Parser, Subcommand};
use galerna_model::{Clock, SystemClock};
use galerna_telemetry::ProgramTelemetry;
use serde::Deserialize;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// Follow streams of a social network, filter them, repeat what passes, post on schedules
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Follow the channels that are on, with a page and an API
    Serve(Serve),
    /// Replay recorded statuses to many channels while things go wrong, and compare what comes out
    Demo(Demo),
    /// Only the local server of the demo, for trying `serve`
    Local {
        /// Where it listens
        #[arg(long, default_value = "127.0.0.1:8482")]
        listen: SocketAddr,
    },
}

#[derive(Debug, Args)]
struct Serve {
    /// The folder of its files
    #[arg(long, default_value = "channels-data")]
    folder: PathBuf,
    /// Where page and API are
    #[arg(long, default_value = "127.0.0.1:8481")]
    listen: SocketAddr,
    /// What callers must send as bearer token; needed to listen for other machines
    #[arg(long, env = "CHANNELS_TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// A TOML file of accounts and channels, which are added or edited at the start
    #[arg(long)]
    config: Option<PathBuf>,
    /// Days for which the log is kept
    #[arg(long, default_value_t = 90, value_parser = clap::value_parser!(u64).range(1..=36_500))]
    keep_days: u64,
    /// Seconds between two looks where there is no stream
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..))]
    poll: u64,
    /// Seconds between two looks for what a stream left out, at most 300
    #[arg(long, default_value_t = 240, value_parser = clap::value_parser!(u64).range(1..=300))]
    recheck: u64,
}

#[derive(Debug, Args)]
struct Demo {
    /// Channels
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u64).range(1..=5_000))]
    channels: u64,
    /// Statuses that are replayed to each
    #[arg(long, default_value_t = 24, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    statuses: u64,
    /// Where the page is
    #[arg(long, default_value = "127.0.0.1:8481")]
    listen: SocketAddr,
    /// End when all is compared; 0 if what came out is what should have
    #[arg(long)]
    exit: bool,
    /// Write what came of it to this file, as JSON
    #[arg(long)]
    report: Option<PathBuf>,
}

/// Accounts and channels as they are written in a file.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Config {
    accounts: Vec<WrittenAccount>,
    channels: Vec<Channel>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenAccount {
    name: String,
    server: String,
    /// The token, or
    token: Option<String>,
    /// the environment variable that has it.
    token_env: Option<String>,
}

fn main() -> ExitCode {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let ended = runtime.context("starting the runtime").and_then(|runtime| runtime.block_on(run()));
    match ended {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> anyhow::Result<ExitCode> {
    let arguments = Arguments::parse();
    let telemetry = ProgramTelemetry::start("channels", "warn")?;
    let ended = run_command(arguments.command).await;
    telemetry.finish().await;
    ended
}

async fn run_command(command: Command) -> anyhow::Result<ExitCode> {
    let stop = CancellationToken::new();
    let stopping = stop.clone();
    tokio::spawn(async move {
        told_to_end().await;
        stopping.cancel();
    });
    match command {
        Command::Serve(arguments) => serve(arguments, stop).await,
        Command::Demo(arguments) => run_demo(arguments, stop).await,
        Command::Local { listen } => {
            let server = LocalServer::start(listen, Arc::new(SystemClock)).await?;
            println!("the local server is at {}", server.url());
            server.run(stop.cancelled_owned()).await;
            Ok(ExitCode::SUCCESS)
        }
    }
}

async fn told_to_end() {
    use tokio::signal::unix::{SignalKind, signal};
    let Ok(mut terminated) = signal(SignalKind::terminate()) else { return std::future::pending().await };
    tokio::select! {
        _ = terminated.recv() => {}
        _ = tokio::signal::ctrl_c() => {}
    }
}

async fn run_demo(arguments: Demo, stop: CancellationToken) -> anyhow::Result<ExitCode> {
    let folder = std::env::temp_dir().join(format!("channels-demo-{}", std::process::id()));
    let options = DemoOptions {
        channels: usize::try_from(arguments.channels)?,
        statuses: usize::try_from(arguments.statuses)?,
        listen: arguments.listen,
        exit: arguments.exit,
        folder: folder.clone(),
    };
    let report = demo::run(options, stop).await;
    // It was made for this run.
    drop(std::fs::remove_dir_all(&folder));
    let Some(report) = report? else { return Ok(ExitCode::FAILURE) };
    if let Some(path) = arguments.report {
        let text = serde_json::to_string_pretty(&report)?;
        std::fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
    }
    Ok(if report.is_right() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn serve(arguments: Serve, stop: CancellationToken) -> anyhow::Result<ExitCode> {
    let config = match &arguments.config {
        Some(path) => {
            let text =
                std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
            toml::from_str(&text).with_context(|| format!("reading {}", path.display()))?
        }
        None => Config::default(),
    };
    let listener = TcpListener::bind(arguments.listen).await;
    let listener = listener.with_context(|| format!("listening on {}", arguments.listen))?;
    let address = listener.local_addr()?;

    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let network = Arc::new(Mastodon::new(Arc::clone(&clock))?);
    let mut options = Options::new(&arguments.folder);
    options.asking.poll = Duration::from_secs(arguments.poll);
    options.asking.recheck = Duration::from_secs(arguments.recheck);
    options.keep = Duration::from_secs(arguments.keep_days * 86_400);
    let channels = Channels::start(options, network, clock).await?;
    apply(&channels, config).await?;
    println!("the page is at http://{address}/channels");
    web::serve(&channels, listener, arguments.token, stop).await?;
    channels.stop(Duration::from_secs(10)).await;
    Ok(ExitCode::SUCCESS)
}

/// Adds and edits what a file says. Channels that are new are switched on.
async fn apply(channels: &Arc<Channels>, config: Config) -> anyhow::Result<()> {
    for WrittenAccount { name, server, token, token_env } in config.accounts {
        let token = match (token, token_env) {
            (Some(token), None) => token,
            (None, Some(variable)) => {
                std::env::var(&variable).with_context(|| format!("account {name}: reading {variable}"))?
            }
            _ => anyhow::bail!("account {name}: write either token or token_env"),
        };
        channels
            .put_account(Account { name: name.clone(), server, token })
            .await
            .with_context(|| format!("account {name}"))?;
    }
    for channel in config.channels {
        let name = channel.name.clone();
        let new = channels.view().iter().all(|view| view.channel.name != name);
        channels.put(channel).await.with_context(|| format!("channel {name}"))?;
        if new {
            channels.switch(&name, true).await?;
        }
    }
    Ok(())
}
