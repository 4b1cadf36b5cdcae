//! Alert rules, states and events.

use galerna_model::ParameterCode;
use galerna_model::{AlertEvent, AlertEventKind, AlertState, Comparison, Condition, Phase, Rule, Severity};
use galerna_storage::Store;

use super::{account, hour, source};

fn rule(id: &str) -> Rule {
    Rule {
        id: id.into(),
        name: "Too much power".into(),
        account: Some(account("acc")),
        devices: "Panther_*".into(),
        condition: Condition::Threshold {
            parameter: ParameterCode(401),
            comparison: Comparison::Above,
            limit: 745.396_000_000_000_3,
            clear: Some(0.1),
            for_ms: 60_000,
        },
        severity: Severity::Critical,
        endpoints: vec!["mail".into(), "pager \"2\"".into()],
        cooldown_ms: 5,
        enabled: true,
    }
}

fn state(rule: &str, device: &str, last_seen: i64) -> AlertState {
    AlertState {
        rule: rule.into(),
        source: source("s"),
        device: device.into(),
        account: account("acc"),
        phase: Phase::Firing,
        since: hour(0),
        last_seen: hour(last_seen),
        last_value: Some(0.1 + last_seen as f64),
        not_before: None,
        received: None,
        heard_at: None,
    }
}

fn event(id: &str, kind: AlertEventKind, hours: i64) -> AlertEvent {
    AlertEvent {
        id: id.into(),
        kind,
        rule: "r".into(),
        rule_name: "Too much power".into(),
        severity: Severity::Info,
        account: account("acc"),
        source: source("s"),
        device: "d".into(),
        value: Some(4900.5),
        ts: hour(hours),
        message: "401 is 4900.5 W, above 4000".into(),
        origin: Some("m.0".into()),
        at: Some(hour(hours + 1)),
    }
}

pub(super) async fn rules_are_put_listed_and_deleted(store: &Store) {
    let silent = Rule {
        account: None,
        condition: Condition::Silent { after_ms: 3_600_000 },
        severity: Severity::Warning,
        endpoints: Vec::new(),
        enabled: false,
        ..rule("b")
    };
    let below = Rule {
        condition: Condition::Threshold {
            parameter: ParameterCode(405),
            comparison: Comparison::Below,
            limit: -1.5,
            clear: None,
            for_ms: 0,
        },
        ..rule("c")
    };
    for rule in [&below, &rule("a"), &silent] {
        store.rules.put(rule).await.expect("stored");
    }
    assert_eq!(store.rules.list().await.expect("listed"), [rule("a"), silent.clone(), below.clone()]);
    let renamed = Rule { name: "Renamed".into(), ..silent };
    store.rules.put(&renamed).await.expect("replaced");
    assert!(store.rules.delete("a").await.expect("deleted"));
    assert!(!store.rules.delete("a").await.expect("answered"));
    assert_eq!(store.rules.list().await.expect("listed"), [renamed, below]);
}

pub(super) async fn deleting_a_rule_deletes_its_states(store: &Store) {
    let quiet = |rule: &str| AlertState { phase: Phase::Pending, ..state(rule, "d", 1) };
    store.rules.put(&rule("a")).await.expect("stored");
    store.alert_states.save(&[quiet("a"), quiet("b")]).await.expect("saved");
    assert!(store.rules.delete("a").await.expect("deleted"));
    assert_eq!(store.alert_states.load(&account("acc")).await.expect("loaded"), [quiet("b")]);
}

pub(super) async fn states_of_a_deleted_rule_that_fire_stay_until_they_are_cleared(store: &Store) {
    store.rules.put(&rule("a")).await.expect("stored");
    let closed = AlertState { phase: Phase::Closed, ..state("a", "closed", 1) };
    let elsewhere = AlertState { account: account("another"), ..state("b", "d", 1) };
    store.alert_states.save(&[state("a", "d", 1), closed, elsewhere.clone()]).await.expect("saved");
    assert!(store.rules.delete("a").await.expect("deleted"));
    let states = &store.alert_states;
    assert_eq!(states.load(&account("acc")).await.expect("loaded"), [state("a", "d", 1)]);
    assert_eq!(states.accounts().await.expect("listed"), [account("acc"), account("another")]);
    states.clear("a").await.expect("cleared");
    states.clear("a").await.expect("there is nothing to clear");
    assert_eq!(states.accounts().await.expect("listed"), [account("another")]);
    assert_eq!(states.firing(9).await.expect("listed"), [elsewhere]);
}

pub(super) async fn an_older_state_does_not_replace_a_later_one(store: &Store) {
    let full = AlertState {
        not_before: Some(hour(9)),
        received: Some(hour(10)),
        heard_at: Some(hour(8)),
        last_value: None,
        phase: Phase::Pending,
        ..state("r", "d", 5)
    };
    store.alert_states.save(&[full.clone(), state("r", "other", 1)]).await.expect("saved");
    store.alert_states.save(&[state("r", "d", 4), state("r", "other", 2)]).await.expect("saved");
    let stored =
        |name: &'static str| async move { store.alert_states.load(&account(name)).await.expect("loaded") };
    assert_eq!(stored("acc").await, [full, state("r", "other", 2)]);
    let same_time = AlertState { phase: Phase::Ok, ..state("r", "d", 5) };
    store.alert_states.save(std::slice::from_ref(&same_time)).await.expect("saved");
    assert_eq!(stored("acc").await, [same_time, state("r", "other", 2)]);
    assert_eq!(stored("nobody").await, []);
    store.alert_states.save(&[]).await.expect("nothing to save");
}

pub(super) async fn concurrent_states_leave_the_latest(store: &Store) {
    let savers: Vec<_> = (1..=8)
        .map(|last_seen| {
            let store = store.clone();
            let states: Vec<AlertState> =
                (0..20).map(|d| state("r", &format!("{d:02}"), last_seen)).collect();
            tokio::spawn(async move { store.alert_states.save(&states).await.expect("saved") })
        })
        .collect();
    for saver in savers {
        saver.await.expect("the saver ends");
    }
    let expected: Vec<AlertState> = (0..20).map(|d| state("r", &format!("{d:02}"), 8)).collect();
    assert_eq!(store.alert_states.load(&account("acc")).await.expect("loaded"), expected);
}

pub(super) async fn an_event_is_recorded_once(store: &Store) {
    let raised = event("e1", AlertEventKind::Raised, 1);
    let resolved = AlertEvent { value: None, ..event("e2", AlertEventKind::Resolved, 2) };
    let record =
        |events: Vec<AlertEvent>| async move { store.alert_states.record(&events).await.expect("recorded") };
    assert_eq!(record(vec![raised.clone()]).await, 1);
    let altered = AlertEvent { message: "another".into(), ..raised.clone() };
    assert_eq!(record(vec![altered, resolved.clone(), resolved.clone()]).await, 1);
    assert_eq!(record(vec![]).await, 0);
    assert_eq!(store.alert_states.events(None, 0, 10).await.expect("listed"), [resolved, raised]);
    assert_eq!(store.alert_states.count(AlertEventKind::Raised).await.expect("counted"), 1);
    assert_eq!(store.alert_states.count(AlertEventKind::Resolved).await.expect("counted"), 1);
}

pub(super) async fn events_are_paged_newest_first(store: &Store) {
    let mut events: Vec<AlertEvent> =
        (0..20).map(|i| event(&format!("e{i:02}"), AlertEventKind::Raised, (i * 7) % 20)).collect();
    events.push(AlertEvent { account: account("other"), ..event("o", AlertEventKind::Raised, 50) });
    store.alert_states.record(&events).await.expect("recorded");
    let mut hours = Vec::new();
    for page in 0..4 {
        let found = store.alert_states.events(Some(&account("acc")), page * 6, 6).await.expect("listed");
        hours.extend(found.into_iter().map(|e| e.ts));
    }
    assert_eq!(hours, (0..20).rev().map(hour).collect::<Vec<_>>());
    let newest = store.alert_states.events(None, 0, 1).await.expect("listed");
    assert_eq!(newest[0].id, "o");
    assert_eq!(store.alert_states.events(None, 0, 0).await.expect("listed"), []);
    assert_eq!(store.alert_states.events(None, 100, 5).await.expect("listed"), []);
}
