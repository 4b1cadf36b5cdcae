//! Listeners stand whatever is sent to them, and end without losing a call. Over real sockets.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use galerna_http::{ServeOptions, metrics, serve_until};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// Longer than anything takes on a machine that compiles meanwhile.
const LONG: Duration = Duration::from_secs(120);

const HALF: &[u8] = b"GET / HTTP/1.1\r\nhost: x\r\n";

/// Says to this program that it is the server of a test, and how many connections it may have.
const SERVER: &str = "GALERNA_HTTP_TEST_CONNECTIONS";

/// A server in a process of its own that may open so many files.
struct Process(Child, String);

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

impl Process {
    fn start(files: usize, connections: &str, test: &str) -> Self {
        let script = format!("ulimit -n {files} && exec \"$0\" --exact --nocapture {test}");
        let mut child = Command::new("sh")
            .args(["-c", &script])
            .arg(std::env::current_exe().expect("this program"))
            .env(SERVER, connections)
            .stdout(Stdio::piped())
            .spawn()
            .expect("sh runs");
        let lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let address = lines
            .map(|line| line.expect("text"))
            .find_map(|line| line.split_once("listens at ").map(|(_, at)| at.to_owned()))
            .expect("the server says where it listens");
        Self(child, address)
    }
}

/// Serves in this process, if it was started for that.
fn serve_if_asked() -> bool {
    let Ok(connections) = std::env::var(SERVER) else { return false };
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        println!("listens at {}", listener.local_addr().expect("an address"));
        let registry = metrics::process_registry("test").expect("a registry");
        let router = Router::new()
            .route("/", get(|| async { "here" }))
            .route("/metrics", get(move || async move { metrics::answer(&registry) }));
        let options = ServeOptions::new("test");
        let options = match connections.parse() {
            Ok(connections) => ServeOptions { connections, ..options },
            Err(_) => options.within_files(2),
        };
        serve_until(listener, router, options, std::future::pending()).await.expect("served");
    });
    true
}

async fn connect(from: &str, to: &str) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind(format!("{from}:0").parse().expect("an address")).expect("bound");
    socket.connect(to.parse().expect("an address")).await.expect("connected")
}

/// Asks on a connection of its own; gives what came back.
async fn ask(from: &str, to: &str, path: &str) -> String {
    let mut stream = connect(from, to).await;
    let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    let mut answer = Vec::new();
    drop(stream.write_all(request.as_bytes()).await);
    drop(timeout(LONG, stream.read_to_end(&mut answer)).await.expect("an answer or an end"));
    String::from_utf8_lossy(&answer).into_owned()
}

async fn answers_through_half_sent_requests(mut server: Process, files: usize) {
    let mut half_sent = Vec::new();
    for _ in 0..600 {
        let mut stream = connect("127.0.0.1", &server.1).await;
        drop(stream.write_all(HALF).await);
        half_sent.push(stream);
    }
    for _ in 0..20 {
        // A connection that must give way can meet a request that has just been sent.
        let answer = ask("127.0.0.1", &server.1, "/").await;
        assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("here"), "{answer}");
    }
    let metrics = ask("127.0.0.1", &server.1, "/metrics").await;
    if let Some(open) = metrics.lines().find_map(|line| line.strip_prefix("process_open_fds ")) {
        assert!(open.parse::<usize>().expect("a number") <= files, "{open}");
    }
    assert!(server.0.try_wait().expect("a child").is_none(), "the process stands");
    drop(half_sent);
}

#[test]
fn more_half_sent_requests_than_files_keep_nobody_out() {
    if serve_if_asked() {
        return;
    }
    let server = Process::start(256, "", "more_half_sent_requests_than_files_keep_nobody_out");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(answers_through_half_sent_requests(server, 256));
}

#[test]
fn a_listener_whose_process_has_no_more_files_goes_on() {
    if serve_if_asked() {
        return;
    }
    let server = Process::start(128, "4096", "a_listener_whose_process_has_no_more_files_goes_on");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(answers_through_half_sent_requests(server, 128));
}

/// A service in this process.
struct Service {
    address: String,
    stop: Option<oneshot::Sender<()>>,
    /// A call of `/slow` has come; and it may be answered.
    came: std::sync::Arc<Notify>,
    go: std::sync::Arc<Notify>,
    serving: JoinHandle<()>,
}

async fn service(options: ServeOptions) -> Service {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address").to_string();
    let (came, go) = (std::sync::Arc::new(Notify::new()), std::sync::Arc::new(Notify::new()));
    let slow = {
        let (came, go) = (came.clone(), go.clone());
        move || async move {
            came.notify_one();
            go.notified().await;
            "slow"
        }
    };
    let router = Router::new().route("/", get(|| async { "here" })).route("/slow", get(slow));
    let (stop, stopped) = oneshot::channel();
    let serving = tokio::spawn(async move {
        let stopped = async { drop(stopped.await) };
        serve_until(listener, router, options, stopped).await.expect("served");
    });
    Service { address, stop: Some(stop), came, go, serving }
}

/// Sends a request on an open connection and reads its answer, which has a length.
async fn ask_on(stream: &mut TcpStream, path: &str) -> String {
    stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n").as_bytes()).await.expect("sent");
    read_answer(stream).await
}

async fn read_answer(stream: &mut TcpStream) -> String {
    let mut answer = Vec::new();
    loop {
        let mut byte = [0];
        timeout(LONG, stream.read_exact(&mut byte)).await.expect("in time").expect("an answer");
        answer.push(byte[0]);
        let text = String::from_utf8_lossy(&answer);
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|l| l.strip_prefix("content-length: ")).expect("a length");
            if body.len() == length.parse::<usize>().expect("a number") {
                return text.into_owned();
            }
        }
    }
}

async fn until_closed(stream: &mut TcpStream) {
    let mut rest = Vec::new();
    let read = timeout(LONG, stream.read_to_end(&mut rest)).await.expect("it is closed");
    assert!(read.is_ok() && rest.is_empty(), "{read:?} {}", String::from_utf8_lossy(&rest));
}

#[tokio::test(flavor = "multi_thread")]
async fn at_the_end_answers_close_their_connections_idle_ones_end_and_no_call_is_lost() {
    let mut service =
        service(ServeOptions { notice: Duration::from_secs(3), ..ServeOptions::new("test") }).await;
    let mut idle = TcpStream::connect(&service.address).await.expect("connected");
    let mut used = TcpStream::connect(&service.address).await.expect("connected");
    for stream in [&mut idle, &mut used] {
        assert!(!ask_on(stream, "/").await.contains("connection: close"));
    }
    let mut slow = TcpStream::connect(&service.address).await.expect("connected");
    slow.write_all(b"GET /slow HTTP/1.1\r\nhost: x\r\n\r\n").await.expect("sent");
    timeout(LONG, service.came.notified()).await.expect("the call has come");
    let mut half = TcpStream::connect(&service.address).await.expect("connected");
    half.write_all(HALF).await.expect("sent");

    drop(service.stop.take());
    // During the notice calls are served, on new connections too; their answers say that the connection ends.
    let closing = async {
        loop {
            let mut stream = TcpStream::connect(&service.address).await.expect("connected");
            let answer = ask_on(&mut stream, "/").await;
            assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
            if answer.contains("connection: close") {
                return stream;
            }
        }
    };
    until_closed(&mut timeout(LONG, closing).await.expect("notice is given")).await;
    let answer = ask_on(&mut used, "/").await;
    assert!(answer.contains("connection: close") && answer.ends_with("here"), "{answer}");
    until_closed(&mut used).await;
    // After it, idle connections end, and those that have sent half a request.
    until_closed(&mut idle).await;
    until_closed(&mut half).await;
    let refused = async {
        while TcpStream::connect(&service.address).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(LONG, refused).await.expect("no connection is taken");
    assert!(!service.serving.is_finished(), "a call is under way");
    service.go.notify_one();
    let answer = read_answer(&mut slow).await;
    assert!(answer.ends_with("slow"), "{answer}");
    timeout(LONG, service.serving).await.expect("it ends").expect("it ended well");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_does_not_end_is_cut_off_after_the_time_for_draining() {
    let mut service =
        service(ServeOptions { drain: Duration::from_millis(100), ..ServeOptions::new("test") }).await;
    let mut slow = TcpStream::connect(&service.address).await.expect("connected");
    slow.write_all(b"GET /slow HTTP/1.1\r\nhost: x\r\n\r\n").await.expect("sent");
    timeout(LONG, service.came.notified()).await.expect("the call has come");
    drop(service.stop.take());
    timeout(LONG, service.serving).await.expect("it ends").expect("it ended well");
    let mut rest = Vec::new();
    drop(timeout(LONG, slow.read_to_end(&mut rest)).await.expect("it is closed"));
    assert!(rest.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn heads_and_idle_connections_have_their_time() {
    let short = Duration::from_millis(200);
    let service = service(ServeOptions { first_byte: short, head: short, ..ServeOptions::new("test") }).await;
    let mut silent = TcpStream::connect(&service.address).await.expect("connected");
    let mut half = TcpStream::connect(&service.address).await.expect("connected");
    half.write_all(HALF).await.expect("sent");
    let mut idle = TcpStream::connect(&service.address).await.expect("connected");
    ask_on(&mut idle, "/").await;
    for stream in [&mut silent, &mut half, &mut idle] {
        until_closed(stream).await;
    }
    service.serving.abort();
}

// Only Linux has more addresses of its own than one without being told.
#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_has_its_connections_gets_no_more_and_others_get_theirs() {
    let options = ServeOptions {
        connections: 20,
        connections_of_one: 5,
        limits_loopback: true,
        ..ServeOptions::new("test")
    };
    let service = service(options).await;
    let mut held = Vec::new();
    for _ in 0..5 {
        let mut stream = connect("127.0.0.2", &service.address).await;
        // They are being answered, and so give way to nobody.
        stream.write_all(b"GET /slow HTTP/1.1\r\nhost: x\r\n\r\n").await.expect("sent");
        timeout(LONG, service.came.notified()).await.expect("the call has come");
        held.push(stream);
    }
    for _ in 0..30 {
        let refused = ask("127.0.0.2", &service.address, "/").await;
        // A connection may also be reset while the request is on its way.
        assert!(refused.is_empty() || refused.starts_with("HTTP/1.1 429"), "{refused}");
    }
    assert!(ask("127.0.0.1", &service.address, "/").await.ends_with("here"));
    drop(held.pop());
    let again = async { while !ask("127.0.0.2", &service.address, "/").await.ends_with("here") {} };
    timeout(LONG, again).await.expect("there is room again");
    service.serving.abort();
}
