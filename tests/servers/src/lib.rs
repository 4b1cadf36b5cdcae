//! Private RabbitMQ, MongoDB and PostgreSQL servers for tests.
//!
//! A test that talks to a server talks to the real one. This crate finds the servers' programs,
//! starts private instances of them on free loopback ports with folders of their own, and sees to it
//! that they die with the test process, however that ends.
//!
//! ```no_run
//! use galerna_test_servers::{Mongo, Postgres, RabbitMq, unique};
//!
//! # async fn example() {
//! // One server for all tests of this process; a virtual host of its own for this test.
//! let rabbit = RabbitMq::shared().await;
//! let amqp_uri = rabbit.vhost().await;
//! // Likewise, with a database of its own.
//! let postgres_uri = Postgres::shared().await.database().await;
//!
//! // A server of this test's own, which it may kill.
//! let mongo = Mongo::start().await;
//! let database = unique("readings");
//! mongo.kill().await;
//! mongo.restart().await;
//! # let _ = (amqp_uri, postgres_uri, database);
//! # }
//! ```
//!
//! # Where the servers come from
//!
//! `shared()` takes the first of these, `start()` all but the first:
//!
//! 1. the running server that `AMQP_URL` (with `AMQP_MANAGEMENT_URL`), `MONGODB_URI` or `POSTGRES_URI` names;
//! 2. the program that `GALERNA_RABBITMQ_SERVER`, `GALERNA_MONGOD` or `GALERNA_POSTGRES` names;
//! 3. the program on the `PATH` or in the folders where Debian puts it;
//! 4. the program in `servers/bin` of the target folder, where `scripts/test` puts what it fetches;
//! 5. Docker, when its daemon answers (not for PostgreSQL).
//!
//! When none is there the test panics and says what to run. It never passes by being skipped.
//!
//! # How the servers die
//!
//! Each server is the child of a small shell that reads commands from a pipe whose other end only the
//! test process holds. When that process ends, by returning, by a panic or by `SIGKILL`, the kernel closes
//! the pipe; the shell then kills the server's process group and removes its folder. No destructor
//! needs to run, so servers in statics are covered too.
//!
//! This crate depends on no other crate of the workspace, and is only ever a dev-dependency.

mod accessibility;
mod management;
mod mongo;
mod openapi;
mod origin;
mod port;
mod postgres;
mod pystorm;
mod rabbitmq;
mod s3;
mod storm;
mod supervisor;

pub use accessibility::axe_script;
pub use mongo::{Mongo, mongod_program};
pub use openapi::check_openapi;
pub use postgres::Postgres;
pub use pystorm::pystorm_python;
pub use rabbitmq::{RabbitMq, rabbitmq_program};
pub use s3::S3;
pub use storm::storm_class_path;

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// How long a server may take to start or to stop before the test fails.
///
/// RabbitMQ takes five seconds on an idle machine; the rest is for machines that compile meanwhile.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(180);

/// A name that no other test has, now or in an earlier run against the same server.
///
/// `prefix` is kept in front; the rest is lower-case letters and digits, so the name is legal as a database, a
/// virtual host, a queue or a file. It is 20 characters longer than `prefix` (MongoDB allows 63 in a database's name).
#[must_use]
pub fn unique(prefix: &str) -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed) & 0xffff;
    format!("{prefix}_{count:04x}{:015x}", fastrand::u64(..1 << 60))
}
