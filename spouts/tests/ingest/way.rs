//! What is published is stored, refused or raised.

use crate::on_both;

on_both! {
    everything_published_is_stored_once_and_the_queues_are_given_back(10_000),
    bad_readings_and_bad_messages_become_dead_letters_and_their_neighbours_are_stored(10_000),
    alerts_are_recorded_and_published(10_000),
    silence_counts_over_restarts(10_000),
    a_failing_message_is_delivered_again_and_a_hopeless_one_is_dead(10_000),
}

mod scenarios {
    use std::collections::BTreeMap;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    use galerna_bolts::ALERTS_QUEUE;
    use galerna_broker::Outcome;
    use galerna_engine::{Engine, EngineOptions};
    use galerna_model::envelope::JSON_CONTENT_TYPE;
    use galerna_model::{AlertEvent, AlertEventKind, Comparison, Condition, Rule, Severity};
    use galerna_model::{Incoming, Message, ParameterCode, QueueName};
    use galerna_topology::{Bolt, Emitter, Fault, TopologyBuilder};

    use crate::world::{DEADLINE, World, at, envelope, envelopes, eventually, quick, reading};

    pub(super) async fn everything_published_is_stored_once_and_the_queues_are_given_back(world: World) {
        let mut queues = Vec::new();
        for n in 0..5 {
            let name = format!("D{n}");
            let queue = world.queue(&name).await;
            world.publish(&queue, envelopes(&name, 40, 10)).await;
            // Published again: the same readings.
            world.publish(&queue, envelopes(&name, 10, 10)).await;
            queues.push(queue);
        }
        let running = world.ingest(world.store.readings.clone()).await;
        eventually("all is acked", || async { world.tally.acked() == 5 * 50 }).await;
        assert_eq!(world.stored().await, 5 * 400);
        assert!(running.drain(DEADLINE).await.drained);
        for queue in &queues {
            assert!(world.is_empty(queue).await, "{queue}");
            let view = world.dispatcher.queue(queue).await.unwrap();
            assert!(["empty", "idle"].contains(&view.state.as_str()), "{queue} is {}", view.state);
        }
        assert_eq!((world.tally.held(), world.tally.lost(), world.tally.retried()), (0, 0, 0));
        assert_eq!(world.keys("D3").await.len(), 400);
    }

    pub(super) async fn bad_readings_and_bad_messages_become_dead_letters_and_their_neighbours_are_stored(
        world: World,
    ) {
        let queue = world.queue("D1").await;
        let mut bad = reading("bad", 1, 1.0);
        bad.values[0].p = ParameterCode(999);
        let mixed = envelope("D1", "mixed", vec![reading("a", 1, 1.0), bad, reading("b", 1, 1.0)]);
        let json = |body: &str| Message {
            body: body.as_bytes().to_vec().into(),
            content_type: JSON_CONTENT_TYPE.to_owned(),
            id: "j".to_owned(),
        };
        let messages = [
            mixed.encode(),
            json(
                r#"{"did":"plain","values":[{"p":401,"v":-6.35}],"sqn":1,"ts":"2017-01-01T01:00:00+01:00"}"#,
            ),
            json(r#"{"did":"zoneless","values":[{"p":401,"v":1}],"sqn":1,"ts":"2017-01-01T01:00:00"}"#),
            json("{not json"),
            Message { body: vec![0xc1, 0xff].into(), content_type: String::new(), id: String::new() },
        ];
        world.publish(&queue, messages).await;
        let running = world.ingest(world.store.readings.clone()).await;
        eventually("all is acked", || async { world.tally.acked() == 5 }).await;
        assert!(running.drain(DEADLINE).await.drained);

        let devices: Vec<String> = world.keys("D1").await.into_iter().map(|k| k.device).collect();
        assert_eq!(devices.len(), 3, "{devices:?}");
        let letters = world.broker.dead_letters(&queue, 0, 10).await.unwrap();
        let mut reasons: Vec<&str> = letters.iter().map(|l| l.failure.reason.as_str()).collect();
        reasons.sort_unstable();
        let expected = [
            "message is neither",
            "message is not JSON",
            "ts: time `2017-01-01T01:00:00` has no zone",
            "values[0].p is 999",
        ];
        assert_eq!(reasons.len(), expected.len(), "{reasons:?}");
        for (reason, start) in reasons.iter().zip(expected) {
            assert!(reason.starts_with(start), "{reason} does not start with {start}");
        }
        assert!(letters.iter().all(|l| l.failure.component == "validate"));
        let counts: BTreeMap<_, _> = world.store.rejected.counts().await.unwrap().into_iter().collect();
        let expected = [("bad_time", 1), ("undecodable", 2), ("unknown_parameter", 1)];
        assert_eq!(counts, expected.map(|(code, n)| (code.to_owned(), n)).into());
    }

    pub(super) async fn alerts_are_recorded_and_published(world: World) {
        let queue = world.queue("D1").await;
        let rule = Rule {
            id: "high".to_owned(),
            name: "high power".to_owned(),
            account: None,
            devices: "m*".to_owned(),
            condition: Condition::Threshold {
                parameter: ParameterCode(401),
                comparison: Comparison::Above,
                limit: 100.0,
                clear: Some(80.0),
                for_ms: 0,
            },
            severity: Severity::Critical,
            endpoints: Vec::new(),
            cooldown_ms: 0,
            enabled: true,
        };
        world.store.rules.put(&rule).await.unwrap();
        let powers = [50.0, 120.0, 90.0, 130.0];
        let message =
            |h: usize, p: f64| envelope("D1", &format!("e{h}"), vec![reading("m1", h as i64, p)]).encode();
        world.publish(&queue, powers.iter().enumerate().map(|(h, p)| message(h, *p))).await;
        let running = world.ingest(world.store.readings.clone()).await;
        eventually("all is acked", || async { world.tally.acked() == 4 }).await;
        assert!(running.drain(DEADLINE).await.drained);
        let states = world.store.alert_states.load(&"D1".parse().unwrap()).await.unwrap();
        assert_eq!(states.len(), 1);

        // Another process goes on from there. Late and repeated readings raise nothing.
        world.publish(&queue, [message(1, 120.0), message(4, 70.0), message(2, 500.0)]).await;
        let running = world.ingest(world.store.readings.clone()).await;
        eventually("all is acked", || async { world.tally.acked() == 7 }).await;

        // A rule that is added while it runs is in force after a while.
        let low = Rule {
            id: "low".to_owned(),
            condition: Condition::Threshold {
                parameter: ParameterCode(401),
                comparison: Comparison::Below,
                limit: 10.0,
                clear: None,
                for_ms: 0,
            },
            ..rule
        };
        world.store.rules.put(&low).await.unwrap();
        let hour = AtomicU32::new(10);
        eventually("the new rule fires", || async {
            let h = hour.fetch_add(1, Ordering::Relaxed) as usize;
            world.publish(&queue, [message(h, 1.0)]).await;
            world.store.alert_states.count(AlertEventKind::Raised).await.unwrap() == 2
        })
        .await;
        assert!(running.drain(DEADLINE).await.drained);

        let mut events = world.store.alert_states.events(None, 0, 10).await.unwrap();
        events.sort_by_key(|e| e.ts);
        let told: Vec<_> = events.iter().map(|e| (e.rule.as_str(), e.kind, e.value)).collect();
        assert_eq!(told[0], ("high", AlertEventKind::Raised, Some(120.0)));
        assert_eq!(told[1], ("high", AlertEventKind::Resolved, Some(70.0)));
        assert_eq!(told[2], ("low", AlertEventKind::Raised, Some(1.0)));
        assert_eq!(told.len(), 3);

        let alerts = QueueName::new(ALERTS_QUEUE).unwrap();
        let mut consumer = world.broker.consume(&alerts, 10).await.unwrap();
        let mut deliveries = Vec::new();
        while deliveries.len() < events.len() {
            let more = consumer.receive(10, DEADLINE).await.unwrap();
            assert!(!more.is_empty(), "{} of {} events were published", deliveries.len(), events.len());
            deliveries.extend(more);
        }
        let published: Vec<AlertEvent> =
            deliveries.iter().map(|d| serde_json::from_slice(&d.message.body).unwrap()).collect();
        assert_eq!(published, events);
        consumer.settle(deliveries.iter().map(|d| (d.tag, Outcome::Ack)).collect()).await.unwrap();
        consumer.close().await.unwrap();
    }

    pub(super) async fn silence_counts_over_restarts(mut world: World) {
        use galerna_model::{Clock, ManualClock};

        let queue = world.queue("D1").await;
        let clock = ManualClock::at(at(0));
        world.wall = Arc::new(clock.clone());
        let rule = Rule {
            id: "quiet".to_owned(),
            name: "quiet".to_owned(),
            account: None,
            devices: "*".to_owned(),
            condition: Condition::Silent { after_ms: 60_000 },
            severity: Severity::Warning,
            endpoints: Vec::new(),
            cooldown_ms: 0,
            enabled: true,
        };
        world.store.rules.put(&rule).await.unwrap();
        let states = world.store.alert_states.clone();
        let count = async |kind| states.count(kind).await.unwrap();
        let message = |id: &str, ts| {
            let read = galerna_model::Reading { ts, ..reading("m1", 0, 1.0) };
            envelope("D1", id, vec![read]).encode()
        };
        world.publish(&queue, [message("first", at(0))]).await;
        // Shorter than the silence, each of them.
        for _ in 0..2 {
            let running = world.ingest(world.store.readings.clone()).await;
            eventually("it is heard", || async { world.tally.acked() == 1 }).await;
            assert_eq!(count(AlertEventKind::Raised).await, 0);
            assert!(running.drain(DEADLINE).await.drained);
            clock.advance(38_000);
        }
        let running = world.ingest(world.store.readings.clone()).await;
        eventually("the silence is raised", || async { count(AlertEventKind::Raised).await == 1 }).await;
        assert!(running.drain(DEADLINE).await.drained);
        let events = world.store.alert_states.events(None, 0, 10).await.unwrap();
        assert_eq!(events[0].ts, at(0).plus_millis(60_000));

        // Raised once, and over with the next reading.
        clock.advance(38_000);
        let running = world.ingest(world.store.readings.clone()).await;
        world.publish(&queue, [message("second", clock.now())]).await;
        eventually("it is over", || async { count(AlertEventKind::Resolved).await == 1 }).await;
        assert_eq!(count(AlertEventKind::Raised).await, 1);
        assert!(running.drain(DEADLINE).await.drained);
    }

    struct Picky;

    impl Bolt for Picky {
        type Input = Incoming;
        type Outputs = ();

        fn execute(&mut self, incoming: Incoming, _: &mut Emitter<()>) -> Result<(), Fault> {
            match incoming.message.id.as_str() {
                "D1-0" if incoming.deliveries < 3 => Err(Fault::transient("not yet")),
                "D1-1" => Err(Fault::transient("never")),
                "D1-2" => Err(Fault::permanent("no such meter")),
                "D1-3" if incoming.deliveries < 2 => panic!("boom"),
                _ => Ok(()),
            }
        }
    }

    pub(super) async fn a_failing_message_is_delivered_again_and_a_hopeless_one_is_dead(world: World) {
        let queue = world.queue("D1").await;
        world.publish(&queue, envelopes("D1", 20, 1)).await;
        let mut topology = TopologyBuilder::new("picky");
        let messages = topology.spout("queues", world.spout(world.leases(), quick())).outputs();
        topology.bolt("picky", || Picky).shuffle(&messages);
        let topology = topology.build().unwrap();
        let running = Engine::submit(topology, EngineOptions::default()).await.unwrap();
        let letters = || async { world.broker.dead_letters(&queue, 0, 10).await.unwrap() };
        eventually("18 are acked and 2 are dead", || async {
            world.tally.acked() == 18 && letters().await.len() == 2
        })
        .await;
        assert!(running.drain(DEADLINE).await.drained);
        assert!(world.is_empty(&queue).await);
        let mut letters = letters().await;
        letters.sort_by(|a, b| a.failure.reason.cmp(&b.failure.reason));
        let told: Vec<_> =
            letters.iter().map(|l| (l.failure.reason.as_str(), l.failure.component.as_str())).collect();
        assert_eq!(told, [("never", "picky"), ("no such meter", "picky")]);
        // A delivery that only its lease ended is counted by RabbitMQ too, so there may be more of them than failures.
        assert!(letters[0].deliveries >= 3 && letters[1].deliveries >= 1, "{letters:?}");
    }
}
