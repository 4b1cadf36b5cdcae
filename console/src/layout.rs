//! What all pages share: the frame, notices, tables' heads, pagers, buttons.

use std::sync::Arc;

use galerna_html::frame::document;
pub(super) use galerna_html::query::{Query, encoded, nothing, open_pager, pager, scrolling};
use galerna_model::Timestamp;
use maud::{Markup, html};

use super::access::Visitor;
use super::observer::Snapshot;
use super::problem::Problem;
use super::{cells, format, menu};

/// What just happened.
pub(super) struct Flash {
    /// Whether it was done.
    pub(super) well: bool,
    pub(super) text: String,
    /// Shown this once.
    pub(super) secret: Option<String>,
}

/// What a page says of itself.
pub(super) struct Frame<'a> {
    pub(super) visitor: &'a Visitor,
    /// Path of the page in the navigation.
    pub(super) here: &'a str,
    pub(super) title: &'a str,
    /// What just happened, for whoever did it.
    pub(super) flash: Option<Flash>,
    /// What does not answer.
    pub(super) notices: Vec<String>,
    /// The queue whose numbers the page shows live.
    pub(super) queue: Option<&'a str>,
    /// What the menu counts, unless it is not known in time.
    pub(super) look: Option<Arc<Snapshot>>,
    /// What the quick search was asked for.
    pub(super) searched: &'a str,
}

impl Frame<'_> {
    fn is_stopped(&self) -> bool {
        let dispatcher = self.look.as_deref().and_then(|look| look.dispatcher.as_ref().ok());
        dispatcher.is_some_and(|status| !status.dispatcher.running)
    }

    /// The whole page.
    pub(super) fn page(&self, content: &Markup) -> Markup {
        let visitor = self.visitor;
        let events = match self.queue {
            Some(queue) => format!("/events?queue={}", encoded(queue)),
            None => "/events".to_owned(),
        };
        let cells = self.look.as_deref().map(cells::of_snapshot).unwrap_or_default();
        let body = html! {
            a.skip href="#content" { "Skip to the content" }
            header.top {
                a.brand href="/" { (icon()) span { "Galerna" } }
                (menu::button())
                (menu::search(self.searched))
                p.link-state #connection role="status" aria-live="polite" data-state="off" { "no live updates" }
                div.who {
                    @if visitor.is_open() {
                        span title="No tokens are configured, so everybody on this machine is an operator." { "operator, no login" }
                    } @else {
                        span { (visitor.role.as_str()) @if !visitor.name.is_empty() { " · " (visitor.name) } }
                    }
                    @if visitor.has_session() {
                        form method="post" action="/logout" {
                            input type="hidden" name="csrf" value=(visitor.csrf);
                            button.quiet type="submit" { "Log out" }
                        }
                    }
                }
            }
            (menu::stopped(visitor, self.here, self.is_stopped()))
            (menu::menu(self.here, &cells))
            main #content tabindex="-1" {
                @if visitor.is_open() && self.here == "/" {
                    p.hint.open { "No login: no token is configured, so whoever reaches this address on this machine may act." }
                }
                @if let Some(Flash { well, text, secret }) = &self.flash {
                    div.notice data-tone=(if *well { "good" } else { "bad" }) role="status" {
                        strong { (if *well { "Done" } else { "Not done" }) } " " (text)
                        @if let Some(secret) = secret { p { code { (secret) } } }
                    }
                }
                @for text in &self.notices {
                    div.notice data-tone="bad" role="alert" { strong { "No answer" } " " (text) }
                }
                (content)
            }
        };
        document(self.title, Some(&events), &body)
    }
}

fn icon() -> Markup {
    galerna_html::assets::mark()
}

/// The login form.
pub(super) fn login(next: &str, wrong: Option<&str>) -> Markup {
    let body = html! {
        main.login #content {
            h1 { (icon()) " Galerna" }
            @if let Some(wrong) = wrong {
                div.notice data-tone="bad" role="alert" { strong { "Not logged in" } " " (wrong) }
            }
            form.stack method="post" action="/login" {
                input type="hidden" name="next" value=(next);
                label { "Token" input type="password" name="token" required autofocus autocomplete="current-password"; }
                label { "Your name " small { "optional; stands in the audit log" } input type="text" name="name" maxlength="60" autocomplete="name"; }
                button.primary type="submit" { "Log in" }
            }
            p.hint { "The viewer token may look; the operator token may act too." }
        }
    };
    document("Log in", None, &body)
}

/// A page that says what was wrong.
pub(super) fn problem(problem: &Problem) -> Markup {
    let status = problem.status();
    let title = match problem {
        Problem::Unknown(_) => "There is no such thing",
        Problem::Unavailable(_) => "A module does not answer",
        Problem::Forbidden(_) | Problem::Unauthorized(_) | Problem::TooMany => "Not allowed",
        Problem::Invalid(_) | Problem::Conflict(_) | Problem::Body(..) => "That cannot be done",
    };
    let body = html! {
        main.login #content {
            h1 { (icon()) " " (title) }
            div.notice data-tone="bad" role="alert" { strong { (status.as_u16()) } " " (problem) }
            p { a href="/" { "Overview" } @if status.as_u16() == 401 || status.as_u16() == 403 { " · " a href="/login" { "Log in" } } }
        }
    };
    document(title, None, &body)
}

/// A time with how long ago it is.
pub(super) fn when(at: Timestamp, now: Timestamp) -> Markup {
    html! { time datetime=(at.to_string()) title={ (format::time(at)) " UTC" } { (format::ago(at, now)) } }
}

/// A time written as RFC 3339.
pub(super) fn when_text(at: Option<&str>, now: Timestamp) -> Markup {
    match at.and_then(|t| Timestamp::parse(t).ok()) {
        Some(at) => when(at, now),
        None => html! { span.dim { "never" } },
    }
}

/// A form of one button that does something. Viewers get it disabled, with the reason.
pub(super) fn button(
    visitor: &Visitor,
    action: &str,
    fields: &[(&str, &str)],
    name: &str,
    class: &str,
    back: &str,
) -> Markup {
    html! {
        form.inline method="post" action=(action) {
            input type="hidden" name="csrf" value=(visitor.csrf);
            input type="hidden" name="back" value=(back);
            @for (key, value) in fields { input type="hidden" name=(key) value=(value); }
            button.(class) type="submit" disabled[!visitor.may_act()] title=[(!visitor.may_act()).then_some("viewers may not act")] { (name) }
        }
    }
}

/// A [`button`] for one of [`super::act`]'s actions that are done at once: it leads to a page that takes a reason.
pub(super) fn asking_button(
    visitor: &Visitor,
    action: &str,
    fields: &[(&str, &str)],
    name: &str,
    class: &str,
    back: &str,
) -> Markup {
    let fields = [fields, &[("ask", name)]].concat();
    button(visitor, action, &fields, name, class, back)
}

/// What every form of an action begins with.
pub(super) fn form_start(visitor: &Visitor, back: &str) -> Markup {
    html! {
        input type="hidden" name="csrf" value=(visitor.csrf);
        input type="hidden" name="back" value=(back);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_wrote_is_text_on_the_page() {
        let shown = problem(&Problem::Invalid("<script>alert(1)</script>".to_owned())).into_string();
        assert!(shown.contains("&lt;script&gt;") && !shown.contains("<script>alert"), "{shown}");
    }
}
