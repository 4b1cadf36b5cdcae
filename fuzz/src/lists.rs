//! Lists of accounts and of sources, as operators write them.

use galerna_directory::fuzzing::{accounts, sources};

/// Reads the bytes as a list of accounts and as one of sources, as JSON and as CSV.
///
/// # Panics
/// When what was read breaks a promise of the lists.
pub fn lists(data: &[u8]) {
    for name in ["list.json", "list.csv"] {
        if let Ok(list) = accounts(name, data) {
            assert!(
                list.issues.iter().all(|issue| !issue.problem.is_empty()),
                "a wrong entry without a reason"
            );
            let written = serde_json::to_vec(&list.entries).expect("accounts have a JSON form");
            let again = accounts("list.json", &written).expect("a list that was written can be read");
            assert!(again.issues.is_empty(), "a right account is wrong once written: {:?}", again.issues);
            assert_eq!(again.entries, list.entries);
        }
        if let Ok(list) = sources(name, data) {
            assert!(
                list.issues.iter().all(|issue| !issue.problem.is_empty()),
                "a wrong entry without a reason"
            );
            let written = serde_json::to_vec(&list.entries).expect("sources have a JSON form");
            let again = sources("list.json", &written).expect("a list that was written can be read");
            assert!(again.issues.is_empty(), "a right source is wrong once written: {:?}", again.issues);
            assert_eq!(again.entries, list.entries);
        }
    }
}
