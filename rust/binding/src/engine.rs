//! The engine's Python face: the table of queues, the calls into the host, and the short way of a ready answer.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use backpressure_core::breaker::{Change, Ticket as CoreTicket, is_pristine};
use backpressure_core::counters::{Row, Totals};
use backpressure_core::engine::{self as core, Admission, Answer, Ask, Call, Mode, NEVER, Planned, Settings};
use backpressure_core::queue::{self as state, Place};
use backpressure_core::vocabulary::{Priority, Reason};
use backpressure_core::zone::Zone;
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::critical_section::with_critical_section;
use pyo3::types::{PyDict, PyFloat, PyList, PyString, PyTuple};

use crate::breaker::{Breaker, Failure, Ticket};
use crate::clock::{Clock, Ns};
use crate::crossing;
use crate::guarded::Guarded;
use crate::settings::EngineSettings;
use crate::table::Table;
use crate::vocabulary::Vocabulary;

// The name of whatever has no queue of its own, in the totals.
const OTHER_QUEUES: &str = "__other__";

/// An answer that lies ready.
pub type Ready = state::Ready<Py<PyAny>>;

/// One queue's state, as the table keeps it. Never seen outside.
#[pyclass(frozen, name = "Queue", module = "backpressure._native")]
#[repr(C)]
pub struct Queue {
    pub core: state::Queue<Py<PyAny>, Guarded<Ready>>,
    pub name: Py<PyString>,
    pub last_failure: Failure,
    // In the order in which they were made.
    number: u64,
}

#[pymethods]
impl Queue {
    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        let seen = Priority::ALL.into_iter().filter_map(|priority| self.core.seen(priority));
        for asked in seen {
            asked.ready.read(|ready| Some(visit.call(&ready.decision))).transpose()?;
        }
        Ok(())
    }
}

/// Decides. Thread-safe; no call but the host's `read` waits for anything.
#[pyclass(frozen, name = "Engine", module = "backpressure._native")]
pub struct Engine {
    pub clock: Clock,
    core: core::Engine,
    pub host: Py<PyAny>,
    table: Table,
    // How many queues there ever were.
    made: AtomicU64,
    // In whose critical section the table is changed and summed up, with nothing called in there.
    changing: Py<PyAny>,
    pub vocabulary: &'static Vocabulary,
}

#[pymethods]
impl Engine {
    #[new]
    fn new(py: Python<'_>, settings: EngineSettings<'_>, host: Bound<'_, PyAny>) -> PyResult<Self> {
        let vocabulary = Vocabulary::get(py)?;
        let clock = Clock::of(&host.getattr(intern!(py, "now_ns"))?)?;
        let origin_ns = clock.now_ns(py)?;
        let core = core::Engine::new(settings.into_core(vocabulary)?, origin_ns);
        let changing = PyList::empty(py).into_any().unbind();
        Ok(Self {
            clock,
            core,
            host: host.unbind(),
            table: Table::new(py),
            made: AtomicU64::new(0),
            changing,
            vocabulary,
        })
    }

    /// Where its milliseconds begin: its first clock reading.
    #[getter]
    pub fn origin_ns(&self) -> i64 {
        self.core.origin_ns
    }

    // ----------------------------------------------------------------------------------------------------- decisions

    /// Decide and admit: the whole decision.
    fn suggest_throttle(&self, priority: &Bound<'_, PyAny>, queue_name: &Bound<'_, PyAny>) -> PyResult<Py<PyAny>> {
        self.ready_or_decide(priority, queue_name, true)
    }

    /// Decide; where a delay is advised, neither admit nor count: `admit` follows after the sleep.
    fn plan(&self, priority: &Bound<'_, PyAny>, queue_name: &Bound<'_, PyAny>) -> PyResult<Py<PyAny>> {
        self.ready_or_decide(priority, queue_name, false)
    }

    /// Ask the breaker again for a planned decision, right before its work; one that waited is counted here.
    fn admit(&self, planned: &Bound<'_, PyAny>) -> PyResult<Py<PyAny>> {
        let py = planned.py();
        let (mode, now_ns) = self.look(py)?;
        if self.reason_of(planned)? == Reason::Untracked {
            return Ok(planned.clone().unbind()); // it was counted when made, and has no breaker
        }
        let priority = self.vocabulary.priority(&planned.getattr(intern!(py, "priority"))?)?;
        let name = planned.getattr(intern!(py, "queue_name"))?.cast_into::<PyString>()?;
        let waited = planned.getattr(intern!(py, "delay"))?.extract::<f64>()? > 0.0;
        let Some(queue) = self.track(&name, now_ns, true)? else {
            if waited {
                self.count(planned, false)?;
            }
            return Ok(planned.clone().unbind());
        };
        let queue = queue.get();
        let host = Border { engine: self, name: queue.name.bind(py) };
        let call = Call { engine: &self.core, host: &host, mode: &mode, priority, queue: &queue.core, now_ns };
        let ticket = planned.getattr(intern!(py, "_ticket"))?;
        let held = if ticket.is_none() { None } else { Some(ticket.cast::<Ticket>()?) };
        let asked = match self.reason_of(planned)? {
            _ if waited => Planned::Wait,
            Reason::ObserveOnly => Planned::Observed,
            _ => Planned::Go(held.map(|held| &held.get().0)),
        };
        match call.admit(asked)? {
            Admission::Instead(decision) => Ok(decision),
            Admission::AsItIs => Ok(planned.clone().unbind()),
            Admission::AsPlanned(ticket) => {
                if waited {
                    self.count(planned, false)?;
                }
                let ticket = ticket.map(Ticket);
                self.ask(py, intern!(py, "admitted"), (planned, ticket)).map(Bound::unbind)
            }
        }
    }

    /// Count a planned decision that is refused, for its caller would not wait so long.
    fn refuse_late(&self, planned: &Bound<'_, PyAny>) -> PyResult<()> {
        self.count(planned, true)
    }

    /// Feed the breaker with the outcome of a decided job; ``None`` says nothing, and gives a probe's lease back.
    #[pyo3(signature = (decision, ok, began_ns=None, failure=None))]
    fn record(
        slf: &Bound<'_, Self>,
        decision: &Bound<'_, PyAny>,
        ok: Option<bool>,
        began_ns: Option<Ns>,
        failure: Option<Py<PyString>>,
    ) -> PyResult<()> {
        let py = slf.py();
        let Some(queue) = slf.get().queue(&decision.getattr(intern!(py, "queue_name"))?)? else { return Ok(()) };
        if ok == Some(true) && is_pristine(queue.get().core.breaker.word()) {
            return Ok(()); // whether or not it counts, nothing changes
        }
        let ticket = decision.getattr(intern!(py, "_ticket"))?;
        if ticket.is_none() {
            return Ok(());
        }
        let breaker = Breaker::of_queue(slf.clone().unbind(), queue.unbind());
        breaker.record(py, ok, Some(ticket.cast::<Ticket>()?), began_ns, failure)
    }

    /// Feed the breaker with an outcome that belongs to no decision.
    #[pyo3(signature = (queue_name, ok, failure=None))]
    fn record_queue(
        slf: &Bound<'_, Self>,
        queue_name: &Bound<'_, PyAny>,
        ok: bool,
        failure: Option<Py<PyString>>,
    ) -> PyResult<()> {
        match Self::breaker(slf, queue_name, true)? {
            Some(breaker) => breaker.record(slf.py(), Some(ok), None, None, failure),
            None => Ok(()),
        }
    }

    /// Let the next admission of the queue's open circuit be its first probe; does nothing if it is forced.
    fn hasten(&self, queue_name: &Bound<'_, PyAny>) -> PyResult<()> {
        if let Some(queue) = self.queue(queue_name)? {
            queue.get().core.breaker.hasten();
        }
        Ok(())
    }

    // -------------------------------------------------------------------------------------------------------- queues

    /// Take a sample; ``False`` where the queue is unknown and there is no room for it.
    #[pyo3(signature = (queue_name, backlog, as_of_ns, oldest_age_ns=None))]
    fn put_sample(
        &self,
        queue_name: &Bound<'_, PyString>,
        backlog: i64,
        as_of_ns: Ns,
        oldest_age_ns: Option<Ns>,
    ) -> PyResult<bool> {
        let queue = match self.queue(queue_name)? {
            Some(queue) => Some(queue),
            None => self.track(queue_name, self.clock.now_ns(queue_name.py())?, false)?,
        };
        if let Some(queue) = &queue {
            queue.get().core.put_sample(backlog, as_of_ns.0, oldest_age_ns.map(|Ns(age_ns)| age_ns));
        }
        Ok(queue.is_some())
    }

    /// A read on a caller's path failed: answer with the fallback until the next poll.
    fn read_failed(&self, queue_name: &Bound<'_, PyAny>) -> PyResult<()> {
        if let Some(queue) = self.queue(queue_name)? {
            queue.get().core.read_failed(self.clock.now_ns(queue_name.py())?);
        }
        Ok(())
    }

    /// Drop all samples: they are another process's, and every queue is to be read anew.
    fn forget_samples(&self, py: Python<'_>) {
        for queue in self.table.all(py) {
            queue.get().core.forget_sample();
        }
    }

    /// Return a queue's breaker, made if need be where `create` is true and there is room.
    fn breaker(slf: &Bound<'_, Self>, queue_name: &Bound<'_, PyAny>, create: bool) -> PyResult<Option<Breaker>> {
        let engine = slf.get();
        let queue = match engine.queue(queue_name)? {
            None if create => {
                let name = engine.vocabulary.queue_name(queue_name)?;
                engine.track(&name, engine.clock.now_ns(slf.py())?, true)?
            }
            queue => queue,
        };
        Ok(queue.map(|queue| Breaker::of_queue(slf.clone().unbind(), queue.unbind())))
    }

    /// Return the names of the queues that have state, in the order in which they got it.
    fn queue_names(&self, py: Python<'_>) -> Vec<Py<PyString>> {
        self.in_order(py).iter().map(|queue| queue.get().name.clone_ref(py)).collect()
    }

    /// Return how many computed answers are kept.
    fn cache_size(&self, py: Python<'_>) -> usize {
        let kept = |queue: &Bound<'_, Queue>| {
            let seen = Priority::ALL.into_iter().filter_map(|priority| queue.get().core.seen(priority));
            seen.filter(|asked| asked.computed.load().is_some()).count()
        };
        self.table.all(py).iter().map(kept).sum()
    }

    /// Return a queue's last sample: backlog, the instant at which it was true, and the oldest job's age then.
    fn sample(&self, queue_name: &Bound<'_, PyAny>) -> PyResult<Option<(i64, i64, Option<i64>)>> {
        let sample = self.queue(queue_name)?.and_then(|queue| queue.get().core.sample());
        Ok(sample.map(|sample| (sample.backlog, sample.as_of_ns, sample.oldest_age_ns)))
    }

    /// Return all counts by (queue, priority), those without a queue of their own under ``__other__``.
    fn totals<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let mut counted: Vec<(Py<PyString>, Priority, Totals)> = Vec::new();
        let mut other = Vec::new();
        let other_name = PyString::intern(py, OTHER_QUEUES);
        with_critical_section(self.changing.bind(py), || {
            for queue in self.table.all(py) {
                let queue = queue.get();
                for priority in Priority::ALL {
                    if let Some(asked) = queue.core.seen(priority) {
                        counted.push((queue.name.clone_ref(py), priority, asked.counters.totals()));
                    }
                }
            }
            for priority in Priority::ALL {
                other.push((other_name.clone().unbind(), priority, self.core.other[priority.index()].totals()));
            }
        });
        let totals = PyDict::new(py);
        for (name, priority, counts) in counted.into_iter().chain(other) {
            if counts.reasons.iter().any(|&count| count > 0) {
                totals.set_item((name, priority.index()), self.vocabulary.totals(py, &counts)?)?;
            }
        }
        Ok(totals)
    }

    // ------------------------------------------------------------------------------------------------------ switches

    /// Swap the configuration.
    fn configure(&self, settings: EngineSettings<'_>) -> PyResult<()> {
        self.core.configure(&settings.into_core(self.vocabulary)?);
        Ok(())
    }

    /// Start or stop answering.
    fn set_running(&self, running: bool) {
        self.core.set_running(running);
    }

    /// Turn the manual override on, until an instant or until it is turned off, or off.
    #[pyo3(signature = (enabled, until_ns=None))]
    fn set_override(&self, enabled: bool, until_ns: Option<Ns>) {
        self.core.set_override(enabled.then(|| until_ns.map_or(NEVER, |Ns(until_ns)| until_ns)));
    }

    /// Turn emergency mode on or off.
    fn set_emergency(&self, enabled: bool) {
        self.core.set_emergency(enabled);
    }

    /// Tell whether the override is on.
    #[pyo3(name = "override")]
    fn is_overridden(&self, py: Python<'_>) -> PyResult<bool> {
        match self.core.mode().override_until_ns {
            Some(until_ns) => Ok(self.clock.now_ns(py)? < until_ns),
            None => Ok(false),
        }
    }

    /// Tell whether emergency mode is on.
    fn emergency(&self) -> bool {
        self.core.mode().emergency
    }

    /// Read the clock: monotonic nanoseconds.
    fn now_ns(&self, py: Python<'_>) -> PyResult<i64> {
        self.clock.now_ns(py)
    }

    // The host refers back to its engine. Python's classes can be cleared, so the cycle ends there: no __clear__ here.
    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        self.clock.traverse(visit)?;
        visit.call(&self.host)?;
        self.table.traverse(&visit)
    }
}

impl Engine {
    /// Decides for whatever arguments.
    #[inline]
    pub fn ready_or_decide(
        &self,
        priority: &Bound<'_, PyAny>,
        queue_name: &Bound<'_, PyAny>,
        admit: bool,
    ) -> PyResult<Py<PyAny>> {
        // No answer that lies ready makes its caller wait, so it serves whoever asks.
        match self.ready(priority, queue_name)? {
            Some(decision) => Ok(decision),
            None => self.decide(priority, queue_name, admit),
        }
    }

    /// Returns the answer that lies ready, if it is still true, and counts it.
    #[inline]
    fn ready(&self, priority: &Bound<'_, PyAny>, queue_name: &Bound<'_, PyAny>) -> PyResult<Option<Py<PyAny>>> {
        let Some(priority) = self.vocabulary.known_priority(priority) else { return Ok(None) };
        let Ok(name) = queue_name.cast::<PyString>() else { return Ok(None) };
        self.hand_out_by_name(name, priority, |_| true, |_, decision| decision.unbind())
    }

    /// As `hand_out`; returns what `take`, which must not call out, makes of queue and answer.
    #[inline]
    pub fn hand_out_by_name<'py, R>(
        &self,
        name: &Bound<'py, PyString>,
        priority: Priority,
        accept: impl FnOnce(&Ready) -> bool,
        take: impl FnOnce(&Py<Queue>, Bound<'py, PyAny>) -> R,
    ) -> PyResult<Option<R>> {
        let py = name.py();
        if self.clock.is_system() {
            // Nothing is called meanwhile, so the table's own reference is enough.
            self.table.look(name, |queue| self.hand_out(py, queue, priority, accept, take))?.unwrap_or(Ok(None))
        } else {
            self.queue(name)?.map_or(Ok(None), |queue| self.hand_out(py, queue.as_unbound(), priority, accept, take))
        }
    }

    /// Returns and counts the answer that lies ready for a queue, if it is still true and acceptable. Nothing of
    /// Python's is called but an injected clock.
    #[expect(clippy::inline_always, reason = "two callers, of which one is hot")]
    #[inline(always)]
    pub fn hand_out<'py, R>(
        &self,
        py: Python<'py>,
        found: &Py<Queue>,
        priority: Priority,
        accept: impl FnOnce(&Ready) -> bool,
        take: impl FnOnce(&Py<Queue>, Bound<'py, PyAny>) -> R,
    ) -> PyResult<Option<R>> {
        let queue = &found.get().core;
        let Some(asked) = queue.seen(priority) else { return Ok(None) };
        let (epoch, word, sample) = (self.core.epoch(), queue.breaker.word(), queue.sample_number());
        let ready = asked.ready.read(|ready| {
            let current = ready.epoch == epoch && ready.word == word && ready.sample == sample;
            (current && accept(ready)).then(|| (ready.decision.bind(py).clone(), ready.until_ns, ready.row))
        });
        match ready {
            Some((decision, until_ns, row)) if self.clock.within(py, until_ns)? => {
                asked.count_again(row);
                Ok(Some(take(found, decision)))
            }
            _ => Ok(None),
        }
    }

    fn decide(&self, given: &Bound<'_, PyAny>, queue_name: &Bound<'_, PyAny>, admit: bool) -> PyResult<Py<PyAny>> {
        let py = given.py();
        let priority = self.vocabulary.priority(given)?;
        let (mode, now_ns) = self.look(py)?;
        let known = if queue_name.is_exact_instance_of::<PyString>() { self.queue(queue_name)? } else { None };
        let queue = if let Some(queue) = known {
            queue
        } else {
            let name = self.vocabulary.queue_name(queue_name)?;
            match self.track(&name, now_ns, true)? {
                Some(queue) => queue,
                None => return self.decide_untracked(&mode, priority, &name, now_ns),
            }
        };
        let (name, queue) = (queue.get().name.bind(py), &queue.get().core);
        let host = Border { engine: self, name };
        let decide = |mode: &Mode, now_ns, ask| {
            Call { engine: &self.core, host: &host, mode, priority, queue, now_ns }.decide(ask)
        };
        if let Some(decision) = decide(&mode, now_ns, Ask { admit, may_read: true, cold: None })? {
            return Ok(decision);
        }
        // Where there is a poller, only who must not go by what there is gets here.
        let wait = queue.sample().is_none() || mode.settings.polling;
        let cold = self.ask(py, intern!(py, "read"), (name, wait))?;
        let cold = if cold.is_none() { None } else { Some(self.vocabulary.reason(&cold)?) };
        let (mode, now_ns) = self.look(py)?;
        let decision = decide(&mode, now_ns, Ask { admit, may_read: false, cold })?;
        Ok(decision.expect("only a caller that may read is asked to"))
    }

    /// Counts a planned decision that is acted upon, and that it is refused if it comes too `late` for its caller.
    fn count(&self, planned: &Bound<'_, PyAny>, late: bool) -> PyResult<()> {
        let py = planned.py();
        let reason = self.reason_of(planned)?;
        let queue = self.queue(&planned.getattr(intern!(py, "queue_name"))?)?;
        let priority = self.vocabulary.priority(&planned.getattr(intern!(py, "priority"))?)?;
        let delay: f64 = planned.getattr(intern!(py, "delay"))?.extract()?;
        // Python's own rounding, so that both engines count the same nanoseconds.
        let delay_ns = PyFloat::new(py, delay * 1e9).call_method0(intern!(py, "__round__"))?.extract()?;
        let computed = planned.getattr(intern!(py, "_computed"))?.extract()?;
        let counters = match &queue {
            Some(queue) => &queue.get().core.asked(priority).counters,
            None => &self.core.other[priority.index()],
        };
        if reason != Reason::Untracked {
            // else it was counted when made
            counters.count(Row::of(reason, true), delay_ns, computed);
        }
        if late {
            counters.count_late();
        }
        Ok(())
    }

    fn decide_untracked(
        &self,
        mode: &Mode,
        priority: Priority,
        name: &Bound<'_, PyString>,
        now_ns: i64,
    ) -> PyResult<Py<PyAny>> {
        let host = Border { engine: self, name };
        let answer = self.core.untracked(mode, priority);
        let decision = core::Host::decision(&host, priority, &answer, None, now_ns, None)?;
        if mode.settings.observe { core::Host::observed(&host, decision) } else { Ok(decision) }
    }

    /// Returns the mode that holds now, and now.
    fn look(&self, py: Python<'_>) -> PyResult<(Arc<Mode>, i64)> {
        if !self.core.mode().running {
            let error = self.ask(py, intern!(py, "not_running"), ())?;
            return Err(PyErr::from_value(error));
        }
        let now_ns = self.clock.now_ns(py)?;
        let (mode, ended) = self.core.mode_at(now_ns);
        if ended {
            self.ask(py, intern!(py, "override_ended"), ())?;
        }
        Ok((mode, now_ns))
    }

    /// Calls a method of the host's.
    fn ask<'py, A>(&self, py: Python<'py>, method: &Bound<'py, PyString>, args: A) -> PyResult<Bound<'py, PyAny>>
    where
        A: IntoPyObject<'py, Target = PyTuple, Output = Bound<'py, PyTuple>, Error: Into<PyErr>>,
    {
        crossing::call_method(self.host.bind(py), method, args)
    }

    fn reason_of(&self, decision: &Bound<'_, PyAny>) -> PyResult<Reason> {
        self.vocabulary.reason(&decision.getattr(intern!(decision.py(), "reason"))?)
    }

    /// Tells the host of a change of a queue's breaker that is news.
    pub fn circuit_changed(&self, name: &Bound<'_, PyString>, change: Change) -> PyResult<()> {
        let py = name.py();
        let args = (name, change.old, change.new);
        self.ask(py, intern!(py, "circuit_changed"), args).map(drop)
    }

    /// Returns the queue of a name, if it has state. Whatever is no string names none.
    #[inline]
    pub fn queue<'py>(&self, name: &Bound<'py, PyAny>) -> PyResult<Option<Bound<'py, Queue>>> {
        let strong = |queue: &Py<Queue>| queue.bind(name.py()).clone();
        name.cast::<PyString>().map_or(Ok(None), |name| self.table.look(name, strong))
    }

    fn in_order<'py>(&self, py: Python<'py>) -> Vec<Bound<'py, Queue>> {
        let mut queues = self.table.all(py);
        queues.sort_unstable_by_key(|queue| queue.get().number);
        queues
    }

    /// Returns the queue's state, made if there is room for it.
    fn track<'py>(&self, name: &Bound<'py, PyString>, now_ns: i64, evict: bool) -> PyResult<Option<Bound<'py, Queue>>> {
        let (py, table) = (name.py(), &self.table);
        let settings = &self.core.mode().settings;
        if let Some(queue) = self.queue(name)? {
            return Ok(Some(queue));
        }
        let evict = evict && self.core.may_evict(now_ns);
        if table.len(py) >= settings.max_queues && !evict {
            return Ok(None);
        }
        let text = name.to_str()?;
        let circuit = Arc::clone(settings.circuit_of(text));
        let core = state::Queue::new(text, circuit, self.core.origin_ns, now_ns);
        let number = self.made.fetch_add(1, Ordering::Relaxed); // relaxed: no two are the same, that is all
        let made =
            Bound::new(py, Queue { core, name: name.clone().unbind(), last_failure: Failure::default(), number })?;
        // Everything that allocates Python objects was done above, everything that frees or calls follows below.
        let (queue, evicted) = with_critical_section(self.changing.bind(py), || {
            if let Some(queue) = self.queue(name)? {
                return Ok((Some(queue), Vec::new()));
            }
            let full = table.len(py) >= settings.max_queues;
            let evicted = if full && evict { self.evict(py, settings, now_ns)? } else { Vec::new() };
            if table.len(py) >= settings.max_queues {
                return Ok((None, evicted));
            }
            table.insert(name, made.clone())?;
            PyResult::Ok((Some(made), evicted))
        })?;
        for gone in evicted {
            self.ask(py, intern!(py, "evicted"), (gone.get().name.bind(py),))?;
        }
        Ok(queue)
    }

    /// Forgets the queues that nobody asked for in a long time, keeping their counts; returns them.
    fn evict<'py>(&self, py: Python<'py>, settings: &Settings, now_ns: i64) -> PyResult<Vec<Bound<'py, Queue>>> {
        let mut evicted = Vec::new();
        let mut next_ns = core::Engine::untouched_from_ns(settings, now_ns); // of the queue that takes the room
        for queue in self.in_order(py) {
            match core::Engine::idle_from_ns(settings, &queue.get().core, now_ns) {
                Some(from_ns) => next_ns = next_ns.min(from_ns),
                None => evicted.push(queue),
            }
        }
        self.core.set_next_eviction_ns(next_ns);
        if !evicted.is_empty() {
            self.core.void_ready(); // a gate may still hold one of them
        }
        for queue in &evicted {
            let queue = queue.get();
            self.table.remove(queue.name.bind(py))?;
            for priority in Priority::ALL {
                if let Some(asked) = queue.core.seen(priority) {
                    self.core.other[priority.index()].add(&asked.counters.totals());
                }
            }
        }
        Ok(evicted)
    }
}

/// The host during one call on one queue.
struct Border<'a, 'py> {
    engine: &'a Engine,
    name: &'a Bound<'py, PyString>,
}

impl core::Host for Border<'_, '_> {
    type Object = Py<PyAny>;
    type Error = PyErr;
    type Place = Guarded<Ready>;

    fn utc_now(&self) -> PyResult<Py<PyAny>> {
        let py = self.name.py();
        self.engine.ask(py, intern!(py, "utc_now"), ()).map(Bound::unbind)
    }

    fn check_poller(&self) -> PyResult<bool> {
        let py = self.name.py();
        self.engine.ask(py, intern!(py, "check_poller"), ())?.is_truthy()
    }

    fn circuit_changed(&self, change: Change) -> PyResult<()> {
        self.engine.circuit_changed(self.name, change)
    }

    fn zone_changed(&self, priority: Priority, old: Zone, new: Zone) -> PyResult<()> {
        let (py, vocabulary) = (self.name.py(), self.engine.vocabulary);
        let priority = vocabulary.priority_member(py, priority);
        let zones = (vocabulary.zone_member(py, old), vocabulary.zone_member(py, new));
        self.engine.ask(py, intern!(py, "zone_changed"), (self.name, priority, zones.0, zones.1)).map(drop)
    }

    fn decision(
        &self,
        priority: Priority,
        answer: &Answer<Py<PyAny>>,
        ticket: Option<CoreTicket>,
        issued_ns: i64,
        retry_at_ns: Option<i64>,
    ) -> PyResult<Py<PyAny>> {
        let (py, vocabulary) = (self.name.py(), self.engine.vocabulary);
        let timestamp = match &answer.source {
            Some(source) => source.timestamp.clone_ref(py),
            None => self.utc_now()?,
        };
        let fields: [Bound<'_, PyAny>; 12] = [
            vocabulary.priority_member(py, priority).clone(),
            self.name.clone().into_any(),
            answer.delay_ns.into_pyobject(py)?.into_any(),
            answer.shed.into_pyobject(py)?.to_owned().into_any(),
            vocabulary.reason_member(py, answer.reason).clone(),
            timestamp.into_bound(py),
            answer.backlog.into_pyobject(py)?,
            answer.zone.map(|zone| vocabulary.zone_member(py, zone).clone()).into_pyobject(py)?,
            ticket.map(Ticket).into_pyobject(py)?,
            issued_ns.into_pyobject(py)?.into_any(),
            retry_at_ns.into_pyobject(py)?,
            answer.computed.into_pyobject(py)?.to_owned().into_any(),
        ];
        let answer = vocabulary.answer(PyTuple::new(py, fields)?)?;
        self.engine.ask(py, intern!(py, "decision"), (answer,)).map(Bound::unbind)
    }

    fn observed(&self, decision: Py<PyAny>) -> PyResult<Py<PyAny>> {
        let py = self.name.py();
        self.engine.ask(py, intern!(py, "observed"), (decision,)).map(Bound::unbind)
    }

    fn share(&self, decision: &Py<PyAny>) -> Py<PyAny> {
        decision.clone_ref(self.name.py())
    }
}
