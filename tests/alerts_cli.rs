//! What operators do about alerts, from the command line: every command through the page of a running `galerna up`.

mod system;

use std::io::Write;
use std::path::Path;
use std::process::{Output, Stdio};

use serde_json::{Value, json};
use system::{DEADLINE, Service, call, command, errors, output_of, run, until};

const VIEWER: &str = "viewer-token-0123456789";
const OPERATOR: &str = "operator-token-0123456789";
/// All addresses free ones.
const FREE: [&str; 8] = [
    "--set",
    "api.listen=127.0.0.1:0",
    "--set",
    "frontend.listen=127.0.0.1:0",
    "--set",
    "page.listen=127.0.0.1:0",
    "--set",
    "worker.listen=127.0.0.1:0",
];

/// A page with tokens, and its URL.
async fn up(folder: &Path) -> (Service, String) {
    let (viewer, operator) =
        (format!("page.viewer_token={VIEWER}"), format!("page.operator_token={OPERATOR}"));
    let mut args = vec!["up", "--set", &viewer, "--set", &operator];
    args.extend(FREE);
    let service = Service::start(folder, &args);
    let entry = service.said("the page listens").await;
    let url = format!("http://{}", entry["fields"]["address"].as_str().unwrap());
    service.said("all modules are up").await;
    (service, url)
}

/// The command line of somebody called Amaia who has a token of this page.
struct Operator<'a> {
    folder: &'a Path,
    url: String,
    token: &'a str,
}

impl<'a> Operator<'a> {
    fn new(folder: &'a Path, url: &str, token: &'a str) -> Self {
        Self { folder, url: format!("page.url={url}"), token }
    }

    /// Runs a command with this on its standard input.
    fn with_input(&self, args: &[&str], input: &str) -> Output {
        let mut command = command(self.folder, &["--set", &self.url]);
        command.args(args).env("GALERNA_PAGE_OPERATOR_TOKEN", self.token).env("USER", "amaia");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        // A command that reads nothing may have ended by now.
        drop(child.stdin.take().unwrap().write_all(input.as_bytes()));
        output_of(child, &format!("{args:?}"), DEADLINE)
    }

    fn run(&self, args: &[&str]) -> Output {
        self.with_input(args, "")
    }

    fn well(&self, args: &[&str]) -> String {
        let output = self.run(args);
        assert!(output.status.success(), "{args:?}: {}", errors(&output));
        String::from_utf8(output.stdout).unwrap()
    }

    fn json(&self, args: &[&str]) -> Value {
        let mut all = args.to_vec();
        all.push("--json");
        serde_json::from_str(&self.well(&all)).unwrap()
    }

    /// Saves from standard input.
    fn save(&self, what: &str, of: &Value) -> Output {
        self.with_input(&[what, "save", "-", "--reason", "set up"], &of.to_string())
    }

    /// Runs a command that must fail, and returns what it said.
    fn refused(&self, args: &[&str]) -> String {
        let output = self.run(args);
        assert_eq!(output.status.code(), Some(1), "{args:?}: {}", errors(&output));
        errors(&output)
    }
}

fn endpoint() -> Value {
    json!({"id": "ops", "name": "Operators", "kind": "log"})
}

fn rule() -> Value {
    json!({"id": "heat", "name": "Too hot", "account": null, "devices": "Panther_*", "severity": "critical", "endpoints": ["ops"],
        "cooldown_ms": 0, "enabled": true,
        "condition": {"kind": "threshold", "parameter": 401, "comparison": "above", "limit": 4000.5, "clear": 3900.0, "for_ms": 60_000}})
}

#[tokio::test(flavor = "multi_thread")]
async fn alerts_are_set_up_tried_and_torn_down_from_the_command_line() {
    let folder = tempfile::tempdir().unwrap();
    let (mut service, url) = up(folder.path()).await;
    let me = Operator::new(folder.path(), &url, OPERATOR);

    // An endpoint from standard input, a rule from a file.
    let saved = me.save("endpoints", &endpoint());
    assert!(saved.status.success(), "{}", errors(&saved));
    std::fs::write(folder.path().join("rule.json"), rule().to_string()).unwrap();
    assert!(me.well(&["rules", "save", "rule.json", "--reason", "set up"]).contains("heat is in force"));
    let listed = me.well(&["rules", "list"]);
    assert!(listed.contains("401 above 4000.5 for 1m, clears at 3900.0"), "{listed}");
    assert!(me.well(&["endpoints", "list"]).contains("a line in the notifier's log"));
    assert_eq!(me.json(&["rules", "show", "heat"]), rule());
    assert!(me.well(&["rules", "show", "heat"]).contains("condition.limit"));

    // What is shown can be changed and saved, one or all.
    let mut changed = me.json(&["rules", "list"]);
    changed[0]["enabled"] = json!(false);
    assert!(me.save("rules", &changed).status.success());
    assert_eq!(me.json(&["rules", "show", "heat"])["enabled"], json!(false));
    assert!(me.save("rules", &rule()).status.success());

    // A test alert reaches the endpoint.
    let fired = me.json(&["rules", "test", "heat", "--reason", "is it heard?"]);
    let id = fired["deliveries"][0].as_str().unwrap().to_owned();
    let delivered = || async {
        let found = me.json(&["deliveries", "list", "--status", "delivered", "--endpoint", "ops"]);
        found["deliveries"].as_array().unwrap().iter().any(|d| d["id"] == json!(id))
    };
    until("the test alert is delivered", delivered).await;
    let listed = me.well(&["deliveries", "list"]);
    assert!(listed.contains("Too hot") && listed.contains("shown 1 of 1"), "{listed}");
    assert_eq!(me.json(&["deliveries", "list", "--status", "dead"])["deliveries"], json!([]));
    assert_eq!(me.json(&["deliveries", "list", "--search", "too HOT"])["total"], 1);
    let shown = me.json(&["deliveries", "show", &id]);
    assert_eq!((&shown["test"], &shown["status"]), (&json!(true), &json!("delivered")));
    assert!(me.well(&["deliveries", "show", &id]).contains("attempt at"));
    me.well(&["deliveries", "resend", &id, "--reason", "once more"]);
    until("it is delivered again", delivered).await;
    let tested = me.json(&["endpoints", "test", "ops"]);
    assert!(tested["delivery"].is_string(), "{tested}");

    // A silence.
    let made =
        me.json(&["silences", "create", "--device", "Panther_*", "--minutes", "5", "--reason", "works"]);
    let silence = made["id"].as_str().unwrap();
    let all = me.json(&["silences", "list"]);
    assert_eq!((&all[0]["by"], &all[0]["in_force"]), (&json!("amaia"), &json!(true)), "{all}");
    assert!(me.well(&["silences", "list"]).contains("works"));
    me.well(&["silences", "end", silence, "--reason", "works are done"]);
    assert_eq!(me.json(&["silences", "list"]), json!([]));

    // Nothing fires, nothing did.
    assert_eq!(me.json(&["alerts", "list", "--firing"])["firing"], json!([]));
    assert_eq!(me.json(&["alerts", "list"])["events"], json!([]));

    me.well(&["rules", "delete", "heat", "--yes", "--reason", "over"]);
    // No terminal, nobody to ask.
    me.well(&["endpoints", "delete", "ops", "--reason", "over"]);
    assert_eq!((me.json(&["rules", "list"]), me.json(&["endpoints", "list"])), (json!([]), json!([])));

    // Who did what, why: all of it is written down.
    let audit = me.json(&["audit", "list"]);
    let entries: Vec<(&str, &str, &str)> = audit["entries"]
        .as_array()
        .unwrap()
        .iter()
        .map(|e| {
            assert_eq!(
                (&e["who"], &e["role"], &e["done"]),
                (&json!("amaia"), &json!("operator"), &json!(true)),
                "{e}"
            );
            (
                e["action"].as_str().unwrap(),
                e["target"].as_str().unwrap(),
                e["why"].as_str().unwrap_or_default(),
            )
        })
        .rev()
        .collect();
    let expected = [
        ("endpoint.save", "ops", "set up"),
        ("rule.save", "heat", "set up"),
        ("rule.save", "heat", "set up"),
        ("rule.save", "heat", "set up"),
        ("rule.test", "heat", "is it heard?"),
        ("delivery.resend", id.as_str(), "once more"),
        ("endpoint.test", "ops", ""),
        ("silence.create", "device Panther_*", "works"),
        ("silence.end", silence, "works are done"),
        ("rule.delete", "heat", "over"),
        ("endpoint.delete", "ops", "over"),
    ];
    assert_eq!(entries, expected);
    assert!(
        me.well(&["audit", "list", "--search", "works are done", "--limit", "1"]).contains("silence.end")
    );
    assert!(service.stop().await.success(), "{}", service.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_fires_is_listed_until_it_is_over() {
    let folder = tempfile::tempdir().unwrap();
    let (mut service, url) = up(folder.path()).await;
    let api = service.api().await;
    let me = Operator::new(folder.path(), &url, OPERATOR);
    let mut rule = rule();
    rule["condition"] = json!({"kind": "threshold", "parameter": 401, "comparison": "above", "limit": 10.0, "clear": null, "for_ms": 0});
    for (what, of) in [("endpoints", endpoint()), ("rules", rule)] {
        let saved = me.save(what, &of);
        assert!(saved.status.success(), "{}", errors(&saved));
    }
    // Workers take a rule up within seconds: readings come until it is evaluated on one.
    let second = std::cell::Cell::new(0);
    let publish = |value: f64| {
        second.set(second.get() + 1);
        let ts = format!("2017-01-01T00:{:02}:{:02}Z", second.get() / 60, second.get() % 60);
        let reading =
            json!({"did": "Panther_1", "values": [{"p": 401, "v": value}], "sqn": second.get(), "ts": ts});
        let file = folder.path().join("reading.ndjson");
        std::fs::write(&file, reading.to_string()).unwrap();
        me.well(&["--dispatcher", &api, "publish", file.to_str().unwrap(), "--account", "Panther"]);
    };
    let firing = || me.json(&["alerts", "list", "--firing", "--account", "Panther"])["firing"].clone();
    until("the alert fires", || async {
        publish(11.0);
        firing() != json!([])
    })
    .await;
    let state = &firing()[0];
    assert_eq!(
        (&state["rule_name"], &state["severity"], &state["device"], &state["phase"]),
        (&json!("Too hot"), &json!("critical"), &json!("Panther_1"), &json!("firing")),
        "{state}"
    );
    assert!(me.well(&["alerts", "list", "--firing"]).contains("shown 1 of 1 that fire"));
    assert_eq!(me.json(&["alerts", "list", "--firing", "--account", "Bear"])["firing"], json!([]));
    until("it is over", || async {
        publish(9.0);
        firing() == json!([])
    })
    .await;
    let events = me.json(&["alerts", "list", "--account", "Panther"]);
    let kinds: Vec<&Value> = events["events"].as_array().unwrap().iter().map(|e| &e["kind"]).collect();
    assert_eq!(kinds, ["resolved", "raised"], "{events}");
    assert!(me.well(&["alerts", "list"]).contains("2 alert events; page 1"));
    until("both are told", || async {
        me.json(&["deliveries", "list", "--status", "delivered", "--account", "Panther"])["total"] == 2
    })
    .await;
    // One a page: the newer one first.
    let page = |n| {
        me.json(&["deliveries", "list", "--limit", "1", "--page", n])["deliveries"][0]["events"][0]["kind"]
            .clone()
    };
    assert_eq!((page("1"), page("2"), page("3")), (json!("resolved"), json!("raised"), Value::Null));
    assert!(service.stop().await.success(), "{}", service.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn alerts_end_by_hand_and_with_their_rule_and_what_a_rule_lacks_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let (mut service, url) = up(folder.path()).await;
    let api = service.api().await;
    let me = Operator::new(folder.path(), &url, OPERATOR);
    let hot = |id: &str, parameter: u32, endpoint: &str| {
        json!({"id": id, "name": id, "account": null, "devices": "al_*", "severity": "warning", "endpoints": [endpoint], "cooldown_ms": 0,
            "enabled": true, "condition": {"kind": "threshold", "parameter": parameter, "comparison": "above", "limit": 10.0, "clear": null,
            "for_ms": 0}})
    };
    assert!(me.save("endpoints", &endpoint()).status.success());
    let saved = me.save(
        "rules",
        &json!([hot("hot", 401, "ops"), hot("noend", 401, "nosuch"), hot("unkp", 4010, "ops")]),
    );
    let said = String::from_utf8(saved.stdout.clone()).unwrap();
    assert!(saved.status.success(), "{}", errors(&saved));
    assert!(
        said.contains("there is no endpoint `nosuch`") && said.contains("there is no parameter 4010"),
        "{said}"
    );
    me.well(&["rules", "delete", "noend", "--yes"]);

    let second = std::cell::Cell::new(0);
    let publish = |value: f64| {
        second.set(second.get() + 1);
        let ts = format!("2017-01-01T00:{:02}:{:02}Z", second.get() / 60, second.get() % 60);
        let readings: Vec<String> = ["al_1", "al_2"]
            .map(|did| {
                json!({"did": did, "values": [{"p": 401, "v": value}], "sqn": second.get(), "ts": ts})
                    .to_string()
            })
            .to_vec();
        let file = folder.path().join("readings.ndjson");
        std::fs::write(&file, readings.join("\n")).unwrap();
        me.well(&["--dispatcher", &api, "publish", file.to_str().unwrap(), "--account", "CaseA"]);
    };
    let firing = || {
        let all = me.json(&["alerts", "list", "--firing"])["firing"].clone();
        let of = |s: &Value| (s["rule"] == "hot").then(|| s["device"].as_str().unwrap().to_owned());
        let mut devices: Vec<String> = all.as_array().unwrap().iter().filter_map(of).collect();
        devices.sort();
        devices
    };
    until("both fire", || async {
        publish(11.0);
        firing() == ["al_1", "al_2"]
    })
    .await;
    let close = |device: &str| {
        me.run(&[
            "alerts",
            "close",
            "--rule",
            "hot",
            "--source",
            "CaseA",
            "--device",
            device,
            "--reason",
            "sensor exchanged",
        ])
    };
    assert!(close("al_1").status.success());
    assert_eq!(firing(), ["al_2"]);
    assert!(errors(&close("al_1")).contains("does not fire"));
    // It stays closed while its condition holds; the rule ends the other.
    publish(12.0);
    me.well(&["rules", "delete", "hot", "--yes", "--reason", "over"]);
    until("the rule's alerts end", || async { firing().is_empty() }).await;
    let events = me.json(&["alerts", "list"])["events"].clone();
    let mut ends: Vec<(&str, &str)> = events
        .as_array()
        .unwrap()
        .iter()
        .filter(|e| e["rule"] == "hot" && e["kind"] == "resolved")
        .map(|e| (e["device"].as_str().unwrap(), e["message"].as_str().unwrap()))
        .collect();
    ends.sort_unstable();
    assert_eq!(ends, [("al_1", "closed by amaia: sensor exchanged"), ("al_2", "rule `hot` was deleted")]);
    let closed = me.json(&["audit", "list", "--search", "sensor exchanged"]);
    assert_eq!(closed["entries"][0]["action"], json!("alert.close"), "{closed}");
    assert!(service.stop().await.success(), "{}", service.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_is_told_in_a_sentence_that_names_it() {
    let folder = tempfile::tempdir().unwrap();
    let (mut service, url) = up(folder.path()).await;
    let me = Operator::new(folder.path(), &url, OPERATOR);

    // Wrong JSON: the field is named, and nothing is saved.
    let set = |pointer: &str, value: Value| {
        let mut rule = rule();
        *rule.pointer_mut(pointer).unwrap() = value;
        rule
    };
    let mut without = rule();
    without.as_object_mut().unwrap().remove("severity");
    let mut misspelt = rule();
    misspelt["cooldown"] = json!(60);
    for (wrong, named) in [
        (without, "`severity`"),
        (misspelt, "`cooldown`"),
        (set("/severity", json!("grave")), "`severity`"),
        (set("/condition/limit", json!("a lot")), "`condition.limit`"),
        (set("/condition/clear", json!(5000)), "clear"),
        (set("/endpoints", json!("ops")), "`endpoints`"),
        (json!("heat"), "JSON objects"),
        (json!([]), "holds no rule"),
    ] {
        let output = me.save("rules", &wrong);
        assert_eq!(output.status.code(), Some(1), "{wrong}: {}", errors(&output));
        assert!(errors(&output).contains(named), "{wrong}: {}", errors(&output));
    }
    let output = me.with_input(&["rules", "save", "-"], "{\"id\": \"heat\",\n \"name\"");
    assert!(
        errors(&output).contains("standard input is not JSON: ") && errors(&output).contains("line 2"),
        "{}",
        errors(&output)
    );
    let hook = json!({"id": "hook", "name": "Hook", "kind": "webhook", "url": "nowhere"});
    let output = me.save("endpoints", &hook);
    assert!(!output.status.success() && errors(&output).contains("url"), "{}", errors(&output));
    assert_eq!(me.json(&["rules", "list"]), json!([]));

    // A secret is taken, shown to nobody, and stays when what is shown is saved.
    let secret = "whsec_c2VjcmV0IG9mIHRoZSB0ZXN0cyBvZiBhbGVydHM=";
    let hook = json!({"id": "hook", "name": "Hook", "kind": "webhook", "url": "https://example.org/x?key=abc", "secret": secret});
    let output = me.save("endpoints", &hook);
    assert!(output.status.success(), "{}", errors(&output));
    let shown = me.json(&["endpoints", "show", "hook"]);
    assert_eq!((&shown["secret"], &shown["url"]), (&json!("***"), &json!("https://example.org/x?***")));
    assert!(me.save("endpoints", &shown).status.success());
    let mut moved = shown.clone();
    moved["url"] = json!("https://example.com/x?***");
    let output = me.save("endpoints", &moved);
    assert!(!output.status.success() && errors(&output).contains("write it out"), "{}", errors(&output));
    assert!(!me.well(&["endpoints", "list"]).contains("abc"));

    for (args, told) in [
        (&["rules", "show", "none"][..], "there is no rule `none`"),
        (&["rules", "delete", "none", "--yes"], "there is no rule `none`"),
        (&["rules", "save", "absent.json"], "cannot read absent.json"),
        (&["endpoints", "test", "none"], "none"),
        (&["deliveries", "show", "none"], "there is no delivery `none`"),
        (&["deliveries", "resend", "none"], "there is no delivery `none`"),
        (&["deliveries", "list", "--limit", "501"], "`limit` is 501; use a number from 1 to 500"),
        (&["silences", "end", "none"], "there is no silence `none`"),
        (&["silences", "create", "--until", "tomorrow", "--reason", "x"], "`until`"),
        (&["alerts", "list", "--account", "a b"], "`account`"),
    ] {
        let said = me.refused(args);
        assert!(said.starts_with("error: ") && said.contains(told), "{args:?}: {said}");
    }

    // Viewers look, and do nothing else.
    let viewer = Operator::new(folder.path(), &url, VIEWER);
    let shown = viewer.json(&["endpoints", "show", "hook"]);
    assert_eq!((&shown["secret"], &shown["url"]), (&json!("***"), &json!("https://example.org/x?***")));
    for args in [&["audit", "list"][..], &["deliveries", "list"], &["silences", "list"], &["alerts", "list"]]
    {
        viewer.well(args);
    }
    for args in [&["endpoints", "delete", "hook"][..], &["endpoints", "test", "hook"]] {
        let said = viewer.refused(args);
        assert!(said.contains("a viewer may look but not act"), "{args:?}: {said}");
    }
    assert!(!viewer.save("rules", &rule()).status.success());
    assert_eq!(me.json(&["rules", "list"]), json!([]));
    let stranger = Operator::new(folder.path(), &url, "another-token-0123456789");
    let said = stranger.refused(&["rules", "list"]);
    assert!(said.contains("this token is not known") && said.contains("page.operator_token"), "{said}");
    assert!(service.stop().await.success(), "{}", service.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn programs_read_the_same_as_json() {
    let folder = tempfile::tempdir().unwrap();
    let (mut service, url) = up(folder.path()).await;
    // Who brings no token reads nothing.
    for path in ["status", "rules", "endpoints", "silences", "deliveries", "alerts", "audit", "nothing"] {
        let (status, answer) = call("GET", &format!("{url}/api/{path}"), None).await;
        assert_eq!((status, &answer["error"]["code"]), (401, &json!("unauthorized")), "{path}: {answer}");
    }
    galerna_tls::install_default_provider();
    let client = reqwest::Client::builder().timeout(system::DEADLINE).build().unwrap();
    let get = async |path: &str| {
        let answer = client.get(format!("{url}/api/{path}")).bearer_auth(VIEWER).send().await.unwrap();
        (answer.status().as_u16(), answer.json::<Value>().await.unwrap())
    };
    let (status, answer) = get("status").await;
    assert_eq!(
        (status, &answer["role"], &answer["workers"], &answer["rules"], &answer["away"]),
        (200, &json!("viewer"), &json!(1), &json!(0), &json!([])),
        "{answer}"
    );
    for (path, expected, told) in [
        ("nothing", 404, "no such call"),
        ("rules?id=none", 404, "there is no rule `none`"),
        ("rules?search=x", 422, "unknown field `search`"),
        ("deliveries?status=lost", 422, "status: unknown variant `lost`"),
        ("deliveries?page=0", 422, "`page` is 0"),
        ("deliveries?page=many", 422, "page: invalid digit"),
        ("alerts?firing=maybe", 422, "firing: "),
        ("audit?limit=1000", 422, "`limit` is 1000; use a number from 1 to 500"),
    ] {
        let (status, answer) = get(path).await;
        let said = answer["error"]["message"].as_str().unwrap_or_default();
        assert!(status == expected && said.contains(told), "{path}: {status} {answer}");
    }
    assert!(service.stop().await.success(), "{}", service.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_that_is_away_is_told_as_such() {
    let folder = tempfile::tempdir().unwrap();
    // Nobody listens at a port that was free a moment ago.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let url = format!("page.url=http://127.0.0.1:{port}");
    for args in [&["rules", "list"][..], &["audit", "list"], &["silences", "end", "x"]] {
        let output = run(folder.path(), &[&["--set", &url], args].concat());
        let said = errors(&output);
        assert_eq!(output.status.code(), Some(1), "{args:?}: {said}");
        for part in [
            &format!("the page at http://127.0.0.1:{port} cannot be reached"),
            "`galerna up`",
            "--set page.url=",
        ] {
            assert!(said.contains(part), "{args:?}: {said}");
        }
    }
    for args in [
        &["rules"][..],
        &["rules", "show"],
        &["deliveries", "list", "--status", "lost"],
        &["silences", "create", "--reason", "x"],
        &["silences", "create", "--reason", "x", "--minutes", "5", "--until", "2030-01-01T00:00:00Z"],
        &["--set", "page.url=nowhere", "rules", "list"],
    ] {
        let output = run(folder.path(), args);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {}", errors(&output));
    }
}
