//! What is checked when a topology is built, and how it prints.

use std::time::Duration;

use galerna_topology::prelude::*;

struct Numbers;

impl Spout for Numbers {
    type MessageId = u64;
    type Outputs = Output<u64>;

    async fn next(&mut self, _out: &mut Roots<'_, Self>) -> Result<Next, Fault> {
        Ok(Next::Done)
    }
}

fn error_of(declare: impl FnOnce(&mut TopologyBuilder, Stream<u64>)) -> String {
    let mut topology = TopologyBuilder::new("wrong");
    let numbers = topology.spout("numbers", || Numbers).outputs();
    declare(&mut topology, numbers);
    topology.build().expect_err("the topology is wrong").to_string()
}

fn pass(n: u64) -> u64 {
    n
}

#[test]
fn each_mistake_is_an_error_that_names_the_component_and_the_remedy() {
    let cases: [(String, &[&str]); 14] = [
        (TopologyBuilder::new("empty").build().unwrap_err().to_string(), &["`empty`", "no spout", "spout`"]),
        (
            error_of(|topology, numbers| {
                topology.map("twice", pass).shuffle(&numbers);
                topology.map("twice", pass).shuffle(&numbers);
            }),
            &["`twice`", "declared twice", "its own id"],
        ),
        (error_of(|topology, n| drop(topology.map("", pass).shuffle(n).outputs())), &["``", "letters"]),
        (error_of(|topology, n| drop(topology.map("a b", pass).shuffle(n).outputs())), &["`a b`", "letters"]),
        (
            error_of(|topology, n| drop(topology.map("idle", pass).shuffle(n).parallelism(0).outputs())),
            &["`idle`", "parallelism 0", "at least 1"],
        ),
        (
            error_of(|topology, n| {
                drop(topology.map("few", pass).shuffle(n).parallelism(3).tasks(2).outputs())
            }),
            &["`few`", "2 tasks for 3 executors", "lower `parallelism`"],
        ),
        (
            error_of(|topology, n| drop(topology.map("none", pass).shuffle(n).tasks(0).outputs())),
            &["`none`", "`tasks` 0", "at least 1"],
        ),
        (
            error_of(|topology, n| drop(topology.map("queue", pass).shuffle(n).queue(0).outputs())),
            &["`queue`", "`queue` 0"],
        ),
        (
            error_of(|topology, n| {
                drop(topology.map("tick", pass).shuffle(n).tick_every(Duration::ZERO).outputs());
            }),
            &["`tick`", "`tick_every` 0"],
        ),
        (
            error_of(|topology, _| drop(topology.map("deaf", pass).outputs())),
            &["`deaf`", "no input", "subscribe"],
        ),
        (
            error_of(|topology, _| {
                topology.map("lost", pass).shuffle(Stream::<u64>::named("nubmers", "default"));
            }),
            &["`lost`", "`nubmers`", "not declared", "`numbers`"],
        ),
        (
            error_of(|topology, _| {
                topology.map("lost", pass).shuffle(Stream::<u64>::named("numbers", "odd"));
            }),
            &["`lost`", "output `odd`", "`numbers`", "`default`"],
        ),
        (
            error_of(|topology, _| {
                topology.map("lost", |s: String| s).shuffle(Stream::<String>::named("numbers", "default"));
            }),
            &["`lost`", "String", "`u64`", "Stream::named"],
        ),
        (
            error_of(|topology, n| {
                let back = Stream::<u64>::named("third", "default");
                let first = topology.map("first", pass).shuffle(n).shuffle(back).outputs();
                let second = topology.map("second", pass).shuffle(first).outputs();
                topology.map("third", pass).shuffle(second);
            }),
            &["first -> second -> third -> first", "feedback", "`first`"],
        ),
    ];
    for (error, parts) in cases {
        for part in parts {
            assert!(error.contains(part), "{part:?} is not in {error:?}");
        }
        assert!(!error.ends_with('.') && !error.starts_with(char::is_uppercase), "{error:?}");
    }
}

#[test]
fn a_cycle_marked_as_feedback_is_fine() {
    let mut topology = TopologyBuilder::new("cycle");
    let numbers = topology.spout("numbers", || Numbers).outputs();
    let back = Stream::<u64>::named("second", "default").feedback();
    let first = topology.map("first", pass).shuffle(numbers).shuffle(back).outputs();
    topology.map("second", pass).shuffle(first);
    assert!(topology.build().is_ok());
}

fn sample() -> Topology {
    outputs! {
        struct Checked {
            valid: u64,
            rejected: String,
        }
    }
    struct Check;
    impl Bolt for Check {
        type Input = u64;
        type Outputs = Checked;
        fn execute(&mut self, _: u64, _: &mut Emitter<Checked>) -> Result<(), Fault> {
            Ok(())
        }
    }
    let mut topology = TopologyBuilder::new("checks");
    let numbers = topology.spout("numbers", || Numbers).parallelism(2).max_pending(100).outputs();
    let again = Stream::<String>::named("repair", "default").feedback();
    let checked = topology.bolt("check", || Check).shuffle(numbers).tasks(4).outputs();
    topology.for_each("store", |_: u64| ()).fields(&checked.valid, |n| n).tick_every(Duration::from_secs(1));
    topology.map("repair", |s: String| s).shuffle(&checked.rejected).local_or_shuffle(again);
    topology.build().unwrap()
}

#[test]
fn a_topology_prints_as_a_table() {
    let expected = "\
topology checks
component  kind   executors     inputs                                                                      outputs
numbers    spout  2                                                                                         default: u64
check      bolt   1 of 4 tasks  numbers.default (shuffle)                                                   valid: u64, rejected: String
store      bolt   1             check.valid (fields)
repair     bolt   1             check.rejected (shuffle), repair.default (local or shuffle, feedback)  default: String
";
    let squeeze = |text: &str| {
        text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect::<Vec<_>>()
    };
    assert_eq!(squeeze(&sample().table()), squeeze(expected));
}

#[test]
fn a_topology_prints_as_dot_and_mermaid() {
    let dot = sample().dot();
    for line in [
        "digraph \"checks\" {",
        "\"numbers\" [shape=house, label=\"numbers\\n×2\"];",
        "\"numbers\" -> \"check\" [label=\"default (shuffle)\"];",
        "\"repair\" -> \"repair\" [label=\"default (local or shuffle)\", style=dashed];",
    ] {
        assert!(dot.contains(line), "{line} is not in {dot}");
    }
    let mermaid = sample().mermaid();
    for line in ["flowchart LR", "n0([\"numbers ×2\"])", "n1 -->|\"valid (fields)\"| n2", "n3 -.->"] {
        assert!(mermaid.contains(line), "{line} is not in {mermaid}");
    }
}

#[test]
fn a_topology_prints_as_json() {
    let json: serde_json::Value = serde_json::from_str(&sample().json()).unwrap();
    assert_eq!(json["name"], "checks");
    assert_eq!(json["message_timeout_ms"], 30_000);
    assert_eq!(json["components"][0]["max_pending"], 100);
    assert_eq!(json["components"][1]["tasks"], 4);
    assert_eq!(json["components"][1]["outputs"][1]["type"], "String");
    assert_eq!(json["components"][2]["tick_ms"], 1_000);
    assert_eq!(json["components"][3]["inputs"][1]["feedback"], true);
}

#[test]
fn a_fault_tells_the_whole_chain_once() {
    #[derive(Debug, thiserror::Error)]
    #[error("could not store the batch")]
    struct Outer(#[source] std::num::ParseIntError);
    let fault = Fault::from(Outer("x".parse::<u64>().unwrap_err()));
    assert_eq!(fault.reason(), "could not store the batch: invalid digit found in string");
}
