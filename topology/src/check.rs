//! The checks made when a topology is built.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use crate::component::Component;
use crate::grouping::Grouping;
use crate::topology::Topology;

/// What is wrong with a declared topology, in which component, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// Nothing would ever be emitted.
    #[error("topology `{topology}` has no spout: declare one with `TopologyBuilder::spout`")]
    NoSpout {
        /// The topology.
        topology: Arc<str>,
    },
    /// Two components with one id.
    #[error("component id `{component}` is declared twice: give each component its own id")]
    DuplicateId {
        /// The id.
        component: Arc<str>,
    },
    /// An id that cannot be printed or referred to.
    #[error("component id `{component}` is not usable: use letters, digits, `-`, `_` and `.`, at least one")]
    BadId {
        /// The id.
        component: Arc<str>,
    },
    /// No executors.
    #[error("component `{component}` has parallelism 0: give it at least 1 executor")]
    NoExecutors {
        /// The component.
        component: Arc<str>,
    },
    /// Fewer tasks than executors.
    #[error(
        "component `{component}` has {tasks} tasks for {executors} executors: set `tasks` to at least \
         {executors}, or lower `parallelism`"
    )]
    TooFewTasks {
        /// The component.
        component: Arc<str>,
        /// Its tasks.
        tasks: usize,
        /// Its executors.
        executors: usize,
    },
    /// More spout tasks than a root id can name.
    #[error("the spouts have {tasks} tasks in all: lower their `tasks` to at most 65,536 together")]
    TooManySpoutTasks {
        /// All spout tasks.
        tasks: usize,
    },
    /// A setting of 0 where at least 1 is needed.
    #[error("component `{component}` has `{setting}` 0: set it to at least 1")]
    ZeroSetting {
        /// The component.
        component: Arc<str>,
        /// The setting.
        setting: &'static str,
    },
    /// A bolt without subscriptions.
    #[error("bolt `{component}` has no input: subscribe it to a stream, for example with `shuffle`")]
    NoInput {
        /// The bolt.
        component: Arc<str>,
    },
    /// A subscription to a component that does not exist.
    #[error(
        "bolt `{component}` subscribes to component `{missing}`, which is not declared: declare it, or \
         correct the id (declared: {declared})"
    )]
    UnknownComponent {
        /// The subscriber.
        component: Arc<str>,
        /// What it subscribes to.
        missing: Arc<str>,
        /// The ids there are.
        declared: String,
    },
    /// A subscription to an output that does not exist.
    #[error(
        "bolt `{component}` subscribes to output `{stream}` of `{source_component}`, which has no such \
         output: use one of its outputs ({declared})"
    )]
    UnknownStream {
        /// The subscriber.
        component: Arc<str>,
        /// The component it subscribes to.
        source_component: Arc<str>,
        /// The output that is missing.
        stream: Arc<str>,
        /// The outputs there are.
        declared: String,
    },
    /// A subscription by name with another type than the output's.
    #[error(
        "bolt `{component}` takes output `{stream}` of `{source_component}` for a stream of `{taken}`, but \
         it carries `{carried}`: name that type in `Stream::named`"
    )]
    WrongType {
        /// The subscriber.
        component: Arc<str>,
        /// The component it subscribes to.
        source_component: Arc<str>,
        /// The output.
        stream: Arc<str>,
        /// The type in the subscription.
        taken: &'static str,
        /// The type of the output.
        carried: &'static str,
    },
    /// The topology's own message timeout is 0.
    #[error(
        "topology `{topology}` has a message timeout of 0, by which every root would fail at once: set it to more, or to `None` \
         to switch timeouts off"
    )]
    ZeroTimeout {
        /// The topology.
        topology: Arc<str>,
    },
    /// A bolt keeps more tuples than can be pending.
    #[error(
        "bolt `{component}` holds {holds} tuples in {tasks} tasks, but spout `{spout}` has at most {pending} roots pending, so they \
         would never come: raise `max_pending` of `{spout}` to at least {needed} a task, or have `{component}` hold fewer"
    )]
    HoldsTooMany {
        /// The bolt.
        component: Arc<str>,
        /// How many tuples a task of it holds.
        holds: usize,
        /// Its tasks.
        tasks: usize,
        /// The spout whose tuples reach it.
        spout: Arc<str>,
        /// The roots that this spout may have pending in all.
        pending: usize,
        /// What the pending limit of the spout would have to be.
        needed: usize,
    },
    /// A bolt keeps tuples for longer than their roots may take.
    #[error(
        "bolt `{component}` holds tuples for {holds:?}, but roots of spout `{spout}` time out after {timeout:?}: raise the message \
         timeout above that, switch it off, or have `{component}` hold them for less"
    )]
    HoldsTooLong {
        /// The bolt.
        component: Arc<str>,
        /// For how long it holds a tuple.
        holds: Duration,
        /// The spout whose tuples reach it.
        spout: Arc<str>,
        /// The message timeout of that spout.
        timeout: Duration,
    },
    /// A bolt that works by event time gets no watermarks.
    #[error(
        "bolt `{component}` works by event time, but nothing before it says how far that is: give it a `lag`, or put an `EventTime` \
         bolt behind the source"
    )]
    NoWatermarks {
        /// The bolt.
        component: Arc<str>,
    },
    /// A bolt that keeps state is not given its tuples by key.
    #[error(
        "bolt `{component}` keeps state by key, but takes `{source_component}` by {grouping} grouping, so that a tuple may come to a \
         task that does not have its key: subscribe with `keyed_by`, or with `all` to what every task is to see"
    )]
    NotByKey {
        /// The bolt.
        component: Arc<str>,
        /// The component it subscribes to.
        source_component: Arc<str>,
        /// How.
        grouping: Grouping,
    },
    /// A bolt that keeps state has more tasks than there are key groups.
    #[error(
        "bolt `{component}` keeps state in {tasks} tasks, but keys fall into 4,096 groups, each of which one task has: give it at \
         most 4,096 tasks"
    )]
    TooManyStateTasks {
        /// The bolt.
        component: Arc<str>,
        /// Its tasks.
        tasks: usize,
    },
    /// What was declared cannot be run.
    #[error("component `{component}` cannot be run: {reason}")]
    Refused {
        /// The component.
        component: Arc<str>,
        /// What is wrong and what to do.
        reason: Arc<str>,
    },
    /// A cycle in which no subscription is marked.
    #[error(
        "the cycle {path} has no feedback edge: mark the subscription that closes it with \
         `Stream::feedback`, here that of `{component}`"
    )]
    UnmarkedCycle {
        /// The bolt whose subscription closes the cycle.
        component: Arc<str>,
        /// The components on the way round.
        path: String,
    },
}

fn list<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let names: Vec<String> = names.map(|name| format!("`{name}`")).collect();
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

pub(crate) fn check(topology: &Topology) -> Result<(), BuildError> {
    let mut seen = HashSet::new();
    for component in &topology.components {
        check_id(component)?;
        if !seen.insert(&component.id) {
            return Err(BuildError::DuplicateId { component: component.id.clone() });
        }
        check_settings(component)?;
    }
    if !topology.components.iter().any(|component| component.factory.is_spout()) {
        return Err(BuildError::NoSpout { topology: topology.name.clone() });
    }
    let spouts = topology.components.iter().filter(|component| component.factory.is_spout());
    let tasks: usize = spouts.map(|spout| spout.settings.tasks()).sum();
    if tasks > usize::from(u16::MAX) + 1 {
        return Err(BuildError::TooManySpoutTasks { tasks });
    }
    if topology.message_timeout.is_some_and(|timeout| timeout.is_zero()) {
        return Err(BuildError::ZeroTimeout { topology: topology.name.clone() });
    }
    for component in &topology.components {
        check_inputs(topology, component)?;
    }
    check_cycles(topology)?;
    let has_watermarks = topology.has_watermarks();
    for (component, has_watermarks) in topology.components.iter().zip(has_watermarks) {
        if component.settings.event_time.needs() && !has_watermarks {
            return Err(BuildError::NoWatermarks { component: component.id.clone() });
        }
    }
    topology.components.iter().try_for_each(check_state)?;
    topology.components.iter().try_for_each(|component| check_holds(topology, component))
}

/// A tuple must come to the task that has its key.
fn check_state(component: &Component) -> Result<(), BuildError> {
    if !component.settings.keeps_state {
        return Ok(());
    }
    let tasks = component.settings.tasks();
    if tasks > crate::KEY_GROUPS {
        return Err(BuildError::TooManyStateTasks { component: component.id.clone(), tasks });
    }
    let by_key = |grouping| matches!(grouping, Grouping::KeyGroup | Grouping::All);
    match component.inputs.iter().find(|input| !by_key(input.grouping)) {
        Some(input) => Err(BuildError::NotByKey {
            component: component.id.clone(),
            source_component: input.component.clone(),
            grouping: input.grouping,
        }),
        None => Ok(()),
    }
}

/// What a bolt keeps must be able to come, and to stay.
fn check_holds(topology: &Topology, bolt: &Component) -> Result<(), BuildError> {
    let settings = &bolt.settings;
    if !topology.tracking || (settings.holds.is_none() && settings.holds_for.is_none()) {
        return Ok(());
    }
    let mut upstream: Vec<&Component> = vec![bolt];
    let mut at = 0;
    while let Some(component) = upstream.get(at).copied() {
        at += 1;
        for input in &component.inputs {
            if let Some(source) = topology.component(&input.component)
                && !upstream.iter().any(|known| known.id == source.id)
            {
                upstream.push(source);
            }
        }
    }
    for spout in upstream.into_iter().filter(|component| component.factory.is_spout()) {
        let pending = spout.settings.max_pending.saturating_mul(spout.settings.tasks());
        if let Some(holds) = settings.holds.filter(|holds| holds.saturating_mul(settings.tasks()) > pending) {
            let (tasks, needed) = (settings.tasks(), holds.saturating_mul(settings.tasks()));
            return Err(BuildError::HoldsTooMany {
                component: bolt.id.clone(),
                holds,
                tasks,
                spout: spout.id.clone(),
                pending,
                needed: needed.div_ceil(spout.settings.tasks()),
            });
        }
        if let (Some(holds), Some(timeout)) = (settings.holds_for, topology.message_timeout(spout))
            && holds >= timeout
        {
            return Err(BuildError::HoldsTooLong {
                component: bolt.id.clone(),
                holds,
                spout: spout.id.clone(),
                timeout,
            });
        }
    }
    Ok(())
}

fn check_id(component: &Component) -> Result<(), BuildError> {
    let fine = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_' | '.');
    if component.id.is_empty() || !component.id.chars().all(fine) {
        return Err(BuildError::BadId { component: component.id.clone() });
    }
    Ok(())
}

fn check_settings(component: &Component) -> Result<(), BuildError> {
    let (settings, id) = (&component.settings, &component.id);
    if let Some(reason) = &settings.refused {
        return Err(BuildError::Refused { component: id.clone(), reason: reason.clone() });
    }
    if settings.parallelism == 0 {
        return Err(BuildError::NoExecutors { component: id.clone() });
    }
    let zero = [
        (settings.tasks == Some(0), "tasks"),
        (settings.max_pending == 0, "max_pending"),
        (settings.batch == 0, "batch"),
        (settings.queue == 0, "queue"),
        (settings.tick.is_some_and(|tick| tick.is_zero()), "tick_every"),
        (settings.message_timeout.flatten().is_some_and(|timeout| timeout.is_zero()), "message_timeout"),
    ];
    if let Some((_, setting)) = zero.into_iter().find(|(wrong, _)| *wrong) {
        return Err(BuildError::ZeroSetting { component: id.clone(), setting });
    }
    if settings.tasks() < settings.parallelism {
        return Err(BuildError::TooFewTasks {
            component: id.clone(),
            tasks: settings.tasks(),
            executors: settings.parallelism,
        });
    }
    Ok(())
}

fn check_inputs(topology: &Topology, component: &Component) -> Result<(), BuildError> {
    if !component.factory.is_spout() && component.inputs.is_empty() {
        return Err(BuildError::NoInput { component: component.id.clone() });
    }
    for input in &component.inputs {
        let Some(source) = topology.component(&input.component) else {
            return Err(BuildError::UnknownComponent {
                component: component.id.clone(),
                missing: input.component.clone(),
                declared: list(topology.components.iter().map(|c| &*c.id)),
            });
        };
        let Some(stream) = source.outputs.iter().find(|stream| *stream.name == *input.stream) else {
            return Err(BuildError::UnknownStream {
                component: component.id.clone(),
                source_component: source.id.clone(),
                stream: input.stream.clone(),
                declared: list(source.outputs.iter().map(|stream| stream.name)),
            });
        };
        if stream.type_id != input.type_id {
            return Err(BuildError::WrongType {
                component: component.id.clone(),
                source_component: source.id.clone(),
                stream: input.stream.clone(),
                taken: input.type_name,
                carried: stream.type_name,
            });
        }
    }
    Ok(())
}

/// Depth-first over the edges that are not marked; an edge back to a component on the path is a cycle.
fn check_cycles(topology: &Topology) -> Result<(), BuildError> {
    let mut downstream: HashMap<&str, Vec<&str>> = HashMap::new();
    for component in &topology.components {
        for input in component.inputs.iter().filter(|input| !input.feedback) {
            downstream.entry(&input.component).or_default().push(&component.id);
        }
    }
    let mut done = HashSet::new();
    for component in &topology.components {
        // The path, and for each component on it how many of its edges have been followed.
        let mut path: Vec<(&str, usize)> = vec![(&component.id, 0)];
        while let Some((id, followed)) = path.last_mut() {
            let id = *id;
            let next = downstream.get(id).and_then(|all| all.get(*followed)).copied();
            *followed += 1;
            match next {
                None => {
                    done.insert(id);
                    path.pop();
                }
                Some(next) if done.contains(next) => {}
                Some(next) => {
                    if let Some(start) = path.iter().position(|(on_path, _)| *on_path == next) {
                        let round = path[start..].iter().map(|(id, _)| *id).chain([next]);
                        let path = round.collect::<Vec<_>>().join(" -> ");
                        return Err(BuildError::UnmarkedCycle { component: next.into(), path });
                    }
                    path.push((next, 0));
                }
            }
        }
    }
    Ok(())
}
