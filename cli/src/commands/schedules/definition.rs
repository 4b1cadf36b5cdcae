//! A schedule's definition, made of flags and of a file.

use std::io::Read;
use std::path::PathBuf;

use anyhow::{Context, bail, ensure};
use clap::{Args, ValueEnum};
use serde_json::{Map, Value, json};

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
pub(super) enum Overlap {
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
pub(super) fn word(choice: Option<impl ValueEnum>) -> Option<Value> {
    Some(json!(choice?.to_possible_value()?.get_name()))
}

/// What a definition is made of, flag by flag or from a file.
#[derive(Debug, Clone, Args)]
pub(super) struct Definition {
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
    pub(super) fn over(&self, known: Value) -> anyhow::Result<Value> {
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
pub(super) fn set(object: &mut Value, name: &str, value: Option<Value>) {
    let Some(value) = value else { return };
    if !object.is_object() {
        *object = Value::Object(Map::new());
    }
    object[name] = value;
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
