//! Programs of the tests, and topologies around them.

use std::path::{Path, PathBuf};
use std::time::Duration;

use galerna_engine::testing::{Feed, Harness, Run, Seen};
use galerna_multilang::{SerializedStream, ShellCommand, ShellTopology};
use galerna_topology::prelude::*;

pub(crate) fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/components")
}

/// A component in Python without pystorm.
pub(crate) fn python(script: &str, arguments: &[&str]) -> ShellCommand {
    ShellCommand::from(["python3", script].iter().chain(arguments)).folder(folder())
}

/// A component that is made with pystorm.
pub(crate) fn pystorm(script: &str, arguments: &[&str]) -> ShellCommand {
    let python = galerna_test_servers::pystorm_python();
    let python = python.canonicalize_folder();
    ShellCommand::from([&*python, script].iter().chain(arguments)).folder(folder())
}

/// The example of a kind of code in the guide.
pub(crate) fn example(language: &str) -> &'static str {
    let guide = include_str!("../../../docs/multilang.md");
    let begin = format!("```{language}\n");
    let from = guide.find(&begin).expect("the guide has such an example") + begin.len();
    guide[from..].split("```").next().expect("it ends")
}

/// A path that means the same in any folder. Links stay: a virtual environment is known by them.
trait CanonicalizeFolder {
    fn canonicalize_folder(&self) -> String;
}

impl CanonicalizeFolder for PathBuf {
    fn canonicalize_folder(&self) -> String {
        let folder = self.parent().and_then(|folder| folder.canonicalize().ok()).expect("it is in a folder");
        folder.join(self.file_name().expect("it has a name")).display().to_string()
    }
}

/// Numbers that go through one bolt in another language.
pub(crate) struct Through {
    pub(crate) numbers: Feed<u64>,
    pub(crate) seen: Seen<u64>,
    pub(crate) run: Run,
}

/// Starts a topology in which numbers go through a bolt.
pub(crate) async fn through(bolt: ShellCommand) -> Through {
    let harness = Harness::new();
    let (numbers, seen) = (harness.feed::<u64>(), harness.seen::<u64>());
    let mut topology = TopologyBuilder::new("through");
    topology.message_timeout(Duration::from_secs(3600));
    let fed = topology.spout("numbers", numbers.spout()).outputs();
    let passed = topology.shell_bolt::<Output<u64>>("bolt", bolt).shuffle(fed.serialized()).outputs();
    topology.bolt("seen", seen.bolt()).shuffle(passed);
    let run = harness.start(topology.build().expect("it is sound")).await.expect("it starts");
    Through { numbers, seen, run }
}

impl Through {
    pub(crate) async fn until_acked(&self, roots: usize) {
        self.run.until("roots are acked", || self.numbers.acked().len() >= roots).await;
    }

    pub(crate) async fn until_failed(&self, roots: usize) {
        self.run.until("roots have failed", || self.numbers.failed().len() >= roots).await;
    }

    /// The reason of the only root that failed.
    pub(crate) fn reason(&self) -> String {
        let failed = self.numbers.failed();
        assert_eq!(failed.len(), 1, "{failed:?}");
        assert_eq!(&*failed[0].failure.component, "bolt");
        failed[0].failure.reason().to_owned()
    }

    /// What the child measured last.
    pub(crate) fn gauge(&self, name: &str) -> Option<f64> {
        let metrics = self.run.metrics();
        metrics.component("bolt").and_then(|bolt| bolt.gauges.get(name)?.get(&0).copied())
    }

    /// A count of the bolt's own.
    pub(crate) fn count(&self, name: &str) -> u64 {
        let metrics = self.run.metrics();
        let bolt = metrics.component("bolt").expect("there is the bolt");
        bolt.counters.get(name).copied().unwrap_or_default()
    }
}
