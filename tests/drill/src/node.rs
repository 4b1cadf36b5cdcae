//! The processes of a node.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result};
use tokio::process::{Child, Command};

use crate::network::name;

/// What runs on a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Program {
    /// Erlang's port mapper, which RabbitMQ's nodes find each other by.
    PortMapper,
    RabbitMq,
    MongoDb,
    Dispatcher,
    Maintainer,
    Frontend,
    Worker,
}

impl Program {
    /// The product's own.
    pub(crate) const MODULES: [Self; 4] = [Self::Dispatcher, Self::Maintainer, Self::Frontend, Self::Worker];
    /// In the order in which they are started.
    pub(crate) const ALL: [Self; 7] = [
        Self::PortMapper,
        Self::RabbitMq,
        Self::MongoDb,
        Self::Dispatcher,
        Self::Maintainer,
        Self::Frontend,
        Self::Worker,
    ];

    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::PortMapper => "epmd",
            Self::RabbitMq => "rabbitmq",
            Self::MongoDb => "mongod",
            Self::Dispatcher => "dispatcher",
            Self::Maintainer => "maintainer",
            Self::Frontend => "frontend",
            Self::Worker => "worker",
        }
    }
}

/// How a program is run: its words and its environment.
#[derive(Clone, Debug, Default)]
pub(crate) struct CommandLine {
    pub(crate) words: Vec<String>,
    pub(crate) environment: Vec<(String, String)>,
}

/// A node with what runs on it. Its processes are killed with it.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) number: usize,
    pub(crate) folder: PathBuf,
    commands: BTreeMap<Program, CommandLine>,
    running: BTreeMap<Program, Child>,
    /// Lost for good.
    pub(crate) lost: bool,
}

impl Node {
    pub(crate) fn new(number: usize, folder: &Path) -> Result<Self> {
        let folder = folder.join(name(number));
        std::fs::create_dir_all(&folder)?;
        Ok(Self { number, folder, commands: BTreeMap::new(), running: BTreeMap::new(), lost: false })
    }

    pub(crate) fn set(&mut self, program: Program, command: CommandLine) {
        self.commands.insert(program, command);
    }

    /// Starts a program, unless it runs. What it prints is added to its log in the node's folder.
    pub(crate) fn start(&mut self, program: Program) -> Result<()> {
        if self.lost || self.runs(program) {
            return Ok(());
        }
        let command = self.commands.get(&program).with_context(|| format!("no command for {program:?}"))?;
        let log = self.folder.join(format!("{}.log", program.word()));
        let log = File::options().create(true).append(true).open(log)?;
        let mut line = Command::new("ip");
        line.args(["netns", "exec", &name(self.number)]).args(&command.words);
        for (variable, _) in std::env::vars_os() {
            let variable = variable.to_string_lossy();
            if ["GALERNA_", "RABBITMQ_", "RUST_LOG"].iter().any(|own| variable.starts_with(own)) {
                line.env_remove(&*variable);
            }
        }
        line.envs(command.environment.iter().cloned()).current_dir(&self.folder);
        line.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).kill_on_drop(true);
        let child =
            line.spawn().with_context(|| format!("starting {} on {}", program.word(), self.number))?;
        self.running.insert(program, child);
        Ok(())
    }

    pub(crate) fn runs(&mut self, program: Program) -> bool {
        self.running.get_mut(&program).is_some_and(|child| matches!(child.try_wait(), Ok(None)))
    }

    /// `kill -9`; returns when it is gone.
    pub(crate) async fn kill(&mut self, program: Program) -> Result<()> {
        if let Some(mut child) = self.running.remove(&program) {
            child.kill().await.with_context(|| format!("killing {}", program.word()))?;
        }
        Ok(())
    }

    /// Kills all of it at once, the port mapper and what Erlang started too.
    pub(crate) async fn kill_all(&mut self) -> Result<()> {
        for child in self.running.values_mut() {
            child.start_kill().ok();
        }
        for (_, mut child) in std::mem::take(&mut self.running) {
            child.wait().await.context("waiting for a process that was killed")?;
        }
        Ok(())
    }

    /// Freezes (`STOP`) or continues (`CONT`) a program.
    pub(crate) async fn signal(&self, program: Program, signal: &str) -> Result<()> {
        if let Some(id) = self.running.get(&program).and_then(Child::id) {
            Command::new("kill").args([&format!("-{signal}"), &id.to_string()]).status().await?;
        }
        Ok(())
    }
}
