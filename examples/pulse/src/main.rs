//! `pulse`: a periodic fan-out over the accounts of a social network. `README.md` tells how it is used.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use galerna_telemetry::ProgramTelemetry;
use pulse::demo::DemoOptions;
use pulse::{Options, Pulse};
use tokio::signal::unix::{SignalKind, signal};

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
    let telemetry = ProgramTelemetry::start("pulse", "info")?;
    let ended = run(command).await;
    telemetry.finish().await;
    ended
}

async fn run(command: Command) -> anyhow::Result<ExitCode> {
    match command {
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
