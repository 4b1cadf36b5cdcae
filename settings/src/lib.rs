//! The settings: `galerna.toml`, then `GALERNA_*` variables, then flags; checked whole before anything starts.
//!
//! A setting stands in two places that are checked against each other whenever settings are loaded: a row of `schema.rs` (name, what
//! it takes, default, what it is for), which serves file, variables, flags, errors and `galerna config`, and a field of a struct of
//! `sections.rs`, which the modules read.
//!
//! ```
//! use galerna_settings::{Inputs, Settings};
//!
//! let settings = Settings::load(&Inputs::default())?;
//! assert_eq!(settings.dispatcher.lease, std::time::Duration::from_secs(60));
//! # Ok::<(), galerna_settings::SettingsError>(())
//! ```
//!
//! The crate knows no module: what a setting means is the business of those who read it.

mod layers;
mod schema;
mod sections;

use std::fmt;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use layers::{Layers, Values};
use schema::{KEYS, Value};

pub use schema::{parse_span, show_span, without_password};
pub use sections::{
    Api, Broker, Dispatcher, Frontend, Ingest, Log, LogFormat, Maintainer, Notifier, Page, QueueType,
    Schedules, Store, Trace, Worker,
};

/// The variable that names the file.
const CONFIG_VARIABLE: &str = "GALERNA_CONFIG";
/// The variable with the token of a source that is added.
pub const TOKEN_VARIABLE: &str = "GALERNA_SOURCE_TOKEN";
/// Variables that are no settings: those of commands, of the scripts and of tests.
const OTHER_VARIABLES: [&str; 11] = [
    CONFIG_VARIABLE,
    TOKEN_VARIABLE,
    "GALERNA_AXE",
    "GALERNA_MONGOD",
    "GALERNA_MOTO_SERVER",
    "GALERNA_POSTGRES",
    "GALERNA_PYSTORM_PYTHON",
    "GALERNA_RABBITMQ_SERVER",
    "GALERNA_README_TIMEOUT",
    "GALERNA_SCHEMATHESIS",
    "GALERNA_STORM",
];

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// Nobody set it.
    Default,
    /// This file.
    File(PathBuf),
    /// The variable of this name.
    Variable(String),
    /// The flag of this name.
    Flag(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(path) => path.display().fmt(f),
            Self::Variable(name) => f.write_str(name),
            Self::Flag(name) => f.write_str(name),
        }
    }
}

/// Everything that is wrong with the settings, one line each.
#[derive(Debug, thiserror::Error)]
#[error("the configuration is wrong:\n  {}", .0.join("\n  "))]
pub struct SettingsError(pub Vec<String>);

/// A value set on the command line.
#[derive(Debug, Clone)]
pub struct FlagValue {
    /// The flag as typed.
    pub flag: String,
    /// The setting.
    pub name: String,
    /// The value as typed.
    pub value: String,
}

/// What settings are made from.
#[derive(Debug, Default)]
pub struct Inputs {
    /// `--config`.
    pub file: Option<PathBuf>,
    /// The environment.
    pub variables: Vec<(String, String)>,
    /// The flags.
    pub flags: Vec<FlagValue>,
    /// Defaults of the command that differ from the schema's.
    pub defaults: Vec<(&'static str, String)>,
}

/// A setting as it may be shown, secrets hidden.
#[derive(Debug)]
pub struct Shown<'a> {
    /// Its dotted name.
    pub name: &'static str,
    /// Its value.
    pub value: String,
    /// Where the value came from.
    pub origin: &'a Origin,
    /// What it is for.
    pub about: &'static str,
}

/// The settings in force.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Folder of the embedded broker and store.
    #[serde(default)]
    pub data: PathBuf,
    /// Where the queues are.
    pub broker: Broker,
    /// Where states and readings are.
    pub store: Store,
    /// The dispatcher's API.
    pub api: Api,
    /// How queues are leased.
    pub dispatcher: Dispatcher,
    /// How the queues' states are kept fresh.
    pub maintainer: Maintainer,
    /// How queues are consumed.
    pub worker: Worker,
    /// How readings are taken over HTTP.
    pub frontend: Frontend,
    /// How alerts are delivered.
    pub notifier: Notifier,
    /// The web page.
    pub page: Page,
    /// How readings are validated and stored.
    pub ingest: Ingest,
    /// The history of messages.
    pub trace: Trace,
    /// What fires by the clock.
    pub schedules: Schedules,
    /// The log.
    pub log: Log,
    #[serde(skip)]
    values: Values,
}

/// As they may be shown, so that no secret gets into a log.
impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.shown().map(|shown| (shown.name, shown.value))).finish()
    }
}

impl Settings {
    /// Reads, layers and checks.
    ///
    /// # Errors
    /// Every problem found, each naming the key, the value and what is allowed.
    pub fn load(inputs: &Inputs) -> Result<Self, SettingsError> {
        let Layers { values, mut problems } = Layers::read(inputs);
        // A wrong value leaves the default in place, so the rules below can still be checked.
        match values.tree().try_into::<Self>() {
            Ok(settings) => {
                settings.check_together(&mut problems);
                if problems.is_empty() {
                    return Ok(Self { values, ..settings });
                }
            }
            // The table of settings and the structs differ: a mistake in this crate, which its tests find.
            Err(e) => problems.push(format!("a setting has no field of its type: {e}")),
        }
        Err(SettingsError(problems))
    }

    /// Rules that need more than one setting.
    fn check_together(&self, problems: &mut Vec<String>) {
        let token = &self.api.token;
        for (name, address) in [
            ("api.listen", self.api.listen),
            ("maintainer.listen", self.maintainer.listen),
            ("worker.listen", self.worker.listen),
            ("frontend.listen", self.frontend.listen),
            ("notifier.listen", self.notifier.listen),
        ] {
            if !address.ip().is_loopback() && token.is_none() {
                problems.push(format!(
                    "`{name}` is {address}, which other machines reach: set `api.token` too, or listen on 127.0.0.1"
                ));
            }
        }
        if !self.page.listen.ip().is_loopback() && self.page.operator_token.is_none() {
            problems.push(format!(
                "`page.listen` is {}, which other machines reach: set `page.operator_token` too, or listen on 127.0.0.1",
                self.page.listen
            ));
        }
        for (name, token) in [
            ("api.token", token),
            ("page.viewer_token", &self.page.viewer_token),
            ("page.operator_token", &self.page.operator_token),
        ] {
            if token.as_ref().is_some_and(|t| t.len() < 16 || !t.chars().all(|c| c.is_ascii_graphic())) {
                problems.push(format!(
                    "`{name}` is too weak; use at least 16 visible ASCII characters without spaces"
                ));
            }
        }
    }

    /// Whether anybody chose the folder of the embedded broker and store.
    pub fn data_is_set(&self) -> bool {
        self.is_set("data")
    }

    /// Whether anybody chose the dispatcher's strategy.
    pub fn strategy_is_set(&self) -> bool {
        self.is_set("dispatcher.strategy")
    }

    fn is_set(&self, name: &str) -> bool {
        self.values.origin(name).is_some_and(|origin| *origin != Origin::Default)
    }

    /// The same with another folder for the embedded broker and store.
    pub fn with_data(mut self, folder: &Path) -> Self {
        folder.clone_into(&mut self.data);
        self.values.set("data", Value::Text(folder.display().to_string()), Origin::Default);
        self
    }

    /// Each setting as it may be shown, in the order of the schema.
    pub fn shown(&self) -> impl Iterator<Item = Shown<'_>> {
        KEYS.iter().filter_map(|key| {
            let (value, origin) = self.values.get(key.name)?;
            let value = value.to_string();
            let value =
                if key.secret && !value.is_empty() { "***".to_owned() } else { without_password(&value) };
            Some(Shown { name: key.name, value, origin, about: key.about })
        })
    }
}

#[cfg(test)]
mod tests;
