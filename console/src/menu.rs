//! The way around: the pages in groups with what there is of each, the quick search, and the banner of a dispatcher that is
//! stopped.

pub(super) use galerna_html::frame::menu_button as button;
use maud::{Markup, html};

use super::access::Visitor;
use super::cells::Cells;
use super::layout::form_start;

/// A page of the menu: path, name, and the cell that counts what it lists.
type Entry = (&'static str, &'static str, Option<&'static str>);

/// The pages by group, in the order of the menu.
const GROUPS: [(&str, &[Entry]); 4] = [
    (
        "Processing",
        &[
            ("/", "Overview", None),
            ("/topology", "Topology", None),
            ("/topologies", "Topologies", None),
            ("/queues", "Queues", Some("o-queues")),
            ("/workers", "Workers", Some("o-topologies")),
            ("/schedules", "Schedules", None),
            ("/trace", "Trace", None),
        ],
    ),
    ("Readings", &[("/sources", "Sources", None), ("/dead-letters", "Dead letters", Some("o-dead"))]),
    (
        "Alerting",
        &[
            ("/alerts", "Alerts", Some("o-firing")),
            ("/rules", "Rules", Some("o-rules")),
            ("/endpoints", "Endpoints", None),
            ("/deliveries", "Deliveries", None),
            ("/silences", "Silences", None),
        ],
    ),
    ("System", &[("/audit", "Audit log", None), ("/about", "About", None)]),
];

/// Paths and names of all pages of the menu.
pub(super) fn pages() -> impl Iterator<Item = (&'static str, &'static str)> {
    GROUPS.into_iter().flat_map(|(_, pages)| pages).map(|(path, name, _)| (*path, *name))
}

/// The menu. On narrow screens it is folded away behind [`button`].
pub(super) fn menu(here: &str, cells: &Cells) -> Markup {
    html! {
        nav.pages aria-label="Pages" {
            @for (n, (group, pages)) in GROUPS.into_iter().enumerate() {
                p.group id={ "menu-" (n) } { (group) }
                ul aria-labelledby={ "menu-" (n) } {
                    @for (path, name, counted) in pages {
                        li { a href=(path) aria-current=[(*path == here).then_some("page")] {
                            (name) @if let Some(cell) = counted { " " (cells.show(cell)) }
                        } }
                    }
                }
            }
        }
    }
}

/// Finds queues, sources, rules and messages by a part of their names.
pub(super) fn search(text: &str) -> Markup {
    html! {
        form.quick method="get" action="/search" role="search" {
            label { span.sr { "Find a queue, source, rule, endpoint or message" }
                input type="search" name="q" value=(text) placeholder="Find…  ( / )" maxlength="200" data-key="/"; }
        }
    }
}

/// Says on every page that nothing is leased. It is always there, hidden while the dispatcher runs.
pub(super) fn stopped(visitor: &Visitor, here: &str, is_stopped: bool) -> Markup {
    html! {
        section.banner aria-label="Dispatching is stopped" data-when="o-running" data-is="stopped" hidden[!is_stopped] {
            p role="status" { strong { "Dispatching is stopped." } " No queue is leased until it is started; messages wait in their queues." }
            form.inline method="post" action="/dispatcher/start" {
                (form_start(visitor, here))
                button.small type="submit" disabled[!visitor.may_act()] { "Start dispatching" }
            }
        }
    }
}
