//! A process that takes checkpoints on the real file system is killed at random moments.

use std::io::{BufRead, BufReader};
use std::num::NonZeroUsize;
use std::process::{Child, Command, Stdio};

use galerna_state::{CheckpointStore, FolderCheckpoints};

use crate::Topology;

const FOLDER: &str = "GALERNA_STATE_TEST_FOLDER";
const TEST: &str = "kill::what_a_killed_process_had_committed_is_restored";

/// What round `n` does, so that the content tells how many rounds there were.
fn round(topology: &mut Topology, n: u64) {
    (0..8).for_each(|key| topology.execute(key * 1000 + (n % 50) as u32, n));
    topology.content.in_doubt = [n.to_le_bytes().to_vec()].into();
}

/// The rounds that a restored topology has seen.
fn rounds(topology: &Topology) -> u64 {
    let id = topology.content.in_doubt.first().and_then(|id| id.as_slice().try_into().ok());
    id.map_or(0, u64::from_le_bytes)
}

/// Restores, and tells of each checkpoint that is committed, until it is killed.
async fn run_until_killed(folder: &str) {
    let store = FolderCheckpoints::open(folder, "t").await.expect("opened");
    let mut topology = Topology::recover(&store, 2).await;
    let mut n = rounds(&topology);
    loop {
        n += 1;
        round(&mut topology, n);
        topology.checkpoint(&store, &mut Vec::new()).await.expect("a checkpoint");
        println!("\ncommitted {n}");
        store.collect(NonZeroUsize::MIN).await.expect("collected");
    }
}

/// Ends a process however the test does.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

#[tokio::test]
async fn what_a_killed_process_had_committed_is_restored() {
    if let Ok(folder) = std::env::var(FOLDER) {
        return run_until_killed(&folder).await;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let mut expected = Topology::new(1);
    let mut seen = 0;
    for kill in 0..12_u64 {
        let mut command = Command::new(std::env::current_exe().expect("this program"));
        command.args([TEST, "--exact", "--nocapture"]).env(FOLDER, folder.path());
        let mut child = Killed(command.stdout(Stdio::piped()).spawn().expect("started"));
        let lines = BufReader::new(child.0.stdout.take().expect("its output")).lines();
        let committed = lines
            .map_while(Result::ok)
            .filter_map(|line| line.strip_prefix("committed ")?.parse::<u64>().ok())
            .nth(kill as usize)
            .expect("it takes checkpoints");
        // Somewhere in the round after: later by up to as many steps as there are kills.
        for _ in 0..kill {
            tokio::task::yield_now().await;
        }
        drop(child);
        let store =
            FolderCheckpoints::open(folder.path(), "t").await.expect("the lock died with the process");
        let found = Topology::recover(&store, 3).await;
        let n = rounds(&found);
        assert!(n >= committed, "{n} rounds were restored of {committed} that were committed");
        (seen + 1..=n).for_each(|n| round(&mut expected, n));
        seen = n;
        assert_eq!(found.content, expected.content, "after {n} rounds");
    }
}
