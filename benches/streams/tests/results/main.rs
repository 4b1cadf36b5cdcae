//! What the queries make of their events, compared with a plain computation that knows nothing of streams.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod groups;
mod nexmark;
mod theodolite;

use std::sync::Arc;
use std::time::Duration;

use galerna_engine::{CheckpointOptions, Engine, EngineOptions};
use galerna_lock::Mutex;
use galerna_state::FolderCheckpoints;
use galerna_streams::replayable::{Replayable, Source};
use galerna_topology::Data;
use galerna_topology::prelude::*;

/// All that a query makes of so many events, by two tasks, with checkpoints.
async fn results<T: Data, R: Data>(
    events: u64,
    make: impl Fn(u64) -> T + Send + Sync + 'static,
    query: impl FnOnce(&mut TopologyBuilder, Stream<T>, usize) -> Stream<R>,
) -> Vec<R> {
    let source = Source { events, rate: None, make: Arc::new(make), progress: Arc::default() };
    let progress = source.progress.clone();
    let results = Arc::new(Mutex::new(Vec::new()));
    let mut topology = TopologyBuilder::new("query");
    let made = topology.spout("source", move || Replayable::new(source.clone())).parallelism(2).outputs();
    let stream = query(&mut topology, made, 2);
    let sink = results.clone();
    topology.for_each("sink", move |result: R| sink.lock().push(result)).global(stream);

    let folder = tempfile::tempdir().unwrap();
    let store = FolderCheckpoints::open(folder.path(), "query").await.unwrap();
    let checkpoints = Some(CheckpointOptions::new(store).every(Duration::from_millis(50)));
    let options = EngineOptions { checkpoints, ..EngineOptions::default() };
    let running = Engine::submit(topology.build().unwrap(), options).await.unwrap();
    running.finished().await;
    let report = running.drain(Duration::from_secs(60)).await;
    assert!(report.drained, "{report:?}");
    assert_eq!(progress.failed(), 0, "{report:?}");
    std::mem::take(&mut *results.lock())
}
