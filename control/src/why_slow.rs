//! Why a topology is not faster, in a sentence, from what was measured.

use std::fmt::Write;

use galerna_html::format::{count, plural, span};

use crate::topologies::Status;
use crate::view::{CheckpointView, ComponentView};

/// From this busy share on a component is the limit: executors also wait for threads, so that few reach 1.
const BUSY: f64 = 0.8;
/// A key that is less of the tuples says nothing.
const HOT: f64 = 0.1;
/// A watermark that is held back by less says nothing.
const HELD_BACK_MS: u64 = 1_000;

/// What the sentence is made from.
pub(crate) struct Situation<'a> {
    pub(crate) status: Status,
    pub(crate) components: &'a [ComponentView],
    pub(crate) checkpoints: Option<&'a CheckpointView>,
}

/// The sentence: what is the limit and how busy it is, what waits for it since when, who holds the watermark back.
pub(crate) fn why_slow(situation: &Situation<'_>) -> String {
    let mut told = match situation.status {
        Status::Active => limit(situation.components),
        Status::Inactive => "It is not active: activate it, and its spouts emit".to_owned(),
        Status::Ending => {
            let pending: u64 = situation.components.iter().map(|c| c.pending).sum();
            format!("It ends: {} {} pending", count(pending), plural(pending, "root is", "roots are"))
        }
        Status::Finished => return "It has finished: its spouts had nothing more.".to_owned(),
        Status::Killed => return "It was killed.".to_owned(),
    };
    held_back(situation.components, &mut told);
    if let Some(checkpoints) = situation.checkpoints {
        last_checkpoint(checkpoints, &mut told);
    }
    told.push('.');
    told
}

fn limit(components: &[ComponentView]) -> String {
    let spouts = || components.iter().filter(|c| c.is_spout());
    let bolts = components.iter().filter(|c| !c.is_spout());
    let busiest =
        bolts.clone().filter_map(|c| Some((c, c.capacity?))).max_by(|one, other| one.1.total_cmp(&other.1));
    if let Some((bolt, busy)) = busiest.filter(|(_, busy)| *busy >= BUSY) {
        let busy = executors_busy(bolt, busy);
        return format!("`{}` is the limit: {busy}{}{}", bolt.id, hot_key(bolt), waiting(bolt));
    }
    // Somebody waits for room in a queue, and nobody computes: the bolt waits itself.
    let full = spouts().find_map(|spout| {
        let state = spout.states.iter().find_map(|state| state.strip_prefix("downstream full: "))?;
        components.iter().find(|c| c.id == state)
    });
    if let Some(bolt) = full {
        return format!("`{}` is the limit: its queue is full{}", bolt.id, waiting(bolt));
    }
    if let Some(spout) = spouts().find(|spout| spout.states.iter().any(|state| state == "pending full")) {
        let mut told =
            format!("`{}` has as many roots pending as it may ({})", spout.id, count(spout.pending));
        if let Some((bolt, busy)) = busiest {
            let _ = write!(told, ", and the busiest bolt is `{}`, {}", bolt.id, executors_busy(bolt, busy));
        }
        let holder = bolts
            .map(|bolt| (bolt, bolt.executed.saturating_sub(bolt.acked + bolt.failures())))
            .filter(|(_, unsettled)| *unsettled > 0)
            .max_by_key(|(_, unsettled)| *unsettled);
        if let Some((bolt, unsettled)) = holder {
            let _ = write!(told, ", and `{}` has not settled {} tuples", bolt.id, count(unsettled));
        }
        told.push_str(": raise `max_pending`, or see what it waits for");
        return told;
    }
    let all = |word: &str| spouts().flat_map(|c| &c.states).all(|state| state == word);
    if all("done") {
        return "Its spouts have nothing more".to_owned();
    }
    if spouts().flat_map(|c| &c.states).all(|state| state == "no data" || state == "done") {
        return "Nothing holds it up: its spouts have no data".to_owned();
    }
    match busiest {
        Some((bolt, busy)) => {
            let busiest = executors_busy(bolt, busy);
            format!("Nothing holds it up: the busiest is `{}`, {busiest}", bolt.id)
        }
        None => "Nothing is known yet: ask again in a second".to_owned(),
    }
}

fn executors_busy(bolt: &ComponentView, busy: f64) -> String {
    let percent = busy * 100.0;
    match bolt.executors {
        1 => format!("its executor is {percent:.0} % busy"),
        n => format!("its {} executors are {percent:.0} % busy", count(n as u64)),
    }
}

fn hot_key(bolt: &ComponentView) -> String {
    let hot = bolt.hot_key.as_ref().filter(|(_, share)| *share >= HOT);
    hot.map_or_else(String::new, |(key, share)| {
        format!(", and key `{key}` is {:.0} % of its tuples", share * 100.0)
    })
}

fn waiting(bolt: &ComponentView) -> String {
    let Some(ms) = bolt.waits_ms else { return String::new() };
    let queued = bolt.queued as u64;
    let since = span(i64::try_from(ms).unwrap_or(i64::MAX));
    format!(
        ", and {} {} for it; something has for {since}",
        count(queued),
        plural(queued, "batch waits", "batches wait")
    )
}

fn held_back(components: &[ComponentView], told: &mut String) {
    let watermarks = components.iter().filter_map(|c| Some((c, c.watermark.as_ref()?)));
    let worst = watermarks
        .filter(|(_, watermark)| watermark.behind_ms >= HELD_BACK_MS)
        .filter_map(|(component, watermark)| Some((component, watermark, watermark.held_by.as_ref()?)))
        .max_by_key(|(_, watermark, _)| watermark.behind_ms);
    if let Some((component, watermark, holder)) = worst {
        let behind = span(i64::try_from(watermark.behind_ms).unwrap_or(i64::MAX));
        let _ = write!(told, "; `{holder}` holds the watermark of `{}` back by {behind}", component.id);
    }
}

fn last_checkpoint(checkpoints: &CheckpointView, told: &mut String) {
    let age = span(i64::try_from(checkpoints.age_ms).unwrap_or(i64::MAX));
    let _ = match checkpoints.last {
        Some(_) => write!(told, "; the last checkpoint is {age} old"),
        None => write!(told, "; there is no checkpoint after {age}"),
    };
    if checkpoints.held_acks > 0 {
        let held = checkpoints.held_acks;
        let _ = write!(told, ", and {} {} for the next", count(held), plural(held, "ack waits", "acks wait"));
    }
    if let Some(error) = &checkpoints.last_error {
        let _ =
            write!(told, "; the last one that was tried came to nothing: {}", error.trim_end_matches('.'));
    }
}

#[cfg(test)]
mod tests;
