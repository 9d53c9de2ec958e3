//! The system's monotonic clock, for hosts that have no clock of their own.

pub use system::System;

#[cfg(target_os = "linux")]
mod system {
    use rustix::time::{ClockId, clock_gettime};

    /// More than the coarse clock's lag: it moves once a tick, at worst every 10 ms.
    const LAG_NS: i64 = 20_000_000;

    /// `CLOCK_MONOTONIC`, which is also what hosts read.
    #[derive(Clone, Debug)]
    pub struct System(());

    impl System {
        /// Makes the clock that `read` reads. There is one here, so `read` is not needed.
        ///
        /// # Errors
        /// Never here.
        pub fn set_by<E>(_: impl FnMut() -> Result<i64, E>) -> Result<Self, E> {
            Ok(Self(()))
        }

        /// Reads it, in nanoseconds.
        #[inline]
        pub fn now_ns(&self) -> i64 {
            read(ClockId::Monotonic)
        }

        /// Tells whether `until_ns` is not past yet.
        ///
        /// The coarse clock, at a tenth of the precise one's cost, tells of most instants that they are surely ahead. The
        /// last moments are left to the precise one, so that everything happens when that clock alone would have it.
        #[inline]
        pub fn within(&self, until_ns: i64) -> bool {
            read(ClockId::MonotonicCoarse) <= until_ns.saturating_sub(LAG_NS) || self.is_within(until_ns)
        }

        /// Tells what `holds` makes of the present instant, where that holds at every instant after one at which it does.
        ///
        /// The coarse clock, which is a little behind, tells it mostly.
        #[inline]
        pub fn at_now(&self, holds: impl Fn(i64) -> bool) -> bool {
            holds(read(ClockId::MonotonicCoarse)) || holds(self.now_ns())
        }

        /// As the precise clock tells it. Out of the way of nearly all callers.
        #[cold]
        fn is_within(&self, until_ns: i64) -> bool {
            self.now_ns() <= until_ns
        }
    }

    #[inline]
    fn read(clock: ClockId) -> i64 {
        let now = clock_gettime(clock);
        now.tv_sec * 1_000_000_000 + now.tv_nsec
    }
}

#[cfg(not(target_os = "linux"))]
mod system {
    use std::time::Instant;

    /// Rust's monotonic clock, set by the host's.
    #[derive(Clone, Debug)]
    pub struct System {
        anchor: Instant,
        anchor_ns: i64,
    }

    impl System {
        /// Makes the clock that `read` reads.
        ///
        /// # Errors
        /// Those of `read`.
        pub fn set_by<E>(mut read: impl FnMut() -> Result<i64, E>) -> Result<Self, E> {
            // The first call is slow; the second follows its anchor at once.
            read()?;
            let anchor = Instant::now();
            Ok(Self { anchor, anchor_ns: read()? })
        }

        /// Reads it, in nanoseconds.
        #[inline]
        pub fn now_ns(&self) -> i64 {
            let elapsed_ns = i64::try_from(self.anchor.elapsed().as_nanos()).unwrap_or(i64::MAX);
            self.anchor_ns.saturating_add(elapsed_ns)
        }

        /// Tells whether `until_ns` is not past yet.
        #[inline]
        pub fn within(&self, until_ns: i64) -> bool {
            self.now_ns() <= until_ns
        }

        /// Tells what `holds` makes of the present instant, where that holds at every instant after one at which it does.
        #[inline]
        pub fn at_now(&self, holds: impl Fn(i64) -> bool) -> bool {
            holds(self.now_ns())
        }
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::System;

    fn clock() -> System {
        let Ok::<_, Infallible>(clock) = System::set_by(|| Ok(7));
        clock
    }

    #[test]
    fn never_goes_back() {
        let clock = clock();
        let readings: Vec<i64> = (0..1_000).map(|_| clock.now_ns()).collect();
        assert!(readings.is_sorted());
    }

    #[test]
    fn what_holds_from_an_instant_on_does_so_when_the_precise_clock_has_reached_it() {
        let clock = clock();
        for ahead_ns in (0..40_000_000).step_by(10_000) {
            let from_ns = clock.now_ns() + ahead_ns - 20_000_000;
            let (before_ns, holds) = (clock.now_ns(), clock.at_now(|now_ns| now_ns >= from_ns));
            assert!(if holds { clock.now_ns() >= from_ns } else { before_ns < from_ns });
        }
    }

    #[test]
    fn an_instant_is_within_until_the_precise_clock_has_passed_it() {
        let clock = clock();
        assert!(clock.within(i64::MAX) && !clock.within(i64::MIN));
        for ahead_ns in (0..40_000_000).step_by(10_000) {
            let until_ns = clock.now_ns() + ahead_ns - 1_000_000;
            let (before_ns, within, after_ns) = (clock.now_ns(), clock.within(until_ns), clock.now_ns());
            assert!(if within { before_ns <= until_ns } else { after_ns > until_ns });
        }
    }
}
