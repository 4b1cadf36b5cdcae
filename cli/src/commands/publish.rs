//! `galerna publish`: readings from a file to the queues.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use anyhow::{Context, bail};
use galerna_import::{Found, Import, Mapping, Options};
use galerna_model::{AccountId, SourceId};
use galerna_server::backends;
use galerna_server::intervals::{MeterValues, WorkerCheck};
use galerna_server::modules::validator;
use galerna_server::publish::{Directory, Outgoing, Owner, Summary, document, lines};
use galerna_settings::Settings;
use galerna_terminal::{eprint, print, print_json, table, thousands};
use serde_json::json;

use crate::api_client::Api;
use crate::args::{FileForm, PublishArgs};
use crate::commands::publish_target::{Destination, Direct, Upload};

/// Values of a meter that are sent together: about a year of quarter hours.
const TOGETHER: usize = 35_040;
/// How much of a JSON file is looked at to tell what it holds.
const LOOKED_AT: usize = 1 << 16;

/// Reads the file and publishes it. What was published is told also when it ends before the file does.
///
/// # Errors
/// When the file cannot be read or the broker does not confirm. Lines that are wrong are counted, and the rest is published.
pub(crate) async fn publish(
    args: &PublishArgs,
    target: &mut dyn Destination,
) -> (Summary, Option<Found>, anyhow::Result<()>) {
    let mut found = None;
    let ended = read(args, target, &mut found).await;
    (std::mem::take(target.summary()), found, ended)
}

async fn read(
    args: &PublishArgs,
    target: &mut dyn Destination,
    found: &mut Option<Found>,
) -> anyhow::Result<()> {
    let mut input = open(&args.file)?;
    let form = form(args, &mut input)?;
    let whole = |mut input: Box<dyn BufRead + Send>| {
        let mut bytes = Vec::new();
        input.read_to_end(&mut bytes).map(|_| bytes).context("cannot read the file")
    };
    match form {
        FileForm::Csv | FileForm::Xml => {
            let bytes = whole(input)?;
            let import = Import::open(bytes, &options(args)?)?;
            *found = Some(import.found().clone());
            meters(&import, args, target).await?;
        }
        FileForm::Ndjson => lines(input, target).await?,
        FileForm::Json => document(whole(input)?, "the file", target).await?,
    }
    target.flush().await
}

/// What the command line says of the file.
fn options(args: &PublishArgs) -> anyhow::Result<Options> {
    let mut options = Options::default();
    if let Some(name) = &args.account {
        options = options.with_account(name)?;
    }
    if let Some(meter) = &args.meter {
        options = options.with_meter(meter)?;
    }
    if let Some(interval) = &args.interval {
        options = options.with_interval(interval)?;
    }
    if let Some(zone) = &args.time_zone {
        options = options.with_time_zone(zone)?;
    }
    if let Some(order) = &args.date_order {
        options = options.with_date_order(order)?;
    }
    options.mapping = args.mapping.as_deref().map(Mapping::named_or_file).transpose()?;
    options.utility.clone_from(&args.utility);
    options.unit.clone_from(&args.unit);
    options.encoding.clone_from(&args.encoding);
    options.delimiter = args.delimiter;
    options.decimal = args.decimal;
    Ok(options)
}

/// Sends the values of all meters, and tells what is wrong with the others.
async fn meters(import: &Import, args: &PublishArgs, target: &mut dyn Destination) -> anyhow::Result<()> {
    let source = args.source.as_deref().map(SourceId::for_customer).transpose()?;
    let read = import.meters();
    let summary = target.summary();
    for error in &read.errors {
        summary.refuse(usize::try_from(error.rows).unwrap_or(usize::MAX), error.to_string());
    }
    summary.without_value += read.without_value;
    summary.imported.duplicates += read.duplicates;
    summary.imported.skipped += read.skipped;
    for ((account, meter), values) in read.values {
        for values in values.chunks(TOGETHER) {
            let values = values.to_vec();
            let (account, meter, source) = (account.clone(), meter.clone(), source.clone());
            target.values(MeterValues { account, source, meter, values }).await?;
        }
    }
    Ok(())
}

/// Runs the command.
pub(crate) async fn run(args: &PublishArgs, settings: &Settings) -> anyhow::Result<()> {
    let owner = Owner {
        account: args.account.as_deref().map(AccountId::for_customer).transpose()?,
        source: args.source.as_deref().map(SourceId::for_customer).transpose()?,
    };
    let api = Api::new(&settings.dispatcher.url, settings.api.token.as_deref())?;
    let in_process = (settings.broker.is_embedded(), settings.store.is_embedded());
    let (summary, found, ended) = match in_process {
        (false, false) => {
            let (broker, store) = (backends::broker(settings).await?, backends::store(settings).await?);
            let directory = Directory::read(&store, settings.maintainer.accounts_are_stored()).await?;
            let name = args.file.file_name().map_or("stdin".to_owned(), |n| n.to_string_lossy().into_owned());
            let outgoing = Outgoing::new(&*broker, directory, owner, args.plain_json, &name);
            let check = WorkerCheck::new(validator(settings)?);
            let mut direct = Direct::new(outgoing, store, check, args.dry_run);
            let (summary, found, ended) = publish(args, &mut direct).await;
            if !args.dry_run {
                // Only a hint: without it the queues are found at the next count.
                drop(api.post("/queue/hint", &json!({ "queues": summary.queues() })).await);
            }
            (summary, found, ended)
        }
        _ => {
            let check = WorkerCheck::new(validator(settings)?);
            publish(args, &mut Upload::new(&api, owner, args.plain_json, args.dry_run, check)).await
        }
    };
    let Err(cause) = ended else { return print_summary(&summary, found.as_ref(), args) };
    if summary.readings() == 0 && summary.refused == 0 {
        return Err(cause);
    }
    // What is wrong with some lines matters less than that the rest was not read.
    if let Err(refused) = print_summary(&summary, found.as_ref(), args) {
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
fn print_summary(summary: &Summary, found: Option<&Found>, args: &PublishArgs) -> anyhow::Result<()> {
    if args.json {
        print_json(summary)?;
    } else {
        if let Some(found) = found {
            print(read_as(found))?;
        }
        if args.dry_run {
            print_rehearsed(summary)?;
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
        }
        print_notes(summary)?;
    }
    match summary.refused {
        0 => Ok(()),
        n if args.dry_run => bail!(
            "{} lines or readings would not be published; what is wrong with the first:\n  {}",
            thousands(n),
            summary.problems.join("\n  ")
        ),
        n => bail!(
            "{} lines or readings were not published, {} readings were; what was wrong with the first:\n  {}",
            thousands(n),
            thousands(summary.readings()),
            summary.problems.join("\n  ")
        ),
    }
}

/// What the file was taken for.
fn read_as(found: &Found) -> String {
    let mut text = format!("read as `{}`, {}", found.mapping, found.encoding);
    if let Some(delimiter) = &found.delimiter {
        text += &format!(", separated by {delimiter}");
    }
    if let Some(line) = found.header_line.filter(|line| *line > 1) {
        text += &format!(", the header on line {line}");
    }
    if found.decimal_comma {
        text += ", decimals after a comma";
    }
    text
}

fn print_rehearsed(summary: &Summary) -> anyhow::Result<()> {
    let mut shown = table(&["account", "source", "device", "time", "values"]);
    for first in &summary.imported.first {
        let values: Vec<String> = first.reading.values.iter().map(|m| format!("{}={}", m.p, m.v)).collect();
        shown.add_row([
            first.account.as_str(),
            first.source.as_str(),
            &first.reading.did,
            &first.reading.ts.to_string(),
            &values.join(" "),
        ]);
    }
    print(shown)?;
    let count = summary.imported.would_publish.unwrap_or(0);
    print(format!("{} readings would be published; nothing was", thousands(count)))?;
    Ok(())
}

/// What is worth knowing beside the readings published.
fn print_notes(summary: &Summary) -> anyhow::Result<()> {
    let imported = &summary.imported;
    let value = if summary.without_value == 1 { "row has" } else { "rows have" };
    let notes = [
        (
            summary.without_value,
            format!("{value} an empty value: the meter has no reading there, and none was published"),
        ),
        (imported.duplicates, "rows say again what another row says; each counts once".to_owned()),
        (imported.skipped, "rows are of a kind that the mapping leaves out".to_owned()),
        (imported.known, "values were imported before; they add nothing".to_owned()),
        (
            imported.stored,
            "values are of times at which another sender stored the counter; they add nothing".to_owned(),
        ),
        (
            imported.revised,
            "readings published before were published anew, because their counters moved".to_owned(),
        ),
        (
            imported.without_length,
            "values have no mean power, because nothing says how long their interval is; say --interval"
                .to_owned(),
        ),
        (imported.corrected, "values differ from those imported before and replace them:".to_owned()),
    ];
    for (count, note) in notes {
        if count > 0 {
            print(format!("{} {note}", thousands(count)))?;
        }
    }
    for known in &imported.corrections {
        let correction = &known.correction;
        print(format!(
            "  line {}: meter `{}` of {} at {}: {} was {}, is {}",
            correction.line,
            known.meter,
            known.account,
            correction.ts,
            correction.parameter,
            correction.before,
            correction.after
        ))?;
    }
    Ok(())
}

/// Opens a file, unpacking it when it is gzipped, whatever it is called.
fn open(path: &Path) -> anyhow::Result<Box<dyn BufRead + Send>> {
    let raw: Box<dyn Read + Send> = if path.as_os_str() == "-" {
        Box::new(std::io::stdin())
    } else {
        Box::new(std::fs::File::open(path).with_context(|| format!("cannot open {}", path.display()))?)
    };
    let mut raw = BufReader::with_capacity(LOOKED_AT, raw);
    let start = raw.fill_buf().with_context(|| format!("cannot read {}", path.display()))?;
    if start.starts_with(&[0x1f, 0x8b]) {
        Ok(Box::new(BufReader::with_capacity(LOOKED_AT, flate2::read::MultiGzDecoder::new(raw))))
    } else {
        Ok(Box::new(raw))
    }
}

/// The form of the file: as told, by its name, and where it is JSON by what its first object is.
fn form(args: &PublishArgs, input: &mut Box<dyn BufRead + Send>) -> anyhow::Result<FileForm> {
    let name = args.file.to_string_lossy().to_lowercase();
    let named = match name.trim_end_matches(".gz").rsplit('.').next() {
        Some("csv" | "tsv" | "txt") => Some(FileForm::Csv),
        Some("xml") => Some(FileForm::Xml),
        Some("ndjson" | "jsonl") => Some(FileForm::Ndjson),
        Some("json") => Some(FileForm::Json),
        _ => None,
    };
    let beginning = input.fill_buf().context("cannot read the file")?;
    if Import::is_no_text(beginning) {
        // Which says what it is.
        return Ok(FileForm::Csv);
    }
    let Some(form) = args.form.or(named) else {
        bail!("`{}` does not tell its form; add --form ndjson, json, csv or xml", args.file.display());
    };
    if matches!(form, FileForm::Csv | FileForm::Xml) {
        return Ok(form);
    }
    let export = args.mapping.is_some() || Import::is_json_export(beginning);
    Ok(if export { FileForm::Csv } else { form })
}
