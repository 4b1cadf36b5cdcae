//! `galerna topology`.

use galerna_server::topology::shown;
use galerna_settings::Config;
use galerna_terminal::print;

use crate::args::{TopologyArgs, TopologyForm};

/// Prints the ingestion topology as the configuration makes it. Nothing is started and no server is asked.
pub(crate) fn run(args: &TopologyArgs, config: &Config) -> anyhow::Result<()> {
    let topology = shown(config)?;
    match args.format {
        TopologyForm::Table => print(topology.table()),
        TopologyForm::Dot => print(topology.dot()),
        TopologyForm::Mermaid => print(topology.mermaid()),
        TopologyForm::Json => print(topology.json()),
    }
}
