//! What the demo talks to: a status API, a mail server and a webhook, on free ports of this machine.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context as _;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::{get, post};
use axum::{Json, Router};
use galerna_lock::Mutex;
use galerna_model::{Clock, ManualClock, Timestamp};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use url::Url;

use super::recording::Recorded;
use crate::topology::{LineStatus, WebhookBody};

async fn bind() -> anyhow::Result<(TcpListener, SocketAddr)> {
    let listener = TcpListener::bind("127.0.0.1:0").await.context("listening on a free port")?;
    let address = listener.local_addr()?;
    Ok((listener, address))
}

/// Ends its server when it is dropped.
struct Server(JoinHandle<()>);

impl Server {
    fn serve(listener: TcpListener, router: Router) -> Self {
        Self(tokio::spawn(async move {
            if let Err(error) = axum::serve(listener, router).await {
                tracing::error!(%error, "a server of the demo ended");
            }
        }))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.0.abort();
    }
}

struct Statuses {
    /// By line, in order.
    recorded: BTreeMap<String, Vec<Recorded>>,
    clock: ManualClock,
    told: Mutex<Vec<Recorded>>,
}

impl Statuses {
    /// What a line is at a time, and since when.
    fn at(events: &[Recorded], now: Timestamp) -> Option<&Recorded> {
        events[..events.partition_point(|event| event.at <= now)]
            .chunk_by(|a, b| a.state == b.state)
            .last()
            .map(|run| &run[0])
    }
}

/// A status API that says of each line what it is at the recorded time, and remembers what it has said.
pub(super) struct StatusApi {
    address: SocketAddr,
    statuses: Arc<Statuses>,
    _server: Server,
}

impl StatusApi {
    pub(super) async fn start(
        recorded: &[Recorded],
        lines: &std::collections::BTreeSet<String>,
        clock: ManualClock,
    ) -> anyhow::Result<Self> {
        let mut by_line: BTreeMap<String, Vec<Recorded>> = BTreeMap::new();
        for event in recorded.iter().filter(|event| lines.contains(&event.line)) {
            by_line.entry(event.line.clone()).or_default().push(event.clone());
        }
        let statuses = Arc::new(Statuses { recorded: by_line, clock, told: Mutex::default() });
        let (listener, address) = bind().await?;
        let router = Router::new().route("/status", get(status)).with_state(statuses.clone());
        Ok(Self { address, statuses, _server: Server::serve(listener, router) })
    }

    pub(super) fn url(&self) -> anyhow::Result<Url> {
        Ok(format!("http://{}/status", self.address).parse()?)
    }

    /// Whether it has told of each line what it is at the end.
    pub(super) fn told_last(&self) -> bool {
        let told = self.statuses.told.lock();
        let end = |events: &Vec<Recorded>| Statuses::at(events, Timestamp(i64::MAX)).cloned();
        self.statuses.recorded.values().filter_map(end).all(|last| told.contains(&last))
    }

    /// What it has told, each once.
    pub(super) fn told(&self) -> Vec<Recorded> {
        let mut told = self.statuses.told.lock().clone();
        told.sort();
        told.dedup();
        told
    }
}

async fn status(State(statuses): State<Arc<Statuses>>) -> Json<Vec<LineStatus>> {
    let now = statuses.clock.now();
    let lines: Vec<&Recorded> =
        statuses.recorded.values().filter_map(|events| Statuses::at(events, now)).collect();
    let mut told = statuses.told.lock();
    for line in &lines {
        if !told.contains(line) {
            told.push((*line).clone());
        }
    }
    let status = |event: &Recorded| LineStatus {
        line: event.line.clone(),
        status: event.state,
        since: Some(event.at.to_string()),
    };
    Json(lines.into_iter().map(status).collect())
}

#[derive(Default)]
struct Calls {
    taken: Mutex<Vec<WebhookBody>>,
    refused: Mutex<Vec<String>>,
}

/// A webhook that is out of order at each tenth call.
pub(super) struct WebhookReceiver {
    address: SocketAddr,
    calls: Arc<Calls>,
    _server: Server,
}

impl WebhookReceiver {
    pub(super) async fn start() -> anyhow::Result<Self> {
        let calls = Arc::new(Calls::default());
        let (listener, address) = bind().await?;
        let router = Router::new().route("/hook", post(hook)).with_state(calls.clone());
        Ok(Self { address, calls, _server: Server::serve(listener, router) })
    }

    pub(super) fn url(&self) -> anyhow::Result<Url> {
        Ok(format!("http://{}/hook", self.address).parse()?)
    }

    /// The calls that it took.
    pub(super) fn taken(&self) -> Vec<WebhookBody> {
        self.calls.taken.lock().clone()
    }

    /// How many it refused.
    pub(super) fn refused(&self) -> usize {
        self.calls.refused.lock().len()
    }
}

async fn hook(
    State(calls): State<Arc<Calls>>,
    headers: HeaderMap,
    Json(body): Json<WebhookBody>,
) -> StatusCode {
    if headers.get("idempotency-key").and_then(|key| key.to_str().ok()) != Some(&body.id) {
        return StatusCode::BAD_REQUEST;
    }
    let mut taken = calls.taken.lock();
    let mut refused = calls.refused.lock();
    if (taken.len() + refused.len()) % 10 == 9 && !refused.contains(&body.id) {
        refused.push(body.id);
        return StatusCode::SERVICE_UNAVAILABLE;
    }
    taken.push(body);
    StatusCode::NO_CONTENT
}

/// A mail as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mail {
    pub(super) recipients: usize,
    pub(super) subject: String,
}

/// A mail server that keeps what comes.
pub(super) struct Mailbox {
    address: SocketAddr,
    taken: Arc<Mutex<Vec<Mail>>>,
    _server: Server,
}

impl Mailbox {
    pub(super) async fn start() -> anyhow::Result<Self> {
        let (listener, address) = bind().await?;
        let taken = Arc::new(Mutex::new(Vec::new()));
        let keeping = taken.clone();
        let server = Server(tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let taken = keeping.clone();
                tokio::spawn(async move {
                    if let Err(error) = converse(stream, &taken).await {
                        tracing::warn!(%error, "a client of the mail server went away");
                    }
                });
            }
        }));
        Ok(Self { address, taken, _server: server })
    }

    pub(super) fn url(&self) -> String {
        format!("smtp://{}", self.address)
    }

    /// The mails that came.
    pub(super) fn taken(&self) -> Vec<Mail> {
        self.taken.lock().clone()
    }
}

/// SMTP (RFC 5321), as much of it as taking mail needs.
async fn converse(stream: TcpStream, taken: &Mutex<Vec<Mail>>) -> std::io::Result<()> {
    let (read, mut write) = stream.into_split();
    let mut lines = BufReader::new(read).lines();
    write.write_all(b"220 mailbox\r\n").await?;
    let mut recipients = 0;
    while let Some(line) = lines.next_line().await? {
        let command = line.get(..4).unwrap_or_default().to_ascii_uppercase();
        let answer = match command.as_str() {
            "RCPT" => {
                recipients += 1;
                "250 ok"
            }
            "DATA" => {
                write.write_all(b"354 go on\r\n").await?;
                let (mut subject, mut in_head, mut in_subject) = (String::new(), true, false);
                while let Some(line) = lines.next_line().await?.filter(|line| line != ".") {
                    in_head &= !line.is_empty();
                    if let Some(text) = line.strip_prefix("Subject: ").filter(|_| in_head) {
                        (subject, in_subject) = (text.to_owned(), true);
                    } else if in_subject && in_head && line.starts_with(' ') {
                        // A long header is folded (RFC 5322, section 2.2.3).
                        subject.push_str(&line);
                    } else {
                        in_subject = false;
                    }
                }
                taken.lock().push(Mail { recipients, subject });
                recipients = 0;
                "250 taken"
            }
            "EHLO" | "HELO" | "MAIL" | "RSET" | "NOOP" => "250 ok",
            "QUIT" => {
                write.write_all(b"221 bye\r\n").await?;
                break;
            }
            _ => "502 not here",
        };
        write.write_all(answer.as_bytes()).await?;
        write.write_all(b"\r\n").await?;
    }
    Ok(())
}
