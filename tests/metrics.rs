//! Each service tells of all its metrics from the start, of the process and of the build.

mod system;

use std::collections::BTreeSet;
use std::path::Path;

use galerna_test_servers::{Mongo, RabbitMq};
use system::{Service, call, database, until};

/// The families that a crate registers, by the names in its source.
fn families(krate: &str) -> BTreeSet<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(krate).join("src/metrics.rs");
    let text = std::fs::read_to_string(path).unwrap();
    let is_name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    let literals = text.split('"').skip(1).step_by(2);
    let mut names: BTreeSet<String> =
        literals.filter(|l| l.starts_with("galerna_") && l.chars().all(is_name)).map(str::to_owned).collect();
    if krate == "dispatcher" {
        // They have their common beginning put before them.
        for maker in ["opts(", "seconds("] {
            for (at, _) in text.match_indices(maker) {
                let rest = text[at + maker.len()..].trim_start();
                if let Some((name, _)) = rest.strip_prefix('"').and_then(|rest| rest.split_once('"')) {
                    names.insert(format!("galerna_dispatcher_{name}"));
                }
            }
        }
    }
    assert!(!names.is_empty(), "{krate}");
    names
}

/// The text at `/metrics`.
async fn metrics(address: &str, token: &str) -> String {
    galerna_tls::install_default_provider();
    let request = reqwest::Client::new().get(format!("http://{address}/metrics")).bearer_auth(token);
    let answer = request.send().await.unwrap();
    assert_eq!(answer.status(), 200, "{address}");
    answer.text().await.unwrap()
}

/// Checks that all of these are told of, each with a value.
fn check(service: &str, text: &str, expected: &BTreeSet<String>) {
    let told: BTreeSet<&str> = text
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.split(['{', ' ']).next())
        .flat_map(|name| {
            let whole = ["_bucket", "_sum", "_count"].into_iter().find_map(|end| name.strip_suffix(end));
            [Some(name), whole].into_iter().flatten()
        })
        .collect();
    let process = [
        "cpu_seconds_total",
        "open_fds",
        "max_fds",
        "resident_memory_bytes",
        "start_time_seconds",
        "threads",
    ];
    let of_all =
        process.map(|name| format!("process_{name}")).into_iter().chain(["galerna_build_info".to_owned()]);
    let missing: Vec<String> =
        of_all.chain(expected.iter().cloned()).filter(|name| !told.contains(name.as_str())).collect();
    assert!(missing.is_empty(), "{service} does not tell of {missing:?}:\n{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn all_modules_in_one_process_tell_of_everything_at_each_of_their_addresses() {
    let folder = tempfile::tempdir().unwrap();
    let mut service = Service::start(folder.path(), &["up", "--listen", "127.0.0.1:0"]);
    service.said("all modules are up").await;
    let all: BTreeSet<String> =
        ["dispatcher", "maintainer", "notifier", "frontend", "console", "control", "server"]
            .into_iter()
            .flat_map(families)
            .collect();
    for name in ["dispatcher API", "frontend", "page", "admin server"] {
        let entry = service.said(&format!("the {name} listens")).await;
        let text = metrics(entry["fields"]["address"].as_str().unwrap(), "").await;
        check(name, &text, &all);
    }
    assert!(service.stop().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn each_module_of_its_own_tells_of_its_own() {
    let (rabbit, mongo) = (RabbitMq::shared().await, Mongo::shared().await);
    let (amqp, store) = (rabbit.vhost().await, database(&mongo.uri(), &mongo.unique("metrics")));
    let management = format!("broker.management_url={}", rabbit.management_uri());
    let folder = tempfile::tempdir().unwrap();
    let servers = ["--broker", &amqp, "--store", &store, "--set", &management];
    let start = |more: &[&str]| Service::start(folder.path(), &[&servers[..], more].concat());
    let mut dispatcher = start(&["dispatcher", "--listen", "127.0.0.1:0"]);
    let api = dispatcher.api().await;
    let mut running = Vec::new();
    for (command, listens, crates) in [
        ("maintainer", "maintainer", &["maintainer"][..]),
        ("worker", "admin server", &["control", "server"]),
        ("frontend", "frontend", &["frontend"]),
        ("notifier", "admin server", &["notifier"]),
        ("page", "page", &["console"]),
    ] {
        let free = ["--dispatcher", &api, "--set", "maintainer.listen=127.0.0.1:0"];
        let service = start(&[&free[..], &[command]].concat());
        let entry = service.said(&format!("the {listens} listens")).await;
        let address = entry["fields"]["address"].as_str().unwrap();
        if command == "worker" {
            // Of a topology it tells once that is there.
            let ready = format!("http://{address}/readyz");
            until("the worker is ready", || async { call("GET", &ready, None).await.0 == 200 }).await;
        }
        let text = metrics(address, "").await;
        check(command, &text, &crates.iter().copied().flat_map(families).collect());
        running.push(service);
    }
    let text = metrics(api.trim_start_matches("http://"), "").await;
    check("dispatcher", &text, &families("dispatcher"));
    for service in &mut running {
        assert!(service.stop().await.success(), "{}", service.log());
    }
    assert!(dispatcher.stop().await.success());
}
