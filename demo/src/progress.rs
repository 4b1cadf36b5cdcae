//! How far the demo is: bars on a terminal, plain lines elsewhere.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use galerna_terminal::{eprint, thousands};

/// Between two plain lines.
const LINE_EVERY: Duration = Duration::from_secs(1);
/// The rate shown is over about so long.
const RATE_OVER: Duration = Duration::from_secs(2);

/// What is shown.
#[derive(Debug, Clone, Default)]
pub(crate) struct Snapshot {
    /// Readings published.
    pub(crate) published: u64,
    /// Readings stored, found to be duplicates, or refused.
    pub(crate) settled: u64,
    /// Queues in each state.
    pub(crate) states: Vec<(String, u64)>,
    /// Messages waiting in all queues.
    pub(crate) waiting: u64,
    pub(crate) alerts: u64,
}

pub(crate) struct Progress {
    total: u64,
    form: Form,
    /// Older snapshots, to tell a rate from: when, published, settled.
    history: Vec<(Instant, u64, u64)>,
}

enum Form {
    Bars { published: ProgressBar, settled: ProgressBar, queues: ProgressBar, all: MultiProgress },
    Lines { next: Instant },
}

impl Progress {
    /// Begins to show the way to `total` readings.
    pub(crate) fn start(total: u64, plain: bool) -> Self {
        let form = if plain || !std::io::stderr().is_terminal() {
            Form::Lines { next: Instant::now() }
        } else {
            let all = MultiProgress::new();
            let bar = |name: &'static str| {
                let bar = all.add(ProgressBar::new(total));
                // The templates are constants; a wrong one would fail at the first run.
                if let Ok(style) =
                    ProgressStyle::with_template("{prefix:>10} {bar:40.cyan/blue} {pos:>11} of {len} {msg}")
                {
                    bar.set_style(style.progress_chars("█▉▊▋▌▍▎▏ "));
                }
                bar.with_prefix(name)
            };
            let (published, settled) = (bar("published"), bar("settled"));
            let queues = all.add(ProgressBar::new_spinner()).with_prefix("queues");
            if let Ok(style) = ProgressStyle::with_template("{prefix:>10} {msg}") {
                queues.set_style(style);
            }
            Form::Bars { published, settled, queues, all }
        };
        Self { total, form, history: Vec::new() }
    }

    /// Shows a snapshot.
    pub(crate) fn show(&mut self, snapshot: &Snapshot) {
        let now = Instant::now();
        self.history.push((now, snapshot.published, snapshot.settled));
        self.history.retain(|(at, ..)| now.duration_since(*at) <= RATE_OVER);
        let (at, published, settled) = self.history[0];
        let rate = |from: u64, to: u64| {
            let millis = u64::try_from(now.duration_since(at).as_millis()).unwrap_or(u64::MAX);
            (to.saturating_sub(from) * 1_000).checked_div(millis).unwrap_or(0)
        };
        let (publishing, settling) = (rate(published, snapshot.published), rate(settled, snapshot.settled));
        let states: Vec<String> =
            snapshot.states.iter().map(|(name, n)| format!("{name} {}", thousands(*n))).collect();
        let queues = format!(
            "{}; {} messages waiting; {} alerts",
            states.join(", "),
            thousands(snapshot.waiting),
            thousands(snapshot.alerts)
        );
        match &mut self.form {
            Form::Bars { published, settled, queues: line, .. } => {
                for (bar, n, rate) in
                    [(published, snapshot.published, publishing), (settled, snapshot.settled, settling)]
                {
                    bar.set_length(self.total.max(n));
                    bar.set_position(n);
                    bar.set_message(format!("{}/s", thousands(rate)));
                }
                line.set_message(queues);
            }
            Form::Lines { next } if now >= *next => {
                *next = now + LINE_EVERY;
                eprint(format_args!(
                    "published {} ({}/s), settled {} ({}/s) of about {}; queues: {queues}",
                    thousands(snapshot.published),
                    thousands(publishing),
                    thousands(snapshot.settled),
                    thousands(settling),
                    thousands(self.total),
                ));
            }
            Form::Lines { .. } => {}
        }
    }

    /// Takes the bars away.
    pub(crate) fn finish(self) {
        if let Form::Bars { published, settled, queues, all } = self.form {
            published.finish();
            settled.finish();
            queues.finish_and_clear();
            drop(all);
        }
    }
}
