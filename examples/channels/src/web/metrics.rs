//! Metrics of channels; those of their topology come with it.

use std::collections::{BTreeMap, HashMap};
use std::sync::Weak;

use galerna_control::metrics::Families;
use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;

use crate::service::Channels;

/// Counts of all channels, read when they are asked for.
pub(super) struct Counts {
    channels: Weak<Channels>,
    /// Stands for all of them.
    description: Desc,
}

const CHANNELS: &str = "channels";
const CHANNELS_HELP: &str = "Channels, by what their tasks do.";

impl Counts {
    pub(super) fn new(channels: Weak<Channels>) -> Result<Self, prometheus::Error> {
        let labels = vec!["phase".to_owned()];
        let description = Desc::new(CHANNELS.to_owned(), CHANNELS_HELP.to_owned(), labels, HashMap::new())?;
        Ok(Self { channels, description })
    }
}

impl Collector for Counts {
    fn desc(&self) -> Vec<&Desc> {
        vec![&self.description]
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let mut families = Families::default();
        let Some(channels) = self.channels.upgrade() else { return families.into_families() };
        let views = channels.view();
        let mut phases: BTreeMap<&str, u64> = BTreeMap::new();
        let (mut passed, mut blocked, mut duplicates, mut cuts) = (0, 0, 0, 0);
        for view in &views {
            *phases.entry(view.progress.phase.name()).or_default() += 1;
            passed += view.progress.passed;
            blocked += view.progress.blocked;
            duplicates += view.progress.duplicates;
            cuts += view.progress.cuts;
        }
        for (phase, count) in phases {
            families.gauge(CHANNELS, CHANNELS_HELP, &[("phase", phase)], count as f64);
        }
        for (outcome, count) in [("passed", passed), ("blocked", blocked), ("duplicate", duplicates)] {
            families.counter(
                "channels_statuses_total",
                "Statuses that came in.",
                &[("outcome", outcome)],
                count,
            );
        }
        families.counter("channels_stream_cuts_total", "Streams that were cut.", &[], cuts);
        let accounts = channels.accounts();
        let sum = |of: fn(&crate::accounts::AccountView) -> u64| accounts.iter().map(of).sum();
        let posts = [
            ("sent", sum(|account| account.sent)),
            ("refused", sum(|account| account.refused)),
            ("failed_attempt", sum(|account| account.failures)),
        ];
        for (outcome, count) in posts {
            families.counter(
                "channels_posts_total",
                "Posts, and attempts that are repeated.",
                &[("outcome", outcome)],
                count,
            );
        }
        families.into_families()
    }
}
