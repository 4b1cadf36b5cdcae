//! A MongoDB with queues, and a dispatcher on it, in process and over HTTP.

use std::sync::Arc;

use async_trait::async_trait;
use galerna_dispatcher::{
    ClientOptions, Dispatcher, DispatcherClient, DispatcherOptions, MaintainerLink, Ping, PingError,
    ServiceOptions, StrategyName, load, serve,
};
use galerna_test_servers::{Mongo, unique};
use tokio::net::TcpListener;
use tokio::sync::OnceCell;

/// The server that `MONGODB_URI` names, else a private replica set of one member: what production runs, with a write known to
/// a majority and journaled before it is answered.
async fn server() -> String {
    static PRIVATE: OnceCell<Mongo> = OnceCell::const_new();
    match std::env::var_os("MONGODB_URI") {
        Some(_) => Mongo::shared().await.uri(),
        None => PRIVATE.get_or_init(Mongo::start_replica_set).await.uri(),
    }
}

struct Answers;

#[async_trait]
impl Ping for Answers {
    async fn ping(&self) -> Result<(), PingError> {
        Ok(())
    }
}

/// What the load runs on.
#[allow(dead_code)] // each bench uses its part
pub(crate) struct Ground {
    pub(crate) uri: String,
    pub(crate) database: String,
    pub(crate) dispatcher: Dispatcher,
    pub(crate) client: DispatcherClient,
}

impl Ground {
    /// So many queues, all with messages, under `lru`.
    pub(crate) async fn of(queues: usize) -> Self {
        let uri = server().await;
        let database = unique("bench");
        let (base, options) = uri.split_once('?').map_or((uri.as_str(), ""), |(b, o)| (b, o));
        let address = format!("{}/{database}?{options}", base.trim_end_matches('/'));
        let store = galerna_storage::open(address.trim_end_matches('?')).await.expect("MongoDB opens");
        load::prepare(&store, queues).await.expect("queues are created");
        let mut options = DispatcherOptions {
            strategy: StrategyName::Lru,
            maintainer: MaintainerLink::Local(Arc::new(Answers)),
            ..DispatcherOptions::default()
        };
        if let Some(committers) = std::env::var("COMMITTERS").ok().and_then(|v| v.parse().ok()) {
            options.committers = committers;
        }
        let dispatcher = Dispatcher::open(&store, options).await.expect("the dispatcher opens");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let base = format!("http://{}", listener.local_addr().expect("an address"));
        tokio::spawn(serve(listener, dispatcher.clone(), ServiceOptions::default(), std::future::pending()));
        let client = DispatcherClient::new(&base, ClientOptions::default()).expect("a client");
        Self { uri, database, dispatcher, client }
    }
}
