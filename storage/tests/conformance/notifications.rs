//! Endpoints, silences and the outbox.

use std::collections::BTreeMap;

use galerna_model::{AlertEvent, AlertEventKind, Severity};
use galerna_storage::{
    Attempt, Claim, Delivery, DeliveryFilter, DeliveryStatus, Endpoint, EndpointKind, Enqueued, Resent,
    Silence, Store, alert_key,
};

use super::{account, hour, source};

fn endpoint(id: &str) -> Endpoint {
    Endpoint {
        id: id.into(),
        name: "The hook \"1\"".into(),
        account: Some(account("acc")),
        kind: EndpointKind::Webhook {
            url: "https://example.com/hook".into(),
            method: "POST".into(),
            headers: BTreeMap::from([
                ("authorization".into(), "Bearer x".into()),
                ("x-a.b".into(), String::new()),
            ]),
            body: Some("{{ type }}".into()),
            secret: Some("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".into()),
        },
        enabled: true,
        disabled_reason: None,
        group_ms: 30_000,
        cooldown_ms: 86_400_000,
    }
}

fn event(device: &str, kind: AlertEventKind, hours: i64) -> AlertEvent {
    AlertEvent {
        id: format!("r/s/{device}/{kind:?}/{hours}"),
        kind,
        rule: "r".into(),
        rule_name: "Too Much Power".into(),
        severity: Severity::Warning,
        account: account("acc"),
        source: source("s"),
        device: device.into(),
        value: Some(745.396_000_000_000_3),
        ts: hour(hours),
        message: "401 is 4900.5 W, above 4000 (ÜBER)".into(),
        origin: Some("m.0".into()),
        at: Some(hour(hours + 1)),
    }
}

fn delivery(id: &str, endpoint: &str, events: &[AlertEvent]) -> Delivery {
    Delivery {
        id: id.into(),
        endpoint: endpoint.into(),
        events: events.to_vec(),
        status: DeliveryStatus::Pending,
        reason: None,
        test: false,
        attempts: Vec::new(),
        tries: 0,
        next_try: hour(0),
        open_until: None,
        held_until: None,
        after: Vec::new(),
        created: hour(0),
        since: hour(0),
        ended: None,
        version: 0,
        claimed_by: None,
        claimed_until: None,
    }
}

/// A delivery named like the device of its one event.
fn one(device: &str) -> Delivery {
    delivery(device, "e", &[event(device, AlertEventKind::Raised, 0)])
}

fn claim(notifier: &str, hours: i64) -> Claim {
    Claim {
        notifier: notifier.into(),
        now: hour(hours),
        lease_ms: 3_600_000,
        limit: 100,
        per_endpoint: 100,
        except: Vec::new(),
    }
}

async fn enqueue(store: &Store, delivery: &Delivery) -> Enqueued {
    store.notifications.enqueue(delivery).await.expect("enqueued")
}

async fn stored(store: &Store, id: &str) -> Delivery {
    store.notifications.delivery(id).await.expect("read").expect("it is there")
}

async fn claimed(store: &Store, claim: &Claim) -> Vec<Delivery> {
    store.notifications.claim(claim).await.expect("claimed")
}

fn ids(deliveries: &[Delivery]) -> Vec<&str> {
    deliveries.iter().map(|d| d.id.as_str()).collect()
}

pub(super) async fn endpoints_and_silences_are_put_listed_and_deleted(store: &Store) {
    let outbox = &store.notifications;
    let mail = Endpoint {
        account: None,
        kind: EndpointKind::Email {
            to: vec!["a@example.com".into(), "B <b@example.com>".into()],
            subject: None,
            text: Some("{{ raised }}".into()),
            html: None,
        },
        ..endpoint("b")
    };
    let log = Endpoint { kind: EndpointKind::Log {}, disabled_reason: Some("gone".into()), ..endpoint("c") };
    for endpoint in [&log, &endpoint("a"), &mail] {
        outbox.put_endpoint(endpoint).await.expect("stored");
    }
    assert_eq!(outbox.endpoints().await.expect("listed"), [endpoint("a"), mail.clone(), log.clone()]);
    let renamed = Endpoint { name: "Renamed".into(), ..mail };
    outbox.put_endpoint(&renamed).await.expect("replaced");
    assert_eq!(outbox.endpoint("b").await.expect("read"), Some(renamed.clone()));
    assert!(outbox.delete_endpoint("a").await.expect("deleted"));
    assert!(!outbox.delete_endpoint("a").await.expect("answered"));
    assert_eq!(outbox.endpoint("a").await.expect("read"), None);
    assert_eq!(outbox.endpoints().await.expect("listed"), [renamed, log]);

    let all = Silence {
        id: "2".into(),
        account: None,
        device: None,
        rule: None,
        until: hour(5),
        reason: String::new(),
        by: String::new(),
        created: hour(0),
    };
    let some = Silence {
        id: "1".into(),
        account: Some(account("acc")),
        device: Some("Panther_*".into()),
        rule: Some("r".into()),
        reason: "maintenance".into(),
        by: "ann".into(),
        ..all.clone()
    };
    for silence in [&all, &some] {
        outbox.put_silence(silence).await.expect("stored");
    }
    let longer = Silence { until: hour(9), ..all };
    outbox.put_silence(&longer).await.expect("replaced");
    assert_eq!(outbox.silences().await.expect("listed"), [some, longer.clone()]);
    assert!(outbox.delete_silence("1").await.expect("deleted"));
    assert!(!outbox.delete_silence("1").await.expect("answered"));
    assert_eq!(outbox.silences().await.expect("listed"), [longer]);
}

pub(super) async fn an_endpoint_is_disabled_unless_it_was_edited(store: &Store) {
    let outbox = &store.notifications;
    let seen = endpoint("a");
    assert!(!outbox.disable_endpoint(&seen, "gone").await.expect("answered"));
    let renamed = Endpoint { name: "Renamed".into(), ..seen.clone() };
    outbox.put_endpoint(&renamed).await.expect("stored");
    assert!(outbox.disable_endpoint(&seen, "gone").await.expect("disabled"));
    let disabled = Endpoint { enabled: false, disabled_reason: Some("gone".into()), ..renamed };
    assert_eq!(outbox.endpoint("a").await.expect("read"), Some(disabled));
    assert!(!outbox.disable_endpoint(&seen, "again").await.expect("answered"));
    let elsewhere = Endpoint { kind: EndpointKind::Log {}, ..seen.clone() };
    outbox.put_endpoint(&elsewhere).await.expect("stored");
    assert!(!outbox.disable_endpoint(&seen, "gone").await.expect("answered"));
    assert_eq!(outbox.endpoint("a").await.expect("read"), Some(elsewhere));
}

pub(super) async fn a_delivery_comes_back_as_it_was_enqueued(store: &Store) {
    let full = Delivery {
        status: DeliveryStatus::Dead,
        reason: Some("gone".into()),
        test: true,
        attempts: vec![
            Attempt { at: hour(1), status: Some(503), error: Some("answered 503".into()), took_ms: 12 },
            Attempt { at: hour(2), status: None, error: None, took_ms: u64::MAX >> 1 },
        ],
        tries: 2,
        open_until: Some(hour(1)),
        held_until: Some(hour(2)),
        ended: Some(hour(3)),
        version: 7,
        claimed_by: Some("n".into()),
        claimed_until: Some(hour(4)),
        ..delivery(
            "d",
            "e",
            &[event("x", AlertEventKind::Raised, 0), event("x", AlertEventKind::Resolved, 1)],
        )
    };
    assert_eq!(enqueue(store, &full).await, Enqueued::New);
    assert_eq!(stored(store, "d").await, full);
    assert_eq!(store.notifications.delivery("other").await.expect("read"), None);
}

pub(super) async fn an_endpoint_gets_each_event_once(store: &Store) {
    let first = one("x");
    assert_eq!(enqueue(store, &first).await, Enqueued::New);
    let other_id = Delivery { id: "y".into(), status: DeliveryStatus::Suppressed, ..first.clone() };
    assert_eq!(enqueue(store, &other_id).await, Enqueued::Known("x".into()));
    let open = Delivery { open_until: Some(hour(9)), ..other_id };
    assert_eq!(enqueue(store, &open).await, Enqueued::Known("x".into()));
    let other_endpoint = Delivery { id: "z".into(), endpoint: "f".into(), ..first.clone() };
    assert_eq!(enqueue(store, &other_endpoint).await, Enqueued::New);
    assert_eq!(stored(store, "x").await, first);
    let mut of_event = store.notifications.deliveries_of_event(&first.events[0].id).await.expect("read");
    of_event.sort_by(|a, b| a.id.cmp(&b.id));
    assert_eq!(of_event, [first, other_endpoint]);
    assert_eq!(store.notifications.deliveries_of_event("none").await.expect("read"), []);
}

pub(super) async fn concurrent_enqueuing_of_the_same_events_leaves_each_once(store: &Store) {
    for open_until in [None, Some(hour(1))] {
        let endpoint = if open_until.is_some() { "grouped" } else { "single" };
        let tasks: Vec<_> = (0..4)
            .map(|task: usize| {
                let store = store.clone();
                tokio::spawn(async move {
                    for i in 0..12 {
                        let device = format!("{:02}", (i + task * 3) % 12);
                        let new = delivery(
                            &format!("{endpoint}-{device}"),
                            endpoint,
                            &[event(&device, AlertEventKind::Raised, 0)],
                        );
                        enqueue(&store, &Delivery { open_until, ..new }).await;
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.expect("the task ends");
        }
        let filter = DeliveryFilter { endpoint: Some(endpoint.into()), ..DeliveryFilter::default() };
        let page = store.notifications.deliveries(&filter, 0, 100).await.expect("listed");
        let mut devices: Vec<String> =
            page.deliveries.iter().flat_map(|d| &d.events).map(|e| e.device.clone()).collect();
        devices.sort();
        assert_eq!(devices, (0..12).map(|i| format!("{i:02}")).collect::<Vec<_>>(), "{endpoint}");
    }
}

pub(super) async fn events_join_an_open_delivery(store: &Store) {
    let open = |device: &str| Delivery { open_until: Some(hour(1)), next_try: hour(1), ..one(device) };
    assert_eq!(enqueue(store, &open("a")).await, Enqueued::New);
    assert_eq!(enqueue(store, &open("b")).await, Enqueued::Joined("a".into()));
    // A recovery waits for nothing but the delivery that it joins.
    let recovery = Delivery {
        after: vec!["a".into()],
        ..Delivery { events: vec![event("b", AlertEventKind::Resolved, 0)], ..open("rb") }
    };
    assert_eq!(enqueue(store, &recovery).await, Enqueued::Joined("a".into()));
    let group = stored(store, "a").await;
    let names: Vec<_> = group.events.iter().map(|e| (e.device.as_str(), e.kind)).collect();
    use AlertEventKind::{Raised, Resolved};
    assert_eq!(names, [("a", Raised), ("b", Raised), ("b", Resolved)]);
    assert_eq!((group.next_try, group.after), (hour(1), vec![]));
    assert_eq!(enqueue(store, &open("b")).await, Enqueued::Known("a".into()));

    // Not what takes no company, what is for another endpoint, what comes too late, or what is suppressed.
    let alone = one("c");
    let elsewhere = Delivery { endpoint: "f".into(), ..open("d") };
    let late = Delivery { created: hour(1), open_until: Some(hour(2)), endpoint: "e".into(), ..open("l") };
    let suppressed = Delivery { status: DeliveryStatus::Suppressed, ..open("s") };
    for new in [alone, elsewhere, late, suppressed] {
        assert_eq!(enqueue(store, &new).await, Enqueued::New, "{}", new.id);
    }
    // Nor once it is claimed.
    let all = claimed(store, &claim("n", 1)).await;
    assert!(ids(&all).contains(&"a"));
    assert_eq!(enqueue(store, &open("g")).await, Enqueued::New);
    // Nor one that waits for others than the newcomer does.
    let waiting = |device: &str| Delivery { after: vec!["c".into()], ..open(device) };
    assert_eq!(enqueue(store, &waiting("w")).await, Enqueued::New);
    assert_eq!(enqueue(store, &waiting("w2")).await, Enqueued::Joined("w".into()));
    assert_eq!(enqueue(store, &open("h")).await, Enqueued::Joined("g".into()));
}

pub(super) async fn a_claimed_delivery_is_given_to_nobody_else_until_its_claim_runs_out(store: &Store) {
    enqueue(store, &one("a")).await;
    enqueue(store, &Delivery { next_try: hour(5), ..one("later") }).await;
    enqueue(store, &Delivery { status: DeliveryStatus::Dead, ..one("dead") }).await;
    let mine = claimed(store, &claim("n1", 1)).await;
    assert_eq!(ids(&mine), ["a"]);
    assert_eq!((mine[0].claimed_by.as_deref(), mine[0].claimed_until), (Some("n1"), Some(hour(2))));
    assert_eq!(mine[0].version, 1);
    assert_eq!(stored(store, "a").await, mine[0]);
    assert_eq!(claimed(store, &claim("n2", 1)).await, []);
    assert_eq!(claimed(store, &claim("n1", 1)).await, []);
    // The claim of one that died.
    let others = claimed(store, &claim("n2", 2)).await;
    assert_eq!(ids(&others), ["a"]);
    // Should it live after all, what it writes is refused.
    let sent = Delivery { status: DeliveryStatus::Delivered, ..mine[0].clone() };
    assert!(!store.notifications.update(&sent).await.expect("answered"));
    assert_eq!(stored(store, "a").await, others[0]);
    let failed = Delivery { next_try: hour(3), claimed_by: None, claimed_until: None, ..others[0].clone() };
    assert!(store.notifications.update(&failed).await.expect("updated"));
    assert_eq!(stored(store, "a").await, Delivery { version: 3, ..failed });
    assert_eq!(claimed(store, &claim("n1", 2)).await, []);
    assert_eq!(ids(&claimed(store, &claim("n1", 3)).await), ["a"]);
}

pub(super) async fn of_concurrent_claims_each_delivery_goes_to_one(store: &Store) {
    for i in 0..30 {
        enqueue(store, &one(&format!("{i:02}"))).await;
    }
    let tasks: Vec<_> = (0..6)
        .map(|n| {
            let store = store.clone();
            tokio::spawn(async move {
                let mut mine = Vec::new();
                for _ in 0..4 {
                    let some = Claim { limit: 3, ..claim(&format!("n{n}"), 1) };
                    mine.extend(claimed(&store, &some).await.into_iter().map(|d| d.id));
                }
                mine
            })
        })
        .collect();
    let mut all = Vec::new();
    for task in tasks {
        all.extend(task.await.expect("the task ends"));
    }
    all.extend(claimed(store, &claim("last", 1)).await.into_iter().map(|d| d.id));
    all.sort();
    assert_eq!(all, (0..30).map(|i| format!("{i:02}")).collect::<Vec<_>>());
}

pub(super) async fn a_claim_keeps_to_its_limits(store: &Store) {
    for (i, endpoint) in ["e", "e", "e", "f", "f", "g"].into_iter().enumerate() {
        let new = Delivery { endpoint: endpoint.into(), next_try: hour(i as i64 - 9), ..one(&i.to_string()) };
        enqueue(store, &new).await;
    }
    let two_each = Claim { per_endpoint: 2, limit: 3, ..claim("n", 1) };
    assert_eq!(ids(&claimed(store, &two_each).await), ["0", "1", "3"]);
    let but_e = Claim { except: vec!["e".into(), "x".into()], ..claim("n", 1) };
    assert_eq!(ids(&claimed(store, &but_e).await), ["4", "5"]);
    assert_eq!(ids(&claimed(store, &claim("n", 1)).await), ["2"]);
}

pub(super) async fn a_delivery_waits_for_those_before_it(store: &Store) {
    enqueue(store, &one("alert")).await;
    enqueue(store, &one("other")).await;
    let recovery = Delivery {
        after: vec!["alert".into(), "other".into()],
        events: vec![event("alert", AlertEventKind::Resolved, 1)],
        ..one("recovery")
    };
    enqueue(store, &recovery).await;
    let mut first = claimed(store, &claim("n", 1)).await;
    first.sort_by(|a, b| a.id.cmp(&b.id));
    assert_eq!(ids(&first), ["alert", "other"]);
    let end = |delivery: &Delivery, status| {
        let ended = Delivery {
            status,
            claimed_by: None,
            claimed_until: None,
            ended: Some(hour(2)),
            ..delivery.clone()
        };
        async move { assert!(store.notifications.update(&ended).await.expect("updated")) }
    };
    end(&first[0], DeliveryStatus::Delivered).await;
    // One that failed and is to be tried again has not ended.
    end(&first[1], DeliveryStatus::Pending).await;
    assert_eq!(store.notifications.unblock().await.expect("looked through"), 0);
    assert_eq!(stored(store, "recovery").await.after, ["other"]);
    let again = claimed(store, &claim("n", 3)).await;
    assert_eq!(ids(&again), ["other"]);
    end(&again[0], DeliveryStatus::Dead).await;
    assert_eq!(ids(&claimed(store, &claim("n", 3)).await), ["recovery"]);
    // What has ended before, or never was, is not waited for.
    let late = Delivery { after: vec!["alert".into(), "nobody".into()], ..one("late") };
    enqueue(store, &late).await;
    assert_eq!(ids(&claimed(store, &claim("n", 3)).await), ["late"]);
}

pub(super) async fn deliveries_are_filtered_counted_and_paged(store: &Store) {
    use DeliveryStatus::{Dead, Delivered, Pending, Suppressed};
    for i in 0..12_i64 {
        let mut event = event(&format!("Dev%_{i:02}"), AlertEventKind::Raised, 0);
        if i >= 8 {
            event.account = account("other");
        }
        let new = Delivery {
            status: [Pending, Delivered, Dead][i as usize % 3],
            created: hour((i * 5) % 12),
            ..delivery(&format!("d{i:02}"), if i % 2 == 0 { "even" } else { "odd" }, &[event])
        };
        enqueue(store, &new).await;
    }
    let page = |filter: DeliveryFilter, offset, limit| async move {
        let page = store.notifications.deliveries(&filter, offset, limit).await.expect("listed");
        let ids: Vec<String> = page.deliveries.iter().map(|d| d.id.clone()).collect();
        (page.counts.map(|(_, count)| count), ids)
    };
    let all = DeliveryFilter::default();
    let (counts, newest) = page(all.clone(), 0, 3).await;
    assert_eq!((counts, newest), ([4, 4, 4, 0], vec!["d07".into(), "d02".into(), "d09".into()]));
    let statuses = store.notifications.deliveries(&all, 0, 0).await.expect("listed").counts.map(|(s, _)| s);
    assert_eq!(statuses, [Pending, Delivered, Dead, Suppressed]);
    assert_eq!(page(all.clone(), 10, 5).await.1, ["d05", "d00"]);
    assert_eq!(page(all.clone(), 50, 5).await.1, Vec::<String>::new());
    let dead = DeliveryFilter { status: Some(Dead), ..all.clone() };
    assert_eq!(
        page(dead, 0, 10).await,
        ([4, 4, 4, 0], vec!["d02".into(), "d11".into(), "d08".into(), "d05".into()])
    );
    let odd = DeliveryFilter { endpoint: Some("odd".into()), status: Some(Pending), ..all.clone() };
    assert_eq!(page(odd, 0, 10).await, ([2, 2, 2, 0], vec!["d09".into(), "d03".into()]));
    let other = DeliveryFilter { account: Some(account("other")), ..all.clone() };
    assert_eq!(page(other, 0, 10).await.0, [1, 1, 2, 0]);
    for (text, found) in [
        ("dev%_03", 1),
        ("DEV%_0", 10),
        ("über", 12),
        ("too much", 12),
        ("d07", 1),
        ("$created", 0),
        ("Dev._03", 0),
        ("no such", 0),
    ] {
        let filter = DeliveryFilter { text: Some(text.into()), ..all.clone() };
        assert_eq!(page(filter, 0, 100).await.1.len(), found, "{text}");
    }
}

pub(super) async fn a_delivery_is_sent_again_unless_a_notifier_is_at_it(store: &Store) {
    let dead = Delivery {
        status: DeliveryStatus::Dead,
        reason: Some("given up".into()),
        held_until: Some(hour(1)),
        attempts: vec![Attempt { at: hour(1), status: None, error: Some("x".into()), took_ms: 1 }],
        tries: 9,
        ended: Some(hour(1)),
        version: 4,
        ..one("a")
    };
    enqueue(store, &dead).await;
    let resend = |id: &'static str, hours| async move {
        store.notifications.resend(id, hour(hours)).await.expect("answered")
    };
    assert_eq!(resend("none", 2).await, Resent::Unknown);
    let expected = Delivery {
        status: DeliveryStatus::Pending,
        reason: None,
        held_until: None,
        tries: 0,
        next_try: hour(2),
        since: hour(2),
        ended: None,
        version: 5,
        ..dead
    };
    assert_eq!(resend("a", 2).await, Resent::Yes(Box::new(expected.clone())));
    assert_eq!(stored(store, "a").await, expected);
    assert_eq!(ids(&claimed(store, &claim("n", 2)).await), ["a"]);
    assert_eq!(resend("a", 2).await, Resent::InProgress);
    assert!(matches!(resend("a", 3).await, Resent::Yes(_)));
}

pub(super) async fn old_deliveries_that_have_ended_are_forgotten(store: &Store) {
    use DeliveryStatus::{Dead, Delivered, Pending, Suppressed};
    for (i, status) in [Pending, Delivered, Dead, Suppressed, Delivered].into_iter().enumerate() {
        enqueue(store, &Delivery { status, created: hour(i as i64), ..one(&i.to_string()) }).await;
    }
    let forget = |hours| async move { store.notifications.forget(hour(hours)).await.expect("forgotten") };
    assert_eq!(forget(1).await, 0);
    assert_eq!(forget(4).await, 3);
    let page = store.notifications.deliveries(&DeliveryFilter::default(), 0, 10).await.expect("listed");
    assert_eq!(ids(&page.deliveries), ["4", "0"]);
    let event = &one("1").events[0];
    assert_eq!(store.notifications.deliveries_of_event(&event.id).await.expect("read"), []);
    assert_eq!(enqueue(store, &one("1")).await, Enqueued::New);
}

pub(super) async fn the_alert_of_a_recovery_is_found(store: &Store) {
    use AlertEventKind::{Raised, Resolved};
    let recorded = [
        event("a", Raised, 1),
        event("a", Resolved, 2),
        event("a", Raised, 3),
        event("a", Raised, 9),
        event("b", Raised, 4),
        AlertEvent { rule: "other".into(), id: "o".into(), ..event("a", Raised, 4) },
    ];
    store.alert_states.record(&recorded).await.expect("recorded");
    let alert = |recovery: AlertEvent| async move {
        store.notifications.alert_ended_by(&recovery).await.expect("looked for")
    };
    assert_eq!(alert(event("a", Resolved, 5)).await, Some(event("a", Raised, 3)));
    assert_eq!(alert(event("a", Resolved, 3)).await, Some(event("a", Raised, 3)));
    assert_eq!(alert(event("a", Resolved, 2)).await, Some(event("a", Raised, 1)));
    assert_eq!(alert(event("a", Resolved, 0)).await, None);
    assert_eq!(alert(event("c", Resolved, 5)).await, None);
}

pub(super) async fn the_deliveries_of_an_alert_are_found_newest_first(store: &Store) {
    let at = |id: &str, hours: i64| Delivery {
        id: id.into(),
        created: hour(hours),
        events: vec![
            event("a", AlertEventKind::Raised, hours),
            event(&format!("b{hours}"), AlertEventKind::Raised, hours),
        ],
        ..one("a")
    };
    for new in [at("1", 1), at("3", 3), at("2", 2), Delivery { endpoint: "f".into(), ..at("4", 4) }, one("c")]
    {
        enqueue(store, &new).await;
    }
    let key = alert_key(&event("a", AlertEventKind::Resolved, 7));
    let found = |limit| {
        let key = key.clone();
        async move { store.notifications.deliveries_of_alert("e", &key, limit).await.expect("read") }
    };
    assert_eq!(ids(&found(10).await), ["3", "2", "1"]);
    assert_eq!(ids(&found(2).await), ["3", "2"]);
}

pub(super) async fn an_event_is_taken_once_it_is_marked(store: &Store) {
    let outbox = &store.notifications;
    assert!(!outbox.is_taken("e1").await.expect("looked for"));
    for _ in 0..2 {
        outbox.mark_taken("e1", hour(1)).await.expect("marked");
    }
    assert!(outbox.is_taken("e1").await.expect("looked for"));
    assert!(!outbox.is_taken("e2").await.expect("looked for"));
}
