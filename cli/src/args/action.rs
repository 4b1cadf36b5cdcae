//! What actions have in common: why they are done, and whether to ask first.

use std::io::{IsTerminal, Write};

use anyhow::Context;
use clap::Args;

#[derive(Debug, Clone, Args)]
pub(crate) struct Reason {
    /// Why, for the audit log
    #[arg(long)]
    pub(crate) reason: Option<String>,
}

/// Whether to ask before something is destroyed.
#[derive(Debug, Clone, Args)]
pub(crate) struct Sure {
    /// Do not ask first (nor is asked where no terminal is)
    #[arg(long, short)]
    yes: bool,
}

impl Sure {
    /// Asks on a terminal; where there is none, whoever wrote the command is sure.
    ///
    /// # Errors
    /// When the terminal cannot be read.
    pub(crate) fn is_said(&self, question: &str) -> anyhow::Result<bool> {
        Ok(self.yes || is_sure(question)?)
    }
}

fn is_sure(question: &str) -> anyhow::Result<bool> {
    let (input, output) = (std::io::stdin(), std::io::stderr());
    if !input.is_terminal() || !output.is_terminal() {
        return Ok(true);
    }
    write!(output.lock(), "{question} [y/N] ")?;
    output.lock().flush()?;
    let mut answer = String::new();
    input.read_line(&mut answer).context("cannot read the answer")?;
    Ok(matches!(answer.trim().to_lowercase().as_str(), "y" | "yes"))
}
