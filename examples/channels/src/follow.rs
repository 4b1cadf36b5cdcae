//! The task of a channel: it follows its stream, and after each break fetches what it missed.
//!
//! The stream is opened first and pages are fetched then, so that nothing falls between them; what comes twice is recorded once. From time
//! to time pages are fetched again, because servers promise nothing of their streams.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use galerna_retry::{Backoff, Pauses};
use galerna_topology::{Fault, FaultKind};
use tokio::time::Instant;

use crate::accounts::LONG_LIMIT;
use crate::channel::{Account, Begin, Channel};
use crate::context::Context;
use crate::filter::Judge;
use crate::network::{Ask, Event, EventStream, NetworkError};
use crate::pages::{Page, PageSender};
use crate::progress::{Phase, Progress};
use crate::status::{Status, StatusId};
use crate::store::StoreError;

/// Pauses after failures.
const PAUSES: Pauses = Pauses::new(Duration::from_secs(1), Duration::from_secs(60));

/// Statuses of a stream that are recorded together.
const TOGETHER: usize = 100;

/// When channels ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Asking {
    /// How often for new statuses, where there is no stream.
    pub poll: Duration,
    /// How often, beside a stream, for what it left out; less than [`Channel::lookback`].
    pub recheck: Duration,
}

impl Default for Asking {
    /// 30 s, and 4 min.
    fn default() -> Self {
        Self { poll: Duration::from_secs(30), recheck: Duration::from_secs(240) }
    }
}

/// Why a channel stopped following, for now.
#[derive(Debug, thiserror::Error)]
enum Break {
    #[error(transparent)]
    Network(#[from] NetworkError),
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Its task is to end: there is no such channel, or no such account.
    #[error("{0}")]
    End(String),
}

/// What follows a channel.
#[derive(Debug)]
pub struct Follower {
    context: Arc<Context>,
    channel: Arc<Channel>,
    judge: Arc<Judge>,
    progress: Arc<Progress>,
    pages: PageSender,
    asking: Asking,
    backoff: Backoff,
}

/// Where a channel stands.
struct Position {
    began: StatusId,
    own: Option<Arc<str>>,
}

impl Follower {
    /// Of this channel.
    pub fn new(
        context: Arc<Context>,
        channel: Channel,
        progress: Arc<Progress>,
        pages: PageSender,
        asking: Asking,
    ) -> Self {
        let judge = Arc::new(Judge::new(channel.filters.clone()));
        Self { context, channel: Arc::new(channel), judge, progress, pages, asking, backoff: PAUSES.begin() }
    }

    /// The channel's name.
    pub fn name(&self) -> &str {
        &self.channel.name
    }

    fn enter(&self, phase: Phase) {
        self.progress.enter(phase, self.context.now());
    }

    fn in_time(&self, wait: Duration) -> galerna_model::Timestamp {
        self.context.now().plus_millis(i64::try_from(wait.as_millis()).unwrap_or(i64::MAX))
    }

    /// Follows until trying again does not help. Dropping it stops following, and loses nothing.
    pub async fn run(mut self) {
        let name = self.channel.name.clone();
        loop {
            self.enter(Phase::Connecting);
            let broken = match self.context.accounts.get(&self.channel.account) {
                Some(_) => self.follow_once().await,
                None => Break::End(format!("there is no account `{}`; add it", self.channel.account)),
            };
            match broken {
                Break::Network(NetworkError::Limited(wait)) => {
                    let until = self.in_time(wait);
                    if wait >= LONG_LIMIT {
                        self.context
                            .notify(&name, format!("the server allows no further call before {until}"))
                            .await;
                    }
                    self.enter(Phase::Limited { until });
                    tokio::time::sleep(wait).await;
                }
                Break::Network(error @ (NetworkError::NotFound(_) | NetworkError::Refused { .. })) => {
                    return self.end(error.to_string()).await;
                }
                Break::End(reason) => return self.end(reason).await,
                // Where it waits for another token.
                Break::Network(NetworkError::Revoked(_)) => {}
                Break::Network(NetworkError::Unavailable(cause)) => self.pause(cause).await,
                Break::Store(error) => self.pause(error.to_string()).await,
            }
        }
    }

    async fn end(&self, reason: String) {
        self.context.notify(&self.channel.name, format!("the channel has ended: {reason}")).await;
        self.enter(Phase::Failed { reason });
    }

    async fn pause(&mut self, cause: String) {
        self.progress.count_failure();
        let pause = self.backoff.pause();
        tracing::debug!(channel = self.channel.name, cause, "following failed and is tried again");
        self.enter(Phase::Retrying { cause, at: self.in_time(pause) });
        tokio::time::sleep(pause).await;
    }

    /// Follows with the token that there is, until something is in the way.
    async fn follow_once(&mut self) -> Break {
        let accounts = &self.context.accounts;
        // At once unless the token is known to be refused.
        let usable = match accounts.usable(&self.channel.account).now_or_never() {
            Some(usable) => usable,
            None => {
                self.enter(Phase::Revoked);
                let usable = accounts.usable(&self.channel.account).await;
                self.enter(Phase::Connecting);
                usable
            }
        };
        let Some((account, version)) = usable else {
            return Break::End(format!("there is no account `{}`; add it", self.channel.account));
        };
        let broken = match self.follow(&account).await {
            Ok(never) => match never {},
            Err(broken) => broken,
        };
        if let Break::Network(NetworkError::Revoked(message)) = &broken
            && self.context.accounts.revoke(&account.name, version, message)
        {
            let text = format!(
                "the server refuses the token of account `{}`: {message}; give it another one",
                account.name
            );
            self.context.notify(&account.name, text).await;
        }
        broken
    }

    async fn follow(&mut self, account: &Account) -> Result<Infallible, Break> {
        let own = self.own(account).await?;
        let (began, cursor) = self.position(account).await?;
        let position = Position { began, own };
        let network = Arc::clone(&self.context.network);
        let stream = network.stream(account, &self.channel.source).await?;
        self.enter(Phase::CatchingUp);
        let from = cursor.earlier(self.channel.lookback());
        let mut checked = self.catch_up(account, &position, from).await?;
        match stream {
            Some(mut stream) => loop {
                self.enter(Phase::Streaming);
                self.stream(stream.as_mut(), &position).await?;
                checked = self.catch_up(account, &position, checked).await?;
            },
            None => loop {
                self.enter(Phase::Polling);
                self.backoff.reset();
                tokio::time::sleep(self.asking.poll).await;
                checked = self.catch_up(account, &position, checked).await?;
            },
        }
    }

    /// The id on the followed server of the account that is posted with, so that its own posts are not repeated.
    async fn own(&self, account: &Account) -> Result<Option<Arc<str>>, Break> {
        let Some(repost) = &self.channel.repost else { return Ok(None) };
        let accounts = &self.context.accounts;
        let poster = accounts.get(&repost.account);
        let poster =
            poster.ok_or_else(|| Break::End(format!("there is no account `{}`; add it", repost.account)))?;
        if poster.server.trim_end_matches('/') != account.server.trim_end_matches('/') {
            return Ok(None);
        }
        match accounts.known(&*self.context.network, &poster).await {
            Ok(known) => Ok(Some(known.id.into())),
            // Then it cannot post, and this is told where it tries.
            Err(NetworkError::Revoked(_)) if poster.name != account.name => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Where the channel began, and what it had last. The first time, it begins here.
    async fn position(&self, account: &Account) -> Result<(StatusId, StatusId), Break> {
        let stored = self.context.store.channel(&self.channel.name).await?;
        let stored = stored.ok_or_else(|| Break::End("it was removed".to_owned()))?;
        if let (Some(began), Some(cursor)) = (stored.began, stored.cursor) {
            return Ok((began, cursor));
        }
        let first = match self.channel.begin {
            Begin::Oldest => StatusId::zero(),
            Begin::Now => {
                let latest = self.context.network.page(account, &self.channel.source, Ask::Latest(1)).await?;
                latest.into_iter().map(|status| status.id).max().unwrap_or_else(StatusId::zero)
            }
        };
        self.context.store.begin(&self.channel.name, first.clone()).await?;
        Ok((first.clone(), first))
    }

    /// Fetches all that came after a status. The last that was fetched, or where it began.
    async fn catch_up(
        &mut self,
        account: &Account,
        position: &Position,
        from: StatusId,
    ) -> Result<StatusId, Break> {
        let mut after = from.max(position.began.clone());
        loop {
            let ask = Ask::After(after.clone());
            let page = self.context.network.page(account, &self.channel.source, ask).await?;
            let Some(last) = page.iter().map(|status| status.id.clone()).max().filter(|last| *last > after)
            else {
                return Ok(after);
            };
            self.submit(page, position).await;
            after = last;
        }
    }

    /// Follows the stream until it is time to look for what it left out.
    async fn stream(&mut self, stream: &mut dyn EventStream, position: &Position) -> Result<(), Break> {
        let recheck = Instant::now() + self.asking.recheck;
        loop {
            let event = match tokio::time::timeout_at(recheck, stream.next()).await {
                Err(_) => return Ok(()),
                Ok(Ok(event)) => event,
                Ok(Err(error)) => {
                    self.progress.count_cut();
                    return Err(error.into());
                }
            };
            self.backoff.reset();
            let Event::Status(status) = event else { continue };
            let mut page = vec![*status];
            // What has come meanwhile is recorded with it; what breaks is heard of at the next call.
            let mut broken = None;
            while page.len() < TOGETHER && broken.is_none() {
                match stream.next().now_or_never() {
                    Some(Ok(Event::Status(status))) => page.push(*status),
                    Some(Ok(Event::Other)) => {}
                    Some(Err(error)) => broken = Some(error),
                    None => break,
                }
            }
            self.submit(page, position).await;
            if let Some(error) = broken {
                self.progress.count_cut();
                return Err(error.into());
            }
        }
    }

    /// Has statuses recorded, however often it takes.
    async fn submit(&mut self, mut statuses: Vec<Status>, position: &Position) {
        statuses.sort_by(|one, other| one.id.cmp(&other.id));
        let page = Page {
            channel: Arc::clone(&self.channel),
            judge: Arc::clone(&self.judge),
            progress: Arc::clone(&self.progress),
            own: position.own.clone(),
            began: position.began.clone(),
            statuses: Arc::new(statuses),
        };
        let phase = self.progress.phase();
        let mut backoff = PAUSES.begin();
        while let Err(fault) = self.pages.submit(page.clone()).await {
            self.progress.count_failure();
            let pause = backoff.pause();
            self.enter(Phase::Retrying { cause: describe(&fault), at: self.in_time(pause) });
            tokio::time::sleep(pause).await;
            self.enter(phase.clone());
        }
    }
}

fn describe(fault: &Fault) -> String {
    match fault.kind() {
        FaultKind::Unavailable => fault.reason().to_owned(),
        kind => format!("{} ({kind})", fault.reason()),
    }
}
