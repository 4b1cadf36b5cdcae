//! Random topologies of all groupings, with feedback, anchoring, errors, panics, drops and bolts that wait: every root ends once,
//! acked if nothing went wrong with any of its tuples and failed if anything did.
//!
//! A topology and all that happens in it come of a seed. A seed that fails is printed; it runs alone with
//! `GALERNA_SOAK_SEED=<seed> cargo test -p galerna-engine --test soak`. `GALERNA_SOAK_RUNS` says how many seeds to try.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use fastrand::Rng;
use galerna_engine::EngineOptions;
use galerna_engine::testing::Harness;
use galerna_topology::prelude::*;

/// Seeds tried unless the environment says otherwise.
const RUNS: u64 = 24;

#[derive(Debug, Clone)]
struct Item {
    /// The roots that wait for this tuple.
    roots: Vec<u64>,
    n: u64,
    /// How often it may still be passed on.
    left: u8,
}

/// Roots with which something went wrong.
type Spoilt = Arc<Mutex<BTreeSet<u64>>>;

fn spoil(spoilt: &Spoilt, roots: &[u64]) {
    spoilt.lock().unwrap_or_else(PoisonError::into_inner).extend(roots);
}

/// A kept tuple. If it is dropped without being settled, its roots fail.
struct Kept {
    roots: Vec<u64>,
    anchor: Option<Anchor>,
    spoilt: Spoilt,
}

impl Drop for Kept {
    fn drop(&mut self) {
        if self.anchor.is_some() {
            spoil(&self.spoilt, &self.roots);
        }
    }
}

outputs! {
    struct Ways {
        on: Item,
        round: Item,
    }
}

struct Actor {
    seed: u64,
    spoilt: Spoilt,
    kept: Vec<Kept>,
    /// The bolt that takes its tuples by direct grouping.
    direct: Option<String>,
}

impl Actor {
    fn rng(&self, item: &Item) -> Rng {
        Rng::with_seed(self.seed ^ item.n.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ u64::from(item.left))
    }

    fn emit(&self, mut item: Item, rng: &mut Rng, out: &mut Emitter<Ways>) {
        if item.left == 0 {
            return;
        }
        item.left -= 1;
        item.n = item.n.wrapping_mul(31).wrapping_add(rng.u64(0..1_000));
        if rng.u8(0..8) == 0 {
            out.round.emit(item);
            return;
        }
        let tasks = self.direct.as_ref().and_then(|id| out.context().tasks_of(id));
        if let Some(tasks) = tasks {
            out.on.emit_direct(item.n as usize % tasks, item.clone());
        }
        out.on.emit(item);
    }

    /// What happens to a tuple.
    fn act(&mut self, item: Item, out: &mut Emitter<Ways>) -> Result<(), Fault> {
        let mut rng = self.rng(&item);
        match rng.u8(0..200) {
            0 => {
                spoil(&self.spoilt, &item.roots);
                self.emit(item, &mut rng, out);
                return Err(Fault::transient("by chance"));
            }
            1 => {
                spoil(&self.spoilt, &item.roots);
                panic!("by chance");
            }
            2 => {
                spoil(&self.spoilt, &item.roots);
                drop(out.keep());
            }
            3 => {
                spoil(&self.spoilt, &item.roots);
                out.keep().fail(Fault::permanent("by chance"));
            }
            4..20 => {
                let anchor = Some(out.keep());
                self.kept.push(Kept { roots: item.roots, anchor, spoilt: self.spoilt.clone() });
            }
            20..30 => {
                // One tuple for all that are kept.
                let mut all = item.roots.clone();
                let anchor = out.keep();
                let kept = std::mem::take(&mut self.kept);
                kept.iter().for_each(|kept| all.extend(&kept.roots));
                if item.left > 0 {
                    let anchors = kept.iter().filter_map(|kept| kept.anchor.as_ref()).chain([&anchor]);
                    let joined = Item { roots: all, n: rng.u64(..), left: item.left - 1 };
                    out.on.emit_anchored(joined, anchors);
                }
                kept.into_iter().for_each(|mut kept| kept.anchor.take().into_iter().for_each(Anchor::ack));
                anchor.ack();
            }
            30..40 => {
                out.on.emit_unanchored(Item {
                    roots: Vec::new(),
                    n: rng.u64(..),
                    left: item.left.saturating_sub(1),
                });
            }
            _ => {
                for _ in 0..rng.u8(0..3) {
                    self.emit(item.clone(), &mut rng, out);
                }
            }
        }
        Ok(())
    }

    fn let_go(&mut self) {
        for mut kept in self.kept.drain(..) {
            kept.anchor.take().into_iter().for_each(Anchor::ack);
        }
    }
}

impl Bolt for Actor {
    type Input = Item;
    type Outputs = Ways;

    fn execute(&mut self, item: Item, out: &mut Emitter<Ways>) -> Result<(), Fault> {
        self.act(item, out)
    }

    fn tick(&mut self, _: &mut Emitter<Ways>) -> Result<(), Fault> {
        self.let_go();
        Ok(())
    }

    fn drain(&mut self, _: &mut Emitter<Ways>) {
        self.let_go();
    }
}

impl AsyncBolt for Actor {
    type Input = Item;
    type Outputs = Ways;

    async fn execute(&mut self, item: Item, out: &mut Emitter<Ways>) -> Result<(), Fault> {
        match self.rng(&item).u8(..) % 16 {
            0 => tokio::time::sleep(Duration::from_micros(200)).await,
            1..4 => tokio::task::yield_now().await,
            _ => {}
        }
        self.act(item, out)
    }

    async fn tick(&mut self, _: &mut Emitter<Ways>) -> Result<(), Fault> {
        self.let_go();
        Ok(())
    }

    async fn drain(&mut self, _: &mut Emitter<Ways>) {
        self.let_go();
    }
}

fn chosen(item: &Item, tasks: usize, into: &mut Vec<usize>) {
    into.extend((0..item.n as usize % 3).map(|at| at % tasks));
}

async fn soak(seed: u64) {
    let mut rng = Rng::with_seed(seed);
    let options = EngineOptions {
        seed: Some(seed),
        fuse: rng.bool(),
        queued_bytes: if rng.u8(0..4) == 0 { 4 << 10 } else { 64 << 20 },
        ..EngineOptions::default()
    };
    let harness = Harness::new().with_options(options);
    let feed = harness.feed::<Item>();
    let spoilt = Spoilt::default();
    let mut topology = TopologyBuilder::new("soak");
    topology.message_timeout(None);
    let spout = topology.spout("feed", feed.spout()).parallelism(rng.usize(1..4)).batch(rng.usize(1..80));
    let mut streams: Vec<Stream<Item>> = vec![spout.max_pending(rng.usize(1..200)).outputs()];
    let bolts = rng.usize(2..7);
    // A bolt before the last may be taken from directly by the next one.
    let direct: Vec<bool> = (0..bolts).map(|_| rng.u8(0..5) == 0).collect();
    for at in 0..bolts {
        let id = format!("bolt{at}");
        let takes = (at + 1 < bolts && direct[at + 1]).then(|| format!("bolt{}", at + 1));
        let (spoiling, seed) = (spoilt.clone(), rng.u64(..));
        let make = move || Actor { seed, spoilt: spoiling.clone(), kept: Vec::new(), direct: takes.clone() };
        let mut bolt = match rng.u8(0..3) {
            0 => topology.async_bolt(id.as_str(), make),
            _ => topology.bolt(id.as_str(), make),
        };
        let parallelism = rng.usize(1..5);
        bolt = bolt.parallelism(parallelism).tasks(parallelism + rng.usize(0..3));
        bolt = bolt.batch(rng.usize(1..80)).queue(rng.usize(1..6));
        // What is kept may be all that is pending, so all let go of it in time.
        bolt = bolt.tick_every(Duration::from_millis(rng.u64(1..50)));
        if rng.u8(0..4) == 0 {
            bolt = bolt.unfused();
        }
        let last = streams.len() - 1;
        let mut froms = BTreeSet::from([last]);
        froms.insert(rng.usize(0..=last));
        for from in froms {
            let stream = &streams[from];
            bolt = match rng.u8(0..8) {
                0 => bolt.fields(stream, |item| &item.n),
                1 => bolt.partial_key(stream, |item| &item.n),
                2 => bolt.all(stream),
                3 => bolt.global(stream),
                4 => bolt.local_or_shuffle(stream),
                5 => bolt.custom(stream, chosen),
                _ => bolt.shuffle(stream),
            };
        }
        if at > 0 && direct[at] {
            bolt = bolt.direct(&streams[last]);
        }
        // What is sent round comes back to the bolt itself or goes to one that comes before.
        let round = Stream::<Item>::named(format!("bolt{}", rng.usize(at..bolts)), "round").feedback();
        bolt = if rng.bool() { bolt.shuffle(round) } else { bolt.fields(round, |item| &item.n) };
        streams.push(bolt.outputs().on);
    }
    let run = harness.start(topology.build().expect("the topology is right")).await.expect("it starts");
    let roots = rng.u64(50..400);
    for root in 0..roots {
        let tuples = rng.u8(0..4);
        let (n, left) = (rng.u64(..), rng.u8(1..10));
        if rng.u8(0..10) == 0 {
            feed.emit_untracked(Item { roots: Vec::new(), n, left });
        }
        feed.emit_all(
            root,
            (0..tuples).map(|at| Item { roots: vec![root], n: n.wrapping_add(u64::from(at)), left }),
        );
    }
    let tracked: BTreeSet<u64> = {
        let report = settle(run, seed).await;
        assert!(report.drained, "seed {seed}: {:#?}", report.metrics);
        let spout = report.metrics.component("feed").expect("there is one");
        let ended = feed.acked().len() + feed.failed().len();
        assert_eq!(spout.acked + spout.failures(), ended as u64, "seed {seed}");
        feed.acked().into_iter().chain(feed.failed().iter().map(|failed| failed.id)).collect()
    };
    let failed: BTreeSet<u64> = feed.failed().iter().map(|failed| failed.id).collect();
    assert_eq!(tracked.len(), feed.acked().len() + feed.failed().len(), "seed {seed}: a root ended twice");
    let spoilt = spoilt.lock().unwrap_or_else(PoisonError::into_inner).clone();
    assert_eq!(failed, spoilt, "seed {seed}: what failed is what something went wrong with");
}

/// Lets time pass while the topology works, and ends it.
async fn settle(run: galerna_engine::testing::Run, seed: u64) -> galerna_engine::DrainReport {
    let clock = run.clock();
    let fed =
        || run.metrics().component("feed").is_none_or(|feed| feed.pending == 0) && run.running().is_idle();
    let start = std::time::Instant::now();
    let mut quiet = 0;
    while quiet < 20 && start.elapsed() < Duration::from_secs(5) {
        clock.advance(Duration::from_millis(7));
        tokio::time::sleep(Duration::from_millis(1)).await;
        quiet = if fed() { quiet + 1 } else { 0 };
    }
    let before = run.metrics();
    tokio::time::timeout(Duration::from_secs(60), run.drain(Duration::from_secs(3_600)))
        .await
        .unwrap_or_else(|_| panic!("seed {seed}: it does not drain, before: {before:#?}"))
}

#[test]
fn whatever_happens_every_root_ends_once_and_rightly() {
    let only = std::env::var("GALERNA_SOAK_SEED").ok().and_then(|seed| seed.parse().ok());
    let runs = std::env::var("GALERNA_SOAK_RUNS").ok().and_then(|runs| runs.parse().ok()).unwrap_or(RUNS);
    let seeds = only.map_or(0..runs, |seed: u64| seed..seed + 1);
    // Panics by chance are part of it and need no backtrace.
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        if info.payload_as_str() != Some("by chance") {
            hook(info);
        }
    }));
    for seed in seeds {
        let threads = 1 + (seed % 3) as usize;
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build();
        println!("seed {seed}");
        runtime.expect("a runtime").block_on(soak(seed));
    }
}
