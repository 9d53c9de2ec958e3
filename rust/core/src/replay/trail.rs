//! A backlog over time: its peak in each stretch of time, and the highest of all.

/// A clock that jumps by years makes no more; what comes later is all of the last.
const MOST_STRETCHES: usize = 10_000;

/// Peaks of stretches of the same length, the first of which begins with [`Trail::begin`].
#[derive(Debug)]
pub struct Trail {
    stretch_ms: i64,
    ends_ms: i64,
    peaks: Vec<i64>,
    highest: i64,
    /// The highest backlog.
    pub peak: i64,
    /// When it was first that high.
    pub peak_at_ms: i64,
}

impl Trail {
    /// Knows nothing yet.
    pub fn new(stretch_ms: i64) -> Self {
        Self { stretch_ms, ends_ms: 0, peaks: Vec::new(), highest: 0, peak: 0, peak_at_ms: 0 }
    }

    /// Begins the first stretch.
    pub fn begin(&mut self, now_ms: i64) {
        self.ends_ms = now_ms + self.stretch_ms;
    }

    /// Notes a backlog, at an instant that is not before the last one.
    #[inline]
    pub fn note(&mut self, now_ms: i64, backlog: i64) {
        while now_ms >= self.ends_ms && self.peaks.len() < MOST_STRETCHES {
            self.peaks.push(std::mem::take(&mut self.highest));
            self.ends_ms += self.stretch_ms;
        }
        self.highest = self.highest.max(backlog);
        if backlog > self.peak {
            (self.peak, self.peak_at_ms) = (backlog, now_ms);
        }
    }

    /// Returns the peaks, that of the stretch which has not ended among them.
    pub fn told(&self) -> Vec<i64> {
        self.peaks.iter().copied().chain([self.highest]).collect()
    }
}
