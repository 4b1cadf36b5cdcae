//! A topology that has been built.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::component::{Component, EventTimeUse};

/// A checked topology, ready to be run by an engine or printed.
#[derive(Clone)]
pub struct Topology {
    pub(crate) name: Arc<str>,
    pub(crate) components: Vec<Component>,
    pub(crate) message_timeout: Option<Duration>,
    pub(crate) tracking: bool,
}

impl Topology {
    /// The topology's name.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// The components, in the order of declaration.
    pub fn components(&self) -> &[Component] {
        &self.components
    }

    /// The component with this id.
    pub fn component(&self, id: &str) -> Option<&Component> {
        self.components.iter().find(|component| &*component.id == id)
    }

    /// Whether roots are tracked; if not, they are acked when emitted.
    pub fn tracking(&self) -> bool {
        self.tracking
    }

    /// By component: whether it says how far it is in event time, in the course of its work and not only at its end: it reads that
    /// off its tuples, or one before it does. Feedback edges carry no watermarks.
    pub fn has_watermarks(&self) -> Vec<bool> {
        let mut has: Vec<bool> = self.components.iter().map(|c| c.settings.event_time.makes()).collect();
        while let Some(next) = self.components.iter().enumerate().position(|(at, component)| {
            let mut inputs = component.inputs.iter().filter(|input| !input.feedback);
            !has[at] && inputs.any(|input| self.index(&input.component).is_some_and(|from| has[from]))
        }) {
            has[next] = true;
        }
        has
    }

    /// By component: whether it, or one behind it, works by watermarks or makes them, so that it is to be told when what comes before
    /// it ends.
    pub fn observes_watermarks(&self) -> Vec<bool> {
        let mut hears: Vec<bool> =
            self.components.iter().map(|c| c.settings.event_time != EventTimeUse::Passes).collect();
        while let Some(next) = (0..self.components.len()).find(|&at| {
            let id = &self.components[at].id;
            let mut behind = self.components.iter().enumerate().filter(|(_, component)| {
                component.inputs.iter().any(|input| !input.feedback && input.component == *id)
            });
            !hears[at] && behind.any(|(behind, _)| hears[behind])
        }) {
            hears[next] = true;
        }
        hears
    }

    /// The number of tasks of each component.
    pub fn tasks(&self) -> BTreeMap<Arc<str>, usize> {
        self.components.iter().map(|c| (c.id.clone(), c.settings.tasks())).collect()
    }

    fn index(&self, id: &str) -> Option<usize> {
        self.components.iter().position(|component| &*component.id == id)
    }

    /// Whether any component keeps state.
    pub fn keeps_state(&self) -> bool {
        self.components.iter().any(|component| component.settings.keeps_state)
    }

    /// Of a topology that keeps state: the spouts that do not say that their roots have stable ids
    /// ([`Spout::STABLE_IDS`](crate::Spout::STABLE_IDS)). What they deliver again after a crash counts again.
    pub fn at_least_once(&self) -> Vec<&str> {
        let without = |component: &&Component| component.factory.is_spout() && !component.settings.stable_ids;
        let spouts = self.components.iter().filter(without).map(|component| &*component.id);
        if self.keeps_state() { spouts.collect() } else { Vec::new() }
    }

    /// How long a root of this spout may take; `None` means for ever.
    pub fn message_timeout(&self, spout: &Component) -> Option<Duration> {
        spout.settings.message_timeout.unwrap_or(self.message_timeout)
    }
}

impl fmt::Debug for Topology {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.table())
    }
}
