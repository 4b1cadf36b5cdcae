//! Names of schedules.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::BadSchedule;

/// Longest name of a schedule, in bytes.
const LONGEST: usize = 128;

/// The name of a schedule: 1 to 128 letters, digits, `.`, `_`, `-` or `/`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ScheduleId(String);

impl ScheduleId {
    /// Takes a name.
    ///
    /// # Errors
    /// [`BadSchedule`] when it is empty, too long or has other characters.
    pub fn new(name: impl Into<String>) -> Result<Self, BadSchedule> {
        let name = name.into();
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '/');
        if name.is_empty() || name.len() > LONGEST || !name.chars().all(allowed) {
            let shown: String = name.chars().take(40).collect();
            return Err(BadSchedule::new(
                "id",
                format!(
                    "`{shown}` is no name of a schedule; write 1 to {LONGEST} letters, digits, `.`, `_`, `-` or `/`"
                ),
            ));
        }
        Ok(Self(name))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ScheduleId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for ScheduleId {
    type Error = BadSchedule;

    fn try_from(name: String) -> Result<Self, BadSchedule> {
        Self::new(name)
    }
}

impl From<ScheduleId> for String {
    fn from(id: ScheduleId) -> Self {
        id.0
    }
}
