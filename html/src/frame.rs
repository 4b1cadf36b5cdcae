//! The frame of a page.

use maud::{DOCTYPE, Markup, html};

use crate::{assets, format};

/// The version of the assets, so that browsers take the new ones with a new program.
const STAMP: &str = env!("CARGO_PKG_VERSION");

/// A whole page: its title, where its live numbers come from, and its body.
pub fn document(title: &str, events: Option<&str>, body: &Markup) -> Markup {
    document_with_assets("/assets", title, events, body)
}

/// The same for whoever serves [`assets`] below another path, so that its pages stand beside others'.
pub fn document_with_assets(assets: &str, title: &str, events: Option<&str>, body: &Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (title) " · Galerna" }
                link rel="icon" type="image/svg+xml" href={ (assets) "/icon.svg?" (STAMP) };
                link rel="stylesheet" href={ (assets) "/page.css?" (STAMP) };
                script defer src={ (assets) "/page.js?" (STAMP) } {}
            }
            body data-events=[events] { (body) }
        }
    }
}

/// Opens the menu on narrow screens, without script.
pub fn menu_button() -> Markup {
    html! {
        input.sr #menu-open type="checkbox";
        label.button.small.menu-button for="menu-open" { "Menu" }
    }
}

/// The pages of a program, for pages of several crates that stand beside each other in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Menu {
    program: String,
    entries: Vec<Entry>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    name: String,
    path: String,
    count: u64,
}

impl Menu {
    /// A menu of the program of this name.
    pub fn new(program: impl Into<String>) -> Self {
        Self { program: program.into(), entries: Vec::new() }
    }

    /// With another page; the first is what the program's name leads to.
    #[must_use]
    pub fn entry(mut self, name: impl Into<String>, path: impl Into<String>) -> Self {
        self.entries.push(Entry { name: name.into(), path: path.into(), count: 0 });
        self
    }

    /// With the number of things that wait to be looked at on a page, if there are any.
    #[must_use]
    pub fn counted(mut self, path: &str, count: u64) -> Self {
        for entry in self.entries.iter_mut().filter(|entry| entry.path == path) {
            entry.count = count;
        }
        self
    }

    /// The path of the first page.
    pub fn home(&self) -> &str {
        self.entries.first().map_or("/", |entry| entry.path.as_str())
    }

    /// The body of a page: its menu, in which `here` is where it is, and its content.
    pub fn body(&self, here: &str, content: &Markup) -> Markup {
        html! {
            a.skip href="#content" { "Skip to the content" }
            header.top {
                a.brand href=(self.home()) { (assets::mark()) span { (self.program) } }
                (menu_button())
            }
            nav.pages aria-label="Pages" {
                ul {
                    @for entry in &self.entries {
                        li { a href=(entry.path) aria-current=[(entry.path == here).then_some("page")] {
                            (entry.name)
                            @if entry.count > 0 { " " span.live data-tone="warn" { (format::count(entry.count)) } }
                        } }
                    }
                }
            }
            main #content tabindex="-1" { (content) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_menu_leads_to_all_pages_and_says_where_it_is() {
        let menu = Menu::new("Shop").entry("Orders", "/orders").entry("Stock", "/stock").counted("/stock", 3);
        let body = menu.body("/stock", &html! { p { "7 < 8" } }).into_string();
        assert!(body.contains(r#"<a class="brand" href="/orders">"#), "{body}");
        assert!(body.contains(r#"<a href="/orders">Orders</a>"#), "{body}");
        assert!(body.contains(
            r#"<a href="/stock" aria-current="page">Stock <span class="live" data-tone="warn">3</span></a>"#
        ));
        assert!(body.contains(r#"<main id="content" tabindex="-1"><p>7 &lt; 8</p></main>"#), "{body}");
    }
}
