//! A store, a broker and a list of accounts that a test sets.
#![allow(dead_code)] // each test binary uses a part of it

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use galerna_broker::{Broker, BrokerError, Depth};
use galerna_directory::{AccountsSource, DirectoryError, Issue, Listing};
use galerna_lease::{QueueEvent, Timing, Transition, transition};
use galerna_lock::Mutex;
use galerna_maintainer::{Maintainer, Options, Report, Run, RunFailure, Task};
use galerna_model::{Account, AccountId, Clock, Message, QueueName, SystemClock};
use galerna_storage::{QueueRecord, QueueState, QueueStates, Swap, Swapped};

/// How long a condition that must come true is waited for.
const DEADLINE: Duration = Duration::from_secs(60);

pub(crate) struct World {
    pub(crate) queues: Arc<dyn QueueStates>,
    pub(crate) broker: Arc<dyn Broker>,
    pub(crate) list: Arc<List>,
    pub(crate) options: Options,
}

/// What the accounts list says, as one line: see [`listing`].
#[derive(Default)]
pub(crate) struct List(Mutex<Said>);

#[derive(Default, Clone)]
enum Said {
    #[default]
    Nothing,
    Accounts(String),
    Error,
    Hangs,
}

impl List {
    pub(crate) fn says(&self, text: &str) {
        *self.0.lock() = Said::Accounts(text.to_owned());
    }

    pub(crate) fn fails(&self) {
        *self.0.lock() = Said::Error;
    }

    pub(crate) fn hangs(&self) {
        *self.0.lock() = Said::Hangs;
    }
}

#[async_trait]
impl AccountsSource for List {
    fn describe(&self) -> String {
        "the test's list".to_owned()
    }

    async fn accounts(&self) -> Result<Listing<Account>, DirectoryError> {
        let said = self.0.lock().clone();
        match said {
            Said::Nothing => Ok(Listing::default()),
            Said::Accounts(text) => Ok(listing(&text)),
            Said::Error => Err(DirectoryError::Status {
                from: "the test's list".to_owned(),
                status: 500,
                body: String::new(),
            }),
            Said::Hangs => std::future::pending().await,
        }
    }
}

/// `a:Qa` an active account `a` with queue `Qa`, `a:Qa-` a deactivated one, `!a:Qa` an entry that is wrong.
pub(crate) fn listing(text: &str) -> Listing<Account> {
    let mut list = Listing::default();
    for entry in text.split_whitespace() {
        let (id, queue) = entry.split_once(':').expect("id:queue");
        if let Some(id) = id.strip_prefix('!') {
            let (id, queue) = (Some(id.to_owned()), Some(queue.to_owned()));
            list.issues.push(Issue { id, queue, problem: "wrong".to_owned() });
        } else {
            list.entries.push(Account {
                id: AccountId::new(id).expect("an account id"),
                name: id.to_owned(),
                queue: name(queue.trim_end_matches('-')),
                active: !queue.ends_with('-'),
            });
        }
    }
    list
}

/// `a0:Q0 a1:Q1 …`
pub(crate) fn numbered(accounts: std::ops::Range<usize>) -> String {
    accounts.map(|n| format!("a{n}:Q{n} ")).collect()
}

pub(crate) fn name(queue: &str) -> QueueName {
    QueueName::new(queue).expect("a queue name")
}

/// Options that suit tests: no waiting for counts to settle, everything short.
pub(crate) fn quick() -> Options {
    Options {
        settle: Duration::ZERO,
        linger: Duration::ZERO,
        timing: Timing::with_lease(Duration::from_millis(500)),
        ..Options::default()
    }
}

impl World {
    pub(crate) fn new(queues: Arc<dyn QueueStates>, broker: Arc<dyn Broker>) -> Self {
        Self { queues, broker, list: Arc::default(), options: quick() }
    }

    pub(crate) fn maintainer(&self) -> Maintainer {
        self.maintainer_at(Arc::new(SystemClock))
    }

    pub(crate) fn maintainer_at(&self, clock: Arc<dyn Clock>) -> Maintainer {
        let (queues, broker) = (Arc::clone(&self.queues), Arc::clone(&self.broker));
        Maintainer::new(queues, broker, self.list.clone(), self.options.clone(), clock)
            .expect("the options are right")
    }

    /// Runs a task by a maintainer of its own.
    pub(crate) async fn run(&self, task: Task) -> Result<Report, RunFailure> {
        self.maintainer().run_once(task, Run::default()).await
    }

    pub(crate) async fn run_ok(&self, task: Task) -> Report {
        self.run(task).await.unwrap_or_else(|failure| panic!("{failure}"))
    }

    pub(crate) async fn force(&self, task: Task) -> Report {
        let run = Run { force: true, ..Run::default() };
        self.maintainer().run_once(task, run).await.unwrap_or_else(|failure| panic!("{failure}"))
    }

    /// Lists accounts and makes their queues.
    pub(crate) async fn with_accounts(&self, text: &str) {
        self.list.says(text);
        let report = self.run_ok(Task::Accounts).await;
        assert_eq!(report.issues, []);
    }

    pub(crate) async fn record(&self, queue: &str) -> Option<QueueRecord> {
        self.queues.get(&name(queue)).await.expect("the store answers")
    }

    pub(crate) async fn state(&self, queue: &str) -> Option<QueueState> {
        self.record(queue).await.map(|record| record.state)
    }

    /// `Qa=idle Qb=delete`, by queue.
    pub(crate) async fn states(&self) -> String {
        let mut records = self.queues.all().await.expect("the store answers");
        records.sort_by(|a, b| a.queue.cmp(&b.queue));
        let states: Vec<_> = records.iter().map(|r| format!("{}={}", r.queue, r.state.as_str())).collect();
        states.join(" ")
    }

    /// Changes a state as a dispatcher would.
    pub(crate) async fn apply(&self, queue: &str, event: QueueEvent) -> QueueRecord {
        let record = self.record(queue).await.expect("the queue has a state");
        let now = SystemClock.now();
        match transition(&record, &event, now, &self.options.timing).expect("the event is accepted") {
            Transition::Unchanged => record,
            Transition::To(next) => {
                let swap = Swap { expected: record.version, record: *next };
                let swapped = self.queues.swap(std::slice::from_ref(&swap)).await.expect("the store answers");
                assert_eq!(swapped, [Swapped::Done]);
                swap.record
            }
        }
    }

    pub(crate) async fn lease(&self, queue: &str) -> QueueRecord {
        self.apply(queue, QueueEvent::Lease { consumer: "worker".to_owned(), request: None }).await
    }

    pub(crate) async fn publish(&self, queue: &str, messages: usize) {
        let message = |n: usize| Message {
            body: Bytes::from(format!("{{\"n\":{n}}}")),
            content_type: "application/json".to_owned(),
            id: format!("m{n}"),
        };
        let window = || (0..messages).map(|n| (name(queue), message(n))).collect();
        // After a restart of the broker, what publishes may have to find it again; nothing is published before.
        self.until("published", async || match self.broker.publish(window()).await {
            Ok(()) => true,
            Err(BrokerError::Unavailable { .. }) => false,
            Err(error) => panic!("{error}"),
        })
        .await;
    }

    /// Messages in the queue; `None` when the broker has no such queue.
    pub(crate) async fn depth(&self, queue: &str) -> Option<Depth> {
        match self.broker.depth(&name(queue)).await {
            Ok(depth) => Some(depth),
            Err(galerna_broker::BrokerError::UnknownQueue(_)) => None,
            Err(error) => panic!("{error}"),
        }
    }

    /// Runs the empties task until the queue is in this state: a broker's counts may lag.
    pub(crate) async fn counted_until(&self, queue: &str, state: QueueState) {
        self.until(&format!("{queue} is {}", state.as_str()), async || {
            self.run_ok(Task::ReconcileEmpty).await;
            self.state(queue).await == Some(state)
        })
        .await;
    }

    /// Waits until a condition holds.
    pub(crate) async fn until(&self, what: &str, mut holds: impl AsyncFnMut() -> bool) {
        let waited = tokio::time::timeout(DEADLINE, async {
            while !holds().await {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        waited.await.unwrap_or_else(|_| panic!("never came true: {what}"));
    }
}
