//! The command line of a program whose topologies run on Storm.

use std::fmt::Write as _;
use std::io::Write as _;
use std::process::ExitCode;

use galerna_topology::Topology;

use crate::checkpoints::ServeOptions;
use crate::flux::{FluxOptions, flux};
use crate::frame::Frames;
use crate::part::{Part, serve};

const USAGE: &str = "usage:
  PROGRAM multilang bolt|spout COMPONENT [--topology NAME] [--checkpoints FOLDER]
      serves a component to a Storm worker, over standard input and output
  PROGRAM multilang stretch FROM..[TO] [--topology NAME] [--checkpoints FOLDER]
      serves all components on the ways from one to another, or behind one
  PROGRAM topology flux [--topology NAME] [--stretch FROM..[TO]]... [--workers N] [--message-pack] [--command WORDS]
          [--checkpoints FOLDER]
      prints the Flux file by which Storm runs the topology; WORDS start this program on a worker (sh galerna.sh)

Checkpoints of what keeps state are in FOLDER, by topology, component and task; all machines of the cluster have to see it.";

/// Why a command line says nothing that can be done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}\n\n{USAGE}")]
struct UsageError(String);

/// What a command line says.
#[derive(Debug, PartialEq, Eq)]
enum Command {
    Serve(Part, ServeOptions),
    Flux(FluxOptions),
}

/// What a program does whose topologies run on Storm: serves parts of them (`multilang bolt split`), and writes the Flux file by which
/// Storm starts it so (`topology flux`).
///
/// The topologies are those that the Flux file was written of, or the children would not fit it: they are not to depend on anything
/// but the program and its environment. Of several, `--topology` names the one that is meant. Logs belong on standard error.
///
/// ```no_run
/// use std::process::ExitCode;
///
/// use galerna_multilang::SerializedStream;
/// use galerna_topology::prelude::*;
///
/// fn topology(lines: fn(&mut TopologyBuilder) -> Stream<String>) -> Result<Topology, BuildError> {
///     let mut topology = TopologyBuilder::new("words");
///     let lines = lines(&mut topology).serialized();
///     let split = |line: String| line.split(' ').map(str::to_owned).collect::<Vec<_>>();
///     let words = topology.flat_map("split", split).shuffle(lines).outputs();
///     topology.for_each("print", |word: String| eprintln!("{word}")).shuffle(words.serialized());
///     topology.build()
/// }
/// # fn lines(_: &mut TopologyBuilder) -> Stream<String> { Stream::named("lines", "default") }
///
/// fn main() -> ExitCode {
///     galerna_multilang::main(topology(lines))
/// }
/// ```
pub fn main<E: std::fmt::Display>(topologies: Result<impl IntoTopologies, E>) -> ExitCode {
    let told = |error: &dyn std::fmt::Display, code| {
        // Nobody may read it.
        let _ = writeln!(std::io::stderr(), "{error}");
        ExitCode::from(code)
    };
    let topologies = match topologies {
        Ok(topologies) => topologies.into_topologies(),
        Err(error) => return told(&format!("the topology cannot be built: {error}"), 1),
    };
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (command, named) = match parse(&arguments) {
        Ok(parsed) => parsed,
        Err(error) => return told(&error, 2),
    };
    let command = match command {
        // The children have the same choice to make.
        Command::Flux(mut options) => {
            options.arguments.extend(named.iter().flat_map(|name| ["--topology".to_owned(), name.clone()]));
            Command::Flux(options)
        }
        serve => serve,
    };
    let topology = match choose(&topologies, named.as_deref()) {
        Ok(topology) => topology,
        Err(error) => return told(&error, 2),
    };
    match run(command, topology) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => told(&error, 1),
    }
}

/// One topology, or several.
pub trait IntoTopologies {
    /// All of them.
    fn into_topologies(self) -> Vec<Topology>;
}

impl IntoTopologies for Topology {
    fn into_topologies(self) -> Vec<Topology> {
        vec![self]
    }
}

impl IntoTopologies for Vec<Topology> {
    fn into_topologies(self) -> Self {
        self
    }
}

fn run(command: Command, topology: &Topology) -> Result<(), Box<dyn std::error::Error>> {
    match command {
        Command::Flux(options) => Ok(std::io::stdout().write_all(flux(topology, &options)?.as_bytes())?),
        Command::Serve(part, options) => serve_stdio(topology, &part, &options),
    }
}

#[cfg(unix)]
fn serve_stdio(
    topology: &Topology,
    part: &Part,
    options: &ServeOptions,
) -> Result<(), Box<dyn std::error::Error>> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let (input, output) = crate::host_pipe::stdio().map_err(|error| {
            format!(
                "`multilang` talks to the program that starts it, over pipes, and there are none: {error}"
            )
        })?;
        Ok(serve(topology, part, options, input, output).await?)
    })
}

#[cfg(not(unix))]
fn serve_stdio(_: &Topology, _: &Part, _: &ServeOptions) -> Result<(), Box<dyn std::error::Error>> {
    Err("serving parts of a topology takes a Unix system".into())
}

fn choose<'t>(topologies: &'t [Topology], named: Option<&str>) -> Result<&'t Topology, UsageError> {
    let mut known = String::new();
    topologies.iter().for_each(|topology| {
        let _ = write!(known, " {}", topology.name());
    });
    match named {
        Some(name) => topologies
            .iter()
            .find(|topology| &**topology.name() == name)
            .ok_or_else(|| UsageError(format!("there is no topology `{name}` here; there are:{known}"))),
        None => match topologies {
            [topology] => Ok(topology),
            _ => Err(UsageError(format!("say with --topology which is meant:{known}"))),
        },
    }
}

fn parse(arguments: &[String]) -> Result<(Command, Option<String>), UsageError> {
    let mut words: Vec<&str> = Vec::new();
    let (mut named, mut options, mut serving) = (None, FluxOptions::default(), ServeOptions::default());
    let mut of_flux = None;
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        let mut value = || {
            let missing = || UsageError(format!("`{argument}` needs a value"));
            rest.next().cloned().ok_or_else(missing)
        };
        match argument.as_str() {
            "--topology" => {
                named = Some(value()?);
                continue;
            }
            "--checkpoints" => {
                let folder = value()?;
                options.arguments.extend(["--checkpoints".to_owned(), folder.clone()]);
                serving.checkpoints = Some(folder.into());
                continue;
            }
            "--stretch" => {
                let stretch = value()?.parse().map_err(|error| UsageError(format!("{error}")))?;
                options.stretches.push(stretch);
            }
            "--workers" => {
                let workers = value()?;
                options.workers = workers
                    .parse()
                    .map_err(|_| UsageError(format!("`--workers {workers}` is no number of workers")))?;
            }
            "--message-pack" => options.frames = Frames::MessagePack,
            "--command" => options.command = value()?.split_whitespace().map(str::to_owned).collect(),
            flag if flag.starts_with('-') => return Err(UsageError(format!("there is no `{flag}`"))),
            word => {
                words.push(word);
                continue;
            }
        }
        of_flux = Some(argument);
    }
    let command = match words[..] {
        ["multilang", "bolt", id] => Command::Serve(Part::Bolt(id.into()), serving),
        ["multilang", "spout", id] => Command::Serve(Part::Spout(id.into()), serving),
        ["multilang", "stretch", text] => {
            let stretch = text.parse().map_err(|error| UsageError(format!("{error}")))?;
            Command::Serve(Part::Stretch(stretch), serving)
        }
        ["topology", "flux"] => return Ok((Command::Flux(options), named)),
        [] => return Err(UsageError("nothing is said of what to do".to_owned())),
        _ => return Err(UsageError(format!("`{}` is no command", words.join(" ")))),
    };
    match of_flux {
        Some(flag) => Err(UsageError(format!("`{flag}` is for `topology flux`"))),
        None => Ok((command, named)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::part::Stretch;

    fn parsed(line: &str) -> Result<(Command, Option<String>), UsageError> {
        parse(&line.split(' ').map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn command_lines_say_what_to_serve_or_to_write() {
        let bolt = Command::Serve(Part::Bolt("split".into()), ServeOptions::default());
        assert_eq!(parsed("multilang bolt split --topology words"), Ok((bolt, Some("words".to_owned()))));
        let stretch = Stretch { from: "a".into(), to: None };
        let kept = ServeOptions { checkpoints: Some("kept".into()) };
        let serve = Command::Serve(Part::Stretch(stretch.clone()), kept);
        assert_eq!(parsed("multilang stretch a.. --checkpoints kept"), Ok((serve, None)));
        let options = FluxOptions {
            command: vec!["./program".to_owned()],
            arguments: Vec::new(),
            stretches: vec![stretch],
            workers: 3,
            frames: Frames::MessagePack,
        };
        let line = "topology flux --stretch a.. --workers 3 --message-pack --command ./program";
        assert_eq!(parsed(line), Ok((Command::Flux(options), None)));
    }

    #[test]
    fn command_lines_that_say_nothing_are_refused_with_the_usage() {
        for (line, reason) in [
            ("multilang nut split", "is no command"),
            ("multilang stretch a-b", "no stretch"),
            ("multilang bolt a --workers 2", "is for `topology flux`"),
            ("topology flux --workers many", "no number"),
            ("topology flux --stretch", "needs a value"),
            ("topology flux --colour red", "there is no `--colour`"),
        ] {
            let error = parsed(line).expect_err("it says nothing").to_string();
            assert!(error.contains(reason) && error.contains("usage:"), "{line}: {error}");
        }
    }
}
