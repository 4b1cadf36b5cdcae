//! Measures one query: `streams QUERY [events=N] [sensors=N] [tasks=N] [rate=N]`, and prints a line of JSON.

use galerna_streams::measure::{Query, Size, measure};

const USAGE: &str = "streams QUERY [events=N] [sensors=N] [tasks=N] [rate=EVENTS_A_SECOND]";

fn parse() -> Result<(Query, Size), String> {
    let mut args = std::env::args().skip(1);
    let query =
        args.next().ok_or("no query is given")?.parse::<Query>().map_err(|error| error.to_string())?;
    let mut size = Size { events: 10_000_000, sensors: 10_000, tasks: 2, rate: None };
    for arg in args {
        let (name, value) = arg.split_once('=').ok_or_else(|| format!("`{arg}` is not NAME=NUMBER"))?;
        let value: u64 = value.parse().map_err(|_| format!("`{value}` is no number"))?;
        match name {
            "events" => size.events = value,
            "sensors" => size.sensors = value,
            "tasks" => size.tasks = value.clamp(1, 64) as usize,
            "rate" => size.rate = (value > 0).then_some(value),
            _ => return Err(format!("there is no `{name}`")),
        }
    }
    Ok((query, size))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (query, size) = parse().map_err(|error| format!("{error}\nusage: {USAGE}"))?;
    println!("{}", serde_json::to_string(&measure(query, size).await?)?);
    Ok(())
}
