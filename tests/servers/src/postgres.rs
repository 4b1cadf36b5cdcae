//! A private PostgreSQL.

use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use tokio::sync::OnceCell;

use crate::origin::{Origin, Search};
use crate::supervisor::Supervisor;
use crate::{port, unique};

const SEARCH: Search = Search {
    name: "PostgreSQL",
    program: "postgres",
    program_variable: "GALERNA_POSTGRES",
    server_variable: "POSTGRES_URI",
    server_example: "postgres://postgres@127.0.0.1:5432/postgres",
    folders: &[],
    versions: Some("/usr/lib/postgresql"),
    image: None,
};

/// The superuser of private servers; they ask for no password.
const USER: &str = "galerna";
/// Whom PostgreSQL runs as when the tests run as root, whom it refuses: the first of these that there is.
const UNPRIVILEGED: [&str; 2] = ["postgres", "nobody"];
const START_ATTEMPTS: u32 = 5;

/// Initialises the data folder if there is none, and becomes the server. What it commits survives its death, not the machine's: no
/// test turns that off, and flushing costs most of a small transaction.
const RUN: &str = r"umask 077
[ -f DATA/PG_VERSION ] || AS 'BIN/initdb' --pgdata=DATA --username=USER --auth=trust --encoding=UTF8 --locale=C --no-sync >/dev/null || exit 1
exec AS 'BIN/postgres' -D DATA -c listen_addresses=127.0.0.1 -c port=PORT -c unix_socket_directories= -c fsync=off \
    -c shared_buffers=32MB -c max_connections=200 -c dynamic_shared_memory_type=mmap -c logging_collector=off -c log_timezone=UTC
";

/// Each session of the server is a process in a process group of its own, so that all have to be named.
const SIGNAL: &str = r#"children=$(cat "/proc/$2/task/$2/children" 2>/dev/null)
case $1 in
TERM) kill -s INT -- "$2" ;;
*) kill -s "$1" -- "$2" $children ;;
esac
"#;

/// A server that was killed leaves its segment of shared memory, whose number it has written down.
const FINISH: &str = r#"segment=$(sed -n 7p "DATA/postmaster.pid" 2>/dev/null)
[ -z "$segment" ] || ipcrm -m "${segment##* }" 2>/dev/null
"#;

/// A real PostgreSQL server for tests.
///
/// The methods that end, restart or freeze the server panic for one that `POSTGRES_URI` names: it is not the test's to kill. Use
/// [`Postgres::start`] for those tests.
#[derive(Debug)]
pub struct Postgres {
    server: Server,
    psql: PathBuf,
}

#[derive(Debug)]
enum Server {
    Named { uri: String },
    Private { supervisor: Supervisor, port: u16 },
}

impl Postgres {
    /// The server that all tests of this process share: the one that `POSTGRES_URI` names, else a private one.
    ///
    /// Take a database of the test's own with [`Postgres::database`], so that the tests do not meet.
    ///
    /// # Panics
    /// When no server can be found or started.
    pub async fn shared() -> &'static Self {
        static SHARED: OnceCell<Postgres> = OnceCell::const_new();
        SHARED
            .get_or_init(|| async {
                match SEARCH.running() {
                    Some(uri) => Self { server: Server::Named { uri }, psql: "psql".into() },
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
        let Origin::Program(program) = SEARCH.origin() else { unreachable!("no image is named") };
        // A link on the PATH may lead to it; the programs beside it are beside the real one.
        let program = program.canonicalize().unwrap_or(program);
        let folder = program.parent().unwrap_or(Path::new("/")).to_owned();
        let psql = folder.join("psql");
        let mut failures = String::new();
        for _ in 0..START_ATTEMPTS {
            let port = port::free();
            let supervisor = prepare(&folder, port)
                .unwrap_or_else(|error| panic!("could not lay out a folder for PostgreSQL: {error}"));
            let uri = uri(port, "postgres");
            match supervisor.start(|| ready(&psql, &uri)).await {
                Ok(()) => return Self { server: Server::Private { supervisor, port }, psql },
                // Another process took the port first.
                Err(failure) if failure.contains("in use") => failures = failure,
                Err(failure) => panic!("PostgreSQL from {} did not start: {failure}", program.display()),
            }
        }
        panic!(
            "PostgreSQL from {} found its port taken {START_ATTEMPTS} times: {failures}",
            program.display()
        );
    }

    /// The connection string, with the database that is there from the beginning.
    #[must_use]
    pub fn uri(&self) -> String {
        match &self.server {
            Server::Named { uri } => uri.clone(),
            Server::Private { port, .. } => uri(*port, "postgres"),
        }
    }

    /// A new, empty database, by its connection string.
    ///
    /// # Panics
    /// When the server does not create it.
    pub async fn database(&self) -> String {
        let name = unique("test");
        let (psql, uri) = (self.psql.clone(), self.uri());
        let sql = format!("CREATE DATABASE {name}");
        let output = run(&psql, &uri, &sql).await.unwrap_or_else(|error| {
            panic!("could not run {}: {error}; run `scripts/servers`", psql.display())
        });
        assert!(
            output.status.success(),
            "PostgreSQL made no database: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        with_database(&uri, &name)
    }

    /// Whether this server is the test's own, to kill and to freeze.
    #[must_use]
    pub fn is_private(&self) -> bool {
        matches!(self.server, Server::Private { .. })
    }

    /// Stops the server, if it runs, and starts it again on the same port with its data.
    ///
    /// # Panics
    /// When it does not come up again.
    pub async fn restart(&self) {
        self.stop().await;
        let (supervisor, port) = self.private();
        let uri = uri(port, "postgres");
        supervisor
            .start(|| ready(&self.psql, &uri))
            .await
            .unwrap_or_else(|failure| panic!("PostgreSQL did not restart: {failure}"));
    }

    /// Ends the server with `SIGKILL` and returns when it is gone. [`Postgres::restart`] brings it back.
    pub async fn kill(&self) {
        let (supervisor, _) = self.private();
        supervisor.signal("KILL").await;
        supervisor.ended().await;
    }

    /// Ends the server in good order, without waiting for its clients to leave, and returns when it is gone. [`Postgres::restart`]
    /// brings it back.
    pub async fn stop(&self) {
        let (supervisor, _) = self.private();
        supervisor.signal("TERM").await;
        supervisor.ended().await;
    }

    /// Freezes the server (`SIGSTOP`): connections stay open and nothing answers, until [`Postgres::thaw`].
    pub async fn freeze(&self) {
        self.private().0.signal("STOP").await;
    }

    /// Lets a frozen server go on (`SIGCONT`).
    pub async fn thaw(&self) {
        self.private().0.signal("CONT").await;
    }

    fn private(&self) -> (&Supervisor, u16) {
        match &self.server {
            Server::Private { supervisor, port } => (supervisor, *port),
            Server::Named { .. } => {
                panic!(
                    "the server that POSTGRES_URI names is not this test's to end; use `Postgres::start()`"
                )
            }
        }
    }
}

fn uri(port: u16, database: &str) -> String {
    format!("postgres://{USER}@127.0.0.1:{port}/{database}")
}

/// The same server's other database.
fn with_database(uri: &str, database: &str) -> String {
    let (address, parameters) = match uri.split_once('?') {
        Some((address, parameters)) => (address, format!("?{parameters}")),
        None => (uri, String::new()),
    };
    let scheme = address.find("://").map_or(0, |at| at + 3);
    let server = address[scheme..].find('/').map_or(address, |slash| &address[..scheme + slash]);
    format!("{server}/{database}{parameters}")
}

fn prepare(bin: &Path, port: u16) -> io::Result<Supervisor> {
    let supervisor = Supervisor::new("postgres")?;
    let folder = supervisor.folder().to_owned();
    let data = folder.join("data");
    std::fs::create_dir(&data)?;
    let mut change_user = String::new();
    if folder.metadata()?.uid() == 0 {
        let (user, group) = unprivileged()?;
        // The server's user has to pass through the folder, and see nothing in it but its own.
        std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o711))?;
        chown(&data, Some(user), Some(group))?;
        change_user = format!("setpriv --reuid={user} --regid={group} --clear-groups --");
    }
    std::fs::set_permissions(&data, std::fs::Permissions::from_mode(0o700))?;
    let quoted = format!("'{}'", data.display());
    let run = RUN
        .replace("DATA", &quoted)
        .replace("AS ", &format!("{change_user} "))
        .replace("BIN", &bin.display().to_string())
        .replace("USER", USER)
        .replace("PORT", &port.to_string());
    supervisor.write("run", &run)?;
    supervisor.write("signal", SIGNAL)?;
    supervisor.write("finish", &FINISH.replace("DATA", &data.display().to_string()))?;
    Ok(supervisor)
}

/// User and group of whom PostgreSQL may run as.
fn unprivileged() -> io::Result<(u32, u32)> {
    let users = std::fs::read_to_string("/etc/passwd")?;
    UNPRIVILEGED
        .iter()
        .find_map(|wanted| {
            let mut fields = users.lines().find(|line| line.split(':').next() == Some(wanted))?.split(':');
            let user = fields.nth(2)?.parse().ok()?;
            Some((user, fields.next()?.parse().ok()?))
        })
        .ok_or_else(|| {
            io::Error::other("PostgreSQL refuses to run as root, and there is no user `postgres` or `nobody`")
        })
}

async fn ready(psql: &Path, uri: &str) -> bool {
    run(psql, uri, "SELECT 1").await.is_ok_and(|output| output.status.success())
}

async fn run(psql: &Path, uri: &str, sql: &str) -> io::Result<Output> {
    let mut command = Command::new(psql);
    command.args(["--no-psqlrc", "--quiet", "--command", sql, uri]).stdin(Stdio::null());
    command.env("PGCONNECT_TIMEOUT", "10");
    tokio::task::spawn_blocking(move || command.output()).await.map_err(io::Error::other)?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_database_is_named_in_any_connection_string() {
        for (uri, expected) in [
            ("postgres://galerna@127.0.0.1:5432/postgres", "postgres://galerna@127.0.0.1:5432/mine"),
            ("postgres://a:b@host", "postgres://a:b@host/mine"),
            ("postgres://host/old?sslmode=disable", "postgres://host/mine?sslmode=disable"),
        ] {
            assert_eq!(with_database(uri, "mine"), expected);
        }
    }
}
