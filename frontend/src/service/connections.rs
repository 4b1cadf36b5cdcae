//! Connections: how many, how slow they may be, how long they live, and how they end.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::ConnectInfo;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::frontend::Frontend;

/// Headers of a request, and bytes of its head.
const HEADERS: usize = 64;
const HEAD_BYTES: usize = 32 << 10;
/// A connection is asked to close after so long, and closed after twice that: nobody keeps a place by not reading answers.
const LIFE: Duration = Duration::from_secs(600);
/// After a failed accept, which happens when files run out.
const PAUSE_AFTER_FAILURE: Duration = Duration::from_millis(100);

/// So many connections, or fewer where files are few: half of those that the process may open are for the broker, the stores and
/// what is kept on disk. When files run out, not only calls fail.
pub(crate) fn affordable(wanted: usize) -> usize {
    // Only Linux has it.
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let Some(files) = open_files(&limits) else { return wanted };
    let connections = wanted.min(files / 2).max(1);
    if connections < wanted {
        tracing::info!(
            files,
            wanted,
            connections,
            "connections are bounded by the files that this process may open"
        );
    }
    connections
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
    /// The listener failed.
    #[error("frontend cannot listen: {0}")]
    Io(#[from] std::io::Error),
}

impl Frontend {
    /// Serves until `shutdown` completes. Then `/readyz` says 503, after [`notice`](crate::Timeouts::notice) no more connections
    /// are taken, calls under way are finished, and statistics are written.
    ///
    /// # Errors
    /// [`ServeError`] when the listener has no address.
    pub async fn serve(
        &self,
        listener: TcpListener,
        shutdown: impl Future<Output = ()> + Send + 'static,
    ) -> Result<(), ServeError> {
        self.serve_with(Router::new(), listener, shutdown).await
    }

    /// As [`serve`](Self::serve), with routes of the process `beside` the frontend's own. They are neither counted nor guarded
    /// here, and must have no path of the frontend's and no fallback.
    ///
    /// # Errors
    /// [`ServeError`] when the listener has no address.
    ///
    /// # Panics
    /// When a path of `beside` is one of the frontend's, or it has a fallback.
    pub async fn serve_with(
        &self,
        beside: Router,
        listener: TcpListener,
        shutdown: impl Future<Output = ()> + Send + 'static,
    ) -> Result<(), ServeError> {
        let router = self.router().merge(beside);
        let address = listener.local_addr()?;
        let connections = self.core().options.limits.connections;
        tracing::info!(%address, connections, "frontend listens");
        let timeouts = self.core().options.timeouts.clone();
        let stop = CancellationToken::new();
        let connections = TaskTracker::new();
        let accepting = self.accept(router, &listener, &connections, &stop);
        let noticed = async {
            shutdown.await;
            self.begin_drain();
            tracing::info!(%address, "frontend drains");
            sleep(timeouts.notice).await;
        };
        tokio::select! {
            () = accepting => {}
            () = noticed => {}
        }
        drop(listener);
        stop.cancel();
        connections.close();
        if timeout(timeouts.drain, connections.wait()).await.is_err() {
            tracing::warn!(open = connections.len(), "some calls did not end in time");
        }
        self.finish_drain().await;
        Ok(())
    }

    async fn accept(
        &self,
        router: Router,
        listener: &TcpListener,
        connections: &TaskTracker,
        stop: &CancellationToken,
    ) {
        let options = &self.core().options;
        let places = Arc::new(Semaphore::new(options.limits.connections.min(Semaphore::MAX_PERMITS)));
        let first_byte = options.timeouts.first_byte;
        let mut http = http1::Builder::new();
        http.timer(TokioTimer::new())
            .header_read_timeout(options.timeouts.head)
            .max_headers(HEADERS)
            .max_buf_size(HEAD_BYTES);
        loop {
            // Closed never; more connections wait in the listener's backlog until one of these ends.
            let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
            let (stream, peer) = match listener.accept().await {
                Ok(accepted) => accepted,
                Err(e) => {
                    tracing::warn!(error = %e, "a connection could not be taken");
                    sleep(PAUSE_AFTER_FAILURE).await;
                    continue;
                }
            };
            let gauge = self.core().metrics.connections.clone();
            let (http, router, stop) = (http.clone(), router.clone(), stop.clone());
            connections.spawn(async move {
                gauge.inc();
                if asks(&stream, first_byte, &stop).await {
                    serve_one(stream, peer, &http, router, stop).await;
                }
                gauge.dec();
                drop(place);
            });
        }
    }
}

/// Whether a first byte comes in time: what only connects is to give its place back soon.
async fn asks(stream: &TcpStream, patience: Duration, stop: &CancellationToken) -> bool {
    let mut first = [0];
    tokio::select! {
        biased;
        peeked = timeout(patience, stream.peek(&mut first)) => matches!(peeked, Ok(Ok(1))),
        () = stop.cancelled() => false,
    }
}

async fn serve_one(
    stream: TcpStream,
    peer: SocketAddr,
    http: &http1::Builder,
    router: Router,
    stop: CancellationToken,
) {
    // Answers are small and waited for: none is to wait for a delayed acknowledgement.
    if let Err(cause) = stream.set_nodelay(true) {
        tracing::debug!(%cause, "TCP_NODELAY cannot be set");
    }
    let service = TowerToHyperService::new(router);
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(ConnectInfo(peer));
        service.call(request)
    });
    let connection = http.serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => Some(ended),
        () = stop.cancelled() => None,
        () = sleep(LIFE) => None,
    };
    let ended = match ended {
        Some(ended) => ended,
        None => {
            connection.as_mut().graceful_shutdown();
            match timeout(LIFE, connection).await {
                Ok(ended) => ended,
                Err(_) => return tracing::debug!(%peer, "a connection that did not end was closed"),
            }
        }
    };
    if let Err(cause) = ended {
        tracing::debug!(%peer, %cause, "a connection ended early");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_soft_limit_of_open_files_is_read_and_half_of_it_taken() {
        let head = "Limit                     Soft Limit           Hard Limit           Units     \nMax processes             4096                 8192                 processes \n";
        for (line, files) in [
            ("Max open files            1024                 524288               files     \n", Some(1_024)),
            ("Max open files            unlimited            unlimited            files     \n", None),
            ("", None),
        ] {
            assert_eq!(open_files(&format!("{head}{line}")), files, "{line}");
        }
        assert_eq!(affordable(1), 1);
        if let Some(files) = open_files(&std::fs::read_to_string("/proc/self/limits").unwrap_or_default()) {
            assert_eq!(affordable(usize::MAX), files / 2);
        }
    }
}
