//! In which form a command prints what it has read, and how often.

use std::io::{IsTerminal, Write};
use std::time::Duration;

use clap::{Args, ValueEnum};
use galerna_settings::parse_span;
use galerna_terminal::{Cell, List, ListForm, Tone, eprint, label, print_json};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

/// The shortest interval of `--watch`.
const SHORTEST: Duration = Duration::from_millis(100);

/// Flags of every command that shows something.
#[derive(Debug, Clone, Args)]
pub(crate) struct Form {
    /// Print JSON as the API answers it; errors too are JSON
    #[arg(long, global = true)]
    json: bool,
    /// Print a table, JSON (lists as {"items", "total"}), CSV, or names alone; with `json` errors too are JSON
    #[arg(long, short, global = true, value_enum, value_name = "FORM", conflicts_with = "json")]
    output: Option<Output>,
    /// Print it again and again, with such a pause, until Ctrl-C [default pause: 2s]
    #[arg(
        long,
        global = true,
        value_name = "TIME",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "2s",
        value_parser = pause
    )]
    watch: Option<Duration>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    /// For people
    Table,
    /// For programs: lists are {"items", "total"}
    Json,
    /// For spreadsheets
    Csv,
    /// The first column alone, a line each
    Name,
}

fn pause(text: &str) -> Result<Duration, String> {
    duration(text).and_then(|pause| match pause >= SHORTEST {
        true => Ok(pause),
        false => Err("the shortest pause is 100ms".to_owned()),
    })
}

/// A time span of the command line.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    parse_span(text).ok_or_else(|| "write a time such as 30s, 5m, 3h, 1h30m or 7d".to_owned())
}

impl Form {
    /// Whether a program reads what is printed: then errors are JSON too.
    pub(crate) fn is_json(&self) -> bool {
        self.json || self.output == Some(Output::Json)
    }

    /// How often it is printed again.
    pub(crate) fn watch(&self) -> Option<Duration> {
        self.watch
    }

    /// Prints a list; `answer` is what `--json` prints, as the API gave it.
    pub(crate) fn list(&self, answer: &Value, list: &List) -> anyhow::Result<()> {
        if self.json {
            return print_json(answer);
        }
        list.print(match self.output {
            None | Some(Output::Table) => ListForm::Table,
            Some(Output::Json) => ListForm::Json,
            Some(Output::Csv) => ListForm::Csv,
            Some(Output::Name) => ListForm::Names,
        })
    }

    /// Prints one thing: as JSON, as fields, as CSV of the fields, or its name; `table` is how people see it.
    pub(crate) fn one(
        &self,
        thing: &Value,
        name: &str,
        table: impl FnOnce() -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        match self.output {
            _ if self.is_json() => print_json(thing),
            Some(Output::Csv) => {
                let mut list = List::new(&["field", "value"]);
                for (field, value) in thing.as_object().into_iter().flatten() {
                    let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                    list.row(Value::Null, [Cell::text(field.as_str()), Cell::text(value)]);
                }
                list.print(ListForm::Csv)
            }
            Some(Output::Name) => galerna_terminal::print(name),
            _ => table(),
        }
    }

    /// Prints what was done: the answer for programs, a sentence for people.
    pub(crate) fn done(&self, answer: &Value, said: &str) -> anyhow::Result<()> {
        if self.is_json() { print_json(answer) } else { galerna_terminal::print(said) }
    }
}

/// Runs a command that reads again and again. The first failure ends it; a later one is told, and it goes on: what it looks at
/// may be restarting.
pub(crate) async fn repeat<F: Future<Output = anyhow::Result<()>>>(
    pause: Duration,
    stop: &CancellationToken,
    mut once: impl FnMut() -> F,
) -> anyhow::Result<()> {
    let mut worked = false;
    while !stop.is_cancelled() {
        let mut output = std::io::stdout();
        if output.is_terminal() {
            // Home, and nothing below.
            let _ = output.write_all(b"\x1b[H\x1b[2J").and_then(|()| output.flush());
        }
        match once().await {
            Ok(()) => worked = true,
            Err(e) if !worked => return Err(e),
            Err(e) => eprint(format_args!("{} {e:#}", label("error", Tone::Bad))),
        }
        tokio::select! {
            () = stop.cancelled() => {}
            () = tokio::time::sleep(pause) => {}
        }
    }
    Ok(())
}

/// All pages of a list in one answer: `fetch` asks for a page, from 1, of `most` things; `list` is the list's name in the answer.
pub(crate) async fn all_pages<F: Future<Output = anyhow::Result<Value>>>(
    list: &str,
    most: usize,
    mut fetch: impl FnMut(usize) -> F,
) -> anyhow::Result<Value> {
    let mut all = fetch(1).await?;
    let mut found = all[list].as_array().map_or(0, Vec::len);
    let mut page = 1;
    while found == most {
        page += 1;
        let mut more = fetch(page).await?;
        let Some(things) = more[list].as_array_mut().map(std::mem::take) else { break };
        found = things.len();
        if let Some(known) = all[list].as_array_mut() {
            known.extend(things);
        }
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use serde_json::json;

    use super::*;

    #[tokio::test]
    async fn all_pages_are_asked_for_until_one_is_not_full() {
        for (things, calls) in [(0_usize, 1), (3, 1), (4, 2), (9, 3)] {
            let asked = Cell::new(0);
            let fetch = |page: usize| {
                asked.set(asked.get() + 1);
                let found: Vec<usize> = (0..things).skip((page - 1) * 4).take(4).collect();
                async move { Ok(json!({"things": found, "total": things})) }
            };
            let all = all_pages("things", 4, fetch).await.unwrap();
            assert_eq!(all, json!({"things": (0..things).collect::<Vec<_>>(), "total": things}));
            assert_eq!(asked.get(), calls, "{things}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_watched_is_read_until_it_is_stopped_and_only_its_first_failure_ends_it() {
        let (stop, runs) = (CancellationToken::new(), Cell::new(0));
        let once = || {
            runs.set(runs.get() + 1);
            if runs.get() == 3 {
                stop.cancel();
            }
            let fails = runs.get() == 2;
            async move { if fails { anyhow::bail!("it restarts") } else { Ok(()) } }
        };
        repeat(Duration::from_secs(2), &stop, once).await.unwrap();
        assert_eq!(runs.get(), 3);
        let never = CancellationToken::new();
        let refused =
            repeat(Duration::from_secs(2), &never, || async { anyhow::bail!("nobody there") }).await;
        assert_eq!(refused.unwrap_err().to_string(), "nobody there");
    }

    #[test]
    fn durations_are_taken_as_people_write_them() {
        assert_eq!(duration("3h"), Ok(Duration::from_secs(10_800)));
        assert!(duration("three hours").unwrap_err().contains("3h"));
        assert!(pause("1ms").unwrap_err().contains("100ms"));
    }
}
