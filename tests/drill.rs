//! A cluster of three nodes with RabbitMQ, MongoDB and the product on each, while processes are killed and links cut: nothing accepted is
//! lost or doubled, and no queue has two holders. `scripts/drill` runs many more faults.

use std::path::PathBuf;

use galerna_drill::{Options, Plan, namespace, run};

const NAME: &str = "nothing_accepted_is_lost_or_doubled_and_no_queue_has_two_holders_while_nodes_fail";

#[test]
fn nothing_accepted_is_lost_or_doubled_and_no_queue_has_two_holders_while_nodes_fail() {
    if !namespace::is_inside() {
        // This test once more, where it can cut links.
        let arguments = ["--exact", NAME, "--nocapture"].map(Into::into);
        let status = namespace::enter(&arguments).unwrap();
        assert!(status.success(), "{status}: see above");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let galerna = PathBuf::from(env!("CARGO_BIN_EXE_galerna"));
    let options = Options::new(galerna, folder.path().to_owned(), Plan::short());
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let report = match runtime.block_on(run(&options)) {
        Ok(report) => report,
        Err(error) => {
            panic!("{error:#}; logs and data of the nodes: {}", folder.keep().display());
        }
    };
    eprintln!("{report}");
    assert_eq!(report.rows.len(), options.plan.0.len());
    assert!(report.rows.iter().all(|row| row.accepted > 0 && row.stored == row.accepted), "{report}");
    assert!(report.leases > 0 && report.compared > 0, "{report}");
    if !report.is_good() {
        panic!("{report}\nlogs and data of the nodes: {}", folder.keep().display());
    }
}
