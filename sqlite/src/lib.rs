//! SQLite files as Galerna keeps them: opened in one way, checked before they are used, written by one group-commit writer.
//!
//! - [`Format`] says what a kind of file holds; [`Format::open`] opens or creates one ([`Opened`]);
//! - [`Writer`] runs [`Job`]s in transactions, as many as wait in each, on one connection ([`Session`]).
//!
//! ```
//! use galerna_sqlite::{Format, Host, Limits, Plain, Tuning, Writer};
//!
//! const NOTES: Format = Format {
//!     what: "store of notes",
//!     application_id: 0x4e6f_7465,
//!     version: 1,
//!     tables: &["notes"],
//!     bring_up: |connection, _found| connection.execute_batch("CREATE TABLE IF NOT EXISTS notes (text TEXT NOT NULL)"),
//!     lock_suffix: "-lock",
//!     companions: &[],
//!     shared: false,
//! };
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let folder = tempfile::tempdir()?;
//! let opened = NOTES.open(&folder.path().join("notes.db"), &Tuning::default())?;
//! let writer = Writer::start(opened.into_session(Plain), Limits::default(), Host::BlockingPool)?;
//! // On disk when it returns.
//! writer.write(|plain| plain.connection().execute("INSERT INTO notes VALUES ('a')", []).map(drop)).await?;
//! writer.close();
//! # Ok(())
//! # }
//! ```
//!
//! Invariants:
//! - what a commit acknowledged survives `kill -9` and power failure (`synchronous=FULL`);
//! - a file is used only if it is Galerna's, whole, and not older than the last commit that was acknowledged. A missing or
//!   cut `-wal`, garbage, or a file of another program is an [`OpenError`] that names the file and says what to do;
//! - files are readable by their owner only (0600), as are folders that are created for them (0700).
//!
//! The crate knows nothing of queues or readings, and depends on no other Galerna crate.

mod error;
mod files;
mod format;
mod group;
mod marker;
mod session;
mod writer;

pub use error::{OpenError, SqliteError, SqliteErrorKind};
pub use files::{create_folder, restrict};
pub use format::{Format, Opened, Tuning};
pub use group::{Job, Limits};
pub use session::{Plain, Session, Stored};
pub use writer::{Host, Writer};
