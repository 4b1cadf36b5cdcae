//! Submitting: what goes wrong is an error that names the component, and what was prepared is closed.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use galerna_engine::testing::Harness;
use galerna_engine::{Engine, EngineError, EngineOptions};
use galerna_topology::prelude::*;
use tokio::sync::Semaphore;

/// Where in the life of a component it panics.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Panics {
    Factory,
    Hook,
}

struct Component(Panics);

impl Component {
    fn make(panics: Panics) -> Self {
        assert!(panics != Panics::Factory, "no such thing");
        Self(panics)
    }

    fn hook(&self) -> Result<(), Fault> {
        assert!(self.0 != Panics::Hook, "no such thing");
        Ok(())
    }
}

impl Spout for Component {
    type MessageId = u64;
    type Outputs = Output<u64>;
    async fn open(&mut self, _: &TaskContext) -> Result<(), Fault> {
        self.hook()
    }
    async fn next(&mut self, _: &mut Roots<'_, Self>) -> Result<Next, Fault> {
        Ok(Next::Done)
    }
}

impl Bolt for Component {
    type Input = u64;
    type Outputs = ();
    fn prepare(&mut self, _: &TaskContext) -> Result<(), Fault> {
        self.hook()
    }
    fn execute(&mut self, _: u64, _: &mut Emitter<()>) -> Result<(), Fault> {
        Ok(())
    }
}

impl AsyncBolt for Component {
    type Input = u64;
    type Outputs = ();
    async fn prepare(&mut self, _: &TaskContext) -> Result<(), Fault> {
        self.hook()
    }
    async fn execute(&mut self, _: u64, _: &mut Emitter<()>) -> Result<(), Fault> {
        Ok(())
    }
}

#[tokio::test]
async fn a_panic_before_the_first_tuple_is_an_error_of_submit() {
    for kind in ["spout", "bolt", "async bolt"] {
        for panics in [Panics::Factory, Panics::Hook] {
            let harness = Harness::new();
            let mut topology = TopologyBuilder::new("panics");
            let make = move || Component::make(panics);
            match kind {
                "spout" => drop(topology.spout("it", make)),
                "bolt" => {
                    let stream = topology.spout("feed", harness.feed::<u64>().spout()).outputs();
                    topology.bolt("it", make).shuffle(stream);
                }
                _ => {
                    let stream = topology.spout("feed", harness.feed::<u64>().spout()).outputs();
                    topology.async_bolt("it", make).shuffle(stream);
                }
            }
            let error = harness.start(topology.build().unwrap()).await.unwrap_err();
            let expected = EngineError::Start {
                component: "it".into(),
                task: 0,
                reason: "panicked: no such thing".into(),
            };
            assert_eq!(error, expected, "{kind}, {panics:?}");
        }
    }
}

/// Counts those prepared and those closed; the last one prepared fails.
#[derive(Clone, Default)]
struct Counts {
    prepared: Arc<AtomicU64>,
    closed: Arc<AtomicU64>,
    fails: bool,
}

impl Counts {
    fn readied(&self) -> Result<(), Fault> {
        if self.fails {
            return Err(Fault::transient("no route"));
        }
        self.prepared.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }

    fn ended(&self) {
        self.closed.fetch_add(1, Ordering::SeqCst);
    }
}

impl Spout for Counts {
    type MessageId = u64;
    type Outputs = Output<u64>;
    async fn open(&mut self, _: &TaskContext) -> Result<(), Fault> {
        self.readied()
    }
    async fn next(&mut self, _: &mut Roots<'_, Self>) -> Result<Next, Fault> {
        Ok(Next::Done)
    }
    async fn close(&mut self) {
        self.ended();
    }
}

impl Bolt for Counts {
    type Input = u64;
    type Outputs = ();
    fn prepare(&mut self, _: &TaskContext) -> Result<(), Fault> {
        self.readied()
    }
    fn execute(&mut self, _: u64, _: &mut Emitter<()>) -> Result<(), Fault> {
        Ok(())
    }
    fn close(&mut self, _: &mut Emitter<()>) {
        self.ended();
    }
}

impl AsyncBolt for Counts {
    type Input = u64;
    type Outputs = ();
    async fn prepare(&mut self, _: &TaskContext) -> Result<(), Fault> {
        self.readied()
    }
    async fn execute(&mut self, _: u64, _: &mut Emitter<()>) -> Result<(), Fault> {
        Ok(())
    }
    async fn close(&mut self, _: &mut Emitter<()>) {
        self.ended();
    }
}

#[tokio::test]
async fn what_was_prepared_is_closed_when_another_cannot_be() {
    for failing in ["bolt", "async bolt", "spout"] {
        let good = Counts::default();
        let bad = Counts { fails: true, ..good.clone() };
        let mut topology = TopologyBuilder::new("closed");
        let make = |at: &str| {
            let counts = if at == failing { bad.clone() } else { good.clone() };
            move || counts.clone()
        };
        let fine = good.clone();
        let stream = topology.spout("spout", move || fine.clone()).parallelism(2).outputs();
        topology.spout("other spout".replace(' ', "-"), make("spout"));
        topology.bolt("bolt", make("bolt")).shuffle(&stream);
        topology.async_bolt("async-bolt", make("async bolt")).shuffle(&stream).parallelism(3);
        let error = Engine::submit(topology.build().unwrap(), EngineOptions::default()).await.unwrap_err();
        assert!(error.to_string().contains("no route"), "{error}");
        let counts = || (good.prepared.load(Ordering::SeqCst), good.closed.load(Ordering::SeqCst));
        let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
        while counts().0 != counts().1 {
            assert!(tokio::time::Instant::now() < deadline, "{failing}: prepared and closed: {:?}", counts());
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

#[tokio::test]
async fn a_computing_bolt_that_is_not_prepared_in_time_is_named() {
    /// Blocks its thread until the test ends.
    struct Blocking(Arc<Mutex<std::sync::mpsc::Receiver<()>>>);
    impl Bolt for Blocking {
        type Input = u64;
        type Outputs = ();
        fn prepare(&mut self, _: &TaskContext) -> Result<(), Fault> {
            let _ = self.0.lock().unwrap_or_else(|e| e.into_inner()).recv();
            Ok(())
        }
        fn execute(&mut self, _: u64, _: &mut Emitter<()>) -> Result<(), Fault> {
            Ok(())
        }
    }
    let (end, ended) = std::sync::mpsc::channel::<()>();
    let ended = Arc::new(Mutex::new(ended));
    let waited = Duration::from_millis(50);
    let options = EngineOptions { start_timeout: waited, ..EngineOptions::default() };
    let harness = Harness::new().with_options(options);
    let mut topology = TopologyBuilder::new("late");
    let stream = topology.spout("feed", harness.feed::<u64>().spout()).outputs();
    topology.bolt("late", move || Blocking(ended.clone())).shuffle(stream);
    let error = harness.start(topology.build().unwrap()).await.unwrap_err();
    assert_eq!(error, EngineError::StartTimeout { component: "late".into(), task: 0, waited });
    drop(end);
}

#[tokio::test(start_paused = true)]
async fn tasks_are_prepared_at_the_same_time() {
    /// Is prepared only when as many others are being prepared.
    struct Together(Arc<Semaphore>, Arc<AtomicU64>);
    impl AsyncBolt for Together {
        type Input = u64;
        type Outputs = ();
        async fn prepare(&mut self, _: &TaskContext) -> Result<(), Fault> {
            if self.1.fetch_add(1, Ordering::SeqCst) + 1 == 20 {
                self.0.add_permits(20);
            }
            self.0.acquire().await?.forget();
            Ok(())
        }
        async fn execute(&mut self, _: u64, _: &mut Emitter<()>) -> Result<(), Fault> {
            Ok(())
        }
    }
    let harness = Harness::new();
    let (gate, count) = (Arc::new(Semaphore::new(0)), Arc::<AtomicU64>::default());
    let mut topology = TopologyBuilder::new("together");
    let stream = topology.spout("feed", harness.feed::<u64>().spout()).outputs();
    topology.async_bolt("it", move || Together(gate.clone(), count.clone())).shuffle(stream).parallelism(20);
    let run = harness.start(topology.build().unwrap()).await.unwrap();
    assert!(run.drain(Duration::from_secs(1)).await.drained);
}
