//! Who is told of alerts: endpoints, silences, and the outbox of deliveries.
//!
//! The outbox is what makes telling safe: a delivery is written down before its alert event is acked to the broker, keeps
//! its id over all its attempts, and is claimed for a time by the one notifier that works on it.

use std::collections::BTreeMap;

use async_trait::async_trait;
use galerna_model::{AccountId, Timestamp};
use serde::{Deserialize, Serialize};

use crate::Result;
use galerna_model::AlertEvent;

/// Somebody or something to tell of alerts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Endpoint {
    /// Key; what [`Rule::endpoints`](galerna_model::Rule::endpoints) names.
    pub id: String,
    /// For people.
    pub name: String,
    /// The account that it belongs to: only this account's alerts go there. Any account's when `None`.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    #[serde(default)]
    pub account: Option<AccountId>,
    /// How to tell.
    #[serde(flatten)]
    pub kind: EndpointKind,
    /// Whether it is told at all.
    #[serde(default = "yes")]
    pub enabled: bool,
    /// Why it is not, when the notifier disabled it (a webhook that answered `410 Gone`).
    #[serde(default)]
    pub disabled_reason: Option<String>,
    /// Events within so many milliseconds go out together; 0: each on its own, at once.
    #[serde(default)]
    pub group_ms: u64,
    /// After an alert, the next one of the same rule and device is held back until so many milliseconds of wall time have
    /// passed. If it fires still, it is sent then; if it has resolved, neither it nor its recovery is sent. 0: all are sent.
    #[serde(default)]
    pub cooldown_ms: u64,
}

fn yes() -> bool {
    true
}

/// How an endpoint is told. Templates are those of the crate `minijinja`; `None` stands for the default one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum EndpointKind {
    /// An HTTP call.
    Webhook {
        /// Where: `http` or `https`.
        url: String,
        /// `POST`, `PUT`, `PATCH`, `GET` or `DELETE`.
        #[serde(default = "post")]
        method: String,
        /// Headers to send beside those of the signature.
        #[serde(default)]
        headers: BTreeMap<String, String>,
        /// Template of the body.
        #[serde(default)]
        body: Option<String>,
        /// Key of the Standard Webhooks signature, `whsec_` and base64; unsigned when `None`.
        #[serde(default)]
        secret: Option<String>,
    },
    /// A mail.
    Email {
        /// Addresses.
        to: Vec<String>,
        /// Template of the subject.
        #[serde(default)]
        subject: Option<String>,
        /// Template of the plain text.
        #[serde(default)]
        text: Option<String>,
        /// Template of the HTML; values are escaped.
        #[serde(default)]
        html: Option<String>,
    },
    /// A line in the notifier's log.
    Log {},
}

fn post() -> String {
    "POST".to_owned()
}

impl EndpointKind {
    /// `webhook`, `email` or `log`.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Webhook { .. } => "webhook",
            Self::Email { .. } => "email",
            Self::Log {} => "log",
        }
    }
}

impl Endpoint {
    /// What a page or an API may show: the secret, the values of all headers, and the query of the URL, in which a token may stand,
    /// are replaced by `***`.
    #[must_use]
    pub fn redacted(&self) -> Self {
        let mut shown = self.clone();
        if let EndpointKind::Webhook { url, headers, secret, .. } = &mut shown.kind {
            if let Some((address, _)) = url.split_once('?') {
                *url = format!("{address}?{REDACTED}");
            }
            headers.values_mut().for_each(|value| REDACTED.clone_into(value));
            if let Some(secret) = secret {
                REDACTED.clone_into(secret);
            }
        }
        shown
    }

    /// Undoes [`redacted`](Self::redacted) in an edited endpoint: what still reads `***` is taken from `stored`, as long as it
    /// goes to the same host; the query of the URL only for the same address.
    #[must_use]
    pub fn with_secrets_of(mut self, stored: &Self) -> Self {
        if let (
            EndpointKind::Webhook { url, headers, secret, .. },
            EndpointKind::Webhook { url: stored_url, headers: stored_headers, secret: stored_secret, .. },
        ) = (&mut self.kind, &stored.kind)
        {
            let address = stored_url.split_once('?').map(|(address, _)| address);
            if url.split_once('?').is_some_and(|(of, query)| query == REDACTED && Some(of) == address) {
                url.clone_from(stored_url);
            }
            // Who may edit an endpoint may not see its secrets, nor have them sent to another host.
            let host = |url: &str| url.split('/').take(3).map(str::to_owned).collect::<Vec<_>>();
            if host(url) != host(stored_url) {
                return self;
            }
            for (name, value) in headers.iter_mut().filter(|(_, value)| *value == REDACTED) {
                if let Some(stored) = stored_headers.get(name) {
                    value.clone_from(stored);
                }
            }
            if secret.as_deref() == Some(REDACTED) {
                secret.clone_from(stored_secret);
            }
        }
        self
    }
}

/// Stands for a secret where it is shown.
pub const REDACTED: &str = "***";

/// Alerts that nobody is to be told of for a while. What is `None` matches all.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Silence {
    /// Key.
    pub id: String,
    /// Only of this account.
    #[serde(default)]
    pub account: Option<AccountId>,
    /// Only of devices that match this glob, for instance `Panther_*`.
    #[serde(default)]
    pub device: Option<String>,
    /// Only of the rule with this id.
    #[serde(default)]
    pub rule: Option<String>,
    /// When it ends, in wall time.
    pub until: Timestamp,
    /// Why.
    #[serde(default)]
    pub reason: String,
    /// Who made it.
    #[serde(default)]
    pub by: String,
    /// When it was made.
    pub created: Timestamp,
}

/// Where a delivery stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DeliveryStatus {
    /// To be sent, or to be tried again.
    Pending,
    /// Sent, and taken.
    Delivered,
    /// Given up.
    Dead,
    /// Not to be sent: silenced, over before its cooldown was, the endpoint is disabled, or the recovery of an alert that was
    /// not delivered.
    Suppressed,
}

impl DeliveryStatus {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Pending, Self::Delivered, Self::Dead, Self::Suppressed];

    /// As it is written in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Delivered => "delivered",
            Self::Dead => "dead",
            Self::Suppressed => "suppressed",
        }
    }
}

/// One try to send a delivery.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// When it ended.
    pub at: Timestamp,
    /// Status code of the answer, HTTP's or SMTP's, if there was one.
    pub status: Option<u16>,
    /// What went wrong; `None` when it was taken.
    pub error: Option<String>,
    /// How long it took, in milliseconds.
    pub took_ms: u64,
}

/// What one endpoint is told at once: one event, or those of a grouping window.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Delivery {
    /// Key; stays the same over all attempts, and is what receivers know it by (`webhook-id`, `Message-ID`).
    pub id: String,
    /// Id of the endpoint.
    pub endpoint: String,
    /// The events, in the order in which they were taken from the broker; at least one.
    pub events: Vec<AlertEvent>,
    /// Where it stands.
    pub status: DeliveryStatus,
    /// Why it is dead, suppressed or held back, or why some of its events were left out.
    pub reason: Option<String>,
    /// Sent on an operator's request to try an endpoint.
    pub test: bool,
    /// The attempts, oldest first; of very many only the last are kept.
    pub attempts: Vec<Attempt>,
    /// How many attempts there were since `since`.
    pub tries: u32,
    /// Not to be tried before.
    pub next_try: Timestamp,
    /// Takes further events until then, while it was not tried; `None`: it takes none.
    pub open_until: Option<Timestamp>,
    /// Held back by its endpoint's cooldown until then; `None`: it is not, or not any more.
    #[serde(default)]
    pub held_until: Option<Timestamp>,
    /// Ids of deliveries of the same endpoint that must have ended before this one is tried.
    pub after: Vec<String>,
    /// When it was made.
    pub created: Timestamp,
    /// From when on its age counts: made, sent again, or held back no more.
    pub since: Timestamp,
    /// When it was delivered, given up or suppressed.
    pub ended: Option<Timestamp>,
    /// Counts its changes.
    pub version: u64,
    /// The notifier that works on it.
    pub claimed_by: Option<String>,
    /// Until when; then others may.
    pub claimed_until: Option<Timestamp>,
}

/// What alerts of one device are told apart by: the same for an alert and its recovery.
pub fn alert_key(event: &AlertEvent) -> String {
    // As JSON, so that no id can be made to look like another's.
    serde_json::json!([event.rule, event.source, event.device]).to_string()
}

/// What enqueuing did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Enqueued {
    /// It is in the outbox.
    New,
    /// Its events were added to the open delivery with this id.
    Joined(String),
    /// The endpoint has a delivery of its first event already, that with this id; nothing was changed.
    Known(String),
}

/// Which deliveries a notifier asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// Who asks.
    pub notifier: String,
    /// The time now.
    pub now: Timestamp,
    /// For how long, in milliseconds.
    pub lease_ms: u64,
    /// At most so many.
    pub limit: usize,
    /// At most so many of one endpoint.
    pub per_endpoint: usize,
    /// None of these endpoints.
    pub except: Vec<String>,
}

/// Which deliveries to list; what is `None` matches all.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DeliveryFilter {
    /// With this status.
    pub status: Option<DeliveryStatus>,
    /// Of this endpoint.
    pub endpoint: Option<String>,
    /// With an event of this account.
    pub account: Option<AccountId>,
    /// With this text, in either case, in an id, a rule, a source, a device or a message.
    pub text: Option<String>,
}

/// Some of the deliveries that match a filter.
#[derive(Debug, Clone, PartialEq)]
pub struct DeliveryPage {
    /// How many match in each status, whatever status the filter names; all four, in the order of
    /// [`DeliveryStatus::ALL`].
    pub counts: [(DeliveryStatus, u64); 4],
    /// The page, newest first.
    pub deliveries: Vec<Delivery>,
}

/// What became of a request to send a delivery again.
#[derive(Debug, Clone, PartialEq)]
pub enum Resent {
    /// It is pending, as if new, with the same id.
    Yes(Box<Delivery>),
    /// A notifier is at it now.
    InProgress,
    /// There is none with this id.
    Unknown,
}

/// Most events of one delivery.
pub const MAX_GROUP: usize = 100;

/// Most deliveries that one call of [`Notifications::forget`] deletes.
pub(crate) const FORGOTTEN: usize = 1000;

/// Store of endpoints, silences and deliveries.
#[async_trait]
pub trait Notifications: Send + Sync + 'static {
    /// All endpoints, by id.
    async fn endpoints(&self) -> Result<Vec<Endpoint>>;
    /// One endpoint.
    async fn endpoint(&self, id: &str) -> Result<Option<Endpoint>>;
    /// Creates or replaces an endpoint. Check it first: `galerna_notifier::validate`.
    async fn put_endpoint(&self, endpoint: &Endpoint) -> Result<()>;
    /// Deletes an endpoint; false when there was none. Its deliveries stay.
    async fn delete_endpoint(&self, id: &str) -> Result<bool>;
    /// Disables an endpoint with a reason, if it is enabled and tells in the same way as the one `seen`; says whether it did.
    async fn disable_endpoint(&self, seen: &Endpoint, reason: &str) -> Result<bool>;

    /// All silences, those that have ended included, by id.
    async fn silences(&self) -> Result<Vec<Silence>>;
    /// Creates or replaces a silence.
    async fn put_silence(&self, silence: &Silence) -> Result<()>;
    /// Deletes a silence; false when there was none.
    async fn delete_silence(&self, id: &str) -> Result<bool>;

    /// Puts a delivery into the outbox, or its events into an open one of its endpoint: if it is pending and open itself, one
    /// is open that has not been claimed or tried, waits for the same ones (`after`), and has room. An endpoint gets each event
    /// once: when it has a delivery with the first event, whatever its status, nothing changes. Durable when it returns.
    async fn enqueue(&self, delivery: &Delivery) -> Result<Enqueued>;
    /// Claims deliveries that are due and wait for no other, those due the longest first. Each is given to one notifier at a
    /// time, until its claim runs out by the clocks of those who ask.
    async fn claim(&self, claim: &Claim) -> Result<Vec<Delivery>>;
    /// Replaces a delivery that still has the version of the one given, and gives it the next version; false when it has
    /// changed since. Ids in `after` of others that wait for it are removed when it has ended.
    async fn update(&self, delivery: &Delivery) -> Result<bool>;
    /// Frees deliveries whose predecessors have all ended, should a crash have kept [`update`](Self::update) from it. Returns
    /// how many. To be called now and then.
    async fn unblock(&self) -> Result<usize>;

    /// A page of the deliveries, newest first.
    async fn deliveries(&self, filter: &DeliveryFilter, offset: usize, limit: usize) -> Result<DeliveryPage>;
    /// One delivery.
    async fn delivery(&self, id: &str) -> Result<Option<Delivery>>;
    /// Makes a delivery pending again, as if new, whatever its status, unless a notifier is at it at the time `now`.
    async fn resend(&self, id: &str, now: Timestamp) -> Result<Resent>;

    /// Deletes up to a thousand deliveries made before this time that are not pending, the oldest first; returns how many.
    /// That their events were taken is remembered.
    async fn forget(&self, before: Timestamp) -> Result<usize>;

    /// The deliveries of an event, one an endpoint.
    async fn deliveries_of_event(&self, event: &str) -> Result<Vec<Delivery>>;
    /// The newest deliveries of one endpoint with an event of this [`alert_key`], newest first.
    async fn deliveries_of_alert(&self, endpoint: &str, key: &str, limit: usize) -> Result<Vec<Delivery>>;
    /// The alert that this recovery ends: the latest recorded alert of the same rule, source and device that is not later.
    async fn alert_ended_by(&self, recovery: &AlertEvent) -> Result<Option<AlertEvent>>;
    /// Whether [`mark_taken`](Self::mark_taken) was called for the event.
    async fn is_taken(&self, event: &str) -> Result<bool>;
    /// Records that all deliveries of an event are in the outbox.
    async fn mark_taken(&self, event: &str, at: Timestamp) -> Result<()>;
}

impl Delivery {
    /// Keys of the alerts in it, each once.
    pub(crate) fn alert_keys(&self) -> Vec<String> {
        let mut keys: Vec<String> = self.events.iter().map(alert_key).collect();
        keys.sort();
        keys.dedup();
        keys
    }

    /// What [`DeliveryFilter::text`] is looked for in, in lower case.
    pub(crate) fn searched(&self) -> String {
        let mut text = format!("{}\n{}", self.id, self.endpoint);
        for e in &self.events {
            for part in [&e.rule, &e.rule_name, &e.device, &e.message] {
                text.push('\n');
                text.push_str(part);
            }
            text.push('\n');
            text.push_str(e.source.as_str());
        }
        text.to_lowercase()
    }

    /// Whether the events of `new` may be added to this one.
    pub(crate) fn takes(&self, new: &Self) -> bool {
        self.status == DeliveryStatus::Pending
            && !self.test
            && self.endpoint == new.endpoint
            && self.attempts.is_empty()
            && self.claimed_by.is_none()
            && self.open_until.is_some_and(|until| until > new.created)
            && self.events.len() + new.events.len() <= MAX_GROUP
            // Waiting for one that waits for this one would be for ever; for the same ones is not.
            && (new.after == self.after || (new.after.len() == 1 && new.after[0] == self.id))
    }

    /// This delivery as it is after a resend at `now`.
    pub(crate) fn renewed(&self, now: Timestamp) -> Self {
        Self {
            status: DeliveryStatus::Pending,
            reason: None,
            tries: 0,
            next_try: now,
            open_until: None,
            held_until: None,
            after: Vec::new(),
            since: now,
            ended: None,
            version: self.version + 1,
            claimed_by: None,
            claimed_until: None,
            ..self.clone()
        }
    }

    /// Whether a notifier is at it.
    pub(crate) fn is_claimed(&self, now: Timestamp) -> bool {
        self.claimed_by.is_some() && self.claimed_until.is_none_or(|until| until > now)
    }
}
