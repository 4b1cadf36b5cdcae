//! The page in a real browser, before `galerna up`.

mod apart;
mod browser;
mod narrow;
#[path = "../system/mod.rs"]
mod system;

use std::path::Path;

use browser::Browser;
use serde_json::{Value, json};
use system::{Service, call, run_well, until};

const SAMPLES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/data/sample_messages.ndjson");
const SCRIPT: &str = "<script>alert(1)</script>";
const PAGES: [(&str, &str); 26] = [
    ("overview", "/"),
    ("overview-of-a-week", "/?range=7d"),
    ("workers", "/workers"),
    ("search", "/search?q=a"),
    ("waiting", "/queues/Bear/messages"),
    ("topology", "/topology"),
    ("topologies", "/topologies"),
    ("schedules", "/schedules"),
    ("schedule", "/schedules/show?id=reports%2Fdaily"),
    ("schedule-edited", "/schedules/edit?id=reports%2Fdaily"),
    ("queues", "/queues"),
    ("queue", "/queues/Bear"),
    ("sources", "/sources"),
    ("source", "/sources/odd"),
    ("dead-letters", "/dead-letters"),
    ("dead-letters-of-a-queue", "/dead-letters/Odd"),
    ("alerts", "/alerts"),
    ("rules", "/rules"),
    ("rule", "/rules/edit"),
    ("endpoints", "/endpoints"),
    ("endpoint", "/endpoints/edit"),
    ("deliveries", "/deliveries"),
    ("silences", "/silences"),
    ("trace", "/trace"),
    ("audit", "/audit"),
    ("about", "/about"),
];

const FREE_PORTS: [&str; 8] = [
    "--listen",
    "127.0.0.1:0",
    "--set",
    "frontend.listen=127.0.0.1:0",
    "--set",
    "page.listen=127.0.0.1:0",
    "--set",
    "worker.listen=127.0.0.1:0",
];

/// All modules, with the samples published and a message that becomes a dead letter.
struct Up {
    service: Service,
    api: String,
    page: String,
}

async fn up(folder: &Path, more: &[&str]) -> Up {
    let args: Vec<&str> = ["up"].iter().chain(&FREE_PORTS).chain(more).copied().collect();
    let service = Service::start(folder, &args);
    let api = service.api().await;
    let entry = service.said("the page listens").await;
    let page = format!("http://{}", entry["fields"]["address"].as_str().unwrap());
    Up { service, api, page }
}

impl Up {
    /// Publishes a reading of device `did` with this parameter for account `Odd`, source `odd`.
    fn publish(&self, folder: &Path, did: &str, parameter: u32, value: f64, minute: u32) {
        let file = folder.join(format!("odd-{minute}-{parameter}.ndjson"));
        let reading = json!({"did": did, "values": [{"p": parameter, "v": value}], "sqn": minute,
            "ts": format!("2017-01-01T00:{minute:02}:00Z")});
        std::fs::write(&file, reading.to_string()).unwrap();
        let file = file.to_str().unwrap();
        let args = ["--dispatcher", &self.api, "publish", file, "--account", "Odd", "--source", "odd"];
        run_well(folder, &args);
    }

    /// Something in every list: an endpoint, rules of which one fires, a silence, a pause, a delivery; and the dispatcher is stopped.
    async fn fill(&self) {
        let rule = |id: &str, severity: &str, condition: Value| {
            json!({"id": id, "name": format!("Rule {id}"), "account": null, "devices": "*", "severity": severity,
                "endpoints": ["log"], "cooldown_ms": 3_600_000, "enabled": true, "condition": condition})
        };
        let above = json!({"kind": "threshold", "parameter": 401, "comparison": "above", "limit": 1.0, "clear": null, "for_ms": 0});
        for (path, body) in [
            ("endpoints/save", json!({"id": "log", "name": "The log", "kind": "log"})),
            ("rules/save", rule("power", "critical", above)),
            ("rules/save", rule("quiet", "info", json!({"kind": "silent", "after_ms": 10_800_000}))),
            ("rules/test", json!({"id": "power"})),
            ("silences/create", json!({"device": "Panther_*", "lasts": "3h", "reason": "works"})),
            ("queues/pause", json!({"queue": "Bear", "reason": "meter exchange"})),
            (
                "schedules/save",
                json!({"id": "reports/daily", "definition": {"payload": {"queue": "Bear", "body": {"report": "usage"}},
                    "timing": {"cron": {"expression": "30 6 * * *", "timezone": "Europe/Berlin"}}}}),
            ),
        ] {
            let (status, answer) =
                call("POST", &format!("{}/api/{path}", self.page), Some(&body.to_string())).await;
            assert_eq!(status, 200, "{path}: {answer}");
        }
        let alerts = format!("{}/api/alerts?firing=true", self.page);
        let folder = tempfile::tempdir().unwrap();
        let mut minutes = 5..60;
        until("an alert fires", || {
            self.publish(folder.path(), "m1", 401, 4900.0, minutes.next().unwrap_or(59));
            async { call("GET", &alerts, None).await.1["total"] != 0 }
        })
        .await;
        let (status, _) = call("POST", &format!("{}/api/dispatcher/stop", self.page), Some("{}")).await;
        assert_eq!(status, 200);
    }

    /// The page of the topology that runs.
    async fn topology(&self) -> String {
        let (_, told) = call("GET", &format!("{}/api/v1/topologies", self.api), None).await;
        format!("/topologies/{}", told["topologies"][0]["name"].as_str().unwrap())
    }

    /// The id of the message that a dead letter comes from.
    async fn dead_message(&self) -> String {
        let (_, answer) = call("GET", &format!("{}/queue/Odd/dead?bodies=true", self.api), None).await;
        let body: Value = serde_json::from_str(answer["dead"][0]["body"].as_str().unwrap()).unwrap();
        body["id"].as_str().unwrap().to_owned()
    }

    async fn dead(&self) -> usize {
        let (_, answer) = call("GET", &format!("{}/queue/Odd/dead", self.api), None).await;
        answer["dead"].as_array().map_or(0, Vec::len)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_page_loads_without_complaints_in_light_dark_and_narrow() {
    let folder = tempfile::tempdir().unwrap();
    let mut up = up(folder.path(), &[]).await;
    run_well(folder.path(), &["--dispatcher", &up.api, "publish", SAMPLES]);
    up.publish(folder.path(), SCRIPT, 401, 4900.0, 1);
    up.publish(folder.path(), SCRIPT, 999, 1.0, 2);
    until("a dead letter", || async { up.dead().await == 1 }).await;
    up.fill().await;
    let browser = Browser::start().await;
    let tab = browser.tab(&up.page).await;
    let axe = galerna_test_servers::axe_script();
    let message = up.dead_message().await;
    let (way, topology) = (format!("/trace/{message}"), up.topology().await);
    let mut found = Vec::new();
    for (name, path) in
        PAGES.into_iter().chain([("message", way.as_str()), ("topology-that-runs", topology.as_str())])
    {
        for (width, height) in [(1440, 900), (390, 844)] {
            for (dark, look) in [(false, "light"), (true, "dark")] {
                tab.size(width, height).await;
                tab.dark(dark).await;
                tab.open(path).await;
                tab.holds("document.getElementById('connection').textContent === 'live'").await;
                assert!(!tab.scrolls_sideways().await, "{path} is wider than a screen of {width}");
                tab.picture(&format!("{name}-{width}-{look}")).await;
                assert_eq!(tab.errors(), Vec::<String>::new(), "{path}");
                let wrong = tab.axe(&axe).await;
                found.extend(wrong.into_iter().map(|wrong| format!("{path} at {width}, {look}: {wrong}")));
            }
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
    browser.end().await;
    assert!(up.service.stop().await.success(), "{}", up.service.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_script_in_the_name_of_a_device_is_shown_as_text() {
    let folder = tempfile::tempdir().unwrap();
    let up = up(folder.path(), &[]).await;
    up.publish(folder.path(), SCRIPT, 401, 4900.0, 1);
    up.publish(folder.path(), SCRIPT, 999, 1.0, 2);
    until("a dead letter", || async { up.dead().await == 1 }).await;
    let browser = Browser::start().await;
    let tab = browser.tab(&up.page).await;
    for path in ["/sources/odd", "/dead-letters/Odd"] {
        tab.open(path).await;
        tab.holds(&format!("document.body.textContent.includes({})", Value::from(SCRIPT))).await;
        assert_eq!(tab.value("document.querySelectorAll('script:not([src])').length").await, 0);
    }
    assert_eq!(tab.errors(), Vec::<String>::new());
    browser.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_is_paused_and_unpaused_by_clicks() {
    let folder = tempfile::tempdir().unwrap();
    let up = up(folder.path(), &[]).await;
    run_well(folder.path(), &["--dispatcher", &up.api, "publish", SAMPLES]);
    let state = || async {
        let (_, queue) = call("GET", &format!("{}/queue/Panther", up.api), None).await;
        queue["state"].as_str().unwrap_or_default().to_owned()
    };
    let browser = Browser::start().await;
    let tab = browser.tab(&up.page).await;
    tab.open("/queues").await;
    tab.click("a[href='/queues/Panther']").await;
    tab.shows("Ready, last counted").await;
    tab.write("input[name=reason]", "meter exchange").await;
    tab.click("form[action='/queues/pause'] button").await;
    tab.shows("queue Panther is paused").await;
    assert_eq!(state().await, "pause");
    tab.holds("document.querySelector('[data-cell=q-state]').textContent === 'paused'").await;
    tab.picture("queue-paused").await;

    // And from the list.
    tab.open("/queues?search=panther").await;
    tab.shows("meter exchange").await;
    tab.click("form[action='/queues/unpause'] button").await;
    tab.shows("Unpause: Panther").await;
    tab.write("input[name=reason]", "meters exchanged").await;
    tab.click("button.primary").await;
    tab.shows("queue Panther is no longer paused").await;
    assert_ne!(state().await, "pause");
    tab.open("/audit").await;
    tab.shows("queue.unpause").await;
    tab.shows("meter exchange").await;
    tab.shows("meters exchanged").await;
    assert_eq!(tab.errors(), Vec::<String>::new());
    browser.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_is_replayed_and_another_discarded_after_a_question() {
    let folder = tempfile::tempdir().unwrap();
    let up = up(folder.path(), &[]).await;
    up.publish(folder.path(), "m1", 999, 1.0, 1);
    up.publish(folder.path(), "m2", 999, 1.0, 2);
    until("dead letters", || async { up.dead().await == 2 }).await;
    let browser = Browser::start().await;
    let tab = browser.tab(&up.page).await;
    tab.open("/dead-letters").await;
    tab.click("a[href='/dead-letters/Odd']").await;
    tab.shows("999").await;
    // A worker that holds the queue hears of a pause when it renews its lease.
    until("the worker has given the queue back", || async {
        call("GET", &format!("{}/queue/Odd", up.api), None).await.1["state"] != "worker"
    })
    .await;
    // The queue is paused, so that what is replayed stays where it can be seen.
    let (status, _) = call("POST", &format!("{}/queue/Odd/pause", up.api), None).await;
    assert_eq!(status, 200);
    tab.click("input[name='ids[]']").await;
    tab.click("form[action='/dead-letters/replay'] button.primary").await;
    tab.shows("1 dead letter of Odd replayed").await;
    until("one dead letter left", || async { up.dead().await == 1 }).await;
    tab.click("button[formaction='/dead-letters/discard'][name=all]").await;
    tab.shows("Discard all dead letters of Odd?").await;
    tab.picture("discard-question").await;
    assert_eq!(up.dead().await, 1);
    tab.write("input[name=reason]", "test data").await;
    tab.click("button.danger").await;
    tab.shows("1 dead letter of Odd discarded").await;
    assert_eq!(up.dead().await, 0);
    assert_eq!(tab.errors(), Vec::<String>::new());
    browser.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rule_is_made_and_test_fired_at_an_endpoint() {
    let folder = tempfile::tempdir().unwrap();
    let up = up(folder.path(), &[]).await;
    let browser = Browser::start().await;
    let tab = browser.tab(&up.page).await;
    tab.open("/endpoints").await;
    tab.click("a[href='/endpoints/edit']").await;
    tab.shows("Signing secret").await;
    tab.write("input[name=id]", "log").await;
    tab.write("input[name=name]", "The log").await;
    tab.click("input[name=kind][value=log]").await;
    tab.click("form[action='/endpoints/save'] button.primary").await;
    tab.shows("endpoint log is saved").await;

    tab.open("/rules/edit").await;
    tab.write("input[name=id]", "too-much").await;
    tab.write("input[name=name]", "Too much power").await;
    tab.write("input[name=limit]", "4000").await;
    tab.write("input[name=clear]", "5000").await;
    tab.click("input[name='endpoints[]'][value=log]").await;
    tab.click("form[action='/rules/save'] button.primary").await;
    // Wrong at first: it says which field.
    tab.shows("clear is 5000").await;
    tab.picture("rule-refused").await;
    // What was written is still there.
    tab.write("input[name=clear]", "3000").await;
    tab.click("form[action='/rules/save'] button.primary").await;
    tab.shows("rule too-much is in force").await;
    tab.shows("401 active power above 4000 W, clears at 3000").await;
    tab.click("form[action='/rules/test'] button").await;
    tab.shows("Test-fire: too-much").await;
    tab.click("button.primary").await;
    tab.shows("a test alert is on its way to 1 endpoint").await;
    tab.open("/deliveries?endpoint=log").await;
    tab.shows("Too much power").await;
    tab.holds(
        "[...document.querySelectorAll('#rows .pill')].some((pill) => pill.textContent === 'delivered')",
    )
    .await;
    tab.picture("delivery-delivered").await;

    // Readings above the limit, until the worker has taken the rule up: what came before is not evaluated again.
    tab.open("/alerts").await;
    let fires = "document.getElementById('firing').textContent.includes('Too much power')";
    let mut minutes = 5..60;
    until("the alert fires", || {
        up.publish(folder.path(), "m1", 401, 4900.0, minutes.next().unwrap_or(59));
        async { tab.value(fires).await == true }
    })
    .await;
    tab.picture("alert-firing").await;
    tab.open("/").await;
    tab.holds("document.querySelector('[data-cell=o-firing]').textContent === '1'").await;
    tab.picture("overview-firing").await;
    assert_eq!(tab.errors(), Vec::<String>::new());
    browser.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn numbers_move_without_a_reload_and_a_lost_connection_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let mut up = up(folder.path(), &[]).await;
    let browser = Browser::start().await;
    let tab = browser.tab(&up.page).await;
    tab.open("/topology").await;
    tab.holds("document.getElementById('connection').textContent === 'live'").await;
    tab.value("window.stays = true").await;
    let acked = "document.querySelector('[data-cell=c-readings-acked]').textContent";
    assert_eq!(tab.value(acked).await, "0");
    run_well(folder.path(), &["--dispatcher", &up.api, "publish", SAMPLES]);
    tab.holds(&format!("{acked} !== '0' && window.stays === true")).await;
    tab.holds("document.querySelector('svg.graph [data-cell=c-store-rate]').textContent !== '0/s'").await;
    assert_eq!(tab.errors(), Vec::<String>::new());
    up.service.kill();
    tab.holds("document.getElementById('connection').textContent.startsWith('connection lost')").await;
    browser.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_viewer_logs_in_looks_and_cannot_act() {
    let folder = tempfile::tempdir().unwrap();
    let (viewer, operator) = ("viewer-token-0123456789", "operator-token-0123456789");
    let tokens = [format!("page.viewer_token={viewer}"), format!("page.operator_token={operator}")];
    let up = up(folder.path(), &["--set", &tokens[0], "--set", &tokens[1]]).await;
    run_well(folder.path(), &["--dispatcher", &up.api, "publish", SAMPLES]);
    let browser = Browser::start().await;
    let tab = browser.tab(&up.page).await;
    tab.open("/queues/Bear").await;
    tab.shows("The viewer token may look").await;
    tab.picture("login").await;
    tab.write("input[name=token]", "wrong-token-0123456789").await;
    tab.click("button.primary").await;
    tab.shows("this token is not known").await;
    tab.errors(); // a 401 is one for the browser
    tab.write("input[name=token]", viewer).await;
    tab.write("input[name=name]", "Amaia").await;
    tab.click("button.primary").await;
    tab.shows("viewer · Amaia").await;
    tab.holds("location.pathname === '/queues/Bear'").await;
    assert_eq!(
        tab.value("[...document.querySelectorAll('main button')].every((b) => b.disabled)").await,
        true
    );
    // Enabled by hand, the form is refused all the same.
    tab.value("document.querySelector('main form button').disabled = false").await;
    tab.click("form[action='/queues/pause'] button").await;
    tab.shows("a viewer may look but not act").await;
    let (_, queue) = call("GET", &format!("{}/queue/Bear", up.api), None).await;
    assert_ne!(queue["state"], "pause");
    browser.end().await;
}
