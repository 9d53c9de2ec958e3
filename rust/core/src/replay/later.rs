//! Jobs that come later, by the second in which they do.

use super::flow::{JOB, MOST, part};

/// Seconds; nobody waits longer in a replay than the last but one of them.
const SECONDS: i64 = 4_096;
const LONGEST_US: i64 = (SECONDS - 2) * 1_000_000;

/// A ring of seconds. What comes between two of them is parted between both, in proportion.
#[derive(Debug)]
pub struct Later {
    cells: Box<[i64]>,
    next: i64,
    // Nothing comes in or after this second.
    beyond: i64,
}

impl Default for Later {
    fn default() -> Self {
        Self { cells: vec![0; place(SECONDS - 1) + 1].into(), next: 0, beyond: 0 }
    }
}

impl Later {
    /// Forgets all.
    pub fn clear(&mut self, now_ms: i64) {
        self.cells.fill(0);
        self.next = now_ms / 1_000;
        self.beyond = self.next;
    }

    /// Returns the jobs that have come by now.
    #[inline]
    pub fn take(&mut self, now_ms: i64) -> i64 {
        let second = now_ms / 1_000;
        if self.is_empty() {
            self.next = self.next.max(second + 1);
            return 0;
        }
        self.take_some(second)
    }

    /// Tells whether nobody comes later.
    pub fn is_empty(&self) -> bool {
        self.next >= self.beyond
    }

    fn take_some(&mut self, second: i64) -> i64 {
        let mut come = 0;
        while self.next <= second && self.next < self.beyond {
            let cell = &mut self.cells[place(self.next)];
            come = MOST.min(come + std::mem::take(cell));
            self.next += 1;
        }
        self.next = self.next.max(second + 1);
        come
    }

    /// Adds jobs that come after a time, counted from the last `take`; returns those of them that come at once.
    #[inline]
    pub fn put(&mut self, jobs: i64, after_us: i64) -> i64 {
        if jobs == 0 {
            return 0;
        }
        let after_us = after_us.min(LONGEST_US);
        let (whole, rest) = (after_us / JOB, after_us % JOB);
        let late = part(jobs, rest);
        self.add(self.next + whole, late);
        if whole == 0 {
            return jobs - late;
        }
        self.add(self.next - 1 + whole, jobs - late);
        0
    }

    /// As [`Self::put`]; none of them comes before the next second.
    pub fn put_later(&mut self, jobs: i64, after_us: i64) {
        let at_once = self.put(jobs, after_us);
        self.add(self.next, at_once);
    }

    fn add(&mut self, second: i64, jobs: i64) {
        if jobs > 0 {
            let cell = &mut self.cells[place(second)];
            *cell = MOST.min(*cell + jobs);
            self.beyond = self.beyond.max(second + 1);
        }
    }
}

/// Returns the place of a second in the ring.
#[inline]
fn place(second: i64) -> usize {
    usize::try_from(second & (SECONDS - 1)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::{JOB, Later};

    #[test]
    fn what_comes_between_two_seconds_is_parted() {
        let mut later = Later::default();
        later.clear(10_000);
        assert_eq!(later.take(10_000), 0);
        assert_eq!(later.put(4 * JOB, 250_000), 3 * JOB);
        assert_eq!(later.put(4 * JOB, 2_750_000), 0);
        let come: Vec<i64> = (11..15).map(|second| later.take(second * 1_000) / JOB).collect();
        assert_eq!(come, [1, 1, 3, 0]);
    }

    #[test]
    fn seconds_that_are_left_out_come_together() {
        let mut later = Later::default();
        later.clear(0);
        later.take(0);
        later.put_later(JOB, 0);
        later.put(JOB, 4_000_000_000_000);
        assert_eq!(later.take(3_000), JOB);
        assert_eq!(later.take(9_000_000), JOB);
        assert_eq!(later.take(9_001_000), 0);
    }
}
