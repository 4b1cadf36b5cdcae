//! `galerna topology`.

use galerna_server::topology::shown;
use galerna_settings::Settings;
use galerna_terminal::print;

use crate::args::{TopologyArgs, TopologyForm};

/// Prints the ingestion topology as the configuration makes it. Nothing is started and no server is asked.
pub(crate) fn run(args: &TopologyArgs, settings: &Settings) -> anyhow::Result<()> {
    let topology = shown(settings)?;
    match args.format {
        TopologyForm::Table => print(topology.table()),
        TopologyForm::Dot => print(topology.dot()),
        TopologyForm::Mermaid => print(topology.mermaid()),
        TopologyForm::Json => print(topology.json()),
    }
}
