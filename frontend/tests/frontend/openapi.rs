//! The API is as its description says, whatever is sent.

use galerna_frontend::Options;
use galerna_test_servers::check_openapi;

use crate::world::World;

async fn world() -> World {
    World::embedded(Options { operator_token: Some("operator".to_owned()), ..Options::default() }).await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_api_and_its_description_agree() {
    let world = world().await;
    check_openapi(&world.url(""), &["--header", "Authorization: Bearer operator"]).await;
    world.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_source_may_be_answered_is_described() {
    let world = world().await;
    let source = [
        "--header",
        "x-dexcell-source-token: token-c1",
        "--include-path-regex",
        "^/(readings|insert-json.htm)$",
    ];
    // What makes a reading is more than a description can say: that some are refused is no failure.
    let refused = ["--exclude-checks", "positive_data_acceptance"];
    check_openapi(&world.url(""), &[source.as_slice(), refused.as_slice()].concat()).await;
    world.stopped().await;
}
