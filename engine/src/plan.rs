//! Which tasks run together, and the addresses of all of them.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use galerna_topology::{Component, Grouping, TaskFactory, Threads, Topology};

use crate::executors::Executors;

/// One place a batch can be sent to: a subscription of one task of a bolt.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Target {
    pub(crate) worker: usize,
    /// The task within the worker.
    pub(crate) slot: usize,
    /// The subscription of the component.
    pub(crate) input: usize,
    pub(crate) component: usize,
    pub(crate) task: usize,
}

/// One task of a component.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TaskPlan {
    pub(crate) component: usize,
    pub(crate) task: usize,
}

/// Bolts' tasks that run as one.
#[derive(Debug)]
pub(crate) struct WorkerPlan {
    /// In the order of the flow.
    pub(crate) members: Vec<TaskPlan>,
    /// The component at the head of the flow.
    pub(crate) head: usize,
    /// The workers that may take what was sent to each other, this one among them: the first of them and how many.
    pub(crate) group: (usize, usize),
}

/// A route from an output of a component to a subscription.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Edge {
    pub(crate) output: usize,
    pub(crate) component: usize,
    pub(crate) input: usize,
}

/// The plan of a topology.
#[derive(Debug)]
pub(crate) struct Plan {
    /// Sorted so that closing them one after the other closes each after all that send to it.
    pub(crate) workers: Vec<WorkerPlan>,
    pub(crate) targets: Vec<Target>,
    /// By component and subscription, the address of task 0; the others follow.
    base: Vec<Vec<usize>>,
    /// By component: the one before it in the same task, if it is fused.
    pub(crate) fused_with: Vec<Option<usize>>,
    /// By component: the edges that leave it.
    pub(crate) edges: Vec<Vec<Edge>>,
    /// Spout tasks, numbered over the topology.
    pub(crate) spouts: Vec<TaskPlan>,
    /// By component: whether it says in the course of its work how far it is in event time.
    pub(crate) has_watermarks: Vec<bool>,
    /// By component: whether it is to be told that.
    pub(crate) observes_watermarks: Vec<bool>,
    /// Whether the barriers of checkpoints travel the edges.
    pub(crate) barriers: bool,
}

impl Plan {
    /// `barriers`: whether the barriers of checkpoints travel the edges.
    pub(crate) fn new(topology: &Topology, fuse: bool, barriers: bool) -> Self {
        let components = topology.components();
        let index: HashMap<&Arc<str>, usize> =
            components.iter().enumerate().map(|(at, component)| (&component.id, at)).collect();
        let order = flow_order(components, &index);
        let fused_with: Vec<Option<usize>> =
            components.iter().map(|c| if fuse { fused_with(c, components, &index) } else { None }).collect();

        let mut edges = vec![Vec::new(); components.len()];
        for (component, declared) in components.iter().enumerate() {
            for (input, subscribed) in declared.inputs.iter().enumerate() {
                let from = index[&subscribed.component];
                let output = components[from].outputs.iter().position(|o| *o.name == *subscribed.stream);
                edges[from].push(Edge { output: output.unwrap_or(0), component, input });
            }
        }

        let spouts = components.iter().enumerate().filter(|(_, c)| c.factory.is_spout());
        let spouts = spouts
            .flat_map(|(component, c)| (0..c.settings.tasks()).map(move |task| TaskPlan { component, task }))
            .collect();

        let (has_watermarks, observes_watermarks) =
            (topology.has_watermarks(), topology.observes_watermarks());
        let mut workers: Vec<WorkerPlan> = Vec::new();
        let mut place: HashMap<(usize, usize), (usize, usize)> = HashMap::new();
        for &head in &order {
            let declared = &components[head];
            if declared.factory.is_spout() || fused_with[head].is_some() {
                continue;
            }
            let computing = matches!(declared.factory, TaskFactory::Bolt(_));
            // Everything fused to it, directly or not, in the order of the flow.
            let mut group = vec![head];
            for &component in &order {
                if fused_with[component].is_some_and(|before| group.contains(&before)) {
                    group.push(component);
                }
            }
            let tasks = declared.settings.tasks();
            // A bolt that waits gets a task of tokio's for each of its own: they wait side by side anyway. So does one that computes,
            // where so many of them execute as it has executors; but for threads that stay on a core, as many of which are made.
            let pinned = computing && declared.settings.threads == Threads::Pinned;
            let executors = if pinned { declared.settings.parallelism } else { tasks };
            // Where any task may get any tuple, they may do so also later. Not so where watermarks or barriers come: each task is
            // told that it has all rows before them.
            let helps = !barriers
                && !observes_watermarks[head]
                && declared.inputs.iter().all(|input| is_even(input.grouping));
            let first = workers.len();
            for executor in 0..executors {
                let helpers = if helps { (first, executors) } else { (workers.len(), 1) };
                let mut members = Vec::new();
                for &component in &group {
                    // Contiguous runs of tasks, as even as can be.
                    for task in tasks * executor / executors..tasks * (executor + 1) / executors {
                        place.insert((component, task), (workers.len(), members.len()));
                        members.push(TaskPlan { component, task });
                    }
                }
                workers.push(WorkerPlan { members, head, group: helpers });
            }
        }

        let mut targets = Vec::new();
        let mut base = vec![Vec::new(); components.len()];
        for (component, declared) in components.iter().enumerate() {
            for input in 0..declared.inputs.len() {
                base[component].push(targets.len());
                for task in 0..declared.settings.tasks() {
                    let (worker, slot) = place[&(component, task)];
                    targets.push(Target { worker, slot, input, component, task });
                }
            }
        }
        Self {
            workers,
            targets,
            base,
            fused_with,
            edges,
            spouts,
            has_watermarks,
            observes_watermarks,
            barriers,
        }
    }

    /// The executors of each component, as they were declared.
    pub(crate) fn executors(&self, components: &[Component], now: Duration) -> Vec<Arc<Executors>> {
        let own = |(at, declared): (usize, &Component)| {
            let waits = matches!(declared.factory, TaskFactory::AsyncBolt(_));
            let executors = if waits { declared.settings.tasks() } else { declared.settings.parallelism };
            let workers = self.workers.iter().filter(|worker| worker.head == at).count();
            Executors::new(executors, workers, now)
        };
        let mut executors: Vec<_> = components.iter().enumerate().map(own).collect();
        for (at, fused) in self.fused_with.iter().enumerate() {
            let mut head = *fused;
            while let Some(before) = head {
                executors[at] = executors[before].clone();
                head = self.fused_with[before];
            }
        }
        executors
    }

    /// The address of the same subscription with a task of this worker.
    pub(crate) fn address(&self, target: Target, worker: usize) -> u32 {
        let mut members = self.workers[worker].members.iter();
        let task =
            members.find(|member| member.component == target.component).map_or(target.task, |m| m.task);
        (self.base[target.component][target.input] + task) as u32
    }

    /// The tasks of a component that send to a task of another.
    pub(crate) fn senders(&self, from: usize, tasks: usize, to: TaskPlan) -> std::ops::Range<usize> {
        if self.fused_with[to.component] == Some(from) { to.task..to.task + 1 } else { 0..tasks }
    }

    /// How many tasks send barriers to a task.
    pub(crate) fn barrier_senders(&self, topology: &Topology, to: TaskPlan) -> usize {
        let components = topology.components();
        let inputs = components[to.component].inputs.iter().filter(|input| !input.feedback);
        inputs
            .filter_map(|input| components.iter().position(|other| other.id == input.component))
            .map(|from| self.senders(from, components[from].settings.tasks(), to).len())
            .sum()
    }

    /// The addresses that a task sends to over this edge: the one beside it if the two are fused.
    pub(crate) fn addresses(&self, from: TaskPlan, edge: Edge, tasks: usize) -> Vec<u32> {
        let base = self.base[edge.component][edge.input];
        if self.fused_with[edge.component] == Some(from.component) {
            vec![(base + from.task) as u32]
        } else {
            (base..base + tasks).map(|address| address as u32).collect()
        }
    }
}

/// Components sorted so that each comes after all it subscribes to, feedback aside.
fn flow_order(components: &[Component], index: &HashMap<&Arc<str>, usize>) -> Vec<usize> {
    let mut order: Vec<usize> = Vec::with_capacity(components.len());
    let mut placed = vec![false; components.len()];
    while order.len() < components.len() {
        let before = order.len();
        for (at, component) in components.iter().enumerate() {
            let ready = component.inputs.iter().all(|i| i.feedback || placed[index[&i.component]]);
            if !placed[at] && ready {
                placed[at] = true;
                order.push(at);
            }
        }
        assert!(order.len() > before, "a built topology has no unmarked cycle");
    }
    order
}

/// The bolt that this one can share a task with: both compute, the hop is one-to-one, and sharing does not
/// undo a balance that shuffling would have brought.
fn fused_with(
    component: &Component,
    components: &[Component],
    index: &HashMap<&Arc<str>, usize>,
) -> Option<usize> {
    let [input] = &component.inputs[..] else { return None };
    let from = index[&input.component];
    let before = &components[from];
    let both_compute =
        matches!(component.factory, TaskFactory::Bolt(_)) && matches!(before.factory, TaskFactory::Bolt(_));
    let alike = component.settings.tasks() == before.settings.tasks()
        && component.settings.parallelism == before.settings.parallelism
        && component.settings.threads == before.settings.threads;
    if !both_compute || !alike || input.feedback || !component.settings.fuse {
        return None;
    }
    let one_to_one = match input.grouping {
        _ if component.settings.tasks() == 1 => input.grouping != Grouping::Custom,
        Grouping::LocalOrShuffle => true,
        // Its own input must be even, or the skew would be passed on.
        Grouping::Shuffle => before.inputs.iter().all(|input| is_even(input.grouping)),
        _ => false,
    };
    one_to_one.then_some(from)
}

fn is_even(grouping: Grouping) -> bool {
    matches!(grouping, Grouping::Shuffle | Grouping::LocalOrShuffle)
}
