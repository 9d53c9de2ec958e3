//! Leads breakers through the golden sequences.

use std::sync::Arc;

use backpressure_core::breaker::{Breaker, Change, Outcome, Ticket, at};
use backpressure_core::settings::CircuitSettings;
use backpressure_core::word::{State, is_forced, state_of};
use serde_json::{Value, json};

use crate::{boolean, index, integer, list, read, signed, text};

pub fn settings(circuit: &Value) -> Arc<CircuitSettings> {
    Arc::new(CircuitSettings {
        failure_threshold: integer(&circuit["failure_threshold"]),
        recovery_threshold: integer(&circuit["recovery_threshold"]),
        trip_window_ms: integer(&circuit["trip_window_ms"]),
        recovery_timeout_ms: integer(&circuit["recovery_timeout_ms"]),
        probe_interval_ms: integer(&circuit["probe_interval_ms"]),
        high_attempts: boolean(&circuit["high_attempts"]),
    })
}

/// Shows a ticket as the vectors do.
pub fn shown(ticket: Option<&Ticket>) -> Value {
    ticket.map_or(Value::Null, |ticket| json!([ticket.generation(), ticket.probe()]))
}

/// Writes the state in a word as news of it do.
pub fn shown_word(word: u64) -> String {
    format!("{}{}", state_of(word) as u8, if is_forced(word) { " forced" } else { "" })
}

/// Shows a change as the vectors do, if it is news.
fn news(change: Option<Change>) -> Option<Value> {
    change.filter(Change::is_news).map(|Change { old, new }| json!([shown_word(old), shown_word(new)]))
}

#[test]
fn the_breaker_follows_the_golden_sequences() {
    for life in list(&read("breaker")) {
        let breaker = Breaker::new(settings(&life["circuit"]), signed(&life["origin_ns"]));
        let mut tickets = Vec::new();
        let mut changes = Vec::new();
        for step in list(&life["steps"]) {
            let now_ns = signed(&step[0]);
            let change = match text(&step[1]) {
                "acquire" => {
                    let lapsed = breaker.lapse(now_ns);
                    changes.extend(news(lapsed));
                    let (ticket, change) = breaker.try_acquire(now_ns);
                    assert_eq!(shown(ticket.as_ref()), step[5], "{step}");
                    tickets.extend(ticket);
                    change
                }
                "force_open" => breaker.force_open(step[2].as_i64()),
                "force_close" => breaker.force_close(),
                "reset" => breaker.reset(),
                "look" => breaker.lapse(now_ns),
                "hasten" => {
                    breaker.hasten();
                    None
                }
                outcome => {
                    let lapsed = breaker.lapse(now_ns);
                    changes.extend(news(lapsed));
                    let ticket: Option<&Ticket> = (!step[2].is_null()).then(|| &tickets[index(&step[2])]);
                    let outcome = match outcome {
                        "success" => Outcome::Success,
                        "failure" => Outcome::Failure(step[6].as_i64()),
                        _ => Outcome::Ignored,
                    };
                    let Ok(change) = breaker.record(outcome, ticket, at(now_ns));
                    change
                }
            };
            changes.extend(news(change));
            assert_eq!(breaker.word(), integer(&step[3]), "{step}");
            let retry_at_ns = (breaker.state() != State::Closed).then(|| breaker.retry_at_ns(breaker.word())).flatten();
            assert_eq!(json!(retry_at_ns), step[4], "{step}");
        }
        assert_eq!(Value::Array(changes), life["changes"]);
    }
}
