//! What the page answers about alerts, as tables.

use std::time::Duration;

use serde_json::Value;

use galerna_settings::show_span;
use galerna_terminal::{Cell, List, Tone, print, table, thousands};

/// Longest cell of a table; `show` and `--json` have the whole.
const LONGEST: usize = 100;

/// The items of a list.
pub(crate) fn items(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

/// A value as a text. Names of devices come from afar: what would steer a terminal is taken out.
pub(crate) fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.replace(char::is_control, " "),
        Value::Array(all) if all.iter().all(Value::is_string) => {
            all.iter().map(text).collect::<Vec<_>>().join(", ")
        }
        // JSON escapes control characters of itself.
        other => other.to_string(),
    }
}

fn cell(value: &Value) -> String {
    let text = text(value);
    match text.char_indices().nth(LONGEST) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text,
    }
}

/// How many.
fn count(value: &Value) -> String {
    thousands(value.as_u64().unwrap_or_default())
}

fn counted(all: &[Value], one: &str) -> String {
    format!("{} {one}{}", all.len(), if all.len() == 1 { "" } else { "s" })
}

fn or(value: &Value, absent: &str) -> String {
    if value.is_null() { absent.to_owned() } else { cell(value) }
}

/// A value as a cell of a list: short for people, whole for programs.
fn of(value: &Value) -> Cell {
    Cell::text(cell(value)).plain(text(value))
}

/// A time as a cell of a list: to the second for people, as it is for programs.
fn when(value: &Value) -> Cell {
    Cell::text(time(value)).plain(text(value))
}

fn severity(value: &Value) -> Cell {
    let tone = match value.as_str() {
        Some("critical") => Tone::Bad,
        Some("warning") => Tone::Warn,
        _ => Tone::Plain,
    };
    of(value).toned(tone)
}

fn told_by(holds: bool, yes: &str, no: &str) -> Cell {
    if holds { Cell::text(yes).toned(Tone::Good) } else { Cell::text(no).toned(Tone::Warn) }
}

/// A time to the second, UTC.
fn time(value: &Value) -> String {
    let text = text(value);
    text.get(..19).map_or_else(|| text.clone(), |to_second| to_second.replace('T', " "))
}

fn span(value: &Value) -> String {
    show_span(Duration::from_millis(value.as_u64().unwrap_or_default()))
}

fn yes(value: &Value, yes: &str, no: &str) -> String {
    if value == &Value::Bool(true) { yes } else { no }.to_owned()
}

/// What a rule watches.
fn condition(rule: &Value) -> String {
    let of = &rule["condition"];
    if of["kind"] == "silent" {
        return format!("no reading for {}", span(&of["after_ms"]));
    }
    let mut shown = format!("{} {} {}", text(&of["parameter"]), text(&of["comparison"]), of["limit"]);
    if of["for_ms"].as_u64().is_some_and(|ms| ms > 0) {
        shown.push_str(&format!(" for {}", span(&of["for_ms"])));
    }
    if !of["clear"].is_null() {
        shown.push_str(&format!(", clears at {}", of["clear"]));
    }
    shown
}

/// Rules.
pub(crate) fn rules(all: &[Value]) -> List {
    let mut shown =
        List::new(&["id", "name", "watches", "account", "devices", "severity", "endpoints", "state"]);
    for rule in all {
        let in_force = rule["enabled"] == true;
        shown.row(
            rule.clone(),
            [
                of(&rule["id"]),
                of(&rule["name"]),
                Cell::text(condition(rule)),
                Cell::text(or(&rule["account"], "all")),
                of(&rule["devices"]),
                severity(&rule["severity"]),
                of(&rule["endpoints"]),
                told_by(in_force, "in force", "off"),
            ],
        );
    }
    shown.saying(counted(all, "rule"))
}

/// Endpoints.
pub(crate) fn endpoints(all: &[Value]) -> List {
    let mut shown = List::new(&["id", "name", "kind", "tells", "account", "state"]);
    for endpoint in all {
        let tells = match endpoint["kind"].as_str() {
            Some("webhook") => {
                let url = cell(&endpoint["url"]);
                // A token may stand in the query.
                let url = url.split('?').next().unwrap_or_default();
                let signed = if endpoint["secret"].is_null() { "unsigned" } else { "signed" };
                format!("{} {url}, {signed}", cell(&endpoint["method"]))
            }
            Some("email") => cell(&endpoint["to"]),
            _ => "a line in the notifier's log".to_owned(),
        };
        let mut state = yes(&endpoint["enabled"], "enabled", "disabled");
        if !endpoint["disabled_reason"].is_null() {
            state = format!("{state}: {}", cell(&endpoint["disabled_reason"]));
        }
        let tone = if endpoint["enabled"] == true { Tone::Good } else { Tone::Warn };
        let account = Cell::text(or(&endpoint["account"], "all"));
        let [id, name, kind] = ["id", "name", "kind"].map(|field| of(&endpoint[field]));
        shown.row(
            endpoint.clone(),
            [id, name, kind, Cell::text(tells), account, Cell::text(state).toned(tone)],
        );
    }
    shown.saying(counted(all, "endpoint"))
}

/// Silences.
pub(crate) fn silences(all: &[Value]) -> List {
    let mut shown =
        List::new(&["id", "account", "device", "rule", "ends (UTC)", "state", "reason", "by", "made (UTC)"]);
    for silence in all {
        let [account, device, rule] =
            ["account", "device", "rule"].map(|field| Cell::text(or(&silence[field], "all")));
        shown.row(
            silence.clone(),
            [
                of(&silence["id"]),
                account,
                device,
                rule,
                when(&silence["until"]),
                told_by(silence["in_force"] == true, "in force", "ended"),
                of(&silence["reason"]),
                of(&silence["by"]),
                when(&silence["created"]),
            ],
        );
    }
    shown.saying(counted(all, "silence"))
}

/// What alerts a delivery tells of, the first by name.
fn told(delivery: &Value) -> String {
    let events = items(&delivery["events"]);
    let Some(first) = events.first() else { return String::new() };
    let first = format!("{} {} {}", cell(&first["kind"]), cell(&first["rule_name"]), cell(&first["device"]));
    if events.len() > 1 { format!("{first} and {} more", events.len() - 1) } else { first }
}

/// Deliveries.
pub(crate) fn deliveries(found: &Value) -> List {
    let mut shown = List::new(&[
        "id",
        "made (UTC)",
        "endpoint",
        "status",
        "alerts",
        "#attempts",
        "next try (UTC)",
        "reason",
    ]);
    let all = items(&found["deliveries"]);
    for delivery in all {
        let status = delivery["status"].as_str();
        let tone = match status {
            Some("delivered") => Tone::Good,
            Some("dead") => Tone::Bad,
            Some("pending") => Tone::Warn,
            _ => Tone::Plain,
        };
        let test = yes(&delivery["test"], "test: ", "");
        shown.row(
            delivery.clone(),
            [
                of(&delivery["id"]),
                when(&delivery["created"]),
                of(&delivery["endpoint"]),
                of(&delivery["status"]).toned(tone),
                Cell::text(format!("{test}{}", told(delivery))),
                Cell::number(items(&delivery["attempts"]).len() as u64),
                if status == Some("pending") { when(&delivery["next_try"]) } else { Cell::text("") },
                of(&delivery["reason"]),
            ],
        );
    }
    let counts = found["counts"].as_object().into_iter().flatten();
    let counts: Vec<String> = counts.map(|(status, n)| format!("{status} {}", count(n))).collect();
    let said = format!("shown {} of {}; {}", all.len(), count(&found["total"]), counts.join(", "));
    shown.of(found["total"].as_u64()).saying(said)
}

/// What was raised and resolved.
pub(crate) fn events(found: &Value) -> List {
    let mut shown =
        List::new(&["readings' time (UTC)", "what", "severity", "rule", "account", "device", "message"]);
    let all = items(&found["events"]);
    for e in all {
        let [rule, account, device, message] =
            ["rule_name", "account", "device", "message"].map(|name| of(&e[name]));
        let what = of(&e["kind"]).toned(if e["kind"] == "raised" { Tone::Bad } else { Tone::Good });
        shown
            .row(e.clone(), [when(&e["ts"]), what, severity(&e["severity"]), rule, account, device, message]);
    }
    shown.saying(format!("{}; page {}", counted(all, "alert event"), text(&found["page"])))
}

/// What fires now.
pub(crate) fn firing(found: &Value) -> List {
    let mut shown = List::new(&[
        "rule",
        "id",
        "severity",
        "account",
        "source",
        "device",
        "#last value",
        "since, readings' time (UTC)",
    ]);
    let all = items(&found["firing"]);
    for state in all {
        let rule = if state["rule_name"].is_null() { &state["rule"] } else { &state["rule_name"] };
        let [account, source, device, last] =
            ["account", "source", "device", "last_value"].map(|name| of(&state[name]));
        let (id, since) = (of(&state["rule"]), when(&state["since"]));
        shown.row(
            state.clone(),
            [of(rule), id, severity(&state["severity"]), account, source, device, last, since],
        );
    }
    let more = yes(&found["more"], " or more", "");
    let said = format!("shown {} of {}{more} that fire", all.len(), count(&found["total"]));
    shown.of(found["total"].as_u64()).saying(said)
}

/// What operators did.
pub(crate) fn audit(found: &Value) -> List {
    let mut shown = List::new(&["when (UTC)", "who", "role", "what", "target", "why", "done", "outcome"]);
    let all = items(&found["entries"]);
    for entry in all {
        let [who, role, action, target, why, outcome] =
            ["who", "role", "action", "target", "why", "outcome"].map(|name| of(&entry[name]));
        let done = told_by(entry["done"] == true, "yes", "no");
        shown.row(entry.clone(), [when(&entry["at"]), who, role, action, target, why, done, outcome]);
    }
    shown.saying(format!("{} entries; page {}", all.len(), text(&found["page"])))
}

/// One delivery, with its events and attempts.
pub(crate) fn delivery(one: &Value) -> anyhow::Result<()> {
    let mut shown = one.clone();
    if let Some(shown) = shown.as_object_mut() {
        for part in ["events", "attempts"] {
            shown.remove(part);
        }
    }
    fields(&shown)?;
    let mut events =
        table(&["readings' time (UTC)", "what", "severity", "rule", "account", "device", "message"]);
    for e in items(&one["events"]) {
        let names = ["kind", "severity", "rule_name", "account", "device", "message"];
        events.add_row([time(&e["ts"])].into_iter().chain(names.map(|name| text(&e[name]))));
    }
    print(events)?;
    let mut attempts = table(&["attempt at (UTC)", "#status", "#ms", "error"]);
    for a in items(&one["attempts"]) {
        attempts.add_row([time(&a["at"]), text(&a["status"]), text(&a["took_ms"]), text(&a["error"])]);
    }
    print(attempts)
}

/// One thing, field by field.
pub(crate) fn fields(one: &Value) -> anyhow::Result<()> {
    let mut shown = table(&["field", "value"]);
    for (name, value) in one.as_object().into_iter().flatten() {
        match value {
            Value::Object(parts) if !parts.is_empty() => {
                for (part, value) in parts {
                    shown.add_row([format!("{name}.{part}"), text(value)]);
                }
            }
            value => {
                shown.add_row([name.clone(), text(value)]);
            }
        }
    }
    print(shown)
}
