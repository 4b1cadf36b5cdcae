//! Checking a running service against the description that it serves, with schemathesis from PyPI.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;
use tokio::time::timeout;

use crate::origin::{fetched, variable};
use crate::unique;

/// The version that `scripts/servers` installs.
const VERSION: &str = "4.32.5";
/// Names the program, where it is not one that `scripts/servers` installed.
const PROGRAM: &str = "GALERNA_SCHEMATHESIS";
/// The longest run, on a machine that compiles meanwhile.
const LIMIT: Duration = Duration::from_secs(900);

/// Sends a service at this base address calls that its `/openapi.json` allows, and calls that it forbids, and fails the test
/// when an answer is not as described, when a wrong call is taken, a right one refused, or an answer is a 5xx. `options` are those of
/// `schemathesis run`.
///
/// # Panics
/// When there is a failure, with what schemathesis says of it; or when there is no schemathesis, with what to do.
pub async fn check_openapi(base: &str, options: &[&str]) {
    // It keeps what it found in the folder in which it runs.
    let folder = std::env::temp_dir().join(unique("galerna-schemathesis"));
    std::fs::create_dir(&folder).unwrap_or_else(|e| panic!("{} cannot be made: {e}", folder.display()));
    let mut command = Command::new(program());
    command
        .current_dir(&folder)
        .args(["run", &format!("{base}/openapi.json"), "--no-color", "--phases", "examples,coverage,fuzzing"])
        .args([
            "--seed",
            "1",
            "--max-examples",
            "20",
            "--no-shrink",
            "--continue-on-failure",
            "--warnings",
            "off",
        ])
        .args(options)
        .stdin(Stdio::null())
        .kill_on_drop(true);
    let run = timeout(LIMIT, command.output()).await;
    let run = run.unwrap_or_else(|_| panic!("schemathesis did not end within {LIMIT:?}"));
    drop(std::fs::remove_dir_all(&folder));
    let run = run.unwrap_or_else(|e| panic!("schemathesis cannot be run: {e}; run scripts/servers"));
    let (said, errors) = (String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr));
    assert!(run.status.success(), "the service and its description disagree:\n{said}\n{errors}");
}

fn program() -> PathBuf {
    if let Some(named) = variable(PROGRAM) {
        return PathBuf::from(named);
    }
    let installed = format!("../schemathesis-{VERSION}/bin/schemathesis");
    let found = fetched().into_iter().map(|folder| folder.join(&installed)).find(|program| program.is_file());
    found.unwrap_or_else(|| {
        panic!("this test needs schemathesis {VERSION} from PyPI: run scripts/servers, or name its program in {PROGRAM}")
    })
}
