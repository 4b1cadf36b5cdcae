//! Whether a queue ever had two holders.
//!
//! Two views, which must agree: what the store had of each queue, change by change, as a majority had it; and what clients were told that
//! lease queues beside the workers. Both are timed by the wall clock of this machine, which all of them share.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bson::{Bson, Document};
use mongodb::Client;
use mongodb::change_stream::event::{ChangeStreamEvent, OperationType, ResumeToken};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::cluster::{API_TOKEN, DATABASE};
use crate::network::address;

/// Milliseconds since 1970.
fn now() -> i64 {
    bson::DateTime::now().timestamp_millis()
}

/// A time in which a client had reason to believe that a queue was its own.
#[derive(Clone, Debug)]
struct Held {
    queue: String,
    consumer: String,
    epoch: i64,
    from: i64,
    until: i64,
}

impl fmt::Display for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { queue, consumer, epoch, from, until } = self;
        write!(f, "{consumer} held {queue} (epoch {epoch}) from {from} to {until}")
    }
}

/// A lease as the store has it.
#[derive(Clone, Debug, PartialEq)]
struct Stored {
    consumer: String,
    epoch: i64,
    renewal: i64,
    lease_ms: i64,
    /// When this was written.
    at: i64,
}

/// The last that was seen of a queue.
#[derive(Debug, Default)]
struct Queue {
    document: Document,
    epoch: i64,
    crashes: i64,
    lease: Option<Stored>,
}

#[derive(Debug, Default)]
struct Seen {
    queues: HashMap<String, Queue>,
    /// Each lease that was granted.
    grants: Vec<(String, Stored)>,
    expired: u64,
    held: Vec<Held>,
    violations: Vec<String>,
}

impl Seen {
    /// Takes one change of a queue: fields by their dotted names, or the whole document.
    fn change(
        &mut self,
        queue: &str,
        at: i64,
        whole: Option<Document>,
        fields: Document,
        removed: Vec<String>,
    ) {
        let known = self.queues.entry(queue.to_owned()).or_default();
        if let Some(whole) = whole {
            known.document = whole;
        }
        for (path, value) in fields {
            set(&mut known.document, &path, Some(value));
        }
        for path in removed {
            set(&mut known.document, &path, None);
        }
        let Ok(record) = known.document.get_document("record") else { return };
        let number = |document: &Document, name: &str| document.get(name).and_then(Bson::as_i64).unwrap_or(0);
        let (epoch, crashes) = (number(record, "epoch"), number(record, "crashes"));
        let mut lease = record.get_document("lease").ok().map(|lease| Stored {
            consumer: lease.get_str("consumer").unwrap_or_default().to_owned(),
            epoch,
            renewal: number(lease, "renewal"),
            lease_ms: number(lease, "lease_ms"),
            at,
        });
        // What did not change keeps its time.
        if let (Some(new), Some(old)) = (&mut lease, &known.lease)
            && (new.epoch, new.renewal) == (old.epoch, old.renewal)
        {
            new.at = old.at;
        }
        let mut wrong = Vec::new();
        if epoch < known.epoch {
            wrong.push(format!("{queue}: the epoch went from {} to {epoch}", known.epoch));
        }
        if let (Some(new), Some(old)) = (&lease, &known.lease)
            && new.epoch == old.epoch
            && new.consumer != old.consumer
        {
            wrong.push(format!("{queue}: epoch {epoch} is {}'s and was {}'s", new.consumer, old.consumer));
        }
        if let Some(old) = &known.lease {
            // Only an expiry counts a crash. A release and the next holder's lease can be one write.
            let ended = lease.as_ref().is_none_or(|new| new.epoch != old.epoch);
            let expired = ended && crashes > known.crashes;
            self.expired += u64::from(expired);
            let lasted = at - old.at;
            if expired && lasted < old.lease_ms {
                wrong.push(format!("{queue}: {old:?} was ended by others after {lasted} ms"));
            }
        }
        if let Some(new) = &lease
            && known.lease.as_ref().is_none_or(|old| old.epoch != new.epoch)
        {
            if epoch <= known.epoch {
                wrong
                    .push(format!("{queue}: a lease was granted with epoch {epoch}, which was given before"));
            }
            self.grants.push((queue.to_owned(), new.clone()));
        }
        (known.epoch, known.crashes, known.lease) = (epoch, crashes, lease);
        self.violations.append(&mut wrong);
    }

    /// Compares what clients believed with each other and with the store.
    fn compare(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        for (n, held) in self.held.iter().enumerate() {
            for other in &self.held[n + 1..] {
                let (from, until) = (held.from.max(other.from), held.until.min(other.until));
                if held.queue == other.queue && from < until {
                    wrong.push(format!("for {} ms {held} and {other}", until - from));
                }
            }
            for (queue, grant) in &self.grants {
                let within = held.from < grant.at && grant.at < held.until;
                if *queue == held.queue && grant.epoch > held.epoch && within {
                    wrong.push(format!("{held}, and it was granted meanwhile: {grant:?}"));
                }
            }
        }
        wrong
    }
}

/// Sets a field, or removes it, by its dotted name.
fn set(document: &mut Document, path: &str, value: Option<Bson>) {
    match (path.split_once('.'), value) {
        (None, Some(value)) => drop(document.insert(path, value)),
        (None, None) => drop(document.remove(path)),
        (Some((first, rest)), value) => {
            if !matches!(document.get(first), Some(Bson::Document(_))) {
                document.insert(first, Document::new());
            }
            if let Ok(inner) = document.get_document_mut(first) {
                set(inner, rest, value);
            }
        }
    }
}

/// What the leases of a run came to.
#[derive(Clone, Debug, Default)]
pub(crate) struct LeaseCount {
    pub(crate) granted: u64,
    pub(crate) expired: u64,
    /// By the clients that lease beside the workers.
    pub(crate) held: u64,
}

/// Both views, while the run lasts.
pub(crate) struct Leases {
    seen: Arc<Mutex<Seen>>,
    ending: Arc<AtomicBool>,
    nodes: Arc<Mutex<Vec<usize>>>,
    watching: JoinHandle<()>,
    clients: Vec<JoinHandle<()>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Leases {
    /// Watches the store from now on. To be called before there are queues.
    pub(crate) fn watch(mongo: Client) -> Self {
        let seen = Arc::<Mutex<Seen>>::default();
        let watching = tokio::spawn(watch(mongo, seen.clone()));
        Self { seen, ending: Arc::default(), nodes: Arc::default(), watching, clients: Vec::new() }
    }

    /// Starts clients that lease queues for a while and give them back.
    pub(crate) fn start_clients(&mut self, nodes: Vec<usize>, lease: Duration) -> reqwest::Result<()> {
        self.set_dispatchers(nodes);
        for number in 1..=3 {
            let client = LeaseClient {
                name: format!("client-{number}"),
                http: reqwest::Client::builder().timeout(Duration::from_secs(5)).build()?,
                nodes: self.nodes.clone(),
                seen: self.seen.clone(),
                ending: self.ending.clone(),
                lease,
            };
            self.clients.push(tokio::spawn(client.run()));
        }
        Ok(())
    }

    /// Dispatchers that are there to be asked.
    pub(crate) fn set_dispatchers(&self, nodes: Vec<usize>) {
        *lock(&self.nodes) = nodes;
    }

    pub(crate) async fn end_clients(&mut self) {
        self.ending.store(true, Ordering::SeqCst);
        for client in self.clients.drain(..) {
            client.await.ok();
        }
    }

    pub(crate) fn count(&self) -> LeaseCount {
        let seen = lock(&self.seen);
        LeaseCount { granted: seen.grants.len() as u64, expired: seen.expired, held: seen.held.len() as u64 }
    }

    /// Everything that must not have been.
    pub(crate) fn violations(&self) -> Vec<String> {
        let seen = lock(&self.seen);
        seen.violations.iter().cloned().chain(seen.compare()).collect()
    }

    /// The highest epoch of each queue that was seen in the store.
    pub(crate) fn epochs(&self) -> HashMap<String, i64> {
        lock(&self.seen).queues.iter().map(|(name, queue)| (name.clone(), queue.epoch)).collect()
    }
}

impl Drop for Leases {
    fn drop(&mut self) {
        self.watching.abort();
        self.clients.iter().for_each(JoinHandle::abort);
    }
}

/// Follows the queues' documents; goes on where it was after each failure.
async fn watch(mongo: Client, seen: Arc<Mutex<Seen>>) {
    let queues = mongo.database(DATABASE).collection::<Document>("queue_states");
    let mut token: Option<ResumeToken> = None;
    loop {
        let stream = queues.watch();
        let stream = match token.clone() {
            Some(token) => stream.resume_after(token),
            None => stream,
        };
        if let Ok(mut stream) = stream.await {
            while stream.is_alive() {
                match stream.next_if_any().await {
                    Ok(Some(event)) => take(&seen, event),
                    Ok(None) => {}
                    Err(_) => break,
                }
                token = stream.resume_token().or(token);
            }
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

fn take(seen: &Mutex<Seen>, event: ChangeStreamEvent<Document>) {
    let key = event.document_key.as_ref().and_then(|key| key.get_str("_id").ok().map(str::to_owned));
    let Some(queue) = key else { return };
    let at = event.wall_time.map_or_else(now, bson::DateTime::timestamp_millis);
    let (fields, removed) = event
        .update_description
        .map_or_else(Default::default, |change| (change.updated_fields, change.removed_fields));
    let whole = event.full_document.filter(|_| event.operation_type != OperationType::Update);
    lock(seen).change(&queue, at, whole, fields, removed);
}

struct LeaseClient {
    name: String,
    http: reqwest::Client,
    nodes: Arc<Mutex<Vec<usize>>>,
    seen: Arc<Mutex<Seen>>,
    ending: Arc<AtomicBool>,
    lease: Duration,
}

impl LeaseClient {
    /// Calls any dispatcher: status and body, if there is an answer.
    async fn call(&self, path: &str, body: Value) -> Option<(u16, Value)> {
        let node = {
            let nodes = lock(&self.nodes);
            nodes[fastrand::usize(..nodes.len())]
        };
        let url = format!("http://{}:7676{path}", address(node));
        let answer = self.http.post(url).bearer_auth(API_TOKEN).json(&body).send().await.ok()?;
        let status = answer.status().as_u16();
        Some((status, answer.json().await.unwrap_or_default()))
    }

    async fn run(self) {
        while !self.ending.load(Ordering::SeqCst) {
            let asked = now();
            let answer = self.call("/queue/next", json!({"consumer": self.name, "wait_ms": 500})).await;
            match answer {
                Some((200, lease)) => self.hold(asked, &lease).await,
                _ => tokio::time::sleep(Duration::from_millis(300)).await,
            }
            // Most of the time the queues are the workers'.
            tokio::time::sleep(Duration::from_millis(fastrand::u64(200..2_000))).await;
        }
    }

    async fn hold(&self, asked: i64, lease: &Value) {
        let (Some(queue), Some(epoch)) = (lease["queue"].as_str(), lease["epoch"].as_i64()) else { return };
        let from = now();
        // As the API says: it counts from before the request, less a margin.
        let end = |asked: i64, lease: &Value| asked + lease["expires_in_ms"].as_i64().unwrap_or(0) * 9 / 10;
        let mut stop = end(asked, lease);
        let lease_ms = i64::try_from(self.lease.as_millis()).unwrap_or(0);
        // Some within a lease, some over several.
        let wanted = from + fastrand::i64(100..2 * lease_ms);
        let mut renew = asked + lease_ms / 3;
        loop {
            let next = renew.min(stop).min(wanted);
            let pause = u64::try_from(next - now()).unwrap_or(0);
            tokio::time::sleep(Duration::from_millis(pause)).await;
            if now() >= stop.min(wanted) {
                break;
            }
            let asked = now();
            match self.call(&format!("/queue/{queue}/renew"), json!({"epoch": epoch})).await {
                Some((200, renewed)) if renewed["revoked"] != true => {
                    stop = stop.max(end(asked, &renewed));
                    renew = asked + lease_ms / 3;
                }
                Some((200, _)) => break,
                // Somebody else has it, who must not have had it before this one's time was over.
                Some((409, said)) => {
                    if now() < stop {
                        let wrong =
                            format!("{queue}: {} lost epoch {epoch} before its time: {said}", self.name);
                        lock(&self.seen).violations.push(wrong);
                    }
                    break;
                }
                _ => renew = now() + 200,
            }
        }
        let until = now().min(stop);
        let (queue, consumer) = (queue.to_owned(), self.name.clone());
        let path = format!("/queue/{queue}/release");
        lock(&self.seen).held.push(Held { queue, consumer, epoch, from, until });
        self.call(&path, json!({"epoch": epoch, "empty": false})).await;
    }
}

#[cfg(test)]
mod tests {
    use bson::doc;

    use super::*;

    fn lease(consumer: &str, epoch: i64, renewal: i64) -> Document {
        let lease = doc! { "consumer": consumer, "renewal": renewal, "lease_ms": 1_000_i64 };
        doc! { "record": { "epoch": epoch, "crashes": 0_i64, "lease": lease } }
    }

    fn whole(seen: &mut Seen, at: i64, document: Document) {
        seen.change("Q", at, Some(document), Document::new(), Vec::new());
    }

    #[test]
    fn leases_that_follow_each_other_are_no_violation() {
        let mut seen = Seen::default();
        whole(&mut seen, 0, lease("a", 1, 0));
        seen.change("Q", 900, None, doc! { "record.lease.renewal": 1_i64 }, Vec::new());
        // It expires a whole lease after its renewal.
        let expired = doc! { "record.lease": Bson::Null, "record.crashes": 1_i64 };
        seen.change("Q", 1_950, None, expired, Vec::new());
        whole(&mut seen, 2_000, lease("b", 2, 0));
        let released = doc! { "record.lease": Bson::Null };
        seen.change("Q", 2_010, None, released, Vec::new());
        whole(&mut seen, 2_020, lease("a", 3, 0));
        // It is released and leased in one write.
        whole(&mut seen, 2_030, lease("b", 4, 0));
        assert_eq!(seen.violations, Vec::<String>::new());
        assert_eq!((seen.grants.len(), seen.expired), (4, 1));
    }

    #[test]
    fn a_lease_that_is_ended_early_or_given_twice_is_a_violation() {
        type Case = (&'static str, fn(&mut Seen));
        let cases: [Case; 4] = [
            ("was ended by others after 950 ms", |seen| {
                let expired = doc! { "record.lease": Bson::Null, "record.crashes": 1_i64 };
                seen.change("Q", 950, None, expired, Vec::new());
            }),
            ("was ended by others after 500 ms", |seen| {
                let mut next = lease("b", 3, 0);
                set(&mut next, "record.crashes", Some(Bson::Int64(1)));
                whole(seen, 500, next);
            }),
            ("epoch 2 is b's and was a's", |seen| whole(seen, 500, lease("b", 2, 0))),
            ("the epoch went from 2 to 1", |seen| whole(seen, 5_000, lease("b", 1, 0))),
        ];
        for (expected, change) in cases {
            let mut seen = Seen::default();
            whole(&mut seen, 0, lease("a", 2, 0));
            change(&mut seen);
            assert!(
                seen.violations.iter().any(|said| said.contains(expected)),
                "{expected}: {:?}",
                seen.violations
            );
        }
    }

    #[test]
    fn a_client_that_holds_what_is_granted_to_another_is_a_violation() {
        let held = |consumer: &str, epoch, from, until| Held {
            queue: "Q".to_owned(),
            consumer: consumer.to_owned(),
            epoch,
            from,
            until,
        };
        let mut seen = Seen { held: vec![held("a", 1, 0, 100), held("b", 2, 100, 200)], ..Seen::default() };
        let grant = |epoch, at| {
            let consumer = "w".to_owned();
            ("Q".to_owned(), Stored { consumer, epoch, renewal: 0, lease_ms: 1_000, at })
        };
        seen.grants = vec![grant(1, 0), grant(2, 100), grant(3, 200)];
        assert_eq!(seen.compare(), Vec::<String>::new());
        seen.grants.push(grant(4, 150));
        seen.held.push(held("c", 5, 199, 300));
        assert_eq!(seen.compare().len(), 2, "{:?}", seen.compare());
    }
}
