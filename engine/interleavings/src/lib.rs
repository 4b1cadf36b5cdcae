//! What threads share in the engine, under many orders of their steps.
//!
//! The files are the engine's own, compiled with shuttle's locks and atomics: between any two of their steps its scheduler
//! chooses which thread goes on, at random and by priorities that change at random (PCT: Burckhardt and others, 2010). An order in
//! which nobody can go on, such as after a wake-up that was lost, is a failure too; shuttle prints how to replay it. What comes
//! from tokio (`Notify`, `Semaphore`) is one step each.
//!
//! `cargo test --manifest-path engine/interleavings/Cargo.toml`
#![cfg(test)]

#[expect(dead_code, reason = "tests do not need all of it")]
#[path = "../../src/in_flight.rs"]
mod in_flight;
#[path = "../../../topology/src/kept_tuple.rs"]
mod kept_tuple;
#[expect(dead_code, reason = "tests do not need all of it")]
#[path = "../../src/lanes.rs"]
mod lanes;
mod lanes_tests;

mod sync {
    pub(crate) use shuttle::sync::{Mutex, MutexGuard};
    pub(crate) use std::sync::PoisonError;

    pub(crate) mod atomic {
        pub(crate) use shuttle::sync::atomic::{AtomicBool, AtomicUsize};
        pub(crate) use std::sync::atomic::Ordering;
    }
}

use std::sync::Arc;

use shuttle::future::block_on;
use shuttle::thread;

use crate::in_flight::InFlight;
use crate::kept_tuple::KeptTuple;
use crate::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Runs a test in so many orders of each kind.
fn explore(orders: usize, test: fn()) {
    shuttle::check_random(test, orders);
    shuttle::check_pct(test, orders, 3);
}

#[test]
fn nothing_seems_idle_before_all_that_was_caused_is_done() {
    explore(5_000, || {
        let (in_flight, done) = (Arc::new(InFlight::default()), Arc::new(AtomicBool::new(false)));
        in_flight.begin(1);
        let (first, last) = (in_flight.clone(), done.clone());
        let sender = thread::spawn(move || {
            // What it causes begins before it ends itself.
            first.begin(1);
            let caused = first.clone();
            let second = thread::spawn(move || {
                last.store(true, Ordering::SeqCst);
                caused.end(1);
            });
            first.end(1);
            second.join().unwrap();
        });
        block_on(in_flight.wait_until(|| in_flight.is_idle()));
        assert!(done.load(Ordering::SeqCst));
        sender.join().unwrap();
    });
}

#[test]
fn a_kept_tuple_counts_once_however_its_handles_end() {
    explore(5_000, || {
        let (tuple, acked, failed) =
            (KeptTuple::new(), Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let ends: Vec<_> = [true, false, false]
            .into_iter()
            .map(|acks| {
                tuple.add_handle();
                let (tuple, acked, failed) = (tuple.clone(), acked.clone(), failed.clone());
                thread::spawn(move || {
                    if acks {
                        acked.fetch_add(tuple.ack() as usize, Ordering::SeqCst);
                    } else {
                        failed.fetch_add(tuple.fail() as usize, Ordering::SeqCst);
                    }
                })
            })
            .collect();
        // The call in which it was kept returns.
        acked.fetch_add(tuple.ack() as usize, Ordering::SeqCst);
        ends.into_iter().for_each(|end| end.join().unwrap());
        assert_eq!((acked.load(Ordering::SeqCst), failed.load(Ordering::SeqCst)), (0, 1));
    });
    explore(5_000, || {
        let (tuple, acked) = (KeptTuple::new(), Arc::new(AtomicUsize::new(0)));
        let ends: Vec<_> = (0..3)
            .map(|_| {
                tuple.add_handle();
                let (tuple, acked) = (tuple.clone(), acked.clone());
                thread::spawn(move || acked.fetch_add(tuple.ack() as usize, Ordering::SeqCst))
            })
            .collect();
        acked.fetch_add(tuple.ack() as usize, Ordering::SeqCst);
        ends.into_iter().for_each(|end| {
            end.join().unwrap();
        });
        assert_eq!(acked.load(Ordering::SeqCst), 1);
    });
}
