//! What the pages hold, for whichever frame is around it. Forms post to the paths of [`super`].

use galerna_html::query::{encoded, nothing};
use maud::{Markup, html};

use super::Fields;
use crate::calendar::tzdata_version;
use crate::{BadSchedule, DstGap, DstOverlap, Ended, Missed, Occurrence, Outcome, Overlap, ScheduleView};

/// What forms carry, and whether whoever looks may send them.
#[derive(Debug, Clone)]
pub struct Forms {
    /// Fields of every form, such as a token against forged ones.
    pub hidden: Markup,
    /// Else the buttons are off.
    pub may_act: bool,
}

/// The path of a schedule's page.
pub fn path_of(id: &str) -> String {
    format!("/schedules/show?id={}", encoded(id))
}

fn local(occurrence: &Occurrence) -> Markup {
    // On a narrow screen the zone goes to a line of its own.
    let (time, zone) =
        occurrence.local.split_at(occurrence.local.find('[').unwrap_or(occurrence.local.len()));
    html! { time datetime=(occurrence.at) title=(occurrence.at) { (time) wbr; (zone) } }
}

fn zones() -> Markup {
    html! { p.hint { "Time zones by the rules of " code { (tzdata_version()) } ", which the program carries." } }
}

/// The list of schedules; `next` is where the list goes on.
pub fn list(schedules: &[ScheduleView], next: Option<&str>, forms: &Forms) -> Markup {
    html! {
        div.title {
            h1 { "Schedules" }
            a.button.primary href="/schedules/edit" { "Add a schedule" }
        }
        section #rows data-refresh="5" {
            @if schedules.is_empty() { (nothing("There is no schedule.")) }
            @else {
                div.scroll.list role="group" aria-label="Schedules" tabindex="0" { table {
                    thead { tr {
                        th scope="col" { "Schedule" } th scope="col" { "Occurs" } th scope="col" { "State" } th scope="col" { "Next" }
                        th.num scope="col" { "Done" } th.num scope="col" { "Failed" } th.num scope="col" { "Skipped" } th.num scope="col" { "Missed" }
                        th.act scope="col" { span.sr { "Actions" } }
                    } }
                    tbody { @for schedule in schedules { (row(schedule, forms)) } }
                } }
                @if let Some(next) = next {
                    nav.pager aria-label="Pages of the list" { a.button href={ "/schedules?after=" (encoded(next)) } { "Next" } }
                }
            }
        }
        (zones())
    }
}

fn row(schedule: &ScheduleView, forms: &Forms) -> Markup {
    let count = |outcome: &str, tone: &str| {
        let count = schedule.count(outcome);
        html! { @if count > 0 && !tone.is_empty() { b.num data-tone=(tone) { (count) } } @else { (count) } }
    };
    html! {
        tr {
            th scope="row" { a href=(path_of(schedule.id.as_str())) { (schedule.id) } }
            td data-label="Occurs" { code { (schedule.occurs) } }
            td data-label="State" { (state(schedule)) }
            td data-label="Next" { @if let Some(next) = schedule.upcoming.first() { (local(next)) } @else { span.dim { "never again" } } }
            td.num data-label="Done" { (count("done", "")) }
            td.num data-label="Failed" { (count("failed", "bad")) }
            td.num data-label="Skipped" { (count("skipped", "warn")) }
            td.num data-label="Missed" { (count("missed", "warn")) }
            td.act { (buttons(schedule, forms, "/schedules")) }
        }
    }
}

fn state(schedule: &ScheduleView) -> Markup {
    let running = schedule.open.iter().filter(|firing| firing.claim.is_some()).count();
    html! {
        @if schedule.problem.is_some() { span.pill data-tone="bad" { "not understood" } }
        @else if schedule.paused.is_some() { span.pill data-tone="warn" { "paused" } }
        @else { span.pill data-tone="good" { "on" } }
        @if running > 0 { " " span.pill { (running) " running" } }
        @if schedule.open.len() > running { " " span.pill { (schedule.open.len() - running) " waiting" } }
    }
}

fn form(action: &str, id: &str, back: &str, forms: &Forms, content: &Markup) -> Markup {
    html! {
        form.inline method="post" action={ "/schedules/" (action) } {
            (forms.hidden)
            input type="hidden" name="back" value=(back);
            input type="hidden" name="id" value=(id);
            (content)
        }
    }
}

fn button(name: &str, class: &str, forms: &Forms) -> Markup {
    html! { button.(class) type="submit" disabled[!forms.may_act] title=[(!forms.may_act).then_some("viewers may not act")] { (name) } }
}

fn buttons(schedule: &ScheduleView, forms: &Forms, back: &str) -> Markup {
    let id = schedule.id.as_str();
    html! {
        (form("trigger", id, back, forms, &button("Trigger", "small", forms)))
        @if schedule.paused.is_some() { (form("resume", id, back, forms, &button("Resume", "small", forms))) }
        a.button.small href={ "/schedules/edit?id=" (encoded(id)) } { "Edit" }
    }
}

/// One schedule: what it does next, what it did last, and what can be done with it.
pub fn one(schedule: &ScheduleView, forms: &Forms) -> Markup {
    let id = schedule.id.as_str();
    let back = path_of(id);
    html! {
        p.crumbs { a href="/schedules" { "Schedules" } " / " (id) }
        div.title {
            h1 { (id) " " (state(schedule)) }
            p.dim { code { (schedule.occurs) } ", revision " (schedule.revision) }
            div.buttons { (buttons(schedule, forms, &back)) }
        }
        @if let Some(paused) = &schedule.paused {
            div.notice data-tone="warn" { strong { "Paused" } " since " (paused.since) @if !paused.note.is_empty() { ": " (paused.note) } }
        }
        @if let Some(problem) = &schedule.problem {
            div.notice data-tone="bad" { strong { "Not understood" } " by this version: " (problem) ". It does not run; edit it." }
        }
        div.columns #now data-refresh="5" {
            section.card aria-labelledby="upcoming-title" {
                h2 #upcoming-title { "The next ten" }
                (upcoming(&schedule.upcoming))
                @if let Some(left) = schedule.remaining { p.hint { "It fires " (left) " more times." } }
                (zones())
            }
            section.card aria-labelledby="counts-title" {
                h2 #counts-title { "Counted since it was added" }
                @if schedule.counts.is_empty() { p.dim { "Nothing has ended yet." } }
                @else { dl.facts { @for (outcome, count) in &schedule.counts {
                    div { dt { (outcome) } dd.num { (count) } }
                } } }
                @if !schedule.open.is_empty() {
                    h3 { "Open" }
                    ul.lines { @for firing in &schedule.open { li {
                        (firing.nominal) ", attempt " (firing.attempts)
                        @if let Some(claim) = &firing.claim { ", runs at " (claim.holder) } @else { ", waits until " (firing.due) }
                        @if firing.cancelled { ", to stop" }
                        @if let Some(fault) = &firing.fault { ": " (fault) }
                    } } }
                }
            }
        }
        section #last data-refresh="5" aria-labelledby="last-title" {
            h2 #last-title { "The last ten" }
            @if schedule.last.is_empty() { (nothing("Nothing has ended yet.")) } @else { (last(&schedule.last)) }
        }
        section.card aria-labelledby="payload-title" {
            h2 #payload-title { "Payload" }
            pre tabindex="0" { (format!("{:#}", schedule.definition.payload)) }
        }
        (actions(schedule, forms, &back))
    }
}

fn upcoming(occurrences: &[Occurrence]) -> Markup {
    html! {
        @if occurrences.is_empty() { p.dim { "It does not occur any more." } }
        @else { ol.lines { @for occurrence in occurrences { li { (local(occurrence)) } } } }
    }
}

fn tone(outcome: Outcome) -> Option<&'static str> {
    match outcome {
        Outcome::Done => Some("good"),
        Outcome::Failed(_) => Some("bad"),
        Outcome::Skipped(_) | Outcome::Missed(_) => Some("warn"),
        Outcome::Cancelled(_) => None,
    }
}

fn last(ended: &[Ended]) -> Markup {
    html! {
        div.scroll.list role="group" aria-label="The last ten" tabindex="0" { table {
            thead { tr {
                th scope="col" { "Firing" } th scope="col" { "Outcome" } th scope="col" { "Ended" } th.num scope="col" { "Attempts" }
                th.wrap scope="col" { "Fault" }
            } }
            tbody { @for ended in ended { tr {
                th scope="row" { (ended.id) }
                td data-label="Outcome" { span.pill data-tone=[tone(ended.outcome)] { (ended.outcome) } }
                td data-label="Ended" { time datetime=(ended.at) { (ended.at) } }
                td.num data-label="Attempts" { (ended.attempts) }
                td.wrap data-label="Fault" { (ended.fault.as_deref().unwrap_or_default()) }
            } } }
        } }
    }
}

fn overlaps(first: &str) -> Markup {
    html! { label { "Overlap" select name="overlap" {
        option value="" { (first) }
        @for overlap in Overlap::ALL { option value=(overlap) { (overlap) } }
    } } }
}

fn actions(schedule: &ScheduleView, forms: &Forms, back: &str) -> Markup {
    let id = schedule.id.as_str();
    let start = html! { (forms.hidden) input type="hidden" name="back" value=(back); input type="hidden" name="id" value=(id); };
    html! {
        details.card { summary { "Pause" }
            form.grid method="post" action="/schedules/pause" { (start)
                label { "Note " small { "why, for whoever looks" } input type="text" name="note" maxlength="200"; }
                div.buttons { (button("Pause", "", forms)) }
            }
            p.hint { "Its occurrences are recorded as skipped until it is resumed. What is open goes on, and it can be triggered." }
        }
        details.card { summary { "Backfill" }
            form.grid method="post" action="/schedules/backfill" { (start)
                label { "From " small { "with an offset" } input type="text" name="from" required placeholder="2026-03-01T00:00:00+01:00" maxlength="60"; }
                label { "To " small { "without it" } input type="text" name="to" required placeholder="2026-03-08T00:00:00+01:00" maxlength="60"; }
                (overlaps("one after the other"))
                div.buttons { (button("Backfill", "", forms)) }
            }
            p.hint { "Fires the occurrences of that time again, whether they were fired or not." }
        }
        details.card { summary { "Remove" }
            form.grid method="post" action="/schedules/remove" { (forms.hidden) input type="hidden" name="back" value="/schedules"; input type="hidden" name="id" value=(id);
                div.buttons { (button("Remove the schedule", "danger", forms)) }
            }
            p.hint { "What is open is cancelled; what ended stays in the history." }
        }
    }
}

fn choice<T: Copy + std::fmt::Display>(name: &str, label: &str, all: &[T], held: &Fields) -> Markup {
    html! { label { (label) select name=(name) {
        @for one in all {
            @let one = one.to_string();
            option value=(one) selected[held.text(name) == one] { (one) }
        }
    } } }
}

fn input(name: &str, label: &str, hint: &str, held: &Fields) -> Markup {
    html! { label { (label) " " small { (hint) } input type="text" name=(name) value=(held.text(name)) maxlength="400"; } }
}

/// The form of a schedule, with its next ten occurrences; `problem` says why it was not saved.
pub fn edit(
    held: &Fields,
    known: bool,
    problem: Option<&BadSchedule>,
    next: &[Occurrence],
    forms: &Forms,
) -> Markup {
    let kind = |value: &str, name: &str| {
        html! { legend { label.check { input type="radio" name="kind" value=(value) checked[held.text("kind") == value]; " " (name) } } }
    };
    let id = held.text("id");
    let back =
        if known { format!("/schedules/edit?id={}", encoded(id)) } else { "/schedules/edit".to_owned() };
    html! {
        p.crumbs { a href="/schedules" { "Schedules" } " / " (if known { id } else { "new" }) }
        div.title { h1 { (if known { "Edit a schedule" } else { "Add a schedule" }) } }
        @if let Some(problem) = problem { div.notice data-tone="bad" role="alert" { strong { "Not saved" } " " (problem) } }
        section.card aria-labelledby="upcoming-title" {
            h2 #upcoming-title { "The next ten as it stands here" }
            (upcoming(next))
            (zones())
        }
        form.sheet method="post" action="/schedules/save" {
            (forms.hidden)
            input type="hidden" name="back" value=(back);
            input type="hidden" name="next" value=(if known { path_of(id) } else { "/schedules".to_owned() });
            input type="hidden" name="revision" value=(held.text("revision"));
            @if known { input type="hidden" name="known" value="true"; }
            fieldset {
                legend { "Schedule" }
                div.grid {
                    label { "Name" input type="text" name="id" required maxlength="128" pattern="[A-Za-z0-9._\\-\\/]+" value=(id) readonly[known]; }
                }
            }
            fieldset { (kind("cron", "By the clock"))
                div.grid {
                    (input("expression", "Expression", "minute hour day month weekday", held))
                    (input("timezone", "Time zone", "such as Europe/Berlin", held))
                    (choice("dst_gap", "When the clocks jump over it", DstGap::ALL, held))
                    (choice("dst_overlap", "When the clocks show it twice", DstOverlap::ALL, held))
                }
            }
            fieldset { (kind("every", "At intervals"))
                div.grid {
                    (input("interval", "Interval", "such as 10s, 15m, 1h 30m", held))
                    (input("anchor", "Counted from", "1970 unless set", held))
                }
            }
            fieldset { (kind("at", "Once"))
                div.grid { (input("at", "Time", "such as 2026-05-01T12:00:00+02:00", held)) }
            }
            fieldset { legend { "Policy" }
                div.grid {
                    (choice("overlap", "While an earlier one runs", Overlap::ALL, held))
                    (choice("missed", "When nobody looked in time", Missed::ALL, held))
                    (input("catchup_window", "Catch-up window", "later ones are missed", held))
                    (input("jitter", "Jitter", "later by at most", held))
                    (input("attempts", "Attempts", "in all", held))
                    (input("first", "First pause", "between attempts", held))
                    (input("longest", "Longest pause", "between attempts", held))
                    label.check { input type="checkbox" name="pause_on_failure" value="true" checked[held.given("pause_on_failure").is_some()]; " Pause when one fails for good" }
                }
            }
            fieldset { legend { "Bounds" }
                div.grid {
                    (input("start_at", "Not before", "a time with an offset", held))
                    (input("end_at", "Before", "a time with an offset", held))
                    (input("remaining", "Times", "empty: without end", held))
                    (input("exclude", "Not on", "dates, such as 2026-12-25", held))
                }
            }
            fieldset { legend { "Payload" }
                div.grid { label.wide { "JSON " small { "what each firing carries" } textarea name="payload" rows="5" { (held.text("payload")) } } }
            }
            div.row {
                button type="submit" formmethod="get" formaction="/schedules/edit" name="check" value="true" formnovalidate { "Show the next ten" }
                (button("Save", "primary", forms))
                a.button href=(if known { path_of(id) } else { "/schedules".to_owned() }) { "Cancel" }
            }
        }
    }
}
