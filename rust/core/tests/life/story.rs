//! One queue's life on one thread, told in bytes, and what must hold after every step of it.

use std::sync::Arc;

use backpressure_core::breaker::{Change, Outcome, Ticket};
use backpressure_core::call::Ask;
use backpressure_core::laws::State as LawState;
use backpressure_core::mode::NEVER;
use backpressure_core::sample::Sample;
use backpressure_core::settings::Settings;
use backpressure_core::vocabulary::{Priority, Reason};
use backpressure_core::word::{State, Word, state_of};

use crate::world::{MS, S, Seen, World, backlog, settings};

/// How far the clock is moved.
const STEPS_NS: [i64; 12] =
    [1, MS / 2, MS, 10 * MS - 1, 10 * MS, 20 * MS, 999 * MS, S, 5 * S, 10 * S + 1, 30 * S + 1, 101 * S];
/// How late a probe may come: its instant is rounded up, the present down, each to a millisecond.
const LATE_NS: i64 = 2 * MS;

/// Lives through a story: a byte of settings, then two a step. Returns how often each reason was given.
pub fn live(story: &[u8]) -> [u64; Reason::ALL.len()] {
    let mut bytes = story.iter().copied();
    let mut life = Life::new(bytes.next().unwrap_or_default());
    while let (Some(what), Some(how)) = (bytes.next(), bytes.next()) {
        life.step(what, how);
    }
    let counted = Priority::ALL.map(|priority| life.world.counted_as(priority));
    std::array::from_fn(|reason| counted.iter().map(|reasons| reasons[reason]).sum())
}

fn vary(how: u8) -> impl FnOnce(&mut Settings) {
    move |settings| {
        settings.polling = how & 1 == 0;
        settings.observe = how & 2 != 0;
        let circuit = Arc::make_mut(&mut settings.circuit);
        circuit.high_attempts = how & 4 != 0;
        circuit.failure_threshold = 1 + u64::from(how >> 3 & 1);
        circuit.recovery_threshold = 1 + u64::from(how >> 4 & 1);
        settings.fallback_reason =
            [Reason::FallbackConservative, Reason::FallbackPermissive, Reason::FallbackCircuitOnly]
                [usize::from(how >> 5) % 3];
        if settings.fallback_reason != Reason::FallbackConservative {
            settings.fallback_ns = [0; 3];
        }
    }
}

struct Life {
    world: World,
    now_ns: i64,
    settings: Arc<Settings>,
    emergency_until_ns: Option<i64>,
    override_until_ns: Option<i64>,
    // Number, backlog and instant of the last sample.
    sample: Option<(u64, i64, i64)>,
    tickets: Vec<Arc<Ticket>>,
    // When the breaker came into its state, or let its last probe go; and what was recorded since then.
    since_ns: i64,
    // Whether its next probe may go at once, and when a forced opening ends.
    due: bool,
    forced_until_ns: Option<i64>,
    failures: u64,
    successes: u64,
    counted: u64,
}

impl Life {
    fn new(how: u8) -> Self {
        Self {
            world: World::new(vary(how)),
            now_ns: 0,
            settings: settings(vary(how)),
            emergency_until_ns: None,
            override_until_ns: None,
            sample: None,
            tickets: Vec::new(),
            since_ns: 0,
            due: false,
            forced_until_ns: None,
            failures: 0,
            successes: 0,
            counted: 0,
        }
    }

    fn step(&mut self, what: u8, how: u8) {
        self.end_forcing();
        let before = self.word();
        match what % 12 {
            0 | 1 => self.now_ns += STEPS_NS[usize::from(how) % STEPS_NS.len()],
            2..=4 => self.ask(before, how, true),
            5 => self.ask(before, how, false),
            6 => self.admit(before, how),
            7 | 8 => self.record(before, how),
            9 => self.sample(how),
            10 => self.force(before, how),
            _ => self.switch(how),
        }
        assert_eq!(self.world.counted(), self.counted, "a decision was lost, or counted twice");
    }

    fn word(&self) -> Word {
        Word::unpack(self.world.queue.breaker.word())
    }

    /// Returns the word after a step that may be a transition, and notes when that was.
    fn turned(&mut self, before: Word) -> Word {
        let after = self.word();
        if after.generation == before.generation {
            assert_eq!(after.state, before.state);
        } else {
            assert_eq!(after.generation, (before.generation + 1) % 1024);
            (self.since_ns, self.failures, self.successes) = (self.now_ns, 0, 0);
            self.due = false;
        }
        after
    }

    /// Ends a forced opening whose time is up, and none before.
    fn end_forcing(&mut self) {
        let before = self.word();
        let lapsed = self.world.queue.breaker.lapse(self.now_ns).is_some();
        let until_ns = self.forced_until_ns.filter(|_| before.forced);
        assert_eq!(lapsed, until_ns.is_some_and(|until_ns| (until_ns + MS - 1) / MS <= self.now_ns / MS));
        assert!(!lapsed || self.turned(before).state == State::Closed);
    }

    fn ask(&mut self, before: Word, how: u8, look: bool) {
        let priority = Priority::ALL[usize::from(how) % 3];
        let cold = (how >> 6 == 3).then_some(Reason::ColdStart);
        let ask = Ask { admit: how & 8 == 0, may_read: how & 16 != 0, cold, spared: false };
        let ready = if look { self.world.hit(priority, self.now_ns) } else { None };
        let lay_ready = ready.is_some();
        let Some(seen) = ready.or_else(|| self.world.ask(priority, self.now_ns, ask)) else {
            assert!(ask.may_read && cold.is_none(), "asked to read, but may not");
            assert!(self.sample.is_none() || !self.settings.polling && self.age_ns() > self.settings.cache_ttl_ns);
            return;
        };
        self.judge(before, &seen);
        let real = seen.advised.as_deref().unwrap_or(&seen);
        let planned = !lay_ready && !ask.admit && !real.shed && real.delay_ns > 0 && !self.settings.observe;
        self.counted += u64::from(!planned);
        if before.state != State::Closed && !planned && !real.shed && self.switched(before).is_none() {
            assert!(seen.ticket.is_some() || self.attempts(priority), "went through a circuit that is not closed");
        }
        if let Some(ticket) = &seen.ticket {
            self.take(before, ticket);
        }
    }

    fn admit(&mut self, before: Word, how: u8) {
        let priority = Priority::ALL[usize::from(how) % 3];
        match self.world.admit(priority, self.now_ns) {
            Ok(Some(ticket)) => self.take(before, &ticket),
            Ok(None) => assert!(self.attempts(priority)),
            Err(seen) => {
                self.counted += 1;
                let real = seen.advised.as_deref().unwrap_or(&seen);
                assert!(real.shed || self.switched(before).is_some());
                self.judge(before, &seen);
            }
        }
    }

    /// Holds a decision against what it may have been made from.
    fn judge(&self, before: Word, seen: &Seen) {
        use Reason::{
            AgeOpen, AgeSafe, AgeShare, AgeShed, AgeWait, BacklogGreen, BacklogRed, BacklogRedShed, BacklogYellow,
            CircuitHalfOpen, CircuitOpen, ColdStart, EmergencyMode, FallbackCircuitOnly, FallbackConservative,
            FallbackPermissive, ManualOverride, Memory, ObserveOnly, StatsStale, Untracked,
        };
        if seen.advised.is_some() {
            assert_eq!((seen.reason, seen.delay_ns, seen.shed), (ObserveOnly, 0, false));
        }
        assert_eq!(seen.advised.is_some(), self.settings.observe && !before.forced);
        let real = seen.advised.as_deref().unwrap_or(seen);
        if let Some(reason) = self.switched(before) {
            assert_eq!((real.reason, real.delay_ns, real.shed), (reason, 0, false));
            return;
        }
        let (ttl_ns, degrade_ns) = (self.settings.cache_ttl_ns, self.settings.degrade_ns);
        let fallback_ns = self.settings.fallback_ns[real.priority.index()];
        let (_, backlog, _) = self.sample.unwrap_or_default();
        let sample = Sample { number: 0, backlog, oldest_age_ns: None, memory_permille: None, as_of_ns: 0 };
        let law = self.settings.law.advise(&sample, real.priority, &LawState::default());
        match real.reason {
            CircuitOpen | CircuitHalfOpen => self.judge_rejection(before, real),
            BacklogGreen | BacklogYellow | BacklogRed | BacklogRedShed => {
                assert!(self.sample.is_some() && self.age_ns() <= ttl_ns, "advice on a sample too old");
                assert_eq!((real.backlog, real.delay_ns, real.shed), (Some(backlog), law.delay_ns, law.shed));
                assert!(!real.shed || real.priority == Priority::Low);
            }
            StatsStale => {
                assert!(self.sample.is_some() && ttl_ns < self.age_ns() && self.age_ns() <= ttl_ns + degrade_ns);
                assert!((law.delay_ns.min(fallback_ns)..=law.delay_ns.max(fallback_ns)).contains(&real.delay_ns));
            }
            FallbackConservative | FallbackPermissive | FallbackCircuitOnly => {
                assert!(self.sample.is_none() || self.age_ns() > ttl_ns + degrade_ns, "fell back from a sample");
                assert_eq!((real.reason, real.delay_ns), (self.settings.fallback_reason, fallback_ns));
            }
            ColdStart => assert_eq!((real.delay_ns, real.shed), (0, false)),
            ManualOverride | EmergencyMode | ObserveOnly | Untracked | AgeOpen | AgeShare | AgeWait | AgeShed
            | AgeSafe | Memory => {
                unreachable!("{real:?}")
            }
        }
    }

    fn judge_rejection(&self, before: Word, seen: &Seen) {
        let state = if seen.reason == Reason::CircuitOpen { State::Open } else { State::HalfOpen };
        assert_eq!((before.state, seen.shed, seen.delay_ns), (state, true, 0));
        assert!(seen.ticket.is_none() && !self.attempts(seen.priority));
        assert!(!self.due, "a probe that may go at once was refused");
        assert_eq!(seen.retry_at_ns.is_none(), before.forced && self.forced_until_ns.is_none());
        if let Some(retry_at_ns) = seen.retry_at_ns {
            let due_ns = self.forced_until_ns.filter(|_| before.forced).unwrap_or(self.since_ns + self.wait_ns(before));
            assert!((due_ns..due_ns + MS).contains(&retry_at_ns), "a probe is promised for another time");
            assert!(self.now_ns < due_ns + LATE_NS, "a probe is overdue");
        }
    }

    fn take(&mut self, before: Word, ticket: &Arc<Ticket>) {
        if ticket.probe() {
            assert!(before.state != State::Closed && !before.forced);
            let waited = self.now_ns - self.since_ns >= self.wait_ns(before);
            assert!(waited || self.due, "two probes within one interval");
            let after = self.turned(before);
            assert_eq!((after.state, after.leased), (State::HalfOpen, true));
            (self.since_ns, self.due) = (self.now_ns, false);
        } else {
            assert_eq!((before.state, ticket.generation()), (State::Closed, before.generation));
        }
        self.tickets.push(Arc::clone(ticket));
    }

    /// Returns the reason of the switch that lets everything pass, if one does.
    fn switched(&self, before: Word) -> Option<Reason> {
        let lasts = |until_ns: Option<i64>| until_ns.is_some_and(|until_ns| self.now_ns < until_ns);
        let (overridden, emergency) = (lasts(self.override_until_ns), lasts(self.emergency_until_ns));
        let reason = if overridden { Reason::ManualOverride } else { Reason::EmergencyMode };
        ((overridden || emergency) && !before.forced).then_some(reason)
    }

    fn attempts(&self, priority: Priority) -> bool {
        priority == Priority::High && self.world.queue.breaker.circuit().high_attempts && !self.word().forced
    }

    fn age_ns(&self) -> i64 {
        self.sample.map_or(NEVER, |(_, _, as_of_ns)| self.now_ns - as_of_ns)
    }

    fn wait_ns(&self, word: Word) -> i64 {
        let circuit = self.world.queue.breaker.circuit();
        let wait_ms = if word.state == State::Open { circuit.recovery_timeout_ms } else { circuit.probe_interval_ms };
        wait_ms.cast_signed() * MS
    }

    fn record(&mut self, before: Word, how: u8) {
        let ok = how & 1 == 0;
        let newest_first = usize::from(how >> 1 & 31);
        let ticket = newest_first.checked_sub(1).and_then(|index| self.tickets.iter().rev().nth(index)).cloned();
        if how >> 6 == 3 {
            return self.give_back(before, ticket.as_deref());
        }
        let began_ns = (how >> 6 == 2).then_some(self.now_ns - S);
        let outcome = if ok { Outcome::Success } else { Outcome::Failure(began_ns) };
        let change = self.world.record(outcome, ticket.as_deref(), self.now_ns).filter(Change::is_news);
        let stale = ticket.as_ref().is_some_and(|ticket| ticket.generation() != before.generation);
        let (failures, successes) = (self.failures + 1, self.successes + 1);
        let after = self.turned(before);
        assert_eq!(change.map(|change| (state_of(change.old), state_of(change.new))), {
            (before.state != after.state).then_some((before.state, after.state))
        });
        let circuit = self.world.queue.breaker.circuit();
        match (before.state, after.state) {
            (State::Open, State::Open) => assert_eq!(before, after, "an open circuit heard of a result"),
            _ if stale => assert_eq!(before, after, "a result of another generation counted"),
            (State::Closed, State::Open) => assert!(!ok && failures >= circuit.failure_threshold, "opened too early"),
            (State::HalfOpen, State::Closed) => assert!(ok && successes >= circuit.recovery_threshold),
            (State::HalfOpen, State::Open) => assert!(!ok),
            (old, new) => {
                assert_eq!(old, new, "no such transition");
                assert!(!(old == State::Closed && ok && after.count > 0), "failures outlived a success");
                self.failures = if ok { 0 } else { failures };
                self.successes = if ok { successes } else { self.successes };
            }
        }
    }

    /// Hands a ticket back with an outcome that says nothing.
    fn give_back(&mut self, before: Word, ticket: Option<&Ticket>) {
        let since_ns = self.since_ns;
        let own = |ticket: &Ticket| {
            ticket.probe() && ticket.generation() == before.generation && ticket.issued_ns() == since_ns
        };
        let change = self.world.record(Outcome::Ignored, ticket, self.now_ns);
        let after = self.turned(before);
        assert!(!change.is_some_and(|change| change.is_news()));
        if change.is_some() {
            assert!(ticket.is_some_and(own) && before.leased && !after.leased, "gave back what it did not hold");
            self.due = true;
        } else {
            assert_eq!(before, after);
        }
    }

    fn sample(&mut self, how: u8) {
        if how % 8 == 7 {
            return self.world.queue.read_failed(self.now_ns);
        }
        let (level, number) = (i64::from(how % 4), self.sample.map_or(0, |(number, _, _)| number) + 1);
        let as_of_ns = self.now_ns - i64::from(how >> 4) * S;
        self.world.poll(level, number, as_of_ns);
        self.sample = Some((number, backlog(level, number), as_of_ns));
    }

    fn force(&mut self, before: Word, how: u8) {
        let breaker = &self.world.queue.breaker;
        if how % 16 == 15 {
            breaker.hasten();
            self.due |= before.state == State::Open && !before.forced;
            assert_eq!(self.turned(before).state, before.state);
            return;
        }
        if how.is_multiple_of(3) {
            self.forced_until_ns = (how & 1 == 1).then_some(self.now_ns + S + 1);
        }
        match how % 3 {
            0 => breaker.force_open(self.forced_until_ns),
            1 => breaker.force_close(),
            _ => breaker.reset(),
        };
        let after = self.turned(before);
        let state = if how.is_multiple_of(3) { State::Open } else { State::Closed };
        assert_eq!((after.state, after.forced, after.count), (state, how.is_multiple_of(3), 0));
    }

    fn switch(&mut self, how: u8) {
        let engine = &self.world.engine;
        let epoch = engine.switches.epoch();
        match how % 8 {
            0 | 1 => {
                let until_ns = if how & 8 == 0 { NEVER } else { self.now_ns + S };
                self.emergency_until_ns = (how & 1 == 0).then_some(until_ns);
                engine.switches.set_emergency(self.emergency_until_ns);
            }
            2..=4 => {
                self.override_until_ns = [None, Some(self.now_ns + S), Some(NEVER)][usize::from(how) % 8 - 2];
                engine.switches.set_override(self.override_until_ns);
            }
            5 => engine.switches.void_ready(),
            _ => {
                self.settings = settings(vary(how >> 3));
                engine.switches.configure(&self.settings);
            }
        }
        assert_eq!(engine.switches.epoch(), epoch + 1, "what lies ready was not voided");
    }
}
