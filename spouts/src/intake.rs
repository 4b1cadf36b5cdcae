//! What other parts of the process hand in, each answered when its root has ended.

use std::fmt;
use std::sync::Arc;

use galerna_topology::{Data, Failed, Failure, Fault, Next, Output, Roots, Spout};
use tokio::sync::{Mutex, mpsc, oneshot};

/// The two ends of an intake: the handle that takes values and the spout that emits them. Up to `waiting` values wait for the spout.
///
/// A value is answered when its whole tree has been acked, or has failed: so an HTTP handler that answers 2xx after
/// [`Intake::submit`] has answered for what the topology did with the request.
///
/// ```
/// use galerna_spouts::intake;
/// use galerna_topology::TopologyBuilder;
///
/// let (intake, spout) = intake::<String>(1_000);
/// let mut topology = TopologyBuilder::new("orders");
/// let orders = topology.spout("intake", spout).outputs();
/// topology.for_each("print", |order: String| println!("{order}")).shuffle(&orders);
/// topology.build().unwrap();
/// // While it runs: intake.submit("coffee".to_owned()).await
/// # drop(intake);
/// ```
pub fn intake<T: Data>(waiting: usize) -> (Intake<T>, IntakeSpout<T>) {
    let (sender, receiver) = mpsc::channel(waiting.max(1));
    (Intake { sender }, IntakeSpout { receiver: Arc::new(Mutex::new(receiver)), next: None, closed: false })
}

struct Submitted<T> {
    value: T,
    answer: oneshot::Sender<Result<(), Failure>>,
}

/// Takes values for a topology. Clones are handles of the same intake.
pub struct Intake<T> {
    sender: mpsc::Sender<Submitted<T>>,
}

impl<T> Clone for Intake<T> {
    fn clone(&self) -> Self {
        Self { sender: self.sender.clone() }
    }
}

impl<T> fmt::Debug for Intake<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Intake").field("room", &self.sender.capacity()).finish_non_exhaustive()
    }
}

/// Why what was handed in is not known to be done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IntakeError {
    /// As many wait as may; it was not taken. Hand it in again later.
    #[error("as much waits as may wait; hand it in again later")]
    Full,
    /// The topology has ended, or ends before it was done. It may have been done.
    #[error("the topology has ended")]
    Closed,
    /// Its tree failed.
    #[error("{0}")]
    Failed(Failure),
}

impl<T: Data> Intake<T> {
    /// Hands in a value, and waits until its tree has been acked. It is not emitted again when that fails: its caller does so, or
    /// tells its own.
    ///
    /// Dropping the future takes nothing back.
    ///
    /// # Errors
    /// [`IntakeError`].
    pub async fn submit(&self, value: T) -> Result<(), IntakeError> {
        let (answer, answered) = oneshot::channel();
        self.sender.try_send(Submitted { value, answer }).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => IntakeError::Full,
            mpsc::error::TrySendError::Closed(_) => IntakeError::Closed,
        })?;
        answered.await.map_err(|_| IntakeError::Closed)?.map_err(IntakeError::Failed)
    }
}

/// Emits what is handed in to its [`Intake`], each value as one root. It is done when all handles are gone. Its tasks share what
/// waits.
pub struct IntakeSpout<T> {
    receiver: Arc<Mutex<mpsc::Receiver<Submitted<T>>>>,
    /// What [`Spout::ready`] has taken.
    next: Option<Submitted<T>>,
    closed: bool,
}

impl<T> Clone for IntakeSpout<T> {
    fn clone(&self) -> Self {
        Self { receiver: self.receiver.clone(), next: None, closed: false }
    }
}

impl<T> fmt::Debug for IntakeSpout<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IntakeSpout").field("closed", &self.closed).finish_non_exhaustive()
    }
}

impl<T: Data> Spout for IntakeSpout<T> {
    type MessageId = oneshot::Sender<Result<(), Failure>>;
    type Outputs = Output<T>;

    async fn next(&mut self, out: &mut Roots<'_, Self>) -> Result<Next, Fault> {
        if let Some(Submitted { value, answer }) = self.next.take() {
            out.root(answer).emit(value);
        }
        // Another task may wait for what comes with this lock; then there is nothing.
        if let Ok(mut receiver) = self.receiver.try_lock() {
            while out.room() > 0 {
                match receiver.try_recv() {
                    Ok(Submitted { value, answer }) => out.root(answer).emit(value),
                    Err(mpsc::error::TryRecvError::Empty) => return Ok(Next::Idle),
                    Err(mpsc::error::TryRecvError::Disconnected) => self.closed = true,
                }
                if self.closed {
                    return Ok(Next::Done);
                }
            }
            return Ok(Next::Ready);
        }
        Ok(if self.closed { Next::Done } else { Next::Idle })
    }

    async fn ready(&mut self) {
        if self.next.is_none() && !self.closed {
            self.next = self.receiver.lock().await.recv().await;
            self.closed = self.next.is_none();
        }
    }

    async fn acked(&mut self, ids: &mut Vec<Self::MessageId>) {
        for answer in ids.drain(..) {
            // Who handed it in may have stopped waiting.
            drop(answer.send(Ok(())));
        }
    }

    async fn failed(&mut self, failed: &mut Vec<Failed<Self::MessageId>>) {
        for Failed { id, failure } in failed.drain(..) {
            drop(id.send(Err(failure)));
        }
    }
}
