//! What becomes of statuses when servers, tokens and streams fail: on paused time.

mod network;

use std::time::Duration;

use channels::channel::{Begin, Channel, Form, Source};
use channels::filter::Filters;
use channels::progress::Phase;
use channels::store::{LogQuery, PostState};
use galerna_schedules::{Definition, ScheduleId};
use network::{Fake, account, channel, noticed, phase, start, streaming, until, view};
use serde_json::json;
use tokio::time::{Instant, sleep};

const HOUR: Duration = Duration::from_secs(3_600);

#[tokio::test(start_paused = true)]
async fn what_came_before_during_and_after_a_break_is_posted_once_and_in_order() {
    let (fake, folder) = (Fake::new(), tempfile::tempdir().unwrap());
    for number in 0..95 {
        fake.write_untold(&format!("before {number}"));
    }
    let channels = start(&fake, folder.path(), &["a"]).await;
    streaming(&channels, "a").await;
    fake.write("told twice", 2);
    fake.cut_streams();
    fake.write_untold("during");
    streaming(&channels, "a").await;
    fake.write("after", 1);
    until("all is posted", || fake.texts("a").len() >= 98).await;
    // Switched off and on, nothing comes again, and what came meanwhile is there.
    channels.switch("a", false).await.unwrap();
    assert_eq!(phase(&channels, "a"), Phase::Off);
    fake.write("while off", 1);
    sleep(HOUR).await;
    assert_eq!(fake.texts("a").len(), 98);
    channels.switch("a", true).await.unwrap();
    until("it is posted", || fake.texts("a").len() >= 99).await;
    sleep(HOUR).await;
    let mut expected: Vec<String> = (0..95).map(|number| format!("before {number}")).collect();
    expected.extend(["told twice", "during", "after", "while off"].map(str::to_owned));
    assert_eq!(fake.texts("a"), expected);
    let progress = view(&channels, "a").progress;
    assert_eq!((progress.passed, progress.blocked), (99, 0));
    assert!(progress.duplicates >= 1 && progress.cuts >= 1, "{progress:?}");
    channels.stop(Duration::from_secs(5)).await;
}

#[tokio::test(start_paused = true)]
async fn a_restarted_program_goes_on_where_its_effects_end() {
    let (fake, folder) = (Fake::new(), tempfile::tempdir().unwrap());
    let channels = start(&fake, folder.path(), &["a"]).await;
    streaming(&channels, "a").await;
    fake.write("one", 1);
    until("it is posted", || fake.texts("a").len() == 1).await;
    channels.stop(Duration::from_secs(5)).await;
    drop(channels);
    fake.write("two", 1);
    sleep(HOUR).await;
    // The channel is on, as it was.
    let channels = start(&fake, folder.path(), &[]).await;
    until("it is posted", || fake.texts("a").len() == 2).await;
    sleep(HOUR).await;
    assert_eq!(fake.texts("a"), ["one", "two"]);
    channels.stop(Duration::from_secs(5)).await;
}

#[tokio::test(start_paused = true)]
async fn a_channel_that_begins_now_leaves_alone_what_was_there() {
    let (fake, folder) = (Fake::new(), tempfile::tempdir().unwrap());
    fake.write_untold("old");
    let channels = start(&fake, folder.path(), &["a"]).await;
    channels.put_account(account("b")).await.unwrap();
    channels.put(Channel { begin: Begin::Now, ..channel("b", Source::Home) }).await.unwrap();
    channels.switch("b", true).await.unwrap();
    streaming(&channels, "b").await;
    fake.write("new", 1);
    until("both have it", || fake.texts("a").len() == 2 && fake.texts("b").len() == 1).await;
    fake.cut_streams();
    sleep(HOUR).await;
    assert_eq!(fake.texts("b"), ["new"]);
    channels.stop(Duration::from_secs(5)).await;
}

#[tokio::test(start_paused = true)]
async fn what_a_stream_leaves_out_is_found_and_a_user_is_asked_for_again_and_again() {
    let (fake, folder) = (Fake::new(), tempfile::tempdir().unwrap());
    let channels = start(&fake, folder.path(), &["a"]).await;
    channels.put_account(account("b")).await.unwrap();
    channels.put(channel("b", Source::User("author".to_owned()))).await.unwrap();
    channels.switch("b", true).await.unwrap();
    streaming(&channels, "a").await;
    until("it asks", || phase(&channels, "b") == Phase::Polling).await;
    fake.write_untold("left out");
    fake.write("told", 1);
    until("it has both", || fake.texts("a").len() == 2 && fake.texts("b").len() == 2).await;
    assert_eq!(phase(&channels, "a"), Phase::Streaming, "without a break");
    channels.stop(Duration::from_secs(5)).await;
}

#[tokio::test(start_paused = true)]
async fn a_revoked_token_is_told_once_and_another_one_goes_on_without_a_gap() {
    let (fake, folder) = (Fake::new(), tempfile::tempdir().unwrap());
    let channels = start(&fake, folder.path(), &["a", "b"]).await;
    streaming(&channels, "a").await;
    streaming(&channels, "b").await;
    fake.held().refused_tokens.extend(["eye", "a"].map(|name| account(name).token));
    // Its stream lives on; its posts are refused.
    fake.write("one", 1);
    until("b posts", || fake.texts("b").len() == 1).await;
    fake.cut_streams();
    until("it waits", || phase(&channels, "a") == Phase::Revoked).await;
    let calls = fake.held().calls;
    fake.write("two", 1);
    sleep(HOUR).await;
    assert_eq!(fake.held().calls, calls, "nobody calls with a token that is refused");
    for name in ["eye", "a"] {
        assert!(noticed(&channels, name, "refuses the token").await, "{name}");
        assert_eq!(channels.accounts().iter().find(|one| one.name == name).unwrap().state, "revoked");
        let another = channels::channel::Account { token: format!("another-{name}"), ..account(name) };
        channels.put_account(another).await.unwrap();
    }
    until("all is posted", || fake.texts("a").len() == 2 && fake.texts("b").len() == 2).await;
    sleep(HOUR).await;
    assert_eq!(fake.texts("a"), ["one", "two"]);
    assert_eq!(fake.texts("b"), ["one", "two"]);
    let (notices, _) = channels.context().store.notices(100).await.unwrap();
    assert_eq!(notices.len(), 2, "{notices:?}");
    channels.stop(Duration::from_secs(5)).await;
}

#[tokio::test(start_paused = true)]
async fn a_limit_of_an_hour_is_waited_for_and_holds_up_no_other_account() {
    let (fake, folder) = (Fake::new(), tempfile::tempdir().unwrap());
    let channels = start(&fake, folder.path(), &["a", "b"]).await;
    streaming(&channels, "a").await;
    streaming(&channels, "b").await;
    let opens = Instant::now() + HOUR;
    fake.held().writes_limited.insert("a".to_owned(), opens);
    for number in 0..50 {
        fake.write(&format!("{number}"), 1);
    }
    until("the other posts all", || fake.texts("b").len() == 50).await;
    assert!(Instant::now() < opens && fake.texts("a").is_empty());
    let limited = channels.accounts().into_iter().find(|one| one.name == "a").unwrap();
    assert_eq!(limited.state, "limited");
    assert!(limited.limited_until.is_some());
    assert!(noticed(&channels, "a", "wants no post").await);

    // Reads, too.
    fake.held().reads_limited = Some(opens);
    fake.cut_streams();
    for name in ["a", "b"] {
        until("it waits", || matches!(phase(&channels, name), Phase::Limited { .. })).await;
    }
    let calls = fake.held().calls;
    sleep(HOUR / 2).await;
    assert_eq!(fake.held().calls, calls, "nobody calls while the server wants none");
    fake.write("after", 1);
    until("all is posted", || fake.texts("a").len() == 51 && fake.texts("b").len() == 51).await;
    assert!(Instant::now() >= opens);
    let expected: Vec<String> =
        (0..50).map(|number| number.to_string()).chain(["after".to_owned()]).collect();
    assert_eq!(fake.texts("a"), expected);
    channels.stop(Duration::from_secs(5)).await;
}

#[tokio::test(start_paused = true)]
async fn a_post_whose_answer_was_lost_is_not_posted_again_even_hours_later() {
    let (fake, folder) = (Fake::new(), tempfile::tempdir().unwrap());
    let channels = start(&fake, folder.path(), &["a"]).await;
    streaming(&channels, "a").await;
    // Within the hour the server knows the key.
    fake.held().lose_answers = 1;
    fake.write("soon", 1);
    until("it is sent", || channels.accounts().iter().any(|one| one.name == "a" && one.sent == 1)).await;
    // Hours later it does not: the server was limited right after the answer was lost.
    fake.held().lose_answers = 1;
    fake.write("late", 1);
    until("it was received", || fake.texts("a").len() == 2).await;
    fake.held().writes_limited.insert("a".to_owned(), Instant::now() + HOUR);
    sleep(HOUR + HOUR / 10).await;
    until("it is sent", || channels.accounts().iter().any(|one| one.name == "a" && one.sent == 2)).await;
    assert_eq!(fake.texts("a"), ["soon", "late"]);
    let posts = channels.context().store.posts(10).await.unwrap();
    assert!(posts.iter().all(|post| post.state == PostState::Sent && post.remote_id.is_some()), "{posts:?}");
    channels.stop(Duration::from_secs(5)).await;
}

#[tokio::test(start_paused = true)]
async fn what_a_server_refuses_is_shown_and_tried_again_when_somebody_says_so() {
    let (fake, folder) = (Fake::new(), tempfile::tempdir().unwrap());
    let channels = start(&fake, folder.path(), &["a"]).await;
    streaming(&channels, "a").await;
    fake.held().refuse = Some("bad".to_owned());
    let status = fake.write("bad", 1);
    fake.write("worse than bad", 1);
    fake.write("good", 1);
    until("what follows is posted", || fake.texts("a") == ["good"]).await;
    let store = &channels.context().store;
    let refused = store.refused_posts(10).await.unwrap();
    assert_eq!(refused.len(), 2);
    let key = format!("a/{}", status.id);
    assert!(noticed(&channels, &key, "422").await);
    fake.held().refuse = None;
    channels.retry_post(&key).await.unwrap();
    until("it is posted", || fake.texts("a") == ["good", "bad"]).await;
    let other = refused.iter().find(|post| post.key != key).unwrap();
    channels.drop_post(&other.key).await.unwrap();
    assert!(channels.retry_post(&other.key).await.is_err());
    sleep(HOUR).await;
    assert_eq!(fake.texts("a"), ["good", "bad"]);
    channels.stop(Duration::from_secs(5)).await;
}

#[tokio::test(start_paused = true)]
async fn blocked_and_sent_statuses_are_logged_with_the_reason_and_found() {
    let (fake, folder) = (Fake::new(), tempfile::tempdir().unwrap());
    let channels = start(&fake, folder.path(), &["a"]).await;
    let filters = Filters { words_blocked: vec!["ham".to_owned()], ..Filters::default() };
    let mut edited = Channel { filters, ..channel("a", Source::Home) };
    edited.repost.as_mut().unwrap().form = Form::Boost;
    channels.put(edited).await.unwrap();
    streaming(&channels, "a").await;
    fake.write("I ate 100% of the HAM", 1);
    let passed = fake.write("I ate 100 apples", 1);
    until("it is boosted", || fake.texts("a") == [format!("boost {}", passed.id)]).await;
    let find = async |outcome: &str, text: &str| {
        let query = LogQuery {
            outcome: Some(outcome.to_owned()).filter(|outcome| !outcome.is_empty()),
            text: Some(text.to_owned()),
            ..LogQuery::default()
        };
        let found = channels.context().store.log(query).await.unwrap();
        found.into_iter().map(|entry| (entry.text, entry.reason, entry.by)).collect::<Vec<_>>()
    };
    let ham = ("I ate 100% of the HAM".to_owned(), Some("word".to_owned()), "ham".to_owned());
    let apples = ("I ate 100 apples".to_owned(), None, String::new());
    assert_eq!(find("", "ATE 100").await, [apples.clone(), ham.clone()]);
    assert_eq!(find("", "100%").await, std::slice::from_ref(&ham));
    assert_eq!(find("blocked", "").await, std::slice::from_ref(&ham));
    assert_eq!(find("word", "author").await, [ham]);
    sleep(Duration::from_secs(10)).await;
    assert_eq!(find("sent", "apples").await, [apples]);
    assert_eq!(find("sent", "ham").await, []);
    channels.stop(Duration::from_secs(5)).await;
}

#[tokio::test(start_paused = true)]
async fn scheduled_posts_are_edited_while_they_wait_and_posted_once_each() {
    let (fake, folder) = (Fake::new(), tempfile::tempdir().unwrap());
    let channels = start(&fake, folder.path(), &["a"]).await;
    let post = |text: &str| json!({ "account": "a", "text": text, "hashtags": ["morning"] });
    // It is noon.
    let daily = ScheduleId::new("posts/hourly").unwrap();
    let hourly = Definition::cron("0 * * * *", "UTC").payload(post("every hour"));
    let record = channels.put_schedule(daily.clone(), hourly, None).await.unwrap();
    let once = ScheduleId::new("posts/once").unwrap();
    let due = galerna_model::Timestamp::parse("2026-11-30T13:30:00Z").unwrap();
    channels.put_schedule(once.clone(), Definition::at(due).payload(post("first")), None).await.unwrap();
    sleep(HOUR + HOUR / 4).await;
    assert_eq!(fake.texts("a"), ["every hour"]);
    channels.put_schedule(once, Definition::at(due).payload(post("edited")), None).await.unwrap();
    let half = Definition::cron("45 * * * *", "UTC").payload(post("at a quarter to"));
    channels.put_schedule(daily.clone(), half.clone(), Some(record.revision)).await.unwrap();
    // Whoever edits what somebody else has edited meanwhile is told.
    assert!(channels.put_schedule(daily, half, Some(record.revision)).await.is_err());
    sleep(HOUR).await;
    assert_eq!(fake.texts("a"), ["every hour", "edited", "at a quarter to"]);
    assert!(fake.held().received[1].text.ends_with("#morning"));
    let nothing = Definition::at(due).payload(json!({ "account": "a" }));
    let error = channels.put_schedule(ScheduleId::new("bad").unwrap(), nothing, None).await.unwrap_err();
    assert!(error.to_string().contains("missing field `text`"), "{error}");
    channels.stop(Duration::from_secs(5)).await;
}

#[tokio::test(start_paused = true)]
async fn a_channel_whose_source_is_not_there_ends_with_the_reason_until_it_is_started_again() {
    let (fake, folder) = (Fake::new(), tempfile::tempdir().unwrap());
    let channels = start(&fake, folder.path(), &["a"]).await;
    channels.put(channel("a", Source::List("7".to_owned()))).await.unwrap();
    let ended =
        || matches!(phase(&channels, "a"), Phase::Failed { reason } if reason == "there is no list 7");
    until("it has ended", ended).await;
    assert!(noticed(&channels, "a", "there is no list 7").await);
    let calls = fake.held().calls;
    sleep(HOUR).await;
    assert_eq!(fake.held().calls, calls, "it is left alone");
    channels.switch("a", true).await.unwrap();
    until("it was tried again", || fake.held().calls > calls).await;
    until("it has ended", ended).await;
    channels.stop(Duration::from_secs(5)).await;
}

#[tokio::test(start_paused = true)]
async fn a_channel_that_cannot_be_is_refused_with_the_reason() {
    let (fake, folder) = (Fake::new(), tempfile::tempdir().unwrap());
    let channels = start(&fake, folder.path(), &["a"]).await;
    let nobody = channels.put(Channel { account: "nobody".to_owned(), ..channel("a", Source::Home) }).await;
    assert_eq!(nobody.unwrap_err().to_string(), "there is no account `nobody`");
    assert!(channels.switch("b", true).await.is_err());
    let bad = channels.put(channel("a b", Source::Home)).await.unwrap_err();
    assert!(bad.to_string().starts_with("name: "), "{bad}");
    channels.remove("a").await.unwrap();
    assert!(channels.remove("a").await.is_err());
    assert!(channels.view().is_empty());
    channels.stop(Duration::from_secs(5)).await;
}
