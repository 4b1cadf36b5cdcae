//! Clients that post readings, each until a frontend has said that they are accepted.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use reqwest::StatusCode;
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::cluster::SOURCE_TOKEN;
use crate::network::address;

/// Readings in a call.
const BATCH: u64 = 10;
/// How long a call may take, before another frontend is asked.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Of the first reading of each device: 2020-01-01. The others follow, a second apart.
const BEGIN: u64 = 1_577_836_800;

/// A reading by what identifies it: source, device and time in seconds.
pub(crate) type Identity = (String, String, u64);

/// What was posted, and what of it was accepted.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) posted: HashSet<Identity>,
    pub(crate) accepted: HashSet<Identity>,
    last: Option<Instant>,
    longest: Duration,
    /// Calls that were not answered, or not with 202, and were made again.
    pub(crate) repeated: u64,
}

impl Tally {
    /// The longest time without an acceptance since this was called last.
    pub(crate) fn take_gap(&mut self) -> Duration {
        let running = self.last.map_or(Duration::ZERO, |last| last.elapsed());
        std::mem::take(&mut self.longest).max(running)
    }

    fn accept(&mut self, readings: &[Identity]) {
        let now = Instant::now();
        if let Some(last) = self.last.replace(now) {
            self.longest = self.longest.max(now - last);
        }
        self.accepted.extend(readings.iter().cloned());
    }
}

struct Shared {
    http: reqwest::Client,
    tally: Mutex<Tally>,
    frontends: Mutex<Vec<usize>>,
    ending: Mutex<bool>,
    pause: Duration,
}

/// All clients, one an account.
pub(crate) struct Load {
    shared: Arc<Shared>,
    clients: Vec<JoinHandle<Result<()>>>,
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Load {
    /// Starts a client an account, each with this pause between its calls.
    pub(crate) fn start(accounts: usize, frontends: Vec<usize>, pause: Duration) -> Result<Self> {
        let shared = Arc::new(Shared {
            http: reqwest::Client::builder().timeout(TIMEOUT).build()?,
            tally: Mutex::default(),
            frontends: Mutex::new(frontends),
            ending: Mutex::new(false),
            pause,
        });
        let clients = (0..accounts).map(|account| tokio::spawn(client(shared.clone(), account))).collect();
        Ok(Self { shared, clients })
    }

    pub(crate) fn tally(&self) -> std::sync::MutexGuard<'_, Tally> {
        lock(&self.shared.tally)
    }

    /// Frontends that are there to be asked.
    pub(crate) fn set_frontends(&self, frontends: Vec<usize>) {
        *lock(&self.shared.frontends) = frontends;
    }

    /// Ends once each client has had its last call accepted.
    ///
    /// # Errors
    /// When a frontend said of good readings that they are bad.
    pub(crate) async fn end(&mut self) -> Result<()> {
        *lock(&self.shared.ending) = true;
        for client in self.clients.drain(..) {
            client.await??;
        }
        Ok(())
    }

    /// # Errors
    /// As [`Self::end`].
    pub(crate) async fn check(&mut self) -> Result<()> {
        for client in &mut self.clients {
            if client.is_finished() {
                client.await??;
                bail!("a client ended before it was told to");
            }
        }
        Ok(())
    }
}

async fn client(shared: Arc<Shared>, account: usize) -> Result<()> {
    let source = format!("S{account}");
    let device = format!("meter-{account}");
    for call in 0.. {
        if *lock(&shared.ending) {
            break;
        }
        let times: Vec<u64> = (call * BATCH..(call + 1) * BATCH).map(|n| BEGIN + n).collect();
        let identities: Vec<Identity> =
            times.iter().map(|ts| (source.clone(), device.clone(), *ts)).collect();
        lock(&shared.tally).posted.extend(identities.iter().cloned());
        let body: Vec<Value> = times
            .iter()
            .map(|ts| {
                let values = json!([{"p": 401, "v": 100.0}]);
                json!({"did": device, "values": values, "sqn": ts - BEGIN + 1, "ts": rfc3339(*ts)})
            })
            .collect();
        while !post(&shared, &source, &body).await? {
            lock(&shared.tally).repeated += 1;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        lock(&shared.tally).accept(&identities);
        tokio::time::sleep(shared.pause).await;
    }
    Ok(())
}

/// Whether the readings were accepted; false when that is not known.
async fn post(shared: &Shared, source: &str, body: &[Value]) -> Result<bool> {
    let node = {
        let frontends = lock(&shared.frontends);
        frontends[fastrand::usize(..frontends.len())]
    };
    let url = format!("http://{}:8080/readings?source_key={source}", address(node));
    let request = shared.http.post(url).header("x-dexcell-source-token", SOURCE_TOKEN).json(body);
    let Ok(answer) = request.send().await else { return Ok(false) };
    let status = answer.status();
    let text = answer.text().await.unwrap_or_default();
    if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS {
        return Ok(false);
    }
    let said: Value = serde_json::from_str(&text).unwrap_or_default();
    if status == StatusCode::ACCEPTED && said["accepted"] == BATCH {
        return Ok(true);
    }
    // The answer may have been cut.
    if status == StatusCode::ACCEPTED && said.is_null() {
        return Ok(false);
    }
    bail!("a frontend answers {status} to good readings: {text}")
}

/// A time in seconds since 1970 as the API takes it.
fn rfc3339(seconds: u64) -> String {
    let time = bson::DateTime::from_millis(i64::try_from(seconds * 1_000).unwrap_or(i64::MAX));
    time.try_to_rfc3339_string().unwrap_or_default()
}
