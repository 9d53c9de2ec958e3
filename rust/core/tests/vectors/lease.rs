//! Leads leases through the golden sequences.

use backpressure_core::lease::{Lease, MILLION, Terms};
use serde_json::{Value, json};

use crate::{boolean, integer, list, read, signed, text};

fn terms(arguments: &Value) -> Terms {
    let argument = |index: usize| integer(&arguments[index]);
    Terms {
        share_ppm: argument(0),
        cap_jobs: argument(1),
        rate_ujobs_per_s: argument(2),
        burst_ujobs: argument(3),
        fill: argument(4) == 1,
        remainder_ppm: argument(5),
    }
}

fn act(lease: &Lease, now_us: i64, act: &str, arguments: &Value) -> Value {
    let first = &arguments[0];
    match act {
        "offer" => json!(lease.offer()),
        "offer_stale" => json!(lease.offer_stale(boolean(first))),
        "is_used_up" => json!(lease.is_used_up()),
        "take_ticket" => json!(lease.take_ticket()),
        "take_saved" => json!(lease.take_saved(now_us)),
        "take_share" => json!(lease.take_share()),
        "refuse_share" => json!(lease.refuse_share(u32::try_from(integer(first)).expect("a renewal"))),
        "take_counts" => json!(lease.take_counts()),
        "due_in" => json!(lease.due_in_us(u32::try_from(integer(first)).expect("a ticket"), now_us)),
        "foresee" => json!(lease.foresee_us(now_us)),
        "renew" => {
            lease.renew(now_us, terms(arguments));
            Value::Null
        }
        "prolong" => {
            lease.prolong();
            Value::Null
        }
        "leave_places" => {
            lease.leave_places(integer(first));
            Value::Null
        }
        unknown => panic!("{unknown} is no act"),
    }
}

/// Shows a lease as the vectors do: in absolute numbers, where the words hold what was used of the terms.
fn shown(lease: &Lease) -> Value {
    let (share, line, granted) = (lease.share(), lease.line(), lease.granted());
    let terms = granted.terms;
    let cap_jobs = if share.stale { 1 } else { terms.cap_jobs };
    let base_ujobs = (u64::from(granted.taken) + line.left) * MILLION;
    let base_ujobs = i64::try_from(base_ujobs).expect("few tickets") + granted.saved_ujobs;
    json!([
        share.carry_ppm,
        share.used,
        cap_jobs,
        line.taken,
        base_ujobs,
        terms.rate_ujobs_per_s,
        terms.burst_ujobs,
        granted.since_us,
        terms.remainder_ppm,
    ])
}

#[test]
fn the_lease_follows_the_golden_sequences() {
    for life in list(&read("lease")) {
        let lease = Lease::new(integer(&life["phase_ppm"]));
        for step in list(&life["steps"]) {
            assert_eq!(act(&lease, signed(&step[0]), text(&step[1]), &step[2]), step[3], "{step}");
            assert_eq!(shown(&lease), step[4], "{step}");
        }
    }
}
