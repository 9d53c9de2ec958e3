//! Every interleaving of two threads at one breaker, enumerated: `RUSTFLAGS="--cfg loom" cargo test --test loom`.
#![cfg(loom)]

use std::sync::Arc as StdArc;

use backpressure_core::breaker::{Breaker, CircuitSettings, State, Ticket, Word, at};
use loom::sync::Arc;
use loom::thread;

const SECOND: i64 = 1_000_000_000;

fn breaker(failure_threshold: u64) -> Arc<Breaker> {
    let circuit = CircuitSettings {
        failure_threshold,
        recovery_threshold: 2,
        trip_window_ms: 1_000,
        recovery_timeout_ms: 1_000,
        probe_interval_ms: 1_000,
        high_attempts: false,
    };
    Arc::new(Breaker::new(StdArc::new(circuit), 0))
}

fn acquire(breaker: &Breaker, now_ns: i64) -> Option<Ticket> {
    breaker.try_acquire(at(now_ns)).unwrap().0
}

fn record(breaker: &Breaker, ok: bool, ticket: Option<&Ticket>) {
    breaker.record(ok, ticket, at(SECOND)).unwrap();
}

/// Runs `work` on two threads at once and returns what both gave.
fn both<T: 'static>(breaker: &Arc<Breaker>, work: fn(&Breaker) -> T) -> [T; 2] {
    let other = {
        let breaker = Arc::clone(breaker);
        thread::spawn(move || work(&breaker))
    };
    [work(breaker), other.join().unwrap()]
}

#[test]
fn a_lease_is_issued_once() {
    loom::model(|| {
        let breaker = breaker(1);
        record(&breaker, false, None);
        let tickets = both(&breaker, |breaker| acquire(breaker, 2 * SECOND));
        assert_eq!(tickets.into_iter().flatten().count(), 1);
        assert_eq!(breaker.state(), State::HalfOpen);
    });
}

#[test]
fn no_failure_is_lost() {
    loom::model(|| {
        let breaker = breaker(3);
        both(&breaker, |breaker| record(breaker, false, None));
        let word = Word::unpack(breaker.word());
        assert_eq!((word.state, word.count), (State::Closed, 2));
    });
}

#[test]
fn one_probe_settles_once() {
    loom::model(|| {
        let breaker = breaker(1);
        record(&breaker, false, None);
        let ticket = Arc::new(acquire(&breaker, 2 * SECOND).unwrap());
        let other = {
            let (breaker, ticket) = (Arc::clone(&breaker), Arc::clone(&ticket));
            thread::spawn(move || record(&breaker, true, Some(&ticket)))
        };
        record(&breaker, true, Some(&ticket));
        other.join().unwrap();
        let word = Word::unpack(breaker.word());
        assert_eq!((word.state, word.count), (State::HalfOpen, 1));
    });
}

#[test]
fn a_result_that_races_a_forced_opening_never_closes_it() {
    loom::model(|| {
        let breaker = breaker(1);
        record(&breaker, false, None);
        let ticket = acquire(&breaker, 2 * SECOND).unwrap();
        let other = {
            let breaker = Arc::clone(&breaker);
            thread::spawn(move || breaker.force_open(3 * SECOND))
        };
        record(&breaker, true, Some(&ticket));
        other.join().unwrap();
        let word = Word::unpack(breaker.word());
        assert_eq!((word.state, word.forced), (State::Open, true));
    });
}
