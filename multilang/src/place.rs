//! Where a component stands in its topology, as a child is told.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use galerna_topology::{Destination, Grouping, TaskContext};
use serde_json::{Map, Value, json};

use crate::form::Fields;
use crate::frame::Frames;
use crate::message::Handshake;
use crate::outputs::Forms;

/// A subscription of a component in another language.
#[derive(Debug, Clone)]
pub(crate) struct WiredInput {
    pub(crate) component: Arc<str>,
    pub(crate) stream: Arc<str>,
    pub(crate) grouping: Grouping,
    pub(crate) fields: Fields,
}

/// The subscriptions of a component, filled while it is declared.
#[derive(Debug, Clone, Default)]
pub(crate) struct Wiring {
    inputs: Arc<Mutex<Vec<WiredInput>>>,
}

impl Wiring {
    pub(crate) fn add(&self, input: WiredInput) {
        self.inputs.lock().unwrap_or_else(PoisonError::into_inner).push(input);
    }

    pub(crate) fn inputs(&self) -> Vec<WiredInput> {
        self.inputs.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The numbers that the tasks of a topology have outside: from 1, component by component, sorted by id.
#[derive(Debug, Clone, Default)]
pub(crate) struct TaskNumbers {
    first: BTreeMap<Arc<str>, (i64, usize)>,
}

impl TaskNumbers {
    pub(crate) fn of(context: &TaskContext) -> Self {
        let mut next = 1;
        let mut first = BTreeMap::new();
        for (component, tasks) in context.components() {
            first.insert(component.clone(), (next, tasks));
            next += tasks as i64;
        }
        Self { first }
    }

    /// The number of a task; -1 if there is no such component.
    pub(crate) fn number(&self, component: &str, task: usize) -> i64 {
        self.first.get(component).map_or(-1, |(first, _)| first + task as i64)
    }

    pub(crate) fn numbers(&self, destinations: &[Destination]) -> Vec<i64> {
        destinations.iter().map(|to| self.number(&to.component, to.task)).collect()
    }

    /// The index of a task within its component, by its number.
    pub(crate) fn index(&self, number: i64) -> Option<usize> {
        self.first.values().find_map(|(first, tasks)| {
            let index = usize::try_from(number - first).ok()?;
            (index < *tasks).then_some(index)
        })
    }

    fn components(&self) -> Map<String, Value> {
        let tasks = self.first.iter().flat_map(|(component, (first, tasks))| {
            (0..*tasks as i64).map(move |task| ((first + task).to_string(), Value::from(component.as_ref())))
        });
        tasks.collect()
    }
}

/// The name of a grouping in the protocol.
fn grouping_name(grouping: Grouping) -> &'static str {
    match grouping {
        Grouping::Shuffle => "SHUFFLE",
        Grouping::Fields | Grouping::KeyGroup => "FIELDS",
        Grouping::PartialKey => "PARTIAL_KEY",
        Grouping::All => "ALL",
        Grouping::Global => "GLOBAL",
        Grouping::LocalOrShuffle => "LOCAL_OR_SHUFFLE",
        Grouping::Direct => "DIRECT",
        Grouping::Custom => "CUSTOM_SERIALIZED",
    }
}

/// What a child is told first; the folder for process ids is added when it starts.
pub(crate) fn handshake(
    at: &TaskContext,
    numbers: &TaskNumbers,
    inputs: &[WiredInput],
    outputs: &Forms,
    settings: &Map<String, Value>,
) -> Handshake {
    let mut sources = Map::new();
    let mut groupings = Map::new();
    for input in inputs {
        for (map, value) in [
            (&mut sources, input.fields.names().iter().map(|name| &**name).collect::<Value>()),
            (&mut groupings, json!({ "type": grouping_name(input.grouping) })),
        ] {
            let streams = map.entry(&*input.component).or_insert_with(|| json!({}));
            if let Value::Object(streams) = streams {
                streams.insert(input.stream.to_string(), value);
            }
        }
    }
    let fields: Map<String, Value> = outputs
        .iter()
        .map(|(name, fields)| {
            ((*name).to_owned(), fields.names().iter().map(|name| &**name).collect::<Value>())
        })
        .collect();
    let streams: Vec<&str> = outputs.iter().map(|(name, _)| *name).collect();
    let place = json!({
        "taskid": numbers.number(at.component(), at.task()),
        "componentid": at.component(),
        "task->component": numbers.components(),
        "streams": streams,
        "stream->outputfields": fields,
        "stream->target->grouping": {},
        "source->stream->fields": sources,
        "source->stream->grouping": groupings,
    });
    let mut conf = Map::new();
    conf.insert("topology.name".to_owned(), at.topology().into());
    conf.insert("topology.debug".to_owned(), false.into());
    // What the answer may ask for.
    let frames: Vec<&str> = Frames::ALL.into_iter().map(Frames::name).collect();
    conf.insert("galerna.frames".to_owned(), json!(frames));
    conf.extend(settings.clone());
    let context = match place {
        Value::Object(place) => place,
        _ => Map::new(),
    };
    Handshake { pid_dir: String::new(), conf, context }
}
