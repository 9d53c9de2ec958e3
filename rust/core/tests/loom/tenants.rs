//! The words of tenants' buckets while the water level is set anew: no offer counted twice, none lost.

use std::sync::Arc;

use backpressure_core::lease::{Lease, MILLION, Tenants, Terms};

use crate::{assert_ends, assert_ends_within, race};

const ONE: u64 = 1 << 16;
/// In a model there are two buckets a row: this place has the first of both.
const PLACE: u32 = 0;

fn tenants(share_ppm: u64) -> Arc<Tenants> {
    let tenants = Tenants::new(1, share_ppm);
    // What makes a class is not modelled, so it is made before threads start.
    assert_eq!(tenants.take(PLACE), share_ppm == MILLION);
    tenants.renew(share_ppm);
    Arc::new(tenants)
}

/// Renews, and returns how many offers were found in each of the buckets. Here they are smoothed by halves.
fn found(tenants: &Tenants) -> [u64; 2] {
    let before = tenants.asks(PLACE);
    tenants.renew(MILLION);
    let after = tenants.asks(PLACE);
    [0, 1].map(|row| (2 * after[row] - before[row]) / ONE)
}

#[test]
fn every_offer_is_counted_once() {
    // Before the renewal or after it, in each of the buckets.
    let ways = [[0, 0], [0, 1], [0, 2], [1, 0], [1, 1], [1, 2], [2, 1], [2, 2]];
    assert_ends_within(2, ways, || {
        let tenants = tenants(MILLION);
        let take: fn(&Tenants) -> [u64; 2] = |tenants| [u64::from(tenants.take(PLACE)); 2];
        let gave = race(&tenants, [take, take, found]);
        assert_eq!(gave[..2], [[1, 1]; 2]);
        let (first, rest) = (gave[2], found(&tenants));
        assert_eq!([0, 1].map(|row| first[row] + rest[row]), [2, 2]);
        first
    });
}

#[test]
fn what_is_carried_lets_one_go() {
    // Half a job each: of two offers one goes, whoever comes first and whatever the renewal does meanwhile.
    assert_ends([1], || {
        let tenants = Tenants::new(1, MILLION / 2);
        tenants.offer(PLACE);
        let tenants = Arc::new(tenants);
        let offer: fn(&Tenants) -> usize = |tenants| usize::from(tenants.offer(PLACE));
        race(&tenants, [offer, offer]).iter().sum::<usize>()
    });
}

#[test]
fn who_takes_beside_a_refusal_takes_once() {
    assert_ends([1], || {
        let tenants = Tenants::new(1, MILLION / 2);
        tenants.offer(PLACE);
        let tenants = Arc::new(tenants);
        let take: fn(&Tenants) -> usize = |tenants| usize::from(tenants.take(PLACE));
        race(&tenants, [take, take]).iter().sum::<usize>()
    });
}

const ONE_FITS: Terms =
    Terms { share_ppm: MILLION, cap_jobs: 2, rate_ujobs_per_s: 0, burst_ujobs: 0, fill: false, remainder_ppm: 0 };

#[test]
fn every_terms_let_their_cap_go_once_to_tenants() {
    // Half of a cap of two is left to who decides: one by each terms, both before the new ones come, or after.
    assert_ends_within(2, [(1, 0), (1, 1), (2, 0)], || {
        let lease = Lease::new(0);
        lease.renew(0, ONE_FITS);
        let place = lease.deal(1).place_of(0, 0);
        assert_eq!(place, PLACE);
        lease.tenants().map(|tenants| tenants.take(PLACE)); // makes the class
        let lease = Arc::new(lease);
        let take: fn(&Lease) -> usize =
            |lease| (1..3).filter_map(|renewal| lease.decide_for(PLACE, renewal, false)).count();
        let went = race(
            &lease,
            [take, take, |lease| {
                lease.renew(0, ONE_FITS);
                0
            }],
        );
        let went = went.iter().sum::<usize>();
        assert_eq!(lease.take_counts().0, went as u64);
        let after = [(); 3].map(|()| lease.decide_for(PLACE, 2, false));
        (went, after.iter().flatten().count())
    });
}
