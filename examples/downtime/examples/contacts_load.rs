//! Load on notification lists: users who all add the same contact, of whom one may, and then ask for it, and for the next.
//!
//! `contacts_load ADDRESS [users] [seconds] [gets]`: each user has a connection of its own and one request on it at a time. Prints one
//! line, `RESULT requests/s p50 p99 p99-of-GET p99-of-POST wrong`, times in milliseconds. It is wrong when an answer is not what it must
//! be: 201 for exactly one of those who add a contact, 403 for the others, 200 for who asks for it.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// A connection, on which one request at a time is answered.
struct Connection {
    stream: TcpStream,
    host: String,
    read: Vec<u8>,
}

impl Connection {
    async fn open(host: &str) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(host).await.with_context(|| format!("connecting to {host}"))?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, host: host.to_owned(), read: Vec::with_capacity(4_096) })
    }

    /// Sends a request and reads its answer to the end: its status.
    async fn call(&mut self, method: &str, path: &str, body: &str) -> anyhow::Result<u16> {
        let mut request = format!("{method} {path} HTTP/1.1\r\nhost: {}\r\n", self.host);
        if !body.is_empty() {
            request += &format!("content-type: application/json\r\ncontent-length: {}\r\n", body.len());
        }
        request += "\r\n";
        request += body;
        self.stream.write_all(request.as_bytes()).await?;
        self.read.clear();
        loop {
            if self.stream.read_buf(&mut self.read).await? == 0 {
                bail!("the server closed the connection");
            }
            let Some(head) = self.read.windows(4).position(|end| end == b"\r\n\r\n") else { continue };
            let text = std::str::from_utf8(&self.read[..head])?;
            let status = text.get(9..12).context("no status")?.parse()?;
            let length = text.lines().find_map(|line| {
                let (name, value) = line.split_once(':')?;
                name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>())
            });
            let length = length.context("an answer without content-length")??;
            while self.read.len() < head + 4 + length {
                if self.stream.read_buf(&mut self.read).await? == 0 {
                    bail!("the server closed the connection");
                }
            }
            return Ok(status);
        }
    }
}

/// What one user saw: how long each GET and each POST took, the rounds that it won, and answers that are wrong.
#[derive(Default)]
struct Seen {
    gets: Vec<Duration>,
    posts: Vec<Duration>,
    won: Vec<u64>,
    rounds: u64,
    wrong: u64,
}

async fn user(host: String, until: Instant, gets: u32) -> anyhow::Result<Seen> {
    let mut connection = Connection::open(&host).await?;
    let mut seen = Seen::default();
    while Instant::now() < until {
        let address = format!("user-{}@example.com", seen.rounds);
        let began = Instant::now();
        let body = format!("{{\"address\": \"{address}\"}}");
        match connection.call("POST", "/api/v1/lists/load/contacts", &body).await? {
            201 => seen.won.push(seen.rounds),
            403 => {}
            _ => seen.wrong += 1,
        }
        seen.posts.push(began.elapsed());
        let path = format!("/api/v1/lists/load/contacts/{address}");
        for _ in 0..gets {
            let began = Instant::now();
            seen.wrong += u64::from(connection.call("GET", &path, "").await? != 200);
            seen.gets.push(began.elapsed());
        }
        seen.rounds += 1;
    }
    Ok(seen)
}

/// The quantile of what is sorted, in milliseconds.
fn quantile(sorted: &[Duration], of: f64) -> f64 {
    let index = (sorted.len() as f64 * of) as usize;
    sorted.get(index.min(sorted.len().saturating_sub(1))).map_or(0.0, Duration::as_secs_f64) * 1_000.0
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let host = arguments.next().context("contacts_load ADDRESS [users] [seconds] [gets]")?;
    let mut number = |usual: u32| arguments.next().map_or(Ok(usual), |text| text.parse::<u32>());
    let (users, seconds, gets) = (number(10)?, number(10)?, number(50)?);
    let mut connection = Connection::open(&host).await?;
    let made = connection.call("POST", "/api/v1/lists", "{\"name\": \"load\"}").await?;
    if made != 201 {
        bail!("the list `load` cannot be made: {made}; it has to be a store without it");
    }
    let began = Instant::now();
    let until = began + Duration::from_secs(u64::from(seconds));
    let tasks: Vec<_> = (0..users).map(|_| tokio::spawn(user(host.clone(), until, gets))).collect();
    let (mut all, mut winners) = (Seen::default(), HashMap::<u64, u32>::new());
    for task in tasks {
        let seen = task.await??;
        all.gets.extend(seen.gets);
        all.posts.extend(seen.posts);
        all.wrong += seen.wrong;
        all.rounds = all.rounds.max(seen.rounds);
        for round in seen.won {
            *winners.entry(round).or_default() += 1;
        }
    }
    let took = began.elapsed().as_secs_f64();
    all.wrong += (0..all.rounds).filter(|round| winners.get(round) != Some(&1)).count() as u64;
    all.gets.sort_unstable();
    all.posts.sort_unstable();
    let mut every = [all.gets.as_slice(), all.posts.as_slice()].concat();
    every.sort_unstable();
    println!(
        "RESULT {:.0} {:.2} {:.2} {:.2} {:.2} {}",
        every.len() as f64 / took,
        quantile(&every, 0.5),
        quantile(&every, 0.99),
        quantile(&all.gets, 0.99),
        quantile(&all.posts, 0.99),
        all.wrong
    );
    Ok(())
}
