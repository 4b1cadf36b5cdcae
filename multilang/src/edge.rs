//! Subscriptions that can leave the process: their tuples' form, and what makes tuples of it and it of tuples where the types are known
//! no longer.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use galerna_topology::{Data, EdgeForm, Stream};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::form::Fields;
use crate::host_ends::{Inboxes, Served};

/// The form of a subscription: what [`serialized`](crate::SerializedStream::serialized) says of a stream.
#[derive(Clone)]
pub(crate) struct Edge {
    pub(crate) fields: Fields,
    /// The fields that make the key, if it is told.
    pub(crate) keys: Vec<Arc<str>>,
    carrier: Arc<dyn Carrier>,
}

/// Carries the tuples of a stream from and to a host.
trait Carrier: Send + Sync {
    /// Declares the spout of a stream that comes from the host. Returns its id and the name of its output.
    fn receive(
        &self,
        served: &mut Served,
        inboxes: &mut Inboxes,
        component: &Arc<str>,
        stream: &Arc<str>,
    ) -> (Arc<str>, Arc<str>);

    /// Declares the bolt that sends a stream to the host, by this name.
    fn send(&self, served: &mut Served, component: &Arc<str>, stream: &Arc<str>, name: &str);
}

/// Of tuples of a type.
struct Typed<T>(PhantomData<fn(T) -> T>);

impl<T: Data + Serialize + DeserializeOwned> Carrier for Typed<T> {
    fn receive(
        &self,
        served: &mut Served,
        inboxes: &mut Inboxes,
        component: &Arc<str>,
        stream: &Arc<str>,
    ) -> (Arc<str>, Arc<str>) {
        let received: Stream<T> = inboxes.one(&mut served.topology, component, stream);
        (received.component().into(), received.name().into())
    }

    fn send(&self, served: &mut Served, component: &Arc<str>, stream: &Arc<str>, name: &str) {
        served.output::<T>(name, Stream::named(component.clone(), stream.clone()));
    }
}

impl Edge {
    pub(crate) fn of<T: Data + Serialize + DeserializeOwned>(fields: Fields) -> Self {
        Self { fields, keys: Vec::new(), carrier: Arc::new(Typed::<T>(PhantomData)) }
    }

    /// The one that a subscription was given.
    pub(crate) fn from_form(form: &EdgeForm) -> Option<&Self> {
        form.downcast_ref()
    }

    pub(crate) fn receive(
        &self,
        served: &mut Served,
        inboxes: &mut Inboxes,
        component: &Arc<str>,
        stream: &Arc<str>,
    ) -> (Arc<str>, Arc<str>) {
        self.carrier.receive(served, inboxes, component, stream)
    }

    pub(crate) fn send(&self, served: &mut Served, component: &Arc<str>, stream: &Arc<str>, name: &str) {
        self.carrier.send(served, component, stream, name);
    }
}

impl fmt::Debug for Edge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Edge").field("fields", &self.fields).field("keys", &self.keys).finish_non_exhaustive()
    }
}
