//! The circuit breaker: everything its transitions read is one 64-bit word, stepped by pure functions.
//!
//! Word, from the highest bit: state 2, forced 1, lease outstanding 1, count 10, generation 10, milliseconds 40.
//! The count is that of consecutive failures when closed, of successful probes when half-open. The milliseconds count
//! from the engine's first clock reading: start of the failure run, opening, or issue of the last probe's lease.
//! Stamps and durations round up, `now` rounds down, so nothing happens early and everything at most 2 ms late.
//!
//! # Memory orderings
//!
//! All are relaxed, and need not be more. A transition reads the word and nothing else, and publishes nothing but the
//! word: no other memory is reached through it. Transitions of one word are therefore ordered by that word's own
//! modification order, which every compare-and-swap extends at its end: no lease is issued twice and no count is lost.
//! A thread that learns of a transition by other means (a lock, a queue, a join) sees it or a later one, because that
//! other means synchronizes and coherence forbids reading backwards. The display times and the ticket's flag likewise
//! stand for themselves: a reader may see a time before the word that goes with it, or after, and shows it either way.

use std::convert::Infallible;
use std::sync::Arc;

use crate::sync::{AtomicBool, AtomicI64, AtomicU64, Ordering::Relaxed};

const MS: i64 = 1_000_000;
const MAX_MS: u64 = (1 << 40) - 1;
const MAX_COUNT: u64 = (1 << 10) - 1;
const MAX_GENERATION: u64 = (1 << 10) - 1;
/// The word of a circuit that is closed and has no failures to forget, but for its generation.
const PRISTINE: u64 = !(MAX_GENERATION << 40);
/// Stands for "never" in the display times.
const NEVER: i64 = i64::MIN;

/// State of a circuit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Everything goes.
    Closed,
    /// Nothing goes, until the first probe.
    Open,
    /// Probes go, one at a time.
    HalfOpen,
}

/// One queue's breaker settings; durations in milliseconds, rounded up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CircuitSettings {
    /// Consecutive failures that open it.
    pub failure_threshold: u64,
    /// Successful probes that close it.
    pub recovery_threshold: u64,
    /// Span within which those failures must lie.
    pub trip_window_ms: u64,
    /// Time from opening to the first probe.
    pub recovery_timeout_ms: u64,
    /// Time from one probe to the next, if the first is not heard of.
    pub probe_interval_ms: u64,
    /// Whether HIGH goes through all the same, without a ticket.
    pub high_attempts: bool,
}

/// The breaker's word, unpacked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Word {
    /// State of the circuit.
    pub state: State,
    /// Held open by hand.
    pub forced: bool,
    /// A probe's result is awaited.
    pub leased: bool,
    /// Consecutive failures, or successful probes.
    pub count: u64,
    /// Bumped by each transition.
    pub generation: u64,
    /// See the head of this file.
    pub stamp_ms: u64,
}

impl Word {
    /// Returns the 64-bit integer.
    pub fn pack(self) -> u64 {
        (self.state as u64) << 62
            | u64::from(self.forced) << 61
            | u64::from(self.leased) << 60
            | self.count << 50
            | self.generation << 40
            | self.stamp_ms
    }

    /// Reads a 64-bit integer.
    pub fn unpack(word: u64) -> Self {
        Self {
            state: state_of(word),
            forced: is_forced(word),
            leased: word >> 60 & 1 == 1,
            count: word >> 50 & MAX_COUNT,
            generation: generation_of(word),
            stamp_ms: word & MAX_MS,
        }
    }

    /// Returns the word after a transition: a new generation, counting from zero.
    fn to(self, state: State) -> Self {
        let generation = (self.generation + 1) & MAX_GENERATION;
        Self { state, forced: false, leased: false, count: 0, generation, stamp_ms: 0 }
    }
}

/// Returns the state in a packed word.
pub fn state_of(word: u64) -> State {
    match word >> 62 {
        0 => State::Closed,
        1 => State::Open,
        _ => State::HalfOpen,
    }
}

/// Tells whether a packed word is closed and has no failures to forget.
pub fn is_pristine(word: u64) -> bool {
    word & PRISTINE == 0
}

/// Tells whether a packed word is held open by hand.
pub fn is_forced(word: u64) -> bool {
    word >> 61 & 1 == 1
}

/// Returns the generation in a packed word.
pub fn generation_of(word: u64) -> u64 {
    word >> 40 & MAX_GENERATION
}

/// Rounds a reading down to whole milliseconds, saturating.
fn floor_ms(elapsed_ns: i64) -> u64 {
    (elapsed_ns.max(0) / MS).unsigned_abs().min(MAX_MS)
}

/// Rounds a stamp up to whole milliseconds, saturating.
fn ceil_ms(elapsed_ns: i64) -> u64 {
    elapsed_ns.max(0).unsigned_abs().div_ceil(MS.unsigned_abs()).min(MAX_MS)
}

/// Returns how long after its stamp the word admits a probe.
fn wait_ms(word: Word, circuit: &CircuitSettings) -> u64 {
    if word.state == State::Open { circuit.recovery_timeout_ms } else { circuit.probe_interval_ms }
}

/// Returns how long ago the word's stamp was; a stamp that was rounded up may lie ahead of `now`.
fn since_stamp(word: Word, elapsed_ns: i64) -> Option<u64> {
    floor_ms(elapsed_ns).checked_sub(word.stamp_ms)
}

/// Tells whether a caller may go, or may try for the probe's lease.
fn admits(word: Word, elapsed_ns: i64, circuit: &CircuitSettings) -> bool {
    word.state == State::Closed
        || (!word.forced && since_stamp(word, elapsed_ns).is_some_and(|ms| ms >= wait_ms(word, circuit)))
}

/// Returns the word with a probe's lease taken; only for a word that admits and is not closed.
fn leased(word: Word, elapsed_ns: i64) -> Word {
    let word = if word.state == State::Open { word.to(State::HalfOpen) } else { word };
    Word { leased: true, stamp_ms: ceil_ms(elapsed_ns), ..word }
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

/// Returns the word after a failure that counts.
fn failed(word: Word, elapsed_ns: i64, circuit: &CircuitSettings) -> Word {
    if word.state == State::Closed {
        let same_run = word.count > 0 && since_stamp(word, elapsed_ns).is_none_or(|ms| ms <= circuit.trip_window_ms);
        let (count, stamp_ms) = if same_run { (word.count + 1, word.stamp_ms) } else { (1, ceil_ms(elapsed_ns)) };
        if count < circuit.failure_threshold {
            return Word { count, stamp_ms, ..word };
        }
    }
    Word { stamp_ms: ceil_ms(elapsed_ns), ..word.to(State::Open) }
}

/// Returns the word after it was forced open.
fn forced_open(word: Word, elapsed_ns: i64) -> Word {
    Word { forced: true, stamp_ms: ceil_ms(elapsed_ns), ..word.to(State::Open) }
}

/// Tells whether a result may change the word.
///
/// A ticket's must be of the word's generation. One without a ticket counts when closed, and settles an outstanding
/// lease when half-open.
fn counts(word: Word, ticket: Option<&Ticket>) -> bool {
    match (word.state, ticket) {
        (State::Open, _) => false,
        (_, Some(ticket)) => ticket.generation == word.generation,
        (state, None) => state == State::Closed || word.leased,
    }
}

/// Permission to do one piece of work, to be handed back with its result. Thread-safe.
///
/// A probe's ticket settles once. A closed circuit's may be shared: it stands for the generation alone.
#[derive(Debug)]
pub struct Ticket {
    generation: u64,
    probe: bool,
    settled: AtomicBool,
}

impl Ticket {
    fn new(generation: u64, probe: bool) -> Self {
        Self { generation, probe, settled: AtomicBool::new(false) }
    }

    /// Returns the ticket of a caller that found the circuit closed.
    pub fn of_closed(word: u64) -> Self {
        Self::new(generation_of(word), false)
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

/// A change of state that a call caused, to be told to whoever watches the circuit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// The state before.
    pub old: State,
    /// The state after.
    pub new: State,
}

impl Change {
    fn between(old: Word, new: Word) -> Option<Self> {
        (old.state != new.state).then_some(Self { old: old.state, new: new.state })
    }
}

/// One queue's breaker. Thread-safe and lock-free.
///
/// Calls that can change the state return the change, and take the present instant as a closure, called only where the
/// answer depends on it.
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

    /// Looks, without taking anything: would an admission now stand a chance, if `word` still holds?
    pub fn admits(&self, word: u64, now_ns: i64) -> bool {
        admits(Word::unpack(word), self.elapsed_ns(now_ns), &self.circuit)
    }

    /// Returns when `word`, which must not be closed, admits its next probe; `None` while forced open.
    pub fn retry_at_ns(&self, word: u64) -> Option<i64> {
        let word = Word::unpack(word);
        let due_ms = word.stamp_ms.saturating_add(wait_ms(word, &self.circuit));
        let after_origin = i64::try_from(due_ms).unwrap_or(i64::MAX).saturating_mul(MS);
        (!word.forced).then(|| self.origin_ns.saturating_add(after_origin))
    }

    /// Admits a caller: a ticket, or `None` when it must not go.
    ///
    /// # Errors
    /// Whatever `now_ns` fails with; then nothing was changed.
    pub fn try_acquire<E>(
        &self,
        now_ns: impl FnOnce() -> Result<i64, E>,
    ) -> Result<(Option<Ticket>, Option<Change>), E> {
        let word = self.word();
        if state_of(word) == State::Closed {
            return Ok((Some(Ticket::of_closed(word)), None));
        }
        let now_ns = now_ns()?;
        let elapsed_ns = self.elapsed_ns(now_ns);
        let Some((old, new)) = self.step(|word| {
            let taken = if word.state == State::Closed { word } else { leased(word, elapsed_ns) };
            admits(word, elapsed_ns, &self.circuit).then_some(taken)
        }) else {
            return Ok((None, None));
        };
        let probe = old.state != State::Closed;
        if probe {
            self.last_probe_ns.store(now_ns, Relaxed);
        }
        Ok((Some(Ticket::new(new.generation, probe)), Change::between(old, new)))
    }

    /// Takes a result into account, or drops it when it is stale.
    ///
    /// # Errors
    /// Whatever `now_ns` fails with; then the result is lost.
    pub fn record<E>(
        &self,
        ok: bool,
        ticket: Option<&Ticket>,
        now_ns: impl FnOnce() -> Result<i64, E>,
    ) -> Result<Option<Change>, E> {
        if ticket.is_some_and(|ticket| !ticket.settle()) {
            return Ok(None);
        }
        if ok && is_pristine(self.word()) {
            return Ok(None); // whether or not it counts, nothing changes
        }
        let now_ns = now_ns()?;
        let elapsed_ns = self.elapsed_ns(now_ns);
        let Some((old, new)) = self.step(|word| {
            counts(word, ticket)
                .then(|| if ok { succeeded(word, &self.circuit) } else { failed(word, elapsed_ns, &self.circuit) })
        }) else {
            return Ok(None);
        };
        if !ok {
            self.last_failure_ns.store(now_ns, Relaxed);
        }
        Ok(Change::between(old, new))
    }

    /// Rejects everything until [`Self::force_close`] or [`Self::reset`].
    pub fn force_open(&self, now_ns: i64) -> Option<Change> {
        self.force(|word| forced_open(word, self.elapsed_ns(now_ns)))
    }

    /// Closes now; later failures open it again.
    pub fn force_close(&self) -> Option<Change> {
        self.force(|word| word.to(State::Closed))
    }

    /// Closes now and forgets the times of past failures and probes.
    pub fn reset(&self) -> Option<Change> {
        let change = self.force_close();
        self.last_failure_ns.store(NEVER, Relaxed);
        self.last_probe_ns.store(NEVER, Relaxed);
        change
    }

    fn force(&self, to: impl Fn(Word) -> Word) -> Option<Change> {
        self.step(|word| Some(to(word))).and_then(|(old, new)| Change::between(old, new))
    }

    /// Drives a pure step until it is applied to an unchanged word; returns the words before and after, or `None`
    /// where the step declines.
    fn step(&self, step: impl Fn(Word) -> Option<Word>) -> Option<(Word, Word)> {
        let mut seen = self.word();
        loop {
            let old = Word::unpack(seen);
            let new = step(old)?;
            match self.word.compare_exchange_weak(seen, new.pack(), Relaxed, Relaxed) {
                Ok(_) => return Some((old, new)),
                Err(other) => seen = other,
            }
        }
    }

    fn elapsed_ns(&self, now_ns: i64) -> i64 {
        now_ns.saturating_sub(self.origin_ns)
    }
}

fn shown(time_ns: &AtomicI64) -> Option<i64> {
    Some(time_ns.load(Relaxed)).filter(|&time_ns| time_ns != NEVER)
}

/// Gives an instant that is known already where a closure is asked for.
pub fn at(now_ns: i64) -> impl FnOnce() -> Result<i64, Infallible> {
    move || Ok(now_ns)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
    use std::thread;

    use proptest::prelude::*;

    use super::{
        Breaker, Change, CircuitSettings, MAX_MS, MS, State, Ticket, Word, at, ceil_ms, floor_ms, generation_of,
        is_pristine,
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
        breaker.try_acquire(at(now_ns)).unwrap().0
    }

    fn record(breaker: &Breaker, ok: bool, ticket: Option<&Ticket>, now_ns: i64) -> Option<Change> {
        breaker.record(ok, ticket, at(now_ns)).unwrap()
    }

    fn opened() -> Breaker {
        let breaker = breaker();
        for _ in 0..3 {
            record(&breaker, false, None, ms(0));
        }
        breaker
    }

    proptest! {
        #[test]
        fn a_word_survives_packing(
            state in prop::sample::select(vec![State::Closed, State::Open, State::HalfOpen]),
            forced: bool, leased: bool, count in 0..1_024u64, generation in 0..1_024u64, stamp_ms in 0..=MAX_MS,
        ) {
            let word = Word { state, forced, leased, count, generation, stamp_ms };
            prop_assert_eq!(Word::unpack(word.pack()), word);
        }

        #[test]
        fn a_packed_word_survives_unpacking(word in 0..(3u64 << 62)) {
            prop_assert_eq!(Word::unpack(word).pack(), word);
        }

        #[test]
        fn stamps_round_up_and_readings_down(elapsed_ns: i64) {
            let (floor, ceil) = (floor_ms(elapsed_ns), ceil_ms(elapsed_ns));
            prop_assert!(floor <= ceil && ceil <= MAX_MS && ceil - floor <= 1);
            if elapsed_ns >= 0 && ceil < MAX_MS {
                let ns = elapsed_ns.unsigned_abs();
                prop_assert!(floor * 1_000_000 <= ns && ns <= ceil * 1_000_000);
            }
        }
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
            assert_eq!(record(&breaker, ok, None, ms(1)), None);
        }
        let change = record(&breaker, false, None, ms(1));
        assert_eq!(change, Some(Change { old: State::Closed, new: State::Open }));
        assert_eq!(breaker.last_failure_ns(), Some(ms(1)));
        assert_eq!(generation_of(breaker.word()), 1);
    }

    #[test]
    fn a_run_of_failures_must_fit_its_window() {
        for (last_ms, state) in [(1_000, State::Open), (1_001, State::Closed)] {
            let breaker = breaker();
            for now_ms in [0, 500, last_ms] {
                record(&breaker, false, None, ms(now_ms));
            }
            assert_eq!(breaker.state(), state);
        }
    }

    #[test]
    fn a_recovered_circuit_issues_one_lease_per_interval() {
        let breaker = opened();
        assert!(acquire(&breaker, ms(5_000) - 1).is_none());
        assert_eq!(breaker.retry_at_ns(breaker.word()), Some(ms(5_000)));
        assert!(breaker.admits(breaker.word(), ms(5_000)));
        let (ticket, change) = breaker.try_acquire(at(ms(5_000))).unwrap();
        assert!(ticket.unwrap().probe());
        assert_eq!(change, Some(Change { old: State::Open, new: State::HalfOpen }));
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
        assert_eq!(change, Some(Change { old: State::HalfOpen, new: State::Closed }));
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
        assert_eq!(breaker.force_open(ms(1)), Some(Change { old: State::Closed, new: State::Open }));
        assert!(!breaker.admits(breaker.word(), i64::MAX));
        assert!(acquire(&breaker, i64::MAX).is_none());
        assert_eq!(breaker.retry_at_ns(breaker.word()), None);
        assert_eq!(breaker.reset(), Some(Change { old: State::Open, new: State::Closed }));
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
        assert_eq!(breaker.try_acquire(|| Err("no clock")).unwrap_err(), "no clock");
        assert_eq!(breaker.record(false, None, || Err("no clock")), Err("no clock"));
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
