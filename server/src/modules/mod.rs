//! The modules of the system, opened from the settings.

pub(crate) mod admin_server;
mod dispatcher;
mod frontend;
mod maintainer;
mod notifier;
mod page;
mod rules;
pub mod schedules;
mod worker;

use std::net::SocketAddr;

use anyhow::Context;
use galerna_lease::Timing;
use galerna_settings::Settings;
use tokio::net::TcpListener;

pub(crate) use admin_server::AdminServer;
pub(crate) use dispatcher::DispatcherApi;
pub use dispatcher::open as dispatcher;
pub(crate) use frontend::FrontendServer;
pub use frontend::directory;
pub(crate) use frontend::open as frontend;
pub(crate) use maintainer::{LocalMaintainer, MaintainerTasks};
pub use maintainer::{accounts_source, open as maintainer};
pub(crate) use notifier::{NotifierTasks, open as notifier};
pub(crate) use page::{PageParts, PageServer};
pub use rules::{load as load_rules, put as put_rules};
pub(crate) use schedules::ScheduleRunner;
pub(crate) use worker::WorkerTopologies;
pub use worker::{Workers, ingestion, validator};

/// The timeouts of the lease protocol, the same in every module.
pub(crate) fn timing(settings: &Settings) -> Timing {
    Timing::with_lease(settings.dispatcher.lease)
}

/// Checks the settings whose values are more than one word, before anything starts.
///
/// # Errors
/// The first that is wrong, with its name.
pub fn check(settings: &Settings) -> anyhow::Result<()> {
    worker::parameters(settings)?;
    rules::check(settings)?;
    notifier::check(settings)?;
    page::check(settings)
}

/// Listens, before anything else starts: an address that is taken is told at once.
pub async fn listen(address: SocketAddr, setting: &str) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| {
        format!("cannot listen on {address} (`{setting}`); choose another address, port 0 for any free one")
    })
}
