//! What was acknowledged survives; what was not can be tried again.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use galerna_model::{AccountId, Measurement, ParameterCode, QueueName, SourceId, Timestamp};
use galerna_storage::mongo::{self, MongoOptions};
use galerna_storage::{
    QueueRecord, QueueState, ReadingOutcome, ReadingsQuery, StorageError, Store, StoredReading, Swap,
    Swapped, open, sqlite,
};
use galerna_test_servers::{Mongo, unique};

const BATCH: usize = 50;
/// In the child process: the store to load.
const CHILD_STORE: &str = "GALERNA_STORAGE_TEST_CHILD";

fn reading(n: usize) -> StoredReading {
    StoredReading {
        account: AccountId::new("acc").expect("valid"),
        source: SourceId::new("s").expect("valid"),
        device: format!("d{}", n % 7),
        ts: Timestamp(n as i64),
        sqn: 1,
        values: vec![Measurement { p: ParameterCode(401), v: n as f64 }],
        flags: Vec::new(),
        received: Timestamp(0),
    }
}

fn batch(n: usize) -> Vec<StoredReading> {
    (n * BATCH..(n + 1) * BATCH).map(reading).collect()
}

fn queue() -> QueueRecord {
    QueueRecord::new(QueueName::new("q").expect("valid"), AccountId::new("acc").expect("valid"), Timestamp(0))
}

fn next_lease(record: &QueueRecord) -> Swap {
    let record = QueueRecord {
        version: record.version + 1,
        epoch: record.epoch + 1,
        state: QueueState::Leased,
        ..record.clone()
    };
    Swap { expected: record.version - 1, record }
}

/// Stores batch `n` and leases the queue once more.
async fn step(store: &Store, n: usize, seen: &mut QueueRecord) -> Result<(), StorageError> {
    store.readings.store(&batch(n)).await?;
    let swap = next_lease(seen);
    match store.queues.swap(std::slice::from_ref(&swap)).await?.remove(0) {
        Swapped::Done => *seen = swap.record,
        // An earlier try whose answer was lost.
        Swapped::Conflict(Some(stored)) => *seen = stored,
        Swapped::Conflict(None) => panic!("the queue is gone"),
    }
    Ok(())
}

/// All batches below `batches` are there, whole, and storing them again writes nothing.
async fn assert_stored(store: &Store, batches: usize) {
    let query = ReadingsQuery {
        limit: usize::MAX,
        until: Some(Timestamp((batches * BATCH) as i64)),
        ..Default::default()
    };
    let mut found = store.readings.find(&query).await.expect("found");
    found.reverse();
    assert_eq!(found, (0..batches).flat_map(batch).collect::<Vec<_>>());
    for n in 0..batches {
        let again = store.readings.store(&batch(n)).await.expect("stored");
        assert!(again.iter().all(|outcome| *outcome == ReadingOutcome::Duplicate));
    }
}

/// Not a test of its own: what [`what_sqlite_acknowledged_survives_kill_9`] runs in a process of its own.
#[tokio::test]
async fn child_that_stores_until_it_is_killed() {
    let Ok(path) = std::env::var(CHILD_STORE) else { return };
    let store = sqlite::open(&path).await.expect("the child opens the store");
    store.queues.create(&[queue()]).await.expect("created");
    let mut seen = queue();
    for n in 0.. {
        step(&store, n, &mut seen).await.expect("stored");
        // Acknowledged: from here on it must survive.
        writeln!(std::io::stderr(), "acknowledged {} {}", n + 1, seen.epoch).expect("the parent listens");
    }
}

fn child(path: &Path) -> std::process::Child {
    Command::new(std::env::current_exe().expect("this test"))
        .args(["--exact", "child_that_stores_until_it_is_killed", "--nocapture"])
        .env(CHILD_STORE, path)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the child starts")
}

#[tokio::test]
async fn what_sqlite_acknowledged_survives_kill_9() {
    for kill_after in [1, 7, 40] {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("store.db");
        let mut child = child(&path);
        let mut lines = BufReader::new(child.stderr.take().expect("piped")).lines();
        let mut acknowledged = (0, 0);
        let read = |acknowledged: &mut (usize, u64), line: String| {
            if let Some(rest) = line.strip_prefix("acknowledged ") {
                let (batches, epoch) = rest.split_once(' ').expect("two numbers");
                *acknowledged = (batches.parse().expect("a number"), epoch.parse().expect("a number"));
            }
        };
        while acknowledged.0 < kill_after {
            let line = lines.next().expect("the child goes on").expect("text");
            read(&mut acknowledged, line);
        }
        let taken = sqlite::open(&path).await.err().expect("the child has it");
        assert!(matches!(&taken, StorageError::InUse { .. }), "{taken}");
        assert!(taken.to_string().contains("open already"), "{taken}");
        child.kill().expect("killed");
        child.wait().expect("dead");
        // What it said before it died counts too; its last line may be cut.
        for line in lines.map_while(Result::ok) {
            if line.split(' ').count() == 3 {
                read(&mut acknowledged, line);
            }
        }
        let store = sqlite::open(&path).await.expect("the lock died with the child");
        assert_stored(&store, acknowledged.0).await;
        let stored = store.queues.get(&queue().queue).await.expect("read").expect("there");
        assert!(stored.epoch >= acknowledged.1, "epoch {} after {}", stored.epoch, acknowledged.1);
        assert!(stored.epoch <= acknowledged.1 + 1, "at most the one under way was done besides");
    }
}

#[tokio::test]
async fn an_embedded_store_opens_again_once_it_is_dropped() {
    let folder = tempfile::tempdir().expect("a folder");
    let url = format!("embedded:{}", folder.path().join("store.db").display());
    for n in 0..20 {
        let store = open(&url).await.expect("nobody else has it");
        assert!(matches!(open(&url).await, Err(StorageError::InUse { .. })), "it is open");
        store.readings.store(&batch(n)).await.expect("stored");
        assert_eq!(store.readings.count(None).await.expect("counted"), ((n + 1) * BATCH) as u64);
    }
}

async fn connect(server: &Mongo, database: &str) -> Store {
    let options = MongoOptions { database: Some(database.to_owned()), ..MongoOptions::new(server.uri()) };
    mongo::connect(options).await.expect("MongoDB answers")
}

/// Steps until it fails; returns how many were acknowledged.
async fn run_until_it_fails(store: &Store, from: usize, seen: &mut QueueRecord) -> (usize, StorageError) {
    for n in from.. {
        if let Err(e) = step(store, n, seen).await {
            return (n, e);
        }
    }
    unreachable!("it runs until it fails")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_mongodb_acknowledged_survives_kill_9_and_the_rest_can_be_tried_again() {
    let server = Mongo::start().await;
    let database = unique("durability");
    let store = connect(&server, &database).await;
    store.queues.create(&[queue()]).await.expect("created");
    let mut seen = queue();
    let mut acknowledged = 0;
    for _ in 0..2 {
        for _ in 0..5 {
            step(&store, acknowledged, &mut seen).await.expect("stored");
            acknowledged += 1;
        }
        let (failed, ()) = tokio::join!(run_until_it_fails(&store, acknowledged, &mut seen), server.kill());
        let error;
        (acknowledged, error) = failed;
        assert!(matches!(error, StorageError::Unavailable { .. }), "{error}");
        server.restart().await;
        // The same store goes on: what failed is stored again, whether or not part of it was.
        let epoch = seen.epoch;
        step(&store, acknowledged, &mut seen).await.expect("stored again");
        acknowledged += 1;
        assert!((epoch..=epoch + 2).contains(&seen.epoch), "epoch {} after {epoch}", seen.epoch);
        assert_stored(&store, acknowledged).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_replica_set_acknowledged_survives_a_step_down() {
    let server = Mongo::start_replica_set().await;
    let database = unique("step_down");
    let store = connect(&server, &database).await;
    store.queues.create(&[queue()]).await.expect("created");
    let mut seen = queue();
    let (steps, ()) = tokio::join!(
        async {
            let mut failures = 0;
            let mut n = 0;
            // To the end: every failure on the way is one that may be tried again.
            while n < 60 {
                match step(&store, n, &mut seen).await {
                    Ok(()) => n += 1,
                    Err(StorageError::Unavailable { .. }) => failures += 1,
                    Err(e) => panic!("{e}"),
                }
                assert!(failures < 100_000, "the set elects a primary again");
            }
            n
        },
        server.step_down(Duration::from_secs(1)),
    );
    assert_stored(&store, steps).await;
    let stored = store.queues.get(&queue().queue).await.expect("read").expect("there");
    assert_eq!(stored.epoch, seen.epoch);
}

#[tokio::test]
async fn what_decides_about_leases_is_read_only_when_it_can_no_longer_be_rolled_back() {
    let server = Mongo::start_replica_set().await;
    let database = unique("read_concern");
    let store = connect(&server, &database).await;
    store.queues.create(&[queue()]).await.expect("created");
    let cursor = store.queues.changes(0).await.expect("changes").cursor;
    let client = mongodb::Client::with_uri_str(server.uri()).await.expect("an address");
    let db = client.database(&database);
    db.run_command(bson::doc! { "profile": 2 }).await.expect("all commands are recorded");

    let swap = [next_lease(&queue())];
    assert_eq!(store.queues.swap(&swap).await.expect("swapped"), [Swapped::Done]);
    let lost = store.queues.swap(&swap).await.expect("answered");
    assert!(matches!(&lost[..], [Swapped::Conflict(Some(winner))] if winner.epoch == 1), "{lost:?}");
    let changes = store.queues.changes(cursor).await.expect("changes");
    assert_eq!(changes.records.iter().map(|r| r.epoch).max(), Some(1));
    store.queues.get(&queue().queue).await.expect("read").expect("there");
    store.queues.all().await.expect("read");

    db.run_command(bson::doc! { "profile": 0 }).await.expect("no more commands are recorded");
    let recorded = db.collection::<bson::Document>("system.profile");
    let mut reads = recorded.find(bson::doc! { "command.find": "queue_states" }).await.expect("recorded");
    let mut levels = Vec::new();
    while reads.advance().await.expect("recorded") {
        let read = reads.deserialize_current().expect("a document");
        let concern = read.get_document("command").and_then(|c| c.get_document("readConcern"));
        let level = concern.and_then(|c| c.get_str("level")).unwrap_or("none").to_owned();
        assert!(["majority", "linearizable"].contains(&level.as_str()), "{level}: {read}");
        levels.push(level);
    }
    assert!(levels.len() >= 5, "winners, stamps, changes, one, all: {levels:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mongodb_that_hangs_is_unavailable_in_time_and_then_goes_on() {
    let server = Mongo::start().await;
    let options = MongoOptions {
        database: Some(unique("hang")),
        timeout: Duration::from_millis(500),
        ..MongoOptions::new(server.uri())
    };
    let store = mongo::connect(options).await.expect("MongoDB answers");
    store.queues.create(&[queue()]).await.expect("created");
    server.freeze().await;
    let swap = [next_lease(&queue())];
    let hung = [
        store.readings.store(&batch(0)).await.err(),
        store.queues.swap(&swap).await.err(),
        store.queues.changes(0).await.err(),
        store.readings.count(None).await.err(),
    ];
    for error in hung {
        assert!(matches!(error, Some(StorageError::Unavailable { .. })), "{error:?}");
    }
    server.thaw().await;
    let mut seen = queue();
    while let Err(e) = step(&store, 0, &mut seen).await {
        assert!(matches!(e, StorageError::Unavailable { .. }), "{e}");
    }
    assert_stored(&store, 1).await;
}

#[tokio::test]
async fn a_reading_too_large_for_mongodb_names_itself_and_the_rest_can_be_stored() {
    let store = connect(Mongo::shared().await, &unique("large")).await;
    let mut readings = batch(0);
    readings[20].device = "huge".into();
    readings[20].values = vec![Measurement { p: ParameterCode(401), v: 1.0 }; 700_000];
    let refused = store.readings.store(&readings).await.expect_err("17 MB are too much");
    assert!(
        matches!(&refused, StorageError::Failed { attempted, .. } if attempted.contains("huge")),
        "{refused}"
    );
    readings.remove(20);
    let outcomes = store.readings.store(&readings).await.expect("stored");
    assert!(outcomes.iter().all(|o| *o == ReadingOutcome::Inserted));
    assert_eq!(store.readings.count(None).await.expect("counted"), (BATCH - 1) as u64);

    // Several megabytes each: more than one command takes.
    let mut large = batch(1);
    large.truncate(5);
    for reading in &mut large {
        reading.values = vec![Measurement { p: ParameterCode(401), v: 1.0 }; 150_000];
    }
    let outcomes = store.readings.store(&large).await.expect("stored");
    assert!(outcomes.iter().all(|o| *o == ReadingOutcome::Inserted));
    let outcomes = store.readings.store(&large).await.expect("stored");
    assert!(outcomes.iter().all(|o| *o == ReadingOutcome::Duplicate));
}

#[tokio::test]
async fn several_processes_may_start_on_one_empty_database_at_once() {
    let server = Mongo::shared().await;
    let database = unique("start");
    let starting: Vec<_> = (0..6)
        .map(|_| {
            let database = database.clone();
            tokio::spawn(async move { connect(server, &database).await })
        })
        .collect();
    let mut stores = Vec::new();
    for store in starting {
        stores.push(store.await.expect("it starts"));
    }
    // What one has written the others see, whatever they remember.
    for (n, store) in stores.iter().enumerate() {
        store.readings.store(&batch(n)).await.expect("stored");
    }
    for store in &stores {
        assert_stored(store, stores.len()).await;
    }
}

#[tokio::test]
async fn changes_written_by_another_process_are_seen() {
    let server = Mongo::shared().await;
    let database = unique("two");
    let (one, other) = (connect(server, &database).await, connect(server, &database).await);
    let start = one.queues.changes(0).await.expect("answered");
    other.queues.create(&[queue()]).await.expect("created");
    let created = one.queues.changes(start.cursor).await.expect("answered");
    assert_eq!(created.records, [queue()]);
    let swap = next_lease(&queue());
    other.queues.swap(std::slice::from_ref(&swap)).await.expect("swapped");
    // A cursor of one process is not known to the other, which answers with everything.
    for (store, cursor) in [(&one, created.cursor), (&other, created.cursor)] {
        let changes = store.queues.changes(cursor).await.expect("answered");
        assert_eq!(changes.records, std::slice::from_ref(&swap.record));
    }
}

/// So many queues that a look at the changes does not look back all the way each time.
#[tokio::test(flavor = "multi_thread")]
async fn no_change_of_thousands_of_queues_is_missed() {
    let server = Mongo::shared().await;
    let database = unique("thousands");
    let (reader, writer) = (connect(server, &database).await, connect(server, &database).await);
    let records: Vec<QueueRecord> = (0..7_000)
        .map(|i| QueueRecord { queue: QueueName::new(format!("q{i}")).expect("valid"), ..queue() })
        .collect();
    let mut cursor = reader.queues.changes(0).await.expect("answered").cursor;
    writer.queues.create(&records).await.expect("created");
    let writers: Vec<_> = (0..3)
        .map(|n| {
            let queues = writer.queues.clone();
            let mut mine: Vec<QueueRecord> = records.iter().skip(n).step_by(3).cloned().collect();
            tokio::spawn(async move {
                for _ in 0..4 {
                    let swaps: Vec<Swap> = mine.iter().map(next_lease).collect();
                    let swapped = queues.swap(&swaps).await.expect("swapped");
                    assert!(swapped.iter().all(|s| *s == Swapped::Done));
                    mine = swaps.into_iter().map(|s| s.record).collect();
                }
            })
        })
        .collect();
    let mut known: HashMap<QueueName, QueueRecord> = HashMap::new();
    let everything_known = async {
        // Each queue is at its fourth version once all is written.
        while known.len() < records.len() || known.values().any(|r| r.version < 4) {
            let changes = reader.queues.changes(cursor).await.expect("answered");
            cursor = changes.cursor;
            known.extend(changes.records.into_iter().map(|r| (r.queue.clone(), r)));
        }
    };
    tokio::time::timeout(Duration::from_secs(60), everything_known)
        .await
        .expect("the last change is told of");
    for writer in writers {
        writer.await.expect("the writer ends");
    }
    let mut all = reader.queues.all().await.expect("listed");
    all.sort_by(|a, b| a.queue.cmp(&b.queue));
    let mut known: Vec<QueueRecord> = known.into_values().collect();
    known.sort_by(|a, b| a.queue.cmp(&b.queue));
    assert!(known == all, "what the changes told is what is stored");
}

#[tokio::test]
async fn wrong_addresses_are_refused_with_the_remedy() {
    let folder = tempfile::tempdir().expect("a folder");
    let in_the_way = folder.path().join("file");
    std::fs::write(&in_the_way, "this is no database, though it is long enough to be read as one")
        .expect("written");
    let cases = [
        ("", "embedded:/path/to/file.db"),
        ("store.db", "mongodb://host:27017/galerna"),
        ("postgres://localhost/x", "mongodb://host:27017/galerna"),
        ("embedded:", "names no file"),
        ("embedded://", "names no file"),
        (&format!("embedded:{}", folder.path().display()), "is a folder; name the file"),
        (&format!("embedded:{}", in_the_way.display()), "not a database"),
        (&format!("embedded:{}/x/store.db", in_the_way.display()), "opening the embedded store"),
        ("mongodb://", "MongoDB address is wrong"),
        ("mongodb://host:notaport/x", "MongoDB address is wrong"),
    ];
    for (url, part) in cases {
        let error = open(url).await.err().expect("refused").to_string();
        assert!(error.contains(part), "{url}: {error}");
    }
    let nobody = MongoOptions {
        timeout: Duration::from_millis(300),
        ..MongoOptions::new("mongodb://127.0.0.1:1/galerna")
    };
    let error = mongo::connect(nobody).await.err().expect("nobody listens there");
    assert!(matches!(error, StorageError::Unavailable { .. }), "{error}");
}

#[tokio::test]
async fn documents_are_plain_for_any_mongodb_client() {
    use bson::{Bson, Document, doc};
    let server = Mongo::shared().await;
    let database = unique("plain");
    let uri = server.uri();
    let (hosts, options) = uri.split_once('?').unwrap_or((&uri, ""));
    let url = format!("{}/{database}?{options}", hosts.trim_end_matches('/'));
    let store = open(&url).await.expect("MongoDB answers");
    store
        .readings
        .store(&[StoredReading { flags: vec!["402:counter_backwards".into()], ..reading(8) }])
        .await
        .expect("stored");
    let client = mongodb::Client::with_uri_str(server.uri()).await.expect("connected");
    let found = client.database(&database).collection::<Document>("readings").find_one(doc! {}).await;
    let mut found = found.expect("answered").expect("there");
    found.remove("_id");
    let expected = doc! {
        "account": "acc",
        "source": "s",
        "device": "d1",
        "ts": bson::DateTime::from_millis(8),
        "sqn": 1_i64,
        "values": [{ "p": 401_i64, "v": 8.0 }],
        "flags": ["402:counter_backwards"],
        "received": bson::DateTime::from_millis(0),
    };
    assert_eq!(Bson::Document(found), Bson::Document(expected));
}

#[tokio::test]
async fn an_index_that_only_earlier_versions_used_is_dropped() {
    let server = Mongo::shared().await;
    let database = unique("storage");
    let options = MongoOptions { database: Some(database.clone()), ..MongoOptions::new(server.uri()) };
    let client = mongodb::Client::with_uri_str(server.uri()).await.expect("a client");
    let readings = client.database(&database).collection::<bson::Document>("readings");
    let index = mongodb::IndexModel::builder()
        .keys(bson::doc! { "account": 1, "ts": -1 })
        .options(mongodb::options::IndexOptions::builder().name("account_ts".to_owned()).build())
        .build();
    readings.create_index(index).await.expect("created");
    // Twice: the second time there is nothing to drop.
    for _ in 0..2 {
        let store = mongo::connect(options.clone()).await.expect("MongoDB answers");
        store.readings.store(&batch(0)).await.expect("stored");
        assert_eq!(readings.list_index_names().await.expect("listed"), ["_id_"]);
        assert_eq!(store.readings.count(None).await.expect("counted"), BATCH as u64);
    }
}

#[tokio::test]
async fn documents_of_earlier_versions_are_united_with_what_comes() {
    use bson::{Bson, Document, doc};
    let server = Mongo::shared().await;
    let database = unique("earlier");
    let store = connect(server, &database).await;
    let value = |p: u32, v: f64| Measurement { p: ParameterCode(p), v };
    let first = StoredReading { sqn: 5, values: vec![value(401, 1.0), value(402, 2.0)], ..reading(8) };
    store.readings.store(std::slice::from_ref(&first)).await.expect("stored");
    let client = mongodb::Client::with_uri_str(server.uri()).await.expect("connected");
    let documents = client.database(&database).collection::<Document>("readings");
    let written = documents.find_one(doc! {}).await.expect("answered").expect("there");
    assert!(!written.contains_key("rev") && !written.to_string().contains("\"n\""), "as before: {written}");

    let more = StoredReading { sqn: 3, values: vec![value(402, 9.0), value(405, 230.0)], ..first.clone() };
    let outcome = store.readings.store(std::slice::from_ref(&more)).await.expect("stored");
    assert_eq!(outcome, [ReadingOutcome::Added]);
    let mut written = documents.find_one(doc! {}).await.expect("answered").expect("there");
    let values = doc! { "values": [
        { "p": 401_i64, "v": 1.0 }, { "p": 402_i64, "v": 2.0 }, { "p": 405_i64, "v": 230.0, "n": 3_i64 },
    ] };
    assert_eq!(written.remove("values"), values.get("values").cloned());
    assert_eq!((written.get("rev"), written.get("sqn")), (Some(&Bson::Int64(1)), Some(&Bson::Int64(5))));
}

#[tokio::test]
async fn claims_of_deletions_that_earlier_versions_wrote_are_read_and_changed_by_their_version() {
    use bson::{Document, doc};
    let server = Mongo::shared().await;
    let database = unique("claims");
    let store = connect(server, &database).await;
    let reason = |text: &str| Some(text.to_owned());
    let flagged = |text| QueueRecord { state: QueueState::Deleting, reason: reason(text), ..queue() };
    store.queues.create(&[flagged("deleting: account gone")]).await.expect("created");
    let stored = async || store.queues.get(&queue().queue).await.expect("answered").expect("there");
    assert_eq!(stored().await, flagged("deleting: account gone"), "a reason is no claim");

    let client = mongodb::Client::with_uri_str(server.uri()).await.expect("connected");
    let documents = client.database(&database).collection::<Document>("queue_states");
    let earlier = doc! { "$unset": { "record.deletion_claimed": "" } };
    documents.update_one(doc! {}, earlier).await.expect("written");
    let claimed = QueueRecord { deletion_claimed: true, ..flagged("account gone") };
    assert_eq!(stored().await, claimed);

    let given_up = QueueRecord { version: 1, ..flagged("account gone") };
    let swap = Swap { expected: 0, record: given_up.clone() };
    assert_eq!(store.queues.swap(&[swap]).await.expect("swapped"), [Swapped::Done]);
    assert_eq!(stored().await, given_up);
}

#[tokio::test]
async fn a_damaged_embedded_store_is_an_error_that_names_the_file_and_never_an_empty_store() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = |store: &std::path::Path, suffix: &str| {
        std::path::PathBuf::from(format!("{}{suffix}", store.display()))
    };
    let path = folder.path().join("store.db");
    let store = sqlite::open(&path).await.expect("it opens");
    store.readings.store(&batch(0)).await.expect("stored");
    let damages: [(&str, Option<&[u8]>); 5] =
        [("-wal", None), ("-wal", Some(b"")), ("", None), ("", Some(b"")), ("", Some(&[0x5a; 20_000]))];
    for (n, (suffix, bytes)) in damages.into_iter().enumerate() {
        let damaged = folder.path().join(format!("damaged{n}/store.db"));
        std::fs::create_dir_all(damaged.parent().expect("a folder")).expect("created");
        // As `kill -9` would leave it.
        for suffix in ["", "-wal", ".lock"] {
            std::fs::copy(file(&path, suffix), file(&damaged, suffix)).expect("copied");
        }
        match bytes {
            None => std::fs::remove_file(file(&damaged, suffix)).expect("removed"),
            Some(bytes) => std::fs::write(file(&damaged, suffix), bytes).expect("written"),
        }
        let error = sqlite::open(&damaged).await.err().expect("refused").to_string();
        let named = format!("{}: ", file(&damaged, suffix).display());
        assert!(error.contains(&named), "{suffix} {bytes:?}: {error}");
    }
}

#[tokio::test]
async fn the_statistics_file_of_an_earlier_version_is_taken_over_once() {
    use galerna_storage::{Period, Scope, Tally};
    let folder = tempfile::tempdir().expect("a folder");
    let earlier = rusqlite::Connection::open(folder.path().join("statistics.db")).expect("opened");
    earlier
        .execute_batch(
            "PRAGMA journal_mode = WAL;
             CREATE TABLE tallies (scope TEXT, id TEXT, period TEXT, start INTEGER, messages INTEGER, readings INTEGER,
                 \"values\" INTEGER, PRIMARY KEY (scope, id, period, start)) WITHOUT ROWID;
             CREATE TABLE last_messages (number INTEGER PRIMARY KEY AUTOINCREMENT, source TEXT, id TEXT, received INTEGER,
                 readings INTEGER, rejected INTEGER, text TEXT, cut INTEGER);
             CREATE TABLE writers (writer TEXT PRIMARY KEY, number INTEGER, at INTEGER);
             INSERT INTO tallies VALUES ('all', '', 'hour', 0, 3, 5, 7);
             INSERT INTO last_messages VALUES (4, 's', 'm', 9, 5, 0, 'text', 0);
             INSERT INTO writers VALUES ('w', 2, 9);",
        )
        .expect("written");
    drop(earlier);
    for _ in 0..2 {
        let store = sqlite::open(folder.path().join("store.db")).await.expect("it opens");
        let hour = [(Period::Hour, Timestamp(0))];
        let found = store.statistics.tallies(&[Scope::All], &hour, "w").await.expect("answered");
        assert_eq!(found, (vec![vec![Tally { messages: 3, readings: 5, values: 7 }]], 2));
        let source = galerna_model::SourceId::new("s").expect("valid");
        let (messages, _) = store.statistics.last_messages(&source, "w").await.expect("answered");
        assert_eq!(messages.iter().map(|m| m.id.as_str()).collect::<Vec<_>>(), ["m"]);
        assert!(folder.path().join("statistics.db.merged").is_file());
        store.close().await.expect("closed");
    }
}
