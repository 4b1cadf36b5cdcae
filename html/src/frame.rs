//! The frame of a page.

use maud::{DOCTYPE, Markup, html};

/// The version of the assets, so that browsers take the new ones with a new program.
const STAMP: &str = env!("CARGO_PKG_VERSION");

/// A whole page: its title, where its live numbers come from, and its body.
pub fn document(title: &str, events: Option<&str>, body: &Markup) -> Markup {
    document_with_assets("/assets", title, events, body)
}

/// The same for whoever serves [`assets`](crate::assets) below another path, so that its pages stand beside others'.
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
