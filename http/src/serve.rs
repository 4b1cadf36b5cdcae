//! Listening, and ending without losing a call.
//!
//! At the end there are three steps:
//!
//! 1. *notice*: calls are served as before, but every answer carries `Connection: close`, and the service says that it is not
//!    ready, so that callers and load balancers turn elsewhere;
//! 2. *drain*: no connection is taken any more, those that are idle are closed, calls under way are answered;
//! 3. what is left after the time for draining is cut off.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use futures_util::FutureExt;
use galerna_retry::{Outage, Pauses};
use hyper::Request;
use hyper::body::Incoming;
use hyper::header::{CONNECTION, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use prometheus::IntGauge;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::address::network;
use crate::bearer::Exposed;
use crate::connections::{AnswerBody, Connections, Open};

/// Headers of a request, and bytes of its head.
const HEADERS: usize = 64;
const HEAD_BYTES: usize = 32 << 10;
/// After an accept that failed, which happens when files run out.
const ACCEPT_PAUSES: Pauses = Pauses::new(Duration::from_millis(10), Duration::from_secs(1));
/// At the end of the notice: for the request of a connection that has just been made, or whose head is on its way.
const LAST_REQUEST: Duration = Duration::from_millis(500);
/// What who has too many connections is told, if it reads it: nothing of a request has been read then.
const TOO_MANY: &[u8] = b"HTTP/1.1 429 Too Many Requests\r\ncontent-type: application/json\r\ncontent-length: 124\r\n\
    retry-after: 1\r\nconnection: close\r\n\r\n\
    {\"error\":{\"code\":\"too_many_connections\",\"message\":\"this address has as many connections as one may have; close some first\"}}";

/// How a service listens and ends.
#[derive(Debug, Clone)]
pub struct ServeOptions {
    /// What it is, for the log: `dispatcher API`.
    pub service: &'static str,
    /// Connections open at once; 1,024 by default. Beyond it those that have waited longest for a request give way; when all
    /// are being answered, more wait in the listener's backlog. See [`Self::within_files`].
    pub connections: usize,
    /// What one address may have of them (of IPv6 its network); a quarter of `connections` by default. More are refused.
    pub connections_of_one: usize,
    /// Whether that holds for callers on this machine too; not by default: a proxy there speaks for many.
    pub limits_loopback: bool,
    /// For the first byte on a new connection; 10 s by default.
    pub first_byte: Duration,
    /// For the head of a request, counted from when its connection is idle; 30 s by default.
    pub head: Duration,
    /// A connection is asked to close after so long, and closed after twice that: nobody keeps a place by not reading answers.
    /// 10 minutes by default.
    pub lifetime: Duration,
    /// At the end: how long it is served on with `Connection: close`, so that callers can turn elsewhere; none by default.
    pub notice: Duration,
    /// At the end: for calls under way; 30 s by default.
    pub drain: Duration,
    /// Shows how many connections are open.
    pub open: Option<IntGauge>,
}

impl ServeOptions {
    /// The defaults, for a service of this name.
    pub fn new(service: &'static str) -> Self {
        let seconds = Duration::from_secs;
        Self {
            service,
            connections: 1_024,
            connections_of_one: 256,
            limits_loopback: false,
            first_byte: seconds(10),
            head: seconds(30),
            lifetime: seconds(600),
            notice: Duration::ZERO,
            drain: seconds(30),
            open: None,
        }
    }

    /// With no more connections than one in `share` of the files that the process may open: the others are for brokers, stores
    /// and other listeners. When files run out, not only calls fail. The part of one address shrinks alike.
    #[must_use]
    pub fn within_files(mut self, share: usize) -> Self {
        // Only Linux has it.
        let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
        if let Some(files) = open_files(&limits) {
            let connections = self.connections.min(files / share.max(1)).max(1);
            if connections < self.connections {
                let (service, wanted) = (self.service, self.connections);
                tracing::info!(
                    service,
                    files,
                    wanted,
                    connections,
                    "connections are bounded by the files that may be open"
                );
                self.connections_of_one = (self.connections_of_one * connections / wanted).max(1);
                self.connections = connections;
            }
        }
        self
    }
}

/// The soft limit of open files; none when it is unlimited.
fn open_files(limits: &str) -> Option<usize> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Serving that cannot start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// The listener is open to others and there is no token.
    #[error(transparent)]
    TokenNeeded(Exposed),
    /// The listener failed.
    #[error("the listener cannot be served: {0}")]
    Io(#[from] io::Error),
}

/// What all connections of a service share.
struct Server {
    options: ServeOptions,
    router: Router,
    http: http1::Builder,
    connections: Arc<Connections>,
    /// Answers carry `Connection: close`.
    noticed: AtomicBool,
    /// Idle connections end, others after their answer.
    draining: CancellationToken,
    /// All connections end.
    cut_off: CancellationToken,
    tasks: TaskTracker,
}

/// Serves until `shutdown` completes; then gives notice, answers the calls under way and returns.
///
/// Handlers find the caller's address as [`ConnectInfo<SocketAddr>`](ConnectInfo).
///
/// # Errors
/// [`ServeError`] when the listener has no address.
pub async fn serve_until(
    listener: TcpListener,
    router: Router,
    options: ServeOptions,
    shutdown: impl Future<Output = ()> + Send,
) -> Result<(), ServeError> {
    let address = listener.local_addr()?;
    let (service, notice, drain) = (options.service, options.notice, options.drain);
    tracing::info!(service, %address, connections = options.connections, "the {service} listens");
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(options.head)
        .max_headers(HEADERS)
        .max_buf_size(HEAD_BYTES);
    let server = Arc::new(Server {
        connections: Connections::new(options.connections, options.connections_of_one, options.open.clone()),
        options,
        router,
        http,
        noticed: AtomicBool::new(false),
        draining: CancellationToken::new(),
        cut_off: CancellationToken::new(),
        tasks: TaskTracker::new(),
    });
    // Whoever stops to wait for this ends the connections too.
    let _cut_off = server.cut_off.clone().drop_guard();
    let noticed = async {
        shutdown.await;
        server.noticed.store(true, Ordering::Release);
        tracing::info!(service, %address, "the {service} drains");
        sleep(notice).await;
    };
    tokio::select! {
        never = server.accept(&listener) => match never {},
        () = noticed => {}
    }
    // Callers whose connections wait in the backlog have connected to somebody: they are answered.
    while let Some(Ok((stream, peer))) = listener.accept().now_or_never() {
        let Some(Some(place)) = server.connections.place().now_or_never() else { break };
        server.start(stream, peer, place);
    }
    drop(listener);
    server.draining.cancel();
    server.tasks.close();
    if timeout(drain, server.tasks.wait()).await.is_err() {
        tracing::warn!(service, open = server.tasks.len(), "some calls did not end in time");
        server.cut_off.cancel();
        server.tasks.wait().await;
    }
    Ok(())
}

impl Server {
    async fn accept(self: &Arc<Self>, listener: &TcpListener) -> Infallible {
        let mut outage = Outage::new("taking connections", ACCEPT_PAUSES);
        loop {
            match listener.accept().await {
                Ok((stream, peer)) => {
                    outage.succeeded();
                    if let Some(place) = self.connections.place().await {
                        self.start(stream, peer, place);
                    }
                }
                // The caller went away between connecting and being taken.
                Err(e) if is_of_the_caller(&e) => {}
                Err(e) => {
                    // When files run out, those that wait for nothing have some to give.
                    self.connections.let_give_way(None);
                    sleep(outage.failed(&e)).await;
                }
            }
        }
    }

    fn start(
        self: &Arc<Self>,
        stream: TcpStream,
        peer: SocketAddr,
        place: tokio::sync::OwnedSemaphorePermit,
    ) {
        let limited = self.options.limits_loopback || !peer.ip().to_canonical().is_loopback();
        let Some(open) = self.connections.open(place, network(peer.ip()), limited) else {
            // Whether it is read is the caller's affair: nothing is waited for.
            drop(stream.try_write(TOO_MANY));
            return;
        };
        let server = Arc::clone(self);
        self.tasks.spawn(async move {
            tokio::select! {
                () = server.connection(stream, peer, &open) => {}
                () = server.cut_off.cancelled() => {}
            }
        });
    }

    async fn connection(&self, stream: TcpStream, peer: SocketAddr, open: &Open) {
        // Answers are small and waited for: none is to wait for a delayed acknowledgement.
        if let Err(cause) = stream.set_nodelay(true) {
            tracing::debug!(%cause, "TCP_NODELAY cannot be set");
        }
        if !self.asks(&stream, open).await {
            return;
        }
        let service = TowerToHyperService::new(self.router.clone());
        let service = service_fn(|mut request: Request<Incoming>| {
            let answering = open.activity.request();
            request.extensions_mut().insert(ConnectInfo(peer));
            let answer = service.call(request);
            async {
                let mut answer = answer.await?;
                if self.noticed.load(Ordering::Acquire) {
                    answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
                }
                Ok::<_, Infallible>(answer.map(|body| Body::new(AnswerBody::new(body, answering))))
            }
        });
        let connection = self.http.serve_connection(TokioIo::new(stream), service);
        let mut connection = std::pin::pin!(connection);
        let lifetime = self.options.lifetime;
        let ended = tokio::select! {
            // Looked at first: a request that has come is read before its connection is taken for idle.
            biased;
            ended = connection.as_mut() => Some(ended),
            () = open.activity.gives_way() => return tracing::debug!(%peer, "an idle connection gave way to others"),
            () = self.draining.cancelled() => None,
            () = sleep(lifetime) => None,
        };
        let ended = match ended {
            Some(ended) => ended,
            None => {
                connection.as_mut().graceful_shutdown();
                tokio::select! {
                    ended = connection => ended,
                    () = self.no_last_request(open) => return,
                    () = sleep(lifetime) => return tracing::debug!(%peer, "a connection that did not end was closed"),
                }
            }
        };
        if let Err(cause) = ended {
            tracing::debug!(%peer, %cause, "a connection ended early");
        }
    }

    /// Completes when the service drains and a head that was on its way has still not come.
    async fn no_last_request(&self, open: &Open) {
        self.draining.cancelled().await;
        sleep(LAST_REQUEST).await;
        open.activity.waiting().await;
    }

    /// Whether a first byte comes in time: what only connects is to give its place back soon.
    async fn asks(&self, stream: &TcpStream, open: &Open) -> bool {
        let mut first = [0];
        let drained = async {
            self.draining.cancelled().await;
            sleep(LAST_REQUEST).await;
        };
        tokio::select! {
            biased;
            peeked = timeout(self.options.first_byte, stream.peek(&mut first)) => matches!(peeked, Ok(Ok(1))),
            () = open.activity.gives_way() => false,
            () = drained => false,
        }
    }
}

fn is_of_the_caller(e: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(e.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_soft_limit_of_open_files_is_read_and_connections_are_a_part_of_it() {
        let head = "Limit                     Soft Limit           Hard Limit           Units     \nMax processes             4096                 8192                 processes \n";
        for (line, files) in [
            ("Max open files            1024                 524288               files     \n", Some(1_024)),
            ("Max open files            unlimited            unlimited            files     \n", None),
            ("", None),
        ] {
            assert_eq!(open_files(&format!("{head}{line}")), files, "{line}");
        }
        let few = ServeOptions { connections: 1, connections_of_one: 1, ..ServeOptions::new("test") };
        assert_eq!(few.within_files(2).connections, 1);
        if let Some(files) = open_files(&std::fs::read_to_string("/proc/self/limits").unwrap_or_default()) {
            let many = ServeOptions {
                connections: 1 << 40,
                connections_of_one: 1 << 38,
                ..ServeOptions::new("test")
            };
            let many = many.within_files(2);
            assert_eq!((many.connections, many.connections_of_one), (files / 2, files / 8));
        }
    }

    #[test]
    fn what_who_has_too_many_connections_is_told_is_whole() {
        let text = std::str::from_utf8(TOO_MANY).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("content-length: {}\r\n", body.len())), "{}", body.len());
        let body: serde_json::Value = serde_json::from_str(body).unwrap();
        assert_eq!(body["error"]["code"], "too_many_connections");
    }
}
