//! A small world around the core: one engine, one queue, and a host whose decisions tell what they were made from.
#![allow(dead_code, reason = "no test uses all of it")]

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use backpressure_core::breaker::{Change, Outcome, Ticket, at};
use backpressure_core::call::{Admission, Ask, Call, Planned};
use backpressure_core::counters::Row;
use backpressure_core::engine::Engine;
use backpressure_core::host::{Answer, Host, Issue, Judged};
use backpressure_core::laws::three_zone::{LawSettings, Scale, ThreeZoneLaw};
use backpressure_core::queue::{Kind, Place, Queue, Ready, Slot};
use backpressure_core::settings::{CircuitSettings, Settings};
use backpressure_core::vocabulary::{Priority, Reason};
use backpressure_core::word::{State, state_of};
use backpressure_core::zone::{Window, Zone};

pub const MS: i64 = 1_000_000;
pub const S: i64 = 1_000 * MS;
/// Where green ends, and half and a third of where yellow and red do.
pub const LEVEL: i64 = 1_000_000;
/// A whole decision of a caller that reads no statistics itself.
pub const ASK: Ask = Ask { admit: true, may_read: false, cold: None, spared: false };

/// A decision, and what it was made from.
#[derive(Clone, Debug)]
pub struct Seen {
    pub priority: Priority,
    pub reason: Reason,
    pub delay_ns: u64,
    pub shed: bool,
    pub computed: bool,
    pub backlog: Option<i64>,
    pub epoch: u64,
    pub issued_ns: i64,
    pub retry_at_ns: Option<i64>,
    pub ticket: Option<Arc<Ticket>>,
    /// What observe mode stands before.
    pub advised: Option<Box<Seen>>,
}

/// How often the host was told something.
#[derive(Debug, Default)]
pub struct Told {
    pub checks: AtomicU64,
    pub circuit_changes: AtomicU64,
    pub zone_changes: AtomicU64,
}

/// The host during one call under the mode of `epoch`.
#[derive(Debug)]
pub struct Witness<'a> {
    told: &'a Told,
    epoch: u64,
}

impl Host for Witness<'_> {
    type Object = Seen;
    type Error = Infallible;
    type Name = str;
    type Place = Slot<Ready<Seen>>;

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
        Ok(())
    }

    fn check_poller(&self) -> Result<bool, Infallible> {
        self.told.checks.fetch_add(1, SeqCst);
        Ok(false)
    }

    fn judge(&self, _: &Self::Name, _: Priority) -> Result<Judged, Infallible> {
        unreachable!("no age is held here")
    }

    fn foresee(&self, _: &Self::Name, _: Priority) -> Result<Judged, Infallible> {
        unreachable!("no age is held here")
    }

    fn circuit_changed(&self, _: &str, _: Change) -> Result<(), Infallible> {
        self.told.circuit_changes.fetch_add(1, SeqCst);
        Ok(())
    }

    fn zone_changed(&self, _: &str, _: Priority, _: Zone, _: Zone) -> Result<(), Infallible> {
        self.told.zone_changes.fetch_add(1, SeqCst);
        Ok(())
    }

    fn answer(&self, _: &str, answer: &Answer<Seen>) -> Result<Seen, Infallible> {
        let Answer { priority, reason, delay_ns, shed, backlog, issued_ns, retry_at_ns, .. } = *answer;
        Ok(Seen {
            priority,
            reason,
            delay_ns,
            shed,
            computed: false,
            backlog,
            epoch: self.epoch,
            issued_ns,
            retry_at_ns,
            ticket: None,
            advised: None,
        })
    }

    fn observed(&self, finished: Seen) -> Result<Seen, Infallible> {
        Ok(Seen {
            reason: Reason::ObserveOnly,
            delay_ns: 0,
            shed: false,
            retry_at_ns: None,
            advised: Some(Box::new(finished.clone())),
            ..finished
        })
    }

    fn issue(&self, finished: Seen, issue: Issue) -> Result<Seen, Infallible> {
        let Issue { issued_ns, ticket, computed } = issue;
        let (epoch, ticket) = (self.epoch, ticket.map(Arc::new));
        let own = |seen| Seen { issued_ns, ticket: ticket.clone(), computed, epoch, ..seen };
        Ok(own(Seen { advised: finished.advised.map(|real| Box::new(own(*real))), ..finished }))
    }

    fn peeked(&self, _: &str, _: &Answer<Seen>, _: bool) -> Result<Seen, Infallible> {
        unreachable!("nobody peeks")
    }

    fn share(&self, object: &Seen) -> Seen {
        object.clone()
    }
}

/// Settings with one window for all, a quick breaker, and one second as the unit of everything that ages.
pub fn settings(change: impl FnOnce(&mut Settings)) -> Arc<Settings> {
    let window = Window { green_max: LEVEL, yellow_max: 2 * LEVEL, red_max: 3 * LEVEL };
    let mut settings = Settings {
        law: ThreeZoneLaw::new(LawSettings {
            windows: [window; 3],
            yellow_min_ns: 10_000_000,
            yellow_max_ns: 500_000_000,
            red_max_ns: 5_000_000_000,
            scales: [(3, 2), (1, 1), (1, 2)].map(|(num, den)| Scale { num, den }),
            shed_permille: 800,
            scale_yellow: true,
            memory_permille: None,
        })
        .into(),
        circuit: Arc::new(CircuitSettings {
            failure_threshold: 2,
            recovery_threshold: 2,
            trip_window_ms: 1_000,
            recovery_timeout_ms: 20,
            probe_interval_ms: 10,
            high_attempts: false,
        }),
        laws: HashMap::new(),
        circuits: HashMap::new(),
        observed: HashMap::new(),
        patterns: Vec::new(),
        holds_ages: false,
        one_mode: true,
        cache_ttl_ns: 30 * S,
        check_after_ns: 10 * S,
        check_every_ns: 5 * S,
        degrade_ns: 100 * S,
        fallback_ns: [1_000_000_000, 500_000_000, 100_000_000],
        fallback_reason: Reason::FallbackConservative,
        polling: true,
        observe: false,
        max_queues: 10,
    };
    change(&mut settings);
    Arc::new(settings)
}

/// A backlog that tells the number of the sample it is put as; green, yellow, red and red to be shed are levels 0 to 3.
pub fn backlog(level: i64, number: u64) -> i64 {
    level * LEVEL + i64::try_from(number).expect("samples are few")
}

/// The number in a backlog.
pub fn number_in(backlog: i64) -> u64 {
    (backlog % LEVEL).unsigned_abs()
}

/// One engine with one queue. Thread-safe.
#[derive(Debug)]
pub struct World {
    pub engine: Engine,
    pub queue: Queue<Seen>,
    pub told: Told,
}

impl World {
    pub fn new(change: impl FnOnce(&mut Settings)) -> Self {
        let settings = settings(change);
        let queue = Queue::new(Arc::clone(settings.circuit_of("q")), 0, 0);
        for priority in Priority::ALL {
            queue.asked(priority);
        }
        Self { engine: Engine::new(settings, 0), queue, told: Told::default() }
    }

    fn call<R>(&self, priority: Priority, now_ns: i64, make: impl FnOnce(Call<'_, Witness<'_>>) -> R) -> R {
        let (mode, _) = self.engine.switches.mode_at(now_ns);
        let host = Witness { told: &self.told, epoch: mode.epoch };
        let (host, checks, mode) = (&host, &self.engine.checks, &*mode);
        make(Call { host, checks, mode, priority, queue: &self.queue, name: "q", now_ns })
    }

    /// Decides, whatever lies ready; `None` where the caller is to read the queue.
    pub fn ask(&self, priority: Priority, now_ns: i64, ask: Ask) -> Option<Seen> {
        self.call(priority, now_ns, |call| call.decide(ask).unwrap())
    }

    /// Decides, whatever lies ready.
    pub fn decide(&self, priority: Priority, now_ns: i64) -> Seen {
        self.ask(priority, now_ns, ASK).expect("nobody was asked to read")
    }

    /// Asks the breaker again for a decision that was waited out: the ticket, or the decision instead of it.
    pub fn admit(&self, priority: Priority, now_ns: i64) -> Result<Option<Arc<Ticket>>, Seen> {
        self.call(priority, now_ns, |call| match call.admit(Planned::Wait).unwrap() {
            Admission::AsItIs => panic!("who waited holds nothing yet"),
            Admission::AsPlanned(ticket) => Ok(ticket.map(Arc::new)),
            Admission::Instead(seen) => Err(seen),
        })
    }

    /// Hands out what lies ready as `Engine::hand_out` does, and checks that it was made from what holds.
    pub fn hit(&self, priority: Priority, now_ns: i64) -> Option<Seen> {
        let (epoch, word, sample) =
            (self.engine.switches.epoch(), self.queue.breaker.word(), self.queue.sample_number());
        let asked = self.queue.asked(priority);
        let seen = asked.ready.read(|ready| {
            let current = ready.epoch == epoch
                && ready.word == word
                && ready.sample == sample
                && asked.counters.has(ready.row) < ready.until_count;
            let seen = &ready.decision;
            assert_eq!(ready.kind != Kind::Refusal, !seen.shed, "what lies ready misjudges its decision");
            (current && !ready.kind.is_delay() && now_ns <= ready.until_ns).then(|| seen.clone())
        });
        let Some(seen) = seen else { return self.hit_delay(priority, now_ns) };
        asked.count_again(Row::of(seen.advised.as_ref().map_or(seen.reason, |real| real.reason), !seen.shed));
        let real = seen.advised.as_deref().unwrap_or(&seen);
        assert_eq!(real.epoch, epoch, "an answer of another mode");
        assert!(real.backlog.is_none_or(|backlog| number_in(backlog) == sample), "an answer of another sample");
        match state_of(word) {
            State::Closed => assert_eq!(real.retry_at_ns, None, "a rejection by an open circuit, now closed"),
            _ => assert_eq!(real.retry_at_ns, self.queue.breaker.retry_at_ns(word), "an answer of another word"),
        }
        assert!(real.ticket.as_ref().is_none_or(|ticket| !ticket.probe()), "a probe's ticket handed out again");
        Some(seen)
    }

    fn hit_delay(&self, priority: Priority, now_ns: i64) -> Option<Seen> {
        let (epoch, sample) = (self.engine.switches.epoch(), self.queue.sample_number());
        let now = || Ok::<_, Infallible>(now_ns);
        let (finished, issue) = self.engine.hand_out_delay(&self.queue, priority, true, Clone::clone, now).unwrap()?;
        assert!(!issue.computed && issue.ticket.as_ref().is_some_and(|ticket| !ticket.probe()));
        let seen = Witness { told: &self.told, epoch }.issue(finished, issue).unwrap();
        let real = seen.advised.as_deref().unwrap_or(&seen);
        assert!(real.delay_ns > 0 && !real.shed, "a go or a refusal is one for all");
        assert!(real.backlog.is_some_and(|backlog| number_in(backlog) >= sample), "an answer of another sample");
        Some(seen)
    }

    /// The whole decision of a caller: what lies ready, else a new answer.
    pub fn suggest(&self, priority: Priority, now_ns: i64) -> Seen {
        self.hit(priority, now_ns).unwrap_or_else(|| self.decide(priority, now_ns))
    }

    /// Takes a lone poller's sample of this number.
    pub fn poll(&self, level: i64, number: u64, now_ns: i64) {
        self.queue.put_sample(backlog(level, number), now_ns, None, None);
    }

    pub fn record(&self, outcome: Outcome, ticket: Option<&Ticket>, now_ns: i64) -> Option<Change> {
        self.queue.breaker.record(outcome, ticket, at(now_ns)).unwrap()
    }

    /// How many decisions were counted.
    pub fn counted(&self) -> u64 {
        Priority::ALL.iter().map(|&priority| self.counted_as(priority).iter().sum::<u64>()).sum()
    }

    /// How many decisions of a priority were counted, by reason.
    pub fn counted_as(&self, priority: Priority) -> [u64; Reason::ALL.len()] {
        self.queue.asked(priority).counters.totals().reasons
    }
}
