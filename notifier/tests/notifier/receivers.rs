//! Receivers that do not do as they should.

use std::sync::Arc;
use std::time::Duration;

use galerna_model::AlertEventKind::Raised;
use galerna_model::Clock;
use galerna_notifier::{Options, RetrySchedule, put_endpoint};
use galerna_storage::DeliveryStatus::{Dead, Delivered, Pending};
use galerna_storage::{Endpoint, Resent};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use crate::receiver::{Answer, Receiver};
use crate::world::{World, hook, options, raised, resolved, seen, until};

pub(crate) async fn what_was_given_up_is_sent_again_on_request(mut world: World) {
    let long = "x".repeat(100_000);
    let receiver =
        Receiver::answering(move |_, _| Answer::Full(422, vec![], format!("no\n\u{7}{long}"))).await;
    world.hook(&receiver.url()).await;
    let retry = RetrySchedule { attempts: 2, ..options().retry };
    world.start(Options { retry, ..options() }).await;
    world.raise(&[raised("d", 0)]).await;
    let dead = world.delivery(Raised, "d", Dead).await;
    let reason = dead.reason.clone().unwrap();
    assert!(
        reason.starts_with("given up after attempt 2: answered 422 Unprocessable Entity: no"),
        "{reason}"
    );
    assert!(reason.len() < 400 && !reason.chars().any(char::is_control), "{reason}");

    receiver.answer(|_, _| Answer::Status(200));
    let outbox = &world.store.notifications;
    let again = outbox.resend(&dead.id, world.clock.now()).await.unwrap();
    assert!(matches!(again, Resent::Yes(_)));
    receiver.took(1).await;
    let delivered = world.delivery(Raised, "d", Delivered).await;
    assert_eq!((delivered.id.as_str(), delivered.attempts.len(), delivered.tries), (dead.id.as_str(), 3, 1));
    assert!(receiver.calls().iter().all(|call| call.id() == dead.id));
}

pub(crate) async fn a_receiver_that_is_gone_is_disabled(mut world: World) {
    let receiver = Receiver::answering(|_, _| Answer::Status(410)).await;
    world.hook(&receiver.url()).await;
    let notifier = world.start(options()).await;
    world.raise(&[raised("d", 0)]).await;
    let dead = world.delivery(Raised, "d", Dead).await;
    assert_eq!(dead.reason.unwrap(), "gone: answered 410 Gone");
    let endpoint = world.store.notifications.endpoint("hook").await.unwrap().unwrap();
    assert!(!endpoint.enabled);
    assert!(endpoint.disabled_reason.unwrap().starts_with("it answered 410 Gone at "));
    assert!(notifier.metrics_text().contains("galerna_notifier_disabled_endpoints_total 1"));
    world.raise(&[raised("e", 10)]).await;
    let refused = world.delivery(Raised, "e", galerna_storage::DeliveryStatus::Suppressed).await;
    assert!(refused.reason.unwrap().starts_with("the endpoint is disabled: it answered 410 Gone"));
    assert_eq!(receiver.calls().len(), 1);
    // Enabled again.
    receiver.answer(|_, _| Answer::Status(200));
    put_endpoint(&world.store, &hook("hook", &receiver.url())).await.unwrap();
    world.raise(&[raised("f", 20)]).await;
    assert_eq!(receiver.took(1).await, [seen("raised", "f")]);
}

pub(crate) async fn a_receiver_that_asks_to_wait_is_waited_for(mut world: World) {
    let receiver = Receiver::answering(|_, before| match before {
        0 => Answer::Full(503, vec![("retry-after", "3600".into())], String::new()),
        1 => Answer::Full(429, vec![("retry-after", "7200".into())], String::new()),
        _ => Answer::Status(200),
    })
    .await;
    world.hook(&receiver.url()).await;
    world.start(options()).await;
    world.raise(&[raised("d", 0)]).await;
    for (attempts, wait) in [(1, 3600), (2, 7200)] {
        until("the attempt", || async { world.deliveries().await.iter().any(|d| d.tries == attempts) }).await;
        let delivery = world.delivery(Raised, "d", Pending).await;
        assert_eq!(receiver.calls().len(), attempts as usize);
        let asked = delivery.next_try.millis_since(delivery.attempts.last().unwrap().at);
        assert!((wait * 1000..wait * 1000 + 1000).contains(&asked), "{asked}");
        world.clock.advance(Duration::from_secs(wait as u64));
    }
    receiver.took(1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redirects_are_not_followed() {
    let mut world = World::embedded().await;
    let inward = Receiver::start().await;
    let url = inward.url();
    let receiver = Receiver::answering(move |_, before| match before {
        0..4 => {
            let status = [301, 302, 307, 308][before];
            Answer::Full(status, vec![("location", url.clone())], String::new())
        }
        _ => Answer::Status(200),
    })
    .await;
    world.hook(&receiver.url()).await;
    world.start(options()).await;
    world.raise(&[raised("d", 0)]).await;
    receiver.took(1).await;
    let delivery = world.delivery(Raised, "d", Delivered).await;
    assert_eq!(delivery.attempts.len(), 5);
    for attempt in &delivery.attempts[..4] {
        assert!(attempt.error.as_ref().unwrap().ends_with("redirects are not followed"), "{attempt:?}");
    }
    assert_eq!(inward.calls().len(), 0);
}

/// Answers each connection with the next of these, then closes it.
async fn raw_server(answers: Vec<&'static [u8]>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    tokio::spawn(async move {
        for answer in answers.into_iter().cycle() {
            let (mut connection, _) = listener.accept().await.unwrap();
            let mut request = [0; 4096];
            let _ = connection.read(&mut request).await;
            let _ = connection.write_all(answer).await;
            let _ = connection.shutdown().await;
        }
    });
    url
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage_silence_and_floods_are_failures_or_taken_by_their_status() {
    let mut world = World::embedded().await;
    let url = raw_server(vec![
        b"",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"HTTP/1.1 999999 x\r\n\r\n",
        b"HTTP/1.1 500 no\r\ncontent-length: 100\r\n\r\ncut o",
        b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\ncut o",
    ])
    .await;
    world.hook(&url).await;
    let attempt_timeout = Duration::from_secs(20);
    let slow = Receiver::answering(|_, before| match before {
        0 => Answer::Endless(500),
        _ => Answer::Endless(200),
    })
    .await;
    world.endpoint(hook("flood", &slow.url())).await;
    world.rule("r", &["hook", "flood"]).await;
    world.start(Options { attempt_timeout, ..options() }).await;
    world.raise(&[raised("d", 0)]).await;
    world.quiet(2).await;
    for delivery in world.deliveries().await {
        assert_eq!(delivery.status, Delivered, "{delivery:?}");
        let attempts = if delivery.endpoint == "hook" { 5 } else { 2 };
        assert_eq!(delivery.attempts.len(), attempts, "{delivery:?}");
        let (last, failed) = delivery.attempts.split_last().unwrap();
        assert_eq!((last.status, last.error.as_ref()), (Some(200), None));
        assert!(failed.iter().all(|a| a.error.as_ref().is_some_and(|e| e.len() < 500)), "{delivery:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_receiver_that_hangs_is_left_and_holds_up_nobody_else() {
    let mut world = World::embedded().await;
    let release = Arc::new(Semaphore::new(0));
    let permits = Arc::clone(&release);
    let hanging = Receiver::answering(move |_, _| Answer::When(Arc::clone(&permits))).await;
    let quick = Receiver::start().await;
    world.endpoint(hook("hanging", &hanging.url())).await;
    world.endpoint(hook("quick", &quick.url())).await;
    world.rule("r", &["hanging", "quick"]).await;
    let limits = Options { in_flight: 8, per_endpoint: 3, ..options() };
    world.start(limits).await;
    let alerts: Vec<_> = (0..30).map(|i| raised(&format!("d{i}"), i)).collect();
    world.raise(&alerts).await;
    // All of them reach the quick one while the other one answers nothing at all.
    quick.took(30).await;
    assert!(hanging.calls().len() < 8, "room is left for others");
    release.add_permits(1000);
    until("the hanging one to be told", || async { hanging.calls().len() >= 30 }).await;
    world.quiet(60).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_attempt_ends_with_its_timeout() {
    let mut world = World::embedded().await;
    let receiver =
        Receiver::answering(|_, before| if before == 0 { Answer::Hang } else { Answer::Status(200) }).await;
    world.hook(&receiver.url()).await;
    let retry = RetrySchedule { attempts: 1000, ..options().retry };
    world.start(Options { attempt_timeout: Duration::from_secs(2), retry, ..options() }).await;
    world.raise(&[raised("d", 0), resolved("d", 10)]).await;
    receiver.took(2).await;
    let delivery = world.delivery(Raised, "d", Delivered).await;
    assert!(delivery.attempts.len() >= 2);
    assert!(delivery.attempts[0].error.is_some() && delivery.attempts[0].status.is_none());
    assert_eq!(receiver.events(), [seen("raised", "d"), seen("resolved", "d")]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_endpoint_that_is_deleted_or_disabled_meanwhile_is_not_told() {
    let mut world = World::embedded().await;
    let receiver = Receiver::answering(|_, _| Answer::Status(500)).await;
    world.endpoint(hook("deleted", &receiver.url())).await;
    world.endpoint(hook("disabled", &receiver.url())).await;
    world.rule("r", &["deleted", "disabled"]).await;
    world.start(options()).await;
    world.raise(&[raised("d", 0)]).await;
    receiver.called(2).await;
    world.store.notifications.delete_endpoint("deleted").await.unwrap();
    world.endpoint(Endpoint { enabled: false, ..hook("disabled", &receiver.url()) }).await;
    world.quiet(2).await;
    for delivery in world.deliveries().await {
        let reason = match delivery.endpoint.as_str() {
            "deleted" => "there is no endpoint `deleted` any more",
            _ => "the endpoint is disabled",
        };
        assert_eq!((delivery.status, delivery.reason.as_deref()), (Dead, Some(reason)));
    }
}
