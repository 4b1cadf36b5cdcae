//! Lists read over HTTP: whole or an error, whatever the API does.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::{Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use galerna_directory::{AccountsSource, DirectoryError, HttpDirectory, HttpOptions};
use galerna_model::{Account, AccountId, QueueName};
use serde::Deserialize;
use serde_json::json;

fn account(n: usize) -> Account {
    Account {
        id: AccountId::new(format!("a{n}")).unwrap(),
        name: format!("Account {n}"),
        queue: QueueName::new(format!("D{n:07}")).unwrap(),
        active: !n.is_multiple_of(7),
    }
}

fn accounts(n: usize) -> Vec<Account> {
    (0..n).map(account).collect()
}

async fn serve(router: Router) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await });
    format!("http://{address}")
}

fn options() -> HttpOptions {
    HttpOptions {
        page_size: 10,
        timeout: Duration::from_secs(10),
        attempts: 3,
        backoff: Duration::from_millis(1),
        ..HttpOptions::default()
    }
}

/// An API that misbehaves in one way.
#[derive(Clone, Copy, Debug)]
enum Fault {
    None,
    /// Every call answers with this status.
    Status(u16),
    /// The first call of each page does, the second succeeds.
    FirstStatus(u16),
    Redirect,
    NotJson,
    /// The body ends in the middle of the JSON.
    CutOff,
    /// The connection breaks in the middle of the body.
    Breaks,
    /// Never answers.
    Hangs,
    /// The second page tells of fewer entries.
    TotalChanges,
    /// The same for its first reader only.
    TotalChangesOnce,
    /// All pages tell of one more than there are.
    TotalTooHigh,
    /// All pages tell of one fewer than there are.
    TotalTooLow,
    /// The last page has no entries.
    EmptyPage,
    /// Every page is the first one.
    WrongPage,
    /// Tells of one page, gives a part.
    HalfList,
    /// The list of the second page is of another version.
    VersionChanges,
    NoList,
    NoTotal,
    TextTotal,
    NestedDeeply,
    Huge,
    TooManyPages,
    NotUtf8,
    NanTotal,
}

#[derive(Clone)]
struct Faulty {
    fault: Fault,
    calls: Arc<AtomicUsize>,
}

#[derive(Deserialize)]
struct Asked {
    page: usize,
    limit: usize,
}

async fn faulty(State(api): State<Faulty>, Query(asked): Query<Asked>) -> Response {
    let call = api.calls.fetch_add(1, Ordering::SeqCst);
    let all = accounts(25);
    let page = if matches!(api.fault, Fault::WrongPage) { 1 } else { asked.page };
    let from = ((page - 1) * asked.limit).min(all.len());
    let to = (from + asked.limit).min(all.len());
    let mut body = json!({
        "accounts": &all[from..to], "page": page, "pages": 3, "total": 25, "version": 1,
    });
    let last = asked.page == 3;
    match api.fault {
        Fault::None | Fault::WrongPage => {}
        Fault::Status(status) => return StatusCode::from_u16(status).unwrap().into_response(),
        Fault::FirstStatus(status) if call.is_multiple_of(2) => {
            return (StatusCode::from_u16(status).unwrap(), [(header::RETRY_AFTER, "0")]).into_response();
        }
        Fault::FirstStatus(_) => {}
        Fault::Redirect => return axum::response::Redirect::temporary("/elsewhere").into_response(),
        Fault::NotJson => return "<html>It works!</html>".into_response(),
        Fault::CutOff => {
            let text = body.to_string();
            return text[..text.len() / 2].to_owned().into_response();
        }
        Fault::Breaks => {
            // Promises more than it sends.
            return ([(header::CONTENT_LENGTH, "100000")], body.to_string()).into_response();
        }
        Fault::Hangs => std::future::pending().await,
        Fault::TotalChanges if asked.page > 1 => body["total"] = json!(24),
        Fault::TotalChangesOnce if call == 1 => body["total"] = json!(24),
        Fault::TotalChanges | Fault::TotalChangesOnce => {}
        Fault::TotalTooHigh => body["total"] = json!(26),
        Fault::TotalTooLow => body["total"] = json!(24),
        Fault::EmptyPage if asked.page == 2 => body["accounts"] = json!([]),
        Fault::EmptyPage => {}
        Fault::HalfList => body["pages"] = json!(1),
        Fault::VersionChanges if last => body["version"] = json!(2),
        Fault::VersionChanges => {}
        Fault::NoList => body["accounts"] = json!(null),
        Fault::NoTotal => drop(body.as_object_mut().unwrap().remove("total")),
        Fault::TextTotal => body["total"] = json!("25"),
        Fault::NestedDeeply => {
            return format!("{}{}", "[".repeat(100_000), "]".repeat(100_000)).into_response();
        }
        Fault::Huge => return vec![b' '; 3 * 1024 * 1024].into_response(),
        Fault::TooManyPages => {
            body["pages"] = json!(u64::MAX);
            body["total"] = json!(u64::MAX);
        }
        Fault::NotUtf8 => return vec![b'{', b'"', 0xff, b'"', b':', b'1', b'}'].into_response(),
        Fault::NanTotal => return r#"{"accounts":[],"page":1,"pages":1,"total":NaN}"#.into_response(),
    }
    axum::Json(body).into_response()
}

#[tokio::test]
async fn whatever_the_api_does_the_list_is_whole_or_an_error() {
    // fault -> what the error says, or nothing when the list comes whole
    let cases = [
        (Fault::None, ""),
        (Fault::FirstStatus(500), ""),
        (Fault::FirstStatus(429), ""),
        (Fault::FirstStatus(503), ""),
        (Fault::TotalChangesOnce, ""),
        (Fault::Status(500), "status 500"),
        (Fault::Status(404), "status 404"),
        (Fault::Status(204), "status 204"),
        (Fault::Redirect, "status 307"),
        (Fault::NotJson, "cannot understand"),
        (Fault::CutOff, "EOF"),
        (Fault::Breaks, "cannot read"),
        (Fault::Hangs, "did not answer within"),
        (Fault::TotalChanges, "contradict"),
        (Fault::TotalTooHigh, "25 entries came in 3 of 3 pages, of 26 in all"),
        (Fault::TotalTooLow, "25 entries came in 3 of 3 pages, of 24 in all"),
        (Fault::EmptyPage, "page 2 of 3 is empty"),
        (Fault::WrongPage, "page 2 says that it is page 1"),
        (Fault::HalfList, "10 entries came in 1 of 1 pages, of 25 in all"),
        (Fault::VersionChanges, "contradict"),
        (Fault::NoList, "no list `accounts`"),
        (Fault::NoTotal, "missing field `total`"),
        (Fault::TextTotal, "invalid type"),
        (Fault::NestedDeeply, "cannot understand"),
        (Fault::Huge, "larger than 2097152 bytes"),
        (Fault::TooManyPages, "larger than 1000000 entries"),
        (Fault::NotUtf8, "cannot understand"),
        (Fault::NanTotal, "cannot understand"),
    ];
    for (fault, expected) in cases {
        let api = Faulty { fault, calls: Arc::default() };
        let base = serve(Router::new().route("/accounts", get(faulty)).with_state(api)).await;
        let timeout =
            if matches!(fault, Fault::Hangs) { Duration::from_millis(100) } else { options().timeout };
        let options = HttpOptions { max_page_bytes: 2 * 1024 * 1024, timeout, ..options() };
        let result = HttpDirectory::new(&base, options).unwrap().accounts().await;
        match result {
            Ok(list) => {
                assert_eq!(expected, "", "{fault:?} should be an error");
                assert_eq!(list.entries, accounts(25), "{fault:?}");
            }
            Err(error) => {
                let error = error.to_string();
                assert!(
                    !expected.is_empty() && error.contains(expected),
                    "{fault:?}: {error}, not {expected}"
                );
            }
        }
    }
}

#[tokio::test]
async fn an_api_that_is_not_there_is_an_error() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let error = HttpDirectory::new(&base, options()).unwrap().accounts().await.unwrap_err();
    assert!(matches!(error, DirectoryError::Unreachable { .. }), "{error}");
}

#[test]
fn a_wrong_address_is_refused_before_anything_is_called() {
    for (base, expected) in [
        ("accounts.example", "not the URL"),
        ("ftp://accounts.example", "not the base URL"),
        ("http://accounts.example?page=3", "not the base URL"),
        ("http://user:hunter2@accounts.example", "give a token"),
    ] {
        let error = HttpDirectory::new(base, options()).unwrap_err().to_string();
        assert!(error.contains(expected), "{base}: {error}");
        assert!(!error.contains("hunter2"));
    }
}
