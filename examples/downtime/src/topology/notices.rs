//! From what has lasted to deliveries.

use std::sync::Arc;
use std::time::Duration;

use galerna_model::Clock;
use galerna_retry::{Outage, Pauses};
use galerna_topology::prelude::*;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::{Senders, TellSettings};
use crate::lists::Lists;
use crate::store::{Claim, Delivery, DeliveryStatus, DowntimeStore, Notice, StoreError};

/// Notices on their way at once.
const AT_ONCE: usize = 64;
/// Before a notice that could not be told is tried again.
const PAUSES: Pauses = Pauses::new(Duration::from_secs(1), Duration::from_secs(300));
/// Between two looks.
const SOON: Duration = Duration::from_millis(20);
/// While the store does not answer.
const STORE_PAUSES: Pauses = Pauses::new(Duration::from_millis(200), Duration::from_secs(10));

/// Emits notices that are to be told; acked, one is told, failed, it is told again later.
pub(super) struct Notices {
    store: Arc<dyn DowntimeStore>,
    /// By which states last.
    clock: Arc<dyn Clock>,
    /// By which claims and pauses end.
    wall: Arc<dyn Clock>,
    settings: TellSettings,
    changed: Arc<Notify>,
    looked: Instant,
    look_at: Instant,
    in_flight: usize,
    outage: Outage,
}

impl Notices {
    pub(super) fn new(
        store: Arc<dyn DowntimeStore>,
        clock: Arc<dyn Clock>,
        wall: Arc<dyn Clock>,
        settings: TellSettings,
        changed: Arc<Notify>,
    ) -> Self {
        let outage = Outage::new("looking for notices", STORE_PAUSES);
        let now = Instant::now();
        Self { store, clock, wall, settings, changed, looked: now, look_at: now, in_flight: 0, outage }
    }

    /// There may be something: soon, but not once for each of many changes.
    fn look_soon(&mut self) {
        self.look_at = self.look_at.min(self.looked + SOON);
    }

    async fn take(&mut self) -> Result<Vec<Notice>, StoreError> {
        let millis = |duration: Duration| i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
        self.store.settle(self.clock.now(), millis(self.settings.hold)).await?;
        let claim = Claim {
            holder: self.settings.holder.clone(),
            now: self.wall.now(),
            lease_ms: millis(self.settings.lease),
            limit: AT_ONCE.saturating_sub(self.in_flight),
        };
        self.store.claim(&claim).await
    }

    /// Does a write, again and again while the store does not answer: what is not written is told again by whoever is next.
    async fn write<F: Future<Output = Result<(), StoreError>>>(&mut self, write: impl Fn() -> F) {
        for _ in 0..5 {
            match write().await {
                Ok(()) => return self.outage.succeeded(),
                Err(error) => tokio::time::sleep(self.outage.failed(&error)).await,
            }
        }
    }
}

impl Spout for Notices {
    type MessageId = Notice;
    type Outputs = Output<Notice>;

    async fn next(&mut self, out: &mut Roots<'_, Self>) -> Result<Next, Fault> {
        if Instant::now() < self.look_at || self.in_flight >= AT_ONCE {
            return Ok(Next::Idle);
        }
        let taken = match self.take().await {
            Ok(taken) => taken,
            Err(error) => {
                self.look_at = Instant::now() + self.outage.failed(&error);
                return Ok(Next::Idle);
            }
        };
        self.outage.succeeded();
        self.looked = Instant::now();
        self.look_at = self.looked + self.settings.every;
        for notice in taken {
            self.in_flight += 1;
            let what = &notice.what;
            let id = format!("{}/{}/{}", what.line, what.kind.as_str(), what.at);
            out.root_with_stable_id(notice.clone(), id).emit(notice);
        }
        Ok(Next::Idle)
    }

    async fn ready(&mut self) {
        if self.in_flight >= AT_ONCE {
            return std::future::pending().await;
        }
        tokio::select! {
            () = tokio::time::sleep_until(self.look_at) => {}
            () = self.changed.notified() => self.look_soon(),
        }
    }

    fn is_full(&self) -> bool {
        self.in_flight >= AT_ONCE
    }

    async fn acked(&mut self, ids: &mut Vec<Notice>) {
        for notice in ids.drain(..) {
            self.in_flight -= 1;
            let store = self.store.clone();
            self.write(|| store.told(notice.seq)).await;
        }
        // The next of the same lines were not taken before these were told.
        self.look_soon();
    }

    async fn failed(&mut self, failed: &mut Vec<Failed<Notice>>) {
        for Failed { id: notice, failure } in failed.drain(..) {
            self.in_flight -= 1;
            let mut backoff = PAUSES.begin();
            let pause = (1..notice.tries.min(32)).fold(backoff.pause(), |_, _| backoff.pause());
            tracing::warn!(
                line = notice.what.line, kind = notice.what.kind.as_str(), attempt = notice.tries, %failure,
                "a notice could not be told; it is tried again"
            );
            let from = self.wall.now().plus_millis(i64::try_from(pause.as_millis()).unwrap_or(i64::MAX));
            let store = self.store.clone();
            self.write(|| store.again(notice.seq, from)).await;
        }
    }
}

/// Finds out whom a notice goes to, once, and emits what was not delivered yet.
#[derive(Clone)]
pub(super) struct Address {
    store: Arc<dyn DowntimeStore>,
    lists: Arc<dyn Lists>,
    senders: Arc<Senders>,
    attempts: u32,
}

impl Address {
    pub(super) fn new(
        store: Arc<dyn DowntimeStore>,
        lists: Arc<dyn Lists>,
        senders: Arc<Senders>,
        attempts: u32,
    ) -> Self {
        Self { store, lists, senders, attempts }
    }
}

impl AsyncBolt for Address {
    type Input = Notice;
    type Outputs = Output<Delivery>;

    async fn execute(&mut self, notice: Notice, out: &mut Emitter<Output<Delivery>>) -> Result<(), Fault> {
        let lists = self.lists.all().await.map_err(StoreError::into_fault)?;
        let recipients = self.senders.recipients(&lists);
        let pending = self.store.plan(&notice, &recipients).await.map_err(StoreError::into_fault)?;
        if notice.tries <= self.attempts {
            pending.into_iter().for_each(|delivery| out.emit(delivery));
            return Ok(());
        }
        let reason = format!(
            "given up after {} attempts; POST /api/v1/deliveries/ID/resend sends it again",
            self.attempts
        );
        for delivery in pending {
            let ended = self.store.ended(&delivery.id, DeliveryStatus::Dead, Some(&reason)).await;
            ended.map_err(StoreError::into_fault)?;
        }
        Ok(())
    }
}
