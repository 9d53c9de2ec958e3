//! The engine: the whole decision, from a name to what the caller sees, and what becomes of it afterwards.

use std::sync::Arc;

use crate::breaker::Ticket;
use crate::call::{Admission, Ask, Call, Checks, Planned};
use crate::counters::Row;
use crate::host::{Answer, Host, Issue};
use crate::lease::Tenants;
use crate::mode::{Mode, Switches};
use crate::queue::{Kind, Place, Queue, Ready};
use crate::settings::Settings;
use crate::table::{Room, Table, in_order, untouched_from_ns, without_queue};
use crate::vocabulary::{Priority, Reason};

const NS_PER_US: i64 = 1_000;

/// What a caller asks about.
#[derive(Clone, Debug)]
pub enum Wanted<S, N> {
    /// A queue that has state.
    Queue(S),
    /// A name that may get a queue.
    Name(N),
}

/// A planned decision, as its caller brings it back.
#[derive(Clone, Copy, Debug)]
#[expect(missing_docs, reason = "the fields of the answer that it was made of")]
pub struct Plan<'a, N: ?Sized> {
    pub name: &'a N,
    pub priority: Priority,
    pub reason: Reason,
    pub delay_ns: u64,
    pub computed: bool,
    pub ticket: Option<&'a Ticket>,
}

impl<N: ?Sized> Plan<'_, N> {
    /// Tells whether it advised a delay: then it was neither admitted nor counted when it was made.
    fn waits(&self) -> bool {
        self.delay_ns > 0
    }

    fn planned(&self) -> Planned<'_> {
        match self.reason {
            _ if self.waits() => Planned::Wait,
            Reason::ObserveOnly => Planned::Observed,
            _ => Planned::Go(self.ticket),
        }
    }
}

/// Rounds seconds as Python does, so that a plan brought back counts the same nanoseconds in both engines.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a delay is not negative, and below 2**63")]
pub fn nanoseconds(seconds: f64) -> u64 {
    (seconds * 1e9).round_ties_even() as u64
}

/// What one engine's queues share. Thread-safe; no call but the host's `read` waits for anything.
#[derive(Debug)]
pub struct Engine {
    /// Configuration and manual switches.
    pub switches: Switches,
    /// Looks after the poller.
    pub checks: Checks,
    /// Room for queues.
    pub room: Room,
}

impl Engine {
    /// Makes an engine that is not running yet; its milliseconds begin at `origin_ns`.
    pub fn new(settings: Arc<Settings>, origin_ns: i64) -> Self {
        Self { switches: Switches::new(settings), checks: Checks::default(), room: Room::new(origin_ns) }
    }

    /// Hands out the answer that lies ready for a queue, if it was made from what holds now, `accept` takes it, and it is
    /// still true, as `within` tells of its last instant; that of a lease only if this lets the job go. It is counted.
    /// `accept` and `share`, which returns another reference to the decision, must not call out. `at_now` tells what it is
    /// given makes of the present instant; that does so of every later one, too.
    ///
    /// # Errors
    /// Those of `within` and of `at_now`.
    #[expect(clippy::inline_always, reason = "it is all of a hot call, and has few callers")]
    #[inline(always)]
    pub fn hand_out<P, S: Place<Ready<P>>, D, E>(
        &self,
        queue: &Queue<P, S>,
        priority: Priority,
        accept: impl FnOnce(&Ready<P>) -> bool,
        share: impl FnOnce(&P) -> D,
        within: impl FnOnce(i64) -> Result<bool, E>,
        at_now: impl FnOnce(&dyn Fn(i64) -> bool) -> Result<bool, E>,
    ) -> Result<Option<D>, E> {
        let ready = queue.ready(priority, self.switches.epoch(), |ready| {
            accept(ready).then(|| (share(&ready.decision), ready.until_ns, ready.row, ready.kind))
        });
        let Some((asked, (decision, until_ns, row, kind))) = ready else { return Ok(None) };
        let goes = within(until_ns)?
            && match kind {
                Kind::ByShare => asked.goes_by_share(),
                Kind::ByLine => at_now(&|now_ns| {
                    let now_us = now_ns.div_euclid(NS_PER_US);
                    asked.lets_go(|lease, _| lease.take_saved(now_us))
                })?,
                _ => true,
            };
        if goes {
            asked.count_again(row);
        }
        Ok(goes.then_some(decision))
    }

    /// Returns and counts the refusal of a lease that lies ready for a queue, if it is still true and the lease refuses the
    /// next job, whose caller will not wait. `share`, which returns another reference, must not call out.
    ///
    /// # Errors
    /// Those of `within`, which tells whether an instant is not past yet.
    pub fn hand_out_refusal<P, S: Place<Ready<P>>, D, E>(
        &self,
        queue: &Queue<P, S>,
        priority: Priority,
        share: impl FnOnce(&P) -> D,
        within: impl FnOnce(i64) -> Result<bool, E>,
    ) -> Result<Option<D>, E> {
        let ready = queue
            .ready(priority, self.switches.epoch(), |ready| (ready.kind == Kind::ByShare).then_some(ready.until_ns));
        let Some((asked, until_ns)) = ready else { return Ok(None) };
        Ok(if within(until_ns)? { asked.refused(share) } else { None })
    }

    /// Returns and counts the decision of a lease that lies ready for a queue and the job of a tenant, if it is still true,
    /// with whether the job goes: the tenant's part takes the place of the share, and who is `impatient` may be refused.
    /// `place` tells the tenant's. `share`, which returns another reference, and `place` must not call out.
    ///
    /// # Errors
    /// Those of `within`, which tells whether an instant is not past yet.
    pub fn hand_out_for<P, S: Place<Ready<P>>, D, E>(
        &self,
        queue: &Queue<P, S>,
        priority: Priority,
        impatient: bool,
        place: impl FnOnce(&Tenants) -> Option<u32>,
        share: impl Fn(&P) -> D,
        within: impl FnOnce(i64) -> Result<bool, E>,
    ) -> Result<Option<(D, bool)>, E> {
        let ready = queue
            .ready(priority, self.switches.epoch(), |ready| (ready.kind == Kind::ByShare).then_some(ready.until_ns));
        let Some((asked, until_ns)) = ready else { return Ok(None) };
        Ok(if within(until_ns)? { asked.decided_for(impatient, place, share) } else { None })
    }

    /// Admits and counts one more caller of a delay that lies ready for a queue, if it was made from what holds now and is
    /// still true. Returns what its decision is to be made of, and what is its own. Without `admit`, who is to wait is
    /// neither admitted nor counted. `share`, which returns another reference, must not call out.
    ///
    /// # Errors
    /// Those of `now_ns`.
    pub fn hand_out_delay<P, S: Place<Ready<P>>, D, E>(
        &self,
        queue: &Queue<P, S>,
        priority: Priority,
        admit: bool,
        share: impl FnOnce(&P) -> D,
        now_ns: impl FnOnce() -> Result<i64, E>,
    ) -> Result<Option<(D, Issue)>, E> {
        let ready = queue.ready(priority, self.switches.epoch(), |ready| {
            let Ready { kind, until_ns, sample, word, row, .. } = *ready;
            kind.is_delay().then(|| (share(&ready.decision), kind, until_ns, sample, word, row))
        });
        let Some((asked, (decision, kind, until_ns, sample, word, row))) = ready else { return Ok(None) };
        let computed = asked.computed.load();
        let advice = computed.as_ref().filter(|computed| computed.sample == sample).map(|computed| computed.advice);
        // Another thread may have computed another one meanwhile.
        let Some(advice) = advice.filter(|advice| advice.delay_ns > 0 && !advice.shed) else { return Ok(None) };
        drop(computed);
        let issued_ns = now_ns()?;
        if issued_ns > until_ns {
            return Ok(None);
        }
        let mut issue = Issue { issued_ns, ticket: None, computed: false };
        if admit || kind == Kind::LetGo {
            asked.counters.count(row, advice.delay_ns, false);
            issue.ticket = Some(Ticket::of_closed(word, issued_ns));
        }
        Ok(Some((decision, issue)))
    }

    /// Decides about what `wanted` returns; `admit` tells whether a caller that is to wait is admitted at once, `spared`
    /// whether one that a table sheds is to wait instead.
    ///
    /// # Errors
    /// Those of the host, as of every method here.
    ///
    /// # Panics
    /// Never: only a call that may read asks its caller to.
    pub fn decide<T: Table<Name: Sized>>(
        &self,
        host: &T,
        priority: Priority,
        admit: bool,
        spared: bool,
        wanted: impl FnOnce() -> Result<Wanted<T::Stored, T::Name>, T::Error>,
    ) -> Result<T::Object, T::Error> {
        let (mode, now_ns) = self.look(host)?;
        let stored = match wanted()? {
            Wanted::Queue(stored) => stored,
            Wanted::Name(name) => match self.track(host, &name, now_ns, true)? {
                Some(stored) => stored,
                None => return self.decide_untracked(host, &mode, priority, &name, now_ns),
            },
        };
        let (queue, name) = (host.queue(&stored), host.name(&stored));
        let decide = |mode: &Mode, now_ns, ask| {
            Call { host, checks: &self.checks, mode, priority, queue, name, now_ns }.decide(ask)
        };
        if let Some(decision) = decide(&mode, now_ns, Ask { admit, may_read: true, cold: None, spared })? {
            return Ok(decision);
        }
        // Where there is a poller, only who must not go by what there is gets here.
        let cold = host.read(name, queue.sample().is_none() || mode.settings.polling)?;
        let (mode, now_ns) = self.look(host)?;
        let decision = decide(&mode, now_ns, Ask { admit, may_read: false, cold, spared })?;
        Ok(decision.expect("only a caller that may read is asked to"))
    }

    /// Tells what [`Self::decide`] would say now, without a ticket; nothing is taken, counted, read, kept or told.
    ///
    /// # Errors
    /// See [`Self::decide`].
    pub fn peek<T: Table<Name: Sized>>(
        &self,
        host: &T,
        priority: Priority,
        name: impl FnOnce() -> Result<T::Name, T::Error>,
    ) -> Result<T::Object, T::Error> {
        if !self.switches.mode().running {
            return Err(host.not_running());
        }
        let now_ns = host.now_ns()?;
        let (mode, name) = (&*self.switches.mode_due(now_ns), &name()?);
        if let Some(stored) = host.find(name)? {
            let (queue, name, checks) = (host.queue(&stored), host.name(&stored), &self.checks);
            return Call { host, checks, mode, priority, queue, name, now_ns }.peek();
        }
        let mut answer = without_queue(mode, priority, now_ns);
        if answer.reason == Reason::Untracked && self.room.has_room(host, &mode.settings, now_ns) {
            answer = Answer::go(priority, Reason::ColdStart, now_ns);
        }
        host.peeked(name, &answer, mode.settings.observes(|| host.text(name))?)
    }

    fn decide_untracked<T: Table>(
        &self,
        host: &T,
        mode: &Mode,
        priority: Priority,
        name: &T::Name,
        now_ns: i64,
    ) -> Result<T::Object, T::Error> {
        let mut answer = self.room.untracked(mode, priority, now_ns);
        let finished = answer.finished(host, name, mode.settings.observes(|| host.text(name))?)?;
        host.issue(finished, answer.issue())
    }

    /// Asks the breaker again for a planned decision, right before its work; one that waited is counted here.
    ///
    /// # Errors
    /// See [`Self::decide`].
    pub fn admit<T: Table>(&self, host: &T, plan: &Plan<'_, T::Name>) -> Result<Admission<T::Object>, T::Error> {
        let (mode, now_ns) = self.look(host)?;
        if plan.reason == Reason::Untracked {
            return Ok(Admission::AsItIs); // it was counted when made, and has no breaker
        }
        let admission = match self.track(host, plan.name, now_ns, true)? {
            None => Admission::AsItIs,
            Some(stored) => {
                let (queue, name, checks, mode) = (host.queue(&stored), host.name(&stored), &self.checks, &*mode);
                Call { host, checks, mode, priority: plan.priority, queue, name, now_ns }.admit(plan.planned())?
            }
        };
        if plan.waits() && !matches!(admission, Admission::Instead(_)) {
            self.count(host, plan, false)?;
        }
        Ok(admission)
    }

    /// Counts a planned decision that is refused, for its caller would not wait so long.
    ///
    /// # Errors
    /// See [`Self::decide`].
    pub fn refuse_late<T: Table>(&self, host: &T, plan: &Plan<'_, T::Name>) -> Result<(), T::Error> {
        self.count(host, plan, true)
    }

    /// Counts a planned decision that is acted upon.
    fn count<T: Table>(&self, host: &T, plan: &Plan<'_, T::Name>, late: bool) -> Result<(), T::Error> {
        let stored = host.find(plan.name)?;
        let counters = stored
            .as_ref()
            .map_or_else(|| self.room.other(plan.priority), |stored| &host.queue(stored).asked(plan.priority).counters);
        if plan.reason != Reason::Untracked {
            // else it was counted when made
            counters.count(Row::of(plan.reason, true), plan.delay_ns, plan.computed);
        }
        if late {
            counters.count_late();
        }
        Ok(())
    }

    /// Takes a sample; `false` where the queue has no state and there is no room for it.
    ///
    /// # Errors
    /// See [`Self::decide`].
    pub fn put_sample<T: Table>(
        &self,
        host: &T,
        name: &T::Name,
        backlog: i64,
        as_of_ns: i64,
        oldest_age_ns: Option<i64>,
        memory_permille: Option<u64>,
    ) -> Result<bool, T::Error> {
        let stored = match host.find(name)? {
            Some(stored) => Some(stored),
            None => self.track(host, name, host.now_ns()?, false)?,
        };
        if let Some(stored) = &stored {
            host.queue(stored).put_sample(backlog, as_of_ns, oldest_age_ns, memory_permille);
        }
        Ok(stored.is_some())
    }

    /// Drops all samples: they are another process's, and every queue is to be read anew.
    pub fn forget_samples<T: Table>(&self, host: &T) {
        for stored in host.all() {
            host.queue(&stored).forget_sample();
        }
    }

    /// Returns the queues whose samples lie outside of green for a priority that is asked for, but idle ones.
    ///
    /// # Errors
    /// See [`Self::decide`].
    pub fn busy<T: Table>(&self, host: &T) -> Result<Vec<T::Stored>, T::Error> {
        let (mode, now_ns) = (self.switches.mode(), host.now_ns()?);
        let mut busy = Vec::new();
        for stored in in_order(host) {
            let queue = host.queue(&stored);
            let touched = now_ns < untouched_from_ns(&mode.settings, queue.touched_ns());
            if touched && queue.is_busy(mode.settings.law_of(host.text(host.name(&stored))?)) {
                busy.push(stored);
            }
        }
        Ok(busy)
    }

    /// Returns how many computed answers are kept.
    pub fn cache_size<T: Table>(&self, host: &T) -> usize {
        let kept = |stored: &T::Stored| {
            let seen = Priority::ALL.into_iter().filter_map(|priority| host.queue(stored).seen(priority));
            seen.filter(|asked| asked.computed.load().is_some()).count()
        };
        in_order(host).iter().map(kept).sum()
    }

    /// Returns the queue of a name, made if there is room for it.
    ///
    /// # Errors
    /// See [`Self::decide`].
    pub fn track<T: Table>(
        &self,
        host: &T,
        name: &T::Name,
        now_ns: i64,
        evict: bool,
    ) -> Result<Option<T::Stored>, T::Error> {
        self.room.track(host, &self.switches, name, now_ns, evict)
    }

    /// Returns the mode that holds now, and now.
    fn look<H: Host>(&self, host: &H) -> Result<(Arc<Mode>, i64), H::Error> {
        if !self.switches.mode().running {
            return Err(host.not_running());
        }
        let now_ns = host.now_ns()?;
        let (mode, ended) = self.switches.mode_at(now_ns);
        if ended {
            host.override_ended()?;
        }
        Ok((mode, now_ns))
    }
}
