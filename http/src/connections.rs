//! The connections of a listener: how many there are, of whom, and which of them give way when there is no room for more.
//!
//! A connection *waits* while no request of it is being answered: its first byte, the rest of a head, or the next request has
//! not come. Who only waits costs nothing but a place, so when places run out the connections that have waited longest are
//! closed. Thousands of half-sent heads therefore keep nobody out who sends a whole one.

use std::collections::HashMap;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use galerna_lock::Mutex;
use hyper::body::{Frame, SizeHint};
use prometheus::IntGauge;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout};

/// A connection has at least this long to send its request before it gives way to others.
const YIELDS_AFTER: Duration = Duration::from_millis(500);
/// How often, while no place is free, it is looked for connections that give way.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// When places run out, one in so many connections gives way at once, so that looking for them costs little.
const YIELDING: usize = 16;

/// All connections of a listener.
pub(crate) struct Connections {
    places: Arc<Semaphore>,
    of_one: usize,
    began: Instant,
    open: Mutex<OpenConnections>,
    gauge: Option<IntGauge>,
}

#[derive(Default)]
struct OpenConnections {
    last: u64,
    all: HashMap<u64, Arc<Activity>>,
    /// Connections by the network that they came from; of those that are limited.
    by_network: HashMap<IpAddr, usize>,
}

/// What a connection does.
pub(crate) struct Activity {
    network: IpAddr,
    began: Instant,
    /// Requests that are being answered.
    requests: AtomicUsize,
    /// Milliseconds from `began` to when it began to wait.
    waits_since: AtomicU64,
    yields: Notify,
}

impl Activity {
    fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Since when it waits, if it does.
    fn waits_since(&self) -> Option<u64> {
        (self.requests.load(Ordering::Acquire) == 0).then(|| self.waits_since.load(Ordering::Acquire))
    }

    /// A request of it is being answered until this is dropped.
    pub(crate) fn request(self: &Arc<Self>) -> Answering {
        self.requests.fetch_add(1, Ordering::AcqRel);
        Answering(Arc::clone(self))
    }

    /// Completes when no request is being answered. Cancellation-safe.
    pub(crate) async fn waiting(&self) {
        while self.waits_since().is_none() {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Completes when the connection is to give way. Cancellation-safe.
    pub(crate) async fn gives_way(&self) {
        loop {
            self.yields.notified().await;
            if self.waits_since().is_some() {
                return;
            }
        }
    }
}

/// A request that is being answered.
pub(crate) struct Answering(Arc<Activity>);

impl Drop for Answering {
    fn drop(&mut self) {
        self.0.waits_since.store(self.0.now(), Ordering::Release);
        self.0.requests.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Connections {
    pub(crate) fn new(all: usize, of_one: usize, gauge: Option<IntGauge>) -> Arc<Self> {
        Arc::new(Self {
            places: Arc::new(Semaphore::new(all.clamp(1, Semaphore::MAX_PERMITS))),
            of_one: of_one.max(1),
            began: Instant::now(),
            open: Mutex::default(),
            gauge,
        })
    }

    /// Waits until there is room for one more connection; those that wait for their callers give way.
    pub(crate) async fn place(&self) -> Option<OwnedSemaphorePermit> {
        loop {
            if let Ok(place) = Arc::clone(&self.places).try_acquire_owned() {
                return Some(place);
            }
            self.let_give_way(None);
            match timeout(LOOK_EVERY, Arc::clone(&self.places).acquire_owned()).await {
                Ok(Ok(place)) => return Some(place),
                Ok(Err(_)) => return None,
                Err(_) => {}
            }
        }
    }

    /// Lets a connection in; `None` when its network has as many as one may have. `limited` says whether that counts.
    pub(crate) fn open(
        self: &Arc<Self>,
        place: OwnedSemaphorePermit,
        network: IpAddr,
        limited: bool,
    ) -> Option<Open> {
        let mut open = self.open.lock();
        if limited {
            let of_network = open.by_network.entry(network).or_default();
            if *of_network >= self.of_one {
                drop(open);
                self.let_give_way(Some(network));
                return None;
            }
            *of_network += 1;
        }
        open.last += 1;
        let id = open.last;
        let activity = Arc::new(Activity {
            network,
            began: self.began,
            requests: AtomicUsize::new(0),
            waits_since: AtomicU64::new(0),
            yields: Notify::new(),
        });
        activity.waits_since.store(activity.now(), Ordering::Release);
        open.all.insert(id, Arc::clone(&activity));
        drop(open);
        if let Some(gauge) = &self.gauge {
            gauge.inc();
        }
        Some(Open { of: Arc::clone(self), id, limited, activity, _place: place })
    }

    /// Asks the connections that have waited longest, of all or of one network, to end.
    pub(crate) fn let_give_way(&self, of: Option<IpAddr>) {
        let open = self.open.lock();
        let enough = u64::try_from(YIELDS_AFTER.as_millis()).unwrap_or(u64::MAX);
        let now = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        let mut waiting: Vec<(u64, &Arc<Activity>)> = open
            .all
            .values()
            .filter(|activity| of.is_none_or(|network| activity.network == network))
            .filter_map(|activity| Some((activity.waits_since()?, activity)))
            .filter(|(since, _)| now.saturating_sub(*since) >= enough)
            .collect();
        let count = open.all.len().div_ceil(YIELDING).min(waiting.len());
        if let Some(last) = count.checked_sub(1) {
            waiting.select_nth_unstable_by_key(last, |(since, _)| *since);
            for (_, activity) in &waiting[..count] {
                activity.yields.notify_one();
            }
        }
    }
}

/// An open connection, with its place.
pub(crate) struct Open {
    of: Arc<Connections>,
    id: u64,
    limited: bool,
    pub(crate) activity: Arc<Activity>,
    _place: OwnedSemaphorePermit,
}

impl Drop for Open {
    fn drop(&mut self) {
        let mut open = self.of.open.lock();
        open.all.remove(&self.id);
        if self.limited
            && let Some(of_network) = open.by_network.get_mut(&self.activity.network)
        {
            *of_network -= 1;
            if *of_network == 0 {
                open.by_network.remove(&self.activity.network);
            }
        }
        drop(open);
        if let Some(gauge) = &self.of.gauge {
            gauge.dec();
        }
    }
}

/// The body of an answer: while it is being sent, its connection does not wait.
pub(crate) struct AnswerBody {
    body: Body,
    _answering: Answering,
}

impl AnswerBody {
    pub(crate) fn new(body: Body, answering: Answering) -> Self {
        Self { body, _answering: answering }
    }
}

impl hyper::body::Body for AnswerBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(n: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, n])
    }

    async fn open(connections: &Arc<Connections>, network: IpAddr) -> Option<Open> {
        let place = connections.place().await.unwrap();
        connections.open(place, network, true)
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_longest_gives_way_and_who_is_answered_does_not() {
        let connections = Connections::new(3, 3, None);
        let busy = open(&connections, ip(1)).await.unwrap();
        let answering = busy.activity.request();
        tokio::time::advance(Duration::from_secs(1)).await;
        let first = open(&connections, ip(2)).await.unwrap();
        tokio::time::advance(Duration::from_secs(1)).await;
        let second = open(&connections, ip(3)).await.unwrap();
        let ending = tokio::spawn(async move {
            let (of_first, of_second) = (Arc::clone(&first.activity), Arc::clone(&second.activity));
            tokio::select! {
                () = of_first.gives_way() => drop(first),
                () = of_second.gives_way() => panic!("it came later"),
                () = busy.activity.gives_way() => panic!("it is being answered"),
            }
            (busy, second)
        });
        let third = open(&connections, ip(4)).await.unwrap();
        let rest = ending.await.unwrap();
        drop((rest, third, answering));
        assert!(connections.open.lock().all.is_empty());
        assert!(connections.open.lock().by_network.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn one_network_has_so_many_connections_and_others_have_theirs() {
        let gauge = IntGauge::new("open", "open").unwrap();
        let connections = Connections::new(10, 2, Some(gauge.clone()));
        let mut held =
            vec![open(&connections, ip(1)).await.unwrap(), open(&connections, ip(1)).await.unwrap()];
        assert!(open(&connections, ip(1)).await.is_none());
        held.push(open(&connections, ip(2)).await.unwrap());
        assert_eq!(gauge.get(), 3);
        held.remove(0);
        held.push(open(&connections, ip(1)).await.unwrap());
        held.clear();
        assert_eq!(gauge.get(), 0);
        assert_eq!(connections.places.available_permits(), 10);
    }

    #[tokio::test]
    async fn a_body_holds_its_request_until_it_is_sent() {
        use http_body_util::BodyExt;
        let connections = Connections::new(1, 1, None);
        let open = open(&connections, ip(1)).await.unwrap();
        let body = Body::new(AnswerBody::new(Body::from("text"), open.activity.request()));
        assert_eq!(hyper::body::Body::size_hint(&body).exact(), Some(4));
        assert!(open.activity.waits_since().is_none());
        assert_eq!(body.collect().await.unwrap().to_bytes(), "text");
        assert!(open.activity.waits_since().is_some());
    }
}
