//! The API and the page as clients see them.

mod sources;

use galerna_control::{ControlOptions, Details, Topologies, serve};
use galerna_engine::EngineOptions;
use reqwest::{Client, StatusCode};
use serde_json::Value;
use sources::endless;
use tokio::net::TcpListener;

/// A service of an endless topology called `endless`; returns its base URL.
async fn service(token: Option<&str>) -> (String, Topologies) {
    galerna_tls::install_default_provider();
    let topologies = Topologies::new();
    topologies.submit("endless", endless(), EngineOptions::default()).await.unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    let options = ControlOptions { token: token.map(str::to_owned), ..ControlOptions::default() };
    tokio::spawn(serve(listener, topologies.clone(), options));
    (base, topologies)
}

#[tokio::test]
async fn topologies_are_listed_shown_and_changed() {
    let (base, _topologies) = service(None).await;
    let api = format!("{base}/api/v1/topologies");
    let client = Client::new();
    let list: Value = client.get(&api).send().await.unwrap().json().await.unwrap();
    assert_eq!(list["topologies"][0]["name"], "endless");
    let one: Details = client.get(format!("{api}/endless")).send().await.unwrap().json().await.unwrap();
    assert_eq!(one.component_metrics.iter().map(|c| c.id.as_str()).collect::<Vec<_>>(), ["numbers", "sink"]);
    assert_eq!(one.graph().components.len(), 2);
    let post = async |path: &str| {
        let answer = client.post(format!("{api}/{path}")).send().await.unwrap();
        let status = answer.status().as_u16();
        let body: Value = answer.json().await.unwrap();
        let told = body["status"].as_str().or(body["error"]["code"].as_str()).unwrap().to_owned();
        (status, told)
    };
    for (path, status, told) in [
        ("endless/deactivate", 200, "inactive"),
        ("endless/activate", 200, "active"),
        ("nobody/activate", 404, "unknown_topology"),
        ("endless/rebalance", 422, "wrong_shape"),
        ("endless/kill/soon", 422, "invalid_wait"),
        ("endless/kill/30", 202, "ending"),
    ] {
        assert_eq!(post(path).await, (status, told.to_owned()), "{path}");
    }
    loop {
        let one: Details = client.get(format!("{api}/endless")).send().await.unwrap().json().await.unwrap();
        if let Some(ended) = one.ended {
            assert!(ended.drained);
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    assert_eq!(post("endless/activate").await, (409, "ending".to_owned()));
}

#[tokio::test]
async fn the_page_shows_topologies_and_asks_before_it_changes_them() {
    let (base, topologies) = service(None).await;
    let client = Client::new();
    let page = async |path: &str| {
        let answer = client.get(format!("{base}{path}")).send().await.unwrap();
        (answer.status(), answer.text().await.unwrap())
    };
    assert!(page("/").await.1.contains("endless"));
    let (status, one) = page("/topologies/endless").await;
    assert_eq!(status, StatusCode::OK);
    for part in ["svg", "numbers", "sink", "Why is it not faster?", "/topologies/endless/kill"] {
        assert!(one.contains(part), "{part}");
    }
    let (_, question) = page("/topologies/endless/deactivate").await;
    assert!(question.contains("emit nothing until it is activated again"), "{question}");
    assert!(topologies.handle("endless").unwrap().is_active());
    client.post(format!("{base}/topologies/endless/deactivate")).send().await.unwrap();
    assert!(!topologies.handle("endless").unwrap().is_active());
    assert_eq!(page("/topologies/<nobody>").await.0, StatusCode::NOT_FOUND);
    assert!(page("/topologies/%3Cb%3E").await.1.contains("&lt;b&gt;"));
    for (path, part) in [
        ("/metrics", "galerna_engine_emitted_total"),
        ("/healthz", "ok"),
        ("/readyz", "true"),
        ("/assets/page.css", "--accent"),
    ] {
        assert!(page(path).await.1.contains(part), "{path}");
    }
}

#[tokio::test]
async fn other_sites_and_those_without_the_token_change_nothing() {
    let (base, topologies) = service(Some("secret")).await;
    let client = Client::new();
    let kill = format!("{base}/api/v1/topologies/endless/kill");
    let calls = [
        (client.post(&kill), 401),
        (client.post(&kill).bearer_auth("wrong"), 401),
        (client.post(&kill).bearer_auth("secret").header("origin", "http://other.example"), 403),
        (client.post(&kill).bearer_auth("secret").header("sec-fetch-site", "cross-site"), 403),
        (client.get(format!("{base}/topologies")).basic_auth("me", Some("secret")), 200),
        (client.get(format!("{base}/healthz")), 200),
    ];
    for (n, (call, status)) in calls.into_iter().enumerate() {
        assert_eq!(call.send().await.unwrap().status().as_u16(), status, "call {n}");
    }
    let asked = client.get(format!("{base}/topologies")).header("accept", "text/html").send().await.unwrap();
    assert!(asked.headers()["www-authenticate"].to_str().unwrap().starts_with("Basic"));
    let (open, _open) = service(None).await;
    let renamed =
        client.get(format!("{open}/topologies")).header("host", "other.example").send().await.unwrap();
    assert_eq!(renamed.status(), StatusCode::FORBIDDEN);
    assert!(topologies.handle("endless").unwrap().is_active());
}

#[tokio::test]
async fn without_a_token_nothing_is_served_to_other_machines() {
    let listener = TcpListener::bind("0.0.0.0:0").await.unwrap();
    let refused = serve(listener, Topologies::new(), ControlOptions::default()).await.unwrap_err();
    assert!(refused.to_string().contains("needs a token"), "{refused}");
}
