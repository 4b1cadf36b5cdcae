//! Any part of a topology as a child of a Storm worker, and the Flux file of the whole.

use std::collections::BTreeMap;
use std::time::Duration;

use galerna_multilang::{
    Decoder, Emit, FluxError, FluxOptions, Frames, FromChild, Handshake, Id, Part, PartError,
    SerializedStream, ServeOptions, SpoutCommand, Stretch, ToChild, TupleMessage, flux, serve,
};
use galerna_state::prelude::*;
use galerna_topology::prelude::*;
use serde_json::{Map, Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::task::JoinHandle;

/// Emits two lines, and again what fails.
struct Lines(Vec<u64>);

impl Spout for Lines {
    type MessageId = u64;
    type Outputs = Output<String>;

    async fn next(&mut self, out: &mut Roots<'_, Self>) -> Result<Next, Fault> {
        let Some(number) = self.0.pop() else { return Ok(Next::After(Duration::from_millis(5))) };
        out.root(number).emit(if number == 1 { "a b" } else { "b c" }.to_owned());
        Ok(Next::Ready)
    }

    async fn failed(&mut self, failed: &mut Vec<Failed<u64>>) {
        self.0.extend(failed.drain(..).map(|failed| failed.id));
    }
}

/// Counts its words two at a time, which it keeps until then.
#[derive(Default)]
struct Pairs {
    kept: Vec<(String, Anchor)>,
    counts: BTreeMap<String, u64>,
}

outputs! {
    struct Paired {
        counts: (String, u64),
        odd: String,
    }
}

impl Bolt for Pairs {
    type Input = String;
    type Outputs = Paired;

    fn execute(&mut self, word: String, out: &mut Emitter<Paired>) -> Result<(), Fault> {
        self.kept.push((word, out.keep()));
        if self.kept.len() == 2 {
            let (words, anchors): (Vec<String>, Vec<Anchor>) = self.kept.drain(..).unzip();
            let anchors: Anchors = anchors.into_iter().collect();
            for word in words {
                let count = self.counts.entry(word.clone()).or_default();
                *count += 1;
                out.counts.emit_anchored((word.clone(), *count), &anchors);
                if *count % 2 == 1 {
                    out.odd.emit_anchored(word, &anchors);
                }
            }
            anchors.ack();
        }
        Ok(())
    }
}

fn topology() -> Topology {
    let mut topology = TopologyBuilder::new("words");
    topology.message_timeout(Duration::from_millis(90_500));
    let lines = topology.spout("lines", || Lines(vec![2, 1])).max_pending(7).outputs();
    let split = |line: String| line.split(' ').map(str::to_owned).collect::<Vec<_>>();
    let words =
        topology.flat_map("split", split).shuffle(lines.serialized()).parallelism(3).tasks(6).outputs();
    let words = words.serialized().keyed_by(["value"]);
    let paired = topology.bolt("pairs", Pairs::default).fields(words, |word| word).parallelism(2).outputs();
    let shout = topology.map("shout", |(word, count): (String, u64)| format!("{word}{count}!"));
    let shouts = shout.shuffle(&paired.counts).parallelism(2).outputs();
    topology.for_each("print", |_: String| ()).global(shouts.serialized());
    topology.for_each("odd", |_: String| ()).all(paired.odd.serialized());
    topology.build().expect("it is sound")
}

fn stretch(text: &str) -> Stretch {
    text.parse().expect("it is a stretch")
}

/// A Storm worker at the other end of a child's pipes.
struct Worker {
    pipe: DuplexStream,
    decoder: Decoder<FromChild>,
    serving: JoinHandle<()>,
}

impl Worker {
    async fn start(part: Part) -> Self {
        Self::start_task(topology(), part, ServeOptions::default(), 1).await
    }

    async fn start_task(topology: Topology, part: Part, options: ServeOptions, task: i64) -> Self {
        let (ours, theirs) = duplex(1 << 16);
        let serving = tokio::spawn(async move {
            let (input, output) = tokio::io::split(theirs);
            let served = serve(&topology, &part, &options, input, output).await;
            served.expect("the host's going is no error");
        });
        let mut worker = Self { pipe: ours, decoder: Decoder::new(Frames::Json, 1 << 20), serving };
        let map = |name: &str, value: Value| Map::from_iter([(name.to_owned(), value)]);
        let context = map("taskid", json!(task));
        let handshake =
            Handshake { pid_dir: String::new(), conf: map("topology.name", json!("on.storm")), context };
        worker.send(ToChild::Handshake(handshake)).await;
        assert!(matches!(worker.next().await, FromChild::Pid { .. }));
        worker
    }

    async fn send(&mut self, message: ToChild) {
        let mut bytes = Vec::new();
        Frames::Json.encode(&[message], &mut bytes).expect("it has a form");
        self.pipe.write_all(&bytes).await.expect("it is read");
    }

    async fn tuple(&mut self, id: &str, component: &str, stream: &str, values: Vec<Value>) {
        let (component, stream) = (Some(component.into()), stream.into());
        let tuple = TupleMessage { id: Id::from(id), component, stream, task: 3, values };
        self.send(ToChild::Tuple(tuple)).await;
    }

    async fn next(&mut self) -> FromChild {
        let mut buffer = [0; 4096];
        loop {
            if let Some(message) = self.decoder.next_message().expect("it is of the protocol") {
                return message;
            }
            let read = self.pipe.read(&mut buffer).await.expect("it answers");
            assert!(read > 0, "it has ended");
            self.decoder.feed(&buffer[..read]);
        }
    }

    /// All that comes up to the ack or failure of so many tuples, as words.
    async fn until_settled(&mut self, tuples: usize) -> Vec<String> {
        let mut heard = Vec::new();
        let mut settled = 0;
        while settled < tuples {
            heard.push(match self.next().await {
                FromChild::Emit(Emit { values, stream, anchors, .. }) => {
                    let anchors: Vec<String> = anchors.iter().map(ToString::to_string).collect();
                    format!("{} {} {}", stream.unwrap_or_default(), Value::from(values), anchors.join("+"))
                }
                FromChild::Ack(id) => {
                    settled += 1;
                    format!("ack {id}")
                }
                FromChild::Fail(id) => {
                    settled += 1;
                    format!("fail {id}")
                }
                FromChild::Error(text) => text,
                other => panic!("{other:?}"),
            });
        }
        heard
    }

    async fn end(mut self) {
        self.pipe.shutdown().await.expect("it can be closed");
        drop(self.pipe);
        self.serving.await.expect("it does not panic");
    }
}

#[tokio::test]
async fn a_bolt_is_served_with_the_streams_that_others_subscribe_to() {
    let mut worker = Worker::start(Part::Bolt("split".into())).await;
    worker.tuple("7", "lines", "default", vec![json!("x y")]).await;
    let heard = worker.until_settled(1).await;
    assert_eq!(heard, [r#"default ["x"] 7"#, r#"default ["y"] 7"#, "ack 7"]);
    worker.tuple("8", "else", "where", vec![json!("x y")]).await;
    let heard = worker.until_settled(1).await;
    assert!(heard[0].contains("else.where, to which nothing here subscribes"), "{heard:?}");
    assert_eq!(heard[1], "fail 8");
    worker.end().await;
}

#[tokio::test]
async fn a_stretch_keeps_its_state_and_its_streams_are_called_by_their_components() {
    let mut worker = Worker::start(Part::Stretch(stretch("split..shout"))).await;
    worker.tuple("1", "lines", "default", vec![json!("a b a")]).await;
    // The third word waits for a fourth.
    worker.tuple("2", "lines", "default", vec![json!("a")]).await;
    let mut heard = worker.until_settled(2).await;
    let acks: Vec<String> = heard.extract_if(.., |line| line.starts_with("ack")).collect();
    assert_eq!(acks.iter().filter(|ack| *ack == "ack 1" || *ack == "ack 2").count(), 2, "{acks:?}");
    heard.sort_unstable();
    let joined = |line: &str| [format!("{line} 1+2"), format!("{line} 2+1")];
    let expected = [
        r#"pairs.odd ["a"] 1"#,
        r#"pairs.odd ["b"] 1"#,
        r#"shout.default ["a1!"] 1"#,
        r#"shout.default ["b1!"] 1"#,
    ];
    for line in expected {
        assert!(heard.iter().any(|heard| heard == line), "{line} is not in {heard:?}");
    }
    for line in [r#"pairs.odd ["a"]"#, r#"shout.default ["a2!"]"#, r#"shout.default ["a3!"]"#] {
        assert!(joined(line).iter().any(|line| heard.contains(line)), "{line} is not in {heard:?}");
    }
    assert_eq!(heard.len(), expected.len() + 3);
    worker.end().await;
}

#[tokio::test]
async fn what_leaves_a_stretch_is_known_where_it_arrives() {
    let mut worker = Worker::start(Part::Bolt("print".into())).await;
    worker.tuple("1", "split..shout", "shout.default", vec![json!("a1!")]).await;
    worker.tuple("2", "shout", "default", vec![json!("a2!")]).await;
    let mut heard = worker.until_settled(2).await;
    heard.sort_unstable();
    assert_eq!(heard, ["ack 1", "ack 2"]);
    worker.end().await;
}

#[tokio::test]
async fn a_spout_or_a_stretch_that_begins_with_one_is_served_as_a_spout() {
    for (part, stream, first) in [
        (Part::Spout("lines".into()), "default", json!(["a b"])),
        (Part::Stretch(stretch("lines..split")), "split.default", json!(["a"])),
    ] {
        let mut worker = Worker::start(part).await;
        // What fails comes again, so the first of all is seen again and again until it is acked.
        let (mut seen, mut acked) = (0, false);
        worker.send(ToChild::Command(SpoutCommand::Activate)).await;
        let mut pending: Vec<ToChild> = Vec::new();
        while !acked {
            match worker.next().await {
                FromChild::Sync => {
                    let next = pending.pop().unwrap_or(ToChild::Command(SpoutCommand::Next));
                    worker.send(next).await;
                }
                FromChild::Emit(Emit { values, id: Some(id), stream: Some(of), .. }) => {
                    assert_eq!(of, stream);
                    let is_first = Value::from(values) == first;
                    seen += usize::from(is_first);
                    acked |= is_first && seen == 3;
                    let command =
                        if is_first && seen < 3 { SpoutCommand::Fail(id) } else { SpoutCommand::Ack(id) };
                    pending.push(ToChild::Command(command));
                }
                other => panic!("{other:?}"),
            }
        }
        worker.end().await;
    }
}

/// Counts words in state.
#[derive(Default)]
struct Count {
    count: Option<ValueState<u64>>,
}

impl Bolt for Count {
    type Input = String;
    type Outputs = Output<(String, u64)>;

    fn prepare(&mut self, context: &TaskContext) -> Result<(), Fault> {
        self.count = Some(context.state()?.value("count")?);
        Ok(())
    }

    fn execute(&mut self, word: String, out: &mut Emitter<Self::Outputs>) -> Result<(), Fault> {
        let count = self.count.as_mut().ok_or_else(|| Fault::permanent("it was not prepared"))?;
        let count = count.update(&word, |count| count.unwrap_or(0) + 1)?;
        out.emit((word, count));
        Ok(())
    }
}

fn counting() -> Topology {
    let mut topology = TopologyBuilder::new("counting");
    let words = topology.spout("words", || Lines(Vec::new())).outputs().serialized().keyed_by(["value"]);
    let counts = topology.bolt("count", Count::default).keyed_by(words, |word| word.clone()).outputs();
    topology.for_each("print", |_: (String, u64)| ()).shuffle(counts.serialized());
    topology.build().expect("it is sound")
}

#[tokio::test]
async fn what_a_task_kept_is_there_when_its_child_is_started_again_and_is_no_other_tasks() {
    let folder = tempfile::tempdir().expect("a folder can be made");
    let options = ServeOptions { checkpoints: Some(folder.path().to_owned()) };
    // Storm gives each delivery an id of its own.
    for (id, task, expected) in [("1", 4, 1), ("2", 4, 2), ("3", 5, 1), ("4", 4, 3)] {
        let part = Part::Bolt("count".into());
        let mut worker = Worker::start_task(counting(), part, options.clone(), task).await;
        worker.tuple(id, "words", "default", vec![json!("a")]).await;
        // The ack comes when the checkpoint is there that has the tuple.
        let heard = worker.until_settled(1).await;
        assert_eq!(heard, [format!(r#"default ["a",{expected}] {id}"#), format!("ack {id}")], "task {task}");
        worker.end().await;
    }
    let mut kept: Vec<String> = std::fs::read_dir(folder.path().join("on.storm"))
        .expect("it is by the topology's name")
        .map(|entry| entry.expect("it is read").file_name().to_string_lossy().into_owned())
        .collect();
    kept.sort();
    assert_eq!(kept, ["component-4", "component-5"]);
}

#[test]
fn the_flux_file_says_what_the_topology_does() {
    let options = FluxOptions {
        stretches: vec![stretch("pairs..shout")],
        arguments: vec!["--topology".to_owned(), "words".to_owned()],
        workers: 2,
        frames: Frames::MessagePack,
        ..FluxOptions::default()
    };
    let yaml = flux(&topology(), &options).expect("all that crosses has a form");
    let expected = r#"name: "words"
config:
  topology.workers: 2
  topology.message.timeout.secs: 91
  topology.multilang.serializer: "galerna.storm.MessagePackSerializer"
spouts:
  - id: "lines"
    className: "org.apache.storm.flux.wrappers.spouts.FluxShellSpout"
    constructorArgs:
      - ["sh","galerna.sh","multilang","spout","lines","--topology","words"]
    configMethods:
      - { name: "setDefaultStream", args: [["value"]] }
      - { name: "addComponentConfig", args: ["topology.max.spout.pending",7] }
    parallelism: 1
bolts:
  - id: "split"
    className: "org.apache.storm.flux.wrappers.bolts.FluxShellBolt"
    constructorArgs:
      - ["sh","galerna.sh","multilang","bolt","split","--topology","words"]
    configMethods:
      - { name: "setDefaultStream", args: [["value"]] }
    parallelism: 3
    numTasks: 6
  - id: "pairs..shout"
    className: "org.apache.storm.flux.wrappers.bolts.FluxShellBolt"
    constructorArgs:
      - ["sh","galerna.sh","multilang","stretch","pairs..shout","--topology","words"]
    configMethods:
      - { name: "setNamedStream", args: ["shout.default",["value"]] }
      - { name: "setNamedStream", args: ["pairs.odd",["value"]] }
    parallelism: 2
  - id: "print"
    className: "org.apache.storm.flux.wrappers.bolts.FluxShellBolt"
    constructorArgs:
      - ["sh","galerna.sh","multilang","bolt","print","--topology","words"]
    parallelism: 1
  - id: "odd"
    className: "org.apache.storm.flux.wrappers.bolts.FluxShellBolt"
    constructorArgs:
      - ["sh","galerna.sh","multilang","bolt","odd","--topology","words"]
    parallelism: 1
streams:
  - { from: "lines", to: "split", grouping: {"type":"SHUFFLE"} }
  - { from: "split", to: "pairs..shout", grouping: {"args":["value"],"type":"FIELDS"} }
  - { from: "pairs..shout", to: "print", grouping: {"streamId":"shout.default","type":"GLOBAL"} }
  - { from: "pairs..shout", to: "odd", grouping: {"streamId":"pairs.odd","type":"ALL"} }
"#;
    assert_eq!(yaml, expected);
}

#[test]
fn a_stretch_within_which_keys_decide_runs_once() {
    let options = FluxOptions { stretches: vec![stretch("split..")], ..FluxOptions::default() };
    let yaml = flux(&topology(), &options).expect("all that crosses has a form");
    let (_, bolt) = yaml.split_once("bolts:").expect("there is one");
    assert!(bolt.contains("split..") && bolt.contains("parallelism: 1"), "{yaml}");
}

#[test]
fn what_cannot_leave_the_process_is_refused_with_what_to_do() {
    let refused = |topology: &Topology, stretches: &[&str]| {
        let stretches = stretches.iter().map(|text| stretch(text)).collect();
        flux(topology, &FluxOptions { stretches, ..FluxOptions::default() }).expect_err("it is refused")
    };
    let words = topology();
    let error = refused(&words, &[]);
    assert!(matches!(error, FluxError::Part(PartError::NoForm { .. })), "{error:?}");
    assert!(error.to_string().contains("`shout` subscribes to pairs.counts"), "{error}");
    assert!(matches!(refused(&words, &["split..pairs", "pairs..shout"]), FluxError::Overlap { .. }));
    assert!(matches!(refused(&words, &["odd..split"]), FluxError::Part(PartError::NoWay { .. })));
    assert!(matches!(refused(&words, &["nothing.."]), FluxError::Part(PartError::NoComponent { .. })));

    let keyed = |keys: &[&'static str]| {
        let mut topology = TopologyBuilder::new("keyed");
        let lines = topology.spout("lines", || Lines(Vec::new())).outputs().serialized();
        let lines = lines.keyed_by(keys.iter().copied());
        topology.for_each("count", |_: String| ()).fields(lines, |line| line);
        refused(&topology.build().expect("it is sound"), &[])
    };
    let error = keyed(&[]);
    assert!(matches!(error, FluxError::NoKey { .. }) && error.to_string().contains(r#"keyed_by(["value"])"#));
    assert!(matches!(keyed(&["word"]), FluxError::NoField { .. }));

    let mut topology = TopologyBuilder::new("direct");
    let lines = topology.spout("lines", || Lines(Vec::new())).outputs();
    topology.for_each("direct", |_: String| ()).direct(lines.serialized());
    let error = refused(&topology.build().expect("it is sound"), &[]);
    assert!(matches!(error, FluxError::Grouping { .. }), "{error:?}");
}

#[tokio::test]
async fn a_bolt_that_is_called_a_spout_is_refused() {
    let (part, options) = (Part::Spout("split".into()), ServeOptions::default());
    let refused = serve(&topology(), &part, &options, &b""[..], tokio::io::sink()).await;
    let error = refused.expect_err("it is a bolt").to_string();
    assert_eq!(error, "`split` is a bolt: serve it with `multilang bolt split`");
}
