//! Looks for a story of one queue that breaks a promise, or panics.
//!
//! `make prove ARGS=fuzzing` runs it for a minute. For longer, from the top of the tree and with cargo-fuzz:
//! `cargo fuzz run --fuzz-dir rust/core/fuzz --target-dir target/fuzz-core --sanitizer none life target/fuzz/life
//! rust/core/fuzz/corpus/life`. A story worth keeping goes into the corpus, where `tests/life` replays it.
#![no_main]

#[path = "../../tests/life/story.rs"]
mod story;
#[path = "../../tests/world/mod.rs"]
mod world;

libfuzzer_sys::fuzz_target!(|story: &[u8]| {
    story::live(story);
});
