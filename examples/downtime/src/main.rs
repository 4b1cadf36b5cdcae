//! The command `downtime`.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use clap::{Args, Parser, Subcommand};
use downtime::app::{App, Options};
use downtime::demo;

use downtime::topology::Smtp;
use galerna_model::SystemClock;
use galerna_telemetry::ProgramTelemetry;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use url::Url;

/// A factory's production lines: when they stood still, and who is told.
#[derive(Debug, Parser)]
#[command(version)]
struct Command {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Plays nine recorded days in some seconds and counts everything.
    Demo(demo::DemoArgs),
    /// Runs it.
    Serve(Box<Serve>),
}

#[derive(Debug, Args)]
struct Serve {
    /// Where the API and the page are served.
    #[arg(long, default_value = "127.0.0.1:8480", value_name = "ADDRESS")]
    listen: String,
    /// The folder of what is kept in SQLite.
    #[arg(long = "folder", alias = "data", default_value = "downtime-data", value_name = "FOLDER")]
    data: PathBuf,
    /// Keep lines and downtimes in PostgreSQL: `postgres://user:password@host/database`.
    #[arg(long, env = "DOWNTIME_DATABASE", value_name = "URL", hide_env_values = true)]
    database: Option<String>,
    /// Keep notification lists in MongoDB: `mongodb://host/database`.
    #[arg(long, env = "DOWNTIME_LISTS", value_name = "URL", hide_env_values = true)]
    lists: Option<String>,
    /// A status API to look at: it answers `[{"line": "press 1", "status": "up", "since": "2026-01-01T12:00:00Z"}]`.
    #[arg(long, value_name = "URL")]
    poll: Option<Url>,
    /// How often: `30s`, `5m`.
    #[arg(long, default_value = "30s", value_parser = duration, value_name = "TIME")]
    poll_every: Duration,
    /// A line that has sent heartbeats and was not heard of for so long counts as down.
    #[arg(long, default_value = "5m", value_parser = duration, value_name = "TIME")]
    silence: Duration,
    /// A change is told when it has lasted for so long.
    #[arg(long, default_value = "60s", value_parser = duration, value_name = "TIME")]
    hold: Duration,
    /// Tell lists by this mail server: `smtps://user:password@mail.example.com`. Without it they are told in the log.
    #[arg(long, env = "DOWNTIME_SMTP", value_name = "URL", hide_env_values = true)]
    smtp: Option<String>,
    /// The sender of mails.
    #[arg(long, default_value = "Downtime <downtime@localhost>", value_name = "SENDER")]
    from: String,
    /// Tell this webhook too.
    #[arg(long, env = "DOWNTIME_WEBHOOK", value_name = "URL", hide_env_values = true)]
    webhook: Option<Url>,
    /// So long other processes on the same PostgreSQL leave alone what this one tells.
    #[arg(long, default_value = "120s", value_parser = duration, value_name = "TIME")]
    lease: Duration,
    /// The bearer token of the API. Needed to listen on other addresses than this machine's.
    #[arg(long, env = "DOWNTIME_TOKEN", value_name = "TOKEN", hide_env_values = true)]
    token: Option<String>,
}

fn duration(text: &str) -> Result<Duration, String> {
    let parsed =
        text.trim().parse::<jiff::SignedDuration>().ok().and_then(|time| Duration::try_from(time).ok());
    parsed.ok_or_else(|| format!("`{text}` is no time; write for instance 30s, 5m or 1h"))
}

impl Serve {
    fn options(&self) -> Options {
        let smtp = self.smtp.clone().map(|url| Smtp { url, from: self.from.clone() });
        Options {
            database: self.database.clone(),
            lists: self.lists.clone(),
            poll: self.poll.clone(),
            poll_every: self.poll_every,
            silence: self.silence,
            hold: self.hold,
            smtp,
            webhook: self.webhook.clone(),
            lease: self.lease,
            token: self.token.clone(),
            ..Options::new(self.data.clone())
        }
    }

    async fn run(self) -> anyhow::Result<ExitCode> {
        let mut terminate = signal(SignalKind::terminate()).context("listening for SIGTERM")?;
        let app = App::start(&self.options(), Arc::new(SystemClock), Arc::new(SystemClock)).await?;
        let listener =
            TcpListener::bind(&self.listen).await.with_context(|| format!("listening on {}", self.listen))?;
        println!("downtime: page and API on http://{}/lines", listener.local_addr()?);
        let stop = async {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = tokio::signal::ctrl_c() => {}
            }
        };
        if !app.serve(listener, stop).await? {
            tracing::warn!("not everything ended in time; it is told after the next start");
        }
        Ok(ExitCode::SUCCESS)
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(Command::parse().what).await {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(what: What) -> anyhow::Result<ExitCode> {
    let telemetry = ProgramTelemetry::start("downtime", "info")?;
    let ended = match what {
        What::Demo(args) => demo::run(args).await,
        What::Serve(serve) => serve.run().await,
    };
    telemetry.finish().await;
    ended
}
