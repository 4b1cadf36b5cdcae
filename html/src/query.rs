//! Queries, the links made from them, and what lists have in common.

use maud::{Markup, html};

use crate::format;

/// Text for a query or a path: everything but letters, digits and `-._*` escaped.
pub fn encoded(text: &str) -> String {
    form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>().replace('+', "%20")
}

/// A wide table that scrolls within itself on narrow screens.
pub fn scrolling(label: &str, table: &Markup) -> Markup {
    html! { div.scroll role="group" aria-label=(label) tabindex="0" { (table) } }
}

/// A query, as links are made from it.
#[derive(Debug, Clone, Default)]
pub struct Query<'a>(pub Vec<(&'a str, String)>);

impl<'a> Query<'a> {
    /// The same with another value for a key; an empty value leaves it out.
    pub fn with(&self, key: &'a str, value: impl Into<String>) -> Self {
        let mut all: Vec<_> = self.0.iter().filter(|(k, _)| *k != key).cloned().collect();
        all.push((key, value.into()));
        Self(all)
    }

    /// `path?key=value&…`
    pub fn link(&self, path: &str) -> String {
        let pairs: Vec<String> = self
            .0
            .iter()
            .filter(|(_, value)| !value.is_empty())
            .map(|(key, value)| format!("{key}={}", encoded(value)))
            .collect();
        if pairs.is_empty() { path.to_owned() } else { format!("{path}?{}", pairs.join("&")) }
    }

    /// Hidden fields that keep these values in a form that does not itself have them.
    pub fn hidden(&self, except: &[&str]) -> Markup {
        html! {
            @for (key, value) in self.0.iter().filter(|(k, v)| !v.is_empty() && !except.contains(k)) {
                input type="hidden" name=(key) value=(value);
            }
        }
    }
}

/// Which page of how many.
pub fn pager(path: &str, query: &Query<'_>, page: usize, limit: usize, total: usize) -> Markup {
    let last = total.div_ceil(limit.max(1)).max(1);
    let first_row = if total == 0 { 0 } else { (page - 1) * limit + 1 };
    html! {
        nav.pager aria-label="Pages of the list" {
            span { (format::count(first_row as u64)) "–" (format::count((page * limit).min(total) as u64)) " of " b { (format::count(total as u64)) } }
            (step_link(path, query, "First", 1, page > 1))
            (step_link(path, query, "Previous", page.saturating_sub(1), page > 1))
            span { "page " (page) " of " (last) }
            (step_link(path, query, "Next", page + 1, page < last))
            (step_link(path, query, "Last", last, page < last))
        }
    }
}

fn step_link(path: &str, query: &Query<'_>, name: &str, page: usize, works: bool) -> Markup {
    html! {
        @if works { a.button href=(query.with("page", page.to_string()).link(path)) { (name) } }
        @else { span.button.off aria-disabled="true" { (name) } }
    }
}

/// A pager of a list whose length is not counted.
pub fn open_pager(path: &str, query: &Query<'_>, page: usize, limit: usize, shown: usize) -> Markup {
    html! {
        nav.pager aria-label="Pages of the list" {
            (step_link(path, query, "Newer", page.saturating_sub(1), page > 1))
            span { "page " (page) }
            (step_link(path, query, "Older", page + 1, shown >= limit))
        }
    }
}

/// How a list is sorted by a column now, and the link that sorts by it.
pub fn sort_link(
    path: &str,
    query: &Query<'_>,
    sort: &str,
    key: &str,
    name: &str,
    numeric: bool,
) -> (Option<&'static str>, Markup) {
    let (now, next) = match sort {
        s if s == key => (Some("ascending"), format!("-{key}")),
        s if s.strip_prefix('-') == Some(key) => (Some("descending"), key.to_owned()),
        _ => (None, if numeric { format!("-{key}") } else { key.to_owned() }),
    };
    let arrow = match now {
        Some("ascending") => " ↑",
        Some(_) => " ↓",
        None => "",
    };
    (now, html! { a href=(query.with("sort", next).with("page", "").link(path)) { (name) (arrow) } })
}

/// What to say where a list has nothing.
pub fn nothing(text: &str) -> Markup {
    html! { p.empty { (text) } }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_keep_what_they_do_not_change_and_escape_what_they_hold() {
        let query = Query(vec![
            ("search", "a&b=\"<c>".to_owned()),
            ("state", String::new()),
            ("page", "3".to_owned()),
        ]);
        assert_eq!(query.with("page", "4").link("/queues"), "/queues?search=a%26b%3D%22%3Cc%3E&page=4");
        assert_eq!(Query::default().link("/queues"), "/queues");
        assert_eq!(encoded("BC:6A/+ ñ"), "BC%3A6A%2F%2B%20%C3%B1");
    }
}
