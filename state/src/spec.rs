//! How a state is declared: its name, the version of what it holds, how long that lives, and how older versions become it.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// What is kept under a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StateKind {
    /// One value.
    Value,
    /// Values by field.
    Map,
    /// Items in the order in which they were pushed.
    List,
}

impl StateKind {
    pub(crate) const fn code(self) -> u8 {
        match self {
            Self::Value => 1,
            Self::Map => 2,
            Self::List => 3,
        }
    }

    pub(crate) const fn from_code(code: u8) -> Option<Self> {
        match code {
            1 => Some(Self::Value),
            2 => Some(Self::Map),
            3 => Some(Self::List),
            _ => None,
        }
    }
}

impl fmt::Display for StateKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Value => "value",
            Self::Map => "map",
            Self::List => "list",
        })
    }
}

/// From the bytes of one version to those of the next.
type Migration = Arc<dyn Fn(&[u8]) -> Result<Vec<u8>, String> + Send + Sync>;

/// A declared state. A name alone is one too, of version 1, without migrations, that lives for ever.
///
/// ```
/// use std::time::Duration;
/// use galerna_state::StateSpec;
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Serialize, Deserialize)]
/// struct Total { wh: u64, readings: u64 }
///
/// // Version 1 held only the sum.
/// let spec = StateSpec::new("total")
///     .version(2)
///     .migrate(1, |wh: u64| Ok(Total { wh, readings: 0 }))
///     .time_to_live(Duration::from_secs(7 * 86_400));
/// # assert_eq!(spec.name(), "total");
/// ```
#[derive(Clone)]
pub struct StateSpec {
    name: String,
    version: u32,
    time_to_live: Option<Duration>,
    migrations: BTreeMap<u32, Migration>,
}

impl StateSpec {
    /// A state of version 1. The name is unique in its component.
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), version: 1, time_to_live: None, migrations: BTreeMap::new() }
    }

    /// The version of the values' type, from 1. Raise it when what was stored no longer decodes, or means something else.
    #[must_use]
    pub fn version(mut self, version: u32) -> Self {
        self.version = version;
        self
    }

    /// Values, fields of maps and items of lists are gone so long after they were last written.
    #[must_use]
    pub fn time_to_live(mut self, time: Duration) -> Self {
        self.time_to_live = Some(time);
        self
    }

    /// How a value (of a map: the value of a field; of a list: an item) of version `from` becomes one of version `from + 1`.
    /// Keys and fields cannot be migrated. The text of an error says what is wrong with the value.
    #[must_use]
    pub fn migrate<Old, New>(
        mut self,
        from: u32,
        migration: impl Fn(Old) -> Result<New, String> + Send + Sync + 'static,
    ) -> Self
    where
        Old: DeserializeOwned,
        New: Serialize,
    {
        let step = move |bytes: &[u8]| {
            let old = rmp_serde::from_slice(bytes).map_err(|cause| {
                format!("it does not decode as {}: {cause}", std::any::type_name::<Old>())
            })?;
            rmp_serde::to_vec_named(&migration(old)?).map_err(|cause| cause.to_string())
        };
        self.migrations.insert(from, Arc::new(step));
        self
    }

    /// The name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The version of what it holds.
    pub fn current_version(&self) -> u32 {
        self.version
    }

    pub(crate) fn life(&self) -> Option<Duration> {
        self.time_to_live
    }

    /// What is wrong with the declaration itself.
    pub(crate) fn problem(&self) -> Option<String> {
        if self.time_to_live.is_some_and(|time| time.as_millis() == 0) {
            return Some("a time to live is at least a millisecond".to_owned());
        }
        problem(&self.name, self.version, &self.migrates_from())
    }

    /// The versions from which there is a migration.
    pub(crate) fn migrates_from(&self) -> Vec<u32> {
        self.migrations.keys().copied().collect()
    }

    /// One step; `Err` says why it refused.
    pub(crate) fn step(&self, from: u32, bytes: &[u8]) -> Result<Vec<u8>, String> {
        match self.migrations.get(&from) {
            Some(step) => step(bytes),
            None => Err("there is no such migration".to_owned()),
        }
    }
}

/// What is wrong with a declaration.
pub(crate) fn problem(name: &str, version: u32, migrates_from: &[u32]) -> Option<String> {
    if name.is_empty() || name.len() > 255 {
        return Some("give it a name of 1 to 255 bytes".to_owned());
    }
    if version == 0 {
        return Some("versions count from 1".to_owned());
    }
    let beyond = migrates_from.iter().find(|from| **from == 0 || **from >= version)?;
    Some(format!(
        "it has a migration from version {beyond}, which leads to none of its versions 1 to {version}"
    ))
}

impl fmt::Debug for StateSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StateSpec")
            .field("name", &self.name)
            .field("version", &self.version)
            .field("time_to_live", &self.time_to_live)
            .field("migrations", &self.migrations.keys().collect::<Vec<_>>())
            .finish()
    }
}

impl From<&str> for StateSpec {
    fn from(name: &str) -> Self {
        Self::new(name)
    }
}

impl From<String> for StateSpec {
    fn from(name: String) -> Self {
        Self::new(name)
    }
}

impl From<&StateSpec> for StateSpec {
    fn from(spec: &StateSpec) -> Self {
        spec.clone()
    }
}
