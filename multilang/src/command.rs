//! What a component in another language is run with.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Map, Value};

/// A program that speaks the protocol, and how it is treated.
///
/// Made of the words of its command line:
///
/// ```
/// use std::time::Duration;
/// use galerna_multilang::ShellCommand;
///
/// let split = ShellCommand::from(["python3", "split.py"]).folder("bolts").timeout(Duration::from_secs(120));
/// ```
#[derive(Debug, Clone)]
pub struct ShellCommand {
    pub(crate) words: Vec<OsString>,
    pub(crate) folder: Option<PathBuf>,
    pub(crate) environment: BTreeMap<OsString, OsString>,
    pub(crate) conf: Map<String, Value>,
    pub(crate) pid_dir: Option<PathBuf>,
    pub(crate) timeout: Duration,
    pub(crate) heartbeat: Duration,
    pub(crate) longest_pause: Duration,
    pub(crate) max_pending: usize,
    pub(crate) max_unsettled: usize,
    pub(crate) max_message: usize,
}

impl<W: Into<OsString>, I: IntoIterator<Item = W>> From<I> for ShellCommand {
    fn from(words: I) -> Self {
        Self {
            words: words.into_iter().map(Into::into).collect(),
            folder: None,
            environment: BTreeMap::new(),
            conf: Map::new(),
            pid_dir: None,
            timeout: Duration::from_secs(30),
            heartbeat: Duration::from_secs(1),
            longest_pause: Duration::from_secs(10),
            max_pending: 100,
            max_unsettled: 100_000,
            max_message: 16 << 20,
        }
    }
}

impl ShellCommand {
    /// Runs it in this folder instead of that of this process.
    #[must_use]
    pub fn folder(mut self, folder: impl Into<PathBuf>) -> Self {
        self.folder = Some(folder.into());
        self
    }

    /// Sets a variable of its environment, beside those of this process.
    #[must_use]
    pub fn env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.environment.insert(name.into(), value.into());
        self
    }

    /// Adds a setting to what it gets as `conf` in the handshake, beside `topology.name`.
    #[must_use]
    pub fn conf(mut self, name: impl Into<String>, value: impl Into<Value>) -> Self {
        self.conf.insert(name.into(), value.into());
        self
    }

    /// The folder for the files named by process ids, instead of one that is made for it and removed again.
    #[must_use]
    pub fn pid_dir(mut self, folder: impl Into<PathBuf>) -> Self {
        self.pid_dir = Some(folder.into());
        self
    }

    /// How long it may say nothing while an answer is due, before it counts as hung and is replaced: a bolt is asked by heartbeats,
    /// a spout by each command. It holds for the answer to the handshake, too. 30 s unless set.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// How often a bolt gets a heartbeat. 1 s unless set.
    #[must_use]
    pub fn heartbeat(mut self, interval: Duration) -> Self {
        self.heartbeat = interval;
        self
    }

    /// The longest pause before it is started again; the first is 100 ms, and each is twice the one before, until it has lived as
    /// long as the longest. 10 s unless set.
    #[must_use]
    pub fn longest_pause(mut self, pause: Duration) -> Self {
        self.longest_pause = pause;
        self
    }

    /// How many tuples may wait to be written to it before the components upstream wait. 100 unless set.
    #[must_use]
    pub fn max_pending(mut self, tuples: usize) -> Self {
        self.max_pending = tuples.max(1);
        self
    }

    /// How many tuples it may hold neither acked nor failed. What comes beyond that fails. 100,000 unless set.
    #[must_use]
    pub fn max_unsettled(mut self, tuples: usize) -> Self {
        self.max_unsettled = tuples.max(1);
        self
    }

    /// The longest message that it may write, in bytes; of MessagePack frames, the longest frame. 16 MiB unless set.
    #[must_use]
    pub fn max_message(mut self, bytes: usize) -> Self {
        self.max_message = bytes;
        self
    }

    /// The command line, for people.
    pub(crate) fn line(&self) -> String {
        let words: Vec<_> = self.words.iter().map(|word| word.to_string_lossy()).collect();
        words.join(" ")
    }
}
