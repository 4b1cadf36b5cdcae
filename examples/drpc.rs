//! Request and answer: a call goes through a topology and comes back with its result, as Storm's DRPC.
//!
//! `cargo run --example drpc`, then `curl -d aaa http://127.0.0.1:8098/drpc/exclaim`; with `EXIT=1` it calls itself and ends.

use std::time::Duration;

use galerna::control::{ControlOptions, Topologies, serve};
use galerna::drpc::{Drpc, DrpcOptions, DrpcSpout, ReturnInfo, ReturnResults};
use galerna::prelude::*;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let drpc = Drpc::new(DrpcOptions::default());
    let mut topology = TopologyBuilder::new("exclaiming");
    let calls = topology.spout("calls", DrpcSpout::new(&drpc, "exclaim")).outputs();
    let results = topology
        .map("exclaim", |(text, caller): (String, ReturnInfo)| (format!("{text}!!!"), caller))
        .shuffle(calls)
        .outputs();
    topology.bolt("return", ReturnResults).shuffle(results);

    let topologies = Topologies::new();
    topologies.submit("exclaiming", topology.build()?, EngineOptions::default()).await?;
    if std::env::var_os("EXIT").is_some() {
        println!("{}", drpc.execute("exclaim", "aaa").await?);
        topologies.drain(Duration::from_secs(5)).await;
        return Ok(());
    }
    println!("call http://127.0.0.1:8098/drpc/exclaim, see http://127.0.0.1:8098/topologies");
    // The page and the calls at one address.
    let options = ControlOptions { beside: drpc.routes(), ..ControlOptions::default() };
    serve("127.0.0.1:8098", topologies, options).await?;
    Ok(())
}
