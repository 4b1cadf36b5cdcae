//! What each crate may use, as `ARCHITECTURE.md` says it: the map is checked against the workspace.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use serde_json::Value;

type Arrows = BTreeMap<String, BTreeSet<String>>;

fn cargo(args: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO"));
    // What is asked needs no network: the build of this test has fetched everything.
    command.args(args).arg("--offline").current_dir(env!("CARGO_MANIFEST_DIR"));
    let output = command.output().expect("cargo runs");
    assert!(output.status.success(), "cargo {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("cargo writes text")
}

/// The block ```` ```arrows ```` of the map: `crate: what it may use`.
fn allowed() -> Arrows {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("ARCHITECTURE.md");
    let text = std::fs::read_to_string(path).expect("the map is there");
    let block = text.split("```arrows\n").nth(1).and_then(|rest| rest.split("```").next());
    let lines = block.expect("the map has a block of arrows").lines();
    let arrows: Arrows = lines
        .map(|line| {
            let (name, used) = line.split_once(':').unwrap_or_else(|| panic!("`{line}` has no colon"));
            (name.trim().to_owned(), used.split_whitespace().map(str::to_owned).collect())
        })
        .collect();
    assert!(!arrows.is_empty());
    arrows
}

/// A crate by the folder that it is in.
fn short(name: &str) -> &str {
    match name {
        "galerna" => "src",
        name => name.strip_prefix("galerna-").unwrap_or(name),
    }
}

/// What each crate uses of the workspace, but for its tests.
fn used() -> Arrows {
    let metadata: Value =
        serde_json::from_str(&cargo(&["metadata", "--no-deps", "--format-version", "1"])).expect("JSON");
    let packages = metadata["packages"].as_array().expect("packages");
    packages
        .iter()
        .map(|package| {
            let dependencies = package["dependencies"].as_array().expect("dependencies");
            let used = dependencies
                .iter()
                .filter(|d| d["kind"] != "dev" && d["path"].is_string())
                .map(|d| short(d["name"].as_str().expect("a name")).to_owned());
            (short(package["name"].as_str().expect("a name")).to_owned(), used.collect())
        })
        .collect()
}

#[test]
fn each_crate_uses_what_the_map_allows_and_nothing_else() {
    let (allowed, used) = (allowed(), used());
    let mut wrong = Vec::new();
    for (name, uses) in &used {
        let Some(may) = allowed.get(name) else {
            wrong.push(format!("{name} is not on the map"));
            continue;
        };
        wrong.extend(uses.difference(may).map(|other| format!("{name} may not use {other}, and does")));
        wrong.extend(may.difference(uses).map(|other| format!("{name} may use {other}, and does not")));
    }
    wrong.extend(
        allowed.keys().filter(|name| !used.contains_key(*name)).map(|name| format!("{name} is gone")),
    );
    assert!(
        wrong.is_empty(),
        "change the code, or the arrows in ARCHITECTURE.md if the new one is meant:\n{}",
        wrong.join("\n")
    );
}

#[test]
fn no_crate_uses_itself_over_others() {
    let allowed = allowed();
    fn visit<'a>(name: &'a str, arrows: &'a Arrows, path: &mut Vec<&'a str>, done: &mut BTreeSet<&'a str>) {
        assert!(!path.contains(&name), "{} -> {name}", path.join(" -> "));
        if done.insert(name) {
            path.push(name);
            for used in arrows.get(name).into_iter().flatten() {
                visit(used, arrows, path, done);
            }
            path.pop();
        }
    }
    let mut done = BTreeSet::new();
    for name in allowed.keys() {
        visit(name, &allowed, &mut Vec::new(), &mut done);
    }
}

/// The libraries that a crate is built with, with these features only.
fn tree(package: &str, features: &str) -> BTreeSet<String> {
    let args = [
        "tree",
        "-p",
        package,
        "--no-default-features",
        "--features",
        features,
        "-e",
        "normal",
        "--prefix",
        "none",
    ];
    let tree = cargo(&args);
    let names: BTreeSet<String> =
        tree.lines().filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect();
    assert!(names.contains(package), "{package}: {names:?}");
    names
}

#[test]
fn who_writes_a_topology_compiles_no_server_no_database_and_no_command() {
    let heavy =
        ["axum", "hyper", "mongodb", "lapin", "rusqlite", "clap", "maud", "reqwest", "utoipa", "prometheus"];
    for (package, features) in
        [("galerna", ""), ("galerna-spouts", ""), ("galerna-spouts", "leased"), ("galerna-bolts", "")]
    {
        let found = tree(package, features);
        let found: Vec<&str> = heavy.into_iter().filter(|name| found.contains(*name)).collect();
        assert!(found.is_empty(), "{package} with features [{features}] pulls in {found:?}");
    }
}

#[test]
fn ingestion_has_the_backends_that_are_asked_for() {
    for (features, with, without) in [
        ("ingest", &["galerna-lease"][..], &["mongodb", "lapin", "rusqlite", "clap"][..]),
        ("ingest,embedded", &["rusqlite"], &["mongodb", "lapin", "clap"]),
        ("ingest,rabbitmq", &["lapin"], &["mongodb", "rusqlite", "clap"]),
        ("ingest,mongodb", &["mongodb"], &["lapin", "rusqlite", "clap"]),
        ("cli", &["mongodb", "lapin", "rusqlite", "clap"], &[]),
    ] {
        let found = tree("galerna", features);
        for name in with {
            assert!(found.contains(*name), "{features} lacks {name}");
        }
        for name in without {
            assert!(!found.contains(*name), "{features} pulls in {name}");
        }
    }
}
