//! A server with the part of Mastodon's API that channels use, which replays recorded statuses. It fails when it is told to: it cuts
//! streams, refuses tokens, limits rates, loses answers. For the demo and the tests; it is no social network.
//!
//! Tokens are `token-N` for the account numbered N, which is named `account-N`. All home timelines have what is replayed.

mod routes;
mod world;

use std::net::SocketAddr;
use std::sync::Arc;

use galerna_http::{ServeOptions, serve_until};
use galerna_model::Clock;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

pub use world::{Faults, Received, World, recorded, token};

/// The server, while it runs.
#[derive(Debug)]
pub struct LocalServer {
    world: Arc<World>,
    address: SocketAddr,
    stop: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

impl LocalServer {
    /// Listens here; port 0 is any.
    ///
    /// # Errors
    /// When the address is not to be had.
    pub async fn start(listen: SocketAddr, clock: Arc<dyn Clock>) -> std::io::Result<Self> {
        let listener = TcpListener::bind(listen).await?;
        let address = listener.local_addr()?;
        let world = Arc::new(World::new(format!("http://{address}"), clock));
        let router = routes::router(Arc::clone(&world));
        let stop = CancellationToken::new();
        let stopped = stop.clone().cancelled_owned();
        let many = 100_000;
        let options =
            ServeOptions { connections: many, connections_of_one: many, ..ServeOptions::new("local server") };
        let task = tokio::spawn(async move {
            if let Err(error) = serve_until(listener, router, options, stopped).await {
                tracing::error!(%error, "the local server has ended");
            }
        });
        Ok(Self { world, address, stop, task })
    }

    /// Where it is.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What it holds.
    pub fn world(&self) -> &Arc<World> {
        &self.world
    }

    /// Ends it; streams are cut.
    pub async fn stop(self) {
        self.world.cut_streams();
        self.stop.cancel();
        self.task.abort();
        drop(self.task.await);
    }

    /// Runs until it is told to end, by `stop`.
    pub async fn run(self, stop: impl Future<Output = ()>) {
        stop.await;
        self.stop().await;
    }
}
