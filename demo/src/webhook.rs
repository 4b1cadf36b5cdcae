//! The receiver of the demo's alerts: a web server that believes only what is signed, and remembers it.

use std::collections::HashSet;
use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use axum::{Json, Router};
use galerna_lock::Mutex;
use galerna_model::AlertEvent;
use galerna_storage::{Endpoint, EndpointKind, Store};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use galerna_server::modules;

/// The endpoint that the demo's rules tell.
pub(crate) const ENDPOINT: &str = "demo-webhook";
/// Alerts of this span go in one call: a site that fails raises dozens at once.
const GROUP_MS: u64 = 250;

#[derive(Debug, Default)]
struct Received {
    deliveries: HashSet<String>,
    events: HashSet<String>,
    forged: u64,
}

/// What was received.
#[derive(Debug, Clone)]
pub(crate) struct Webhook {
    received: Arc<Mutex<Received>>,
    secret: Arc<str>,
}

/// The notifier's default body, as far as it is needed here.
#[derive(Deserialize)]
struct Body {
    data: Data,
}

#[derive(Deserialize)]
struct Data {
    events: Vec<AlertEvent>,
}

impl Webhook {
    /// Starts the server, and puts the endpoint that leads to it into the store.
    pub(crate) async fn start(store: &Store, services: &CancellationToken) -> anyhow::Result<Self> {
        let listener = modules::listen(([127, 0, 0, 1], 0).into(), "the webhook").await?;
        let url = format!("http://{}/alerts", listener.local_addr()?);
        let webhook = Self { received: Arc::default(), secret: galerna_notifier::new_secret()?.into() };
        let kind = EndpointKind::Webhook {
            url,
            method: "POST".to_owned(),
            headers: Default::default(),
            body: None,
            secret: Some(webhook.secret.to_string()),
        };
        let endpoint = Endpoint {
            id: ENDPOINT.to_owned(),
            name: "The demo's own receiver".to_owned(),
            account: None,
            kind,
            enabled: true,
            disabled_reason: None,
            group_ms: GROUP_MS,
            cooldown_ms: 0,
        };
        galerna_notifier::put_endpoint(store, &endpoint).await?;
        let app = Router::new().route("/alerts", post(receive)).with_state(webhook.clone());
        let shutdown = services.clone();
        tokio::spawn(async move {
            let serving =
                axum::serve(listener, app).with_graceful_shutdown(async move { shutdown.cancelled().await });
            if let Err(e) = serving.await {
                tracing::error!(error = %e, "the webhook ended");
            }
        });
        Ok(webhook)
    }

    /// Calls, distinct alert events in them, and calls that were not believed.
    pub(crate) fn received(&self) -> (u64, u64, u64) {
        let received = self.received.lock();
        (received.deliveries.len() as u64, received.events.len() as u64, received.forged)
    }
}

async fn receive(
    State(webhook): State<Webhook>,
    headers: HeaderMap,
    body: Bytes,
) -> (StatusCode, Json<Value>) {
    let header = |name: &str| headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default();
    let (id, at, signature) =
        (header("webhook-id"), header("webhook-timestamp"), header("webhook-signature"));
    if !galerna_notifier::verify(&webhook.secret, id, at, signature, &body) {
        webhook.received.lock().forged += 1;
        return (StatusCode::UNAUTHORIZED, Json(json!({ "error": "the signature is wrong" })));
    }
    match serde_json::from_slice::<Body>(&body) {
        Ok(body) => {
            let mut received = webhook.received.lock();
            received.deliveries.insert(id.to_owned());
            received.events.extend(body.data.events.into_iter().map(|event| event.id));
            (StatusCode::OK, Json(json!({ "ok": true })))
        }
        Err(e) => (StatusCode::BAD_REQUEST, Json(json!({ "error": e.to_string() }))),
    }
}
