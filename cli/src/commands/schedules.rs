//! `galerna schedules`: what fires by the clock, seen and steered through the API of a dispatcher. Each schedule publishes a message to
//! a queue.

use std::io::Read;
use std::path::PathBuf;

use anyhow::{Context, bail, ensure};
use clap::{Args, Subcommand, ValueEnum};
use galerna_settings::Settings;
use galerna_terminal::{Cell, List, Tone, print, table};
use serde_json::{Map, Value, json};

use crate::api_client::{Api, path_segment};
use crate::commands::alerts::{Reason, Sure};
use crate::commands::queues::because;
use crate::form::Form;

/// Schedules asked for at once.
const MOST: usize = 1_000;

#[derive(Debug, Clone, Args)]
pub(crate) struct SchedulesArgs {
    #[command(flatten)]
    pub(crate) form: Form,
    #[command(subcommand)]
    command: SchedulesCommand,
}

impl SchedulesArgs {
    /// Whether it changes nothing.
    pub(crate) fn reads(&self) -> bool {
        matches!(self.command, SchedulesCommand::List | SchedulesCommand::Show { .. })
    }
}

#[derive(Debug, Clone, Subcommand)]
enum SchedulesCommand {
    /// List schedules: when they occur next, and how many were done, failed, skipped and missed
    List,
    /// Show one: its next ten occurrences, its last ten ends, and counts by outcome and reason
    Show {
        /// Its name
        schedule: String,
    },
    /// Add one, and print its next ten occurrences
    Add {
        /// Its name, such as reports/daily
        schedule: String,
        #[command(flatten)]
        definition: Box<Definition>,
        #[command(flatten)]
        reason: Reason,
    },
    /// Change what is named of its definition, and print its next ten occurrences
    Edit {
        /// Its name
        schedule: String,
        #[command(flatten)]
        definition: Box<Definition>,
        #[command(flatten)]
        reason: Reason,
    },
    /// Skip its occurrences until it is resumed
    Pause {
        /// Its name
        schedule: String,
        /// Why, for whoever looks at it and for the audit log
        #[arg(long, default_value = "")]
        note: String,
    },
    /// End a pause
    Resume {
        /// Its name
        schedule: String,
        #[command(flatten)]
        reason: Reason,
    },
    /// Fire it now
    Trigger {
        /// Its name
        schedule: String,
        /// In place of its own policy
        #[arg(long, value_enum)]
        overlap: Option<Overlap>,
        #[command(flatten)]
        reason: Reason,
    },
    /// Fire what it had in a time that is past, one after the other
    Backfill {
        /// Its name
        schedule: String,
        /// From this time on, such as 2026-03-01T00:00:00+01:00
        #[arg(long, value_name = "TIME")]
        from: String,
        /// Before this time
        #[arg(long, value_name = "TIME")]
        to: String,
        /// In place of one after the other
        #[arg(long, value_enum)]
        overlap: Option<Overlap>,
        #[command(flatten)]
        reason: Reason,
    },
    /// Remove it; what is open is cancelled, what ended stays
    Remove {
        /// Its name
        schedule: String,
        #[command(flatten)]
        reason: Reason,
        #[command(flatten)]
        sure: Sure,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
enum Overlap {
    /// Skip it while an earlier one has not ended
    Skip,
    /// Let one wait
    BufferOne,
    /// Let up to 100 wait
    BufferAll,
    /// Have the earlier one stop
    CancelOther,
    /// Run it beside the others
    AllowAll,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
enum Missed {
    /// Run the latest of them
    RunLatest,
    /// Run none
    Skip,
    /// Run all
    RunAll,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
enum DstGap {
    /// Fire at the first instant after the gap
    Shift,
    /// Do not fire on that day
    Skip,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
enum DstOverlap {
    /// Fire the first time
    First,
    /// Fire the second time
    Last,
    /// Fire both times
    Both,
}

/// The name of a choice as the API has it.
fn word(choice: Option<impl ValueEnum>) -> Option<Value> {
    Some(json!(choice?.to_possible_value()?.get_name()))
}

/// What a definition is made of, flag by flag or from a file.
#[derive(Debug, Clone, Args)]
struct Definition {
    /// Read the definition from a file of JSON; `-` for standard input. The flags below change it
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// By the clock: minute, hour, day of month, month, day of week, such as '30 2 * * MON-FRI'
    #[arg(long, value_name = "EXPRESSION", conflicts_with_all = ["every", "at"])]
    cron: Option<String>,
    /// Whose clock, such as Europe/Berlin [default: UTC]
    #[arg(long, value_name = "ZONE", conflicts_with_all = ["every", "at"])]
    timezone: Option<String>,
    /// When the clocks jump over it [default: shift]
    #[arg(long, value_enum, conflicts_with_all = ["every", "at"])]
    dst_gap: Option<DstGap>,
    /// When the clocks show it twice [default: first]
    #[arg(long, value_enum, conflicts_with_all = ["every", "at"])]
    dst_overlap: Option<DstOverlap>,
    /// At intervals, such as 10s, 15m or '1h 30m'
    #[arg(long, value_name = "TIME", conflicts_with = "at")]
    every: Option<String>,
    /// Once, such as 2026-05-01T12:00:00+02:00
    #[arg(long, value_name = "TIME")]
    at: Option<String>,
    /// The queue that it publishes to
    #[arg(long)]
    queue: Option<String>,
    /// The message: JSON, or a text with --content-type
    #[arg(long, value_name = "JSON")]
    body: Option<String>,
    /// MIME type of a message that is no JSON
    #[arg(long, value_name = "TYPE")]
    content_type: Option<String>,
    /// While an earlier firing has not ended [default: skip]
    #[arg(long, value_enum)]
    overlap: Option<Overlap>,
    /// When nobody looked in time [default: run_latest]
    #[arg(long, value_enum)]
    missed: Option<Missed>,
    /// Later ones are missed [default: 60s]
    #[arg(long, value_name = "TIME")]
    catchup_window: Option<String>,
    /// Fire later by so much at most [default: 0s]
    #[arg(long, value_name = "TIME")]
    jitter: Option<String>,
    /// Attempts in all [default: 3]
    #[arg(long, value_name = "N")]
    attempts: Option<u32>,
    /// Pause the schedule when a firing fails for good
    #[arg(long, num_args = 0..=1, default_missing_value = "true", require_equals = true, value_name = "BOOL")]
    pause_on_failure: Option<bool>,
    /// No occurrence before
    #[arg(long, value_name = "TIME")]
    start_at: Option<String>,
    /// No occurrence from then on
    #[arg(long, value_name = "TIME")]
    end_at: Option<String>,
    /// So many occurrences are fired
    #[arg(long, value_name = "N")]
    remaining: Option<u64>,
    /// Not on these dates of its zone, such as 2026-12-25
    #[arg(long, value_name = "DATE", value_delimiter = ',')]
    exclude: Vec<String>,
}

impl Definition {
    /// The definition that is asked for, made from what is there.
    fn over(&self, known: Value) -> anyhow::Result<Value> {
        let mut definition = match &self.file {
            None => known,
            Some(file) => {
                let text = if file.as_os_str() == "-" {
                    let mut text = String::new();
                    std::io::stdin().read_to_string(&mut text).context("cannot read standard input")?;
                    text
                } else {
                    std::fs::read_to_string(file)
                        .with_context(|| format!("cannot read {}", file.display()))?
                };
                serde_json::from_str(&text).with_context(|| format!("{} is no JSON", file.display()))?
            }
        };
        ensure!(
            definition.is_object(),
            "a definition is a JSON object, such as {{\"timing\": {{\"every\": {{\"interval\": \"10s\"}}}}}}"
        );
        self.set_timing(&mut definition)?;
        set(&mut definition["policy"], "overlap", word(self.overlap));
        set(&mut definition["policy"], "missed", word(self.missed));
        set(&mut definition["policy"], "catchup_window", self.catchup_window.as_ref().map(|t| json!(t)));
        set(&mut definition["policy"], "jitter", self.jitter.as_ref().map(|t| json!(t)));
        set(&mut definition["policy"], "pause_on_failure", self.pause_on_failure.map(|on| json!(on)));
        if self.attempts.is_some() {
            if definition["policy"].is_null() {
                definition["policy"] = json!({});
            }
            set(&mut definition["policy"]["retry"], "attempts", self.attempts.map(|n| json!(n)));
        }
        set(&mut definition, "start_at", self.start_at.as_ref().map(|t| json!(t)));
        set(&mut definition, "end_at", self.end_at.as_ref().map(|t| json!(t)));
        set(&mut definition, "remaining", self.remaining.map(|n| json!(n)));
        set(&mut definition, "exclude", (!self.exclude.is_empty()).then(|| json!(self.exclude)));
        set(&mut definition["payload"], "queue", self.queue.as_ref().map(|q| json!(q)));
        set(&mut definition["payload"], "content_type", self.content_type.as_ref().map(|t| json!(t)));
        if let Some(body) = &self.body {
            let body = match self.content_type.as_deref() {
                None | Some("application/json") => serde_json::from_str(body)
                    .context("--body is no JSON; name what it is with --content-type")?,
                Some(_) => json!(body),
            };
            set(&mut definition["payload"], "body", Some(body));
        }
        if let Some(fields) = definition.as_object_mut() {
            fields.retain(|_, value| !value.is_null());
        }
        Ok(definition)
    }

    fn set_timing(&self, definition: &mut Value) -> anyhow::Result<()> {
        if let Some(interval) = &self.every {
            definition["timing"] = json!({ "every": { "interval": interval } });
        } else if let Some(at) = &self.at {
            definition["timing"] = json!({ "at": at });
        } else if self.cron.is_some()
            || self.timezone.is_some()
            || self.dst_gap.is_some()
            || self.dst_overlap.is_some()
        {
            let mut cron = definition["timing"]["cron"].take();
            set(&mut cron, "expression", self.cron.as_ref().map(|e| json!(e)));
            set(&mut cron, "timezone", self.timezone.as_ref().map(|z| json!(z)));
            set(&mut cron, "dst_gap", word(self.dst_gap));
            set(&mut cron, "dst_overlap", word(self.dst_overlap));
            ensure!(cron["expression"].is_string(), "it has no cron expression; give one with --cron");
            definition["timing"] = json!({ "cron": cron });
        }
        if definition["timing"].is_null() {
            bail!("say when it occurs: with --cron, --every or --at, or a --file");
        }
        Ok(())
    }
}

/// Sets a field of an object, which is made when it is not there.
fn set(object: &mut Value, name: &str, value: Option<Value>) {
    let Some(value) = value else { return };
    if !object.is_object() {
        *object = Value::Object(Map::new());
    }
    object[name] = value;
}

fn path(schedule: &str, rest: &str) -> String {
    format!("/schedules/{}{rest}", path_segment(schedule))
}

/// Runs the command.
pub(crate) async fn run(args: SchedulesArgs, settings: &Settings) -> anyhow::Result<()> {
    let api = Api::new(&settings.dispatcher.url, settings.api.token.as_deref())?;
    let form = args.form;
    match args.command {
        SchedulesCommand::List => {
            let answer = all(&api).await?;
            form.list(&answer, &listed(&answer))
        }
        SchedulesCommand::Show { schedule } => {
            let shown = api.get(&path(&schedule, ""), &[]).await?;
            form.one(&shown, &schedule, || print_one(&shown))
        }
        SchedulesCommand::Add { schedule, definition, reason } => {
            let definition = definition.over(json!({}))?;
            let body = because(json!({ "id": schedule, "definition": definition }), reason.reason);
            let added = api.post("/schedules", &body).await?;
            form.one(&added, &schedule, || print_saved(&added, "is added"))
        }
        SchedulesCommand::Edit { schedule, definition, reason } => {
            let known = api.get(&path(&schedule, ""), &[]).await?;
            let definition = definition.over(known["definition"].clone())?;
            let body = json!({ "definition": definition, "revision": known["revision"] });
            let edited = api.put(&path(&schedule, ""), &because(body, reason.reason)).await?;
            form.one(&edited, &schedule, || print_saved(&edited, "is edited"))
        }
        SchedulesCommand::Pause { schedule, note } => {
            let answer = api.post(&path(&schedule, "/pause"), &json!({ "note": note })).await?;
            form.done(&answer, &format!("{schedule} is paused: its occurrences are recorded as skipped"))
        }
        SchedulesCommand::Resume { schedule, reason } => {
            let answer = api.post(&path(&schedule, "/resume"), &because(json!({}), reason.reason)).await?;
            let next = answer["upcoming"][0]["local"].as_str().unwrap_or("never");
            form.done(&answer, &format!("{schedule} is on again; next: {next}"))
        }
        SchedulesCommand::Trigger { schedule, overlap, reason } => {
            let mut body = json!({});
            set(&mut body, "overlap", word(overlap));
            let answer = api.post(&path(&schedule, "/trigger"), &because(body, reason.reason)).await?;
            let firing = answer["firing"].as_str().unwrap_or_default();
            let said = match answer["outcome"].as_str() {
                None => format!("{firing} is on its way"),
                Some(outcome) => format!("{firing} was not fired: {outcome}"),
            };
            form.done(&answer, &said)
        }
        SchedulesCommand::Backfill { schedule, from, to, overlap, reason } => {
            let mut body = json!({ "from": from, "to": to });
            set(&mut body, "overlap", word(overlap));
            let answer = api.post(&path(&schedule, "/backfill"), &because(body, reason.reason)).await?;
            form.done(&answer, &format!("firings of {schedule} on their way: {}", answer["admitted"]))
        }
        SchedulesCommand::Remove { schedule, reason, sure } => {
            let question =
                format!("Remove schedule {schedule}? It fires no more; what ended stays in its history.");
            ensure!(sure.is_said(&question)?, "{schedule} is not removed");
            let answer = api.post(&path(&schedule, "/remove"), &because(json!({}), reason.reason)).await?;
            form.done(&answer, &format!("{schedule} is removed"))
        }
    }
}

/// All schedules, page after page.
async fn all(api: &Api) -> anyhow::Result<Value> {
    let mut found: Vec<Value> = Vec::new();
    let mut after = Value::Null;
    loop {
        let mut query = vec![("limit", MOST.to_string())];
        query.extend(after.as_str().map(|after| ("after", after.to_owned())));
        let mut answer = api.get("/schedules", &query).await?;
        if let Value::Array(page) = answer["schedules"].take() {
            found.extend(page);
        }
        after = answer["next"].take();
        if after.is_null() {
            answer["schedules"] = Value::Array(found);
            return Ok(answer);
        }
    }
}

/// How many ended so, whatever the reason.
fn count(schedule: &Value, outcome: &str) -> u64 {
    let counts = schedule["counts"].as_object().into_iter().flatten();
    counts.filter(|(name, _)| name.split('.').next() == Some(outcome)).filter_map(|(_, n)| n.as_u64()).sum()
}

fn state(schedule: &Value) -> (&'static str, Tone) {
    if !schedule["problem"].is_null() {
        ("not understood", Tone::Bad)
    } else if !schedule["paused"].is_null() {
        ("paused", Tone::Warn)
    } else {
        ("on", Tone::Good)
    }
}

fn listed(answer: &Value) -> List {
    let schedules = answer["schedules"].as_array().map(Vec::as_slice).unwrap_or_default();
    let mut list = List::new(&["schedule", "occurs", "state", "next", "done", "failed", "skipped", "missed"]);
    for schedule in schedules {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let (state, tone) = state(schedule);
        let counted = |outcome: &str, tone: Tone| {
            let n = count(schedule, outcome);
            Cell::text(n.to_string()).toned(if n > 0 { tone } else { Tone::Plain })
        };
        list.row(
            schedule.clone(),
            [
                Cell::text(text(&schedule["id"])),
                Cell::text(text(&schedule["occurs"])),
                Cell::text(state).toned(tone),
                Cell::text(text(&schedule["upcoming"][0]["local"])),
                counted("done", Tone::Plain),
                counted("failed", Tone::Bad),
                counted("skipped", Tone::Warn),
                counted("missed", Tone::Warn),
            ],
        );
    }
    let zones = answer["tzdata"].as_str().unwrap_or("unknown");
    list.saying(format!("{} schedules; time zones of {zones}", schedules.len()))
}

fn print_one(schedule: &Value) -> anyhow::Result<()> {
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    print(format!("{}  {}  {}", text(&schedule["id"]), text(&schedule["occurs"]), state(schedule).0))?;
    if let Some(note) = schedule["paused"]["note"].as_str() {
        print(format!("paused since {}: {note}", text(&schedule["paused"]["since"])))?;
    }
    if let Some(problem) = schedule["problem"].as_str() {
        print(format!("it does not run: {problem}; edit it"))?;
    }
    print(format!("payload {}", schedule["definition"]["payload"]))?;
    print_upcoming(schedule)?;
    let mut counts = table(&["outcome", "count"]);
    for (outcome, n) in schedule["counts"].as_object().into_iter().flatten() {
        counts.add_row([outcome.clone(), n.to_string()]);
    }
    print(counts)?;
    for firing in schedule["open"].as_array().into_iter().flatten() {
        let state = match firing["claim"]["holder"].as_str() {
            Some(holder) => format!("runs at {holder}"),
            None => format!("waits until {}", text(&firing["due"])),
        };
        print(format!("open: {}, attempt {}, {state}", text(&firing["nominal"]), firing["attempts"]))?;
    }
    let mut last = table(&["last", "origin", "outcome", "ended", "attempts", "fault"]);
    for ended in schedule["last"].as_array().into_iter().flatten() {
        let outcome = match ended["reason"].as_str() {
            Some(reason) => format!("{}.{reason}", text(&ended["outcome"])),
            None => text(&ended["outcome"]),
        };
        let fault = ended["fault"].as_str().unwrap_or_default().replace(char::is_control, " ");
        let origin = text(&ended["origin"]);
        last.add_row([
            text(&ended["nominal"]),
            origin,
            outcome,
            text(&ended["at"]),
            ended["attempts"].to_string(),
            fault,
        ]);
    }
    print(last)
}

fn print_upcoming(schedule: &Value) -> anyhow::Result<()> {
    let zones = schedule["tzdata"].as_str().unwrap_or("unknown");
    let upcoming = schedule["upcoming"].as_array().map(Vec::as_slice).unwrap_or_default();
    if upcoming.is_empty() {
        return print("it does not occur any more");
    }
    print(format!("next {} (time zones of {zones}):", upcoming.len()))?;
    for next in upcoming {
        print(format!("  {}", next["local"].as_str().unwrap_or_default()))?;
    }
    Ok(())
}

fn print_saved(schedule: &Value, done: &str) -> anyhow::Result<()> {
    print(format!(
        "{} {done}: {}",
        schedule["id"].as_str().unwrap_or_default(),
        schedule["occurs"].as_str().unwrap_or_default()
    ))?;
    print_upcoming(schedule)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        definition: Definition,
    }

    fn over(known: Value, flags: &[&str]) -> anyhow::Result<Value> {
        let line = Line::try_parse_from([&["test"], flags].concat())?;
        line.definition.over(known)
    }

    #[test]
    fn flags_make_a_definition_and_change_one() {
        let flags = [
            "--cron",
            "30 2 * * *",
            "--timezone",
            "Europe/Berlin",
            "--queue",
            "reports",
            "--body",
            "{\"n\":1}",
        ];
        let made = over(json!({}), &flags).unwrap();
        let timing = json!({"cron": {"expression": "30 2 * * *", "timezone": "Europe/Berlin"}});
        assert_eq!(made, json!({"timing": timing, "payload": {"queue": "reports", "body": {"n": 1}}}));
        let changed =
            over(made, &["--dst-gap", "skip", "--overlap", "cancel_other", "--attempts", "5"]).unwrap();
        assert_eq!(changed["timing"]["cron"]["dst_gap"], "skip");
        assert_eq!(changed["timing"]["cron"]["expression"], "30 2 * * *");
        assert_eq!(changed["policy"], json!({"overlap": "cancel_other", "retry": {"attempts": 5}}));
        let other = over(changed, &["--every", "10s"]).unwrap();
        assert_eq!(other["timing"], json!({"every": {"interval": "10s"}}));
    }

    #[test]
    fn what_says_no_time_or_no_json_is_refused() {
        for (flags, said) in [
            (&["--queue", "reports"][..], "--cron"),
            (&["--timezone", "UTC"], "--cron"),
            (&["--every", "10s", "--body", "{"], "--content-type"),
            (&["--every", "10s", "--at", "2026-01-01T00:00:00Z"], "cannot be used with"),
        ] {
            let refused = format!("{:#}", over(json!({}), flags).unwrap_err());
            assert!(refused.contains(said), "{flags:?}: {refused}");
        }
    }
}
