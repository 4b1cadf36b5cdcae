//! Runs a command beside private servers: `cargo run -p galerna-test-servers -- COMMAND ARGUMENT...`
//!
//! The command finds the servers' addresses in `AMQP_URL`, `AMQP_MANAGEMENT_URL`, `MONGODB_URI` and `POSTGRES_URI`; its exit status
//! is passed on. Without a command the addresses are printed, and the servers run until stdin ends. Either way they die with
//! this program.

use std::io::Write as _;
use std::process::{Command, ExitCode};

use galerna_test_servers::{Mongo, Postgres, RabbitMq};
use tokio::runtime::Builder;

fn main() -> ExitCode {
    let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime can be built");
    let (rabbit, mongo, postgres) =
        runtime.block_on(async { tokio::join!(RabbitMq::start(), Mongo::start(), Postgres::start()) });
    let addresses = [
        ("AMQP_URL", rabbit.amqp_uri()),
        ("AMQP_MANAGEMENT_URL", rabbit.management_uri()),
        ("MONGODB_URI", mongo.uri()),
        ("POSTGRES_URI", postgres.uri()),
    ];
    let mut arguments = std::env::args_os().skip(1);
    let Some(program) = arguments.next() else {
        let mut stdout = std::io::stdout().lock();
        for (name, address) in addresses {
            writeln!(stdout, "{name}={address}").expect("stdout is open");
        }
        stdout.flush().expect("stdout is open");
        std::io::copy(&mut std::io::stdin(), &mut std::io::sink()).expect("stdin can be read");
        return ExitCode::SUCCESS;
    };
    match Command::new(&program).args(arguments).envs(addresses).status() {
        Ok(status) => ExitCode::from(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1)),
        Err(error) => {
            eprintln!("could not run {}: {error}", program.display());
            ExitCode::FAILURE
        }
    }
}
