//! Whatever happens: random events, orders, failures and crashes; the promises hold.

use std::time::Duration;

use galerna_notifier::{Options, RetrySchedule};
use galerna_storage::DeliveryStatus::{Delivered, Pending};
use galerna_storage::{AlertEvent, AlertEventKind, Endpoint};

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
    for seed in 100..350 {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut world = World::embedded().await;
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
            let taken: Vec<(String, String, String)> = receiver
                .taken()
                .iter()
                .filter(|call| call.path.ends_with(endpoint))
                .flat_map(|call| call.event_ids())
                .collect();
            for event in &events {
                let times = |id: &str| -> Vec<usize> {
                    taken.iter().enumerate().filter(|(_, (known, ..))| known == id).map(|(i, _)| i).collect()
                };
                let own = times(&event.id);
                assert!(!own.is_empty(), "seed {seed}: {endpoint} never got {}", event.id);
                if event.kind == AlertEventKind::Resolved {
                    let before = |e: &&AlertEvent| {
                        e.kind == AlertEventKind::Raised && e.device == event.device && e.ts < event.ts
                    };
                    let alert = events.iter().filter(before).max_by_key(|e| e.ts).expect("its alert");
                    assert!(
                        times(&alert.id).last() < own.first(),
                        "seed {seed}: {endpoint} got {} before {}: {taken:?}",
                        event.id,
                        alert.id
                    );
                }
            }
        }
    }
}
