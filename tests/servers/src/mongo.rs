//! A private MongoDB.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use bson::{Document, doc};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::OnceCell;
use tokio::time::{sleep, timeout};

use crate::origin::{Origin, Search};
use crate::supervisor::Supervisor;
use crate::{TIMEOUT, port, unique};

const SEARCH: Search = Search {
    name: "MongoDB",
    program: "mongod",
    program_variable: "GALERNA_MONGOD",
    server_variable: "MONGODB_URI",
    server_example: "mongodb://127.0.0.1:27017",
    folders: &[],
    versions: None,
    image: Some("mongo:6"),
};

const REPLICA_SET: &str = "galerna";
const START_ATTEMPTS: u32 = 5;
const CALL_TIMEOUT: Duration = Duration::from_secs(10);

/// A real MongoDB server for tests.
///
/// The methods that end, restart or freeze the server panic for one that `MONGODB_URI` names: it is not the test's to
/// kill. Use [`Mongo::start`] for those tests.
#[derive(Debug)]
pub struct Mongo {
    server: Server,
}

#[derive(Debug)]
enum Server {
    Named { uri: String },
    Private { supervisor: Supervisor, port: u16, replica_set: bool },
}

/// The program `mongod`, for tests that lay out servers of their own.
///
/// # Panics
/// When there is none, saying what to run.
#[must_use]
pub fn mongod_program() -> PathBuf {
    SEARCH.program()
}

impl Mongo {
    /// The server that all tests of this process share: the one that `MONGODB_URI` names, else a private one.
    ///
    /// Take a database name from [`unique`], so that the tests do not meet.
    ///
    /// # Panics
    /// When no server can be found or started.
    pub async fn shared() -> &'static Self {
        static SHARED: OnceCell<Mongo> = OnceCell::const_new();
        SHARED
            .get_or_init(|| async {
                match SEARCH.running() {
                    Some(uri) => Self { server: Server::Named { uri } },
                    None => Self::start().await,
                }
            })
            .await
    }

    /// A private server of the caller's own, which dies when it is dropped.
    ///
    /// # Panics
    /// When no server can be found or started.
    pub async fn start() -> Self {
        Self::start_private(false).await
    }

    /// As [`Mongo::start`], but a replica set of one member, elected: it takes transactions and change streams, and
    /// [`Mongo::step_down`].
    ///
    /// # Panics
    /// When no server can be found or started.
    pub async fn start_replica_set() -> Self {
        Self::start_private(true).await
    }

    async fn start_private(replica_set: bool) -> Self {
        let origin = SEARCH.origin();
        let mut failures = String::new();
        for _ in 0..START_ATTEMPTS {
            let port = port::free();
            let supervisor = prepare(&origin, port, replica_set)
                .unwrap_or_else(|error| panic!("could not lay out a folder for MongoDB: {error}"));
            match supervisor.start(|| ready(port)).await {
                Ok(()) => {
                    let mongo = Self { server: Server::Private { supervisor, port, replica_set } };
                    if replica_set {
                        mongo.initiate(port).await;
                    }
                    return mongo;
                }
                // The log of mongod says `Address already in use` when another process took the port first.
                Err(failure) if failure.contains("in use") => failures = failure,
                Err(failure) => panic!("MongoDB from {origin:?} did not start: {failure}"),
            }
        }
        panic!("MongoDB from {origin:?} found its port taken {START_ATTEMPTS} times: {failures}");
    }

    /// The connection string, without a database.
    #[must_use]
    pub fn uri(&self) -> String {
        match &self.server {
            Server::Named { uri } => uri.clone(),
            Server::Private { port, replica_set: false, .. } => format!("mongodb://127.0.0.1:{port}"),
            Server::Private { port, replica_set: true, .. } => {
                format!("mongodb://127.0.0.1:{port}/?replicaSet={REPLICA_SET}")
            }
        }
    }

    /// A name for a database that no other test has.
    #[must_use]
    pub fn unique(&self, prefix: &str) -> String {
        unique(prefix)
    }

    /// Whether this server is the test's own, to kill and to freeze.
    #[must_use]
    pub fn is_private(&self) -> bool {
        matches!(self.server, Server::Private { .. })
    }

    /// Stops the server in good order, if it runs, and starts it again on the same port with its data.
    ///
    /// # Panics
    /// When it does not come up again.
    pub async fn restart(&self) {
        self.stop().await;
        let (supervisor, port) = self.private();
        supervisor
            .start(|| ready(port))
            .await
            .unwrap_or_else(|failure| panic!("MongoDB did not restart: {failure}"));
        if let Server::Private { replica_set: true, .. } = self.server {
            self.wait_until_writable(port).await;
        }
    }

    /// Ends the server with `SIGKILL` and returns when it is gone. [`Mongo::restart`] brings it back.
    pub async fn kill(&self) {
        let (supervisor, _) = self.private();
        supervisor.signal("KILL").await;
        supervisor.ended().await;
    }

    /// Ends the server in good order (`SIGTERM`) and returns when it is gone. [`Mongo::restart`] brings it back.
    pub async fn stop(&self) {
        let (supervisor, _) = self.private();
        supervisor.signal("TERM").await;
        supervisor.ended().await;
    }

    /// Freezes the server (`SIGSTOP`): connections stay open and nothing answers, until [`Mongo::thaw`].
    pub async fn freeze(&self) {
        self.private().0.signal("STOP").await;
    }

    /// Lets a frozen server go on (`SIGCONT`).
    pub async fn thaw(&self) {
        self.private().0.signal("CONT").await;
    }

    /// Makes a replica set's primary step down for `duration` (whole seconds, at least one); being alone, it is then
    /// elected again. Returns when it has stepped down.
    ///
    /// # Panics
    /// When the server is no replica set or refuses.
    pub async fn step_down(&self, duration: Duration) {
        let (_, port) = self.private();
        let seconds = i32::try_from(duration.as_secs().max(1)).unwrap_or(i32::MAX);
        let command = doc! { "replSetStepDown": seconds, "secondaryCatchUpPeriodSecs": 0, "force": true };
        let reply = call(port, command).await.expect("a stepping-down MongoDB answers");
        assert_eq!(reply.get("ok").and_then(number), Some(1.0), "MongoDB did not step down: {reply}");
    }

    async fn initiate(&self, port: u16) {
        let member = doc! { "_id": 0, "host": format!("127.0.0.1:{port}") };
        let reply = call(port, doc! { "replSetInitiate": { "_id": REPLICA_SET, "members": [member] } }).await;
        let reply = reply.unwrap_or_else(|error| panic!("could not initiate MongoDB's replica set: {error}"));
        assert_eq!(
            reply.get("ok").and_then(number),
            Some(1.0),
            "could not initiate MongoDB's replica set: {reply}"
        );
        self.wait_until_writable(port).await;
    }

    async fn wait_until_writable(&self, port: u16) {
        let elected = async {
            loop {
                if let Ok(reply) = call(port, doc! { "hello": 1 }).await
                    && reply.get_bool("isWritablePrimary").unwrap_or(false)
                {
                    return;
                }
                // An election is announced to clients only through this very call.
                sleep(Duration::from_millis(25)).await;
            }
        };
        timeout(TIMEOUT, elected).await.expect("MongoDB's only member is elected in time");
    }

    fn private(&self) -> (&Supervisor, u16) {
        match &self.server {
            Server::Private { supervisor, port, .. } => (supervisor, *port),
            Server::Named { .. } => {
                panic!("the server that MONGODB_URI names is not this test's to end; use `Mongo::start()`")
            }
        }
    }
}

impl fmt::Display for Mongo {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.uri())
    }
}

fn prepare(origin: &Origin, port: u16, replica_set: bool) -> io::Result<Supervisor> {
    let supervisor = Supervisor::new("mongo")?;
    let set = if replica_set { format!("--replSet {REPLICA_SET}") } else { String::new() };
    // Diagnostic data is written all the time, for no one; the cache would be half of the machine's memory.
    let common =
        format!("--wiredTigerCacheSizeGB 0.5 --setParameter diagnosticDataCollectionEnabled=false {set}");
    match origin {
        Origin::Program(program) => {
            let folder = supervisor.folder().to_owned();
            std::fs::create_dir(folder.join("data"))?;
            supervisor.write(
                "run",
                &format!(
                    "exec '{}' --bind_ip 127.0.0.1 --port {port} --dbpath '{}/data' --nounixsocket {common}\n",
                    program.display(),
                    folder.display()
                ),
            )?;
        }
        // Inside the container it has the port that it has outside: a replica set's member names itself by it.
        Origin::Image(image) => supervisor.write_container(&format!(
            "--publish 127.0.0.1:{port}:{port} {image} --bind_ip_all --port {port} {common}"
        ))?,
    }
    Ok(supervisor)
}

async fn ready(port: u16) -> bool {
    call(port, doc! { "hello": 1 }).await.is_ok()
}

fn number(value: &bson::Bson) -> Option<f64> {
    value.as_f64().or_else(|| value.as_i32().map(f64::from))
}

/// Runs one command on the `admin` database, on a connection of its own.
///
/// It speaks MongoDB's wire protocol (one `OP_MSG` with one section) rather than through the driver, so that this crate
/// builds in a moment.
async fn call(port: u16, mut command: Document) -> io::Result<Document> {
    const OP_MSG: i32 = 2013;
    const HEADER: usize = 16;
    const FLAGS_AND_SECTION_KIND: usize = 5;

    command.insert("$db", "admin");
    let body = command.to_vec().map_err(io::Error::other)?;
    let length = HEADER + FLAGS_AND_SECTION_KIND + body.len();
    let mut message = Vec::with_capacity(length);
    message.extend(i32::try_from(length).map_err(io::Error::other)?.to_le_bytes());
    message.extend(1_i32.to_le_bytes());
    message.extend(0_i32.to_le_bytes());
    message.extend(OP_MSG.to_le_bytes());
    message.extend([0; FLAGS_AND_SECTION_KIND]);
    message.extend(body);

    let exchange = async {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
        stream.write_all(&message).await?;
        let length = usize::try_from(stream.read_i32_le().await?).map_err(io::Error::other)?;
        if !(HEADER + FLAGS_AND_SECTION_KIND..=1 << 24).contains(&length) {
            return Err(io::Error::other("what answers there does not speak MongoDB's protocol"));
        }
        let mut rest = vec![0; length - 4];
        stream.read_exact(&mut rest).await?;
        Document::from_reader(&rest[HEADER - 4 + FLAGS_AND_SECTION_KIND..]).map_err(io::Error::other)
    };
    timeout(CALL_TIMEOUT, exchange).await?
}
