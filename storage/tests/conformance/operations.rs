//! The audit log, samples of charts, and what fires.

use galerna_model::{AlertState, Phase};
use galerna_storage::{AuditEntry, Sample, Store};

use super::{account, hour, source};

fn entry(id: &str, hours: i64, target: &str) -> AuditEntry {
    AuditEntry {
        id: id.into(),
        at: hour(hours),
        role: "operator".into(),
        who: "Amaia <b>".into(),
        action: "queue.pause".into(),
        target: target.into(),
        why: Some("Meter exchange, 100 % done".into()),
        outcome: "paused".into(),
        done: true,
    }
}

pub(super) async fn what_operators_did_is_listed_newest_first(store: &Store) {
    let bare =
        AuditEntry { why: None, done: false, outcome: "queue is unknown".into(), ..entry("b", 2, "D2") };
    for e in [
        &entry("a", 1, "D1"),
        &bare,
        &entry("c", 3, "D3"),
        &AuditEntry { outcome: "x".into(), ..entry("a", 9, "D9") },
    ] {
        store.audit.record(e).await.expect("recorded");
    }
    let all = [entry("c", 3, "D3"), bare.clone(), entry("a", 1, "D1")];
    assert_eq!(store.audit.list(None, 0, 10).await.expect("listed"), all);
    assert_eq!(store.audit.list(None, 1, 1).await.expect("listed"), [bare]);
    assert_eq!(store.audit.list(None, 0, 0).await.expect("listed"), []);
}

pub(super) async fn what_operators_did_is_searched_as_text(store: &Store) {
    store.audit.record(&entry("a", 1, "D1")).await.expect("recorded");
    store.audit.record(&AuditEntry { why: None, ..entry("b", 2, "$d.2*") }).await.expect("recorded");
    for (search, found) in [
        ("d1", vec!["a"]),
        ("METER", vec!["a"]),
        ("100 %", vec!["a"]),
        ("$D.2*", vec!["b"]),
        ("<b>", vec!["b", "a"]),
        (".*", vec![]),
        ("nothing", vec![]),
    ] {
        let listed = store.audit.list(Some(search), 0, 10).await.expect("listed");
        assert_eq!(listed.iter().map(|e| e.id.as_str()).collect::<Vec<_>>(), found, "{search}");
    }
}

pub(super) async fn samples_are_kept_replaced_and_pruned(store: &Store) {
    let sample = |hours: i64, values: &[(&str, f64)]| Sample {
        at: hour(hours),
        values: values.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect(),
    };
    for s in [
        sample(2, &[("ready", 5.0)]),
        sample(1, &[("ready", 0.1 + 0.2), ("a.$b", -3.0)]),
        sample(3, &[]),
        sample(2, &[("acked", 7.0)]),
    ] {
        store.history.put(&s).await.expect("stored");
    }
    let first = sample(1, &[("ready", 0.1 + 0.2), ("a.$b", -3.0)]);
    let rest = [sample(2, &[("acked", 7.0)]), sample(3, &[])];
    let all = store.history.since(hour(0)).await.expect("read");
    assert_eq!((&all[0], &all[1..]), (&first, &rest[..]));
    assert_eq!(store.history.since(hour(2)).await.expect("read"), rest);
    // What is kept of long ago: every second hour.
    let two_hours = 2 * 3_600_000;
    let even: Vec<Sample> = all.iter().filter(|s| s.at.as_millis() % two_hours == 0).cloned().collect();
    assert!(!even.is_empty() && even.len() < all.len());
    assert_eq!(store.history.sparse(hour(0), two_hours).await.expect("read"), even);
    assert_eq!(store.history.sparse(hour(2), 1).await.expect("read"), rest);
    let odd: Vec<Sample> = all.iter().filter(|s| s.at.as_millis() % two_hours != 0).cloned().collect();
    assert_eq!(store.history.thin(hour(100), two_hours).await.expect("thinned"), odd.len() as u64);
    assert_eq!(store.history.since(hour(0)).await.expect("read"), even);
    for sample in &odd {
        store.history.put(sample).await.expect("stored");
    }
    assert_eq!(store.history.prune(hour(2)).await.expect("pruned"), 1);
    assert_eq!(store.history.prune(hour(2)).await.expect("pruned"), 0);
    assert_eq!(store.history.since(hour(0)).await.expect("read"), rest);
}

pub(super) async fn what_fires_is_found_over_all_accounts(store: &Store) {
    let state = |of: &str, device: &str, phase: Phase, since: i64| AlertState {
        rule: "r".into(),
        source: source("s"),
        device: device.into(),
        account: account(of),
        phase,
        since: hour(since),
        last_seen: hour(since),
        last_value: Some(1.5),
        not_before: None,
        received: None,
        heard_at: None,
    };
    let states = [
        state("a", "d1", Phase::Firing, 1),
        state("b", "d2", Phase::Firing, 3),
        state("b", "d3", Phase::Ok, 4),
        state("c", "d4", Phase::Pending, 5),
        state("c", "d5", Phase::Firing, 2),
    ];
    store.alert_states.save(&states).await.expect("saved");
    let firing = store.alert_states.firing(2).await.expect("listed");
    assert_eq!(firing, [states[1].clone(), states[4].clone()]);
    store.alert_states.save(&[state("b", "d2", Phase::Ok, 6)]).await.expect("saved");
    let firing = store.alert_states.firing(9).await.expect("listed");
    assert_eq!(firing.iter().map(|s| s.device.as_str()).collect::<Vec<_>>(), ["d5", "d1"]);
}
