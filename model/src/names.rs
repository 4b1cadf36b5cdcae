//! Names that are checked once, where they enter.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

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
            /// [`NameError`] when it is empty, longer than [`Self::MAX_LEN`] bytes, or holds white space, control
            /// characters or `/`.
            pub fn new(name: impl AsRef<str>) -> Result<Self, NameError> {
                let name = name.as_ref();
                let problem = if name.is_empty() {
                    "is empty"
                } else if name.len() > $max {
                    "is too long"
                } else if name.chars().any(|c| c.is_whitespace() || c.is_control() || c == '/') {
                    "holds a space, a slash or a control character"
                } else {
                    return Ok(Self(name.into()));
                };
                Err(NameError { kind: $kind, shown: name.chars().take(60).collect(), problem, max: $max })
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

impl QueueName {
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
