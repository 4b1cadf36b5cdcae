//! Storm, which scripts/servers has Maven fetch.

use std::path::PathBuf;

use crate::origin::fetched;

/// What `java -cp` takes to run Storm with the classes of `deploy/storm/` and of its tests.
///
/// # Panics
/// When Storm was not fetched, with what to do.
pub fn storm_class_path() -> String {
    let built = fetched().into_iter().map(|folder| folder.join("../storm"));
    let found = built.into_iter().find(|folder| folder.join("storm/lib").is_dir());
    let folder: PathBuf = found.unwrap_or_else(|| {
        panic!("this test needs Storm, which Maven fetches, and a JDK: run scripts/servers")
    });
    let of = |part: &str| folder.join(part).display().to_string();
    [of("test-classes"), of("classes"), of("storm/lib/*")].join(":")
}
