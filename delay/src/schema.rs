//! The file.

use std::path::Path;

use galerna_sqlite::{Format, Limits, OpenError, Plain, Writer};
use rusqlite::Connection;

use crate::DelayError;

/// Files of this store.
const FORMAT: Format = Format {
    what: "store of delayed work",
    application_id: 0x4761_6c44, // GalD
    version: 1,
    tables: &["items", "limits"],
    bring_up,
    lock_suffix: "-lock",
    companions: &[],
    shared: true,
};

/// `first`: 1 of the item of a key that may be claimed, and of all without key. `due` is null while an item is claimed or parked, so
/// that the index has only what can start. `tat`: when a limit would be idle again, in microseconds.
const TABLES: &str = "
CREATE TABLE IF NOT EXISTS items (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, key TEXT, first INTEGER NOT NULL, due INTEGER,
    attempts INTEGER NOT NULL, holder TEXT, epoch INTEGER NOT NULL, renewal INTEGER NOT NULL, lease INTEGER NOT NULL,
    parked TEXT, fault TEXT, payload TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS items_due ON items (due, seq) WHERE first = 1 AND due IS NOT NULL;
CREATE INDEX IF NOT EXISTS items_key ON items (key, seq) WHERE key IS NOT NULL;
CREATE INDEX IF NOT EXISTS items_claimed ON items (seq) WHERE holder IS NOT NULL;
CREATE INDEX IF NOT EXISTS items_parked ON items (seq) WHERE parked IS NOT NULL;
CREATE TABLE IF NOT EXISTS limits (name TEXT NOT NULL, key TEXT NOT NULL, tat INTEGER NOT NULL, PRIMARY KEY (name, key)) WITHOUT ROWID;
";

fn bring_up(connection: &Connection, _found: i64) -> rusqlite::Result<()> {
    connection.execute_batch(TABLES)
}

pub(crate) fn open(path: &Path) -> Result<Writer<Plain>, OpenError> {
    Writer::open(&FORMAT, path, Limits::default())
}

pub(crate) fn in_memory() -> Result<Writer<Plain>, DelayError> {
    Writer::in_memory(&FORMAT, Limits::default())
        .map_err(|error| DelayError::of("opening a store in memory", error.into()))
}
