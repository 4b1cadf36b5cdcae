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
        // Programs that build addresses take these for steps in a path.
        let steps = name.split('/').any(|part| matches!(part, "." | ".."));
        if name.is_empty() || name.len() > LONGEST || !name.chars().all(allowed) || steps {
            let shown: String = name.chars().take(40).collect();
            return Err(BadSchedule::new(
                "id",
                format!(
                    "`{shown}` is no name of a schedule; write 1 to {LONGEST} letters, digits, `.`, `_`, `-` or `/`, and no part `.` or `..`"
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_can_stand_in_a_path() {
        for good in ["nightly", "reports/daily.v2", "a..b", ".hidden"] {
            assert!(ScheduleId::new(good).is_ok(), "{good}");
        }
        for bad in ["", ".", "..", "reports/..", "./daily", "a b", "ä"] {
            let said = ScheduleId::new(bad).unwrap_err().to_string();
            assert!(said.contains("is no name of a schedule"), "{bad}: {said}");
        }
    }
}
