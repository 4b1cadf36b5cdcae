//! Workers: the processes, what each takes of its machine, and the topologies in it with their leases and load.

use std::collections::{BTreeMap, HashMap};

use axum::Extension;
use axum::extract::State;
use axum::response::Response;
use galerna_dispatcher::StatusQuery;
use galerna_model::Timestamp;
use maud::{Markup, html};

use super::access::Visitor;
use super::backends::{ProcessReport, WorkerReport};
use super::cells::{Tone, capacity_tone};
use super::observer::Snapshot;
use super::queues::ask;
use super::table::{Column, list as cards};
use super::{Page, Params, format, layout, none_configured, notices};

/// Leases that are counted by holder.
const LEASES: usize = 1_000;

/// `GET /workers`
pub(super) async fn show(
    State(page): State<Page>,
    Extension(visitor): Extension<Visitor>,
    axum::extract::Query(params): Params,
) -> Response {
    let leased =
        StatusQuery { state: Some("worker".to_owned()), limit: Some(LEASES), ..StatusQuery::default() };
    let (snapshot, leased) = tokio::join!(page.snapshot(), ask(page.parts.dispatcher.status(&leased)));
    let notices = notices(&snapshot);
    let mut held: HashMap<String, usize> = HashMap::new();
    let (mut total, mut counted) = (0, 0);
    if let Ok(leased) = &leased {
        (total, counted) = (leased.total, leased.queues.len());
        for holder in leased.queues.iter().filter_map(|q| q.holder.clone()) {
            *held.entry(holder).or_default() += 1;
        }
    }
    let mut processes: BTreeMap<String, &ProcessReport> = BTreeMap::new();
    for process in snapshot.reports.iter().filter_map(|r| r.process.as_deref()) {
        processes.insert(process.name(), process);
    }
    let is_known = |holder: &str| snapshot.reports.iter().any(|r| holds(r, holder));
    let mut others: Vec<(&String, &usize)> = held.iter().filter(|(holder, _)| !is_known(holder)).collect();
    others.sort();
    let content = html! {
        div.title { h1 { "Workers" } p.dim { (format::count(snapshot.workers as u64)) " " (format::plural(snapshot.workers as u64, "topology", "topologies")) " in "
            (format::count(processes.len() as u64)) " " (format::plural(processes.len() as u64, "process", "processes")) ", "
            (format::count(total as u64)) " " (format::plural(total as u64, "lease", "leases")) } }
        (none_configured(&snapshot))
        @if counted < total { p.hint { "Leases are told of the first " (format::count(counted as u64)) " queues." } }
        section #processes data-refresh="5" aria-labelledby="processes-title" {
            h2 #processes-title { "Processes" }
            @if processes.is_empty() { (layout::nothing(if snapshot.workers == 0 { "No worker runs here. Start one with `galerna worker`, or `galerna up`." } else { "The workers do not tell of their processes: they are of an older version." })) }
            @else { (of_processes(&processes, &snapshot)) }
        }
        section #topologies data-refresh="5" aria-labelledby="topologies-title" {
            h2 #topologies-title { "Topologies" }
            @if snapshot.reports.is_empty() { (layout::nothing("None runs.")) }
            @else { (of_topologies(&snapshot.reports, &held)) }
        }
        @if !others.is_empty() {
            section aria-labelledby="others-title" {
                h2 #others-title { "Other holders of leases" }
                p.hint { "They hold queues and do not tell what they do: name their addresses in " code { "page.workers" } ", if they are workers." }
                ul.lines { @for (holder, n) in others {
                    li { a href=(layout::Query(vec![("search", holder.clone())]).link("/queues")) { (holder) } " " b.num { (format::count(*n as u64)) } }
                } }
            }
        }
    };
    page.frame(&visitor, "/workers", "Workers", &params, notices, &content).await
}

/// Whether a holder of leases is of this worker: its spouts hold them under its name and their numbers.
fn holds(report: &WorkerReport, holder: &str) -> bool {
    let rest = holder.strip_prefix(report.consumer.as_str());
    !report.consumer.is_empty() && rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

fn of_processes(processes: &BTreeMap<String, &ProcessReport>, snapshot: &Snapshot) -> Markup {
    let columns = [
        Column::name("Process"),
        Column::text("Version"),
        Column::number("Memory"),
        Column::number("CPUs busy").explained("lately"),
        Column::number("Threads"),
        Column::number("Open files"),
        Column::number("Runs for"),
        Column::number("Topologies"),
    ];
    let rows = processes.iter().map(|(name, p)| {
        let topologies =
            snapshot.reports.iter().filter(|r| r.process.as_ref().is_some_and(|of| of.name() == *name)).count();
        #[allow(clippy::cast_possible_truncation)] // seconds since the epoch
        let started = Timestamp((p.started_seconds * 1e3) as i64);
        let many_files = p.most_files > 0.0 && p.open_files > 0.8 * p.most_files;
        [
            html! { (name) },
            html! { (p.version) },
            html! { (format::bytes(p.memory_bytes)) },
            html! { (snapshot.busy_cpus.get(name).map_or("–".to_owned(), |cpus| format!("{cpus:.2}"))) },
            html! { (p.threads) },
            html! { b data-tone=(if many_files { Tone::Warn } else { Tone::Plain }.as_str()) { (p.open_files) } " of " (p.most_files) },
            html! { (format::span(snapshot.at.millis_since(started))) },
            html! { (topologies) },
        ]
    });
    cards("Processes", &columns, rows)
}

fn of_topologies(reports: &[WorkerReport], held: &HashMap<String, usize>) -> Markup {
    let columns = [
        Column::name("Worker"),
        Column::text("Topology"),
        Column::text("Process"),
        Column::number("Leases"),
        Column::number("In flight"),
        Column::number("Done"),
        Column::number("Failed"),
        Column::wrapped("Busiest").explained("since the start"),
        Column::number("Restarts"),
        Column::number("Runs for"),
    ];
    let rows = reports.iter().map(|r| {
        let spouts = || r.components.iter().filter(|c| c.kind == "spout");
        let busiest = r.components.iter().filter(|c| c.kind != "spout").max_by(|a, b| a.busy.total_cmp(&b.busy));
        let leases: usize = held.iter().filter(|(holder, _)| holds(r, holder)).map(|(_, n)| n).sum();
        [
            html! { a href=(layout::Query(vec![("search", r.consumer.clone())]).link("/queues")) { (r.consumer) } },
            html! { (r.topology) },
            html! { (r.process.as_ref().map_or("–".to_owned(), |p| p.name())) },
            html! { (format::count(leases as u64)) },
            html! { (format::count(spouts().map(|c| c.pending).sum())) },
            html! { (format::count(spouts().map(|c| c.acked).sum())) },
            html! { (format::count(spouts().flat_map(|c| c.failed.values()).sum())) },
            html! { @if let Some(c) = busiest { (c.id) " " b data-tone=(capacity_tone(Some(c.busy)).as_str()) { (format!("{:.0} %", c.busy * 100.0)) } } },
            html! { (format::count(r.components.iter().map(|c| c.restarts).sum())) },
            html! { (format::span(i64::try_from(r.uptime_ms).unwrap_or(i64::MAX))) },
        ]
    });
    cards("Topologies", &columns, rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_holds_what_its_spouts_hold() {
        let worker = WorkerReport { consumer: "worker-1".to_owned(), ..WorkerReport::default() };
        assert!(holds(&worker, "worker-1") && holds(&worker, "worker-1/0"));
        assert!(!holds(&worker, "worker-10/0") && !holds(&WorkerReport::default(), "worker-1"));
    }
}
