//! Telling: by mail, by webhook, in the log.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use galerna_model::Timestamp;
use galerna_topology::prelude::Fault;
use lettre::message::Mailbox;
use lettre::message::header::{ContentType, HeaderName, HeaderValue};
use lettre::{AsyncSmtpTransport, AsyncTransport, Message, Tokio1Executor};
use reqwest::StatusCode;
use serde::{Deserialize, Serialize};
use url::Url;

use crate::line::{NewNotice, NoticeKind};
use crate::lists::List;
use crate::store::{Delivery, DeliveryStatus, DowntimeStore, Recipient, StoreError};

/// A mail server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Smtp {
    /// Such as `smtps://user:password@mail.example.com`.
    pub url: String,
    /// The sender, such as `Downtime <downtime@example.com>`.
    pub from: String,
}

/// What the webhook is sent, as JSON. The header `Idempotency-Key` has the id too.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WebhookBody {
    /// The delivery's id: the same when it is sent again.
    pub id: String,
    /// The line.
    pub line: String,
    /// What happened.
    pub kind: NoticeKind,
    /// When it went down or was restored.
    pub at: Timestamp,
    /// When it went down.
    pub down_since: Timestamp,
    /// If it is restored: for how long it was down, in milliseconds.
    pub duration_ms: Option<i64>,
}

/// What can be told by.
pub struct Senders {
    mail: Option<(AsyncSmtpTransport<Tokio1Executor>, Mailbox)>,
    webhook: Option<(reqwest::Client, Url)>,
    timeout: Duration,
}

impl std::fmt::Debug for Senders {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Senders")
            .field("mail", &self.mail.is_some())
            .field("webhook", &self.webhook.is_some())
            .finish_non_exhaustive()
    }
}

/// A delivery that was tried, and taken or refused for good.
#[derive(Debug, Clone)]
pub(super) struct Sent {
    delivery: Delivery,
    refused: Option<Arc<str>>,
}

impl Sent {
    /// Writes it down.
    pub(super) async fn settle(self, store: &dyn DowntimeStore) -> Result<(), Fault> {
        let Self { delivery: Delivery { id, what, .. }, refused } = self;
        let status = match &refused {
            None => DeliveryStatus::Delivered,
            Some(reason) => {
                tracing::error!(id, line = what.line, reason = &**reason, "a delivery is dead");
                DeliveryStatus::Dead
            }
        };
        store.ended(&id, status, refused.as_deref()).await.map_err(StoreError::into_fault)
    }
}

impl Senders {
    /// Prepares to tell, without a connection.
    ///
    /// # Errors
    /// What is wrong with the address of the mail server or its sender.
    pub fn new(smtp: Option<&Smtp>, webhook: Option<Url>, timeout: Duration) -> anyhow::Result<Self> {
        galerna_tls::install_default_provider();
        let mail = smtp.map(|smtp| {
            // The URL is not repeated: it may hold a password.
            let transport = AsyncSmtpTransport::<Tokio1Executor>::from_url(&smtp.url).context(
                "the mail server's URL is wrong; write for instance smtps://user:password@mail.example.com",
            )?;
            let from = smtp.from.parse().with_context(|| format!("`{}` is no sender of mail", smtp.from))?;
            anyhow::Ok((transport.timeout(Some(timeout)).build(), from))
        });
        let client = || {
            reqwest::Client::builder().timeout(timeout).redirect(reqwest::redirect::Policy::none()).build()
        };
        let webhook =
            webhook.map(|url| anyhow::Ok((client().context("making the HTTP client of the webhook")?, url)));
        Ok(Self { mail: mail.transpose()?, webhook: webhook.transpose()?, timeout })
    }

    /// How long one attempt may take.
    pub fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Whom a notice goes to.
    pub(super) fn recipients(&self, lists: &[Arc<List>]) -> Vec<Recipient> {
        let of = |list: &Arc<List>| {
            let (list, addresses) = (list.name.clone(), list.contacts.clone());
            match self.mail {
                Some(_) => Recipient::Mail { list, addresses },
                None => Recipient::Log { list, addresses },
            }
        };
        let told = lists.iter().filter(|list| !list.contacts.is_empty());
        told.map(of).chain(self.webhook.as_ref().map(|_| Recipient::Webhook {})).collect()
    }

    /// One attempt. What is refused for good is an answer too: it is to be written down.
    pub(super) async fn send(&self, delivery: Delivery) -> Result<Sent, Fault> {
        let refused = match &delivery.recipient {
            Recipient::Mail { list, addresses } => self.send_mail(&delivery, list, addresses).await?,
            Recipient::Webhook {} => self.send_webhook(&delivery).await?,
            Recipient::Log { list, .. } => {
                tracing::info!(list, id = delivery.id, "{}", text(&delivery.what));
                None
            }
        };
        Ok(Sent { delivery, refused: refused.map(Into::into) })
    }

    async fn send_mail(
        &self,
        delivery: &Delivery,
        list: &str,
        addresses: &[String],
    ) -> Result<Option<String>, Fault> {
        let Some((transport, from)) = &self.mail else {
            return Ok(Some("there is no mail server any more; start with --smtp".to_owned()));
        };
        let message = match mail(delivery, list, addresses, from) {
            Ok(message) => message,
            Err(error) => return Ok(Some(format!("the mail cannot be made: {error:#}"))),
        };
        match transport.send(message).await {
            Ok(_) => Ok(None),
            Err(error) if error.is_permanent() => Ok(Some(Fault::from(error).reason().to_owned())),
            Err(error) => Err(error.into()),
        }
    }

    async fn send_webhook(&self, delivery: &Delivery) -> Result<Option<String>, Fault> {
        let Some((client, url)) = &self.webhook else {
            return Ok(Some("there is no webhook any more; start with --webhook".to_owned()));
        };
        let what = &delivery.what;
        let body = WebhookBody {
            id: delivery.id.clone(),
            line: what.line.clone(),
            kind: what.kind,
            at: what.at,
            down_since: what.down_since,
            duration_ms: duration_ms(what),
        };
        let request = client.post(url.clone()).header("Idempotency-Key", &delivery.id).json(&body);
        let status = request.send().await.map_err(|error| Fault::from(error.without_url()))?.status();
        match status {
            status if status.is_success() => Ok(None),
            StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS => {
                Err(Fault::transient(format!("the webhook answered {status}")))
            }
            status if status.is_client_error() => Ok(Some(format!("the webhook answered {status}"))),
            status => Err(Fault::transient(format!("the webhook answered {status}"))),
        }
    }
}

fn duration_ms(what: &NewNotice) -> Option<i64> {
    (what.kind == NoticeKind::Restored).then(|| what.at.millis_since(what.down_since))
}

fn mail(delivery: &Delivery, list: &str, addresses: &[String], from: &Mailbox) -> anyhow::Result<Message> {
    let what = &delivery.what;
    let subject = match what.kind {
        NoticeKind::Down => format!("{} is down", what.line),
        NoticeKind::Restored => format!("{} is restored", what.line),
    };
    let mut message = Message::builder()
        .from(from.clone())
        // The same when it is sent again, so that a mail that comes twice can be known as one.
        .message_id(Some(format!("<{}@{}>", delivery.id, from.email.domain())))
        .subject(subject)
        // Keeps vacation notices away (RFC 3834).
        .raw_header(HeaderValue::new(
            HeaderName::new_from_ascii_str("Auto-Submitted"),
            "auto-generated".to_owned(),
        ));
    for address in addresses {
        message = message.to(Mailbox::new(None, address.parse().with_context(|| format!("`{address}`"))?));
    }
    let text = format!("{}\n\nSent to the notification list `{list}`.\n", text(what));
    Ok(message.header(ContentType::TEXT_PLAIN).body(text)?)
}

/// What is told, in a sentence.
fn text(what: &NewNotice) -> String {
    let NewNotice { line, at, down_since, .. } = what;
    match (what.kind, duration_ms(what)) {
        (NoticeKind::Restored, Some(ms)) => {
            format!("{line} is restored since {at}. It was down for {}, since {down_since}.", duration(ms))
        }
        _ if what.began_before => format!("{line} is down. It was so when it was first heard of, at {at}."),
        _ => format!("{line} is down since {at}."),
    }
}

/// A duration for people: `1 h 12 min`.
pub(crate) fn duration(ms: i64) -> String {
    let seconds = ms.max(0) / 1_000;
    match (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60, seconds % 60) {
        (0, 0, 0, s) => format!("{s} s"),
        (0, 0, m, 0) => format!("{m} min"),
        (0, 0, m, s) => format!("{m} min {s} s"),
        (0, h, m, _) => format!("{h} h {m} min"),
        (d, h, _, _) => format!("{d} d {h} h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sentence_says_what_happened_and_for_how_long() {
        let time = |text| Timestamp::parse(text).unwrap();
        let (from, to) = (time("2026-01-01T00:00:00Z"), time("2026-01-01T01:12:30Z"));
        let what = |kind, at, began_before| NewNotice {
            line: "press 1".into(),
            kind,
            at,
            down_since: from,
            began_before,
        };
        for (what, expected) in [
            (what(NoticeKind::Down, from, false), "press 1 is down since 2026-01-01T00:00:00Z."),
            (
                what(NoticeKind::Down, from, true),
                "press 1 is down. It was so when it was first heard of, at 2026-01-01T00:00:00Z.",
            ),
            (
                what(NoticeKind::Restored, to, false),
                "press 1 is restored since 2026-01-01T01:12:30Z. It was down for 1 h 12 min, since 2026-01-01T00:00:00Z.",
            ),
        ] {
            assert_eq!(text(&what), expected);
        }
    }

    #[test]
    fn durations_are_short_for_people() {
        for (ms, expected) in [
            (0, "0 s"),
            (59_999, "59 s"),
            (60_000, "1 min"),
            (61_000, "1 min 1 s"),
            (3_600_000, "1 h 0 min"),
            (90_000_000, "1 d 1 h"),
        ] {
            assert_eq!(duration(ms), expected);
        }
    }
}
