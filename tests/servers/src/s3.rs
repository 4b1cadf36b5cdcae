//! A private server with S3's API.

use std::path::PathBuf;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::origin::{fetched, variable};
use crate::port;
use crate::supervisor::Supervisor;

/// The version that `scripts/servers` installs.
const VERSION: &str = "5.2.5";
/// Names the program, where it is not the one that `scripts/servers` installed.
const PROGRAM: &str = "GALERNA_MOTO_SERVER";
const START_ATTEMPTS: u32 = 5;

/// A real server with S3's API for tests: moto's, which keeps its objects in memory, with their versions. It takes any keys.
#[derive(Debug)]
pub struct S3 {
    supervisor: Supervisor,
    port: u16,
}

impl S3 {
    /// A private server of the caller's own, which dies when it is dropped.
    ///
    /// # Panics
    /// When there is no program for it, with what to do; when it does not start.
    pub async fn start() -> Self {
        let program = program();
        let mut failures = String::new();
        for _ in 0..START_ATTEMPTS {
            let port = port::free();
            let supervisor = Supervisor::new("s3")
                .unwrap_or_else(|error| panic!("could not lay out a folder for S3: {error}"));
            let run = format!("exec '{}' -H 127.0.0.1 -p {port}\n", program.display());
            supervisor
                .write("run", &run)
                .unwrap_or_else(|error| panic!("could not lay out a folder for S3: {error}"));
            let ready = || async {
                timeout(Duration::from_secs(1), TcpStream::connect(("127.0.0.1", port)))
                    .await
                    .is_ok_and(|connected| connected.is_ok())
            };
            match supervisor.start(ready).await {
                Ok(()) => return Self { supervisor, port },
                Err(failure) if failure.contains("in use") => failures = failure,
                Err(failure) => panic!("S3 from {} did not start: {failure}", program.display()),
            }
        }
        panic!("S3 found its port taken {START_ATTEMPTS} times: {failures}");
    }

    /// Its address: `http://127.0.0.1:PORT`.
    #[must_use]
    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Freezes the server (`SIGSTOP`): connections stay open and nothing answers, until [`S3::thaw`].
    pub async fn freeze(&self) {
        self.supervisor.signal("STOP").await;
    }

    /// Lets a frozen server go on (`SIGCONT`).
    pub async fn thaw(&self) {
        self.supervisor.signal("CONT").await;
    }
}

fn program() -> PathBuf {
    if let Some(named) = variable(PROGRAM) {
        return PathBuf::from(named);
    }
    let installed = format!("../moto-{VERSION}/bin/moto_server");
    let found = fetched().into_iter().map(|folder| folder.join(&installed)).find(|program| program.is_file());
    found.unwrap_or_else(|| {
        panic!("this test needs moto's server {VERSION} from PyPI: run scripts/servers, or name the program in {PROGRAM}")
    })
}
