//! Rounds, and the names of what belongs to them.

use std::fmt;

use galerna_schedules::{FiringId, Origin};
use object_store::path::Path;

/// A round, by the name that its chart has in the object store: its nominal time (`2026-05-01T12-00-10Z`), and for one that somebody
/// asked for, its number. It is the same whoever works on it, and however often it is tried.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Round(String);

impl Round {
    /// The round of a firing.
    pub fn of(firing: &FiringId) -> Self {
        let time = firing.nominal.to_string().replace(':', "-");
        Self(match firing.origin {
            Origin::Planned => time,
            Origin::Triggered(number) => format!("{time}-triggered-{number}"),
            Origin::Backfilled(number) => format!("{time}-backfilled-{number}"),
        })
    }

    /// A round by its name.
    pub fn named(name: impl Into<String>) -> Self {
        Self(name.into())
    }

    /// Its name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The object that holds an account's posts.
    pub fn posts(&self, account: &str) -> Path {
        Path::from_iter(["posts", self.as_str(), &format!("{account}.json")])
    }

    /// The object that holds the comparison in this form: `csv`, `svg` or `png`.
    pub fn chart(&self, form: &str) -> Path {
        Path::from_iter(["charts", &format!("{}.{form}", self.0)])
    }
}

impl fmt::Display for Round {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
