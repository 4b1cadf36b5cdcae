//! Both stores keep a post once, count a version once and raise an alert once, whoever does the same at the same time.

use std::collections::BTreeMap;
use std::sync::Arc;

use galerna_model::Timestamp;
use galerna_test_servers::Postgres;
use watchlist::{
    Alert, Counts, Mapped, Page, Post, PostgresStore, Saved, SqliteStore, Store, Target, Validators, Version,
};

/// 2026-05-01T12:00:00Z.
const NOON: Timestamp = Timestamp(1_777_636_800_000);

async fn on_both<F: Future<Output = ()>>(test: impl Fn(Arc<dyn Store>) -> F) {
    let folder = tempfile::tempdir().expect("a folder can be made");
    test(Arc::new(SqliteStore::open(&folder.path().join("posts.sqlite")).expect("it opens"))).await;
    let url = Postgres::shared().await.database().await;
    test(Arc::new(PostgresStore::open(&url).await.expect("it opens"))).await;
    // The tables are there, and are not made again.
    PostgresStore::open(&url).await.expect("it opens again").close().await;
}

fn post(id: &str, text: &str) -> Post {
    Post { id: id.to_owned(), at: NOON, author: "ada".to_owned(), text: text.to_owned() }
}

fn page(source: &str, posts: Vec<Post>) -> Page {
    let validators = Validators { etag: Some("\"1\"".to_owned()), ..Validators::default() };
    let url = format!("https://example.com/{source}");
    Page { source: source.to_owned(), group: "debian".to_owned(), url, validators, posts }
}

/// What a count of how often `word` is there makes of versions.
fn mapped(versions: Vec<Version>, word: &str) -> Vec<Mapped> {
    let count = |text: &str| text.split(' ').filter(|there| *there == word).count() as u64;
    let counts = |version: &Version| match count(&version.text) {
        0 => BTreeMap::new(),
        count => BTreeMap::from([(word.to_owned(), count)]),
    };
    versions.into_iter().map(|version| Mapped { counts: counts(&version), version }).collect()
}

fn alert(id: &str) -> Alert {
    let day = "2026-05-01".to_owned();
    Alert { id: id.to_owned(), rule: "many".to_owned(), group: "debian".to_owned(), day, text: id.to_owned() }
}

async fn counted(store: &dyn Store) -> Vec<(String, u64)> {
    let targets: Vec<Target> = store.targets("").await.expect("it answers");
    targets.into_iter().map(|target| (format!("{}/{}", target.keyword, target.day), target.count)).collect()
}

#[tokio::test]
async fn a_post_is_kept_once_an_edit_is_a_version_and_only_the_last_counts() {
    on_both(|store| async move {
        let store = &*store;
        let first = page("a", vec![post("2", "cve cve"), post("1", "nothing")]);
        assert_eq!(store.validators(&first.url).await.expect("it answers"), Validators::default());
        assert_eq!(store.save(first.clone()).await.expect("it is kept"), Saved { new: 2, edited: 0 });
        assert_eq!(store.save(first.clone()).await.expect("it is kept"), Saved::default());
        assert_eq!(store.validators(&first.url).await.expect("it answers"), first.validators);
        // The same id at another source is another post.
        assert_eq!(
            store.save(page("b", vec![post("1", "cve")])).await.expect("kept"),
            Saved { new: 1, edited: 0 }
        );
        let versions = store.unmapped(2).await.expect("it answers");
        let named: Vec<_> = versions.iter().map(|v| (v.post.as_str(), v.version, v.day.as_str())).collect();
        assert_eq!(named, [("a/1", 1, "2026-05-01"), ("a/2", 1, "2026-05-01")]);
        let before = versions.clone();
        store.map(mapped(versions, "cve")).await.expect("it is counted");
        assert_eq!(counted(store).await, [("cve/2026-05-01".to_owned(), 2)]);
        let rest = store.unmapped(10).await.expect("it answers");
        store.map(mapped(rest, "cve")).await.expect("it is counted");
        assert_eq!(counted(store).await, [("cve/2026-05-01".to_owned(), 3)]);
        // Who counts again what is counted, changes nothing.
        store.map(mapped(before.clone(), "cve")).await.expect("it is counted");
        assert_eq!(counted(store).await, [("cve/2026-05-01".to_owned(), 3)]);

        // Two edits in one page, of which the last stays; a version that is not the last is not counted.
        let edits = page("a", vec![post("2", "cve"), post("2", "cve cve cve")]);
        assert_eq!(store.save(edits).await.expect("it is kept"), Saved { new: 0, edited: 2 });
        store.map(mapped(before, "cve")).await.expect("it is counted");
        assert_eq!(counted(store).await, [("cve/2026-05-01".to_owned(), 3)]);
        let versions = store.unmapped(10).await.expect("it answers");
        assert_eq!(versions.iter().map(|v| v.version).collect::<Vec<_>>(), [2, 3]);
        store.map(mapped(versions, "cve")).await.expect("it is counted");
        assert_eq!(counted(store).await, [("cve/2026-05-01".to_owned(), 4)]);
        let edits = page("a", vec![post("2", "gone")]);
        store.save(edits).await.expect("it is kept");
        store.map(mapped(store.unmapped(10).await.expect("it answers"), "cve")).await.expect("counted");
        assert_eq!(counted(store).await, [("cve/2026-05-01".to_owned(), 1)]);
        assert!(store.targets("2026-05-02").await.expect("it answers").is_empty());
        let counts = Counts { posts: 3, versions: 6, ..Counts::default() };
        assert_eq!(store.counts().await.expect("it answers"), counts);
    })
    .await;
}

#[tokio::test]
async fn of_many_who_keep_count_and_raise_the_same_each_thing_is_there_once() {
    on_both(|store| async move {
        let tasks: Vec<_> = (0..8)
            .map(|n| {
                let store = Arc::clone(&store);
                tokio::spawn(async move {
                    // Each source twice, its posts in one order and the other.
                    let mut posts: Vec<_> = (0..20).map(|id| post(&id.to_string(), "cve")).collect();
                    if n % 2 == 0 {
                        posts.reverse();
                    }
                    let saved = store.save(page(&format!("source-{}", n / 2), posts)).await.expect("kept");
                    let versions = store.unmapped(1_000).await.expect("it answers");
                    store.map(mapped(versions, "cve")).await.expect("it is counted");
                    let mut ids = vec!["one", "two", "three"];
                    ids.rotate_left(n % 3);
                    let raised = store.raise(ids.into_iter().map(alert).collect()).await.expect("raised");
                    (saved.new, raised)
                })
            })
            .collect();
        let (mut new, mut raised) = (0, 0);
        for task in tasks {
            let (of_one, alerts) = task.await.expect("nothing panics");
            (new, raised) = (new + of_one, raised + alerts);
        }
        assert_eq!((new, raised), (80, 3));
        let versions = store.unmapped(1_000).await.expect("it answers");
        store.map(mapped(versions, "cve")).await.expect("it is counted");
        assert_eq!(counted(&*store).await, [("cve/2026-05-01".to_owned(), 80)]);
    })
    .await;
}

#[tokio::test]
async fn an_alert_is_there_until_it_is_delivered_and_listed_after() {
    on_both(|store| async move {
        assert_eq!(store.raise(vec![alert("one"), alert("two")]).await.expect("raised"), 2);
        assert_eq!(store.raise(vec![alert("two"), alert("three")]).await.expect("raised"), 1);
        assert_eq!(store.undelivered(2).await.expect("it answers"), [alert("one"), alert("two")]);
        store.delivered("one").await.expect("it is marked");
        store.delivered("nobody's").await.expect("nothing is");
        assert_eq!(store.undelivered(10).await.expect("it answers"), [alert("two"), alert("three")]);
        assert_eq!(store.alerts(2).await.expect("it answers"), [alert("three"), alert("two")]);
        let counts = store.counts().await.expect("it answers");
        assert_eq!((counts.alerts, counts.undelivered), (3, 2));
    })
    .await;
}

#[tokio::test]
async fn texts_that_a_database_cannot_hold_lose_nothing_else() {
    on_both(|store| async move {
        let odd = Post { author: "a\0b".to_owned(), ..post("x\0y", "cve \0 cve\u{10ffff}") };
        assert_eq!(
            store.save(page("a", vec![odd.clone()])).await.expect("it is kept"),
            Saved { new: 1, edited: 0 }
        );
        assert_eq!(store.save(page("a", vec![odd])).await.expect("it is kept"), Saved::default());
        let versions = store.unmapped(10).await.expect("it answers");
        assert!(versions[0].text.starts_with("cve ") && versions[0].text.ends_with(" cve\u{10ffff}"));
        store.map(mapped(versions, "cve")).await.expect("it is counted");
        assert_eq!(counted(&*store).await, [("cve/2026-05-01".to_owned(), 1)]);
    })
    .await;
}

#[tokio::test]
async fn a_database_that_is_away_passes_and_goes_on() {
    let server = Postgres::start().await;
    let store = PostgresStore::open(&server.database().await).await.expect("it opens");
    store.raise(vec![alert("one")]).await.expect("it is raised");
    server.kill().await;
    let error = store.raise(vec![alert("two")]).await.expect_err("nobody is there");
    assert!(error.passes, "{error}");
    server.restart().await;
    assert_eq!(store.raise(vec![alert("one"), alert("two")]).await.expect("it is raised"), 1);
}
