//! The numbers that live on pages: each has a name (`data-cell` of its elements), a text, and a tone that its text repeats in words.
//!
//! A page and the stream of updates take them from here alike, so that both show the same.

use galerna_dispatcher::QueueView;
pub(super) use galerna_html::cells::{Cells, Tone, capacity_tone};

use super::format;
use super::observer::{Component, Snapshot};

/// The rates of a sample that was just taken, where this process has not looked for long enough to tell any itcells.
pub(super) fn rates_of(cells: &mut Cells, sample: &galerna_storage::Sample) {
    for (cell, name) in [("o-accepted", "accepted"), ("o-emitted", "emitted"), ("o-done", "done")] {
        let is_unknown = cells.0.get(cell).is_some_and(|(text, _)| text == "–");
        if let Some(value) = sample.values.get(name).filter(|_| is_unknown) {
            cells.plain(cell, format::rate(*value));
        }
    }
}

fn rate(of: Option<f64>) -> String {
    of.map_or_else(|| "–".to_owned(), format::rate)
}

/// The tone of a queue's state.
pub(super) fn state_tone(state: &str) -> Tone {
    match state {
        "worker" => Tone::Good,
        "pause" => Tone::Warn,
        "delete" => Tone::Bad,
        _ => Tone::Plain,
    }
}

/// A queue's state in a word or two.
pub(super) fn state_word(state: &str) -> &str {
    match state {
        "worker" => "leased",
        "pause" => "paused",
        "delete" => "deleting",
        other => other,
    }
}

/// Why this strategy, in a sentence.
pub(super) fn why_strategy(view: &galerna_dispatcher::DispatcherView) -> String {
    let wanted = view.configured;
    match (view.strategy == wanted, view.maintainer.as_str()) {
        (true, "answers") if wanted.needs_counts() => {
            format!("{wanted} was asked for, and the maintainer, whose counts it needs, answers")
        }
        (true, _) if !wanted.needs_counts() => {
            format!("{wanted} was asked for, and needs no counts of messages")
        }
        (true, _) => format!("{wanted} was asked for"),
        (false, "none") => {
            format!(
                "{wanted} was asked for, but it needs counts of messages and there is no maintainer that counts them"
            )
        }
        (false, _) => format!(
            "{wanted} was asked for, but the maintainer, whose counts it needs, does not answer; {wanted} comes back with it",
        ),
    }
}

/// Why the tasks of a spout do or do not emit.
pub(super) fn spout_states(component: &Component) -> (String, Tone) {
    let total: u64 = component.states.values().sum();
    let text = component
        .states
        .iter()
        .map(|(state, n)| if total > 1 { format!("{state} ×{n}") } else { state.clone() })
        .collect::<Vec<_>>()
        .join(", ");
    let has = |word: &str| component.states.keys().any(|s| s.starts_with(word));
    let tone = if has("emitting") {
        Tone::Good
    } else if has("downstream full") || has("pending full") || has("paused") || has("draining") {
        Tone::Warn
    } else {
        Tone::Plain
    };
    (if text.is_empty() { "–".to_owned() } else { text }, tone)
}

/// Everything that every page may show live.
pub(super) fn of_snapshot(snapshot: &Snapshot) -> Cells {
    let mut cells = Cells::default();
    cells.plain("o-time", format::time(snapshot.at));
    match &snapshot.dispatcher {
        Ok(page) => {
            let view = &page.dispatcher;
            let (text, tone) = if view.running { ("running", Tone::Good) } else { ("stopped", Tone::Warn) };
            cells.set("o-running", text, tone);
            let fell_back = view.strategy != view.configured;
            cells.set("o-strategy", view.strategy.as_str(), if fell_back { Tone::Warn } else { Tone::Plain });
            cells.plain("o-why", why_strategy(view));
            cells.plain("o-leases", format::count(view.leases));
            for (state, n) in &page.counts {
                cells.plain(format!("o-queues-{state}"), format::count(*n as u64));
                let backlog = page.backlog.get(state).copied().unwrap_or_default();
                cells.plain(format!("o-ready-{state}"), format::count(backlog.ready));
                cells.plain(format!("o-unacked-{state}"), format::count(backlog.unacked));
            }
            cells.plain("o-queues", format::count(page.counts.values().sum::<usize>() as u64));
        }
        Err(_) => cells.set("o-running", "no answer", Tone::Bad),
    }
    if let Some((ready, unacked)) = snapshot.backlog() {
        cells.plain("o-ready", format::count(ready));
        cells.plain("o-unacked", format::count(unacked));
    }
    match &snapshot.waiting {
        Some(queue) => {
            let since = galerna_model::Timestamp::parse(&queue.since).unwrap_or(snapshot.at);
            let waited = snapshot.at.millis_since(since);
            let tone = if waited > 300_000 { Tone::Warn } else { Tone::Plain };
            cells.set("o-oldest", format::span(waited), tone);
            cells.plain("o-oldest-queue", queue.queue.clone());
        }
        None => {
            cells.plain("o-oldest", "none");
            cells.plain("o-oldest-queue", "no queue with messages waits");
        }
    }
    match snapshot.dead_total() {
        Some(n) => cells.set("o-dead", format::count(n), if n > 0 { Tone::Warn } else { Tone::Plain }),
        None => cells.plain("o-dead", "–"),
    }
    if let Ok(firing) = &snapshot.firing {
        let n = firing.len() as u64;
        let text =
            if firing.len() >= super::observer::MAX_FIRING { format!("{n}+") } else { format::count(n) };
        cells.set("o-firing", text, if n > 0 { Tone::Bad } else { Tone::Plain });
    }
    cells.plain("o-accepted", rate(snapshot.accepted_rate));
    cells.plain("o-emitted", rate(snapshot.spouts(|c| c.rate)));
    cells.plain("o-done", rate(snapshot.spouts(|c| c.acked_rate)));
    let failed = snapshot.spouts(|c| c.failed_rate);
    cells.set(
        "o-failed",
        rate(failed),
        if failed.is_some_and(|f| f > 0.0) { Tone::Warn } else { Tone::Plain },
    );
    let (workers, unresponsive) = (format::count(snapshot.workers as u64), snapshot.unresponsive.len());
    match (snapshot.workers, unresponsive) {
        (0, 0) => cells.set("o-workers", "0", Tone::Warn),
        (_, 0) => cells.plain("o-workers", workers),
        _ => cells.set("o-workers", format!("{workers}, no answer from {unresponsive}"), Tone::Bad),
    }
    cells.plain("o-topologies", format::count(snapshot.workers as u64));
    cells.plain("o-rules", format::count(snapshot.rules.len() as u64));
    for c in &snapshot.components {
        of_component(&mut cells, c);
    }
    cells
}

fn of_component(cells: &mut Cells, c: &Component) {
    let id = |what: &str| format!("c-{}-{what}", c.id);
    cells.plain(id("rate"), format!("{}/s", rate(c.rate)));
    let capacity = c.capacity.map_or_else(|| "–".to_owned(), |p| format!("{:.0} %", p * 100.0));
    cells.set(id("capacity"), capacity, capacity_tone(c.capacity));
    cells.plain(id("p50"), format::millis(c.latency.p50_ms));
    cells.plain(id("p99"), format::millis(c.latency.p99_ms));
    let failures = c.failures();
    let tone = match c.failed_rate {
        Some(rate) if rate > 0.0 => Tone::Bad,
        _ if failures > 0 => Tone::Warn,
        _ => Tone::Plain,
    };
    cells.set(id("failed"), format::count(failures), tone);
    cells.plain(id("queued"), format::count(c.queued));
    cells.plain(id("pending"), format::count(c.pending));
    cells.plain(id("done"), format::count(if c.is_spout() { c.emitted } else { c.executed }));
    cells.plain(id("acked"), format::count(c.acked));
    if c.is_spout() {
        let (text, tone) = spout_states(c);
        cells.set(id("state"), text, tone);
    }
}

/// One queue's numbers.
pub(super) fn of_queue(cells: &mut Cells, queue: &QueueView) {
    cells.set("q-state", state_word(&queue.state), state_tone(&queue.state));
    cells.plain("q-ready", format::count(queue.ready));
    cells.plain("q-unacked", format::count(queue.unacked));
    cells.plain("q-epoch", format::count(queue.epoch));
    cells.plain("q-holder", queue.holder.clone().unwrap_or_else(|| "nobody".to_owned()));
    let left = queue
        .expires_in_ms
        .map_or_else(|| "–".to_owned(), |ms| format::span(i64::try_from(ms).unwrap_or(i64::MAX)));
    cells.plain("q-left", left);
    let crashed = if queue.re_leases > 0 { Tone::Warn } else { Tone::Plain };
    cells.set("q-re-leases", queue.re_leases.to_string(), crashed);
}
