//! The accounts of the demo, each with one concentrator, and the API that lists them.

use std::collections::HashSet;

use galerna_directory::AccountsApi;
use galerna_frontend::TokenHash;
use galerna_model::{Account, QueueName, Source, SourceId};
use galerna_server::modules;
use galerna_storage::{QueueRecord, QueueState};
use tokio_util::sync::CancellationToken;

use crate::extract::Load;
use crate::poster::token_of;

/// What to put behind the names of the accounts, so that they are not those of an earlier run.
pub(crate) fn suffix(load: &Load, known: &[QueueRecord]) -> Option<String> {
    let known: HashSet<&str> = known.iter().map(|record| record.account.as_str()).collect();
    let taken = |suffix: &str| {
        load.tenants.iter().any(|tenant| known.contains(format!("{}{suffix}", tenant.account).as_str()))
    };
    let mut suffixes = std::iter::once(String::new()).chain((2..).map(|run: u64| format!("-{run}")));
    suffixes.find(|suffix| !taken(suffix)).filter(|suffix| !suffix.is_empty())
}

/// The account of a queue that is served already; none when it is on its way out.
pub(crate) fn account_of(record: QueueRecord) -> Option<Account> {
    let QueueRecord { queue, account, state, .. } = record;
    (state != QueueState::Deleting).then(|| Account {
        name: account.to_string(),
        queue,
        id: account,
        active: true,
    })
}

pub(crate) fn accounts(load: &Load) -> anyhow::Result<Vec<Account>> {
    load.tenants
        .iter()
        .map(|tenant| {
            let id = tenant.account.clone();
            Ok(Account { name: id.to_string(), queue: QueueName::new(id.as_str())?, id, active: true })
        })
        .collect()
}

/// Each account has one concentrator, which has its name.
pub(crate) fn sources(accounts: &[Account]) -> anyhow::Result<Vec<Source>> {
    accounts
        .iter()
        .map(|account| {
            Ok(Source {
                id: SourceId::new(account.id.as_str())?,
                account: account.id.clone(),
                token_hash: TokenHash::of(&token_of(account.id.as_str())).to_string(),
                active: true,
            })
        })
        .collect()
}

pub(crate) async fn serve_accounts(
    accounts: Vec<Account>,
    sources: Vec<Source>,
    services: &CancellationToken,
) -> anyhow::Result<String> {
    let listener = modules::listen(([127, 0, 0, 1], 0).into(), "the accounts API").await?;
    let url = format!("http://{}", listener.local_addr()?);
    let shutdown = services.clone();
    tokio::spawn(async move {
        let api = AccountsApi::new(accounts, sources);
        if let Err(e) = api.serve(listener, async move { shutdown.cancelled().await }).await {
            tracing::error!(error = %e, "the accounts API ended");
        }
    });
    Ok(url)
}
