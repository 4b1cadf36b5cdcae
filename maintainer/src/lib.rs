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
//! The accounts list comes from an [HTTP API](HttpDirectory), a [file](FileDirectory) or the
//! [store](StoreDirectory). [`AccountsApi`] is a small server of such lists, for trying.
#![allow(dead_code)] // the tasks that use the plan come with the dispatcher's state machine

mod accounts;
mod accounts_api;
mod bearer;
mod directory;

pub use accounts::{Guard, Suspicion};
pub use accounts_api::AccountsApi;
pub use directory::{
    AccountsSource, DirectoryError, FileDirectory, HttpDirectory, HttpOptions, Issue, Listing, MAX_ENTRIES,
    SourcesSource, StoreDirectory,
};
