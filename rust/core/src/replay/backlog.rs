//! Jobs that wait in a simulated queue, by when they came, until workers take them.

use std::collections::VecDeque;

use super::flow::{JOB, MOST};
use super::row::Row;
use super::trail::Trail;

/// Millionths of jobs.
#[derive(Debug)]
pub struct Backlog {
    /// That wait.
    pub jobs: i64,
    /// Age of the oldest job that ever waited.
    pub longest_wait_ms: i64,
    /// The backlog over time.
    pub trail: Trail,
    waiting: VecDeque<(i64, i64)>,
}

impl Backlog {
    /// Knows nothing yet.
    pub fn new(trail_ms: i64) -> Self {
        Self { jobs: 0, longest_wait_ms: 0, trail: Trail::new(trail_ms), waiting: VecDeque::new() }
    }

    /// Begins anew with what was recorded.
    pub fn begin(&mut self, row: &Row) {
        self.jobs = row.backlog() * JOB;
        self.waiting.clear();
        if self.jobs > 0 {
            self.waiting.push_back((self.jobs, row.at_ms() - row.oldest_age_ms().clamp(0, row.at_ms())));
        }
        self.trail.note(row.at_ms(), self.jobs);
    }

    /// Returns how long the oldest job waits.
    pub fn oldest_ms(&self, now_ms: i64) -> i64 {
        self.waiting.front().map_or(0, |(_, since_ms)| now_ms - since_ms)
    }

    /// Lets jobs in, and workers take what they can in a step of time.
    #[inline]
    pub fn work(&mut self, come: i64, capacity: i64, now_ms: i64, step_ms: i64) {
        let have = (self.jobs + come).min(MOST);
        let come = have - self.jobs;
        let mut out = have.min(capacity);
        self.jobs = have - out;
        if self.jobs == 0 {
            self.waiting.clear();
        } else {
            if come > 0 {
                self.waiting.push_back((come, now_ms));
            }
            while let Some((jobs, since_ms)) = self.waiting.front_mut() {
                if out < *jobs {
                    *jobs -= out;
                    self.longest_wait_ms = self.longest_wait_ms.max(now_ms + step_ms - *since_ms);
                    break;
                }
                out -= *jobs;
                self.waiting.pop_front();
            }
        }
        self.trail.note(now_ms + step_ms, self.jobs);
    }
}
