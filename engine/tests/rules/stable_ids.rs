//! The ids that messages have of their own, as bolts read them.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use galerna_engine::EngineOptions;
use galerna_engine::testing::Harness;
use galerna_topology::prelude::*;

/// Emits each number as the message `m<n>`, even ones twice under one root, again when it fails; 0 has no id, 1 no root.
struct Messages(VecDeque<u64>);

impl Spout for Messages {
    type MessageId = u64;
    type Outputs = Output<u64>;

    async fn next(&mut self, out: &mut Roots<'_, Self>) -> Result<Next, Fault> {
        while let Some(n) = self.0.pop_front() {
            let out = match n {
                0 => out.root(n),
                1 => out.untracked(),
                _ => out.root_with_stable_id(n, format!("m{n}")),
            };
            out.emit(n);
            if n % 2 == 0 {
                out.emit(n);
            }
        }
        Ok(Next::Idle)
    }

    async fn failed(&mut self, failed: &mut Vec<Failed<u64>>) {
        self.0.extend(failed.drain(..).map(|failed| failed.id));
    }

    async fn ready(&mut self) {
        if self.0.is_empty() {
            std::future::pending().await
        }
    }
}

type Ids = Arc<Mutex<Vec<(u64, Option<Arc<str>>)>>>;

/// Notes the ids of what it takes; 3 fails the first time.
#[derive(Clone)]
struct Noting(Ids);

impl Noting {
    fn note(&self, n: u64, id: Option<Arc<str>>) -> Result<(), Fault> {
        let mut ids = self.0.lock().unwrap();
        let first = !ids.iter().any(|(noted, _)| *noted == n);
        ids.push((n, id));
        if first && n == 3 { Err(Fault::transient("the first time")) } else { Ok(()) }
    }
}

impl Bolt for Noting {
    type Input = u64;
    type Outputs = ();
    fn execute(&mut self, n: u64, out: &mut Emitter<()>) -> Result<(), Fault> {
        let anchor = out.keep();
        assert_eq!(anchor.stable_id(), out.stable_id(), "a kept tuple tells the same");
        anchor.ack();
        assert_eq!(out.stable_ids(), Vec::from_iter(out.stable_id()));
        self.note(n, out.stable_id())
    }
    fn tick(&mut self, out: &mut Emitter<()>) -> Result<(), Fault> {
        assert_eq!(out.stable_id(), None, "a tick is no message");
        Ok(())
    }
}

impl AsyncBolt for Noting {
    type Input = u64;
    type Outputs = ();
    async fn execute(&mut self, n: u64, out: &mut Emitter<()>) -> Result<(), Fault> {
        tokio::task::yield_now().await;
        self.note(n, out.stable_id())
    }
}

impl BatchBolt for Noting {
    type Input = u64;
    type Outputs = ();
    fn execute(&mut self, batch: Batch<u64>, _: &mut Emitter<()>) {
        let ids = batch.stable_ids();
        let (values, anchors) = batch.into_parts();
        anchors.settle(values.into_iter().zip(ids).map(|(n, id)| self.note(n, id)));
    }
}

#[tokio::test]
async fn bolts_of_every_kind_read_the_ids_of_messages_also_when_they_come_again() {
    for kind in ["bolt", "async", "batch"] {
        for fuse in [true, false] {
            let harness = Harness::new().with_options(EngineOptions { fuse, ..EngineOptions::default() });
            let noted = Ids::default();
            let mut topology = TopologyBuilder::new("ids");
            let stream = topology.spout("messages", || Messages((0..6).collect())).outputs();
            let same = topology.map("same", |n: u64| n).shuffle(stream).outputs();
            let noting = Noting(noted.clone());
            match kind {
                "bolt" => topology.bolt("note", noting).shuffle(same).parallelism(2),
                "async" => topology.async_bolt("note", noting).shuffle(same).parallelism(2),
                _ => topology.batch_bolt("note", noting).shuffle(same).parallelism(2),
            };
            let run = harness.start(topology.build().unwrap()).await.unwrap();
            run.until("all have come", || noted.lock().unwrap().len() == 10).await;
            run.settle().await;
            let mut noted = noted.lock().unwrap().clone();
            noted.sort();
            let expected =
                [0, 0, 1, 2, 2, 3, 3, 4, 4, 5].map(|n| (n, (n > 1).then(|| format!("m{n}").into())));
            assert_eq!(noted, expected, "{kind}, fused: {fuse}");
        }
    }
}

#[tokio::test]
async fn what_came_from_several_messages_has_several_ids() {
    /// Keeps what it takes, and at every third emits one tuple anchored to all of them.
    #[derive(Default)]
    struct Three(Vec<Anchor>);
    impl Bolt for Three {
        type Input = u64;
        type Outputs = Output<u64>;
        fn execute(&mut self, n: u64, out: &mut Emitter<Output<u64>>) -> Result<(), Fault> {
            let anchor = out.keep();
            self.0.push(anchor);
            if self.0.len() == 3 {
                out.emit_anchored(n, &self.0);
                self.0.drain(..).for_each(Anchor::ack);
            }
            Ok(())
        }
    }
    type Several = Arc<Mutex<Vec<(Option<Arc<str>>, Vec<Arc<str>>)>>>;
    struct Noting(Several);
    impl Bolt for Noting {
        type Input = u64;
        type Outputs = ();
        fn execute(&mut self, _: u64, out: &mut Emitter<()>) -> Result<(), Fault> {
            let mut ids = out.stable_ids();
            ids.sort();
            self.0.lock().unwrap().push((out.stable_id(), ids));
            Ok(())
        }
    }
    let (harness, noted) = (Harness::new(), Several::default());
    let mut topology = TopologyBuilder::new("several");
    let stream = topology.spout("messages", || Messages([5, 7, 9].into())).outputs();
    let three = topology.bolt("three", Three::default).shuffle(stream).outputs();
    let notes = noted.clone();
    topology.bolt("note", move || Noting(notes.clone())).shuffle(three);
    let run = harness.start(topology.build().unwrap()).await.unwrap();
    run.settle().await;
    let ids: Vec<Arc<str>> = ["m5", "m7", "m9"].map(Arc::from).into();
    assert_eq!(*noted.lock().unwrap(), [(None, ids)]);
}
