//! The APIs of `galerna up`, of its admin server and of a maintainer are as their descriptions say, whatever is sent.

mod system;

use galerna_test_servers::{Mongo, RabbitMq, check_openapi};
use system::{Service, database, run_well};

const SAMPLES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/data/sample_messages.ndjson");

async fn address(service: &Service, name: &str) -> String {
    let entry = service.said(&format!("the {name} listens")).await;
    format!("http://{}", entry["fields"]["address"].as_str().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_api_and_the_admin_server_of_all_modules_agree_with_their_descriptions() {
    let folder = tempfile::tempdir().unwrap();
    let mut service = Service::start(folder.path(), &["up", "--listen", "127.0.0.1:0"]);
    let api = service.api().await;
    service.said("all modules are up").await;
    run_well(folder.path(), &["--dispatcher", &api, "publish", SAMPLES]);
    // Those of the dispatcher are tried in its own tests, with waits that are short.
    let own = [
        "/publish",
        "/publish/meters",
        "/sources",
        "/sources/{source}/rotate",
        "/sources/{source}/remove",
        "/dead",
        "/queue/{id}/dead",
        "/queue/{id}/dead/replay",
        "/queue/{id}/dead/discard",
        "/schedules",
        "/schedules/{id}",
        "/schedules/{id}/history",
        "/schedules/{id}/pause",
        "/schedules/{id}/resume",
        "/schedules/{id}/trigger",
        "/schedules/{id}/backfill",
        "/schedules/{id}/remove",
        "/upcoming",
        "/workers",
        "/trace/{message}",
        "/healthz",
        "/openapi.json",
    ];
    let paths: Vec<&str> = own.iter().flat_map(|path| ["--include-path", path]).collect();
    // Names that are reserved, or another account's, are refused by rules that no description can say.
    let refused = ["--exclude-checks", "positive_data_acceptance"];
    check_openapi(&api, &[&paths[..], &refused].concat()).await;
    check_openapi(&address(&service, "admin server").await, &[]).await;
    // Names, texts of times and patterns have rules that are not described.
    check_openapi(&address(&service, "page").await, &refused).await;
    assert!(service.stop().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_maintainer_agrees_with_its_description() {
    let (rabbit, mongo) = (RabbitMq::shared().await, Mongo::shared().await);
    let (amqp, store) = (rabbit.vhost().await, database(&mongo.uri(), &mongo.unique("openapi")));
    let management = format!("broker.management_url={}", rabbit.management_uri());
    let folder = tempfile::tempdir().unwrap();
    let servers = ["--broker", &amqp, "--store", &store, "--set", &management];
    let free = ["--set", "maintainer.listen=127.0.0.1:0", "maintainer"];
    let mut service = Service::start(folder.path(), &[&servers[..], &free].concat());
    let base = address(&service, "maintainer").await;
    // A run may be asked to watch for an hour.
    check_openapi(&base, &["--exclude-path", "/tasks/{task}/run"]).await;
    assert!(service.stop().await.success());
}
