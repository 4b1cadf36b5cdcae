//! Who is told of what.

use std::time::Duration;

use galerna_broker::DeadLetterSelection;
use galerna_model::AlertEventKind::{Raised, Resolved};
use galerna_model::{AccountId, Clock, QueueName, Timestamp};
use galerna_notifier::{ALERTS_QUEUE, Options, RetrySchedule, end_silence, put_silence};
use galerna_storage::DeliveryStatus::{Dead, Delivered, Pending, Suppressed};
use galerna_storage::{Delivery, Endpoint, EndpointKind, Silence};
use serde_json::Value;

use crate::receiver::{Answer, Receiver};
use crate::world::{World, hook, options, raised, resolved, seen, until};

pub(crate) async fn an_alert_and_its_recovery_reach_every_endpoint_of_the_rule(mut world: World) {
    let (one, two, other) = (Receiver::start().await, Receiver::start().await, Receiver::start().await);
    world.endpoint(hook("one", &one.url())).await;
    let kind = EndpointKind::Webhook {
        url: format!("http://{}/put?a=b", two.address),
        method: "PUT".into(),
        headers: [("content-type".to_owned(), "text/plain".to_owned())].into(),
        body: Some("{{ type }}: {{ events[0].message }}".into()),
        secret: None,
    };
    world.endpoint(Endpoint { kind, ..hook("two", "http://unused.example/") }).await;
    world.endpoint(hook("other", &other.url())).await;
    world.endpoint(Endpoint { kind: EndpointKind::Log {}, ..hook("log", "http://unused.example/") }).await;
    world.rule("r", &["one", "two", "log", "one"]).await;
    world.rule("another", &["other"]).await;
    let notifier = world.start(options()).await;

    world.raise(&[raised("d", 0)]).await;
    assert_eq!(one.took(1).await, [seen("raised", "d")]);
    world.raise(&[resolved("d", 60)]).await;
    assert_eq!(one.took(2).await, [seen("raised", "d"), seen("resolved", "d")]);
    two.called(2).await;
    world.quiet(6).await;

    let call = &one.calls()[0];
    assert_eq!((call.method.as_str(), call.path.as_str()), ("POST", "/hook"));
    assert_eq!(call.headers["content-type"], "application/json");
    assert_eq!(call.headers["x-key"], "hunter2");
    assert!(call.headers["user-agent"].starts_with("galerna-notifier/"));
    assert!(call.headers["webhook-timestamp"].parse::<i64>().is_ok());
    assert!(!call.headers.contains_key("webhook-signature"));
    let body: Value = serde_json::from_str(&call.body).unwrap();
    assert_eq!(body["type"], "alert.raised");
    assert_eq!(body["data"]["events"][0]["message"], "401 of d is 4900.5 W, above 4000");
    let call = &two.calls()[1];
    assert_eq!((call.method.as_str(), call.path.as_str()), ("PUT", "/put?a=b"));
    assert_eq!(call.headers["content-type"], "text/plain");
    assert_eq!(call.body, "alert.resolved: 401 of d is 4900.5 W, above 4000");

    let deliveries = world.deliveries().await;
    assert_eq!(deliveries.len(), 6, "{deliveries:?}");
    for delivery in &deliveries {
        assert_eq!((delivery.status, delivery.attempts.len()), (Delivered, 1), "{delivery:?}");
        assert_eq!(delivery.attempts[0].error, None);
        assert!(delivery.ended.is_some() && delivery.claimed_by.is_none());
    }
    let of_one = deliveries.iter().find(|d| d.endpoint == "one").unwrap();
    assert_eq!(of_one.attempts[0].status, Some(204));
    assert_eq!(one.calls()[0].id(), of_one.id);
    assert_eq!(other.calls().len(), 0);

    let metrics = notifier.metrics_text();
    for line in [
        "galerna_notifier_events_total{outcome=\"taken\"} 2",
        "galerna_notifier_deliveries_total{kind=\"webhook\",status=\"delivered\"} 4",
        "galerna_notifier_deliveries_total{kind=\"log\",status=\"delivered\"} 2",
        "galerna_notifier_attempts_total{kind=\"webhook\",outcome=\"taken\"} 4",
        "galerna_notifier_attempt_duration_seconds_count{kind=\"webhook\"} 4",
    ] {
        assert!(metrics.contains(line), "{line} is missing in\n{metrics}");
    }
    assert!(!metrics.contains("acme") && !metrics.contains("\"one\""), "{metrics}");
}

pub(crate) async fn events_of_a_grouping_window_go_out_together(mut world: World) {
    let receiver = Receiver::start().await;
    world.endpoint(Endpoint { group_ms: 3_600_000, ..hook("hook", &receiver.url()) }).await;
    world.rule("r", &["hook"]).await;
    world.start(options()).await;
    let devices = ["a", "b", "c", "d"];
    for (i, device) in devices.into_iter().enumerate() {
        world.raise(&[raised(device, i as i64)]).await;
        until("the event in the outbox", || async {
            world.deliveries().await.iter().map(|d| d.events.len()).sum::<usize>() == i + 1
        })
        .await;
    }
    world.raise(&[resolved("a", 60)]).await;
    until("the recovery in the outbox", || async { world.deliveries().await[0].events.len() == 5 }).await;
    let deliveries = world.deliveries().await;
    assert_eq!((deliveries.len(), deliveries[0].status), (1, Pending));
    assert_eq!(receiver.calls().len(), 0, "the window is open");

    world.clock.advance(Duration::from_secs(3600));
    let calls = receiver.called(1).await;
    let body: Value = serde_json::from_str(&calls[0].body).unwrap();
    assert_eq!(body["type"], "alert.group");
    let mut expected: Vec<_> = devices.iter().map(|device| seen("raised", device)).collect();
    expected.push(seen("resolved", "a"));
    assert_eq!(calls[0].events(), expected);
    // The next window.
    world.raise(&[raised("e", 100)]).await;
    world.delivery(Raised, "e", Pending).await;
    world.clock.advance(Duration::from_secs(3600));
    assert_eq!(receiver.called(2).await[1].events(), [seen("raised", "e")]);
    world.quiet(2).await;
    assert_eq!(receiver.calls().len(), 2);
}

pub(crate) async fn silenced_alerts_are_not_sent_and_nor_are_their_recoveries(mut world: World) {
    let receiver = Receiver::start().await;
    world.hook(&receiver.url()).await;
    world.start(options()).await;
    world.raise(&[raised("Panther_1", 0)]).await;
    receiver.took(1).await;

    let silence = Silence {
        id: "s1".into(),
        account: Some(AccountId::new("acme").unwrap()),
        device: Some("Panther_*".into()),
        rule: Some("r".into()),
        until: world.clock.now().plus_millis(3_600_000),
        reason: "the meter is being replaced".into(),
        by: "ann".into(),
        created: world.clock.now(),
    };
    put_silence(&world.store, &silence).await.unwrap();
    for (id, changed) in [
        ("account", Silence { account: Some(AccountId::new("another").unwrap()), ..silence.clone() }),
        ("rule", Silence { rule: Some("another".into()), ..silence.clone() }),
        ("over", Silence { until: world.clock.now().plus_millis(-1), device: None, ..silence.clone() }),
    ] {
        put_silence(&world.store, &Silence { id: id.into(), ..changed }).await.unwrap();
    }
    // Who was told of an alert is told of its end.
    world.raise(&[resolved("Panther_1", 10)]).await;
    receiver.took(2).await;
    world.raise(&[raised("Panther_2", 20), raised("Lion_1", 20)]).await;
    let silenced = world.delivery(Raised, "Panther_2", Pending).await;
    assert_eq!(silenced.held_until, Some(silence.until));
    let reason = silenced.reason.unwrap();
    for part in ["silenced until", "ann", "the meter is being replaced", "s1"] {
        assert!(reason.contains(part), "{reason}");
    }
    assert_eq!(silenced.attempts, []);
    // The alert ends before the silence does: there is nothing to tell.
    world.raise(&[resolved("Panther_2", 30)]).await;
    let over = world.delivery(Raised, "Panther_2", Suppressed).await;
    assert!(over.reason.unwrap().ends_with("; it resolved before that was over"));
    let recovery = world.delivery(Resolved, "Panther_2", Suppressed).await;
    assert!(recovery.reason.unwrap().starts_with("its alert was not sent: silenced"));
    world.clock.advance(Duration::from_secs(3601));
    world.raise(&[raised("Panther_2", 40)]).await;
    world.delivery(Raised, "Panther_2", Delivered).await;
    world.quiet(6).await;
    assert_eq!(
        receiver.events(),
        [
            seen("raised", "Panther_1"),
            seen("resolved", "Panther_1"),
            seen("raised", "Lion_1"),
            seen("raised", "Panther_2")
        ]
    );
}

pub(crate) async fn an_alert_that_fires_still_when_its_silence_ends_is_told_once(mut world: World) {
    let receiver = Receiver::start().await;
    world.hook(&receiver.url()).await;
    world.start(options()).await;
    let silence = |id: &str, device: &str, minutes: i64| Silence {
        id: id.into(),
        account: None,
        device: Some(device.into()),
        rule: None,
        until: world.clock.now().plus_millis(minutes * 60_000),
        reason: "works".into(),
        by: "ann".into(),
        created: world.clock.now(),
    };
    let (al, other) = (silence("al", "al_*", 1), silence("other", "other", 10_000));
    put_silence(&world.store, &al).await.unwrap();
    put_silence(&world.store, &other).await.unwrap();
    world.raise(&[raised("al_1", 0), raised("other", 0)]).await;
    let held = world.delivery(Raised, "al_1", Pending).await;
    world.delivery(Raised, "other", Pending).await;
    world.clock.advance(Duration::from_secs(61));
    assert_eq!(receiver.took(1).await, [seen("raised", "al_1")]);
    assert_eq!(receiver.calls()[0].id(), held.id);
    // One that is ended early.
    assert!(end_silence(&world.store, &*world.clock, "other").await.unwrap());
    assert!(!end_silence(&world.store, &*world.clock, "other").await.unwrap());
    assert_eq!(receiver.took(2).await[1], seen("raised", "other"));
    world.raise(&[resolved("al_1", 10)]).await;
    assert_eq!(receiver.took(3).await[2], seen("resolved", "al_1"));
    world.quiet(3).await;
    assert_eq!(receiver.calls().len(), 3);
}

pub(crate) async fn within_the_cooldown_the_same_alert_is_not_sent_again(mut world: World) {
    let receiver = Receiver::start().await;
    world.cooling(&receiver).await;
    world.raise(&[raised("d", 20), resolved("d", 30), raised("other", 20)]).await;
    let again = world.delivery(Raised, "d", Suppressed).await;
    assert!(again.reason.unwrap().starts_with("cooldown: the same alert was sent at "));
    let recovery = world.delivery(Resolved, "d", Suppressed).await;
    assert!(recovery.reason.unwrap().starts_with("its alert was not sent: cooldown"));
    receiver.took(3).await;
    world.clock.advance(Duration::from_secs(3601));
    world.raise(&[raised("d", 40)]).await;
    receiver.took(4).await;
    world.quiet(6).await;
    assert_eq!(
        receiver.events(),
        [seen("raised", "d"), seen("resolved", "d"), seen("raised", "other"), seen("raised", "d")]
    );
}

pub(crate) async fn an_alert_that_fires_still_when_its_cooldown_is_over_is_told_then(mut world: World) {
    let receiver = Receiver::start().await;
    world.cooling(&receiver).await;
    let first = world.delivery(Raised, "d", Delivered).await;
    world.raise(&[raised("d", 20), raised("other", 20)]).await;
    receiver.took(3).await;
    let held = world.delivery(Raised, "d", Pending).await;
    assert_eq!(held.held_until, Some(first.created.plus_millis(3_600_000)));
    assert!(held.reason.as_ref().unwrap().starts_with("cooldown: the same alert was sent at "), "{held:?}");
    assert_eq!(receiver.events()[2], seen("raised", "other"));
    // It is in the outbox: a crash and an event that comes again change nothing.
    world.crash().await;
    world.start(options()).await;
    world.publish(&[raised("d", 20)]).await;
    world.clock.advance(Duration::from_secs(3601));
    assert_eq!(receiver.took(4).await[3], seen("raised", "d"));
    world.quiet(4).await;
    let told = world.store.notifications.delivery(&held.id).await.unwrap().unwrap();
    assert_eq!((told.status, told.reason, told.held_until), (Delivered, None, None));
    assert_eq!(receiver.calls()[3].id(), held.id);
    // The next cooldown counts from when it was told.
    world.raise(&[resolved("d", 30)]).await;
    assert_eq!(receiver.took(5).await[4], seen("resolved", "d"));
    world.raise(&[raised("d", 40)]).await;
    let held = world.delivery(Raised, "d", Pending).await;
    assert_eq!(held.held_until, Some(told.since.plus_millis(3_600_000)));
    world.raise(&[resolved("d", 50)]).await;
    let dropped = world.delivery(Raised, "d", Suppressed).await;
    let reason = dropped.reason.unwrap();
    assert!(reason.ends_with("; it resolved before that was over"), "{reason}");
    world.quiet(7).await;
    assert_eq!(receiver.calls().len(), 5);
}

pub(crate) async fn an_alert_that_is_silenced_when_its_cooldown_is_over_is_not_told(mut world: World) {
    let receiver = Receiver::start().await;
    world.cooling(&receiver).await;
    world.raise(&[raised("d", 20)]).await;
    world.delivery(Raised, "d", Pending).await;
    let silence = Silence {
        id: "s1".into(),
        account: None,
        device: None,
        rule: None,
        until: world.clock.now().plus_millis(7_200_000),
        reason: "night".into(),
        by: "ann".into(),
        created: world.clock.now(),
    };
    put_silence(&world.store, &silence).await.unwrap();
    world.clock.advance(Duration::from_secs(3601));
    let until = |of: &'static str| {
        let world = &world;
        async move { world.delivery(Raised, "d", Pending).await.reason.is_some_and(|why| why.starts_with(of)) }
    };
    crate::world::until("the silence holds it back", || until("silenced until")).await;
    world.raise(&[resolved("d", 30)]).await;
    world.delivery(Raised, "d", Suppressed).await;
    let recovery = world.delivery(Resolved, "d", Suppressed).await;
    assert!(recovery.reason.unwrap().starts_with("its alert was not sent: silenced until"));
    assert_eq!(receiver.calls().len(), 2);
}

pub(crate) async fn what_ends_the_alert_before_is_told_before_what_a_cooldown_holds_back(mut world: World) {
    let receiver = Receiver::answering(|call, before| match call.events()[0].0.as_str() {
        "resolved" if before < 2 => Answer::Full(503, vec![("retry-after", "7200".into())], String::new()),
        _ => Answer::Status(200),
    })
    .await;
    world.hook_with_cooldown(&receiver.url()).await;
    world.start(options()).await;
    world.store.alert_states.record(&[raised("d", 0), resolved("d", 10), raised("d", 20)]).await.unwrap();
    world.publish(&[raised("d", 0)]).await;
    receiver.took(1).await;
    world.quiet(1).await;
    // The broker gives them in another order. The recovery is tried at once, though what came first is held back.
    world.publish(&[raised("d", 20)]).await;
    let held = world.delivery(Raised, "d", Pending).await;
    world.publish(&[resolved("d", 10)]).await;
    until("the recovery to fail", || async {
        world.deliveries().await.iter().any(|d| d.tries == 1 && d.status == Pending)
    })
    .await;
    // The cooldown is over before the receiver takes the recovery.
    world.clock.advance(Duration::from_secs(3601));
    until("the alert to wait for it", || async {
        world.store.notifications.delivery(&held.id).await.unwrap().unwrap().next_try > held.next_try
    })
    .await;
    world.clock.advance(Duration::from_secs(3600));
    receiver.took(3).await;
    world.quiet(3).await;
    assert_eq!(receiver.events(), [seen("raised", "d"), seen("resolved", "d"), seen("raised", "d")]);
}

pub(crate) async fn an_alert_that_was_given_up_begins_no_cooldown(mut world: World) {
    let receiver = Receiver::answering(|_, before| Answer::Status(if before == 0 { 410 } else { 200 })).await;
    let patient = Endpoint { cooldown_ms: 3_600_000, ..hook("hook", &receiver.url()) };
    world.endpoint(patient.clone()).await;
    world.rule("r", &["hook"]).await;
    world.start(options()).await;
    world.raise(&[raised("d", 0)]).await;
    world.delivery(Raised, "d", Dead).await;
    world.endpoint(patient).await;
    world.raise(&[raised("d", 10)]).await;
    assert_eq!(receiver.took(1).await, [seen("raised", "d")]);
}

pub(crate) async fn what_has_ended_is_forgotten_in_the_end(mut world: World) {
    let receiver =
        Receiver::answering(|call, _| Answer::Status(if call.events()[0].1 == "stuck" { 500 } else { 200 }))
            .await;
    world.hook(&receiver.url()).await;
    let keep = Duration::from_secs(48 * 3600);
    let start =
        || Options { keep, retry: RetrySchedule { attempts: u32::MAX, ..options().retry }, ..options() };
    world.start(start()).await;
    world.raise(&[raised("d", 0), raised("stuck", 0)]).await;
    receiver.took(1).await;
    world.delivery(Raised, "d", Delivered).await;
    // Before that it may still be in the queue, from which nobody takes it once the notifier has ended.
    world.delivery(Raised, "stuck", Pending).await;
    world.stop().await;
    // One that is to be tried again is kept, whatever its age.
    let stuck = world.delivery(Raised, "stuck", Pending).await;
    let outbox = &world.store.notifications;
    assert!(outbox.update(&Delivery { next_try: Timestamp(i64::MAX >> 1), ..stuck }).await.unwrap());
    world.clock.advance(keep + Duration::from_secs(3600));
    world.start(start()).await;
    until("the old one to be forgotten", || async { world.deliveries().await.len() == 1 }).await;
    assert_eq!(world.deliveries().await[0].events[0].device, "stuck");
    // An event of such an old alert is told all the same, and the alert is not told again.
    world.raise(&[raised("d", 0), resolved("d", 10)]).await;
    assert_eq!(receiver.took(2).await, [seen("raised", "d"), seen("resolved", "d")]);
}

pub(crate) async fn an_event_that_comes_twice_is_told_once(mut world: World) {
    let receiver = Receiver::start().await;
    world.hook(&receiver.url()).await;
    let notifier = world.start(options()).await;
    world.raise(&[raised("d", 0), raised("d", 0), resolved("d", 10), raised("d", 0)]).await;
    receiver.took(2).await;
    world.raise(&[resolved("d", 10), raised("last", 20)]).await;
    receiver.took(3).await;
    world.quiet(3).await;
    assert_eq!(receiver.calls().len(), 3);
    assert_eq!(world.deliveries().await.len(), 3);
    until("the metrics", || async {
        notifier.metrics_text().contains("galerna_notifier_events_total{outcome=\"known\"} 3")
    })
    .await;
}

pub(crate) async fn a_message_that_is_no_event_becomes_a_dead_letter(mut world: World) {
    let receiver = Receiver::start().await;
    world.hook(&receiver.url()).await;
    world.start(options()).await;
    let mut odd = serde_json::to_value(raised("d", 0)).unwrap();
    odd["account"] = "a b".into();
    world
        .publish_raw(vec![
            ("1".into(), b"{\"id\": 1".to_vec()),
            ("2".into(), odd.to_string().into_bytes()),
            ("3".into(), vec![0xff, 0xfe]),
        ])
        .await;
    world.raise(&[raised("d", 0)]).await;
    receiver.took(1).await;
    let queue = QueueName::new(ALERTS_QUEUE).unwrap();
    until("three dead letters", || async {
        world.broker.dead_letters(&queue, 0, 10).await.unwrap().len() == 3
    })
    .await;
    let letters = world.broker.dead_letters(&queue, 0, 10).await.unwrap();
    for letter in &letters {
        assert!(letter.failure.reason.starts_with("is no alert event: "), "{letter:?}");
        assert_eq!(letter.failure.component, "notifier");
    }
    assert!(letters.iter().any(|letter| letter.failure.reason.contains("account id `a b`")), "{letters:?}");
    assert_eq!(world.broker.discard(&queue, DeadLetterSelection::All).await.unwrap(), 3);
}

pub(crate) async fn what_cannot_be_told_says_why(mut world: World) {
    let receiver = Receiver::start().await;
    world.endpoint(Endpoint { enabled: false, ..hook("off", &receiver.url()) }).await;
    let another = AccountId::new("another").unwrap();
    world.endpoint(Endpoint { account: Some(another), ..hook("theirs", &receiver.url()) }).await;
    let mail =
        EndpointKind::Email { to: vec!["a@example.com".into()], subject: None, text: None, html: None };
    world.endpoint(Endpoint { kind: mail, ..hook("mail", &receiver.url()) }).await;
    // Stored without a check.
    let mut bad = hook("bad", &receiver.url());
    if let EndpointKind::Webhook { body, .. } = &mut bad.kind {
        *body = Some("{{ nothing }}".into());
    }
    world.store.notifications.put_endpoint(&bad).await.unwrap();
    world.rule("r", &["off", "nobody", "theirs", "mail", "bad"]).await;
    world.start(options()).await;
    world.raise(&[raised("d", 0)]).await;
    until("four endpoints", || async {
        let deliveries = world.deliveries().await;
        deliveries.len() == 4 && deliveries.iter().all(|d| d.status != Pending)
    })
    .await;
    for delivery in world.deliveries().await {
        let (status, reason) = match delivery.endpoint.as_str() {
            "off" => (Suppressed, "the endpoint is disabled"),
            "nobody" => (Suppressed, "there is no endpoint `nobody`"),
            "mail" => (Dead, "no mail server"),
            "bad" => (Dead, "body: the template fails: undefined"),
            other => panic!("{other} was told"),
        };
        assert_eq!(delivery.status, status, "{delivery:?}");
        assert!(delivery.reason.as_ref().unwrap().contains(reason), "{delivery:?}");
    }
    assert_eq!(receiver.calls().len(), 0);
}

pub(crate) async fn a_test_is_sent_at_once_and_marked(mut world: World) {
    let receiver = Receiver::start().await;
    let slow = Endpoint { group_ms: 3_600_000, cooldown_ms: 3_600_000, ..hook("hook", &receiver.url()) };
    world.endpoint(Endpoint { enabled: false, ..slow }).await;
    world.rule("r", &["hook"]).await;
    world.rule("none", &[]).await;
    world.rule("broken", &["nobody"]).await;
    let notifier = world.start(options()).await;
    let first = notifier.test_fire("hook").await.unwrap();
    let second = notifier.test_fire_rule("r").await.unwrap();
    let calls = receiver.called(2).await;
    let mut sent: Vec<&str> = calls.iter().map(|call| call.id()).collect();
    let mut fired = [first.as_str(), second[0].as_str()];
    sent.sort_unstable();
    fired.sort_unstable();
    assert_eq!(sent, fired);
    for call in &calls {
        let body: Value = serde_json::from_str(&call.body).unwrap();
        assert_eq!((&body["type"], &body["data"]["test"]), (&"alert.test".into(), &true.into()));
    }
    let of_rule = calls.iter().find(|call| call.id() == second[0]).unwrap();
    assert!(of_rule.body.contains("\"Rule r\"") && of_rule.body.contains("critical"), "{}", of_rule.body);
    // One try, and the reason.
    receiver.answer(|_, _| Answer::Status(500));
    let third = notifier.test_fire("hook").await.unwrap();
    until("the test to fail", || async {
        world.store.notifications.delivery(&third).await.unwrap().unwrap().status == Dead
    })
    .await;
    let failed = world.store.notifications.delivery(&third).await.unwrap().unwrap();
    assert_eq!(failed.reason.unwrap(), "given up after attempt 1: answered 500 Internal Server Error");
    for (error, part) in [
        (notifier.test_fire("x").await.unwrap_err(), "no endpoint `x`"),
        (notifier.test_fire_rule("x").await.unwrap_err(), "no rule `x`"),
        (notifier.test_fire_rule("broken").await.unwrap_err(), "no endpoint `nobody`"),
        (notifier.test_fire_rule("none").await.unwrap_err(), "endpoints: is empty"),
    ] {
        assert!(error.to_string().contains(part), "{error}");
    }
}
