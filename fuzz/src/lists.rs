//! Lists of accounts and of sources, as operators write them.

use std::collections::HashSet;

use galerna_directory::fuzzing::{accounts, sources};

/// Reads the bytes as a list of accounts and as one of sources, as JSON and as CSV.
///
/// # Panics
/// When what was read breaks a promise of the lists.
pub fn lists(data: &[u8]) {
    for name in ["list.json", "list.csv"] {
        if let Ok(list) = accounts(name, data) {
            let ids: HashSet<_> = list.entries.iter().map(|account| &account.id).collect();
            assert_eq!(ids.len(), list.entries.len(), "an account is listed twice");
        }
        if let Ok(list) = sources(name, data) {
            let ids: HashSet<_> = list.entries.iter().map(|source| &source.id).collect();
            assert_eq!(ids.len(), list.entries.len(), "a source is listed twice");
        }
    }
}
