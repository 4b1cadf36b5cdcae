//! Sends a delivery in the way of its endpoint.

use galerna_model::Severity;
use galerna_model::Timestamp;
use galerna_storage::{Delivery, Endpoint, EndpointKind};

use crate::attempt::AttemptOutcome;
use crate::mail::Mailer;
use crate::webhook::Webhooks;
use crate::{NotifierError, Options, template};

pub(crate) struct Senders {
    webhooks: Webhooks,
    mailer: Option<Mailer>,
}

impl Senders {
    pub(crate) fn new(options: &Options) -> Result<Self, NotifierError> {
        let webhooks = Webhooks::new(options.allow.clone(), options.attempt_timeout)?;
        let mailer =
            options.smtp.as_ref().map(|smtp| Mailer::new(smtp, options.attempt_timeout)).transpose()?;
        Ok(Self { webhooks, mailer })
    }

    /// One attempt.
    pub(crate) async fn send(
        &self,
        endpoint: &Endpoint,
        delivery: &Delivery,
        now: Timestamp,
    ) -> AttemptOutcome {
        match &endpoint.kind {
            EndpointKind::Webhook { .. } => self.webhooks.send(endpoint, delivery, now).await,
            EndpointKind::Email { .. } => match &self.mailer {
                Some(mailer) => mailer.send(endpoint, delivery, now).await,
                None => AttemptOutcome::permanent(
                    "the notifier has no mail server; configure one, then send it again",
                ),
            },
            EndpointKind::Log {} => log(endpoint, delivery),
        }
    }
}

fn log(endpoint: &Endpoint, delivery: &Delivery) -> AttemptOutcome {
    let text = match template::text(None, endpoint, delivery) {
        Ok(text) => text,
        Err(error) => return AttemptOutcome::permanent(error),
    };
    let (endpoint, delivery_id) = (endpoint.id.as_str(), delivery.id.as_str());
    match delivery.events.iter().map(|e| e.severity).max() {
        Some(Severity::Critical) => {
            tracing::error!(target: "galerna::alerts", endpoint, delivery_id, "{text}")
        }
        Some(Severity::Warning) => tracing::warn!(target: "galerna::alerts", endpoint, delivery_id, "{text}"),
        _ => tracing::info!(target: "galerna::alerts", endpoint, delivery_id, "{text}"),
    }
    AttemptOutcome::Delivered { status: None }
}
