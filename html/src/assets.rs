//! The style sheet, the script and the icons of pages.

use maud::{Markup, PreEscaped};

/// A file that pages refer to as `/assets/<name>`: its content type and its text.
pub fn file(name: &str) -> Option<(&'static str, &'static str)> {
    match name {
        "page.css" => Some(("text/css; charset=utf-8", include_str!("assets/page.css"))),
        "page.js" => Some(("text/javascript; charset=utf-8", include_str!("assets/page.js"))),
        "icon.svg" => Some(("image/svg+xml", include_str!("assets/icon.svg"))),
        _ => None,
    }
}

/// The mark beside the name.
pub fn mark() -> Markup {
    PreEscaped(include_str!("assets/mark.svg").to_owned())
}
