//! One call on one queue: switches, breaker, cached or computed advice, fallback, admission, and the count of it.
//!
//! # Memory orderings
//!
//! The instants of [`Checks`] are relaxed, since nothing else depends on them: a thread that reads an old one looks
//! once too often. So is what the host said at the last check: a call during a check uses the answer of the one before.

use std::mem;
use std::sync::Arc;

use crate::breaker::{Change, Ticket, Watched, Watcher};
use crate::counters::Row;
use crate::host::{Answer, Host, Judged, Lent};
use crate::laws::AnyLaw;
use crate::laws::law::{Advice, saturated};
use crate::mode::Mode;
use crate::queue::{Asked, Computed, Kind, Place, Queue, Ready, Refusal};
use crate::sample::Sample;
use crate::sync::{AtomicBool, AtomicI64, Ordering};
use crate::vocabulary::{Priority, Reason};
use crate::word::{State, is_forced, state_of};
use crate::zone::Zone;

/// How long a read that the jobs of one priority asked for has to come, before they ask again.
const HURRY_NS: i64 = 50_000_000;

/// How a decision is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ask {
    /// Whether a caller that is to wait is admitted and counted at once, before it has waited.
    pub admit: bool,
    /// Whether the caller can read the queue if there is no usable sample.
    pub may_read: bool,
    /// The reason to answer with, if such a read brought no sample.
    pub cold: Option<Reason>,
    /// Whether a table that sheds is to have the caller wait instead.
    pub spared: bool,
}

/// A planned decision whose work is to begin now.
#[derive(Clone, Copy, Debug)]
pub enum Planned<'a> {
    /// It advised a delay, and is neither admitted nor counted yet.
    Wait,
    /// It is a go, admitted by this ticket, if any, and counted.
    Go(Option<&'a Ticket>),
    /// It is observe mode's go.
    Observed,
}

/// The breaker's answer when it is asked again.
#[derive(Debug)]
pub enum Admission<P> {
    /// The caller goes as planned, by the ticket that it has, if any.
    AsItIs,
    /// The caller goes as planned, by this ticket.
    AsPlanned(Option<Ticket>),
    /// This is the decision instead. It is counted.
    Instead(P),
}

/// When the poller was last looked after, what the host said then, and when that is due again.
#[derive(Debug, Default)]
pub struct Checks {
    next_ns: AtomicI64,
    last_ns: AtomicI64,
    read_first: AtomicBool,
}

/// One call on one queue that has state.
#[derive(Debug)]
pub struct Call<'a, H: Host> {
    /// The engine's surroundings.
    pub host: &'a H,
    /// When the poller was looked after.
    pub checks: &'a Checks,
    /// The mode that holds.
    pub mode: &'a Mode,
    /// Priority of the job.
    pub priority: Priority,
    /// The queue.
    pub queue: &'a Queue<H::Object, H::Place>,
    /// Its name.
    pub name: &'a H::Name,
    /// Now.
    pub now_ns: i64,
}

impl<H: Host> Watcher for Call<'_, H> {
    type Error = H::Error;

    fn now_ns(&self) -> Result<i64, H::Error> {
        Ok(self.now_ns)
    }

    fn circuit_changed(&self, change: Change) -> Result<(), H::Error> {
        self.host.circuit_changed(self.name, change)
    }
}

impl<H: Host> Call<'_, H> {
    /// Decides; `None` asks the caller to read the queue first.
    ///
    /// # Errors
    /// Those of the host.
    pub fn decide(&self, ask: Ask) -> Result<Option<H::Object>, H::Error> {
        self.queue.touch(self.now_ns);
        let (breaker, word) = (&self.queue.breaker, self.breaker().look()?);
        let (number, sample) = (self.queue.sample_number(), self.queue.sample()); // in this order: no later number
        let (closed, forced) = (state_of(word) == State::Closed, is_forced(word));
        if let Some(switch) = self.mode.switch().filter(|_| !forced) {
            return self.finish(&mut self.go(switch), None).map(Some);
        }
        let kept = (word, sample.as_ref().map_or(number, |sample| sample.number));
        let attempts = self.attempts(forced);
        if !(closed || attempts || breaker.admits(word, self.now_ns)) {
            return self.reject(kept).map(Some);
        }
        let mut advised = self.advise(sample.as_deref(), ask); // stays where it is: an answer is long to move
        let answer = match advised {
            Ok(Some(ref mut answer)) => answer,
            Ok(None) => return Ok(None),
            Err(error) => return Err(error),
        };
        if answer.shed {
            if !(ask.spared && answer.reason == Reason::BacklogRedShed) {
                return self.finish(answer, closed.then_some(kept)).map(Some);
            }
            answer.spare();
        }
        if answer.delay_ns > 0 && !(ask.admit || self.observes()?) {
            return self.plan(answer, closed.then_some(kept)).map(Some);
        }
        if closed {
            answer.ticket = Some(Ticket::of_closed(word, self.now_ns));
            return self.finish(answer, Some(kept)).map(Some);
        }
        answer.ticket = self.breaker().try_acquire()?;
        if answer.ticket.is_none() && !attempts {
            return self.reject((breaker.word(), kept.1)).map(Some);
        }
        self.finish(answer, None).map(Some)
    }

    /// Tells what [`Self::decide`] would say, by what is known: nothing is taken, counted, read, kept or told.
    ///
    /// # Errors
    /// Those of the host.
    pub fn peek(&self) -> Result<H::Object, H::Error> {
        let breaker = &self.queue.breaker;
        let word = breaker.word_at(self.now_ns);
        let (closed, forced) = (state_of(word) == State::Closed, is_forced(word));
        let answer = match self.mode.switch().filter(|_| !forced) {
            Some(switch) => self.go(switch),
            None if closed || self.attempts(forced) || breaker.admits(word, self.now_ns) => self.foresee()?,
            None => self.refusal(word),
        };
        self.host.peeked(self.name, &answer, self.observes()? && !answer.forced)
    }

    /// Asks the breaker again for a planned decision, right before its work.
    ///
    /// One that advised a delay is counted here or, if it goes as planned, by the caller; a go was when it was planned.
    ///
    /// # Errors
    /// Those of the host.
    pub fn admit(&self, planned: Planned<'_>) -> Result<Admission<H::Object>, H::Error> {
        self.queue.touch(self.now_ns);
        let word = self.breaker().look()?;
        let forced = is_forced(word);
        if let Some(switch) = self.mode.switch().filter(|_| !forced) {
            return match planned {
                Planned::Wait => self.finish(&mut self.go(switch), None).map(Admission::Instead),
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
        match self.breaker().try_acquire()? {
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

    /// Returns the queue's breaker; the host is told of what is done there.
    fn breaker(&self) -> Watched<'_, Self> {
        Watched { breaker: &self.queue.breaker, watcher: self }
    }

    fn go(&self, reason: Reason) -> Answer<H::Object> {
        Answer::go(self.priority, reason, self.now_ns)
    }

    fn wait(&self, reason: Reason, delay_ns: u64) -> Answer<H::Object> {
        Answer::wait(self.priority, reason, delay_ns, self.now_ns)
    }

    /// Makes the answer of a law's advice.
    fn advised(&self, sample: &Sample, advice: Advice) -> Answer<H::Object> {
        Answer {
            shed: advice.shed,
            zone: Some(advice.zone),
            backlog: Some(sample.backlog),
            ..self.wait(advice.reason, advice.delay_ns)
        }
    }

    /// Returns what the law of the queue says of a sample.
    fn judge(&self, sample: &Sample) -> Result<Advice, H::Error> {
        Ok(self.law()?.advise(sample, self.priority, &self.queue.law_state))
    }

    /// Returns what it would say.
    fn foresee_by_law(&self, sample: &Sample) -> Result<Advice, H::Error> {
        Ok(self.law()?.foresee(sample, self.priority, &self.queue.law_state))
    }

    /// Tells whether an age is to be held in the queue.
    fn holds_age(&self) -> Result<bool, H::Error> {
        Ok(self.mode.settings.holds_ages && self.law()?.holds_age())
    }

    /// Makes the answer of what the budget of a queue whose age is held says.
    fn judged(&self, judged: Judged, sample: Option<&Sample>) -> Answer<H::Object> {
        let Judged { told, lent } = judged;
        // As for a refusal: a ready answer does not note that its queue is asked for.
        let ready_ns = self.now_ns.saturating_add(self.mode.settings.cache_ttl_ns);
        let until_ns = lent.as_ref().map(|lent| ready_ns.min(lent.until_ns));
        let backlog = sample.map(|sample| sample.backlog);
        Answer { until_ns, lent, ..Answer::told(self.priority, told, backlog, self.now_ns) }
    }

    fn law(&self) -> Result<&AnyLaw, H::Error> {
        Ok(self.mode.settings.law_of(self.host.text(self.name)?))
    }

    fn observes(&self) -> Result<bool, H::Error> {
        self.mode.settings.observes(|| self.host.text(self.name))
    }

    /// Returns what the queue's sample advises, or the fallback without one; `None` asks the caller to read.
    fn advise(&self, sample: Option<&Sample>, ask: Ask) -> Result<Option<Answer<H::Object>>, H::Error> {
        let settings = &self.mode.settings;
        if let Some(cold) = ask.cold {
            return Ok(Some(self.go(cold)));
        }
        if self.holds_age()? {
            return self.host.judge(self.name, self.priority).map(|judged| Some(self.judged(judged, sample)));
        }
        let expired =
            sample.is_none_or(|sample| !settings.polling && sample.age_ns(self.now_ns) > settings.cache_ttl_ns);
        if expired && ask.may_read && self.queue.may_read(settings, self.now_ns) {
            return Ok(None);
        }
        let Some(sample) = sample else {
            // A read has failed: now the poller reads.
            if settings.polling && ask.may_read && self.reads_first()? {
                return Ok(None);
            }
            return Ok(Some(self.fallback()));
        };
        let age_ns = sample.age_ns(self.now_ns);
        if settings.polling && age_ns > settings.check_after_ns && self.reads_first()? && ask.may_read {
            return Ok(None);
        }
        let mut believed_ns = settings.cache_ttl_ns;
        if !(settings.polling || ask.may_read || self.queue.failed_since(i64::MIN)) {
            believed_ns = believed_ns.max(settings.check_every_ns); // it was just read, which takes its time
        }
        if age_ns <= believed_ns {
            return self.law_answer(sample, age_ns, ask);
        }
        self.stale(sample, age_ns, Self::judge).map(Some)
    }

    /// As `advise`, for a caller that only looks: where a read would come first, its outcome is not known.
    fn foresee(&self) -> Result<Answer<H::Object>, H::Error> {
        let settings = &self.mode.settings;
        if self.holds_age()? {
            let judged = self.host.foresee(self.name, self.priority)?;
            return Ok(self.judged(judged, self.queue.sample().as_deref()));
        }
        let Some(sample) = self.queue.sample() else {
            let unread = self.queue.may_read(settings, self.now_ns);
            return Ok(if unread { self.go(Reason::ColdStart) } else { self.fallback() });
        };
        let age_ns = sample.age_ns(self.now_ns);
        if age_ns > settings.cache_ttl_ns {
            return self.stale(&sample, age_ns, Self::foresee_by_law);
        }
        let cached = self.queue.seen(self.priority).and_then(|asked| asked.computed.load_full());
        let source = cached.filter(|cached| cached.holds(sample.number, settings));
        let advice = source.as_ref().map_or_else(|| self.foresee_by_law(&sample), |cached| Ok(cached.advice))?;
        Ok(Answer { source, ..self.advised(&sample, advice) })
    }

    /// Returns what a sample that is not believed any more advises: less and less, until it is the fallback.
    fn stale(
        &self,
        sample: &Sample,
        age_ns: i64,
        by_law: impl FnOnce(&Self, &Sample) -> Result<Advice, H::Error>,
    ) -> Result<Answer<H::Object>, H::Error> {
        let settings = &self.mode.settings;
        let over_ns = age_ns - settings.cache_ttl_ns;
        if over_ns > settings.degrade_ns {
            return Ok(self.fallback());
        }
        let last = by_law(self, sample)?;
        let (over, degrade) = (u128::from(over_ns.unsigned_abs()), u128::from(settings.degrade_ns.unsigned_abs()));
        let fallback_ns = u128::from(settings.fallback_ns[self.priority.index()]);
        let delay = (u128::from(last.delay_ns) * (degrade - over) + fallback_ns * over) / degrade;
        Ok(Answer {
            zone: Some(last.zone),
            backlog: Some(sample.backlog),
            ..self.wait(Reason::StatsStale, saturated(delay))
        })
    }

    fn law_answer(&self, sample: &Sample, age_ns: i64, ask: Ask) -> Result<Option<Answer<H::Object>>, H::Error> {
        let settings = &self.mode.settings;
        let asked = self.queue.asked(self.priority);
        let place = &asked.computed;
        let holds = |cached: &&Arc<Computed<H::Object>>| cached.holds(sample.number, settings);
        let cached = place.load().as_ref().filter(holds).cloned();
        let computed = cached.is_none();
        let source = if let Some(cached) = cached {
            cached
        } else {
            let (advice, observes) = (self.judge(sample)?, self.observes()?);
            let row = (!advice.shed || observes).then(|| Row::of(advice.reason, true));
            let counted = row.map_or(0, |row| asked.counters.let_in(row));
            let finished = self.advised(sample, advice).finished(self.host, self.name, observes)?;
            let settings = Arc::clone(settings);
            let made = Arc::new(Computed { sample: sample.number, settings, advice, row, counted, finished });
            // Swapped, so that callers who compute at the same time each see another predecessor, and a change is told
            // once.
            let old = place.swap(Some(Arc::clone(&made))).map_or(Zone::Green, |old| old.advice.zone);
            if old != advice.zone {
                self.host.zone_changed(self.name, self.priority, old, advice.zone)?;
            }
            made
        };
        let mut until_ns = sample.as_of_ns.saturating_add(settings.cache_ttl_ns);
        if settings.polling {
            let fresh = age_ns <= settings.check_after_ns;
            until_ns = until_ns.min(if fresh {
                sample.as_of_ns.saturating_add(settings.check_after_ns)
            } else {
                self.checks.next_ns.load(Ordering::Relaxed).saturating_sub(1)
            });
        }
        let advice = source.advice;
        let mut until_count = None;
        if let (Some(row), Some(room)) = (source.row, advice.room) {
            let (let_in, priorities) = self.queue.let_in(sample.number);
            if let_in <= room {
                // Each priority's answers count for themselves: together they are to take no more than there is.
                until_count = Some(asked.counters.has(row) + (room - let_in + 1) / priorities);
            } else if settings.polling {
                if self.hurries(asked) {
                    self.host.hurry(self.name)?;
                }
            } else if !computed && ask.may_read && self.queue.may_read(settings, self.now_ns) && self.hurries(asked) {
                return Ok(None);
            }
            if let_in > room {
                until_ns = until_ns.min(asked.hurry_at_ns.load(Ordering::Relaxed).saturating_sub(1));
            }
        }
        Ok(Some(Answer {
            until_count,
            source: Some(source),
            computed,
            until_ns: Some(until_ns),
            ..self.advised(sample, advice)
        }))
    }

    /// Tells whether a read of the queue may be asked for again.
    fn hurries(&self, asked: &Asked<H::Object, H::Place>) -> bool {
        let due_ns = asked.hurry_at_ns.load(Ordering::Relaxed);
        let next_ns = self.now_ns.saturating_add(HURRY_NS);
        // The exchange lets one caller through per interval.
        self.now_ns >= due_ns
            && asked.hurry_at_ns.compare_exchange(due_ns, next_ns, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    fn fallback(&self) -> Answer<H::Object> {
        let settings = &self.mode.settings;
        self.wait(settings.fallback_reason, settings.fallback_ns[self.priority.index()])
    }

    /// Looks after the poller, now and then; tells whether the queue is to be read first.
    ///
    /// The host's answer holds for all callers until the next look, except where a read has failed since.
    fn reads_first(&self) -> Result<bool, H::Error> {
        let Checks { next_ns, last_ns, read_first } = self.checks;
        let due_ns = next_ns.load(Ordering::Relaxed);
        let after_ns = self.now_ns.saturating_add(self.mode.settings.check_every_ns);
        // The exchange lets one caller through per interval.
        if self.now_ns >= due_ns
            && next_ns.compare_exchange(due_ns, after_ns, Ordering::Relaxed, Ordering::Relaxed).is_ok()
        {
            last_ns.store(self.now_ns, Ordering::Relaxed);
            read_first.store(self.host.check_poller()?, Ordering::Relaxed);
        }
        Ok(read_first.load(Ordering::Relaxed) && !self.queue.failed_since(last_ns.load(Ordering::Relaxed)))
    }

    /// Refuses because of a word that did not admit, and counts that.
    pub(crate) fn reject(&self, kept: (u64, u64)) -> Result<H::Object, H::Error> {
        self.finish(&mut self.refusal(kept.0), Some(kept))
    }

    /// Returns the refusal of a word that did not admit. It may be closed by now: the loser of a race is still refused.
    fn refusal(&self, word: u64) -> Answer<H::Object> {
        let state = state_of(word);
        let retry_at_ns = match state {
            State::Closed => Some(self.now_ns),
            State::Open | State::HalfOpen => self.queue.breaker.retry_at_ns(word),
        };
        let reason = if state == State::Open { Reason::CircuitOpen } else { Reason::CircuitHalfOpen };
        // No longer than a sample is believed: a ready answer does not note that its queue is asked for.
        let ready_ns = self.now_ns.saturating_add(self.mode.settings.cache_ttl_ns);
        let until_ns = retry_at_ns.map_or(ready_ns, |retry_at_ns| ready_ns.min(retry_at_ns.saturating_sub(1)));
        Answer { shed: true, retry_at_ns, until_ns: Some(until_ns), forced: is_forced(word), ..self.go(reason) }
    }

    /// Makes the decision of a delay that is not counted yet. Keeps it ready as `finish` does, but for one job less, as if
    /// this one were counted: it will be, after its sleep.
    fn plan(&self, answer: &mut Answer<H::Object>, kept: Option<(u64, u64)>) -> Result<H::Object, H::Error> {
        let finished = answer.finished(self.host, self.name, false)?;
        answer.until_count = answer.until_count.map(|count| count.saturating_sub(1));
        self.keep(answer, kept, Kind::Wait, &finished)?;
        self.host.issue(finished, answer.issue())
    }

    /// Counts an answer and makes the decision of it. Keeps that ready for other callers, if `kept` is given: it is
    /// good while the breaker's word and the sample's number are those of `kept`.
    fn finish(&self, answer: &mut Answer<H::Object>, kept: Option<(u64, u64)>) -> Result<H::Object, H::Error> {
        let observed = !answer.forced && self.observes()?;
        let goes = observed || !answer.shed;
        let delay_ns = if answer.shed { 0 } else { answer.delay_ns };
        let counters = &self.queue.asked(self.priority).counters;
        counters.count(Row::of(answer.reason, goes), delay_ns, answer.computed);
        let finished = answer.finished(self.host, self.name, observed)?;
        if delay_ns > 0 {
            self.keep(answer, kept, if observed { Kind::LetGo } else { Kind::Wait }, &finished)?;
            return self.host.issue(finished, answer.issue());
        }
        let decision = self.host.issue(finished, answer.issue())?;
        self.keep(answer, kept, if goes { Kind::Go } else { Kind::Refusal }, &decision)?;
        Ok(decision)
    }

    fn keep(
        &self,
        answer: &mut Answer<H::Object>,
        kept: Option<(u64, u64)>,
        kind: Kind,
        object: &H::Object,
    ) -> Result<(), H::Error> {
        let lasting = answer.until_ns.filter(|&until_ns| until_ns >= self.now_ns && self.mode.switch().is_none());
        let (Some((word, sample)), Some(until_ns)) = (kept, lasting) else { return Ok(()) };
        let mut ready = Ready {
            decision: self.host.share(object),
            epoch: self.mode.epoch,
            sample,
            word,
            until_ns,
            until_count: answer.until_count.unwrap_or(u64::MAX),
            row: Row::of(answer.reason, kind != Kind::Refusal),
            kind,
            lease: None,
            renewal: 0,
            refusal: None,
        };
        if let Some(lent) = answer.lent.take()
            && !self.lend(answer, lent, &mut ready)?
        {
            return Ok(());
        }
        drop(self.queue.asked(self.priority).ready.put(ready));
        Ok(())
    }

    /// Has jobs go by what was lent beside `answer`, which is to lie ready; `false` if what a go is told is not known. Out
    /// of the way of other answers.
    #[inline(never)]
    fn lend(&self, answer: &Answer<H::Object>, lent: Lent, ready: &mut Ready<H::Object>) -> Result<bool, H::Error> {
        let Lent { lease, by_line, renewal, other, .. } = lent;
        if let Some(told) = other {
            let observed = self.observes()?;
            let mut other = Answer::told(self.priority, told, answer.backlog, self.now_ns);
            other.ticket = (!told.shed).then(|| Ticket::of_closed(ready.word, self.now_ns));
            let made = self.host.issue(other.finished(self.host, self.name, observed)?, other.issue())?;
            let (decision, refused) = if answer.shed {
                ready.row = Row::of(told.reason, true);
                (mem::replace(&mut ready.decision, made), answer.reason)
            } else {
                (made, told.reason)
            };
            ready.refusal = Some(Box::new(Refusal { decision, row: Row::of(refused, observed) }));
        } else if answer.shed {
            return Ok(false);
        }
        ready.kind = if by_line { Kind::ByLine } else { Kind::ByShare };
        (ready.lease, ready.renewal) = (Some(lease), renewal);
        Ok(true)
    }
}
