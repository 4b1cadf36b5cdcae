//! Runs seeds: `galerna-simulation SEED` one, step by step; `galerna-simulation FIRST COUNT` so many. 1 when one of them fails.

use std::process::ExitCode;
use std::time::Instant;

use galerna_simulation::{Options, run};

type Failure = Box<dyn std::error::Error>;

fn main() -> Result<ExitCode, Failure> {
    let args = std::env::args().skip(1).map(|arg| arg.parse::<u64>()).collect::<Result<Vec<_>, _>>();
    match args.as_deref() {
        Ok([seed]) => {
            let outcome = run(&Options { print: true, ..Options::new(*seed) })?;
            println!("{outcome:#?}");
            Ok(if outcome.violation.is_none() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
        Ok([first, count]) => many(*first, *count),
        _ => Err("usage: galerna-simulation SEED, or galerna-simulation FIRST COUNT".into()),
    }
}

fn many(first: u64, count: u64) -> Result<ExitCode, Failure> {
    let began = Instant::now();
    let (mut steps, mut messages, mut leases, mut failed) = (0, 0, 0, 0);
    for seed in first..first + count {
        let outcome = run(&Options::new(seed))?;
        steps += outcome.steps;
        messages += outcome.messages;
        leases += outcome.leases;
        if let Some(violation) = outcome.violation {
            failed += 1;
            println!("seed {seed}: {violation}");
        }
    }
    let minutes = began.elapsed().as_secs_f64() / 60.0;
    println!(
        "{count} runs, {failed} failed; {steps} steps ({:.1} million a minute), {leases} leases, {messages} messages",
        steps as f64 / minutes / 1e6
    );
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
