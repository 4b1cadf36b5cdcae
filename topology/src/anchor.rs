//! The handle of a tuple that a bolt keeps.

use std::fmt;
use std::sync::Arc;

use galerna_lock::Mutex;

#[cfg(doc)]
use crate::anchors::{AllAnchors, Anchors};
#[cfg(doc)]
use crate::emitter::Emitter;
use crate::emitter::only_stable_id;
use crate::failure::{Failure, FailureKind, Fault};
use crate::kept_tuple::KeptTuple;
use crate::lineage::{AckToken, Lineage, ShareRng};
use crate::runtime::AckSender;

/// What the end of a handle counts for.
#[derive(Debug, Clone)]
pub(crate) enum Weight {
    /// No tuple was at hand when it was made.
    Nothing,
    /// The only handle of a tuple.
    Tuple,
    /// One of perhaps several handles of a tuple.
    Kept(Arc<KeptTuple>),
}

impl Weight {
    pub(crate) fn ack(&self) -> u64 {
        match self {
            Self::Nothing => 0,
            Self::Tuple => 1,
            Self::Kept(tuple) => tuple.ack(),
        }
    }

    pub(crate) fn fail(&self) -> u64 {
        match self {
            Self::Nothing => 0,
            Self::Tuple => 1,
            Self::Kept(tuple) => tuple.fail(),
        }
    }
}

/// The handle of one kept tuple: whoever holds it decides about the tuple's root.
///
/// [`ack`](Self::ack) or [`fail`](Self::fail) consume it. **Dropping it fails the root at once**
/// ([`FailureKind::Dropped`]), so a forgotten ack never reads as success. It may travel to other tasks
/// and threads.
#[must_use = "dropping an anchor fails its root"]
pub struct Anchor {
    // A lock only because emitting anchored to a kept tuple splits its share, and legally so through
    // a shared reference (the same anchor may be given twice).
    pub(crate) token: Mutex<AckToken>,
    pub(crate) received: u64,
    pub(crate) weight: Weight,
    pub(crate) acks: Option<Arc<dyn AckSender>>,
}

impl Anchor {
    pub(crate) fn new(token: AckToken, received: u64, weight: Weight, acks: Arc<dyn AckSender>) -> Self {
        Self { token: Mutex::new(token), received, weight, acks: Some(acks) }
    }

    pub(crate) fn take(&mut self) -> Lineage {
        let token = std::mem::take(&mut *self.token.get_mut());
        let mut lineage = Lineage::new();
        lineage.push(token);
        lineage
    }

    /// The stable id of the tuple's message; see [`Emitter::stable_id`].
    pub fn stable_id(&self) -> Option<Arc<str>> {
        let token = self.token.lock();
        only_stable_id(&token, &**self.acks.as_ref()?)
    }

    /// Whether a spout waits for this tuple.
    pub fn is_tracked(&self) -> bool {
        self.token.lock().is_tracked()
    }

    /// The tuple is done.
    pub fn ack(mut self) {
        if let Some(acks) = self.acks.take() {
            acks.settle(&mut self.take(), self.weight.ack(), Some(self.received));
        }
    }

    /// The tuple failed: its root fails at once with this reason and the bolt's component id.
    pub fn fail(mut self, fault: impl Into<Fault>) {
        if let Some(acks) = self.acks.take() {
            let failure = error(fault.into(), &*acks);
            acks.fail(&mut self.take(), self.weight.fail(), &failure);
        }
    }

    /// As [`fail`](Self::fail), by another event than a returned error.
    pub(crate) fn fail_as(mut self, kind: FailureKind, fault: Fault) {
        if let Some(acks) = self.acks.take() {
            let failure = Failure { kind, fault, component: acks.component().clone() };
            acks.fail(&mut self.take(), self.weight.fail(), &failure);
        }
    }

    /// Starts the message timeout of the tuple's roots anew, for work known to take long.
    pub fn reset_timeout(&self) {
        if let Some(acks) = &self.acks {
            let token = self.token.lock().clone();
            let mut lineage = Lineage::new();
            lineage.push(token);
            acks.reset_timeout(&mut lineage);
        }
    }
}

impl Drop for Anchor {
    fn drop(&mut self) {
        if let Some(acks) = self.acks.take() {
            drop_unsettled(&*acks, &mut self.take(), self.weight.fail());
        }
    }
}

impl fmt::Debug for Anchor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Anchor({:?})", self.token)
    }
}

pub(crate) fn error(fault: Fault, acks: &dyn AckSender) -> Failure {
    Failure::error(fault, acks.component().clone())
}

pub(crate) fn drop_unsettled(acks: &dyn AckSender, lineage: &mut Lineage, tuples: u64) {
    let failure = if std::thread::panicking() {
        Failure::new(FailureKind::Panic, "the bolt panicked while it had the tuple", acks.component().clone())
    } else {
        Failure::new(FailureKind::Dropped, "dropped without ack or fail", acks.component().clone())
    };
    acks.fail(lineage, tuples, &failure);
}

/// What a tuple can be emitted anchored to: [`&Anchors`](Anchors), several of them as [`AllAnchors`], or whatever iterates over [`&Anchor`](Anchor).
pub trait AnchorSet {
    #[doc(hidden)]
    fn split_tokens(self, shares: &mut ShareRng) -> AckToken;
}

impl<'a, I: IntoIterator<Item = &'a Anchor>> AnchorSet for I {
    fn split_tokens(self, shares: &mut ShareRng) -> AckToken {
        let split = |anchor: &Anchor| anchor.token.lock().split(shares);
        AckToken::merge_all(self.into_iter().map(split))
    }
}
