//! No recovery before its alert.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;

use galerna_model::AlertEventKind::{Raised, Resolved};
use galerna_model::Clock;
use galerna_notifier::{Options, RetrySchedule};
use galerna_storage::DeliveryStatus::{Dead, Delivered, Pending, Suppressed};
use galerna_storage::{Endpoint, EndpointKind, Resent};

use crate::receiver::{Answer, Call, Receiver};
use crate::world::{World, hook, options, raised, resolved, seen, until};

pub(crate) async fn a_recovery_waits_for_its_alert_however_often_that_fails(mut world: World) {
    let receiver = Receiver::answering(|_, before| Answer::Status(if before < 5 { 500 } else { 200 })).await;
    world.hook(&receiver.url()).await;
    world.start(options()).await;
    world.raise(&[raised("d", 0), resolved("d", 10), raised("d", 20)]).await;
    receiver.took(3).await;
    world.quiet(3).await;
    assert_eq!(receiver.events(), [seen("raised", "d"), seen("resolved", "d"), seen("raised", "d")]);
    let calls = receiver.calls();
    assert_eq!(calls.len(), 8);
    assert!(calls[..6].iter().all(|call| call.id() == calls[0].id() && call.body == calls[0].body));
    assert_ne!(calls[6].id(), calls[0].id());
    let first = &world.deliveries().await[0];
    assert_eq!((first.tries, first.attempts.len()), (6, 6));
    assert!(first.attempts[..5].iter().all(|a| a.status == Some(500) && a.error.is_some()));
    assert!(first.attempts[5].error.is_none());
}

pub(crate) async fn a_recovery_is_withheld_when_its_alert_was_given_up(mut world: World) {
    let refusing = |call: &Call| call.events().contains(&seen("raised", "d"));
    let receiver =
        Receiver::answering(move |call, _| Answer::Status(if refusing(call) { 400 } else { 200 })).await;
    world.hook(&receiver.url()).await;
    let retry = RetrySchedule { attempts: 3, ..options().retry };
    let notifier = world.start(Options { retry, ..options() }).await;
    // One recovery comes while its alert is being tried, or later; the other one after it was given up.
    world.raise(&[raised("d", 0), resolved("d", 10)]).await;
    let alert = world.delivery(Raised, "d", Dead).await;
    let withheld = world.delivery(Resolved, "d", Suppressed).await;
    assert_eq!(alert.reason.unwrap(), "given up after attempt 3: answered 400 Bad Request");
    let why = "its alert was not delivered: given up after attempt 3: answered 400 Bad Request";
    assert_eq!(withheld.reason.unwrap(), format!("{why} ({})", alert.id));
    assert!(withheld.attempts.is_empty() && withheld.ended.is_some());
    world.raise(&[raised("d", 20)]).await;
    world.quiet(3).await;
    world.raise(&[resolved("d", 30), raised("last", 40)]).await;
    receiver.took(1).await;
    world.quiet(5).await;
    assert_eq!(receiver.events(), [seen("raised", "last")]);
    let recoveries = world.deliveries().await;
    let mut recoveries = recoveries.iter().filter(|d| d.events[0].kind == Resolved);
    assert!(recoveries.all(|d| d.status == Suppressed && d.reason.as_ref().unwrap().starts_with(why)));
    assert!(
        notifier
            .metrics_text()
            .contains("galerna_notifier_deliveries_total{kind=\"webhook\",status=\"suppressed\"}")
    );
}

pub(crate) async fn a_recovery_is_withheld_however_its_alert_failed(mut world: World) {
    let receiver = Receiver::answering(|call, _| {
        Answer::Status(if call.path == "/gone" && call.events()[0].0 == "raised" { 410 } else { 200 })
    })
    .await;
    let url = |path: &str| format!("http://{}/{path}", receiver.address);
    let mut failing = hook("template", &url("template"));
    if let EndpointKind::Webhook { body, .. } = &mut failing.kind {
        *body = Some("{{ nothing }}".into());
    }
    // Stored without a check.
    world.store.notifications.put_endpoint(&failing).await.unwrap();
    world.endpoint(hook("gone", &url("gone"))).await;
    world.endpoint(Endpoint { enabled: false, ..hook("off", &url("off")) }).await;
    world.rule("r", &["template", "gone", "off"]).await;
    world.start(options()).await;
    world.raise(&[raised("d", 0)]).await;
    world.quiet(3).await;
    // All of them are mended before the device recovers.
    for id in ["template", "gone", "off"] {
        world.endpoint(hook(id, &url(id))).await;
    }
    world.raise(&[resolved("d", 10)]).await;
    world.quiet(6).await;
    for recovery in world.deliveries().await.iter().filter(|d| d.events[0].kind == Resolved) {
        let why = match recovery.endpoint.as_str() {
            "template" => "its alert was not delivered: body: the template fails: ",
            "gone" => "its alert was not delivered: gone: answered 410 Gone",
            _ => "its alert was not sent: the endpoint is disabled",
        };
        assert_eq!(recovery.status, Suppressed, "{recovery:?}");
        assert!(recovery.reason.as_ref().unwrap().starts_with(why), "{recovery:?}");
    }
    assert_eq!(receiver.events(), []);
}

pub(crate) async fn of_a_group_only_the_recoveries_of_undelivered_alerts_are_left_out(mut world: World) {
    let receiver = Receiver::answering(|call, _| {
        let refused = call.events() == [seen("raised", "a")];
        let wait = vec![("retry-after", "600".to_owned())];
        if refused { Answer::Full(503, wait, String::new()) } else { Answer::Status(200) }
    })
    .await;
    world.endpoint(Endpoint { group_ms: 3_600_000, ..hook("hook", &receiver.url()) }).await;
    world.rule("r", &["hook"]).await;
    let retry = RetrySchedule { attempts: 2, ..options().retry };
    world.start(Options { retry, ..options() }).await;
    world.raise(&[raised("a", 0)]).await;
    world.delivery(Raised, "a", Pending).await;
    world.clock.advance(Duration::from_secs(3600));
    until("the first attempt", || async { world.deliveries().await[0].tries == 1 }).await;
    // The recovery begins a group that waits for the alert; once that is given up, another alert joins it.
    world.raise(&[resolved("a", 10)]).await;
    world.delivery(Resolved, "a", Pending).await;
    world.clock.advance(Duration::from_secs(600));
    world.delivery(Raised, "a", Dead).await;
    until("the recovery to be free", || async {
        world.deliveries().await.iter().all(|d| d.after.is_empty())
    })
    .await;
    world.raise(&[raised("b", 20)]).await;
    let group = world.delivery(Raised, "b", Pending).await;
    assert_eq!(group.events.len(), 2, "{group:?}");
    world.clock.advance(Duration::from_secs(3600));
    receiver.took(1).await;
    let group = world.delivery(Raised, "b", Delivered).await;
    assert_eq!(receiver.events(), [seen("raised", "b")]);
    let reason = group.reason.unwrap();
    assert!(
        reason.starts_with("1 of 2 events left out, the first since its alert was not delivered"),
        "{reason}"
    );
}

pub(crate) async fn an_alert_that_is_sent_again_goes_before_its_recovery(mut world: World) {
    let receiver = Receiver::answering(|_, _| Answer::Status(400)).await;
    world.hook(&receiver.url()).await;
    let retry = RetrySchedule { attempts: 2, ..options().retry };
    world.start(Options { retry, ..options() }).await;
    world.raise(&[raised("d", 0), resolved("d", 10)]).await;
    let alert = world.delivery(Raised, "d", Dead).await;
    let recovery = world.delivery(Resolved, "d", Suppressed).await;
    let outbox = &world.store.notifications;
    let again = async |id: &str| {
        assert!(matches!(outbox.resend(id, world.clock.now()).await.unwrap(), Resent::Yes(_)));
    };
    // Nobody was told of the alert yet.
    again(&recovery.id).await;
    world.delivery(Resolved, "d", Suppressed).await;
    world.quiet(2).await;
    assert_eq!(receiver.calls().len(), 2);
    // The alert fails once more; the recovery waits.
    receiver.answer(|_, before| Answer::Status(if before == 2 { 400 } else { 200 }));
    again(&alert.id).await;
    again(&recovery.id).await;
    receiver.took(2).await;
    assert_eq!(receiver.events(), [seen("raised", "d"), seen("resolved", "d")]);
    world.quiet(2).await;
    let ids: Vec<String> = receiver.taken().iter().map(|call| call.id().to_owned()).collect();
    assert_eq!(ids, [alert.id, recovery.id]);
}

pub(crate) async fn a_recovery_that_comes_first_puts_its_alert_before_it(mut world: World) {
    let receiver = Receiver::answering(|_, before| Answer::Status(if before < 2 { 503 } else { 204 })).await;
    world.hook(&receiver.url()).await;
    // The alert bolt records before it publishes; a broker may deliver in another order, and late.
    world.store.alert_states.record(&[raised("d", 0), resolved("d", 10)]).await.unwrap();
    world.publish(&[resolved("d", 10)]).await;
    world.start(options()).await;
    assert_eq!(receiver.took(2).await, [seen("raised", "d"), seen("resolved", "d")]);
    world.publish(&[raised("d", 0)]).await;
    world.raise(&[raised("last", 20)]).await;
    receiver.took(3).await;
    world.quiet(3).await;
    assert_eq!(receiver.events(), [seen("raised", "d"), seen("resolved", "d"), seen("raised", "last")]);
    assert!(world.deliveries().await.iter().all(|d| d.status != Pending));
}

pub(crate) async fn several_notifiers_share_the_work_and_keep_the_order(mut world: World) {
    // Each delivery fails at first, some several times.
    let failures: Mutex<HashMap<String, usize>> = Mutex::default();
    let receiver = Receiver::answering(move |call, _| {
        let mut failures = failures.lock().unwrap();
        let allowed = call.id().bytes().map(usize::from).sum::<usize>() % 4;
        let failed = failures.entry(call.id().to_owned()).or_default();
        if *failed < allowed {
            *failed += 1;
            return Answer::Status(500);
        }
        Answer::Status(204)
    })
    .await;
    world.hook(&receiver.url()).await;
    for n in 0..3 {
        world.start(Options { name: format!("n{n}"), prefetch: 7, in_flight: 5, ..options() }).await;
    }
    let devices: Vec<String> = (0..25).map(|i| format!("d{i:02}")).collect();
    for round in 0..2 {
        let alerts: Vec<_> = devices.iter().map(|d| raised(d, round * 100)).collect();
        world.raise(&alerts).await;
        let recoveries: Vec<_> = devices.iter().map(|d| resolved(d, round * 100 + 50)).collect();
        world.raise(&recoveries).await;
    }
    receiver.took(100).await;
    world.quiet(100).await;
    let events = receiver.events();
    assert_eq!(events.len(), 100, "nobody crashed: each is sent once");
    for device in &devices {
        // Rounds are not ordered among notifiers that take them at once, but each recovery has its alert before it.
        let mut open = 0;
        for (kind, _) in events.iter().filter(|(_, d)| d == device) {
            open += if kind == "raised" { 1 } else { -1 };
            assert!(open >= 0, "a recovery of {device} came before its alert: {events:?}");
        }
        assert_eq!(open, 0, "{device}");
    }
    assert!(world.deliveries().await.iter().all(|d| d.status == Delivered));
}
