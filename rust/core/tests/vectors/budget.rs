//! Leads budgets through the golden lives.

use backpressure_core::budget::{Answer, BacklogSeen, Budget, BudgetSettings, Demand, Report};
use serde_json::Value;

use crate::{boolean, list, read, signed};

fn settings(value: &Value) -> BudgetSettings {
    let number = |name: &str| signed(&value[name]);
    BudgetSettings {
        target_ms: number("target_ms"),
        tick_ms: number("tick_ms"),
        gain_most_permille: number("gain_most_permille"),
        drain_window_ms: number("drain_window_ms"),
        trims: boolean(&value["trims"]),
        least_budget_permille: number("least_budget_permille"),
        medium_floor_permille: number("medium_floor_permille"),
        low_floor_permille: number("low_floor_permille"),
        burst_jobs: number("burst_jobs"),
        calls_per_second: number("calls_per_second"),
    }
}

/// Reads a report: who, the limit, and then what the script is given.
fn report(told: &Value) -> Report {
    let number = |place: usize| signed(&told[place]);
    let demands = [0, 1, 2].map(|level| Demand {
        decided: number(3 + level),
        gone: number(6 + level),
        waiting: number(9 + level),
        held: number(12 + level),
        held_patient: number(15 + level),
        remainder_ppm: number(18 + level),
    });
    let oldest_age_ms = Some(number(23)).filter(|age| *age >= 0);
    let seen = BacklogSeen { jobs: number(22), oldest_age_ms, ago_ms: number(24) };
    Report {
        producer: told[0].as_u64(),
        since_ms: number(2),
        demands,
        enqueued: number(21),
        seen: (seen.jobs >= 0).then_some(seen),
        seed_drain_mjobs_per_s: number(25),
        seed_processes: number(26),
        limit_permille: number(1),
    }
}

fn shown(answer: &Answer) -> Vec<i64> {
    let mut told = vec![
        answer.ticks,
        answer.drain_mjobs_per_s,
        answer.budget_mjobs_per_s,
        answer.age_ms,
        answer.backlog_jobs,
        answer.processes,
        answer.spare_mjobs_per_s,
        i64::from(answer.is_sampler),
        answer.wait_ms,
    ];
    told.extend(answer.demand_mjobs_per_s.into_iter().chain(answer.shares_ppm));
    for terms in &answer.terms {
        let whose = [terms.share_ppm, terms.cap_jobs, terms.rate_ujobs_per_s, terms.burst_ujobs];
        told.extend(whose.into_iter().chain([i64::from(terms.fill), terms.go_jobs, terms.remainder_ppm]));
    }
    told
}

#[test]
fn answers_are_those_of_the_reference() {
    for (number, life) in list(&read("budget")).iter().enumerate() {
        let mut budget = Budget::new(settings(&life["settings"]));
        for (call, entry) in list(&life["calls"]).iter().enumerate() {
            let answer = budget.call(signed(&entry[0]), &report(&entry[1]));
            let expected: Vec<i64> = list(&entry[2]).iter().map(signed).collect();
            assert_eq!(shown(&answer), expected, "call {call} of life {number}");
        }
    }
}
