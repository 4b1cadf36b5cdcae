use std::collections::BTreeSet;

use tokio::sync::Notify;
use tokio::task::JoinSet;

use super::*;

/// A dispatcher of numbered queues: notes what it is asked, and answers when it is told how many leases there are.
#[derive(Default)]
struct Dispatcher {
    requests: Mutex<Vec<NextRequest>>,
    answers: Mutex<VecDeque<Result<usize, LeaseError>>>,
    answered: Notify,
    granted: Mutex<u64>,
    released: Mutex<Vec<Release>>,
}

impl Dispatcher {
    /// Answers the request that waits, or the next, with so many leases.
    fn answer(&self, with: Result<usize, LeaseError>) {
        self.answers.lock().push_back(with);
        self.answered.notify_one();
    }

    fn requests(&self) -> Vec<NextRequest> {
        self.requests.lock().clone()
    }
}

#[async_trait]
impl Leases for Dispatcher {
    async fn next(&self, request: NextRequest) -> Result<Vec<GrantedLease>, LeaseError> {
        self.requests.lock().push(request);
        let leases = loop {
            let answer = self.answers.lock().pop_front();
            match answer {
                Some(answer) => break answer?,
                None => self.answered.notified().await,
            }
        };
        let mut granted = self.granted.lock();
        let lease = |_| {
            *granted += 1;
            GrantedLease { queue: queue(*granted), epoch: 1, expires_in_ms: 60_000, strategy: "lru".into() }
        };
        Ok((0..leases).map(lease).collect())
    }

    async fn renew(&self, _: &QueueName, _: u64) -> Result<Renewed, LeaseError> {
        Ok(Renewed { expires_in_ms: 60_000, revoked: false })
    }

    async fn release(&self, release: &Release) -> Result<(), LeaseError> {
        self.released.lock().push(release.clone());
        Ok(())
    }
}

fn queue(number: u64) -> QueueName {
    QueueName::new(format!("D{number}")).unwrap()
}

fn release(number: u64) -> Release {
    Release { queue: queue(number), epoch: 1, empty: false }
}

fn request(release: Vec<Release>) -> NextRequest {
    let wait = Duration::from_secs(1);
    NextRequest { consumer: "w1".into(), wait, count: 1, release, ..NextRequest::default() }
}

fn stage() -> (Arc<Dispatcher>, Arc<GroupedLeases>) {
    let dispatcher = Arc::new(Dispatcher::default());
    (Arc::clone(&dispatcher), Arc::new(GroupedLeases::new(dispatcher)))
}

type Asking = JoinSet<Result<Vec<GrantedLease>, LeaseError>>;

/// So many tasks that ask at the same moment.
fn ask(leases: &Arc<GroupedLeases>, tasks: u64) -> Asking {
    let mut asking = JoinSet::new();
    for number in 0..tasks {
        let leases = Arc::clone(leases);
        asking.spawn(async move { leases.next(request(vec![release(1_000 + number)])).await });
    }
    asking
}

async fn names(asking: Asking) -> Vec<String> {
    let answers = asking.join_all().await;
    answers.into_iter().flat_map(Result::unwrap).map(|lease| lease.queue.to_string()).collect()
}

#[tokio::test(start_paused = true)]
async fn who_asks_at_the_same_moment_asks_in_one_request_and_each_gets_a_lease() {
    let (dispatcher, leases) = stage();
    dispatcher.answer(Ok(20));
    let names = names(ask(&leases, 20)).await;
    assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), 20, "no lease is given twice: {names:?}");
    let requests = dispatcher.requests();
    assert_eq!((requests.len(), requests[0].count, requests[0].release.len()), (1, 20, 20));
    assert_eq!(requests[0].wait, Duration::from_secs(1));
}

#[tokio::test(start_paused = true)]
async fn a_request_that_waits_for_a_queue_does_not_hold_up_others() {
    let (dispatcher, leases) = stage();
    let first = ask(&leases, 1);
    while dispatcher.requests().is_empty() {
        tokio::task::yield_now().await;
    }
    let began = Instant::now();
    let second = ask(&leases, 2);
    while dispatcher.requests().len() < 2 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert!(began.elapsed() <= GROUP_DELAY + Duration::from_millis(2), "{:?}", began.elapsed());
    assert_eq!(dispatcher.requests()[1].count, 2, "who came meanwhile asks together");
    dispatcher.answer(Ok(1));
    dispatcher.answer(Ok(2));
    let (first, second) = (names(first).await, names(second).await);
    assert_eq!((first.len(), second.len()), (1, 2));
}

#[tokio::test(start_paused = true)]
async fn who_gets_none_of_too_few_leases_stays_and_is_part_of_the_next_request() {
    let (dispatcher, leases) = stage();
    dispatcher.answer(Ok(1));
    dispatcher.answer(Ok(2));
    assert_eq!(names(ask(&leases, 3)).await.len(), 3);
    let requests = dispatcher.requests();
    assert_eq!((requests.len(), requests[1].count), (2, 2));
    assert_eq!(requests[1].release, [], "what was given back is not given back again");
}

#[tokio::test(start_paused = true)]
async fn when_there_is_nothing_for_anybody_all_are_told() {
    let (dispatcher, leases) = stage();
    dispatcher.answer(Ok(0));
    assert_eq!(names(ask(&leases, 3)).await, [""; 0]);
    assert_eq!(dispatcher.requests().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_request_without_an_answer_is_made_again_and_its_leases_go_to_one_caller_each() {
    let (dispatcher, leases) = stage();
    dispatcher.answer(Err(LeaseError::Unavailable("no answer".into())));
    for answer in ask(&leases, 3).join_all().await {
        assert!(matches!(answer, Err(LeaseError::Unavailable(_))), "{answer:?}");
    }
    // It had been granted three, and two ask now.
    dispatcher.answer(Ok(3));
    let names = names(ask(&leases, 2)).await;
    assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), 2);
    while dispatcher.released.lock().is_empty() {
        tokio::task::yield_now().await;
    }
    assert_eq!(dispatcher.released.lock().len(), 1, "the third is given back");
    dispatcher.answer(Ok(1));
    ask(&leases, 1).join_all().await;
    let requests = dispatcher.requests();
    assert_eq!((requests[0].retry, requests[1].retry, requests[2].retry), (false, true, false));
    assert_eq!(requests[0].request, requests[1].request);
    assert_ne!(requests[1].request, requests[2].request);
}

#[tokio::test(start_paused = true)]
async fn who_is_stopped_is_told_and_the_next_request_is_a_new_one() {
    let (dispatcher, leases) = stage();
    dispatcher.answer(Err(LeaseError::Stopped));
    dispatcher.answer(Ok(1));
    assert!(matches!(ask(&leases, 1).join_all().await[..], [Err(LeaseError::Stopped)]));
    assert_eq!(names(ask(&leases, 1)).await.len(), 1);
    let requests = dispatcher.requests();
    assert!(!requests[1].retry);
    assert_ne!(requests[0].request, requests[1].request);
}

#[tokio::test(start_paused = true)]
async fn the_lease_of_a_caller_that_is_gone_goes_to_another_or_back() {
    let (dispatcher, leases) = stage();
    let mut gone = ask(&leases, 1);
    let stays = ask(&leases, 1);
    while dispatcher.requests().is_empty() {
        tokio::task::yield_now().await;
    }
    gone.abort_all();
    while gone.join_next().await.is_some() {}
    dispatcher.answer(Ok(2));
    assert_eq!(names(stays).await.len(), 1);
    while dispatcher.released.lock().is_empty() {
        tokio::task::yield_now().await;
    }
    assert_eq!(dispatcher.released.lock().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn consumers_of_different_names_ask_for_themselves() {
    let (dispatcher, leases) = stage();
    dispatcher.answer(Ok(1));
    dispatcher.answer(Ok(1));
    let other = NextRequest { consumer: "w2".into(), ..request(Vec::new()) };
    let (a, b) = tokio::join!(leases.next(request(Vec::new())), leases.next(other));
    assert_eq!((a.unwrap().len(), b.unwrap().len()), (1, 1));
    let consumers: Vec<String> = dispatcher.requests().into_iter().map(|r| r.consumer).collect();
    assert_eq!(consumers, ["w1", "w2"]);
}
