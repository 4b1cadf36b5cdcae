//! The messages of the protocol, both ways.
//!
//! Reading is lenient: what is not known is skipped, numbers stand where texts are usual, and an absent field has Storm's
//! default. What a message cannot do without and lacks is an error.

use std::fmt;
use std::sync::Arc;

use serde::de::{self, Deserializer, MapAccess, Visitor};
use serde::ser::{SerializeMap, Serializer};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Number, Value};

use crate::frame::Frames;

/// The stream that is meant when none is named.
pub const DEFAULT_STREAM: &str = "default";
/// The stream of heartbeats.
pub const HEARTBEAT_STREAM: &str = "__heartbeat";
/// The stream of ticks.
pub const TICK_STREAM: &str = "__tick";
/// The component that ticks come from.
pub const SYSTEM_COMPONENT: &str = "__system";

/// What a tuple is called in messages: a text or a number, which goes back as it came.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
#[serde(untagged)]
pub enum Id {
    /// A text.
    Text(String),
    /// A number.
    Number(Number),
}

impl Id {
    /// The id as an integer, also if it is written as a text.
    pub fn as_integer(&self) -> Option<i64> {
        match self {
            Self::Text(text) => text.parse().ok(),
            Self::Number(number) => number.as_i64(),
        }
    }
}

/// By hand, as there are several in each message: of an untagged enum serde would first copy each.
impl<'de> Deserialize<'de> for Id {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TextOrNumber;
        impl Visitor<'_> for TextOrNumber {
            type Value = Id;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an id: a text or a number")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Id, E> {
                Ok(Id::from(text))
            }

            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Id, E> {
                Ok(Id::Number(number.into()))
            }

            fn visit_i64<E: de::Error>(self, number: i64) -> Result<Id, E> {
                Ok(Id::Number(number.into()))
            }

            fn visit_f64<E: de::Error>(self, number: f64) -> Result<Id, E> {
                Number::from_f64(number).map(Id::Number).ok_or_else(|| E::custom("an id that is no number"))
            }
        }
        deserializer.deserialize_any(TextOrNumber)
    }
}

impl From<&str> for Id {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => f.write_str(text),
            Self::Number(number) => number.fmt(f),
        }
    }
}

/// A tuple on its way to a bolt.
#[derive(Debug, Clone, PartialEq)]
pub struct TupleMessage {
    /// What the bolt acks or fails it by.
    pub id: Id,
    /// The component that emitted it; none for a heartbeat.
    pub component: Option<Arc<str>>,
    /// The stream it came by.
    pub stream: Arc<str>,
    /// The number of the task that emitted it; -1 for heartbeats and ticks.
    pub task: i64,
    /// Its fields, in the order of their names in the handshake.
    pub values: Vec<Value>,
}

impl TupleMessage {
    /// A heartbeat: to be answered with a `sync`, and never acked.
    pub fn heartbeat(id: Id) -> Self {
        Self { id, component: None, stream: HEARTBEAT_STREAM.into(), task: -1, values: Vec::new() }
    }

    /// A tick, `seconds` after the one before.
    pub fn tick(id: Id, seconds: u64) -> Self {
        let values = vec![Value::from(seconds)];
        Self { id, component: Some(SYSTEM_COMPONENT.into()), stream: TICK_STREAM.into(), task: -1, values }
    }

    /// Whether it is a heartbeat.
    pub fn is_heartbeat(&self) -> bool {
        self.task == -1 && &*self.stream == HEARTBEAT_STREAM
    }

    /// Whether it is a tick.
    pub fn is_tick(&self) -> bool {
        self.component.as_deref() == Some(SYSTEM_COMPONENT) && &*self.stream == TICK_STREAM
    }
}

/// What a host says first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Handshake {
    /// The folder in which the child makes an empty file named by its process id.
    #[serde(rename = "pidDir", default)]
    pub pid_dir: String,
    /// The topology's settings.
    #[serde(default)]
    pub conf: Map<String, Value>,
    /// Where the component stands in its topology.
    #[serde(default)]
    pub context: Map<String, Value>,
}

/// What a spout is told.
#[derive(Debug, Clone, PartialEq)]
pub enum SpoutCommand {
    /// Emit what there is.
    Next,
    /// A root is done.
    Ack(Id),
    /// A root failed.
    Fail(Id),
    /// It may emit from now on.
    Activate,
    /// It may not emit until it is activated again.
    Deactivate,
}

/// A message to a child.
#[derive(Debug, Clone, PartialEq)]
pub enum ToChild {
    /// The first one.
    Handshake(Handshake),
    /// A tuple for a bolt.
    Tuple(TupleMessage),
    /// The tasks that a tuple went to, in the order of the emits that asked.
    TaskIds(Vec<i64>),
    /// A command for a spout.
    Command(SpoutCommand),
}

impl Serialize for ToChild {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Handshake(handshake) => handshake.serialize(serializer),
            Self::TaskIds(tasks) => tasks.serialize(serializer),
            Self::Tuple(tuple) => {
                let mut map = serializer.serialize_map(Some(5))?;
                map.serialize_entry("id", &tuple.id)?;
                map.serialize_entry("comp", &tuple.component.as_deref())?;
                map.serialize_entry("stream", &*tuple.stream)?;
                map.serialize_entry("task", &tuple.task)?;
                map.serialize_entry("tuple", &tuple.values)?;
                map.end()
            }
            Self::Command(command) => {
                let none = Id::from("");
                let (name, id) = match command {
                    SpoutCommand::Next => ("next", &none),
                    SpoutCommand::Ack(id) => ("ack", id),
                    SpoutCommand::Fail(id) => ("fail", id),
                    SpoutCommand::Activate => ("activate", &none),
                    SpoutCommand::Deactivate => ("deactivate", &none),
                };
                let mut map = serializer.serialize_map(Some(2))?;
                map.serialize_entry("command", name)?;
                map.serialize_entry("id", id)?;
                map.end()
            }
        }
    }
}

/// All fields that a message to a child may have.
#[derive(Default, Deserialize)]
#[serde(default)]
struct ToChildFields {
    #[serde(rename = "pidDir")]
    pid_dir: Option<String>,
    conf: Option<Map<String, Value>>,
    context: Option<Map<String, Value>>,
    command: Option<String>,
    id: Option<Id>,
    comp: Option<String>,
    stream: Option<String>,
    task: Option<i64>,
    tuple: Option<Vec<Value>>,
}

impl<'de> Deserialize<'de> for ToChild {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = ToChild;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a message to a component, or a list of task ids")
            }

            fn visit_seq<A: de::SeqAccess<'de>>(self, tasks: A) -> Result<ToChild, A::Error> {
                Vec::deserialize(de::value::SeqAccessDeserializer::new(tasks)).map(ToChild::TaskIds)
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<ToChild, A::Error> {
                let fields = ToChildFields::deserialize(de::value::MapAccessDeserializer::new(map))?;
                fields.message().map_err(de::Error::custom)
            }
        }
        deserializer.deserialize_any(Either)
    }
}

impl ToChildFields {
    fn message(self) -> Result<ToChild, String> {
        if let Some(command) = self.command {
            let id = self.id.unwrap_or_else(|| Id::from(""));
            return Ok(ToChild::Command(match &*command {
                "next" => SpoutCommand::Next,
                "ack" => SpoutCommand::Ack(id),
                "fail" => SpoutCommand::Fail(id),
                "activate" => SpoutCommand::Activate,
                "deactivate" => SpoutCommand::Deactivate,
                other => return Err(format!("`{other}` is no command for a spout")),
            }));
        }
        if let Some(values) = self.tuple {
            let id = self.id.ok_or("a tuple without an id")?;
            return Ok(ToChild::Tuple(TupleMessage {
                id,
                component: self.comp.map(Arc::from),
                stream: self.stream.as_deref().unwrap_or(DEFAULT_STREAM).into(),
                task: self.task.unwrap_or(-1),
                values,
            }));
        }
        if self.conf.is_none() && self.context.is_none() && self.pid_dir.is_none() {
            return Err("neither a handshake, nor a tuple, nor a command".to_owned());
        }
        Ok(ToChild::Handshake(Handshake {
            pid_dir: self.pid_dir.unwrap_or_default(),
            conf: self.conf.unwrap_or_default(),
            context: self.context.unwrap_or_default(),
        }))
    }
}

/// A tuple that a child emits.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Emit {
    /// Its fields.
    pub values: Vec<Value>,
    /// What a spout wants to hear of it by; untracked without one.
    pub id: Option<Id>,
    /// The stream, if not the default one.
    pub stream: Option<String>,
    /// The number of the only task that is to get it.
    pub task: Option<i64>,
    /// The tuples whose roots wait for it.
    pub anchors: Vec<Id>,
    /// Whether the child waits to be told which tasks got it.
    pub need_task_ids: bool,
}

/// How grave a line of a child's log is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum LogLevel {
    /// 0
    Trace,
    /// 1
    Debug,
    /// 2, and what is meant when none is given.
    #[default]
    Info,
    /// 3
    Warn,
    /// 4
    Error,
}

impl LogLevel {
    const ALL: [Self; 5] = [Self::Trace, Self::Debug, Self::Info, Self::Warn, Self::Error];

    fn of(value: Option<&Value>) -> Self {
        let number = match value {
            Some(Value::Number(number)) => number.as_u64(),
            Some(Value::String(name)) => {
                let names = [
                    ("trace", 0),
                    ("debug", 1),
                    ("info", 2),
                    ("warn", 3),
                    ("warning", 3),
                    ("error", 4),
                    ("critical", 4),
                ];
                let name = name.to_ascii_lowercase();
                let named = names.iter().find(|(known, _)| *known == name).map(|(_, number)| *number);
                named.or_else(|| name.parse().ok())
            }
            _ => None,
        };
        let known = number.and_then(|number| usize::try_from(number).ok());
        known.and_then(|number| Self::ALL.get(number).copied()).unwrap_or_default()
    }
}

/// A message from a child.
#[derive(Debug, Clone, PartialEq)]
pub enum FromChild {
    /// The answer to the handshake.
    Pid {
        /// Its process id.
        pid: i64,
        /// How messages are framed from now on, both ways, if the child asks for something else than it got.
        frames: Option<Frames>,
    },
    /// A tuple.
    Emit(Emit),
    /// A tuple is done.
    Ack(Id),
    /// A tuple failed.
    Fail(Id),
    /// A line for the log.
    Log {
        /// The line.
        text: String,
        /// How grave it is.
        level: LogLevel,
    },
    /// Something went wrong, often with a trace.
    Error(String),
    /// Something measured.
    Metric {
        /// What.
        name: String,
        /// The value.
        value: Value,
    },
    /// The answer to a heartbeat, and the end of a spout's answer to a command.
    Sync,
    /// A command that there is not.
    Unknown(String),
}

impl Serialize for FromChild {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        match self {
            Self::Pid { pid, frames } => {
                map.serialize_entry("pid", pid)?;
                if let Some(frames) = frames {
                    map.serialize_entry("frames", frames.name())?;
                }
            }
            Self::Emit(emit) => {
                map.serialize_entry("command", "emit")?;
                map.serialize_entry("tuple", &emit.values)?;
                if let Some(id) = &emit.id {
                    map.serialize_entry("id", id)?;
                }
                if let Some(stream) = &emit.stream {
                    map.serialize_entry("stream", stream)?;
                }
                if let Some(task) = emit.task {
                    map.serialize_entry("task", &task)?;
                }
                map.serialize_entry("anchors", &emit.anchors)?;
                map.serialize_entry("need_task_ids", &emit.need_task_ids)?;
            }
            Self::Ack(id) => {
                map.serialize_entry("command", "ack")?;
                map.serialize_entry("id", id)?;
            }
            Self::Fail(id) => {
                map.serialize_entry("command", "fail")?;
                map.serialize_entry("id", id)?;
            }
            Self::Log { text, level } => {
                map.serialize_entry("command", "log")?;
                map.serialize_entry("msg", text)?;
                map.serialize_entry("level", &(*level as u8))?;
            }
            Self::Error(text) => {
                map.serialize_entry("command", "error")?;
                map.serialize_entry("msg", text)?;
            }
            Self::Metric { name, value } => {
                map.serialize_entry("command", "metrics")?;
                map.serialize_entry("name", name)?;
                map.serialize_entry("params", value)?;
            }
            Self::Sync => map.serialize_entry("command", "sync")?,
            Self::Unknown(command) => map.serialize_entry("command", command)?,
        }
        map.end()
    }
}

/// One anchor or a list of them.
struct Anchors(Vec<Id>);

impl<'de> Deserialize<'de> for Anchors {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OneOrMany;
        impl<'de> Visitor<'de> for OneOrMany {
            type Value = Anchors;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an id, or a list of ids")
            }

            fn visit_seq<A: de::SeqAccess<'de>>(self, ids: A) -> Result<Anchors, A::Error> {
                Vec::deserialize(de::value::SeqAccessDeserializer::new(ids)).map(Anchors)
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Anchors, E> {
                Ok(Anchors(vec![Id::from(text)]))
            }

            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Anchors, E> {
                Ok(Anchors(vec![Id::Number(number.into())]))
            }

            fn visit_i64<E: de::Error>(self, number: i64) -> Result<Anchors, E> {
                Ok(Anchors(vec![Id::Number(number.into())]))
            }
        }
        deserializer.deserialize_any(OneOrMany)
    }
}

/// The commands that there are; others by their names.
enum CommandName {
    Emit,
    Ack,
    Fail,
    Log,
    Error,
    Metrics,
    Sync,
    Unknown(String),
}

impl<'de> Deserialize<'de> for CommandName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Name;
        impl Visitor<'_> for Name {
            type Value = CommandName;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the name of a command")
            }

            fn visit_str<E: de::Error>(self, name: &str) -> Result<CommandName, E> {
                Ok(match name {
                    "emit" => CommandName::Emit,
                    "ack" => CommandName::Ack,
                    "fail" => CommandName::Fail,
                    "log" => CommandName::Log,
                    "error" => CommandName::Error,
                    "metrics" => CommandName::Metrics,
                    "sync" => CommandName::Sync,
                    _ => CommandName::Unknown(name.to_owned()),
                })
            }
        }
        deserializer.deserialize_str(Name)
    }
}

/// All fields that a message from a child may have.
#[derive(Default, Deserialize)]
#[serde(default)]
struct FromChildFields {
    command: Option<CommandName>,
    pid: Option<i64>,
    frames: Option<String>,
    tuple: Option<Vec<Value>>,
    id: Option<Id>,
    stream: Option<String>,
    task: Option<i64>,
    anchors: Option<Anchors>,
    need_task_ids: Option<bool>,
    msg: Option<Value>,
    level: Option<Value>,
    name: Option<String>,
    params: Option<Value>,
}

impl<'de> Deserialize<'de> for FromChild {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        FromChildFields::deserialize(deserializer)?.message().map_err(de::Error::custom)
    }
}

impl FromChildFields {
    fn message(self) -> Result<FromChild, String> {
        let Some(command) = self.command else {
            let Some(pid) = self.pid else { return Err("neither `command` nor `pid`".to_owned()) };
            let frames = self.frames.as_deref().map(Frames::by_name).transpose()?;
            return Ok(FromChild::Pid { pid, frames });
        };
        let id = |name: &str, id: Option<Id>| id.ok_or_else(|| format!("`{name}` without `id`"));
        Ok(match command {
            CommandName::Emit => FromChild::Emit(Emit {
                values: self.tuple.ok_or("`emit` without `tuple`")?,
                id: self.id,
                stream: self.stream,
                // Storm's classes send 0 for none.
                task: self.task.filter(|task| *task != 0),
                anchors: self.anchors.map_or_else(Vec::new, |anchors| anchors.0),
                need_task_ids: self.need_task_ids.unwrap_or(true),
            }),
            CommandName::Ack => FromChild::Ack(id("ack", self.id)?),
            CommandName::Fail => FromChild::Fail(id("fail", self.id)?),
            CommandName::Log => {
                FromChild::Log { text: text(self.msg), level: LogLevel::of(self.level.as_ref()) }
            }
            CommandName::Error => FromChild::Error(text(self.msg)),
            CommandName::Metrics => FromChild::Metric {
                name: self.name.ok_or("`metrics` without `name`")?,
                value: self.params.unwrap_or_default(),
            },
            CommandName::Sync => FromChild::Sync,
            CommandName::Unknown(command) => FromChild::Unknown(command),
        })
    }
}

fn text(message: Option<Value>) -> String {
    match message {
        None => String::new(),
        Some(Value::String(text)) => text,
        Some(other) => other.to_string(),
    }
}
