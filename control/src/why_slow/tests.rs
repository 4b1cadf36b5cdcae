use std::collections::BTreeMap;

use super::*;
use crate::view::{LatencyView, WatermarkView};

fn component(id: &str, kind: &str) -> ComponentView {
    ComponentView {
        id: id.to_owned(),
        kind: kind.to_owned(),
        executors: 1,
        tasks: 1,
        fused_with: None,
        emitted: 0,
        transferred: 0,
        executed: 0,
        acked: 0,
        failed: BTreeMap::new(),
        rate: None,
        failed_rate: None,
        capacity: None,
        execute: LatencyView::default(),
        process: LatencyView::default(),
        complete: LatencyView::default(),
        queued: 0,
        waits_ms: None,
        pending: 0,
        states: Vec::new(),
        errors: 0,
        restarts: 0,
        last_error: None,
        by_task: Vec::new(),
        hot_key: None,
        watermark: None,
        counters: BTreeMap::new(),
        gauges: BTreeMap::new(),
    }
}

fn spout(state: &str, pending: u64) -> ComponentView {
    ComponentView { states: vec![state.to_owned()], pending, ..component("lines", "spout") }
}

fn bolt(id: &str, capacity: f64) -> ComponentView {
    ComponentView { capacity: Some(capacity), ..component(id, "bolt") }
}

#[test]
fn the_sentence_names_the_limit_with_what_was_measured() {
    let busy = ComponentView { executors: 2, queued: 120, waits_ms: Some(4_000), ..bolt("count", 0.97) };
    let hot = ComponentView { hot_key: Some(("the".to_owned(), 0.432)), ..bolt("count", 0.97) };
    let mild = ComponentView { hot_key: Some(("the".to_owned(), 0.05)), ..bolt("count", 0.97) };
    let unsettled = ComponentView { executed: 900, acked: 100, ..bolt("store", 0.2) };
    let full = ComponentView { queued: 1, waits_ms: Some(61_000), ..bolt("call", 0.1) };
    let late = |behind_ms| ComponentView {
        watermark: Some(WatermarkView {
            at_ms: Some(0),
            behind_ms,
            held_by: Some("lines/1".to_owned()),
            idle: Vec::new(),
        }),
        ..bolt("window", 0.1)
    };
    let cases = [
        (
            vec![spout("downstream full: count", 10), busy.clone(), bolt("split", 0.85)],
            "`count` is the limit: its 2 executors are 97 % busy, and 120 batches wait for it; something has for 4 s.",
        ),
        (
            vec![spout("downstream full: call", 10), full],
            "`call` is the limit: its queue is full, and 1 batch waits for it; something has for 1 min 1 s.",
        ),
        (
            vec![spout("pending full", 1_000), unsettled],
            "`lines` has as many roots pending as it may (1\u{202f}000), and the busiest bolt is `store`, its executor is 20 % busy, and `store` has not settled 800 tuples: raise \
             `max_pending`, or see what it waits for.",
        ),
        (
            vec![spout("emitting", 0), hot],
            "`count` is the limit: its executor is 97 % busy, and key `the` is 43 % of its tuples.",
        ),
        (vec![spout("emitting", 0), mild], "`count` is the limit: its executor is 97 % busy."),
        (vec![spout("no data", 0), bolt("count", 0.0)], "Nothing holds it up: its spouts have no data."),
        (vec![spout("done", 0), bolt("count", 0.0)], "Its spouts have nothing more."),
        (
            vec![spout("emitting", 5), bolt("count", 0.346), bolt("split", 0.1)],
            "Nothing holds it up: the busiest is `count`, its executor is 35 % busy.",
        ),
        (
            vec![spout("emitting", 5), component("count", "bolt")],
            "Nothing is known yet: ask again in a second.",
        ),
        (
            vec![spout("emitting", 5), late(12_000)],
            "Nothing holds it up: the busiest is `window`, its executor is 10 % busy; `lines/1` holds the watermark of \
             `window` back by 12 s.",
        ),
        (
            vec![spout("emitting", 5), late(10)],
            "Nothing holds it up: the busiest is `window`, its executor is 10 % busy.",
        ),
    ];
    for (components, told) in cases {
        assert_eq!(
            why_slow(&Situation { status: Status::Active, components: &components, checkpoints: None }),
            told
        );
    }
}

#[test]
fn what_is_not_active_says_so() {
    let components = [spout("paused", 3)];
    for (status, told) in [
        (Status::Inactive, "It is not active: activate it, and its spouts emit."),
        (Status::Ending, "It ends: 3 roots are pending."),
        (Status::Finished, "It has finished: its spouts had nothing more."),
        (Status::Killed, "It was killed."),
    ] {
        assert_eq!(why_slow(&Situation { status, components: &components, checkpoints: None }), told);
    }
}

#[test]
fn it_tells_how_old_the_last_checkpoint_is_and_why_there_is_none() {
    let of = |last, held_acks, last_error: Option<&str>| CheckpointView {
        committed: 1,
        failed: 0,
        last,
        age_ms: 3_000,
        took_ms: 5,
        state_bytes: 0,
        held_acks,
        last_error: last_error.map(str::to_owned),
        at_least_once: Vec::new(),
    };
    let components = [spout("no data", 0)];
    for (checkpoints, told) in [
        (
            of(Some(7), 0, None),
            "Nothing holds it up: its spouts have no data; the last checkpoint is 3 s old.",
        ),
        (
            of(Some(7), 12, None),
            "Nothing holds it up: its spouts have no data; the last checkpoint is 3 s old, and 12 acks wait for the next.",
        ),
        (
            of(None, 1, Some("the disk is full")),
            "Nothing holds it up: its spouts have no data; there is no checkpoint after 3 s, and 1 ack waits for the next; the \
             last one that was tried came to nothing: the disk is full.",
        ),
    ] {
        let situation =
            Situation { status: Status::Active, components: &components, checkpoints: Some(&checkpoints) };
        assert_eq!(why_slow(&situation), told);
    }
}
