//! The `galerna` command: every module of the system, alone or together.

// Those macros panic when nobody reads any more (`galerna … | head`); `galerna_terminal::print` and `tell` do not.
#![warn(clippy::print_stdout, clippy::print_stderr)]

mod api_client;
mod args;
mod commands;
mod page_client;

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use galerna_server::{modules, standalone, stop, together};
use galerna_settings::{Config, Sources};
use galerna_telemetry as telemetry;
use galerna_terminal::tell;

use crate::args::{BenchCommand, Cli, Command, DemoCommand, MaintainerArgs, MaintainerOnce};

/// Exit code of a wrong command line (as clap has it) or configuration.
const WRONG: u8 = 2;
/// How long the end waits for blocking calls under way.
const PARTING: Duration = Duration::from_secs(5);

/// Runs the command of the command line, and says how it ended.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let config = match configuration(&cli) {
        Ok(config) => config,
        Err(message) => {
            tell(format_args!("error: {message}"));
            return ExitCode::from(WRONG);
        }
    };
    let exporter = match telemetry::start(&config) {
        Ok(exporter) => exporter,
        Err(e) => {
            tell(format_args!("error: {e:#}"));
            return ExitCode::from(WRONG);
        }
    };
    match run(cli.command, config, exporter) {
        Ok(code) => code,
        Err(e) => {
            tell(format_args!("error: {e:#}"));
            ExitCode::FAILURE
        }
    }
}

fn configuration(cli: &Cli) -> Result<Config, String> {
    let sources = Sources {
        file: cli.settings.config.clone(),
        variables: std::env::vars_os()
            .filter_map(|(name, value)| {
                Some((name.into_string().ok()?, value.to_string_lossy().into_owned()))
            })
            .collect(),
        flags: cli.flags()?,
        defaults: cli.command.defaults(),
    };
    let config = Config::load(&sources).map_err(|e| e.to_string())?;
    let data = std::path::Path::new(config.text("data"));
    if data.exists() && !data.is_dir() {
        return Err(format!(
            "`data` is `{}`, which is a file; name a folder (--data), which is made when it is not there",
            data.display()
        ));
    }
    if cli.command.runs_modules() {
        modules::check(&config).map_err(|e| format!("the configuration is wrong: {e:#}"))?;
    }
    Ok(config)
}

fn run(command: Command, config: Config, exporter: Option<telemetry::Exporter>) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let work = async {
        match command {
            Command::Demo(DemoCommand { args, .. }) => {
                return galerna_demo::run(args, config, stop::on_signals()?).await;
            }
            Command::Up(args) => together::up(args.workers, &config, stop::on_signals()?).await?,
            Command::Dispatcher => standalone::dispatcher(&config, stop::on_signals()?).await?,
            Command::Maintainer(MaintainerArgs { once: None }) => {
                standalone::maintainer(&config, stop::on_signals()?).await?;
            }
            Command::Maintainer(MaintainerArgs {
                once: Some(MaintainerOnce::RunOnce { task, force, json }),
            }) => {
                commands::maintainer::run_once(task, force, json, &config).await?;
            }
            Command::Worker => standalone::worker(&config, stop::on_signals()?).await?,
            Command::Frontend => standalone::frontend(&config, stop::on_signals()?).await?,
            Command::Notifier => standalone::notifier(&config, stop::on_signals()?).await?,
            Command::Page => standalone::page(&config, stop::on_signals()?).await?,
            Command::Queues(args) => commands::queues::run(args, &config).await?,
            Command::Publish(args) => commands::publish::run(&args, &config).await?,
            Command::Sources(args) => commands::sources::run(&args, &config).await?,
            Command::Alerting(command) => commands::alerts::run(command, &config).await?,
            Command::Load(args) => galerna_demo::load::run(&args, &config, &stop::on_signals()?).await?,
            Command::Trace(args) => return commands::trace::run(&args, &config).await,
            Command::Topology(args) => commands::topology::run(&args, &config)?,
            Command::Config(args) => commands::config::run(&args, &config)?,
            Command::Bench(BenchCommand::Dispatcher(args)) => {
                commands::bench::dispatcher(&args, config).await?
            }
        }
        Ok(ExitCode::SUCCESS)
    };
    let result = runtime.block_on(async {
        let exporting = exporter.map(telemetry::Exporter::start).transpose()?;
        let result = work.await;
        if let Some(exporting) = exporting {
            exporting.finish().await;
        }
        result
    });
    // What still runs is only background work of libraries; everything that matters was awaited.
    runtime.shutdown_timeout(PARTING);
    result
}
