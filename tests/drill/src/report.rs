//! What came of a drill.

use std::fmt;
use std::time::Duration;

use serde_json::{Value, json};

/// What came of one fault.
#[derive(Clone, Debug)]
pub struct Row {
    /// What went wrong.
    pub fault: String,
    /// Where.
    pub place: String,
    /// When it began, counted from the first reading.
    pub began: Duration,
    /// How long it lasted.
    pub lasted: Duration,
    /// From its end until all modules were ready and everything accepted by then was stored.
    pub recovered: Duration,
    /// Readings accepted from its beginning until then.
    pub accepted: u64,
    /// How many of these are stored.
    pub stored: u64,
    /// How many of all that were accepted by then are not.
    pub lost: u64,
    /// How many readings are stored more than once, or were never posted.
    pub doubled: u64,
    /// The longest time without a reading accepted.
    pub longest_without_accepted: Duration,
    /// The longest time without a reading stored.
    pub longest_without_stored: Duration,
}

/// What came of all of them.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// One row a fault.
    pub rows: Vec<Row>,
    /// Calls that were not accepted at once and were made again.
    pub repeated: u64,
    /// Leases that were granted, and of these those that ended by expiry.
    pub leases: u64,
    /// Leases that ended by expiry.
    pub expired: u64,
    /// Leases of clients beside the workers, which compared what they were told.
    pub compared: u64,
    /// What must not have been: two holders of a queue, messages left over, dead letters.
    pub violations: Vec<String>,
}

impl Report {
    /// Whether nothing was lost or doubled, and nothing was that must not be.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.violations.is_empty() && self.rows.iter().all(|row| row.lost == 0 && row.doubled == 0)
    }

    /// For programs; times in milliseconds.
    #[must_use]
    pub fn json(&self) -> Value {
        let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let rows = self.rows.iter().map(|row| {
            json!({
                "fault": row.fault, "place": row.place, "began_ms": ms(row.began), "lasted_ms": ms(row.lasted),
                "recovered_ms": ms(row.recovered), "accepted": row.accepted, "stored": row.stored, "lost": row.lost,
                "doubled": row.doubled, "longest_without_accepted_ms": ms(row.longest_without_accepted),
                "longest_without_stored_ms": ms(row.longest_without_stored),
            })
        });
        json!({
            "rows": rows.collect::<Vec<_>>(), "repeated": self.repeated, "leases": self.leases, "expired": self.expired,
            "compared": self.compared, "violations": self.violations, "good": self.is_good(),
        })
    }
}

fn seconds(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let headings = [
            "fault",
            "node",
            "began",
            "lasted",
            "recovered after",
            "accepted",
            "stored",
            "lost",
            "doubled",
            "longest without accepted",
            "longest without stored",
        ];
        writeln!(f, "| {} |", headings.join(" | "))?;
        writeln!(f, "|{}", "---|".repeat(headings.len()))?;
        for row in &self.rows {
            let cells = [
                row.fault.clone(),
                row.place.clone(),
                seconds(row.began),
                seconds(row.lasted),
                seconds(row.recovered),
                row.accepted.to_string(),
                row.stored.to_string(),
                row.lost.to_string(),
                row.doubled.to_string(),
                seconds(row.longest_without_accepted),
                seconds(row.longest_without_stored),
            ];
            writeln!(f, "| {} |", cells.join(" | "))?;
        }
        writeln!(
            f,
            "\n{} calls were repeated. {} leases were granted, {} expired; {} were of clients beside the workers. {} violations.",
            self.repeated,
            self.leases,
            self.expired,
            self.compared,
            self.violations.len()
        )?;
        self.violations.iter().try_for_each(|violation| writeln!(f, "- {violation}"))
    }
}
