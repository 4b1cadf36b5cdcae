//! What a server may answer, and what is made of it.

use std::time::Duration;

use axum::Router;
use axum::http::StatusCode;
use axum::routing::get;
use pulse::{FetchError, Mastodon, Recorded};
use tokio::net::TcpListener;

async fn serve(router: Router) -> Mastodon {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
    let address = format!("http://{}/", listener.local_addr().expect("it listens"));
    tokio::spawn(axum::serve(listener, router).into_future());
    Mastodon::new(address.parse().expect("an address")).expect("a client")
}

#[tokio::test]
async fn the_last_hundred_posts_come_in_pages_the_latest_first() {
    let posts = recorded_posts::posts().expect("the file is whole");
    let server = std::sync::Arc::new(Recorded::new(posts.clone()));
    let mastodon = serve(std::sync::Arc::clone(&server).router()).await;
    let fetched = mastodon.last("openssh", 100).await.expect("it is there");
    let recorded: Vec<_> = posts.iter().filter(|post| post.account == "openssh").rev().take(100).collect();
    assert_eq!(fetched.len(), 100);
    for (fetched, recorded) in fetched.iter().zip(recorded) {
        assert_eq!((fetched.at, &fetched.text), (recorded.at, &recorded.text));
    }
    // The account's id is asked for once; 40, 40 and 20 posts.
    assert_eq!(server.requests(), 4);
    assert_eq!(mastodon.last("zlib", 1_000).await.expect("it is there").len(), 134);
    assert_eq!(mastodon.last("nobody", 100).await, Err(FetchError::NoAccount));
}

#[tokio::test]
async fn what_a_server_answers_instead_of_posts_is_told_apart() {
    let cases: [(StatusCode, &str, &str, bool); 7] = [
        (StatusCode::NOT_FOUND, "", "no such account", true),
        (StatusCode::GONE, "", "no such account", true),
        (StatusCode::UNAUTHORIZED, "", "the server refuses: 401 Unauthorized", true),
        (StatusCode::TOO_MANY_REQUESTS, "", "the server is asked too often", false),
        (StatusCode::BAD_GATEWAY, "", "the server does not answer: 502 Bad Gateway", false),
        (StatusCode::OK, "<html>", "the answer cannot be read: expected value at line 1 column 1", true),
        (StatusCode::OK, "{}", "the answer cannot be read: missing field `id` at line 1 column 2", true),
    ];
    for (status, body, said, permanent) in cases {
        let answer = move || async move { (status, [("retry-after", "7")], body) };
        let mastodon = serve(Router::new().route("/api/v1/accounts/lookup", get(answer))).await;
        let error = mastodon.last("a", 1).await.expect_err("it is no account");
        assert_eq!((error.to_string().as_str(), error.is_permanent()), (said, permanent), "{status}");
        if status == StatusCode::TOO_MANY_REQUESTS {
            assert_eq!(error, FetchError::Limited(Some(Duration::from_secs(7))));
        }
    }
    let nobody = Mastodon::new("http://127.0.0.1:1/".parse().expect("an address")).expect("a client");
    let error = nobody.last("a", 1).await.expect_err("nobody listens");
    assert!(matches!(error, FetchError::Unavailable(_)) && !error.is_permanent(), "{error}");
}
