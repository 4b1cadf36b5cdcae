//! A store that takes no writes: the dispatcher neither spins nor fills the log, and goes on when it is mended.

mod stage;

use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use galerna_dispatcher::{Leases, NextRequest};
use galerna_lease::{LeaseError, QueueRecord, QueueState};
use galerna_model::{QueueName, Timestamp};
use galerna_storage::{Changes, QueueStates, ReadyCount, Result, StorageError, Swap, Swapped};
use galerna_test_servers::{Mongo, unique};
use mongodb::bson::doc;
use stage::{Stage, lease, until};

/// Queue states that may be read and not written, as for a user who lost the role to write.
struct ReadOnly {
    inner: Arc<dyn QueueStates>,
    refuses: AtomicBool,
    attempts: AtomicUsize,
}

impl ReadOnly {
    fn check(&self) -> Result<()> {
        self.attempts.fetch_add(1, Ordering::SeqCst);
        if self.refuses.load(Ordering::SeqCst) {
            return Err(StorageError::Invalid("not authorised on galerna to execute command update".into()));
        }
        Ok(())
    }
}

#[async_trait]
impl QueueStates for ReadOnly {
    async fn all(&self) -> Result<Vec<QueueRecord>> {
        self.inner.all().await
    }
    async fn get(&self, queue: &QueueName) -> Result<Option<QueueRecord>> {
        self.inner.get(queue).await
    }
    async fn changes(&self, cursor: u64) -> Result<Changes> {
        self.inner.changes(cursor).await
    }
    async fn create(&self, records: &[QueueRecord]) -> Result<Vec<QueueName>> {
        self.inner.create(records).await
    }
    async fn swap(&self, swaps: &[Swap]) -> Result<Vec<Swapped>> {
        self.check()?;
        self.inner.swap(swaps).await
    }
    async fn remove(&self, queue: &QueueName, version: u64) -> Result<bool> {
        self.inner.remove(queue, version).await
    }
    async fn set_ready(&self, counts: &[ReadyCount], at: Timestamp) -> Result<()> {
        self.check()?;
        self.inner.set_ready(counts, at).await
    }
}

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    /// Logs of this thread, at `info` and above, until the guard is dropped.
    fn capture() -> (Self, tracing::subscriber::DefaultGuard) {
        let log = Self::default();
        let writer = log.clone();
        let subscriber =
            tracing_subscriber::fmt().with_writer(move || writer.clone()).with_ansi(false).finish();
        (log, tracing::subscriber::set_default(subscriber))
    }

    fn lines(&self) -> Vec<String> {
        String::from_utf8_lossy(&self.0.lock().unwrap()).lines().map(str::to_owned).collect()
    }
}

impl io::Write for Log {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(data);
        Ok(data.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Long enough for a loop without pauses to make thousands of attempts.
const WHILE: Duration = Duration::from_secs(3);

#[tokio::test]
async fn a_store_that_takes_no_writes_is_tried_seldom_and_told_of_once() {
    let (log, _guard) = Log::capture();
    let mut stage = Stage::embedded().await;
    // Of D1 and D2 the stored state is behind the count, which the dispatcher would mend by itself.
    stage.queues(&[("D1", 0), ("D2", 0), ("D3", 5)]).await;
    let store = Arc::new(ReadOnly {
        inner: stage.store.queues.clone(),
        refuses: AtomicBool::new(true),
        attempts: AtomicUsize::new(0),
    });
    stage.store.queues = store.clone();
    let d = stage.dispatcher().await;
    let asked = d.next(NextRequest { consumer: "w1".into(), count: 1, ..NextRequest::default() }).await;
    assert!(matches!(asked, Err(LeaseError::Unavailable(_))), "{asked:?}");
    tokio::time::sleep(WHILE).await;
    let attempts = store.attempts.load(Ordering::SeqCst);
    assert!((1..60).contains(&attempts), "{attempts} attempts");
    assert!(!d.is_ready(), "nothing can be leased");
    let lines = log.lines();
    let failures: Vec<_> = lines.iter().filter(|l| l.contains("not authorised")).collect();
    assert_eq!(failures.len(), 1, "{lines:#?}");

    store.refuses.store(false, Ordering::SeqCst);
    until("it is ready again", || async { d.is_ready() }).await;
    assert_eq!(lease(&d, "w1").await.expect("a lease").queue.as_str(), "D3");
    until("what was left is done", || async { stage.record("D1").await.state == QueueState::Empty }).await;
    assert!(log.lines().iter().any(|l| l.contains("it works again")), "{:#?}", log.lines());
}

#[tokio::test]
async fn a_mongodb_that_refuses_writes_is_tried_seldom_and_told_of_once() {
    let (log, _guard) = Log::capture();
    let (uri, database) = (Mongo::shared().await.uri(), unique("failing"));
    let store = galerna_storage::open(&stage::with_database(&uri, &database)).await.expect("MongoDB opens");
    let stage = Stage::of("mongodb", store);
    stage.queues(&[("D1", 0), ("D2", 5)]).await;
    let server = mongodb::Client::with_uri_str(&uri).await.expect("a client").database(&database);
    let refuse = |validator| {
        let server = server.clone();
        async move {
            let command =
                doc! { "collMod": "queue_states", "validator": validator, "validationLevel": "strict" };
            server.run_command(command).await.expect("the collection is altered");
        }
    };
    // No document is valid any more: the server reads, and refuses every write.
    refuse(doc! { "no_such_field": { "$exists": true } }).await;
    let d = stage.dispatcher().await;
    let commits = || {
        let text = d.metrics_text();
        let line = text.lines().find(|l| l.starts_with("galerna_dispatcher_commit_seconds_count"));
        line.and_then(|l| l.split(' ').nth(1)?.parse::<u64>().ok()).expect("the metric")
    };
    until("a write was refused", || async { commits() > 0 }).await;
    tokio::time::sleep(WHILE).await;
    assert!(commits() < 60, "{} attempts", commits());
    let lines = log.lines();
    let failures: Vec<_> = lines.iter().filter(|l| l.contains("it failed and is tried again")).collect();
    assert!(failures.len() <= 2, "at most one each for states and counts: {lines:#?}");

    refuse(doc! {}).await;
    until("it is ready again", || async { d.is_ready() }).await;
    assert_eq!(lease(&d, "w1").await.expect("a lease").queue.as_str(), "D2");
}
