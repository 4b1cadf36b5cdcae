//! A consumer whose answer was lost asks again, and is given the lease that it holds.

mod stage;

use std::collections::BTreeSet;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use galerna_dispatcher::{
    ClientOptions, Dispatcher, DispatcherClient, GrantedLease, Leases, NextRequest, ServiceOptions, serve,
};
use galerna_lease::{GroupedLeases, HeldLease, QueueState};
use stage::{Stage, lease, queue, until};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;

fn asking(consumer: &str, request: &str) -> NextRequest {
    NextRequest {
        consumer: consumer.to_owned(),
        count: 1,
        request: Some(request.to_owned()),
        ..NextRequest::default()
    }
}

fn again(request: NextRequest) -> NextRequest {
    NextRequest { retry: true, ..request }
}

async fn next(d: &Dispatcher, request: NextRequest) -> Vec<GrantedLease> {
    d.next(request).await.expect("next")
}

#[tokio::test]
async fn a_request_made_again_is_given_the_lease_that_it_was_granted_and_renews_it() {
    for stage in Stage::all().await {
        stage.queues(&[("D1", 5), ("D2", 5)]).await;
        let (d, other) = (stage.dispatcher().await, stage.dispatcher().await);
        let first = next(&d, asking("w1", "r1")).await;
        for dispatcher in [&d, &other] {
            let second = next(dispatcher, again(asking("w1", "r1"))).await;
            assert_eq!((&second[0].queue, second[0].epoch), (&first[0].queue, 1), "{}", stage.kind);
        }
        let record = stage.record(first[0].queue.as_str()).await;
        assert_eq!(record.lease.expect("a lease").renewal, 2, "each answer counts from a new renewal");
        let another = next(&d, asking("w1", "r2")).await;
        assert_ne!(another[0].queue, first[0].queue, "another request gets another queue: {}", stage.kind);
    }
}

#[tokio::test]
async fn a_restarted_dispatcher_knows_whose_request_a_lease_was_granted_to() {
    for stage in Stage::all().await {
        stage.queues(&[("D1", 5), ("D2", 5)]).await;
        let first = next(&stage.dispatcher().await, asking("w1", "r1")).await;
        let second = next(&stage.dispatcher().await, again(asking("w1", "r1"))).await;
        assert_eq!((&second[0].queue, second[0].epoch), (&first[0].queue, 1), "{}", stage.kind);
    }
}

#[tokio::test]
async fn a_request_for_several_leases_is_given_all_that_it_holds() {
    let stage = Stage::embedded().await;
    stage.queues(&[("D1", 5), ("D2", 5), ("D3", 5), ("D4", 5)]).await;
    let d = stage.dispatcher().await;
    let names = |leases: Vec<GrantedLease>| {
        let mut names: Vec<String> = leases.iter().map(|l| l.queue.to_string()).collect();
        names.sort_unstable();
        names
    };
    let request = NextRequest { count: 3, ..asking("w1", "r1") };
    let first = names(next(&d, request.clone()).await);
    assert_eq!(first.len(), 3);
    assert_eq!(names(next(&d, again(request)).await), first);
}

#[tokio::test]
async fn a_request_of_another_consumer_or_of_a_lease_that_ended_is_a_new_one() {
    let stage = Stage::embedded().await;
    stage.queues(&[("D1", 5)]).await;
    let d = stage.dispatcher().await;
    let first = next(&d, asking("w1", "r1")).await;
    assert_eq!(next(&d, again(asking("w2", "r1"))).await, [], "it is w1's");
    d.release(&stage::release(&first[0], false)).await.expect("released");
    assert_eq!(next(&d, again(asking("w1", "r1"))).await[0].epoch, 2);
}

#[tokio::test]
async fn a_lease_of_a_queue_that_was_paused_meanwhile_is_given_back_and_not_given_again() {
    let stage = Stage::embedded().await;
    stage.queues(&[("D1", 5), ("D2", 5)]).await;
    let d = stage.dispatcher().await;
    let first = next(&d, asking("w1", "r1")).await;
    let paused = first[0].queue.clone();
    d.pause(&paused, None, "ann").await.expect("paused");
    let second = next(&d, again(asking("w1", "r1"))).await;
    assert_ne!(second[0].queue, paused);
    let record = stage.record(paused.as_str()).await;
    assert_eq!((record.state, record.lease), (QueueState::Paused, None));
}

#[tokio::test]
async fn a_first_try_that_comes_late_and_whose_caller_is_gone_takes_nothing_from_the_second() {
    let stage = Stage::embedded().await;
    stage.queues(&[("D1", 5)]).await;
    let d = stage.dispatcher().await;
    let held = next(&d, again(asking("w1", "r1"))).await.remove(0);
    let renewals = || async { stage.record("D1").await.lease.map(|lease| lease.renewal) };
    {
        let mut late = std::pin::pin!(d.next(asking("w1", "r1")));
        // Once is enough for the call to be taken; its answer is never looked at.
        std::future::poll_fn(|context| {
            assert!(late.as_mut().poll(context).is_pending());
            std::task::Poll::Ready(())
        })
        .await;
        until("it is answered", || async { renewals().await == Some(1) }).await;
    }
    // Whatever that caller's end caused is done before another call on the queue is.
    d.renew(&held.queue, held.epoch).await.expect("it is still the holder's");
    assert_eq!(renewals().await, Some(2));
}

#[tokio::test]
async fn a_request_that_waits_is_answered_once_however_often_it_is_made() {
    let stage = Stage::embedded().await;
    stage.queues(&[("D1", 0), ("D2", 0)]).await;
    let d = stage.dispatcher().await;
    until("both are empty", || async {
        stage.record("D1").await.state == QueueState::Empty
            && stage.record("D2").await.state == QueueState::Empty
    })
    .await;
    let wait = |request: NextRequest| {
        let d = d.clone();
        let request = NextRequest { wait: Duration::from_secs(60), ..request };
        tokio::spawn(async move { d.next(request).await.expect("next") })
    };
    let first = wait(asking("w1", "r1"));
    until("the first try waits", || async { d.metrics_text().contains("waiting_callers 1") }).await;
    let second = wait(again(asking("w1", "r1")));
    assert_eq!(first.await.expect("joined"), [], "the second try takes the place of the first");
    d.hint(&[queue("D1"), queue("D2")]);
    assert_eq!(second.await.expect("joined").len(), 1);
    assert_eq!(lease(&d, "w2").await.expect("the other queue").epoch, 1);
}

/// Forwards connections to a service; the first `lost` answers are read and thrown away.
async fn losing_answers(service: String, mut lost: usize) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((mut caller, _)) = listener.accept().await {
            let loses = lost > 0;
            lost = lost.saturating_sub(1);
            let service = service.clone();
            tokio::spawn(async move {
                let mut upstream = TcpStream::connect(service).await.expect("the service listens");
                if loses {
                    let (mut from_caller, _to_caller) = caller.split();
                    let (mut answer, mut to_service) = upstream.split();
                    let mut chunk = [0; 4_096];
                    let read = from_caller.read(&mut chunk).await.expect("a request");
                    to_service.write_all(&chunk[..read]).await.expect("forwarded");
                    let read = answer.read(&mut chunk).await.expect("an answer");
                    assert!(chunk[..read].starts_with(b"HTTP/1.1 200"), "a lease was granted");
                } else {
                    tokio::io::copy_bidirectional(&mut caller, &mut upstream).await.ok();
                }
            });
        }
    });
    format!("http://{address}")
}

#[tokio::test]
async fn a_client_whose_answers_are_lost_on_the_way_ends_with_one_lease() {
    for stage in Stage::all().await {
        stage.queues(&[("D1", 5), ("D2", 5), ("D3", 5)]).await;
        let d = stage.dispatcher().await;
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let service = listener.local_addr().expect("an address").to_string();
        tokio::spawn(serve(listener, d.clone(), ServiceOptions::default(), std::future::pending()));
        let proxy = losing_answers(service, 2).await;
        let options = ClientOptions { backoff: Duration::from_millis(1), ..ClientOptions::default() };
        let client = DispatcherClient::new(&proxy, options).expect("a client");
        let asked = Instant::now();
        let request = NextRequest { consumer: "w1".into(), count: 1, ..NextRequest::default() };
        let granted = client.next(request).await.expect("next").remove(0);
        let held = HeldLease::new(granted.clone(), asked);
        assert!(!held.must_stop());
        let records = stage.store.queues.all().await.expect("the store answers");
        let leased: Vec<_> = records.iter().filter(|r| r.lease.is_some()).map(|r| &r.queue).collect();
        assert_eq!(leased, [&granted.queue], "{}", stage.kind);
        client.renew(&granted.queue, granted.epoch).await.expect("it is the caller's");
    }
}

#[tokio::test]
async fn tasks_that_ask_together_and_lose_answers_hold_one_lease_each_and_no_other_is_leased() {
    for stage in Stage::all().await {
        let names: Vec<String> = (1..=12).map(|n| format!("D{n}")).collect();
        stage.queues(&names.iter().map(|name| (name.as_str(), 5)).collect::<Vec<_>>()).await;
        let d = stage.dispatcher().await;
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let service = listener.local_addr().expect("an address").to_string();
        tokio::spawn(serve(listener, d.clone(), ServiceOptions::default(), std::future::pending()));
        let proxy = losing_answers(service, 3).await;
        // One attempt a call: the lost answers are the callers' to ask for again.
        let options = ClientOptions { attempts: 1, ..ClientOptions::default() };
        let client = DispatcherClient::new(&proxy, options).expect("a client");
        let leases = Arc::new(GroupedLeases::new(Arc::new(client)));
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..8 {
            let leases = Arc::clone(&leases);
            tasks.spawn(async move {
                loop {
                    let request = NextRequest { consumer: "w1".into(), count: 1, ..NextRequest::default() };
                    if let Ok(mut granted) = leases.next(request).await {
                        return granted.remove(0);
                    }
                }
            });
        }
        let held: BTreeSet<String> =
            tasks.join_all().await.into_iter().map(|lease| lease.queue.to_string()).collect();
        assert_eq!(held.len(), 8, "each has a queue of its own: {}", stage.kind);
        until("leases that nobody took are given back", || async {
            let records = stage.store.queues.all().await.expect("the store answers");
            let leased = records.iter().filter(|r| r.lease.is_some());
            leased.map(|r| r.queue.to_string()).collect::<BTreeSet<_>>() == held
        })
        .await;
    }
}
