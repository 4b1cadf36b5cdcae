//! `watchlist`: alerts from groups' posts. `README.md` tells how it is used.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;
use watchlist::demo::DemoOptions;
use watchlist::{Config, Options, Watchlist};

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
    /// Crawls a local site with recorded posts, offline, and an independent count of what came out
    Demo(DemoOptions),
}

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let arguments = Arguments::parse();
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("warn"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    match arguments.command {
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
        Command::Demo(options) => {
            let right = watchlist::demo::run(options).await?;
            Ok(if right { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
    }
}
