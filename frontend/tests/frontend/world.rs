//! A frontend that listens, with two accounts and their sources.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use galerna_broker::{Broker, DeleteWhen};
use galerna_directory::FileDirectory;
use galerna_dispatcher::AdminError;
use galerna_frontend::{Directory, Frontend, Options, Parts, QueueHints, TokenHash};
use galerna_model::{QueueName, Reading, SystemClock, decode};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// Longer than anything takes on a machine that compiles meanwhile.
pub(crate) const DEADLINE: Duration = Duration::from_secs(120);

pub(crate) const GOOD: &str = r#"{"did":"12a","values":[{"p":401,"v":4900.0},{"p":412,"v":0.82}],"sqn":2152,"ts":"2015-04-21T23:15:00+00:00"}"#;

/// Stands where a dispatcher would, and can be waited for.
#[derive(Default)]
pub(crate) struct Hinted {
    pub(crate) queues: std::sync::Mutex<Vec<QueueName>>,
    pub(crate) came: tokio::sync::Notify,
}

#[async_trait::async_trait]
impl QueueHints for Hinted {
    async fn hint(&self, queues: &[QueueName]) -> Result<(), AdminError> {
        self.queues.lock().unwrap().extend_from_slice(queues);
        self.came.notify_one();
        Ok(())
    }
}

pub(crate) struct World {
    pub(crate) address: String,
    /// The queues named to the dispatcher.
    pub(crate) hinted: Arc<Hinted>,
    pub(crate) broker: Arc<dyn Broker>,
    pub(crate) http: reqwest::Client,
    pub(crate) folder: tempfile::TempDir,
    stop: CancellationToken,
    serving: Option<JoinHandle<()>>,
}

pub(crate) fn queue(account: &str) -> QueueName {
    QueueName::new(format!("Q{account}")).unwrap()
}

/// Sources by account; the token of source `s` is `token-s`.
pub(crate) fn write_lists(path: &Path, sources: &[(&str, &str)]) {
    let accounts: BTreeMap<&str, Value> = sources
        .iter()
        .map(|(_, account)| (*account, json!({"id": account, "queue": queue(account).as_str()})))
        .collect();
    let sources: Vec<Value> = sources
        .iter()
        .map(|(source, account)| {
            let token = TokenHash::of(&format!("token-{source}")).to_string();
            json!({"id": source, "account": account, "token_hash": token, "active": !source.starts_with("off")})
        })
        .collect();
    let lists = json!({"accounts": accounts.values().collect::<Vec<_>>(), "sources": sources});
    let new = path.with_extension("new");
    std::fs::write(&new, lists.to_string()).unwrap();
    std::fs::rename(new, path).unwrap();
}

impl World {
    pub(crate) async fn embedded(options: Options) -> Self {
        let broker = galerna_broker::open("embedded::memory:").await.unwrap();
        Self::on(broker, options, &[("c1", "a"), ("c2", "b"), ("off", "a")]).await
    }

    pub(crate) async fn on(broker: Arc<dyn Broker>, options: Options, sources: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        write_lists(&folder.path().join("lists.json"), sources);
        for (_, account) in sources {
            broker.declare(&queue(account)).await.unwrap();
        }
        Self::in_folder(folder, broker, options).await
    }

    pub(crate) async fn in_folder(
        folder: tempfile::TempDir,
        broker: Arc<dyn Broker>,
        options: Options,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self::listening(listener, folder, broker, options).await
    }

    pub(crate) async fn listening(
        listener: TcpListener,
        folder: tempfile::TempDir,
        broker: Arc<dyn Broker>,
        options: Options,
    ) -> Self {
        galerna_tls::install_default_provider();
        let hinted = Arc::new(Hinted::default());
        let file = format!("embedded:{}", folder.path().join("store.db").display());
        let store = galerna_storage::open(&file).await.unwrap();
        let parts = Parts {
            broker: Arc::clone(&broker),
            directory: Directory::new(FileDirectory::new(folder.path().join("lists.json")).unwrap()),
            hints: Some(Arc::clone(&hinted) as Arc<dyn QueueHints>),
            statistics: store.statistics,
            clock: Arc::new(SystemClock),
            registry: prometheus::Registry::new(),
        };
        let frontend = Frontend::open(parts, options).await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let stop = CancellationToken::new();
        let stopped = stop.clone().cancelled_owned();
        let serving = tokio::spawn(async move { frontend.serve(listener, stopped).await.unwrap() });
        let http = reqwest::Client::builder().timeout(DEADLINE).build().unwrap();
        Self { address, hinted, broker, http, folder, stop, serving: Some(serving) }
    }

    pub(crate) fn url(&self, rest: &str) -> String {
        format!("http://{}{rest}", self.address)
    }

    pub(crate) fn readings_of(&self, source: &str) -> String {
        self.url(&format!("/readings?source_key={source}&x-dexcell-source-token=token-{source}"))
    }

    /// Posts; gives the status and the body.
    pub(crate) async fn post(&self, source: &str, body: impl Into<reqwest::Body>) -> (u16, Value) {
        let answer = self.http.post(self.readings_of(source)).body(body).send().await.unwrap();
        (answer.status().as_u16(), answer.json().await.unwrap())
    }

    /// Takes what is in a queue out of it.
    pub(crate) async fn take_all(&self, account: &str) -> Vec<Reading> {
        let mut consumer = self.broker.consume(&queue(account), 1_000).await.unwrap();
        let mut readings = Vec::new();
        loop {
            // The embedded queue answers at once, RabbitMQ's deliveries are on their way.
            let deliveries = consumer.receive(1_000, Duration::from_secs(2)).await.unwrap();
            if deliveries.is_empty() {
                break;
            }
            let mut settled = Vec::new();
            for delivery in deliveries {
                let decoded = decode(&delivery.message).unwrap();
                assert!(decoded.bad.is_empty(), "{:?}", decoded.bad);
                readings.extend(decoded.readings.into_iter().map(|(_, reading)| reading));
                settled.push((delivery.tag, galerna_broker::Outcome::Ack));
            }
            consumer.settle(settled).await.unwrap();
        }
        consumer.close().await.unwrap();
        readings
    }

    /// Asks the frontend to end, as SIGTERM does.
    pub(crate) fn begin_stop(&self) {
        self.stop.cancel();
    }

    /// Ends and gives back what outlives it.
    pub(crate) async fn stopped(mut self) -> (tempfile::TempDir, Arc<dyn Broker>) {
        self.stop.cancel();
        if let Some(serving) = self.serving.take() {
            timeout(DEADLINE, serving).await.unwrap().unwrap();
        }
        (self.folder, self.broker)
    }

    /// Sends bytes as they are, and gives what comes back until the server closes.
    pub(crate) async fn raw(&self, bytes: &[u8], finish: bool) -> String {
        let mut stream = TcpStream::connect(&self.address).await.unwrap();
        // The server may close before it has read all of it.
        drop(stream.write_all(bytes).await);
        if finish {
            drop(stream.shutdown().await);
        }
        let mut answer = Vec::new();
        drop(timeout(DEADLINE, stream.read_to_end(&mut answer)).await.unwrap());
        String::from_utf8_lossy(&answer).into_owned()
    }

    pub(crate) async fn delete_queue(&self, account: &str) {
        self.broker.delete(&queue(account), DeleteWhen::Always).await.unwrap();
    }
}
