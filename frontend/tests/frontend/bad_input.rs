//! What may be wrong with a call: each has its answer, stores nothing and harms nothing.

use std::io::Write;
use std::time::Duration;

use galerna_frontend::{Limits, Options, Rate, Timeouts};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::world::{DEADLINE, GOOD, World, queue};

const OWN: &str = "/readings?source_key=c1&x-dexcell-source-token=token-c1";

fn gzip(data: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(data).unwrap();
    encoder.finish().unwrap()
}

struct Case {
    what: &'static str,
    path: &'static str,
    headers: &'static [(&'static str, &'static str)],
    body: Vec<u8>,
    status: u16,
    code: &'static str,
    says: &'static str,
}

fn cases() -> Vec<Case> {
    let case = |what, body: &[u8], status, code, says| Case {
        what,
        path: OWN,
        headers: &[],
        body: body.to_vec(),
        status,
        code,
        says,
    };
    let encoded = |what, encoding: &'static [(&'static str, &'static str)], body, status, code, says| Case {
        what,
        path: OWN,
        headers: encoding,
        body,
        status,
        code,
        says,
    };
    let at = |what, path, headers, status, code, says| Case {
        what,
        path,
        headers,
        body: GOOD.as_bytes().to_vec(),
        status,
        code,
        says,
    };
    let many = format!("[{}]", vec![GOOD; 100_000].join(","));
    let many_small = format!("[{}]", vec!["{}"; 100_000].join(","));
    let bomb = gzip(&vec![b'['; 300 << 20]);
    let refused = "source and token do not belong together";
    vec![
        case("malformed JSON", b"[\n{\"did\":\n oops}]", 400, "malformed", "line 3 column 2"),
        case("JSON that ends too early", &GOOD.as_bytes()[..40], 400, "malformed", "line 1 column 40"),
        case("no JSON at all", b"\x00\x01\x02", 400, "malformed", "line 1 column 1"),
        case("bytes that are not UTF-8", b"[\xff]", 400, "malformed", "line 1 column"),
        case("a text that is not UTF-8", b"[\"\xff\"]", 400, "no_valid_reading", "[0] reading is text"),
        case("a number", b"7", 400, "malformed", "neither an object nor an array"),
        case(
            "wrong types",
            br#"{"did":7,"values":{},"sqn":"x","ts":true}"#,
            400,
            "no_valid_reading",
            "did is a number",
        ),
        case(
            "NaN",
            br#"[{"did":"a","values":[{"p":1,"v":NaN}],"sqn":1,"ts":0}]"#,
            400,
            "no_valid_reading",
            "values[0].v is NaN",
        ),
        case(
            "no time zone",
            br#"{"did":"a","values":[],"sqn":1,"ts":"2015-04-21T23:15:00"}"#,
            400,
            "no_valid_reading",
            "no zone",
        ),
        case("an empty body", b"", 400, "empty_body", "empty"),
        case("a blank body", b" \r\n", 400, "empty_body", "empty"),
        case("100,000 readings", many.as_bytes(), 413, "too_large", ""),
        case("100,000 small elements", many_small.as_bytes(), 413, "too_large", "10000 readings"),
        case("deep nesting", "[".repeat(1 << 20).as_bytes(), 400, "malformed", "line 1 column"),
        encoded("a gzip bomb", &[("content-encoding", "gzip")], bomb, 413, "too_large", "8388608 bytes"),
        encoded("br", &[("content-encoding", "br")], GOOD.into(), 415, "unsupported_encoding", "`br`"),
        encoded(
            "deflate",
            &[("content-encoding", "deflate")],
            GOOD.into(),
            415,
            "unsupported_encoding",
            "gzip, zstd",
        ),
        encoded(
            "gzip twice",
            &[("content-encoding", "gzip, gzip")],
            GOOD.into(),
            415,
            "unsupported_encoding",
            "",
        ),
        encoded("gzip that is none", &[("content-encoding", "gzip")], GOOD.into(), 400, "malformed", "gzip"),
        encoded(
            "half of a gzip",
            &[("content-encoding", "gzip")],
            gzip(GOOD.as_bytes())[..30].to_vec(),
            400,
            "malformed",
            "gzip",
        ),
        at(
            "an unknown source",
            "/readings?source_key=nobody&x-dexcell-source-token=token-c1",
            &[],
            401,
            "unauthorized",
            refused,
        ),
        at(
            "a wrong token",
            "/readings?source_key=c1&x-dexcell-source-token=wrong",
            &[],
            401,
            "unauthorized",
            refused,
        ),
        at(
            "the token of another source",
            "/readings?source_key=c1&x-dexcell-source-token=token-c2",
            &[],
            401,
            "unauthorized",
            refused,
        ),
        at(
            "a source that is off",
            "/readings?source_key=off&x-dexcell-source-token=token-off",
            &[],
            401,
            "unauthorized",
            refused,
        ),
        at("no token", "/readings?source_key=c1", &[], 401, "unauthorized", refused),
        at("no source", "/readings?x-dexcell-source-token=token-c1", &[], 401, "unauthorized", refused),
        at("nothing", "/readings", &[], 401, "unauthorized", refused),
        at(
            "an odd source",
            "/readings?source_key=c1%00%2f..&x-dexcell-source-token=token-c1",
            &[],
            401,
            "unauthorized",
            refused,
        ),
        at("two tokens", OWN, &[("x-dexcell-source-token", "token-c2")], 401, "unauthorized", refused),
        at(
            "two sources",
            "/readings?source_key=c1&source_key=c2&x-dexcell-source-token=token-c1",
            &[],
            401,
            "unauthorized",
            refused,
        ),
        at(
            "dots in the path",
            "/x/../readings?source_key=c1&x-dexcell-source-token=token-c1",
            &[],
            404,
            "not_found",
            "no POST",
        ),
        at(
            "two slashes",
            "//readings?source_key=c1&x-dexcell-source-token=token-c1",
            &[],
            404,
            "not_found",
            "",
        ),
        at(
            "a slash at the end",
            "/readings/?source_key=c1&x-dexcell-source-token=token-c1",
            &[],
            404,
            "not_found",
            "",
        ),
        at(
            "an encoded path",
            "/%2e%2e/%72eadings?source_key=c1&x-dexcell-source-token=token-c1",
            &[],
            404,
            "not_found",
            "",
        ),
        at(
            "a zero in the path",
            "/readings%00?source_key=c1&x-dexcell-source-token=token-c1",
            &[],
            404,
            "not_found",
            "",
        ),
        at(
            "another case",
            "/Readings?source_key=c1&x-dexcell-source-token=token-c1",
            &[],
            404,
            "not_found",
            "",
        ),
        at(
            "not an old form",
            "/insert-json.htm?source_key=c1&x-dexcell-source-token=token-c1",
            &[],
            400,
            "malformed",
            "`data`",
        ),
        at("an old form without a token", "/insert-json.htm", &[], 401, "unauthorized", refused),
    ]
}

/// Sends a request as it stands, whatever clients would make of its path.
async fn send(
    world: &World,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> (u16, String, Value) {
    let mut request = format!(
        "{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {}\r\n",
        body.len()
    );
    for (name, value) in headers {
        request.push_str(&format!("{name}: {value}\r\n"));
    }
    let answer = world.raw(&[request.as_bytes(), b"\r\n", body].concat(), false).await;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let status = head.split(' ').nth(1).and_then(|s| s.parse().ok()).unwrap_or(0);
    (status, head.to_ascii_lowercase(), serde_json::from_str(body).unwrap_or(Value::Null))
}

#[tokio::test(flavor = "multi_thread")]
async fn each_kind_of_bad_input_has_its_answer_and_stores_nothing() {
    let world = World::embedded(Options::default()).await;
    for case in cases() {
        let Case { what, path, headers, body, status, code, says } = case;
        let (got, head, answer) = send(&world, "POST", path, headers, &body).await;
        assert_eq!(got, status, "{what}: {head} {answer}");
        assert_eq!(answer["error"]["code"], code, "{what}: {answer}");
        let message = answer["error"]["message"].as_str().unwrap();
        assert!(message.contains(says), "{what}: {message}");
        assert!(!message.contains("token-c"), "{what} shows a token: {message}");
        assert!(head.contains("x-request-id: "), "{what}: {head}");
        assert!(head.contains("x-content-type-options: nosniff"), "{what}");
        assert_eq!(head.contains("accept-encoding: gzip, zstd"), status == 415, "{what}");
        assert_eq!(head.contains("www-authenticate: sourcetoken"), status == 401, "{what}");
    }
    let (status, head, answer) = send(&world, "GET", OWN, &[], b"").await;
    assert_eq!((status, &answer["error"]["code"]), (405, &"method_not_allowed".into()));
    assert!(head.contains("allow: post"), "{head}");
    for account in ["a", "b"] {
        assert_eq!(world.broker.depth(&queue(account)).await.unwrap().ready, 0);
    }
    assert_eq!(world.post("c1", GOOD).await.0, 202);
    assert_eq!(world.take_all("a").await.len(), 1);
    world.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_request_is_refused_and_the_next_one_is_served() {
    let world = World::embedded(Options::default()).await;
    let many_headers: String = (0..200).map(|n| format!("x-{n}: 1\r\n")).collect();
    for (what, request, status) in [
        ("no HTTP", "GARBAGE\r\n\r\n".to_owned(), "400"),
        ("too many headers", format!("GET /healthz HTTP/1.1\r\n{many_headers}\r\n"), "431"),
        ("a long head", format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(1 << 20)), "4"),
        (
            "a length that is none",
            "POST /readings HTTP/1.1\r\nhost: x\r\ncontent-length: -1\r\n\r\n".to_owned(),
            "400",
        ),
        (
            "two lengths",
            "POST /readings HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nx"
                .to_owned(),
            "400",
        ),
        (
            "a chunk that is none",
            format!("POST {OWN} HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n"),
            "400",
        ),
    ] {
        let answer = world.raw(request.as_bytes(), true).await;
        let got = answer.split(' ').nth(1).unwrap_or_default();
        // A connection may also be reset while the rest of a long head is on its way.
        assert!(got.starts_with(status) || answer.is_empty(), "{what}: {answer}");
    }
    let told = format!("POST {OWN} HTTP/1.1\r\nhost: x\r\ncontent-length: 99999999999\r\n\r\n");
    assert!(world.raw(told.as_bytes(), true).await.starts_with("HTTP/1.1 413"));
    assert_eq!(world.post("c1", GOOD).await.0, 202);
    world.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_is_cut_off_stores_nothing() {
    let world = World::embedded(Options::default()).await;
    let whole = format!("[{GOOD}]");
    let head = format!("POST {OWN} HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n\r\n{whole}");
    let answer = world.raw(head.as_bytes(), true).await;
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 400"), "{answer}");
    let chunk = format!(
        "POST {OWN} HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n{:x}\r\n{whole}\r\n",
        whole.len()
    );
    let answer = world.raw(chunk.as_bytes(), true).await;
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 400"), "{answer}");
    assert_eq!(world.broker.depth(&queue("a")).await.unwrap().ready, 0);
    world.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_heads_and_slow_bodies_end_and_hold_up_nobody() {
    let timeouts = Timeouts {
        first_byte: Duration::from_secs(1),
        head: Duration::from_secs(1),
        idle: Duration::from_secs(1),
        body: Duration::from_secs(3),
        ..Timeouts::default()
    };
    let limits = Limits { connections: 20, source_percent: 50, ..Limits::default() };
    let world = World::embedded(Options { timeouts, limits, ..Options::default() }).await;
    let mut slow = Vec::new();
    for n in 0..20 {
        let mut stream = TcpStream::connect(&world.address).await.unwrap();
        let start = match n % 3 {
            0 => "POST /readings HTTP/1.1\r\nhost:".to_owned(),
            1 => String::new(),
            _ => format!("POST {OWN} HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n["),
        };
        stream.write_all(start.as_bytes()).await.unwrap();
        slow.push((n % 3, stream));
    }
    // All places are taken; this call gets one when a slow one has been sent home.
    assert_eq!(world.post("c1", GOOD).await.0, 202);
    for (kind, mut stream) in slow {
        let mut answer = Vec::new();
        drop(tokio::time::timeout(DEADLINE, stream.read_to_end(&mut answer)).await.unwrap());
        let answer = String::from_utf8_lossy(&answer);
        match kind {
            2 => assert!(answer.starts_with("HTTP/1.1 408"), "{answer}"),
            _ => assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{answer}"),
        }
    }
    assert_eq!(world.take_all("a").await.len(), 1);
    world.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_beyond_its_rate_is_told_when_to_come_back_and_others_are_served() {
    let limits = Limits { calls: Rate::new(1, 2), ..Limits::default() };
    let world = World::embedded(Options { limits, ..Options::default() }).await;
    let mut refused = 0;
    for _ in 0..10 {
        let answer = world.http.post(world.readings_of("c1")).body(GOOD).send().await.unwrap();
        if answer.status() == 429 {
            refused += 1;
            let seconds: u64 = answer.headers()["retry-after"].to_str().unwrap().parse().unwrap();
            assert!((1..=2).contains(&seconds), "{seconds}");
        } else {
            assert_eq!(answer.status(), 202);
        }
    }
    assert!(refused > 0, "ten calls at once are more than two");
    assert_eq!(world.post("c2", GOOD).await.0, 202);
    assert_eq!(world.take_all("a").await.len(), 10 - refused);
    world.stopped().await;
}
