//! Schedules on the page.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_schedule_is_added_checked_paused_fired_and_removed_on_the_page_and_written_down() {
    let world = World::open().await;
    let token = csrf(&world.text("/schedules/edit").await);
    let form = [
        ("csrf", token.as_str()),
        ("id", "reports/daily"),
        ("kind", "cron"),
        ("expression", "30 2 * * *"),
        ("timezone", "Europe/Berlin"),
        ("payload", r#"{"queue":"reports"}"#),
        ("next", "/schedules"),
        ("back", "/schedules/edit"),
    ];
    // Looked at first: the next ten, and nothing kept.
    let query = form_urlencoded::Serializer::new(String::new())
        .extend_pairs(form)
        .append_pair("check", "true")
        .finish();
    let looked = world.text(&format!("/schedules/edit?{query}")).await;
    assert_eq!(looked.matches("[Europe/Berlin]").count(), 10, "{looked}");
    assert!(world.text("/schedules").await.contains("There is no schedule."));

    let answer = world.form("/schedules/save", &form).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::SEE_OTHER);
    let list = world.text(answer.headers()["location"].to_str().unwrap()).await;
    assert!(
        list.contains("schedule reports/daily is added") && list.contains("30 2 * * * in Europe/Berlin"),
        "{list}"
    );
    // What is wrong is said, and what was written stays.
    let wrong: Vec<(&str, &str)> = form
        .iter()
        .map(|(name, value)| (*name, if *name == "timezone" { "Europe/Atlantis" } else { value }))
        .collect();
    let answer = world.form("/schedules/save", &wrong).send().await.unwrap();
    let again = world.text(answer.headers()["location"].to_str().unwrap()).await;
    assert!(again.contains("is no time zone") && again.contains(r#"value="Europe/Atlantis""#), "{again}");

    let act = |path: &'static str, more: &'static [(&str, &str)]| {
        let fields = [&[("csrf", token.as_str()), ("id", "reports/daily")], more].concat();
        world.form(path, &fields).send()
    };
    assert_eq!(
        act("/schedules/pause", &[("note", "moving house")]).await.unwrap().status(),
        StatusCode::SEE_OTHER
    );
    let shown = world.text("/schedules/show?id=reports%2Fdaily").await;
    assert!(shown.contains("moving house") && shown.matches("[Europe/Berlin]").count() == 10, "{shown}");
    act("/schedules/resume", &[]).await.unwrap();
    act("/schedules/trigger", &[]).await.unwrap();
    let shown = world.text("/schedules/show?id=reports%2Fdaily").await;
    assert!(shown.contains("1 waiting"), "{shown}");
    // Removing asks first.
    let asked = act("/schedules/remove", &[]).await.unwrap().text().await.unwrap();
    assert!(asked.contains("Remove schedule reports/daily?"), "{asked}");
    act("/schedules/remove", &[("confirmed", "yes")]).await.unwrap();
    assert_eq!(world.get("/schedules/show?id=reports%2Fdaily").send().await.unwrap().status(), 404);

    let written: Vec<(String, bool)> =
        world.audit().await.into_iter().rev().map(|entry| (entry.action, entry.done)).collect();
    let expected = [
        ("schedule.save", true),
        // The time zone that there is not.
        ("schedule.save", false),
        ("schedule.pause", true),
        ("schedule.resume", true),
        ("schedule.trigger", true),
        ("schedule.remove", true),
    ];
    assert_eq!(written, expected.map(|(action, done)| (action.to_owned(), done)));
}

#[tokio::test(flavor = "multi_thread")]
async fn programs_save_schedules_through_the_page_and_viewers_do_not() {
    let world = World::open().await;
    let body = json!({"id": "s", "definition": {"timing": {"every": {"interval": "10m"}}}});
    let answer = world.call("/api/schedules/save", &body).send().await.unwrap();
    let answer: Value = answer.json().await.unwrap();
    assert_eq!(answer["schedule"]["revision"], 1, "{answer}");
    let stale = json!({"id": "s", "revision": 7, "definition": {"timing": {"every": {"interval": "10m"}}}});
    assert_eq!(world.call("/api/schedules/save", &stale).send().await.unwrap().status(), 409);
    let wrong = json!({"id": "s", "definition": {"timing": {"every": {"interval": "1ms"}}}});
    assert_eq!(world.call("/api/schedules/save", &wrong).send().await.unwrap().status(), 422);

    let world = World::guarded().await;
    let answer = world.call("/api/schedules/save", &body).bearer_auth(VIEWER).send().await.unwrap();
    assert_eq!(answer.status(), 403);
    let answer = world.call("/api/schedules/save", &body).bearer_auth(OPERATOR).send().await.unwrap();
    assert_eq!(answer.status(), 200);
}
