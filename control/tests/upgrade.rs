//! A topology ends so that another program goes on from its checkpoint, and says before what that would make of it.

mod sources;

use std::time::Duration;

use galerna_control::{ControlError, ControlOptions, Status, Topologies, Upgrade, UpgradeView, serve};
use galerna_engine::{CheckpointOptions, Engine, EngineOptions};
use galerna_state::prelude::*;
use galerna_state::{FolderCheckpoints, StateSpec};
use galerna_topology::prelude::*;
use reqwest::Client;
use serde_json::{Value, json};
use sources::Numbers;

/// Counts by key, in the version of one program or another.
struct Count {
    spec: StateSpec,
    count: Option<ValueState<u64>>,
}

impl Bolt for Count {
    type Input = u64;
    type Outputs = ();

    fn prepare(&mut self, context: &TaskContext) -> Result<(), Fault> {
        self.count = Some(context.state()?.value(&self.spec)?);
        Ok(())
    }

    fn execute(&mut self, n: u64, _: &mut Emitter<()>) -> Result<(), Fault> {
        let count = self.count.as_mut().ok_or_else(|| Fault::permanent("it was not prepared"))?;
        Ok(count.update(&(n % 10), |n| n.unwrap_or(0) + 1).map(drop)?)
    }
}

fn counting(component: &str, spec: impl Into<StateSpec>) -> Topology {
    let spec = spec.into();
    let mut topology = TopologyBuilder::new("counting");
    let numbers = topology.spout("numbers", || Numbers(0, u64::MAX)).outputs();
    topology
        .bolt(component, move || Count { spec: spec.clone(), count: None })
        .keyed_by(numbers, |n: &u64| n % 10)
        .parallelism(2);
    topology.build().unwrap()
}

fn migrated() -> StateSpec {
    StateSpec::new("count").version(2).migrate(1, |count: u64| Ok(count))
}

async fn submit(
    topologies: &Topologies,
    folder: &std::path::Path,
    topology: Topology,
) -> Result<(), ControlError> {
    let store = FolderCheckpoints::open(folder, "counting").await.unwrap();
    let checkpoints = CheckpointOptions::new(store).every(Duration::from_secs(3_600));
    let options = EngineOptions { checkpoints: Some(checkpoints), ..EngineOptions::default() };
    topologies.submit("counting", topology, options).await
}

async fn declared(topology: &Topology) -> Vec<galerna_state::DeclaredState> {
    Engine::declared_states(topology, &EngineOptions::default()).await.unwrap()
}

async fn over(topologies: &Topologies) {
    while !topologies.get("counting").unwrap().summary.status.is_over() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn a_new_program_goes_on_from_the_checkpoint_of_the_old_one() {
    let folder = tempfile::tempdir().unwrap();
    let topologies = Topologies::new();
    submit(&topologies, folder.path(), counting("count", "count")).await.unwrap();
    let new = counting("count", migrated());
    let declares = declared(&new).await;
    assert_eq!(
        json!(declares),
        json!([{ "component": "count", "state": "count", "kind": "value", "version": 2, "migrates_from": [1] }])
    );
    let early = topologies.plan_upgrade("counting", &declares).await.unwrap_err();
    assert_eq!(early.to_string(), "topology `counting`: there is no checkpoint yet: take one first");
    topologies.checkpoint("counting").await.unwrap();

    let plan = topologies.plan_upgrade("counting", &declares).await.unwrap();
    assert!(plan.starts && plan.states[0].bytes > 0, "{plan:?}");
    assert_eq!((plan.states[0].fate.as_str(), &plan.states[0].versions[..]), ("migrated", &[1, 2][..]));
    assert_eq!(plan.advice[0], "It starts from this checkpoint.");
    assert_eq!(topologies.get("counting").unwrap().summary.status, Status::Active, "nothing has changed");

    let upgrade = Upgrade { declares: Some(declares), ..Upgrade::default() };
    let begun = topologies.upgrade("counting", upgrade).await.unwrap();
    over(&topologies).await;
    let ended = topologies.get("counting").unwrap();
    assert!(ended.ended.is_some_and(|ended| ended.drained));
    let last = ended.checkpoints.and_then(|checkpoints| checkpoints.last);
    assert!(last > Some(begun.checkpoint.id.0), "what it did until it ended is in one more: {last:?}");

    submit(&topologies, folder.path(), new).await.unwrap();
    assert_eq!(topologies.get("counting").unwrap().states[0].version, 2);
    // The way back is none.
    let back = declared(&counting("count", "count")).await;
    topologies.checkpoint("counting").await.unwrap();
    let plan = topologies.plan_upgrade("counting", &back).await.unwrap();
    assert_eq!((plan.starts, plan.states[0].fate.as_str()), (false, "refused"));
    topologies.kill("counting", None).await.unwrap();
}

#[tokio::test]
async fn a_topology_runs_on_if_the_new_program_would_not_start() {
    let folder = tempfile::tempdir().unwrap();
    let topologies = Topologies::new();
    submit(&topologies, folder.path(), counting("count", migrated())).await.unwrap();
    topologies.checkpoint("counting").await.unwrap();
    let renamed = declared(&counting("counts", migrated())).await;
    let older = declared(&counting("count", "count")).await;
    let unrelated = declared(&counting("count", StateSpec::new("count").version(3))).await;
    for (declares, told) in [
        (older, "one state is refused"),
        (unrelated, "one state is refused"),
        (renamed.clone(), "only with `CheckpointOptions::drop_orphaned`, which loses the state of `count`"),
    ] {
        let upgrade = Upgrade { declares: Some(declares), ..Upgrade::default() };
        let refused = topologies.upgrade("counting", upgrade).await.unwrap_err().to_string();
        assert!(refused.contains("is not upgraded, and runs on") && refused.contains(told), "{refused}");
        assert_eq!(topologies.get("counting").unwrap().summary.status, Status::Active);
    }
    let upgrade = Upgrade { declares: Some(renamed), drop_orphaned: true, ..Upgrade::default() };
    let plan = topologies.upgrade("counting", upgrade).await.unwrap().plan.unwrap();
    assert_eq!(plan.orphaned_components, ["count"]);
    over(&topologies).await;
    let refused = submit(&topologies, folder.path(), counting("counts", migrated())).await.unwrap_err();
    assert!(refused.to_string().contains("`count`"), "as the plan said: {refused}");
}

#[tokio::test]
async fn upgrades_and_autoscaling_are_asked_for_over_http() {
    galerna_tls::install_default_provider();
    let folder = tempfile::tempdir().unwrap();
    let topologies = Topologies::new();
    submit(&topologies, folder.path(), counting("count", "count")).await.unwrap();
    topologies.submit("keyed", sources::keyed(), EngineOptions::default()).await.unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(serve(listener, topologies.clone(), ControlOptions::default()));
    let client = Client::new();
    let post = async |path: &str, body: Value| {
        let answer =
            client.post(format!("{base}/api/v1/topologies/{path}")).json(&body).send().await.unwrap();
        (answer.status().as_u16(), answer.json::<Value>().await.unwrap())
    };

    for (path, body, status, code) in [
        ("counting/upgrade", json!({ "dry_run": true }), 409, "no_checkpoints"),
        ("keyed/upgrade", json!({}), 409, "no_checkpoints"),
        ("nobody/upgrade", json!({}), 404, "unknown_topology"),
        ("counting/upgrade", json!({ "wait_seconds": 100_000 }), 422, "invalid_wait"),
        ("counting/upgrade", json!({ "declares": [{ "component": "count" }] }), 422, "wrong_shape"),
        ("keyed/autoscale", json!({ "component": "count", "min": 3, "max": 2 }), 422, "invalid_bounds"),
        ("keyed/autoscale", json!({ "component": "count", "min": 3 }), 422, "invalid_bounds"),
        ("keyed/autoscale", json!({ "component": "count", "min": 1, "max": 9 }), 422, "invalid_executors"),
        (
            "keyed/autoscale",
            json!({ "component": "count", "min": 1, "max": 2, "grow_at": 1.5 }),
            422,
            "invalid_bounds",
        ),
        ("keyed/autoscale", json!({ "component": "none", "min": 1, "max": 2 }), 404, "unknown_component"),
        ("keyed/autoscale", json!({ "component": "count" }), 422, "invalid_bounds"),
    ] {
        let (was, answer) = post(path, body.clone()).await;
        assert_eq!((was, answer["error"]["code"].as_str()), (status, Some(code)), "{path} {body}: {answer}");
    }

    let (status, answer) = post("keyed/autoscale", json!({ "component": "count", "min": 2, "max": 3 })).await;
    assert_eq!((status, &answer["autoscaled"][0]["max"]), (200, &json!(3)), "{answer}");
    let shown = topologies.get("keyed").unwrap();
    assert_eq!((shown.autoscaled[0].min, shown.component("count").unwrap().executors), (2, 2));
    let page = client.get(format!("{base}/topologies/keyed")).send().await.unwrap().text().await.unwrap();
    assert!(page.contains("follow the load from 2 to 3"), "{page}");
    let (status, answer) = post("keyed/autoscale", json!({ "component": "count" })).await;
    assert_eq!((status, &answer["autoscaled"]), (200, &json!([])));

    topologies.checkpoint("counting").await.unwrap();
    let (status, answer) = post("counting/upgrade", json!({ "dry_run": true })).await;
    let plan: UpgradeView = serde_json::from_value(answer).unwrap();
    assert_eq!((status, plan.starts, plan.states[0].fate.as_str()), (200, true, "claimed"));
    let page = client.get(format!("{base}/topologies/counting")).send().await.unwrap().text().await.unwrap();
    for part in ["End for an upgrade", "At least once: numbers", "Checkpoint "] {
        assert!(page.contains(part), "{part}: {page}");
    }
    let newer = json!([{ "component": "count", "state": "count", "kind": "map", "version": 1 }]);
    let (status, answer) = post("counting/upgrade", json!({ "declares": newer })).await;
    assert_eq!((status, &answer["error"]["code"]), (409, &json!("would_not_start")));
    let (status, answer) = post("counting/upgrade", json!({ "wait_seconds": 30 })).await;
    assert_eq!((status, &answer["status"]), (202, &json!("ending")), "{answer}");
    over(&topologies).await;
    topologies.kill("keyed", Some(Duration::ZERO)).await.unwrap();
}
