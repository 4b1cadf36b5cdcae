//! Who gets in, and whose forms are taken.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn without_tokens_only_loopback_names_are_served() {
    let world = World::open().await;
    for (host, status) in [
        ("localhost", 200),
        ("127.0.0.1:80", 200),
        ("[::1]:7", 200),
        ("evil.example", 403),
        ("127.0.0.1.evil.example", 403),
    ] {
        let answer = world.get("/").header("host", host).send().await.unwrap();
        assert_eq!(answer.status(), status, "{host}");
    }
    let page = world.text("/").await;
    assert!(page.contains("No login"), "{page}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_gets_in_without_a_token() {
    let world = World::guarded().await;
    for path in PAGES {
        let answer = world.get(path).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::SEE_OTHER, "{path}");
        assert!(answer.headers()["location"].to_str().unwrap().starts_with("/login?next="));
    }
    assert_eq!(world.get("/events").send().await.unwrap().status(), 401);
    for token in ["", "Bearer wrong", "Basic abc"] {
        let call =
            world.call("/api/queues/pause", &json!({"queue": "D00001"})).header("authorization", token);
        assert_eq!(call.send().await.unwrap().status(), 401, "{token}");
    }
    assert_eq!(world.state("D00001").await, "idle");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_viewer_looks_but_does_not_act() {
    let world = World::guarded().await;
    let answer = world.login(VIEWER).await;
    assert_eq!(
        (answer.status(), &answer.headers()["location"]),
        (StatusCode::SEE_OTHER, &"/queues".parse().unwrap())
    );
    let cookie = cookie(&answer);
    let page = world.get("/queues/D00001").header("cookie", &cookie).send().await.unwrap();
    assert_eq!(page.status(), 200);
    let page = page.text().await.unwrap();
    assert!(page.contains("viewer · Amaia") && page.contains("disabled"), "{page}");
    let token = csrf(&page);
    let paused =
        world.form("/queues/pause", &[("csrf", &token), ("queue", "D00001")]).header("cookie", &cookie);
    assert_eq!(paused.send().await.unwrap().status(), 403);
    let call = world.call("/api/queues/pause", &json!({"queue": "D00001"})).bearer_auth(VIEWER);
    let answer = call.send().await.unwrap();
    assert_eq!(answer.status(), 403);
    assert_eq!(answer.json::<Value>().await.unwrap()["error"]["code"], "forbidden");
    assert_eq!(world.state("D00001").await, "idle");
    assert_eq!(world.audit().await, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_is_a_cookie_that_is_not_the_token_and_ends_at_logout() {
    let world = World::guarded().await;
    let answer = world.login(OPERATOR).await;
    let header = answer.headers()["set-cookie"].to_str().unwrap().to_owned();
    for part in ["HttpOnly", "SameSite=Strict", "Path=/"] {
        assert!(header.contains(part), "{header}");
    }
    assert!(!header.contains("Secure") && !header.contains(OPERATOR), "{header}");
    let secure = world
        .form("/login", &[("token", OPERATOR)])
        .header("x-forwarded-proto", "https")
        .send()
        .await
        .unwrap();
    assert!(secure.headers()["set-cookie"].to_str().unwrap().ends_with("; Secure"));

    let session = cookie(&answer);
    let page = world.get("/").header("cookie", &session).send().await.unwrap().text().await.unwrap();
    assert!(page.contains("operator · Amaia"), "{page}");
    let out =
        world.form("/logout", &[("csrf", &csrf(&page))]).header("cookie", &session).send().await.unwrap();
    assert_eq!(out.status(), StatusCode::SEE_OTHER);
    assert_eq!(
        world.get("/").header("cookie", &session).send().await.unwrap().status(),
        StatusCode::SEE_OTHER
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_login_ends_the_older_session_of_that_browser_and_of_no_other() {
    let world = World::guarded().await;
    let (older, other) = (cookie(&world.login(OPERATOR).await), cookie(&world.login(OPERATOR).await));
    let again = world.form("/login", &[("token", VIEWER), ("next", "/\t/evil.example")]);
    let again = again.header("cookie", &older).send().await.unwrap();
    assert_eq!(again.headers()["location"], "/");
    let newer = cookie(&again);
    for (session, status) in
        [(&older, StatusCode::SEE_OTHER), (&other, StatusCode::OK), (&newer, StatusCode::OK)]
    {
        assert_eq!(
            world.get("/").header("cookie", session).send().await.unwrap().status(),
            status,
            "{session}"
        );
    }
    // A token that is wrong ends nothing.
    let wrong = world.form("/login", &[("token", "wrong")]).header("cookie", &other).send().await.unwrap();
    assert_eq!(wrong.status(), 401);
    assert_eq!(world.get("/").header("cookie", &other).send().await.unwrap().status(), StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_tokens_are_soon_refused_unheard_and_a_right_one_passes_all_the_same() {
    let world = World::guarded().await;
    for _ in 0..10 {
        assert_eq!(world.login("wrong").await.status(), 401);
    }
    assert_eq!(world.login("wrong").await.status(), 429);
    // Somebody else behind the same address may have tried them.
    assert_eq!(world.login(OPERATOR).await.status(), StatusCode::SEE_OTHER);
    assert_eq!(world.get("/").bearer_auth(VIEWER).send().await.unwrap().status(), StatusCode::OK);
    // And it forgives nothing.
    assert_eq!(world.login("wrong").await.status(), 429);
    for next in ["//evil.example", "https://evil.example", "/\\evil"] {
        assert_eq!(super::access::local_path(next), "/");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_form_from_elsewhere_does_nothing() {
    let world = World::guarded().await;
    let session = cookie(&world.login(OPERATOR).await);
    let other = cookie(&world.login(OPERATOR).await);
    let page = |of: String| async move { of };
    let mine = world.get("/queues").header("cookie", &session).send().await.unwrap().text().await.unwrap();
    let foreign = world.get("/queues").header("cookie", &other).send().await.unwrap().text().await.unwrap();
    let (mine, foreign) = (csrf(&page(mine).await), csrf(&page(foreign).await));
    assert_ne!(mine, foreign);
    let pause = |token: &str| {
        world.form("/queues/pause", &[("csrf", token), ("queue", "D00001")]).header("cookie", &session)
    };
    for (what, request, status) in [
        ("no token", pause(""), 403),
        ("another session's token", pause(&foreign), 403),
        ("another origin", pause(&mine).header("origin", "https://evil.example"), 403),
        ("a hidden origin", pause(&mine).header("origin", "null"), 403),
        ("another site", pause(&mine).header("sec-fetch-site", "cross-site"), 403),
        ("a sister site", pause(&mine).header("sec-fetch-site", "same-site"), 403),
    ] {
        assert_eq!(request.send().await.unwrap().status(), status, "{what}");
        assert_eq!(world.state("D00001").await, "idle", "{what}");
    }
    let call = || world.call("/api/queues/pause", &json!({"queue": "D00001"})).header("cookie", &session);
    assert_eq!(call().send().await.unwrap().status(), 403);
    let plain = world.post("/api/queues/pause").body(r#"{"queue":"D00001"}"#).bearer_auth(OPERATOR);
    assert_eq!(plain.header("content-type", "text/plain").send().await.unwrap().status(), 422);
    assert_eq!(world.state("D00001").await, "idle");

    let well = pause(&mine)
        .header("origin", &world.url)
        .header("sec-fetch-site", "same-origin")
        .send()
        .await
        .unwrap();
    assert_eq!(well.status(), StatusCode::SEE_OTHER);
    assert_eq!(world.state("D00001").await, "pause");
    assert_eq!(call().header("x-csrf-token", &mine).send().await.unwrap().status(), 200);
}
