//! The API is as its description says, whatever is sent.

mod stage;

use std::time::Duration;

use galerna_dispatcher::{DispatcherOptions, ServiceOptions, Timing, serve};
use galerna_test_servers::check_openapi;
use stage::{Stage, options};
use tokio::net::TcpListener;

#[tokio::test(flavor = "multi_thread")]
async fn the_api_and_its_description_agree() {
    let stage = Stage::embedded().await;
    stage.queues(&[("D1", 5), ("D2", 0), ("D3", 1)]).await;
    let options = options();
    // Some calls ask to wait for as long as they may.
    let timing = Timing { max_wait: Duration::from_millis(20), ..options.timing.clone() };
    let dispatcher = stage.dispatcher_with(DispatcherOptions { timing, ..options }).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let base = format!("http://{}", listener.local_addr().expect("an address"));
    let options = ServiceOptions { token: Some("secret".to_owned()) };
    let serving = tokio::spawn(serve(listener, dispatcher, options, std::future::pending()));
    // A dispatcher that was stopped rightly answers 503.
    let token = ["--header", "Authorization: Bearer secret"];
    check_openapi(&base, &[&token[..], &["--exclude-path", "/stop"]].concat()).await;
    let switch = ["--include-path", "/stop", "--include-path", "/start", "--include-path", "/strategy"];
    check_openapi(&base, &[&token[..], &switch].concat()).await;
    serving.abort();
}
