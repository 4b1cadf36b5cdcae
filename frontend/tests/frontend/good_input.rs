//! What is taken, in every form, arrives as it was sent.

use std::collections::BTreeSet;
use std::io::Write;

use galerna_broker::Outcome;
use galerna_frontend::Options;
use galerna_model::{Reading, decode};
use serde_json::{Value, json};

use crate::world::{GOOD, World, queue};

const SAMPLES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/data");

fn texts(readings: &[Reading]) -> Vec<String> {
    let mut texts: Vec<String> = readings.iter().map(|r| serde_json::to_string(r).unwrap()).collect();
    texts.sort_unstable();
    texts
}

#[tokio::test(flavor = "multi_thread")]
async fn the_thesis_messages_arrive_in_every_encoding() {
    let world = World::embedded(Options::default()).await;
    let body = std::fs::read(format!("{SAMPLES}/thesis_messages.json")).unwrap();
    let sent: Vec<Reading> = serde_json::from_slice(&body).unwrap();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    gzip.write_all(&body).unwrap();
    for (encoding, encoded) in [
        ("identity", body.clone()),
        ("gzip", gzip.finish().unwrap()),
        ("zstd", zstd::encode_all(&body[..], 3).unwrap()),
    ] {
        let call =
            world.http.post(world.readings_of("c1")).header("content-encoding", encoding).body(encoded);
        let answer = call.send().await.unwrap();
        assert_eq!(answer.status(), 202, "{encoding}");
        assert_eq!(answer.json::<Value>().await.unwrap(), json!({"accepted": 28, "rejected": []}));
        assert_eq!(texts(&world.take_all("a").await), texts(&sent), "{encoding}");
    }
    world.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_sample_post_arrives_in_the_queue_of_its_account() {
    let text = std::fs::read_to_string(format!("{SAMPLES}/sample_messages.ndjson")).unwrap();
    let posts: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let keys: BTreeSet<&str> = posts.iter().map(|p| p["source_key"].as_str().unwrap()).collect();
    let sources: Vec<(&str, &str)> = keys.iter().map(|key| (*key, *key)).collect();
    let broker = galerna_broker::open("embedded::memory:").await.unwrap();
    let world = World::on(broker, Options::default(), &sources).await;
    for post in &posts {
        let (status, answer) =
            world.post(post["source_key"].as_str().unwrap(), post["body"].to_string()).await;
        assert_eq!(status, 202);
        assert_eq!(answer["accepted"], post["body"].as_array().unwrap().len());
    }
    let mut all = 0;
    for key in keys {
        let sent =
            posts.iter().filter(|p| p["source_key"] == key).flat_map(|p| p["body"].as_array().unwrap());
        let sent: Vec<Reading> = sent.map(|r| serde_json::from_value(r.clone()).unwrap()).collect();
        let arrived = world.take_all(key).await;
        assert_eq!(texts(&arrived), texts(&sent), "{key}");
        all += arrived.len();
    }
    assert_eq!(all, 1_201);
    world.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_call_becomes_envelopes_that_carry_the_requests_id() {
    let world = World::embedded(Options::default()).await;
    let list: Vec<Value> = (0..3_000)
        .map(|n| json!({"did": format!("d{n}"), "values": [{"p": 401, "v": n}], "sqn": n, "ts": "2015-04-21T23:15:00Z"}))
        .collect();
    let answer = world.http.post(world.readings_of("c1")).json(&list).send().await.unwrap();
    let id = answer.headers()["x-request-id"].to_str().unwrap().to_owned();
    assert_eq!(answer.json::<Value>().await.unwrap(), json!({"accepted": 3_000, "rejected": []}));
    let mut consumer = world.broker.consume(&queue("a"), 100).await.unwrap();
    let deliveries = consumer.receive(100, crate::world::DEADLINE).await.unwrap();
    assert_eq!(deliveries.len(), 12);
    for (n, delivery) in deliveries.iter().enumerate() {
        assert_eq!(delivery.message.id, format!("{id}.{n}"));
        let decoded = decode(&delivery.message).unwrap();
        assert_eq!(decoded.readings.len(), 250);
        assert_eq!(decoded.account.unwrap().as_str(), "a");
        assert_eq!(decoded.source.unwrap().as_str(), "c1");
    }
    consumer.settle(deliveries.iter().map(|d| (d.tag, Outcome::Ack)).collect()).await.unwrap();
    consumer.close().await.unwrap();
    world.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn good_readings_are_taken_beside_bad_ones_and_odd_names_stay_what_they_are() {
    let world = World::embedded(Options::default()).await;
    let odd = GOOD.replace("12a", "<script>alert('ä')</script>");
    let (status, answer) = world.post("c1", format!(r#"[{GOOD},{{"did":"x"}},{odd},7]"#)).await;
    assert_eq!(status, 202);
    assert_eq!(answer["accepted"], 2);
    let rejected: Vec<(u64, &str)> = answer["rejected"]
        .as_array()
        .unwrap()
        .iter()
        .map(|r| (r["index"].as_u64().unwrap(), r["reason"].as_str().unwrap()))
        .collect();
    assert_eq!(rejected, [(1, "values is missing"), (3, "reading is a number, not an object")]);
    let dids: Vec<String> = world.take_all("a").await.into_iter().map(|r| r.did).collect();
    assert_eq!(dids, ["12a", "<script>alert('ä')</script>"]);

    // The token as header, one reading without an array, an empty array.
    let url = world.url("/readings?source_key=c1");
    let call = world.http.post(&url).header("x-dexcell-source-token", "token-c1").body(GOOD);
    assert_eq!(call.send().await.unwrap().status(), 202);
    assert_eq!(world.post("c1", "[]").await, (202, json!({"accepted": 0, "rejected": []})));
    assert_eq!(world.take_all("a").await.len(), 1);
    world.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn old_concentrators_post_forms() {
    let world = World::embedded(Options::default()).await;
    let service = |code: u32| {
        json!({"nodeNetworkId": "1", "serviceNetworkId": code, "value": 1001.23, "seqNum": 1,
               "timeStamp": "2014-04-16T10:00:00.000 UTC"})
    };
    let data = json!({"gatewayId": "c1", "service": [service(401), service(402), 7]}).to_string();
    let form: String = form_urlencoded::Serializer::new(String::new()).append_pair("data", &data).finish();
    for (path, header, status) in [
        ("/insert-json.htm?source_key=c1&x-dexcell-source-token=token-c1", None, 202),
        ("/insert-json.htm?source_key=c1", Some("token-c1"), 202),
        ("/insert-json.htm", Some("token-c1"), 202),
        ("/insert-json.htm", Some("token-c2"), 401),
        ("/insert-json.htm?source_key=c2", Some("token-c2"), 400),
    ] {
        let mut call = world.http.post(world.url(path)).body(form.clone());
        if let Some(token) = header {
            call = call.header("x-dexcell-source-token", token);
        }
        let answer = call.send().await.unwrap();
        assert_eq!(answer.status().as_u16(), status, "{path} {header:?}");
        if status == 202 {
            let answer: Value = answer.json().await.unwrap();
            assert_eq!(answer["accepted"], 2);
            assert_eq!(answer["rejected"][0]["index"], 2);
            let arrived = world.take_all("a").await;
            assert_eq!(arrived.len(), 1);
            assert_eq!((arrived[0].did.as_str(), arrived[0].values.len()), ("1", 2));
        }
    }
    assert!(world.take_all("b").await.is_empty());
    // Who is known only by the body may not send a long one.
    let long = format!("{form}&more={}", "x".repeat(600 << 10));
    for (query, status) in [("", 413), ("?source_key=c1", 202)] {
        let call = world.http.post(world.url(&format!("/insert-json.htm{query}"))).body(long.clone());
        let answer = call.header("x-dexcell-source-token", "token-c1").send().await.unwrap();
        assert_eq!(answer.status(), status, "{query}");
    }
    world.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_dispatcher_hears_of_queues_that_got_messages_and_of_no_others() {
    let world = World::embedded(Options::default()).await;
    assert_eq!(world.post("c2", "[]").await.0, 202);
    assert_eq!(world.post("c2", "nonsense").await.0, 400);
    assert_eq!(world.post("c1", GOOD).await.0, 202);
    tokio::time::timeout(crate::world::DEADLINE, world.hinted.came.notified()).await.unwrap();
    assert_eq!(*world.hinted.queues.lock().unwrap(), [queue("a")]);
    world.stopped().await;
}
