//! Why a tuple failed, and where.

use std::any::Any;
use std::fmt;
use std::sync::Arc;

/// Whether trying again can help: what whoever hears of a failure decides by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum FaultKind {
    /// The next try may succeed. What is said of nothing else.
    Transient,
    /// It is the tuple's fault, and every try will fail alike.
    Permanent,
    /// It is not the tuple's fault: something that is needed (a store, a broker, a service) is not to be had,
    /// for this tuple or any other. Whoever counts tries need not count this one.
    Unavailable,
}

impl FaultKind {
    /// All kinds, in the order of [`FaultKind::index`].
    pub const ALL: [Self; 3] = [Self::Transient, Self::Permanent, Self::Unavailable];

    /// A short lowercase name, as metrics use it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Transient => "transient",
            Self::Permanent => "permanent",
            Self::Unavailable => "unavailable",
        }
    }

    /// The position in [`FaultKind::ALL`].
    pub const fn index(self) -> usize {
        self as usize
    }
}

impl fmt::Display for FaultKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The error a spout or bolt returns: what kind it is, and a reason in words.
///
/// Any error becomes one by `?`, and is [transient](FaultKind::Transient) unless said otherwise, by
/// [`OrFault::or_permanent`], [`OrFault::or_unavailable`] or the constructors. The kind alone decides what is
/// done about it; the reason is for people. It is deliberately not an `std::error::Error` itself, so that
/// every error type converts into it.
///
/// ```
/// use galerna_topology::{Fault, FaultKind, OrFault};
///
/// fn parse(text: &str) -> Result<f64, Fault> {
///     let value: f64 = text.parse().or_permanent()?; // any error type converts
///     if value.is_nan() {
///         return Err(Fault::permanent("v is not a number"));
///     }
///     Ok(value)
/// }
///
/// let fault = parse("x").unwrap_err();
/// assert_eq!((fault.kind(), fault.reason()), (FaultKind::Permanent, "invalid float literal"));
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Fault {
    kind: FaultKind,
    reason: Arc<str>,
}

impl Fault {
    /// A fault of this kind with this reason.
    pub fn new(kind: FaultKind, reason: impl Into<Arc<str>>) -> Self {
        Self { kind, reason: reason.into() }
    }

    /// A fault that may pass: the tuple may be tried again.
    pub fn transient(reason: impl Into<Arc<str>>) -> Self {
        Self::new(FaultKind::Transient, reason)
    }

    /// The tuple's own fault: trying again cannot help.
    pub fn permanent(reason: impl Into<Arc<str>>) -> Self {
        Self::new(FaultKind::Permanent, reason)
    }

    /// Something that is needed is not to be had; the tuple has no part in it.
    pub fn unavailable(reason: impl Into<Arc<str>>) -> Self {
        Self::new(FaultKind::Unavailable, reason)
    }

    /// What a panic said, as [`std::panic::catch_unwind`] gives it. Transient: the instance that panicked is
    /// replaced.
    pub fn panicked(panic: &(dyn Any + Send)) -> Self {
        let text = panic.downcast_ref::<&str>().copied();
        let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
        Self::transient(format!("panicked: {}", text.unwrap_or("no message")))
    }

    /// The kind.
    pub fn kind(&self) -> FaultKind {
        self.kind
    }

    /// The reason in words.
    pub fn reason(&self) -> &str {
        &self.reason
    }

    /// The same reason, as one of another kind.
    #[must_use]
    pub fn of_kind(self, kind: FaultKind) -> Self {
        Self { kind, ..self }
    }
}

impl fmt::Debug for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fault({}, {:?})", self.kind, &*self.reason)
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
        Self::transient(reason)
    }
}

/// Says of what kind an error is, on its way through `?`.
pub trait OrFault<T>: Sized {
    /// The error as a fault of this kind.
    ///
    /// # Errors
    /// The error, if it is one.
    fn or_fault(self, kind: FaultKind) -> Result<T, Fault>;

    /// The error as one that trying again cannot help.
    ///
    /// # Errors
    /// The error, if it is one.
    fn or_permanent(self) -> Result<T, Fault> {
        self.or_fault(FaultKind::Permanent)
    }

    /// The error as one that is not the tuple's fault.
    ///
    /// # Errors
    /// The error, if it is one.
    fn or_unavailable(self) -> Result<T, Fault> {
        self.or_fault(FaultKind::Unavailable)
    }
}

impl<T, E: Into<Fault>> OrFault<T> for Result<T, E> {
    fn or_fault(self, kind: FaultKind) -> Result<T, Fault> {
        self.map_err(|error| error.into().of_kind(kind))
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
    /// Whether trying again can help, and the reason in words. What no bolt returned is transient, but for a
    /// stop, which is [`FaultKind::Unavailable`].
    pub fault: Fault,
    /// The id of the component where it happened; for a timeout, the spout's own id, since nobody
    /// knows where the tuple is.
    pub component: Arc<str>,
}

impl Failure {
    /// A failure of `kind` in `component`, with the kind of fault that such an event is.
    pub fn new(kind: FailureKind, reason: impl Into<Arc<str>>, component: impl Into<Arc<str>>) -> Self {
        let fault = match kind {
            FailureKind::Stopped => FaultKind::Unavailable,
            _ => FaultKind::Transient,
        };
        Self { kind, fault: Fault::new(fault, reason), component: component.into() }
    }

    /// A failure by what a bolt in `component` returned.
    pub fn error(fault: impl Into<Fault>, component: impl Into<Arc<str>>) -> Self {
        Self { kind: FailureKind::Error, fault: fault.into(), component: component.into() }
    }

    /// The reason in words; for a timeout, `timeout`.
    pub fn reason(&self) -> &str {
        self.fault.reason()
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} in {}: {}", self.kind, self.component, self.reason())
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
