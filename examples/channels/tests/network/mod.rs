//! A network in memory, on the time of the test, which fails as it is told.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use channels::bolts::PostOptions;
use channels::channel::{Account, Begin, Channel, Form, Repost, Source, Text};
use channels::filter::Filters;
use channels::length::LengthLimits;
use channels::network::{Ask, Event, EventStream, Network, NetworkError};
use channels::progress::Phase;
use channels::service::{ChannelView, Channels, Options};
use channels::status::{Author, Status, StatusId, Visibility};
use galerna_model::{Clock, Timestamp};
use serde_json::json;
use tokio::sync::broadcast;
use tokio::time::Instant;

/// A time of day that goes with the paused time of the test.
#[derive(Debug)]
pub(crate) struct TestClock {
    start: Instant,
}

impl Clock for TestClock {
    fn now(&self) -> Timestamp {
        let passed = i64::try_from(self.start.elapsed().as_millis()).unwrap();
        Timestamp::parse("2026-11-30T12:00:00Z").unwrap().plus_millis(passed)
    }
}

/// A post that was received.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Received {
    pub(crate) account: String,
    pub(crate) text: String,
    pub(crate) id: StatusId,
    pub(crate) key: String,
    pub(crate) at: Timestamp,
}

#[derive(Debug, Default)]
pub(crate) struct Held {
    pub(crate) statuses: Vec<Status>,
    pub(crate) received: Vec<Received>,
    pub(crate) refused_tokens: HashSet<String>,
    pub(crate) reads_limited: Option<Instant>,
    pub(crate) writes_limited: HashMap<String, Instant>,
    pub(crate) lose_answers: usize,
    pub(crate) refuse: Option<String>,
    pub(crate) calls: usize,
    pub(crate) streams: usize,
    last: u64,
}

/// The network.
#[derive(Debug)]
pub(crate) struct Fake {
    pub(crate) clock: Arc<TestClock>,
    held: Mutex<Held>,
    told: broadcast::Sender<Option<Status>>,
}

impl Fake {
    pub(crate) fn new() -> Arc<Self> {
        let clock = Arc::new(TestClock { start: Instant::now() });
        Arc::new(Self { clock, held: Mutex::default(), told: broadcast::Sender::new(1_000) })
    }

    pub(crate) fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap()
    }

    fn status(&self, held: &mut Held, text: &str) -> Status {
        let now = self.clock.now();
        held.last = (now.as_millis().unsigned_abs() << 16).max(held.last + 1);
        let id = held.last.to_string();
        serde_json::from_value(json!({
            "id": id, "created_at": now, "visibility": "public", "content": format!("<p>{text}</p>"),
            "uri": format!("https://a.example/{id}"), "url": format!("https://a.example/{id}"),
            "account": { "id": "1", "acct": "author" },
        }))
        .unwrap()
    }

    /// Writes a status that streams do not tell.
    pub(crate) fn write_untold(&self, text: &str) -> Status {
        let mut held = self.held();
        let status = self.status(&mut held, text);
        held.statuses.push(status.clone());
        status
    }

    /// Writes a status, and tells streams so many times.
    pub(crate) fn write(&self, text: &str, times: usize) -> Status {
        let status = self.write_untold(text);
        for _ in 0..times {
            drop(self.told.send(Some(status.clone())));
        }
        status
    }

    pub(crate) fn cut_streams(&self) {
        drop(self.told.send(None));
    }

    /// Texts that were received of an account, each by its first line.
    pub(crate) fn texts(&self, account: &str) -> Vec<String> {
        let of = |one: &&Received| one.account == account;
        let first = |one: &Received| one.text.lines().next().unwrap_or_default().to_owned();
        self.held().received.iter().filter(of).map(first).collect()
    }

    fn admit(&self, account: &Account, write: bool) -> Result<(), NetworkError> {
        let mut held = self.held();
        held.calls += 1;
        if held.refused_tokens.contains(&account.token) {
            return Err(NetworkError::Revoked("The access token was revoked".to_owned()));
        }
        let until = if write { held.writes_limited.get(&account.name).copied() } else { held.reads_limited };
        match until.filter(|until| *until > Instant::now()) {
            Some(until) => Err(NetworkError::Limited(until - Instant::now())),
            None => Ok(()),
        }
    }
}

struct FakeStream(broadcast::Receiver<Option<Status>>);

#[async_trait]
impl EventStream for FakeStream {
    async fn next(&mut self) -> Result<Event, NetworkError> {
        match self.0.recv().await {
            Ok(Some(status)) => Ok(Event::Status(Box::new(status))),
            _ => Err(NetworkError::Unavailable("the stream was cut".to_owned())),
        }
    }
}

/// How long the fake remembers keys, as Mastodon does.
const KEYS: i64 = 3_600_000;

#[async_trait]
impl Network for Fake {
    async fn whoami(&self, account: &Account) -> Result<Author, NetworkError> {
        self.admit(account, false)?;
        Ok(Author { id: format!("own-{}", account.name), acct: account.name.clone() })
    }

    async fn length_limits(&self, _: &Account) -> Result<LengthLimits, NetworkError> {
        Ok(LengthLimits::default())
    }

    async fn page(&self, account: &Account, source: &Source, ask: Ask) -> Result<Vec<Status>, NetworkError> {
        self.admit(account, false)?;
        let mut held = self.held();
        if let Source::Id(_) = source {
            let own: Vec<Received> =
                held.received.iter().filter(|one| one.account == account.name).cloned().collect();
            let mut statuses = Vec::new();
            for one in own {
                let status = self.status(&mut held, &one.text.replace('\n', "<br>"));
                statuses.push(Status { id: one.id, ..status });
            }
            let Ask::After(after) = ask else { return Ok(statuses) };
            return Ok(statuses.into_iter().filter(|status| status.id > after).take(40).collect());
        }
        let statuses = &held.statuses;
        Ok(match ask {
            Ask::Latest(most) => statuses[statuses.len().saturating_sub(most)..].to_vec(),
            Ask::After(id) => statuses.iter().filter(|status| status.id > id).take(40).cloned().collect(),
        })
    }

    async fn stream(
        &self,
        account: &Account,
        source: &Source,
    ) -> Result<Option<Box<dyn EventStream>>, NetworkError> {
        self.admit(account, false)?;
        match source {
            Source::User(_) => return Ok(None),
            Source::List(id) => return Err(NetworkError::NotFound(format!("list {id}"))),
            _ => {}
        }
        self.held().streams += 1;
        Ok(Some(Box::new(FakeStream(self.told.subscribe()))))
    }

    async fn post(
        &self,
        account: &Account,
        _: &Text,
        composed: &str,
        key: &str,
    ) -> Result<StatusId, NetworkError> {
        self.admit(account, true)?;
        let mut held = self.held();
        let now = self.clock.now();
        let known = held
            .received
            .iter()
            .find(|one| one.account == account.name && one.key == key && now.millis_since(one.at) < KEYS);
        if let Some(known) = known {
            return Ok(known.id.clone());
        }
        if held.refuse.as_ref().is_some_and(|refused| composed.contains(refused.as_str())) {
            return Err(NetworkError::Refused { status: 422, message: "Validation failed".to_owned() });
        }
        let id = self.status(&mut held, composed).id;
        let (account, text, key) = (account.name.clone(), composed.to_owned(), key.to_owned());
        held.received.push(Received { account, text, id: id.clone(), key, at: now });
        if held.lose_answers > 0 {
            held.lose_answers -= 1;
            return Err(NetworkError::Unavailable("the connection was lost".to_owned()));
        }
        Ok(id)
    }

    async fn boost(&self, account: &Account, id: &StatusId) -> Result<StatusId, NetworkError> {
        self.admit(account, true)?;
        let mut held = self.held();
        if !held.statuses.iter().any(|status| status.id == *id) {
            return Err(NetworkError::NotFound("status".to_owned()));
        }
        let (account, text) = (account.name.clone(), format!("boost {id}"));
        let boost = Received { account, text, id: id.clone(), key: String::new(), at: self.clock.now() };
        if !held.received.iter().any(|one| one.text == boost.text && one.account == boost.account) {
            held.received.push(boost);
        }
        Ok(id.clone())
    }

    async fn resolve(&self, account: &Account, uri: &str) -> Result<StatusId, NetworkError> {
        self.admit(account, false)?;
        let held = self.held();
        let found = held.statuses.iter().find(|status| status.uri == uri);
        found.map(|status| status.id.clone()).ok_or_else(|| NetworkError::NotFound("status".to_owned()))
    }
}

pub(crate) fn account(name: &str) -> Account {
    Account {
        name: name.to_owned(),
        server: "https://a.example".to_owned(),
        token: format!("token of {name}").replace(' ', "-"),
    }
}

/// A channel of this name, which sees with the account `eye` and copies with the account of its own name.
pub(crate) fn channel(name: &str, source: Source) -> Channel {
    let repost = Repost {
        account: name.to_owned(),
        form: Form::Copy,
        hashtags: vec!["storm".to_owned()],
        visibility: Visibility::Unlisted,
    };
    Channel {
        name: name.to_owned(),
        account: "eye".to_owned(),
        source,
        filters: Filters::default(),
        repost: Some(repost),
        begin: Begin::Oldest,
    }
}

/// Starts with an account `eye` and, for each name, an account and a channel that is on.
pub(crate) async fn start(fake: &Arc<Fake>, folder: &Path, names: &[&str]) -> Arc<Channels> {
    let mut options = Options::new(folder);
    options.posts = PostOptions { every: Duration::from_secs(3), ..PostOptions::default() };
    let clock: Arc<dyn Clock> = fake.clock.clone();
    let network: Arc<dyn Network> = fake.clone();
    let channels = Channels::start(options, network, clock).await.unwrap();
    channels.put_account(account("eye")).await.unwrap();
    for name in names {
        channels.put_account(account(name)).await.unwrap();
        channels.put(channel(name, Source::Home)).await.unwrap();
        channels.switch(name, true).await.unwrap();
    }
    channels
}

/// Waits, on the time of the test, until something is so.
pub(crate) async fn until(what: &str, mut is: impl FnMut() -> bool) {
    for _ in 0..100_000 {
        if is() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("it did not come to be: {what}");
}

pub(crate) fn view(channels: &Channels, name: &str) -> ChannelView {
    channels.view().into_iter().find(|view| view.channel.name == name).expect("the channel is there")
}

pub(crate) fn phase(channels: &Channels, name: &str) -> Phase {
    view(channels, name).progress.phase
}

pub(crate) async fn streaming(channels: &Channels, name: &str) {
    until("it follows its stream", || phase(channels, name) == Phase::Streaming).await;
}

/// Whether a notice about this has this text.
pub(crate) async fn noticed(channels: &Channels, about: &str, text: &str) -> bool {
    let (notices, _) = channels.context().store.notices(100).await.unwrap();
    notices.iter().any(|notice| notice.about == about && notice.text.contains(text))
}
