//! The table, where nobody is ever alone: as if a free-threaded interpreter let others in at every step.
//!
//! No name gets two queues, no more queues are stored than there is room for, and no count is lost or counted twice.

use std::convert::Infallible;
use std::sync::Arc;

use backpressure_core::breaker::Change;
use backpressure_core::counters::Row;
use backpressure_core::engine::Engine;
use backpressure_core::host::{Answer, Host, Issue, Judged};
use backpressure_core::queue::{Queue, Ready, Slot};
use backpressure_core::table::Table;
use backpressure_core::vocabulary::Priority::{self, Medium};
use backpressure_core::vocabulary::Reason;
use backpressure_core::zone::Zone;
use loom::sync::Mutex;

use crate::world::{S, Seen, settings};
use crate::{assert_ends, assert_ends_within, race};

type Stored = Arc<(String, Queue<Seen>)>;

/// An engine with room for a few queues, and where they are stored. Each step of the table's is one, and no more.
struct Shelf {
    engine: Engine,
    queues: Mutex<Vec<Stored>>,
    aside: Mutex<Vec<Stored>>,
}

/// After that long a queue is idle.
const IDLE_NS: i64 = 301 * S;

impl Shelf {
    fn new(max_queues: usize) -> Self {
        let settings = settings(|settings| settings.max_queues = max_queues);
        Self { engine: Engine::new(settings, 0), queues: Mutex::new(Vec::new()), aside: Mutex::new(Vec::new()) }
    }

    fn track(&self, name: &str, now_ns: i64) -> Option<Stored> {
        let Ok(stored) = self.engine.room.track(self, &self.engine.switches, name, now_ns, true);
        stored
    }

    /// Counts a decision as a call does that has found its queue, or none.
    fn decide(&self, name: &str, now_ns: i64) {
        let stored = self.track(name, now_ns);
        let other = || self.engine.room.other(Medium);
        let counters = stored.as_ref().map_or_else(other, |stored| &stored.1.asked(Medium).counters);
        counters.count(Row::of(Reason::ColdStart, true), 0, false);
    }

    fn counted(&self) -> u64 {
        self.engine.room.totals(self).iter().map(|(_, _, totals)| totals.reasons.iter().sum::<u64>()).sum()
    }
}

impl Host for Shelf {
    type Object = Seen;
    type Error = Infallible;
    type Name = str;
    type Place = Slot<Ready<Seen>>;

    fn now_ns(&self) -> Result<i64, Infallible> {
        unreachable!("a call is told what time it is")
    }

    fn text<'a>(&self, name: &'a str) -> Result<&'a str, Infallible> {
        Ok(name)
    }

    fn not_running(&self) -> Infallible {
        unreachable!("nobody decides")
    }

    fn override_ended(&self) -> Result<(), Infallible> {
        unreachable!("nobody decides")
    }

    fn read(&self, _: &str, _: bool) -> Result<Option<Reason>, Infallible> {
        unreachable!("nobody decides")
    }

    fn hurry(&self, _: &str) -> Result<(), Infallible> {
        unreachable!("nobody decides")
    }

    fn check_poller(&self) -> Result<bool, Infallible> {
        unreachable!("nobody decides")
    }

    fn judge(&self, _: &str, _: Priority) -> Result<Judged, Infallible> {
        unreachable!("nobody decides")
    }

    fn foresee(&self, _: &str, _: Priority) -> Result<Judged, Infallible> {
        unreachable!("nobody decides")
    }

    fn circuit_changed(&self, _: &str, _: Change) -> Result<(), Infallible> {
        unreachable!("nobody decides")
    }

    fn zone_changed(&self, _: &str, _: Priority, _: Zone, _: Zone) -> Result<(), Infallible> {
        unreachable!("nobody decides")
    }

    fn answer(&self, _: &str, _: &Answer<Seen>) -> Result<Seen, Infallible> {
        unreachable!("nobody decides")
    }

    fn observed(&self, _: Seen) -> Result<Seen, Infallible> {
        unreachable!("nobody decides")
    }

    fn issue(&self, _: Seen, _: Issue) -> Result<Seen, Infallible> {
        unreachable!("nobody decides")
    }

    fn peeked(&self, _: &str, _: &Answer<Seen>, _: bool) -> Result<Seen, Infallible> {
        unreachable!("nobody decides")
    }

    fn share(&self, _: &Seen) -> Seen {
        unreachable!("nobody decides")
    }
}

impl Table for Shelf {
    type Stored = Stored;

    fn queue<'a>(&self, stored: &'a Stored) -> &'a Queue<Seen> {
        &stored.1
    }

    fn name<'a>(&self, stored: &'a Stored) -> &'a str {
        &stored.0
    }

    fn make(&self, name: &str, queue: Queue<Seen>) -> Result<Stored, Infallible> {
        queue.asked(Medium);
        Ok(Arc::new((name.to_owned(), queue)))
    }

    fn find(&self, name: &str) -> Result<Option<Stored>, Infallible> {
        Ok(self.queues.lock().unwrap().iter().find(|stored| stored.0 == name).cloned())
    }

    fn insert(&self, stored: &Stored) -> Result<bool, Infallible> {
        let mut queues = self.queues.lock().unwrap();
        let free = queues.iter().all(|other| other.0 != stored.0);
        queues.extend(free.then(|| Arc::clone(stored)));
        Ok(free)
    }

    fn remove(&self, stored: &Stored) -> Result<bool, Infallible> {
        Ok(taken_from(&self.queues, stored))
    }

    fn lay_aside(&self, stored: Stored) -> Result<(), Infallible> {
        self.aside.lock().unwrap().push(stored);
        Ok(())
    }

    fn aside(&self) -> Vec<Stored> {
        self.aside.lock().unwrap().clone()
    }

    fn let_go(&self, stored: &Stored) -> Result<bool, Infallible> {
        Ok(taken_from(&self.aside, stored))
    }

    fn size(&self) -> usize {
        self.queues.lock().unwrap().len()
    }

    fn all(&self) -> Vec<Stored> {
        self.queues.lock().unwrap().clone()
    }

    fn alone<R>(&self, work: impl FnOnce() -> R) -> R {
        work() // suspended from its beginning to its end
    }

    fn evicted(&self, _: &str) -> Result<(), Infallible> {
        Ok(())
    }
}

fn taken_from(stored: &Mutex<Vec<Stored>>, one: &Stored) -> bool {
    let mut stored = stored.lock().unwrap();
    let before = stored.len();
    stored.retain(|other| !Arc::ptr_eq(other, one));
    stored.len() < before
}

#[test]
fn a_name_gets_one_queue() {
    assert_ends([()], || {
        let shelf = Arc::new(Shelf::new(2));
        let [one, other] = race(&shelf, [|shelf: &Shelf| shelf.track("a", 0); 2]);
        let stored = shelf.find("a").unwrap().expect("there is room");
        assert!(Arc::ptr_eq(&one.unwrap(), &stored) && Arc::ptr_eq(&other.unwrap(), &stored), "two queues of one name");
        assert_eq!(shelf.size(), 1);
    });
}

#[test]
fn no_more_are_stored_than_there_is_room_for() {
    assert_ends([(false, true), (true, false)], || {
        let shelf = Arc::new(Shelf::new(1));
        let [one, other] = race(&shelf, [|shelf: &Shelf| shelf.track("a", 0), |shelf| shelf.track("b", 0)]);
        assert_eq!(shelf.size(), 1);
        (one.is_some(), other.is_some())
    });
}

#[test]
fn a_place_that_was_not_needed_is_free_again() {
    assert_ends([()], || {
        let shelf = Arc::new(Shelf::new(2));
        race(&shelf, [|shelf: &Shelf| shelf.track("a", 0); 2]);
        assert!(shelf.track("b", 0).is_some(), "a place was lost");
    });
}

#[test]
fn what_is_counted_while_its_queue_is_evicted_is_not_lost() {
    assert_ends([()], || {
        let shelf = Arc::new(Shelf::new(1));
        shelf.decide("a", 0);
        race(&shelf, [|shelf: &Shelf| shelf.decide("a", IDLE_NS), |shelf| shelf.decide("b", IDLE_NS)]);
        assert_eq!(shelf.counted(), 3);
        assert!(shelf.size() <= 1);
    });
}

#[test]
fn two_that_evict_the_same_queue_count_it_once() {
    assert_ends_within(2, [()], || {
        let shelf = Arc::new(Shelf::new(1));
        shelf.decide("a", 0);
        shelf.decide("b", IDLE_NS); // a lies aside
        race(&shelf, [|shelf: &Shelf| shelf.decide("c", 3 * IDLE_NS), |shelf| shelf.decide("d", 3 * IDLE_NS)]);
        assert_eq!(shelf.counted(), 4);
        assert!(shelf.size() <= 1);
    });
}
