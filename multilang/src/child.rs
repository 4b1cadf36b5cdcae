//! A child process: its pipes, each served by a task of its own, so that neither waits for the other.

use std::collections::VecDeque;
use std::io;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, BufReader};
use tokio::process::{Child as Process, ChildStdout, Command};
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinHandle};
use tokio::time::timeout;

use crate::command::ShellCommand;
use crate::frame::{Decoder, Frames, WireError};
use crate::message::FromChild;
use crate::write_queue::WriteQueue;

/// Messages that are passed on at once at most.
const TOGETHER: usize = 256;
/// Groups of messages that may wait: beyond that the child's output is not read.
const WAITING: usize = 4;
/// How long a child that has closed its output may take to end, and an output may stay open when its process has ended.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// The lines of standard error that are kept, and how long they may be, in bytes.
const TAIL: usize = 20;
const LONGEST_LINE: usize = 4096;

/// What comes of a child, in order.
#[derive(Debug)]
pub(crate) enum ChildOutput {
    Messages(Vec<FromChild>),
    /// What it wrote is not of the protocol. Nothing follows.
    Wrong(WireError),
    /// All it wrote was read. Nothing follows.
    Ended(String),
}

/// A running child. It is killed when this is dropped.
#[derive(Debug)]
pub(crate) struct Child {
    pub(crate) pid: u32,
    pub(crate) queue: Arc<WriteQueue>,
    heard: mpsc::Receiver<ChildOutput>,
    pushed_back: Option<ChildOutput>,
    tasks: Vec<AbortHandle>,
}

impl Drop for Child {
    fn drop(&mut self) {
        // The task that reads holds the process, which ends with it.
        self.tasks.iter().for_each(AbortHandle::abort);
    }
}

/// Who a child is, for the log.
#[derive(Debug, Clone)]
pub(crate) struct Who {
    pub(crate) component: Arc<str>,
    pub(crate) task: usize,
}

impl Child {
    /// Starts the program.
    pub(crate) fn spawn(command: &ShellCommand, who: &Who) -> io::Result<Self> {
        let Some((program, arguments)) = command.words.split_first() else {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the command has no words"));
        };
        let mut spawned = Command::new(program);
        spawned
            .args(arguments)
            .envs(&command.environment)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        // A Ctrl-C in a terminal is for this process, which drains; children end when it closes their input.
        #[cfg(unix)]
        spawned.process_group(0);
        if let Some(folder) = &command.folder {
            spawned.current_dir(folder);
        }
        let mut process = spawned.spawn()?;
        let pipes = (process.stdin.take(), process.stdout.take(), process.stderr.take());
        let (Some(stdin), Some(stdout), Some(stderr)) = pipes else {
            return Err(io::Error::other("the process has no pipes"));
        };
        let pid = process.id().unwrap_or_default();
        let queue = Arc::<WriteQueue>::default();
        let (to, heard) = mpsc::channel(WAITING);
        let tail = Arc::<Tail>::default();
        let writing = tokio::spawn({
            let queue = queue.clone();
            async move { queue.write_to(stdin).await }
        });
        let draining = tokio::spawn(drain_errors(stderr, tail.clone(), who.clone(), pid));
        let reader = Reader {
            process,
            stdout: Some(stdout),
            decoder: Decoder::new(Frames::Json, command.max_message),
            to,
        };
        let reading = tokio::spawn(reader.run(tail, draining));
        Ok(Self {
            pid,
            queue,
            heard,
            pushed_back: None,
            tasks: vec![writing.abort_handle(), reading.abort_handle()],
        })
    }

    /// What it says next. Cancel-safe.
    pub(crate) async fn next_output(&mut self) -> ChildOutput {
        if let Some(heard) = self.pushed_back.take() {
            return heard;
        }
        let heard = self.heard.recv().await;
        heard.unwrap_or_else(|| ChildOutput::Ended("its output is read no longer".to_owned()))
    }

    /// The messages that it has said, if the next that is there are such.
    pub(crate) fn heard_messages(&mut self) -> Option<Vec<FromChild>> {
        match self.pushed_back.take().or_else(|| self.heard.try_recv().ok())? {
            ChildOutput::Messages(messages) => Some(messages),
            other => {
                self.pushed_back = Some(other);
                None
            }
        }
    }

    /// These messages come next again.
    pub(crate) fn push_back(&mut self, messages: Vec<FromChild>) {
        if !messages.is_empty() {
            self.pushed_back = Some(ChildOutput::Messages(messages));
        }
    }
}

struct Reader {
    process: Process,
    stdout: Option<ChildStdout>,
    decoder: Decoder<FromChild>,
    to: mpsc::Sender<ChildOutput>,
}

impl Reader {
    async fn run(mut self, tail: Arc<Tail>, draining: JoinHandle<()>) {
        let heard = match self.read().await {
            Err(wrong) => ChildOutput::Wrong(wrong),
            Ok(()) => {
                let status = match timeout(LAST_WORDS, self.process.wait()).await {
                    Ok(status) => status,
                    Err(_) => self.kill().await,
                };
                // What holds on to its standard error may live on.
                let _ = timeout(LAST_WORDS, draining).await;
                ChildOutput::Ended(describe(status, &tail))
            }
        };
        // The other side may have lost interest.
        let _ = self.to.send(heard).await;
    }

    async fn kill(&mut self) -> io::Result<ExitStatus> {
        self.process.start_kill()?;
        self.process.wait().await
    }

    /// Passes on what it writes until it ends.
    async fn read(&mut self) -> Result<(), WireError> {
        let Some(mut stdout) = self.stdout.take() else { return Ok(()) };
        let mut bytes = vec![0; 1 << 16];
        let mut exited = false;
        loop {
            let read = if exited {
                // What is in the pipe is read; who else holds its other end is not waited for.
                timeout(LAST_WORDS, stdout.read(&mut bytes)).await.unwrap_or(Ok(0))
            } else {
                tokio::select! {
                    biased;
                    read = stdout.read(&mut bytes) => read,
                    _ = self.process.wait() => {
                        exited = true;
                        continue;
                    }
                }
            };
            match read {
                Ok(0) | Err(_) => return self.decoder.finish(),
                Ok(count) => self.decoder.feed(&bytes[..count]),
            }
            if !self.pass_on().await? {
                return Ok(());
            }
        }
    }

    /// Passes on the messages that are whole. Returns whether anybody wants more.
    async fn pass_on(&mut self) -> Result<bool, WireError> {
        loop {
            let mut messages = Vec::new();
            let mut wrong = None;
            while messages.len() < TOGETHER {
                match self.decoder.next_message() {
                    Ok(Some(message)) => {
                        if let FromChild::Pid { frames: Some(frames), .. } = &message {
                            self.decoder.set_frames(*frames);
                        }
                        messages.push(message);
                    }
                    Ok(None) => break,
                    Err(error) => {
                        wrong = Some(error);
                        break;
                    }
                }
            }
            let all = messages.len() < TOGETHER;
            if !messages.is_empty() && self.to.send(ChildOutput::Messages(messages)).await.is_err() {
                return Ok(false);
            }
            match wrong {
                Some(wrong) => return Err(wrong),
                None if all => return Ok(true),
                None => {}
            }
        }
    }
}

/// How it ended, with what it said last on standard error.
fn describe(status: io::Result<ExitStatus>, tail: &Tail) -> String {
    let mut text = match status {
        Ok(status) => format!("the child ended ({status})"),
        Err(error) => format!("the child ended ({error})"),
    };
    let lines = tail.lines.lock().unwrap_or_else(PoisonError::into_inner);
    if !lines.is_empty() {
        text.push_str("; the end of its standard error:");
        for line in lines.iter() {
            text.push('\n');
            text.push_str(line);
        }
    }
    text
}

/// The last lines of standard error.
#[derive(Debug, Default)]
struct Tail {
    lines: Mutex<VecDeque<String>>,
}

/// Reads standard error to its end, for the log: a child must never wait for that.
async fn drain_errors(stderr: impl AsyncRead + Unpin, tail: Arc<Tail>, who: Who, pid: u32) {
    let mut stderr = BufReader::new(stderr);
    let mut line = Vec::new();
    loop {
        let Ok(chunk) = stderr.fill_buf().await else { return };
        let ended = chunk.is_empty();
        let (taken, whole) = match chunk.iter().position(|byte| *byte == b'\n') {
            Some(at) => (at + 1, true),
            None => (chunk.len(), ended),
        };
        let room = LONGEST_LINE.saturating_sub(line.len());
        line.extend_from_slice(&chunk[..taken.min(room)]);
        stderr.consume(taken);
        if whole && !line.trim_ascii().is_empty() {
            let text = String::from_utf8_lossy(line.trim_ascii_end()).into_owned();
            tracing::warn!(target: "galerna::multilang", component = &*who.component, task = who.task, pid, "{text}");
            let mut lines = tail.lines.lock().unwrap_or_else(PoisonError::into_inner);
            if lines.len() == TAIL {
                lines.pop_front();
            }
            lines.push_back(text);
        }
        if whole {
            line.clear();
        }
        if ended {
            return;
        }
    }
}
