//! Spouts and bolts as they are declared.

use std::sync::Arc;
use std::time::Duration;

use crate::input::Input;
use crate::runtime::{AsyncBoltTask, BoltTask, SpoutTask, TaskSetup};
use crate::stream::StreamSpec;

/// How the tasks of a component are made.
#[derive(Clone)]
pub enum TaskFactory {
    /// A spout.
    Spout(Arc<dyn Fn(TaskSetup) -> Box<dyn SpoutTask> + Send + Sync>),
    /// A bolt that computes.
    Bolt(Arc<dyn Fn(TaskSetup) -> Box<dyn BoltTask> + Send + Sync>),
    /// A bolt that waits.
    AsyncBolt(Arc<dyn Fn(TaskSetup) -> Box<dyn AsyncBoltTask> + Send + Sync>),
}

impl TaskFactory {
    /// `spout`, `bolt` or `async bolt`.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Spout(_) => "spout",
            Self::Bolt(_) => "bolt",
            Self::AsyncBolt(_) => "async bolt",
        }
    }

    /// Whether it is a spout.
    pub const fn is_spout(&self) -> bool {
        matches!(self, Self::Spout(_))
    }
}

/// What a component is told about itself when it runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ComponentSettings {
    /// Executors: how many of its tasks can run at the same time.
    pub parallelism: usize,
    /// Instances. As many as executors unless set.
    pub tasks: Option<usize>,
    /// For a spout: pending roots per task at which it stops emitting. 32,768 unless set.
    pub max_pending: usize,
    /// For a bolt: how often `tick` is called, if at all.
    pub tick: Option<Duration>,
    /// For a spout: how long a root may take. The topology's timeout unless set.
    pub message_timeout: Option<Option<Duration>>,
    /// The largest batch it sends, in tuples. The engine adapts between 1 and this. 512 unless set.
    pub batch: usize,
    /// For a bolt: batches that may wait for one of its executors. 16 unless set.
    pub queue: usize,
    /// For a bolt that computes: whether it may share a task with the bolt before it. Yes unless set.
    pub fuse: bool,
    /// For a bolt: the threads that its executors run on. Those of the runtime unless set.
    pub threads: Threads,
    /// For a bolt: how many tuples each of its tasks may keep unsettled until more come, if it says.
    pub holds: Option<usize>,
    /// For a bolt: how long it may keep a tuple unsettled, if it says.
    pub holds_for: Option<Duration>,
    /// For a bolt: what watermarks are to it.
    pub event_time: EventTimeUse,
    /// For a spout: whether it says that its roots have stable ids.
    pub stable_ids: bool,
    /// For a bolt: whether each of its tasks has keyed state.
    pub keeps_state: bool,
    /// Why it cannot be run, if it cannot.
    pub refused: Option<Arc<str>>,
}

/// What watermarks are to a bolt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum EventTimeUse {
    /// It passes them on, if they come.
    #[default]
    Passes,
    /// It works without them, and is to be told when its inputs have ended.
    Ends,
    /// It works by them.
    Needs,
    /// It reads off its tuples how far those that send them have come, and passes that on.
    Makes,
    /// It does that, and works by it.
    MakesAndNeeds,
}

impl EventTimeUse {
    /// Whether it reads watermarks off its tuples.
    pub const fn makes(self) -> bool {
        matches!(self, Self::Makes | Self::MakesAndNeeds)
    }

    /// Whether it works by watermarks.
    pub const fn needs(self) -> bool {
        matches!(self, Self::Needs | Self::MakesAndNeeds)
    }
}

/// The threads that the executors of a bolt run on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Threads {
    /// Those of the runtime, which all tasks share.
    #[default]
    Shared,
    /// Each executor has a thread of its own.
    Own,
    /// Each executor has a thread of its own that stays on one core, as far as the system lets it.
    Pinned,
}

impl Default for ComponentSettings {
    fn default() -> Self {
        Self {
            parallelism: 1,
            tasks: None,
            max_pending: 32_768,
            tick: None,
            message_timeout: None,
            batch: 512,
            queue: 16,
            fuse: true,
            threads: Threads::Shared,
            holds: None,
            holds_for: None,
            event_time: EventTimeUse::default(),
            stable_ids: false,
            keeps_state: false,
            refused: None,
        }
    }
}

impl ComponentSettings {
    /// How many instances there are.
    pub fn tasks(&self) -> usize {
        self.tasks.unwrap_or(self.parallelism)
    }
}

/// A declared spout or bolt.
#[derive(Clone)]
pub struct Component {
    /// Its id.
    pub id: Arc<str>,
    /// How its tasks are made.
    pub factory: TaskFactory,
    /// The name of its Rust type, for printing.
    pub type_name: &'static str,
    /// Its subscriptions.
    pub inputs: Vec<Input>,
    /// Its outputs.
    pub outputs: Vec<StreamSpec>,
    /// Its settings.
    pub settings: ComponentSettings,
}
