//! What concerns MongoDB alone.

use galerna_state::{CheckpointError, CheckpointStore, MongoCheckpointOptions, MongoCheckpoints};
use galerna_test_servers::{Mongo, unique};

use crate::Topology;

fn options(server: &Mongo) -> MongoCheckpointOptions {
    MongoCheckpointOptions { database: Some(unique("state")), ..MongoCheckpointOptions::new(server.uri()) }
}

#[tokio::test]
async fn of_two_processes_that_run_one_topology_one_is_refused_and_breaks_nothing() {
    let server = Mongo::shared().await;
    let options = options(server);
    let first = MongoCheckpoints::connect(options.clone(), "t").await.expect("connected");
    let second = MongoCheckpoints::connect(options, "t").await.expect("connected");
    let (mut one, mut two) = (Topology::new(1), Topology::new(1));
    one.execute(1, 1);
    two.execute(2, 2);
    let id = first.begin().await.expect("begun");
    assert_eq!(second.begin().await.expect("begun"), id);
    // Both write all their parts before either commits.
    let mut stored = Vec::new();
    for (store, topology) in [(&first, &one), (&second, &two)] {
        let mut parts = Vec::new();
        for task in topology.count.iter().chain(&topology.join) {
            parts.push(store.put(id, task.snapshot(id, None).expect("a snapshot")).await.expect("put"));
        }
        let manifest = galerna_state::Manifest::assemble(id, "t", 0, None, &parts, Default::default());
        stored.push(manifest.expect("whole"));
    }
    first.commit(&stored[0]).await.expect("committed");
    let error = second.commit(&stored[1]).await.expect_err("refused");
    assert!(
        matches!(error, CheckpointError::Conflict { .. }) && error.to_string().contains("one process"),
        "{error}"
    );
    second.collect(std::num::NonZeroUsize::MIN).await.expect("collected");
    let found = Topology::recover(&second, 1).await;
    assert_eq!(found.content.counts, one.content.counts);
}

#[tokio::test]
async fn a_part_larger_than_a_document_may_be_is_cut_into_several() {
    let server = Mongo::shared().await;
    let store = MongoCheckpoints::connect(options(server), "t").await.expect("connected");
    let tasks = crate::tasks("large", 1);
    let mut texts = tasks[0].value::<String>("text").expect("a handle");
    for n in 0..40_u32 {
        texts.set(&n, &format!("{n}").repeat(500_000)).expect("set");
    }
    let id = store.begin().await.expect("begun");
    let part = tasks[0].snapshot(id, None).expect("a snapshot");
    assert!(part.bytes.len() > 30 << 20);
    let part = store.put(id, part).await.expect("put");
    let manifest =
        galerna_state::Manifest::assemble(id, "t", 0, None, &[part], Default::default()).expect("whole");
    store.commit(&manifest).await.expect("committed");
    let restored = crate::tasks("large", 3);
    for task in &restored {
        task.restore(&store, &manifest).await.expect("restored");
        for (n, text) in task.value::<String>("text").expect("a handle").collect::<u32>().expect("read") {
            assert_eq!(text, format!("{n}").repeat(500_000));
        }
    }
    let keys: usize = restored.iter().map(|task| task.size().keys_in_memory).sum();
    assert_eq!(keys, 40);
}

#[tokio::test]
async fn a_server_that_dies_is_unavailable_and_what_was_committed_is_there_when_it_is_back() {
    let server = Mongo::start().await;
    let mut options = options(&server);
    options.timeout = std::time::Duration::from_secs(2);
    let store = MongoCheckpoints::connect(options, "t").await.expect("connected");
    let mut topology = Topology::new(2);
    topology.execute(1, 1);
    topology.checkpoint(&store, &mut Vec::new()).await.expect("a checkpoint");
    let committed = topology.content.clone();
    topology.execute(2, 2);
    let id = store.begin().await.expect("begun");
    server.kill().await;
    let part = topology.join[0].snapshot(id, None).expect("a snapshot");
    let error = store.put(id, part).await.expect_err("nobody answers");
    assert!(error.is_transient(), "{error}");
    server.restart().await;
    let found = Topology::recover(&store, 3).await;
    assert_eq!(found.content, committed);
    topology.checkpoint(&store, &mut Vec::new()).await.expect("the next one succeeds");
    assert_eq!(Topology::recover(&store, 3).await.content, topology.content);
}

#[tokio::test]
async fn an_address_that_is_wrong_says_so() {
    let error =
        MongoCheckpoints::connect(MongoCheckpointOptions::new("mango://x"), "t").await.expect_err("refused");
    assert!(
        matches!(error, CheckpointError::Invalid(_)) && error.to_string().contains("mongodb://"),
        "{error}"
    );
}
