//! `galerna topology`.

use galerna_multilang::{FluxOptions, Frames, flux};
use galerna_server::topology::shown;
use galerna_settings::Settings;
use galerna_terminal::print;

use crate::args::{FluxArgs, TopologyArgs, TopologyCommand, TopologyForm};

/// Prints the ingestion topology as the configuration makes it. Nothing is started and no server is asked.
pub(crate) fn run(args: &TopologyArgs, settings: &Settings) -> anyhow::Result<()> {
    let topology = shown(settings)?;
    if let Some(TopologyCommand::Flux(args)) = &args.command {
        return print(flux(&topology, &options(args))?);
    }
    match args.format {
        _ if args.form.is_json() => print(topology.json()),
        TopologyForm::Table => print(topology.table()),
        TopologyForm::Dot => print(topology.dot()),
        TopologyForm::Mermaid => print(topology.mermaid()),
        TopologyForm::Json => print(topology.json()),
    }
}

fn options(args: &FluxArgs) -> FluxOptions {
    FluxOptions {
        command: args.command.split_whitespace().map(str::to_owned).collect(),
        arguments: Vec::new(),
        stretches: args.stretch.clone(),
        workers: args.workers.into(),
        frames: if args.message_pack { Frames::MessagePack } else { Frames::Json },
    }
}
