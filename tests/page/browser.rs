//! A real Chromium, headless, and what tests do with it: look, click, write, wait, keep pictures.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use chromiumoxide::browser::BrowserConfig;
use chromiumoxide::cdp::browser_protocol::emulation::{MediaFeature, SetDeviceMetricsOverrideParams};
use chromiumoxide::cdp::browser_protocol::log::EventEntryAdded;
use chromiumoxide::cdp::js_protocol::runtime::{
    ConsoleApiCalledType, EventConsoleApiCalled, EventExceptionThrown,
};
use chromiumoxide::element::Element;
use chromiumoxide::error::CdpError;
use chromiumoxide::layout::Point;
use chromiumoxide::page::ScreenshotParams;
use futures_util::StreamExt;
use galerna_lock::Mutex;
use serde_json::Value;
use tokio::task::JoinHandle;

use crate::system::DEADLINE;

/// The program: `CHROMIUM`, else `chromium` on the PATH.
fn program() -> PathBuf {
    let missing = "run scripts/servers, which installs Debian's chromium, or name the program in CHROMIUM";
    if let Some(named) = std::env::var_os("CHROMIUM").map(PathBuf::from) {
        assert!(named.is_file(), "CHROMIUM names {}, which is no file; {missing}", named.display());
        return named;
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found =
        std::env::split_paths(&path).map(|folder| folder.join("chromium")).find(|file| file.is_file());
    found.unwrap_or_else(|| panic!("there is no chromium on the PATH; {missing}"))
}

/// A browser with a profile of its own; ends with the test.
pub(crate) struct Browser {
    browser: chromiumoxide::Browser,
    handling: JoinHandle<()>,
    _profile: tempfile::TempDir,
}

impl Browser {
    pub(crate) async fn start() -> Self {
        let profile = tempfile::tempdir().unwrap();
        let config = BrowserConfig::builder()
            .chrome_executable(program())
            .new_headless_mode()
            .no_sandbox()
            .args([
                "--disable-gpu",
                "--disable-dev-shm-usage",
                "--hide-scrollbars",
                "--force-device-scale-factor=1",
            ])
            .user_data_dir(profile.path())
            .viewport(None)
            .launch_timeout(DEADLINE)
            .request_timeout(DEADLINE)
            .build()
            .unwrap();
        let (browser, mut handler) = chromiumoxide::Browser::launch(config).await.expect("Chromium starts");
        let handling = tokio::spawn(async move { while handler.next().await.is_some() {} });
        Self { browser, handling, _profile: profile }
    }

    /// A new tab for the page at this address.
    pub(crate) async fn tab(&self, address: &str) -> Tab {
        let page = self.browser.new_page("about:blank").await.unwrap();
        let errors = Arc::new(Mutex::new(Vec::new()));
        page.enable_log().await.unwrap();
        let mut console = page.event_listener::<EventConsoleApiCalled>().await.unwrap();
        let mut thrown = page.event_listener::<EventExceptionThrown>().await.unwrap();
        let mut log = page.event_listener::<EventEntryAdded>().await.unwrap();
        let kept = errors.clone();
        let listening = tokio::spawn(async move {
            loop {
                let error = tokio::select! {
                    Some(event) = console.next() => match event.r#type {
                        ConsoleApiCalledType::Error | ConsoleApiCalledType::Warning => format!("{:?}", event.args),
                        _ => continue,
                    },
                    Some(event) = thrown.next() => format!("{:?}", event.exception_details),
                    // What the browser itself complains of: policies violated, files missing.
                    Some(event) = log.next() => format!("{} {:?}", event.entry.text, event.entry.url),
                    else => return,
                };
                kept.lock().push(error);
            }
        });
        let tab = Tab { page, errors, listening, address: address.to_owned(), size: Mutex::default() };
        tab.size(1280, 860).await;
        tab
    }

    /// Ends it.
    pub(crate) async fn end(mut self) {
        drop(self.browser.close().await);
        drop(tokio::time::timeout(Duration::from_secs(20), self.browser.wait()).await);
        self.handling.abort();
    }
}

/// One tab.
pub(crate) struct Tab {
    page: chromiumoxide::Page,
    errors: Arc<Mutex<Vec<String>>>,
    listening: JoinHandle<()>,
    address: String,
    size: Mutex<(i64, i64)>,
}

impl Drop for Tab {
    fn drop(&mut self) {
        self.listening.abort();
    }
}

impl Tab {
    /// Goes to a path of the page.
    pub(crate) async fn open(&self, path: &str) {
        self.page.goto(format!("{}{path}", self.address)).await.unwrap_or_else(|e| panic!("{path}: {e}"));
        self.holds("document.readyState === 'complete'").await;
    }

    /// The value of an expression; null while the page is between two documents.
    pub(crate) async fn value(&self, expression: &str) -> Value {
        let result = self.page.evaluate(expression).await;
        result.ok().and_then(|r| r.into_value().ok()).unwrap_or(Value::Null)
    }

    /// Waits until an expression is true.
    pub(crate) async fn holds(&self, expression: &str) {
        let begun = Instant::now();
        while self.value(expression).await != Value::Bool(true) {
            if begun.elapsed() > DEADLINE {
                let text = self.value("location.href + '\\n' + document.body.innerText").await;
                panic!(
                    "`{expression}` did not hold within {DEADLINE:?} on {}",
                    text.as_str().unwrap_or_default()
                );
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Waits until the page shows a text.
    pub(crate) async fn shows(&self, text: &str) {
        self.holds(&format!("document.body.innerText.includes({})", Value::from(text))).await;
    }

    /// The first element that matches, in view, in a document that is wholly there, and the point of it that stays where it is for two
    /// looks. What is only half loaded or is being replaced is looked for again: its nodes have no ids that last.
    async fn settled(&self, selector: &str) -> (Element, Point) {
        let begun = Instant::now();
        loop {
            let tried = async {
                let element = self.page.find_element(selector).await?;
                element.scroll_into_view().await?;
                let first = element.clickable_point().await?;
                tokio::time::sleep(Duration::from_millis(20)).await;
                let second = element.clickable_point().await?;
                Ok::<_, CdpError>(((first.x, first.y) == (second.x, second.y)).then_some((element, second)))
            };
            let found = match self.value("document.readyState === 'complete'").await {
                Value::Bool(true) => tried.await,
                _ => Ok(None),
            };
            match found {
                Ok(Some(found)) => return found,
                Ok(None) | Err(_) if begun.elapsed() < DEADLINE => {
                    tokio::time::sleep(Duration::from_millis(50)).await
                }
                Ok(None) => panic!("{selector} does not come to rest within {DEADLINE:?}"),
                Err(error) => panic!("{selector}: {error}"),
            }
        }
    }

    /// Clicks with the mouse on the first element that matches, where a user would see it.
    pub(crate) async fn click(&self, selector: &str) {
        let (_, point) = self.settled(selector).await;
        self.page.click(point).await.unwrap_or_else(|e| panic!("{selector}: {e}"));
    }

    /// Writes into a field, key by key.
    pub(crate) async fn write(&self, selector: &str, text: &str) {
        let (element, _) = self.settled(selector).await;
        let field = format!("document.querySelector({})", Value::from(selector));
        self.holds(&format!("{field}.focus(), {field}.select(), document.activeElement === {field}")).await;
        element.type_str(text).await.unwrap_or_else(|e| panic!("{selector}: {e}"));
    }

    /// A window of this size.
    pub(crate) async fn size(&self, width: i64, height: i64) {
        *self.size.lock() = (width, height);
        // As a narrow window, not as a phone: that would zoom out of what is too wide.
        let metrics = SetDeviceMetricsOverrideParams::new(width, height, 1.0, false);
        self.page.execute(metrics).await.unwrap();
    }

    /// Dark or light, as the system would ask.
    pub(crate) async fn dark(&self, dark: bool) {
        let feature = MediaFeature::new("prefers-color-scheme", if dark { "dark" } else { "light" });
        self.page.emulate_media_features(vec![feature]).await.unwrap();
    }

    /// Keeps a picture of the whole page under `screenshots` of the target folder.
    pub(crate) async fn picture(&self, name: &str) {
        let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).with_file_name("screenshots");
        std::fs::create_dir_all(&folder).unwrap();
        let all = ScreenshotParams::builder().full_page(true).build();
        self.page.save_screenshot(all, folder.join(format!("{name}.png"))).await.unwrap();
        // The picture of a whole page leaves another size behind.
        let (width, height) = *self.size.lock();
        self.size(width, height).await;
    }

    /// What axe-core finds wrong with the page: rule, how grave, and where.
    pub(crate) async fn axe(&self, script: &str) -> Vec<String> {
        self.page.evaluate_expression(script).await.expect("axe-core runs");
        let check = "window.found = null; axe.run(document, { resultTypes: ['violations'] }).then((result) => { window.found = \
            result.violations.map((v) => `${v.id} (${v.impact}): ${v.help}; ` + v.nodes.map((n) => `${n.target} ${n.failureSummary}`).join(' | ')); }); true";
        assert_eq!(self.value(check).await, true);
        self.holds("window.found !== null").await;
        serde_json::from_value(self.value("window.found").await).expect("a list of texts")
    }

    /// Whether the page is wider than its window.
    pub(crate) async fn scrolls_sideways(&self) -> bool {
        self.value("document.documentElement.scrollWidth > innerWidth").await != Value::Bool(false)
    }

    /// What the browser complained of since the last call.
    pub(crate) fn errors(&self) -> Vec<String> {
        std::mem::take(&mut *self.errors.lock())
    }
}
