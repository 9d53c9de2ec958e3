//! The snapshot swap: number and sample agree, and what one thread saw no thread after it sees undone.

use std::sync::Arc;

use crate::world::World;
use crate::{assert_ends, race};

fn world() -> Arc<World> {
    Arc::new(World::new(|_| {}))
}

#[test]
fn racing_samples_leave_number_and_sample_agreed() {
    assert_ends([10, 20], || {
        let world = world();
        race(
            &world,
            [
                |world: &World| world.queue.put_sample(10, 0, None, None),
                |world| world.queue.put_sample(20, 0, None, None),
            ],
        );
        let sample = world.queue.sample().unwrap();
        assert_eq!((world.queue.sample_number(), sample.number), (2, 2));
        sample.backlog
    });
}

#[test]
fn who_sees_a_number_sees_its_sample() {
    assert_ends([(0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2)], || {
        let world = world();
        let [_, _, seen] = race(
            &world,
            [
                |world: &World| {
                    world.queue.put_sample(10, 0, None, None);
                    (0, 0)
                },
                |world| {
                    world.queue.put_sample(20, 0, None, None);
                    (0, 0)
                },
                |world| {
                    let number = world.queue.sample_number();
                    (number, world.queue.sample().map_or(0, |sample| sample.number))
                },
            ],
        );
        assert!(seen.0 <= seen.1);
        seen
    });
}

#[test]
fn a_number_never_falls() {
    assert_ends([(0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2)], || {
        let world = world();
        let [_, _, seen] = race(
            &world,
            [
                |world: &World| {
                    world.queue.put_sample(10, 0, None, None);
                    (0, 0)
                },
                |world| {
                    world.queue.put_sample(20, 0, None, None);
                    (0, 0)
                },
                |world| (world.queue.sample_number(), world.queue.sample_number()),
            ],
        );
        seen
    });
}
