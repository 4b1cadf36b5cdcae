//! Arguments of `galerna queues`, and the names of strategies.

use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use clap::{Args, Subcommand};
use galerna_dispatcher::StrategyName;

use super::{Reason, Sure};
use crate::form::Form;

#[derive(Debug, Clone, Args)]
pub(crate) struct QueuesArgs {
    #[command(flatten)]
    pub(crate) form: Form,
    #[command(subcommand)]
    pub(crate) command: QueuesCommand,
}

#[derive(Debug, Clone, Subcommand)]
pub(crate) enum QueuesCommand {
    /// List queues, and how many are in each state
    List {
        /// Only in this state: idle, worker, empty, pause or delete
        #[arg(long)]
        state: Option<String>,
        /// Only whose name or account contains this
        #[arg(long)]
        search: Option<String>,
        /// By this column, for instance `ready` or `-ready`
        #[arg(long, allow_hyphen_values = true)]
        sort: Option<String>,
        /// Which page, from 1
        #[arg(long, default_value_t = 1)]
        page: usize,
        /// How many a page
        #[arg(long, default_value_t = 50)]
        limit: usize,
        /// All pages
        #[arg(long, conflicts_with_all = ["page", "limit"])]
        all: bool,
    },
    /// Show one queue
    Show {
        /// The queue
        queue: String,
    },
    /// Block queues until they are unpaused
    #[command(override_usage = "galerna queues pause [OPTIONS] <QUEUES>...\n       \
                                galerna queues pause [OPTIONS] <--search <TEXT>|--all>")]
    Pause {
        #[command(flatten)]
        which: PauseSelection,
        /// Why, for the others and for the audit log
        #[arg(long)]
        reason: Option<String>,
    },
    /// Let queues be leased again
    #[command(override_usage = "galerna queues unpause [OPTIONS] <QUEUES>...\n       \
                                galerna queues unpause [OPTIONS] <--search <TEXT>|--all>")]
    Unpause {
        #[command(flatten)]
        which: PauseSelection,
        #[command(flatten)]
        reason: Reason,
    },
    /// Give leases again
    Start {
        #[command(flatten)]
        reason: Reason,
    },
    /// Give no more leases; those given go on
    Stop {
        #[command(flatten)]
        reason: Reason,
        #[command(flatten)]
        sure: Sure,
    },
    /// Show the strategy, or choose one
    Strategy {
        /// How the next queue is chosen
        #[arg(value_parser = strategy())]
        name: Option<StrategyName>,
        /// Why, for the audit log
        #[arg(long, requires = "name")]
        reason: Option<String>,
    },
    /// Dead letters
    #[command(subcommand)]
    Dead(DeadCommand),
}

impl QueuesCommand {
    /// Whether it changes nothing.
    pub(super) fn reads(&self) -> bool {
        matches!(
            self,
            Self::List { .. }
                | Self::Show { .. }
                | Self::Strategy { name: None, .. }
                | Self::Dead(DeadCommand::List { .. })
        )
    }
}

#[derive(Debug, Clone, Subcommand)]
pub(crate) enum DeadCommand {
    /// List the dead letters of a queue, or how many each queue has
    List {
        /// The queue; all that have any when absent
        queue: Option<String>,
        /// Skip so many
        #[arg(long, default_value_t = 0)]
        offset: usize,
        /// Show so many
        #[arg(long, default_value_t = 50)]
        limit: usize,
        /// Show the bodies too
        #[arg(long)]
        bodies: bool,
        /// All pages
        #[arg(long, conflicts_with_all = ["offset", "limit"], requires = "queue")]
        all: bool,
    },
    /// Put dead letters back into their queue
    #[command(override_usage = "galerna queues dead replay [OPTIONS] <QUEUE> <IDS>...\n       \
                                galerna queues dead replay [OPTIONS] <QUEUE> --all [--matching <TEXT>]\n       \
                                galerna queues dead replay [OPTIONS] --all-queues [--matching <TEXT>]")]
    Replay {
        #[command(flatten)]
        which: DeadSelection,
        #[command(flatten)]
        reason: Reason,
        #[command(flatten)]
        sure: Sure,
    },
    /// Delete dead letters
    #[command(override_usage = "galerna queues dead discard [OPTIONS] <QUEUE> <IDS>...\n       \
                                galerna queues dead discard [OPTIONS] <QUEUE> --all [--matching <TEXT>]\n       \
                                galerna queues dead discard [OPTIONS] --all-queues [--matching <TEXT>]")]
    Discard {
        #[command(flatten)]
        which: DeadSelection,
        #[command(flatten)]
        reason: Reason,
        #[command(flatten)]
        sure: Sure,
    },
}

#[derive(Debug, Clone, Args)]
#[command(group = clap::ArgGroup::new("which").required(true).args(["ids", "all", "all_queues"]))]
pub(crate) struct DeadSelection {
    /// The queue
    #[arg(required_unless_present = "all_queues", conflicts_with = "all_queues")]
    pub(crate) queue: Option<String>,
    /// Ids of the dead letters
    pub(crate) ids: Vec<String>,
    /// All of the queue
    #[arg(long)]
    pub(crate) all: bool,
    /// All of all queues
    #[arg(long)]
    pub(crate) all_queues: bool,
    /// Of all only those whose reason contains this
    #[arg(long, value_name = "TEXT", conflicts_with = "ids")]
    pub(crate) matching: Option<String>,
}

#[derive(Debug, Clone, Args)]
#[command(group = clap::ArgGroup::new("which").required(true).args(["queues", "all", "search"]))]
pub(crate) struct PauseSelection {
    /// The queues; of several it is asked once whether you are sure
    pub(crate) queues: Vec<String>,
    /// All queues whose name or account contains this
    #[arg(long, value_name = "TEXT")]
    pub(crate) search: Option<String>,
    /// All queues
    #[arg(long)]
    pub(crate) all: bool,
    #[command(flatten)]
    pub(crate) sure: Sure,
}

/// The strategies by name, for help and completions.
pub(super) fn strategy() -> impl TypedValueParser<Value = StrategyName> {
    let name = |strategy: StrategyName| PossibleValue::new(strategy.as_str());
    PossibleValuesParser::new([
        name(StrategyName::Fifo).help("Not leased, longest since last delivered"),
        name(StrategyName::Lru).help("The same among queues known to have messages"),
        name(StrategyName::Fair)
            .help("Accounts take turns; within a turn the one that waits longest is first"),
    ])
    .try_map(|name| name.parse::<StrategyName>())
}
