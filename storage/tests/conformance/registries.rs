//! Refused readings, accounts, sources and settings.

use galerna_model::{Account, Source};
use galerna_storage::{RejectedReading, Store};
use serde_json::json;

use super::{account, hour, queue, source};

fn rejected(id: &str, code: &str, hours: i64) -> RejectedReading {
    RejectedReading {
        id: id.into(),
        account: account("acc"),
        source: Some(source("s")),
        device: Some("12a".into()),
        ts: Some(hour(-1)),
        code: code.into(),
        field: Some("values[0].p".into()),
        reason: "values[0].p: 999 is no parameter".into(),
        raw: "{\"did\":\"12a\"}".into(),
        at: hour(hours),
    }
}

pub(super) async fn rejected_readings_are_stored_once(store: &Store) {
    let bare = RejectedReading {
        source: None,
        device: None,
        ts: None,
        field: None,
        ..rejected("m1/1", "malformed", 2)
    };
    let batch = [rejected("m1/0", "unknown_parameter", 1), bare.clone()];
    store.rejected.store(&batch).await.expect("stored");
    let again = RejectedReading { at: hour(9), ..rejected("m1/0", "other", 9) };
    store.rejected.store(&[again, rejected("m2/0", "malformed", 3)]).await.expect("stored");
    store.rejected.store(&[]).await.expect("nothing to store");
    assert_eq!(
        store.rejected.list(None, 0, 10).await.expect("listed"),
        [rejected("m2/0", "malformed", 3), bare, rejected("m1/0", "unknown_parameter", 1)]
    );
}

pub(super) async fn rejected_readings_are_paged_and_counted(store: &Store) {
    assert_eq!(store.rejected.counts().await.expect("counted"), []);
    let mut batch: Vec<RejectedReading> =
        (0..10).map(|i| rejected(&format!("m{i}"), ["a", "b"][i as usize % 2], i)).collect();
    batch.push(RejectedReading { account: account("other"), ..rejected("o", "c", 50) });
    store.rejected.store(&batch).await.expect("stored");
    let found = store.rejected.list(Some(&account("acc")), 2, 3).await.expect("listed");
    assert_eq!(found.iter().map(|r| r.id.as_str()).collect::<Vec<_>>(), ["m7", "m6", "m5"]);
    assert_eq!(store.rejected.list(None, 0, 1).await.expect("listed")[0].id, "o");
    assert_eq!(store.rejected.list(None, 0, 0).await.expect("listed"), []);
    let counts = store.rejected.counts().await.expect("counted");
    assert_eq!(counts, [("a".to_owned(), 5), ("b".to_owned(), 5), ("c".to_owned(), 1)]);
}

pub(super) async fn accounts_and_sources_are_replaced_by_id(store: &Store) {
    let one =
        |id: &str, active| Account {
            id: account(id), name: format!("Señor {id}"), queue: queue(id), active
        };
    store.accounts.put(&[one("b", true), one("a", true)]).await.expect("stored");
    store.accounts.put(&[one("b", false), one("c", true)]).await.expect("stored");
    store.accounts.put(&[]).await.expect("nothing to store");
    assert_eq!(
        store.accounts.list().await.expect("listed"),
        [one("a", true), one("b", false), one("c", true)]
    );

    let one = |id: &str, hash: &str| Source {
        id: source(id),
        account: account("a"),
        token_hash: hash.into(),
        active: true,
    };
    store.sources.put(&[one("BC:6A", "h1"), one("AA:01", "h2")]).await.expect("stored");
    store.sources.put(&[one("BC:6A", "h3")]).await.expect("stored");
    assert_eq!(store.sources.list().await.expect("listed"), [one("AA:01", "h2"), one("BC:6A", "h3")]);
}

pub(super) async fn settings_keep_any_json(store: &Store) {
    assert_eq!(store.settings.get("dispatcher").await.expect("answered"), None);
    let values = [
        json!({ "running": true, "$strategy": "fair", "n": u64::MAX, "a.b": [1.5, null] }),
        json!("fifo"),
        json!(null),
    ];
    for value in values {
        store.settings.put("dispatcher", &value).await.expect("stored");
        assert_eq!(store.settings.get("dispatcher").await.expect("answered"), Some(value));
    }
    assert_eq!(store.settings.get("other").await.expect("answered"), None);
}
