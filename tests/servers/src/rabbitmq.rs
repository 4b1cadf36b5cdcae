//! A private RabbitMQ.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::OnceCell;
use tokio::time::timeout;

use crate::management::Management;
use crate::origin::{Origin, Search, variable};
use crate::supervisor::Supervisor;
use crate::{port, unique};

const SEARCH: Search = Search {
    name: "RabbitMQ",
    program: "rabbitmq-server",
    program_variable: "GALERNA_RABBITMQ_SERVER",
    server_variable: "AMQP_URL",
    server_example: "amqp://guest:guest@127.0.0.1:5672",
    // Debian's `rabbitmq-server` on the PATH insists on being root and on its own folders; the program here does not.
    folders: &["/usr/lib/rabbitmq/bin", "/usr/local/sbin", "/usr/sbin", "/sbin", "/opt/rabbitmq/sbin"],
    versions: None,
    image: Some("rabbitmq:3.13-management"),
};

/// The private port mapper belongs to one node, so every node can have the same name.
const NODE: &str = "galerna@localhost";
const START_ATTEMPTS: u32 = 5;

/// A real RabbitMQ server for tests, with its management API.
///
/// The methods that end, restart or freeze the server panic for one that `AMQP_URL` names: it is not the test's to kill.
/// Use [`RabbitMq::start`] for those tests.
#[derive(Debug)]
pub struct RabbitMq {
    server: Server,
}

#[derive(Debug)]
enum Server {
    Named { amqp: String, management: String },
    Private { supervisor: Supervisor, ports: Ports },
}

#[derive(Clone, Copy, Debug)]
struct Ports {
    amqp: u16,
    management: u16,
    distribution: u16,
    port_mapper: u16,
}

impl RabbitMq {
    /// The server that all tests of this process share: the one that `AMQP_URL` names, else a private one.
    ///
    /// Take a virtual host from [`RabbitMq::vhost`], so that the tests do not meet.
    ///
    /// # Panics
    /// When no server can be found or started.
    pub async fn shared() -> &'static Self {
        static SHARED: OnceCell<RabbitMq> = OnceCell::const_new();
        SHARED
            .get_or_init(|| async {
                match SEARCH.running() {
                    Some(amqp) => {
                        let management =
                            variable("AMQP_MANAGEMENT_URL").unwrap_or_else(|| management_beside(&amqp));
                        Self { server: Server::Named { amqp, management } }
                    }
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
        let origin = SEARCH.origin();
        let mut failures = String::new();
        for _ in 0..START_ATTEMPTS {
            let ports = Ports {
                amqp: port::free(),
                management: port::free(),
                distribution: port::free(),
                port_mapper: port::free(),
            };
            let supervisor = prepare(&origin, ports)
                .unwrap_or_else(|error| panic!("could not lay out a folder for RabbitMQ: {error}"));
            match supervisor.start(|| ready(ports)).await {
                Ok(()) => return Self { server: Server::Private { supervisor, ports } },
                // The log says `eaddrinuse` or `Address already in use` when another process took a port first.
                Err(failure) if failure.contains("in use") || failure.contains("eaddrinuse") => {
                    failures = failure
                }
                Err(failure) => panic!("RabbitMQ from {origin:?} did not start: {failure}"),
            }
        }
        panic!("RabbitMQ from {origin:?} found a port taken {START_ATTEMPTS} times: {failures}");
    }

    /// The AMQP address of the default virtual host: `amqp://user:password@host:port`.
    #[must_use]
    pub fn amqp_uri(&self) -> String {
        match &self.server {
            Server::Named { amqp, .. } => amqp.clone(),
            Server::Private { ports, .. } => format!("amqp://guest:guest@127.0.0.1:{}", ports.amqp),
        }
    }

    /// The same as [`RabbitMq::amqp_uri`].
    #[must_use]
    pub fn uri(&self) -> String {
        self.amqp_uri()
    }

    /// The base address of the management API: `http://user:password@host:port`, to which `/api/...` is appended.
    #[must_use]
    pub fn management_uri(&self) -> String {
        match &self.server {
            Server::Named { management, .. } => management.clone(),
            Server::Private { ports, .. } => format!("http://guest:guest@127.0.0.1:{}", ports.management),
        }
    }

    /// Makes a new virtual host and returns its AMQP address. Its name is the last segment of the address's path.
    ///
    /// # Panics
    /// When the management API refuses, or is not there (for a server that `AMQP_URL` names: set
    /// `AMQP_MANAGEMENT_URL`).
    pub async fn vhost(&self) -> String {
        let management = self.management_uri();
        let management = Management::at(&management).unwrap_or_else(|error| {
            panic!("set AMQP_MANAGEMENT_URL to the management API of the server that AMQP_URL names: {error}")
        });
        let name = unique("test");
        management.must("PUT", &format!("/api/vhosts/{name}"), "{}").await;
        let everything = r#"{"configure":".*","write":".*","read":".*"}"#;
        management.must("PUT", &format!("/api/permissions/{name}/{}", management.user()), everything).await;
        let amqp = self.amqp_uri();
        let (scheme, rest) = amqp.split_once("://").unwrap_or(("amqp", &amqp));
        let authority = rest.split(['/', '?']).next().unwrap_or(rest);
        format!("{scheme}://{authority}/{name}")
    }

    /// A name that no other test has, for a queue or as the prefix of several.
    #[must_use]
    pub fn unique(&self, prefix: &str) -> String {
        unique(prefix)
    }

    /// Whether this server is the test's own, to kill and to freeze.
    #[must_use]
    pub fn is_private(&self) -> bool {
        matches!(self.server, Server::Private { .. })
    }

    /// Stops the server in good order, if it runs, and starts it again on the same ports with its durable data.
    ///
    /// # Panics
    /// When it does not come up again.
    pub async fn restart(&self) {
        self.stop().await;
        let (supervisor, ports) = self.private();
        supervisor
            .start(|| ready(ports))
            .await
            .unwrap_or_else(|failure| panic!("RabbitMQ did not restart: {failure}"));
    }

    /// Ends the server with `SIGKILL` and returns when it is gone. [`RabbitMq::restart`] brings it back.
    pub async fn kill(&self) {
        let (supervisor, _) = self.private();
        supervisor.signal("KILL").await;
        supervisor.ended().await;
    }

    /// Ends the server in good order (`SIGTERM`: clients are told) and returns when it is gone.
    /// [`RabbitMq::restart`] brings it back.
    pub async fn stop(&self) {
        let (supervisor, _) = self.private();
        supervisor.signal("TERM").await;
        supervisor.ended().await;
    }

    /// Freezes the server (`SIGSTOP`): connections stay open and nothing answers, until [`RabbitMq::thaw`].
    pub async fn freeze(&self) {
        self.private().0.signal("STOP").await;
    }

    /// Lets a frozen server go on (`SIGCONT`).
    pub async fn thaw(&self) {
        self.private().0.signal("CONT").await;
    }

    /// Raises the memory alarm: the server blocks every connection that publishes, until
    /// [`RabbitMq::unblock_publishers`].
    ///
    /// # Panics
    /// When `rabbitmqctl` fails.
    pub async fn block_publishers(&self) {
        self.ctl(&["set_vm_memory_high_watermark", "0"]).await;
    }

    /// Clears the memory alarm.
    ///
    /// # Panics
    /// When `rabbitmqctl` fails.
    pub async fn unblock_publishers(&self) {
        self.ctl(&["set_vm_memory_high_watermark", "0.6"]).await;
    }

    /// Runs `rabbitmqctl` with these arguments against this server and returns what it printed.
    ///
    /// # Panics
    /// When it fails.
    pub async fn ctl(&self, arguments: &[&str]) -> String {
        let script = self.private().0.folder().join("ctl");
        let mut command = Command::new("sh");
        command.arg(script).args(arguments).stdin(Stdio::null());
        let output = tokio::task::spawn_blocking(move || command.output())
            .await
            .expect("running a program does not panic");
        let output = output.expect("a shell can be run");
        let stdout = String::from_utf8_lossy(&output.stdout);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "rabbitmqctl {arguments:?} failed: {stdout}{stderr}");
        stdout.into_owned()
    }

    fn private(&self) -> (&Supervisor, Ports) {
        match &self.server {
            Server::Private { supervisor, ports } => (supervisor, *ports),
            Server::Named { .. } => {
                panic!("the server that AMQP_URL names is not this test's to end; use `RabbitMq::start()`")
            }
        }
    }
}

impl fmt::Display for RabbitMq {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.amqp_uri())
    }
}

/// The program `rabbitmq-server`, for tests that lay out servers of their own.
///
/// # Panics
/// When there is none, saying what to run.
#[must_use]
pub fn rabbitmq_program() -> PathBuf {
    beside_wrapper(&SEARCH.program())
}

/// The management API where it usually is: on the same host with the same user, on port 15672.
fn management_beside(amqp: &str) -> String {
    let rest = amqp.split_once("://").map_or(amqp, |(_, rest)| rest);
    let authority = rest.split(['/', '?']).next().unwrap_or(rest);
    let (login, host) = authority.rsplit_once('@').unwrap_or(("guest:guest", authority));
    let host = host.rsplit_once(':').map_or(host, |(host, _)| host);
    format!("http://{login}@{host}:15672")
}

/// Ready when both listeners answer in their own protocols: the management API comes up before clients are let in, and
/// Docker's proxy takes connections before anything is behind it.
async fn ready(ports: Ports) -> bool {
    let management = Management::at(&format!("http://guest:guest@127.0.0.1:{}", ports.management));
    let management = management.expect("a private server's address is well formed");
    matches!(management.call("GET", "/api/whoami", "").await, Ok((200, _))) && speaks_amqp(ports.amqp).await
}

/// Whether what listens there answers AMQP 0-9-1's protocol header with a method frame (`connection.start`).
async fn speaks_amqp(port: u16) -> bool {
    const METHOD_FRAME: u8 = 1;
    let exchange = async {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
        stream.write_all(b"AMQP\x00\x00\x09\x01").await?;
        stream.read_u8().await
    };
    matches!(timeout(Duration::from_secs(10), exchange).await, Ok(Ok(METHOD_FRAME)))
}

fn prepare(origin: &Origin, ports: Ports) -> io::Result<Supervisor> {
    let supervisor = Supervisor::new("rabbitmq")?;
    match origin {
        Origin::Program(program) => prepare_program(&supervisor, program, ports)?,
        Origin::Image(image) => {
            supervisor.write_container(&format!(
                "--hostname galerna --publish 127.0.0.1:{}:5672 --publish 127.0.0.1:{}:15672 {image}",
                ports.amqp, ports.management
            ))?;
            let name = supervisor.folder().file_name().unwrap_or_default().to_string_lossy().into_owned();
            supervisor.write("ctl", &format!("exec docker exec {name} rabbitmqctl \"$@\"\n"))?;
        }
    }
    Ok(supervisor)
}

fn prepare_program(supervisor: &Supervisor, program: &Path, ports: Ports) -> io::Result<()> {
    let folder = supervisor.folder().display().to_string();
    for name in ["home", "data", "conf.d"] {
        std::fs::create_dir(supervisor.folder().join(name))?;
    }
    supervisor.write("rabbitmq-env.conf", "")?;
    supervisor.write("enabled_plugins", "[rabbitmq_management].\n")?;
    supervisor.write(
        "rabbitmq.conf",
        &format!(
            "listeners.tcp.1 = 127.0.0.1:{}\n\
             management.tcp.ip = 127.0.0.1\n\
             management.tcp.port = {}\n\
             loopback_users = none\n\
             log.console = true\n\
             log.console.level = info\n\
             log.file = false\n\
             # Tests run where disks are full and memory is shared; an alarm is only raised on purpose.\n\
             disk_free_limit.absolute = 1MB\n\
             vm_memory_high_watermark.relative = 0.6\n\
             # Management figures would be up to 5 s old.\n\
             collect_statistics_interval = 1000\n",
            ports.amqp, ports.management
        ),
    )?;
    let program = beside_wrapper(program);
    let bin = program.parent().unwrap_or(Path::new("/")).display().to_string();
    // Nothing of the machine's own RabbitMQ may leak in: neither its configuration nor its folders nor its cookie.
    supervisor.write(
        "environment",
        &format!(
            "export HOME='{folder}/home'\n\
             export RABBITMQ_CONF_ENV_FILE='{folder}/rabbitmq-env.conf'\n\
             export RABBITMQ_CONFIG_FILE='{folder}/rabbitmq.conf'\n\
             export RABBITMQ_CONFIG_FILES='{folder}/conf.d'\n\
             export RABBITMQ_ADVANCED_CONFIG_FILE='{folder}/advanced.config'\n\
             export RABBITMQ_ENABLED_PLUGINS_FILE='{folder}/enabled_plugins'\n\
             export RABBITMQ_MNESIA_BASE='{folder}/data'\n\
             export RABBITMQ_LOG_BASE='{folder}'\n\
             export RABBITMQ_LOGS=-\n\
             export RABBITMQ_NODENAME={NODE}\n\
             export RABBITMQ_DIST_PORT={distribution}\n\
             export ERL_EPMD_PORT={port_mapper}\n\
             export ERL_EPMD_ADDRESS=127.0.0.1\n\
             export LC_ALL=C.UTF-8\n\
             unset RABBITMQ_PID_FILE RABBITMQ_USE_LONGNAME NOTIFY_SOCKET\n",
            distribution = ports.distribution,
            port_mapper = ports.port_mapper,
        ),
    )?;
    supervisor.write(
        "run",
        &format!(
            ". '{folder}/environment'\n\
             # With this the script becomes the Erlang machine, so that signals reach it.\n\
             export RABBITMQ_ALLOW_INPUT=1\n\
             # What is confirmed is on disk by then, so a shutdown need not wait for statistics processes.\n\
             export RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS='-noinput -shutdown_time 1000 -kernel inet_dist_use_interface {{127,0,0,1}}'\n\
             # Erlang would start its port mapper as a daemon that outlives everything; this one is in the group.\n\
             epmd -port {port_mapper} -address 127.0.0.1 &\n\
             exec '{program}'\n",
            port_mapper = ports.port_mapper,
            program = program.display(),
        ),
    )?;
    supervisor.write("ctl", &format!(". '{folder}/environment'\nexec '{bin}/rabbitmqctl' \"$@\"\n"))
}

/// Debian's `/usr/sbin/rabbitmq-server` is a wrapper that insists on being root and on its own folders; the program that
/// it wraps stands beside the file that the link leads to.
fn beside_wrapper(program: &Path) -> PathBuf {
    let real = program.canonicalize().unwrap_or_else(|_| program.to_owned());
    if real.file_name().is_some_and(|name| name == "rabbitmq-script-wrapper") {
        return real.with_file_name("rabbitmq-server");
    }
    program.to_owned()
}
