//! Programs of another language, from PyPI, that check what the notifier sends.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tokio::sync::OnceCell;

/// What is installed, pinned.
const PACKAGES: [&str; 2] = ["standardwebhooks==1.1.0", "aiosmtpd==1.4.6"];

/// A Python, and where the packages are.
pub(crate) struct Python {
    program: &'static str,
    packages: PathBuf,
}

impl Python {
    /// Finds Python and installs the packages into the target folder, once.
    pub(crate) async fn shared() -> &'static Self {
        static SHARED: OnceCell<Python> = OnceCell::const_new();
        SHARED.get_or_init(|| async { tokio::task::spawn_blocking(install).await.expect("installed") }).await
    }

    /// Runs a script of `tests/python`.
    pub(crate) fn script(&self, name: &str) -> tokio::process::Command {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python").join(name);
        let mut command = tokio::process::Command::new(self.program);
        command.arg("-u").arg(script).env("PYTHONPATH", &self.packages).kill_on_drop(true);
        command
    }
}

fn install() -> Python {
    let has_pip = |program: &&str| {
        let asked = Command::new(program)
            .args(["-m", "pip", "--version"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        asked.is_ok_and(|status| status.success())
    };
    let program = ["python3", "/usr/bin/python3"].into_iter().find(has_pip).unwrap_or_else(|| {
        panic!("there is no python3 with pip; run scripts/servers, or: apt-get install python3 python3-pip")
    });
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let packages = folder.join("python-standardwebhooks-1.1.0-aiosmtpd-1.4.6");
    if !packages.exists() {
        // Into a folder of its own first, so that what stands there is whole.
        let unfinished = tempfile::tempdir_in(folder).expect("a folder for the packages");
        let target = unfinished.path().join("packages");
        let mut pip = Command::new(program);
        pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--target"]);
        let status = pip.arg(&target).args(PACKAGES).status().expect("pip runs");
        assert!(status.success(), "pip could not install {PACKAGES:?}; is the package index reachable?");
        // Another process may have been faster.
        if std::fs::rename(&target, &packages).is_err() {
            assert!(packages.exists(), "{} cannot be put into place", packages.display());
        }
    }
    Python { program, packages }
}
