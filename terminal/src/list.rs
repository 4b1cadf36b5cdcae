//! Lists: one form for all of them, as a table for people, and as JSON, CSV or names for programs.

use std::collections::BTreeSet;

use comfy_table::Table;
use serde_json::{Value, json};

use crate::color::{Tone, marked, painted, unmarked};
use crate::{duration, print, print_json, table, thousands};

/// A cell: as people read it, and as programs do.
#[derive(Debug, Clone, Default)]
pub struct Cell {
    shown: String,
    plain: Option<String>,
    tone: Tone,
}

impl Cell {
    /// A text. What would steer a terminal is taken out: names of devices come from afar.
    pub fn text(text: impl Into<String>) -> Self {
        Self { shown: unmarked(&text.into()).replace(char::is_control, " "), plain: None, tone: Tone::Plain }
    }

    /// A whole number: with its thousands apart for people.
    pub fn number(n: u64) -> Self {
        Self { shown: thousands(n), plain: Some(n.to_string()), tone: Tone::Plain }
    }

    /// A time span: in its two largest units for people, in milliseconds for programs.
    pub fn milliseconds(millis: u64) -> Self {
        let shown = duration(std::time::Duration::from_millis(millis));
        Self { shown, plain: Some(millis.to_string()), tone: Tone::Plain }
    }

    /// The same, but programs read this.
    #[must_use]
    pub fn plain(mut self, text: impl Into<String>) -> Self {
        self.plain = Some(text.into().replace(char::is_control, " "));
        self
    }

    /// In a colour, where the terminal has some.
    #[must_use]
    pub fn toned(mut self, tone: Tone) -> Self {
        self.tone = tone;
        self
    }

    fn for_programs(&self) -> &str {
        self.plain.as_deref().unwrap_or(&self.shown)
    }
}

impl From<&str> for Cell {
    fn from(text: &str) -> Self {
        Self::text(text)
    }
}

impl From<String> for Cell {
    fn from(text: String) -> Self {
        Self::text(text)
    }
}

/// In which form a list is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ListForm {
    /// A table and what is said below it.
    Table,
    /// `{"items": […], "total": n}`.
    Json,
    /// Comma-separated values (RFC 4180), the first line the headings.
    Csv,
    /// The first column alone, each name once.
    Names,
}

/// A list of things of one kind: one row and one JSON object each.
///
/// ```
/// use galerna_terminal::{Cell, List, ListForm};
///
/// let mut list = List::new(&["queue", "#ready"]);
/// list.row(serde_json::json!({"queue": "A", "ready": 1200}), [Cell::text("A"), Cell::number(1200)]);
/// assert_eq!(list.csv(), "queue,ready\nA,1200\n");
/// assert_eq!(list.json()["total"], 1);
/// ```
pub struct List {
    headings: Vec<String>,
    items: Vec<Value>,
    rows: Vec<Vec<Cell>>,
    total: Option<u64>,
    below: Vec<String>,
}

impl List {
    /// A list with these headings; the first column names the thing. A heading that begins with `#` is of numbers, to the right, one
    /// with `#~` of time spans, which programs have in milliseconds, as the heading tells them.
    pub fn new(headings: &[&str]) -> Self {
        Self {
            headings: headings.iter().map(|h| (*h).to_owned()).collect(),
            items: Vec::new(),
            rows: Vec::new(),
            total: None,
            below: Vec::new(),
        }
    }

    /// Adds a thing: as JSON, and as cells.
    pub fn row<C: Into<Cell>>(&mut self, item: Value, cells: impl IntoIterator<Item = C>) {
        self.items.push(item);
        self.rows.push(cells.into_iter().map(Into::into).collect());
    }

    /// How many there are in all, when these are a part.
    #[must_use]
    pub fn of(mut self, total: Option<u64>) -> Self {
        self.total = total;
        self
    }

    /// Says this below the table.
    #[must_use]
    pub fn saying(mut self, line: impl Into<String>) -> Self {
        self.below.push(line.into());
        self
    }

    /// `{"items": […], "total": n}`: `total` is how many there are in all, where that is known, else how many these are.
    pub fn json(&self) -> Value {
        json!({ "items": self.items, "total": self.total.unwrap_or(self.items.len() as u64) })
    }

    /// Comma-separated values, the headings first.
    pub fn csv(&self) -> String {
        let mut text = String::new();
        let mut line = |cells: &mut dyn Iterator<Item = &str>| {
            let cells: Vec<String> = cells.map(csv_field).collect();
            text.push_str(&cells.join(","));
            text.push('\n');
        };
        let headings: Vec<String> = self
            .headings
            .iter()
            .map(|h| match h.strip_prefix("#~") {
                Some(span) => format!("{span} (ms)"),
                None => h.trim_start_matches('#').to_owned(),
            })
            .collect();
        line(&mut headings.iter().map(String::as_str));
        for row in &self.rows {
            line(&mut row.iter().map(Cell::for_programs));
        }
        text
    }

    fn table(&self) -> Table {
        let headings: Vec<&str> = self.headings.iter().map(String::as_str).collect();
        let mut shown = table(&headings);
        for row in &self.rows {
            shown.add_row(row.iter().map(|cell| marked(&cell.shown, cell.tone)));
        }
        shown
    }

    /// Prints it.
    ///
    /// # Errors
    /// When standard output cannot be written; one that nobody reads any more is none.
    pub fn print(&self, form: ListForm) -> anyhow::Result<()> {
        match form {
            ListForm::Table => {
                print(painted(&self.table().to_string()))?;
                self.below.iter().try_for_each(print)
            }
            ListForm::Json => print_json(&self.json()),
            ListForm::Csv => print(self.csv().trim_end_matches('\n')),
            ListForm::Names => {
                let mut seen = BTreeSet::new();
                let names = self.rows.iter().filter_map(|row| row.first()).map(Cell::for_programs);
                names.filter(|name| seen.insert(*name)).try_for_each(print)
            }
        }
    }
}

fn csv_field(text: &str) -> String {
    if text.contains([',', '"', '\n', '\r']) || text.starts_with(' ') || text.ends_with(' ') {
        format!("\"{}\"", text.replace('"', "\"\""))
    } else {
        text.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list() -> List {
        let mut list = List::new(&["name", "#~age", "state"]);
        let state = Cell::text("paused").toned(Tone::Warn);
        list.row(json!({"name": "a"}), [Cell::text("a,\"b\"\u{1b}[31m"), Cell::number(1_234), state]);
        list.row(json!({"name": "c"}), [Cell::text("c"), Cell::milliseconds(3_723_000), Cell::text("x\ny")]);
        list.of(Some(7)).saying("2 of 7")
    }

    #[test]
    fn a_list_is_the_same_in_every_form() {
        let list = list();
        assert_eq!(list.csv(), "name,age (ms),state\n\"a,\"\"b\"\" [31m\",1234,paused\nc,3723000,x y\n");
        assert_eq!(list.json(), json!({"items": [{"name": "a"}, {"name": "c"}], "total": 7}));
        let table = unmarked(&list.table().to_string());
        assert!(table.contains("1,234") && table.contains("1h2m") && table.contains("paused"), "{table}");
        assert!(!table.contains('\u{1b}'), "{table}");
    }

    #[test]
    fn colours_change_no_width() {
        let plain: Vec<usize> =
            unmarked(&list().table().to_string()).lines().map(|line| line.chars().count()).collect();
        assert!(plain.windows(2).all(|two| two[0] == two[1]), "{plain:?}");
    }
}
