//! Which names have a queue of their own: who gets room, who is evicted for it, and where the others are counted.
//!
//! The host stores the queues; everything about them is decided here. What is decided holds on any number of threads, even
//! where `Table::alone` keeps nobody out: a free-threaded `CPython` lets others in whenever the thread that is alone has to
//! wait for anything. So a queue is stored, and is stored no more, in one step that tells whether it was done; a place is
//! taken before; and the counts of an evicted queue stay with it for as long as a call may go on that found it.
//!
//! # Memory orderings
//!
//! The instant of the next eviction is relaxed, since nothing else depends on it: a thread that reads an old one looks
//! once too often. So is the number of the next queue: all that matters is that no two are the same. So are the places
//! that are taken: no exchange of a counter takes one that is not there.

use std::sync::Arc;

use crate::counters::{Counters, Row, Totals};
use crate::host::{Answer, Host, QueueOf};
use crate::mode::{Mode, Switches};
use crate::queue::Queue;
use crate::settings::Settings;
use crate::sync::{AtomicI64, AtomicU64, Ordering};
use crate::vocabulary::{Priority, Reason};
use crate::word::State;

// Queues idle for this many cache lifetimes may be evicted when there is no room.
const IDLE_TTLS: i64 = 10;

/// A host that stores the queues of its engine by name. Every method is one step, which no other thread sees half done.
pub trait Table: Host {
    /// A queue as it is stored.
    type Stored: Clone;

    /// Returns the queue.
    fn queue<'a>(&self, stored: &'a Self::Stored) -> &'a QueueOf<Self>;

    /// Returns the queue's name.
    fn name<'a>(&self, stored: &'a Self::Stored) -> &'a Self::Name;

    /// Makes what is stored of a queue.
    ///
    /// # Errors
    /// The host's own, as of every method here.
    fn make(&self, name: &Self::Name, queue: QueueOf<Self>) -> Result<Self::Stored, Self::Error>;

    /// Finds the queue of a name, if it is stored.
    ///
    /// # Errors
    /// See [`Self::make`].
    fn find(&self, name: &Self::Name) -> Result<Option<Self::Stored>, Self::Error>;

    /// Stores a queue, unless its name has one. Tells whether it did.
    ///
    /// # Errors
    /// See [`Self::make`].
    fn insert(&self, stored: &Self::Stored) -> Result<bool, Self::Error>;

    /// Stores this queue no more, if it is the one of its name. Tells whether it was.
    ///
    /// # Errors
    /// See [`Self::make`].
    fn remove(&self, stored: &Self::Stored) -> Result<bool, Self::Error>;

    /// Lays a queue aside that is stored no more.
    ///
    /// # Errors
    /// See [`Self::make`].
    fn lay_aside(&self, stored: Self::Stored) -> Result<(), Self::Error>;

    /// Returns what lies aside.
    fn aside(&self) -> Vec<Self::Stored>;

    /// Lets go of a queue that lies aside. Tells whether it still did.
    ///
    /// # Errors
    /// See [`Self::make`].
    fn let_go(&self, stored: &Self::Stored) -> Result<bool, Self::Error>;

    /// Returns how many queues are stored.
    fn size(&self) -> usize;

    /// Returns all queues, in any order.
    fn all(&self) -> Vec<Self::Stored>;

    /// Does something during which no other thread changes the table, as far as the host can have it so. Nothing in there
    /// calls out.
    fn alone<R>(&self, work: impl FnOnce() -> R) -> R;

    /// Is told that a queue lost its state to make room.
    ///
    /// # Errors
    /// See [`Self::make`].
    fn evicted(&self, name: &Self::Name) -> Result<(), Self::Error>;
}

/// Counts of one queue and priority; without a queue those of all names that have none of their own.
pub type Counted<T> = (Option<<T as Table>::Stored>, Priority, Totals);

/// Room for queues. Thread-safe.
#[derive(Debug)]
pub struct Room {
    origin_ns: i64,
    // What names without a queue of their own are counted under: those beyond `max_queues`, and evicted ones.
    other: [Counters; 3],
    // How many queues are stored, or are about to be.
    taken: AtomicU64,
    next_eviction_ns: AtomicI64,
    made: AtomicU64,
}

impl Room {
    /// Makes room whose breakers' milliseconds begin at `origin_ns`.
    pub fn new(origin_ns: i64) -> Self {
        let (taken, next_eviction_ns, made) = (AtomicU64::new(0), AtomicI64::new(0), AtomicU64::new(0));
        Self { origin_ns, other: Default::default(), taken, next_eviction_ns, made }
    }

    /// Returns where the milliseconds of its breakers begin.
    pub fn origin_ns(&self) -> i64 {
        self.origin_ns
    }

    /// Returns the counters of a priority for names that have no queue of their own.
    pub fn other(&self, priority: Priority) -> &Counters {
        &self.other[priority.index()]
    }

    /// Tells whether [`Self::track`] would make room for one more queue now; changes nothing.
    pub fn has_room<T: Table>(&self, table: &T, settings: &Settings, now_ns: i64) -> bool {
        let is_idle = |stored: &T::Stored| idle_from_ns(settings, table.queue(stored), now_ns).is_none();
        !self.is_full(settings)
            || (now_ns >= self.next_eviction_ns.load(Ordering::Relaxed) && table.all().iter().any(is_idle))
    }

    /// Returns the queue of a name, made if there is room for it.
    ///
    /// # Errors
    /// Those of the host.
    pub fn track<T: Table>(
        &self,
        table: &T,
        switches: &Switches,
        name: &T::Name,
        now_ns: i64,
        evict: bool,
    ) -> Result<Option<T::Stored>, T::Error> {
        if let Some(stored) = table.find(name)? {
            return Ok(Some(stored));
        }
        let settings = &switches.mode().settings;
        let evict = evict && now_ns >= self.next_eviction_ns.load(Ordering::Relaxed);
        if self.is_full(settings) && !evict {
            return Ok(None);
        }
        let number = self.made.fetch_add(1, Ordering::Relaxed);
        let mut queue = Queue::new(Arc::clone(settings.circuit_of(table.text(name)?)), self.origin_ns, now_ns);
        queue.number = number;
        let made = table.make(name, queue)?;
        // Objects are made above; they are freed, and the host is called, below.
        let (stored, evicted) = table.alone(|| {
            if let Some(stored) = table.find(name)? {
                return Ok((Some(stored), Vec::new()));
            }
            let full = self.is_full(settings);
            let evicted = if full && evict { self.evict(table, switches, settings, now_ns)? } else { Vec::new() };
            Ok((self.store(table, settings, made)?, evicted))
        })?;
        for gone in evicted {
            table.evicted(table.name(&gone))?;
        }
        Ok(stored)
    }

    fn is_full(&self, settings: &Settings) -> bool {
        self.taken.load(Ordering::Relaxed) >= settings.max_queues as u64
    }

    /// Stores a queue if there is room; returns the one that its name has now, which another thread may have stored.
    fn store<T: Table>(&self, table: &T, settings: &Settings, made: T::Stored) -> Result<Option<T::Stored>, T::Error> {
        let take = |taken| (taken < settings.max_queues as u64).then_some(taken + 1);
        if self.taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_err() {
            return table.find(table.name(&made));
        }
        let stored = table.insert(&made);
        if !matches!(stored, Ok(true)) {
            self.taken.fetch_sub(1, Ordering::Relaxed);
        }
        if stored? { Ok(Some(made)) } else { table.find(table.name(&made)) }
    }

    /// Forgets the queues that nobody asked for in a long time, keeping their counts; returns them.
    fn evict<T: Table>(
        &self,
        table: &T,
        switches: &Switches,
        settings: &Settings,
        now_ns: i64,
    ) -> Result<Vec<T::Stored>, T::Error> {
        let mut idle = Vec::new();
        let mut next_ns = untouched_from_ns(settings, now_ns); // of the queue that takes the room
        for stored in in_order(table) {
            match idle_from_ns(settings, table.queue(&stored), now_ns) {
                Some(from_ns) => next_ns = next_ns.min(from_ns),
                None => idle.push(stored),
            }
        }
        self.next_eviction_ns.store(next_ns, Ordering::Relaxed);
        if !idle.is_empty() {
            switches.void_ready(); // somebody may still hold one of them
        }
        self.settle(table, settings, now_ns)?;
        let mut evicted = Vec::new();
        for stored in idle {
            if !table.remove(&stored)? {
                continue; // another thread was first
            }
            let queue = table.queue(&stored);
            if queue.breaker.state() != State::Closed && table.insert(&stored)? {
                continue; // it was forced open meanwhile
            }
            self.taken.fetch_sub(1, Ordering::Relaxed);
            queue.touch(now_ns); // from now on it lies aside
            table.lay_aside(stored.clone())?;
            evicted.push(stored);
        }
        Ok(evicted)
    }

    /// Lets go of evicted queues that nobody has asked for since, for as long again, and keeps their counts.
    fn settle<T: Table>(&self, table: &T, settings: &Settings, now_ns: i64) -> Result<(), T::Error> {
        for stored in table.aside() {
            let queue = table.queue(&stored);
            if now_ns < untouched_from_ns(settings, queue.touched_ns()) || !table.let_go(&stored)? {
                continue;
            }
            for priority in Priority::ALL {
                if let Some(asked) = queue.seen(priority) {
                    self.other(priority).add(&asked.counters.totals());
                }
            }
        }
        Ok(())
    }

    /// Returns the answer for a name that has no queue and gets none, counted.
    pub fn untracked<P>(&self, mode: &Mode, priority: Priority, now_ns: i64) -> Answer<P> {
        let answer = without_queue(mode, priority, now_ns);
        self.other(priority).count(Row::of(answer.reason, true), answer.delay_ns, false);
        answer
    }

    /// Returns all counts that are not 0.
    pub fn totals<T: Table>(&self, table: &T) -> Vec<Counted<T>> {
        let mut counted = Vec::new();
        table.alone(|| {
            for stored in table.all() {
                for priority in Priority::ALL {
                    if let Some(asked) = table.queue(&stored).seen(priority) {
                        counted.push((Some(stored.clone()), priority, asked.counters.totals()));
                    }
                }
            }
            let aside = table.aside();
            counted.extend(Priority::ALL.map(|priority| {
                let sum = Counters::default();
                sum.add(&self.other(priority).totals());
                aside.iter().filter_map(|stored| table.queue(stored).seen(priority)).for_each(|asked| {
                    sum.add(&asked.counters.totals());
                });
                (None, priority, sum.totals())
            }));
        });
        counted.retain(|(_, _, totals)| totals.reasons.iter().any(|&count| count > 0));
        counted
    }
}

/// Returns the answer for a name that has no queue and gets none.
pub fn without_queue<P>(mode: &Mode, priority: Priority, now_ns: i64) -> Answer<P> {
    mode.switch().map_or_else(
        || Answer::wait(priority, Reason::Untracked, mode.settings.fallback_ns[priority.index()], now_ns),
        |switch| Answer::go(priority, switch, now_ns),
    )
}

/// Returns all queues in the order in which they were made.
pub fn in_order<T: Table>(table: &T) -> Vec<T::Stored> {
    let mut stored = table.all();
    stored.sort_unstable_by_key(|stored| table.queue(stored).number);
    stored
}

/// Returns when a queue may next be found idle; `None` if it may be evicted now.
fn idle_from_ns<P, S: Default>(settings: &Settings, queue: &Queue<P, S>, now_ns: i64) -> Option<i64> {
    let from_ns = untouched_from_ns(settings, queue.touched_ns());
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
