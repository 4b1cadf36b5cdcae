//! No recovery before its alert.

use std::collections::HashMap;
use std::sync::Mutex;

use galerna_notifier::{Options, RetrySchedule};
use galerna_storage::AlertEventKind::{Raised, Resolved};
use galerna_storage::DeliveryStatus::{Dead, Delivered, Pending};

use crate::receiver::{Answer, Receiver};
use crate::world::{World, options, raised, resolved, seen};

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

pub(crate) async fn a_recovery_goes_out_when_its_alert_was_given_up(mut world: World) {
    let receiver =
        Receiver::answering(|call, _| Answer::Status(if call.events()[0].0 == "raised" { 400 } else { 200 }))
            .await;
    world.hook(&receiver.url()).await;
    let retry = RetrySchedule { attempts: 3, ..options().retry };
    world.start(Options { retry, ..options() }).await;
    world.raise(&[raised("d", 0), resolved("d", 10)]).await;
    assert_eq!(receiver.took(1).await, [seen("resolved", "d")]);
    assert_eq!(receiver.calls().len(), 4);
    let alert = world.delivery(Raised, "d", Dead).await;
    assert_eq!(alert.reason.unwrap(), "given up after attempt 3: answered 400 Bad Request");
    world.delivery(Resolved, "d", Delivered).await;
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
