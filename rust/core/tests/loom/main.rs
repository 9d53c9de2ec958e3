//! Every interleaving of two or three threads, and every stale read that the orderings permit, enumerated.
//!
//! `RUSTFLAGS="--cfg loom" cargo test --package backpressure-core --target-dir target/loom --release --test loom`
//!
//! The models run the code that is shipped, with its atomics and locks replaced by loom's. `arc-swap` has no model: a
//! stand-in takes its place (`src/sync.rs`) that swaps with acquire and release, so what is shown here holds for any
//! `arc-swap` that does at least that; its own reclamation is not modelled. Neither is `once_cell`'s `OnceBox`, whose
//! boxes are filled before the threads start. Nobody is preempted inside a place's lock, since nothing shared is
//! touched there. loom remembers one last access of an atomic, so it leaves out orders in which a load of one thread
//! precedes another thread's load and exchange: who exchanges therefore works on the model's own thread, which starts
//! first, and every model lists the ends that it has to reach. Relaxed loads never see the future, as no compiler or
//! processor of today lets them. `World::hit` repeats the comparisons of `Engine::hand_out`, since it looks at what they
//! compare.
#![cfg(loom)]

mod breaker;
mod counters;
mod lease;
mod mode;
mod queue;
mod sample;
mod table;
mod tenants;
#[path = "../world/mod.rs"]
mod world;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use loom::thread;

/// Does every work on a thread of its own, all at once, and returns what they gave.
fn race<W: Send + Sync + 'static, T: Send + 'static, const N: usize>(
    world: &Arc<W>,
    works: [fn(&W) -> T; N],
) -> [T; N] {
    let threads = works.map(|work| {
        let world = Arc::clone(world);
        move || work(&world)
    });
    let mut last = None;
    let mut others = Vec::new();
    for (index, work) in threads.into_iter().enumerate() {
        if index + 1 < N {
            others.push(thread::spawn(work));
        } else {
            last = Some(work()); // on the model's own thread: a thread fewer to enumerate
        }
    }
    let mut gave: Vec<T> = others.into_iter().map(|other| other.join().unwrap()).collect();
    gave.extend(last);
    gave.try_into().unwrap_or_else(|_| unreachable!("one result a thread"))
}

/// Asserts that a model ends in each of these ways, in one schedule or another, and in no other way.
#[track_caller]
fn assert_ends<T: Ord + std::fmt::Debug + Send + 'static>(
    expected: impl IntoIterator<Item = T>,
    model: impl Fn() -> T + Send + Sync + 'static,
) {
    assert_seen(expected, model, loom::model);
}

/// As `assert_ends`, in schedules that preempt threads no more often than that: of a model too large for all of them.
#[track_caller]
fn assert_ends_within<T: Ord + std::fmt::Debug + Send + 'static>(
    preemptions: usize,
    expected: impl IntoIterator<Item = T>,
    model: impl Fn() -> T + Send + Sync + 'static,
) {
    assert_seen(expected, model, |model| {
        let mut builder = loom::model::Builder::new();
        builder.preemption_bound = Some(preemptions);
        builder.max_branches = 10_000; // all counters of a queue are many steps
        builder.check(model);
    });
}

#[track_caller]
fn assert_seen<T: Ord + std::fmt::Debug + Send + 'static>(
    expected: impl IntoIterator<Item = T>,
    model: impl Fn() -> T + Send + Sync + 'static,
    check: impl FnOnce(Box<dyn Fn() + Send + Sync>),
) {
    let ends = Arc::new(Mutex::new(BTreeSet::new()));
    let seen = Arc::clone(&ends);
    check(Box::new(move || {
        let end = model();
        seen.lock().unwrap().insert(end);
    }));
    assert_eq!(*ends.lock().unwrap(), expected.into_iter().collect());
}
