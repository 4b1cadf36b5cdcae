//! Connections: how many, how slow they may be, how long they live, and how they end.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
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
        let address = listener.local_addr()?;
        tracing::info!(%address, "frontend listens");
        let timeouts = self.core().options.timeouts.clone();
        let stop = CancellationToken::new();
        let connections = TaskTracker::new();
        let accepting = self.accept(&listener, &connections, &stop);
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

    async fn accept(&self, listener: &TcpListener, connections: &TaskTracker, stop: &CancellationToken) {
        let options = &self.core().options;
        let places = Arc::new(Semaphore::new(options.limits.connections.min(Semaphore::MAX_PERMITS)));
        let mut http = http1::Builder::new();
        http.timer(TokioTimer::new())
            .header_read_timeout(options.timeouts.head)
            .max_headers(HEADERS)
            .max_buf_size(HEAD_BYTES);
        let router = self.router();
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
                serve_one(stream, peer, &http, router, stop).await;
                gauge.dec();
                drop(place);
            });
        }
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
    let connection = http.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
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
