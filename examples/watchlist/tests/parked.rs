//! Pages that cannot be fetched: seen, tried again and dropped by page, call and command, with their histories.

use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::net::TcpListener;
use tokio::process::Command;
use tokio::time::{sleep, timeout};
use watchlist::Site;

/// On a machine that compiles meanwhile.
const PATIENCE: Duration = Duration::from_secs(120);

fn command() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_watchlist"));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::inherit()).kill_on_drop(true);
    command.env("RUST_LOG", "error");
    command
}

/// What `watchlist parked` prints, and whether it has succeeded.
async fn parked(folder: &Path, more: &[&str]) -> (bool, String) {
    let mut command = command();
    command.arg("parked").arg("--folder").arg(folder).args(more).stderr(Stdio::piped());
    let output = timeout(PATIENCE, command.output()).await.expect("it ends").expect("it runs");
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&text).into_owned())
}

#[tokio::test]
async fn a_page_that_is_parked_is_seen_tried_again_and_dropped() {
    galerna_tls::install_default_provider();
    let site = Arc::new(Site::new(recorded_posts::posts().expect("the file is whole")));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
    let address = format!("http://{}/", listener.local_addr().expect("it listens"));
    tokio::spawn(axum::serve(listener, Arc::clone(&site).router()).into_future());
    let folder = tempfile::tempdir().expect("a folder");
    let config = folder.path().join("watchlist.toml");
    let text = format!(
        "per_minute = 60000\n[[sources]]\nname = \"private\"\nkind = \"html\"\ngroup = \"private\"\nurl = \"{address}private/x\"\nevery = \"1day\"\n"
    );
    std::fs::write(&config, text + include_str!("../src/demo.toml")).expect("it can be written");
    assert!(!parked(folder.path(), &[]).await.0, "there is nothing in the folder yet");

    let mut serve = command();
    serve.arg("serve").arg("--config").arg(&config).arg("--folder").arg(folder.path());
    serve.args(["--listen", "127.0.0.1:0"]);
    let mut child = serve.spawn().expect("watchlist can be run");
    let mut lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
    let line = timeout(PATIENCE, lines.next_line()).await.expect("it starts in time").expect("it prints");
    let page = line.expect("it says where it is").replace("the page is at ", "");
    let base = page.trim_end_matches("/watchlist").to_owned();
    let http = reqwest::Client::new();
    let post = async |path: &str, body: Value| {
        let answer = http.post(format!("{base}{path}")).json(&body).send().await.expect("it answers");
        let status = answer.status().as_u16();
        (status, answer.json::<Value>().await.expect("JSON"))
    };
    let get = async |path: &str| {
        http.get(format!("{base}{path}")).send().await.expect("it answers").text().await.expect("text")
    };
    let listed = async || serde_json::from_str::<Value>(&get("/api/parked").await).expect("JSON");
    let wait_for = async |many: usize| {
        let until = async {
            loop {
                let found = listed().await;
                if found["parked"].as_array().is_some_and(|parked| parked.len() == many) {
                    return found;
                }
                sleep(Duration::from_millis(50)).await;
            }
        };
        timeout(PATIENCE, until).await.expect("it is parked in time")
    };

    let (status, fired) = post("/api/schedules/watchlist%2Fcrawl%2Fprivate/trigger", json!({})).await;
    assert_eq!(status, 200, "{fired}");
    let found = wait_for(1).await;
    let id = found["parked"][0]["id"].as_str().expect("a name").to_owned();
    assert!(found["parked"][0]["reason"].as_str().expect("why").contains("robots.txt"), "{found}");
    assert_eq!(id, format!("{}#1", fired["firing"].as_str().expect("a firing")));
    for path in ["/parked", "/watchlist", "/schedules", "/topologies"] {
        let text = get(path).await;
        assert!(text.contains("href=\"/parked\""), "{path} has no menu: {text}");
    }
    assert!(get("/parked").await.contains("robots.txt"));

    // Its history, and that of the firing.
    let encoded: String = url::form_urlencoded::byte_serialize(id.as_bytes()).collect();
    let history: Value = serde_json::from_str(&get(&format!("/trace/{encoded}")).await).expect("JSON");
    let places: Vec<_> = history["steps"].as_array().expect("steps").iter().map(|s| &s["where"]).collect();
    assert_eq!(places, ["delayed", "fetch", "delayed"], "{history}");
    assert!(history["steps"][2]["what"].as_str().expect("a text").starts_with("parked: "), "{history}");
    let firing: String = url::form_urlencoded::byte_serialize(id.trim_end_matches("#1").as_bytes()).collect();
    let history = get(&format!("/trace/{firing}")).await;
    assert!(history.contains("\"enqueue\"") && history.contains("\"schedules\""), "{history}");

    // By call and by command; it is parked again each time.
    let (status, answer) = post("/api/parked/resume", json!({ "id": id })).await;
    assert_eq!((status, &answer["resumed"]), (200, &json!(1)), "{answer}");
    wait_for(1).await;
    for (body, expected) in
        [(json!({ "id": "nobody's" }), 404), (json!({}), 422), (json!({ "id": id, "all": true }), 422)]
    {
        let (status, answer) = post("/api/parked/resume", body).await;
        assert_eq!(status, expected, "{answer}");
    }
    let foreign = http.post(format!("{base}/parked")).header("origin", "https://other.example");
    let foreign = foreign.header("content-type", "application/x-www-form-urlencoded");
    let foreign = foreign.body("id=x&what=discard").send().await.expect("it answers");
    assert_eq!(foreign.status().as_u16(), 403);
    let (right, told) = parked(folder.path(), &[]).await;
    assert!(right && told.contains(&id) && told.contains("robots.txt"), "{told}");
    let (right, told) = parked(folder.path(), &["--resume", &id]).await;
    assert!(right && told.contains("is tried again"), "{told}");
    wait_for(1).await;
    assert!(!parked(folder.path(), &["--discard", "nobody's"]).await.0);
    let (right, told) = parked(folder.path(), &["--discard", &id]).await;
    assert!(right && told.contains("is dropped"), "{told}");
    wait_for(0).await;
    assert!(get("/parked").await.contains("Nothing is parked"));
    child.kill().await.expect("it is killed");
}
