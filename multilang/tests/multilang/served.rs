//! A part of a topology as the child of another host.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use galerna_engine::{Engine, EngineOptions, testing::Harness};
use galerna_multilang::{
    Decoder, Emit, Frames, FromChild, Handshake, Id, SerializedStream, ServeError, ShellCommand,
    ShellTopology, ToChild, TupleMessage, serve_bolt, shell_outputs,
};
use galerna_topology::prelude::*;
use serde_json::{Map, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

const SECOND: Duration = Duration::from_secs(1);

/// Cargo builds examples before it runs the tests, beside the folder that these are in.
fn served(what: &str) -> ShellCommand {
    let test = std::env::current_exe().expect("a test knows its own program");
    let folder: PathBuf = test.ancestors().nth(2).expect("tests are in `deps`").join("examples");
    ShellCommand::from([folder.join("served").into_os_string(), what.into()])
}

shell_outputs! {
    /// What `served bolt` emits.
    struct Doubled {
        default: u64,
        odd: u64,
    }
}

async fn doubles(command: ShellCommand) {
    let harness = Harness::new();
    let (numbers, doubled, odd) = (harness.feed::<u64>(), harness.seen::<u64>(), harness.seen::<u64>());
    let mut topology = TopologyBuilder::new("doubles");
    let fed = topology.spout("numbers", numbers.spout()).outputs();
    let outputs = topology.shell_bolt::<Doubled>("double", command).shuffle(fed.serialized()).outputs();
    topology.bolt("doubled", doubled.bolt()).shuffle(outputs.default);
    topology.bolt("odd", odd.bolt()).shuffle(outputs.odd);
    let run = harness.start(topology.build().expect("it is sound")).await.expect("it starts");
    for number in 1..=1000 {
        numbers.emit(number, number);
    }
    run.until("all have ended", || numbers.acked().len() + numbers.failed().len() == 1000).await;
    let failed = numbers.failed();
    assert_eq!(failed.iter().map(|failed| failed.id).collect::<Vec<_>>(), [13]);
    assert!(failed[0].failure.reason().contains("13 is unlucky"), "{:?}", failed[0]);
    run.settle().await;
    let doubled: BTreeSet<u64> = doubled.values().into_iter().filter(|number| *number != 26).collect();
    assert_eq!(doubled, (1..=1000).filter(|n| *n != 13).map(|n| n * 2).collect());
    let odd: BTreeSet<u64> = odd.values().into_iter().filter(|number| *number != 13).collect();
    assert_eq!(odd, (1..=1000).step_by(2).filter(|n| *n != 13).collect());
    for _ in 0..40 {
        run.advance(SECOND).await;
    }
    let metrics = run.drain(SECOND).await.metrics;
    assert_eq!(metrics.component("double").expect("it is there").counters["child_restarts"], 0);
}

#[tokio::test]
async fn a_part_of_a_topology_is_a_bolt_elsewhere() {
    doubles(served("bolt")).await;
}

#[tokio::test]
async fn a_host_that_has_only_json_gets_json() {
    doubles(served("bolt").conf("galerna.frames", json!(["json"]))).await;
}

#[tokio::test]
async fn what_came_of_ten_tuples_is_anchored_to_all_ten() {
    let harness = Harness::new();
    let numbers = harness.feed::<u64>();
    let mut topology = TopologyBuilder::new("sums");
    let fed = topology.spout("numbers", numbers.spout()).outputs();
    let sums =
        topology.shell_bolt::<Output<u64>>("sums", served("batches")).shuffle(fed.serialized()).outputs();
    let refuse = |sum: u64| if sum == 55 { Err(Fault::transient("not this one")) } else { Ok(()) };
    topology.for_each("refuse", refuse).shuffle(sums);
    let run = harness.start(topology.build().expect("it is sound")).await.expect("it starts");
    for number in 1..=19 {
        numbers.emit(number, number);
    }
    run.until("the first sum has failed", || numbers.failed().len() == 10).await;
    let failed: BTreeSet<u64> = numbers.failed().iter().map(|failed| failed.id).collect();
    assert_eq!(failed, (1..=10).collect());
    assert!(numbers.acked().is_empty(), "nine wait for a tenth");
    numbers.emit(20, 20);
    run.until("the second sum is done", || numbers.acked().len() == 10).await;
    assert_eq!(numbers.acked().into_iter().collect::<BTreeSet<_>>(), (11..=20).collect());
    run.drain(SECOND).await;
}

#[tokio::test]
async fn a_spout_elsewhere_hears_what_became_of_its_tuples() {
    let mut topology = TopologyBuilder::new("numbers");
    let numbers = topology.shell_spout::<Output<u64>>("numbers", served("spout")).outputs();
    let seen = std::sync::Arc::new(galerna_lock::Mutex::new(Vec::new()));
    let of_bolt = seen.clone();
    let check = move |number: u64| {
        let mut seen = of_bolt.lock();
        seen.push(number);
        let times = seen.iter().filter(|other| **other == number).count();
        if number % 10 == 7 && times == 1 { Err(Fault::transient("not the first time")) } else { Ok(()) }
    };
    topology.for_each("check", check).global(numbers);
    let topology = topology.build().expect("it is sound");
    let running = Engine::submit(topology, EngineOptions::default()).await.expect("it starts");
    let acked = || running.metrics().component("numbers").map_or(0, |numbers| numbers.acked);
    while acked() < 100 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let metrics = running.drain(SECOND).await.metrics;
    assert_eq!(metrics.component("numbers").expect("it is there").failures(), 10);
    let mut seen = seen.lock().clone();
    seen.sort_unstable();
    let mut expected: Vec<u64> = (1..=100).chain((7..=97).step_by(10)).collect();
    expected.sort_unstable();
    assert_eq!(seen, expected);
}

/// A host that speaks as Storm does.
#[tokio::test]
async fn a_child_answers_as_storm_expects() {
    let (ours, theirs) = duplex(1 << 16);
    let (input, output) = tokio::io::split(theirs);
    let serving = tokio::spawn(serve_bolt(input, output, |served, numbers: Stream<u64>| {
        let doubled = served.topology().map("double", |n: u64| n * 2).shuffle(numbers).outputs();
        served.output("default", doubled);
    }));
    let pids = tempfile::tempdir().expect("a folder can be made");
    let tuple = |id: &str, values| {
        let (component, stream) = (Some("words".into()), "default".into());
        ToChild::Tuple(TupleMessage { id: Id::from(id), component, stream, task: 3, values })
    };
    let (mut from_child, mut to_child) = tokio::io::split(ours);
    let messages = [
        ToChild::Handshake(Handshake {
            pid_dir: pids.path().display().to_string(),
            conf: Map::new(),
            context: Map::new(),
        }),
        ToChild::Tuple(TupleMessage::heartbeat(Id::from("-5"))),
        ToChild::Tuple(TupleMessage::tick(Id::from("77"), 1)),
        tuple("-6955786537413359385", vec![json!(21)]),
        tuple("8", vec![json!("no number")]),
    ];
    let mut bytes = Vec::new();
    Frames::Json.encode(&messages, &mut bytes).expect("they have a form");
    to_child.write_all(&bytes).await.expect("it is read");
    let (mut decoder, mut answers, mut buffer) =
        (Decoder::<FromChild>::new(Frames::Json, 1 << 20), Vec::new(), [0; 4096]);
    while answers.len() < 7 {
        let read = from_child.read(&mut buffer).await.expect("it answers");
        assert!(read > 0, "{answers:?}");
        decoder.feed(&buffer[..read]);
        while let Some(message) = decoder.next_message().expect("it is of the protocol") {
            answers.push(message);
        }
    }
    let pid = std::process::id();
    assert!(pids.path().join(pid.to_string()).is_file());
    assert_eq!(answers[0], FromChild::Pid { pid: pid.into(), frames: None });
    assert_eq!(answers[1..3], [FromChild::Sync, FromChild::Ack(Id::from("77"))]);
    let id = Id::from("-6955786537413359385");
    let emit = Emit {
        values: vec![json!(42)],
        stream: Some("default".to_owned()),
        anchors: vec![id.clone()],
        ..Emit::default()
    };
    let at = |wanted: &FromChild| answers.iter().position(|answer| answer == wanted);
    let (emitted, acked) = (at(&FromChild::Emit(emit)), at(&FromChild::Ack(id)));
    assert!(emitted.is_some() && emitted < acked, "{answers:?}");
    assert!(at(&FromChild::Fail(Id::from("8"))).is_some(), "{answers:?}");
    let reason = answers.iter().find_map(|answer| match answer {
        FromChild::Error(text) => Some(text),
        _ => None,
    });
    assert!(reason.is_some_and(|text| text.contains("no number")), "{answers:?}");
    to_child.shutdown().await.expect("it can be closed");
    drop((to_child, from_child));
    serving.await.expect("it does not panic").expect("the host's going is no error");
}

#[tokio::test]
async fn who_does_not_begin_with_a_handshake_is_refused() {
    let input: &[u8] = b"{\"command\":\"next\"}\nend\n";
    let served = serve_bolt(input, tokio::io::sink(), |_, _: Stream<u64>| ()).await;
    assert!(matches!(served, Err(ServeError::Unexpected { sent: "a command", .. })), "{served:?}");
}
