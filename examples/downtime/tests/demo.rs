//! The demo, whole.

use std::process::Command;

use serde_json::Value;

#[test]
fn what_comes_out_of_the_demo_is_what_went_in() {
    let folder = tempfile::tempdir().expect("a folder can be made");
    let report = folder.path().join("r.json");
    let output = Command::new(env!("CARGO_BIN_EXE_downtime"))
        .args(["demo", "--exit", "--report"])
        .arg(&report)
        .output()
        .expect("it can be run");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    let report: Value =
        serde_json::from_slice(&std::fs::read(&report).expect("there is a report")).expect("JSON");
    assert_eq!(report["in"], report["out"]);
    assert_eq!((&report["lost"], &report["doubled"]), (&0.into(), &0.into()));
    assert!(report["in"].as_u64().is_some_and(|events| events > 1_500), "{report}");
    assert!(report["seconds"].as_f64().is_some_and(|seconds| seconds > 0.0), "{report}");
}
