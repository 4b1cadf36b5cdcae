//! Private servers start, keep their data over a restart, can be killed and frozen, and leave nothing behind.

use std::collections::HashSet;
use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use galerna_test_servers::{Mongo, Postgres, RabbitMq, unique};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};

/// `host:port` of an address such as `amqp://user:password@host:port/path`.
fn authority(uri: &str) -> &str {
    let rest = uri.split_once("://").expect("an address has a scheme").1;
    let rest = rest.split(['/', '?']).next().unwrap_or(rest);
    rest.rsplit_once('@').map_or(rest, |(_, host)| host)
}

async fn connects(uri: &str) -> bool {
    TcpStream::connect(authority(uri)).await.is_ok()
}

/// The answer to one HTTP call to the management API, status line first.
async fn management(rabbit: &RabbitMq, method: &str, path: &str, body: &str) -> String {
    let mut stream =
        TcpStream::connect(authority(&rabbit.management_uri())).await.expect("the API takes connections");
    let request = format!(
        "{method} {path} HTTP/1.0\r\nauthorization: Basic Z3Vlc3Q6Z3Vlc3Q=\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).await.expect("the API reads the request");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("the API answers in UTF-8");
    answer
}

/// Reads `connection.start` from an AMQP listener, or nothing when it does not answer within `limit`.
async fn greeting(uri: &str, limit: Duration) -> Option<u8> {
    let exchange = async {
        let mut stream = TcpStream::connect(authority(uri)).await.ok()?;
        stream.write_all(b"AMQP\x00\x00\x09\x01").await.ok()?;
        stream.read_u8().await.ok()
    };
    timeout(limit, exchange).await.ok().flatten()
}

#[tokio::test]
async fn tests_share_one_server_and_get_virtual_hosts_of_their_own() {
    let (one, two) = (RabbitMq::shared().await, RabbitMq::shared().await);
    assert_eq!(one.amqp_uri(), two.amqp_uri());
    let (first, second) = (one.vhost().await, two.vhost().await);
    assert_ne!(first, second);
    assert_eq!(authority(&first), authority(&one.amqp_uri()));
    assert!(connects(&first).await);
    if one.is_private() {
        let name = first.rsplit('/').next().expect("the address has a path");
        let answer = management(one, "GET", &format!("/api/vhosts/{name}"), "").await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
    let (one, two) = (Mongo::shared().await, Mongo::shared().await);
    assert_eq!(one.uri(), two.uri());
    assert!(connects(&one.uri()).await);
}

#[test]
fn names_are_unique_and_legal_everywhere() {
    let names: HashSet<String> = (0..1000).map(|_| unique("p")).collect();
    assert_eq!(names.len(), 1000);
    for name in names {
        assert!(
            name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_'),
            "{name}"
        );
        assert_eq!(name.len(), "p".len() + 20);
    }
}

#[tokio::test]
async fn rabbitmq_keeps_its_data_over_a_restart_and_over_a_kill() {
    let rabbit = RabbitMq::start().await;
    let uri = rabbit.amqp_uri();
    let durable = r#"{"durable":true,"arguments":{"x-queue-type":"quorum"}}"#;
    let made = management(&rabbit, "PUT", "/api/queues/%2F/kept", durable).await;
    assert!(made.starts_with("HTTP/1.1 201"), "{made}");

    rabbit.restart().await;
    assert_eq!(rabbit.amqp_uri(), uri);
    let kept = management(&rabbit, "GET", "/api/queues/%2F/kept", "").await;
    assert!(kept.starts_with("HTTP/1.1 200"), "{kept}");

    rabbit.kill().await;
    assert!(!connects(&uri).await);
    rabbit.restart().await;
    let kept = management(&rabbit, "GET", "/api/queues/%2F/kept", "").await;
    assert!(kept.starts_with("HTTP/1.1 200"), "{kept}");

    // A frozen server's kernel takes connections; the server answers nothing, until it is thawed.
    rabbit.freeze().await;
    assert_eq!(greeting(&uri, Duration::from_secs(1)).await, None);
    rabbit.thaw().await;
    assert_eq!(greeting(&uri, Duration::from_secs(60)).await, Some(1));

    rabbit.block_publishers().await;
    let alarm = management(&rabbit, "GET", "/api/health/checks/alarms", "").await;
    assert!(alarm.starts_with("HTTP/1.1 503"), "{alarm}");
    rabbit.unblock_publishers().await;
    let alarm = management(&rabbit, "GET", "/api/health/checks/alarms", "").await;
    assert!(alarm.starts_with("HTTP/1.1 200"), "{alarm}");
}

#[tokio::test]
async fn mongodb_restarts_on_its_port_after_a_stop_and_after_a_kill() {
    let mongo = Mongo::start().await;
    let uri = mongo.uri();
    mongo.kill().await;
    assert!(!connects(&uri).await);
    mongo.restart().await;
    assert!(connects(&uri).await);
    mongo.stop().await;
    assert!(!connects(&uri).await);
    mongo.restart().await;
    assert_eq!(mongo.uri(), uri);
    assert!(connects(&uri).await);
}

/// What `psql` prints for a statement.
fn psql(uri: &str, sql: &str) -> Result<String, String> {
    let output = Command::new("psql")
        .args(["--no-psqlrc", "--quiet", "--tuples-only", "--no-align", "--command", sql, uri])
        .env("PGCONNECT_TIMEOUT", "2")
        .output()
        .expect("psql is installed with the server");
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    } else {
        Err(String::from_utf8_lossy(&output.stderr).into_owned())
    }
}

#[tokio::test]
async fn postgresql_keeps_what_it_committed_over_a_restart_and_over_a_kill() {
    let postgres = Postgres::start().await;
    let uri = postgres.database().await;
    assert_ne!(postgres.database().await, uri);
    psql(&uri, "CREATE TABLE kept (n int); INSERT INTO kept VALUES (1)").expect("the table is made");

    // A session that is open keeps nobody from stopping the server.
    let mut session = Command::new("psql")
        .args(["--no-psqlrc", &uri])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("psql is installed with the server");
    postgres.restart().await;
    assert_eq!(psql(&uri, "INSERT INTO kept VALUES (2); SELECT count(*) FROM kept"), Ok("2".to_owned()));
    postgres.kill().await;
    assert!(psql(&uri, "SELECT 1").is_err());
    postgres.restart().await;
    assert_eq!(psql(&uri, "SELECT count(*) FROM kept"), Ok("2".to_owned()));
    drop(session.stdin.take());
    session.wait().expect("psql ends with its input");

    // A frozen server's kernel takes connections; the server answers nothing, until it is thawed.
    postgres.freeze().await;
    assert!(psql(&uri, "SELECT 1").is_err());
    postgres.thaw().await;
    assert_eq!(psql(&uri, "SELECT 1"), Ok("1".to_owned()));
}

#[tokio::test]
async fn a_replica_set_of_one_is_elected_again_after_it_stepped_down_or_was_restarted() {
    let mongo = Mongo::start_replica_set().await;
    assert!(mongo.uri().ends_with("/?replicaSet=galerna"));
    mongo.step_down(Duration::from_secs(1)).await;
    mongo.restart().await;
    assert!(connects(&mongo.uri()).await);
}

#[tokio::test]
async fn a_dropped_server_leaves_neither_processes_nor_its_folder() {
    let folder = Folder::new();
    let mut holder = folder.holder();
    drop(holder.stdin.take());
    assert!(holder.wait().expect("the holder can be waited for").success());
    folder.wait_until_nothing_is_left().await;
}

#[tokio::test]
async fn servers_die_with_a_process_that_is_killed() {
    let folder = Folder::new();
    let mut holder = folder.holder();
    assert!(!folder.processes().is_empty(), "the servers run before the kill");
    holder.kill().expect("the holder can be killed");
    holder.wait().expect("the holder can be waited for");
    folder.wait_until_nothing_is_left().await;
}

/// A folder in which another process starts its servers, so that this test can see what it leaves.
struct Folder(std::path::PathBuf);

impl Folder {
    fn new() -> Self {
        let path = std::env::temp_dir().join(unique("galerna_holder"));
        fs::create_dir(&path).expect("the temporary folder can be written");
        Self(path)
    }

    /// Starts the process and waits until all of its servers answer.
    fn holder(&self) -> Child {
        let mut holder = Command::new(env!("CARGO_BIN_EXE_galerna-test-servers"))
            .env("GALERNA_TEST_SERVERS_FOLDER", &self.0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the holder can be run");
        let stdout = holder.stdout.take().expect("stdout is piped");
        let addresses: Vec<String> = BufReader::new(stdout).lines().take(4).map_while(Result::ok).collect();
        assert_eq!(addresses.len(), 4, "{addresses:?}");
        holder
    }

    /// The command lines of the processes whose arguments, environment or working folder name this folder.
    fn processes(&self) -> Vec<String> {
        let folder = self.0.to_str().expect("the path is UTF-8").as_bytes();
        let mentions = |bytes: &[u8]| bytes.windows(folder.len()).any(|window| window == folder);
        let mut found = Vec::new();
        for process in fs::read_dir("/proc").expect("this is Linux").flatten() {
            let path = process.path();
            let arguments = fs::read(path.join("cmdline")).unwrap_or_default();
            let environment = fs::read(path.join("environ")).unwrap_or_default();
            if mentions(&arguments) || mentions(&environment) {
                found.push(String::from_utf8_lossy(&arguments).replace('\0', " "));
            }
        }
        found
    }

    async fn wait_until_nothing_is_left(&self) {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let processes = self.processes();
            let files: Vec<_> = fs::read_dir(&self.0).expect("the folder is there").flatten().collect();
            if processes.is_empty() && files.is_empty() {
                return;
            }
            assert!(Instant::now() < deadline, "left behind: {processes:?} {files:?}");
            // Nothing tells when an unrelated process has ended.
            sleep(Duration::from_millis(50)).await;
        }
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
