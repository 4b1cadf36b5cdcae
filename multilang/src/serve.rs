//! The other side: a part of a topology as a child of a Storm worker, or of another Galerna.
//!
//! What the host sends comes in as a stream, runs through bolts by the engine as in any topology, and what they emit goes out
//! anchored to the tuples that it came of. A tuple is acked to the host when its whole tree here is done, whatever that takes: windows,
//! joins and bolts that wait are all the same.

use std::collections::HashMap;
use std::time::Duration;

use galerna_engine::{Engine, EngineOptions};
use galerna_topology::{Anchor, Data, Fault, Stream, Topology, TopologyBuilder};
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;

use crate::checkpoints::{ServeOptions, engine_options};
use crate::frame::WireError;
use crate::host_ends::{Ends, Inboxes, Ready, Served};
use crate::host_pipe::{HostReader, name, unexpected};
use crate::message::{Emit, FromChild, Id, LogLevel, SpoutCommand, ToChild};
use crate::part::PartError;

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
    /// The topology has no such part that can be served.
    #[error(transparent)]
    Part(#[from] PartError),
    /// The checkpoints of what keeps state cannot be opened.
    #[error("{0}")]
    Checkpoints(#[from] galerna_state::CheckpointError),
    /// The declared part of a topology is not sound.
    #[error("the topology cannot be built: {0}")]
    Build(#[from] galerna_topology::BuildError),
    /// A component could not be made ready.
    #[error("the topology cannot be started: {0}")]
    Start(#[from] galerna_engine::EngineError),
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
    serve_bolt_with(input, output, &ServeOptions::default(), |served, inboxes| {
        let tuples = inboxes.all(&mut served.topology);
        declare(served, tuples);
        Ok(())
    })
    .await
}

fn keeps_state(topology: &Topology) -> bool {
    topology.components().iter().any(|component| component.settings.keeps_state)
}

/// As [`serve_bolt`], with whatever streams are declared.
pub(crate) async fn serve_bolt_with<F>(
    input: impl AsyncRead + Unpin + Send,
    output: impl AsyncWrite + Unpin + Send + 'static,
    options: &ServeOptions,
    declare: F,
) -> Result<(), ServeError>
where
    F: FnOnce(&mut Served, &mut Inboxes) -> Result<(), PartError>,
{
    let mut host = HostReader::new(input);
    let (handshake, to, writing) = host.begin(output).await?;
    let mut topology = TopologyBuilder::new(name(&handshake));
    // The host has timeouts of its own.
    topology.message_timeout(None);
    let mut inboxes = Inboxes::new(to.clone());
    let mut served = Served { topology, ends: Ends::Bolt(to.clone()) };
    declare(&mut served, &mut inboxes)?;
    let topology = served.topology.build()?;
    let options = engine_options(&handshake, options, keeps_state(&topology)).await?;
    let running = Engine::submit(topology, options).await?;

    let outcome = loop {
        match host.next().await {
            Ok(None) => break Ok(()),
            Err(error) => break Err(error),
            Ok(Some(ToChild::Tuple(tuple))) if tuple.is_heartbeat() => drop(to.send(FromChild::Sync).await),
            Ok(Some(ToChild::Tuple(tuple))) if tuple.is_tick() => {
                drop(to.send(FromChild::Ack(tuple.id)).await)
            }
            Ok(Some(ToChild::Tuple(tuple))) => inboxes.take(tuple).await,
            // Nothing here asks for them.
            Ok(Some(ToChild::TaskIds(_))) => {}
            Ok(Some(other)) => break Err(unexpected(Some(&other), "a tuple")),
        }
    };
    inboxes.end();
    // What came before is worked off: the host may have closed only its own end.
    let _ = tokio::time::timeout(LAST_WORK, running.finished()).await;
    running.drain(Duration::ZERO).await;
    drop((to, inboxes));
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
    let declare = |served: &mut Served| {
        declare(served);
        Ok(())
    };
    serve_spout_with(input, output, &ServeOptions::default(), declare).await
}

/// As [`serve_spout`], with a declaration that may fail.
pub(crate) async fn serve_spout_with<F>(
    input: impl AsyncRead + Unpin + Send,
    output: impl AsyncWrite + Unpin + Send + 'static,
    options: &ServeOptions,
    declare: F,
) -> Result<(), ServeError>
where
    F: FnOnce(&mut Served) -> Result<(), PartError>,
{
    let mut host = HostReader::new(input);
    let (handshake, to, writing) = host.begin(output).await?;
    let mut topology = TopologyBuilder::new(name(&handshake));
    topology.message_timeout(None);
    let (ready, mut waiting) = mpsc::channel(READY);
    let mut served = Served { topology, ends: Ends::Spout(ready) };
    declare(&mut served)?;
    // It is the host who activates it.
    let topology = served.topology.build()?;
    let options = engine_options(&handshake, options, keeps_state(&topology)).await?;
    let running = Engine::submit(topology, EngineOptions { active: false, ..options }).await?;
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
