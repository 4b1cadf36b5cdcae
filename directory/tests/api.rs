//! The small server of lists, and its reader.

use std::time::Duration;

use axum::Router;
use galerna_directory::{
    AccountsApi, AccountsSource, DirectoryError, FileDirectory, HttpDirectory, HttpOptions, SourcesSource,
};
use galerna_model::{Account, AccountId, QueueName, Source, SourceId};
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

fn source(n: usize) -> Source {
    Source {
        id: SourceId::new(format!("s{n}")).unwrap(),
        account: AccountId::new("a1").unwrap(),
        token_hash: format!("hash{n}"),
        active: true,
    }
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

#[tokio::test]
async fn the_trial_api_and_its_reader_agree_whatever_the_size_of_the_list() {
    let api = AccountsApi::new(Vec::new(), (0..3).map(source).collect());
    let base = serve(api.router()).await;
    let directory = HttpDirectory::new(&base, options()).unwrap();
    for n in [0, 1, 9, 10, 11, 20, 101] {
        api.set_accounts(accounts(n));
        let list = directory.accounts().await.unwrap();
        assert_eq!(list.entries, accounts(n));
        assert_eq!(list.issues, []);
    }
    assert_eq!(directory.sources().await.unwrap().entries, (0..3).map(source).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_token_is_asked_for_and_brought() {
    let api = AccountsApi::new(accounts(1), Vec::new()).with_token(Some("secret"));
    let base = serve(api.router()).await;
    for (token, taken) in [(None, false), (Some("wrong"), false), (Some("secret"), true)] {
        let options = HttpOptions { token: token.map(str::to_owned), ..options() };
        assert!(!format!("{options:?}").contains("secret"), "a token is never shown");
        let result = HttpDirectory::new(&base, options).unwrap().accounts().await;
        match result {
            Ok(_) => assert!(taken, "{token:?}"),
            Err(DirectoryError::Status { status: 401, .. }) => assert!(!taken, "{token:?}"),
            Err(other) => panic!("{token:?}: {other}"),
        }
    }
}

#[tokio::test]
async fn the_trial_api_refuses_odd_pages_and_serves_none_beyond_the_last() {
    let base = serve(AccountsApi::new(accounts(3), Vec::new()).router()).await;
    galerna_tls::install_default_provider();
    for (query, status, listed) in [
        ("", 200, Some(3)),
        ("?page=1&limit=2", 200, Some(2)),
        ("?page=2&limit=2", 200, Some(1)),
        ("?page=3&limit=2", 200, Some(0)),
        ("?page=18446744073709551615&limit=1000", 200, Some(0)),
        ("?page=0", 400, None),
        ("?limit=0", 400, None),
        ("?limit=1001", 400, None),
        ("?page=-1", 400, None),
        ("?page=one", 400, None),
    ] {
        let response = reqwest::get(format!("{base}/accounts{query}")).await.unwrap();
        assert_eq!(response.status().as_u16(), status, "{query}");
        let body: serde_json::Value = response.json().await.unwrap();
        assert_eq!(body["accounts"].as_array().map(Vec::len), listed, "{query}: {body}");
        assert_eq!(body["error"]["code"].is_string(), status != 200, "{query}: {body}");
    }
}

#[tokio::test]
async fn the_trial_api_serves_what_a_file_holds_and_refuses_a_wrong_one() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("both.json");
    let both = json!({"accounts": accounts(5), "sources": [source(1)]});
    std::fs::write(&path, both.to_string()).unwrap();
    let file = FileDirectory::new(&path).unwrap();
    let api = AccountsApi::load(&file, &file).await.unwrap();
    let directory = HttpDirectory::new(&serve(api.router()).await, options()).unwrap();
    assert_eq!(directory.accounts().await.unwrap().entries, accounts(5));
    assert_eq!(directory.sources().await.unwrap().entries, [source(1)]);

    std::fs::write(&path, json!({"accounts": [{"id": "a b", "queue": "Q"}], "sources": []}).to_string())
        .unwrap();
    let error = AccountsApi::load(&file, &file).await.err().expect("refused").to_string();
    assert!(error.contains("a b"), "{error}");
}

#[tokio::test]
async fn the_trial_api_does_not_serve_other_machines_without_a_token() {
    let listener = tokio::net::TcpListener::bind("0.0.0.0:0").await.unwrap();
    let served = AccountsApi::new(Vec::new(), Vec::new()).serve(listener, std::future::ready(())).await;
    assert!(served.unwrap_err().to_string().contains("set a token"));
}
