//! `galerna-drill`: the whole drill, with its table. `scripts/drill` builds what it needs and runs it.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use galerna_drill::{Options, Plan, namespace, run};

/// Faults of a cluster of three nodes on this machine, and whether anything was lost, doubled or leased twice. Ends with 1 if so.
#[derive(Parser)]
struct Arguments {
    /// The program `galerna`
    #[arg(long)]
    galerna: PathBuf,
    /// The few faults that the tests run, instead of all
    #[arg(long)]
    short: bool,
    /// How often all faults happen
    #[arg(long, default_value_t = 1)]
    rounds: usize,
    /// How long each lasts
    #[arg(long, default_value_t = 20)]
    seconds: u64,
    /// Accounts, each with a queue and a client
    #[arg(long, default_value_t = 10)]
    accounts: usize,
    /// Pause of a client between two calls of ten readings, in milliseconds
    #[arg(long, default_value_t = 400)]
    pause: u64,
    /// Length of a lease in seconds
    #[arg(long, default_value_t = 10)]
    lease: u64,
    /// Where logs and data of the nodes are kept; without it they are in a temporary folder, kept only if something went wrong
    #[arg(long)]
    folder: Option<PathBuf>,
    /// A file for the report as JSON
    #[arg(long)]
    report: Option<PathBuf>,
}

fn main() -> anyhow::Result<ExitCode> {
    let arguments = Arguments::parse();
    if !namespace::is_inside() {
        let given: Vec<_> = std::env::args_os().skip(1).collect();
        let status = namespace::enter(&given)?;
        return Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE });
    }
    let temporary = tempfile::tempdir()?;
    let folder = arguments.folder.clone().unwrap_or_else(|| temporary.path().to_owned());
    std::fs::create_dir_all(&folder)?;
    let plan = if arguments.short { Plan::short() } else { Plan::long(arguments.rounds, arguments.seconds) };
    let options = Options {
        accounts: arguments.accounts.max(1),
        pause: Duration::from_millis(arguments.pause),
        lease: Duration::from_secs(arguments.lease.max(1)),
        ..Options::new(std::fs::canonicalize(&arguments.galerna)?, std::fs::canonicalize(&folder)?, plan)
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let report = runtime.block_on(run(&options));
    let good = report.as_ref().is_ok_and(galerna_drill::Report::is_good);
    if !good && arguments.folder.is_none() {
        eprintln!("logs and data of the nodes: {}", temporary.keep().display());
    }
    let report = report?;
    println!("{report}");
    if let Some(file) = arguments.report {
        std::fs::write(file, serde_json::to_string_pretty(&report.json())?)?;
    }
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
