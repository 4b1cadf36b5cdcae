//! Messages that cannot be right, published straight to a queue: they end among the dead letters with a reason that names
//! the field, and the readings beside them are stored.

mod system;

use bytes::Bytes;
use galerna::broker::DeadLetter;
use galerna::ingest::prelude::*;
use galerna::model::Account;
use galerna::model::{Envelope, Measurement, Message, ParameterCode, Reading, Timestamp};
use galerna_test_servers::{Mongo, RabbitMq};
use serde_json::json;
use system::{Service, until};

fn reading(did: &str, p: u32, v: f64) -> Reading {
    let ts = Timestamp::parse("2017-01-01T00:00:00Z").unwrap();
    Reading { did: did.to_owned(), values: vec![Measurement { p: ParameterCode(p), v }], sqn: 1, ts }
}

fn envelope(readings: Vec<Reading>) -> Message {
    let account = AccountId::new("A").unwrap();
    let source = SourceId::new("A").unwrap();
    Envelope { id: "e".to_owned(), account, source, received: SystemClock.now(), readings }.encode()
}

fn message(content_type: &str, body: impl Into<Bytes>) -> Message {
    Message { body: body.into(), content_type: content_type.to_owned(), id: "m".to_owned() }
}

fn version(version: u8) -> Message {
    let mut message = envelope(vec![reading("any", 401, 1.0)]);
    let mut body = message.body.to_vec();
    body[0] = version;
    message.body = body.into();
    message
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_right_is_a_dead_letter_with_its_reason_and_its_neighbours_are_stored() {
    let (rabbit, mongo) = (RabbitMq::shared().await, Mongo::shared().await);
    let amqp = rabbit.vhost().await;
    let store_url = system::database(&mongo.uri(), &mongo.unique("bad"));
    let store = galerna::storage::open(&store_url).await.unwrap();
    let queue = QueueName::new("A").unwrap();
    let id = AccountId::new("A").unwrap();
    store
        .accounts
        .put(&[Account { name: "A".into(), queue: queue.clone(), id, active: true }])
        .await
        .unwrap();
    let broker = galerna::broker::open(&amqp).await.unwrap();
    broker.declare(&queue).await.unwrap();

    let json = "application/json";
    let body = |ts: &str, did: &str| {
        json!([{"did": did, "values": [{"p": 401, "v": 1.0}], "sqn": 1, "ts": ts}, reading(&format!("beside-{did}"), 401, 1.0)])
            .to_string()
    };
    // What is sent, what the reason must name, and the good reading beside it.
    let cases: Vec<(Message, &[&str], Option<&str>)> = vec![
        (
            message("application/octet-stream", &b"\xff\x00neither"[..]),
            &["neither MessagePack nor JSON"],
            None,
        ),
        (message("", Bytes::new()), &["message"], None),
        (message(json, &b"[{\"did\":"[..]), &["not JSON"], None),
        (message(json, "[".repeat(100_000)), &["not JSON"], None),
        (version(9), &["version 9"], None),
        (message(json, vec![b' '; 10 << 20]), &["10485760 bytes"], None),
        (
            envelope(vec![reading("nan", 401, f64::NAN), reading("beside-nan", 401, 1.0)]),
            &["values[0].v is NaN"],
            Some("beside-nan"),
        ),
        (
            envelope(vec![reading(&"d".repeat(10_000), 401, 1.0), reading("beside-long", 401, 1.0)]),
            &["did has 10000 characters"],
            Some("beside-long"),
        ),
        (
            envelope(vec![reading("unknown", 999, 1.0), reading("beside-unknown", 401, 1.0)]),
            &["999"],
            Some("beside-unknown"),
        ),
        (message(json, body("2017-01-01T00:00:00", "no-zone")), &["ts", "zone"], Some("beside-no-zone")),
        (message(json, body("yesterday", "no-time")), &["ts", "RFC 3339"], Some("beside-no-time")),
        (message(json, body("9999-01-01T00:00:00Z", "future")), &["ts", "ahead"], Some("beside-future")),
        (
            message(
                json,
                r#"[{"did":"huge","values":[{"p":401,"v":1e999}],"sqn":1,"ts":"2017-01-01T00:00:00Z"}]"#,
            ),
            &["values[0].v", "number"],
            None,
        ),
    ];
    for (message, ..) in &cases {
        broker.publish(vec![(queue.clone(), message.clone())]).await.unwrap();
    }

    let folder = tempfile::tempdir().unwrap();
    let management = format!("broker.management_url={}", rabbit.management_uri());
    let mut service = Service::start(
        folder.path(),
        &["--broker", &amqp, "--store", &store_url, "--set", &management, "--listen", "127.0.0.1:0", "up"],
    );
    let letters = || async { broker.dead_letters(&queue, 0, 100).await.unwrap() };
    until("a dead letter for each", || async { letters().await.len() >= cases.len() }).await;
    let letters: Vec<DeadLetter> = letters().await;
    assert_eq!(letters.len(), cases.len(), "{letters:#?}");
    for (message, parts, _) in &cases {
        let has = |letter: &&DeadLetter| parts.iter().all(|part| letter.failure.reason.contains(part));
        let reasons: Vec<&str> = letters.iter().map(|l| l.failure.reason.as_str()).collect();
        let start = String::from_utf8_lossy(&message.body[..message.body.len().min(80)]).into_owned();
        let letter =
            letters.iter().find(has).unwrap_or_else(|| panic!("{parts:?} for {start}: {reasons:#?}"));
        assert_eq!(letter.failure.component, "validate");
    }
    let good: Vec<&str> = cases.iter().filter_map(|(.., good)| *good).collect();
    until("the good ones are stored", || async {
        store.readings.count(None).await.unwrap() >= good.len() as u64
    })
    .await;
    let account = AccountId::new("A").unwrap();
    let stored = store.readings.keys(&account, None, 1_000).await.unwrap();
    let mut stored: Vec<&str> = stored.iter().map(|key| key.device.as_str()).collect();
    let mut good = good;
    stored.sort_unstable();
    good.sort_unstable();
    assert_eq!(stored, good);
    let depth = broker.depth(&queue).await.unwrap();
    assert_eq!(depth.ready, 0);
    assert!(service.stop().await.success(), "{}", service.log());
}
