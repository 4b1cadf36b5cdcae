//! Whatever happens: random events, orders, failures and crashes; the promises hold.

use std::time::Duration;

use galerna_model::{AlertEvent, AlertEventKind};
use galerna_notifier::{Options, RetrySchedule};
use galerna_storage::DeliveryStatus::{Delivered, Pending};
use galerna_storage::Endpoint;

use crate::receiver::{Answer, Receiver};
use crate::world::{World, hook, options, raised, resolved, until};

/// What each device's story consists of: alerts and recoveries by turns.
fn story(random: &mut fastrand::Rng) -> Vec<AlertEvent> {
    let mut events = Vec::new();
    for device in 0..random.usize(3..8) {
        let device = format!("d{device}");
        for turn in 0..random.i64(1..6) {
            let event = if turn % 2 == 0 { raised(&device, turn * 10) } else { resolved(&device, turn * 10) };
            events.push(event);
        }
    }
    events.sort_by_key(|e| e.ts);
    events
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_event_arrives_and_no_recovery_before_its_alert() {
    tell(0..12, false).await;
}

/// 520 and 521 once left messages with a consumer that was half begun.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_event_arrives_and_no_recovery_before_its_alert_on_servers() {
    tell(519..523, true).await;
}

async fn tell(seeds: std::ops::Range<u64>, servers: bool) {
    for seed in seeds {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut world = if servers { World::on_servers().await } else { World::embedded().await };
        let flaky = random.u32(0..60);
        let receiver = Receiver::answering(move |_, _| {
            Answer::Status(if fastrand::u32(0..100) < flaky { 500 } else { 204 })
        })
        .await;
        let endpoints = ["single", "grouped"];
        world.endpoint(hook("single", &format!("{}/single", receiver.url()))).await;
        let grouped = hook("grouped", &format!("{}/grouped", receiver.url()));
        world.endpoint(Endpoint { group_ms: random.u64(1..300), ..grouped }).await;
        world.rule("r", &endpoints).await;

        let events = story(&mut random);
        let retry = RetrySchedule { attempts: u32::MAX, ..options().retry };
        // Recorded in order, as the alert bolt does; delivered in any order and any number by a poor broker.
        let mut waiting: Vec<AlertEvent> = events.clone();
        let again: Vec<AlertEvent> = events.iter().filter(|_| random.u8(..) < 60).cloned().collect();
        waiting.extend(again);
        random.shuffle(&mut waiting);
        world.store.alert_states.record(&events).await.unwrap();
        while !waiting.is_empty() {
            for n in 0..random.usize(1..4) {
                let name = format!("n{n}");
                let prefetch = random.u16(1..10);
                world.start(Options { name, prefetch, retry: retry.clone(), ..options() }).await;
            }
            let some = random.usize(1..=waiting.len().min(12));
            let rest = waiting.split_off(some);
            world.publish(&std::mem::replace(&mut waiting, rest)).await;
            if random.bool() {
                // No condition: the point is to crash at points that nobody chose.
                tokio::time::sleep(Duration::from_millis(random.u64(0..60))).await;
                world.crash().await;
                world.clock.advance(options().lease);
            } else {
                world.stop().await;
            }
        }
        world.start(Options { retry, ..options() }).await;
        until("all to be delivered", || async {
            let deliveries = world.deliveries().await;
            let told: usize = deliveries.iter().map(|d| d.events.len()).sum();
            assert!(told <= events.len() * endpoints.len(), "seed {seed}: an event is in two deliveries");
            told == events.len() * endpoints.len() && deliveries.iter().all(|d| d.status != Pending)
        })
        .await;
        world.stop().await;
        assert!(world.deliveries().await.iter().all(|d| d.status == Delivered), "seed {seed}");

        for endpoint in endpoints {
            let taken: Vec<(String, Vec<String>)> = receiver
                .taken()
                .iter()
                .filter(|call| call.path.ends_with(endpoint))
                .map(|call| (call.id().to_owned(), call.event_ids().into_iter().map(|(id, ..)| id).collect()))
                .collect();
            // The calls that had an event, and where in them it stood. After a crash the same call may come again.
            let calls = |id: &str| -> Vec<(usize, &str, usize)> {
                let places = taken.iter().enumerate().filter_map(|(call, (delivery, events))| {
                    let place = events.iter().position(|known| known == id)?;
                    Some((call, delivery.as_str(), place))
                });
                places.collect()
            };
            for event in &events {
                let own = calls(&event.id);
                assert!(!own.is_empty(), "seed {seed}: {endpoint} never got {}", event.id);
                assert!(own.iter().all(|(_, delivery, _)| *delivery == own[0].1), "seed {seed}: {taken:?}");
                if event.kind == AlertEventKind::Resolved {
                    let before = |e: &&AlertEvent| {
                        e.kind == AlertEventKind::Raised && e.device == event.device && e.ts < event.ts
                    };
                    let alert = events.iter().filter(before).max_by_key(|e| e.ts).expect("its alert");
                    let alerts = calls(&alert.id);
                    let in_order = if alerts[0].1 == own[0].1 {
                        alerts[0].2 < own[0].2
                    } else {
                        alerts[alerts.len() - 1].0 < own[0].0
                    };
                    assert!(
                        in_order,
                        "seed {seed}: {endpoint} got {} before {}: {taken:?}",
                        event.id, alert.id
                    );
                }
            }
        }
    }
}
