//! A child over its lives: started, watched, given up, started again.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use galerna_retry::{Backoff, Pauses};
use galerna_topology::{Clock, Counter, Fault, Gauge, TaskContext};
use serde_json::Value;
use tempfile::TempDir;

use crate::child::{Child, ChildOutput, Who};
use crate::command::ShellCommand;
use crate::message::{FromChild, Handshake, LogLevel, ToChild};
use crate::outputs::Forms;
use crate::place::{self, TaskNumbers, WiredInput};

/// The pause before a child is started again, the first time.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// How many things a child may measure.
const MOST_METRICS: usize = 1000;
/// The most of an error's text that goes into reasons, in bytes.
const SHOWN: usize = 4000;

/// What a host waited for.
#[derive(Debug)]
pub(crate) enum Event {
    /// The child is ready.
    Ready,
    /// It said this.
    Messages(Vec<FromChild>),
    /// There is room for a tuple.
    Room,
    /// It is gone, and all that it had with it.
    Gone(String),
    /// It could not be started.
    NotStarted(String),
}

/// How a child is asked whether it lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Liveness {
    /// By heartbeats.
    Heartbeats,
    /// By the answers to commands.
    Answers,
}

pub(crate) struct Host {
    command: Arc<ShellCommand>,
    who: Who,
    context: TaskContext,
    liveness: Liveness,
    handshake: Handshake,
    pub(crate) numbers: TaskNumbers,
    pid_dir: Option<TempDir>,
    child: Option<Child>,
    /// Whether it has answered the handshake.
    ready: bool,
    started: Duration,
    retry_at: Duration,
    backoff: Backoff,
    /// Since when an answer is due.
    awaiting: Option<Duration>,
    next_heartbeat: Duration,
    /// What it said last about something that went wrong, for the tuples that fail by it.
    error: Option<String>,
    /// What is to be told of a life that ended.
    report: Option<Fault>,
    gauges: HashMap<String, Gauge>,
    restarts: Counter,
    errors: Counter,
}

impl Host {
    pub(crate) fn new(
        command: Arc<ShellCommand>,
        context: &TaskContext,
        liveness: Liveness,
        inputs: &[WiredInput],
        outputs: &Forms,
    ) -> Result<Self, Fault> {
        let numbers = TaskNumbers::of(context);
        let mut handshake = place::handshake(context, &numbers, inputs, outputs, &command.conf);
        let pid_dir = match &command.pid_dir {
            Some(folder) => {
                std::fs::create_dir_all(folder).map_err(|error| folder_fault(folder, &error))?;
                handshake.pid_dir = folder.display().to_string();
                None
            }
            None => {
                let folder = tempfile::Builder::new().prefix("galerna-pids-").tempdir();
                let folder = folder.map_err(|error| folder_fault(&std::env::temp_dir(), &error))?;
                handshake.pid_dir = folder.path().display().to_string();
                Some(folder)
            }
        };
        let longest = command.longest_pause;
        Ok(Self {
            who: Who { component: context.component().into(), task: context.task() },
            context: context.clone(),
            liveness,
            handshake,
            numbers,
            pid_dir,
            child: None,
            ready: false,
            started: Duration::ZERO,
            retry_at: Duration::ZERO,
            backoff: Pauses::new(FIRST_PAUSE.min(longest), longest).begin(),
            awaiting: None,
            next_heartbeat: Duration::ZERO,
            error: None,
            report: None,
            gauges: HashMap::new(),
            restarts: context.counter("child_restarts"),
            errors: context.counter("child_errors"),
            command,
        })
    }

    /// Starts the first child.
    pub(crate) async fn open(&mut self) -> Result<(), Fault> {
        loop {
            match self.event(false, true).await {
                Event::Ready => return Ok(()),
                Event::Messages(messages) => {
                    // Of a child that is not ready, only what is for the log.
                    for message in messages {
                        self.note(message);
                    }
                }
                Event::Room => {}
                Event::Gone(reason) | Event::NotStarted(reason) => return Err(Fault::unavailable(reason)),
            }
        }
    }

    pub(crate) fn is_ready(&self) -> bool {
        self.ready
    }

    pub(crate) fn command(&self) -> &ShellCommand {
        &self.command
    }

    fn clock(&self) -> &Arc<dyn Clock> {
        self.context.clock()
    }

    /// A fault to tell of, once.
    pub(crate) fn take_report(&mut self) -> Option<Fault> {
        self.report.take()
    }

    /// Puts something wrong on record that cost no child.
    pub(crate) fn tell(&mut self, reason: String) {
        self.errors.add(1);
        tracing::warn!(target: "galerna::multilang", component = &*self.who.component, task = self.who.task, "{reason}");
        self.report.get_or_insert(Fault::permanent(reason));
    }

    /// What comes next: of a child that is `busy`, answers are due. Cancel-safe.
    pub(crate) async fn event(&mut self, want_room: bool, busy: bool) -> Event {
        let clock = self.clock().clone();
        loop {
            let now = clock.now();
            let Some(child) = &mut self.child else {
                if now < self.retry_at {
                    clock.sleep_until(self.retry_at).await;
                }
                match self.start() {
                    Ok(()) => continue,
                    Err(reason) => return Event::NotStarted(reason),
                }
            };
            if busy || !self.ready {
                self.awaiting.get_or_insert(now);
            }
            let heartbeat = if self.ready && self.liveness == Liveness::Heartbeats {
                self.next_heartbeat
            } else {
                Duration::MAX
            };
            let deadline =
                self.awaiting.map_or(Duration::MAX, |since| since.saturating_add(self.command.timeout));
            let max_pending = self.command.max_pending;
            let (queue, wants) = (child.queue.clone(), want_room && self.ready);
            let heard = tokio::select! {
                biased;
                heard = child.next_output() => Some(heard),
                () = queue.room(max_pending), if wants => return Event::Room,
                () = clock.sleep_until(heartbeat.min(deadline)) => None,
            };
            let now = clock.now();
            match heard {
                Some(ChildOutput::Messages(messages)) => {
                    self.awaiting = None;
                    if let Some(event) = self.heard(messages, now) {
                        return event;
                    }
                }
                Some(ChildOutput::Wrong(error)) => return self.give_up(&error.to_string()),
                Some(ChildOutput::Ended(how)) => return self.give_up(&how),
                None if now >= deadline => {
                    let seconds = self.command.timeout.as_secs_f64();
                    let what =
                        if self.ready { "the child" } else { "the child did not answer the handshake: it" };
                    return self
                        .give_up(&format!("{what} has said nothing for {seconds} s, and counts as hung"));
                }
                None if now >= heartbeat => {
                    queue.heartbeat();
                    self.next_heartbeat = now.saturating_add(self.command.heartbeat);
                    self.awaiting.get_or_insert(now);
                }
                None => {}
            }
        }
    }

    /// What the child has said, without waiting.
    pub(crate) fn try_messages(&mut self) -> Option<Vec<FromChild>> {
        if !self.ready {
            return None;
        }
        // Its end is left for who waits.
        match self.child.as_mut()?.heard_messages() {
            Some(messages) => {
                self.awaiting = None;
                Some(messages)
            }
            None => None,
        }
    }

    fn heard(&mut self, mut messages: Vec<FromChild>, now: Duration) -> Option<Event> {
        if self.ready {
            return Some(Event::Messages(messages));
        }
        let Some(at) = messages.iter().position(|message| matches!(message, FromChild::Pid { .. })) else {
            messages.into_iter().for_each(|message| drop(self.note(message)));
            return None;
        };
        let rest = messages.split_off(at + 1);
        if let (Some(FromChild::Pid { pid, frames }), Some(child)) = (messages.pop(), &mut self.child) {
            let frames = frames.unwrap_or_default();
            child.queue.set_frames(frames);
            child.push_back(rest);
            tracing::info!(
                target: "galerna::multilang", component = &*self.who.component, task = self.who.task, pid,
                frames = frames.name(), "a child is ready"
            );
        }
        messages.into_iter().for_each(|message| drop(self.note(message)));
        self.ready = true;
        self.next_heartbeat = now.saturating_add(self.command.heartbeat);
        Some(Event::Ready)
    }

    fn start(&mut self) -> Result<(), String> {
        let now = self.clock().now();
        self.started = now;
        match Child::spawn(&self.command, &self.who) {
            Ok(child) => {
                // It is the first message: there is room.
                let _ = child.queue.urgent(ToChild::Handshake(self.handshake.clone()));
                self.child = Some(child);
                self.ready = false;
                self.awaiting = Some(now);
                Ok(())
            }
            Err(error) => {
                let reason = format!("`{}` cannot be started: {error}", self.command.line());
                self.put_off(&reason);
                Err(reason)
            }
        }
    }

    fn put_off(&mut self, reason: &str) {
        let now = self.clock().now();
        if self.ready && now.saturating_sub(self.started) >= self.command.longest_pause {
            self.backoff.reset();
        }
        let pause = self.backoff.pause();
        self.retry_at = now.saturating_add(pause);
        tracing::warn!(
            target: "galerna::multilang", component = &*self.who.component, task = self.who.task,
            pause_ms = pause.as_millis() as u64, "{reason}; it is started again"
        );
        self.report = Some(Fault::unavailable(reason));
    }

    /// The child is of no use any more: it is killed if it lives.
    pub(crate) fn give_up(&mut self, how: &str) -> Event {
        let mut reason = format!("`{}`: {how}", self.command.line());
        if let Some(error) = self.error.take() {
            reason = format!("{reason}; its last error: {error}");
        }
        self.remove_pid_file();
        self.child = None;
        self.awaiting = None;
        self.restarts.add(1);
        self.put_off(&reason);
        if std::mem::take(&mut self.ready) { Event::Gone(reason) } else { Event::NotStarted(reason) }
    }

    fn remove_pid_file(&self) {
        if let Some(child) = &self.child {
            // It may never have made one.
            let _ = std::fs::remove_file(Path::new(&self.handshake.pid_dir).join(child.pid.to_string()));
        }
    }

    /// Queues a message that goes before tuples.
    pub(crate) fn send(&mut self, message: ToChild) -> Result<(), Event> {
        let Some(child) = &self.child else { return Ok(()) };
        let sent = child.queue.urgent(message);
        sent.map_err(|_| self.give_up("the child does not read the answers that it asked for"))
    }

    /// Queues a tuple.
    pub(crate) fn send_tuple(&mut self, tuple: crate::message::TupleMessage) {
        if let Some(child) = &self.child {
            child.queue.tuple(tuple);
        }
    }

    /// Ends the child in order: its input is closed, and what it says until it ends comes as messages, and after them nothing. One that
    /// does not end within the time is killed.
    pub(crate) fn close_input(&mut self) {
        if let Some(child) = &self.child {
            child.queue.close();
        }
    }

    /// What a child says whose input is closed, until it ends.
    pub(crate) async fn last_messages(&mut self) -> Option<Vec<FromChild>> {
        match self.child.as_mut()?.next_output().await {
            ChildOutput::Messages(messages) => Some(messages),
            ChildOutput::Wrong(error) => {
                self.tell(format!("`{}`: {error}", self.command.line()));
                None
            }
            ChildOutput::Ended(_) => None,
        }
    }

    /// The child is over.
    pub(crate) fn closed(&mut self) {
        self.remove_pid_file();
        self.child = None;
        self.ready = false;
        self.pid_dir = None;
    }

    /// Deals with what any child may say: log lines, errors, metrics. Returns what is left.
    pub(crate) fn note(&mut self, message: FromChild) -> Option<FromChild> {
        match message {
            FromChild::Log { text, level } => self.log(level, &text),
            FromChild::Error(text) => {
                self.log(LogLevel::Error, &text);
                self.errors.add(1);
                self.error = Some(shorten(text));
            }
            FromChild::Metric { name, value } => self.measure(name, &value),
            FromChild::Unknown(command) => {
                self.log(LogLevel::Warn, &format!("it sent the command `{command}`, which there is not"));
            }
            FromChild::Pid { .. } => {}
            other => return Some(other),
        }
        None
    }

    /// What it said last about something that went wrong.
    pub(crate) fn error(&self) -> Option<&str> {
        self.error.as_deref()
    }

    pub(crate) fn clear_error(&mut self) {
        self.error = None;
    }

    fn log(&self, level: LogLevel, text: &str) {
        let (component, task) = (&*self.who.component, self.who.task);
        let pid = self.child.as_ref().map_or(0, |child| child.pid);
        match level {
            LogLevel::Trace => tracing::trace!(target: "galerna::multilang", component, task, pid, "{text}"),
            LogLevel::Debug => tracing::debug!(target: "galerna::multilang", component, task, pid, "{text}"),
            LogLevel::Info => tracing::info!(target: "galerna::multilang", component, task, pid, "{text}"),
            LogLevel::Warn => tracing::warn!(target: "galerna::multilang", component, task, pid, "{text}"),
            LogLevel::Error => tracing::error!(target: "galerna::multilang", component, task, pid, "{text}"),
        }
    }

    fn measure(&mut self, name: String, value: &Value) {
        let Some(value) = value.as_f64() else {
            self.log(LogLevel::Debug, &format!("metric {name}: {value}"));
            return;
        };
        if let Some(gauge) = self.gauges.get(&name) {
            gauge.set(value);
        } else if self.gauges.len() < MOST_METRICS {
            let gauge = self.context.gauge(&name);
            gauge.set(value);
            self.gauges.insert(name, gauge);
        } else {
            self.log(
                LogLevel::Warn,
                &format!("it measures more than {MOST_METRICS} things: `{name}` is left out"),
            );
        }
    }
}

fn folder_fault(folder: &Path, error: &std::io::Error) -> Fault {
    Fault::unavailable(format!(
        "the folder for process ids cannot be made in {}: {error}; name another with `pid_dir`",
        folder.display()
    ))
}

fn shorten(mut text: String) -> String {
    if text.len() > SHOWN {
        let mut at = SHOWN;
        while !text.is_char_boundary(at) {
            at -= 1;
        }
        text.truncate(at);
        text.push('…');
    }
    text
}
