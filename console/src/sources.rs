//! Sources: what each has sent by hour, day, week and month, and its last messages.

use std::collections::HashMap;

use axum::Extension;
use axum::extract::{Path, State};
use axum::response::Response;
use galerna_model::{Source, SourceId, Timestamp};
use galerna_storage::StoredReading;
use galerna_storage::{LastMessage, Period, Scope, Tally};
use maud::{Markup, html};

use super::access::Visitor;
use super::layout::{Query, pager, scrolling};
use super::observer::within_timeout;
use super::problem::Problem;
use super::table::{Column, list as cards};
use super::{Page, Params, consumption, format, layout, page_number, param, shown, source_actions};

/// Sources on a page.
const LIMIT: usize = 50;
/// Devices of a source that are shown.
const DEVICES: usize = 100;
/// Statistics are read, never written: this is no writer's name.
const READER: &str = "";
const WITHOUT: &str = "What sources send is not counted here: no frontend's statistics are at hand.";

/// The current period, the last and the last but one, of each length.
fn periods(now: Timestamp) -> Vec<(Period, Timestamp)> {
    let three = |period: Period| {
        let current = period.start(now);
        let last = period.before(current);
        [(period, current), (period, last), (period, period.before(last))]
    };
    Period::ALL.into_iter().flat_map(three).collect()
}

/// `GET /sources`
pub(super) async fn list(
    State(page): State<Page>,
    Extension(visitor): Extension<Visitor>,
    axum::extract::Query(params): Params,
) -> Response {
    let mut notices = Vec::new();
    let all = match within_timeout("the store", page.parts.store.sources.list()).await {
        Ok(all) => all,
        Err(e) => {
            notices.push(e);
            Vec::new()
        }
    };
    let search = param(&params, "search");
    let wanted = search.to_lowercase();
    let matches = |s: &&Source| {
        s.id.as_str().to_lowercase().contains(&wanted) || s.account.as_str().to_lowercase().contains(&wanted)
    };
    let matching: Vec<&Source> = all.iter().filter(matches).collect();
    let (total, number) = (matching.len(), page_number(&params));
    let rows: Vec<&Source> = matching.into_iter().skip((number - 1) * LIMIT).take(LIMIT).collect();
    let scopes: Vec<Scope> = rows.iter().map(|s| Scope::Source(s.id.clone())).collect();
    let periods = periods(page.now());
    let tallies = match &page.parts.statistics {
        None => {
            notices.push(WITHOUT.to_owned());
            Vec::new()
        }
        // Nothing is asked of a store that has just not answered.
        Some(_) if rows.is_empty() => Vec::new(),
        Some(statistics) => {
            match within_timeout("the store of statistics", statistics.tallies(&scopes, &periods, READER))
                .await
            {
                Ok((tallies, _)) => tallies,
                Err(e) => {
                    notices.push(e);
                    Vec::new()
                }
            }
        }
    };
    let query = Query(vec![("search", search.to_owned()), ("page", number.to_string())]);
    let readings = |row: usize, at: usize| {
        let tally = tallies.get(row).and_then(|t: &Vec<Tally>| t.get(at));
        tally.map_or("–".to_owned(), |t| format::count(t.readings))
    };
    let content = html! {
        div.title { h1 { "Sources" } p.dim { (format::count(all.len() as u64)) " known; readings of each, in periods of UTC" } }
        (source_actions::adding(&visitor, &page))
        form.search method="get" action="/sources" role="search" {
            label.inline { span.sr { "Source or account contains" } input type="search" name="search" value=(search) placeholder="Source or account" maxlength="200"; }
            button type="submit" { "Search" }
        }
        section #rows data-refresh="10" {
            @if rows.is_empty() { (layout::nothing(if all.is_empty() { "No source is known yet." } else { "No source matches." })) }
            @else {
                (table(&visitor, &page, &rows, &readings, &query.link("/sources")))
                (pager("/sources", &query, number, LIMIT, total))
            }
        }
    };
    page.frame(&visitor, "/sources", "Sources", &params, notices, &content).await
}

fn table(
    visitor: &Visitor,
    page: &Page,
    rows: &[&Source],
    readings: &impl Fn(usize, usize) -> String,
    back: &str,
) -> Markup {
    let columns = [
        Column::name("Source"),
        Column::text("Account"),
        Column::text("State"),
        Column::number("This hour"),
        Column::number("Last hour"),
        Column::number("Hour before"),
        Column::number("Today"),
        Column::number("Yesterday"),
        Column::number("Day before"),
        Column::actions(),
    ];
    let rows = rows.iter().enumerate().map(|(row, source)| {
        let count = |at: usize| html! { (readings(row, at)) };
        [
            html! { a href={ "/sources/" (layout::encoded(source.id.as_str())) } { (source.id) } },
            html! { (source.account) },
            html! { @if source.active { "active" } @else { span.pill data-tone="warn" { "inactive" } } },
            count(0),
            count(1),
            count(2),
            count(3),
            count(4),
            count(5),
            source_actions::buttons(visitor, page, source.id.as_str(), source.active, back),
        ]
    });
    cards("Sources", &columns, rows)
}

/// `GET /sources/<source>`
pub(super) async fn one(
    State(page): State<Page>,
    Extension(visitor): Extension<Visitor>,
    Path(source): Path<String>,
    axum::extract::Query(params): Params,
) -> Response {
    shown(show_one(&page, &visitor, &source, &params).await)
}

async fn show_one(
    page: &Page,
    visitor: &Visitor,
    source: &str,
    params: &HashMap<String, String>,
) -> Result<Response, Problem> {
    let id = SourceId::new(source).map_err(|e| Problem::Invalid(e.to_string()))?;
    let mut notices = Vec::new();
    let mut note = |e: String| {
        if !notices.contains(&e) {
            notices.push(e);
        }
    };
    let now = page.now();
    let counted = async {
        let statistics = page.parts.statistics.as_ref()?;
        let (scopes, periods) = ([Scope::Source(id.clone())], periods(now));
        Some(tokio::join!(
            within_timeout("the store of statistics", statistics.tallies(&scopes, &periods, READER)),
            within_timeout("the store of statistics", statistics.last_messages(&id, READER)),
        ))
    };
    // At once: what is unavailable is waited for once.
    let (known, latest, counted) = tokio::join!(
        within_timeout("the store", page.parts.store.sources.list()),
        within_timeout("the store", page.parts.store.readings.latest(&id)),
        counted,
    );
    let known = match known {
        Ok(all) => all.into_iter().find(|s| s.id == id),
        Err(e) => {
            note(e);
            None
        }
    };
    let mut devices = latest.unwrap_or_else(|e| {
        note(e);
        Vec::new()
    });
    devices.sort_by(|a, b| b.ts.cmp(&a.ts).then_with(|| a.device.cmp(&b.device)));
    let (mut tallies, mut messages) = (None, Vec::new());
    match counted {
        None => note(WITHOUT.to_owned()),
        Some((counted, last)) => {
            match counted {
                Ok((mut found, _)) => tallies = (!found.is_empty()).then(|| found.swap_remove(0)),
                Err(e) => note(e),
            }
            match last {
                Ok((found, _)) => messages = found,
                Err(e) => note(e),
            }
        }
    }
    if known.is_none() && devices.is_empty() && messages.is_empty() && notices.is_empty() {
        return Err(Problem::Unknown(format!("there is no source `{id}`")));
    }
    let used = consumption::section(page, &id, devices.first().map(|latest| latest.ts), params).await;
    let content = html! {
        p.crumbs { a href="/sources" { "Sources" } " / " (id) }
        div.title {
            h1 { (id) }
            @if let Some(source) = &known { p.dim { "account " (source.account) ", " (if source.active { "active" } else { "inactive: its readings are refused" }) }
                div.buttons { (source_actions::buttons(visitor, page, source.id.as_str(), source.active, &format!("/sources/{}", layout::encoded(source.id.as_str())))) } }
        }
        section #traffic data-refresh="5" aria-labelledby="traffic-title" {
            h2 #traffic-title { "Sent" }
            @match &tallies { Some(tallies) => (traffic(tallies)), None => (layout::nothing("Not counted.")) }
        }
        section #messages data-refresh="5" aria-labelledby="messages-title" {
            h2 #messages-title { "Last messages" }
            @if messages.is_empty() { (layout::nothing("None yet.")) } @else { (last_messages(&messages, now)) }
        }
        section aria-labelledby="consumption-title" {
            h2 #consumption-title { "Consumption" }
            (used)
        }
        section aria-labelledby="devices-title" {
            h2 #devices-title { "Devices " small { "latest reading stored of each" } }
            @if devices.is_empty() { (layout::nothing("Nothing of it is stored.")) } @else { (latest_readings(&devices, now)) }
        }
    };
    let title = format!("Source {id}");
    Ok(page.frame(visitor, "/sources", &title, params, notices, &content).await)
}

fn traffic(tallies: &[Tally]) -> Markup {
    let table = html! {
        table.compact {
            thead {
                tr { th scope="col" rowspan="2" { "Period" }
                    th.group scope="colgroup" colspan="3" { "Messages" } th.group scope="colgroup" colspan="3" { "Readings" } th.group scope="colgroup" colspan="3" { "Values" } }
                tr { @for _ in 0..3 { th.num scope="col" { "now" } th.num scope="col" { "last" } th.num scope="col" { "last but one" } } }
            }
            tbody {
                @for (period, three) in Period::ALL.into_iter().zip(tallies.chunks(3)) {
                    tr {
                        th scope="row" { (period.as_str()) }
                        @for t in three { td.num { (format::count(t.messages)) } }
                        @for t in three { td.num { (format::count(t.readings)) } }
                        @for t in three { td.num { (format::count(t.values)) } }
                    }
                }
            }
        }
    };
    scrolling("Messages, readings and values by period", &table)
}

fn last_messages(messages: &[LastMessage], now: Timestamp) -> Markup {
    let columns = [
        Column::text("Received"),
        Column::number("Accepted"),
        Column::number("Rejected"),
        Column::wrapped("Body"),
        Column::actions(),
    ];
    let rows = messages.iter().map(|m| {
        [
            layout::when(m.received, now),
            html! { (format::count(m.readings)) },
            html! { @if m.rejected > 0 { b data-tone="warn" { (format::count(m.rejected)) } } @else { "0" } },
            html! { details { summary { code { (format::shortened(&m.text, 80)) } } pre tabindex="0" { (m.text) @if m.cut { "…" } } } },
            html! { a.button.small href={ "/trace/" (layout::encoded(&m.id)) } { "Trace" } },
        ]
    });
    cards("Last messages", &columns, rows)
}

fn latest_readings(devices: &[StoredReading], now: Timestamp) -> Markup {
    let columns = [
        Column::name("Device"),
        Column::text("Measured"),
        Column::number("Sequence"),
        Column::wrapped("Values"),
        Column::wrapped("Doubts"),
    ];
    let rows = devices.iter().take(DEVICES).map(|r| {
        [
            html! { (r.device) },
            html! { time datetime=(r.ts.to_string()) title=(format::ago(r.ts, now)) { (format::time(r.ts)) } },
            html! { (r.sqn) },
            html! { @for v in &r.values { span.pair { (v.p) " " b.num { (format::exact(v.v)) } } " " } },
            html! { (r.flags.join(", ")) },
        ]
    });
    html! {
        (cards("Devices", &columns, rows))
        @if devices.len() > DEVICES { p.dim { "The " (DEVICES) " heard of last, of " (format::count(devices.len() as u64)) "." } }
    }
}

#[cfg(test)]
mod tests {
    use galerna_model::{AccountId, Measurement, ParameterCode};

    use super::*;

    #[test]
    fn a_script_in_the_name_of_a_device_is_text() {
        let reading = StoredReading {
            account: AccountId::new("a").unwrap(),
            source: SourceId::new("s").unwrap(),
            device: "<script>alert(1)</script>".to_owned(),
            ts: Timestamp(0),
            sqn: 1,
            values: vec![Measurement { p: ParameterCode(401), v: 4900.0 }],
            flags: Vec::new(),
            received: Timestamp(0),
        };
        let shown = latest_readings(&[reading], Timestamp(0)).into_string();
        assert!(
            shown.contains("&lt;script&gt;alert(1)&lt;/script&gt;") && !shown.contains("<script"),
            "{shown}"
        );
    }

    #[test]
    fn each_length_of_time_has_the_current_period_and_the_two_before() {
        let periods = periods(Timestamp(1_483_228_800_000));
        assert_eq!(periods.len(), 12);
        for three in periods.chunks(3) {
            assert!(three[0].1 > three[1].1 && three[1].1 > three[2].1);
        }
    }
}
