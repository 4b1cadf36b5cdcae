//! Where a part of a topology meets its host: spouts that emit what the host sends, and bolts that send what it gets.

use std::collections::{HashMap, VecDeque};
use std::marker::PhantomData;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use galerna_topology::{
    Anchor, AsyncBolt, Data, Emitter, Failed, Fault, Next, Output, Roots, Spout, Stream, TopologyBuilder,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::sync::{Notify, mpsc};

use crate::form::Fields;
use crate::message::{Emit, FromChild, Id, TupleMessage};
use crate::row::to_values;

/// The component that stands for the host.
pub(crate) const HOST: &str = "host";
/// Tuples of a host that may be here: it is never held back, or its heartbeats would be.
const PENDING: usize = 1 << 24;

/// A part of a topology that is served: its streams from and to the host.
pub struct Served {
    pub(crate) topology: TopologyBuilder,
    pub(crate) ends: Ends,
}

/// Where tuples for the host go.
#[derive(Clone)]
pub(crate) enum Ends {
    /// Of a bolt: written as they come.
    Bolt(mpsc::Sender<FromChild>),
    /// Of a spout: kept until the host asks for them.
    Spout(mpsc::Sender<Ready>),
}

/// A tuple of a spout that the host may have.
pub(crate) struct Ready {
    pub(crate) values: Vec<Value>,
    pub(crate) stream: Arc<str>,
    pub(crate) anchor: Anchor,
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
        self.topology.async_bolt(format!("{HOST}-{name}"), sink).global(stream);
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
#[derive(Debug, Default)]
pub(crate) struct Inbox {
    tuples: Mutex<VecDeque<TupleMessage>>,
    more: Notify,
    /// No more comes.
    ended: AtomicBool,
}

impl Inbox {
    pub(crate) fn push(&self, tuple: TupleMessage) {
        self.tuples().push_back(tuple);
        self.more.notify_waiters();
    }

    /// No more comes.
    pub(crate) fn end(&self) {
        self.ended.store(true, Ordering::SeqCst);
        self.more.notify_waiters();
    }

    fn tuples(&self) -> MutexGuard<'_, VecDeque<TupleMessage>> {
        self.tuples.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The inboxes of what a host sends, by the stream that it came by.
pub(crate) struct Inboxes {
    /// Of whatever has none of its own.
    any: Option<Arc<Inbox>>,
    by_stream: HashMap<(Arc<str>, Arc<str>), Arc<Inbox>>,
    /// The same by both names with a dot between them, as streams are called that leave a stretch.
    by_both: HashMap<Arc<str>, Arc<Inbox>>,
    to: mpsc::Sender<FromChild>,
}

impl Inboxes {
    pub(crate) fn new(to: mpsc::Sender<FromChild>) -> Self {
        Self { any: None, by_stream: HashMap::new(), by_both: HashMap::new(), to }
    }

    /// Declares the spout of all that the host sends.
    pub(crate) fn all<T: Data + DeserializeOwned>(&mut self, topology: &mut TopologyBuilder) -> Stream<T> {
        let inbox = Arc::<Inbox>::default();
        self.any = Some(inbox.clone());
        from_host(topology, HOST.into(), inbox, &self.to)
    }

    /// Declares the spout of one stream.
    pub(crate) fn one<T: Data + DeserializeOwned>(
        &mut self,
        topology: &mut TopologyBuilder,
        component: &Arc<str>,
        stream: &Arc<str>,
    ) -> Stream<T> {
        let (inbox, both) = (Arc::<Inbox>::default(), both(component, stream));
        self.by_stream.insert((component.clone(), stream.clone()), inbox.clone());
        self.by_both.insert(both.clone(), inbox.clone());
        from_host(topology, format!("{HOST}.{both}").into(), inbox, &self.to)
    }

    fn of(&self, tuple: &TupleMessage) -> Option<&Arc<Inbox>> {
        let by_stream = tuple
            .component
            .as_ref()
            .and_then(|component| self.by_stream.get(&(component.clone(), tuple.stream.clone())));
        by_stream.or_else(|| self.by_both.get(&tuple.stream)).or(self.any.as_ref())
    }

    /// Takes a tuple, or has the host hear that nobody does.
    pub(crate) async fn take(&self, tuple: TupleMessage) {
        if let Some(inbox) = self.of(&tuple) {
            return inbox.push(tuple);
        }
        let component = tuple.component.as_deref().unwrap_or("nobody");
        let text = format!(
            "the tuple `{}` is of the stream {component}.{}, to which nothing here subscribes: write the Flux file anew with the \
             program that it runs",
            tuple.id, tuple.stream
        );
        // A host that has gone wants to know nothing.
        drop(self.to.send(FromChild::Error(text)).await);
        drop(self.to.send(FromChild::Fail(tuple.id)).await);
    }

    /// No more comes.
    pub(crate) fn end(&self) {
        self.by_stream.values().chain(&self.any).for_each(|inbox| inbox.end());
    }
}

/// The name of a stream that leaves a stretch.
pub(crate) fn both(component: &str, stream: &str) -> Arc<str> {
    format!("{component}.{stream}").into()
}

fn from_host<T: Data + DeserializeOwned>(
    topology: &mut TopologyBuilder,
    id: Arc<str>,
    inbox: Arc<Inbox>,
    to: &mpsc::Sender<FromChild>,
) -> Stream<T> {
    let to = to.clone();
    let spout = move || FromHost {
        inbox: inbox.clone(),
        to: to.clone(),
        fields: Fields::of::<T>(),
        types: PhantomData,
    };
    topology.spout(id, spout).max_pending(PENDING).outputs()
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
