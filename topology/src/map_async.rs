//! Asking something else about each tuple: many calls at once, with a timeout, retries and a rate.

use std::any::Any;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use futures_util::future::{Either, FutureExt, poll_fn, select};
use futures_util::stream::{FuturesOrdered, FuturesUnordered, Stream};
use galerna_lock::Mutex;

use crate::anchor::Anchor;
use crate::bolt::AsyncBolt;
use crate::context::{Clock, TaskContext};
use crate::emitter::Emitter;
use crate::failure::{FailureKind, Fault, FaultKind};
use crate::outputs::{Data, Output};

/// How [`map_async`](crate::TopologyBuilder::map_async) makes its calls.
///
/// A number alone is so many calls at once and nothing else: no timeout, no retries, no rate, and results as they come.
///
/// ```
/// use std::time::Duration;
/// use galerna_topology::Calls;
///
/// let calls = Calls::at_once(16)
///     .timeout(Duration::from_secs(2))
///     .retries(4, Duration::from_millis(100), Duration::from_secs(5))
///     .per_second(200.0)
///     .ordered();
/// ```
#[derive(Debug, Clone, PartialEq)]
#[must_use]
pub struct Calls {
    at_once: usize,
    timeout: Option<Duration>,
    retries: u32,
    pauses: (Duration, Duration),
    interval: Option<Duration>,
    ordered: bool,
}

impl Calls {
    /// At most so many at once in each task; at least one. A tuple that waits for its next try counts.
    pub fn at_once(calls: usize) -> Self {
        Self {
            at_once: calls.max(1),
            timeout: None,
            retries: 0,
            pauses: (Duration::ZERO, Duration::ZERO),
            interval: None,
            ordered: false,
        }
    }

    /// How long one try may take. One that takes longer is dropped and has failed as
    /// [transient](FaultKind::Transient).
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// How often a call that failed is tried again, after pauses that grow from `first` to `longest`, each cut by a
    /// random part of up to a half. What is [permanent](FaultKind::Permanent) is not tried again.
    ///
    /// Meanwhile the tuple does not time out: its message timeout starts anew with every try.
    pub fn retries(mut self, retries: u32, first: Duration, longest: Duration) -> Self {
        self.retries = retries;
        self.pauses = (first, longest.max(first));
        self
    }

    /// At most so many tries a second, evenly spaced, over all tasks of the component in this process. Not
    /// positive is no limit.
    ///
    /// A tuple's message timeout runs on while it waits for its first try. So give [`at_once`](Self::at_once) no more than the
    /// rate lets through in that time, over all tasks: further tuples would time out, and their calls be made in vain.
    pub fn per_second(mut self, tries: f64) -> Self {
        let interval = |seconds| Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX);
        self.interval = (tries > 0.0).then(|| interval(tries.recip())).filter(|interval| !interval.is_zero());
        self
    }

    /// Results are emitted in the order in which the tuples came, in each task, and not as the calls end. One slow
    /// call then holds up the results after it.
    pub fn ordered(mut self) -> Self {
        self.ordered = true;
        self
    }

    fn backoff(&self) -> ExponentialBackoff {
        // The random part is added to each delay and at most as long as it: so the delays are half of the pauses.
        ExponentialBuilder::new()
            .with_min_delay(self.pauses.0 / 2)
            .with_max_delay(self.pauses.1 / 2)
            .with_factor(2.0)
            .without_max_times()
            .with_jitter()
            .build()
    }
}

impl From<usize> for Calls {
    fn from(at_once: usize) -> Self {
        Self::at_once(at_once)
    }
}

/// When the next try of any task may begin.
#[derive(Debug, Default)]
pub(crate) struct Turns {
    next: Mutex<Duration>,
}

impl Turns {
    /// Takes the next turn, and waits for it.
    async fn wait(&self, interval: Duration, clock: &dyn Clock) {
        let turn = {
            let mut next = self.next.lock();
            let turn = clock.now().max(*next);
            *next = turn.saturating_add(interval);
            turn
        };
        if turn > clock.now() {
            clock.sleep_until(turn).await;
        }
    }
}

/// A call that has ended: the tuple, and what it got or why it failed.
type Ended<U> = (Anchor, Result<U, (FailureKind, Fault)>);

type Call<U> = Pin<Box<dyn Future<Output = Ended<U>> + Send>>;

/// The calls under way.
enum UnderWay<U> {
    AsTheyEnd(FuturesUnordered<Call<U>>),
    InOrder(FuturesOrdered<Call<U>>),
}

impl<U> UnderWay<U> {
    fn len(&self) -> usize {
        match self {
            Self::AsTheyEnd(calls) => calls.len(),
            Self::InOrder(calls) => calls.len(),
        }
    }

    fn push(&mut self, call: Call<U>) {
        match self {
            Self::AsTheyEnd(calls) => calls.push(call),
            Self::InOrder(calls) => calls.push_back(call),
        }
    }

    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Ended<U>>> {
        match self {
            Self::AsTheyEnd(calls) => Pin::new(calls).poll_next(context),
            Self::InOrder(calls) => Pin::new(calls).poll_next(context),
        }
    }
}

/// Emits what a call about each tuple gives.
pub(crate) struct MapAsync<I, U, F> {
    call: F,
    calls: Calls,
    turns: Arc<Turns>,
    context: Option<TaskContext>,
    under_way: UnderWay<U>,
    marker: std::marker::PhantomData<fn(I)>,
}

impl<I, U, F> MapAsync<I, U, F> {
    pub(crate) fn new(call: F, calls: Calls, turns: Arc<Turns>) -> Self {
        let under_way = match calls.ordered {
            true => UnderWay::InOrder(FuturesOrdered::new()),
            false => UnderWay::AsTheyEnd(FuturesUnordered::new()),
        };
        Self { call, calls, turns, context: None, under_way, marker: std::marker::PhantomData }
    }
}

impl<I, U: Data, F> MapAsync<I, U, F> {
    fn take(ended: Ended<U>, out: &mut Emitter<Output<U>>) {
        let (anchor, result) = ended;
        match result {
            Ok(value) => {
                out.emit_anchored(value, [&anchor]);
                anchor.ack();
            }
            Err((kind, fault)) => anchor.fail_as(kind, fault),
        }
    }

    /// Waits until calls have ended, if any are under way, and takes all that have. Cancel-safe.
    async fn take_some(&mut self, out: &mut Emitter<Output<U>>) {
        let mut ended = Vec::new();
        poll_fn(|context| {
            loop {
                match self.under_way.poll_next(context) {
                    Poll::Ready(Some(one)) => ended.push(one),
                    Poll::Pending if ended.is_empty() => return Poll::Pending,
                    Poll::Ready(None) | Poll::Pending => return Poll::Ready(()),
                }
            }
        })
        .await;
        ended.into_iter().for_each(|one| Self::take(one, out));
    }

    /// Moves all calls on, and takes those that have ended.
    async fn take_ended(&mut self, out: &mut Emitter<Output<U>>) {
        let mut ended = Vec::new();
        poll_fn(|context| {
            while let Poll::Ready(Some(one)) = self.under_way.poll_next(context) {
                ended.push(one);
            }
            Poll::Ready(())
        })
        .await;
        ended.into_iter().for_each(|one| Self::take(one, out));
    }
}

impl<I, U, F, C, E> AsyncBolt for MapAsync<I, U, F>
where
    I: Data,
    U: Data,
    F: Fn(I) -> C + Clone + Send + Sync + 'static,
    C: Future<Output = Result<U, E>> + Send + 'static,
    E: Into<Fault> + Send + 'static,
{
    type Input = I;
    type Outputs = Output<U>;

    async fn prepare(&mut self, context: &TaskContext) -> Result<(), Fault> {
        self.context = Some(context.clone());
        Ok(())
    }

    async fn execute(&mut self, input: I, out: &mut Emitter<Output<U>>) -> Result<(), Fault> {
        // Waiting here is what holds the topology back.
        while self.under_way.len() >= self.calls.at_once {
            self.take_some(out).await;
        }
        let anchor = out.keep();
        let tries = Tries {
            call: self.call.clone(),
            calls: self.calls.clone(),
            turns: self.turns.clone(),
            context: out.context().clone(),
        };
        self.under_way.push(Box::pin(tries.run(input, anchor)));
        // A call begins when it is first polled.
        self.take_ended(out).await;
        Ok(())
    }

    async fn progress(&mut self, out: &mut Emitter<Output<U>>) -> Result<(), Fault> {
        if self.under_way.len() == 0 {
            std::future::pending::<()>().await;
        }
        self.take_some(out).await;
        Ok(())
    }

    async fn drain(&mut self, out: &mut Emitter<Output<U>>) {
        while self.under_way.len() > 0 {
            self.take_some(out).await;
        }
    }
}

/// The tries of one call.
struct Tries<F> {
    call: F,
    calls: Calls,
    turns: Arc<Turns>,
    context: TaskContext,
}

impl<F> Tries<F> {
    async fn run<I, U, C, E>(self, input: I, anchor: Anchor) -> Ended<U>
    where
        I: Clone,
        F: Fn(I) -> C,
        C: Future<Output = Result<U, E>>,
        E: Into<Fault>,
    {
        // Whatever panics costs its own tuple and none of those beside it: also a tuple that is dropped.
        let ended = AssertUnwindSafe(self.try_all(input, &anchor)).catch_unwind().await;
        (anchor, ended.unwrap_or_else(panicked))
    }

    async fn try_all<I, U, C, E>(self, input: I, anchor: &Anchor) -> Result<U, (FailureKind, Fault)>
    where
        I: Clone,
        F: Fn(I) -> C,
        C: Future<Output = Result<U, E>>,
        E: Into<Fault>,
    {
        let mut backoff = self.calls.backoff();
        let mut left = self.calls.retries;
        // By what the message is known outside, if anybody listens.
        let told = tracing::enabled!(target: "galerna::trace::call", tracing::Level::TRACE);
        let message = told.then(|| anchor.stable_id()).flatten();
        loop {
            if let Some(interval) = self.calls.interval {
                self.turns.wait(interval, &**self.context.clock()).await;
            }
            let began = self.context.clock().now();
            // The tuple's `Clone`, the closure, the call, and the error's `Display` are the author's code.
            let ended = match catch_unwind(AssertUnwindSafe(|| input.clone())) {
                Ok(input) => AssertUnwindSafe(self.try_once(input)).catch_unwind().await,
                Err(panic) => Err(panic),
            };
            let ended = ended.unwrap_or_else(panicked);
            if let Some(id) = &message {
                self.tell(id, self.context.clock().now().saturating_sub(began), ended.as_ref().err());
            }
            let (kind, fault) = match ended {
                Ok(value) => return Ok(value),
                Err(failed) => failed,
            };
            if left == 0 || kind == FailureKind::Panic || fault.kind() == FaultKind::Permanent {
                return Err((kind, fault));
            }
            left -= 1;
            anchor.reset_timeout();
            self.context.sleep(backoff.next().unwrap_or(self.calls.pauses.1)).await;
            anchor.reset_timeout();
        }
    }

    /// A step in the history of a message.
    fn tell(&self, id: &str, took: Duration, failed: Option<&(FailureKind, Fault)>) {
        let place = self.context.component();
        match failed {
            None => tracing::trace!(target: "galerna::trace::call", id, place, "done in {took:?}"),
            Some((_, fault)) => {
                tracing::trace!(target: "galerna::trace::call", id, place, failed = true, "failed after {took:?}: {fault}");
            }
        }
    }

    async fn try_once<I, U, C, E>(&self, input: I) -> Result<U, (FailureKind, Fault)>
    where
        F: Fn(I) -> C,
        C: Future<Output = Result<U, E>>,
        E: Into<Fault>,
    {
        let call = pin!((self.call)(input));
        let ended = match self.calls.timeout {
            None => call.await,
            Some(timeout) => match select(call, self.context.sleep(timeout)).await {
                Either::Left((ended, _)) => ended,
                Either::Right(_) => {
                    let fault = Fault::transient(format!("no answer within {timeout:?}"));
                    return Err((FailureKind::Error, fault));
                }
            },
        };
        ended.map_err(|error| (FailureKind::Error, error.into()))
    }
}

/// What a panic is to a call.
fn panicked<U>(panic: Box<dyn Any + Send>) -> Result<U, (FailureKind, Fault)> {
    Err((FailureKind::Panic, Fault::panicked(&*panic)))
}
