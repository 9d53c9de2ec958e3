//! The scenario under schedules that are drawn: at random, and with few preemptions at the places that hurt (PCT).
//!
//! `RUSTFLAGS="--cfg shuttle" cargo test --package backpressure-core --target-dir target/shuttle --release --test shuttle`
//!
//! shuttle knows no stale reads; those are loom's (`tests/loom`). A failure prints the schedule that `shuttle::replay`
//! repeats. `SHUTTLE_SCHEDULES` draws more than the 2000 of each kind.
#![cfg(shuttle)]

mod scenario;
mod world;

use std::sync::{Arc, Mutex};

use scenario::Reached;
use shuttle::scheduler::{PctScheduler, RandomScheduler, Scheduler};
use shuttle::{Config, FailurePersistence, Runner, thread};

const SEED: u64 = 20_26;

fn schedules() -> usize {
    std::env::var("SHUTTLE_SCHEDULES").map_or(2_000, |count| count.parse().expect("SHUTTLE_SCHEDULES is a number"))
}

fn draw(scheduler: impl Scheduler + 'static) {
    let mut config = Config::new();
    config.failure_persistence = FailurePersistence::Print;
    config.silence_warnings = true;
    let reached = Arc::new(Mutex::new(Reached::default()));
    let sum = Arc::clone(&reached);
    Runner::new(scheduler, config).run(move || {
        let reached = scenario::play(3, 24, |works| {
            let threads: Vec<_> = works.into_iter().map(thread::spawn).collect();
            for thread in threads {
                thread.join().unwrap();
            }
        });
        sum.lock().unwrap().add(&reached);
    });
    reached.lock().unwrap().assert_everywhere();
}

#[test]
fn random_schedules_break_nothing() {
    draw(RandomScheduler::new_from_seed(SEED, schedules()));
}

#[test]
fn schedules_with_few_preemptions_break_nothing() {
    draw(PctScheduler::new_from_seed(SEED, 4, schedules()));
}
