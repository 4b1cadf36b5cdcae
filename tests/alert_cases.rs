//! Alerts that must not come and alerts that must, on the running system: clocks that lie, restarts, silences that end.

mod system;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use galerna_model::{Clock, SystemClock};
use serde_json::{Value, json};
use system::{DEADLINE, Service, call, run_well, until};

/// The device that tells whether the rules are in force.
const PROBE: &str = "al_probe";

/// A running system with the source `s1`.
struct World {
    folder: PathBuf,
    service: Service,
    frontend: String,
    page: String,
    token: String,
    sqn: u64,
}

impl World {
    async fn start(folder: &Path) -> Self {
        let added = run_well(folder, &["sources", "add", "s1", "--account", "A", "--json"]);
        let added: Value = serde_json::from_str(&added).unwrap();
        let (service, frontend, page) = Self::up(folder).await;
        let token = added["token"].as_str().unwrap().to_owned();
        Self { folder: folder.to_owned(), service, frontend, page, token, sqn: 0 }
    }

    async fn up(folder: &Path) -> (Service, String, String) {
        let service = Service::start(folder, &["up", "--listen", "127.0.0.1:0"]);
        service.said("all modules are up").await;
        let address = async |name: &str| {
            let entry = service.said(&format!("the {name} listens")).await;
            format!("http://{}", entry["fields"]["address"].as_str().unwrap())
        };
        let (frontend, page) = (address("frontend").await, address("page").await);
        (service, frontend, page)
    }

    async fn restart(&mut self) {
        assert!(self.service.stop().await.success(), "{}", self.service.log());
        (self.service, self.frontend, self.page) = Self::up(&self.folder).await;
    }

    /// One call with one reading of parameter 401, at so many seconds from now.
    async fn post(&mut self, device: &str, value: f64, seconds: i64) {
        self.sqn += 1;
        let ts = SystemClock.now().plus_millis(seconds * 1_000).to_string();
        let reading = json!({"did": device, "values": [{"p": 401, "v": value}], "sqn": self.sqn, "ts": ts});
        let url = format!("{}/readings?source_key=s1&x-dexcell-source-token={}", self.frontend, self.token);
        let (status, answer) = call("POST", &url, Some(&reading.to_string())).await;
        assert_eq!(status, 202, "{answer}");
    }

    fn galerna(&self, args: &[&str]) -> Value {
        let page = format!("page.url={}", self.page);
        let said = run_well(&self.folder, &[&["--set", &page], args, &["--json"]].concat());
        serde_json::from_str(&said).unwrap_or_else(|e| panic!("{args:?}: {e}: {said}"))
    }

    fn save(&self, kind: &str, what: &Value) {
        let file = self.folder.join("to_save.json");
        std::fs::write(&file, what.to_string()).unwrap();
        let page = format!("page.url={}", self.page);
        run_well(&self.folder, &["--set", &page, kind, "save", file.to_str().unwrap()]);
    }

    /// Rules `hot` (401 above 1000, of `al_*`) and `quiet` (silent for so long, of `qt_*`), told to `hook`.
    async fn save_rules(&mut self, quiet_after: Duration) {
        self.save("endpoints", &json!({"id": "hook", "name": "Hook", "kind": "log"}));
        let rule = |id: &str, devices: &str, condition: Value| {
            json!({"id": id, "name": id, "account": null, "devices": devices, "severity": "warning", "endpoints": ["hook"],
                   "cooldown_ms": 0, "enabled": true, "condition": condition})
        };
        let hot = json!({"kind": "threshold", "parameter": 401, "comparison": "above", "limit": 1000.0, "clear": null, "for_ms": 0});
        let quiet = json!({"kind": "silent", "after_ms": quiet_after.as_millis() as u64});
        self.save("rules", &json!([rule("hot", "al_*", hot), rule("quiet", "qt_*", quiet)]));
        // Workers take rules up within seconds: as soon as one fires for this device, all are in force.
        let begun = Instant::now();
        while !self.all_events().iter().any(|(_, device, _)| device == PROBE) {
            assert!(begun.elapsed() < DEADLINE, "{}", self.service.log());
            self.post(PROBE, 5_000.0, 0).await;
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
    }

    /// What was raised and resolved but for the probe: rule, device, kind; the newest first.
    fn events(&self) -> Vec<(String, String, String)> {
        self.all_events().into_iter().filter(|(_, device, _)| device != PROBE).collect()
    }

    fn all_events(&self) -> Vec<(String, String, String)> {
        let found = self.galerna(&["alerts", "list", "--all"]);
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let events = found["events"].as_array().unwrap().iter();
        events.map(|e| (text(&e["rule_name"]), text(&e["device"]), text(&e["kind"]))).collect()
    }

    /// The deliveries that were made, each with its events.
    fn delivered(&self) -> Vec<Value> {
        let found = self.galerna(&["deliveries", "list", "--all", "--status", "delivered"]);
        found["deliveries"].as_array().unwrap().clone()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_is_fast_makes_no_neighbour_silent() {
    let folder = tempfile::tempdir().unwrap();
    let mut world = World::start(folder.path()).await;
    world.save_rules(Duration::from_secs(60)).await;
    world.post("al_fut", 20.0, 43_200).await;
    for n in 1..=6 {
        world.post("qt_1", f64::from(n), 0).await;
        world.post("qt_other", f64::from(n), 0).await;
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    // What comes last is evaluated last: when it fires, all before it was evaluated.
    world.post("al_last", 5_000.0, 0).await;
    until("the last reading raises", || async { !world.events().is_empty() }).await;
    assert_eq!(world.events(), [("hot".to_owned(), "al_last".to_owned(), "raised".to_owned())]);
    assert!(world.service.stop().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silence_is_told_once_though_no_process_lives_as_long_as_it_takes() {
    let folder = tempfile::tempdir().unwrap();
    let mut world = World::start(folder.path()).await;
    world.save_rules(Duration::from_secs(20)).await;
    world.post("qt_1", 1.0, 0).await;
    let begun = Instant::now();
    // Each process is ended long before the rule's time is over, so none can know of it alone.
    while world.events().is_empty() {
        assert!(begun.elapsed() < DEADLINE, "{}", world.service.log());
        tokio::time::sleep(Duration::from_secs(6)).await;
        world.restart().await;
    }
    // And once over what follows.
    world.restart().await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(world.events(), [("quiet".to_owned(), "qt_1".to_owned(), "raised".to_owned())]);
    assert!(world.service.stop().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_fires_still_when_its_silence_ends_is_told_once() {
    let folder = tempfile::tempdir().unwrap();
    let mut world = World::start(folder.path()).await;
    world.save_rules(Duration::from_secs(3_600)).await;
    world.galerna(&["silences", "create", "--device", "al_*", "--for", "10s", "--reason", "works"]);
    world.post("al_1", 5_000.0, 0).await;
    until("it fires", || async { !world.events().is_empty() }).await;
    until("the silence is over", || async { world.galerna(&["silences", "list"])[0]["in_force"] == false })
        .await;
    world.post("al_1", 6_000.0, 0).await;
    let devices = |world: &World| -> Vec<String> {
        let delivered = world.delivered();
        let events =
            delivered.iter().flat_map(|delivery| delivery["events"].as_array().cloned().unwrap_or_default());
        let told = events.map(|event| {
            format!("{} {}", event["kind"].as_str().unwrap(), event["device"].as_str().unwrap())
        });
        told.filter(|told| !told.ends_with(PROBE)).collect()
    };
    until("it is told", || async { !devices(&world).is_empty() }).await;
    // One that would be told twice is told again with the next reading.
    world.post("al_1", 7_000.0, 0).await;
    world.post("al_2", 5_000.0, 0).await;
    until("the next is told", || async { devices(&world).contains(&"raised al_2".to_owned()) }).await;
    let mut told = devices(&world);
    told.sort();
    assert_eq!(told, ["raised al_1", "raised al_2"]);
    assert!(world.service.stop().await.success());
}
