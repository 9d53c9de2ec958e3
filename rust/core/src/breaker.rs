//! The circuit breaker: everything its transitions read is one 64-bit word, see `word.rs`, stepped by pure functions.
//!
//! # Memory orderings
//!
//! All are relaxed, which is enough: a transition reads the word and nothing else, and publishes nothing but the word.
//! No other memory is reached through it. Transitions of one word are therefore ordered by that word's own
//! modification order, which every compare-and-swap extends at its end: no lease is issued twice and no count is lost.
//! A thread that learns of a transition by other means (a lock, a queue, a join) sees it or a later one, because that
//! other means synchronizes and coherence forbids reading backwards. The times for display and the ticket's flag do not
//! depend on the word either: a reader may see a time before or after the word that belongs to it, and shows it.

use std::convert::Infallible;
use std::sync::Arc;

use crate::settings::CircuitSettings;
use crate::sync::{AtomicBool, AtomicI64, AtomicU64, Ordering::Relaxed};
use crate::word::{
    DUE, LAST, MS, State, UNENDING, Word, floor_ms, generation_of, is_forced, is_pristine, stamp_ms, state_of,
};

/// Means "never" in the times for display.
const NEVER: i64 = i64::MIN;

/// Returns how long after its stamp the word admits a probe.
fn wait_ms(word: Word, circuit: &CircuitSettings) -> u64 {
    if word.state == State::Open { circuit.recovery_timeout_ms } else { circuit.probe_interval_ms }
}

/// Returns how long before a reading the word's stamp was; a stamp that was rounded up may lie ahead of it.
fn since_stamp(word: Word, reading_ms: u64) -> Option<u64> {
    reading_ms.checked_sub(word.stamp_ms)
}

/// Tells whether a caller may go, or may try for the probe's lease.
fn admits(word: Word, elapsed_ns: i64, circuit: &CircuitSettings) -> bool {
    let is_due = || {
        word.stamp_ms == DUE || since_stamp(word, floor_ms(elapsed_ns)).is_some_and(|ms| ms >= wait_ms(word, circuit))
    };
    word.state == State::Closed || (!word.forced && is_due())
}

/// Tells whether the word was forced open for a time that is up.
fn is_over(word: Word, elapsed_ns: i64) -> bool {
    word.forced && word.stamp_ms != UNENDING && floor_ms(elapsed_ns) >= word.stamp_ms
}

/// Returns the word with a probe's lease taken; only for a word that admits and is not closed.
fn leased(word: Word, elapsed_ns: i64) -> Word {
    let word = if word.state == State::Open { word.to(State::HalfOpen) } else { word };
    Word { leased: true, stamp_ms: stamp_ms(elapsed_ns), ..word }
}

/// Returns the word after a success that counts.
fn succeeded(word: Word, circuit: &CircuitSettings) -> Word {
    if word.state == State::Closed {
        return Word { count: 0, stamp_ms: 0, ..word };
    }
    if word.count + 1 >= circuit.recovery_threshold {
        return word.to(State::Closed);
    }
    Word { count: word.count + 1, leased: false, ..word }
}

/// Returns the word after a failure that counts, of an attempt that began at `began_ns` since the origin.
///
/// Idle time ends a run of failures, failing time does not: attempts may take longer than the window to fail.
fn failed(word: Word, began_ns: i64, elapsed_ns: i64, circuit: &CircuitSettings) -> Word {
    let stamp_ms = stamp_ms(elapsed_ns);
    if word.state == State::Closed {
        let idle_ms = || since_stamp(word, floor_ms(began_ns).min(LAST)); // stands still where the stamps do
        let same_run = word.count > 0 && idle_ms().is_none_or(|ms| ms <= circuit.trip_window_ms);
        let count = if same_run { word.count + 1 } else { 1 };
        if count < circuit.failure_threshold {
            return Word { count, stamp_ms, ..word };
        }
    }
    Word { stamp_ms, ..word.to(State::Open) }
}

/// Returns the word without the lease that was taken at `issued_ns` since the origin; `None` if it holds another lease.
fn given_back(word: Word, issued_ns: i64) -> Option<Word> {
    let own = word.state == State::HalfOpen && word.leased && word.stamp_ms == stamp_ms(issued_ns);
    own.then_some(Word { leased: false, stamp_ms: DUE, ..word })
}

/// Tells whether a result may change the word.
///
/// A result with a ticket counts if the ticket is of the word's generation. A result without one counts when the
/// circuit is closed, and when a half-open circuit waits for a probe's result.
fn counts(word: Word, ticket: Option<&Ticket>) -> bool {
    match (word.state, ticket) {
        (State::Open, _) => false,
        (_, Some(ticket)) => ticket.generation == word.generation,
        (state, None) => state == State::Closed || word.leased,
    }
}

/// Permission to do one piece of work, to be handed back with its result. Thread-safe.
///
/// The ticket of a probe counts once. That of a closed circuit may be shared: it tells nothing but the generation.
#[derive(Debug)]
pub struct Ticket {
    generation: u64,
    issued_ns: i64,
    probe: bool,
    settled: AtomicBool,
}

impl Ticket {
    fn new(generation: u64, issued_ns: i64, probe: bool) -> Self {
        Self { generation, issued_ns, probe, settled: AtomicBool::new(false) }
    }

    /// Returns the ticket of a caller that found the circuit closed.
    pub fn of_closed(word: u64, issued_ns: i64) -> Self {
        Self::new(generation_of(word), issued_ns, false)
    }

    /// When it was given out. The work is taken to begin then, unless its caller says when it began.
    pub fn issued_ns(&self) -> i64 {
        self.issued_ns
    }

    /// Generation of the breaker that issued it.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Whether it holds a half-open circuit's lease.
    pub fn probe(&self) -> bool {
        self.probe
    }

    /// Tells whether the result that comes with this ticket may count; true once for a probe.
    fn settle(&self) -> bool {
        !self.probe || !self.settled.swap(true, Relaxed)
    }
}

/// How work ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It went well.
    Success,
    /// It failed, having begun at the instant given, if that is known.
    Failure(Option<i64>),
    /// Its end says nothing about the queue: a probe's lease is given back.
    Ignored,
}

/// A change that a call made to the word, packed as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// The word before.
    pub old: u64,
    /// The word after.
    pub new: u64,
}

impl Change {
    /// Tells whether the watcher is told: of another state, and of what was done by hand.
    pub fn is_news(&self) -> bool {
        state_of(self.old) != state_of(self.new) || is_forced(self.old) || is_forced(self.new)
    }
}

/// One queue's breaker. Thread-safe and lock-free.
///
/// Calls that can change the word return the change, and some take the present instant as a closure, called only where
/// the answer depends on it.
#[derive(Debug)]
#[repr(C)] // the word first: callers find it beside what else they look at
pub struct Breaker {
    word: AtomicU64,
    circuit: Arc<CircuitSettings>,
    origin_ns: i64,
    // For display only; no transition reads them.
    last_failure_ns: AtomicI64,
    last_probe_ns: AtomicI64,
}

impl Breaker {
    /// Makes a closed breaker whose milliseconds begin at `origin_ns`.
    pub fn new(circuit: Arc<CircuitSettings>, origin_ns: i64) -> Self {
        Self {
            word: AtomicU64::new(0),
            circuit,
            origin_ns,
            last_failure_ns: AtomicI64::new(NEVER),
            last_probe_ns: AtomicI64::new(NEVER),
        }
    }

    /// Returns the 64-bit word that transitions read.
    pub fn word(&self) -> u64 {
        self.word.load(Relaxed)
    }

    /// Returns its settings.
    pub fn circuit(&self) -> &CircuitSettings {
        &self.circuit
    }

    /// Returns the state. An open circuit is so until its first probe, however long ago it opened.
    pub fn state(&self) -> State {
        state_of(self.word())
    }

    /// Returns the instant of the last failure that counted.
    pub fn last_failure_ns(&self) -> Option<i64> {
        shown(&self.last_failure_ns)
    }

    /// Returns the instant of the last probe.
    pub fn last_probe_ns(&self) -> Option<i64> {
        shown(&self.last_probe_ns)
    }

    /// Returns the word as a look at `now_ns` would leave it; changes nothing.
    pub fn word_at(&self, now_ns: i64) -> u64 {
        let seen = self.word();
        let word = Word::unpack(seen);
        if is_over(word, self.elapsed_ns(now_ns)) { word.to(State::Closed).pack() } else { seen }
    }

    /// Tells whether a caller would be admitted now if `word` still holds. Takes no lease.
    pub fn admits(&self, word: u64, now_ns: i64) -> bool {
        admits(Word::unpack(word), self.elapsed_ns(now_ns), &self.circuit)
    }

    /// Returns when `word`, which must not be closed, admits again; `None` where it is forced open without end.
    pub fn retry_at_ns(&self, word: u64) -> Option<i64> {
        let word = Word::unpack(word);
        let due_ms = match word.stamp_ms {
            UNENDING if word.forced => return None,
            until_ms if word.forced => until_ms,
            DUE => 0,
            stamp_ms => stamp_ms.saturating_add(wait_ms(word, &self.circuit)),
        };
        let after_origin = i64::try_from(due_ms).unwrap_or(i64::MAX).saturating_mul(MS);
        Some(self.origin_ns.saturating_add(after_origin))
    }

    /// Tells whether a ticket given out before still lets its holder go; a probe's does while its lease runs.
    pub fn honours(&self, word: u64, ticket: &Ticket, now_ns: i64) -> bool {
        let unpacked = Word::unpack(word);
        let own = unpacked.leased && unpacked.stamp_ms == stamp_ms(self.elapsed_ns(ticket.issued_ns));
        ticket.generation == unpacked.generation
            && if ticket.probe { own && !self.admits(word, now_ns) } else { unpacked.state == State::Closed }
    }

    /// Admits a caller: a ticket, or `None` when it must not go.
    pub fn try_acquire(&self, now_ns: i64) -> (Option<Ticket>, Option<Change>) {
        let word = self.word();
        if state_of(word) == State::Closed {
            return (Some(Ticket::of_closed(word, now_ns)), None);
        }
        let elapsed_ns = self.elapsed_ns(now_ns);
        let Some(change) = self.step(|word| {
            let taken = if word.state == State::Closed { word } else { leased(word, elapsed_ns) };
            admits(word, elapsed_ns, &self.circuit).then_some(taken)
        }) else {
            return (None, None);
        };
        let probe = state_of(change.old) != State::Closed;
        if probe {
            self.last_probe_ns.store(now_ns, Relaxed);
        }
        (Some(Ticket::new(generation_of(change.new), now_ns, probe)), Some(change))
    }

    /// Tells whether an outcome can change anything: a success into a pristine circuit cannot.
    #[inline]
    pub fn changes_by(&self, outcome: Outcome) -> bool {
        outcome != Outcome::Success || !is_pristine(self.word())
    }

    /// Takes a result into account, or drops it when it is stale.
    ///
    /// # Errors
    /// Whatever `now_ns` fails with; then the result is lost.
    pub fn record<E>(
        &self,
        outcome: Outcome,
        ticket: Option<&Ticket>,
        now_ns: impl FnOnce() -> Result<i64, E>,
    ) -> Result<Option<Change>, E> {
        if outcome == Outcome::Ignored && ticket.is_none_or(|ticket| !ticket.probe) {
            return Ok(None); // nothing was taken
        }
        if ticket.is_some_and(|ticket| !ticket.settle()) {
            return Ok(None);
        }
        if !self.changes_by(outcome) {
            return Ok(None);
        }
        let now_ns = now_ns()?;
        let issued_ns = self.elapsed_ns(ticket.map_or(now_ns, |ticket| ticket.issued_ns));
        let change = self.step(|word| {
            if !counts(word, ticket) {
                return None;
            }
            match outcome {
                Outcome::Success => Some(succeeded(word, &self.circuit)),
                Outcome::Failure(began_ns) => {
                    let began_ns = began_ns.map_or(issued_ns, |began_ns| self.elapsed_ns(began_ns));
                    Some(failed(word, began_ns, self.elapsed_ns(now_ns), &self.circuit))
                }
                Outcome::Ignored => given_back(word, issued_ns),
            }
        });
        if change.is_some() && matches!(outcome, Outcome::Failure(_)) {
            self.last_failure_ns.store(now_ns, Relaxed);
        }
        Ok(change)
    }

    /// Lets the next admission of an open circuit be its first probe, unless it is forced open.
    pub fn hasten(&self) {
        self.step(|word| (word.state == State::Open && !word.forced).then_some(Word { stamp_ms: DUE, ..word }));
    }

    /// Rejects everything until [`Self::force_close`], [`Self::reset`] or the instant given.
    pub fn force_open(&self, until_ns: Option<i64>) -> Option<Change> {
        let end_ms = until_ns.map_or(UNENDING, |until_ns| stamp_ms(self.elapsed_ns(until_ns)));
        self.step(|word| Some(Word { forced: true, stamp_ms: end_ms, ..word.to(State::Open) }))
    }

    /// Closes now; later failures open it again.
    pub fn force_close(&self) -> Option<Change> {
        self.step(|word| Some(word.to(State::Closed)))
    }

    /// Closes now and forgets the times of past failures and probes.
    pub fn reset(&self) -> Option<Change> {
        let change = self.force_close();
        self.last_failure_ns.store(NEVER, Relaxed);
        self.last_probe_ns.store(NEVER, Relaxed);
        change
    }

    /// Closes a circuit that was forced open for a time that is up.
    pub fn lapse(&self, now_ns: i64) -> Option<Change> {
        let elapsed_ns = self.elapsed_ns(now_ns);
        self.step(|word| is_over(word, elapsed_ns).then(|| word.to(State::Closed)))
    }

    /// Repeats a pure step until no other thread changed the word meanwhile; returns the change, `None` if the step
    /// makes none.
    fn step(&self, step: impl Fn(Word) -> Option<Word>) -> Option<Change> {
        let mut seen = self.word();
        loop {
            let new = step(Word::unpack(seen))?.pack();
            match self.word.compare_exchange_weak(seen, new, Relaxed, Relaxed) {
                Ok(_) => return Some(Change { old: seen, new }),
                Err(other) => seen = other,
            }
        }
    }

    fn elapsed_ns(&self, now_ns: i64) -> i64 {
        now_ns.saturating_sub(self.origin_ns)
    }
}

/// Watches a circuit: tells the time when it is asked, and is told of changes.
pub trait Watcher {
    /// The error of its methods.
    type Error;

    /// Returns the present instant.
    ///
    /// # Errors
    /// Its own, as of every method here.
    fn now_ns(&self) -> Result<i64, Self::Error>;

    /// Is told of a change that is news.
    ///
    /// # Errors
    /// See [`Self::now_ns`].
    fn circuit_changed(&self, change: Change) -> Result<(), Self::Error>;
}

/// A breaker and its watcher, which is told of every change made here that is news.
#[derive(Debug)]
pub struct Watched<'a, W> {
    /// The breaker.
    pub breaker: &'a Breaker,
    /// Its watcher.
    pub watcher: &'a W,
}

impl<W: Watcher> Watched<'_, W> {
    /// Returns the word; looking ends a forced opening whose time is up.
    ///
    /// # Errors
    /// The watcher's, as of every method here.
    pub fn look(&self) -> Result<u64, W::Error> {
        if is_forced(self.breaker.word()) {
            self.tell(self.breaker.lapse(self.watcher.now_ns()?))?;
        }
        Ok(self.breaker.word())
    }

    /// Admits a caller: a ticket, or `None` when it must not go.
    ///
    /// # Errors
    /// See [`Self::look`].
    pub fn try_acquire(&self) -> Result<Option<Ticket>, W::Error> {
        self.look()?;
        let (ticket, change) = self.breaker.try_acquire(self.watcher.now_ns()?);
        self.tell(change)?;
        Ok(ticket)
    }

    /// Takes a result into account, or drops it when it is stale; `failed` is called before anyone hears of a failure
    /// that counted.
    ///
    /// # Errors
    /// See [`Self::look`].
    pub fn record(&self, outcome: Outcome, ticket: Option<&Ticket>, failed: impl FnOnce()) -> Result<(), W::Error> {
        self.look()?;
        let change = self.breaker.record(outcome, ticket, || self.watcher.now_ns())?;
        if change.is_some() && matches!(outcome, Outcome::Failure(_)) {
            failed();
        }
        self.tell(change)
    }

    /// Tells of a change, if it is news.
    ///
    /// # Errors
    /// See [`Self::look`].
    pub fn tell(&self, change: Option<Change>) -> Result<(), W::Error> {
        change.filter(Change::is_news).map_or(Ok(()), |change| self.watcher.circuit_changed(change))
    }
}

fn shown(time_ns: &AtomicI64) -> Option<i64> {
    Some(time_ns.load(Relaxed)).filter(|&time_ns| time_ns != NEVER)
}

/// Makes the closure of an instant that is known already.
pub fn at(now_ns: i64) -> impl FnOnce() -> Result<i64, Infallible> {
    move || Ok(now_ns)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
    use std::thread;

    use super::{
        Breaker, Change, CircuitSettings, LAST, MS, Outcome, State, Ticket, Word, at, generation_of, is_pristine,
        state_of,
    };

    const ORIGIN: i64 = 7 * 1_000 * MS + 123_456;

    fn breaker() -> Breaker {
        Breaker::new(
            Arc::new(CircuitSettings {
                failure_threshold: 3,
                recovery_threshold: 2,
                trip_window_ms: 1_000,
                recovery_timeout_ms: 5_000,
                probe_interval_ms: 100,
                high_attempts: false,
            }),
            ORIGIN,
        )
    }

    fn ms(ms: i64) -> i64 {
        ORIGIN + ms * MS
    }

    fn acquire(breaker: &Breaker, now_ns: i64) -> Option<Ticket> {
        breaker.try_acquire(now_ns).0
    }

    fn record(breaker: &Breaker, ok: bool, ticket: Option<&Ticket>, now_ns: i64) -> Option<Change> {
        let outcome = if ok { Outcome::Success } else { Outcome::Failure(None) };
        breaker.record(outcome, ticket, at(now_ns)).unwrap()
    }

    fn states(change: Option<Change>) -> Option<(State, State)> {
        change.filter(Change::is_news).map(|change| (state_of(change.old), state_of(change.new)))
    }

    fn opened() -> Breaker {
        let breaker = breaker();
        for _ in 0..3 {
            record(&breaker, false, None, ms(0));
        }
        breaker
    }

    #[test]
    fn a_pristine_word_holds_nothing_but_a_generation() {
        assert!(is_pristine(0));
        for bit in 0..64 {
            assert_eq!(is_pristine(1 << bit), (40..50).contains(&bit));
        }
    }

    #[test]
    fn opens_at_the_threshold_of_consecutive_failures() {
        let breaker = breaker();
        for ok in [false, false, true, false, false] {
            assert_eq!(states(record(&breaker, ok, None, ms(1))), None);
        }
        let change = record(&breaker, false, None, ms(1));
        assert_eq!(states(change), Some((State::Closed, State::Open)));
        assert_eq!(breaker.last_failure_ns(), Some(ms(1)));
        assert_eq!(generation_of(breaker.word()), 1);
    }

    #[test]
    fn idle_time_ends_a_run_of_failures() {
        for (last_ms, state) in [(2_000, State::Open), (2_001, State::Closed)] {
            let breaker = breaker();
            for now_ms in [500, 1_000, last_ms] {
                record(&breaker, false, None, ms(now_ms));
            }
            assert_eq!(breaker.state(), state);
        }
    }

    #[test]
    fn failing_time_does_not() {
        for (idle_ms, state) in [(0, State::Open), (1_000, State::Open), (1_001, State::Closed)] {
            let breaker = breaker();
            let mut now_ms = 0;
            for idle_ms in [0, 0, idle_ms] {
                let began_ms = now_ms + idle_ms;
                now_ms = began_ms + 58_800;
                breaker.record(Outcome::Failure(Some(ms(began_ms))), None, at(ms(now_ms))).unwrap();
            }
            assert_eq!(breaker.state(), state);
        }
    }

    #[test]
    fn an_attempt_begins_when_its_ticket_is_issued_if_nobody_knows_better() {
        let breaker = breaker();
        for began_ms in [0, 58_800, 117_600] {
            let ticket = acquire(&breaker, ms(began_ms));
            record(&breaker, false, ticket.as_ref(), ms(began_ms + 58_800));
        }
        assert_eq!(breaker.state(), State::Open);
    }

    #[test]
    fn a_probe_that_came_to_nothing_gives_its_lease_back() {
        let breaker = opened();
        let probe = acquire(&breaker, ms(5_000)).unwrap();
        breaker.record(Outcome::Ignored, Some(&probe), at(ms(5_001))).unwrap();
        assert_eq!(breaker.retry_at_ns(breaker.word()), Some(ORIGIN));
        let next = acquire(&breaker, ms(5_001)).unwrap();
        assert!(next.probe());
        assert!(acquire(&breaker, ms(5_101) - 1).is_none());
        record(&breaker, true, Some(&probe), ms(5_002));
        assert_eq!(Word::unpack(breaker.word()).count, 0);
    }

    #[test]
    fn a_lease_that_is_another_probes_by_now_is_not_given_back() {
        let breaker = opened();
        let late = acquire(&breaker, ms(5_000)).unwrap();
        acquire(&breaker, ms(5_100)).unwrap();
        let word = breaker.word();
        breaker.record(Outcome::Ignored, Some(&late), at(ms(5_101))).unwrap();
        assert_eq!(breaker.word(), word);
    }

    #[test]
    fn a_ticket_is_honoured_while_its_circuit_is_closed_or_its_lease_runs() {
        let breaker = breaker();
        let ticket = acquire(&breaker, ms(0)).unwrap();
        assert!(breaker.honours(breaker.word(), &ticket, ms(90_000)));
        breaker.force_close();
        assert!(!breaker.honours(breaker.word(), &ticket, ms(1)));
        let breaker = opened();
        let probe = acquire(&breaker, ms(5_000)).unwrap();
        assert!(breaker.honours(breaker.word(), &probe, ms(5_100) - 1));
        assert!(!breaker.honours(breaker.word(), &probe, ms(5_100)));
        acquire(&breaker, ms(5_100)).unwrap();
        assert!(!breaker.honours(breaker.word(), &probe, ms(5_101)));
    }

    #[test]
    fn a_hastened_circuit_admits_its_probe_at_once() {
        let breaker = opened();
        breaker.hasten();
        assert_eq!((breaker.state(), generation_of(breaker.word())), (State::Open, 1));
        assert!(acquire(&breaker, ms(1)).unwrap().probe());
        let word = breaker.word();
        breaker.hasten();
        assert_eq!(breaker.word(), word);
        breaker.force_open(None);
        breaker.hasten();
        assert!(acquire(&breaker, ms(90_000)).is_none());
    }

    #[test]
    fn forced_open_for_a_time_closes_when_that_is_up() {
        let breaker = breaker();
        breaker.force_open(Some(ms(600)));
        assert_eq!(breaker.retry_at_ns(breaker.word()), Some(ms(600)));
        assert_eq!(breaker.lapse(ms(600) - 1), None);
        assert!(acquire(&breaker, ms(600) - 1).is_none());
        assert_eq!(states(breaker.lapse(ms(600))), Some((State::Open, State::Closed)));
        assert_eq!(breaker.lapse(ms(600)), None);
        breaker.force_open(Some(i64::MAX));
        assert_eq!(breaker.lapse(ms(1 << 39)), None);
    }

    #[test]
    fn a_circuit_that_opens_after_the_last_stamp_is_probed() {
        let last_ms = i64::try_from(LAST).unwrap();
        for opened_ms in [last_ms, last_ms + 1, last_ms << 1] {
            let breaker = breaker();
            for idle_ms in [0, 500, 0] {
                record(&breaker, false, None, ms(opened_ms + idle_ms));
            }
            assert_eq!((breaker.state(), Word::unpack(breaker.word()).stamp_ms), (State::Open, LAST));
            let retry_at_ns = breaker.retry_at_ns(breaker.word()).unwrap();
            assert_eq!(retry_at_ns, ms(last_ms + 5_000));
            assert!(acquire(&breaker, retry_at_ns - 1).is_none());
            assert!(acquire(&breaker, ms(opened_ms + 5_000)).unwrap().probe());
        }
    }

    #[test]
    fn whatever_is_forced_is_news() {
        let breaker = opened();
        assert!(breaker.force_open(None).is_some_and(|change| change.is_news()));
        assert!(breaker.force_open(Some(ms(9))).is_some_and(|change| change.is_news()));
        assert!(breaker.force_close().is_some_and(|change| change.is_news()));
        assert!(!breaker.force_close().is_some_and(|change| change.is_news()));
    }

    #[test]
    fn a_recovered_circuit_issues_one_lease_per_interval() {
        let breaker = opened();
        assert!(acquire(&breaker, ms(5_000) - 1).is_none());
        assert_eq!(breaker.retry_at_ns(breaker.word()), Some(ms(5_000)));
        assert!(breaker.admits(breaker.word(), ms(5_000)));
        let (ticket, change) = breaker.try_acquire(ms(5_000));
        assert!(ticket.unwrap().probe());
        assert_eq!(states(change), Some((State::Open, State::HalfOpen)));
        assert!(acquire(&breaker, ms(5_100) - 1).is_none());
        assert!(acquire(&breaker, ms(5_100)).unwrap().probe());
        assert_eq!(breaker.last_probe_ns(), Some(ms(5_100)));
    }

    #[test]
    fn probes_close_it_and_each_settles_once() {
        let breaker = opened();
        let first = acquire(&breaker, ms(5_000)).unwrap();
        record(&breaker, true, Some(&first), ms(5_001));
        record(&breaker, true, Some(&first), ms(5_001));
        assert_eq!(breaker.state(), State::HalfOpen);
        let second = acquire(&breaker, ms(5_100)).unwrap();
        let change = record(&breaker, true, Some(&second), ms(5_101));
        assert_eq!(states(change), Some((State::HalfOpen, State::Closed)));
        assert!(!acquire(&breaker, ms(5_101)).unwrap().probe());
        assert_eq!(breaker.last_failure_ns(), Some(ms(0)));
    }

    #[test]
    fn one_failed_probe_opens_it_again() {
        let breaker = opened();
        let probe = acquire(&breaker, ms(5_000)).unwrap();
        record(&breaker, false, Some(&probe), ms(5_050));
        assert_eq!(breaker.state(), State::Open);
        assert_eq!(breaker.retry_at_ns(breaker.word()), Some(ms(10_050)));
    }

    #[test]
    fn results_of_another_generation_are_dropped() {
        let breaker = breaker();
        let stale = acquire(&breaker, ms(0)).unwrap();
        breaker.force_close();
        for _ in 0..5 {
            record(&breaker, false, Some(&stale), ms(1));
        }
        assert_eq!(Word::unpack(breaker.word()).count, 0);
    }

    #[test]
    fn without_a_ticket_one_result_settles_the_lease() {
        let breaker = opened();
        record(&breaker, true, None, ms(5_000));
        assert_eq!(breaker.state(), State::Open);
        acquire(&breaker, ms(5_000));
        record(&breaker, true, None, ms(5_001));
        record(&breaker, true, None, ms(5_001));
        let word = Word::unpack(breaker.word());
        assert_eq!((word.state, word.count, word.leased), (State::HalfOpen, 1, false));
    }

    #[test]
    fn forced_open_holds_until_it_is_released() {
        let breaker = breaker();
        assert_eq!(states(breaker.force_open(None)), Some((State::Closed, State::Open)));
        assert!(!breaker.admits(breaker.word(), i64::MAX));
        assert!(acquire(&breaker, i64::MAX).is_none());
        assert_eq!(breaker.retry_at_ns(breaker.word()), None);
        assert_eq!(states(breaker.reset()), Some((State::Open, State::Closed)));
        assert_eq!((breaker.last_failure_ns(), breaker.last_probe_ns()), (None, None));
        assert_eq!(generation_of(breaker.word()), 2);
    }

    #[test]
    fn generations_wrap_around() {
        let breaker = breaker();
        for _ in 0..1_024 {
            breaker.force_close();
        }
        assert_eq!(breaker.word(), 0);
    }

    #[test]
    fn a_clock_that_fails_changes_nothing() {
        let breaker = opened();
        let word = breaker.word();
        assert_eq!(breaker.record(Outcome::Failure(None), None, || Err("no clock")), Err("no clock"));
        assert_eq!(breaker.word(), word);
    }

    #[test]
    fn racing_threads_share_one_lease() {
        for _ in 0..50 {
            let (breaker, probes) = (opened(), AtomicUsize::new(0));
            thread::scope(|scope| {
                for _ in 0..4 {
                    scope.spawn(|| {
                        if acquire(&breaker, ms(5_000)).is_some() {
                            probes.fetch_add(1, Relaxed);
                        }
                    });
                }
            });
            assert_eq!(probes.into_inner(), 1);
        }
    }
}
