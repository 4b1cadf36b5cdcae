//! Posts that were recorded: what the local servers of the examples serve, and what their tests count independently.
//!
//! Where they are from and under which licences is in `data/README.md`.
//!
//! ```
//! let posts = recorded_posts::posts().unwrap();
//! assert_eq!(posts.len(), 2_082);
//! assert!(posts.is_sorted_by_key(|post| post.at));
//! ```

use std::io::{self, BufRead, BufReader};

use galerna_model::Timestamp;
use serde::Deserialize;

/// A post as it was recorded.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct RecordedPost {
    /// Who posted: a project.
    pub account: String,
    /// When.
    pub at: Timestamp,
    /// Which version it announces; unlike that of any other post of the account.
    pub version: String,
    /// The person.
    pub author: String,
    /// What it says, in one line.
    pub text: String,
}

/// All posts, the oldest first.
///
/// # Errors
/// When the file that is built in is not whole, which its test rules out.
pub fn posts() -> io::Result<Vec<RecordedPost>> {
    let file = flate2::read::GzDecoder::new(&include_bytes!("../data/posts.ndjson.gz")[..]);
    BufReader::new(file).lines().map(|line| Ok(serde_json::from_str(&line?)?)).collect()
}
