//! What the demo is asked for.

use std::path::PathBuf;

use clap::Args;

/// How to run the demo.
#[derive(Debug, Clone, Args)]
pub struct DemoArgs {
    /// Stop when everything is stored: exit 0, or 3 when a reading was lost
    #[arg(long)]
    pub exit: bool,
    /// Write what was counted to this file, as JSON
    #[arg(long, value_name = "FILE")]
    pub report: Option<PathBuf>,
    /// About so many readings: replays the data under more accounts and later days, one account with a thousand times
    /// the others' backlog
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1_000_000_000))]
    pub readings: Option<u64>,
    /// With --readings, under so many accounts [default: 2000]
    #[arg(long, value_name = "N", requires = "readings", value_parser = clap::value_parser!(u32).range(2..=1_000_000))]
    pub accounts: Option<u32>,
    /// With --readings, without the big account: how long do the others wait when they are alone?
    #[arg(long, requires = "readings", conflicts_with = "rate")]
    pub alone: bool,
    /// Send so many readings a second, consumed while they come [default: as fast as they are taken]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000_000))]
    pub rate: Option<u32>,
    /// Workers, each a topology of its own with its own leases
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub workers: u16,
    /// Plain lines of progress even on a terminal
    #[arg(long)]
    pub plain: bool,
}
