//! Ends in a topology.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use galerna_engine::{Engine, EngineOptions};
use galerna_fan_in::sqlite::SqliteFanIns;
use galerna_fan_in::{End, Ended, FanIn, FanInOptions, FanInSpout, Plan, Policy};
use galerna_model::{Clock as _, SystemClock};
use galerna_topology::prelude::*;
use serde_json::Value;
use tokio::time::timeout;

#[tokio::test]
async fn an_end_whose_root_fails_is_given_again_and_one_whose_root_is_acked_is_settled() {
    let store = Arc::new(SqliteFanIns::in_memory().unwrap());
    let fan_in = FanIn::new(store.clone(), Arc::new(SystemClock), FanInOptions::default());
    let in_an_hour = SystemClock.now().plus_millis(3_600_000);
    for (id, deadline) in [("reported", in_an_hour), ("too late", SystemClock.now())] {
        let parts = vec!["a".to_owned()];
        let plan = Plan { id: id.to_owned(), parts, policy: Policy::All, deadline, payload: Value::Null };
        fan_in.begin(plan).await.unwrap();
    }
    fan_in.report("reported", "a", Ok(1.into())).await.unwrap();

    let acted = Arc::new(AtomicUsize::new(0));
    let (ends, counted) = (store.clone(), Arc::clone(&acted));
    let mut topology = TopologyBuilder::new("ends");
    let ended = topology.spout("ends", move || FanInSpout::new(ends.clone())).outputs();
    let act = move |ended: Ended| {
        let first = counted.fetch_add(1, Ordering::SeqCst) == 0;
        let expected = if ended.record.id == "reported" { End::Complete } else { End::TimedOut };
        if ended.end != expected || first { Err(Fault::transient("not now")) } else { Ok(()) }
    };
    topology.for_each("act", act).shuffle(ended);
    let running = Engine::submit(topology.build().unwrap(), EngineOptions::default()).await.unwrap();
    let settled = async {
        for id in ["reported", "too late"] {
            while !fan_in.get(id).await.unwrap().settled {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    };
    timeout(Duration::from_secs(120), settled).await.expect("both are acted on");
    assert_eq!(acted.load(Ordering::SeqCst), 3, "one of them twice");
    assert!(running.drain(Duration::from_secs(60)).await.drained);
}
