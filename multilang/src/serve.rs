//! The other side: a part of a topology as a child of a Storm worker, or of another Galerna.
//!
//! What the host sends comes in as a stream, runs through bolts by the engine as in any topology, and what they emit goes out
//! anchored to the tuples that it came of. A tuple is acked to the host when its whole tree here is done, whatever that takes: windows,
//! joins and bolts that wait are all the same.

use std::collections::{HashMap, VecDeque};
use std::marker::PhantomData;
#[cfg(unix)]
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use galerna_engine::{Engine, EngineOptions};
use galerna_topology::{
    Anchor, AsyncBolt, Data, Emitter, Failed, Fault, Next, Output, Roots, Spout, Stream, TopologyBuilder,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
#[cfg(unix)]
use tokio::net::unix::pipe;
use tokio::sync::{Notify, mpsc};

use crate::form::Fields;
use crate::frame::{Decoder, Frames, WireError};
use crate::message::{Emit, FromChild, Handshake, Id, LogLevel, SpoutCommand, ToChild, TupleMessage};
use crate::row::to_values;

/// The component that stands for the host.
const INPUT: &str = "host";
/// The longest message that a host may send, in bytes.
const LONGEST: usize = 64 << 20;
/// Messages that may wait to be written.
const UNWRITTEN: usize = 1024;
/// Messages that are written together at most.
const TOGETHER: usize = 256;
/// Tuples of a spout that may wait for the host to ask for them, and how many it gets at once.
const READY: usize = 1024;
const AT_ONCE: usize = 64;
/// How long what is in hand may take when the host has gone.
const LAST_WORK: Duration = Duration::from_secs(3);

/// Why serving ended other than by the host's going.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// A pipe failed.
    #[error("the pipe of the host cannot be used: {0}")]
    Pipe(#[from] std::io::Error),
    /// The host wrote what is not of the protocol.
    #[error("the host cannot be understood: {0}")]
    Wire(#[from] WireError),
    /// The host began otherwise than with a handshake, or a bolt was used as a spout.
    #[error("the host sent {sent} where {expected} was due")]
    Unexpected {
        /// What came.
        sent: &'static str,
        /// What was to come.
        expected: &'static str,
    },
    /// The declared part of a topology is not sound.
    #[error("the topology cannot be built: {0}")]
    Build(#[from] galerna_topology::BuildError),
    /// A component could not be made ready.
    #[error("the topology cannot be started: {0}")]
    Start(#[from] galerna_engine::EngineError),
}

/// A part of a topology that is served: its streams from and to the host.
pub struct Served {
    topology: TopologyBuilder,
    ends: Ends,
}

/// Where tuples for the host go.
#[derive(Clone)]
enum Ends {
    /// Of a bolt: written as they come.
    Bolt(mpsc::Sender<FromChild>),
    /// Of a spout: kept until the host asks for them.
    Spout(mpsc::Sender<Ready>),
}

/// A tuple of a spout that the host may have.
struct Ready {
    values: Vec<Value>,
    stream: Arc<str>,
    anchor: Anchor,
}

impl Served {
    /// The part of the topology between the host's streams.
    pub fn topology(&mut self) -> &mut TopologyBuilder {
        &mut self.topology
    }

    /// Sends a stream to the host, by this name.
    pub fn output<T: Data + Serialize>(&mut self, name: &str, stream: Stream<T>) {
        let (ends, stream_name): (_, Arc<str>) = (self.ends.clone(), name.into());
        let sink =
            move || ToHost::<T> { ends: ends.clone(), stream: stream_name.clone(), types: PhantomData };
        // One task: the order of the stream stays.
        self.topology.async_bolt(format!("{INPUT}-{name}"), sink).global(stream);
    }
}

impl std::fmt::Debug for Served {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.topology.fmt(f)
    }
}

/// Sends tuples to the host.
struct ToHost<T> {
    ends: Ends,
    stream: Arc<str>,
    types: PhantomData<fn(T)>,
}

impl<T: Data + Serialize> AsyncBolt for ToHost<T> {
    type Input = T;
    type Outputs = ();

    async fn execute(&mut self, tuple: T, out: &mut Emitter<()>) -> Result<(), Fault> {
        let values = to_values(&tuple).map_err(|error| Fault::permanent(error.to_string()))?;
        let gone = || Fault::unavailable("the host has gone");
        match &self.ends {
            Ends::Bolt(to) => {
                let anchors =
                    out.stable_ids().iter().filter_map(|id| serde_json::from_str(id).ok()).collect();
                let stream = Some(self.stream.to_string());
                let emit = Emit { values, stream, anchors, ..Emit::default() };
                to.send(FromChild::Emit(emit)).await.map_err(|_| gone())
            }
            Ends::Spout(to) => {
                let ready = Ready { values, stream: self.stream.clone(), anchor: out.keep() };
                // If it has gone, the anchor fails by being dropped.
                to.send(ready).await.map_err(|_| gone())
            }
        }
    }
}

/// Tuples that came of the host. Their number is bounded by the pending limits of its spouts.
#[derive(Default)]
struct Inbox {
    tuples: Mutex<VecDeque<TupleMessage>>,
    more: Notify,
    /// No more comes.
    ended: AtomicBool,
}

impl Inbox {
    fn tuples(&self) -> MutexGuard<'_, VecDeque<TupleMessage>> {
        self.tuples.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Emits what the host sends, and tells it what became of it.
struct FromHost<T> {
    inbox: Arc<Inbox>,
    to: mpsc::Sender<FromChild>,
    fields: Fields,
    types: PhantomData<fn() -> T>,
}

impl<T: Data + DeserializeOwned> Spout for FromHost<T> {
    type MessageId = Id;
    type Outputs = Output<T>;

    async fn next(&mut self, out: &mut Roots<'_, Self>) -> Result<Next, Fault> {
        let Some(tuple) = self.inbox.tuples().pop_front() else {
            return Ok(if self.inbox.ended.load(Ordering::SeqCst) { Next::Done } else { Next::Idle });
        };
        match self.fields.read::<T>(tuple.values) {
            Ok(value) => {
                // Written as JSON: a text and a number that look alike stay apart.
                let id = serde_json::to_string(&tuple.id).unwrap_or_default();
                out.root_with_stable_id(tuple.id, id).emit(value);
            }
            Err(error) => {
                self.tell(FromChild::Error(format!("the tuple `{}` cannot be read: {error}", tuple.id)))
                    .await;
                self.tell(FromChild::Fail(tuple.id)).await;
            }
        }
        Ok(Next::Ready)
    }

    async fn ready(&mut self) {
        loop {
            let more = self.inbox.more.notified();
            if !self.inbox.tuples().is_empty() || self.inbox.ended.load(Ordering::SeqCst) {
                return;
            }
            more.await;
        }
    }

    async fn acked(&mut self, ids: &mut Vec<Id>) {
        for id in ids.drain(..) {
            self.tell(FromChild::Ack(id)).await;
        }
    }

    async fn failed(&mut self, failed: &mut Vec<Failed<Id>>) {
        for Failed { id, failure } in failed.drain(..) {
            self.tell(FromChild::Error(failure.to_string())).await;
            self.tell(FromChild::Fail(id)).await;
        }
    }
}

impl<T> FromHost<T> {
    async fn tell(&self, message: FromChild) {
        // A host that has gone wants to know nothing.
        let _ = self.to.send(message).await;
    }
}

/// What comes from the host, message by message.
struct HostReader<R> {
    pipe: R,
    decoder: Decoder<ToChild>,
    bytes: Vec<u8>,
}

impl<R: AsyncRead + Unpin> HostReader<R> {
    fn new(pipe: R) -> Self {
        Self { pipe, decoder: Decoder::new(Frames::Json, LONGEST), bytes: vec![0; 1 << 16] }
    }

    /// The next message; none when the host has gone. Not cancel-safe.
    async fn next(&mut self) -> Result<Option<ToChild>, ServeError> {
        loop {
            if let Some(message) = self.decoder.next_message()? {
                return Ok(Some(message));
            }
            match self.pipe.read(&mut self.bytes).await? {
                0 => return Ok(None),
                read => self.decoder.feed(&self.bytes[..read]),
            }
        }
    }

    /// Shakes hands, and begins to write what is sent to the channel that is returned.
    async fn begin(
        &mut self,
        mut pipe: impl AsyncWrite + Unpin + Send + 'static,
    ) -> Result<(Handshake, mpsc::Sender<FromChild>, tokio::task::JoinHandle<std::io::Result<()>>), ServeError>
    {
        let handshake = match self.next().await? {
            Some(ToChild::Handshake(handshake)) => handshake,
            other => return Err(unexpected(other.as_ref(), "a handshake")),
        };
        let pid = std::process::id();
        if !handshake.pid_dir.is_empty() {
            tokio::fs::write(Path::new(&handshake.pid_dir).join(pid.to_string()), b"").await?;
        }
        // Only a host that offers it gets anything but JSON.
        let offered = handshake.conf.get("galerna.frames").and_then(Value::as_array);
        let faster = Value::from(Frames::MessagePack.name());
        let frames = offered.is_some_and(|names| names.contains(&faster)).then_some(Frames::MessagePack);
        let mut bytes = Vec::new();
        Frames::Json.encode(&[FromChild::Pid { pid: pid.into(), frames }], &mut bytes)?;
        pipe.write_all(&bytes).await?;
        pipe.flush().await?;
        let frames = frames.unwrap_or_default();
        self.decoder.set_frames(frames);
        let (to, unwritten) = mpsc::channel(UNWRITTEN);
        let writing = tokio::spawn(write(unwritten, pipe, frames));
        Ok((handshake, to, writing))
    }
}

async fn write(
    mut unwritten: mpsc::Receiver<FromChild>,
    mut pipe: impl AsyncWrite + Unpin,
    frames: Frames,
) -> std::io::Result<()> {
    let (mut messages, mut bytes) = (Vec::new(), Vec::new());
    while unwritten.recv_many(&mut messages, TOGETHER).await > 0 {
        // All messages are made of JSON values, which have a form in both frames.
        frames.encode(&messages, &mut bytes).map_err(std::io::Error::other)?;
        messages.clear();
        pipe.write_all(&bytes).await?;
        pipe.flush().await?;
        bytes.clear();
    }
    Ok(())
}

fn unexpected(sent: Option<&ToChild>, expected: &'static str) -> ServeError {
    let sent = match sent {
        None => "nothing",
        Some(ToChild::Handshake(_)) => "a handshake",
        Some(ToChild::Tuple(_)) => "a tuple",
        Some(ToChild::TaskIds(_)) => "task ids",
        Some(ToChild::Command(_)) => "a command",
    };
    ServeError::Unexpected { sent, expected }
}

/// The name of a topology in a handshake.
fn name(handshake: &Handshake) -> Arc<str> {
    let named = |map: &serde_json::Map<String, Value>, key: &str| {
        map.get(key).and_then(Value::as_str).map(str::to_owned)
    };
    let topology = named(&handshake.conf, "topology.name").unwrap_or_else(|| "topology".to_owned());
    let component = named(&handshake.context, "componentid").unwrap_or_else(|| "bolt".to_owned());
    format!("{topology}/{component}").into()
}

/// The pipes of this process to its host: standard input and output. Whatever else writes to standard output would be taken for a
/// message.
///
/// # Errors
/// They are no pipes, as when a person runs the program in a terminal.
///
/// # Panics
/// Outside of a tokio runtime with I/O enabled.
#[cfg(unix)]
pub fn stdio() -> std::io::Result<(pipe::Receiver, pipe::Sender)> {
    let input = std::io::stdin().as_fd().try_clone_to_owned()?;
    let output = std::io::stdout().as_fd().try_clone_to_owned()?;
    Ok((pipe::Receiver::from_owned_fd(input)?, pipe::Sender::from_owned_fd(output)?))
}

/// Serves a part of a topology to the host at the other end of these pipes as one bolt, until the host goes.
///
/// `declare` is given the host's tuples as a stream, whichever of its components they come from, and says with [`Served::output`] what
/// goes back. Tuples are acked when all that came of them here is done; ticks of the host are acked and otherwise left out, as bolts here
/// have ticks of their own.
///
/// ```no_run
/// use galerna_multilang::{serve_bolt, stdio};
/// use galerna_topology::prelude::*;
///
/// # async fn example() -> Result<(), galerna_multilang::ServeError> {
/// let (input, output) = stdio()?;
/// serve_bolt(input, output, |served, sentences: Stream<String>| {
///     let split = |sentence: String| sentence.split(' ').map(str::to_owned).collect::<Vec<_>>();
///     let words = served.topology().flat_map("split", split).shuffle(sentences).outputs();
///     served.output("default", words);
/// })
/// .await
/// # }
/// ```
///
/// # Errors
/// The host does not speak the protocol, or the declared part cannot be built or started. What a pipe's closing ends is no error.
pub async fn serve_bolt<T, F>(
    input: impl AsyncRead + Unpin + Send,
    output: impl AsyncWrite + Unpin + Send + 'static,
    declare: F,
) -> Result<(), ServeError>
where
    T: Data + DeserializeOwned,
    F: FnOnce(&mut Served, Stream<T>),
{
    let mut host = HostReader::new(input);
    let (handshake, to, writing) = host.begin(output).await?;
    let inbox = Arc::<Inbox>::default();
    let mut topology = TopologyBuilder::new(name(&handshake));
    // The host has timeouts of its own.
    topology.message_timeout(None);
    let (of_spout, telling) = (inbox.clone(), to.clone());
    let spout = move || FromHost {
        inbox: of_spout.clone(),
        to: telling.clone(),
        fields: Fields::of::<T>(),
        types: PhantomData,
    };
    // What the host sends is never held back here, or its heartbeats would be.
    let tuples = topology.spout(INPUT, spout).max_pending(1 << 24).outputs();
    let mut served = Served { topology, ends: Ends::Bolt(to.clone()) };
    declare(&mut served, tuples);
    let running = Engine::submit(served.topology.build()?, EngineOptions::default()).await?;

    let outcome = loop {
        match host.next().await {
            Ok(None) => break Ok(()),
            Err(error) => break Err(error),
            Ok(Some(ToChild::Tuple(tuple))) if tuple.is_heartbeat() => drop(to.send(FromChild::Sync).await),
            Ok(Some(ToChild::Tuple(tuple))) if tuple.is_tick() => {
                drop(to.send(FromChild::Ack(tuple.id)).await)
            }
            Ok(Some(ToChild::Tuple(tuple))) => {
                inbox.tuples().push_back(tuple);
                inbox.more.notify_waiters();
            }
            // Nothing here asks for them.
            Ok(Some(ToChild::TaskIds(_))) => {}
            Ok(Some(other)) => break Err(unexpected(Some(&other), "a tuple")),
        }
    };
    inbox.ended.store(true, Ordering::SeqCst);
    inbox.more.notify_waiters();
    // What came before is worked off: the host may have closed only its own end.
    let _ = tokio::time::timeout(LAST_WORK, running.finished()).await;
    running.drain(Duration::ZERO).await;
    drop(to);
    // The host may read no more.
    let _ = tokio::time::timeout(LAST_WORK, writing).await;
    outcome
}

/// Serves a part of a topology to the host at the other end of these pipes as one spout, until the host goes.
///
/// `declare` declares spouts, and whatever bolts, and says with [`Served::output`] what the host gets. Each tuple that a spout here
/// waits for is a root of the host's: it is acked or failed here by what becomes of it there.
///
/// # Errors
/// As [`serve_bolt`].
pub async fn serve_spout<F>(
    input: impl AsyncRead + Unpin + Send,
    output: impl AsyncWrite + Unpin + Send + 'static,
    declare: F,
) -> Result<(), ServeError>
where
    F: FnOnce(&mut Served),
{
    let mut host = HostReader::new(input);
    let (handshake, to, writing) = host.begin(output).await?;
    let mut topology = TopologyBuilder::new(name(&handshake));
    topology.message_timeout(None);
    let (ready, mut waiting) = mpsc::channel(READY);
    let mut served = Served { topology, ends: Ends::Spout(ready) };
    declare(&mut served);
    // It is the host who activates it.
    let options = EngineOptions { active: false, ..EngineOptions::default() };
    let running = Engine::submit(served.topology.build()?, options).await?;
    let mut active = false;
    let mut held: HashMap<Id, Anchor> = HashMap::new();
    let mut next_id = 1u64;

    let outcome = loop {
        let command = match host.next().await {
            Ok(None) => break Ok(()),
            Err(error) => break Err(error),
            Ok(Some(ToChild::Command(command))) => command,
            Ok(Some(ToChild::TaskIds(_))) => continue,
            Ok(Some(other)) => break Err(unexpected(Some(&other), "a command")),
        };
        match command {
            SpoutCommand::Next => {
                // Older hosts say nothing about it.
                if !std::mem::replace(&mut active, true) {
                    running.activate();
                }
                for _ in 0..AT_ONCE {
                    let Ok(Ready { values, stream, anchor }) = waiting.try_recv() else { break };
                    let id = Id::Text(next_id.to_string());
                    let tracked = anchor.is_tracked();
                    let emit = Emit {
                        values,
                        id: tracked.then(|| id.clone()),
                        stream: Some(stream.to_string()),
                        ..Emit::default()
                    };
                    if tracked {
                        next_id += 1;
                        held.insert(id, anchor);
                    } else {
                        anchor.ack();
                    }
                    drop(to.send(FromChild::Emit(emit)).await);
                }
            }
            SpoutCommand::Ack(id) | SpoutCommand::Fail(id) if !held.contains_key(&id) => {
                let text = format!("the tuple `{id}` is not known here");
                drop(to.send(FromChild::Log { text, level: LogLevel::Warn }).await);
            }
            SpoutCommand::Ack(id) => {
                if let Some(anchor) = held.remove(&id) {
                    anchor.ack();
                }
            }
            SpoutCommand::Fail(id) => {
                if let Some(anchor) = held.remove(&id) {
                    anchor.fail(Fault::transient("the tuple failed at the host"));
                }
            }
            SpoutCommand::Activate => {
                active = true;
                running.activate();
            }
            SpoutCommand::Deactivate => {
                active = false;
                running.deactivate();
            }
        }
        drop(to.send(FromChild::Sync).await);
    };
    // What the host has not acked is not done, as far as the spouts here are concerned.
    drop((held, waiting));
    running.drain(Duration::ZERO).await;
    drop(to);
    let _ = tokio::time::timeout(LAST_WORK, writing).await;
    outcome
}
