//! The life of topologies in a registry.

mod sources;

use std::time::Duration;

use galerna_control::{Autoscale, ControlError, Status, Topologies};
use galerna_engine::EngineOptions;
use sources::{endless, numbers};

#[tokio::test(start_paused = true)]
async fn a_topology_is_started_switched_and_killed_by_name() {
    let topologies = Topologies::new();
    topologies.submit("endless", endless(), EngineOptions::default()).await.unwrap();
    assert_eq!(topologies.get("endless").unwrap().summary.status, Status::Active);
    topologies.deactivate("endless").unwrap();
    assert_eq!(topologies.get("endless").unwrap().summary.status, Status::Inactive);
    topologies.activate("endless").unwrap();
    let report = topologies.kill("endless", Some(Duration::from_secs(60))).await.unwrap();
    assert!(report.drained, "{report:?}");
    let ended = topologies.get("endless").unwrap();
    assert_eq!(ended.summary.status, Status::Killed);
    assert_eq!((ended.summary.acked, ended.summary.pending), (ended.summary.emitted, 0));
    assert!(ended.ended.unwrap().drained);
    for refused in [topologies.activate("endless"), topologies.begin_kill("endless", None)] {
        assert!(matches!(refused, Err(ControlError::Ending { .. })), "{refused:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_has_finished_stays_listed_for_ten_minutes() {
    let topologies = Topologies::new();
    topologies.submit("numbers", numbers(100), EngineOptions::default()).await.unwrap();
    while topologies.get("numbers").unwrap().summary.status != Status::Finished {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let summary = topologies.get("numbers").unwrap().summary;
    assert_eq!((summary.emitted, summary.acked, summary.failed), (100, 100, 0));
    assert!(topologies.metrics().is_empty(), "only what runs has metrics");
    tokio::time::sleep(Duration::from_secs(590)).await;
    assert_eq!(topologies.list().len(), 1);
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert_eq!(topologies.list().len(), 0);
    assert!(matches!(topologies.get("numbers"), Err(ControlError::Unknown(_))));
}

#[tokio::test(start_paused = true)]
async fn a_name_is_that_of_one_topology_and_can_stand_in_a_path() {
    let topologies = Topologies::new();
    topologies.submit("one", endless(), EngineOptions::default()).await.unwrap();
    let taken = topologies.submit("one", endless(), EngineOptions::default()).await;
    assert!(matches!(taken, Err(ControlError::Taken(_))), "{taken:?}");
    for name in ["", "a/b", "..", "a\nb", &"x".repeat(101)] {
        let refused = topologies.submit(name, endless(), EngineOptions::default()).await;
        assert!(matches!(refused, Err(ControlError::Name { .. })), "{name:?}: {refused:?}");
    }
    topologies.kill("one", None).await.unwrap();
    // What has ended gives its name away.
    topologies.submit("one", endless(), EngineOptions::default()).await.unwrap();
    assert_eq!(topologies.list().len(), 1);
    assert_eq!(topologies.drain(Duration::from_secs(60)).await.len(), 1);
}

#[tokio::test]
async fn executors_are_changed_and_what_cannot_be_is_refused() {
    let topologies = Topologies::new();
    topologies.submit("keyed", sources::keyed(), EngineOptions::default()).await.unwrap();
    let done = topologies.rebalance("keyed", "count", 4).await.unwrap();
    assert_eq!((done.from, done.to), (1, 4));
    assert_eq!(topologies.get("keyed").unwrap().component("count").unwrap().executors, 4);
    let refused = topologies.rebalance("keyed", "count", 5).await.unwrap_err();
    assert_eq!(
        refused.to_string(),
        "topology `keyed` was not rebalanced: `count` has 4 tasks and cannot have 5 executors; declare it with more `tasks`"
    );
    for (bounds, told) in [(2..=9, "cannot have 9 executors"), (0..=2, "cannot have 0 executors")] {
        let refused = topologies.autoscale("keyed", "count", Autoscale::between(bounds)).await.unwrap_err();
        assert!(refused.to_string().contains(told), "{refused}");
    }
    topologies.kill("keyed", Some(Duration::ZERO)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn executors_follow_the_load() {
    let topologies = Topologies::new();
    topologies.submit("keyed", sources::keyed(), EngineOptions::default()).await.unwrap();
    let hasty =
        Autoscale { hold: Duration::ZERO, grow_at: 0.02, shrink_at: 0.01, ..Autoscale::between(1..=3) };
    topologies.autoscale("keyed", "count", hasty).await.unwrap();
    let executors = || topologies.get("keyed").unwrap().component("count").unwrap().executors;
    let grown = async {
        while executors() < 3 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), grown).await.unwrap();
    topologies.deactivate("keyed").unwrap();
    let shrunk = async {
        while executors() > 1 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), shrunk).await.unwrap();
    topologies.kill("keyed", Some(Duration::ZERO)).await.unwrap();
}
