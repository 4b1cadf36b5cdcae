//! How a command that failed tells it: a sentence for people, or JSON for programs.
//!
//! ```json
//! {"error": {"code": "unknown_queue", "message": "…", "help": "…", "exit_code": 1}}
//! ```
//!
//! It stands on standard error, under `--json` and `--output json`. `code` is the API's where an API refused, or one of those of
//! [`Failure`]; `message` is what people read; `help` is what to do.

use std::process::ExitCode;

use galerna_directory::RegistryError;
use galerna_storage::StorageError;
use galerna_terminal::{Tone, eprint, label};
use serde_json::json;

use crate::api_client::Refused;
use crate::page_client::PageRefused;

/// Exit code of what was asked for and could not be done.
const FAILED: u8 = 1;
/// Exit code of a wrong command line (as clap has it) or configuration.
pub(crate) const WRONG: u8 = 2;

/// Nobody answers where a service is to be.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub(crate) struct NoAnswer {
    pub(crate) message: String,
}

/// A failure, ready to be told.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    code: String,
    message: String,
    help: String,
    exit: u8,
}

impl Failure {
    /// A wrong command line.
    pub(crate) fn usage(message: &str) -> Self {
        let help = "`galerna --help` and `galerna <command> --help` show what is taken";
        Self::new("usage", message, help, WRONG)
    }

    /// A wrong setting.
    pub(crate) fn configuration(message: &str) -> Self {
        let help = "`galerna config` shows each setting, its value and where that came from";
        Self::new("configuration", message, help, WRONG)
    }

    /// What a command ended with.
    pub(crate) fn of(error: &anyhow::Error) -> Self {
        let message = format!("{error:#}");
        let found = error.chain().find_map(|cause| {
            if let Some(refused) = cause.downcast_ref::<Refused>() {
                return Some((refused.code.clone(), help_of(&refused.code)));
            }
            if let Some(refused) = cause.downcast_ref::<PageRefused>() {
                return Some((refused.code.clone(), help_of(&refused.code)));
            }
            if let Some(refused) = cause.downcast_ref::<RegistryError>() {
                return Some((refused.code().to_owned(), help_of(refused.code())));
            }
            if cause.is::<NoAnswer>() {
                return Some(("no_answer".to_owned(), help_of("no_answer")));
            }
            let in_use = matches!(cause.downcast_ref(), Some(StorageError::InUse { .. }));
            in_use.then(|| ("store_in_use".to_owned(), help_of("store_in_use")))
        });
        let (code, help) = found.unwrap_or_else(|| ("failed".to_owned(), help_of("failed")));
        Self::new(&code, &message, help, FAILED)
    }

    fn new(code: &str, message: &str, help: &str, exit: u8) -> Self {
        Self { code: code.to_owned(), message: message.to_owned(), help: help.to_owned(), exit }
    }

    /// Tells it, and says how the command ends.
    pub(crate) fn tell(&self, as_json: bool) -> ExitCode {
        if as_json {
            eprint(self.json());
        } else {
            eprint(format_args!("{} {}", label("error", Tone::Bad), self.message));
        }
        ExitCode::from(self.exit)
    }

    fn json(&self) -> serde_json::Value {
        let Self { code, message, help, exit } = self;
        json!({ "error": { "code": code, "message": message, "help": help, "exit_code": exit } })
    }
}

/// What to do about a failure of this code.
fn help_of(code: &str) -> &'static str {
    match code {
        "no_answer" => {
            "start the service (`galerna up` runs all), or name another with --dispatcher or --set page.url=…"
        }
        "unauthorized" | "forbidden" => {
            "give the token that the service has: `api.token` for the dispatcher (GALERNA_API_TOKEN), `page.operator_token` for the page"
        }
        "unknown_queue" => "`galerna queues list` shows the queues that there are",
        "unknown_schedule" => "`galerna schedules list` shows the schedules that there are",
        "schedule_edited" => "`galerna schedules show` has it as it is now; edit that",
        "unknown_source" => "`galerna sources list` shows the sources that there are",
        "store_in_use" => {
            "name the API of the process that has the store open with --dispatcher, or stop it first"
        }
        "unavailable" => "the service says that it misses its broker or store; try again when that is back",
        _ => "the message says what was wrong; `--log debug` shows more of what was done",
    }
}

/// Whether a command line that cannot be read asks for JSON.
pub(crate) fn asks_for_json(arguments: &[String]) -> bool {
    let mut before = "";
    arguments.iter().any(|argument| {
        let json = match argument.as_str() {
            "--json" | "--output=json" | "-ojson" | "-o=json" => true,
            "json" => matches!(before, "--output" | "-o"),
            _ => false,
        };
        before = argument;
        json
    })
}

#[cfg(test)]
mod tests {
    use anyhow::anyhow;

    use super::*;

    #[test]
    fn a_failure_has_the_code_of_what_caused_it() {
        let refused =
            Refused { status: 404, code: "unknown_queue".to_owned(), message: "no such queue".to_owned() };
        let in_use = StorageError::InUse { path: "store.db".to_owned() };
        let absent = NoAnswer { message: "no dispatcher answers".to_owned() };
        for (error, code) in [
            (anyhow::Error::from(refused).context("cannot pause"), "unknown_queue"),
            (in_use.into(), "store_in_use"),
            (absent.into(), "no_answer"),
            (RegistryError::Token.into(), "invalid_token"),
            (anyhow!("something else"), "failed"),
        ] {
            let failure = Failure::of(&error);
            let told = failure.json();
            assert_eq!((&told["error"]["code"], &told["error"]["exit_code"]), (&json!(code), &json!(1)));
            assert_eq!(told["error"]["message"], format!("{error:#}"));
            assert!(!failure.help.is_empty());
        }
    }

    #[test]
    fn a_wrong_command_line_that_asks_for_json_is_told_in_json() {
        let asks = |line: &str| asks_for_json(&line.split(' ').map(str::to_owned).collect::<Vec<_>>());
        for line in [
            "queues list --json --nonsense",
            "queues list --output json x",
            "-o json",
            "--output=json",
            "-ojson",
        ] {
            assert!(asks(line), "{line}");
        }
        for line in ["queues list", "config json", "queues --output csv list json"] {
            assert!(!asks(line), "{line}");
        }
    }
}
