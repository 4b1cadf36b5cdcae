//! One server process under a supervising shell.

use std::fmt::Write as _;
use std::fs;
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Mutex;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use crate::origin::variable;
use crate::{TIMEOUT, unique};

/// How often a starting server is asked whether it is ready. Nothing announces it, so it has to be asked.
const PROBE_INTERVAL: Duration = Duration::from_millis(25);

/// Sends a signal to a whole process group; but the request to stop only to its leader, which stops the rest in its own
/// order.
const SIGNAL_PROCESS: &str = r#"case $1 in
TERM) kill -s TERM -- "$2" ;;
*) kill -s "$1" -- "-$2" ;;
esac
"#;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Life {
    starts: u32,
    exits: u32,
    signals: u32,
}

impl Life {
    fn running(self) -> bool {
        self.starts > self.exits
    }
}

/// A server's folder and the shell that runs the server in it.
///
/// Dropping it kills the server and removes the folder. All of its work is done by the shell and by a plain thread, so it
/// outlives the runtime of the test that made it.
#[derive(Debug)]
pub(crate) struct Supervisor {
    folder: PathBuf,
    shell: Child,
    commands: Mutex<Option<ChildStdin>>,
    life: watch::Receiver<Life>,
}

impl Supervisor {
    /// A new folder with a shell that waits for commands. `kind` begins the folder's name.
    pub(crate) fn new(kind: &str) -> io::Result<Self> {
        let folder = variable("GALERNA_TEST_SERVERS_FOLDER").map_or_else(std::env::temp_dir, PathBuf::from);
        let folder = folder.join(unique(&format!("galerna_{kind}")));
        fs::DirBuilder::new().mode(0o700).create(&folder)?;
        let mut shell = Command::new("sh")
            .args(["-c", include_str!("supervisor.sh"), "galerna-test-server"])
            .arg(&folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            // Out of the terminal's group: an interrupt must not end the shell before it has cleaned up.
            .process_group(0)
            .spawn()?;
        let commands = Mutex::new(shell.stdin.take());
        let events = shell.stdout.take().expect("the shell's stdout is piped");
        let (sender, life) = watch::channel(Life::default());
        std::thread::spawn(move || {
            for line in BufReader::new(events).lines().map_while(Result::ok) {
                sender.send_modify(|life| match line.split(' ').next() {
                    Some("started") => life.starts += 1,
                    Some("exited") => life.exits += 1,
                    Some("signalled") => life.signals += 1,
                    _ => {}
                });
            }
        });
        let supervisor = Self { folder, shell, commands, life };
        supervisor.write("signal", SIGNAL_PROCESS)?;
        Ok(supervisor)
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Writes a file into the folder.
    pub(crate) fn write(&self, name: &str, text: &str) -> io::Result<()> {
        fs::write(self.folder.join(name), text)
    }

    /// Makes the folder that of a Docker container: `create` are the arguments of `docker create` after the name.
    pub(crate) fn write_container(&self, create: &str) -> io::Result<()> {
        let name = self.folder.file_name().expect("the folder has a name").to_string_lossy();
        self.write(
            "run",
            &format!(
                "docker container inspect {name} >/dev/null 2>&1 || docker create --name {name} {create} || exit 1\n\
                 exec docker start --attach {name}\n"
            ),
        )?;
        self.write(
            "signal",
            &format!(
                "case $1 in\nSTOP) docker pause {name} ;;\nCONT) docker unpause {name} ;;\n\
                 *) docker kill --signal \"$1\" {name} ;;\nesac >/dev/null\n"
            ),
        )?;
        self.write("finish", &format!("docker rm --force --volumes {name} >/dev/null\n"))
    }

    fn command(&self, line: &str) {
        let mut commands = self.commands.lock().expect("no one panics while holding the pipe");
        let pipe = commands.as_mut().expect("the pipe is open until the supervisor is dropped");
        // An error here means that the shell is gone, and with it the server: whoever waits for it hears of that.
        let _ = pipe.write_all(format!("{line}\n").as_bytes());
    }

    /// Starts the server and waits until `ready` says so. Starting a server that runs does nothing.
    ///
    /// # Errors
    /// The server's last log lines, when it ends instead or is not ready in time.
    pub(crate) async fn start<F>(&self, ready: impl Fn() -> F) -> Result<(), String>
    where
        F: Future<Output = bool>,
    {
        let mut life = self.life.clone();
        let before = *life.borrow_and_update();
        if before.running() {
            return Ok(());
        }
        self.command("start");
        let outcome = timeout(TIMEOUT, async {
            if life.wait_for(|life| life.starts > before.starts).await.is_err() {
                return Err("its supervising shell ended".to_owned());
            }
            tokio::select! {
                ended = life.wait_for(|life| !life.running()) => {
                    Err(if ended.is_ok() { "it ended at once" } else { "its supervising shell ended" }.to_owned())
                }
                () = async { while !ready().await { sleep(PROBE_INTERVAL).await } } => Ok(()),
            }
        })
        .await
        .unwrap_or_else(|_| Err(format!("it was not ready within {} s", TIMEOUT.as_secs())));
        outcome.map_err(|why| format!("{why}; its log ends:\n{}", self.log_tail()))
    }

    /// Sends a signal (`TERM`, `KILL`, `STOP`, `CONT`) to the server and returns when it is sent.
    pub(crate) async fn signal(&self, name: &str) {
        let mut life = self.life.clone();
        let before = life.borrow_and_update().signals;
        self.command(&format!("signal {name}"));
        let sent = timeout(TIMEOUT, life.wait_for(|life| life.signals > before)).await;
        assert!(matches!(sent, Ok(Ok(_))), "the server's supervising shell did not send {name}");
    }

    /// Waits until the server has ended.
    pub(crate) async fn ended(&self) {
        let mut life = self.life.clone();
        timeout(TIMEOUT, life.wait_for(|life| !life.running()))
            .await
            .unwrap_or_else(|_| {
                panic!("the server did not end within {} s\n{}", TIMEOUT.as_secs(), self.log_tail())
            })
            .ok();
    }

    pub(crate) fn log_tail(&self) -> String {
        let log = fs::read(self.folder.join("log")).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<&str> = log.lines().collect();
        let mut tail = String::new();
        for line in &lines[lines.len().saturating_sub(60)..] {
            let _ = writeln!(tail, "    {line}");
        }
        tail
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        // Closing the pipe is the shell's sign to end the server. Waiting for it leaves nothing behind a test.
        if let Ok(commands) = self.commands.get_mut() {
            commands.take();
        }
        let _ = self.shell.wait();
    }
}
