//! Processes that consume RabbitMQ are killed at random moments: in the end state is that of a run without faults, exactly.
//!
//! A run comes of a seed, which is printed: `GALERNA_KILLS_SEED` runs one again, as far as kills can be repeated.
//! `GALERNA_KILLS` says how many there are for each place of checkpoints, 10 unless set:
//! `GALERNA_KILLS=100 cargo test -p galerna-windows --test rabbitmq -- --nocapture`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod drive;
mod events;
mod found;
mod place;
mod process;
mod topology;

use std::time::Instant;

use crate::drive::World;
use crate::place::Place;

/// Kills for each place unless the environment says otherwise.
const KILLS: usize = 10;

fn from_environment<N: std::str::FromStr>(name: &str) -> Option<N> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} is `{text}`, which is no number")))
}

/// Kills a process as often as asked; what state has then is what a process has that nothing happens to.
async fn kill(place: Place, test: &'static str) {
    let seed = from_environment("GALERNA_KILLS_SEED").unwrap_or_else(|| fastrand::u64(..1 << 32));
    let kills = from_environment("GALERNA_KILLS").unwrap_or(KILLS);
    println!("GALERNA_KILLS_SEED={seed}, {kills} kills, checkpoints {place}");
    let begun = Instant::now();
    let mut world = World::new(place, test, seed).await;
    for _ in 0..kills {
        world.kill_once().await;
    }
    let found = world.finish().await;
    let took = begun.elapsed();
    let without_faults = world.without_faults().await.finish().await;
    assert!(found == without_faults, "seed {seed}: {}", found.difference(&without_faults));
    let expected = events::expected(world.events());
    assert!(found == expected, "seed {seed}: {}", found.difference(&expected));
    let (pairs, alone) = found.pairs();
    println!(
        "{kills} kills in {:.1} s, {} of them with messages in doubt; {} messages, {} results of windows, {pairs} pairs and {alone} events \
         without a partner: all as without faults",
        took.as_secs_f64(),
        world.in_doubt(),
        found.ids.len(),
        found.results()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_checkpoints_in_a_folder_state_is_as_without_faults() {
    if process::is_child() {
        return process::run().await;
    }
    kill(Place::folder(), "with_checkpoints_in_a_folder_state_is_as_without_faults").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_checkpoints_in_mongodb_state_is_as_without_faults() {
    if process::is_child() {
        return process::run().await;
    }
    kill(Place::mongo().await, "with_checkpoints_in_mongodb_state_is_as_without_faults").await;
}
