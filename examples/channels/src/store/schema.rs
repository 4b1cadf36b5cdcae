//! The file.

use galerna_sqlite::Format;
use rusqlite::Connection;

/// Files of this store.
pub(super) const FORMAT: Format = Format {
    what: "store of channels",
    application_id: 0x4761_6c43, // GalC
    version: 1,
    tables: &["accounts", "channels", "statuses", "posts", "notices"],
    bring_up,
    lock_suffix: "-lock",
    companions: &[],
    shared: false,
};

/// `statuses` is the log of what came in; `search` has the words that it is searched by, in lower case. `posts.key` is the key by which a
/// server tells a second attempt; `first_attempt` is written before the first call. Times are milliseconds since 1970.
const TABLES: &str = "
CREATE TABLE IF NOT EXISTS accounts (name TEXT NOT NULL PRIMARY KEY, server TEXT NOT NULL, token TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS channels (
    name TEXT NOT NULL PRIMARY KEY, definition TEXT NOT NULL, is_on INTEGER NOT NULL, cursor TEXT, began TEXT
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS statuses (
    seq INTEGER PRIMARY KEY, channel TEXT NOT NULL, id TEXT NOT NULL, at INTEGER NOT NULL, author TEXT NOT NULL, link TEXT NOT NULL,
    text TEXT NOT NULL, reason TEXT, blocked_by TEXT NOT NULL, post TEXT, search TEXT NOT NULL, UNIQUE (channel, id)
);
CREATE INDEX IF NOT EXISTS statuses_post ON statuses (post) WHERE post IS NOT NULL;
CREATE TABLE IF NOT EXISTS posts (
    key TEXT NOT NULL PRIMARY KEY, account TEXT NOT NULL, draft TEXT NOT NULL, kept INTEGER NOT NULL, first_attempt INTEGER,
    state TEXT NOT NULL, ended INTEGER, remote_id TEXT, reason TEXT
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS posts_open ON posts (kept) WHERE state = 'open';
CREATE INDEX IF NOT EXISTS posts_refused ON posts (ended) WHERE state = 'refused';
CREATE TABLE IF NOT EXISTS notices (
    seq INTEGER PRIMARY KEY, at INTEGER NOT NULL, about TEXT NOT NULL, text TEXT NOT NULL, is_read INTEGER NOT NULL
);
";

fn bring_up(connection: &Connection, _found: i64) -> rusqlite::Result<()> {
    connection.execute_batch(TABLES)
}
