//! Producers, a poller and an operator at one queue at once, and what no schedule of them may break.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

use backpressure_core::breaker::Outcome;
use backpressure_core::mode::NEVER;
use backpressure_core::vocabulary::{Priority, Reason};

use crate::world::{MS, Seen, World, number_in, settings};

/// What one thread does.
pub type Work = Box<dyn FnOnce() + Send>;

/// How often each kind of answer was given, by [`Reason::index`], and how many were probes or lay ready.
#[derive(Debug, Default)]
pub struct Reached {
    pub reasons: [u64; Reason::ALL.len()],
    pub probes: u64,
    pub ready: u64,
}

impl Reached {
    pub fn add(&mut self, other: &Self) {
        for (sum, count) in self.reasons.iter_mut().zip(other.reasons) {
            *sum += count;
        }
        self.probes += other.probes;
        self.ready += other.ready;
    }

    /// Tells whether the schedules led through every part of a decision.
    pub fn is_everywhere(&self) -> bool {
        self.missing().is_empty() && self.probes > 0 && self.ready > 0
    }

    pub fn assert_everywhere(&self) {
        assert!(self.is_everywhere(), "no {:?} in {self:?}", self.missing());
    }

    fn missing(&self) -> Vec<Reason> {
        use Reason::{
            BacklogGreen, BacklogRed, BacklogRedShed, BacklogYellow, CircuitHalfOpen, CircuitOpen, EmergencyMode,
            ManualOverride,
        };
        let mut wanted = vec![
            BacklogGreen,
            BacklogYellow,
            BacklogRed,
            BacklogRedShed,
            CircuitOpen,
            CircuitHalfOpen,
            ManualOverride,
            EmergencyMode,
        ];
        wanted.retain(|reason| self.reasons[reason.index()] == 0);
        wanted
    }
}

/// One world and what its threads report. Its clock is read by none twice at the same instant.
#[derive(Debug)]
struct Scene {
    world: World,
    clock: AtomicI64,
    answers: AtomicU64,
    reached: Mutex<Reached>,
    // Instants of the probes of each generation.
    probes: Mutex<BTreeMap<u64, Vec<i64>>>,
    // How many of each came to nothing.
    given_back: Mutex<BTreeMap<u64, usize>>,
}

impl Scene {
    fn now_ns(&self) -> i64 {
        self.clock.fetch_add(MS / 2, SeqCst)
    }

    fn produce(&self, producer: u64, rounds: u64) {
        for round in 0..rounds {
            let turn = round + producer;
            let priority = Priority::ALL[usize::try_from(turn % 3).expect("below 3")];
            let now_ns = self.now_ns();
            let known = self.world.queue.sample_number();
            let ready = self.world.hit(priority, now_ns);
            let lay_ready = ready.is_some();
            let seen = ready.unwrap_or_else(|| self.world.decide(priority, now_ns));
            self.note(&seen, lay_ready);
            let number = seen.backlog.map(number_in);
            assert!(number.is_none_or(|number| number >= known), "sample {number:?} where {known} was known");
            if let Some(ticket) = &seen.ticket {
                let outcome = match turn % 8 {
                    0..=4 => Outcome::Success,
                    5 | 6 => Outcome::Failure(Some(now_ns)),
                    _ => Outcome::Ignored,
                };
                if outcome == Outcome::Ignored {
                    self.note_given_back(ticket.generation());
                }
                self.world.record(outcome, Some(ticket), self.now_ns());
            }
        }
    }

    fn note(&self, seen: &Seen, lay_ready: bool) {
        self.answers.fetch_add(1, SeqCst);
        assert!(!seen.shed || seen.ticket.is_none(), "a refused job holds a ticket");
        assert!(seen.reason != Reason::BacklogRedShed || seen.priority == Priority::Low);
        let mut reached = self.reached.lock().unwrap();
        reached.reasons[seen.reason.index()] += 1;
        reached.ready += u64::from(lay_ready);
        if let Some(ticket) = seen.ticket.as_ref().filter(|ticket| ticket.probe()) {
            reached.probes += 1;
            self.probes.lock().unwrap().entry(ticket.generation()).or_default().push(seen.issued_ns);
        }
    }

    fn note_given_back(&self, generation: u64) {
        *self.given_back.lock().unwrap().entry(generation).or_default() += 1;
    }

    fn poll(&self, rounds: u64) {
        for number in 1..=rounds {
            self.world.poll((number % 4).cast_signed(), number, self.now_ns());
            for priority in Priority::ALL {
                if let Some(seen) = self.world.hit(priority, self.now_ns()) {
                    self.note(&seen, true);
                    assert!(seen.backlog.is_none_or(|backlog| number_in(backlog) == number));
                }
            }
        }
    }

    fn operate(&self, rounds: u64) {
        let World { engine, queue, .. } = &self.world;
        for round in 0..rounds {
            match round % 8 {
                0 => drop(queue.breaker.force_open(None)),
                1 => drop(queue.breaker.force_close()),
                2 => engine.switches.set_emergency(Some(NEVER)),
                3 => engine.switches.set_emergency(None),
                4 => engine.switches.set_override(Some(self.now_ns() + 2 * MS)),
                5 => engine.switches.configure(&settings(|_| {})),
                6 => queue.breaker.hasten(),
                _ => drop(queue.breaker.reset()),
            }
            for _ in 0..8 {
                self.now_ns();
            }
        }
    }

    fn check(&self) {
        assert_eq!(self.world.counted(), self.answers.load(SeqCst), "a decision was lost, or counted twice");
        let interval_ns = self.world.queue.breaker.circuit().probe_interval_ms.cast_signed() * MS;
        let given_back = self.given_back.lock().unwrap();
        for (generation, instants) in self.probes.lock().unwrap().iter_mut() {
            instants.sort_unstable();
            let early = instants.windows(2).filter(|pair| pair[1] - pair[0] < interval_ns).count();
            // Each that comes to nothing lets one go at once, whose reading of the clock may be close to two others'.
            let freed = given_back.get(generation).copied().unwrap_or_default();
            assert!(early <= 2 * freed, "two probes within one interval: {instants:?}, {freed} given back");
        }
    }
}

/// Runs `producers` and one poller and one operator, each for some rounds, on the threads that `on_threads` makes.
pub fn play(producers: u64, rounds: u64, on_threads: impl FnOnce(Vec<Work>)) -> Reached {
    let scene = Arc::new(Scene {
        world: World::new(|_| {}),
        clock: AtomicI64::new(0),
        answers: AtomicU64::new(0),
        reached: Mutex::default(),
        probes: Mutex::default(),
        given_back: Mutex::default(),
    });
    let work = |does: Box<dyn FnOnce(&Scene) + Send>| -> Work {
        let scene = Arc::clone(&scene);
        Box::new(move || does(&scene))
    };
    let mut works: Vec<Work> =
        (0..producers).map(|producer| work(Box::new(move |scene| scene.produce(producer, rounds)))).collect();
    works.push(work(Box::new(move |scene| scene.poll(rounds / 2))));
    works.push(work(Box::new(move |scene| scene.operate(rounds / 4))));
    on_threads(works);
    scene.check();
    std::mem::take(&mut *scene.reached.lock().unwrap())
}
