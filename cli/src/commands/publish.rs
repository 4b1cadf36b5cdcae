//! `galerna publish`: readings from a file to the queues.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use anyhow::{Context, bail};
use async_trait::async_trait;
use galerna_demo::meters::{Post, Posts};
use galerna_model::{AccountId, Reading, SourceId};
use galerna_server::backends;
use galerna_server::publish::{BATCH, Directory, Outgoing, Owner, Summary, Target, document, lines};
use galerna_settings::Settings;
use galerna_terminal::{eprint, print, print_json, table, thousands};
use serde::Serialize;
use serde_json::json;

use crate::api_client::Api;
use crate::args::{FileForm, PublishArgs};

/// Reads the file and publishes it. What was published is told also when it ends before the file does.
///
/// # Errors
/// When the file cannot be read or the broker does not confirm. Lines that are wrong are counted, and the rest is published.
pub(crate) async fn publish(args: &PublishArgs, target: &mut dyn Target) -> (Summary, anyhow::Result<()>) {
    let ended = read(args, target).await;
    (std::mem::take(target.summary()), ended)
}

async fn read(args: &PublishArgs, target: &mut dyn Target) -> anyhow::Result<()> {
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
                    Err(e) => target.summary().refuse(1, e.to_string()),
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
pub(crate) async fn run(args: &PublishArgs, settings: &Settings) -> anyhow::Result<()> {
    let owner = Owner {
        account: args.account.as_deref().map(AccountId::new).transpose()?,
        source: args.source.as_deref().map(SourceId::new).transpose()?,
    };
    let api = Api::new(&settings.dispatcher.url, settings.api.token.as_deref())?;
    let in_process = (settings.broker.is_embedded(), settings.store.is_embedded());
    let (summary, ended) = match in_process {
        (false, false) => {
            let (broker, store) = (backends::broker(settings).await?, backends::store(settings).await?);
            let directory = Directory::read(&store, settings.maintainer.accounts_are_stored()).await?;
            let name = args.file.file_name().map_or("stdin".to_owned(), |n| n.to_string_lossy().into_owned());
            let mut outgoing = Outgoing::new(&*broker, directory, owner, args.plain_json, &name);
            let (summary, ended) = publish(args, &mut outgoing).await;
            // Only a hint: without it the queues are found at the next count.
            drop(api.post("/queue/hint", &json!({ "queues": summary.queues() })).await);
            (summary, ended)
        }
        _ => publish(args, &mut Upload::new(&api, owner, args.plain_json)).await,
    };
    let Err(cause) = ended else { return print_summary(&summary, args.json) };
    if summary.readings() == 0 && summary.refused == 0 {
        return Err(cause);
    }
    // What is wrong with some lines matters less than that the rest was not read.
    if let Err(refused) = print_summary(&summary, args.json) {
        eprint(refused);
    }
    Err(cause.context(format!(
        "not all of it was published: {} readings were, for certain, and publishing the file again is harmless",
        thousands(summary.readings())
    )))
}

/// Prints what was done.
///
/// # Errors
/// When anything was refused, after printing.
fn print_summary(summary: &Summary, json: bool) -> anyhow::Result<()> {
    if json {
        print_json(summary)?;
    } else {
        let mut shown = table(&["account", "queue", "#messages", "#readings"]);
        for (account, sent) in &summary.accounts {
            shown.add_row([
                account.as_str(),
                &sent.queue,
                &thousands(sent.messages),
                &thousands(sent.readings),
            ]);
        }
        print(shown)?;
        if summary.without_value > 0 {
            let rows = if summary.without_value == 1 { "row has" } else { "rows have" };
            print(format!(
                "{} {rows} an empty value: the meter has no reading there, and none was published",
                thousands(summary.without_value)
            ))?;
        }
    }
    match summary.refused {
        0 => Ok(()),
        n => bail!(
            "{} lines or readings were not published, {} readings were; what was wrong with the first:\n  {}",
            thousands(n),
            thousands(summary.readings()),
            summary.problems.join("\n  ")
        ),
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

    fn summary(&mut self) -> &mut Summary {
        &mut self.summary
    }
}
