//! The edges of a lease; `tests/vectors` holds what lies between them.

use std::thread;

use super::{Lease, LineWord, MILLION, MOST_LEFT, MOST_USED, NEVER_US, ShareWord, Terms};
use crate::sync::Ordering::Relaxed;

const SECOND_US: i64 = 1_000_000;
const ALL_FITS: Terms = Terms {
    share_ppm: MILLION,
    cap_jobs: 100,
    rate_ujobs_per_s: 0,
    burst_ujobs: MILLION,
    fill: false,
    remainder_ppm: 0,
};

fn lease(terms: Terms) -> Lease {
    let lease = Lease::new(0);
    lease.renew(0, terms);
    lease
}

fn at_rate(jobs_per_s: u64) -> Lease {
    let burst_ujobs = 2 * MILLION;
    lease(Terms { rate_ujobs_per_s: jobs_per_s * MILLION, burst_ujobs, ..Terms::default() })
}

fn went(lease: &Lease, offers: usize) -> usize {
    (0..offers).filter(|_| lease.offer()).count()
}

#[test]
fn before_the_first_terms_nobody_goes() {
    let lease = Lease::new(MILLION - 1);
    assert!(!lease.offer());
    assert!(!lease.take_share());
    assert!(!lease.take_saved(i64::MAX));
    assert_eq!(lease.foresee_us(i64::MAX), NEVER_US);
    assert!(!lease.is_used_up());
}

#[test]
fn exactly_the_share_goes_and_evenly() {
    for (share_ppm, goes) in [(0, 0), (1, 0), (250_000, 25), (999_999, 99), (MILLION, 100)] {
        assert_eq!(went(&lease(Terms { share_ppm, ..ALL_FITS }), 100), goes, "{share_ppm}");
    }
    let quarter = lease(Terms { share_ppm: 250_000, ..ALL_FITS });
    assert_eq!([(); 8].map(|()| quarter.offer()), [false, false, false, true, false, false, false, true]);
}

#[test]
fn while_all_fits_half_of_the_cap_is_left_to_who_tells_of_more() {
    for (cap_jobs, goes) in [(0, 0), (1, 0), (2, 1), (9, 4), (100, 50)] {
        let lease = lease(Terms { cap_jobs, ..ALL_FITS });
        assert_eq!((0..200).filter(|_| lease.take_share()).count(), goes, "{cap_jobs}");
        assert_eq!(u64::try_from(went(&lease, 200) + goes).unwrap(), cap_jobs);
    }
    let not_all = Lease::new(MILLION - 1);
    not_all.renew(0, Terms { share_ppm: MILLION - 1, cap_jobs: 9, ..ALL_FITS });
    assert_eq!((0..200).filter(|_| not_all.take_share()).count(), 9);
}

#[test]
fn where_the_lease_lets_none_go_by_itself_nothing_has_happened() {
    for terms in [Terms { share_ppm: MILLION / 2, ..ALL_FITS }, Terms { cap_jobs: 1, ..ALL_FITS }, Terms::default()] {
        let lease = lease(terms);
        let before = (lease.share(), lease.line());
        assert_eq!((lease.take_share(), lease.take_saved(0)), (false, false));
        assert_eq!((lease.share(), lease.line(), lease.take_counts()), (before.0, before.1, (0, 0, 0)));
    }
}

#[test]
fn of_stale_terms_none_goes_by_itself_but_the_one_that_is_not_all() {
    let aged = lease(ALL_FITS);
    assert!(aged.offer_stale(true));
    aged.prolong();
    assert!(!aged.take_share(), "half of one is none");
    let half = lease(Terms { share_ppm: MILLION / 2, ..ALL_FITS });
    half.offer_stale(true);
    assert_eq!([(); 2].map(|()| half.take_share()), [true, false]);
}

#[test]
fn each_that_goes_by_itself_is_counted_until_that_is_fetched() {
    let lease = lease(Terms { burst_ujobs: 2 * MILLION, fill: true, ..ALL_FITS });
    assert!(lease.take_share());
    assert!(lease.offer(), "counted by who asked");
    assert_eq!([(); 3].map(|()| lease.take_saved(0)), [true, true, false]);
    assert_eq!((lease.take_counts(), lease.take_counts()), ((1, 2, 0), (0, 0, 0)));
    assert!(lease.take_share());
    lease.renew(0, ALL_FITS);
    assert_eq!(lease.take_counts(), (1, 0, 0));
}

#[test]
fn what_is_refused_by_itself_is_what_an_offer_would_be() {
    for (share_ppm, cap_jobs) in [(0, 9), (1, 9), (250_000, 9), (999_999, 100), (250_000, 0), (999_999, 2)] {
        let [alone, asked] = [(); 2].map(|()| lease(Terms { share_ppm, cap_jobs, ..ALL_FITS }));
        let renewal = alone.renewal();
        let mut refused = 0;
        for _ in 0..300 {
            let goes = asked.offer();
            refused += u64::from(!goes);
            assert_eq!(alone.refuse_share(renewal), !goes);
            assert_eq!(goes && alone.offer(), goes);
            assert_eq!(alone.share(), asked.share());
        }
        assert_eq!((alone.take_counts(), alone.take_counts()), ((0, 0, refused), (0, 0, 0)));
    }
}

#[test]
fn where_the_lease_refuses_none_by_itself_nothing_has_happened() {
    let goes = lease(Terms { share_ppm: MILLION / 2, ..ALL_FITS });
    goes.offer();
    let used_up = lease(Terms { cap_jobs: 1, ..ALL_FITS });
    used_up.offer();
    let none_fits = lease(Terms { share_ppm: 0, ..ALL_FITS });
    for (lease, renewal) in [(goes, 1), (used_up, 1), (lease(ALL_FITS), 1), (none_fits, 0)] {
        let before = lease.share();
        assert!(!lease.refuse_share(renewal));
        assert_eq!((lease.share(), lease.take_counts()), (before, (0, 0, 0)));
    }
}

#[test]
fn terms_are_told_from_the_last_ones() {
    let lease = Lease::new(0);
    let renewals = [(); 3].map(|()| {
        let before = lease.renewal();
        lease.renew(0, Terms::default());
        assert_ne!(lease.renewal(), before);
        assert_eq!((lease.refuse_share(before), lease.refuse_share(lease.renewal())), (false, true));
        before
    });
    assert_eq!(renewals, [0, 1, 2]);
}

#[test]
fn a_cap_of_0_lets_nobody_go_and_keeps_what_was_carried() {
    let lease = Lease::new(7);
    lease.renew(0, Terms { cap_jobs: 0, ..ALL_FITS });
    assert_eq!(went(&lease, 3), 0);
    assert!(lease.is_used_up());
    assert_eq!(lease.share().carry_ppm, 7);
}

#[test]
fn what_is_used_fits_into_the_word() {
    let lease = lease(Terms { cap_jobs: u64::MAX, ..ALL_FITS });
    let full = ShareWord { used: MOST_USED - 1, ..lease.share() };
    lease.share.store(full.pack(), Relaxed);
    assert_eq!((went(&lease, 3), lease.share().used), (1, MOST_USED));
}

#[test]
fn a_share_beyond_all_is_all() {
    let lease = lease(Terms { share_ppm: u64::MAX, ..ALL_FITS });
    assert_eq!((went(&lease, 3), lease.share().carry_ppm), (3, 0));
}

#[test]
fn by_stale_terms_one_goes() {
    let aged = lease(ALL_FITS);
    assert_eq!(went(&aged, 50), 50);
    assert_eq!([(); 3].map(|()| aged.offer_stale(true)), [true, false, false]);
    aged.prolong();
    assert_eq!(went(&aged, 2), 1, "they stay stale until an answer comes");
    aged.renew(0, ALL_FITS);
    assert_eq!(went(&aged, 101), 100);
    let used_up = lease(Terms { cap_jobs: 3, ..ALL_FITS });
    assert_eq!(went(&used_up, 3), 3);
    assert!(!used_up.offer_stale(false));
}

#[test]
fn the_renewal_in_a_word_goes_around() {
    let lease = lease(ALL_FITS);
    for round in 0..600 {
        assert_eq!(went(&lease, 2), 2);
        lease.take_ticket();
        lease.leave_places(1);
        lease.renew(round, ALL_FITS);
        let granted = lease.granted();
        assert_eq!(ShareWord::unpack(lease.share.load(Relaxed)), lease.share(), "stepped by the renewal itself");
        assert_eq!((lease.share().used, lease.line().left, lease.line().taken), (0, 0, granted.taken));
    }
    assert_eq!(lease.granted().number, 601);
    let last = ShareWord { renewal: (1 << 22) - 1, used: 5, ..lease.share() };
    assert_eq!(last.under(1 << 22), ShareWord { renewal: 0, used: 0, ..last });
    assert_eq!(last.under((1 << 23) - 1), last);
}

#[test]
fn they_go_first_come_first_served_at_the_rate() {
    let lease = at_rate(10);
    let due_us = [(); 5].map(|()| lease.due_in_us(lease.take_ticket(), 0));
    assert_eq!(due_us, [100_000, 200_000, 300_000, 400_000, 500_000]);
    assert_eq!(lease.foresee_us(0), 600_000);
}

#[test]
fn a_due_time_is_exact() {
    let lease = Lease::new(123_457);
    lease.renew(0, Terms { rate_ujobs_per_s: 3 * MILLION + 1, burst_ujobs: MILLION, ..Terms::default() });
    let ticket = lease.take_ticket();
    let due_us = i64::try_from(lease.due_in_us(ticket, 0)).unwrap();
    assert_eq!((lease.due_in_us(ticket, due_us), lease.due_in_us(ticket, due_us - 1)), (0, 1));
}

#[test]
fn a_debt_is_kept_and_savings_up_to_a_burst() {
    let lease = at_rate(1);
    let tickets = [(); 4].map(|()| lease.take_ticket());
    lease.renew(SECOND_US, Terms { rate_ujobs_per_s: 100 * MILLION, burst_ujobs: 2 * MILLION, ..Terms::default() });
    assert_eq!(lease.granted().saved_ujobs, -3_000_000);
    assert_eq!(tickets.map(|ticket| lease.due_in_us(ticket, SECOND_US)), [0, 10_000, 20_000, 30_000]);
    lease.renew(90 * SECOND_US, Terms { burst_ujobs: 5 * MILLION, ..Terms::default() });
    assert_eq!(lease.granted().saved_ujobs, 2_000_000, "the old burst");
    lease.renew(90 * SECOND_US, Terms { burst_ujobs: MILLION, ..Terms::default() });
    assert_eq!(lease.granted().saved_ujobs, 1_000_000, "the new burst");
    lease.renew(90 * SECOND_US, Terms { burst_ujobs: 3 * MILLION, fill: true, ..Terms::default() });
    assert_eq!([(); 4].map(|()| lease.take_saved(90 * SECOND_US)), [true, true, true, false]);
}

#[test]
fn who_gives_up_leaves_the_place_to_those_behind() {
    let lease = at_rate(10);
    let [_, second] = [(); 2].map(|()| lease.take_ticket());
    lease.leave_places(1);
    assert_eq!(lease.due_in_us(second, 0), 100_000);
    lease.renew(0, lease.granted().terms);
    assert_eq!((lease.due_in_us(second, 0), lease.line().left), (100_000, 0));
}

#[test]
fn places_beyond_the_words_are_lost() {
    let lease = at_rate(1);
    let before = lease.line();
    lease.leave_places(u64::MAX);
    lease.leave_places(1);
    assert_eq!(lease.line(), LineWord { left: MOST_LEFT, ..before });
}

#[test]
fn tickets_are_counted_around() {
    let lease = Lease::new(0);
    lease.line.store(LineWord { taken: u32::MAX - 1, ..lease.line() }.pack(), Relaxed);
    // Before the first terms the line stands two tickets behind its beginning: their jobs went.
    lease.renew(0, Terms { rate_ujobs_per_s: 10 * MILLION, fill: true, ..Terms::default() });
    let tickets = [(); 3].map(|()| lease.take_ticket());
    assert_eq!(tickets, [u32::MAX, 0, 1]);
    assert_eq!(tickets.map(|ticket| lease.due_in_us(ticket, 0)), [100_000, 200_000, 300_000]);
    assert_eq!(lease.line().renewal, 1);
    lease.renew(0, Terms { rate_ujobs_per_s: 10 * MILLION, ..Terms::default() });
    assert_eq!(tickets.map(|ticket| lease.due_in_us(ticket, 100_000)), [0, 100_000, 200_000]);
}

#[test]
fn times_and_rates_saturate() {
    let most = Terms { rate_ujobs_per_s: u64::MAX, burst_ujobs: u64::MAX, ..Terms::default() };
    let lease = lease(most);
    let ticket = lease.take_ticket();
    assert_eq!(lease.due_in_us(ticket, i64::MAX), 0);
    lease.renew(i64::MIN, most);
    lease.renew(i64::MAX, most);
    assert_eq!(lease.granted().saved_ujobs, 1 << 62);
    lease.renew(i64::MIN, Terms::default());
    assert_eq!(lease.granted().saved_ujobs, -1 << 62);
    assert_eq!(lease.due_in_us(ticket, i64::MIN), NEVER_US);
    let slow = at_rate(0);
    assert_eq!(slow.due_in_us(slow.take_ticket(), i64::MAX), NEVER_US);
    slow.renew(0, Terms { rate_ujobs_per_s: 1, ..Terms::default() });
    assert_eq!(slow.foresee_us(0), NEVER_US);
    assert_eq!(slow.foresee_us(i64::MIN), NEVER_US);
}

#[test]
fn threads_lose_nothing_while_terms_come() {
    const EACH: u64 = 2_000;
    let terms = Terms { share_ppm: MILLION / 4, cap_jobs: MOST_USED, burst_ujobs: 10_000 * MILLION, ..ALL_FITS };
    let lease = lease(Terms { burst_ujobs: 100 * MILLION, fill: true, ..terms });
    let went: u64 = thread::scope(|scope| {
        let workers = [(); 3].map(|()| {
            scope.spawn(|| {
                let mut went = 0;
                for number in 0..EACH {
                    went += u64::from(lease.offer());
                    lease.take_ticket();
                    if number % 2 == 0 {
                        lease.leave_places(1);
                    }
                    if number % 100 == 0 {
                        lease.renew(0, terms);
                    }
                }
                went
            })
        });
        workers.map(|worker| worker.join().unwrap()).iter().sum()
    });
    lease.renew(0, terms);
    assert_eq!(went, 3 * EACH / 4);
    assert_eq!(u64::from(lease.line().taken), 3 * EACH);
    assert_eq!(lease.granted().saved_ujobs, (100 - 3_000) * 1_000_000);
    assert_eq!(lease.granted().number, 3 * EACH / 100 + 2);
}

#[test]
fn what_a_tenant_is_let_go_by_itself_is_what_its_offers_would_be() {
    for (share_ppm, cap_jobs) in [(0, 9), (250_000, 9), (999_999, 100), (250_000, 0), (999_999, 2), (MILLION, 50)] {
        let terms = Terms { share_ppm, cap_jobs, ..ALL_FITS };
        let [alone, asked] = [(); 2].map(|()| {
            let lease = lease(terms);
            lease.deal(7);
            lease
        });
        let (renewal, place) = (alone.renewal(), 3 << 8 | 5);
        for _ in 0..300 {
            let Some(goes) = alone.decide_for(place, renewal, true) else {
                assert!(share_ppm == MILLION, "a part of it is left to who decides");
                break;
            };
            assert_eq!(asked.offer_for(place), goes);
            assert_eq!(alone.share(), asked.share());
        }
        let [alone, asked] = [&alone, &asked].map(|lease| {
            lease.renew(0, terms);
            lease.tenants().map(|tenants| (tenants.asks(place), tenants.share_ppm(place)))
        });
        assert_eq!(alone, asked);
    }
}

#[test]
fn where_a_tenant_is_not_decided_about_nothing_has_happened() {
    let dealt = lease(Terms { share_ppm: 0, ..ALL_FITS });
    assert_eq!(dealt.decide_for(0, dealt.renewal(), true), None, "nothing is dealt yet");
    dealt.deal(7);
    let (before, renewal) = (dealt.share(), dealt.renewal());
    assert_eq!((dealt.decide_for(0, renewal, false), dealt.decide_for(0, renewal + 1, true)), (None, None));
    assert_eq!((dealt.share(), dealt.take_counts()), (before, (0, 0, 0)));
    assert_eq!((dealt.decide_for(0, renewal, true), dealt.take_counts()), (Some(false), (0, 0, 1)));
}

#[test]
fn old_terms_let_a_tenant_go_once() {
    let lease = lease(ALL_FITS);
    let tenants = lease.deal(7);
    let place = tenants.place_of(1, 0);
    assert_eq!([(); 2].map(|()| lease.offer_stale_for(place, true)), [true, false]);
    lease.renew(0, ALL_FITS);
    assert!(lease.offer_for(place));
}
