//! `watchlist`: alerts from groups' posts. `README.md` tells how it is used.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use galerna_telemetry::ProgramTelemetry;
use tokio::signal::unix::{SignalKind, signal};
use watchlist::demo::DemoOptions;
use watchlist::{Config, Options, ParkedOptions, Watchlist};

/// Crawls groups' posts, counts keywords in them, and alerts once when a threshold is reached.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Watches what a file says, until it is told to stop
    Serve {
        /// What is watched: see `watchlist.toml` beside the README
        #[arg(long, env = "WATCHLIST_CONFIG")]
        config: PathBuf,
        #[command(flatten)]
        options: Options,
    },
    /// Lists pages that cannot be fetched and are tried no more, tries them again, or drops them
    Parked(ParkedOptions),
    /// Crawls a local site with recorded posts, offline, and an independent count of what came out
    Demo(DemoOptions),
}

#[tokio::main]
async fn main() -> ExitCode {
    match told(Arguments::parse().command).await {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn told(command: Command) -> anyhow::Result<ExitCode> {
    let telemetry = ProgramTelemetry::start("watchlist", "warn")?;
    let ended = run(command).await;
    telemetry.finish().await;
    ended
}

async fn run(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Serve { config, options } => {
            let mut terminate = signal(SignalKind::terminate())?;
            let watchlist = Watchlist::start(options, Config::read(&config)?).await?;
            println!("the page is at http://{}/watchlist", watchlist.address);
            tokio::select! {
                _ = terminate.recv() => {}
                interrupted = tokio::signal::ctrl_c() => interrupted?,
            }
            watchlist.stop().await;
            Ok(ExitCode::SUCCESS)
        }
        Command::Parked(options) => {
            let lines = watchlist::parked(options).await?;
            println!("{}", if lines.is_empty() { "nothing is parked".to_owned() } else { lines.join("\n") });
            Ok(ExitCode::SUCCESS)
        }
        Command::Demo(options) => {
            let right = watchlist::demo::run(options).await?;
            Ok(if right { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
    }
}
