//! One queue's life on one thread: stories drawn at random, and those that the fuzzer found worth keeping.
#![cfg(not(any(loom, shuttle)))]

mod story;
#[path = "../world/mod.rs"]
mod world;

use std::fs;

use backpressure_core::vocabulary::Reason;
use proptest::prelude::*;

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_story_ends_well(story in prop::collection::vec(any::<u8>(), 0..600)) {
        story::live(&story);
    }
}

#[test]
fn the_kept_stories_end_well_and_tell_of_everything() {
    let mut reasons = [0; Reason::ALL.len()];
    for story in fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/corpus/life")).unwrap() {
        let story = fs::read(story.unwrap().path()).unwrap();
        for (sum, count) in reasons.iter_mut().zip(story::live(&story)) {
            *sum += count;
        }
    }
    for (reason, name) in Reason::ALL {
        // Observe mode counts what it stands before; names without a queue are the host's, and so are budgets. Servers
        // without memory are tried where both engines are.
        let elsewhere = matches!(reason, Reason::ObserveOnly | Reason::Untracked | Reason::Memory);
        let elsewhere = elsewhere || name.starts_with("age_");
        assert!(elsewhere || reasons[reason.index()] > 0, "no {name} in the corpus");
    }
}
