//! A topology as a Flux file, by which a Storm cluster runs it: each part is a component that is a child process.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use galerna_topology::{Grouping, Input, Topology};
use serde_json::{Value, json};

use crate::edge::Edge;
use crate::form::Fields;
use crate::frame::Frames;
use crate::message::DEFAULT_STREAM;
use crate::part::{Part, PartError, PartOf, Stretch, edge};

/// The class of `deploy/storm/` by which a Storm worker and its children exchange MessagePack.
const SERIALIZER: &str = "galerna.storm.MessagePackSerializer";

/// How a topology is to run on Storm.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FluxOptions {
    /// The words that start, on a worker, the program that has the topology; `multilang bolt split` and the like follow. Unless set
    /// they are `sh galerna.sh`, as the jar of `deploy/storm/` has it.
    pub command: Vec<String>,
    /// The words that follow these: `--topology words` for a program with several topologies.
    pub arguments: Vec<String>,
    /// What is to run as one component. All else is one by one.
    pub stretches: Vec<Stretch>,
    /// How many workers there are to be. 1 unless set.
    pub workers: usize,
    /// How workers and children talk. JSON unless set; MessagePack takes the class that the jar of `deploy/storm/` has.
    pub frames: Frames,
}

impl Default for FluxOptions {
    fn default() -> Self {
        let command = ["sh", "galerna.sh"].map(str::to_owned).to_vec();
        Self { command, arguments: Vec::new(), stretches: Vec::new(), workers: 1, frames: Frames::Json }
    }
}

/// Why a topology cannot be written as a Flux file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FluxError {
    /// A part cannot run in a process of its own.
    #[error(transparent)]
    Part(#[from] PartError),
    /// Two stretches have the same component.
    #[error("`{component}` is in the stretches {first} and {second}; a component is in one")]
    Overlap {
        /// The component.
        component: Arc<str>,
        /// The one.
        first: Stretch,
        /// The other.
        second: Stretch,
    },
    /// A subscription by fields does not say by which.
    #[error(
        "`{subscriber}` subscribes to {component}.{stream} by a key, and Storm knows keys by the names of fields: say which they are, \
         `.serialized().keyed_by([\"{field}\"])`, or serve both in one stretch"
    )]
    NoKey {
        /// The component that emits it.
        component: Arc<str>,
        /// The output.
        stream: Arc<str>,
        /// Who subscribes.
        subscriber: Arc<str>,
        /// One of the stream's fields.
        field: Arc<str>,
    },
    /// A key is made of a field that there is not.
    #[error(
        "`{subscriber}` is keyed by the field `{key}` of {component}.{stream}, which has the fields {known}"
    )]
    NoField {
        /// The component that emits it.
        component: Arc<str>,
        /// The output.
        stream: Arc<str>,
        /// Who subscribes.
        subscriber: Arc<str>,
        /// The key.
        key: Arc<str>,
        /// The fields that there are.
        known: String,
    },
    /// A subscription that Flux cannot say.
    #[error(
        "`{subscriber}` subscribes to {component}.{stream} by {grouping} grouping, which a Flux file cannot say of a program: subscribe \
         otherwise, or serve both in one stretch"
    )]
    Grouping {
        /// The component that emits it.
        component: Arc<str>,
        /// The output.
        stream: Arc<str>,
        /// Who subscribes.
        subscriber: Arc<str>,
        /// How.
        grouping: Grouping,
    },
    /// A component of Storm's subscribes to a stream once.
    #[error(
        "`{part}` subscribes to {component}.{stream} in two ways, which Storm does not know; subscribe in one, or by a bolt between"
    )]
    TwoWays {
        /// The component that emits it.
        component: Arc<str>,
        /// The output.
        stream: Arc<str>,
        /// The component of Storm's that subscribes.
        part: Arc<str>,
    },
}

/// Writes a topology as a Flux file (YAML) for Storm 2: each component, or stretch of components, is a `FluxShellSpout` or
/// `FluxShellBolt` that runs this program with `multilang bolt <component>` and so on, and Storm does between them what the engine
/// does here: groupings, parallelism, acks, timeouts.
///
/// A stretch has the parallelism of its first component if tuples go evenly from one to the next within it, and 1 otherwise, as what
/// has the same key might be in two processes.
///
/// ```
/// use galerna_multilang::{FluxOptions, SerializedStream, flux};
/// use galerna_topology::prelude::*;
///
/// # struct Lines;
/// # impl Spout for Lines {
/// #     type MessageId = u64;
/// #     type Outputs = Output<String>;
/// #     async fn next(&mut self, _out: &mut Roots<'_, Self>) -> Result<Next, Fault> { Ok(Next::Done) }
/// # }
/// let mut topology = TopologyBuilder::new("words");
/// let lines = topology.spout("lines", || Lines).outputs();
/// let split = |line: String| line.split(' ').map(str::to_owned).collect::<Vec<_>>();
/// let words = topology.flat_map("split", split).shuffle(lines.serialized()).outputs();
/// let words = words.serialized().keyed_by(["value"]);
/// topology.for_each("print", |word: String| println!("{word}")).fields(words, |word| word).parallelism(2);
///
/// let yaml = flux(&topology.build()?, &FluxOptions::default())?;
/// assert!(yaml.contains(r#"["sh","galerna.sh","multilang","bolt","split"]"#));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// What keeps which component from running in a process of its own, and what to do; see [`FluxError`].
pub fn flux(topology: &Topology, options: &FluxOptions) -> Result<String, FluxError> {
    let parts = parts(topology, &options.stretches)?;
    let mut yaml = format!("name: {}\n", json!(&**topology.name()));
    yaml.push_str("config:\n");
    for (name, value) in config(topology, options) {
        let _ = writeln!(yaml, "  {name}: {value}");
    }
    for (kind, has_spout) in [("spout", true), ("bolt", false)] {
        let of_kind: Vec<_> = parts.iter().filter(|(_, part)| part.has_spout() == has_spout).collect();
        if !of_kind.is_empty() {
            let _ = writeln!(yaml, "{kind}s:");
        }
        for (part, components) in of_kind {
            write_part(&mut yaml, part, components, options)?;
        }
    }
    let mut streams = String::new();
    for (part, components) in &parts {
        write_streams(&mut streams, part, components, &parts)?;
    }
    if !streams.is_empty() {
        let _ = write!(yaml, "streams:\n{streams}");
    }
    Ok(yaml)
}

type Parts<'t> = Vec<(Part, PartOf<'t>)>;

/// The parts, in the order in which their first components are declared.
fn parts<'t>(topology: &'t Topology, stretches: &[Stretch]) -> Result<Parts<'t>, FluxError> {
    let mut of_stretches: Vec<(&Stretch, PartOf<'t>)> = Vec::new();
    for stretch in stretches {
        let components = Part::Stretch(stretch.clone()).of(topology)?;
        for (other, known) in &of_stretches {
            if let Some(component) = components.components.iter().find(|component| known.has(&component.id)) {
                let component = component.id.clone();
                return Err(FluxError::Overlap {
                    component,
                    first: Stretch::clone(other),
                    second: stretch.clone(),
                });
            }
        }
        of_stretches.push((stretch, components));
    }
    let mut parts = Vec::new();
    for component in topology.components() {
        if let Some(at) = of_stretches.iter().position(|(_, part)| part.has(&component.id)) {
            // The stretch stands where its first component does.
            let is_first = of_stretches[at].1.components[0].id == component.id;
            if is_first {
                let part = Part::Stretch(of_stretches[at].0.clone());
                parts.push((part.clone(), part.of(topology)?));
            }
            continue;
        }
        let id = component.id.clone();
        let part = if component.factory.is_spout() { Part::Spout(id) } else { Part::Bolt(id) };
        let components = part.of(topology)?;
        parts.push((part, components));
    }
    Ok(parts)
}

fn config(topology: &Topology, options: &FluxOptions) -> Vec<(&'static str, Value)> {
    let mut config = vec![("topology.workers", json!(options.workers))];
    let spouts = topology.components().iter().filter(|component| component.factory.is_spout());
    let timeouts: Option<Vec<Duration>> = spouts.map(|spout| topology.message_timeout(spout)).collect();
    match timeouts.and_then(|timeouts| timeouts.into_iter().max()) {
        // Storm has one for all, in seconds.
        Some(longest) => {
            config.push(("topology.message.timeout.secs", json!(longest.as_secs_f64().ceil() as u64)))
        }
        None => config.push(("topology.enable.message.timeouts", json!(false))),
    }
    if !topology.tracking() {
        config.push(("topology.acker.executors", json!(0)));
    }
    if options.frames == Frames::MessagePack {
        config.push(("topology.multilang.serializer", json!(SERIALIZER)));
    }
    config
}

fn names(fields: &Fields) -> Value {
    fields.names().iter().map(|name| &**name).collect()
}

fn write_part(
    yaml: &mut String,
    part: &Part,
    components: &PartOf<'_>,
    options: &FluxOptions,
) -> Result<(), FluxError> {
    let command: Vec<&str> = options.command.iter().map(String::as_str).collect();
    let words = part.words();
    let words = words.iter().chain(&options.arguments).map(String::as_str);
    let words: Vec<&str> = command.into_iter().chain(["multilang"]).chain(words).collect();
    let class = if components.has_spout() { "spouts.FluxShellSpout" } else { "bolts.FluxShellBolt" };
    let _ = writeln!(yaml, "  - id: {}", json!(&*part.id()));
    let _ = writeln!(yaml, "    className: \"org.apache.storm.flux.wrappers.{class}\"");
    let _ = writeln!(yaml, "    constructorArgs:\n      - {}", json!(words));
    let mut calls: Vec<(&str, Value)> = Vec::new();
    for (subscriber, input) in components.exits() {
        let (name, fields) =
            (part.stream_name(&input.component, &input.stream), names(&edge(subscriber, input)?.fields));
        match &*name {
            DEFAULT_STREAM => calls.push(("setDefaultStream", json!([fields]))),
            name => calls.push(("setNamedStream", json!([name, fields]))),
        }
    }
    let spouts = components.components.iter().filter(|component| component.factory.is_spout());
    if let Some(pending) = spouts.map(|spout| spout.settings.max_pending).min() {
        calls.push(("addComponentConfig", json!(["topology.max.spout.pending", pending])));
    }
    if !calls.is_empty() {
        yaml.push_str("    configMethods:\n");
    }
    for (method, arguments) in calls {
        let _ = writeln!(yaml, "      - {{ name: \"{method}\", args: {arguments} }}");
    }
    let first = &components.components[0].settings;
    let is_even = |grouping| matches!(grouping, Grouping::Shuffle | Grouping::LocalOrShuffle);
    let (executors, tasks) = match part {
        Part::Stretch(_) if !components.inner().all(|input| is_even(input.grouping)) => (1, 1),
        _ => (first.parallelism, first.tasks()),
    };
    let _ = writeln!(yaml, "    parallelism: {executors}");
    if tasks != executors {
        let _ = writeln!(yaml, "    numTasks: {tasks}");
    }
    Ok(())
}

/// A subscription as Flux says it.
fn grouping(subscriber: &Arc<str>, input: &Input, edge: &Edge) -> Result<Value, FluxError> {
    let (component, stream) = (input.component.clone(), input.stream.clone());
    Ok(match input.grouping {
        Grouping::Shuffle => json!({ "type": "SHUFFLE" }),
        Grouping::LocalOrShuffle => json!({ "type": "LOCAL_OR_SHUFFLE" }),
        Grouping::All => json!({ "type": "ALL" }),
        Grouping::Global => json!({ "type": "GLOBAL" }),
        Grouping::Fields | Grouping::KeyGroup => {
            let known: BTreeSet<&Arc<str>> = edge.fields.names().iter().collect();
            if let Some(key) = edge.keys.iter().find(|key| !known.contains(key)) {
                return Err(FluxError::NoField {
                    component,
                    stream,
                    subscriber: subscriber.clone(),
                    key: key.clone(),
                    known: edge.fields.names().join(", "),
                });
            }
            if edge.keys.is_empty() {
                let field = edge.fields.names().first().cloned().unwrap_or_else(|| "value".into());
                return Err(FluxError::NoKey { component, stream, subscriber: subscriber.clone(), field });
            }
            let keys: Value = edge.keys.iter().map(|key| &**key).collect();
            json!({ "type": "FIELDS", "args": keys })
        }
        grouping @ (Grouping::PartialKey | Grouping::Direct | Grouping::Custom) => {
            return Err(FluxError::Grouping { component, stream, subscriber: subscriber.clone(), grouping });
        }
    })
}

fn write_streams(
    yaml: &mut String,
    part: &Part,
    components: &PartOf<'_>,
    parts: &Parts<'_>,
) -> Result<(), FluxError> {
    let mut written: Vec<(&Input, Value)> = Vec::new();
    for (subscriber, input) in components.entries() {
        let mut grouping = grouping(&subscriber.id, input, edge(subscriber, input)?)?;
        let source = parts.iter().find(|(_, source)| source.has(&input.component));
        let Some((source, _)) = source else { continue };
        let known = written
            .iter()
            .find(|(known, _)| known.component == input.component && known.stream == input.stream);
        if let Some((_, known)) = known {
            if *known != grouping {
                return Err(FluxError::TwoWays {
                    component: input.component.clone(),
                    stream: input.stream.clone(),
                    part: part.id(),
                });
            }
            continue;
        }
        written.push((input, grouping.clone()));
        let name = source.stream_name(&input.component, &input.stream);
        if *name != *DEFAULT_STREAM {
            grouping["streamId"] = json!(&*name);
        }
        let (from, to) = (json!(&*source.id()), json!(&*part.id()));
        let _ = writeln!(yaml, "  - {{ from: {from}, to: {to}, grouping: {grouping} }}");
    }
    Ok(())
}
