//! `galerna completions` and `galerna man`: what shells and `man` know of the command, made from the command line itself.

use std::io::Write;
use std::path::Path;

use anyhow::Context;
use clap::CommandFactory;
use clap_complete::Shell;
use galerna_terminal::print;

use crate::args::Cli;

/// Prints the completions of a shell.
pub(crate) fn completions(shell: Shell) -> anyhow::Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "galerna", &mut script);
    match std::io::stdout().write_all(&script) {
        Err(e) if e.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(e).context("cannot print the completions")
        }
        _ => Ok(()),
    }
}

/// Writes a page of the manual for each command.
pub(crate) fn manual(folder: &Path) -> anyhow::Result<()> {
    let name = folder.display();
    std::fs::create_dir_all(folder).with_context(|| format!("cannot make the folder {name}"))?;
    clap_mangen::generate_to(Cli::command(), folder)
        .with_context(|| format!("cannot write the manual into {name}; name a folder that can be written"))?;
    print(format!(
        "the manual is in {name}; `man -l {}` shows its first page",
        folder.join("galerna.1").display()
    ))
}
