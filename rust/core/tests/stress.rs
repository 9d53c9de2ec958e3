//! The scenario on real threads. `ThreadSanitizer` watches it, too:
//!
//! `RUSTC_BOOTSTRAP=1 RUSTFLAGS="-Zsanitizer=thread -Cunsafe-allow-abi-mismatch=sanitizer" cargo test
//! --package backpressure-core --target x86_64-unknown-linux-gnu --target-dir target/tsan --test stress`, with
//! `TSAN_OPTIONS=suppressions=rust/core/tests/tsan.supp`.
#![cfg(not(any(loom, shuttle)))]

mod scenario;
mod world;

use std::thread;

use scenario::Reached;

#[test]
fn threads_break_nothing() {
    let mut reached = Reached::default();
    // How threads take turns is the system's choice: where it is busy, the operator may be at work unseen for long.
    let mut plays = 0;
    while plays < 40 || (plays < 2_000 && !reached.is_everywhere()) {
        plays += 1;
        reached.add(&scenario::play(4, 400, |works| {
            let threads: Vec<_> = works.into_iter().map(thread::spawn).collect();
            for thread in threads {
                thread.join().unwrap();
            }
        }));
    }
    reached.assert_everywhere();
}
