//! Leads an engine with one queue through the golden sequences of whole decisions.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::convert::Infallible;
use std::rc::Rc;
use std::sync::Arc;

use backpressure_core::breaker::{Change, Outcome, Ticket, at};
use backpressure_core::call::{Admission, Ask, Call, Planned};
use backpressure_core::counters::Row;
use backpressure_core::engine::Engine;
use backpressure_core::host::{Answer, Host, Issue, Judged};
use backpressure_core::laws::three_zone::ThreeZoneLaw;
use backpressure_core::mode::{Mode, NEVER};
use backpressure_core::queue::{Queue, Ready, Slot};
use backpressure_core::settings::Settings;
use backpressure_core::vocabulary::{Priority, Reason};
use backpressure_core::zone::Zone;
use serde_json::{Value, json};

use crate::{boolean, breaker, index, integer, law, list, read, signed, text, triple};

const ZONES: [&str; 3] = ["green", "yellow", "red"];

fn settings(entry: &Value) -> Arc<Settings> {
    let reason = text(&entry["fallback_reason"]);
    Arc::new(Settings {
        law: ThreeZoneLaw::new(law::settings(&entry["law"])).into(),
        circuit: breaker::settings(&entry["circuit"]),
        laws: HashMap::new(),
        circuits: HashMap::new(),
        observed: HashMap::new(),
        patterns: Vec::new(),
        holds_ages: false,
        one_mode: true,
        cache_ttl_ns: signed(&entry["cache_ttl_ns"]),
        check_after_ns: signed(&entry["check_after_ns"]),
        check_every_ns: signed(&entry["check_every_ns"]),
        degrade_ns: signed(&entry["degrade_ns"]),
        fallback_ns: triple(&entry["fallback_ns"], integer),
        fallback_reason: Reason::ALL.into_iter().find(|(_, name)| *name == reason).expect("a reason").0,
        polling: boolean(&entry["polling"]),
        observe: boolean(&entry["observe"]),
        max_queues: index(&entry["max_queues"]),
    })
}

/// A decision as the vectors show it, with its ticket. It is what decisions are made of, too.
#[derive(Clone, Debug)]
struct Decision {
    priority: Priority,
    reason: Reason,
    delay_ns: u64,
    shed: bool,
    zone: Option<Zone>,
    backlog: Option<i64>,
    ticket: Option<Rc<Ticket>>,
    retry_at_ns: Option<i64>,
    computed: bool,
    advised: Option<Box<Decision>>,
}

impl Decision {
    fn row(&self) -> Value {
        json!([
            Reason::ALL[self.reason.index()].1,
            self.delay_ns,
            self.shed,
            self.zone.map(|zone| ZONES[zone.index()]),
            self.backlog,
            breaker::shown(self.ticket.as_deref()),
            self.retry_at_ns,
            self.advised.as_ref().map(|advised| advised.row()),
        ])
    }
}

/// Writes down what the engine says to its surroundings.
#[derive(Default)]
struct Ear(RefCell<Vec<String>>, Cell<bool>);

impl Ear {
    fn hear(&self, news: &str) {
        self.0.borrow_mut().push(news.into());
    }

    fn hear_change(&self, change: Change) {
        if change.is_news() {
            self.hear(&format!("{} to {}", breaker::shown_word(change.old), breaker::shown_word(change.new)));
        }
    }
}

impl Host for Ear {
    type Object = Decision;
    type Error = Infallible;
    type Name = str;
    type Place = Slot<Ready<Decision>>;

    fn now_ns(&self) -> Result<i64, Infallible> {
        unreachable!("a call is told what time it is")
    }

    fn text<'a>(&self, name: &'a str) -> Result<&'a str, Infallible> {
        Ok(name)
    }

    fn not_running(&self) -> Infallible {
        unreachable!("a call is made under a mode that runs")
    }

    fn override_ended(&self) -> Result<(), Infallible> {
        unreachable!("a call is made under the mode of its time")
    }

    fn read(&self, _: &str, _: bool) -> Result<Option<Reason>, Infallible> {
        unreachable!("a call does not read, it asks its caller to")
    }

    fn hurry(&self, _: &str) -> Result<(), Infallible> {
        self.hear("hurry");
        Ok(())
    }

    fn check_poller(&self) -> Result<bool, Infallible> {
        self.hear("check_poller");
        Ok(self.1.get())
    }

    fn judge(&self, _: &Self::Name, _: Priority) -> Result<Judged, Infallible> {
        unreachable!("no age is held here")
    }

    fn foresee(&self, _: &Self::Name, _: Priority) -> Result<Judged, Infallible> {
        unreachable!("no age is held here")
    }

    fn circuit_changed(&self, _: &str, change: Change) -> Result<(), Infallible> {
        self.hear_change(change);
        Ok(())
    }

    fn zone_changed(&self, _: &str, priority: Priority, old: Zone, new: Zone) -> Result<(), Infallible> {
        self.hear(&format!("{}: {} to {}", Priority::NAMES[priority.index()], ZONES[old.index()], ZONES[new.index()]));
        Ok(())
    }

    fn answer(&self, _: &str, answer: &Answer<Decision>) -> Result<Decision, Infallible> {
        let Answer { priority, reason, delay_ns, shed, zone, backlog, retry_at_ns, .. } = *answer;
        let (ticket, computed, advised) = (None, false, None);
        Ok(Decision { priority, reason, delay_ns, shed, zone, backlog, ticket, retry_at_ns, computed, advised })
    }

    fn observed(&self, finished: Decision) -> Result<Decision, Infallible> {
        Ok(Decision {
            reason: Reason::ObserveOnly,
            delay_ns: 0,
            shed: false,
            retry_at_ns: None,
            advised: Some(Box::new(finished.clone())),
            ..finished
        })
    }

    fn issue(&self, mut finished: Decision, issue: Issue) -> Result<Decision, Infallible> {
        finished.ticket = issue.ticket.map(Rc::new);
        finished.computed = issue.computed;
        if let Some(advised) = &mut finished.advised {
            advised.ticket.clone_from(&finished.ticket);
        }
        Ok(finished)
    }

    fn peeked(&self, _: &str, _: &Answer<Decision>, _: bool) -> Result<Decision, Infallible> {
        unreachable!("nobody peeks")
    }

    fn share(&self, object: &Decision) -> Decision {
        object.clone()
    }
}

/// One engine with its queue, and what surrounds them.
struct Life {
    engine: Engine,
    queue: Queue<Decision>,
    ear: Ear,
    next_read: (String, i64),
    decisions: Vec<Decision>,
    now_ns: i64,
}

impl Life {
    fn new(settings: Arc<Settings>, now_ns: i64) -> Self {
        let queue = Queue::new(Arc::clone(settings.circuit_of("q")), now_ns, now_ns);
        let engine = Engine::new(settings, now_ns);
        engine.switches.set_running(true);
        let next_read = ("fail".into(), 0);
        Self { engine, queue, ear: Ear::default(), next_read, decisions: Vec::new(), now_ns }
    }

    fn act(&mut self, act: &str, arguments: &Value, settings: &[Value]) -> Option<Decision> {
        let first = &arguments[0];
        match act {
            "suggest" | "plan" => Some(self.decide(text(first), act == "suggest")),
            "admit" => Some(self.admit(&self.decisions[index(first)])),
            _ => {
                self.act_silently(act, arguments, settings);
                None
            }
        }
    }

    fn act_silently(&mut self, act: &str, arguments: &Value, settings_of: &[Value]) {
        let (first, second) = (&arguments[0], &arguments[1]);
        let breaker = &self.queue.breaker;
        let change = match act {
            "record" => {
                let decision = &self.decisions[index(first)];
                let outcome = match second.as_bool() {
                    Some(true) => Outcome::Success,
                    Some(false) => Outcome::Failure(arguments[2].as_i64()),
                    None => Outcome::Ignored,
                };
                decision.ticket.as_ref().and_then(|ticket| self.record(outcome, Some(ticket)))
            }
            "report" if boolean(first) => self.record(Outcome::Success, None),
            "report" => self.record(Outcome::Failure(None), None),
            "force_open" => breaker.force_open(first.as_i64()),
            "hasten" => {
                breaker.hasten();
                None
            }
            "forget" => {
                self.queue.forget_sample();
                None
            }
            "suspend" => {
                self.ear.1.set(boolean(first));
                None
            }
            "force_close" => breaker.force_close(),
            "reset" => breaker.reset(),
            "sample" => {
                self.queue.put_sample(signed(first), signed(second), None, None);
                None
            }
            "reads" => {
                self.next_read = (text(first).into(), signed(second));
                None
            }
            "override" => {
                self.engine.switches.set_override(boolean(first).then(|| signed(second)));
                None
            }
            "emergency" => {
                self.engine.switches.set_emergency(boolean(first).then_some(NEVER));
                None
            }
            "configure" => {
                self.engine.switches.configure(&settings(&settings_of[index(first)]));
                None
            }
            unknown => panic!("{unknown} is no act"),
        };
        if let Some(change) = change {
            self.ear.hear_change(change);
        }
    }

    fn record(&self, outcome: Outcome, ticket: Option<&Rc<Ticket>>) -> Option<Change> {
        if let Some(lapsed) = self.queue.breaker.lapse(self.now_ns) {
            self.ear.hear_change(lapsed);
        }
        let Ok(change) = self.queue.breaker.record(outcome, ticket.map(AsRef::as_ref), at(self.now_ns));
        change
    }

    fn mode(&self) -> Arc<Mode> {
        let (mode, override_ended) = self.engine.switches.mode_at(self.now_ns);
        if override_ended {
            self.ear.hear("override ended");
        }
        mode
    }

    fn call<'a>(&'a self, mode: &'a Mode, priority: Priority) -> Call<'a, Ear> {
        let (host, checks, queue) = (&self.ear, &self.engine.checks, &self.queue);
        Call { host, checks, mode, priority, queue, name: "q", now_ns: self.now_ns }
    }

    fn decide(&self, priority: &str, admit: bool) -> Decision {
        let priority = Priority::ALL[Priority::NAMES.iter().position(|name| *name == priority).expect("a priority")];
        let ask = Ask { admit, may_read: true, cold: None, spared: false };
        let Ok(decided) = self.call(&self.mode(), priority).decide(ask);
        decided.unwrap_or_else(|| {
            let ask = Ask { may_read: false, cold: self.read(), ..ask };
            let Ok(decided) = self.call(&self.mode(), priority).decide(ask);
            decided.expect("only a caller that may read is asked to")
        })
    }

    fn read(&self) -> Option<Reason> {
        self.ear.hear("read");
        match (self.next_read.0.as_str(), self.next_read.1) {
            ("sample", backlog) => self.queue.put_sample(backlog, self.now_ns, None, None),
            ("fail", _) => self.queue.read_failed(self.now_ns),
            _ => {
                let waits = self.queue.sample().is_none() || self.mode().settings.polling;
                return waits.then_some(Reason::ColdStart);
            }
        }
        None
    }

    fn admit(&self, planned: &Decision) -> Decision {
        let asked = match planned.reason {
            _ if planned.delay_ns > 0 => Planned::Wait,
            Reason::ObserveOnly => Planned::Observed,
            _ => Planned::Go(planned.ticket.as_deref()),
        };
        match self.call(&self.mode(), planned.priority).admit(asked) {
            Ok(Admission::Instead(decision)) => decision,
            Ok(Admission::AsItIs) => planned.clone(),
            Ok(Admission::AsPlanned(ticket)) => {
                if planned.delay_ns > 0 {
                    let counters = &self.queue.asked(planned.priority).counters;
                    counters.count(Row::of(planned.reason, true), planned.delay_ns, planned.computed);
                }
                Decision { ticket: ticket.map(Rc::new), ..planned.clone() }
            }
        }
    }

    fn totals(&self) -> Value {
        json!(Priority::ALL.map(|priority| {
            let totals = self.queue.seen(priority)?.counters.totals();
            let counted = totals.reasons.iter().any(|&count| count > 0);
            counted.then(|| {
                json!([totals.reasons, totals.computed, totals.delays, totals.delay_sum_ns, totals.let_go, totals.late])
            })
        }))
    }
}

#[test]
fn the_engine_follows_the_golden_sequences() {
    let vectors = read("decision");
    let settings_of = list(&vectors["settings"]);
    for entry in list(&vectors["lives"]) {
        let steps = list(&entry["steps"]);
        let mut life = Life::new(settings(&settings_of[index(&entry["settings"])]), signed(&vectors["origin_ns"]));
        for step in steps {
            life.now_ns = signed(&step[0]);
            let decision = life.act(text(&step[1]), &step[2], settings_of);
            assert_eq!(json!(decision.as_ref().map(Decision::row)), step[3], "{step}");
            life.decisions.extend(decision);
            assert_eq!(json!(life.ear.0.take()), step[4], "{step}");
            assert_eq!(life.queue.breaker.word(), integer(&step[5]), "{step}");
        }
        assert_eq!(life.totals(), entry["totals"]);
    }
}
