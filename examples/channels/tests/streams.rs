//! What servers of Mastodon's API answer who asks for a stream.

use std::sync::Arc;

use axum::Router;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use axum::routing::get;
use channels::channel::{Account, Source};
use channels::mastodon::Mastodon;
use channels::network::{Event, Network, NetworkError};
use galerna_model::SystemClock;
use tokio::net::TcpListener;

/// Asks a server whose streams answer like this.
async fn ask(status: u16, kind: &'static str, body: &'static str) -> Result<Option<Event>, NetworkError> {
    galerna_tls::install_default_provider();
    let status = StatusCode::from_u16(status).expect("a status");
    let stream = get(move || async move { (status, [("content-type", kind)], body).into_response() });
    let instance = get(|| async { ([("content-type", "application/json")], "{}") });
    let router = Router::new().route("/api/v2/instance", instance).route("/api/v1/streaming/user", stream);
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
    let server = format!("http://{}", listener.local_addr().expect("it listens"));
    tokio::spawn(axum::serve(listener, router).into_future());
    let account = Account { name: "main".to_owned(), server, token: "t".to_owned() };
    let network = Mastodon::new(Arc::new(SystemClock)).expect("a client");
    match network.stream(&account, &Source::Home).await? {
        Some(mut stream) => stream.next().await.map(Some),
        None => Ok(None),
    }
}

#[tokio::test]
async fn a_server_without_server_sent_events_is_asked_for_pages_and_others_are_not_taken_for_one() {
    let json = "application/json";
    assert_eq!(ask(200, "text/event-stream; charset=utf-8", ":thump\n").await, Ok(Some(Event::Other)));
    for (status, kind, body) in [
        // As they answer that only have WebSocket.
        (400, json, "{\"error\": \"websocket: the client is not using the websocket protocol\"}"),
        (404, json, "{}"),
        (426, "text/plain", "Upgrade Required"),
        (200, "text/html", "<p>Welcome</p>"),
    ] {
        assert_eq!(ask(status, kind, body).await, Ok(None), "{status}");
    }
    assert!(matches!(ask(401, json, "{\"error\": \"revoked\"}").await, Err(NetworkError::Revoked(_))));
    assert!(matches!(ask(503, json, "{}").await, Err(NetworkError::Unavailable(_))));
    assert!(matches!(ask(429, json, "{}").await, Err(NetworkError::Limited(_))));
}
