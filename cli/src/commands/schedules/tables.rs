//! How schedules are printed for people.

use galerna_terminal::{Cell, List, Tone, print, table};
use serde_json::Value;

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

pub(super) fn listed(answer: &Value) -> List {
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

pub(super) fn print_one(schedule: &Value) -> anyhow::Result<()> {
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

pub(super) fn print_saved(schedule: &Value, done: &str) -> anyhow::Result<()> {
    print(format!(
        "{} {done}: {}",
        schedule["id"].as_str().unwrap_or_default(),
        schedule["occurs"].as_str().unwrap_or_default()
    ))?;
    print_upcoming(schedule)
}
