//! Where a server comes from.

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// What a private server is started from.
#[derive(Clone, Debug)]
pub(crate) enum Origin {
    /// A program on this machine.
    Program(PathBuf),
    /// An image that the Docker daemon can run.
    Image(&'static str),
}

/// How to find one kind of server.
pub(crate) struct Search {
    /// The name by which people know it.
    pub(crate) name: &'static str,
    /// The file name of its program.
    pub(crate) program: &'static str,
    /// The variable that names its program.
    pub(crate) program_variable: &'static str,
    /// The variable that names a running server.
    pub(crate) server_variable: &'static str,
    /// Where a running server's address might be, for the message.
    pub(crate) server_example: &'static str,
    /// Folders to look in beside those on the `PATH`, before them.
    pub(crate) folders: &'static [&'static str],
    /// A folder with one folder a version, each with its programs in `bin`; the newest version is taken, after `folders`.
    pub(crate) versions: Option<&'static str>,
    /// The image for Docker, if it can be run so.
    pub(crate) image: Option<&'static str>,
}

impl Search {
    /// The address of the running server that the environment names.
    pub(crate) fn running(&self) -> Option<String> {
        variable(self.server_variable)
    }

    /// What to start a private server from.
    ///
    /// # Panics
    /// When there is nothing, saying what to run; when the variable names a file that is not there.
    pub(crate) fn origin(&self) -> Origin {
        if let Some(path) = variable(self.program_variable) {
            let path = PathBuf::from(path);
            assert!(
                path.is_file(),
                "{} names {}, which is no file; name the program `{}` or unset the variable",
                self.program_variable,
                path.display(),
                self.program
            );
            return Origin::Program(path);
        }
        let path = env::var_os("PATH").unwrap_or_default();
        let folders = self.folders.iter().map(PathBuf::from).chain(self.versions.and_then(newest));
        let folders = folders.chain(env::split_paths(&path)).chain(fetched());
        for folder in folders {
            let program = folder.join(self.program);
            if program.is_file() {
                return Origin::Program(program);
            }
        }
        if let Some(image) = self.image
            && docker_answers()
        {
            return Origin::Image(image);
        }
        panic!(
            "this test needs a real {name}, and there is none: no `{program}` on the PATH{folders} \
             or in target/servers/bin{docker}\n\
             run `scripts/test`, which fetches one, or install it, or name its program in \
             {program_variable}{or_running}",
            name = self.name,
            program = self.program,
            docker = if self.image.is_some() { ", and no Docker daemon answers" } else { "" },
            folders = self
                .folders
                .iter()
                .chain(&self.versions)
                .map(|folder| format!(", in {folder}"))
                .collect::<String>(),
            program_variable = self.program_variable,
            or_running = match self.running() {
                Some(_) => format!(
                    "\n(the server that {} names is not used here: this test kills or restarts its server)",
                    self.server_variable
                ),
                None => format!(
                    ", or name a running server, as in {}={}",
                    self.server_variable, self.server_example
                ),
            },
        );
    }
}

impl Search {
    /// The program, for whoever starts servers of it by himself.
    ///
    /// # Panics
    /// As [`Self::origin`]; and when there is only Docker.
    pub(crate) fn program(&self) -> PathBuf {
        match self.origin() {
            Origin::Program(program) => program,
            Origin::Image(_) => panic!(
                "this test starts {} by itself, which Docker does not do; run `scripts/servers`, or name the program in {}",
                self.name, self.program_variable
            ),
        }
    }
}

/// The programs of the newest version in a folder of versions.
fn newest(versions: &'static str) -> Option<PathBuf> {
    let found = std::fs::read_dir(versions).ok()?.flatten();
    let numbered =
        found.filter_map(|entry| Some((entry.file_name().to_str()?.parse::<u32>().ok()?, entry.path())));
    numbered.max().map(|(_, folder)| folder.join("bin"))
}

/// The value of an environment variable, if it is set and not empty.
pub(crate) fn variable(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.is_empty())
}

/// The folders in which `scripts/test` may have put servers: in the target folder that this test runs from, in the one that
/// the environment names, and in the checkout's own.
pub(crate) fn fetched() -> Vec<PathBuf> {
    let executable = env::current_exe().unwrap_or_default();
    let checkout = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target");
    executable
        .ancestors()
        .skip(1)
        .map(Path::to_path_buf)
        .chain(variable("CARGO_TARGET_DIR").map(PathBuf::from))
        .chain([checkout])
        .map(|folder| folder.join("servers/bin"))
        .collect()
}

fn docker_answers() -> bool {
    Command::new("docker")
        .args(["version", "--format", "{{.Server.Version}}"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}
