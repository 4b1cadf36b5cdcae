//! What concerns checkpoints in MongoDB alone.

use std::time::Duration;

use bson::{Binary, Document, doc, spec::BinarySubtype};
use galerna_engine::{CheckpointOptions, Engine, EngineOptions, Running};
use galerna_test_servers::Mongo;
use mongodb::Client;

use crate::place::Place;
use crate::source::Source;
use crate::words::{Shape, counts, start, until, words};

const NEVER: Duration = Duration::from_secs(100_000);

fn held(running: &Running) -> u64 {
    running.metrics().checkpoints.unwrap().held_acks
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_the_server_is_away_acks_wait_and_the_topology_runs_on() {
    let server = Mongo::start().await;
    let mut place = Place::on(&server);
    if let Place::Mongo { options, .. } = &mut place {
        options.timeout = Duration::from_secs(2);
    }
    let source = Source::default();
    let running = start(&place, &source, Shape::default(), NEVER).await;
    (0..10).for_each(|n| source.send(format!("word-{n}")));
    until("all is counted", || held(&running) == 10).await;
    running.checkpoint().await.unwrap();
    until("all is acked", || source.is_empty()).await;
    server.kill().await;
    for round in 1..=2 {
        (0..10).for_each(|n| source.send(format!("word-{n}")));
        until("all is counted", || held(&running) == 10 * round).await;
        let failure = running.checkpoint().await.unwrap_err().to_string();
        assert!(failure.contains("check that the server runs"), "{failure}");
        let metrics = running.metrics().checkpoints.unwrap();
        assert_eq!((metrics.failed, metrics.committed, metrics.last_error), (round, 1, Some(failure)));
    }
    assert_eq!(source.numbers().1, 10);
    server.restart().await;
    let report = running.checkpoint().await.unwrap();
    assert_eq!(report.in_doubt, 30);
    until("all is acked", || source.is_empty()).await;
    drop(running);
    assert_eq!(counts(&place).await, source.counts());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_checkpoint_cut_in_half_is_refused_with_what_to_do() {
    let source = Source::default();
    for kind in ["manifest", "blocks"] {
        let place = Place::mongo().await;
        let running = start(&place, &source, Shape::default(), NEVER).await;
        source.send("word");
        until("it is counted", || held(&running) == 1).await;
        running.checkpoint().await.unwrap();
        drop(running);
        drop(place.open().await);
        let Place::Mongo { options, .. } = &place else { unreachable!("it is in MongoDB") };
        let client = Client::with_uri_str(&options.uri).await.unwrap();
        let database = client.database(options.database.as_ref().unwrap());
        let chunks = database.collection::<Document>("checkpoint_chunks");
        let of = doc! { "file": { "$regex": kind } };
        let chunk = chunks.find_one(of.clone()).await.unwrap().unwrap();
        let (file, data) = (chunk.get_str("file").unwrap(), chunk.get_binary_generic("data").unwrap());
        let half = Binary { subtype: BinarySubtype::Generic, bytes: data[..data.len() / 2].to_vec() };
        for change in [Some(half), None] {
            match change {
                Some(half) => {
                    let set = doc! { "$set": { "data": half } };
                    chunks.update_one(doc! { "file": file }, set).await.unwrap();
                }
                None => drop(chunks.delete_many(doc! { "file": file }).await.unwrap()),
            }
            let checkpoints = CheckpointOptions::shared(place.open().await).every(NEVER);
            let options = EngineOptions { checkpoints: Some(checkpoints), ..EngineOptions::default() };
            let error =
                Engine::submit(words(&source, Shape::default()), options).await.unwrap_err().to_string();
            assert!(error.contains("the state of topology `words` could not be made ready"), "{error}");
            assert!(error.contains("it is missing or cut short") && error.contains(file), "{error}");
            assert!(error.contains("back from a copy"), "{error}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_another_has_replaced_commits_nothing_more() {
    let (place, source) = (Place::mongo().await, Source::default());
    let submit = async || {
        let checkpoints = CheckpointOptions::shared(place.open_beside().await).every(NEVER);
        let options = EngineOptions { checkpoints: Some(checkpoints), ..EngineOptions::default() };
        Engine::submit(words(&source, Shape::default()), options).await.unwrap()
    };
    let before = submit().await;
    (0..10).for_each(|_| source.send("word"));
    until("all is counted", || held(&before) == 10).await;
    before.checkpoint().await.unwrap();
    until("all is acked", || source.is_empty()).await;
    // It is slow to end when the next one is there already, with the state of the last checkpoint.
    (0..5).for_each(|_| source.send("word"));
    until("they are counted", || held(&before) == 5).await;
    let after = submit().await;
    let failure = before.checkpoint().await.expect_err("refused").to_string();
    assert!(
        failure.contains("another process") && failure.contains("let only one process run it"),
        "{failure}"
    );
    assert_eq!(source.numbers().1, 10, "what nobody has in state is not acked");
    source.disconnect(0, &mut fastrand::Rng::with_seed(1));
    drop(before);
    let after = {
        // Its source is of the connection before.
        drop(after);
        start(&place, &source, Shape::default(), NEVER).await
    };
    until("they come again", || held(&after) == 5).await;
    after.checkpoint().await.unwrap();
    until("all is acked", || source.is_empty()).await;
    drop(after);
    assert_eq!(counts(&place).await, source.counts());
}
