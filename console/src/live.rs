//! The stream of updates: once a second the numbers that have changed, as `{"<cell>":["text","tone"]}`. Nobody is asked
//! anything while nobody listens, and however many do, the system is looked at once a second.

use std::convert::Infallible;
use std::time::Duration;

use axum::Extension;
use axum::extract::State;
use axum::response::sse::{Event, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use galerna_model::QueueName;

use super::access::Visitor;
use super::cells::{self, Cells};
use super::observer::within_timeout;
use super::problem::Problem;
use super::{Page, Params};

/// How often updates are sent.
const EVERY: Duration = Duration::from_secs(1);
/// A stream ends after so many updates and is opened again, so that a session that has ended is noticed.
const LONGEST: u32 = 600;

struct Listening {
    page: Page,
    queue: Option<QueueName>,
    sent: Cells,
    ticks: tokio::time::Interval,
    left: u32,
    _permit: tokio::sync::OwnedSemaphorePermit,
}

/// `GET /events`
pub(super) async fn events(
    State(page): State<Page>,
    Extension(_): Extension<Visitor>,
    axum::extract::Query(params): Params,
) -> Response {
    let Ok(permit) = page.viewers.clone().try_acquire_owned() else {
        return Problem::Unavailable(
            "too many watch this page; live updates come when one of them leaves".to_owned(),
        )
        .answer(true);
    };
    let queue = params.get("queue").and_then(|name| QueueName::new(name).ok());
    let mut ticks = tokio::time::interval(EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let listening = Listening { page, queue, sent: Cells::default(), ticks, left: LONGEST, _permit: permit };
    let updates = stream::unfold(listening, |mut listening| async move {
        let event = listening.next().await?;
        Some((Ok::<_, Infallible>(event), listening))
    });
    Sse::new(updates).into_response()
}

impl Listening {
    async fn next(&mut self) -> Option<Event> {
        self.left = self.left.checked_sub(1)?;
        let stop = self.page.parts.stop.clone();
        tokio::select! {
            _ = self.ticks.tick() => {}
            () = stop.cancelled() => return None,
        }
        let mut cells = cells::of_snapshot(&*self.page.snapshot().await);
        if let Some(queue) = &self.queue
            && let Ok(view) = within_timeout("the dispatcher", self.page.parts.dispatcher.queue(queue)).await
        {
            cells::of_queue(&mut cells, &view);
        }
        let changed = serde_json::to_string(&cells.since(&self.sent)).unwrap_or_else(|_| "{}".to_owned());
        self.sent = cells;
        // Sent even when nothing changed: who listens so knows that the connection lives.
        Some(Event::default().event("cells").data(changed))
    }
}
