//! The whole decision: switches, breaker, cached or computed advice, fallback, admission, and the count of it.
//!
//! The host keeps the table of queues and makes the objects that callers see; everything between is decided here.
//!
//! # Memory orderings
//!
//! The mode is published as a sample is (see `queue.rs`): the pointer first, then the epoch with release, read with
//! acquire; who sees an epoch finds its mode or a later one. The instants of the next check and the next eviction are
//! relaxed, since they stand for themselves: whoever reads an old one is early, and looks once for nothing. So is what the
//! host said at the last check: who comes in the midst of a check goes by the one before.

use std::collections::HashMap;
use std::sync::Arc;

use crate::breaker::{Change, CircuitSettings, State, Ticket, is_forced, state_of};
use crate::counters::{Counters, Row};
use crate::laws::three_zone::{Law, ThreeZoneLaw, saturated};
use crate::queue::{Computed, Place, Queue, Ready, Sample};
use crate::sync::{ArcSwap, AtomicBool, AtomicI64, AtomicU64, Ordering};
use crate::vocabulary::{Priority, Reason};
use crate::zone::Zone;

/// An instant that never comes.
pub const NEVER: i64 = i64::MAX;

// Queues idle for this many cache lifetimes may be evicted when there is no room.
const IDLE_TTLS: i64 = 10;

/// Everything an engine decides by; see the Python `EngineSettings` for what each field means.
#[derive(Clone, Debug)]
#[expect(missing_docs, reason = "documented where they are made")]
pub struct Settings {
    pub law: ThreeZoneLaw,
    pub circuit: Arc<CircuitSettings>,
    pub laws: HashMap<String, ThreeZoneLaw>,
    pub circuits: HashMap<String, Arc<CircuitSettings>>,
    pub cache_ttl_ns: i64,
    pub check_after_ns: i64,
    pub check_every_ns: i64,
    pub degrade_ns: i64,
    pub fallback_ns: [u64; 3],
    pub fallback_reason: Reason,
    pub polling: bool,
    pub observe: bool,
    pub max_queues: usize,
}

impl Settings {
    /// Returns the law that holds for a queue.
    pub fn law_of(&self, queue_name: &str) -> &impl Law {
        self.laws.get(queue_name).unwrap_or(&self.law)
    }

    /// Returns the breaker settings that hold for a queue.
    pub fn circuit_of(&self, queue_name: &str) -> &Arc<CircuitSettings> {
        self.circuits.get(queue_name).unwrap_or(&self.circuit)
    }
}

/// Configuration and switches at one moment. Replaced whole: a new one is a new epoch, voiding all [`Ready`].
#[derive(Clone, Debug)]
pub struct Mode {
    /// Grows with every replacement.
    pub epoch: u64,
    /// The configuration.
    pub settings: Arc<Settings>,
    /// Whether decisions are made at all.
    pub running: bool,
    /// When the manual override ends; `None` while it is off.
    pub override_until_ns: Option<i64>,
    /// Whether emergency mode is on.
    pub emergency: bool,
}

impl Mode {
    /// Returns the reason to let everything pass, if one of the manual switches is on.
    pub fn switch(&self) -> Option<Reason> {
        match (self.override_until_ns, self.emergency) {
            (Some(_), _) => Some(Reason::ManualOverride),
            (None, true) => Some(Reason::EmergencyMode),
            (None, false) => None,
        }
    }
}

/// Advice with where it came from.
#[derive(Debug)]
pub struct Answer<P> {
    /// Why.
    pub reason: Reason,
    /// Nanoseconds to wait; where the job is refused by load, those it would have waited.
    pub delay_ns: u64,
    /// Whether the job is refused.
    pub shed: bool,
    /// Zone of the sample it was made from.
    pub zone: Option<Zone>,
    /// Backlog of that sample.
    pub backlog: Option<i64>,
    /// The computation that it was taken from; else it was made just now.
    pub source: Option<Arc<Computed<P>>>,
    /// Whether that computation was made for it.
    pub computed: bool,
    /// How long it stays true, if that is known.
    pub until_ns: Option<i64>,
    /// Whether it is the refusal of a circuit held open by hand, which observe mode keeps to.
    pub forced: bool,
}

impl<P> Answer<P> {
    fn go(reason: Reason) -> Self {
        Self::wait(reason, 0)
    }

    fn wait(reason: Reason, delay_ns: u64) -> Self {
        Self {
            reason,
            delay_ns,
            shed: false,
            zone: None,
            backlog: None,
            source: None,
            computed: false,
            until_ns: None,
            forced: false,
        }
    }
}

/// What an engine asks of its surroundings during one call on one queue.
pub trait Host {
    /// What callers see: decisions, and times of computation.
    type Object;
    /// What a call into the surroundings fails with.
    type Error;
    /// Where ready answers lie.
    type Place: Place<Ready<Self::Object>>;

    /// Returns wall time for display.
    ///
    /// # Errors
    /// The host's own, as of every method here.
    fn utc_now(&self) -> Result<Self::Object, Self::Error>;

    /// Looks after the poller: samples have not been renewed in time. Tells whether the caller is to read first.
    ///
    /// # Errors
    /// See [`Self::utc_now`].
    fn check_poller(&self) -> Result<bool, Self::Error>;

    /// Hears of a change of the queue's breaker that is news.
    ///
    /// # Errors
    /// See [`Self::utc_now`].
    fn circuit_changed(&self, change: Change) -> Result<(), Self::Error>;

    /// Hears that the queue's backlog lies in another zone of a priority's window; before the first look it was green.
    ///
    /// # Errors
    /// See [`Self::utc_now`].
    fn zone_changed(&self, priority: Priority, old: Zone, new: Zone) -> Result<(), Self::Error>;

    /// Builds the decision of an answer.
    ///
    /// # Errors
    /// See [`Self::utc_now`].
    fn decision(
        &self,
        priority: Priority,
        answer: &Answer<Self::Object>,
        ticket: Option<Ticket>,
        issued_ns: i64,
        retry_at_ns: Option<i64>,
    ) -> Result<Self::Object, Self::Error>;

    /// Builds the go that observe mode hands out, with the real decision beside it.
    ///
    /// # Errors
    /// See [`Self::utc_now`].
    fn observed(&self, decision: Self::Object) -> Result<Self::Object, Self::Error>;

    /// Returns another reference to the same decision.
    fn share(&self, decision: &Self::Object) -> Self::Object;
}

/// How a decision is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ask {
    /// Whether a caller that is to wait is admitted and counted at once, before it has waited.
    pub admit: bool,
    /// Whether the caller can read the queue where its sample is wanting.
    pub may_read: bool,
    /// What such a read ended with, if it is to be answered with that.
    pub cold: Option<Reason>,
}

/// A decision that is about to be kept to.
#[derive(Clone, Copy, Debug)]
pub enum Planned<'a> {
    /// It advised a delay, and is neither admitted nor counted yet.
    Wait,
    /// It is a go, admitted by this ticket, if any, and counted.
    Go(Option<&'a Ticket>),
    /// It is observe mode's go.
    Observed,
}

/// What comes of asking the breaker again.
#[derive(Debug)]
pub enum Admission<P> {
    /// The caller goes as planned, by the ticket that it has, if any.
    AsItIs,
    /// The caller goes as planned, by this ticket.
    AsPlanned(Option<Ticket>),
    /// This is the decision instead. It is counted.
    Instead(P),
}

/// What one engine's queues share: its mode, and what counts for no queue of its own. Thread-safe.
#[derive(Debug)]
pub struct Engine {
    /// Where its milliseconds begin: its first clock reading.
    pub origin_ns: i64,
    /// What queues without state of their own are counted under: those beyond `max_queues`, and evicted ones.
    pub other: [Counters; 3],
    mode: ArcSwap<Mode>,
    epoch: AtomicU64,
    next_check_ns: AtomicI64,
    // When the poller was last looked after, and what the host said then.
    checked_ns: AtomicI64,
    read_first: AtomicBool,
    next_eviction_ns: AtomicI64,
}

impl Engine {
    /// Makes an engine that is not running yet.
    pub fn new(settings: Arc<Settings>, origin_ns: i64) -> Self {
        let mode = Mode { epoch: 0, settings, running: false, override_until_ns: None, emergency: false };
        Self {
            origin_ns,
            other: Default::default(),
            mode: ArcSwap::from_pointee(mode),
            epoch: AtomicU64::new(0),
            next_check_ns: AtomicI64::new(0),
            checked_ns: AtomicI64::new(0),
            read_first: AtomicBool::new(false),
            next_eviction_ns: AtomicI64::new(0),
        }
    }

    // ------------------------------------------------------------------------------------------------------ switches

    /// Returns the mode that holds, but for an override whose time is up.
    pub fn mode(&self) -> Arc<Mode> {
        self.mode.load_full()
    }

    /// Returns the epoch of a mode that holds. What was made in that epoch is current.
    pub fn epoch(&self) -> u64 {
        // Acquire pairs with the release in `change`: who sees an epoch sees its mode.
        self.epoch.load(Ordering::Acquire)
    }

    /// Returns the mode that holds at `now_ns`, and whether this call ended an override whose time was up.
    pub fn mode_at(&self, now_ns: i64) -> (Arc<Mode>, bool) {
        let mode = self.mode();
        match mode.override_until_ns {
            Some(until_ns) if until_ns <= now_ns => self.change(|mode| {
                let expired = mode.override_until_ns == Some(until_ns);
                expired.then(|| Mode { override_until_ns: None, ..mode.clone() })
            }),
            _ => (mode, false),
        }
    }

    /// Swaps the configuration.
    pub fn configure(&self, settings: &Arc<Settings>) {
        self.change(|mode| Some(Mode { settings: Arc::clone(settings), ..mode.clone() }));
    }

    /// Starts or stops answering.
    pub fn set_running(&self, running: bool) {
        self.change(|mode| Some(Mode { running, ..mode.clone() }));
    }

    /// Turns the override on until an instant ([`NEVER`]: until it is turned off), or off with `None`.
    pub fn set_override(&self, override_until_ns: Option<i64>) {
        self.change(|mode| Some(Mode { override_until_ns, ..mode.clone() }));
    }

    /// Turns emergency mode on or off.
    pub fn set_emergency(&self, emergency: bool) {
        self.change(|mode| Some(Mode { emergency, ..mode.clone() }));
    }

    /// Replaces the mode by what `change` makes of it, unless that is `None`. Returns the mode that holds then, and
    /// whether it was replaced.
    fn change(&self, change: impl Fn(&Mode) -> Option<Mode>) -> (Arc<Mode>, bool) {
        let mut seen = self.mode();
        let new = loop {
            let Some(changed) = change(&seen) else { return (seen, false) };
            let new = Arc::new(Mode { epoch: seen.epoch + 1, ..changed });
            let previous = self.mode.compare_and_swap(&seen, Arc::clone(&new));
            if Arc::ptr_eq(&previous, &seen) {
                break new;
            }
            seen = Arc::clone(&previous);
        };
        // The largest, not the last: of two threads the one whose mode was overtaken may come here second.
        self.epoch.fetch_max(new.epoch, Ordering::Release);
        (new, true)
    }

    // ------------------------------------------------------------------------------------------------------ eviction

    /// Tells whether any queue can have become idle since all of them were last looked at.
    pub fn may_evict(&self, now_ns: i64) -> bool {
        now_ns >= self.next_eviction_ns.load(Ordering::Relaxed)
    }

    /// Notes when it is worth while to look again.
    pub fn set_next_eviction_ns(&self, next_eviction_ns: i64) {
        self.next_eviction_ns.store(next_eviction_ns, Ordering::Relaxed);
    }

    /// Voids all ready answers, those of queues that nobody will find any more among them.
    pub fn void_ready(&self) {
        self.change(|mode| Some(mode.clone()));
    }

    /// Returns when a queue may next be found idle; `None` if it may be evicted now.
    pub fn idle_from_ns<P, S: Default>(settings: &Settings, queue: &Queue<P, S>, now_ns: i64) -> Option<i64> {
        let from_ns = Self::untouched_from_ns(settings, queue.touched_ns());
        if queue.breaker.state() == State::Closed {
            (now_ns < from_ns).then_some(from_ns)
        } else {
            Some(now_ns.saturating_add(settings.cache_ttl_ns))
        }
    }

    /// Returns when a queue that is asked for at `touched_ns` and never again counts as idle.
    pub fn untouched_from_ns(settings: &Settings, touched_ns: i64) -> i64 {
        settings.cache_ttl_ns.saturating_mul(IDLE_TTLS).saturating_add(touched_ns).saturating_add(1)
    }

    /// Returns the answer for a name that has no state and gets none, counted.
    pub fn untracked<P>(&self, mode: &Mode, priority: Priority) -> Answer<P> {
        let answer = mode
            .switch()
            .map_or_else(|| Answer::wait(Reason::Untracked, mode.settings.fallback_ns[priority.index()]), Answer::go);
        self.other[priority.index()].count(Row::of(answer.reason, true), answer.delay_ns, false);
        answer
    }
}

/// One call on one queue that has state.
#[derive(Debug)]
pub struct Call<'a, H: Host> {
    /// The engine.
    pub engine: &'a Engine,
    /// Its surroundings.
    pub host: &'a H,
    /// The mode that holds.
    pub mode: &'a Mode,
    /// Priority of the job.
    pub priority: Priority,
    /// The queue.
    pub queue: &'a Queue<H::Object, H::Place>,
    /// Now.
    pub now_ns: i64,
}

impl<H: Host> Call<'_, H> {
    /// Decides; `None` asks the caller to read the queue first.
    ///
    /// # Errors
    /// Those of the host.
    pub fn decide(&self, ask: Ask) -> Result<Option<H::Object>, H::Error> {
        self.queue.touch(self.now_ns);
        let (breaker, word) = (&self.queue.breaker, self.look()?);
        let (number, sample) = (self.queue.sample_number(), self.queue.sample()); // in this order: no later number
        let (closed, forced) = (state_of(word) == State::Closed, is_forced(word));
        if let Some(switch) = self.mode.switch().filter(|_| !forced) {
            return self.finish(&Answer::go(switch), None, None, None).map(Some);
        }
        let kept = (word, sample.as_ref().map_or(number, |sample| sample.number));
        let attempts = self.attempts(forced);
        if !(closed || attempts || breaker.admits(word, self.now_ns)) {
            return self.reject(kept).map(Some);
        }
        let Some(answer) = self.advise(sample.as_deref(), ask)? else {
            return Ok(None);
        };
        if answer.shed {
            return self.finish(&answer, None, None, closed.then_some(kept)).map(Some);
        }
        if answer.delay_ns > 0 && !(ask.admit || self.mode.settings.observe) {
            return self.host.decision(self.priority, &answer, None, self.now_ns, None).map(Some);
        }
        if closed {
            let kept = (answer.delay_ns == 0).then_some(kept);
            return self.finish(&answer, Some(Ticket::of_closed(word, self.now_ns)), None, kept).map(Some);
        }
        match self.acquire()? {
            None if !attempts => self.reject((breaker.word(), kept.1)).map(Some),
            ticket => self.finish(&answer, ticket, None, None).map(Some),
        }
    }

    /// Asks the breaker again for a planned decision, right before its work.
    ///
    /// One that advised a delay is counted here or, if it goes as planned, by the caller; a go was when it was planned.
    ///
    /// # Errors
    /// Those of the host.
    pub fn admit(&self, planned: Planned<'_>) -> Result<Admission<H::Object>, H::Error> {
        let word = self.look()?;
        let forced = is_forced(word);
        if let Some(switch) = self.mode.switch().filter(|_| !forced) {
            return match planned {
                Planned::Wait => self.finish(&Answer::go(switch), None, None, None).map(Admission::Instead),
                Planned::Observed | Planned::Go(_) => Ok(Admission::AsItIs),
            };
        }
        let holds = match planned {
            Planned::Wait => false,
            Planned::Observed => !forced,
            Planned::Go(held) => held.is_some_and(|held| self.queue.breaker.honours(word, held, self.now_ns)),
        };
        if holds {
            return Ok(Admission::AsItIs);
        }
        match self.acquire()? {
            None if !self.attempts(forced) => {
                let kept = (self.queue.breaker.word(), self.queue.sample_number());
                self.reject(kept).map(Admission::Instead)
            }
            ticket => Ok(Admission::AsPlanned(ticket)),
        }
    }

    /// Tells whether the call goes through an open circuit, without a ticket.
    fn attempts(&self, forced: bool) -> bool {
        self.priority == Priority::High && self.queue.breaker.circuit().high_attempts && !forced
    }

    /// Returns the breaker's word; looking ends a forced opening whose time is up.
    fn look(&self) -> Result<u64, H::Error> {
        let breaker = &self.queue.breaker;
        if is_forced(breaker.word()) {
            self.tell(breaker.lapse(self.now_ns))?;
        }
        Ok(breaker.word())
    }

    fn acquire(&self) -> Result<Option<Ticket>, H::Error> {
        let (ticket, change) = self.queue.breaker.try_acquire(self.now_ns);
        self.tell(change)?;
        Ok(ticket)
    }

    fn tell(&self, change: Option<Change>) -> Result<(), H::Error> {
        change.filter(Change::is_news).map_or(Ok(()), |change| self.host.circuit_changed(change))
    }

    /// Returns what the queue's sample, or the want of one, advises; `None` asks the caller to read.
    fn advise(&self, sample: Option<&Sample>, ask: Ask) -> Result<Option<Answer<H::Object>>, H::Error> {
        let settings = &self.mode.settings;
        if let Some(cold) = ask.cold {
            return Ok(Some(Answer::go(cold)));
        }
        let expired =
            sample.is_none_or(|sample| !settings.polling && sample.age_ns(self.now_ns) > settings.cache_ttl_ns);
        if expired && ask.may_read && self.queue.may_read(settings, self.now_ns) {
            return Ok(None);
        }
        let Some(sample) = sample else {
            // The read that failed left it to the poller.
            if settings.polling && ask.may_read && self.reads_first()? {
                return Ok(None);
            }
            return Ok(Some(self.fallback()));
        };
        let age_ns = sample.age_ns(self.now_ns);
        if settings.polling && age_ns > settings.check_after_ns && self.reads_first()? && ask.may_read {
            return Ok(None);
        }
        if age_ns <= settings.cache_ttl_ns {
            return self.law_answer(sample, age_ns).map(Some);
        }
        let over_ns = age_ns - settings.cache_ttl_ns;
        if over_ns > settings.degrade_ns {
            return Ok(Some(self.fallback()));
        }
        let last = settings.law_of(&self.queue.name).advise(self.priority, sample.backlog);
        let (over, degrade) = (u128::from(over_ns.unsigned_abs()), u128::from(settings.degrade_ns.unsigned_abs()));
        let fallback_ns = u128::from(settings.fallback_ns[self.priority.index()]);
        let delay = (u128::from(last.delay_ns) * (degrade - over) + fallback_ns * over) / degrade;
        Ok(Some(Answer {
            zone: Some(last.zone),
            backlog: Some(sample.backlog),
            ..Answer::wait(Reason::StatsStale, saturated(delay))
        }))
    }

    fn law_answer(&self, sample: &Sample, age_ns: i64) -> Result<Answer<H::Object>, H::Error> {
        let settings = &self.mode.settings;
        let place = &self.queue.asked(self.priority).computed;
        let cached = place
            .load_full()
            .filter(|cached| cached.sample == sample.number && Arc::ptr_eq(&cached.settings, settings));
        let computed = cached.is_none();
        let source = if let Some(cached) = cached {
            cached
        } else {
            let advice = settings.law_of(&self.queue.name).advise(self.priority, sample.backlog);
            let timestamp = self.host.utc_now()?;
            let made = Computed { sample: sample.number, settings: Arc::clone(settings), advice, timestamp };
            let made = Arc::new(made);
            // Swapped, so that of callers who compute at once each sees its own predecessor and a change is told once.
            let old = place.swap(Some(Arc::clone(&made))).map_or(Zone::Green, |old| old.advice.zone);
            if old != advice.zone {
                self.host.zone_changed(self.priority, old, advice.zone)?;
            }
            made
        };
        let mut until_ns = sample.as_of_ns.saturating_add(settings.cache_ttl_ns);
        if settings.polling {
            let fresh = age_ns <= settings.check_after_ns;
            until_ns = until_ns.min(if fresh {
                sample.as_of_ns.saturating_add(settings.check_after_ns)
            } else {
                self.engine.next_check_ns.load(Ordering::Relaxed).saturating_sub(1)
            });
        }
        let advice = source.advice;
        let reason = match advice.zone {
            _ if advice.shed => Reason::BacklogRedShed,
            Zone::Green => Reason::BacklogGreen,
            Zone::Yellow => Reason::BacklogYellow,
            Zone::Red => Reason::BacklogRed,
        };
        Ok(Answer {
            reason,
            delay_ns: advice.delay_ns,
            shed: advice.shed,
            zone: Some(advice.zone),
            backlog: Some(sample.backlog),
            source: Some(source),
            computed,
            until_ns: Some(until_ns),
            forced: false,
        })
    }

    fn fallback(&self) -> Answer<H::Object> {
        let settings = &self.mode.settings;
        Answer::wait(settings.fallback_reason, settings.fallback_ns[self.priority.index()])
    }

    /// Looks after the poller, now and then; tells whether the queue is to be read first.
    ///
    /// What one caller was told holds for all until the next look, but where a read has failed since.
    fn reads_first(&self) -> Result<bool, H::Error> {
        let Engine { next_check_ns, checked_ns, read_first, .. } = self.engine;
        let due_ns = next_check_ns.load(Ordering::Relaxed);
        let next_ns = self.now_ns.saturating_add(self.mode.settings.check_every_ns);
        // Relaxed: the instants stand for themselves; the exchange lets one caller through per interval.
        if self.now_ns >= due_ns
            && next_check_ns.compare_exchange(due_ns, next_ns, Ordering::Relaxed, Ordering::Relaxed).is_ok()
        {
            checked_ns.store(self.now_ns, Ordering::Relaxed);
            read_first.store(self.host.check_poller()?, Ordering::Relaxed);
        }
        Ok(read_first.load(Ordering::Relaxed) && !self.queue.failed_since(checked_ns.load(Ordering::Relaxed)))
    }

    /// Refuses on behalf of a word, which may have closed by now: the loser of a race is still refused.
    fn reject(&self, kept: (u64, u64)) -> Result<H::Object, H::Error> {
        let state = state_of(kept.0);
        let retry_at_ns = match state {
            State::Closed => Some(self.now_ns),
            State::Open | State::HalfOpen => self.queue.breaker.retry_at_ns(kept.0),
        };
        let reason = if state == State::Open { Reason::CircuitOpen } else { Reason::CircuitHalfOpen };
        // No longer than a sample is believed: an answer that lies ready does not note that its queue is asked for.
        let ready_ns = self.now_ns.saturating_add(self.mode.settings.cache_ttl_ns);
        let until_ns = retry_at_ns.map_or(ready_ns, |retry_at_ns| ready_ns.min(retry_at_ns.saturating_sub(1)));
        let forced = is_forced(kept.0);
        let answer = Answer { shed: true, until_ns: Some(until_ns), forced, ..Answer::go(reason) };
        self.finish(&answer, None, retry_at_ns, Some(kept))
    }

    /// Counts an answer, makes the decision of it, and keeps that ready where it may serve other callers too: while
    /// the word and the number of the sample are those of `kept`.
    fn finish(
        &self,
        answer: &Answer<H::Object>,
        ticket: Option<Ticket>,
        retry_at_ns: Option<i64>,
        kept: Option<(u64, u64)>,
    ) -> Result<H::Object, H::Error> {
        let asked = self.queue.asked(self.priority);
        let observed = self.mode.settings.observe && !answer.forced;
        let goes = observed || !answer.shed;
        let row = Row::of(answer.reason, goes);
        asked.counters.count(row, if answer.shed { 0 } else { answer.delay_ns }, answer.computed);
        let decision = self.host.decision(self.priority, answer, ticket, self.now_ns, retry_at_ns)?;
        let decision = if observed { self.host.observed(decision)? } else { decision };
        let lasting = answer.until_ns.filter(|&until_ns| until_ns >= self.now_ns && self.mode.switch().is_none());
        if let (Some((word, sample)), Some(until_ns)) = (kept, lasting) {
            let epoch = self.mode.epoch;
            let kept = self.host.share(&decision);
            drop(asked.ready.put(Ready { decision: kept, epoch, sample, word, until_ns, row, goes }));
        }
        Ok(decision)
    }
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};
    use std::collections::HashMap;
    use std::convert::Infallible;
    use std::sync::Arc;
    use std::thread;

    use super::{Admission, Answer, Ask, Call, Engine, Host, NEVER, Planned, Settings};
    use crate::breaker::{Breaker, Change, CircuitSettings, Outcome, State, Ticket, Word, at, state_of};
    use crate::laws::three_zone::{LawSettings, Scale, ThreeZoneLaw};
    use crate::queue::{Place, Queue, Ready, Slot};
    use crate::vocabulary::{Priority, Reason};
    use crate::zone::{Window, Zone};

    const S: i64 = 1_000_000_000;
    const ASK: Ask = Ask { admit: true, may_read: false, cold: None };

    /// A decision as the test's caller sees it; a time of computation is one with no reason.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    struct Seen {
        reason: Option<Reason>,
        delay_ns: u64,
        shed: bool,
        ticket: bool,
        retry_at_ns: Option<i64>,
        computed: bool,
    }

    #[derive(Default)]
    struct Fake(RefCell<Vec<String>>, Cell<bool>);

    impl Fake {
        fn heard(&self) -> Vec<String> {
            self.0.take()
        }

        /// Has callers that find an old sample read first.
        fn has_them_read_first(&self) {
            self.1.set(true);
        }
    }

    impl Host for Fake {
        type Object = Seen;
        type Error = Infallible;
        type Place = Slot<Ready<Seen>>;

        fn utc_now(&self) -> Result<Seen, Infallible> {
            self.0.borrow_mut().push("utc_now".into());
            Ok(Seen { reason: None, delay_ns: 0, shed: false, ticket: false, retry_at_ns: None, computed: false })
        }

        fn check_poller(&self) -> Result<bool, Infallible> {
            self.0.borrow_mut().push("check_poller".into());
            Ok(self.1.get())
        }

        fn circuit_changed(&self, change: Change) -> Result<(), Infallible> {
            self.0.borrow_mut().push(format!("{:?} -> {:?}", state_of(change.old), state_of(change.new)));
            Ok(())
        }

        fn zone_changed(&self, priority: Priority, old: Zone, new: Zone) -> Result<(), Infallible> {
            self.0.borrow_mut().push(format!("{priority:?}: {old:?} -> {new:?}"));
            Ok(())
        }

        fn decision(
            &self,
            _: Priority,
            answer: &Answer<Seen>,
            ticket: Option<Ticket>,
            _: i64,
            retry_at_ns: Option<i64>,
        ) -> Result<Seen, Infallible> {
            let Answer { reason, delay_ns, shed, computed, .. } = *answer;
            Ok(Seen { reason: Some(reason), delay_ns, shed, ticket: ticket.is_some(), retry_at_ns, computed })
        }

        fn observed(&self, decision: Seen) -> Result<Seen, Infallible> {
            Ok(Seen { reason: Some(Reason::ObserveOnly), delay_ns: 0, shed: false, ..decision })
        }

        fn share(&self, decision: &Seen) -> Seen {
            *decision
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
            }),
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
        host: Fake,
    }

    impl World {
        fn new(change: impl FnOnce(&mut Settings)) -> Self {
            let settings = settings(change);
            let queue = Queue::new("q", Arc::clone(settings.circuit_of("q")), 0, 0);
            Self { engine: Engine::new(settings, 0), queue, host: Fake::default() }
        }

        fn call<R>(&self, priority: Priority, now_ns: i64, make: impl FnOnce(Call<'_, Fake>) -> R) -> R {
            let (mode, _) = self.engine.mode_at(now_ns);
            let (engine, host, queue) = (&self.engine, &self.host, &self.queue);
            make(Call { engine, host, mode: &mode, priority, queue, now_ns })
        }

        fn ask(&self, priority: Priority, now_ns: i64, ask: Ask) -> Option<Seen> {
            self.call(priority, now_ns, |call| call.decide(ask).unwrap())
        }

        fn decide(&self, priority: Priority, now_ns: i64) -> Seen {
            self.ask(priority, now_ns, ASK).unwrap()
        }

        fn reason(&self, priority: Priority, now_ns: i64) -> Reason {
            self.decide(priority, now_ns).reason.unwrap()
        }

        fn open(&self, now_ns: i64) {
            self.queue.breaker.record(Outcome::Failure(None), None, at(now_ns)).unwrap();
        }

        fn count(&self, priority: Priority, reason: Reason) -> u64 {
            self.queue.asked(priority).counters.totals().reasons[reason.index()]
        }

        /// Whether the answer that lies ready for MEDIUM would be served at `now_ns`.
        fn is_ready(&self, now_ns: i64) -> bool {
            let current = |ready: &Ready<Seen>| {
                (ready.epoch == self.engine.epoch()
                    && ready.word == self.queue.breaker.word()
                    && ready.sample == self.queue.sample_number()
                    && now_ns <= ready.until_ns)
                    .then_some(())
            };
            self.queue.asked(Priority::Medium).ready.read(current).is_some()
        }
    }

    #[test]
    fn a_change_of_zone_is_told_once() {
        let world = World::new(|_| {});
        for backlog in [10, 400, 499, 5_000, 10] {
            world.queue.put_sample(backlog, 0, None);
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
        world.queue.put_sample(10, 0, None);
        assert!(world.decide(Priority::Medium, 1).computed);
        assert!(!world.decide(Priority::Medium, 2).computed);
        world.queue.put_sample(10, 0, None);
        assert!(world.decide(Priority::Medium, 3).computed);
        world.engine.configure(&settings(|_| {}));
        assert!(world.decide(Priority::Medium, 4).computed);
        assert_eq!(world.host.heard(), ["utc_now"; 3]);
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
            world.queue.put_sample(backlog, 0, None);
            assert_eq!(world.reason(Priority::Low, 0), reason);
        }
    }

    #[test]
    fn an_answer_stays_ready_until_anything_changes() {
        let world = World::new(|_| {});
        let make_ready = || {
            world.queue.put_sample(10, 0, None);
            world.decide(Priority::Medium, 1);
            assert!(world.is_ready(10 * S) && !world.is_ready(10 * S + 1));
        };
        let changes: [&dyn Fn(); 5] = [
            &|| world.queue.put_sample(10, 0, None),
            &|| assert!(!world.queue.breaker.force_close().unwrap().is_news()),
            &|| world.engine.set_emergency(false),
            &|| world.engine.set_override(None),
            &|| world.engine.configure(&settings(|_| {})),
        ];
        for change in changes {
            make_ready();
            change();
            assert!(!world.is_ready(1));
        }
    }

    #[test]
    fn throttled_advice_is_never_ready() {
        let world = World::new(|_| {});
        world.queue.put_sample(300, 0, None);
        assert_eq!(world.reason(Priority::Medium, 1), Reason::BacklogYellow);
        assert!(!world.is_ready(1));
    }

    #[test]
    fn without_a_sample_the_caller_reads_once() {
        let world = World::new(|_| {});
        let ask = Ask { may_read: true, ..ASK };
        assert_eq!(world.ask(Priority::Low, 0, ask), None);
        assert_eq!(world.reason(Priority::Low, 0), Reason::FallbackConservative);
        let cold = world.ask(Priority::Low, 0, Ask { cold: Some(Reason::ColdStart), ..ASK }).unwrap();
        assert_eq!((cold.reason, cold.delay_ns), (Some(Reason::ColdStart), 0));
        world.queue.read_failed(0);
        assert!(world.ask(Priority::Low, 500 * S, ask).is_some());
    }

    #[test]
    fn after_a_failed_read_a_caller_reads_again_only_where_no_poller_does() {
        let ask = Ask { may_read: true, ..ASK };
        let polled = World::new(|_| {});
        polled.queue.read_failed(S);
        polled.engine.configure(&settings(|settings| settings.polling = false));
        assert!(polled.ask(Priority::Low, 6 * S - 1, ask).is_some());
        assert_eq!(polled.ask(Priority::Low, 6 * S, ask), None);
        polled.engine.configure(&settings(|_| {}));
        assert!(polled.ask(Priority::Low, 500 * S, ask).is_some());
    }

    #[test]
    fn without_a_poller_an_expired_sample_is_read_again() {
        let world = World::new(|settings| settings.polling = false);
        world.queue.put_sample(10, 0, None);
        let ask = Ask { may_read: true, ..ASK };
        assert!(world.ask(Priority::Low, 30 * S, ask).is_some());
        assert_eq!(world.ask(Priority::Low, 30 * S + 1, ask), None);
        assert_eq!(world.reason(Priority::Low, 30 * S + 1), Reason::StatsStale);
    }

    #[test]
    fn an_old_sample_makes_callers_check_the_poller_once_per_interval() {
        let world = World::new(|_| {});
        world.queue.put_sample(10, 0, None);
        for now_ns in [10 * S, 10 * S + 1, 15 * S, 15 * S + 1] {
            world.decide(Priority::Medium, now_ns);
        }
        assert_eq!(world.host.heard(), ["utc_now", "check_poller", "check_poller"]);
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
        assert_eq!(world.host.heard(), ["check_poller", "check_poller"]);
    }

    #[test]
    fn stale_advice_moves_to_the_fallback() {
        let world = World::new(|_| {});
        world.queue.put_sample(500, 0, None);
        let delays = [30 * S + 1, 80 * S, 130 * S].map(|now_ns| {
            let seen = world.decide(Priority::High, now_ns);
            assert_eq!(seen.reason, Some(Reason::StatsStale));
            seen.delay_ns
        });
        assert_eq!(delays, [249_999_999, 175_000_000, 100_000_000]);
        assert_eq!(world.reason(Priority::High, 130 * S + 1), Reason::FallbackConservative);
    }

    #[test]
    fn switches_beat_everything_but_a_forced_circuit() {
        let world = World::new(|_| {});
        world.open(0);
        world.engine.set_emergency(true);
        assert_eq!(world.reason(Priority::Low, 1), Reason::EmergencyMode);
        world.engine.set_override(Some(5 * S));
        assert_eq!(world.reason(Priority::Low, 5 * S - 1), Reason::ManualOverride);
        assert_eq!(world.reason(Priority::Low, 5 * S), Reason::EmergencyMode);
        assert_eq!(world.engine.mode().override_until_ns, None);
        world.queue.breaker.force_open(None);
        let refused = world.decide(Priority::High, i64::MAX);
        assert_eq!((refused.reason, refused.retry_at_ns), (Some(Reason::CircuitOpen), None));
    }

    #[test]
    fn a_renewed_override_outlives_the_end_of_the_first() {
        let world = World::new(|_| {});
        world.engine.set_override(Some(5));
        world.engine.set_override(Some(50));
        assert_eq!(world.reason(Priority::Low, 10), Reason::ManualOverride);
    }

    #[test]
    fn an_open_circuit_refuses_until_its_first_probe() {
        let world = World::new(|_| {});
        world.queue.put_sample(10, 0, None);
        world.open(0);
        let refused = world.decide(Priority::Medium, 1);
        assert_eq!((refused.reason, refused.shed), (Some(Reason::CircuitOpen), true));
        assert_eq!(refused.retry_at_ns, Some(5 * S));
        assert!(world.is_ready(5 * S - 1) && !world.is_ready(5 * S));
        let probe = world.decide(Priority::Medium, 5 * S);
        assert_eq!((probe.reason, probe.ticket), (Some(Reason::BacklogGreen), true));
        assert_eq!(world.host.heard(), ["utc_now", "Open -> HalfOpen"]);
        assert_eq!(world.reason(Priority::Medium, 5 * S + 1), Reason::CircuitHalfOpen);
    }

    #[test]
    fn a_shed_job_takes_no_probe() {
        let world = World::new(|_| {});
        world.queue.put_sample(1_000, 0, None);
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
        world.queue.put_sample(10, 0, None);
        world.open(0);
        let attempt = world.decide(Priority::High, 1);
        assert_eq!((attempt.reason, attempt.ticket), (Some(Reason::BacklogGreen), false));
        assert_eq!(world.reason(Priority::Medium, 1), Reason::CircuitOpen);
        world.queue.breaker.force_open(None);
        assert_eq!(world.reason(Priority::High, 1), Reason::CircuitOpen);
    }

    #[test]
    fn a_forced_opening_ends_at_the_first_look_after_its_time() {
        let world = World::new(|_| {});
        world.queue.put_sample(10, 0, None);
        world.queue.breaker.force_open(Some(5 * S));
        let refused = world.decide(Priority::Medium, 1);
        assert_eq!((refused.reason, refused.retry_at_ns), (Some(Reason::CircuitOpen), Some(5 * S)));
        assert!(world.is_ready(5 * S - 1) && !world.is_ready(5 * S));
        assert_eq!(world.reason(Priority::Medium, 5 * S), Reason::BacklogGreen);
        assert_eq!(world.host.heard(), ["utc_now", "Open -> Closed", "utc_now"][1..]);
    }

    #[test]
    fn who_finds_an_old_sample_reads_first_where_the_host_says_so() {
        let world = World::new(|_| {});
        let ask = Ask { may_read: true, ..ASK };
        world.queue.put_sample(10, 0, None);
        world.host.has_them_read_first();
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
        world.queue.put_sample(10, 0, None);
        world.decide(Priority::Medium, 1);
        world.queue.read_failed(1);
        world.queue.forget_sample();
        assert!(!world.is_ready(1));
        assert_eq!(world.ask(Priority::Medium, 1, Ask { may_read: true, ..ASK }), None);
        world.queue.put_sample(600, 1, None);
        assert_eq!(world.reason(Priority::Medium, 1), Reason::BacklogRed);
    }

    #[test]
    fn a_planned_wait_is_neither_counted_nor_admitted() {
        let world = World::new(|_| {});
        world.queue.put_sample(500, 0, None);
        let planned = world.ask(Priority::Medium, 1, Ask { admit: false, ..ASK }).unwrap();
        assert_eq!((planned.reason, planned.ticket), (Some(Reason::BacklogYellow), false));
        assert_eq!(world.count(Priority::Medium, Reason::BacklogYellow), 0);
        let admit = || world.call(Priority::Medium, 2, |call| call.admit(Planned::Wait).unwrap());
        assert!(matches!(admit(), Admission::AsPlanned(Some(_))));
        world.open(2);
        let Admission::Instead(refused) = admit() else { panic!("an open circuit admitted") };
        assert_eq!(refused.reason, Some(Reason::CircuitOpen));
        world.engine.set_emergency(true);
        let Admission::Instead(go) = admit() else { panic!("the switch was not asked") };
        assert_eq!(go.reason, Some(Reason::EmergencyMode));
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
        world.engine.set_emergency(true);
        assert!(matches!(admit(Some(&ticket)), Admission::AsItIs));
    }

    #[test]
    fn observe_mode_hands_out_a_go_and_counts_the_truth() {
        let world = World::new(|settings| settings.observe = true);
        world.queue.put_sample(1_000, 0, None);
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
    fn a_queue_is_idle_when_closed_and_long_unasked() {
        let (settings, world) = (settings(|_| {}), World::new(|_| {}));
        let from = |now_ns| Engine::idle_from_ns(&settings, &world.queue, now_ns);
        assert_eq!(from(300 * S), Some(300 * S + 1));
        assert_eq!(from(300 * S + 1), None);
        world.open(0);
        assert_eq!(from(300 * S + 1), Some(330 * S + 1));
    }

    #[test]
    fn untracked_names_are_counted_together() {
        let engine = Engine::new(settings(|_| {}), 0);
        let answer: Answer<()> = engine.untracked(&engine.mode(), Priority::Low);
        assert_eq!((answer.reason, answer.delay_ns), (Reason::Untracked, 1_000_000_000));
        engine.set_override(Some(NEVER));
        let answer: Answer<()> = engine.untracked(&engine.mode(), Priority::Low);
        assert_eq!((answer.reason, answer.delay_ns), (Reason::ManualOverride, 0));
        assert_eq!(engine.other[0].totals().reasons.iter().sum::<u64>(), 2);
    }

    #[test]
    fn racing_changes_of_the_mode_all_take_hold() {
        let engine = Engine::new(settings(|_| {}), 0);
        thread::scope(|scope| {
            scope.spawn(|| (0..1_000).for_each(|_| engine.set_running(true)));
            scope.spawn(|| (0..1_000).for_each(|_| engine.set_emergency(true)));
            scope.spawn(|| (1..=1_000).for_each(|until_ns| engine.set_override(Some(until_ns))));
        });
        let mode = engine.mode();
        assert_eq!((mode.epoch, engine.epoch()), (3_000, 3_000));
        assert_eq!((mode.running, mode.emergency, mode.override_until_ns), (true, true, Some(1_000)));
    }

    #[test]
    fn the_loser_of_a_race_is_refused_on_behalf_of_a_closed_word() {
        let world = World::new(|_| {});
        let closed = Word::unpack(0).pack();
        let refused = world.call(Priority::Medium, 7, |call| call.reject((closed, 0)).unwrap());
        assert_eq!((refused.reason, refused.retry_at_ns), (Some(Reason::CircuitHalfOpen), Some(7)));
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
}
