//! The page on a screen as narrow as a phone's: its menu, every action in view, and many things acted on after one question.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::browser::{Browser, Tab};
use crate::system::{call, run_well, until};
use crate::{PAGES, SAMPLES, up};

/// What can be clicked or filled in on a page and is not wholly within the width of the screen; what is folded away counts when it is
/// unfolded.
const OUT_OF_VIEW: &str = "(() => {
    document.querySelectorAll('main details').forEach((fold) => { fold.open = true; });
    return [...document.querySelectorAll('main button, main select, main input:not([type=hidden]), main textarea, main a')]
        .filter((one) => !one.classList.contains('sr') && one.checkVisibility({ visibilityProperty: true }))
        .filter((one) => { const at = one.getBoundingClientRect(); return at.left < -1 || at.right > innerWidth + 1 || at.width < 1; })
        .map((one) => `${one.tagName} ${(one.textContent || one.name).trim().slice(0, 40)}`);
})()";

async fn phone(browser: &Browser, page: &str) -> Tab {
    let tab = browser.tab(page).await;
    tab.size(390, 844).await;
    tab
}

#[tokio::test(flavor = "multi_thread")]
async fn the_menu_leads_to_each_page_and_each_action_is_in_view() {
    let folder = tempfile::tempdir().unwrap();
    let up = up(folder.path(), &[]).await;
    run_well(folder.path(), &["--dispatcher", &up.api, "publish", SAMPLES]);
    up.publish(folder.path(), "m1", 401, 4900.0, 1);
    up.publish(folder.path(), "m1", 999, 1.0, 2);
    until("a dead letter", || async { up.dead().await == 1 }).await;
    up.fill().await;
    let browser = Browser::start().await;
    let tab = phone(&browser, &up.page).await;
    let mut wrong = Vec::new();
    let mut actions = BTreeSet::new();
    let topology = up.topology().await;
    for (name, path) in PAGES.into_iter().chain([("topology that runs", topology.as_str())]) {
        tab.open(path).await;
        if let Value::Array(out) = tab.value(OUT_OF_VIEW).await {
            wrong.extend(out.iter().map(|one| format!("{name}: {one}")));
        } else {
            wrong.push(format!("{name}: it could not be looked at"));
        }
        let here = "[...document.querySelectorAll('main form[method=post], main [formaction]')].map((one) => \
            new URL(one.getAttribute('formaction') || one.getAttribute('action'), location).pathname)";
        let here: Vec<String> = serde_json::from_value(tab.value(here).await).unwrap();
        actions.extend(here);
    }
    assert!(wrong.is_empty(), "out of view at 390 px:\n{}", wrong.join("\n"));
    for action in [
        "/queues/pause",
        "/queues/unpause",
        "/dispatcher/start",
        "/dispatcher/strategy",
        "/dead-letters/replay",
        "/dead-letters/discard",
        "/rules/save",
        "/rules/test",
        "/rules/delete",
        "/endpoints/save",
        "/endpoints/test",
        "/endpoints/delete",
        "/silences/create",
        "/silences/end",
        "/sources/add",
        "/schedules/save",
        "/schedules/pause",
        "/schedules/trigger",
        "/schedules/remove",
        "/topologies/deactivate",
        "/topologies/kill",
    ] {
        assert!(actions.contains(action), "no page has {action}: {actions:?}");
    }

    // The menu is folded away; each of its pages is reached by it.
    tab.open("/").await;
    let folded = "!document.querySelector('nav.pages').checkVisibility()";
    tab.holds(folded).await;
    let paths = "[...document.querySelectorAll('nav.pages a')].map((link) => link.getAttribute('href'))";
    let paths: Vec<String> = serde_json::from_value(tab.value(paths).await).unwrap();
    assert!(paths.len() >= 16, "{paths:?}");
    for path in paths {
        tab.click("label.menu-button").await;
        let link = format!("nav.pages a[href='{path}']");
        tab.holds(&format!("document.querySelector(\"{link}\").checkVisibility()")).await;
        tab.click(&link).await;
        tab.holds(&format!("location.pathname === '{path}' && document.readyState === 'complete'")).await;
        tab.holds(folded).await;
    }
    tab.picture("menu-folded-390").await;
    tab.click("label.menu-button").await;
    tab.picture("menu-open-390").await;
    assert_eq!(tab.errors(), Vec::<String>::new());
    browser.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_queues_and_letters_are_acted_on_after_one_question() {
    let folder = tempfile::tempdir().unwrap();
    let up = up(folder.path(), &[]).await;
    run_well(folder.path(), &["--dispatcher", &up.api, "publish", SAMPLES]);
    for minute in 1..=3 {
        up.publish(folder.path(), "m1", 999, 1.0, minute);
    }
    until("dead letters", || async { up.dead().await == 3 }).await;
    let state = |queue: &'static str| {
        let api = &up.api;
        async move {
            let (_, told) = call("GET", &format!("{api}/queue/{queue}"), None).await;
            told["state"].as_str().unwrap_or_default().to_owned()
        }
    };
    let browser = Browser::start().await;
    let tab = phone(&browser, &up.page).await;

    // Some queues: nothing is done before the question is answered, and nothing when it is not.
    tab.open("/queues").await;
    for queue in ["Bear", "Panther"] {
        tab.click(&format!("input[name='queues[]'][value={queue}]")).await;
    }
    let pause = "form#bulk button:not([formaction]):not([name=all])";
    tab.click(pause).await;
    tab.shows("Pause 2 queues?").await;
    tab.picture("bulk-question-390").await;
    assert_ne!(state("Bear").await, "pause");
    tab.click("a.button").await;
    tab.holds("location.pathname === '/queues'").await;
    assert_ne!(state("Bear").await, "pause");
    for queue in ["Bear", "Panther"] {
        tab.click(&format!("input[name='queues[]'][value={queue}]")).await;
    }
    tab.click(pause).await;
    tab.shows("Pause 2 queues?").await;
    tab.write("input[name=reason]", "meters exchanged").await;
    tab.click("button.danger").await;
    tab.shows("2 queues paused").await;
    assert_eq!((state("Bear").await, state("Panther").await), ("pause".to_owned(), "pause".to_owned()));

    // All that a search finds, and no others.
    tab.open("/queues?search=bear").await;
    tab.click("form#bulk button[formaction='/queues/unpause'][name=all]").await;
    tab.shows("contain bear?").await;
    tab.click("button.danger").await;
    tab.shows("1 queue unpaused").await;
    assert_ne!(state("Bear").await, "pause");
    assert_eq!(state("Panther").await, "pause");

    // Letters: some, then all that match.
    tab.open("/dead-letters?source=odd").await;
    tab.click("input[name='letters[]']").await;
    tab.click("button[formaction='/dead-letters/discard']:not([name=all])").await;
    // The list has buttons of the same words: it is to be left first.
    tab.holds("location.pathname === '/dead-letters/discard'").await;
    assert_eq!(up.dead().await, 3);
    tab.click("button.danger").await;
    tab.shows("1 dead letter").await;
    until("two letters are left", || async { up.dead().await == 2 }).await;
    tab.open("/dead-letters?source=odd").await;
    tab.click("button[formaction='/dead-letters/discard'][name=all]").await;
    tab.holds("location.pathname === '/dead-letters/discard'").await;
    assert_eq!(up.dead().await, 2);
    tab.write("input[name=reason]", "test data").await;
    tab.click("button.danger").await;
    tab.shows("2 dead letters").await;
    until("none is left", || async { up.dead().await == 0 }).await;

    // One entry for each, with its reason.
    let (_, audit) = call("GET", &format!("{}/api/audit", up.page), None).await;
    let done: Vec<(&str, &str)> = audit["entries"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| (entry["action"].as_str().unwrap(), entry["why"].as_str().unwrap_or_default()))
        .collect();
    let count = |action: &str, why: &str| done.iter().filter(|one| **one == (action, why)).count();
    assert_eq!(count("queue.pause", "meters exchanged"), 1, "{done:?}");
    assert_eq!(count("queue.unpause", ""), 1, "{done:?}");
    assert_eq!(done.iter().filter(|(action, _)| action.ends_with("discard")).count(), 2, "{done:?}");
    assert_eq!(tab.errors(), Vec::<String>::new());
    browser.end().await;
}
