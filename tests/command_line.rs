//! What all commands have in common: forms of output, pages, watching, errors for programs, completions, the manual, and what is
//! done to many queues at once.

mod system;

use std::path::Path;
use std::process::{Output, Stdio};

use serde_json::{Value, json};
use system::{DEADLINE, Service, call, command, end_of, errors, output_of, run, run_well, until};

const SAMPLES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/data/sample_messages.ndjson");
/// Accounts that sent the samples.
const ACCOUNTS: usize = 13;

async fn up(folder: &Path) -> (Service, String) {
    let service = Service::start(folder, &["up", "--listen", "127.0.0.1:0"]);
    let api = service.api().await;
    (service, api)
}

/// What is published makes queues; the dispatcher sees them a moment later.
async fn queues_are_known(api: &str, queues: usize) {
    let url = format!("{api}/queue/status");
    until("the dispatcher knows the queues", || async { call("GET", &url, None).await.1["total"] == queues })
        .await;
}

fn parsed(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|e| panic!("{e}: {text}"))
}

/// The error that it told as JSON.
fn told(output: &Output) -> Value {
    let said = errors(output);
    let line = said.lines().find(|line| line.starts_with('{')).unwrap_or_else(|| panic!("no JSON: {said}"));
    parsed(line)["error"].clone()
}

#[test]
fn shells_and_man_know_every_command() {
    let folder = tempfile::tempdir().unwrap();
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let script = run_well(folder.path(), &["completions", shell]);
        for word in ["queues", "sources", "rotate", "--output"] {
            assert!(script.contains(word.trim_start_matches("--")), "{shell}: {word}");
        }
    }
    // A configuration that is wrong is in the way of neither.
    std::fs::write(folder.path().join("galerna.toml"), "nonsense = 1").unwrap();
    run_well(folder.path(), &["completions", "bash"]);
    let said = run_well(folder.path(), &["man", "man/man1"]);
    assert!(said.contains("man1"), "{said}");
    for page in ["galerna.1", "galerna-queues-dead-replay.1", "galerna-sources-rotate.1"] {
        let text = std::fs::read_to_string(folder.path().join("man/man1").join(page)).unwrap();
        assert!(text.starts_with(".ie") && text.contains("SYNOPSIS"), "{page}");
    }
    let taken = run(folder.path(), &["man", "galerna.toml"]);
    assert_eq!(taken.status.code(), Some(1));
    assert!(errors(&taken).contains("galerna.toml"), "{}", errors(&taken));
}

#[test]
fn errors_are_json_for_programs_and_a_sentence_for_people() {
    let folder = tempfile::tempdir().unwrap();
    let absent = ["--dispatcher", "http://127.0.0.1:9", "--set", "page.url=http://127.0.0.1:9"];
    let galerna = |args: &[&str]| run(folder.path(), &[&absent, args].concat());
    for (args, code, exit) in [
        (&["queues", "list", "--json"][..], "no_answer", 1),
        (&["queues", "list", "--output", "json"], "no_answer", 1),
        (&["rules", "list", "-o", "json"], "no_answer", 1),
        (&["sources", "list", "--json"], "failed", 1),
        (&["trace", "nobody", "--json"], "failed", 1),
        (&["queues", "lost", "--json"], "usage", 2),
        (&["queues", "list", "--output=json", "--page", "many"], "usage", 2),
        (&["queues", "list", "--json", "--output", "csv"], "usage", 2),
        (&["queues", "list", "--json", "--all", "--page", "2"], "usage", 2),
        (&["queues", "stop", "--json", "--watch"], "usage", 2),
        (&["queues", "list", "--json", "--watch=soon"], "usage", 2),
        (&["config", "--json", "--set", "worker.leases=0"], "configuration", 2),
    ] {
        let output = galerna(args);
        assert_eq!(output.status.code(), Some(exit), "{args:?}: {}", errors(&output));
        let error = told(&output);
        assert_eq!((&error["code"], &error["exit_code"]), (&json!(code), &json!(exit)), "{args:?}: {error}");
        let said = |name: &str| error[name].as_str().is_some_and(|text| !text.is_empty());
        assert!(said("message") && said("help"), "{args:?}: {error}");
    }
    let output = galerna(&["queues", "list"]);
    assert!(errors(&output).starts_with("error: no dispatcher answers at"), "{}", errors(&output));
    // Colours on request, and none where nobody asked or somebody asked for none.
    let colored = |variables: &[(&str, &str)]| {
        let mut command = command(folder.path(), &[&absent[..], &["queues", "list"]].concat());
        command.env_remove("NO_COLOR").env_remove("CLICOLOR_FORCE").envs(variables.iter().copied());
        errors(&end_of(&mut command, DEADLINE)).contains('\u{1b}')
    };
    assert!(!colored(&[]) && colored(&[("CLICOLOR_FORCE", "1")]));
    assert!(!colored(&[("NO_COLOR", "1")]));
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_have_one_shape_and_come_whole_or_in_pages() {
    let folder = tempfile::tempdir().unwrap();
    let (mut service, api) = up(folder.path()).await;
    let galerna = |args: &[&str]| run_well(folder.path(), &[&["--dispatcher", &api], args].concat());
    galerna(&["publish", SAMPLES]);
    queues_are_known(&api, ACCOUNTS).await;
    let list = parsed(&galerna(&["queues", "list", "--limit", "3", "--output", "json"]));
    assert_eq!((list["items"].as_array().unwrap().len(), &list["total"]), (3, &json!(ACCOUNTS)));
    let first = list["items"][0]["queue"].as_str().unwrap();
    let all = parsed(&galerna(&["queues", "list", "--all", "-o", "json"]));
    assert_eq!(all["items"].as_array().unwrap().len(), ACCOUNTS);
    // What the API answers, for who has read it so far.
    let answer = parsed(&galerna(&["queues", "list", "--all", "--json"]));
    assert_eq!(answer["queues"].as_array().unwrap().len(), ACCOUNTS);
    assert!(answer["counts"].is_object() && answer["dispatcher"].is_object());

    let names = galerna(&["queues", "list", "--limit", "3", "-o", "name"]);
    assert_eq!(names.lines().count(), 3);
    assert_eq!(names.lines().next(), Some(first));
    let csv = galerna(&["queues", "list", "--all", "-o", "csv"]);
    let lines: Vec<&str> = csv.lines().collect();
    assert_eq!(lines[0], "queue,account,state,ready,unacked,epoch,holder,lease ends in (ms),last delivered");
    assert_eq!(lines.len(), ACCOUNTS + 1);
    assert!(lines[1].starts_with(&format!("{first},{first},")), "{csv}");
    for (args, shape) in [(&["queues", "show", first][..], "queue"), (&["queues", "strategy"], "configured")]
    {
        let one = parsed(&galerna(&[args, &["-o", "json"]].concat()));
        assert!(one[shape].is_string(), "{args:?}: {one}");
        assert!(galerna(&[args, &["-o", "csv"]].concat()).starts_with("field,value\n"));
    }
    let name = galerna(&["queues", "show", first, "-o", "name"]);
    assert_eq!(name.trim_end(), first);
    for args in [&["queues", "dead", "list"][..], &["config"]] {
        let list = parsed(&galerna(&[args, &["-o", "json"]].concat()));
        assert_eq!(
            list["items"].as_array().map(Vec::len),
            list["total"].as_u64().map(|n| n as usize),
            "{args:?}"
        );
    }
    let table = galerna(&["queues", "list", "--all"]);
    assert!(
        table.contains("13 of 13 queues") && !table.contains('\u{1b}') && !table.contains('\u{2061}'),
        "{table}"
    );

    // Watched until it is interrupted.
    let mut watching =
        command(folder.path(), &["--dispatcher", &api, "queues", "list", "-o", "name", "--watch=100ms"]);
    let mut watching = watching.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(watching.stdout.take().unwrap()));
    for _ in 0..3 * ACCOUNTS {
        lines.next().unwrap().unwrap();
    }
    let status =
        std::process::Command::new("kill").args(["-INT", &watching.id().to_string()]).status().unwrap();
    assert!(status.success());
    drop(lines);
    let ended = output_of(watching, "queues list --watch", DEADLINE);
    assert_eq!(ended.status.code(), Some(0), "{}", errors(&ended));
    assert!(service.stop().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn many_queues_and_dead_letters_are_steered_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let (mut service, api) = up(folder.path()).await;
    let galerna = |args: &[&str]| run(folder.path(), &[&["--dispatcher", &api], args].concat());
    let well = |args: &[&str]| {
        let output = galerna(args);
        assert!(output.status.success(), "{args:?}: {}", errors(&output));
        String::from_utf8(output.stdout).unwrap()
    };
    let file = folder.path().join("some.ndjson");
    let reading = |p: u32| {
        format!(r#"{{"did":"m{p}","values":[{{"p":{p},"v":1.0}}],"sqn":1,"ts":"2017-01-01T00:00:00Z"}}"#)
    };
    std::fs::write(&file, [reading(998), reading(999)].join("\n")).unwrap();
    for account in ["North-1", "North-2", "South-1"] {
        well(&["publish", file.to_str().unwrap(), "--account", account, "--plain-json"]);
    }
    queues_are_known(&api, 3).await;
    let paused = || parsed(&well(&["queues", "list", "--state", "pause", "-o", "json"]))["total"].clone();
    let done =
        parsed(&well(&["queues", "pause", "--search", "north", "--reason", "works", "--yes", "--json"]));
    assert_eq!(
        (&done["total"], &done["items"][0]["queue"], &done["items"][0]["done"]),
        (&json!(2), &json!("North-1"), &json!(true))
    );
    assert_eq!(paused(), 2);
    well(&["queues", "pause", "--all", "--yes"]);
    assert_eq!(paused(), 3);
    let said = well(&["queues", "unpause", "North-1", "South-1"]);
    assert!(said.contains("2 of 2 queues (North-1, South-1) can be leased"), "{said}");
    well(&["queues", "unpause", "North-2"]);
    assert_eq!(paused(), 0);
    // One that is not there keeps no other from it.
    let some = galerna(&["queues", "pause", "South-1", "Nobody"]);
    assert_eq!(some.status.code(), Some(1));
    assert!(errors(&some).contains("1 of 2 queues could not be changed"), "{}", errors(&some));
    assert_eq!(paused(), 1);
    well(&["queues", "unpause", "South-1"]);
    for wrong in [
        &["queues", "pause"][..],
        &["queues", "pause", "A", "--all"],
        &["queues", "pause", "--search", "zzz"],
    ] {
        assert!(!galerna(wrong).status.success(), "{wrong:?}");
    }

    // Each message has one reading of an unknown parameter.
    let dead = || async {
        let counts = parsed(&well(&["queues", "dead", "list", "-o", "json"]));
        counts["items"].as_array().unwrap().iter().map(|q| q["dead"].as_u64().unwrap()).sum::<u64>()
    };
    until("all are dead letters", || async { dead().await == 6 }).await;
    let all = parsed(&well(&["queues", "dead", "list", "North-1", "--all", "-o", "json"]));
    assert_eq!(all["total"], 2);
    let discarded =
        parsed(&well(&["queues", "dead", "discard", "--all-queues", "--matching", "999", "--yes", "--json"]));
    assert_eq!(
        (&discarded["total"], &discarded["items"][2]["discarded"]),
        (&json!(3), &json!(1)),
        "{discarded}"
    );
    assert_eq!(dead().await, 3);
    let replayed = well(&["queues", "dead", "replay", "North-1", "--all", "--matching", "998", "--yes"]);
    assert!(replayed.contains("1 of 1 dead letters of queue North-1 replayed"), "{replayed}");
    let none =
        galerna(&["queues", "dead", "replay", "--all-queues", "--matching", "nothing like it", "--json"]);
    assert_eq!((none.status.code(), &told(&none)["code"]), (Some(1), &json!("failed")));
    until("it is a dead letter again", || async { dead().await == 3 }).await;
    well(&["queues", "dead", "discard", "--all-queues", "--yes"]);
    assert_eq!(dead().await, 0);
    for wrong in [
        &["queues", "dead", "discard", "--all"][..],
        &["queues", "dead", "discard", "A", "--all-queues"],
        &["queues", "dead", "replay", "A"],
    ] {
        assert_eq!(galerna(wrong).status.code(), Some(2), "{wrong:?}");
    }
    assert!(service.stop().await.success());
}
