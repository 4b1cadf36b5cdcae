//! What `deploy/` and `docs/operations.md` say is true of this build: settings, commands, ports, metrics, alerts.

mod system;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use galerna_test_servers::{Mongo, RabbitMq};
use serde::Deserialize;
use serde_json::Value;
use system::{DEADLINE, Service, call, command, end_of, errors, run, run_well, until};

const MODULES: [&str; 6] = ["dispatcher", "maintainer", "worker", "frontend", "notifier", "page"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: impl AsRef<Path>) -> String {
    let path = root().join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// All files below a folder.
fn files(folder: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display())) {
            let path = entry.unwrap().path();
            if path.is_dir() { folders.push(path) } else { found.push(path) }
        }
    }
    found.sort();
    found
}

fn extension(path: &Path) -> &str {
    path.extension().and_then(|e| e.to_str()).unwrap_or_default()
}

/// The documents of a YAML file.
fn yaml(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap();
    let documents = serde_norway::Deserializer::from_str(&text);
    documents
        .map(|document| Value::deserialize(document).unwrap_or_else(|e| panic!("{}: {e}", path.display())))
        .collect()
}

/// The only document of a YAML file of the repository.
fn one(path: &str) -> Value {
    let mut documents = yaml(&root().join(path));
    assert_eq!(documents.len(), 1, "{path}");
    documents.remove(0)
}

/// The words made of these characters, wherever they stand.
fn words<'a>(text: &'a str, of: impl Fn(char) -> bool + Copy + 'a) -> impl Iterator<Item = &'a str> {
    text.split(move |c: char| !of(c)).filter(|word| !word.is_empty())
}

/// All settings with their values when nothing is set.
fn settings() -> BTreeMap<String, String> {
    let folder = tempfile::tempdir().unwrap();
    let shown: Value = serde_json::from_str(&run_well(folder.path(), &["config", "--json"])).unwrap();
    let shown = shown.as_object().unwrap();
    shown
        .iter()
        .map(|(name, of)| (name.clone(), of["value"].as_str().unwrap_or_default().to_owned()))
        .collect()
}

#[test]
fn every_file_parses() {
    let mut seen = BTreeSet::new();
    for path in files("deploy") {
        let kind = extension(&path);
        match kind {
            "yaml" => assert!(!yaml(&path).is_empty(), "{}", path.display()),
            "json" => drop(serde_json::from_str::<Value>(&read(&path)).unwrap()),
            _ => continue,
        }
        seen.insert(kind.to_owned());
    }
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), ["json", "yaml"]);
}

#[test]
fn every_variable_that_is_set_is_a_setting() {
    let known: BTreeSet<String> =
        settings().keys().map(|name| format!("GALERNA_{}", name.to_uppercase().replace('.', "_"))).collect();
    let is_name = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
    let mut seen = 0;
    for path in files("deploy").into_iter().chain([root().join("docs/operations.md")]) {
        let Ok(text) = std::fs::read_to_string(&path) else { continue };
        for word in words(&text, is_name).filter(|word| word.starts_with("GALERNA_") && word.len() > 8) {
            assert!(known.contains(word), "{} sets {word}, which is no setting", path.display());
            seen += 1;
        }
    }
    assert!(seen > 30, "{seen}");
}

/// The port at which a module listens by default.
fn port(settings: &BTreeMap<String, String>, module: &str) -> u64 {
    let name = if module == "dispatcher" { "api.listen".to_owned() } else { format!("{module}.listen") };
    let address = settings.get(&name).unwrap_or_else(|| panic!("there is no setting {name}"));
    address.rsplit(':').next().unwrap().parse().unwrap()
}

#[test]
fn every_module_is_deployed_with_its_command_and_its_port() {
    let settings = settings();
    let folder = tempfile::tempdir().unwrap();
    let compose = one("deploy/compose.yaml");
    let prometheus = one("deploy/prometheus/prometheus.yaml");
    let kustomization = one("deploy/kubernetes/kustomization.yaml");
    for module in MODULES {
        run_well(folder.path(), &[module, "--help"]);
        let port = port(&settings, module);

        let service = &compose["services"][module];
        assert_eq!(service["command"][0], module, "compose");
        assert_eq!(service["environment"]["HEALTHCHECK_PORT"], port.to_string(), "compose: {module}");

        let jobs = prometheus["scrape_configs"].as_array().unwrap();
        let job = jobs.iter().find(|job| job["job_name"] == format!("galerna-{module}"));
        let job = job.unwrap_or_else(|| panic!("prometheus: no job for {module}"));
        assert_eq!(job["dns_sd_configs"][0]["names"][0], module, "prometheus");
        assert_eq!(job["dns_sd_configs"][0]["port"], port, "prometheus: {module}");

        let file = format!("{module}.yaml");
        assert!(
            kustomization["resources"].as_array().unwrap().contains(&Value::from(file.as_str())),
            "{file}"
        );
        let documents = yaml(&root().join("deploy/kubernetes").join(&file));
        let of = |kind: &str| documents.iter().find(|document| document["kind"] == kind);
        let pod = &of("Deployment").unwrap()["spec"]["template"]["spec"];
        let container = &pod["containers"][0];
        assert_eq!(container["args"][0], module, "{file}");
        assert_eq!(container["ports"][0]["containerPort"], port, "{file}");
        assert_eq!(container["readinessProbe"]["httpGet"]["path"], "/readyz", "{file}");
        assert_eq!(container["livenessProbe"]["httpGet"]["path"], "/healthz", "{file}");
        assert_eq!(container["securityContext"]["readOnlyRootFilesystem"], true, "{file}");
        assert_eq!(pod["securityContext"]["runAsNonRoot"], true, "{file}");
        assert!(container["resources"]["requests"]["memory"].is_string(), "{file}");
        assert!(of("PodDisruptionBudget").is_some(), "{file}");

        let unit = read(format!("deploy/systemd/galerna-{module}@.service"));
        assert!(unit.contains(&format!("/etc/galerna/galerna.toml {module}\n")), "{unit}");
    }
}

/// `NAME=value` words of a text.
fn assignments(text: &str) -> BTreeMap<String, String> {
    let words =
        text.lines().filter(|line| !line.trim_start().starts_with('#')).flat_map(str::split_whitespace);
    words
        .filter_map(|word| word.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

/// The environment of a service of the compose file, with what it takes over from others.
fn environment(of: &Value, into: &mut BTreeMap<String, String>) {
    for (name, value) in of.as_object().unwrap() {
        match value {
            Value::Object(_) if name == "<<" => environment(value, into),
            _ => drop(into.insert(name.clone(), value.as_str().unwrap().to_owned())),
        }
    }
}

/// Puts variables in the place of `${NAME}`, `${NAME:-instead}` and `${NAME:?complaint}`.
fn filled_in(text: &str, variables: &BTreeMap<String, String>) -> String {
    let Some((before, rest)) = text.split_once("${") else { return text.to_owned() };
    let (inside, after) = rest.split_once('}').unwrap();
    let (name, instead) = inside.split_once(':').unwrap_or((inside, ""));
    let value = variables.get(name).map(String::as_str).filter(|value| !value.is_empty());
    let value = value.or(instead.strip_prefix('-')).unwrap_or_else(|| panic!("env.example has no {name}"));
    format!("{before}{value}{}", filled_in(after, variables))
}

/// Whether the settings are accepted that a process gets from this environment.
fn accepted(environment: &BTreeMap<String, String>, what: &str) {
    let folder = tempfile::tempdir().unwrap();
    let mut config = command(folder.path(), &["config"]);
    config.envs(environment.iter().filter(|(name, _)| name.starts_with("GALERNA_")));
    let output = end_of(&mut config, DEADLINE);
    assert!(output.status.success(), "{what}: {}", errors(&output));
}

#[test]
fn the_environment_of_each_container_is_accepted() {
    let image = assignments(&read("deploy/Dockerfile"));
    let example = assignments(&read("deploy/env.example"));
    let compose = one("deploy/compose.yaml");
    for module in MODULES {
        let mut all = image.clone();
        let mut own = BTreeMap::new();
        environment(&compose["services"][module]["environment"], &mut own);
        all.extend(own.into_iter().map(|(name, value)| (name, filled_in(&value, &example))));
        let listen = if module == "dispatcher" { "API" } else { module }.to_uppercase();
        let address = all.get(&format!("GALERNA_{listen}_LISTEN")).unwrap();
        assert_eq!(address, &format!("0.0.0.0:{}", all["HEALTHCHECK_PORT"]), "{module} is reached by others");
        accepted(&all, module);
    }
    let mut all = image;
    environment(&one("deploy/kubernetes/config.yaml")["data"], &mut all);
    environment(&one("deploy/kubernetes/secret.example.yaml")["stringData"], &mut all);
    let page = yaml(&root().join("deploy/kubernetes/page.yaml"));
    for variable in page[0]["spec"]["template"]["spec"]["containers"][0]["env"].as_array().unwrap() {
        let of = |name: &str| variable[name].as_str().unwrap().to_owned();
        all.insert(of("name"), of("value"));
    }
    assert_eq!(all["GALERNA_PAGE_LISTEN"], "0.0.0.0:8090");
    accepted(&all, "kubernetes");
}

#[test]
fn the_configuration_of_the_systemd_units_is_accepted() {
    let folder = tempfile::tempdir().unwrap();
    let file = root().join("deploy/systemd/galerna.toml");
    let output = run(folder.path(), &["--config", file.to_str().unwrap(), "config"]);
    assert!(output.status.success(), "{}", errors(&output));
}

#[test]
fn systemd_accepts_the_units() {
    let folder = tempfile::tempdir().unwrap();
    let mut units = Vec::new();
    for path in files("deploy/systemd").into_iter().filter(|path| extension(path) == "service") {
        let unit = read(&path).replace("/usr/local/bin/galerna", env!("CARGO_BIN_EXE_galerna"));
        // A section begins a line, and a setting is a name and a value.
        for line in unit.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
            let section = line.starts_with('[') && line.ends_with(']');
            assert!(section || line.split_once('=').is_some(), "{}: {line}", path.display());
        }
        for section in ["[Unit]", "[Service]", "[Install]", "NoNewPrivileges=yes", "ProtectSystem=strict"] {
            assert!(unit.contains(section), "{}: {section}", path.display());
        }
        let name = path.file_name().unwrap().to_str().unwrap().replace("@.", "@1.");
        let copy = folder.path().join(name);
        std::fs::write(&copy, unit).unwrap();
        units.push(copy);
    }
    assert_eq!(units.len(), MODULES.len() + 1);
    // Where there is no systemd, that each line parses has to do.
    let Ok(output) = Command::new("systemd-analyze").args(["verify", "--man=no"]).args(&units).output()
    else {
        return;
    };
    assert!(output.status.success(), "{}", errors(&output));
}

/// The expressions of the alert rules, by alert.
fn alerts() -> BTreeMap<String, Value> {
    let rules = one("deploy/prometheus/rules.yaml");
    let groups = rules["groups"].as_array().unwrap();
    let rules = groups.iter().flat_map(|group| group["rules"].as_array().unwrap());
    rules.map(|rule| (rule["alert"].as_str().unwrap().to_owned(), rule.clone())).collect()
}

/// What is asked of Prometheus anywhere in `deploy/`, with where that is.
fn queries() -> Vec<(String, String)> {
    fn collect(value: &Value, at: &str, into: &mut Vec<(String, String)>) {
        match value {
            Value::Object(fields) => {
                for (name, value) in fields {
                    match value {
                        Value::String(query) if matches!(&**name, "expr" | "query") => {
                            into.push((at.to_owned(), query.clone()));
                        }
                        _ => collect(value, at, into),
                    }
                }
            }
            Value::Array(values) => values.iter().for_each(|value| collect(value, at, into)),
            _ => {}
        }
    }
    let mut found = Vec::new();
    for path in files("deploy") {
        let at = path.display().to_string();
        match extension(&path) {
            "yaml" => yaml(&path).iter().for_each(|document| collect(document, &at, &mut found)),
            "json" => collect(&serde_json::from_str(&read(&path)).unwrap(), &at, &mut found),
            _ => {}
        }
    }
    found
}

/// The folders of the crates' sources.
fn crates() -> Vec<String> {
    let mut folders = vec!["src".to_owned()];
    for entry in std::fs::read_dir(root()).unwrap() {
        let path = entry.unwrap().path();
        if path.join("Cargo.toml").is_file() && path.join("src").is_dir() {
            folders.push(format!("{}/src", path.file_name().unwrap().to_str().unwrap()));
        }
    }
    folders
}

/// The metrics that the modules register, by their sources: a metric with labels is in the text of `/metrics` only from its
/// first use on, so that the text of a process that has just started lacks many.
fn registered() -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    let is_name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    for folder in crates() {
        for path in files(&folder).into_iter().filter(|path| extension(path) == "rs") {
            let text = std::fs::read_to_string(&path).unwrap();
            for literal in text.split('"').skip(1).step_by(2) {
                if literal.starts_with("galerna_") && literal.chars().all(is_name) {
                    names.insert(literal.to_owned());
                }
            }
        }
    }
    // The dispatcher's have their common beginning put before them.
    let text = read("dispatcher/src/metrics.rs");
    for maker in ["opts(", "seconds("] {
        for (at, _) in text.match_indices(maker) {
            let rest = text[at + maker.len()..].trim_start();
            if let Some((name, _)) = rest.strip_prefix('"').and_then(|rest| rest.split_once('"')) {
                names.insert(format!("galerna_dispatcher_{name}"));
            }
        }
    }
    names
}

/// What RabbitMQ's own plugin (rabbitmq_prometheus 3.10 and later) tells of.
const RABBITMQ: [&str; 8] = [
    "rabbitmq_alarms_free_disk_space_watermark",
    "rabbitmq_alarms_memory_used_watermark",
    "rabbitmq_disk_space_available_bytes",
    "rabbitmq_disk_space_available_limit_bytes",
    "rabbitmq_process_resident_memory_bytes",
    "rabbitmq_queue_messages_ready",
    "rabbitmq_queue_messages_unacked",
    "rabbitmq_resident_memory_limit_bytes",
];

/// The metrics that `deploy/` asks for, each with where.
fn asked_for() -> Vec<(String, String)> {
    let is_name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    let mut found = Vec::new();
    for (at, query) in queries() {
        // What stands in quotes is a label's value.
        let outside: String = query.split('"').step_by(2).collect();
        let names = words(&outside, is_name)
            .filter(|word| word.starts_with("galerna_") || word.starts_with("rabbitmq_"));
        found.extend(names.map(|name| (at.clone(), name.to_owned())));
    }
    found
}

#[test]
fn every_metric_that_is_asked_for_exists() {
    let registered = registered();
    let asked = asked_for();
    for (at, name) in &asked {
        let base = ["_bucket", "_count", "_sum"].iter().find_map(|end| name.strip_suffix(end));
        let ours = registered.contains(name) || base.is_some_and(|base| registered.contains(base));
        assert!(ours || RABBITMQ.contains(&&**name), "{at} asks for {name}, which nothing registers");
    }
    assert!(asked.len() > 60, "{asked:?}");
}

/// Whether `deploy/healthcheck` finds a module alive.
fn is_alive(port: &str) -> bool {
    let script = root().join("deploy/healthcheck");
    Command::new("bash").arg(script).arg(port).output().unwrap().status.success()
}

/// The names of the metrics that a `/metrics` tells of.
fn told(text: &str) -> BTreeSet<String> {
    let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    types.filter_map(|rest| rest.split(' ').next()).map(str::to_owned).collect()
}

/// What stands at an address, with the token with which Prometheus asks.
async fn get(url: &str) -> (u16, String) {
    galerna_tls::install_default_provider();
    let client = reqwest::Client::builder().timeout(Duration::from_secs(30)).build().unwrap();
    // Nobody listens yet, or not any more: a status that no server has.
    let Ok(answer) = client.get(url).bearer_auth(TOKEN).send().await else { return (0, String::new()) };
    (answer.status().as_u16(), answer.text().await.unwrap_or_default())
}

/// The API token of the modules under test.
const TOKEN: &str = "the-token-of-the-modules-under-test";

/// Metrics that are told of from the first time on that something happens which does not happen here.
const NOT_YET: [&str; 2] = ["galerna_dispatcher_refusals_total", "galerna_notifier_attempts_total"];

#[tokio::test(flavor = "multi_thread")]
async fn every_module_alone_answers_its_probes_and_tells_what_the_alerts_and_the_dashboard_ask_for() {
    let (rabbit, mongo) = (RabbitMq::shared().await, Mongo::shared().await);
    let folder = tempfile::tempdir().unwrap();
    let (amqp, store) = (rabbit.vhost().await, system::database(&mongo.uri(), &mongo.unique("deploy")));
    let mut ports: BTreeMap<&str, u16> = BTreeMap::new();
    for module in MODULES {
        // Free a moment ago; the modules must know each other's before they start.
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        ports.insert(module, listener.local_addr().unwrap().port());
    }
    let at = |module: &str| format!("127.0.0.1:{}", ports[module]);
    let mut set: Vec<String> = MODULES
        .iter()
        .map(|module| {
            format!("{}.listen={}", if *module == "dispatcher" { "api" } else { *module }, at(module))
        })
        .collect();
    set.extend([
        format!("broker.management_url={}", rabbit.management_uri()),
        format!("dispatcher.url=http://{}", at("dispatcher")),
        format!("maintainer.url=http://{}", at("maintainer")),
        format!("page.workers=http://{}", at("worker")),
        format!("api.token={TOKEN}"),
        "page.viewer_token=the-token-of-who-may-look".to_owned(),
        "page.operator_token=the-token-of-who-may-act".to_owned(),
        "maintainer.accounts_every=200ms".to_owned(),
        "frontend.sources_every=200ms".to_owned(),
    ]);
    let mut common = vec!["--broker", &amqp, "--store", &store];
    common.extend(set.iter().flat_map(|setting| ["--set", setting]));
    let with = |args: &[&'static str]| {
        let mut all = common.clone();
        all.extend_from_slice(args);
        all
    };
    let token = "a-token-of-a-concentrator";
    run_well(folder.path(), &with(&["sources", "add", "S1", "--account", "A1", "--token", token]));
    let _services = MODULES.map(|module| Service::start(folder.path(), &with(&[module])));

    for module in MODULES {
        let port = ports[module].to_string();
        until(module, || async { is_alive(&port) }).await;
        until(module, || async { get(&format!("http://{}/readyz", at(module))).await.0 == 200 }).await;
    }
    let reading = r#"[{"did":"12a","values":[{"p":401,"v":4900.0}],"sqn":1,"ts":"2015-04-21T23:15:00+00:00"},{"did":1}]"#;
    let post = format!("http://{}/readings?source_key=S1&x-dexcell-source-token={token}", at("frontend"));
    until("a reading is accepted", || async { call("POST", &post, Some(reading)).await.0 == 202 }).await;

    assert_eq!(get(&format!("http://{}/login", at("page"))).await.0, 200);

    let asked: BTreeSet<String> = asked_for().into_iter().map(|(_, name)| name).collect();
    let wanted: BTreeSet<&str> = asked
        .iter()
        .filter(|name| name.starts_with("galerna_"))
        .map(|name| {
            ["_bucket", "_count", "_sum"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name)
        })
        .filter(|name| !NOT_YET.contains(name))
        .collect();
    let registered = registered();
    until("all metrics are told of", || async {
        let mut all = BTreeSet::new();
        for module in MODULES {
            let (status, text) = get(&format!("http://{}/metrics", at(module))).await;
            if status != 200 {
                eprintln!("{module} answers {status}: {text}");
                return false;
            }
            promtool_with(Path::new("."), &["check", "metrics"], &text);
            all.append(&mut told(&text));
        }
        for name in all.iter().filter(|name| name.starts_with("galerna_")) {
            assert!(registered.contains(name), "{name} is told of and was not found in the sources");
        }
        let missing: Vec<_> = wanted.iter().filter(|name| !all.contains(**name)).collect();
        if !missing.is_empty() {
            eprintln!("not told of: {missing:?}");
        }
        missing.is_empty()
    })
    .await;
}

#[test]
fn the_health_check_of_a_port_at_which_nothing_listens_fails() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    assert!(!is_alive(&port.to_string()));
}

/// Prometheus' own checker.
fn promtool(folder: &Path, args: &[&str]) {
    promtool_with(folder, args, "");
}

/// The same, which reads `input`.
fn promtool_with(folder: &Path, args: &[&str], input: &str) {
    let fetched = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap().join("servers/bin/promtool");
    let named = std::env::var_os("PROMTOOL").map(PathBuf::from);
    let program = named.unwrap_or(if fetched.is_file() { fetched } else { PathBuf::from("promtool") });
    let mut command = Command::new(&program);
    command
        .current_dir(folder)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut running = command.spawn().unwrap_or_else(|e| {
        panic!(
            "{} does not run ({e}): run scripts/servers, which fetches it, or name one in PROMTOOL",
            program.display()
        )
    });
    running.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = running.wait_with_output().unwrap();
    assert!(
        output.status.success(),
        "promtool {args:?}: {}{}",
        String::from_utf8_lossy(&output.stdout),
        errors(&output)
    );
}

#[test]
fn promtool_accepts_the_rules_and_the_configuration_and_the_rules_fire_when_they_should() {
    let folder = tempfile::tempdir().unwrap();
    for path in files("deploy/prometheus") {
        std::fs::copy(&path, folder.path().join(path.file_name().unwrap())).unwrap();
    }
    std::fs::write(folder.path().join("token"), "secret").unwrap();
    promtool(folder.path(), &["check", "rules", "rules.yaml"]);
    promtool(folder.path(), &["check", "config", "prometheus.yaml"]);
    promtool(folder.path(), &["test", "rules", "rules_test.yaml"]);
}

#[test]
fn every_alert_has_an_entry_in_the_runbook_and_every_entry_says_what_it_should() {
    let text = read("docs/operations.md");
    let alerts = alerts();
    for (alert, rule) in &alerts {
        let link = format!("docs/operations.md#{}", alert.to_lowercase());
        assert_eq!(rule["annotations"]["runbook"], link, "{alert}");
        assert!(matches!(rule["labels"]["severity"].as_str(), Some("page" | "ticket")), "{alert}");
        let heading = format!("\n### {alert}\n");
        let (_, entry) = text.split_once(&heading).unwrap_or_else(|| panic!("{alert} has no entry"));
        let entry = entry.split("\n#").next().unwrap();
        for part in ["**Symptom.**", "**Meaning.**", "**Look at.**", "**Do.**"] {
            assert!(entry.contains(part), "the entry of {alert} has no {part}");
        }
    }
    for heading in text.lines().filter_map(|line| line.strip_prefix("### ")) {
        let named = heading.starts_with("Galerna") || heading.starts_with("RabbitMq");
        assert!(!named || alerts.contains_key(heading), "{heading} is no alert");
    }
}

/// The commands that a text prints: lines of its `sh` blocks, and what stands in backquotes.
fn commands(text: &str) -> Vec<String> {
    let (mut found, mut prose) = (Vec::new(), String::new());
    let (mut inside, mut is_shell) = (false, false);
    for line in text.lines() {
        if let Some(language) = line.strip_prefix("```") {
            inside = !inside;
            is_shell = language == "sh";
        } else if !inside {
            prose.push_str(line);
            prose.push('\n');
        } else if is_shell {
            found.push(line.trim().to_owned());
        }
    }
    // What stands in backquotes may go on in the next line.
    found.extend(prose.split('`').skip(1).step_by(2).map(str::to_owned));
    found.retain(|command| command.starts_with("galerna "));
    found
}

#[test]
fn every_setting_and_metric_that_the_operations_page_names_exists() {
    let text = read("docs/operations.md");
    let (settings, registered) = (settings(), registered());
    let sections: BTreeSet<&str> =
        settings.keys().filter_map(|name| name.split_once('.')).map(|(s, _)| s).collect();
    let is_name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_' || c == '.';
    let mut seen = (0, 0);
    for quoted in text.split('`').skip(1).step_by(2) {
        if let Some((section, _)) = quoted.split_once('.')
            && sections.contains(section)
            && quoted.chars().all(is_name)
        {
            assert!(settings.contains_key(quoted), "`{quoted}` is no setting");
            seen.0 += 1;
        }
        for name in words(quoted, is_name).filter(|word| word.starts_with("galerna_") && !word.ends_with('_'))
        {
            // What filters the log is a crate, not a metric.
            let is_crate = root().join(name.trim_start_matches("galerna_")).is_dir();
            assert!(is_crate || registered.contains(name), "`{name}` is no metric");
            seen.1 += 1;
        }
    }
    assert!(seen.0 > 20 && seen.1 > 15, "{seen:?}");
}

#[test]
fn every_command_of_the_operations_page_exists() {
    let folder = tempfile::tempdir().unwrap();
    let found = commands(&read("docs/operations.md"));
    assert!(found.len() > 20, "{found:?}");
    for line in found {
        // What stands in double quotes is one word.
        let mut args: Vec<&str> = Vec::new();
        for (at, part) in line.split('"').enumerate() {
            if at % 2 == 0 { args.extend(part.split_whitespace()) } else { args.push(part) }
        }
        let args = &args[1..];
        // With `--help` at its end a command line is read, and found wrong, and does nothing.
        let output = end_of(command(folder.path(), args).arg("--help"), DEADLINE);
        assert!(output.status.success(), "{line}: {}", errors(&output));
    }
}
