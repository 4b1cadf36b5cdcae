//! Tables and indexes.

use galerna_sqlite::Format;
use rusqlite::Connection;

/// Version of the tables below, kept in the file; a file of a later version is refused.
const VERSION: i64 = 8;

/// Files of this store.
pub(super) const FORMAT: Format = Format {
    what: "record store",
    application_id: 0x4761_6c53, // GalS
    version: VERSION,
    tables: &[
        "queues",
        "series",
        "readings",
        "rejected",
        "rules",
        "alert_states",
        "alert_events",
        "accounts",
        "sources",
        "settings",
    ],
    bring_up,
    lock_suffix: ".lock",
    companions: &[],
    shared: false,
};

const TABLES: &str = "
CREATE TABLE queues (
    queue TEXT PRIMARY KEY, account TEXT NOT NULL, version INTEGER NOT NULL, state TEXT NOT NULL,
    epoch INTEGER NOT NULL, lease_consumer TEXT, lease_granted_at INTEGER, lease_expires_at INTEGER,
    lease_ms INTEGER, lease_renewal INTEGER, lease_request TEXT, last_delivered INTEGER, crashes INTEGER NOT NULL,
    not_before INTEGER, reason TEXT, since INTEGER NOT NULL, ready INTEGER NOT NULL, unacked INTEGER NOT NULL,
    counted_at INTEGER, changed INTEGER NOT NULL, deletion_claimed INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;
CREATE INDEX queues_changed ON queues (changed);

-- Epoch and version of removed queues, which a namesake goes on from.
CREATE TABLE removed_queues (
    queue TEXT PRIMARY KEY, version INTEGER NOT NULL, epoch INTEGER NOT NULL, changed INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX removed_queues_changed ON removed_queues (changed);

-- A series is one device of one source. Readings name it by number, which keeps them small and in the order of their
-- identity, so that the table needs no other index.
CREATE TABLE series (id INTEGER PRIMARY KEY, source TEXT NOT NULL, device TEXT NOT NULL, UNIQUE (source, device));
CREATE TABLE reading_accounts (id INTEGER PRIMARY KEY, account TEXT NOT NULL UNIQUE);
-- Which accounts a series has had readings of: nearly always one.
CREATE TABLE series_accounts (
    account INTEGER NOT NULL, series INTEGER NOT NULL, PRIMARY KEY (account, series)
) WITHOUT ROWID;
-- `vals`: per value the code (u32) and the value (f64), little endian. `flags`: JSON, null when none. `sqn`: the highest of
-- the values' sequence numbers. `sqns`: that of each value (i64, little endian), null when all are `sqn`.
CREATE TABLE readings (
    series INTEGER NOT NULL, ts INTEGER NOT NULL, account INTEGER NOT NULL, sqn INTEGER NOT NULL,
    vals BLOB NOT NULL, flags TEXT, received INTEGER NOT NULL, sqns BLOB, PRIMARY KEY (series, ts)
) WITHOUT ROWID;

CREATE TABLE rejected (
    id TEXT PRIMARY KEY, account TEXT NOT NULL, source TEXT, device TEXT, ts INTEGER, code TEXT NOT NULL,
    reason TEXT NOT NULL, raw TEXT NOT NULL, at INTEGER NOT NULL, field TEXT
);
CREATE INDEX rejected_at ON rejected (at, id);
CREATE INDEX rejected_account_at ON rejected (account, at, id);
CREATE INDEX rejected_code ON rejected (code);

CREATE TABLE rules (
    id TEXT PRIMARY KEY, name TEXT NOT NULL, account TEXT, devices TEXT NOT NULL, kind TEXT NOT NULL,
    parameter INTEGER, comparison TEXT, bound REAL, clear REAL, for_ms INTEGER NOT NULL, severity TEXT NOT NULL,
    endpoints TEXT NOT NULL, cooldown_ms INTEGER NOT NULL, enabled INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE alert_states (
    account TEXT NOT NULL, rule TEXT NOT NULL, source TEXT NOT NULL, device TEXT NOT NULL, phase TEXT NOT NULL,
    since INTEGER NOT NULL, last_seen INTEGER NOT NULL, last_value REAL, not_before INTEGER,
    received INTEGER, heard_at INTEGER, PRIMARY KEY (rule, source, device)
) WITHOUT ROWID;
CREATE INDEX alert_states_account ON alert_states (account);
CREATE TABLE alert_events (
    id TEXT PRIMARY KEY, kind TEXT NOT NULL, rule TEXT NOT NULL, rule_name TEXT NOT NULL, severity TEXT NOT NULL,
    account TEXT NOT NULL, source TEXT NOT NULL, device TEXT NOT NULL, value REAL, ts INTEGER NOT NULL,
    message TEXT NOT NULL, origin TEXT, at INTEGER
);
CREATE INDEX alert_events_ts ON alert_events (ts, id);
CREATE INDEX alert_events_account_ts ON alert_events (account, ts, id);
CREATE INDEX alert_events_kind ON alert_events (kind);

CREATE TABLE accounts (
    id TEXT PRIMARY KEY, name TEXT NOT NULL, queue TEXT NOT NULL, active INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE sources (
    id TEXT PRIMARY KEY, account TEXT NOT NULL, token_hash TEXT NOT NULL, active INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE settings (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
";

/// What a file of version 1 lacks.
const SINCE_VERSION_1: &str = "ALTER TABLE alert_events ADD COLUMN origin TEXT;";
/// What a file of version 2 lacks.
const SINCE_VERSION_2: &str = "ALTER TABLE readings ADD COLUMN sqns BLOB;";
/// What a file of version 3 lacks.
const SINCE_VERSION_3: &str = "ALTER TABLE queues ADD COLUMN lease_request TEXT;";
/// What a file of version 4 lacks.
const SINCE_VERSION_4: &str = "ALTER TABLE alert_states ADD COLUMN received INTEGER;
ALTER TABLE alert_states ADD COLUMN heard_at INTEGER;";
/// What a file of version 5 lacks. Its claims of deletions were the beginnings of reasons.
const SINCE_VERSION_5: &str = "ALTER TABLE queues ADD COLUMN deletion_claimed INTEGER NOT NULL DEFAULT 0;
UPDATE queues SET deletion_claimed = 1, reason = substr(reason, 11) WHERE state = 'delete' AND substr(reason, 1, 10) = 'deleting: ';";
/// What a file of version 6 lacks.
const SINCE_VERSION_6: &str = "ALTER TABLE alert_events ADD COLUMN at INTEGER;";
/// What a file of version 7 lacks.
const SINCE_VERSION_7: &str = "ALTER TABLE rejected ADD COLUMN field TEXT;";

/// Creates what a file of the version `found` lacks (0: all).
pub(super) fn bring_up(conn: &Connection, found: i64) -> rusqlite::Result<()> {
    if found == 0 {
        conn.execute_batch(TABLES)?;
    }
    let changes = [
        (1, SINCE_VERSION_1),
        (2, SINCE_VERSION_2),
        (3, SINCE_VERSION_3),
        (4, SINCE_VERSION_4),
        (5, SINCE_VERSION_5),
        (6, SINCE_VERSION_6),
        (7, SINCE_VERSION_7),
    ];
    for (_, change) in changes.into_iter().filter(|(version, _)| (1..=*version).contains(&found)) {
        conn.execute_batch(change)?;
    }
    conn.execute_batch(super::consumption::TABLES)?;
    conn.execute_batch(super::imports::TABLES)?;
    conn.execute_batch(super::notifications::TABLES)?;
    conn.execute_batch(super::operations::TABLES)?;
    conn.execute_batch(super::statistics::TABLES)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SINCE_4: &str = "received INTEGER, heard_at INTEGER, ";
    const SINCE_6: &str = ", at INTEGER\n";
    const SINCE_7: &str = ", field TEXT";
    const SINCE_5: &str = ", deletion_claimed INTEGER NOT NULL DEFAULT 0";

    /// The tables as an earlier version made them.
    fn without(columns: &[&str]) -> String {
        columns.iter().fold(TABLES.to_owned(), |tables, column| tables.replace(column, ""))
    }

    #[test]
    fn a_file_of_version_1_keeps_its_events_and_learns_where_new_ones_come_from() {
        let conn = Connection::open_in_memory().unwrap();
        let old = without(&[
            ", origin TEXT",
            ", sqns BLOB",
            " lease_request TEXT,",
            SINCE_4,
            SINCE_5,
            SINCE_6,
            SINCE_7,
        ]);
        conn.execute_batch(&format!("{old} PRAGMA user_version = 1;")).unwrap();
        conn.execute_batch(
            "INSERT INTO alert_events VALUES ('e', 'raised', 'r', 'r', 'info', 'a', 's', 'd', 1.0, 1, 'm')",
        )
        .unwrap();
        for version in [1, VERSION] {
            bring_up(&conn, version).unwrap();
        }
        let (message, origin): (String, Option<String>) = conn
            .query_row("SELECT message, origin FROM alert_events", [], |row| Ok((row.get(0)?, row.get(1)?)))
            .unwrap();
        assert_eq!((message.as_str(), origin), ("m", None));
    }

    #[test]
    fn a_file_of_version_4_keeps_its_states_and_learns_when_readings_came() {
        let conn = Connection::open_in_memory().unwrap();
        conn.execute_batch(&without(&[SINCE_4, SINCE_5, SINCE_6, SINCE_7])).unwrap();
        conn.execute_batch("INSERT INTO alert_states VALUES ('a', 'r', 's', 'd', 'ok', 1, 2, 3.0, NULL)")
            .unwrap();
        for version in [4, VERSION] {
            bring_up(&conn, version).unwrap();
        }
        let read = |row: &rusqlite::Row<'_>| Ok((row.get::<_, i64>(0)?, row.get::<_, Option<i64>>(1)?));
        let found = conn.query_row("SELECT last_seen, received FROM alert_states", [], read).unwrap();
        assert_eq!(found, (2, None));
    }

    #[tokio::test]
    async fn readings_of_a_file_of_version_2_are_united_with_what_comes() {
        use galerna_model::{Measurement, ParameterCode};
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("store.db");
        let old = without(&[", sqns BLOB", " lease_request TEXT,", SINCE_4, SINCE_5, SINCE_6, SINCE_7]);
        let conn = Connection::open(&path).unwrap();
        conn.execute_batch(&format!("PRAGMA journal_mode = WAL; {old} PRAGMA user_version = 2;")).unwrap();
        conn.execute_batch(
            "INSERT INTO series VALUES (1, 's', 'd'); INSERT INTO reading_accounts VALUES (1, 'a'); \
             INSERT INTO series_accounts VALUES (1, 1); \
             INSERT INTO readings VALUES (1, 8, 1, 5, x'91010000000000000000f03f', NULL, 9);",
        )
        .unwrap();
        drop(conn);
        let store = crate::sqlite::open(&path).await.unwrap();
        let found =
            store.readings.find(&crate::ReadingsQuery { limit: 9, ..Default::default() }).await.unwrap();
        let value = |p: u32, v: f64| Measurement { p: ParameterCode(p), v };
        assert_eq!((found[0].sqn, &found[0].values[..]), (5, &[value(401, 1.0)][..]));
        let more = crate::StoredReading {
            sqn: 3,
            values: vec![value(401, 7.0), value(402, 2.0)],
            ..found[0].clone()
        };
        let outcome = store.readings.store(&[more]).await.unwrap();
        assert_eq!(outcome, [crate::ReadingOutcome::Added]);
        assert_eq!(outcome.not_taken.len(), 1);
        store.close().await.unwrap();
        assert!(store.readings.count(None).await.unwrap_err().to_string().contains("closed"));

        let store = crate::sqlite::open(&path).await.unwrap();
        let found =
            store.readings.find(&crate::ReadingsQuery { limit: 9, ..Default::default() }).await.unwrap();
        assert_eq!((found[0].sqn, &found[0].values[..]), (5, &[value(401, 1.0), value(402, 2.0)][..]));
    }

    #[test]
    fn a_file_of_version_3_keeps_its_leases_and_learns_their_requests() {
        let conn = Connection::open_in_memory().unwrap();
        let old = without(&[" lease_request TEXT,", SINCE_4, SINCE_5, SINCE_6, SINCE_7]);
        conn.execute_batch(&format!("{old} PRAGMA user_version = 3;")).unwrap();
        conn.execute_batch(
            "INSERT INTO queues VALUES ('D1', '1', 4, 'worker', 2, 'w1', 1, 2, 60000, 0, 1, 0, NULL, NULL, 1, 0, 0, NULL, 9)",
        )
        .unwrap();
        bring_up(&conn, 3).unwrap();
        let (consumer, request): (String, Option<String>) = conn
            .query_row("SELECT lease_consumer, lease_request FROM queues", [], |row| {
                Ok((row.get(0)?, row.get(1)?))
            })
            .unwrap();
        assert_eq!((consumer.as_str(), request), ("w1", None));
    }

    #[test]
    fn a_file_of_version_7_keeps_its_rejected_readings_and_learns_their_fields() {
        let conn = Connection::open_in_memory().unwrap();
        conn.execute_batch(&without(&[SINCE_7])).unwrap();
        conn.execute_batch(
            "INSERT INTO rejected VALUES ('r', 'a', NULL, NULL, NULL, 'c', 'ts is 0', 'raw', 1)",
        )
        .unwrap();
        for version in [7, VERSION] {
            bring_up(&conn, version).unwrap();
        }
        let read = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?));
        let found: (String, Option<String>) =
            conn.query_row("SELECT reason, field FROM rejected", [], read).unwrap();
        assert_eq!(found, ("ts is 0".to_owned(), None));
    }

    #[test]
    fn a_claimed_deletion_in_a_file_of_version_5_is_no_longer_a_beginning_of_a_reason() {
        let conn = Connection::open_in_memory().unwrap();
        conn.execute_batch(&without(&[SINCE_5, SINCE_6, SINCE_7])).unwrap();
        for (queue, state, reason) in [
            ("D1", "delete", "'deleting: account `a` is deactivated'"),
            ("D2", "delete", "'account `b` is deactivated'"),
            ("D3", "pause", "'deleting: no, paused'"),
            ("D4", "delete", "NULL"),
        ] {
            let columns = format!(
                "'{queue}', '1', 4, '{state}', 2, NULL, NULL, NULL, NULL, NULL, NULL, 1, 0, NULL, {reason}, 1, 0, 0, NULL, 9"
            );
            conn.execute_batch(&format!("INSERT INTO queues VALUES ({columns})")).unwrap();
        }
        for version in [5, VERSION] {
            bring_up(&conn, version).unwrap();
        }
        let mut all = conn.prepare("SELECT deletion_claimed, reason FROM queues ORDER BY queue").unwrap();
        let all = all.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
        let all: Vec<(bool, Option<String>)> = all.collect::<Result<_, _>>().unwrap();
        let reason = |text: &str| Some(text.to_owned());
        let expected = [
            (true, reason("account `a` is deactivated")),
            (false, reason("account `b` is deactivated")),
            (false, reason("deleting: no, paused")),
            (false, None),
        ];
        assert_eq!(all, expected);
    }
}
