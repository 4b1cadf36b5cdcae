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
use galerna_server::{modules, separate, signals, standalone};
use galerna_settings::{Inputs, Settings};
use galerna_telemetry as telemetry;
use galerna_terminal::eprint;

use crate::args::{BenchCommand, Cli, Command, DemoCommand, MaintainerArgs, MaintainerOnce};

/// Exit code of a wrong command line (as clap has it) or configuration.
const WRONG: u8 = 2;
/// How long the end waits for blocking calls under way.
const PARTING: Duration = Duration::from_secs(5);

/// Runs the command of the command line, and says how it ended.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let settings = match configuration(&cli) {
        Ok(settings) => settings,
        Err(message) => {
            eprint(format_args!("error: {message}"));
            return ExitCode::from(WRONG);
        }
    };
    let exporter = match telemetry::start(&settings) {
        Ok(exporter) => exporter,
        Err(e) => {
            eprint(format_args!("error: {e:#}"));
            return ExitCode::from(WRONG);
        }
    };
    match run(cli.command, settings, exporter) {
        Ok(code) => code,
        Err(e) => {
            eprint(format_args!("error: {e:#}"));
            ExitCode::FAILURE
        }
    }
}

fn configuration(cli: &Cli) -> Result<Settings, String> {
    let inputs = Inputs {
        file: cli.settings.config.clone(),
        variables: std::env::vars_os()
            .filter_map(|(name, value)| {
                Some((name.into_string().ok()?, value.to_string_lossy().into_owned()))
            })
            .collect(),
        flags: cli.flags()?,
        defaults: cli.command.defaults(),
    };
    let settings = Settings::load(&inputs).map_err(|e| e.to_string())?;
    let data = &settings.data;
    if data.exists() && !data.is_dir() {
        return Err(format!(
            "`data` is `{}`, which is a file; name a folder (--data), which is made when it is not there",
            data.display()
        ));
    }
    if cli.command.runs_modules() {
        modules::check(&settings).map_err(|e| format!("the configuration is wrong: {e:#}"))?;
    }
    Ok(settings)
}

fn run(
    command: Command,
    settings: Settings,
    exporter: Option<telemetry::Exporter>,
) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let work = async {
        match command {
            Command::Demo(DemoCommand { args, .. }) => {
                return galerna_demo::run(args, settings, signals::on_signals()?).await;
            }
            Command::Up(args) => standalone::up(args.workers, &settings, signals::on_signals()?).await?,
            Command::Dispatcher => separate::dispatcher(&settings, signals::on_signals()?).await?,
            Command::Maintainer(MaintainerArgs { once: None }) => {
                separate::maintainer(&settings, signals::on_signals()?).await?;
            }
            Command::Maintainer(MaintainerArgs {
                once: Some(MaintainerOnce::RunOnce { task, force, json }),
            }) => {
                commands::maintainer::run_once(task, force, json, &settings).await?;
            }
            Command::Worker => separate::worker(&settings, signals::on_signals()?).await?,
            Command::Frontend => separate::frontend(&settings, signals::on_signals()?).await?,
            Command::Notifier => separate::notifier(&settings, signals::on_signals()?).await?,
            Command::Page => separate::page(&settings, signals::on_signals()?).await?,
            Command::Queues(args) => commands::queues::run(args, &settings).await?,
            Command::Publish(args) => commands::publish::run(&args, &settings).await?,
            Command::Sources(args) => commands::sources::run(&args, &settings).await?,
            Command::Alerting(command) => commands::alerts::run(command, &settings).await?,
            Command::Load(args) => galerna_demo::load::run(&args, &settings, &signals::on_signals()?).await?,
            Command::Trace(args) => return commands::trace::run(&args, &settings).await,
            Command::Topology(args) => commands::topology::run(&args, &settings)?,
            Command::Config(args) => commands::config::run(&args, &settings)?,
            Command::Bench(BenchCommand::Dispatcher(args)) => {
                commands::bench::dispatcher(&args, settings).await?
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
