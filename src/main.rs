//! The `galerna` command: every module of the system, alone or together.

mod admin;
mod api_client;
mod args;
mod commands;
mod config;
mod demo;
mod log;
mod meters;
mod stop;
mod table;

use std::process::ExitCode;

use clap::Parser;

use crate::args::{Cli, Command};
use crate::config::{Config, Sources};

/// Exit code of a wrong command line (as clap has it) or configuration.
const WRONG: u8 = 2;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let config = match configuration(&cli) {
        Ok(config) => config,
        Err(message) => {
            eprintln!("error: {message}");
            return ExitCode::from(WRONG);
        }
    };
    match run(cli.command, config) {
        Ok(code) => code,
        Err(e) => {
            eprintln!("error: {e:#}");
            ExitCode::FAILURE
        }
    }
}

fn configuration(cli: &Cli) -> Result<Config, String> {
    let flags = cli.settings.values()?;
    let sources = Sources {
        file: cli.settings.config.clone(),
        variables: std::env::vars_os()
            .filter_map(|(name, value)| {
                Some((name.into_string().ok()?, value.to_string_lossy().into_owned()))
            })
            .collect(),
        flags,
        defaults: vec![],
    };
    Config::load(&sources).map_err(|e| e.to_string())
}

fn run(command: Command, config: Config) -> anyhow::Result<ExitCode> {
    match command {
        Command::Config(args) => commands::config::run(&args, &config)?,
        _ => anyhow::bail!("not there yet"),
    }
    Ok(ExitCode::SUCCESS)
}
