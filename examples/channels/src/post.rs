//! Posting.
//!
//! A post is given to the server with its key as `Idempotency-Key`, so that a second attempt gets the status of the first; servers remember
//! keys for an hour. When the first attempt is longer ago, the account's own statuses are looked through before it is posted again.

use std::sync::Arc;
use std::time::Duration;

use galerna_delay::Taken;
use galerna_model::Timestamp;
use galerna_topology::Fault;

use crate::accounts::LONG_LIMIT;
use crate::channel::{Account, Draft, Source, Text};
use crate::context::Context;
use crate::length::compose;
use crate::network::{Ask, NetworkError};
use crate::status::{Status, StatusId};
use crate::store::{Post, PostEnd, PostState};

/// How long servers are trusted to remember a key: Mastodon does for an hour.
const KEY_LASTS: Duration = Duration::from_secs(50 * 60);

/// How a post that was due ended.
#[derive(Debug, Clone)]
pub struct Posted {
    /// Its key.
    pub key: String,
    /// The account.
    pub account: String,
    /// How it ended; none if it had ended before.
    pub end: Option<PostEnd>,
}

/// Sends a post, waiting for as long as the server wants none of the account, or refuses its token. One call for each account at a
/// time.
///
/// # Errors
/// When it is to be tried again.
pub async fn post(context: Arc<Context>, taken: Taken) -> Result<Posted, Fault> {
    let key = taken.item.id;
    let found = context.store.attempt(&key, context.now()).await;
    let found = found.map_err(|error| Fault::unavailable(error.to_string()))?;
    let Some(post) = found.filter(|post| post.state == PostState::Open) else {
        let account = taken.item.key.unwrap_or_default();
        return Ok(Posted { key, account, end: None });
    };
    let name = post.account.clone();
    let mut first = post.first_attempt;
    loop {
        let Some((account, version)) = context.accounts.usable(&name).await else {
            let reason = format!("there is no account `{name}`; add it, and try again");
            return Ok(refused(&context, post, reason).await);
        };
        let error = match send(&context, &account, &post, first).await {
            Ok(id) => {
                context.accounts.limit(&name, None);
                context.accounts.count_sent(&name);
                return Ok(Posted { key, account: name, end: Some(PostEnd::Sent(id)) });
            }
            Err(error) => error,
        };
        // It may have reached the server by now.
        first = first.or(Some(context.now()));
        match error {
            NetworkError::Limited(wait) => {
                let until = context.now().plus_millis(i64::try_from(wait.as_millis()).unwrap_or(i64::MAX));
                if context.accounts.limit(&name, Some(until)) && wait >= LONG_LIMIT {
                    let text = format!("the server wants no post of account `{name}` before {until}");
                    context.notify(&name, text).await;
                }
                tokio::time::sleep(wait).await;
                context.accounts.limit(&name, None);
            }
            NetworkError::Revoked(message) => {
                if context.accounts.revoke(&name, version, &message) {
                    let text = format!(
                        "the server refuses the token of account `{name}`: {message}; give it another one"
                    );
                    context.notify(&name, text).await;
                }
            }
            NetworkError::NotFound(_) | NetworkError::Refused { .. } => {
                return Ok(refused(&context, post, error.to_string()).await);
            }
            NetworkError::Unavailable(cause) => {
                context.accounts.count_failure(&name, &cause);
                return Err(Fault::unavailable(cause));
            }
        }
    }
}

async fn refused(context: &Context, post: Post, reason: String) -> Posted {
    context.accounts.count_refused(&post.account, &reason);
    context.notify(&post.key, format!("it was not posted: {reason}")).await;
    Posted { key: post.key, account: post.account, end: Some(PostEnd::Refused(reason)) }
}

async fn send(
    context: &Context,
    account: &Account,
    post: &Post,
    first: Option<Timestamp>,
) -> Result<StatusId, NetworkError> {
    let network = &*context.network;
    match &post.draft {
        Draft::Status(text) => {
            let known = context.accounts.known(network, account).await?;
            let composed =
                compose(&text.text, &text.warning, text.link.as_deref(), &text.hashtags, known.limits);
            if let Some(first) = first.filter(|first| is_long_ago(*first, context.now()))
                && let Some(id) = sent_before(context, account, &known.id, text, &composed, first).await?
            {
                return Ok(id);
            }
            network.post(account, text, &composed, &post.key).await
        }
        Draft::Boost { id, from, uri } => {
            let server = context.accounts.get(from).map(|from| from.server);
            if server
                .is_some_and(|server| server.trim_end_matches('/') == account.server.trim_end_matches('/'))
            {
                return network.boost(account, id).await;
            }
            let id = network.resolve(account, uri).await?;
            network.boost(account, &id).await
        }
    }
}

fn is_long_ago(first: Timestamp, now: Timestamp) -> bool {
    u128::try_from(now.millis_since(first)).is_ok_and(|millis| millis > KEY_LASTS.as_millis())
}

/// The account's status that an attempt wrote whose answer was lost long ago.
async fn sent_before(
    context: &Context,
    account: &Account,
    own: &str,
    text: &Text,
    composed: &str,
    first: Timestamp,
) -> Result<Option<StatusId>, NetworkError> {
    // Clocks differ a little.
    let mut after = StatusId::at(first.plus_millis(-60_000));
    let source = Source::Id(own.to_owned());
    loop {
        let page = context.network.page(account, &source, Ask::After(after.clone())).await?;
        if let Some(found) = page.iter().find(|status| is_written(status, text, composed)) {
            return Ok(Some(found.id.clone()));
        }
        match page.into_iter().map(|status| status.id).max().filter(|last| *last > after) {
            Some(last) => after = last,
            None => return Ok(None),
        }
    }
}

/// Whether a status is what was composed: by its link, which only it has, or else by its words.
fn is_written(status: &Status, text: &Text, composed: &str) -> bool {
    if status.reblog.is_some() {
        return false;
    }
    let written = status.text();
    let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    match &text.link {
        Some(link) => written.contains(link.as_str()) || status.content.contains(link.as_str()),
        None => words(&written) == words(composed),
    }
}
