//! The `galerna` command: every module of the system, alone or together.

// Those macros panic when nobody reads any more (`galerna … | head`); `galerna_terminal::print` and `tell` do not.
#![warn(clippy::print_stdout, clippy::print_stderr)]

mod api_client;
mod args;
mod commands;
mod failure;
mod form;
mod page_client;

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use galerna_server::{modules, separate, signals, standalone};
use galerna_settings::{Inputs, Settings};
use galerna_telemetry as telemetry;

use crate::args::{BenchCommand, Cli, Command, DemoCommand, MaintainerArgs, MaintainerOnce};
use crate::failure::{Failure, asks_for_json};

/// How long the end waits for blocking calls under way.
const PARTING: Duration = Duration::from_secs(5);

/// Runs the command of the command line, and says how it ended.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(e) => {
            let arguments: Vec<String> =
                std::env::args_os().map(|argument| argument.to_string_lossy().into_owned()).collect();
            if e.use_stderr() && asks_for_json(&arguments) {
                return Failure::usage(e.render().to_string().trim()).tell(true);
            }
            e.exit()
        }
    };
    let is_json = cli.command.is_json();
    let ended = match cli.command {
        // They need no settings, of which some may be wrong.
        Command::Completions { shell } => commands::shell::completions(shell),
        Command::Man { folder } => commands::shell::manual(&folder),
        _ => return with_settings(cli, is_json),
    };
    ended.map_or_else(|e| Failure::of(&e).tell(is_json), |()| ExitCode::SUCCESS)
}

fn with_settings(cli: Cli, is_json: bool) -> ExitCode {
    let wrong = |message: &str| Failure::configuration(message).tell(is_json);
    if let Some((_, false)) = cli.command.watch() {
        let message =
            "--watch repeats what only reads, such as a list; this command changes something: run it once";
        return Failure::usage(message).tell(is_json);
    }
    let settings = match configuration(&cli) {
        Ok(settings) => settings,
        Err(message) => return wrong(&message),
    };
    let exporter = match telemetry::start(&settings) {
        Ok(exporter) => exporter,
        Err(e) => return wrong(&format!("{e:#}")),
    };
    match run(cli.command, settings, exporter) {
        Ok(code) => code,
        Err(e) => Failure::of(&e).tell(is_json),
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
        if let Some((pause, _)) = command.watch() {
            let stop = signals::on_signals()?;
            form::repeat(pause, &stop, || read(command.clone(), &settings)).await?;
            return Ok(ExitCode::SUCCESS);
        }
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
            Command::Publish(args) => commands::publish::run(&args, &settings).await?,
            Command::Load(args) => galerna_demo::load::run(&args, &settings, &signals::on_signals()?).await?,
            Command::Multilang(command) => commands::multilang::run(command, &settings).await?,
            Command::Bench(BenchCommand::Dispatcher(args)) => {
                commands::bench::dispatcher(&args, settings).await?
            }
            command @ (Command::Queues(_)
            | Command::Sources(_)
            | Command::Schedules(_)
            | Command::Alerting(_)
            | Command::Trace(_)
            | Command::Topology(_)
            | Command::Config(_)) => read(command, &settings).await?,
            // They ended before there were settings.
            Command::Completions { .. } | Command::Man { .. } => {}
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

/// Runs one of the commands that show something, and change something at most.
async fn read(command: Command, settings: &Settings) -> anyhow::Result<()> {
    match command {
        Command::Queues(args) => commands::queues::run(args, settings).await,
        Command::Sources(args) => commands::sources::run(&args, settings).await,
        Command::Schedules(args) => commands::schedules::run(args, settings).await,
        Command::Alerting(command) => commands::alerts::run(command, settings).await,
        Command::Trace(args) => commands::trace::run(&args, settings).await,
        Command::Topology(args) => match args.running() {
            Some(command) => commands::topologies::run(command, &args.form, settings).await,
            None => commands::topology::run(&args, settings),
        },
        Command::Config(args) => commands::config::run(&args, settings),
        _ => Ok(()),
    }
}
