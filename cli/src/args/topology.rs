//! Arguments of `galerna topology` and `galerna multilang`.

use clap::{Args, Subcommand, ValueEnum};
use galerna_multilang::Stretch;

use crate::commands::topologies::TopologiesCommand;
use crate::form::Form;

#[derive(Debug, Clone, Args)]
pub(crate) struct TopologyArgs {
    /// In which form the ingestion topology is printed
    #[arg(long, value_enum, default_value_t = TopologyForm::Table)]
    pub(crate) format: TopologyForm,
    #[command(flatten)]
    pub(crate) form: Form,
    #[command(subcommand)]
    pub(crate) command: Option<TopologyCommand>,
}

#[derive(Debug, Clone, Subcommand)]
pub(crate) enum TopologyCommand {
    /// Print the Flux file by which a Storm cluster runs it, each component a `galerna multilang` of its own
    Flux(FluxArgs),
    #[command(flatten)]
    Running(TopologiesCommand),
}

impl TopologyArgs {
    /// What is done with a topology that runs, if that is what is asked for.
    pub(crate) fn running(&self) -> Option<&TopologiesCommand> {
        match &self.command {
            Some(TopologyCommand::Running(command)) => Some(command),
            _ => None,
        }
    }
}

#[derive(Debug, Clone, Args)]
pub(crate) struct FluxArgs {
    /// Components to run as one: all on the ways from one to another, or behind one; may be given several times
    #[arg(long, value_name = "FROM..[TO]")]
    pub(crate) stretch: Vec<Stretch>,
    /// Workers of the cluster that it runs on
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) workers: u16,
    /// Workers and children exchange MessagePack, with the class of deploy/storm
    #[arg(long)]
    pub(crate) message_pack: bool,
    /// What starts this program on a worker, with its settings, such as `sh galerna.sh --config /etc/galerna.toml`
    #[arg(long, value_name = "WORDS", default_value = "sh galerna.sh")]
    pub(crate) command: String,
}

#[derive(Debug, Clone, Subcommand)]
pub(crate) enum MultilangCommand {
    /// Serve a bolt
    Bolt {
        /// The bolt
        component: String,
    },
    /// Serve a spout
    Spout {
        /// The spout
        component: String,
    },
    /// Serve all components on the ways from one to another, or behind one, as one component
    Stretch {
        /// From which to which
        #[arg(value_name = "FROM..[TO]")]
        stretch: Stretch,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum TopologyForm {
    /// For people
    Table,
    /// Graphviz
    Dot,
    /// Mermaid
    Mermaid,
    /// For programs
    Json,
}
