//! A bolt in another language.

use std::collections::HashMap;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use galerna_topology::{Anchor, AsyncBolt, Counter, Emitter, Fault, TaskContext};
use tokio::time::timeout;

use crate::command::ShellCommand;
use crate::host::{Event, Host, Liveness};
use crate::message::{DEFAULT_STREAM, Emit, FromChild, Id, ToChild, TupleMessage};
use crate::outputs::{EmitWith, Forms, Parsed, ShellOutputs};
use crate::place::{WiredInput, Wiring};
use crate::row::Row;

/// What a child may say while one tuple waits to be sent to it: then it has to wait for what is downstream.
const HEARD_AT_ONCE: usize = 512;
/// How long a child may take to end when its input is closed.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// A tuple that the child has.
enum Held {
    /// It is neither acked nor failed.
    Open(Anchor),
    /// It failed for another reason; what the child says of it no longer counts.
    Failed,
}

/// Runs a bolt in another language, one child a task. Declared by [`shell_bolt`](crate::ShellTopology::shell_bolt).
pub struct ShellBolt<O> {
    command: Arc<ShellCommand>,
    wiring: Wiring,
    forms: Forms,
    running: Option<Running>,
    marker: PhantomData<fn() -> O>,
}

struct Running {
    host: Host,
    inputs: Vec<WiredInput>,
    held: HashMap<i64, Held>,
    next_id: i64,
    /// Ticks sent so far: the ids of ticks are negative.
    ticks: i64,
    last_tick: Duration,
    unanswerable: Counter,
}

impl<O: ShellOutputs> ShellBolt<O> {
    pub(crate) fn new(command: Arc<ShellCommand>, wiring: Wiring) -> Self {
        Self { command, wiring, forms: O::forms(), running: None, marker: PhantomData }
    }
}

/// What the child wrote makes no sense: it must be replaced.
struct Nonsense(String);

/// Whether it is the id of one of so many ticks.
fn is_tick(id: Option<i64>, ticks: i64) -> bool {
    id.is_some_and(|id| (-ticks..0).contains(&id))
}

impl Running {
    /// All that the child has fails.
    fn fail_all(&mut self, reason: &str) {
        let fault = Fault::transient(reason);
        for (_, held) in self.held.drain() {
            if let Held::Open(anchor) = held {
                anchor.fail(fault.clone());
            }
        }
    }

    /// The child is gone, or could not be started.
    fn gone(&mut self, event: Event) {
        if let Event::Gone(reason) | Event::NotStarted(reason) = event {
            self.fail_all(&reason);
        }
    }

    fn give_up(&mut self, nonsense: &Nonsense) {
        let event = self.host.give_up(&nonsense.0);
        self.gone(event);
    }

    /// Deals with what the child said. Returns how many messages that were.
    fn handle<O: ShellOutputs>(
        &mut self,
        messages: Vec<FromChild>,
        forms: &Forms,
        out: &mut Emitter<O>,
    ) -> usize {
        let heard = messages.len();
        for message in messages {
            let Some(message) = self.host.note(message) else { continue };
            let outcome = match message {
                FromChild::Emit(emit) => self.emit(emit, forms, out),
                FromChild::Ack(id) => self.settle(&id, None),
                FromChild::Fail(id) => {
                    let reason = self.host.error().unwrap_or("the bolt failed the tuple").to_owned();
                    self.settle(&id, Some(reason))
                }
                _ => Ok(()),
            };
            if let Err(nonsense) = outcome {
                self.give_up(&nonsense);
                break;
            }
        }
        heard
    }

    fn settle(&mut self, id: &Id, failed: Option<String>) -> Result<(), Nonsense> {
        let number = id.as_integer();
        match number.and_then(|number| self.held.remove(&number)) {
            Some(Held::Open(anchor)) => match failed {
                None => {
                    self.host.clear_error();
                    anchor.ack();
                }
                Some(reason) => anchor.fail(Fault::transient(reason)),
            },
            Some(Held::Failed) => {}
            None if is_tick(number, self.ticks) => {}
            None => {
                let what = if failed.is_some() { "failed" } else { "acked" };
                return Err(Nonsense(format!("it {what} the tuple `{id}`, which it does not have")));
            }
        }
        Ok(())
    }

    fn emit<O: ShellOutputs>(
        &mut self,
        emit: Emit,
        forms: &Forms,
        out: &mut Emitter<O>,
    ) -> Result<(), Nonsense> {
        let stream = emit.stream.as_deref().unwrap_or(DEFAULT_STREAM);
        let asks = emit.need_task_ids && emit.task.is_none();
        let parsed = O::parse(forms, stream, emit.values).map_err(|error| error.to_string());
        let task = emit.task.map(|number| {
            let index = self.host.numbers.index(number);
            index.ok_or_else(|| format!("it emitted to the task {number}, which there is not"))
        });
        let parsed = match (parsed, task.transpose()) {
            (Ok(parsed), Ok(task)) => Ok((parsed, task)),
            (Err(reason), _) | (_, Err(reason)) => Err(reason),
        };
        let tasks = match parsed {
            Ok((parsed, task)) => self.emit_parsed(parsed, task, &emit.anchors, asks, out)?,
            Err(reason) => {
                self.refuse(&emit.anchors, reason)?;
                Vec::new()
            }
        };
        if asks && let Err(event) = self.host.send(ToChild::TaskIds(tasks)) {
            self.gone(event);
        }
        Ok(())
    }

    fn emit_parsed<O: ShellOutputs>(
        &mut self,
        parsed: Parsed<O>,
        task: Option<usize>,
        ids: &[Id],
        asks: bool,
        out: &mut Emitter<O>,
    ) -> Result<Vec<i64>, Nonsense> {
        let mut anchors = Vec::with_capacity(ids.len());
        for id in ids {
            let number = id.as_integer();
            match number.and_then(|number| self.held.get(&number)) {
                Some(Held::Open(anchor)) => anchors.push(anchor),
                // The roots of what failed are over, and those of ticks never were.
                Some(Held::Failed) => {}
                None if is_tick(number, self.ticks) => {}
                None => {
                    return Err(Nonsense(format!("it anchored to the tuple `{id}`, which it does not have")));
                }
            }
        }
        let with = EmitWith { anchors: Some(&anchors), task };
        if asks {
            let destinations = out.emit_traced(|outputs| parsed(outputs, with));
            return Ok(self.host.numbers.numbers(&destinations));
        }
        parsed(out, with);
        Ok(Vec::new())
    }

    /// What the child emitted is no tuple: those that it was to be anchored to fail.
    fn refuse(&mut self, anchors: &[Id], reason: String) -> Result<(), Nonsense> {
        for id in anchors {
            let number = id.as_integer();
            match number.and_then(|number| self.held.get_mut(&number)) {
                Some(held) => {
                    if let Held::Open(anchor) = std::mem::replace(held, Held::Failed) {
                        anchor.fail(Fault::permanent(&*reason));
                    }
                }
                None if is_tick(number, self.ticks) => {}
                None => {
                    return Err(Nonsense(format!("it anchored to the tuple `{id}`, which it does not have")));
                }
            }
        }
        self.unanswerable.add(1);
        self.host.tell(reason);
        Ok(())
    }
}

impl<O: ShellOutputs> AsyncBolt for ShellBolt<O> {
    type Input = Row;
    type Outputs = O;

    async fn prepare(&mut self, context: &TaskContext) -> Result<(), Fault> {
        let inputs = self.wiring.inputs();
        let mut host = Host::new(self.command.clone(), context, Liveness::Heartbeats, &inputs, &self.forms)?;
        host.open().await?;
        self.running = Some(Running {
            host,
            inputs,
            held: HashMap::new(),
            next_id: 1,
            ticks: 0,
            last_tick: context.now(),
            unanswerable: context.counter("child_bad_tuples"),
        });
        Ok(())
    }

    async fn execute(&mut self, row: Row, out: &mut Emitter<O>) -> Result<(), Fault> {
        let Self { running: Some(running), forms, .. } = self else {
            return Err(Fault::unavailable("the bolt was not prepared"));
        };
        let Some(origin) = out.origin() else { return Ok(()) };
        let (input, sender) = (origin.input(), origin.task());
        let Some(input) = running.inputs.get(input).cloned() else {
            return Err(Fault::permanent("it came by a subscription that the bolt was not declared with"));
        };
        let values = row.into_values().map_err(|error| Fault::permanent(error.to_string()))?;
        let (found, expected) = (values.len(), input.fields.names().len());
        if found != expected {
            return Err(Fault::permanent(format!(
                "the tuple has {found} values, and the stream {}.{} has {expected} fields; name as many with `serialized_as`",
                input.component, input.stream
            )));
        }
        let max_unsettled = running.host.command().max_unsettled;
        let mut heard = 0;
        // What it says meanwhile is dealt with, or it might wait for that before it reads on.
        loop {
            match running.host.event(true, false).await {
                Event::Room => break,
                Event::Ready => {}
                Event::Messages(messages) => {
                    heard += running.handle(messages, forms, out);
                    if heard >= HEARD_AT_ONCE && running.host.is_ready() {
                        break;
                    }
                }
                event @ Event::Gone(_) => running.gone(event),
                Event::NotStarted(reason) => return Err(Fault::unavailable(reason)),
            }
        }
        if running.held.len() >= max_unsettled {
            return Err(Fault::unavailable(format!(
                "the child has {} tuples that it neither acks nor fails; raise `max_unsettled` if that is meant",
                running.held.len()
            )));
        }
        let id = running.next_id;
        running.next_id += 1;
        running.held.insert(id, Held::Open(out.keep()));
        running.host.send_tuple(TupleMessage {
            id: Id::Text(id.to_string()),
            task: running.host.numbers.number(&input.component, sender),
            component: Some(input.component),
            stream: input.stream,
            values,
        });
        Ok(())
    }

    async fn progress(&mut self, out: &mut Emitter<O>) -> Result<(), Fault> {
        let Self { running: Some(running), forms, .. } = self else { return std::future::pending().await };
        if let Some(report) = running.host.take_report() {
            return Err(report);
        }
        match running.host.event(false, false).await {
            Event::Messages(messages) => drop(running.handle(messages, forms, out)),
            Event::Ready | Event::Room => {}
            event @ (Event::Gone(_) | Event::NotStarted(_)) => running.gone(event),
        }
        Ok(())
    }

    async fn tick(&mut self, out: &mut Emitter<O>) -> Result<(), Fault> {
        let Some(running) = &mut self.running else { return Ok(()) };
        let now = out.context().now();
        let since = now.saturating_sub(running.last_tick);
        running.last_tick = now;
        if running.host.is_ready() {
            running.ticks += 1;
            let id = Id::Text((-running.ticks).to_string());
            let seconds = since.as_secs_f64().round().max(1.0) as u64;
            running.host.send_tuple(TupleMessage::tick(id, seconds));
        }
        Ok(())
    }

    async fn close(&mut self, out: &mut Emitter<O>) {
        let Self { running: Some(running), forms, .. } = self else { return };
        if running.host.is_ready() {
            running.host.close_input();
            let ended = timeout(CLOSE_TIMEOUT, async {
                while let Some(messages) = running.host.last_messages().await {
                    running.handle(messages, forms, out);
                }
            });
            if ended.await.is_err() {
                running
                    .host
                    .tell("the child did not end when its input was closed, and was killed".to_owned());
            }
        }
        running.fail_all("the topology ended before the bolt had acked the tuple");
        running.host.closed();
    }
}
