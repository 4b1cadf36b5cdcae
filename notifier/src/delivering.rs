//! From the outbox to the endpoints.
//!
//! A delivery is claimed, attempted, and what came of it is written down: in this order, so a crash between attempt and
//! record sends it again, under the same id. An attempt begins only while its claim lasts, by this process's monotonic clock,
//! and ends (by its timeout) before the claim does; others wait for the end of the claim.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use galerna_storage::{Attempt, Claim, Delivery, DeliveryFilter, DeliveryStatus, Endpoint, StorageError};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::attempt::AttemptOutcome;
use crate::due::Decision;
use crate::hold::disabled;
use crate::intake::suppress;
use crate::notifier::Shared;

/// Most attempts that are kept of one delivery.
const KEPT_ATTEMPTS: usize = 50;
/// How often the outbox is counted, and deliveries are freed that a crash left waiting.
const SWEEP_EVERY: Duration = Duration::from_secs(10);
/// Wait between attempts to record what an attempt came to.
const RECORD_PAUSE: Duration = Duration::from_millis(200);

/// Attempts under way, by endpoint.
#[derive(Default)]
struct UnderWay {
    tasks: JoinSet<()>,
    endpoints: HashMap<tokio::task::Id, String>,
}

impl UnderWay {
    fn busy(&self, at_least: usize) -> Vec<String> {
        let mut counts: HashMap<&str, usize> = HashMap::new();
        for endpoint in self.endpoints.values() {
            *counts.entry(endpoint).or_default() += 1;
        }
        let busy = counts.into_iter().filter(|(_, count)| *count >= at_least);
        busy.map(|(endpoint, _)| endpoint.to_owned()).collect()
    }

    /// Waits for one to end; for ever when there is none.
    async fn ended(&mut self) {
        match self.tasks.join_next_with_id().await {
            Some(Ok((id, ()))) => {
                self.endpoints.remove(&id);
            }
            Some(Err(error)) => {
                self.endpoints.remove(&error.id());
                tracing::error!(%error, "an attempt ended badly; it is made again when its claim has run out");
            }
            None => std::future::pending().await,
        }
    }
}

impl Shared {
    /// Delivers until it is told to stop, then waits for the attempts under way.
    pub(crate) async fn deliver(self: Arc<Self>, stop: &CancellationToken) {
        let mut under_way = UnderWay::default();
        let mut swept: Option<Instant> = None;
        while !stop.is_cancelled() {
            if swept.is_none_or(|at| at.elapsed() >= SWEEP_EVERY) {
                self.sweep().await;
                swept = Some(Instant::now());
            }
            let room = self.options.in_flight.saturating_sub(under_way.tasks.len());
            if room > 0 && self.claim(room, &mut under_way).await {
                continue;
            }
            tokio::select! {
                () = stop.cancelled() => {}
                () = self.wake.notified() => {}
                () = sleep(self.options.poll) => {}
                () = under_way.ended() => {}
            }
        }
        let all = async {
            while !under_way.tasks.is_empty() {
                under_way.ended().await;
            }
        };
        if timeout(self.options.drain, all).await.is_err() {
            tracing::warn!("attempts are abandoned; they are made again when their claims have run out");
        }
    }

    /// Begins attempts of what is due; says whether there was anything.
    async fn claim(self: &Arc<Self>, room: usize, under_way: &mut UnderWay) -> bool {
        let per_endpoint = self.options.per_endpoint;
        let claim = Claim {
            notifier: self.options.name.clone(),
            now: self.clock.now(),
            lease_ms: u64::try_from(self.options.lease.as_millis()).unwrap_or(u64::MAX),
            limit: room,
            per_endpoint,
            except: under_way.busy(per_endpoint),
        };
        // Counted from before the claim: it does not last longer than others think.
        let until = Instant::now() + self.options.lease;
        let claimed = match self.store.notifications.claim(&claim).await {
            Ok(claimed) => claimed,
            Err(error) => {
                self.store_failed(&error, "deliveries cannot be claimed now");
                return false;
            }
        };
        let any = !claimed.is_empty();
        for delivery in claimed {
            let endpoint = delivery.endpoint.clone();
            let this = Arc::clone(self);
            let task = under_way.tasks.spawn(async move {
                this.metrics.in_flight.inc();
                this.attempt(delivery, until).await;
                this.metrics.in_flight.dec();
            });
            under_way.endpoints.insert(task.id(), endpoint);
        }
        any
    }

    async fn sweep(&self) {
        let outbox = &self.store.notifications;
        match outbox.unblock().await {
            Ok(0) => {}
            Ok(freed) => tracing::info!(freed, "deliveries had waited for some that have ended"),
            Err(error) => self.store_failed(&error, "the outbox cannot be looked through now"),
        }
        let keep = i64::try_from(self.options.keep.as_millis()).unwrap_or(i64::MAX);
        if let Err(error) = outbox.forget(self.clock.now().plus_millis(-keep)).await {
            self.store_failed(&error, "old deliveries cannot be forgotten now");
        }
        match outbox.deliveries(&DeliveryFilter::default(), 0, 0).await {
            Ok(page) => self.metrics.set_outbox(&page.counts),
            Err(error) => self.store_failed(&error, "the outbox cannot be counted now"),
        }
    }

    async fn attempt(&self, mut delivery: Delivery, until: Instant) {
        let endpoint = match self.store.notifications.endpoint(&delivery.endpoint).await {
            Ok(endpoint) => endpoint,
            Err(error) => {
                // Tried again when the claim has run out.
                self.store_failed(&error, "an endpoint cannot be read now");
                return;
            }
        };
        let Some(endpoint) = endpoint else {
            let id = delivery.endpoint.clone();
            self.give_up(&mut delivery, format!("there is no endpoint `{id}` any more"));
            return self.record(delivery, until, "none").await;
        };
        let kind = endpoint.kind.name();
        // A disabled one may be tried out.
        if !endpoint.enabled && !delivery.test {
            self.give_up(&mut delivery, disabled(endpoint.disabled_reason.as_deref()));
            return self.record(delivery, until, kind).await;
        }
        let part = match self.recheck(&mut delivery).await {
            Ok(Decision::Send) => None,
            Ok(Decision::Part(events)) => Some(Delivery { events, ..delivery.clone() }),
            Ok(Decision::Later(due)) => {
                delivery.next_try = due;
                return self.record(delivery, until, kind).await;
            }
            Ok(Decision::Never(reason)) => {
                suppress(&mut delivery, reason, self.clock.now());
                return self.record(delivery, until, kind).await;
            }
            Ok(Decision::Changed) => return,
            Err(error) => {
                self.store_failed(&error, "what a delivery depends on cannot be read now");
                return;
            }
        };
        let longest = self.options.attempt_timeout;
        if Instant::now() + longest >= until {
            tracing::warn!(delivery = %delivery.id, "the claim is nearly over before the attempt: left to the next");
            return;
        }
        let began = Instant::now();
        let sent = self.senders.send(&endpoint, part.as_ref().unwrap_or(&delivery), self.clock.now());
        let sent = timeout(longest, sent).await;
        let took = began.elapsed();
        let outcome =
            sent.unwrap_or_else(|_| AttemptOutcome::transient(None, format!("no answer within {longest:?}")));
        self.metrics.attempts.with_label_values(&[kind, outcome.name()]).inc();
        self.metrics.attempt_seconds.with_label_values(&[kind]).observe(took.as_secs_f64());
        if let AttemptOutcome::Gone { error, .. } = &outcome {
            self.disable(&endpoint, error).await;
        }
        self.record_outcome(&mut delivery, outcome, took);
        self.record(delivery, until, kind).await;
    }

    /// Disables an endpoint that wants no more.
    async fn disable(&self, endpoint: &Endpoint, error: &str) {
        let reason = format!("it {error} at {}; enable it again when it is there again", self.clock.now());
        match self.store.notifications.disable_endpoint(endpoint, &reason).await {
            Ok(true) => {
                self.metrics.disabled.inc();
                tracing::error!(endpoint = %endpoint.id, error, "an endpoint is gone and was disabled");
            }
            Ok(false) => {}
            Err(error) => self.store_failed(&error, "an endpoint cannot be disabled now"),
        }
    }

    /// What an attempt's outcome makes of the delivery.
    fn record_outcome(&self, delivery: &mut Delivery, outcome: AttemptOutcome, took: Duration) {
        let now = self.clock.now();
        let retry = &self.options.retry;
        delivery.tries += 1;
        let age = Duration::from_millis(u64::try_from(now.millis_since(delivery.since)).unwrap_or(0));
        let (status, error) = match outcome {
            AttemptOutcome::Delivered { status } => {
                delivery.status = DeliveryStatus::Delivered;
                delivery.ended = Some(now);
                (status, None)
            }
            AttemptOutcome::Gone { status, error } => {
                self.give_up(delivery, format!("gone: {error}"));
                (Some(status), Some(error))
            }
            AttemptOutcome::Permanent { status, error } => {
                self.give_up(delivery, error.clone());
                (status, Some(error))
            }
            AttemptOutcome::Transient { status, error, retry_after } => {
                let last = if delivery.test { 1 } else { retry.attempts };
                if delivery.tries >= last {
                    self.give_up(delivery, format!("given up after attempt {}: {error}", delivery.tries));
                } else if age >= retry.max_age {
                    self.give_up(delivery, format!("given up after {age:?}: {error}"));
                } else {
                    let asked = retry_after.unwrap_or_default().min(retry.max_age);
                    let wait = retry.wait_after(delivery.tries, fastrand::f64()).max(asked);
                    delivery.next_try = now.plus_millis(i64::try_from(wait.as_millis()).unwrap_or(i64::MAX));
                }
                (status, Some(error))
            }
        };
        let took_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        for origin in delivery.events.iter().filter_map(|event| event.origin.as_deref()) {
            let (endpoint, tries) = (&delivery.endpoint, delivery.tries);
            let answer = status.map_or(String::new(), |status| format!(", status {status}"));
            match &error {
                None => tracing::trace!(
                    target: "galerna::trace::notifier",
                    id = origin,
                    "delivered to endpoint {endpoint} by attempt {tries} of {}{answer}",
                    delivery.id,
                ),
                Some(error) => tracing::trace!(
                    target: "galerna::trace::notifier",
                    id = origin,
                    failed = true,
                    "failed: delivery {} to endpoint {endpoint}, attempt {tries}{answer}: {error}",
                    delivery.id,
                ),
            }
        }
        delivery.attempts.push(Attempt { at: now, status, error, took_ms });
        let surplus = delivery.attempts.len().saturating_sub(KEPT_ATTEMPTS);
        delivery.attempts.drain(..surplus);
    }

    fn give_up(&self, delivery: &mut Delivery, reason: String) {
        tracing::warn!(delivery = %delivery.id, endpoint = %delivery.endpoint, reason, "a delivery was given up");
        delivery.status = DeliveryStatus::Dead;
        delivery.reason = Some(reason);
        delivery.ended = Some(self.clock.now());
    }

    /// Writes down what came of an attempt, trying for as long as the claim lasts.
    async fn record(&self, mut delivery: Delivery, until: Instant, kind: &str) {
        delivery.claimed_by = None;
        delivery.claimed_until = None;
        loop {
            match self.store.notifications.update(&delivery).await {
                Ok(true) => {
                    if delivery.status != DeliveryStatus::Pending {
                        self.metrics.ended.with_label_values(&[kind, delivery.status.as_str()]).inc();
                    }
                    if delivery.status == DeliveryStatus::Delivered {
                        let waited = self.clock.now().millis_since(delivery.since).max(0);
                        self.metrics.wait_seconds.observe(waited as f64 / 1000.0);
                    }
                    // What waited for this one may be due.
                    self.wake.notify_one();
                    return;
                }
                Ok(false) => break,
                Err(error @ StorageError::Unavailable { .. }) => {
                    self.store_failed(&error, "what came of an attempt cannot be recorded now");
                    if Instant::now() + RECORD_PAUSE >= until {
                        break;
                    }
                    sleep(RECORD_PAUSE).await;
                }
                Err(error) => {
                    self.store_failed(&error, "what came of an attempt cannot be recorded");
                    break;
                }
            }
        }
        self.metrics.lost_claims.inc();
        tracing::warn!(delivery = %delivery.id, "what came of an attempt was not recorded; it may be sent again");
    }
}
