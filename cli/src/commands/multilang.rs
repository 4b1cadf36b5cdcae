//! `galerna multilang`.

use anyhow::Context;
use galerna_multilang::{Part, ServeOptions, serve, stdio};
use galerna_server::topology::to_serve;
use galerna_settings::Settings;

use crate::args::MultilangCommand;

/// Serves a part of the ingestion topology to the program at the other end of standard input and output, until it goes.
pub(crate) async fn run(command: MultilangCommand, settings: &Settings) -> anyhow::Result<()> {
    let part = match command {
        MultilangCommand::Bolt { component } => Part::Bolt(component.into()),
        MultilangCommand::Spout { component } => Part::Spout(component.into()),
        MultilangCommand::Stretch { stretch } => Part::Stretch(stretch),
    };
    let (input, output) = stdio().context(
        "`galerna multilang` is started by a Storm worker, with which it talks over pipes; see deploy/storm/README.md",
    )?;
    let topology = to_serve(settings).await?;
    serve(&topology, &part, &ServeOptions::default(), input, output).await?;
    Ok(())
}
