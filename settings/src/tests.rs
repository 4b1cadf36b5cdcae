use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use super::*;

fn with_file(content: &str) -> Result<Settings, SettingsError> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("galerna.toml");
    std::fs::write(&path, content).unwrap();
    Settings::load(&Inputs { file: Some(path), ..Inputs::default() })
}

fn flag(name: &str, value: &str) -> FlagValue {
    FlagValue { flag: format!("--{name}"), name: name.to_owned(), value: value.to_owned() }
}

#[test]
fn a_flag_goes_before_a_variable_before_the_file_before_the_default() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("galerna.toml");
    std::fs::write(&path, "[dispatcher]\nstrategy = \"fifo\"\nlease = \"10s\"\n[worker]\nleases = 3\n")
        .unwrap();
    let variables = vec![
        ("GALERNA_DISPATCHER_LEASE".to_owned(), "20s".to_owned()),
        ("GALERNA_WORKER_LEASES".to_owned(), "4".to_owned()),
        ("HOME".to_owned(), "/".to_owned()),
    ];
    let settings = Settings::load(&Inputs {
        file: Some(path.clone()),
        variables,
        flags: vec![flag("worker.leases", "5")],
        defaults: vec![],
    })
    .unwrap();
    assert_eq!(settings.dispatcher.strategy, galerna_lease::StrategyName::Fifo);
    assert_eq!(settings.dispatcher.lease, Duration::from_secs(20));
    assert_eq!(settings.worker.leases, 5);
    assert_eq!(settings.worker.prefetch, 200);
    let origins: BTreeMap<_, _> = settings.shown().map(|shown| (shown.name, shown.origin.clone())).collect();
    assert_eq!(origins["dispatcher.strategy"], Origin::File(path));
    assert_eq!(origins["dispatcher.lease"], Origin::Variable("GALERNA_DISPATCHER_LEASE".to_owned()));
    assert_eq!(origins["worker.leases"], Origin::Flag("--worker.leases".to_owned()));
    assert_eq!(origins["worker.prefetch"], Origin::Default);
}

#[test]
fn a_wrong_file_is_an_error_that_names_the_key_the_value_and_what_is_allowed() {
    for (content, parts) in [
        (
            "[dispatcher]\nlesae = \"5s\"",
            &["`dispatcher.lesae`", "did you mean `dispatcher.lease`?", "strategy"][..],
        ),
        ("[dispacher]\nlease = \"5s\"", &["`dispacher`", "is not a setting"]),
        ("dat = \"x\"", &["`dat`", "did you mean `data`?"]),
        ("[dispatcher]\nlease = 60", &["`dispatcher.lease`", "`60`", "such as 250ms", "in quotes"]),
        ("[dispatcher]\nlease = \"1w\"", &["`dispatcher.lease`", "`1w`", "from 500ms to 1d"]),
        ("[dispatcher]\nlease = \"1ms\"", &["`dispatcher.lease`", "`1ms`", "from 500ms"]),
        ("[dispatcher]\nstrategy = \"best\"", &["`dispatcher.strategy`", "`best`", "fifo, lru, fair"]),
        ("dispatcher = \"lru\"", &["`dispatcher`", "it is a table", "strategy"]),
        ("[worker]\nleases = 0", &["`worker.leases`", "`0`", "from 1 to 10000"]),
        ("[worker]\nleases = \"4\"", &["`worker.leases`", "a whole number"]),
        ("[worker]\nleases = -1", &["`worker.leases`", "`-1`"]),
        (
            "[broker]\nurl = \"rabbit\"",
            &["`broker.url`", "`rabbit`", "`embedded` or a URL", "amqp:// or amqps://"],
        ),
        (
            "[broker]\nurl = \"amqp://\"",
            &["`broker.url`", "`amqp://`", "`embedded` or a URL", "names a host, such as amqp://localhost"],
        ),
        ("[broker]\nurl = \"amqps://u:pw@:5671\"", &["names a host, such as amqps://localhost"]),
        ("[store]\nurl = \"mongodb:///x\"", &["names a host, such as mongodb://localhost"]),
        ("[broker]\nurl = \"http://u:pw@h\"", &["`broker.url`", "http://u:***@h"]),
        ("[store]\nurl = \"mongo://h\"", &["`store.url`", "mongodb://"]),
        ("[api]\nlisten = \"here\"", &["`api.listen`", "`here`", "127.0.0.1:7676"]),
        ("[api]\nlisten = \"0.0.0.0:7676\"", &["`api.listen`", "`api.token`"]),
        ("[api]\ntoken = \"short\"", &["`api.token`", "16"]),
        ("[log]\nformat = \"xml\"", &["`log.format`", "text, json"]),
        ("[log", &["is not TOML"]),
    ] {
        let error = with_file(content).expect_err(content).to_string();
        for part in parts {
            assert!(error.contains(part), "{content}: {error} lacks {part}");
        }
        assert!(!error.contains("pw@") && !error.contains("`short`"), "{error}");
    }
}

#[test]
fn all_problems_are_told_at_once() {
    let error = with_file("[worker]\nleases = 0\nprefetch = 0\nx = 1").expect_err("wrong").to_string();
    for part in ["worker.leases", "worker.prefetch", "worker.x"] {
        assert!(error.contains(part), "{error}");
    }
}

#[test]
fn an_unknown_variable_or_flag_is_an_error() {
    let variables = vec![("GALERNA_BROKER_URI".to_owned(), "embedded".to_owned())];
    let error = Settings::load(&Inputs { variables, ..Inputs::default() }).expect_err("unknown").to_string();
    assert!(error.contains("`GALERNA_BROKER_URI`") && error.contains("`GALERNA_BROKER_URL`"), "{error}");
    let flags = vec![flag("broker.urll", "embedded")];
    let error = Settings::load(&Inputs { flags, ..Inputs::default() }).expect_err("unknown").to_string();
    assert!(error.contains("`broker.urll`") && error.contains("`broker.url`"), "{error}");
}

#[test]
fn a_named_file_must_exist() {
    let file = Some(PathBuf::from("/nowhere/galerna.toml"));
    let error = Settings::load(&Inputs { file, ..Inputs::default() }).expect_err("absent").to_string();
    assert!(error.contains("/nowhere/galerna.toml") && error.contains("--config"), "{error}");
}

#[test]
fn secrets_and_passwords_are_not_shown() {
    let flags = vec![
        flag("api.token", "0123456789abcdef"),
        flag("broker.url", "amqp://guest:hunter2@localhost"),
        flag("store.url", "mongodb://guest:hunter2@localhost"),
    ];
    let settings = Settings::load(&Inputs { flags, ..Inputs::default() }).unwrap();
    for Shown { name, value, .. } in settings.shown() {
        assert!(!value.contains("hunter2") && !value.contains("0123456789abcdef"), "{name} = {value}");
    }
}

#[test]
fn what_is_left_empty_is_none_and_commas_part_a_list() {
    let settings = Settings::load(&Inputs::default()).unwrap();
    assert_eq!((settings.api.token, settings.worker.name, settings.trace.otlp), (None, None, None));
    assert!(settings.page.workers.is_empty());
    let flags = vec![
        flag("maintainer.url", ""),
        flag("dispatcher.url", ""),
        flag("page.workers", "http://a:1, http://b:2,"),
        flag("ingest.rules", "rules.json"),
    ];
    let settings = Settings::load(&Inputs { flags, ..Inputs::default() }).unwrap();
    assert_eq!((settings.maintainer.url, settings.dispatcher.url), (None, String::new()));
    assert_eq!(settings.page.workers, ["http://a:1", "http://b:2"]);
    assert_eq!(settings.ingest.rules, Some(PathBuf::from("rules.json")));
}

#[test]
fn dispatchers_are_named_with_commas_between_them_and_each_is_a_url() {
    let load =
        |urls| Settings::load(&Inputs { flags: vec![flag("dispatcher.url", urls)], ..Inputs::default() });
    let settings = load("http://a:7676, https://b/api ,").unwrap();
    assert_eq!(settings.dispatcher.url, "http://a:7676,https://b/api");
    assert_eq!(settings.dispatcher.urls().collect::<Vec<_>>(), ["http://a:7676", "https://b/api"]);
    for wrong in ["http://a:7676,b:7676", "http://a:7676,http://:7676", "http://a:7676 http://b:7676"] {
        let said = load(wrong).unwrap_err().to_string();
        assert!(said.contains("dispatcher.url") && said.contains("commas"), "{said}");
    }
}

#[test]
fn secrets_are_not_in_the_debug_form() {
    let flags =
        vec![flag("api.token", "0123456789abcdef"), flag("broker.url", "amqp://guest:hunter2@localhost")];
    let settings = Settings::load(&Inputs { flags, ..Inputs::default() }).unwrap();
    let debug = format!("{settings:?}");
    assert!(!debug.contains("hunter2") && !debug.contains("0123456789abcdef"), "{debug}");
}

/// The rows of the table of settings, as `docs/settings.md` has them.
fn rows() -> Vec<String> {
    let cell = |text: String| text.replace('|', "\\|");
    let row = |key: &schema::Key| {
        let default = match key.default {
            "" => "none".to_owned(),
            value => format!("`{value}`"),
        };
        let takes =
            if key.secret { "a secret, which is never shown".to_owned() } else { key.kind.to_string() };
        let name = format!("`{}`<br>`{}`", key.name, key.variable());
        format!("| {name} | {default} | {} | {} |", cell(takes), cell(key.about.to_owned()))
    };
    schema::KEYS.iter().map(row).collect()
}

#[test]
fn the_page_of_settings_lists_each_with_what_it_takes_and_its_default() {
    let page = include_str!("../../docs/settings.md");
    let listed: Vec<&str> = page.lines().filter(|line| line.starts_with("| `")).collect();
    let rows = rows();
    let differs = rows.len() != listed.len() || rows.iter().zip(&listed).any(|(row, listed)| row != listed);
    assert!(!differs, "docs/settings.md should have this table:\n{}", rows.join("\n"));
}

#[test]
fn defaults_that_the_operations_page_names_are_those_of_the_settings() {
    let page = include_str!("../../docs/operations.md");
    let mut checked = Vec::new();
    for (at, _) in page.match_indices('`') {
        let rest = &page[at + 1..];
        // `name` (value): what stands in the parentheses, up to a comma, is the default if it is a value at all.
        let Some((name, after)) = rest.split_once('`') else { continue };
        let Some(key) = schema::find(name) else { continue };
        let Some(said) = after.trim_start().strip_prefix('(').and_then(|said| said.split([')', ',']).next())
        else {
            continue;
        };
        if let Some(value) = value_of(said) {
            assert_eq!(
                value,
                key.kind.parse(key.default).unwrap(),
                "`{name}` ({said}): the default is {}",
                key.default
            );
            checked.push(name);
        }
    }
    for name in ["maintainer.deletion_linger", "maintainer.deletion_grace", "maintainer.guard_keep_percent"] {
        assert!(checked.contains(&name), "{name} is not among {checked:?}");
    }
}

/// A number or a time span as prose has it, such as `7 days`.
fn value_of(said: &str) -> Option<Value> {
    let (number, unit) = said.trim().split_once(' ').unwrap_or((said.trim(), ""));
    let unit = match unit.trim_end_matches('s') {
        "" if number.parse::<u64>().is_ok() => return number.parse().ok().map(Value::Count),
        "" => return parse_span(number).map(Value::Span),
        "second" => "s",
        "minute" => "m",
        "hour" => "h",
        "day" => "d",
        _ => return None,
    };
    parse_span(&format!("{number}{unit}")).map(Value::Span)
}
