//! One queue and a host that writes down what it hears: whole decisions, and what becomes of them.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::convert::Infallible;
use std::rc::Rc;
use std::sync::Arc;
use std::thread;

use crate::breaker::{Breaker, Change, Outcome, Ticket, at};
use crate::call::{Admission, Ask, Call, Planned};
use crate::counters::Row;
use crate::engine::{Engine, Plan, Wanted, nanoseconds};
use crate::host::{Answer, Host, Issue, Judged};
use crate::laws::three_zone::{LawSettings, Scale, ThreeZoneLaw};
use crate::lease::{Lease, MILLION, Terms};
use crate::mode::NEVER;
use crate::queue::{Kind, Place, Queue, Ready, Refusal, Slot};
use crate::settings::{CircuitSettings, PatternSettings, Settings};
use crate::table::{Table, in_order};
use crate::vocabulary::{Priority, Reason};
use crate::word::{State, Word, state_of};
use crate::zone::{Window, Zone};

const S: i64 = 1_000_000_000;
const ASK: Ask = Ask { admit: true, may_read: false, cold: None, spared: false };

/// A decision as the test's caller sees it, or what it is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Seen {
    reason: Reason,
    delay_ns: u64,
    shed: bool,
    ticket: bool,
    retry_at_ns: Option<i64>,
    computed: bool,
}

/// Writes down what it hears, stores queues, and answers reads with a sample of `backlog`, if there is one.
#[derive(Default)]
struct Fake {
    heard: RefCell<Vec<String>>,
    /// Whether callers that find an old sample are to read first.
    reads_first: Cell<bool>,
    now_ns: Cell<i64>,
    backlog: Cell<Option<i64>>,
    queues: RefCell<HashMap<String, Stored>>,
    aside: RefCell<Vec<Stored>>,
}

type Stored = Rc<(String, Queue<Seen>)>;

impl Fake {
    fn hear(&self, news: impl Into<String>) {
        self.heard.borrow_mut().push(news.into());
    }

    fn heard(&self) -> Vec<String> {
        self.heard.take()
    }
}

impl Host for Fake {
    type Object = Seen;
    type Error = &'static str;
    type Name = String;
    type Place = Slot<Ready<Seen>>;

    fn now_ns(&self) -> Result<i64, &'static str> {
        Ok(self.now_ns.get())
    }

    fn text<'a>(&self, name: &'a String) -> Result<&'a str, &'static str> {
        Ok(name)
    }

    fn not_running(&self) -> &'static str {
        "not running"
    }

    fn override_ended(&self) -> Result<(), &'static str> {
        self.hear("override ended");
        Ok(())
    }

    fn hurry(&self, name: &String) -> Result<(), &'static str> {
        self.hear(format!("hurry {name}"));
        Ok(())
    }

    fn check_poller(&self) -> Result<bool, &'static str> {
        self.hear("check_poller");
        Ok(self.reads_first.get())
    }

    fn read(&self, name: &String, wait: bool) -> Result<Option<Reason>, &'static str> {
        self.hear(format!("read {name}, wait: {wait}"));
        let Some(backlog) = self.backlog.get() else { return Ok(Some(Reason::ColdStart)) };
        self.queues.borrow()[name].1.put_sample(backlog, self.now_ns.get(), None, None);
        Ok(None)
    }

    fn judge(&self, _: &Self::Name, _: Priority) -> Result<Judged, &'static str> {
        unreachable!("no age is held here")
    }

    fn foresee(&self, _: &Self::Name, _: Priority) -> Result<Judged, &'static str> {
        unreachable!("no age is held here")
    }

    fn circuit_changed(&self, _: &String, change: Change) -> Result<(), &'static str> {
        self.hear(format!("{:?} -> {:?}", state_of(change.old), state_of(change.new)));
        Ok(())
    }

    fn zone_changed(&self, _: &String, priority: Priority, old: Zone, new: Zone) -> Result<(), &'static str> {
        self.hear(format!("{priority:?}: {old:?} -> {new:?}"));
        Ok(())
    }

    fn answer(&self, _: &String, answer: &Answer<Seen>) -> Result<Seen, &'static str> {
        self.hear("answer");
        Ok(finished(answer))
    }

    fn observed(&self, finished: Seen) -> Result<Seen, &'static str> {
        Ok(Seen { reason: Reason::ObserveOnly, delay_ns: 0, shed: false, ..finished })
    }

    fn issue(&self, finished: Seen, issue: Issue) -> Result<Seen, &'static str> {
        Ok(Seen { ticket: issue.ticket.is_some(), computed: issue.computed, ..finished })
    }

    fn peeked(&self, _: &String, answer: &Answer<Seen>, observed: bool) -> Result<Seen, &'static str> {
        let finished = answer.source.as_ref().map_or_else(|| finished(answer), |source| source.finished);
        if observed && answer.source.is_none() { self.observed(finished) } else { Ok(finished) }
    }

    fn share(&self, object: &Seen) -> Seen {
        *object
    }
}

fn finished(answer: &Answer<Seen>) -> Seen {
    let Answer { reason, delay_ns, shed, retry_at_ns, .. } = *answer;
    Seen { reason, delay_ns, shed, ticket: false, retry_at_ns, computed: false }
}

impl Table for Fake {
    type Stored = Stored;

    fn queue<'a>(&self, stored: &'a Stored) -> &'a Queue<Seen> {
        &stored.1
    }

    fn name<'a>(&self, stored: &'a Stored) -> &'a String {
        &stored.0
    }

    fn make(&self, name: &String, queue: Queue<Seen>) -> Result<Stored, &'static str> {
        Ok(Rc::new((name.clone(), queue)))
    }

    fn find(&self, name: &String) -> Result<Option<Stored>, &'static str> {
        Ok(self.queues.borrow().get(name).cloned())
    }

    fn insert(&self, stored: &Stored) -> Result<bool, &'static str> {
        let mut queues = self.queues.borrow_mut();
        let free = !queues.contains_key(&stored.0);
        queues.entry(stored.0.clone()).or_insert_with(|| stored.clone());
        Ok(free)
    }

    fn remove(&self, stored: &Stored) -> Result<bool, &'static str> {
        Ok(self.queues.borrow_mut().remove(&stored.0).is_some())
    }

    fn lay_aside(&self, stored: Stored) -> Result<(), &'static str> {
        self.aside.borrow_mut().push(stored);
        Ok(())
    }

    fn aside(&self) -> Vec<Stored> {
        self.aside.borrow().clone()
    }

    fn let_go(&self, stored: &Stored) -> Result<bool, &'static str> {
        let mut aside = self.aside.borrow_mut();
        let before = aside.len();
        aside.retain(|other| !Rc::ptr_eq(other, stored));
        Ok(aside.len() < before)
    }

    fn size(&self) -> usize {
        self.queues.borrow().len()
    }

    fn all(&self) -> Vec<Stored> {
        self.queues.borrow().values().cloned().collect()
    }

    fn alone<R>(&self, work: impl FnOnce() -> R) -> R {
        work()
    }

    fn evicted(&self, name: &String) -> Result<(), &'static str> {
        self.hear(format!("evicted {name}"));
        Ok(())
    }
}

fn settings(change: impl FnOnce(&mut Settings)) -> Arc<Settings> {
    let window = Window { green_max: 100, yellow_max: 500, red_max: 1_000 };
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
            failure_threshold: 1,
            recovery_threshold: 1,
            trip_window_ms: 1_000,
            recovery_timeout_ms: 5_000,
            probe_interval_ms: 1_000,
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

struct World {
    engine: Engine,
    queue: Queue<Seen>,
    name: String,
    host: Fake,
}

impl World {
    fn new(change: impl FnOnce(&mut Settings)) -> Self {
        let settings = settings(change);
        let queue = Queue::new(Arc::clone(settings.circuit_of("q")), 0, 0);
        Self { engine: Engine::new(settings, 0), queue, name: "q".into(), host: Fake::default() }
    }

    fn call<R>(&self, priority: Priority, now_ns: i64, make: impl FnOnce(Call<'_, Fake>) -> R) -> R {
        let (mode, _) = self.engine.switches.mode_at(now_ns);
        let (host, checks, mode, queue, name) = (&self.host, &self.engine.checks, &*mode, &self.queue, &self.name);
        make(Call { host, checks, mode, priority, queue, name, now_ns })
    }

    fn ask(&self, priority: Priority, now_ns: i64, ask: Ask) -> Option<Seen> {
        self.call(priority, now_ns, |call| call.decide(ask).unwrap())
    }

    fn decide(&self, priority: Priority, now_ns: i64) -> Seen {
        self.ask(priority, now_ns, ASK).unwrap()
    }

    fn reason(&self, priority: Priority, now_ns: i64) -> Reason {
        self.decide(priority, now_ns).reason
    }

    fn open(&self, now_ns: i64) {
        self.queue.breaker.record(Outcome::Failure(None), None, at(now_ns)).unwrap();
    }

    fn peek(&self, priority: Priority, now_ns: i64) -> Seen {
        self.call(priority, now_ns, |call| call.peek().unwrap())
    }

    fn count(&self, priority: Priority, reason: Reason) -> u64 {
        self.queue.asked(priority).counters.totals().reasons[reason.index()]
    }

    /// Hands out the delay that lies ready for MEDIUM: what it says, and when its decision is made, with a ticket or not.
    fn delayed(&self, now_ns: i64, admit: bool) -> Option<(Reason, i64, bool)> {
        let now = || Ok::<_, Infallible>(now_ns);
        let Ok(found) = self.engine.hand_out_delay(&self.queue, Priority::Medium, admit, |seen| seen.reason, now);
        found.map(|(reason, issue)| {
            assert!(!issue.computed);
            assert_eq!(issue.ticket.as_ref().map_or(now_ns, Ticket::issued_ns), now_ns);
            (reason, issue.issued_ns, issue.ticket.is_some())
        })
    }

    /// Whether the answer that lies ready for MEDIUM would be served at `now_ns`.
    fn is_ready(&self, now_ns: i64) -> bool {
        let within = |ready: &Ready<Seen>| (now_ns <= ready.until_ns).then_some(());
        self.queue.ready(Priority::Medium, self.engine.switches.epoch(), within).is_some()
    }
}

#[test]
fn a_change_of_zone_is_told_once() {
    let world = World::new(|_| {});
    for backlog in [10, 400, 499, 5_000, 10] {
        world.queue.put_sample(backlog, 0, None, None);
        world.decide(Priority::Medium, 1);
        world.decide(Priority::Medium, 2);
    }
    let mut heard = world.host.heard();
    heard.retain(|event| event.contains("->"));
    assert_eq!(heard, ["Medium: Green -> Yellow", "Medium: Yellow -> Red", "Medium: Red -> Green"]);
}

#[test]
fn computes_once_per_sample_and_configuration() {
    let world = World::new(|_| {});
    world.queue.put_sample(10, 0, None, None);
    assert!(world.decide(Priority::Medium, 1).computed);
    assert!(!world.decide(Priority::Medium, 2).computed);
    world.queue.put_sample(10, 0, None, None);
    assert!(world.decide(Priority::Medium, 3).computed);
    world.engine.switches.configure(&settings(|_| {}));
    assert!(world.decide(Priority::Medium, 4).computed);
    assert_eq!(world.host.heard(), ["answer"; 3]);
    assert_eq!(world.count(Priority::Medium, Reason::BacklogGreen), 4);
}

#[test]
fn the_law_decides_by_zone() {
    let world = World::new(|_| {});
    for (backlog, reason) in [
        (100, Reason::BacklogGreen),
        (101, Reason::BacklogYellow),
        (501, Reason::BacklogRed),
        (1_000, Reason::BacklogRedShed),
    ] {
        world.queue.put_sample(backlog, 0, None, None);
        assert_eq!(world.reason(Priority::Low, 0), reason);
    }
}

#[test]
fn an_answer_stays_ready_until_anything_changes() {
    let world = World::new(|_| {});
    let make_ready = || {
        world.queue.put_sample(10, 0, None, None);
        world.decide(Priority::Medium, 1);
        assert!(world.is_ready(10 * S) && !world.is_ready(10 * S + 1));
    };
    let changes: [&dyn Fn(); 5] = [
        &|| world.queue.put_sample(10, 0, None, None),
        &|| assert!(!world.queue.breaker.force_close().unwrap().is_news()),
        &|| world.engine.switches.set_emergency(None),
        &|| world.engine.switches.set_override(None),
        &|| world.engine.switches.configure(&settings(|_| {})),
    ];
    for change in changes {
        make_ready();
        change();
        assert!(!world.is_ready(1));
    }
}

#[test]
fn an_answer_of_a_lease_is_handed_out_and_counted_while_that_lets_jobs_go() {
    let world = World::new(|_| {});
    world.queue.put_sample(10, 0, None, None);
    let seen = world.decide(Priority::Medium, 1);
    let asked = world.queue.asked(Priority::Medium);
    for (kind, reason) in [(Kind::ByShare, Reason::AgeOpen), (Kind::ByLine, Reason::AgeShare)] {
        let lease = Arc::new(Lease::new(0));
        let terms = Terms { share_ppm: MILLION, cap_jobs: 5, burst_ujobs: 2 * MILLION, fill: true, ..Terms::default() };
        lease.renew(0, terms);
        asked.ready.put(Ready {
            decision: seen,
            epoch: world.engine.switches.epoch(),
            sample: world.queue.sample_number(),
            word: world.queue.breaker.word(),
            until_ns: 9,
            until_count: u64::MAX,
            row: Row::of(reason, true),
            kind,
            lease: Some(Arc::clone(&lease)),
            renewal: lease.renewal(),
            refusal: None,
        });
        let hand_out = |within: bool, now_ns: Result<i64, &'static str>| {
            let taken = world.engine.hand_out(
                &world.queue,
                Priority::Medium,
                |ready| ready.kind.goes(),
                |_| (),
                |_| Ok(within),
                |goes| now_ns.map(goes),
            );
            (taken.map(|taken| taken.is_some()), world.count(Priority::Medium, reason))
        };
        assert_eq!(hand_out(false, Ok(1)), (Ok(false), 0));
        if kind == Kind::ByLine {
            assert_eq!(hand_out(true, Err("no clock")), (Err("no clock"), 0));
        }
        assert_eq!([(); 3].map(|()| hand_out(true, Ok(1))), [(Ok(true), 1), (Ok(true), 2), (Ok(false), 2)]);
        if kind == Kind::ByShare {
            lease.renew(0, terms);
            assert_eq!(hand_out(true, Ok(1)), (Ok(false), 2), "it was made under other terms");
        }
        assert_eq!(lease.take_counts(), if kind == Kind::ByShare { (2, 0, 0) } else { (0, 2, 0) });
    }
}

#[test]
fn a_refusal_of_a_lease_is_handed_out_and_counted_under_the_terms_that_it_was_made_under() {
    let world = World::new(|_| {});
    world.queue.put_sample(10, 0, None, None);
    let seen = world.decide(Priority::Low, 1);
    let asked = world.queue.asked(Priority::Low);
    let lease = Arc::new(Lease::new(0));
    let half = Terms { share_ppm: MILLION / 2, cap_jobs: 5, ..Terms::default() };
    lease.renew(0, half);
    let put = |kind, refusal: Option<Refusal<Seen>>| {
        asked.ready.put(Ready {
            decision: seen,
            epoch: world.engine.switches.epoch(),
            sample: world.queue.sample_number(),
            word: world.queue.breaker.word(),
            until_ns: 9,
            until_count: u64::MAX,
            row: Row::of(Reason::AgeShare, true),
            kind,
            lease: Some(Arc::clone(&lease)),
            renewal: lease.renewal(),
            refusal: refusal.map(Box::new),
        });
    };
    let hand_out = |within: Result<bool, &'static str>| {
        let within = |until_ns| {
            assert_eq!(until_ns, 9);
            within
        };
        let refused = world.engine.hand_out_refusal(&world.queue, Priority::Low, |_| (), within);
        (refused.map(|refused| refused.is_some()), world.count(Priority::Low, Reason::AgeShed))
    };
    let refusal = || Refusal { decision: seen, row: Row::of(Reason::AgeShed, false) };
    assert_eq!(hand_out(Ok(true)), (Ok(false), 0), "no lease lies there");
    put(Kind::ByLine, Some(refusal()));
    assert_eq!(hand_out(Ok(true)), (Ok(false), 0), "the line refuses nobody");
    put(Kind::ByShare, None);
    assert_eq!(hand_out(Ok(true)), (Ok(false), 0), "what is said is not known");
    put(Kind::ByShare, Some(refusal()));
    assert_eq!(hand_out(Ok(false)), (Ok(false), 0));
    assert_eq!(hand_out(Err("no clock")), (Err("no clock"), 0));
    assert_eq!(hand_out(Ok(true)), (Ok(true), 1));
    assert_eq!(hand_out(Ok(true)), (Ok(false), 1), "the next one goes");
    assert!(lease.offer());
    lease.renew(0, half);
    assert_eq!(hand_out(Ok(true)), (Ok(false), 1), "it was made under other terms");
    assert_eq!(lease.take_counts(), (0, 0, 1));
}

#[test]
fn a_ready_answer_is_handed_out_and_counted_while_it_is_true_and_accepted() {
    let world = World::new(|_| {});
    let hand_out = |accepted: bool, within: Result<bool, &'static str>| {
        let taken = world.engine.hand_out(
            &world.queue,
            Priority::Medium,
            |ready| (ready.kind == Kind::Go) == accepted,
            |seen| seen.reason,
            |until_ns| {
                assert_eq!(until_ns, 10 * S);
                within
            },
            |_| unreachable!("no line goes by the clock"),
        );
        (taken, world.count(Priority::Medium, Reason::BacklogGreen))
    };
    assert_eq!(hand_out(true, Ok(true)), (Ok(None), 0));
    world.queue.put_sample(10, 0, None, None);
    world.decide(Priority::Medium, 1);
    assert_eq!(hand_out(true, Ok(true)), (Ok(Some(Reason::BacklogGreen)), 2));
    assert_eq!(hand_out(true, Ok(false)), (Ok(None), 2));
    assert_eq!(hand_out(true, Err("no clock")), (Err("no clock"), 2));
    assert_eq!(hand_out(false, Ok(true)), (Ok(None), 2));
    world.engine.switches.void_ready();
    assert_eq!(hand_out(true, Ok(true)), (Ok(None), 2));
}

#[test]
fn of_a_delay_that_lies_ready_each_caller_gets_its_own_decision() {
    let world = World::new(|_| {});
    assert_eq!(world.delayed(1, true), None);
    world.queue.put_sample(5_000, 0, None, None);
    assert!(world.decide(Priority::Medium, 1).computed);
    assert_eq!(world.delayed(2, true), Some((Reason::BacklogRed, 2, true)));
    assert_eq!(world.delayed(3, false), Some((Reason::BacklogRed, 3, false)));
    assert_eq!(world.delayed(10 * S, true), Some((Reason::BacklogRed, 10 * S, true)));
    assert_eq!(world.delayed(10 * S + 1, true), None);
    let totals = world.queue.asked(Priority::Medium).counters.totals();
    assert_eq!((totals.reasons[Reason::BacklogRed.index()], totals.computed), (3, 1));
    assert_eq!((totals.delays.iter().sum::<u64>(), totals.delay_sum_ns), (3, 3 * 5_000_000_000));
    world.queue.put_sample(5_000, 0, None, None);
    assert_eq!(world.delayed(2, true), None);
    world.decide(Priority::Medium, 1);
    assert!(world.delayed(2, true).is_some());
    world.queue.breaker.record(Outcome::Failure(None), None, at(2)).unwrap();
    assert_eq!(world.delayed(2, true), None);
}

#[test]
fn who_plans_leaves_a_delay_ready_and_is_not_counted() {
    let world = World::new(|_| {});
    world.queue.put_sample(5_000, 0, None, None);
    let planned = world.ask(Priority::Medium, 1, Ask { admit: false, ..ASK }).unwrap();
    assert_eq!((planned.ticket, planned.computed), (false, true));
    assert_eq!(world.delayed(2, false), Some((Reason::BacklogRed, 2, false)));
    assert_eq!(world.count(Priority::Medium, Reason::BacklogRed), 0);
}

#[test]
fn a_delay_that_observe_mode_lets_go_lies_ready_for_who_plans_too() {
    let world = World::new(|settings| settings.observe = true);
    world.queue.put_sample(5_000, 0, None, None);
    world.decide(Priority::Medium, 1);
    for (nth, admit) in [(2, true), (3, false)] {
        assert_eq!(world.delayed(2, admit), Some((Reason::ObserveOnly, 2, true)));
        assert_eq!(world.count(Priority::Medium, Reason::BacklogRed), nth);
    }
    assert_eq!(world.host.heard(), ["answer", "Medium: Green -> Red"]);
}

#[test]
fn a_delay_lies_ready_for_no_more_jobs_than_its_advice_is_good_for() {
    let world = World::new(|_| {});
    world.queue.put_sample(498, 0, None, None); // in yellow, where it ends at 500
    world.decide(Priority::Medium, 1);
    let handed_out = (0..9).take_while(|_| world.delayed(1, true).is_some()).count();
    assert_eq!(handed_out, 2);
}

#[test]
fn an_override_without_end_needs_no_clock() {
    let switches = World::new(|_| {}).engine.switches;
    let overridden = |now_ns: Result<i64, &'static str>| switches.is_overridden(|| now_ns);
    assert_eq!(overridden(Err("no clock")), Ok(false));
    switches.set_override(Some(NEVER));
    assert_eq!(overridden(Err("no clock")), Ok(true));
    switches.set_override(Some(5));
    assert_eq!([4, 5].map(|now_ns| overridden(Ok(now_ns))), [Ok(true), Ok(false)]);
    assert_eq!(overridden(Err("no clock")), Err("no clock"));
}

#[test]
fn seconds_become_nanoseconds_as_in_python() {
    let seconds = [0.0, 0.5e-9, 1.5e-9, 2.5e-9, 0.1, 2.675, 1.0 / 3.0, 3_600.0];
    let expected = [0, 0, 2, 2, 100_000_000, 2_675_000_000, 333_333_333, 3_600_000_000_000];
    assert_eq!(seconds.map(nanoseconds), expected);
}

#[test]
fn without_a_sample_the_caller_reads_once() {
    let world = World::new(|_| {});
    let ask = Ask { may_read: true, ..ASK };
    assert_eq!(world.ask(Priority::Low, 0, ask), None);
    assert_eq!(world.reason(Priority::Low, 0), Reason::FallbackConservative);
    let cold = world.ask(Priority::Low, 0, Ask { cold: Some(Reason::ColdStart), ..ASK }).unwrap();
    assert_eq!((cold.reason, cold.delay_ns), (Reason::ColdStart, 0));
    world.queue.read_failed(0);
    assert!(world.ask(Priority::Low, 500 * S, ask).is_some());
}

#[test]
fn after_a_failed_read_a_caller_reads_again_only_where_no_poller_does() {
    let ask = Ask { may_read: true, ..ASK };
    let polled = World::new(|_| {});
    polled.queue.read_failed(S);
    polled.engine.switches.configure(&settings(|settings| settings.polling = false));
    assert!(polled.ask(Priority::Low, 6 * S - 1, ask).is_some());
    assert_eq!(polled.ask(Priority::Low, 6 * S, ask), None);
    polled.engine.switches.configure(&settings(|_| {}));
    assert!(polled.ask(Priority::Low, 500 * S, ask).is_some());
}

#[test]
fn without_a_poller_an_expired_sample_is_read_again() {
    let world = World::new(|settings| settings.polling = false);
    world.queue.put_sample(10, 0, None, None);
    let ask = Ask { may_read: true, ..ASK };
    assert!(world.ask(Priority::Low, 30 * S, ask).is_some());
    assert_eq!(world.ask(Priority::Low, 30 * S + 1, ask), None);
    assert_eq!(world.reason(Priority::Low, 30 * S + 1), Reason::StatsStale);
}

#[test]
fn without_a_poller_what_was_just_read_is_believed_for_an_interval() {
    let world = World::new(|settings| {
        settings.polling = false;
        settings.cache_ttl_ns = 0;
    });
    world.queue.put_sample(10, 0, None, None);
    assert_eq!(world.reason(Priority::Low, 5 * S), Reason::BacklogGreen);
    assert_eq!(world.reason(Priority::Low, 5 * S + 1), Reason::StatsStale);
    world.queue.read_failed(5 * S);
    assert_eq!(world.reason(Priority::Low, 5 * S), Reason::StatsStale);
}

#[test]
fn an_old_sample_makes_callers_check_the_poller_once_per_interval() {
    let world = World::new(|_| {});
    world.queue.put_sample(10, 0, None, None);
    for now_ns in [10 * S, 10 * S + 1, 15 * S, 15 * S + 1] {
        world.decide(Priority::Medium, now_ns);
    }
    assert_eq!(world.host.heard(), ["answer", "check_poller", "check_poller"]);
}

#[test]
fn a_queue_that_could_not_be_read_makes_callers_check_the_poller() {
    let world = World::new(|_| {});
    let ask = Ask { may_read: true, ..ASK };
    assert_eq!(world.ask(Priority::Low, 0, ask), None);
    world.queue.read_failed(0);
    for now_ns in [0, 1, 5 * S] {
        assert!(world.ask(Priority::Low, now_ns, ask).is_some());
    }
    assert_eq!(world.host.heard(), ["check_poller", "answer", "answer", "check_poller", "answer"]);
}

#[test]
fn stale_advice_moves_to_the_fallback() {
    let world = World::new(|_| {});
    world.queue.put_sample(500, 0, None, None);
    let delays = [30 * S + 1, 80 * S, 130 * S].map(|now_ns| {
        let seen = world.decide(Priority::High, now_ns);
        assert_eq!(seen.reason, Reason::StatsStale);
        seen.delay_ns
    });
    assert_eq!(delays, [249_999_999, 175_000_000, 100_000_000]);
    assert_eq!(world.reason(Priority::High, 130 * S + 1), Reason::FallbackConservative);
}

#[test]
fn switches_beat_everything_but_a_forced_circuit() {
    let world = World::new(|_| {});
    world.open(0);
    world.engine.switches.set_emergency(Some(NEVER));
    assert_eq!(world.reason(Priority::Low, 1), Reason::EmergencyMode);
    world.engine.switches.set_override(Some(5 * S));
    assert_eq!(world.reason(Priority::Low, 5 * S - 1), Reason::ManualOverride);
    assert_eq!(world.reason(Priority::Low, 5 * S), Reason::EmergencyMode);
    assert_eq!(world.engine.switches.mode().override_until_ns, None);
    world.queue.breaker.force_open(None);
    let refused = world.decide(Priority::High, i64::MAX);
    assert_eq!((refused.reason, refused.retry_at_ns), (Reason::CircuitOpen, None));
}

#[test]
fn emergency_mode_ends_by_itself_and_is_no_ended_override() {
    let world = World::new(|_| {});
    let switches = &world.engine.switches;
    switches.set_emergency(Some(5));
    assert_eq!(switches.is_emergency(|| Ok::<_, Infallible>(4)), Ok(true));
    assert_eq!(switches.is_emergency(|| Ok::<_, Infallible>(5)), Ok(false));
    assert_eq!(switches.mode_due(5).switch(), None);
    assert_eq!(switches.mode_at(4).0.switch(), Some(Reason::EmergencyMode));
    let (mode, override_ended) = switches.mode_at(5);
    assert_eq!((mode.emergency_until_ns, override_ended), (None, false));
    switches.set_emergency(Some(7));
    switches.set_override(Some(7));
    let (mode, override_ended) = switches.mode_at(7);
    assert_eq!((mode.switch(), override_ended), (None, true));
}

#[test]
fn a_renewed_override_outlives_the_end_of_the_first() {
    let world = World::new(|_| {});
    world.engine.switches.set_override(Some(5));
    world.engine.switches.set_override(Some(50));
    assert_eq!(world.reason(Priority::Low, 10), Reason::ManualOverride);
}

#[test]
fn an_open_circuit_refuses_until_its_first_probe() {
    let world = World::new(|_| {});
    world.queue.put_sample(10, 0, None, None);
    world.open(0);
    let refused = world.decide(Priority::Medium, 1);
    assert_eq!((refused.reason, refused.shed), (Reason::CircuitOpen, true));
    assert_eq!(refused.retry_at_ns, Some(5 * S));
    assert!(world.is_ready(5 * S - 1) && !world.is_ready(5 * S));
    let probe = world.decide(Priority::Medium, 5 * S);
    assert_eq!((probe.reason, probe.ticket), (Reason::BacklogGreen, true));
    assert_eq!(world.host.heard(), ["answer", "answer", "Open -> HalfOpen"]);
    assert_eq!(world.reason(Priority::Medium, 5 * S + 1), Reason::CircuitHalfOpen);
}

#[test]
fn a_shed_job_takes_no_probe() {
    let world = World::new(|_| {});
    world.queue.put_sample(1_000, 0, None, None);
    world.open(0);
    assert_eq!(world.reason(Priority::Low, 5 * S), Reason::BacklogRedShed);
    assert_eq!(world.queue.breaker.state(), State::Open);
}

#[test]
fn high_may_attempt_an_open_circuit_without_a_ticket() {
    let world = World::new(|settings| {
        let circuit = CircuitSettings { high_attempts: true, ..(*settings.circuit).clone() };
        settings.circuit = Arc::new(circuit);
    });
    world.queue.put_sample(10, 0, None, None);
    world.open(0);
    let attempt = world.decide(Priority::High, 1);
    assert_eq!((attempt.reason, attempt.ticket), (Reason::BacklogGreen, false));
    assert_eq!(world.reason(Priority::Medium, 1), Reason::CircuitOpen);
    world.queue.breaker.force_open(None);
    assert_eq!(world.reason(Priority::High, 1), Reason::CircuitOpen);
}

#[test]
fn a_forced_opening_ends_at_the_first_look_after_its_time() {
    let world = World::new(|_| {});
    world.queue.put_sample(10, 0, None, None);
    world.queue.breaker.force_open(Some(5 * S));
    let refused = world.decide(Priority::Medium, 1);
    assert_eq!((refused.reason, refused.retry_at_ns), (Reason::CircuitOpen, Some(5 * S)));
    assert!(world.is_ready(5 * S - 1) && !world.is_ready(5 * S));
    assert_eq!(world.reason(Priority::Medium, 5 * S), Reason::BacklogGreen);
    assert_eq!(world.host.heard(), ["answer", "Open -> Closed", "answer"]);
}

#[test]
fn who_finds_an_old_sample_reads_first_where_the_host_says_so() {
    let world = World::new(|_| {});
    let ask = Ask { may_read: true, ..ASK };
    world.queue.put_sample(10, 0, None, None);
    world.host.reads_first.set(true);
    for now_ns in [10 * S + 1, 10 * S + 2] {
        assert_eq!(world.ask(Priority::Medium, now_ns, ask), None);
    }
    assert!(world.ask(Priority::Medium, 40 * S, ASK).is_some());
    world.queue.read_failed(40 * S);
    assert!(world.ask(Priority::Medium, 40 * S + 1, ask).is_some());
}

#[test]
fn a_forgotten_sample_is_read_again() {
    let world = World::new(|_| {});
    world.queue.put_sample(10, 0, None, None);
    world.decide(Priority::Medium, 1);
    world.queue.read_failed(1);
    world.queue.forget_sample();
    assert!(!world.is_ready(1));
    assert_eq!(world.ask(Priority::Medium, 1, Ask { may_read: true, ..ASK }), None);
    world.queue.put_sample(600, 1, None, None);
    assert_eq!(world.reason(Priority::Medium, 1), Reason::BacklogRed);
}

#[test]
fn a_planned_wait_is_neither_counted_nor_admitted() {
    let world = World::new(|_| {});
    world.queue.put_sample(500, 0, None, None);
    let planned = world.ask(Priority::Medium, 1, Ask { admit: false, ..ASK }).unwrap();
    assert_eq!((planned.reason, planned.ticket), (Reason::BacklogYellow, false));
    assert_eq!(world.count(Priority::Medium, Reason::BacklogYellow), 0);
    let admit = || world.call(Priority::Medium, 2, |call| call.admit(Planned::Wait).unwrap());
    assert!(matches!(admit(), Admission::AsPlanned(Some(_))));
    world.open(2);
    let Admission::Instead(refused) = admit() else { panic!("an open circuit admitted") };
    assert_eq!(refused.reason, Reason::CircuitOpen);
    world.engine.switches.set_emergency(Some(NEVER));
    let Admission::Instead(go) = admit() else { panic!("the switch was not asked") };
    assert_eq!(go.reason, Reason::EmergencyMode);
}

#[test]
fn a_planned_go_stands_while_its_circuit_is_closed() {
    let world = World::new(|_| {});
    let ticket = Ticket::of_closed(world.queue.breaker.word(), 1);
    let admit = |held| world.call(Priority::Medium, 2, |call| call.admit(Planned::Go(held)).unwrap());
    assert!(matches!(admit(Some(&ticket)), Admission::AsItIs));
    world.queue.breaker.force_close();
    assert!(matches!(admit(Some(&ticket)), Admission::AsPlanned(Some(_))));
    assert!(matches!(admit(None), Admission::AsPlanned(Some(_))));
    world.open(2);
    assert!(matches!(admit(Some(&ticket)), Admission::Instead(_)));
    world.engine.switches.set_emergency(Some(NEVER));
    assert!(matches!(admit(Some(&ticket)), Admission::AsItIs));
}

#[test]
fn observe_mode_hands_out_a_go_and_counts_the_truth() {
    let world = World::new(|settings| settings.observe = true);
    world.queue.put_sample(1_000, 0, None, None);
    assert_eq!(world.reason(Priority::Low, 1), Reason::ObserveOnly);
    assert_eq!(world.count(Priority::Low, Reason::BacklogRedShed), 1);
}

#[test]
fn observe_mode_keeps_to_a_circuit_held_open() {
    let world = World::new(|settings| settings.observe = true);
    let admit = || world.call(Priority::Low, 1, |call| call.admit(Planned::Observed).unwrap());
    world.open(0);
    assert_eq!(world.reason(Priority::Low, 1), Reason::ObserveOnly);
    assert!(matches!(admit(), Admission::AsItIs));
    world.queue.breaker.force_open(None);
    assert_eq!(world.reason(Priority::Low, 1), Reason::CircuitOpen);
    assert!(matches!(admit(), Admission::Instead(_)));
}

#[test]
fn a_probe_is_foreseen_and_not_taken() {
    let world = World::new(|_| {});
    world.queue.put_sample(600, 0, None, None);
    world.open(0);
    let refused = world.peek(Priority::Medium, 1);
    assert_eq!((refused.reason, refused.shed, refused.retry_at_ns), (Reason::CircuitOpen, true, Some(5 * S)));
    let before = world.queue.breaker.word();
    for _ in 0..3 {
        let seen = world.peek(Priority::Medium, 5 * S);
        assert_eq!((seen.reason, seen.ticket, seen.computed), (Reason::BacklogRed, false, false));
    }
    assert_eq!(world.peek(Priority::Low, 5 * S).delay_ns, 2_100_000_000);
    assert_eq!((world.queue.breaker.word(), world.queue.breaker.last_probe_ns()), (before, None));
    assert_eq!((world.queue.touched_ns(), world.host.heard()), (0, vec![]));
    assert!(world.queue.seen(Priority::Medium).is_none());
}

#[test]
fn a_look_ends_neither_a_forced_opening_nor_asks_for_anything() {
    let world = World::new(|settings| settings.degrade_ns = 100 * S);
    assert_eq!(world.peek(Priority::Medium, 0).reason, Reason::ColdStart);
    world.queue.read_failed(0);
    assert_eq!(world.peek(Priority::Medium, 0).reason, Reason::FallbackConservative);
    world.queue.put_sample(300, 0, None, None);
    world.host.reads_first.set(true);
    let aged = [10 * S + 1, 30 * S, 30 * S + 1, 130 * S, 130 * S + 1];
    let reasons = aged.map(|now_ns| world.peek(Priority::Medium, now_ns).reason);
    let (yellow, stale) = (Reason::BacklogYellow, Reason::StatsStale);
    assert_eq!(reasons, [yellow, yellow, stale, stale, Reason::FallbackConservative]);
    world.queue.breaker.force_open(Some(5 * S));
    let before = world.queue.breaker.word();
    assert_eq!(world.peek(Priority::High, 5 * S - 1).reason, Reason::CircuitOpen);
    assert_eq!(world.peek(Priority::High, 5 * S).reason, Reason::BacklogYellow);
    assert_eq!((world.queue.breaker.word(), world.host.heard()), (before, vec![]));
}

#[test]
fn what_is_foreseen_in_observe_mode_is_a_go_but_for_what_is_forced() {
    let world = World::new(|settings| settings.observe = true);
    world.queue.put_sample(1_000, 0, None, None);
    assert_eq!(world.peek(Priority::Low, 1).reason, Reason::ObserveOnly);
    world.queue.breaker.force_open(None);
    assert_eq!(world.peek(Priority::Low, 1).reason, Reason::CircuitOpen);
}

/// An engine that runs, and its host with a table.
struct House {
    engine: Engine,
    host: Fake,
}

impl House {
    fn new(change: impl FnOnce(&mut Settings)) -> Self {
        let house = Self { engine: Engine::new(settings(change), 0), host: Fake::default() };
        house.engine.switches.set_running(true);
        house
    }

    fn try_decide(&self, name: &str, now_ns: i64) -> Result<Seen, &'static str> {
        self.host.now_ns.set(now_ns);
        let name = name.to_owned();
        self.engine.decide(&self.host, Priority::Medium, true, false, || match self.host.find(&name)? {
            Some(stored) => Ok(Wanted::Queue(stored)),
            None => Ok(Wanted::Name(name)),
        })
    }

    fn reason(&self, name: &str, now_ns: i64) -> Reason {
        self.try_decide(name, now_ns).unwrap().reason
    }

    fn peek(&self, name: &str, now_ns: i64) -> Result<Reason, &'static str> {
        self.host.now_ns.set(now_ns);
        let seen = self.engine.peek(&self.host, Priority::Medium, || Ok(name.to_owned()))?;
        Ok(seen.reason)
    }

    fn names(&self) -> Vec<String> {
        in_order(&self.host).iter().map(|stored| stored.0.clone()).collect()
    }

    fn others(&self) -> u64 {
        let totals = self.engine.room.totals(&self.host);
        let others = totals.iter().filter(|(stored, _, _)| stored.is_none());
        others.map(|(_, _, totals)| totals.reasons.iter().sum::<u64>()).sum()
    }
}

#[test]
fn nobody_is_answered_by_an_engine_that_does_not_run() {
    let house = House::new(|_| {});
    house.engine.switches.set_running(false);
    assert_eq!(house.try_decide("a", 0), Err("not running"));
    assert_eq!(house.peek("a", 0), Err("not running"));
}

#[test]
fn a_look_makes_no_queue_and_evicts_none() {
    let house = House::new(|settings| settings.max_queues = 1);
    assert_eq!(house.peek("a", 0), Ok(Reason::ColdStart));
    house.reason("a", 0);
    house.host.heard();
    assert_eq!(house.peek("b", 300 * S), Ok(Reason::Untracked));
    assert_eq!(house.peek("b", 300 * S + 1), Ok(Reason::ColdStart)); // a is idle
    house.engine.switches.set_override(Some(301 * S));
    assert_eq!(house.peek("b", 300 * S + 1), Ok(Reason::ManualOverride));
    assert_eq!(house.peek("b", 301 * S), Ok(Reason::ColdStart));
    assert_eq!(house.engine.switches.mode().override_until_ns, Some(301 * S));
    assert_eq!((house.names(), house.others(), house.host.heard()), (vec!["a".into()], 0, vec![]));
}

#[test]
fn a_queue_is_read_at_first_sight() {
    let house = House::new(|_| {});
    assert_eq!(house.reason("a", 0), Reason::ColdStart);
    house.host.backlog.set(Some(300));
    assert_eq!(house.reason("a", 1), Reason::BacklogYellow);
    assert_eq!(house.host.heard()[1..4], ["answer", "read a, wait: true", "answer"]);
}

#[test]
fn the_end_of_an_override_is_told() {
    let house = House::new(|_| {});
    house.engine.switches.set_override(Some(5));
    assert_eq!(house.reason("a", 4), Reason::ManualOverride);
    house.host.heard();
    house.reason("a", 5);
    assert_eq!(house.host.heard()[0], "override ended");
}

#[test]
fn names_beyond_the_room_are_counted_together() {
    let house = House::new(|settings| settings.max_queues = 1);
    house.reason("a", 0);
    let beyond = house.try_decide("b", 1).unwrap();
    assert_eq!((beyond.reason, beyond.delay_ns), (Reason::Untracked, 500_000_000));
    house.engine.switches.set_override(Some(NEVER));
    assert_eq!(house.reason("b", 1), Reason::ManualOverride);
    assert_eq!((house.names(), house.others()), (vec!["a".into()], 2));
    let name = "b".to_owned();
    assert_eq!(house.engine.put_sample(&house.host, &name, 1, 0, None, None), Ok(false));
}

#[test]
fn idle_queues_make_room_and_their_counts_stay() {
    let house = House::new(|settings| settings.max_queues = 2);
    for name in ["a", "b"] {
        house.reason(name, 0);
    }
    house.reason("b", 1);
    house.host.heard();
    assert_eq!(house.reason("c", 300 * S), Reason::Untracked);
    let epoch = house.engine.switches.epoch();
    assert_eq!(house.reason("c", 300 * S + 1), Reason::ColdStart);
    assert_eq!(house.names(), ["b", "c"]);
    assert!(house.engine.switches.epoch() > epoch, "what lies ready was not voided");
    assert_eq!(house.others(), 2); // one of c, one of a
    assert!(house.host.heard().contains(&"evicted a".to_owned()));
}

#[test]
fn a_call_that_goes_on_while_its_queue_is_evicted_is_counted() {
    let house = House::new(|settings| settings.max_queues = 1);
    house.reason("a", 0);
    let held = house.host.find(&"a".to_owned()).unwrap().unwrap();
    let count = || held.1.asked(Priority::Medium).counters.count(Row::of(Reason::ColdStart, true), 0, false);
    house.reason("b", 300 * S + 1);
    count();
    assert_eq!(house.others(), 2);
    house.reason("c", 600 * S + 1); // too early: nobody is idle for so long
    count();
    assert_eq!((house.others(), house.host.aside.borrow().len()), (4, 1)); // c was told to wait, too
    house.reason("c", 600 * S + 2);
    assert_eq!(house.names(), ["c"]);
    assert_eq!(house.others(), 5); // two of b's and a's own
    let aside: Vec<_> = house.host.aside.borrow().iter().map(|stored| stored.0.clone()).collect();
    assert_eq!(aside, ["b"], "what nobody has asked for in so long lies aside for ever");
}

#[test]
fn a_sample_makes_room_for_its_queue_but_evicts_none() {
    let house = House::new(|settings| settings.max_queues = 1);
    let name = "a".to_owned();
    assert_eq!(house.engine.put_sample(&house.host, &name, 300, 0, None, None), Ok(true));
    assert_eq!(house.reason("a", 1), Reason::BacklogYellow);
    assert_eq!(house.engine.cache_size(&house.host), 1);
    house.host.now_ns.set(1_000 * S);
    assert_eq!(house.engine.put_sample(&house.host, &"b".to_owned(), 1, 0, None, None), Ok(false));
    house.engine.forget_samples(&house.host);
    assert_eq!(house.reason("a", 2), Reason::ColdStart);
}

#[test]
fn a_queue_whose_circuit_is_open_is_not_evicted() {
    let house = House::new(|settings| settings.max_queues = 1);
    house.reason("a", 0);
    house.host.find(&"a".to_owned()).unwrap().unwrap().1.breaker.force_open(None);
    assert_eq!(house.reason("b", 301 * S), Reason::Untracked);
    house.host.find(&"a".to_owned()).unwrap().unwrap().1.breaker.force_close();
    assert_eq!(house.reason("b", 330 * S), Reason::Untracked); // not looked at again so soon
    assert_eq!(house.reason("b", 331 * S), Reason::ColdStart);
}

#[test]
fn a_planned_wait_is_counted_when_it_is_kept_or_comes_too_late() {
    let house = House::new(|_| {});
    let name = "a".to_owned();
    house.engine.put_sample(&house.host, &name, 500, 0, None, None).unwrap();
    let plan = Plan {
        name: &name,
        priority: Priority::Medium,
        reason: Reason::BacklogYellow,
        delay_ns: 500_000_000,
        computed: true,
        ticket: None,
    };
    assert!(matches!(house.engine.admit(&house.host, &plan), Ok(Admission::AsPlanned(Some(_)))));
    house.engine.refuse_late(&house.host, &plan).unwrap();
    let [(_, _, totals)] = house.engine.room.totals(&house.host).try_into().ok().unwrap();
    let yellow = totals.reasons[Reason::BacklogYellow.index()];
    assert_eq!((yellow, totals.computed, totals.delay_sum_ns, totals.late), (2, 2, 1_000_000_000, 1));
    let untracked = Plan { reason: Reason::Untracked, ..plan };
    assert!(matches!(house.engine.admit(&house.host, &untracked), Ok(Admission::AsItIs)));
}

#[test]
fn racing_changes_of_the_mode_all_take_hold() {
    let engine = Engine::new(settings(|_| {}), 0);
    thread::scope(|scope| {
        scope.spawn(|| (0..1_000).for_each(|_| engine.switches.set_running(true)));
        scope.spawn(|| (0..1_000).for_each(|_| engine.switches.set_emergency(Some(NEVER))));
        scope.spawn(|| (1..=1_000).for_each(|until_ns| engine.switches.set_override(Some(until_ns))));
    });
    let mode = engine.switches.mode();
    assert_eq!((mode.epoch, engine.switches.epoch()), (3_000, 3_000));
    assert_eq!((mode.running, mode.emergency_until_ns, mode.override_until_ns), (true, Some(NEVER), Some(1_000)));
}

#[test]
fn the_loser_of_a_race_is_refused_on_behalf_of_a_closed_word() {
    let world = World::new(|_| {});
    let closed = Word::unpack(0).pack();
    let refused = world.call(Priority::Medium, 7, |call| call.reject((closed, 0)).unwrap());
    assert_eq!((refused.reason, refused.retry_at_ns), (Reason::CircuitHalfOpen, Some(7)));
    assert!(!world.is_ready(7));
}

#[test]
fn a_breaker_of_its_own_is_where_a_queue_has_one() {
    let settings = settings(|settings| {
        let circuit = CircuitSettings { failure_threshold: 9, ..(*settings.circuit).clone() };
        settings.circuits.insert("own".into(), Arc::new(circuit));
    });
    let threshold = |name| Breaker::new(Arc::clone(settings.circuit_of(name)), 0).circuit().failure_threshold;
    assert_eq!((threshold("own"), threshold("other")), (9, 1));
}

#[test]
fn a_queue_has_the_settings_of_the_first_pattern_that_matches() {
    let settings = settings(|settings| {
        let pattern = |pattern: &str, observe| PatternSettings {
            pattern: pattern.into(),
            law: None,
            circuit: None,
            observe: Some(observe),
        };
        settings.one_mode = false;
        settings.observed.insert("mail-eu".into(), false);
        settings.patterns = vec![pattern("mail-*-x", false), pattern("m*l*", true), pattern("**a", true)];
    });
    let observed = ["mail-eu", "mail-1-x", "mail-us", "ml", "m", "über-a", "mail-x", ""]
        .map(|name| settings.observes(|| Ok::<_, ()>(name)).unwrap());
    assert_eq!(observed, [false, false, true, true, false, true, true, false]);
}
