//! Who holds much, or is slow, keeps nobody else out.

use std::time::Duration;

use galerna_frontend::{Limits, Options, Timeouts};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

use crate::world::{DEADLINE, GOOD, World};

const C1: &str = "/readings?source_key=c1&x-dexcell-source-token=token-c1";

/// No call ends here because it is slow: it is the others that are looked at.
fn patient(limits: Limits) -> Options {
    let timeouts = Timeouts { idle: 5 * DEADLINE, body: 5 * DEADLINE, ..Timeouts::default() };
    Options { limits, timeouts, ..Options::default() }
}

/// Room for eight longest bodies, and so for two of one holder.
fn narrow() -> Options {
    patient(Limits { body_bytes: 64 << 10, bytes_in_flight: 512 << 10, ..Limits::default() })
}

/// A call from this address whose body stops after so many bytes.
async fn unfinished(world: &World, from: &str, path: &str, came: usize) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(format!("{from}:0").parse().unwrap()).unwrap();
    let mut stream = socket.connect(world.address.parse().unwrap()).await.unwrap();
    let head = format!("POST {path} HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n", came + 1);
    stream.write_all(head.as_bytes()).await.unwrap();
    // The frontend may refuse before it has read all of it.
    drop(stream.write_all(&vec![b' '; came]).await);
    stream
}

/// The value of a metric, 0 while it is not there.
async fn metric(world: &World, name: &str) -> u64 {
    let text = world.http.get(world.url("/metrics")).send().await.unwrap().text().await.unwrap();
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value.map_or(0, |value| value.parse().unwrap())
}

async fn until_refused(world: &World, route: &str, least: u64) {
    let name = format!(r#"galerna_frontend_requests_total{{route="{route}",status="429"}}"#);
    let refused = async {
        while metric(world, &name).await < least {
            tokio::task::yield_now().await;
        }
    };
    timeout(DEADLINE, refused).await.unwrap();
}

/// A form of one service, in which the source is named.
fn form(source: &str, value: &str) -> String {
    let data = format!(
        r#"{{"gatewayId":"{source}","service":[{{"nodeNetworkId":"1","serviceNetworkId":401,"value":{value},"seqNum":1,"timeStamp":"2014-04-16T10:00:00.000 UTC"}}]}}"#
    );
    form_urlencoded::Serializer::new(String::new()).append_pair("data", &data).finish()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_whose_bodies_do_not_end_gets_429_and_others_go_on() {
    let world = World::embedded(narrow()).await;
    let mut slow = Vec::new();
    for _ in 0..12 {
        slow.push(unfinished(&world, "127.0.0.1", C1, 60_000).await);
    }
    until_refused(&world, "/readings", 10).await;
    let large = format!("{GOOD}{}", " ".repeat(60_000));
    let answer = world.http.post(world.readings_of("c1")).body(large.clone()).send().await.unwrap();
    assert_eq!(answer.status(), 429);
    assert!(answer.headers().contains_key("retry-after"));
    assert!(answer.text().await.unwrap().contains("too_much_at_once"));
    let (status, answer) = world.post("c2", large.clone()).await;
    assert_eq!(status, 202, "{answer}");
    drop(slow);
    let again = async { while world.post("c1", large.clone()).await.0 != 202 {} };
    timeout(DEADLINE, again).await.unwrap();
    world.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_with_many_small_calls_that_do_not_end_keeps_places_for_others() {
    let world = World::embedded(patient(Limits { connections: 40, ..Limits::default() })).await;
    let mut slow = Vec::new();
    for _ in 0..15 {
        slow.push(unfinished(&world, "127.0.0.1", C1, 1).await);
    }
    until_refused(&world, "/readings", 5).await;
    assert_eq!(world.post("c1", GOOD).await.0, 429);
    assert_eq!(world.post("c2", GOOD).await.0, 202);
    drop(slow);
    world.stopped().await;
}

// Only Linux has more addresses of its own than one without being told.
#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_nobody_knows_keeps_no_other_out_of_the_older_path() {
    let world = World::embedded(narrow()).await;
    let mut slow = Vec::new();
    for _ in 0..12 {
        let path = "/insert-json.htm?x-dexcell-source-token=junk";
        slow.push(unfinished(&world, "127.0.0.2", path, 60_000).await);
    }
    until_refused(&world, "/insert-json.htm", 10).await;
    let url = world.url("/insert-json.htm?x-dexcell-source-token=token-c1");
    let body = format!("{}&more={}", form("c1", "1.0"), "x".repeat(60_000));
    let answer = world.http.post(&url).body(body).send().await.unwrap();
    assert_eq!(answer.status(), 202, "{}", answer.text().await.unwrap());
    drop(slow);
    world.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_say_nothing_give_their_places_back_before_a_slow_head_would() {
    let timeouts =
        Timeouts { first_byte: Duration::from_millis(200), head: 5 * DEADLINE, ..Timeouts::default() };
    let limits = Limits { connections: 4, ..Limits::default() };
    let world = World::embedded(Options { limits, timeouts, ..Options::default() }).await;
    let mut silent = Vec::new();
    for _ in 0..8 {
        silent.push(TcpStream::connect(&world.address).await.unwrap());
    }
    assert_eq!(world.post("c1", GOOD).await.0, 202);
    drop(silent);
    world.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_readings_are_counted_also_when_none_of_a_call_can_be_taken() {
    let world = World::embedded(Options::default()).await;
    let rejected = "galerna_frontend_readings_rejected_total";
    assert_eq!(world.post("c1", format!("[{GOOD},7]")).await.0, 202);
    assert_eq!(metric(&world, rejected).await, 1);
    assert_eq!(world.post("c1", "[7,8]").await.0, 400);
    assert_eq!(metric(&world, rejected).await, 3);
    for (query, status, counted) in [
        ("x-dexcell-source-token=token-c1", 400, 4),
        ("x-dexcell-source-token=token-c1&source_key=c1", 400, 5),
        // Whoever it was, it was no source.
        ("x-dexcell-source-token=junk", 401, 5),
    ] {
        let url = world.url(&format!("/insert-json.htm?{query}"));
        let answer = world.http.post(url).body(form("c1", "null")).send().await.unwrap();
        assert_eq!(answer.status(), status, "{query}");
        assert_eq!(metric(&world, rejected).await, counted, "{query}");
    }
    world.stopped().await;
}
