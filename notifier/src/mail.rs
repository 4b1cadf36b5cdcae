//! Sends deliveries by SMTP.

use std::time::{Duration, UNIX_EPOCH};

use galerna_model::Timestamp;
use galerna_storage::{Delivery, Endpoint, EndpointKind};
use lettre::message::header::{HeaderName, HeaderValue};
use lettre::message::{Mailbox, MultiPart};
use lettre::transport::smtp::AsyncSmtpTransportBuilder;
use lettre::{AsyncSmtpTransport, AsyncTransport, Message, Tokio1Executor};

use crate::attempt::AttemptOutcome;
use crate::{NotifierError, Smtp, template};

/// Sends mail. Each mail has a connection of its own: alerts are few, and a kept connection may be dead.
pub(crate) struct Mailer {
    transport: AsyncSmtpTransport<Tokio1Executor>,
    from: Mailbox,
}

impl Smtp {
    /// Checks address and sender, without a connection.
    ///
    /// # Errors
    /// [`NotifierError::Option`], which says what is wrong with which.
    pub fn check(&self) -> Result<(), NotifierError> {
        self.transport()?;
        self.sender().map(drop)
    }

    fn transport(&self) -> Result<AsyncSmtpTransportBuilder, NotifierError> {
        // The URL is not repeated: it may hold a password.
        AsyncSmtpTransport::<Tokio1Executor>::from_url(&self.url).map_err(|e| {
            NotifierError::Option(format!(
                "smtp.url is wrong: {e}; write for instance smtps://user:password@mail.example.com"
            ))
        })
    }

    fn sender(&self) -> Result<Mailbox, NotifierError> {
        self.from
            .parse()
            .map_err(|e| NotifierError::Option(format!("smtp.from `{}` is no mail address: {e}", self.from)))
    }
}

impl Mailer {
    pub(crate) fn new(smtp: &Smtp, attempt_timeout: Duration) -> Result<Self, NotifierError> {
        galerna_tls::install_default_provider();
        let transport = smtp.transport()?.timeout(Some(attempt_timeout)).build();
        Ok(Self { transport, from: smtp.sender()? })
    }

    /// One attempt.
    pub(crate) async fn send(
        &self,
        endpoint: &Endpoint,
        delivery: &Delivery,
        now: Timestamp,
    ) -> AttemptOutcome {
        let message = match self.message(endpoint, delivery, now) {
            Ok(message) => message,
            Err(error) => return AttemptOutcome::permanent(error),
        };
        match self.transport.send(message).await {
            Ok(response) => AttemptOutcome::Delivered { status: Some(response.code().into()) },
            Err(error) => {
                let status = error.status().map(u16::from);
                let mut text = error.to_string();
                if let Some(cause) = std::error::Error::source(&error) {
                    text = format!("{text}: {cause}");
                }
                if error.is_permanent() {
                    AttemptOutcome::Permanent { status, error: text }
                } else {
                    AttemptOutcome::transient(status, text)
                }
            }
        }
    }

    fn message(&self, endpoint: &Endpoint, delivery: &Delivery, now: Timestamp) -> Result<Message, String> {
        let EndpointKind::Email { to, subject, text, html } = &endpoint.kind else {
            return Err("the endpoint is no mail".to_owned());
        };
        let failed = |field: &'static str| move |e: String| format!("{field}: the template fails: {e}");
        let subject = template::subject(subject.as_deref(), endpoint, delivery).map_err(failed("subject"))?;
        let text = template::text(text.as_deref(), endpoint, delivery).map_err(failed("text"))?;
        let html = template::html(html.as_deref(), endpoint, delivery).map_err(failed("html"))?;
        let sent = Duration::from_millis(u64::try_from(now.as_millis()).unwrap_or(0));
        // The same over all attempts, so that a mail that comes twice can be known as one.
        let id = format!("<{}@{}>", delivery.id, self.from.email.domain());
        let mut message = Message::builder()
            .from(self.from.clone())
            .message_id(Some(id))
            .date(UNIX_EPOCH + sent)
            .subject(subject)
            // Keeps vacation notices away (RFC 3834).
            .raw_header(HeaderValue::new(
                HeaderName::new_from_ascii_str("Auto-Submitted"),
                "auto-generated".to_owned(),
            ));
        for (i, address) in to.iter().enumerate() {
            let mailbox =
                address.parse().map_err(|e| format!("to[{i}]: `{address}` is no mail address: {e}"))?;
            message = message.to(mailbox);
        }
        message
            .multipart(MultiPart::alternative_plain_html(text, html))
            .map_err(|e| format!("the mail cannot be built: {e}"))
    }
}
