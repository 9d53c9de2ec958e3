//! The decision cache: no answer is handed out for another sample, word or mode than it was made from.
//!
//! That an answer belongs to what was compared is asserted in `World::hit`, wherever an answer lies ready.

use std::sync::Arc;

use backpressure_core::breaker::Outcome;
use backpressure_core::queue::{Place, Slot};
use backpressure_core::vocabulary::Priority::Medium;
use backpressure_core::vocabulary::Reason;
use loom::sync::atomic::{AtomicBool, Ordering};

use crate::world::{S, World, number_in};
use crate::{assert_ends, assert_ends_within, race};

/// A world with a first sample, and an answer made from it.
fn answered() -> Arc<World> {
    let world = World::new(|_| {});
    world.poll(0, 1, 0);
    world.decide(Medium, 1);
    Arc::new(world)
}

/// Returns the number of the sample behind what lies ready, 0 if nothing does.
fn hit(world: &World) -> u64 {
    world.hit(Medium, 2).and_then(|seen| seen.backlog).map_or(0, number_in)
}

#[test]
fn what_lies_ready_is_of_the_sample_that_holds() {
    assert_ends([0, 1, 2], || {
        let world = answered();
        let [_, _, seen] = race(
            &world,
            [
                |world: &World| {
                    world.poll(0, 2, 0);
                    0
                },
                |world| {
                    world.decide(Medium, 1);
                    0
                },
                hit,
            ],
        );
        assert!([0, 2].contains(&hit(&world)), "the answer of a replaced sample");
        seen
    });
}

#[test]
fn what_lies_ready_is_of_the_mode_that_holds() {
    assert_ends([0, 1], || {
        let world = answered();
        let [_, _, seen] = race(
            &world,
            [
                |world: &World| {
                    world.engine.switches.void_ready();
                    0
                },
                |world| {
                    world.decide(Medium, 1);
                    0
                },
                hit,
            ],
        );
        if let Some(ready) = world.hit(Medium, 2) {
            assert_eq!(ready.epoch, 1);
        }
        seen
    });
}

#[test]
fn what_lies_ready_is_of_the_word_that_holds() {
    let reasons = [None, Some(Reason::BacklogGreen)];
    assert_ends(reasons.map(|reason| reason.map(Reason::index)), || {
        let world = answered();
        let [seen, _] = race(
            &world,
            [
                |world: &World| world.hit(Medium, 2).map(|seen| seen.reason.index()),
                |world| {
                    world.queue.breaker.force_open(None);
                    None
                },
            ],
        );
        assert!(world.hit(Medium, 2).is_none(), "a go for a circuit held open");
        seen
    });
}

#[test]
fn an_answer_made_while_the_word_changes_is_of_one_word() {
    let reasons = [None, Some(Reason::BacklogGreen), Some(Reason::CircuitOpen)];
    assert_ends(reasons.map(|reason| reason.map(Reason::index)), || {
        let world = answered();
        let [seen, _] = race(
            &world,
            [
                |world: &World| {
                    world.decide(Medium, 1);
                    world.hit(Medium, 2).map(|seen| seen.reason.index())
                },
                |world| {
                    world.queue.breaker.force_open(None);
                    None
                },
            ],
        );
        assert!(world.hit(Medium, 2).is_none_or(|seen| seen.reason == Reason::CircuitOpen));
        seen
    });
}

#[test]
fn a_poll_takes_effect_on_the_next_call_of_whoever_hears_of_it() {
    assert_ends([None, Some(0), Some(2)], || {
        let world = Arc::new((answered(), AtomicBool::new(false)));
        let [_, _, seen] = race(
            &world,
            [
                |(world, told): &(Arc<World>, AtomicBool)| {
                    world.poll(0, 2, 0);
                    told.store(true, Ordering::Release);
                    None
                },
                |(world, _)| {
                    world.decide(Medium, 1);
                    None
                },
                |(world, told)| told.load(Ordering::Acquire).then(|| hit(world)),
            ],
        );
        seen
    });
}

#[test]
fn who_was_given_a_new_answer_decides_on_no_older_sample() {
    // Two of three threads compute an answer: all their schedules would take hours.
    assert_ends_within(3, [(0, 2), (1, 1), (1, 2), (2, 2)], || {
        let world = answered();
        let [_, _, seen] = race(
            &world,
            [
                |world: &World| {
                    world.poll(0, 2, 0);
                    (0, 0)
                },
                |world| {
                    world.decide(Medium, 1);
                    (0, 0)
                },
                |world| (hit(world), world.decide(Medium, 1).backlog.map_or(0, number_in)),
            ],
        );
        seen
    });
}

#[test]
fn a_change_of_zone_is_told_once_and_every_decision_counted() {
    assert_ends([1, 2], || {
        let world = Arc::new(World::new(|_| {}));
        world.poll(1, 1, 0);
        let computed = race(&world, [|world: &World| world.decide(Medium, 1).computed; 2]);
        assert_eq!(world.told.zone_changes.load(Ordering::SeqCst), 1);
        assert_eq!(world.counted(), 2);
        computed.iter().filter(|computed| **computed).count()
    });
}

#[test]
fn the_poller_is_checked_once_per_interval() {
    assert_ends([1], || {
        let world = answered();
        race(&world, [|world: &World| drop(world.decide(Medium, 11 * S)); 2]);
        world.told.checks.load(Ordering::SeqCst)
    });
}

#[test]
fn of_two_callers_one_is_the_probe_and_the_other_is_refused() {
    assert_ends([0, 1].map(Some), || {
        let world = answered();
        world.record(Outcome::Failure(None), None, 0);
        world.record(Outcome::Failure(None), None, 0);
        let seen = race(&world, [|world: &World| world.decide(Medium, S); 2]);
        let refused = seen.iter().filter(|seen| seen.reason == Reason::CircuitHalfOpen).count();
        assert_eq!((refused, world.counted()), (1, 3));
        seen.iter().position(|seen| seen.ticket.as_ref().is_some_and(|ticket| ticket.probe()))
    });
}

#[test]
fn a_place_loses_nothing_and_keeps_nobody_waiting() {
    // Of two puts into a free place one may find it in use; what is handed back and what stays are together all.
    assert_ends([vec![1], vec![2]], || {
        let slot = Arc::new(Slot::<u32>::default());
        let [one, other] = race(&slot, [|slot: &Slot<u32>| slot.put(1), |slot| slot.put(2)]);
        let kept: Vec<u32> = slot.read(|thing| Some(*thing)).into_iter().collect();
        let mut all: Vec<u32> = one.into_iter().chain(other).chain(kept.clone()).collect();
        all.sort_unstable();
        assert_eq!(all, [1, 2]);
        kept
    });
}
