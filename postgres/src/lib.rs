//! What stores have in common when they keep their records in PostgreSQL: connecting, tables of the right version, and telling failures
//! that pass from those that last.
//!
//! ```no_run
//! use galerna_postgres::{Step, open};
//!
//! // What was published is not changed; what is new is appended.
//! const STEPS: &[Step] = &[Step { version: 1, name: "words", sql: "CREATE TABLE words (word text PRIMARY KEY)" }];
//!
//! # async fn example() -> Result<(), galerna_postgres::OpenError> {
//! let pool = open("postgres://user:password@localhost/words", STEPS).await?;
//! # drop(pool);
//! # Ok(())
//! # }
//! ```
//!
//! *Boundary:* no other crate of the workspace; what failed of a record is said by whose record it is.

use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use sqlx_core::migrate::{MigrateError, Migration, MigrationType, Migrator};
use sqlx_core::sql_str::SqlSafeStr;

/// Longest time that a call waits for a connection, and a connection for the server.
pub const TIMEOUT: Duration = Duration::from_secs(10);

/// Most connections of one store.
const CONNECTIONS: u32 = 8;

/// What brings tables from one version to the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    /// 1, 2, 3, in the order in which they are run.
    pub version: i64,
    /// What it is about.
    pub name: &'static str,
    /// What is run, once in the life of a database.
    pub sql: &'static str,
}

/// Why a database cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The address makes no sense.
    #[error(
        "the address is none of PostgreSQL: {0}; write for instance postgres://user:password@localhost/database"
    )]
    Address(String),
    /// Nobody answered there within [`TIMEOUT`].
    #[error(
        "PostgreSQL did not answer at {0} within {TIMEOUT:?}; see that it runs there, or name another address"
    )]
    NoAnswer(String),
    /// The server does not let us in.
    #[error("PostgreSQL at {0} refuses the connection: {1}")]
    Refused(String, #[source] sqlx::Error),
    /// The tables are of another program or of a newer version of this one, or could not be changed.
    #[error(
        "the tables cannot be brought up to date: {0}; name a database of this program and not of a newer version of it"
    )]
    Tables(#[source] MigrateError),
}

impl OpenError {
    /// Whether the same may succeed later.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::NoAnswer(_) => true,
            Self::Refused(_, error) | Self::Tables(MigrateError::Execute(error)) => is_transient(error),
            Self::Address(_) | Self::Tables(_) => false,
        }
    }
}

/// Connects, and brings the tables up to date; of processes that do so at once one does, and the others wait.
///
/// # Errors
/// [`OpenError`].
pub async fn open(url: &str, steps: &[Step]) -> Result<PgPool, OpenError> {
    if !["postgres://", "postgresql://"].iter().any(|scheme| url.starts_with(scheme)) {
        return Err(OpenError::Address("it does not begin with postgres://".to_owned()));
    }
    let options: PgConnectOptions =
        url.parse().map_err(|error: sqlx::Error| OpenError::Address(error.to_string()))?;
    let server = format!("{}:{}", options.get_host(), options.get_port());
    let pool = PgPoolOptions::new().max_connections(CONNECTIONS).acquire_timeout(TIMEOUT);
    let pool = pool.connect_with(options).await.map_err(|error| match error {
        sqlx::Error::PoolTimedOut | sqlx::Error::Io(_) => OpenError::NoAnswer(server),
        error => OpenError::Refused(server, error),
    })?;
    let migrations: Vec<Migration> = steps
        .iter()
        .map(|step| {
            let sql = step.sql.into_sql_str();
            Migration::new(step.version, step.name.into(), MigrationType::Simple, sql, false)
        })
        .collect();
    Migrator::with_migrations(migrations).run(&pool).await.map_err(OpenError::Tables)?;
    Ok(pool)
}

/// Whether the same call may succeed later: not reached, serialization, deadlocks, resources, operators, shutdowns.
pub fn is_transient(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Database(told) => {
            // Classes of SQLSTATE: connection, transaction rollback, insufficient resources, operator intervention, system error.
            let code = told.code().unwrap_or_default();
            ["08", "40", "53", "57", "58"].iter().any(|class| code.starts_with(class))
        }
        sqlx::Error::Io(_)
        | sqlx::Error::PoolTimedOut
        | sqlx::Error::PoolClosed
        | sqlx::Error::WorkerCrashed
        | sqlx::Error::Tls(_) => true,
        _ => false,
    }
}
