//! Cutting and narrowing the links between nodes.
//!
//! A link is cut in one direction by telling the sender a wrong hardware address of the receiver: what it sends reaches nobody and no error
//! comes back, as when a cable is cut. Whoever is cut off so still hears the other. This needs nothing but `ip`; a link is narrowed by a token
//! bucket, whose queue delays what it does not drop.

use std::process::Command;

use anyhow::{Result, ensure};

/// Nodes are numbered from 1.
pub(crate) const NODES: [usize; 3] = [1, 2, 3];

/// An address that nobody has.
const NOBODY: &str = "02:00:00:00:00:99";

pub(crate) fn name(node: usize) -> String {
    format!("n{node}")
}

pub(crate) fn address(node: usize) -> String {
    format!("10.77.0.{node}")
}

fn run(words: &[&str]) -> Result<()> {
    let output = Command::new(words[0]).args(&words[1..]).output()?;
    ensure!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(())
}

/// What one node sends to another is lost from now on.
pub(crate) fn cut(from: usize, to: usize) -> Result<()> {
    let (name, to) = (name(from), address(to));
    run(&["ip", "-n", &name, "neigh", "replace", &to, "lladdr", NOBODY, "dev", "eth0", "nud", "permanent"])
}

/// What one node sends to another arrives again.
pub(crate) fn mend(from: usize, to: usize) -> Result<()> {
    let (name, to) = (name(from), address(to));
    // Removed, it is asked for again; it may have been mended before.
    run(&["ip", "-n", &name, "neigh", "flush", "to", &to, "dev", "eth0", "nud", "all"])
}

/// Cuts a node off from all others, in both directions.
pub(crate) fn isolate(node: usize) -> Result<()> {
    for other in NODES.into_iter().filter(|other| *other != node) {
        cut(node, other)?;
        cut(other, node)?;
    }
    Ok(())
}

/// Cuts off what a node sends to all others; it still hears them.
pub(crate) fn mute(node: usize) -> Result<()> {
    NODES.into_iter().filter(|other| *other != node).try_for_each(|other| cut(node, other))
}

/// Mends all links of a node.
pub(crate) fn join(node: usize) -> Result<()> {
    for other in NODES.into_iter().filter(|other| *other != node) {
        mend(node, other)?;
        mend(other, node)?;
    }
    Ok(())
}

/// Lets a node send and receive no more than this, in kilobits a second; what waits longer than half a second is dropped.
pub(crate) fn narrow(node: usize, kilobits: u32) -> Result<()> {
    let (name, outside, rate) = (name(node), format!("d{node}"), format!("{kilobits}kbit"));
    let bucket = ["root", "tbf", "rate", &rate, "burst", "16kb", "latency", "500ms"];
    run(&[&["tc", "-n", &name, "qdisc", "replace", "dev", "eth0"], &bucket[..]].concat())?;
    run(&[&["tc", "qdisc", "replace", "dev", &outside], &bucket[..]].concat())
}

/// Takes the limit of [`narrow`] away.
pub(crate) fn widen(node: usize) -> Result<()> {
    let (name, outside) = (name(node), format!("d{node}"));
    run(&["tc", "-n", &name, "qdisc", "delete", "dev", "eth0", "root"])?;
    run(&["tc", "qdisc", "delete", "dev", &outside, "root"])
}
