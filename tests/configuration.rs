//! The configuration is checked before anything starts, and can be shown.

mod system;

use system::{DEADLINE, end_of, errors, run, run_well};

/// Command line, content of `galerna.toml`, variable, and what the error must say.
type Case<'a> = (&'a [&'a str], &'a str, Option<(&'a str, &'a str)>, &'a [&'a str]);

#[test]
fn a_wrong_setting_ends_every_command_before_it_starts_anything() {
    let cases: [Case<'_>; 16] = [
        (
            &["up"],
            "[dispatcher]\nlesae = \"5s\"",
            None,
            &["`dispatcher.lesae`", "galerna.toml", "`dispatcher.lease`"],
        ),
        (
            &["up"],
            "[dispatcher]\nlease = \"soon\"",
            None,
            &["`dispatcher.lease`", "`soon`", "from 500ms to 1d"],
        ),
        (
            &["demo", "--exit"],
            "",
            Some(("GALERNA_WORKER_LEASES", "many")),
            &["`worker.leases`", "`many`", "GALERNA_WORKER_LEASES"],
        ),
        (
            &["worker"],
            "",
            Some(("GALERNA_WORKER_LEASE", "1")),
            &["`GALERNA_WORKER_LEASE`", "`GALERNA_WORKER_LEASES`"],
        ),
        (&["up", "--broker", "redis://h"], "", None, &["`broker.url`", "`redis://h`", "amqp://"]),
        (
            &["up", "--broker", "amqp://"],
            "",
            None,
            &["`broker.url`", "`amqp://`", "names a host", "amqp://localhost"],
        ),
        (&["up", "--listen", "0.0.0.0:7676"], "", None, &["`api.listen`", "0.0.0.0:7676", "`api.token`"]),
        (&["up", "--set", "worker.leases"], "", None, &["--set worker.leases", "KEY=VALUE"]),
        (&["up", "--config", "absent.toml"], "", None, &["absent.toml", "--config"]),
        (&["up", "--log-format", "xml"], "", None, &["`log.format`", "`xml`", "text, json"]),
        (&["up", "--set", "ingest.parameters=absent.csv"], "", None, &["`ingest.parameters`", "absent.csv"]),
        (&["worker", "--set", "ingest.rules=absent.json"], "", None, &["`ingest.rules`", "absent.json"]),
        (&["up", "--set", "notifier.allow=10.0.0.0/99"], "", None, &["`notifier.allow`", "10.0.0.0/99"]),
        (&["notifier", "--set", "notifier.smtp_url=mail"], "", None, &["`notifier.smtp_url`", "smtps://"]),
        (
            &["page", "--set", "page.workers=foo"],
            "",
            None,
            &["`page.workers`", "`foo`", "http://worker-1:8092"],
        ),
        (&["up"], "not toml", None, &["galerna.toml", "is not TOML"]),
    ];
    for (args, file, variable, parts) in cases {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("galerna.toml"), file).unwrap();
        let mut command = system::command(folder.path(), args);
        if let Some((name, value)) = variable {
            command.env(name, value);
        }
        let output = end_of(&mut command, DEADLINE);
        assert_eq!(output.status.code(), Some(2), "{args:?} {file}: {}", errors(&output));
        for part in parts {
            assert!(errors(&output).contains(part), "{args:?} {file}: {} lacks {part}", errors(&output));
        }
        assert!(!folder.path().join(".galerna").exists(), "{args:?} {file}: something was started");
    }
}

#[test]
fn one_process_of_several_cannot_have_an_embedded_broker_or_store() {
    let folder = tempfile::tempdir().unwrap();
    for (args, parts) in [
        (&["dispatcher"][..], &["MongoDB", "galerna up"][..]),
        (&["maintainer"], &["RabbitMQ", "MongoDB", "galerna up"]),
        (&["worker"], &["RabbitMQ", "MongoDB", "galerna up"]),
        (&["worker", "--broker", "amqp://localhost"], &["MongoDB"]),
    ] {
        let output = run(folder.path(), args);
        assert_eq!(output.status.code(), Some(1), "{args:?}: {}", errors(&output));
        for part in parts {
            assert!(errors(&output).contains(part), "{args:?}: {} lacks {part}", errors(&output));
        }
    }
}

#[test]
fn the_effective_configuration_is_shown_with_where_it_came_from_and_without_secrets() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("galerna.toml"), "[dispatcher]\nlease = \"10s\"\n").unwrap();
    let mut command = system::command(
        folder.path(),
        &["--broker", "amqp://u:hunter2@h", "--set", "api.token=0123456789abcdef", "config", "--json"],
    );
    let output = end_of(command.env("GALERNA_WORKER_LEASES", "3"), DEADLINE);
    assert!(output.status.success(), "{}", errors(&output));
    let shown: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    for (name, value, from) in [
        ("dispatcher.lease", "10s", "galerna.toml"),
        ("worker.leases", "3", "GALERNA_WORKER_LEASES"),
        ("broker.url", "amqp://u:***@h", "--broker"),
        ("api.token", "***", "--set"),
        ("store.url", "embedded", "default"),
        ("api.listen", "127.0.0.1:7676", "default"),
    ] {
        assert_eq!(shown[name]["value"], value, "{name}");
        assert_eq!(shown[name]["from"], from, "{name}");
    }
    let table = run_well(folder.path(), &["config"]);
    assert!(table.contains("dispatcher.lease") && table.contains("10s"), "{table}");
}

#[test]
fn the_topology_is_printed_in_four_forms() {
    let folder = tempfile::tempdir().unwrap();
    for (form, part) in
        [("table", "validate"), ("dot", "digraph"), ("mermaid", "flowchart"), ("json", "\"validate\"")]
    {
        let printed = run_well(folder.path(), &["topology", "--format", form]);
        assert!(printed.contains(part), "{form}: {printed}");
    }
}
