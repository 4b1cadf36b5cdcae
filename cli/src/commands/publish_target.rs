//! Where `galerna publish` sends what it read.

use anyhow::Context;
use async_trait::async_trait;
use galerna_model::{AccountId, Reading, SourceId};
use galerna_server::intervals::{MeterValues, Shown, WorkerCheck, publish_values, rehearse_values};
use galerna_server::publish::{BATCH, Outgoing, Owner, Summary, Target};
use galerna_storage::Store;
use galerna_terminal::eprint;
use serde::Serialize;

use crate::api_client::{Api, Refused};

/// Bytes in one request, about.
const REQUEST: usize = 1 << 20;
/// Values of meters that are worked on together.
const VALUES: usize = 100_000;
/// Readings that a dry run shows.
const SHOWN: usize = 10;

/// Takes readings, and values of meters, which become readings where the store is.
#[async_trait]
pub(crate) trait Destination: Target {
    /// Takes values of one meter. It may keep them until [`flush`](Target::flush).
    ///
    /// # Errors
    /// When they cannot be sent.
    async fn values(&mut self, values: MeterValues) -> anyhow::Result<()>;
}

/// Notes readings that would be published.
fn rehearse(
    summary: &mut Summary,
    account: Option<AccountId>,
    source: Option<SourceId>,
    readings: Vec<Reading>,
) -> anyhow::Result<()> {
    let account = match (account, &source) {
        (Some(account), _) => account,
        (None, Some(source)) => AccountId::new(source.as_str())?,
        (None, None) => {
            summary.refuse(readings.len(), "the readings name no account; add --account".to_owned());
            return Ok(());
        }
    };
    let source = match source {
        Some(source) => source,
        None => SourceId::new(account.as_str())?,
    };
    let count = summary.imported.would_publish.get_or_insert(0);
    *count += readings.len() as u64;
    let room = SHOWN.saturating_sub(summary.imported.first.len());
    let shown = readings.into_iter().take(room);
    summary.imported.first.extend(shown.map(|reading| Shown {
        account: account.clone(),
        source: source.clone(),
        reading,
    }));
    Ok(())
}

/// To the queues of a broker and by a store that this process has open.
pub(crate) struct Direct<'a> {
    outgoing: Outgoing<'a>,
    owner: Owner,
    store: Store,
    check: WorkerCheck,
    dry_run: bool,
    waiting: Vec<MeterValues>,
}

impl<'a> Direct<'a> {
    pub(crate) fn new(outgoing: Outgoing<'a>, store: Store, check: WorkerCheck, dry_run: bool) -> Self {
        let owner = outgoing.default_owner().clone();
        Self { outgoing, owner, store, check, dry_run, waiting: Vec::new() }
    }

    async fn send_values(&mut self) -> anyhow::Result<()> {
        let waiting = std::mem::take(&mut self.waiting);
        if waiting.is_empty() {
            return Ok(());
        }
        if self.dry_run {
            let part = rehearse_values(&waiting, &self.store, &self.check).await?;
            self.outgoing.summary().add(part);
            return Ok(());
        }
        publish_values(&waiting, &self.store, &self.check, &mut self.outgoing).await
    }
}

#[async_trait]
impl Target for Direct<'_> {
    async fn send(
        &mut self,
        account: Option<AccountId>,
        source: Option<SourceId>,
        readings: Vec<Reading>,
    ) -> anyhow::Result<()> {
        if self.dry_run {
            let account = account.or_else(|| self.owner.account.clone());
            let source = source.or_else(|| self.owner.source.clone());
            return rehearse(self.outgoing.summary(), account, source, readings);
        }
        self.outgoing.send(account, source, readings).await
    }

    async fn flush(&mut self) -> anyhow::Result<()> {
        self.send_values().await?;
        self.outgoing.flush().await
    }

    fn summary(&mut self) -> &mut Summary {
        self.outgoing.summary()
    }
}

#[async_trait]
impl Destination for Direct<'_> {
    async fn values(&mut self, values: MeterValues) -> anyhow::Result<()> {
        let count = |waiting: &[MeterValues]| waiting.iter().map(|meter| meter.values.len()).sum::<usize>();
        self.waiting.push(values);
        if count(&self.waiting) >= VALUES { self.send_values().await } else { Ok(()) }
    }
}

/// To the process that has the broker, over its API.
pub(crate) struct Upload<'a> {
    api: &'a Api,
    owner: Owner,
    plain_json: bool,
    dry_run: bool,
    check: WorkerCheck,
    lines: Vec<u8>,
    meters: Vec<u8>,
    /// What is in `meters`, for a dry run that nobody answers.
    waiting: Vec<MeterValues>,
    summary: Summary,
}

impl<'a> Upload<'a> {
    pub(crate) fn new(
        api: &'a Api,
        owner: Owner,
        plain_json: bool,
        dry_run: bool,
        check: WorkerCheck,
    ) -> Self {
        Self {
            api,
            owner,
            plain_json,
            dry_run,
            check,
            lines: Vec::new(),
            meters: Vec::new(),
            waiting: Vec::new(),
            summary: Summary::default(),
        }
    }

    async fn post(&mut self, path: &str, lines: Vec<u8>) -> anyhow::Result<()> {
        let answer = self.api.post_lines(path, lines).await?;
        let part: Summary = serde_json::from_value(answer)
            .with_context(|| format!("the answer to {path} has another form"))?;
        self.summary.add(part);
        Ok(())
    }

    async fn send_values(&mut self) -> anyhow::Result<()> {
        let waiting = std::mem::take(&mut self.waiting);
        if self.meters.is_empty() {
            return Ok(());
        }
        let lines = std::mem::take(&mut self.meters);
        let path = match (self.dry_run, self.plain_json) {
            (true, _) => "/publish/meters?dry_run=true",
            (false, true) => "/publish/meters?plain_json=true",
            (false, false) => "/publish/meters",
        };
        match self.post(path, lines).await {
            Err(e) if self.dry_run && e.downcast_ref::<Refused>().is_none() => {
                eprint(format!("{e:#}\ncounters are shown as for meters of which nothing is stored"));
                let empty = galerna_storage::sqlite::in_memory()?;
                let part = rehearse_values(&waiting, &empty, &self.check).await?;
                self.summary.add(part);
                Ok(())
            }
            ended => ended,
        }
    }

    async fn send_lines(&mut self) -> anyhow::Result<()> {
        if self.lines.is_empty() {
            return Ok(());
        }
        let path = if self.plain_json { "/publish?plain_json=true" } else { "/publish" };
        let lines = std::mem::take(&mut self.lines);
        self.post(path, lines).await
    }
}

#[async_trait]
impl Target for Upload<'_> {
    async fn send(
        &mut self,
        account: Option<AccountId>,
        source: Option<SourceId>,
        readings: Vec<Reading>,
    ) -> anyhow::Result<()> {
        #[derive(Serialize)]
        struct Line<'a> {
            #[serde(skip_serializing_if = "Option::is_none")]
            account: Option<AccountId>,
            #[serde(skip_serializing_if = "Option::is_none")]
            source: Option<SourceId>,
            readings: &'a [Reading],
        }
        let account = account.or_else(|| self.owner.account.clone());
        let source = source.or_else(|| self.owner.source.clone());
        if self.dry_run {
            return rehearse(&mut self.summary, account, source, readings);
        }
        for readings in readings.chunks(BATCH) {
            let line = Line { account: account.clone(), source: source.clone(), readings };
            serde_json::to_writer(&mut self.lines, &line)?;
            self.lines.push(b'\n');
            if self.lines.len() >= REQUEST {
                self.send_lines().await?;
            }
        }
        Ok(())
    }

    async fn flush(&mut self) -> anyhow::Result<()> {
        self.send_values().await?;
        self.send_lines().await
    }

    fn summary(&mut self) -> &mut Summary {
        &mut self.summary
    }
}

#[async_trait]
impl Destination for Upload<'_> {
    async fn values(&mut self, values: MeterValues) -> anyhow::Result<()> {
        serde_json::to_writer(&mut self.meters, &values)?;
        self.meters.push(b'\n');
        if self.dry_run {
            self.waiting.push(values);
        }
        if self.meters.len() >= REQUEST { self.send_values().await } else { Ok(()) }
    }
}
