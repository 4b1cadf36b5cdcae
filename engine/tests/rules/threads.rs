//! Executors with threads of their own.

use std::sync::{Arc, Barrier, Mutex};
use std::time::Duration;

use galerna_engine::testing::Harness;
use galerna_topology::prelude::*;

#[tokio::test]
async fn bolts_that_block_have_threads_of_their_own() {
    // On the only thread of this runtime, the first of the two would wait for the second for ever.
    for pinned in [false, true] {
        let harness = Harness::new();
        let feed = harness.feed::<u64>();
        let barrier = Arc::new(Barrier::new(2));
        let names = Arc::<Mutex<Vec<String>>>::default();
        let mut topology = TopologyBuilder::new("blocking");
        let stream = topology.spout("feed", feed.spout()).outputs();
        let log = names.clone();
        let block = move |_: u64| {
            barrier.wait();
            log.lock().unwrap().push(std::thread::current().name().unwrap_or_default().to_owned());
        };
        let bolt = topology.for_each("block", block).all(stream).parallelism(2);
        let _ = if pinned { bolt.pinned() } else { bolt.blocking() };
        let run = harness.start(topology.build().unwrap()).await.unwrap();
        (0..10).for_each(|n| feed.emit(n, n));
        run.until("all are acked", || feed.acked().len() == 10).await;
        assert!(names.lock().unwrap().iter().all(|name| name == "block"));
        let report = run.drain(Duration::from_secs(1)).await;
        assert!(report.drained && report.aborted.is_empty());
    }
}
