//! A spout in another language.

use std::collections::VecDeque;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use galerna_topology::{Counter, Failed, Fault, Next, Roots, Spout, TaskContext};
use tokio::time::timeout;

use crate::command::ShellCommand;
use crate::host::{Event, Host, Liveness};
use crate::message::{DEFAULT_STREAM, Emit, FromChild, Id, SpoutCommand, ToChild};
use crate::outputs::{EmitWith, Forms, ShellOutputs};

/// The pause after a call that brought nothing, the first time, and the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(1);
const LONGEST_PAUSE: Duration = Duration::from_millis(16);
/// How long a child may take to hear of its last acks, and to end when its input is closed.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// What a root of a child is called: by the child, in its life.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShellMessageId {
    life: u64,
    id: Id,
}

/// Runs a spout in another language, one child a task. Declared by [`shell_spout`](crate::ShellTopology::shell_spout).
pub struct ShellSpout<O> {
    command: Arc<ShellCommand>,
    forms: Forms,
    running: Option<Running>,
    marker: PhantomData<fn() -> O>,
}

/// Commands go one at a time: the child ends its answer to each with a `sync`.
struct Running {
    host: Host,
    /// How many children there were.
    life: u64,
    /// What it is doing.
    current: Option<SpoutCommand>,
    /// Whether it has emitted since it was given that.
    emitted: bool,
    /// Whether it has emitted the root anew that it was told had failed.
    replayed: bool,
    /// What it is to be told next.
    commands: VecDeque<SpoutCommand>,
    /// What it said and was not dealt with.
    heard: VecDeque<FromChild>,
    active: bool,
    /// Whether a call for more brought nothing, and the pause after that.
    pause: Option<Duration>,
    next_pause: Duration,
    not_replayed: Counter,
    of_former_lives: Counter,
    bad_tuples: Counter,
}

impl<O: ShellOutputs> ShellSpout<O> {
    pub(crate) fn new(command: Arc<ShellCommand>) -> Self {
        Self { command, forms: O::forms(), running: None, marker: PhantomData }
    }
}

impl Running {
    /// Gives the child the next command if it waits for one.
    fn send_next(&mut self) {
        if self.current.is_some() || !self.host.is_ready() || !self.heard.is_empty() {
            return;
        }
        if let Some(command) = self.commands.pop_front() {
            self.send(command);
        }
    }

    fn send(&mut self, command: SpoutCommand) {
        self.current = Some(command.clone());
        (self.emitted, self.replayed) = (false, false);
        if let Err(event) = self.host.send(ToChild::Command(command)) {
            self.gone(event);
        }
    }

    fn gone(&mut self, event: Event) {
        if let Event::Gone(_) | Event::NotStarted(_) = event {
            self.life += 1;
            self.current = None;
            self.heard.clear();
            // The next one knows nothing of these roots.
            let lost = self.commands.len() as u64;
            self.commands.clear();
            self.of_former_lives.add(lost);
            if self.active {
                self.commands.push_back(SpoutCommand::Activate);
            }
        }
    }

    /// Deals with what waits, as far as that goes without emitting.
    fn handle(&mut self) {
        while let Some(message) = self.heard.pop_front() {
            if matches!(message, FromChild::Emit(_)) {
                self.heard.push_front(message);
                return;
            }
            self.take(message);
        }
    }

    /// Deals with anything but an emit.
    fn take(&mut self, message: FromChild) {
        match self.host.note(message) {
            Some(FromChild::Sync) => self.synced(),
            Some(FromChild::Ack(id) | FromChild::Fail(id)) => {
                let event =
                    self.host.give_up(&format!("a spout settled the tuple `{id}`, which only bolts can"));
                self.gone(event);
            }
            _ => {}
        }
    }

    fn synced(&mut self) {
        match self.current.take() {
            Some(SpoutCommand::Next) if self.emitted => {
                self.pause = None;
                self.next_pause = FIRST_PAUSE;
            }
            Some(SpoutCommand::Next) => {
                self.pause = Some(self.next_pause);
                self.next_pause = (self.next_pause * 2).min(LONGEST_PAUSE);
            }
            Some(SpoutCommand::Fail(_)) if !self.replayed => self.not_replayed.add(1),
            _ => {}
        }
        self.host.clear_error();
    }

    /// Emits what waits, and deals with the rest.
    fn emit_all<O: ShellOutputs>(&mut self, forms: &Forms, out: &mut Roots<'_, ShellSpout<O>>) {
        while let Some(message) = self.heard.pop_front() {
            match message {
                FromChild::Emit(emit) => self.emit(emit, forms, out),
                other => self.take(other),
            }
        }
    }

    fn emit<O: ShellOutputs>(&mut self, emit: Emit, forms: &Forms, out: &mut Roots<'_, ShellSpout<O>>) {
        self.emitted = true;
        if let (Some(SpoutCommand::Fail(failed)), Some(id)) = (&self.current, &emit.id)
            && failed == id
        {
            self.replayed = true;
        }
        let stream = emit.stream.as_deref().unwrap_or(DEFAULT_STREAM);
        let asks = emit.need_task_ids && emit.task.is_none();
        let parsed = O::parse(forms, stream, emit.values).map_err(|error| error.to_string());
        let task = emit.task.map(|number| {
            let index = self.host.numbers.index(number);
            index.ok_or_else(|| format!("it emitted to the task {number}, which there is not"))
        });
        let id = emit.id.map(|id| ShellMessageId { life: self.life, id });
        let tasks = match (parsed, task.transpose()) {
            (Ok(parsed), Ok(task)) => {
                let with = EmitWith { anchors: None, task };
                if asks {
                    self.host.numbers.numbers(&out.emit_traced(id, |outputs| parsed(outputs, with)))
                } else {
                    parsed(if let Some(id) = id { out.root(id) } else { out.untracked() }, with);
                    Vec::new()
                }
            }
            (Err(reason), _) | (_, Err(reason)) => {
                self.bad_tuples.add(1);
                self.host.tell(reason);
                // It hears of it as of any tuple that failed.
                if let Some(id) = id {
                    self.commands.push_back(SpoutCommand::Fail(id.id));
                }
                Vec::new()
            }
        };
        if asks && let Err(event) = self.host.send(ToChild::TaskIds(tasks)) {
            self.gone(event);
        }
    }

    /// Waits for what the child says next.
    async fn wait(&mut self) {
        let busy = self.current.is_some();
        match self.host.event(false, busy).await {
            Event::Messages(messages) => self.heard.extend(messages),
            Event::Ready | Event::Room => {}
            event @ (Event::Gone(_) | Event::NotStarted(_)) => self.gone(event),
        }
    }

    /// Has the child hear all commands while it may not emit. What it emits meanwhile waits until it may.
    async fn finish_commands(&mut self) {
        loop {
            self.handle();
            self.send_next();
            let waits_to_emit = !self.heard.is_empty();
            let done = self.current.is_none() && self.commands.is_empty();
            if waits_to_emit || done || !self.host.is_ready() {
                return;
            }
            self.wait().await;
        }
    }

    /// Takes what became of roots; `command` makes the one to be sent.
    fn settle(&mut self, id: ShellMessageId, command: fn(Id) -> SpoutCommand) {
        if id.life == self.life {
            self.commands.push_back(command(id.id));
        } else {
            self.of_former_lives.add(1);
        }
    }

    async fn settled(&mut self) {
        if self.active {
            self.send_next();
        } else {
            self.finish_commands().await;
        }
    }
}

impl<O: ShellOutputs> Spout for ShellSpout<O> {
    type MessageId = ShellMessageId;
    type Outputs = O;

    async fn open(&mut self, context: &TaskContext) -> Result<(), Fault> {
        let mut host = Host::new(self.command.clone(), context, Liveness::Answers, &[], &self.forms)?;
        host.open().await?;
        self.running = Some(Running {
            host,
            life: 0,
            current: None,
            emitted: false,
            replayed: false,
            commands: VecDeque::new(),
            heard: VecDeque::new(),
            active: false,
            pause: None,
            next_pause: FIRST_PAUSE,
            not_replayed: context.counter("child_not_replayed"),
            of_former_lives: context.counter("child_lost_roots"),
            bad_tuples: context.counter("child_bad_tuples"),
        });
        Ok(())
    }

    async fn next(&mut self, out: &mut Roots<'_, Self>) -> Result<Next, Fault> {
        let Self { running: Some(running), forms, .. } = self else { return Ok(Next::Idle) };
        if let Some(report) = running.host.take_report() {
            return Err(report);
        }
        let room = out.room();
        if let Some(messages) = running.host.try_messages() {
            running.heard.extend(messages);
        }
        running.emit_all(forms, out);
        running.send_next();
        if room > out.room() {
            return Ok(Next::Ready);
        }
        if running.current.is_some() || !running.host.is_ready() {
            return Ok(Next::Idle);
        }
        // It is called again after the pause, or when there is something to tell the child.
        if let Some(pause) = running.pause.take() {
            return Ok(Next::After(pause));
        }
        running.send(SpoutCommand::Next);
        Ok(Next::Idle)
    }

    async fn ready(&mut self) {
        let Some(running) = &mut self.running else { return std::future::pending().await };
        let can_send = running.current.is_none() && !running.commands.is_empty() && running.host.is_ready();
        if can_send || !running.heard.is_empty() {
            return;
        }
        running.wait().await;
    }

    async fn acked(&mut self, ids: &mut Vec<ShellMessageId>) {
        let Some(running) = &mut self.running else { return };
        ids.drain(..).for_each(|id| running.settle(id, SpoutCommand::Ack));
        running.settled().await;
    }

    async fn failed(&mut self, failed: &mut Vec<Failed<ShellMessageId>>) {
        let Some(running) = &mut self.running else { return };
        failed.drain(..).for_each(|failed| running.settle(failed.id, SpoutCommand::Fail));
        running.settled().await;
    }

    async fn activate(&mut self) {
        let Some(running) = &mut self.running else { return };
        running.active = true;
        running.commands.push_back(SpoutCommand::Activate);
        running.finish_commands().await;
    }

    async fn deactivate(&mut self) {
        let Some(running) = &mut self.running else { return };
        running.active = false;
        running.commands.push_back(SpoutCommand::Deactivate);
        running.finish_commands().await;
    }

    async fn close(&mut self) {
        let Some(running) = &mut self.running else { return };
        let ended = timeout(CLOSE_TIMEOUT, async {
            // What it would still emit goes nowhere: only what it is told matters.
            while running.host.is_ready() && (running.current.is_some() || !running.commands.is_empty()) {
                running.heard.retain(|message| !matches!(message, FromChild::Emit(_)));
                running.finish_commands().await;
                if running.heard.is_empty() && running.current.is_some() {
                    running.wait().await;
                }
            }
            if running.host.is_ready() {
                running.host.close_input();
                while let Some(messages) = running.host.last_messages().await {
                    messages.into_iter().for_each(|message| drop(running.host.note(message)));
                }
            }
        });
        if ended.await.is_err() {
            running.host.tell("the child did not end when its input was closed, and was killed".to_owned());
        }
        running.host.closed();
    }
}
