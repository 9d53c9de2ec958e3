//! The counters: nothing is lost, whoever reads meanwhile.

use std::sync::Arc;

use backpressure_core::counters::{Counters, Row, Totals};
use backpressure_core::vocabulary::Reason::{BacklogGreen, BacklogRed};

use crate::{assert_ends, race};

fn count(counters: &Counters) -> u64 {
    counters.totals().reasons.iter().sum()
}

#[test]
fn no_count_is_lost_and_readings_only_grow() {
    assert_ends([0, 1, 2], || {
        let counters = Arc::new(Counters::default());
        let [_, _, seen] = race(
            &counters,
            [
                |counters| {
                    counters.count(Row::of(BacklogGreen, true), 0, false);
                    0
                },
                |counters| {
                    counters.count(Row::of(BacklogGreen, true), 0, false);
                    0
                },
                |counters| {
                    let (first, second) = (count(counters), count(counters));
                    assert!(first <= second);
                    second
                },
            ],
        );
        assert_eq!(count(&counters), 2);
        seen
    });
}

#[test]
fn what_is_added_and_what_is_counted_add_up() {
    assert_ends([()], || {
        let counters = Arc::new(Counters::default());
        race(
            &counters,
            [
                |counters: &Counters| counters.count(Row::of(BacklogRed, true), 5, true),
                |counters| {
                    let mut totals = Totals { computed: 2, delay_sum_ns: 10, ..Totals::default() };
                    totals.reasons[BacklogRed.index()] = 3;
                    totals.delays[0] = 2;
                    counters.add(&totals);
                },
            ],
        );
        let totals = counters.totals();
        assert_eq!((totals.reasons[BacklogRed.index()], totals.computed), (4, 3));
        assert_eq!((totals.delays[0], totals.delay_sum_ns), (3, 15));
    });
}
