//! What is handed in is answered by what became of it.

use std::time::Duration;

use galerna_engine::{Engine, EngineOptions, Running};
use galerna_spouts::{Intake, IntakeError, intake};
use galerna_topology::{FailureKind, Fault, TopologyBuilder};

async fn running(waiting: usize, active: bool) -> (Intake<u32>, Running) {
    let (handle, spout) = intake::<u32>(waiting);
    let mut topology = TopologyBuilder::new("intake");
    let numbers = topology.spout("intake", spout).parallelism(2).outputs();
    topology
        .for_each("even", |n: u32| {
            if n.is_multiple_of(2) { Ok(()) } else { Err(Fault::permanent(format!("{n} is odd"))) }
        })
        .shuffle(&numbers);
    let options = EngineOptions { active, ..EngineOptions::default() };
    let topology = topology.build().expect("it can be built");
    (handle, Engine::submit(topology, options).await.expect("it starts"))
}

#[tokio::test]
async fn each_value_is_answered_by_what_became_of_its_tree() {
    let (intake, running) = running(1_000, true).await;
    let answers = (0..500).map(|n| {
        let intake = intake.clone();
        tokio::spawn(async move { (n, intake.submit(n).await) })
    });
    for answer in answers.collect::<Vec<_>>() {
        let (n, answer) = answer.await.expect("nothing panics");
        match answer {
            Ok(()) => assert_eq!(n % 2, 0),
            Err(IntakeError::Failed(failure)) => {
                assert_eq!(
                    (failure.kind, failure.reason()),
                    (FailureKind::Error, format!("{n} is odd").as_str())
                );
            }
            Err(other) => panic!("{n}: {other}"),
        }
    }
    drop(intake);
    running.finished().await;
    running.drain(Duration::from_secs(60)).await;
}

#[tokio::test]
async fn more_than_may_wait_is_refused_and_what_waits_at_the_end_is_told_so() {
    let (intake, running) = running(2, false).await;
    let mut waiting = [Box::pin(intake.submit(2)), Box::pin(intake.submit(4))];
    for submitted in &mut waiting {
        // The tasks of an inactive spout take nothing; polled once, it is in the channel.
        let answered = tokio::time::timeout(Duration::from_millis(1), submitted).await;
        assert!(answered.is_err(), "{answered:?}");
    }
    assert_eq!(intake.submit(6).await, Err(IntakeError::Full));
    running.drain(Duration::from_secs(60)).await;
    for submitted in waiting {
        assert_eq!(submitted.await, Err(IntakeError::Closed));
    }
    assert_eq!(intake.submit(8).await, Err(IntakeError::Closed));
}
