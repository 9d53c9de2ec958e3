//! What an engine remembers of a queue: its sample, the computed advice, and answers ready to be handed out again.
//!
//! `P` is the host's object: a decision as its callers get it, and what decisions are made of.
//!
//! # Memory orderings
//!
//! A sample is published twice: by the swap of its pointer, which releases it, and then by its number, put up with
//! release and read with acquire. So a thread that sees a number finds that sample or a later one. Of two numbers the
//! larger stays; the second `fetch_max` carries on the release of the first, since it reads and writes in one step even
//! where it changes nothing.
//!
//! The breaker's word is relaxed (see `breaker.rs`): it is compared as a value, and nothing is reached through it. What
//! a ready answer refers to is reached through its place, and ordered by the place's lock or what the host has instead.
//!
//! The two instants are relaxed: nothing else depends on them. With an old `touched_ns` a queue looks idle that was
//! asked for a moment ago. An old `failed_ns`, or one that a racing read overwrites, costs one read too many or too
//! few.

use std::sync::Arc;

use once_cell::race::OnceBox;

use crate::breaker::Breaker;
use crate::counters::{Counters, Row};
use crate::laws::law::Advice;
use crate::laws::{AnyLaw, State as LawState};
use crate::lease::{Lease, Tenants};
use crate::sample::{FORGOTTEN, Sample};
use crate::settings::{CircuitSettings, Settings};
use crate::sync::{ArcSwapOption, AtomicI64, AtomicU64, Mutex, Ordering};
use crate::vocabulary::Priority;
use crate::zone::Zone;

// No instant of a clock that began in this machine's lifetime.
const NOT_FAILED: i64 = i64::MIN;

/// The law's advice on one sample under one configuration.
#[derive(Debug)]
pub struct Computed<P> {
    /// Number of the sample.
    pub sample: u64,
    /// The configuration.
    pub settings: Arc<Settings>,
    /// What the law said.
    pub advice: Advice,
    /// Where jobs are counted that it lets in; `None` if it refuses them.
    pub row: Option<Row>,
    /// What had been let in before.
    pub counted: i64,
    /// What decisions are made of.
    pub finished: P,
}

impl<P> Computed<P> {
    /// Tells whether it was computed of the sample of this number, under this configuration.
    pub fn holds(&self, sample: u64, settings: &Arc<Settings>) -> bool {
        self.sample == sample && Arc::ptr_eq(&self.settings, settings)
    }
}

/// How an answer that lies ready is handed out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// One decision for all, who must not do the job.
    Refusal,
    /// One decision for all, who may, and at once.
    Go,
    /// One decision for all whom the share's word of the lease lets go, and one for those who will not wait and whom it
    /// refuses; others are to be decided about.
    ByShare,
    /// One decision for all whom the line's word of the lease lets go; others are to be decided about.
    ByLine,
    /// A delay: each gets a decision of its own. Who plans is neither admitted nor counted yet.
    Wait,
    /// A delay that observe mode lets go at once: each gets a decision of its own, and is admitted and counted.
    LetGo,
}

impl Kind {
    /// Tells whether a job may go by it, and at once.
    #[inline]
    pub fn goes(self) -> bool {
        matches!(self, Self::Go | Self::ByShare | Self::ByLine)
    }

    /// Tells whether each gets its own.
    #[inline]
    pub fn is_delay(self) -> bool {
        matches!(self, Self::Wait | Self::LetGo)
    }
}

/// What a lease refuses with.
#[derive(Debug)]
pub struct Refusal<P> {
    /// What callers get.
    pub decision: P,
    /// Where it counts.
    pub row: Row,
}

/// A finished answer, good for every caller while nothing that it was made from has changed.
#[derive(Debug)]
pub struct Ready<P> {
    /// What callers get or, if each gets its own, what their decisions are made of.
    pub decision: P,
    /// Epoch of the mode it was made under.
    pub epoch: u64,
    /// Number of the sample that held, 0 for none.
    pub sample: u64,
    /// Word of the breaker.
    pub word: u64,
    /// Last instant at which it is true.
    pub until_ns: i64,
    /// The count in its row up to which it is true: then so many jobs came that the queue is to be read.
    pub until_count: u64,
    /// Where it counts.
    pub row: Row,
    /// How it is handed out.
    pub kind: Kind,
    /// What jobs go by where it is a lease's.
    pub lease: Option<Arc<Lease>>,
    /// [`Lease::renewal`] of the terms that it was made under.
    pub renewal: u32,
    /// What those get whom the lease refuses by these terms, if that is known. Apart, as few answers have it.
    pub refusal: Option<Box<Refusal<P>>>,
}

/// Where a ready answer lies. Nobody waits here: who finds it in use by another thread goes on without it.
pub trait Place<T>: Default {
    /// Reads what lies there; `None` if nothing does, or another thread is using it. `read` must not call out.
    fn read<R>(&self, read: impl FnOnce(&T) -> Option<R>) -> Option<R>;

    /// Puts something there. Returns what the caller is to drop, now that the place is free again: what lay there
    /// before, or `thing` itself if another thread was using the place.
    fn put(&self, thing: T) -> Option<T>;

    /// Adds one to a counter beside such a place. What keeps threads apart at the place may keep them apart here too.
    fn add_one(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed); // see counters.rs
    }
}

/// A place with a lock of its own.
#[derive(Debug)]
pub struct Slot<T>(Mutex<Option<T>>);

impl<T> Default for Slot<T> {
    fn default() -> Self {
        Self(Mutex::new(None))
    }
}

impl<T> Place<T> for Slot<T> {
    fn read<R>(&self, read: impl FnOnce(&T) -> Option<R>) -> Option<R> {
        self.0.try_lock().ok().and_then(|thing| thing.as_ref().and_then(read))
    }

    fn put(&self, thing: T) -> Option<T> {
        match self.0.try_lock() {
            Ok(mut place) => place.replace(thing),
            Err(_) => Some(thing),
        }
    }
}

/// What is kept of a (queue, priority) once it was asked for.
///
/// In the order of use: where there are many queues, an answer and its count lie in one line of the processor's cache.
#[derive(Debug)]
#[repr(C, align(64))]
pub struct Asked<P, S = Slot<Ready<P>>> {
    /// The last answer that may be handed out again.
    pub ready: S,
    /// Its counts.
    pub counters: Counters,
    /// The last computation.
    pub computed: ArcSwapOption<Computed<P>>,
    /// When a read that the jobs of this priority ask for may be asked for again. Relaxed: with an old value it is
    /// asked for once too often.
    pub hurry_at_ns: AtomicI64,
}

impl<P, S: Place<Ready<P>>> Asked<P, S> {
    /// Counts a decision that was handed out again, as when it was made, but not as computed.
    #[inline]
    pub fn count_again(&self, row: Row) {
        S::add_one(self.counters.of(row));
    }

    /// Tells whether the lease that lies ready lets the next job go by `take`, and takes it off. Out of the way of other
    /// answers.
    #[inline(never)]
    pub fn lets_go(&self, take: impl FnOnce(&Lease, u32) -> bool) -> bool {
        self.ready.read(|ready| ready.lease.as_deref().map(|lease| take(lease, ready.renewal))).unwrap_or(false)
    }

    /// Tells whether the share's word of the lease that lies ready lets the next job go, by the terms that its decision was
    /// made under.
    #[inline]
    pub fn goes_by_share(&self) -> bool {
        self.lets_go(|lease, renewal| lease.renewal() == renewal && lease.take_share())
    }

    /// Returns what `share` makes of the decision of a tenant's job, if the lease that lies ready lets it go or refuses it,
    /// and whether it goes. Counted.
    pub fn decided_for<D>(
        &self,
        impatient: bool,
        place: impl FnOnce(&Tenants) -> Option<u32>,
        share: impl Fn(&P) -> D,
    ) -> Option<(D, bool)> {
        let (decision, row, goes) = self.ready.read(|ready| {
            let lease = ready.lease.as_deref()?;
            let place = lease.tenants().and_then(|tenants| place(tenants))?;
            let refusal = ready.refusal.as_deref().filter(|_| impatient);
            if lease.decide_for(place, ready.renewal, refusal.is_some())? {
                return Some((share(&ready.decision), ready.row, true));
            }
            refusal.map(|refusal| (share(&refusal.decision), refusal.row, false))
        })?;
        self.count_again(row);
        Some((decision, goes))
    }

    /// Returns what `share` makes of the refusal that lies ready, if the lease refuses the next job by it. Counted.
    pub fn refused<D>(&self, share: impl FnOnce(&P) -> D) -> Option<D> {
        let (decision, row) = self.ready.read(|ready| {
            let (lease, refusal) = (ready.lease.as_deref()?, ready.refusal.as_deref()?);
            lease.refuse_share(ready.renewal).then(|| (share(&refusal.decision), refusal.row))
        })?;
        self.count_again(row);
        Some(decision)
    }
}

/// One queue's state. Thread-safe.
///
/// What a ready answer is compared with comes first, so that it lies in one line of the processor's cache.
#[derive(Debug)]
#[repr(C)]
pub struct Queue<P, S = Slot<Ready<P>>> {
    sample_number: AtomicU64,
    asked: [OnceBox<Asked<P, S>>; 3],
    /// Its breaker.
    pub breaker: Breaker,
    sample: ArcSwapOption<Sample>,
    // When a read on a caller's path failed, until there is a sample; `NOT_FAILED` for none.
    failed_ns: AtomicI64,
    // Last asked for, to within the time an answer stays ready.
    touched_ns: AtomicI64,
    /// What its law keeps of it.
    pub law_state: LawState,
    /// Its place in the order in which an engine's queues were made.
    pub number: u64,
}

impl<P, S: Default> Queue<P, S> {
    /// Makes a queue that has not been sampled.
    pub fn new(circuit: Arc<CircuitSettings>, origin_ns: i64, now_ns: i64) -> Self {
        Self {
            breaker: Breaker::new(circuit, origin_ns),
            sample: ArcSwapOption::empty(),
            sample_number: AtomicU64::new(0),
            failed_ns: AtomicI64::new(NOT_FAILED),
            touched_ns: AtomicI64::new(now_ns),
            asked: [const { OnceBox::new() }; 3],
            law_state: LawState::default(),
            number: 0,
        }
    }

    /// Returns the last sample, unless it was forgotten.
    pub fn sample(&self) -> Option<Arc<Sample>> {
        self.sample.load_full().filter(|sample| sample.as_of_ns != FORGOTTEN)
    }

    /// Returns the number of the last sample, 0 for none. What was made from that sample is current.
    pub fn sample_number(&self) -> u64 {
        // Acquire pairs with the release in `put_sample`: who sees a number sees its sample.
        self.sample_number.load(Ordering::Acquire)
    }

    /// Takes a sample.
    pub fn put_sample(&self, backlog: i64, as_of_ns: i64, oldest_age_ns: Option<i64>, memory_permille: Option<u64>) {
        self.replace_sample(backlog, as_of_ns.max(FORGOTTEN + 1), oldest_age_ns, memory_permille);
    }

    /// Drops the sample, as if the queue had never been read.
    pub fn forget_sample(&self) {
        self.replace_sample(0, FORGOTTEN, None, None);
    }

    fn replace_sample(&self, backlog: i64, as_of_ns: i64, oldest_age_ns: Option<i64>, memory_permille: Option<u64>) {
        let previous = self.sample.rcu(|old| {
            let number = old.as_ref().map_or(0, |sample| sample.number) + 1;
            Some(Arc::new(Sample { number, backlog, oldest_age_ns, memory_permille, as_of_ns }))
        });
        let number = previous.map_or(0, |sample| sample.number) + 1;
        // The largest, not the last: of two threads, the one with the older sample may come here second.
        self.sample_number.fetch_max(number, Ordering::Release);
        self.failed_ns.store(NOT_FAILED, Ordering::Relaxed);
    }

    /// Tells whether a caller may read the provider. After a failure only the poller reads; without a poller callers
    /// pause.
    pub fn may_read(&self, settings: &Settings, now_ns: i64) -> bool {
        let failed_ns = self.failed_ns.load(Ordering::Relaxed);
        failed_ns == NOT_FAILED || (!settings.polling && now_ns >= failed_ns.saturating_add(settings.check_every_ns))
    }

    /// Tells whether a read on a caller's path has failed since, and none has succeeded.
    pub fn failed_since(&self, since_ns: i64) -> bool {
        let failed_ns = self.failed_ns.load(Ordering::Relaxed);
        failed_ns != NOT_FAILED && failed_ns >= since_ns
    }

    /// Notes that a read on a caller's path failed.
    pub fn read_failed(&self, now_ns: i64) {
        self.failed_ns.store(now_ns, Ordering::Relaxed);
    }

    /// Returns when the queue was last asked for.
    pub fn touched_ns(&self) -> i64 {
        self.touched_ns.load(Ordering::Relaxed)
    }

    /// Notes that the queue is asked for.
    pub fn touch(&self, now_ns: i64) {
        self.touched_ns.store(now_ns, Ordering::Relaxed);
    }

    /// Returns what is kept of `priority`, if it was ever asked for.
    pub fn seen(&self, priority: Priority) -> Option<&Asked<P, S>> {
        self.asked[priority.index()].get()
    }

    /// Returns how many jobs were let in by what was computed of the sample of this number, and for how many priorities
    /// anything was ever computed.
    pub fn let_in(&self, sample: u64) -> (u64, u64) {
        let (mut jobs, mut priorities) = (0, 0);
        for asked in self.asked.iter().filter_map(OnceBox::get) {
            let computed = asked.computed.load();
            let Some(computed) = computed.as_ref() else { continue };
            priorities += 1;
            if let Some(row) = computed.row.filter(|_| computed.sample == sample) {
                jobs += u64::try_from(asked.counters.let_in(row) - computed.counted).unwrap_or(0);
            }
        }
        (jobs, priorities)
    }

    /// Tells whether `law` finds the sample outside of green for a priority that was asked for.
    pub fn is_busy(&self, law: &AnyLaw) -> bool {
        if law.holds_age() {
            return false; // whoever holds it reads for that
        }
        let Some(sample) = self.sample() else { return false };
        Priority::ALL.into_iter().any(|priority| {
            let is_asked_for = self.seen(priority).is_some_and(|asked| asked.computed.load().is_some());
            is_asked_for && law.foresee(&sample, priority, &self.law_state).zone != Zone::Green
        })
    }

    /// Returns what is kept of `priority`, made if this is the first time.
    pub fn asked(&self, priority: Priority) -> &Asked<P, S> {
        self.asked[priority.index()].get_or_init(|| {
            Box::new(Asked {
                ready: S::default(),
                counters: Counters::default(),
                computed: ArcSwapOption::empty(),
                hurry_at_ns: AtomicI64::new(i64::MIN),
            })
        })
    }
}

impl<P, S: Place<Ready<P>>> Queue<P, S> {
    /// Returns what `take` makes of the answer that lies ready for `priority`, if it was made from what holds now, with
    /// the place of its count. `take` must not call out.
    #[inline]
    pub fn ready<R>(
        &self,
        priority: Priority,
        epoch: u64,
        take: impl FnOnce(&Ready<P>) -> Option<R>,
    ) -> Option<(&Asked<P, S>, R)> {
        let asked = self.seen(priority)?;
        let (word, sample) = (self.breaker.word(), self.sample_number());
        let taken = asked.ready.read(|ready| {
            let current = ready.epoch == epoch
                && ready.word == word
                && ready.sample == sample
                && asked.counters.has(ready.row) < ready.until_count;
            if current { take(ready) } else { None }
        })?;
        Some((asked, taken))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::thread;

    use super::{Kind, Place, Queue, Ready};
    use crate::counters::Row;
    use crate::settings::CircuitSettings;
    use crate::vocabulary::{Priority, Reason};

    fn queue() -> Queue<&'static str> {
        let circuit = CircuitSettings {
            failure_threshold: 1,
            recovery_threshold: 1,
            trip_window_ms: 10,
            recovery_timeout_ms: 10,
            probe_interval_ms: 10,
            high_attempts: false,
        };
        Queue::new(Arc::new(circuit), 0, 0)
    }

    fn ready(decision: &'static str) -> Ready<&'static str> {
        Ready {
            decision,
            epoch: 1,
            sample: 1,
            word: 0,
            until_ns: 9,
            until_count: u64::MAX,
            row: Row::of(Reason::BacklogGreen, true),
            kind: Kind::Go,
            lease: None,
            renewal: 0,
            refusal: None,
        }
    }

    #[test]
    fn samples_are_numbered() {
        let queue = queue();
        assert_eq!((queue.sample_number(), queue.sample().is_none()), (0, true));
        queue.put_sample(5, 100, None, None);
        queue.put_sample(5, 100, Some(7), None);
        let sample = queue.sample().unwrap();
        assert_eq!((queue.sample_number(), sample.number, sample.backlog, sample.oldest_age_ns), (2, 2, 5, Some(7)));
    }

    #[test]
    fn a_sample_of_before_all_time_is_no_forgotten_one() {
        let queue = queue();
        queue.put_sample(5, i64::MIN, None, None);
        assert_eq!(queue.sample().unwrap().backlog, 5);
        queue.forget_sample();
        assert_eq!((queue.sample_number(), queue.sample().is_none()), (2, true));
    }

    #[test]
    fn racing_samples_leave_number_and_sample_agreed() {
        let queue = queue();
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..1_000).for_each(|backlog| queue.put_sample(backlog, 0, None, None)));
            }
        });
        assert_eq!((queue.sample_number(), queue.sample().unwrap().number), (4_000, 4_000));
    }

    #[test]
    fn a_sample_from_the_future_is_fresh() {
        let queue = queue();
        queue.put_sample(0, 100, None, None);
        let sample = queue.sample().unwrap();
        assert_eq!((sample.age_ns(99), sample.age_ns(101)), (0, 1));
    }

    #[test]
    fn a_slot_hands_back_what_it_replaces() {
        let queue = queue();
        let slot = &queue.asked(Priority::Low).ready;
        assert!(slot.read(|ready| Some(ready.decision)).is_none());
        assert!(slot.put(ready("first")).is_none());
        assert_eq!(slot.put(ready("second")).unwrap().decision, "first");
        assert_eq!(slot.read(|ready| Some(ready.decision)), Some("second"));
    }

    #[test]
    fn nobody_waits_at_a_slot() {
        let queue = queue();
        let slot = &queue.asked(Priority::High).ready;
        slot.put(ready("kept"));
        slot.read(|_| {
            assert!(slot.read(|ready| Some(ready.decision)).is_none());
            assert_eq!(slot.put(ready("late")).unwrap().decision, "late");
            None::<()>
        });
        assert_eq!(slot.read(|ready| Some(ready.decision)), Some("kept"));
    }

    #[test]
    fn a_queue_knows_when_it_was_last_asked_for() {
        let queue = queue();
        queue.touch(7);
        assert_eq!(queue.touched_ns(), 7);
    }

    #[test]
    fn only_what_was_asked_for_is_kept() {
        let queue = queue();
        queue.asked(Priority::Medium);
        assert!(queue.seen(Priority::Low).is_none());
        assert!(queue.seen(Priority::Medium).is_some());
    }
}
