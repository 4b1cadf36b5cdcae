//! Answers for people and for programs.

mod color;
mod list;

use std::time::Duration;

pub use color::{Tone, label};
pub use list::{Cell, List, ListForm};

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use serde::Serialize;

/// A table with these headings; columns whose heading begins with `#` are numbers, to the right.
pub fn table(headings: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::UTF8_BORDERS_ONLY).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(headings.iter().map(|h| h.trim_start_matches(['#', '~'])));
    for (i, heading) in headings.iter().enumerate() {
        if let (true, Some(column)) = (heading.starts_with('#'), table.column_mut(i)) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

/// Prints a line to standard output; a reader that went away (`| head`) is no error.
pub fn print(text: impl std::fmt::Display) -> anyhow::Result<()> {
    use std::io::Write;
    match writeln!(std::io::stdout().lock(), "{text}") {
        Err(e) if e.kind() != std::io::ErrorKind::BrokenPipe => Err(e.into()),
        _ => Ok(()),
    }
}

/// Prints a line to standard error, for people; nobody there to read it (`2>&1 | head`) is no error.
pub fn eprint(text: impl std::fmt::Display) {
    use std::io::Write;
    drop(writeln!(std::io::stderr().lock(), "{text}"));
}

/// Prints JSON to standard output.
pub fn print_json(value: &impl Serialize) -> anyhow::Result<()> {
    print(serde_json::to_string_pretty(value)?)
}

/// A whole number with its thousands apart.
pub fn thousands(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// A time span in its two largest units, such as `1h2m`, as people write it; below a second in milliseconds.
pub fn duration(span: Duration) -> String {
    const UNITS: [(&str, u64); 4] = [("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1)];
    if span < Duration::from_secs(1) {
        return format!("{}ms", span.as_millis());
    }
    let mut rest = span.as_secs();
    let mut parts = UNITS.iter().map(|(unit, size)| {
        let n = rest / size;
        rest %= size;
        (n, unit)
    });
    let Some((n, unit)) = parts.by_ref().find(|(n, _)| *n > 0) else { return "0s".to_owned() };
    match parts.next() {
        Some((more, next)) if more > 0 => format!("{n}{unit}{more}{next}"),
        _ => format!("{n}{unit}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_as_people_write_them() {
        for (millis, shown) in [
            (0, "0ms"),
            (250, "250ms"),
            (1_000, "1s"),
            (65_999, "1m5s"),
            (10_800_000, "3h"),
            (11_520_000, "3h12m"),
            (90_061_000, "1d1h"),
            (86_405_000, "1d"),
        ] {
            assert_eq!(duration(Duration::from_millis(millis)), shown, "{millis}");
        }
    }

    #[test]
    fn thousands_are_set_apart() {
        for (n, shown) in
            [(0, "0"), (999, "999"), (1_000, "1,000"), (464_325, "464,325"), (1_000_000, "1,000,000")]
        {
            assert_eq!(thousands(n), shown);
        }
    }
}
