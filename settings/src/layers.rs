//! From the file, the variables and the flags to one value for each setting, with all that is wrong with them.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use crate::schema::{self, KEYS, Key, Kind, Value, without_password};
use crate::{CONFIG_VARIABLE, Inputs, OTHER_VARIABLES, Origin};

/// The file that is read when none is named.
const FILE: &str = "galerna.toml";

/// The value of each setting, and where it came from.
#[derive(Clone, Default)]
pub(crate) struct Values(BTreeMap<&'static str, (Value, Origin)>);

impl Values {
    pub(crate) fn get(&self, name: &str) -> Option<&(Value, Origin)> {
        self.0.get(name)
    }

    pub(crate) fn origin(&self, name: &str) -> Option<&Origin> {
        self.0.get(name).map(|(_, origin)| origin)
    }

    pub(crate) fn set(&mut self, name: &'static str, value: Value, origin: Origin) {
        self.0.insert(name, (value, origin));
    }

    /// The values in their tables, without what is empty.
    pub(crate) fn tree(&self) -> toml::Table {
        let mut tree = toml::Table::new();
        for (name, (value, _)) in &self.0 {
            let (table, field) = match name.split_once('.') {
                Some((table, field)) => {
                    let inner = tree.entry(table).or_insert_with(|| toml::Value::Table(toml::Table::new()));
                    (inner.as_table_mut(), field)
                }
                None => (Some(&mut tree), *name),
            };
            if let (Some(table), Some(value)) = (table, value.typed()) {
                table.insert(field.to_owned(), value);
            }
        }
        tree
    }
}

/// What the inputs say, the later before the earlier.
#[derive(Default)]
pub(crate) struct Layers {
    pub(crate) values: Values,
    pub(crate) problems: Vec<String>,
}

impl Layers {
    /// Reads all inputs; a value that is wrong leaves the one below it in place.
    pub(crate) fn read(inputs: &Inputs) -> Self {
        let mut layers = Self::default();
        for key in KEYS {
            layers.set(key, key.default, Origin::Default);
        }
        for (name, value) in &inputs.defaults {
            layers.set_named(name, value, Origin::Default);
        }
        layers.file(inputs);
        layers.variables(&inputs.variables);
        for flag in &inputs.flags {
            layers.set_named(&flag.name, &flag.value, Origin::Flag(flag.flag.clone()));
        }
        layers
    }

    fn set(&mut self, key: &'static Key, text: &str, origin: Origin) {
        match key.kind.parse(text) {
            Ok(value) => {
                self.values.set(key.name, value, origin);
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

    fn file(&mut self, inputs: &Inputs) {
        let named = inputs.file.clone().map(|path| (path, "--config")).or_else(|| {
            let (_, path) = inputs.variables.iter().find(|(name, _)| name == CONFIG_VARIABLE)?;
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
