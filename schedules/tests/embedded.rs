//! The routes and pages that a program embeds, and the publisher to a queue.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use galerna_broker::Broker;
use galerna_broker::embedded::{EmbeddedBroker, EmbeddedOptions};
use galerna_model::{ManualClock, QueueName, Timestamp};
use galerna_schedules::api::{PayloadCheck, SchedulesApi};
use galerna_schedules::sqlite::SqliteSchedules;
use galerna_schedules::{
    BadSchedule, Definition, QueueMessage, QueuePublisher, ScheduleId, Scheduler, SchedulerOptions,
    Schedules, router,
};
use galerna_topology::FaultKind;
use serde_json::{Value, json};

/// 2026-03-28T12:00:00+01:00, the day before the clocks go forward in Berlin.
const START: &str = "2026-03-28T12:00:00+01:00";

struct Program {
    url: String,
    client: reqwest::Client,
    schedules: Schedules,
}

struct NoNumbers;

#[async_trait]
impl PayloadCheck for NoNumbers {
    async fn check(&self, payload: &Value) -> Result<(), BadSchedule> {
        match payload {
            Value::Number(_) => {
                Err(BadSchedule { field: "payload", reason: "a number says nothing".to_owned() })
            }
            _ => Ok(()),
        }
    }
}

impl Program {
    async fn start() -> Self {
        let store = Arc::new(SqliteSchedules::in_memory().unwrap());
        let clock = ManualClock::at(Timestamp::parse(START).unwrap());
        let schedules = Schedules::new(store, Arc::new(clock));
        let api = SchedulesApi::from(schedules.clone()).checking(Arc::new(NoNumbers));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router(api)).await });
        galerna_tls::install_default_provider();
        let client = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).build().unwrap();
        Self { url, client, schedules }
    }

    async fn call(&self, method: &str, path: &str, body: Option<Value>) -> (u16, Value) {
        let request = self.client.request(method.parse().unwrap(), format!("{}{path}", self.url));
        let request = match body {
            Some(body) => request.json(&body),
            None => request,
        };
        let answer = request.send().await.unwrap();
        (answer.status().as_u16(), answer.json().await.unwrap_or_default())
    }

    async fn form(&self, path: &str, body: &str, headers: &[(&str, &str)]) -> reqwest::Response {
        let mut request = self.client.post(format!("{}{path}", self.url)).body(body.to_owned());
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.send().await.unwrap()
    }
}

fn nightly() -> Value {
    json!({"timing": {"cron": {"expression": "30 2 * * *", "timezone": "Europe/Berlin"}}, "payload": {"report": "usage"}})
}

#[tokio::test]
async fn programs_add_edit_pause_trigger_backfill_and_remove_schedules() {
    let program = Program::start().await;
    let (status, upcoming) =
        program.call("POST", "/api/upcoming", Some(json!({"definition": nightly()}))).await;
    assert_eq!((status, upcoming["upcoming"].as_array().unwrap().len()), (200, 10));
    // The clocks go from 2 to 3 o'clock in that night.
    assert_eq!(upcoming["upcoming"][0]["local"], "2026-03-29T03:00:00+02:00[Europe/Berlin]");
    assert!(upcoming["tzdata"].as_str().unwrap().starts_with("20"), "{upcoming}");
    let new = json!({"id": "reports/nightly", "definition": nightly()});
    let (status, added) = program.call("POST", "/api/schedules", Some(new.clone())).await;
    assert_eq!((status, &added["upcoming"]), (200, &upcoming["upcoming"]), "{added}");
    assert_eq!(program.call("POST", "/api/schedules", Some(new)).await.0, 409);

    let one = "/api/schedules/reports%2Fnightly";
    let daily = json!({"timing": {"cron": {"expression": "0 6 * * *", "timezone": "UTC"}}});
    let edit = json!({"definition": daily, "revision": 1});
    let (status, edited) = program.call("PUT", one, Some(edit.clone())).await;
    assert_eq!(
        (status, &edited["revision"], &edited["upcoming"][0]["at"]),
        (200, &json!(2), &json!("2026-03-29T06:00:00Z"))
    );
    let (status, stale) = program.call("PUT", one, Some(edit)).await;
    assert_eq!((status, &stale["error"]["code"]), (409, &json!("schedule_edited")));
    let (_, paused) =
        program.call("POST", &format!("{one}/pause"), Some(json!({"note": "moving house"}))).await;
    assert_eq!(paused["paused"]["note"], "moving house");
    let (_, resumed) = program.call("POST", &format!("{one}/resume"), None).await;
    assert_eq!(resumed["paused"], Value::Null);
    let (_, triggered) = program.call("POST", &format!("{one}/trigger"), None).await;
    assert_eq!(triggered["outcome"], Value::Null, "{triggered}");
    let (_, again) = program.call("POST", &format!("{one}/trigger"), None).await;
    assert_eq!(again["outcome"], "skipped.overlap");
    let range = json!({"from": "2026-03-01T00:00:00Z", "to": "2026-03-08T00:00:00Z"});
    let (status, filled) = program.call("POST", &format!("{one}/backfill"), Some(range)).await;
    assert_eq!((status, &filled["admitted"]), (200, &json!(7)), "{filled}");
    let (_, shown) = program.call("GET", one, None).await;
    assert_eq!(
        (shown["open"].as_array().unwrap().len(), &shown["counts"]["skipped.overlap"]),
        (8, &json!(1))
    );
    assert_eq!(shown["last"][0]["reason"], "overlap");
    let (_, list) = program.call("GET", "/api/schedules?limit=1", None).await;
    assert_eq!((list["schedules"][0]["id"].as_str(), &list["next"]), (Some("reports/nightly"), &Value::Null));
    assert_eq!(program.call("POST", &format!("{one}/remove"), None).await.0, 200);
    let (status, gone) = program.call("GET", one, None).await;
    assert_eq!((status, &gone["error"]["code"]), (404, &json!("unknown_schedule")));
    let (_, history) = program.call("GET", &format!("{one}/history"), None).await;
    assert_eq!(history["ended"].as_array().unwrap().len(), 9, "what ended stays: {history}");
}

#[tokio::test]
async fn what_is_wrong_is_said_with_its_field_and_nothing_is_kept() {
    let program = Program::start().await;
    for (definition, said) in [
        (json!({"timing": {"cron": {"expression": "61 * * * *"}}}), "cron.expression"),
        (json!({"timing": {"cron": {"expression": "0 0 30 2 *"}}}), "it never occurs"),
        (
            json!({"timing": {"cron": {"expression": "* * * * *", "timezone": "Europe/Atlantis"}}}),
            "cron.timezone",
        ),
        (json!({"timing": {"every": {"interval": "1ms"}}}), "every.interval"),
        (json!({"timing": {"every": {"interval": "soon"}}}), "is no duration"),
        (json!({"timing": {"at": "2026-01-01T00:00:00Z"}, "payload": 7}), "payload: a number says nothing"),
        (json!({"timing": {"at": "2026-01-01T00:00:00Z"}, "policy": {"overlap": "maybe"}}), "maybe"),
        (json!({"timing": {"at": "2026-01-01T00:00:00Z"}, "colour": "red"}), "colour"),
        (json!({}), "timing"),
    ] {
        let body = json!({"id": "s", "definition": definition});
        let (status, refused) = program.call("POST", "/api/schedules", Some(body)).await;
        assert_eq!(status, 422, "{refused}");
        let message = refused["error"]["message"].as_str().unwrap();
        assert!(message.contains(said), "{said}: {message}");
    }
    for id in ["", "a b", "<script>", &"a".repeat(129)] {
        let body = json!({"id": id, "definition": nightly()});
        assert_eq!(program.call("POST", "/api/schedules", Some(body)).await.0, 422, "{id}");
    }
    assert_eq!(program.call("GET", "/api/schedules/a%20b", None).await.0, 400);
    assert_eq!(program.call("GET", "/api/schedules?limit=0", None).await.0, 422);
    let (status, list) = program.call("GET", "/api/schedules", None).await;
    assert_eq!((status, &list["schedules"]), (200, &json!([])));
}

#[tokio::test]
async fn people_do_the_same_on_pages_and_other_sites_do_not() {
    let program = Program::start().await;
    let form = "id=nightly&kind=cron&expression=30+2+*+*+*&timezone=Europe%2FBerlin&payload=";
    let elsewhere = program.form("/schedules/save", form, &[("origin", "http://evil.example")]).await;
    assert_eq!(elsewhere.status(), 403);
    let elsewhere = program.form("/api/schedules", "{}", &[("sec-fetch-site", "cross-site")]).await;
    assert_eq!(elsewhere.status(), 403);
    let saved = program.form("/schedules/save", form, &[("origin", &program.url)]).await;
    assert_eq!(saved.status(), 303);
    let place = saved.headers()["location"].to_str().unwrap().to_owned();
    let page = reqwest::get(format!("{}{place}", program.url)).await.unwrap();
    assert!(page.headers()["content-security-policy"].to_str().unwrap().starts_with("default-src 'none'"));
    let page = page.text().await.unwrap();
    assert_eq!(page.matches("[Europe/Berlin]</time>").count(), 10, "{page}");
    assert!(page.contains("The schedule is saved.") && page.contains("2026-03-29T03:00:00+02:00"), "{page}");
    let bad = program.form("/schedules/save", "id=x&kind=cron&expression=%3Cscript%3E", &[]).await;
    assert_eq!(bad.status(), 422);
    let bad = bad.text().await.unwrap();
    assert!(
        bad.contains("Not saved") && bad.contains("&lt;script&gt;") && !bad.contains("<script>"),
        "{bad}"
    );
    for (path, body) in [
        ("/schedules/pause", "id=nightly&note=why"),
        ("/schedules/resume", "id=nightly"),
        ("/schedules/trigger", "id=nightly"),
        ("/schedules/backfill", "id=nightly&from=2026-03-01T00:00:00Z&to=2026-03-03T00:00:00Z"),
    ] {
        assert_eq!(program.form(path, body, &[]).await.status(), 303, "{path}");
    }
    assert_eq!(program.form("/schedules/backfill", "id=nightly&from=yesterday", &[]).await.status(), 422);
    let record = program.schedules.get(&ScheduleId::new("nightly").unwrap()).await.unwrap();
    assert_eq!(record.open.len(), 3);
    assert_eq!(program.form("/schedules/remove", "id=nightly", &[]).await.status(), 303);
    for path in ["/schedules/assets/page.css", "/schedules/openapi.json", "/schedules", "/schedules/edit"] {
        assert_eq!(
            program.client.get(format!("{}{path}", program.url)).send().await.unwrap().status(),
            200,
            "{path}"
        );
    }
}

#[tokio::test]
async fn a_firing_is_a_message_of_its_queue_with_an_id_that_tells_it_from_others() {
    let broker: Arc<dyn Broker> = Arc::new(EmbeddedBroker::in_memory(EmbeddedOptions::default()).unwrap());
    let queue = QueueName::new("reports").unwrap();
    let publisher = QueuePublisher::new(broker.clone());
    assert!(!publisher.knows(&queue).await.unwrap());
    let store = Arc::new(SqliteSchedules::in_memory().unwrap());
    let clock = ManualClock::at(Timestamp::parse(START).unwrap());
    let schedules = Schedules::new(store.clone(), Arc::new(clock.clone()));
    let payload = json!({"queue": "reports", "body": {"report": "usage"}});
    let id = ScheduleId::new("minutely").unwrap();
    schedules.add(id.clone(), Definition::every(Duration::from_secs(60)).payload(payload)).await.unwrap();
    let mut scheduler = Scheduler::new(store, Arc::new(clock.clone()), SchedulerOptions::default());
    clock.advance(60_000);
    let firing = scheduler.tick(1).await.unwrap().claimed.remove(0);
    let absent = publisher.publish(&firing).await.unwrap_err();
    assert_eq!(absent.kind(), FaultKind::Permanent, "{absent}");
    broker.declare(&queue).await.unwrap();
    publisher.publish(&firing).await.unwrap();
    let message = broker.peek(&queue, 10).await.unwrap().remove(0).message;
    assert_eq!(message.id, "minutely@2026-03-28T11:01:00Z");
    assert_eq!(
        (message.body.as_ref(), message.content_type.as_str()),
        (br#"{"report":"usage"}"#.as_slice(), "application/json")
    );
    for payload in [
        Value::Null,
        json!({}),
        json!({"queue": "a/b\n"}),
        json!({"queue": "galerna.alerts"}),
        json!({"queue": "reports.dead"}),
        json!({"queue": "reports", "colour": "red"}),
        json!({"queue": "reports", "content_type": ""}),
    ] {
        assert_eq!(QueueMessage::of(&payload).unwrap_err().field, "payload", "{payload}");
    }
}
