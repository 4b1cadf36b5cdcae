//! The configuration: `galerna.toml`, then `GALERNA_*` variables, then flags; checked whole before anything starts.

mod schema;

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use schema::{KEYS, Key, Kind, Value};

pub use schema::{show_span, without_password};

/// The file that is read when none is named.
const FILE: &str = "galerna.toml";

/// The variable that names the file.
const CONFIG_VARIABLE: &str = "GALERNA_CONFIG";
/// The variable with the token of a source that is added.
pub const TOKEN_VARIABLE: &str = "GALERNA_SOURCE_TOKEN";
/// Variables that are no settings: those of commands, of the scripts and of tests.
const OTHER_VARIABLES: [&str; 5] =
    [CONFIG_VARIABLE, TOKEN_VARIABLE, "GALERNA_MONGOD", "GALERNA_RABBITMQ_SERVER", "GALERNA_README_TIMEOUT"];

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

/// Everything that is wrong with the configuration, one line each.
#[derive(Debug, thiserror::Error)]
#[error("the configuration is wrong:\n  {}", .0.join("\n  "))]
pub struct ConfigError(pub Vec<String>);

/// A value set on the command line: the flag as typed, the setting, the value.
#[derive(Debug, Clone)]
pub struct FlagValue {
    /// The flag as typed.
    pub flag: String,
    /// The setting.
    pub name: String,
    /// The value as typed.
    pub value: String,
}

/// What a configuration is made from.
#[derive(Debug, Default)]
pub struct Sources {
    /// `--config`.
    pub file: Option<PathBuf>,
    /// The environment.
    pub variables: Vec<(String, String)>,
    /// The flags.
    pub flags: Vec<FlagValue>,
    /// Defaults of the command that differ from the schema's.
    pub defaults: Vec<(&'static str, String)>,
}

/// The effective configuration.
#[derive(Debug, Clone)]
pub struct Config(BTreeMap<&'static str, (Value, Origin)>);

impl Config {
    /// Reads, layers and checks.
    ///
    /// # Errors
    /// Every problem found, each naming the key, the value and what is allowed.
    pub fn load(sources: &Sources) -> Result<Self, ConfigError> {
        let mut layers = Layers::default();
        for key in KEYS {
            layers.set(key, key.default, Origin::Default);
        }
        for (name, value) in &sources.defaults {
            layers.set_named(name, value, Origin::Default);
        }
        layers.file(sources);
        layers.variables(&sources.variables);
        for flag in &sources.flags {
            layers.set_named(&flag.name, &flag.value, Origin::Flag(flag.flag.clone()));
        }
        let config = Self(layers.values);
        // A wrong value leaves the default in place, so the rules below can still be judged.
        config.check_together(&mut layers.problems);
        if layers.problems.is_empty() { Ok(config) } else { Err(ConfigError(layers.problems)) }
    }

    /// Rules that need more than one setting.
    fn check_together(&self, problems: &mut Vec<String>) {
        let token = self.text("api.token");
        for name in ["api.listen", "maintainer.listen", "worker.listen", "frontend.listen", "notifier.listen"]
        {
            if !self.address(name).ip().is_loopback() && token.is_empty() {
                problems.push(format!(
                    "`{name}` is {}, which other machines reach: set `api.token` too, or listen on 127.0.0.1",
                    self.address(name)
                ));
            }
        }
        if !self.address("page.listen").ip().is_loopback() && self.text("page.operator_token").is_empty() {
            problems.push(format!(
                "`page.listen` is {}, which other machines reach: set `page.operator_token` too, or listen on 127.0.0.1",
                self.address("page.listen")
            ));
        }
        for name in ["api.token", "page.viewer_token", "page.operator_token"] {
            let token = self.text(name);
            if !token.is_empty() && (token.len() < 16 || !token.chars().all(|c| c.is_ascii_graphic())) {
                problems.push(format!(
                    "`{name}` is too weak; use at least 16 visible ASCII characters without spaces"
                ));
            }
        }
    }

    fn value(&self, name: &str) -> &Value {
        // The schema is static and `load` filled every key of it: a miss is a typo in this program, caught by any test.
        &self.0.get(name).unwrap_or_else(|| panic!("no setting is called {name}")).0
    }

    /// A text, possibly empty.
    pub fn text(&self, name: &str) -> &str {
        match self.value(name) {
            Value::Text(t) => t,
            other => panic!("{name} is {other:?}, not text"),
        }
    }

    /// A text, `None` when it is empty.
    pub fn optional(&self, name: &str) -> Option<&str> {
        Some(self.text(name)).filter(|t| !t.is_empty())
    }

    /// What commas part, without what is empty.
    pub fn list(&self, name: &str) -> impl Iterator<Item = String> {
        self.text(name).split(',').map(str::trim).filter(|part| !part.is_empty()).map(str::to_owned)
    }

    /// A whole number.
    pub fn count(&self, name: &str) -> usize {
        match self.value(name) {
            Value::Count(n) => usize::try_from(*n).unwrap_or(usize::MAX),
            other => panic!("{name} is {other:?}, not a number"),
        }
    }

    /// A time span.
    pub fn span(&self, name: &str) -> Duration {
        match self.value(name) {
            Value::Span(d) => *d,
            other => panic!("{name} is {other:?}, not a span"),
        }
    }

    /// An address to listen on.
    pub fn address(&self, name: &str) -> SocketAddr {
        match self.value(name) {
            Value::Listen(a) => *a,
            other => panic!("{name} is {other:?}, not an address"),
        }
    }

    /// Whether anything but a default set it.
    pub fn is_set(&self, name: &str) -> bool {
        self.0.get(name).is_some_and(|(_, origin)| *origin != Origin::Default)
    }

    /// The same with another folder for the embedded broker and store.
    pub fn with_data(mut self, folder: &Path) -> Self {
        self.0.insert("data", (Value::Text(folder.display().to_string()), Origin::Default));
        self
    }

    /// Each setting as it may be shown, secrets hidden: name, value, origin, what it is for.
    pub fn shown(&self) -> impl Iterator<Item = (&'static str, String, &Origin, &'static str)> {
        KEYS.iter().map(|key| {
            let (value, origin) = &self.0[key.name];
            let shown = value.to_string();
            let shown = match () {
                () if key.secret && !shown.is_empty() => "***".to_owned(),
                () => without_password(&shown),
            };
            (key.name, shown, origin, key.about)
        })
    }
}

#[derive(Default)]
struct Layers {
    values: BTreeMap<&'static str, (Value, Origin)>,
    problems: Vec<String>,
}

impl Layers {
    fn set(&mut self, key: &'static Key, text: &str, origin: Origin) {
        match key.kind.parse(text) {
            Ok(value) => {
                self.values.insert(key.name, (value, origin));
            }
            Err(allowed) => {
                let shown = if key.secret { "***".to_owned() } else { without_password(&shorten(text)) };
                self.problems.push(format!("`{}` is `{shown}` ({origin}); use {allowed}", key.name));
            }
        }
    }

    fn set_named(&mut self, name: &str, text: &str, origin: Origin) {
        match schema::find(name) {
            Some(key) => self.set(key, text, origin),
            None => self.problems.push(unknown(name, &origin, KEYS.iter().map(|k| k.name.to_owned()))),
        }
    }

    fn file(&mut self, sources: &Sources) {
        let named = sources.file.clone().map(|path| (path, "--config")).or_else(|| {
            let (_, path) = sources.variables.iter().find(|(name, _)| name == CONFIG_VARIABLE)?;
            Some((PathBuf::from(path), CONFIG_VARIABLE))
        });
        let (path, required) = match &named {
            Some((path, _)) => (path.as_path(), true),
            None => (Path::new(FILE), false),
        };
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound && !required => return,
            Err(e) => {
                let from = named.as_ref().map_or(String::new(), |(_, by)| format!(" (named by {by})"));
                self.problems.push(format!("cannot read {}{from}: {e}", path.display()));
                return;
            }
        };
        let table = match text.parse::<toml::Table>() {
            Ok(table) => table,
            Err(e) => {
                self.problems.push(format!("{} is not TOML: {}", path.display(), e.to_string().trim_end()));
                return;
            }
        };
        let origin = Origin::File(path.to_owned());
        self.table("", &table, &origin);
    }

    fn table(&mut self, prefix: &str, table: &toml::Table, origin: &Origin) {
        for (name, value) in table {
            let name = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
            let is_table =
                KEYS.iter().any(|k| k.name.strip_prefix(&name).is_some_and(|rest| rest.starts_with('.')));
            match (schema::find(&name), value) {
                (Some(key), value) => match as_written(key, value) {
                    Some(text) => self.set(key, &text, origin.clone()),
                    None => self.problems.push(format!(
                        "`{name}` is {} ({origin}); use {}{}",
                        if key.secret {
                            "of another type".to_owned()
                        } else {
                            format!("`{}`", shorten(&value.to_string()))
                        },
                        key.kind,
                        if matches!(key.kind, Kind::Count(..)) { "" } else { ", in quotes" },
                    )),
                },
                (None, toml::Value::Table(inner)) if is_table => self.table(&name, inner, origin),
                (None, value) if is_table => self.problems.push(format!(
                    "`{name}` is `{}` ({origin}); it is a table: write [{name}] with {}",
                    shorten(&value.to_string()),
                    children(&name).join(", "),
                )),
                (None, _) => {
                    self.problems.push(unknown(&name, origin, KEYS.iter().map(|k| k.name.to_owned())));
                }
            }
        }
    }

    fn variables(&mut self, variables: &[(String, String)]) {
        // `RUST_LOG` is what Rust programs are used to; Galerna's own variable goes before it.
        if let Some((name, value)) =
            variables.iter().find(|(name, value)| name == "RUST_LOG" && !value.is_empty())
        {
            self.set_named("log.level", value, Origin::Variable(name.clone()));
        }
        for (name, value) in variables {
            let is_setting = name.starts_with("GALERNA_") && !name.starts_with("GALERNA_TEST_");
            if !is_setting || OTHER_VARIABLES.contains(&name.as_str()) {
                continue;
            }
            let origin = Origin::Variable(name.clone());
            match KEYS.iter().find(|k| k.variable() == *name) {
                Some(key) => self.set(key, value, origin),
                None => self.problems.push(unknown(name, &"environment", KEYS.iter().map(Key::variable))),
            }
        }
    }
}

/// The text of a TOML value when it has the type that the setting takes.
fn as_written(key: &Key, value: &toml::Value) -> Option<String> {
    match (key.kind, value) {
        (Kind::Count(..), toml::Value::Integer(n)) => Some(n.to_string()),
        (Kind::Count(..), _) => None,
        (_, toml::Value::String(text)) => Some(text.clone()),
        _ => None,
    }
}

fn children(table: &str) -> Vec<&'static str> {
    KEYS.iter().filter_map(|k| k.name.strip_prefix(table)?.strip_prefix('.')).collect()
}

/// The error of a name that no setting has: what it may have been meant to be, and what is allowed beside it.
fn unknown(name: &str, origin: &dyn fmt::Display, allowed: impl Iterator<Item = String>) -> String {
    let allowed: Vec<String> = allowed.collect();
    let near = allowed
        .iter()
        .map(|a| (strsim::jaro_winkler(a, name), a))
        .filter(|(likeness, _)| *likeness > 0.85)
        .max_by(|a, b| a.0.total_cmp(&b.0));
    let meant = near.map_or(".".to_owned(), |(_, a)| format!("; did you mean `{a}`?"));
    let siblings: Vec<&str> = match name.rsplit_once('.') {
        Some((table, _)) if !children(table).is_empty() => children(table),
        _ => allowed.iter().map(String::as_str).collect(),
    };
    format!("`{}` ({origin}) is not a setting{meant} Allowed here: {}", shorten(name), siblings.join(", "))
}

fn shorten(text: &str) -> String {
    if text.chars().count() <= 80 { text.to_owned() } else { text.chars().take(80).chain(['…']).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_file(content: &str) -> Result<Config, ConfigError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("galerna.toml");
        std::fs::write(&path, content).unwrap();
        Config::load(&Sources { file: Some(path), ..Sources::default() })
    }

    fn flag(name: &str, value: &str) -> FlagValue {
        FlagValue { flag: format!("--{name}"), name: name.to_owned(), value: value.to_owned() }
    }

    #[test]
    fn a_flag_goes_before_a_variable_before_the_file_before_the_default() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("galerna.toml");
        std::fs::write(&path, "[dispatcher]\nstrategy = \"fifo\"\nlease = \"10s\"\n[worker]\nleases = 3\n")
            .unwrap();
        let variables = vec![
            ("GALERNA_DISPATCHER_LEASE".to_owned(), "20s".to_owned()),
            ("GALERNA_WORKER_LEASES".to_owned(), "4".to_owned()),
            ("HOME".to_owned(), "/".to_owned()),
        ];
        let config = Config::load(&Sources {
            file: Some(path.clone()),
            variables,
            flags: vec![flag("worker.leases", "5")],
            defaults: vec![],
        })
        .unwrap();
        assert_eq!(config.text("dispatcher.strategy"), "fifo");
        assert_eq!(config.span("dispatcher.lease"), Duration::from_secs(20));
        assert_eq!(config.count("worker.leases"), 5);
        assert_eq!(config.count("worker.prefetch"), 200);
        let origins: BTreeMap<_, _> =
            config.shown().map(|(name, _, origin, _)| (name, origin.clone())).collect();
        assert_eq!(origins["dispatcher.strategy"], Origin::File(path));
        assert_eq!(origins["dispatcher.lease"], Origin::Variable("GALERNA_DISPATCHER_LEASE".to_owned()));
        assert_eq!(origins["worker.leases"], Origin::Flag("--worker.leases".to_owned()));
        assert_eq!(origins["worker.prefetch"], Origin::Default);
    }

    #[test]
    fn a_wrong_file_is_an_error_that_names_the_key_the_value_and_what_is_allowed() {
        for (content, parts) in [
            (
                "[dispatcher]\nlesae = \"5s\"",
                &["`dispatcher.lesae`", "did you mean `dispatcher.lease`?", "strategy"][..],
            ),
            ("[dispacher]\nlease = \"5s\"", &["`dispacher`", "is not a setting"]),
            ("dat = \"x\"", &["`dat`", "did you mean `data`?"]),
            ("[dispatcher]\nlease = 60", &["`dispatcher.lease`", "`60`", "such as 250ms", "in quotes"]),
            ("[dispatcher]\nlease = \"1w\"", &["`dispatcher.lease`", "`1w`", "from 500ms to 1d"]),
            ("[dispatcher]\nlease = \"1ms\"", &["`dispatcher.lease`", "`1ms`", "from 500ms"]),
            ("[dispatcher]\nstrategy = \"best\"", &["`dispatcher.strategy`", "`best`", "fifo, lru, fair"]),
            ("dispatcher = \"lru\"", &["`dispatcher`", "it is a table", "strategy"]),
            ("[worker]\nleases = 0", &["`worker.leases`", "`0`", "from 1 to 1024"]),
            ("[worker]\nleases = \"4\"", &["`worker.leases`", "a whole number"]),
            ("[worker]\nleases = -1", &["`worker.leases`", "`-1`"]),
            (
                "[broker]\nurl = \"rabbit\"",
                &["`broker.url`", "`rabbit`", "`embedded` or a URL", "amqp:// or amqps://"],
            ),
            (
                "[broker]\nurl = \"amqp://\"",
                &[
                    "`broker.url`",
                    "`amqp://`",
                    "`embedded` or a URL",
                    "names a host, such as amqp://localhost",
                ],
            ),
            ("[broker]\nurl = \"amqps://u:pw@:5671\"", &["names a host, such as amqps://localhost"]),
            ("[store]\nurl = \"mongodb:///x\"", &["names a host, such as mongodb://localhost"]),
            ("[broker]\nurl = \"http://u:pw@h\"", &["`broker.url`", "http://u:***@h"]),
            ("[store]\nurl = \"mongo://h\"", &["`store.url`", "mongodb://"]),
            ("[api]\nlisten = \"here\"", &["`api.listen`", "`here`", "127.0.0.1:7676"]),
            ("[api]\nlisten = \"0.0.0.0:7676\"", &["`api.listen`", "`api.token`"]),
            ("[api]\ntoken = \"short\"", &["`api.token`", "16"]),
            ("[log]\nformat = \"xml\"", &["`log.format`", "text, json"]),
            ("[log", &["is not TOML"]),
        ] {
            let error = with_file(content).expect_err(content).to_string();
            for part in parts {
                assert!(error.contains(part), "{content}: {error} lacks {part}");
            }
            assert!(!error.contains("pw@") && !error.contains("`short`"), "{error}");
        }
    }

    #[test]
    fn all_problems_are_told_at_once() {
        let error = with_file("[worker]\nleases = 0\nprefetch = 0\nx = 1").expect_err("wrong").to_string();
        for part in ["worker.leases", "worker.prefetch", "worker.x"] {
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn an_unknown_variable_or_flag_is_an_error() {
        let variables = vec![("GALERNA_BROKER_URI".to_owned(), "embedded".to_owned())];
        let error =
            Config::load(&Sources { variables, ..Sources::default() }).expect_err("unknown").to_string();
        assert!(error.contains("`GALERNA_BROKER_URI`") && error.contains("`GALERNA_BROKER_URL`"), "{error}");
        let flags = vec![flag("broker.urll", "embedded")];
        let error = Config::load(&Sources { flags, ..Sources::default() }).expect_err("unknown").to_string();
        assert!(error.contains("`broker.urll`") && error.contains("`broker.url`"), "{error}");
    }

    #[test]
    fn a_named_file_must_exist() {
        let file = Some(PathBuf::from("/nowhere/galerna.toml"));
        let error = Config::load(&Sources { file, ..Sources::default() }).expect_err("absent").to_string();
        assert!(error.contains("/nowhere/galerna.toml") && error.contains("--config"), "{error}");
    }

    #[test]
    fn secrets_and_passwords_are_not_shown() {
        let flags = vec![
            flag("api.token", "0123456789abcdef"),
            flag("broker.url", "amqp://guest:hunter2@localhost"),
            flag("store.url", "mongodb://guest:hunter2@localhost"),
        ];
        let config = Config::load(&Sources { flags, ..Sources::default() }).unwrap();
        for (name, value, ..) in config.shown() {
            assert!(!value.contains("hunter2") && !value.contains("0123456789abcdef"), "{name} = {value}");
        }
    }
}
