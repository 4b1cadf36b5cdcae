//! `galerna publish`: readings from a file to the queues.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use anyhow::{Context, anyhow, bail};
use bytes::Bytes;
use galerna_broker::{Broker, BrokerError};
use galerna_model::Account;
use galerna_model::envelope::{DecodeLimits, JSON_CONTENT_TYPE, decode_within};
use galerna_model::{
    AccountId, Clock, Decoded, Envelope, Message, QueueName, Reading, SourceId, SystemClock,
};
use galerna_storage::{QueueRecord, QueueState, Store};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::api_client::Api;
use crate::args::{FileForm, PublishArgs};
use crate::config::Config;
use crate::meters::{Post, Posts};
use crate::table::{print, print_json, table, tell, thousands};
use crate::{admin, backends};

/// Readings in one message.
const BATCH: usize = 200;
/// Messages confirmed together.
const WINDOW: usize = 256;
/// Wrong lines that are shown; the others are counted.
const SHOWN: usize = 10;

/// What was published, by account.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Summary {
    accounts: BTreeMap<AccountId, Sent>,
    /// Lines that could not be read, and readings that could not be published.
    refused: u64,
    /// What was wrong with the first of them.
    problems: Vec<String>,
    /// Rows whose value is empty: the meter has no reading there, so none was published.
    #[serde(default)]
    without_value: u64,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Sent {
    queue: String,
    messages: u64,
    readings: u64,
}

impl Summary {
    fn refuse(&mut self, how_many: usize, problem: String) {
        self.refused += how_many as u64;
        if self.problems.len() < SHOWN {
            self.problems.push(problem);
        }
    }

    /// The queues that got something.
    pub(crate) fn queues(&self) -> Vec<QueueName> {
        self.accounts.values().filter_map(|sent| QueueName::new(&sent.queue).ok()).collect()
    }

    /// Readings that the broker confirmed.
    pub(crate) fn readings(&self) -> u64 {
        self.accounts.values().map(|sent| sent.readings).sum()
    }

    fn add(&mut self, part: Self) {
        for (account, sent) in part.accounts {
            let all = self.accounts.entry(account).or_default();
            all.queue = sent.queue;
            all.messages += sent.messages;
            all.readings += sent.readings;
        }
        self.refused += part.refused;
        self.without_value += part.without_value;
        let room = SHOWN.saturating_sub(self.problems.len());
        self.problems.extend(part.problems.into_iter().take(room));
    }

    /// Prints what was done.
    ///
    /// # Errors
    /// When anything was refused, after printing.
    pub(crate) fn print(&self, json: bool) -> anyhow::Result<()> {
        if json {
            print_json(self)?;
        } else {
            let mut shown = table(&["account", "queue", "#messages", "#readings"]);
            for (account, sent) in &self.accounts {
                shown.add_row([
                    account.as_str(),
                    &sent.queue,
                    &thousands(sent.messages),
                    &thousands(sent.readings),
                ]);
            }
            print(shown)?;
            if self.without_value > 0 {
                let rows = if self.without_value == 1 { "row has" } else { "rows have" };
                print(format!(
                    "{} {rows} an empty value: the meter has no reading there, and none was published",
                    thousands(self.without_value)
                ))?;
            }
        }
        match self.refused {
            0 => Ok(()),
            n => bail!(
                "{} lines or readings were not published, {} readings were; what was wrong with the first:\n  {}",
                thousands(n),
                thousands(self.readings()),
                self.problems.join("\n  ")
            ),
        }
    }
}

/// Who owns what: the queues that there are, and the known sources.
pub(crate) struct Directory {
    queues: HashMap<AccountId, QueueName>,
    owners: HashMap<SourceId, AccountId>,
    /// Where to make what is missing; `None` when accounts come from elsewhere.
    makes: Option<Store>,
}

impl Directory {
    /// Reads it from the store. With `makes`, an account that has no queue gets one, named as the account: right where
    /// the store is the list of accounts.
    pub(crate) async fn read(store: &Store, makes: bool) -> galerna_storage::Result<Self> {
        let queues = store.queues.all().await?;
        let sources = store.sources.list().await?;
        Ok(Self {
            queues: queues
                .into_iter()
                .filter(|q| q.state != QueueState::Deleting)
                .map(|q| (q.account, q.queue))
                .collect(),
            owners: sources.into_iter().map(|s| (s.id, s.account)).collect(),
            makes: makes.then(|| store.clone()),
        })
    }

    /// The queue of an account; the inner error is the account's own.
    async fn queue(
        &mut self,
        account: &AccountId,
        broker: &dyn Broker,
    ) -> anyhow::Result<Result<QueueName, String>> {
        if let Some(queue) = self.queues.get(account) {
            return Ok(Ok(queue.clone()));
        }
        let Some(store) = &self.makes else {
            let mut known: Vec<&str> = self.queues.keys().map(AccountId::as_str).collect();
            known.sort_unstable();
            let more = known.len().saturating_sub(SHOWN);
            known.truncate(SHOWN);
            let tail = if more > 0 { format!(" and {more} more") } else { String::new() };
            let known = if known.is_empty() { "none yet".to_owned() } else { known.join(", ") };
            return Ok(Err(format!("account `{account}` has no queue; those that have: {known}{tail}")));
        };
        let queue = match QueueName::new(account.as_str()) {
            Ok(queue) => queue,
            Err(e) => return Ok(Err(e.to_string())),
        };
        let new =
            Account { id: account.clone(), name: account.to_string(), queue: queue.clone(), active: true };
        store.accounts.put(&[new]).await.context("cannot make the account")?;
        broker.declare(&queue).await.context("cannot make the account's queue")?;
        let record = QueueRecord::new(queue.clone(), account.clone(), SystemClock.now());
        store.queues.create(&[record]).await.context("cannot make the queue's state")?;
        tracing::info!(%account, "a new account has its queue");
        self.queues.insert(account.clone(), queue.clone());
        Ok(Ok(queue))
    }
}

/// Whose readings a file holds, when the file does not say.
#[derive(Debug, Clone, Default)]
pub(crate) struct Owner {
    pub(crate) account: Option<AccountId>,
    pub(crate) source: Option<SourceId>,
}

/// Takes readings as they come out of a file.
pub(crate) enum Target<'a> {
    /// To the queues of a broker that this process has open.
    Queues(Box<Outgoing<'a>>),
    /// To the process that has the embedded broker open, over its API.
    Api(Upload<'a>),
}

impl Target<'_> {
    async fn send(
        &mut self,
        account: Option<AccountId>,
        source: Option<SourceId>,
        readings: Vec<Reading>,
    ) -> anyhow::Result<()> {
        match self {
            Self::Queues(queues) => queues.send(account, source, readings).await,
            Self::Api(upload) => upload.send(account, source, readings).await,
        }
    }

    fn refuse(&mut self, problem: String) {
        self.summary().refuse(1, problem);
    }

    fn summary(&mut self) -> &mut Summary {
        match self {
            Self::Queues(queues) => &mut queues.summary,
            Self::Api(upload) => &mut upload.summary,
        }
    }

    async fn flush(&mut self) -> anyhow::Result<()> {
        match self {
            Self::Queues(queues) => queues.flush().await,
            Self::Api(upload) => upload.flush().await,
        }
    }
}

/// Reads the file and publishes it. What was published is told also when it ends before the file does.
///
/// # Errors
/// When the file cannot be read or the broker does not confirm. Lines that are wrong are counted, and the rest is published.
pub(crate) async fn publish(args: &PublishArgs, mut target: Target<'_>) -> (Summary, anyhow::Result<()>) {
    let ended = read(args, &mut target).await;
    (std::mem::take(target.summary()), ended)
}

async fn read(args: &PublishArgs, target: &mut Target<'_>) -> anyhow::Result<()> {
    let input = open(&args.file)?;
    match form(args)? {
        FileForm::Csv => {
            let mut posts = Posts::open(input).context("cannot read the file as CSV")?;
            while let Some(post) = posts.next() {
                target.summary().without_value = posts.gaps();
                match post {
                    Ok(Post { account, source, readings }) => {
                        target.send(Some(account), Some(source), readings).await?;
                    }
                    Err(e) => target.refuse(e.to_string()),
                }
            }
            target.summary().without_value = posts.gaps();
        }
        FileForm::Ndjson => lines(input, target).await?,
        FileForm::Json => {
            let mut text = Vec::new();
            let mut input = input;
            input.read_to_end(&mut text).context("cannot read the file")?;
            document(text, "the file", target).await?;
        }
    }
    target.flush().await
}

/// Runs the command.
pub(crate) async fn run(args: &PublishArgs, config: &Config) -> anyhow::Result<()> {
    let owner = Owner {
        account: args.account.as_deref().map(AccountId::new).transpose()?,
        source: args.source.as_deref().map(SourceId::new).transpose()?,
    };
    let api = Api::new(config.text("dispatcher.url"), config.optional("api.token"))?;
    let in_process = (backends::broker_is_embedded(config), backends::store_is_embedded(config));
    let (summary, ended) = match in_process {
        (false, false) => {
            let (broker, store) = (backends::broker(config).await?, backends::store(config).await?);
            let directory = Directory::read(&store, config.text("maintainer.accounts") == "store").await?;
            let name = args.file.file_name().map_or("stdin".to_owned(), |n| n.to_string_lossy().into_owned());
            let outgoing = Outgoing::new(&*broker, directory, owner, args.plain_json, &name);
            let (summary, ended) = publish(args, Target::Queues(Box::new(outgoing))).await;
            // Only a hint: without it the queues are found at the next count.
            drop(api.post("/queue/hint", &json!({ "queues": summary.queues() })).await);
            (summary, ended)
        }
        _ => publish(args, Target::Api(Upload::new(&api, owner, args.plain_json))).await,
    };
    let Err(cause) = ended else { return summary.print(args.json) };
    if summary.readings() == 0 && summary.refused == 0 {
        return Err(cause);
    }
    // What is wrong with some lines matters less than that the rest was not read.
    if let Err(refused) = summary.print(args.json) {
        tell(refused);
    }
    Err(cause.context(format!(
        "not all of it was published: {} readings were, for certain, and publishing the file again is harmless",
        thousands(summary.readings())
    )))
}

/// Publishes NDJSON that came over the API.
///
/// # Errors
/// When the broker does not confirm; what was published until then is told all the same.
pub(crate) async fn publish_lines(text: &[u8], queues: Outgoing<'_>) -> (Summary, anyhow::Result<()>) {
    let mut target = Target::Queues(Box::new(queues));
    let ended = match lines(text, &mut target).await {
        Ok(()) => target.flush().await,
        Err(e) => Err(e),
    };
    (std::mem::take(target.summary()), ended)
}

async fn lines(input: impl BufRead, target: &mut Target<'_>) -> anyhow::Result<()> {
    for (number, line) in input.split(b'\n').enumerate() {
        let line = line.with_context(|| format!("cannot read line {}", number + 1))?;
        if !line.trim_ascii().is_empty() {
            document(line, &format!("line {}", number + 1), target).await?;
        }
    }
    Ok(())
}

/// Takes a JSON document in any of the forms that queues take.
async fn document(text: Vec<u8>, place: &str, target: &mut Target<'_>) -> anyhow::Result<()> {
    let limits = DecodeLimits { message_bytes: 1 << 30, readings: 10_000_000, ..DecodeLimits::default() };
    let message =
        Message { body: text.into(), content_type: JSON_CONTENT_TYPE.to_owned(), id: String::new() };
    match decode_within(&message, &limits) {
        Ok(Decoded { account, source, readings, bad, .. }) => {
            for bad in bad {
                target.refuse(format!("{place}, reading {}: {}", bad.index + 1, bad.reason));
            }
            let readings = readings.into_iter().map(|(_, reading)| reading).collect();
            target.send(account, source, readings).await
        }
        Err(e) => {
            target.refuse(format!("{place}: {e}"));
            Ok(())
        }
    }
}

/// Opens a file, unpacking it when it is gzipped, whatever it is called.
fn open(path: &Path) -> anyhow::Result<Box<dyn BufRead + Send>> {
    let raw: Box<dyn Read + Send> = if path.as_os_str() == "-" {
        Box::new(std::io::stdin())
    } else {
        Box::new(std::fs::File::open(path).with_context(|| format!("cannot open {}", path.display()))?)
    };
    let mut raw = BufReader::with_capacity(1 << 16, raw);
    let start = raw.fill_buf().with_context(|| format!("cannot read {}", path.display()))?;
    if start.starts_with(&[0x1f, 0x8b]) {
        Ok(Box::new(BufReader::with_capacity(1 << 16, flate2::read::MultiGzDecoder::new(raw))))
    } else {
        Ok(Box::new(raw))
    }
}

fn form(args: &PublishArgs) -> anyhow::Result<FileForm> {
    if let Some(form) = args.form {
        return Ok(form);
    }
    let name = args.file.to_string_lossy().to_lowercase();
    match name.trim_end_matches(".gz").rsplit('.').next() {
        Some("csv") => Ok(FileForm::Csv),
        Some("ndjson" | "jsonl") => Ok(FileForm::Ndjson),
        Some("json") => Ok(FileForm::Json),
        _ => bail!("`{}` does not tell its form; add --form ndjson, json or csv", args.file.display()),
    }
}

/// Readings on their way to the queues.
pub(crate) struct Outgoing<'a> {
    broker: &'a dyn Broker,
    directory: Directory,
    owner: Owner,
    plain_json: bool,
    window: Vec<(QueueName, Message)>,
    /// Account and readings of each message of the window.
    noted: Vec<(AccountId, u64)>,
    summary: Summary,
    /// Begins the ids of the messages.
    name: String,
    made: u64,
}

impl<'a> Outgoing<'a> {
    pub(crate) fn new(
        broker: &'a dyn Broker,
        directory: Directory,
        owner: Owner,
        plain_json: bool,
        name: &str,
    ) -> Self {
        Self {
            broker,
            directory,
            owner,
            plain_json,
            window: Vec::with_capacity(WINDOW),
            noted: Vec::with_capacity(WINDOW),
            summary: Summary::default(),
            name: name.replace(char::is_whitespace, "_"),
            made: 0,
        }
    }

    /// Whose readings they are: as they say, as the caller said, or by their source.
    fn owner(
        &self,
        account: Option<AccountId>,
        source: Option<SourceId>,
    ) -> Result<(AccountId, SourceId), String> {
        let account = account.or_else(|| self.owner.account.clone());
        let source = source.or_else(|| self.owner.source.clone());
        let account = match (account, &source) {
            (Some(account), _) => account,
            (None, Some(source)) => match self.directory.owners.get(source) {
                Some(owner) => owner.clone(),
                // Where nobody registered sources, an account's one concentrator has the account's name.
                None => AccountId::new(source.as_str()).map_err(|e| e.to_string())?,
            },
            (None, None) => return Err("the readings name no account; add --account".to_owned()),
        };
        let source = match source {
            Some(source) => source,
            None => SourceId::new(account.as_str()).map_err(|e| e.to_string())?,
        };
        Ok((account, source))
    }

    async fn send(
        &mut self,
        account: Option<AccountId>,
        source: Option<SourceId>,
        readings: Vec<Reading>,
    ) -> anyhow::Result<()> {
        if readings.is_empty() {
            return Ok(());
        }
        let found = match self.owner(account, source) {
            Ok((account, source)) => {
                self.directory.queue(&account, self.broker).await?.map(|queue| (account, source, queue))
            }
            Err(problem) => Err(problem),
        };
        let (account, source, queue) = match found {
            Ok(found) => found,
            Err(problem) => {
                let did = &readings[0].did;
                let problem = format!("{} readings, the first of device `{did}`: {problem}", readings.len());
                self.summary.refuse(readings.len(), problem);
                return Ok(());
            }
        };
        for batch in readings.chunks(BATCH) {
            self.made += 1;
            let envelope = Envelope {
                id: format!("{}-{}-{}", self.name, std::process::id(), self.made),
                account: account.clone(),
                source: source.clone(),
                received: SystemClock.now(),
                readings: batch.to_vec(),
            };
            let message = if self.plain_json {
                let Envelope { id, received, readings, .. } = &envelope;
                let body = json!({ "id": id, "account": account, "source": source, "received": received, "readings": readings });
                Message {
                    body: Bytes::from(body.to_string()),
                    content_type: JSON_CONTENT_TYPE.to_owned(),
                    id: id.clone(),
                }
            } else {
                envelope.encode()
            };
            self.window.push((queue.clone(), message));
            self.noted.push((account.clone(), batch.len() as u64));
            if self.window.len() >= WINDOW {
                self.flush().await?;
            }
        }
        Ok(())
    }

    async fn flush(&mut self) -> anyhow::Result<()> {
        if self.window.is_empty() {
            return Ok(());
        }
        let queues: Vec<String> = self.window.iter().map(|(queue, _)| queue.to_string()).collect();
        let window = std::mem::replace(&mut self.window, Vec::with_capacity(WINDOW));
        let ended = self.broker.publish(window).await;
        let unconfirmed: HashSet<usize> = match &ended {
            Ok(()) => HashSet::new(),
            Err(BrokerError::Unconfirmed { unconfirmed, .. }) => unconfirmed.iter().copied().collect(),
            // Nothing is known of any of them.
            Err(_) => (0..queues.len()).collect(),
        };
        for (i, ((account, readings), queue)) in self.noted.drain(..).zip(queues).enumerate() {
            if unconfirmed.contains(&i) {
                continue;
            }
            let sent = self.summary.accounts.entry(account).or_default();
            sent.queue = queue;
            sent.messages += 1;
            sent.readings += readings;
        }
        ended.map_err(|e| anyhow!(admin::explained(&e)))
    }
}

/// Readings on their way to the process that has the broker.
pub(crate) struct Upload<'a> {
    api: &'a Api,
    owner: Owner,
    plain_json: bool,
    lines: Vec<u8>,
    summary: Summary,
}

/// Bytes in one request, about.
const REQUEST: usize = 1 << 20;

impl<'a> Upload<'a> {
    pub(crate) fn new(api: &'a Api, owner: Owner, plain_json: bool) -> Self {
        Self { api, owner, plain_json, lines: Vec::new(), summary: Summary::default() }
    }

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
        for readings in readings.chunks(BATCH) {
            let line = Line { account: account.clone(), source: source.clone(), readings };
            serde_json::to_writer(&mut self.lines, &line)?;
            self.lines.push(b'\n');
            if self.lines.len() >= REQUEST {
                self.flush().await?;
            }
        }
        Ok(())
    }

    async fn flush(&mut self) -> anyhow::Result<()> {
        if self.lines.is_empty() {
            return Ok(());
        }
        let path = if self.plain_json { "/publish?plain_json=true" } else { "/publish" };
        let answer = self.api.post_lines(path, std::mem::take(&mut self.lines)).await?;
        let part: Summary =
            serde_json::from_value(answer).context("the answer to /publish has another form")?;
        self.summary.add(part);
        Ok(())
    }
}
