//! Keeps queue states true to the world.
//!
//! Four periodic tasks, all of whose writes are guarded, so that several maintainers and dispatchers may work on one
//! store at once:
//!
//! - **accounts** makes a queue and a state for each active account of the accounts list, flags the queues of those that
//!   are deactivated or gone, and un-flags those that came back. A list that cannot be read whole, is empty or suddenly
//!   lacks many accounts flags and deletes nothing;
//! - **empties** counts messages and tells empty queues from those with work;
//! - **timeouts** returns leases whose holder let them run out;
//! - **deletions** deletes flagged queues, those with messages only after a grace time.
//!
//! The accounts list comes from a [`galerna_directory::AccountsSource`].
//!
//! ```no_run
//! use std::sync::Arc;
//!
//! use galerna_broker::Broker;
//! use galerna_directory::FileDirectory;
//! use galerna_maintainer::{Maintainer, Options, Run, Task};
//! use galerna_model::SystemClock;
//! use galerna_storage::Store;
//! use tokio_util::sync::CancellationToken;
//!
//! # async fn example(store: Store, broker: Arc<dyn Broker>) -> Result<(), Box<dyn std::error::Error>> {
//! let accounts = Arc::new(FileDirectory::new("accounts.csv")?);
//! let maintainer =
//!     Maintainer::new(store.queues, broker, accounts, Options::default(), Arc::new(SystemClock))?;
//! let report = maintainer.run_once(Task::Accounts, Run::default()).await?;
//! println!("{} queues created", report.created);
//!
//! let shutdown = CancellationToken::new();
//! let tasks = maintainer.spawn(shutdown.clone());
//! let listener = tokio::net::TcpListener::bind("127.0.0.1:7677").await?;
//! maintainer.serve(listener, None, shutdown.cancelled_owned()).await?;
//! tasks.await?;
//! # Ok(())
//! # }
//! ```
//!
//! # Invariants and boundaries
//!
//! - A queue's state changes only by [`galerna_lease::transition`], written by compare-and-swap.
//! - What cannot be known whole deletes nothing: a list of accounts is whole or an error, and a queue that the broker does
//!   not tell of is not concluded to be gone.
//! - It knows brokers and stores by their traits only, and calls no dispatcher: they meet in the store.

mod accounts;
mod deletions;
mod guarded;
mod maintainer;
mod metrics;
mod reconcile_empty;
mod service;
mod status;
mod steady;
mod task;
mod timeouts;
mod work;

pub use accounts::{Guard, Suspicion};
pub use galerna_http::ServeError;
pub use maintainer::Maintainer;
pub use status::{Status, TaskStatus};
pub use task::{
    ISSUES_KEPT, Options, OptionsError, Report, Run, RunFailure, Schedule, Task, TaskBehind, TaskError,
    TasksBehind, UnknownTask, WhyBehind,
};
