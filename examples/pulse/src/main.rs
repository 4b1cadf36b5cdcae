//! `pulse`: a periodic fan-out over the accounts of a social network. `README.md` tells how it is used.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use pulse::demo::DemoOptions;
use pulse::{Options, Pulse};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

/// Compares the last posts of many accounts in a chart, again and again.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Fetches the accounts of a server, round after round, until it is told to stop
    Serve(Box<Options>),
    /// Some rounds over recorded posts, offline, and an independent count of what came out
    Demo(DemoOptions),
}

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let arguments = Arguments::parse();
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    match arguments.command {
        Command::Serve(options) => {
            let mut terminate = signal(SignalKind::terminate())?;
            let pulse = Pulse::start(*options).await?;
            println!("the page is at http://{}/pulse", pulse.address);
            tokio::select! {
                _ = terminate.recv() => {}
                interrupted = tokio::signal::ctrl_c() => interrupted?,
            }
            pulse.stop().await;
            Ok(ExitCode::SUCCESS)
        }
        Command::Demo(options) => {
            let right = pulse::demo::run(options).await?;
            Ok(if right { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
    }
}
