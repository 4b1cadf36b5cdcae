//! Lists of things: a table on a wide screen, and on a narrow one a card for each row, in which every cell says what it is, so
//! that nothing lies out of view.

use maud::{Markup, html};

use crate::query::{Query, sort_link};

/// What a column holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// What the row is about.
    Name,
    Text,
    /// Text that may be long.
    Wrapped,
    Number,
    /// A box to tick.
    Choice,
    /// What can be done with it.
    Actions,
}

impl Kind {
    fn class(self) -> Option<&'static str> {
        match self {
            Self::Name | Self::Text => None,
            Self::Wrapped => Some("wrap"),
            Self::Number => Some("num"),
            Self::Choice => Some("choice"),
            Self::Actions => Some("act"),
        }
    }
}

/// A column.
#[derive(Debug)]
pub struct Column {
    /// Beside the cell in a card.
    label: &'static str,
    head: Markup,
    kind: Kind,
    sorted: Option<&'static str>,
}

impl Column {
    fn new(label: &'static str, kind: Kind) -> Self {
        Self { label, head: html! { (label) }, kind, sorted: None }
    }

    /// What each row is about.
    pub fn name(label: &'static str) -> Self {
        Self::new(label, Kind::Name)
    }

    /// Text.
    pub fn text(label: &'static str) -> Self {
        Self::new(label, Kind::Text)
    }

    /// Text that may be long.
    pub fn wrapped(label: &'static str) -> Self {
        Self::new(label, Kind::Wrapped)
    }

    /// A number.
    pub fn number(label: &'static str) -> Self {
        Self::new(label, Kind::Number)
    }

    /// A box to tick, by the name of its field; that of the head ticks all.
    pub fn choice(name: &str, form: Option<&str>) -> Self {
        let head = html! {
            label { span.sr { "Select all on this page" } input type="checkbox" data-select-all=(name) form=[form]; span.narrow { " all" } }
        };
        Self { head, ..Self::new("", Kind::Choice) }
    }

    /// Buttons and links that do something.
    pub fn actions() -> Self {
        Self { head: html! { span.sr { "Actions" } }, ..Self::new("", Kind::Actions) }
    }

    /// With an explanation after the name.
    pub fn explained(self, more: &str) -> Self {
        Self { head: html! { (self.label) " " small { (more) } }, ..self }
    }

    /// Sorted by with a click; `sort` is what the list is sorted by now, `-key` for the other way round.
    pub fn sortable(self, path: &str, query: &Query<'_>, sort: &str, key: &str) -> Self {
        let (now, head) = sort_link(path, query, sort, key, self.label, self.kind == Kind::Number);
        Self { head, sorted: now, ..self }
    }
}

/// A row: its cells, and the id by which links lead to it.
#[derive(Debug)]
pub struct Row<const N: usize> {
    id: Option<String>,
    cells: [Markup; N],
}

impl<const N: usize> Row<N> {
    /// A row with this id.
    pub fn with_id(id: String, cells: [Markup; N]) -> Self {
        Self { id: Some(id), cells }
    }
}

impl<const N: usize> From<[Markup; N]> for Row<N> {
    fn from(cells: [Markup; N]) -> Self {
        Self { id: None, cells }
    }
}

/// The list.
pub fn list<const N: usize, R: Into<Row<N>>>(
    label: &str,
    columns: &[Column; N],
    rows: impl IntoIterator<Item = R>,
) -> Markup {
    html! {
        div.scroll.list role="group" aria-label=(label) tabindex="0" {
            table {
                thead { tr {
                    @for c in columns { th class=[c.kind.class()] scope="col" aria-sort=[c.sorted] { (c.head) } }
                } }
                tbody {
                    @for row in rows {
                        @let Row { id, cells } = row.into();
                        tr id=[id] {
                            @for (c, cell) in columns.iter().zip(cells) {
                                @if c.kind == Kind::Name { th scope="row" { (cell) } }
                                @else { td class=[c.kind.class()] data-label=[(!c.label.is_empty()).then_some(c.label)] { (cell) } }
                            }
                        }
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cell_says_what_it_is_and_rows_can_be_linked_to() {
        let columns = [Column::name("Queue"), Column::number("Ready"), Column::actions()];
        let row = Row::with_id("q-D1".to_owned(), [html! { "D1" }, html! { "7" }, html! { "Pause" }]);
        let shown = list("Queues", &columns, [row]).into_string();
        assert!(shown.contains(r#"<tr id="q-D1">"#), "{shown}");
        assert!(shown.contains(r#"<th scope="row">D1</th>"#), "{shown}");
        assert!(shown.contains(r#"<td class="num" data-label="Ready">7</td>"#), "{shown}");
        assert!(shown.contains(r#"<td class="act">Pause</td>"#), "{shown}");
    }
}
