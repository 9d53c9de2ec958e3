//! The mode swap: no change is lost, and the epoch tells which mode holds.

use std::sync::Arc;

use backpressure_core::mode::NEVER;

use crate::world::World;
use crate::{assert_ends, race};

fn world() -> Arc<World> {
    Arc::new(World::new(|_| {}))
}

#[test]
fn racing_changes_all_take_hold() {
    assert_ends([(3, true, true, Some(9))], || {
        let world = world();
        race(
            &world,
            [
                |world: &World| world.engine.switches.set_running(true),
                |world| world.engine.switches.set_emergency(Some(NEVER)),
                |world| world.engine.switches.set_override(Some(9)),
            ],
        );
        let mode = world.engine.switches.mode();
        assert_eq!(world.engine.switches.epoch(), mode.epoch);
        (mode.epoch, mode.running, mode.emergency_until_ns.is_some(), mode.override_until_ns)
    });
}

#[test]
fn who_sees_an_epoch_sees_its_mode() {
    assert_ends([(0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2)], || {
        let world = world();
        let [_, _, seen] = race(
            &world,
            [
                |world: &World| {
                    world.engine.switches.set_running(true);
                    (0, 0)
                },
                |world| {
                    world.engine.switches.set_emergency(Some(NEVER));
                    (0, 0)
                },
                |world| (world.engine.switches.epoch(), world.engine.switches.mode().epoch),
            ],
        );
        assert!(seen.0 <= seen.1);
        seen
    });
}

#[test]
fn the_end_of_an_override_is_told_once() {
    assert_ends([(true, false), (false, true)], || {
        let world = world();
        world.engine.switches.set_override(Some(5));
        let [one, other] = race(&world, [|world: &World| world.engine.switches.mode_at(5); 2]);
        assert!(one.0.override_until_ns.is_none() && other.0.override_until_ns.is_none());
        (one.1, other.1)
    });
}

#[test]
fn a_renewed_override_outlives_the_end_of_the_first() {
    assert_ends([false, true], || {
        let world = world();
        world.engine.switches.set_override(Some(5));
        let [ended, _] = race(
            &world,
            [
                |world: &World| world.engine.switches.mode_at(10).1,
                |world| {
                    world.engine.switches.set_override(Some(50));
                    false
                },
            ],
        );
        assert_eq!(world.engine.switches.mode().override_until_ns, Some(50));
        ended
    });
}
