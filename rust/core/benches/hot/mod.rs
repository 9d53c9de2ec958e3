//! The core's hot functions, each as a closure that does its work once. Timed by `core`, counted by `instructions`.

mod decision;

use std::convert::Infallible;
use std::hint::black_box;
use std::sync::Arc;

use backpressure_core::breaker::{Breaker, Outcome, Ticket, at};
use backpressure_core::counters::{Counters, Row};
use backpressure_core::laws::law::Law;
use backpressure_core::laws::three_zone::{LawSettings, Scale, ThreeZoneLaw};
use backpressure_core::lease::{Lease, MILLION, MOST_USED, Tenants, Terms};
use backpressure_core::queue::{Kind, Place, Queue, Ready};
use backpressure_core::sample::Sample;
use backpressure_core::settings::CircuitSettings;
use backpressure_core::vocabulary::{Priority, Reason};
use backpressure_core::zone::Window;

const MS: i64 = 1_000_000;

/// A function under measurement, and its name.
pub type Case = (&'static str, Box<dyn FnMut()>);

/// Returns all of them, in the order of a decision: ready answer, law, breaker, counters, lease, and the whole.
pub fn cases() -> Vec<Case> {
    let mut cases = cache();
    cases.extend(law());
    cases.extend(breaker());
    cases.extend(counters());
    cases.extend(lease());
    cases.extend(tenants());
    cases.push(case("decision_computed", decision::computed()));
    cases.push(case("decision_delayed", decision::delayed()));
    cases
}

fn case<R>(name: &'static str, mut work: impl FnMut() -> R + 'static) -> Case {
    let work = move || {
        black_box(work());
    };
    (name, Box::new(work))
}

fn circuit() -> Arc<CircuitSettings> {
    Arc::new(CircuitSettings {
        failure_threshold: 5,
        recovery_threshold: 3,
        trip_window_ms: 60_000,
        recovery_timeout_ms: 60_000,
        probe_interval_ms: 5_000,
        high_attempts: false,
    })
}

fn law_settings() -> LawSettings {
    LawSettings {
        windows: [[100, 500, 1_000], [500, 2_000, 5_000], [1_000, 5_000, 10_000]]
            .map(|[green_max, yellow_max, red_max]| Window { green_max, yellow_max, red_max }),
        yellow_min_ns: 10_000_000,
        yellow_max_ns: 500_000_000,
        red_max_ns: 5_000_000_000,
        scales: [(3, 2), (1, 1), (1, 2)].map(|(num, den)| Scale { num, den }),
        shed_permille: 800,
        scale_yellow: true,
        memory_permille: None,
    }
}

fn ready() -> Ready<u64> {
    Ready {
        decision: 7,
        epoch: 1,
        sample: 1,
        word: 0,
        until_ns: i64::MAX,
        until_count: u64::MAX,
        row: Row::of(Reason::BacklogGreen, true),
        kind: Kind::Go,
        lease: None,
        renewal: 0,
        refusal: None,
    }
}

/// What a cache hit does in the core: compare, share the answer, count.
fn cache() -> Vec<Case> {
    let hit = Queue::<u64>::new(circuit(), 0, 0);
    hit.put_sample(0, 0, None, None);
    hit.asked(Priority::Medium).ready.put(ready());
    let replaced = Queue::<u64>::new(circuit(), 0, 0);
    let sampled = Queue::<u64>::new(circuit(), 0, 0);
    vec![
        case("cache_hit", move || {
            let found = black_box(&hit).ready(Priority::Medium, 1, |ready| Some((ready.decision, ready.row)));
            let (asked, (decision, row)) = found.expect("nothing has changed");
            asked.count_again(row);
            decision
        }),
        case("cache_put", move || replaced.asked(Priority::Medium).ready.put(black_box(ready()))),
        case("cache_sample", move || sampled.put_sample(black_box(5), black_box(5), None, None)),
    ]
}

fn law() -> Vec<Case> {
    [("law_green", 50), ("law_yellow", 1_234), ("law_red", 3_456)]
        .map(|(name, backlog)| {
            let law = ThreeZoneLaw::new(law_settings());
            let sample = Sample { number: 1, backlog, oldest_age_ns: None, memory_permille: None, as_of_ns: 0 };
            case(name, move || law.advise(black_box(&sample), Priority::Medium, &()))
        })
        .into()
}

fn acquire(breaker: &Breaker, now_ns: i64) -> Option<Ticket> {
    breaker.try_acquire(black_box(now_ns)).0
}

fn record(breaker: &Breaker, ok: bool, ticket: Option<&Ticket>) {
    let outcome = if black_box(ok) { Outcome::Success } else { Outcome::Failure(None) };
    let Ok::<_, Infallible>(change) = breaker.record(outcome, ticket, at(black_box(9 * MS)));
    black_box(change);
}

/// Opens a closed circuit.
fn fail(breaker: &Breaker) {
    for _ in 0..5 {
        record(breaker, false, None);
    }
}

fn breaker() -> Vec<Case> {
    let [closed, feeding, failing, open, probing] = [0; 5].map(|origin_ns| Breaker::new(circuit(), origin_ns));
    let rejected = Breaker::new(circuit(), 0);
    fail(&open);
    fail(&rejected);
    vec![
        case("breaker_look_closed", {
            let closed = Breaker::new(circuit(), 0);
            move || closed.admits(closed.word(), black_box(9 * MS))
        }),
        case("breaker_look_open", move || open.admits(open.word(), black_box(9 * MS))),
        case("breaker_admit_closed", move || acquire(&closed, 9 * MS)),
        case("breaker_admit_open", move || acquire(&rejected, 9 * MS)),
        case("breaker_record_success", move || record(&feeding, true, None)),
        // A failure counts, and the success after it forgets it again.
        case("breaker_record_failure", move || {
            record(&failing, false, None);
            record(&failing, true, None);
        }),
        // From closed to open, half-open and closed again.
        case("breaker_cycle", move || {
            fail(&probing);
            for probe in 0..3 {
                let ticket = acquire(&probing, (70_000 + 5_001 * probe) * MS);
                record(&probing, true, ticket.as_ref());
            }
        }),
    ]
}

fn counters() -> Vec<Case> {
    let (green, throttled, read) = (Counters::default(), Counters::default(), Counters::default());
    let (go, wait) = (Row::of(Reason::BacklogGreen, true), Row::of(Reason::BacklogRed, true));
    vec![
        case("counters_green", move || green.count(black_box(go), black_box(0), black_box(false))),
        case("counters_throttled", move || throttled.count(black_box(wait), black_box(7_000_000), true)),
        case("counters_totals", move || read.totals()),
    ]
}

/// An offer by the share, one that goes by itself and one that is refused so; a ticket whose job goes at once, and one
/// whose caller is told how long to wait.
fn lease() -> Vec<Case> {
    let shared = Lease::new(0);
    shared.renew(0, Terms { share_ppm: MILLION, cap_jobs: MOST_USED, ..Terms::default() });
    let [offered, saved, going, waiting] = [1_000_000, 1_000_000, 1_000_000, 1].map(|rate_jobs_per_s| {
        let lease = Lease::new(0);
        let rate_ujobs_per_s = rate_jobs_per_s * MILLION;
        let (share_ppm, cap_jobs) = (MILLION / 2, MOST_USED);
        lease.renew(0, Terms { share_ppm, cap_jobs, rate_ujobs_per_s, ..Terms::default() });
        lease
    });
    let refusing = Lease::new(0);
    refusing.renew(0, Terms { share_ppm: 1, cap_jobs: MOST_USED, ..Terms::default() });
    let ticket = |lease: &Lease| lease.due_in_us(lease.take_ticket(), black_box(1_000_000));
    vec![
        case("lease_offer", move || black_box(&offered).offer()),
        case("lease_take_share", move || black_box(&shared).take_share()),
        case("lease_refuse_share", move || black_box(&refusing).refuse_share(black_box(1))),
        case("lease_take_saved", move || black_box(&saved).take_saved(black_box(1_000_000))),
        case("lease_ticket_goes", move || ticket(black_box(&going))),
        case("lease_ticket_waits", move || ticket(black_box(&waiting))),
    ]
}

/// An offer of a tenant that goes and one that is refused; an offer of each of two hundred, and their new level.
fn tenants() -> Vec<Case> {
    let [(going, its), (refusing, of_refused)] = [MILLION, 1].map(|share_ppm| {
        let lease = Lease::new(0);
        lease.renew(0, Terms { share_ppm, cap_jobs: MOST_USED, ..Terms::default() });
        let place = lease.deal(1).place_of(7, 0);
        (lease, place)
    });
    let level = Tenants::new(1, MILLION);
    let places: Vec<u32> = (0..200).map(|number: u64| level.place_of(number.wrapping_mul(u64::MAX / 211), 0)).collect();
    vec![
        case("tenant_goes", move || black_box(&going).decide_for(black_box(its), 1, true)),
        case("tenant_refused", move || black_box(&refusing).decide_for(black_box(of_refused), 1, true)),
        case("tenants_level", move || {
            for &place in &places {
                level.offer(place);
            }
            level.renew(black_box(MILLION / 3));
        }),
    ]
}
