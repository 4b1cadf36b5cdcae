//! Changing the executors of a component while it runs.

use std::sync::Arc;
use std::time::Duration;

use galerna_topology::{TaskFactory, Threads};

use crate::handle::TopologyHandle;

/// What a rebalance changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rebalanced {
    /// The component.
    pub component: Arc<str>,
    /// Components that run in the same tasks, and whose executors these are too.
    pub fused: Vec<Arc<str>>,
    /// Its executors before.
    pub from: usize,
    /// Its executors now.
    pub to: usize,
    /// How long it took until no more tasks than that executed: tasks that have to stop do so at the end of their turn, which is
    /// a millisecond, or the call that is under way. Nothing else waits meanwhile.
    pub pause: Duration,
}

/// Why executors were not changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RebalanceError {
    /// The topology has no such component.
    #[error("the topology has no component `{0}`")]
    Unknown(Arc<str>),
    /// Nothing would be executed any more.
    #[error("`{component}` cannot have 0 executors; deactivate the topology to have it pause")]
    None {
        /// The component.
        component: Arc<str>,
    },
    /// An executor without a task has nothing to do.
    #[error(
        "`{component}` has {tasks} tasks and cannot have {executors} executors; declare it with more `tasks`"
    )]
    TooMany {
        /// The component.
        component: Arc<str>,
        /// Its tasks, which are fixed when it is submitted.
        tasks: usize,
        /// What was asked for.
        executors: usize,
    },
    /// Its executors are fixed when it is submitted.
    #[error("the executors of `{component}` are fixed: {reason}")]
    Fixed {
        /// The component.
        component: Arc<str>,
        /// Why.
        reason: &'static str,
    },
}

impl TopologyHandle {
    /// Changes how many tasks of a bolt execute at the same time, from one to as many as it has
    /// ([`tasks`](galerna_topology::BoltDeclarer::tasks)). Tasks stay what they are: each key goes to the task it went to, in order,
    /// and finds its state there. Nothing is stopped for it. With a bolt go those that are fused to it.
    ///
    /// Dropping the future does not undo it.
    ///
    /// # Errors
    /// If there is no such component, it has fewer tasks, or its executors are fixed: those of spouts, of bolts that wait (all of
    /// their tasks wait side by side) and of pinned bolts are.
    pub async fn rebalance(&self, component: &str, executors: usize) -> Result<Rebalanced, RebalanceError> {
        let components = self.shared.topology.components();
        let at = components.iter().position(|c| &*c.id == component);
        let at = at
            .ok_or_else(|| RebalanceError::Unknown(component.chars().take(100).collect::<String>().into()))?;
        let declared = &components[at];
        let component = declared.id.clone();
        let reason = match (&declared.factory, declared.settings.threads) {
            (TaskFactory::AsyncBolt(_), _) => {
                Some("a bolt that waits does so with all of its tasks side by side")
            }
            (TaskFactory::Bolt(_), Threads::Pinned) => Some("each has a core of its own"),
            (TaskFactory::Bolt(_), _) => None,
            _ => Some("each task of a spout has one of its own"),
        };
        if let Some(reason) = reason {
            return Err(RebalanceError::Fixed { component, reason });
        }
        let tasks = declared.settings.tasks();
        if executors == 0 {
            return Err(RebalanceError::None { component });
        }
        if executors > tasks {
            return Err(RebalanceError::TooMany { component, tasks, executors });
        }
        let of = &self.shared.executors[at];
        let fused = (0..components.len())
            .filter(|other| *other != at && Arc::ptr_eq(&self.shared.executors[*other], of));
        let fused = fused.map(|other| components[other].id.clone()).collect();
        let from = of.count();
        let began = self.shared.clock.now();
        of.resize(executors, began);
        of.settled().await;
        let pause = self.shared.clock.now().saturating_sub(began);
        tracing::info!(component = &*component, from, to = executors, ?pause, "rebalanced");
        Ok(Rebalanced { component, fused, from, to: executors, pause })
    }
}
