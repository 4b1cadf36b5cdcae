//! The command line.

mod action;
mod publish;
mod queues;
mod topology;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use galerna_demo::DemoArgs;
use galerna_demo::load::LoadArgs;
use galerna_dispatcher::StrategyName;
use galerna_settings::FlagValue;

pub(crate) use self::action::{Reason, Sure};
pub(crate) use self::publish::{FileForm, PublishArgs};
pub(crate) use self::queues::{DeadCommand, DeadSelection, PauseSelection, QueuesArgs, QueuesCommand};
pub(crate) use self::topology::{FluxArgs, MultilangCommand, TopologyArgs, TopologyCommand, TopologyForm};
use crate::commands::alerts::AlertingCommand;
use crate::commands::schedules::SchedulesArgs;
use crate::commands::sources::SourcesArgs;
use crate::commands::topologies::TopologiesCommand;
use crate::form::Form;

/// Stream processing of meters' readings over leased per-account queues.
#[derive(Debug, Parser)]
#[command(
    name = "galerna",
    version,
    about,
    propagate_version = true,
    arg_required_else_help = true,
    after_help = "Start with `galerna demo`: it runs the whole system on real meter data with nothing to install.\n\
        Exit codes: 0 done, 1 failed, 2 wrong command line or configuration, 3 readings lost (demo).\n\
        Under --json or --output json an error is {\"error\": {\"code\", \"message\", \"help\", \"exit_code\"}} on standard error.\n\
        Colours are shown on terminals, unless NO_COLOR is set."
)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) settings: SettingFlags,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Flags of every command; each overrides a setting of `galerna.toml` and of the environment.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Settings (see `galerna config`)")]
pub(crate) struct SettingFlags {
    /// Read this file [default: galerna.toml in the current folder, if it is there]
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// `embedded`, or amqp://… for RabbitMQ
    #[arg(long, global = true, value_name = "URL")]
    broker: Option<String>,
    /// `embedded`, or mongodb://… for MongoDB
    #[arg(long, global = true, value_name = "URL")]
    store: Option<String>,
    /// Folder of the embedded broker and store
    #[arg(long, global = true, value_name = "FOLDER")]
    data: Option<String>,
    /// Address of the dispatcher's API, for instance 127.0.0.1:7676
    #[arg(long, global = true, value_name = "ADDRESS")]
    listen: Option<String>,
    /// Dispatcher to talk to, for instance http://127.0.0.1:7676
    #[arg(long, global = true, value_name = "URL")]
    dispatcher: Option<String>,
    /// Any setting, for instance `--set worker.leases=16`; may be repeated
    #[arg(long, global = true, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Filter of the log, for instance `debug` or `warn,galerna_engine=debug`
    #[arg(long, global = true, value_name = "FILTER")]
    log: Option<String>,
    /// `text` or `json`
    #[arg(long, global = true, value_name = "FORM")]
    log_format: Option<String>,
}

impl SettingFlags {
    /// What was set, in the order in which it counts: `--set` goes before the flag that has a name of its own.
    ///
    /// # Errors
    /// A `--set` without `=`.
    pub(crate) fn values(&self) -> Result<Vec<FlagValue>, String> {
        let named = [
            ("--broker", "broker.url", &self.broker),
            ("--store", "store.url", &self.store),
            ("--data", "data", &self.data),
            ("--listen", "api.listen", &self.listen),
            ("--dispatcher", "dispatcher.url", &self.dispatcher),
            ("--log", "log.level", &self.log),
            ("--log-format", "log.format", &self.log_format),
        ];
        let mut values: Vec<FlagValue> = named
            .into_iter()
            .filter_map(|(flag, name, value)| {
                Some(FlagValue { flag: flag.to_owned(), name: name.to_owned(), value: value.clone()? })
            })
            .collect();
        for pair in &self.set {
            let Some((name, value)) = pair.split_once('=') else {
                return Err(format!(
                    "`--set {pair}` has no `=`; write --set KEY=VALUE, such as --set worker.leases=16"
                ));
            };
            let (name, value) = (name.trim().to_owned(), value.to_owned());
            values.push(FlagValue { flag: "--set".to_owned(), name, value });
        }
        Ok(values)
    }
}

impl Cli {
    /// Settings that flags give, those of the command included.
    ///
    /// # Errors
    /// A `--set` without `=`.
    pub(crate) fn flags(&self) -> Result<Vec<FlagValue>, String> {
        let mut flags = self.settings.values()?;
        if let Command::Demo(DemoCommand { strategy: Some(strategy), .. }) = &self.command {
            flags.push(FlagValue {
                flag: "--strategy".to_owned(),
                name: "dispatcher.strategy".to_owned(),
                value: strategy.as_str().to_owned(),
            });
        }
        Ok(flags)
    }
}

impl Command {
    /// Whether it runs modules, rather than talk to those that run elsewhere.
    pub(crate) fn runs_modules(&self) -> bool {
        matches!(
            self,
            Self::Demo(_)
                | Self::Up(_)
                | Self::Dispatcher
                | Self::Maintainer(_)
                | Self::Worker
                | Self::Frontend
                | Self::Notifier
                | Self::Page
                | Self::Multilang(_)
        )
    }

    /// Whether a program reads what it prints, so that errors are JSON too.
    pub(crate) fn is_json(&self) -> bool {
        match self {
            Self::Queues(args) => args.form.is_json(),
            Self::Sources(args) => args.form.is_json(),
            Self::Schedules(args) => args.form.is_json(),
            Self::Alerting(command) => command.form().is_json(),
            Self::Trace(args) => args.form.is_json(),
            Self::Config(args) => args.form.is_json(),
            Self::Publish(args) => args.json,
            Self::Load(args) => args.json,
            Self::Maintainer(MaintainerArgs { once: Some(MaintainerOnce::RunOnce { json, .. }) }) => *json,
            Self::Bench(BenchCommand::Dispatcher(args)) => args.json,
            Self::Topology(args) => match args.command {
                None => args.format == TopologyForm::Json || args.form.is_json(),
                Some(_) => args.form.is_json(),
            },
            _ => false,
        }
    }

    /// With what pause it is run again and again, and whether it only reads, as what is repeated must.
    pub(crate) fn watch(&self) -> Option<(std::time::Duration, bool)> {
        let (form, reads) = match self {
            Self::Queues(args) => (&args.form, args.command.reads()),
            Self::Sources(args) => (&args.form, args.reads()),
            Self::Schedules(args) => (&args.form, args.reads()),
            Self::Alerting(command) => (command.form(), command.reads()),
            Self::Trace(args) => (&args.form, true),
            Self::Topology(args) => (&args.form, args.running().is_some_and(TopologiesCommand::reads)),
            Self::Config(args) => (&args.form, true),
            _ => return None,
        };
        Some((form.watch()?, reads))
    }

    /// Defaults that differ from those of the settings.
    pub(crate) fn defaults(&self) -> Vec<(&'static str, String)> {
        let quiet = ("log.level", "warn,galerna_dispatcher::planner=error".to_owned());
        match self {
            // Bars and a table are shown; the log would only be in their way. Nobody calls the API of a run that ends.
            Self::Demo(DemoCommand { args, .. }) => {
                // Two months in a second: no concentrator sends like that.
                let fast = |name| (name, "1000000".to_owned());
                let mut defaults = vec![
                    quiet,
                    fast("frontend.calls_per_second"),
                    ("frontend.readings_per_second", "100000000".to_owned()),
                    ("frontend.notice", "0ms".to_owned()),
                    // The receiver of the alerts is on this machine.
                    ("notifier.allow", "127.0.0.1/32".to_owned()),
                ];
                if args.exit {
                    let free = |name| (name, "127.0.0.1:0".to_owned());
                    let all = ["api.listen", "frontend.listen", "page.listen", "worker.listen"];
                    defaults.extend(all.map(free));
                }
                defaults
            }
            Self::Queues(_)
            | Self::Publish(_)
            | Self::Sources(_)
            | Self::Schedules(_)
            | Self::Alerting(_)
            | Self::Load(_)
            | Self::Trace(_)
            | Self::Topology(_)
            // What it tells goes to the log of the worker that started it.
            | Self::Multilang(_)
            | Self::Config(_)
            | Self::Bench(_)
            | Self::Completions { .. }
            | Self::Man { .. } => {
                vec![quiet]
            }
            Self::Up(_)
            | Self::Dispatcher
            | Self::Maintainer(_)
            | Self::Worker
            | Self::Frontend
            | Self::Notifier
            | Self::Page => vec![],
        }
    }
}

#[derive(Debug, Clone, Subcommand)]
pub(crate) enum Command {
    /// Run the whole system on two months of real meters, and account for every reading
    Demo(DemoCommand),
    /// Run all modules in one process
    Up(UpArgs),
    /// Run a dispatcher: leases queues to workers (needs MongoDB)
    Dispatcher,
    /// Run the maintainer: keeps the queues' states fresh (needs RabbitMQ and MongoDB)
    Maintainer(MaintainerArgs),
    /// Run a worker: the ingestion topology (needs RabbitMQ and MongoDB)
    Worker,
    /// Run a frontend: takes readings over HTTP (needs RabbitMQ and MongoDB)
    Frontend,
    /// Run a notifier: delivers alerts (needs RabbitMQ and MongoDB)
    Notifier,
    /// Run the web page (needs RabbitMQ and MongoDB)
    Page,
    /// See and steer the queues, and the leasing of them
    Queues(QueuesArgs),
    /// Publish readings from a file to the queues
    Publish(PublishArgs),
    /// See, add and remove those who may post readings
    Sources(SourcesArgs),
    /// See, add, edit, pause, trigger and remove what fires by the clock
    Schedules(SchedulesArgs),
    #[command(flatten)]
    Alerting(AlertingCommand),
    /// Post readings to a frontend, as fast as asked, and measure how long it takes
    Load(LoadArgs),
    /// Show the history of a message with times: from the call that brought it to the store and the delivery of its alerts
    Trace(TraceArgs),
    /// Print the ingestion topology; see and change topologies that run in the process at --dispatcher
    Topology(TopologyArgs),
    /// Serve a part of the ingestion topology to a Storm worker, over standard input and output (needs RabbitMQ and MongoDB)
    #[command(subcommand)]
    Multilang(MultilangCommand),
    /// Print the effective configuration, each value with where it came from
    Config(ConfigArgs),
    /// Measure a module
    #[command(subcommand)]
    Bench(BenchCommand),
    /// Print the completions of a shell, to be put where it looks for them
    Completions {
        /// The shell
        #[arg(value_enum)]
        shell: clap_complete::Shell,
    },
    /// Write the manual: a page for each command, into a folder that is made when it is not there
    Man {
        /// The folder, for instance ~/.local/share/man/man1
        folder: PathBuf,
    },
}

#[derive(Debug, Clone, Args)]
pub(crate) struct DemoCommand {
    #[command(flatten)]
    pub(crate) args: DemoArgs,
    /// How the dispatcher chooses the next queue
    #[arg(long, value_parser = queues::strategy(), value_name = "NAME")]
    pub(crate) strategy: Option<StrategyName>,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct UpArgs {
    /// Workers, each a topology of its own with its own leases
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub(crate) workers: u16,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct MaintainerArgs {
    #[command(subcommand)]
    pub(crate) once: Option<MaintainerOnce>,
}

#[derive(Debug, Clone, Subcommand)]
pub(crate) enum MaintainerOnce {
    /// Run one task once, print what it did, and end
    RunOnce {
        /// Which task
        #[arg(value_enum)]
        task: TaskName,
        /// Believe the list of accounts even if it lost many at once
        #[arg(long)]
        force: bool,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum TaskName {
    /// Create queue and state for each active account; flag those that are gone
    Accounts,
    /// Count ready messages; mark queues empty or idle
    #[value(name = "empties")]
    ReconcileEmpty,
    /// Return leases past their time
    Timeouts,
    /// Delete flagged queues
    Deletions,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct TraceArgs {
    /// Id of a message, or of a call and so of all its messages: `x-request-id` in the frontend's answer
    pub(crate) id: String,
    #[command(flatten)]
    pub(crate) form: Form,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct ConfigArgs {
    #[command(flatten)]
    pub(crate) form: Form,
}

#[derive(Debug, Clone, Subcommand)]
pub(crate) enum BenchCommand {
    /// Lease and release queues from many callers at once, on the store that --store names (a database of its own)
    Dispatcher(BenchDispatcherArgs),
}

#[derive(Debug, Clone, Args)]
pub(crate) struct BenchDispatcherArgs {
    /// Callers at once; several may be given, each is measured in turn
    #[arg(long, value_delimiter = ',', default_values_t = [1usize, 4, 12, 64])]
    pub(crate) callers: Vec<usize>,
    /// Queues
    #[arg(long, default_value_t = 2_000)]
    pub(crate) queues: usize,
    /// Seconds for each
    #[arg(long, default_value_t = 5)]
    pub(crate) seconds: u64,
    /// Over HTTP on loopback instead of in process
    #[arg(long)]
    pub(crate) http: bool,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
