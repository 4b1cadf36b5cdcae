//! What the server holds.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use galerna_lock::Mutex;
use galerna_model::{Clock, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::broadcast;

use crate::status::{Status, StatusId};

/// Events that a stream may be behind; one that is further behind is cut, as by real servers.
const BEHIND: usize = 1_024;

/// The recorded statuses, as JSON.
pub fn recorded() -> Vec<Value> {
    serde_json::from_str(include_str!("../../data/statuses.json")).unwrap_or_default()
}

/// The token of an account by its number.
pub fn token(account: usize) -> String {
    format!("token-{account}")
}

/// What is to go wrong. What is not named is left as it is.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Faults {
    /// Cut all streams now.
    pub cut_streams: bool,
    /// So many of the next posts are written, and their answers lost.
    pub lose_answers: u64,
    /// So many of the next calls fail with 500.
    pub fail_calls: u64,
    /// Answer all writes of this account with 429 for so many seconds.
    pub limit_writes: Option<(usize, u64)>,
    /// Answer all reads of this account with 429 for so many seconds.
    pub limit_reads: Option<(usize, u64)>,
    /// Refuse the token of this account; another one is `token-N-new`.
    pub revoke: Option<usize>,
    /// Each stream tells each status twice.
    pub tell_twice: Option<bool>,
    /// Streams leave out every so many-th status.
    pub leave_out: Option<u64>,
    /// Refuse posts whose text has this.
    pub refuse_text: Option<String>,
}

/// A post or boost that the server has received.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Received {
    /// By the account of this number.
    pub account: usize,
    /// Its id.
    pub id: StatusId,
    /// Its text, or none for a boost.
    pub text: Option<String>,
    /// The status that it boosts.
    pub boosts: Option<StatusId>,
    /// When.
    pub at: Timestamp,
    /// Its key.
    pub key: Option<String>,
}

/// A status that was replayed.
#[derive(Debug, Clone)]
pub(super) struct Replayed {
    pub(super) id: StatusId,
    pub(super) json: Arc<str>,
    pub(super) tags: Vec<String>,
    pub(super) author: String,
    pub(super) acct: String,
}

/// What goes to streams.
#[derive(Debug, Clone)]
pub(super) enum Told {
    Status(Arc<Replayed>),
    Cut,
}

#[derive(Debug, Default)]
struct Held {
    replayed: Vec<Arc<Replayed>>,
    received: Vec<Received>,
    /// Posts by account and key.
    keys: HashMap<(usize, String), usize>,
    boosts: HashMap<(usize, StatusId), usize>,
    limited: HashMap<(usize, bool), Timestamp>,
    revoked: BTreeMap<usize, bool>,
    faults: Faults,
    last: u64,
}

/// What the server holds.
pub struct World {
    url: String,
    clock: Arc<dyn Clock>,
    held: Mutex<Held>,
    told: broadcast::Sender<Told>,
    streams: AtomicU64,
}

impl std::fmt::Debug for World {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("World").field("url", &self.url).finish_non_exhaustive()
    }
}

impl World {
    pub(super) fn new(url: String, clock: Arc<dyn Clock>) -> Self {
        Self {
            url,
            clock,
            held: Mutex::default(),
            told: broadcast::Sender::new(BEHIND),
            streams: AtomicU64::new(0),
        }
    }

    /// Ids as Mastodon makes them: the time, then a number.
    fn next_id(&self, held: &mut Held) -> StatusId {
        let now = self.clock.now().as_millis().max(0).unsigned_abs() << 16;
        held.last = now.max(held.last + 1);
        StatusId::new(held.last.to_string())
    }

    /// Replays the recorded status of this number: a new id, the time now, and the rest as it was.
    pub fn replay(&self, number: usize) -> StatusId {
        let all = recorded();
        let mut json = all[number % all.len()].clone();
        let mut held = self.held.lock();
        let id = self.next_id(&mut held);
        let acct = json["account"]["acct"].as_str().unwrap_or_default().to_owned();
        json["id"] = id.as_str().into();
        json["created_at"] = self.clock.now().to_string().into();
        json["url"] = format!("{}/@{acct}/{id}", self.url).into();
        json["uri"] = format!("{}/users/{acct}/statuses/{id}", self.url).into();
        let tags = json["tags"].as_array().into_iter().flatten().filter_map(|tag| tag["name"].as_str());
        let replayed = Arc::new(Replayed {
            id: id.clone(),
            tags: tags.map(str::to_lowercase).collect(),
            author: json["account"]["id"].as_str().unwrap_or_default().to_owned(),
            acct,
            json: json.to_string().into(),
        });
        held.replayed.push(Arc::clone(&replayed));
        let left_out = held
            .faults
            .leave_out
            .is_some_and(|every| (held.replayed.len() as u64).is_multiple_of(every.max(1)));
        let times = match (left_out, held.faults.tell_twice) {
            (true, _) => 0,
            (false, Some(true)) => 2,
            (false, _) => 1,
        };
        drop(held);
        for _ in 0..times {
            // Nobody may be listening.
            drop(self.told.send(Told::Status(Arc::clone(&replayed))));
        }
        id
    }

    /// Cuts all streams.
    pub fn cut_streams(&self) {
        drop(self.told.send(Told::Cut));
    }

    /// Has things go wrong.
    pub fn break_down(&self, faults: Faults) {
        let now = self.clock.now();
        let until =
            |seconds: u64| now.plus_millis(i64::try_from(seconds.saturating_mul(1_000)).unwrap_or(i64::MAX));
        let mut held = self.held.lock();
        held.faults.lose_answers += faults.lose_answers;
        held.faults.fail_calls += faults.fail_calls;
        if let Some((account, seconds)) = faults.limit_writes {
            held.limited.insert((account, true), until(seconds));
        }
        if let Some((account, seconds)) = faults.limit_reads {
            held.limited.insert((account, false), until(seconds));
        }
        if let Some(account) = faults.revoke {
            held.revoked.insert(account, true);
        }
        held.faults.tell_twice = faults.tell_twice.or(held.faults.tell_twice);
        held.faults.leave_out = faults.leave_out.or(held.faults.leave_out);
        if faults.refuse_text.is_some() {
            held.faults.refuse_text = faults.refuse_text;
        }
        drop(held);
        if faults.cut_streams || faults.revoke.is_some() {
            self.cut_streams();
        }
    }

    /// What was posted and boosted.
    pub fn received(&self) -> Vec<Received> {
        self.held.lock().received.clone()
    }

    /// How many posts and boosts there are.
    pub fn received_count(&self) -> usize {
        self.held.lock().received.len()
    }

    /// Streams that are open.
    pub fn streams(&self) -> u64 {
        self.streams.load(Ordering::Relaxed)
    }

    pub(super) fn listen(self: &Arc<Self>) -> (broadcast::Receiver<Told>, OpenStream) {
        self.streams.fetch_add(1, Ordering::Relaxed);
        (self.told.subscribe(), OpenStream(Arc::clone(self)))
    }

    /// The account of a token.
    pub(super) fn account(&self, token: &str) -> Option<usize> {
        let rest = token.strip_prefix("token-")?;
        let (number, new) = rest.strip_suffix("-new").map_or((rest, false), |number| (number, true));
        let account = number.parse().ok()?;
        let revoked = self.held.lock().revoked.contains_key(&account);
        (revoked == new).then_some(account)
    }

    /// Whether a call is to fail.
    pub(super) fn takes_failure(&self) -> bool {
        let mut held = self.held.lock();
        let fails = held.faults.fail_calls > 0;
        held.faults.fail_calls = held.faults.fail_calls.saturating_sub(1);
        fails
    }

    /// Until when calls of an account are refused.
    pub(super) fn limited(&self, account: usize, write: bool) -> Option<Timestamp> {
        let now = self.clock.now();
        self.held.lock().limited.get(&(account, write)).copied().filter(|until| *until > now)
    }

    /// Statuses by what they are asked by: after or before an id, those that `is` says, in the order that Mastodon gives them.
    pub(super) fn page(
        &self,
        min: Option<&StatusId>,
        limit: usize,
        is: impl Fn(&Replayed) -> bool,
    ) -> Vec<Arc<Replayed>> {
        let held = self.held.lock();
        let wanted = held.replayed.iter().filter(|status| is(status));
        let mut page: Vec<Arc<Replayed>> = match min {
            Some(min) => wanted.filter(|status| status.id > *min).take(limit).cloned().collect(),
            None => {
                let mut last: Vec<_> = wanted.rev().take(limit).cloned().collect();
                last.reverse();
                last
            }
        };
        page.reverse();
        page
    }

    /// What an account wrote, as statuses, the latest first.
    pub(super) fn written(&self, account: usize, min: Option<&StatusId>, limit: usize) -> Vec<Value> {
        let held = self.held.lock();
        let of = held.received.iter().filter(|received| received.account == account);
        let mut page: Vec<Value> = match min {
            Some(min) => of.filter(|one| one.id > *min).take(limit).map(|one| self.status_of(one)).collect(),
            None => {
                let mut last: Vec<_> = of.rev().take(limit).map(|one| self.status_of(one)).collect();
                last.reverse();
                last
            }
        };
        page.reverse();
        page
    }

    fn status_of(&self, received: &Received) -> Value {
        let acct = format!("account-{}", received.account);
        let text = received.text.clone().unwrap_or_default();
        let text = text.replace('&', "&amp;").replace('<', "&lt;").replace('\n', "<br>");
        let own = format!("{}/users/{acct}/statuses/{}", self.url, received.id);
        json!({
            "id": received.id, "created_at": received.at, "visibility": "unlisted", "uri": own, "url": own,
            "content": format!("<p>{text}</p>"), "account": { "id": account_id(received.account), "acct": acct },
        })
    }

    /// Writes a status, or gives the one that was written with this key before; and whether the answer is to be lost.
    ///
    /// # Errors
    /// Why it is refused.
    pub(super) fn write(
        &self,
        account: usize,
        text: &str,
        key: Option<String>,
    ) -> Result<(Value, bool), String> {
        let mut held = self.held.lock();
        let known = key.clone().and_then(|key| held.keys.get(&(account, key)).copied());
        if let Some(at) = known {
            return Ok((self.status_of(&held.received[at]), false));
        }
        if let Some(refused) =
            held.faults.refuse_text.as_ref().filter(|refused| text.contains(refused.as_str()))
        {
            return Err(format!("Validation failed: the text has `{refused}`"));
        }
        let received = Received {
            account,
            id: self.next_id(&mut held),
            text: Some(text.to_owned()),
            boosts: None,
            at: self.clock.now(),
            key: key.clone(),
        };
        let status = self.status_of(&received);
        let at = held.received.len();
        held.received.push(received);
        if let Some(key) = key {
            held.keys.insert((account, key), at);
        }
        let lost = held.faults.lose_answers > 0;
        held.faults.lose_answers = held.faults.lose_answers.saturating_sub(1);
        Ok((status, lost))
    }

    /// Boosts a status, or gives the boost that there is; none if there is no such status.
    pub(super) fn boost(&self, account: usize, id: &StatusId) -> Option<Value> {
        let mut held = self.held.lock();
        if !held.replayed.iter().any(|status| status.id == *id) {
            return None;
        }
        if let Some(at) = held.boosts.get(&(account, id.clone())).copied() {
            return Some(self.status_of(&held.received[at]));
        }
        let received = Received {
            account,
            id: self.next_id(&mut held),
            text: None,
            boosts: Some(id.clone()),
            at: self.clock.now(),
            key: None,
        };
        let status = self.status_of(&received);
        let at = held.received.len();
        held.received.push(received);
        held.boosts.insert((account, id.clone()), at);
        Some(status)
    }

    pub(super) fn now(&self) -> Timestamp {
        self.clock.now()
    }
}

/// The id of an account by its number.
pub(super) fn account_id(account: usize) -> String {
    format!("9{account:08}")
}

/// Counts a stream for as long as it is open.
pub(super) struct OpenStream(Arc<World>);

impl Drop for OpenStream {
    fn drop(&mut self) {
        self.0.streams.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A recorded status, read.
pub(super) fn recorded_statuses() -> Vec<Status> {
    recorded().into_iter().filter_map(|status| serde_json::from_value(status).ok()).collect()
}
