//! The lease's words while terms are replaced: no permit twice, none lost, no place in the line changed.

use std::sync::Arc;

use backpressure_core::lease::{Lease, MILLION, Terms};

use crate::{assert_ends, race};

const ONE_FITS: Terms =
    Terms { share_ppm: MILLION, cap_jobs: 1, rate_ujobs_per_s: 0, burst_ujobs: 0, fill: false, remainder_ppm: 0 };
const HALF: Terms = Terms { share_ppm: MILLION / 2, cap_jobs: 9, ..ONE_FITS };

/// Terms under which so many may go at once.
const fn saved(jobs: u64, fill: bool) -> Terms {
    Terms { burst_ujobs: jobs * MILLION, fill, ..ONE_FITS }
}

fn lease(terms: Terms) -> Arc<Lease> {
    let lease = Lease::new(0);
    lease.renew(0, terms);
    Arc::new(lease)
}

/// Returns how many jobs are released and not taken; below 0, how many wait.
fn left_over(lease: &Lease) -> i64 {
    let (granted, line) = (lease.granted(), lease.line());
    let taken = line.taken.wrapping_sub(granted.taken).cast_signed();
    granted.saved_ujobs / 1_000_000 + line.left.cast_signed() - i64::from(taken)
}

fn renew(lease: &Lease, terms: Terms) -> bool {
    lease.renew(0, terms);
    false
}

fn goes(lease: &Lease) -> bool {
    let ticket = lease.take_ticket();
    lease.due_in_us(ticket, 0) == 0
}

fn count(went: &[bool]) -> usize {
    went.iter().filter(|&&went| went).count()
}

#[test]
fn every_terms_let_their_cap_go_once() {
    // Both offers under the new terms; both under the old ones, or one under each.
    assert_ends([(1, false), (1, true), (2, false)], || {
        let lease = lease(ONE_FITS);
        let went = race(&lease, [Lease::offer, Lease::offer, |lease| renew(lease, ONE_FITS)]);
        let after = lease.offer();
        assert!(!lease.offer());
        (count(&went), after)
    });
}

#[test]
fn what_a_lease_lets_go_by_itself_goes_once_and_is_counted_once() {
    // One of a cap of two under each of the terms: both come before the new ones, after them, or one before.
    assert_ends([(1, 0), (1, 1), (2, 0)], || {
        let two_fit = Terms { cap_jobs: 2, ..ONE_FITS };
        let lease = lease(two_fit);
        let went = race(
            &lease,
            [Lease::take_share, Lease::take_share, |lease| renew(lease, Terms { cap_jobs: 2, ..ONE_FITS })],
        );
        let went = count(&went);
        assert_eq!(lease.take_counts(), (went as u64, 0, 0));
        let after = [(); 3].map(|()| lease.take_share());
        (went, count(&after))
    });
}

#[test]
fn an_offer_and_what_the_lease_lets_go_by_itself_share_what_is_carried() {
    // Half a job is carried, and the next half makes one of it: for one of the two, whatever the terms.
    assert_ends([(false, true), (true, false)], || {
        let lease = lease(HALF);
        lease.offer();
        let went =
            race(&lease, [|lease: &Lease| lease.take_share(), |lease| lease.offer(), |lease| renew(lease, HALF)]);
        assert_eq!(lease.take_counts().0, u64::from(went[0]));
        (went[0], went[1])
    });
}

#[test]
fn an_offer_and_what_the_lease_refuses_by_itself_share_what_is_carried() {
    // Of two halves the first is refused, and the second goes, whoever comes first.
    assert_ends([(false, false), (true, true)], || {
        let lease = lease(HALF);
        let told = race(&lease, [|lease: &Lease| lease.refuse_share(1), |lease| lease.offer()]);
        assert_eq!(lease.take_counts(), (0, 0, u64::from(told[0])));
        assert_eq!(lease.share().carry_ppm, if told[0] { 0 } else { MILLION / 2 });
        (told[0], told[1])
    });
}

#[test]
fn what_the_lease_refuses_by_itself_is_refused_by_the_terms_that_were_meant() {
    assert_ends([(false, true), (true, true)], || {
        let lease = lease(HALF);
        let refused = race(
            &lease,
            [
                |lease: &Lease| lease.refuse_share(1),
                |lease| {
                    lease.renew(0, Terms { share_ppm: MILLION / 4, ..HALF });
                    lease.refuse_share(2)
                },
            ],
        );
        let carried = MILLION / 2 * u64::from(refused[0]) + MILLION / 4 * u64::from(refused[1]);
        assert_eq!((lease.share().carry_ppm, lease.take_counts().2), (carried, count(&refused) as u64));
        (refused[0], refused[1])
    });
}

#[test]
fn counts_are_fetched_once_while_jobs_go() {
    assert_ends([(0, 2), (1, 1), (2, 0)], || {
        let lease = lease(HALF);
        lease.renew(0, Terms { cap_jobs: 9, ..ONE_FITS });
        let fetched = race(
            &lease,
            [
                |lease: &Lease| u64::from(!lease.take_share()),
                |lease| u64::from(!lease.take_share()),
                |lease| lease.take_counts().0,
            ],
        );
        assert_eq!(fetched[..2], [0, 0]);
        (fetched[2], lease.take_counts().0)
    });
}

#[test]
fn what_an_offer_carries_outlasts_its_terms() {
    assert_ends([1], || {
        let lease = lease(HALF);
        let went = race(&lease, [Lease::offer, Lease::offer, |lease| renew(lease, HALF)]);
        assert_eq!(lease.share().carry_ppm, 0);
        count(&went)
    });
}

#[test]
fn an_offer_sees_the_terms_of_a_renewal_before_it() {
    assert_ends([(false, true), (true, false)], || {
        let lease = lease(ONE_FITS);
        lease.offer();
        let went = race(
            &lease,
            [
                |lease: &Lease| lease.offer(),
                |lease| {
                    lease.renew(0, ONE_FITS);
                    lease.offer()
                },
            ],
        );
        (went[0], went[1])
    });
}

#[test]
fn stale_terms_let_one_go_and_do_not_outlast_an_answer() {
    assert_ends([(true, 0), (true, 2)], || {
        let lease = lease(ONE_FITS);
        lease.offer();
        let both = Terms { cap_jobs: 2, ..ONE_FITS };
        lease.renew(0, both);
        let went = race(
            &lease,
            [|lease: &Lease| lease.offer_stale(true), |lease| renew(lease, Terms { cap_jobs: 2, ..ONE_FITS })],
        );
        (went[0], count(&[(); 3].map(|()| lease.offer())))
    });
}

#[test]
fn a_ticket_is_of_the_old_terms_or_the_new() {
    // Two are saved, and the new terms keep one of them: lost only where no ticket came before.
    assert_ends([(1, -1), (2, 0)], || {
        let lease = lease(saved(2, true));
        let went = race(&lease, [goes, goes, |lease| renew(lease, saved(1, false))]);
        (count(&went), left_over(&lease))
    });
}

#[test]
fn what_is_saved_is_taken_once() {
    assert_ends([1], || {
        let lease = lease(saved(1, true));
        let take: fn(&Lease) -> bool = |lease| lease.take_saved(0);
        let went = race(&lease, [take, take, |lease| renew(lease, saved(1, false))]);
        assert_eq!(left_over(&lease), 0);
        count(&went)
    });
}

#[test]
fn a_place_that_is_left_is_not_lost() {
    assert_ends([-1], || {
        let lease = lease(saved(0, false));
        lease.take_ticket();
        race(
            &lease,
            [
                |lease: &Lease| lease.leave_places(1),
                |lease| assert_ne!(lease.take_ticket(), 1),
                |lease| lease.renew(0, saved(0, false)),
            ],
        );
        left_over(&lease)
    });
}

#[test]
fn a_place_is_left_before_the_burst_is_filled_or_after() {
    // Never filled beside a place that was seen to be left before.
    assert_ends([(1, 1), (2, 1), (2, 2)], || {
        let lease = lease(saved(0, false));
        lease.take_ticket();
        let seen = race(
            &lease,
            [
                |lease: &Lease| {
                    lease.leave_places(1);
                    lease.line().renewal
                },
                |lease| {
                    lease.renew(0, saved(1, true));
                    0
                },
            ],
        );
        (seen[0], left_over(&lease))
    });
}

#[test]
fn a_ticket_taken_while_terms_come_twice_is_in_both() {
    // Where it came first, the fill forgives what it was owed, though it may be seen to wait before.
    assert_ends([(false, -1), (false, 0), (true, 0)], || {
        let lease = lease(saved(0, false));
        let went = race(
            &lease,
            [goes, |lease| {
                lease.renew(0, saved(1, true));
                renew(lease, saved(0, false))
            }],
        );
        assert_eq!((lease.granted().number, lease.line().taken), (3, 1));
        (went[0], left_over(&lease))
    });
}

#[test]
fn a_place_that_is_left_counts_once_while_terms_come_twice() {
    assert_ends([false], || {
        let lease = lease(saved(0, false));
        lease.take_ticket();
        lease.take_ticket();
        lease.leave_places(1);
        let due = race(
            &lease,
            [
                |lease: &Lease| lease.due_in_us(2, 0) == 0,
                |lease| {
                    lease.renew(0, saved(0, false));
                    renew(lease, saved(0, false))
                },
            ],
        );
        due[0]
    });
}

#[test]
fn renewals_come_one_after_the_other() {
    assert_ends([1, 9], || {
        let lease = lease(saved(0, false));
        race(
            &lease,
            [
                |lease: &Lease| lease.renew(0, HALF),
                |lease| lease.renew(0, saved(0, false)),
                |lease| assert_eq!(lease.take_ticket(), 1),
            ],
        );
        assert_eq!((lease.granted().number, left_over(&lease)), (3, -1));
        lease.granted().terms.cap_jobs
    });
}
