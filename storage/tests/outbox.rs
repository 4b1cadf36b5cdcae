//! What a crash between two writes leaves in MongoDB's outbox. (In SQLite the two are one transaction.)

use galerna_model::{AccountId, SourceId, Timestamp};
use galerna_model::{AlertEvent, AlertEventKind, Severity};
use galerna_storage::mongo::{self, MongoOptions};
use galerna_storage::{Claim, Delivery, DeliveryStatus};
use galerna_test_servers::{Mongo, unique};
use mongodb::bson::{Document, doc};

fn delivery(id: &str, after: &[&str]) -> Delivery {
    // As JSON, which fields that are added later do not disturb.
    let event: AlertEvent = serde_json::from_value(serde_json::json!({
        "id": id,
        "kind": AlertEventKind::Raised,
        "rule": "r",
        "rule_name": "Rule",
        "severity": Severity::Info,
        "account": AccountId::new("a").expect("a name"),
        "source": SourceId::new("s").expect("a name"),
        "device": "d",
        "value": null,
        "ts": Timestamp(0),
        "message": "",
    }))
    .expect("an event");
    Delivery {
        id: id.into(),
        endpoint: "e".into(),
        events: vec![event],
        status: DeliveryStatus::Pending,
        reason: None,
        test: false,
        attempts: Vec::new(),
        tries: 0,
        next_try: Timestamp(0),
        open_until: None,
        held_until: None,
        after: after.iter().map(|id| (*id).to_owned()).collect(),
        created: Timestamp(0),
        since: Timestamp(0),
        ended: None,
        version: 0,
        claimed_by: None,
        claimed_until: None,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deliveries_that_a_crash_left_waiting_are_freed() {
    let uri = Mongo::shared().await.uri();
    let database = unique("outbox");
    let options = MongoOptions { database: Some(database.clone()), ..MongoOptions::new(&uri) };
    let store = mongo::connect(options).await.expect("MongoDB answers");
    let outbox = &store.notifications;
    for new in [delivery("alert", &[]), delivery("pending", &[]), delivery("recovery", &["alert"])] {
        outbox.enqueue(&new).await.expect("enqueued");
    }
    outbox.enqueue(&delivery("last", &["alert", "pending"])).await.expect("enqueued");

    // The first write of an update, without the second.
    let client = mongodb::Client::with_uri_str(&uri).await.expect("MongoDB answers");
    let deliveries = client.database(&database).collection::<Document>("deliveries");
    let ended = doc! { "$set": { "status": "delivered" }, "$inc": { "version": 1_i64 } };
    deliveries.update_one(doc! { "_id": "alert" }, ended).await.expect("written");

    let claim = Claim {
        notifier: "n".into(),
        now: Timestamp(1),
        lease_ms: 60_000,
        limit: 10,
        per_endpoint: 10,
        except: Vec::new(),
    };
    let claimed = outbox.claim(&claim).await.expect("claimed");
    assert_eq!(claimed.iter().map(|d| d.id.as_str()).collect::<Vec<_>>(), ["pending"]);
    assert_eq!(outbox.unblock().await.expect("freed"), 2);
    assert_eq!(outbox.unblock().await.expect("freed"), 0);
    let claimed = outbox.claim(&claim).await.expect("claimed");
    assert_eq!(claimed.iter().map(|d| d.id.as_str()).collect::<Vec<_>>(), ["recovery"]);
}
