//! Whatever happened to the files of a store while nobody had it open: an error that names the file, or the store as it was.

use std::fs;
use std::path::{Path, PathBuf};

use galerna_sqlite::{Format, Host, Limits, OpenError, Plain, Tuning, Writer};
use rusqlite::Connection;

const FORMAT: Format = Format {
    what: "store of notes",
    application_id: 0x4e6f_7465,
    version: 2,
    tables: &["notes"],
    bring_up: |connection, found| match found {
        0 => connection.execute_batch("CREATE TABLE notes (n INTEGER PRIMARY KEY, text TEXT NOT NULL)"),
        _ => Ok(()),
    },
    lock_suffix: "-lock",
    companions: &[],
    shared: false,
};

fn tuning() -> Tuning {
    Tuning::default()
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    PathBuf::from(format!("{}{suffix}", path.display()))
}

async fn add(path: &Path, notes: std::ops::Range<i64>) -> Writer<Plain> {
    let opened = FORMAT.open(path, &tuning()).unwrap();
    let writer = Writer::start(opened.into_session(Plain), Limits::default(), Host::BlockingPool).unwrap();
    for n in notes {
        let add = move |stored: &mut galerna_sqlite::Stored<Plain>| {
            stored.connection().execute("INSERT INTO notes VALUES (?1, 'note')", [n]).map(drop)
        };
        writer.write(add).await.unwrap();
    }
    writer
}

/// A store of 20 notes as `kill -9` leaves it: the last ten are in the log alone.
async fn killed(folder: &Path) -> PathBuf {
    let path = folder.join("notes.db");
    add(&path, 0..10).await.close();
    let writer = add(&path, 10..20).await;
    let copy = folder.join("killed/notes.db");
    fs::create_dir_all(copy.parent().unwrap()).unwrap();
    for suffix in ["", "-wal", "-lock"] {
        fs::copy(beside(&path, suffix), beside(&copy, suffix)).unwrap();
    }
    writer.close();
    copy
}

fn count(path: &Path) -> Result<i64, OpenError> {
    let opened = FORMAT.open(path, &tuning())?;
    Ok(opened.connection().query_row("SELECT count(*) FROM notes", [], |row| row.get(0)).unwrap())
}

/// The file that the error names.
fn named(error: &OpenError) -> PathBuf {
    match error {
        OpenError::Damaged { file, remedy, .. } => {
            assert!(
                remedy.contains("backup") && remedy.contains("begin anew") || remedy.contains("remove"),
                "{error}"
            );
            file.clone()
        }
        OpenError::Foreign { file, .. } | OpenError::Newer { file, .. } => file.clone(),
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn what_was_committed_is_there_after_a_kill_and_after_a_close() {
    let folder = tempfile::tempdir().unwrap();
    let copy = killed(folder.path()).await;
    assert_eq!(count(&copy).unwrap(), 20);
    assert_eq!(count(&folder.path().join("notes.db")).unwrap(), 20);
}

#[tokio::test]
async fn a_file_that_was_closed_is_whole_without_its_log() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notes.db");
    add(&path, 0..10).await.close();
    assert!(fs::metadata(beside(&path, "-wal")).map_or(0, |m| m.len()) == 0);
    for suffix in ["-wal", "-shm"] {
        drop(fs::remove_file(beside(&path, suffix)));
    }
    assert_eq!(count(&path).unwrap(), 10);
}

#[tokio::test]
async fn a_log_that_is_missing_or_cut_is_an_error_that_names_it_and_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let original = killed(folder.path()).await;
    let log = fs::read(beside(&original, "-wal")).unwrap();
    let cuts = [None, Some(0), Some(10), Some(32), Some(log.len() / 2), Some(log.len() - 1)];
    for (n, cut) in cuts.into_iter().enumerate() {
        let path = folder.path().join(format!("cut{n}/notes.db"));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        for suffix in ["", "-lock"] {
            fs::copy(beside(&original, suffix), beside(&path, suffix)).unwrap();
        }
        if let Some(cut) = cut {
            fs::write(beside(&path, "-wal"), &log[..cut]).unwrap();
        }
        for _ in 0..2 {
            let error = count(&path).unwrap_err();
            assert_eq!(named(&error), beside(&path, "-wal"), "{cut:?}: {error}");
        }
        // The rest of the log is put back: nothing was lost.
        fs::write(beside(&path, "-wal"), &log).unwrap();
        drop(fs::remove_file(beside(&path, "-shm")));
        assert_eq!(count(&path).unwrap(), 20, "{cut:?}");
    }
}

#[tokio::test]
async fn an_operator_can_go_on_with_what_is_left_of_a_cut_log() {
    let folder = tempfile::tempdir().unwrap();
    let path = killed(folder.path()).await;
    fs::remove_file(beside(&path, "-wal")).unwrap();
    count(&path).unwrap_err();
    fs::remove_file(beside(&path, "-lock")).unwrap();
    assert_eq!(count(&path).unwrap(), 10);
}

#[tokio::test]
async fn a_file_that_is_missing_empty_or_overwritten_is_an_error_that_names_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notes.db");
    for round in 0..2 {
        add(&path, round * 10..round * 10 + 10).await.close();
        let whole = fs::read(&path).unwrap();
        let lock = fs::read(beside(&path, "-lock")).unwrap();
        let mut head = whole.clone();
        head[..16].fill(b'x');
        let mut middle = whole.clone();
        let page = middle.len() - 4096;
        middle[page..].fill(0xa5);
        let mut cut = whole.clone();
        cut.truncate(whole.len() / 2);
        let cases: [(&str, Option<&[u8]>); 6] = [
            ("missing", None),
            ("empty", Some(b"")),
            ("garbage", Some(b"this is no database, though it is long enough to be read as one")),
            ("the first bytes", Some(&head)),
            ("a page", Some(&middle)),
            ("cut", Some(&cut)),
        ];
        for (case, bytes) in cases {
            match bytes {
                None => fs::remove_file(&path).unwrap(),
                Some(bytes) => fs::write(&path, bytes).unwrap(),
            }
            for _ in 0..2 {
                let error = count(&path).unwrap_err();
                assert_eq!(named(&error), path, "{case}: {error}");
            }
            fs::write(&path, &whole).unwrap();
            assert_eq!(count(&path).unwrap(), (round + 1) * 10, "{case}");
            // As it was, for the next case: opening it counts.
            fs::write(&path, &whole).unwrap();
            fs::write(beside(&path, "-lock"), &lock).unwrap();
        }
    }
}

#[tokio::test]
async fn files_of_other_programs_and_of_later_versions_are_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let open = |name: &str, sql: &str| {
        let path = folder.path().join(name);
        let connection = Connection::open(&path).unwrap();
        connection.execute_batch(sql).unwrap();
        drop(connection);
        let before = fs::read(&path).unwrap();
        let error = count(&path).unwrap_err();
        assert_eq!(named(&error), path, "{error}");
        assert_eq!(fs::read(&path).unwrap(), before, "{name}");
        error
    };
    let foreign = open("foreign.db", "CREATE TABLE bookmarks (url TEXT)");
    assert!(foreign.to_string().contains("bookmarks"), "{foreign}");
    let versioned = open("versioned.db", "CREATE TABLE bookmarks (url TEXT); PRAGMA user_version = 2");
    assert!(matches!(versioned, OpenError::Foreign { .. }), "{versioned}");
    let marked = open("marked.db", "PRAGMA application_id = 7; CREATE TABLE notes (n INTEGER)");
    assert!(matches!(marked, OpenError::Foreign { .. }), "{marked}");
    let later = "CREATE TABLE notes (n INTEGER); PRAGMA user_version = 3; PRAGMA application_id = 0x4e6f7465";
    let later = open("later.db", later);
    assert!(matches!(later, OpenError::Newer { found: 3, known: 2, .. }), "{later}");
    fs::write(folder.path().join("text.db"), "nothing like a database").unwrap();
    let text = count(&folder.path().join("text.db")).unwrap_err();
    assert!(text.to_string().contains("not a database"), "{text}");
}

#[tokio::test]
async fn a_table_that_is_missing_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notes.db");
    add(&path, 0..3).await.close();
    Connection::open(&path).unwrap().execute_batch("DROP TABLE notes").unwrap();
    let error = count(&path).unwrap_err();
    assert!(error.to_string().contains("its table notes is missing"), "{error}");
}

#[tokio::test]
async fn files_of_two_stores_are_not_mixed() {
    let folder = tempfile::tempdir().unwrap();
    let (one, other) = (folder.path().join("one/notes.db"), folder.path().join("other/notes.db"));
    for path in [&one, &other] {
        add(path, 0..3).await.close();
    }
    fs::copy(beside(&other, "-lock"), beside(&one, "-lock")).unwrap();
    let error = count(&one).unwrap_err();
    assert_eq!(named(&error), beside(&one, "-lock"), "{error}");
    fs::write(beside(&one, "-lock"), "something else").unwrap();
    let error = count(&one).unwrap_err();
    assert_eq!(named(&error), beside(&one, "-lock"), "{error}");
}

#[tokio::test]
async fn an_older_copy_of_the_file_alone_is_not_taken_for_the_store() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notes.db");
    add(&path, 0..3).await.close();
    let older = fs::read(&path).unwrap();
    add(&path, 3..6).await.close();
    fs::write(&path, older).unwrap();
    let error = count(&path).unwrap_err();
    assert!(error.to_string().contains("transactions were acknowledged"), "{error}");
}

#[tokio::test]
async fn a_file_of_an_earlier_version_without_any_marks_is_taken_over() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notes.db");
    let earlier = "PRAGMA journal_mode = WAL; CREATE TABLE notes (n INTEGER PRIMARY KEY, text TEXT NOT NULL); \
                   INSERT INTO notes VALUES (1, 'a'); PRAGMA user_version = 1";
    Connection::open(&path).unwrap().execute_batch(earlier).unwrap();
    fs::write(beside(&path, "-lock"), "").unwrap();
    assert_eq!(count(&path).unwrap(), 1);
    let id: i64 =
        Connection::open(&path).unwrap().query_row("PRAGMA application_id", [], |row| row.get(0)).unwrap();
    assert_eq!(id, 0x4e6f_7465);
}

#[tokio::test]
async fn only_the_owner_can_read_the_files() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("new/deeper/notes.db");
    let writer = add(&path, 0..3).await;
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(path.parent().unwrap()), 0o700);
    for suffix in ["", "-wal", "-shm", "-lock"] {
        assert_eq!(mode(&beside(&path, suffix)), 0o600, "{suffix}");
    }
    writer.close();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    count(&path).unwrap();
    assert_eq!(mode(&path), 0o600);
}

#[tokio::test]
async fn a_store_is_opened_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notes.db");
    let writer = add(&path, 0..1).await;
    assert!(matches!(count(&path), Err(OpenError::InUse(_))));
    writer.close();
    assert_eq!(count(&path).unwrap(), 1);
    assert!(matches!(count(folder.path()), Err(OpenError::Folder(_))));
}

const SHARED: Format = Format { shared: true, ..FORMAT };

fn shared(path: &Path) -> Writer<Plain> {
    let opened = SHARED.open(path, &tuning()).unwrap();
    Writer::start(opened.into_session(Plain), Limits::default(), Host::BlockingPool).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shared_store_opens_while_others_write() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notes.db");
    let writers: Vec<_> = (0..3)
        .map(|n| {
            let path = path.clone();
            tokio::spawn(async move {
                let writer = shared(&path);
                for note in 0..200 {
                    let add = move |stored: &mut galerna_sqlite::Stored<Plain>| {
                        let id = note * 10 + n;
                        stored.connection().execute("INSERT INTO notes VALUES (?1, 'note')", [id]).map(drop)
                    };
                    writer.write(add).await.unwrap();
                }
                writer.close();
            })
        })
        .collect();
    while !writers.iter().all(tokio::task::JoinHandle::is_finished) {
        let path = path.clone();
        tokio::task::spawn_blocking(move || drop(SHARED.open(&path, &tuning()).unwrap())).await.unwrap();
    }
    for writer in writers {
        writer.await.unwrap();
    }
    let opened = SHARED.open(&path, &tuning()).unwrap();
    let notes: i64 =
        opened.connection().query_row("SELECT count(*) FROM notes", [], |row| row.get(0)).unwrap();
    assert_eq!(notes, 600);
}

#[test]
fn processes_that_create_a_shared_store_at_the_same_time_have_one_store() {
    for _ in 0..20 {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notes.db");
        let together = std::sync::Barrier::new(6);
        let ids: Vec<u64> = std::thread::scope(|scope| {
            let opening = || {
                scope.spawn(|| {
                    together.wait();
                    SHARED.open(&path, &tuning()).unwrap().store_id()
                })
            };
            let opening: Vec<_> = (0..6).map(|_| opening()).collect();
            opening.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
    }
}
