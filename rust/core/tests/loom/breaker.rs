//! The breaker's edges: one lease, no lost failure, no result out of its generation.

use std::sync::Arc;

use backpressure_core::breaker::{Breaker, Change, Outcome, Ticket, at};
use backpressure_core::settings::CircuitSettings;
use backpressure_core::word::{State, Word};

use crate::{assert_ends, race};

const SECOND: i64 = 1_000_000_000;

fn breaker(failure_threshold: u64, recovery_threshold: u64) -> Arc<Breaker> {
    let circuit = CircuitSettings {
        failure_threshold,
        recovery_threshold,
        trip_window_ms: 10_000,
        recovery_timeout_ms: 1_000,
        probe_interval_ms: 1_000,
        high_attempts: false,
    };
    Arc::new(Breaker::new(Arc::new(circuit), 0))
}

fn acquire(breaker: &Breaker, now_ns: i64) -> Option<Ticket> {
    breaker.try_acquire(now_ns).0
}

fn record(breaker: &Breaker, ok: bool, ticket: Option<&Ticket>) -> Option<Change> {
    let outcome = if ok { Outcome::Success } else { Outcome::Failure(None) };
    breaker.record(outcome, ticket, at(SECOND)).unwrap().filter(Change::is_news)
}

fn word(breaker: &Breaker) -> Word {
    Word::unpack(breaker.word())
}

/// A breaker that a failure opened at one second, and the ticket of its first probe.
fn probed(recovery_threshold: u64) -> (Arc<Breaker>, Ticket) {
    let breaker = breaker(1, recovery_threshold);
    record(&breaker, false, None);
    let ticket = acquire(&breaker, 2 * SECOND).unwrap();
    (breaker, ticket)
}

#[test]
fn a_lease_is_issued_once() {
    assert_ends([0, 1, 2].map(Some), || {
        let breaker = breaker(1, 2);
        record(&breaker, false, None);
        let tickets = race(&breaker, [|breaker| acquire(breaker, 2 * SECOND); 3]);
        assert_eq!(word(&breaker).state, State::HalfOpen);
        assert_eq!(tickets.iter().flatten().count(), 1);
        tickets.iter().position(Option::is_some)
    });
}

#[test]
fn no_failure_is_lost() {
    assert_ends([3], || {
        let breaker = breaker(4, 2);
        race(&breaker, [|breaker| record(breaker, false, None); 3]);
        word(&breaker).count
    });
}

#[test]
fn it_opens_once() {
    assert_ends([1], || {
        let breaker = breaker(2, 2);
        let changes = race(&breaker, [|breaker| record(breaker, false, None); 3]);
        assert_eq!(word(&breaker).generation, 1);
        changes.iter().flatten().count()
    });
}

#[test]
fn one_probe_settles_once() {
    assert_ends([(State::HalfOpen as u64, 1)], || {
        let probed = Arc::new(probed(2));
        race(&probed, [|(breaker, ticket)| record(breaker, true, Some(ticket)); 2]);
        let word = word(&probed.0);
        (word.state as u64, word.count)
    });
}

#[test]
fn a_result_that_races_a_forced_opening_never_closes_it() {
    assert_ends([true], || {
        let probed = Arc::new(probed(1));
        race(
            &probed,
            [|(breaker, ticket)| record(breaker, true, Some(ticket)), |(breaker, _)| breaker.force_open(None)],
        );
        let word = word(&probed.0);
        word.state == State::Open && word.forced
    });
}

#[test]
fn a_success_and_a_failure_both_take_effect_unless_the_failure_comes_first() {
    // Generation 3 is that of a circuit reopened by the failure, 4 of one that closed before.
    assert_ends([3, 4], || {
        let probed = Arc::new(probed(1));
        race(
            &probed,
            [
                |(breaker, ticket)| record(breaker, true, Some(ticket)),
                |(breaker, _)| breaker.record(Outcome::Failure(None), None, at(3 * SECOND)).unwrap(),
            ],
        );
        assert_eq!(probed.0.state(), State::Open);
        word(&probed.0).generation
    });
}

#[test]
fn a_late_result_does_not_touch_the_next_generation() {
    assert_ends([true], || {
        let (breaker, late) = probed(1);
        breaker.force_open(None);
        breaker.force_close();
        let world = Arc::new((breaker, late));
        race(&world, [|(breaker, late)| record(breaker, false, Some(late)), |(breaker, _)| breaker.force_close()]);
        let after = word(&world.0);
        after.state == State::Closed && after.count == 0
    });
}

#[test]
fn a_result_counts_whether_it_comes_before_the_next_lease_or_after() {
    assert_ends([(1, false), (1, true)], || {
        let probed = Arc::new(probed(2));
        race(
            &probed,
            [
                |(breaker, ticket)| assert!(record(breaker, true, Some(ticket)).is_none()),
                |(breaker, _)| assert!(acquire(breaker, 3 * SECOND).is_some()),
            ],
        );
        let word = word(&probed.0);
        (word.count, word.leased)
    });
}

#[test]
fn a_lease_that_is_given_back_is_taken_once() {
    // By who comes while it is out, nobody; by who comes after, one.
    assert_ends([0, 1], || {
        let probed = Arc::new(probed(2));
        let taken = race(
            &probed,
            [
                |(breaker, ticket): &(Arc<Breaker>, Ticket)| {
                    assert!(breaker.record(Outcome::Ignored, Some(ticket), at(2 * SECOND)).unwrap().is_some());
                    None
                },
                |(breaker, _)| acquire(breaker, 2 * SECOND + 1_000_000),
                |(breaker, _)| acquire(breaker, 2 * SECOND + 1_000_000),
            ],
        );
        let taken = taken.iter().flatten().count();
        assert_eq!(word(&probed.0).leased, taken == 1);
        taken
    });
}

#[test]
fn a_lease_given_back_late_is_not_the_next_probes() {
    assert_ends([true], || {
        let probed = Arc::new(probed(2));
        race(
            &probed,
            [
                |(breaker, ticket): &(Arc<Breaker>, Ticket)| {
                    breaker.record(Outcome::Ignored, Some(ticket), at(3 * SECOND)).unwrap();
                },
                |(breaker, _)| assert!(acquire(breaker, 3 * SECOND).is_some()),
            ],
        );
        word(&probed.0).leased
    });
}

#[test]
fn a_forced_opening_ends_once_and_never_takes_the_next_one_with_it() {
    assert_ends([(0, true), (1, true)], || {
        let breaker = breaker(1, 1);
        breaker.force_open(Some(SECOND));
        let changes = race(
            &breaker,
            [
                |breaker| breaker.lapse(2 * SECOND),
                |breaker| breaker.lapse(2 * SECOND),
                |breaker| {
                    breaker.force_open(None);
                    None
                },
            ],
        );
        (changes.iter().flatten().count(), word(&breaker).forced)
    });
}

#[test]
fn hastening_wins_no_race_against_a_forcing() {
    assert_ends([true], || {
        let breaker = breaker(1, 1);
        record(&breaker, false, None);
        race(&breaker, [|breaker| breaker.hasten(), |breaker| assert!(breaker.force_open(None).is_some())]);
        word(&breaker).forced && acquire(&breaker, 90 * SECOND).is_none()
    });
}
