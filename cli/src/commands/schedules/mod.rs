//! `galerna schedules`: what fires by the clock, seen and steered through the API of a dispatcher. Each schedule publishes a message to
//! a queue.

mod definition;
mod tables;

use anyhow::ensure;
use clap::{Args, Subcommand};
use galerna_settings::Settings;
use serde_json::{Value, json};

use self::definition::{Definition, Overlap, set, word};
use self::tables::{listed, print_one, print_saved};
use crate::api_client::{Api, path_segment};
use crate::args::{Reason, Sure};
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
