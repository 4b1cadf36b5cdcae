//! Both stores of lists add each thing once, whoever asks at the same time.

use std::sync::Arc;

use downtime::lists::embedded::EmbeddedLists;
use downtime::lists::mongo::MongoLists;
use downtime::lists::{Added, Contact, Lists, Removed};
use galerna_test_servers::Mongo;

async fn on_both<F: Future<Output = ()>>(test: impl Fn(Arc<dyn Lists>) -> F) {
    let folder = tempfile::tempdir().expect("a folder can be made");
    test(Arc::new(EmbeddedLists::open(&folder.path().join("lists.db")).expect("it opens"))).await;
    let mongo = Mongo::shared().await;
    let url = format!("{}/{}", mongo.uri().trim_end_matches('/'), mongo.unique("lists"));
    test(Arc::new(MongoLists::open(&url).await.expect("it opens"))).await;
}

fn contact(address: &str) -> Contact {
    Contact::parse(address).expect("it is an address")
}

#[tokio::test]
async fn of_many_who_add_the_same_one_does() {
    on_both(|lists| async move {
        let create = (0..10).map(|_| {
            let lists = lists.clone();
            tokio::spawn(async move { lists.create("maintenance").await.expect("the store answers") })
        });
        let mut created = 0;
        for task in create.collect::<Vec<_>>() {
            created += usize::from(task.await.expect("nothing panics") == Added::Yes);
        }
        assert_eq!(created, 1);
        let add = (0..10).map(|n| {
            let lists = lists.clone();
            let address = if n % 2 == 0 { "Ada@Example.com" } else { "ada@example.COM" };
            tokio::spawn(async move {
                lists.add("maintenance", &contact(address)).await.expect("the store answers")
            })
        });
        let mut added = Vec::new();
        for task in add.collect::<Vec<_>>() {
            added.push(task.await.expect("nothing panics"));
        }
        assert_eq!(added.iter().filter(|added| **added == Added::Yes).count(), 1);
        assert_eq!(added.iter().filter(|added| **added == Added::Exists).count(), 9);
        let list = lists.get("maintenance").await.expect("the store answers").expect("it is there");
        assert_eq!(list.contacts.len(), 1);
    })
    .await;
}

#[tokio::test]
async fn what_is_not_there_is_told_apart() {
    on_both(|lists| async move {
        assert_eq!(lists.add("nobody", &contact("ada@example.com")).await, Ok(Added::NoList));
        assert_eq!(lists.drop_contact("nobody", "ada@example.com").await, Ok(Removed::NoList));
        assert_eq!(lists.remove("nobody").await, Ok(false));
        assert_eq!(lists.get("nobody").await, Ok(None));
        assert_eq!(lists.create("b").await, Ok(Added::Yes));
        assert_eq!(lists.create("a").await, Ok(Added::Yes));
        assert_eq!(lists.add("a", &contact("Zoe@example.com")).await, Ok(Added::Yes));
        assert_eq!(lists.add("a", &contact("ada@example.com")).await, Ok(Added::Yes));
        let all = lists.all().await.expect("the store answers");
        let shown: Vec<_> = all.iter().map(|list| (list.name.as_str(), list.contacts.len())).collect();
        assert_eq!(shown, [("a", 2), ("b", 0)]);
        assert_eq!(lists.drop_contact("a", "nobody@example.com").await, Ok(Removed::Unknown));
        assert_eq!(lists.drop_contact("a", "zoe@example.com").await, Ok(Removed::Yes));
        let left = lists.get("a").await.expect("the store answers").expect("it is there");
        assert_eq!(left.contacts, ["ada@example.com"]);
        assert_eq!(lists.remove("a").await, Ok(true));
        assert_eq!(lists.add("a", &contact("ada@example.com")).await, Ok(Added::NoList));
    })
    .await;
}

#[tokio::test]
async fn lists_in_a_file_are_there_after_it_was_closed() {
    let folder = tempfile::tempdir().expect("a folder can be made");
    let path = folder.path().join("lists.db");
    let lists = EmbeddedLists::open(&path).expect("it opens");
    lists.create("maintenance").await.expect("the store answers");
    lists.add("maintenance", &contact("ada@example.com")).await.expect("the store answers");
    lists.close().await;
    drop(lists);
    let lists = EmbeddedLists::open(&path).expect("it opens again");
    let list = lists.get("maintenance").await.expect("the store answers").expect("it is there");
    assert_eq!(list.contacts, ["ada@example.com"]);
}

#[tokio::test]
async fn what_fails_for_good_in_mongodb_is_told_from_what_passes() {
    let mongo = Mongo::start().await;
    let server = mongo.uri().trim_end_matches('/').to_owned();
    let failed = |url: String| async move { MongoLists::open(&url).await.expect_err("it cannot be opened") };
    let nameless = failed(server.clone()).await;
    assert!(!nameless.passes && nameless.cause.contains("names no database"), "{nameless}");
    assert!(!failed("mongodb://".to_owned()).await.passes);

    let url = format!("{server}/downtime");
    let lists = MongoLists::open(&url).await.expect("it opens");
    // What another program has written there is none.
    let database = galerna_mongo::connect_named(&url).await.expect("an address");
    let foreign = database.collection::<bson::Document>("notification_lists");
    foreign.insert_one(bson::doc! { "_id": "foreign", "contacts": 3 }).await.expect("it is written");
    let error = lists.get("foreign").await.expect_err("it is no list");
    assert!(!error.passes, "{error}");

    mongo.kill().await;
    let error = lists.get("maintenance").await.expect_err("nobody is there");
    assert!(error.passes, "{error}");
    mongo.restart().await;
    assert_eq!(lists.get("maintenance").await, Ok(None));
}
