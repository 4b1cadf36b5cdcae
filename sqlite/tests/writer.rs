//! Jobs, their transactions, and what becomes of them when one fails.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;
use std::time::Duration;

use galerna_sqlite::{Host, Job, Limits, Plain, Session, SqliteError, SqliteErrorKind, Stored, Writer};
use tokio::sync::oneshot;

const HOSTS: [Host; 2] = [Host::BlockingPool, Host::Thread("writer")];

fn start(host: Host) -> Writer<Plain> {
    let stored = Stored::in_memory(|connection| {
        connection.execute_batch("CREATE TABLE notes (n INTEGER PRIMARY KEY)")?;
        Ok(Plain)
    });
    Writer::start(stored.unwrap(), Limits::default(), host).unwrap()
}

fn insert(n: i64) -> impl FnMut(&mut Stored<Plain>) -> rusqlite::Result<()> + Send + 'static {
    move |stored| stored.connection().execute("INSERT INTO notes VALUES (?1)", [n]).map(drop)
}

async fn count(writer: &Writer<Plain>) -> i64 {
    writer
        .write(|stored| stored.connection().query_row("SELECT count(*) FROM notes", [], |row| row.get(0)))
        .await
        .unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_that_fails_takes_no_neighbour_with_it() {
    for host in HOSTS {
        let writer = Arc::new(start(host));
        let calls: Vec<_> = (0..300)
            .map(|n| {
                let writer = Arc::clone(&writer);
                // Every third has the number of the one before.
                tokio::spawn(async move { writer.write(insert(if n % 3 == 2 { n - 1 } else { n })).await })
            })
            .collect();
        let mut failed = 0;
        for call in calls {
            if let Err(error) = call.await.unwrap() {
                assert_eq!(error.kind, SqliteErrorKind::Failed, "{error}");
                failed += 1;
            }
        }
        assert_eq!((failed, count(&writer).await), (100, 200));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_sent_before_the_close_is_done_and_what_comes_later_is_told() {
    for host in HOSTS {
        // A task that has done much without a pause is told to wait even where it need not, and would not send.
        tokio::task::yield_now().await;
        let writer = Arc::new(start(host));
        let mut sent: Vec<_> = Vec::new();
        for n in 0..50 {
            let mut call = Box::pin({
                let writer = Arc::clone(&writer);
                async move { writer.write(insert(n)).await }
            });
            // The first poll sends it; nobody waits for its answer until the writer is closed.
            match std::future::poll_fn(|context| Poll::Ready(call.as_mut().poll(context))).await {
                Poll::Ready(answer) => answer.unwrap(),
                Poll::Pending => sent.push(call),
            }
        }
        let closing = {
            let writer = Arc::clone(&writer);
            tokio::task::spawn_blocking(move || writer.close())
        };
        closing.await.unwrap();
        for call in sent {
            call.await.unwrap();
        }
        assert!(writer.is_closed());
        assert_eq!(writer.write(insert(99)).await.unwrap_err().kind, SqliteErrorKind::Closed);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_that_panics_harms_no_other_one() {
    for host in HOSTS {
        let writer = Arc::new(start(host));
        let panics = |n: i64| {
            move |stored: &mut Stored<Plain>| {
                stored.connection().execute("INSERT INTO notes VALUES (?1)", [n])?;
                if stored.connection().is_autocommit() { Ok(()) } else { panic!("as the test wants") }
            }
        };
        assert_eq!(writer.write(panics(1)).await.unwrap_err().kind, SqliteErrorKind::Closed);
        writer.write(insert(2)).await.unwrap();
        assert_eq!(count(&writer).await, 1);
        // Nor one that waits beside it.
        let calls: Vec<_> = (10..60)
            .map(|n| {
                let writer = Arc::clone(&writer);
                tokio::spawn(async move {
                    if n % 5 == 0 { writer.write(panics(n)).await } else { writer.write(insert(n)).await }
                })
            })
            .collect();
        for (n, call) in (10..).zip(calls) {
            assert_eq!(call.await.unwrap().is_err(), n % 5 == 0, "{n}");
        }
        assert_eq!(count(&writer).await, 41);
    }
}

#[tokio::test(start_paused = true)]
async fn on_paused_time_a_write_is_awaited_rather_than_the_next_timer() {
    let writer = start(Host::BlockingPool);
    for n in 0..50 {
        tokio::time::timeout(Duration::from_millis(1), writer.write(insert(n))).await.unwrap().unwrap();
    }
}

/// A session that has something to do every few milliseconds.
struct Ticking(Arc<AtomicUsize>);

struct Tick(Arc<AtomicUsize>);

impl Session for Ticking {
    fn next_due(&mut self, _: &rusqlite::Connection) -> Option<Duration> {
        (self.0.load(Ordering::SeqCst) < 3).then_some(Duration::ZERO)
    }

    fn due(&mut self) -> Option<Box<dyn Job<Self>>> {
        Some(Box::new(Tick(Arc::clone(&self.0))))
    }
}

impl Job<Ticking> for Tick {
    fn run(&mut self, _: &mut Stored<Ticking>) -> rusqlite::Result<()> {
        Ok(())
    }

    fn done(self: Box<Self>, result: Result<(), SqliteError>) -> Option<Box<dyn Job<Ticking>>> {
        assert_eq!(result, Ok(()));
        self.0.fetch_add(1, Ordering::SeqCst);
        None
    }
}

/// Fails twice, and is handed back each time.
struct Stubborn {
    tries: usize,
    reply: Option<oneshot::Sender<usize>>,
}

impl Job<Ticking> for Stubborn {
    fn run(&mut self, stored: &mut Stored<Ticking>) -> rusqlite::Result<()> {
        self.tries += 1;
        if self.tries < 3 { stored.connection().execute_batch("no SQL at all") } else { Ok(()) }
    }

    fn done(mut self: Box<Self>, result: Result<(), SqliteError>) -> Option<Box<dyn Job<Ticking>>> {
        if result.is_err() {
            return Some(self);
        }
        if let Some(reply) = self.reply.take() {
            reply.send(self.tries).unwrap();
        }
        None
    }
}

#[tokio::test]
async fn a_thread_of_its_own_does_what_falls_due_and_what_is_handed_back() {
    let ticks = Arc::new(AtomicUsize::new(0));
    let stored = Stored::in_memory(|_| Ok(Ticking(Arc::clone(&ticks)))).unwrap();
    let limits = Limits { again: Duration::from_millis(1), ..Limits::default() };
    let writer = Writer::start(stored, limits, Host::Thread("ticking")).unwrap();
    let (reply, tries) = oneshot::channel();
    writer.send(Box::new(Stubborn { tries: 0, reply: Some(reply) }));
    // A retried group may run it twice in a round: as one of many, then alone.
    assert!(tries.await.unwrap() >= 3);
    while ticks.load(Ordering::SeqCst) < 3 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    writer.close();
    assert_eq!(ticks.load(Ordering::SeqCst), 3);
}
