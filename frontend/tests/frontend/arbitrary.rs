//! Whatever is posted, nothing panics, and what was sent is what was accepted and what was rejected.

use galerna_frontend::Options;
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::world::{GOOD, World};

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(|v| json!(v)),
        ".{0,12}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 32, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::btree_map("did|values|sqn|ts|p|v|body|.{0,4}", inner, 0..6)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

/// A good reading with one field replaced by something.
fn nearly_good() -> impl Strategy<Value = Value> {
    (prop::sample::select(vec!["did", "values", "sqn", "ts", "more"]), any_json()).prop_map(
        |(field, value)| {
            let mut reading: Value = serde_json::from_str(GOOD).unwrap();
            reading[field] = value;
            reading
        },
    )
}

fn element() -> impl Strategy<Value = Value> {
    prop_oneof![Just(serde_json::from_str(GOOD).unwrap()), nearly_good(), any_json()]
}

#[derive(Debug, Clone)]
enum Body {
    /// An array of so many.
    List(Vec<Value>),
    One(Value),
    Bytes(Vec<u8>),
    Cut(Vec<Value>, usize),
}

fn body() -> impl Strategy<Value = Body> {
    prop_oneof![
        4 => prop::collection::vec(element(), 0..20).prop_map(Body::List),
        1 => element().prop_map(Body::One),
        1 => prop::collection::vec(any::<u8>(), 0..200).prop_map(Body::Bytes),
        1 => (prop::collection::vec(element(), 1..5), 0..400_usize).prop_map(|(list, at)| Body::Cut(list, at)),
    ]
}

#[test]
fn accepted_and_rejected_are_what_was_sent_whatever_was_sent() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let world = runtime.block_on(World::embedded(Options::default()));
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig::with_cases(400));
    runner
        .run(&body(), |body| {
            let (bytes, sent) = match &body {
                Body::List(list) => (json!(list).to_string().into_bytes(), Some(list.len())),
                Body::One(value) => (value.to_string().into_bytes(), (!value.is_array()).then_some(1)),
                Body::Bytes(bytes) => (bytes.clone(), None),
                Body::Cut(list, at) => {
                    let mut bytes = json!(list).to_string().into_bytes();
                    bytes.truncate(*at);
                    (bytes, None)
                }
            };
            let (status, answer) = runtime.block_on(world.post("c1", bytes));
            let rejected = answer["rejected"].as_array().map_or(0, Vec::len);
            match status {
                202 => {
                    let accepted = answer["accepted"].as_u64().unwrap() as usize;
                    if let Some(sent) = sent {
                        prop_assert_eq!(accepted + rejected, sent);
                    }
                    let arrived = runtime
                        .block_on(async { if accepted == 0 { 0 } else { take(&world, accepted).await } });
                    prop_assert_eq!(arrived, accepted);
                }
                400 => {
                    let code = answer["error"]["code"].as_str().unwrap();
                    match (code, sent) {
                        ("no_valid_reading", Some(sent)) => prop_assert_eq!(rejected, sent),
                        // A single value that is neither object nor array is no list of one.
                        ("malformed", Some(_)) => prop_assert!(matches!(body, Body::One(_))),
                        (code, sent) => prop_assert!(sent.is_none(), "{} for {:?}", code, body),
                    }
                }
                other => prop_assert!(false, "status {}", other),
            }
            Ok(())
        })
        .unwrap();
    runtime.block_on(world.stopped());
}

fn nearly_good_service() -> impl Strategy<Value = Value> {
    let fields = vec!["nodeNetworkId", "serviceNetworkId", "value", "seqNum", "timeStamp", "more"];
    (prop::sample::select(fields), any_json(), any::<bool>(), 0..3_u8).prop_map(
        |(field, value, good, node)| {
            let mut service = json!({"nodeNetworkId": node.to_string(), "serviceNetworkId": 401, "value": 1.5,
            "seqNum": 1, "timeStamp": "2014-04-16T10:00:00.000 UTC"});
            if !good {
                service[field] = value;
            }
            service
        },
    )
}

#[test]
fn accepted_and_rejected_services_are_what_an_old_concentrator_sent() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let world = runtime.block_on(World::embedded(Options::default()));
    let url = world.url("/insert-json.htm?source_key=c1&x-dexcell-source-token=token-c1");
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig::with_cases(200));
    let services = prop::collection::vec(prop_oneof![2 => nearly_good_service(), 1 => any_json()], 0..20);
    runner
        .run(&services, |services| {
            let data = json!({"gatewayId": "c1", "service": services}).to_string();
            let form: String =
                form_urlencoded::Serializer::new(String::new()).append_pair("data", &data).finish();
            let (status, answer) = runtime.block_on(async {
                let answer = world.http.post(&url).body(form).send().await.unwrap();
                (answer.status().as_u16(), answer.json::<Value>().await.unwrap())
            });
            let rejected = answer["rejected"].as_array().map_or(0, Vec::len);
            let accepted = answer["accepted"].as_u64().unwrap_or(0) as usize;
            prop_assert!(matches!(status, 202 | 400), "{} {}", status, answer);
            prop_assert_eq!(accepted + rejected, services.len());
            Ok(())
        })
        .unwrap();
    runtime.block_on(world.stopped());
}

/// Takes the readings of one call out of the queue.
async fn take(world: &World, expected: usize) -> usize {
    use galerna_broker::Outcome;
    let mut consumer = world.broker.consume(&crate::world::queue("a"), 100).await.unwrap();
    let mut arrived = 0;
    while arrived < expected {
        let deliveries = consumer.receive(100, crate::world::DEADLINE).await.unwrap();
        assert!(!deliveries.is_empty(), "what was accepted did not arrive");
        arrived += deliveries
            .iter()
            .map(|d| galerna_model::decode(&d.message).unwrap())
            .inspect(|decoded| assert!(decoded.bad.is_empty(), "{:?}", decoded.bad))
            .map(|decoded| decoded.readings.len())
            .sum::<usize>();
        consumer.settle(deliveries.iter().map(|d| (d.tag, Outcome::Ack)).collect()).await.unwrap();
    }
    consumer.close().await.unwrap();
    arrived
}
