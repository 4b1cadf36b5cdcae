//! Names that are checked once, where they enter.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::first_invisible;

/// A name that breaks its rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{kind} `{shown}` {problem}; use 1 to {max} visible characters without spaces or slashes")]
pub struct NameError {
    kind: &'static str,
    shown: String,
    problem: &'static str,
    max: usize,
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $kind:literal, $max:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Arc<str>);

        impl $name {
            /// The longest name allowed, in bytes.
            pub const MAX_LEN: usize = $max;

            /// Checks and takes a name.
            ///
            /// # Errors
            /// [`NameError`] when it is empty, longer than [`Self::MAX_LEN`] bytes, `.` or `..`, or holds `/`, white space, control
            /// characters or others that nobody sees ([`first_invisible`]). Names are compared byte by byte.
            pub fn new(name: impl AsRef<str>) -> Result<Self, NameError> {
                let name = name.as_ref();
                let problem = if name.is_empty() {
                    "is empty"
                } else if name == "." || name == ".." {
                    "means a folder"
                } else if name.len() > $max {
                    "is too long"
                } else if name.contains('/') {
                    "holds a slash"
                } else if let Some(c) = first_invisible(name) {
                    if c.is_whitespace() {
                        "holds a space"
                    } else if c.is_control() {
                        "holds a control character"
                    } else {
                        "holds a character that nobody sees"
                    }
                } else {
                    return Ok(Self(name.into()));
                };
                Err(Self::error(name, problem))
            }

            fn error(name: &str, problem: &'static str) -> NameError {
                let shown = name.chars().take(60).map(|c| if c != ' ' && first_invisible(c.encode_utf8(&mut [0; 4])).is_some() { '\u{fffd}' } else { c }).collect();
                NameError { kind: $kind, shown, problem, max: $max }
            }

            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = NameError;
            fn try_from(name: String) -> Result<Self, NameError> {
                Self::new(name)
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0.as_ref().to_owned()
            }
        }

        impl std::str::FromStr for $name {
            type Err = NameError;
            fn from_str(name: &str) -> Result<Self, NameError> {
                Self::new(name)
            }
        }
    };
}

name!(
    /// A customer account: the tenant that owns one queue.
    AccountId, "account id", 120
);
name!(
    /// A queue on the broker, one per account (for instance `D0000591`).
    QueueName, "queue name", 200
);
name!(
    /// A source of readings: one concentrator of an account.
    SourceId, "source id", 120
);

const RESERVED: &str =
    "is reserved: names may not end in `.dead` or begin with `galerna.` or `amq.`, in whatever case";

/// Whether the system keeps a name for itself. What is read by people or by file systems does not tell cases apart.
fn is_kept(name: &str) -> bool {
    let name = name.to_lowercase();
    name.ends_with(QueueName::DEAD) || name.starts_with("galerna.") || name.starts_with("amq.")
}

impl SourceId {
    /// Checks and takes the name of a source that is to be there from now on: one that the system keeps for itself is none.
    ///
    /// # Errors
    /// [`NameError`], as of [`new`](Self::new), and when the name is reserved.
    pub fn for_customer(name: impl AsRef<str>) -> Result<Self, NameError> {
        let source = Self::new(name)?;
        if is_kept(source.as_str()) { Err(Self::error(source.as_str(), RESERVED)) } else { Ok(source) }
    }
}

impl AccountId {
    /// Checks and takes the name of an account that is to be there from now on: a name that the system keeps for itself is none.
    ///
    /// # Errors
    /// [`NameError`], as of [`new`](Self::new), and when the name or a queue of that name is reserved.
    pub fn for_customer(name: impl AsRef<str>) -> Result<Self, NameError> {
        let account = Self::new(name)?;
        match QueueName::for_customer(account.as_str()) {
            Ok(_) => Ok(account),
            Err(_) => Err(Self::error(account.as_str(), RESERVED)),
        }
    }
}

impl QueueName {
    /// Checks and takes the name of a queue that is an account's: one that the system keeps for itself is none.
    ///
    /// # Errors
    /// [`NameError`], as of [`new`](Self::new), and when the name is reserved.
    pub fn for_customer(name: impl AsRef<str>) -> Result<Self, NameError> {
        let queue = Self::new(name)?;
        if is_kept(queue.as_str()) {
            return Err(Self::error(queue.as_str(), RESERVED));
        }
        Ok(queue)
    }

    /// The end of the name of a dead-letter queue.
    pub const DEAD: &str = ".dead";

    /// Whether the name is one that the broker gives to the companions of queues: it ends in `.dead`, or begins with
    /// `galerna.` or `amq.`.
    pub fn is_reserved(&self) -> bool {
        let name = self.as_str();
        // `galerna.alerts` carries alert events and is a queue like any other.
        name.ends_with(Self::DEAD)
            || (name.starts_with("galerna.") && name != "galerna.alerts")
            || name.starts_with("amq.")
    }
}

/// The numeric code of a measured quantity, for instance 401, active power in watts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ParameterCode(pub u32);

impl fmt::Display for ParameterCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_cannot_be_says_why() {
        let long = "x".repeat(121);
        let cases = [
            ("", "is empty"),
            (".", "means a folder"),
            ("..", "means a folder"),
            ("a b", "holds a space"),
            ("a/b", "a slash"),
            ("a\u{7}b", "a control character"),
            ("a\u{200b}b", "nobody sees"),
            ("a\u{202e}b", "nobody sees"),
            ("\u{feff}a", "nobody sees"),
            ("a\u{a0}b", "holds a space"),
            (&long, "is too long"),
        ];
        for (name, problem) in cases {
            let error = AccountId::new(name).unwrap_err().to_string();
            assert!(error.contains(problem) && !error.contains('\u{7}'), "{error}");
            assert!(SourceId::new(name).is_err());
        }
    }

    #[test]
    fn names_that_the_system_keeps_for_itself_are_no_customers() {
        for name in ["x.dead", "galerna.alerts", "galerna.x", "amq.direct"] {
            assert!(AccountId::for_customer(name).unwrap_err().to_string().contains("is reserved"), "{name}");
            assert!(QueueName::for_customer(name).is_err(), "{name}");
            assert!(QueueName::new(name).is_ok(), "{name}");
        }
        for name in ["X.DEAD", "Galerna.x", "AMQ.q", "a.dead", "galerna.q", "amq.q"] {
            assert!(
                AccountId::for_customer(name).is_err() && SourceId::for_customer(name).is_err(),
                "{name}"
            );
            assert!(QueueName::for_customer(name).is_err(), "{name}");
        }
        for name in ["x.deadline", "galerna", "amq", "a.b", "…"] {
            assert!(AccountId::for_customer(name).is_ok() && SourceId::for_customer(name).is_ok(), "{name}");
        }
        assert!(AccountId::for_customer("..").unwrap_err().to_string().contains("means a folder"));
    }
}
