//! The lists of the pages.

use galerna_html::cells::Tone;
use galerna_html::format::{self, shortened};
use galerna_html::query::{Query, encoded, nothing, pager};
use galerna_html::table::{Column, list};
use maud::{Markup, html};

use super::{clock, detail, line};
use crate::accounts::AccountView;
use crate::progress::Phase;
use crate::service::ChannelView;
use crate::store::{LogEntry, Notice, Post};
use crate::web::{Found, PostList};

fn tone(phase: &Phase) -> Tone {
    match phase {
        Phase::Streaming | Phase::Polling => Tone::Good,
        Phase::Off => Tone::Plain,
        Phase::Connecting | Phase::CatchingUp | Phase::Limited { .. } | Phase::Retrying { .. } => Tone::Warn,
        Phase::Revoked | Phase::Failed { .. } => Tone::Bad,
    }
}

fn words(name: &str) -> String {
    name.replace('_', " ")
}

fn pill(text: &str, tone: Tone) -> Markup {
    html! { span.pill data-tone=(tone.as_str()) { (text) } }
}

fn time(at: galerna_model::Timestamp) -> Markup {
    html! { time datetime=(at.to_string()) { (clock(at)) } }
}

fn tiles(facts: &[(&str, String)]) -> Markup {
    html! {
        dl.facts {
            @for (name, value) in facts { div { dt { (name) } dd { b.num { (value) } } } }
        }
    }
}

/// Starts a channel, or stops it; one that has ended is started again.
pub(super) fn switches(view: &ChannelView) -> Markup {
    let action = |name: &str| format!("/channels/one/{}/{name}", encoded(&view.channel.name));
    let again = matches!(view.progress.phase, Phase::Failed { .. });
    html! {
        @if view.on {
            form method="post" action=(action("stop")) { button.small type="submit" { "Stop" } }
        }
        @if !view.on || again {
            form method="post" action=(action("start")) { button.small type="submit" { @if again { "Start again" } @else { "Start" } } }
        }
    }
}

pub(super) fn channels(
    found: &Found,
    shown: &[&ChannelView],
    text: &str,
    phase: &str,
    page: usize,
    limit: usize,
) -> Markup {
    let query = Query(vec![("text", text.to_owned()), ("phase", phase.to_owned())]);
    let columns = [
        Column::name("Channel"),
        Column::text("Follows"),
        Column::text("State"),
        Column::number("A minute"),
        Column::number("Passed"),
        Column::number("Blocked"),
        Column::number("Again"),
        Column::number("Cuts"),
        Column::text("Last"),
        Column::actions(),
    ];
    let rows = shown.iter().map(|view| {
        let progress = &view.progress;
        [
            html! { a href={ "/channels/one/" (encoded(&view.channel.name)) } { (view.channel.name) } },
            html! { (view.channel.source.to_string()) },
            html! { (pill(&words(progress.phase.name()), tone(&progress.phase))) " " small.dim { (shortened(&detail(&progress.phase), 120)) } },
            html! { (format::count(progress.per_minute)) },
            html! { (format::count(progress.passed)) },
            html! { (format::count(progress.blocked)) },
            html! { (format::count(progress.duplicates)) },
            html! { (format::count(progress.cuts)) },
            html! { @if let Some(at) = progress.last_at { (time(at)) } @else { span.dim { "–" } } },
            switches(view),
        ]
    });
    html! {
        (tiles(&[
            ("channels", format::count(found.total as u64)),
            ("received a minute", format::count(found.received_per_minute)),
            ("posted a minute", format::count(found.posted_per_minute)),
        ]))
        p.chips {
            a.chip href=(query.with("phase", "").link("/channels")) aria-current=[phase.is_empty().then_some("true")] {
                "all " b { (format::count(found.phases.values().sum::<usize>() as u64)) } }
            @for (name, count) in &found.phases {
                a.chip href=(query.with("phase", *name).link("/channels")) aria-current=[(phase == *name).then_some("true")] {
                    (words(name)) " " b { (format::count(*count as u64)) } }
            }
        }
        form.search role="search" {
            label for="text" { "Name or source" }
            input #text type="search" name="text" value=(text);
            @if !phase.is_empty() { input type="hidden" name="phase" value=(phase); }
            button type="submit" { "Find" }
        }
        @if shown.is_empty() { (nothing("There is no such channel.")) } @else { (list("Channels", &columns, rows)) }
        @if found.matching.len() > limit { (pager("/channels", &query, page, limit, found.matching.len())) }
    }
}

pub(super) fn progress(view: &ChannelView) -> Markup {
    let progress = &view.progress;
    html! {
        p { (pill(&words(progress.phase.name()), tone(&progress.phase))) " since " (time(progress.since)) " " (detail(&progress.phase)) }
        (tiles(&[
            ("follows", view.channel.source.to_string()),
            ("new in the last minute", format::count(progress.per_minute)),
            ("passed", format::count(progress.passed)),
            ("blocked", format::count(progress.blocked)),
            ("came again", format::count(progress.duplicates)),
            ("streams cut", format::count(progress.cuts)),
            ("failures", format::count(progress.failures)),
        ]))
    }
}

pub(super) fn search(channel: &str, outcome: &str, text: &str) -> Markup {
    let outcomes = [
        ("", "all"),
        ("passed", "passed"),
        ("sent", "sent"),
        ("open", "to be sent"),
        ("refused", "refused"),
        ("blocked", "blocked"),
        ("word", "blocked: a word"),
        ("no_word", "blocked: no wanted word"),
        ("user", "blocked: a user"),
        ("no_user", "blocked: no wanted user"),
        ("reply", "blocked: an answer"),
        ("own", "blocked: its own"),
        ("not_public", "blocked: not public"),
    ];
    html! {
        form.search role="search" {
            label for="channel" { "Channel" }
            input #channel name="channel" value=(channel);
            label for="outcome" { "Outcome" }
            select #outcome name="outcome" {
                @for (value, name) in outcomes { option value=(value) selected[value == outcome] { (name) } }
            }
            label for="text" { "Words" }
            input #text type="search" name="text" value=(text);
            button type="submit" { "Find" }
        }
    }
}

fn outcome(entry: &LogEntry) -> Markup {
    match (&entry.reason, entry.state.as_deref()) {
        (Some(reason), _) => html! {
            (pill("blocked", Tone::Warn)) " " (words(reason)) @if !entry.by.is_empty() { " " code { (entry.by) } }
        },
        (None, Some("sent")) => pill("sent", Tone::Good),
        (None, Some("open")) => pill("to be sent", Tone::Plain),
        (None, Some(other)) => pill(other, Tone::Bad),
        (None, None) => pill("passed", Tone::Good),
    }
}

pub(super) fn log(entries: &[LogEntry], with_channel: bool) -> Markup {
    let columns = [
        Column::name("Recorded"),
        Column::text("Channel"),
        Column::text("Author"),
        Column::wrapped("Text"),
        Column::text("Outcome"),
        Column::text("Original"),
    ];
    let rows = entries.iter().map(|entry| {
        let is_link = entry.link.starts_with("https://") || entry.link.starts_with("http://");
        [
            time(entry.at),
            html! { @if with_channel { a href={ "/channels/one/" (encoded(&entry.channel)) } { (entry.channel) } } @else { (entry.channel) } },
            html! { (entry.author) },
            html! { (shortened(&entry.text, 200)) },
            outcome(entry),
            html! { @if is_link { a href=(entry.link) rel="noreferrer" { "open" } } },
        ]
    });
    html! { @if entries.is_empty() { (nothing("Nothing is logged.")) } @else { (list("Log", &columns, rows)) } }
}

pub(super) fn older(entries: &[LogEntry], limit: usize, channel: &str, outcome: &str, text: &str) -> Markup {
    let query = Query(vec![
        ("channel", channel.to_owned()),
        ("outcome", outcome.to_owned()),
        ("text", text.to_owned()),
    ]);
    html! {
        @if let (Some(last), true) = (entries.last(), entries.len() >= limit) {
            p { a.button href=(query.with("before", last.number.to_string()).link("/channels/log")) { "Older" } }
        }
    }
}

fn button(key: &str, what: &str, name: &str) -> Markup {
    html! {
        form method="post" action="/channels/posts" {
            input type="hidden" name="key" value=(key);
            button.small type="submit" name="what" value=(what) { (name) }
        }
    }
}

fn written(post: &Post) -> Markup {
    match &post.draft {
        crate::channel::Draft::Status(text) => html! { (shortened(&text.text, 160)) },
        crate::channel::Draft::Boost { id, .. } => html! { span.dim { "boost of " (id) } },
    }
}

pub(super) fn posts(all: &PostList) -> Markup {
    let refused = [
        Column::name("Post"),
        Column::text("Account"),
        Column::wrapped("Text"),
        Column::wrapped("Why"),
        Column::actions(),
    ];
    let refused_rows = all.refused.iter().map(|post| {
        [
            html! { (post.key) },
            html! { (post.account) },
            written(post),
            html! { (post.reason.as_deref().unwrap_or_default()) },
            html! { (button(&post.key, "retry", "Try again")) (button(&post.key, "drop", "Give up")) },
        ]
    });
    let parked = [
        Column::name("Post"),
        Column::text("Account"),
        Column::wrapped("Why"),
        Column::number("Behind it"),
        Column::actions(),
    ];
    let parked_rows = all.parked.iter().map(|post| {
        [
            html! { (post.key) },
            html! { (post.account.as_deref().unwrap_or_default()) },
            html! { (post.reason) },
            html! { (format::count(post.waiting_behind)) },
            html! { (button(&post.key, "resume", "Go on")) (button(&post.key, "drop", "Give up")) },
        ]
    });
    let latest =
        [Column::name("Post"), Column::text("Account"), Column::wrapped("Text"), Column::text("State")];
    let latest_rows = all.latest.iter().map(|post| {
        let state = line(&post.state);
        [html! { (post.key) }, html! { (post.account) }, written(post), html! { (state.trim_matches('"')) }]
    });
    html! {
        @if !all.parked.is_empty() { h2 { "Stopped" } (list("Stopped", &parked, parked_rows)) }
        h2 { "Refused" }
        @if all.refused.is_empty() { (nothing("Servers have refused nothing.")) } @else { (list("Refused", &refused, refused_rows)) }
        h2 { "Latest" }
        @if all.latest.is_empty() { (nothing("Nothing was posted.")) } @else { (list("Latest", &latest, latest_rows)) }
    }
}

pub(super) fn accounts(all: &[AccountView]) -> Markup {
    let columns = [
        Column::name("Account"),
        Column::text("Server"),
        Column::text("State"),
        Column::number("A minute"),
        Column::number("Sent"),
        Column::number("Refused"),
        Column::number("Repeated"),
        Column::wrapped("Last error"),
    ];
    let rows = all.iter().map(|account| {
        let tone = match account.state {
            "ok" => Tone::Good,
            "limited" => Tone::Warn,
            _ => Tone::Bad,
        };
        [
            html! { (account.name) },
            html! { (account.server) },
            html! { (pill(account.state, tone)) @if let Some(until) = account.limited_until { " until " (time(until)) } },
            html! { (format::count(account.per_minute)) },
            html! { (format::count(account.sent)) },
            html! { (format::count(account.refused)) },
            html! { (format::count(account.failures)) },
            html! { @match &account.last_error { Some(error) => (shortened(error, 200)), None => span.dim { "–" } } },
        ]
    });
    html! { @if all.is_empty() { (nothing("There are no accounts.")) } @else { (list("Accounts", &columns, rows)) } }
}

pub(super) fn notices(all: &[Notice]) -> Markup {
    let columns = [Column::name("When"), Column::text("About"), Column::wrapped("What"), Column::text("")];
    let rows = all.iter().map(|notice| {
        [
            time(notice.at),
            html! { (notice.about) },
            html! { (notice.text) },
            html! { @if !notice.read { (pill("new", Tone::Warn)) } },
        ]
    });
    html! { @if all.is_empty() { (nothing("Nothing to tell.")) } @else { (list("Notices", &columns, rows)) } }
}
