//! A nightly schedule over the night in which the clocks go forward, two processes that look at it, and what is recorded.
//!
//! `cargo run --example schedules -- serve` then serves its page at http://127.0.0.1:8088/schedules.

use std::sync::Arc;

use anyhow::Result;
use galerna_model::{ManualClock, Timestamp};
use galerna_schedules::sqlite::SqliteSchedules;
use galerna_schedules::{Definition, ScheduleId, ScheduleStore, Scheduler, SchedulerOptions, Schedules};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    // A clock that is moved by hand; a program takes `SystemClock`, and a file that its processes share.
    let clock = ManualClock::at(Timestamp::parse("2026-03-28T12:00:00+01:00").map_err(anyhow::Error::msg)?);
    let store: Arc<dyn ScheduleStore> = Arc::new(SqliteSchedules::in_memory()?);
    let schedules = Schedules::new(Arc::clone(&store), Arc::new(clock.clone()));
    let id = ScheduleId::new("reports/nightly")?;
    schedules.add(id.clone(), Definition::cron("30 2 * * *", "Europe/Berlin")).await?;
    for time in schedules.upcoming(&id, 3).await? {
        println!("next {time}");
    }

    let process = || Scheduler::new(Arc::clone(&store), Arc::new(clock.clone()), SchedulerOptions::default());
    let mut processes = [process(), process()];
    for _day in 0..3 {
        clock.advance(86_400_000);
        // Noon: the night's occurrence is hours late, beyond the catch-up window.
        for process in &mut processes {
            for firing in process.tick(10).await?.claimed {
                process.finish(&firing, &Ok(())).await?;
            }
        }
    }
    schedules.trigger(&id, None).await?;
    for process in &mut processes {
        for firing in process.tick(10).await?.claimed {
            println!("running {}", firing.id);
            process.finish(&firing, &Ok(())).await?;
        }
    }
    for ended in schedules.history(&id, None, 10).await?.iter().rev() {
        println!("{} {}", ended.id, ended.outcome);
    }
    if std::env::args().any(|argument| argument == "serve") {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:8088").await?;
        println!("see http://127.0.0.1:8088/schedules");
        axum::serve(listener, galerna_schedules::router(schedules)).await?;
    }
    Ok(())
}
