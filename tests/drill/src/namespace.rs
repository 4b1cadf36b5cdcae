//! Namespaces of network, mounts and processes for one run.
//!
//! Of Linux and its `unshare` and `ip` nothing is needed that a container lacks: whoever is not root becomes it in a user namespace, or by
//! `sudo` where these are not allowed.

use std::ffi::OsString;
use std::process::{Command, ExitStatus, Stdio};

use anyhow::{Context, Result, bail};

/// Set within the namespaces.
const INSIDE: &str = "GALERNA_DRILL_INSIDE";

const SETUP: &str = include_str!("namespace.sh");

/// Whether this process is in the namespaces of a run.
#[must_use]
pub fn is_inside() -> bool {
    std::env::var_os(INSIDE).is_some()
}

/// Runs this program anew, with these arguments, in namespaces of its own.
///
/// # Errors
/// When there can be none: it says what to do.
pub fn enter(arguments: &[OsString]) -> Result<ExitStatus> {
    let program = std::env::current_exe().context("where this program is")?;
    let namespaces = ["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"];
    let attempts: [&[&str]; 3] = [&[], &["--user", "--map-root-user"], &["sudo"]];
    let mut said = Vec::new();
    for attempt in attempts {
        let words: Vec<&str> = match attempt {
            ["sudo"] => ["sudo", "-n", "-E"].into_iter().chain(namespaces).collect(),
            more => namespaces.into_iter().chain(more.iter().copied()).collect(),
        };
        let command = || {
            let mut command = Command::new(words[0]);
            command.args(&words[1..]).args(["sh", "-c", SETUP, "drill"]).env(INSIDE, "1");
            command
        };
        let trial = command().arg("true").stdin(Stdio::null()).output();
        match trial {
            Ok(output) if output.status.success() => {
                let status = command().arg(&program).args(arguments).status();
                return status.with_context(|| format!("running {words:?}"));
            }
            Ok(output) => said.push(format!("{words:?}: {}", String::from_utf8_lossy(&output.stderr).trim())),
            Err(error) => said.push(format!("{words:?}: {error}")),
        }
    }
    bail!(
        "no network namespace can be made; run it as root, with util-linux and iproute2 installed:\n{}",
        said.join("\n")
    )
}
