//! Calls to a service about each tuple, many at once, with a timeout and retries.
//!
//! The service here is a function that takes its time, is busy now and then, and does not know one of the articles. What is
//! transient is tried again; what is permanent fails its tuple at once, with the reason.
//!
//! `cargo run --example calls`

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use galerna::prelude::*;

static CALLS: AtomicUsize = AtomicUsize::new(0);

/// What an article costs, in cents.
async fn price_of(article: u32) -> Result<(u32, u32), Fault> {
    let call = CALLS.fetch_add(1, Ordering::Relaxed);
    tokio::time::sleep(Duration::from_millis(20)).await;
    if article == 13 {
        return Err(Fault::permanent("there is no article 13"));
    }
    if call.is_multiple_of(10) {
        return Err(Fault::transient("the service is busy"));
    }
    Ok((article, 100 + 25 * article))
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut topology = TopologyBuilder::new("calls");
    let articles = topology.spout("articles", || IteratorSpout::new(1..=20_u32).with_attempts(1)).outputs();
    let calls = Calls::at_once(8)
        .timeout(Duration::from_secs(2))
        .retries(4, Duration::from_millis(10), Duration::from_millis(200))
        .ordered();
    let prices = topology.map_async("price", calls, price_of).shuffle(articles).outputs();
    topology
        .for_each("print", |(article, cents): (u32, u32)| {
            println!("article {article}: {}.{:02}", cents / 100, cents % 100);
        })
        .shuffle(prices);

    let running = Engine::submit(topology.build()?, EngineOptions::default()).await?;
    running.finished().await;
    let report = running.drain(Duration::from_secs(5)).await;
    if let Some(articles) = report.metrics.component("articles") {
        let failed: u64 = articles.failed.values().sum();
        println!("{} priced, {failed} without a price", articles.acked);
    }
    Ok(())
}
