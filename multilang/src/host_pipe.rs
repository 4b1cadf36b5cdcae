//! The pipes of a child to its host.

#[cfg(unix)]
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;

use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
#[cfg(unix)]
use tokio::net::unix::pipe;
use tokio::sync::mpsc;

use crate::frame::{Decoder, Frames};
use crate::message::{FromChild, Handshake, ToChild};
use crate::serve::ServeError;

/// The longest message that a host may send, in bytes.
const LONGEST: usize = 64 << 20;
/// Messages that may wait to be written.
const UNWRITTEN: usize = 1024;
/// Messages that are written together at most.
const TOGETHER: usize = 256;

/// What comes from the host, message by message.
pub(crate) struct HostReader<R> {
    pipe: R,
    decoder: Decoder<ToChild>,
    bytes: Vec<u8>,
}

impl<R: AsyncRead + Unpin> HostReader<R> {
    pub(crate) fn new(pipe: R) -> Self {
        Self { pipe, decoder: Decoder::new(Frames::Json, LONGEST), bytes: vec![0; 1 << 16] }
    }

    /// The next message; none when the host has gone. Not cancel-safe.
    pub(crate) async fn next(&mut self) -> Result<Option<ToChild>, ServeError> {
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
    pub(crate) async fn begin(
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

pub(crate) fn unexpected(sent: Option<&ToChild>, expected: &'static str) -> ServeError {
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
pub(crate) fn name(handshake: &Handshake) -> Arc<str> {
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
