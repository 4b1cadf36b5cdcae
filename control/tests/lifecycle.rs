//! The life of topologies in a registry.

mod sources;

use std::time::Duration;

use galerna_control::{ControlError, Status, Topologies};
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
    assert_eq!(topologies.get("numbers").unwrap_err(), ControlError::Unknown("numbers".into()));
}

#[tokio::test(start_paused = true)]
async fn a_name_is_that_of_one_topology_and_can_stand_in_a_path() {
    let topologies = Topologies::new();
    topologies.submit("one", endless(), EngineOptions::default()).await.unwrap();
    let taken = topologies.submit("one", endless(), EngineOptions::default()).await;
    assert_eq!(taken, Err(ControlError::Taken("one".into())));
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
