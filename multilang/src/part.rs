//! Parts of a topology that run in processes of their own: which components they have, and what crosses their borders.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use galerna_topology::{Component, Input, Topology};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::checkpoints::ServeOptions;
use crate::edge::Edge;
use crate::host_ends::{Inboxes, Served, both};
use crate::serve::{ServeError, serve_bolt_with, serve_spout_with};

/// A part of a topology that can be a component of Storm's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// A spout.
    Spout(Arc<str>),
    /// A bolt.
    Bolt(Arc<str>),
    /// Several components.
    Stretch(Stretch),
}

/// All components on the ways from one to another, or behind it. Its windows and its state are in the process that runs it, and what
/// goes from one component to the next never leaves that.
///
/// Written `from..to`, or `from..` for all that is behind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stretch {
    /// Where it begins.
    pub from: Arc<str>,
    /// Where it ends; with the last components if nowhere else.
    pub to: Option<Arc<str>>,
}

impl fmt::Display for Stretch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}..{}", self.from, self.to.as_deref().unwrap_or_default())
    }
}

impl FromStr for Stretch {
    type Err = PartError;

    fn from_str(text: &str) -> Result<Self, PartError> {
        match text.split_once("..") {
            Some((from, to)) if !from.is_empty() => {
                let to = (!to.is_empty()).then(|| to.into());
                Ok(Self { from: from.into(), to })
            }
            _ => Err(PartError::NoStretch(text.to_owned())),
        }
    }
}

impl Part {
    /// The words that name it on a command line: `bolt split`, `stretch split..count`.
    pub fn words(&self) -> [String; 2] {
        match self {
            Self::Spout(id) => ["spout".to_owned(), id.to_string()],
            Self::Bolt(id) => ["bolt".to_owned(), id.to_string()],
            Self::Stretch(stretch) => ["stretch".to_owned(), stretch.to_string()],
        }
    }

    /// What it is called where it is one component.
    pub(crate) fn id(&self) -> Arc<str> {
        match self {
            Self::Spout(id) | Self::Bolt(id) => id.clone(),
            Self::Stretch(stretch) => stretch.to_string().into(),
        }
    }

    /// What an output of one of its components is called.
    pub(crate) fn stream_name(&self, component: &str, stream: &str) -> Arc<str> {
        match self {
            Self::Spout(_) | Self::Bolt(_) => stream.into(),
            Self::Stretch(_) => both(component, stream),
        }
    }

    /// Its components.
    pub(crate) fn of<'t>(&self, topology: &'t Topology) -> Result<PartOf<'t>, PartError> {
        let part = match self {
            Self::Spout(id) | Self::Bolt(id) => {
                let component = component(topology, id)?;
                let is_spout = component.factory.is_spout();
                if is_spout != matches!(self, Self::Spout(_)) {
                    let kind = if is_spout { "spout" } else { "bolt" };
                    return Err(PartError::OtherKind { component: id.clone(), kind });
                }
                PartOf { topology, components: vec![component] }
            }
            Self::Stretch(Stretch { from, to }) => {
                let from = component(topology, from)?;
                let mut within = behind(topology, &from.id);
                if let Some(to) = to {
                    let to = component(topology, to)?;
                    let before = before(topology, &to.id);
                    within.retain(|id| before.contains(id));
                    if within.is_empty() {
                        return Err(PartError::NoWay { from: from.id.clone(), to: to.id.clone() });
                    }
                }
                let components = topology.components().iter().filter(|c| within.contains(&c.id)).collect();
                PartOf { topology, components }
            }
        };
        if part.has_spout() && part.entries().next().is_some() {
            return Err(PartError::SpoutWithin { part: self.id() });
        }
        Ok(part)
    }
}

/// The components of a part.
pub(crate) struct PartOf<'t> {
    topology: &'t Topology,
    pub(crate) components: Vec<&'t Component>,
}

impl<'t> PartOf<'t> {
    pub(crate) fn has(&self, id: &str) -> bool {
        self.components.iter().any(|component| &*component.id == id)
    }

    pub(crate) fn has_spout(&self) -> bool {
        self.components.iter().any(|component| component.factory.is_spout())
    }

    /// Subscriptions to what is outside.
    pub(crate) fn entries(&self) -> impl Iterator<Item = (&'t Component, &'t Input)> {
        self.components.iter().flat_map(|component| {
            let outside = component.inputs.iter().filter(|input| !self.has(&input.component));
            outside.map(|input| (*component, input))
        })
    }

    /// Subscriptions from outside, one of each stream.
    pub(crate) fn exits(&self) -> Vec<(&'t Component, &'t Input)> {
        let mut exits: Vec<(&Component, &Input)> = Vec::new();
        for component in self.topology.components().iter().filter(|component| !self.has(&component.id)) {
            for input in component.inputs.iter().filter(|input| self.has(&input.component)) {
                let known = |(_, exit): &(&Component, &Input)| {
                    exit.component == input.component && exit.stream == input.stream
                };
                if !exits.iter().any(known) {
                    exits.push((component, input));
                }
            }
        }
        exits
    }

    /// Subscriptions of its components to each other.
    pub(crate) fn inner(&self) -> impl Iterator<Item = &'t Input> {
        let inputs = self.components.iter().flat_map(|component| &component.inputs);
        inputs.filter(|input| self.has(&input.component))
    }

    /// Declares it between the host's streams. One task of each component: the host has as many children as there are to be tasks.
    fn declare(
        &self,
        part: &Part,
        served: &mut Served,
        mut inboxes: Option<&mut Inboxes>,
    ) -> Result<(), PartError> {
        let mut received: Vec<(&Input, Arc<str>, Arc<str>)> = Vec::new();
        for (component, input) in self.entries() {
            let known = |(known, _, _): &(&Input, Arc<str>, Arc<str>)| {
                known.component == input.component && known.stream == input.stream
            };
            if let Some(inboxes) = inboxes.as_deref_mut()
                && !received.iter().any(known)
            {
                let edge = edge(component, input)?;
                let (id, output) = edge.receive(served, inboxes, &input.component, &input.stream);
                received.push((input, id, output));
            }
        }
        for component in &self.components {
            let mut component = Component::clone(component);
            (component.settings.parallelism, component.settings.tasks) = (1, None);
            for input in &mut component.inputs {
                let from = received
                    .iter()
                    .find(|(known, _, _)| known.component == input.component && known.stream == input.stream);
                if let Some((_, id, output)) = from {
                    (input.component, input.stream) = (id.clone(), output.clone());
                }
            }
            if component.factory.is_spout() {
                // It is the host who waits for its roots.
                component.settings.message_timeout = None;
            }
            served.topology.component(component);
        }
        for (subscriber, input) in self.exits() {
            let name = part.stream_name(&input.component, &input.stream);
            edge(subscriber, input)?.send(served, &input.component, &input.stream, &name);
        }
        Ok(())
    }
}

/// A component and all that tuples go to from it. Feedback edges lead back, and so not on.
fn behind(topology: &Topology, id: &Arc<str>) -> BTreeSet<Arc<str>> {
    let mut found = BTreeSet::from([id.clone()]);
    while let Some(next) = topology.components().iter().find(|component| {
        let mut inputs = component.inputs.iter().filter(|input| !input.feedback);
        !found.contains(&component.id) && inputs.any(|input| found.contains(&input.component))
    }) {
        found.insert(next.id.clone());
    }
    found
}

/// A component and all that tuples come to it from.
fn before(topology: &Topology, id: &Arc<str>) -> BTreeSet<Arc<str>> {
    let mut found = BTreeSet::from([id.clone()]);
    let mut waiting = vec![id.clone()];
    while let Some(id) = waiting.pop() {
        let inputs = topology.component(&id).into_iter().flat_map(|component| &component.inputs);
        for input in inputs.filter(|input| !input.feedback) {
            if found.insert(input.component.clone()) {
                waiting.push(input.component.clone());
            }
        }
    }
    found
}

/// The form of a subscription.
pub(crate) fn edge<'t>(subscriber: &Component, input: &'t Input) -> Result<&'t Edge, PartError> {
    let edge = input.form.as_ref().and_then(Edge::from_form);
    edge.ok_or_else(|| PartError::NoForm {
        component: input.component.clone(),
        stream: input.stream.clone(),
        subscriber: subscriber.id.clone(),
    })
}

fn component<'t>(topology: &'t Topology, id: &str) -> Result<&'t Component, PartError> {
    topology.component(id).ok_or_else(|| PartError::NoComponent {
        component: id.into(),
        topology: topology.name().clone(),
        known: topology.components().iter().map(|c| &*c.id).collect::<Vec<_>>().join(", "),
    })
}

/// Why a part of a topology cannot run in a process of its own.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PartError {
    /// There is no such component.
    #[error("the topology {topology} has no component `{component}`; it has {known}")]
    NoComponent {
        /// The name that was given.
        component: Arc<str>,
        /// The topology.
        topology: Arc<str>,
        /// Those that there are.
        known: String,
    },
    /// It is a spout and was called a bolt, or the other way round.
    #[error("`{component}` is a {kind}: serve it with `multilang {kind} {component}`")]
    OtherKind {
        /// The component.
        component: Arc<str>,
        /// What it is.
        kind: &'static str,
    },
    /// A text is no stretch.
    #[error(
        "`{0}` is no stretch of a topology: write `from..to` with two components, or `from..` for all behind one"
    )]
    NoStretch(String),
    /// The one is not behind the other.
    #[error("no way leads from `{from}` to `{to}`; a stretch goes the way that tuples go")]
    NoWay {
        /// Where it was to begin.
        from: Arc<str>,
        /// Where it was to end.
        to: Arc<str>,
    },
    /// It has spouts, and takes tuples of others.
    #[error(
        "the stretch {part} has a spout and bolts that subscribe to components outside of it, and Storm has no such component: begin \
         it behind the spout, or take in all that its bolts subscribe to"
    )]
    SpoutWithin {
        /// The part.
        part: Arc<str>,
    },
    /// A stream would leave the process, and its tuples have no form there.
    #[error(
        "`{subscriber}` subscribes to {component}.{stream}, whose tuples have no form outside of the process: subscribe with \
         `.serialized()` of the stream (its type derives `Serialize` and `Deserialize`), or serve both in one stretch"
    )]
    NoForm {
        /// The component that emits it.
        component: Arc<str>,
        /// The output.
        stream: Arc<str>,
        /// Who subscribes.
        subscriber: Arc<str>,
    },
}

/// Serves a part of a topology to the host at the other end of these pipes, until the host goes: a spout, or a stretch that begins
/// with one, as a spout, and anything else as a bolt. What it subscribes to and what others subscribe to of it goes through the pipes;
/// these subscriptions have a form by [`serialized`](crate::SerializedStream::serialized).
///
/// Of each component there is one task: a host runs as many children as there are to be.
///
/// # Errors
/// There is no such part, it cannot be served, or as of [`serve_bolt`](crate::serve_bolt).
pub async fn serve(
    topology: &Topology,
    part: &Part,
    options: &ServeOptions,
    input: impl AsyncRead + Unpin + Send,
    output: impl AsyncWrite + Unpin + Send + 'static,
) -> Result<(), ServeError> {
    let components = part.of(topology)?;
    if components.has_spout() {
        return serve_spout_with(input, output, options, |served| components.declare(part, served, None))
            .await;
    }
    serve_bolt_with(input, output, options, |served, inboxes| components.declare(part, served, Some(inboxes)))
        .await
}
