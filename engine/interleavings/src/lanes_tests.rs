//! The ways into workers.

use std::pin::pin;
use std::sync::Arc;

use futures_util::future::select;
use galerna_topology::runtime::Content;
use shuttle::future::block_on;
use shuttle::thread;
use tokio::sync::Notify;

use crate::explore;
use crate::lanes::{Budget, Lanes, Message, NotSent, SentBy};
use crate::sync::Mutex;
use crate::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// The `number`-th message of a sender; each weighs a byte.
fn message(sender: u32, number: u32) -> Message {
    Message {
        target: 0,
        sender,
        rows: number,
        bytes: 1,
        converted: false,
        content: Content::Rows(Box::new(())),
    }
}

/// Sends as tasks do: at once if there is room, or else when there is. Returns whether it was taken over.
async fn send(lanes: &Lanes, worker: usize, message: Message, by: SentBy) -> bool {
    match lanes.try_send(worker, message, by) {
        Ok(()) => true,
        Err(NotSent::Full(message)) => lanes.send(worker, message, by).await.is_ok(),
        Err(NotSent::Closed) => false,
        Err(NotSent::Refused { .. }) => panic!("this is no feedback edge"),
    }
}

/// Set once, by whoever does the last of the work.
#[derive(Default)]
struct Done {
    is: AtomicBool,
    changed: Notify,
}

impl Done {
    fn set(&self) {
        self.is.store(true, Ordering::SeqCst);
        self.changed.notify_waiters();
    }

    async fn wait(&self) {
        loop {
            let mut changed = pin!(self.changed.notified());
            changed.as_mut().enable();
            if self.is.load(Ordering::SeqCst) {
                return;
            }
            changed.await;
        }
    }
}

/// Takes what there is to do, as workers do, until all is done.
async fn work(lanes: &Lanes, worker: usize, done: &Done, mut take: impl AsyncFnMut(Message)) {
    let next = || lanes.try_take(worker).or_else(|| lanes.try_take_from_others(worker));
    loop {
        if let Some(message) = next() {
            take(message).await;
            continue;
        }
        lanes.set_idle(worker, true);
        let message = next();
        if message.is_none() {
            select(pin!(lanes.arrived(worker)), pin!(done.wait())).await;
        }
        lanes.set_idle(worker, false);
        match message {
            Some(message) => take(message).await,
            None if done.is.load(Ordering::SeqCst) => return,
            None => {}
        }
    }
}

#[test]
fn each_message_is_taken_once_and_in_the_order_of_its_sender() {
    explore(2_000, || {
        const EACH: u32 = 3;
        // Two bytes for all, and room for one batch: each sender waits for one or the other.
        let lanes = Arc::new(Lanes::new([(1, (0, 1))].into_iter(), Budget::new(2), 1));
        let senders: Vec<_> = [SentBy::Spout { sent: 0 }, SentBy::Bolt]
            .into_iter()
            .zip(0..)
            .map(|(by, sender)| {
                let lanes = lanes.clone();
                thread::spawn(move || {
                    block_on(async {
                        for number in 0..EACH {
                            assert!(send(&lanes, 0, message(sender, number), by).await);
                        }
                    });
                })
            })
            .collect();
        let (mut taken, done) = ([0; 2], Done::default());
        block_on(work(&lanes, 0, &done, async |message| {
            let expected = &mut taken[message.sender as usize];
            assert_eq!(message.rows, *expected);
            *expected += 1;
            if taken == [EACH; 2] {
                done.set();
            }
        }));
        senders.into_iter().for_each(|sender| sender.join().unwrap());
        assert_eq!(lanes.queued_bytes(), 0);
    });
}

#[test]
fn a_bolt_whose_lane_runs_empty_goes_on_also_while_others_hold_the_budget() {
    explore(2_000, || {
        const ALL: u32 = 3;
        let lanes = Arc::new(Lanes::new([(2, (0, 1)), (2, (1, 1))].into_iter(), Budget::new(1), 1));
        // Nobody takes this one.
        assert!(block_on(send(&lanes, 1, message(0, 0), SentBy::Bolt)));
        let sender = {
            let lanes = lanes.clone();
            thread::spawn(move || {
                block_on(async {
                    for number in 0..ALL {
                        assert!(send(&lanes, 0, message(0, number), SentBy::Bolt).await);
                    }
                });
            })
        };
        let (mut taken, done) = (0, Done::default());
        block_on(work(&lanes, 0, &done, async |message| {
            assert_eq!(message.rows, taken);
            taken += 1;
            if taken == ALL {
                done.set();
            }
        }));
        sender.join().unwrap();
        assert_eq!(lanes.queued_bytes(), 1);
    });
}

#[test]
fn what_waits_for_a_slow_worker_is_taken_by_one_with_nothing_to_do() {
    explore(2_000, || {
        const ALL: usize = 4;
        let lanes = Arc::new(Lanes::new([(ALL, (0, 2)); 2].into_iter(), Budget::new(usize::MAX), 1));
        let (done, taken) = (Arc::new(Done::default()), Arc::new(AtomicUsize::new(0)));
        let sender = {
            let lanes = lanes.clone();
            thread::spawn(move || {
                block_on(async {
                    for number in 0..ALL as u32 {
                        assert!(send(&lanes, 0, message(0, number), SentBy::Bolt).await);
                    }
                });
            })
        };
        let idle = {
            let (lanes, done, taken) = (lanes.clone(), done.clone(), taken.clone());
            thread::spawn(move || {
                block_on(work(&lanes, 1, &done, async |_| {
                    if taken.fetch_add(1, Ordering::SeqCst) + 1 == ALL {
                        done.set();
                    }
                }));
            })
        };
        // The first worker waits in the middle of its first message until all the others were taken: by the other one.
        block_on(work(&lanes, 0, &done, async |_| {
            if taken.fetch_add(1, Ordering::SeqCst) + 1 == ALL {
                done.set();
            }
            lanes.set_slow(0, true);
            done.wait().await;
            lanes.set_slow(0, false);
        }));
        sender.join().unwrap();
        idle.join().unwrap();
        assert_eq!(lanes.queued_bytes(), 0);
    });
}

#[test]
fn when_a_worker_ends_each_message_was_taken_or_is_left_or_given_back() {
    explore(2_000, || {
        const EACH: u32 = 2;
        let lanes = Arc::new(Lanes::new([(1, (0, 1))].into_iter(), Budget::new(2), 1));
        let senders: Vec<_> = (0..2)
            .map(|sender| {
                let lanes = lanes.clone();
                thread::spawn(move || {
                    let sending = async {
                        let mut refused = 0;
                        for number in 0..EACH {
                            refused +=
                                usize::from(!send(&lanes, 0, message(sender, number), SentBy::Bolt).await);
                        }
                        refused
                    };
                    block_on(sending)
                })
            })
            .collect();
        let taken = usize::from(lanes.try_take(0).is_some());
        let left = lanes.close(0).len();
        let refused: usize = senders.into_iter().map(|sender| sender.join().unwrap()).sum();
        assert_eq!(taken + left + refused, 2 * EACH as usize);
        assert_eq!(lanes.queued_bytes(), 0);
    });
}

#[test]
fn feedback_beyond_its_limit_is_refused_and_all_else_is_taken() {
    explore(2_000, || {
        const EACH: u32 = 3;
        const LIMIT: usize = 2;
        let lanes = Arc::new(Lanes::new([(1, (0, 1))].into_iter(), Budget::new(1), LIMIT));
        let (done, ended) = (Arc::new(Done::default()), Arc::new(AtomicUsize::new(0)));
        let refused = Arc::new(Mutex::new(Vec::new()));
        let end = |ended: &AtomicUsize, done: &Done| {
            if ended.fetch_add(1, Ordering::SeqCst) + 1 == 2 * EACH as usize {
                done.set();
            }
        };
        let senders: Vec<_> = (0..2)
            .map(|sender| {
                let (lanes, done, ended, refused) =
                    (lanes.clone(), done.clone(), ended.clone(), refused.clone());
                thread::spawn(move || {
                    for number in 0..EACH {
                        match lanes.send_back(0, message(sender, number)) {
                            Ok(()) => {}
                            Err(NotSent::Refused { message, limit, .. }) => {
                                assert_eq!(limit, LIMIT);
                                refused.lock().unwrap().push((message.sender, message.rows));
                                end(&ended, &done);
                            }
                            Err(_) => panic!(
                                "the worker has not ended, and a feedback edge has no room to wait for"
                            ),
                        }
                    }
                })
            })
            .collect();
        let mut taken = Vec::new();
        block_on(work(&lanes, 0, &done, async |message| {
            taken.push((message.sender, message.rows));
            end(&ended, &done);
        }));
        senders.into_iter().for_each(|sender| sender.join().unwrap());
        taken.extend(refused.lock().unwrap().drain(..));
        taken.sort();
        assert_eq!(taken, [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2)]);
        assert_eq!(lanes.queued_bytes(), 0);
        // Its limit is free again, whole.
        for number in 0..=LIMIT as u32 {
            let sent = lanes.send_back(0, message(0, number));
            assert_eq!(sent.is_ok(), number < LIMIT as u32);
        }
    });
}
