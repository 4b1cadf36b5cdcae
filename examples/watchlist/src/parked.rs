//! Pages that are tried no more, seen and changed by command, beside a process that serves or without one.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context as _, bail, ensure};
use galerna_delay::{DelayOptions, DelayStore};
use galerna_model::SystemClock;

/// Pages that one command lists or changes.
const MOST: usize = 100_000;

/// What is to be done with parked pages; nothing lists them.
#[derive(Debug, Clone, clap::Args)]
pub struct ParkedOptions {
    /// The folder of the stores
    #[arg(long, default_value = "watchlist-data", env = "WATCHLIST_FOLDER")]
    pub folder: PathBuf,
    /// Tries this page again, as if for the first time
    #[arg(long, value_name = "PAGE", group = "change")]
    pub resume: Option<String>,
    /// Tries all of them again
    #[arg(long, group = "change")]
    pub resume_all: bool,
    /// Drops this page
    #[arg(long, value_name = "PAGE", group = "change")]
    pub discard: Option<String>,
}

/// Lists or changes what is parked. A line for each page.
///
/// # Errors
/// When there is no such folder or page.
pub async fn parked(options: ParkedOptions) -> anyhow::Result<Vec<String>> {
    let file = options.folder.join("jobs.sqlite");
    ensure!(
        file.exists(),
        "there is no {}; name the folder of `watchlist serve` with --folder",
        file.display()
    );
    let jobs = DelayStore::open(&file, Arc::new(SystemClock), DelayOptions::default())
        .with_context(|| file.display().to_string())?;
    let known = jobs.parked(MOST).await?;
    match (options.resume, options.discard) {
        (Some(page), _) if jobs.resume(&page).await? => Ok(vec![format!("{page} is tried again")]),
        (_, Some(page)) if jobs.discard(&page).await? => Ok(vec![format!("{page} is dropped")]),
        (Some(page), _) | (_, Some(page)) => {
            bail!("{page} is not parked; `watchlist parked` lists what is")
        }
        (None, None) if options.resume_all => {
            let mut lines = Vec::new();
            for page in known {
                if jobs.resume(&page.id).await? {
                    lines.push(format!("{} is tried again", page.id));
                }
            }
            Ok(lines)
        }
        (None, None) => Ok(known
            .into_iter()
            .map(|page| format!("{}: {} (attempts: {})", page.id, page.reason, page.attempts))
            .collect()),
    }
}
