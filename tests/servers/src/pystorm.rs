//! The Python that runs components made with pystorm.

use std::path::PathBuf;

use crate::origin::{fetched, variable};

/// The version that `scripts/servers` installs.
const VERSION: &str = "3.1.4";
/// Names the Python, where it is not the one that `scripts/servers` installed pystorm for.
const PYTHON: &str = "GALERNA_PYSTORM_PYTHON";

/// A Python that has pystorm.
///
/// # Panics
/// When there is none, with what to do.
pub fn pystorm_python() -> PathBuf {
    if let Some(named) = variable(PYTHON) {
        return PathBuf::from(named);
    }
    let installed = format!("../pystorm-{VERSION}/bin/python");
    let found = fetched().into_iter().map(|folder| folder.join(&installed)).find(|program| program.is_file());
    found.unwrap_or_else(|| {
        panic!("this test needs pystorm {VERSION} from PyPI: run scripts/servers, or name a Python that has it in {PYTHON}")
    })
}
