//! Why a tuple failed, and where.

use std::any::Any;
use std::fmt;
use std::sync::Arc;

/// The error a spout or bolt returns: a reason in words, made from any error by `?`.
///
/// It is deliberately not an `std::error::Error` itself, so that every error type converts into it.
///
/// ```
/// use galerna_topology::Fault;
///
/// fn parse(text: &str) -> Result<f64, Fault> {
///     let value: f64 = text.parse()?; // any error type converts
///     if value.is_nan() {
///         return Err(Fault::new("v is not a number"));
///     }
///     Ok(value)
/// }
/// assert_eq!(parse("x").unwrap_err().reason(), "invalid float literal");
/// ```
#[derive(Clone)]
pub struct Fault {
    reason: Arc<str>,
}

impl Fault {
    /// A fault with this reason.
    pub fn new(reason: impl Into<Arc<str>>) -> Self {
        Self { reason: reason.into() }
    }

    /// What a panic said, as [`std::panic::catch_unwind`] gives it.
    pub fn panicked(panic: &(dyn Any + Send)) -> Self {
        let text = panic.downcast_ref::<&str>().copied();
        let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
        Self::new(format!("panicked: {}", text.unwrap_or("no message")))
    }

    /// The reason in words.
    pub fn reason(&self) -> &str {
        &self.reason
    }

    pub(crate) fn into_reason(self) -> Arc<str> {
        self.reason
    }
}

impl fmt::Debug for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fault({:?})", &*self.reason)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)
    }
}

impl<E: std::error::Error> From<E> for Fault {
    fn from(error: E) -> Self {
        // The whole chain in one line: whoever reads a dead letter has no debugger at hand.
        let mut reason = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            let text = cause.to_string();
            if !reason.contains(&text) {
                reason.push_str(": ");
                reason.push_str(&text);
            }
            source = cause.source();
        }
        Self::new(reason)
    }
}

/// What kind of event ended a root without success.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum FailureKind {
    /// A bolt returned `Err`, or failed a kept tuple.
    Error,
    /// A bolt panicked while it had the tuple, or the author's code that distributes, copies or converts
    /// tuples between two components did.
    Panic,
    /// A kept tuple was dropped without being acked or failed.
    Dropped,
    /// The tree was not done within the message timeout.
    Timeout,
    /// The topology was stopped before the tree was done.
    Stopped,
}

impl FailureKind {
    /// All kinds, in the order of [`FailureKind::index`].
    pub const ALL: [Self; 5] = [Self::Error, Self::Panic, Self::Dropped, Self::Timeout, Self::Stopped];

    /// A short lowercase name, as metrics use it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Panic => "panic",
            Self::Dropped => "dropped",
            Self::Timeout => "timeout",
            Self::Stopped => "stopped",
        }
    }

    /// The position in [`FailureKind::ALL`].
    pub const fn index(self) -> usize {
        self as usize
    }
}

impl fmt::Display for FailureKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Why a tuple failed and in which component.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The kind of event.
    pub kind: FailureKind,
    /// The reason in words; for a timeout, `timeout`.
    pub reason: Arc<str>,
    /// The id of the component where it happened; for a timeout, the spout's own id, since nobody
    /// knows where the tuple is.
    pub component: Arc<str>,
}

impl Failure {
    /// A failure of `kind` in `component`.
    pub fn new(kind: FailureKind, reason: impl Into<Arc<str>>, component: impl Into<Arc<str>>) -> Self {
        Self { kind, reason: reason.into(), component: component.into() }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} in {}: {}", self.kind, self.component, self.reason)
    }
}

/// A root that failed, handed back to the spout that emitted it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failed<M> {
    /// The message id the spout gave the root.
    pub id: M,
    /// Why and where.
    pub failure: Failure,
}
