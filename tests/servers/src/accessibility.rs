//! axe-core from npm, which checks pages in a browser for what keeps people from using them.

use std::path::PathBuf;

use crate::origin::{fetched, variable};

/// The version that `scripts/servers` unpacks.
const VERSION: &str = "4.10.3";
/// Names the script, where it is not one that `scripts/servers` unpacked.
const SCRIPT: &str = "GALERNA_AXE";

/// The script `axe.min.js`, to be run in a page; it then offers `axe.run()`.
///
/// # Panics
/// When it is not there, with what to do.
pub fn axe_script() -> String {
    let unpacked = format!("../axe-core-{VERSION}/axe.min.js");
    let path = variable(SCRIPT)
        .map(PathBuf::from)
        .or_else(|| fetched().into_iter().map(|folder| folder.join(&unpacked)).find(|script| script.is_file()))
        .unwrap_or_else(|| {
            panic!("this test needs axe-core {VERSION} from npm: run scripts/servers, or name its axe.min.js in {SCRIPT}")
        });
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{} cannot be read: {e}", path.display()))
}
