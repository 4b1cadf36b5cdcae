//! Requests for leases that travel together.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use galerna_lock::Mutex;
use galerna_model::QueueName;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout};

use crate::protocol::{GrantedLease, LeaseError, Leases, NextRequest, Release, Renewed};

/// Requests made while another is under way wait for its answer no longer than this.
const GROUP_DELAY: Duration = Duration::from_millis(5);
/// Leases that one request asks for, at most.
const MOST_LEASES: usize = 256;

/// Joins the requests of one consumer's tasks: what they ask for at the same moment goes to the dispatcher in one request, with
/// all that they give back.
///
/// A worker has a task for each queue that it consumes, each of which asks for its next lease by itself. Over HTTP a request costs
/// more than the lease that it is about, so those who ask while a request is under way wait for its answer, for 5 ms
/// at most, and then ask together. Whoever asks while none is under way asks at once.
///
/// Each lease of an answer is given to one caller; one whose caller is gone is given to another, or back. Callers that get none stay,
/// for as long as they are willing to wait, and are part of the next request.
///
/// [`NextRequest::request`] and [`NextRequest::retry`] of callers are not passed on: a request that had no answer is made
/// again, under the id that it had, by those who ask next, and the leases that it was granted are shared out among them.
///
/// ```
/// use std::sync::Arc;
/// use galerna_lease::{GroupedLeases, Leases};
///
/// fn for_many_tasks(dispatcher: Arc<dyn Leases>) -> Arc<dyn Leases> {
///     Arc::new(GroupedLeases::new(dispatcher))
/// }
/// ```
pub struct GroupedLeases(Arc<Shared>);

struct Shared {
    inner: Arc<dyn Leases>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Caller>,
    /// A task sends what waits.
    sending: bool,
    /// Ids of requests whose answers never came. They may have been granted leases.
    unanswered: Vec<String>,
}

/// Who asks for leases.
struct Caller {
    consumer: String,
    count: usize,
    release: Vec<Release>,
    wait_until: Instant,
    answer: oneshot::Sender<Result<Vec<GrantedLease>, LeaseError>>,
}

impl GroupedLeases {
    /// Joins requests to `inner`.
    pub fn new(inner: Arc<dyn Leases>) -> Self {
        Self(Arc::new(Shared { inner, state: Mutex::default() }))
    }
}

#[async_trait]
impl Leases for GroupedLeases {
    async fn next(&self, request: NextRequest) -> Result<Vec<GrantedLease>, LeaseError> {
        let (answer, receiver) = oneshot::channel();
        self.0.submit([Caller {
            consumer: request.consumer,
            count: request.count.clamp(1, MOST_LEASES),
            release: request.release,
            wait_until: Instant::now() + request.wait,
            answer,
        }]);
        let mut answer = Answer { shared: Arc::clone(&self.0), receiver };
        (&mut answer.receiver)
            .await
            .unwrap_or_else(|_| Err(LeaseError::Unavailable("the request was given up".to_owned())))
    }

    async fn renew(&self, queue: &QueueName, epoch: u64) -> Result<Renewed, LeaseError> {
        self.0.inner.renew(queue, epoch).await
    }

    async fn release(&self, release: &Release) -> Result<(), LeaseError> {
        self.0.inner.release(release).await
    }
}

/// Waits for an answer. Leases that nobody looked at are given back when it is dropped.
struct Answer {
    shared: Arc<Shared>,
    receiver: oneshot::Receiver<Result<Vec<GrantedLease>, LeaseError>>,
}

impl Drop for Answer {
    fn drop(&mut self) {
        self.receiver.close();
        if let Ok(Ok(leases)) = self.receiver.try_recv() {
            self.shared.give_back(leases);
        }
    }
}

impl Shared {
    fn submit(self: &Arc<Self>, callers: impl IntoIterator<Item = Caller>) {
        let mut state = self.state.lock();
        state.waiting.extend(callers);
        if !state.waiting.is_empty() && !std::mem::replace(&mut state.sending, true) {
            tokio::spawn(Arc::clone(self).send());
        }
    }

    /// Sends what waits, and what comes meanwhile.
    async fn send(self: Arc<Self>) {
        loop {
            // Those who were woken by the same event ask in the same request.
            tokio::task::yield_now().await;
            let Some((group, unanswered)) = self.take() else { return };
            let asking = tokio::spawn(Arc::clone(&self).ask(group, unanswered));
            // Answered or not: a request that waits for a queue does not hold up others.
            drop(timeout(GROUP_DELAY, asking).await);
        }
    }

    /// The callers of the next request, all of one consumer, and the id of one that had no answer.
    fn take(&self) -> Option<(Vec<Caller>, Option<String>)> {
        let mut state = self.state.lock();
        let mut group: Vec<Caller> = Vec::new();
        let mut count = 0;
        while let Some(caller) = state.waiting.front() {
            let first = group.first().map_or(&caller.consumer, |first| &first.consumer);
            if *first != caller.consumer || count + caller.count > MOST_LEASES {
                break;
            }
            count += caller.count;
            group.extend(state.waiting.pop_front());
        }
        if group.is_empty() {
            state.sending = false;
            return None;
        }
        Some((group, state.unanswered.pop()))
    }

    /// Makes one request for all of a group, and answers them.
    async fn ask(self: Arc<Self>, mut group: Vec<Caller>, unanswered: Option<String>) {
        let release: Vec<Release> = group.iter_mut().flat_map(|c| std::mem::take(&mut c.release)).collect();
        // Who is gone needs no lease, yet what it gives back is given back.
        group.retain(|caller| !caller.answer.is_closed());
        let now = Instant::now();
        let wait = group.iter().map(|c| c.wait_until.saturating_duration_since(now)).min();
        let Some(first) = group.first() else {
            for release in &release {
                // It ends by itself when this fails.
                drop(self.inner.release(release).await);
            }
            return self.state.lock().unanswered.extend(unanswered);
        };
        let retry = unanswered.is_some();
        let id = unanswered.unwrap_or_else(|| format!("{:032x}", fastrand::u128(..)));
        let request = NextRequest {
            consumer: first.consumer.clone(),
            wait: wait.unwrap_or_default(),
            count: group.iter().map(|c| c.count).sum(),
            release,
            request: Some(id.clone()),
            retry,
        };
        match self.inner.next(request).await {
            Ok(leases) => self.share_out(group, leases),
            Err(error) => {
                // Who is stopped has granted nothing, unless an earlier try was.
                if retry || !matches!(error, LeaseError::Stopped) {
                    self.state.lock().unanswered.push(id);
                }
                for caller in group {
                    // The caller may be gone; so below.
                    drop(caller.answer.send(Err(same(&error))));
                }
            }
        }
    }

    /// Gives each lease to one caller, in the order in which they asked.
    fn share_out(self: &Arc<Self>, group: Vec<Caller>, leases: Vec<GrantedLease>) {
        let none = leases.is_empty();
        let mut leases = VecDeque::from(leases);
        let mut others = Vec::new();
        let now = Instant::now();
        for caller in group {
            if caller.answer.is_closed() {
                continue;
            }
            // When there was nothing for anybody, the callers decide how soon they ask again.
            if leases.is_empty() && !none && now < caller.wait_until {
                others.push(caller);
                continue;
            }
            let share = leases.drain(..caller.count.min(leases.len())).collect();
            if let Err(Ok(back)) = caller.answer.send(Ok(share)) {
                back.into_iter().rev().for_each(|lease| leases.push_front(lease));
            }
        }
        self.give_back(leases);
        self.submit(others);
    }

    /// Gives leases back that nobody wants.
    fn give_back(self: &Arc<Self>, leases: impl IntoIterator<Item = GrantedLease>) {
        let leases: Vec<GrantedLease> = leases.into_iter().collect();
        // Without a runtime, at the end of the process, they expire by themselves.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        if leases.is_empty() {
            return;
        }
        let shared = Arc::clone(self);
        runtime.spawn(async move {
            for GrantedLease { queue, epoch, .. } in leases {
                // It expires by itself when this fails.
                drop(shared.inner.release(&Release { queue, epoch, empty: false }).await);
            }
        });
    }
}

/// The same error once more, for another caller.
fn same(error: &LeaseError) -> LeaseError {
    match error {
        LeaseError::Stopped => LeaseError::Stopped,
        LeaseError::StaleEpoch { queue, epoch } => {
            LeaseError::StaleEpoch { queue: queue.clone(), epoch: *epoch }
        }
        LeaseError::UnknownQueue(queue) => LeaseError::UnknownQueue(queue.clone()),
        LeaseError::Unavailable(cause) => LeaseError::Unavailable(cause.clone()),
        LeaseError::Refused(cause) => LeaseError::Refused(cause.clone()),
    }
}

#[cfg(test)]
#[path = "grouped_tests.rs"]
mod tests;
